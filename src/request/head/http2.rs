//! What the head of an HTTP/2 request must be (RFC 9113 section 8). Its frames and compression were read by the parser,
//! which leaves one reading of them; what is left is that the same fields could be read in two ways by an upstream.

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};

use super::{Expectation, Framing, HeadFacts, HeadLimits, LONGEST_METHOD, content_length, is_spelling, once};
use crate::reason::Reason;
use crate::request::Rejection;
use crate::request::target::check_method;

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

/// Checks one head. `ended` says that no body follows; `protocol` is the `:protocol` of an extended CONNECT (RFC 8441).
///
/// # Errors
/// A [`Rejection`]: `bad_request`, `bad_request_target` or `headers_too_large`.
pub fn inspect<B>(
    request: &Request<B>,
    ended: bool,
    protocol: Option<&str>,
    limits: &HeadLimits,
) -> Result<HeadFacts, Rejection> {
    let fields = Fields::read(request.headers(), limits)?;
    let target = target(request, protocol)?;
    if fields.bytes + request.method().as_str().len() + target > limits.bytes {
        return Err(too_large("the head is larger than the limit"));
    }
    Ok(HeadFacts {
        framing: match fields.length {
            _ if ended => Framing::None,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        },
        upgrade: false,
        expects: fields.expects,
    })
}

fn too_large(detail: &'static str) -> Rejection {
    Rejection { reason: Reason::HeadersTooLarge, detail: detail.into() }
}

/// Checks method and target as the request line of HTTP/1.1 is checked. Returns the bytes of the target.
fn target<B>(request: &Request<B>, protocol: Option<&str>) -> Result<usize, Rejection> {
    let (method, uri) = (request.method(), request.uri());
    if method.as_str().len() > LONGEST_METHOD {
        return Err(Rejection::request("a method of over 32 bytes"));
    }
    check_method(method.as_str())?;
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    // Plain CONNECT has an authority alone, and is refused by the decision (SPEC 3.2).
    if *method == Method::CONNECT && protocol.is_none() {
        return Ok(authority);
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Rejection::target("a scheme other than http and https"));
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let asterisk = target == "*" && *method == Method::OPTIONS;
    if !asterisk && !target.starts_with('/') {
        return Err(Rejection::target("a target that is no path"));
    }
    Ok(authority + target.len())
}

/// What the fields say of the body, and their bytes as HTTP/1.1 would write them.
#[derive(Default)]
struct Fields {
    bytes: usize,
    length: Option<u64>,
    content_type: Option<()>,
    expects: Expectation,
}

impl Fields {
    fn read(headers: &HeaderMap, limits: &HeadLimits) -> Result<Self, Rejection> {
        if headers.len() > limits.headers {
            return Err(too_large("more header lines than the limit"));
        }
        let mut fields = Self::default();
        for (name, value) in headers {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            fields.bytes += name.len() + value.len() + 4;
            if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
                return Err(Rejection::request("white space around a header value"));
            }
            match name.len() {
                6 if name == b"expect" => fields.expects = fields.expects.and(value),
                12 if name == b"content-type" => {
                    once(&mut fields.content_type, (), "two Content-Type headers")?;
                }
                14 if is_spelling(name, b"content-length") => {
                    if name[7] != b'-' {
                        return Err(Rejection::request("a spelling of Content-Length that some servers take for it"));
                    }
                    once(&mut fields.length, content_length(value)?, "two Content-Length headers")?;
                }
                // The right spelling is refused by the parser.
                17 if is_spelling(name, b"transfer-encoding") => {
                    return Err(Rejection::request("a Transfer-Encoding in HTTP/2"));
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, headers: 5 };

    fn outcome(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<HeadFacts, Reason> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        inspect(&request.body(()).unwrap(), false, None, &LIMITS).map_err(|rejection| rejection.reason)
    }

    fn get(fields: &[(&str, &str)]) -> Result<Framing, Reason> {
        outcome("GET", "https://a/x", fields).map(|facts| facts.framing)
    }

    #[test]
    fn what_an_http1_upstream_could_read_otherwise_is_refused() {
        assert_eq!(get(&[("content-length", "12"), ("content-type", "text/plain")]), Ok(Framing::Length(12)));
        assert_eq!(get(&[]), Ok(Framing::Chunked));
        assert_eq!(get(&[("content-length", "0")]), Ok(Framing::None));
        for fields in [
            &[("content-length", "1"), ("content-length", "1")][..],
            &[("content-length", "01")],
            &[("content-length", "+1")],
            &[("content-length", "1,1")],
            &[("content-length", "")],
            &[("content_length", "1")],
            &[("content.length", "1")],
            &[("transfer_encoding", "chunked")],
            &[("content-type", "a"), ("content-type", "b")],
            &[("x", " y")],
            &[("x", "y\t")],
        ] {
            assert_eq!(get(fields), Err(Reason::BadRequest), "{fields:?}");
        }
    }

    #[test]
    fn targets_and_methods_are_those_of_http1() {
        for (method, uri, expected) in [
            ("get", "https://a/", Some(Reason::BadRequest)),
            ("GET", "ftp://a/", Some(Reason::BadRequestTarget)),
            ("GET", "*", Some(Reason::BadRequestTarget)),
            ("OPTIONS", "*", None),
            ("CONNECT", "a:1", None),
            (&"A".repeat(33), "https://a/", Some(Reason::BadRequest)),
        ] {
            assert_eq!(outcome(method, uri, &[]).err(), expected, "{method} {uri}");
        }
    }

    #[test]
    fn limits_hold_for_lines_and_bytes() {
        assert_eq!(get(&[("x", "1"); 5]), Ok(Framing::Chunked));
        assert_eq!(get(&[("x", "1"); 6]), Err(Reason::HeadersTooLarge));
        assert_eq!(get(&[("x", &"y".repeat(985))]), Ok(Framing::Chunked));
        assert_eq!(get(&[("x", &"y".repeat(995))]), Err(Reason::HeadersTooLarge));
    }

    #[test]
    fn fields_are_completed_as_http1_would_have_them() {
        let mut request = Request::builder().uri("https://a:8443/x").header("cookie", "a=1");
        request = request.header("cookie", "b=2").header("cookie", "c=3");
        let mut request = request.body(()).unwrap();
        complete(&mut request);
        assert_eq!(request.headers()[HOST], "a:8443");
        assert_eq!(request.headers().get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        let mut named = Request::builder().uri("https://a/").header("host", "b").body(()).unwrap();
        complete(&mut named);
        assert_eq!(named.headers()[HOST], "b", "what disagrees is for the host rules to refuse");
    }
}
