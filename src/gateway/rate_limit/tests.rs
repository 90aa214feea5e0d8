#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop loudly")]

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{CompileInput, PolicyFile, Snapshot, SourceText, compile, roles_file};

const SECOND: u64 = 1_000_000_000;

fn limit(count: u32, seconds: u64) -> RateLimit {
    RateLimit { count, window: Duration::from_secs(seconds), per: RateKey::Subject }
}

fn limits(capacity: usize) -> RateLimits {
    RateLimits::new(Instant::now(), capacity)
}

fn snapshot(paths: &str) -> Snapshot {
    let source = |text: String| Arc::new(SourceText { name: "a.yaml".into(), text });
    let roles = roles_file::parse(source("version: 1\npermissions: {}\nroles: {}\n".into())).0.unwrap().1;
    let file =
        PolicyFile::parse(source(format!("version: 1\nservice: oms\nupstream: oms\npaths:\n{paths}"))).0.unwrap();
    compile(&CompileInput { files: &[file], roles: Arc::new(roles), upstreams: None, report: false }).0.unwrap()
}

fn ask(limits: &RateLimits, snapshot: &Snapshot, route: usize, subject: Option<&str>, address: &str) -> bool {
    let route = &snapshot.routes()[route];
    let asker = Asker { subject, address: address.parse().unwrap() };
    let budget =
        limits.spend(route.rate_limit.unwrap(), &snapshot.services()[0], route, asker, limits.origin + Duration::ZERO);
    !budget.is_exceeded()
}

#[test]
fn a_burst_of_the_count_passes_and_then_one_for_each_part_of_the_window() {
    let limits = limits(CAPACITY);
    let thirty = limit(30, 60);
    for left in (0..30).rev() {
        let budget = limits.take([1, 1], thirty, 5 * SECOND);
        assert!(!budget.is_exceeded());
        assert_eq!((budget.remaining, budget.reset), (left, 2 * (30 - u64::from(left))));
    }
    let refused = limits.take([1, 1], thirty, 5 * SECOND);
    assert_eq!((refused.is_exceeded(), refused.remaining, refused.reset), (true, 0, 2));
    assert!(limits.take([1, 1], thirty, 7 * SECOND - 1).is_exceeded(), "a refused request takes nothing");
    assert!(!limits.take([1, 1], thirty, 7 * SECOND).is_exceeded(), "one more after Retry-After");
    assert!(limits.take([1, 1], thirty, 7 * SECOND).is_exceeded());
    assert!(!limits.take([2, 1], thirty, 7 * SECOND).is_exceeded(), "another caller is not concerned");
    for _ in 0..30 {
        assert!(!limits.take([1, 1], thirty, 67 * SECOND).is_exceeded(), "whole again after the window");
    }
}

#[test]
fn subjects_and_addresses_are_counted_apart() {
    let snapshot = snapshot("  /a: {get: {require: public, rate_limit: 1/h per subject}}\n");
    let limits = limits(CAPACITY);
    let ask = |subject, address| ask(&limits, &snapshot, 0, subject, address);
    assert!(ask(Some("ann"), "192.0.2.1"));
    assert!(!ask(Some("ann"), "192.0.2.2"), "a subject is the same from everywhere");
    assert!(ask(Some("bob"), "192.0.2.1"));
    assert!(ask(None, "192.0.2.1"), "anonymous ones by address");
    assert!(!ask(None, "192.0.2.1"));
    assert!(ask(Some("192.0.2.1"), "192.0.2.9"), "a subject that reads like an address is none");
    assert!(!ask(None, "::ffff:192.0.2.1"), "an IPv4 address in IPv6 clothes");
    assert!(ask(None, "2001:db8::1"));
    assert!(!ask(None, "2001:db8::ffff:1"), "one network of 64 bits is one caller");
    assert!(ask(None, "2001:db8:0:1::1"));
}

#[test]
fn per_address_does_not_look_at_the_subject() {
    let snapshot = snapshot("  /a: {get: {require: authenticated, rate_limit: 1/h per address}}\n");
    let limits = limits(CAPACITY);
    assert!(ask(&limits, &snapshot, 0, Some("ann"), "192.0.2.1"));
    assert!(!ask(&limits, &snapshot, 0, Some("bob"), "192.0.2.1"));
}

#[test]
fn a_reloaded_policy_goes_on_counting_and_each_route_counts_alone() {
    let paths = "  /a: {get: public, post: authenticated}\n  /b: {get: public}\nrate_limit: 1/h per address\n";
    let limits = limits(CAPACITY);
    let old = snapshot(paths);
    for route in 0..3 {
        assert!(ask(&limits, &old, route, None, "192.0.2.1"), "route {route}");
        assert!(!ask(&limits, &old, route, None, "192.0.2.1"), "route {route}");
    }
    let new = snapshot(&format!("  /0: {{get: public}}\n{paths}"));
    assert!(ask(&limits, &new, 0, None, "192.0.2.1"), "a new route");
    assert!((1..4).all(|route| !ask(&limits, &new, route, None, "192.0.2.1")), "the others as before");
}

#[test]
fn a_limit_that_shrinks_is_overdrawn_by_one_budget_at_most() {
    let limits = limits(CAPACITY);
    for _ in 0..10 {
        assert!(!limits.take([1, 1], limit(10, 3600), 0).is_exceeded());
    }
    let refused = limits.take([1, 1], limit(2, 1), 0);
    assert_eq!((refused.is_exceeded(), refused.reset), (true, 1));
    assert!(!limits.take([1, 1], limit(10, 3600), 360 * SECOND).is_exceeded(), "a refusal changed nothing");
}

#[test]
fn whole_budgets_are_swept_away() {
    let limits = limits(CAPACITY);
    for caller in 0..1000 {
        let _ = limits.take([caller, caller], limit(2, 1 + caller % 2 * 9), 0);
    }
    assert_eq!(limits.len(), 1000);
    limits.sweep(limits.origin + Duration::from_millis(600));
    assert_eq!(limits.len(), 500, "half a second fills what one request took of 2/s");
    limits.sweep(limits.origin + Duration::from_secs(5));
    assert!(limits.is_empty());
    assert!(limits.shards.iter().all(|shard| lock(shard).capacity() == 0), "the memory is given back");
}

#[test]
fn a_flood_of_callers_is_bounded_and_forgives_the_worst_last() {
    let limits = limits(SHARDS * 64);
    let three = limit(3, 3600);
    for _ in 0..4 {
        let _ = limits.take([u64::MAX, 0], three, 0);
    }
    for caller in 0..100_000 {
        assert!(!limits.take([caller, caller], three, 1).is_exceeded(), "a newcomer is never refused for want of room");
        assert!(limits.len() <= SHARDS * 64);
        if caller % 1000 == 0 {
            assert!(limits.take([u64::MAX, 0], three, 1).is_exceeded(), "after {caller} newcomers");
        }
    }
}

#[test]
fn headers_say_what_is_left() {
    let limits = limits(CAPACITY);
    let mut headers = HeaderMap::new();
    headers.append("RateLimit-Limit", HeaderValue::from_static("the upstream's"));
    limits.take([1, 1], limit(1, 60), 0).tell(&mut headers);
    let of = |headers: &HeaderMap, name: &str| {
        let all: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        all.join("|")
    };
    let names = ["ratelimit-limit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset", "retry-after"];
    assert_eq!(names.map(|name| of(&headers, name)), ["1", "1;w=60", "0", "60", ""]);
    let refused = limits.take([1, 1], limit(1, 60), 15 * SECOND + 1);
    refused.tell(&mut headers);
    assert_eq!(names.map(|name| of(&headers, name)), ["1", "1;w=60", "0", "45", "45"]);
    assert_eq!(refused.detail(), "the limit is 1 request a minute for each caller; try again in 45 s");
}

proptest! {
    /// Whatever the arrivals: no window lets more than the budget and what filled meanwhile through, what is said to remain does
    /// remain, and who waits as told is not refused.
    #[test]
    fn the_budget_holds(count in 1_u32..50, seconds in prop::sample::select(vec![1_u64, 60, 3600]),
        steps in prop::collection::vec(0_u64..3_000_000_000, 1..300))
    {
        let limits = limits(CAPACITY);
        let limit = limit(count, seconds);
        let one = seconds * SECOND / u64::from(count);
        let mut now = 0;
        let mut passed: VecDeque<u64> = VecDeque::new();
        for step in steps {
            now += step;
            let budget = limits.take([7, 7], limit, now);
            if budget.is_exceeded() {
                let later = now + budget.reset * SECOND;
                let other = RateLimits::new(limits.origin, CAPACITY);
                let cell = *lock(&limits.shards[7]).find([7, 7][0], |cell| cell.key == [7, 7]).unwrap();
                lock(&other.shards[7]).insert_unique(7, cell, |cell| cell.key[0]);
                prop_assert!(!other.take([7, 7], limit, later).is_exceeded());
            } else {
                passed.push_back(now);
                for (index, from) in passed.iter().enumerate() {
                    let within = passed.len() - index;
                    prop_assert!(within as u64 <= u64::from(count) + (now - from) / one);
                }
            }
        }
    }
}
