//! What of an HTTP/2 request reaches an HTTP/1.1 upstream. What two parsers could read in two ways there is refused here, or
//! written so that there is one reading (RFC 9113 sections 8.2.1, 8.3.1 and 10.3).

use std::sync::{Arc, Mutex};

use super::client::*;
use super::{Client, POLICY};
use crate::harness::{Doorward, Upstream, doorward};

type Fields = Vec<(&'static str, String)>;

/// One request with these fields, on a connection of its own: the status of the answer, or how it ended without one.
fn outcome(running: &Doorward, change: impl FnOnce(&mut Fields), body: Option<&[u8]>) -> Result<u16, String> {
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let mut client = Client::connect(&target)?;
    client.handshake()?;
    let mut fields = client.request(if body.is_some() { "POST" } else { "GET" });
    change(&mut fields);
    client.headers(1, if body.is_some() { END_HEADERS } else { WHOLE }, &fields);
    if let Some(body) = body {
        client.data(1, END_STREAM, body);
    }
    client.status()
}

#[test]
fn requests_with_two_readings_never_reach_the_upstream() {
    let upstream = Upstream::echo();
    let running = doorward().policy(POLICY).upstream(&upstream).start();
    let passed = Mutex::new(Vec::new());
    let refused = |name: &str, body: Option<&[u8]>, change: &dyn Fn(&mut Fields)| {
        let outcome = outcome(&running, change, body);
        if matches!(outcome, Ok(200..=399 | 500..)) {
            passed.lock().unwrap().push(format!("{name}: {outcome:?}"));
        }
    };
    let with_field = |name: &'static str, value: &str, body: Option<&[u8]>| {
        refused(&format!("{name}: {value:?}"), body, &|fields| fields.push((name, value.to_owned())));
    };
    let with_pseudo = |index: usize, value: &str| {
        refused(&format!("pseudo-header {index}: {value:?}"), None, &|fields| fields[index].1 = value.to_owned());
    };

    // Framing of HTTP/1.1.
    with_field("transfer-encoding", "chunked", Some(b"0\r\n\r\nGET /me HTTP/1.1\r\n\r\n"));
    with_field("transfer-encoding", "identity", None);
    with_field("connection", "close", None);
    with_field("connection", "x-request-id", None);
    with_field("keep-alive", "timeout=5", None);
    with_field("proxy-connection", "keep-alive", None);
    with_field("upgrade", "h2c", None);
    for length in ["5", "4, 4", "+4", "-4", "0x4", "4 ", "", "99999999999999999999999"] {
        with_field("content-length", length, Some(b"body of eleven"));
    }
    // Without a body, a length would make the upstream wait for one, or take it from the next request.
    with_field("content-length", "5", None);
    refused("two lengths", Some(b"test"), &|fields| {
        fields.push(("content-length", "4".into()));
        fields.push(("content-length", "5".into()));
    });
    // Bytes that end a line or a field.
    for value in ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\rb", "a\0b", "a\x7fb", "a\x01b"] {
        with_field("x-test", value, None);
    }
    for name in ["x test", "x-test:", "x\r\ny", "x\0y", "x-t\u{e9}st", "", "x(y)", " x-test", "X-Test"] {
        with_field(name, "1", None);
    }
    for (index, values) in [
        (0, ["GET /me HTTP/1.1\r\nx: ", "GE T", "", "GET\0"]),
        (1, ["ht tp", "http://", "http\r\n", "http\0"]),
        (2, ["/ HTTP/1.1\r\nx-evil: 1", "me", "/\0", "/ me"]),
        (3, ["evil@127.0.0.1", "127.0.0.1\r\nx: y", "a b", "127.0.0.1:99999999"]),
    ] {
        values.into_iter().for_each(|value| with_pseudo(index, value));
    }
    with_pseudo(2, "http://other.test/");
    // Two hosts.
    with_field("host", "other.test", None);
    refused("no host at all", None, &|fields| drop(fields.remove(3)));
    refused(":authority twice", None, &|fields| fields.push((":authority", "other.test".into())));
    // Methods that turn a connection into something else.
    with_pseudo(0, "CONNECT");
    with_pseudo(0, "PRI");
    refused("a protocol that nobody announced", None, &|fields| fields.push((":protocol", "websocket".into())));
    let passed = passed.into_inner().unwrap();
    assert!(passed.is_empty(), "passed:\n{}", passed.join("\n"));
    let seen: Vec<_> = upstream.requests().into_iter().filter(|request| request.complete).collect();
    assert!(seen.is_empty(), "reached the upstream: {seen:?}");
    assert_eq!(outcome(&running, |_| {}, None), Ok(200), "and an ordinary one passes");
}

#[test]
fn what_reaches_the_upstream_has_one_reading() {
    let upstream = Upstream::echo();
    let running = doorward().policy(POLICY).upstream(&upstream).start();
    let authority = running.gateway.to_string();

    let sent = outcome(
        &running,
        |fields| {
            fields.extend(["a=1", "b=2", "c=3"].map(|crumb| ("cookie", crumb.to_owned())));
            fields.push(("te", "trailers".into()));
        },
        Some(b"test"),
    );
    assert_eq!(sent, Ok(200));
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body.as_slice()), ("POST", "/", &b"test"[..]));
    assert_eq!(seen.field("host"), Some(upstream.address.to_string().as_str()), "an HTTP/1.1 request has one Host");
    assert_eq!(seen.field("x-forwarded-host"), Some(authority.as_str()));
    assert_eq!(seen.field("cookie"), Some("a=1; b=2; c=3"), "and one Cookie (RFC 9113 section 8.2.3)");
    assert_eq!((seen.field("transfer-encoding"), seen.field("content-length")), (Some("chunked"), None));

    let sent = outcome(&running, |fields| fields.push(("content-length", "4".into())), Some(b"test"));
    assert_eq!(sent, Ok(200));
    assert_eq!(
        (upstream.last().field("content-length"), upstream.last().field("transfer-encoding")),
        (Some("4"), None)
    );

    // A host alone, as a client may send that converts HTTP/1.1 (RFC 9113 section 8.3.1).
    let sent = outcome(
        &running,
        |fields| {
            fields.remove(3);
            fields.push(("host", authority.clone()));
        },
        None,
    );
    assert_eq!(sent, Ok(200));
    assert_eq!(upstream.last().field("x-forwarded-host"), Some(authority.as_str()));
    // The same in both.
    assert_eq!(outcome(&running, |fields| fields.push(("host", authority.clone())), None), Ok(200));
    assert_eq!(upstream.last().field("x-forwarded-host"), Some(authority.as_str()));
}

#[test]
fn trailers_of_a_request_are_fields_that_may_be_trailers() {
    let upstream = Upstream::echo();
    let running = doorward().policy(POLICY).upstream(&upstream).start();
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let trailers: [(&'static str, &str); 9] = [
        (":path", "/me"),
        ("content-length", "1"),
        ("host", "other.test"),
        ("authorization", "Bearer x"),
        ("x-user-id", "root"),
        ("cookie", "a=1"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("x-checksum", "1"),
    ];
    for (name, value) in trailers {
        let mut client = Client::connect(&target).unwrap();
        client.handshake().unwrap();
        // An HTTP/1.1 upstream is sent trailers that were announced.
        client.headers(1, END_HEADERS, &with(client.request("POST"), "trailer", name));
        client.data(1, 0, b"test");
        client.headers(1, WHOLE, &with(Vec::new(), name, value));
        let status = client.status();
        if status.is_ok() {
            let seen = upstream.last();
            let allowed = name == "x-checksum";
            assert_eq!(seen.trailers.iter().any(|(seen, _)| seen == name), allowed, "{name}: {}", seen.text());
            assert_eq!((seen.target.as_str(), seen.body.as_slice()), ("/", &b"test"[..]), "{name}");
        }
        assert!(name != "x-checksum" || status == Ok(200), "{status:?}");
    }
}
