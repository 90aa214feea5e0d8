//! Key sets (RFC 7517), from a file, a URL's body or a shared secret.

use super::issuer::Algorithm;
use crate::secret::Secret;

/// Whether symmetric keys may be in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A file on this machine: `oct` keys are accepted.
    File,
    /// Fetched by URL: `oct` keys are refused.
    Url,
}

/// One verification key (and perhaps its private half).
#[derive(Debug)]
pub struct Key {
    /// `kid`.
    pub id: Option<Box<str>>,
    /// The one algorithm it verifies.
    pub algorithm: Algorithm,
}

/// The keys of one issuer. Never shared between issuers.
#[derive(Debug)]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<Key>,
}

/// Why a key set is refused; the text names the key by its place or `kid` and the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeySetError(pub String);

impl KeySet {
    /// Reads a JWK set (or one JWK).
    ///
    /// # Errors
    /// [`KeySetError`] for malformed JSON, no usable key, a weak key (HS256 under 32 bytes, RSA under 2,048 bits), an `oct` key from a URL,
    /// an `alg` outside `allowed`, two keys with the same `kid`.
    pub fn parse(json: &[u8], allowed: &[Algorithm], trust: Trust) -> Result<Self, KeySetError> {
        let _ = (json, allowed, trust);
        todo!()
    }

    /// The set of one shared HS256 secret, without `kid`.
    ///
    /// # Errors
    /// [`KeySetError`] for under 32 bytes.
    pub fn shared_secret(secret: &Secret) -> Result<Self, KeySetError> {
        let _ = secret;
        todo!()
    }
}
