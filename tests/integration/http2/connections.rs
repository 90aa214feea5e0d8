//! A whole connection over HTTP/2: its end while streams are open, and hosts that are not its own.

use std::sync::Arc;
use std::time::Duration;

use super::client::{CANCEL, Client, END_HEADERS, GOAWAY, HEADER_TABLE_SIZE, HEADERS, Target, WHOLE};
use super::{POLICY, start};
use crate::harness::tls::Certificate;
use crate::harness::{Behaviour, Upstream, doorward, eventually};
use crate::tls::certificates;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn streams_in_flight_are_answered_behind_goaway() {
    let upstream = Upstream::start(Behaviour::Slow(Duration::from_secs(1)));
    let mut running = doorward().policy(POLICY).upstream(&upstream).setting("gateway.grace", "1m").start();
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let mut client = Client::connect(&target).unwrap();
    client.handshake().unwrap();
    for stream in [1, 3, 5] {
        client.send_get(stream);
    }
    eventually("the upstream has all", LIMIT, || (upstream.count() == 3).then_some(()));
    running.signal("-TERM");
    let mut frames = Vec::new();
    while let Ok(frame) = client.next_frame() {
        frames.push(frame);
    }
    let mut answered: Vec<u32> =
        frames.iter().filter(|frame| frame.kind == HEADERS).map(|frame| frame.stream).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5], "{frames:?}");
    assert_eq!(frames.iter().filter(|frame| frame.ends_stream()).count(), 3, "{frames:?}");
    // The first names the highest stream of all, so that what is on its way is answered as well; the last is what was.
    let goaways: Vec<_> = frames.iter().filter(|frame| frame.kind == GOAWAY).collect();
    assert!(goaways.iter().all(|frame| frame.payload[4..8] == [0; 4]), "{frames:?}");
    assert_eq!(goaways.first().unwrap().payload[..4], [0x7f, 0xff, 0xff, 0xff], "{frames:?}");
    assert_eq!(running.wait(LIMIT).code(), Some(0));
}

#[test]
fn t24_a_coalesced_request_for_another_host_is_misdirected() {
    let upstream = Upstream::echo();
    let certificate = Certificate::for_names(&["127.0.0.1", "oms.test"]);
    let running = doorward()
        .policy(POLICY)
        .upstream(&upstream)
        .file("cert.pem", certificate.cert.clone())
        .file("key.pem", certificate.key.clone())
        .setting("gateway.tls.certificates", certificates(&[("cert.pem", "key.pem")]))
        .start();
    let target = Arc::new(Target::tls(running.gateway, "/", &certificate.authority));
    let mut client = Client::connect(&target).unwrap();
    client.handshake().unwrap();
    client.send_settings(&[(HEADER_TABLE_SIZE, 0)]);
    client.expect_settings_ack().unwrap();
    let mut ask = |stream: u32, authority: &str| {
        let mut fields = client.request("GET");
        fields.retain(|(name, _)| *name != ":authority");
        fields.push((":authority", authority.to_owned()));
        client.headers(stream, WHOLE, &fields);
        client.status().unwrap()
    };
    let asked = [
        ("oms.test", 200),
        ("other.test", 421),
        ("oms.test.other.test", 421),
        ("oms.test:8443", 200),
        ("127.0.0.1", 200),
        ("127.0.0.2", 421),
    ];
    for (index, (authority, status)) in asked.into_iter().enumerate() {
        assert_eq!(ask(2 * index as u32 + 1, authority), status, "{authority}");
    }
    assert_eq!(upstream.count(), 3);
}

/// Nothing of it becomes a request to the service, nor do the requests behind it fail. Text that no field can hold ends the
/// connection, as the parser has it; the next one is as good as any.
#[test]
fn what_no_request_may_say_never_reaches_the_service() {
    let upstream = Upstream::echo();
    let running = start(&upstream);
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let connect = || {
        let mut client = Client::connect(&target).unwrap();
        client.handshake().unwrap();
        client.send_settings(&[(HEADER_TABLE_SIZE, 0)]);
        client.expect_settings_ack().unwrap();
        client
    };
    let mut client = connect();
    let good = client.request("GET");
    let changed = |name: &'static str, value: Option<&str>| {
        let mut fields = good.clone();
        fields.retain(|(field, _)| *field != name);
        fields.extend(value.map(|value| (name, value.to_owned())));
        // Pseudo fields come first.
        fields.sort_by_key(|(name, _)| !name.starts_with(':'));
        fields
    };
    let (mut stream, mut wrong) = (1, Vec::new());
    for fields in [
        changed("x", Some("a\r\nx-user-id: root")),
        changed("x", Some("a\nb")),
        changed("x", Some("a\0b")),
        changed("x", Some("a\rb")),
        changed("", Some("no name")),
        changed("x y", Some("a space in a name")),
        changed("x:", Some("a colon in a name")),
        changed("x\r\ny", Some("a line in a name")),
        changed("X-Upper", Some("upper case")),
        changed(":path", Some("/?a b")),
        changed(":path", Some("/?a\r\nx: y")),
        changed(":path", Some("/ HTTP/1.1")),
        changed(":path", Some("/ ")),
        changed(":path", Some("/?\t")),
        changed(":path", Some("/?\0")),
        changed(":path", Some("http://127.0.0.1/")),
        changed(":path", Some("")),
        changed(":path", Some("a")),
        changed(":path", Some("*")),
        changed(":path", Some("//other.test/")),
        changed(":path", None),
        changed(":method", None),
        changed(":method", Some("GET /x HTTP/1.1\r\nhost: a\r\n\r\nGET")),
        changed(":method", Some("")),
        changed(":scheme", None),
        changed(":scheme", Some("javascript")),
        changed(":authority", None),
        changed(":authority", Some("")),
        changed(":authority", Some("user@oms.test")),
        changed(":authority", Some("user:password@oms.test")),
        changed(":authority", Some("oms.test, other.test")),
        changed(":authority", Some("oms.test/path")),
        changed(":authority", Some("oms.test:99999")),
        changed("host", Some("other.test")),
        changed("host", Some("")),
        changed(":unknown", Some("x")),
        changed(":status", Some("200")),
        changed("transfer-encoding", Some("chunked")),
        changed("transfer-encoding", Some("identity")),
        changed("connection", Some("x-user-id")),
        changed("keep-alive", Some("1")),
        changed("proxy-connection", Some("keep-alive")),
        changed("upgrade", Some("h2c")),
        changed("te", Some("gzip, trailers")),
        changed("content-length", Some("5")),
        changed("content-length", Some("-1")),
        changed("content-length", Some("0x0")),
        changed("content-length", Some("0, 0")),
    ] {
        let before = upstream.count();
        client.headers(stream, WHOLE, &fields);
        let status = client.status();
        if !status.as_ref().is_ok_and(|status| (400..500).contains(status)) && status != Err("error code 1".to_owned())
        {
            wrong.push(format!("{fields:?}: {status:?}"));
        }
        if upstream.count() != before {
            wrong.push(format!("{fields:?} reached the service: {:?}", upstream.last()));
        }
        client.headers(stream + 2, WHOLE, &good);
        stream += 4;
        if client.expect_headers_of(stream - 2).is_err() {
            eprintln!("ends the connection: {fields:?}");
            client = connect();
            stream = 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// HTTP/1.1 refuses a fragment. Here the parser has dropped it before anybody looks: what is decided is what is forwarded.
#[test]
fn a_fragment_takes_no_part() {
    let upstream = Upstream::echo();
    let running = start(&upstream);
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let mut client = Client::connect(&target).unwrap();
    client.handshake().unwrap();
    for (index, (path, forwarded)) in [("/#/me", "/"), ("/?a#b", "/?a"), ("/me#/../", "")].into_iter().enumerate() {
        let mut fields = client.request("GET");
        fields[2].1 = path.to_owned();
        let stream = 2 * index as u32 + 1;
        client.headers(stream, WHOLE, &fields);
        client.expect_headers_of(stream).unwrap();
        if forwarded.is_empty() {
            assert_eq!(upstream.count(), 2, "{path}");
        } else {
            assert_eq!(upstream.last().target, forwarded);
        }
    }
}

/// Requests that were looked at before they are reset cost more than those that were not, so they have a limit as well.
#[test]
fn streams_that_are_reset_while_they_are_served_end_the_connection() {
    let upstream = Upstream::start(Behaviour::Silent);
    let running = start(&upstream);
    let target = Arc::new(Target::plain(running.gateway, "/none"));
    let mut client = Client::connect(&target).unwrap();
    client.handshake().unwrap();
    let mut stream = 1;
    let resets = || running.metric("doorward_limit_rejections_total", &["limit=\"stream_resets\""]);
    eventually("the limit of resets", LIMIT, || {
        let opened: Vec<u32> = (0..10).map(|index| stream + 2 * index).collect();
        stream += 20;
        let fields = client.request("POST");
        for stream in &opened {
            client.headers(*stream, END_HEADERS, &fields);
        }
        // All of them were taken from the parser by then.
        client.ping(0, [7; 8]);
        let taken = client.expect_ping([7; 8]);
        for stream in opened {
            client.reset(stream, CANCEL);
        }
        (taken.is_err() && resets() >= 1.0).then_some(())
    });
}
