//! Somebody else writes to Redis: what they can do is stop the news, and nobody is let in for it (T11).

use std::time::{Duration, Instant};

use serde_json::json;

use super::fleet::{MAX_STALENESS, RECOVERY, fleet};
use crate::harness::eventually;
use crate::harness::redis::Redis;

pub(super) const CHANGES: &str = "{doorward}:changes";
pub(super) const HEARTBEATS: &str = "{doorward}:heartbeats";

/// The newest line of a stream.
pub(super) fn newest(redis: &Redis, stream: &str) -> String {
    let entries = redis.command(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
    entries.items()[0].items()[1].words()[1].clone()
}

/// A signed line with another body.
fn with_body(line: &str, from: &str, to: &str) -> String {
    assert!(line.contains(from), "{line}");
    line.replace(from, to)
}

#[test]
fn t11_what_is_written_to_redis_by_hand_revokes_nothing_and_unrevokes_nothing_and_is_mended() {
    let redis = Redis::start();
    let url = redis.url();
    let fleet = fleet(&[&url, &url]).start();
    let (good, bad) = (fleet.token("alice", "s-a", "t-good"), fleet.token("mallory", "s-m", "t-bad"));
    assert!(matches!(fleet.revoke(&json!({"jti": "t-bad"})).0, 200 | 202));
    fleet.all_refuse(&bad);
    let line = newest(&redis, CHANGES);
    let forged = with_body(&line, "t-bad", "t-good");
    let unsigned = forged.split_once('{').unwrap().1.to_owned();
    for line in [&forged, &format!("{{{unsigned}"), &"garbage".to_owned()] {
        redis.command(&["XADD", CHANGES, "*", "change", line]);
    }
    redis.command(&["XADD", CHANGES, "*", "other", "field"]);
    let beat = newest(&redis, HEARTBEATS);
    redis.command(&["XADD", HEARTBEATS, "*", "heartbeat", &with_body(&beat, "\"n\":", "\"n\":9")]);
    eventually("the follower counts what it does not believe", RECOVERY, || {
        let metrics = fleet.gateways[1].metrics();
        metrics.contains("doorward_replication_refused_total{reason=\"forged\"}").then_some(())
    });
    fleet.all_accept(&good);
    // Nothing can be appended behind a number like that, until the stream is written anew.
    redis.command(&["XADD", CHANGES, "18446744073709551614-0", "change", &forged]);
    redis.command(&["SET", "{doorward}:manifest", &with_body(&forged, "t-good", "x")]);
    assert!(matches!(fleet.revoke(&json!({"jti": "t-2"})).0, 200 | 202));
    fleet.all_refuse(&fleet.token("a", "s", "t-2"));
    // A key of another type, and a change that is taken out.
    redis.command(&["DEL", CHANGES]);
    redis.command(&["SET", CHANGES, "no stream"]);
    assert!(matches!(fleet.revoke(&json!({"jti": "t-3"})).0, 200 | 202));
    fleet.all_refuse(&fleet.token("a", "s", "t-3"));
    let entries = eventually("the stream is there again", RECOVERY, || {
        let entries = redis.command(&["XRANGE", CHANGES, "-", "+"]);
        (!entries.items().is_empty()).then_some(entries)
    });
    redis.command(&["XDEL", CHANGES, &entries.items()[0].items()[0].text()]);
    assert!(matches!(fleet.revoke(&json!({"jti": "t-4"})).0, 200 | 202));
    fleet.all_refuse(&fleet.token("a", "s", "t-4"));
    fleet.all_refuse(&bad);
    fleet.all_accept(&good);
}

#[test]
fn t01_heartbeats_that_are_played_again_keep_nobody_fresh() {
    let redis = Redis::start();
    let url = redis.url();
    let fleet = fleet(&[&url, &url]).start();
    let good = fleet.issuer.viewer();
    fleet.all_accept(&good);
    fleet.gateways[0].signal("-STOP");
    let beat = newest(&redis, HEARTBEATS);
    eventually("the follower turns stale", RECOVERY, || {
        redis.command(&["XADD", HEARTBEATS, "*", "heartbeat", &beat]);
        std::thread::sleep(Duration::from_millis(50));
        (fleet.gateways[1].get_as("/items", &good).status == 503).then_some(())
    });
    assert!(!fleet.gateways[1].is_ready());
    fleet.gateways[0].signal("-CONT");
    fleet.all_accept(&good);
}

#[test]
fn t11_an_id_that_is_ahead_of_all_others_makes_nobody_deaf() {
    let redis = Redis::start();
    let url = redis.url();
    let fleet = fleet(&[&url, &url]).start();
    let good = fleet.issuer.viewer();
    fleet.all_accept(&good);
    redis.command(&["XADD", HEARTBEATS, "99999999999999-0", "heartbeat", "x"]);
    eventually("the follower has read it", RECOVERY, || {
        let metrics = fleet.gateways[1].metrics();
        metrics.contains("doorward_replication_refused_total{reason=\"forged\"}").then_some(())
    });
    // The next heartbeat begins the stream anew, with the time of Redis.
    redis.command(&["DEL", HEARTBEATS]);
    std::thread::sleep(2 * MAX_STALENESS);
    fleet.all_accept(&good);
    for _ in 0..40 {
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        let status = fleet.gateways[1].get_as("/items", &good).status;
        // Where the machine stood still, so did who sends the heartbeats.
        if status != 200 && begun.elapsed() >= Duration::from_secs(1) {
            fleet.all_accept(&good);
        } else {
            assert_eq!(status, 200, "it hears every heartbeat again");
        }
    }
}

#[test]
fn t21_allow_is_not_for_administrators_and_the_truth_takes_revocations_without_redis() {
    let mut redis = Redis::start();
    let url = redis.url();
    let fleet = fleet(&[&url, &url]).on_stale("allow").start();
    let good = fleet.issuer.viewer();
    fleet.all_accept(&good);
    redis.kill9();
    let ask = |gateway: usize| {
        fleet.gateways[gateway].admin_request("POST", "/api/revocations", Some(&fleet.revoker()), r#"{"jti":"t-x"}"#)
    };
    eventually("the follower's administrators are denied", RECOVERY, || {
        let answer = ask(1);
        (answer.status == 503 && answer.text().contains("auth_unavailable")).then_some(())
    });
    assert_eq!(fleet.gateways[1].get_as("/items", &good).status, 200);
    assert_eq!(ask(0).status, 202);
}
