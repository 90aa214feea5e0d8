//! Bind first, serve last; stop accepting, drain, then stop the threads.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

use super::build::{Built, build, tell_of_snapshot};
use super::elsewhere::Asking;
use super::key_sets;
use super::replication::Replicated;
use super::upstreams::{Configured, Listeners, Reading, Ready, Reread, warn_of_unprotected};
use crate::admin_api::{self, ControlSocket, SocketError};
use crate::clock::{Settled, Timestamp};
use crate::config::Settings;
use crate::gateway::upstream::Check;
use crate::gateway::watch::PERIOD as WATCH;
use crate::gateway::{Logged, Worker};
use crate::net::certificates::TlsError;
use crate::net::guard::{Expired, GuardSettings};
use crate::net::serve::ListenerEvent;
use crate::net::{self, Drain, DrainSender, ListenerSettings, Stage, Tls};
use crate::request::head::HeadLimits;
use crate::request::peer::TrustedProxies;
use crate::sync::policy_files::Unusable;
use crate::sync::{self, Followed, KeySets, LiveTls, News, Part};
use crate::telemetry::{AccessLog, Limit, Listener, WorkerMetrics};

/// How often what is idle or expired is cleared away.
const SWEEP: Duration = Duration::from_secs(5);

/// How often it is looked whether what is known has turned stale; open exchanges hear of it then (T20).
const LOOK_AT_AGE: Duration = Duration::from_millis(250);

/// How long before the end of the grace time streams are told.
const LEAVE: Duration = Duration::from_secs(3);
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
    /// Asks elsewhere for as long as somebody may want to know.
    _asking: Option<Asking>,
}

/// What the control thread listens on.
struct ControlListeners {
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
    /// Its path, and what came of binding it.
    socket: Option<(PathBuf, Result<ControlSocket, SocketError>)>,
}

impl Doorward {
    /// Builds, binds, and serves on threads of its own. What `reread` says of upstreams from then on is followed.
    ///
    /// # Errors
    /// What is wrong with settings, files or addresses.
    pub fn start(settings: &Settings, reread: Option<Reread>) -> anyhow::Result<Self> {
        look_at_descriptors(settings);
        let mut built = build(settings)?;
        let asked = built.key_sets.first_answers();
        let workers = settings.gateway.worker_count();
        let gateway = built.gateway.as_ref().map(|_| net::bind(settings.gateway.listen, workers)).transpose()?;
        let mut bind_one = |address| anyhow::Ok(net::bind(address, 1)?.pop());
        let listeners = ControlListeners {
            admin: built.admin.as_ref().map(|_| bind_one(settings.admin.listen)).transpose()?.flatten(),
            probes: settings.probes.map(&mut bind_one).transpose()?.flatten(),
            socket: settings.admin.socket.as_deref().map(|path| (path.to_owned(), ControlSocket::bind(path))),
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
            _asking: built.asking.take(),
        };
        let probes = address_of(listeners.probes.as_ref());
        if let Some(listeners) = gateway {
            running.spawn_gateway(settings, &built, listeners, &drain)?;
        }
        let key_sets = std::mem::take(&mut built.key_sets);
        running.spawn_control(settings, &built, key_sets, listeners, reread, &control_drain)?;
        if let Some(replicated) = built.replicated.take() {
            let mut drain = control_drain.clone();
            // Of its own: what is revoked is on its way while the console lists users.
            running.control.push(spawn("replication", async move {
                tokio::select! {
                    () = replicated.run() => {}
                    () = drain.begun() => {}
                }
            })?);
        }
        // Its end is what is waited for.
        let _ = asked.recv_timeout(key_sets::wait(&settings.auth));
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
        let listener_settings =
            Arc::new(listener_settings(settings, &settings.gateway.proxy_protocol_from, built.gateway_tls.as_ref()));
        let grace = settings.gateway.grace;
        for (number, listener) in listeners.into_iter().enumerate() {
            let log = (self.log.as_deref(), logged(settings));
            let worker = Worker::new(Arc::clone(gateway), &built.metrics, log, drain.clone());
            let (shared, drain) = (Arc::clone(&listener_settings), drain.clone());
            let observe = observer(&built.metrics, Listener::Gateway, Arc::clone(worker.count()));
            let thread = spawn(&format!("gateway-{number}"), async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "cannot listen"),
                };
                let sweeper = Arc::clone(&worker);
                let sweeping = tokio::spawn(every(SWEEP, move || sweeper.sweep()));
                let looker = Arc::clone(&worker);
                let looking = tokio::spawn(every(WATCH, move || looker.look()));
                let leaving = tokio::spawn(leave(Arc::clone(&worker), drain.clone(), grace));
                net::serve(listener, shared, drain, observe, move |established, connection| {
                    let (worker, from) = (Arc::clone(&worker), worker.meet(established));
                    service_fn(move |request| {
                        Arc::clone(&worker).serve(Arc::clone(&from), Arc::clone(&connection), request)
                    })
                })
                .await;
                [sweeping, looking, leaving].iter().for_each(tokio::task::JoinHandle::abort);
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
        key_sets: KeySets,
        listeners: ControlListeners,
        reread: Option<Reread>,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let revocations = Arc::clone(&built.revocations);
        let gateway = built.gateway.clone();
        let certificates = [
            follow_certificates(built, Listener::Gateway, built.gateway_tls.as_ref()),
            follow_certificates(built, Listener::Admin, built.admin_tls.as_ref()),
        ];
        let following = follow_files(settings, built, reread);
        let (fresh, counted) = (Arc::clone(&built.freshness), built.metrics.replication());
        let ledger = built.ledger.clone();
        let roles = Arc::clone(&built.hands.roles);
        let announcing = ledger.clone().map(|ledger| {
            let in_force = move || roles.snapshot().roles().fingerprint().into();
            sync::ledger::announce_role_data(ledger, Arc::clone(&built.revocations), in_force)
        });
        let truth = Arc::clone(&built.truth);
        let own = Arc::clone(&built.truth);
        let leads = built.replicated.as_ref().map_or_else(|| Arc::new(true.into()), Replicated::leads);
        let looking_after = built.gateway.clone();
        let admin = self.admin(settings, built, listeners.admin, drain.clone());
        let probes = probes(settings, built, listeners.probes, drain.clone());
        let socket = self.socket(settings, built, listeners.socket, drain.clone());
        let mut drain = drain.clone();
        let thread = spawn("control", async move {
            let mut settled = Settled::default();
            let sweeping = tokio::spawn(every(SWEEP, move || {
                revocations.sweep(settled.time(Timestamp::now(), Instant::now()));
                if let Some(gateway) = &gateway {
                    gateway.sweep();
                }
                net::return_memory();
            }));
            let following = tokio::spawn(following);
            let aging = tokio::spawn(every(LOOK_AT_AGE, move || {
                let (now, at) = (sync::replica::now(), Instant::now());
                fresh.look(now, at);
                own.look(now, at);
                counted.set_staleness(fresh.staleness_at(now));
            }));
            let key_sets = tokio::spawn(key_sets.run());
            let ledger = ledger.map(|ledger| {
                [
                    tokio::spawn(sync::ledger::follow(Arc::clone(&ledger), truth, leads)),
                    tokio::spawn(sync::ledger::tend(ledger)),
                ]
            });
            let announcing = announcing.map(tokio::spawn);
            let certificates = certificates.map(|following| following.map(tokio::spawn));
            let looking_after = looking_after.map(|gateway| {
                tokio::spawn(sync::endpoints::look_after(move |now| {
                    gateway.upstreams().due(now).into_iter().map(Check::run).collect()
                }))
            });
            tokio::join!(admin, probes, socket, drain.begun());
            following.abort();
            key_sets.abort();
            aging.abort();
            ledger.into_iter().flatten().for_each(|following| following.abort());
            announcing.into_iter().for_each(|announcing| announcing.abort());
            certificates.into_iter().flatten().for_each(|following| following.abort());
            sweeping.abort();
            if let Some(looking_after) = looking_after {
                looking_after.abort();
            }
        })?;
        self.control.push(thread);
        Ok(())
    }

    /// Serves the control socket, if there is to be one.
    fn socket(
        &self,
        settings: &Settings,
        built: &Built,
        socket: Option<(PathBuf, Result<ControlSocket, SocketError>)>,
        drain: Drain,
    ) -> impl Future<Output = ()> + Send + 'static {
        let audit = self.log.as_deref().filter(|_| settings.events.log).map(AccessLog::worker);
        let hands = Arc::clone(&built.hands);
        async move {
            let Some((path, bound)) = socket else { return };
            admin_api::socket::serve(path, bound, hands, audit, drain).await;
        }
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
        let shared = Arc::new(listener_settings(settings, &[], built.admin_tls.as_ref()));
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
    let shared = Arc::new(listener_settings(settings, &[], None));
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

/// Publishes changed policy and roles files to both listeners, and changed upstreams to the gateway; a bad change leaves the old
/// state in force.
fn follow_files(
    settings: &Settings,
    built: &Built,
    reread: Option<Reread>,
) -> impl Future<Output = ()> + Send + 'static {
    let gateway = built.gateway.clone();
    let admin = built.admin.as_ref().map(|admin| Arc::clone(&admin.admission));
    let configuration = gateway.clone().zip(reread).map(|(gateway, reread)| Configured {
        reread,
        started: settings.clone(),
        listeners: Listeners::of(settings),
        gateway,
    });
    let files = Followed {
        policies: built.files.clone(),
        texts: built.texts.clone(),
        configuration,
        read: Reading { upstreams: built.upstreams.clone(), waiting: Vec::new() },
    };
    let metrics = (Arc::clone(&built.metrics), Arc::clone(&built.metrics));
    let decisions = Arc::clone(&built.decisions);
    let asserted = settings.gateway.assertion.is_some();
    let publish = move |news: News<Ready>| {
        if let Some((gateway, Ready { reading, prepared })) = gateway.as_ref().zip(news.configuration) {
            gateway.upstreams().publish(prepared);
            warn_of_unprotected(&reading.upstreams, asserted, &metrics.0);
            metrics.0.set_config_reload_failed(false);
            tracing::info!("the changed configuration of upstreams is in force");
            if !reading.waiting.is_empty() {
                tracing::warn!(keys = reading.waiting.join(", "), "these changed keys wait for a restart");
            }
        }
        let Some(loaded) = news.policies else { return };
        if let Some((gateway, snapshot)) = gateway.as_ref().zip(loaded.gateway) {
            tell_of_snapshot(&metrics.0, &snapshot);
            tracing::info!(version = snapshot.version(), "the changed policy is in force");
            let version = snapshot.version();
            gateway.admission().publish(snapshot);
            decisions.in_force(version);
        }
        if let Some((admission, snapshot)) = admin.as_ref().zip(loaded.admin) {
            admission.publish(snapshot);
        }
    };
    let refused = move |part: Part, unusable: &Unusable| match part {
        Part::Policies => {
            metrics.1.set_policy_reload_failed();
            tracing::error!(%unusable, "the changed policy is refused; the old one stays in force");
        }
        Part::Configuration => {
            metrics.1.set_config_reload_failed(true);
            tracing::error!(%unusable, "the changed configuration is refused; the old upstreams stay in force");
        }
    };
    files.follow(publish, refused)
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

/// Streams may go on for nearly all of the grace time, which begins with the last call, and then are ended in their own words.
async fn leave(worker: Arc<Worker>, mut drain: Drain, grace: Duration) {
    drain.last_call().await;
    tokio::time::sleep(grace.saturating_sub((grace / 2).min(LEAVE))).await;
    worker.leave();
}

async fn every(period: Duration, mut work: impl FnMut()) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        work();
    }
}
