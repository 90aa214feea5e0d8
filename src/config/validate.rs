//! What every key means, and what a good value is. One function a section, in the order of the file.

mod auth;
mod listener;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::mistake::{ConfigError, Warning};
use super::quantity;
use super::settings::{
    AdminSettings, AuthSettings, Endpoint, EventSettings, GatewaySettings, KeySource, Limits, LogSettings,
    RevocationSettings, Settings, UpstreamSettings,
};
use super::sources::Tree;
use super::walk::{Findings, Section};
use crate::telemetry::tracing::{LogFormat, LogLevel};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Upstreams that doorward is itself; policies name them, the configuration may not.
const RESERVED_UPSTREAMS: [&str; 2] = ["doorward-admin", "doorward-identity"];

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
        let upstreams = upstreams(&root.section("upstreams"));
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
            revocation: revocation(&root.section("revocation")),
            log: log(&root.section("log")),
            events: events(&root.section("events")),
        };
        root.section("probes").not_yet("listen");
        root.section("mail").not_yet("smtp");
        root.section("database").not_yet("url");
        root.section("redis").not_yet("url");
        publication(&root.section("publication"));
        check_listeners(&settings, &root);
        settings
    };
    let (mistakes, warnings, asked) = findings.into_parts();
    (settings, ConfigError(mistakes), warnings, asked)
}

fn gateway(section: &Section<'_>) -> GatewaySettings {
    let limits = section.section("limits");
    let assertion = section.section("assertion");
    if assertion.boolean("enabled") == Some(true) {
        assertion.refuse("enabled");
    }
    let _ = assertion.duration("ttl");
    GatewaySettings {
        enabled: section.boolean("enabled").unwrap_or(true),
        listen: section.address("listen").unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8090))),
        report: section.word("mode", &[("enforce", false), ("report", true)]).unwrap_or(false),
        policies: paths(section, "policies").unwrap_or_else(|| vec!["policies/oms.yaml".into()]),
        workers: section.number("workers", 0, 1024).unwrap_or(0),
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
    }
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

fn upstreams(section: &Section<'_>) -> BTreeMap<String, UpstreamSettings> {
    let mut upstreams = BTreeMap::new();
    for name in section.names() {
        let upstream = section.section(name);
        if RESERVED_UPSTREAMS.contains(&name) {
            section.mistake(name, "is a name of doorward's own", "Give the upstream another name.");
        }
        let endpoints = upstream.texts("endpoints").map(|texts| {
            let mut endpoints = Vec::with_capacity(texts.len());
            for text in &texts {
                match endpoint(text) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err((message, help)) => upstream.mistake("endpoints", format!("{text:?} {message}"), help),
                }
            }
            if texts.is_empty() {
                upstream.mistake("endpoints", "names no endpoint", "Write `endpoints = [\"http://127.0.0.1:8000\"]`.");
            }
            endpoints
        });
        if endpoints.is_none() && !upstream.has("endpoints") {
            upstream.mistake("endpoints", "is missing", "Write `endpoints = [\"http://127.0.0.1:8000\"]`.");
        }
        upstream.not_yet("health");
        let timeouts = upstream.section("timeouts");
        let settings = UpstreamSettings {
            endpoints: endpoints.unwrap_or_default(),
            connect: timeouts.duration("connect").unwrap_or(Duration::from_secs(1)),
            first_byte: timeouts.duration("first_byte").unwrap_or(Duration::from_secs(30)),
            idle: timeouts.duration("idle").unwrap_or(Duration::from_mins(1)),
        };
        upstreams.insert(name.to_owned(), settings);
    }
    upstreams
}

/// Reads `http://HOST[:PORT]`.
fn endpoint(text: &str) -> Result<Endpoint, (&'static str, &'static str)> {
    const FORM: &str = "Write http://HOST:PORT, without a path.";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(("is not a URL", FORM));
    };
    match scheme {
        "http" => {}
        "https" | "h2c" | "unix" => {
            return Err((
                "has a scheme that is not part of this version",
                "Use http://; https, h2c and unix arrive later.",
            ));
        }
        _ => return Err(("has an unknown scheme", FORM)),
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err(("has user info", FORM));
    }
    if authority.contains(['/', '?', '#']) {
        return Err(("has a path or query; requests keep their own", FORM));
    }
    let authority: http::uri::Authority = authority.parse().map_err(|_| ("is not a URL", FORM))?;
    let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
        (Some(port), _) if port > 0 => port,
        (None, None) => 80,
        // An IPv6 literal has colons of its own.
        (None, Some((_, after))) if after.ends_with(']') => 80,
        _ => return Err(("has a port that is no number from 1 to 65535", FORM)),
    };
    let host = authority.host();
    if host.is_empty() {
        return Err(("names no host", FORM));
    }
    let shown = if port == 80 { host.to_owned() } else { format!("{host}:{port}") };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(Endpoint { host: host.to_owned(), port, authority: shown })
}

/// Identity is not built yet: switching it on is refused, its values are checked all the same. Gives the access token's lifetime.
fn identity(section: &Section<'_>) -> Duration {
    if section.boolean("enabled") == Some(true) {
        section.refuse("enabled");
    }
    let _ = (section.address("listen"), section.duration("refresh_token"), section.texts("redirects"));
    let _ = section.text("public_url");
    section.not_yet("services");
    section.not_yet("oauth");
    section.duration("access_token").unwrap_or(Duration::from_mins(15))
}

/// T5: what doorward issues must not outlive what it accepts.
fn check_access_token(access_token: Duration, auth: &AuthSettings, section: &Section<'_>) {
    section.ignore_rest();
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
    }
}

fn revocation(section: &Section<'_>) -> RevocationSettings {
    if section.word("mode", &[("replicated", false), ("lookup", true)]) == Some(true) {
        section.refuse("mode");
    }
    let _ = section.duration("max_staleness");
    if section.word("on_stale", &[("deny", false), ("allow", true)]) == Some(true) {
        section.refuse("on_stale");
    }
    // Read in the mode "lookup" only.
    let _ = section.text("lookup_key");
    RevocationSettings { file: path(section, "file") }
}

fn publication(section: &Section<'_>) {
    section.not_yet("key_file");
    section.not_yet("public_keys");
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
    let (gateway, admin) = (settings.gateway.listen, settings.admin.listen);
    let clash = gateway.port() != 0
        && gateway.port() == admin.port()
        && (gateway.ip() == admin.ip() || gateway.ip().is_unspecified() || admin.ip().is_unspecified());
    if settings.gateway.enabled && settings.admin.enabled && clash {
        let section = root.section("admin");
        section.ignore_rest();
        section.mistake(
            "listen",
            format!("is port {}, and so is `gateway.listen`", admin.port()),
            "Give each listener a port of its own.",
        );
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
