//! `doorward policy …`.

use std::process::ExitCode;

use super::Context;

mod check;
mod files;
mod schema;

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  doorward policy check policies/oms.yaml")]
pub(super) enum Command {
    /// Check policy files and the roles file, all faults at once
    Check(check::Args),
    /// Print the JSON Schema of a policy file, for editors
    Schema(schema::Args),
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => check::run(&args, context),
        Command::Schema(args) => schema::run(&args, context),
    }
}
