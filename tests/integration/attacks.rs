//! What broke doorward once, kept so that it does not again.

use std::time::{Duration, Instant};

use crate::harness::{Behaviour, Connection, Issuer, Upstream, doorward, eventually};

#[test]
fn t25_an_upstream_that_switches_protocols_unasked_is_502() {
    let upstream = Upstream::start(Behaviour::Raw(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nraw bytes".to_vec(),
    ));
    let running = doorward().upstream(&upstream).start();
    let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for lines in ["", upgrade] {
        let answer = running.send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\n{lines}\r\n"));
        assert_eq!(answer.denial(), (502, "upstream_unavailable".into()), "{answer:?}");
    }
}

#[test]
fn an_answer_has_one_length_and_no_coding_but_chunks() {
    let upstream = Upstream::start(Behaviour::Raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"
            .to_vec(),
    ));
    let running = doorward().upstream(&upstream).start();
    let answer = running.get("/public");
    assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"));
    assert_eq!(answer.field("content-length"), None);
    for coding in ["gzip, chunked", "identity", "chunked\r\nTransfer-Encoding: chunked"] {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
        upstream.behave(Behaviour::Raw([head.as_bytes(), b"5\r\nhello\r\n0\r\n\r\n"].concat()));
        let answer = running.get("/public");
        assert_eq!(answer.denial(), (502, "upstream_unavailable".into()), "{coding}");
    }
}

#[test]
fn t23_every_odd_byte_in_a_header_name_is_a_dash() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::eddsa());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    for odd in "!#$%&'*+-.^_`|~".chars() {
        for name in ["X-User-Id", "X-User-Roles", "Remote-User", "X-Forwarded-User", "X-Rewrite-URL", "X-Real-IP"] {
            let name = name.replace('-', &odd.to_string());
            running.request("GET", "/me", &issuer.token().sign(), &[(&name, "forged")], "");
            let seen = upstream.last();
            assert!(!seen.text().contains("forged"), "{name}: {}", seen.text());
        }
    }
}

#[test]
fn an_admin_body_over_its_limit_is_a_problem_document() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::eddsa());
    let running = doorward().issuer_with(&issuer, &[("admin", true.into())]).upstream(&upstream).start();
    let token = issuer.token().claim("roles", vec!["ROLE_SUPER_ADMIN"]).sign();
    let body = format!(r#"{{"jti":"{}"}}"#, "x".repeat(1 << 20));
    let answer = running.admin_request("POST", "/api/revocations", Some(&token), &body);
    assert_eq!((answer.status, answer.field("content-type")), (413, Some("application/problem+json")), "{answer:?}");
}

#[test]
fn a_log_that_nobody_reads_stops_neither_requests_nor_the_end() {
    // The upstream is gone, so every request makes a message beside its access line.
    let mut running = doorward().setting("upstreams.oms.endpoints", vec!["http://127.0.0.1:1"]).unread().start();
    let mut connection = running.connect();
    // More than a pipe and its reader's buffers hold.
    for _ in 0..3000 {
        let answer = connection.send("GET /public HTTP/1.1\r\nHost: oms.test\r\n\r\n").response();
        assert_eq!(answer.status, 502);
    }
    assert_eq!(running.admin_request("GET", "/healthz", None, "").status, 200);
    drop(connection);
    running.signal("-TERM");
    assert!(running.wait(Duration::from_secs(15)).success());
}

#[test]
fn a_policy_file_that_vanishes_or_turns_into_a_pipe_holds_nothing_up() {
    let upstream = Upstream::echo();
    let mut running = doorward().upstream(&upstream).start();
    let path = running.path("policy0.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let failed = |value: f64| {
        eventually("the metric of the reload", Duration::from_secs(20), || {
            ((running.metric("doorward_policy_reload_failed", &[]) - value).abs() < 0.5).then_some(())
        });
    };
    std::fs::remove_file(&path).unwrap();
    failed(1.0);
    assert_eq!(running.get("/public").status, 200);
    std::fs::write(&path, &text).unwrap();
    failed(0.0);

    std::fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(1200));
    let begun = Instant::now();
    assert_eq!(
        Connection::open(running.admin).send("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").response().status,
        200
    );
    assert!(begun.elapsed() < Duration::from_secs(12), "who waits for the pipe waits for ever");
    assert_eq!(running.get("/public").status, 200);
    running.signal("-TERM");
    assert!(running.wait(Duration::from_secs(20)).success());
}

#[test]
fn the_beginning_of_a_next_head_does_not_end_the_exchange_before_it() {
    let upstream = Upstream::start(Behaviour::Slow(Duration::from_millis(1500)));
    let running = doorward().upstream(&upstream).setting("gateway.limits.header_timeout", "500ms").start();
    let mut connection = running.connect();
    // The connection waits for its first byte under the idle timeout, which is far longer.
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    connection.send("POST /public HTTP/1.1\r\nHost: oms.test\r\nContent-Length: 2\r\n\r\nhi\r\n");
    assert_eq!(connection.response().status, 200);
    // It has its own time then, and no more: 500 ms behind the 1,500 of the answer.
    assert!(connection.closes_within(Duration::from_secs(20)));
    assert!(begun.elapsed() > Duration::from_millis(1_800), "{:?}", begun.elapsed());
}

#[test]
fn t29_connection_cannot_remove_what_a_trusted_proxy_says_of_the_client() {
    let upstream = Upstream::echo();
    let running = doorward().upstream(&upstream).setting("gateway.trusted_proxies", vec!["127.0.0.0/8"]).start();
    let lines = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nConnection: X-Forwarded-For, X-Forwarded-Proto\r\n";
    running.send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\n{lines}\r\n"));
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
}
