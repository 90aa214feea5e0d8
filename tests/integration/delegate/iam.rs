//! `AUTH_MODE=iam_service`: who asks is what the service says, and what they may do as well.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::service::UserService;
use crate::harness::redis::Redis;
use crate::harness::{Connection, Upstream, now};

/// A JWT that nobody verifies here.
pub(super) fn jwt(payload: &Value) -> String {
    jwt_of(&payload.to_string())
}

/// The same with a payload as it is written.
fn jwt_of(payload: &str) -> String {
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    format!("{}.{}.c2lnbmF0dXJl", encode(r#"{"alg": "HS256", "typ": "JWT"}"#), encode(payload))
}

/// Tokens with these claims that services take, of which not everything can be read: with a fourth part, and with claims that their
/// bearer chose.
fn unreadable(claims: &str) -> [String; 3] {
    let nested = format!("{}{}", "[".repeat(20), "]".repeat(20));
    [
        format!("{}.x", jwt_of(&format!("{{{claims}}}"))),
        jwt_of(&format!(r#"{{{claims}, "nick": "\ud800"}}"#)),
        jwt_of(&format!(r#"{{{claims}, "nick": {nested}}}"#)),
    ]
}

#[test]
fn the_service_says_who_it_is_and_what_they_may_do() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let userinfo = json!({
        "user_id": 42, "roles": ["ROLE_VIEWER", "not a role"], "name": "Zoë", "email": "z@example.com",
        "email_verified": true, "memberships": {"oms": "PREMIUM"}, "sid": "s-1", "password": "never shown",
    });
    service.knows("opaque-token", userinfo).grants("opaque-token", "item:view");
    let gateway = service.asked_by(&upstream).start();

    assert_eq!(gateway.get_as("/items", "opaque-token").status, 200);
    let seen = upstream.last();
    assert_eq!(seen.field("x-user-id"), Some("42"));
    assert_eq!(seen.field("x-user-name"), Some("Zo%C3%AB"));
    assert_eq!(seen.field("x-user-email"), Some("z@example.com"));
    assert_eq!(seen.field("x-user-roles"), Some("ROLE_VIEWER"));
    assert_eq!(seen.field("x-user-memberships"), Some("oms=PREMIUM"));
    assert_eq!(seen.field("x-auth-session"), Some("s-1"));
    assert!(seen.field("authorization").is_none(), "{}", seen.text());
    assert_eq!(service.userinfos(), 1);
    assert_eq!(service.permissions(), [json!({"permission": "item:view", "service": "oms"})]);

    // The role holds order:view by the roles file, but it is the service that is asked.
    assert_eq!(gateway.get_as("/users/7/orders", "opaque-token").denial(), (403, "permission_missing".into()));
    // The subject is known, but it is no owner's permission alone that opens the route.
    service.grants("opaque-token", "order:view");
    let line = gateway.get_as("/items", "opaque-token");
    let line = gateway.access_line(line.field("x-request-id").unwrap());
    assert_eq!((&line["subject"], &line["roles"]), (&json!("42"), &json!(["ROLE_VIEWER"])), "{line}");
    assert!(!gateway.stdout().contains("opaque-token") && !gateway.stderr().contains("opaque-token"));
    let metrics = gateway.metrics();
    assert!(metrics.contains("doorward_token_validation_seconds_count{source=\"iam\",result=\"ok\"} 1"), "{metrics}");
    assert!(
        gateway.metric("doorward_delegate_question_seconds_count", &["question=\"userinfo\"", "result=\"answered\""])
            > 0.0
    );
}

#[test]
fn only_what_the_route_asks_for_is_asked_and_only_if_the_answer_matters() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    for token in ["t", "owner", "nobody"] {
        service.knows(token, json!({"sub": token}));
    }
    service.grants("t", "item:delete").grants("t", "item:edit");
    let policy = "
version: 1
service: oms
upstream: oms
paths:
  /me: { get: authenticated }
  /role: { get: { all: [ { role: ROLE_VIEWER }, item:view ] } }
  /items/{id}: { delete: { all: [item:delete, item:edit] } }
  /users/{user_id}/orders: { get: { any: [order:view-all, { owner: user_id }] } }
";
    let gateway = service.asked_by(&upstream).policy(policy).start();
    assert_eq!(gateway.get_as("/me", "t").status, 200);
    assert_eq!(service.permissions().len(), 0, "no permission is asked for");
    assert_eq!(gateway.get_as("/role", "t").denial(), (403, "permission_missing".into()));
    assert_eq!(service.permissions().len(), 0, "without the role the permission does not matter");
    assert_eq!(gateway.get_as("/users/owner/orders", "owner").status, 200);
    assert_eq!(service.permissions().len(), 0, "owners need no permission");

    assert_eq!(gateway.request("DELETE", "/items/1", "t", &[], "").status, 200);
    assert_eq!(service.permissions(), [json!({"permissions": ["item:delete", "item:edit"], "service": "oms"})]);
    assert_eq!(gateway.get_as("/users/owner/orders", "nobody").denial(), (403, "permission_missing".into()));
    assert_eq!(service.permissions()[1..], [json!({"permission": "order:view-all", "service": "oms"})]);
}

#[test]
fn a_service_that_knows_one_permission_at_a_time_is_asked_for_each() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.knows("t", json!({"id": 1})).grants("t", "item:delete");
    service.knows("u", json!({"id": 2})).grants("u", "item:delete").grants("u", "item:edit");
    service.knows_one_permission_at_a_time();
    let gateway = service.asked_by(&upstream).start();
    assert_eq!(gateway.request("DELETE", "/items/1", "t", &[], "").denial(), (403, "permission_missing".into()));
    let asked = service.permissions();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(gateway.request("DELETE", "/items/1", "u", &[], "").status, 200);
    let asked = service.permissions();
    assert!(asked.len() == 5 && asked[3..].iter().all(|question| question["permission"].is_string()), "{asked:?}");
}

#[test]
fn t15_answers_are_kept_by_token_permission_and_service_and_for_no_longer_than_stated() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    for token in ["a", "b"] {
        service.knows(token, json!({"sub": token})).grants(token, "item:view").grants_in(token, "shop", "item:view");
    }
    let shop = "version: 1\nservice: shop\nupstream: oms\nhosts: [shop.test]\npaths: { /items: { get: item:view } }\n";
    let roles = crate::harness::ROLES.replace(
        "tiers:",
        "  ROLE_SHOP: { permissions: [], scope: shop }\ntiers:\n  shop: [{key: A, permissions: []}]",
    );
    let gateway =
        service.asked_by(&upstream).another_policy(shop).roles(&roles).setting("auth.iam_service.cache", "2s").start();
    let asked = || (service.userinfos(), service.permissions().len());
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.get_as("/items", "a").status, 200);
    }
    assert!(began.elapsed() > Duration::from_secs(2) || asked() == (1, 1), "{:?}", asked());
    let before = asked();
    assert_eq!(gateway.request("POST", "/items", "a", &[], "").denial(), (403, "permission_missing".into()));
    assert!(asked().1 > before.1, "another permission");
    let in_shop = "GET /items HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer a\r\n\r\n";
    assert_eq!(gateway.send(in_shop).status, 200);
    assert_eq!(
        service.permissions().last(),
        Some(&json!({"permission": "item:view", "service": "shop"})),
        "another service"
    );
    assert_eq!(gateway.get_as("/items", "b").status, 200);
    assert!(asked().0 > before.0, "another token");

    // What is withdrawn there is withdrawn here when the answer is two seconds old.
    service.withdraws("a", "item:view");
    let withdrawn = Instant::now();
    while gateway.get_as("/items", "a").status == 200 {
        assert!(withdrawn.elapsed() < Duration::from_secs(10), "the answer is used for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    service.forgets("a");
    while gateway.get_as("/items", "a").reason() != "token_rejected" {
        assert!(withdrawn.elapsed() < Duration::from_secs(20), "the answer is used for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn t15_a_token_that_expires_is_forgotten_with_its_end() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let token = jwt(&json!({"exp": now() + 2, "sub": "somebody else"}));
    service.knows(&token, json!({"sub": "a"}));
    let gateway = service.asked_by(&upstream).setting("auth.iam_service.cache", "1m").start();
    assert_eq!(gateway.get_as("/me", &token).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), Some("a"), "what the token says of its bearer is not believed");
    service.forgets(&token);
    crate::harness::eventually("it is asked for again", Duration::from_secs(20), || {
        (gateway.get_as("/me", &token).status == 401).then_some(())
    });
    // Whether a token has expired says the service: the clock here is only for forgetting.
    let expired = jwt(&json!({"exp": now() - 100}));
    service.knows(&expired, json!({"sub": "late"}));
    let before = service.userinfos();
    for _ in 0..3 {
        assert_eq!(gateway.get_as("/me", &expired).status, 200);
    }
    assert_eq!(service.userinfos(), before + 3, "nothing of it is remembered");
}

#[test]
fn a_stampede_of_a_thousand_asks_once() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.knows("one-token", json!({"sub": "a"})).grants("one-token", "item:view");
    // Nobody is told who it is before all have asked.
    service.keeps_back(Some("/auth/userinfo"));
    let gateway = service
        .asked_by(&upstream)
        .setting("auth.iam_service.timeout", "50s")
        // A thousand connections to the upstream at once take their time on a machine under load.
        .setting("upstreams.oms.timeouts.connect", "50s")
        .setting("auth.iam_service.cache", "1m")
        .start();
    const CONNECTIONS: usize = 1000;
    let request = "GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer one-token\r\n\r\n";
    // One asks first, and is gone before there is an answer.
    let mut first = gateway.connect();
    first.send(request);
    crate::harness::eventually("it asks", Duration::from_secs(20), || (service.userinfos() == 1).then_some(()));
    drop(first);
    let mut open: Vec<Connection> = (0..CONNECTIONS).map(|_| gateway.connect()).collect();
    for connection in &mut open {
        connection.set_read_timeout(Duration::from_secs(60));
        connection.send(request);
    }
    crate::harness::eventually("others wait for the same answer", Duration::from_secs(20), || {
        (gateway.metric("doorward_delegate_coalesced_total", &[]) >= 1.0).then_some(())
    });
    service.keeps_back(None);
    for (number, connection) in open.iter_mut().enumerate() {
        assert_eq!(connection.response().status, 200, "connection {number}");
    }
    assert_eq!((service.userinfos(), service.permissions().len()), (1, 1));
}

#[test]
fn a_flood_of_one_bad_token_is_no_flood_of_questions() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let gateway = Arc::new(service.asked_by(&upstream).start());
    let barrier = Arc::new(Barrier::new(4));
    let began = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, barrier) = (Arc::clone(&gateway), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                for _ in 0..100 {
                    let refused = gateway.get_as("/me", "bad");
                    assert_eq!(refused.denial(), (401, "token_rejected".into()));
                    assert_eq!(
                        refused.field("www-authenticate"),
                        Some("Bearer realm=\"oms\", error=\"invalid_token\"")
                    );
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let most = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(service.userinfos() <= most, "{} questions, {most} at most", service.userinfos());
    assert_eq!(upstream.count(), 0);
}

#[test]
fn what_is_no_bearer_token_is_not_sent_anywhere() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let gateway = service.asked_by(&upstream).start();
    for token in ["a b", "a, Bearer b", "\"a\"", "a\tb", "é", "a;b", "=", &"x".repeat(16 * 1024 + 1)] {
        let sent = gateway.get_as("/me", token);
        assert_eq!(sent.denial(), (401, "malformed_token".into()), "{token:?}");
    }
    assert_eq!(gateway.get("/me").denial(), (401, "missing_token".into()));
    let twice = "GET /me HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer a\r\nAuthorization: Bearer a\r\n\r\n";
    assert_eq!(gateway.send(twice).denial(), (401, "malformed_token".into()));
    assert_eq!((service.questions().len(), upstream.count()), (0, 0));
}

#[test]
fn t05_a_token_that_lives_longer_than_revocations_are_remembered_is_refused_and_not_asked_about() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let gateway = service.asked_by(&upstream).setting("auth.iam_service.max_lifetime", "1h").start();
    let denial = |payload: Value| {
        let token = jwt(&payload);
        service.knows(&token, json!({"sub": "a"}));
        let answer = gateway.get_as("/me", &token);
        let told = format!("{}{}", gateway.stdout(), gateway.stderr());
        assert!(!told.contains(&token) && !told.contains(token.split('.').nth(1).unwrap()), "a token is in the log");
        answer
    };
    let day = 86_400;
    for payload in [
        json!({"iat": now(), "exp": now() + 30 * day}),
        json!({"iat": now() - 29 * day, "exp": now() + day}),
        json!({"iat": now() - 10, "exp": now() + 3591}),
        json!({"exp": now() + 3600 + 90}),
        json!({"exp": 1e15, "iat": now()}),
        json!({"exp": 1e15}),
    ] {
        let refused = denial(payload.clone());
        assert_eq!(refused.denial(), (401, "malformed_token".into()), "{payload}");
        assert!(refused.text().contains("auth.iam_service.max_lifetime"), "{}", refused.text());
        assert_eq!(refused.field("www-authenticate"), Some("Bearer realm=\"oms\", error=\"invalid_token\""));
    }
    let future = denial(json!({"iat": now() + 600, "exp": now() + 1200}));
    assert_eq!(future.denial(), (401, "not_yet_valid".into()), "no floor would be above it");
    assert_eq!(service.questions().len(), 0, "the service is not asked about what is refused here");
    // By one look at the clock: an hour to the second.
    let now = now();
    for payload in [
        json!({"iat": now - 10, "exp": now + 3590}),
        json!({"exp": now + 3500}),
        json!({"iat": now - 90 * day}),
        json!({"jti": "without an end"}),
    ] {
        assert_eq!(denial(payload.clone()).status, 200, "{payload}");
    }
}

#[test]
fn t05_a_token_of_which_not_everything_can_be_read_is_refused_and_not_asked_about() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let gateway = service.asked_by(&upstream).start();
    for token in unreadable(&format!(r#""iat": {}, "exp": {}"#, now(), now() + 400 * 86_400)) {
        service.knows(&token, json!({"sub": "a"}));
        let refused = gateway.get_as("/me", &token);
        assert_eq!(refused.denial(), (401, "malformed_token".into()), "{token}");
        assert!(refused.text().contains("read differently"), "{}", refused.text());
    }
    assert_eq!(service.questions().len(), 0);
    let week = jwt(&json!({"iat": now(), "exp": now() + 8 * 86_400}));
    service.knows(&week, json!({"sub": "a"}));
    assert_eq!(gateway.get_as("/me", &week).status, 200, "as templates of FastAPI issue them");
}

#[test]
fn t15_a_revoked_token_is_refused_however_it_is_written() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let gateway = service
        .asked_by(&upstream)
        .file("revoked.jsonl", "{\"jti\": \"j-1\", \"issuer\": \"iam_service\"}\n")
        .setting("revocation.file", "revoked.jsonl")
        .start();
    let claims = format!(r#""jti": "j-1", "iat": {}, "exp": {}"#, now() - 5, now() + 600);
    let plain = jwt_of(&format!("{{{claims}}}"));
    for token in unreadable(&claims).iter().chain([&plain, &format!("{plain}=")]) {
        service.knows(token, json!({"sub": "a"}));
        assert_eq!(gateway.get_as("/me", token).status, 401, "{token}");
    }
    assert_eq!(gateway.get_as("/me", &plain).denial(), (401, "revoked".into()));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn t05_a_token_that_does_not_say_when_it_was_issued_is_as_old_as_it_can_be() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let (early, late) = (jwt(&json!({"exp": now() + 600})), jwt(&json!({"exp": now() + 3500})));
    for token in [&early, &late] {
        service.knows(token, json!({"sub": "a"}));
    }
    let gateway = service
        .asked_by(&upstream)
        .setting("auth.iam_service.max_lifetime", "1h")
        .file("revoked.jsonl", format!("{{\"subject\": \"a\", \"issued_until\": {}}}\n", now() - 1800))
        .setting("revocation.file", "revoked.jsonl")
        .start();
    assert_eq!(gateway.get_as("/me", &early).denial(), (401, "revoked".into()), "50 minutes old at least");
    assert_eq!(gateway.get_as("/me", &late).status, 200, "it cannot be older than two minutes");
}

#[test]
fn t15_where_a_blacklist_names_tokens_by_their_text_a_jwt_has_one_spelling() {
    let (redis, service, upstream) = (Redis::start(), UserService::start(), Upstream::echo());
    let token = jwt(&json!({"exp": now() + 600, "jti": "j-1"}));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    // Elsewhere the service is asked, and says what it thinks of it.
    let asking = service.asked_by(&upstream).start();
    assert_eq!(asking.get_as("/me", &format!("{token}=")).denial(), (401, "token_rejected".into()));
    assert_eq!(service.questions().len(), 1);
    let gateway = service
        .asked_by(&upstream)
        .env("REDIS_URL", &redis.url())
        .setting("revocation.mode", "lookup")
        .setting("revocation.lookup_key", "blacklist:{token_sha256}")
        .setting("revocation.lookup_timeout", "10s")
        .start();
    for spelt in [
        format!("{token}="),
        format!("{token}=="),
        format!("{token}~"),
        format!("{signed}.~{signature}"),
        format!("{signed}.{signature}A"),
        format!("{signed}.c2lnbmF0dXJlcx"),
        format!("{signed}.a+/b"),
        format!("{token}.x"),
        format!("{token}."),
        format!("{token}.AA.AA"),
        format!("{token}.."),
        format!("{signed}..{signature}"),
        format!("{header}~.{payload}.{signature}"),
        format!("{header}.{payload}~.{signature}"),
        format!("~{token}"),
    ] {
        service.knows(&spelt, json!({"sub": "a"}));
        let refused = gateway.get_as("/me", &spelt);
        assert_eq!(refused.denial(), (401, "malformed_token".into()), "{spelt}");
        assert!(refused.text().contains("base64url"), "{}", refused.text());
    }
    assert_eq!(service.questions().len(), 1);
    // What is no JWT has a form of its own, of which nothing is known here.
    let encrypted = format!("{}.a2V5.aXY.dGV4dA.dGFn", URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#));
    for opaque in [
        "opaque==",
        "a.b.c",
        "v4.public.dGVzdA.c~",
        "MTk4.Cl2FMQ.ZnCjm1XVW7v~",
        "eyJpZCI6MX0.Cl2FMQ.ZnCjm1XVW7v~",
        "eyJpdiI6IjEifQ==",
        &encrypted,
        &token,
    ] {
        service.knows(opaque, json!({"sub": "a"}));
        assert_eq!(gateway.get_as("/me", opaque).status, 200, "{opaque}");
    }
}

#[test]
fn t15_what_was_told_is_not_decided_by_when_it_is_too_old_meanwhile() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.knows("t", json!({"sub": "a"})).grants("t", "item:view");
    service.is_slow_about_permissions(Duration::from_secs(4));
    service.keeps_back(Some("/auth/check-permission"));
    let gateway = service
        .asked_by(&upstream)
        .setting("auth.iam_service.cache", "2s")
        .setting("auth.iam_service.timeout", "30s")
        .start();
    let mut open = gateway.connect();
    open.set_read_timeout(Duration::from_secs(60));
    open.send("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer t\r\n\r\n");
    crate::harness::eventually("it asks what they may do", Duration::from_secs(20), || {
        (service.permissions().len() == 1).then_some(())
    });
    service.forgets("t");
    service.keeps_back(None);
    let refused = open.response();
    assert_eq!(refused.denial(), (401, "token_rejected".into()), "who they were was known four seconds ago");
    assert!(service.userinfos() >= 2, "it was asked again");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_service_that_takes_longer_than_its_answers_are_good_for_is_not_asked_for_ever() {
    for (delay, cache) in [(1500, "1s"), (700, "1s"), (200, "1ms")] {
        let (service, upstream) = (UserService::start(), Upstream::echo());
        service.knows("t", json!({"sub": "a"})).grants("t", "item:view");
        service.is_slow(Duration::from_millis(delay));
        let gateway = service
            .asked_by(&upstream)
            .setting("auth.iam_service.cache", cache)
            .setting("auth.iam_service.timeout", "30s")
            .start();
        assert_eq!(gateway.get_as("/items", "t").status, 200, "{delay} ms, {cache}");
        let (most, asked) = (if cache == "1ms" { 1 } else { 3 }, (service.userinfos(), service.permissions().len()));
        assert!(asked.0 <= most && asked.1 <= most, "{delay} ms, {cache}: {asked:?}");
        let counted = gateway.metric("doorward_token_validation_seconds_count", &["source=\"iam\""]);
        assert_eq!(counted, 1.0, "one request had to know who is asking");
    }
}

#[test]
fn public_routes_ask_only_about_a_token_and_go_on_without_an_answer() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.knows("t", json!({"sub": "a"}));
    let gateway = service.asked_by(&upstream).start();
    assert_eq!(gateway.get("/public").status, 200);
    assert_eq!(service.questions().len(), 0);
    assert_eq!(gateway.get_as("/public", "t").status, 200);
    assert_eq!(upstream.last().field("x-user-id"), Some("a"));
    for token in ["unknown", "no token at all"] {
        assert_eq!(gateway.get_as("/public", token).status, 200);
        assert_eq!(upstream.last().field("x-user-id"), None);
    }
    service.says(Some(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(gateway.get_as("/public", "another").status, 200);
    assert_eq!(upstream.last().field("x-user-id"), None);
    // What is answered before authentication asks nobody.
    let before = service.questions().len();
    assert_eq!(gateway.get_as("/closed", "fresh").denial(), (403, "route_denied".into()));
    assert_eq!(gateway.get_as("/nowhere", "fresh").denial(), (403, "no_route".into()));
    assert_eq!(service.questions().len(), before);
}

#[test]
fn t15_the_index_counts_as_well() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let (early, late) = (jwt(&json!({"iat": now() - 600, "jti": "j-1", "exp": now() + 600})), now() + 600);
    let named = jwt(&json!({"iat": now() - 5, "jti": "j-2", "sid": "s-2", "exp": late}));
    let fine = jwt(&json!({"iat": now() - 5, "jti": "j-3", "exp": late}));
    for (token, subject) in
        [(early.as_str(), "old"), (&named, "a"), (&fine, "a"), ("opaque", "old"), ("off", "mallory")]
    {
        service.knows(token, json!({"sub": subject}));
    }
    let revocations = format!(
        "{{\"jti\": \"j-2\", \"issuer\": \"iam_service\"}}\n{{\"subject\": \"old\", \"issued_until\": {}}}\n{{\"disabled\": \"mallory\"}}\n",
        now() - 300
    );
    let gateway = service
        .asked_by(&upstream)
        .file("revoked.jsonl", revocations)
        .setting("revocation.file", "revoked.jsonl")
        .start();
    assert_eq!(gateway.get_as("/me", &fine).status, 200);
    assert_eq!(gateway.get_as("/me", &named).denial(), (401, "revoked".into()));
    assert_eq!(gateway.get_as("/me", &early).denial(), (401, "revoked".into()));
    assert_eq!(gateway.get_as("/me", "opaque").denial(), (401, "revoked".into()), "it does not say when it was issued");
    assert_eq!(gateway.get_as("/me", "off").denial(), (401, "subject_disabled".into()));
}

#[test]
fn t07_the_admin_listener_is_for_a_service_that_may_confer_administrators_roles() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.knows("boss", json!({"sub": "boss", "role": "ROLE_SUPER_ADMIN"}));
    service.grants_in("boss", "doorward", "session:revoke").grants("boss", "item:view");
    service.knows("user", json!({"sub": "user"}));
    let revoke = |gateway: &crate::harness::Doorward, token: &str| {
        gateway.admin_request("POST", "/api/revocations", Some(token), "{\"jti\": \"j-1\"}").status
    };
    let gateway = service.asked_by(&upstream).start();
    assert_eq!(gateway.get_as("/items", "boss").status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), None, "no administrator's role without admin = true");
    assert_eq!(revoke(&gateway, "boss"), 403);
    assert!(!service.permissions().iter().any(|question| question["service"] == "doorward"), "it is not even asked");

    let gateway = service.asked_by(&upstream).setting("auth.iam_service.admin", true).start();
    assert_eq!(gateway.get_as("/items", "boss").status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), Some("ROLE_SUPER_ADMIN"));
    assert!((200..300).contains(&revoke(&gateway, "boss")), "{}", revoke(&gateway, "boss"));
    assert_eq!(revoke(&gateway, "user"), 403);
    assert_eq!(gateway.admin_request("POST", "/api/revocations", None, "{\"jti\": \"j-1\"}").status, 401);
}

#[test]
fn a_service_that_is_this_process_or_no_url_is_refused_at_start() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    for (url, why) in
        [("ftp://127.0.0.1", "http://"), ("http://u:p@h/", "without user"), ("http://h/?a", "without user")]
    {
        let failed = service.asked_by(&upstream).env("IAM_SERVICE_URL", url).fails();
        assert!(failed.stderr.contains("iam_service_url") && failed.stderr.contains(why), "{}", failed.stderr);
    }
    let [own] = crate::harness::free_ports();
    let failed = service
        .asked_by(&upstream)
        .env("IAM_SERVICE_URL", &format!("http://localhost:{own}/iam"))
        .setting("probes.listen", format!("127.0.0.1:{own}"))
        .fails();
    assert!(failed.stderr.contains("doorward's own probes listener"), "{}", failed.stderr);
}
