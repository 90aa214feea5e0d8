//! Time as a value. Rooms that decide take a [`Timestamp`]; only the edges read the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The system clock in Unix milliseconds, now; 0 before 1970. Called at the edges only, as [`Timestamp::now`] is.
#[must_use]
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since the Unix epoch (RFC 7519 `NumericDate`, whole seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The system clock, now. Called at the edges only.
    #[must_use]
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// A time of the system clock; one before 1970 is 1970.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// This time, `seconds` later (or earlier, if negative), saturating.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// A clock that jumped ahead is believed once it has gone on from there for so long: a board that starts with the local time, or with
/// none, is set right within minutes.
const BELIEVED_AFTER: Duration = Duration::from_hours(1);
/// What a clock moves between two looks beside the time that has passed, in seconds, is no jump: clocks are adjusted.
const ADJUSTED: i64 = 60;

/// What time it has certainly become: for whatever cannot be taken back once it was done, as forgetting.
///
/// The system clock may be ahead for a moment, at a start or after a step, and is right again. So a time is believed only of a clock that
/// has gone on evenly for an hour, as one sees by another that cannot be set. A clock that goes back is believed at once.
#[derive(Debug, Default)]
pub struct Settled {
    believed: Option<(Timestamp, Instant)>,
    /// Where the clock jumped to.
    on_trial: Option<(Timestamp, Instant)>,
}

impl Settled {
    /// The time that has certainly come, where the system clock says `wall` at the moment `at`; before all times as long as no time is
    /// believed. To be asked every few seconds.
    pub fn time(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let continued = |(time, then): (Timestamp, Instant)| {
            time.plus(i64::try_from(at.saturating_duration_since(then).as_secs()).unwrap_or(i64::MAX))
        };
        match (self.believed, self.on_trial) {
            (Some(believed), _) if wall <= continued(believed).plus(ADJUSTED) => *self = Self::believing(wall, at),
            (_, Some(trial)) if wall.0.abs_diff(continued(trial).0) <= ADJUSTED.unsigned_abs() => {
                if at.saturating_duration_since(trial.1) >= BELIEVED_AFTER {
                    *self = Self::believing(wall, at);
                }
            }
            _ => self.on_trial = Some((wall, at)),
        }
        self.believed.map_or(Timestamp(i64::MIN), continued)
    }

    const fn believing(wall: Timestamp, at: Instant) -> Self {
        Self { believed: Some((wall, at)), on_trial: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const NONE: Timestamp = Timestamp(i64::MIN);

    /// What is believed after each of these: seconds since the start, and by how much the clock is ahead then.
    fn believed(looks: impl IntoIterator<Item = (u64, i64)>) -> Vec<i64> {
        let (mut settled, start) = (Settled::default(), Instant::now());
        let mut look = |(passed, ahead): (u64, i64)| {
            let wall = Timestamp(NOW + i64::try_from(passed).unwrap_or(0) + ahead);
            let time = settled.time(wall, start + Duration::from_secs(passed));
            if time == NONE { i64::MIN } else { time.0 - NOW }
        };
        looks.into_iter().map(&mut look).collect()
    }

    #[test]
    fn t05_a_time_is_believed_of_a_clock_that_went_on_evenly() {
        assert_eq!(believed([(0, 0), (5, 0), (3599, 2), (3600, 2), (3605, 2)])[2..], [i64::MIN, 3602, 3607]);
        // It was ahead at the start, and was set right: the hour begins anew.
        assert_eq!(
            believed([(0, 7200), (12, 7200), (20, 0), (3612, 0), (3620, 0)]),
            [i64::MIN, i64::MIN, i64::MIN, i64::MIN, 3620]
        );
        // It was behind at the start.
        assert_eq!(believed([(0, -NOW), (12, -NOW), (20, 0), (3620, 0)])[3], 3620);
    }

    #[test]
    fn t05_a_jump_ahead_is_not_believed_for_an_hour_and_one_back_is_at_once() {
        let steps = [(0, 0), (3600, 0), (3605, 100_000), (7000, 100_000), (7005, 0), (7010, -500), (7015, -500)];
        assert_eq!(believed(steps)[1..], [3600, 3605, 7000, 7005, 6510, 6515]);
        let stays = [(0, 0), (3600, 0), (3605, 100_000), (7204, 100_000), (7205, 100_000)];
        assert_eq!(believed(stays)[2..], [3605, 7204, 107_205]);
    }
}
