//! The upstream side: what is spoken there, which endpoint is asked, what is tried again, what is followed (SPEC 3.8, T31;
//! issue 3).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::served::{Authority, Served, Speaks, echo, piped, say, text};
use crate::harness::{Behaviour, Builder, Doorward, Issuer, Upstream, doorward, eventually, free_ports};

const H2C: Speaks = Speaks::Http2 { streams: 100 };
const LONG: Duration = Duration::from_secs(20);

/// A gateway in front of these endpoints.
fn in_front_of(endpoints: &[String]) -> Builder {
    doorward().issuer(&Issuer::hs256()).setting("upstreams.oms.endpoints", endpoints.to_vec())
}

fn refused() -> (u16, String) {
    (502, "upstream_unavailable".into())
}

/// Changes the configuration of a running process.
fn reconfigure(running: &Doorward, change: impl FnOnce(&mut toml::Table)) {
    let path = running.path("doorward.toml");
    let mut table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    change(&mut table);
    std::fs::write(path, toml::to_string(&table).unwrap()).unwrap();
}

/// The message of doorward that says this, if it was written.
fn told(running: &Doorward, what: &str) -> Option<String> {
    running.stdout().lines().find(|line| line.contains("\"level\"") && line.contains(what)).map(str::to_owned)
}

fn upstream(table: &mut toml::Table) -> &mut toml::Table {
    table["upstreams"]["oms"].as_table_mut().unwrap()
}

fn http2_client(gateway: SocketAddr) -> (tokio::runtime::Runtime, http2::SendRequest<BoxedBody>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let sender = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway).await.unwrap();
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    });
    (runtime, sender)
}

type BoxedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn post(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Request<BoxedBody> {
    let mut request = Request::post("http://oms.test/public").body(body.boxed_unsync()).unwrap();
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request
}

#[test]
fn every_kind_of_endpoint_is_reached() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("oms.sock");
    let h2 = Served::start(Speaks::Tls(authority.server("localhost", false, &["h2", "http/1.1"])), 0, echo);
    let h1 = Served::start(Speaks::Tls(authority.server("localhost", false, &["http/1.1"])), 0, echo);
    let h2c = Served::start(H2C, 0, echo);
    let unix = Served::unix(socket.clone());
    let at = |scheme: &str, served: &Served| format!("{scheme}://localhost:{}", served.address.port());
    let cases = [
        ("https, HTTP/2", at("https", &h2), &h2, Version::HTTP_2),
        ("https, HTTP/1.1", at("https", &h1), &h1, Version::HTTP_11),
        ("h2c", at("h2c", &h2c), &h2c, Version::HTTP_2),
        ("unix", format!("unix:{}", socket.display()), &unix, Version::HTTP_11),
    ];
    for (what, endpoint, served, version) in cases {
        let mut builder = in_front_of(std::slice::from_ref(&endpoint)).file("ca.pem", authority.pem.clone());
        if endpoint.starts_with("https") {
            builder = builder.setting("upstreams.oms.tls.ca", "ca.pem");
        }
        let running = builder.start();
        for body in ["hello", ""] {
            let length = body.len();
            let sent = format!(
                "POST /public?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nTE: trailers\r\nConnection: te, x-gone\r\nX-Gone: 1\r\n\r\n{body}"
            );
            let answer = running.send(sent);
            assert_eq!((answer.status, answer.text().as_str()), (200, body), "{what}: {answer:?}");
        }
        assert_eq!(running.get("/public").status, 200, "{what}");
        let seen = served.seen();
        assert_eq!(seen.len(), 3, "{what}");
        let first = &seen[0];
        assert_eq!(first.version, version, "{what}");
        assert_eq!(first.uri.path_and_query().unwrap(), "/public?q=1", "{what}");
        assert_eq!(first.headers["te"], "trailers", "{what}");
        assert!(!first.headers.contains_key("x-gone"), "{what}: {:?}", first.headers);
        let expected =
            if what == "unix" { "localhost".to_owned() } else { format!("localhost:{}", served.address.port()) };
        if version == Version::HTTP_2 {
            assert_eq!(first.uri.authority().unwrap().as_str(), expected, "{what}");
            assert!(!first.headers.contains_key("host") && !first.headers.contains_key("connection"), "{what}");
        } else {
            assert_eq!(first.headers["host"], expected, "{what}");
        }
        // T31: none of these can be read or entered by others on the way, and localhost is no network.
        assert!(running.metrics().contains("doorward_upstream_unprotected{upstream=\"oms\"} 0\n"), "{what}");
        if version == Version::HTTP_2 {
            assert_eq!(served.connections(), 1, "{what}: requests share a connection");
        }
    }
}

#[test]
fn t31_an_upstream_can_demand_that_it_is_doorward_who_asks() {
    let authority = Authority::new();
    let server = authority.server("oms.internal", true, &["h2", "http/1.1"]);
    let served = Served::start(Speaks::Tls(server), 0, echo);
    let (certificate, key) = authority.issue("doorward");
    let builder = in_front_of(&[served.url("https")])
        .file("ca.pem", authority.pem.clone())
        .file("doorward.pem", certificate.clone())
        .file("doorward.key", key)
        .setting("upstreams.oms.tls.ca", "ca.pem")
        .setting("upstreams.oms.tls.server_name", "oms.internal");
    let with = builder
        .clone()
        .setting("upstreams.oms.tls.cert", "doorward.pem")
        .setting("upstreams.oms.tls.key", "doorward.key");
    let running = with.start();
    assert_eq!(running.get("/public").status, 200);
    let shown = served.seen()[0].certificate.clone().expect("a certificate was shown");
    use rustls::pki_types::pem::PemObject as _;
    let own = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    assert_eq!(shown, own.to_vec());

    let without = builder.start();
    assert_eq!(without.get("/public").denial(), refused());
    assert_eq!(served.seen().len(), 1);
}

#[test]
fn t31_an_endpoint_that_cannot_prove_its_name_gets_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let of = |authority: &Authority, name: &str| {
        Served::start(Speaks::Tls(authority.server(name, false, &["h2", "http/1.1"])), 0, echo)
    };
    for served in [of(&stranger, "localhost"), of(&authority, "other.test")] {
        let running = in_front_of(&[format!("https://localhost:{}", served.address.port())])
            .file("ca.pem", authority.pem.clone())
            .setting("upstreams.oms.tls.ca", "ca.pem")
            .start();
        let answer = running.get("/public");
        assert_eq!(answer.denial(), refused());
        // The client learns nothing of what is behind doorward.
        assert!(!answer.text().contains("localhost") && !answer.text().contains("certificate"), "{}", answer.text());
        assert!(served.seen().is_empty());
    }
}

#[test]
fn tls_files_that_are_of_no_use_stop_the_start() {
    let authority = Authority::new();
    let (certificate, _) = authority.issue("doorward");
    let builder = || in_front_of(&["https://oms.test".into()]).file("cert.pem", certificate.clone()).file("empty", "");
    for (key, file) in [("ca", "empty"), ("ca", "nowhere")] {
        let failed = builder().setting(&format!("upstreams.oms.tls.{key}"), file).fails();
        assert!(failed.stderr.contains("upstreams.oms") && failed.stderr.contains("tls.ca"), "{}", failed.stderr);
    }
    let identity = builder().setting("upstreams.oms.tls.cert", "cert.pem").setting("upstreams.oms.tls.key", "cert.pem");
    assert!(identity.fails().stderr.contains("`tls.key` holds no private key"));
}

#[test]
fn a_call_goes_both_ways_at_once_with_trailers_at_both_ends() {
    let served = Served::start(H2C, 0, echo);
    let running = in_front_of(&[served.url("h2c")]).start();
    let (runtime, mut sender) = http2_client(running.gateway);
    runtime.block_on(async {
        let (pipe, body) = piped();
        let mut answer = sender.send_request(post(body)).await.unwrap();
        assert_eq!(answer.status(), 200, "the answer begins before the request has a body");
        for turn in 0..100 {
            let word = Bytes::from(format!("word {turn}"));
            pipe.send(Frame::data(word.clone())).await.unwrap();
            let back = answer.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(back.into_data().unwrap(), word);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("7"));
        trailers.insert("x-user-id", HeaderValue::from_static("forged"));
        pipe.send(Frame::trailers(trailers)).await.unwrap();
        drop(pipe);
        let last = answer.body_mut().frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(last["x-checksum"], "7");
        assert!(!last.contains_key("x-user-id"));
        assert!(answer.body_mut().frame().await.is_none());
    });
}

#[test]
fn requests_that_wait_for_answers_share_connections_as_far_as_the_peer_takes_them() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let inside = Arc::new(AtomicUsize::new(0));
    let (opened, counted) = (Arc::clone(&gate), Arc::clone(&inside));
    let served = Served::start(Speaks::Http2 { streams: 4 }, 0, move |_| {
        let (gate, inside) = (Arc::clone(&opened), Arc::clone(&counted));
        Box::pin(async move {
            inside.fetch_add(1, Ordering::SeqCst);
            let _ = gate.acquire().await;
            Response::new(text("ok"))
        })
    });
    let running = in_front_of(&[served.url("h2c")]).start();
    let ask = || {
        let gateway = running.gateway;
        std::thread::spawn(move || {
            let mut connection = crate::harness::Connection::open(gateway);
            connection.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
            connection.response().status
        })
    };
    // All at once: none may wait behind others on a connection whose peer takes no more.
    let asking: Vec<_> = (0..10).map(|_| ask()).collect();
    eventually("all arrive", LONG, || (inside.load(Ordering::SeqCst) == 10).then_some(()));
    assert_eq!(served.connections(), 3);
    gate.add_permits(100);
    assert!(asking.into_iter().all(|one| one.join().unwrap() == 200));
    let idle = || running.metric("doorward_upstream_connections", &["state=\"idle\""]);
    eventually("all three are free again", LONG, || (idle() == 3.0).then_some(()));
}

#[test]
fn a_client_that_goes_away_cancels_the_request() {
    struct Told(Arc<AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    for (speaks, scheme) in [(Speaks::Http1, "http"), (H2C, "h2c")] {
        let (begun, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (told_begun, told) = (Arc::clone(&begun), Arc::clone(&dropped));
        let served = Served::start(speaks, 0, move |request| {
            let (begun, told) = (Arc::clone(&told_begun), Told(Arc::clone(&told)));
            Box::pin(async move {
                if request.uri().query() == Some("ok") {
                    return Response::new(text("ok"));
                }
                begun.store(true, Ordering::SeqCst);
                std::future::pending::<()>().await;
                drop(told);
                Response::new(text("never"))
            })
        });
        let running = in_front_of(&[served.url(scheme)]).start();
        let mut connection = running.connect();
        connection.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the request arrives", LONG, || begun.load(Ordering::SeqCst).then_some(()));
        dropped.store(false, Ordering::SeqCst);
        drop(connection);
        eventually(&format!("{scheme}: the upstream is told"), LONG, || dropped.load(Ordering::SeqCst).then_some(()));
        if scheme == "h2c" {
            assert_eq!(running.get("/public?ok").status, 200);
            assert_eq!(served.connections(), 1, "the connection goes on");
        }
    }
}

#[test]
fn the_less_loaded_endpoint_gets_the_request() {
    let slow = Served::start(Speaks::Http1, 0, |_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Response::new(text("late"))
        })
    });
    let quick = Served::start(Speaks::Http1, 0, say("quick"));
    let running = in_front_of(&[slow.url("http"), quick.url("http")]).start();
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut connection = running.connect();
        connection.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
        kept.push(connection);
    }
    eventually("all are under way", LONG, || (slow.seen().len() + quick.seen().len() == 20).then_some(()));
    // As soon as one waits there, the other has less to do whenever it has nothing to do.
    assert!(!slow.seen().is_empty() && slow.seen().len() <= 10, "{}", slow.seen().len());
}

/// How many requests ended well, and when others were sent and how they ended.
type Ended = (usize, Vec<(Instant, u16)>);

/// Asks again and again from several threads until told to stop; gives what did not end well, with its time.
fn load(running: &Doorward, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<Ended>> {
    (0..6)
        .map(|_| {
            let (gateway, stop) = (running.gateway, Arc::clone(stop));
            std::thread::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                let mut connection = crate::harness::Connection::open(gateway);
                while !stop.load(Ordering::SeqCst) {
                    let sent = Instant::now();
                    connection.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
                    match connection.try_response("GET").map(|answer| answer.status) {
                        Ok(200) => good += 1,
                        Ok(status) => bad.push((sent, status)),
                        Err(_) => {
                            bad.push((sent, 0));
                            connection = crate::harness::Connection::open(gateway);
                        }
                    }
                }
                (good, bad)
            })
        })
        .collect()
}

#[test]
fn an_endpoint_killed_and_restarted_under_load_costs_what_is_in_flight_and_no_more() {
    for (speaks, scheme) in [(Speaks::Http1, "http"), (H2C, "h2c")] {
        let stays = Served::start(speaks.clone(), 0, say("stays"));
        let dies = Served::start(speaks.clone(), 0, say("dies"));
        let port = dies.address.port();
        let running = in_front_of(&[stays.url(scheme), dies.url(scheme)])
            .setting("upstreams.oms.ejection.slow_start", "1s")
            .setting("gateway.workers", 2)
            .start();
        let healthy = || running.metric("doorward_upstream_healthy", &[&format!(":{port}\"")]) == 1.0;
        let stop = Arc::new(AtomicBool::new(false));
        let clients = load(&running, &stop);
        eventually("both are used", LONG, || (stays.seen().len() > 50 && dies.seen().len() > 50).then_some(()));
        assert!(healthy());
        let killed = Instant::now();
        drop(dies);
        eventually("it is ejected", LONG, || (!healthy()).then_some(()));
        let ejected = killed.elapsed();
        eventually("it is told", LONG, || told(&running, &format!("http://127.0.0.1:{port}").replace("http", scheme)));
        // In the time in which it is down the other one carries all.
        let before = stays.seen().len();
        eventually("the load goes on", LONG, || (stays.seen().len() > before + 100).then_some(()));
        let again = Served::start(speaks, port, say("again"));
        eventually("it is used again", LONG, || (again.seen().len() > 50).then_some(()));
        assert!(healthy());
        stop.store(true, Ordering::SeqCst);
        let (mut good, mut bad) = (0, Vec::new());
        for client in clients {
            let (of_one, failed) = client.join().unwrap();
            good += of_one;
            bad.extend(failed);
        }
        // GETs that broke before an answer began were sent again, so nobody noticed but who had half an answer.
        assert!(good > 300 && bad.len() <= 6, "{scheme}: {good} good, bad: {bad:?}");
        // Nor does anybody who asks once it is ejected, however long that takes on a machine that stands still.
        let over = killed + ejected + Duration::from_secs(2);
        assert!(bad.iter().all(|(sent, _)| *sent < over), "{scheme}: {bad:?}");
        assert!(ejected < Duration::from_secs(12), "{scheme}: {ejected:?}");
        assert!(running.metric("doorward_upstream_retries_total", &["upstream=\"oms\""]) >= 1.0);
    }
}

#[test]
fn what_closed_before_its_answer_began_is_sent_once_more_if_that_is_safe() {
    let upstream = Upstream::start(Behaviour::Close);
    let running = doorward().issuer(&Issuer::hs256()).upstream(&upstream).start();
    let mut expected = 0;
    let mut tried = |request: &str, times: usize| {
        assert_eq!(running.send(request).denial(), refused(), "{request}");
        expected += times;
        assert_eq!(upstream.count(), expected, "{request}");
        let (first, last) = (upstream.requests()[expected - times].head.clone(), upstream.last().head);
        assert_eq!(String::from_utf8_lossy(&first), String::from_utf8_lossy(&last));
    };
    tried("GET /public?a=%20b HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n", 2);
    tried("POST /public HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    tried("POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 1);
    tried("GET /public HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 1);
    assert_eq!(running.metric("doorward_upstream_retries_total", &["upstream=\"oms\""]), 1.0);
    // An answer that has begun is not asked for again.
    upstream.behave(Behaviour::Raw(b"HTTP/1.1 2".to_vec()));
    tried("GET /public HTTP/1.1\r\nHost: a\r\n\r\n", 1);

    // With another endpoint, the second try goes there.
    let good = Upstream::echo();
    upstream.behave(Behaviour::Close);
    let running = in_front_of(&[upstream.url(), good.url()]).start();
    for _ in 0..20 {
        assert_eq!(running.get("/public").status, 200);
    }
    let retries = running.metric("doorward_upstream_retries_total", &["upstream=\"oms\""]);
    assert!((1.0..20.0).contains(&retries), "{retries}");
}

#[test]
fn a_request_with_a_body_goes_to_the_next_endpoint_when_one_cannot_be_reached() {
    let good = Upstream::start(Behaviour::EchoBody);
    let [dead] = free_ports();
    // Ejected for longer than this takes.
    let running = in_front_of(&[format!("http://127.0.0.1:{dead}"), good.url()])
        .setting("upstreams.oms.ejection.base", "1m")
        .setting("upstreams.oms.ejection.max", "1m")
        .start();
    for _ in 0..20 {
        let answer = running.send("POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    }
    assert_eq!(running.metric("doorward_upstream_healthy", &[&format!(":{dead}\"")]), 0.0);
    assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 1.0);
}

#[test]
fn a_client_that_stalls_does_not_make_an_endpoint_look_ill() {
    for (speaks, scheme) in [(Speaks::Http1, "http"), (H2C, "h2c")] {
        let served = Served::start(speaks, 0, |request| {
            Box::pin(async move {
                let _ = request.into_body().collect().await;
                Response::new(text("ok"))
            })
        });
        let running = in_front_of(&[served.url(scheme)]).setting("upstreams.oms.timeouts.first_byte", "200ms").start();
        for _ in 0..4 {
            let mut connection = running.connect();
            connection.send("POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
            assert_eq!(connection.response().denial(), (504, "upstream_timeout".into()));
        }
        assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 1.0, "{scheme}");
        // 200 ms are soon gone on a machine that stands still, and then 504 is right.
        eventually("what answers in time is heard", LONG, || {
            let answer = running.get("/public");
            assert!(matches!(answer.status, 200 | 504), "{answer:?}");
            (answer.status == 200).then_some(())
        });
    }
}

#[test]
fn an_endpoint_that_has_all_of_a_request_and_does_not_answer_is_to_blame() {
    let upstream = Upstream::start(Behaviour::Silent);
    for framing in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"] {
        let running = in_front_of(&[upstream.url()])
            .setting("upstreams.oms.timeouts.first_byte", "200ms")
            .setting("upstreams.oms.ejection.failures", 1)
            .setting("upstreams.oms.ejection.base", "20s")
            .start();
        let response = running.send(format!("POST /public HTTP/1.1\r\nHost: a\r\n{framing}"));
        assert_eq!(response.denial(), (504, "upstream_timeout".into()));
        assert_eq!(response.field("connection"), None, "nothing of it is left on the wire");
        assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 0.0, "{framing}");
    }
}

#[test]
fn a_body_over_the_limit_is_413_also_where_http2_carries_it() {
    let served = Served::start(H2C, 0, |request| {
        Box::pin(async move {
            let _ = request.into_body().collect().await;
            Response::new(text("ok"))
        })
    });
    let running = in_front_of(&[served.url("h2c")]).setting("gateway.limits.body", "1KiB").start();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    for _ in 0..4 {
        let mut connection = running.connect();
        connection.send("POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send(&chunk).send(&chunk);
        assert_eq!(connection.response().denial(), (413, "body_too_large".into()));
    }
    assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 1.0);
    assert_eq!(running.get("/public").status, 200);
    assert_eq!(served.connections(), 1);
}

#[test]
fn a_request_that_an_http2_endpoint_refuses_to_look_at_is_sent_once_more() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let refusals = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&refusals);
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        respond.send_response(Response::new(()), true).unwrap();
                    }
                }
            });
        }
    });
    let running = in_front_of(&[format!("h2c://{address}")]).start();
    for method in ["GET", "POST"] {
        let ask = || running.send(format!("{method} /public HTTP/1.1\r\nHost: a\r\n\r\n"));
        refusals.store(1, Ordering::SeqCst);
        assert_eq!(ask().status, 200, "{method}");
        refusals.store(2, Ordering::SeqCst);
        assert_eq!(ask().denial(), refused(), "{method}: once, and not again and again");
    }
    assert_eq!(running.metric("doorward_upstream_retries_total", &["upstream=\"oms\""]), 4.0);
}

#[test]
fn an_endpoint_that_is_no_http2_server_fails_as_one_that_cannot_be_reached() {
    let served = Upstream::echo();
    let good = Served::start(H2C, 0, say("good"));
    let running = in_front_of(&[served.url().replace("http", "h2c"), good.url("h2c")]).start();
    for _ in 0..20 {
        assert_eq!(running.get("/public").text(), "good");
    }
    assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 1.0);
}

#[test]
fn answers_of_500_eject_where_that_is_wanted() {
    let bad = Served::start(Speaks::Http1, 0, |_| {
        Box::pin(async { Response::builder().status(503).body(text("bad")).unwrap() })
    });
    let good = Served::start(Speaks::Http1, 0, say("good"));
    for wanted in [false, true] {
        let running = in_front_of(&[bad.url("http"), good.url("http")])
            .setting("upstreams.oms.ejection.server_errors", wanted)
            .setting("upstreams.oms.ejection.base", "1m")
            .setting("upstreams.oms.ejection.max", "1m")
            .start();
        let failed = (0..60).filter(|_| running.get("/public").status == 503).count();
        assert_eq!(failed == 3, wanted, "{failed}");
        assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), if wanted { 1.0 } else { 2.0 });
    }
}

#[test]
fn an_endpoint_that_fails_its_check_gets_no_requests_until_it_passes_again() {
    let well = Arc::new(AtomicBool::new(true));
    let checked = Arc::clone(&well);
    let served = |words: &'static str, well: Option<Arc<AtomicBool>>| {
        Served::start(Speaks::Http1, 0, move |request: Request<Incoming>| {
            let well = well.as_ref().is_none_or(|well| well.load(Ordering::SeqCst));
            Box::pin(async move {
                let status = if request.uri().path() == "/health" && !well { 500 } else { 200 };
                Response::builder().status(status).body(text(words)).unwrap()
            })
        })
    };
    let (one, other) = (served("one", Some(checked)), served("other", None));
    let running = in_front_of(&[one.url("http"), other.url("http")])
        .setting("upstreams.oms.health.path", "/health")
        .setting("upstreams.oms.health.interval", "100ms")
        // Ill is who says so, and not who is late on a machine that stands still.
        .setting("upstreams.oms.health.timeout", "20s")
        .start();
    let healthy = || running.metric("doorward_upstream_healthy", &["upstream"]);
    let answers = || (0..20).filter(|_| running.get("/public").text() == "one").count();
    eventually("the check is asked for", LONG, || {
        one.seen().iter().find(|seen| seen.uri.path() == "/health").map(|seen| seen.headers["user-agent"].clone())
    });
    assert!(answers() > 0 && healthy() == 2.0);
    well.store(false, Ordering::SeqCst);
    eventually("it is found ill", LONG, || (healthy() == 1.0).then_some(()));
    assert_eq!(answers(), 0);
    well.store(true, Ordering::SeqCst);
    eventually("it is found well", LONG, || (healthy() == 2.0).then_some(()));
    eventually("it is used again", LONG, || (answers() > 0).then_some(()));
}

#[test]
fn requests_beyond_the_bound_wait_and_then_are_told_so() {
    let upstream = Upstream::start(Behaviour::Silent);
    let running = doorward()
        .issuer(&Issuer::hs256())
        .upstream(&upstream)
        .setting("gateway.workers", 2)
        .setting("upstreams.oms.limits.requests", 2)
        .setting("upstreams.oms.limits.waiting", 1)
        .setting("upstreams.oms.limits.wait", "1m")
        .start();
    let begin = || {
        let mut connection = running.connect();
        connection.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
        connection
    };
    let (first, _second) = (begin(), begin());
    eventually("two are under way", LONG, || (upstream.count() == 2).then_some(()));
    // Two more: one waits, and one is told at once; which of them is up to the workers.
    let (mut one, mut other) = (begin(), begin());
    eventually("one is told", LONG, || {
        let count = running.metric("doorward_limit_rejections_total", &["limit=\"upstream_requests\""]);
        (count == 1.0).then_some(())
    });
    assert_eq!(upstream.count(), 2);
    upstream.behave(Behaviour::Echo);
    drop(first);
    let mut answers = [one.response(), other.response()];
    answers.sort_by_key(|answer| answer.status);
    assert_eq!(answers[0].status, 200);
    assert_eq!(answers[1].denial(), (503, "overloaded".into()));
    assert!(answers[1].field("retry-after").is_some());
}

#[test]
fn the_time_in_the_queue_is_not_the_endpoints() {
    let upstream = Upstream::start(Behaviour::script(|received, wire| {
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        if received.target == "/public?hold" {
            let _ = wire.read_to_end();
        } else {
            let _ = wire.write(b"ok");
        }
    }));
    let running = in_front_of(&[upstream.url()])
        .setting("upstreams.oms.limits.requests", 1)
        .setting("upstreams.oms.limits.wait", "1m")
        // Less than is waited for, and more than a machine stands still.
        .setting("upstreams.oms.timeouts.first_byte", "5s")
        .setting("upstreams.oms.ejection.failures", 1)
        .start();
    let mut first = running.connect();
    first.send("GET /public?hold HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(first.head().starts_with("HTTP/1.1 200 "));
    let mut second = running.connect();
    second.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(5_500));
    drop(first);
    assert_eq!(second.response().status, 200);
    assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 1.0);
}

#[test]
fn waiting_for_a_place_ends() {
    let upstream = Upstream::start(Behaviour::Silent);
    let running = doorward()
        .issuer(&Issuer::hs256())
        .upstream(&upstream)
        .setting("upstreams.oms.limits.requests", 1)
        .setting("upstreams.oms.limits.wait", "200ms")
        .start();
    let mut first = running.connect();
    first.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("one is under way", LONG, || (upstream.count() == 1).then_some(()));
    assert_eq!(running.get("/public").denial(), (503, "overloaded".into()));
    drop(first);
    upstream.behave(Behaviour::Echo);
    eventually("the place is free", LONG, || (running.get("/public").status == 200).then_some(()));
}

#[test]
fn changed_endpoints_are_followed_and_what_is_under_way_ends_where_it_began() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let old = Served::start(Speaks::Http1, 0, move |request| {
        let gate = Arc::clone(&opened);
        Box::pin(async move {
            if request.uri().query() == Some("wait") {
                let _ = gate.acquire().await;
            }
            Response::new(text("old"))
        })
    });
    let (kept, new) = (Served::start(Speaks::Http1, 0, say("kept")), Served::start(Speaks::Http1, 0, say("new")));
    let running = in_front_of(&[old.url("http")]).start();
    let mut waiting = running.connect();
    waiting.send("GET /public?wait HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", LONG, || (old.seen().len() == 1).then_some(()));
    let use_endpoints = |endpoints: &[&Served]| {
        let urls: Vec<String> = endpoints.iter().map(|served| served.url("http")).collect();
        reconfigure(&running, |table| {
            upstream(table).insert("endpoints".into(), urls.into());
        });
    };
    use_endpoints(&[&kept]);
    eventually("the other is used", LONG, || (running.get("/public").text() == "kept").then_some(()));
    let old_count = old.seen().len();
    for _ in 0..5 {
        assert_eq!(running.get("/public").text(), "kept");
    }
    assert_eq!(old.seen().len(), old_count);
    gate.add_permits(1);
    assert_eq!(waiting.response().text(), "old");
    let connections = kept.connections();
    use_endpoints(&[&kept, &new]);
    eventually("both are used", LONG, || (running.get("/public").text() == "new").then_some(()));
    assert_eq!(kept.connections(), connections, "an endpoint that stays keeps its connections");
    assert_eq!(running.metric("doorward_upstream_healthy", &["upstream"]), 2.0);
}

#[test]
fn endpoints_come_and_go_under_load_and_no_request_fails() {
    let (one, other) = (Served::start(Speaks::Http1, 0, say("one")), Served::start(H2C, 0, say("other")));
    let running = in_front_of(&[one.url("http")]).setting("gateway.workers", 2).start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&running, &stop);
    let choices = [vec![other.url("h2c")], vec![one.url("http"), other.url("h2c")], vec![one.url("http")]];
    for (turn, endpoints) in choices.iter().cycle().take(12).enumerate() {
        reconfigure(&running, |table| {
            upstream(table).insert("endpoints".into(), endpoints.clone().into());
            // A changed setting of endpoints that stay as well.
            let limits = toml::Table::from_iter([("requests".to_owned(), (100 + turn as i64).into())]);
            upstream(table).insert("limits".into(), limits.into());
        });
        running.signal("-HUP");
        let count = endpoints.len() as f64;
        eventually("they are in force", LONG, || {
            (running.metric("doorward_upstream_healthy", &["upstream"]) == count).then_some(())
        });
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let (good, bad) = client.join().unwrap();
        assert!(good > 0 && bad.is_empty(), "{good} good, bad: {bad:?}");
    }
    assert!(!one.seen().is_empty() && !other.seen().is_empty());
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_told() {
    let served = Upstream::echo();
    let running = doorward().issuer(&Issuer::hs256()).upstream(&served).start();
    let failed = || running.metric("doorward_config_reload_failed", &[]) == 1.0;
    let good = std::fs::read(running.path("doorward.toml")).unwrap();
    let refused_for = |what: &str| {
        eventually(what, LONG, || told(&running, what).filter(|_| failed()));
        assert_eq!(running.get("/public").status, 200);
        std::fs::write(running.path("doorward.toml"), &good).unwrap();
        eventually("it is mended", LONG, || (!failed()).then_some(()));
    };
    assert!(!failed());
    let put = |key: &str, value: toml::Value| {
        reconfigure(&running, |table| {
            upstream(table).insert(key.into(), value);
        });
    };
    put("endpoints", vec!["ftp://oms"].into());
    refused_for("unknown scheme");
    put("endpoint", "http://oms".into());
    refused_for("unknown key");
    put("endpoints", vec![format!("http://{}", running.gateway)].into());
    refused_for("own gateway listener");
    put("endpoints", vec!["https://oms"].into());
    put("tls", toml::Table::from_iter([("ca".to_owned(), "nowhere.pem".into())]).into());
    refused_for("nowhere.pem");
    reconfigure(&running, |table| {
        table["upstreams"].as_table_mut().unwrap().remove("oms");
    });
    refused_for("upstream");
    std::fs::write(running.path("doorward.toml"), "[gateway\n").unwrap();
    refused_for("not valid TOML");
    std::fs::remove_file(running.path("doorward.toml")).unwrap();
    refused_for("cannot read");
    assert_eq!(running.get("/public").status, 200);
}

#[test]
fn keys_that_wait_for_a_restart_are_named() {
    let served = Upstream::echo();
    let running = doorward().issuer(&Issuer::hs256()).upstream(&served).start();
    reconfigure(&running, |table| {
        table["gateway"].as_table_mut().unwrap().insert("grace".into(), "7s".into());
        table["log"].as_table_mut().unwrap().insert("level".into(), "debug".into());
    });
    let line = eventually("it is told", LONG, || told(&running, "wait for a restart"));
    assert!(line.contains("gateway.grace, log.level"), "{line}");
    assert_eq!(running.get("/public").status, 200);
}

#[test]
fn an_upstream_and_the_policy_that_names_it_change_together() {
    let (one, other) = (Served::start(Speaks::Http1, 0, say("one")), Served::start(Speaks::Http1, 0, say("other")));
    let running = in_front_of(&[one.url("http")]).start();
    let write_policy = |from: &str, to: &str| {
        let path = running.path("policy0.yaml");
        let policy = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, policy.replace(&format!("upstream: {from}"), &format!("upstream: {to}"))).unwrap();
    };
    let configure = |from: &str, to: &str, served: &Served| {
        reconfigure(&running, |table| {
            let upstreams = table["upstreams"].as_table_mut().unwrap();
            upstreams.remove(from);
            let endpoints = toml::Value::from(vec![served.url("http")]);
            upstreams.insert(to.into(), toml::Table::from_iter([("endpoints".to_owned(), endpoints)]).into());
        });
    };
    // Either order: what comes first is refused until the other is there.
    write_policy("oms", "omx");
    eventually("the policy alone is refused", LONG, || {
        (running.metric("doorward_policy_reload_failed", &[]) == 1.0).then_some(())
    });
    assert_eq!(running.get("/public").text(), "one");
    configure("oms", "omx", &other);
    eventually("both are in force", LONG, || (running.get("/public").text() == "other").then_some(()));
    configure("omx", "oms", &one);
    eventually("the configuration alone is refused", LONG, || {
        (running.metric("doorward_config_reload_failed", &[]) == 1.0).then_some(())
    });
    assert_eq!(running.get("/public").text(), "other");
    write_policy("omx", "oms");
    eventually("both are in force", LONG, || (running.get("/public").text() == "one").then_some(()));
    for failed in ["doorward_config_reload_failed", "doorward_policy_reload_failed"] {
        eventually(failed, LONG, || (running.metric(failed, &[]) == 0.0).then_some(()));
    }
}

#[test]
fn changed_tls_files_and_swapped_links_are_followed() {
    let (old, new) = (Authority::new(), Authority::new());
    let served = Served::start(Speaks::Tls(new.server("localhost", false, &["h2"])), 0, echo);
    let running = in_front_of(&[format!("https://localhost:{}", served.address.port())])
        .file("one/ca.pem", old.pem.clone())
        .file("two/ca.pem", new.pem.clone())
        .file("current/ca.pem", old.pem.clone())
        .setting("upstreams.oms.tls.ca", "current/ca.pem")
        .start();
    assert_eq!(running.get("/public").denial(), refused());
    // As Kubernetes changes a ConfigMap: a link to a folder is replaced by another.
    let link = running.path("next");
    std::os::unix::fs::symlink(running.path("two"), &link).unwrap();
    std::fs::remove_dir_all(running.path("current")).unwrap();
    std::fs::rename(link, running.path("current")).unwrap();
    eventually("the new authority is believed", LONG, || (running.get("/public").status == 200).then_some(()));
}
