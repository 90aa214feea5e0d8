//! What is revoked stays revoked for as long as a token can live, and nothing else is.

#![expect(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

use super::{Arrival, Presented, Retention, RevocationIndex, Standing};
use crate::clock::Timestamp;
use crate::revocation::{Entry, FloorOf};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn retention() -> Retention {
    Retention::new(Duration::from_secs(3600), Duration::from_secs(30))
}

fn presented() -> Presented<'static> {
    Presented {
        issuer: "kc",
        subject: "kc:alice",
        token_id: Some("t-1"),
        session: Some("s-1"),
        key_id: Some("k-1"),
        service: "oms",
        uv: None,
        issued_at: NOW,
        leeway: 0,
    }
}

fn index(lines: &str) -> RevocationIndex {
    let index = RevocationIndex::default();
    apply(&index, lines);
    index
}

fn apply(index: &RevocationIndex, lines: &str) {
    for entry in crate::revocation::parse_lines(lines).expect("entries") {
        index.apply(&entry, Arrival::by_hand(NOW), retention());
    }
}

#[test]
fn each_kind_refuses_what_it_names_and_nothing_else() {
    for (line, standing) in [
        (r#"{"jti":"t-1"}"#, Standing::Revoked),
        (r#"{"jti":"t-1","issuer":"kc"}"#, Standing::Revoked),
        (r#"{"jti":"t-1","issuer":"other"}"#, Standing::Good),
        (r#"{"jti":"t-2"}"#, Standing::Good),
        (r#"{"session":"s-1"}"#, Standing::Revoked),
        (r#"{"session":"t-1"}"#, Standing::Good),
        (r#"{"jti":"s-1"}"#, Standing::Good),
        (r#"{"subject":"kc:alice","issued_until":1800000000}"#, Standing::Revoked),
        (r#"{"subject":"kc:alice","issued_until":1799999999}"#, Standing::Good),
        (r#"{"subject":"alice","issued_until":1800000000}"#, Standing::Good),
        (r#"{"key":"k-1"}"#, Standing::Revoked),
        (r#"{"key":"k-1","issuer":"kc"}"#, Standing::Revoked),
        (r#"{"key":"k-1","issuer":"other"}"#, Standing::Good),
        (r#"{"disabled":"kc:alice"}"#, Standing::Disabled),
        (r#"{"disabled":"alice"}"#, Standing::Good),
        (r#"{"everything":1800000000}"#, Standing::Revoked),
        (r#"{"everything":1799999999}"#, Standing::Good),
    ] {
        assert_eq!(index(line).standing(&presented(), NOW), standing, "{line}");
    }
    assert_eq!(RevocationIndex::default().standing(&presented(), NOW), Standing::Good);
}

#[test]
fn t05_entries_outlive_the_tokens_that_they_concern() {
    let lifetime = 3600 + 2 * 30 + 60;
    for (line, last) in [
        (r#"{"jti":"t-1"}"#, lifetime - 1),
        (r#"{"jti":"t-1","expires_at":1800000100}"#, 100 + 30 + 60 - 1),
        (r#"{"session":"s-1"}"#, lifetime - 1),
        (r#"{"subject":"kc:alice","issued_until":1800000000}"#, lifetime - 1),
    ] {
        let index = index(line);
        assert_eq!(index.standing(&presented(), NOW.plus(last)), Standing::Revoked, "{line}");
        assert_eq!(index.standing(&presented(), NOW.plus(last + 1)), Standing::Good, "{line}");
    }
}

#[test]
fn t06_disabled_subjects_stay() {
    let index = index("{\"disabled\":\"kc:alice\"}\n{\"key\":\"k-1\"}");
    let much_later = NOW.plus(100 * 365 * 86_400);
    for _ in 0..16 {
        assert_eq!(index.sweep(much_later), 0);
    }
    assert_eq!(index.standing(&presented(), much_later), Standing::Disabled);
    index.enable("kc:alice");
    index.enable("kc:alice");
    assert_eq!(index.standing(&presented(), much_later), Standing::Revoked, "the key stays");
    assert_eq!(index.len(), 1);
}

#[test]
fn t18_a_revoked_key_stays() {
    let index = index("{\"key\":\"k-1\"}");
    let much_later = NOW.plus(100 * 365 * 86_400);
    for _ in 0..16 {
        assert_eq!(index.sweep(much_later), 0);
    }
    assert_eq!(index.standing(&presented(), much_later), Standing::Revoked);
}

#[test]
fn t10_entries_merge_by_the_later_expiry_and_the_higher_floor() {
    let floors = index(
        "{\"subject\":\"kc:alice\",\"issued_until\":1800000000}\n{\"subject\":\"kc:alice\",\"issued_until\":1700000000}",
    );
    assert_eq!(floors.standing(&presented(), NOW), Standing::Revoked);
    let everything = index("{\"everything\":1800000000}\n{\"everything\":1}");
    assert_eq!(everything.standing(&presented(), NOW), Standing::Revoked);
    let tokens = index("{\"jti\":\"t-1\",\"expires_at\":1800009000}\n{\"jti\":\"t-1\",\"expires_at\":1800000001}");
    assert_eq!(tokens.standing(&presented(), NOW.plus(9000)), Standing::Revoked);
    assert_eq!(tokens.len(), 1);
}

#[test]
fn t14_a_foreign_clock_that_is_ahead_does_not_lift_a_token_over_a_floor() {
    for line in [r#"{"subject":"kc:alice","issued_until":1799999970}"#, r#"{"everything":1799999970}"#] {
        let index = index(line);
        let foreign = Presented { leeway: 30, ..presented() };
        assert_eq!(index.standing(&foreign, NOW), Standing::Revoked, "{line}");
        assert_eq!(index.standing(&presented(), NOW), Standing::Good, "{line}");
        let later = Presented { issued_at: NOW.plus(1), ..foreign };
        assert_eq!(index.standing(&later, NOW), Standing::Good, "{line}");
    }
}

#[test]
fn sweeping_removes_what_expired_and_counts_it() {
    let index = RevocationIndex::default();
    for n in 0..10_000 {
        let expires_at = Some(NOW.plus(if n % 2 == 0 { 10 } else { 100_000 }));
        index.apply(
            &Entry::Token { id: format!("t-{n}").into(), issuer: None, expires_at },
            Arrival::by_hand(NOW),
            retention(),
        );
    }
    assert_eq!(index.len(), 10_000);
    let removed: usize = (0..16).map(|_| index.sweep(NOW.plus(1000))).sum();
    assert_eq!((removed, index.len()), (5000, 5000));
    for n in 0..10_000 {
        let id = format!("t-{n}");
        let presented = Presented { token_id: Some(&id), ..presented() };
        let expected = if n % 2 == 0 { Standing::Good } else { Standing::Revoked };
        assert_eq!(index.standing(&presented, NOW.plus(1000)), expected, "{id}");
    }
}

#[test]
fn readers_and_writers_at_once_lose_nothing() {
    let index = RevocationIndex::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let index = &index;
            scope.spawn(move || {
                for n in 0..2000 {
                    let id = format!("t-{thread}-{n}");
                    index.apply(
                        &Entry::Token { id: id.as_str().into(), issuer: None, expires_at: None },
                        Arrival::by_hand(NOW),
                        retention(),
                    );
                    let presented = Presented { token_id: Some(&id), ..presented() };
                    assert_eq!(
                        index.standing(&presented, NOW),
                        Standing::Revoked,
                        "a revocation counts from its return on"
                    );
                    index.sweep(NOW);
                }
            });
        }
    });
    assert_eq!(index.len(), 8000);
}

proptest! {
    /// Whatever the order in which they arrive, and however often, the same entries give the same answers.
    #[test]
    fn order_and_repetition_do_not_matter(
        (sorted, shuffled) in prop::collection::vec((0..3_u8, 0..4_u8, 0..200_i64), 1..20)
            .prop_flat_map(|entries| {
                let twice = [entries.clone(), entries.clone()].concat();
                (Just(entries), Just(twice).prop_shuffle())
            }),
        after in 0..200_i64,
    ) {
        let build = |entries: &[(u8, u8, i64)]| {
            let index = RevocationIndex::default();
            for (kind, id, time) in entries {
                let (id, time) = (Box::from(format!("x-{id}")), NOW.plus(*time));
                let entry = match kind {
                    0 => Entry::Token { id, issuer: None, expires_at: Some(time) },
                    1 => Entry::Session { id, expires_at: Some(time) },
                    _ => Entry::Floor { of: FloorOf::Subject(id), issued_until: Some(time) },
                };
                index.apply(&entry, Arrival::by_hand(NOW), Retention { from_arrival: 100, after_expiry: 0 });
            }
            index
        };
        let (one, other) = (build(&sorted), build(&shuffled));
        prop_assert_eq!(one.len(), other.len());
        for id in ["x-0", "x-1", "x-2", "x-3"] {
            for issued in [0, 50, 100, 150] {
                let presented = Presented {
                    subject: id, token_id: Some(id), session: Some(id), issued_at: NOW.plus(issued), ..presented()
                };
                let now = NOW.plus(after);
                prop_assert_eq!(one.standing(&presented, now), other.standing(&presented, now));
            }
        }
    }
}

/// `cargo test --lib revocation:: -- --ignored --nocapture`; tests/bench/token.rs measures it properly.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "a measurement")]
fn measure_a_miss() {
    let index = RevocationIndex::default();
    let time = |name: &str| {
        let round = || {
            let started = std::time::Instant::now();
            for _ in 0..1000 {
                assert_eq!(index.standing(std::hint::black_box(&presented()), NOW), Standing::Good);
            }
            started.elapsed() / 1000
        };
        eprintln!("measured: {name} {:?}", (0..200).map(|_| round()).min());
    };
    time("nothing revoked");
    for n in 0..100_000 {
        index.apply(
            &Entry::Token { id: format!("x-{n}").into(), issuer: None, expires_at: None },
            Arrival::by_hand(NOW),
            retention(),
        );
    }
    time("100,000 token ids, a miss");
    for n in 0..100_000 {
        index.apply(
            &Entry::Session { id: format!("x-{n}").into(), expires_at: None },
            Arrival::by_hand(NOW),
            retention(),
        );
        index.apply(
            &Entry::Floor { of: FloorOf::Subject(format!("x-{n}").into()), issued_until: Some(NOW) },
            Arrival::by_hand(NOW),
            retention(),
        );
        index.apply(&Entry::Disabled { id: format!("x-{n}").into() }, Arrival::by_hand(NOW), retention());
    }
    time("four kinds of 100,000, a miss");
}
