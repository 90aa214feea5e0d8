//! The PROXY protocol in front of plain connections and of TLS (T29).

use std::time::Duration;

use crate::harness::{Builder, Connection, Upstream, doorward};

fn behind(networks: &[&str], trusted: &[&str], upstream: &Upstream) -> Builder {
    doorward()
        .upstream(upstream)
        .setting("gateway.proxy_protocol_from", networks.to_vec())
        .setting("gateway.trusted_proxies", trusted.to_vec())
}

const REQUEST: &str = "GET /public HTTP/1.1\r\nHost: oms.test\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 8080\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x34\x1f\x90";

#[test]
fn t29_the_header_is_believed_from_configured_networks_in_pieces_too() {
    let upstream = Upstream::echo();
    let running = behind(&["127.0.0.0/8"], &[], &upstream).start();
    for header in [V1, V2] {
        let response = running.send([header, REQUEST.as_bytes()].concat());
        assert_eq!(response.status, 200);
        assert_eq!(upstream.last().field("x-forwarded-for"), Some("192.0.2.7"));
        let mut connection = running.connect();
        for byte in header {
            connection.send([*byte]);
        }
        assert_eq!(connection.send(REQUEST).response().status, 200);
        assert_eq!(connection.send(REQUEST).response().status, 200);
    }
}

#[test]
fn t29_the_header_is_required_where_it_is_configured() {
    let upstream = Upstream::echo();
    let running = behind(&["127.0.0.1"], &[], &upstream).start();
    for bytes in [REQUEST.as_bytes(), b"PROXY TCP4 nonsense\r\n", &V2[..12], b"\x16\x03\x01"] {
        let mut connection = running.connect();
        connection.send(bytes);
        if bytes.len() == 12 {
            // A beginning, then something else.
            connection.send(b"\x51\x11\0\x0c");
        }
        assert!(connection.closes_within(Duration::from_secs(10)), "{}", bytes.escape_ascii());
    }
    assert_eq!(upstream.count(), 0);
    assert!(running.metric("doorward_parse_errors_total", &["listener=\"gateway\"", "status=\"400\""]) >= 4.0);
}

#[test]
fn t29_the_header_is_refused_from_others() {
    let upstream = Upstream::echo();
    let running = behind(&["10.0.0.0/8"], &[], &upstream).start();
    for header in [V1, V2] {
        let mut connection = running.connect();
        connection.send([header, REQUEST.as_bytes()].concat());
        assert_eq!(connection.response().status, 400);
        assert!(connection.closes_within(Duration::from_secs(10)));
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(running.send(REQUEST).status, 200);
}

#[test]
fn t29_forwarding_headers_behind_it_need_both_to_be_trusted() {
    let upstream = Upstream::echo();
    for (trusted, seen) in [
        (&["192.0.2.0/24"][..], "192.0.2.7"),
        (&["127.0.0.0/8"], "192.0.2.7"),
        (&["127.0.0.0/8", "192.0.2.0/24"], "198.51.100.1, 192.0.2.7"),
    ] {
        let running = behind(&["127.0.0.0/8"], trusted, &upstream).start();
        assert_eq!(running.send([V1, REQUEST.as_bytes()].concat()).status, 200);
        assert_eq!(upstream.last().field("x-forwarded-for"), Some(seen), "{trusted:?}");
    }
}

#[test]
fn a_header_that_does_not_end_has_header_time() {
    let running = doorward()
        .setting("gateway.proxy_protocol_from", vec!["127.0.0.0/8"])
        .setting("gateway.limits.header_timeout", "300ms")
        .start();
    let mut connection: Connection = running.connect();
    connection.send("PROXY TCP4 ");
    assert!(connection.closes_within(Duration::from_secs(10)));
    assert!(running.metric("doorward_limit_rejections_total", &["limit=\"header_timeout\""]) >= 1.0);
}
