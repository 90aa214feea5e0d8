//! Pages of other origins: preflights, and what a script may read (SPEC 4, the Fetch standard).

use crate::harness::{Behaviour, Doorward, Issuer, POLICY, Response, Upstream, doorward};

const APP: &str = "https://app.test";

fn with(cors: &str) -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\ncors: {{ origins: [\"{APP}\", \"https://b.test\"]{cors} }}\n");
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

fn preflight(running: &Doorward, target: &str, origin: &str, method: &str) -> Response {
    let request = format!(
        "OPTIONS {target} HTTP/1.1\r\nHost: oms.test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n\
         Access-Control-Request-Headers: authorization\r\n\r\n"
    );
    running.connect().send(request).try_response("OPTIONS").unwrap()
}

fn list<'r>(response: &'r Response, name: &str) -> Vec<&'r str> {
    response.all(name).into_iter().flat_map(|line| line.split(',')).map(str::trim).collect()
}

#[test]
fn a_preflight_is_answered_before_anybody_is_asked_who_they_are() {
    let (running, upstream, _) = with(", credentials: true, max_age: 10m");
    let response = preflight(&running, "/items", APP, "POST");
    assert_eq!((response.status, response.body.len()), (204, 0), "{response:?}");
    assert_eq!(response.field("access-control-allow-origin"), Some(APP));
    assert_eq!(list(&response, "access-control-allow-methods"), ["GET", "HEAD", "POST"]);
    assert_eq!(list(&response, "access-control-allow-headers"), ["Authorization", "Content-Type"]);
    assert_eq!(response.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(response.field("access-control-max-age"), Some("600"));
    assert_eq!(list(&response, "vary"), ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]);
    let line = running.access_line(response.field("x-request-id").unwrap());
    assert_eq!((&line["status"], &line["service"], &line["decision"]), (&204.into(), &"oms".into(), &"allow".into()));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_preflight_allows_no_more_than_the_path_has() {
    let (running, upstream, _) = with(", methods: [GET, PUT, DELETE], headers: [X-Tenant]");
    for (target, methods) in [
        ("/items/7", &["GET", "PUT", "DELETE"][..]),
        ("/items", &["GET"]),
        ("/public", &["GET"]),
        ("/closed", &[]),
        ("/nowhere", &["GET", "PUT", "DELETE"]),
    ] {
        let response = preflight(&running, target, APP, "PUT");
        let told: Vec<_> =
            list(&response, "access-control-allow-methods").into_iter().filter(|m| !m.is_empty()).collect();
        assert_eq!((response.status, told), (204, methods.to_vec()), "{target}");
        assert_eq!(list(&response, "access-control-allow-headers"), ["x-tenant"]);
        assert_eq!(response.field("access-control-allow-credentials"), None);
        assert_eq!(response.field("access-control-max-age"), None);
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn another_origins_preflight_is_told_nothing() {
    let (running, upstream, _) = with("");
    for origin in
        ["https://evil.test", "null", "https://app.test.evil.test", "http://app.test", "HTTPS://APP.TEST", "*", ""]
    {
        let response = preflight(&running, "/items", origin, "POST");
        assert_eq!(response.status, 204, "{origin}: {response:?}");
        assert!(
            !response.fields.iter().any(|(name, _)| name.to_lowercase().starts_with("access-control-")),
            "{origin}"
        );
        assert!(list(&response, "vary").contains(&"Origin"), "{origin}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn what_is_no_preflight_is_a_method_like_any_other() {
    let (running, upstream, _) = with("");
    for fields in [
        "Origin: https://app.test\r\n",
        "Access-Control-Request-Method: POST\r\n",
        "Origin: https://app.test\r\nAccess-Control-Request-Method: P OST\r\n",
        "Origin: https://app.test\r\nAccess-Control-Request-Method: POST\r\nContent-Length: 2\r\n",
    ] {
        let body = if fields.contains("Length") { "{}" } else { "" };
        let response = running.send(format!("OPTIONS /items HTTP/1.1\r\nHost: oms.test\r\n{fields}\r\n{body}"));
        assert_eq!(response.denial(), (405, "method_not_allowed".into()), "{fields}");
    }
    let response = preflight(&running, "/a/../items", APP, "POST");
    assert_eq!(response.denial(), (400, "bad_request_target".into()));

    let running = doorward().upstream(&upstream).start();
    let response = preflight(&running, "/items", APP, "POST");
    assert_eq!(response.denial(), (405, "method_not_allowed".into()), "no cors, no preflight");
    assert_eq!(response.field("vary"), None);
    assert_eq!(upstream.count(), 0);
}

/// What a script of an allowed origin needs to read the answer.
fn is_readable(response: &Response, origin: &str) {
    assert_eq!(response.field("access-control-allow-origin"), Some(origin), "{response:?}");
    let exposed = list(response, "access-control-expose-headers");
    for name in ["Doorward-Decision", "X-Request-Id", "Retry-After", "RateLimit-Remaining"] {
        assert!(exposed.contains(&name), "{name}: {response:?}");
    }
    assert!(list(response, "vary").contains(&"Origin"), "{response:?}");
}

#[test]
fn answers_and_denials_can_be_read_by_an_allowed_origin_and_no_other() {
    let (running, upstream, issuer) = with(", expose: [X-Total]");
    let token = issuer.viewer();
    let cases = [
        ("GET", "/items", true, 200),
        ("GET", "/public", false, 200),
        ("GET", "/items", false, 401),
        ("POST", "/items", true, 403),
        ("GET", "/closed", true, 403),
        ("GET", "/nowhere", true, 403),
        ("PATCH", "/items", true, 405),
        ("GET", "/items//7", true, 400),
    ];
    for (method, target, with_token, status) in cases {
        for (origin, allowed) in [(APP, true), ("https://b.test", true), ("https://evil.test", false)] {
            let authorization = if with_token { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
            let request =
                format!("{method} {target} HTTP/1.1\r\nHost: oms.test\r\nOrigin: {origin}\r\n{authorization}\r\n");
            let response = running.send(request);
            assert_eq!(response.status, status, "{method} {target}: {response:?}");
            if allowed {
                is_readable(&response, origin);
                assert!(list(&response, "access-control-expose-headers").contains(&"x-total"));
            } else {
                let told = response.fields.iter().any(|(name, _)| name.to_lowercase().starts_with("access-control-"));
                assert!(!told, "{response:?}");
                assert!(list(&response, "vary").contains(&"Origin"), "{response:?}");
            }
        }
    }
    let response = running.get("/public");
    assert!(list(&response, "vary").contains(&"Origin"), "a cache keeps it apart: {response:?}");

    upstream.behave(Behaviour::Close);
    let response = running.send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\nOrigin: {APP}\r\n\r\n"));
    assert_eq!(response.status, 502);
    is_readable(&response, APP);
}

#[test]
fn a_limited_request_can_be_read() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\nrate_limit: 1/h per address\ncors: {{ origins: [\"{APP}\"] }}\n");
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    let request = format!("GET /public HTTP/1.1\r\nHost: oms.test\r\nOrigin: {APP}\r\n\r\n");
    assert_eq!(running.send(&request).status, 200);
    let response = running.send(&request);
    assert_eq!(response.denial(), (429, "rate_limited".into()));
    is_readable(&response, APP);
    assert_eq!(preflight(&running, "/public", APP, "GET").status, 204, "a preflight costs nothing");
}

#[test]
fn what_the_upstream_says_of_origins_is_replaced() {
    let (running, upstream, _) = with("");
    upstream.behave(Behaviour::With(vec![
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Private-Network", "true"),
        ("Vary", "Accept"),
    ]));
    let get = |origin: &str| running.send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\n{origin}\r\n"));
    let response = get("Origin: https://app.test\r\n");
    assert_eq!(response.field("access-control-allow-origin"), Some(APP));
    assert_eq!(response.field("access-control-allow-credentials"), None);
    assert_eq!(response.field("access-control-allow-private-network"), None);
    assert_eq!(list(&response, "vary"), ["Accept", "Origin"]);
    assert_eq!(get("Origin: https://evil.test\r\n").field("access-control-allow-origin"), None);
    assert_eq!(
        get("Origin: https://app.test\r\nOrigin: https://b.test\r\n").field("access-control-allow-origin"),
        None,
        "two origins are none"
    );

    let running = doorward().upstream(&upstream).start();
    let response = running.get("/public");
    assert_eq!(
        response.field("access-control-allow-origin"),
        Some("*"),
        "without a block it is the service's own matter"
    );
}

#[test]
fn everybody_may_read_where_the_star_stands() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\ncors: {{ origins: [\"*\"], headers: [\"*\"], expose: [\"*\"] }}\n");
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    for target in ["/public", "/items"] {
        let response = running.get(target);
        assert_eq!(response.field("access-control-allow-origin"), Some("*"), "{response:?}");
        assert_eq!(response.field("access-control-expose-headers"), Some("*"));
        assert!(!list(&response, "vary").contains(&"Origin"), "the same for all: {response:?}");
    }
    let response = preflight(&running, "/items", "null", "POST");
    assert_eq!(response.field("access-control-allow-origin"), Some("*"));
    assert_eq!(list(&response, "access-control-allow-headers"), ["*", "Authorization"]);
}

#[test]
fn a_changed_policy_counts_for_preflights_too() {
    let (running, _upstream, _) = with("");
    let policy = std::fs::read_to_string(running.path("policy0.yaml")).unwrap();
    std::fs::write(running.path("policy0.yaml"), policy.replace("https://b.test", "https://c.test")).unwrap();
    crate::harness::eventually("the new policy counts", std::time::Duration::from_secs(20), || {
        preflight(&running, "/items", "https://c.test", "GET").field("access-control-allow-origin").map(|_| ())
    });
}
