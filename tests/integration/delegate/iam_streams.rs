//! What is open is asked about again when the answer is too old (T15, T20).

use std::time::{Duration, Instant};

use serde_json::json;

use super::service::UserService;
use crate::harness::websocket::{echo, frame, handshake, read_frame};
use crate::harness::{Behaviour, Connection, Doorward, Upstream, eventually};

const POLICY: &str = "
version: 1
service: oms
upstream: oms
paths:
  /public/{what}: { get: public }
  /items/{what}: { get: item:view, post: item:view }
";

/// Long enough for a machine under load.
const SOON: Duration = Duration::from_secs(30);

fn upstream() -> Upstream {
    Upstream::start(Behaviour::script(|received, wire| {
        let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
        match received.target.rsplit('/').next() {
            Some("ws") => return echo(received, wire),
            Some("events") => drop(wire.write(events)),
            _ => {}
        }
        let _ = wire.read_to_end();
    }))
}

fn websocket(gateway: &Doorward, target: &str, token: &str) -> Connection {
    let mut connection = gateway.connect();
    connection.send(handshake(target, token, ""));
    assert_eq!(connection.response().status, 101);
    assert!(talks(&mut connection));
    connection
}

fn talks(connection: &mut Connection) -> bool {
    connection.wire().write(&frame(1, b"on", true)).is_ok()
        && read_frame(connection.wire()).is_some_and(|back| back.payload == b"on")
}

fn close_of(connection: &mut Connection) -> (u16, String) {
    connection.set_read_timeout(SOON);
    loop {
        match read_frame(connection.wire()) {
            Some(frame) if frame.opcode == 8 => return frame.close(),
            Some(_) => {}
            None => panic!("the connection ended without a Close"),
        }
    }
}

fn service() -> UserService {
    let service = UserService::start();
    for token in ["a", "b", "c"] {
        service.knows(token, json!({"sub": token})).grants(token, "item:view");
    }
    service
}

#[test]
fn t20_a_stream_whose_token_or_permission_is_withdrawn_elsewhere_ends() {
    let (service, upstream) = (service(), upstream());
    let gateway = service.asked_by(&upstream).policy(POLICY).setting("auth.iam_service.cache", "1s").start();
    let mut rejected = websocket(&gateway, "/items/ws", "a");
    let mut withdrawn = websocket(&gateway, "/items/ws", "b");
    let mut named = websocket(&gateway, "/public/ws", "a");
    let mut stays = websocket(&gateway, "/items/ws", "c");
    let mut events = gateway.connect();
    events.send("GET /items/events HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer b\r\n\r\n");
    assert!(events.head().starts_with("HTTP/1.1 200"));
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_secs(7) {
        for open in [&mut rejected, &mut withdrawn, &mut named, &mut stays] {
            assert!(talks(open), "after {:?}", opened.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    eventually("all were asked again", SOON, || (service.userinfos() >= 6).then_some(()));
    service.forgets("a");
    service.withdraws("b", "item:view");
    assert_eq!(close_of(&mut rejected), (1008, "token_rejected".into()));
    assert_eq!(close_of(&mut named), (1008, "token_rejected".into()), "the upstream believes that it is still them");
    assert_eq!(close_of(&mut withdrawn), (1008, "permission_missing".into()));
    events.set_read_timeout(SOON);
    assert!(events.wire().chunked().is_ok(), "an event stream ends cleanly");
    assert!(talks(&mut stays));
    assert!(gateway.metric("doorward_exchanges_ended_total", &["reason=\"token_rejected\""]) >= 2.0);
}

#[test]
fn t20_a_stream_ends_as_unavailable_when_nobody_answers() {
    let (service, upstream) = (service(), upstream());
    let gateway = service.asked_by(&upstream).policy(POLICY).setting("auth.iam_service.cache", "1s").start();
    let mut open = websocket(&gateway, "/items/ws", "a");
    // An upload that nobody answers is asked about as well.
    let mut upload = gateway.connect();
    upload.send("POST /items/upload HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer b\r\nContent-Length: 9\r\n\r\n012345678");
    eventually("it is asked", SOON, || (service.userinfos() >= 2).then_some(()));
    drop(service);
    let (code, reason) = close_of(&mut open);
    assert_eq!((code, reason.as_str()), (1008, "auth_unavailable"));
    upload.set_read_timeout(SOON);
    assert_eq!(upload.response().denial(), (503, "auth_unavailable".into()));
}
