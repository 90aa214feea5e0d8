//! Key sets in files: read again and again, taken when they have changed and settled.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::{Followed, reached};
use crate::secret::Secret;
use crate::token::{Algorithm, KeySet, KeySetError, local_keys};

/// How often a file is read. A change counts once two readings in a row agree, within the 2 s that policies take too.
const PERIOD: Duration = Duration::from_millis(500);
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// doorward's own private keys.
    Own,
    /// Somebody's key set.
    Foreign,
}

/// A file that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedFile {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: Content,
    /// How long the last good set is used once no good one stands there any more; `None`: for ever.
    pub max_age: Option<Duration>,
}

/// One reading: the content, or why there is none, in words that stay the same as long as the reason does.
type Reading = Result<[u8; 32], String>;

impl FollowedFile {
    /// Reads the file until the task is dropped. A bad change leaves the old keys in force, up to `max_age`, and is told once.
    pub(super) async fn follow(self, followed: Followed) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut judged): (Option<Reading>, Option<Reading>) = (None, None);
        let mut sound = true;
        // What stood there at the start was good then.
        let after = |max_age: Option<Duration>| max_age.map(|age| Instant::now() + age);
        let mut too_old = after(self.max_age);
        loop {
            let file = self.clone();
            let mut looking = pin!(async {
                ticks.tick().await;
                // On a thread of its own: a file system that does not answer holds up nobody.
                tokio::task::spawn_blocking(move || file.read()).await
            });
            let read = loop {
                tokio::select! {
                    read = &mut looking => break read,
                    () = reached(too_old) => {
                        too_old = None;
                        // Told again, and put in force, as soon as it can be read.
                        judged = None;
                        followed.too_old(self.max_age.unwrap_or_default());
                    }
                }
            };
            let Ok(read) = read else { continue };
            let reading: Reading = match &read {
                Ok(document) => Ok(hash(document)),
                Err(error) => Err(error.to_string()),
            };
            let settled = last.as_ref() == Some(&reading);
            last = Some(reading.clone());
            if !settled {
                continue;
            }
            if judged.as_ref() == Some(&reading) {
                if sound {
                    too_old = after(self.max_age);
                    followed.count.confirm();
                }
                continue;
            }
            judged = Some(reading);
            let parsed = read.and_then(|document| self.parse(&document, &followed.algorithms));
            sound = parsed.is_ok();
            match parsed {
                Ok(set) => {
                    too_old = after(self.max_age);
                    followed.put_in_force(set, None);
                }
                Err(error) => followed.refused(&error),
            }
        }
    }

    fn read(&self) -> Result<Secret, KeySetError> {
        match self.content {
            Content::Own => local_keys::read(&self.path),
            Content::Foreign => read_bounded(&self.path).map(Secret::new),
        }
    }

    fn parse(&self, document: &Secret, algorithms: &[Algorithm]) -> Result<KeySet, KeySetError> {
        match self.content {
            Content::Own => local_keys::parse(&self.path, document, algorithms),
            Content::Foreign => KeySet::parse_file(&self.path, document.expose(), algorithms),
        }
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KeySetError> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| KeySetError(format!("{}: it cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Kept in place of the content, which may be private.
fn hash(document: &Secret) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, document.expose()).as_ref());
    hash
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::eventually;
    use super::*;
    use crate::clock::Timestamp;
    use crate::token::IssuerKeys;

    #[tokio::test]
    async fn t18_the_keys_of_a_file_that_is_gone_or_spoilt_grow_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let made = KeySet::generate(Algorithm::EdDSA).unwrap();
        std::fs::write(&path, made.expose()).unwrap();
        let keys = IssuerKeys::fixed(KeySet::parse_file(&path, made.expose(), &[Algorithm::EdDSA]).unwrap());
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let followed = Followed {
            issuer: "kc".into(),
            algorithms: [Algorithm::EdDSA].into(),
            keys: Arc::clone(&keys),
            count: Arc::default(),
            changed: Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }),
        };
        let file = |max_age| FollowedFile { path: path.clone(), content: Content::Foreign, max_age };
        let good = || keys.is_good(Timestamp::now());
        let age = Duration::from_secs(2);
        let following = tokio::spawn(file(Some(age)).follow(followed.clone()));
        for spoil in [None, Some("{")] {
            // A file that stands there is as fresh as ever.
            tokio::time::sleep(age * 2).await;
            eventually("a good file is good", good).await;
            let (before, spoilt) = (told.load(Ordering::SeqCst), Instant::now());
            match spoil {
                None => std::fs::remove_file(&path).unwrap(),
                Some(text) => std::fs::write(&path, text).unwrap(),
            }
            eventually("the keys are too old", || !good()).await;
            assert!(spoilt.elapsed() > age / 2, "not at once");
            assert!(told.load(Ordering::SeqCst) > before, "who has decided by them decides again (T20)");
            std::fs::write(&path, made.expose()).unwrap();
            eventually("the same keys are good once more", good).await;
        }
        following.abort();
        // doorward's own keys do not age.
        std::fs::remove_file(&path).unwrap();
        let following = tokio::spawn(file(None).follow(followed));
        tokio::time::sleep(age * 2).await;
        assert!(good());
        following.abort();
    }
}
