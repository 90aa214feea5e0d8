//! `doorward policy schema`.

use std::process::ExitCode;

use crate::cli::Context;
use crate::policy::schema::policy_schema;

/// Print the JSON Schema of a policy file, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  doorward policy schema > policies/doorward-policy.v1.schema.json")]
pub(in crate::cli) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    context.json(&policy_schema())?;
    Ok(ExitCode::SUCCESS)
}
