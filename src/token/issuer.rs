//! Whose tokens are accepted, and what they may say (SPEC 2 and 5.4; THREATS T5 to T7, T19).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::issuer_keys::IssuerKeys;
use crate::rbac::RoleKey;

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Its name in `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of this name, compared exactly (RFC 7515 section 4.1.1).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::HS256, Self::RS256, Self::ES256, Self::EdDSA].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// Where claims are found: the name of a member, taken whole if there is one (`https://example.com/roles`), else a
/// dotted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPaths {
    /// Default `sub`.
    pub subject: String,
    /// Default `roles`.
    pub roles: String,
    /// Default `memberships`.
    pub memberships: String,
    /// Default `sid`.
    pub session: String,
    /// Default `name`.
    pub name: String,
    /// Default `email`.
    pub email: String,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        Self {
            subject: "sub".into(),
            roles: "roles".into(),
            memberships: "memberships".into(),
            session: "sid".into(),
            name: "name".into(),
            email: "email".into(),
        }
    }
}

/// Which roles a foreign issuer may confer (T7).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Confers {
    /// None, the default.
    #[default]
    Nothing,
    /// Any well-formed `ROLE_…` in the token.
    Any,
    /// These only.
    List(Vec<RoleKey>),
    /// The issuer's own words, and what they become here.
    Map(BTreeMap<String, RoleKey>),
}

/// Whose roles count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RolesFrom {
    /// The token's.
    #[default]
    Token,
    /// Those published by doorward; the token's are ignored.
    Doorward,
}

/// One accepted issuer, ready to verify with.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The exact `iss`; `None` (allowed with one issuer only) accepts tokens without one.
    pub issuer: Option<String>,
    /// Accepted audiences; empty accepts tokens whatever their `aud`.
    pub audience: Vec<String>,
    /// Allowed algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: Arc<IssuerKeys>,
    /// Where claims are found.
    pub claims: ClaimPaths,
    /// Longest accepted `exp − iat`.
    pub max_lifetime: Duration,
    /// Leeway for `exp`, `nbf` and `iat` of foreign tokens; for doorward's own it does not extend `exp` (T13).
    pub leeway: Duration,
    /// Whether these are doorward's own keys: then `typ` must be `at+jwt` (T19), and `uv`, `sid` and
    /// memberships are believed (T7).
    pub own: bool,
    /// Put before every subject, e.g. `kc:`.
    pub subject_prefix: String,
    /// Whose roles count.
    pub roles_from: RolesFrom,
    /// Which roles it may confer.
    pub confers: Confers,
    /// Whether it may confer administrators' roles.
    pub admin: bool,
}
