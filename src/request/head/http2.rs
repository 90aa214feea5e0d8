//! What the head of an HTTP/2 request must be (RFC 9113 section 8). Its frames and compression were read by the parser,
//! which leaves one reading of them; what is left is that the same fields could be read in two ways by an upstream.

use http::Request;
use http::header::{CONTENT_LENGTH, EXPECT};

use super::{Expectation, Framing, HeadFacts, HeadLimits};
use crate::reason::Reason;
use crate::request::Rejection;

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
