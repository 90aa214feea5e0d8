//! Reading policy and roles files from disk; the only file access of this room.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::SourceText;

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {error}")]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: std::io::Error,
}

/// Reads one file; its name is the path as given.
///
/// # Errors
/// [`LoadError`] if it cannot be read or is not UTF-8.
pub fn read(path: &Path) -> Result<Arc<SourceText>, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|error| LoadError { path: path.to_owned(), error })?;
    Ok(Arc::new(SourceText { name: path.display().to_string(), text }))
}
