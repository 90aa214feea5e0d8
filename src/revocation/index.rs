//! The concurrent index: a read is a hash and a lookup in one of 256 shards.

use crate::clock::Timestamp;

/// What a request presents to be held against the index. This room is on the same floor as `token` and
/// does not know its claims.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'t> {
    /// Name of the issuer in the configuration.
    pub issuer: &'t str,
    /// Subject id, prefix included.
    pub subject: &'t str,
    /// `jti`.
    pub token_id: Option<&'t str>,
    /// `sid`.
    pub session: Option<&'t str>,
    /// `kid` of the verifying key.
    pub key_id: Option<&'t str>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// The issuer's leeway in seconds, if it is a foreign one: a floor taken at T refuses `iat ≤ T + leeway` (T14).
    pub leeway: i64,
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// Token, session, key, or an older token of a subject that was logged out everywhere.
    Revoked,
    /// The subject is disabled.
    Disabled,
}

/// The index.
#[derive(Debug, Default)]
pub struct RevocationIndex {}

impl RevocationIndex {
    /// How a token stands at `now`.
    #[must_use]
    pub fn standing(&self, presented: &Presented<'_>, now: Timestamp) -> Standing {
        let _ = (presented, now);
        todo!()
    }
}
