//! Secrets, and files that hold what nobody else may know.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::path;
use crate::config::sources;
use crate::config::walk::Section;
use crate::secret::Secret;

/// A secret and the key where it stands: `key`, or `file_key`, which names a file that holds it. The environment's word counts over
/// the file's.
pub(super) fn secret<'k>(section: &Section<'_>, key: &'k str, file_key: &'k str) -> Option<(&'k str, Secret)> {
    let use_file = match (section.has(key), section.has(file_key)) {
        (false, false) => return None,
        (true, true) => match (section.is_from_environment(key), section.is_from_environment(file_key)) {
            (true, false) => false,
            (false, true) => true,
            _ => {
                section.mistake(key, format!("stands beside `{file_key}`"), "Keep one of the two.");
                return None;
            }
        },
        (_, has_file) => has_file,
    };
    if !use_file {
        return Some((key, Secret::new(section.text(key)?.as_bytes().to_vec())));
    }
    let file = path(section, file_key)?;
    warn_if_exposed(section, file_key, &file, "the secret");
    match sources::secret_file(&file) {
        Ok(bytes) => Some((file_key, Secret::new(bytes))),
        Err(message) => {
            section.mistake(file_key, message, "Name a readable file that holds the secret and nothing else.");
            None
        }
    }
}

/// Says so where others on this machine can read a file. It is no mistake: what mounts secrets into containers often knows no better.
pub(super) fn warn_if_exposed(section: &Section<'_>, key: &str, file: &Path, what: &str) {
    let Ok(metadata) = std::fs::metadata(file) else { return };
    if metadata.mode() & 0o044 != 0 {
        let (file, mode) = (file.display(), metadata.mode() & 0o777);
        section.warn(key, format!("others can read {what} in {file} (mode {mode:04o}); run chmod 600 {file}"));
    }
}

/// Whether two paths lead to one file, however they are written, also one that is still to be made.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    led_to(one) == led_to(other) || identity(one).is_some_and(|found| Some(found) == identity(other))
}

fn led_to(path: &Path) -> PathBuf {
    let to_be_made = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let found = path.canonicalize().ok().or_else(to_be_made);
    found.or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::is_same_file;

    #[test]
    fn one_file_is_known_by_whatever_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("keys"), "").unwrap();
        std::fs::write(at("other"), "").unwrap();
        std::fs::create_dir(at("data")).unwrap();
        std::os::unix::fs::symlink("keys", at("link")).unwrap();
        std::os::unix::fs::symlink("data", at("linked")).unwrap();
        std::fs::hard_link(at("keys"), at("hard")).unwrap();
        for (one, other) in [
            ("keys", "keys"),
            ("keys", "data/../keys"),
            ("keys", "link"),
            ("link", "hard"),
            ("data/new", "linked/new"),
            ("none/new", "none/./new"),
        ] {
            assert!(is_same_file(&at(one), &at(other)), "{one} {other}");
        }
        for (one, other) in [("keys", "other"), ("data/new", "data/newer"), ("none/new", "data/new"), ("keys", "new")] {
            assert!(!is_same_file(&at(one), &at(other)), "{one} {other}");
        }
        let relative = std::path::Path::new("no/such/file");
        assert!(is_same_file(relative, &std::env::current_dir().unwrap().join(relative)));
    }
}
