//! How long ago the control plane was heard, computed at each decision and not by a timer (T1).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

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

/// Whether what the index holds may be decided by.
///
/// Three states: nothing proven was ever loaded (never fresh, whatever `on_stale` says, unless a last good state allows it);
/// proven, and heard of within `max_staleness`; proven, and stale.
#[derive(Debug)]
pub struct Freshness {
    /// `None`: this process is its own truth, and always fresh.
    bound: Option<(Duration, OnStale)>,
    /// Unix milliseconds of the last heartbeat that counted; `i64::MIN`: none yet.
    heard: AtomicI64,
    /// Whether a whole state was loaded and proven (T10), or a last good one that `on_stale = "allow"` starts with (T16).
    loaded: AtomicBool,
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
        Self { bound, heard: AtomicI64::new(i64::MIN), loaded: AtomicBool::new(false), changes: AtomicU64::new(0) }
    }

    /// A heartbeat of this time (Unix milliseconds) counted: everything up to its number is in the index.
    pub fn heard(&self, at: i64) {
        self.heard.fetch_max(at, Ordering::AcqRel);
        self.loaded.store(true, Ordering::Release);
    }

    /// A last good state was read from disk, whose last heartbeat was at this time (T16). It starts a process unready; only
    /// `on_stale = "allow"` serves by it.
    pub fn restored(&self, at: i64) {
        self.heard.fetch_max(at, Ordering::AcqRel);
        if matches!(self.bound, Some((_, OnStale::Allow))) {
            self.loaded.store(true, Ordering::Release);
        }
    }

    /// Whether decisions may be made now.
    #[must_use]
    #[inline]
    pub fn may_decide(&self, now: Timestamp) -> bool {
        match self.bound {
            None => true,
            Some((_, OnStale::Allow)) => self.loaded.load(Ordering::Acquire),
            Some((max, OnStale::Deny)) => {
                self.loaded.load(Ordering::Acquire) && self.staleness(now).is_some_and(|age| age <= max)
            }
        }
    }

    /// How long ago the control plane was last heard; zero for its own truth; `None` if never, or if the last time lies in the
    /// future by this machine's clock (a negative age is infinite, T16).
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Option<Duration> {
        if self.bound.is_none() {
            return Some(Duration::ZERO);
        }
        let heard = self.heard.load(Ordering::Acquire);
        u64::try_from(now.0.checked_mul(1000)?.checked_sub(heard)?).ok().map(Duration::from_millis)
    }

    /// Whether this process follows a control plane and has proven a whole state of it.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.bound.is_none() || self.loaded.load(Ordering::Acquire)
    }

    /// A number that is another one after every turn from fresh to stale (T20).
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
