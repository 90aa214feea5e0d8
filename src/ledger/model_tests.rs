//! Whatever is recorded, tended, torn, stopped, reopened and followed in whatever order: the folder says what a naive model says.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::steps::{self, Step};
use super::tests::{Place, entry, place};
use super::{Ledger, last_number};
use crate::clock::Timestamp;
use crate::revocation::{Entry, FloorOf, Record, RevocationIndex};

#[derive(Debug, Clone)]
enum Act {
    /// By the first process or the second.
    Record(bool, Entry),
    Follow(bool),
    Tend(bool, usize),
    /// The work stops after this step, as if the process died there; it starts anew.
    StopTending(bool, Step),
    /// The process dies over a line.
    Tear(bool, usize),
    Reopen(bool),
}

fn entries() -> impl Strategy<Value = Entry> {
    let now = Timestamp::now().0;
    let id = 0..4u8;
    prop_oneof![
        id.clone().prop_map(|id| entry(json!({ "jti": format!("t{id}") }))),
        (id.clone(), -200..200i64)
            .prop_map(move |(id, end)| entry(json!({ "jti": format!("t{id}"), "expires_at": now + end }))),
        id.clone().prop_map(|id| entry(json!({ "session": format!("s{id}") }))),
        id.clone().prop_map(|id| entry(json!({ "subject": format!("u{id}") }))),
        (id.clone(), 0..100i64)
            .prop_map(move |(id, until)| entry(json!({ "subject": format!("u{id}"), "issued_until": now - until }))),
        Just(entry(json!({ "everything": true }))),
        id.clone().prop_map(|id| entry(json!({ "key": format!("k{id}") }))),
        id.clone().prop_map(|id| entry(json!({ "disabled": format!("u{id}") }))),
        id.clone().prop_map(|id| entry(json!({ "enabled": format!("u{id}") }))),
        (id, 0..2u8).prop_map(|(id, role)| {
            entry(json!({ "override": format!("u{id}"), "roles": [format!("ROLE_{role}")] }))
        }),
        (0..9u8).prop_map(|set| entry(json!({ "keys": { "keys": [set] } }))),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let who = any::<bool>();
    prop_oneof![
        6 => (who, entries()).prop_map(|(who, entry)| Act::Record(who, entry)),
        1 => who.prop_map(Act::Follow),
        2 => (who, 0..3usize).prop_map(|(who, stay)| Act::Tend(who, stay)),
        1 => (who, prop::sample::select(&steps::ALL[2..])).prop_map(|(who, step)| Act::StopTending(who, step)),
        1 => (who, 1..200usize).prop_map(|(who, bytes)| Act::Tear(who, bytes)),
        1 => who.prop_map(Act::Reopen),
    ]
}

/// What records mean together, said as simply as possible.
fn meaning(records: &[(u64, u64, Entry)], now: i64) -> BTreeMap<String, String> {
    let mut meaning: BTreeMap<String, String> = BTreeMap::new();
    let mut highest = |key: String, value: u64| {
        let before = meaning.get(&key).map_or(0, |text| text.parse().unwrap());
        if value >= before {
            meaning.insert(key, value.to_string());
        }
    };
    let mut newest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for (n, at, entry) in records {
        let arrival = *at as i64 / 1000 + 1;
        match entry {
            Entry::Token { id, expires_at, .. } => {
                let end = expires_at.map_or(arrival + 3780, |end| end.0 + 90);
                if end > now {
                    highest(format!("token {id}"), end as u64);
                }
            }
            Entry::Session { id, .. } => highest(format!("session {id}"), (arrival + 3780) as u64),
            Entry::Floor { of, issued_until: None } => highest(format!("floor {of:?}"), *n),
            Entry::Floor { of, issued_until: Some(until) } => highest(format!("until {of:?}"), until.0 as u64),
            Entry::Key { id, .. } => highest(format!("key {id}"), 1),
            other => {
                let about = match other {
                    Entry::Disabled { id } | Entry::Enabled { id } => format!("standing {id}"),
                    Entry::Override(overridden) => format!("override {}", overridden.subject),
                    _ => "keys".to_owned(),
                };
                let said = (*n, serde_json::to_string(other).unwrap());
                let slot = newest.entry(about).or_insert_with(|| said.clone());
                if slot.0 < *n {
                    *slot = said;
                }
            }
        }
    }
    meaning.extend(newest.into_iter().map(|(about, (_, said))| (about, said)));
    meaning
}

/// Everything that a ledger holds.
fn held(ledger: &Ledger) -> Vec<(u64, u64, Entry)> {
    let Some(state) = ledger.state() else { return Vec::new() };
    let mut held = Vec::new();
    for segment in &state.manifest.segments {
        let bytes = ledger.segment(&segment.sha256).unwrap();
        let before = held.len();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Record { n, at, entry } = serde_json::from_slice(line).unwrap();
            held.push((n, at, entry));
        }
        assert_eq!((held.len() - before) as u64, segment.records);
    }
    held.extend(state.changes.iter().map(|recorded| {
        let change = &recorded.change;
        (change.n, change.at, change.entry.clone())
    }));
    assert_eq!(held.len() as u64, state.count());
    held
}

type Process = (Arc<Ledger>, Arc<RevocationIndex>);

fn run(acts: Vec<Act>) {
    let place: Place = place();
    let mut processes: [Process; 2] = [place.open(), place.open()];
    let mut recorded: Vec<(u64, u64, Entry)> = Vec::new();
    for act in acts {
        match act {
            Act::Record(who, entry) => {
                let change = processes[usize::from(who)].0.record(entry.clone()).unwrap().change.clone();
                assert!(recorded.last().is_none_or(|last| last.0 < change.n), "numbers rise");
                recorded.push((change.n, change.at, entry));
            }
            Act::Follow(who) => {
                processes[usize::from(who)].0.follow().unwrap();
            }
            Act::Tend(who, stay) => {
                processes[usize::from(who)].0.shared.tend((3, stay), Timestamp::now()).unwrap();
            }
            Act::StopTending(who, step) => {
                let ledger = &processes[usize::from(who)].0;
                *ledger.shared.folder.steps.stop_after.lock().unwrap() = Some(step);
                let _ = ledger.shared.tend((2, 1), Timestamp::now());
                processes[usize::from(who)] = place.open();
            }
            Act::Tear(who, bytes) => {
                if let Ok(mut log) = std::fs::OpenOptions::new().append(true).open(place.log()) {
                    log.write_all(&vec![b'x'; bytes]).unwrap();
                }
                processes[usize::from(who)] = place.open();
            }
            Act::Reopen(who) => processes[usize::from(who)] = place.open(),
        }
    }
    let fresh = place.open();
    let now = Timestamp::now().0;
    let last = recorded.last().map_or(0, |last| last.0);
    assert_eq!(meaning(&held(&fresh.0), now), meaning(&recorded, now));
    assert_eq!(fresh.0.last(), last);
    assert_eq!(last_number(&place.folder, &place.pinned()).unwrap(), last);
    for (ledger, _) in &processes {
        ledger.follow().unwrap();
        assert_eq!(ledger.last(), last);
        assert_eq!(meaning(&held(ledger), now), meaning(&recorded, now));
    }
    // Everybody judges alike, however they came to know it.
    for id in 0..4 {
        for subject in [format!("u{id}"), "nobody".to_owned()] {
            for (token, uv) in
                [(format!("t{id}"), Some(u64::MAX)), ("none".to_owned(), Some(0)), ("none".to_owned(), None)]
            {
                let standing = |index: &RevocationIndex| {
                    let presented = super::tests::presented(&token, &subject);
                    index.standing(&crate::revocation::Presented { uv, ..presented }, Timestamp(now))
                };
                let expected = standing(&fresh.1);
                assert!(processes.iter().all(|(_, index)| standing(index) == expected), "{token} {subject} {uv:?}");
            }
        }
    }
    let floors = |records: &[(u64, u64, Entry)]| {
        let numbered = records
            .iter()
            .filter(|(.., entry)| matches!(entry, Entry::Floor { of: FloorOf::Everything, issued_until: None }));
        numbered.map(|(n, ..)| *n).max()
    };
    assert_eq!(floors(&held(&fresh.0)), floors(&recorded));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_equals_the_model(acts in prop::collection::vec(acts(), 1..40)) {
        run(acts);
    }
}
