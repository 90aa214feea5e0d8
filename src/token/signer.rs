//! Signing what doorward says in its own name to the services behind it: compact JWS by Ed25519 (RFC 7515, RFC 8037).
//!
//! A key that signs here signs nothing else, and what it signs has a `typ` of its own that no issuer accepts (THREATS T19).

use std::fmt;

use aws_lc_rs::signature::Ed25519KeyPair;
use serde::Serialize;
use serde_json::{Value, json};

use super::issuer::Algorithm;
use super::json::encode_base64url;
use super::jwk::{KeySet, KeySetError};

/// A key pair, parsed once, and the header of everything that it signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    /// The encoded header and the dot behind it.
    header: String,
    published: Value,
}

impl fmt::Debug for Signer {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("published", &self.published).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with the first private key of the set, under this `typ`. All keys of the set are published, so that one can be
    /// announced before it signs, and verify after it did.
    ///
    /// # Errors
    /// [`KeySetError`] where no key of the set has its private half, or that one is no Ed25519 key or has no `kid`.
    pub fn new(keys: &KeySet, typ: &str) -> Result<Self, KeySetError> {
        let refused = |why: &str| KeySetError(why.to_owned());
        let key = keys.signing_key().ok_or_else(|| refused("none of the keys has its private half"))?;
        let id = key.id.as_deref().ok_or_else(|| refused("the key to sign with has no `kid`"))?;
        let signing = key.signing().filter(|_| key.algorithm == Algorithm::EdDSA);
        let signing = signing.ok_or_else(|| refused("the key to sign with is no Ed25519 key"))?;
        let pair = Ed25519KeyPair::from_pkcs8(signing.0.as_bytes());
        let pair = pair.map_err(|_| refused("the key to sign with is refused by the cryptographic library"))?;
        let header = json!({ "alg": key.algorithm.name(), "kid": id, "typ": typ }).to_string();
        let header = format!("{}.", encode_base64url(header.as_bytes()));
        Ok(Self { pair, header, published: keys.public_jwks() })
    }

    /// Signs a payload; `None` if the cryptographic library fails.
    #[must_use]
    pub fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let payload = serde_json::to_vec(claims).ok()?;
        let mut token = String::with_capacity(self.header.len() + payload.len() * 4 / 3 + 96);
        token.push_str(&self.header);
        token.push_str(&encode_base64url(&payload));
        let signature = self.pair.try_sign(token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&encode_base64url(signature.as_ref()));
        Some(token)
    }

    /// The public halves as a JWK set.
    #[must_use]
    pub fn published(&self) -> &Value {
        &self.published
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::token::jwk::Trust;

    fn keys(algorithm: Algorithm) -> KeySet {
        KeySet::parse(KeySet::generate(algorithm).unwrap().expose(), &[algorithm], Trust::File).unwrap()
    }

    #[test]
    fn what_is_signed_verifies_under_what_is_published() {
        let keys = keys(Algorithm::EdDSA);
        let signer = Signer::new(&keys, "x+jwt").unwrap();
        let token = signer.sign(&json!({ "a": 1 })).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let published =
            KeySet::parse(signer.published().to_string().as_bytes(), &[Algorithm::EdDSA], Trust::Url).unwrap();
        assert!(published.keys[0].verify(message.as_bytes(), signature));
        assert!(!published.keys[0].verify(message.replace('.', ".e").as_bytes(), signature));
        assert!(!format!("{signer:?}").contains("\"d\""));
        assert!(signer.published()["keys"][0].get("d").is_none());
    }

    #[test]
    fn a_set_without_an_ed25519_key_to_sign_with_is_refused() {
        assert!(Signer::new(&keys(Algorithm::ES256), "x+jwt").unwrap_err().0.contains("Ed25519"));
        let public = keys(Algorithm::EdDSA).public_jwks().to_string();
        let public = KeySet::parse(public.as_bytes(), &[Algorithm::EdDSA], Trust::Url).unwrap();
        assert!(Signer::new(&public, "x+jwt").unwrap_err().0.contains("private half"));
    }
}
