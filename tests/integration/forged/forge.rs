//! Whose tokens are imitated, and by what means.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Issuer, now};

/// The subject of every forged token. No log may name somebody whose token was refused.
pub(super) const MALLORY: &str = "mallory-4711-of-the-forge";
/// Stands in every forged payload and, where there is room, in the header.
pub(super) const CANARY: &str = "canary-in-a-coal-mine-0815";

/// One issuer of a running gateway, imitated with its own key.
pub(super) struct Forge<'s> {
    /// The issuer, with the key that signs here.
    pub(super) victim: &'s Issuer,
    /// Whether these are doorward's own keys.
    pub(super) own: bool,
    /// All keys that doorward has of this issuer, the victim's among them.
    pub(super) keys: &'s [Issuer],
    /// Keys of other issuers that the same gateway accepts.
    pub(super) others: Vec<&'s Issuer>,
    /// Whether the key is a bare secret, which has no `kid`.
    pub(super) nameless: bool,
    /// Whether the issuer is configured without `iss` and `aud`, for older tokens.
    pub(super) unnamed: bool,
}

impl Forge<'_> {
    pub(super) fn header(&self) -> Value {
        let mut header = json!({ "alg": self.victim.algorithm, "typ": "at+jwt", "x-note": CANARY });
        if !self.nameless {
            header["kid"] = self.victim.key_id.into();
        }
        header
    }

    pub(super) fn claims(&self) -> Value {
        let now = now();
        json!({
            "iss": self.victim.url, "aud": "oms", "sub": MALLORY, "iat": now - 10, "nbf": now - 10, "exp": now + 600,
            "jti": uuid::Uuid::new_v4().to_string(), "roles": ["ROLE_VIEWER"], "x-note": CANARY,
        })
    }

    /// A token that is accepted.
    pub(super) fn good(&self) -> String {
        self.signed(&self.header(), &self.claims())
    }

    pub(super) fn signed(&self, header: &Value, claims: &Value) -> String {
        self.victim.sign_text(header.to_string(), claims.to_string())
    }

    /// A good token but for this claim.
    pub(super) fn claim(&self, name: &str, value: impl Into<Value>) -> String {
        self.signed(&self.header(), &with(self.claims(), name, value))
    }

    /// A good token but for this claim, whose value is written as it stands here.
    pub(super) fn claim_as_text(&self, name: &str, text: &str) -> String {
        let claims = with(self.claims(), name, "PLACE").to_string().replacen("\"PLACE\"", text, 1);
        self.victim.sign_text(self.header().to_string(), claims)
    }

    /// A good token without this claim.
    pub(super) fn without(&self, name: &str) -> String {
        self.signed(&self.header(), &without(self.claims(), name))
    }

    /// A good token but for this member of the header.
    pub(super) fn head(&self, name: &str, value: impl Into<Value>) -> String {
        self.signed(&with(self.header(), name, value), &self.claims())
    }

    /// What a token is refused for that says another `alg` than the victim's key has, with the key's `kid` or without.
    pub(super) fn swapped(&self, algorithm: &str, with_key_id: bool) -> &'static str {
        if with_key_id && !self.nameless {
            return "alg_not_allowed";
        }
        match self.keys.iter().filter(|key| key.algorithm == algorithm).count() {
            0 => "alg_not_allowed",
            1 => "bad_signature",
            _ => "unknown_key",
        }
    }
}

pub(super) fn with(mut object: Value, member: &str, value: impl Into<Value>) -> Value {
    object[member] = value.into();
    object
}

pub(super) fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member);
    object
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header, payload and signature as they are, encoded.
pub(super) fn compact(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, signature: impl AsRef<[u8]>) -> String {
    format!("{}.{}.{}", encode(header), encode(payload), encode(signature))
}

/// The three parts of a token.
pub(super) fn parts(token: &str) -> [&str; 3] {
    let mut parts = token.split('.');
    [(); 3].map(|()| parts.next().expect("three parts"))
}

/// The bytes of the signature of a token.
pub(super) fn signature_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(parts(token)[2]).unwrap()
}

/// The token with another signature.
pub(super) fn resigned(token: &str, signature: impl AsRef<[u8]>) -> String {
    let [header, payload, _] = parts(token);
    format!("{header}.{payload}.{}", encode(signature))
}

/// A token under an HMAC key.
pub(super) fn by_hmac(algorithm: hmac::Algorithm, secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
    format!("{message}.{}", encode(tag))
}
