//! The host that a request addresses (RFC 9110 section 7.2, RFC 9112 section 3.2; THREATS T24).

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, Version};

use super::Rejection;

/// A host name or address literal as it is compared: ASCII lower case, without port, without one
/// trailing dot. IPv6 literals keep their brackets, and are written as RFC 5952 says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

impl Host {
    /// Reads the value of a `Host` header or the authority of an absolute target.
    ///
    /// # Errors
    /// `bad_request` for user info, a name that is not letters, digits, `-`, `_` and `~` between single dots
    /// (RFC 3986 `reg-name` without percent escapes and without the delimiters that make lists of hosts),
    /// an empty or over-long name, a bad address literal, or a port that is no number.
    pub fn parse(authority: &[u8]) -> Result<Self, Rejection> {
        match Authority::parse(authority)?.name {
            Name::Registered(name) => {
                let name = str::from_utf8(name).map_err(|_| Rejection::request("a host that is not ASCII"))?;
                Ok(Self(name.to_ascii_lowercase().into_boxed_str()))
            }
            Name::Ipv6(address) => Ok(Self(format!("[{address}]").into_boxed_str())),
        }
    }

    /// The name, for comparing and for forwarding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The host of a request: from the authority of its target (`:authority`, or an absolute target), and
/// its `Host` headers, which must agree. `None` for an HTTP/1.0 request that names none.
///
/// # Errors
/// `bad_request` for a missing host, for two `Host` headers (equal ones too), for a `Host` that disagrees
/// with the authority, and for whatever [`Host::parse`] refuses.
pub fn of_request(
    uri_authority: Option<&[u8]>,
    headers: &HeaderMap,
    version: Version,
) -> Result<Option<Host>, Rejection> {
    let mut sent = headers.get_all(HOST).iter();
    let header = sent.next();
    if sent.next().is_some() {
        return Err(Rejection::request("two Host headers"));
    }
    match (uri_authority, header) {
        (Some(authority), Some(header)) => {
            let (target, header) = (Authority::parse(authority)?, Authority::parse(header.as_bytes())?);
            if !target.agrees(&header, None) {
                return Err(Rejection::request("the Host header disagrees with the request's authority"));
            }
            Host::parse(authority).map(Some)
        }
        // HTTP/1.1 has a Host header whatever the target is (RFC 9112 section 3.2).
        (Some(_), None) if version == Version::HTTP_11 => Err(Rejection::request("no Host header")),
        (Some(authority), None) => Host::parse(authority).map(Some),
        (None, Some(header)) => Host::parse(header.as_bytes()).map(Some),
        (None, None) if version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(Rejection::request("no Host header")),
    }
}

/// The authority as the client sent it, port included: the value of `X-Forwarded-Host`.
#[must_use]
pub fn as_sent<'r>(uri_authority: Option<&'r [u8]>, headers: &'r HeaderMap) -> Option<&'r [u8]> {
    uri_authority.or_else(|| headers.get(HOST).map(http::HeaderValue::as_bytes))
}

/// `host [ ":" port ]`, checked but not yet copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'a> {
    name: Name<'a>,
    port: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
enum Name<'a> {
    /// Without one trailing dot; case as sent.
    Registered(&'a [u8]),
    Ipv6(Ipv6Addr),
}

/// RFC 1035 section 2.3.4, in the presentation form without the trailing dot.
const LONGEST_NAME: usize = 253;

impl<'a> Authority<'a> {
    pub(super) fn parse(authority: &'a [u8]) -> Result<Self, Rejection> {
        if let [b'[', rest @ ..] = authority {
            let end = memchr::memchr(b']', rest).ok_or(Rejection::request("an address literal without `]`"))?;
            let address = str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok());
            let address = address.ok_or(Rejection::request("a bad IPv6 address in the host"))?;
            return Ok(Self { name: Name::Ipv6(address), port: port(&rest[end + 1..])? });
        }
        let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
        let (name, rest) = authority.split_at(end);
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut label_begins = true;
        for &byte in name {
            match byte {
                b'.' if label_begins => return Err(Rejection::request("an empty label in the host")),
                b'.' => label_begins = true,
                _ if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') => label_begins = false,
                b'@' => return Err(Rejection::request("user info in the host")),
                _ => return Err(Rejection::request("a byte in the host that no host name holds")),
            }
        }
        if label_begins {
            return Err(Rejection::request("an empty host or label"));
        }
        if name.len() > LONGEST_NAME {
            return Err(Rejection::request("a host of over 253 bytes"));
        }
        Ok(Self { name: Name::Registered(name), port: port(rest)? })
    }

    /// Whether both name the same place. A port that one of them leaves out is that of the scheme, or,
    /// where the scheme is not known, either of the two that a scheme would imply.
    pub(super) fn agrees(&self, other: &Authority<'_>, default_port: Option<u16>) -> bool {
        let names = match (self.name, other.name) {
            (Name::Registered(a), Name::Registered(b)) => a.eq_ignore_ascii_case(b),
            (Name::Ipv6(a), Name::Ipv6(b)) => a == b,
            _ => false,
        };
        names
            && match (self.port, other.port) {
                (Some(a), Some(b)) => a == b,
                (None, None) => true,
                (Some(port), None) | (None, Some(port)) => {
                    default_port.map_or(matches!(port, 80 | 443), |default| port == default)
                }
            }
    }
}

/// Reads what stands behind a host name: nothing, or a colon and a port.
fn port(rest: &[u8]) -> Result<Option<u16>, Rejection> {
    let [colon, digits @ ..] = rest else { return Ok(None) };
    let number = (*colon == b':' && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
        .then(|| str::from_utf8(digits).ok()?.parse().ok())
        .flatten();
    number.map(Some).ok_or(Rejection::request("a port in the host that is no number"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parsed(authority: &str) -> Option<String> {
        Host::parse(authority.as_bytes()).ok().map(|host| host.as_str().to_owned())
    }

    #[test]
    fn t24_hosts_are_compared_lower_case_without_port_and_one_trailing_dot() {
        for spelling in
            ["oms.example.com", "OMS.Example.COM", "oms.example.com.", "oms.example.com:8090", "oms.example.com.:80"]
        {
            assert_eq!(parsed(spelling).as_deref(), Some("oms.example.com"), "{spelling}");
        }
        assert_eq!(parsed("127.0.0.1:8090").as_deref(), Some("127.0.0.1"));
        assert_eq!(parsed("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(parsed("[0:0:0:0:0:0:0:1]").as_deref(), Some("[::1]"));
        assert_eq!(parsed("my_host").as_deref(), Some("my_host"));
    }

    #[test]
    fn t24_user_info_non_ascii_and_doubtful_hosts_are_refused() {
        for authority in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "user@a",
            "user:pw@a",
            "b\u{fc}cher.example",
            "a b",
            "a,b",
            "a/b",
            "a%2eb",
            "a:",
            "a:+80",
            "a:80x",
            "a:65536",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "::1",
            "a\0",
            "a;b",
            "a?b",
            "a#b",
            "a\\b",
            "*",
        ] {
            assert_eq!(parsed(authority), None, "{authority:?}");
        }
        assert_eq!(parsed(&"a".repeat(254)), None);
        assert!(parsed(&"a".repeat(253)).is_some());
    }

    fn hosts(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HOST, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn t24_a_request_names_exactly_one_host() {
        let none = hosts(&[]);
        let one = hosts(&["A.example"]);
        assert_eq!(of_request(None, &one, Version::HTTP_11).unwrap().unwrap().as_str(), "a.example");
        assert!(of_request(None, &none, Version::HTTP_11).is_err());
        assert!(of_request(Some(b"a.example"), &none, Version::HTTP_11).is_err());
        assert!(of_request(None, &none, Version::HTTP_2).is_err());
        assert_eq!(of_request(None, &none, Version::HTTP_10), Ok(None));
        assert!(of_request(None, &hosts(&["a.example", "a.example"]), Version::HTTP_11).is_err());
        assert!(of_request(None, &hosts(&["a.example", "b.example"]), Version::HTTP_10).is_err());
        assert_eq!(of_request(Some(b"a.example"), &none, Version::HTTP_2).unwrap().unwrap().as_str(), "a.example");
    }

    #[test]
    fn t24_authority_and_host_agree() {
        let headers = hosts(&["a.example:8090"]);
        for (authority, agrees) in [
            ("a.example:8090", true),
            ("A.example.:8090", true),
            ("b.example:8090", false),
            ("a.example:8091", false),
            ("a.example", false),
            ("user@a.example:8090", false),
        ] {
            let host = of_request(Some(authority.as_bytes()), &headers, Version::HTTP_2);
            assert_eq!(host.is_ok(), agrees, "{authority}");
        }
        assert!(of_request(Some(b"a.example:443"), &hosts(&["a.example"]), Version::HTTP_2).is_ok());
        assert_eq!(as_sent(None, &headers), Some(&b"a.example:8090"[..]));
        assert_eq!(as_sent(Some(b"A.example:8090"), &headers), Some(&b"A.example:8090"[..]));
    }
}
