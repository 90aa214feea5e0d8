//! An HTTP/2 client that sends exactly the frames it is told to, and judges what comes back as h2spec does.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Verdict, hpack};

/// How long a frame may take. h2spec waits for two seconds; this is only an upper bound on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Frame types (RFC 9113 section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flags.
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 32;
/// A whole request in one HEADERS frame.
pub(super) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Error codes (RFC 9113 section 7).
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;
pub(super) const COMPRESSION_ERROR: u32 = 9;

/// Settings (RFC 9113 section 6.5.2).
pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;

/// The window of a connection and of each of its streams before anybody says otherwise.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whom the cases are held against.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: SocketAddr,
    path: &'static str,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// HTTP/2 by prior knowledge without TLS.
    pub(super) fn plain(address: SocketAddr, path: &'static str) -> Self {
        Self { address, path, tls: None }
    }

    /// Whether its path is answered before a body is there.
    pub(super) fn is_denied(&self) -> bool {
        self.path != "/"
    }

    /// HTTP/2 by ALPN. `authority` (PEM) signed a certificate for the address.
    pub(super) fn tls(address: SocketAddr, path: &'static str, authority: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { address, path, tls: Some(Arc::new(config)) }
    }
}

/// One frame as received.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY frame.
    fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        self.payload.get(at..at + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// What frames travel on.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// One connection.
pub(super) struct Client {
    target: Arc<Target>,
    stream: Box<dyn Stream>,
    /// What the server's first SETTINGS said.
    pub(super) settings: BTreeMap<u16, u32>,
}

impl Client {
    pub(super) fn connect(target: &Arc<Target>) -> Result<Self, String> {
        let open = || {
            let stream = TcpStream::connect(target.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let plain = open().map_err(|error: io::Error| format!("no connection: {error}"))?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(plain),
            Some(config) => {
                let name = ServerName::from(target.address.ip());
                let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a TLS client");
                let mut plain = plain;
                while connection.is_handshaking() {
                    connection.complete_io(&mut plain).map_err(|error| format!("no handshake: {error}"))?;
                }
                if connection.alpn_protocol() != Some(b"h2") {
                    return Err(format!("ALPN chose {:?}", connection.alpn_protocol()));
                }
                Box::new(StreamOwned::new(connection, plain))
            }
        };
        Ok(Self { target: Arc::clone(target), stream, settings: BTreeMap::new() })
    }

    /// The fields of `GET` for the target's path.
    pub(super) fn get(&self) -> Vec<(&'static str, String)> {
        self.request("GET")
    }

    /// The fields of a request for the target's path: method, scheme, path and authority, in this order.
    pub(super) fn request(&self, method: &str) -> Vec<(&'static str, String)> {
        let Target { address, path, .. } = *self.target;
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let authority = format!("{}:{}", address.ip(), address.port());
        vec![(":method", method.into()), (":scheme", scheme.into()), (":path", path.into()), (":authority", authority)]
    }

    /// A header block of `GET`.
    pub(super) fn get_block(&self) -> Vec<u8> {
        block(&self.get())
    }

    // ---- what is sent ----

    /// Sends these bytes. That the other side has closed already is for the judgement to find out.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.raw(&bytes);
    }

    pub(super) fn headers(&mut self, stream: u32, flags: u8, fields: &[(&'static str, String)]) {
        self.frame(HEADERS, flags, stream, &block(fields));
    }

    /// `GET`, whole, on this stream.
    pub(super) fn send_get(&mut self, stream: u32) {
        self.headers(stream, WHOLE, &self.get());
    }

    /// The head of a `POST` whose body is to follow, on stream 1.
    pub(super) fn send_post(&mut self) {
        self.headers(1, END_HEADERS, &self.request("POST"));
    }

    pub(super) fn data(&mut self, stream: u32, flags: u8, data: &[u8]) {
        self.frame(DATA, flags, stream, data);
    }

    /// A PRIORITY frame.
    pub(super) fn priority(&mut self, stream: u32, depends_on: u32, weight: u8) {
        self.frame(PRIORITY, 0, stream, &priority(depends_on, weight));
    }

    pub(super) fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    pub(super) fn send_settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
        self.frame(SETTINGS, 0, 0, &payload);
    }

    pub(super) fn ping(&mut self, flags: u8, payload: [u8; 8]) {
        self.frame(PING, flags, 0, &payload);
    }

    pub(super) fn goaway(&mut self, code: u32, debug: &[u8]) {
        let payload = [&[0; 4], &code.to_be_bytes()[..], debug].concat();
        self.frame(GOAWAY, 0, 0, &payload);
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    }

    /// A CONTINUATION frame with one long field.
    pub(super) fn continuation(&mut self, stream: u32, flags: u8) {
        self.frame(CONTINUATION, flags, stream, &block(&long_fields(1)));
    }

    /// The preface and SETTINGS, until both sides have acknowledged the other's.
    pub(super) fn handshake(&mut self) -> Verdict {
        self.raw(PREFACE);
        self.send_settings(&[(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)]);
        let (mut ours, mut theirs) = (false, false);
        while !(ours && theirs) {
            let frame = self.next_frame()?;
            if frame.kind == SETTINGS && frame.flags & ACK != 0 {
                ours = true;
            } else if frame.kind == SETTINGS {
                theirs = true;
                for setting in frame.payload.chunks_exact(6) {
                    let id = u16::from_be_bytes([setting[0], setting[1]]);
                    let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                    self.settings.insert(id, value);
                }
                self.frame(SETTINGS, ACK, 0, &[]);
            }
        }
        Ok(())
    }

    /// The server answers `GET` with at least so many bytes of DATA, without which a case says nothing.
    pub(super) fn has_answer_of(&self, least: usize) -> Verdict {
        match self.length_of_answer()? {
            length if length >= least => Ok(()),
            length => Err(format!("an answer of {length} bytes says nothing")),
        }
    }

    /// How many bytes of DATA the server answers `GET` with, asked on a connection of its own.
    fn length_of_answer(&self) -> Result<usize, String> {
        let mut other = Self::connect(&self.target)?;
        other.handshake()?;
        other.send_get(1);
        let mut length = 0;
        loop {
            let frame = other.next_frame()?;
            length += if frame.kind == DATA { frame.payload.len() } else { 0 };
            if frame.ends_stream() {
                return Ok(length);
            }
        }
    }

    // ---- what is expected ----

    /// The connection ends, with a GOAWAY of one of these codes or without one.
    pub(super) fn expect_connection_error(&mut self, codes: &[u32]) -> Verdict {
        self.until("a connection error", |frame| {
            frame.kind == GOAWAY && frame.code().is_some_and(|code| codes.contains(&code))
        })
    }

    /// The stream ends with one of these codes, or the connection does.
    pub(super) fn expect_stream_error(&mut self, codes: &[u32]) -> Verdict {
        self.until("a stream error", |frame| frame.code().is_some_and(|code| codes.contains(&code)))
    }

    /// The connection is closed.
    pub(super) fn expect_closed(&mut self) -> Verdict {
        self.until("the end of the connection", |_| false)
    }

    /// The connection is closed, after whatever bytes.
    pub(super) fn expect_end_of_bytes(&mut self) -> Verdict {
        match io::copy(&mut self.stream, &mut io::sink()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(format!("{error} instead of the end")),
            _ => Ok(()),
        }
    }

    /// PING comes back with this payload, or the connection is closed.
    pub(super) fn expect_ping_or_closed(&mut self, payload: [u8; 8]) -> Verdict {
        self.until("PING", |frame| is_pong(frame, payload))
    }

    /// PING comes back with this payload.
    pub(super) fn expect_ping(&mut self, payload: [u8; 8]) -> Verdict {
        self.wait("PING", |frame| is_pong(frame, payload)).map(drop)
    }

    /// A frame of this type comes.
    pub(super) fn expect(&mut self, kind: u8) -> Result<Frame, String> {
        self.wait(&format!("a frame of type {kind}"), |frame| frame.kind == kind)
    }

    /// An answer begins on this stream.
    pub(super) fn expect_headers(&mut self, stream: u32) -> Verdict {
        match self.expect(HEADERS)? {
            frame if frame.stream == stream => Ok(()),
            frame => Err(format!("HEADERS of another stream: {frame:?}")),
        }
    }

    /// An answer begins on this stream, whatever comes before on others.
    pub(super) fn expect_headers_of(&mut self, stream: u32) -> Verdict {
        self.wait("an answer", |frame| frame.kind == HEADERS && frame.stream == stream).map(drop)
    }

    /// The status of the answer; how the stream ended if there is none.
    pub(super) fn status(&mut self) -> Result<u16, String> {
        let frame = self.wait("an answer", |frame| frame.kind == HEADERS || frame.code().is_some())?;
        match frame.code() {
            Some(code) => Err(format!("error code {code}")),
            None => hpack::status(&frame.payload).ok_or_else(|| format!("no status in {frame:?}")),
        }
    }

    /// SETTINGS are acknowledged.
    pub(super) fn expect_settings_ack(&mut self) -> Verdict {
        match self.expect(SETTINGS)? {
            frame if frame.flags & ACK != 0 => Ok(()),
            frame => Err(format!("SETTINGS instead of their acknowledgement: {frame:?}")),
        }
    }

    /// DATA of this length comes.
    pub(super) fn expect_data(&mut self, length: usize) -> Verdict {
        match self.expect(DATA)? {
            frame if frame.payload.len() == length => Ok(()),
            frame => Err(format!("DATA of {} bytes instead of {length}", frame.payload.len())),
        }
    }

    /// The answer ends.
    pub(super) fn expect_stream_end(&mut self) -> Verdict {
        self.wait("END_STREAM", Frame::ends_stream).map(drop)
    }

    /// The next frame, whatever it is.
    pub(super) fn next_frame(&mut self) -> Result<Frame, String> {
        self.wait("a frame", |_| true)
    }

    /// Reads until a frame fits or the connection is closed, both of which are right.
    fn until(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Verdict {
        self.read_until(what, fits).map(drop)
    }

    /// Reads until a frame fits.
    fn wait(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Result<Frame, String> {
        self.read_until(what, fits)?.ok_or_else(|| format!("the connection ended before {what}"))
    }

    /// Reads until a frame fits; `None` if the connection is closed before.
    fn read_until(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Result<Option<Frame>, String> {
        let mut last = None;
        loop {
            match self.read_frame() {
                Ok(Some(frame)) if !fits(&frame) => last = Some(frame),
                Ok(found) => return Ok(found),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(format!("{error} instead of {what}; the last frame was {last:?}")),
            }
        }
    }

    /// The next frame; `None` at an orderly end between two frames (with TLS: after `close_notify`, without which a client
    /// cannot know that all came).
    fn read_frame(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read(&mut head)? {
            0 => return Ok(None),
            read => self.stream.read_exact(&mut head[read..])?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes")) & 0x7fff_ffff;
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }
}

fn is_pong(frame: &Frame, payload: [u8; 8]) -> bool {
    frame.kind == PING && frame.flags & ACK != 0 && frame.payload == payload
}

/// The payload of a PRIORITY frame; the highest bit of `depends_on` says that the dependency is exclusive.
pub(super) fn priority(depends_on: u32, weight: u8) -> Vec<u8> {
    [&depends_on.to_be_bytes()[..], &[weight]].concat()
}

pub(super) fn block(fields: &[(&'static str, String)]) -> Vec<u8> {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    hpack::encode(&fields)
}

/// So many fields of 4,000 bytes.
pub(super) fn long_fields(count: usize) -> Vec<(&'static str, String)> {
    let names = ["x-dummy0", "x-dummy1", "x-dummy2", "x-dummy3", "x-dummy4"];
    names.into_iter().take(count).map(|name| (name, "x".repeat(4_000))).collect()
}

/// `fields` with one more.
pub(super) fn with(
    mut fields: Vec<(&'static str, String)>,
    name: &'static str,
    value: &str,
) -> Vec<(&'static str, String)> {
    fields.push((name, value.to_owned()));
    fields
}
