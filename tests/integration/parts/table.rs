//! {h1, h2, TLS, h2c} × all that passes through: each cell that the protocol has passes with a permitted token, and is
//! refused without one before the service is contacted.
//!
//! A cell is a test, so the names of the tests are the table.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::contacts::Contacts;
use super::downstream::{Downstream, Gateway, spawn, status_by_curl};
use super::part::{Part, python, run};
use super::service::{Contents, Service};
use crate::harness::free_ports;

/// Bytes of a large body.
const GIGABYTE: u64 = 1 << 30;
/// By how much resident memory may move while a large body passes.
const FLAT_KIB: u64 = 8 * 1024;

macro_rules! table {
    ($($row:ident = $downstream:ident: $($(#[$not:meta])? $cell:ident)*;)*) => {
        $(mod $row {
            use super::Downstream;
            $(#[test] $(#[$not])? fn $cell() { super::$cell(Downstream::$downstream); })*
        })*
    };
}

table! {
    h1 = H1:
        get upload_of_1_gib download_of_1_gib server_sent_events trailers continue_100
        websocket;
    h1_tls = H1Tls:
        get upload_of_1_gib download_of_1_gib server_sent_events trailers continue_100
        websocket;
    h2_tls = H2Tls:
        get upload_of_1_gib download_of_1_gib server_sent_events trailers
        #[ignore = "hyper's HTTP/2 server cannot send a 100"] continue_100
        websocket
        grpc_unary
        grpc_streams;
    h2c = H2c:
        get upload_of_1_gib download_of_1_gib server_sent_events trailers
        #[ignore = "hyper's HTTP/2 server cannot send a 100"] continue_100
        websocket
        grpc_unary
        grpc_streams;
}

/// curl gets a page.
fn get(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    gateway.refuses(|token| status_by_curl(&gateway, gateway.curl("/get", token)));
    assert_eq!(service.contacts(), (0, 0));
    let done = run(gateway.curl("/get", Some(&gateway.token())));
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("hello", gateway.said(200).as_str()));
    assert_eq!(service.contacts(), (1, 1));
    // And one that stands behind an open connection to the service is refused likewise.
    gateway.refuses(|token| status_by_curl(&gateway, gateway.curl("/get", token)));
    assert_eq!(service.contacts(), (1, 1));
}

/// curl sends a gigabyte whose length it does not know.
fn upload_of_1_gib(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    let upload = |token: Option<&str>| {
        let mut command = gateway.curl("/upload", token);
        command.args(["--upload-file", "-"]);
        command
    };
    gateway.refuses(|token| status_by_curl(&gateway, upload(token)));
    assert_eq!(service.contacts(), (0, 0));

    let contents = Arc::new(Contents::new());
    let send = |length: u64| {
        let mut curl = spawn(upload(Some(&gateway.token())));
        let mut input = curl.stdin.take().unwrap();
        let contents = Arc::clone(&contents);
        let writing = std::thread::spawn(move || contents.write_to(&mut input, length));
        let output = curl.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(text(output.stderr), gateway.said(200));
        assert_eq!(text(output.stdout), length.to_string(), "all of it arrived as it was sent");
        writing.join().unwrap().unwrap();
    };
    // What a large body needs once is there before it is measured.
    send(GIGABYTE / 32);
    memory_stays_flat(&gateway, || send(GIGABYTE));
}

/// curl gets a gigabyte.
fn download_of_1_gib(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    gateway.refuses(|token| status_by_curl(&gateway, gateway.curl("/download?1000", token)));
    assert_eq!(service.contacts(), (0, 0));

    let contents = Contents::new();
    let receive = |length: u64| {
        let mut curl = spawn(gateway.curl(&format!("/download?{length}"), Some(&gateway.token())));
        let received = contents.read_from(curl.stdout.take().unwrap());
        let output = curl.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), gateway.said(200));
        assert_eq!(received.unwrap(), length);
    };
    receive(GIGABYTE / 32);
    memory_stays_flat(&gateway, || receive(GIGABYTE));
}

/// Looks at doorward's resident memory again and again while something is done.
fn memory_stays_flat(gateway: &Gateway, act: impl FnOnce()) {
    let before = gateway.resident_kib();
    let done = AtomicBool::new(false);
    let (lowest, highest) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let (mut lowest, mut highest) = (before, before);
            while !done.load(Ordering::SeqCst) {
                let now = gateway.resident_kib();
                (lowest, highest) = (lowest.min(now), highest.max(now));
                std::thread::sleep(Duration::from_millis(10));
            }
            (lowest, highest)
        });
        // The watching thread ends even where this fails.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let ends = Ends(&done);
        act();
        drop(ends);
        watching.join().unwrap()
    });
    eprintln!("{:?}: {before} KiB before, {lowest} to {highest} KiB meanwhile", gateway.downstream);
    assert!(highest - before <= FLAT_KIB, "{highest} KiB resident, {before} before");
    assert!(before - lowest <= FLAT_KIB, "{lowest} KiB resident, {before} before");
}

/// curl reads events; each is sent only after the one before it was seen.
fn server_sent_events(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    gateway.refuses(|token| status_by_curl(&gateway, gateway.curl("/events", token)));
    assert_eq!(service.contacts(), (0, 0));

    let mut command = gateway.curl("/events", Some(&gateway.token()));
    command.arg("--no-buffer");
    let mut curl = spawn(command);
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    for number in 0..20 {
        service.emit(&format!("number {number}"));
        assert_eq!(lines.next().unwrap().unwrap(), format!("data: number {number}"));
        assert_eq!(lines.next().unwrap().unwrap(), "");
    }
    service.emit("");
    assert!(lines.next().is_none(), "the stream ends when the service ends it");
    let output = curl.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), gateway.said(200));
}

/// A terminal of Jupyter Server, over the libraries websockets (HTTP/1.1) and h2 with wsproto (extended CONNECT).
fn websocket(downstream: Downstream) {
    let (_jupyter, address) = jupyter();
    let contacts = Contacts::before(address);
    let gateway = Gateway::start(downstream, &format!("http://{}", contacts.address));
    let use_terminal = |name: &str, token: Option<&str>| {
        let mut command = python("terminal.py");
        let scheme = gateway.url("").replacen("http", "ws", 1);
        command.arg(downstream.protocol()).arg(format!("{scheme}/terminals/websocket/{name}"));
        command.args(gateway.authority_arguments());
        if let Some(token) = token {
            command.args(["--token", token]);
        }
        run(command).json()
    };
    gateway.refuses(|token| status_of(&use_terminal("1", token)));
    assert_eq!(contacts.count(), 0);

    let mut ask = gateway.curl("/api/terminals", Some(&gateway.token()));
    ask.args(["--request", "POST"]);
    let made: Value = serde_json::from_str(&run(ask).stdout).unwrap();
    let name = made["name"].as_str().unwrap();
    let seen = use_terminal(name, Some(&gateway.token()));
    assert_eq!((&seen["sum"], &seen["long"], &seen["close"]), (&true.into(), &true.into(), &1000.into()), "{seen}");
    // Jupyter itself counts the terminal and has closed its end.
    let listed = run(gateway.curl("/api/terminals", Some(&gateway.token()))).stdout;
    assert!(listed.contains(&format!(r#""name": "{name}""#)), "{listed}");
}

fn jupyter() -> (Part, SocketAddr) {
    let [port] = free_ports();
    let mut command = python("jupyter.py");
    command.arg(format!("--ServerApp.port={port}"));
    // Neither settings nor the shell of whoever runs the tests.
    command.env("JUPYTER_NO_CONFIG", "1").env("JUPYTER_RUNTIME_DIR", "runtime").env("SHELL", "/bin/sh");
    let mut part = Part::start("jupyter", command);
    part.until("it serves", |lines| lines.iter().any(|line| line.contains("is running at")).then_some(()));
    (part, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A body with trailers behind it, each way, by the libraries h11 and h2.
fn trailers(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    let send = |token: Option<&str>| {
        let mut command = exchange(&gateway, "/trailers", token);
        command.args(["--body", "some text", "--field", "te: trailers", "--trailer", "x-checksum: 0123"]);
        // Nobody may name the user but doorward, and be it in a trailer (SPEC 3.7).
        command.args(["--trailer", "x-user-id: root"]);
        run(command).json()
    };
    gateway.refuses(|token| status_of(&send(token)));
    assert_eq!(service.contacts(), (0, 0));

    let seen = send(Some(&gateway.token()));
    assert_eq!((&seen["status"], &seen["body"]), (&200.into(), &"some text".into()), "{seen}");
    assert_eq!(seen["trailers"]["x-echo"], "x-checksum: 0123", "{seen}");
    // curl sees them too.
    let mut command = gateway.curl("/trailers", Some(&gateway.token()));
    command.args(["--data", "more", "--header", "TE: trailers", "--dump-header", "-"]);
    let shown = run(command).stdout.to_ascii_lowercase();
    assert!(shown.contains("\r\n\r\nmorex-echo:"), "{shown}");
}

/// A body that is sent only after the 100: doorward asks for it when the request is permitted, and never before.
fn continue_100(downstream: Downstream) {
    let service = Service::start();
    let gateway = Gateway::start(downstream, &service.url());
    let send = |token: Option<&str>| {
        let mut command = exchange(&gateway, "/trailers", token);
        command.args(["--body", "asked for", "--expect"]);
        run(command).json()
    };
    gateway.refuses(|token| {
        let seen = send(token);
        assert_eq!((&seen["interim"], &seen["body_sent"]), (&Value::Array(Vec::new()), &false.into()), "{seen}");
        status_of(&seen)
    });
    assert_eq!(service.contacts(), (0, 0));

    let seen = send(Some(&gateway.token()));
    assert_eq!(seen["interim"], serde_json::json!([100]), "{seen}");
    assert_eq!((&seen["status"], &seen["body"]), (&200.into(), &"asked for".into()), "{seen}");
    if downstream.protocol() == "h1" {
        // curl waits for the 100 as well: it would give up otherwise, long after this.
        let mut command = gateway.curl("/trailers", Some(&gateway.token()));
        command.args(["--header", "Expect: 100-continue", "--expect100-timeout", "250", "--max-time", "200"]);
        command.args(["--data", "asked for by curl"]);
        assert_eq!(run(command).stdout, "asked for by curl");
    }
}

/// One exchange by `exchange.py`.
fn exchange(gateway: &Gateway, target: &str, token: Option<&str>) -> Command {
    let mut command = python("exchange.py");
    command.arg(gateway.downstream.protocol()).arg(gateway.url(target)).args(gateway.authority_arguments());
    command.args(["--method", "POST"]);
    if let Some(token) = token {
        command.args(["--field", &format!("authorization: Bearer {token}")]);
    }
    command
}

fn status_of(seen: &Value) -> u16 {
    seen["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or_else(|| panic!("no status: {seen}"))
}

/// grpcio calls grpcio: one message each way, metadata, an error of the service's own.
fn grpc_unary(downstream: Downstream) {
    let grpc = Grpc::start(downstream);
    grpc.refuses("Unary", &["hello"]);

    let seen = grpc.permitted("Unary", &["hello"]);
    assert_eq!((&seen["code"], &seen["messages"]), (&"OK".into(), &serde_json::json!(["echo hello"])), "{seen}");
    assert_eq!(seen["initial"]["x-seen-user"], "u-1", "the service is told who calls: {seen}");
    assert_eq!(seen["trailing"]["x-checked"], "trailing", "{seen}");
    // More than one flow-control window of 64 KiB, and still an argument of a command.
    let long = "long".repeat(25_000);
    assert_eq!(grpc.permitted("Unary", &[&long])["messages"][0], format!("echo {long}"));
    let seen = grpc.permitted("Unary", &["fail"]);
    assert_eq!((&seen["code"], &seen["details"]), (&"FAILED_PRECONDITION".into(), &"asked to fail".into()), "{seen}");
    let seen = grpc.permitted("Unknown", &["1"]);
    assert_eq!(seen["code"], "UNIMPLEMENTED", "{seen}");
}

/// grpcio calls grpcio: messages one way, the other way, and in turn.
fn grpc_streams(downstream: Downstream) {
    let grpc = Grpc::start(downstream);
    for method in ["ClientStream", "ServerStream", "Bidirectional"] {
        grpc.refuses(method, &["3"]);
    }
    let cases: [(&str, &[&str], Value); 3] = [
        ("ClientStream", &["a", "b", "c"], serde_json::json!(["a|b|c"])),
        ("ServerStream", &["1000"], (0..1000).map(|number| number.to_string()).collect()),
        ("Bidirectional", &["a", "b", "c"], serde_json::json!(["echo a", "echo b", "echo c"])),
    ];
    for (method, messages, expected) in cases {
        let seen = grpc.permitted(method, messages);
        assert_eq!((&seen["code"], &seen["messages"]), (&"OK".into(), &expected), "{method}: {seen}");
        assert_eq!(seen["trailing"]["x-checked"], "trailing", "{method}: {seen}");
    }
}

/// A gRPC service behind doorward.
struct Grpc {
    gateway: Gateway,
    contacts: Contacts,
    _service: Part,
}

impl Grpc {
    fn start(downstream: Downstream) -> Self {
        let mut service = Part::start("gRPC service", python("grpc_service.py"));
        let port: u16 = service
            .until("it names its port", |lines| lines.iter().find_map(|line| line.strip_prefix("port ")?.parse().ok()));
        let contacts = Contacts::before(SocketAddr::from(([127, 0, 0, 1], port)));
        let gateway = Gateway::start(downstream, &format!("h2c://{}", contacts.address));
        Self { gateway, contacts, _service: service }
    }

    fn call(&self, method: &str, messages: &[&str], token: Option<&str>) -> Value {
        let mut command = python("grpc_client.py");
        command.arg(self.gateway.authority()).args(self.gateway.authority_arguments());
        if let Some(token) = token {
            command.args(["--token", token]);
        }
        command.arg(method).args(messages);
        run(command).json()
    }

    fn permitted(&self, method: &str, messages: &[&str]) -> Value {
        self.call(method, messages, Some(&self.gateway.token()))
    }

    fn refuses(&self, method: &str, messages: &[&str]) {
        let refused = self.call(method, messages, None);
        assert_eq!(refused["code"], "UNAUTHENTICATED", "{refused}");
        let refused = self.call(method, messages, Some(&self.gateway.powerless_token()));
        assert_eq!(refused["code"], "PERMISSION_DENIED", "{refused}");
        assert_eq!(self.contacts.count(), 0, "the service was contacted");
    }
}
