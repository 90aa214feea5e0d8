//! `doorward policy …`.

mod check;
mod explain;
mod files;
mod schema;
mod test;

use std::process::ExitCode;

use super::Context;

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  doorward policy check && doorward policy test")]
pub(super) enum Command {
    /// Check policy files and the roles file, all faults at once
    Check(check::Args),
    /// Run the cases of *.test.yaml files, with coverage of routes and branches
    Test(test::Args),
    /// Say how a request would be decided, and why
    Explain(explain::Args),
    /// Print the JSON Schema of a policy file, for editors
    Schema(schema::Args),
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => check::run(&args, context),
        Command::Test(args) => test::run(&args, context),
        Command::Explain(args) => explain::run(&args, context),
        Command::Schema(args) => schema::run(&args, context),
    }
}
