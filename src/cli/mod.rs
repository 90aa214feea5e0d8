//! The command line: one file a command.
//!
//! Results go to the standard output, messages to the standard error. Exit codes: 0 good, 1 the answer is no or
//! something failed, 2 wrong use (by clap). Commands get everything that they touch (streams, environment) through
//! `Context`, so that tests call them as the shell does.
//!
//! Must not know: the internals of rooms.

mod change;
mod completions;
mod config;
mod demo;
mod health;
mod keys;
mod override_grants;
mod policy;
mod revoke;
mod run;
mod running;
mod status;
mod token;
mod verifying;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{ConfigError, Settings};

/// doorward's arguments.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, about, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Example:\n  doorward demo\n\nExit codes: 0 good, 1 the answer is no or something failed, 2 wrong use."
)]
pub struct Cli {
    /// The configuration file; default: what DOORWARD_CONFIG names, else config/doorward.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

// What is said of a command stands with its arguments: a word here would hide the rest of it.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    /// Check, test and explain policy files
    #[command(subcommand)]
    Policy(policy::Command),
    /// Make and read tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Rotate and show doorward's own signing keys
    #[command(subcommand)]
    Keys(keys::Command),
    Revoke(revoke::Args),
    Override(override_grants::Args),
    Health(health::Args),
    Status(status::Args),
    Config(config::Args),
    Completions(completions::Args),
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// What a command may touch.
struct Context<'c> {
    /// `--config`
    config: Option<PathBuf>,
    /// The environment.
    env: Vec<(String, String)>,
    /// The standard input.
    stdin: &'c mut dyn Read,
    /// Results.
    out: &'c mut dyn Write,
    /// Messages.
    err: &'c mut dyn Write,
}

impl Context<'_> {
    /// The settings in force; warnings are told.
    fn settings(&mut self) -> anyhow::Result<Settings> {
        let (settings, warnings) = Settings::load(self.config.as_deref(), self.env.iter().cloned())?;
        for warning in warnings {
            writeln!(self.err, "warning: {warning}")?;
        }
        Ok(settings)
    }

    /// Writes a result as JSON, indented.
    fn json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        // As an IO error again, so that a closed pipe is known for one.
        serde_json::to_writer_pretty(&mut self.out, value).map_err(std::io::Error::from)?;
        writeln!(self.out)?;
        Ok(())
    }
}

const FAILED: u8 = 1;

/// Keys that are made where nobody else knows them sign what nobody else believes; and with the file there, the next start would follow
/// the announced ones no longer.
const FOLLOWS: &str = "this process follows a control plane ([publication] public_keys without key_file) and has no keys of its own \
                       to sign with (auth.local_keys): run this where the control plane runs, or copy its key file here first";

impl Cli {
    /// Runs the command.
    pub fn execute(
        self,
        env: impl Iterator<Item = (String, String)>,
        stdin: &mut dyn Read,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> ExitCode {
        let mut context = Context { config: self.config, env: env.collect(), stdin, out, err };
        let result = match self.command {
            Command::Run(args) => run::run(&args, &mut context),
            Command::Demo(args) => demo::run(&args, &mut context),
            Command::Policy(command) => policy::run(command, &mut context),
            Command::Token(command) => token::run(command, &mut context),
            Command::Keys(command) => keys::run(command, &mut context),
            Command::Revoke(args) => revoke::run(&args, &mut context),
            Command::Override(args) => override_grants::run(&args, &mut context),
            Command::Health(args) => health::run(&args, &mut context),
            Command::Status(args) => status::run(&args, &mut context),
            Command::Config(args) => config::run(&args, &mut context),
            Command::Completions(args) => completions::run(&args, &mut context),
        };
        let result = result.and_then(|code| Ok(context.out.flush().map(|()| code)?));
        let error = match result {
            Ok(code) => return code,
            Err(error) => error,
        };
        // Whoever closed the pipe (`| head`) has read enough.
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        let text = match error.downcast_ref::<ConfigError>() {
            Some(config) if config.0.len() > 1 => {
                format!("the configuration has {} mistakes\n{config}", config.0.len())
            }
            _ => format!("{error:#}"),
        };
        // Findings in policy files say themselves that they are errors.
        let prefix = if text.starts_with("error[") { "" } else { "error: " };
        // Without a standard error there is nobody left to tell.
        let _ = writeln!(context.err, "{prefix}{text}");
        ExitCode::from(FAILED)
    }
}
