//! PyJWT and the npm package jose as strangers: doorward takes the tokens that they make and refuses the ones that they
//! forge; they take the tokens that doorward makes; and doorward takes nothing that both of them refuse.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use super::part::{missing, python, run};
use crate::harness::{Doorward, Issuer, Upstream, doorward, now};

const ISSUER: &str = "https://strangers.test";

/// A stranger's name, and how to ask it.
type Stranger = (&'static str, fn() -> Command);

/// Both of them; each is asked in the same words.
const STRANGERS: [Stranger; 2] = [("PyJWT", || python("pyjwt.py")), ("jose", jose)];

fn jose() -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/jose.mjs"));
    command
}

/// What a stranger thinks of these tokens: nothing, or why they are bad.
fn judged(stranger: fn() -> Command, keys: &Value, issuer: &str, tokens: &[String]) -> Vec<Option<String>> {
    let mut command = stranger();
    command.arg("judge").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().unwrap_or_else(|error| missing(&name, &error));
    let question = json!({ "keys": keys, "issuer": issuer, "audience": "oms", "tokens": tokens }).to_string();
    let mut stdin = child.stdin.take().unwrap();
    let asking = std::thread::spawn(move || stdin.write_all(question.as_bytes()));
    let output = child.wait_with_output().unwrap();
    asking.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let verdicts: Vec<Option<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdicts.len(), tokens.len());
    verdicts
}

/// A gateway that accepts what is signed by any key of this set.
fn accepting(keys: &Value, algorithms: &[&str]) -> (Doorward, Upstream) {
    let upstream = Upstream::echo();
    let mut table = toml::Table::new();
    let mut set = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
    set("name", "strangers".into());
    set("issuer", ISSUER.into());
    set("audience", vec!["oms"].into());
    set("keys", "jwks+file://strangers.jwks.json".into());
    set("algorithms", algorithms.to_vec().into());
    set("same_subjects", true.into());
    set("confers", "any".into());
    let builder = doorward().file("strangers.jwks.json", keys.to_string()).upstream(&upstream);
    (builder.setting("auth.issuers", vec![toml::Value::from(table)]).start(), upstream)
}

#[test]
fn what_a_stranger_makes_is_accepted_and_what_it_forges_is_not() {
    for (name, stranger) in STRANGERS {
        let mut command = stranger();
        command.args(["make", ISSUER, "oms"]);
        let made = run(command).json();
        let (running, upstream) = accepting(&made["keys"], &["HS256", "RS256", "ES256", "EdDSA"]);
        let accepted: BTreeMap<String, String> = serde_json::from_value(made["accepted"].clone()).unwrap();
        for (what, token) in &accepted {
            let response = running.get_as("/items", token);
            assert_eq!(response.status, 200, "{name}: {what}: {}", response.text());
            assert_eq!(upstream.last().field("x-user-id"), Some("alice"));
        }
        assert!(accepted.len() >= 9, "{name}");

        let heard = upstream.count();
        let forged = made["forged"].as_array().unwrap();
        assert!(forged.len() >= 24, "{name}");
        let mut wrong = Vec::new();
        for case in forged {
            let response = running.get_as("/items", case["token"].as_str().unwrap());
            let reason = if response.status == 401 { response.reason() } else { response.status.to_string() };
            if reason != case["reason"] {
                wrong.push(format!("{}: {reason} instead of {}", case["name"], case["reason"]));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(upstream.count(), heard, "{name}: the upstream heard of a forged token");
    }
}

#[test]
fn what_doorward_mints_is_good_to_every_stranger() {
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        let running = doorward().own_issuer(algorithm).start();
        let mint = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
            command.args(["token", "mint", "--config"]).arg(running.path("doorward.toml")).args(arguments);
            command.current_dir(running.path("."));
            run(command).text().trim().to_owned()
        };
        let tokens = [
            mint(&["--sub", "alice"]),
            mint(&["--sub", "alice", "--role", "ROLE_VIEWER", "--membership", "oms=PREMIUM", "--ttl", "1m"]),
            mint(&[
                "--sub",
                "\u{21}",
                "--name",
                "\u{c9}lodie \u{1f511}",
                "--email",
                "e@example.com",
                "--session",
                "s-1",
            ]),
        ];
        let mut bad = tokens[0].clone().into_bytes();
        // In the middle of the signature.
        let place = bad.len() - 20;
        bad[place] = if bad[place] == b'A' { b'B' } else { b'A' };
        let tokens: Vec<String> = tokens.into_iter().chain([String::from_utf8(bad).unwrap()]).collect();
        let file = std::fs::read(running.path("data/local-keys.jwks.json")).unwrap();
        let mut keys: Value = serde_json::from_slice(&file).unwrap();
        for key in keys["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().retain(|member, _| !["d", "p", "q", "dp", "dq", "qi"].contains(&&**member));
        }
        for (name, stranger) in STRANGERS {
            let verdicts = judged(stranger, &keys, "http://127.0.0.1:8001", &tokens);
            assert_eq!(verdicts[..3], [None, None, None], "{name}, {algorithm}");
            assert!(verdicts[3].is_some(), "{name} takes a token of {algorithm} with a bad signature");
        }
    }
}

/// Good tokens in all the forms that doorward takes, and mutations of them: of the text, and of what is signed.
fn good_and_mutated(issuers: &[Issuer], mutations: usize) -> Vec<String> {
    let now = now();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[47; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut any = |below: usize| (0..below).new_tree(&mut runner).unwrap().current();
    let mut tokens = Vec::new();
    for issuer in issuers {
        let good = || issuer.token();
        tokens.extend([
            good().sign(),
            good().header("typ", "JWT").sign(),
            good().without_header("typ").sign(),
            good().header("x5t", "abc").header("cty", "json").sign(),
            good().header("nonce", "abc").sign(),
            good().claim("aud", ["x", "oms"]).sign(),
            good().claim("exp", now as f64 + 600.5).sign(),
            good().claim("nbf", now).without("iat").sign(),
            good().without("jti").sign(),
            good().claim("deep", json!({"a": [{"b": [1, 2.5e10, "\u{1f511}"]}]})).sign(),
            good().header("sub", "u-1").sign(),
        ]);
        let whole = good().sign();
        let header = json!({"alg": issuer.algorithm, "kid": issuer.key_id}).to_string();
        let claims = json!({"iss": issuer.url, "aud": "oms", "sub": "u-1", "iat": now, "exp": now + 600}).to_string();
        let letters = b"ABCdefgh0189-_=.+/ \"{}[]:,\\0eE";
        let mut mutated = |text: &str| {
            let mut text = text.as_bytes().to_vec();
            for _ in 0..=any(2) {
                let place = any(text.len());
                match any(4) {
                    0 => text[place] = letters[any(letters.len())],
                    1 => text.insert(place, letters[any(letters.len())]),
                    2 => drop(text.remove(place)),
                    _ => {
                        let end = (place + any(12)).min(text.len());
                        let piece = text[place..end].to_vec();
                        let to = any(text.len());
                        text.splice(to..to, piece);
                    }
                }
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        for _ in 0..mutations {
            tokens.push(mutated(&whole));
            tokens.push(issuer.sign_text(mutated(&header), &claims));
            tokens.push(issuer.sign_text(&header, mutated(&claims)));
        }
    }
    // A request holds no other bytes, and white space at its ends is not part of it.
    tokens.iter_mut().for_each(|token| *token = token.trim().to_owned());
    tokens.retain(|token| !token.is_empty());
    tokens
}

#[test]
fn nothing_is_accepted_that_the_strangers_refuse() {
    let named = |mut issuer: Issuer| {
        issuer.url = ISSUER.into();
        issuer
    };
    let issuers = [
        named(Issuer::rs256()).key_id("k-rsa"),
        named(Issuer::es256()).key_id("k-ec"),
        named(Issuer::eddsa()).key_id("k-ed"),
        named(Issuer::hs256()).key_id("k-oct"),
    ];
    let keys = json!({ "keys": issuers.iter().map(|issuer| issuer.jwks()["keys"][0].clone()).collect::<Vec<_>>() });
    let (running, upstream) = accepting(&keys, &["RS256", "ES256", "EdDSA", "HS256"]);
    let tokens = good_and_mutated(&issuers, 70);
    let verdicts = STRANGERS.map(|(_, stranger)| judged(stranger, &keys, ISSUER, &tokens));
    let (mut accepted, mut stricter, mut wrong) = (0, 0, Vec::new());
    for (place, token) in tokens.iter().enumerate() {
        let heard = upstream.count();
        let status = running.get_as("/me", token).status;
        assert_eq!(upstream.count() - heard, usize::from(status == 200));
        let [python, node] = [&verdicts[0][place], &verdicts[1][place]];
        match (status, python, node) {
            (200, None, None) => accepted += 1,
            (200, ..) => wrong.push(format!("{token}: PyJWT says {python:?}, jose {node:?}")),
            (_, None, None) => stricter += 1,
            _ => {}
        }
    }
    eprintln!("{} tokens: {accepted} accepted by all, {stricter} refused by doorward alone", tokens.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(accepted >= 40, "{accepted} are hardly a comparison");
}
