//! Keeping the folder small: a long tail becomes a segment, many segments become few, what is over drops out (T5).
//!
//! Segments are merged as in a log-structured tree: a newer one is merged with the one before it as soon as it is half as large, so
//! that a record is written again a few times in its life, and there are few segments. Those whose records all end drop out whole
//! when their time has come, and are written anew when half of them are over.
//!
//! All that takes time happens before the lock is taken: the tail is appended to meanwhile. Under the lock the manifest is
//! swapped, then the log; a crash between the two leaves changes in the log that are in segments too, and these are passed over.

use std::fmt::Write as _;
use std::sync::Arc;

use super::error::LedgerError;
use super::handle::Recorded;
use super::records::{collapse, over};
use super::segments;
use super::steps::Step;
use super::truth::{Log, Reading, Shared, median};
use crate::clock::Timestamp;
use crate::revocation::{Manifest, Record, SegmentOf};

/// Changes of the tail that become a segment together.
pub(super) const AT_ONCE: usize = 4096;
/// Changes that stay in the tail: who follows and was away for a moment need not read the whole state again.
pub(super) const STAY: usize = 1024;
/// A segment of this size is merged with none: it ends.
const FULL: u64 = 8 << 20;

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// So many changes from the tail's start become records.
    pub(super) changes: usize,
    /// Which segments are written anew, together.
    pub(super) merged: Vec<bool>,
    /// Which are over.
    pub(super) dropped: Vec<bool>,
}

impl Plan {
    pub(super) fn is_nothing(&self) -> bool {
        self.changes == 0 && !self.merged.contains(&true) && !self.dropped.contains(&true)
    }

    /// Sizes that tests make smaller come as arguments.
    pub(super) fn of(
        segments: &[SegmentOf],
        tail: usize,
        (at_once, stay): (usize, usize),
        half_over: impl Fn(&SegmentOf) -> bool,
        now: Timestamp,
    ) -> Self {
        let changes = if tail >= at_once + stay { tail - stay } else { 0 };
        let dropped: Vec<bool> =
            segments.iter().map(|segment| segment.expires_at.is_some_and(|end| end <= now.0)).collect();
        let mut merged: Vec<bool> =
            segments.iter().zip(&dropped).map(|(segment, dropped)| !dropped && half_over(segment)).collect();
        for stands in [true, false] {
            // From the newest on: whatever is at most twice as large as all that is newer goes with it.
            let mut newer = changes as u64;
            for (index, segment) in segments.iter().enumerate().rev() {
                if segment.expires_at.is_none() != stands || dropped[index] {
                    continue;
                }
                // Those that stand and were written together, in several for their size, are as one.
                let with = segments[..index].iter().rev().filter(|older| stands && older.expires_at.is_none());
                let with = with.take_while(|older| older.bytes >= segments::LARGEST as u64);
                let records = segment.records + with.map(|older| older.records).sum::<u64>();
                if merged[index] || (newer > 0 && records <= 2 * newer && (stands || segment.bytes < FULL)) {
                    merged[index] = true;
                    newer += segment.records;
                } else if stands {
                    // Records that stand keep their order: nothing older goes past this one.
                    break;
                }
            }
        }
        Self { changes, merged, dropped }
    }
}

impl Shared {
    /// Does what is due. Whether that was anything.
    pub(super) fn tend(&self, sizes: (usize, usize), now: Timestamp) -> Result<bool, LedgerError> {
        if self.key.is_none() || self.plan(sizes, now).is_none() {
            return Ok(false);
        }
        let Some(_held) = self.folder.try_lock_segments()? else { return Ok(false) };
        self.refresh(&mut self.disk(), Reading::Live)?;
        let Some((manifest, changes, plan)) = self.plan(sizes, now) else { return Ok(false) };

        let taken = &changes[..plan.changes];
        let mut records: Vec<Record> = Vec::new();
        for (segment, _) in manifest.segments.iter().zip(&plan.merged).filter(|(_, merged)| **merged) {
            segments::records(&self.folder, segment, |record| records.push(record))?;
        }
        records.extend(taken.iter().map(|recorded| {
            let change = &recorded.change;
            Record { n: change.n, at: change.at, entry: change.entry.clone() }
        }));
        let records = collapse(records, self.retention, now);
        let written = segments::write(&self.folder, &records, self.retention)?;

        let left = |index: usize| !plan.merged[index] && !plan.dropped[index];
        let kept = manifest.segments.iter().enumerate().filter(|(index, _)| left(*index)).map(|(_, segment)| segment);
        let next = Manifest {
            base: taken.last().map_or(manifest.base, |last| last.change.n),
            segments: kept.chain(&written).cloned().collect(),
            ..Manifest::clone(&manifest)
        };
        let ends = records.iter().filter_map(|record| over(record, self.retention)).collect();
        self.swap(&manifest, next, &written, median(ends))?;
        self.clear_away(&manifest)?;
        Ok(true)
    }

    fn plan(&self, sizes: (usize, usize), now: Timestamp) -> Option<(Arc<Manifest>, Vec<Arc<Recorded>>, Plan)> {
        let known = self.known();
        let manifest = known.manifest.clone()?;
        let half_over = |segment: &SegmentOf| known.half_over.get(&segment.sha256).is_some_and(|half| *half <= now);
        let plan = Plan::of(&manifest.segments, known.changes.len(), sizes, half_over, now);
        (!plan.is_nothing()).then(|| (manifest, known.changes.clone(), plan))
    }

    /// Puts the new manifest in force, and a log without what it holds.
    fn swap(
        &self,
        before: &Arc<Manifest>,
        next: Manifest,
        written: &[SegmentOf],
        half_over: Option<Timestamp>,
    ) -> Result<(), LedgerError> {
        let held = self.folder.lock()?;
        let mut disk = self.disk();
        self.refresh(&mut disk, Reading::Live)?;
        if self.known().manifest.as_ref() != Some(before) {
            let what = "the manifest was replaced while segments were written";
            let mend = "look for what put another folder in its place";
            return Err(self.folder.broken(&self.folder.manifest(), None, what, mend));
        }
        let _writing = self.writing(&mut disk, &held);
        drop(disk);
        self.put_manifest(&next)?;
        let stamp = self.folder.stamp(&self.folder.manifest())?;
        let shortened = next.base != before.base;
        {
            let mut known = self.known_mut();
            known.changes.retain(|recorded| recorded.change.n > next.base);
            known.half_over.retain(|name, _| next.segments.iter().any(|segment| segment.sha256 == *name));
            let ending = written.iter().filter(|segment| segment.expires_at.is_some());
            known.half_over.extend(ending.filter_map(|segment| Some((segment.sha256.clone(), half_over?))));
            known.manifest = Some(Arc::new(next));
            self.metrics.holds(known.manifest.as_ref().map_or(0, |manifest| manifest.segments.len()), known.count());
        }
        self.disk().manifest = stamp;
        if shortened { self.shorten() } else { Ok(()) }
    }

    fn shorten(&self) -> Result<(), LedgerError> {
        let changes = self.known().changes.clone();
        let text = changes.iter().fold(String::new(), |mut text, recorded| {
            let _ = writeln!(text, "{}", recorded.line);
            text
        });
        // Whatever happens from here on, the log is looked at anew.
        self.disk().log = None;
        let path = self.folder.log();
        self.folder.replace(&path, text.as_bytes(), [Step::ShorterLogDrafted, Step::ShorterLogPlaced])?;
        let file = self.folder.open_log()?;
        if let Some(stamp) = self.folder.stamp(&path)? {
            self.disk().log =
                Some(Log { file, id: stamp.file, offset: text.len() as u64, lines: changes.len(), torn: 0 });
        }
        Ok(())
    }

    /// Removes drafts that somebody left who died over them, and segments that neither this manifest nor the one before it names: who
    /// copies the state may still be reading those of the latter. Both locks are needed, or somebody's draft would go.
    fn clear_away(&self, before: &Manifest) -> Result<(), LedgerError> {
        let _held = self.folder.lock()?;
        let now = self.known().manifest.clone();
        let segments = self.folder.segments();
        let named = |name: &str| {
            let in_manifest = |manifest: &Manifest| manifest.segments.iter().any(|segment| &*segment.sha256 == name);
            in_manifest(before) || now.as_deref().is_some_and(in_manifest)
        };
        for folder in [self.folder.path(), &segments] {
            let files = std::fs::read_dir(folder).map_err(LedgerError::io(folder, "it cannot be listed"))?;
            for file in files.filter_map(Result::ok) {
                let name = file.file_name();
                let name = name.to_string_lossy();
                if name.ends_with(".draft") || (folder == segments && !named(&name)) {
                    // It only takes room, and is tried again the next time.
                    let _ = std::fs::remove_file(file.path());
                }
            }
        }
        Ok(())
    }
}
