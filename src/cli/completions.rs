//! `doorward completions`.

use std::process::ExitCode;

use clap::CommandFactory as _;

use super::{Cli, Context};

/// Print a shell's completion script
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward completions bash > ~/.local/share/bash-completion/completions/doorward\n  doorward completions fish > ~/.config/fish/completions/doorward.fish"
)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    // clap_complete panics when its writer fails, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "doorward", &mut script);
    context.out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
