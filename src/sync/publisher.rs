//! Publishing the truth through Redis: each change in order, a heartbeat every second, and everything anew when what stands there is not
//! ours any more (THREATS T1, T2).
//!
//! Several processes that share a folder may all publish: they have one truth, and the scripts in Redis arbitrate. A process that finds
//! somebody else there, alive, does not publish and says so: another truth, or another copy of its own folder.
//!
//! Who writes to Redis may stop the news and nothing else (T11): what is not signed there is held against the folder (`standing`)
//! before anything is said for its sake, to gateways or to who waits for a publication.

mod check;
mod establish;
mod rival;
mod standing;
mod write;

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::rival::Rival;
use self::standing::is_whole;
use super::replica::{Outage, Pause};
use crate::clock::unix_millis;
use crate::ledger::{Ledger, LedgerError, Looked, Recorded};
use crate::replication::{Beat, Eviction, Link, Mark, Redis, RedisFailure, Said, Standing};
use crate::revocation::{Heartbeat, Kind, PinnedKeys, PublicationKey};
use crate::telemetry::ReplicationMetrics;

/// How often a heartbeat is written.
const BEAT: Duration = Duration::from_secs(1);
/// Changes that are appended by one call.
const AT_ONCE: usize = 256;
/// How long a change stays in the stream besides the manifest, for readers that were away.
const STAY: Duration = Duration::from_mins(10);
/// How often one turn writes anew what somebody spoils at once; the next heartbeat tries again.
const TRIES: usize = 3;
/// How long is waited for a write of this process before the folder is looked at. Others may have published it already.
const WRITTEN: Duration = Duration::from_millis(250);
/// How often a trouble that lasts is told.
const TOLD: Duration = Duration::from_mins(1);
/// Numbers that are remembered as published while this process ran: more than heartbeats and their changes in Redis can speak of.
const OWN: usize = 8192;

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
    /// What becomes of what others have published.
    pub takeover: Takeover,
    /// Counters.
    pub metrics: Arc<ReplicationMetrics>,
}

/// What becomes of what stands in Redis and is not of this folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Once nobody is alive who published it, this folder is published in its place, and everybody logged out (T2).
    OfTheDead,
    /// It stays: whoever publishes one change may have been started on a wrong folder.
    Never,
}

/// What stands in Redis, as far as this process knows and has not been told otherwise.
#[derive(Debug, Clone)]
struct Stand {
    epoch: u64,
    truth: Uuid,
    n: u64,
    base: u64,
    records: u64,
    /// How many changes stand in the stream behind `base`, up to `n`.
    after: u64,
    manifest: String,
    segments: Vec<(Box<str>, u64)>,
}

/// What is remembered over connections.
#[derive(Debug, Default)]
struct Memory {
    stand: Option<Stand>,
    /// The highest epoch that was ever signed, as far as this process knows: numbers rise also when Redis has forgotten it.
    epoch: u64,
    /// The highest number that was published by this process.
    n: u64,
    /// Up to which number was published when, for the last minutes.
    stayed: VecDeque<(Instant, u64)>,
    /// Numbers of changes that it saw published, the latest.
    own: BTreeSet<u64>,
    /// Somebody else, who is alive or not gone for long enough.
    rival: Option<Rival>,
    /// Which manifest was last read as a gateway does, and when that began.
    checked: Option<(String, Instant)>,
    /// When segments of a newer manifest were last uploaded, unless it was put in force.
    uploaded: Option<Instant>,
    /// How often in a row everything was written and not taken.
    in_vain: u32,
    /// The last trouble that was told.
    told: Option<(String, Instant)>,
}

impl Memory {
    fn trouble(&mut self, trouble: &Trouble) {
        let why = trouble.to_string();
        if self.is_news(&why) {
            tracing::error!(why, "revocations cannot be published");
        }
    }

    /// Whether a trouble is to be told.
    fn is_news(&mut self, why: &str) -> bool {
        let is_news = self.told.as_ref().is_none_or(|(told, at)| told != why || at.elapsed() >= TOLD);
        if is_news {
            self.told = Some((why.to_owned(), Instant::now()));
        }
        is_news
    }

    fn published(&mut self, changes: &[Arc<Recorded>]) {
        self.own.extend(changes.iter().map(|recorded| recorded.change.n));
        while self.own.len() > OWN {
            self.own.pop_first();
        }
    }

    /// From which number on changes stay in the stream ([`STAY`]). A number tells when it was given by a clock that may have been ahead
    /// once, and numbers only rise: so this process also looks when it was published, as far as it did that itself.
    fn keep_from(&mut self, now: Instant, at: u64) -> u64 {
        let step = STAY / 20;
        if self.stayed.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= step) {
            self.stayed.push_back((now, self.n));
        }
        let is_old = |seen: &(Instant, u64)| now.saturating_duration_since(seen.0) >= STAY;
        while self.stayed.get(1).is_some_and(is_old) {
            self.stayed.pop_front();
        }
        let published = self.stayed.front().filter(|seen| is_old(seen)).map_or(0, |(_, n)| *n);
        at.saturating_sub(u64::try_from(STAY.as_millis()).unwrap_or(u64::MAX)).max(published)
    }

    /// What is to be read as a gateway does, if it is time.
    fn take_due(&mut self) -> Option<Stand> {
        let stand = self.stand.as_ref()?;
        let is_due = self.checked.as_ref().is_none_or(|(manifest, at)| {
            at.elapsed() >= if *manifest == stand.manifest { check::EVERY } else { check::APART }
        });
        is_due.then(|| {
            self.checked = Some((stand.manifest.clone(), Instant::now()));
            stand.clone()
        })
    }
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
    #[error("{0}")]
    NotOurs(String),
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
                    outage.begins(&self.redis.shown(), failure);
                    if failure.is_spoilt() {
                        memory.stand = None;
                        self.clear(failure).await;
                    }
                }
                other => memory.trouble(other),
            }
            let pending = self.ledger.changes_after(memory.n).map_or(0, |changes| changes.len());
            self.metrics.set_pending(pending as u64);
            pause.wait().await;
        }
    }

    /// Publishes what the folder has, once, where Redis has what was published from this folder before ([`Takeover::Never`]).
    ///
    /// # Errors
    /// What stands in Redis instead. As long as Redis cannot be used, or somebody else publishes from the folder just now, it is tried
    /// again: how long is the caller's to say.
    pub async fn publish_once(&self) -> Result<(), String> {
        let (mut memory, mut pause) = (Memory::default(), Pause::default());
        loop {
            match self.push_once(&mut memory).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Trouble::NotOurs(why)) => return Err(why),
                Err(why) => tracing::debug!(%why, "it cannot be published yet"),
            }
            pause.wait().await;
        }
    }

    async fn push_once(&self, memory: &mut Memory) -> Result<bool, Trouble> {
        let link = self.redis.connect().await?;
        link.check_eviction().await?;
        Ok(self.push(&link, memory).await?.is_some())
    }

    /// Somebody made something of our keys that nobody can work on.
    async fn clear(&self, why: &RedisFailure) {
        let cleared = match self.redis.connect().await {
            Ok(link) => link.clear().await,
            Err(failure) => Err(failure),
        };
        match cleared {
            Ok(()) => {
                tracing::warn!(%why, "what somebody made of doorward's keys in Redis is removed; all is written anew");
            }
            Err(failure) => tracing::debug!(why = %failure, "what is no state in Redis cannot be removed yet"),
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
        self.metrics.set_publisher_connected(true);
        let mut changed = self.ledger.subscribe();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // One at a time; it ends with this connection.
        let mut checks = JoinSet::new();
        let mut uploads = JoinSet::new();
        loop {
            if checks.is_empty()
                && let Some(stand) = memory.take_due()
            {
                let (redis, ledger) = (self.redis.clone(), Arc::clone(&self.ledger));
                checks.spawn(async move { (stand.manifest.clone(), check::check(redis, ledger, stand).await) });
            }
            if uploads.is_empty()
                && let Some(newer) = self.newer(memory)
            {
                let (redis, ledger) = (self.redis.clone(), Arc::clone(&self.ledger));
                uploads.spawn(async move { (write::upload(&redis, &ledger, &newer).await, newer) });
            }
            tokio::select! {
                _ = changed.changed() => self.push(link, memory).await.map(|_| ())?,
                () = self.broken.notified() => self.examine(link, memory).await?,
                Some(Ok((manifest, found))) = checks.join_next() => match found {
                    Ok(true) => {}
                    Ok(false) => self.mend(link, memory, &manifest).await?,
                    // Whether Redis can be used the heartbeat tells.
                    Err(failure) => tracing::debug!(why = %failure, "what stands in Redis could not be read to its end"),
                },
                Some(Ok((uploaded, newer))) = uploads.join_next() => match uploaded {
                    Ok(()) => self.tidy(link, memory, newer).await?,
                    Err(trouble) => self.is_not_uploaded(memory, &newer, &trouble),
                },
                _ = beat.tick() => {
                    self.beat(link, memory).await?;
                    if memory.rival.is_none() {
                        outage.ends(link.place());
                    }
                    *pause = Pause::default();
                }
            }
        }
    }

    /// Publishes what is known now and not published yet; gives what stands there then, or `None` where it must not. What is recorded
    /// meanwhile is for the next call: while somebody revokes all the time there would be no end of it, and no heartbeat.
    async fn push<'m>(&self, link: &Link, memory: &'m mut Memory) -> Result<Option<&'m mut Stand>, Trouble> {
        let mut tries = 0;
        let last = self.ledger.last();
        loop {
            if memory.stand.is_none() && !self.establish(link, memory, None).await? {
                return Ok(None);
            }
            let keep_from = memory.keep_from(Instant::now(), unix_millis());
            let Some(stand) = &mut memory.stand else { return Ok(None) };
            let (changes, said) = match self.ledger.changes_after(stand.n) {
                Some(changes) if changes.is_empty() || stand.n >= last => {
                    self.metrics.set_pending(changes.len() as u64);
                    self.leads.store(true, Ordering::Release);
                    return Ok(memory.stand.as_mut());
                }
                Some(changes) => {
                    self.metrics.set_pending(changes.len() as u64);
                    let some = changes[..changes.len().min(AT_ONCE)].to_vec();
                    let lines = some.iter().map(|recorded| (recorded.change.prev, recorded.change.n, &*recorded.line));
                    let said = link.append(stand.epoch, stand.truth, stand.base, keep_from, lines).await?;
                    (some, said)
                }
                // They stand in segments only, which the manifest in Redis does not know.
                None => (Vec::new(), Said::Behind),
            };
            if said != Said::Done {
                tries += 1;
                self.amiss(link, memory, said).await?;
                if tries == TRIES {
                    return Ok(None);
                }
                continue;
            }
            stand.n = changes.last().map_or(stand.n, |recorded| recorded.change.n);
            stand.after += changes.len() as u64;
            memory.n = stand.n;
            memory.published(&changes);
            self.ledger.published(memory.n);
        }
    }

    /// A sign of life, after looking at the truth and at Redis (T1).
    async fn beat(&self, link: &Link, memory: &mut Memory) -> Result<(), Trouble> {
        if !self.catch_up(link, memory).await? {
            let pending = self.ledger.changes_after(memory.n).map_or(0, |changes| changes.len());
            self.metrics.set_pending(pending as u64);
            return Ok(());
        }
        // What may take long is done. It is the time of the last look that a heartbeat carries, and an old one counts for nothing.
        let at = unix_millis();
        if !self.catch_up(link, memory).await? {
            return Ok(());
        }
        let Some(stand) = &memory.stand else { return Ok(()) };
        let Stand { epoch, truth, n, records, after, .. } = *stand;
        let keeps = Some(self.ledger.keeps());
        let heartbeat = Heartbeat { epoch, truth, n, count: records + after, at, keeps };
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

    /// Publishes all that is in the folder now. Whether it may.
    async fn catch_up(&self, link: &Link, memory: &mut Memory) -> Result<bool, Trouble> {
        self.blocking(|ledger| ledger.follow().map(|_| ())).await?;
        Ok(self.push(link, memory).await?.is_some())
    }

    /// Whether Redis is ahead only by what another process has just recorded in our folder, or may be: while this process writes, the
    /// other may have published what is written, and the next heartbeat asks again. Nobody has signed the head: what it speaks of is
    /// looked at.
    async fn knows_soon(&self, link: &Link, memory: &mut Memory) -> Result<bool, Trouble> {
        let (Standing::Head(head), Some(stand)) = (link.head().await?, &mut memory.stand) else { return Ok(false) };
        if (stand.epoch, stand.truth) != (head.epoch, head.truth) {
            return Ok(false);
        }
        let entries = check::stream(link, &self.ledger, stand.n).await?;
        if !self.has_looked().await? {
            return Ok(true);
        }
        let Some(ours) = self.ledger.changes_after(stand.n) else { return Ok(false) };
        let Some(last) = ours.iter().position(|recorded| recorded.change.n == head.n) else { return Ok(false) };
        if !is_whole(&entries, &ours, stand.n, head.n) {
            return Ok(false);
        }
        stand.n = head.n;
        stand.after += last as u64 + 1;
        memory.n = head.n;
        memory.published(&ours[..=last]);
        self.ledger.published(head.n);
        Ok(true)
    }

    /// Redis is not as this process believed: another publisher of the same truth, a loss, or somebody who writes what he should not.
    async fn amiss(&self, link: &Link, memory: &mut Memory, said: Said) -> Result<(), Trouble> {
        let stand = memory.stand.take();
        let flaw = match said {
            // Whose epoch or truth it is, and whether it is alive, is looked at anew. The same for a manifest of another process.
            Said::Done | Said::OtherEpoch | Said::OtherTruth | Said::Ahead => None,
            Said::OtherManifest => {
                let standing = link.manifest().await?;
                stand.is_some_and(|stand| Some(stand.manifest) == standing).then_some("manifest")
            }
            Said::Lost => Some("lost"),
            Said::Tampered => Some("tampered"),
            Said::Gap => Some("gap"),
            Said::Behind => Some("behind"),
            Said::Segment => Some("segment"),
        };
        self.establish(link, memory, flaw).await.map(|_| ())
    }

    /// The replica could make no state of what stands in Redis. Unless it is somebody else's, it is read here too.
    async fn examine(&self, link: &Link, memory: &mut Memory) -> Result<(), Trouble> {
        let Some(stand) = &memory.stand else { return self.push(link, memory).await.map(|_| ()) };
        let is_ours = link.head().await?.mark() == Mark::of(stand.epoch, stand.truth);
        if !is_ours || link.manifest().await?.as_deref() != Some(&*stand.manifest) {
            return self.beat(link, memory).await;
        }
        memory.checked = None;
        Ok(())
    }

    /// What stands behind this manifest is not what it promises. Unless another one has come meanwhile, all is written anew.
    async fn mend(&self, link: &Link, memory: &mut Memory, manifest: &str) -> Result<(), Trouble> {
        if memory.stand.as_ref().is_some_and(|stand| stand.manifest == manifest)
            && link.manifest().await?.as_deref() == Some(manifest)
        {
            memory.stand = None;
            if !self.establish(link, memory, Some("broken")).await? {
                memory.checked = None;
            }
        }
        Ok(())
    }

    /// Looks at the folder, for a judgement of what others have published. `false`: this process is writing in it, so what they have
    /// published may be there already and is not known, and nothing is to be made of that.
    async fn has_looked(&self) -> Result<bool, Trouble> {
        Ok(self.blocking(|ledger| ledger.follow_after(WRITTEN)).await? != Looked::Writing)
    }

    fn sign(&self, kind: Kind, body: &impl serde::Serialize) -> Result<String, Trouble> {
        self.key.sign(kind, body).map_err(|error| Trouble::Key(error.to_string()))
    }

    /// What waits for the disk waits elsewhere.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || work(&ledger)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(LedgerError::Closed.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_whose_numbers_are_ahead_of_the_clock_is_cut_all_the_same() {
        let (begun, at) = (Instant::now(), 1_790_000_000_000);
        let ahead = at + 86_400_000;
        let mut memory = Memory::default();
        let mut keep_from = |second: u64, n: u64| {
            memory.n = n;
            memory.keep_from(begun + Duration::from_secs(second), at + second * 1000)
        };
        for second in 0..600 {
            assert_eq!(keep_from(second, ahead + second), at + second * 1000 - 600_000, "nothing of it is that old");
        }
        for second in 600..3000 {
            let from = keep_from(second, ahead + second);
            assert!(from <= ahead + second - 600, "what is younger than ten minutes stays");
            assert!(from >= ahead + second - 660, "{second}: what is older goes");
        }
        assert!(memory.stayed.len() <= 22);
    }
}
