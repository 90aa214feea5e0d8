//! What the ledger counts (`doorward_ledger_*`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Bounds, Histogram};

/// 50 µs to 5 s: from a battery-backed cache to a disk that is failing.
pub(super) const SYNC_BOUNDS: Bounds = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// The counts of one ledger.
#[derive(Debug)]
pub struct LedgerMetrics {
    /// Changes that came with a start, were recorded here, or by another process on the same folder.
    changes: AtomicU64,
    segments: AtomicU64,
    records: AtomicU64,
    failures: AtomicU64,
    pub(super) syncs: Histogram,
}

impl Default for LedgerMetrics {
    fn default() -> Self {
        Self {
            changes: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            records: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            syncs: Histogram::new(SYNC_BOUNDS),
        }
    }
}

impl LedgerMetrics {
    /// So many changes were applied.
    pub fn applied(&self, changes: usize) {
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
    }

    /// Changes were written to disk together, in this time.
    pub fn synced(&self, took: Duration) {
        self.syncs.observe(took);
    }

    /// What the folder holds: segments, and records in them and after them.
    pub fn holds(&self, segments: usize, records: u64) {
        self.segments.store(segments as u64, Ordering::Relaxed);
        self.records.store(records, Ordering::Relaxed);
    }

    /// The folder could not be read or written.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn numbers(&self) -> [u64; 4] {
        [&self.changes, &self.segments, &self.records, &self.failures].map(|number| number.load(Ordering::Relaxed))
    }
}
