//! The WebSocket handshake (RFC 6455 section 4), by HTTP/1.1 upgrade or by extended CONNECT (RFC 8441), under T25's rule: only
//! version 13, only by GET, and a tunnel only after the upstream has proved that it understood.
//!
//! What is not such a handshake, to the letter, is a request like any other: it goes on without its `Upgrade`.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::request::head::HeadFacts;

/// What is joined to the key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// A client's well-formed wish to speak WebSocket.
#[derive(Debug)]
pub struct Handshake {
    /// Becomes the client's side of the tunnel once the answer has been written.
    pub client: OnUpgrade,
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `Upgrade: websocket` in HTTP/1.1.
    Upgrade,
    /// `:protocol = websocket` in HTTP/2.
    Connect,
}

impl Handshake {
    /// The handshake that `request` is, if it is one. An extended CONNECT is a GET from here on: it is decided as one, and
    /// forwarded as one.
    #[must_use]
    pub fn of(head: &HeadFacts, request: &mut Request<Incoming>) -> Option<Self> {
        let by = if head.upgrade {
            By::Upgrade
        } else if *request.method() == Method::CONNECT
            && request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
        {
            By::Connect
        } else {
            return None;
        };
        if only(request.headers(), &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return None;
        }
        match by {
            By::Upgrade => {
                let key = only(request.headers(), &SEC_WEBSOCKET_KEY)?;
                let nonce = STANDARD.decode(key).ok().filter(|nonce| nonce.len() == 16);
                nonce?;
            }
            By::Connect => {
                let mut nonce = [0; 16];
                aws_lc_rs::rand::fill(&mut nonce).ok()?;
                let key = HeaderValue::try_from(STANDARD.encode(nonce)).ok()?;
                request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
                *request.method_mut() = Method::GET;
            }
        }
        Some(Self { client: hyper::upgrade::on(request), by })
    }

    /// Whether an answer without a switch would tell the client that there is a tunnel: any success does so in HTTP/2 (RFC 8441
    /// section 5), where there is no 101.
    #[must_use]
    pub fn is_opened_by(&self, status: StatusCode) -> bool {
        self.by == By::Connect && status.is_success()
    }

    /// Asks the upstream for it: `headers` are those that it gets, without the client's own `Upgrade`.
    pub fn ask(headers: &mut HeaderMap) -> Option<HeaderValue> {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        headers.get(SEC_WEBSOCKET_KEY).map(|key| accept_of(key.as_bytes()))
    }

    /// Tells the client so: `answer` is the upstream's, without the headers of its connection.
    pub fn agree(&self, answer: &mut Parts) {
        // What an upstream says of a body (RFC 9110 section 8.6 forbids it to) would be taken for the length of the tunnel.
        answer.headers.remove(CONTENT_LENGTH);
        match self.by {
            By::Upgrade => {
                answer.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                answer.headers.insert(UPGRADE, WEBSOCKET);
            }
            By::Connect => {
                answer.headers.remove(SEC_WEBSOCKET_ACCEPT);
                answer.status = StatusCode::OK;
            }
        }
    }
}

/// Whether a 101 is the one that was asked for: `accept` is what the upstream has to answer to the key that it got.
///
/// # Errors
/// What is wrong with it, for logs.
pub fn check_switch(headers: &HeaderMap, accept: &HeaderValue) -> Result<(), &'static str> {
    if !only(headers, &UPGRADE).is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Err("the upstream switched to another protocol than WebSocket");
    }
    let names_upgrade = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    if !headers.get_all(CONNECTION).iter().any(names_upgrade) {
        return Err("the upstream's 101 has no `Connection: upgrade`");
    }
    if only(headers, &SEC_WEBSOCKET_ACCEPT).is_none_or(|found| found.as_bytes() != accept.as_bytes()) {
        return Err("the upstream's `Sec-WebSocket-Accept` does not belong to the key");
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err("the upstream's 101 has a transfer coding");
    }
    Ok(())
}

/// The value of a header that stands exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2). SHA-1 proves nothing here but that the other side knows WebSocket.
fn accept_of(key: &[u8]) -> HeaderValue {
    let mut sum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sum.update(key.trim_ascii());
    sum.update(GUID);
    HeaderValue::try_from(STANDARD.encode(sum.finish())).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t25_the_accept_is_that_of_the_rfc() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn t25_a_101_that_proves_nothing_switches_nothing() {
        let good =
            [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-accept", "right=")];
        let of = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check_switch(&headers, &HeaderValue::from_static("right="))
        };
        assert_eq!(of(&good), Ok(()));
        for left_out in 0..good.len() {
            let mut fields = good.to_vec();
            fields.remove(left_out);
            assert!(of(&fields).is_err(), "without {:?}", good[left_out]);
        }
        for odd in [
            ("upgrade", "h2c"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "right="),
            ("sec-websocket-accept", "wrong="),
            ("transfer-encoding", "chunked"),
        ] {
            assert!(of(&[good[0], good[1], good[2], odd]).is_err(), "{odd:?} beside the others");
        }
        assert!(of(&[good[0], good[1], ("sec-websocket-accept", "Right=")]).is_err());
    }
}
