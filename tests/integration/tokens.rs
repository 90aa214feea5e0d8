//! Which tokens are believed, and what a believed one may say (SPEC 5.4, 8; T5, T7, T19, T30).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Connection, Doorward, Issuer, Upstream, doorward, eventually, now};

fn guarded_by(issuer: &Issuer) -> (Doorward, Upstream) {
    let upstream = Upstream::echo();
    let running = doorward().issuer(issuer).upstream(&upstream).start();
    (running, upstream)
}

/// Flips one bit in the middle of the last part, where no padding bit hides it.
fn tampered(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[10] ^= 1;
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_tampered_one() {
    for issuer in [Issuer::hs256(), Issuer::rs256(), Issuer::es256(), Issuer::eddsa()] {
        let (running, upstream) = guarded_by(&issuer);
        let token = issuer.viewer();
        // Twice: verified, then remembered.
        for _ in 0..2 {
            assert_eq!(running.get_as("/items", &token).status, 200, "{}", issuer.algorithm);
        }
        assert_eq!(upstream.last().field("x-user-id"), Some("u-1"));
        assert_eq!(running.get_as("/items", &tampered(&token)).denial(), (401, "bad_signature".into()));
        let message = token.rsplit_once('.').unwrap().0;
        assert_eq!(running.get_as("/items", &format!("{message}.")).status, 401);
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn bad_tokens_are_refused_each_for_its_reason() {
    let issuer = Issuer::rs256();
    let (running, upstream) = guarded_by(&issuer);
    let token = || issuer.token();
    let now = now();
    let good = token().sign();
    let parts: Vec<&str> = good.split('.').collect();
    let none = |alg: &str| {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "k1"}).to_string());
        format!("{header}.{}.", parts[1])
    };
    let claims = |extra: &str| {
        format!(r#"{{"iss":"{}","aud":"oms","sub":"u-1","iat":{now},"exp":{}{extra}}}"#, issuer.url, now + 600)
    };
    let header = |extra: &str| format!(r#"{{"alg":"RS256","kid":"k1"{extra}}}"#);
    let other = Issuer::rs256();
    let table: Vec<(&str, String, &str)> = vec![
        ("expired", token().claim("iat", now - 700).claim("exp", now - 100).sign(), "expired"),
        ("not before a minute from now", token().claim("nbf", now + 60).sign(), "not_yet_valid"),
        ("another issuer", token().claim("iss", "https://other.test/").sign(), "wrong_issuer"),
        ("no issuer", token().without("iss").sign(), "wrong_issuer"),
        ("another audience", token().claim("aud", "shopping").sign(), "wrong_audience"),
        ("no audience", token().without("aud").sign(), "wrong_audience"),
        ("audience in a longer word", token().claim("aud", ["omsx", "xoms"]).sign(), "wrong_audience"),
        ("unknown key", token().header("kid", "k2").sign(), "unknown_key"),
        ("signed by a stranger", other.token().sign(), "bad_signature"),
        ("alg none", none("none"), "alg_not_allowed"),
        ("alg None", none("None"), "alg_not_allowed"),
        ("alg HS256 under an RSA key", token().header("alg", "HS256").sign(), "alg_not_allowed"),
        ("alg RS512", token().header("alg", "RS512").sign(), "alg_not_allowed"),
        ("no alg", token().without_header("alg").sign(), "malformed_token"),
        ("crit", token().header("crit", ["exp"]).sign(), "malformed_token"),
        ("empty crit", token().header("crit", json!([])).sign(), "malformed_token"),
        ("null crit", token().header("crit", Value::Null).sign(), "malformed_token"),
        ("null kid", token().header("kid", Value::Null).sign(), "malformed_token"),
        ("number kid", token().header("kid", 1).sign(), "malformed_token"),
        ("embedded key", token().header("jwk", json!({"kty": "oct", "k": "AA"})).sign(), "malformed_token"),
        ("linked key", token().header("jku", "https://evil.test/keys").sign(), "malformed_token"),
        ("embedded certificate", token().header("x5c", ["AA"]).sign(), "malformed_token"),
        ("linked certificate", token().header("x5u", "https://evil.test/").sign(), "malformed_token"),
        ("no exp", token().without("exp").sign(), "malformed_token"),
        ("text exp", token().claim("exp", (now + 600).to_string()).sign(), "malformed_token"),
        ("null exp", token().claim("exp", Value::Null).sign(), "malformed_token"),
        ("null nbf", token().claim("nbf", Value::Null).sign(), "malformed_token"),
        ("text iat", token().claim("iat", "now").sign(), "malformed_token"),
        ("no sub", token().without("sub").sign(), "malformed_token"),
        ("number sub", token().claim("sub", 7).sign(), "malformed_token"),
        ("null sub", token().claim("sub", Value::Null).sign(), "malformed_token"),
        ("number iss", token().claim("iss", 7).sign(), "malformed_token"),
        ("number jti", token().claim("jti", 7).sign(), "malformed_token"),
        ("sub twice", issuer.sign_text(header(""), claims(r#","sub":"u-2""#)), "malformed_token"),
        ("a claim twice, deep", issuer.sign_text(header(""), claims(r#","a":{"b":1,"b":2}"#)), "malformed_token"),
        ("alg twice", issuer.sign_text(header(r#","alg":"none""#), claims("")), "malformed_token"),
        ("claims that are no object", issuer.sign_text(header(""), "[]"), "malformed_token"),
        ("claims that are no JSON", issuer.sign_text(header(""), "{"), "malformed_token"),
        ("text behind the claims", issuer.sign_text(header(""), claims("") + "{}"), "malformed_token"),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "malformed_token"),
        ("four parts", format!("{good}.x"), "malformed_token"),
        ("five parts", format!("{good}.x.y"), "malformed_token"),
        ("padded base64", format!("{good}=="), "malformed_token"),
        ("standard base64", format!("{}+/.{}.{}", parts[0], parts[1], parts[2]), "malformed_token"),
        ("over 16 KiB", token().claim("x", "x".repeat(13_000)).sign(), "malformed_token"),
    ];
    let mut wrong = Vec::new();
    for (what, token, reason) in &table {
        let response = running.get_as("/items", token);
        let got = (response.status, response.json()["reason"].as_str().unwrap_or_default().to_owned());
        if got != (401, (*reason).to_owned()) {
            wrong.push(format!("{what}: {got:?} instead of {reason}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(upstream.count(), 0);
    assert_eq!(running.get_as("/items", &good).status, 200, "the token that they were made of is good");
}

#[test]
fn a_signature_with_odd_trailing_bits_is_another_spelling_of_a_token_and_refused() {
    // 32 bytes are 43 letters of base64url, the last of which holds two bits that mean nothing.
    let issuer = Issuer::hs256();
    let (running, upstream) = guarded_by(&issuer);
    let token = issuer.viewer();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.find(token.chars().last().unwrap()).unwrap();
    let twin = format!("{}{}", &token[..token.len() - 1], &alphabet[last + 1..last + 2]);
    assert_eq!(running.get_as("/items", &token).status, 200);
    assert_eq!(running.get_as("/items", &twin).denial(), (401, "malformed_token".into()));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn there_is_exactly_one_credential_or_none() {
    let issuer = Issuer::hs256();
    let (running, upstream) = guarded_by(&issuer);
    let token = issuer.viewer();
    let send = |fields: &str| running.send(format!("GET /items HTTP/1.1\r\nHost: oms.test\r\n{fields}\r\n"));
    for (fields, reason) in [
        (format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"), "malformed_token"),
        (format!("Authorization: Bearer {token}\r\nauthorization: Basic eDp5\r\n"), "malformed_token"),
        (format!("Authorization: Bearer {token}, Bearer {token}\r\n"), "malformed_token"),
        (format!("Authorization: Bearer {token} {token}\r\n"), "malformed_token"),
        ("Authorization: Bearer\r\n".to_owned(), "malformed_token"),
        ("Authorization: Basic eDp5\r\n".to_owned(), "missing_token"),
        (format!("Cookie: token={token}\r\n"), "missing_token"),
    ] {
        assert_eq!(send(&fields).denial(), (401, reason.into()), "{fields}");
    }
    assert_eq!(running.get(&format!("/items?access_token={token}")).denial(), (401, "missing_token".into()));
    assert_eq!(upstream.count(), 0);
    assert_eq!(send(&format!("authorization: bearer {token}\r\n")).status, 200, "the scheme's case means nothing");
}

#[test]
fn times_have_a_leeway_and_no_more() {
    let issuer = Issuer::hs256();
    let (running, _upstream) = guarded_by(&issuer);
    let now = now();
    for (claim, value, status) in
        [("exp", now - 5, 200), ("exp", now - 60, 401), ("nbf", now + 5, 200), ("nbf", now + 60, 401)]
    {
        let token = issuer.token().claim("iat", now - 600).claim(claim, value).sign();
        assert_eq!(running.get_as("/items", &token).status, status, "{claim} {}", value - now);
    }
}

#[test]
fn a_remembered_token_still_expires() {
    let issuer = Issuer::hs256();
    let upstream = Upstream::echo();
    let running = doorward().issuer(&issuer).upstream(&upstream).setting("auth.leeway", "0s").start();
    // On a machine that stood still meanwhile it may have expired before it was looked at: then another is made.
    let token = eventually("a token is good for its life", std::time::Duration::from_secs(30), || {
        let token = issuer.token().claim("exp", now() + 3).sign();
        let answer = running.get_as("/items", &token);
        assert!(answer.status == 200 || answer.denial() == (401, "expired".into()), "{answer:?}");
        (answer.status == 200).then_some(token)
    });
    std::thread::sleep(std::time::Duration::from_millis(3_200));
    assert_eq!(running.get_as("/items", &token).denial(), (401, "expired".into()));
}

#[test]
fn roles_may_be_a_list_a_word_or_deeper_down() {
    let issuer = Issuer::hs256();
    let upstream = Upstream::echo();
    let (running, _upstream) = guarded_by(&issuer);
    assert_eq!(running.get_as("/items", &issuer.token().claim("roles", "ROLE_VIEWER").sign()).status, 200);
    let paths = toml::Table::from_iter([("roles".to_owned(), "realm_access.roles".into())]);
    let nested = doorward().issuer_with(&issuer, &[("claims", paths.into())]).upstream(&upstream).start();
    let token = issuer.token().without("roles").claim("realm_access", json!({"roles": ["ROLE_VIEWER"]})).sign();
    assert_eq!(nested.get_as("/items", &token).status, 200);
    assert_eq!(running.get_as("/items", &token).denial(), (403, "permission_missing".into()));
}

#[test]
fn issuers_never_share_keys() {
    let (one, two) = (Issuer::hs256().named("one"), Issuer::hs256().named("two"));
    let upstream = Upstream::echo();
    let running = doorward().issuer(&one).issuer(&two).upstream(&upstream).start();
    for issuer in [&one, &two] {
        assert_eq!(running.get_as("/items", &issuer.viewer()).status, 200);
    }
    let borrowed = one.token().claim("iss", two.url.as_str()).sign();
    assert_eq!(
        running.get_as("/items", &borrowed).denial(),
        (401, "bad_signature".into()),
        "the same kid, another key"
    );
}

#[test]
fn t05_a_token_lives_no_longer_than_its_issuer_may_make_it_live() {
    let issuer = Issuer::hs256();
    let (running, upstream) = guarded_by(&issuer);
    let now = now();
    for (what, token) in [
        ("exp - iat over an hour", issuer.token().claim("exp", now + 3_700).sign()),
        ("iat beyond leeway in the future", issuer.token().claim("iat", now + 120).claim("exp", now + 600).sign()),
        ("no iat, exp further than max_lifetime", issuer.token().without("iat").claim("exp", now + 3_700).sign()),
    ] {
        assert_eq!(running.get_as("/items", &token).status, 401, "{what}");
    }
    assert_eq!(upstream.count(), 0);
    let hour = issuer.token().claim("iat", now).claim("exp", now + 3_600).sign();
    assert_eq!(running.get_as("/items", &hour).status, 200);
    assert_eq!(
        running.get_as("/items", &issuer.token().without("iat").sign()).status,
        200,
        "counts as exp - max_lifetime"
    );
}

#[test]
fn t07_a_foreign_issuer_confers_no_administrators_role() {
    let issuer = Issuer::hs256();
    let (running, upstream) = guarded_by(&issuer);
    let token = issuer.with_roles("u-1", &["ROLE_SUPER_ADMIN", "ROLE_VIEWER"]);
    assert_eq!(running.request("DELETE", "/items/1", &token, &[], "").denial(), (403, "permission_missing".into()));
    assert_eq!(running.get_as("/items/1", &token).status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), Some("ROLE_VIEWER"));

    let running = doorward().issuer_with(&issuer, &[("admin", true.into())]).upstream(&upstream).start();
    assert_eq!(running.request("DELETE", "/items/1", &token, &[], "").status, 200, "admin = true says so");
}

#[test]
fn t07_a_foreign_issuer_confers_what_its_table_says_and_no_more() {
    let issuer = Issuer::hs256();
    let upstream = Upstream::echo();
    let map = toml::Table::from_iter([("viewer".to_owned(), "ROLE_VIEWER".into())]);
    let cases: [(toml::Value, &[&str], Option<&str>); 4] = [
        (map.clone().into(), &["viewer", "ROLE_EDITOR"], Some("ROLE_VIEWER")),
        (map.into(), &["ROLE_VIEWER"], None),
        (vec!["ROLE_VIEWER"].into(), &["ROLE_VIEWER", "ROLE_EDITOR"], Some("ROLE_VIEWER")),
        (vec!["ROLE_EDITOR"].into(), &["ROLE_VIEWER"], None),
    ];
    for (confers, roles, expected) in cases {
        let running = doorward().issuer_with(&issuer, &[("confers", confers)]).upstream(&upstream).start();
        assert_eq!(running.get_as("/me", &issuer.with_roles("u-1", roles)).status, 200);
        assert_eq!(upstream.last().field("x-user-roles"), expected, "{roles:?}");
    }
}

#[test]
fn t07_a_foreign_subject_is_prefixed_or_declared_the_same() {
    let issuer = Issuer::hs256();
    let upstream = Upstream::echo();
    let prefixed: [(&str, toml::Value); 2] = [("same_subjects", false.into()), ("subject_prefix", "kc:".into())];
    let running = doorward().issuer_with(&issuer, &prefixed).upstream(&upstream).start();
    assert_eq!(running.get_as("/me", &issuer.viewer()).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), Some("kc:u-1"));
    assert_eq!(running.get_as("/users/u-1/orders", &issuer.viewer()).status, 403, "another person of the same name");

    let failed = doorward().issuer_with(&issuer, &[("same_subjects", false.into())]).upstream(&upstream).fails();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("subject_prefix"), "{}", failed.stderr);
}

#[test]
fn t07_sessions_memberships_and_uv_are_believed_from_own_keys_only() {
    let issuer = Issuer::hs256();
    let (running, upstream) = guarded_by(&issuer);
    let token = issuer
        .token()
        .claim("sid", "s-1")
        .claim("uv", u64::MAX / 2 + 1)
        .claim("memberships", json!({"oms": "PREMIUM"}))
        .sign();
    assert_eq!(running.get_as("/users/u-2/orders", &token).denial(), (403, "permission_missing".into()));
    assert_eq!(running.get_as("/me", &token).status, 200);
    assert_eq!(upstream.last().field("x-user-memberships"), None);
    assert_eq!(upstream.last().field("x-auth-session"), None);
}

#[test]
fn t07_a_foreign_session_is_believed_nowhere_and_ends_with_what_ends_it() {
    let (own_kind, upstream) = (Issuer::hs256(), Upstream::echo());
    let nested = toml::Table::from_iter([("session".to_owned(), "login.state".into())]);
    let elsewhere = Issuer::es256().named("elsewhere");
    let running = doorward()
        .issuer_with(&own_kind, &[("admin", true.into())])
        .issuer_with(&elsewhere, &[("claims", nested.into())])
        .upstream(&upstream)
        .start();
    let administrator = own_kind.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let revoke = |entry: Value| {
        let answer = running.admin_request("POST", "/api/revocations", Some(&administrator), &entry.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let of = |session: &str| own_kind.token().claim("sid", session).sign();
    let at_the_path = elsewhere.token().claim("sid", "s-9").claim("login", json!({"state": "state-three"})).sign();
    for (token, session) in [(of("shown-nowhere"), "shown-nowhere"), (at_the_path.clone(), "state-three")] {
        let answer = running.get_as("/me", &token);
        assert_eq!(answer.status, 200);
        let sent = upstream.last();
        assert_eq!(sent.field("x-auth-session"), None);
        // The token itself, which holds it in base64url, is not sent on; nothing else may hold it either.
        assert!(!sent.text().contains(session) && !format!("{sent:?}").contains(session), "{sent:?}");
        let line = running.access_line(answer.field("x-request-id").unwrap());
        assert!(!line.to_string().contains(session), "{line}");
    }
    let refused = |token: &str| running.get_as("/items", token).denial() == (401, "revoked".into());
    let (first, second, third) = (of("s-1"), of("s-2"), of("s-4"));
    let odd = own_kind.token().claim("sid", json!(["s-1"])).sign();
    let long = of(&"s".repeat(129));
    for token in [&first, &second, &third, &odd, &long, &at_the_path] {
        assert_eq!(running.get_as("/items", token).status, 200);
    }
    revoke(json!({"session": "s-1"}));
    assert!(refused(&first), "a remembered token too");
    assert!(refused(&of("s-1")), "and one that was never seen");
    revoke(json!({"session": "s-9"}));
    assert_eq!(running.get_as("/items", &at_the_path).status, 200, "its session stands somewhere else");
    revoke(json!({"session": "state-three"}));
    assert!(refused(&at_the_path));
    // A floor of a session compares by `iat`, as all floors do for a foreign token.
    let now = now();
    revoke(json!({"session": "s-2", "floor": true, "issued_until": now - 3000}));
    assert_eq!(running.get_as("/items", &second).status, 200, "issued later");
    revoke(json!({"session": "s-2", "floor": true, "issued_until": now}));
    assert!(refused(&second));
    for token in [&third, &odd, &long] {
        assert_eq!(running.get_as("/items", token).status, 200, "nobody ended its session");
    }
}

#[test]
fn t19_an_assertion_for_the_upstream_is_no_bearer_token() {
    let issuer = Issuer::hs256();
    let (running, upstream) = guarded_by(&issuer);
    for typ in ["doorward-assertion+jwt", "application/doorward-assertion+jwt", "DOORWARD-ASSERTION+JWT"] {
        assert_eq!(running.get_as("/items", &issuer.token().header("typ", typ).sign()).status, 401, "{typ}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(
        running.get_as("/items", &issuer.token().header("typ", "JWT").sign()).status,
        200,
        "of a foreign issuer"
    );
}

#[test]
fn an_owner_is_who_the_path_names() {
    let issuer = Issuer::hs256();
    let (running, _upstream) = guarded_by(&issuer);
    let token = issuer.viewer();
    assert_eq!(running.get_as("/users/u-1/orders", &token).status, 200);
    assert_eq!(running.get_as("/users/%75-1/orders", &token).status, 200, "the same bytes, once decoded");
    assert_eq!(running.get_as("/users/u-2/orders", &token).denial(), (403, "permission_missing".into()));
    assert_eq!(running.get_as("/users/U-1/orders", &token).denial(), (403, "permission_missing".into()));
}

/// An issuer that may make administrators, and a process that serves them on its admin listener.
fn administered(file: &str) -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward()
        .issuer_with(&issuer, &[("admin", true.into())])
        .upstream(&upstream)
        .file("revoked.jsonl", file)
        .setting("revocation.file", "revoked.jsonl")
        .start();
    (running, upstream, issuer)
}

#[test]
fn a_file_of_revocations_is_honoured_from_the_start() {
    let revoked = format!("{}\n{}\n", json!({"jti": "t-1"}), json!({"subject": "u-9", "issued_until": now() - 30}));
    let (running, upstream, issuer) = administered(&revoked);
    assert_eq!(running.get_as("/items", &issuer.token().claim("jti", "t-1").sign()).denial(), (401, "revoked".into()));
    let old = issuer.token().claim("sub", "u-9").claim("iat", now() - 60).sign();
    assert_eq!(running.get_as("/items", &old).denial(), (401, "revoked".into()));
    assert_eq!(upstream.count(), 0);
    assert_eq!(running.get_as("/items", &issuer.token().claim("jti", "t-2").sign()).status, 200);
}

#[test]
fn a_revoked_token_is_refused_by_the_very_next_request() {
    let (running, upstream, issuer) = administered("");
    let token = issuer.token().claim("jti", "t-1").sign();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    assert_eq!(running.get_as("/items", &token).status, 200);
    let response = running.admin_request("POST", "/api/revocations", Some(&administrator), r#"{"jti": "t-1"}"#);
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(running.get_as("/items", &token).denial(), (401, "revoked".into()));
    assert_eq!(upstream.count(), 1);
    assert_eq!(running.get_as("/public", &token).status, 200, "a public route asks nobody");
    assert_eq!(upstream.last().field("x-user-id"), None, "and a revoked caller is nobody there");
    assert_eq!(running.get_as("/items", &issuer.viewer()).status, 200, "others are not concerned");
}

#[test]
fn a_subject_is_logged_out_of_what_was_issued_until_now() {
    let (running, _upstream, issuer) = administered("");
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    assert_eq!(running.get_as("/items", &issuer.viewer()).status, 200);
    let log_out = |body| running.admin_request("POST", "/api/revocations", Some(&administrator), body).status;
    assert_eq!(log_out(r#"{"subject": "u-1", "subject": "u-2"}"#), 422, "which of them?");
    assert_eq!(log_out(r#"{"subject": "u-1"}"#), 200);
    assert_eq!(running.get_as("/items", &issuer.viewer()).denial(), (401, "revoked".into()));
}

#[test]
fn t30_the_admin_listener_asks_for_host_token_and_permission() {
    let (running, _upstream, issuer) = administered("");
    let body = r#"{"jti": "t-1"}"#;
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let without = running.admin_request("POST", "/api/revocations", None, body);
    assert_eq!(without.denial(), (401, "missing_token".into()));
    let editor = issuer.with_roles("e", &["ROLE_EDITOR"]);
    let response = running.admin_request("POST", "/api/revocations", Some(&editor), body);
    assert_eq!(response.denial(), (403, "permission_missing".into()));
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"] {
        for target in ["/api/revocations", "/metrics"] {
            let response = Connection::open(running.admin)
                .send(format!(
                    "POST {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {administrator}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ))
                .response();
            assert_eq!(response.status, 421, "{host} {target}: {response:?}");
            assert_eq!(response.field("access-control-allow-origin"), None);
        }
    }
    let token = issuer.token().claim("jti", "t-1").sign();
    assert_eq!(running.get_as("/items", &token).status, 200, "none of it revoked anything");
    let broken = running.admin_request("POST", "/api/revocations", Some(&administrator), "{");
    assert!(matches!(broken.status, 400 | 422), "{broken:?}");
}

#[test]
fn t30_closed_metrics_are_closed() {
    let running = doorward().issuer(&Issuer::hs256()).setting("admin.metrics_open", false).start();
    assert_eq!(running.admin_request("GET", "/metrics", None, "").denial(), (401, "missing_token".into()));
}

#[test]
fn t30_a_foreign_issuer_without_admin_does_not_open_the_admin_listener() {
    let issuer = Issuer::hs256();
    let (running, _upstream) = guarded_by(&issuer);
    let token = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let response = running.admin_request("POST", "/api/revocations", Some(&token), r#"{"jti": "t-1"}"#);
    assert!(matches!(response.status, 401 | 403), "{response:?}");
}
