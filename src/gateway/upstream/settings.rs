//! What an upstream is configured with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

use crate::https::TlsTrust;

/// What an upstream is configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Where it can be reached; at least one.
    pub endpoints: Vec<Endpoint>,
    /// What it gets as `Host` where the policy names no host of its own.
    pub authority: HeaderValue,
    /// Until a connection is made, TLS included.
    pub connect: Duration,
    /// Until the first byte of an answer, counted from the last byte of the request.
    pub first_byte: Duration,
    /// Between two bytes of an answer.
    pub idle: Duration,
    /// How `https` endpoints are trusted and what is shown to them.
    pub tls: TlsMaterial,
    /// Active checks; `None` leaves it to what becomes of requests.
    pub health: Option<HealthSettings>,
    /// When an endpoint is left alone, and for how long.
    pub ejection: EjectionSettings,
    /// How many requests it gets at a time.
    pub limits: RequestLimits,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// What is spoken.
    pub scheme: Scheme,
    /// Where.
    pub address: Address,
    /// Host and port as a `Host` header spells them: with brackets, without the scheme's own port.
    pub authority: String,
}

/// What is spoken to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// HTTP/1.1 in plain text.
    Http,
    /// HTTP/2 or HTTP/1.1 over TLS, as both sides agree (ALPN).
    Https,
    /// HTTP/2 in plain text, by prior knowledge.
    H2c,
}

/// Where an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// By TCP. A name is resolved for each new connection; every address that it has is used.
    Tcp {
        /// Host name or address, without the brackets of an IPv6 literal.
        host: String,
        /// Port.
        port: u16,
    },
    /// By a socket of this machine.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.address, self.scheme) {
            (Address::Unix(path), _) => return write!(f, "unix:{}", path.display()),
            (_, Scheme::Http) => "http",
            (_, Scheme::Https) => "https",
            (_, Scheme::H2c) => "h2c",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// The contents of the files that `tls = { … }` names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsMaterial {
    /// Whom to believe, and what to show.
    pub trust: TlsTrust,
    /// The name that endpoints must prove to have, where it is not their host.
    pub server_name: Option<String>,
}

/// Active checks of every endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// What is asked for by GET; an answer of 2xx is good.
    pub path: String,
    /// From one check to the next.
    pub interval: Duration,
    /// For connection and answer together.
    pub timeout: Duration,
    /// Good checks in a row until an endpoint is used again.
    pub healthy: u32,
    /// Bad checks in a row until it is not.
    pub unhealthy: u32,
}

/// When an endpoint is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionSettings {
    /// Failures in a row: connections refused or broken, answers that did not come in time.
    pub failures: u32,
    /// Whether an answer of 500 or more is a failure too.
    pub server_errors: bool,
    /// How long it is left alone the first time; twice as long each further time.
    pub base: Duration,
    /// How long at most.
    pub max: Duration,
    /// How long it takes until it gets its whole share again.
    pub slow_start: Duration,
}

impl Default for EjectionSettings {
    fn default() -> Self {
        Self {
            failures: 3,
            server_errors: false,
            base: Duration::from_secs(1),
            max: Duration::from_secs(30),
            slow_start: Duration::from_secs(10),
        }
    }
}

/// How many requests an upstream gets at a time, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests in flight, tunnels included.
    pub requests: usize,
    /// Requests that may wait for one of those to end.
    pub waiting: usize,
    /// How long they wait.
    pub wait: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { requests: 10_000, waiting: 1_000, wait: Duration::from_secs(1) }
    }
}
