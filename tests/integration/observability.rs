//! What operators see: metrics, access lines, health (SPEC 11; T31).

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Behaviour, Doorward, Issuer, Upstream, doorward, eventually, now};

fn guarded() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

/// Waits until a metric has this value: counters may be gathered from several workers.
fn expect_metric(running: &Doorward, name: &str, labels: &[&str], value: f64) {
    let mut last = f64::NAN;
    eventually(&format!("{name}{labels:?} = {value}\n{}", running.metrics()), Duration::from_secs(20), || {
        last = running.metric(name, labels);
        (last == value).then_some(())
    });
}

#[test]
fn requests_are_counted_by_pattern_never_by_path() {
    let (running, _upstream, issuer) = guarded();
    let token = issuer.viewer();
    for id in 0..5 {
        assert_eq!(running.get_as(&format!("/items/{id}?secret=query"), &token).status, 200);
    }
    running.get("/items/9");
    running.request("DELETE", "/items/9", &token, &[], "");
    running.get("/no/such/path");
    running.send("BREW /public HTTP/1.1\r\nHost: a\r\n\r\n");

    let of = |route: &'static str, status: &'static str| ["service=\"oms\"", route, status];
    expect_metric(&running, "doorward_requests_total", &of("route=\"/items/{id}\"", "status=\"200\""), 5.0);
    expect_metric(&running, "doorward_requests_total", &of("route=\"/items/{id}\"", "status=\"401\""), 1.0);
    expect_metric(
        &running,
        "doorward_requests_total",
        &["route=\"/items/{id}\"", "method=\"DELETE\"", "status=\"403\""],
        1.0,
    );
    expect_metric(&running, "doorward_requests_total", &["route=\"none\"", "status=\"403\""], 1.0);
    expect_metric(&running, "doorward_requests_total", &["method=\"other\"", "status=\"405\""], 1.0);
    expect_metric(&running, "doorward_auth_failures_total", &["reason=\"missing_token\""], 1.0);
    expect_metric(&running, "doorward_auth_failures_total", &["reason=\"permission_missing\""], 1.0);
    expect_metric(&running, "doorward_auth_failures_total", &["reason=\"no_route\""], 1.0);
    expect_metric(&running, "doorward_request_duration_seconds_count", &["route=\"/items/{id}\""], 7.0);
    expect_metric(&running, "doorward_upstream_duration_seconds_count", &["upstream=\"oms\""], 5.0);
    expect_metric(&running, "doorward_token_cache_misses_total", &[], 1.0);
    expect_metric(&running, "doorward_token_validation_seconds_count", &["source=\"verify\""], 1.0);
    let metrics = running.metrics();
    for leaked in ["/items/3", "/no/such/path", "BREW", "secret"] {
        assert!(!metrics.contains(leaked), "{leaked} became a label");
    }
}

#[test]
fn the_families_of_spec_11_are_there() {
    let (running, upstream, issuer) = guarded();
    running.get_as("/items", &issuer.viewer());
    running.get_as("/items", &issuer.viewer());
    running.get_as("/items", &issuer.token().claim("exp", now() - 100).claim("iat", now() - 200).sign());
    upstream.behave(Behaviour::Close);
    running.get("/public");
    let metrics = running.metrics();
    for family in [
        "doorward_requests_total",
        "doorward_request_duration_seconds",
        "doorward_upstream_duration_seconds",
        "doorward_token_validation_seconds",
        "doorward_decision_seconds",
        "doorward_auth_failures_total",
        "doorward_token_cache_hits_total",
        "doorward_token_cache_misses_total",
        "doorward_revocations",
        "doorward_policy_info",
        "doorward_policy_reload_failed",
        "doorward_snapshot_version",
        "doorward_upstream_connections",
        "doorward_connections",
        "doorward_limit_rejections_total",
        "doorward_build_info",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(metrics.contains(&format!("# TYPE {family} ")), "{family} is missing from\n{metrics}");
    }
    let samples = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for sample in samples {
        let number = sample.rsplit(' ').next().unwrap();
        assert!(number.parse::<f64>().is_ok(), "no sample: {sample}");
    }
    let info = metrics.lines().find(|line| line.starts_with("doorward_policy_info{")).expect("policy_info");
    assert!(info.contains("service=\"oms\"") && info.contains("sha256=\""), "{info}");
}

#[test]
fn every_request_has_one_access_line_with_all_keys() {
    let (running, _upstream, issuer) = guarded();
    let token = issuer.viewer();
    let response = running.get_as("/items/7?secret=query", &token);
    let line = running.access_line(response.field("x-request-id").unwrap());
    for key in [
        "time",
        "request_id",
        "trace_id",
        "service",
        "host",
        "method",
        "path",
        "route",
        "status",
        "decision",
        "reason",
        "permission",
        "subject",
        "roles",
        "memberships",
        "session",
        "duration_ms",
        "upstream_ms",
        "bytes_in",
        "bytes_out",
        "peer",
    ] {
        assert!(line.get(key).is_some(), "{key} is missing from {line}");
    }
    assert_eq!(line["service"], "oms");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["path"], "/items/7");
    assert_eq!(line["route"], "/items/{id}");
    assert_eq!(line["host"], "oms.test");
    assert_eq!(line["status"], 200);
    assert_eq!(line["decision"], "allow");
    assert_eq!(line["subject"], "u-1");
    assert!(line["roles"].to_string().contains("ROLE_VIEWER"));
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert!(line["upstream_ms"].as_f64().is_some(), "{line}");

    let response = running.request("DELETE", "/items/7", &token, &[], "");
    let line = running.access_line(response.field("x-request-id").unwrap());
    assert_eq!(
        (&line["status"], &line["decision"], &line["reason"]),
        (&403.into(), &"deny".into(), &"permission_missing".into())
    );
    assert!(line["permission"].to_string().contains("item:"), "{line}");
    assert_eq!(line["subject"], "u-1");
    assert!(line["upstream_ms"].is_null(), "nothing was forwarded: {line}");
}

#[test]
fn neither_query_nor_token_nor_line_breaks_reach_the_log() {
    let (running, _upstream, issuer) = guarded();
    let token = issuer.token().claim("name", "a\n{\"forged\": true}").sign();
    running.get_as("/items/7?password=hunter2", &token);
    running.get_as("/items/7", "not.a.token-at-all");
    let last = running.get("/nowhere");
    running.access_line(last.field("x-request-id").unwrap());
    let all = running.stdout() + &running.stderr();
    let signature = token.rsplit('.').next().unwrap();
    for secret in ["hunter2", signature, "token-at-all", "password"] {
        assert!(!all.contains(secret), "{secret} stands in\n{all}");
    }
    for line in running.stdout().lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.get("forged").is_none()),
            "no JSON line: {line}"
        );
    }
}

#[test]
fn health_and_readiness_are_answered_to_anybody_on_the_admin_listener() {
    let (running, _upstream, _) = guarded();
    for target in ["/healthz", "/readyz"] {
        assert_eq!(running.admin_request("GET", target, None, "").status, 200, "{target}");
        assert_eq!(running.get(target).status, 403, "{target} is no route of the gateway");
    }
}

#[test]
fn t31_a_plain_upstream_on_another_machine_is_warned_of_at_start() {
    let [port] = crate::harness::free_ports();
    let issuer = Issuer::hs256();
    let start =
        |endpoint: String| doorward().issuer(&issuer).setting("upstreams.oms.endpoints", vec![endpoint]).start();
    let warned = |running: &Doorward| {
        let told = running.stdout() + "\n" + &running.stderr();
        told.lines().any(|line| line.to_lowercase().contains("warn") && line.contains("oms"))
    };
    let unprotected = |running: &Doorward| running.metric("doorward_upstream_unprotected", &["upstream=\"oms\""]);
    let running = start("http://192.0.2.1:8000".to_owned());
    // The log is written by a thread of its own; what it says of the start is there soon after.
    let is_told = || warned(&running).then_some(());
    eventually("a line of level WARN names the upstream", Duration::from_secs(20), is_told);
    assert_eq!(unprotected(&running), 1.0);
    let running = start(format!("http://127.0.0.1:{port}"));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((warned(&running), unprotected(&running)), (false, 0.0));
}

#[test]
fn report_mode_lets_through_what_it_would_deny_and_says_so() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).setting("gateway.mode", "report").start();
    assert_eq!(running.get("/items").status, 200, "missing_token");
    let response = running.request("DELETE", "/items/1", &issuer.viewer(), &[], "");
    assert_eq!(response.status, 200, "permission_missing");
    let line = running.access_line(response.field("x-request-id").unwrap());
    assert_eq!(line["would_deny"], "permission_missing", "{line}");
    assert_eq!(upstream.last().field("x-user-id"), Some("u-1"));
    expect_metric(&running, "doorward_report_only_total", &["reason=\"permission_missing\""], 1.0);
    expect_metric(&running, "doorward_report_only_total", &["reason=\"missing_token\""], 1.0);
}

#[test]
fn t21_report_mode_opens_neither_deny_nor_bad_tokens_nor_the_admin_listener() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).setting("gateway.mode", "report").start();
    assert_eq!(running.get("/closed").denial(), (403, "route_denied".into()));
    assert_eq!(running.get_as("/items", "a.b.c").denial(), (401, "malformed_token".into()));
    assert_eq!(running.get("/a/../items").status, 400);
    let response = running.admin_request("POST", "/api/revocations", None, r#"{"jti": "t-1"}"#);
    assert_eq!(response.denial(), (401, "missing_token".into()));
    assert_eq!(upstream.count(), 0);
}
