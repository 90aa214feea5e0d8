//! Bind first, serve last; stop accepting, drain, then stop the threads.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::signal::unix::{SignalKind, signal};

use super::build::{Built, build, tell_of_snapshot};
use crate::admin_api;
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::gateway::{Logged, Worker};
use crate::net::guard::{Expired, GuardSettings};
use crate::net::serve::ListenerEvent;
use crate::net::{self, Drain, DrainSender, ListenerSettings, Protocol, Stage};
use crate::request::head::HeadLimits;
use crate::sync::Loaded;
use crate::sync::policy_files::Unusable;
use crate::telemetry::{AccessLog, Limit, Listener, WorkerMetrics};

/// How often what is idle or expired is cleared away.
const SWEEP: Duration = Duration::from_secs(5);

/// How long a kept-alive connection without a request is left open for one more when doorward stops: what is on its way on it is
/// answered, with `Connection: close`. At most half of the grace time.
const ONE_MORE: Duration = Duration::from_secs(3);
/// How long admin calls and probes that are under way may take when everything else has ended.
const CONTROL_GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a drain has come to its end.
const LOOK: Duration = Duration::from_millis(10);

/// A running process.
pub struct Doorward {
    drain: DrainSender,
    workers: Vec<JoinHandle<()>>,
    /// The admin listener and the probes answer until the gateway has ended: they are what tells of it.
    control_drain: DrainSender,
    control: Vec<JoinHandle<()>>,
    readiness: admin_api::Readiness,
    log: Option<Arc<AccessLog>>,
    drain_delay: Duration,
    grace: Duration,
    gateway: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// What the control thread listens on.
struct ControlListeners {
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
}

impl Doorward {
    /// Builds, binds, and serves on threads of its own.
    ///
    /// # Errors
    /// What is wrong with settings, files or addresses.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let built = build(settings)?;
        let workers = settings.gateway.worker_count();
        let gateway = built.gateway.as_ref().map(|_| net::bind(settings.gateway.listen, workers)).transpose()?;
        let mut bind_one = |address| anyhow::Ok(net::bind(address, 1)?.pop());
        let listeners = ControlListeners {
            admin: built.admin.as_ref().map(|_| bind_one(settings.admin.listen)).transpose()?.flatten(),
            probes: settings.probes.map(&mut bind_one).transpose()?.flatten(),
        };
        let logged = logged(settings);
        let log = (logged.access || logged.audit).then(|| open_log(settings, &built)).transpose()?;

        let (sender, drain) = Drain::new();
        let (control_sender, control_drain) = Drain::new();
        let address_of = |listener: Option<&TcpListener>| listener.and_then(|listener| listener.local_addr().ok());
        let mut running = Self {
            drain: sender,
            workers: Vec::new(),
            control_drain: control_sender,
            control: Vec::new(),
            readiness: built.readiness.clone(),
            log,
            drain_delay: settings.gateway.drain_delay,
            grace: settings.gateway.grace,
            gateway: address_of(gateway.as_ref().and_then(|listeners| listeners.first())),
            admin: address_of(listeners.admin.as_ref()),
        };
        let probes = address_of(listeners.probes.as_ref());
        if let Some(listeners) = gateway {
            running.spawn_gateway(settings, &built, listeners, &drain)?;
        }
        running.spawn_control(settings, &built, listeners, &control_drain)?;
        running.readiness.set(true);
        let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
        tracing::info!(
            gateway = shown(running.gateway),
            admin = shown(running.admin),
            probes = shown(probes),
            "serving"
        );
        Ok(running)
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway
    }

    /// Where the admin listener listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Ends in order: readiness off, no more connections, one more answer on those that are kept alive, and what is under way within
    /// the grace time. `pause` waits for as long as it is told, and says whether somebody does not want to wait any longer.
    pub fn stop(self, mut pause: impl FnMut(Duration) -> bool) {
        self.readiness.set(false);
        self.drain.advance(Stage::Leaving);
        tracing::info!(delay = ?self.drain_delay, grace = ?self.grace, "stopping");
        let hurried = !self.drain_delay.is_zero() && pause(self.drain_delay);
        self.drain.advance(Stage::LastCall);
        if hurried || !self.drained(&mut pause) {
            tracing::warn!(grace = ?self.grace, "what is still under way is cut off");
        }
        self.control_drain.advance(Stage::Ending);
        let deadline = Instant::now() + CONTROL_GRACE;
        while Instant::now() < deadline && !self.control.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(LOOK);
        }
        for thread in self.workers.into_iter().chain(self.control).filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
        if let Some(log) = self.log {
            log.close();
        }
    }

    /// Waits until the workers have ended. `false` if the grace time was over before, or somebody was impatient.
    fn drained(&self, pause: &mut impl FnMut(Duration) -> bool) -> bool {
        let begun = Instant::now();
        let ending = begun + ONE_MORE.min(self.grace / 2);
        while !self.workers.iter().all(JoinHandle::is_finished) {
            let now = Instant::now();
            if now >= ending {
                self.drain.advance(Stage::Ending);
            }
            if now >= begun + self.grace || pause(LOOK) {
                return false;
            }
        }
        true
    }

    /// One current-thread runtime, one listener queue and one set of pools a worker: they share nothing on the way of a
    /// request (DESIGN, the hot path).
    fn spawn_gateway(
        &mut self,
        settings: &Settings,
        built: &Built,
        listeners: Vec<TcpListener>,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let Some(gateway) = &built.gateway else { return Ok(()) };
        let listener_settings = Arc::new(listener_settings(settings));
        for (number, listener) in listeners.into_iter().enumerate() {
            let worker = Worker::new(Arc::clone(gateway), &built.metrics, self.log.as_deref(), logged(settings));
            let (shared, drain) = (Arc::clone(&listener_settings), drain.clone());
            let observe = observer(&built.metrics, Listener::Gateway, Arc::clone(worker.count()));
            let leaving = drain.clone();
            let thread = spawn(&format!("gateway-{number}"), async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "cannot listen"),
                };
                let sweeper = Arc::clone(&worker);
                let sweeping = tokio::spawn(every(SWEEP, move || sweeper.sweep()));
                net::serve(listener, shared, drain, observe, move |established, connection| {
                    let kept_alive = established.protocol == Protocol::Http1;
                    let (worker, from, leaving) = (Arc::clone(&worker), worker.meet(established), leaving.clone());
                    service_fn(move |request| {
                        let answering = Arc::clone(&worker).serve(Arc::clone(&from), Arc::clone(&connection), request);
                        let leaving = leaving.clone();
                        async move {
                            let mut answer = answering.await;
                            if kept_alive
                                && leaving.has_reached(Stage::Leaving)
                                && let Ok(answer) = &mut answer
                                && answer.status() != StatusCode::SWITCHING_PROTOCOLS
                            {
                                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                            }
                            answer
                        }
                    })
                })
                .await;
                sweeping.abort();
            })?;
            self.workers.push(thread);
        }
        Ok(())
    }

    /// What runs beside requests has a thread of its own, so that it cannot slow them.
    fn spawn_control(
        &mut self,
        settings: &Settings,
        built: &Built,
        listeners: ControlListeners,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let revocations = Arc::clone(&built.revocations);
        let gateway = built.gateway.clone();
        let following = follow_files(built);
        let admin = self.admin(settings, built, listeners.admin, drain.clone());
        let probes = probes(settings, built, listeners.probes, drain.clone());
        let mut drain = drain.clone();
        let thread = spawn("control", async move {
            let sweeping = tokio::spawn(every(SWEEP, move || {
                revocations.sweep(Timestamp::now());
                if let Some(gateway) = &gateway {
                    gateway.sweep();
                }
            }));
            let following = tokio::spawn(following);
            tokio::join!(admin, probes, drain.begun());
            following.abort();
            sweeping.abort();
        })?;
        self.control.push(thread);
        Ok(())
    }

    /// Serves the admin listener, if there is one.
    fn admin(
        &self,
        settings: &Settings,
        built: &Built,
        listener: Option<TcpListener>,
        drain: Drain,
    ) -> impl Future<Output = ()> + Send + 'static {
        let admin = built.admin.clone().zip(listener);
        let observe = observer(&built.metrics, Listener::Admin, built.metrics.worker());
        let shared = Arc::new(listener_settings(settings));
        let audit = self.log.as_deref().filter(|_| settings.events.log).map(AccessLog::worker);
        async move {
            let Some((state, listener)) = admin else { return };
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    net::serve(listener, shared, drain, observe, move |established, connection| {
                        let peer = established.client;
                        let router = admin_api::router(Arc::clone(&state), peer);
                        let audit = audit.clone();
                        TowerToHyperService::new(admin_api::Inspected::new(router, connection, peer, audit))
                    })
                    .await;
                }
                Err(error) => tracing::error!(%error, "cannot listen"),
            }
        }
    }
}

/// Serves health and readiness on a listener of their own, if there is one.
fn probes(
    settings: &Settings,
    built: &Built,
    listener: Option<TcpListener>,
    drain: Drain,
) -> impl Future<Output = ()> + Send + 'static {
    let observe = observer(&built.metrics, Listener::Probes, built.metrics.worker());
    let shared = Arc::new(listener_settings(settings));
    let router = admin_api::health::probes(built.readiness.clone());
    async move {
        let Some(listener) = listener else { return };
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                net::serve(listener, shared, drain, observe, move |established, connection| {
                    let probed = admin_api::Inspected::new(router.clone(), connection, established.client, None);
                    TowerToHyperService::new(probed)
                })
                .await;
            }
            Err(error) => tracing::error!(%error, "cannot listen"),
        }
    }
}

fn spawn(name: &str, work: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the runtime of {name}"))?;
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            runtime.block_on(work);
            // Not waited for: a file that is being read may never be read to its end.
            runtime.shutdown_background();
        })
        .with_context(|| format!("cannot start the thread {name}"))
}

/// Serves until SIGINT or SIGTERM, then drains. A second signal ends at once what is still under way; the exit code is 0 all the
/// same, because that was asked for (nginx and Envoy do likewise).
#[must_use]
pub fn run_until_signal(doorward: Doorward) -> ExitCode {
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let _entered = runtime.enter();
        let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok((runtime, signals))
    });
    let (runtime, (mut terminate, mut interrupt)) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot wait for signals");
            doorward.stop(|pause| {
                std::thread::sleep(pause);
                false
            });
            return ExitCode::FAILURE;
        }
    };
    let mut asked = async |limit: Option<Duration>| {
        let over = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            () = over => false,
        }
    };
    runtime.block_on(asked(None));
    doorward.stop(|pause| runtime.block_on(asked(Some(pause))));
    ExitCode::SUCCESS
}

fn logged(settings: &Settings) -> Logged {
    Logged { access: settings.log.access, audit: settings.events.log }
}

fn open_log(settings: &Settings, built: &Built) -> anyhow::Result<Arc<AccessLog>> {
    let format = settings.log.format.resolve();
    let log = AccessLog::to_stdout(format, built.metrics.log_dropped()).context("cannot start the access log")?;
    Ok(Arc::new(log))
}

fn listener_settings(settings: &Settings) -> ListenerSettings {
    let limits = &settings.gateway.limits;
    ListenerSettings {
        connections: limits.connections,
        guard: GuardSettings {
            head: HeadLimits { bytes: limits.header_bytes, headers: limits.headers },
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
        },
        open: AtomicUsize::new(0),
    }
}

/// Turns what happens on a listener into metrics.
fn observer(
    metrics: &Arc<crate::telemetry::Metrics>,
    listener: Listener,
    count: Arc<WorkerMetrics>,
) -> impl Fn(ListenerEvent) + Clone + Send + 'static {
    let metrics = Arc::clone(metrics);
    move |event| match event {
        ListenerEvent::Opened => metrics.connection_changed(listener, 1),
        ListenerEvent::Closed => metrics.connection_changed(listener, -1),
        ListenerEvent::Full => count.limit_rejection(Limit::Connections),
        ListenerEvent::Expired(Expired::HeaderTimeout) => count.limit_rejection(Limit::HeaderTimeout),
        ListenerEvent::Expired(Expired::IdleTimeout) => count.limit_rejection(Limit::IdleTimeout),
        ListenerEvent::ParseError(status) => count.parse_error(listener, status),
    }
}

/// Publishes changed policy and roles files to both listeners; a bad change leaves the old state in force.
fn follow_files(built: &Built) -> impl Future<Output = ()> + Send + 'static {
    let gateway = built.gateway.as_ref().map(|gateway| Arc::clone(gateway.admission()));
    let admin = built.admin.as_ref().map(|admin| Arc::clone(&admin.admission));
    let metrics = (Arc::clone(&built.metrics), Arc::clone(&built.metrics));
    let decisions = Arc::clone(&built.decisions);
    let publish = move |loaded: Loaded| {
        if let Some((admission, snapshot)) = admin.as_ref().zip(loaded.admin) {
            admission.publish(snapshot);
        }
        if let Some((admission, snapshot)) = gateway.as_ref().zip(loaded.gateway) {
            tell_of_snapshot(&metrics.0, &snapshot);
            tracing::info!(version = snapshot.version(), "the changed policy is in force");
            let version = snapshot.version();
            admission.publish(snapshot);
            decisions.in_force(version);
        }
    };
    let refused = move |unusable: &Unusable| {
        metrics.1.set_policy_reload_failed();
        tracing::error!(%unusable, "the changed policy is refused; the old one stays in force");
    };
    built.files.clone().follow(built.texts.clone(), publish, refused)
}

async fn every(period: Duration, work: impl Fn()) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        work();
    }
}
