//! The network between one gateway and Redis: stalled, cut, slow.

use std::time::Duration;

use super::fleet::{MAX_STALENESS, fleet};
use super::load::{BOUND, Load};
use crate::harness::link::Link;
use crate::harness::redis::Redis;

const OUTAGE: Duration = Duration::from_secs(MAX_STALENESS.as_secs() + 2);
const PROMPT: Duration = Duration::from_millis(1500);

/// What becomes of a fleet whose last gateway is behind a link that this is done to.
fn behind(done: impl FnOnce(&Link, &Load), denies: bool) {
    let redis = Redis::start();
    let link = Link::to(redis.address);
    let (direct, linked) = (redis.url(), format!("redis://{}", link.address));
    let fleet = fleet(&[&direct, &direct, &linked]).start();
    let load = Load::start(&fleet);
    load.wait_for(5);
    done(&link, &load);
    link.flow();
    fleet.all_accept(&fleet.issuer.viewer());
    load.wait_for(5);
    let report = load.finish(&fleet);
    report.holds(BOUND, &[]);
    report.none_waited(PROMPT, &[]);
    if denies {
        assert!(report.unavailable(2) > 0, "the gateway behind the link is stale");
    } else {
        report.none_denied(2, &[], "the gateway behind the link is not stale");
    }
    report.none_denied(1, &[], "the others do not notice");
    report.none_merely_accepted("nor does who revokes");
}

#[test]
fn t01_a_network_that_swallows_everything() {
    let swallow = |link: &Link, _: &Load| {
        link.stall();
        std::thread::sleep(OUTAGE);
    };
    behind(swallow, true);
}

#[test]
fn t01_a_network_that_resets_everything() {
    let refuse = |link: &Link, _: &Load| {
        link.cut();
        std::thread::sleep(OUTAGE);
    };
    behind(refuse, true);
}

#[test]
fn t01_connections_that_break_again_and_again_are_made_again() {
    let shake = |link: &Link, load: &Load| {
        for _ in 0..5 {
            load.wait_for(3);
            link.reset();
        }
    };
    behind(shake, false);
}

#[test]
fn t01_a_slow_network_is_followed_all_the_same() {
    let slow = |link: &Link, load: &Load| {
        link.delay(Duration::from_millis(300));
        load.wait_for(30);
    };
    behind(slow, false);
}
