//! `doorward policy check`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::files::{Chosen, Files, Listeners};
use crate::cli::{Context, FAILED, Output};
use crate::policy::Severity;

/// Check policy files and the roles file they are held against: all faults at once, each with its place and mend
///
/// Without files: those of the configuration, the admin listener's own included. Exit 1 if there is an error.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward policy check\n  doorward policy check policies/oms.yaml --roles config/roles.yaml --output json"
)]
pub(in crate::cli) struct Args {
    /// Policy files; default: those of the configuration
    files: Vec<PathBuf>,
    /// The roles file; default: that of the configuration
    #[arg(long, value_name = "FILE")]
    roles: Option<PathBuf>,
    /// How to write what was found
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let chosen = Chosen { files: &args.files, roles: args.roles.as_deref(), of: Listeners::All };
    let mut files = Files::load(&chosen, context)?;
    files.warn_of_unasked();
    let found = files.diagnostics();
    let ok = !found.has_errors();
    match args.output {
        Output::Json => context.json(&json!({ "ok": ok, "problems": found.to_json() }))?,
        Output::Text => {
            let text = found.render(std::io::stdout().is_terminal());
            write!(context.out, "{text}")?;
            let (names, count) = (files.names(), files.route_count());
            let errors = found.0.iter().filter(|finding| finding.severity == Severity::Error).count();
            match (ok, found.0.len() - errors) {
                (true, 0) => writeln!(context.out, "ok: {names}: {count} routes")?,
                (true, warnings) => {
                    writeln!(context.out, "ok, with {}: {names}: {count} routes", counted(warnings, "warning"))?;
                }
                (false, _) => writeln!(context.err, "{}: {names}", counted(errors, "error"))?,
            }
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
