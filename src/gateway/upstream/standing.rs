//! Whether an endpoint is asked, as a pure state machine: every result and every time is told to it.
//!
//! Failures in a row eject an endpoint for a time that doubles with each ejection. When that is over, a connection is tried
//! beside requests; once one is made the endpoint returns, gets a growing share of requests, and is ejected again by its first
//! failure. Only what began after the last change counts: a request that had been waiting on a dead process says nothing of the
//! one that took its place.

use std::time::{Duration, Instant};

use super::settings::{EjectionSettings, HealthSettings};

/// The whole share; a returning endpoint has less of it.
pub(super) const WHOLE: u32 = 256;
/// The share that a returning endpoint begins with.
const LEAST: u32 = WHOLE / 10;

/// What is thought of an endpoint.
#[derive(Debug)]
pub(super) struct Standing {
    phase: Phase,
    /// When the phase began; what began before says nothing of it.
    since: Option<Instant>,
    failures: u32,
    /// Ejections since it was last whole.
    ejections: u32,
    /// Active checks: in a row against what is thought, and whether they say that it is out.
    against: u32,
    out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Trusted,
    Ejected { until: Instant },
    Returning,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is left alone for this long at least.
    Ejected(Duration),
    /// It gets requests again.
    Returned,
    /// Active checks found it unhealthy.
    Unhealthy,
    /// Active checks found it healthy again.
    Healthy,
}

impl Standing {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Trusted, since: None, failures: 0, ejections: 0, against: 0, out: false }
    }

    /// A request that began at `begun` failed by the endpoint's fault.
    pub(super) fn failed(&mut self, begun: Instant, now: Instant, settings: &EjectionSettings) -> Option<Change> {
        if self.since.is_some_and(|since| begun < since) {
            return None;
        }
        match self.phase {
            Phase::Ejected { .. } => None,
            Phase::Returning => Some(self.eject(now, settings)),
            Phase::Trusted => {
                self.failures = self.failures.saturating_add(1);
                (self.failures >= settings.failures).then(|| self.eject(now, settings))
            }
        }
    }

    /// A request that began at `begun` was answered.
    pub(super) fn succeeded(&mut self, begun: Instant, now: Instant, settings: &EjectionSettings) -> Option<Change> {
        if self.since.is_some_and(|since| begun < since) {
            return None;
        }
        self.failures = 0;
        match self.phase {
            Phase::Trusted => None,
            // Nothing else was left to ask, so it was asked all the same.
            Phase::Ejected { .. } => Some(self.return_at(now)),
            Phase::Returning => {
                if self.share(now, settings) >= WHOLE {
                    (self.phase, self.ejections) = (Phase::Trusted, 0);
                }
                None
            }
        }
    }

    /// Whether a connection should be tried.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Ejected { until } if now >= until)
    }

    /// A connection was tried.
    pub(super) fn probed(&mut self, good: bool, now: Instant, settings: &EjectionSettings) -> Option<Change> {
        if !self.is_probe_due(now) {
            return None;
        }
        if good {
            return Some(self.return_at(now));
        }
        self.eject(now, settings);
        None
    }

    /// An active check ended. Who passes again gets a growing share, as after an ejection.
    pub(super) fn checked(&mut self, good: bool, now: Instant, settings: &HealthSettings) -> Option<Change> {
        if good != self.out {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if self.out { settings.healthy } else { settings.unhealthy } {
            return None;
        }
        self.against = 0;
        self.out = !self.out;
        if self.out {
            return Some(Change::Unhealthy);
        }
        if self.phase == Phase::Trusted {
            self.return_at(now);
        }
        Some(Change::Healthy)
    }

    /// Active checks were switched off.
    pub(super) fn unchecked(&mut self) {
        (self.against, self.out) = (0, false);
    }

    /// How much of its share it gets: nothing while it is left alone, [`WHOLE`] in good times.
    pub(super) fn share(&self, now: Instant, settings: &EjectionSettings) -> u32 {
        match (self.phase, self.since) {
            _ if self.out => 0,
            (Phase::Trusted, _) => WHOLE,
            (Phase::Ejected { .. }, _) => 0,
            (Phase::Returning, since) => {
                let past = since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
                let part = past.as_secs_f64() / settings.slow_start.as_secs_f64().max(f64::MIN_POSITIVE);
                // Between 0 and 1, so the number fits.
                LEAST.max((part.min(1.0) * f64::from(WHOLE)) as u32)
            }
        }
    }

    /// Whether nothing speaks against it.
    pub(super) fn is_untroubled(&self) -> bool {
        self.phase == Phase::Trusted && self.failures == 0 && !self.out
    }

    /// Whether it is asked as a rule.
    pub(super) fn is_healthy(&self) -> bool {
        !self.out && !matches!(self.phase, Phase::Ejected { .. })
    }

    fn eject(&mut self, now: Instant, settings: &EjectionSettings) -> Change {
        let time = settings.base.saturating_mul(1_u32 << self.ejections.min(20)).min(settings.max.max(settings.base));
        self.ejections += 1;
        self.failures = 0;
        self.since = Some(now);
        self.phase = Phase::Ejected { until: now + time };
        Change::Ejected(time)
    }

    fn return_at(&mut self, now: Instant) -> Change {
        self.since = Some(now);
        self.phase = Phase::Returning;
        Change::Returned
    }
}

#[cfg(test)]
#[expect(clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> EjectionSettings {
        EjectionSettings { failures: 3, base: SECOND, max: 4 * SECOND, slow_start: 10 * SECOND, server_errors: false }
    }

    /// An endpoint that was just ejected.
    fn ejected(at: Instant) -> Standing {
        let mut standing = Standing::new();
        let results = [0; 3].map(|_| standing.failed(at, at, &settings()));
        assert_eq!(results, [None, None, Some(Change::Ejected(SECOND))]);
        standing
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_forgives() {
        let now = Instant::now();
        let mut standing = Standing::new();
        for _ in 0..2 {
            assert_eq!(standing.failed(now, now, &settings()), None);
            assert_eq!(standing.failed(now, now, &settings()), None);
            assert!(!standing.is_untroubled() && standing.is_healthy());
            assert_eq!(standing.succeeded(now, now, &settings()), None);
            assert!(standing.is_untroubled());
        }
        let standing = ejected(now);
        assert!(!standing.is_healthy());
        assert_eq!(standing.share(now, &settings()), 0);
    }

    #[test]
    fn the_time_alone_doubles_up_to_its_bound_and_is_short_again_after_good_times() {
        let mut now = Instant::now();
        let mut standing = ejected(now);
        for seconds in [1, 2, 4, 4, 4] {
            assert!(!standing.is_probe_due(now + seconds * SECOND - Duration::from_millis(1)));
            now += seconds * SECOND;
            assert!(standing.is_probe_due(now));
            assert_eq!(standing.probed(false, now, &settings()), None);
        }
        now += 4 * SECOND;
        assert_eq!(standing.probed(true, now, &settings()), Some(Change::Returned));
        // Its first failure ejects it again, for as long as before.
        assert_eq!(standing.failed(now, now, &settings()), Some(Change::Ejected(4 * SECOND)));
        now += 4 * SECOND;
        assert_eq!(standing.probed(true, now, &settings()), Some(Change::Returned));
        assert_eq!(standing.succeeded(now, now + 10 * SECOND, &settings()), None);
        assert!(standing.is_untroubled());
        now += 20 * SECOND;
        assert_eq!(standing.failed(now, now, &settings()), None);
        assert_eq!(standing.failed(now, now, &settings()), None);
        assert_eq!(standing.failed(now, now, &settings()), Some(Change::Ejected(SECOND)));
    }

    #[test]
    fn a_returning_endpoint_gets_a_growing_share() {
        let now = Instant::now();
        let mut standing = ejected(now);
        let back = now + SECOND;
        assert_eq!(standing.probed(true, back, &settings()), Some(Change::Returned));
        let shares = [0, 5, 10, 60].map(|seconds| standing.share(back + seconds * SECOND, &settings()));
        assert_eq!(shares, [LEAST, WHOLE / 2, WHOLE, WHOLE]);
        let none = EjectionSettings { slow_start: Duration::ZERO, ..settings() };
        assert_eq!(standing.share(back + Duration::from_nanos(1), &none), WHOLE);
    }

    #[test]
    fn what_began_before_the_last_change_says_nothing_of_it() {
        let now = Instant::now();
        let mut standing = ejected(now);
        let before = now - SECOND;
        assert_eq!(standing.succeeded(before, now, &settings()), None);
        assert!(!standing.is_healthy());
        // Asked although it was ejected, because nothing else was there: its answer brings it back.
        let after = now + Duration::from_millis(1);
        assert_eq!(standing.succeeded(after, after, &settings()), Some(Change::Returned));
        assert_eq!(standing.failed(before, after, &settings()), None);
        assert!(standing.is_healthy());
    }

    #[test]
    fn active_checks_need_several_in_a_row_both_ways() {
        let health = HealthSettings { path: "/".into(), interval: SECOND, timeout: SECOND, healthy: 2, unhealthy: 3 };
        let now = Instant::now();
        let mut standing = Standing::new();
        let mut told = Vec::new();
        for good in [false, false, true, false, false, false, false, true, false, true, true, true] {
            told.push(standing.checked(good, now, &health));
        }
        let changes: Vec<_> = told.iter().enumerate().filter_map(|(at, change)| Some((at, (*change)?))).collect();
        assert_eq!(changes, [(5, Change::Unhealthy), (10, Change::Healthy)]);
        let shares = [0, 5, 10].map(|seconds| standing.share(now + seconds * SECOND, &settings()));
        assert_eq!(shares, [LEAST, WHOLE / 2, WHOLE]);
        for _ in 0..3 {
            standing.checked(false, now, &health);
        }
        assert_eq!(standing.share(now, &settings()), 0);
        standing.unchecked();
        assert!(standing.share(now, &settings()) > 0);
    }

    #[test]
    fn the_numbers_do_not_run_over() {
        let mut now = Instant::now();
        let mut standing = ejected(now);
        for _ in 0..100 {
            now += 30 * SECOND;
            assert!(standing.probed(false, now, &settings()).is_none());
        }
        let Phase::Ejected { until } = standing.phase else { panic!("{standing:?}") };
        assert_eq!(until, now + 4 * SECOND);
    }
}
