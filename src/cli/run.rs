//! `doorward run`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::app::{self, Doorward, Reread};
use crate::config::{DEFAULT_CONFIG, Settings};
use crate::telemetry;

/// How long the last messages may take if nobody reads them.
pub(super) const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Stand in front of the configured services until SIGINT or SIGTERM
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward run --config /etc/doorward.toml\n  DOORWARD_GATEWAY__LISTEN=127.0.0.1:9000 doorward run"
)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    if settings.source.is_none() {
        writeln!(
            context.err,
            "warning: there is no {DEFAULT_CONFIG} here; the built-in defaults hold no upstreams and no issuers"
        )?;
    }
    let messages = telemetry::tracing::init(settings.log.format, settings.log.level)?;
    let source = settings.source.as_ref().map(|file| file.display().to_string());
    tracing::info!(configuration = source.as_deref().unwrap_or("built-in defaults"), "starting");
    let (config, env) = (context.config.clone(), context.env.clone());
    let reread: Reread =
        Arc::new(move || Settings::load(config.as_deref(), env.iter().cloned()).map(|(settings, _)| settings));
    let ended = Doorward::start(&settings, Some(reread)).map(app::run_until_signal);
    messages.flush_within(FLUSH_PATIENCE);
    ended
}
