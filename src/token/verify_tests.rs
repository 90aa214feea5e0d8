//! Forged, odd and foreign tokens, each with the reason for which it is refused. All are signed with the right key
//! unless the signature is the point, so that it is the rule under test that refuses them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAX_TOKEN_BYTES, Verifier};
use crate::clock::Timestamp;
use crate::rbac::RoleKey;
use crate::reason::Reason;
use crate::token::IssuerKeys;
use crate::token::fixtures::{
    ALL, NOW, claims, foreign, header, key, keys, own, own_claims, private_jwk, sign, token, token_by, with, without,
};
use crate::token::json::{decode_base64url, encode_base64url};
use crate::token::jwk::{KeySet, Trust};
use crate::token::{Algorithm, Claims, Confers, Issuer, RolesFrom};

fn verify_at(issuers: Vec<Issuer>, token: &str, now: Timestamp) -> Result<Claims, (Reason, String)> {
    Verifier::new(issuers).verify(token, now).map_err(|rejection| (rejection.reason, rejection.detail.into_owned()))
}

fn verify(token: &str) -> Result<Claims, (Reason, String)> {
    verify_at(vec![foreign(), own()], token, NOW)
}

fn reason(token: &str) -> Reason {
    verify(token).unwrap_err().0
}

fn roles(claims: &Claims) -> Vec<&str> {
    claims.roles.iter().map(RoleKey::as_str).collect()
}

fn signed(header: &Value, claims: &Value) -> String {
    sign(&header.to_string(), &claims.to_string(), key(&keys(), Algorithm::EdDSA))
}

#[test]
fn every_algorithm_verifies() {
    for algorithm in ALL {
        let found = verify(&token_by(algorithm, &claims())).unwrap();
        assert_eq!(&*found.subject, "kc:alice");
        assert_eq!(&*found.issuer, "kc");
        assert_eq!(found.key_id.as_deref(), Some(algorithm.name()));
        assert_eq!(found.token_id.as_deref(), Some("t-1"));
        assert_eq!(roles(&found), ["ROLE_USER"]);
        assert_eq!((found.issued_at, found.expires_at, found.leeway), (NOW.plus(-10), NOW.plus(630), 30));
        assert!(!found.admin);
    }
}

#[test]
fn headers_that_take_the_choice_away_are_refused() {
    let good = header(Algorithm::EdDSA);
    let jwk = private_jwk(Algorithm::EdDSA);
    let mut table = vec![
        (without(good.clone(), "alg"), Reason::MalformedToken),
        (with(good.clone(), "alg", Value::Null), Reason::MalformedToken),
        (with(good.clone(), "alg", json!(["EdDSA"])), Reason::MalformedToken),
        (with(good.clone(), "kid", Value::Null), Reason::MalformedToken),
        (with(good.clone(), "kid", json!(1)), Reason::MalformedToken),
        (with(good.clone(), "typ", Value::Null), Reason::MalformedToken),
        (with(good.clone(), "cty", Value::Null), Reason::MalformedToken),
        (with(good.clone(), "cty", json!("JWT")), Reason::MalformedToken),
        (with(good.clone(), "cty", json!("application/jwt")), Reason::MalformedToken),
        (with(good.clone(), "x5t", Value::Null), Reason::MalformedToken),
        (with(good.clone(), "kid", json!("other")), Reason::UnknownKey),
        (with(good.clone(), "kid", json!("EdDSA ")), Reason::UnknownKey),
        (with(good.clone(), "kid", json!("../../dev/null")), Reason::UnknownKey),
        (with(good.clone(), "kid", json!("")), Reason::UnknownKey),
    ];
    for member in
        ["crit", "jwk", "jku", "x5c", "x5u", "b64", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c"]
    {
        for value in [Value::Null, json!([]), json!(["exp"]), json!(""), json!(false), json!(true), jwk.clone()] {
            table.push((with(good.clone(), member, value), Reason::MalformedToken));
        }
    }
    for alg in
        ["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES256", "eddsa", "Ed25519", "PS256", "HS512", "EdDSA "]
    {
        table.push((with(good.clone(), "alg", json!(alg)), Reason::AlgNotAllowed));
    }
    for (header, expected) in table {
        assert_eq!(verify(&signed(&header, &claims())).unwrap_err().0, expected, "{header}");
    }
    for accepted in [
        with(good.clone(), "x5t", json!("abc")),
        with(good.clone(), "cty", json!("json")),
        with(good, "nonce", json!(1)),
    ] {
        assert!(verify(&signed(&accepted, &claims())).is_ok(), "{accepted}");
    }
}

#[test]
fn unsigned_tokens_are_refused() {
    for alg in ["none", "None", "NONE"] {
        for kid in [json!({}), json!({ "kid": "EdDSA" })] {
            let header = with(kid, "alg", json!(alg));
            let input =
                [header.to_string(), claims().to_string()].map(|part| encode_base64url(part.as_bytes())).join(".");
            for signature in ["", "AAAA"] {
                assert_eq!(reason(&format!("{input}.{signature}")), Reason::AlgNotAllowed, "{header}");
            }
        }
    }
}

#[test]
fn a_token_picks_its_key_by_kid_and_algorithm() {
    let one = |algorithm| with(private_jwk(algorithm), "kid", json!("one"));
    let of = |algorithms: &[Algorithm]| {
        let keys: Vec<Value> = algorithms.iter().map(|algorithm| one(*algorithm)).collect();
        let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &ALL, Trust::File).unwrap();
        vec![Issuer { keys: IssuerKeys::fixed(set), ..foreign() }]
    };
    let signed_by = |algorithm: Algorithm, alg: Algorithm| {
        let header = with(header(alg), "kid", json!("one"));
        sign(&header.to_string(), &claims().to_string(), key(&keys(), algorithm))
    };
    for algorithm in ALL {
        let found = verify_at(of(&ALL), &signed_by(algorithm, algorithm), NOW).unwrap();
        assert_eq!(found.key_id.as_deref(), Some("one"), "{algorithm:?}");
        // Under the key that `alg` says, and no other of that name.
        for other in ALL.into_iter().filter(|other| *other != algorithm) {
            let refused = verify_at(of(&ALL), &signed_by(other, algorithm), NOW).unwrap_err().0;
            assert_eq!(refused, Reason::BadSignature, "{other:?} as {algorithm:?}");
            let refused = verify_at(of(&[other]), &signed_by(other, algorithm), NOW).unwrap_err().0;
            assert_eq!(refused, Reason::AlgNotAllowed, "{other:?} as {algorithm:?}");
        }
    }
}

#[test]
fn a_public_key_is_no_hmac_secret() {
    // The classic confusion (CVE-2015-9235): HS256 under the bytes of the published key, in every form it is published in.
    let jwk = private_jwk(Algorithm::RS256);
    let public = &keys().public_jwks()["keys"][0].to_string();
    let modulus = decode_base64url(jwk["n"].as_str().unwrap()).unwrap();
    let pkcs1 = [&[0x30, 0x82, 1, 0x0a, 2, 0x82, 1, 1, 0], &modulus[..], &[2, 3, 1, 0, 1]].concat();
    let spki = [
        &[
            0x30, 0x82, 1, 0x22, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0, 3, 0x82, 1, 0x0f,
            0,
        ][..],
        &pkcs1,
    ]
    .concat();
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(&spki);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    let secrets: [&[u8]; 7] = [
        public.as_bytes(),
        &modulus,
        &pkcs1,
        &spki,
        pem.as_bytes(),
        pem.trim().as_bytes(),
        jwk["n"].as_str().unwrap().as_bytes(),
    ];
    for secret in secrets {
        // By hand: doorward itself takes none of these for a secret.
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        for kid in ["RS256", "HS256"] {
            let header = json!({ "alg": "HS256", "kid": kid }).to_string();
            let input = [header, claims().to_string()].map(|part| encode_base64url(part.as_bytes())).join(".");
            let tag = aws_lc_rs::hmac::sign(&secret, input.as_bytes());
            let forged = format!("{input}.{}", encode_base64url(tag.as_ref()));
            let expected = if kid == "RS256" { Reason::AlgNotAllowed } else { Reason::BadSignature };
            assert_eq!(reason(&forged), expected);
        }
    }
}

#[test]
fn another_key_of_the_same_name_signs_nothing() {
    for algorithm in ALL {
        let document = KeySet::generate(algorithm).unwrap();
        let forger = KeySet::parse(document.expose(), &ALL, Trust::File).unwrap();
        let forged = sign(&header(algorithm).to_string(), &claims().to_string(), &forger.keys[0]);
        assert_eq!(reason(&forged), Reason::BadSignature);
    }
}

#[test]
fn es256_signatures_are_raw_and_only_raw() {
    let token = token_by(Algorithm::ES256, &claims());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let raw = decode_base64url(signature).unwrap();
    assert_eq!(raw.len(), 64);
    let integer = |number: &[u8]| {
        let number: Vec<u8> = if number[0] & 0x80 != 0 { [&[0], number].concat() } else { number.to_vec() };
        [&[2, number.len() as u8][..], &number].concat()
    };
    let body = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [&[0x30, body.len() as u8][..], &body].concat();
    for other in
        [der, vec![0; 64], [&raw[..], &[0]].concat(), raw[..63].to_vec(), Vec::new(), [&[0], &raw[..]].concat()]
    {
        assert_eq!(reason(&format!("{input}.{}", encode_base64url(&other))), Reason::BadSignature);
    }
}

#[test]
fn ed25519_signatures_are_canonical() {
    // RFC 8032 section 5.1.7: S is below the order of the group; adding the order would make a second token of one.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let token = token(&claims());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = decode_base64url(signature).unwrap();
    let mut carry = 0_u16;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry as u8;
        carry >>= 8;
    }
    assert_eq!(reason(&format!("{input}.{}", encode_base64url(&bytes))), Reason::BadSignature);
}

#[test]
fn tokens_of_another_form_are_refused() {
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [h, p, s] = parts[..] else { unreachable!() };
    // The last character of a 64-byte signature carries 2 bits; the next in the alphabet differs in the 4 that it does not.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|byte| *byte == *s.as_bytes().last().unwrap()).unwrap();
    let trailing_bits = format!("{h}.{p}.{}{}", &s[..s.len() - 1], alphabet[last + 1] as char);
    let tokens = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        h.into(),
        format!("{h}.{p}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{s}"),
        format!("{h}.{p}.{s}.{s}.{s}"),
        format!("{h}..{s}"),
        format!(".{p}.{s}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}==.{s}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{h}.{p} .{s}"),
        format!("{h}\r\n.{p}.{s}"),
        format!("{h}.{p}.{s}+"),
        format!("{h}.{p}.{s}é"),
        trailing_bits,
        "x".repeat(MAX_TOKEN_BYTES + 1),
        json!({ "protected": h, "payload": p, "signature": s }).to_string(),
        format!("{{\"a\":1}}.{p}.{s}"),
        token(&with(claims(), "filler", json!("x".repeat(MAX_TOKEN_BYTES)))),
    ];
    for token in tokens {
        assert_eq!(reason(&token), Reason::MalformedToken, "{token}");
    }
    let near_limit = token(&with(claims(), "filler", json!("x".repeat(11_000))));
    assert!(near_limit.len() < MAX_TOKEN_BYTES && verify(&near_limit).is_ok());
    let key_set = keys();
    let signer = key(&key_set, Algorithm::EdDSA);
    let (header, claims) = (header(Algorithm::EdDSA).to_string(), claims().to_string());
    let nested = format!("{}{}", "[".repeat(50), "]".repeat(50));
    for (header, claims) in [
        (header.replacen('{', r#"{"alg":"none","#, 1), claims.clone()),
        (header.replacen('{', r#"{"\u0061lg":"EdDSA","#, 1), claims.clone()),
        (header.replacen('{', r#"{"kid":"EdDSA","#, 1), claims.clone()),
        (format!("[{header}]"), claims.clone()),
        (format!("{header}{header}"), claims.clone()),
        (header.clone(), claims.replacen('{', r#"{"sub":"mallory","#, 1)),
        (header.clone(), claims.replacen('{', r#"{"exp":9999999999,"#, 1)),
        (header.clone(), claims.replacen('{', r#"{"realm":{"roles":[],"roles":["ROLE_X"]},"#, 1)),
        (header.clone(), claims.replacen('{', &format!("{{\"deep\":{nested},"), 1)),
        (header.clone(), format!("[{claims}]")),
        (header.clone(), "null".into()),
        (header.clone(), "{}".into()),
        (header.clone(), format!("{claims}x")),
        (header, sign(r#"{"alg":"EdDSA"}"#, &claims, signer)),
    ] {
        assert_eq!(reason(&sign(&header, &claims, signer)), Reason::MalformedToken, "{header} {claims}");
    }
}

#[test]
fn registered_claims_of_another_type_are_refused() {
    for member in ["iss", "sub", "jti"] {
        for value in [Value::Null, json!(1), json!(true), json!(["https://kc.example"]), json!({})] {
            assert_eq!(
                reason(&token(&with(claims(), member, value.clone()))),
                Reason::MalformedToken,
                "{member} {value}"
            );
        }
    }
    for value in [Value::Null, json!(1), json!({}), json!(["oms", 1]), json!(["oms", null]), json!([["oms"]])] {
        assert_eq!(reason(&token(&with(claims(), "aud", value.clone()))), Reason::MalformedToken, "aud {value}");
    }
    for member in ["exp", "nbf", "iat"] {
        for value in [Value::Null, json!("1800000600"), json!(true), json!([]), json!({})] {
            assert_eq!(
                reason(&token(&with(claims(), member, value.clone()))),
                Reason::MalformedToken,
                "{member} {value}"
            );
        }
    }
    let key_set = keys();
    for number in ["1e999", "NaN", "Infinity", "0x7fffffff", "+1800000600", "01800000600"] {
        let text = claims().to_string().replacen(&(NOW.0 + 600).to_string(), number, 1);
        let token = sign(&header(Algorithm::EdDSA).to_string(), &text, key(&key_set, Algorithm::EdDSA));
        assert_eq!(reason(&token), Reason::MalformedToken, "{number}");
    }
    assert_eq!(reason(&token(&without(claims(), "exp"))), Reason::MalformedToken);
    assert_eq!(reason(&token(&without(claims(), "sub"))), Reason::MalformedToken);
}

#[test]
fn a_number_beyond_every_calendar_is_a_time_before_or_after_all_others() {
    let long_ago = [json!(-1), json!(-0.5), json!(-1e300), json!(i64::MIN)];
    let never = [json!(253_402_300_800_i64), json!(1e300), json!(i64::MAX), json!(u64::MAX)];
    for number in long_ago {
        assert_eq!(reason(&token(&with(claims(), "exp", number.clone()))), Reason::Expired, "exp {number}");
        assert!(verify(&token(&with(claims(), "nbf", number.clone()))).is_ok(), "nbf {number}");
        let (reason, detail) = verify(&token(&with(claims(), "iat", number.clone()))).unwrap_err();
        assert!(reason == Reason::MalformedToken && detail.contains("max_lifetime"), "iat {number}: {detail}");
    }
    for number in never {
        let (reason, detail) = verify(&token(&with(claims(), "exp", number.clone()))).unwrap_err();
        assert!(reason == Reason::MalformedToken && detail.contains("max_lifetime"), "exp {number}: {detail}");
        for member in ["nbf", "iat"] {
            let found = verify(&token(&with(claims(), member, number.clone()))).unwrap_err();
            assert_eq!(found.0, Reason::NotYetValid, "{member} {number}");
        }
    }
}

#[test]
fn t15_an_id_by_which_nobody_could_revoke_is_refused() {
    let of = |claims: Value, length: usize| token(&with(claims, "jti", json!("j".repeat(length))));
    for claims in [claims(), own_claims()] {
        for length in [0, 1025, 5000] {
            let (reason, detail) = verify(&of(claims.clone(), length)).unwrap_err();
            assert!(
                reason == Reason::MalformedToken && detail.contains("nobody could revoke it"),
                "{length}: {detail}"
            );
        }
        for length in [1, 1024] {
            assert_eq!(verify(&of(claims.clone(), length)).unwrap().token_id.unwrap().len(), length);
        }
        assert_eq!(verify(&token(&without(claims, "jti"))).unwrap().token_id, None, "absent is another matter");
    }
    for session in [String::new(), "s".repeat(129)] {
        assert_eq!(reason(&token(&with(own_claims(), "sid", json!(session)))), Reason::MalformedToken);
    }
}

#[test]
fn t07_nobody_takes_the_name_of_another_issuers_subject() {
    let same = |own: bool| Issuer {
        name: "same".into(),
        issuer: Some("https://same.example".into()),
        subject_prefix: String::new(),
        own,
        ..foreign()
    };
    let named =
        |subject: &str| token(&with(with(claims(), "iss", json!("https://same.example")), "sub", json!(subject)));
    let beside = |own: bool, subject: &str| verify_at(vec![foreign(), same(own)], &named(subject), NOW);
    for subject in ["kc:alice", "kc:"] {
        let (reason, detail) = beside(false, subject).unwrap_err();
        assert!(reason == Reason::MalformedToken && detail.contains("prefix"), "{subject}: {detail}");
        assert!(beside(true, subject).is_ok(), "doorward itself minted it for them");
        assert!(verify_at(vec![same(false)], &named(subject), NOW).is_ok(), "nobody else has that prefix");
    }
    for subject in ["alice", "kc", "KC:alice", "akc:"] {
        assert!(beside(false, subject).is_ok(), "{subject}");
    }
    // Under its own prefix a subject may look as it likes.
    assert_eq!(&*verify(&token(&with(claims(), "sub", json!("kc:alice")))).unwrap().subject, "kc:kc:alice");
}

#[test]
fn fractions_of_seconds_are_cut_off_against_the_bearer() {
    let fractions = with(with(claims(), "exp", json!(NOW.0 as f64 + 600.9)), "nbf", json!(NOW.0 as f64 + 29.5));
    let found = verify(&token(&fractions)).unwrap();
    assert_eq!((found.expires_at, found.not_before), (NOW.plus(630), Some(NOW)));
    assert_eq!(verify(&token(&with(claims(), "exp", json!(1.800_000_6e9)))).unwrap().expires_at, NOW.plus(630));
}

#[test]
fn t13_times_are_exact_and_the_leeway_does_not_extend_own_tokens() {
    let at = |claims: &Value, now: i64| {
        verify_at(vec![foreign(), own()], &token(claims), NOW.plus(now)).map_err(|why| why.0)
    };
    assert!(at(&claims(), 629).is_ok());
    assert_eq!(at(&claims(), 630).unwrap_err(), Reason::Expired);
    assert!(at(&own_claims(), 599).is_ok());
    assert_eq!(at(&own_claims(), 600).unwrap_err(), Reason::Expired);
    let later = |claims: Value, member: &str, by: i64| with(claims, member, json!(NOW.0 + by));
    for claims in [claims(), own_claims()] {
        for member in ["nbf", "iat"] {
            assert!(at(&later(claims.clone(), member, 30), 0).is_ok(), "{member}");
            assert_eq!(at(&later(claims.clone(), member, 31), 0).unwrap_err(), Reason::NotYetValid, "{member}");
        }
        assert!(at(&without(without(claims, "nbf"), "iat"), 0).is_ok());
    }
}

#[test]
fn t05_tokens_live_no_longer_than_max_lifetime() {
    let lifetime = |iat: Option<i64>, exp: i64| {
        let claims = with(without(claims(), "iat"), "exp", json!(NOW.0 + exp));
        let claims = iat.map_or(claims.clone(), |iat| with(claims, "iat", json!(NOW.0 + iat)));
        verify(&token(&claims))
    };
    assert!(lifetime(Some(0), 3600).is_ok());
    let (reason, detail) = lifetime(Some(0), 3601).unwrap_err();
    assert!(reason == Reason::MalformedToken && detail.contains("max_lifetime"), "{detail}");
    assert!(lifetime(Some(-3000), 601).is_err());
    // Without `iat` the token is as old as it can be, and must not be younger than now.
    assert_eq!(lifetime(None, 600).unwrap().issued_at, NOW.plus(600 - 3600));
    assert!(lifetime(None, 3630).is_ok());
    let (reason, detail) = lifetime(None, 3631).unwrap_err();
    assert!(reason == Reason::MalformedToken && detail.contains("max_lifetime"), "{detail}");
    assert!(lifetime(None, 10 * 365 * 86_400).is_err());
}

#[test]
fn issuer_and_audience_are_compared_exactly() {
    for issuer in ["https://kc.example/", "https://KC.example", "http://kc.example", "", " https://kc.example"] {
        assert_eq!(reason(&token(&with(claims(), "iss", json!(issuer)))), Reason::WrongIssuer, "{issuer:?}");
    }
    assert_eq!(reason(&token(&without(claims(), "iss"))), Reason::WrongIssuer);
    for audience in [json!("OMS"), json!("oms "), json!(""), json!([]), json!(["shop", "om"])] {
        assert_eq!(reason(&token(&with(claims(), "aud", audience.clone()))), Reason::WrongAudience, "{audience}");
    }
    assert_eq!(reason(&token(&without(claims(), "aud"))), Reason::WrongAudience);
    assert!(verify(&token(&with(claims(), "aud", json!(["shop", "oms"])))).is_ok());
    let any = Issuer { audience: Vec::new(), ..foreign() };
    for claims in [claims(), without(claims(), "aud"), with(claims(), "aud", json!("other"))] {
        assert!(verify_at(vec![any.clone()], &token(&claims), NOW).is_ok());
    }
}

#[test]
fn an_issuer_without_iss_is_there_for_older_tokens() {
    let unnamed = || Issuer { issuer: None, ..foreign() };
    for claims in [without(claims(), "iss"), claims(), with(claims(), "iss", json!("anything"))] {
        assert!(verify_at(vec![unnamed()], &token(&claims), NOW).is_ok(), "the only issuer does not look at `iss`");
    }
    let beside = |claims: &Value| verify_at(vec![own(), unnamed()], &token(claims), NOW);
    assert!(beside(&without(claims(), "iss")).is_ok());
    assert_eq!(beside(&with(claims(), "iss", json!("anything"))).unwrap_err().0, Reason::WrongIssuer);
    assert_eq!(verify_at(vec![], &token(&claims()), NOW).unwrap_err().0, Reason::WrongIssuer);
}

#[test]
fn issuers_never_share_keys_even_of_the_same_kid() {
    let document = KeySet::generate(Algorithm::EdDSA).unwrap();
    let mut other: Value = serde_json::from_slice(document.expose()).unwrap();
    other["keys"][0]["kid"] = "EdDSA".into();
    let other = Arc::new(KeySet::parse(other.to_string().as_bytes(), &ALL, Trust::File).unwrap());
    let second = Issuer {
        name: "b".into(),
        issuer: Some("https://b.example".into()),
        keys: IssuerKeys::fixed(Arc::clone(&other)),
        ..foreign()
    };
    let issuers = || vec![foreign(), second.clone()];
    let by = |keys: &KeySet, iss: &str| {
        let claims = with(claims(), "iss", json!(iss)).to_string();
        verify_at(issuers(), &sign(&header(Algorithm::EdDSA).to_string(), &claims, key(keys, Algorithm::EdDSA)), NOW)
    };
    assert!(by(&keys(), "https://kc.example").is_ok());
    assert!(by(&other, "https://b.example").is_ok());
    assert_eq!(by(&other, "https://kc.example").unwrap_err().0, Reason::BadSignature);
    assert_eq!(by(&keys(), "https://b.example").unwrap_err().0, Reason::BadSignature);
}

#[test]
fn a_token_without_kid_needs_exactly_one_key_of_its_algorithm() {
    let nameless = without(header(Algorithm::EdDSA), "kid");
    assert!(verify(&signed(&nameless, &claims())).is_ok());
    let second = json!({ "keys": [
        with(private_jwk(Algorithm::EdDSA), "kid", json!("a")),
        with(serde_json::from_slice::<Value>(KeySet::generate(Algorithm::EdDSA).unwrap().expose()).unwrap()["keys"][0].clone(), "kid", json!("b")),
        private_jwk(Algorithm::ES256),
    ] });
    let two = Arc::new(KeySet::parse(second.to_string().as_bytes(), &ALL, Trust::File).unwrap());
    let issuer = Issuer { keys: IssuerKeys::fixed(two), ..foreign() };
    let found = |header: &Value| verify_at(vec![issuer.clone()], &signed(header, &claims()), NOW).map_err(|why| why.0);
    assert_eq!(found(&nameless).unwrap_err(), Reason::UnknownKey);
    assert!(found(&with(nameless.clone(), "kid", json!("a"))).is_ok());
    assert_eq!(found(&with(nameless.clone(), "kid", json!("b"))).unwrap_err(), Reason::BadSignature);
    assert_eq!(found(&with(nameless.clone(), "alg", json!("RS256"))).unwrap_err(), Reason::UnknownKey);
    let narrow = Issuer { algorithms: vec![Algorithm::RS256], ..foreign() };
    for header in [nameless, header(Algorithm::EdDSA)] {
        let refused = verify_at(vec![narrow.clone()], &signed(&header, &claims()), NOW).unwrap_err();
        assert_eq!(refused.0, Reason::AlgNotAllowed, "the key is there, the issuer does not allow its algorithm");
    }
}

#[test]
fn a_header_that_repeats_a_claim_says_the_same() {
    let good = header(Algorithm::EdDSA);
    for (name, other) in [
        ("iss", json!("https://evil.example")),
        ("sub", json!("bob")),
        ("aud", json!(["oms"])),
        ("exp", json!(1)),
        ("jti", Value::Null),
    ] {
        let same = with(good.clone(), name, claims()[name].clone());
        assert!(verify(&signed(&same, &claims())).is_ok(), "{name}");
        assert_eq!(reason(&signed(&with(good.clone(), name, other), &claims())), Reason::MalformedToken, "{name}");
        assert_eq!(
            reason(&signed(&same, &without(claims(), name))),
            Reason::MalformedToken,
            "{name} in the header alone"
        );
    }
}

#[test]
fn a_wrong_algorithm_or_signature_is_told_before_a_wrong_kind() {
    for (alg, expected) in [("none", Reason::AlgNotAllowed), ("EdDSA", Reason::BadSignature)] {
        let header = json!({ "alg": alg, "typ": "JWT" }).to_string();
        let input = [header, own_claims().to_string()].map(|part| encode_base64url(part.as_bytes())).join(".");
        assert_eq!(reason(&format!("{input}.{}", "A".repeat(86))), expected, "{alg}");
    }
}

#[test]
fn t19_tokens_for_other_purposes_are_no_access_tokens() {
    let good = header(Algorithm::EdDSA);
    for typ in [
        "doorward-assertion+jwt",
        "application/doorward-assertion+jwt",
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "id_token",
        "JWS",
        "",
        "at+jwt ",
    ] {
        for claims in [claims(), own_claims()] {
            let token = signed(&with(good.clone(), "typ", json!(typ)), &claims);
            assert_eq!(reason(&token), Reason::MalformedToken, "{typ:?}");
        }
    }
    for typ in [Some("JWT"), Some("jwt"), Some("at+jwt"), Some("AT+JWT"), Some("application/at+jwt"), None] {
        let header = typ.map_or_else(|| without(good.clone(), "typ"), |typ| with(good.clone(), "typ", json!(typ)));
        assert!(verify(&signed(&header, &claims())).is_ok(), "{typ:?} of a foreign issuer");
        let access = typ.is_some_and(|typ| typ.to_ascii_lowercase().ends_with("at+jwt"));
        assert_eq!(verify(&signed(&header, &own_claims())).is_ok(), access, "{typ:?} of doorward's own");
    }
}

#[test]
fn t07_a_foreign_issuer_says_only_what_it_may() {
    let bold = with(
        with(with(claims(), "uv", json!(u64::MAX)), "sid", json!("s-1")),
        "memberships",
        json!({ "oms": "PREMIUM" }),
    );
    let bold = with(bold, "roles", json!(["ROLE_SUPER_ADMIN", "ROLE_USER", "viewer", "boss"]));
    let with_confers = |confers| verify_at(vec![Issuer { confers, ..foreign() }], &token(&bold), NOW).unwrap();
    let found = with_confers(Confers::Any);
    assert_eq!((found.uv, found.session.clone(), found.memberships.len()), (None, None, 0));
    assert_eq!(found.revocable_session(), Some("s-1"), "held against its bearer it needs no belief");
    assert_eq!(&*found.subject, "kc:alice", "a subject is (issuer, sub)");
    assert!(!found.admin, "admission drops an administrator's role from a foreign token");
    assert!(with_confers(Confers::Nothing).roles.is_empty());
    let user = RoleKey::parse("ROLE_USER").unwrap();
    assert_eq!(roles(&with_confers(Confers::List(vec![user.clone()]))), ["ROLE_USER"]);
    let map = BTreeMap::from([("viewer".to_owned(), user)]);
    assert_eq!(roles(&with_confers(Confers::Map(map))), ["ROLE_USER"]);
    let published = Issuer { roles_from: RolesFrom::Doorward, ..foreign() };
    assert!(verify_at(vec![published], &token(&bold), NOW).unwrap().roles.is_empty());
    // The same claims under doorward's own issuer are believed.
    let found = verify(&token(&with(bold.clone(), "iss", own_claims()["iss"].clone()))).unwrap();
    assert_eq!((found.uv, found.session.as_deref(), found.admin), (Some(u64::MAX), Some("s-1"), true));
    assert_eq!((found.revocable_session(), found.foreign_session.as_deref()), (Some("s-1"), None));
    assert_eq!(found.memberships[0].tier.as_str(), "PREMIUM");
    assert_eq!(roles(&found), ["ROLE_SUPER_ADMIN", "ROLE_USER"]);
    // Wrong forms of these do not matter in a foreign token, and are refused in an own one.
    for (member, value) in [
        ("uv", json!("1")),
        ("uv", json!(-1)),
        ("uv", json!(1.5)),
        ("sid", json!(1)),
        ("sid", json!("a,b")),
        ("sid", json!("")),
        ("sid", json!("s".repeat(129))),
        ("memberships", json!([])),
    ] {
        assert_eq!(verify(&token(&with(claims(), member, value.clone()))).unwrap().revocable_session(), None);
        assert_eq!(reason(&token(&with(own_claims(), member, value))), Reason::MalformedToken, "{member}");
    }
}

#[test]
fn t22_roles_and_memberships_outside_their_grammar_appear_nowhere() {
    let odd = json!([
        "x,ROLE_SUPER_ADMIN",
        "ROLE_",
        "role_user",
        "ROLE_a",
        "ROLE_A B",
        "ROLE_É",
        "",
        7,
        null,
        ["ROLE_X"],
        "ROLE_USER",
        "ROLE_USER"
    ]);
    for claims in [claims(), own_claims()] {
        assert_eq!(roles(&verify(&token(&with(claims.clone(), "roles", odd.clone()))).unwrap()), ["ROLE_USER"]);
        for (value, expected) in [
            (json!("ROLE_USER"), &["ROLE_USER"][..]),
            (json!("ROLE_USER,ROLE_SUPER_ADMIN"), &[]),
            (json!("ROLE_USER ROLE_SUPER_ADMIN"), &[]),
            (json!({ "ROLE_USER": true }), &[]),
            (Value::Null, &[]),
            (json!(1), &[]),
        ] {
            assert_eq!(roles(&verify(&token(&with(claims.clone(), "roles", value))).unwrap()), expected);
        }
    }
    let memberships = json!({ "oms": "FREE", "a=b": "FREE", "shop,": "X", "blog": "P,Q", "shopping": 1, "": "X" });
    let found = verify(&token(&with(own_claims(), "memberships", memberships))).unwrap();
    assert_eq!(found.memberships.len(), 1);
}

#[test]
fn t22_subjects_outside_their_grammar_are_refused() {
    for subject in
        ["", "a,b", "a=b", "a%b", "a b", "a\tb", "a\nb", "a\u{7f}", "é", "\u{202e}x", "a\0b", &"x".repeat(126)]
    {
        assert_eq!(reason(&token(&with(claims(), "sub", json!(subject)))), Reason::MalformedToken, "{subject:?}");
    }
    let longest = "x".repeat(125);
    assert_eq!(verify(&token(&with(claims(), "sub", json!(longest)))).unwrap().subject.len(), 128, "prefix included");
}

#[test]
fn claims_are_found_where_the_issuer_has_them() {
    let mut issuer = foreign();
    issuer.claims.roles = "realm_access.roles".into();
    issuer.claims.subject = "user_id".into();
    issuer.claims.name = "https://kc.example/name".into();
    let token_of = |claims: Value| verify_at(vec![issuer.clone()], &token(&claims), NOW);
    let claims = with(with(claims(), "user_id", json!(42)), "https://kc.example/name", json!("Alice"));
    let nested = with(claims.clone(), "realm_access", json!({ "roles": ["ROLE_EDITOR"] }));
    let found = token_of(nested.clone()).unwrap();
    assert_eq!((&*found.subject, found.name.as_deref()), ("kc:42", Some("Alice")));
    assert_eq!(roles(&found), ["ROLE_EDITOR"]);
    let literal = with(nested, "realm_access.roles", json!(["ROLE_VIEWER"]));
    assert_eq!(roles(&token_of(literal).unwrap()), ["ROLE_VIEWER"], "a member of the whole name comes first");
    assert!(token_of(with(claims.clone(), "realm_access", json!("x"))).unwrap().roles.is_empty());
    for odd in [json!(-1), json!(1.5), json!(true), Value::Null, json!([])] {
        assert_eq!(token_of(with(claims.clone(), "user_id", odd)).unwrap_err().0, Reason::MalformedToken);
    }
}

#[test]
fn t42_an_address_counts_only_if_it_is_verified() {
    let claims = with(claims(), "email", json!("a@example.com"));
    for (verified, shown) in [
        (None, true),
        (Some(json!(true)), true),
        (Some(json!("true")), true),
        (Some(json!(false)), false),
        (Some(json!("false")), false),
        (Some(Value::Null), false),
        (Some(json!(0)), false),
    ] {
        let claims =
            verified.clone().map_or(claims.clone(), |verified| with(claims.clone(), "email_verified", verified));
        assert_eq!(verify(&token(&claims)).unwrap().email.is_some(), shown, "{verified:?}");
    }
}

#[test]
fn t42_an_address_counts_only_if_it_is_verified_where_it_stands_too() {
    let shown = |path: &str, said: Value| {
        let mut issuer = foreign();
        issuer.claims.email = path.into();
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        verify_at(vec![issuer], &token(&claims), NOW).unwrap().email.is_some()
    };
    let address = "a@example.com";
    for no in [json!(false), json!("false"), Value::Null, json!(0)] {
        assert!(!shown("user.email", json!({"user": {"email": address, "email_verified": no}})), "the same object");
        assert!(!shown("user.email", json!({"user": {"email": address}, "email_verified": no})), "the top");
        let both = json!({"user": {"email": address, "email_verified": true}, "email_verified": no});
        assert!(!shown("user.email", both), "of two words the no counts");
        let both = json!({"user": {"email": address, "email_verified": no}, "email_verified": true});
        assert!(!shown("user.email", both), "of two words the no counts");
        assert!(!shown("a.b.mail", json!({"a": {"b": {"mail": address, "email_verified": no}}})), "another name");
        assert!(!shown("user.mail", json!({"user": {"mail": address, "mail_verified": no}})), "another name");
        for (name, verified) in [
            ("https://app.example/email", "https://app.example/email_verified"),
            ("https://app.example/claims#email", "https://app.example/claims#email_verified"),
            ("urn:app:email", "urn:app:email_verified"),
            ("https://app.example/mail", "https://app.example/email_verified"),
            ("app_email", "app_email_verified"),
            ("user.email", "user.email_verified"),
        ] {
            assert!(!shown(name, json!({name: address, verified: no})), "{verified}");
            assert!(!shown(name, json!({name: address, "email_verified": no})), "{name}");
            assert!(shown(name, json!({name: address, verified: true})), "{verified}");
        }
        // What is said of somebody else's address says nothing of this one.
        assert!(shown("user.email", json!({"user": {"email": address}, "actor": {"email_verified": no}})));
        let other = json!({"https://app.example/email": address, "https://other.example/email_verified": no});
        assert!(shown("https://app.example/email", other));
    }
    for yes in [json!(true), json!("true")] {
        assert!(shown("user.email", json!({"user": {"email": address, "email_verified": yes}, "email_verified": yes})));
    }
    assert!(shown("user.email", json!({"user": {"email": address}})), "absent is not false");
    assert!(shown("https://app.example/email", json!({"https://app.example/email": address})), "absent is not false");
}

#[test]
fn a_refusal_says_nothing_of_the_token() {
    for claims in [
        with(claims(), "sub", json!("s3cret,")),
        with(claims(), "iss", json!("s3cret")),
        with(claims(), "s3cret", json!({})),
    ] {
        let text = claims.to_string().replace("{}", "}{");
        let token = sign(&header(Algorithm::EdDSA).to_string(), &text, key(&keys(), Algorithm::EdDSA));
        assert!(!verify(&token).unwrap_err().1.contains("s3cret"));
    }
}

#[test]
fn all_times_are_given_no_clock_is_read() {
    let long_ago = with(with(without(claims(), "nbf"), "iat", json!(1000)), "exp", json!(2000));
    assert!(verify_at(vec![foreign()], &token(&long_ago), Timestamp(1500)).is_ok());
    let tolerant = Issuer { max_lifetime: Duration::MAX, leeway: Duration::MAX, ..foreign() };
    assert!(verify_at(vec![tolerant], &token(&long_ago), NOW).is_ok(), "absurd settings do not overflow");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Not a bit of a good token can be changed.
    #[test]
    fn a_token_with_any_other_byte_is_refused(algorithm in 0..4_usize, place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = token_by(ALL[algorithm], &claims());
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        if let Ok(mutated) = String::from_utf8(bytes) {
            prop_assert!(verify(&mutated).is_err(), "{mutated}");
        }
        prop_assert!(verify(&good).is_ok());
    }

    /// Nor can it be cut, doubled or mixed with others; and nothing panics.
    #[test]
    fn no_text_panics(text in "\\PC{0,60}|[A-Za-z0-9_=.-]{0,200}") {
        prop_assert!(verify(&text).is_err());
    }

    /// Any JSON as a payload, rightly signed, is judged without a panic.
    #[test]
    fn no_payload_panics(member in "(iss|sub|aud|exp|nbf|iat|jti|roles|sid|uv|memberships|email|name)", value in r#"(null|-?[0-9]{1,25}|[0-9]e[0-9]{1,3}|"[a-z,]{0,5}"|\[[0-9]?\]|\{\}|true)"#) {
        let value: Result<Value, _> = serde_json::from_str(&value);
        if let Ok(value) = value {
            let _ = verify(&token(&with(claims(), &member, value.clone())));
            let _ = verify(&token(&with(own_claims(), &member, value)));
        }
    }
}

/// What a verification costs, and how much of it is the signature:
/// `cargo test --lib token:: -- --ignored --nocapture` prints both.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "a measurement")]
fn measure_verification() {
    let key_set = keys();
    for algorithm in ALL {
        let key = key(&key_set, algorithm);
        let token = token_by(algorithm, &claims());
        let (message, signature) = token.rsplit_once('.').unwrap();
        // The best of several rounds: the machine is shared.
        let time = |run: &dyn Fn() -> bool| {
            let round = || {
                let started = std::time::Instant::now();
                assert!((0..200).all(|_| run()));
                started.elapsed() / 200
            };
            (0..25).map(|_| round()).min().unwrap()
        };
        let alone = time(&|| key.verify(message.as_bytes(), signature));
        let verifier = Verifier::new(vec![foreign()]);
        let whole = time(&|| verifier.verify(&token, NOW).is_ok());
        eprintln!("{algorithm:?}: signature {alone:?}, whole verification {whole:?} ({} bytes)", token.len());
    }
}
