//! What every key means, and what a good value is. One function a section, in the order of the file.

mod auth;
mod listener;
mod private;
mod replication;
mod upstreams;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::mistake::{ConfigError, Warning};
use super::quantity;
use super::settings::{
    AdminSettings, AssertionSettings, AuthSettings, EventSettings, GatewaySettings, KeySource, Limits, LogSettings,
    Settings,
};
use super::sources::Tree;
use super::walk::{Findings, Section};
use crate::admission::DecisionSettings;
use crate::telemetry::tracing::{LogFormat, LogLevel};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// A longer one outlives every request that it could vouch for.
const LONGEST_ASSERTION: Duration = Duration::from_mins(5);

/// Validates a whole tree.
///
/// # Errors
/// Every mistake.
pub(super) fn settings(tree: &Tree) -> Result<(Settings, Vec<Warning>), ConfigError> {
    let (settings, mistakes, warnings, _) = everything(tree);
    if mistakes.0.is_empty() { Ok((settings, warnings)) } else { Err(mistakes) }
}

/// The settings (with defaults where mistakes were made), the mistakes, the warnings, and every key that was asked for.
pub(super) fn everything(tree: &Tree) -> (Settings, ConfigError, Vec<Warning>, BTreeSet<String>) {
    let findings = Findings::new(tree);
    let settings = {
        let root = findings.root();
        let gateway = gateway(&root.section("gateway"));
        let upstreams = upstreams::upstreams(&root.section("upstreams"));
        let auth = auth::auth(&root.section("auth"));
        let access_token = identity(&root.section("identity"));
        check_access_token(access_token, &auth, &root.section("identity"));
        let settings = Settings {
            source: tree.file.clone(),
            gateway,
            upstreams,
            auth,
            roles: Some(path(&root.section("roles"), "file").unwrap_or_else(|| "config/roles.yaml".into())),
            admin: admin(&root.section("admin")),
            probes: root.section("probes").address("listen"),
            revocation: replication::revocation(&root.section("revocation")),
            redis: replication::redis(&root.section("redis")),
            publication: replication::publication(&root.section("publication")),
            log: log(&root.section("log")),
            events: events(&root.section("events")),
        };
        root.section("mail").not_yet("smtp");
        root.section("database").not_yet("url");
        check_listeners(&settings, &root);
        check_assertion_key(&settings, &root);
        replication::check(&settings, &root);
        settings
    };
    let (mistakes, warnings, asked) = findings.into_parts();
    (settings, ConfigError(mistakes), warnings, asked)
}

fn gateway(section: &Section<'_>) -> GatewaySettings {
    let limits = section.section("limits");
    GatewaySettings {
        enabled: section.boolean("enabled").unwrap_or(true),
        listen: section.address("listen").unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8090))),
        report: section.word("mode", &[("enforce", false), ("report", true)]).unwrap_or(false),
        policies: paths(section, "policies").unwrap_or_else(|| vec!["policies/oms.yaml".into()]),
        workers: section.number("workers", 0, 1024).unwrap_or(0),
        drain_delay: section.duration("drain_delay").unwrap_or_default(),
        trusted_proxies: believed(section, "trusted_proxies"),
        proxy_protocol_from: believed(section, "proxy_protocol_from"),
        grace: section.duration("grace").unwrap_or(Duration::from_secs(30)),
        limits: Limits {
            header_bytes: limits.size("header_bytes").and_then(|size| usize::try_from(size).ok()).unwrap_or(32 * 1024),
            headers: limits.number("headers", 1, 10_000).unwrap_or(100),
            body: limits.size("body").unwrap_or(64 * MIB),
            header_timeout: limits.duration("header_timeout").unwrap_or(Duration::from_secs(10)),
            idle_timeout: limits.duration("idle_timeout").unwrap_or(Duration::from_secs(75)),
            connections: limits.number("connections", 1, 10_000_000).unwrap_or(10_000),
            streams: limits.number("streams", 1, 10_000).and_then(|count| count.try_into().ok()).unwrap_or(128),
        },
        tls: listener::tls(section, "gateway.tls"),
        assertion: assertion(&section.section("assertion")),
    }
}

fn assertion(section: &Section<'_>) -> Option<AssertionSettings> {
    let ttl = section.duration("ttl").unwrap_or(Duration::from_mins(1));
    if ttl > LONGEST_ASSERTION || ttl.subsec_nanos() != 0 {
        section.mistake(
            "ttl",
            format!("is {}; it is whole seconds, 5 minutes at most", quantity::show_duration(ttl)),
            "Write a little more than a request takes to the service, such as \"60s\".",
        );
    }
    let key_file = path(section, "key_file");
    section.boolean("enabled").unwrap_or(false).then_some(AssertionSettings { ttl, key_file })
}

/// T19: a key that signs both could make of a service a holder of tokens, or of revocations.
fn check_assertion_key(settings: &Settings, root: &Section<'_>) {
    let assertion = settings.gateway.assertion.as_ref();
    let Some(key_file) = assertion.and_then(|assertion| assertion.key_file.as_ref()) else { return };
    let is_shared = |other: &PathBuf| private::is_same_file(key_file, other);
    let shared = if is_shared(&settings.auth.local_keys) {
        "is the file of `auth.local_keys`, which sign access tokens"
    } else if settings.publication.key_file.as_ref().is_some_and(is_shared) {
        "is the file of `publication.key_file`, which signs what is revoked"
    } else {
        return;
    };
    let gateway = root.section("gateway");
    let section = gateway.section("assertion");
    gateway.ignore_rest();
    section.ignore_rest();
    section.mistake("key_file", shared, "Give the assertion a key file of its own.");
}

/// Networks that are believed who a client is.
fn believed(section: &Section<'_>, key: &str) -> Vec<IpNet> {
    let everyone = section.boolean("dangerous_trust_everyone").unwrap_or(false);
    let networks = section
        .list(key, "a network such as \"10.0.0.0/8\" or an IP address", |text| {
            text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
        })
        .unwrap_or_default();
    if !everyone && networks.iter().any(|network| network.prefix_len() == 0) {
        section.mistake(
            key,
            "trusts the whole internet, so that any client may say which address it has",
            "Name the networks of your proxies, or add `dangerous_trust_everyone = true`.",
        );
    }
    networks
}

/// Identity is not built yet: switching it on is refused, its values are checked all the same. Gives the access token's lifetime,
/// where it is written or would be used; else it is as long as it may be.
fn identity(section: &Section<'_>) -> Option<Duration> {
    let enabled = section.boolean("enabled") == Some(true);
    if enabled {
        section.refuse("enabled");
    }
    let _ = (section.address("listen"), section.duration("refresh_token"), section.texts("redirects"));
    let _ = section.text("public_url");
    section.not_yet("services");
    section.not_yet("oauth");
    section.duration("access_token").or(enabled.then_some(Duration::from_mins(15)))
}

/// T5: what doorward issues must not outlive what it accepts.
fn check_access_token(access_token: Option<Duration>, auth: &AuthSettings, section: &Section<'_>) {
    section.ignore_rest();
    let Some(access_token) = access_token else { return };
    let local =
        auth.issuers.iter().find(|issuer| issuer.keys == KeySource::Local && access_token > issuer.max_lifetime);
    if let Some(issuer) = local {
        section.mistake(
            "access_token",
            format!(
                "is {}, longer than `max_lifetime` of issuer {:?}, {}",
                quantity::show_duration(access_token),
                issuer.name,
                quantity::show_duration(issuer.max_lifetime)
            ),
            "Shorten `identity.access_token`, or raise the issuer's `max_lifetime`.",
        );
    }
}

fn admin(section: &Section<'_>) -> AdminSettings {
    let hosts = section.list("hosts", "a host name or address without a port", |text| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let literal = text.starts_with('[') && text.ends_with(']');
        (!text.is_empty() && text.bytes().all(good) && (literal || !text.contains([':', '[', ']'])))
            .then(|| text.to_ascii_lowercase())
    });
    AdminSettings {
        enabled: section.boolean("enabled").unwrap_or(true),
        listen: section.address("listen").unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 8091))),
        hosts: hosts.unwrap_or_else(|| ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec()),
        policy: path(section, "policy").unwrap_or_else(|| "policies/admin.yaml".into()),
        metrics_open: section.boolean("metrics_open").unwrap_or(true),
        tls: listener::tls(section, "admin.tls"),
        decisions: decisions(&section.section("decisions")),
        socket: socket(section),
    }
}

/// The control socket; an empty path switches it off.
fn socket(section: &Section<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(section.text("socket").unwrap_or("data/doorward.sock"));
    // sockaddr_un (unix(7)): 108 bytes with the one that ends it.
    if path.as_os_str().len() > 107 {
        section.mistake(
            "socket",
            format!("is {} bytes long", path.as_os_str().len()),
            "The path of a Unix socket has at most 107 bytes: name a shorter one, or \"\" for none.",
        );
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

fn decisions(section: &Section<'_>) -> DecisionSettings {
    DecisionSettings {
        denials: section.number("denials", 0, 1_000_000).unwrap_or(4096),
        sample_every: section
            .number("sample_every", 0, 1_000_000_000)
            .and_then(|every| u32::try_from(every).ok())
            .unwrap_or(1000),
        samples: section.number("samples", 0, 1_000_000).unwrap_or(1024),
        memory: section.size("memory").and_then(|size| usize::try_from(size).ok()).unwrap_or(8 << 20),
    }
}

fn events(section: &Section<'_>) -> EventSettings {
    let sinks = section.texts("sinks");
    if sinks.as_ref().is_some_and(|sinks| sinks.iter().any(|sink| *sink != "log")) {
        section.mistake(
            "sinks",
            "sinks other than \"log\" are not part of this version",
            "Write `sinks = [\"log\"]`, or `[]` for none.",
        );
    }
    for sink in ["kafka", "redis_stream", "webhook"] {
        section.not_yet(sink);
    }
    EventSettings { log: sinks.is_none_or(|sinks| sinks.contains(&"log")) }
}

fn log(section: &Section<'_>) -> LogSettings {
    let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    LogSettings {
        format: section.word("format", &formats).unwrap_or_default(),
        level: section.word("level", &levels).unwrap_or_default(),
        access: section.boolean("access").unwrap_or(true),
    }
}

/// Two listeners on one port is a mistake that the operating system would report less clearly.
fn check_listeners(settings: &Settings, root: &Section<'_>) {
    let listeners = [
        ("gateway", settings.gateway.enabled.then_some(settings.gateway.listen)),
        ("admin", settings.admin.enabled.then_some(settings.admin.listen)),
        ("probes", settings.probes),
    ];
    let listeners: Vec<_> = listeners.iter().filter_map(|(name, at)| Some((*name, (*at)?))).collect();
    for (number, (name, at)) in listeners.iter().enumerate() {
        let clash = listeners[..number].iter().find(|(_, other)| {
            at.port() != 0
                && at.port() == other.port()
                && (at.ip() == other.ip() || at.ip().is_unspecified() || other.ip().is_unspecified())
        });
        if let Some((other, _)) = clash {
            let section = root.section(name);
            section.ignore_rest();
            section.mistake(
                "listen",
                format!("is port {}, and so is `{other}.listen`", at.port()),
                "Give each listener a port of its own.",
            );
        }
    }
    if !settings.gateway.enabled && !settings.admin.enabled {
        let section = root.section("gateway");
        section.ignore_rest();
        section.mistake("enabled", "is false, and so is `admin.enabled`: nothing would run", "Switch one of them on.");
    }
}

/// A path, relative to the working directory.
fn path(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    section.parsed(key, "the path of a file", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
}

fn paths(section: &Section<'_>, key: &str) -> Option<Vec<PathBuf>> {
    section.list(key, "the path of a file", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
}
