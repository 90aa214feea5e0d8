//! `[revocation] mode = "lookup"`: a blacklist in a real Redis, which another program writes.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use super::service::UserService;
use crate::harness::redis::{Cluster, Data, Redis, redis};
use crate::harness::{Builder, Connection, Issuer, Upstream, doorward, eventually};

/// Long enough for a machine under load; the bound itself is a second.
const SOON: Duration = Duration::from_secs(20);

fn looking(redis: &Redis, issuer: &Issuer, upstream: &Upstream) -> Builder {
    looking_at(&redis.url(), issuer, upstream)
}

fn looking_at(url: &str, issuer: &Issuer, upstream: &Upstream) -> Builder {
    looking_with(url, issuer, &[("admin", true.into())], upstream)
}

fn looking_with(url: &str, issuer: &Issuer, more: &[(&str, toml::Value)], upstream: &Upstream) -> Builder {
    doorward()
        .issuer_with(issuer, more)
        .upstream(upstream)
        .env("REDIS_URL", url)
        .setting("revocation.mode", "lookup")
        // A debug build on a machine under load; who waits for a Redis that is gone waits shorter.
        .setting("revocation.lookup_timeout", "10s")
}

fn gets(redis: &Redis) -> u64 {
    let stats = redis.info("cmdstat_get").unwrap_or_default();
    stats.split(',').find_map(|part| part.strip_prefix("calls=")).map_or(0, |calls| calls.parse().unwrap())
}

#[test]
fn t15_a_token_whose_key_is_there_is_revoked_within_the_age() {
    let (redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking(&redis, &issuer, &upstream).start();
    let token = |id: &str| issuer.token().claim("jti", id).sign();
    let (good, bad) = (token("good"), token("bad"));
    assert_eq!(gateway.get_as("/items", &good).status, 200);
    // Whatever the other program writes there.
    redis.command(&["SET", "blacklist:bad", ""]);
    assert_eq!(gateway.get_as("/items", &bad).denial(), (401, "revoked".into()));
    for (command, id) in [(["LPUSH", "blacklist:list", "1"], "list"), (["SADD", "blacklist:set", "1"], "set")] {
        redis.command(&command);
        assert_eq!(gateway.get_as("/items", &token(id)).denial(), (401, "revoked".into()), "{id}");
    }
    redis.command(&["SET", "blacklist:good", "1"]);
    eventually("it is revoked", SOON, || (gateway.get_as("/items", &good).status == 401).then_some(()));
    // On a public route nobody is named by it.
    assert_eq!(gateway.get_as("/public", &good).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), None);
    redis.command(&["DEL", "blacklist:good"]);
    eventually("it is good again", SOON, || (gateway.get_as("/items", &good).status == 200).then_some(()));
    // The admin listener asks as well.
    let root = issuer.token().claim("jti", "root").claim("roles", ["ROLE_SUPER_ADMIN"]).sign();
    redis.command(&["SET", "blacklist:root", "1"]);
    let call = gateway.admin_request("POST", "/api/revocations", Some(&root), "{\"jti\": \"x\"}");
    assert_eq!(call.denial(), (401, "revoked".into()));
    assert!(!gateway.stdout().contains(&good) && !gateway.stderr().contains(&good));
    assert!(
        gateway.metric("doorward_delegate_question_seconds_count", &["question=\"lookup\"", "result=\"rejected\""])
            >= 3.0
    );
}

#[test]
fn t15_a_token_that_lacks_a_variable_is_refused_and_nothing_is_asked() {
    let (redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking(&redis, &issuer, &upstream).start();
    for token in [issuer.token().without("jti").sign(), issuer.token().claim("jti", "").sign()] {
        let refused = gateway.get_as("/items", &token);
        assert_eq!(refused.denial(), (401, "malformed_token".into()));
        assert!(refused.text().contains("`jti`"), "{}", refused.text());
    }
    assert_eq!((gets(&redis), upstream.count()), (0, 0));
    let gateway = looking(&redis, &issuer, &upstream).setting("revocation.lookup_key", "ended:{sid}").start();
    assert_eq!(gateway.get_as("/items", &issuer.viewer()).denial(), (401, "malformed_token".into()));
    let of_session = issuer.token().claim("sid", "s-1").sign();
    assert_eq!(gateway.get_as("/items", &of_session).status, 200);
    redis.command(&["SET", "ended:s-1", "1"]);
    eventually("it is ended", SOON, || (gateway.get_as("/items", &of_session).status == 401).then_some(()));
}

#[test]
fn every_variable_stands_in_the_key_literally() {
    let (redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let token = issuer.token().claim("jti", "a:b*{c}\n").claim("sub", "kc-alice").sign();
    let sha256: String = digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (template, key) in [
        ("blacklist:{jti}", "blacklist:a:b*{c}\n".to_owned()),
        ("bl:{token}", format!("bl:{token}")),
        ("bl:{token_sha256}:x", format!("bl:{sha256}:x")),
        ("{sub}/{jti}", "kc-alice/a:b*{c}\n".to_owned()),
    ] {
        // With a prefix here, of which the other program knows nothing.
        let prefixed = [("subject_prefix", "kc:".into()), ("same_subjects", false.into())];
        let gateway = looking_with(&redis.url(), &issuer, &prefixed, &upstream);
        let gateway = gateway.setting("revocation.lookup_key", template).start();
        assert_eq!(gateway.get_as("/items", &token).status, 200, "{template}");
        redis.command(&["SET", &key, "1"]);
        eventually(template, SOON, || (gateway.get_as("/items", &token).status == 401).then_some(()));
        redis.command(&["DEL", &key]);
        let (shown, said) = (gateway.stdout(), gateway.stderr());
        assert!(!shown.contains(&token) && !said.contains(&token), "a token in a log");
    }
}

#[test]
fn a_template_that_is_none_is_refused_at_start() {
    let (redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    for (template, why) in [
        ("blacklist:{iss}", "unknown variable {iss}"),
        ("blacklist:{jti", "without its `}`"),
        ("blacklist:jti}", "without its `{`"),
        ("blacklist", "has no variable"),
        ("", "has no variable"),
    ] {
        let failed = looking(&redis, &issuer, &upstream).setting("revocation.lookup_key", template).fails();
        assert!(failed.stderr.contains("revocation.lookup_key") && failed.stderr.contains(why), "{}", failed.stderr);
    }
    let failed = doorward().issuer(&issuer).setting("revocation.mode", "lookup").fails();
    assert!(failed.stderr.contains("there is no Redis"), "{}", failed.stderr);
}

#[test]
fn a_stampede_looks_once_and_an_answer_is_used_for_its_age() {
    let (redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking(&redis, &issuer, &upstream).setting("revocation.lookup_age", "1m").start();
    let token = issuer.viewer();
    let mut open: Vec<Connection> = (0..300).map(|_| gateway.connect()).collect();
    for connection in &mut open {
        connection.set_read_timeout(Duration::from_secs(60));
        connection.send(format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
    }
    assert!(open.iter_mut().all(|connection| connection.response().status == 200));
    assert_eq!(gets(&redis), 1);
    assert_eq!(gateway.get_as("/items", &issuer.viewer()).status, 200);
    assert_eq!(gets(&redis), 2, "another token is another question");
}

#[test]
fn t15_a_blacklist_that_does_not_answer_is_no_access() {
    let (mut redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking(&redis, &issuer, &upstream)
        .setting("revocation.lookup_timeout", "300ms")
        .setting("gateway.mode", "report")
        .start();
    let token = issuer.viewer();
    eventually("it answers", SOON, || (gateway.get_as("/items", &token).status == 200).then_some(()));
    redis.pause();
    eventually("the answer is too old", SOON, || {
        let answer = gateway.get_as("/items", &token);
        (answer.status != 200).then(|| assert_eq!(answer.denial(), (503, "auth_unavailable".into())))
    });
    let before = upstream.count();
    let began = Instant::now();
    assert_eq!(gateway.get_as("/items", &token).status, 503);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    redis.resume();
    eventually("it answers again", SOON, || (gateway.get_as("/items", &token).status == 200).then_some(()));
    redis.kill9();
    eventually("the answer is too old", SOON, || (gateway.get_as("/items", &token).status == 503).then_some(()));
    redis.restart(Data::Lost);
    eventually("it answers again", SOON, || (gateway.get_as("/items", &token).status == 200).then_some(()));
    assert!(upstream.count() > before);
    assert!(gateway.stdout().contains("the blacklist does not answer"), "it is said");
}

#[test]
fn t21_on_stale_allow_goes_on_and_says_so_but_never_on_the_admin_listener() {
    let (mut redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking(&redis, &issuer, &upstream)
        .setting("revocation.lookup_timeout", "300ms")
        .setting("revocation.on_stale", "allow")
        .start();
    let root = issuer.token().claim("jti", "root").claim("roles", ["ROLE_SUPER_ADMIN"]).sign();
    redis.kill9();
    assert_eq!(gateway.get_as("/items", &issuer.viewer()).status, 200);
    assert!(gateway.metric("doorward_lookup_unanswered_total", &[]) >= 1.0);
    let before = gateway.metric("doorward_lookup_unanswered_total", &[]);
    let call = gateway.admin_request("POST", "/api/revocations", Some(&root), "{\"jti\": \"x\"}");
    assert_eq!(call.denial(), (503, "auth_unavailable".into()));
    assert_eq!(gateway.metric("doorward_lookup_unanswered_total", &[]), before);
}

#[test]
fn a_user_that_may_only_get_is_enough() {
    let setup = redis().user("gate", "secret-word", "~blacklist:* -@all +get").users_only();
    let (redis, issuer, upstream) = (setup.start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking_at(&redis.url_as("gate", "secret-word"), &issuer, &upstream).start();
    assert_eq!(gateway.get_as("/items", &issuer.token().claim("jti", "a").sign()).status, 200);
    redis.command(&["SET", "blacklist:b", "1"]);
    assert_eq!(gateway.get_as("/items", &issuer.token().claim("jti", "b").sign()).status, 401);
    assert!(!gateway.stdout().contains("secret-word"));
}

#[test]
fn t15_the_index_counts_as_well() {
    let (redis, issuer, upstream) = (Redis::start(), Issuer::hs256(), Upstream::echo());
    let gateway = looking(&redis, &issuer, &upstream)
        .file("revoked.jsonl", "{\"jti\": \"known-here\"}\n{\"disabled\": \"u-1\"}\n")
        .setting("revocation.file", "revoked.jsonl")
        .start();
    let token = |id: &str, subject: &str| issuer.token().claim("jti", id).claim("sub", subject).sign();
    assert_eq!(gateway.get_as("/items", &token("known-here", "u-2")).denial(), (401, "revoked".into()));
    assert_eq!(gateway.get_as("/items", &token("x", "u-1")).denial(), (401, "subject_disabled".into()));
    assert_eq!(gets(&redis), 0, "what is known here is not asked");
    assert_eq!(gateway.get_as("/items", &token("x", "u-2")).status, 200);
}

#[test]
fn t15_what_comes_to_be_blacklisted_while_permissions_are_asked_for_is_refused() {
    let (redis, service, upstream) = (Redis::start(), UserService::start(), Upstream::echo());
    let token = Issuer::hs256().token().claim("jti", "t-1").sign();
    service.knows(&token, serde_json::json!({"sub": "a"})).grants(&token, "item:view");
    service.is_slow_about_permissions(Duration::from_secs(3));
    service.keeps_back(Some("/auth/check-permission"));
    let gateway = service
        .asked_by(&upstream)
        .env("REDIS_URL", &redis.url())
        .setting("revocation.mode", "lookup")
        .setting("revocation.lookup_timeout", "10s")
        .setting("auth.iam_service.cache", "1m")
        .setting("auth.iam_service.timeout", "30s")
        .start();
    let mut open = gateway.connect();
    open.set_read_timeout(Duration::from_secs(60));
    open.send(format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
    eventually("it asks what they may do", SOON, || (service.permissions().len() == 1).then_some(()));
    redis.command(&["SET", "blacklist:t-1", "1"]);
    service.keeps_back(None);
    assert_eq!(
        open.response().denial(),
        (401, "revoked".into()),
        "what was known is three seconds old, and good for one"
    );
    assert_eq!(
        (service.userinfos(), service.permissions().len(), upstream.count()),
        (1, 1, 0),
        "the rest is good still"
    );
}

#[test]
fn t15_nobody_is_named_on_a_public_route_by_what_became_too_old_while_the_blacklist_was_asked() {
    let (redis, service, upstream) = (Redis::start(), UserService::start(), Upstream::echo());
    let token = Issuer::hs256().token().claim("jti", "t-1").sign();
    service.knows(&token, serde_json::json!({"sub": "a"}));
    let gateway = service
        .asked_by(&upstream)
        .env("REDIS_URL", &redis.url())
        .setting("revocation.mode", "lookup")
        .setting("revocation.lookup_timeout", "30s")
        .setting("auth.iam_service.cache", "2s")
        .setting("auth.iam_service.timeout", "30s")
        .start();
    redis.pause();
    let mut open = gateway.connect();
    open.set_read_timeout(Duration::from_secs(60));
    open.send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
    eventually("it hears who they are", SOON, || (service.answers() == 1).then_some(()));
    service.forgets(&token);
    std::thread::sleep(Duration::from_secs(3));
    redis.resume();
    assert_eq!(open.response().status, 200);
    assert_eq!((upstream.last().field("x-user-id"), service.userinfos()), (None, 2));
}

#[test]
fn keys_are_found_wherever_in_a_cluster_they_lie() {
    let (issuer, upstream) = (Issuer::hs256(), Upstream::echo());
    let cluster = Cluster::start();
    let nodes: Vec<_> = cluster.servers.iter().map(|node| node.address.to_string()).collect();
    let url = format!("redis+cluster://{}", nodes.join(","));
    let gateway = looking_at(&url, &issuer, &upstream).start();
    for number in 0..12 {
        let id = format!("t-{number}");
        let token = issuer.token().claim("jti", &id).sign();
        if number % 2 == 0 {
            let key = format!("blacklist:{id}");
            cluster.servers[cluster.holder(&key)].command(&["SET", &key, "1"]);
        }
        let status = gateway.get_as("/items", &token).status;
        assert_eq!(status, if number % 2 == 0 { 401 } else { 200 }, "{id}");
    }
}
