//! Following a control plane through Redis: the whole state first, then what comes, and never a request that waits for it (SPEC 8).

pub mod kept;
pub mod last_good;
pub mod pace;
pub mod state;

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::last_good::LastGood;
use self::pace::{Keeping, Tidying};
use self::state::{BadState, Doubt, Followed, Reading, Verdict};
use crate::clock::unix_millis;
use crate::ledger::Ledger;
use crate::replication::link::AT_ONCE;
use crate::replication::{Eviction, Link, News, Redis, RedisFailure, StreamEntry};
use crate::telemetry::ReplicationMetrics;

/// How long one call waits for news. A server that does not even answer that is given up after its response time besides.
const WAIT: Duration = Duration::from_secs(1);
/// Segments on their way at a time.
const SEGMENTS_AT_ONCE: usize = 4;
/// Attempts to connect, or to read, are this far apart at most: what comes back is used within 2 s.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// After so long without a heartbeat that counts it is looked where the streams end now: as long as two of them need, and then some.
const SILENCE: Duration = Duration::from_millis(2_500);
/// How often the last good state is written, at most.
const KEEP: Duration = Duration::from_secs(2);

/// Why the whole state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// None is there yet.
    Start,
    /// A change does not follow the last one.
    Gap,
    /// State and stream were written anew.
    Epoch,
    /// The number of entries is not what the heartbeat says (T10).
    Count,
    /// A heartbeat knows of changes that the stream does not have.
    Missing,
    /// A newer manifest has more in its segments, or will have: so many changes came after the last one.
    Manifest,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 6] = [Self::Start, Self::Gap, Self::Epoch, Self::Count, Self::Missing, Self::Manifest];

    /// For metrics and messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Gap => "gap",
            Self::Epoch => "epoch",
            Self::Count => "count",
            Self::Missing => "missing",
            Self::Manifest => "manifest",
        }
    }
}

/// What follows.
#[derive(Debug)]
pub struct Replica {
    /// Where.
    pub redis: Redis,
    /// What is believed so far.
    pub followed: Followed,
    /// This process's own truth, whose segments need not be read from elsewhere.
    pub ledger: Option<Arc<Ledger>>,
    /// Where the last good state is kept, if this process has no truth of its own.
    pub last_good: Option<LastGood>,
    /// Told when what stands in Redis is no state: a publisher looks after it.
    pub broken: Arc<Notify>,
    /// Counters.
    pub metrics: Arc<ReplicationMetrics>,
    /// What was heard, and said, of [`Followed::keep_missing`].
    pub keeping: Keeping,
    /// When a state is read again though nothing of it is missing in the index.
    pub tidying: Tidying,
}

/// How far both streams were read.
#[derive(Debug)]
struct Cursors {
    changes: (u64, u64),
    heartbeats: (u64, u64),
    /// When a heartbeat last counted, or the ends of the streams were last looked for.
    since: Instant,
}

impl Replica {
    /// Follows for as long as the process runs.
    pub async fn run(mut self) {
        let mut pause = Pause::default();
        let mut outage = Outage::new("followed");
        loop {
            let failure = match self.redis.connect().await {
                Ok(link) => {
                    let Err(failure) = self.follow(&link, &mut pause, &mut outage).await;
                    failure
                }
                Err(failure) => failure,
            };
            self.metrics.set_connected(false);
            outage.begins(&self.redis.shown(), &failure);
            pause.wait().await;
        }
    }

    /// Follows on one connection until it fails.
    async fn follow(
        &mut self,
        link: &Link,
        pause: &mut Pause,
        outage: &mut Outage,
    ) -> Result<Infallible, RedisFailure> {
        if link.check_eviction().await? == Eviction::Unknown {
            tracing::debug!("the access list does not let this process see maxmemory-policy; its publisher looks");
        }
        let mut due = (!self.followed.is_proven()).then_some(Cause::Start);
        let mut cursors = self.find(link, &mut due).await?;
        outage.ends(link.place());
        self.metrics.set_connected(true);
        *pause = Pause::default();
        let mut told = None;
        loop {
            if let Some(cause) = due.take() {
                let loaded = self.load(link, cause).await?;
                cursors = self.find(link, &mut due).await?;
                match loaded {
                    Ok(()) => told = None,
                    // Nothing is missing in what is known, so it goes on with that; the next heartbeat asks for it again.
                    Err(bad) if cause == Cause::Manifest => self.is_bad(&bad, &mut told),
                    Err(bad) => {
                        due = Some(cause);
                        self.is_bad(&bad, &mut told);
                        let wait = pause.next();
                        let news = link.news((u64::MAX, u64::MAX), cursors.heartbeats, wait).await?;
                        self.hear(&news.heartbeats, &mut cursors, &mut due);
                        // A heartbeat wakes us early, and should not make us busy.
                        tokio::time::sleep(FIRST_PAUSE).await;
                        continue;
                    }
                }
            }
            if cursors.since.elapsed() > SILENCE {
                cursors = self.find(link, &mut due).await?;
            }
            let waited = self.followed.is_waiting();
            let wait = if waited { Duration::from_millis(1) } else { WAIT };
            let news = link.news(cursors.changes, cursors.heartbeats, wait).await?;
            self.take(&news.changes, &mut cursors, &mut due);
            self.hear(&news.heartbeats, &mut cursors, &mut due);
            if waited && self.followed.is_waiting() && news.changes.len() < AT_ONCE {
                due = due.or(Some(Cause::Missing));
            }
            if self.followed.is_proven() {
                *pause = Pause::default();
            }
            let now = Instant::now();
            self.keep(&mut due, now);
            match due {
                Some(Cause::Manifest) if !self.tidying.may_read(now) => due = None,
                Some(Cause::Manifest) => self.tidying.reads(now),
                // What was read and did not hold is not read again at once.
                Some(_) if !self.followed.is_proven() => pause.wait().await,
                _ => {}
            }
        }
    }

    /// Finds from where the streams have to be read on, by what stands there now, and hears of the heartbeats on the way. Ids are for
    /// whoever can write to choose, and a stream that was deleted begins anew: behind an id that is too high nothing would ever come.
    async fn find(&mut self, link: &Link, due: &mut Option<Cause>) -> Result<Cursors, RedisFailure> {
        let latest = link.latest().await?;
        for heartbeat in latest.heartbeats.iter().rev() {
            // Most of them are old, which is no news.
            let verdict = self.followed.heartbeat(heartbeat.line.as_deref(), unix_millis());
            self.note(verdict, due);
        }
        let heartbeats = latest.heartbeats.first().map_or((0, 0), |newest| newest.id);
        Ok(Cursors { changes: (self.followed.last(), 0), heartbeats, since: Instant::now() })
    }

    fn take(&mut self, entries: &[StreamEntry], cursors: &mut Cursors, due: &mut Option<Cause>) {
        for entry in entries {
            cursors.changes = entry.id;
            let verdict = self.followed.change(entry.line.as_deref(), unix_millis());
            if verdict == Verdict::Refused(Doubt::Forged) {
                self.refused("change", Doubt::Forged);
            } else {
                self.metrics.change_applied();
            }
            self.note(verdict, due);
        }
    }

    fn hear(&mut self, entries: &[StreamEntry], cursors: &mut Cursors, due: &mut Option<Cause>) {
        for entry in entries {
            cursors.heartbeats = entry.id;
            let verdict = self.followed.heartbeat(entry.line.as_deref(), unix_millis());
            if let Verdict::Refused(doubt) = verdict {
                self.refused("heartbeat", doubt);
            } else {
                self.tell_of_keeping();
                cursors.since = Instant::now();
            }
            self.note(verdict, due);
        }
    }

    fn note(&self, verdict: Verdict, due: &mut Option<Cause>) {
        if let Verdict::Reload(cause) = verdict {
            // The first cause tells most, but for tidying up.
            if due.is_none_or(|due| due == Cause::Manifest) {
                *due = Some(cause);
            }
        }
    }

    /// T5: entries that the control plane forgets are there until this process starts anew, while tokens that they concern live on.
    fn tell_of_keeping(&mut self) {
        let Some(missing) = self.keeping.hear(self.followed.keep_missing(), Instant::now()) else { return };
        self.metrics.set_keep_missing(missing);
        if missing == 0 {
            tracing::info!("the control plane keeps revocations for as long as tokens live here");
        } else {
            let needed = self.followed.target().retention.from_arrival;
            tracing::error!(
                missing,
                needed,
                "the control plane keeps revocations for a shorter time than tokens live here, and a token that was refused may be accepted \
                 again after a restart; write `[revocation] keep = \"{needed}s\"` in its configuration, or lower max_lifetime here"
            );
        }
    }

    fn refused(&self, what: &'static str, doubt: Doubt) {
        // A heartbeat that another publisher has overtaken is no news.
        if self.metrics.line_refused(doubt.label()) && doubt != Doubt::Old {
            let reason = doubt.label();
            tracing::warn!(
                what,
                reason,
                "something in Redis is not believed, and counts for nothing; doorward_replication_refused_total counts the next ones"
            );
        }
    }

    fn is_bad(&self, bad: &BadState, told: &mut Option<BadState>) {
        self.broken.notify_one();
        if told.as_ref() == Some(bad) {
            return;
        }
        match bad {
            BadState::Absent => tracing::info!("there is no state in Redis yet; waiting for a publisher"),
            bad => {
                tracing::warn!(%bad, "what stands in Redis is no whole state; what is known stays in force until it is");
            }
        }
        *told = Some(bad.clone());
    }

    /// Reads the whole state and merges it with what is known.
    async fn load(&mut self, link: &Link, cause: Cause) -> Result<Result<(), BadState>, RedisFailure> {
        let begun = Instant::now();
        let since = unix_millis();
        self.metrics.load_began(cause.label());
        let Some(line) = link.manifest().await? else { return Ok(Err(BadState::Absent)) };
        let pinned = Arc::clone(self.followed.pinned());
        let mut reading = match Reading::begin(&pinned, &line, since) {
            Ok(reading) => reading,
            Err(bad) => return Ok(Err(bad)),
        };
        if let Err(bad) = self.segments(link, &reading).await? {
            return Ok(Err(bad));
        }
        let mut cursor = (reading.last(), u64::MAX);
        loop {
            let entries = link.changes_after(cursor).await?;
            let full = entries.len() == AT_ONCE;
            for entry in entries {
                cursor = entry.id;
                let Some(line) = entry.line else { continue };
                let taken = reading.change(&pinned, self.followed.target(), &line);
                match taken {
                    Ok(()) => {}
                    // What nobody has signed is passed over, as it is later: the chain tells whether something is missing.
                    Err(BadState::Line { .. }) => self.refused("change", Doubt::Forged),
                    Err(bad) => return Ok(Err(bad)),
                }
            }
            if !full {
                break;
            }
        }
        let (epoch, segments, n) = (reading.manifest.epoch, reading.manifest.segments.len(), reading.last());
        self.followed.adopt(reading);
        let (cause, took) = (cause.label(), begun.elapsed());
        tracing::info!(
            cause,
            epoch,
            segments,
            n,
            ?took,
            "the whole state was read from Redis; the next heartbeat has to confirm it"
        );
        Ok(Ok(()))
    }

    /// Fetches, proves and applies what is not known yet, but for what waits until a heartbeat confirms all of it.
    async fn segments(&mut self, link: &Link, reading: &Reading) -> Result<Result<(), BadState>, RedisFailure> {
        let own = self.ledger.as_ref().and_then(|ledger| ledger.manifest());
        let is_own = |sha256: &str| own.iter().flat_map(|own| &own.segments).any(|segment| *segment.sha256 == *sha256);
        self.followed.forget_unproven_but(&reading.manifest);
        let mut wanted = reading.manifest.segments.iter();
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < SEGMENTS_AT_ONCE {
                let Some(segment) = wanted.next() else { break };
                if self.followed.has_segment(&segment.sha256) || is_own(&segment.sha256) {
                    continue;
                }
                let (link, target, segment) = (link.clone(), self.followed.target().clone(), segment.clone());
                let last_good = self.last_good.clone();
                under_way.spawn(async move {
                    let sha256 = segment.sha256;
                    let Some(bytes) = link.segment(&sha256).await? else { return Ok(Err(BadState::Missing(sha256))) };
                    let applied = tokio::task::spawn_blocking(move || {
                        let applied = target.apply_segment(&sha256, &bytes)?;
                        if applied.records != segment.records {
                            return Err(BadState::Content(sha256));
                        }
                        if let Some(last_good) = last_good {
                            last_good.put_segment(&sha256, &bytes);
                        }
                        Ok((sha256, applied.unproven))
                    });
                    // Applying does not panic; were it to, the segment is not there.
                    Ok(applied.await.unwrap_or_else(|_| Err(BadState::Missing("?".into()))))
                });
            }
            match under_way.join_next().await {
                None => return Ok(Ok(())),
                Some(Ok(applied)) => match applied? {
                    Ok((sha256, unproven)) => self.followed.segment_read(sha256, unproven),
                    Err(bad) => return Ok(Err(bad)),
                },
                Some(Err(_)) => return Ok(Err(BadState::Missing("?".into()))),
            }
        }
    }

    /// Writes the last good state, beside the loop. A segment that did not get to the disk is read again, with the manifest, and more
    /// and more seldom for as long as the disk takes nothing.
    fn keep(&mut self, due: &mut Option<Cause>, now: Instant) {
        let Some(last_good) = &mut self.last_good else { return };
        let lacking = last_good.lacking();
        if lacking.is_empty() {
            if !last_good.is_failing() {
                self.tidying.is_written();
            }
        } else if self.tidying.may_fetch(now) {
            lacking.iter().for_each(|sha256| self.followed.forget_segment(sha256));
            *due = due.or(Some(Cause::Manifest));
        }
        if let Some(kept) = self.followed.kept() {
            last_good.keep(kept, KEEP);
        }
    }
}

/// The first look at Redis, before anything is bound: whether it can be reached and used at all.
///
/// # Errors
/// [`RedisFailure`]
pub async fn look(redis: &Redis) -> Result<(), RedisFailure> {
    let link = redis.connect().await?;
    link.check_eviction().await?;
    Ok(())
}

/// The time between attempts: longer each time, up to a bound, and never the same for two processes.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        // Between a half and the whole of it; every `RandomState` has other keys.
        let millis = u64::try_from(pause.as_millis()).unwrap_or(1).max(2);
        Duration::from_millis(millis / 2 + RandomState::new().hash_one(0) % (millis / 2 + 1))
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

/// Tells once that Redis is gone, and once that it is back.
#[derive(Debug)]
pub(super) struct Outage {
    what: &'static str,
    said: Option<String>,
    since: Instant,
}

impl Outage {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, said: None, since: Instant::now() }
    }

    pub(super) fn begins(&mut self, url: &str, failure: &RedisFailure) {
        let text = failure.to_string();
        if self.said.is_none() {
            self.since = Instant::now();
            tracing::error!(redis = url, why = %failure, "revocations cannot be {} through Redis; trying again", self.what);
        } else if self.said.as_ref() != Some(&text) {
            tracing::debug!(redis = url, why = %failure, "Redis still cannot be used");
        }
        self.said = Some(text);
    }

    pub(super) fn ends(&mut self, place: &str) {
        if self.said.take().is_some() {
            tracing::info!(redis = place, after = ?self.since.elapsed(), "revocations are {} through Redis again", self.what);
        }
    }
}

/// Unix milliseconds, now, as [`crate::revocation::Freshness`] takes them.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(unix_millis()).unwrap_or(i64::MAX)
}

/// What came on the heartbeat stream, for others who look at it.
pub(super) fn lines(news: &News) -> impl Iterator<Item = &str> {
    news.heartbeats.iter().filter_map(|entry| entry.line.as_deref())
}
