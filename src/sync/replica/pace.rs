//! What a follower does, or says, no more often than it helps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a state is read again only because its manifest is an older one, or the last good state lacks a segment.
const TIDY: Duration = Duration::from_secs(10);
/// How seldom a segment is fetched again, at last, that the disk does not take.
const LONGEST: Duration = Duration::from_mins(10);
/// Publishers that differ take turns within this time.
const MINUTE: Duration = Duration::from_mins(1);

/// When a state is read again though nothing of it is missing in the index.
#[derive(Debug)]
pub struct Tidying {
    read: Option<Instant>,
    fetched: Option<Instant>,
    pause: Duration,
}

impl Default for Tidying {
    fn default() -> Self {
        Self { read: None, fetched: None, pause: TIDY }
    }
}

impl Tidying {
    /// Whether the state may be read for it.
    pub(super) fn may_read(&self, now: Instant) -> bool {
        self.read.is_none_or(|at| now.saturating_duration_since(at) >= TIDY)
    }

    /// It is read.
    pub(super) fn reads(&mut self, now: Instant) {
        self.read = Some(now);
    }

    /// Whether segments that the disk lacks may be fetched again, which is taken for done: after the next one twice as long passes.
    pub(super) fn may_fetch(&mut self, now: Instant) -> bool {
        if !self.may_read(now) || self.fetched.is_some_and(|at| now.saturating_duration_since(at) < self.pause) {
            return false;
        }
        if self.fetched.replace(now).is_some() {
            self.pause = (self.pause * 2).min(LONGEST);
        }
        true
    }

    /// The disk lacks nothing.
    pub(super) fn is_written(&mut self) {
        (self.fetched, self.pause) = (None, TIDY);
    }
}

/// By how many seconds the control plane keeps entries too short: as the last minute's heartbeats say, which may be of several publishers
/// that do not keep them for the same time.
#[derive(Debug, Default)]
pub struct Keeping {
    said: u64,
    /// What is larger than everything that was heard after it, oldest first.
    heard: VecDeque<(Instant, u64)>,
}

impl Keeping {
    /// Takes what a heartbeat says; gives the largest of the last minute where it is another one than before.
    pub(super) fn hear(&mut self, missing: u64, now: Instant) -> Option<u64> {
        while self.heard.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= MINUTE).is_some() {}
        while self.heard.pop_back_if(|(_, less)| *less <= missing).is_some() {}
        self.heard.push_back((now, missing));
        let largest = self.heard.front().map_or(missing, |(_, largest)| *largest);
        (std::mem::replace(&mut self.said, largest) != largest).then_some(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t16_what_the_disk_does_not_take_is_fetched_more_and_more_seldom_until_it_takes_it() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut tidying = Tidying::default();
        let fetched = |tidying: &mut Tidying, from: u64| {
            (from..from + 3_000)
                .filter(|second| tidying.may_fetch(at(*second)))
                .map(|second| second - from)
                .collect::<Vec<_>>()
        };
        assert_eq!(fetched(&mut tidying, 0), [0, 10, 30, 70, 150, 310, 630, 1_230, 1_830, 2_430]);
        assert!(!tidying.may_fetch(at(3_000)));
        tidying.is_written();
        assert_eq!(fetched(&mut tidying, 3_000)[..4], [0, 10, 30, 70]);
    }

    #[test]
    fn a_segment_is_not_let_go_while_the_state_may_not_be_read() {
        let begun = Instant::now();
        let mut tidying = Tidying::default();
        tidying.reads(begun);
        assert!(!tidying.may_fetch(begun + Duration::from_secs(9)));
        assert!(tidying.may_fetch(begun + TIDY));
    }

    #[test]
    fn t05_publishers_that_differ_are_told_of_once_and_it_is_well_again_a_minute_after_the_last_one() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut keeping = Keeping::default();
        assert_eq!(keeping.hear(0, at(0)), None);
        assert_eq!(keeping.hear(60, at(1)), Some(60));
        for second in 2..300 {
            assert_eq!(keeping.hear(if second % 2 == 0 { 0 } else { 60 }, at(second)), None);
        }
        assert_eq!(keeping.hear(90, at(300)), Some(90));
        assert_eq!(keeping.hear(30, at(310)), None);
        assert_eq!(keeping.hear(0, at(359)), None);
        assert_eq!(keeping.hear(0, at(360)), Some(30), "the largest of those that are left");
        assert_eq!(keeping.hear(0, at(370)), Some(0));
        assert_eq!(keeping.hear(0, at(371)), None);
    }
}
