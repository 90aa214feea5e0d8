//! The end of a process: what was accepted is answered (SPEC 2 `grace`, issue 3 no. 3), and who watches is told in time ([probes]).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::harness::{Behaviour, Builder, Connection, Issuer, Response, Upstream, doorward, eventually, free_ports};

const ONCE: &str = "GET /public HTTP/1.1\r\nHost: a\r\n\r\n";
/// Longer than a test may take on a busy machine.
const LONG: Duration = Duration::from_secs(30);

fn builder(upstream: &Upstream) -> Builder {
    doorward().issuer(&Issuer::hs256()).upstream(upstream).setting("gateway.grace", "10m")
}

fn probe(address: SocketAddr, path: &str) -> Response {
    let mut connection = Connection::open(address);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:8092\r\n\r\n")).response()
}

#[test]
fn probes_have_a_listener_of_their_own_and_nothing_else_is_there() {
    // It answers when it is let go, however long the machine takes for what is asked before.
    let (let_go, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let upstream = Upstream::start(Behaviour::script(move |_, wire| {
        let _ = waits.lock().unwrap().recv_timeout(LONG);
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }));
    let [port] = free_ports();
    let probes = SocketAddr::from(([127, 0, 0, 1], port));
    let mut running = builder(&upstream).setting("probes.listen", probes.to_string()).start();
    assert_eq!((probe(probes, "/healthz").status, probe(probes, "/readyz").text()), (200, "ready\n".to_owned()));
    for path in ["/", "/metrics", "/api/revocations", "/api/decisions/x", "/healthz/", "/readyz/../metrics"] {
        assert_eq!(probe(probes, path).status, 404, "{path}");
    }
    assert_eq!(Connection::open(probes).send("POST /readyz HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 405);
    assert_eq!(
        Connection::open(probes).send("GET /readyz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").response().status,
        400
    );

    let mut under_way = running.connect();
    under_way.send(ONCE);
    eventually("the upstream has it", LONG, || (upstream.count() > 0).then_some(()));
    running.signal("-TERM");
    eventually("not ready any more", LONG, || (probe(probes, "/readyz").status == 503).then_some(()));
    assert_eq!(probe(probes, "/healthz").status, 200, "it lives as long as it answers");
    assert_eq!(running.admin_request("GET", "/readyz", None, "").status, 503);
    let_go.send(()).unwrap();
    assert_eq!(under_way.response().text(), "ok");
    assert_eq!(running.wait(LONG).code(), Some(0));
}

#[test]
fn probes_need_a_port_of_their_own() {
    let upstream = Upstream::echo();
    let failed =
        builder(&upstream).setting("probes.listen", "0.0.0.0:8092").setting("admin.listen", "127.0.0.1:8092").fails();
    assert!(failed.stderr.contains("probes.listen") && failed.stderr.contains("8092"), "{}", failed.stderr);
}

#[test]
fn a_kept_alive_connection_has_one_more_answer_and_an_idle_one_is_closed() {
    let upstream = Upstream::echo();
    let mut running = builder(&upstream).start();
    let mut connections = [running.connect(), running.connect()];
    for connection in &mut connections {
        let response = connection.send(ONCE).response();
        assert_eq!((response.status, response.field("connection")), (200, None));
    }
    let [mut used, mut idle] = connections;
    let begun = Instant::now();
    running.signal("-TERM");
    eventually("the listener is closed", LONG, || TcpStream::connect(running.gateway).is_err().then_some(()));
    match used.send(ONCE).try_response("GET") {
        Ok(last) => assert_eq!((last.status, last.field("connection")), (200, Some("close"))),
        // It is left open for three seconds, which a machine that stands still lets pass.
        Err(error) => assert!(begun.elapsed() >= Duration::from_secs(3), "{error}"),
    }
    assert!(used.closes_within(LONG) && idle.closes_within(LONG));
    assert_eq!(running.wait(LONG).code(), Some(0));
}

#[test]
fn during_the_delay_it_is_not_ready_and_still_accepts() {
    /// Long enough to be asked twice on a machine that stands still for a while in between.
    const DELAY: Duration = Duration::from_secs(12);
    let upstream = Upstream::echo();
    let mut running = builder(&upstream).setting("gateway.drain_delay", "12s").start();
    let begun = Instant::now();
    running.signal("-TERM");
    let not_ready = || running.admin_request("GET", "/readyz", None, "").status == 503;
    eventually("not ready any more", LONG, || not_ready().then_some(()));
    let answer = running.send(ONCE);
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert_eq!(running.wait(DELAY + LONG).code(), Some(0));
    assert!(begun.elapsed() >= DELAY);
}

#[test]
fn a_second_signal_does_not_wait() {
    let upstream = Upstream::start(Behaviour::Silent);
    let mut running = builder(&upstream).setting("gateway.grace", "10m").start();
    let mut under_way = running.connect();
    under_way.send(ONCE);
    eventually("the upstream has it", LONG, || (upstream.count() > 0).then_some(()));
    running.signal("-TERM");
    eventually("it drains", LONG, || running.stdout().contains("\"stopping\"").then_some(()));
    assert!(running.is_running());
    running.signal("-INT");
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(under_way.try_response("GET").is_err());
    assert!(running.stdout().contains("cut off"), "{}", running.stdout());
}

#[test]
fn what_outlasts_the_grace_time_is_cut_off() {
    let upstream = Upstream::start(Behaviour::Silent);
    let mut running = builder(&upstream).setting("gateway.grace", "500ms").start();
    running.connect().send(ONCE);
    let mut under_way = running.connect();
    under_way.send(ONCE);
    eventually("the upstream has it", LONG, || (upstream.count() > 0).then_some(()));
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    assert!(running.stdout().contains("cut off"), "{}", running.stdout());
}

/// What the clients of a load test saw.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    lost: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Seen {
    fn lose(&self, what: String) {
        self.lost.lock().unwrap().push(what);
    }

    /// Asks until nobody accepts any more: on one connection for as long as it is kept alive, or on one for each request.
    fn hammer(&self, address: SocketAddr, keep_alive: bool) {
        while let Ok(stream) = TcpStream::connect_timeout(&address, LONG) {
            let mut connection = Connection::over(stream);
            let mut last = Instant::now();
            let mut first = true;
            loop {
                let sent = connection.try_send(ONCE.as_bytes());
                let idle = last.elapsed();
                let answer = sent.and_then(|()| connection.try_response("GET"));
                match answer {
                    Ok(response) if response.status == 200 && response.text() == "ok" => {
                        self.answered.fetch_add(1, Ordering::SeqCst);
                        if !keep_alive || response.field("connection") == Some("close") {
                            break;
                        }
                    }
                    Ok(response) => return self.lose(format!("{response:?}")),
                    // This thread was asleep for longer than an idle connection is left open: any keep-alive client has to
                    // reckon with that (RFC 9112 section 9.5).
                    Err(_) if !first && idle > Duration::from_secs(2) => break,
                    Err(error) => return self.lose(describe(&error, first, keep_alive)),
                }
                (last, first) = (Instant::now(), false);
            }
            if self.over.load(Ordering::SeqCst) {
                return;
            }
        }
    }
}

fn describe(error: &io::Error, first: bool, keep_alive: bool) -> String {
    let which = if first { "the first request of a connection" } else { "a request on a kept-alive connection" };
    format!("{which} (keep-alive: {keep_alive}): {error}")
}

#[test]
fn a_stop_under_load_loses_no_request_that_was_accepted() {
    let upstream = Upstream::start(Behaviour::Slow(Duration::from_millis(2)));
    let mut running = builder(&upstream).setting("gateway.workers", 2).start();
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..32)
        .map(|number| {
            let (seen, address) = (Arc::clone(&seen), running.gateway);
            std::thread::spawn(move || seen.hammer(address, number % 4 == 0))
        })
        .collect();
    eventually("load", LONG, || (seen.answered.load(Ordering::SeqCst) > 200).then_some(()));
    running.signal("-TERM");
    assert_eq!(running.wait(LONG).code(), Some(0));
    seen.over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    let lost = seen.lost.lock().unwrap();
    assert!(lost.is_empty(), "{} of {} were lost: {lost:#?}", lost.len(), seen.answered.load(Ordering::SeqCst));
}

#[test]
fn who_waits_in_the_queue_is_accepted_before_the_listener_closes() {
    let upstream = Upstream::echo();
    let mut running = builder(&upstream).setting("gateway.workers", 2).start();
    // While the process stands still, the kernel accepts for it: more than the workers take before they hear of the stop.
    running.signal("-STOP");
    let mut waiting: Vec<_> = (0..400).map(|_| running.connect()).collect();
    for connection in &mut waiting {
        connection.send("GET /closed HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    running.signal("-TERM");
    running.signal("-CONT");
    for connection in &mut waiting {
        connection.set_read_timeout(LONG);
        assert_eq!(connection.response().denial(), (403, "route_denied".into()));
    }
    assert_eq!(running.wait(LONG).code(), Some(0));
}
