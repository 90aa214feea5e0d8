//! `[upstreams.NAME]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::settings::{UpstreamSettings, UpstreamTls};
use super::super::walk::{Section, shown};
use super::path;
use crate::gateway::upstream::{Address, EjectionSettings, Endpoint, HealthSettings, RequestLimits, Scheme};

/// Upstreams that doorward is itself; policies name them, the configuration may not.
const RESERVED: [&str; 2] = ["doorward-admin", "doorward-identity"];
const EXAMPLE: &str = "Write `endpoints = [\"http://127.0.0.1:8000\"]`.";

pub(super) fn upstreams(section: &Section<'_>) -> BTreeMap<String, UpstreamSettings> {
    let mut upstreams = BTreeMap::new();
    for name in section.names() {
        if RESERVED.contains(&name) {
            section.mistake(name, "is a name of doorward's own", "Give the upstream another name.");
        }
        upstreams.insert(name.to_owned(), upstream(&section.section(name)));
    }
    upstreams
}

fn upstream(section: &Section<'_>) -> UpstreamSettings {
    let endpoints = endpoints(section);
    let timeouts = section.section("timeouts");
    let limits = section.section("limits");
    let default = RequestLimits::default();
    UpstreamSettings {
        connect: timeouts.duration("connect").unwrap_or(Duration::from_secs(1)),
        first_byte: timeouts.duration("first_byte").unwrap_or(Duration::from_secs(30)),
        idle: timeouts.duration("idle").unwrap_or(Duration::from_mins(1)),
        tls: tls(section, &endpoints),
        health: health(section),
        ejection: ejection(&section.section("ejection")),
        limits: RequestLimits {
            requests: limits.number("requests", 1, 10_000_000).unwrap_or(default.requests),
            waiting: limits.number("waiting", 0, 10_000_000).unwrap_or(default.waiting),
            wait: limits.duration("wait").unwrap_or(default.wait),
        },
        endpoints,
    }
}

fn endpoints(section: &Section<'_>) -> Vec<Endpoint> {
    let Some(texts) = section.texts("endpoints") else {
        if !section.has("endpoints") {
            section.mistake("endpoints", "is missing", EXAMPLE);
        }
        return Vec::new();
    };
    if texts.is_empty() {
        section.mistake("endpoints", "names no endpoint", EXAMPLE);
    }
    let mut endpoints = Vec::with_capacity(texts.len());
    for text in texts {
        match endpoint(text) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err((message, help)) => section.mistake("endpoints", format!("{} {message}", shown(text)), help),
        }
    }
    endpoints
}

/// Reads `SCHEME://HOST[:PORT]` or `unix:/PATH`.
fn endpoint(text: &str) -> Result<Endpoint, (&'static str, &'static str)> {
    const FORM: &str = "Write http://HOST:PORT without a path (or https://, h2c://), or unix:/PATH.";
    if let Some(rest) = text.strip_prefix("unix:") {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if !Path::new(path).is_absolute() || path.ends_with('/') {
            return Err(("names no absolute path", "Write unix:/PATH, the path of a socket."));
        }
        let address = Address::Unix(PathBuf::from(path));
        return Ok(Endpoint { scheme: Scheme::Http, address, authority: "localhost".to_owned() });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(("is not a URL", FORM));
    };
    let (scheme, own_port) = match scheme {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        "h2c" => (Scheme::H2c, 80),
        _ => return Err(("has an unknown scheme", FORM)),
    };
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
        (None, None) => own_port,
        // An IPv6 literal has colons of its own.
        (None, Some((_, after))) if after.ends_with(']') => own_port,
        _ => return Err(("has a port that is no number from 1 to 65535", FORM)),
    };
    let host = authority.host();
    if host.is_empty() {
        return Err(("names no host", FORM));
    }
    let shown = if port == own_port { host.to_owned() } else { format!("{host}:{port}") };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(Endpoint { scheme, address: Address::Tcp { host: host.to_owned(), port }, authority: shown })
}

fn tls(section: &Section<'_>, endpoints: &[Endpoint]) -> Option<UpstreamTls> {
    let tls = section.section("tls");
    let (ca, cert, key) = (path(&tls, "ca"), path(&tls, "cert"), path(&tls, "key"));
    let server_name = tls.parsed("server_name", "a host name such as \"oms.internal\"", |text| {
        rustls::pki_types::ServerName::try_from(text).is_ok().then(|| text.to_owned())
    });
    if !section.has("tls") {
        return None;
    }
    for (has, lacks) in [("cert", "key"), ("key", "cert")] {
        if tls.has(has) && !tls.has(lacks) {
            tls.mistake(lacks, format!("is missing, and `{has}` is of no use without it"), "Name both files, or none.");
        }
    }
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.scheme != Scheme::Https) {
        section.mistake("tls", "is set, and no endpoint begins with https://", "Write https:// before the endpoints.");
    }
    Some(UpstreamTls { ca, identity: cert.zip(key), server_name })
}

fn health(section: &Section<'_>) -> Option<HealthSettings> {
    let health = section.section("health");
    let path = health.parsed("path", "a path such as \"/health\"", |text| {
        let good = text.starts_with('/') && !text.contains('#');
        (good && text.parse::<http::uri::PathAndQuery>().is_ok()).then(|| text.to_owned())
    });
    let threshold =
        |key, default| health.number(key, 1, 1_000).and_then(|number| number.try_into().ok()).unwrap_or(default);
    let settings = HealthSettings {
        interval: health.duration("interval").unwrap_or(Duration::from_secs(5)),
        timeout: health.duration("timeout").unwrap_or(Duration::from_secs(2)),
        healthy: threshold("healthy", 2),
        unhealthy: threshold("unhealthy", 3),
        path: path.unwrap_or_default(),
    };
    if section.has("health") && !health.has("path") {
        health.mistake("path", "is missing", "Write the path to ask for, such as `path = \"/health\"`.");
    }
    section.has("health").then_some(settings)
}

fn ejection(section: &Section<'_>) -> EjectionSettings {
    let default = EjectionSettings::default();
    let failures = section.number("failures", 1, 1_000_000).and_then(|number| number.try_into().ok());
    let settings = EjectionSettings {
        failures: failures.unwrap_or(default.failures),
        server_errors: section.boolean("server_errors").unwrap_or(default.server_errors),
        base: section.duration("base").unwrap_or(default.base),
        max: section.duration("max").unwrap_or(default.max),
        slow_start: section.duration("slow_start").unwrap_or(default.slow_start),
    };
    if settings.max < settings.base && (section.has("max") || section.has("base")) {
        section.mistake("max", "is shorter than `base`", "Raise `max`, or lower `base`.");
    }
    settings
}
