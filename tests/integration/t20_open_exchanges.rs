//! What is open is decided again, and ended where it would not be admitted any more (T20, SPEC 3.8).

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::websocket::{agreement, echo, frame, handshake, read_frame};
use crate::harness::{Behaviour, Connection, Doorward, Issuer, POLICY, ROLES, Upstream, doorward, eventually, now};

/// Long enough for a machine under load; what is asked for is one second.
const SOON: Duration = Duration::from_secs(15);
/// How long a token lives that ends while a test runs: all that it opens is open by then, though the machine stood still.
const LIFE: i64 = 10;
/// Longer than anybody waits for the end of such a token.
const BEYOND: Duration = Duration::from_secs(30);

/// One path of every kind of exchange, each with `item:view` (`item:edit` for the upload).
fn upstream() -> Upstream {
    Upstream::start(Behaviour::script(|received, wire| {
        let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
        let chunked = "Transfer-Encoding: chunked\r\n";
        match received.target.as_str() {
            "/items/ws" | "/lasting/ws" => return echo(received, wire),
            "/items/events" | "/lasting/events" => {
                let _ = wire.write(&head(&format!("Content-Type: text/event-stream; charset=utf-8\r\n{chunked}")));
                let _ = wire.write(b"9\r\ndata: 1\n\n\r\n");
            }
            "/items/grpc" => {
                let _ = wire.write(&head(&format!(
                    "Content-Type: application/grpc\r\nTrailer: grpc-status, grpc-message\r\n{chunked}"
                )));
                let _ = wire.write(b"2\r\nab\r\n");
            }
            "/items/drip" => {
                let _ = wire.write(&head(chunked));
                while wire.write(b"1\r\nx\r\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            "/items/silent-body" => {
                let _ = wire.write(&head("Content-Length: 100\r\n"));
                let _ = wire.write(b"0123456789");
            }
            _ => {}
        }
        let _ = wire.read_to_end();
    }))
}

fn policy() -> String {
    let lasting = "{ get: { require: item:view, outlives_token: true } }";
    format!("{POLICY}  /lasting/{{what}}: {lasting}\n")
}

struct Open {
    running: Doorward,
    _upstream: Upstream,
    issuer: Issuer,
}

fn open(leeway: &str) -> Open {
    let (upstream, issuer) = (upstream(), Issuer::hs256());
    let running = doorward()
        .policy(&policy())
        .issuer_with(&issuer, &[("admin", true.into())])
        .setting("auth.leeway", leeway)
        .upstream(&upstream)
        .start();
    Open { running, _upstream: upstream, issuer }
}

impl Open {
    fn get(&self, target: &str, token: &str) -> Connection {
        let mut connection = self.running.connect();
        connection.send(format!(
            "GET {target} HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
        ));
        connection
    }

    /// Opens one and reads the head of the answer.
    fn reading(&self, target: &str, token: &str) -> Connection {
        let mut connection = self.get(target, token);
        let head = connection.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
        connection
    }

    fn websocket(&self, target: &str, token: &str) -> Connection {
        let mut connection = self.running.connect();
        connection.send(handshake(target, token, ""));
        assert_eq!(connection.response().status, 101);
        assert!(talks(&mut connection));
        connection
    }

    fn revoke(&self, what: &serde_json::Value) {
        let administrator = self.issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
        let answer = self.running.admin_request("POST", "/api/revocations", Some(&administrator), &what.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn talks(connection: &mut Connection) -> bool {
    connection.wire().write(&frame(1, b"on", true)).is_ok()
        && read_frame(connection.wire()).is_some_and(|back| back.payload == b"on")
}

/// Reads until a Close comes, and returns it.
fn close_of(connection: &mut Connection) -> (u16, String) {
    loop {
        match read_frame(connection.wire()) {
            Some(frame) if frame.opcode == 8 => return frame.close(),
            Some(_) => {}
            None => panic!("the connection ended without a Close"),
        }
    }
}

/// The exchanges count from 5 s on.
fn wait_until_open_for_long(since: Instant) {
    std::thread::sleep(Duration::from_millis(5_300).saturating_sub(since.elapsed()));
}

#[test]
fn t20_a_revocation_ends_whatever_its_subject_has_open() {
    let it = open("30s");
    let token = it.issuer.token().claim("sub", "u-1").claim("roles", ["ROLE_EDITOR"]).sign();
    let other = it.issuer.token().claim("sub", "u-2").sign();
    let began = Instant::now();
    let mut websocket = it.websocket("/items/ws", &token);
    let mut lasting = it.websocket("/lasting/ws", &token);
    let mut events = it.reading("/items/events", &token);
    let mut grpc = it.reading("/items/grpc", &token);
    let mut drip = it.reading("/items/drip", &token);
    let mut silent = it.reading("/items/silent-body", &token);
    let mut poll = it.get("/items/poll", &token);
    let mut upload = it.running.connect();
    upload.send(format!(
        "PUT /items/up HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    ));
    let mut others = it.websocket("/items/ws", &other);
    let mut others_poll = it.get("/items/poll", &other);
    wait_until_open_for_long(began);
    // Changes that do not concern them.
    it.revoke(&json!({"subject": "u-9"}));
    assert!(talks(&mut websocket) && talks(&mut lasting));

    it.revoke(&json!({"subject": "u-1"}));
    let revoked = Instant::now();
    assert_eq!(close_of(&mut websocket), (1008, "revoked".into()));
    assert_eq!(close_of(&mut lasting), (1008, "revoked".into()), "`outlives_token` lifts expiry alone");
    assert_eq!(events.wire().chunked().expect("an event stream ends cleanly").0, b"data: 1\n\n");
    let (body, trailers) = grpc.wire().chunked().expect("a gRPC call ends by its trailers");
    assert_eq!(body, b"ab");
    assert!(trailers.contains(&("grpc-status".into(), "16".into())), "{trailers:?}");
    assert_eq!(drip.wire().chunked().unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "a body breaks off");
    assert!(silent.wire().exactly(11).is_err());
    assert_eq!(poll.response().denial(), (401, "revoked".into()));
    assert_eq!(upload.response().denial(), (401, "revoked".into()));
    assert!(revoked.elapsed() < SOON, "{:?}", revoked.elapsed());

    assert!(talks(&mut others), "others are not concerned");
    others_poll.set_read_timeout(Duration::from_millis(300));
    assert!(others_poll.try_response("GET").is_err(), "nor waits anybody else shorter");
    let counted = || it.running.metric("doorward_exchanges_ended_total", &["reason=\"revoked\""]);
    eventually("all eight are counted", SOON, || (counted() == 8.0).then_some(()));
    let ended = |line: &str| line.contains("\"reason\":\"revoked\"") && line.contains("\"status\":101");
    eventually("the access line of the tunnel", SOON, || it.running.stdout().lines().any(ended).then_some(()));
}

#[test]
fn t20_a_changed_role_ends_what_it_opened() {
    let it = open("30s");
    let began = Instant::now();
    let mut websocket = it.websocket("/items/ws", &it.issuer.viewer());
    let mut poll = it.get("/items/poll", &it.issuer.viewer());
    let editors = it.issuer.with_roles("u-2", &["ROLE_EDITOR"]);
    let mut editor = it.websocket("/items/ws", &editors);
    wait_until_open_for_long(began);
    let changed = ROLES
        .replace("permissions: [item:view, order:view]", "permissions: [order:view]")
        .replace("[item:create, item:edit]", "[item:create, item:edit, item:view]");
    assert_ne!(changed, ROLES);
    std::fs::write(it.running.path("roles.yaml"), changed).unwrap();
    eventually("the new roles are in force", BEYOND, || {
        (it.running.get_as("/items/none", &it.issuer.with_roles("u", &[])).status == 403
            && it.running.metric("doorward_snapshot_version", &[]) > 1.0)
            .then_some(())
    });
    let changed = Instant::now();
    assert_eq!(close_of(&mut websocket), (1008, "permission_missing".into()));
    assert_eq!(poll.response().denial(), (403, "permission_missing".into()));
    assert!(changed.elapsed() < SOON);
    assert!(talks(&mut editor), "who still may goes on");
}

#[test]
fn t20_a_change_before_an_exchange_was_open_for_long_counts_when_it_is() {
    let it = open("30s");
    let mut drip = it.reading("/items/drip", &it.issuer.viewer());
    let mut poll = it.get("/items/poll", &it.issuer.viewer());
    // A route for everybody too: the upstream was told who is asking.
    let mut public = it.get("/public", &it.issuer.viewer());
    let mut nobodys = it.running.connect();
    nobodys.send("GET /public HTTP/1.1\r\nHost: oms.test\r\n\r\n");
    eventually("all are under way", SOON, || (it._upstream.count() == 4).then_some(()));
    it.revoke(&json!({"subject": "u-1"}));
    assert_eq!(public.response().denial(), (401, "revoked".into()));
    nobodys.set_read_timeout(Duration::from_millis(300));
    assert!(nobodys.try_response("GET").is_err(), "who is nobody has nothing to lose");
    assert_eq!(drip.wire().chunked().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(poll.response().denial(), (401, "revoked".into()));
}

#[test]
fn t20_who_waits_for_a_place_or_a_connection_is_decided_again() {
    // It takes connections and never speaks.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (upstream, issuer) = (upstream(), Issuer::hs256());
    let running = doorward()
        .policy(&policy())
        .another_policy("version: 1\nservice: mute\nupstream: mute\npaths: { /mute: { get: authenticated } }\n")
        .issuer_with(&issuer, &[("admin", true.into())])
        .upstream(&upstream)
        .setting("upstreams.oms.limits.requests", 1)
        .setting("upstreams.oms.limits.wait", "1m")
        .setting("upstreams.mute.endpoints", vec![format!("h2c://{}", mute.local_addr().unwrap())])
        .setting("upstreams.mute.timeouts.connect", "1m")
        .start();
    let it = Open { running, _upstream: upstream, issuer };
    let began = Instant::now();
    let mut others = it.websocket("/items/ws", &it.issuer.token().claim("sub", "u-2").sign());
    let mut queued = it.get("/items/poll", &it.issuer.viewer());
    let mut connecting = it.get("/mute", &it.issuer.viewer());
    wait_until_open_for_long(began);
    it.revoke(&json!({"subject": "u-1"}));
    assert_eq!(queued.response().denial(), (401, "revoked".into()));
    assert_eq!(connecting.response().denial(), (401, "revoked".into()));
    assert!(talks(&mut others));
    assert_eq!(it._upstream.count(), 1);
    let health = |name: &str| it.running.metric("doorward_upstream_healthy", &[name]);
    assert_eq!(health("upstream=\"mute\""), 1.0, "the endpoint is not to blame");
}

#[test]
fn t20_an_upload_ends_though_its_client_reads_nothing_of_the_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // Somebody else's probe of a port that was free before is not the upload.
        let mut stream = loop {
            let (mut stream, _) = listener.accept().unwrap();
            if stream.read(&mut buffer).is_ok_and(|length| buffer[..length].starts_with(b"PUT ")) {
                break stream;
            }
        };
        let mut back = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let _ = back.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
            while back.write_all(&chunk).is_ok() {}
        });
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        let _ = ended.send(());
    });
    let issuer = Issuer::hs256();
    let running = doorward()
        .policy(&policy())
        .issuer_with(&issuer, &[("admin", true.into())])
        .setting("upstreams.oms.endpoints", vec![endpoint])
        .start();
    let mut it = Open { running, _upstream: upstream(), issuer };
    let began = Instant::now();
    let token = it.issuer.token().claim("sub", "u-1").claim("roles", ["ROLE_EDITOR"]).sign();
    let mut upload = it.running.connect();
    upload.send(format!(
        "PUT /items/up HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    while began.elapsed() < Duration::from_millis(5_300) {
        upload.wire().write(b"1\r\nx\r\n").expect("it is taken");
        std::thread::sleep(Duration::from_millis(50));
    }
    it.revoke(&json!({"subject": "u-9"}));
    std::thread::sleep(Duration::from_millis(700));
    assert!(upload.wire().write(b"1\r\nx\r\n").is_ok() && end.try_recv().is_err(), "others are not concerned");
    it.revoke(&json!({"subject": "u-1"}));
    let revoked = Instant::now();
    while end.try_recv().is_err() {
        assert!(revoked.elapsed() < SOON, "what it uploads still reaches the upstream");
        let _ = upload.wire().write(b"1\r\nx\r\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(it.running.is_running());
}

#[test]
fn t20_streams_end_when_their_token_expires_and_ordinary_bodies_do_not() {
    let it = open("0s");
    let token = it.issuer.token().claim("exp", now() + LIFE).sign();
    let mut websocket = it.websocket("/items/ws", &token);
    websocket.set_read_timeout(BEYOND);
    let mut lasting = it.websocket("/lasting/ws", &token);
    let mut lasting_events = it.reading("/lasting/events", &token);
    let mut events = it.reading("/items/events", &token);
    let mut grpc = it.reading("/items/grpc", &token);
    let mut drip = it.reading("/items/drip", &token);
    let began = Instant::now();
    assert_eq!(close_of(&mut websocket), (1008, "expired".into()));
    assert_eq!(events.wire().chunked().expect("a clean end").0, b"data: 1\n\n");
    let (_, trailers) = grpc.wire().chunked().expect("a clean end");
    assert!(trailers.contains(&("grpc-status".into(), "16".into())), "{trailers:?}");
    assert!(began.elapsed() < SOON + Duration::from_secs(10));
    wait_until_open_for_long(began);
    assert!(talks(&mut lasting));
    drip.wire().exactly(1).expect("a download goes on");
    it.revoke(&json!({"subject": "u-9"}));
    std::thread::sleep(Duration::from_millis(700));
    assert!(talks(&mut lasting), "being decided again, it still outlives its token");
    it.revoke(&json!({"subject": "u-1"}));
    assert_eq!(close_of(&mut lasting), (1008, "revoked".into()));
    assert_eq!(lasting_events.wire().chunked().expect("a clean end").0, b"data: 1\n\n");
    assert!(drip.wire().chunked().is_err(), "the download ends by revocation");
}

#[test]
fn t20_a_close_waits_for_the_end_of_a_frame_and_goes_both_ways() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let upstream = Upstream::start(Behaviour::script(move |received, wire| {
        let _ = wire.write(agreement(received).as_bytes());
        let whole = frame(1, &[b'x'; 1000], false);
        // Half of a frame until the end has come, then the rest and what may not follow any more.
        let _ = wire.write(&whole[..500]);
        let told = read_frame(wire);
        let _ = wire.write(&[&whole[500..], &frame(1, b"too late", false)].concat());
        let _ = sender.send(told);
    }));
    let issuer = Issuer::hs256();
    let running = doorward().issuer(&issuer).setting("auth.leeway", "0s").upstream(&upstream).start();
    let token = issuer.token().claim("exp", now() + LIFE).sign();
    let mut connection = running.connect();
    connection.set_read_timeout(BEYOND);
    connection.send(handshake("/items", &token, ""));
    assert_eq!(connection.response().status, 101);
    let first = read_frame(connection.wire()).expect("the frame that had begun");
    assert_eq!((first.opcode, first.payload.len()), (1, 1000));
    assert_eq!(close_of(&mut connection), (1008, "expired".into()));
    assert!(connection.closes_within(SOON));
    let told = receiver.recv_timeout(SOON).unwrap().expect("the upstream is told as well");
    assert!(told.masked, "a client's frames are masked");
    assert_eq!(told.close(), (1008, "expired".into()));
}

#[test]
fn t20_a_frame_that_never_ends_does_not_hold_a_tunnel_open() {
    let upstream = Upstream::start(Behaviour::script(|received, wire| {
        let _ = wire.write(agreement(received).as_bytes());
        let _ = wire.write(&[0x82, 127, 0x7F, 0, 0, 0, 0, 0, 0, 0]);
        while wire.write(&[b'x'; 100]).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }));
    let issuer = Issuer::hs256();
    let running = doorward().issuer(&issuer).setting("auth.leeway", "0s").upstream(&upstream).start();
    let mut connection = running.connect();
    connection.send(handshake("/items", &issuer.token().claim("exp", now() + LIFE).sign(), ""));
    assert_eq!(connection.response().status, 101);
    assert!(connection.closes_within(BEYOND));
}

#[test]
fn t20_a_policy_that_lets_nothing_outlive_its_token_ends_what_has_outlived_it() {
    let it = open("0s");
    let mut lasting = it.websocket("/lasting/ws", &it.issuer.token().claim("exp", now() + LIFE).sign());
    std::thread::sleep(Duration::from_secs(11));
    assert!(talks(&mut lasting));
    std::fs::write(it.running.path("policy0.yaml"), policy().replace("outlives_token: true", "outlives_token: false"))
        .unwrap();
    lasting.set_read_timeout(Duration::from_secs(15));
    assert_eq!(close_of(&mut lasting), (1008, "expired".into()));
}

/// A gRPC service by HTTP/2 that answers one message and goes on, or (`/items/mute`) never answers. It reports how a call ended.
async fn grpc_service(
    listener: tokio::net::TcpListener,
    ended: tokio::sync::mpsc::UnboundedSender<Option<h2::Reason>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let ended = ended.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let ended = ended.clone();
                tokio::spawn(async move {
                    let reason = if request.uri().path() == "/items/mute" {
                        std::future::poll_fn(|cx| respond.poll_reset(cx)).await
                    } else {
                        let head = http::Response::builder().header("content-type", "application/grpc+proto");
                        let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        send.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
                        std::future::poll_fn(|cx| send.poll_reset(cx)).await
                    };
                    let _ = ended.send(reason.ok());
                });
            }
        });
    }
}

#[tokio::test]
async fn t20_a_grpc_call_from_end_to_end_ends_with_status_16() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut ended) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(grpc_service(listener, sender));
    let issuer = Issuer::hs256();
    let running = doorward()
        .issuer(&issuer)
        .setting("auth.leeway", "0s")
        .setting("upstreams.oms.endpoints", vec![format!("h2c://{address}")])
        .start();
    let stream = tokio::net::TcpStream::connect(running.gateway).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let token = issuer.token().claim("roles", ["ROLE_EDITOR"]).claim("exp", now() + LIFE).sign();
    let mut call = |method: &str, path: &str| {
        let request = http::Request::builder()
            .version(http::Version::HTTP_2)
            .method(method)
            .uri(format!("http://oms.test{path}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers");
        client.send_request(request.body(()).unwrap(), false).unwrap()
    };
    // The streams of the requests stay open: a client that has more to say.
    let (answer, _request) = call("POST", "/items");
    let (mute, _muted) = call("PUT", "/items/mute");
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let message = answer.body_mut().data().await.unwrap().unwrap();
    assert_eq!(&message[..], b"\0\0\0\0\x02hi");
    assert_eq!(running.metric("doorward_streams", &["kind=\"grpc\""]), 2.0);
    while let Some(data) = answer.body_mut().data().await {
        assert!(data.expect("no reset").is_empty());
    }
    let trailers = answer.body_mut().trailers().await.unwrap().expect("trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"16".parse().unwrap(), &"expired".parse().unwrap())
    );
    let mute = mute.await.unwrap();
    assert_eq!((mute.status().as_u16(), &mute.headers()["grpc-status"]), (200, &"16".parse().unwrap()));
    for _ in 0..2 {
        let reset = tokio::time::timeout(SOON, ended.recv()).await.expect("the service hears of it").unwrap();
        assert!(reset.is_some(), "by a reset of the stream");
    }
    eventually("no call is left", SOON, || (running.metric("doorward_streams", &[]) == 0.0).then_some(()));
}
