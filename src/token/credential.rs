//! Exactly one credential, or none (RFC 6750 section 2.1).

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::verify::MAX_TOKEN_BYTES;

/// What the request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'h> {
    /// No `Authorization` header, or one of another scheme.
    None,
    /// One bearer token, not yet verified.
    Bearer(&'h str),
    /// Two headers, an empty token, one over 16 KiB, bytes that are no text: `malformed_token`, with what was found.
    Malformed(&'static str),
}

/// Finds the credential. The scheme is compared without regard to case (RFC 9110 section 11.1), and one or more
/// spaces may follow it (section 11.4); tabs may not.
#[must_use]
pub fn find(headers: &HeaderMap) -> Credential<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Credential::None;
    };
    if values.next().is_some() {
        return Credential::Malformed("more than one Authorization header");
    }
    let bytes = value.as_bytes();
    let scheme_end =
        bytes.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-').unwrap_or(bytes.len());
    let (scheme, rest) = bytes.split_at(scheme_end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Credential::None;
    }
    let token = rest.trim_ascii_start();
    if token.is_empty() {
        return Credential::Malformed("the bearer token is empty");
    }
    if rest[..rest.len() - token.len()].iter().any(|byte| *byte != b' ') || token.len() == rest.len() {
        return Credential::Malformed("the scheme Bearer is not followed by a space");
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Credential::Malformed("the token is longer than 16 KiB");
    }
    // Verification refuses every byte that is no part of a token; a token that is remembered has passed it, so that
    // nothing need be looked at twice here.
    std::str::from_utf8(token).map_or(Credential::Malformed("the token is not ASCII"), Credential::Bearer)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use http::{HeaderMap, HeaderValue};

    use super::{AUTHORIZATION, Credential, find};
    use crate::clock::Timestamp;
    use crate::reason::Reason;
    use crate::token::Verifier;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn one_bearer_token_is_found() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c"] {
            assert_eq!(find(&headers(&[value.as_bytes()])), Credential::Bearer("a.b.c"), "{value}");
        }
    }

    #[test]
    fn no_credential_is_no_credential() {
        for values in
            [&[][..], &[b"Basic dTpw".as_slice()], &[b"Bearerx a.b.c"], &[b""], &[b"Digest x"], &[b"Bearer-Token x"]]
        {
            assert_eq!(find(&headers(values)), Credential::None, "{values:?}");
        }
    }

    #[test]
    fn doubt_is_malformed() {
        let long = [b"Bearer ".as_slice(), &[b'a'; 16 * 1024 + 1]].concat();
        for values in [
            &[b"Bearer a.b.c".as_slice(), b"Bearer a.b.c"][..],
            &[b"Basic dTpw", b"Bearer a.b.c"],
            &[b"Basic dTpw", b"Basic dTpw"],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Bearer\ta.b.c"],
            &[b"Bearer \ta.b.c"],
            &[b"Bearer:a.b.c"],
            &[b"Bearer a.\xc3.c"],
            &[long.as_slice()],
        ] {
            assert!(matches!(find(&headers(values)), Credential::Malformed(_)), "{values:?}");
        }
        let longest = [b"Bearer ".as_slice(), &[b'a'; 16 * 1024]].concat();
        assert!(matches!(find(&headers(&[&longest])), Credential::Bearer(_)));
    }

    #[test]
    fn bytes_that_no_token_may_hold_are_left_to_the_verifier_which_refuses_them() {
        for value in ["a.b.c d", "a.b.c, Bearer d.e.f", "\"a.b.c\"", "a.é.c", "==", "a=b"] {
            let headers = headers(&[format!("Bearer {value}").as_bytes()]);
            let Credential::Bearer(token) = find(&headers) else { panic!("{value}") };
            let refused = Verifier::new(Vec::new()).verify(token, Timestamp(0)).unwrap_err();
            assert_eq!(refused.reason, Reason::MalformedToken, "{value}");
        }
    }
}
