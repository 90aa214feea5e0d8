//! doorward's own signing keys in a file, made at the first start.
//!
//! The only file access in this room: the file is read and written nowhere else, and its mode and exclusive
//! creation are part of what makes the keys trustworthy.

mod rotate;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde_json::Value;

use super::issuer::Algorithm;
use super::json::decode_base64url;
use super::jwk::{KeySet, KeySetError};
use super::key_material::ed25519_pkcs8;
use crate::secret::Secret;

pub use self::rotate::{RotateError, Rotated, Rotation, mark_revoked, rotate};

/// Largest key file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads the private JWK set at `path`, or makes one (mode 0600) with a new key of the first of `algorithms`.
///
/// Two processes that start at once end with the same key: the file is written whole beside its place and linked
/// there only if nothing is there yet.
///
/// # Errors
/// [`KeySetError`] when the file cannot be read or made, is readable by group or others, or holds no usable private key.
pub fn load_or_create(path: &Path, algorithms: &[Algorithm]) -> Result<KeySet, KeySetError> {
    let keys = parse(path, &document(path, algorithms)?, algorithms)?;
    rotate::sweep(path);
    Ok(keys)
}

/// What the key file at `path` holds now, to be handed to [`parse`].
///
/// # Errors
/// As [`load_or_create`]; it is not made where it is missing.
pub fn read(path: &Path) -> Result<Secret, KeySetError> {
    let file = File::open(path)
        .map_err(|error| KeySetError(format!("{}: the key file cannot be read: {error}", path.display())))?;
    read_private(path, file)
}

/// The keys of a key file's content.
///
/// # Errors
/// [`KeySetError`] where there is no usable private key.
pub fn parse(path: &Path, document: &Secret, algorithms: &[Algorithm]) -> Result<KeySet, KeySetError> {
    let keys = KeySet::parse_file(path, document.expose(), algorithms)?;
    // Tokens are out that were signed with it, or nobody would have it here.
    if let Some(unlisted) = keys.unfit.first() {
        return Err(KeySetError(unlisted.clone()));
    }
    if keys.signing_key().is_none() {
        return Err(KeySetError(format!(
            "{}: none of the keys has its private half; doorward signs with it",
            path.display()
        )));
    }
    Ok(keys)
}

/// The bytes of the key file, made where there is none.
fn document(path: &Path, algorithms: &[Algorithm]) -> Result<Secret, KeySetError> {
    let failed = |what: &str, error: &std::io::Error| KeySetError(format!("{}: {what}: {error}", path.display()));
    Ok(match File::open(path) {
        Ok(file) => read_private(path, file)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let algorithm = algorithms.first().copied().unwrap_or(Algorithm::EdDSA);
            let document = KeySet::generate(algorithm)?;
            let folder = folder_of(path);
            if !folder.exists() {
                let made = std::fs::create_dir_all(folder).and_then(|()| sync_folder(folder));
                made.map_err(|error| failed("the folder cannot be made", &error))?;
            }
            let written =
                write_once(path, &document).map_err(|error| failed("the key file cannot be written", &error))?;
            if written {
                document
            } else {
                // Another process was quicker: its key is the key.
                let file = File::open(path).map_err(|error| failed("the key file cannot be read", &error))?;
                read_private(path, file)?
            }
        }
        Err(error) => return Err(failed("the key file cannot be read", &error)),
    })
}

/// The key of a control plane, for rooms that do not know key sets.
#[derive(Debug)]
pub struct PublicationFile {
    /// The first private key, as a PKCS #8 document.
    pub pkcs8: Secret,
    /// The public halves of all keys in the file, in base64url: what older keys signed is still believed.
    pub public: Vec<String>,
}

/// Reads the Ed25519 keys at `path` (`[publication] key_file`), or makes a file with a new one, as [`load_or_create`] does.
///
/// # Errors
/// As [`load_or_create`].
pub fn load_or_create_publication(path: &Path) -> Result<PublicationFile, KeySetError> {
    let keys = load_or_create(path, &[Algorithm::EdDSA])?;
    let unusable = || KeySetError(format!("{}: it holds no Ed25519 key with its private half", path.display()));
    let document = document(path, &[Algorithm::EdDSA])?;
    let document: Value = serde_json::from_slice(document.expose()).map_err(|_| unusable())?;
    let one = std::slice::from_ref(&document);
    let jwks = document.get("keys").and_then(Value::as_array).map_or(one, Vec::as_slice);
    let member = |jwk: &Value, name: &str| jwk.get(name).and_then(Value::as_str).and_then(decode_base64url);
    let private = jwks.iter().find_map(|jwk| Some((member(jwk, "x")?, zeroize::Zeroizing::new(member(jwk, "d")?))));
    let (x, d) = private.ok_or_else(unusable)?;
    let pkcs8 = ed25519_pkcs8(&x, &d).map_err(|_| unusable())?;
    let public = keys.public_jwks();
    let public = public["keys"].as_array().into_iter().flatten().filter_map(|jwk| jwk["x"].as_str());
    Ok(PublicationFile { pkcs8: Secret::new(pkcs8.to_vec()), public: public.map(str::to_owned).collect() })
}

fn read_private(path: &Path, file: File) -> Result<Secret, KeySetError> {
    let failed =
        |error: std::io::Error| KeySetError(format!("{}: the key file cannot be read: {error}", path.display()));
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        let (path, mode) = (path.display(), metadata.mode() & 0o777);
        return Err(KeySetError(format!(
            "{path}: others can read the private keys (mode {mode:04o}); run chmod 600 {path}"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Secret::new(bytes))
}

/// Whether the file was written; `false` if there was one already.
fn write_once(path: &Path, document: &Secret) -> std::io::Result<bool> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", uuid::Uuid::now_v7()));
    let draft = Path::new(&draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
        file.write_all(document.expose())?;
        file.sync_all()?;
        match std::fs::hard_link(draft, path) {
            // Whoever pinned the public half is lost when a power cut takes the name away again.
            Ok(()) => sync_folder(path).map(|()| true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    })();
    // The draft's only use is over, and a failure to remove it takes nothing from the result.
    let _ = std::fs::remove_file(draft);
    written
}

/// Makes the names in the folder of `path` outlive a power cut.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::load_or_create;
    use crate::token::Algorithm;

    #[test]
    fn the_first_start_makes_a_key_and_the_second_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/keys.json");
        let first = load_or_create(&path, &[Algorithm::EdDSA]).unwrap();
        let second = load_or_create(&path, &[Algorithm::EdDSA]).unwrap();
        assert_eq!(first.keys[0].id, second.keys[0].id);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn threads_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("keys.json");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(path, &[Algorithm::ES256]).unwrap().keys[0].id.clone()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    }

    #[test]
    fn a_file_that_others_can_read_or_that_cannot_sign_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = load_or_create(&path, &[Algorithm::EdDSA]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_or_create(&path, &[Algorithm::EdDSA]).unwrap_err().0.contains("chmod 600"));
        std::fs::write(&path, keys.public_jwks().to_string()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load_or_create(&path, &[Algorithm::EdDSA]).unwrap_err().0.contains("private half"));
    }
}
