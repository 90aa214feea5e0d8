//! From HTTP parts to [`RequestFacts`], or a [`Rejection`].
//!
//! Knows: request targets, hosts, peers and trusted proxies, the framing of an HTTP/1.1 message.
//! Must not know: policies, tokens, sockets. Every function here is pure.

pub mod chunked;
pub mod head;
pub mod host;
pub mod peer;
pub mod target;

use std::borrow::Cow;
use std::net::IpAddr;

pub use self::host::Host;
pub use self::target::{CleanTarget, MatchPath, PathRules};
use crate::reason::Reason;

/// What a decision may look at before the caller is known. Borrowed from the request; nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'r> {
    /// The method as sent. Lower-case letters are refused when the target is cleaned.
    pub method: &'r str,
    /// The host that the client addressed: lower-case, without port and one trailing dot.
    /// `None` for an HTTP/1.0 request without a `Host` header.
    pub host: Option<&'r Host>,
    /// The request target in origin form (path and query) exactly as sent.
    pub target: &'r str,
    /// The client's address, read through trusted proxies.
    pub client: IpAddr,
}

/// A request that two parsers could read differently, refused before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `bad_request`, `bad_request_target` or `headers_too_large`.
    pub reason: Reason,
    /// What was found and where, in a lower-case fragment for people.
    pub detail: Cow<'static, str>,
}

impl Rejection {
    /// A `bad_request`.
    pub fn request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Reason::BadRequest, detail: detail.into() }
    }

    /// A `bad_request_target`.
    pub fn target(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Reason::BadRequestTarget, detail: detail.into() }
    }
}
