//! The upstreams in force, and how changed ones take their place: whole, with what did not change going on as it was.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::endpoint::EndpointState;
use super::gate::Gate;
use super::health::Check;
use super::pool::{Pool, lock};
use super::settings::{Scheme, UpstreamSettings};
use super::tls::{TlsClient, TlsError};
use crate::telemetry::{EndpointHealth, Metrics, WorkerMetrics};

/// One upstream as all workers see it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: Box<str>,
    pub(super) settings: UpstreamSettings,
    pub(super) endpoints: Box<[Arc<EndpointState>]>,
    pub(super) gate: Arc<Gate>,
}

type InForce = BTreeMap<Box<str>, Arc<Upstream>>;

/// All upstreams of a gateway.
pub struct Upstreams {
    in_force: Mutex<InForce>,
    workers: Mutex<Vec<Weak<WorkerPools>>>,
    metrics: Arc<Metrics>,
}

/// A worker's pools, by the names that policies use.
pub struct WorkerPools {
    pools: ArcSwap<BTreeMap<Box<str>, Arc<Pool>>>,
    count: Arc<WorkerMetrics>,
}

/// Settings that cannot be used, and the upstream that they are of.
#[derive(Debug, thiserror::Error)]
#[error("[upstreams.{upstream}]: {error}")]
pub struct UnusableUpstream {
    upstream: Box<str>,
    error: TlsError,
}

impl Upstreams {
    /// Upstreams by name.
    ///
    /// # Errors
    /// [`UnusableUpstream`] naming the first whose TLS settings are of no use.
    pub fn new(
        settings: BTreeMap<Box<str>, UpstreamSettings>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, UnusableUpstream> {
        let this = Self { in_force: Mutex::default(), workers: Mutex::default(), metrics: Arc::clone(metrics) };
        this.publish(this.prepare(settings)?);
        Ok(this)
    }

    /// Makes all that can fail of changed settings. Endpoints that are reached as before keep what is known of them, and
    /// upstreams of a name keep their count of requests.
    ///
    /// # Errors
    /// [`UnusableUpstream`]; nothing was changed.
    pub fn prepare(&self, settings: BTreeMap<Box<str>, UpstreamSettings>) -> Result<Prepared, UnusableUpstream> {
        let before = lock(&self.in_force).clone();
        let made = settings.into_iter().map(|(name, settings)| {
            let old = before.get(&name);
            let upstream = Upstream::new(name.clone(), settings, old.map(|old| &**old));
            Ok((name.clone(), upstream.map_err(|error| UnusableUpstream { upstream: name, error })?))
        });
        made.collect::<Result<_, _>>().map(Prepared)
    }

    /// Puts upstreams in force. A request that began before goes on with what it has; connections of endpoints that are gone
    /// are closed behind it.
    pub fn publish(&self, prepared: Prepared) {
        let Prepared(upstreams) = prepared;
        let endpoints = upstreams.values().flat_map(|upstream| {
            upstream.endpoints.iter().map(|state| EndpointHealth {
                upstream: upstream.name.clone(),
                endpoint: state.endpoint.to_string().into(),
                healthy: Arc::clone(state.healthy()),
            })
        });
        self.metrics.set_upstream_endpoints(endpoints.collect());
        for upstream in upstreams.values().filter(|upstream| upstream.settings.health.is_none()) {
            upstream.endpoints.iter().for_each(|state| state.unchecked());
        }
        let mut workers = lock(&self.workers);
        workers.retain(|worker| worker.strong_count() > 0);
        for worker in workers.iter().filter_map(Weak::upgrade) {
            worker.renew(&upstreams);
        }
        *lock(&self.in_force) = upstreams;
    }

    /// The pools of one more worker.
    #[must_use]
    pub fn worker(&self, count: &Arc<WorkerMetrics>) -> Arc<WorkerPools> {
        let mut workers = lock(&self.workers);
        let pools = Arc::new(WorkerPools { pools: ArcSwap::default(), count: Arc::clone(count) });
        pools.renew(&lock(&self.in_force));
        workers.push(Arc::downgrade(&pools));
        pools
    }

    /// What should be done beside requests now: connections to try, endpoints to check.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<Check> {
        lock(&self.in_force).values().flat_map(|upstream| Check::all_due(upstream, now)).collect()
    }
}

/// Upstreams that are ready to be put in force.
#[derive(Debug)]
pub struct Prepared(InForce);

impl Upstream {
    fn new(name: Box<str>, settings: UpstreamSettings, old: Option<&Self>) -> Result<Arc<Self>, TlsError> {
        let known = |wanted: &super::Endpoint| {
            let mut states = old.iter().flat_map(|old| old.endpoints.iter());
            states.find(|state| state.is_same(wanted, &settings.tls))
        };
        let secured = settings.endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https);
        let tls = match settings.endpoints.iter().filter_map(known).find_map(|state| state.tls.clone()) {
            None if secured => Some(Arc::new(TlsClient::new(settings.tls.clone())?)),
            kept => kept,
        };
        let mut endpoints: Vec<Arc<EndpointState>> = Vec::with_capacity(settings.endpoints.len());
        for endpoint in &settings.endpoints {
            // One that is named twice is two, so that it gets twice the share.
            let known = known(endpoint).filter(|known| !endpoints.iter().any(|taken| Arc::ptr_eq(taken, known)));
            endpoints.push(match known {
                Some(known) => Arc::clone(known),
                None => EndpointState::new(endpoint.clone(), tls.as_ref())?,
            });
        }
        let gate = old.map_or_else(Arc::default, |old| Arc::clone(&old.gate));
        Ok(Arc::new(Self { name, endpoints: endpoints.into(), gate, settings }))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.settings == other.settings
            && self.endpoints.len() == other.endpoints.len()
            && self.endpoints.iter().zip(&other.endpoints).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl WorkerPools {
    /// The pool of an upstream.
    #[must_use]
    pub fn get(&self, upstream: &str) -> Option<Arc<Pool>> {
        self.pools.load().get(upstream).map(Arc::clone)
    }

    /// Closes connections that nobody used for a while.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.pools.load_full().values().for_each(|pool| pool.sweep(now));
    }

    fn renew(&self, upstreams: &InForce) {
        let before = self.pools.load_full();
        let pools = upstreams.iter().map(|(name, upstream)| {
            let old = before.get(name);
            let pool = match old.filter(|old| old.upstream().is_same(upstream)) {
                Some(unchanged) => Arc::clone(unchanged),
                None => Pool::new(upstream, old.map(|old| &**old), &self.count),
            };
            (name.clone(), pool)
        });
        self.pools.store(Arc::new(pools.collect()));
    }
}
