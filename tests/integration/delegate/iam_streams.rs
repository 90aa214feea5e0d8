//! What is open is asked about again when the answer is too old (T15, T20).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::iam::jwt;
use super::service::UserService;
use crate::harness::websocket::{echo, frame, handshake, read_frame};
use crate::harness::{Behaviour, Connection, Doorward, Upstream, eventually, now};

const POLICY: &str = "
version: 1
service: oms
upstream: oms
paths:
  /public/{what}: { get: public }
  /items/{what}: { get: item:view, post: item:view }
  /lasting/{what}: { get: { require: item:view, outlives_token: true } }
";

/// Long enough for a machine under load.
const SOON: Duration = Duration::from_secs(30);

fn upstream() -> Upstream {
    Upstream::start(Behaviour::script(|received, wire| {
        let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
        match received.target.rsplit('/').next() {
            Some("ws") => return echo(received, wire),
            Some("events") => drop(wire.write(events)),
            Some("none") => return drop(wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
            Some("drip") => {
                let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                while wire.write(b"1\r\nx\r\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
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

#[test]
fn t20_streams_end_when_their_token_expires_and_ordinary_bodies_and_what_outlives_it_do_not() {
    let (service, upstream) = (UserService::start(), upstream());
    let ends = now() + 15;
    let token = jwt(&json!({"iat": now() - 5, "exp": ends}));
    service.knows(&token, json!({"sub": "u-1"})).grants(&token, "item:view");
    service.knows("boss", json!({"sub": "boss", "role": "ROLE_SUPER_ADMIN"}));
    service.grants_in("boss", "doorward", "session:revoke");
    let gateway = service
        .asked_by(&upstream)
        .policy(POLICY)
        .setting("auth.iam_service.cache", "1s")
        .setting("auth.iam_service.admin", true)
        .start();
    let mut stream = websocket(&gateway, "/items/ws", &token);
    let mut lasting = websocket(&gateway, "/lasting/ws", &token);
    let mut drip = gateway.connect();
    drip.set_read_timeout(SOON);
    drip.send(format!("GET /items/drip HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
    assert!(drip.head().starts_with("HTTP/1.1 200"));
    assert_eq!(close_of(&mut stream), (1008, "expired".into()));
    // From then on the service refuses it, as services do.
    service.forgets(&token);
    let expired = Instant::now();
    while expired.elapsed() < Duration::from_secs(5) {
        assert!(talks(&mut lasting), "after {:?}", expired.elapsed());
        drip.wire().exactly(100).expect("a download goes on");
    }
    let revoked = gateway.admin_request("POST", "/api/revocations", Some("boss"), "{\"disabled\": \"u-1\"}");
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(close_of(&mut lasting), (1008, "subject_disabled".into()));
    assert!(drip.wire().chunked().is_err(), "the download ends by revocation");
}

/// Says that it is over when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_makes_up_tokens_keeps_out_nobody_whom_the_service_knows_and_ends_nothing_that_is_open() {
    const ASKERS: usize = 300;
    let (service, upstream) = (service(), upstream());
    let gateway = service
        .asked_by(&upstream)
        .policy(POLICY)
        .setting("auth.iam_service.cache", "1s")
        .setting("auth.iam_service.questions", 4)
        .start();
    let mut open = websocket(&gateway, "/items/ws", "a");
    assert_eq!(gateway.get_as("/items/none", "b").status, 200);
    service.is_slow(Duration::from_millis(200));
    let over = AtomicBool::new(false);
    // Whoever is answered asks on, so that there are always more than may wait.
    let asks = |number: usize| {
        let mut asker = gateway.connect();
        asker.set_read_timeout(Duration::from_mins(1));
        for round in 0.. {
            if over.load(Ordering::SeqCst) {
                return;
            }
            let token = format!("junk-{round}-{number}");
            asker.send(format!("GET /items/none HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
            let status = asker.response().status;
            assert!(status == 401 || status == 503, "{status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let asks = &asks;
    std::thread::scope(|scope| {
        // However this ends, the askers end.
        let _end = Ends(&over);
        (0..ASKERS).for_each(|number| drop(scope.spawn(move || asks(number))));
        eventually("strangers are turned away", SOON, || {
            (gateway.metric("doorward_limit_rejections_total", &["limit=\"questions\""]) > 0.0).then_some(())
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(12) {
            assert_eq!(gateway.get_as("/items/none", "b").status, 200, "after {:?}", began.elapsed());
            assert!(talks(&mut open), "after {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}
