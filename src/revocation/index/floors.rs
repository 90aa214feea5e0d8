//! Floors: what was issued below them is refused.
//!
//! A token says by `uv` as of which change its claims are true, and is held against the number of a floor. One that says none is
//! held by its `iat` against the time at which the floor was taken. A floor that names a time (`issued_until`) is held against the
//! `iat` of every token. Of several floors the highest counts that has not expired: all kinds of them are looked at, never one
//! instead of another (T3).

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use std::sync::Arc;

use super::table::Cell;
use crate::clock::Timestamp;

/// All floors of one kind and id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Floor {
    /// Change numbers: `uv` below them is refused.
    numbers: Marks,
    /// When those changes were made: `iat` up to them is refused where there is no `uv`.
    taken: Marks,
    /// `iat` up to them is refused.
    issued_until: Marks,
}

/// Where a floor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Height {
    /// At a change.
    Number {
        /// Its number.
        number: u64,
        /// When it was made.
        taken: Timestamp,
    },
    /// At a time.
    IssuedUntil(Timestamp),
}

/// How high a token stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issued {
    /// `uv`, if it is believed.
    pub(super) uv: Option<u64>,
    /// `iat`, less what the issuer's clock may be ahead (T14).
    pub(super) at: i64,
}

/// Heights, falling, each kept longer than those above it: whatever time it is, the first that has not expired is the highest.
/// One, nearly always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marks(SmallVec<[(i64, i64); 1]>);

impl Marks {
    fn add(&mut self, height: i64, expires_at: i64) {
        if self.0.iter().any(|&(other, end)| other >= height && end >= expires_at) {
            return;
        }
        self.0.retain(|&mut (other, end)| other > height || end > expires_at);
        let at = self.0.partition_point(|&(other, _)| other > height);
        self.0.insert(at, (height, expires_at));
    }

    fn highest(&self, now: Timestamp) -> Option<i64> {
        self.0.iter().find(|(_, end)| now.0 < *end).map(|(height, _)| *height)
    }

    fn expires_at(&self) -> Option<i64> {
        self.0.last().map(|(_, end)| *end)
    }
}

impl Floor {
    /// This and one more.
    pub(super) fn and(mut self, height: Height, expires_at: Timestamp) -> Self {
        match height {
            Height::Number { number, taken } => {
                self.numbers.add(comparable(number), expires_at.0);
                self.taken.add(taken.0, expires_at.0);
            }
            Height::IssuedUntil(time) => self.issued_until.add(time.0, expires_at.0),
        }
        self
    }

    /// Whether a token lies below.
    pub(super) fn refuses(&self, issued: Issued, now: Timestamp) -> bool {
        let by_change = match issued.uv {
            Some(uv) => self.numbers.highest(now).is_some_and(|number| comparable(uv) < number),
            None => self.taken.highest(now).is_some_and(|taken| issued.at <= taken),
        };
        by_change || self.issued_until.highest(now).is_some_and(|time| issued.at <= time)
    }

    fn expires_at(&self) -> Timestamp {
        let ends = [&self.numbers, &self.taken, &self.issued_until].map(Marks::expires_at);
        Timestamp(ends.into_iter().flatten().max().unwrap_or(i64::MIN))
    }
}

/// A change number in the order of `i64`, without losing one: `uv` is any that a token of doorward's own may carry.
fn comparable(number: u64) -> i64 {
    (number ^ 1 << 63).cast_signed()
}

/// The floors of one id, exchanged whole.
pub(super) type FloorCell = ArcSwapOption<Floor>;

/// Adds a floor. Its writer is the only one.
pub(super) fn raise(cell: &FloorCell, height: Height, expires_at: Timestamp) {
    let floor = cell.load().as_deref().cloned().unwrap_or_default();
    cell.store(Some(Arc::new(floor.and(height, expires_at))));
}

/// Whether a token lies below what the cell holds.
pub(super) fn refuses(cell: &FloorCell, issued: Issued, now: Timestamp) -> bool {
    cell.load().as_ref().is_some_and(|floor| floor.refuses(issued, now))
}

impl Cell for FloorCell {
    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.load().as_ref().map_or(Timestamp(i64::MIN), |floor| floor.expires_at()))
    }

    fn copy_from(&self, other: &Self) {
        self.store(other.load_full());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t03_the_highest_floor_counts_as_long_as_it_is_kept_and_then_the_next() {
        let at = |number| Height::Number { number, taken: Timestamp(0) };
        let uv = |uv| Issued { uv: Some(uv), at: 1000 };
        for order in [[(5, 300), (9, 200), (7, 100)], [(7, 100), (9, 200), (5, 300)], [(9, 200), (5, 300), (7, 100)]] {
            let floor = order.iter().fold(Floor::default(), |floor, &(n, end)| floor.and(at(n), Timestamp(end)));
            for (now, below) in [(0, 9), (150, 9), (200, 5), (299, 5)] {
                assert!(floor.refuses(uv(below - 1), Timestamp(now)), "{order:?} {now}");
                assert!(!floor.refuses(uv(below), Timestamp(now)), "{order:?} {now}");
            }
            assert!(!floor.refuses(uv(0), Timestamp(300)));
            assert_eq!(floor.expires_at(), Timestamp(300));
        }
    }

    #[test]
    fn numbers_are_compared_over_their_whole_range() {
        let floor = Floor::default().and(Height::Number { number: 1 << 63, taken: Timestamp(0) }, Timestamp(100));
        for (uv, refused) in [(0, true), ((1 << 63) - 1, true), (1 << 63, false), (u64::MAX, false)] {
            assert_eq!(floor.refuses(Issued { uv: Some(uv), at: 1 }, Timestamp(0)), refused, "{uv}");
        }
    }
}
