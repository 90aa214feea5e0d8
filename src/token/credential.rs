//! Exactly one credential, or none (RFC 6750 section 2.1; THREATS T26 for the cookie).

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};

use super::verify::MAX_TOKEN_BYTES;

/// What the request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'h> {
    /// No `Authorization` header, or one of another scheme; nor the cookie.
    None,
    /// One bearer token, not yet verified.
    Bearer(&'h str),
    /// One token in the cookie, not yet verified.
    Cookie(&'h str),
    /// Two headers, an empty token, one over 16 KiB, bytes that are no text: `malformed_token`, with what was found.
    Malformed(&'static str),
    /// A cookie and an `Authorization` header: `bad_request`, for who is asking could be read in two ways.
    Both,
}

/// Finds the credential. `cookie` is the name of the cookie that may carry the token, where the policy names one; a cookie without
/// a value is none.
///
/// The scheme is compared without regard to case (RFC 9110 section 11.1), and one or more spaces may follow it (section 11.4);
/// tabs may not. A cookie's name is compared with regard to case, as browsers do.
#[must_use]
pub fn find<'h>(headers: &'h HeaderMap, cookie: Option<&str>) -> Credential<'h> {
    match cookie {
        None => in_authorization(headers),
        Some(name) => match in_cookies(headers, name) {
            Credential::None => in_authorization(headers),
            _ if headers.contains_key(AUTHORIZATION) => Credential::Both,
            found => found,
        },
    }
}

fn in_authorization(headers: &HeaderMap) -> Credential<'_> {
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
    text(token).map_or_else(Credential::Malformed, Credential::Bearer)
}

fn in_cookies<'h>(headers: &'h HeaderMap, name: &str) -> Credential<'h> {
    let mut sent = cookies(headers).filter(|(sent, _)| *sent == name.as_bytes());
    match (sent.next(), sent.next()) {
        (None, _) => Credential::None,
        // Two of one name can both be there only if somebody planted one, and which one an application takes is anybody's guess.
        (Some(_), Some(_)) => Credential::Malformed("the cookie was sent twice"),
        (Some((_, [])), None) => Credential::None,
        (Some((_, token)), None) => text(token).map_or_else(Credential::Malformed, Credential::Cookie),
    }
}

/// Verification refuses every byte that is no part of a token; a token that is remembered has passed it, so that
/// nothing need be looked at twice here.
fn text(token: &[u8]) -> Result<&str, &'static str> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err("the token is longer than 16 KiB");
    }
    std::str::from_utf8(token).map_err(|_| "the token is not ASCII")
}

/// The name and the value of every cookie of a request, in order, without the white space around them (RFC 6265 section 5.4; over
/// HTTP/2 each may have a line of its own, RFC 9113 section 8.2.3).
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(COOKIE).iter().flat_map(pairs).map(name_and_value)
}

/// The pairs of one line, as they stand there.
fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';')
}

/// A pair without `=` is a value without a name (RFC 6265bis section 5.6), which a browser sends as the value alone.
fn name_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair) {
        Some(equals) => (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()),
        None => (b"", pair.trim_ascii()),
    }
}

/// Takes cookies of these names out of a request; the others stay as they are.
pub fn remove_cookies<N: AsRef<str>>(headers: &mut HeaderMap, names: &[N]) {
    let is_one = |pair: &[u8]| names.iter().any(|name| name_and_value(pair).0 == name.as_ref().as_bytes());
    if !headers.get_all(COOKIE).iter().any(|line| pairs(line).any(is_one)) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| {
            let kept: Vec<&[u8]> = pairs(line).filter(|pair| !is_one(pair)).collect();
            let joined = kept.join(&b';');
            let joined = joined.trim_ascii();
            (!joined.is_empty()).then(|| HeaderValue::from_bytes(joined).ok()).flatten()
        })
        .collect();
    headers.remove(COOKIE);
    for line in kept {
        headers.append(COOKIE, line);
    }
}

/// Whether a `Set-Cookie` would set a cookie of one of these names. A cookie without a name whose value reads `NAME=…` counts:
/// a browser that takes it sends what looks like one with the name.
#[must_use]
pub fn sets_cookie<N: AsRef<str>>(set_cookie: &HeaderValue, names: &[N]) -> bool {
    let mut pair = pairs(set_cookie).next().unwrap_or_default();
    let mut name = name_and_value(pair).0;
    while let Some(rest) = pair.trim_ascii().strip_prefix(b"=") {
        (pair, name) = (rest, name_and_value(rest).0);
    }
    names.iter().any(|own| own.as_ref().as_bytes() == name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{AUTHORIZATION, COOKIE, Credential, cookies, remove_cookies, sets_cookie};
    use crate::clock::Timestamp;
    use crate::reason::Reason;
    use crate::token::Verifier;

    fn find(headers: &HeaderMap) -> Credential<'_> {
        super::find(headers, None)
    }

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

    const NAME: &str = "__Host-session";

    fn with_cookies(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        for lines in [
            &["__Host-session=a.b.c"][..],
            &["x=1; __Host-session=a.b.c; y=2"],
            &["x=1;__Host-session = a.b.c ;y=2"],
            &["x=1", "__Host-session=a.b.c", "y=2"],
            &["x=1;;; __Host-session=a.b.c;"],
            &["__host-session=other; __Host-session=a.b.c; __Host-session2=x; X__Host-session=y"],
        ] {
            assert_eq!(super::find(&with_cookies(lines), Some(NAME)), Credential::Cookie("a.b.c"), "{lines:?}");
            assert_eq!(super::find(&with_cookies(lines), None), Credential::None, "no policy names it");
        }
        for lines in [&[][..], &["x=1"], &["__Host-session="], &["__host-session=a.b.c"], &["__Host-session"]] {
            assert_eq!(super::find(&with_cookies(lines), Some(NAME)), Credential::None, "{lines:?}");
        }
    }

    #[test]
    fn t26_a_cookie_sent_twice_or_beside_authorization_is_refused() {
        for lines in [
            &["__Host-session=a.b.c; __Host-session=a.b.c"][..],
            &["__Host-session=a.b.c", "__Host-session=d.e.f"],
            &["__Host-session=; __Host-session=a.b.c"],
            &["__Host-session=a.b.c; __Host-session =d.e.f"],
        ] {
            assert!(matches!(super::find(&with_cookies(lines), Some(NAME)), Credential::Malformed(_)), "{lines:?}");
        }
        for authorization in ["Bearer a.b.c", "Basic dTpw", ""] {
            let mut headers = with_cookies(&["__Host-session=a.b.c"]);
            headers.insert(AUTHORIZATION, HeaderValue::from_static(authorization));
            assert_eq!(super::find(&headers, Some(NAME)), Credential::Both);
        }
        let mut headers = with_cookies(&["__Host-session=; x=1"]);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        assert_eq!(super::find(&headers, Some(NAME)), Credential::Bearer("a.b.c"), "an empty cookie is none");
    }

    #[test]
    fn t26_the_cookie_is_removed_and_the_others_stay() {
        for (before, after) in [
            (&["__Host-session=a.b.c"][..], &[][..]),
            (&["x=1; __Host-session=a.b.c; y=2"], &["x=1; y=2"]),
            (&["__Host-session=a; __Host-session =b;x=\"1\""], &["x=\"1\""]),
            (&["x=1", "__Host-session=a.b.c", "y=2; __Host-session=d"], &["x=1", "y=2"]),
            (&["x = 1;;y", "z"], &["x = 1;;y", "z"]),
        ] {
            let mut headers = with_cookies(before);
            remove_cookies(&mut headers, &[NAME, "__Host-other"]);
            let left: Vec<_> = headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
            assert_eq!(left, after, "{before:?}");
            assert!(!cookies(&headers).any(|(name, _)| name == NAME.as_bytes()));
        }
    }

    #[test]
    fn t26_a_set_cookie_of_the_name_is_known_in_every_spelling_that_a_browser_takes() {
        for (line, sets) in [
            ("__Host-session=x; Path=/; Secure", true),
            (" __Host-session =x", true),
            ("__Host-session", false),
            ("=__Host-session=x; Secure", true),
            ("==__Host-session=x", true),
            ("x=__Host-session=y", false),
            ("__Host-session2=x", false),
            ("x=1; __Host-session=y", false),
        ] {
            assert_eq!(sets_cookie(&HeaderValue::from_static(line), &[NAME]), sets, "{line}");
        }
    }

    proptest! {
        /// Whatever a client sends: afterwards the cookie is gone, and every other pair is there as before.
        #[test]
        fn t26_removal_takes_the_cookie_and_nothing_else(
            lines in proptest::collection::vec("([ \t]?(__Host-session|x|__Host-session2|\"|=|;)[ =;a\t]{0,3}){0,6}", 0..4)
        ) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
            }
            let others = |headers: &HeaderMap| -> Vec<(Vec<u8>, Vec<u8>)> {
                let other = |(name, value): &(&[u8], &[u8])| *name != NAME.as_bytes() && !(name.is_empty() && value.is_empty());
                cookies(headers).filter(other).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
            };
            let before = others(&headers);
            remove_cookies(&mut headers, &[NAME]);
            prop_assert_eq!(others(&headers), before);
            prop_assert_eq!(super::find(&headers, Some(NAME)), Credential::None);
        }
    }
}
