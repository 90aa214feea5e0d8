//! How many requests an upstream gets at a time, over all workers, and who waits for a place.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::settings::RequestLimits;

/// Counts the requests of one upstream.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Requests in flight.
    in_flight: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

/// Too many are in flight, and too many wait, or no place came free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Gate {
    /// Takes a place, unless others wait for one. Far from the bound that is one addition and a look. Whoever took a place
    /// gives it back by [`Gate::leave`].
    pub(super) fn try_enter(&self, limits: &RequestLimits) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && self.take(limits.requests)
    }

    /// Waits for a place among those who were refused one by [`Gate::try_enter`].
    ///
    /// # Errors
    /// [`Full`] at once if the queue is full, or after `limits.wait`.
    pub(super) async fn wait(&self, limits: &RequestLimits) -> Result<(), Full> {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _queued = Queued(&self.waiting);
        if before >= limits.waiting {
            return Err(Full);
        }
        let until = Instant::now() + limits.wait;
        loop {
            let freed = self.freed.notified();
            if self.take(limits.requests) {
                // Of two places that came free at once only one may have been told of: who got it passes that on.
                if self.waiting.load(Ordering::SeqCst) > 1 && self.in_flight.load(Ordering::SeqCst) < limits.requests {
                    self.freed.notify_one();
                }
                return Ok(());
            }
            if timeout_at(until, freed).await.is_err() {
                return if self.take(limits.requests) { Ok(()) } else { Err(Full) };
            }
        }
    }

    /// Gives a place back.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        // Whoever waits announced himself before he looked for a place, so one of the two sees the other.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    fn take(&self, limit: usize) -> bool {
        let enter = |count: usize| (count < limit).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }
}

/// One of those who wait, until dropped.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn limits(requests: usize, waiting: usize, wait: Duration) -> RequestLimits {
        RequestLimits { requests, waiting, wait }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_number_and_time() {
        let gate = Arc::new(Gate::default());
        let limits = limits(1, 1, Duration::from_millis(500));
        assert!(gate.try_enter(&limits));
        assert!(!gate.try_enter(&limits));
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.wait(&limits).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.wait(&limits).await, Err(Full));
        gate.leave();
        // A place is free, but somebody was there first.
        assert!(!gate.try_enter(&limits));
        assert_eq!(waiting.await.unwrap(), Ok(()));
        let begun = Instant::now();
        assert_eq!(gate.wait(&limits).await, Err(Full));
        assert!(begun.elapsed() >= Duration::from_millis(500));
        gate.leave();
        assert!(gate.try_enter(&limits));
    }

    #[tokio::test]
    async fn two_places_that_came_free_at_once_are_both_taken() {
        let gate = Arc::new(Gate::default());
        let limits = limits(2, 2, Duration::from_mins(1));
        assert!(gate.try_enter(&limits) && gate.try_enter(&limits));
        let tasks = [(); 2].map(|()| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.wait(&limits).await })
        });
        tokio::task::yield_now().await;
        // As two that leave while nobody listens: `Notify` keeps one permit, not two.
        gate.in_flight.fetch_sub(2, Ordering::SeqCst);
        gate.freed.notify_one();
        for task in tasks {
            let entered = tokio::time::timeout(Duration::from_secs(20), task).await;
            assert_eq!(entered.unwrap().unwrap(), Ok(()), "nobody waits beside a free place");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_waits_beside_a_free_place_and_the_bound_holds() {
        let gate = Arc::new(Gate::default());
        let inside = Arc::new(AtomicUsize::new(0));
        let limits = limits(3, 1_000, Duration::from_mins(1));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
                tokio::spawn(async move {
                    for _ in 0..200 {
                        if !gate.try_enter(&limits) {
                            gate.wait(&limits).await.unwrap();
                        }
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        gate.leave();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(gate.in_flight.load(Ordering::SeqCst), 0);
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }
}
