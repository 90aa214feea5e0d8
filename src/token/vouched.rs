//! Claims of a token that a user service vouches for (SPEC 5.5): what the service says of its bearer, and what the token itself says
//! of its own identity.
//!
//! Nothing here verifies a signature. The service has accepted the token as a whole, so what the token says about *which* token it is
//! (`jti`, `sid`, `iat`, `kid`) serves to refuse it where it has been revoked, and `exp` to forget it in time; who the bearer is and
//! what it may do is the service's word alone.
//!
//! Before the service is asked, three kinds of tokens are refused, because what is revoked would not reach them: those that outlive the
//! memory of revocations (T5), JWTs of which the service may read more than is read here (T15), and, where a blacklist names tokens by
//! their text, other spellings of a JWT's signature.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::claims::{self, Claims};
use super::issuer::Confers;
use super::json::{decode_base64url, parse_object};
use super::verify::{ISSUED_IN_THE_FUTURE, MAX_TOKEN_BYTES, TokenRejection};
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
    /// Seconds for which a token may live that says when it ends: for as long what is revoked is remembered (T5).
    pub max_lifetime: i64,
    /// Whether other spellings of a JWT's signature are refused: where a blacklist names tokens by their text, a service that reads
    /// leniently would take them for the token that stands there (T15). Elsewhere the service says what it thinks of them.
    pub one_spelling: bool,
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
        match Form::of(token) {
            Form::Signed(unverified) => unverified,
            Form::Encrypted | Form::Opaque | Form::Unreadable => Self::default(),
        }
    }

    fn of(header: &Map<String, Value>, payload: &Map<String, Value>) -> Self {
        let text = |of: &Map<String, Value>, name: &str| {
            of.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(Box::from)
        };
        let time = |name, round| claims::numeric_date(payload, name, round).ok().flatten();
        // A token of the year 9999 would be younger than every floor: it does not say when it was issued.
        let issued_at = time("iat", f64::floor).filter(|time| *time < claims::LATEST);
        Self {
            token_id: text(payload, "jti"),
            session: text(payload, "sid"),
            issued_at,
            expires_at: time("exp", f64::floor),
            key_id: text(header, "kid"),
        }
    }
}

/// What a token is, by its form.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// A JWT that is read here as by everybody.
    Signed(Unverified),
    /// An encrypted JWT, of which nothing can be read here.
    Encrypted,
    /// A JWT of which the service may read what is not read here: it has more parts than it should, or holds what not all readers take
    /// (a lone surrogate, deep nesting, `NaN`, two members of one name). Its bearer may have chosen a claim for this.
    Unreadable,
    /// No JWT: what it says knows the service alone.
    Opaque,
}

impl Form {
    fn of(token: &str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let [first, second, _, ..] = parts.as_slice() else { return Self::Opaque };
        let Some(header) = object_text(first) else { return Self::Opaque };
        let header: Option<Map<String, Value>> = serde_json::from_slice(&header).ok();
        // A header that cannot be read may have any member.
        let has = |name| header.as_ref().is_none_or(|header| header.contains_key(name));
        if header.is_some() && has("enc") {
            // RFC 7516 section 3.1. What is signed has no `enc`, so that no signed token passes for an encrypted one.
            return if parts.len() == 5 { Self::Encrypted } else { Self::Unreadable };
        }
        // Other forms begin with an object too, and go on with a time or a signature (itsdangerous, for one).
        if !has("alg") && object_text(second).is_none() {
            return Self::Opaque;
        }
        let object = |part: &str| parse_object(&decode_base64url(part)?).ok();
        match (parts.len(), object(first), object(second)) {
            (3, Some(header), Some(payload)) => Self::Signed(Unverified::of(&header, &payload)),
            _ => Self::Unreadable,
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

/// Reads what the most lenient service reads.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The text of a part that the most lenient service may take for a JSON object, whatever is in it.
fn object_text(part: &str) -> Option<Vec<u8>> {
    let mut signs: Vec<u8> = part.bytes().filter(|sign| !matches!(sign, b'=' | b'~')).collect();
    for sign in &mut signs {
        match *sign {
            b'+' => *sign = b'-',
            b'/' => *sign = b'_',
            _ => {}
        }
    }
    if signs.len() % 4 == 1 {
        signs.pop();
    }
    let text = LENIENT.decode(signs).ok()?;
    let inner = text.trim_ascii();
    (inner.starts_with(b"{") && inner.ends_with(b"}")).then_some(text)
}

/// Whether the parts of a JWT are canonical base64url without padding (RFC 7515 section 2). Nobody's signature is over how the signature
/// is spelt.
fn is_canonical(token: &str) -> bool {
    token.split('.').all(|part| decode_base64url(part).is_some())
}

const UNREADABLE: TokenRejection = TokenRejection::malformed(
    "the token is a JWT that another reader could read differently: it needs three parts of canonical base64url, and in its header and \
     payload JSON of at most 16 levels, without lone surrogates and without two members of one name",
);
const MISSPELT: TokenRejection = TokenRejection::malformed("the token is a JWT that is not canonical base64url");
const TOO_LONG_LIVED: TokenRejection =
    TokenRejection::malformed("the token lives longer than `auth.iam_service.max_lifetime` (`exp` less `iat`)");

impl Vouching {
    /// Whether the service may be asked about a token. What it was once asked about, it may be asked about again.
    ///
    /// # Errors
    /// [`TokenRejection`] where what is revoked here would not reach the token.
    pub fn may_be_asked_about(&self, token: &str, now: Timestamp) -> Result<(), TokenRejection> {
        let Unverified { token_id, issued_at, expires_at, .. } = match Form::of(token) {
            Form::Unreadable => return Err(UNREADABLE),
            Form::Opaque => Unverified::default(),
            Form::Signed(_) | Form::Encrypted if self.one_spelling && !is_canonical(token) => return Err(MISSPELT),
            Form::Signed(unverified) => unverified,
            Form::Encrypted => Unverified::default(),
        };
        token_id.as_deref().map_or(Ok(()), |id| claims::token_id(id).map(drop))?;
        let latest = now.plus(self.leeway);
        if issued_at.is_some_and(|at| at > latest) {
            return Err(ISSUED_IN_THE_FUTURE);
        }
        if self.earliest(expires_at).is_some_and(|earliest| earliest > issued_at.unwrap_or(latest)) {
            return Err(TOO_LONG_LIVED);
        }
        Ok(())
    }

    /// When a token with this `exp` was issued at the earliest.
    fn earliest(&self, expires_at: Option<Timestamp>) -> Option<Timestamp> {
        expires_at.map(|at| at.plus(-self.max_lifetime))
    }

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
            foreign_session: None,
            token_id: unverified.token_id,
            uv: None,
            name: given("name").and_then(claims::shown_text),
            email: given("email").filter(|_| verified).and_then(claims::shown_text),
            // T5: what does not say when it was issued is as old as it can be, and without an end older than every floor.
            issued_at: unverified.issued_at.or(self.earliest(unverified.expires_at)).unwrap_or(Timestamp(0)),
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
    use crate::reason::Reason;

    fn jwt(payload: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", encode(&json!({"alg": "HS256", "kid": "k1"})), encode(payload))
    }

    fn believing(more: impl FnOnce(&mut Vouching)) -> Vouching {
        let mut vouching = Vouching {
            confers: Confers::Any,
            admin: false,
            verifies_email: false,
            leeway: 30,
            max_lifetime: 3600,
            one_spelling: true,
        };
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
    fn t05_what_outlives_the_memory_of_revocations_is_not_asked_about() {
        const NOW: i64 = 1_790_000_000;
        let reason = |payload: Value| {
            let asked = believing(|_| {}).may_be_asked_about(&jwt(&payload), Timestamp(NOW));
            asked.err().map(|rejection| rejection.reason)
        };
        for (payload, refused) in [
            (json!({"iat": NOW, "exp": NOW + 3600}), None),
            (json!({"iat": NOW, "exp": NOW + 3601}), Some(Reason::MalformedToken)),
            (json!({"iat": NOW - 3000, "exp": NOW + 601}), Some(Reason::MalformedToken)),
            (json!({"iat": NOW + 30, "exp": NOW + 3630}), None),
            (json!({"iat": NOW + 31, "exp": NOW + 60}), Some(Reason::NotYetValid)),
            (json!({"iat": NOW + 31}), Some(Reason::NotYetValid)),
            (json!({"exp": NOW + 3630}), None),
            (json!({"exp": NOW + 3631}), Some(Reason::MalformedToken)),
            (json!({"iat": NOW, "exp": NOW * 1000}), Some(Reason::MalformedToken)),
            (json!({"iat": NOW * 1000, "exp": NOW * 1000}), Some(Reason::MalformedToken)),
            (json!({"iat": "soon", "exp": NOW - 9}), None),
            (json!({"iat": NOW - 9_000_000}), None),
            (json!({"exp": null}), None),
            (json!({"jti": "j".repeat(1024)}), None),
            (json!({"jti": "j".repeat(1025)}), Some(Reason::MalformedToken)),
            (json!({}), None),
        ] {
            assert_eq!(reason(payload.clone()), refused, "{payload}");
        }
        assert_eq!(believing(|_| {}).may_be_asked_about("opaque", Timestamp(NOW)), Ok(()));
        let issued_at = |payload: Value| {
            believing(|_| {}).claims(Unverified::read(&jwt(&payload)), br#"{"id": 1}"#).unwrap().issued_at
        };
        assert_eq!(issued_at(json!({"exp": NOW})), Timestamp(NOW - 3600));
        assert_eq!(issued_at(json!({"exp": NOW, "iat": NOW - 5})), Timestamp(NOW - 5));
        assert_eq!(issued_at(json!({})), Timestamp(0));
    }

    /// A JWT with this payload, as it is written.
    fn jwt_of(payload: &str) -> String {
        let [header, payload] = [r#"{"alg":"HS256","kid":"k1"}"#, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{payload}.c2ln")
    }

    #[test]
    fn t15_a_jwt_that_the_service_may_read_otherwise_is_not_asked_about() {
        let asked = |token: &str, one_spelling| {
            let vouching = believing(|vouching| vouching.one_spelling = one_spelling);
            vouching.may_be_asked_about(token, Timestamp(0)).map_err(|rejection| rejection.reason)
        };
        let token = jwt(&json!({"jti": "j"}));
        let (header, rest) = token.split_once('.').unwrap();
        let deep = |levels: usize| format!(r#"{{"jti":"j","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let encrypted = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
        let (shallow, deep) = (jwt_of(&deep(15)), jwt_of(&deep(16)));
        for unreadable in [
            format!("{token}.x"),
            format!("{token}."),
            format!("{token}.AA.AA"),
            format!("{token}.."),
            jwt_of(r#"{"jti":"j","x":"\ud800"}"#),
            jwt_of(r#"{"jti":"j","\udfff":1}"#),
            jwt_of(r#"{"jti":"j","x":NaN}"#),
            jwt_of(r#"{"jti":"j","x":1e999}"#),
            jwt_of(r#"{"jti":"j","jti":"k"}"#),
            jwt_of("\n{\"jti\":\"j\",\"x\":\"\t\"}\n"),
            jwt_of("[]"),
            jwt_of("not JSON"),
            deep,
            format!("{header}~.{rest}"),
            format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"\ud800"}"#)),
            format!("{}.{rest}.x", URL_SAFE_NO_PAD.encode("{}")),
            format!("{encrypted}.{rest}"),
            format!("{encrypted}.a2V5.aXY.dGV4dA.dGFn.x"),
        ] {
            for one_spelling in [true, false] {
                assert_eq!(asked(&unreadable, one_spelling), Err(Reason::MalformedToken), "{unreadable}");
            }
            assert_eq!(Unverified::read(&unreadable), Unverified::default());
        }
        assert_eq!(Unverified::read(&shallow).token_id.as_deref(), Some("j"));
        for other in [
            token.clone(),
            shallow,
            format!("{encrypted}.a2V5.aXY.dGV4dA.dGFn"),
            format!("{encrypted}..aXY.dGV4dA.dGFn"),
            "a.b.c~".to_owned(),
            "a.b.c.d".to_owned(),
            "opaque==".to_owned(),
            // Two parts are a form of somebody's own, and so is what has no header but its content there.
            format!("{header}.c2ln~"),
            format!("{}.Cl2FMQ.ZnCjm1XVW7v~", URL_SAFE_NO_PAD.encode(r#"{"id":1}"#)),
        ] {
            assert_eq!((asked(&other, true), asked(&other, false)), (Ok(()), Ok(())), "{other}");
        }
    }

    #[test]
    fn t15_where_tokens_are_named_by_their_text_a_signature_has_one_spelling() {
        let token = jwt(&json!({"jti": "j"}));
        let (signed, _) = token.rsplit_once('.').unwrap();
        let encrypted = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
        let may_be_asked = |token: &str, one_spelling| {
            let vouching = believing(|vouching| vouching.one_spelling = one_spelling);
            vouching.may_be_asked_about(token, Timestamp(0)).is_ok()
        };
        for one in [format!("{signed}."), format!("{signed}.Zg")] {
            assert!(may_be_asked(&one, true), "{one}");
        }
        for other in [
            format!("{signed}.Zg=="),
            format!("{signed}.Zh"),
            format!("{signed}.Zg~"),
            format!("{signed}.Z"),
            format!("{signed}.a+b/"),
            format!("{encrypted}.a2V5.aXY.dGV4dA.dGFn~"),
        ] {
            assert!(!may_be_asked(&other, true), "{other}");
            assert!(may_be_asked(&other, false), "{other}: elsewhere the service says what it thinks of it");
        }
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
