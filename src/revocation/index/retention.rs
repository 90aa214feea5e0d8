//! With what an entry arrives, and how long it is kept (T5).

use std::time::Duration;

use crate::clock::Timestamp;
use crate::revocation::Entry;

/// With what an entry arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The change number (T2, T3); `None` for what was written by hand into a file.
    pub number: Option<u64>,
    /// When the change was made, by the clock of who made it.
    pub taken: Timestamp,
    /// Now, by this machine's clock: entries are kept from here on.
    pub now: Timestamp,
}

impl Arrival {
    /// Written by hand, and read now.
    #[must_use]
    pub fn by_hand(now: Timestamp) -> Self {
        Self { number: None, taken: now, now }
    }
}

/// How long entries are kept (T5): a token that they concern must not outlive them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Seconds for which an entry is kept from its arrival when the token's own end is not known, and floors
    /// always: the largest `max_lifetime` + 2 × leeway + 60 s. Here and in what follows a day more is kept ([`Retention::until`]).
    pub from_arrival: i64,
    /// Seconds for which an entry is kept after the token's `exp`: leeway + 60 s.
    pub after_expiry: i64,
    /// Whether overrides are kept for good. They are where an issuer has `roles_from = "doorward"` (T6): there a subject's override
    /// is all that says which roles it holds, and forgetting it would take them away.
    pub overrides_stay: bool,
}

/// By how much a clock may be wrong and nothing is lost by it, in seconds: more than two time zones differ. Every entry is kept for so
/// much longer. One that was ahead would make what still counts seem over, and one that is behind writes ends that have passed as
/// soon as it is right. An entry that is kept for too long costs memory only: it concerns what is dead.
pub(super) const CLOCKS_WRONG_BY: i64 = 86_400;

impl Retention {
    /// For the largest `max_lifetime` and leeway of all issuers. Overrides go with the tokens that they concern.
    #[must_use]
    pub fn new(max_lifetime: Duration, leeway: Duration) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let leeway = seconds(leeway);
        Self {
            from_arrival: seconds(max_lifetime).saturating_add(leeway.saturating_mul(2)).saturating_add(60),
            after_expiry: leeway.saturating_add(60),
            overrides_stay: false,
        }
    }

    /// Whether this is an override that was made so long ago that no token which it concerns can live: where it is read again it is
    /// not taken up, for it would stand in the way of what was written by hand since.
    #[must_use]
    pub fn is_past(&self, entry: &Entry, number: u64, taken: Timestamp, now: Timestamp) -> bool {
        let arrival = Arrival { number: Some(number), taken, now: taken.plus(1) };
        matches!(entry, Entry::Override(_)) && self.until(entry, arrival).is_some_and(|end| end <= now)
    }

    /// Until when an entry that arrives so is kept, a day longer than it must be, for the clocks; `None`: for good.
    ///
    /// Keys, and which subjects are disabled, are states that last (T6, T18). An override that was written by hand has no number that
    /// tokens could be above, so it lasts as well.
    #[must_use]
    pub fn until(&self, entry: &Entry, arrival: Arrival) -> Option<Timestamp> {
        let Arrival { number, taken, now } = arrival;
        // Whoever's clock is behind: it is no earlier than when the change was made, and numbers never fall below the time (T2).
        let numbered = number.map_or(i64::MIN, |number| i64::try_from(number / 1000).unwrap_or(i64::MAX));
        let arrived = now.max(taken).max(Timestamp(numbered));
        let kept = arrived.plus(self.from_arrival);
        let end = match entry {
            Entry::Token { expires_at, .. } | Entry::Session { expires_at, .. } => {
                expires_at.map_or(kept, |end| end.plus(self.after_expiry))
            }
            // One in the future concerns tokens that do not exist yet; it is kept until they are gone too.
            Entry::Floor { issued_until, .. } => {
                issued_until.map_or(kept, |until| kept.max(until.plus(self.from_arrival)))
            }
            Entry::Override(_) if number.is_some() && !self.overrides_stay => kept,
            Entry::Override(_) => return None,
            Entry::Key { .. }
            | Entry::Disabled { .. }
            | Entry::Enabled { .. }
            | Entry::Keys { .. }
            | Entry::RoleData { .. } => return None,
        };
        Some(end.plus(CLOCKS_WRONG_BY))
    }
}
