//! Bearer tokens: find exactly one, verify it with `now` given, remember that it was good; mint.
//!
//! Must not know: the network, policies, HTTP beyond the credential's headers.

pub mod cache;
pub mod claims;
mod compact;
pub mod credential;
#[cfg(test)]
mod fixtures;
pub mod issuer;
pub mod issuer_keys;
pub(crate) mod json;
pub mod jwk;
mod key_material;
pub mod local_keys;
pub mod mint;
pub mod pasted;
pub mod signer;
pub mod verify;
pub mod vouched;

pub use self::cache::{Entry, NearCache, TokenCache};
pub use self::claims::Claims;
pub use self::credential::Credential;
pub use self::issuer::{Algorithm, ClaimPaths, Confers, Issuer, RolesFrom};
pub use self::issuer_keys::{Exchanged, IssuerKeys, UnknownKid};
pub use self::jwk::{Key, KeySet, KeySetError};
pub use self::signer::Signer;
pub use self::verify::{TokenRejection, Verifier};
