//! What was matched is, byte for byte, what is forwarded; whatever could be read in two ways is refused (SPEC 3.2; T24, T29).

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Doorward, Issuer, Upstream, doorward};

const OPEN: &str = "
version: 1
service: oms
upstream: oms
paths:
  /:
    '*': public
  /{rest...}:
    '*': public
  /private/{rest...}:
    '*': deny
";

fn open() -> (Doorward, Upstream) {
    let upstream = Upstream::echo();
    let running = doorward().policy(OPEN).issuer(&Issuer::hs256()).upstream(&upstream).start();
    (running, upstream)
}

#[test]
fn what_is_forwarded_is_the_cleaned_target() {
    let (running, upstream) = open();
    for (sent, forwarded) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a?", "/a?"),
        ("/a?b=c&b=%2e%2E/../;", "/a?b=c&b=%2e%2E/../;"),
        ("/%61", "/a"),
        ("/%7Euser/%2Dx%5f", "/~user/-x_"),
        ("/%3a%40", "/%3A%40"),
        ("/a%20b", "/a%20b"),
        ("/%e4%bd%a0", "/%E4%BD%A0"),
        ("/a:b@c!$&'()*+,=d", "/a:b@c!$&'()*+,=d"),
        ("/...", "/..."),
        ("/.a/b.", "/.a/b."),
        ("http://oms.test/a?x", "/a?x"),
        ("http://oms.test", "/"),
    ] {
        let response = running.get(sent);
        assert_eq!(response.status, 200, "{sent}: {response:?}");
        assert_eq!(upstream.last().target, forwarded, "{sent}");
    }
}

#[test]
fn targets_that_two_parsers_could_read_differently_are_refused() {
    let (running, upstream) = open();
    for target in [
        "/.",
        "/..",
        "/a/../private/x",
        "/a/./b",
        "/%2e%2e/x",
        "/.%2E/x",
        "/a/%2e",
        "//",
        "//a",
        "/a//b",
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%3Fb",
        "/a%23b",
        "/a%25b",
        "/a%252e",
        "/%2525",
        "/a;b",
        "/a;b=c/d",
        "/a%3Bb",
        "/%",
        "/%4",
        "/%zz",
        "/%00",
        "/%0a",
        "/%0D%0A",
        "/%1f",
        "/%7f",
        "/%c0%af",
        "/%c0%ae%c0%ae/",
        "/%e0%80%af",
        "/a#b",
        "/#",
        "a",
        "?",
        "*",
        "/\u{e9}",
        "http:///a",
        "http://oms.test/../a",
    ] {
        let response = running.get(target);
        assert_eq!(response.status, 400, "{target}: {response:?}");
    }
    for raw in [
        &b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"Get / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(running.send(raw).status, 400, "{}", raw.escape_ascii());
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn no_spelling_of_a_closed_path_reaches_the_upstream() {
    let (running, upstream) = open();
    for target in [
        "/private/x",
        "/%70rivate/x",
        "/pr%69vate/x",
        "/private/%78",
        "/private/x?y",
        "http://oms.test/private/x",
        "/%50rivate/../private/x",
    ] {
        assert!(matches!(running.get(target).status, 400 | 403), "{target}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(running.get("/Private/x").status, 200, "case is significant by default");
    assert_eq!(running.get("/private/").status, 200, "{{rest...}} takes one byte or more");
}

/// The rule of SPEC 3.2 said once more, as simply as can be: unreserved escapes decoded, others in upper case.
fn cleaned(target: &str) -> Option<String> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut bytes = path.bytes();
    let mut clean = String::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            clean.push(char::from(byte));
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let decoded = u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
        match decoded {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => clean.push(char::from(decoded)),
            _ => clean += &format!("%{decoded:02X}"),
        }
    }
    Some(clean + query)
}

const PIECES: [&str; 34] = [
    "/", "a", "Z", "..", ".", "%2e", "%2E", "%2f", "%2F", "%5c", "%41", "%7e", "%3a", "%3A", "%25", "%20", "%c3%a9",
    "%00", ";", "?", "=", "&", ":", "@", "~", "//", "%", "%6", "private", "%70", "\\", "+", "*", "!",
];

#[test]
fn generated_targets_are_refused_or_forwarded_clean() {
    let (running, upstream) = open();
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let targets = prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12)
        .prop_map(|pieces| format!("/{}", pieces.concat()));
    let law = |target: String| {
        let before = upstream.count();
        let status = running.get(&target).status;
        if status != 200 {
            prop_assert!(matches!(status, 400 | 403), "{} gave {}", target, status);
            prop_assert_eq!(upstream.count(), before, "{} was refused and forwarded", target);
            return Ok(());
        }
        let received = upstream.last().target;
        prop_assert_eq!(Some(received.clone()), cleaned(&target));
        let path = received.split('?').next().unwrap_or_default();
        prop_assert!(!path.starts_with("/private/") || path == "/private/", "{}", received);
        for segment in path[1..].split('/') {
            prop_assert!(segment != "." && segment != "..", "{}", received);
        }
        for odd in ["//", "%2F", "%5C", "%25", "%3F", "%23", "%3B", "%00", ";", "\\"] {
            prop_assert!(!path.contains(odd), "{} in {}", odd, received);
        }
        Ok(())
    };
    if let Err(failure) = runner.run(&targets, law) {
        panic!("{failure}");
    }
}

#[test]
fn a_policy_loosens_what_its_service_needs() {
    let upstream = Upstream::echo();
    let policy = format!(
        "{OPEN}\npath: {{dot_segments: resolve, double_slash: merge, matrix_params: keep, encoded_slash: keep}}\n"
    );
    let running = doorward().policy(&policy).issuer(&Issuer::hs256()).upstream(&upstream).start();
    for (sent, forwarded) in
        [("/a/../b", "/b"), ("/a//b", "/a/b"), ("/a;v=1/b", "/a;v=1/b"), ("/a%2fb", "/a%2Fb"), ("/../../a", "/a")]
    {
        assert_eq!(running.get(sent).status, 200, "{sent}");
        assert_eq!(upstream.last().target, forwarded, "{sent}");
    }
    let before = upstream.count();
    for closed in ["/a/../private/x", "/private;v=1/x", "//private//x", "/%2e%2e/private/x"] {
        assert_eq!(running.get(closed).denial(), (403, "route_denied".into()), "{closed}");
    }
    assert_eq!(running.get("/a/..%2Fprivate/x").status, 400, "a segment that would hold .. once decoded");
    assert_eq!(upstream.count(), before);
}

#[test]
fn t24_a_host_is_compared_without_case_port_and_one_trailing_dot() {
    let upstream = Upstream::echo();
    let policies = [
        "{version: 1, service: one, upstream: oms, hosts: [oms.example.com], paths: {/x: {get: deny}, /one: {get: public}}}",
        "{version: 1, service: two, upstream: oms, hosts: ['*.example.com'], paths: {/x: {get: public}, /two: {get: public}}}",
        "{version: 1, service: any, upstream: oms, paths: {/x: {get: public}, /any: {get: public}}}",
    ];
    let [one, two, any] = policies;
    let running = doorward()
        .policy(one)
        .another_policy(two)
        .another_policy(any)
        .issuer(&Issuer::hs256())
        .upstream(&upstream)
        .start();
    let status =
        |host: &str, target: &str| running.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    for host in
        ["oms.example.com", "OMS.Example.COM", "oms.example.com.", "oms.example.com:8090", "oms.example.com.:80"]
    {
        assert_eq!((status(host, "/one"), status(host, "/x")), (200, 403), "{host} falls to no looser file");
        assert_eq!((status(host, "/two"), status(host, "/any")), (403, 403), "{host}");
    }
    for host in ["a.example.com", "a.b.example.com."] {
        assert_eq!((status(host, "/two"), status(host, "/one")), (200, 403), "{host}");
    }
    for host in ["example.com", "other.test", "xexample.com"] {
        assert_eq!((status(host, "/any"), status(host, "/two")), (200, 403), "{host}");
    }
    let before = upstream.count();
    for host in [
        "user@oms.example.com",
        "oms.example.com:x",
        "oms.example.com/",
        "a b",
        "ex\u{e4}mple.com",
        "",
        "oms..example.com:80:80",
        "[::1",
    ] {
        assert_eq!(status(host, "/any"), 400, "{host}");
    }
    assert_eq!(upstream.count(), before);
}

#[test]
fn t24_two_hosts_or_two_truths_about_the_host_are_refused() {
    let (running, upstream) = open();
    for head in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n",
        "GET / HTTP/1.1\r\n",
        "GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n",
        "GET http://user@a.test/ HTTP/1.1\r\nHost: a.test\r\n",
    ] {
        assert_eq!(running.send(format!("{head}\r\n")).status, 400, "{head}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn t24_the_upstream_gets_the_listed_host_or_its_own() {
    let upstream = Upstream::echo();
    let named = "{version: 1, service: one, upstream: oms, hosts: [oms.example.com], paths: {/: {get: public}}}";
    let running = doorward().policy(named).another_policy(OPEN).issuer(&Issuer::hs256()).upstream(&upstream).start();
    running.send("GET / HTTP/1.1\r\nHost: OMS.example.com.:99\r\n\r\n");
    assert_eq!(upstream.last().field("host"), Some("oms.example.com"));
    running.send("GET / HTTP/1.1\r\nHost: chosen-by-a-stranger.test\r\n\r\n");
    assert_eq!(upstream.last().field("host"), Some(upstream.address.to_string().as_str()));
}

#[test]
fn t24_an_endpoint_that_is_doorward_itself_is_refused_at_start() {
    let [port] = crate::harness::free_ports();
    let own = format!("http://127.0.0.1:{port}");
    let failed = doorward()
        .setting("gateway.listen", format!("127.0.0.1:{port}"))
        .setting("upstreams.oms.endpoints", vec![own])
        .issuer(&Issuer::hs256())
        .fails();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("upstreams.oms"), "{}", failed.stderr);
}

const BY_ADDRESS: &str = "
version: 1
service: oms
upstream: oms
paths:
  /open: {get: public}
  /office:
    get: { all: [authenticated, { client: [203.0.113.0/24] }] }
";

#[test]
fn t29_forwarding_headers_of_strangers_are_replaced() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().policy(BY_ADDRESS).issuer(&issuer).upstream(&upstream).start();
    let token = issuer.viewer();
    for forged in ["203.0.113.9", "203.0.113.9, 203.0.113.10", "no address"] {
        let fields = [
            ("X-Forwarded-For", forged),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "forged.test"),
            ("Forwarded", "for=203.0.113.9"),
        ];
        assert_eq!(
            running.request("GET", "/office", &token, &fields, "").denial(),
            (403, "permission_missing".into()),
            "{forged}"
        );
        assert_eq!(running.request("GET", "/open", &token, &fields, "").status, 200, "not believed, hence not judged");
        let received = upstream.last();
        assert_eq!(received.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(received.field("x-forwarded-proto"), Some("http"));
        assert_eq!(received.field("x-forwarded-host"), Some("oms.test"));
        assert!(!received.field("forwarded").unwrap_or_default().contains("203.0.113"), "{}", received.text());
    }
}

#[test]
fn t29_a_trusted_proxys_chain_is_read_from_the_right() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward()
        .policy(BY_ADDRESS)
        .issuer(&issuer)
        .upstream(&upstream)
        .setting("gateway.trusted_proxies", vec!["127.0.0.0/8", "10.0.0.0/8"])
        .start();
    let token = issuer.viewer();
    for (chain, status) in [
        ("203.0.113.9", 200),
        ("203.0.113.9, 10.1.2.3", 200),
        ("198.51.100.1, 203.0.113.9, 10.1.2.3,127.0.0.1", 200),
        ("203.0.113.9, 198.51.100.1", 403),
        ("203.0.113.9, 198.51.100.1, 10.1.2.3", 403),
        ("10.1.2.3", 403),
        ("203.0.113.9, what", 400),
        ("203.0.113.9,,10.1.2.3", 400),
        ("203.0.113.9, 203.0.113.999", 400),
    ] {
        let response = running.request("GET", "/office", &token, &[("X-Forwarded-For", chain)], "");
        assert_eq!(response.status, status, "{chain}: {response:?}");
    }
    let split = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "198.51.100.1")];
    assert_eq!(running.request("GET", "/office", &token, &split, "").status, 403, "all occurrences are one list");

    let kept = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Request-Id", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ];
    let response = running.request("GET", "/office", &token, &kept, "");
    let received = upstream.last();
    assert_eq!(received.field("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(received.field("x-request-id"), Some(kept[2].1));
    assert_eq!(response.field("x-request-id"), Some(kept[2].1));
    let spaced = [("X-Request-Id", "not well formed\t")];
    running.request("GET", "/open", &token, &spaced, "");
    assert_ne!(upstream.last().field("x-request-id"), Some("not well formed"));
}

#[test]
fn t29_trusting_everyone_must_be_said_in_words() {
    let failed = doorward().issuer(&Issuer::hs256()).setting("gateway.trusted_proxies", vec!["0.0.0.0/0"]).fails();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("dangerous_trust_everyone"), "{}", failed.stderr);
}
