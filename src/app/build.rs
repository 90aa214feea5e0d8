//! Everything that can be wrong with a start is found here, before anything is bound.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::Semaphore;

use super::elsewhere::{self, Asking};
use super::key_sets;
use super::ledger;
use super::replication::{self, Replicated};
use super::upstreams::{self, Listeners, Upstreams};
use crate::admin_api::{AdminState, Hands, Readiness};
use crate::admission::{Admission, Decisions, Desk, Identity};
use crate::clock::Timestamp;
use crate::config::{self, AssertionSettings, AuthSettings, ConfigError, IssuerSettings, Settings, issuers};
use crate::gateway::{self, Assertions, Gateway, GatewaySettings, assertion};
use crate::ledger::Ledger;
use crate::policy::Snapshot;
use crate::rbac::RoleTable;
use crate::request::Host;
use crate::request::peer::TrustedProxies;
use crate::revocation::{Arrival, Freshness, Retention, RevocationIndex, entry};
use crate::sync::ledger::announce_if_news;
use crate::sync::policy_files::Texts;
use crate::sync::{KeySets, LiveTls, PolicyFiles};
use crate::telemetry::Metrics;
use crate::token::jwk::Trust;
use crate::token::vouched;
use crate::token::{Algorithm, Confers, KeySet, RolesFrom, Signer, TokenCache, Verifier, local_keys};

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
    /// The revocation folder, where this process records.
    pub ledger: Option<Arc<Ledger>>,
    /// How fresh the revocations are.
    pub freshness: Arc<Freshness>,
    /// What hears of the folder, where this process has one.
    pub truth: Arc<Freshness>,
    /// What follows and publishes through Redis, if there is one; taken by who runs it.
    pub replicated: Option<Replicated>,
    /// What revokes, through whichever door.
    pub hands: Arc<Hands>,
    /// Whether the process can serve.
    pub readiness: Readiness,
    /// The gateway's decisions of late.
    pub decisions: Arc<Decisions>,
    /// The issuers' keys that are followed while running.
    pub key_sets: KeySets,
    /// The files that are followed while running.
    pub files: PolicyFiles,
    /// What they held at the start.
    pub texts: Texts,
    /// The gateway's certificates, if it speaks TLS.
    pub gateway_tls: Option<LiveTls>,
    /// The admin listener's.
    pub admin_tls: Option<LiveTls>,
    /// What the configuration said of upstreams.
    pub upstreams: Upstreams,
    /// What asks elsewhere, if anything does. It ends with this.
    pub asking: Option<Asking>,
}

/// Builds everything from files and settings.
///
/// # Errors
/// The first part that cannot be built, with the files, places and mends that its room names.
pub fn build(settings: &Settings) -> anyhow::Result<Built> {
    let metrics = Metrics::new();
    let files = policy_files(settings)?;
    let texts = files.read()?;
    let loaded = files.compile(&texts)?;
    let tokens = Arc::new(TokenCache::new(
        verifier(&settings.auth, settings.follows(), &loaded.roles)?,
        settings.auth.token_cache,
    ));
    let retention = retention(settings);
    let revocations = Arc::new(revocations(settings, retention)?);
    let ledger = ledger::open(settings, retention, &revocations, &metrics)?;
    let (freshness, replicated) = match settings.shared_redis() {
        Some(redis) => {
            let freshness = replication::freshness(settings);
            let published = (ledger.as_ref(), &*metrics);
            let replicated = replication::open(settings, redis, (&revocations, retention), &freshness, published)?;
            (freshness, Some(replicated))
        }
        None => (ledger::freshness(settings), None),
    };
    // T21: what is too old may be gone on by at the gateway, and never by administrators. With Redis gone they can still revoke where
    // the truth is.
    let (truth, strict) = match (&ledger, &replicated) {
        (Some(_), Some(_)) => {
            let truth = Arc::new(freshness.beside_own_truth());
            (Arc::clone(&truth), truth)
        }
        _ => (Arc::clone(&freshness), Arc::new(freshness.strict())),
    };
    // Those without doorward's own keys hear of them through Redis, if there is one.
    let told = ledger.as_ref().filter(|_| settings.shared_redis().is_some());
    let key_sets = key_sets::followed(&settings.auth, &tokens, &metrics, &revocations, retention, told)?;
    let asking = elsewhere::asking(settings, &metrics)?;
    let admission = |snapshot, freshness: &Arc<Freshness>, elsewhere| {
        let (tokens, revocations, freshness) = (Arc::clone(&tokens), Arc::clone(&revocations), Arc::clone(freshness));
        Arc::new(Admission::new(snapshot, tokens, revocations, freshness).asking(elsewhere))
    };

    let decisions = decisions(settings);
    let upstreams = upstreams::read(&settings.upstreams, &Listeners::of(settings))?;
    let gateway = match loaded.gateway {
        Some(snapshot) => {
            tell_of_snapshot(&metrics, &snapshot);
            decisions.in_force(snapshot.version());
            let gateway_settings = gateway_settings(settings, &upstreams, &metrics)?;
            let asking = asking.as_ref().map(Asking::of_gateway);
            let admission = admission(snapshot, &freshness, asking);
            Some(Gateway::new(admission, gateway_settings, Arc::clone(&decisions)))
        }
        None => None,
    };
    upstreams::warn_of_unprotected(&upstreams, settings.gateway.assertion.is_some(), &metrics);

    let admission_of_admin =
        loaded.admin.map(|snapshot| admission(snapshot, &strict, asking.as_ref().map(Asking::of_admin)));
    // A control plane without a gateway can do its work as long as administrators are let in.
    let readiness = Readiness::new(Arc::clone(if settings.gateway.enabled { &freshness } else { &strict }));
    let mut hands = hands(settings, &tokens, &revocations, &freshness, admission_of_admin.as_ref(), gateway.as_ref())?;
    hands.ledger.clone_from(&ledger);
    let hands = Arc::new(hands);
    if let Some(ledger) = &ledger
        && let Err(error) = announce_if_news(ledger, &revocations, hands.roles.snapshot().roles().fingerprint())
    {
        tracing::error!(%error, "the role data cannot be announced; trying again");
    }
    let admin = match admission_of_admin {
        Some(admission) => {
            let hosts = settings.admin.hosts.iter().map(|host| Host::parse(host.as_bytes()));
            Some(Arc::new(AdminState {
                admission,
                hands: Arc::clone(&hands),
                metrics: Arc::clone(&metrics),
                desk: Desk::new(metrics.worker()),
                hosts: hosts
                    .collect::<Result<_, _>>()
                    .map_err(|rejection| anyhow::anyhow!("[admin] hosts: {}", rejection.detail))?,
                metrics_open: settings.admin.metrics_open,
                readiness: readiness.clone(),
                decisions: Arc::clone(&decisions),
            }))
        }
        None => None,
    };
    let gateway_tls =
        settings.gateway.tls.as_ref().filter(|_| settings.gateway.enabled).map(LiveTls::load).transpose()?;
    let admin_tls = settings.admin.tls.as_ref().filter(|_| settings.admin.enabled).map(LiveTls::load).transpose()?;
    Ok(Built {
        gateway,
        admin,
        metrics,
        revocations,
        ledger,
        freshness,
        truth,
        replicated,
        hands,
        readiness,
        decisions,
        key_sets,
        files,
        texts,
        upstreams,
        gateway_tls,
        admin_tls,
        asking,
    })
}

/// Either listener's snapshot knows the roles in force.
fn hands(
    settings: &Settings,
    tokens: &Arc<TokenCache<Identity>>,
    index: &Arc<RevocationIndex>,
    freshness: &Arc<Freshness>,
    admin: Option<&Arc<Admission>>,
    gateway: Option<&Arc<Gateway>>,
) -> anyhow::Result<Hands> {
    let roles = admin.or_else(|| gateway.map(|gateway| gateway.admission())).context("neither listener is enabled")?;
    Ok(Hands {
        ledger: None,
        index: Arc::clone(index),
        freshness: Arc::clone(freshness),
        tokens: Arc::clone(tokens),
        issuers: issuer_names(settings),
        roles: Arc::clone(roles),
        inquiries: Arc::new(Semaphore::new(1)),
    })
}

/// The names by which a revocation may be about one issuer's tokens.
#[must_use]
pub fn issuer_names(settings: &Settings) -> Vec<String> {
    match settings.auth.iam {
        Some(_) => [vouched::ISSUER.to_owned()].into(),
        None => settings.auth.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
    }
}

/// Nothing is remembered where nobody can ask.
fn decisions(settings: &Settings) -> Arc<Decisions> {
    let mut remembered = settings.admin.decisions;
    if !settings.admin.enabled {
        (remembered.denials, remembered.samples) = (0, 0);
    }
    Decisions::new(remembered, settings.gateway.worker_count())
}

/// Tells the metrics which policy is in force.
pub(super) fn tell_of_snapshot(metrics: &Metrics, snapshot: &Snapshot) {
    let policies = snapshot.services().iter().map(|service| (&*service.name, &*service.sha256));
    metrics.set_snapshot(snapshot.version(), policies);
}

fn policy_files(settings: &Settings) -> anyhow::Result<PolicyFiles> {
    Ok(PolicyFiles {
        policies: if settings.gateway.enabled { settings.gateway.policies.clone() } else { Vec::new() },
        admin: settings.admin.enabled.then(|| settings.admin.policy.clone()),
        roles: settings.roles.clone().context("[roles] file is missing: name the file of roles and permissions")?,
        upstreams: settings.upstreams.keys().cloned().collect(),
        report: settings.gateway.report,
        read: config::read,
    })
}

fn verifier(auth: &AuthSettings, follows: bool, roles: &RoleTable) -> anyhow::Result<Verifier> {
    if auth.iam.is_some() {
        // The user service judges every token: no key is read or made, and none would be believed.
        return Ok(Verifier::new(Vec::new()));
    }
    for issuer in &auth.issuers {
        check_conferred(issuer, roles)?;
    }
    let loaded = if follows { issuers::load_following(auth) } else { issuers::load(auth) };
    Ok(Verifier::new(loaded.map_err(ConfigError)?))
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

pub(super) fn retention(settings: &Settings) -> Retention {
    let longest = settings.auth.issuers.iter().map(|issuer| issuer.max_lifetime);
    let longest = longest.chain(settings.auth.iam.as_ref().map(|iam| iam.max_lifetime)).max().unwrap_or_default();
    // T6: there the override is all that says which roles a subject holds, however long ago it was published.
    let overrides_stay = settings.auth.issuers.iter().any(|issuer| issuer.roles_from == RolesFrom::Doorward);
    Retention { overrides_stay, ..Retention::new(longest, settings.auth.leeway) }
}

fn revocations(settings: &Settings, retention: Retention) -> anyhow::Result<RevocationIndex> {
    let index = RevocationIndex::default();
    if let Some(path) = &settings.revocation.file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {} ([revocation] file)", path.display()))?;
        let entries = entry::parse_lines(&text).map_err(|faults| describe_faults(path, &faults))?;
        let now = Timestamp::now();
        for entry in &entries {
            index.apply(entry, Arrival::by_hand(now), retention);
        }
    }
    Ok(index)
}

fn describe_faults(path: &Path, faults: &[impl std::fmt::Display]) -> anyhow::Error {
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

fn gateway_settings(
    settings: &Settings,
    upstreams: &Upstreams,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<GatewaySettings> {
    Ok(GatewaySettings {
        trusted_proxies: TrustedProxies::new(settings.gateway.trusted_proxies.clone()),
        body_limit: settings.gateway.limits.body,
        upstreams: gateway::Upstreams::new(upstreams.clone(), metrics)?,
        assertions: settings.gateway.assertion.as_ref().map(assertions).transpose()?,
    })
}

/// A key of a file stays the same over restarts and for all processes that share it; another one has to be asked for again.
fn assertions(settings: &AssertionSettings) -> anyhow::Result<Assertions> {
    let algorithms = [Algorithm::EdDSA];
    let keys = match &settings.key_file {
        Some(path) => local_keys::load_or_create(path, &algorithms),
        None => {
            KeySet::generate(Algorithm::EdDSA).and_then(|made| KeySet::parse(made.expose(), &algorithms, Trust::File))
        }
    };
    let signer = keys.and_then(|keys| Signer::new(&keys, assertion::TYPE)).context("[gateway.assertion] key_file")?;
    if settings.key_file.is_none() {
        tracing::info!(
            keys = assertion::KEYS_PATH,
            "X-User-Assertion is signed with a key made at this start; name a [gateway.assertion] key_file to keep one, \
             and to share it between processes"
        );
    }
    Ok(Assertions::new(signer, settings.ttl))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::policy::{SourceText, roles_file};

    const ROLES: &str = "version: 1\npermissions: { oms: ['schema:view'] }\n\
        roles: { ROLE_USER: { permissions: ['schema:view'] }, ROLE_ROOT: { permissions: ['*'] } }\n";

    /// What becomes of an issuer with a secret and these further lines.
    fn built(lines: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("doorward.toml");
        let text = format!(
            "[auth]\nsecret = \"12345678901234567890123456789012\"\n[[auth.issuers]]\nname = \"sso\"\n\
             issuer = \"http://sso\"\naudience = [\"oms\"]\nkeys = \"secret\"\nsame_subjects = true\n{lines}\n"
        );
        std::fs::write(&file, text).unwrap();
        let (settings, _) = Settings::load(Some(&file), std::iter::empty()).unwrap();
        let source = SourceText { name: "roles.yaml".to_owned(), text: ROLES.to_owned() };
        let (_, roles) = roles_file::parse(Arc::new(source)).0.unwrap();
        verifier(&settings.auth, false, &roles).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn t07_an_administrators_role_is_conferred_only_where_admin_is_written() {
        for confers in [r#"confers = ["ROLE_USER", "ROLE_ROOT"]"#, r#"confers = { boss = "ROLE_ROOT" }"#] {
            let refused = built(confers).unwrap_err();
            assert!(refused.contains("ROLE_ROOT, an administrator's role"), "{refused}");
            assert_eq!(built(&format!("admin = true\n{confers}")), Ok(()));
        }
        assert_eq!(built(r#"confers = { viewer = "ROLE_USER" }"#), Ok(()));
    }

    #[test]
    fn a_conferred_role_that_does_not_exist_is_named() {
        let refused = built(r#"confers = ["ROLE_NOBODY"]"#).unwrap_err();
        assert!(refused.contains("\"sso\" confers ROLE_NOBODY, which is no role"), "{refused}");
    }
}
