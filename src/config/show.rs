//! The settings in force, as TOML that could be read again, with secrets masked.

use std::path::Path;

use toml::{Table, Value};

use super::quantity::{show_duration, show_size};
use super::settings::{
    IamSettings, IssuerSettings, KeySource, RevocationMode, Settings, UpstreamSettings, UpstreamTls,
};
use crate::net::{ClientAuth, TlsFiles};
use crate::replication::RedisSettings;
use crate::revocation::OnStale;
use crate::telemetry::tracing::{LogFormat, LogLevel};
use crate::token::{Confers, RolesFrom};

macro_rules! table {
    ($($key:literal: $value:expr),* $(,)?) => {
        Value::Table(Table::from_iter([$(($key.to_owned(), Value::from($value))),*]))
    };
}

impl Settings {
    /// What is in force, as TOML. Secrets are shown as `***`.
    #[must_use]
    pub fn show(&self) -> String {
        toml::to_string(&self.to_table()).unwrap_or_default()
    }

    /// What is in force, as a table for other formats. Secrets are shown as `***`.
    #[must_use]
    pub fn to_table(&self) -> Table {
        let gateway = &self.gateway;
        let limits = gateway.limits;
        let mut believed = gateway.trusted_proxies.iter().chain(&gateway.proxy_protocol_from);
        let mut root = Table::new();
        root.insert(
            "gateway".into(),
            table! {
                "enabled": gateway.enabled,
                "listen": gateway.listen.to_string(),
                "mode": if gateway.report { "report" } else { "enforce" },
                "policies": texts(gateway.policies.iter().map(|path| path.display())),
                "workers": number(gateway.workers),
                "trusted_proxies": texts(&gateway.trusted_proxies),
                "dangerous_trust_everyone": believed.any(|network| network.prefix_len() == 0),
                "proxy_protocol_from": texts(&gateway.proxy_protocol_from),
                "grace": show_duration(gateway.grace),
                "limits": table! {
                    "header_bytes": show_size(limits.header_bytes as u64),
                    "headers": number(limits.headers),
                    "body": show_size(limits.body),
                    "header_timeout": show_duration(limits.header_timeout),
                    "idle_timeout": show_duration(limits.idle_timeout),
                    "connections": number(limits.connections),
                    "streams": i64::from(limits.streams),
                },
            },
        );
        if let (Some(tls), Some(Value::Table(gateway))) = (&gateway.tls, root.get_mut("gateway")) {
            gateway.insert("tls".into(), show_tls(tls));
        }
        if !gateway.drain_delay.is_zero()
            && let Some(Value::Table(shown)) = root.get_mut("gateway")
        {
            shown.insert("drain_delay".into(), show_duration(gateway.drain_delay).into());
        }
        let upstreams = self.upstreams.iter().map(|(name, upstream)| (name.clone(), show_upstream(upstream)));
        root.insert("upstreams".into(), Value::Table(upstreams.collect()));
        let auth = &self.auth;
        let mut shown = Table::from_iter([
            ("mode".to_owned(), Value::from(if auth.iam.is_some() { "iam_service" } else { "local" })),
            ("token_cache".to_owned(), Value::from(show_size(auth.token_cache))),
            ("leeway".to_owned(), Value::from(show_duration(auth.leeway))),
            ("local_keys".to_owned(), Value::from(auth.local_keys.display().to_string())),
        ]);
        if auth.issuers.iter().any(|issuer| matches!(issuer.keys, KeySource::Secret(_))) {
            shown.insert("secret".into(), Value::from("***"));
        }
        if let Some(iam) = &auth.iam {
            shown.insert("iam_service_url".into(), iam.url.as_str().into());
            shown.insert("iam_service".into(), show_iam(iam));
        }
        shown.insert("issuers".into(), Value::Array(auth.issuers.iter().map(show_issuer).collect()));
        root.insert("auth".into(), Value::Table(shown));
        if let Some(file) = &self.roles {
            root.insert("roles".into(), table! { "file": file.display().to_string() });
        }
        root.insert(
            "admin".into(),
            table! {
                "enabled": self.admin.enabled,
                "listen": self.admin.listen.to_string(),
                "hosts": texts(&self.admin.hosts),
                "policy": self.admin.policy.display().to_string(),
                "metrics_open": self.admin.metrics_open,
                "socket": self.admin.socket.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
                "decisions": table! {
                    "denials": number(self.admin.decisions.denials),
                    "sample_every": i64::from(self.admin.decisions.sample_every),
                    "samples": number(self.admin.decisions.samples),
                    "memory": show_size(self.admin.decisions.memory as u64),
                },
            },
        );
        if let (Some(tls), Some(Value::Table(admin))) = (&self.admin.tls, root.get_mut("admin")) {
            admin.insert("tls".into(), show_tls(tls));
        }
        if let Some(listen) = self.probes {
            root.insert("probes".into(), table! { "listen": listen.to_string() });
        }
        root.insert("revocation".into(), self.show_revocation());
        if let Some(redis) = &self.redis {
            root.insert("redis".into(), show_redis(redis));
        }
        let publication = &self.publication;
        let key_file =
            publication.key_file.iter().map(|path| ("key_file".to_owned(), path.display().to_string().into()));
        let mut shown: Table = key_file.collect();
        shown.insert("public_keys".into(), texts(&publication.public_keys));
        root.insert("publication".into(), Value::Table(shown));
        let format = match self.log.format {
            LogFormat::Auto => "auto",
            LogFormat::Json => "json",
            LogFormat::Pretty => "pretty",
        };
        let level = match self.log.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        let sinks: Vec<&str> = self.events.log.then_some("log").into_iter().collect();
        root.insert("events".into(), table! { "sinks": sinks });
        root.insert("log".into(), table! { "format": format, "level": level, "access": self.log.access });
        root
    }

    fn show_revocation(&self) -> Value {
        let revocation = &self.revocation;
        let path = |key: &str, path: &Path| (key.to_owned(), Value::from(path.display().to_string()));
        let mut shown: Table = revocation.file.iter().map(|file| path("file", file)).collect();
        shown.extend([path("folder", &revocation.folder), path("last_good", &revocation.last_good)]);
        shown.extend(revocation.keep.map(|keep| ("keep".to_owned(), show_duration(keep).into())));
        let mode = if revocation.mode == RevocationMode::Lookup { "lookup" } else { "replicated" };
        shown.insert("mode".into(), mode.into());
        if revocation.mode == RevocationMode::Lookup {
            shown.insert("lookup_key".into(), revocation.lookup_key.text().into());
            shown.insert("lookup_age".into(), show_duration(revocation.lookup_age).into());
            shown.insert("lookup_timeout".into(), show_duration(revocation.lookup_timeout).into());
        }
        shown.insert("max_staleness".into(), show_duration(revocation.max_staleness).into());
        shown.insert("on_stale".into(), if revocation.on_stale == OnStale::Allow { "allow" } else { "deny" }.into());
        Value::Table(shown)
    }
}

fn show_redis(redis: &RedisSettings) -> Value {
    let RedisSettings { url, prefix, tls, sentinel, connect, response } = redis;
    let mut shown = Table::from_iter([
        ("url".to_owned(), Value::from(url.to_string())),
        ("prefix".to_owned(), Value::from(prefix.as_str())),
        ("timeouts".to_owned(), table! { "connect": show_duration(*connect), "response": show_duration(*response) }),
    ]);
    let file = |key: &str, path: &Path| (key.to_owned(), Value::from(path.display().to_string()));
    let mut files: Table = tls.ca.iter().map(|ca| file("ca", ca)).collect();
    files.extend(tls.identity.iter().flat_map(|(cert, key)| [file("cert", cert), file("key", key)]));
    if !files.is_empty() {
        shown.insert("tls".into(), Value::Table(files));
    }
    if let Some((user, _)) = sentinel {
        shown.extend(user.clone().map(|user| ("sentinel_user".to_owned(), Value::from(user))));
        shown.insert("sentinel_password".into(), "***".into());
    }
    Value::Table(shown)
}

fn show_iam(iam: &IamSettings) -> Value {
    let mut shown = Table::new();
    let mut put = |key: &str, value: Value| {
        shown.insert(key.to_owned(), value);
    };
    put("cache", show_duration(iam.cache).into());
    put("timeout", show_duration(iam.timeout).into());
    put("connect_timeout", show_duration(iam.connect).into());
    put("questions", number(iam.questions));
    put("admin", iam.admin.into());
    put("verifies_email", iam.verifies_email.into());
    put("max_lifetime", show_duration(iam.max_lifetime).into());
    put("confers", show_confers(&iam.confers));
    if let Some(ca) = &iam.ca {
        put("ca", ca.display().to_string().into());
    }
    Value::Table(shown)
}

fn show_confers(confers: &Confers) -> Value {
    match confers {
        Confers::Nothing => Value::Array(Vec::new()),
        Confers::Any => "any".into(),
        Confers::List(roles) => texts(roles),
        Confers::Map(map) => {
            Value::Table(map.iter().map(|(word, role)| (word.clone(), Value::from(role.as_str()))).collect())
        }
    }
}

fn show_tls(tls: &TlsFiles) -> Value {
    let path = |path: &Path| path.display().to_string();
    let certificates =
        tls.certificates.iter().map(|files| table! { "cert": path(&files.cert), "key": path(&files.key) });
    let mut shown = Table::from_iter([("certificates".to_owned(), Value::Array(certificates.collect()))]);
    if let Some(authorities) = &tls.client_ca {
        let word = if tls.client_auth == ClientAuth::Required { "required" } else { "optional" };
        shown.insert("client_ca".into(), path(authorities).into());
        shown.insert("client_auth".into(), word.into());
    }
    Value::Table(shown)
}

fn show_upstream(upstream: &UpstreamSettings) -> Value {
    let UpstreamSettings { endpoints, connect, first_byte, idle, tls, health, ejection, limits } = upstream;
    let mut shown = Table::new();
    let mut put = |key: &str, value: Value| {
        shown.insert(key.to_owned(), value);
    };
    put("endpoints", texts(endpoints));
    put(
        "timeouts",
        table! {
            "connect": show_duration(*connect), "first_byte": show_duration(*first_byte), "idle": show_duration(*idle),
        },
    );
    if let Some(UpstreamTls { ca, identity, server_name }) = tls {
        let file = |key: &str, path: &Path| (key.to_owned(), Value::from(path.display().to_string()));
        let mut tls = Table::new();
        tls.extend(ca.as_deref().map(|ca| file("ca", ca)));
        tls.extend(identity.iter().flat_map(|(cert, key)| [file("cert", cert), file("key", key)]));
        tls.extend(server_name.clone().map(|name| ("server_name".to_owned(), Value::from(name))));
        put("tls", Value::Table(tls));
    }
    if let Some(health) = health {
        put(
            "health",
            table! {
                "path": health.path.as_str(),
                "interval": show_duration(health.interval),
                "timeout": show_duration(health.timeout),
                "healthy": i64::from(health.healthy),
                "unhealthy": i64::from(health.unhealthy),
            },
        );
    }
    put(
        "ejection",
        table! {
            "failures": i64::from(ejection.failures),
            "server_errors": ejection.server_errors,
            "base": show_duration(ejection.base),
            "max": show_duration(ejection.max),
            "slow_start": show_duration(ejection.slow_start),
        },
    );
    put(
        "limits",
        table! {
            "requests": number(limits.requests),
            "waiting": number(limits.waiting),
            "wait": show_duration(limits.wait),
        },
    );
    Value::Table(shown)
}

fn show_issuer(issuer: &IssuerSettings) -> Value {
    let claims = &issuer.claims;
    let mut shown = Table::new();
    let mut put = |key: &str, value: Value| {
        shown.insert(key.to_owned(), value);
    };
    put("name", issuer.name.as_str().into());
    if let Some(iss) = &issuer.issuer {
        put("issuer", iss.as_str().into());
    }
    if !issuer.audience.is_empty() {
        put("audience", texts(&issuer.audience));
    }
    let keys = match &issuer.keys {
        KeySource::Local => "local".to_owned(),
        KeySource::Secret(_) => "secret".to_owned(),
        KeySource::JwksFile(path) => format!("jwks+file://{}", path.display()),
        KeySource::JwksUrl(jwks) => format!("jwks+{}", jwks.url),
    };
    put("keys", keys.into());
    if let KeySource::JwksUrl(jwks) = &issuer.keys {
        let mut table = Table::from_iter(
            [
                ("refresh", show_duration(jwks.refresh)),
                ("max_age", show_duration(jwks.max_age)),
                ("cool_down", show_duration(jwks.cool_down)),
                ("timeout", show_duration(jwks.timeout)),
                ("max_bytes", show_size(jwks.max_bytes)),
            ]
            .map(|(key, value)| (key.to_owned(), Value::from(value))),
        );
        table.extend(jwks.ca.as_deref().map(|ca| ("ca".to_owned(), Value::from(ca.display().to_string()))));
        put("jwks", Value::Table(table));
    }
    put("algorithms", texts(issuer.algorithms.iter().map(|algorithm| format!("{algorithm:?}"))));
    put("max_lifetime", show_duration(issuer.max_lifetime).into());
    if issuer.keys != KeySource::Local {
        if issuer.same_subjects {
            put("same_subjects", true.into());
        } else {
            put("subject_prefix", issuer.subject_prefix.as_str().into());
        }
        put("roles_from", if issuer.roles_from == RolesFrom::Token { "token" } else { "doorward" }.into());
        put("admin", issuer.admin.into());
        put("confers", show_confers(&issuer.confers));
    }
    put(
        "claims",
        table! {
            "subject": claims.subject.as_str(), "roles": claims.roles.as_str(), "memberships": claims.memberships.as_str(),
            "session": claims.session.as_str(), "name": claims.name.as_str(), "email": claims.email.as_str(),
        },
    );
    Value::Table(shown)
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Array(items.into_iter().map(|item| Value::from(item.to_string())).collect())
}

fn number(value: usize) -> Value {
    Value::from(i64::try_from(value).unwrap_or(i64::MAX))
}
