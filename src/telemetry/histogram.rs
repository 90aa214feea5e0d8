//! A histogram of durations that costs three relaxed additions per observation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most bounds a histogram may have; one more bucket holds what lies above the last bound.
pub const MAX_BOUNDS: usize = 15;

/// Upper bounds of the buckets in nanoseconds, ascending, at most [`MAX_BOUNDS`] of them.
pub type Bounds = &'static [u64];

/// Durations counted in buckets. One thread writes, the scrape reads.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    buckets: [AtomicU64; MAX_BOUNDS + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// An empty histogram with these bounds; bounds beyond [`MAX_BOUNDS`] are left out.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds: bounds.get(..MAX_BOUNDS).unwrap_or(bounds),
            buckets: [const { AtomicU64::new(0) }; MAX_BOUNDS + 1],
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Counts one duration. A duration equal to a bound belongs to its bucket (Prometheus' `le`).
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let index = self.bounds.iter().position(|bound| nanos <= *bound).unwrap_or(self.bounds.len());
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many durations were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Adds what was observed here to `total`, which must have the same bounds.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        total.sum_nanos = total.sum_nanos.wrapping_add(self.sum_nanos.load(Ordering::Relaxed));
    }
}

/// The sum of several histograms with the same bounds, as one scrape sees them.
#[derive(Debug, Clone)]
pub struct HistogramTotal {
    bounds: Bounds,
    buckets: [u64; MAX_BOUNDS + 1],
    sum_nanos: u64,
}

impl HistogramTotal {
    /// Nothing observed yet.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, buckets: [0; MAX_BOUNDS + 1], sum_nanos: 0 }
    }

    /// How many durations were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the durations, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_nanos).as_secs_f64()
    }

    /// Each bound in seconds with the number of durations up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        self.bounds.iter().zip(&self.buckets).map(move |(bound, count)| {
            below += count;
            // Parsed from nanoseconds as a decimal, so that 1 ms is written 0.001 and not 0.0010000000000000002.
            (Duration::from_nanos(*bound).as_secs_f64(), below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_the_rest_lies_above() {
        let histogram = Histogram::new(&[1_000, 1_000_000]);
        for nanos in [0, 1_000, 1_001, 1_000_000, 1_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let mut total = HistogramTotal::new(&[1_000, 1_000_000]);
        histogram.add_to(&mut total);
        histogram.add_to(&mut total);
        assert_eq!(total.cumulative().collect::<Vec<_>>(), [(0.000_001, 4), (0.001, 8)]);
        assert_eq!(total.count(), 10);
        assert!((total.sum_seconds() - 0.004_004_004).abs() < 1e-12);
    }
}
