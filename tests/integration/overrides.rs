//! What doorward has published of a subject counts, and not what its tokens say (SPEC 8, THREATS T3, T6, T8).

use serde_json::json;

use crate::harness::{Doorward, Issuer, Upstream, doorward, now};

/// Lines for a file of revocations.
fn lines(entries: &[serde_json::Value]) -> String {
    entries.iter().map(|entry| format!("{entry}\n")).collect()
}

#[test]
fn t06_an_issuer_that_leaves_roles_to_doorward_gives_the_published_ones() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::eddsa());
    let published = lines(&[
        json!({"override": "u-1", "roles": ["ROLE_VIEWER"], "memberships": {"oms": "PREMIUM"}}),
        json!({"override": "u-2", "roles": ["ROLE_EDITOR", {"role": "ROLE_VIEWER", "expires_at": now() - 1}]}),
        json!({"override": "u-3", "roles": ["ROLE_SUPER_ADMIN"]}),
    ]);
    let running = doorward()
        .issuer_with(&issuer, &[("roles_from", "doorward".into())])
        .upstream(&upstream)
        .file("published.jsonl", published)
        .setting("revocation.file", "published.jsonl")
        .start();
    let token = |subject: &str| issuer.with_roles(subject, &["ROLE_SUPER_ADMIN", "ROLE_EDITOR"]);
    let response = running.get_as("/items", &token("u-1"));
    assert_eq!(response.status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), Some("ROLE_VIEWER"));
    assert_eq!(upstream.last().field("x-user-memberships"), Some("oms=PREMIUM"));
    let line = running.access_line(response.field("x-request-id").unwrap());
    assert_eq!((&line["roles"], &line["memberships"]), (&json!(["ROLE_VIEWER"]), &json!(["oms=PREMIUM"])));
    let post = |subject: &str| running.request("POST", "/items", &token(subject), &[], "x");
    assert_eq!(post("u-1").denial(), (403, "permission_missing".into()), "the token's roles count for nothing");
    assert_eq!(running.get_as("/users/u-9/orders", &token("u-1")).status, 200, "and the membership counts");
    assert_eq!(post("u-2").status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), Some("ROLE_EDITOR"), "T13: the other has ended");
    assert_eq!(post("u-3").denial(), (403, "permission_missing".into()), "T7: no administrator without admin = true");
    assert_eq!(post("u-4").denial(), (403, "permission_missing".into()), "nothing was published of her");
    assert_eq!(running.get_as("/me", &token("u-4")).status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), None);
    assert_eq!(running.metric("doorward_subject_overrides", &[]), 3.0);
    assert_eq!(running.metric("doorward_revocations", &[]), 0.0);
}

#[test]
fn t08_an_override_counts_before_the_claims_of_whoever_issued_them() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward()
        .issuer_with(&issuer, &[("admin", true.into())])
        .upstream(&upstream)
        .file("published.jsonl", lines(&[json!({"override": "u-1", "roles": []})]))
        .setting("revocation.file", "published.jsonl")
        .start();
    let administrator = issuer.with_roles("u-1", &["ROLE_SUPER_ADMIN"]);
    assert_eq!(running.get_as("/items", &administrator).denial(), (403, "permission_missing".into()));
    let call = running.admin_request("POST", "/api/revocations", Some(&administrator), r#"{"jti": "x"}"#);
    assert_eq!(call.denial(), (403, "permission_missing".into()), "nor does she administer");
    assert_eq!(running.get_as("/items", &issuer.with_roles("u-2", &["ROLE_SUPER_ADMIN"])).status, 200);
}

/// A process with doorward's own keys, whose tokens alone have sessions.
fn with_own_keys(upstream: &Upstream) -> Doorward {
    let issuer = toml::toml! { name = "doorward"
        issuer = "http://127.0.0.1:8001"
        audience = ["oms"]
        keys = "local"
    };
    doorward().upstream(upstream).setting("auth.issuers", vec![toml::Value::from(issuer)]).start()
}

fn mint(running: &Doorward, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["token", "mint", "--config"]).arg(running.path("doorward.toml")).args(arguments);
    let done = command.current_dir(running.path("")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[test]
fn t03_sessions_and_services_have_floors() {
    let upstream = Upstream::echo();
    let running = with_own_keys(&upstream);
    let viewer = |session| mint(&running, &["--sub", "u-1", "--role", "ROLE_VIEWER", "--session", session]);
    let (one, other) = (viewer("s-1"), viewer("s-2"));
    let administrator = mint(&running, &["--sub", "root", "--role", "ROLE_SUPER_ADMIN"]);
    let revoke = |entry: serde_json::Value| {
        let answer = running.admin_request("POST", "/api/revocations", Some(&administrator), &entry.to_string());
        assert_eq!(answer.status, 200, "{entry}: {answer:?}");
    };
    assert_eq!(running.get_as("/items", &one).status, 200);
    revoke(json!({"session": "s-1", "floor": true, "issued_until": now() - 3600}));
    revoke(json!({"service": "crm", "issued_until": now() + 1}));
    assert_eq!(running.get_as("/items", &one).status, 200, "issued after the one, and not for the other");
    revoke(json!({"session": "s-1", "floor": true, "issued_until": now() + 1}));
    assert_eq!(running.get_as("/items", &one).denial(), (401, "revoked".into()));
    assert_eq!(running.get_as("/items", &other).status, 200);
    revoke(json!({"service": "oms", "issued_until": now() + 1}));
    assert_eq!(running.get_as("/items", &other).denial(), (401, "revoked".into()));
    let call = running.admin_request("POST", "/api/revocations", Some(&administrator), r#"{"jti": "x"}"#);
    assert_eq!(call.status, 200, "the floor of one service is none of another's: {call:?}");
    assert_eq!(running.metric("doorward_revocations", &[]), 4.0, "three floors and a token");
}
