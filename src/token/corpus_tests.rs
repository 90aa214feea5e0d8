//! Vectors that nobody here wrote: Wycheproof, the JOSE cookbook (RFC 7520), RFC 8037. They are found through
//! `DOORWARD_CORPORA` and skipped, loudly, without it.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::path::PathBuf;

use serde_json::{Value, json};

use super::check_signature;
use crate::token::compact::Compact;
use crate::token::fixtures::ALL;
use crate::token::jwk::{KeySet, Trust};

fn corpus(path: &str) -> Option<Value> {
    let Some(folder) = std::env::var_os("DOORWARD_CORPORA") else {
        eprintln!("skipped: DOORWARD_CORPORA is not set, so jwt/{path} cannot be found");
        return None;
    };
    let path = PathBuf::from(folder).join("jwt").join(path);
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

/// The JWS layer with exactly this key: does it verify, and what does it carry?
fn open(jws: &str, key: &Value) -> Result<Vec<u8>, String> {
    let keys = KeySet::parse(key.to_string().as_bytes(), &ALL, Trust::File).map_err(|error| error.0)?;
    let compact = Compact::parse(jws).map_err(|rejection| rejection.detail.into_owned())?;
    check_signature(&compact, &keys, &ALL, |key| key.is_good(crate::token::fixtures::NOW))
        .map_err(|rejection| rejection.detail.into_owned())?;
    Ok(compact.payload)
}

/// Where this verifier answers otherwise, and why it should.
const DEVIATIONS: [(&str, &str); 6] = [
    // A set that holds a symmetric key beside a public one is refused there, for fear that a token chooses how a key
    // is used. Here each key has one algorithm, fixed when it is read, and an operator's file may hold both.
    ("json_web_key_test#0.1", "a mixed set"),
    ("json_web_crypto_test#4.47", "a mixed set"),
    // Called invalid, and byte for byte the token of #21.357, which is called valid.
    ("json_web_signature_test#21.367", "the corpus contradicts itself"),
    ("json_web_signature_test#21.370", "the corpus contradicts itself"),
    // Called valid with a `?` in a part, which canonical base64url (SPEC 5.4) does not have.
    ("json_web_signature_test#21.372", "not base64url"),
    ("json_web_signature_test#21.373", "not base64url"),
];

#[test]
fn wycheproof_agrees() {
    let Some(corpus) = corpus("wycheproof_flat.json") else { return };
    let (mut checked, mut wrong) = (0, Vec::new());
    for test in corpus["tests"].as_array().unwrap() {
        // Some are in the JSON serialisation, which a bearer token never is.
        let jws = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
        let opened = open(&jws, &test["key"]);
        let in_scope = test["in_scope_alg"] == true;
        checked += usize::from(in_scope);
        // Out of scope are also good signatures of algorithms that are refused here.
        let differs = opened.is_ok() != (test["jws_result"] == "valid") && (in_scope || opened.is_ok());
        if differs != DEVIATIONS.iter().any(|(id, _)| test["id"] == *id) {
            wrong.push(format!("{} {} {}: {opened:?}", test["id"], test["comment"], test["jws_result"]));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(checked, 358);
}

#[test]
fn the_cookbook_agrees() {
    for (path, supported) in [
        ("rfc7520/jws/4_1.rsa_v15_signature.json", true),
        ("rfc7520/jws/4_2.rsa-pss_signature.json", false),
        ("rfc7520/jws/4_3.ecdsa_signature.json", false),
        ("rfc7520/jws/4_4.hmac-sha2_integrity_protection.json", true),
        ("rfc7520/curve25519/jws.json", true),
        ("rfc7520/rfc7797/4.2.hmac-sha2_b64_false.json", false),
    ] {
        let Some(example) = corpus(path) else { return };
        let Some(compact) = example["output"]["compact"].as_str() else { continue };
        let opened = open(compact, &example["input"]["key"]);
        assert_eq!(opened.is_ok(), supported, "{path}: {opened:?}");
        if supported {
            assert_eq!(String::from_utf8(opened.unwrap()).unwrap(), example["input"]["payload"].as_str().unwrap());
        }
    }
}

#[test]
fn the_cookbooks_private_keys_sign_what_their_public_ones_verify() {
    for (path, algorithm) in
        [("rfc7520/jwk/3_4.rsa_private_key.json", "RS256"), ("rfc7520/curve25519/jws.json", "EdDSA")]
    {
        let Some(document) = corpus(path) else { return };
        let mut jwk = if document["kty"].is_null() { document["input"]["key"].clone() } else { document };
        jwk["alg"] = json!(algorithm);
        let keys = KeySet::parse(jwk.to_string().as_bytes(), &ALL, Trust::File).unwrap();
        let signature = crate::token::fixtures::signature(b"message", keys.signing_key().unwrap());
        assert!(keys.keys[0].verify(b"message", &signature), "{path}");
    }
}
