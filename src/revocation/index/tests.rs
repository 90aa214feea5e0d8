//! What is revoked stays revoked for as long as a token can live, and nothing else is.

#![expect(clippy::expect_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Arrival, Presented, Retention, RevocationIndex, Standing};
use crate::clock::Timestamp;
use crate::revocation::{Entry, FloorOf};

const NOW: Timestamp = Timestamp(1_800_000_000);
/// What everything is kept for the clocks, in seconds.
const DAY: i64 = 86_400;

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
    let lifetime = DAY + 3600 + 2 * 30 + 60;
    for (line, last) in [
        (r#"{"jti":"t-1"}"#, lifetime - 1),
        (r#"{"jti":"t-1","expires_at":1800000100}"#, DAY + 100 + 30 + 60 - 1),
        (r#"{"session":"s-1"}"#, lifetime - 1),
        (r#"{"subject":"kc:alice","issued_until":1800000000}"#, lifetime - 1),
    ] {
        let index = index(line);
        assert_eq!(index.standing(&presented(), NOW.plus(last)), Standing::Revoked, "{line}");
        assert_eq!(index.standing(&presented(), NOW.plus(last + 1)), Standing::Good, "{line}");
    }
}

#[test]
fn t05_a_clock_that_was_ahead_makes_nothing_forgotten() {
    let index = index(
        "{\"jti\":\"t-1\"}\n{\"jti\":\"t-3\",\"expires_at\":1800000100}\n{\"session\":\"s-1\"}\n\
         {\"subject\":\"kc:alice\",\"issued_until\":1800000000}",
    );
    for _ in 0..16 {
        assert_eq!(index.sweep(NOW.plus(7200)), 0);
    }
    // Entries arrive while the clock is ahead, by years even: so many that the tables are written anew.
    let ahead = NOW.plus(1000 * DAY);
    for n in 0..10_000 {
        for entry in [
            Entry::Token { id: format!("other-{n}").into(), issuer: None, expires_at: None },
            Entry::Session { id: format!("other-{n}").into(), expires_at: None },
            Entry::Floor { of: FloorOf::Subject(format!("other-{n}").into()), issued_until: Some(NOW) },
        ] {
            index.apply(&entry, Arrival::by_hand(ahead), retention());
        }
    }
    let nothing = Presented { token_id: None, session: None, subject: "kc:bob", key_id: None, ..presented() };
    for token in [
        Presented { token_id: Some("t-1"), ..nothing },
        Presented { token_id: Some("t-3"), ..nothing },
        Presented { session: Some("s-1"), ..nothing },
        Presented { subject: "kc:alice", ..nothing },
    ] {
        assert_eq!(index.standing(&token, NOW), Standing::Revoked, "{token:?}");
    }
    assert_eq!(index.standing(&nothing, NOW), Standing::Good);
}

#[test]
fn t05_a_clock_that_is_behind_when_an_entry_arrives_makes_it_end_no_earlier() {
    for behind in [7200, 1000 * DAY] {
        let index = RevocationIndex::default();
        // By when it was made, or, where the one who made it was behind as well, by its number.
        for (number, taken) in [(70, NOW), (1_800_000_000_000, NOW.plus(-behind))] {
            for line in [r#"{"jti":"t-1"}"#, r#"{"session":"s-1"}"#, r#"{"override":"kc:alice","roles":[]}"#] {
                let entry = serde_json::from_str(line).expect("an entry");
                let arrival = Arrival { number: Some(number), taken, now: NOW.plus(-behind) };
                index.apply(&entry, arrival, retention());
            }
            let later = NOW.plus(10);
            for token in [Presented { token_id: None, ..presented() }, Presented { session: None, ..presented() }] {
                assert_eq!(index.standing(&token, later), Standing::Revoked, "{behind} {number} {token:?}");
            }
            assert!(index.overrides("kc:alice", later).is_some(), "{behind} {number}");
        }
    }
    let index = RevocationIndex::default();
    let entry = serde_json::from_str(r#"{"jti":"t-1"}"#).expect("an entry");
    // Nothing says what time it is, and the clock is a time zone behind.
    index.apply(&entry, Arrival::by_hand(NOW.plus(-14 * 3600)), retention());
    assert_eq!(index.standing(&presented(), NOW.plus(10)), Standing::Revoked);
}

#[test]
fn t06_disabled_subjects_stay() {
    let index = index("{\"disabled\":\"kc:alice\"}\n{\"key\":\"k-1\"}");
    let much_later = NOW.plus(100 * 365 * 86_400);
    for _ in 0..16 {
        assert_eq!(index.sweep(much_later), 0);
    }
    assert_eq!(index.standing(&presented(), much_later), Standing::Disabled);
    apply(&index, "{\"enabled\":\"kc:alice\"}\n{\"enabled\":\"kc:alice\"}\n{\"enabled\":\"kc:bob\"}");
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
    let removed: usize = (0..16).map(|_| index.sweep(NOW.plus(DAY + 1000))).sum();
    assert_eq!((removed, index.len()), (5000, 5000));
    for n in 0..10_000 {
        let id = format!("t-{n}");
        let presented = Presented { token_id: Some(&id), ..presented() };
        let expected = if n % 2 == 0 { Standing::Good } else { Standing::Revoked };
        assert_eq!(index.standing(&presented, NOW.plus(DAY + 1000)), expected, "{id}");
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

#[test]
fn a_revoked_id_is_found_all_the_while_its_table_is_written_anew() {
    let index = RevocationIndex::default();
    let apply = |id: String, expires_at| {
        let entry = Entry::Token { id: id.into(), issuer: None, expires_at };
        index.apply(&entry, Arrival::by_hand(NOW), retention());
    };
    (0..200).for_each(|n| apply(format!("kept-{n}"), None));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (index, done, apply) = (&index, &done, &apply);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut rounds = 0;
                    while rounds < 3 || !done.load(Ordering::Acquire) {
                        rounds += 1;
                        for id in (0..200).map(|n| format!("kept-{n}")) {
                            let presented = Presented { token_id: Some(&id), ..presented() };
                            assert_eq!(index.standing(&presented, NOW.plus(DAY + 600)), Standing::Revoked, "{id}");
                        }
                    }
                })
            })
            .collect();
        // Half of these expire at once, so that shards grow, shrink and grow again under the readers.
        for n in 0..20_000 {
            apply(format!("passing-{n}"), Some(NOW.plus(if n % 2 == 0 { 0 } else { 300 })));
            if n % 500 == 0 {
                index.sweep(NOW.plus(DAY + 200));
            }
        }
        (0..16).for_each(|_| {
            index.sweep(NOW.plus(DAY + 600));
        });
        done.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().expect("it found them all"));
    });
    assert_eq!(index.len(), 200);
}

#[test]
fn a_session_and_a_service_have_floors_of_their_own() {
    for (line, standing) in [
        (r#"{"session":"s-1","floor":true,"issued_until":1800000000}"#, Standing::Revoked),
        (r#"{"session":"s-1","floor":true,"issued_until":1799999999}"#, Standing::Good),
        (r#"{"session":"s-2","floor":true,"issued_until":1800000000}"#, Standing::Good),
        (r#"{"service":"oms","issued_until":1800000000}"#, Standing::Revoked),
        (r#"{"service":"crm","issued_until":1800000000}"#, Standing::Good),
    ] {
        assert_eq!(index(line).standing(&presented(), NOW), standing, "{line}");
    }
    let counts = index("{\"service\":\"oms\",\"issued_until\":1}\n{\"everything\":1}\n{\"disabled\":\"a\"}").counts();
    assert_eq!((counts.floors, counts.disabled, counts.revocations()), (2, 1, 3));
}

/// A floor that arrives as change `number`, taken at [`NOW`].
fn numbered(line: &str, number: u64) -> RevocationIndex {
    let index = RevocationIndex::default();
    let entry = serde_json::from_str(line).expect("an entry");
    index.apply(&entry, Arrival { number: Some(number), taken: NOW, now: NOW }, retention());
    index
}

#[test]
fn t03_floors_of_every_kind_are_numbers_and_a_token_without_one_is_held_by_its_age() {
    for line in [
        r#"{"everything":true}"#,
        r#"{"service":"oms"}"#,
        r#"{"subject":"kc:alice"}"#,
        r#"{"session":"s-1","floor":true}"#,
    ] {
        let index = numbered(line, 70);
        // However new the token looks: what counts is as of which change its claims are true.
        for (uv, issued_at, standing) in [
            (Some(69), NOW.plus(50), Standing::Revoked),
            (Some(70), NOW.plus(-50), Standing::Good),
            (Some(71), NOW, Standing::Good),
            (None, NOW, Standing::Revoked),
            (None, NOW.plus(1), Standing::Good),
        ] {
            let token = Presented { uv, issued_at, ..presented() };
            assert_eq!(index.standing(&token, NOW), standing, "{line} {uv:?} {issued_at:?}");
        }
    }
    // The lower of two floors of different kinds takes nothing back.
    let index = numbered(r#"{"everything":true}"#, 70);
    let entry = serde_json::from_str(r#"{"subject":"kc:alice"}"#).expect("an entry");
    index.apply(&entry, Arrival { number: Some(40), taken: NOW, now: NOW }, retention());
    let token = Presented { uv: Some(50), ..presented() };
    assert_eq!(index.standing(&token, NOW), Standing::Revoked);
    // A floor that names a time is about every token's time, whatever its number.
    let index = numbered(r#"{"subject":"kc:alice","issued_until":1800000000}"#, 70);
    assert_eq!(index.standing(&Presented { uv: Some(99), ..presented() }, NOW), Standing::Revoked);
}

#[test]
fn t14_a_numbered_floor_holds_a_foreign_token_by_its_time_and_leeway() {
    let index = numbered(r#"{"subject":"kc:alice"}"#, 70);
    let foreign = |ahead| Presented { leeway: 30, issued_at: NOW.plus(ahead), ..presented() };
    assert_eq!(index.standing(&foreign(30), NOW), Standing::Revoked);
    assert_eq!(index.standing(&foreign(31), NOW), Standing::Good);
}
