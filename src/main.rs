//! The `doorward` program: the allocator, the streams, and the command line.

use std::process::ExitCode;

use clap::Parser as _;
use doorward::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = doorward::config::environment();
    cli.execute(environment, &mut std::io::stdin(), &mut std::io::stdout(), &mut std::io::stderr())
}
