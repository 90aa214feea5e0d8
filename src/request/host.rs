//! The host that a request addresses (RFC 9110 section 7.2, RFC 9112 section 3.2; THREATS T24).

use super::Rejection;

/// A host name or address literal as it is compared: ASCII lower case, without port, without one
/// trailing dot. IPv6 literals keep their brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

impl Host {
    /// Reads the value of a `Host` header or the authority of an absolute target.
    ///
    /// # Errors
    /// `bad_request` for user info, bytes outside the grammar of RFC 3986 `reg-name` without percent
    /// escapes, an empty name or a port that is no number.
    pub fn parse(authority: &[u8]) -> Result<Self, Rejection> {
        let _ = authority;
        todo!()
    }

    /// The name, for comparing and for forwarding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
