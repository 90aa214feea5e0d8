//! What can go wrong with the folder. Cloned to every caller of a commit that failed.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// Why the folder could not be read or written. The text names the file, and the line and mend where there are.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The operating system refused: a full disk, a folder that may not be written.
    #[error("{file}: {what}: {error}")]
    Io {
        /// Which file.
        file: Arc<str>,
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: Arc<io::Error>,
    },
    /// The folder holds something that was never written so.
    #[error("{file}{}: {what}; {mend}", .line.map(|line| format!(" line {line}")).unwrap_or_default())]
    Broken {
        /// Which file.
        file: Arc<str>,
        /// From 1, in a file of lines.
        line: Option<usize>,
        /// What is wrong.
        what: Arc<str>,
        /// What to do.
        mend: &'static str,
    },
    /// This process has no publication key.
    #[error("this process has no publication key and cannot record a change ([publication] key_file)")]
    ReadOnly,
    /// What cannot be recorded at all.
    #[error("{0}")]
    Refused(Arc<str>),
    /// The ledger is closing.
    #[error("doorward is stopping")]
    Closed,
}

impl LedgerError {
    pub(super) fn io(file: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.display().to_string().into();
        move |error| Self::Io { file, what, error: Arc::new(error) }
    }
}
