//! `doorward token …`.

mod inspect;
mod mint;

use std::process::ExitCode;

use super::Context;

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  doorward token mint --sub alice --role ROLE_EDITOR | doorward token inspect -")]
pub(super) enum Command {
    /// Make a token with the private keys (or the shared secret) that the configuration knows, and print it
    Mint(mint::Args),
    /// Show what a token says, and whether the configured issuers accept it
    Inspect(inspect::Args),
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Mint(args) => mint::run(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
    }
}
