//! A user service that is slow, wrong, huge or gone: 503, and never access (issue 4, item 7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::service::{UserService, response};
use crate::harness::{Behaviour, Connection, Upstream, eventually};

const UNAVAILABLE: (u16, &str) = (503, "auth_unavailable");

fn is_unavailable(answer: &crate::harness::Response) -> bool {
    let (status, reason) = answer.denial();
    (status, reason.as_str()) == UNAVAILABLE
}

#[test]
fn t15_whatever_is_no_clear_answer_is_no_access() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let other = Upstream::echo();
    let gateway = service.asked_by(&upstream).start();
    let with = |head: &str, body: &[u8]| {
        [format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    let redirect = format!("302 Found\r\nLocation: {}/auth/userinfo", other.url());
    let good = br#"{"sub": "a"}"#;
    let huge = [br#"{"sub": "a", "x": ""#.as_slice(), &vec![b'x'; 300 * 1024], br#""}"#].concat();
    for (what, raw) in [
        ("500", with("500 X", good)),
        ("403", with("403 X", good)),
        ("404", with("404 X", good)),
        ("204", b"HTTP/1.1 204 X\r\n\r\n".to_vec()),
        ("a redirect", with(&redirect, good)),
        ("no JSON", with("200 OK", b"<html>login</html>")),
        ("two documents", with("200 OK", br#"{"sub": "a"}{"sub": "b"}"#)),
        ("a duplicate", with("200 OK", br#"{"sub": "a", "sub": "root"}"#)),
        ("no subject", with("200 OK", br#"{"roles": ["ROLE_VIEWER"]}"#)),
        ("a bad subject", with("200 OK", br#"{"sub": "a,b=c"}"#)),
        ("an array", with("200 OK", br#"[{"sub": "a"}]"#)),
        ("nothing", with("200 OK", b"")),
        ("a huge answer", with("200 OK", &huge)),
        ("half an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"sub\": \"a\"}".to_vec()),
        ("a compressed one", with("200 OK\r\nContent-Encoding: gzip", good)),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("a closed connection", Vec::new()),
    ] {
        service.says(Some(&raw));
        assert!(is_unavailable(&gateway.get_as("/me", "t")), "{what}");
    }
    service.says(None);
    service.knows("t", json!({"sub": "a"}));
    assert_eq!(other.count(), 0, "a redirect was followed, with the token");
    assert_eq!(upstream.count(), 0);
    assert_eq!(gateway.get_as("/me", "t").status, 200, "errors are not remembered");

    let ok = |body: &[u8]| with("200 OK", body);
    for (what, raw) in [
        ("500", with("500 X", br#"{"allowed": true}"#)),
        ("403", with("403 X", br#"{"allowed": true}"#)),
        ("a word", ok(br#"{"allowed": "true"}"#)),
        ("a number", ok(br#"{"allowed": 1}"#)),
        ("both", ok(br#"{"allowed": false, "allowed": true}"#)),
        ("another permission", ok(br#"{"allowed": true, "permission": "item:create"}"#)),
        ("silence", ok(b"{}")),
    ] {
        service.says_of_permissions(Some(&raw));
        assert!(is_unavailable(&gateway.get_as("/items", "t")), "{what}");
    }
    // Its 401 is about the token there too.
    service.says_of_permissions(Some(&response(401, &json!({}))));
    assert_eq!(gateway.get_as("/items", "t").denial(), (401, "token_rejected".into()));
    // One answer for several says nothing of each.
    service.says_of_permissions(Some(&response(200, &json!({"allowed": true}))));
    let both = gateway.request("DELETE", "/items/1", "t", &[], "");
    assert_eq!(both.status, 200, "it was asked for each then, and said yes to each");
    assert!(gateway.metric("doorward_delegate_question_seconds_count", &["result=\"unavailable\""]) > 10.0);
    assert!(gateway.metric("doorward_auth_failures_total", &["reason=\"auth_unavailable\""]) > 10.0);
}

#[test]
fn a_service_that_is_too_slow_is_not_waited_for() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.knows("t", json!({"sub": "a"})).is_slow(Duration::from_secs(20));
    let gateway = service.asked_by(&upstream).setting("auth.iam_service.timeout", "500ms").start();
    let began = Instant::now();
    assert!(is_unavailable(&gateway.get_as("/me", "t")));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_service_that_dies_gives_503_and_never_access_and_comes_back() {
    let upstream = Upstream::echo();
    let service = UserService::start();
    service.knows("t", json!({"sub": "a"})).grants("t", "item:view");
    let gateway =
        service.asked_by(&upstream).setting("auth.iam_service.cache", "1s").setting("gateway.mode", "report").start();
    assert_eq!(gateway.get_as("/items", "t").status, 200);
    let url = service.url();
    drop(service);
    eventually("the answer is too old", Duration::from_secs(20), || {
        let answer = gateway.get_as("/items", "t");
        (answer.status != 200).then(|| assert!(is_unavailable(&answer), "not let through in report mode either (T21)"))
    });
    let before = upstream.count();
    for _ in 0..20 {
        assert!(is_unavailable(&gateway.get_as("/items", "t")));
    }
    assert_eq!(upstream.count(), before);
    // Another one takes its place.
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let back = eventually("the port is free", Duration::from_secs(20), || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    });
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let serving = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        // As often as it is asked: what it said a second ago is too old on a machine that stands still.
        loop {
            let (mut stream, _) = back.accept().unwrap();
            if ended.load(Ordering::SeqCst) {
                return;
            }
            let mut head = [0; 4096];
            let Ok(read) = stream.read(&mut head) else { continue };
            let check = head[..read].starts_with(b"POST");
            let body = if check { json!({"allowed": true}) } else { json!({"sub": "a"}) };
            let _ = stream.write_all(&response(200, &body));
        }
    });
    eventually("it comes back", Duration::from_secs(20), || {
        (gateway.get_as("/items", "t").status == 200).then_some(())
    });
    over.store(true, Ordering::SeqCst);
    let _ = std::net::TcpStream::connect(("127.0.0.1", port));
    serving.join().unwrap();
}

#[test]
fn questions_at_a_time_have_a_bound() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    service.is_slow(Duration::from_secs(2));
    let gateway = service
        .asked_by(&upstream)
        .setting("auth.iam_service.questions", 1)
        .setting("auth.iam_service.timeout", "3s")
        .start();
    let mut open: Vec<_> = (0..80).map(|_| gateway.connect()).collect();
    let began = Instant::now();
    for (number, connection) in open.iter_mut().enumerate() {
        connection.send(format!("GET /me HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer t{number}\r\n\r\n"));
    }
    let answers: Vec<_> = open.iter_mut().map(Connection::response).collect();
    assert!(answers.iter().all(|answer| answer.status == 503 || answer.status == 401), "nobody gets in");
    // One at a time, each for two seconds, in the three that each of them has; and so on where the sending was held up.
    let asked = service.userinfos();
    let most = 4_usize.max(2 + usize::try_from(began.elapsed().as_secs()).unwrap() / 2);
    assert!(asked <= most, "{asked} were asked, {most} at most");
    assert!(gateway.metric("doorward_limit_rejections_total", &["limit=\"questions\""]) >= 10.0);
    assert_eq!(upstream.count(), 0);
    eventually("no question is open", Duration::from_secs(20), || {
        (gateway.metric("doorward_delegate_questions_open", &[]) == 0.0).then_some(())
    });
}

#[test]
fn an_upstream_that_answers_is_not_asked_before_the_service_has() {
    let (service, upstream) = (UserService::start(), Upstream::start(Behaviour::Echo));
    service.knows("t", json!({"sub": "a"})).keeps_back(Some("/auth/userinfo"));
    let gateway = service.asked_by(&upstream).start();
    let mut connection = gateway.connect();
    connection.send("POST /me HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer t\r\nContent-Length: 5\r\n\r\nhello");
    eventually("it is asked", Duration::from_secs(20), || (service.userinfos() == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(upstream.count(), 0);
    service.keeps_back(None);
    assert_eq!(connection.response().status, 200);
    assert_eq!(upstream.last().body, b"hello", "the body waited");
}
