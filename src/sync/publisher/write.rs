//! Writing what stands in Redis: everything anew, or a newer manifest in the place of the last one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Memory, Publisher, Stand, Trouble};
use crate::clock::unix_millis;
use crate::ledger::{Ledger, LedgerError};
use crate::replication::{Installation, Link, Mark, Redis, Said, Standing};
use crate::revocation::{Kind, Manifest};

/// So many times in a row somebody may be quicker before it is told.
const IN_VAIN: u32 = 5;
/// How long after it was tried in vain a newer manifest is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A manifest of the folder that has more in its segments than what stands in Redis: the stream can be cut behind it.
#[derive(Debug)]
pub(super) struct Newer {
    manifest: Arc<Manifest>,
    /// The line that it is to replace.
    instead_of: String,
    /// How many changes are in its segments, and in the stream behind the base of the one that it replaces.
    gone: u64,
}

/// Uploads what Redis lacks of its segments. On a connection of its own: a segment may be as long on its way as it likes, or not get
/// there at all, and no heartbeat waits for it.
pub(super) async fn upload(redis: &Redis, ledger: &Arc<Ledger>, newer: &Newer) -> Result<(), Trouble> {
    let link = redis.connect().await?;
    for (sha256, bytes) in named(&newer.manifest) {
        if link.size(&sha256).await? != bytes {
            let (ledger, name) = (Arc::clone(ledger), sha256.clone());
            let read = tokio::task::spawn_blocking(move || ledger.segment(&name)).await;
            link.upload(&sha256, &read.map_err(|_| LedgerError::Closed)??).await?;
        }
    }
    Ok(())
}

impl Publisher {
    /// Writes everything from the truth under a new epoch. A reader sees what stood there, then the new manifest with its whole
    /// segments; the changes after it follow, and no heartbeat speaks of them before they are all there. Whether it was taken.
    pub(super) async fn rewrite(
        &self,
        link: &Link,
        memory: &mut Memory,
        head: &Standing,
        cause: &'static str,
    ) -> Result<bool, Trouble> {
        let begun = Instant::now();
        let Some(manifest) = self.ledger.manifest() else { return Ok(false) };
        // Above what anybody has signed; the head's epoch may be anything.
        let epoch = unix_millis().max(memory.epoch.saturating_add(1));
        let old = self.old_segments(link).await?;
        let stand = match self.install(link, &manifest, &head.mark(), epoch, true).await? {
            Ok(stand) => stand,
            Err(said) => {
                memory.in_vain += 1;
                if memory.in_vain.is_multiple_of(IN_VAIN) {
                    tracing::warn!(
                        cause,
                        ?said,
                        times = memory.in_vain,
                        "state and stream in Redis are to be written anew, and each time somebody else writes there meanwhile"
                    );
                }
                return Ok(false);
            }
        };
        memory.in_vain = 0;
        self.let_go(link, &old, &stand).await?;
        let (segments, base) = (stand.segments.len(), stand.base);
        (memory.epoch, memory.n) = (epoch, base);
        memory.checked = Some((stand.manifest.clone(), Instant::now()));
        memory.stand = Some(stand);
        self.metrics.rewritten(cause);
        let took = begun.elapsed();
        if cause == "first" {
            tracing::info!(epoch, segments, base, ?took, "revocations are published in Redis for the first time");
        } else {
            tracing::warn!(
                cause,
                epoch,
                segments,
                base,
                ?took,
                "state and stream in Redis were written anew from the truth, under a new epoch"
            );
        }
        Ok(true)
    }

    /// The manifest that is to be uploaded now, if there is a newer one in the folder.
    pub(super) fn newer(&self, memory: &mut Memory) -> Option<Newer> {
        let (stand, manifest) = (memory.stand.as_ref()?, self.ledger.manifest()?);
        let same = named(&manifest) == stand.segments && manifest.base == stand.base;
        let is_too_soon = memory.uploaded.is_some_and(|at| at.elapsed() < AGAIN);
        if same || is_too_soon {
            return None;
        }
        let state = self.ledger.state()?;
        let base = state.manifest.base;
        if base > stand.n || base < stand.base {
            return None;
        }
        let left = state.changes.partition_point(|recorded| recorded.change.n <= stand.n) as u64;
        memory.uploaded = Some(Instant::now());
        let gone = stand.after.saturating_sub(left);
        Some(Newer { manifest: state.manifest, instead_of: stand.manifest.clone(), gone })
    }

    /// A newer manifest could not be uploaded. What stands in Redis goes on without it.
    pub(super) fn is_not_uploaded(&self, memory: &mut Memory, newer: &Newer, why: &Trouble) {
        // It was replaced meanwhile, and its segments with it.
        if self.ledger.manifest().as_ref() != Some(&newer.manifest) {
            memory.uploaded = None;
            return;
        }
        let why = why.to_string();
        if memory.is_news(&why) {
            tracing::warn!(
                why,
                "segments cannot be written to Redis; what is revoked is published all the same, but the stream there grows until they \
                 can"
            );
        }
    }

    /// Puts a newer manifest in force, whose segments are there.
    pub(super) async fn tidy(&self, link: &Link, memory: &mut Memory, newer: Newer) -> Result<(), Trouble> {
        let Some(stand) = memory.stand.as_ref().filter(|stand| stand.manifest == newer.instead_of) else {
            memory.uploaded = None;
            return Ok(());
        };
        // Another process on the same folder may have been quicker, and have cut the stream behind a newer one still.
        if link.manifest().await?.as_ref() != Some(&newer.instead_of) {
            (memory.stand, memory.uploaded) = (None, None);
            return Ok(());
        }
        let (n, after, mark) = (stand.n, stand.after.saturating_sub(newer.gone), Mark::of(stand.epoch, stand.truth));
        memory.stand = match self.install(link, &newer.manifest, &mark, stand.epoch, false).await? {
            Ok(installed) => {
                self.let_go(link, &stand.segments, &installed).await?;
                memory.uploaded = None;
                tracing::debug!(
                    base = installed.base,
                    segments = installed.segments.len(),
                    "a newer manifest is published"
                );
                Some(Stand { n, after, ..installed })
            }
            Err(_) => None,
        };
        Ok(())
    }

    /// Uploads what is missing and puts a manifest in force, or says what was in the way: somebody was quicker.
    async fn install(
        &self,
        link: &Link,
        folders: &Arc<Manifest>,
        instead_of: &Mark,
        epoch: u64,
        anew: bool,
    ) -> Result<Result<Stand, Said>, Trouble> {
        let truth = folders.truth;
        let manifest = Manifest { epoch, ..Manifest::clone(folders) };
        let (segments, records, base) = (named(&manifest), records(&manifest), manifest.base);
        for (sha256, bytes) in &segments {
            // What is written anew because something was amiss is not trusted by its size.
            if anew || link.size(sha256).await? != *bytes {
                let (ledger, name) = (Arc::clone(&self.ledger), sha256.clone());
                let read = tokio::task::spawn_blocking(move || ledger.segment(&name)).await;
                let content = match read {
                    Ok(Ok(content)) => content,
                    Ok(Err(error)) => {
                        self.blocking(|ledger| ledger.follow().map(|_| ())).await?;
                        if self.ledger.manifest().as_ref() == Some(folders) {
                            return Err(error.into());
                        }
                        // It was replaced meanwhile, and the folder has a newer manifest.
                        return Ok(Err(Said::OtherManifest));
                    }
                    Err(_) => return Ok(Err(Said::Segment)),
                };
                link.upload(sha256, &content).await?;
            }
        }
        let line = self.sign(Kind::Manifest, &manifest)?;
        let installation =
            Installation { instead_of, epoch, truth, base, records, manifest: &line, segments: &segments, anew };
        Ok(match link.install(&installation).await? {
            Said::Done => Ok(Stand { epoch, truth, n: base, base, records, after: 0, manifest: line, segments }),
            said => Err(said),
        })
    }

    /// Lets go of what the new manifest does not name.
    async fn let_go(&self, link: &Link, old: &[(Box<str>, u64)], new: &Stand) -> Result<(), Trouble> {
        for (sha256, _) in old.iter().filter(|(sha256, _)| !new.segments.iter().any(|(name, _)| name == sha256)) {
            link.let_go(sha256).await?;
        }
        Ok(())
    }

    /// The segments that stand there now, if the manifest can be believed.
    async fn old_segments(&self, link: &Link) -> Result<Vec<(Box<str>, u64)>, Trouble> {
        let line = link.manifest().await?.unwrap_or_default();
        let manifest = self.pinned.open::<Manifest>(Kind::Manifest, &line);
        Ok(manifest.map(|manifest| named(&manifest)).unwrap_or_default())
    }
}

pub(super) fn named(manifest: &Manifest) -> Vec<(Box<str>, u64)> {
    manifest.segments.iter().map(|segment| (segment.sha256.clone(), segment.bytes)).collect()
}

pub(super) fn records(manifest: &Manifest) -> u64 {
    manifest.segments.iter().map(|segment| segment.records).sum()
}
