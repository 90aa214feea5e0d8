//! `[auth]`: whose tokens are accepted, and on what terms (THREATS T5 to T7).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use super::{KIB, MIB, path, private};
use crate::config::quantity;
use crate::config::settings::{AuthSettings, IamSettings, IssuerSettings, JwksUrl, KeySource};
use crate::config::walk::Section;
use crate::rbac::RoleKey;
use crate::secret::Secret;
use crate::token::jwk::Trust;
use crate::token::{Algorithm, ClaimPaths, Confers, KeySet, RolesFrom};

/// RFC 7518 section 3.2: a key of the size of the hash output or larger.
const LEAST_SECRET: usize = 32;
/// Longest lifetime of a token that may be configured; revocations are kept as long (T5).
const LONGEST_LIFETIME: Duration = Duration::from_hours(366 * 24);
const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// Reads `[auth]` and its issuers.
pub(super) fn auth(section: &Section<'_>) -> AuthSettings {
    let iam = iam(section);
    let secret = secret(section);
    let sections = section.sections("issuers");
    let only = sections.len() == 1;
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    for (place, inner) in sections.iter().enumerate() {
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
        check_prefix(inner, &issuer, &issuers);
        let with_same_keys = |other: &&Section<'_>| other.text("keys") == inner.text("keys");
        if let Some(word @ ("local" | "secret")) = inner.text("keys")
            && sections[..place].iter().any(|other| with_same_keys(&other))
        {
            inner.mistake(
                "keys",
                format!("is {word:?} for two issuers; issuers never share keys"),
                "Keep one of them.",
            );
        }
        warn_of_shared_keys(inner, &issuer, &issuers);
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
        iam,
    }
}

/// Some providers publish one set for all their tenants, so it is no mistake (T7).
fn warn_of_shared_keys(section: &Section<'_>, issuer: &IssuerSettings, others: &[IssuerSettings]) {
    let shares = |other: &&IssuerSettings| match (&issuer.keys, &other.keys) {
        (KeySource::JwksFile(one), KeySource::JwksFile(other)) => private::is_same_file(one, other),
        (KeySource::JwksUrl(one), KeySource::JwksUrl(other)) => one.url == other.url,
        _ => false,
    };
    if let Some(other) = others.iter().find(shares) {
        section.warn(
            "keys",
            format!(
                "are those of issuer {:?} too: who signs for the one can write the other's `iss`, and has its rights. Name a set that is \
                 this issuer's alone, if it has one",
                other.name
            ),
        );
    }
}

/// T7: a subject is (issuer, sub). With `kc` and `kc:` the `:a` of the one would be the `a` of the other.
fn check_prefix(section: &Section<'_>, issuer: &IssuerSettings, others: &[IssuerSettings]) {
    let prefix = issuer.subject_prefix.as_str();
    let overlaps = |other: &&IssuerSettings| {
        let other = other.subject_prefix.as_str();
        !other.is_empty() && (prefix.starts_with(other) || other.starts_with(prefix))
    };
    let Some(other) = others.iter().find(overlaps).filter(|_| !prefix.is_empty()) else { return };
    section.mistake(
        "subject_prefix",
        format!(
            "{prefix:?} of issuer {:?} and {:?} of issuer {:?} begin alike, so that a subject of the one could be taken for one of the \
             other",
            issuer.name, other.subject_prefix, other.name
        ),
        "Choose prefixes of which none begins with the other, for example \"kc:\" and \"ad:\".",
    );
}

/// The user service. Its settings are checked in either mode, and used in the mode `iam_service`.
fn iam(section: &Section<'_>) -> Option<IamSettings> {
    const FORM: &str = "an http:// or https:// URL without user, query and fragment";
    let asked = section.word("mode", &[("local", false), ("iam_service", true)]).unwrap_or(false);
    let url = section.parsed("iam_service_url", FORM, |text| {
        let uri = text.parse::<http::Uri>().ok()?;
        let plain = uri.query().is_none() && !text.contains(['#', '@', '?']);
        let good = matches!(uri.scheme_str(), Some("http" | "https")) && plain && uri.host().is_some();
        good.then(|| text.trim_end_matches('/').to_owned())
    });
    let url = url.unwrap_or_else(|| "http://127.0.0.1:8001".to_owned());
    let loopback = |uri: &http::Uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    if asked && url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && !loopback(&uri)) {
        section.warn(
            "iam_service_url",
            "is plain HTTP to another machine: tokens and answers can be read and changed on the way",
        );
    }
    let inner = section.section("iam_service");
    let within = |key: &str, default: Duration, most: Duration| {
        let found = inner.duration(key).unwrap_or(default);
        if found > most {
            let most = quantity::show_duration(most);
            inner.mistake(key, format!("is longer than {most}"), format!("Write {most} or less."));
        }
        found
    };
    let settings = IamSettings {
        url,
        cache: within("cache", Duration::from_secs(5), Duration::from_mins(5)),
        timeout: within("timeout", Duration::from_secs(2), Duration::from_mins(1)),
        connect: within("connect_timeout", Duration::from_secs(1), Duration::from_mins(1)),
        ca: path(&inner, "ca"),
        questions: inner.number("questions", 1, 10_000).unwrap_or(64),
        confers: if inner.has("confers") { confers(&inner) } else { Confers::Any },
        admin: inner.boolean("admin").unwrap_or(false),
        verifies_email: inner.boolean("verifies_email").unwrap_or(false),
        max_lifetime: within("max_lifetime", Duration::from_hours(10 * 24), LONGEST_LIFETIME),
    };
    asked.then_some(settings)
}

fn leeway(section: &Section<'_>) -> Duration {
    let leeway = section.parsed("leeway", "a duration of at most 5 minutes such as \"30s\" (or \"0s\")", |text| {
        quantity::duration(text).filter(|leeway| *leeway <= Duration::from_mins(5))
    });
    leeway.unwrap_or(Duration::from_secs(30))
}

/// The shared secret.
fn secret(section: &Section<'_>) -> Option<Secret> {
    let (key, secret) = private::secret(section, "secret", "secret_file")?;
    let length = secret.expose().len();
    if length < LEAST_SECRET {
        section.mistake(
            key,
            format!("is a weak secret: {length} bytes, and HS256 needs {LEAST_SECRET} (RFC 7518 section 3.2)"),
            "Make one with `openssl rand -base64 48`.",
        );
        return None;
    }
    Some(secret)
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
        if same_subjects != subject_prefix.is_empty() {
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
        if roles_from == RolesFrom::Doorward && section.has("confers") {
            section.warn(
                "confers",
                "is not used: with `roles_from = \"doorward\"` the roles in this issuer's tokens count for nothing",
            );
        } else if roles_from == RolesFrom::Token && !section.has("confers") {
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
    const FORMS: &str = "Write \"local\", \"secret\", \"jwks+https://HOST/PATH\" or \"jwks+file://PATH\".";
    let table = section.section("jwks");
    let fetched = JwksUrl {
        url: String::new(),
        refresh: table.duration("refresh").unwrap_or(Duration::from_mins(5)),
        max_age: jwks_max_age(&table),
        cool_down: table.duration("cool_down").unwrap_or(Duration::from_secs(30)),
        timeout: table
            .parsed("timeout", "a duration of at most 1 minute such as \"5s\"", |text| {
                quantity::duration(text).filter(|time| !time.is_zero() && *time <= Duration::from_mins(1))
            })
            .unwrap_or(Duration::from_secs(5)),
        ca: path(&table, "ca"),
        max_bytes: table
            .parsed("max_bytes", "a size of at most 16 MiB such as \"256KiB\"", |text| {
                quantity::size(text).filter(|size| (1..=16 * MIB).contains(size))
            })
            .unwrap_or(256 * KIB),
    };
    if !section.has("keys") {
        section.mistake("keys", "is missing", FORMS);
        return None;
    }
    let text = section.text("keys")?;
    if let Some(url) = text.strip_prefix("jwks+").filter(|url| url.starts_with("http")) {
        return jwks_url(section, url, fetched, &table);
    }
    if section.has("jwks") {
        section.mistake("jwks", "is for keys that are fetched, and these are not", "Remove the table.");
    }
    if let Some(path) = text.strip_prefix("jwks+file://").filter(|path| !path.is_empty()) {
        let file = PathBuf::from(path);
        // What is wrong with the set is said where it is loaded.
        let json = std::fs::read(&file).unwrap_or_default();
        let set = KeySet::parse(&json, &ALGORITHMS.map(|(_, algorithm)| algorithm), Trust::File);
        if set.is_ok_and(|set| set.signing_key().is_some()) {
            private::warn_if_exposed(section, "keys", &file, "the secret or private keys");
        }
        return Some(KeySource::JwksFile(file));
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
        other => {
            section.mistake("keys", format!("{other:?} is no source of keys"), FORMS);
            None
        }
    }
}

/// T18: a leaked key that its issuer has withdrawn must not live on in an old set.
fn jwks_max_age(section: &Section<'_>) -> Duration {
    const LONGEST: Duration = Duration::from_hours(1);
    let max_age = section.parsed("max_age", "a duration from \"1s\" to \"1h\"", |text| {
        quantity::duration(text).filter(|time| (Duration::from_secs(1)..=LONGEST).contains(time))
    });
    max_age.unwrap_or(LONGEST)
}

/// What travels in plain text anybody on the way can replace; and a password in a URL ends in logs.
fn jwks_url(section: &Section<'_>, url: &str, fetched: JwksUrl, table: &Section<'_>) -> Option<KeySource> {
    let refuse = |what: &str, help: &str| {
        section.mistake("keys", what, help);
        None
    };
    let parsed = url.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let Some(uri) = parsed.filter(|_| !url.contains('#')) else {
        return refuse("names no URL", "Write \"jwks+https://HOST/PATH\".");
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("holds a user name; key sets are public", "Remove everything up to the `@`.");
    }
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if loopback => {}
        Some("http") => {
            return refuse(
                "is fetched in plain text over a network, where anybody on the way can replace the keys",
                "Write \"jwks+https://…\" (`jwks.ca` names the authority of a certificate of your own).",
            );
        }
        _ => return refuse("names no URL", "Write \"jwks+https://HOST/PATH\"."),
    }
    if fetched.refresh >= fetched.max_age {
        table.mistake(
            "refresh",
            "is not shorter than `max_age`, so that the keys would be too old before the next are asked for",
            "Write a shorter one; the defaults are \"5m\" and \"1h\".",
        );
    }
    Some(KeySource::JwksUrl(JwksUrl { url: url.to_owned(), ..fetched }))
}

fn algorithms(section: &Section<'_>, keys: Option<&KeySource>) -> Vec<Algorithm> {
    let listed = section.list("algorithms", "one of \"HS256\", \"RS256\", \"ES256\", \"EdDSA\"", |text| {
        ALGORITHMS.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm)
    });
    let default = match keys {
        Some(KeySource::Secret(_)) => vec![Algorithm::HS256],
        Some(KeySource::JwksFile(_) | KeySource::JwksUrl(_)) => {
            vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256]
        }
        Some(KeySource::Local) | None => vec![Algorithm::EdDSA],
    };
    let Some(listed) = listed else { return default };
    if listed.is_empty() {
        section.mistake("algorithms", "allows none, so every token would be refused", "Name at least one.");
    }
    let misfit = match keys {
        Some(KeySource::Secret(_)) if listed != [Algorithm::HS256] => Some("a shared secret verifies HS256 only"),
        Some(KeySource::JwksUrl(_)) if listed.contains(&Algorithm::HS256) => {
            Some("a secret that is published at a URL is none, so HS256 cannot be among them")
        }
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
    const FORMS: &str = "{ viewer = \"ROLE_USER\" }, [\"ROLE_USER\"] or \"any\"";
    let role = |key: &str, text: &str| match RoleKey::parse(text) {
        Ok(role) => Some(role),
        Err(error) => {
            section.mistake(key, error.to_string(), format!("Write {FORMS}."));
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
        Some(other) => {
            section.wrong_type(&section.key("confers"), other, FORMS);
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
