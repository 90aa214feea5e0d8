//! Whether a request that carries a cookie was made by a page that may act for its user (THREATS T25, T26).
//!
//! A browser adds cookies to what any page asks it to send. So a cookie alone says who is asking only where the page is known:
//! by `Sec-Fetch-Site`, which no page can set (Fetch Metadata, section 2.4), or by `Origin`.

use std::net::Ipv4Addr;

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN, SEC_WEBSOCKET_VERSION, UPGRADE};

use crate::policy::source::Cors;
use crate::request::Host;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is known of a request with a cookie.
#[derive(Debug, Clone, Copy)]
pub struct CookieRequest<'r> {
    /// Its method; `GET` for an extended CONNECT.
    pub method: &'r str,
    /// Its headers as sent.
    pub headers: &'r HeaderMap,
    /// The host that it addresses, where no `Host` header says it with a port.
    pub host: Option<&'r Host>,
    /// The service's `cors:`.
    pub cors: Option<&'r Cors>,
}

/// Whether the request may be made with a cookie as its credential.
///
/// `GET`, `HEAD` and `OPTIONS` always may, for they change nothing and their answers are kept from other origins by the browser. An
/// upgrade is none of these, whatever its method: no browser keeps a WebSocket from other origins.
///
/// - `Sec-Fetch-Site: same-origin`, or without that header an `Origin` that is this host: yes. A `__Host-` cookie travels by https
///   alone, so such an origin is `https://` and the host, and `http://` only for names of this machine.
/// - an `Origin` that `cors:` lists with `credentials: true`: yes.
/// - anything else, doubled headers among them: no. For an upgrade `Origin` decides alone.
///
/// # Errors
/// What is wrong, for people.
pub fn cookie_origin_ok(request: &CookieRequest<'_>) -> Result<(), &'static str> {
    let headers = request.headers;
    // An HTTP/1.1 upgrade has the one, a WebSocket over HTTP/2 (RFC 8441 section 5) the other.
    let upgrade = headers.contains_key(UPGRADE) || headers.contains_key(SEC_WEBSOCKET_VERSION);
    if !upgrade && matches!(request.method, "GET" | "HEAD" | "OPTIONS") {
        return Ok(());
    }
    let site = one(headers, &SEC_FETCH_SITE).map_err(|()| "Sec-Fetch-Site was sent twice")?;
    let origin = one(headers, &ORIGIN).map_err(|()| "Origin was sent twice")?;
    let listed = |origin: &str| {
        request.cors.is_some_and(|cors| cors.credentials && cors.origins.iter().any(|listed| listed == origin))
    };
    match (site, origin) {
        (Some("same-origin"), _) if !upgrade => Ok(()),
        (_, Some(origin)) if listed(origin) => Ok(()),
        (None | Some("same-origin"), Some(origin)) if is_this_host(origin, headers, request.host) => Ok(()),
        (None, None) => Err("a request that carries a cookie says by Origin or Sec-Fetch-Site which page made it"),
        _ => Err("another site made this request with the user's cookie"),
    }
}

/// The value of a header that may stand at most once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        _ => Err(()),
    }
}

/// Whether `origin` is where the request went, port included.
fn is_this_host(origin: &str, headers: &HeaderMap, host: Option<&Host>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "https" => "443",
        "http" if is_this_machine(authority) => "80",
        _ => return false,
    };
    let sent = headers.get(HOST).and_then(|host| host.to_str().ok()).or(host.map(Host::as_str));
    let Some(sent) = sent else { return false };
    let ((name, port), (sent, sent_port)) = (split_port(authority), split_port(sent));
    name.eq_ignore_ascii_case(sent.strip_suffix('.').unwrap_or(sent))
        && port.unwrap_or(usual) == sent_port.unwrap_or(usual)
}

/// Names to which browsers send `Secure` cookies without TLS.
fn is_this_machine(authority: &str) -> bool {
    let name = split_port(authority).0;
    let loopback = || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    name == "localhost" || name.ends_with(".localhost") || name == "[::1]" || loopback()
}

/// A name and the port behind it, if there is one.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Whether a request to `Host: app.test` with these header lines may be made.
    fn ok(method: &str, lines: &[(&'static str, &str)]) -> bool {
        let cors = Cors { origins: vec!["https://front.test".into()], credentials: true, ..Cors::default() };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("app.test"));
        for (name, value) in lines {
            if *name == "host" {
                headers.remove(HOST);
            }
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        cookie_origin_ok(&CookieRequest { method, headers: &headers, host: None, cors: Some(&cors) }).is_ok()
    }

    #[test]
    fn t26_unsafe_methods_say_which_page_made_them() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert!(ok(method, &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.test")]));
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE"] {
            for (lines, may) in [
                (&[][..], false),
                (&[("sec-fetch-site", "same-origin")], true),
                (&[("sec-fetch-site", "same-origin"), ("origin", "https://app.test")], true),
                (&[("sec-fetch-site", "same-site")], false),
                (&[("sec-fetch-site", "none")], false),
                (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.test")], false),
                (&[("sec-fetch-site", "cross-site"), ("origin", "https://front.test")], true),
                (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.test")], false),
                (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false),
                (&[("sec-fetch-site", "same-origin, same-origin")], false),
                (&[("sec-fetch-site", "Same-Origin")], false),
                (&[("origin", "https://app.test")], true),
                (&[("origin", "https://app.test:443")], true),
                (&[("origin", "https://app.test:8443")], false),
                (&[("origin", "http://app.test")], false),
                (&[("origin", "https://app.test.evil.test")], false),
                (&[("origin", "https://evil.test/https://app.test")], false),
                (&[("origin", "null")], false),
                (&[("origin", "*")], false),
                (&[("origin", "")], false),
                (&[("origin", "https://front.test")], true),
                (&[("origin", "https://app.test"), ("origin", "https://app.test")], false),
                (&[("origin", "https://app.test:8443"), ("host", "app.test:8443")], true),
                (&[("origin", "https://app.test"), ("host", "app.test:8443")], false),
                (&[("origin", "http://localhost:8090"), ("host", "localhost:8090")], true),
                (&[("origin", "http://[::1]:8090"), ("host", "[::1]:8090")], true),
                (&[("origin", "https://[::1]"), ("host", "[::1]")], true),
                (&[("origin", "http://192.168.0.1"), ("host", "192.168.0.1")], false),
            ] {
                assert_eq!(ok(method, lines), may, "{method} {lines:?}");
            }
        }
    }

    #[test]
    fn t25_a_websocket_with_a_cookie_has_an_origin() {
        for upgrade in [("upgrade", "websocket"), ("sec-websocket-version", "13")] {
            for (more, may) in [
                (None, false),
                (Some(("sec-fetch-site", "same-origin")), false),
                (Some(("origin", "https://evil.test")), false),
                (Some(("origin", "https://app.test")), true),
                (Some(("origin", "https://front.test")), true),
            ] {
                let lines: Vec<_> = [upgrade].into_iter().chain(more).collect();
                assert_eq!(ok("GET", &lines), may, "{lines:?}");
            }
        }
    }

    #[test]
    fn t26_an_origin_of_cors_without_credentials_is_another_site() {
        let cors = Cors { origins: vec!["https://front.test".into()], ..Cors::default() };
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://front.test"));
        let request = CookieRequest { method: "POST", headers: &headers, host: None, cors: Some(&cors) };
        assert!(cookie_origin_ok(&request).is_err());
    }
}
