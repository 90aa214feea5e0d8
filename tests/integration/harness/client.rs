//! A client that sends exactly the bytes it is given and reports what came back, and whether the connection lived on.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::wire::{Fields, Wire, parse_head, value};

/// A response as received.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Status line and fields as received.
    pub(crate) head: Vec<u8>,
}

impl Response {
    /// The value of a field that stands at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        assert!(self.all(name).len() <= 1, "{name} stands twice in {self:?}");
        value(&self.fields, name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The reason of a denial, which must stand in body and header alike.
    pub(crate) fn reason(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "no denial: {self:?}");
        let reason = self.json()["reason"].as_str().expect("a problem names its reason").to_owned();
        assert_eq!(self.field("doorward-decision"), Some(format!("deny; reason={reason}").as_str()));
        reason
    }

    /// Status and reason in one, for comparing.
    pub(crate) fn denial(&self) -> (u16, String) {
        (self.status, self.reason())
    }
}

/// One connection to a listener.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, Duration::from_secs(20)).expect("the listener accepts"))
    }

    /// Over a stream that is connected.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let wire = Wire::new(stream);
        wire.set_read_timeout(Duration::from_secs(15));
        Self { wire }
    }

    pub(crate) fn set_read_timeout(&self, limit: Duration) {
        self.wire.set_read_timeout(limit);
    }

    /// Sends bytes; the peer may already have closed, which is the peer's right.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.wire.write(bytes.as_ref());
        self
    }

    /// Sends bytes, and says whether the peer still took them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes)
    }

    /// Reads one final response (interim ones are passed over) to a request that was no HEAD.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response("GET").expect("a response")
    }

    /// As [`Self::response`], for the method that was sent. Interim responses are passed over.
    pub(crate) fn try_response(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let Some(head) = self.wire.head()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let (line, fields) = parse_head(&head);
            let status = line
                .strip_prefix("HTTP/1.")
                .and_then(|rest| rest.get(2..5))
                .and_then(|code| code.parse().ok())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("status line {line:?}")))?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let (body, trailers) = if method == "HEAD" || matches!(status, 101 | 204 | 304) {
                (Vec::new(), Vec::new())
            } else if value(&fields, "transfer-encoding").is_some() {
                self.wire.chunked()?
            } else if let Some(length) = value(&fields, "content-length") {
                let length = length.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                (self.wire.exactly(length)?, Vec::new())
            } else {
                (self.wire.read_to_end()?, Vec::new())
            };
            return Ok(Response { status, fields, body, trailers, head });
        }
    }

    /// One head, interim or not, as text.
    pub(crate) fn head(&mut self) -> String {
        String::from_utf8_lossy(&self.wire.head().expect("a head").expect("a head")).into_owned()
    }

    /// The connection itself, to speak something else than HTTP on it.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Whatever else comes until the peer closes or `limit` passes without a byte.
    pub(crate) fn rest(&mut self, limit: Duration) -> Vec<u8> {
        self.wire.set_read_timeout(limit);
        while matches!(self.wire.fill(), Ok(true)) {}
        self.wire.buffered().to_vec()
    }

    /// Whether the peer closes (or resets) within `limit`, whatever it sends before.
    pub(crate) fn closes_within(&mut self, limit: Duration) -> bool {
        let end = std::time::Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wire.set_read_timeout(left);
            match self.wire.fill() {
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }
}
