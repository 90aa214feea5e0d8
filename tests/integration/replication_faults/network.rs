//! The network between one gateway and Redis: stalled, cut, slow.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::fleet::{Fleet, MAX_STALENESS, RECOVERY, fleet};
use super::load::{BOUND, Load};
use crate::harness::link::Link;
use crate::harness::redis::Redis;
use crate::harness::{Connection, eventually};

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

#[test]
fn t01_who_revokes_all_the_time_over_a_slow_link_stops_no_heartbeat() {
    const FOR: Duration = Duration::from_secs(25);
    let redis = Redis::start();
    let link = Link::to(redis.address);
    let (direct, linked) = (redis.url(), format!("redis://{}", link.address));
    let fleet = fleet(&[&linked, &direct]).start();
    fleet.all_accept(&fleet.issuer.viewer());
    link.delay(Duration::from_millis(200));
    hears_all_the_time(&fleet, || {
        // Clients that keep step would all wait for one publication, and leave a gap behind it.
        let pause = |client: usize, turn: usize| Duration::from_millis((20 + (client * 37 + turn * 53) % 80) as u64);
        let begun = Instant::now();
        revoke_all_the_time(&fleet, 32, pause, |_| begun.elapsed() < FOR);
    });
}

#[test]
fn t01_a_segment_that_redis_does_not_take_stops_no_heartbeat() {
    // So many changes become a segment.
    const CHANGES: usize = 6000;
    const SETTLED: Duration = Duration::from_mins(1);
    let redis = Redis::start();
    let url = redis.url();
    let mut fleet = fleet(&[&url, &url]).start();
    fleet.all_accept(&fleet.issuer.viewer());
    let keys = ["head", "manifest", "changes", "heartbeats"].map(|name| format!("~{{doorward}}:{name}"));
    let [head, manifest, changes, heartbeats] = keys.each_ref();
    redis.command(&[
        "ACL",
        "SETUSER",
        "default",
        "resetkeys",
        head,
        manifest,
        changes,
        heartbeats,
        "%R~{doorward}:segment:*",
    ]);
    let told = || fleet.gateways[0].stdout().matches("segments cannot be written to Redis").count();
    hears_all_the_time(&fleet, || {
        revoke_all_the_time(&fleet, 32, |_, _| Duration::ZERO, |revoked| revoked < CHANGES);
        eventually("it is told", SETTLED, || (told() >= 1).then_some(()));
        std::thread::sleep(Duration::from_secs(12));
    });
    // It is as before in who starts meanwhile.
    fleet.gateways[0].kill9();
    fleet.gateways[0].start_again();
    let bad = fleet.token("mallory", "s-m", "t-m");
    eventually("it is revoked", RECOVERY, || {
        matches!(fleet.revoke(&json!({"session": "s-m"})).0, 200 | 202).then_some(())
    });
    fleet.all_refuse(&bad);
    fleet.all_accept(&fleet.issuer.viewer());
    redis.command(&["ACL", "SETUSER", "default", "~*"]);
    eventually("the segment is there", SETTLED, || {
        (redis.command(&["HGET", "{doorward}:head", "base"]).text() != "0").then_some(())
    });
    let worse = fleet.token("trudy", "s-t", "t-t");
    fleet.all_accept(&worse);
    assert!(matches!(fleet.revoke(&json!({"session": "s-t"})).0, 200 | 202));
    fleet.all_refuse(&worse);
    fleet.all_accept(&fleet.issuer.viewer());
}

/// The second gateway of a fleet hears a heartbeat every few seconds while this is done.
fn hears_all_the_time(fleet: &Fleet, done: impl FnOnce()) {
    let staleness = || {
        let metrics = fleet.gateways[1].metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix("doorward_revocation_staleness_seconds "));
        line.unwrap().parse::<f64>().unwrap()
    };
    eventually("it has heard of the control plane", RECOVERY, || staleness().is_finite().then_some(()));
    let is_over = AtomicBool::new(false);
    let worst = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut worst = 0.0_f64;
            while !is_over.load(Ordering::SeqCst) {
                worst = worst.max(staleness());
                std::thread::sleep(Duration::from_millis(200));
            }
            worst
        });
        done();
        is_over.store(true, Ordering::SeqCst);
        watcher.join().unwrap()
    });
    assert!(worst < 10.0, "the gateway had heard nothing for {worst} s");
}

/// So many clients revoke sessions at the control plane, each one after the other, for as long as they are to by how many they have
/// revoked together.
fn revoke_all_the_time(
    fleet: &Fleet,
    clients: usize,
    pause: impl Fn(usize, usize) -> Duration + Sync,
    goes_on: impl Fn(usize) -> bool + Sync,
) {
    let (admin, token) = (fleet.gateways[0].admin, fleet.revoker());
    let revoked = AtomicUsize::new(0);
    let revoke = |client: usize| {
        let mut connection = Connection::over(TcpStream::connect(admin).unwrap());
        for turn in 0.. {
            if !goes_on(revoked.fetch_add(1, Ordering::SeqCst)) {
                return;
            }
            let body = json!({"session": format!("s-{client}-{turn}")}).to_string();
            connection.send(format!(
                "POST /api/revocations HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            let status = connection.try_response("POST").unwrap().status;
            assert!(matches!(status, 200 | 202), "{status}");
            std::thread::sleep(pause(client, turn));
        }
    };
    std::thread::scope(|scope| {
        let revoke = &revoke;
        (0..clients).for_each(|client| drop(scope.spawn(move || revoke(client))));
    });
}
