//! One endpoint as all workers see it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::choose::Candidate;
use super::settings::{Address, EjectionSettings, Endpoint, HealthSettings, Scheme, TlsMaterial};
use super::standing::{Change, Standing, WHOLE};
use super::tls::{TlsClient, TlsError};

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct EndpointState {
    /// Where it is.
    pub(super) endpoint: Endpoint,
    /// How it is reached by TLS, if it is.
    pub(super) tls: Option<Arc<TlsClient>>,
    /// Requests in flight; counted where there is a choice between endpoints.
    load: AtomicUsize,
    /// Whether there is anything to look up in `standing`: in good times nobody takes its lock.
    troubled: AtomicBool,
    standing: Mutex<Standing>,
    /// For the metric.
    healthy: Arc<AtomicBool>,
    /// Which of its addresses is tried first by the next connection.
    pub(super) turn: AtomicUsize,
    checks: Mutex<Checks>,
}

/// What is under way beside requests.
#[derive(Debug, Default)]
struct Checks {
    running: bool,
    next: Option<Instant>,
}

/// What should be done beside requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Try to connect: it was ejected, and the time is over.
    Connection,
    /// Ask for the path of the health check.
    Health,
}

impl EndpointState {
    /// An endpoint that nothing speaks against.
    ///
    /// # Errors
    /// [`TlsError`] if its host cannot be the name in a certificate.
    pub(super) fn new(endpoint: Endpoint, tls: Option<&Arc<TlsClient>>) -> Result<Arc<Self>, TlsError> {
        let tls = tls.filter(|_| endpoint.scheme == Scheme::Https).cloned();
        if let (Some(tls), Address::Tcp { host, .. }) = (&tls, &endpoint.address) {
            tls.server_name(host)?;
        }
        Ok(Arc::new(Self {
            endpoint,
            tls,
            load: AtomicUsize::new(0),
            troubled: AtomicBool::new(false),
            standing: Mutex::new(Standing::new()),
            healthy: Arc::new(AtomicBool::new(true)),
            turn: AtomicUsize::new(0),
            checks: Mutex::default(),
        }))
    }

    /// Whether it is the same endpoint, reached in the same way.
    pub(super) fn is_same(&self, endpoint: &Endpoint, material: &TlsMaterial) -> bool {
        self.endpoint == *endpoint && self.tls.as_ref().is_none_or(|tls| tls.material == *material)
    }

    /// The flag that the metric reads.
    pub(super) fn healthy(&self) -> &Arc<AtomicBool> {
        &self.healthy
    }

    /// A request is on its way there.
    pub(super) fn begin(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    pub(super) fn end(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// What a choice between endpoints looks at.
    pub(super) fn candidate(&self, now: Instant, settings: &EjectionSettings) -> Candidate {
        let share = if self.troubled.load(Ordering::Relaxed) { self.standing().share(now, settings) } else { WHOLE };
        Candidate { load: self.load.load(Ordering::Relaxed), share }
    }

    /// A request that began at `begun` was answered.
    pub(super) fn succeeded(&self, begun: Instant, settings: &EjectionSettings) {
        if self.troubled.load(Ordering::Relaxed) {
            self.told(|standing| standing.succeeded(begun, Instant::now(), settings));
        }
    }

    /// A request that began at `begun` failed, by the endpoint's fault.
    pub(super) fn failed(&self, begun: Instant, settings: &EjectionSettings) {
        self.told(|standing| standing.failed(begun, Instant::now(), settings));
    }

    /// What should be done now, if anything. Whoever is told does it, and says how it ended.
    pub(super) fn due(&self, now: Instant, health: Option<&HealthSettings>) -> Option<Due> {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if checks.running {
            return None;
        }
        let due = if self.troubled.load(Ordering::Relaxed) && self.standing().is_probe_due(now) {
            Due::Connection
        } else {
            let health = health?;
            if checks.next.is_some_and(|next| now < next) {
                return None;
            }
            checks.next = Some(now + health.interval);
            Due::Health
        };
        checks.running = true;
        Some(due)
    }

    /// What was due was done, or given up.
    pub(super) fn done(&self) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).running = false;
    }

    /// A connection was tried beside requests.
    pub(super) fn probed(&self, good: bool, settings: &EjectionSettings) {
        self.told(|standing| standing.probed(good, Instant::now(), settings));
    }

    /// An active check ended.
    pub(super) fn checked(&self, good: bool, health: &HealthSettings) {
        self.told(|standing| standing.checked(good, Instant::now(), health));
    }

    /// Active checks are switched off.
    pub(super) fn unchecked(&self) {
        self.told(|standing| {
            standing.unchecked();
            None
        });
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, tell: impl FnOnce(&mut Standing) -> Option<Change>) {
        let mut standing = self.standing();
        let change = tell(&mut standing);
        self.troubled.store(!standing.is_untroubled(), Ordering::Relaxed);
        self.healthy.store(standing.is_healthy(), Ordering::Relaxed);
        drop(standing);
        let endpoint = &self.endpoint;
        match change {
            None => {}
            Some(Change::Ejected(time)) => {
                tracing::warn!(%endpoint, ?time, "an endpoint fails: as long as others do not, it is left alone");
            }
            Some(Change::Returned) => tracing::info!(%endpoint, "an endpoint can be reached again and is used"),
            Some(Change::Unhealthy) => tracing::warn!(%endpoint, "an endpoint does not pass its health check"),
            Some(Change::Healthy) => tracing::info!(%endpoint, "an endpoint passes its health check again"),
        }
    }
}
