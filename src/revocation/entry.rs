//! One revocation or change as it is written down: a JSON object, one a line in a file.
//!
//! ```json
//! {"jti": "0193…", "issuer": "keycloak", "expires_at": 1790000000}
//! {"session": "s-1"}
//! {"session": "s-1", "floor": true}
//! {"subject": "kc:alice", "issued_until": 1790000000}
//! {"service": "oms"}
//! {"everything": true}
//! {"key": "2026-01", "issuer": "doorward"}
//! {"disabled": "kc:mallory"}
//! {"enabled": "kc:mallory"}
//! {"override": "alice", "roles": ["ROLE_USER", {"role": "ROLE_EDITOR", "expires_at": 1790000000}], "memberships": {"oms": "FREE"}}
//! {"keys": {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "…", "x": "…"}]}}
//! {"role_data": "5f1c…"}
//! ```
//!
//! What arrives with a change number (see [`super::change`]) need not say `issued_until`: it concerns what was issued before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::rbac::{RoleKey, ServiceName, TierKey};

/// A revocation or a change. `issuer` is a name in the configuration; without it the entry concerns every issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Entry {
    /// One token.
    Token {
        /// `jti`.
        id: Box<str>,
        /// Whose token: ids are unique only per issuer.
        issuer: Option<Box<str>>,
        /// The token's `exp`, if known: how long the entry has to be kept.
        expires_at: Option<Timestamp>,
    },
    /// One session, ended.
    Session {
        /// `sid`.
        id: Box<str>,
        /// When the last token of the session expires, if known.
        expires_at: Option<Timestamp>,
    },
    /// Everything issued until a moment: log out everywhere.
    Floor {
        /// Whose tokens.
        of: FloorOf,
        /// Tokens with an `iat` up to and including this are refused, whatever their `uv`. Without it the floor is the number of
        /// the change that it arrives with, or that change's time for tokens without a `uv` (T3).
        issued_until: Option<Timestamp>,
    },
    /// A signing key, for good (T18).
    Key {
        /// `kid`.
        id: Box<str>,
        /// Whose key.
        issuer: Option<Box<str>>,
    },
    /// A subject that is disabled, until it is enabled (T6).
    Disabled {
        /// Subject id, prefix included.
        id: Box<str>,
    },
    /// A subject that was disabled and is no longer. Its floors stay: enabling revives no token (T4).
    Enabled {
        /// Subject id, prefix included.
        id: Box<str>,
    },
    /// What a subject holds from now on: tokens below this change are judged by it and not by their claims (SPEC 8).
    Override(Box<Override>),
    /// The public halves of doorward's own signing keys, as a JWK set: the newest counts.
    Keys {
        /// The set (RFC 7517); never a private or symmetric key (T11).
        jwks: Box<Value>,
    },
    /// Which role data whoever records changes has in force from now on, so that overrides that presume earlier data go on (T9).
    RoleData {
        /// [`crate::rbac::RoleTable`]'s fingerprint.
        fingerprint: Box<str>,
    },
}

/// Whose tokens a floor concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FloorOf {
    /// Everybody's.
    Everything,
    /// Everybody's, where this service is asked for.
    Service(ServiceName),
    /// One subject's; its id, prefix included.
    Subject(Box<str>),
    /// One session's, by `sid`.
    Session(Box<str>),
}

/// The present grants of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Subject id, prefix included.
    pub subject: Box<str>,
    /// All roles that it holds, sorted by key.
    pub roles: Vec<HeldRole>,
    /// All memberships that it holds, sorted by service.
    pub memberships: Vec<HeldMembership>,
    /// Which role data this presumes ([`crate::rbac::RoleTable`]'s fingerprint): until a gateway has loaded it, the subject keeps
    /// only roles held before and after (T9).
    pub needs: Option<Box<str>>,
}

/// A role, perhaps for a time (T13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRole {
    /// The role.
    pub role: RoleKey,
    /// From then on it grants nothing.
    pub expires_at: Option<Timestamp>,
}

/// A membership, perhaps for a time (T13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldMembership {
    /// The service.
    pub service: ServiceName,
    /// The tier.
    pub tier: TierKey,
    /// From then on it grants nothing.
    pub expires_at: Option<Timestamp>,
}

/// The longest id that is kept: memory is bounded by the number of revocations, not by what somebody writes into one.
const MAX_ID_BYTES: usize = 1024;

/// The members as they stand in JSON.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    jti: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    session: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    subject: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    service: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    key: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    disabled: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    enabled: Option<Box<str>>,
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    overridden: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    keys: Option<Box<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    role_data: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    everything: Option<Everything>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    floor: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    issuer: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    issued_until: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    roles: Option<Vec<WrittenRole>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    memberships: Option<BTreeMap<String, WrittenTier>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    needs: Option<Box<str>>,
}

/// `true`, or the Unix seconds until which tokens were issued.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Everything {
    Now(bool),
    Until(u32),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenRole {
    ForGood(String),
    ForATime { role: String, expires_at: u64 },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenTier {
    ForGood(String),
    ForATime { tier: String, expires_at: u64 },
}

/// A member that is there has a value: `null` is a mistake, not an absence.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            jti,
            session,
            subject,
            service,
            key,
            disabled,
            enabled,
            overridden,
            keys,
            role_data,
            everything,
            floor,
            issuer,
            issued_until,
            expires_at,
            roles,
            memberships,
            needs,
        } = written;
        let named = [
            jti.is_some(),
            session.is_some(),
            subject.is_some(),
            service.is_some(),
            key.is_some(),
            disabled.is_some(),
            enabled.is_some(),
            overridden.is_some(),
            keys.is_some(),
            role_data.is_some(),
            everything.is_some(),
        ];
        if named.iter().filter(|named| **named).count() != 1 {
            return Err(
                "exactly one of `jti`, `session`, `subject`, `service`, `key`, `disabled`, `enabled`, `override`, \
                        `keys`, `role_data` and `everything` says what it is about"
                    .into(),
            );
        }
        let ids =
            [&jti, &session, &subject, &service, &key, &disabled, &enabled, &overridden, &role_data, &issuer, &needs];
        if ids.into_iter().flatten().any(|id| id.is_empty()) {
            return Err("an empty id revokes nothing".into());
        }
        if ids.into_iter().flatten().any(|id| id.len() > MAX_ID_BYTES) {
            return Err(format!("an id is longer than {MAX_ID_BYTES} bytes"));
        }
        if issuer.is_some() && jti.is_none() && key.is_none() {
            return Err("`issuer` belongs to `jti` and `key` only".into());
        }
        let session_floor = floor.unwrap_or(false);
        if floor.is_some() && (session.is_none() || !session_floor) {
            return Err("`floor` is true or absent, and belongs to `session` only".into());
        }
        if expires_at.is_some() && (jti.is_none() && session.is_none() || session_floor) {
            return Err("`expires_at` belongs to `jti` and to a `session` that ends".into());
        }
        if issued_until.is_some() && subject.is_none() && service.is_none() && !session_floor {
            return Err("`issued_until` belongs to `subject`, `service` and the floor of a `session`".into());
        }
        if overridden.is_none() && (roles.is_some() || memberships.is_some() || needs.is_some()) {
            return Err("`roles`, `memberships` and `needs` belong to `override` only".into());
        }
        let expires_at = expires_at.map(moment);
        let issued_until = issued_until.map(|seconds| Timestamp(i64::from(seconds)));
        let floor = |of| Self::Floor { of, issued_until };
        Ok(match (jti, session, subject, service, key) {
            (Some(id), ..) => Self::Token { id, issuer, expires_at },
            (_, Some(id), ..) if session_floor => floor(FloorOf::Session(id)),
            (_, Some(id), ..) => Self::Session { id, expires_at },
            (_, _, Some(id), ..) => floor(FloorOf::Subject(id)),
            (_, _, _, Some(name), _) => {
                floor(FloorOf::Service(ServiceName::parse(&name).map_err(|bad| bad.to_string())?))
            }
            (.., Some(id)) => Self::Key { id, issuer },
            _ => match (disabled, enabled, overridden, keys, everything) {
                _ if let Some(fingerprint) = role_data => Self::RoleData { fingerprint },
                (Some(id), ..) => Self::Disabled { id },
                (_, Some(id), ..) => Self::Enabled { id },
                (_, _, Some(subject), ..) => Self::Override(Box::new(Override {
                    subject,
                    roles: held_roles(roles.ok_or("`override` needs `roles`, all that the subject holds")?)?,
                    memberships: held_memberships(memberships.unwrap_or_default())?,
                    needs,
                })),
                (_, _, _, Some(jwks), _) => Self::Keys { jwks },
                (.., Some(Everything::Until(seconds))) => {
                    Self::Floor { of: FloorOf::Everything, issued_until: Some(Timestamp(i64::from(seconds))) }
                }
                (.., Some(Everything::Now(false))) => return Err("`everything` is true or a time".into()),
                _ => Self::Floor { of: FloorOf::Everything, issued_until: None },
            },
        })
    }
}

fn moment(seconds: u64) -> Timestamp {
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn held_roles(written: Vec<WrittenRole>) -> Result<Vec<HeldRole>, String> {
    let mut roles = written
        .into_iter()
        .map(|held| {
            let (role, expires_at) = match held {
                WrittenRole::ForGood(role) => (role, None),
                WrittenRole::ForATime { role, expires_at } => (role, Some(moment(expires_at))),
            };
            Ok(HeldRole { role: RoleKey::parse(&role).map_err(|bad| bad.to_string())?, expires_at })
        })
        .collect::<Result<Vec<_>, String>>()?;
    roles.sort_by(|a, b| a.role.cmp(&b.role));
    if roles.windows(2).any(|pair| pair[0].role == pair[1].role) {
        return Err("a role stands twice in `roles`".into());
    }
    Ok(roles)
}

fn held_memberships(written: BTreeMap<String, WrittenTier>) -> Result<Vec<HeldMembership>, String> {
    let held = |(service, tier): (String, WrittenTier)| {
        let (tier, expires_at) = match tier {
            WrittenTier::ForGood(tier) => (tier, None),
            WrittenTier::ForATime { tier, expires_at } => (tier, Some(moment(expires_at))),
        };
        Ok(HeldMembership {
            service: ServiceName::parse(&service).map_err(|bad| bad.to_string())?,
            tier: TierKey::parse(&tier).map_err(|bad| bad.to_string())?,
            expires_at,
        })
    };
    written.into_iter().map(held).collect()
}

impl From<Entry> for Written {
    fn from(entry: Entry) -> Self {
        let small = |time: Timestamp| u32::try_from(time.0.max(0)).unwrap_or(u32::MAX);
        let large = |time: Timestamp| u64::try_from(time.0).unwrap_or(0);
        let none = Self::default();
        match entry {
            Entry::Token { id, issuer, expires_at } => {
                Self { jti: Some(id), issuer, expires_at: expires_at.map(large), ..none }
            }
            Entry::Session { id, expires_at } => Self { session: Some(id), expires_at: expires_at.map(large), ..none },
            Entry::Floor { of, issued_until } => {
                let until = issued_until.map(small);
                match of {
                    FloorOf::Everything => {
                        Self { everything: Some(until.map_or(Everything::Now(true), Everything::Until)), ..none }
                    }
                    FloorOf::Service(name) => Self { service: Some(name.as_str().into()), issued_until: until, ..none },
                    FloorOf::Subject(id) => Self { subject: Some(id), issued_until: until, ..none },
                    FloorOf::Session(id) => Self { session: Some(id), floor: Some(true), issued_until: until, ..none },
                }
            }
            Entry::Key { id, issuer } => Self { key: Some(id), issuer, ..none },
            Entry::Disabled { id } => Self { disabled: Some(id), ..none },
            Entry::Enabled { id } => Self { enabled: Some(id), ..none },
            Entry::Override(overridden) => {
                let Override { subject, roles, memberships, needs } = *overridden;
                let role = |held: HeldRole| match held.expires_at {
                    None => WrittenRole::ForGood(held.role.as_str().to_owned()),
                    Some(at) => WrittenRole::ForATime { role: held.role.as_str().to_owned(), expires_at: large(at) },
                };
                let tier = |held: HeldMembership| {
                    let tier = held.tier.as_str().to_owned();
                    let tier = match held.expires_at {
                        None => WrittenTier::ForGood(tier),
                        Some(at) => WrittenTier::ForATime { tier, expires_at: large(at) },
                    };
                    (held.service.as_str().to_owned(), tier)
                };
                Self {
                    overridden: Some(subject),
                    roles: Some(roles.into_iter().map(role).collect()),
                    memberships: (!memberships.is_empty()).then(|| memberships.into_iter().map(tier).collect()),
                    needs,
                    ..none
                }
            }
            Entry::Keys { jwks } => Self { keys: Some(jwks), ..none },
            Entry::RoleData { fingerprint } => Self { role_data: Some(fingerprint), ..none },
        }
    }
}

/// A line of a revocation file that says nothing clear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a file of one entry a line. Empty lines and lines that begin with `#` are passed over.
///
/// # Errors
/// All bad lines at once: a revocation file of which half is applied would be a trap.
pub fn parse_lines(text: &str) -> Result<Vec<Entry>, Vec<BadLine>> {
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(Entry::Floor { issued_until: None, .. }) => {
                let message =
                    "a floor in a file needs `issued_until` (Unix seconds): a line has no time of its own".into();
                bad.push(BadLine { line: index + 1, message });
            }
            Ok(entry) => entries.push(entry),
            Err(error) => {
                let message = error.to_string();
                // serde_json counts lines within the line.
                let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                bad.push(BadLine { line: index + 1, message });
            }
        }
    }
    if bad.is_empty() { Ok(entries) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Entry, FloorOf, parse_lines};

    const EVERY_KIND: &str = r#"
# what was revoked on Monday
{"jti":"t-1"}
{"jti":"t-2","issuer":"kc","expires_at":1790000000}
{"session":"s-1"}
{"subject":"kc:alice","issued_until":1790000000}
{"key":"k-1","issuer":"kc"}
{"disabled":"kc:mallory"}
{"everything":1790000000}
"#;

    #[test]
    fn what_is_written_is_what_was_read() {
        let entries = parse_lines(EVERY_KIND).unwrap();
        assert_eq!(entries.len(), 7);
        let again: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert_eq!(parse_lines(&again.join("\n")).unwrap(), entries);
        assert!(EVERY_KIND.contains(&again.join("\n")));
        assert!(matches!(entries[3], Entry::Floor { of: FloorOf::Subject(_), .. }));
    }

    #[test]
    fn all_bad_lines_are_named_at_once() {
        let text = "{\"jti\":\"a\"}\n{\"jti\":\"a\",\"session\":\"b\"}\n\n{}\n{\"jit\":\"a\"}\n{\"subject\":\"a\"}\n{\"jti\":null}\n\
                    {\"jti\":\"\"}\nx\n{\"everything\":-1}\n{\"session\":\"a\",\"issuer\":\"b\"}\n{\"jti\":\"a\",\"jti\":\"b\"}";
        let bad = parse_lines(text).unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert!(bad[2].to_string().starts_with("line 5: unknown field `jit`"), "{}", bad[2]);
        assert!(bad[3].message.contains("issued_until"), "{}", bad[3]);
    }

    #[test]
    fn an_id_is_bounded() {
        let line = |length: usize| format!("{{\"jti\":\"{}\"}}", "x".repeat(length));
        assert!(parse_lines(&line(1024)).is_ok());
        assert!(parse_lines(&line(1025)).unwrap_err()[0].message.contains("1024 bytes"));
    }
}
