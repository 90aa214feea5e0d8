//! Making tokens: for `doorward token mint`, the demo and tests; and showing what one says.
//!
//! What is made here is what `verify` accepts from doorward's own keys: `typ: at+jwt` (RFC 9068), a `kid`, and the
//! claims of SPEC 5.4.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::issuer::Issuer;
use super::json::{decode_base64url, parse_object};
use super::jwk::Key;
use super::verify::{MAX_TOKEN_BYTES, TokenRejection, whole_seconds};
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey};

/// What a new token shall say.
#[derive(Debug, Clone, Default)]
pub struct MintRequest<'r> {
    /// `sub`, without the issuer's prefix.
    pub subject: &'r str,
    /// Roles, written as an array.
    pub roles: &'r [RoleKey],
    /// Memberships.
    pub memberships: &'r [Membership],
    /// `sid`.
    pub session: Option<&'r str>,
    /// `uv`.
    pub uv: Option<u64>,
    /// Display name.
    pub name: Option<&'r str>,
    /// E-mail address; verified, or it does not belong in a token (T42).
    pub email: Option<&'r str>,
    /// `exp − iat`, at most the issuer's `max_lifetime`.
    pub ttl: Duration,
    /// `kid` of the key to sign with; without it the issuer's that signs now.
    pub key_id: Option<&'r str>,
}

/// A token that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The issuer's keys verify only.
    #[error("issuer {issuer} has no private key here{}; only who holds one can make its tokens", named(.key_id.as_deref()))]
    NoSigningKey {
        /// Name of the issuer.
        issuer: String,
        /// The key that was asked for.
        key_id: Option<String>,
    },
    /// There are private keys, and none of them may sign now.
    #[error(
        "none of the private keys of issuer {issuer} may sign now: they are revoked, or not yet in use; doorward keys rotate --now makes one that does"
    )]
    NoneSigns {
        /// Name of the issuer.
        issuer: String,
    },
    /// The token would be refused for its lifetime (T5).
    #[error("a lifetime of {asked} s is not between 1 s and the issuer's max_lifetime of {longest} s")]
    Lifetime {
        /// Seconds asked for.
        asked: i64,
        /// The issuer's `max_lifetime` in seconds.
        longest: i64,
    },
    /// Claims that the issuer's own verification would refuse.
    #[error("the token would not be accepted: {0}")]
    Unacceptable(String),
    /// The cryptographic library failed.
    #[error("signing failed: {0}")]
    Signing(String),
}

fn named(key_id: Option<&str>) -> String {
    key_id.map(|id| format!(" with kid {id:?}")).unwrap_or_default()
}

/// Makes a token of this issuer, issued now.
///
/// # Errors
/// [`MintError`] without a private key, for a lifetime that the issuer would not accept, and for a subject outside
/// its grammar (T22).
pub fn mint(issuer: &Issuer, request: &MintRequest<'_>, now: Timestamp) -> Result<String, MintError> {
    let set = issuer.keys.set();
    let no_key =
        || MintError::NoSigningKey { issuer: issuer.name.to_string(), key_id: request.key_id.map(str::to_owned) };
    let named = |id: &str| set.keys.iter().find(|key| key.id.as_deref() == Some(id)).map(|key| &**key);
    let key: &Key = match request.key_id {
        Some(id) => named(id).filter(|key| key.signs_at(now)),
        None => set.signing_key_at(now),
    }
    .ok_or_else(|| {
        let held = request.key_id.is_none() && set.signing_key().is_some();
        if held { MintError::NoneSigns { issuer: issuer.name.to_string() } } else { no_key() }
    })?;
    let signing = key.signing().ok_or_else(no_key)?;
    let (asked, longest) = (whole_seconds(request.ttl), whole_seconds(issuer.max_lifetime));
    if !(1..=longest).contains(&asked) {
        return Err(MintError::Lifetime { asked, longest });
    }
    let header = jsonwebtoken::Header {
        typ: Some("at+jwt".to_owned()),
        alg: key.algorithm.into(),
        kid: key.id.as_deref().map(str::to_owned),
        ..jsonwebtoken::Header::default()
    };
    let payload = payload(issuer, request, now, asked);
    let token =
        jsonwebtoken::encode(&header, &payload, &signing.0).map_err(|error| MintError::Signing(error.to_string()))?;
    // The one proof that a token is good is that the verifier takes it.
    let alone = super::Verifier::new(vec![issuer.clone()]);
    match alone.verify(&token, now) {
        Ok(_) => Ok(token),
        Err(TokenRejection { detail, .. }) => Err(MintError::Unacceptable(detail.into_owned())),
    }
}

fn payload(issuer: &Issuer, request: &MintRequest<'_>, now: Timestamp, ttl: i64) -> Map<String, Value> {
    let mut payload = Map::new();
    let mut set = |path: &str, value: Option<Value>| {
        if let Some(value) = value {
            insert_at(&mut payload, path, value);
        }
    };
    let paths = &issuer.claims;
    set("iss", issuer.issuer.as_deref().map(Value::from));
    set(
        "aud",
        match issuer.audience.as_slice() {
            [] => None,
            [one] => Some(one.as_str().into()),
            many => Some(json!(many)),
        },
    );
    set("iat", Some(now.0.into()));
    set("nbf", Some(now.0.into()));
    set("exp", Some(now.plus(ttl).0.into()));
    set("jti", Some(uuid::Uuid::now_v7().to_string().into()));
    set(&paths.subject, Some(request.subject.into()));
    set(&paths.roles, Some(request.roles.iter().map(RoleKey::as_str).collect()));
    let memberships = request.memberships.iter().map(|held| (held.service.as_str(), held.tier.as_str()));
    set(&paths.memberships, (!request.memberships.is_empty()).then(|| memberships.collect()));
    set(&paths.session, request.session.map(Value::from));
    set("uv", request.uv.map(Value::from));
    set(&paths.name, request.name.map(Value::from));
    set(&paths.email, request.email.map(Value::from));
    payload
}

/// Puts a value where a dotted path will find it.
fn insert_at(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        // A path with a scheme names a member as a whole.
        Some((first, rest)) if !path.contains("://") => {
            let inner = object.entry(first).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                insert_at(inner, rest, value);
            } else {
                object.insert(path.to_owned(), value);
            }
        }
        _ => {
            object.insert(path.to_owned(), value);
        }
    }
}

/// What a token says, **nothing of it verified**: `{header, claims, times}`, where `times` repeats `exp`, `nbf` and
/// `iat` for people, in UTC and relative to `now`.
///
/// # Errors
/// [`TokenRejection`] where header or claims cannot be read at all.
pub fn inspect(token: &str, now: Timestamp) -> Result<Value, TokenRejection> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenRejection::malformed("the token is longer than 16 KiB"));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts.as_slice() else {
        return Err(TokenRejection::malformed("the token does not have three parts"));
    };
    let read = |part: &str, name: &str| {
        let bytes = decode_base64url(part)
            .ok_or_else(|| TokenRejection::malformed_owned(format!("the {name} is not canonical base64url")))?;
        parse_object(&bytes).map_err(|why| TokenRejection::malformed_owned(format!("the {name} {why}")))
    };
    let (header, claims) = (read(header, "header")?, read(claims, "payload")?);
    let times: Map<String, Value> = ["iat", "nbf", "exp"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), human_time(claims.get(name)?.as_f64()? as i64, now)?.into())))
        .collect();
    Ok(json!({ "header": header, "claims": claims, "times": times }))
}

/// `2026-11-23T21:30:00Z (in 14m 5s)`.
fn human_time(seconds: i64, now: Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    let distance = seconds.abs_diff(now.0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(size, _)| distance >= *size).unwrap_or(3);
    let mut rest = distance;
    let words: Vec<String> = units[first..]
        .iter()
        .take(2)
        .map(|(size, unit)| {
            let count = rest / size;
            rest %= size;
            format!("{count}{unit}")
        })
        .collect();
    let words = words.join(" ");
    Some(if seconds > now.0 { format!("{time} (in {words})") } else { format!("{time} ({words} ago)") })
}

#[cfg(test)]
#[path = "mint_tests.rs"]
mod tests;
