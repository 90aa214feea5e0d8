//! The raw requests of Http11Probe (`DOORWARD_CORPORA`): what its verdicts say of a 200 and of a 400, held
//! against what a look at the head alone decides (and, for chunked bodies, the strict chunk reader).

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;
use crate::request::chunked::{ChunkedReader, Progress};
use crate::request::target::{PathRules, clean};

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, headers: 100 };

/// What the probe would have otherwise, and why it is not this room's to say.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "COMP-HTTP12-VERSION",
        "SPEC 3 knows HTTP/1.0, 1.1 and 2; 1.2 does not exist (unscored; 505 would only be a warning)",
    ),
    ("COMP-POST-CL-UNDERSEND", "the head is good; the missing body is the gateway's timeout"),
    ("MAL-POST-CL-HUGE-NO-BODY", "the head is good; the missing body is the gateway's timeout"),
    ("COMP-METHOD-CONNECT", "a well-formed CONNECT, which the gateway answers with 405"),
    (
        "COMP-CHUNKED-EXTENSION",
        "200 passes once the body is echoed, which no head can show (`2xx preferred` says the probe)",
    ),
    ("COOK-ECHO", "fails for every status alike without an echo of the cookie"),
    ("COMP-CONNECTION-CLOSE", "the head is good, and hyper ends the connection behind the answer"),
];

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Waits for the rest.
    Incomplete,
    Accepted,
    Refused(u16),
}

/// What becomes of a payload, as the connection does it: until the head's end or its limit.
fn outcome(payload: &[u8]) -> Outcome {
    let Some(end) = end(payload, 0) else {
        let too_long = payload.len() > LIMITS.bytes;
        return if too_long { Outcome::Refused(overflow(payload).reason.status()) } else { Outcome::Incomplete };
    };
    match inspect(&payload[..end], &LIMITS) {
        Err(rejection) => Outcome::Refused(rejection.reason.status()),
        Ok(_) if cleaned(&payload[..end]).is_err() => Outcome::Refused(400),
        Ok(HeadFacts { framing: Framing::Chunked, .. }) => match ChunkedReader::default().feed(&payload[end..]) {
            Ok(Progress::Done(_)) => Outcome::Accepted,
            Ok(Progress::More) => Outcome::Incomplete,
            Err(rejection) => Outcome::Refused(rejection.reason.status()),
        },
        Ok(_) => Outcome::Accepted,
    }
}

/// The next step: a target in origin form is cleaned by the default rules.
fn cleaned(payload: &[u8]) -> Result<(), Rejection> {
    match str::from_utf8(payload).unwrap().split(' ').nth(1).unwrap() {
        target if target.starts_with('/') => clean(target, &PathRules::default()).map(|_| ()),
        _ => Ok(()),
    }
}

fn corpus(file: &str) -> Option<Value> {
    let Some(folder) = std::env::var_os("DOORWARD_CORPORA") else {
        eprintln!("skipped: DOORWARD_CORPORA is not set, so {file} cannot be read");
        return None;
    };
    let path = PathBuf::from(folder).join("http1").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

fn verdict<'v>(test: &'v Value, table: &str, key: &str) -> &'v str {
    test["verdicts"][table][key].as_str().unwrap_or("")
}

#[test]
fn http11probe_heads() {
    let Some(corpus) = corpus("http11probe_tests.json") else { return };
    let tests = corpus["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 183);

    let (mut faults, mut excused, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for test in tests {
        let id = test["id"].as_str().unwrap();
        let payload = STANDARD.decode(test["payload_b64"].as_str().unwrap()).unwrap();
        let outcome = outcome(&payload);
        let (verdict, other) = match &outcome {
            Outcome::Accepted => (verdict(test, "status_open", "200"), verdict(test, "status_closed", "400")),
            Outcome::Refused(status) => {
                (verdict(test, "status_closed", &status.to_string()), verdict(test, "status_open", "200"))
            }
            Outcome::Incomplete => {
                (verdict(test, "no_response", "ClosedByServer"), verdict(test, "status_open", "200"))
            }
        };
        // A test that fails for 200 and for 400 alike asks for more than either.
        let decides = other != "Fail" || !matches!(outcome, Outcome::Accepted);
        let excuse = EXCEPTIONS.iter().find(|(name, _)| *name == id);
        match (verdict, excuse) {
            ("Fail", Some((name, _))) => excused.push(*name),
            ("Fail", None) if decides => faults.push(format!("{id}: {outcome:?}")),
            ("Warn", _) if test["scored"] == true && other == "Pass" => warnings.push(id),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // Methods are a policy's matter (it lists them, or 405), the version of WebSocket the gateway's (T25).
    assert_eq!(warnings, ["COMP-UPGRADE-INVALID-VER", "COMP-UNKNOWN-METHOD"]);
    assert_eq!(excused.len(), EXCEPTIONS.len(), "an exception is listed that is none: {excused:?}");
}

/// 129 ways to hide a `Transfer-Encoding` beside a `Content-Length`: only where it stands in the value of
/// another header, which every parser passes over, is the head good, and then the length counts.
#[test]
fn smuggler_heads() {
    let Some(corpus) = corpus("smuggler_default.json") else { return };
    let mut accepted = Vec::new();
    for test in corpus["payloads"].as_array().unwrap() {
        for (form, length) in [("clte_b64", 4), ("tecl_b64", 6)] {
            let payload = STANDARD.decode(test[form].as_str().unwrap()).unwrap();
            let end = end(&payload, 0).unwrap();
            if let Ok(facts) = inspect(&payload[..end], &LIMITS) {
                assert_eq!(facts.framing, Framing::Length(length), "{}", test["name"]);
                accepted.push(test["name"].as_str().unwrap());
            }
        }
    }
    accepted.dedup();
    assert_eq!(accepted, ["xprespace-09", "xprespace-20", "xprespace-a0", "xprespace-ff"]);
}

/// What llhttp calls an error is accepted only where the error lies behind the first request, or is a matter of
/// the gateway (`CONNECT`, an upgrade that it does not make).
#[test]
fn llhttp_heads() {
    let Some(corpus) = corpus("llhttp_tests.json") else { return };
    let mut accepted = Vec::new();
    for test in corpus["tests"].as_array().unwrap() {
        let payload = STANDARD.decode(test["payload_b64"].as_str().unwrap()).unwrap();
        let strict = test["kind"] == "request" && test["parser_mode"] == "request";
        if strict && test["llhttp"] == "error" && outcome(&payload) == Outcome::Accepted {
            accepted.push(test["title"].as_str().unwrap());
        }
    }
    accepted.sort_unstable();
    let expected = [
        "CONNECT request",
        "CONNECT with body",
        "CRLF between requests, explicit `close`",
        "CRLF between requests, explicit `close` followed by tab",
        "No restart when keep-alive is off (1.0)",
        "Upgrade GET request",
        "Upgrade POST request",
    ];
    assert_eq!(accepted, expected);
}
