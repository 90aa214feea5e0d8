//! Keys, issuers and tokens for this room's tests. Any text can be signed here, however wrong.
#![expect(clippy::unwrap_used, reason = "test fixtures")]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::issuer::{Algorithm, ClaimPaths, Confers, Issuer, RolesFrom};
use super::issuer_keys::IssuerKeys;
use super::json::encode_base64url;
use super::jwk::{Key, KeySet, Trust};
use crate::clock::Timestamp;

pub(super) const NOW: Timestamp = Timestamp(1_800_000_000);
pub(super) const ALL: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// One private key of each algorithm, with its name as `kid`, made once a run.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let keys: Vec<Value> = ALL
        .iter()
        .map(|algorithm| {
            let document: Value = serde_json::from_slice(KeySet::generate(*algorithm).unwrap().expose()).unwrap();
            let mut key = document["keys"][0].clone();
            key["kid"] = algorithm.name().into();
            key
        })
        .collect();
    json!({ "keys": keys })
});

pub(super) fn private_jwk(algorithm: Algorithm) -> Value {
    DOCUMENT["keys"].as_array().unwrap().iter().find(|key| key["alg"] == algorithm.name()).unwrap().clone()
}

pub(super) fn keys() -> Arc<KeySet> {
    static KEYS: LazyLock<Arc<KeySet>> =
        LazyLock::new(|| Arc::new(KeySet::parse(DOCUMENT.to_string().as_bytes(), &ALL, Trust::File).unwrap()));
    Arc::clone(&KEYS)
}

pub(super) fn key(keys: &KeySet, algorithm: Algorithm) -> &Key {
    keys.keys.iter().find(|key| key.algorithm == algorithm).unwrap()
}

/// A foreign issuer with a key of each algorithm, that may confer any role.
pub(super) fn foreign() -> Issuer {
    Issuer {
        name: "kc".into(),
        issuer: Some("https://kc.example".into()),
        audience: vec!["oms".into()],
        algorithms: ALL.to_vec(),
        keys: IssuerKeys::fixed(keys()),
        claims: ClaimPaths::default(),
        max_lifetime: Duration::from_secs(3600),
        leeway: Duration::from_secs(30),
        own: false,
        subject_prefix: "kc:".into(),
        roles_from: RolesFrom::Token,
        confers: Confers::Any,
        admin: false,
    }
}

/// doorward's own issuer, with the same keys.
pub(super) fn own() -> Issuer {
    Issuer {
        name: "doorward".into(),
        issuer: Some("http://127.0.0.1:8001".into()),
        own: true,
        subject_prefix: String::new(),
        confers: Confers::Nothing,
        ..foreign()
    }
}

/// Claims that [`foreign`] accepts.
pub(super) fn claims() -> Value {
    json!({
        "iss": "https://kc.example", "sub": "alice", "aud": "oms", "jti": "t-1", "roles": ["ROLE_USER"],
        "iat": NOW.0 - 10, "nbf": NOW.0 - 10, "exp": NOW.0 + 600,
    })
}

/// Claims that [`own`] accepts.
pub(super) fn own_claims() -> Value {
    with(claims(), "iss", json!("http://127.0.0.1:8001"))
}

pub(super) fn with(mut object: Value, member: &str, value: Value) -> Value {
    object[member] = value;
    object
}

pub(super) fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member);
    object
}

pub(super) fn header(algorithm: Algorithm) -> Value {
    json!({ "alg": algorithm.name(), "kid": algorithm.name(), "typ": "at+jwt" })
}

/// Signs the two texts as they are.
pub(super) fn sign(header: &str, payload: &str, key: &Key) -> String {
    let input = format!("{}.{}", encode_base64url(header.as_bytes()), encode_base64url(payload.as_bytes()));
    let signature = signature(input.as_bytes(), key);
    format!("{input}.{signature}")
}

pub(super) fn signature(message: &[u8], key: &Key) -> String {
    jsonwebtoken::crypto::sign(message, &key.signing().unwrap().0, key.algorithm.into()).unwrap()
}

/// A token with these claims, signed by the fixture's EdDSA key.
pub(super) fn token(claims: &Value) -> String {
    token_by(Algorithm::EdDSA, claims)
}

pub(super) fn token_by(algorithm: Algorithm, claims: &Value) -> String {
    let keys = keys();
    sign(&header(algorithm).to_string(), &claims.to_string(), key(&keys, algorithm))
}
