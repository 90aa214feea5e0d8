//! Whose files a command works on. What root writes for a process of another user, that could not read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::bail;

/// Refuses to write at `path` as root where it, or what it would be made in, belongs to somebody else.
///
/// # Errors
/// Whose it is, and how the command is run as that user.
pub fn refuse_another_owner(path: &Path) -> anyhow::Result<()> {
    if let Some(owner) = another_owner(path) {
        bail!("{} belongs to user {owner}: run this as that user (sudo -u '#{owner}' doorward …)", path.display());
    }
    Ok(())
}

/// Who owns the path, or what it would be made in, if root asks and it is not root. A link is whose it leads to.
fn another_owner(path: &Path) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owner = path.ancestors().find_map(|at| {
        let at = if at.as_os_str().is_empty() { Path::new(".") } else { at };
        at.metadata().ok()
    });
    owner.map(|found| found.uid()).filter(|owner| *owner != 0)
}
