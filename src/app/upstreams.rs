//! `[upstreams]` as the gateway takes it: files read, listeners looked at; at the start, and whenever the configuration changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use http::HeaderValue;

use crate::config::{self, ConfigError, Settings};
use crate::gateway::upstream::{Address, Endpoint, Prepared, Scheme, TlsMaterial};
use crate::gateway::{Gateway, UpstreamSettings};
use crate::https::TlsTrust;
use crate::secret::Secret;
use crate::sync::Configuration;
use crate::sync::policy_files::Unusable;
use crate::telemetry::Metrics;

/// What the configuration says of upstreams, the contents of TLS files included.
pub type Upstreams = BTreeMap<Box<str>, UpstreamSettings>;

/// Reads the configuration once more.
pub type Reread = Arc<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>;

/// Reads what `upstreams` names. `listeners` are the running process's own.
///
/// # Errors
/// A file that cannot be read, an endpoint that is doorward itself.
pub(super) fn read(
    upstreams: &BTreeMap<String, config::UpstreamSettings>,
    listeners: &Listeners,
) -> anyhow::Result<Upstreams> {
    let mut read = BTreeMap::new();
    for (name, upstream) in upstreams {
        for endpoint in &upstream.endpoints {
            listeners.refuse(name, endpoint)?;
        }
        let authority = upstream.endpoints.first().map_or("", |endpoint| endpoint.authority.as_str());
        let settings = UpstreamSettings {
            endpoints: upstream.endpoints.clone(),
            authority: HeaderValue::from_str(authority).with_context(|| format!("[upstreams.{name}] endpoints"))?,
            connect: upstream.connect,
            first_byte: upstream.first_byte,
            idle: upstream.idle,
            tls: material(name, upstream.tls.as_ref())?,
            health: upstream.health.clone(),
            ejection: upstream.ejection,
            limits: upstream.limits,
        };
        read.insert(name.as_str().into(), settings);
    }
    Ok(read)
}

fn material(upstream: &str, tls: Option<&config::UpstreamTls>) -> anyhow::Result<TlsMaterial> {
    let Some(tls) = tls else { return Ok(TlsMaterial::default()) };
    let file = |path: &Path, key: &str| {
        std::fs::read(path)
            .with_context(|| format!("cannot read {} ([upstreams.{upstream}] tls.{key})", path.display()))
    };
    let identity = match &tls.identity {
        Some((cert, key)) => Some((file(cert, "cert")?, Secret::new(file(key, "key")?))),
        None => None,
    };
    let ca = tls.ca.as_deref().map(|ca| file(ca, "ca")).transpose()?;
    Ok(TlsMaterial { trust: TlsTrust { ca, identity }, server_name: tls.server_name.clone() })
}

/// Where this process listens.
#[derive(Debug, Clone)]
pub(super) struct Listeners(Vec<(&'static str, SocketAddr)>);

impl Listeners {
    pub(super) fn of(settings: &Settings) -> Self {
        let listeners = [
            ("gateway", settings.gateway.enabled, settings.gateway.listen),
            ("admin", settings.admin.enabled, settings.admin.listen),
            ("probes", settings.probes.is_some(), settings.probes.unwrap_or(settings.admin.listen)),
        ];
        Self(listeners.into_iter().filter(|(_, enabled, _)| *enabled).map(|(name, _, listen)| (name, listen)).collect())
    }

    /// A gateway in front of itself would forward for ever, and its admin listener behind it would be open (T24).
    fn refuse(&self, name: &str, endpoint: &Endpoint) -> anyhow::Result<()> {
        let Address::Tcp { host, port } = &endpoint.address else { return Ok(()) };
        if let Some(listener) = self.reached_by(host, *port) {
            bail!(
                "[upstreams.{name}] endpoints: {endpoint} is doorward's own {listener} listener; name the service behind it"
            );
        }
        Ok(())
    }

    /// The listener at which a connection to this place may arrive.
    pub(super) fn reached_by(&self, host: &str, port: u16) -> Option<&'static str> {
        let reached =
            |(_, listen): &&(_, SocketAddr)| listen.port() == port && reaches(host, listen.ip().to_canonical());
        self.0.iter().find(reached).map(|(listener, _)| *listener)
    }
}

/// Whether a connection to `host` may arrive at a listener on `listen`. A name is not resolved: it may mean something else a moment
/// later.
fn reaches(host: &str, listen: IpAddr) -> bool {
    let Ok(address) = host.parse::<IpAddr>() else {
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        // RFC 6761 section 6.3.
        let loopback = name == "localhost" || name.ends_with(".localhost");
        return loopback && (listen.is_loopback() || listen.is_unspecified());
    };
    let address = address.to_canonical();
    // A connection to the unspecified address goes to loopback.
    address == listen
        || address.is_unspecified() && listen.is_loopback()
        || listen.is_unspecified() && (address.is_loopback() || address.is_unspecified() || is_of_this_machine(address))
}

/// Whether the address is one of this machine's: no other can be bound.
fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whoever reaches a plain upstream by network can write `X-User-Id` there (T31), but no assertion.
pub(super) fn warn_of_unprotected(upstreams: &Upstreams, asserted: bool, metrics: &Metrics) {
    for (name, upstream) in upstreams {
        let open = upstream.endpoints.iter().find(|endpoint| !asserted && is_unprotected(endpoint));
        metrics.set_upstream_unprotected(name, open.is_some());
        if let Some(endpoint) = open {
            tracing::warn!(
                upstream = &**name,
                %endpoint,
                "the upstream is reached by plain HTTP over a network: whoever reaches it too can forge an identity there; \
                 keep it on loopback or a unix socket, use https, let nobody else reach its port, or switch on \
                 [gateway.assertion] and verify it there"
            );
        }
    }
}

fn is_unprotected(endpoint: &Endpoint) -> bool {
    let Address::Tcp { host, .. } = &endpoint.address else { return false };
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    endpoint.scheme != Scheme::Https && !loopback
}

/// The configuration while doorward runs: what it says of upstreams is put in force, of other keys is told that they wait for
/// a restart.
pub(super) struct Configured {
    pub(super) reread: Reread,
    pub(super) started: Settings,
    pub(super) listeners: Listeners,
    pub(super) gateway: Arc<Gateway>,
}

/// One reading of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) upstreams: Upstreams,
    /// Keys that differ from those at the start and wait for a restart.
    pub(super) waiting: Vec<String>,
}

/// A reading that can be put in force.
pub(super) struct Ready {
    pub(super) reading: Reading,
    pub(super) prepared: Prepared,
}

impl Configuration for Configured {
    type Read = Reading;
    type Ready = Ready;

    fn read(&self) -> Result<Reading, Unusable> {
        let settings = (self.reread)().map_err(|error| Unusable::new(error.to_string()))?;
        if let (Some(file), None) = (&self.started.source, &settings.source) {
            return Err(Unusable::new(format!("cannot read {}: the file is gone", file.display())));
        }
        let upstreams =
            read(&settings.upstreams, &self.listeners).map_err(|error| Unusable::new(format!("{error:#}")))?;
        Ok(Reading { upstreams, waiting: changed_keys(&self.started, &settings) })
    }

    fn upstreams(&self, read: &Reading) -> BTreeSet<String> {
        read.upstreams.keys().map(ToString::to_string).collect()
    }

    fn prepare(&self, read: &Reading) -> Result<Ready, Unusable> {
        let prepared = self.gateway.upstreams().prepare(read.upstreams.clone());
        let prepared = prepared.map_err(|error| Unusable::new(error.to_string()))?;
        Ok(Ready { reading: read.clone(), prepared })
    }
}

/// The keys outside `[upstreams]` whose values differ.
fn changed_keys(before: &Settings, after: &Settings) -> Vec<String> {
    let (mut one, mut other) = (before.to_table(), after.to_table());
    one.remove("upstreams");
    other.remove("upstreams");
    let mut keys = Vec::new();
    compare("", &one, &other, &mut keys);
    if keys.is_empty() {
        let upstreams = after.upstreams.clone();
        // What is not shown is a secret.
        if (Settings { upstreams, source: after.source.clone(), ..before.clone() }) != *after {
            keys.push("auth.secret".to_owned());
        }
    }
    keys
}

fn compare(above: &str, one: &toml::Table, other: &toml::Table, keys: &mut Vec<String>) {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for name in names {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match (one.get(name), other.get(name)) {
            (Some(toml::Value::Table(one)), Some(toml::Value::Table(other))) => compare(&path, one, other, keys),
            (one, other) if one == other => {}
            _ => keys.push(path),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("doorward.toml");
        std::fs::write(&file, text).unwrap();
        Settings { source: None, ..Settings::load(Some(&file), std::iter::empty()).unwrap().0 }
    }

    fn with_endpoint(endpoint: &str) -> Settings {
        settings(&format!("[gateway]\nlisten = \"0.0.0.0:8090\"\n[upstreams.oms]\nendpoints = [{endpoint:?}]\n"))
    }

    #[test]
    fn t24_an_endpoint_that_is_doorward_itself_is_refused_whatever_is_spoken() {
        for endpoint in
            ["http://127.0.0.1:8090", "https://localhost:8090", "h2c://[::ffff:127.0.0.1]:8091", "http://0.0.0.0:8090"]
        {
            let settings = with_endpoint(endpoint);
            let refused = read(&settings.upstreams, &Listeners::of(&settings)).unwrap_err().to_string();
            assert!(refused.contains(endpoint) && refused.contains("doorward's own"), "{refused}");
        }
        let loopback = "127.0.0.1".parse().unwrap();
        for (host, reached) in [
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("localhost.", true),
            ("a.LocalHost", true),
            ("127.0.0.2", false),
            ("192.0.2.1", false),
            ("oms", false),
        ] {
            assert_eq!(reaches(host, loopback), reached, "{host} at a listener on loopback alone");
        }
        for endpoint in ["http://127.0.0.1:8092", "unix:/run/8090", "https://192.0.2.1:8090"] {
            let settings = with_endpoint(endpoint);
            assert!(read(&settings.upstreams, &Listeners::of(&settings)).is_ok(), "{endpoint}");
        }
    }

    #[test]
    fn t31_plain_text_over_a_network_is_unprotected() {
        let unprotected = |endpoint| is_unprotected(&with_endpoint(endpoint).upstreams["oms"].endpoints[0]);
        for endpoint in ["http://10.0.0.1", "h2c://oms", "http://[2001:db8::1]"] {
            assert!(unprotected(endpoint), "{endpoint}");
        }
        for endpoint in ["http://127.0.0.9", "h2c://localhost", "http://[::1]", "https://10.0.0.1", "unix:/run/a"] {
            assert!(!unprotected(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn keys_that_changed_are_named_and_upstreams_are_none_of_them() {
        let before = settings("[gateway]\nworkers = 1\n[auth]\nsecret = \"12345678901234567890123456789012\"\n");
        assert!(changed_keys(&before, &before).is_empty());
        let mut after = before.clone();
        after.upstreams = with_endpoint("http://a").upstreams;
        assert!(changed_keys(&before, &after).is_empty());
        after.gateway.workers = 2;
        after.gateway.limits.headers = 7;
        after.admin.enabled = false;
        assert_eq!(changed_keys(&before, &after), ["admin.enabled", "gateway.limits.headers", "gateway.workers"]);
    }
}
