//! What is known of a caller, made ready for deciding and forwarding.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::rbac::{Grants, Membership, PermissionCode, RoleKey, RoleTable};
use crate::revocation::{Held, Overridden, Overrides};
use crate::token::{Claims, Entry};

/// A verified token and what its subject holds in the service that was asked about.
#[derive(Debug, Clone)]
pub struct Identified {
    /// The verified token.
    pub entry: Arc<Entry<Identity>>,
    /// What was derived from it.
    pub identity: Arc<Identity>,
    /// How the token came. It is no part of what is kept beside the token, which may come either way.
    pub method: AuthMethod,
    /// Where a user service is asked for permissions: what it says, which counts in place of what roles hold here.
    pub asked: Option<Arc<Confirmed>>,
}

/// What a user service said of the permissions that it was asked about.
#[derive(Debug)]
pub struct Confirmed {
    /// What the caller holds, under the table of the policy that asked.
    pub grants: Grants,
    /// Where they count.
    service: Arc<str>,
    /// What it said yes to. Codes mean the same under every table.
    held: Box<[PermissionCode]>,
}

impl Confirmed {
    pub(super) fn new(grants: Grants, service: &Arc<str>, held: Box<[PermissionCode]>) -> Arc<Self> {
        Arc::new(Self { grants, service: Arc::clone(service), held })
    }

    /// Whether it said yes to a permission of a service.
    pub(super) fn holds(&self, service: &str, code: &PermissionCode) -> bool {
        *self.service == *service && self.held.contains(code)
    }
}

impl Identified {
    /// What the caller holds.
    #[must_use]
    #[inline]
    pub fn grants(&self) -> &Grants {
        match &self.asked {
            None => self.identity.grants(),
            Some(asked) => &asked.grants,
        }
    }
}

/// How a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// In `Authorization`.
    Bearer,
    /// In the cookie that the policy names.
    Cookie,
}

impl AuthMethod {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
        }
    }
}

/// What is derived from a token's claims, or from the override that counts in their place, under one role table, for one service. It
/// is kept beside the cached token and carries what it was made with, so that it is never used under another table, for another
/// service or beside another override (T8), nor when a grant has ended (T13).
#[derive(Debug)]
pub struct Identity {
    service: Arc<str>,
    /// The subject's overrides ([`Overrides::stamp`]); 0: there were none.
    overrides: (u64, u64),
    /// What the subject holds if an override concerns the token; its claims say what it holds otherwise.
    held: Option<Held>,
    grants: Grants,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Headers that tell the upstream who is asking (SPEC 3.7).
pub const USER_ID: HeaderName = HeaderName::from_static("x-user-id");
const USER_NAME: HeaderName = HeaderName::from_static("x-user-name");
const USER_EMAIL: HeaderName = HeaderName::from_static("x-user-email");
/// The roles that count in the service, comma-separated.
pub const USER_ROLES: HeaderName = HeaderName::from_static("x-user-roles");
/// The memberships, as `service=TIER`, comma-separated.
pub const USER_MEMBERSHIPS: HeaderName = HeaderName::from_static("x-user-memberships");
/// How the token came.
pub const AUTH_METHOD: HeaderName = HeaderName::from_static("x-auth-method");
const AUTH_SESSION: HeaderName = HeaderName::from_static("x-auth-session");

impl Identity {
    /// The identity of a token's subject in `service`: the one kept beside the token if it still holds, else a new one.
    /// `overrides` are the subject's.
    #[must_use]
    pub fn of(
        entry: &Entry<Self>,
        table: &RoleTable,
        service: &Arc<str>,
        overrides: Option<&Overrides>,
        now: Timestamp,
    ) -> Arc<Self> {
        if let Some(kept) = &*entry.derived.load()
            && kept.grants.table() == table.identity()
            && kept.service == *service
            && kept.overrides == stamp(overrides)
            && kept.held.as_ref().and_then(|held| held.until).is_none_or(|until| now < until)
        {
            return Arc::clone(kept);
        }
        let made = Arc::new(Self::derive(&entry.claims, table, service, overrides, now));
        entry.derived.store(Some(Arc::clone(&made)));
        made
    }

    fn derive(
        claims: &Claims,
        table: &RoleTable,
        service: &Arc<str>,
        overrides: Option<&Overrides>,
        now: Timestamp,
    ) -> Self {
        let token = Overridden {
            uv: claims.uv,
            issued_at: claims.issued_at,
            leeway: claims.leeway,
            always: claims.roles_published,
            roles: &claims.roles,
            memberships: &claims.memberships,
        };
        let held = overrides.and_then(|overrides| overrides.held(&token, table.fingerprint(), now));
        let (roles, memberships) = judged_by(held.as_ref(), claims);
        let grants = table.resolve_for_policy(service, claims.conferred(roles, table), memberships);
        let headers = headers(claims, &grants);
        Self { service: Arc::clone(service), overrides: stamp(overrides), held, grants, headers }
    }

    /// What the subject of a token with these claims holds for objects of `service` alone (T36).
    #[must_use]
    pub fn grants_within(&self, claims: &Claims, table: &RoleTable, service: &str) -> Grants {
        let (roles, memberships) = judged_by(self.held.as_ref(), claims);
        table.resolve(service, claims.conferred(roles, table), memberships)
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.header(&USER_ID).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Roughly how many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| size_of_val(name) + value.len() + 2 * size_of_val(value));
        let words = self.grants.roles().len() * size_of::<usize>() * 4 + self.grants.memberships().len() * 64;
        let held = self.held.as_ref().map_or(0, |held| (held.roles.len() + 2 * held.memberships.len()) * 64);
        size_of::<Self>() + headers.sum::<usize>() + words + held
    }

    /// What the subject holds in the service.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The identity headers but for [`AUTH_METHOD`], ready to be set. A claim that is missing leaves its header absent.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The value of a header that this identity sets.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.iter().find(|(set, _)| set == name).map(|(_, value)| value)
    }
}

fn stamp(overrides: Option<&Overrides>) -> (u64, u64) {
    overrides.map_or((0, 0), Overrides::stamp)
}

/// The override's roles and memberships, where one concerns the token, else the token's.
fn judged_by<'c>(held: Option<&'c Held>, claims: &'c Claims) -> (&'c [RoleKey], &'c [Membership]) {
    held.map_or((&claims.roles, &claims.memberships), |held| (&held.roles, &held.memberships))
}

fn headers(claims: &Claims, grants: &Grants) -> Vec<(HeaderName, HeaderValue)> {
    let roles = join(grants.roles().iter().map(|role| role.as_str().to_owned()));
    let memberships = join(grants.memberships().iter().map(|held| format!("{}={}", held.service, held.tier)));
    let values = [
        (USER_ID, Some(claims.subject.to_string())),
        (USER_NAME, claims.name.as_deref().map(encode)),
        (USER_EMAIL, claims.email.as_deref().map(encode)),
        (USER_ROLES, roles),
        (USER_MEMBERSHIPS, memberships),
        (AUTH_SESSION, claims.session.as_deref().map(encode)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value?).ok()?))).collect()
}

fn join(words: impl Iterator<Item = String>) -> Option<String> {
    let words: Vec<_> = words.collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// Percent-encodes every byte outside 0x20–0x7E, and `%` (T22), so that a name can carry neither a line end nor
/// bytes that the upstream would decode in a way of its own.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7E).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn t22_names_are_percent_encoded_outside_printable_ascii() {
        assert_eq!(encode("Zoë 100%\r\nX-User-Id: root"), "Zo%C3%AB 100%25%0D%0AX-User-Id: root");
        assert_eq!(encode("plain Name"), "plain Name");
    }
}
