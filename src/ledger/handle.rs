//! What the rest of doorward holds of the ledger.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::error::LedgerError;
use crate::revocation::{Change, Entry, Manifest, PinnedKeys, PublicationKey, Retention, RevocationIndex};

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

/// The ledger of one folder. All calls without `async` may wait for the disk, `last`, `truth`, `state`, `manifest`, `changes_after`,
/// `count`, `subscribe` and `published` do not.
#[derive(Debug)]
pub struct Ledger {}

impl Ledger {
    /// Reads the folder and applies all that it holds to the index, with numbers and times as they were. A folder that is not there is
    /// empty.
    ///
    /// # Errors
    /// [`LedgerError`] for what cannot be read, is not signed by a believed key, or has a gap.
    pub fn open(settings: LedgerSettings, index: Arc<RevocationIndex>) -> Result<Arc<Self>, LedgerError> {
        let _ = (settings, index);
        Err(LedgerError::Closed)
    }

    /// Makes the folder and its truth, unless they are there. Recording does this by itself; a publisher needs it before.
    ///
    /// # Errors
    /// [`LedgerError`] where the folder cannot be made.
    pub fn make(&self) -> Result<Uuid, LedgerError> {
        Err(LedgerError::Closed)
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
        let _ = (above, entry);
        Err(LedgerError::Closed)
    }

    /// Records one change without blocking the thread, then waits for its publication, a second at most.
    ///
    /// # Errors
    /// As [`Ledger::record`].
    pub async fn revoke(&self, entry: Entry) -> Result<Receipt, LedgerError> {
        let _ = entry;
        Err(LedgerError::Closed)
    }

    /// The last change's number; 0 before the first. What a token that is minted now carries as `uv` (T3).
    #[must_use]
    pub fn last(&self) -> u64 {
        0
    }

    /// Whose truth this is; `None` until it is made ([`Ledger::make`]).
    #[must_use]
    pub fn truth(&self) -> Option<Uuid> {
        None
    }

    /// The whole truth at one moment; `None` until it is made.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        None
    }

    /// The manifest; `None` until the truth is made. Its `epoch` is the folder's own.
    #[must_use]
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        None
    }

    /// The bytes of a segment that a manifest names, proven by their SHA-256.
    ///
    /// # Errors
    /// [`LedgerError`] where it is gone (segments are replaced: take [`Ledger::state`] again) or changed.
    pub fn segment(&self, sha256: &str) -> Result<Vec<u8>, LedgerError> {
        let _ = sha256;
        Err(LedgerError::Closed)
    }

    /// The changes after this number, in order; `None` if some of them stand in segments only: then the reader takes the whole state.
    #[must_use]
    pub fn changes_after(&self, n: u64) -> Option<Vec<Arc<Recorded>>> {
        let _ = n;
        None
    }

    /// Records in segments and changes after them: a heartbeat's `count` (T10). Consistent with `last` and `manifest` in
    /// [`Ledger::state`] only.
    #[must_use]
    pub fn count(&self) -> u64 {
        0
    }

    /// Changes whenever the last number does, by this process or another that shares the folder.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// Everything up to this number is published.
    pub fn published(&self, n: u64) {
        let _ = n;
    }

    /// Whether everything up to this number is published, or will be within `patience`.
    pub async fn wait_published(&self, n: u64, patience: Duration) -> bool {
        let _ = (n, patience);
        false
    }

    /// Reads and applies what other processes appended. Cheap (two `stat`s) when there is nothing new. Whether there was.
    ///
    /// # Errors
    /// [`LedgerError`]; what was known stays known.
    pub fn follow(&self) -> Result<bool, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Makes segments of a long tail, and few of many. Whether anything was done.
    ///
    /// # Errors
    /// [`LedgerError`]; the folder is as it was.
    pub fn tend(&self) -> Result<bool, LedgerError> {
        Err(LedgerError::Closed)
    }
}
