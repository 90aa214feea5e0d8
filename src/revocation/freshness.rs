//! How long ago the control plane was heard, computed at each decision and not by a timer (T1).
//!
//! A timer looks too ([`Freshness::look`]), but only to be stricter: it tells open exchanges when a process turns stale (T20), knows
//! milliseconds where a decision knows seconds, and counts by a clock that cannot be set. What it found stale stays stale until the
//! control plane is heard, whatever the system clock says by then.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Timestamp;

/// What a process does that has not heard for longer than `max_staleness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStale {
    /// It answers `auth_unavailable`.
    #[default]
    Deny,
    /// It goes on, and says so in a metric.
    Allow,
}

/// How far the control plane's clock may be ahead of this machine's, in milliseconds.
pub const CLOCK_SKEW: i64 = 5_000;

/// Whether what the index holds may be decided by.
///
/// Three states: nothing proven was ever loaded (never fresh, unless a last good state allows it); proven, and heard of within
/// `max_staleness`; proven, and stale.
#[derive(Debug)]
pub struct Freshness {
    /// `None`: this process is its own truth, and always fresh.
    bound: Option<(Duration, OnStale)>,
    heard: Arc<Heard>,
    /// Another way to hear of it, either of which will do.
    besides: Option<Arc<Heard>>,
}

/// What several listeners know together.
#[derive(Debug)]
struct Heard {
    /// Unix milliseconds of the last heartbeat that counted; `i64::MIN`: none yet.
    at: AtomicI64,
    /// Whether a whole state was loaded and proven (T10).
    proven: AtomicBool,
    /// Whether there is a last good state to go on by under `on_stale = "allow"` (T16).
    restored: AtomicBool,
    /// Whether the timer has found it stale, and nothing was heard since.
    stale: AtomicBool,
    /// How often it was heard.
    hearings: AtomicU64,
    /// Which of those the timer saw last, and when first.
    seen: Mutex<Option<(u64, Instant)>>,
    /// See [`Freshness::changes`].
    changes: AtomicU64,
}

impl Freshness {
    /// Of a process that follows nobody.
    #[must_use]
    pub fn of_own_truth() -> Self {
        Self::made(None)
    }

    /// Of a process that follows a control plane.
    #[must_use]
    pub fn following(max_staleness: Duration, on_stale: OnStale) -> Self {
        Self::made(Some((max_staleness, on_stale)))
    }

    fn made(bound: Option<(Duration, OnStale)>) -> Self {
        Self { bound, heard: Arc::new(Heard::never()), besides: None }
    }

    /// The same, for whom `on_stale = "allow"` is not meant: the admin listener (T21).
    #[must_use]
    pub fn strict(&self) -> Self {
        let bound = self.bound.map(|(max, _)| (max, OnStale::Deny));
        Self { bound, heard: Arc::clone(&self.heard), besides: self.besides.clone() }
    }

    /// As [`Freshness::strict`], for a process that has the truth itself: it may hear of it there ([`Freshness::heard`] of what this
    /// gives), or as all others do. With Redis gone its administrators can still revoke, which is recorded and published later.
    #[must_use]
    pub fn beside_own_truth(&self) -> Self {
        let bound = self.bound.map(|(max, _)| (max, OnStale::Deny));
        Self { bound, heard: Arc::new(Heard::never()), besides: Some(Arc::clone(&self.heard)) }
    }

    /// A heartbeat of the time `at` counted at `now` (both in Unix milliseconds): everything up to its number is in the index.
    ///
    /// The later time holds, unless it lies in the future by more than clocks differ: then this machine's clock went back, and what
    /// was heard just now says more than a time that has not come.
    pub fn heard(&self, at: i64, now: i64) {
        let heard = &*self.heard;
        let _ = heard.at.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            (at > held || held > now.saturating_add(CLOCK_SKEW)).then_some(at)
        });
        heard.hearings.fetch_add(1, Ordering::AcqRel);
        heard.stale.store(false, Ordering::Release);
        heard.proven.store(true, Ordering::Release);
    }

    /// A last good state was read from disk at `now`, whose last heartbeat was at `at` (T16); both in Unix milliseconds. It starts a
    /// process unready; only `on_stale = "allow"` serves by it. A time in the future is none: who wrote it had another clock.
    pub fn restored(&self, at: i64, now: i64) {
        if at <= now {
            self.heard.at.fetch_max(at, Ordering::AcqRel);
        }
        self.heard.restored.store(true, Ordering::Release);
    }

    /// Whether decisions may be made now.
    #[must_use]
    #[inline]
    pub fn may_decide(&self, now: Timestamp) -> bool {
        let heard = &*self.heard;
        match self.bound {
            None => true,
            Some((_, OnStale::Allow)) => heard.proven.load(Ordering::Acquire) || heard.restored.load(Ordering::Acquire),
            Some((max, OnStale::Deny)) => {
                let now = now.0.saturating_mul(1000);
                heard.is_fresh(now, max) || self.besides.as_ref().is_some_and(|other| other.is_fresh(now, max))
            }
        }
    }

    /// How long ago the control plane was last heard; zero for its own truth; `None` if never, or if the last time lies in the
    /// future by more than clocks differ: then this machine's clock went back, and the age is unknown.
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        self.staleness_at(now.0.saturating_mul(1000))
    }

    /// As [`Freshness::staleness`], by milliseconds.
    #[must_use]
    pub fn staleness_at(&self, now: i64) -> Option<Duration> {
        if self.bound.is_none() {
            return Some(Duration::ZERO);
        }
        let other = self.besides.as_ref().and_then(|other| other.age(now));
        self.heard.age(now).into_iter().chain(other).min()
    }

    /// What a timer does, a few times a second (`now` in Unix milliseconds, which is the moment `at`): turning stale is told to open
    /// exchanges (T20). Whether it is stale now. Of the ages by the two clocks the larger counts, and only hearing ends it.
    pub fn look(&self, now: i64, at: Instant) -> bool {
        let Some((max, _)) = self.bound else { return false };
        let heard = &*self.heard;
        let hearings = heard.hearings.load(Ordering::Acquire);
        let unheard = heard.unheard(hearings, at);
        let too_old = heard.age(now).is_none_or(|age| age.max(unheard) > max);
        // What was never proven has no open exchanges, and no fresh state to lose.
        if too_old && heard.proven.load(Ordering::Acquire) && !heard.stale.swap(true, Ordering::AcqRel) {
            heard.changes.fetch_add(1, Ordering::AcqRel);
            if heard.hearings.load(Ordering::Acquire) != hearings {
                heard.stale.store(false, Ordering::Release);
            }
        }
        heard.stale.load(Ordering::Acquire)
    }

    /// Whether this process follows nobody, or has proven a whole state of whom it follows.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.bound.is_none() || self.heard.proven.load(Ordering::Acquire)
    }

    /// A number that is another one after every turn from fresh to stale (T20).
    #[must_use]
    pub fn changes(&self) -> u64 {
        let other = self.besides.as_ref().map_or(0, |other| other.changes.load(Ordering::Acquire));
        self.heard.changes.load(Ordering::Acquire).wrapping_add(other)
    }
}

impl Heard {
    const fn never() -> Self {
        Self {
            at: AtomicI64::new(i64::MIN),
            proven: AtomicBool::new(false),
            restored: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            hearings: AtomicU64::new(0),
            seen: Mutex::new(None),
            changes: AtomicU64::new(0),
        }
    }

    #[inline]
    fn is_fresh(&self, now: i64, max: Duration) -> bool {
        self.proven.load(Ordering::Acquire)
            && !self.stale.load(Ordering::Acquire)
            && self.age(now).is_some_and(|age| age <= max)
    }

    /// For how long nothing was heard after so many hearings, as far as the timer saw.
    fn unheard(&self, hearings: u64, at: Instant) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = seen.filter(|(number, _)| *number == hearings).map_or(at, |(_, since)| since);
        *seen = Some((hearings, since));
        at.saturating_duration_since(since)
    }

    /// See [`Freshness::staleness`].
    #[inline]
    fn age(&self, now: i64) -> Option<Duration> {
        let age = now.checked_sub(self.at.load(Ordering::Acquire))?;
        // A second is cut off where a decision has only seconds.
        if age < -(CLOCK_SKEW + 1000) {
            return None;
        }
        Some(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(30);
    const NOW: i64 = 1_790_000_000;

    fn decides(freshness: &Freshness, now: i64) -> bool {
        freshness.may_decide(Timestamp(now))
    }

    #[test]
    fn t01_the_age_is_computed_at_each_decision() {
        let freshness = Freshness::following(MAX, OnStale::Deny);
        assert!(!decides(&freshness, NOW), "nothing was ever proven");
        freshness.heard(NOW * 1000, NOW * 1000);
        assert!(decides(&freshness, NOW) && decides(&freshness, NOW + 30));
        assert!(!decides(&freshness, NOW + 31), "no timer has looked, and it is stale all the same");
        freshness.heard(NOW * 1000 - 5000, NOW * 1000);
        assert!(!decides(&freshness, NOW + 29 + 2), "an older time does not make it older or newer");
        freshness.heard((NOW + 31) * 1000, (NOW + 31) * 1000);
        assert!(decides(&freshness, NOW + 31));
    }

    #[test]
    fn a_clock_that_is_a_little_behind_is_no_outage_and_one_that_went_back_is() {
        let freshness = Freshness::following(MAX, OnStale::Deny);
        freshness.heard((NOW + 5) * 1000 + 999, NOW * 1000);
        assert!(decides(&freshness, NOW));
        assert_eq!(freshness.staleness(Timestamp(NOW)), Some(Duration::ZERO));
        assert!(!decides(&freshness, NOW - 60));
        assert_eq!(freshness.staleness(Timestamp(NOW - 60)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_is_an_outage_until_the_next_heartbeat_only() {
        let freshness = Freshness::following(MAX, OnStale::Deny);
        freshness.heard((NOW + 3600) * 1000, (NOW + 3600) * 1000);
        assert!(!decides(&freshness, NOW));
        freshness.heard(NOW * 1000, NOW * 1000 + 20);
        assert!(decides(&freshness, NOW) && decides(&freshness, NOW + 30));
        assert!(!decides(&freshness, NOW + 31), "the time that never came does not count any more");
    }

    #[test]
    fn t16_a_last_good_state_starts_unready_and_a_time_in_the_future_is_none() {
        let (deny, allow) = (Freshness::following(MAX, OnStale::Deny), Freshness::following(MAX, OnStale::Allow));
        for freshness in [&deny, &allow] {
            freshness.restored(NOW * 1000, NOW * 1000 + 1);
            assert_eq!(freshness.staleness(Timestamp(NOW + 10)), Some(Duration::from_secs(10)));
            assert!(!freshness.is_loaded());
        }
        assert!(!decides(&deny, NOW) && decides(&allow, NOW));
        let future = Freshness::following(MAX, OnStale::Deny);
        future.restored(NOW * 1000 + 1, NOW * 1000);
        assert_eq!(future.staleness(Timestamp(NOW + 10)), None);
    }

    #[test]
    fn t20_turning_stale_is_a_change_and_becoming_fresh_is_none() {
        let freshness = Freshness::following(MAX, OnStale::Deny);
        assert!(!freshness.look(NOW * 1000, Instant::now()));
        freshness.heard(NOW * 1000, NOW * 1000);
        let before = freshness.changes();
        assert!(!freshness.look(NOW * 1000 + 30_000, Instant::now()));
        assert_eq!(freshness.changes(), before);
        assert!(freshness.look(NOW * 1000 + 30_001, Instant::now()));
        assert!(!decides(&freshness, NOW + 30), "the timer knows milliseconds");
        assert!(freshness.look(NOW * 1000 + 30_250, Instant::now()));
        assert_eq!(freshness.changes(), before + 1);
        freshness.heard(NOW * 1000 + 30_300, NOW * 1000 + 30_300);
        assert!(!freshness.look(NOW * 1000 + 30_500, Instant::now()));
        assert_eq!(freshness.changes(), before + 1);
        assert!(decides(&freshness, NOW + 30));
    }

    #[test]
    fn t01_what_was_found_stale_is_fresh_by_hearing_only_whatever_the_clock_says() {
        let (start, milliseconds) = (Instant::now(), |seconds: i64| (NOW + seconds) * 1000);
        let looks = |looks: &[(i64, u64)]| {
            let freshness = Freshness::following(MAX, OnStale::Deny);
            freshness.heard(milliseconds(0), milliseconds(0));
            let stale = looks
                .iter()
                .map(|&(now, passed)| freshness.look(milliseconds(now), start + Duration::from_secs(passed)));
            (stale.collect::<Vec<_>>(), freshness)
        };
        // It is found stale, and then the clock is set back: which of the two times was right nobody knows.
        let (stale, freshness) = looks(&[(0, 0), (31, 1), (5, 2)]);
        assert_eq!(stale, [false, true, true]);
        assert!(!decides(&freshness, NOW + 5));
        freshness.heard(milliseconds(6), milliseconds(6));
        assert!(decides(&freshness, NOW + 6) && !freshness.look(milliseconds(6), start + Duration::from_secs(32)));
        // The clock is set back before that, so that it never looks old.
        let (stale, freshness) = looks(&[(0, 0), (20, 20), (1, 21), (10, 30), (11, 31)]);
        assert_eq!(stale, [false, false, false, false, true]);
        assert!(!decides(&freshness, NOW + 11));
    }

    #[test]
    fn who_has_the_truth_hears_of_it_there_or_as_all_others_do() {
        let shared = Freshness::following(MAX, OnStale::Allow);
        let own = shared.beside_own_truth();
        assert!(!decides(&own, NOW));
        shared.heard(NOW * 1000, NOW * 1000);
        assert!(decides(&own, NOW + 30) && !decides(&own, NOW + 31));
        own.heard((NOW + 40) * 1000, (NOW + 40) * 1000);
        assert!(decides(&own, NOW + 70) && !decides(&own, NOW + 71));
        assert_eq!(own.staleness(Timestamp(NOW + 50)), Some(Duration::from_secs(10)));
        assert_eq!(
            shared.staleness(Timestamp(NOW + 50)),
            Some(Duration::from_secs(50)),
            "gateways are told nothing by it"
        );
        let before = own.changes();
        assert!(own.look((NOW + 80) * 1000, Instant::now()) && shared.look((NOW + 80) * 1000, Instant::now()));
        assert_eq!(own.changes(), before + 2);
    }

    #[test]
    fn t21_allow_is_never_meant_for_the_admin_listener() {
        let freshness = Freshness::following(MAX, OnStale::Allow);
        let strict = freshness.strict();
        assert!(!decides(&freshness, NOW) && !decides(&strict, NOW), "nothing was ever loaded");
        freshness.heard(NOW * 1000, NOW * 1000);
        assert!(decides(&strict, NOW + 30) && !decides(&strict, NOW + 31));
        assert!(decides(&freshness, NOW + 3600));
        let restored = Freshness::following(MAX, OnStale::Allow);
        restored.restored(NOW * 1000, NOW * 1000);
        assert!(decides(&restored, NOW) && !decides(&restored.strict(), NOW));
    }
}
