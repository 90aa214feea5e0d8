//! WebSocket, and nothing else, by an upgrade that was decided upon and proved (T25, SPEC 3.8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::websocket::{agreement, echo, frame, handshake, read_frame};
use crate::harness::{Behaviour, Connection, Doorward, Issuer, POLICY, Upstream, doorward, eventually};

fn behind(behaviour: Behaviour) -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::start(behaviour), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

/// Shakes hands and says one thing, which comes back.
fn converses(connection: &mut Connection) -> bool {
    connection.wire().write(&frame(1, b"hello", true)).is_ok()
        && read_frame(connection.wire()).is_some_and(|back| back.payload == b"hello" && !back.masked)
}

#[test]
fn t25_a_permitted_handshake_becomes_a_tunnel() {
    let (running, upstream, issuer) = behind(Behaviour::script(echo));
    let mut connection = running.connect();
    let more = "Sec-WebSocket-Protocol: chat\r\nOrigin: https://a.test\r\nX-User-Id: root\r\n";
    connection.send(handshake("/items?since=1", &issuer.viewer(), more));
    let answer = connection.response();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert_eq!(answer.field("connection"), Some("upgrade"));
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.all("content-length"), Vec::<&str>::new());
    assert!(converses(&mut connection));
    assert_eq!(running.metric("doorward_streams", &["kind=\"websocket\""]), 1.0);
    let asked = upstream.last();
    assert_eq!(asked.target, "/items?since=1");
    assert_eq!(asked.field("upgrade"), Some("websocket"));
    assert_eq!(asked.field("connection"), Some("upgrade"));
    assert_eq!(asked.field("sec-websocket-protocol"), Some("chat"));
    assert_eq!((asked.field("x-user-id"), asked.field("authorization")), (Some("u-1"), None));

    let large = vec![b'x'; 300_000];
    connection.wire().write(&frame(2, &large, true)).unwrap();
    assert_eq!(read_frame(connection.wire()).unwrap().payload, large);
    connection.wire().write(&frame(8, &1000u16.to_be_bytes(), true)).unwrap();
    assert_eq!(read_frame(connection.wire()).unwrap().close(), (1000, String::new()));
    assert!(connection.closes_within(Duration::from_secs(20)), "the upstream ended");
    drop(connection);
    let line = running.access_line(answer.field("x-request-id").unwrap());
    assert_eq!((&line["status"], &line["decision"], &line["method"]), (&101.into(), &"allow".into(), &"GET".into()));
    assert_eq!(line["bytes_in"], 300_000 + 14 + 11 + 8, "{line}");
    assert_eq!(line["bytes_out"], 300_000 + 10 + 7 + 4, "{line}");
    let limit = Duration::from_secs(20);
    eventually("no tunnel is left", limit, || (running.metric("doorward_streams", &[]) == 0.0).then_some(()));
    eventually("the upstream's connection is given up", limit, || {
        (running.metric("doorward_upstream_connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn t25_who_may_not_ask_is_refused_before_the_upstream_hears_of_it() {
    let (running, upstream, issuer) = behind(Behaviour::script(echo));
    let cases = [
        (handshake("/items", "x.y.z", ""), (401, "malformed_token")),
        (handshake("/items", &issuer.with_roles("u", &[]), ""), (403, "permission_missing")),
        (handshake("/closed", &issuer.viewer(), ""), (403, "route_denied")),
        (handshake("/nowhere", &issuer.viewer(), ""), (403, "no_route")),
        (handshake("/items/../items", &issuer.viewer(), ""), (400, "bad_request_target")),
    ];
    for (request, (status, reason)) in cases {
        assert_eq!(running.send(&request).denial(), (status, reason.into()), "{request}");
    }
    let nobody = handshake("/items", "", "").replace("Authorization: Bearer \r\n", "");
    assert_eq!(running.send(nobody).denial(), (401, "missing_token".into()));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn t25_what_follows_a_handshake_reaches_nobody_until_it_is_agreed() {
    let early = Arc::new(AtomicBool::new(false));
    let saw = Arc::clone(&early);
    let (running, _upstream, issuer) = behind(Behaviour::script(move |received, wire| {
        wire.set_read_timeout(Duration::from_millis(300));
        let something = wire.fill().unwrap_or(false);
        saw.store(something || !wire.buffered().is_empty(), Ordering::SeqCst);
        wire.set_read_timeout(Duration::from_secs(30));
        echo(received, wire);
    }));
    let mut connection = running.connect();
    let mut bytes = handshake("/items", &issuer.viewer(), "").into_bytes();
    bytes.extend(frame(1, b"too early", true));
    connection.send(bytes);
    assert_eq!(connection.response().status, 101);
    assert_eq!(read_frame(connection.wire()).unwrap().payload, b"too early", "and nothing is lost");
    assert!(converses(&mut connection));
    assert!(!early.load(Ordering::SeqCst), "bytes behind the head reached the upstream before its 101");
}

#[test]
fn t25_behind_a_handshake_that_was_not_agreed_upon_requests_are_decided_as_ever() {
    let (running, upstream, issuer) = behind(Behaviour::Echo);
    let smuggled = "GET /closed HTTP/1.1\r\nHost: oms.test\r\n\r\nGET /public HTTP/1.1\r\nHost: oms.test\r\n\r\n";
    let mut connection = running.connect();
    connection.send(handshake("/items", &issuer.viewer(), "") + smuggled);
    let first = connection.response();
    assert_eq!(first.status, 200, "another answer than 101 passes: {first:?}");
    assert_eq!(connection.response().denial(), (403, "route_denied".into()));
    assert_eq!(connection.response().status, 200);
    // And once more, with a denied handshake before them.
    connection.send(handshake("/items", "x.y.z", "") + smuggled);
    assert_eq!(connection.response().denial(), (401, "malformed_token".into()));
    assert_eq!(connection.response().denial(), (403, "route_denied".into()));
    assert_eq!(connection.response().status, 200);
    let targets: Vec<_> = upstream.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/items", "/public", "/public"]);
}

#[test]
fn t25_an_odd_upgrade_goes_on_as_a_plain_request_and_its_101_is_no_answer() {
    let (running, upstream, issuer) = behind(Behaviour::Echo);
    let good = handshake("/items", &issuer.viewer(), "");
    let odd = [
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket", "Upgrade: websocket, h2c"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        ("Upgrade: websocket", "Upgrade: TLS/1.3"),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive"),
        ("Version: 13", "Version: 12"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "no base64 at all"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Cay"),
    ];
    for (from, to) in odd {
        let request = good.replace(from, to);
        assert_ne!(request, good);
        assert_eq!(running.send(&request).status, 200, "{to}");
        assert_eq!(upstream.last().all("upgrade"), Vec::<&str>::new(), "{to}");
    }
    upstream.behave(Behaviour::script(|received, wire| {
        let _ = wire.write(agreement(received).as_bytes());
        let _ = wire.write(&frame(1, b"secret", false));
        let _ = wire.read_to_end();
    }));
    for (from, to) in odd {
        let response = running.send(good.replace(from, to));
        assert_eq!(response.denial(), (502, "upstream_unavailable".into()), "{to}");
    }
    let editor = issuer.with_roles("e", &["ROLE_EDITOR"]);
    let post = handshake("/items", &editor, "Content-Length: 2\r\n").replace("GET", "POST") + "ab";
    assert_eq!(running.send(post).denial(), (502, "upstream_unavailable".into()));
}

#[test]
fn t25_a_101_that_proves_nothing_is_no_tunnel() {
    let (running, upstream, issuer) = behind(Behaviour::Echo);
    let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let answers = [
        "Upgrade: websocket\r\nConnection: Upgrade\r\n".to_owned(),
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"
            .to_owned(),
        format!("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {right}\r\n"),
        format!("Connection: Upgrade\r\nSec-WebSocket-Accept: {right}\r\n"),
        format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {right}\r\n"),
        format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {right}\r\nSec-WebSocket-Accept: x\r\n"
        ),
    ];
    for fields in answers {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        upstream.behave(Behaviour::script(move |_, wire| {
            let _ = wire.write(answer.as_bytes());
            let _ = wire.write(&frame(1, b"secret", false));
            let _ = wire.read_to_end();
        }));
        let mut connection = running.connect();
        connection.send(handshake("/items", &issuer.viewer(), ""));
        let response = connection.response();
        assert_eq!(response.denial(), (502, "upstream_unavailable".into()), "{fields}");
        connection.send("GET /closed HTTP/1.1\r\nHost: oms.test\r\n\r\n");
        assert_eq!(connection.response().denial(), (403, "route_denied".into()), "and it is HTTP still");
    }
}

#[test]
fn t25_a_cookie_opens_a_websocket_for_pages_of_this_host_or_of_cors_only() {
    let (upstream, issuer) = (Upstream::start(Behaviour::script(echo)), Issuer::hs256());
    let policy = format!(
        "{POLICY}\ncredentials: {{ cookie: __Host-session }}\ncors: {{ origins: ['https://app.test'], credentials: true }}\n"
    );
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    let token = issuer.viewer();
    let with_cookie = |origin: &str| {
        let request = handshake("/items", &token, origin);
        request.replace("Authorization: Bearer ", "Cookie: a=b; __Host-session=")
    };
    let own = "Sec-Fetch-Site: same-origin\r\n";
    for foreign in ["", own, "Origin: https://evil.test\r\n", "Origin: null\r\n", "Origin: http://oms.test\r\n"] {
        assert_eq!(running.send(with_cookie(foreign)).denial(), (403, "route_denied".into()), "{foreign:?}");
    }
    assert_eq!(upstream.connections(), 0);
    for origin in ["Origin: https://oms.test\r\n", "Origin: https://app.test\r\n"] {
        let mut connection = running.connect();
        connection.send(with_cookie(origin));
        assert_eq!(connection.response().status, 101, "{origin}");
        assert!(converses(&mut connection));
        assert_eq!(upstream.last().field("cookie"), Some("a=b"), "the token stays here");
    }
}
