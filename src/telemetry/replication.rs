//! What the loops that share revocations count.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::shard::lock;

/// Counters of the loops; shown once [`ReplicationMetrics::begin`] was called.
#[derive(Debug, Default)]
pub struct ReplicationMetrics {
    follows: AtomicBool,
    publishes: AtomicBool,
    connected: AtomicBool,
    publisher_connected: AtomicBool,
    /// Milliseconds; `u64::MAX`: never heard.
    staleness: AtomicU64,
    keep_missing: AtomicU64,
    changes: AtomicU64,
    pending: AtomicU64,
    blocked: AtomicBool,
    loads: Mutex<BTreeMap<&'static str, u64>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    rewrites: Mutex<BTreeMap<&'static str, u64>>,
}

/// What there is to show.
#[derive(Debug, Default)]
pub(super) struct ReplicationTotals {
    pub(super) staleness: f64,
    pub(super) keep_missing: u64,
    /// By role.
    pub(super) connected: Vec<(&'static str, bool)>,
    pub(super) follows: bool,
    pub(super) changes: u64,
    pub(super) loads: BTreeMap<&'static str, u64>,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) publishes: bool,
    pub(super) pending: u64,
    pub(super) blocked: bool,
    pub(super) rewrites: BTreeMap<&'static str, u64>,
}

impl ReplicationMetrics {
    /// This process follows through Redis, and perhaps publishes.
    pub fn begin(&self, publishes: bool) {
        self.staleness.store(u64::MAX, Ordering::Relaxed);
        self.publishes.store(publishes, Ordering::Relaxed);
        self.follows.store(true, Ordering::Relaxed);
    }

    /// How long ago the control plane was heard; `None`: never, or nobody knows.
    pub fn set_staleness(&self, staleness: Option<Duration>) {
        let millis = staleness.and_then(|staleness| u64::try_from(staleness.as_millis()).ok());
        self.staleness.store(millis.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// By how many seconds the control plane keeps entries for a shorter time than this process needs them.
    pub fn set_keep_missing(&self, seconds: u64) {
        self.keep_missing.store(seconds, Ordering::Relaxed);
    }

    /// Whether Redis answers who follows.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Whether Redis answers who publishes.
    pub fn set_publisher_connected(&self, connected: bool) {
        self.publisher_connected.store(connected, Ordering::Relaxed);
    }

    /// A change came.
    pub fn change_applied(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The whole state is being read.
    pub fn load_began(&self, cause: &'static str) {
        *lock(&self.loads).entry(cause).or_default() += 1;
    }

    /// A line was not believed. Whether it is the first for this reason, which is worth a message.
    pub fn line_refused(&self, reason: &'static str) -> bool {
        let mut refused = lock(&self.refused);
        let count = refused.entry(reason).or_default();
        *count += 1;
        *count == 1
    }

    /// How many changes of this truth are not published.
    pub fn set_pending(&self, pending: u64) {
        self.pending.store(pending, Ordering::Relaxed);
    }

    /// Whether somebody else's truth is published, so that this one is not.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// State and stream were written anew.
    pub fn rewritten(&self, cause: &'static str) {
        *lock(&self.rewrites).entry(cause).or_default() += 1;
    }

    pub(super) fn totals(&self) -> ReplicationTotals {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let (follows, publishes) = (is(&self.follows), is(&self.publishes));
        let mut connected = Vec::new();
        if follows {
            connected.push(("replica", is(&self.connected)));
        }
        if publishes {
            connected.push(("publisher", is(&self.publisher_connected)));
        }
        let staleness = match self.staleness.load(Ordering::Relaxed) {
            u64::MAX => f64::INFINITY,
            millis => Duration::from_millis(millis).as_secs_f64(),
        };
        ReplicationTotals {
            staleness,
            keep_missing: self.keep_missing.load(Ordering::Relaxed),
            connected,
            follows,
            publishes,
            changes: self.changes.load(Ordering::Relaxed),
            loads: lock(&self.loads).clone(),
            refused: lock(&self.refused).clone(),
            pending: self.pending.load(Ordering::Relaxed),
            blocked: is(&self.blocked),
            rewrites: lock(&self.rewrites).clone(),
        }
    }
}
