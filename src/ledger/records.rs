//! What a record still means: when it is over, and which later one replaces it.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::revocation::{Arrival, Entry, FloorOf, Record, Retention};

/// From when a record does not count any more; `None`: it stands until it is replaced (keys, who is disabled or enabled, overrides).
pub(super) fn over(record: &Record, retention: Retention) -> Option<Timestamp> {
    // Until when overrides count depends on settings that may change; the newest of a subject is a state, and stays on disk.
    if matches!(record.entry, Entry::Override(_)) {
        return None;
    }
    let taken = seconds(record.at);
    // The index has it from a moment after it was made.
    retention.until(&record.entry, Arrival { number: Some(record.n), taken, now: taken.plus(1) })
}

/// Unix seconds of Unix milliseconds.
pub(super) fn seconds(milliseconds: u64) -> Timestamp {
    Timestamp(i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX))
}

/// Leaves out what is over and what is replaced; the rest, by number.
pub(super) fn collapse(records: impl IntoIterator<Item = Record>, retention: Retention, now: Timestamp) -> Vec<Record> {
    let mut kept: HashMap<Subject, Vec<Record>> = HashMap::new();
    let mut records: Vec<Record> = records.into_iter().filter(|record| counts(record, retention, now)).collect();
    records.sort_by_key(|record| record.n);
    for record in records {
        let same = kept.entry(Subject::of(&record.entry)).or_default();
        same.retain(|older| !replaces(&record, older, retention));
        if !same.iter().any(|older| outlasts(older, &record, retention)) {
            same.push(record);
        }
    }
    let mut kept: Vec<Record> = kept.into_values().flatten().collect();
    kept.sort_by_key(|record| record.n);
    kept
}

fn counts(record: &Record, retention: Retention, now: Timestamp) -> bool {
    over(record, retention).is_none_or(|end| now < end)
}

/// What records have to share so that one can replace the other.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Subject {
    Token(Box<str>, Option<Box<str>>),
    Session(Box<str>),
    /// Taken at a change.
    Numbered(FloorOf),
    /// Taken at a written time: compared by `iat` for every token.
    Timed(FloorOf),
    Key(Box<str>, Option<Box<str>>),
    /// Disabled or enabled.
    Standing(Box<str>),
    Override(Box<str>),
    Keys,
}

impl Subject {
    fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Token { id, issuer, .. } => Self::Token(id.clone(), issuer.clone()),
            Entry::Session { id, .. } => Self::Session(id.clone()),
            Entry::Floor { of, issued_until: None } => Self::Numbered(of.clone()),
            Entry::Floor { of, issued_until: Some(_) } => Self::Timed(of.clone()),
            Entry::Key { id, issuer } => Self::Key(id.clone(), issuer.clone()),
            Entry::Disabled { id } | Entry::Enabled { id } => Self::Standing(id.clone()),
            Entry::Override(overridden) => Self::Override(overridden.subject.clone()),
            Entry::Keys { .. } => Self::Keys,
        }
    }
}

/// Whether the later of two records of one subject says all that the earlier does.
fn replaces(later: &Record, earlier: &Record, retention: Retention) -> bool {
    let (ends, ended) = (over(later, retention), over(earlier, retention));
    match (&later.entry, &earlier.entry) {
        // By number and, for tokens without one, by time: a clock that went back made a later floor lower.
        (Entry::Floor { issued_until: None, .. }, _) => later.at >= earlier.at,
        (Entry::Floor { issued_until: later, .. }, Entry::Floor { issued_until: earlier, .. }) => {
            later >= earlier && ends >= ended
        }
        (Entry::Token { .. } | Entry::Session { .. }, _) => ends >= ended,
        _ => true,
    }
}

/// Whether the earlier of two records of one subject says all that the later does.
fn outlasts(earlier: &Record, later: &Record, retention: Retention) -> bool {
    let (ended, ends) = (over(earlier, retention), over(later, retention));
    match (&earlier.entry, &later.entry) {
        (Entry::Floor { issued_until: Some(earlier), .. }, Entry::Floor { issued_until: Some(later), .. }) => {
            earlier >= later && ended >= ends
        }
        (Entry::Token { .. } | Entry::Session { .. }, _) => ended >= ends,
        _ => false,
    }
}
