//! The service behind doorward: it records what reaches it, byte for byte, and answers as a test scripts it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wire::{Fields, Wire, parse_head, value};

/// How the upstream answers from now on.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// 200 with the received head and body as text.
    Echo,
    /// 200 with the received body alone.
    EchoBody,
    /// 200 with `ok` and these fields.
    With(Vec<(&'static str, &'static str)>),
    /// Reads the request and closes without a byte.
    Close,
    /// Announces 100 bytes, sends 10 and closes.
    DieMidBody,
    /// Sends one chunk of a chunked body and closes.
    DieMidChunks,
    /// Reads the request and never answers.
    Silent,
    /// Answers `ok` after this long.
    Slow(Duration),
    /// A chunked body that never ends.
    Endless,
    /// Exactly these bytes, then closes.
    Raw(Vec<u8>),
    /// Answers as soon as the head is there and never reads the body.
    IgnoreBody,
    /// Whatever this does with the connection, which ends behind it.
    Script(Script),
}

/// What an upstream does with one request.
#[derive(Clone)]
pub(crate) struct Script(Arc<Play>);

type Play = dyn Fn(&Received, &mut Wire) + Send + Sync;

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl Behaviour {
    pub(crate) fn script(script: impl Fn(&Received, &mut Wire) + Send + Sync + 'static) -> Self {
        Self::Script(Script(Arc::new(script)))
    }
}

/// A request as it reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The head, byte for byte.
    pub(crate) head: Vec<u8>,
    /// Whether the whole body arrived.
    pub(crate) complete: bool,
}

impl Received {
    /// The value of a field; it must not stand twice.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        assert!(self.all(name).len() <= 1, "{name} reached the upstream twice: {}", self.text());
        value(&self.fields, name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// Head, body and trailers as text, for searching and messages.
    pub(crate) fn text(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{}{body}{:?}", String::from_utf8_lossy(&self.head), self.trailers)
    }
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

/// A listening upstream. It stops with the test that started it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
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
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn echo() -> Self {
        Self::start(Behaviour::Echo)
    }

    /// Answers like this from the next request on.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The last request that arrived.
    pub(crate) fn last(&self) -> Received {
        self.shared.received.lock().unwrap().last().cloned().expect("a request reached the upstream")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // The accepting thread wakes up, sees that it is to stop, and lets the port go.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

fn serve(shared: &Shared, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut wire = Wire::new(stream);
    wire.set_read_timeout(Duration::from_secs(60));
    while let Ok(Some(head)) = wire.head() {
        let behaviour = shared.behaviour.lock().unwrap().clone();
        let (line, fields) = parse_head(&head);
        let mut words = line.splitn(3, ' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let mut received =
            Received { method, target, fields, body: Vec::new(), trailers: Vec::new(), head, complete: false };
        if !matches!(behaviour, Behaviour::IgnoreBody) {
            let body = if value(&received.fields, "transfer-encoding").is_some() {
                wire.chunked()
            } else {
                let length = value(&received.fields, "content-length").and_then(|length| length.parse().ok());
                wire.exactly(length.unwrap_or(0)).map(|body| (body, Vec::new()))
            };
            if let Ok((body, trailers)) = body {
                received.body = body;
                received.trailers = trailers;
                received.complete = true;
            }
        }
        let complete = received.complete;
        shared.received.lock().unwrap().push(received.clone());
        if !complete && !matches!(behaviour, Behaviour::IgnoreBody) {
            return;
        }
        if !answer(&behaviour, &received, &mut wire, shared) {
            return;
        }
    }
}

/// Answers one request; `false` ends the connection.
fn answer(behaviour: &Behaviour, received: &Received, wire: &mut Wire, shared: &Shared) -> bool {
    let is_head = received.method == "HEAD";
    match behaviour {
        Behaviour::Echo => {
            let mut body = received.head.clone();
            body.extend_from_slice(&received.body);
            wire.write(&ok(&[("Content-Type", "text/plain")], &body, is_head)).is_ok()
        }
        Behaviour::EchoBody => wire.write(&ok(&[("Content-Type", "text/plain")], &received.body, is_head)).is_ok(),
        Behaviour::With(fields) => wire.write(&ok(fields, b"ok", is_head)).is_ok(),
        Behaviour::Close => false,
        Behaviour::DieMidBody => {
            let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
            false
        }
        Behaviour::DieMidChunks => {
            let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            false
        }
        Behaviour::Silent => {
            // Until the other side closes: then there is nobody left to be silent to.
            let _ = wire.read_to_end();
            false
        }
        Behaviour::Slow(wait) => {
            std::thread::sleep(*wait);
            wire.write(&ok(&[], b"ok", is_head)).is_ok()
        }
        Behaviour::Endless => {
            let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
            loop {
                if shared.stopped.load(Ordering::SeqCst) || wire.write(&chunk).is_err() {
                    break;
                }
            }
            false
        }
        Behaviour::Raw(bytes) => {
            let _ = wire.write(bytes);
            false
        }
        Behaviour::Script(script) => {
            (script.0)(received, wire);
            false
        }
        Behaviour::IgnoreBody => {
            let _ = wire.write(&ok(&[("Connection", "close")], b"ok", is_head));
            let _ = wire.stream().shutdown(std::net::Shutdown::Write);
            let _ = wire.read_to_end();
            false
        }
    }
}

fn ok(fields: &[(&str, &str)], body: &[u8], is_head: bool) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()).into_bytes();
    for (name, value) in fields {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if !is_head {
        bytes.extend_from_slice(body);
    }
    bytes
}
