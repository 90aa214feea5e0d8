//! Peers that lie about where a message ends, by corpora that nobody here wrote (issue 3 no. 5): a client that hides a request in
//! another, and an upstream whose answers do not end where they say.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::{Behaviour, Connection, Doorward, Issuer, Received, Upstream, corpus, doorward, eventually};

const POLICY: &str = "
version: 1
service: oms
upstream: oms
paths:
  /: { '*': public }
  /items/{id}: { '*': public }
  /secret: { get: item:view }
";
/// What is hidden behind or inside another request; nobody who sends it may ask for it.
const HIDDEN: &str = "GET /secret HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\n\r\n";

fn bytes_of(case: &Value, key: &str) -> Vec<u8> {
    STANDARD.decode(case[key].as_str().expect("base64 text")).expect("base64")
}

/// The case as it is with the guarded request behind it, and twice with the guarded request where one of two readings finds it.
fn disguises(case: &Value) -> Vec<Vec<u8>> {
    let (by_length, by_chunks) = (bytes_of(case, "clte_b64"), bytes_of(case, "tecl_b64"));
    let mut all: Vec<_> = [&by_length, &by_chunks].map(|bytes| [bytes, HIDDEN.as_bytes()].concat()).into();
    let with = |head: &[u8], old: &[u8], length: usize, body: &str| {
        let at = head.windows(old.len()).position(|window| window == old).expect("the length stands there");
        let length = format!("Content-Length: {length}");
        [&head[..at], length.as_bytes(), &head[at + old.len()..], body.as_bytes()].concat()
    };
    // Behind the last chunk, but within the length.
    let body = format!("0\r\n\r\n{HIDDEN}");
    let head = by_length.strip_suffix(b"1\r\nZ\r\n0\r\n\r\n").expect("eleven bytes of chunks");
    all.push(with(head, b"Content-Length: 4", body.len(), &body));
    // Within a chunk, but behind the length.
    let size = format!("{:x}\r\n", HIDDEN.len());
    let head = by_chunks.strip_suffix(b"0\r\n\r\nX").expect("the last chunk, and one byte more");
    all.push(with(head, b"Content-Length: 6", size.len(), &format!("{size}{HIDDEN}\r\n0\r\n\r\n")));
    all
}

/// Whether any two readers of this head agree on where its message ends.
fn has_one_framing(received: &Received) -> bool {
    let letters = |name: &str| name.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    let of = |wanted: &str| received.fields.iter().filter(|(name, _)| letters(name) == wanted).collect::<Vec<_>>();
    let (lengths, encodings) = (of("contentlength"), of("transferencoding"));
    let plain = |(name, value): &&(String, String)| match letters(name).as_str() {
        "contentlength" => {
            name.eq_ignore_ascii_case("content-length") && value.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked",
    };
    lengths.len() + encodings.len() <= 1 && lengths.iter().chain(&encodings).all(plain)
}

#[test]
fn a_hidden_request_never_reaches_the_upstream() {
    let Some(corpus) = corpus("http1/smuggler_default.json") else { return };
    let upstream = Upstream::start(Behaviour::With(vec![]));
    let running = doorward()
        .policy(POLICY)
        .issuer(&Issuer::hs256())
        .upstream(&upstream)
        .setting("gateway.limits.header_timeout", "300ms")
        .setting("gateway.limits.idle_timeout", "300ms")
        .start();
    let payloads = corpus["payloads"].as_array().unwrap();
    assert!(payloads.len() > 100);
    let cases: Vec<(String, Vec<u8>)> = payloads
        .iter()
        .flat_map(|case| {
            let name = case["name"].as_str().unwrap();
            disguises(case).into_iter().enumerate().map(move |(number, bytes)| (format!("{name} {number}"), bytes))
        })
        .collect();
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(8)) {
            let (running, answered) = (&running, &answered);
            scope.spawn(move || {
                for (name, bytes) in part {
                    // On a machine that stands still it may be idle for too long before it is used.
                    let mut connection = eventually("a connection is used", Duration::from_secs(30), || {
                        let mut connection = running.connect();
                        connection.send("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
                        let first = connection.try_response("GET").ok()?;
                        assert_eq!(first.status, 200, "{first:?}");
                        Some(connection)
                    });
                    connection.send(bytes).send("GET /items/after HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
                    while let Ok(response) = connection.try_response("GET") {
                        answered.fetch_add(1, Ordering::SeqCst);
                        assert!(
                            [200, 400, 401, 403, 405, 408, 411, 413, 501].contains(&response.status),
                            "{name}: {response:?}"
                        );
                    }
                }
            });
        }
    });
    let received = upstream.requests();
    for request in &received {
        let target = request.target.as_str();
        assert!(target.starts_with("/?") || ["/", "/items/after"].contains(&target), "{}", request.text());
        assert!(has_one_framing(request), "{}", request.text());
    }
    assert!(received.len() >= cases.len(), "the first request of each connection is permitted");
    eprintln!(
        "smuggler: {} cases, {} answers, {} requests upstream, none of them hidden",
        cases.len(),
        answered.load(Ordering::SeqCst),
        received.len()
    );
}

/// A second answer that nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON";

/// How a raw answer is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// As it is.
    Plain,
    /// With an empty line behind it, which ends a head or trailers that lack it.
    Ended,
    /// Ended, and another answer behind it at once.
    Poisoned,
    /// Ended, and another answer behind it a moment later.
    PoisonedLater,
}

const SERVINGS: [Serving; 4] = [Serving::Plain, Serving::Ended, Serving::Poisoned, Serving::PoisonedLater];

/// An upstream that answers `/items/raw-N-S` with the Nth of these answers, served in the Sth way, and every other request with
/// its own target, on connections that it keeps open.
struct Hostile {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    /// How many answers that nobody asked for were written a moment later.
    poisoned: Arc<AtomicUsize>,
}

impl Hostile {
    fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stopped, answers) =
            (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)), Arc::new(answers));
        let (stop, poisoned) = (Arc::clone(&stopped), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&poisoned);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (answers, count) = (Arc::clone(&answers), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, &answers, &count));
            }
        });
        Self { address, stopped, poisoned }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, answers: &[Vec<u8>], poisoned: &AtomicUsize) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    // What is written is sent, and not held back until what went before is acknowledged.
    stream.set_nodelay(true).ok()?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(length) => buffer.extend_from_slice(&piece[..length]),
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let target = head.split(' ').nth(1)?.to_owned();
        match target.strip_prefix("/items/raw-").and_then(|which| which.split_once('-')) {
            None => {
                let body = if head.starts_with("HEAD ") { "" } else { target.as_str() };
                // In one piece: doorward waits half a second for the next.
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", target.len());
                stream.write_all(answer.as_bytes()).ok()?;
            }
            Some((number, serving)) => {
                let serving = SERVINGS[serving.parse::<usize>().ok()?];
                let mut bytes = answers[number.parse::<usize>().ok()?].clone();
                if serving != Serving::Plain {
                    bytes.extend_from_slice(b"\r\n");
                }
                if serving == Serving::Poisoned {
                    bytes.extend_from_slice(POISON.as_bytes());
                }
                stream.write_all(&bytes).ok()?;
                if serving == Serving::PoisonedLater {
                    std::thread::sleep(Duration::from_millis(20));
                    let written = stream.write_all(POISON.as_bytes());
                    poisoned.fetch_add(1, Ordering::SeqCst);
                    written.ok()?;
                }
            }
        }
    }
}

/// Asks for a raw answer, whatever it is, and then, on the same connection and as somebody else, for what has a known answer.
/// Gives what was wrong.
fn meet(running: &Doorward, upstream: &Hostile, method: &str, number: usize, serving: usize) -> Result<(), String> {
    let case = format!("{number}-{serving}-{method}");
    let mut first = running.connect();
    first.set_read_timeout(Duration::from_secs(3));
    let poisoned = upstream.poisoned.load(Ordering::SeqCst);
    first.send(format!("{method} /items/raw-{number}-{serving} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let raw = first.try_response(method);
    if SERVINGS[serving] == Serving::PoisonedLater {
        // What comes behind an answer is on the connection before it is asked for anything else, and the worker, which has
        // answered since, has seen it. A byte that crosses the next request is that request's answer: HTTP/1.1 knows no other.
        let written = || (upstream.poisoned.load(Ordering::SeqCst) > poisoned).then_some(());
        eventually("the other answer is written", Duration::from_secs(30), written);
        assert_eq!(running.get("/secret").status, 401);
    }
    let own = format!("/items/own-{case}");
    let ask = |connection: &mut Connection, who: &str| {
        let request = format!("GET {own}-{who} HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = connection.send(request).try_response("GET").map_err(|error| error.to_string())?;
        match response.status {
            200 if response.text() == format!("{own}-{who}") => Ok(()),
            502 | 504 if response.field("doorward-decision").is_some() => Ok(()),
            _ => Err(format!("{case}: {who} got {}{}", String::from_utf8_lossy(&response.head), response.text())),
        }
    };
    for who in ["b", "c"] {
        ask(&mut running.connect(), who)?;
    }
    // Where the client could read the raw answer to its end, the next on its connection is its own, or there is none.
    match raw.map(|_| ask(&mut first, "a")) {
        Ok(Err(wrong)) if wrong.contains(" got ") => Err(wrong),
        _ => Ok(()),
    }
}

/// So many clients at a time meet every answer of the corpus, served in these ways, through one worker.
fn met(corpus: &Value, servings: std::ops::Range<usize>, clients: usize) -> usize {
    let tests = corpus["tests"].as_array().unwrap();
    let responses: Vec<Vec<u8>> =
        tests.iter().filter(|test| test["kind"] == "response").map(|test| bytes_of(test, "payload_b64")).collect();
    assert!(responses.len() > 80);
    let upstream = Hostile::start(responses.clone());
    let mut running = doorward()
        .policy(POLICY)
        .issuer(&Issuer::hs256())
        .setting("upstreams.oms.endpoints", vec![format!("http://{}", upstream.address)])
        .setting("upstreams.oms.timeouts", toml::toml! { first_byte = "1s" idle = "500ms" })
        .start();
    let meetings: Vec<(usize, usize, &str)> = (0..responses.len())
        .flat_map(|number| servings.clone().map(move |serving| (number, serving)))
        .flat_map(|(number, serving)| ["GET", "HEAD"].map(|method| (number, serving, method)))
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while let Some((number, serving, method)) = meetings.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(what) = meet(&running, &upstream, method, *number, *serving) {
                        wrong.lock().unwrap().insert(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), meetings.len());
    assert!(running.is_running());
    let still_there = || (running.get("/items/still-there").text() == "/items/still-there").then_some(());
    eventually("a plain answer", Duration::from_secs(30), still_there);
    meetings.len()
}

#[test]
fn a_hostile_upstreams_answer_never_leaks_into_another() {
    let Some(corpus) = corpus("http1/llhttp_tests.json") else { return };
    let at_once = met(&corpus, 0..3, 16);
    let later = met(&corpus, 3..4, 1);
    eprintln!("llhttp: {} answers of a hostile upstream, none in another", at_once + later);
}
