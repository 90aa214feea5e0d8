//! `doorward policy test`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::files::{Chosen, Files, Listeners};
use crate::cli::{Context, FAILED, Output};
use crate::clock::Timestamp;
use crate::config;
use crate::policy::SourceText;
use crate::policy::cases::CaseFile;

/// Run the cases of *.test.yaml files against their policies; exit 1 if one comes out otherwise than expected
///
/// A file of cases names its policy with `policy:`, relative to itself; without it, NAME.test.yaml tests NAME.yaml,
/// and any other file those of the configuration.
/// Without files: those that stand beside the configured policies.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  doorward policy test\n  doorward policy test policies/oms.test.yaml --output json")]
pub(in crate::cli) struct Args {
    /// Files of cases
    files: Vec<PathBuf>,
    /// The roles file; default: that of the configuration
    #[arg(long, value_name = "FILE")]
    roles: Option<PathBuf>,
    /// How to write the results
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let paths = if args.files.is_empty() { beside_policies(context)? } else { args.files.clone() };
    let mut ok = true;
    let mut reports = Vec::new();
    for path in &paths {
        let source = config::read(path)?;
        let cases = parse(&source)?;
        let policy = policy_of(path, &cases);
        let of = if policy.is_some() { Listeners::All } else { Listeners::Gateway };
        let chosen = Chosen { files: policy.as_slice(), roles: args.roles.as_deref(), of };
        let files = Files::load(&chosen, context)?;
        let snapshot = files.snapshots()?.first().context("there is no policy file")?;
        let report = cases.run(snapshot, Timestamp::now());
        ok &= report.passed();
        match args.output {
            Output::Text => write!(context.out, "{}: {}", source.name, report.to_text(&source))?,
            Output::Json => {
                let mut value = report.to_json(&source);
                value["file"] = source.name.as_str().into();
                reports.push(value);
            }
        }
    }
    if args.output == Output::Json {
        context.json(&json!({ "ok": ok, "files": reports }))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn parse(source: &Arc<SourceText>) -> anyhow::Result<CaseFile> {
    let (cases, found) = CaseFile::parse(Arc::clone(source));
    match cases {
        Some(cases) if !found.has_errors() => Ok(cases),
        _ => bail!("{}\n{}", source.name, found.render(false).trim_end()),
    }
}

/// The case files that stand beside the configured policies.
fn beside_policies(context: &mut Context<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let settings = context.settings()?;
    let policies = settings.gateway.policies.iter().chain([&settings.admin.policy]);
    let found: Vec<PathBuf> =
        policies.map(|path| path.with_extension("test.yaml")).filter(|path| config::read(path).is_ok()).collect();
    if found.is_empty() {
        bail!("no *.test.yaml stands beside the configured policies; name a file of cases");
    }
    Ok(found)
}

/// The policy file that the cases are about; `None`: those of the configuration.
fn policy_of(path: &Path, cases: &CaseFile) -> Option<PathBuf> {
    if let Some(policy) = &cases.policy {
        return Some(path.with_file_name("").join(&policy.value));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".test.yaml").filter(|stem| !stem.is_empty())?;
    Some(path.with_file_name(format!("{stem}.yaml")))
}
