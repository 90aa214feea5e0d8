//! Somebody else who publishes in this Redis: alive, gone, or not known yet. No I/O here, and no clock.

use std::time::{Duration, Instant};

use crate::replication::Standing;

/// Who has published nothing for this long, by the clock of who has signed it, may be gone.
const DEAD: Duration = Duration::from_secs(5);
/// As long as two heartbeats need, and then some: clocks need not agree for it.
const SILENT: Duration = Duration::from_millis(2_500);

/// What was seen of the other.
#[derive(Debug)]
pub(super) struct Rival {
    head: Standing,
    beats: Vec<String>,
    /// Since when it is as it stands.
    still: Instant,
    /// Whether it ever moved while we looked.
    moved: bool,
    /// What was said of it. Leftovers are worth a line; whoever is alive is worth an error, also if one could not tell at first.
    pub(super) told: Option<Life>,
}

/// Whether the other lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Nothing has moved yet, but not for long enough.
    Unknown,
    /// Something moves. Who signs it does not matter: it may be a key that is not pinned here.
    Alive,
    /// Nothing moves any more.
    Gone,
}

impl Rival {
    pub(super) fn seen_first(head: Standing, beats: Vec<String>, now: Instant) -> Self {
        Self { head, beats, still: now, moved: false, told: None }
    }

    /// One more look. `newest` is how old the newest of its heartbeats is, if there is one that can be believed.
    pub(super) fn look(&mut self, head: &Standing, beats: &[String], newest: Option<Duration>, now: Instant) -> Life {
        if (&self.head, &*self.beats) != (head, beats) {
            (self.head, self.beats) = (head.clone(), beats.to_owned());
            (self.still, self.moved) = (now, true);
        }
        let still = now.saturating_duration_since(self.still);
        // A clock that was ahead keeps nobody alive for ever.
        let is_old = newest.is_none_or(|age| age > DEAD) || still > DEAD + SILENT;
        if is_old && still > SILENT {
            Life::Gone
        } else if self.moved {
            Life::Alive
        } else {
            Life::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_is_alive_and_who_is_silent_for_long_enough_is_gone() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let beats = |n: u64| vec![n.to_string()];
        let absent = Standing::Absent;
        for newest in [None, Some(Duration::from_mins(1))] {
            let mut rival = Rival::seen_first(absent.clone(), beats(1), at(0));
            assert_eq!(rival.look(&absent, &beats(1), newest, at(0)), Life::Unknown);
            assert_eq!(rival.look(&absent, &beats(1), newest, at(2_400)), Life::Unknown);
            assert_eq!(rival.look(&absent, &beats(1), newest, at(2_501)), Life::Gone);
            assert_eq!(rival.look(&absent, &beats(2), newest, at(3_000)), Life::Alive, "whoever has signed it");
            assert_eq!(rival.look(&absent, &beats(2), newest, at(5_000)), Life::Alive);
            assert_eq!(rival.look(&absent, &beats(2), newest, at(5_501)), Life::Gone);
        }
        let mut rival = Rival::seen_first(absent.clone(), beats(1), at(0));
        let young = Some(Duration::ZERO);
        assert_eq!(rival.look(&absent, &beats(1), young, at(3_000)), Life::Unknown, "it may have died just now");
        assert_eq!(rival.look(&absent, &beats(1), young, at(7_501)), Life::Gone, "a clock that is ahead");
    }
}
