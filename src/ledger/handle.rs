//! What the rest of doorward holds of the ledger.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::error::LedgerError;
use super::folder::Folder;
use super::truth::{Disk, Reading, Shared};
use super::writer::{self, Job, WAITING};
use super::{segments, tend};
use crate::clock::Timestamp;
use crate::revocation::{Change, Entry, Manifest, PinnedKeys, PublicationKey, Retention, RevocationIndex};
use crate::telemetry::LedgerMetrics;

/// Where the ledger is, and who writes it.
#[derive(Debug)]
pub struct LedgerSettings {
    /// `[revocation] folder`
    pub folder: PathBuf,
    /// Signs what is recorded; its public half is believed. `None`: nothing can be recorded.
    pub key: Option<PublicationKey>,
    /// Whose lines are believed besides.
    pub pinned: PinnedKeys,
    /// How long entries are kept.
    pub retention: Retention,
    /// When a change counts as published.
    pub published: Published,
    /// What is counted.
    pub metrics: Arc<LedgerMetrics>,
}

/// When a change counts as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// With its record: who shares the folder follows it (T12).
    AtOnce,
    /// When the publisher says so ([`Ledger::published`]).
    ByPublisher,
}

/// A change as it stands in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What it says.
    pub change: Change,
    /// The signed line, without its end.
    pub line: Box<str>,
}

/// What a look at the folder found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Something new, which is in force now.
    News,
    /// What was known.
    Nothing,
    /// It was not looked, because this process is writing. Nobody else can record meanwhile, but others may have read by now what is
    /// written, and this process does not know it before it is on disk.
    Writing,
}

/// What became of a call that revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The change's number.
    pub number: u64,
    /// Whether it was published within a second. It is in the folder in any case, and will be.
    pub propagated: bool,
}

/// The whole truth at one moment. `count` of a heartbeat is the manifest's records plus these changes ([`State::count`]).
#[derive(Debug, Clone)]
pub struct State {
    /// What is in segments ([`Ledger::segment`]), and up to which number.
    pub manifest: Arc<Manifest>,
    /// Every change after the manifest's base, in order.
    pub changes: Vec<Arc<Recorded>>,
    /// The last floor over everything that was ever read or recorded, also in segments; 0: none.
    pub everything: u64,
}

impl State {
    /// The last number; the manifest's base where there is no change after it.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.changes.last().map_or(self.manifest.base, |recorded| recorded.change.n)
    }

    /// Records in segments and changes after them (T10).
    #[must_use]
    pub fn count(&self) -> u64 {
        self.manifest.segments.iter().map(|segment| segment.records).sum::<u64>() + self.changes.len() as u64
    }
}

/// How long a call that revokes waits for the publication (SPEC 8).
const PROPAGATION: Duration = Duration::from_secs(1);
/// Largest signed line: a gateway that reads it from a stream must not choke on it.
const LONGEST_ENTRY: usize = 256 << 10;

/// The ledger of one folder. `record`, `make`, `segment`, `follow`, `follow_after` and `tend` may wait for the disk; the rest does not.
pub struct Ledger {
    pub(super) shared: Arc<Shared>,
    queue: Option<SyncSender<Job>>,
    /// Whether nothing is published, because somebody else publishes in its place.
    blocked: AtomicBool,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("folder", &self.shared.folder.path()).field("last", &self.last()).finish()
    }
}

impl Ledger {
    /// Reads the folder and applies all that it holds to the index, with numbers and times as they were. A folder that is not there is
    /// empty.
    ///
    /// # Errors
    /// [`LedgerError`] for what cannot be read, is not signed by a believed key, or has a gap.
    pub fn open(settings: LedgerSettings, index: Arc<RevocationIndex>) -> Result<Arc<Self>, LedgerError> {
        let LedgerSettings { folder, key, pinned, retention, published, metrics } = settings;
        let own = key.iter().map(PublicationKey::public).collect::<Vec<_>>();
        let own = PinnedKeys::parse(own.iter().map(String::as_str));
        let own = own.map_err(|error| LedgerError::Refused(error.to_string().into()))?;
        let shared = Arc::new(Shared {
            folder: Folder::new(folder),
            key,
            pinned: own.and(pinned),
            retention,
            index,
            mode: published,
            metrics,
            disk: Mutex::default(),
            written: Condvar::new(),
            known: RwLock::default(),
            last: watch::Sender::new(0),
            published: watch::Sender::new(0),
        });
        shared.open()?;
        let queue = shared.key.is_some().then(|| {
            let (queue, jobs) = std::sync::mpsc::sync_channel(WAITING);
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("ledger".into());
            let path = shared.folder.path().to_owned();
            let started = thread.spawn(move || writer::write(&shared, &jobs));
            started.map(|_| queue).map_err(LedgerError::io(&path, "the thread that writes it cannot be started"))
        });
        Ok(Arc::new(Self { shared, queue: queue.transpose()?, blocked: AtomicBool::new(false) }))
    }

    /// Makes the folder and its truth, unless they are there. Recording does this by itself; a publisher needs it before.
    ///
    /// # Errors
    /// [`LedgerError`] where the folder cannot be made.
    pub fn make(&self) -> Result<Uuid, LedgerError> {
        if let Some(truth) = self.truth() {
            return Ok(truth);
        }
        if self.shared.key.is_none() {
            return Err(LedgerError::ReadOnly);
        }
        self.shared.commit(&[])?;
        self.truth().ok_or(LedgerError::Closed)
    }

    /// Records one change: when this returns it is on disk and in the index. Waits for the disk; concurrent callers share one `fsync`.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was recorded then.
    pub fn record(&self, entry: Entry) -> Result<Arc<Recorded>, LedgerError> {
        self.record_above(0, entry)
    }

    /// As [`Ledger::record`], with a number above this one: for the floor over what a lost truth once published (T2).
    ///
    /// # Errors
    /// As [`Ledger::record`].
    pub fn record_above(&self, above: u64, entry: Entry) -> Result<Arc<Recorded>, LedgerError> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let reply = Box::new(move |recorded| drop(tell.send(recorded)));
        let queue = self.queue.as_ref().ok_or(LedgerError::ReadOnly)?;
        let job = Job { above, entry: Some(checked(entry)?), reply };
        queue.send(job).map_err(|_| LedgerError::Closed)?;
        told.recv().map_err(|_| LedgerError::Closed)?
    }

    /// As [`Ledger::record`], without blocking the thread.
    ///
    /// # Errors
    /// As [`Ledger::record`], and [`LedgerError::Refused`] where very many are waiting.
    pub async fn recorded(&self, entry: Entry) -> Result<Arc<Recorded>, LedgerError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |recorded| drop(tell.send(recorded)));
        self.hand_over(Job { above: 0, entry: Some(checked(entry)?), reply })?;
        told.await.map_err(|_| LedgerError::Closed)?
    }

    /// Records one change without blocking the thread, then waits for its publication, a second at most.
    ///
    /// # Errors
    /// As [`Ledger::recorded`].
    pub async fn revoke(&self, entry: Entry) -> Result<Receipt, LedgerError> {
        let number = self.recorded(entry).await?.change.n;
        let propagated = self.wait_published(number, PROPAGATION).await;
        Ok(Receipt { number, propagated })
    }

    fn hand_over(&self, job: Job) -> Result<(), LedgerError> {
        let queue = self.queue.as_ref().ok_or(LedgerError::ReadOnly)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => LedgerError::Refused(format!("{WAITING} changes are waiting for the disk").into()),
            TrySendError::Disconnected(_) => LedgerError::Closed,
        })
    }

    /// The last change's number; 0 before the first. What a token that is minted now carries as `uv` (T3).
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.shared.last.borrow()
    }

    /// Whose truth this is; `None` until it is made ([`Ledger::make`]).
    #[must_use]
    pub fn truth(&self) -> Option<Uuid> {
        self.manifest().map(|manifest| manifest.truth)
    }

    /// The whole truth at one moment; `None` until it is made.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        let known = self.shared.known();
        Some(State { manifest: known.manifest.clone()?, changes: known.changes.clone(), everything: known.everything })
    }

    /// The manifest; `None` until the truth is made. Its `epoch` is the folder's own.
    #[must_use]
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.shared.known().manifest.clone()
    }

    /// The bytes of a segment that a manifest names, proven by their SHA-256.
    ///
    /// # Errors
    /// [`LedgerError`] where it is gone (segments are replaced: take [`Ledger::state`] again) or changed.
    pub fn segment(&self, sha256: &str) -> Result<Vec<u8>, LedgerError> {
        segments::bytes(&self.shared.folder, sha256)
    }

    /// The changes after this number, in order; `None` if some of them stand in segments only: then the reader takes the whole state.
    #[must_use]
    pub fn changes_after(&self, n: u64) -> Option<Vec<Arc<Recorded>>> {
        let known = self.shared.known();
        let base = known.manifest.as_ref().map_or(0, |manifest| manifest.base);
        let known_from = known.changes.partition_point(|recorded| recorded.change.n <= n);
        (n >= base).then(|| known.changes[known_from..].to_vec())
    }

    /// Records in segments and changes after them: a heartbeat's `count` (T10). Consistent with `last` and `manifest` in
    /// [`Ledger::state`] only.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.known().count()
    }

    /// For how many seconds from its arrival an entry is kept whose token's end is not known ([`Retention::from_arrival`]).
    #[must_use]
    pub fn keeps(&self) -> u64 {
        u64::try_from(self.shared.retention.from_arrival).unwrap_or(0)
    }

    /// Changes whenever the last number does, by this process or another that shares the folder.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.last.subscribe()
    }

    /// Everything up to this number is published.
    pub fn published(&self, n: u64) {
        self.shared.published.send_if_modified(|published| std::mem::replace(published, n.max(*published)) < n);
    }

    /// Whether somebody else publishes in the place of this folder, so that nothing of it is published while he does.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Somebody else publishes, or not any more.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether everything up to this number is published, or will be within `patience`.
    pub async fn wait_published(&self, n: u64, patience: Duration) -> bool {
        let mut published = self.shared.published.subscribe();
        let reached = published.wait_for(|published| *published >= n);
        tokio::time::timeout(patience, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Reads and applies what other processes appended. Cheap (three `stat`s) when there is nothing new.
    ///
    /// # Errors
    /// [`LedgerError`]; what was known stays known.
    pub fn follow(&self) -> Result<Looked, LedgerError> {
        self.look(self.shared.disk())
    }

    /// As [`Ledger::follow`], once what this process is writing is written: that is waited for, no longer than `patience`.
    ///
    /// # Errors
    /// As [`Ledger::follow`].
    pub fn follow_after(&self, patience: Duration) -> Result<Looked, LedgerError> {
        let written = self.shared.written.wait_timeout_while(self.shared.disk(), patience, |disk| disk.writing);
        self.look(written.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn look(&self, mut disk: MutexGuard<'_, Disk>) -> Result<Looked, LedgerError> {
        let looked = self.shared.refresh(&mut disk, Reading::Live).inspect_err(|_| self.shared.metrics.failed())?;
        if !disk.lost.is_empty() {
            // Where the queue is full somebody writes soon, and what was lost goes with it.
            let _ = self.hand_over(Job { above: 0, entry: None, reply: Box::new(|_| ()) });
        }
        Ok(looked)
    }

    /// Makes segments of a long tail, and few of many, without what was over at a time that has certainly come
    /// ([`crate::clock::Settled`]): what drops out here is gone. Whether anything was done.
    ///
    /// # Errors
    /// [`LedgerError`]; the folder is as it was, or is finished with the next call.
    pub fn tend(&self, now: Timestamp) -> Result<bool, LedgerError> {
        let tended = self.shared.tend((tend::AT_ONCE, tend::STAY), now);
        tended.inspect_err(|_| self.shared.metrics.failed())
    }
}

/// What is written has to be read again, by every process that ever will.
fn checked(entry: Entry) -> Result<Entry, LedgerError> {
    let text = serde_json::to_string(&entry).map_err(|error| LedgerError::Refused(error.to_string().into()))?;
    if text.len() > LONGEST_ENTRY {
        return Err(LedgerError::Refused(format!("the entry is longer than {} KiB", LONGEST_ENTRY >> 10).into()));
    }
    match serde_json::from_str::<Entry>(&text) {
        Ok(again) if again == entry => Ok(entry),
        Ok(_) => Err(LedgerError::Refused("the entry does not read as it was written".into())),
        Err(error) => Err(LedgerError::Refused(error.to_string().into())),
    }
}
