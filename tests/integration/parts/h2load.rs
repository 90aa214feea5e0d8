//! h2load, the load generator of nghttp2, in each protocol: many streams on few connections, each decided for itself.

use std::process::Command;

use super::downstream::{Downstream, Gateway};
use super::part::run;
use super::service::Service;

const REQUESTS: usize = 2000;

#[test]
fn every_request_of_h2load_is_answered_over_h1() {
    load(Downstream::H1);
}

#[test]
fn every_request_of_h2load_is_answered_over_h1_with_tls() {
    load(Downstream::H1Tls);
}

#[test]
fn every_request_of_h2load_is_answered_over_h2_with_tls() {
    load(Downstream::H2Tls);
}

#[test]
fn every_request_of_h2load_is_answered_over_h2c() {
    load(Downstream::H2c);
}

fn load(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    let permitted = format!("authorization: Bearer {}", gateway.token());
    let powerless = format!("authorization: Bearer {}", gateway.powerless_token());

    assert_eq!(statuses(&gateway, "/get", &[]), format!("0 2xx, 0 3xx, {REQUESTS} 4xx, 0 5xx"));
    assert_eq!(statuses(&gateway, "/get", &["--header", &powerless]), format!("0 2xx, 0 3xx, {REQUESTS} 4xx, 0 5xx"));
    assert_eq!(service.contacts(), (0, 0));

    assert_eq!(statuses(&gateway, "/get", &["--header", &permitted]), format!("{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx"));
    assert_eq!(service.contacts().1, REQUESTS);

    // Bodies each way: what h2load is given as data, and what it gets.
    let body = gateway.doorward.path("body");
    std::fs::write(&body, "x".repeat(20_000)).unwrap();
    let upload = ["--header", &permitted, "--data", body.to_str().unwrap()];
    assert_eq!(statuses(&gateway, "/trailers", &upload), format!("{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx"));
    assert_eq!(service.contacts().1, 2 * REQUESTS);
}

/// What h2load counts, after it has seen that each request was answered.
fn statuses(gateway: &Gateway, target: &str, more: &[&str]) -> String {
    let mut command = Command::new("h2load");
    command.args(["--requests", &REQUESTS.to_string(), "--clients", "8"]);
    if gateway.downstream.protocol() == "h1" {
        command.arg("--h1");
    } else {
        command.args(["--max-concurrent-streams", "16"]);
    }
    command.args(more).arg(gateway.url(target));
    let text = run(command).text();
    let after = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("h2load does not say {name}:\n{text}")).trim().to_owned()
    };
    let (done, rest) = (after("requests:"), after("status codes:"));
    let all = format!("{REQUESTS} total, {REQUESTS} started, {REQUESTS} done,");
    assert!(done.starts_with(&all) && done.ends_with("0 errored, 0 timeout"), "{text}");
    if gateway.downstream == Downstream::H2Tls {
        assert_eq!(after("Application protocol:"), "h2");
    }
    rest
}
