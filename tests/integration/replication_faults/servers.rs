//! Redis itself: killed, paused, emptied, set back, failed over.

use std::time::Duration;

use serde_json::json;

use super::fleet::{Fleet, MAX_STALENESS, RECOVERY, fleet};
use super::load::{BOUND, Load};
use crate::harness::eventually;
use crate::harness::redis::{Data, Redis, Sentinels, redis};

/// Longer than anything that does not wait for Redis takes on a busy machine, and shorter than every outage here.
const PROMPT: Duration = Duration::from_millis(1500);
/// Longer than a gateway may go on unheard of the control plane.
const OUTAGE: Duration = Duration::from_secs(MAX_STALENESS.as_secs() + 2);

fn three(redis: &Redis) -> Fleet {
    let url = redis.url();
    fleet(&[&url, &url, &url]).start()
}

#[test]
fn t01_redis_killed_for_longer_than_max_staleness() {
    let mut redis = Redis::start();
    let fleet = three(&redis);
    let load = Load::start(&fleet);
    load.wait_for(5);
    redis.kill9();
    std::thread::sleep(OUTAGE);
    redis.restart(Data::Kept);
    fleet.all_accept(&fleet.issuer.viewer());
    load.wait_for(5);
    let report = load.finish(&fleet);
    report.holds(BOUND, &[]);
    report.none_waited(PROMPT, &[]);
    assert!(report.accepted() > 0, "with Redis gone a revocation is accepted, and published later");
    for follower in [1, 2] {
        assert!(report.unavailable(follower) > 0, "a stale gateway denies");
    }
}

#[test]
fn t02_redis_killed_and_back_without_its_data() {
    let mut redis = Redis::start();
    let fleet = three(&redis);
    let load = Load::start(&fleet);
    for _ in 0..2 {
        load.wait_for(5);
        redis.restart(Data::Lost);
    }
    load.wait_for(5);
    load.finish(&fleet).holds(BOUND, &[]);
}

#[test]
fn t01_redis_paused_for_longer_than_max_staleness() {
    let redis = Redis::start();
    let fleet = three(&redis);
    let load = Load::start(&fleet);
    load.wait_for(5);
    redis.pause();
    std::thread::sleep(OUTAGE);
    redis.resume();
    fleet.all_accept(&fleet.issuer.viewer());
    load.wait_for(5);
    let report = load.finish(&fleet);
    report.holds(BOUND, &[]);
    report.none_waited(PROMPT, &[]);
    assert!(report.accepted() > 0);
    for follower in [1, 2] {
        assert!(report.unavailable(follower) > 0, "a stale gateway denies");
    }
}

#[test]
fn t01_with_allow_a_stale_gateway_goes_on_and_says_so() {
    let redis = Redis::start();
    let url = redis.url();
    let fleet = fleet(&[&url, &url, &url]).on_stale("allow").start();
    let load = Load::start(&fleet);
    load.wait_for(5);
    redis.pause();
    std::thread::sleep(OUTAGE);
    let stale = fleet.gateways[1].metric("doorward_revocation_staleness_seconds", &[]);
    assert!(stale > MAX_STALENESS.as_secs_f64(), "{stale}");
    redis.resume();
    load.wait_for(5);
    let report = load.finish(&fleet);
    // There is no bound but the length of the outage.
    report.holds(OUTAGE + RECOVERY, &[]);
    report.none_waited(PROMPT, &[]);
    for gateway in 0..3 {
        assert_eq!(report.unavailable(gateway), 0);
    }
}

#[test]
fn t02_redis_emptied_again_and_again() {
    let redis = Redis::start();
    let fleet = three(&redis);
    let load = Load::start(&fleet);
    for _ in 0..4 {
        load.wait_for(3);
        redis.flush();
    }
    load.wait_for(5);
    let report = load.finish(&fleet);
    report.holds(BOUND, &[]);
    report.none_waited(PROMPT, &[]);
}

#[test]
fn t02_redis_set_back_to_an_old_snapshot() {
    let mut redis = Redis::start();
    let fleet = three(&redis);
    let load = Load::start(&fleet);
    load.wait_for(5);
    let old = redis.save();
    load.wait_for(15);
    redis.restore(&old);
    load.wait_for(5);
    // An older one yet, from before a state that was written since.
    redis.flush();
    load.wait_for(5);
    redis.restore(&old);
    load.wait_for(5);
    load.finish(&fleet).holds(BOUND, &[]);
}

#[test]
fn t10_what_only_some_keys_are_gone_of_is_written_again() {
    let redis = Redis::start();
    let fleet = three(&redis);
    let load = Load::start(&fleet);
    load.wait_for(5);
    for key in redis.command(&["KEYS", "*"]).words() {
        redis.command(&["DEL", &key]);
        load.wait_for(2);
    }
    load.finish(&fleet).holds(BOUND, &[]);
}

#[test]
fn t02_sentinels_fail_over_from_a_killed_master() {
    let mut set = Sentinels::start();
    let url = sentinel_url(&set);
    let fleet = fleet(&[&url, &url, &url]).start();
    let load = Load::start(&fleet);
    load.wait_for(5);
    let old = set.master();
    set.servers[old].kill9();
    set.failed_over(old, RECOVERY);
    fleet.all_accept(&fleet.issuer.viewer());
    load.wait_for(5);
    set.servers[old].restart(Data::Kept);
    load.wait_for(5);
    load.finish(&fleet).holds(BOUND, &[]);
}

#[test]
fn t02_sentinels_fail_over_from_a_paused_master_that_comes_back() {
    let set = Sentinels::start();
    let url = sentinel_url(&set);
    let fleet = fleet(&[&url, &url, &url]).start();
    let load = Load::start(&fleet);
    load.wait_for(5);
    let old = set.master();
    set.servers[old].pause();
    set.failed_over(old, RECOVERY);
    fleet.all_accept(&fleet.issuer.viewer());
    load.wait_for(5);
    // For a moment there are two masters, and connections to the old one are still open.
    set.servers[old].resume();
    load.wait_for(5);
    eventually("the old master follows the new one", RECOVERY, || {
        (set.servers[old].info("role")? == "slave").then_some(())
    });
    load.wait_for(5);
    load.finish(&fleet).holds(BOUND, &[]);
}

#[test]
fn sentinels_with_a_password_are_told_it() {
    const PASSWORD: &str = "1234-only-for-sentinels";
    let set = Sentinels::start_with(&redis(), Some(PASSWORD));
    let url = sentinel_url(&set);
    let fleet = fleet(&[&url, &url]).setting("redis.sentinel_password", PASSWORD).start();
    fleet.all_accept(&fleet.issuer.viewer());
    let token = fleet.token("alice", "s-1", "j-1");
    fleet.revoke(&json!({ "jti": "j-1" }));
    fleet.all_refuse(&token);
}

fn sentinel_url(set: &Sentinels) -> String {
    let addresses: Vec<String> = set.addresses().iter().map(ToString::to_string).collect();
    format!("redis+sentinel://{}/{}", addresses.join(","), Sentinels::NAME)
}
