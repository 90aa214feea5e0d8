//! What every key means, and what a good value is. One function a section, in the order of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use ipnet::IpNet;

use super::mistake::{ConfigError, Warning};
use super::quantity;
use super::settings::{
    AdminSettings, AuthSettings, Endpoint, GatewaySettings, IssuerSettings, KeySource, Limits, LogSettings,
    RevocationSettings, Settings, UpstreamSettings,
};
use super::sources::{self, Tree};
use super::walk::{Findings, Section};
use crate::rbac::RoleKey;
use crate::secret::Secret;
use crate::telemetry::tracing::{LogFormat, LogLevel};
use crate::token::{Algorithm, ClaimPaths, Confers, RolesFrom};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// RFC 7518 section 3.2: a key of the size of the hash output or larger.
const LEAST_SECRET: usize = 32;
/// Longest lifetime of a token that may be configured; revocations are kept as long (T5).
const LONGEST_LIFETIME: Duration = Duration::from_hours(366 * 24);
/// Upstreams that doorward is itself; policies name them, the configuration may not.
const RESERVED_UPSTREAMS: [&str; 2] = ["doorward-admin", "doorward-identity"];

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

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
        let auth = auth(&root.section("auth"));
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
        };
        root.section("probes").not_yet("listen");
        root.section("mail").not_yet("smtp");
        root.section("database").not_yet("url");
        root.section("redis").not_yet("url");
        publication(&root.section("publication"));
        events(&root.section("events"));
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
    section.not_yet("tls");
    if section.texts("proxy_protocol_from").is_some_and(|networks| !networks.is_empty()) {
        section.refuse("proxy_protocol_from");
    }
    GatewaySettings {
        enabled: section.boolean("enabled").unwrap_or(true),
        listen: section.address("listen").unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8090))),
        report: section.word("mode", &[("enforce", false), ("report", true)]).unwrap_or(false),
        policies: paths(section, "policies").unwrap_or_else(|| vec!["policies/oms.yaml".into()]),
        workers: section.number("workers", 0, 1024).unwrap_or(0),
        trusted_proxies: trusted_proxies(section),
        grace: section.duration("grace").unwrap_or(Duration::from_secs(30)),
        limits: Limits {
            header_bytes: limits.size("header_bytes").and_then(|size| usize::try_from(size).ok()).unwrap_or(32 * 1024),
            headers: limits.number("headers", 1, 10_000).unwrap_or(100),
            body: limits.size("body").unwrap_or(64 * MIB),
            header_timeout: limits.duration("header_timeout").unwrap_or(Duration::from_secs(10)),
            idle_timeout: limits.duration("idle_timeout").unwrap_or(Duration::from_secs(75)),
            connections: limits.number("connections", 1, 10_000_000).unwrap_or(10_000),
        },
    }
}

fn trusted_proxies(section: &Section<'_>) -> Vec<IpNet> {
    let everyone = section.boolean("dangerous_trust_everyone").unwrap_or(false);
    let networks = section
        .list("trusted_proxies", "a network such as \"10.0.0.0/8\" or an IP address", |text| {
            text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
        })
        .unwrap_or_default();
    if !everyone && networks.iter().any(|network| network.prefix_len() == 0) {
        section.mistake(
            "trusted_proxies",
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

fn auth(section: &Section<'_>) -> AuthSettings {
    if section.word("mode", &[("local", false), ("iam_service", true)]) == Some(true) {
        section.refuse("mode");
    }
    let _ = section.parsed("iam_service_url", "an http:// or https:// URL", |text| {
        text.parse::<http::Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
    });
    let secret = secret(section);
    let sections = section.sections("issuers");
    let only = sections.len() == 1;
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    let mut local = false;
    for inner in &sections {
        let issuer = issuer(inner, only, secret.as_ref());
        if issuers.iter().any(|other| other.name == issuer.name) && inner.has("name") {
            inner.mistake(
                "name",
                format!("{:?} names two issuers", issuer.name),
                "Give every issuer a name of its own.",
            );
        }
        if issuer.issuer.is_some() && issuers.iter().any(|other| other.issuer == issuer.issuer) {
            inner.mistake(
                "issuer",
                "is the `iss` of two issuers, so a token's keys could not be told",
                "Merge the two, or correct one.",
            );
        }
        if inner.text("keys") == Some("local") && std::mem::replace(&mut local, true) {
            inner.mistake("keys", "is \"local\" for two issuers; issuers never share keys", "Keep one of them.");
        }
        issuers.push(issuer);
    }
    if secret.is_some() && !issuers.iter().any(|issuer| matches!(issuer.keys, KeySource::Secret(_))) {
        section.warn("secret", "is set, but no issuer has `keys = \"secret\"`, so it is not used");
    }
    AuthSettings {
        token_cache: section.size("token_cache").unwrap_or(64 * MIB).max(64 * KIB),
        leeway: leeway(section),
        local_keys: path(section, "local_keys").unwrap_or_else(|| "data/local-keys.jwks.json".into()),
        issuers,
    }
}

fn leeway(section: &Section<'_>) -> Duration {
    let leeway = section.parsed("leeway", "a duration of at most 5 minutes such as \"30s\" (or \"0s\")", |text| {
        quantity::duration(text).filter(|leeway| *leeway <= Duration::from_mins(5))
    });
    leeway.unwrap_or(Duration::from_secs(30))
}

/// The shared secret, from `secret` or `secret_file`; the environment's word counts over the file's.
fn secret(section: &Section<'_>) -> Option<Secret> {
    let (has_secret, has_file) = (section.has("secret"), section.has("secret_file"));
    let use_file = match (has_secret, has_file) {
        (false, false) => return None,
        (true, true) => match (section.from_environment("secret"), section.from_environment("secret_file")) {
            (true, false) => false,
            (false, true) => true,
            _ => {
                section.mistake("secret", "stands beside `secret_file`", "Keep one of the two.");
                return None;
            }
        },
        (_, has_file) => has_file,
    };
    let key = if use_file { "secret_file" } else { "secret" };
    let bytes = if use_file {
        match sources::secret_file(path(section, "secret_file")?.as_path()) {
            Ok(text) => text.into_bytes(),
            Err(message) => {
                section.mistake(key, message, "Name a readable file that holds the secret and nothing else.");
                return None;
            }
        }
    } else {
        section.text("secret")?.as_bytes().to_vec()
    };
    if bytes.len() < LEAST_SECRET {
        section.mistake(
            key,
            format!("is a weak secret: {} bytes, and HS256 needs {LEAST_SECRET} (RFC 7518 section 3.2)", bytes.len()),
            "Make one with `openssl rand -base64 48`.",
        );
        return None;
    }
    Some(Secret::new(bytes))
}

fn issuer(section: &Section<'_>, only: bool, secret: Option<&Secret>) -> IssuerSettings {
    let name = section.parsed("name", "a name of letters, digits, `-`, `_` and `.` (at most 64)", |text| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(good)).then(|| text.to_owned())
    });
    if !section.has("name") {
        section.mistake("name", "is missing", "Give the issuer a name, for example `name = \"doorward\"`.");
    }
    let issuer =
        section.parsed("issuer", "the exact `iss` of its tokens", |text| (!text.is_empty()).then(|| text.to_owned()));
    let audience = section
        .list("audience", "an audience, one exact text", |text| (!text.is_empty()).then(|| text.to_owned()))
        .unwrap_or_default();
    let absent = |key: &str, what: &str| {
        if only {
            section.warn(key, format!("is absent, so tokens are accepted whatever their `{what}`, or without one"));
        } else {
            section.mistake(
                key,
                "may be absent only where there is one issuer",
                format!("Write the `{what}` of its tokens."),
            );
        }
    };
    if !section.has("issuer") {
        absent("issuer", "iss");
    }
    if audience.is_empty()
        && section.value("audience").is_none_or(|value| matches!(value, Value::Array(_, items) if items.is_empty()))
    {
        absent("audience", "aud");
    }
    let keys = key_source(section, secret);
    let algorithms = algorithms(section, keys.as_ref());
    let own = matches!(keys, Some(KeySource::Local));
    let max_lifetime = section.parsed("max_lifetime", "a duration of at most 366 days such as \"1h\"", |text| {
        quantity::duration(text).filter(|time| !time.is_zero() && *time <= LONGEST_LIFETIME)
    });
    let subject_prefix = subject_prefix(section);
    let same_subjects = section.boolean("same_subjects").unwrap_or(false);
    let roles_from = section
        .word("roles_from", &[("token", RolesFrom::Token), ("doorward", RolesFrom::Doorward)])
        .unwrap_or(RolesFrom::Token);
    if roles_from == RolesFrom::Doorward {
        section.refuse("roles_from");
    }
    let admin = section.boolean("admin").unwrap_or(false);
    let confers = confers(section);
    if own {
        for key in ["subject_prefix", "same_subjects", "roles_from", "confers", "admin"] {
            if section.has(key) {
                section.mistake(
                    key,
                    "is for foreign issuers, and `keys = \"local\"` are doorward's own",
                    "Remove the key.",
                );
            }
        }
    } else if keys.is_some() {
        if same_subjects == !subject_prefix.is_empty() {
            let message = if same_subjects {
                "stands beside `subject_prefix`, and only one can hold"
            } else {
                "or `same_subjects` must say whose ids its subjects are (T7)"
            };
            section.mistake(
                if same_subjects { "same_subjects" } else { "subject_prefix" },
                message,
                "Write `subject_prefix = \"kc:\"` to keep its subjects apart, or `same_subjects = true` if they are doorward's own.",
            );
        }
        if !section.has("confers") {
            section.warn("confers", "is absent, so roles in this issuer's tokens count for nothing");
        }
    }
    IssuerSettings {
        name: name.unwrap_or_default(),
        issuer,
        audience,
        keys: keys.unwrap_or(KeySource::Local),
        algorithms,
        claims: claim_paths(&section.section("claims")),
        max_lifetime: max_lifetime.unwrap_or(Duration::from_hours(1)),
        subject_prefix,
        same_subjects,
        roles_from,
        confers,
        admin,
    }
}

fn key_source(section: &Section<'_>, secret: Option<&Secret>) -> Option<KeySource> {
    const FORMS: &str = "Write \"local\", \"secret\" or \"jwks+file://PATH\".";
    if !section.has("keys") {
        section.mistake("keys", "is missing", FORMS);
        return None;
    }
    let text = section.text("keys")?;
    if let Some(path) = text.strip_prefix("jwks+file://").filter(|path| !path.is_empty()) {
        return Some(KeySource::JwksFile(path.into()));
    }
    match text {
        "local" => Some(KeySource::Local),
        "secret" => {
            if secret.is_none() {
                section.mistake(
                    "keys",
                    "is \"secret\", and there is no usable secret",
                    "Set JWT_SECRET_KEY, or `auth.secret_file`, to 32 bytes or more.",
                );
            }
            secret.cloned().map(KeySource::Secret)
        }
        _ if text.starts_with("jwks+https://") || text.starts_with("jwks+http://") => {
            section.mistake(
                "keys",
                "fetching key sets by URL is not part of this version",
                "Download the key set and write \"jwks+file://PATH\".",
            );
            None
        }
        other => {
            section.mistake("keys", format!("{other:?} is no source of keys"), FORMS);
            None
        }
    }
}

fn algorithms(section: &Section<'_>, keys: Option<&KeySource>) -> Vec<Algorithm> {
    let listed = section.list("algorithms", "one of \"HS256\", \"RS256\", \"ES256\", \"EdDSA\"", |text| {
        ALGORITHMS.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm)
    });
    let default = match keys {
        Some(KeySource::Secret(_)) => vec![Algorithm::HS256],
        Some(KeySource::JwksFile(_)) => vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256],
        Some(KeySource::Local) | None => vec![Algorithm::EdDSA],
    };
    let Some(listed) = listed else { return default };
    if listed.is_empty() {
        section.mistake("algorithms", "allows none, so every token would be refused", "Name at least one.");
    }
    let misfit = match keys {
        Some(KeySource::Secret(_)) if listed != [Algorithm::HS256] => Some("a shared secret verifies HS256 only"),
        Some(KeySource::Local) if listed.contains(&Algorithm::HS256) => Some("doorward's own keys are never HS256"),
        _ => None,
    };
    if let Some(misfit) = misfit {
        section.mistake("algorithms", misfit, "Remove the key, and the right one is taken.");
    }
    listed
}

fn subject_prefix(section: &Section<'_>) -> String {
    let prefix = section.parsed("subject_prefix", "1 to 32 printable characters without `,`, `=` and `%`", |text| {
        let good = |byte: u8| byte.is_ascii_graphic() && !b",=%".contains(&byte);
        ((1..=32).contains(&text.len()) && text.bytes().all(good)).then(|| text.to_owned())
    });
    prefix.unwrap_or_default()
}

fn confers(section: &Section<'_>) -> Confers {
    const FORMS: &str = "Write { viewer = \"ROLE_USER\" }, [\"ROLE_USER\"] or \"any\".";
    let role = |key: &str, text: &str| match RoleKey::parse(text) {
        Ok(role) => Some(role),
        Err(error) => {
            section.mistake(key, error.to_string(), FORMS);
            None
        }
    };
    match section.value("confers") {
        None => Confers::Nothing,
        Some(Value::String(_, text)) if text == "any" => Confers::Any,
        Some(Value::Array(..)) => {
            let texts = section.texts("confers").unwrap_or_default();
            Confers::List(texts.into_iter().filter_map(|text| role("confers", text)).collect())
        }
        Some(Value::Dict(..)) => {
            let map = section.section("confers");
            let mut confers = BTreeMap::new();
            for word in map.names() {
                if let Some(role) = map.text(word).and_then(|text| role("confers", text)) {
                    confers.insert(word.to_owned(), role);
                }
            }
            Confers::Map(confers)
        }
        Some(_) => {
            section.mistake("confers", "is neither a map, nor a list, nor \"any\"", FORMS);
            Confers::Nothing
        }
    }
}

fn claim_paths(section: &Section<'_>) -> ClaimPaths {
    let path = |key: &str, default: String| {
        let found = section.parsed(key, "a dotted path of claims such as \"realm_access.roles\"", |text| {
            (!text.is_empty() && text.split('.').all(|part| !part.is_empty())).then(|| text.to_owned())
        });
        found.unwrap_or(default)
    };
    let default = ClaimPaths::default();
    ClaimPaths {
        subject: path("subject", default.subject),
        roles: path("roles", default.roles),
        memberships: path("memberships", default.memberships),
        session: path("session", default.session),
        name: path("name", default.name),
        email: path("email", default.email),
    }
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
    section.not_yet("lookup_key");
    RevocationSettings { file: path(section, "file") }
}

fn publication(section: &Section<'_>) {
    section.not_yet("key_file");
    section.not_yet("public_keys");
}

fn events(section: &Section<'_>) {
    if section.texts("sinks").is_some_and(|sinks| sinks != ["log"]) {
        section.mistake("sinks", "sinks other than \"log\" are not part of this version", "Write `sinks = [\"log\"]`.");
    }
    for sink in ["kafka", "redis_stream", "webhook"] {
        section.not_yet(sink);
    }
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
