//! Audit events of requests, in the log (SPEC 3.9; T41).

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Behaviour, Doorward, Issuer, Upstream, doorward, eventually};

const AUDITED: &str = "
version: 1
service: oms
upstream: oms
paths:
  /public:
    get: public
  /items:
    get: item:view
  /reports/{id}:
    get: { require: item:view, audit: true }
";

fn guarded() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().policy(AUDITED).issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

/// What the audit was told up to now.
fn events(running: &Doorward) -> Vec<Value> {
    let lines = running.stdout();
    let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["type"] == "audit").collect()
}

fn event(running: &Doorward, request_id: &str) -> Value {
    eventually(&format!("an audit event of {request_id}"), Duration::from_secs(20), || {
        events(running).into_iter().find(|event| event["request_id"] == request_id)
    })
}

#[test]
fn denials_and_marked_routes_are_audited_and_nothing_else() {
    let (running, upstream, issuer) = guarded();
    let viewer = issuer.viewer();
    let quiet = [running.get("/public"), running.get_as("/items", &viewer)];
    upstream.behave(Behaviour::Close);
    let failed = running.get("/public");
    assert_eq!(failed.status, 502);
    upstream.behave(Behaviour::Echo);
    let denied = running.get("/items?password=hunter2");
    let audited = running.get_as("/reports/7?password=hunter2", &viewer);

    let told = event(&running, denied.field("x-request-id").unwrap());
    let keys = "type event_type time request_id service route method status reason subject peer";
    let mut expected: Vec<&str> = keys.split(' ').collect();
    expected.sort_unstable();
    assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), expected);
    assert_eq!((&told["event_type"], &told["reason"]), (&"access.denied".into(), &"missing_token".into()));
    assert_eq!((&told["service"], &told["route"], &told["method"]), (&"oms".into(), &"/items".into(), &"GET".into()));
    assert_eq!((&told["status"], &told["subject"], &told["peer"]), (&401.into(), &Value::Null, &"127.0.0.1".into()));

    let told = event(&running, audited.field("x-request-id").unwrap());
    assert_eq!((&told["event_type"], &told["reason"]), (&"access.audited".into(), &Value::Null));
    assert_eq!((&told["route"], &told["status"]), (&"/reports/{id}".into(), &200.into()));
    assert_eq!(told["subject"], "u-1");

    for response in quiet.iter().chain([&failed]) {
        let id = response.field("x-request-id").unwrap();
        running.access_line(id);
        assert!(events(&running).iter().all(|event| event["request_id"] != id), "{response:?}");
    }
    assert!(!running.stdout().contains("hunter2"), "no query");
}

#[test]
fn the_admin_listener_is_audited_and_its_answers_name_their_request() {
    let (running, _upstream, _) = guarded();
    let denied = running.admin_request("POST", "/api/revocations", None, "{}");
    assert_eq!(denied.status, 401);
    let id = denied.field("x-request-id").unwrap();
    assert_eq!(denied.json()["request_id"], id);
    let told = event(&running, id);
    assert_eq!((&told["event_type"], &told["service"]), (&"access.denied".into(), &"doorward".into()));
    assert_eq!((&told["method"], &told["status"]), (&"POST".into(), &401.into()));
    assert!(running.admin_request("GET", "/healthz", None, "").field("x-request-id").is_some());
    let unknown = running.admin_request("GET", "/api/roles", None, "");
    assert_eq!(unknown.json()["reason"], "no_route", "what no part of this version serves is no route");
}

#[test]
fn t41_a_flood_of_denials_is_sampled_and_the_rest_counted() {
    let (running, _upstream, _) = guarded();
    const FLOOD: usize = 1_500;
    let mut connection = running.connect();
    // A hundred at a time, so that more come in a second than are written, on a slow machine too.
    for _ in 0..FLOOD / 100 {
        connection.send("GET /items HTTP/1.1\r\nHost: oms.test\r\n\r\n".repeat(100));
        for _ in 0..100 {
            assert_eq!(connection.response().status, 401);
        }
    }
    let (written, left_out) = eventually("every denial is accounted for", Duration::from_secs(20), || {
        let events = events(&running);
        let written = events.iter().filter(|event| event["event_type"] == "access.denied").count();
        let left_out: u64 = events.iter().filter_map(|event| event["left_out"].as_u64()).sum();
        (written + usize::try_from(left_out).unwrap() == FLOOD).then_some((written, left_out))
    });
    assert!(left_out > 0 && written >= 100, "{written} written, {left_out} left out");
}

#[test]
fn events_are_told_without_access_lines_and_access_lines_without_events() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let start = |key: &str, value: toml::Value| {
        doorward().policy(AUDITED).issuer(&issuer).upstream(&upstream).setting(key, value).start()
    };
    let running = start("log.access", false.into());
    event(&running, running.get("/items").field("x-request-id").unwrap());
    assert!(!running.stdout().contains("duration_ms"));

    let running = start("events.sinks", toml::Value::Array(Vec::new()));
    running.access_line(running.get("/items").field("x-request-id").unwrap());
    assert_eq!(events(&running), Vec::<Value>::new());
}
