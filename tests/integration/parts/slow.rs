//! slowhttptest: many clients that send their heads or bodies byte by byte, or read so. Honest requests are answered all the
//! while. (How fast: tests/bench/slow/run.)

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::downstream::{Downstream, Gateway};
use super::part::Part;
use super::service::Service;
use crate::harness::eventually;

/// Clients of an attack.
const ATTACKERS: u32 = 1000;
/// How long an attack lasts.
const SECONDS: &str = "10";

#[test]
fn honest_requests_are_answered_while_heads_come_slowly() {
    attack("GET /get, head by head", &["-H", "-i", "1", "-x", "24", "-t", "GET"], "/get");
}

#[test]
fn honest_requests_are_answered_while_bodies_come_slowly() {
    attack("POST /trailers, body by body", &["-B", "-i", "1", "-x", "24", "-s", "60000", "-t", "POST"], "/trailers");
}

#[test]
fn honest_requests_are_answered_while_answers_are_read_slowly() {
    let slow_reading = ["-X", "-n", "1", "-z", "32", "-w", "512", "-y", "1024"];
    attack("GET /download, read byte by byte", &slow_reading, "/download?1000000");
}

fn attack(what: &str, kind: &[&str], target: &str) {
    let service = Service::start();
    let gateway = Gateway::start(Downstream::H1, &service.url());
    let token = gateway.token();
    let mut command = Command::new("slowhttptest");
    command.args(["-c", &ATTACKERS.to_string(), "-r", &ATTACKERS.to_string(), "-l", SECONDS, "-p", "30"]).args(kind);
    // The attackers are permitted, so that they get as far as the service: the line end puts a field behind the cookie.
    command.args(["-j", &format!("a=b\r\nAuthorization: Bearer {token}")]);
    command.args(["-u", &format!("http://{}{target}", gateway.doorward.gateway)]);
    let begun = Instant::now();
    let mut slow = Part::start(what, command);

    let over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let most = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // Every tenth request comes on a connection of its own: new clients get in as well.
                while !over.load(Ordering::SeqCst) {
                    let mut connection = gateway.doorward.connect();
                    for _ in 0..10 {
                        let request =
                            format!("GET /get HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n");
                        let response =
                            connection.send(request).try_response("GET").expect("an honest request is answered");
                        assert_eq!(response.status, 200, "{response:?}");
                        answered.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        // Meanwhile: how many connections there were at once.
        let ends = Ends(&over);
        let mut most = 0.0_f64;
        while slow.is_running() {
            most = most.max(gateway.doorward.metric("doorward_connections", &["listener=\"gateway\""]));
            assert!(begun.elapsed() < Duration::from_secs(120), "slowhttptest does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(ends);
        most
    });
    let honest = answered.load(Ordering::SeqCst);
    eprintln!("{what}: {most} connections at once, {honest} honest requests answered");
    assert!(most > f64::from(ATTACKERS / 4), "no attack: {most} connections at once");
    // Every one of them was answered; how many there is time for says more of the machine than of doorward.
    assert!(honest >= 20, "only {honest} honest requests were made");
    let status = slow.wait(Duration::from_secs(10));
    assert!(status.success(), "slowhttptest: {status}");
    let seen_down = slow.lines().iter().any(|line| line.contains("service available") && line.contains("NO"));
    assert!(!seen_down, "slowhttptest found the service unavailable");
    // Who has gone is forgotten.
    eventually("the attackers' connections are closed", Duration::from_secs(60), || {
        (gateway.doorward.metric("doorward_connections", &["listener=\"gateway\""]) < 10.0).then_some(())
    });
}

/// Says that it is over, also where a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
