//! Everything that can be wrong with a start is found here, before anything is bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use http::HeaderValue;

use crate::admin_api::{AdminState, Readiness};
use crate::admission::Admission;
use crate::clock::Timestamp;
use crate::config::{self, IssuerSettings, KeySource, Settings};
use crate::gateway::{self, Gateway, GatewaySettings};
use crate::policy::{CompileInput, Diagnostics, PolicyFile, Snapshot, compile, roles_file};
use crate::rbac::RoleTable;
use crate::request::Host;
use crate::request::peer::TrustedProxies;
use crate::revocation::{Retention, RevocationIndex, entry};
use crate::telemetry::Metrics;
use crate::token::jwk::Trust;
use crate::token::{Confers, Issuer, KeySet, TokenCache, Verifier, local_keys};

/// What a process consists of before it is bound to anything.
pub struct Built {
    /// The gateway, if it is switched on.
    pub gateway: Option<Arc<Gateway>>,
    /// The admin listener's state, if it is switched on.
    pub admin: Option<Arc<AdminState>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The revocations.
    pub revocations: Arc<RevocationIndex>,
    /// Whether the process can serve.
    pub readiness: Readiness,
}

/// Builds everything from files and settings.
///
/// # Errors
/// The first part that cannot be built, with the files, places and mends that its room names.
pub fn build(settings: &Settings) -> anyhow::Result<Built> {
    let metrics = Metrics::new();
    let readiness = Readiness::default();
    let roles = roles(settings)?;
    let tokens = Arc::new(TokenCache::new(verifier(settings, &roles)?, settings.auth.token_cache));
    let retention = retention(settings);
    let revocations = Arc::new(revocations(settings, retention)?);

    let gateway = if settings.gateway.enabled {
        let upstreams: BTreeSet<_> = settings.upstreams.keys().cloned().collect();
        let snapshot = snapshot(&settings.gateway.policies, &roles, Some(&upstreams), settings.gateway.report)?;
        let policies = snapshot.services().iter().map(|service| (&*service.name, &*service.sha256));
        metrics.set_snapshot(snapshot.version(), policies);
        let admission = Arc::new(Admission::new(snapshot, Arc::clone(&tokens), Arc::clone(&revocations)));
        Some(Gateway::new(admission, gateway_settings(settings)?))
    } else {
        None
    };
    warn_of_unprotected_upstreams(settings, &metrics);

    let admin = if settings.admin.enabled {
        let snapshot = snapshot(std::slice::from_ref(&settings.admin.policy), &roles, None, false)?;
        let hosts = settings.admin.hosts.iter().map(|host| Host::parse(host.as_bytes()));
        Some(Arc::new(AdminState {
            admission: Admission::new(snapshot, tokens, Arc::clone(&revocations)),
            revocations: Arc::clone(&revocations),
            retention,
            metrics: Arc::clone(&metrics),
            count: metrics.worker(),
            hosts: hosts.collect::<Result<_, _>>().map_err(|rejection| anyhow::anyhow!("[admin] hosts: {}", rejection.detail))?,
            metrics_open: settings.admin.metrics_open,
            readiness: readiness.clone(),
        }))
    } else {
        None
    };
    Ok(Built { gateway, admin, metrics, revocations, readiness })
}

fn roles(settings: &Settings) -> anyhow::Result<Arc<RoleTable>> {
    let Some(path) = &settings.roles else { bail!("[roles] file is missing: name the file of roles and permissions") };
    let (roles, findings) = roles_file::parse(config::read(path)?);
    report(&findings)?;
    let (_, table) = roles.context("the roles file could not be read")?;
    Ok(Arc::new(table))
}

fn snapshot(
    paths: &[std::path::PathBuf],
    roles: &Arc<RoleTable>,
    upstreams: Option<&BTreeSet<String>>,
    report_mode: bool,
) -> anyhow::Result<Snapshot> {
    let mut files = Vec::new();
    let mut findings = Diagnostics::default();
    let mut unreadable = Vec::new();
    for path in paths {
        match config::read(path) {
            Ok(source) => {
                let (file, found) = PolicyFile::parse(source);
                files.extend(file);
                findings.0.extend(found.0);
            }
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    if !unreadable.is_empty() {
        bail!("{}", unreadable.join("\n"));
    }
    let input = CompileInput { files: &files, roles: Arc::clone(roles), upstreams, report: report_mode };
    let (snapshot, found) = compile(&input);
    findings.0.extend(found.0);
    report(&findings)?;
    snapshot.context("the policy could not be compiled")
}

/// Errors stop the start, all of them in one message; warnings are logged.
fn report(findings: &Diagnostics) -> anyhow::Result<()> {
    if findings.has_errors() {
        bail!("{}", findings.render(false).trim_end());
    }
    for finding in &findings.0 {
        tracing::warn!(code = finding.code, file = finding.source.name, "{}", finding.message);
    }
    Ok(())
}

fn verifier(settings: &Settings, roles: &RoleTable) -> anyhow::Result<Verifier> {
    let issuers = settings.auth.issuers.iter().map(|issuer| {
        check_conferred(issuer, roles)?;
        Ok(Issuer {
            name: Arc::from(issuer.name.as_str()),
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            algorithms: issuer.algorithms.clone(),
            keys: Arc::new(keys(settings, issuer)?),
            claims: issuer.claims.clone(),
            max_lifetime: issuer.max_lifetime,
            leeway: settings.auth.leeway,
            own: issuer.keys == KeySource::Local,
            subject_prefix: issuer.subject_prefix.clone(),
            roles_from: issuer.roles_from,
            confers: if issuer.keys == KeySource::Local { Confers::Any } else { issuer.confers.clone() },
            admin: issuer.admin || issuer.keys == KeySource::Local,
        })
    });
    Ok(Verifier::new(issuers.collect::<anyhow::Result<_>>()?))
}

fn keys(settings: &Settings, issuer: &IssuerSettings) -> anyhow::Result<KeySet> {
    let keys = match &issuer.keys {
        KeySource::Local => local_keys::load_or_create(&settings.auth.local_keys, &issuer.algorithms)
            .map_err(|error| error.to_string()),
        KeySource::Secret(secret) => KeySet::shared_secret(secret).map_err(|error| error.to_string()),
        KeySource::JwksFile(path) => std::fs::read(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))
            .and_then(|json| {
                KeySet::parse(&json, &issuer.algorithms, Trust::File).map_err(|error| format!("{}: {error}", path.display()))
            }),
    };
    keys.map_err(|error| anyhow::anyhow!("the keys of issuer {:?} ([[auth.issuers]] keys): {error}", issuer.name))
}

/// A list or map that names an administrator's role without `admin = true` is a mistake that is better found now
/// than by a role that silently does not count (T7).
fn check_conferred(issuer: &IssuerSettings, roles: &RoleTable) -> anyhow::Result<()> {
    let named: Vec<_> = match &issuer.confers {
        Confers::List(keys) => keys.iter().collect(),
        Confers::Map(words) => words.values().collect(),
        _ => Vec::new(),
    };
    for key in named {
        match roles.role(key.as_str()) {
            None => bail!("issuer {:?} confers {key}, which is no role of the roles file", issuer.name),
            Some(role) if !issuer.admin && roles.is_administrator(role) => bail!(
                "issuer {:?} confers {key}, an administrator's role; write admin = true beside it if it may",
                issuer.name
            ),
            Some(_) => {}
        }
    }
    Ok(())
}

fn retention(settings: &Settings) -> Retention {
    let longest = settings.auth.issuers.iter().map(|issuer| issuer.max_lifetime).max().unwrap_or_default();
    Retention::new(longest, settings.auth.leeway)
}

fn revocations(settings: &Settings, retention: Retention) -> anyhow::Result<RevocationIndex> {
    let index = RevocationIndex::default();
    if let Some(path) = &settings.revocation.file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {} ([revocation] file)", path.display()))?;
        let entries = entry::parse_lines(&text).map_err(|faults| describe_faults(path, &faults))?;
        let now = Timestamp::now();
        for entry in &entries {
            index.apply(entry, now, retention);
        }
    }
    Ok(index)
}

fn describe_faults(path: &Path, faults: &[impl std::fmt::Display]) -> anyhow::Error {
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

fn gateway_settings(settings: &Settings) -> anyhow::Result<GatewaySettings> {
    let mut upstreams = BTreeMap::new();
    for (name, upstream) in &settings.upstreams {
        for endpoint in &upstream.endpoints {
            refuse_own_listener(settings, name, endpoint)?;
        }
        let authority = upstream.endpoints.first().map_or("", |endpoint| endpoint.authority.as_str());
        let made = gateway::UpstreamSettings {
            endpoints: upstream
                .endpoints
                .iter()
                .map(|endpoint| gateway::Endpoint { host: endpoint.host.clone(), port: endpoint.port })
                .collect(),
            authority: HeaderValue::from_str(authority).with_context(|| format!("[upstreams.{name}] endpoints"))?,
            connect: upstream.connect,
            first_byte: upstream.first_byte,
            idle: upstream.idle,
        };
        upstreams.insert(name.as_str().into(), Arc::new(made));
    }
    Ok(GatewaySettings {
        trusted_proxies: TrustedProxies::new(settings.gateway.trusted_proxies.clone()),
        body_limit: settings.gateway.limits.body,
        upstreams,
    })
}

/// A gateway in front of itself would forward for ever, and its admin listener behind it would be open (T24).
fn refuse_own_listener(settings: &Settings, name: &str, endpoint: &config::Endpoint) -> anyhow::Result<()> {
    let listeners = [
        ("gateway", settings.gateway.enabled, settings.gateway.listen),
        ("admin", settings.admin.enabled, settings.admin.listen),
    ];
    for (listener, enabled, listen) in listeners {
        let address = endpoint.host.parse::<std::net::IpAddr>().ok().map(|address| address.to_canonical());
        let here = match address {
            Some(address) => address == listen.ip() || (address.is_loopback() || address.is_unspecified()) && listen.ip().is_unspecified(),
            None => endpoint.host.eq_ignore_ascii_case("localhost") && (listen.ip().is_loopback() || listen.ip().is_unspecified()),
        };
        if enabled && here && endpoint.port == listen.port() {
            bail!(
                "[upstreams.{name}] endpoints: http://{} is doorward's own {listener} listener; name the service behind it",
                endpoint.authority
            );
        }
    }
    Ok(())
}

/// Whoever reaches a plain upstream by network can write `X-User-Id` there (T31).
fn warn_of_unprotected_upstreams(settings: &Settings, metrics: &Metrics) {
    for (name, upstream) in &settings.upstreams {
        let open = upstream.endpoints.iter().find(|endpoint| !is_loopback(&endpoint.host));
        metrics.set_upstream_unprotected(name, open.is_some());
        if let Some(endpoint) = open {
            tracing::warn!(
                upstream = name,
                endpoint = endpoint.authority,
                "the upstream is reached by plain HTTP over a network: whoever reaches it too can forge an identity there; \
                 keep it on loopback or let nobody else reach its port"
            );
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}
