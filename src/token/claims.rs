//! What a verified token says, checked and made ready.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::issuer::{Confers, Issuer, RolesFrom};
use super::jwk::Key;
use super::verify::{Times, TokenRejection, whole_seconds};
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey, RoleTable, ServiceName, TierKey};

/// The claims of a verified token. Everything in it has passed its grammar (T22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Name of the issuer in the configuration.
    pub issuer: Arc<str>,
    /// Subject id, prefix included: 1 to 128 bytes of `!`–`~` without `,`, `=` and `%`.
    pub subject: Box<str>,
    /// Roles that the issuer may confer, sorted, without duplicates. Unknown ones may be among them.
    pub roles: Box<[RoleKey]>,
    /// Memberships, sorted by service; only from doorward's own keys.
    pub memberships: Box<[Membership]>,
    /// Whether the issuer may confer administrators' roles (`admin = true`, or doorward's own).
    pub admin: bool,
    /// Whether the roles are those that doorward has published, and none of the token's (`roles_from = "doorward"`, T6).
    pub roles_published: bool,
    /// Session; only from doorward's own keys.
    pub session: Option<Box<str>>,
    /// The session that a foreign token names. It is not believed (T7), and serves for one thing: to refuse the token once that session
    /// has ended ([`Self::revocable_session`]).
    pub foreign_session: Option<Box<str>>,
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// Change number as of which the claims are true; only from doorward's own keys.
    pub uv: Option<u64>,
    /// Display name.
    pub name: Option<Box<str>>,
    /// E-mail address, if verified (`email_verified` is not `false`) (T42).
    pub email: Option<Box<str>>,
    /// `iat`, or `exp − max_lifetime` where it is missing (T5).
    pub issued_at: Timestamp,
    /// `exp`, plus the leeway that applies: from then on it is refused.
    pub expires_at: Timestamp,
    /// `nbf` less the leeway that applies: before then it is refused.
    pub not_before: Option<Timestamp>,
    /// Seconds by which the issuer's clock may be ahead when `issued_at` is held against a floor (T14); 0 for
    /// doorward's own tokens.
    pub leeway: i64,
    /// `kid` of the key that verified it, if it has one.
    pub key_id: Option<Box<str>>,
}

/// The registered claims (RFC 7519 section 4.1) with their types checked, before anything is known of the issuer.
#[derive(Debug)]
pub(super) struct RegisteredClaims<'p> {
    pub(super) issuer: Option<&'p str>,
    pub(super) audience: Vec<&'p str>,
    pub(super) expires_at: Timestamp,
    pub(super) not_before: Option<Timestamp>,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) token_id: Option<&'p str>,
}

impl<'p> RegisteredClaims<'p> {
    pub(super) fn read(payload: &'p Map<String, Value>) -> Result<Self, TokenRejection> {
        text(payload, "sub")?;
        let audience = match payload.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(many)) => {
                let all: Option<Vec<&str>> = many.iter().map(Value::as_str).collect();
                all.ok_or(TokenRejection::malformed("the claim `aud` holds something that is not a string"))?
            }
            Some(_) => return Err(TokenRejection::malformed("the claim `aud` is neither a string nor an array")),
        };
        // A fraction of a second is cut off against the bearer: the token begins later, ends earlier, is older.
        Ok(Self {
            issuer: text(payload, "iss")?,
            audience,
            expires_at: numeric_date(payload, "exp", f64::floor)?
                .ok_or(TokenRejection::malformed("the token has no `exp`"))?,
            not_before: numeric_date(payload, "nbf", f64::ceil)?,
            issued_at: numeric_date(payload, "iat", f64::floor)?,
            token_id: text(payload, "jti")?,
        })
    }
}

impl Claims {
    /// Takes from a verified payload what its issuer may say.
    pub(super) fn read(
        issuer: &Issuer,
        key: &Key,
        payload: &Map<String, Value>,
        registered: &RegisteredClaims<'_>,
        times: Times,
    ) -> Result<Self, TokenRejection> {
        let paths = &issuer.claims;
        // T7: what only doorward itself knows is not believed of a foreign token. Its session can still be held against it.
        let own = |path: &str| issuer.own.then(|| at(payload, path)).flatten();
        let foreign = |path: &str| (!issuer.own).then(|| at(payload, path)?.as_str()).flatten();
        Ok(Self {
            issuer: Arc::clone(&issuer.name),
            subject: subject(issuer, payload)?,
            roles: roles(issuer, at(payload, &paths.roles)),
            memberships: own(&paths.memberships).map(memberships).transpose()?.unwrap_or_default(),
            admin: issuer.admin || issuer.own,
            roles_published: issuer.roles_from == RolesFrom::Doorward,
            session: own(&paths.session).map(session).transpose()?,
            // What no session can be called, none was ended as.
            foreign_session: foreign(&paths.session).filter(|text| is_identifier(text)).map(Box::from),
            token_id: registered.token_id.map(token_id).transpose()?,
            uv: own("uv").map(change_number).transpose()?,
            name: at(payload, &paths.name).and_then(shown_text),
            email: at(payload, &paths.email).filter(|_| email_is_verified(payload, &paths.email)).and_then(shown_text),
            issued_at: times.issued_at,
            expires_at: times.expires_at,
            not_before: times.not_before,
            leeway: if issuer.own { 0 } else { whole_seconds(issuer.leeway) },
            key_id: key.id.clone(),
        })
    }

    /// Those of `roles` that count for this token, whoever gave them: with an issuer without `admin = true` nobody is an
    /// administrator (T7), though doorward itself has published that its subject is one. Such an issuer's key is not trusted that far.
    pub fn conferred<'c>(&'c self, roles: &'c [RoleKey], table: &'c RoleTable) -> impl Iterator<Item = &'c RoleKey> {
        let counts = |key: &RoleKey| table.role(key.as_str()).is_none_or(|role| !table.is_administrator(role));
        roles.iter().filter(move |key| self.admin || counts(key))
    }

    /// The session with which the token ends, whoever signed it: what turns against its bearer alone needs no belief.
    #[must_use]
    pub fn revocable_session(&self) -> Option<&str> {
        self.session.as_deref().or(self.foreign_session.as_deref())
    }

    /// Roughly how many bytes it holds, for the cache's bound.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let texts = [&self.session, &self.foreign_session, &self.token_id, &self.name, &self.email, &self.key_id];
        self.subject.len()
            + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + self.roles.iter().map(|role| role.as_str().len() + 32).sum::<usize>()
            + self
                .memberships
                .iter()
                .map(|held| held.service.as_str().len() + held.tier.as_str().len() + 64)
                .sum::<usize>()
    }
}

/// T22: the subject becomes a header value, a log field and a key; `,`, `=` and `%` are separators there.
fn subject(issuer: &Issuer, payload: &Map<String, Value>) -> Result<Box<str>, TokenRejection> {
    let found = match at(payload, &issuer.claims.subject) {
        Some(Value::String(text)) => text.clone(),
        // Older tokens carry a row number at a path of their own (`user_id: 42`).
        Some(Value::Number(number)) if number.is_u64() => number.to_string(),
        Some(_) => return Err(TokenRejection::malformed("the token's subject is not a string")),
        None => return Err(TokenRejection::malformed("the token has no subject")),
    };
    if found.is_empty() {
        return Err(TokenRejection::malformed("the token's subject is empty"));
    }
    let subject = format!("{}{found}", issuer.subject_prefix);
    if !is_identifier(&subject) {
        return Err(TokenRejection::malformed(
            "the token's subject is longer than 128 bytes or holds a character that no subject may hold",
        ));
    }
    Ok(subject.into())
}

/// Whether a token can have this as its subject or session.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'=' | b'%');
    (1..=128).contains(&text.len()) && text.bytes().all(allowed)
}

/// T7 and T22: roles of a wrong form or that the issuer may not confer grant nothing and appear nowhere.
fn roles(issuer: &Issuer, claim: Option<&Value>) -> Box<[RoleKey]> {
    if issuer.roles_from == RolesFrom::Doorward {
        return Box::default();
    }
    conferred_roles(claim, if issuer.own { &Confers::Any } else { &issuer.confers })
}

/// The roles that a string or an array of strings names, as far as they may be conferred; sorted, without duplicates.
pub(super) fn conferred_roles(claim: Option<&Value>, confers: &Confers) -> Box<[RoleKey]> {
    let words: Vec<&str> = match claim {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let conferred = |word: &str| match confers {
        Confers::Nothing => None,
        Confers::Any => RoleKey::parse(word).ok(),
        Confers::List(list) => list.iter().find(|role| role.as_str() == word).cloned(),
        Confers::Map(map) => map.get(word).cloned(),
    };
    let mut roles: Vec<RoleKey> = words.into_iter().filter_map(conferred).collect();
    roles.sort_unstable();
    roles.dedup();
    roles.into()
}

fn memberships(claim: &Value) -> Result<Box<[Membership]>, TokenRejection> {
    let Value::Object(members) = claim else {
        return Err(TokenRejection::malformed("the claim of memberships is not an object"));
    };
    let mut held: Vec<Membership> = members
        .iter()
        .filter_map(|(service, tier)| {
            Some(Membership { service: ServiceName::parse(service).ok()?, tier: TierKey::parse(tier.as_str()?).ok()? })
        })
        .collect();
    held.sort_unstable_by(|a, b| a.service.cmp(&b.service));
    Ok(held.into())
}

/// The longest `jti` that is taken, in bytes: revocations keep no longer one.
pub const LONGEST_TOKEN_ID: usize = 1024;

/// Whether a token with this `jti` can be revoked by it.
#[must_use]
pub fn is_token_id(text: &str) -> bool {
    (1..=LONGEST_TOKEN_ID).contains(&text.len())
}

/// A token that names itself has to do so in a way that it can be revoked by. One without a `jti` never said that it could be.
pub(super) fn token_id(id: &str) -> Result<Box<str>, TokenRejection> {
    let id = Some(id).filter(|id| is_token_id(id)).map(Box::from);
    id.ok_or(TokenRejection::malformed(
        "the token's `jti` is empty or longer than 1,024 bytes, so that nobody could revoke it",
    ))
}

/// A session that cannot be compared could not be revoked: a wrong form is refused, not ignored.
fn session(claim: &Value) -> Result<Box<str>, TokenRejection> {
    let session = claim.as_str().filter(|session| is_identifier(session));
    session.map(Box::from).ok_or(TokenRejection::malformed("the token's session is not an identifier"))
}

fn change_number(claim: &Value) -> Result<u64, TokenRejection> {
    claim.as_u64().ok_or(TokenRejection::malformed("the claim `uv` is not a whole number"))
}

/// Absent is not false: issuers that verify every address leave the claim away. Anything but a yes is a no, at the top and beside the
/// address: in the same object (`user.email`, `user.email_verified`), or under a name with the same beginning (`https://app/email`,
/// `https://app/email_verified`).
fn email_is_verified(payload: &Map<String, Value>, path: &str) -> bool {
    const CLAIM: &str = "email_verified";
    let beside = path.rfind(['.', '/', '#', ':']).map_or("", |end| &path[..=end]);
    let names = [CLAIM.to_owned(), format!("{beside}{CLAIM}"), format!("{path}_verified")];
    names.iter().all(|name| at(payload, name).is_none_or(|claim| says_yes(claim) == Some(true)))
}

/// A yes or a no.
pub(super) fn says_yes(claim: &Value) -> Option<bool> {
    match claim {
        Value::Bool(said) => Some(*said),
        // Amazon Cognito writes a string.
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

pub(super) fn shown_text(claim: &Value) -> Option<Box<str>> {
    claim.as_str().filter(|text| !text.is_empty()).map(Box::from)
}

/// The value at a path: a member of that whole name first (`https://example.com/roles`), else step by step.
fn at<'p>(payload: &'p Map<String, Value>, path: &str) -> Option<&'p Value> {
    payload.get(path).or_else(|| {
        let mut steps = path.split('.');
        let first = payload.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    })
}

fn text<'p>(payload: &'p Map<String, Value>, name: &'static str) -> Result<Option<&'p str>, TokenRejection> {
    match payload.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenRejection::malformed_owned(format!("the claim `{name}` is not a string"))),
    }
}

/// Latest time that is taken for one: the end of the year 9999.
pub(super) const LATEST: Timestamp = Timestamp(253_402_300_799);

/// RFC 7519 section 2, `NumericDate`: seconds since the epoch, perhaps with a fraction. A number is of the right type however far it
/// lies outside the calendar: one before 1970 is taken for its beginning, one after 9999 for its end, and the rules about times refuse
/// what they have to.
pub(super) fn numeric_date(
    payload: &Map<String, Value>,
    name: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<Timestamp>, TokenRejection> {
    let Some(value) = payload.get(name) else {
        return Ok(None);
    };
    let seconds = match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let seconds = number.as_f64().filter(|seconds| seconds.is_finite())?;
            // Within these bounds the conversion is exact.
            Some(round(seconds).clamp(0.0, LATEST.0 as f64) as i64)
        }),
        _ => None,
    };
    let malformed = || TokenRejection::malformed_owned(format!("the claim `{name}` is not a number"));
    seconds.map(|seconds| Some(Timestamp(seconds.clamp(0, LATEST.0)))).ok_or_else(malformed)
}
