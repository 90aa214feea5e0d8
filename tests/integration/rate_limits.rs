//! `rate_limit:` of routes and files (SPEC 4): who is counted, what is answered, what does not count.

use std::time::{Duration, Instant};

use crate::harness::{Doorward, Issuer, Response, Upstream, doorward, eventually};

/// Windows of an hour, so that no slow machine fills a budget while a test runs.
const LIMITED: &str = "
version: 1
service: oms
upstream: oms
paths:
  /free:
    get: public
  /public:
    get: { require: public, rate_limit: 2/h per subject }
  /me:
    get: { require: authenticated, rate_limit: 2/h per subject }
  /items:
    get: { require: item:view, rate_limit: 3/h per subject }
    post: { require: item:create, rate_limit: 1/h per subject, body: 4B }
  /by-address:
    get: { require: public, rate_limit: 2/h per address }
  /quick:
    get: { require: public, rate_limit: 2/s per address }
";

fn limited() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward()
        .policy(LIMITED)
        .issuer(&issuer)
        .upstream(&upstream)
        .setting("gateway.workers", 2)
        .setting("gateway.trusted_proxies", vec!["127.0.0.1/32"])
        .start();
    (running, upstream, issuer)
}

fn told(response: &Response) -> [Option<String>; 5] {
    ["ratelimit-limit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset", "retry-after"]
        .map(|name| response.field(name).map(str::to_owned))
}

fn get_from(running: &Doorward, target: &str, address: &str) -> Response {
    running.send(format!("GET {target} HTTP/1.1\r\nHost: oms.test\r\nX-Forwarded-For: {address}\r\n\r\n"))
}

#[test]
fn a_burst_passes_and_the_next_is_429_over_all_workers() {
    let (running, upstream, issuer) = limited();
    let viewer = issuer.viewer();
    for left in ["2", "1", "0"] {
        // A connection each, so that both workers take part.
        let response = running.get_as("/items", &viewer);
        assert_eq!(response.status, 200);
        let [limit, policy, remaining, reset, retry] = told(&response);
        assert_eq!((limit.as_deref(), policy.as_deref()), (Some("3"), Some("3;w=3600")));
        assert_eq!((remaining.as_deref(), retry), (Some(left), None));
        assert!(reset.is_some_and(|reset| (1..=3600).contains(&reset.parse().unwrap_or(0))));
    }
    let refused = running.get_as("/items", &viewer);
    assert_eq!(refused.denial(), (429, "rate_limited".into()));
    let [limit, policy, remaining, reset, retry] = told(&refused);
    assert_eq!((limit.as_deref(), policy.as_deref()), (Some("3"), Some("3;w=3600")));
    assert_eq!(remaining.as_deref(), Some("0"));
    assert_eq!(reset, retry);
    assert!((1100..=1200).contains(&retry.expect("Retry-After").parse::<u64>().expect("seconds")));
    assert_eq!(refused.json()["type"], "urn:doorward:problem:rate_limited");
    assert_eq!(upstream.count(), 3, "the fourth was not forwarded");

    assert!((running.metric("doorward_limit_rejections_total", &["limit=\"rate\""]) - 1.0).abs() < 0.1);
    assert!(running.metric("doorward_auth_failures_total", &["reason=\"rate_limited\""]) < 0.1);
    let line = running.access_line(refused.field("x-request-id").expect("an id"));
    assert_eq!(
        (&line["decision"], &line["reason"], &line["status"]),
        (&"deny".into(), &"rate_limited".into(), &429.into())
    );
    assert_eq!((&line["route"], &line["service"]), (&"/items".into(), &"oms".into()));
    assert!(line["subject"].is_string());
}

#[test]
fn each_subject_and_each_route_has_a_budget_of_its_own() {
    let (running, _upstream, issuer) = limited();
    let (ann, bob) = (issuer.with_roles("ann", &["ROLE_VIEWER"]), issuer.with_roles("bob", &["ROLE_VIEWER"]));
    for _ in 0..2 {
        assert_eq!(running.get_as("/me", &ann).status, 200);
    }
    assert_eq!(running.get_as("/me", &ann).status, 429);
    assert_eq!(running.get_as("/me", &issuer.with_roles("ann", &["ROLE_EDITOR"])).status, 429, "another token of hers");
    assert_eq!(running.get_as("/me", &bob).status, 200, "from the same address");
    assert_eq!(running.get_as("/items", &ann).status, 200, "another route");
}

#[test]
fn anonymous_requests_are_counted_by_address() {
    let (running, _upstream, issuer) = limited();
    for _ in 0..2 {
        assert_eq!(get_from(&running, "/public", "192.0.2.1").status, 200);
    }
    assert_eq!(get_from(&running, "/public", "192.0.2.1").status, 429);
    assert_eq!(get_from(&running, "/public", "192.0.2.2").status, 200);
    assert_eq!(running.get_as("/public", &issuer.viewer()).status, 200, "who says who they are is counted as that");

    for address in ["2001:db8::1", "2001:db8::2:1"] {
        assert_eq!(get_from(&running, "/public", address).status, 200);
    }
    assert_eq!(get_from(&running, "/public", "2001:db8::3").status, 429, "one network of 64 bits is one caller");
    assert_eq!(get_from(&running, "/public", "2001:db8:0:1::1").status, 200);
}

#[test]
fn a_strangers_forwarded_address_is_not_believed() {
    let upstream = Upstream::echo();
    let running = doorward().policy(LIMITED).upstream(&upstream).start();
    for number in 1..=2 {
        assert_eq!(get_from(&running, "/by-address", &format!("192.0.2.{number}")).status, 200);
    }
    assert_eq!(get_from(&running, "/by-address", "192.0.2.3").status, 429);
}

#[test]
fn head_counts_as_the_get_that_it_follows() {
    let (running, _upstream, issuer) = limited();
    let viewer = issuer.viewer();
    for status in [200, 200, 429] {
        let response = running.request("HEAD", "/me", &viewer, &[], "");
        assert_eq!(response.status, status);
        assert!(response.field("ratelimit-remaining").is_some());
    }
    assert_eq!(running.get_as("/me", &viewer).status, 429);
}

#[test]
fn a_denied_request_takes_nothing() {
    let (running, _upstream, issuer) = limited();
    let (viewer, editor) = (issuer.with_roles("ann", &["ROLE_VIEWER"]), issuer.with_roles("ann", &["ROLE_EDITOR"]));
    for _ in 0..3 {
        let denied = running.request("POST", "/items", &viewer, &[], "{}");
        assert_eq!(denied.denial(), (403, "permission_missing".into()));
        assert_eq!(told(&denied), [const { None }; 5]);
    }
    assert_eq!(running.request("POST", "/items", &editor, &[], "{}").status, 200);
    assert_eq!(running.request("POST", "/items", &editor, &[], "{}").status, 429);
    let many = running.request("POST", "/items", &editor, &[], "too much");
    assert_eq!(many.status, 429, "the limit is looked at before the body");
}

#[test]
fn routes_without_a_limit_say_nothing_and_an_upstreams_own_limit_passes_there() {
    let (running, upstream, _) = limited();
    upstream.behave(crate::harness::Behaviour::With(vec![("RateLimit-Limit", "7")]));
    assert_eq!(told(&running.get("/free"))[..2], [Some("7".into()), None]);
    assert_eq!(told(&running.get("/by-address"))[..2], [Some("2".into()), Some("2;w=3600".into())], "one, and ours");
}

#[test]
fn a_budget_fills_again() {
    let (running, _upstream, _) = limited();
    let mut connection = running.connect();
    let mut ask = || connection.send("GET /quick HTTP/1.1\r\nHost: oms.test\r\n\r\n").response();
    let begun = Instant::now();
    let mut passed = 0_u32;
    let refused = loop {
        let response = ask();
        if response.status == 429 {
            break response;
        }
        passed += 1;
        assert!(begun.elapsed() < Duration::from_secs(20), "never refused");
    };
    // Two at once, and one more for every half second that the machine took.
    assert!(passed >= 2 && f64::from(passed) <= 2.0 + 2.0 * begun.elapsed().as_secs_f64(), "{passed} passed");
    assert_eq!(refused.field("retry-after"), Some("1"));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ask().status, 200, "after Retry-After");
}

#[test]
fn a_files_limit_is_the_default_of_its_routes() {
    let upstream = Upstream::echo();
    let policy = "
version: 1
service: oms
upstream: oms
rate_limit: 1/h per address
paths:
  /a: {get: public}
  /b: {get: public}
  /c: {get: {require: public, rate_limit: 2/h per address}}
";
    let running = doorward().policy(policy).upstream(&upstream).start();
    for (target, statuses) in [("/a", &[200, 429][..]), ("/b", &[200, 429]), ("/c", &[200, 200, 429])] {
        for status in statuses {
            assert_eq!(running.get(target).status, *status, "{target}");
        }
    }
}

#[test]
fn a_changed_policy_does_not_forgive() {
    let (running, _upstream, _) = limited();
    for _ in 0..2 {
        assert_eq!(running.get("/by-address").status, 200);
    }
    assert_eq!(running.get("/by-address").status, 429);
    let changed = format!("{LIMITED}  /new:\n    get: public\n");
    std::fs::write(running.path("policy0.yaml"), changed).expect("the policy can be written");
    eventually("the new policy is in force", Duration::from_secs(20), || {
        (running.get("/new").status == 200).then_some(())
    });
    assert_eq!(running.get("/by-address").status, 429);
}

#[test]
fn report_mode_lets_no_one_over_a_limit() {
    let upstream = Upstream::echo();
    let running = doorward().policy(LIMITED).upstream(&upstream).setting("gateway.mode", "report").start();
    for status in [200, 200, 429] {
        assert_eq!(running.get("/me").status, status, "without a token, so by address");
    }
}

#[test]
fn a_limit_that_nobody_would_count_stops_the_start() {
    for upstream in ["doorward-admin", "another"] {
        let admin = format!(
            "version: 1\nservice: doorward\nupstream: {upstream}\npaths:\n  /api/revocations:\n    post: {{ require: session:revoke, rate_limit: 1/s per subject }}\n"
        );
        let failed = doorward().file("admin.yaml", admin).setting("admin.policy", "admin.yaml").fails();
        assert!(failed.stderr.contains("admin.yaml:"), "{}", failed.stderr);
    }
}
