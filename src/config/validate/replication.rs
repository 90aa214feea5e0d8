//! `[revocation]`, `[redis]`, `[publication]`: what is shared between processes, and how.

use std::time::Duration;

use super::{path, private};
use crate::config::quantity;
use crate::config::settings::{IssuerSettings, PublicationSettings, RevocationMode, RevocationSettings, Settings};
use crate::config::walk::Section;
use crate::delegate::KeyTemplate;
use crate::replication::settings::FORMS;
use crate::replication::{RedisSettings, RedisTls, RedisUrl};
use crate::revocation::{OnStale, PinnedKeys};
use crate::secret::Secret;
use crate::token::Algorithm;

/// A heartbeat comes every second and counts from when it was written, so that what was heard is up to a second old, and the way it
/// came, with nothing wrong at all. Under a bound of less than one heartbeat missed, open exchanges would be ended for nothing (T20).
const LEAST_STALENESS: Duration = Duration::from_secs(2);
/// An answer that takes longer than this is none: the bound of what a stopped Redis can hold up.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(1);
/// A little more than the longest `max_lifetime`.
const LONGEST_KEEPING: Duration = Duration::from_hours(367 * 24);

/// Reads `[revocation]`.
pub(super) fn revocation(section: &Section<'_>) -> RevocationSettings {
    let mode = section
        .word("mode", &[("replicated", RevocationMode::Replicated), ("lookup", RevocationMode::Lookup)])
        .unwrap_or_default();
    let max_staleness = section.duration("max_staleness").unwrap_or(Duration::from_secs(30));
    if max_staleness < LEAST_STALENESS {
        section.mistake(
            "max_staleness",
            "is shorter than 2 s, and a heartbeat comes every second, so that every hiccup would be an outage",
            "Write at least \"2s\"; \"30s\" is the default.",
        );
    }
    RevocationSettings {
        file: path(section, "file"),
        folder: path(section, "folder").unwrap_or_else(|| "data/revocations".into()),
        mode,
        lookup_key: lookup_key(section),
        lookup_age: section.duration("lookup_age").unwrap_or(Duration::from_secs(1)),
        lookup_timeout: section.duration("lookup_timeout").unwrap_or(Duration::from_millis(500)),
        max_staleness,
        on_stale: section.word("on_stale", &[("deny", OnStale::Deny), ("allow", OnStale::Allow)]).unwrap_or_default(),
        keep: section.parsed("keep", "a duration of at most 367 days such as \"25h\"", |text| {
            quantity::duration(text).filter(|time| !time.is_zero() && *time <= LONGEST_KEEPING)
        }),
        last_good: path(section, "last_good").unwrap_or_else(|| "data/replica".into()),
    }
}

fn lookup_key(section: &Section<'_>) -> KeyTemplate {
    let shipped = KeyTemplate::default();
    let Some(text) = section.text("lookup_key") else { return shipped };
    KeyTemplate::parse(text).unwrap_or_else(|wrong| {
        let forms = "Write a key with {jti}, {token}, {token_sha256}, {sub} or {sid}, such as \"blacklist:{jti}\".";
        section.mistake("lookup_key", wrong, forms);
        shipped
    })
}

/// Reads `[redis]`; `None` without a URL.
pub(super) fn redis(section: &Section<'_>) -> Option<RedisSettings> {
    let prefix = section.parsed("prefix", "1 to 64 letters, digits, `-`, `_`, `.` and `:`", |text| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(good)).then(|| text.to_owned())
    });
    let timeouts = section.section("timeouts");
    let timeout = |key: &str, default: u64| {
        let timeout = timeouts.duration(key).unwrap_or(Duration::from_secs(default));
        if timeout > LONGEST_TIMEOUT {
            timeouts.mistake(key, "is longer than a minute", "Write a few seconds, such as \"2s\".");
        }
        timeout
    };
    let (connect, response) = (timeout("connect", 1), timeout("response", 2));
    let files = section.section("tls");
    let (ca, cert, key) = (path(&files, "ca"), path(&files, "cert"), path(&files, "key"));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, _) => {
            let (there, missing) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            files.mistake(missing, format!("is missing beside `{there}`"), "Name both PEM files, or neither.");
            None
        }
    };
    let sentinel_user = section.text("sentinel_user").map(str::to_owned);
    let sentinel = sentinel_password(section).map(|password| (sentinel_user.clone(), password));
    if sentinel_user.is_some() && !section.has("sentinel_password") && !section.has("sentinel_password_file") {
        section.mistake("sentinel_user", "stands without a password", "Add `sentinel_password_file`.");
    }
    let url = match RedisUrl::parse(section.text("url").filter(|url| !url.is_empty())?) {
        Ok(url) => url,
        Err(message) => {
            section.mistake("url", message, FORMS);
            return None;
        }
    };
    if section.has("tls") && !url.tls {
        section.mistake("tls", "stands beside a URL that does not speak TLS", "Write rediss in place of redis.");
    }
    let tls = RedisTls { ca, identity };
    Some(RedisSettings {
        url,
        prefix: prefix.unwrap_or_else(|| "doorward".to_owned()),
        tls,
        sentinel,
        connect,
        response,
    })
}

fn sentinel_password(section: &Section<'_>) -> Option<Secret> {
    let (key, password) = private::secret(section, "sentinel_password", "sentinel_password_file")?;
    if std::str::from_utf8(password.expose()).is_err() {
        section.mistake(key, "is not UTF-8, and sentinels are told a text", "Choose a password of letters and digits.");
        return None;
    }
    Some(password)
}

/// Reads `[publication]`. Who names public keys and no key file follows, and does not publish.
pub(super) fn publication(section: &Section<'_>) -> PublicationSettings {
    let one = |text: &str| PinnedKeys::parse([text]).is_ok().then(|| text.to_owned());
    let public_keys =
        section.list("public_keys", "an Ed25519 public key (32 bytes in base64url)", one).unwrap_or_default();
    let named = path(section, "key_file");
    let key_file = named.or_else(|| public_keys.is_empty().then(|| "data/publication-key.jwks.json".into()));
    PublicationSettings { key_file, public_keys }
}

/// What holds between these sections.
pub(super) fn check(settings: &Settings, root: &Section<'_>) {
    let redis = root.section("redis");
    redis.ignore_rest();
    if settings.publication.key_file.is_none() && !redis.has("url") {
        let section = root.section("publication");
        section.ignore_rest();
        section.mistake(
            "public_keys",
            "makes this process a follower, and there is no Redis to follow",
            "Set `redis.url` (REDIS_URL), or name a `key_file`.",
        );
    }
    if settings.revocation.mode == RevocationMode::Lookup && !redis.has("url") {
        let section = root.section("revocation");
        section.ignore_rest();
        section.mistake("mode", "is \"lookup\", and there is no Redis to look in", "Set `redis.url` (REDIS_URL).");
    }
    let two_spellings = |issuer: &&IssuerSettings| issuer.algorithms.contains(&Algorithm::ES256);
    if settings.revocation.mode == RevocationMode::Lookup
        && settings.revocation.lookup_key.is_by_text()
        && let Some(issuer) = settings.auth.issuers.iter().find(two_spellings)
    {
        let section = root.section("revocation");
        section.ignore_rest();
        section.warn(
            "lookup_key",
            format!(
                "finds a token by its text, and a token that issuer {:?} signs by ES256 has two: whoever holds one makes the other \
                 (the signature's s becomes n - s), which the blacklist does not know. Use {{jti}}, or remove ES256 from the \
                 issuer's `algorithms`",
                issuer.name
            ),
        );
    }
    let publication = settings.publication.key_file.as_ref();
    if publication.is_some_and(|key_file| private::is_same_file(key_file, &settings.auth.local_keys)) {
        let section = root.section("publication");
        section.ignore_rest();
        section.mistake(
            "key_file",
            "is the file of `auth.local_keys`, which sign access tokens",
            "Give the publication a key file of its own.",
        );
    }
}
