//! What a process with a Redis follows and publishes, built before anything is bound.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use tokio::sync::Notify;

use crate::config::Settings;
use crate::ledger::Ledger;
use crate::replication::{Redis, RedisFailure, RedisSettings};
use crate::revocation::{Freshness, OnStale, PinnedKeys, PublicationKey, Retention, RevocationIndex};
use crate::sync::publisher::{Publisher, Takeover};
use crate::sync::replica::last_good::LastGood;
use crate::sync::replica::pace::{Keeping, Tidying};
use crate::sync::replica::state::{Followed, Target};
use crate::sync::replica::{self, Replica};
use crate::telemetry::Metrics;
use crate::token::local_keys;

/// The loops, not yet running.
#[derive(Debug)]
pub struct Replicated {
    replica: Replica,
    publisher: Option<Publisher>,
    leads: Arc<AtomicBool>,
}

impl Replicated {
    /// Whether this process's own folder is what is followed ([`Publisher::leads`]).
    pub(super) fn leads(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.leads)
    }

    /// Runs both for as long as the process does.
    pub(super) async fn run(self) {
        let publish = async {
            match self.publisher {
                Some(publisher) => publisher.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(self.replica.run(), publish);
    }
}

/// Of a process that follows through Redis; `max_staleness` counts from what it hears.
pub(super) fn freshness(settings: &Settings) -> Arc<Freshness> {
    Arc::new(Freshness::following(settings.revocation.max_staleness, settings.revocation.on_stale))
}

/// Builds the loops and looks whether Redis can be used.
///
/// # Errors
/// Files that cannot be read, and a Redis that cannot be used, unless there is something to start with until it can (SPEC 2, 8).
pub(super) fn open(
    settings: &Settings,
    redis: &RedisSettings,
    (index, retention): (&Arc<RevocationIndex>, Retention),
    freshness: &Arc<Freshness>,
    (ledger, metrics): (Option<&Arc<Ledger>>, &Metrics),
) -> anyhow::Result<Replicated> {
    let redis = Redis::new(redis.clone())?;
    let publication = &settings.publication;
    let file = publication.key_file.as_ref().map(|path| local_keys::load_or_create_publication(path));
    let file = file.transpose().context("[publication] key_file")?;
    let own = file.iter().flat_map(|file| &file.public);
    let pinned = PinnedKeys::parse(own.chain(&publication.public_keys).map(String::as_str));
    let pinned = Arc::new(pinned.context("[publication] public_keys")?);
    let key = file.map(|file| PublicationKey::from_pkcs8(file.pkcs8.expose())).transpose();
    let key = key.context("[publication] key_file")?;

    let target = Target { index: Arc::clone(index), retention };
    let mut followed = Followed::new(Arc::clone(&pinned), target, Arc::clone(freshness));
    // Who has a truth of its own starts with that.
    let last_good = ledger.is_none().then(|| LastGood::new(&settings.revocation.last_good));
    if last_good.is_none() {
        followed = followed.without_last_good();
    }
    let mut can_wait = match &last_good {
        Some(last_good) => restore(last_good, &mut followed, freshness),
        None => false,
    };
    if ledger.is_some_and(|ledger| ledger.truth().is_some()) {
        freshness.restored(i64::MIN, 0);
        can_wait = true;
    }
    look(&redis, can_wait, settings.revocation.on_stale)?;

    let broken = Arc::new(Notify::new());
    let counted = metrics.replication();
    let leads = Arc::new(AtomicBool::new(false));
    let publisher = ledger.zip(key).map(|(ledger, key)| Publisher {
        redis: redis.clone(),
        ledger: Arc::clone(ledger),
        key: Arc::new(key),
        pinned,
        broken: Arc::clone(&broken),
        leads: Arc::clone(&leads),
        takeover: Takeover::OfTheDead,
        metrics: Arc::clone(&counted),
    });
    counted.begin(publisher.is_some());
    let ledger = ledger.cloned();
    Ok(Replicated {
        replica: Replica {
            redis,
            followed,
            ledger,
            last_good,
            broken,
            metrics: counted,
            keeping: Keeping::default(),
            tidying: Tidying::default(),
        },
        publisher,
        leads,
    })
}

/// A publisher for one change, without a replica beside it. Its folder may be that of a wrong working directory, or under a volume that
/// is not mounted, so it takes nothing over.
pub(super) fn publisher(
    settings: &Settings,
    redis: &RedisSettings,
    ledger: &Arc<Ledger>,
    metrics: &Metrics,
) -> anyhow::Result<Publisher> {
    let publication = &settings.publication;
    let path = publication.key_file.as_ref().context("[publication] key_file is missing")?;
    let file = local_keys::load_or_create_publication(path).context("[publication] key_file")?;
    let pinned = PinnedKeys::parse(file.public.iter().chain(&publication.public_keys).map(String::as_str));
    Ok(Publisher {
        redis: Redis::new(redis.clone())?,
        ledger: Arc::clone(ledger),
        key: Arc::new(PublicationKey::from_pkcs8(file.pkcs8.expose()).context("[publication] key_file")?),
        pinned: Arc::new(pinned.context("[publication] public_keys")?),
        broken: Arc::new(Notify::new()),
        leads: Arc::default(),
        takeover: Takeover::Never,
        metrics: metrics.replication(),
    })
}

/// Whether there is a last good state.
fn restore(last_good: &LastGood, followed: &mut Followed, freshness: &Freshness) -> bool {
    let now = replica::now();
    match last_good.restore(followed) {
        Ok(None) => false,
        Ok(Some(restored)) => {
            let heard = i64::try_from(restored.heard).unwrap_or(i64::MAX);
            freshness.restored(heard, now);
            let age = u64::try_from(now.saturating_sub(heard)).ok().map(std::time::Duration::from_millis);
            tracing::info!(
                n = restored.n,
                ?age,
                "the last good state of revocations was read; Redis has to confirm it"
            );
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the last good state of revocations is no good and is ignored");
            false
        }
    }
}

/// One look at Redis: a mistake in its URL is better found now than by requests.
fn look(redis: &Redis, can_wait: bool, on_stale: OnStale) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Err(failure) = runtime.block_on(replica::look(redis)) else { return Ok(()) };
    if can_wait && !matches!(failure, RedisFailure::Evicts(_)) {
        let until = match on_stale {
            OnStale::Deny => "guarded routes answer 503 until it can",
            OnStale::Allow => "going on by the last good state ([revocation] on_stale = \"allow\")",
        };
        tracing::error!(redis = redis.shown(), why = %failure, "Redis cannot be used; {until}");
        return Ok(());
    }
    bail!(
        "[redis] url: {} cannot be used: {failure}\n  help: Start it, correct the URL (REDIS_URL), or remove it where there is only one \
         process.",
        redis.shown()
    )
}
