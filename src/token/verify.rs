//! Verification (RFC 7515, RFC 7519, RFC 8725; SPEC 5.4). Pure: `now` is given, keys are given.
//!
//! Nothing of the payload is acted upon before the signature is good, save `iss`, which only picks whose keys and
//! rules apply. The order of checks decides the reason: form, issuer, key, algorithm, signature, kind, time, audience.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::claims::{Claims, RegisteredClaims};
use super::compact::{Compact, Header, Kind};
use super::issuer::{Algorithm, Issuer};
use super::json::parse_object;
use super::jwk::{Key, KeySet};
use crate::clock::Timestamp;
use crate::reason::Reason;

/// Longest accepted token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRejection {
    /// One of the 401 reasons, or `auth_unavailable` where the issuer's keys are not there.
    pub reason: Reason,
    /// What was found, without any part of the token.
    pub detail: Cow<'static, str>,
}

impl TokenRejection {
    pub(super) const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail: Cow::Borrowed(detail) }
    }

    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self::new(Reason::MalformedToken, detail)
    }

    pub(super) const fn malformed_owned(detail: String) -> Self {
        Self { reason: Reason::MalformedToken, detail: Cow::Owned(detail) }
    }
}

/// All accepted issuers, immutable; a change of keys or settings makes a new one.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
}

impl Verifier {
    /// Accepts tokens of these issuers. The configuration sees to it that their names and `iss` differ; of two
    /// with the same `iss` the first would be asked alone.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self { issuers }
    }

    /// The issuers.
    #[must_use]
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Verifies a compact JWS and checks its claims.
    ///
    /// # Errors
    /// [`TokenRejection`] with the reason.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenRejection> {
        self.verify_by(token, now).map(|(claims, _)| claims)
    }

    /// As [`Self::verify`]; says too which key it was.
    ///
    /// # Errors
    /// [`TokenRejection`] with the reason.
    pub(super) fn verify_by(&self, token: &str, now: Timestamp) -> Result<(Claims, Arc<Key>), TokenRejection> {
        let compact = Compact::parse(token)?;
        let payload = parse_object(&compact.payload)
            .map_err(|why| TokenRejection::malformed_owned(format!("the payload {why}")))?;
        let registered = RegisteredClaims::read(&payload)?;
        // Whoever routes by the header and whoever reads the claims must not see two tokens.
        if compact.repeated.iter().any(|(name, value)| payload.get(*name) != Some(value)) {
            return Err(TokenRejection::malformed("the header repeats a claim with another value"));
        }
        let issuer = self.issuer_of(registered.issuer)?;
        if !issuer.keys.is_good(now) {
            return Err(KEYS_MISSING);
        }
        let key = check_signature(&compact, &issuer.keys.set(), &issuer.algorithms, |key| key.is_good(now))
            .inspect_err(|rejection| {
                if let (Reason::UnknownKey, Some(kid)) = (rejection.reason, &compact.header.key_id) {
                    issuer.keys.unknown(kid);
                }
            })?;
        check_kind(compact.header.kind, issuer)?;
        let times = check_times(&registered, issuer, now)?;
        check_audience(&registered.audience, issuer)?;
        let claims = Claims::read(issuer, &key, &payload, &registered, times)?;
        self.check_subject(&claims.subject, issuer)?;
        Ok((claims, key))
    }

    /// T7: a subject is (issuer, sub). An issuer without a prefix says who its subjects are, and must not call one of them by a name
    /// that another issuer's subject has. What doorward's own keys have signed was meant so.
    fn check_subject(&self, subject: &str, issuer: &Issuer) -> Result<(), TokenRejection> {
        if issuer.own || !issuer.subject_prefix.is_empty() {
            return Ok(());
        }
        let prefixes = self.issuers.iter().map(|other| other.subject_prefix.as_str());
        if prefixes.filter(|prefix| !prefix.is_empty()).any(|prefix| subject.starts_with(prefix)) {
            return Err(TokenRejection::malformed("the token's subject begins with the prefix of another issuer"));
        }
        Ok(())
    }

    /// Whose keys would have to verify this token, by what it says itself. **Nothing is verified**: for whoever has those keys still to
    /// fetch.
    #[must_use]
    pub fn claimed_issuer(&self, token: &str) -> Option<&Issuer> {
        let compact = Compact::parse(token).ok()?;
        let payload = parse_object(&compact.payload).ok()?;
        let registered = RegisteredClaims::read(&payload).ok()?;
        self.issuer_of(registered.issuer).ok()
    }

    /// An issuer without a configured `iss` takes tokens without one; where it is the only issuer it does not look
    /// at `iss` at all, like the services whose older tokens it is there for.
    pub(super) fn issuer_of(&self, name: Option<&str>) -> Result<&Issuer, TokenRejection> {
        let found = match (name, self.issuers.as_slice()) {
            (_, [only]) if only.issuer.is_none() => Some(only),
            (None, issuers) => issuers.iter().find(|issuer| issuer.issuer.is_none()),
            (Some(name), issuers) => issuers.iter().find(|issuer| issuer.issuer.as_deref() == Some(name)),
        };
        found.ok_or(TokenRejection::new(
            Reason::WrongIssuer,
            match name {
                _ if self.issuers.is_empty() => "no issuer's tokens are accepted by their signature here",
                Some(_) => "no accepted issuer has the token's `iss`",
                None => "the token has no `iss`",
            },
        ))
    }
}

/// `expires_at`, `not_before` and `issued_at` as they apply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) not_before: Option<Timestamp>,
}

/// T19: a signature made for another purpose is no bearer token.
fn check_kind(kind: Kind, issuer: &Issuer) -> Result<(), TokenRejection> {
    match kind {
        Kind::Other => Err(TokenRejection::malformed("the token's `typ` says that it is no access token")),
        Kind::Jwt if issuer.own => Err(TokenRejection::malformed("the token's `typ` is not at+jwt")),
        Kind::Jwt | Kind::AccessToken => Ok(()),
    }
}

/// Finds the key by what the issuer has, of those that `counts`, compares the algorithm with the key's, and verifies.
pub(super) fn check_signature(
    compact: &Compact<'_>,
    keys: &KeySet,
    allowed: &[Algorithm],
    counts: impl Fn(&Key) -> bool,
) -> Result<Arc<Key>, TokenRejection> {
    let key = select_key(&compact.header, keys, allowed, counts)?;
    if compact.header.algorithm != key.algorithm.name() || !allowed.contains(&key.algorithm) {
        return Err(TokenRejection::new(Reason::AlgNotAllowed, "the token's `alg` is not the algorithm of its key"));
    }
    if !key.verify(compact.signing_input.as_bytes(), compact.signature) {
        return Err(TokenRejection::new(Reason::BadSignature, "the signature does not verify under the token's key"));
    }
    Ok(Arc::clone(key))
}

fn select_key<'k>(
    header: &Header,
    keys: &'k KeySet,
    allowed: &[Algorithm],
    counts: impl Fn(&Key) -> bool,
) -> Result<&'k Arc<Key>, TokenRejection> {
    let mut good = keys.keys.iter().filter(|key| counts(key));
    if let Some(id) = &header.key_id {
        return good
            .find(|key| key.id.as_deref() == Some(id))
            .ok_or(TokenRejection::new(Reason::UnknownKey, "the issuer has no key with the token's `kid`"));
    }
    let algorithm = Algorithm::from_name(&header.algorithm).filter(|algorithm| allowed.contains(algorithm));
    let algorithm =
        algorithm.ok_or(TokenRejection::new(Reason::AlgNotAllowed, "the issuer does not allow the token's `alg`"))?;
    let mut fitting = good.filter(|key| key.algorithm == algorithm);
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(TokenRejection::new(
            Reason::UnknownKey,
            "the token has no `kid`, and its issuer does not have exactly one key of its algorithm",
        )),
    }
}

fn check_times(claims: &RegisteredClaims<'_>, issuer: &Issuer, now: Timestamp) -> Result<Times, TokenRejection> {
    let leeway = whole_seconds(issuer.leeway);
    // T13: the leeway does not extend the `exp` of doorward's own tokens.
    let expires_at = claims.expires_at.plus(if issuer.own { 0 } else { leeway });
    if now >= expires_at {
        return Err(EXPIRED);
    }
    let not_before = claims.not_before.map(|time| time.plus(-leeway));
    if not_before.is_some_and(|time| now < time) {
        return Err(NOT_YET_VALID);
    }
    // T5: revocations are kept for as long as a token can live, so a token may not live longer.
    let max_lifetime = whole_seconds(issuer.max_lifetime);
    let issued_at = match claims.issued_at {
        Some(time) if time > now.plus(leeway) => {
            return Err(ISSUED_IN_THE_FUTURE);
        }
        Some(time) if claims.expires_at > time.plus(max_lifetime) => return Err(TOO_LONG_LIVED),
        Some(time) => time,
        None => {
            let earliest = claims.expires_at.plus(-max_lifetime);
            if earliest > now.plus(leeway) {
                return Err(TOO_LONG_LIVED);
            }
            earliest
        }
    };
    Ok(Times { issued_at, expires_at, not_before })
}

/// No token can be judged without its issuer's keys, and none is let through.
const KEYS_MISSING: TokenRejection =
    TokenRejection::new(Reason::AuthUnavailable, "the keys of the token's issuer are not there, or too old");
/// Said again at every hit of the cache.
pub(super) const EXPIRED: TokenRejection = TokenRejection::new(Reason::Expired, "the token has expired (`exp`)");
/// Said again at every hit of the cache.
pub(super) const NOT_YET_VALID: TokenRejection =
    TokenRejection::new(Reason::NotYetValid, "the token is not valid yet (`nbf`)");
/// No floor would be above it.
pub(super) const ISSUED_IN_THE_FUTURE: TokenRejection =
    TokenRejection::new(Reason::NotYetValid, "the token was issued in the future (`iat`)");
const TOO_LONG_LIVED: TokenRejection =
    TokenRejection::malformed("the token lives longer than the issuer's `max_lifetime` (`exp` less `iat`)");

fn check_audience(audience: &[&str], issuer: &Issuer) -> Result<(), TokenRejection> {
    let meant = issuer.audience.is_empty() || issuer.audience.iter().any(|ours| audience.contains(&ours.as_str()));
    meant
        .then_some(())
        .ok_or(TokenRejection::new(Reason::WrongAudience, "the token's `aud` names none of the accepted audiences"))
}

/// Settings are whole seconds long and far from the limits of an `i64`.
pub(super) fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "corpus_tests.rs"]
mod corpus_tests;
