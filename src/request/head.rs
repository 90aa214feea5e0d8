//! What the raw head of an HTTP/1.1 request must be before a parser may see it (RFC 9112).
//!
//! hyper accepts bare line feeds, joins equal `Content-Length`s, drops `Content-Length` beside
//! `Transfer-Encoding` and cuts a target at `#` before a service sees the request. A proxy that guards
//! another parser must not: whatever two parsers could read differently is refused here.

use super::Rejection;

/// How the body that follows a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body follows.
    None,
    /// This many bytes follow; never 0.
    Length(u64),
    /// Chunks follow.
    Chunked,
}

/// What was learned from a head that may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadFacts {
    /// The framing of the body.
    pub framing: Framing,
    /// Whether the client asked for an upgrade, after which bytes are no longer HTTP/1.1 messages.
    pub upgrade: bool,
}

/// Limits on one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, request line included.
    pub bytes: usize,
    /// Number of header lines.
    pub headers: usize,
}

/// Finds the end of a head: the index behind the empty line, if it is complete. `from` is how many
/// leading bytes earlier calls have seen (so that slow heads cost linear time).
#[must_use]
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let _ = (bytes, from);
    todo!()
}

/// Checks one complete head (request line, header lines, empty line).
///
/// # Errors
/// A [`Rejection`]: `bad_request` (framing, header syntax, Host), `bad_request_target`, or `headers_too_large`.
pub fn inspect(head: &[u8], limits: &HeadLimits) -> Result<HeadFacts, Rejection> {
    let _ = (head, limits);
    todo!()
}
