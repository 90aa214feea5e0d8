//! The default policy and roles files, which the binary brings along so that it runs from any directory.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::policy::SourceText;
use crate::policy::load::{self, LoadError};

/// The configuration that is read when no other is named, if it exists.
pub const DEFAULT_CONFIG: &str = "config/doorward.toml";

const FILES: [(&str, &str); 4] = [
    ("policies/oms.yaml", include_str!("../../policies/oms.yaml")),
    ("policies/oms.test.yaml", include_str!("../../policies/oms.test.yaml")),
    ("policies/admin.yaml", include_str!("../../policies/admin.yaml")),
    ("config/roles.yaml", include_str!("../../config/roles.yaml")),
];

/// The text of a default file, if `path` is exactly its default path.
#[must_use]
pub fn text(path: &Path) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| *text)
}

/// Reads a policy or roles file; a default file that does not exist comes from the binary, and its name says so.
///
/// # Errors
/// [`LoadError`] if it cannot be read, or is neither there nor a default.
pub fn read(path: &Path) -> Result<Arc<SourceText>, LoadError> {
    match load::read(path) {
        Err(failure) if failure.error.kind() == ErrorKind::NotFound => match text(path) {
            Some(text) => {
                Ok(Arc::new(SourceText { name: format!("{} (built in)", path.display()), text: text.to_owned() }))
            }
            None => Err(failure),
        },
        other => other,
    }
}
