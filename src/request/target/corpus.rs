//! The path pairs of Envoy, Traefik and Oathkeeper (`DOORWARD_CORPORA`), each with what SPEC 3.2 makes of it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn corpus(file: &str) -> Option<Value> {
    let Some(folder) = std::env::var_os("DOORWARD_CORPORA") else {
        eprintln!("skipped: DOORWARD_CORPORA is not set, so {file} cannot be read");
        return None;
    };
    let path = PathBuf::from(folder).join("paths").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

const LOOSE: PathRules = PathRules {
    dot_segments: DotSegments::Resolve,
    double_slash: DoubleSlash::Merge,
    matrix_params: MatrixParams::Refuse,
    encoded_slash: EncodedSlash::Keep,
    encoded_reserved: EncodedReserved::Keep,
    case: Case::Sensitive,
    trailing_slash: TrailingSlash::Distinct,
};

fn cleaned(target: &str, rules: &PathRules) -> Option<String> {
    clean(target, rules).ok().map(|clean| clean.path_and_query().to_owned())
}

/// What a peer makes otherwise than SPEC 3.2 does under the loosest rules, and why the SPEC wins.
const DEVIATIONS: &[(&str, Option<&str>, &str)] = &[
    ("a/b/../c", None, "no target in origin form: it does not begin with a slash"),
    ("..", None, "no target in origin form: it does not begin with a slash"),
    ("", None, "no target in origin form: it is empty"),
    ("a//b/c", None, "no target in origin form: it does not begin with a slash"),
    ("a//b/c/", None, "no target in origin form: it does not begin with a slash"),
    ("/a/..\\c", None, "a raw backslash is refused under all rules; Envoy takes it for a slash"),
    ("/%c0%af", None, "an overlong escape is refused under all rules; Envoy passes it on"),
    ("/%5c%25", Some("/%5C%25"), "hexadecimal in upper case"),
    ("/a/%2F%2f/c", Some("/a/%2F%2F/c"), "hexadecimal in upper case"),
    ("/a/b/..", Some("/a/"), "RFC 3986 section 5.2.4 leaves the slash; Go's path.Clean drops it"),
    ("/a/../b/%41%42%43//%2f/", Some("/b/ABC/%2F/"), "the same as Traefik's escaped form"),
    ("/a/%252E%252E/%252E%252E/b/", None, "double encoding is refused under all rules; Traefik passes it on"),
    ("/a/..%2Fb/", None, "a dot segment hidden by a kept slash is refused; Traefik passes it on"),
];

/// Checks one pair: by default 400 unless only unreserved decoding differs, with the loosenings what the peer says.
fn check(input: &str, peer: &str, used: &mut Vec<&'static str>) {
    let by_default = cleaned(input, &PathRules::default());
    let only_unreserved = decode_unreserved(input);
    assert!(
        by_default.is_none() || by_default == only_unreserved,
        "{input}: by default 400, or only unreserved escapes decoded, and not {by_default:?}"
    );
    let loose = cleaned(input, &LOOSE);
    if let Some((name, result, reason)) = DEVIATIONS.iter().find(|(name, ..)| *name == input) {
        assert_eq!(loose.as_deref(), *result, "{input}: {reason}");
        used.push(name);
    } else {
        assert_eq!(loose.as_deref(), Some(peer), "{input}");
    }
    if loose.as_deref() != Some(input) && loose != only_unreserved {
        assert_eq!(by_default, None, "{input} is not forwarded as it came, so by default it is refused");
    }
}

/// Only the escapes of unreserved characters decoded, the others in upper case.
fn decode_unreserved(input: &str) -> Option<String> {
    let mut output = String::new();
    let mut pieces = input.split('%');
    output.push_str(pieces.next()?);
    for piece in pieces {
        let (hex, rest) = piece.split_at_checked(2)?;
        let value = char::from(u8::from_str_radix(hex, 16).ok()?);
        if value.is_ascii_alphanumeric() || "-._~".contains(value) {
            output.push(value);
        } else {
            output.push_str(&format!("%{}", hex.to_uppercase()));
        }
        output.push_str(rest);
    }
    Some(output)
}

fn text<'v>(pair: &'v Value, key: &str) -> &'v str {
    pair[key].as_str().unwrap_or_else(|| panic!("{key} in {pair}"))
}

#[test]
fn envoy_and_traefik_pairs() {
    let (Some(envoy), Some(traefik)) = (corpus("envoy_path_utility.json"), corpus("traefik_oathkeeper_paths.json"))
    else {
        return;
    };
    let mut used = Vec::new();
    let mut pairs = 0;
    for (file, list, from, to) in [
        (&envoy, "normalize", "input", "canonical"),
        (&envoy, "merge_slashes", "input", "merged"),
        (&traefik, "sanitize", "path", "expected"),
        (&traefik, "path_operations", "raw", "escaped"),
    ] {
        for pair in file[list].as_array().unwrap() {
            check(text(pair, from), text(pair, to), &mut used);
            pairs += 1;
        }
    }
    assert_eq!(pairs, 18 + 13 + 16 + 11);
    for (input, ..) in DEVIATIONS {
        assert!(used.contains(input), "{input} is listed as a deviation and is in no corpus");
    }
}

#[test]
fn envoy_rejections() {
    let Some(envoy) = corpus("envoy_path_utility.json") else { return };
    for target in envoy["reject"].as_array().unwrap() {
        let target = target.as_str().unwrap();
        assert_eq!(cleaned(target, &PathRules::default()), None, "{target}");
        assert_eq!(cleaned(target, &LOOSE), None, "{target}");
    }
}

/// Envoy drops a fragment; SPEC 3.2 refuses every raw `#`. What has none keeps its query as it came.
#[test]
fn envoy_queries_and_fragments() {
    let Some(envoy) = corpus("envoy_path_utility.json") else { return };
    for pair in envoy["strip_query_fragment"].as_array().unwrap() {
        let (input, path) = (text(pair, "input"), text(pair, "path"));
        match clean(input, &PathRules::default()) {
            Ok(clean) => {
                assert!(!input.contains('#'), "{input}");
                assert_eq!((clean.path(), clean.path_and_query()), (path, input));
            }
            Err(_) => assert!(input.contains('#') || input.is_empty(), "{input}"),
        }
    }
}

#[test]
fn traefik_routing_paths() {
    let Some(traefik) = corpus("traefik_oathkeeper_paths.json") else { return };
    for pair in traefik["malformed_percent"].as_array().unwrap() {
        let accepted = pair["status"].as_u64() == Some(200);
        assert_eq!(cleaned(text(pair, "path"), &PathRules::default()).is_some(), accepted, "{pair}");
    }
    for pair in traefik["routing_path"].as_array().unwrap() {
        let clean = clean(text(pair, "path"), &LOOSE).unwrap();
        // Traefik routes by a text in which reserved characters stay escaped; segments need no such thing.
        let routing: Vec<u8> = match clean.match_path() {
            MatchPath::Plain(path) => path.as_bytes().to_vec(),
            MatchPath::Decoded(segments) => segments
                .iter()
                .flat_map(|s| {
                    format!("/{}", str::from_utf8(s).unwrap().replace('/', "%2F").replace('#', "%23")).into_bytes()
                })
                .collect(),
        };
        assert_eq!(str::from_utf8(&routing).unwrap(), text(pair, "routing"));
    }
}

/// Whoever asks for the protected path under another spelling gets 400, or the path itself.
#[test]
fn spellings_of_a_protected_path() {
    let Some(traefik) = corpus("traefik_oathkeeper_paths.json") else { return };
    for case in traefik["middleware_bypass"]["cases"].as_array().unwrap() {
        let (target, protected) = (text(case, "target"), text(case, "expect") == "protected");
        let result = if protected { "/with" } else { "/without" };
        assert_eq!(cleaned(target, &LOOSE).as_deref(), Some(result), "{target}");
        let by_default = cleaned(target, &PathRules::default());
        assert!(by_default.as_deref().is_none_or(|path| path == result), "{target}");
    }
    let target = text(&traefik["oathkeeper_CVE_path_traversal"], "target");
    assert_eq!(cleaned(target, &LOOSE).as_deref(), Some("/admin/secrets"));
    assert_eq!(cleaned(target, &PathRules::default()), None);
}
