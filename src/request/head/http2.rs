//! What the head of an HTTP/2 request must be (RFC 9113 section 8). Its frames and compression were read by the parser,
//! which leaves one reading of them; what is left is that the same fields could be read in two ways by an upstream.

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::{HeaderValue, Request};

use super::{Expectation, Framing, HeadFacts, HeadLimits};
use crate::reason::Reason;
use crate::request::Rejection;

/// Writes the fields of an HTTP/2 request as an HTTP/1.1 request would have them: the authority is also its `Host` (RFC 9113
/// section 8.3.1), and the pieces that a client may cut `Cookie` into are one again (section 8.2.3).
pub fn complete<B>(request: &mut Request<B>) {
    let host = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let headers = request.headers_mut();
    if let Some(Ok(host)) = host
        && !headers.contains_key(HOST)
    {
        headers.insert(HOST, host);
    }
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut whole = [first.as_bytes(), second.as_bytes()].join(&b"; "[..]);
        for crumb in crumbs {
            whole.extend_from_slice(b"; ");
            whole.extend_from_slice(crumb.as_bytes());
        }
        // What stood in values can stand in a value.
        if let Ok(whole) = HeaderValue::from_bytes(&whole) {
            headers.insert(COOKIE, whole);
        }
    }
}

/// Checks one head. `ended` says that no body follows.
///
/// # Errors
/// A [`Rejection`]: `bad_request` or `headers_too_large`.
pub fn inspect<B>(request: &Request<B>, ended: bool, limits: &HeadLimits) -> Result<HeadFacts, Rejection> {
    let headers = request.headers();
    if headers.len() > limits.headers {
        return Err(Rejection { reason: Reason::HeadersTooLarge, detail: "more header lines than the limit".into() });
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => {
            let digits = length.as_bytes();
            let number = digits.iter().all(u8::is_ascii_digit).then(|| length.to_str().ok()?.parse::<u64>().ok());
            Some(number.flatten().ok_or(Rejection::request("a Content-Length that is no number"))?)
        }
        (Some(_), Some(_)) => return Err(Rejection::request("two Content-Lengths")),
    };
    Ok(HeadFacts {
        framing: match length {
            _ if ended => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        },
        upgrade: false,
        expects: headers.get_all(EXPECT).iter().fold(Expectation::Nothing, |said, value| said.and(value.as_bytes())),
    })
}
