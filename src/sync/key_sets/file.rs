//! Key sets in files: read again and again, taken when they have changed and settled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::Followed;
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
}

/// One reading: the content, or why there is none, in words that stay the same as long as the reason does.
type Reading = Result<[u8; 32], String>;

impl FollowedFile {
    /// Reads the file until the task is dropped. A bad change leaves the old keys in force, and is told once.
    pub(super) async fn follow(self, followed: Followed) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut judged): (Option<Reading>, Option<Reading>) = (None, None);
        let mut sound = true;
        loop {
            ticks.tick().await;
            let file = self.clone();
            // On a thread of its own: a file system that does not answer holds up nobody.
            let Ok(read) = tokio::task::spawn_blocking(move || file.read()).await else { continue };
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
                    followed.count.confirm();
                }
                continue;
            }
            judged = Some(reading);
            let parsed = read.and_then(|document| self.parse(&document, &followed.algorithms));
            sound = parsed.is_ok();
            match parsed {
                Ok(set) => {
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
