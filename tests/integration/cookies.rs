//! A token in a cookie: who may use it, and that nobody behind doorward sees it (T25, T26, T27).

use crate::harness::{Behaviour, Doorward, Issuer, POLICY, Response, Upstream, doorward};

const COOKIE: &str = "__Host-session";

fn guarded() -> (Doorward, Upstream, Issuer) {
    with("")
}

fn with(lines: &str) -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\ncredentials: {{ cookie: {COOKIE} }}\n{lines}\n");
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

/// Sends a request with these header lines.
fn send(running: &Doorward, method: &str, target: &str, lines: &[&str]) -> Response {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: oms.test\r\n{lines}\r\n");
    running.connect().send(request).try_response(method).unwrap()
}

fn cookie(token: &str) -> String {
    format!("Cookie: {COOKIE}={token}")
}

#[test]
fn a_cookie_carries_the_token_and_a_header_may_too() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    for line in [cookie(&token), format!("Cookie: a=1; {COOKIE}={token}; b=2")] {
        assert_eq!(send(&running, "GET", "/items", &[&line]).status, 200);
        assert_eq!(upstream.last().field("x-user-id"), Some("u-1"));
        assert_eq!(upstream.last().field("x-auth-method"), Some("cookie"));
    }
    // The same token, remembered from the cookie, in the other place and back again.
    for _ in 0..2 {
        assert_eq!(running.get_as("/items", &token).status, 200);
        assert_eq!(upstream.last().field("x-auth-method"), Some("bearer"));
        assert_eq!(send(&running, "GET", "/items", &[&cookie(&token)]).status, 200);
        assert_eq!(upstream.last().field("x-auth-method"), Some("cookie"));
    }
    assert_eq!(send(&running, "GET", "/public", &[&cookie(&token)]).status, 200);
    assert_eq!(upstream.last().field("x-auth-method"), Some("cookie"));

    for (line, denial) in [
        ("Cookie: x=1".to_owned(), (401, "missing_token")),
        (format!("Cookie: {COOKIE}="), (401, "missing_token")),
        (cookie("a.b.c"), (401, "malformed_token")),
        (cookie(&issuer.token().claim("iat", 1_000_000).claim("exp", 1_000_600).sign()), (401, "expired")),
        (format!("Cookie: __Host-Session={token}"), (401, "missing_token")),
        (format!("Cookie: session={token}"), (401, "missing_token")),
    ] {
        let response = send(&running, "GET", "/items", &[&line]);
        assert_eq!(response.denial(), (denial.0, denial.1.to_owned()), "{line}");
    }
    assert_eq!(send(&running, "DELETE", "/items/1", &[&cookie(&token), "Sec-Fetch-Site: same-origin"]).status, 403);
}

#[test]
fn without_a_policy_that_names_it_a_cookie_is_no_credential() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    let line = cookie(&issuer.viewer());
    assert_eq!(send(&running, "GET", "/items", &[&line]).denial(), (401, "missing_token".into()));
    assert_eq!(send(&running, "GET", "/public", &[&line]).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), None);
    assert_eq!(upstream.last().field("cookie"), line.strip_prefix("Cookie: "), "it is the service's own");
}

#[test]
fn t26_two_credentials_are_refused() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    let authorization = format!("Authorization: Bearer {token}");
    for target in ["/items", "/public", "/me"] {
        for beside in [authorization.as_str(), "Authorization: Basic dTpw"] {
            let response = send(&running, "GET", target, &[&cookie(&token), beside]);
            assert_eq!(response.denial(), (400, "bad_request".into()), "{target} {beside}");
        }
    }
    for lines in [
        &[format!("Cookie: {COOKIE}={token}; {COOKIE}={token}")][..],
        &[cookie(&token), cookie(&token)],
        &[cookie(&token), format!("Cookie: {COOKIE} =x")],
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(send(&running, "GET", "/items", &lines).denial(), (401, "malformed_token".into()), "{lines:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn t26_another_site_cannot_act_with_the_users_cookie() {
    let (running, upstream, issuer) = with("cors: { origins: [\"https://front.test\"], credentials: true }");
    let line = cookie(&issuer.with_roles("u-1", &["ROLE_EDITOR"]));
    let denied = |lines: &[&str]| {
        let lines: Vec<&str> = [line.as_str()].iter().chain(lines).copied().collect();
        let before = upstream.count();
        let response = send(&running, "POST", "/items", &lines);
        assert_eq!(response.denial(), (403, "route_denied".into()), "{lines:?}");
        assert_eq!(upstream.count(), before, "{lines:?}");
        response
    };
    denied(&[]);
    denied(&["Sec-Fetch-Site: cross-site"]);
    denied(&["Sec-Fetch-Site: same-site"]);
    denied(&["Sec-Fetch-Site: none"]);
    denied(&["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin"]);
    denied(&["Sec-Fetch-Site: cross-site", "Origin: https://oms.test"]);
    denied(&["Origin: null"]);
    denied(&["Origin: http://oms.test"]);
    denied(&["Origin: https://oms.test:8443"]);
    denied(&["Origin: https://oms.test", "Origin: https://oms.test"]);
    let response = denied(&["Origin: https://evil.test"]);
    assert!(response.json()["detail"].as_str().unwrap().contains("another site"), "{}", response.text());
    assert_eq!(running.metric("doorward_auth_failures_total", &["reason=\"route_denied\""]), 11.0);

    let allowed = |lines: &[&str]| {
        let lines: Vec<&str> = [line.as_str()].iter().chain(lines).copied().collect();
        let response = send(&running, "POST", "/items", &lines);
        assert_eq!(response.status, 200, "{lines:?}: {response:?}");
        response
    };
    allowed(&["Sec-Fetch-Site: same-origin"]);
    allowed(&["Sec-Fetch-Site: same-origin", "Origin: https://oms.test"]);
    allowed(&["Origin: https://oms.test"]);
    allowed(&["Origin: https://oms.test:443"]);
    let response = allowed(&["Sec-Fetch-Site: cross-site", "Origin: https://front.test"]);
    assert_eq!(response.field("access-control-allow-origin"), Some("https://front.test"));
    assert_eq!(response.field("access-control-allow-credentials"), Some("true"));

    // Reading is left to browsers, and a header is no cookie: no page of another site has it.
    let cross = &[line.as_str(), "Sec-Fetch-Site: cross-site", "Origin: https://evil.test"];
    let response = send(&running, "GET", "/items", cross);
    assert_eq!((response.status, response.field("access-control-allow-origin")), (200, None));
    let authorization = format!("Authorization: Bearer {}", issuer.with_roles("u-1", &["ROLE_EDITOR"]));
    assert_eq!(send(&running, "POST", "/items", &[&authorization, "Origin: https://evil.test"]).status, 200);
}

#[test]
fn t26_a_public_route_takes_another_sites_request_as_nobodys() {
    let (running, upstream, issuer) = guarded();
    let line = cookie(&issuer.viewer());
    assert_eq!(send(&running, "POST", "/public", &[&line, "Origin: https://evil.test"]).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), None);
    assert_eq!(upstream.last().field("cookie"), None);
    assert_eq!(send(&running, "POST", "/public", &[&line, "Origin: https://oms.test"]).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), Some("u-1"));
}

/// The example of RFC 6455 section 1.3.
const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

#[test]
fn t25_an_upgrade_with_a_cookie_comes_from_a_known_page() {
    let (running, upstream, issuer) = with("cors: { origins: [\"https://front.test\"], credentials: true }");
    let line = cookie(&issuer.viewer());
    let lines =
        |more: &[&'static str]| -> Vec<&str> { UPGRADE.iter().chain(more).copied().chain([line.as_str()]).collect() };
    for more in [&[][..], &["Origin: https://evil.test"], &["Sec-Fetch-Site: same-origin"], &["Origin: null"]] {
        let response = send(&running, "GET", "/items", &lines(more));
        assert_eq!(response.denial(), (403, "route_denied".into()), "{more:?}");
    }
    assert_eq!(upstream.count(), 0);

    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: __Host-session=forged\r\n\r\n";
    upstream.behave(Behaviour::Raw(switched.into()));
    for origin in ["Origin: https://oms.test", "Origin: https://front.test"] {
        let response = send(&running, "GET", "/items", &lines(&[origin]));
        assert_eq!(response.status, 101, "{origin}: {response:?}");
        assert_eq!(response.field("set-cookie"), None);
        let received = upstream.last();
        assert_eq!((received.field("cookie"), received.field("x-auth-method")), (None, Some("cookie")));
    }
}

#[test]
fn t25_a_websocket_over_http2_with_a_cookie_comes_from_a_known_page() {
    let (running, upstream, issuer) = guarded();
    let mine = format!("{COOKIE}={}", issuer.viewer());
    for (origin, status) in [(None, 403), (Some("https://evil.test"), 403), (Some("https://oms.test:8443"), 502)] {
        let fields = [("cookie", mine.as_str()), ("sec-websocket-version", "13"), ("sec-fetch-site", "same-origin")];
        let fields: Vec<_> = fields.into_iter().chain(origin.map(|origin| ("origin", origin))).collect();
        // The upstream is asked, and answers 200 and not 101: passed on, that would be a tunnel to the client.
        assert_eq!(over_http2(&running, "CONNECT", "/items", &fields), status, "{origin:?}");
        assert_eq!(upstream.count(), usize::from(status != 403), "{origin:?}");
    }
}

#[test]
fn t26_no_upstream_sees_the_cookie_and_the_others_pass() {
    let blog = "
version: 1
service: blog
upstream: oms
paths:
  /blog: { get: public }
";
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\ncredentials: {{ cookie: {COOKIE} }}\nforward_authorization: true\n");
    let running = doorward().policy(&policy).another_policy(blog).issuer(&issuer).upstream(&upstream).start();
    let token = issuer.viewer();
    for target in ["/items", "/public", "/blog"] {
        for (lines, left) in [
            (&[format!("Cookie: a=1; {COOKIE}={token}; b=\"2\"")][..], Some("a=1; b=\"2\"")),
            (&[cookie(&token)], None),
            (&[cookie(&token), "Cookie: c=3".to_owned()], Some("c=3")),
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(send(&running, "GET", target, &lines).status, 200);
            let received = upstream.last();
            assert_eq!(received.field("cookie"), left, "{target} {lines:?}");
            assert_eq!(received.field("authorization"), None, "nothing to forward");
            assert!(!received.text().contains(&token), "{}", received.text());
        }
    }
}

#[test]
fn t26_no_upstream_sets_the_cookie() {
    let (running, upstream, _) = guarded();
    upstream.behave(Behaviour::With(vec![
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "__Host-session=forged; Path=/; Secure"),
        ("Set-Cookie", "=__Host-session=forged; Path=/; Secure"),
        ("Set-Cookie", "__Host-session =forged"),
        ("Set-Cookie", "b=2"),
    ]));
    assert_eq!(running.get("/public").all("set-cookie"), ["a=1; Path=/", "b=2"]);
}

#[test]
fn t27_an_answer_that_depends_on_a_cookie_says_so() {
    let (running, upstream, issuer) = guarded();
    upstream.behave(Behaviour::With(vec![]));
    let token = issuer.viewer();
    for response in [send(&running, "GET", "/items", &[&cookie(&token)]), running.get_as("/items", &token)] {
        assert_eq!(response.field("cache-control"), Some("private"));
        assert_eq!(response.field("vary"), Some("Authorization, Cookie"));
    }
    assert_eq!(running.get("/public").field("vary"), None);
}

/// One request by HTTP/2 with prior knowledge, each header a field of its own; gives the status.
fn over_http2(running: &Doorward, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
    let uri = format!("http://oms.test:8443{target}");
    let mut request = http::Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    if method == "CONNECT" {
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(running.gateway).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        // Extended CONNECT is allowed once the server's settings are there.
        let client = client.ready().await.unwrap();
        for _ in 0..2_000 {
            if method != "CONNECT" || client.is_extended_connect_protocol_enabled() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    })
}

#[test]
fn t26_the_crumbs_of_http2_are_one_cookie_header() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.with_roles("u-1", &["ROLE_EDITOR"]);
    let mine = format!("{COOKIE}={token}");
    assert_eq!(over_http2(&running, "GET", "/items", &[("cookie", "a=1"), ("cookie", &mine), ("cookie", "b=2")]), 200);
    let received = upstream.last();
    assert_eq!(received.field("cookie"), Some("a=1; b=2"), "one line, as RFC 9113 section 8.2.3 says");
    assert_eq!(received.field("x-auth-method"), Some("cookie"));
    assert_eq!(received.field("x-forwarded-host"), Some("oms.test:8443"));
    assert!(!received.text().contains(&token));

    let count = upstream.count();
    assert_eq!(over_http2(&running, "GET", "/items", &[("cookie", &mine), ("cookie", &mine)]), 401);
    assert_eq!(over_http2(&running, "GET", "/items", &[("cookie", &mine), ("authorization", "Bearer x")]), 400);
    for origin in ["https://oms.test", "https://oms.test:8444", "https://evil.test"] {
        assert_eq!(over_http2(&running, "POST", "/items", &[("cookie", &mine), ("origin", origin)]), 403, "{origin}");
    }
    assert_eq!(upstream.count(), count);
    assert_eq!(over_http2(&running, "POST", "/items", &[("cookie", &mine), ("origin", "https://oms.test:8443")]), 200);
}
