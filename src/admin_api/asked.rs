//! What a caller asks to be changed, read and checked, before anything is recorded. Pure: the time and what is known are given.
//!
//! What would silently do nothing (an issuer that nobody knows, a token that has expired), and what would never end (a floor in the
//! future), is refused here with the mend: a revocation that was answered with 200 is in force.

use serde::Deserialize;

use crate::clock::Timestamp;
use crate::rbac::RoleTable;
use crate::revocation::{Entry, FloorOf};
use crate::telemetry::ChangeEvent;
use crate::token::claims::{is_identifier, is_token_id};
use crate::token::{Verifier, pasted};

/// What a door lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Revocations alone: who may revoke may not grant.
    Revocations,
    /// Overrides alone: for whoever owns the machine.
    Overrides,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The change.
    pub entry: Entry,
    /// Whether it was made of a token.
    pub by_token: bool,
}

/// What the checks are made against.
#[derive(Debug, Clone, Copy)]
pub struct Known<'k> {
    /// The issuers and their keys.
    pub verifier: &'k Verifier,
    /// The names of all configured issuers, also of those whose keys are not there.
    pub issuers: &'k [String],
    /// The roles in force.
    pub roles: &'k RoleTable,
    /// Now.
    pub now: Timestamp,
}

/// Why nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotAsked {
    /// What is wrong, and the mend.
    pub detail: String,
    /// RFC 6901: the member that is wrong; empty: the whole.
    pub pointer: &'static str,
}

/// How far a clock may be ahead of this one.
const AHEAD: i64 = 60;
/// No token lives longer; a time beyond it is milliseconds, or a slip.
const LONGEST: i64 = 366 * 86_400;

/// `{"token": "…"}`: for who has the token and would rather not take it apart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithToken {
    token: String,
}

/// Reads a body and checks it.
///
/// # Errors
/// [`NotAsked`] with the member and the mend.
pub fn read(body: &[u8], door: Door, known: &Known<'_>) -> Result<Asked, NotAsked> {
    // serde would take an array for the members in the order in which they stand in the source.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return refuse("", "a JSON object says what it is about, for example {\"jti\": \"0193…\"}");
    }
    if let Ok(WithToken { token }) = serde_json::from_slice(body) {
        return match door {
            Door::Revocations => {
                let entry = check(by_token(token.trim(), known)?, door, known);
                // Whatever is wrong with what the token says, it is the token that is wrong.
                Ok(Asked { entry: entry.map_err(|wrong| NotAsked { pointer: "/token", ..wrong })?, by_token: true })
            }
            Door::Overrides => refuse("/token", "a token is revoked at POST /api/revocations"),
        };
    }
    let entry =
        serde_json::from_slice::<Entry>(body).map_err(|error| NotAsked { detail: error.to_string(), pointer: "" })?;
    Ok(Asked { entry: check(entry, door, known)?, by_token: false })
}

fn refuse<T>(pointer: &'static str, detail: impl Into<String>) -> Result<T, NotAsked> {
    Err(NotAsked { detail: detail.into(), pointer })
}

fn by_token(token: &str, known: &Known<'_>) -> Result<Entry, NotAsked> {
    if known.verifier.issuers().is_empty() {
        return refuse(
            "/token",
            "no issuer's keys are used here (as where a user service judges tokens), so it cannot be seen whose it is: \
             revoke its `jti`, its `session` or its `subject`",
        );
    }
    let pasted = pasted::read(known.verifier, token).or_else(|rejection| {
        refuse("/token", format!("it is no token of an accepted issuer ({}): {}", rejection.reason, rejection.detail))
    })?;
    if pasted.refused_from <= known.now {
        return refuse("/token", "it has expired and is refused everywhere, so there is nothing to revoke");
    }
    let Some(id) = pasted.token_id else {
        return refuse(
            "/token",
            "it has no `jti`, so that it cannot be told from others: revoke its `session` or its `subject`",
        );
    };
    if !is_token_id(&id) {
        return refuse(
            "/token",
            "its `jti` is empty or longer than 1,024 bytes, so that it is refused everywhere (malformed_token); what its bearer \
             may have besides is revoked by `session` or `subject`",
        );
    }
    Ok(Entry::Token { id, issuer: Some((*pasted.issuer).into()), expires_at: Some(pasted.expires_at) })
}

fn check(entry: Entry, door: Door, known: &Known<'_>) -> Result<Entry, NotAsked> {
    match (door, &entry) {
        (_, Entry::Keys { .. }) => {
            return refuse("/keys", "signing keys are published by `doorward keys rotate`");
        }
        (_, Entry::RoleData { .. }) => {
            return refuse(
                "/role_data",
                "role data is announced by whoever records changes, when its roles file has changed",
            );
        }
        (Door::Revocations, Entry::Override(_)) => {
            return refuse(
                "/override",
                "who may revoke may not grant: set roles with `doorward override` on the machine itself",
            );
        }
        (Door::Overrides, Entry::Override(_)) | (Door::Revocations, _) => {}
        (Door::Overrides, _) => return refuse("", "an override is `{\"override\": \"SUBJECT\", \"roles\": […]}`"),
    }
    check_subject(&entry)?;
    if let Entry::Token { issuer: Some(name), .. } | Entry::Key { issuer: Some(name), .. } = &entry {
        check_issuer(name, known.issuers)?;
    }
    match entry {
        Entry::Token { id, issuer, expires_at } => {
            Ok(Entry::Token { id, issuer, expires_at: possible(expires_at, known.now) })
        }
        Entry::Session { id, expires_at } => Ok(Entry::Session { id, expires_at: possible(expires_at, known.now) }),
        Entry::Floor { issued_until: Some(until), ref of } if until > known.now.plus(AHEAD) => refuse(
            if *of == FloorOf::Everything { "/everything" } else { "/issued_until" },
            "it lies in the future and would refuse tokens that are not issued yet; without it the floor is now",
        ),
        Entry::Override(mut asked) => {
            let unknown = asked.roles.iter().find(|held| known.roles.role(held.role.as_str()).is_none());
            if let Some(held) = unknown {
                return refuse("/roles", format!("{} is no role of the roles file", held.role));
            }
            for held in &asked.memberships {
                let service = known.roles.service(held.service.as_str());
                if service.and_then(|id| known.roles.tier_rank(id, held.tier.as_str())).is_none() {
                    let detail = format!("{}={} is no tier of the roles file", held.service, held.tier);
                    return refuse("/memberships", detail);
                }
            }
            let ends = asked.roles.iter().map(|held| held.expires_at);
            let ends = ends.chain(asked.memberships.iter().map(|held| held.expires_at));
            if ends.flatten().any(|at| at <= known.now) {
                return refuse("/roles", "an `expires_at` lies in the past; what has expired is left away");
            }
            if asked.needs.is_some() {
                return refuse("/needs", "which roles it presumes is known here: those in force");
            }
            // T9: a process with other role data must not grant by it.
            asked.needs = Some(known.roles.fingerprint().into());
            Ok(Entry::Override(asked))
        }
        entry => Ok(entry),
    }
}

/// What is about an issuer that nobody knows would silently be about nothing.
pub(super) fn check_issuer(name: &str, issuers: &[String]) -> Result<(), NotAsked> {
    if issuers.iter().any(|issuer| issuer == name) {
        return Ok(());
    }
    let names = issuers.join(", ");
    let detail = format!(
        "no issuer is named {name:?} ([[auth.issuers]] name); there are: {names}. Without `issuer` it concerns all"
    );
    refuse("/issuer", detail)
}

/// How long an entry has to be kept, as its asker says it: believed only if that is possible. Otherwise it is kept as long as any token
/// can live, so that a slip (milliseconds, a time that is past) revokes too.
fn possible(at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    at.filter(|at| *at > now && *at <= now.plus(LONGEST))
}

/// Ids that no token can have are slips of the keyboard, and would revoke nothing (T22).
fn check_subject(entry: &Entry) -> Result<(), NotAsked> {
    let (pointer, id) = match entry {
        Entry::Session { id, .. } | Entry::Floor { of: FloorOf::Session(id), .. } => ("/session", id),
        Entry::Floor { of: FloorOf::Subject(id), .. } => ("/subject", id),
        Entry::Disabled { id } => ("/disabled", id),
        Entry::Enabled { id } => ("/enabled", id),
        Entry::Override(asked) => ("/override", &asked.subject),
        _ => return Ok(()),
    };
    if is_identifier(id) {
        return Ok(());
    }
    refuse(pointer, "no token has such an id: it is 1 to 128 characters from `!` to `~` without `,`, `=` and `%`")
}

/// The entries that carry a change out, in order: a floor goes before who is enabled again, so that no token comes back to life that
/// was refused while its subject was disabled (T4). Should doorward end in between, the subject is still disabled.
#[must_use]
pub fn steps(entry: Entry) -> (Option<Entry>, Entry) {
    let floor = match &entry {
        Entry::Enabled { id } => Some(Entry::Floor { of: FloorOf::Subject(id.clone()), issued_until: None }),
        _ => None,
    };
    (floor, entry)
}

/// What the audit calls a change.
#[must_use]
pub fn event_of(entry: &Entry) -> ChangeEvent {
    match entry {
        Entry::Disabled { .. } => ChangeEvent::Disabled,
        Entry::Enabled { .. } => ChangeEvent::Enabled,
        Entry::Override(_) => ChangeEvent::Overridden,
        _ => ChangeEvent::Revoked,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{SourceText, roles_file};
    use crate::secret::Secret;
    use crate::token::{Algorithm, ClaimPaths, Confers, Issuer, IssuerKeys, KeySet, RolesFrom};

    const NOW: Timestamp = Timestamp(1_790_000_000);

    fn asked(body: &str, door: Door) -> Result<Entry, NotAsked> {
        asked_of(&Verifier::new(Vec::new()), body, door)
    }

    fn by_token_of(verifier: &Verifier, token: &str) -> Result<Entry, NotAsked> {
        asked_of(verifier, &serde_json::json!({ "token": token }).to_string(), Door::Revocations)
    }

    fn asked_of(verifier: &Verifier, body: &str, door: Door) -> Result<Entry, NotAsked> {
        let text = "version: 1\npermissions: { oms: [a:b] }\nroles: { ROLE_USER: { permissions: [a:b] } }\n\
                    tiers: { oms: [{ key: FREE, permissions: [] }] }\n";
        let source = SourceText { name: "roles.yaml".to_owned(), text: text.to_owned() };
        let (_, roles) = roles_file::parse(std::sync::Arc::new(source)).0.unwrap();
        let issuers = ["own".to_owned(), "kc".to_owned()];
        let known = Known { verifier, issuers: &issuers, roles: &roles, now: NOW };
        read(body.as_bytes(), door, &known).map(|asked| asked.entry)
    }

    /// An issuer, and what it signs with.
    fn kc() -> (Verifier, jsonwebtoken::EncodingKey) {
        let secret = [7; 32];
        let issuer = Issuer {
            name: "kc".into(),
            issuer: None,
            audience: Vec::new(),
            algorithms: vec![Algorithm::HS256],
            keys: IssuerKeys::fixed(KeySet::shared_secret(&Secret::new(secret.to_vec())).unwrap()),
            claims: ClaimPaths::default(),
            max_lifetime: Duration::from_secs(3600),
            leeway: Duration::ZERO,
            own: false,
            subject_prefix: "kc:".into(),
            roles_from: RolesFrom::Token,
            confers: Confers::Any,
            admin: false,
        };
        (Verifier::new(vec![issuer]), jsonwebtoken::EncodingKey::from_secret(&secret))
    }

    fn pointer(body: &str, door: Door) -> &'static str {
        asked(body, door).unwrap_err().pointer
    }

    #[test]
    fn who_may_revoke_may_not_grant() {
        for (body, at) in [
            (r#"{"override": "a", "roles": ["ROLE_USER"]}"#, "/override"),
            (r#"{"keys": {"keys": []}}"#, "/keys"),
            (r#"{"token": "a.b.c"}"#, "/token"),
            (r#"{"jti": "a", "issuer": "keycloak"}"#, "/issuer"),
            (r#"{"key": "a", "issuer": "keycloak"}"#, "/issuer"),
            (r#"{"subject": "alice "}"#, "/subject"),
            (r#"{"disabled": "a=b"}"#, "/disabled"),
            (r#"{"session": ""}"#, ""),
            (r#"{"everything": 1790000061}"#, "/everything"),
            (r#"{"subject": "a", "issued_until": 1790000061}"#, "/issued_until"),
            (r#"{"subject": "a", "subject": "b"}"#, ""),
            (r#"{"token": "a", "jti": "b"}"#, ""),
            ("[]", ""),
            (r#"["a"]"#, ""),
            ("", ""),
        ] {
            assert_eq!(pointer(body, Door::Revocations), at, "{body}");
        }
        for body in [
            r#"{"jti": "a", "issuer": "kc"}"#,
            r#"{"session": "s"}"#,
            r#"{"session": "s", "floor": true}"#,
            r#"{"subject": "kc:alice"}"#,
            r#"{"service": "oms"}"#,
            r#"{"everything": true}"#,
            r#"{"key": "k"}"#,
            r#"{"disabled": "a"}"#,
            r#"{"enabled": "a"}"#,
        ] {
            assert!(asked(body, Door::Revocations).is_ok(), "{body}");
            assert!(asked(body, Door::Overrides).is_err(), "{body}");
        }
    }

    #[test]
    fn a_token_is_revoked_only_for_an_issuer_that_counts() {
        let (verifier, key) = kc();
        let claims = serde_json::json!({ "sub": "a", "jti": "j", "exp": NOW.0 + 60 });
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let body = serde_json::json!({ "token": token }).to_string();
        let roles = RoleTable::compile(&crate::rbac::RoleData::default()).unwrap();
        let revoke = |verifier, issuer: &str| {
            let issuers = [issuer.to_owned()];
            read(body.as_bytes(), Door::Revocations, &Known { verifier, issuers: &issuers, roles: &roles, now: NOW })
        };
        assert!(revoke(&verifier, "kc").unwrap().by_token);
        let refused = revoke(&verifier, "iam_service").unwrap_err();
        assert!(refused.pointer == "/token" && refused.detail.contains("there are: iam_service"), "{refused:?}");
        let refused = revoke(&Verifier::new(Vec::new()), "iam_service").unwrap_err();
        assert!(refused.pointer == "/token" && refused.detail.contains("revoke its `jti`"), "{refused:?}");
    }

    #[test]
    fn an_impossible_expiry_shortens_nothing() {
        for (said, kept) in [(NOW.0 - 1, None), (NOW.0 + 60, Some(NOW.plus(60))), (NOW.0 * 1000, None)] {
            for kind in ["jti", "session"] {
                let entry =
                    asked(&format!("{{\"{kind}\": \"a\", \"expires_at\": {said}}}"), Door::Revocations).unwrap();
                let (Entry::Token { expires_at, .. } | Entry::Session { expires_at, .. }) = entry else {
                    unreachable!("{kind}")
                };
                assert_eq!(expires_at, kept, "{said}");
            }
        }
    }

    #[test]
    fn a_token_whose_id_is_too_long_to_be_kept_is_told_so() {
        let (verifier, key) = kc();
        let of = |id: &str| {
            let claims = serde_json::json!({ "sub": "a", "jti": id, "exp": NOW.0 + 60 });
            by_token_of(&verifier, &jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap())
        };
        for id in ["", &"j".repeat(1025)] {
            let refused = of(id).unwrap_err();
            assert_eq!(refused.pointer, "/token");
            assert!(refused.detail.contains("1,024 bytes") && refused.detail.contains("session"), "{}", refused.detail);
        }
        // The longest that is verified is kept as it is.
        let longest = of(&"j".repeat(1024)).unwrap();
        let written = serde_json::to_string(&longest).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&written).unwrap(), longest);
    }

    #[test]
    fn an_override_names_roles_that_there_are_and_presumes_those_in_force() {
        let door = Door::Overrides;
        let good = r#"{"override": "a", "roles": ["ROLE_USER"], "memberships": {"oms": "FREE"}}"#;
        let Entry::Override(entry) = asked(good, door).unwrap() else { unreachable!() };
        assert_eq!(entry.needs.map(|needs| needs.len()), Some(64), "a SHA-256");
        for (body, at) in [
            (r#"{"override": "a", "roles": ["ROLE_NONE"]}"#, "/roles"),
            (r#"{"override": "a", "roles": [], "memberships": {"oms": "GOLD"}}"#, "/memberships"),
            (r#"{"override": "a", "roles": [], "memberships": {"sho": "FREE"}}"#, "/memberships"),
            (r#"{"override": "a", "roles": [{"role": "ROLE_USER", "expires_at": 1790000000}]}"#, "/roles"),
            (r#"{"override": "a b", "roles": []}"#, "/override"),
            (r#"{"override": "a", "roles": [], "needs": "x"}"#, "/needs"),
            (r#"{"override": "a"}"#, ""),
            (r#"{"keys": {"keys": []}}"#, "/keys"),
            (r#"{"token": "x"}"#, "/token"),
        ] {
            assert_eq!(pointer(body, door), at, "{body}");
        }
    }
}
