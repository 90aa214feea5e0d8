//! Placeholder with the signatures that the command line calls; the lead's file replaces it.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::config::Settings;

/// A running doorward.
#[derive(Debug)]
pub struct Doorward {}

impl Doorward {
    /// Builds, binds, serves.
    ///
    /// # Errors
    /// Anything that stops the start.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        anyhow::bail!("the gateway is not part of this build ({} upstreams)", settings.upstreams.len())
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Where the admin listener listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Drains and stops.
    pub fn stop(self) {}
}

/// Runs until SIGINT or SIGTERM.
#[must_use]
pub fn run_until_signal(doorward: Doorward) -> ExitCode {
    doorward.stop();
    ExitCode::SUCCESS
}
