//! A service that streams: gigabytes in and out without holding them, events one by one, trailers, a body that waits to be
//! asked for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes after which the contents of a large body repeat: a prime, so that a piece that is lost, doubled or out of place
/// shows, whatever its size.
const PERIOD: usize = 65_521;

/// What a large body holds from any place on.
#[derive(Debug)]
pub(super) struct Contents {
    twice: Vec<u8>,
}

impl Contents {
    pub(super) fn new() -> Self {
        let once = (0..PERIOD).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap());
        let once: Vec<u8> = once.collect();
        Self { twice: [once.as_slice(), once.as_slice()].concat() }
    }

    /// The bytes from `place` on, at most so many; fewer for the sake of a slice.
    pub(super) fn from(&self, place: u64, at_most: u64) -> &[u8] {
        let begin = usize::try_from(place % PERIOD as u64).unwrap();
        &self.twice[begin..][..usize::try_from(at_most).unwrap_or(PERIOD).min(PERIOD)]
    }

    /// Writes the first `length` bytes.
    pub(super) fn write_to(&self, mut to: impl Write, length: u64) -> io::Result<()> {
        let mut place = 0;
        while place < length {
            let piece = self.from(place, length - place);
            to.write_all(piece)?;
            place += piece.len() as u64;
        }
        to.flush()
    }

    /// Reads to the end; returns how many bytes there were, or where they were first wrong.
    pub(super) fn read_from(&self, mut from: impl Read) -> io::Result<u64> {
        let mut piece = vec![0; PERIOD];
        let mut place = 0;
        loop {
            let count = from.read(&mut piece)?;
            if count == 0 {
                return Ok(place);
            }
            if piece[..count] != *self.from(place, count as u64) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("other bytes after {place}")));
            }
            place += count as u64;
        }
    }
}

#[derive(Debug)]
struct Shared {
    contents: Contents,
    connections: AtomicUsize,
    requests: AtomicUsize,
    events: Mutex<Receiver<String>>,
    stopped: AtomicBool,
}

/// A running service. It serves:
///
/// - `GET /get`: `hello`
/// - `PUT /upload`: reads the body and answers with its length, if it is [`Contents`]
/// - `GET /download?N`: N bytes of [`Contents`]
/// - `GET /events`: what [`Service::emit`] is given, as server-sent events, until that is empty
/// - `POST /trailers`: the body, and the trailers that came with it as the trailer `x-echo`
#[derive(Debug)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    emit: Sender<String>,
    shared: Arc<Shared>,
}

impl Service {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let (emit, events) = channel();
        let shared = Arc::new(Shared {
            contents: Contents::new(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            events: Mutex::new(events),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || while serve(&shared, &stream).unwrap_or(false) {});
            }
        });
        Self { address, emit, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections and requests that came so far.
    pub(super) fn contacts(&self) -> (usize, usize) {
        (self.shared.connections.load(Ordering::SeqCst), self.shared.requests.load(Ordering::SeqCst))
    }

    /// Sends an event to whoever reads `/events`; an empty one ends the stream.
    pub(super) fn emit(&self, event: &str) {
        self.emit.send(event.to_owned()).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

/// Serves one request; `false` at the end of the connection.
fn serve(shared: &Shared, stream: &TcpStream) -> io::Result<bool> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut writer = stream;
    let Some((first, fields)) = head(&mut reader)? else { return Ok(false) };
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let mut words = first.split(' ');
    let route = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut body = Body::new(reader, &fields);
    match route {
        ("PUT", "/upload") => {
            let text = match shared.contents.read_from(&mut body) {
                Ok(length) => length.to_string(),
                Err(error) => error.to_string(),
            };
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
        }
        ("GET", download) if download.starts_with("/download?") => {
            let length = download["/download?".len()..].parse().map_err(io::Error::other)?;
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            shared.contents.write_to(writer, length)?;
        }
        ("GET", "/events") => {
            let head = "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked";
            write!(writer, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n")?;
            let events = shared.events.lock().unwrap();
            while let Ok(event) = events.recv()
                && !event.is_empty()
            {
                let event = format!("data: {event}\n\n");
                write!(writer, "{:x}\r\n{event}\r\n", event.len())?;
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
        ("POST", "/trailers") => {
            let mut text = String::new();
            body.read_to_string(&mut text)?;
            let echo = body.trailers.join(", ");
            let head = "Trailer: x-echo\r\nTransfer-Encoding: chunked";
            write!(
                writer,
                "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{:x}\r\n{text}\r\n0\r\nX-Echo: {echo}\r\n\r\n",
                text.len()
            )?;
        }
        _ => {
            io::copy(&mut body, &mut io::sink())?;
            writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")?;
        }
    }
    // Where a body was not read to its end, the connection cannot go on.
    Ok(matches!(body.left, Left::Nothing))
}

/// The first line of a head, and its fields in lower case; `None` at the end of the connection.
fn head(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<String>)>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() && !lines.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let first = lines.remove(0);
    Ok(Some((first, lines.iter().map(|line| line.to_ascii_lowercase()).collect())))
}

/// What of a body is still to come.
#[derive(Debug)]
enum Left {
    Bytes(u64),
    /// Of this chunk, with its line end.
    Chunk(u64),
    NextChunk,
    Nothing,
}

/// A request's body, read as it comes (RFC 9112 section 6).
struct Body<R> {
    reader: R,
    left: Left,
    trailers: Vec<String>,
}

impl<R: BufRead> Body<R> {
    fn new(reader: R, fields: &[String]) -> Self {
        let length = fields.iter().find_map(|field| field.strip_prefix("content-length:")?.trim().parse().ok());
        let left = match length {
            Some(0) => Left::Nothing,
            Some(length) => Left::Bytes(length),
            None if fields.iter().any(|field| field.starts_with("transfer-encoding:")) => Left::NextChunk,
            None => Left::Nothing,
        };
        Self { reader, left, trailers: Vec::new() }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if matches!(self.left, Left::NextChunk) {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            self.left = Left::Chunk(u64::from_str_radix(size, 16).map_err(io::Error::other)?);
            if matches!(self.left, Left::Chunk(0)) {
                loop {
                    let line = self.line()?;
                    if line.is_empty() {
                        break;
                    }
                    self.trailers.push(line);
                }
                self.left = Left::Nothing;
            }
        }
        let (Left::Bytes(left) | Left::Chunk(left)) = self.left else { return Ok(0) };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let count = self.reader.read(&mut into[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = left - count as u64;
        self.left = match self.left {
            Left::Chunk(_) if rest == 0 => {
                self.line()?;
                Left::NextChunk
            }
            Left::Chunk(_) => Left::Chunk(rest),
            _ if rest == 0 => Left::Nothing,
            _ => Left::Bytes(rest),
        };
        Ok(count)
    }
}
