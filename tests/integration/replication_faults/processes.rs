//! Gateways and the control plane: killed and started again, with Redis and without.

use std::time::Duration;

use serde_json::json;

use super::fleet::{Fleet, RECOVERY, fleet};
use super::load::{BOUND, Load};
use crate::harness::eventually;
use crate::harness::redis::{Data, Redis};

fn three(redis: &Redis) -> Fleet {
    let url = redis.url();
    fleet(&[&url, &url, &url]).start()
}

#[test]
fn t10_a_gateway_killed_and_back_refuses_all_it_should_before_it_is_ready() {
    let redis = Redis::start();
    let mut fleet = three(&redis);
    let load = Load::start(&fleet);
    for _ in 0..3 {
        load.wait_for(4);
        fleet.gateways[1].kill9();
        load.wait_for(4);
        fleet.gateways[1].start_again();
        eventually("ready again", RECOVERY, || fleet.gateways[1].is_ready().then_some(()));
    }
    let report = load.finish(&fleet);
    report.holds(BOUND, &[1]);
    report.none_denied(2, &[1], "the others do not notice");
}

#[test]
fn t16_a_gateway_that_starts_while_redis_is_gone_waits_for_it() {
    let mut redis = Redis::start();
    let mut fleet = three(&redis);
    let (good, bad) = (fleet.issuer.viewer(), fleet.token("mallory", "s-m", "t-m"));
    // 202 where Redis was late; that it arrives is seen next.
    assert!(matches!(fleet.revoke(&json!({"subject": "mallory"})).0, 200 | 202));
    fleet.all_refuse(&bad);
    fleet.gateways[1].kill9();
    redis.kill9();
    fleet.gateways[1].start_again();
    for _ in 0..20 {
        assert!(!fleet.gateways[1].is_ready());
        assert_eq!(fleet.gateways[1].get_as("/items", &good).denial(), (503, "auth_unavailable".into()));
        assert_ne!(fleet.gateways[1].get_as("/items", &bad).status, 200);
        assert_eq!(fleet.gateways[1].get("/public").status, 200, "what is public asks for nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
    redis.restart(Data::Lost);
    fleet.all_accept(&good);
    fleet.all_refuse(&bad);
    eventually("it is ready", RECOVERY, || fleet.gateways[1].is_ready().then_some(()));
}

#[test]
fn t16_with_allow_a_gateway_starts_by_its_last_good_state() {
    let mut redis = Redis::start();
    let url = redis.url();
    let mut fleet = fleet(&[&url, &url]).on_stale("allow").start();
    let (good, bad) = (fleet.issuer.viewer(), fleet.token("mallory", "s-m", "t-m"));
    // 202 where Redis was late; that it arrives is seen next.
    assert!(matches!(fleet.revoke(&json!({"subject": "mallory"})).0, 200 | 202));
    fleet.all_refuse(&bad);
    fleet.all_accept(&good);
    // Its disk is written to soon behind its memory.
    let state = fleet.gateways[1].path("data/replica/state");
    eventually("it is on disk", RECOVERY, || std::fs::read_to_string(&state).ok()?.contains("mallory").then_some(()));
    fleet.gateways[1].kill9();
    redis.kill9();
    fleet.gateways[1].start_again();
    fleet.all_accept(&good);
    fleet.all_refuse(&bad);
    redis.restart(Data::Lost);
    let worse = fleet.token("trudy", "s-t", "t-t");
    assert!(matches!(fleet.revoke(&json!({"session": "s-t"})).0, 200 | 202));
    fleet.all_refuse(&worse);
    fleet.all_refuse(&bad);
}

#[test]
fn t01_the_control_plane_dies_between_record_and_publication() {
    let redis = Redis::start();
    let mut fleet = three(&redis);
    let (good, bad) = (fleet.issuer.viewer(), fleet.token("mallory", "s-m", "t-m"));
    fleet.all_accept(&bad);
    redis.pause();
    let (status, answer) = fleet.revoke(&json!({"jti": "t-m"}));
    assert_eq!((status, &answer["propagated"]), (202, &json!(false)));
    fleet.gateways[0].kill9();
    let acknowledged = std::time::Instant::now();
    redis.resume();
    // Redis answers and knows nothing of it; only the heartbeats that are missing tell.
    for follower in [1, 2] {
        eventually("a gateway that hears of nobody denies", RECOVERY, || {
            (fleet.gateways[follower].get_as("/items", &good).status == 503).then_some(())
        });
        assert!(acknowledged.elapsed() < RECOVERY);
        assert_ne!(fleet.gateways[follower].get_as("/items", &bad).status, 200);
    }
    fleet.gateways[0].start_again();
    fleet.all_accept(&good);
    fleet.all_refuse(&bad);
}

#[test]
fn t01_the_control_plane_killed_again_and_again_under_load() {
    let redis = Redis::start();
    let mut fleet = three(&redis);
    let load = Load::start(&fleet);
    for _ in 0..3 {
        load.wait_for(4);
        fleet.gateways[0].kill9();
        std::thread::sleep(Duration::from_millis(300));
        fleet.gateways[0].start_again();
    }
    load.wait_for(4);
    load.finish(&fleet).holds(BOUND, &[0]);
}

#[test]
fn t05_a_gateway_names_what_the_control_plane_keeps_too_short_until_it_keeps_it_longer() {
    let redis = Redis::start();
    let url = redis.url();
    for (keep, missing) in [("1s", "60"), ("3780s", "0")] {
        let setup =
            fleet(&[&url, &url]).of_followers("auth.leeway", "60s").setting("redis.prefix", format!("for-{keep}"));
        let fleet = setup.setting("revocation.keep", keep).start();
        fleet.all_accept(&fleet.issuer.viewer());
        eventually("what is missing", RECOVERY, || {
            let line = format!("\ndoorward_revocation_keep_missing_seconds {missing}\n");
            fleet.gateways[1].metrics().contains(&line).then_some(())
        });
        assert!(fleet.gateways[0].metrics().contains("\ndoorward_revocation_keep_missing_seconds 0\n"));
    }
}
