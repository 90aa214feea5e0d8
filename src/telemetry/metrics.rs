//! Every metric family of doorward, and the text that a scrape gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::delegate::DelegateMetrics;
use super::histogram::{Bounds, HistogramTotal};
use super::key_sets::{KeyFetch, KeySetMetrics};
use super::ledger::{LedgerMetrics, SYNC_BOUNDS};
use super::process;
use super::replication::{ReplicationMetrics, ReplicationTotals};
use super::shard::{Totals, WorkerMetrics, lock};
use crate::reason::Reason;

/// The media type of [`Metrics::render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

macro_rules! families {
    ($( $constant:ident = $kind:ident $name:literal $help:literal; )+) => {
        $( const $constant: Family = Family { name: $name, help: $help, kind: MetricType::$kind }; )+

        /// The name of every family, in the order of declaration.
        pub const FAMILY_NAMES: &[&str] = &[ $( $name, )+ ];
    };
}

families! {
    REQUESTS = COUNTER "doorward_requests_total" "Answered requests; route is the policy's pattern.";
    REQUEST_DURATION = HISTOGRAM "doorward_request_duration_seconds" "Time from a request's head to the last byte of its answer.";
    UPSTREAM_DURATION = HISTOGRAM "doorward_upstream_duration_seconds" "Time an upstream took to answer.";
    VALIDATION = HISTOGRAM "doorward_token_validation_seconds" "Time to validate a token, by where the answer came from.";
    DECISION = HISTOGRAM "doorward_decision_seconds" "Time to decide a request.";
    AUTH_FAILURES = COUNTER "doorward_auth_failures_total" "Requests refused with 401, 403 or auth_unavailable.";
    CACHE_HITS = COUNTER "doorward_token_cache_hits_total" "Token validations answered from the cache.";
    CACHE_MISSES = COUNTER "doorward_token_cache_misses_total" "Token validations that had to verify the token.";
    REVOCATIONS = GAUGE "doorward_revocations" "Revocations in force.";
    SUBJECT_OVERRIDES = GAUGE "doorward_subject_overrides" "Subjects whose older tokens are judged by what was published of them since.";
    JWKS_AGE = GAUGE "doorward_jwks_age_seconds" "Time since the issuer's key set was last confirmed; infinite if it never was.";
    JWKS_FETCHES = COUNTER "doorward_jwks_fetches_total" "Fetches of an issuer's key set, and looks at a changed file of one.";
    JWKS_FAILING = GAUGE "doorward_jwks_failing" "1 while the issuer's key set cannot be had and an older one is used, or none.";
    JWKS_UNKNOWN_KIDS = COUNTER "doorward_jwks_unknown_kids_total" "Tokens that named a key that their issuer does not have.";
    POLICY_INFO = GAUGE "doorward_policy_info" "The policy file in force for each service; always 1.";
    POLICY_RELOAD_FAILED = GAUGE "doorward_policy_reload_failed" "1 while the policy on disk is refused and an older one in force.";
    SNAPSHOT_VERSION = GAUGE "doorward_snapshot_version" "The number of the policy snapshot in force.";
    CONFIG_RELOAD_FAILED = GAUGE "doorward_config_reload_failed" "1 while the configuration on disk is refused and older upstreams in force.";
    UPSTREAM_HEALTHY = GAUGE "doorward_upstream_healthy" "1 if the endpoint is used, 0 while it is left alone.";
    UPSTREAM_RETRIES = COUNTER "doorward_upstream_retries_total" "Requests that were sent to an upstream a second time.";
    UPSTREAM_CONNECTIONS = GAUGE "doorward_upstream_connections" "Open connections to each upstream.";
    CONNECTIONS = GAUGE "doorward_connections" "Open client connections of each listener.";
    LIMIT_REJECTIONS = COUNTER "doorward_limit_rejections_total" "Connections and requests turned away by a limit.";
    STREAMS = GAUGE "doorward_streams" "Open streams: WebSocket tunnels, event streams, gRPC calls.";
    STREAMS_ENDED = COUNTER "doorward_exchanges_ended_total" "Open exchanges that were ended because they would not be admitted any more.";
    REPORT_ONLY = COUNTER "doorward_report_only_total" "Denials that report-only mode let through.";
    PARSE_ERRORS = COUNTER "doorward_parse_errors_total" "Requests refused by the HTTP parser.";
    CERTIFICATE_EXPIRY = GAUGE "doorward_certificate_expiry_timestamp_seconds" "When the first of a listener's certificates ends, in seconds since the Unix epoch.";
    CERTIFICATE_RELOAD_FAILED = GAUGE "doorward_certificate_reload_failed" "1 while the certificate files on disk are refused and older ones in force.";
    HANDSHAKES_FAILED = COUNTER "doorward_tls_handshakes_failed_total" "TLS handshakes that did not come to an end.";
    BUILD_INFO = GAUGE "doorward_build_info" "The running version; always 1.";
    UPSTREAM_UNPROTECTED = GAUGE "doorward_upstream_unprotected" "1 if the upstream can be reached around the gateway in plain text.";
    LOG_DROPPED = COUNTER "doorward_log_dropped_total" "Access lines lost because the log's reader was too slow or gone.";
    DECISIONS = GAUGE "doorward_decisions_remembered" "Decisions that GET /api/decisions/{request_id} can explain: denials, and a sample of the rest.";
    DECISION_BYTES = GAUGE "doorward_decisions_remembered_bytes" "Memory that these decisions take, roughly.";
    STALENESS = GAUGE "doorward_revocation_staleness_seconds" "How long ago the control plane was last heard; +Inf: never. Without Redis: when its folder was last looked at.";
    KEEP_MISSING = GAUGE "doorward_revocation_keep_missing_seconds" "By how long the control plane keeps revocations for a shorter time than tokens live here; more than 0 is a mistake.";
    REPLICATION_CONNECTED = GAUGE "doorward_replication_connected" "1 while Redis answers: to what follows (role replica), and to what publishes.";
    REPLICATION_LOADS = COUNTER "doorward_replication_loads_total" "Times the whole state was read from Redis.";
    REPLICATION_CHANGES = COUNTER "doorward_replication_changes_total" "Changes that came through Redis.";
    REPLICATION_REFUSED = COUNTER "doorward_replication_refused_total" "Lines in Redis that were not believed.";
    PUBLICATION_PENDING = GAUGE "doorward_publication_pending" "Changes recorded here that are not published yet.";
    PUBLICATION_BLOCKED = GAUGE "doorward_publication_blocked" "1 while somebody else publishes another truth in this Redis, or from another copy of this folder, so that nothing from here is published.";
    PUBLICATION_REWRITES = COUNTER "doorward_publication_rewrites_total" "Times state and stream in Redis were written anew from the truth.";
    LEDGER_CHANGES = COUNTER "doorward_ledger_changes_total" "Changes of the revocation folder that were applied, from this process and others.";
    LEDGER_SYNC = HISTOGRAM "doorward_ledger_fsync_seconds" "Time to write recorded changes to disk, those that were gathered together.";
    LEDGER_SEGMENTS = GAUGE "doorward_ledger_segments" "Segments of the revocation folder.";
    LEDGER_RECORDS = GAUGE "doorward_ledger_records" "Records in segments of the revocation folder, and changes after them.";
    LEDGER_FAILURES = COUNTER "doorward_ledger_failures_total" "Times the revocation folder could not be read or written.";
    DELEGATE_QUESTION = HISTOGRAM "doorward_delegate_question_seconds" "Time that a question took which was asked elsewhere: of the user service, or of a blacklist.";
    DELEGATE_COALESCED = COUNTER "doorward_delegate_coalesced_total" "Requests that waited for a question which another one had asked.";
    DELEGATE_OPEN = GAUGE "doorward_delegate_questions_open" "Questions that are asked now, or wait for a place.";
    LOOKUP_UNANSWERED = COUNTER "doorward_lookup_unanswered_total" "Requests that went on though the blacklist did not answer (on_stale = \"allow\").";
    PROCESS_CPU = COUNTER "process_cpu_seconds_total" "CPU time of the process, user and system.";
    PROCESS_RESIDENT = GAUGE "process_resident_memory_bytes" "Resident memory of the process.";
    PROCESS_OPEN_FDS = GAUGE "process_open_fds" "Open file descriptors of the process.";
    PROCESS_MAX_FDS = GAUGE "process_max_fds" "The soft limit of open file descriptors.";
    PROCESS_START = GAUGE "process_start_time_seconds" "When the process started, in seconds since the Unix epoch.";
    PROCESS_THREADS = GAUGE "process_threads" "Threads of the process.";
}

macro_rules! labels {
    ($(#[$meta:meta])+ $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $label:literal, )+ }) => {
        $(#[$meta])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The label's value.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }
        }
    };
}

labels! {
    /// Where connections come in.
    Listener {
        /// Everything from outside.
        Gateway = "gateway",
        /// Metrics, health and the admin API.
        Admin = "admin",
        /// Health and readiness alone.
        Probes = "probes",
    }
}

labels! {
    /// What turned a connection or a request away.
    Limit {
        /// Connections at a time.
        Connections = "connections",
        /// The size of the header section.
        HeaderBytes = "header_bytes",
        /// The number of header fields.
        Headers = "headers",
        /// The size of the body.
        Body = "body",
        /// The time to send the header section.
        HeaderTimeout = "header_timeout",
        /// The time between two pieces of a request or between two requests.
        IdleTimeout = "idle_timeout",
        /// HTTP/2 streams open on one connection at a time.
        Streams = "streams",
        /// HTTP/2 streams that one client opens only to reset them (CVE-2023-44487), or that it gets reset by errors.
        StreamResets = "stream_resets",
        /// HTTP/2 frames that carry nothing.
        ControlFrames = "control_frames",
        /// The requests of one caller to one route in a time.
        Rate = "rate",
        /// The requests to one upstream at a time.
        UpstreamRequests = "upstream_requests",
        /// The questions to a user service at a time, those that wait included.
        Questions = "questions",
    }
}

labels! {
    /// Where the answer to "is this token valid" came from.
    ValidationSource {
        /// The cache of verified tokens.
        Cache = "cache",
        /// A signature verification.
        Verify = "verify",
        /// A delegated user service.
        Iam = "iam",
    }
}

labels! {
    /// What an exchange is that lasts.
    Stream {
        /// A connection that was upgraded to WebSocket, or an HTTP/2 stream.
        WebSocket = "websocket",
        /// An answer of the type `text/event-stream`.
        Events = "sse",
        /// An answer of the type `application/grpc`.
        Grpc = "grpc",
    }
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// Half a millisecond to half a minute: what people wait for.
pub(super) const REQUEST_BOUNDS: Bounds = &[
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    2_500 * MILLISECOND,
    5_000 * MILLISECOND,
    10_000 * MILLISECOND,
    30_000 * MILLISECOND,
];

/// A cache hit takes under a microsecond, a signature tens of them, a delegated service milliseconds.
pub(super) const VALIDATION_BOUNDS: Bounds = &[
    500,
    MICROSECOND,
    2_500,
    5 * MICROSECOND,
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    MILLISECOND,
    5 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
    1_000 * MILLISECOND,
];

/// A decision is memory only: what takes a millisecond was preempted.
pub(super) const DECISION_BOUNDS: Bounds = &[
    100,
    250,
    500,
    MICROSECOND,
    2_500,
    5 * MICROSECOND,
    10 * MICROSECOND,
    25 * MICROSECOND,
    100 * MICROSECOND,
    MILLISECOND,
];

/// An endpoint of an upstream, and the flag that says whether it is used.
#[derive(Debug, Clone)]
pub struct EndpointHealth {
    /// The upstream's name.
    pub upstream: Box<str>,
    /// The endpoint, as it is configured.
    pub endpoint: Box<str>,
    /// Whether it is used.
    pub healthy: Arc<AtomicBool>,
}

/// The metrics of the process: the workers' shards, and what is known once for all of them.
#[derive(Debug)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    connections: Arc<[AtomicI64]>,
    tls: Box<[ListenerTls]>,
    revocations: AtomicU64,
    subject_overrides: AtomicU64,
    snapshot_version: AtomicU64,
    policy_reload_failed: AtomicBool,
    policies: Mutex<BTreeSet<(String, String)>>,
    key_sets: Mutex<BTreeMap<Box<str>, Arc<KeySetMetrics>>>,
    unprotected: Mutex<BTreeMap<String, bool>>,
    config_reload_failed: AtomicBool,
    endpoints: Mutex<Vec<EndpointHealth>>,
    log_dropped: Arc<AtomicU64>,
    ledger: Arc<LedgerMetrics>,
    delegate: Arc<DelegateMetrics>,
    /// Denials, samples, and the bytes of both.
    decisions: [AtomicU64; 3],
    replication: Arc<ReplicationMetrics>,
}

/// What is known of a listener that speaks TLS.
#[derive(Debug, Default)]
struct ListenerTls {
    spoken: AtomicBool,
    expiry: AtomicI64,
    reload_failed: AtomicBool,
    handshakes_failed: AtomicU64,
}

impl Metrics {
    /// No workers yet, everything at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            workers: Mutex::default(),
            connections: Listener::ALL.iter().map(|_| AtomicI64::new(0)).collect(),
            tls: Listener::ALL.iter().map(|_| ListenerTls::default()).collect(),
            revocations: AtomicU64::new(0),
            subject_overrides: AtomicU64::new(0),
            snapshot_version: AtomicU64::new(0),
            policy_reload_failed: AtomicBool::new(false),
            policies: Mutex::default(),
            key_sets: Mutex::default(),
            unprotected: Mutex::default(),
            config_reload_failed: AtomicBool::new(false),
            endpoints: Mutex::default(),
            log_dropped: Arc::default(),
            ledger: Arc::default(),
            delegate: Arc::default(),
            decisions: Default::default(),
            replication: Arc::default(),
        })
    }

    /// A shard for a worker thread. Call it once per thread: shards live as long as the process.
    #[must_use]
    pub fn worker(&self) -> Arc<WorkerMetrics> {
        let shard = Arc::new(WorkerMetrics::new());
        lock(&self.workers).push(Arc::clone(&shard));
        shard
    }

    /// A client connection opened (`1`) or ended (`-1`).
    pub fn connection_changed(&self, listener: Listener, by: i64) {
        if let Some(gauge) = self.connections.get(listener as usize) {
            gauge.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// How many client connections a listener has now.
    #[must_use]
    pub fn connections(&self, listener: Listener) -> i64 {
        self.connections.get(listener as usize).map_or(0, |gauge| gauge.load(Ordering::Relaxed))
    }

    /// A listener's certificates are in force, the first of which ends at `expiry` (seconds since the Unix epoch). Clears the
    /// mark of a failed reload.
    pub fn set_certificates(&self, listener: Listener, expiry: i64) {
        if let Some(tls) = self.tls.get(listener as usize) {
            tls.expiry.store(expiry, Ordering::Relaxed);
            tls.reload_failed.store(false, Ordering::Relaxed);
            tls.spoken.store(true, Ordering::Release);
        }
    }

    /// A listener's certificates on disk were refused, and older ones stay in force.
    pub fn set_certificate_reload_failed(&self, listener: Listener) {
        if let Some(tls) = self.tls.get(listener as usize) {
            tls.reload_failed.store(true, Ordering::Relaxed);
        }
    }

    /// A TLS handshake did not come to an end.
    pub fn handshake_failed(&self, listener: Listener) {
        if let Some(tls) = self.tls.get(listener as usize) {
            tls.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the loops that share revocations count.
    #[must_use]
    pub fn replication(&self) -> Arc<ReplicationMetrics> {
        Arc::clone(&self.replication)
    }

    /// What the revocation folder counts.
    #[must_use]
    pub fn ledger(&self) -> Arc<LedgerMetrics> {
        Arc::clone(&self.ledger)
    }

    /// How many revocations are in force, and how many subjects have overrides.
    pub fn set_revocations(&self, count: usize, subject_overrides: usize) {
        self.revocations.store(count as u64, Ordering::Relaxed);
        self.subject_overrides.store(subject_overrides as u64, Ordering::Relaxed);
    }

    /// How many decisions are remembered, and the bytes that they take.
    pub fn set_decisions(&self, denials: usize, samples: usize, bytes: usize) {
        for (gauge, value) in self.decisions.iter().zip([denials, samples, bytes]) {
            gauge.store(value as u64, Ordering::Relaxed);
        }
    }

    /// A snapshot is in force: its number, and service and sha256 of each policy file. Clears the mark of a failed
    /// reload.
    pub fn set_snapshot<'a>(&self, version: u64, policies: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.snapshot_version.store(version, Ordering::Relaxed);
        *lock(&self.policies) = policies.into_iter().map(|(service, sha)| (service.into(), sha.into())).collect();
        self.policy_reload_failed.store(false, Ordering::Relaxed);
    }

    /// The policy on disk was refused, and an older one stays in force.
    pub fn set_policy_reload_failed(&self) {
        self.policy_reload_failed.store(true, Ordering::Relaxed);
    }

    /// Whether the configuration on disk was refused, and what it says of upstreams is not in force.
    pub fn set_config_reload_failed(&self, failed: bool) {
        self.config_reload_failed.store(failed, Ordering::Relaxed);
    }

    /// The endpoints in force. Upstreams that are gone are shown no more.
    pub fn set_upstream_endpoints(&self, endpoints: Vec<EndpointHealth>) {
        let named = |upstream: &str| endpoints.iter().any(|endpoint| &*endpoint.upstream == upstream);
        lock(&self.unprotected).retain(|upstream, _| named(upstream));
        *lock(&self.endpoints) = endpoints;
    }

    /// Whether an upstream can be reached around the gateway (T31).
    pub fn set_upstream_unprotected(&self, upstream: &str, unprotected: bool) {
        lock(&self.unprotected).insert(upstream.to_owned(), unprotected);
    }

    /// The counters of an issuer's key set, made at the first call.
    #[must_use]
    pub fn key_set(&self, issuer: &str) -> Arc<KeySetMetrics> {
        Arc::clone(lock(&self.key_sets).entry(issuer.into()).or_default())
    }

    /// The counters of what is asked elsewhere.
    #[must_use]
    pub fn delegate(&self) -> &Arc<DelegateMetrics> {
        &self.delegate
    }

    /// The counter of lost access lines, for the access log to count on.
    #[must_use]
    pub fn log_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.log_dropped)
    }

    /// The Prometheus text of all families.
    ///
    /// # Errors
    ///
    /// If the encoder refuses a family; none of those above gives it a reason to.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let mut totals = Totals::default();
        for worker in lock(&self.workers).iter() {
            worker.add_to(&mut totals);
        }
        *totals.limit_rejections.entry(Limit::Questions).or_default() += self.delegate.refused();
        let mut out = Gathered(Vec::with_capacity(FAMILY_NAMES.len()));
        gather_delegate(&mut out, &self.delegate);
        gather_requests(&mut out, &totals);
        gather_tokens(&mut out, &totals);
        gather_replication(&mut out, &self.replication.totals());
        self.gather_state(&mut out, &totals);
        gather_ledger(&mut out, &self.ledger);
        gather_process(&mut out);
        out.0.retain(|family| !family.get_metric().is_empty());
        out.0
    }

    fn gather_key_sets(&self, out: &mut Gathered) {
        let sets = lock(&self.key_sets);
        let each = |value: fn(&KeySetMetrics) -> f64| {
            sets.iter().map(move |(issuer, set)| number(&[("issuer", issuer)], value(set))).collect::<Vec<_>>()
        };
        out.add(&JWKS_AGE, each(KeySetMetrics::age_seconds));
        out.add(
            &JWKS_FETCHES,
            sets.iter().flat_map(|(issuer, set)| {
                KeyFetch::ALL
                    .iter()
                    .map(move |what| number(&[("issuer", issuer), ("result", what.label())], set.fetches(*what) as f64))
            }),
        );
        out.add(&JWKS_FAILING, each(|set| f64::from(u8::from(set.is_failing()))));
        out.add(&JWKS_UNKNOWN_KIDS, each(|set| set.unknown_kids() as f64));
    }

    fn gather_state(&self, out: &mut Gathered, totals: &Totals) {
        out.add(&REVOCATIONS, [number(&[], self.revocations.load(Ordering::Relaxed) as f64)]);
        out.add(&SUBJECT_OVERRIDES, [number(&[], self.subject_overrides.load(Ordering::Relaxed) as f64)]);
        self.gather_key_sets(out);
        let policies = lock(&self.policies);
        out.add(
            &POLICY_INFO,
            policies.iter().map(|(service, sha)| number(&[("service", service), ("sha256", sha)], 1.0)),
        );
        let failed = self.policy_reload_failed.load(Ordering::Relaxed);
        out.add(&POLICY_RELOAD_FAILED, [number(&[], f64::from(u8::from(failed)))]);
        out.add(&SNAPSHOT_VERSION, [number(&[], self.snapshot_version.load(Ordering::Relaxed) as f64)]);
        out.add(
            &CONNECTIONS,
            Listener::ALL
                .iter()
                .map(|listener| number(&[("listener", listener.label())], self.connections(*listener) as f64)),
        );
        out.add(
            &UPSTREAM_CONNECTIONS,
            totals.upstreams.iter().flat_map(|(name, total)| {
                [("idle", total.idle), ("active", total.active)]
                    .map(|(state, count)| number(&[("upstream", name), ("state", state)], count as f64))
            }),
        );
        let spoken = || {
            let spoken = |(_, tls): &(_, &ListenerTls)| tls.spoken.load(Ordering::Acquire);
            Listener::ALL
                .iter()
                .zip(&self.tls)
                .filter(spoken)
                .map(|(listener, tls)| ([("listener", listener.label())], tls))
        };
        out.add(
            &CERTIFICATE_EXPIRY,
            spoken().map(|(labels, tls)| number(&labels, tls.expiry.load(Ordering::Relaxed) as f64)),
        );
        out.add(
            &CERTIFICATE_RELOAD_FAILED,
            spoken()
                .map(|(labels, tls)| number(&labels, f64::from(u8::from(tls.reload_failed.load(Ordering::Relaxed))))),
        );
        out.add(
            &HANDSHAKES_FAILED,
            spoken().map(|(labels, tls)| number(&labels, tls.handshakes_failed.load(Ordering::Relaxed) as f64)),
        );
        let failed = self.config_reload_failed.load(Ordering::Relaxed);
        out.add(&CONFIG_RELOAD_FAILED, [number(&[], f64::from(u8::from(failed)))]);
        // An endpoint that is named twice is one here; it is healthy if one of the two is.
        let mut healthy = BTreeMap::new();
        for endpoint in lock(&self.endpoints).iter() {
            let found = healthy.entry((endpoint.upstream.clone(), endpoint.endpoint.clone())).or_insert(false);
            *found |= endpoint.healthy.load(Ordering::Relaxed);
        }
        out.add(
            &UPSTREAM_HEALTHY,
            healthy.iter().map(|((upstream, endpoint), healthy)| {
                number(&[("upstream", upstream), ("endpoint", endpoint)], f64::from(u8::from(*healthy)))
            }),
        );
        out.add(
            &UPSTREAM_RETRIES,
            totals.upstreams.iter().map(|(name, total)| number(&[("upstream", name)], total.retries as f64)),
        );
        let unprotected = lock(&self.unprotected);
        out.add(
            &UPSTREAM_UNPROTECTED,
            unprotected.iter().map(|(upstream, open)| number(&[("upstream", upstream)], f64::from(u8::from(*open)))),
        );
        out.add(&LOG_DROPPED, [number(&[], self.log_dropped.load(Ordering::Relaxed) as f64)]);
        let [denials, samples, bytes] = self.decisions.each_ref().map(|gauge| gauge.load(Ordering::Relaxed) as f64);
        out.add(&DECISIONS, [number(&[("kind", "denial")], denials), number(&[("kind", "sample")], samples)]);
        out.add(&DECISION_BYTES, [number(&[], bytes)]);
        out.add(&BUILD_INFO, [number(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)]);
    }
}

fn gather_replication(out: &mut Gathered, totals: &ReplicationTotals) {
    fn by<'a>(label: &'a str, counts: &'a BTreeMap<&'static str, u64>) -> impl Iterator<Item = Metric> + 'a {
        counts.iter().map(move |(value, count)| number(&[(label, *value)], *count as f64))
    }
    out.add(&STALENESS, [number(&[], totals.staleness)]);
    out.add(&KEEP_MISSING, totals.follows.then(|| number(&[], totals.keep_missing as f64)));
    let connected =
        totals.connected.iter().map(|(role, connected)| number(&[("role", *role)], f64::from(u8::from(*connected))));
    out.add(&REPLICATION_CONNECTED, connected);
    out.add(&REPLICATION_LOADS, by("cause", &totals.loads));
    out.add(&REPLICATION_CHANGES, totals.follows.then(|| number(&[], totals.changes as f64)));
    out.add(&REPLICATION_REFUSED, by("reason", &totals.refused));
    out.add(&PUBLICATION_PENDING, totals.publishes.then(|| number(&[], totals.pending as f64)));
    out.add(&PUBLICATION_BLOCKED, totals.publishes.then(|| number(&[], f64::from(u8::from(totals.blocked)))));
    out.add(&PUBLICATION_REWRITES, by("cause", &totals.rewrites));
}

fn gather_requests(out: &mut Gathered, totals: &Totals) {
    out.add(
        &REQUESTS,
        totals.routes.iter().flat_map(|((service, route), total)| {
            total.requests.iter().map(move |((method, status), count)| {
                let status = status_text(*status);
                let labels =
                    [("service", &**service), ("route", route), ("method", method.label()), ("status", &status)];
                number(&labels, *count as f64)
            })
        }),
    );
    out.add(
        &REQUEST_DURATION,
        // A cell made by a report-only denial alone has no request yet.
        totals
            .routes
            .iter()
            .map(|((service, route), total)| histogram(&[("service", service), ("route", route)], &total.duration)),
    );
    out.add(
        &REPORT_ONLY,
        totals.routes.iter().flat_map(|((service, route), total)| {
            total.report_only.iter().map(move |(reason, count)| {
                number(&[("service", service), ("route", route), ("reason", reason.code())], *count as f64)
            })
        }),
    );
    out.add(
        &UPSTREAM_DURATION,
        totals.upstreams.iter().map(|(name, total)| histogram(&[("upstream", name)], &total.duration)),
    );
    out.add(
        &LIMIT_REJECTIONS,
        Limit::ALL.iter().map(|limit| {
            let count = totals.limit_rejections.get(limit).copied().unwrap_or(0);
            number(&[("limit", limit.label())], count as f64)
        }),
    );
    out.add(
        &STREAMS,
        Stream::ALL
            .iter()
            .map(|kind| number(&[("kind", kind.label())], totals.streams.get(kind).copied().unwrap_or(0) as f64)),
    );
    out.add(
        &STREAMS_ENDED,
        Reason::ALL.iter().filter_map(|reason| {
            let count = totals.ended.get(reason).copied().unwrap_or(0);
            (count > 0 || reason.is_auth_failure()).then(|| number(&[("reason", reason.code())], count as f64))
        }),
    );
    out.add(
        &PARSE_ERRORS,
        totals.parse_errors.iter().map(|((listener, status), count)| {
            number(&[("listener", listener.label()), ("status", &status_text(*status))], *count as f64)
        }),
    );
}

fn gather_tokens(out: &mut Gathered, totals: &Totals) {
    // The good results of the two sources that every deployment has are there from the start; the others as they come.
    let mut validation = totals.validation.clone();
    for source in [ValidationSource::Cache, ValidationSource::Verify] {
        validation.entry((source, None)).or_insert_with(|| HistogramTotal::new(VALIDATION_BOUNDS));
    }
    let count = |wanted: ValidationSource| {
        validation.iter().filter(|((source, _), _)| *source == wanted).map(|(_, total)| total.count()).sum::<u64>()
    };
    out.add(&CACHE_HITS, [number(&[], count(ValidationSource::Cache) as f64)]);
    out.add(&CACHE_MISSES, [number(&[], count(ValidationSource::Verify) as f64)]);
    out.add(
        &VALIDATION,
        validation.iter().map(|((source, result), total)| {
            histogram(&[("source", source.label()), ("result", result.map_or("ok", Reason::code))], total)
        }),
    );
    out.add(&DECISION, [histogram(&[], &totals.decision)]);
    out.add(
        &AUTH_FAILURES,
        Reason::ALL.iter().filter(|reason| reason.is_auth_failure()).map(|reason| {
            let count = totals.auth_failures.get(reason).copied().unwrap_or(0);
            number(&[("reason", reason.code())], count as f64)
        }),
    );
}

fn gather_ledger(out: &mut Gathered, ledger: &LedgerMetrics) {
    let families = [&LEDGER_CHANGES, &LEDGER_SEGMENTS, &LEDGER_RECORDS, &LEDGER_FAILURES];
    for (family, value) in families.into_iter().zip(ledger.numbers()) {
        out.add(family, [number(&[], value as f64)]);
    }
    let mut syncs = HistogramTotal::new(SYNC_BOUNDS);
    ledger.syncs.add_to(&mut syncs);
    out.add(&LEDGER_SYNC, [histogram(&[], &syncs)]);
}

/// Nothing, where nothing was asked elsewhere.
fn gather_delegate(out: &mut Gathered, delegate: &DelegateMetrics) {
    let gathered = delegate.gather();
    let each = |question| [("question", question)];
    out.add(
        &DELEGATE_QUESTION,
        gathered.iter().flat_map(|of| {
            of.answers.iter().map(|(result, total)| histogram(&[("question", of.question), ("result", result)], total))
        }),
    );
    out.add(&DELEGATE_COALESCED, gathered.iter().map(|of| number(&each(of.question), of.coalesced as f64)));
    out.add(&DELEGATE_OPEN, gathered.iter().map(|of| number(&each(of.question), of.open as f64)));
    let looked_up = gathered.iter().any(|of| of.question == "lookup");
    out.add(&LOOKUP_UNANSWERED, looked_up.then(|| number(&[], delegate.unanswered() as f64)));
}

fn gather_process(out: &mut Gathered) {
    let stats = process::read();
    for (family, value) in [
        (&PROCESS_CPU, stats.cpu_seconds),
        (&PROCESS_RESIDENT, stats.resident_bytes),
        (&PROCESS_OPEN_FDS, stats.open_fds),
        (&PROCESS_MAX_FDS, stats.max_fds),
        (&PROCESS_START, stats.start_time_seconds),
        (&PROCESS_THREADS, stats.threads),
    ] {
        out.add(family, value.map(|value| number(&[], value)));
    }
}

struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
}

struct Gathered(Vec<MetricFamily>);

impl Gathered {
    fn add(&mut self, family: &Family, metrics: impl IntoIterator<Item = Metric>) {
        let mut made = MetricFamily::default();
        made.set_name(family.name.to_owned());
        made.set_help(family.help.to_owned());
        made.set_field_type(family.kind);
        made.set_metric(metrics.into_iter().collect());
        self.0.push(made);
    }
}

/// A sample of a counter or a gauge: the family's kind decides which of the two is written.
fn number(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(pairs(labels));
    let (mut counter, mut gauge) = (Counter::default(), Gauge::default());
    counter.set_value(value);
    gauge.set_value(value);
    metric.set_counter(counter);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: &[(&str, &str)], total: &HistogramTotal) -> Metric {
    let mut metric = Metric::from_label(pairs(labels));
    let mut made = Histogram::default();
    made.set_sample_count(total.count());
    made.set_sample_sum(total.sum_seconds());
    made.set_bucket(
        total
            .cumulative()
            .map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            })
            .collect(),
    );
    metric.set_histogram(made);
    metric
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

fn status_text(status: u16) -> String {
    if status == 0 { "other".to_owned() } else { status.to_string() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::telemetry::{DelegateAnswer, DelegateQuestion, RequestLabels};
    use std::time::Duration;

    /// SPEC 11, without the families of rooms that do not exist yet (logins, events), and those that doorward has besides.
    const SPEC: &str = "doorward_requests_total doorward_request_duration_seconds doorward_upstream_duration_seconds \
        doorward_token_validation_seconds doorward_decision_seconds doorward_auth_failures_total \
        doorward_token_cache_hits_total doorward_token_cache_misses_total doorward_revocations \
        doorward_revocation_staleness_seconds doorward_subject_overrides doorward_policy_info \
        doorward_policy_reload_failed doorward_snapshot_version doorward_upstream_connections doorward_connections \
        doorward_limit_rejections_total doorward_report_only_total doorward_parse_errors_total doorward_build_info \
        doorward_upstream_unprotected doorward_log_dropped_total doorward_decisions_remembered \
        doorward_decisions_remembered_bytes doorward_streams doorward_exchanges_ended_total \
        doorward_certificate_expiry_timestamp_seconds doorward_certificate_reload_failed \
        doorward_tls_handshakes_failed_total doorward_upstream_healthy doorward_upstream_retries_total \
        doorward_config_reload_failed doorward_ledger_changes_total doorward_ledger_fsync_seconds \
        doorward_ledger_segments doorward_ledger_records doorward_ledger_failures_total doorward_jwks_age_seconds \
        doorward_jwks_fetches_total doorward_jwks_failing doorward_jwks_unknown_kids_total \
        doorward_revocation_keep_missing_seconds \
        doorward_replication_connected doorward_replication_loads_total doorward_replication_changes_total \
        doorward_replication_refused_total doorward_publication_pending doorward_publication_blocked \
        doorward_publication_rewrites_total doorward_delegate_question_seconds doorward_delegate_coalesced_total \
        doorward_delegate_questions_open doorward_lookup_unanswered_total process_cpu_seconds_total \
        process_resident_memory_bytes process_open_fds process_max_fds process_start_time_seconds process_threads";

    fn labels<'a>(service: &'a Arc<str>, route: &'a Arc<str>, status: u16) -> RequestLabels<'a> {
        RequestLabels { service: Some(service), route: Some(route), method: "GET", status }
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn every_family_of_the_spec_is_rendered_and_no_other() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        let (service, route) = (Arc::from("oms"), Arc::from("/orders/{id}"));
        worker.request(&labels(&service, &route, 200), Duration::from_millis(1));
        worker.report_only(Some(&service), Some(&route), Reason::NoRoute);
        worker.parse_error(Listener::Gateway, 400);
        worker.upstream("oms").answered(Duration::from_millis(1));
        metrics.set_snapshot(1, [("oms", "ab")]);
        metrics.set_upstream_unprotected("oms", true);
        metrics.set_certificates(Listener::Gateway, 1);
        metrics.key_set("keycloak").unknown_kid();
        let replication = metrics.replication();
        replication.begin(true);
        replication.load_began("start");
        replication.line_refused("forged");
        replication.rewritten("first");
        metrics.delegate().answered(DelegateQuestion::Lookup, DelegateAnswer::Answered, Duration::ZERO);
        let endpoint = || "http://127.0.0.1:8000".into();
        let healthy = Arc::new(AtomicBool::new(true));
        metrics.set_upstream_endpoints(vec![EndpointHealth { upstream: "oms".into(), endpoint: endpoint(), healthy }]);
        let text = metrics.render().unwrap();
        let rendered: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(rendered, SPEC.split_ascii_whitespace().collect());
        assert_eq!(FAMILY_NAMES.iter().copied().collect::<BTreeSet<_>>(), rendered);
    }

    #[test]
    fn reasons_and_limits_stand_at_zero_from_the_start() {
        let metrics = Metrics::new();
        let text = metrics.render().unwrap();
        for reason in Reason::ALL {
            let line = format!("doorward_auth_failures_total{{reason=\"{reason}\"}} 0");
            assert_eq!(text.contains(&line), reason.is_auth_failure(), "{reason}");
        }
        for limit in Limit::ALL {
            has(&text, &format!("doorward_limit_rejections_total{{limit=\"{}\"}} 0", limit.label()));
        }
        has(&text, "doorward_token_validation_seconds_count{source=\"verify\",result=\"ok\"} 0");
        has(&text, "doorward_connections{listener=\"gateway\"} 0");
        has(&text, "doorward_log_dropped_total 0");
    }

    #[test]
    fn each_reason_and_each_limit_moves_its_own_series() {
        for (index, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, index);
            let metrics = Metrics::new();
            metrics.worker().limit_rejection(*limit);
            let text = metrics.render().unwrap();
            for other in Limit::ALL {
                let count = u8::from(other == limit);
                has(&text, &format!("doorward_limit_rejections_total{{limit=\"{}\"}} {count}", other.label()));
            }
        }
        for reason in Reason::ALL.iter().filter(|reason| reason.is_auth_failure()) {
            let metrics = Metrics::new();
            metrics.worker().auth_failure(*reason);
            has(&metrics.render().unwrap(), &format!("doorward_auth_failures_total{{reason=\"{reason}\"}} 1"));
        }
        let metrics = Metrics::new();
        metrics.worker().auth_failure(Reason::BadRequest);
        assert!(!metrics.render().unwrap().contains("reason=\"bad_request\""));
    }

    #[test]
    fn workers_are_summed_by_name_wherever_the_names_lie_in_memory() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            let worker = metrics.worker();
            // As after a reload: the same names at other addresses.
            for _ in 0..3 {
                let (service, route) = (Arc::from("oms"), Arc::from("/orders/{id}"));
                worker.request(&labels(&service, &route, 200), Duration::from_millis(3));
            }
            worker.request(&RequestLabels { service: None, route: None, method: "BREW", status: 999 }, Duration::ZERO);
        }
        let text = metrics.render().unwrap();
        let route = "service=\"oms\",route=\"/orders/{id}\"";
        has(&text, &format!("doorward_requests_total{{{route},method=\"GET\",status=\"200\"}} 6"));
        has(&text, &format!("doorward_request_duration_seconds_bucket{{{route},le=\"0.0025\"}} 0"));
        has(&text, &format!("doorward_request_duration_seconds_bucket{{{route},le=\"0.005\"}} 6"));
        has(&text, &format!("doorward_request_duration_seconds_bucket{{{route},le=\"+Inf\"}} 6"));
        has(&text, &format!("doorward_request_duration_seconds_sum{{{route}}} 0.018"));
        has(&text, "doorward_requests_total{service=\"none\",route=\"none\",method=\"other\",status=\"other\"} 2");
    }

    #[test]
    fn what_clients_choose_makes_no_series_of_its_own() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        for number in 0..2_000_u16 {
            let method = format!("M{number}");
            worker.request(&RequestLabels { service: None, route: None, method: &method, status: 404 }, Duration::ZERO);
        }
        let text = metrics.render().unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("doorward_requests_total{")).count(), 1);
    }

    #[test]
    fn validations_count_as_hits_and_misses() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        worker.validation(ValidationSource::Cache, Ok(()), Duration::from_nanos(400));
        worker.validation(ValidationSource::Cache, Err(Reason::Expired), Duration::from_nanos(400));
        worker.validation(ValidationSource::Verify, Err(Reason::UpstreamTimeout), Duration::from_micros(40));
        worker.decision(Duration::from_nanos(300));
        let text = metrics.render().unwrap();
        has(&text, "doorward_token_cache_hits_total 2");
        has(&text, "doorward_token_cache_misses_total 1");
        has(&text, "doorward_token_validation_seconds_count{source=\"cache\",result=\"expired\"} 1");
        has(&text, "doorward_token_validation_seconds_count{source=\"verify\",result=\"upstream_timeout\"} 1");
        has(&text, "doorward_token_validation_seconds_bucket{source=\"cache\",result=\"ok\",le=\"0.0000005\"} 1");
        has(&text, "doorward_decision_seconds_count 1");
    }

    #[test]
    fn gauges_follow_what_is_open() {
        let metrics = Metrics::new();
        metrics.connection_changed(Listener::Gateway, 2);
        metrics.connection_changed(Listener::Gateway, -1);
        let upstream = metrics.worker().upstream("oms");
        let mut pooled = upstream.connected();
        let (_busy, closed) = (metrics.worker().upstream("oms").connected(), upstream.connected());
        pooled.set_idle();
        pooled.set_idle();
        drop(closed);
        let text = metrics.render().unwrap();
        has(&text, "doorward_connections{listener=\"gateway\"} 1");
        has(&text, "doorward_upstream_connections{upstream=\"oms\",state=\"idle\"} 1");
        has(&text, "doorward_upstream_connections{upstream=\"oms\",state=\"active\"} 1");
        pooled.set_active();
        drop(pooled);
        has(&metrics.render().unwrap(), "doorward_upstream_connections{upstream=\"oms\",state=\"idle\"} 0");
    }

    #[test]
    fn a_key_set_that_never_came_is_infinitely_old() {
        let metrics = Metrics::new();
        let set = metrics.key_set("kc");
        set.fetched(KeyFetch::Failed);
        let text = metrics.render().unwrap();
        has(&text, "doorward_jwks_age_seconds{issuer=\"kc\"} inf");
        has(&text, "doorward_jwks_failing{issuer=\"kc\"} 1");
        metrics.key_set("kc").fetched(KeyFetch::Changed);
        set.unknown_kid();
        let text = metrics.render().unwrap();
        has(&text, "doorward_jwks_failing{issuer=\"kc\"} 0");
        has(&text, "doorward_jwks_fetches_total{issuer=\"kc\",result=\"changed\"} 1");
        has(&text, "doorward_jwks_fetches_total{issuer=\"kc\",result=\"failed\"} 1");
        has(&text, "doorward_jwks_unknown_kids_total{issuer=\"kc\"} 1");
        assert!(!text.contains(" inf\n"), "{text}");
    }

    #[test]
    fn a_new_snapshot_replaces_the_old_one_and_mends_a_failed_reload() {
        let metrics = Metrics::new();
        metrics.set_snapshot(1, [("oms", "aa")]);
        metrics.set_policy_reload_failed();
        has(&metrics.render().unwrap(), "doorward_policy_reload_failed 1");
        metrics.set_snapshot(2, [("oms", "bb"), ("blog", "cc")]);
        let text = metrics.render().unwrap();
        has(&text, "doorward_policy_reload_failed 0");
        has(&text, "doorward_snapshot_version 2");
        has(&text, "doorward_policy_info{service=\"oms\",sha256=\"bb\"} 1");
        assert!(!text.contains("sha256=\"aa\""));
    }

    /// `cargo rustc --lib --profile test -- -C opt-level=3`, then the test binary with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[expect(clippy::print_stderr, reason = "a measurement")]
    fn cost_of_one_request() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        let upstream = worker.upstream("oms");
        let mut connection = upstream.connected();
        let service: Arc<str> = Arc::from("oms");
        let routes: Vec<Arc<str>> = (0..100).map(|number| format!("/api/v1/res{number}/{{id}}").into()).collect();
        let start = std::time::Instant::now();
        const ROUNDS: u32 = 20_000;
        for _ in 0..ROUNDS {
            for route in &routes {
                worker.request(&labels(&service, route, 200), Duration::from_micros(700));
                upstream.answered(Duration::from_micros(600));
                worker.validation(ValidationSource::Cache, Ok(()), Duration::from_nanos(300));
                worker.decision(Duration::from_nanos(300));
                connection.set_idle();
                connection.set_active();
            }
        }
        eprintln!("{} ns a request", start.elapsed().as_nanos() / u128::from(ROUNDS) / 100);
    }
}
