//! The settings as the rest of doorward uses them: typed, checked, nothing left to parse.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::mistake::{ConfigError, Warning};
use super::{sources, validate};
use crate::admission::DecisionSettings;
use crate::delegate::KeyTemplate;
use crate::gateway::upstream::{EjectionSettings, Endpoint, HealthSettings, RequestLimits};
use crate::net::TlsFiles;
use crate::replication::RedisSettings;
use crate::revocation::OnStale;
use crate::secret::Secret;
use crate::telemetry::tracing::{LogFormat, LogLevel};
use crate::token::{Algorithm, ClaimPaths, Confers, RolesFrom};

/// All settings, validated. Every field is public: the proof that they were checked is that `load` made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The configuration file that was read; `None` for the built-in defaults.
    pub source: Option<PathBuf>,
    /// `[gateway]`
    pub gateway: GatewaySettings,
    /// `[upstreams.NAME]`
    pub upstreams: BTreeMap<String, UpstreamSettings>,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[roles] file`. Always there as long as there is no database.
    pub roles: Option<PathBuf>,
    /// `[admin]`
    pub admin: AdminSettings,
    /// `[probes] listen`: where health and readiness are answered besides, if anywhere.
    pub probes: Option<SocketAddr>,
    /// `[revocation]`
    pub revocation: RevocationSettings,
    /// `[redis]`; `None`: one process, or several on one folder.
    pub redis: Option<RedisSettings>,
    /// `[publication]`
    pub publication: PublicationSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[events]`
    pub events: EventSettings,
}

impl Settings {
    /// The Redis through which revocations are shared. In the mode "lookup" it is another program's, which is only looked into.
    #[must_use]
    pub fn shared_redis(&self) -> Option<&RedisSettings> {
        self.redis.as_ref().filter(|_| self.revocation.mode == RevocationMode::Replicated)
    }

    /// Reads a configuration: the file `config`, else the one that `DOORWARD_CONFIG` names, else
    /// `config/doorward.toml` if it exists, else nothing but built-in defaults; then the environment, which is `env`.
    ///
    /// # Errors
    /// Every mistake that could be found, each with key, place and mend.
    pub fn load(
        config: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let tree = sources::read(config, env)?;
        validate::settings(&tree)
    }

    /// Whether the process follows a control plane through Redis: it pins public keys and has none to publish with.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.redis.is_some() && self.publication.key_file.is_none()
    }

    /// The shipped `config/doorward.toml` as it stands in the binary, whatever file and environment there are.
    ///
    /// # Errors
    /// None in a binary whose tests passed.
    pub fn shipped() -> Result<(Self, Vec<Warning>), ConfigError> {
        let tree = sources::shipped()?;
        validate::settings(&tree)
    }
}

/// The gateway listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Whether it runs.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// `mode = "report"`: denials that report mode may let through are let through (SPEC 4.2).
    pub report: bool,
    /// The policy files.
    pub policies: Vec<PathBuf>,
    /// Worker threads; 0 is one a core.
    pub workers: usize,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long new connections are still accepted when a stop begins; zero: not at all.
    pub drain_delay: Duration,
    /// Networks whose connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNet>,
    /// How long a drain waits for requests that are under way.
    pub grace: Duration,
    /// Limits of every connection.
    pub limits: Limits,
    /// What is shown by TLS; `None`: the listener is plain.
    pub tls: Option<TlsFiles>,
    /// `assertion`, if it is switched on.
    pub assertion: Option<AssertionSettings>,
}

/// `X-User-Assertion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionSettings {
    /// How long one is good; whole seconds, at most 5 minutes.
    pub ttl: Duration,
    /// The private JWK set to sign with, made where it is missing; without it a new key is made at each start.
    pub key_file: Option<PathBuf>,
}

impl GatewaySettings {
    /// How many threads serve requests.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

/// Limits of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request head.
    pub header_bytes: usize,
    /// Header lines of one request head.
    pub headers: usize,
    /// Bytes of one request body.
    pub body: u64,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may be idle, and how long a body may stand still.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// HTTP/2 streams of one connection at once.
    pub streams: u32,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Its endpoints; at least one.
    pub endpoints: Vec<Endpoint>,
    /// To establish a connection.
    pub connect: Duration,
    /// From the end of the request to the first byte of the response.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Files for `https` endpoints.
    pub tls: Option<UpstreamTls>,
    /// Active checks.
    pub health: Option<HealthSettings>,
    /// When an endpoint is left alone.
    pub ejection: EjectionSettings,
    /// Requests at a time.
    pub limits: RequestLimits,
}

/// Whom to believe behind an `https` endpoint, and what to show to it. The files are still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Certificates that endpoints are verified against; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that endpoints must prove, where it is not their host.
    pub server_name: Option<String>,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// Bytes of the verified-token cache.
    pub token_cache: u64,
    /// Leeway for the times of foreign tokens.
    pub leeway: Duration,
    /// Where doorward keeps the signing keys of the issuer with `keys = "local"`.
    pub local_keys: PathBuf,
    /// The issuers, in the order of the file.
    pub issuers: Vec<IssuerSettings>,
    /// `mode = "iam_service"`: the user service that is asked in place of the issuers.
    pub iam: Option<IamSettings>,
}

/// An external user service (SPEC 5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IamSettings {
    /// Its URL, without `/` at its end.
    pub url: String,
    /// How old an answer may be.
    pub cache: Duration,
    /// How long a question may take.
    pub timeout: Duration,
    /// To establish a connection.
    pub connect: Duration,
    /// Certificates that it is verified against; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Questions at a time.
    pub questions: usize,
    /// Which roles it may confer.
    pub confers: Confers,
    /// Whether it may confer administrators' roles and open the admin listener (T7).
    pub admin: bool,
    /// Whether addresses count as verified of which it does not say so (T42).
    pub verifies_email: bool,
    /// How long its tokens live at most: revocations made here are kept as long (T5).
    pub max_lifetime: Duration,
}

/// One accepted issuer. Its keys are still to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Its unique name.
    pub name: String,
    /// The exact `iss`; absent only with one issuer.
    pub issuer: Option<String>,
    /// Accepted audiences; empty (any) only with one issuer.
    pub audience: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// Allowed algorithms; never empty.
    pub algorithms: Vec<Algorithm>,
    /// Where claims are found.
    pub claims: ClaimPaths,
    /// Longest accepted `exp − iat`.
    pub max_lifetime: Duration,
    /// Put before every subject; empty for doorward's own, and with `same_subjects`.
    pub subject_prefix: String,
    /// Whether its subjects are doorward's own (T7).
    pub same_subjects: bool,
    /// Whose roles count.
    pub roles_from: RolesFrom,
    /// Which roles it may confer. Meaningless for `keys = "local"`, which may confer any.
    pub confers: Confers,
    /// Whether it may confer administrators' roles.
    pub admin: bool,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// doorward's own ([`AuthSettings::local_keys`]).
    Local,
    /// A shared HS256 secret of at least 32 bytes.
    Secret(Secret),
    /// A JWK set in a file.
    JwksFile(PathBuf),
    /// A JWK set behind a URL.
    JwksUrl(JwksUrl),
}

/// A JWK set that is fetched again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl {
    /// `https://…`, or `http://…` on this machine.
    pub url: String,
    /// How long after one answer the next is asked for.
    pub refresh: Duration,
    /// How long after an answer the keys are used, if no other comes (T18).
    pub max_age: Duration,
    /// How long after one fetch an unknown `kid` may cause the next.
    pub cool_down: Duration,
    /// For connection and answer together.
    pub timeout: Duration,
    /// Certificates that the server is verified against; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Largest set that is read.
    pub max_bytes: u64,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Accepted hosts, against DNS rebinding.
    pub hosts: Vec<String>,
    /// Its own policy file.
    pub policy: PathBuf,
    /// Whether `/metrics` is answered without a token.
    pub metrics_open: bool,
    /// What is shown by TLS; `None`: the listener is plain.
    pub tls: Option<TlsFiles>,
    /// How many decisions are remembered for `GET /api/decisions/{request_id}`.
    pub decisions: DecisionSettings,
    /// The Unix socket for the command line; `None`: there is none.
    pub socket: Option<PathBuf>,
}

/// Where revocations come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSettings {
    /// A file of revocations, one JSON object a line, read at start.
    pub file: Option<PathBuf>,
    /// The truth: what was revoked here is kept in this folder.
    pub folder: PathBuf,
    /// How a token is held against what was revoked elsewhere.
    pub mode: RevocationMode,
    /// How long the control plane may not be heard of (T1).
    pub max_staleness: Duration,
    /// What is done then.
    pub on_stale: OnStale,
    /// `mode = "lookup"`: the key of a token.
    pub lookup_key: KeyTemplate,
    /// How old an answer about it may be (T15).
    pub lookup_age: Duration,
    /// How long asking for it may take.
    pub lookup_timeout: Duration,
    /// For how long the folder keeps entries at least, for gateways that accept longer tokens than this process (T5).
    pub keep: Option<Duration>,
    /// The folder of the last good state of a process that follows through Redis (T16).
    pub last_good: PathBuf,
}

/// `[revocation] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RevocationMode {
    /// Everything that was revoked is in memory, and followed.
    #[default]
    Replicated,
    /// Redis is asked for each token.
    Lookup,
}

/// Who signs what goes through Redis, and whom this process believes (T11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationSettings {
    /// The private key, made where it is missing. `None`: this process only follows, and pins `public_keys`.
    pub key_file: Option<PathBuf>,
    /// Public keys that are believed, 32 bytes in base64url each; besides the public half of `key_file`.
    pub public_keys: Vec<String>,
}

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSettings {
    /// Whether `sinks` holds `log`: audit events are lines of the log.
    pub log: bool,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// What of doorward's own messages is written.
    pub level: LogLevel,
    /// Whether every request gets an access-log line.
    pub access: bool,
}
