//! `doorward run`.

use std::process::ExitCode;

use super::Context;
use crate::app::{self, Doorward};

/// Stand in front of the configured services until SIGINT or SIGTERM
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward run --config /etc/doorward.toml\n  DOORWARD_GATEWAY__LISTEN=127.0.0.1:9000 doorward run"
)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let doorward = Doorward::start(&settings)?;
    let source = settings.source.map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string());
    for (name, address) in [("gateway", doorward.gateway_address()), ("admin", doorward.admin_address())] {
        if let Some(address) = address {
            writeln!(context.err, "doorward: {name} on http://{address} ({source})")?;
        }
    }
    Ok(app::run_until_signal(doorward))
}
