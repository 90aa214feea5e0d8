//! Claims of a token that a user service vouches for (SPEC 5.5): what the service says of its bearer, and what the token itself says
//! of its own identity.
//!
//! Nothing here verifies a signature. The service has accepted the token as a whole, so what the token says about *which* token it is
//! (`jti`, `sid`, `iat`, `kid`) serves to refuse it where it has been revoked, and `exp` to forget it in time; who the bearer is and
//! what it may do is the service's word alone.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims::{self, Claims};
use super::issuer::Confers;
use super::json::{decode_base64url, parse_object};
use super::verify::MAX_TOKEN_BYTES;
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey, ServiceName, TierKey};

/// The name under which tokens of the user service are known to revocations and logs.
pub const ISSUER: &str = "iam_service";

/// What is believed of a user service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouching {
    /// Which roles it may confer.
    pub confers: Confers,
    /// Whether it may confer administrators' roles and open the admin listener (T7).
    pub admin: bool,
    /// Whether an address counts as verified of which the service does not say whether it is (T42).
    pub verifies_email: bool,
    /// Seconds by which the clock that set `iat` may be ahead (T14).
    pub leeway: i64,
}

/// What a token says of itself, not verified by anybody here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unverified {
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// `sid`.
    pub session: Option<Box<str>>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
    /// `kid`.
    pub key_id: Option<Box<str>>,
}

impl Unverified {
    /// Reads a JWT without verifying it. A token that is none, or that two readers could read differently, says nothing of itself.
    #[must_use]
    pub fn read(token: &str) -> Self {
        let parts = || {
            let (header, rest) = token.split_once('.')?;
            let (payload, signature) = rest.split_once('.')?;
            let object = |part: &str| parse_object(&decode_base64url(part)?).ok();
            (!signature.contains('.')).then_some((object(header)?, object(payload)?))
        };
        let Some((header, payload)) = parts() else { return Self::default() };
        let text = |of: &Map<String, Value>, name: &str| {
            of.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(Box::from)
        };
        let time = |name, round| claims::numeric_date(&payload, name, round).ok().flatten();
        // A token of the year 9999 would be younger than every floor: it does not say when it was issued.
        let issued_at = time("iat", f64::floor).filter(|time| *time < claims::LATEST);
        Self {
            token_id: text(&payload, "jti"),
            session: text(&payload, "sid"),
            issued_at,
            expires_at: time("exp", f64::floor),
            key_id: text(&header, "kid"),
        }
    }
}

/// Whether a text can be a bearer token at all (RFC 6750 section 2.1, `b64token`), so that it can be sent on as it came.
#[must_use]
pub fn is_bearer_token(text: &str) -> bool {
    let token = text.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !token.is_empty() && text.len() <= MAX_TOKEN_BYTES && token.bytes().all(allowed)
}

impl Vouching {
    /// The claims of the bearer of a token for whom the service answered `userinfo`, a JSON object.
    ///
    /// # Errors
    /// What is wrong with the answer, without any part of it.
    pub fn claims(&self, unverified: Unverified, userinfo: &[u8]) -> Result<Claims, &'static str> {
        let info = parse_object(userinfo).map_err(|_| "the answer is no JSON object without duplicates")?;
        // What pydantic and its like have no value for they write as null.
        let given = |name: &str| info.get(name).filter(|value| !value.is_null());
        let session = match unverified.session.filter(|session| claims::is_identifier(session)) {
            Some(session) => Some(session),
            None => given("sid").map(|sid| identifier(sid).ok_or("`sid` is not an identifier")).transpose()?,
        };
        let said = given("email_verified").and_then(claims::says_yes);
        let verified = said.unwrap_or(self.verifies_email && given("email_verified").is_none());
        Ok(Claims {
            issuer: Arc::from(ISSUER),
            subject: ["sub", "user_id", "id"]
                .into_iter()
                .find_map(given)
                .ok_or("it names no subject (`sub`, `user_id` or `id`)")
                .and_then(|subject| identifier(subject).ok_or("its subject is not an identifier"))?,
            roles: self.roles(given("roles").or_else(|| given("role"))),
            roles_published: false,
            memberships: given("memberships").map(memberships).unwrap_or_default(),
            admin: self.admin,
            session,
            token_id: unverified.token_id,
            uv: None,
            name: given("name").and_then(claims::shown_text),
            email: given("email").filter(|_| verified).and_then(claims::shown_text),
            // What does not say when it was issued is older than every floor.
            issued_at: unverified.issued_at.unwrap_or(Timestamp(0)),
            expires_at: unverified.expires_at.unwrap_or(claims::LATEST),
            not_before: None,
            leeway: self.leeway,
            key_id: unverified.key_id,
        })
    }

    fn roles(&self, given: Option<&Value>) -> Box<[RoleKey]> {
        claims::conferred_roles(given, &self.confers)
    }
}

/// T22: text or a whole number that may be a subject.
fn identifier(value: &Value) -> Option<Box<str>> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return None,
    };
    claims::is_identifier(&text).then(|| text.into())
}

/// `{"oms": "FREE"}`, or `[{"service": "oms", "tier": "FREE"}]`. What has another form grants nothing.
fn memberships(value: &Value) -> Box<[Membership]> {
    let held = |service: &str, tier: &Value| {
        Some(Membership { service: ServiceName::parse(service).ok()?, tier: TierKey::parse(tier.as_str()?).ok()? })
    };
    let mut found: Vec<Membership> = match value {
        Value::Object(members) => members.iter().filter_map(|(service, tier)| held(service, tier)).collect(),
        Value::Array(items) => {
            items.iter().filter_map(|item| held(item.get("service")?.as_str()?, item.get("tier")?)).collect()
        }
        _ => Vec::new(),
    };
    found.sort_unstable_by(|a, b| a.service.cmp(&b.service));
    // Of two for one service neither is believed: which one counts would be a guess.
    let twice =
        |held: &Membership, all: &[Membership]| all.iter().filter(|other| other.service == held.service).count() > 1;
    let all = found.clone();
    found.retain(|held| !twice(held, &all));
    found.into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn jwt(payload: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", encode(&json!({"alg": "HS256", "kid": "k1"})), encode(payload))
    }

    fn believing(more: impl FnOnce(&mut Vouching)) -> Vouching {
        let mut vouching = Vouching { confers: Confers::Any, admin: false, verifies_email: false, leeway: 30 };
        more(&mut vouching);
        vouching
    }

    fn claims(userinfo: &Value) -> Result<Claims, &'static str> {
        believing(|_| {}).claims(Unverified::default(), userinfo.to_string().as_bytes())
    }

    #[test]
    fn the_subject_is_the_first_of_three_members_and_keeps_its_grammar() {
        for (userinfo, subject) in [
            (json!({"sub": "a", "user_id": "b", "id": "c"}), "a"),
            (json!({"user_id": 42, "id": "c"}), "42"),
            (json!({"sub": null, "id": "c"}), "c"),
            (json!({"id": "0192-aa"}), "0192-aa"),
        ] {
            assert_eq!(&*claims(&userinfo).unwrap().subject, subject, "{userinfo}");
        }
        for userinfo in [
            json!({}),
            json!({"sub": ""}),
            json!({"sub": "a b"}),
            json!({"sub": "a,b"}),
            json!({"sub": "a\r\nX-User-Roles: ROLE_ROOT"}),
            json!({"sub": 1.5}),
            json!({"sub": -1}),
            json!({"sub": true, "id": "c"}),
            json!({"sub": ["a"]}),
            json!({"sub": "x".repeat(129)}),
            json!(["sub"]),
        ] {
            assert!(claims(&userinfo).is_err(), "t22: {userinfo}");
        }
        let twice = br#"{"sub": "a", "sub": "b"}"#;
        assert!(believing(|_| {}).claims(Unverified::default(), twice).is_err());
    }

    #[test]
    fn t22_roles_are_a_string_or_an_array_and_only_what_has_their_form_counts() {
        let keys = |userinfo: Value, confers: Confers| {
            let vouching = believing(|vouching| vouching.confers = confers);
            let claims = vouching.claims(Unverified::default(), userinfo.to_string().as_bytes()).unwrap();
            claims.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let any = || Confers::Any;
        assert_eq!(keys(json!({"id": 1, "roles": "ROLE_USER"}), any()), "ROLE_USER");
        assert_eq!(keys(json!({"id": 1, "roles": ["ROLE_B", "ROLE_A", "ROLE_A", 7]}), any()), "ROLE_A ROLE_B");
        assert_eq!(keys(json!({"id": 1, "role": "ROLE_USER"}), any()), "ROLE_USER");
        assert_eq!(
            keys(json!({"id": 1, "roles": [], "role": "ROLE_USER"}), any()),
            "",
            "`roles` says that there are none"
        );
        assert_eq!(keys(json!({"id": 1, "roles": "ROLE_A,ROLE_ROOT"}), any()), "");
        assert_eq!(keys(json!({"id": 1, "roles": {"ROLE_A": true}}), any()), "");
        let map = Confers::Map([("ADMIN".to_owned(), RoleKey::parse("ROLE_EDITOR").unwrap())].into());
        assert_eq!(keys(json!({"id": 1, "role": "ADMIN", "roles": null}), map), "ROLE_EDITOR");
        assert_eq!(keys(json!({"id": 1, "role": "ROLE_USER"}), Confers::Nothing), "");
    }

    #[test]
    fn t42_an_address_counts_only_if_it_is_said_to_be_verified() {
        let email = |userinfo: Value, verifies_email| {
            let vouching = believing(|vouching| vouching.verifies_email = verifies_email);
            vouching.claims(Unverified::default(), userinfo.to_string().as_bytes()).unwrap().email.is_some()
        };
        assert!(email(json!({"id": 1, "email": "a@b", "email_verified": true}), false));
        assert!(email(json!({"id": 1, "email": "a@b", "email_verified": "true"}), false));
        assert!(!email(json!({"id": 1, "email": "a@b"}), false), "silence is no proof");
        assert!(email(json!({"id": 1, "email": "a@b"}), true), "unless the service is known to verify all");
        for no in [json!(false), json!("false"), json!(1), json!("yes")] {
            assert!(!email(json!({"id": 1, "email": "a@b", "email_verified": no}), true), "{no}");
        }
    }

    #[test]
    fn memberships_come_in_two_forms() {
        for memberships in [
            json!({"oms": "PREMIUM", "bad name": "X", "shop": 7}),
            json!([{"service": "oms", "tier": "PREMIUM"}, {"service": "x"}, 7]),
            json!([{"service": "oms", "tier": "PREMIUM"}, {"service": "a", "tier": "X"}, {"service": "a", "tier": "Y"}]),
        ] {
            let held = claims(&json!({"id": 1, "memberships": memberships})).unwrap().memberships;
            let held: Vec<_> = held.iter().map(|held| format!("{}={}", held.service, held.tier)).collect();
            assert_eq!(held, ["oms=PREMIUM"], "{memberships}");
        }
        assert!(claims(&json!({"id": 1, "memberships": 7})).unwrap().memberships.is_empty());
    }

    #[test]
    fn t15_a_token_names_itself_for_revocations_and_an_opaque_one_is_older_than_every_floor() {
        let unverified = Unverified::read(&jwt(&json!({"jti": "j", "sid": "s", "iat": 100.9, "exp": 200, "sub": "x"})));
        let wanted = Unverified {
            token_id: Some("j".into()),
            session: Some("s".into()),
            issued_at: Some(Timestamp(100)),
            expires_at: Some(Timestamp(200)),
            key_id: Some("k1".into()),
        };
        assert_eq!(unverified, wanted);
        let claims = believing(|_| {}).claims(unverified, br#"{"id": 1, "sid": "other"}"#).unwrap();
        assert_eq!((claims.session.as_deref(), claims.token_id.as_deref()), (Some("s"), Some("j")));
        assert_eq!((&*claims.subject, claims.uv), ("1", None), "who it is says the service alone");
        for opaque in ["opaque", "a.b.c", "", "..", &jwt(&json!([])), "e30.e30.e30.e30"] {
            assert_eq!(Unverified::read(opaque), Unverified::default(), "{opaque}");
        }
        let opaque = believing(|_| {}).claims(Unverified::default(), br#"{"id": 1, "sid": "s2"}"#).unwrap();
        assert_eq!((opaque.issued_at, opaque.session.as_deref()), (Timestamp(0), Some("s2")));
        let absurd = Unverified::read(&jwt(&json!({"iat": 1e300, "exp": -1})));
        assert_eq!((absurd.issued_at, absurd.expires_at), (None, Some(Timestamp(0))));
        let odd = Unverified::read(&jwt(&json!({"jti": 7, "exp": "soon", "iat": null, "sid": ""})));
        assert_eq!(odd, Unverified { key_id: Some("k1".into()), ..Unverified::default() });
    }

    #[test]
    fn only_what_can_be_sent_on_as_it_came_is_a_token() {
        for good in ["a", "a.b.c", "A-_~+/9==", "eyJ.x.y"] {
            assert!(is_bearer_token(good), "{good}");
        }
        for bad in ["", "=", "a b", "a\r\nb", "a,b", "a=b", "\"a\"", "é", "a\0", "a:b", &"a".repeat(16 * 1024 + 1)] {
            assert!(!is_bearer_token(bad), "{bad:?}");
        }
    }
}
