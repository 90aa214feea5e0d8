//! The folder and its files: their places, modes, locks, and how one is replaced whole.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::LedgerError;
use super::steps::{Step, Steps};

/// How long another process may hold the lock: an `fsync` of a slow disk takes a second at most.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_NAP: Duration = Duration::from_millis(4);

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Where a test lets a process die.
    pub(super) steps: Steps,
}

/// Which file lies at a path, and which of its states. Two looks at an unchanged file give equal stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) file: (u64, u64),
    pub(super) bytes: u64,
    modified: (i64, i64),
}

/// A lock that is held until it is dropped, or its process dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, steps: Steps::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.path.join("manifest")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("changes.log")
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    pub(super) fn segment(&self, sha256: &str) -> PathBuf {
        self.segments().join(sha256)
    }

    /// Makes the folder, for nobody else's eyes.
    pub(super) fn make(&self) -> Result<(), LedgerError> {
        let segments = self.segments();
        if segments.is_dir() {
            return Ok(());
        }
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(LedgerError::io(parent, "the folder cannot be made"))?;
        for path in [&self.path, &segments] {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(LedgerError::io(path, "the folder cannot be made")(error));
                }
                _ => {}
            }
        }
        for path in [parent, &self.path] {
            sync_folder(path)?;
        }
        Ok(())
    }

    /// Takes the lock under which the log is appended to and the manifest swapped.
    pub(super) fn lock(&self) -> Result<Lock, LedgerError> {
        let (path, file) = self.lock_file("lock")?;
        let begun = Instant::now();
        let mut nap = Duration::from_micros(250);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(nap);
                    nap = (nap * 2).min(LONGEST_NAP);
                }
                Err(TryLockError::WouldBlock) => {
                    let late = io::Error::from(ErrorKind::TimedOut);
                    return Err(LedgerError::io(&path, "another process has held the lock for over 10 s")(late));
                }
                Err(TryLockError::Error(error)) => return Err(LedgerError::io(&path, "it cannot be locked")(error)),
            }
        }
    }

    /// Takes the lock of whoever makes segments, unless somebody has it.
    pub(super) fn try_lock_segments(&self) -> Result<Option<Lock>, LedgerError> {
        let (path, file) = self.lock_file("segments.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, "it cannot be locked")(error)),
        }
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), LedgerError> {
        let path = self.path.join(name);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        opened.map_err(LedgerError::io(&path, "the lock cannot be opened")).map(|file| (path, file))
    }

    /// Puts a file in its place, whole or not at all, and both on disk.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8], steps: [Step; 2]) -> Result<(), LedgerError> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.draft", uuid::Uuid::now_v7()));
        let draft = PathBuf::from(draft);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()
        })();
        let [before, after] = steps;
        self.steps.pass(before)?;
        let placed = written.and_then(|()| std::fs::rename(&draft, path));
        if let Err(error) = placed {
            // The draft is of no use, and what failed is told.
            let _ = std::fs::remove_file(&draft);
            return Err(LedgerError::io(path, "it cannot be written")(error));
        }
        self.steps.pass(after)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    }

    /// Opens the log for reading.
    pub(super) fn open_log(&self) -> Result<File, LedgerError> {
        let path = self.log();
        File::open(&path).map_err(|error| self.missing(&path, error))
    }

    /// The stamp of a file; `None` if there is none.
    pub(super) fn stamp(&self, path: &Path) -> Result<Option<Stamp>, LedgerError> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LedgerError::io(path, "it cannot be read")(error)),
        }
    }

    /// Reads a file that has to be there.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, LedgerError> {
        std::fs::read(path).map_err(|error| self.missing(path, error))
    }

    fn missing(&self, path: &Path, error: io::Error) -> LedgerError {
        if error.kind() != ErrorKind::NotFound {
            return LedgerError::io(path, "it cannot be read")(error);
        }
        self.broken(
            path,
            None,
            "it is missing",
            "put the folder back from a backup, or move it away and start with an empty one and `doorward revoke --everything`",
        )
    }

    #[expect(clippy::unused_self, reason = "it reads as what it is: the folder is broken")]
    pub(super) fn broken(
        &self,
        file: &Path,
        line: Option<usize>,
        what: impl Into<Arc<str>>,
        mend: &'static str,
    ) -> LedgerError {
        LedgerError::Broken { file: file.display().to_string().into(), line, what: what.into(), mend }
    }
}

impl Stamp {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

pub(super) fn sync_folder(path: &Path) -> Result<(), LedgerError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(LedgerError::io(path, "the folder cannot be written to disk"))
}
