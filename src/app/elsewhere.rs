//! Who is asked for what this process cannot know: the user service, the blacklist. Both are asked by tasks of one runtime, with a
//! thread of its own, so that neither a client's going away nor a busy worker ends or delays what others wait for.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::runtime::{Builder, Handle, Runtime};

use super::upstreams::Listeners;
use crate::admission::{Elsewhere, Identity};
use crate::config::{IamSettings, RevocationMode, Settings};
use crate::delegate::{Blacklist, Holding, Iam, IamLimits, Lookup, LookupSettings, Unreachable};
use crate::https::{ClientSettings, TlsTrust, client, plain_client};
use crate::replication::{ForeignKeys, Redis};
use crate::revocation::OnStale;
use crate::telemetry::Metrics;
use crate::token::vouched::Vouching;

/// Those who are asked, and the runtime that asks.
pub struct Asking {
    iam: Option<Arc<Iam<Identity>>>,
    lookup: Option<Arc<Lookup>>,
    /// Ends with this.
    _runtime: Aside,
}

/// A runtime that nobody waits for when it ends: what it asks is asked for nobody any more.
struct Aside(Option<Runtime>);

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Asking {
    /// For the gateway.
    pub(super) fn of_gateway(&self) -> Elsewhere {
        Elsewhere { iam: self.iam.clone(), lookup: self.lookup.clone(), lenient: true }
    }

    /// For the admin listener, where nothing goes on unanswered (T21).
    pub(super) fn of_admin(&self) -> Elsewhere {
        Elsewhere { lenient: false, ..self.of_gateway() }
    }
}

/// Those who are to be asked; `None`, and no thread, where everything is known here.
///
/// # Errors
/// Files that cannot be read, and a service that is this process.
pub(super) fn asking(settings: &Settings, metrics: &Metrics) -> anyhow::Result<Option<Asking>> {
    let looks_up = settings.revocation.mode == RevocationMode::Lookup;
    if settings.auth.iam.is_none() && !looks_up {
        return Ok(None);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("elsewhere")
        .enable_all()
        .build()
        .context("cannot start the runtime that asks elsewhere")?;
    let handle = runtime.handle().clone();
    let iam = settings.auth.iam.as_ref().map(|iam| user_service(settings, iam, &handle, metrics)).transpose()?;
    let lookup = if looks_up { Some(blacklist(settings, &runtime, metrics)?) } else { None };
    Ok(Some(Asking { iam, lookup, _runtime: Aside(Some(runtime)) }))
}

fn user_service(
    settings: &Settings,
    iam: &IamSettings,
    runtime: &Handle,
    metrics: &Metrics,
) -> anyhow::Result<Arc<Iam<Identity>>> {
    let url: http::Uri = iam.url.parse().context("auth.iam_service_url")?;
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    if let Some(listener) = Listeners::of(settings).reached_by(host, port) {
        bail!("auth.iam_service_url: {url} is doorward's own {listener} listener; name the user service");
    }
    let ca = iam.ca.as_ref().map(|path| {
        std::fs::read(path).with_context(|| format!("cannot read {} ([auth.iam_service] ca)", path.display()))
    });
    let asked_with = ClientSettings {
        tls: TlsTrust { ca: ca.transpose()?, identity: None },
        connect: iam.connect,
        total: iam.timeout,
        idle_connections: iam.questions,
    };
    let plain = url.scheme_str() == Some("http");
    let client = if plain { plain_client(&asked_with) } else { client(&asked_with) };
    let client = client.map_err(|error| anyhow::anyhow!("[auth.iam_service] {} {error}", error.key()))?;
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let vouching = Vouching {
        confers: iam.confers.clone(),
        admin: iam.admin,
        verifies_email: iam.verifies_email,
        leeway: seconds(settings.auth.leeway),
        max_lifetime: seconds(iam.max_lifetime),
        one_spelling: settings.revocation.mode == RevocationMode::Lookup && settings.revocation.lookup_key.is_by_text(),
    };
    let limits = IamLimits {
        cache: iam.cache,
        timeout: iam.timeout,
        questions: iam.questions,
        memory: settings.auth.token_cache,
    };
    tracing::info!(
        url = iam.url,
        issuers_not_used = settings.auth.issuers.len(),
        "tokens are judged by the user service; what is revoked here counts as well"
    );
    Ok(Iam::new(&iam.url, client, vouching, limits, runtime.clone(), Arc::clone(metrics.delegate())))
}

fn blacklist(settings: &Settings, runtime: &Runtime, metrics: &Metrics) -> anyhow::Result<Arc<Lookup>> {
    let redis = settings.redis.clone().context("[revocation] mode = \"lookup\" needs redis.url")?;
    let keys = ForeignKeys::new(Redis::new(redis)?, settings.revocation.lookup_timeout);
    match runtime.block_on(keys.open()) {
        Err(failure) if settings.revocation.on_stale == OnStale::Allow => {
            tracing::warn!(%failure, "the blacklist does not answer; requests go on without it (on_stale = \"allow\")");
        }
        opened => opened.context("redis.url: the blacklist cannot be reached")?,
    }
    let prefixes: BTreeMap<Arc<str>, Box<str>> = settings
        .auth
        .issuers
        .iter()
        .map(|issuer| (issuer.name.as_str().into(), issuer.subject_prefix.as_str().into()))
        .collect();
    let lookup = LookupSettings {
        key: settings.revocation.lookup_key.clone(),
        age: settings.revocation.lookup_age,
        timeout: settings.revocation.lookup_timeout,
        on_silence: settings.revocation.on_stale,
        prefixes,
    };
    let blacklist = RedisBlacklist { keys, silent: AtomicBool::new(false) };
    Ok(Lookup::new(lookup, Arc::new(blacklist), runtime.handle().clone(), Arc::clone(metrics.delegate())))
}

/// The rooms do not know each other, so they meet here.
struct RedisBlacklist {
    keys: ForeignKeys,
    /// Whether it was said that there is no answer; each change is said once.
    silent: AtomicBool,
}

impl Blacklist for RedisBlacklist {
    fn holds<'a>(&'a self, key: &'a str) -> Pin<Box<dyn Future<Output = Holding> + Send + 'a>> {
        Box::pin(async move {
            let held = self.keys.holds(key).await;
            let was_silent = self.silent.swap(held.is_err(), Ordering::Relaxed);
            match &held {
                Err(failure) if !was_silent => tracing::warn!(%failure, "the blacklist does not answer"),
                Ok(_) if was_silent => tracing::info!("the blacklist answers again"),
                _ => {}
            }
            held.map_err(|_| Unreachable)
        })
    }
}
