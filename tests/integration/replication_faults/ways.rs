//! The ways to a Redis: passwords, users with the rights that they need and no more, TLS, a unix socket, Sentinel, a cluster.

use serde_json::json;

use super::fleet::{RECOVERY, fleet};
use crate::harness::eventually;
use crate::harness::redis::{Cluster, Redis, redis};
use crate::harness::tls::Certificate;

/// The rights of a gateway that follows, as docs/reference.md states them.
const FOLLOWER: &str = "~{doorward}:* resetchannels -@all +get +xread +xrange +xrevrange +info";
/// The rights of who publishes, as docs/reference.md states them.
const PUBLISHER: &str = "~{doorward}:* resetchannels -@all +get +set +del +strlen +expire +persist +hmget +hset +xadd +xtrim +xlen \
                         +xread +xrange +xrevrange +evalsha +script|load +config|get +info";

/// A revocation travels by these URLs: from the first to each.
fn travels(urls: &[&str], settings: &[(&'static str, toml::Value)]) {
    let setup = fleet(urls);
    let fleet = settings.iter().fold(setup, |setup, (key, value)| setup.setting(key, value.clone())).start();
    let (good, bad) = (fleet.issuer.viewer(), fleet.token("mallory", "s-m", "t-m"));
    fleet.all_accept(&bad);
    // A second is given to Redis, and a machine may stand still for longer; repeating is harmless.
    eventually("it is propagated", RECOVERY, || {
        let (status, answer) = fleet.revoke(&json!({"subject": "mallory"}));
        assert!(matches!(status, 200 | 202 | 503), "{status} {answer}");
        ((status, &answer["propagated"]) == (200, &json!(true))).then_some(())
    });
    fleet.all_refuse(&bad);
    fleet.all_accept(&good);
}

#[test]
fn t11_a_gateway_needs_no_more_than_to_read() {
    let server = redis().user("gateway", "secret", FOLLOWER).user("control", "other", PUBLISHER).users_only().start();
    travels(&[&server.url_as("control", "other"), &server.url_as("gateway", "secret")], &[]);
    // Whether keys may be thrown away is looked at where that is allowed.
    for entry in server.command(&["ACL", "LOG"]).items() {
        let said = entry.words();
        assert!(said.iter().any(|word| word == "config|get"), "something was tried that is not allowed: {said:?}");
    }
}

#[test]
fn a_password_alone() {
    let server = redis().password("secret").start();
    let url = format!("redis://:secret@{}", server.address);
    travels(&[&url, &url], &[]);
}

#[test]
fn tls_by_an_authority_of_ones_own() {
    let certificate = Certificate::for_names(&["redis.test", "localhost"]);
    let server = redis().tls(&certificate).start();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &certificate.authority).unwrap();
    let url = server.tls_url("localhost");
    travels(&[&url, &url], &[("redis.tls.ca", ca.to_str().unwrap().into())]);
}

#[test]
fn a_unix_socket() {
    let server = redis().unix_socket().start();
    let url = format!("unix:{}", server.unix_path().display());
    travels(&[&url, &url], &[]);
}

#[test]
fn a_cluster() {
    let cluster = Cluster::start();
    let addresses: Vec<String> = cluster.servers.iter().map(|server| server.address.to_string()).collect();
    let url = format!("redis+cluster://{}", addresses.join(","));
    travels(&[&url, &url, &url], &[]);
}

#[test]
fn t10_a_redis_that_may_throw_keys_away_is_refused() {
    let server = redis().maxmemory_policy("allkeys-lru").start();
    let failed = crate::harness::doorward().setting("redis.url", server.url()).fails();
    assert!(failed.stderr.contains("noeviction"), "{}", failed.stderr);
}

#[test]
fn a_start_without_redis_says_so_once_and_ends() {
    let mut server = Redis::start();
    server.kill9();
    let failed = crate::harness::doorward().setting("redis.url", server.url()).fails();
    assert!(failed.stderr.contains(&server.address.to_string()), "{}", failed.stderr);
    eventually("it did not touch it", RECOVERY, || (!server.is_running()).then_some(()));
}
