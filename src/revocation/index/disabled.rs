//! Which subjects are disabled: a state that lasts (T6).

use std::sync::atomic::{AtomicU64, Ordering};

use super::table::Cell;
use crate::clock::Timestamp;

/// Whether a subject is disabled.
///
/// Of numbered changes the newest counts, in whatever order they arrive; that a subject was enabled again is remembered too, so that
/// an older change cannot disable it. What was written by hand has no number and stands beside: the last line counts, and a subject
/// that either says is disabled is disabled.
///
/// One word, so that it is read and written at once: from above the newest number, whether it disables, and whether hands did.
#[derive(Debug, Default)]
pub(super) struct DisabledCell(AtomicU64);

const BY_HAND: u64 = 0b01;
const BY_NUMBER: u64 = 0b10;

impl DisabledCell {
    /// Whether it is.
    pub(super) fn is_disabled(&self) -> bool {
        self.0.load(Ordering::Acquire) & (BY_HAND | BY_NUMBER) != 0
    }

    /// Takes a change in. Its writer is the only one. Returns whether the subject is disabled now.
    pub(super) fn set(&self, number: Option<u64>, disabled: bool) -> bool {
        let word = self.0.load(Ordering::Acquire);
        let said = match number {
            None if disabled => word | BY_HAND,
            None => word & !BY_HAND,
            Some(number) => {
                // Numbers are Unix milliseconds or little above (T2); 62 bits of those last for 100 million years.
                let newest = number.min(u64::MAX >> 2) << 2 | if disabled { BY_NUMBER } else { 0 };
                newest.max(word & !BY_HAND) | word & BY_HAND
            }
        };
        self.0.store(said, Ordering::Release);
        said & (BY_HAND | BY_NUMBER) != 0
    }
}

impl Cell for DisabledCell {
    fn expires_at(&self) -> Option<Timestamp> {
        None
    }

    fn copy_from(&self, other: &Self) {
        self.0.store(other.0.load(Ordering::Acquire), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t06_the_newest_number_counts_and_hands_stand_beside() {
        let state = |changes: &[(Option<u64>, bool)]| {
            let cell = DisabledCell::default();
            changes.iter().for_each(|&(number, disabled)| {
                cell.set(number, disabled);
            });
            cell.is_disabled()
        };
        assert!(!state(&[]));
        assert!(state(&[(Some(3), true)]));
        assert!(!state(&[(Some(3), true), (Some(4), false)]));
        assert!(!state(&[(Some(4), false), (Some(3), true)]), "in whatever order");
        assert!(state(&[(Some(4), false), (Some(5), true), (Some(3), true)]));
        assert!(state(&[(Some(0), true)]));
        assert!(state(&[(Some(u64::MAX), true)]));
        assert!(state(&[(None, true)]));
        assert!(!state(&[(None, true), (None, false)]));
        assert!(state(&[(None, true), (Some(4), false)]), "a change does not strike a line out of a file");
        assert!(state(&[(Some(4), true), (None, false)]), "and no line a change");
    }
}
