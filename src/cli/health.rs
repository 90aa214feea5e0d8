//! `doorward health`.

use std::process::ExitCode;

use http::StatusCode;

use super::running::Running;
use super::{Context, FAILED};

/// Ask whether the doorward that runs with this configuration is ready; for container health checks
///
/// Asks /readyz of the admin listener. Exit 0 if it is ready; 1 if it is not, or if nobody answers within 5 s.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward health\n  HEALTHCHECK CMD [\"doorward\", \"health\", \"--config\", \"/etc/doorward.toml\"]"
)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let answer = Running::of(&settings)?.get("/readyz")?;
    if answer.status == StatusCode::OK {
        writeln!(context.out, "ready")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(context.err, "not ready: {} {}", answer.status.as_u16(), answer.text.trim())?;
    Ok(ExitCode::from(FAILED))
}
