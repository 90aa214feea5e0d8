//! Named heads, accepted and refused.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, headers: 100 };

fn look(head: &str) -> Result<HeadFacts, Rejection> {
    inspect(head.as_bytes(), &LIMITS)
}

/// A POST with these further header lines.
fn post(lines: &str) -> Result<HeadFacts, Rejection> {
    look(&format!("POST / HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n"))
}

/// A GET of this target with this Host.
fn get(target: &str, host: &str) -> Result<HeadFacts, Rejection> {
    look(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

#[test]
fn an_ordinary_head_is_understood() {
    let facts =
        look("GET /a?b=c HTTP/1.1\r\nhost:a.example\r\nAccept: */*\r\nX-Empty:\r\nX-High: \u{e9}\r\n\r\n").unwrap();
    let expected = HeadFacts { framing: Framing::None, upgrade: false, expects: Expectation::Nothing };
    assert_eq!(facts, expected);
    assert_eq!(post("Content-Length: 5\r\n").unwrap().framing, Framing::Length(5));
    assert_eq!(post("Content-Length: 0\r\n").unwrap().framing, Framing::None);
    assert_eq!(post("content-length:18446744073709551615\r\n").unwrap().framing, Framing::Length(u64::MAX));
    assert_eq!(post("Transfer-Encoding: \tChunked \r\n").unwrap().framing, Framing::Chunked);
    assert_eq!(post("Expect: 100-Continue\r\nContent-Length: 5\r\n").unwrap().expects, Expectation::Continue);
    for other in
        ["Expect: 200-ok\r\n", "Expect:\r\n", "Expect: x\r\nExpect: 100-continue\r\n", "Expect: 100-continue, x\r\n"]
    {
        assert_eq!(post(other).unwrap().expects, Expectation::Other, "{other}");
    }
}

#[test]
fn http10_is_understood() {
    assert!(look("GET / HTTP/1.0\r\n\r\n").is_ok());
    let expecting = look("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    assert_eq!(expecting.expects, Expectation::Nothing);
    assert!(look("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    assert!(look("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").is_err());
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 1 0\r\n",
        "Content-Length: 005\r\n",
        "Content-Length: 00\r\n",
        "Content-Length:\r\n",
        "Content-Length: \r\n",
        "Content-Length: 5 \r\n",
        "Content-Length:  5\r\n",
        "Content-Length:\t5\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 5\r\n",
        "Content_Length: 5\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Transfer.Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked;x=y\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        assert_eq!(post(lines).expect_err(lines).reason, Reason::BadRequest, "{lines:?}");
    }
}

#[test]
fn lines_and_names_are_as_rfc_9112_says() {
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
        "G[T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\tz\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX[: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "",
        "\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    ] {
        assert_eq!(look(head).expect_err(head).reason, Reason::BadRequest, "{head:?}");
    }
}

#[test]
fn targets_take_one_of_the_four_forms() {
    for target in
        ["/", "/a?b", "http://a.example/", "http://a.example", "HTTP://A.EXAMPLE:80/x?y", "https://a.example.:443/"]
    {
        assert!(get(target, "a.example").is_ok(), "{target}");
    }
    assert!(look("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    assert!(look("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").is_ok());
    for target in [
        "*",
        "a",
        "a:443",
        "ftp://a.example/",
        "/a#b",
        "/caf\u{e9}",
        "/a\0",
        "http:/a",
        "http://a.example?x",
        "//a.example\u{7f}",
    ] {
        assert_eq!(get(target, "a.example").expect_err(target).reason, Reason::BadRequestTarget, "{target:?}");
    }
    for target in [
        "http://",
        "http://b.example/",
        "http://u@a.example/",
        "http://a.example:81/",
        "https://a.example:80/",
        "/a b",
        "http:///a",
    ] {
        assert_eq!(get(target, "a.example").expect_err(target).reason, Reason::BadRequest, "{target}");
    }
    assert!(look("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
    assert!(look("CONNECT b:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").is_err());
}

#[test]
fn t24_a_head_names_exactly_one_good_host() {
    assert!(get("/", "A.example.:8090").is_ok());
    for host in ["", "a@b", "a, b", "a/b", "b\u{fc}cher", "a:x", "a b"] {
        assert_eq!(get("/", host).expect_err(host).reason, Reason::BadRequest, "{host:?}");
    }
    assert!(look("GET / HTTP/1.1\r\n\r\n").is_err());
    assert!(look("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n").is_err());
    assert!(look("GET http://a/ HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn t25_only_a_websocket_get_is_an_upgrade() {
    let websocket = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    assert!(look(websocket).unwrap().upgrade);
    for (from, to) in [
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        (", Upgrade", ""),
        ("WebSocket", "h2c"),
        ("WebSocket", "websocket, h2c"),
        ("\r\n\r\n", "\r\nUpgrade: websocket\r\n\r\n"),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n"),
    ] {
        assert!(!look(&websocket.replace(from, to)).unwrap().upgrade, "{to}");
    }
}

#[test]
fn heads_are_bounded() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(LIMITS.bytes));
    assert_eq!(look(&long).unwrap_err().reason, Reason::HeadersTooLarge);
    let many = |n: usize| look(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1)));
    assert!(many(100).is_ok());
    assert_eq!(many(101).unwrap_err().reason, Reason::HeadersTooLarge);
    // What does not even begin like HTTP is no large header.
    assert_eq!(overflow(&[b'A'; 40_000]).reason, Reason::BadRequest);
    assert_eq!(overflow(b" GET").reason, Reason::BadRequest);
    assert_eq!(overflow(b"GET /").reason, Reason::HeadersTooLarge);
    assert_eq!(
        look(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(33))).unwrap_err().reason,
        Reason::BadRequest
    );
}

#[test]
fn the_end_is_found_behind_any_line_ending() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\r\n\r\n",
        "   \r\n\r\n",
    ] {
        let stream = format!("{head}body\r\n\r\n");
        for from in 0..=head.len() - 1 {
            assert_eq!(end(stream.as_bytes(), from), Some(head.len()), "{head:?} from {from}");
        }
        for incomplete in 0..head.len() {
            assert_eq!(end(&head.as_bytes()[..incomplete], 0), None, "{head:?}");
        }
    }
    assert_eq!(end(b"", 0), None);
    assert_eq!(end(b"x", 9), None);
}

proptest! {
    /// Told how much was seen before, it finds the same end.
    #[test]
    fn a_head_ends_alike_in_pieces(parts in prop::collection::vec(prop::sample::select(vec!["\r", "\n", "a", "\r\n"]), 0..20), cut in any::<prop::sample::Index>()) {
        let stream = parts.concat();
        let cut = cut.index(stream.len() + 1);
        let whole = end(stream.as_bytes(), 0);
        let in_pieces = end(&stream.as_bytes()[..cut], 0).or_else(|| end(stream.as_bytes(), cut));
        prop_assert_eq!(in_pieces, whole);
    }

    /// What is accepted is, to an independent reader, one request line and well-formed header lines.
    #[test]
    fn what_is_accepted_reads_one_way(at in any::<prop::sample::Index>(), byte in any::<u8>(), body in prop::sample::select(vec!["Content-Length: 12", "Transfer-Encoding: chunked", "X-A: b"])) {
        let mut head = format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{body}\r\nX-B: c d\r\n\r\n").into_bytes();
        let at = at.index(head.len());
        head[at] = byte;
        if inspect(&head, &LIMITS).is_ok() {
            prop_assert_eq!(end(&head, 0), Some(head.len()));
            let text: String = head.iter().copied().map(char::from).collect();
            let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
            prop_assert_eq!(lines.next().unwrap().split(' ').count(), 3);
            for line in lines {
                prop_assert!(!line.contains(['\r', '\n', '\0']));
                let (name, _) = line.split_once(':').unwrap();
                prop_assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }

    #[test]
    fn no_bytes_panic(head in any::<Vec<u8>>(), from in 0_usize..100) {
        let _ = (inspect(&head, &LIMITS), end(&head, from), overflow(&head));
    }
}
