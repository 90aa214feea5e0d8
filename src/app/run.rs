//! Bind first, serve last; stop accepting, drain, then stop the threads.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::sync::watch;

use super::build::{Built, build, tell_of_snapshot};
use crate::admin_api;
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::gateway::{Logged, Worker};
use crate::net::certificates::TlsError;
use crate::net::guard::{Expired, GuardSettings};
use crate::net::serve::ListenerEvent;
use crate::net::{self, Drain, ListenerSettings, Tls};
use crate::request::head::HeadLimits;
use crate::request::peer::TrustedProxies;
use crate::sync::policy_files::Unusable;
use crate::sync::{LiveTls, Loaded};
use crate::telemetry::{AccessLog, Limit, Listener, WorkerMetrics};

/// How often what is idle or expired is cleared away.
const SWEEP: Duration = Duration::from_secs(5);

/// A running process.
pub struct Doorward {
    drain: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    readiness: admin_api::Readiness,
    log: Option<Arc<AccessLog>>,
    grace: Duration,
    gateway: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Doorward {
    /// Builds, binds, and serves on threads of its own.
    ///
    /// # Errors
    /// What is wrong with settings, files or addresses.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        look_at_descriptors(settings);
        let built = build(settings)?;
        let workers = match settings.gateway.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let gateway = built.gateway.as_ref().map(|_| net::bind(settings.gateway.listen, workers)).transpose()?;
        let admin = built.admin.as_ref().map(|_| net::bind(settings.admin.listen, 1)).transpose()?;
        let logged = logged(settings);
        let log = (logged.access || logged.audit).then(|| open_log(settings, &built)).transpose()?;

        let (sender, drain) = Drain::new();
        let mut running = Self {
            drain: sender,
            threads: Vec::new(),
            readiness: built.readiness.clone(),
            log,
            grace: settings.gateway.grace,
            gateway: address_of(gateway.as_ref()),
            admin: address_of(admin.as_ref()),
        };
        if let Some(listeners) = gateway {
            running.spawn_gateway(settings, &built, listeners, &drain)?;
        }
        running.spawn_control(settings, &built, admin, &drain)?;
        running.readiness.set(true);
        let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
        tracing::info!(gateway = shown(running.gateway), admin = shown(running.admin), "serving");
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

    /// Stops accepting, lets requests that are under way finish within the grace time, and ends.
    pub fn stop(self) {
        self.readiness.set(false);
        let _ = self.drain.send(true);
        let deadline = Instant::now() + self.grace;
        while Instant::now() < deadline && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let unfinished = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        if unfinished > 0 {
            tracing::warn!(grace = ?self.grace, "the grace time is over; what is still under way is cut off");
        }
        for thread in self.threads.into_iter().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
        if let Some(log) = self.log {
            log.close();
        }
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
        let listener_settings =
            Arc::new(listener_settings(settings, &settings.gateway.proxy_protocol_from, built.gateway_tls.as_ref()));
        for (number, listener) in listeners.into_iter().enumerate() {
            let worker = Worker::new(Arc::clone(gateway), &built.metrics, self.log.as_deref(), logged(settings));
            let (shared, drain) = (Arc::clone(&listener_settings), drain.clone());
            let observe = observer(&built.metrics, Listener::Gateway, Arc::clone(worker.count()));
            self.spawn(&format!("gateway-{number}"), async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "cannot listen"),
                };
                let sweeper = Arc::clone(&worker);
                let sweeping = tokio::spawn(every(SWEEP, move || sweeper.sweep()));
                net::serve(listener, shared, drain, observe, move |established, connection| {
                    let (worker, from) = (Arc::clone(&worker), worker.meet(established));
                    service_fn(move |request| {
                        Arc::clone(&worker).serve(Arc::clone(&from), Arc::clone(&connection), request)
                    })
                })
                .await;
                sweeping.abort();
            })?;
        }
        Ok(())
    }

    /// What runs beside requests has a thread of its own, so that it cannot slow them.
    fn spawn_control(
        &mut self,
        settings: &Settings,
        built: &Built,
        listeners: Option<Vec<TcpListener>>,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let revocations = Arc::clone(&built.revocations);
        let gateway = built.gateway.clone();
        let admin = built.admin.clone().zip(listeners.and_then(|mut listeners| listeners.pop()));
        let following = follow_files(built);
        let certificates = [
            follow_certificates(built, Listener::Gateway, built.gateway_tls.as_ref()),
            follow_certificates(built, Listener::Admin, built.admin_tls.as_ref()),
        ];
        let mut drain = drain.clone();
        let observe = observer(&built.metrics, Listener::Admin, built.metrics.worker());
        let shared = Arc::new(listener_settings(settings, &[], built.admin_tls.as_ref()));
        let audit = self.log.as_deref().filter(|_| settings.events.log).map(AccessLog::worker);
        self.spawn("control", async move {
            let sweeping = tokio::spawn(every(SWEEP, move || {
                revocations.sweep(Timestamp::now());
                if let Some(gateway) = &gateway {
                    gateway.sweep();
                }
            }));
            let following = tokio::spawn(following);
            let certificates = certificates.map(|following| following.map(tokio::spawn));
            match admin {
                None => drain.begun().await,
                Some((state, listener)) => match tokio::net::TcpListener::from_std(listener) {
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
                },
            }
            following.abort();
            certificates.into_iter().flatten().for_each(|following| following.abort());
            sweeping.abort();
        })
    }

    fn spawn(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .with_context(|| format!("cannot start the runtime of {name}"))?;
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(work);
                // Not waited for: a file that is being read may never be read to its end.
                runtime.shutdown_background();
            })
            .with_context(|| format!("cannot start the thread {name}"))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Serves until SIGINT or SIGTERM, then drains.
#[must_use]
pub fn run_until_signal(doorward: Doorward) -> ExitCode {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = terminate.recv() => Ok(()),
                interrupted = tokio::signal::ctrl_c() => interrupted,
            }
        })
    });
    let waited = waiting.and_then(|waited| waited);
    doorward.stop();
    match waited {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot wait for signals");
            ExitCode::FAILURE
        }
    }
}

/// Every connection has a file descriptor, and while it is served nearly always a second one, to an upstream.
fn look_at_descriptors(settings: &Settings) {
    let wanted = 2 * settings.gateway.limits.connections as u64;
    if let Some(limit) = net::descriptors::raise_limit().filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            connections = settings.gateway.limits.connections,
            "the limit of open files is too low for [gateway] limits.connections, each of which may need two: raise it \
             (ulimit -Hn, LimitNOFILE=), or lower limits.connections"
        );
    }
}

fn logged(settings: &Settings) -> Logged {
    Logged { access: settings.log.access, audit: settings.events.log }
}

fn open_log(settings: &Settings, built: &Built) -> anyhow::Result<Arc<AccessLog>> {
    let format = settings.log.format.resolve();
    let log = AccessLog::to_stdout(format, built.metrics.log_dropped()).context("cannot start the access log")?;
    Ok(Arc::new(log))
}

fn address_of(listeners: Option<&Vec<TcpListener>>) -> Option<SocketAddr> {
    listeners?.first()?.local_addr().ok()
}

fn listener_settings(settings: &Settings, proxies: &[IpNet], tls: Option<&LiveTls>) -> ListenerSettings {
    let limits = &settings.gateway.limits;
    ListenerSettings {
        connections: limits.connections,
        guard: GuardSettings {
            head: HeadLimits { bytes: limits.header_bytes, headers: limits.headers },
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            streams: limits.streams,
        },
        open: AtomicUsize::new(0),
        proxies: TrustedProxies::new(proxies.to_vec()),
        tls: tls.map(|tls| Arc::clone(&tls.live)),
    }
}

/// Turns what happens on a listener into metrics.
fn observer(
    metrics: &Arc<crate::telemetry::Metrics>,
    listener: Listener,
    count: Arc<WorkerMetrics>,
) -> impl Fn(ListenerEvent) + Clone + Send + Unpin + 'static {
    let metrics = Arc::clone(metrics);
    move |event| match event {
        ListenerEvent::Opened => metrics.connection_changed(listener, 1),
        ListenerEvent::Closed => metrics.connection_changed(listener, -1),
        ListenerEvent::HandshakeFailed => metrics.handshake_failed(listener),
        ListenerEvent::Limited(limit) => count.limit_rejection(limit),
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
    let publish = move |loaded: Loaded| {
        if let Some((admission, snapshot)) = admin.as_ref().zip(loaded.admin) {
            admission.publish(snapshot);
        }
        if let Some((admission, snapshot)) = gateway.as_ref().zip(loaded.gateway) {
            tell_of_snapshot(&metrics.0, &snapshot);
            tracing::info!(version = snapshot.version(), "the changed policy is in force");
            admission.publish(snapshot);
        }
    };
    let refused = move |unusable: &Unusable| {
        metrics.1.set_policy_reload_failed();
        tracing::error!(%unusable, "the changed policy is refused; the old one stays in force");
    };
    built.files.clone().follow(built.texts.clone(), publish, refused)
}

/// Publishes a listener's changed certificates; a bad change leaves the old ones in force.
fn follow_certificates(
    built: &Built,
    listener: Listener,
    tls: Option<&LiveTls>,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let tls = tls?.clone();
    let metrics = (Arc::clone(&built.metrics), Arc::clone(&built.metrics));
    metrics.0.set_certificates(listener, tls.live.get().expiry());
    let published = move |tls: &Tls| {
        metrics.0.set_certificates(listener, tls.expiry());
        tracing::info!(listener = listener.label(), "the changed certificates are in force");
    };
    let refused = move |error: &TlsError| {
        metrics.1.set_certificate_reload_failed(listener);
        tracing::error!(listener = listener.label(), %error, "the changed certificates are refused; the old ones stay in force");
    };
    Some(tls.follow(published, refused))
}

async fn every(period: Duration, work: impl Fn()) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        work();
    }
}
