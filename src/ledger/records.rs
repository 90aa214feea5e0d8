//! What a record still means: when it is over, and which later one replaces it.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::revocation::{Arrival, Entry, FloorOf, Record, Retention};

/// So many overrides of one subject are kept while each presumes role data that may not be everywhere yet: one more than in memory, which
/// so knows that it does not know what was held before.
const OVERRIDES: usize = 17;

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
            let excess = (same.len() + 1).saturating_sub(OVERRIDES);
            if matches!(record.entry, Entry::Override(_)) {
                same.drain(..excess);
            }
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
    RoleData(Box<str>),
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
            Entry::RoleData { fingerprint } => Self::RoleData(fingerprint.clone()),
        }
    }
}

/// Whether an entry that was lost, and may give somebody something, must not be recorded again, because this later one was recorded
/// meanwhile: it would count as the newest.
pub(super) fn overtakes(later: &Entry, lost: &Entry) -> bool {
    match lost {
        Entry::Enabled { .. } | Entry::Override(_) => Subject::of(later) == Subject::of(lost),
        Entry::RoleData { .. } => matches!(later, Entry::RoleData { .. }),
        _ => false,
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
        // T9: who has not its role data yet looks at what was held before.
        (Entry::Override(later), _) => later.needs.is_none(),
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    /// The numbers of those that are kept of these entries, which were made one after the other now.
    fn kept(entries: &[Value]) -> Vec<u64> {
        let now = Timestamp(1_800_000_000);
        let at = u64::try_from(now.0).unwrap() * 1000;
        let entry = |entry: &Value| serde_json::from_value(entry.clone()).unwrap();
        let records = (1..).zip(entries).map(|(n, written)| Record { n, at, entry: entry(written) });
        let retention = Retention::new(Duration::from_secs(3600), Duration::from_secs(30));
        collapse(records, retention, now).iter().map(|record| record.n).collect()
    }

    #[test]
    fn t09_what_was_held_before_stays_beside_an_override_that_presumes_role_data() {
        let plain = |role: &str| json!({ "override": "alice", "roles": [role] });
        let presuming = || json!({ "override": "alice", "roles": ["ROLE_C"], "needs": "f" });
        let bobs = json!({ "override": "bob", "roles": [] });
        assert_eq!(
            kept(&[plain("ROLE_A"), bobs, plain("ROLE_B"), presuming()]),
            [2, 3, 4],
            "one that presumes nothing says all"
        );
        let many: Vec<_> = (0..20).map(|_| presuming()).collect();
        assert_eq!(kept(&many), (4..=20).collect::<Vec<_>>(), "one more than memory holds");
        assert_eq!(kept(&[presuming(), presuming(), plain("ROLE_A")]), [3]);
    }

    #[test]
    fn t09_of_role_data_the_last_announcement_stays() {
        let announced = |fingerprint: &str| json!({ "role_data": fingerprint });
        assert_eq!(kept(&[announced("a"), announced("b"), announced("a"), announced("c")]), [2, 3, 4]);
    }
}
