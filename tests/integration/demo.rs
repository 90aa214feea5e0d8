//! `doorward demo`: every curl line that it prints gives the result that it prints.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::eventually;

/// A running demo on ports of its own, in an empty folder: it must need nothing that lies about.
struct Demo {
    child: Child,
    out: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Demo {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_doorward"))
            .args(["demo", "--gateway-port", "0", "--admin-port", "0", "--oms-port", "0"])
            .args(more)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, _folder: folder }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        if self.out.read_line(&mut line).unwrap() == 0 {
            let mut stderr = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("the demo ended:\n{stderr}");
        }
        line.truncate(line.trim_end_matches('\n').len());
        line
    }

    /// Sends SIGINT, as Ctrl-C does, and waits.
    fn interrupt(&mut self) -> ExitStatus {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        eventually("the demo ends", Duration::from_secs(20), || self.child.try_wait().unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line as a reader would paste it, with the tokens set before.
fn paste(variables: &[(String, String)], line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env_remove("http_proxy")
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shows(line: &str, answer: &str, status: u64, contains: &str) {
    if line.contains("curl -i") {
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("HTTP/1.1 {status}")), "{line}\n{answer}");
    }
    assert!(answer.contains(contains), "{line}\nshould show {contains}\n{answer}");
}

#[test]
fn every_step_gives_what_the_report_says() {
    let mut demo = Demo::start(&["--output", "json"]);
    let report: Value = serde_json::from_str(&demo.line()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let variables: Vec<_> =
        report["variables"].as_object().unwrap().iter().map(|(name, token)| (name.clone(), text(token))).collect();
    let steps = report["steps"].as_array().unwrap();
    let mut statuses = Vec::new();
    for step in steps {
        let (line, status) = (text(&step["command"]), step["status"].as_u64().unwrap());
        shows(&line, &paste(&variables, &line), status, step["contains"].as_str().unwrap());
        statuses.push(status);
    }
    for told in [401, 200, 403, 201] {
        assert!(statuses.contains(&told), "the demo shows no {told}: {statuses:?}");
    }
    assert!(steps.iter().any(|step| text(&step["command"]).contains("X-User-Id")), "a spoofed header is shown");
    assert!(steps.iter().any(|step| text(&step["command"]).contains("/metrics")), "a metric is shown");
    assert_eq!(demo.interrupt().code(), Some(0), "Ctrl-C ends it cleanly");
}

#[test]
fn every_printed_line_can_be_pasted_from_the_top() {
    let mut demo = Demo::start(&[]);
    let mut variables = Vec::new();
    let mut shown = 0;
    loop {
        let line = demo.line();
        if line.contains("Ctrl-C ends the demo") {
            break;
        }
        let Some(command) = line.strip_prefix("$ ") else { continue };
        if let Some((name, token)) = command.split_once('=').filter(|(name, _)| name.ends_with("_TOKEN")) {
            variables.push((name.to_owned(), token.to_owned()));
            continue;
        }
        let result = demo.line();
        let result =
            result.trim_start().strip_prefix("→ ").unwrap_or_else(|| panic!("{command} has no result: {result}"));
        let (status, contains) = result.split_once(" … ").unwrap_or((result, ""));
        shows(command, &paste(&variables, command), status.trim().parse().unwrap(), contains);
        shown += 1;
    }
    assert!(shown >= 6 && variables.len() == 3, "{shown} lines, {} tokens", variables.len());
    assert_eq!(demo.interrupt().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for option in ["--gateway-port", "--admin-port", "--oms-port"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("demo");
        for other in ["--gateway-port", "--admin-port", "--oms-port"] {
            command.args([other, if other == option { &port } else { "0" }]);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&port) && stderr.contains(option), "{stderr}");
    }
}
