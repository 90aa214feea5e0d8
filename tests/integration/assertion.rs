//! `X-User-Assertion`: what a service can verify, and that it opens nothing here (SPEC 3.7; T19, T31).

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::harness::{Behaviour, Doorward, Issuer, POLICY, Upstream, doorward, now};

const KEYS: &str = "/_doorward/assertion-jwks.json";

fn with(settings: &[(&str, toml::Value)]) -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let mut builder = doorward().issuer(&issuer).upstream(&upstream).setting("gateway.assertion.enabled", true);
    for (key, value) in settings {
        builder = builder.setting(key, value.clone());
    }
    (builder.start(), upstream, issuer)
}

fn keys(running: &Doorward) -> JwkSet {
    serde_json::from_value(running.get(KEYS).json()).unwrap()
}

/// Verifies an assertion as a service would, with nothing but what is published, and gives its claims.
fn verified(running: &Doorward, assertion: &str, service: &str) -> Value {
    let header = jsonwebtoken::decode_header(assertion).unwrap();
    assert_eq!(header.typ.as_deref(), Some("doorward-assertion+jwt"));
    let keys = keys(running);
    let key = DecodingKey::from_jwk(keys.find(header.kid.as_deref().unwrap()).expect("its key is published")).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&["urn:doorward:gateway"]);
    validation.set_audience(&[service]);
    validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
    jsonwebtoken::decode::<Value>(assertion, &key, &validation).unwrap().claims
}

#[test]
fn the_service_can_verify_who_is_asking_and_for_what() {
    let (running, upstream, issuer) = with(&[("gateway.assertion.ttl", "30s".into())]);
    let token = issuer
        .token()
        .claim("sub", "user-7")
        .claim("roles", ["ROLE_VIEWER", "ROLE_EDITOR", "ROLE_UNHEARD_OF"])
        .claim("name", "Zo\u{eb} \"100%\"")
        .claim("email", "zoe@example.com")
        .sign();
    let response = running.request("PUT", "/items/%37?full=1&x=%zz", &token, &[], "{}");
    assert_eq!(response.status, 200, "{response:?}");
    let received = upstream.last();
    let claims = verified(&running, received.field("x-user-assertion").unwrap(), "oms");
    let expected = json!({
        "iss": "urn:doorward:gateway", "aud": "oms", "sub": "user-7", "name": "Zo\u{eb} \"100%\"", "email": "zoe@example.com",
        "roles": ["ROLE_EDITOR", "ROLE_VIEWER"], "memberships": {}, "auth_method": "bearer", "method": "PUT",
        "uri": received.target, "request_id": response.field("x-request-id").unwrap(),
        "iat": claims["iat"], "exp": claims["iat"].as_i64().unwrap() + 30, "jti": claims["jti"],
    });
    assert_eq!(claims, expected);
    assert_eq!(received.target, "/items/7?full=1&x=%zz", "as forwarded, not as sent");
    assert!((claims["iat"].as_i64().unwrap() - now()).abs() < 20);

    let mut seen = HashSet::new();
    for _ in 0..3 {
        running.get_as("/items", &token);
        let claims = verified(&running, upstream.last().field("x-user-assertion").unwrap(), "oms");
        assert!(seen.insert(claims["jti"].as_str().unwrap().to_owned()), "each has an id of its own");
    }
}

#[test]
fn doorwards_own_tokens_bring_session_and_memberships() {
    let upstream = Upstream::echo();
    let issuer = toml::toml! { name = "doorward"
        issuer = "http://127.0.0.1:8001"
        audience = ["oms"]
        keys = "local"
        algorithms = ["EdDSA"]
    };
    let running = doorward()
        .upstream(&upstream)
        .setting("auth.issuers", vec![toml::Value::from(issuer)])
        .setting("gateway.assertion.enabled", true)
        .start();
    let mint = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["token", "mint", "--config"]).arg(running.path("doorward.toml")).args(arguments);
        let done = command.current_dir(running.path("")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    let token = mint(&["--sub", "u-2", "--role", "ROLE_VIEWER", "--session", "s-1", "--membership", "oms=PREMIUM"]);
    assert_eq!(running.get_as("/items", &token).status, 200);
    let claims = verified(&running, upstream.last().field("x-user-assertion").unwrap(), "oms");
    assert_eq!((&claims["sub"], &claims["roles"]), (&json!("u-2"), &json!(["ROLE_VIEWER"])));
    assert_eq!((&claims["sid"], &claims["memberships"]), (&json!("s-1"), &json!({"oms": "PREMIUM"})));
}

#[test]
fn nobody_is_vouched_for_who_is_not_known() {
    let (running, upstream, issuer) = with(&[]);
    let forged = issuer.token().header("typ", "doorward-assertion+jwt").sign();
    for token in [None, Some("a.b.c")] {
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let response = running.send(format!(
            "GET /public HTTP/1.1\r\nHost: oms.test\r\n{authorization}X-User-Assertion: {forged}\r\nx_user_assertion: {forged}\r\n\r\n"
        ));
        assert_eq!(response.status, 200);
        assert!(!upstream.last().text().to_lowercase().contains("assertion"), "{}", upstream.last().text());
    }
    running.get_as("/public", &issuer.viewer());
    assert!(upstream.last().field("x-user-assertion").is_some(), "a public route may know who is asking");
    upstream.behave(Behaviour::With(vec![("X-User-Assertion", "forged")]));
    assert_eq!(running.get("/public").field("x-user-assertion"), None);
}

#[test]
fn t19_an_assertion_is_no_token_even_where_its_key_is_an_issuers() {
    let (running, upstream, issuer) = with(&[]);
    running.get_as("/items", &issuer.viewer());
    let assertion = upstream.last().field("x-user-assertion").unwrap().to_owned();
    let count = upstream.count();
    assert_eq!(running.get_as("/items", &assertion).status, 401);
    assert_eq!(running.get_as("/public", &assertion).status, 200, "of nobody");
    assert_eq!(upstream.last().field("x-user-id"), None);
    assert_eq!(upstream.count(), count + 1);

    // The worst that a configuration could do: trust that key and that name.
    let table = toml::toml! { name = "self"
        issuer = "urn:doorward:gateway"
        audience = ["oms"]
        keys = "jwks+file://self.json"
        algorithms = ["EdDSA"]
        same_subjects = true
        confers = "any"
    };
    let trusting = doorward()
        .upstream(&upstream)
        .file("self.json", running.get(KEYS).text())
        .setting("auth.issuers", vec![toml::Value::from(table)])
        .start();
    assert_eq!(trusting.get_as("/items", &assertion).denial(), (401, "malformed_token".into()));
    assert_eq!(upstream.count(), count + 1);
}

#[test]
fn the_keys_are_published_to_everybody_and_nothing_beside_them() {
    let (running, upstream, _) = with(&[]);
    for host in ["oms.test", "anything.example", "127.0.0.1"] {
        let response = running.send(format!("GET {KEYS} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.field("content-type"), Some("application/jwk-set+json"));
        assert_eq!(response.field("cache-control"), Some("public, max-age=300"));
        assert!(response.field("x-request-id").is_some());
        let key = &response.json()["keys"][0];
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
            (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
        );
        assert!(key["kid"].is_string() && key.get("d").is_none(), "{key}");
    }
    let head = running.connect().send(format!("HEAD {KEYS} HTTP/1.1\r\nHost: a\r\n\r\n")).try_response("HEAD").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let response = running.send(format!("POST {KEYS} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((response.denial(), response.field("allow")), ((405, "method_not_allowed".into()), Some("GET, HEAD")));
    for target in ["/_doorward/", "/_doorward/assertion-jwks.json/", "/_doorward/assertion-jwks%2Ejson", "/_doorward/x"]
    {
        assert_eq!(running.get(target).denial(), (403, "no_route".into()), "{target} is a path like any other");
    }
    assert_eq!(upstream.count(), 0);

    let without = doorward().upstream(&upstream).start();
    assert_eq!(without.get(KEYS).denial(), (403, "no_route".into()));
    assert_eq!(without.get("/public").status, 200);
    assert_eq!(upstream.last().field("x-user-assertion"), None);
}

#[test]
fn a_key_file_is_made_once_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/assertion.json");
    let setting = [("gateway.assertion.key_file", toml::Value::from(path.to_str().unwrap()))];
    let id = || {
        let (running, ..) = with(&setting);
        keys(&running).keys[0].common.key_id.clone().unwrap()
    };
    let first = id();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(id(), first, "a restart keeps it");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut builder = doorward().setting("gateway.assertion.enabled", true);
    builder = builder.setting(setting[0].0, setting[0].1.clone());
    assert!(builder.fails().stderr.contains("chmod 600"));

    let ids: HashSet<_> = (0..2).map(|_| keys(&with(&[]).0).keys[0].common.key_id.clone()).collect();
    assert_eq!(ids.len(), 2, "without a file each start has a key of its own");
}

#[test]
fn t31_a_service_that_can_verify_is_not_unprotected() {
    let issuer = Issuer::hs256();
    let running = doorward()
        .issuer(&issuer)
        .setting("upstreams.oms.endpoints", vec!["http://192.0.2.1:8000"])
        .setting("gateway.assertion.enabled", true)
        .start();
    assert_eq!(running.metric("doorward_upstream_unprotected", &["upstream=\"oms\""]), 0.0);
    std::thread::sleep(Duration::from_millis(300));
    let told = running.stdout() + "\n" + &running.stderr();
    assert!(!told.lines().any(|line| line.to_lowercase().contains("warn") && line.contains("oms")), "{told}");
}

#[test]
fn the_audience_is_the_service_of_the_route_and_a_cookie_is_named() {
    let blog = "
version: 1
service: blog
upstream: oms
paths:
  /blog: { get: authenticated }
";
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\ncredentials: {{ cookie: __Host-session }}\n");
    let running = doorward()
        .policy(&policy)
        .another_policy(blog)
        .issuer(&issuer)
        .upstream(&upstream)
        .setting("gateway.assertion.enabled", true)
        .start();
    let token = issuer.viewer();
    assert_eq!(running.get_as("/blog", &token).status, 200);
    let claims = verified(&running, upstream.last().field("x-user-assertion").unwrap(), "blog");
    assert_eq!((&claims["aud"], &claims["auth_method"]), (&json!("blog"), &json!("bearer")));
    let request = format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nCookie: __Host-session={token}\r\n\r\n");
    assert_eq!(running.send(request).status, 200);
    let claims = verified(&running, upstream.last().field("x-user-assertion").unwrap(), "oms");
    assert_eq!((&claims["aud"], &claims["auth_method"]), (&json!("oms"), &json!("cookie")));
}
