//! Verification (RFC 7515, RFC 7519, RFC 8725; SPEC 5.4). Pure: `now` is given, keys are given.

use std::borrow::Cow;

use super::claims::Claims;
use super::issuer::Issuer;
use crate::clock::Timestamp;
use crate::reason::Reason;

/// Longest accepted token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRejection {
    /// One of the 401 reasons.
    pub reason: Reason,
    /// What was found, without any part of the token.
    pub detail: Cow<'static, str>,
}

/// All accepted issuers, immutable; a change of keys or settings makes a new one.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
}

impl Verifier {
    /// Accepts tokens of these issuers.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self { issuers }
    }

    /// The issuers.
    #[must_use]
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Verifies a compact JWS and checks its claims.
    ///
    /// # Errors
    /// [`TokenRejection`] with the reason.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenRejection> {
        let _ = (token, now, &self.issuers);
        todo!()
    }
}
