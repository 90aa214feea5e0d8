//! One key after another: the next is published before it signs, and the old one verifies until its tokens are dead.
//!
//! ```text
//!          rotate          signs_from               verifies_until
//!  next ─────┼── published ────┼── signs ──────────────────┼──────────▶
//!  old  ─────┼── signs ────────┼── verifies (retiring) ────┤ gone
//! ```
//!
//! The times stand in the key file, in members of doorward's own beside each key ([`Life`](crate::token::jwk::Life)), so that every process that follows the
//! file does the same at the same moment, by its clock.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{folder_of, load_or_create, parse, read, sync_folder};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::token::issuer::Algorithm;
use crate::token::jwk::{KeySetError, REVOKED, SIGNS_FROM, VERIFIES_UNTIL};
use crate::token::key_material;
use crate::token::verify::whole_seconds;

/// A draft is written in moments; one of this age was left by a process that is gone.
const ABANDONED: Duration = Duration::from_mins(1);

/// What kind of rotation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The new key's algorithm.
    pub algorithm: Algorithm,
    /// How long the new key is published before it signs; `None`: it signs at once, also in place of one that waits, for it was in
    /// the same file as the one that leaked.
    pub overlap: Option<Duration>,
    /// How long a token lives, leeway included.
    pub tokens_live: Duration,
}

/// What a rotation made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// `kid` of the new key.
    pub key_id: String,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// When the last token of the old keys is dead.
    pub old_until: Timestamp,
}

/// Why nothing was rotated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// The file.
    #[error(transparent)]
    Keys(#[from] KeySetError),
    /// There is a next key already.
    #[error("the key {key_id} waits already, and signs in {seconds} s; --now makes another that signs at once")]
    Waits {
        /// Its `kid`.
        key_id: String,
        /// Until it signs.
        seconds: i64,
    },
}

/// Adds a new key to the file at `path`, which is made if it is not there, and drops those whose tokens are dead.
///
/// # Errors
/// [`RotateError`]; the file is as it was then.
pub fn rotate(
    path: &Path,
    algorithms: &[Algorithm],
    rotation: Rotation,
    now: Timestamp,
) -> Result<Rotated, RotateError> {
    load_or_create(path, algorithms)?;
    let path = &led_to(path)?;
    let _locked = lock(path)?;
    let mut keys = members(path, algorithms)?;
    let time = |key: &Map<String, Value>, member: &str| key.get(member).and_then(Value::as_i64);
    let waits = |key: &Map<String, Value>| time(key, SIGNS_FROM).filter(|from| *from > now.0);
    keys.retain(|key| time(key, VERIFIES_UNTIL).is_none_or(|until| until > now.0));
    if rotation.overlap.is_none() {
        // It never signed, so nothing verifies by it.
        keys.retain(|key| waits(key).is_none());
    } else if let Some((key, from)) = keys.iter().find_map(|key| Some((key, waits(key)?))) {
        let key_id = key.get("kid").and_then(Value::as_str).unwrap_or("without kid").to_owned();
        return Err(RotateError::Waits { key_id, seconds: from - now.0 });
    }
    let signs_from = now.plus(rotation.overlap.map_or(0, whole_seconds));
    let old_until = signs_from.plus(whole_seconds(rotation.tokens_live));
    for key in &mut keys {
        if key.contains_key("d") && !key.contains_key(VERIFIES_UNTIL) {
            key.insert(VERIFIES_UNTIL.into(), old_until.0.into());
        }
    }
    let mut new = key_material::generate(rotation.algorithm).map_err(KeySetError)?;
    new.insert(SIGNS_FROM.into(), signs_from.0.into());
    let key_id = new.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
    keys.push(new);
    write(path, &keys, algorithms)?;
    Ok(Rotated { key_id, signs_from, old_until })
}

/// Writes beside a key that it is revoked, so that whoever reads the file never signs with it (T18). `false`: it is not in the file,
/// or that stands there already.
///
/// # Errors
/// [`KeySetError`] if the file cannot be read or written.
pub fn mark_revoked(path: &Path, algorithms: &[Algorithm], key_id: &str) -> Result<bool, KeySetError> {
    let path = &led_to(path)?;
    let _locked = lock(path)?;
    let mut keys = members(path, algorithms)?;
    let open = |key: &&mut Map<String, Value>| {
        key.get("kid").and_then(Value::as_str) == Some(key_id) && key.get(REVOKED) != Some(&Value::Bool(true))
    };
    let Some(key) = keys.iter_mut().find(open) else { return Ok(false) };
    key.insert(REVOKED.into(), true.into());
    write(path, &keys, algorithms)?;
    Ok(true)
}

/// The file itself: a link to it stays a link, and whichever way two processes come, they find one lock.
fn led_to(path: &Path) -> Result<PathBuf, KeySetError> {
    path.canonicalize()
        .map_err(|error| KeySetError(format!("{}: the key file cannot be found: {error}", path.display())))
}

/// The keys of a file that was found good.
fn members(path: &Path, algorithms: &[Algorithm]) -> Result<Vec<Map<String, Value>>, KeySetError> {
    let document = read(path)?;
    parse(path, &document, algorithms)?;
    let malformed = |_| KeySetError(format!("{}: it is no JSON", path.display()));
    let mut document: Map<String, Value> = serde_json::from_slice(document.expose()).map_err(malformed)?;
    let keys = match document.remove("keys") {
        Some(Value::Array(keys)) => keys,
        // One key alone is a set too (`KeySet::parse`).
        _ => vec![Value::Object(document)],
    };
    Ok(keys.into_iter().filter_map(|key| if let Value::Object(key) = key { Some(key) } else { None }).collect())
}

/// Replaces the file whole: who reads it sees the old one or the new one.
fn write(path: &Path, keys: &[Map<String, Value>], algorithms: &[Algorithm]) -> Result<(), KeySetError> {
    let failed = |error: std::io::Error| KeySetError(format!("{}: it cannot be written: {error}", path.display()));
    let document = Secret::new(json!({ "keys": keys }).to_string().into_bytes());
    // What could not be read again is not written.
    parse(path, &document, algorithms)?;
    let draft = beside(path, &uuid::Uuid::now_v7().to_string());
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        keep_owner(&file, path)?;
        file.write_all(document.expose())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        sync_folder(path)
    })();
    if written.is_err() {
        // Its only use is over, and it holds private keys.
        let _ = std::fs::remove_file(&draft);
    }
    written.map_err(failed)
}

/// Whose `path` is, theirs is this file too: a process of root's that shares the keys with another user's must not take them away.
fn keep_owner(file: &File, path: &Path) -> std::io::Result<()> {
    let (wanted, found) = (std::fs::metadata(path)?, file.metadata()?);
    if rustix::process::geteuid().is_root() && (wanted.uid(), wanted.gid()) != (found.uid(), found.gid()) {
        fchown(file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    Ok(())
}

/// Removes what processes that were killed have left beside the key file: drafts with private keys, which nobody will ever finish.
///
/// What cannot be removed now is for the next start; the keys are good all the same.
pub(super) fn sweep(path: &Path) {
    let Ok(path) = led_to(path) else { return };
    let left = abandoned(&path);
    if left.is_empty() {
        return;
    }
    // Who holds it may be about to give a draft its name.
    let Ok(_locked) = lock(&path) else { return };
    for draft in left {
        let _ = std::fs::remove_file(draft);
    }
}

/// Drafts of this key file that are older than any that is still being written.
fn abandoned(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder_of(path)) else { return Vec::new() };
    let is_draft = |entry: &std::fs::DirEntry| {
        let (name, own) = (entry.file_name(), path.file_name().unwrap_or_default());
        let suffix =
            name.as_encoded_bytes().strip_prefix(own.as_encoded_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        suffix.is_some_and(|suffix| uuid::Uuid::try_parse_ascii(suffix).is_ok())
    };
    let is_old = |entry: &std::fs::DirEntry| {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > ABANDONED))
    };
    entries.flatten().filter(|entry| is_draft(entry) && is_old(entry)).map(|entry| entry.path()).collect()
}

/// Held while the file is read, changed and written. It lies beside the file, which is replaced.
fn lock(path: &Path) -> Result<File, KeySetError> {
    let beside = beside(path, "lock");
    let failed = |error: std::io::Error| KeySetError(format!("{}: it cannot be locked: {error}", beside.display()));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&beside).map_err(failed)?;
    keep_owner(&file, path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn beside(path: &Path, name: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{name}"));
    PathBuf::from(beside)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::token::jwk::KeySet;

    const NOW: Timestamp = Timestamp(1_800_000_000);
    const ALL: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];

    fn rotation(overlap: Option<u64>) -> Rotation {
        let tokens_live = Duration::from_secs(3630);
        Rotation { algorithm: Algorithm::ES256, overlap: overlap.map(Duration::from_secs), tokens_live }
    }

    fn keys(path: &Path) -> KeySet {
        load_or_create(path, &ALL).unwrap()
    }

    fn signs(path: &Path, now: Timestamp) -> String {
        keys(path).signing_key_at(now).unwrap().id.as_deref().unwrap().to_owned()
    }

    fn published(path: &Path, now: Timestamp) -> Vec<String> {
        let set = keys(path).public_jwks_at(now);
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_next_key_is_published_before_it_signs_and_the_old_one_verifies_until_its_tokens_are_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("keys.json");
        let old = keys(path).keys[0].id.as_deref().unwrap().to_owned();
        let rotated = rotate(path, &ALL, rotation(Some(600)), NOW).unwrap();
        let new = rotated.key_id.clone();
        assert_eq!((rotated.signs_from, rotated.old_until), (NOW.plus(600), NOW.plus(4230)));
        assert_eq!(
            (signs(path, NOW), signs(path, NOW.plus(599)), signs(path, NOW.plus(600))),
            (old.clone(), old.clone(), new.clone())
        );
        assert_eq!(published(path, NOW), [old.clone(), new.clone()]);
        assert_eq!(published(path, NOW.plus(4229)), [old, new.clone()]);
        assert_eq!(published(path, NOW.plus(4230)), std::slice::from_ref(&new));
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(
            rotate(path, &ALL, rotation(Some(600)), NOW.plus(9)),
            Err(RotateError::Waits { seconds: 591, .. })
        ));
        // The dead are dropped by the next.
        let third = rotate(path, &ALL, rotation(Some(600)), NOW.plus(5000)).unwrap().key_id;
        assert_eq!(published(path, NOW), [new, third]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the file and its lock");
    }

    #[test]
    fn t18_in_an_emergency_the_new_key_signs_at_once_and_the_one_that_waited_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("keys.json");
        let old = keys(path).keys[0].id.as_deref().unwrap().to_owned();
        let waiting = rotate(path, &ALL, rotation(Some(600)), NOW).unwrap().key_id;
        assert!(mark_revoked(path, &ALL, &old).unwrap());
        assert!(!mark_revoked(path, &ALL, &old).unwrap() && !mark_revoked(path, &ALL, "nobody's").unwrap());
        assert!(keys(path).signing_key_at(NOW).is_none(), "a revoked key signs nothing");
        assert_eq!(published(path, NOW), std::slice::from_ref(&waiting));
        let new = rotate(path, &ALL, rotation(None), NOW).unwrap();
        assert_eq!((signs(path, NOW), new.signs_from), (new.key_id.clone(), NOW));
        assert_eq!(published(path, NOW), [new.key_id]);
        assert!(keys(path).keys.iter().all(|key| key.id.as_deref() != Some(&waiting)));
    }

    #[test]
    fn a_link_stays_a_link_and_what_it_leads_to_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real/keys.json"), folder.path().join("keys.json"));
        let old = keys(&real).keys[0].id.as_deref().unwrap().to_owned();
        std::os::unix::fs::symlink("real/keys.json", &link).unwrap();
        rotate(&link, &ALL, rotation(None), NOW).unwrap();
        assert_eq!(keys(&real).keys.len(), 2);
        assert!(mark_revoked(&link, &ALL, &old).unwrap());
        assert!(keys(&real).keys.iter().any(|key| key.life.revoked));
        assert!(link.symlink_metadata().unwrap().is_symlink());
        // Whichever way they come, they wait for each other.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the link and the folder");
    }

    #[test]
    fn drafts_of_a_process_that_was_killed_are_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (&folder.path().join("keys.json"), folder.path().join("link.json"));
        keys(path);
        std::os::unix::fs::symlink("keys.json", &link).unwrap();
        let write = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        let id = uuid::Uuid::now_v7();
        write(&format!("keys.json.{id}"), 120);
        let kept = [
            (format!("keys.json.{}", uuid::Uuid::now_v7()), 0),
            (format!("other.json.{id}"), 120),
            (format!("keys.json{id}"), 120),
            ("keys.json.backup".to_owned(), 120),
        ];
        kept.iter().for_each(|(name, age)| write(name, *age));
        keys(&link);
        assert!(!folder.path().join(format!("keys.json.{id}")).exists(), "nobody will finish it");
        for (name, _) in kept {
            assert!(folder.path().join(&name).exists(), "{name}");
        }
        assert_eq!(keys(path).keys.len(), 1);
    }

    #[test]
    fn whose_file_it_is_stays_whose_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("keys.json");
        let old = keys(path).keys[0].id.as_deref().unwrap().to_owned();
        // Only root can give a file away, and can write one of somebody else.
        if std::os::unix::fs::chown(path, Some(65534), Some(65534)).is_err() {
            return;
        }
        assert!(mark_revoked(path, &ALL, &old).unwrap());
        for path in [path.clone(), beside(path, "lock")] {
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65534, 65534, 0o600), "{}", path.display());
        }
    }

    #[test]
    fn rotations_at_once_come_one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("keys.json");
        keys(path);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| rotate(path, &ALL, rotation(None), NOW).unwrap());
            }
        });
        assert_eq!(keys(path).keys.len(), 9);
    }
}
