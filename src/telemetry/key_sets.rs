//! What is known of an issuer's key set: how old it is, and how it was come by.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a fetch, or a look at a file that had changed, came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFetch {
    /// Other keys than before.
    Changed,
    /// The same keys.
    Unchanged,
    /// No usable set; the old one stays.
    Failed,
}

impl KeyFetch {
    /// Every value.
    pub const ALL: &'static [Self] = &[Self::Changed, Self::Unchanged, Self::Failed];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// The counters of one issuer's key set.
#[derive(Debug)]
pub struct KeySetMetrics {
    /// Unix milliseconds of the last success; `i64::MIN`: none yet.
    confirmed: AtomicI64,
    fetches: [AtomicU64; KeyFetch::ALL.len()],
    unknown_kids: AtomicU64,
    failing: AtomicBool,
}

impl Default for KeySetMetrics {
    fn default() -> Self {
        Self {
            confirmed: AtomicI64::new(i64::MIN),
            fetches: Default::default(),
            unknown_kids: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        }
    }
}

impl KeySetMetrics {
    /// A fetch came to its end.
    pub fn fetched(&self, what: KeyFetch) {
        if let Some(count) = self.fetches.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.failing.store(what == KeyFetch::Failed, Ordering::Relaxed);
        if what != KeyFetch::Failed {
            self.confirm();
        }
    }

    /// The set was just seen to be the issuer's.
    pub fn confirm(&self) {
        self.confirmed.store(now_millis(), Ordering::Relaxed);
    }

    /// A token named a key that the set does not have.
    pub fn unknown_kid(&self) {
        self.unknown_kids.fetch_add(1, Ordering::Relaxed);
    }

    /// How many fetches came to this.
    pub(super) fn fetches(&self, what: KeyFetch) -> u64 {
        self.fetches.get(what as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn unknown_kids(&self) -> u64 {
        self.unknown_kids.load(Ordering::Relaxed)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Seconds since the set was last confirmed; infinite if it never was.
    pub(super) fn age_seconds(&self) -> f64 {
        match self.confirmed.load(Ordering::Relaxed) {
            i64::MIN => f64::INFINITY,
            confirmed => now_millis().saturating_sub(confirmed).max(0) as f64 / 1000.0,
        }
    }
}

fn now_millis() -> i64 {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    i64::try_from(millis).unwrap_or(i64::MAX)
}
