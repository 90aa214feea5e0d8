//! What a verified token says, checked and made ready.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey};

/// The claims of a verified token. Everything in it has passed its grammar (T22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Name of the issuer in the configuration.
    pub issuer: Arc<str>,
    /// Subject id, prefix included: 1 to 128 bytes of `!`–`~` without `,`, `=` and `%`.
    pub subject: Box<str>,
    /// Roles that the issuer may confer, sorted, without duplicates. Unknown ones may be among them.
    pub roles: Box<[RoleKey]>,
    /// Memberships; only from doorward's own keys.
    pub memberships: Box<[Membership]>,
    /// Whether the issuer may confer administrators' roles (`admin = true`, or doorward's own).
    pub admin: bool,
    /// Session; only from doorward's own keys.
    pub session: Option<Box<str>>,
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// Change number as of which the claims are true; only from doorward's own keys.
    pub uv: Option<u64>,
    /// Display name.
    pub name: Option<Box<str>>,
    /// E-mail address, if verified (`email_verified` is not `false`) (T42).
    pub email: Option<Box<str>>,
    /// `iat`, or `exp − max_lifetime` where it is missing (T5).
    pub issued_at: Timestamp,
    /// `exp`, plus the leeway that applies: from then on it is refused.
    pub expires_at: Timestamp,
    /// `nbf` less the leeway that applies: before then it is refused.
    pub not_before: Option<Timestamp>,
    /// `kid` of the key that verified it, if it has one.
    pub key_id: Option<Box<str>>,
}
