//! What the callers, the writer's thread and the follower share: what is known, and how far the folder was read.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::LedgerError;
use super::folder::{Folder, Lock, Stamp};
use super::handle::{Looked, Published, Recorded};
use super::lines::{self, Lines, Unread};
use super::records::{over, overtakes, seconds};
use super::segments;
use super::steps::Step;
use crate::clock::{Timestamp, unix_millis};
use crate::revocation::{
    Arrival, Change, Entry, FloorOf, Kind, Manifest, PinnedKeys, PublicationKey, Retention, RevocationIndex,
};
use crate::telemetry::LedgerMetrics;

/// How often the folder is read again because it was swapped meanwhile.
const TRIES: usize = 16;
/// What was lost and is older than this was acknowledged and published: the folder was put back to an older state. What is younger
/// may be a batch that its writer took back, because the disk did not take it.
const TAKEN_BACK_WITHIN: Duration = Duration::from_mins(1);
/// By so much the clock may be behind the last change for that one's time to count.
const CLOCK_BEHIND: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: Folder,
    pub(super) key: Option<PublicationKey>,
    pub(super) pinned: PinnedKeys,
    pub(super) retention: Retention,
    pub(super) index: Arc<RevocationIndex>,
    pub(super) mode: Published,
    pub(super) metrics: Arc<LedgerMetrics>,
    /// How far the folder was read. Whoever holds it reads the folder, and waits neither for another process nor until something is on
    /// disk: who follows would wait with them, and everybody who hears of this process would turn stale. So the folder's lock is
    /// always taken before this one.
    pub(super) disk: Mutex<Disk>,
    /// Told when this process has written.
    pub(super) written: Condvar,
    /// Held for a moment only.
    pub(super) known: RwLock<Known>,
    pub(super) last: watch::Sender<u64>,
    pub(super) published: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) manifest: Option<Arc<Manifest>>,
    /// Every change after the manifest's base.
    pub(super) changes: Vec<Arc<Recorded>>,
    /// The last floor over everything, wherever it stands by now.
    pub(super) everything: u64,
    /// When half of a segment's records are over, by its name, where this process has read or written it.
    pub(super) half_over: HashMap<Box<str>, Timestamp>,
}

impl Known {
    pub(super) fn last(&self) -> u64 {
        let base = self.manifest.as_ref().map_or(0, |manifest| manifest.base);
        self.changes.last().map_or(base, |recorded| recorded.change.n)
    }

    pub(super) fn count(&self) -> u64 {
        let records = |manifest: &Arc<Manifest>| manifest.segments.iter().map(|segment| segment.records).sum::<u64>();
        self.manifest.as_ref().map_or(0, records) + self.changes.len() as u64
    }
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) manifest: Option<Stamp>,
    pub(super) log: Option<Log>,
    /// The highest number that was ever seen, in a state of the folder that is lost perhaps.
    seen: u64,
    /// What was known and is not in the folder any more, under its number: recorded again with the next commit.
    pub(super) lost: Vec<(u64, Entry)>,
    /// Whether this process is writing just now ([`Writing`]).
    pub(super) writing: bool,
}

/// Held while this process waits for the disk, under the folder's lock, having read all that others recorded. Until it is done nobody
/// can record, so there is nothing to follow; and what is not on disk yet must not be read, for it may be taken back.
pub(super) struct Writing<'s>(&'s Shared);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.disk().writing = false;
        self.0.written.notify_all();
    }
}

/// The log as far as it was read.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: File,
    pub(super) id: (u64, u64),
    pub(super) offset: u64,
    pub(super) lines: usize,
    /// Bytes behind the last line end.
    pub(super) torn: u64,
}

/// Whether entries are kept from now on, or from when they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    AtStart,
    Live,
}

enum Look {
    Settled(bool),
    Again,
}

impl Shared {
    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the whole folder.
    pub(super) fn open(&self) -> Result<(), LedgerError> {
        {
            let mut disk = self.disk();
            self.refresh(&mut disk, Reading::AtStart)?;
            if self.key.is_none() || disk.log.as_ref().is_none_or(|log| log.torn == 0) {
                return Ok(());
            }
        }
        // Reading passes over it, so a folder that cannot be written is no reason not to start.
        if let Err(error) = self.mend() {
            tracing::warn!(%error, "half a line is left in the log until it can be written");
        }
        Ok(())
    }

    /// Cuts off half a line; a writer may be at it just now, but under the lock there is none.
    fn mend(&self) -> Result<(), LedgerError> {
        let _held = self.folder.lock()?;
        let mut disk = self.disk();
        self.refresh(&mut disk, Reading::AtStart)?;
        let path = self.folder.log();
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(LedgerError::io(&path, "it cannot be opened for writing"))?;
        disk.log.as_mut().map_or(Ok(()), |log| self.cut_torn(log, &file))
    }

    /// The folder's lock is held, and everything was read that is in the folder.
    pub(super) fn writing(&self, disk: &mut Disk, _held: &Lock) -> Writing<'_> {
        disk.writing = true;
        Writing(self)
    }

    /// Reads and applies what the folder holds beyond what is known.
    pub(super) fn refresh(&self, disk: &mut Disk, reading: Reading) -> Result<Looked, LedgerError> {
        if disk.writing {
            return Ok(Looked::Writing);
        }
        let mut news = false;
        for _ in 0..TRIES {
            match self.look(disk, reading)? {
                Look::Settled(more) => return Ok(if news || more { Looked::News } else { Looked::Nothing }),
                Look::Again => news = true,
            }
        }
        let mend = "look for what keeps on replacing its files";
        Err(self.folder.broken(self.folder.path(), None, "it changes faster than it can be read", mend))
    }

    fn look(&self, disk: &mut Disk, reading: Reading) -> Result<Look, LedgerError> {
        let path = self.folder.manifest();
        let Some(stamp) = self.folder.stamp(&path)? else {
            return self.without_manifest(disk).map(|()| Look::Settled(false));
        };
        let mut news = false;
        // The log is read from its start with another manifest: which changes count depends on its base.
        if disk.manifest != Some(stamp) {
            match self.take_manifest(disk, reading) {
                // A segment that this manifest names went with the next one.
                Err(_) if self.folder.stamp(&path)? != Some(stamp) => return Ok(Look::Again),
                taken => taken?,
            }
            disk.manifest = Some(stamp);
            disk.log = None;
            news = true;
        }
        let Some(id) = self.folder.stamp(&self.folder.log())?.map(|stamp| stamp.file) else {
            // Between a manifest and its log there is always one.
            return if self.folder.stamp(&path)? == Some(stamp) {
                self.folder.read(&self.folder.log()).map(|_| Look::Again)
            } else {
                Ok(Look::Again)
            };
        };
        let log = match &mut disk.log {
            Some(log) if log.id == id => log,
            log => log.insert(Log { file: self.folder.open_log()?, id, offset: 0, lines: 0, torn: 0 }),
        };
        let bytes = read_from(log).map_err(LedgerError::io(&self.folder.log(), "it cannot be read"))?;
        let whole = log.offset == 0;
        let read = match bytes {
            // It is shorter than it was: cut, or put back.
            None => None,
            Some(bytes) if whole => Some(self.read_whole(&bytes)),
            Some(bytes) => Some(self.read_on(&bytes, log.lines)),
        };
        match read {
            Some(Ok(lines)) => {
                log.offset += lines.bytes;
                (log.lines, log.torn) = (lines.count, lines.torn);
                news |=
                    if whole { self.relearn(disk, lines.changes, reading) } else { self.learn(lines.changes, reading) };
            }
            unread => {
                let swapped = self.folder.stamp(&path)? != Some(stamp);
                disk.log = None;
                match unread {
                    // What does not fit where it was read on is read from the start, and is wrong only if it is wrong then.
                    Some(Err(unread)) if whole && !swapped => return Err(self.unreadable(unread)),
                    _ => return Ok(Look::Again),
                }
            }
        }
        // A manifest that came after the log was opened may have taken changes out of it that were not read.
        if self.folder.stamp(&path)? != Some(stamp) { Ok(Look::Again) } else { Ok(Look::Settled(news)) }
    }

    /// A folder without a manifest is one that was never made, or one that lost it.
    fn without_manifest(&self, disk: &Disk) -> Result<(), LedgerError> {
        let log = self.folder.stamp(&self.folder.log())?.is_some_and(|stamp| stamp.bytes > 0);
        let segments = std::fs::read_dir(self.folder.segments()).is_ok_and(|mut files| files.next().is_some());
        if disk.manifest.is_some() || log || segments {
            return self.folder.read(&self.folder.manifest()).map(|_| ());
        }
        Ok(())
    }

    fn take_manifest(&self, disk: &mut Disk, reading: Reading) -> Result<(), LedgerError> {
        let path = self.folder.manifest();
        let bytes = self.folder.read(&path)?;
        let broken = |what: String, mend| self.folder.broken(&path, None, what, mend);
        let line = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let line = line.ok_or_else(|| broken("it is not one line".into(), "put the folder back from a backup"))?;
        let manifest: Manifest = self.pinned.open(Kind::Manifest, line).map_err(|error| {
            broken(
                error.to_string(),
                "give this process the key file that the folder was written with ([publication] key_file), or put the folder back \
                 from a backup",
            )
        })?;
        let (last, before) = {
            let known = self.known();
            (known.last(), known.manifest.clone())
        };
        if before.as_ref().is_some_and(|before| before.truth != manifest.truth) {
            let mend = "two folders have changed places: put the first one back, or start this process anew";
            return Err(broken(format!("it is of another truth now, {}", manifest.truth), mend));
        }
        let went_back = before.as_ref().is_some_and(|before| manifest.base < before.base);
        let mut half_over = HashMap::new();
        if before.is_none() || went_back || manifest.base > last {
            for segment in &manifest.segments {
                let mut ends = Vec::new();
                segments::records(&self.folder, segment, |record| {
                    ends.extend(over(&record, self.retention));
                    // What is over is applied as well, and does not count: a clock that is ahead now may be right in a moment.
                    self.apply(record.n, record.at, &record.entry, reading);
                })?;
                half_over.extend(median(ends).map(|half| (segment.sha256.clone(), half)));
            }
            self.metrics.applied(manifest.segments.iter().map(|segment| segment.records as usize).sum());
        }
        disk.seen = disk.seen.max(last);
        if went_back && self.key.is_some() {
            disk.lost.push((u64::MAX, Entry::Floor { of: FloorOf::Everything, issued_until: None }));
        }
        let mut known = self.known_mut();
        if manifest.base > last {
            known.changes.clear();
        } else {
            known.changes.retain(|recorded| recorded.change.n > manifest.base);
        }
        known.half_over.extend(half_over);
        known.half_over.retain(|name, _| manifest.segments.iter().any(|segment| segment.sha256 == *name));
        known.manifest = Some(Arc::new(manifest));
        Ok(())
    }

    /// Every change after the base.
    fn read_whole(&self, bytes: &[u8]) -> Result<Lines, Unread> {
        let known = self.known();
        let base = known.manifest.as_ref().map_or(0, |manifest| manifest.base);
        let lines: HashMap<&str, &Arc<Recorded>> =
            known.changes.iter().map(|recorded| (&*recorded.line, recorded)).collect();
        let from = lines::From { lines: 0, prev: None, after: base };
        lines::read(&self.folder, &self.pinned, bytes, from, |line| lines.get(line).map(|known| Arc::clone(known)))
    }

    /// The changes after the last known one.
    fn read_on(&self, bytes: &[u8], lines: usize) -> Result<Lines, Unread> {
        let last = self.known().last();
        let from = lines::From { lines, prev: Some(last), after: last };
        lines::read(&self.folder, &self.pinned, bytes, from, |_| None)
    }

    fn unreadable(&self, unread: Unread) -> LedgerError {
        match unread {
            Unread::Broken(error) => error,
            Unread::Gap { line, prev, last } => self.folder.broken(
                &self.folder.log(),
                Some(line),
                format!("the change follows change {prev}, but the one before it is {last}: changes are missing"),
                "put the folder back from a backup",
            ),
        }
    }

    /// Takes all changes after the base, and applies those that are not known. Whether there were any.
    fn relearn(&self, disk: &mut Disk, mut changes: Vec<Arc<Recorded>>, reading: Reading) -> bool {
        let lost = {
            let mut known = self.known_mut();
            let same = known.changes.iter().zip(&changes).take_while(|(known, read)| known == read).count();
            disk.seen = disk.seen.max(known.last());
            changes.drain(..same);
            known.changes.split_off(same)
        };
        if let Some(first) = lost.first() {
            self.lose(disk, first, &lost);
        }
        self.learn(changes, reading) || !lost.is_empty()
    }

    /// Applies new changes, then lets everybody know of them. Whether there were any.
    fn learn(&self, new: Vec<Arc<Recorded>>, reading: Reading) -> bool {
        for Recorded { change: Change { n, at, entry, .. }, .. } in new.iter().map(AsRef::as_ref) {
            self.apply(*n, *at, entry, reading);
        }
        self.metrics.applied(new.len());
        let any = !new.is_empty();
        let (last, segments, count) = {
            let mut known = self.known_mut();
            known.changes.extend(new);
            (known.last(), known.manifest.as_ref().map_or(0, |manifest| manifest.segments.len()), known.count())
        };
        self.metrics.holds(segments, count);
        if self.mode == Published::AtOnce {
            self.published.send_if_modified(|published| std::mem::replace(published, last) != last);
        }
        self.last.send_if_modified(|known| std::mem::replace(known, last) != last);
        any
    }

    fn lose(&self, disk: &mut Disk, first: &Recorded, lost: &[Arc<Recorded>]) {
        let age = unix_millis().saturating_sub(first.change.at);
        tracing::error!(
            folder = %self.folder.path().display(),
            lost = lost.len(),
            first = first.change.n,
            "changes that were read are not in the folder any more; they are recorded again"
        );
        if self.key.is_none() {
            return;
        }
        disk.lost.extend(lost.iter().map(|recorded| (recorded.change.n, recorded.change.entry.clone())));
        if Duration::from_millis(age) > TAKEN_BACK_WITHIN {
            tracing::error!(
                "the folder was put back to an older state: everybody is logged out, for what else is lost is not known"
            );
            disk.lost.push((u64::MAX, Entry::Floor { of: FloorOf::Everything, issued_until: None }));
        }
    }

    fn apply(&self, n: u64, at: u64, entry: &Entry, reading: Reading) {
        if matches!(entry, Entry::Floor { of: FloorOf::Everything, issued_until: None }) {
            let mut known = self.known_mut();
            known.everything = known.everything.max(n);
        }
        let taken = seconds(at);
        let now = if reading == Reading::Live { Timestamp::now() } else { taken };
        if self.retention.is_past(entry, n, taken, Timestamp::now()) {
            return;
        }
        self.index.apply(entry, Arrival { number: Some(n), taken, now }, self.retention);
    }

    /// Makes the folder and its truth, unless they are there. The lock is held.
    pub(super) fn make(&self, disk: &mut Disk, _held: &Lock) -> Result<(), LedgerError> {
        self.refresh(disk, Reading::Live)?;
        if disk.manifest.is_some() {
            return Ok(());
        }
        self.folder.replace(&self.folder.log(), b"", [Step::LogDrafted, Step::LogPlaced])?;
        let manifest = Manifest { epoch: unix_millis(), truth: uuid::Uuid::now_v7(), base: 0, segments: Vec::new() };
        self.put_manifest(&manifest)?;
        self.refresh(disk, Reading::Live).map(|_| ())
    }

    pub(super) fn put_manifest(&self, manifest: &Manifest) -> Result<(), LedgerError> {
        let mut line = self.sign(Kind::Manifest, manifest)?;
        line.push('\n');
        let steps = [Step::ManifestDrafted, Step::ManifestPlaced];
        self.folder.replace(&self.folder.manifest(), line.as_bytes(), steps)
    }

    fn sign(&self, kind: Kind, body: &impl serde::Serialize) -> Result<String, LedgerError> {
        let key = self.key.as_ref().ok_or(LedgerError::ReadOnly)?;
        key.sign(kind, body).map_err(|error| LedgerError::Refused(error.to_string().into()))
    }

    /// Numbers, signs, appends and syncs entries, all or none, each above the number beside it; then they are in force.
    pub(super) fn commit(&self, entries: &[(u64, Entry)]) -> Result<Vec<Arc<Recorded>>, LedgerError> {
        self.folder.make()?;
        let held = self.folder.lock()?;
        let mut disk = self.disk();
        self.make(&mut disk, &held)?;
        let lost: Vec<(u64, Entry)> = {
            let known = self.known();
            let is_overtaken = |(n, entry): &&(u64, Entry)| {
                known.changes.iter().any(|recorded| recorded.change.n > *n && overtakes(&recorded.change.entry, entry))
            };
            disk.lost.iter().filter(|lost| !is_overtaken(lost)).map(|(_, entry)| (0, entry.clone())).collect()
        };
        let mut recorded = Vec::with_capacity(entries.len() + lost.len());
        let mut text = String::new();
        let (mut prev, at) = {
            let known = self.known();
            (known.last(), made_at(unix_millis(), known.changes.last().map(|last| last.change.at)))
        };
        for (above, entry) in lost.iter().chain(entries) {
            let next = prev.max(disk.seen).max(*above).checked_add(1);
            let n = next.ok_or_else(|| LedgerError::Refused("there is no higher number".into()))?.max(at);
            let change = Change { n, prev, at, id: uuid::Uuid::now_v7(), entry: entry.clone() };
            let line = self.sign(Kind::Change, &change)?;
            text.push_str(&line);
            text.push('\n');
            recorded.push(Arc::new(Recorded { change, line: line.into() }));
            prev = n;
        }
        let Some(log) = &mut disk.log else { return Err(LedgerError::Closed) };
        let began = Instant::now();
        let path = self.folder.log();
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(LedgerError::io(&path, "it cannot be opened for writing"))?;
        self.cut_torn(log, &file)?;
        let end = log.offset;
        let writing = self.writing(&mut disk, &held);
        drop(disk);
        self.append(file, end, text.as_bytes())?;
        let mut disk = self.disk();
        self.metrics.synced(began.elapsed());
        if let Some(log) = &mut disk.log {
            log.offset += text.len() as u64;
            log.lines += recorded.len();
        }
        disk.lost.clear();
        self.learn(recorded.clone(), Reading::Live);
        drop(disk);
        drop(writing);
        Ok(recorded.split_off(lost.len()))
    }

    /// Appends to the log, which ends there, and on a failure takes back what was half written.
    fn append(&self, mut file: File, end: u64, bytes: &[u8]) -> Result<(), LedgerError> {
        let path = self.folder.log();
        let appended = file.write_all(bytes).map_err(LedgerError::io(&path, "the change cannot be written"));
        let appended = appended.and_then(|()| self.folder.steps.pass(Step::LogAppended));
        let written = appended
            .and_then(|()| file.sync_data().map_err(LedgerError::io(&path, "the change cannot be written to disk")));
        if written.is_err()
            && let Err(error) = file.set_len(end).and_then(|()| file.sync_data())
        {
            tracing::error!(file = %path.display(), %error, "what was half written could not be taken back");
        }
        written
    }

    /// Cuts off half a line that a writer left who died over it: nobody was told that it is recorded. The lock is held.
    pub(super) fn cut_torn(&self, log: &mut Log, file: &File) -> Result<(), LedgerError> {
        let path = self.folder.log();
        let length = file.metadata().map_err(LedgerError::io(&path, "it cannot be read"))?.len();
        if length > log.offset {
            let torn = std::fs::read(&path).map_err(LedgerError::io(&path, "it cannot be read"))?;
            let torn = torn.get(usize::try_from(log.offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            if torn.contains(&0) {
                let aside = path.with_extension("torn");
                std::fs::write(&aside, torn).map_err(LedgerError::io(&aside, "it cannot be written"))?;
                tracing::warn!(
                    file = %path.display(),
                    line = log.lines + 1,
                    bytes = length - log.offset,
                    aside = %aside.display(),
                    "a batch of changes reached the disk in part, as when the power fails, and is set aside; nobody was \
                     told that it is recorded"
                );
            } else {
                tracing::warn!(
                    file = %path.display(),
                    line = log.lines + 1,
                    bytes = length - log.offset,
                    "the last line is half written and is cut off; nobody was told that it is recorded"
                );
            }
            let cut = file.set_len(log.offset).and_then(|()| file.sync_data());
            cut.map_err(LedgerError::io(&path, "a half-written line cannot be cut off"))?;
        }
        log.torn = 0;
        Ok(())
    }
}

/// When a change is made, by the clock and by when the one before it was made, in Unix milliseconds: a clock that went back would make a
/// floor too low for tokens that say no number, for good. A clock that is behind by over a day is believed all the same: it may be the
/// last change that was made while the clock was wrong, and whoever is logged out must not be so for years.
fn made_at(now: u64, before: Option<u64>) -> u64 {
    let behind = before.map_or(0, |before| before.saturating_sub(now));
    if Duration::from_millis(behind) <= CLOCK_BEHIND {
        return now + behind;
    }
    tracing::warn!(
        behind_seconds = behind / 1000,
        "the clock of this machine is far behind the last recorded change; if it is this clock that is wrong, tokens that were issued \
         meanwhile and carry no `uv` are not refused by a floor that is taken now: set it right, and revoke again"
    );
    now
}

/// When half of these times have come.
pub(super) fn median(mut ends: Vec<Timestamp>) -> Option<Timestamp> {
    let middle = ends.len() / 2;
    (!ends.is_empty()).then(|| *ends.select_nth_unstable(middle).1)
}

/// What follows the part that was read; `None` if that is not there any more.
fn read_from(log: &mut Log) -> std::io::Result<Option<Vec<u8>>> {
    let length = log.file.metadata()?.len();
    if length < log.offset {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    if length > log.offset {
        log.file.seek(SeekFrom::Start(log.offset))?;
        (&mut log.file).take(length - log.offset).read_to_end(&mut bytes)?;
    }
    Ok(Some(bytes))
}
