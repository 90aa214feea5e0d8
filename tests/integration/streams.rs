//! What lasts, and what goes on while it does: tunnels, event streams, trailers, expectations (SPEC 3.8).

use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Version};

use crate::harness::websocket::{agreement, echo, frame, handshake, read_frame};
use crate::harness::{Behaviour, Connection, Doorward, Issuer, Upstream, doorward, eventually};

const LIMIT: Duration = Duration::from_secs(20);

fn behind(behaviour: Behaviour) -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::start(behaviour), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

fn websocket(running: &Doorward, token: &str) -> Connection {
    let mut connection = running.connect();
    connection.send(handshake("/items", token, ""));
    assert_eq!(connection.response().status, 101);
    connection
}

#[test]
fn a_client_that_goes_away_ends_the_upstreams_side_and_the_reverse() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (running, upstream, issuer) = behind(Behaviour::script(move |received, wire| {
        let _ = wire.write(agreement(received).as_bytes());
        let _ = sender.send(wire.read_to_end().map(|rest| rest.len()));
    }));
    let mut connection = websocket(&running, &issuer.viewer());
    connection.wire().write(&frame(1, b"abc", true)).unwrap();
    drop(connection);
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().ok(), Some(9), "all that was said, and an end");
    upstream.behave(Behaviour::script(|received, wire| {
        let _ = wire.write(agreement(received).as_bytes());
    }));
    let mut connection = websocket(&running, &issuer.viewer());
    assert!(connection.closes_within(LIMIT));
    drop(connection);
    eventually("no tunnel is left", LIMIT, || (running.metric("doorward_streams", &[]) == 0.0).then_some(()));
    eventually("no connection is left", LIMIT, || {
        let listener = ["listener=\"gateway\""];
        (running.metric("doorward_connections", &listener) == 0.0).then_some(())
    });
}

#[test]
fn who_has_said_all_still_hears_the_rest() {
    let (running, _upstream, issuer) = behind(Behaviour::script(|received, wire| {
        let _ = wire.write(agreement(received).as_bytes());
        let said = wire.read_to_end().unwrap_or_default();
        let _ = wire.write(&frame(2, &said, false));
    }));
    let mut connection = websocket(&running, &issuer.viewer());
    connection.wire().write(&frame(1, b"my last words", true)).unwrap();
    connection.wire().stream().shutdown(Shutdown::Write).unwrap();
    let back = read_frame(connection.wire()).expect("the answer to a half-closed side");
    assert_eq!(back.payload, frame(1, b"my last words", true));
    assert!(connection.closes_within(LIMIT));
}

#[test]
fn a_tunnel_in_which_nobody_speaks_is_closed_and_one_with_pings_is_not() {
    let (upstream, issuer) = (Upstream::start(Behaviour::script(echo)), Issuer::hs256());
    let timeouts = toml::Table::from_iter([("idle".to_owned(), toml::Value::from("2s"))]);
    let running = doorward().issuer(&issuer).upstream(&upstream).setting("upstreams.oms.timeouts", timeouts).start();
    let mut silent = websocket(&running, &issuer.viewer());
    let mut pinging = websocket(&running, &issuer.viewer());
    let mut began = Instant::now();
    let mut pinged = began;
    while began.elapsed() < Duration::from_secs(4) {
        let before = std::mem::replace(&mut pinged, Instant::now());
        let pong = pinging.wire().write(&frame(9, b"", true)).ok().and_then(|()| read_frame(pinging.wire()));
        if pong.is_none_or(|pong| pong.opcode != 9) {
            // Where the machine stood still for so long nobody spoke: it was closed rightly, and another begins.
            assert!(before.elapsed() >= Duration::from_secs(2), "a ping keeps it open");
            pinging = websocket(&running, &issuer.viewer());
            began = Instant::now();
            pinged = began;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(read_frame(silent.wire()).unwrap().close(), (1001, "idle".into()));
    assert!(silent.closes_within(LIMIT));
}

#[test]
fn tunnels_count_as_connections_of_the_listener() {
    let (upstream, issuer) = (Upstream::start(Behaviour::script(echo)), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).setting("gateway.limits.connections", 2).start();
    let mut tunnels = [(); 2].map(|()| websocket(&running, &issuer.viewer()));
    let refused = running.connect().head();
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    for tunnel in &mut tunnels {
        tunnel.wire().write(&frame(1, b"x", true)).unwrap();
        assert!(read_frame(tunnel.wire()).is_some());
    }
    drop(tunnels);
    eventually("their places are free again", LIMIT, || {
        let mut connection = running.connect();
        connection.send("GET /public HTTP/1.1\r\nHost: oms.test\r\n\r\n");
        // The script knows WebSocket only; that it is asked at all is enough.
        connection.try_response("GET").ok().filter(|answer| answer.status != 503)
    });
}

#[test]
fn at_the_end_of_the_grace_time_streams_are_ended_in_their_own_words() {
    let (upstream, issuer) = (Upstream::start(Behaviour::script(echo)), Issuer::hs256());
    let mut running = doorward().issuer(&issuer).upstream(&upstream).setting("gateway.grace", "10s").start();
    let mut tunnel = websocket(&running, &issuer.viewer());
    upstream.behave(Behaviour::script(|_, wire| {
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        let _ = wire.write(b"9\r\ndata: 1\n\n\r\n");
        let _ = wire.read_to_end();
    }));
    let mut events = running.connect();
    events.send(format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {}\r\n\r\n", issuer.viewer()));
    assert!(events.head().starts_with("HTTP/1.1 200 "));
    let began = Instant::now();
    running.signal("-TERM");
    tunnel.wire().write(&frame(1, b"still here", true)).unwrap();
    assert_eq!(read_frame(tunnel.wire()).unwrap().payload, b"still here", "in the grace time it goes on");
    assert_eq!(read_frame(tunnel.wire()).unwrap().close(), (1001, "the gateway is going away".into()));
    assert!(began.elapsed() > Duration::from_millis(500));
    assert_eq!(events.wire().chunked().expect("a clean end").0, b"data: 1\n\n");
    assert!(running.wait(Duration::from_secs(20)).success());
    assert!(!running.stderr().contains("cut off"), "{}", running.stderr());
}

#[test]
fn an_event_is_passed_on_when_it_comes_and_trailers_behind_the_last() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Mutex::new(receiver);
    let (running, upstream, issuer) = behind(Behaviour::script(move |_, wire| {
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTrailer: X-Sum, Doorward-Decision\r\nTransfer-Encoding: chunked\r\n\r\n");
        for event in 0..3 {
            let _ = wire.write(format!("9\r\ndata: {event}\n\n\r\n").as_bytes());
            // Not before the client has it.
            let _ = receiver.lock().unwrap().recv_timeout(LIMIT);
        }
        let _ = wire.write(b"0\r\nX-Sum: 42\r\nDoorward-Decision: allow\r\n\r\n");
    }));
    let mut connection = running.connect();
    connection.send(format!(
        "POST /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {}\r\nTE: trailers\r\nConnection: TE\r\n\
         Trailer: X-Client-Sum, X-User-Id\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Client-Sum: 7\r\nX-User-Id: root\r\n\r\n",
        issuer.with_roles("e", &["ROLE_EDITOR"])
    ));
    assert!(connection.head().starts_with("HTTP/1.1 200 "));
    for event in 0..3 {
        let expected = format!("9\r\ndata: {event}\n\n\r\n");
        assert_eq!(connection.wire().exactly(expected.len()).unwrap(), expected.as_bytes());
        sender.send(()).unwrap();
    }
    let (rest, trailers) = connection.wire().chunked().unwrap();
    assert_eq!((rest.len(), trailers), (0, vec![("x-sum".into(), "42".into())]));
    let received = upstream.last();
    assert_eq!(received.body, b"abc");
    assert_eq!(received.trailers, [("x-client-sum".into(), "7".into())]);
    assert_eq!(received.field("te"), Some("trailers"));
}

#[test]
fn an_expectation_is_met_after_the_permit_and_never_before() {
    let (running, upstream, issuer) = behind(Behaviour::Echo);
    let head = |token: &str, expects: &str| {
        format!(
            "POST /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nExpect: {expects}\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let editor = issuer.with_roles("e", &["ROLE_EDITOR"]);
    let mut connection = running.connect();
    connection.send(head(&editor, "100-Continue"));
    assert_eq!(connection.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    connection.send("12345");
    let answer = connection.response();
    assert_eq!(answer.status, 200);
    let received = upstream.last();
    assert_eq!((received.body.as_slice(), received.field("expect")), (b"12345".as_slice(), None));

    // Denied: the first head is the denial's, nothing is waited for, and the connection ends.
    for (token, expects, status) in
        [(&issuer.viewer(), "100-continue", 403), (&editor, "miracles", 417), (&issuer.viewer(), "miracles", 403)]
    {
        let mut connection = running.connect();
        connection.send(head(token, expects));
        let first = connection.head();
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{expects}: {first}");
        assert!(connection.closes_within(LIMIT));
    }
    // A body that comes unasked is no worse.
    let sent = running.send(head(&editor, "100-continue") + "abcde");
    assert_eq!((sent.status, upstream.last().body.as_slice()), (200, b"abcde".as_slice()));
    assert_eq!(upstream.count(), 2);
    // Nor is an expectation of a request without a body, or of HTTP/1.0.
    let none = head(&editor, "100-continue").replace("Content-Length: 5", "Content-Length: 0");
    let mut connection = running.connect();
    connection.send(none);
    assert!(connection.head().starts_with("HTTP/1.1 200 "));
    let old = head(&editor, "100-continue").replace("HTTP/1.1", "HTTP/1.0") + "abcde";
    let mut connection = running.connect();
    connection.send(old);
    assert!(connection.head().starts_with("HTTP/1.0 200 "));
}

/// The status of a request by HTTP/2, and its stream for what follows.
async fn connect_by_h2(
    running: &Doorward,
    token: &str,
    protocol: Option<&'static str>,
    version: &str,
) -> (u16, h2::SendStream<Bytes>, h2::RecvStream) {
    let stream = tokio::net::TcpStream::connect(running.gateway).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..2_000 {
        if sender.is_extended_connect_protocol_enabled() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(sender.is_extended_connect_protocol_enabled(), "RFC 8441 section 3");
    let uri = if protocol.is_some() { "http://oms.test/items?x=1" } else { "oms.test:80" };
    let mut request = Request::builder().version(Version::HTTP_2).method(Method::CONNECT).uri(uri);
    if let Some(protocol) = protocol {
        request = request.extension(h2::ext::Protocol::from_static(protocol));
    }
    let request = request
        .header("authorization", format!("Bearer {token}"))
        .header("sec-websocket-version", version)
        .header("sec-websocket-protocol", "chat");
    let (answer, body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers().get("sec-websocket-accept"), None);
    (answer.status().as_u16(), body, answer.into_body())
}

#[tokio::test]
async fn t25_a_websocket_by_extended_connect_is_decided_as_get_and_tunnelled() {
    let (running, upstream, issuer) = behind(Behaviour::script(echo));
    let (status, mut send, mut receive) = connect_by_h2(&running, &issuer.viewer(), Some("websocket"), "13").await;
    assert_eq!(status, 200);
    let asked = upstream.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/items?x=1"));
    assert_eq!((asked.field("upgrade"), asked.field("connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!((asked.field("sec-websocket-protocol"), asked.field("x-user-id")), (Some("chat"), Some("u-1")));
    assert_eq!(asked.field("sec-websocket-key").map(str::len), Some(24));
    send.send_data(frame(1, b"hello", true).into(), false).unwrap();
    let mut back = Vec::new();
    while back.len() < 7 {
        let data = receive.data().await.unwrap().unwrap();
        receive.flow_control().release_capacity(data.len()).unwrap();
        back.extend(data);
    }
    assert_eq!(back, frame(1, b"hello", false));
    send.send_data(Bytes::new(), true).unwrap();
    while let Some(data) = receive.data().await {
        assert!(data.expect("no reset").is_empty(), "the echo ends with its client");
    }
    eventually("the access line", LIMIT, || {
        let of_it = |line: &str| line.contains("\"path\":\"/items\"") && line.contains("\"method\":\"GET\"");
        running.stdout().lines().any(of_it).then_some(())
    });
}

#[tokio::test]
async fn t25_a_length_in_the_upstreams_101_is_not_that_of_the_tunnel() {
    let (running, _upstream, issuer) = behind(Behaviour::script(|received, wire| {
        let _ = wire.write(agreement(received).replace("Upgrade: w", "Content-Length: 3\r\nUpgrade: w").as_bytes());
        let _ = wire.write(&frame(1, b"hello", false));
        let _ = wire.read_to_end();
    }));
    let (status, _send, mut receive) = connect_by_h2(&running, &issuer.viewer(), Some("websocket"), "13").await;
    assert_eq!(status, 200);
    assert_eq!(receive.data().await.unwrap().unwrap(), frame(1, b"hello", false));
}

#[tokio::test]
async fn t25_any_other_connect_is_refused() {
    let (running, upstream, issuer) = behind(Behaviour::script(echo));
    for (protocol, version, token, expected) in [
        (None, "13", issuer.viewer(), 405),
        (Some("connect-udp"), "13", issuer.viewer(), 405),
        (Some("WebSocket"), "13", issuer.viewer(), 405),
        (Some("websocket"), "12", issuer.viewer(), 405),
        (Some("websocket"), "13", issuer.with_roles("u", &[]), 403),
        (Some("websocket"), "13", "x.y.z".into(), 401),
    ] {
        let (status, ..) = connect_by_h2(&running, &token, protocol, version).await;
        assert_eq!(status, expected, "{protocol:?} version {version}");
    }
    assert_eq!(upstream.connections(), 0);
}
