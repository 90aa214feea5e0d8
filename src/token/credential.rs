//! Exactly one credential, or none (RFC 6750 section 2.1).

use http::HeaderMap;

/// What the request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'h> {
    /// No `Authorization` header, or one of another scheme.
    None,
    /// One bearer token, not yet verified.
    Bearer(&'h str),
    /// Two headers, an empty token, bytes outside `b64token`, over 16 KiB: `malformed_token`, with what was found.
    Malformed(&'static str),
}

/// Finds the credential.
#[must_use]
pub fn find(headers: &HeaderMap) -> Credential<'_> {
    let _ = headers;
    todo!()
}
