//! What a refused client is told (SPEC 3; RFC 9457, RFC 6750).

use crate::harness::{Behaviour, Doorward, Issuer, Upstream, doorward};

fn guarded() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

#[test]
fn a_denial_is_a_problem_document() {
    let (running, upstream, _) = guarded();
    let response = running.get("/me");
    assert_eq!(response.denial(), (401, "missing_token".into()));
    let problem = response.json();
    assert_eq!(problem["type"], "urn:doorward:problem:missing_token");
    assert_eq!(problem["status"], 401);
    assert_eq!(problem["request_id"].as_str(), response.field("x-request-id"));
    for text in ["title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    assert_eq!(upstream.count(), 0, "nothing was forwarded");
}

#[test]
fn a_denial_of_a_request_with_a_body_says_that_the_connection_ends() {
    let (running, upstream, _) = guarded();
    let response = running.request("POST", "/items", "no.such.token", &[], "{\"name\":\"x\"}");
    assert_eq!(response.denial(), (401, "malformed_token".into()));
    assert_eq!(response.field("connection"), Some("close"), "what is still to come is not read");
    assert_eq!(running.get("/me").field("connection"), None, "without a body it goes on");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn each_kind_of_denial_has_its_status_and_challenge() {
    let (running, upstream, issuer) = guarded();
    let viewer = issuer.viewer();
    let challenge = |response: &crate::harness::Response| response.field("www-authenticate").map(str::to_owned);

    let response = running.get("/items");
    assert_eq!(response.denial(), (401, "missing_token".into()));
    assert_eq!(challenge(&response).as_deref(), Some("Bearer realm=\"oms\""), "alone without a credential");

    let response = running.get_as("/items", "a.b.c");
    assert_eq!(response.denial(), (401, "malformed_token".into()));
    let text = challenge(&response).expect("a challenge");
    assert!(text.starts_with("Bearer realm=\"oms\"") && text.contains("error=\"invalid_token\""), "{text}");

    let response = running.request("POST", "/items", &viewer, &[], "{}");
    assert_eq!(response.denial(), (403, "permission_missing".into()));
    let text = challenge(&response).expect("a challenge");
    assert!(text.starts_with("Bearer realm=\"oms\"") && text.contains("error=\"insufficient_scope\""), "{text}");

    for (target, reason) in [("/nowhere", "no_route"), ("/closed", "route_denied")] {
        for response in [running.get(target), running.get_as(target, &viewer)] {
            assert_eq!(response.denial(), (403, reason.into()));
            assert_eq!(challenge(&response), None, "a token would not help");
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_path_without_that_method_is_405_with_allow_before_any_token_is_looked_at() {
    let (running, upstream, issuer) = guarded();
    for response in [
        running.send("PATCH /items HTTP/1.1\r\nHost: oms.test\r\n\r\n"),
        running.request("PATCH", "/items", &issuer.viewer(), &[], ""),
    ] {
        assert_eq!(response.denial(), (405, "method_not_allowed".into()));
        let mut allow: Vec<_> = response.field("allow").expect("Allow").split(", ").collect();
        allow.sort_unstable();
        assert_eq!(allow, ["GET", "HEAD", "POST"]);
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn unmatched_may_be_404() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = "
version: 1
service: oms
upstream: oms
unmatched: 404
paths:
  /a: {get: authenticated}
  /closed: {get: deny}
";
    let running = doorward().policy(policy).issuer(&issuer).upstream(&upstream).start();
    assert_eq!(running.get("/b").denial(), (404, "no_route".into()));
    assert_eq!(running.get("/closed").denial(), (403, "route_denied".into()), "a listed path says that it is closed");
}

#[test]
fn every_response_carries_a_request_id_of_its_own() {
    let (running, upstream, issuer) = guarded();
    upstream.behave(Behaviour::With(vec![]));
    let responses = [
        running.get("/public"),
        running.get("/public"),
        running.get("/me"),
        running.get("/nowhere"),
        running.get("/a/../b"),
        running.get_as("/me", &issuer.viewer()),
        running.send("OPTIONS * HTTP/1.1\r\nHost: oms.test\r\n\r\n"),
        running.send("TRACE /public HTTP/1.1\r\nHost: oms.test\r\n\r\n"),
        running.send("GET /public HTTP/1.1\r\nHost: oms.test\r\nX-Request-Id: chosen-by-a-stranger\r\n\r\n"),
    ];
    let mut ids: Vec<_> = responses.iter().map(|response| response.field("x-request-id").expect("an id")).collect();
    assert!(!ids.contains(&"chosen-by-a-stranger"));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), responses.len(), "ids are not used twice");
}

#[test]
fn an_upstreams_own_denial_is_passed_on_without_doorwards_mark() {
    let (running, upstream, _) = guarded();
    upstream.behave(Behaviour::Raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nX-Own: 1\r\n\r\nmine".to_vec()));
    let response = running.get("/public");
    assert_eq!((response.status, response.text().as_str()), (403, "mine"));
    assert_eq!(response.field("doorward-decision"), None);
}

#[test]
fn options_star_is_answered_here() {
    let (running, upstream, _) = guarded();
    let response = running.send("OPTIONS * HTTP/1.1\r\nHost: oms.test\r\n\r\n");
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(response.field("content-length"), None, "a 204 has none (RFC 9110 section 8.6)");
    assert_eq!(
        running.send("GET * HTTP/1.1\r\nHost: oms.test\r\n\r\n").status,
        400,
        "only OPTIONS may ask the server as a whole"
    );
    assert_eq!(upstream.count(), 0);
}

#[test]
fn trace_and_connect_are_405() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    for head in [
        "TRACE /public HTTP/1.1\r\nHost: oms.test\r\n".to_owned(),
        format!("TRACE /me HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n"),
        "CONNECT oms.test:443 HTTP/1.1\r\nHost: oms.test:443\r\n".to_owned(),
    ] {
        let response = running.send(format!("{head}\r\n"));
        assert_eq!(response.status, 405, "{head}: {response:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn headers_that_would_change_method_or_path_are_dropped() {
    let (running, upstream, _) = guarded();
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x_http_method_override",
        "X.Http.Method.Override",
        "X-Original-URL",
        "X_Original_Url",
        "X-Rewrite-URL",
        "x-rewrite.url",
    ] {
        let response = running
            .send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\n{name}: /admin-DELETE\r\nX-Own: 1\r\n\r\n"));
        assert_eq!(response.status, 200);
        let received = upstream.last();
        assert!(!received.text().contains("admin-DELETE"), "{name} reached the upstream");
        assert_eq!(received.field("x-own"), Some("1"));
    }
}

#[test]
fn an_early_denial_of_a_large_upload_can_still_be_read() {
    let (running, upstream, _) = guarded();
    let body = vec![b'x'; 200 * 1024];
    let mut connection = running.connect();
    connection
        .send(format!("POST /items HTTP/1.1\r\nHost: oms.test\r\nContent-Length: {}\r\n\r\n", body.len()))
        .send(&body);
    assert_eq!(connection.response().denial(), (401, "missing_token".into()));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn expect_100_continue_is_answered_only_after_the_permit() {
    let (running, upstream, issuer) = guarded();
    let head = |token: &str| {
        format!(
            "POST /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut denied = running.connect();
    denied.send(head(&issuer.viewer()));
    assert!(denied.head().starts_with("HTTP/1.1 403"), "no 100 before a denial");

    let mut allowed = running.connect();
    allowed.send(head(&issuer.with_roles("e", &["ROLE_EDITOR"])));
    assert!(allowed.head().starts_with("HTTP/1.1 100"));
    assert_eq!(allowed.send("{}").response().status, 200);
    assert_eq!(upstream.last().body, b"{}");
}
