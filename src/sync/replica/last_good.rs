//! The last good state on disk, as it was received (T16): what a follower starts with while Redis cannot be reached.
//!
//! ```text
//! data/replica/        0700
//!   state              the signed manifest, the signed heartbeat that confirmed it, then the signed changes after its base, one a line
//!   heartbeat          the last signed heartbeat that counted: its time is when the control plane was last heard
//!   segments/<sha256>
//! ```
//!
//! Each file is written beside its place, synced, and renamed. Nothing is believed for standing there: every line has its signature,
//! every segment its name. The state has its proof in itself, so that it is whole between the writing of the two files; the
//! heartbeat beside it only says that it was still so later.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::state::{BadState, Followed, Reading};
use crate::revocation::{Heartbeat, Kind, PinnedKeys};

/// How often it is written at most where there is something new.
const NEWS: Duration = Duration::from_secs(1);
/// Another process that shares the folder may be about to rename its draft; a draft that is older is nobody's any more.
const DRAFT: Duration = Duration::from_mins(1);
/// And may be about to name the segment that it has just put there.
const UNNAMED: Duration = Duration::from_mins(10);

/// The folder.
#[derive(Debug, Clone)]
pub struct LastGood {
    folder: Arc<Path>,
    written: Option<Written>,
    busy: Arc<AtomicBool>,
    /// A write failed and it was said.
    failing: Arc<AtomicBool>,
    /// See [`LastGood::lacking`].
    lacking: Arc<Mutex<Vec<Box<str>>>>,
}

/// What was written last.
#[derive(Debug, Clone)]
struct Written {
    at: Instant,
    manifest: Arc<str>,
    last: u64,
}

/// What was read at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// When the control plane was last heard, in Unix milliseconds.
    pub heard: u64,
    /// The last change.
    pub n: u64,
}

/// Why there is no last good state.
#[derive(Debug, thiserror::Error)]
pub enum NotGood {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// It is not what was written.
    #[error("{0}: {1}")]
    Bad(PathBuf, BadState),
    /// It is not what the heartbeat speaks of.
    #[error("{0}: {1}")]
    Unproven(PathBuf, &'static str),
}

impl LastGood {
    /// In this folder, which is made when there is something to keep.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let (busy, failing, lacking) = Default::default();
        Self { folder: folder.into(), written: None, busy, failing, lacking }
    }

    /// Reads what is there, proves it, and puts it into the index; `None` if there is nothing.
    ///
    /// # Errors
    /// [`NotGood`]: then nothing of it is to be relied on.
    pub fn restore(&self, followed: &mut Followed) -> Result<Option<Restored>, NotGood> {
        let at = |name: &str| self.folder.join(name);
        let read = |name: &str| match std::fs::read_to_string(at(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NotGood::Io(at(name), error)),
        };
        clear_drafts(&self.folder);
        let Some(state) = read("state")? else { return Ok(None) };
        let bad = |bad| NotGood::Bad(at("state"), bad);
        let pinned = Arc::clone(followed.pinned());
        let latest = read("heartbeat")?.map(|line| open_heartbeat(&pinned, line.trim_end()));
        let latest = latest.transpose().map_err(|bad| NotGood::Bad(at("heartbeat"), bad))?;
        let mut lines = state.lines().peekable();
        // A load from disk proves nothing: the heartbeat of then is held against it here, and Redis' next one later.
        let mut reading = Reading::begin(&pinned, lines.next().unwrap_or_default(), 0).map_err(bad)?;
        let proof = lines.peek().and_then(|line| open_heartbeat(&pinned, line).ok());
        if proof.is_some() {
            lines.next();
        }
        let mut unproven = Vec::new();
        for segment in &reading.manifest.segments {
            let path = at("segments").join(&*segment.sha256);
            let bytes = std::fs::read(&path).map_err(|error| NotGood::Io(path.clone(), error))?;
            let applied = followed.target().apply_segment(&segment.sha256, &bytes);
            let applied = applied.map_err(|bad| NotGood::Bad(path.clone(), bad))?;
            unproven.extend(applied.unproven);
            if applied.records != segment.records {
                return Err(NotGood::Unproven(path, "it has another number of records than the manifest says"));
            }
        }
        reading.wait_for_proof(unproven);
        for line in lines {
            reading.change(&pinned, followed.target(), line).map_err(bad)?;
        }
        // One without its proof in itself is from an older doorward.
        let Some(proof) = proof.or(latest) else { return Ok(None) };
        if !reading.is_what_it_says(&proof) {
            return Err(NotGood::Unproven(at("state"), "it is not what its heartbeat speaks of"));
        }
        reading.confirmed(followed.target());
        let later = latest.filter(|later| later.n >= proof.n && reading.has_all_that_it_knows(later));
        let heard = later.map_or(proof.at, |later| later.at.max(proof.at));
        let n = reading.last();
        reading.manifest.segments.into_iter().for_each(|segment| followed.segment_applied(segment.sha256));
        Ok(Some(Restored { heard, n }))
    }

    /// Puts a segment there. That it could not is told with the state, which lacks it then.
    pub(super) fn put_segment(&self, sha256: &str, bytes: &[u8]) {
        let folder = self.folder.join("segments");
        let path = folder.join(sha256);
        // A file of this name may be an empty one, of a machine that lost power over it.
        if std::fs::read(&path).map_or(true, |held| held != bytes) {
            let _ = make(&folder).and_then(|()| replace(&path, bytes));
        }
    }

    /// The segments that the state which should have been written lacks: they have to be fetched again.
    pub(super) fn lacking(&self) -> Vec<Box<str>> {
        std::mem::take(&mut *self.lacking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Writes a state beside the loop, unless that was done a moment ago.
    pub(super) fn keep(&mut self, kept: &Kept, at_most_every: Duration) {
        let last = kept.last;
        let same = !self.is_failing()
            && self.written.as_ref().is_some_and(|written| written.last == last && written.manifest == kept.manifest);
        // What is new in it would be forgotten by a process that dies now and starts without Redis.
        let at_most_every = if same { at_most_every } else { NEWS };
        if self.written.as_ref().is_some_and(|written| written.at.elapsed() < at_most_every)
            || self.busy.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.written = Some(Written { at: Instant::now(), manifest: Arc::clone(&kept.manifest), last });
        let (folder, busy, failing) = (Arc::clone(&self.folder), Arc::clone(&self.busy), Arc::clone(&self.failing));
        let state = (!same).then(|| kept.clone());
        let heartbeat = kept.heartbeat.clone();
        let lacking = Arc::clone(&self.lacking);
        tokio::task::spawn_blocking(move || {
            let written =
                state.map_or(Ok(()), |state| write_state(&folder, &state, &lacking)).and_then(|()| match &heartbeat {
                    Some(line) => replace(&folder.join("heartbeat"), format!("{line}\n").as_bytes()),
                    None => Ok(()),
                });
            match written {
                Ok(()) => failing.store(false, Ordering::Release),
                Err(error) if !failing.swap(true, Ordering::AcqRel) => {
                    tracing::warn!(folder = %folder.display(), %error, "the last good state cannot be kept ([revocation] last_good)");
                }
                Err(_) => {}
            }
            busy.store(false, Ordering::Release);
        });
    }
}

fn open_heartbeat(pinned: &PinnedKeys, line: &str) -> Result<Heartbeat, BadState> {
    pinned.open(Kind::Heartbeat, line).map_err(|why| BadState::Line { what: "the heartbeat", why: why.to_string() })
}

fn write_state(folder: &Path, kept: &Kept, lacking: &Mutex<Vec<Box<str>>>) -> io::Result<()> {
    let segments = folder.join("segments");
    make(&segments)?;
    let is_there = |(name, bytes): &&(Box<str>, u64)| {
        std::fs::metadata(segments.join(&**name)).is_ok_and(|file| file.len() == *bytes)
    };
    let missing: Vec<Box<str>> =
        kept.segments.iter().filter(|it| !is_there(it)).map(|(name, _)| name.clone()).collect();
    if !missing.is_empty() {
        let error = format!("{} segments are not there; they are fetched again", missing.len());
        *lacking.lock().unwrap_or_else(PoisonError::into_inner) = missing;
        return Err(io::Error::other(error));
    }
    let mut text = String::from(&*kept.manifest);
    text.push('\n');
    for line in kept.proof.as_deref().into_iter().chain(kept.changes.iter()) {
        text.push_str(line);
        text.push('\n');
    }
    replace(&folder.join("state"), text.as_bytes())?;
    clear_drafts(folder);
    let named: BTreeSet<&str> = kept.segments.iter().map(|(name, _)| &**name).collect();
    for entry in std::fs::read_dir(&segments)?.flatten() {
        let name = entry.file_name();
        if name.to_str().is_none_or(|name| !named.contains(name)) && is_older(&entry, UNNAMED) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Removes what processes left that were killed over it.
fn clear_drafts(folder: &Path) {
    let is_draft = |name: &str| name.starts_with("state.") || name.starts_with("heartbeat.");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_draft) && is_older(&entry, DRAFT) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_older(entry: &std::fs::DirEntry, than: Duration) -> bool {
    let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > than)
}

fn make(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A reader sees the old file or the new one, also after a crash. The draft's name is its own: processes may share the folder.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", uuid::Uuid::now_v7()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
#[path = "last_good_tests.rs"]
mod tests;
