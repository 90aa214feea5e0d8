//! Named cases, and the law that pieces make no difference.

use proptest::prelude::*;

use super::*;

fn read(body: &[u8]) -> Result<Progress, Rejection> {
    ChunkedReader::default().feed(body)
}

#[test]
fn a_body_ends_where_its_trailers_end() {
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "A\r\nhelloworld\r\n0\r\nX-Checksum: abc\r\n\r\n",
        "a;b;c=d;e=\"f\\\"\\\\;\"\r\nhelloworld\r\n000\r\n\r\n",
        "0\r\nA:\r\nB: \t\r\n\r\n",
        "0000000000000001\r\nx\r\n0;last\r\n\r\n",
    ] {
        assert_eq!(read(body.as_bytes()), Ok(Progress::Done(body.len())), "{body:?}");
        assert_eq!(read(format!("{body}GET /").as_bytes()), Ok(Progress::Done(body.len())), "{body:?}");
        for end in 0..body.len() {
            assert_eq!(read(&body.as_bytes()[..end]), Ok(Progress::More), "{body:?} up to {end}");
        }
    }
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    for body in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+5\r\n",
        " 5\r\n",
        "5 \r\n",
        "0x5\r\n",
        "1_0\r\n",
        "5\n",
        "5\rx",
        "FFFFFFFFFFFFFFFF0\r\n",
        "00000000000000005",
        "5;\r",
        "5;\n",
        "5; a",
        "5;a =b",
        "5;bad[=x",
        "5;\0",
        "5;a\rX",
        "5;a=\r",
        "5;a=\"b\"c",
        "5;a=\"\n",
        "5\r\nhello0",
        "5\r\nhello!!",
        "5\r\nhello\n",
        "5\r\nhello\rx",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\n X: y",
        "0\r\n: y",
        "0\r\nX : y",
        "0\r\nX: y\n",
        "0\r\nX: y\rz",
        "0\r\nX: y\r\n folded",
        "0\r\nX\r\n",
        "0\r\nX: \0",
    ] {
        assert!(read(body.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn trailers_never_frame_route_or_authenticate() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Authorization",
        "content_length",
        "Transfer.Encoding",
        "TE",
        "Cookie",
    ] {
        assert!(read(format!("0\r\n{name}: x\r\n\r\n").as_bytes()).is_err(), "{name}");
    }
    for name in ["Content-Lengths", "Hos", "X-Host", "Transfer-Encodings", "Transfer-Encoding-Of-Old", "grpc-status"] {
        assert!(read(format!("0\r\n{name}: x\r\n\r\n").as_bytes()).is_ok(), "{name}");
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extension = |length: usize| read(format!("5;{}\r\n", "a".repeat(length)).as_bytes());
    assert!(extension(LONGEST_EXTENSION - 1).is_ok());
    assert!(extension(LONGEST_EXTENSION).is_err());
    let one = "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
    assert!(read(format!("0\r\n{}\r\n", one.repeat(LONGEST_TRAILERS / one.len())).as_bytes()).is_ok());
    assert!(read(format!("0\r\n{}\r\n", one.repeat(LONGEST_TRAILERS / one.len() + 1)).as_bytes()).is_err());
    assert!(read(format!("0\r\n{}", "a".repeat(LONGEST_TRAILERS + 1)).as_bytes()).is_err());
}

#[test]
fn the_end_and_an_error_are_final() {
    let mut reader = ChunkedReader::default();
    assert_eq!(reader.feed(b"3\r\nabc\r\n0\r\n\r\nrest"), Ok(Progress::Done(13)));
    assert_eq!(reader.feed(b"more"), Ok(Progress::Done(0)));
    assert_eq!(reader.data_bytes(), 3);
    let mut reader = ChunkedReader::default();
    assert!(reader.feed(b"x").is_err());
    assert!(reader.feed(b"0\r\n\r\n").is_err());
}

/// The whole body at once, by splitting at line ends.
fn naive(body: &[u8]) -> Option<usize> {
    let text: String = body.iter().copied().map(char::from).collect();
    let mut at = 0;
    loop {
        let line_end = at + text[at..].find("\r\n")?;
        let line = &text[at..line_end];
        let digits = line.split(';').next()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = line_end + 2;
        if size == 0 {
            break;
        }
        at += size;
        if text.get(at..at + 2)? != "\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let line_end = at + text[at..].find("\r\n")?;
        let line = &text[at..line_end];
        at = line_end + 2;
        if line.is_empty() {
            return Some(at);
        }
        line.split_once(':')?;
    }
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let chunk =
        (prop::collection::vec(0_u8..128, 1..40), prop::sample::select(vec!["", ";a", ";a=b", ";a=\"q;\\\"\""]))
            .prop_map(|(data, extension)| {
                [format!("{:x}{extension}\r\n", data.len()).into_bytes(), data, b"\r\n".to_vec()].concat()
            });
    let trailers = prop::sample::select(vec!["", "X: y\r\n", "A: b\r\nLonger-Than-Any-Forbidden-Name: d e\r\n"]);
    let rest = prop::sample::select(vec!["", "GET / HTTP/1.1\r\n\r\n"]);
    (prop::collection::vec(chunk, 0..6), trailers, rest).prop_map(|(chunks, trailers, rest)| {
        [chunks.concat(), format!("0\r\n{trailers}\r\n{rest}").into_bytes()].concat()
    })
}

/// Feeds the stream in pieces: where the body ended, or that it did not, or that it was refused.
fn in_pieces(body: &[u8], cuts: &[prop::sample::Index]) -> Option<Option<usize>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
    cuts.sort_unstable();
    let mut reader = ChunkedReader::default();
    for window in cuts.windows(2) {
        match reader.feed(&body[window[0]..window[1]]) {
            Ok(Progress::More) => {}
            Ok(Progress::Done(n)) => return Some(Some(window[0] + n)),
            Err(_) => return None,
        }
    }
    Some(None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn pieces_make_no_difference(body in bodies(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        prop_assert_eq!(in_pieces(&body, &[]), Some(naive(&body)));
        prop_assert_eq!(in_pieces(&body, &cuts), in_pieces(&body, &[]));
    }

    /// One byte changed anywhere: whatever it means, it means it in pieces too, and what is accepted whole is what the naive reader says.
    #[test]
    fn damage_means_the_same_in_pieces(mut body in bodies(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let at = at.index(body.len());
        body[at] = byte;
        let whole = in_pieces(&body, &[]);
        prop_assert_eq!(in_pieces(&body, &cuts), whole);
        if let Some(Some(end)) = whole && body.is_ascii() {
            prop_assert_eq!(naive(&body), Some(end));
        }
    }

    #[test]
    fn no_bytes_panic(body in any::<Vec<u8>>()) {
        let _ = read(&body);
    }
}
