//! What a follower believes of what it reads: no I/O here, and every doubt ends in reading everything again.
//!
//! ```text
//!   load: manifest, segments, changes        Loaded, but nothing is decided by it, and nobody is given anything back
//!      │  a heartbeat that is newer than the load, and says the same n and count (T10)
//!      ▼
//!   proven: each change follows the one before; each newer heartbeat counts as having heard (T1)
//!      │  a gap, another epoch, a heartbeat that knows of more
//!      ▼
//!   load again, and merge: the index forgets nothing (T10)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::revocation::freshness::CLOCK_SKEW;
use crate::revocation::{
    Arrival, Change, Entry, Freshness, Heartbeat, Kind, Manifest, PinnedKeys, Record, Retention, RevocationIndex,
};
use crate::sync::replica::Cause;
use crate::sync::replica::kept::{Kept, Tail};

/// The oldest heartbeat that counts, in milliseconds (T1).
const OLDEST: u64 = 5_000;
/// More changes after the manifest than a publisher that has a moment leaves there: it has a newer manifest by now, or soon.
const LONGEST_TAIL: usize = 8192;

/// What goes into the index.
#[derive(Debug, Clone)]
pub struct Target {
    /// The index.
    pub index: Arc<RevocationIndex>,
    /// How long entries are kept.
    pub retention: Retention,
}

/// What is known of what is followed.
#[derive(Debug)]
pub struct Followed {
    pinned: Arc<PinnedKeys>,
    target: Target,
    freshness: Arc<Freshness>,
    loaded: Option<Loaded>,
    /// The time of the last heartbeat that was believed, and what it said of n and epoch: older ones are replays.
    last: Option<Heartbeat>,
    /// One that knows of more than has arrived.
    waiting: Option<(Heartbeat, Arc<str>)>,
    /// Segments whose records are in the index: they are named by their content, and need not be read twice.
    applied: BTreeSet<Box<str>>,
    /// Those that were read as well, but have records that wait for the heartbeat that confirms a state with them: these ones.
    unproven: BTreeMap<Box<str>, Vec<Arc<Record>>>,
    /// What must be in the last good state.
    kept: Option<Kept>,
    /// Whether there is one.
    keeps: bool,
}

/// A state that was read.
#[derive(Debug)]
struct Loaded {
    epoch: u64,
    truth: uuid::Uuid,
    /// The last change that is in the segments.
    base: u64,
    /// Records in segments.
    records: u64,
    /// Those of its segments that have records in `unproven`.
    segments: Vec<Box<str>>,
    /// The last change that is in the index without a gap.
    n: u64,
    /// The numbers of the changes after the manifest.
    numbers: Vec<u64>,
    /// When reading it began, in Unix milliseconds.
    since: u64,
    proven: bool,
    /// What waits for the heartbeat that confirms it ([`needs_proof`]), in order of number.
    unproven: Vec<Arc<Record>>,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Go,
    /// The control plane was heard.
    Heard,
    /// What came is not believed and counts for nothing.
    Refused(Doubt),
    /// The state has to be read again.
    Reload(Cause),
}

/// Why a line counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Not signed by a pinned key, not of this kind, or not readable.
    Forged,
    /// A heartbeat that is over 5 s old, or not newer than the last one.
    Old,
    /// A heartbeat from the future.
    Future,
    /// A heartbeat whose numbers went back within an epoch, or of another truth with the same epoch.
    Backwards,
}

impl Doubt {
    /// For metrics and messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Old => "old",
            Self::Future => "future",
            Self::Backwards => "backwards",
        }
    }
}

/// Why a state that was read is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadState {
    /// There is none.
    #[error("there is no state in Redis (yet)")]
    Absent,
    /// A line that is not believed.
    #[error("{what}: {why}")]
    Line {
        /// The manifest, or a change.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A segment that is not there.
    #[error("segment {0} is missing")]
    Missing(Box<str>),
    /// A segment with other content than its name says.
    #[error("segment {0} has another content than its name says")]
    Content(Box<str>),
    /// A record that cannot be understood.
    #[error("segment {0}, line {1}: {2}")]
    Record(Box<str>, usize, String),
    /// A change is missing.
    #[error("the change after {0} is missing")]
    Gap(u64),
}

/// A state that is being read; [`Followed::adopt`] ends it.
#[derive(Debug)]
pub struct Reading {
    /// The manifest.
    pub manifest: Manifest,
    line: Arc<str>,
    since: u64,
    n: u64,
    numbers: Vec<u64>,
    changes: Tail,
    unproven: Vec<Arc<Record>>,
}

/// What is in a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// How many records.
    pub records: u64,
    /// Those that are not in the index, because they need proof.
    pub unproven: Vec<Arc<Record>>,
}

impl Reading {
    /// Begins with a manifest that was read after `since` (Unix milliseconds).
    ///
    /// # Errors
    /// [`BadState`] for one that no pinned key has signed.
    pub fn begin(pinned: &PinnedKeys, line: &str, since: u64) -> Result<Self, BadState> {
        let manifest: Manifest = pinned
            .open(Kind::Manifest, line)
            .map_err(|why| BadState::Line { what: "the manifest", why: why.to_string() })?;
        let n = manifest.base;
        let (numbers, changes, unproven) = (Vec::new(), Tail::default(), Vec::new());
        Ok(Self { manifest, line: line.into(), since, n, numbers, changes, unproven })
    }

    /// The last change that follows without a gap.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.n
    }

    /// Takes the next change. A revocation is put into the index, for it is never wrong to know; what needs proof waits for it.
    ///
    /// # Errors
    /// [`BadState`] for what no pinned key has signed, and for one that does not follow.
    pub fn change(&mut self, pinned: &PinnedKeys, target: &Target, line: &str) -> Result<(), BadState> {
        let change: Change =
            pinned.open(Kind::Change, line).map_err(|why| BadState::Line { what: "a change", why: why.to_string() })?;
        if change.n <= self.n {
            return Ok(());
        }
        if change.prev != self.n {
            return Err(BadState::Gap(self.n));
        }
        self.n = change.n;
        self.numbers.push(change.n);
        self.changes.push(line.into());
        if needs_proof(&change.entry) {
            self.unproven.push(record_of(change));
        } else {
            target.apply(&record_of(change));
        }
        Ok(())
    }

    /// Takes what needs proof in its segments.
    pub(super) fn wait_for_proof(&mut self, records: impl IntoIterator<Item = Arc<Record>>) {
        self.unproven.extend(records);
        // The segments' own come before the changes', and their order says something.
        self.unproven.sort_by_key(|record| record.n);
    }

    /// Whether this heartbeat speaks of this very state: whose it is, that nothing is missing, and how much there is (T10).
    pub(super) fn is_what_it_says(&self, heartbeat: &Heartbeat) -> bool {
        let records = self.manifest.segments.iter().map(|segment| segment.records).sum::<u64>();
        let after = self.numbers.partition_point(|n| *n <= heartbeat.n) as u64;
        self.has_all_that_it_knows(heartbeat) && records + after == heartbeat.count
    }

    /// Whether a heartbeat of this truth knows of nothing that is not in this state.
    pub(super) fn has_all_that_it_knows(&self, heartbeat: &Heartbeat) -> bool {
        (heartbeat.epoch, heartbeat.truth) == (self.manifest.epoch, self.manifest.truth) && heartbeat.n <= self.n
    }

    /// A heartbeat has confirmed all of it: what waited for that goes into the index.
    pub(super) fn confirmed(&self, target: &Target) {
        self.unproven.iter().for_each(|record| target.apply(record));
    }
}

impl Target {
    fn apply(&self, record: &Record) {
        self.index.apply(&record.entry, arrival(record.n, record.at), self.retention);
    }

    /// Proves a segment by its name and puts its records into the index, but for those that need proof: who can write to Redis can play
    /// a manifest of an earlier truth again, with its segments.
    ///
    /// # Errors
    /// [`BadState`]; what was put into the index until then stays there, and gives nobody anything.
    pub fn apply_segment(&self, sha256: &str, bytes: &[u8]) -> Result<Segment, BadState> {
        if self::sha256(bytes) != sha256 {
            return Err(BadState::Content(sha256.into()));
        }
        let (mut records, mut unproven) = (0, Vec::new());
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let record: Record = serde_json::from_slice(line)
                .map_err(|error| BadState::Record(sha256.into(), number + 1, error.to_string()))?;
            let arrival = arrival(record.n, record.at);
            records += 1;
            if self.retention.is_past(&record.entry, record.n, arrival.taken, arrival.now) {
                continue;
            }
            if needs_proof(&record.entry) {
                unproven.push(Arc::new(record));
            } else {
                self.index.apply(&record.entry, arrival, self.retention);
            }
        }
        Ok(Segment { records, unproven })
    }
}

impl Followed {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(pinned: Arc<PinnedKeys>, target: Target, freshness: Arc<Freshness>) -> Self {
        Self {
            pinned,
            target,
            freshness,
            loaded: None,
            last: None,
            waiting: None,
            applied: BTreeSet::new(),
            unproven: BTreeMap::new(),
            kept: None,
            keeps: true,
        }
    }

    /// The same, where there is no last good state to keep lines for.
    #[must_use]
    pub fn without_last_good(self) -> Self {
        Self { keeps: false, ..self }
    }

    /// Whom it believes.
    #[must_use]
    pub fn pinned(&self) -> &Arc<PinnedKeys> {
        &self.pinned
    }

    /// Where it puts what it hears.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether this segment was read: its records are in the index, or wait here for the heartbeat that confirms a state with them.
    #[must_use]
    pub fn has_segment(&self, sha256: &str) -> bool {
        self.applied.contains(sha256) || self.unproven.contains_key(sha256)
    }

    /// This segment has to be read again.
    pub fn forget_segment(&mut self, sha256: &str) {
        self.applied.remove(sha256);
        self.unproven.remove(sha256);
    }

    /// What waits in segments of states that are neither followed nor read now has to be read again, should they be: nobody can pile up
    /// here what was ever signed.
    pub fn forget_unproven_but(&mut self, reading: &Manifest) {
        let followed = self.loaded.as_ref().map_or(&[][..], |loaded| &loaded.segments);
        self.unproven.retain(|sha256, _| {
            followed.contains(sha256) || reading.segments.iter().any(|segment| segment.sha256 == *sha256)
        });
    }

    /// The records of this segment are in the index.
    pub fn segment_applied(&mut self, sha256: Box<str>) {
        self.applied.insert(sha256);
    }

    /// The records of this segment are in the index, but for these, which wait until a state with it is confirmed.
    pub fn segment_read(&mut self, sha256: Box<str>, unproven: Vec<Arc<Record>>) {
        if unproven.is_empty() {
            self.segment_applied(sha256);
        } else {
            self.unproven.insert(sha256, unproven);
        }
    }

    /// The last change that is in the index without a gap; 0 without a state.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |loaded| loaded.n)
    }

    /// Whether a whole state was read and proven.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| loaded.proven)
    }

    /// By how many seconds the control plane keeps entries for a shorter time than this process needs them (T5); 0: long enough, or it
    /// has not said.
    #[must_use]
    pub fn keep_missing(&self) -> u64 {
        let needed = u64::try_from(self.target.retention.from_arrival).unwrap_or(u64::MAX);
        self.last.and_then(|heartbeat| heartbeat.keeps).map_or(0, |kept| needed.saturating_sub(kept))
    }

    /// What a last good state consists of; `None` before a proven one.
    #[must_use]
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref().filter(|kept| kept.proof.is_some())
    }

    /// A whole state was read: everything of it is in the index, but for what needs proof. It has still to be proven, whatever there was
    /// before.
    pub fn adopt(&mut self, mut reading: Reading) {
        let named: Arc<[_]> =
            reading.manifest.segments.iter().map(|segment| (segment.sha256.clone(), segment.bytes)).collect();
        let is_named = |sha256: &str| named.iter().any(|(name, _)| **name == *sha256);
        self.applied.retain(|sha256| is_named(sha256));
        self.unproven.retain(|sha256, _| is_named(sha256));
        reading.wait_for_proof(self.unproven.values().flatten().cloned());
        let segments = self.unproven.keys().cloned().collect();
        let Reading { manifest, line, since, n, numbers, changes, unproven } = reading;
        let records = manifest.segments.iter().map(|segment| segment.records).sum();
        let Manifest { epoch, truth, base, .. } = manifest;
        let proven = false;
        self.loaded = Some(Loaded { epoch, truth, base, records, segments, n, numbers, since, proven, unproven });
        self.waiting = None;
        let (proof, heartbeat) = (None, None);
        self.kept = self.keeps.then_some(Kept { manifest: line, segments: named, changes, last: n, proof, heartbeat });
    }

    /// A change came, at `now` (Unix milliseconds).
    pub fn change(&mut self, line: Option<&str>, now: u64) -> Verdict {
        let Some(loaded) = &mut self.loaded else { return Verdict::Reload(Cause::Start) };
        let Some(change) = line.and_then(|line| self.pinned.open::<Change>(Kind::Change, line).ok()) else {
            return Verdict::Refused(Doubt::Forged);
        };
        if change.n <= loaded.n {
            return Verdict::Go;
        }
        let (n, prev, record) = (change.n, change.prev, record_of(change));
        let follows = prev == loaded.n;
        if revokes(&record.entry) {
            // Whatever is missing before it: it is signed, and refusing more is never wrong.
            self.target.apply(&record);
        } else if follows && needs_proof(&record.entry) && (!loaded.proven || prev == 0 || !loaded.unproven.is_empty())
        {
            // The first change of any truth follows none, and so follows here. The next ones wait behind it: their order says something.
            loaded.unproven.push(record);
        } else if follows {
            self.target.apply(&record);
        }
        if !follows {
            return Verdict::Reload(Cause::Gap);
        }
        loaded.n = n;
        loaded.numbers.push(n);
        if let (Some(kept), Some(line)) = (&mut self.kept, line) {
            kept.changes.push(line.into());
            kept.last = n;
        }
        if self.waiting.as_ref().is_some_and(|(waiting, _)| waiting.n <= n) { self.settle(now) } else { Verdict::Go }
    }

    /// A heartbeat came, at `now` (Unix milliseconds).
    pub fn heartbeat(&mut self, line: Option<&str>, now: u64) -> Verdict {
        let Some(line) = line else { return Verdict::Refused(Doubt::Forged) };
        let Ok(heartbeat) = self.pinned.open::<Heartbeat>(Kind::Heartbeat, line) else {
            return Verdict::Refused(Doubt::Forged);
        };
        if now.saturating_sub(heartbeat.at) > OLDEST || self.last.is_some_and(|last| !is_newer(&heartbeat, &last, now))
        {
            return Verdict::Refused(Doubt::Old);
        }
        if is_to_come(heartbeat.at, now) {
            return Verdict::Refused(Doubt::Future);
        }
        if self.last.is_some_and(|last| {
            last.epoch == heartbeat.epoch && (last.truth != heartbeat.truth || heartbeat.n < last.n)
        }) {
            return Verdict::Refused(Doubt::Backwards);
        }
        self.last = Some(heartbeat);
        let Some(loaded) = &self.loaded else { return Verdict::Reload(Cause::Start) };
        if (heartbeat.epoch, heartbeat.truth) != (loaded.epoch, loaded.truth) {
            return Verdict::Reload(Cause::Epoch);
        }
        let arrived = heartbeat.n <= loaded.n;
        self.waiting = Some((heartbeat, line.into()));
        if arrived { self.settle(now) } else { Verdict::Go }
    }

    /// Whether a heartbeat has told of changes that have not come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Everything up to the waiting heartbeat's number has arrived.
    fn settle(&mut self, now: u64) -> Verdict {
        let (Some(loaded), Some((heartbeat, line))) = (&mut self.loaded, self.waiting.take()) else {
            return Verdict::Go;
        };
        let after = loaded.numbers.partition_point(|n| *n <= heartbeat.n) as u64;
        let same = loaded.records + after == heartbeat.count;
        // The clock went back since the load began, which is certainly over by now.
        if is_to_come(loaded.since, now) {
            loaded.since = now;
        }
        // It speaks of a moment before the load: it proves nothing of what was loaded.
        if !loaded.proven && heartbeat.at <= loaded.since {
            return Verdict::Go;
        }
        if !loaded.proven && !same {
            return Verdict::Reload(Cause::Count);
        }
        loaded.proven = true;
        let confirmed = loaded.unproven.partition_point(|record| record.n <= heartbeat.n);
        loaded.unproven.drain(..confirmed).for_each(|record| self.target.apply(&record));
        if loaded.base <= heartbeat.n {
            for sha256 in loaded.segments.drain(..) {
                // One that is to be read again in the meantime is not there.
                if let Some((sha256, _)) = self.unproven.remove_entry(&sha256) {
                    self.applied.insert(sha256);
                }
            }
        }
        let milliseconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        self.freshness.heard(milliseconds(heartbeat.at), milliseconds(now));
        if let Some(kept) = &mut self.kept {
            if same {
                kept.proof = Some(Arc::clone(&line));
            }
            kept.heartbeat = Some(line);
        }
        // The chain was never broken, so nothing is missing; but there is a newer manifest, with a shorter tail.
        let is_short = loaded.numbers.len() <= LONGEST_TAIL;
        if same && is_short { Verdict::Heard } else { Verdict::Reload(Cause::Manifest) }
    }
}

/// Whether an entry takes something from somebody and gives nobody anything, whatever truth and order it comes from.
fn revokes(entry: &Entry) -> bool {
    match entry {
        Entry::Token { .. }
        | Entry::Session { .. }
        | Entry::Floor { .. }
        | Entry::Key { .. }
        | Entry::Disabled { .. } => true,
        Entry::Enabled { .. } | Entry::Override(_) | Entry::Keys { .. } | Entry::RoleData { .. } => false,
    }
}

/// Whether an entry may give somebody something back, so that it counts only as part of the truth that is followed.
///
/// A change does not say of which truth it is, and whoever can write to Redis can play one again that the same key signed for an
/// earlier truth, which was lost. Within a proven chain there is no place for it; before that, a heartbeat has to confirm the chain.
/// Keys need no more than to follow: there are new ones with every truth, and no token is good before they are there.
fn needs_proof(entry: &Entry) -> bool {
    matches!(entry, Entry::Enabled { .. } | Entry::Override(_) | Entry::RoleData { .. })
}

/// Whether this time has not come yet, by more than clocks differ.
fn is_to_come(at: u64, now: u64) -> bool {
    at.saturating_sub(now) > CLOCK_SKEW.unsigned_abs()
}

/// Whether a heartbeat is newer than the last one.
///
/// If the last one is of a time that is still to come, the clock went back: the time does not tell then, and waiting until it does
/// would be an outage as long as the step. Instead nothing may be missing that the last one had, whatever the epoch. Who can write to
/// Redis can then play heartbeats again that were signed when the clock showed this time before. But they have to be signed within the
/// last 5 s by this clock, to rise from the first on, and to know of as many changes as this process: so they tell nothing old, and
/// only hold back news, for no longer than the clock went back. For as long every token that has expired is good once more, and the
/// same was always open to them with a process that starts after the step.
fn is_newer(heartbeat: &Heartbeat, last: &Heartbeat, now: u64) -> bool {
    if is_to_come(last.at, now) { heartbeat.n >= last.n } else { heartbeat.at > last.at }
}

/// The name of a segment with this content.
pub(in crate::sync) fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

fn record_of(Change { n, at, entry, .. }: Change) -> Arc<Record> {
    Arc::new(Record { n, at, entry })
}

fn arrival(n: u64, at: u64) -> Arrival {
    let taken = Timestamp(i64::try_from(at / 1000).unwrap_or(i64::MAX));
    Arrival { number: Some(n), taken, now: Timestamp::now() }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;
