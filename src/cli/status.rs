//! `doorward status`.

use std::process::ExitCode;

use http::StatusCode;
use serde_json::{Value, json};

use super::running::{Control, Running};
use super::{Context, FAILED, Output};
use crate::config::Settings;

/// Show what the doorward that runs with this configuration does: readiness, version, the policies in force, how revocation stands
///
/// Asks /readyz and /metrics of the admin listener, and the control socket for the last change's number. Exit 0 if it is ready and its policy files are in force as they stand; 1 if it
/// is not ready, if a changed policy was refused, or if nobody answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  doorward status\n  doorward status --output json | jq -r '.policies[].sha256'")]
pub(super) struct Args {
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let running = Running::of(&settings)?;
    let ready = running.get("/readyz")?.status == StatusCode::OK;
    let metrics = running.get("/metrics")?;
    if metrics.status != StatusCode::OK {
        let hint = "/metrics is not open ([admin] metrics_open), so only readiness is known";
        writeln!(context.err, "warning: {hint}: it answered {}", metrics.status.as_u16())?;
    }
    let samples: Vec<Sample<'_>> = metrics.text.lines().filter_map(sample).collect();
    let of = |name: &str| samples.iter().find(|sample| sample.name == name);
    let version = of("doorward_build_info").and_then(|sample| sample.label("version"));
    let snapshot = of("doorward_snapshot_version").map(|sample| sample.value);
    let refused = of("doorward_policy_reload_failed").is_some_and(|sample| sample.value != "0");
    let mut policies: Vec<(&str, &str)> = samples
        .iter()
        .filter(|sample| sample.name == "doorward_policy_info")
        .filter_map(|sample| Some((sample.label("service")?, sample.label("sha256")?)))
        .collect();
    policies.sort_unstable();
    let truth = truth(&settings, context)?;
    match args.output {
        Output::Json => context.json(&json!({
            "ready": ready,
            "version": version,
            "snapshot": snapshot.and_then(|number| number.parse::<u64>().ok()),
            "policy_reload_failed": refused,
            "revocation": truth,
            "policies": policies.iter().map(|(service, sha256)| json!({"service": service, "sha256": sha256})).collect::<Vec<_>>(),
        }))?,
        Output::Text => {
            let word = if ready { "ready" } else { "not ready" };
            writeln!(context.out, "doorward {}: {word}", version.unwrap_or("of an unknown version"))?;
            for (service, sha256) in policies {
                writeln!(context.out, "policy of {service}: sha256 {sha256}")?;
            }
            if let Some(truth) = &truth {
                write_truth(truth, context)?;
            }
            if refused {
                writeln!(context.out, "a changed policy was refused; the one before stays in force (see the log)")?;
            }
        }
    }
    Ok(if ready && !refused { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What the control socket says of revocation, if there is one.
fn truth(settings: &Settings, context: &mut Context<'_>) -> anyhow::Result<Option<Value>> {
    let Some(control) = Control::of(settings)? else { return Ok(None) };
    match control.get("/api/status") {
        Ok(answer) => Ok(answer
            .filter(|answer| answer.status == StatusCode::OK)
            .and_then(|answer| serde_json::from_str(&answer.text).ok())),
        Err(error) => {
            writeln!(context.err, "warning: {error:#}")?;
            Ok(None)
        }
    }
}

fn write_truth(truth: &Value, context: &mut Context<'_>) -> std::io::Result<()> {
    let published = if truth["published"] == true { "published" } else { "not published yet" };
    let number = &truth["number"];
    let held = format!("{} revocations and {} overrides", truth["revocations"], truth["overrides"]);
    match truth["staleness_seconds"].as_f64() {
        _ if truth["loaded"] != true => writeln!(context.out, "revocation: no state was loaded and proven yet"),
        Some(age) if truth["follows"] == true => {
            writeln!(context.out, "revocation: {held} in force, the control plane was heard {age:.0} s ago")
        }
        _ => writeln!(context.out, "revocation: {held} in force, last change {number}, {published}"),
    }
}

/// One line of the Prometheus text format.
struct Sample<'t> {
    name: &'t str,
    labels: &'t str,
    value: &'t str,
}

/// A sample of those that are looked for: their labels are words, so that none holds a quote, a comma or a brace.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Sample { name, labels: labels.trim_end_matches('}'), value })
}

impl<'t> Sample<'t> {
    fn label(&self, name: &str) -> Option<&'t str> {
        let labels = self.labels.split(',').filter_map(|label| label.split_once('='));
        let mut named = labels.filter(|(label, _)| *label == name);
        named.next()?.1.strip_prefix('"')?.strip_suffix('"')
    }
}
