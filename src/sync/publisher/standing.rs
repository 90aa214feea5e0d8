//! What stands in Redis, held against the folder. Nothing of it is believed but what is signed, or is byte for byte what the folder has.
//! No I/O here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::ledger::{Recorded, State};
use crate::replication::{News, Standing, StreamEntry};
use crate::revocation::{Change, Entry, FloorOf, Heartbeat, Kind, Manifest, PinnedKeys};
use crate::sync::replica::lines;

/// No clock ever gave a number like this, and there is room above it for all changes to come. A publisher that once believed an unsigned
/// number may have signed one.
const FARTHEST: u64 = 1 << 52;

/// One look at Redis.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) head: Standing,
    /// The manifest as it stands there.
    pub(super) line: String,
    /// What it says, if a pinned key has signed it.
    pub(super) manifest: Option<Manifest>,
    /// Heartbeats as they stand there.
    pub(super) beats: Vec<String>,
    /// Those that a pinned key has signed.
    pub(super) heartbeats: Vec<Heartbeat>,
}

impl Seen {
    pub(super) fn new(pinned: &PinnedKeys, head: Standing, line: String, latest: &News) -> Self {
        let manifest = pinned.open::<Manifest>(Kind::Manifest, &line).ok();
        let beats: Vec<String> = lines(latest).map(str::to_owned).collect();
        let signed = |line: &String| pinned.open::<Heartbeat>(Kind::Heartbeat, line).ok();
        let heartbeats = beats.iter().filter_map(signed).collect();
        Self { head, line, manifest, beats, heartbeats }
    }

    /// The highest epoch that anybody has signed: the next one is above it.
    pub(super) fn epoch(&self) -> u64 {
        let beats = self.heartbeats.iter().map(|heartbeat| heartbeat.epoch);
        let epochs = beats.chain(self.manifest.iter().map(|manifest| manifest.epoch));
        epochs.filter(|epoch| *epoch < FARTHEST).max().unwrap_or(0)
    }

    /// Whether it is this truth that is published, by the head or by a signature.
    pub(super) fn is_of(&self, truth: Uuid) -> bool {
        matches!(&self.head, Standing::Head(head) if head.truth == truth) || self.published(truth).next().is_some()
    }

    /// How old the newest heartbeat of a truth is.
    pub(super) fn newest(&self, truth: Uuid, now: u64) -> Option<Duration> {
        let of_it = self.heartbeats.iter().filter(|heartbeat| heartbeat.truth == truth);
        of_it.map(|heartbeat| Duration::from_millis(now.saturating_sub(heartbeat.at))).min()
    }

    /// Numbers up to which a truth was published, by its own signature.
    pub(super) fn published(&self, truth: Uuid) -> impl Iterator<Item = u64> {
        let beats = self.heartbeats.iter().filter(move |heartbeat| heartbeat.truth == truth);
        let manifest = self.manifest.iter().filter(move |manifest| manifest.truth == truth);
        beats.map(|heartbeat| heartbeat.n).chain(manifest.map(|manifest| manifest.base))
    }
}

/// Signed changes that follow ours, or our signed manifest's `base`, and are not in the folder. A change does not say whose it is: what
/// it follows does.
pub(super) fn strangers(entries: &[StreamEntry], base: u64, folder: &State, pinned: &PinnedKeys) -> Vec<u64> {
    let ours: BTreeSet<&str> = folder.changes.iter().map(|recorded| &*recorded.line).collect();
    let mut strangers: Vec<u64> = Vec::new();
    let lines = entries.iter().filter_map(|entry| entry.line.as_deref());
    for line in lines.filter(|line| !ours.contains(line)) {
        let Ok(change) = pinned.open::<Change>(Kind::Change, line) else { continue };
        // Every truth begins with 0.
        let follows = change.prev != 0
            && ([base, folder.manifest.base].contains(&change.prev)
                || has_change(folder, change.prev)
                || strangers.last() == Some(&change.prev));
        if follows {
            strangers.push(change.n);
        }
    }
    strangers
}

/// The highest of these numbers that the folder has not: what was published under it is lost to it. `own` are numbers that this very
/// process knew: where they went from the folder, the ledger has recorded again what they were (a batch that the disk did not take).
///
/// A later floor over everything has settled it, or what was signed once could be played again for another one.
pub(super) fn lost(numbers: impl IntoIterator<Item = u64>, folder: &State, own: &BTreeSet<u64>) -> Option<u64> {
    let settled = settled(folder);
    let is_lost = |n: &u64| *n < FARTHEST && *n > settled && !has(folder, *n) && !own.contains(n);
    numbers.into_iter().filter(is_lost).max()
}

/// The highest of these numbers of another truth, whose changes this folder never had, unless a later floor over everything settles it, or
/// time does: a number is never below its time, and what was revoked before `over` concerns no token that is still alive. Otherwise
/// whoever plays an old state to Redis could log everybody out by it, again and again (T11).
pub(super) fn unsettled(numbers: impl IntoIterator<Item = u64>, folder: &State, over: u64) -> Option<u64> {
    let settled = settled(folder).max(over);
    numbers.into_iter().filter(|n| *n < FARTHEST && *n > settled).max()
}

/// The numbers of what a pinned key has signed in the stream, whosever it is.
pub(super) fn signed(entries: &[StreamEntry], pinned: &PinnedKeys) -> impl Iterator<Item = u64> {
    let lines = entries.iter().filter_map(|entry| entry.line.as_deref());
    lines.filter_map(|line| pinned.open::<Change>(Kind::Change, line).ok()).map(|change| change.n)
}

/// The last floor over everything.
fn settled(folder: &State) -> u64 {
    let everything = Entry::Floor { of: FloorOf::Everything, issued_until: None };
    let floors = folder.changes.iter().filter(|recorded| recorded.change.entry == everything);
    floors.map(|recorded| recorded.change.n).max().unwrap_or(0).max(folder.everything)
}

/// Whether the folder has everything up to a change of this number: which one is known behind its base only.
pub(super) fn has(folder: &State, n: u64) -> bool {
    n <= folder.manifest.base || has_change(folder, n)
}

fn has_change(folder: &State, n: u64) -> bool {
    folder.changes.binary_search_by_key(&n, |recorded| recorded.change.n).is_ok()
}

/// Whether the entries of the stream behind `from` up to `n` are these changes, all of them and nothing else.
pub(super) fn is_whole(entries: &[StreamEntry], ours: &[Arc<Recorded>], from: u64, n: u64) -> bool {
    let within = |number: u64| number > from && number <= n;
    let entries = entries.iter().filter(|entry| within(entry.id.0));
    let ours = ours.iter().filter(|recorded| within(recorded.change.n));
    let entries = entries.map(|entry| (entry.id, entry.line.as_deref()));
    entries.eq(ours.map(|recorded| ((recorded.change.n, 0), Some(&*recorded.line))))
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
