//! HTTP/2 by prior knowledge: what its requests become, and what a hostile client cannot do. Frames are written by hand.

use std::time::Duration;

use crate::harness::{Connection, Doorward, Upstream, doorward, eventually};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(15);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            bytes.push(text.len() as u8);
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "oms.test"), (":path", path)])
}

fn opened(running: &Doorward) -> Connection {
    let mut connection = running.connect();
    connection.send([PREFACE, &frame(4, 0, 0, &[])].concat());
    connection
}

fn rejections(running: &Doorward, limit: &str) -> f64 {
    running.metric("doorward_limit_rejections_total", &[&format!("limit=\"{limit}\"")])
}

fn counted(running: &Doorward, limit: &str) {
    eventually(limit, LIMIT, || (rejections(running, limit) >= 1.0).then_some(()));
}

#[test]
fn a_request_is_what_an_http1_request_would_be() {
    let upstream = Upstream::echo();
    let running = doorward().upstream(&upstream).start();
    let mut connection = opened(&running);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "oms.test:8090"),
        (":path", "/public"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    connection.send(frame(1, 0x5, 1, &block(&fields)));
    eventually("the request", LIMIT, || (upstream.count() == 1).then_some(()));
    let seen = upstream.last();
    assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.field("x-forwarded-host"), Some("oms.test:8090"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
}

#[test]
fn what_could_be_read_in_two_ways_never_reaches_the_upstream() {
    let upstream = Upstream::echo();
    let running = doorward().upstream(&upstream).start();
    let with = |more: &[(&'static str, &'static str)]| {
        let mut fields =
            vec![(":method", "GET"), (":scheme", "http"), (":authority", "oms.test"), (":path", "/public")];
        fields.extend(more);
        block(&fields)
    };
    let mut connection = opened(&running);
    let bad: Vec<Vec<u8>> = vec![
        with(&[("host", "other.test")]),
        with(&[("host", "oms.test"), ("host", "oms.test")]),
        with(&[("content_length", "5")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("connection", "close")]),
        with(&[("te", "gzip")]),
        with(&[("x", " y")]),
        with(&[("content-length", "05")]),
        block(&[(":method", "get"), (":scheme", "http"), (":authority", "oms.test"), (":path", "/public")]),
        block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a@oms.test"), (":path", "/public")]),
        block(&[(":method", "GET"), (":scheme", "http"), (":authority", "oms.test"), (":path", "/public/../me")]),
        block(&[(":method", "CONNECT"), (":authority", "oms.test:80")]),
    ];
    for (index, bad) in bad.iter().enumerate() {
        connection.send(frame(1, 0x5, 2 * index as u32 + 1, bad));
    }
    connection.send(frame(1, 0x5, 99, &get("/public")));
    eventually("the good request", LIMIT, || (upstream.count() >= 1).then_some(()));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn streams_that_are_opened_to_be_reset_end_the_connection() {
    let running = doorward().start();
    let mut connection = opened(&running);
    for index in 0..2000 {
        let stream = 2 * index + 1;
        connection.send([frame(1, 0x5, stream, &get("/closed")), frame(3, 0, stream, &[0, 0, 0, 8])].concat());
    }
    assert!(connection.closes_within(LIMIT));
    counted(&running, "stream_resets");
}

#[test]
fn frames_that_carry_nothing_end_the_connection() {
    let upload = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "oms.test"), (":path", "/public")]);
    let resize = [[0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0x10, 0]].concat();
    for (flood, limit) in [
        (frame(6, 0, 0, &[0; 8]), "control_frames"),
        (frame(6, 1, 0, &[0; 8]), "control_frames"),
        (frame(4, 0, 0, &[]), "control_frames"),
        (frame(4, 0, 0, &resize), "control_frames"),
        (frame(2, 0, 1, &[0, 0, 0, 0, 1]), "control_frames"),
        (frame(8, 0, 0, &[0, 0, 0, 1]), "control_frames"),
        (frame(8, 0, 1, &[0, 0, 0, 1]), "control_frames"),
        (frame(99, 0, 0, &[]), "control_frames"),
        (frame(0, 0, 1, &[]), "control_frames"),
    ] {
        let upstream = Upstream::start(crate::harness::Behaviour::Silent);
        let running = doorward().upstream(&upstream).start();
        let mut connection = opened(&running);
        connection.send(frame(1, 0x4, 1, &upload));
        connection.send(flood.repeat(12_000));
        assert!(connection.closes_within(LIMIT), "{}", flood.escape_ascii());
        counted(&running, limit);
    }
}

#[test]
fn a_header_block_is_bounded_by_what_it_stands_for() {
    let upstream = Upstream::echo();
    let running = doorward().upstream(&upstream).start();
    // A field of nearly all of the dynamic table, and a byte for each of thousands of references to it: 45 megabytes.
    let value = "a".repeat(3_900);
    let length = [0x7f, (3_900_u32 - 127) as u8 & 0x7f | 0x80, ((3_900 - 127) >> 7) as u8];
    let insert = [&[0x40, 1, b'x'][..], &length, value.as_bytes()].concat();
    let references = [0x80 | 62].repeat(12_000);
    let bomb = [get("/public"), references.clone()].concat();
    let mut connection = opened(&running);
    connection.send(frame(1, 0x5, 1, &[get("/public"), insert.clone()].concat()));
    eventually("a field alone", LIMIT, || (upstream.count() == 1).then_some(()));
    for stream in (3..103).step_by(2) {
        connection.send(frame(1, 0x5, stream, &bomb));
    }
    counted(&running, "header_bytes");
    let mut connection = opened(&running);
    connection.send([frame(1, 0x5, 1, &get("/public")), frame(1, 0, 3, &[get("/public"), insert].concat())].concat());
    connection.send(frame(9, 0, 3, &references).repeat(100));
    assert!(connection.closes_within(LIMIT));
    // Nothing but the two that were small; the second may have been cut off with its connection.
    assert!(upstream.count() <= 2);
}

#[test]
fn streams_that_are_made_to_be_reset_end_the_connection() {
    // Each is answered with RST_STREAM by doorward itself ("MadeYouReset", CVE-2025-8671), for its window is too large.
    let upstream = Upstream::start(crate::harness::Behaviour::Silent);
    let running = doorward().upstream(&upstream).start();
    let mut connection = opened(&running);
    let most = (i32::MAX as u32).to_be_bytes();
    // More than may be reset at once, and as much again: while a machine stands still that is earned anew.
    for index in 0..2000 {
        let stream = 2 * index + 1;
        connection.send([frame(1, 0x5, stream, &get("/public")), frame(8, 0, stream, &most)].concat());
    }
    assert!(connection.closes_within(LIMIT));
    counted(&running, "stream_resets");
}

#[test]
fn a_header_block_without_an_end_has_bytes_and_time() {
    let running = doorward().setting("gateway.limits.header_timeout", "1s").start();
    let mut connection = opened(&running);
    // At once, so that it is not the time that ends it on a machine that stands still.
    let more = frame(9, 0, 1, &block(&[("x", "y")])).repeat(64);
    connection.send([frame(1, 0, 1, &get("/public")), more].concat());
    assert!(connection.closes_within(LIMIT));
    counted(&running, "header_bytes");

    let mut slow = opened(&running);
    slow.send(frame(1, 0, 1, &get("/public")));
    assert!(slow.closes_within(LIMIT));
    counted(&running, "header_timeout");

    let mut preface = running.connect();
    preface.send(b"PRI * HT");
    assert!(preface.closes_within(LIMIT));
    let mut prefix = running.connect();
    prefix.send(b"PR");
    assert!(prefix.closes_within(LIMIT));
    let all = || (rejections(&running, "header_timeout") >= 3.0).then_some(());
    eventually("all three are counted", LIMIT, all);
}

#[test]
fn a_head_beyond_the_limit_is_refused_and_the_connection_lives_on() {
    let upstream = Upstream::echo();
    let running = doorward().upstream(&upstream).setting("gateway.limits.headers", 10).start();
    let mut connection = opened(&running);
    let long: Vec<u8> = [get("/public"), block(&[("x", "y")]).repeat(20)].concat();
    connection.send([frame(1, 0x5, 1, &long), frame(1, 0x5, 3, &get("/public"))].concat());
    eventually("the good request", LIMIT, || (upstream.count() == 1).then_some(()));
    counted(&running, "header_bytes");
}

#[test]
fn more_streams_than_the_limit_are_refused() {
    let upstream = Upstream::start(crate::harness::Behaviour::Silent);
    let running = doorward().upstream(&upstream).setting("gateway.limits.streams", 2).start();
    let mut connection = opened(&running);
    for stream in [1, 3, 5, 7] {
        connection.send(frame(1, 0x5, stream, &get("/public")));
    }
    counted(&running, "streams");
    assert!(upstream.count() <= 2);
}

#[test]
fn an_idle_connection_is_closed_though_it_pings() {
    let running = doorward().setting("gateway.limits.idle_timeout", "1s").start();
    let mut connection = opened(&running);
    connection.send(frame(4, 1, 0, &[]));
    eventually("the end of its patience", LIMIT, || {
        connection.send(frame(6, 0, 0, &[0; 8]));
        (rejections(&running, "idle_timeout") >= 1.0).then_some(())
    });
    assert!(connection.closes_within(LIMIT));
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let upstream = Upstream::start(crate::harness::Behaviour::Endless);
    let running = doorward().upstream(&upstream).setting("gateway.limits.idle_timeout", "1s").start();
    let mut connection = running.connect();
    // Every window is as large as can be: what stops the answers is TCP.
    let most = (i32::MAX as u32).to_be_bytes();
    let settings = [&[0, 4][..], &most].concat();
    connection.send(
        [PREFACE, &frame(4, 0, 0, &settings), &frame(8, 0, 0, &(i32::MAX as u32 - 65_535).to_be_bytes())].concat(),
    );
    for stream in [1, 3, 5] {
        connection.send(frame(1, 0x5, stream, &get("/public")));
    }
    counted(&running, "idle_timeout");
    eventually("the upstream is let go", LIMIT, || {
        (running.metric("doorward_upstream_connections", &["state=\"active\""]) == 0.0).then_some(())
    });
    eventually("so is the connection", LIMIT, || {
        (running.metric("doorward_connections", &["listener=\"gateway\""]) == 0.0).then_some(())
    });
}

#[test]
fn a_stream_whose_client_grants_no_window_is_given_up() {
    let upstream = Upstream::start(crate::harness::Behaviour::Endless);
    let running = doorward().upstream(&upstream).setting("gateway.limits.idle_timeout", "1s").start();
    let mut connection = opened(&running);
    connection.send(frame(1, 0x5, 1, &get("/public")));
    counted(&running, "idle_timeout");
    eventually("the upstream is let go", LIMIT, || {
        (running.metric("doorward_upstream_connections", &["state=\"active\""]) == 0.0).then_some(())
    });
    connection.send(frame(8, 0, 0, &[0, 1, 0, 0]));
}
