//! Publishing the truth through Redis: each change in order, a heartbeat every second, and everything anew when what stands there is not
//! ours any more (THREATS T1, T2).
//!
//! Several processes that share a folder may all publish: they have one truth, and the scripts in Redis arbitrate. A process that finds
//! somebody else's truth there, alive, does not publish and says so.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use super::replica::{Outage, Pause, lines, unix_millis};
use crate::ledger::{Ledger, LedgerError, State};
use crate::replication::{Beat, Eviction, Head, Installation, Link, News, Redis, RedisFailure, Said};
use crate::revocation::{Change, Entry, FloorOf, Heartbeat, Kind, Manifest, PinnedKeys, PublicationKey};
use crate::telemetry::ReplicationMetrics;

/// How often a heartbeat is written.
const BEAT: Duration = Duration::from_secs(1);
/// Changes that are appended by one call.
const AT_ONCE: usize = 256;
/// How long a change stays in the stream besides the manifest, for readers that were away.
const STAY: Duration = Duration::from_mins(10);
/// Another truth whose last heartbeat is older is taken over, if nothing was seen to move for [`SILENT`].
const DEAD: Duration = Duration::from_secs(5);
/// As long as two heartbeats need, and then some: clocks need not agree for it.
const SILENT: Duration = Duration::from_millis(2_500);

/// What publishes.
#[derive(Debug)]
pub struct Publisher {
    /// Where.
    pub redis: Redis,
    /// Whose truth.
    pub ledger: Arc<Ledger>,
    /// Signs manifests and heartbeats.
    pub key: Arc<PublicationKey>,
    /// Whom it believes about what stands there already.
    pub pinned: Arc<PinnedKeys>,
    /// Told by the replica when what stands in Redis is no state.
    pub broken: Arc<Notify>,
    /// Whether the folder is what gateways follow. Set by the first publication, which proves that the folder is not behind what was
    /// published once; from then on this process need not hear of its own truth through Redis.
    pub leads: Arc<AtomicBool>,
    /// Counters.
    pub metrics: Arc<ReplicationMetrics>,
}

/// What stands in Redis, as far as this process knows and has not been told otherwise.
#[derive(Debug, Clone)]
struct Stand {
    epoch: u64,
    truth: Uuid,
    n: u64,
    base: u64,
    records: u64,
    manifest: String,
    segments: Vec<(Box<str>, u64)>,
}

/// What is remembered over connections.
#[derive(Debug, Default)]
struct Memory {
    stand: Option<Stand>,
    /// The highest epoch that was ever seen: numbers rise also when Redis has forgotten it.
    epoch: u64,
    /// The highest number that was published by this process.
    n: u64,
    /// Another truth: when it was first seen as it stands.
    other: Option<(Head, Vec<String>, Instant)>,
    /// What was said of it.
    blocked: Option<Uuid>,
}

/// Why nothing can be published now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    #[error("the truth cannot be read: {0}")]
    Ledger(#[from] LedgerError),
    #[error("it cannot be signed: {0}")]
    Key(String),
}

impl Publisher {
    /// Publishes for as long as the process runs.
    pub async fn run(self) {
        let mut memory = Memory::default();
        let (mut pause, mut outage) = (Pause::default(), Outage::new("published"));
        loop {
            let trouble = match self.redis.connect().await {
                Ok(link) => {
                    let Err(trouble) = self.publish(&link, &mut memory, &mut pause, &mut outage).await;
                    trouble
                }
                Err(failure) => Trouble::Redis(failure),
            };
            self.metrics.set_publisher_connected(false);
            match &trouble {
                Trouble::Redis(failure) => {
                    if failure.is_wrong_type() {
                        memory.stand = None;
                        if let Ok(link) = self.redis.connect().await {
                            let _ = link.clear().await;
                        }
                    }
                    outage.begins(&self.redis.shown(), failure);
                }
                other => tracing::error!(why = %other, "revocations cannot be published"),
            }
            let pending = self.ledger.changes_after(memory.n).map_or(0, |changes| changes.len());
            self.metrics.set_pending(pending as u64);
            pause.wait().await;
        }
    }

    /// Publishes on one connection until it fails.
    async fn publish(
        &self,
        link: &Link,
        memory: &mut Memory,
        pause: &mut Pause,
        outage: &mut Outage,
    ) -> Result<Infallible, Trouble> {
        if link.check_eviction().await? == Eviction::Unknown {
            tracing::warn!(
                "the access list does not let doorward see Redis' maxmemory-policy (CONFIG GET, INFO): make sure that it is noeviction"
            );
        }
        self.blocking(|ledger| ledger.make().map(|_| ())).await?;
        outage.ends(link.place());
        self.metrics.set_publisher_connected(true);
        let mut changed = self.ledger.subscribe();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = changed.changed() => self.push(link, memory).await.map(|_| ())?,
                () = self.broken.notified() => self.examine(link, memory).await?,
                _ = beat.tick() => {
                    self.beat(link, memory).await?;
                    *pause = Pause::default();
                }
            }
        }
    }

    /// Publishes what is not yet; gives what stands there then, or `None` where it must not.
    async fn push<'m>(&self, link: &Link, memory: &'m mut Memory) -> Result<Option<&'m mut Stand>, Trouble> {
        loop {
            if memory.stand.is_none() && !self.establish(link, memory).await? {
                return Ok(None);
            }
            let Some(stand) = &mut memory.stand else { return Ok(None) };
            let Some(changes) = self.ledger.changes_after(stand.n) else {
                // They stand in segments only, which the manifest in Redis does not know.
                let head = Head { epoch: stand.epoch, truth: stand.truth, n: stand.n, base: stand.base };
                memory.stand = None;
                self.rewrite(link, memory, Some(head), "behind").await?;
                continue;
            };
            if changes.is_empty() {
                self.metrics.set_pending(0);
                self.leads.store(true, Ordering::Release);
                return Ok(memory.stand.as_mut());
            }
            self.metrics.set_pending(changes.len() as u64);
            let some = &changes[..changes.len().min(AT_ONCE)];
            let keep_from = unix_millis().saturating_sub(STAY.as_millis().try_into().unwrap_or(0));
            let lines = some.iter().map(|recorded| (recorded.change.prev, recorded.change.n, &*recorded.line));
            let said = link.append(stand.epoch, stand.truth, keep_from, lines).await?;
            if said != Said::Done {
                self.amiss(link, memory, said).await?;
                continue;
            }
            stand.n = some.last().map_or(stand.n, |recorded| recorded.change.n);
            memory.n = stand.n;
            self.ledger.published(stand.n);
            if some.len() == changes.len() {
                self.metrics.set_pending(0);
            }
        }
    }

    /// A sign of life, after looking at the truth and at Redis (T1).
    async fn beat(&self, link: &Link, memory: &mut Memory) -> Result<(), Trouble> {
        let at = unix_millis();
        self.blocking(|ledger| ledger.follow().map(|_| ())).await?;
        if self.push(link, memory).await?.is_none() {
            return Ok(());
        }
        self.tidy(link, memory).await?;
        let Some(stand) = &memory.stand else { return Ok(()) };
        let Some(after) = self.ledger.changes_after(stand.base) else {
            memory.stand = None;
            return Ok(());
        };
        // What was recorded while this was under way is for the next one.
        let after = after.partition_point(|recorded| recorded.change.n <= stand.n) as u64;
        let Stand { epoch, truth, n, .. } = *stand;
        let keeps = Some(self.ledger.keeps());
        let heartbeat = Heartbeat { epoch, truth, n, count: stand.records + after, at, keeps };
        let heartbeat = self.sign(Kind::Heartbeat, &heartbeat)?;
        let beat =
            Beat { epoch, truth, n, manifest: &stand.manifest, segments: &stand.segments, heartbeat: &heartbeat };
        match link.beat(&beat).await? {
            Said::Done => Ok(()),
            // Another process on the same folder was quicker; the next look at the folder will show it.
            Said::Ahead if self.knows_soon(link, memory).await? => Ok(()),
            said => self.amiss(link, memory, said).await,
        }
    }

    /// Whether Redis is ahead only by what another process has just recorded in our folder.
    async fn knows_soon(&self, link: &Link, memory: &mut Memory) -> Result<bool, Trouble> {
        self.blocking(|ledger| ledger.follow().map(|_| ())).await?;
        let Some(head) = link.head().await? else { return Ok(false) };
        let Some(stand) = memory.stand.as_mut().filter(|stand| (stand.epoch, stand.truth) == (head.epoch, head.truth))
        else {
            return Ok(false);
        };
        if head.n > self.ledger.last() {
            return Ok(false);
        }
        stand.n = head.n;
        memory.n = head.n;
        self.ledger.published(head.n);
        Ok(true)
    }

    /// Redis is not as this process believed: another publisher of the same truth, or a loss.
    async fn amiss(&self, link: &Link, memory: &mut Memory, said: Said) -> Result<(), Trouble> {
        let stand = memory.stand.take();
        let cause = match said {
            // Whose epoch or truth it is, and whether it is alive, is looked at anew. The same for a manifest of another process.
            Said::Done | Said::OtherEpoch | Said::OtherTruth | Said::Ahead => {
                self.establish(link, memory).await?;
                return Ok(());
            }
            Said::OtherManifest => {
                let standing = link.manifest().await?;
                let same = stand.is_some_and(|stand| Some(&stand.manifest) == standing.as_ref());
                if !same {
                    self.establish(link, memory).await?;
                    return Ok(());
                }
                "manifest"
            }
            Said::Lost => "lost",
            Said::Tampered => "tampered",
            Said::Gap => "gap",
            Said::Behind => "behind",
            Said::Segment => "segment",
        };
        let head = link.head().await?;
        self.rewrite(link, memory, head, cause).await
    }

    /// The replica could make no state of what stands in Redis. Unless it is somebody else's, it is written again.
    async fn examine(&self, link: &Link, memory: &mut Memory) -> Result<(), Trouble> {
        let Some(stand) = &memory.stand else { return self.push(link, memory).await.map(|_| ()) };
        let standing = link.manifest().await?;
        let head = link.head().await?;
        let is_ours = head.is_some_and(|head| (head.epoch, head.truth) == (stand.epoch, stand.truth));
        if !is_ours || standing.as_deref() != Some(&*stand.manifest) {
            return self.beat(link, memory).await;
        }
        if !self.is_whole(link, stand).await? {
            memory.stand = None;
            return self.rewrite(link, memory, head, "broken").await;
        }
        Ok(())
    }

    /// Reads what stands there as a gateway does.
    async fn is_whole(&self, link: &Link, stand: &Stand) -> Result<bool, Trouble> {
        for (sha256, bytes) in &stand.segments {
            let held = link.segment(sha256).await?;
            let name = sha256.clone();
            let is_good = move || held.is_some_and(|held| is_named(&held, &name));
            let good = tokio::task::spawn_blocking(is_good).await.unwrap_or(false);
            if !good || *bytes == 0 {
                return Ok(false);
            }
        }
        let mut last = (stand.base, u64::MAX);
        let mut ours = self.ledger.changes_after(stand.base).unwrap_or_default().into_iter();
        loop {
            let entries = link.changes_after(last).await?;
            let Some(end) = entries.last().map(|entry| entry.id) else { return Ok(true) };
            for entry in entries {
                let expected = ours.next();
                if entry.line.as_deref() != expected.as_ref().map(|recorded| &*recorded.line) && entry.id.0 <= stand.n {
                    return Ok(false);
                }
            }
            last = end;
        }
    }

    /// Finds out what stands in Redis and makes it ours if it may be. `false`: it is somebody else's, who is alive.
    async fn establish(&self, link: &Link, memory: &mut Memory) -> Result<bool, Trouble> {
        self.blocking(|ledger| ledger.follow().map(|_| ())).await?;
        let Some(truth) = self.ledger.truth() else { return Ok(false) };
        let Some(head) = link.head().await? else {
            self.rewrite(link, memory, None, if memory.n == 0 { "first" } else { "lost" }).await?;
            return Ok(memory.stand.is_some());
        };
        memory.epoch = memory.epoch.max(head.epoch);
        let latest = link.latest().await?;
        if head.truth != truth {
            return self.take_over(link, memory, head, &latest).await;
        }
        self.unblocked(memory);
        let line = link.manifest().await?.unwrap_or_default();
        let manifest = self.pinned.open::<Manifest>(Kind::Manifest, &line).ok();
        let manifest = manifest.filter(|manifest| (manifest.epoch, manifest.truth) == (head.epoch, truth));
        // T2: what is signed and ours, and ahead of our folder, was published by a folder that is lost.
        let signed = self.signed_last(&latest, manifest.as_ref(), truth);
        if signed > self.ledger.last() {
            self.blocking(|ledger| ledger.follow().map(|_| ())).await?;
        }
        if signed > self.ledger.last() {
            let ours = self.ledger.last();
            tracing::error!(
                ours,
                published = signed,
                "the revocation folder is older than what it once published: it was restored from a backup. What was revoked in \
                 between is lost, so every token that was issued until now is refused"
            );
            let floor = Entry::Floor { of: FloorOf::Everything, issued_until: None };
            self.blocking(move |ledger| ledger.record_above(signed, floor).map(|_| ())).await?;
            self.rewrite(link, memory, Some(head), "restored").await?;
            return Ok(memory.stand.is_some());
        }
        let cause = match manifest {
            None => "manifest",
            // A Redis that was set back, or lost its end in a fail-over.
            Some(_) if head.n < memory.n => "behind",
            Some(manifest) if manifest.base == head.base && self.ledger.changes_after(head.n).is_some() => {
                let segments = named(&manifest);
                let records = records(&manifest);
                let (epoch, n, base) = (head.epoch, head.n, head.base);
                tracing::info!(epoch, n, "what stands in Redis is of this truth; publishing goes on");
                memory.stand = Some(Stand { epoch, truth, n, base, records, manifest: line, segments });
                memory.n = memory.n.max(n);
                self.ledger.published(n);
                return Ok(true);
            }
            Some(_) => "behind",
        };
        self.rewrite(link, memory, Some(head), cause).await?;
        Ok(memory.stand.is_some())
    }

    /// The highest number in Redis that has our signature and is of our truth.
    fn signed_last(&self, latest: &News, manifest: Option<&Manifest>, truth: Uuid) -> u64 {
        let heartbeats = lines(latest)
            .filter_map(|line| self.pinned.open::<Heartbeat>(Kind::Heartbeat, line).ok())
            .filter(|heartbeat| heartbeat.truth == truth)
            .map(|heartbeat| heartbeat.n);
        // A change does not say whose it is; beside our manifest it is ours.
        let changes = latest
            .changes
            .iter()
            .filter(|_| manifest.is_some())
            .filter_map(|entry| self.pinned.open::<Change>(Kind::Change, entry.line.as_deref()?).ok())
            .map(|change| change.n);
        heartbeats.chain(changes).chain(manifest.map(|manifest| manifest.base)).max().unwrap_or(0)
    }

    /// Another truth stands there. While it shows signs of life it stays, and ours is not published.
    async fn take_over(&self, link: &Link, memory: &mut Memory, head: Head, latest: &News) -> Result<bool, Trouble> {
        let beats: Vec<String> = lines(latest).map(str::to_owned).collect();
        let since = match &memory.other {
            Some((seen, heard, since)) if *seen == head && *heard == beats => *since,
            _ => {
                let now = Instant::now();
                memory.other = Some((head, beats.clone(), now));
                now
            }
        };
        let newest = beats
            .iter()
            .filter_map(|line| self.pinned.open::<Heartbeat>(Kind::Heartbeat, line).ok())
            .filter(|heartbeat| heartbeat.truth == head.truth)
            .map(|heartbeat| heartbeat.at)
            .max();
        let is_old = newest.is_none_or(|at| u128::from(unix_millis().saturating_sub(at)) > DEAD.as_millis());
        if is_old && since.elapsed() > SILENT {
            tracing::warn!(truth = %head.truth, "another truth was published in Redis by somebody who is gone; this process takes over");
            self.unblocked(memory);
            self.rewrite(link, memory, Some(head), "takeover").await?;
            return Ok(memory.stand.is_some());
        }
        if memory.blocked != Some(head.truth) {
            memory.blocked = Some(head.truth);
            // At a start it may still turn out to be a leftover.
            if is_old {
                tracing::info!(truth = %head.truth, "another truth stands in Redis; looking whether it is alive");
            } else {
                tracing::error!(
                    theirs = %head.truth,
                    "another process publishes another truth in this Redis: what is revoked here is NOT published. Share its [revocation] \
                     folder, follow it ([publication] public_keys without key_file), or give this deployment another [redis] prefix"
                );
            }
        }
        self.metrics.set_blocked(!is_old);
        self.leads.store(false, Ordering::Release);
        Ok(false)
    }

    fn unblocked(&self, memory: &mut Memory) {
        (memory.other, memory.blocked) = (None, None);
        self.metrics.set_blocked(false);
    }

    /// Writes everything from the truth under a new epoch. A reader sees what stood there, then the new manifest with its whole
    /// segments; the changes after it follow, and no heartbeat speaks of them before they are all there.
    async fn rewrite(
        &self,
        link: &Link,
        memory: &mut Memory,
        head: Option<Head>,
        cause: &'static str,
    ) -> Result<(), Trouble> {
        let begun = Instant::now();
        let Some(state) = self.ledger.state() else { return Ok(()) };
        let epoch = unix_millis().max(memory.epoch + 1).max(head.map_or(0, |head| head.epoch + 1));
        let old = self.old_segments(link).await?;
        let Some(stand) = self.install(link, &state, head, epoch, &old, true).await? else { return Ok(()) };
        let (segments, base) = (stand.segments.len(), stand.base);
        (memory.epoch, memory.n) = (epoch, 0);
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
        Ok(())
    }

    /// A newer manifest of the folder has more in its segments: the stream can be cut behind it.
    async fn tidy(&self, link: &Link, memory: &mut Memory) -> Result<(), Trouble> {
        let (Some(stand), Some(state)) = (&memory.stand, self.ledger.state()) else { return Ok(()) };
        let same = named(&state.manifest) == stand.segments && state.manifest.base == stand.base;
        if same || state.manifest.base > stand.n || state.manifest.base < stand.base {
            return Ok(());
        }
        let (epoch, n) = (stand.epoch, stand.n);
        let head = Head { epoch, truth: stand.truth, n, base: stand.base };
        let old = stand.segments.clone();
        if let Some(installed) = self.install(link, &state, Some(head), epoch, &old, false).await? {
            tracing::debug!(
                base = installed.base,
                segments = installed.segments.len(),
                "a newer manifest is published"
            );
            memory.stand = Some(Stand { n, ..installed });
        } else {
            memory.stand = None;
        }
        Ok(())
    }

    /// Uploads what is missing and puts a manifest in force; `None` where somebody was quicker.
    async fn install(
        &self,
        link: &Link,
        state: &State,
        head: Option<Head>,
        epoch: u64,
        old: &[(Box<str>, u64)],
        anew: bool,
    ) -> Result<Option<Stand>, Trouble> {
        let truth = state.manifest.truth;
        let manifest = Manifest { epoch, ..(*state.manifest).clone() };
        let (segments, records, base) = (named(&manifest), records(&manifest), manifest.base);
        for (sha256, bytes) in &segments {
            // What is written anew because something was amiss is not trusted by its size.
            if anew || link.size(sha256).await? != *bytes {
                let (ledger, name) = (Arc::clone(&self.ledger), sha256.clone());
                let read = tokio::task::spawn_blocking(move || ledger.segment(&name)).await;
                // Replaced meanwhile: the folder has a newer manifest by now.
                let Ok(Ok(content)) = read else { return Ok(None) };
                link.upload(sha256, &content).await?;
            }
        }
        let line = self.sign(Kind::Manifest, &manifest)?;
        let installation = Installation {
            instead_of: head.map(|head| (head.epoch, head.truth)),
            epoch,
            truth,
            base,
            records,
            manifest: &line,
            segments: &segments,
            anew,
        };
        if link.install(&installation).await? != Said::Done {
            return Ok(None);
        }
        for (sha256, _) in old.iter().filter(|(sha256, _)| !segments.iter().any(|(name, _)| name == sha256)) {
            link.let_go(sha256).await?;
        }
        Ok(Some(Stand { epoch, truth, n: base, base, records, manifest: line, segments }))
    }

    /// The segments that stand there now, if the manifest can be believed.
    async fn old_segments(&self, link: &Link) -> Result<Vec<(Box<str>, u64)>, Trouble> {
        let line = link.manifest().await?.unwrap_or_default();
        let manifest = self.pinned.open::<Manifest>(Kind::Manifest, &line);
        Ok(manifest.map(|manifest| named(&manifest)).unwrap_or_default())
    }

    fn sign(&self, kind: Kind, body: &impl serde::Serialize) -> Result<String, Trouble> {
        self.key.sign(kind, body).map_err(|error| Trouble::Key(error.to_string()))
    }

    /// What waits for the disk waits elsewhere.
    async fn blocking(
        &self,
        work: impl FnOnce(&Ledger) -> Result<(), LedgerError> + Send + 'static,
    ) -> Result<(), Trouble> {
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || work(&ledger)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(LedgerError::Closed.into()),
        }
    }
}

fn named(manifest: &Manifest) -> Vec<(Box<str>, u64)> {
    manifest.segments.iter().map(|segment| (segment.sha256.clone(), segment.bytes)).collect()
}

fn records(manifest: &Manifest) -> u64 {
    manifest.segments.iter().map(|segment| segment.records).sum()
}

fn is_named(bytes: &[u8], sha256: &str) -> bool {
    super::replica::state::sha256(bytes) == sha256
}
