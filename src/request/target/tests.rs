//! Named cases, and the laws of cleaning.

use proptest::prelude::*;

use super::*;

const STRICT: PathRules = PathRules {
    dot_segments: DotSegments::Refuse,
    double_slash: DoubleSlash::Refuse,
    matrix_params: MatrixParams::Refuse,
    encoded_slash: EncodedSlash::Refuse,
    encoded_reserved: EncodedReserved::Refuse,
    case: Case::Sensitive,
    trailing_slash: TrailingSlash::Distinct,
};

const RESOLVE: PathRules = PathRules { dot_segments: DotSegments::Resolve, ..STRICT };
const MERGE: PathRules = PathRules { double_slash: DoubleSlash::Merge, ..STRICT };
const MATRIX: PathRules = PathRules { matrix_params: MatrixParams::Keep, ..STRICT };
const SLASH: PathRules = PathRules { encoded_slash: EncodedSlash::Keep, ..STRICT };
const RESERVED: PathRules = PathRules { encoded_reserved: EncodedReserved::Keep, ..STRICT };
const SAME: PathRules = PathRules { trailing_slash: TrailingSlash::Same, ..STRICT };
const LOOSE: PathRules = PathRules {
    dot_segments: DotSegments::Resolve,
    double_slash: DoubleSlash::Merge,
    matrix_params: MatrixParams::Keep,
    encoded_slash: EncodedSlash::Keep,
    encoded_reserved: EncodedReserved::Keep,
    case: Case::Insensitive,
    trailing_slash: TrailingSlash::Same,
};

fn cleaned(target: &str, rules: &PathRules) -> Option<String> {
    clean(target, rules).ok().map(|clean| clean.path_and_query().to_owned())
}

fn segments(clean: &CleanTarget<'_>) -> Vec<Vec<u8>> {
    match clean.match_path() {
        MatchPath::Plain(path) => path[1..].split('/').map(|s| s.as_bytes().to_vec()).collect(),
        MatchPath::Decoded(segments) => segments.iter().map(|s| s.to_vec()).collect(),
    }
}

fn matched(target: &str, rules: &PathRules) -> Vec<String> {
    let clean = clean(target, rules).unwrap();
    segments(&clean).into_iter().map(|s| String::from_utf8(s).unwrap()).collect()
}

#[test]
fn plain_targets_are_borrowed_and_unchanged() {
    for target in [
        "/",
        "/a",
        "/a/",
        "/api/v1/schema/42?x=1",
        "/a.b/c..d/...",
        "/.well-known/x",
        "/~u/@me/a:b,c=d&e",
        "/?",
        "/a??b/../c//",
    ] {
        let clean = clean(target, &STRICT).unwrap();
        assert!(matches!(clean.forward, Cow::Borrowed(_)), "{target}");
        assert_eq!(clean.path_and_query(), target);
        assert!(matches!(clean.match_path(), MatchPath::Plain(path) if path == clean.path()), "{target}");
    }
}

#[test]
fn unreserved_escapes_are_decoded_once_and_the_rest_is_upper_case() {
    assert_eq!(cleaned("/%61%2d%2E%5f%7e%30b", &STRICT).unwrap(), "/a-._~0b");
    assert_eq!(cleaned("/a%3ab%20c?%3a", &STRICT).unwrap(), "/a%3Ab%20c?%3a");
    assert_eq!(cleaned("/caf%c3%a9", &STRICT).unwrap(), "/caf%C3%A9");
}

#[test]
fn a_literal_is_compared_with_the_decoded_segment() {
    assert_eq!(matched("/a%3Ab/c%20d/", &STRICT), ["a:b", "c d", ""]);
    assert_eq!(matched("/a%2fb/c", &SLASH), ["a/b", "c"]);
    assert_eq!(matched("/a;v=1;w/b;x", &MATRIX), ["a", "b"]);
    assert_eq!(matched("/a%3Bv", &RESERVED), ["a;v"]);
    assert_eq!(matched("/caf%C3%A9", &STRICT), ["caf\u{e9}"]);
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    for target in [
        // no path
        "",
        "*",
        "a",
        "a/b",
        "?x",
        "http://h/",
        "%2Fa",
        // raw bytes
        "/a b",
        "/a\tb",
        "/a\u{7f}",
        "/a\0",
        "/caf\u{e9}",
        "/a\\b",
        "/a#b",
        "/a?x#y",
        "/a?x y",
        "/a?\u{e9}",
        "/\r\n",
        // bad escapes
        "/%",
        "/%4",
        "/%g1",
        "/%1g",
        "/a%",
        "/%u002e",
        "/%%34%31",
        // encoded control characters
        "/%00",
        "/a%0d%0a",
        "/%1f",
        "/%7F",
        "/%c2%85",
        // overlong and double encoding
        "/%c0%ae",
        "/%c0%af",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%ff",
        "/%c3",
        "/%ed%a0%80",
        "/%c3/%a9",
        "/%252e",
        "/%25",
        // dot segments
        "/.",
        "/..",
        "/a/.",
        "/a/..",
        "/./a",
        "/../a",
        "/a/../b",
        "/%2e",
        "/a/%2e%2E/b",
        "/a/.%2e",
        "/a/%2e.",
        "/..;x",
        "/..;/a",
        "/.;a=b/",
        // slashes
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/a%2fb",
        "/a%2F..",
        "/..%2fa",
        // encoded delimiters and parameters
        "/a%5cb",
        "/a%3fb",
        "/a%23b",
        "/a%3bb",
        "/a;b",
        "/a;",
        "/;",
    ] {
        let rejection = clean(target, &STRICT).expect_err(target);
        assert_eq!(rejection.reason, crate::reason::Reason::BadRequestTarget, "{target}");
    }
}

#[test]
fn a_refusal_says_what_was_found_where() {
    for (target, detail) in [
        ("/ab%2Fc", "an encoded slash at byte 3"),
        ("/ab%3Bc", "an encoded `;` at byte 3"),
        ("/ab//c", "repeated slashes at byte 3"),
        ("/ab/../c", "a dot segment at byte 4"),
        ("/ab\\c", "a raw backslash at byte 3"),
        ("/a?b#c", "a raw `#` at byte 4"),
        ("/a%0a", "an encoded control character at byte 2"),
        ("/a;b", "`;` parameters at byte 2"),
        ("/a%4", "a bad escape at byte 2"),
    ] {
        assert_eq!(clean(target, &STRICT).unwrap_err().detail, detail, "{target}");
    }
}

#[test]
fn dot_segments_are_resolved_as_rfc_3986_says() {
    for (target, result) in [
        ("/a/b/c/./../../g", "/a/g"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/b/../", "/a/"),
        ("/..", "/"),
        ("/.", "/"),
        ("/../../a", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/..?x=/../", "/?x=/../"),
        ("/a/.../b", "/a/.../b"),
        ("/a/..b/c..", "/a/..b/c.."),
        ("/a/b/../..", "/"),
    ] {
        assert_eq!(cleaned(target, &RESOLVE).as_deref(), Some(result), "{target}");
    }
    // Repeated slashes are not lifted by it, not even those that resolving would take away.
    assert_eq!(cleaned("/a//../b", &RESOLVE), None);
    // Tomcat drops the parameters before it resolves.
    for target in ["/a/..;x/b", "/a/..;/b", "/a/.;x=y/b", "/a/%2e%2e;x"] {
        assert_eq!(cleaned(target, &PathRules { matrix_params: MatrixParams::Keep, ..RESOLVE }), None, "{target}");
    }
}

#[test]
fn repeated_slashes_are_merged_after_resolving() {
    for (target, result) in [("//a///b//", "/a/b/"), ("//", "/"), ("/a?b=//c", "/a?b=//c"), ("//a", "/a")] {
        assert_eq!(cleaned(target, &MERGE).as_deref(), Some(result), "{target}");
    }
    assert_eq!(cleaned("/a/../b", &MERGE), None);
    let both = PathRules { double_slash: DoubleSlash::Merge, ..RESOLVE };
    for (target, result) in [
        ("/a//../b", "/a/b"),
        ("/..///b///", "/b/"),
        ("//..", "/"),
        ("//.", "/"),
        ("/a//.", "/a/"),
        ("/a//..", "/a/"),
        ("/a/..//", "/"),
    ] {
        assert_eq!(cleaned(target, &both).as_deref(), Some(result), "{target}");
    }
}

#[test]
fn a_kept_escape_never_hides_a_dot_segment() {
    for target in [
        "/a%2F..",
        "/..%2Fa",
        "/a%2F..%2Fb",
        "/a%2f%2e%2e%2fb",
        "/a%2F.",
        "/a%5C..",
        "/..%5Cb",
        "/..%3Bx",
        "/..%3Fx",
        "/..%23x",
        "/a%2F..;x",
        "/a;x=%2F..",
        "/a%2F..%3Bx",
        "/%252e",
        "/%25%32%65",
        "/%25%2541",
        "/a%252F",
    ] {
        assert_eq!(cleaned(target, &LOOSE), None, "{target}");
    }
    assert_eq!(cleaned("/a%2f%2Fb", &LOOSE).unwrap(), "/a%2F%2Fb");
    assert_eq!(cleaned("/100%25", &LOOSE).unwrap(), "/100%25");
    assert_eq!(cleaned("/100%25-a", &LOOSE).unwrap(), "/100%25-a");
    assert_eq!(matched("/%5c%25%3f", &LOOSE), ["\\%?"]);
}

#[test]
fn matrix_parameters_are_matched_without_and_forwarded_with() {
    assert_eq!(cleaned("/a;v=1/b;w;x", &MATRIX).unwrap(), "/a;v=1/b;w;x");
    assert_eq!(matched("/;jsessionid=1", &MATRIX), [""]);
    assert_eq!(matched("/a/;jsessionid=1", &MATRIX), ["a", ""]);
    // Without its parameters this is `//b`.
    assert_eq!(cleaned("/a/;x/b", &LOOSE), None);
    assert_eq!(cleaned("/;x/b", &LOOSE), None);
}

#[test]
fn a_trailing_slash_may_be_ignored_and_is_forwarded() {
    assert_eq!(matched("/a/", &SAME), ["a"]);
    assert_eq!(matched("/a%20/", &SAME), ["a "]);
    assert_eq!(matched("/", &SAME), [""]);
    assert_eq!(matched("/a/", &STRICT), ["a", ""]);
    assert_eq!(cleaned("/a/?x", &SAME).unwrap(), "/a/?x");
    assert!(matches!(clean("/a/?x", &SAME).unwrap().match_path(), MatchPath::Plain("/a")));
}

#[test]
fn methods_with_lower_case_letters_are_refused() {
    for method in ["GET", "M-SEARCH", "FOOBAR"] {
        assert!(check_method(method).is_ok());
    }
    for method in ["", "get", "GeT", "GE T", "G\u{c9}T", "GET/"] {
        assert!(check_method(method).is_err(), "{method}");
    }
}

/// What a service that decodes everything at once would see of a forwarded path; nothing of the code under test.
fn naive_segments(path: &str, rules: &PathRules) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    for segment in path.strip_prefix('/').unwrap().split('/') {
        let segment = segment.split(';').next().unwrap();
        let mut plain = Vec::new();
        let mut pieces = segment.split('%');
        plain.extend(pieces.next().unwrap().bytes());
        for piece in pieces {
            plain.push(u8::from_str_radix(&piece[..2], 16).unwrap());
            plain.extend(piece[2..].bytes());
        }
        segments.push(plain);
    }
    if rules.trailing_slash == TrailingSlash::Same && segments.len() > 1 && segments.last().unwrap().is_empty() {
        segments.pop();
    }
    segments
}

/// RFC 3986 section 5.2.4 as it is written there, step by step.
fn remove_dot_segments(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..2, "");
        } else if input == "/." {
            input = "/".to_owned();
        } else if input.starts_with("/../") || input == "/.." {
            input = if input == "/.." { "/".to_owned() } else { input[3..].to_owned() };
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |n| n + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}

fn rules() -> impl Strategy<Value = PathRules> {
    any::<[bool; 6]>().prop_map(|[dots, slashes, matrix, slash, reserved, trailing]| PathRules {
        dot_segments: if dots { DotSegments::Resolve } else { DotSegments::Refuse },
        double_slash: if slashes { DoubleSlash::Merge } else { DoubleSlash::Refuse },
        matrix_params: if matrix { MatrixParams::Keep } else { MatrixParams::Refuse },
        encoded_slash: if slash { EncodedSlash::Keep } else { EncodedSlash::Refuse },
        encoded_reserved: if reserved { EncodedReserved::Keep } else { EncodedReserved::Refuse },
        case: Case::Sensitive,
        trailing_slash: if trailing { TrailingSlash::Same } else { TrailingSlash::Distinct },
    })
}

/// Targets of pieces that mean something, so that most of them reach deep.
fn targets() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        ".",
        "..",
        "/../",
        "/./",
        "//",
        "a",
        "bc",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "%3b",
        "%25",
        "%32",
        "%41",
        "%c3%a9",
        "%c0%af",
        "%00",
        "%3A",
        "%20",
        ";",
        ";x=1",
        "%3f",
        "%23",
        "~",
        "%7e",
        "?",
        "?q=/../%2e",
        "%",
        "41",
        "2e",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn cleaning_twice_is_cleaning_once(target in targets(), rules in rules()) {
        if let Ok(once) = clean(&target, &rules) {
            let twice = clean(once.path_and_query(), &rules);
            let twice = twice.unwrap_or_else(|rejection| panic!("{target} -> {}: {}", once.path_and_query(), rejection.detail));
            prop_assert_eq!(twice.path_and_query(), once.path_and_query());
            prop_assert!(matches!(&twice.forward, Cow::Borrowed(_)));
            prop_assert_eq!(segments(&twice), segments(&once));
        }
    }

    #[test]
    fn what_was_matched_is_what_is_forwarded(target in targets(), rules in rules()) {
        if let Ok(clean) = clean(&target, &rules) {
            prop_assert!(clean.path_and_query().starts_with(clean.path()));
            prop_assert_eq!(segments(&clean), naive_segments(clean.path(), &rules));
            // The query passes as it came.
            let (query, sent) = (&clean.path_and_query()[clean.path().len()..], target.find('?').map_or("", |at| &target[at..]));
            prop_assert_eq!(query, sent);
        }
    }

    #[test]
    fn nothing_doubtful_is_forwarded(target in targets(), rules in rules()) {
        if let Ok(clean) = clean(&target, &rules) {
            let path = clean.path();
            prop_assert!(path.starts_with('/') && !path.contains("//"));
            prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'?')));
            let has_parameters = path.contains(';');
            prop_assert!(!has_parameters || rules.matrix_params == MatrixParams::Keep);
            prop_assert!(!path.contains("%2F") || rules.encoded_slash == EncodedSlash::Keep);
            for escape in ["%5C", "%3F", "%23", "%25", "%3B"] {
                prop_assert!(!path.contains(escape) || rules.encoded_reserved == EncodedReserved::Keep);
            }
            for segment in segments(&clean) {
                let text = String::from_utf8(segment).unwrap();
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert!(text.split(['/', '\\']).all(|part| part != "." && part != ".."));
            }
            if rules.dot_segments == DotSegments::Refuse && rules.double_slash == DoubleSlash::Refuse {
                prop_assert_eq!(path.matches('/').count(), target.split('?').next().unwrap().matches('/').count());
            }
        }
    }

    /// Every refusal under loose rules is one under stricter rules.
    #[test]
    fn a_loosening_refuses_nothing_new(target in targets(), rules in rules()) {
        if let Some(strict) = cleaned(&target, &STRICT) {
            prop_assert_eq!(cleaned(&target, &rules), Some(strict));
        }
        if cleaned(&target, &rules).is_some() {
            prop_assert!(cleaned(&target, &LOOSE).is_some());
        }
    }

    #[test]
    fn resolving_is_rfc_3986(parts in prop::collection::vec(prop::sample::select(vec!["a", "b", ".", "..", "..."]), 1..10)) {
        let path = format!("/{}", parts.join("/"));
        prop_assert_eq!(cleaned(&path, &RESOLVE), Some(remove_dot_segments(&path)));
    }

    #[test]
    fn resolving_then_merging(parts in prop::collection::vec(prop::sample::select(vec!["a", "", ".", ".."]), 1..10)) {
        let path = format!("/{}", parts.join("/"));
        let mut merged = remove_dot_segments(&path);
        while merged.contains("//") {
            merged = merged.replace("//", "/");
        }
        prop_assert_eq!(cleaned(&path, &LOOSE), Some(merged));
    }

    #[test]
    fn no_text_panics(target in any::<String>(), rules in rules()) {
        let _ = clean(&target, &rules);
        let _ = clean(&format!("/{target}"), &rules);
    }
}

#[test]
fn what_is_surely_plain_has_nothing_special_at_any_place() {
    for length in 1..70 {
        let plain = format!("/{}", "a".repeat(length));
        assert!(surely_plain(plain.as_bytes()), "{plain}");
        for at in 1..=length {
            for byte in 0..=u8::MAX {
                let mut bytes = plain.clone().into_bytes();
                bytes[at] = byte;
                let special = !byte.is_ascii_graphic() || b"%;\\#?".contains(&byte);
                let doubtful = at == 1 && matches!(byte, b'/' | b'.');
                assert_eq!(surely_plain(&bytes), !special && !doubtful, "{byte} at {at} of {length}");
            }
            for pair in ["//", "/."] {
                let mut bytes = plain.clone().into_bytes();
                if at < length {
                    bytes[at..at + 2].copy_from_slice(pair.as_bytes());
                    assert!(!surely_plain(&bytes), "{pair} at {at} of {length}");
                }
            }
        }
    }
}
