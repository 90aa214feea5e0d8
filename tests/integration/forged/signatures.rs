//! Signatures that nobody made, or that were made for something else.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use serde_json::json;

use super::check::Cases;
use super::forge::{Forge, encode, parts, resigned, signature_of, with};
use super::set_ups::own;
use crate::harness::Issuer;

/// The order of the group of P-256, big-endian (FIPS 186-5, SP 800-186 section 3.2.1.3).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// The order of the base point of edwards25519, little-endian (RFC 8032 section 5.1).
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    of_any_algorithm(forge, cases);
    match forge.victim.algorithm {
        "ES256" => ecdsa(forge, cases),
        "EdDSA" => ed25519(forge, cases),
        "RS256" => rsa(forge, cases),
        _ => hmac(forge, cases),
    }
}

fn of_any_algorithm(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let [header, payload, _] = parts(&good);
    let signature = signature_of(&good);
    let length = signature.len();
    let mut wrong = |what: &str, signature: &[u8]| {
        cases.bearer(format!("signature {what}"), resigned(&good, signature), "bad_signature");
    };
    wrong("empty", b"");
    for byte in [0_u8, 1, 0x7f, 0x80, 0xff] {
        wrong(&format!("all {byte:#04x}"), &vec![byte; length]);
    }
    for shorter in [1, 2, length / 2, length - 1] {
        wrong(&format!("cut off by {shorter} bytes at its end"), &signature[..length - shorter]);
        wrong(&format!("cut off by {shorter} bytes at its start"), &signature[shorter..]);
    }
    for more in [&[0_u8][..], &[1], &[0; 32], &signature] {
        wrong(&format!("with {} bytes behind it", more.len()), &[&signature, more].concat());
        wrong(&format!("with {} bytes before it", more.len()), &[more, &signature].concat());
    }
    wrong("backwards", &signature.iter().rev().copied().collect::<Vec<_>>());
    wrong("inverted", &signature.iter().map(|byte| !byte).collect::<Vec<_>>());
    wrong("that is its own text", encode(&signature).as_bytes());
    wrong("that is the hash of the message", digest(&SHA256, format!("{header}.{payload}").as_bytes()).as_ref());
    wrong("that is the message", format!("{header}.{payload}").as_bytes());
    for place in [0, 1, length / 3, length / 2, length - 2, length - 1] {
        for bit in [0, 7] {
            let mut flipped = signature.clone();
            flipped[place] ^= 1 << bit;
            wrong(&format!("with bit {bit} of byte {place} flipped"), &flipped);
        }
    }
    for (what, signed) in [
        ("the claims alone", payload.to_owned()),
        ("the header alone", header.to_owned()),
        ("both without the dot", format!("{header}{payload}")),
        ("both and a dot behind", format!("{header}.{payload}.")),
        ("the decoded texts", format!("{}.{}", forge.header(), forge.claims())),
        ("the whole good token", good.clone()),
        ("nothing", String::new()),
    ] {
        wrong(&format!("over {what}"), &forge.victim.signature(signed.as_bytes()));
    }
    wrong(
        "over the hash of the message",
        &forge.victim.signature(digest(&SHA256, format!("{header}.{payload}").as_bytes()).as_ref()),
    );
    let other = forge.claim("jti", "another");
    wrong("of another token", &signature_of(&other));
    // Good parts of two good tokens.
    let [_, other_payload, _] = parts(&other);
    let signature = encode(&signature);
    let what = "claims of another token";
    cases.bearer(what, format!("{header}.{other_payload}.{signature}"), "bad_signature");
    let other_header = encode(with(forge.header(), "x-more", 1).to_string());
    cases.bearer("header of another token", format!("{other_header}.{payload}.{signature}"), "bad_signature");
    for (name, value) in [
        ("sub", json!("root")),
        ("roles", json!(["ROLE_EDITOR"])),
        ("exp", json!(crate::harness::now() + 3000)),
        ("jti", json!("unrevoked")),
    ] {
        let claims = encode(with(forge.claims(), name, value.clone()).to_string());
        cases.bearer(
            format!("{name} changed to {value} after signing"),
            format!("{header}.{claims}.{signature}"),
            "bad_signature",
        );
    }
    let without_members = encode(json!({"alg": forge.victim.algorithm, "typ": "at+jwt"}).to_string());
    let reason = if forge.keys.iter().filter(|key| key.algorithm == forge.victim.algorithm).count() == 1 {
        "bad_signature"
    } else {
        "unknown_key"
    };
    cases.bearer("kid taken away after signing", format!("{without_members}.{payload}.{signature}"), reason);
}

fn ecdsa(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let signature = signature_of(&good);
    let (r, s) = signature.split_at(32);
    let mut wrong = |what: &str, signature: &[u8]| {
        cases.bearer(format!("ECDSA: {what}"), resigned(&good, signature), "bad_signature");
    };
    // CVE-2022-21449, "psychic signatures", and their neighbours.
    let zero = [0; 32];
    let one = {
        let mut one = zero;
        one[31] = 1;
        one
    };
    let n = P256_ORDER;
    let n_less_one = {
        let mut less = n;
        less[31] -= 1;
        less
    };
    for (a, r) in [("0", &zero[..]), ("1", &one), ("n", &n), ("n - 1", &n_less_one), ("r", r)] {
        for (b, s) in [("0", &zero[..]), ("1", &one), ("n", &n), ("n - 1", &n_less_one), ("s", s)] {
            if (a, b) != ("r", "s") {
                wrong(&format!("r = {a}, s = {b}"), &[r, s].concat());
            }
        }
    }
    wrong("s before r", &[s, r].concat());
    wrong("r twice", &[r, r].concat());
    let der = der_signature(r, s);
    wrong("DER, as TLS has it", &der);
    wrong("DER of zeros", &[0x30, 6, 2, 1, 0, 2, 1, 0]);
    wrong("DER with a long length", &[&[0x30, 0x81], &der[1..]].concat());
    wrong("numbers of 33 bytes", &[&[0], r, &[0], s].concat());
    wrong("numbers of 48 bytes", &[&[0; 16], r, &[0; 16], s].concat());
    wrong("numbers of 66 bytes", &[&[0; 34], r, &[0; 34], s].concat());
    if let Some(more) = plus(r, &n) {
        wrong("r + n", &[&more, s].concat());
    }
    if let Some(more) = plus(s, &n) {
        wrong("s + n", &[r, &more].concat());
    }
}

fn ed25519(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let signature = signature_of(&good);
    let (r, s) = signature.split_at(32);
    let mut wrong = |what: &str, signature: &[u8]| {
        cases.bearer(format!("Ed25519: {what}"), resigned(&good, signature), "bad_signature");
    };
    // RFC 8032 section 5.1.7: S below the order, or every signature has twins.
    for times in 1..=8_u8 {
        let mut more = s.to_vec();
        for _ in 0..times {
            let mut carry = 0;
            for (byte, order) in more.iter_mut().zip(ED25519_ORDER) {
                let sum = u16::from(*byte) + u16::from(order) + carry;
                *byte = sum as u8;
                carry = sum >> 8;
            }
        }
        wrong(&format!("S + {times} times the order"), &[r, &more].concat());
    }
    // Points of small order for R, with an S that would fit a key of small order.
    let mut points = vec![[0; 32]; 4];
    points[1][0] = 1;
    points[2] = [0xff; 32];
    points[2][0] = 0xec;
    points[2][31] = 0x7f;
    points[3] = points[2];
    points[3][0] = 0xed;
    for point in points {
        for sign in [0, 0x80] {
            let mut point = point;
            point[31] |= sign;
            for (name, s) in [("0", &[0; 32][..]), ("the order", &ED25519_ORDER), ("S", s)] {
                wrong(
                    &format!("R {:02x}…{:02x} of small order, S = {name}", point[0], point[31]),
                    &[&point, s].concat(),
                );
            }
        }
    }
    wrong("S before R", &[s, r].concat());
    wrong("of the length of Ed448", &[&signature, &[0; 50][..]].concat());
}

fn rsa(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let [header, payload, _] = parts(&good);
    let pair = forge.victim.rsa().expect("an RSA key");
    let by = |encoding: &'static dyn RsaEncoding, message: &str| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        signature
    };
    let encodings: [(&str, &'static dyn RsaEncoding); 5] = [
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
    ];
    for (name, encoding) in encodings {
        let token = resigned(&good, by(encoding, &format!("{header}.{payload}")));
        cases.bearer(format!("RSA: {name} that says RS256"), token, "bad_signature");
        let header = encode(with(forge.header(), "alg", name).to_string());
        let message = format!("{header}.{payload}");
        let token = format!("{message}.{}", encode(by(encoding, &message)));
        cases.bearer(format!("RSA: {name} that says so"), token, "alg_not_allowed");
    }
    let length = pair.public_modulus_len();
    let mut wrong = |what: &str, signature: &[u8]| {
        cases.bearer(format!("RSA: {what}"), resigned(&good, signature), "bad_signature");
    };
    let one = {
        let mut one = vec![0; length];
        one[length - 1] = 1;
        one
    };
    let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
    wrong("1", &one);
    wrong("the modulus", &modulus);
    wrong("the modulus and 1", &plus(&modulus, &one).unwrap_or_else(|| vec![0xff; length]));
    let less = {
        let mut less = modulus.clone();
        less[length - 1] -= 1;
        less
    };
    wrong("the modulus less 1", &less);
    // The same signature modulo n, where it has a second form of that length: of some tokens it does.
    for attempt in 0..200 {
        let token = forge.claim("jti", format!("attempt-{attempt}"));
        if let Some(twin) = plus(&signature_of(&token), &modulus) {
            cases.bearer("RSA: the signature and the modulus", resigned(&token, twin), "bad_signature");
            break;
        }
    }
    // The padding itself, in the clear, as if the exponent were 1 (RFC 8017 section 9.2).
    let info = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    let hash = digest(&SHA256, format!("{header}.{payload}").as_bytes());
    let filler = vec![0xff; length - 3 - info.len() - 32];
    let padded = [&[0, 1][..], &filler, &[0], &info, hash.as_ref()].concat();
    let mut wrong = |what: &str, signature: &[u8]| {
        cases.bearer(format!("RSA: {what}"), resigned(&good, signature), "bad_signature");
    };
    wrong("the padded hash in the clear", &padded);
}

fn hmac(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let secret = forge.victim.secret().expect("a secret").to_vec();
    let text = String::from_utf8_lossy(&secret).into_owned();
    let neighbours: Vec<(&str, Vec<u8>)> = vec![
        ("the secret in base64url", encode(&secret).into()),
        (
            "the secret in hexadecimal",
            secret.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")).into(),
        ),
        ("the secret and a newline", [&secret[..], b"\n"].concat()),
        ("the secret in quotes", format!("\"{text}\"").into()),
        ("the secret without its last byte", secret[..secret.len() - 1].into()),
        ("the secret without its first byte", secret[1..].into()),
        ("the secret in upper case", text.to_uppercase().into()),
        ("the first 16 bytes of the secret", secret[..16].into()),
        ("the SHA-256 of the secret", digest(&SHA256, &secret).as_ref().into()),
        ("the secret in UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    for (what, key) in neighbours {
        let stranger = Issuer::shared_secret(&String::from_utf8_lossy(&key));
        if stranger.secret() == Some(&*key) {
            let token = stranger.sign_text(forge.header().to_string(), forge.claims().to_string());
            cases.bearer(format!("HMAC under {what}"), token, "bad_signature");
        }
    }
    let tag = signature_of(&good);
    for length in [0, 1, 4, 8, 10, 12, 16, 20, 28, 31] {
        cases.bearer(format!("HMAC cut off to {length} bytes"), resigned(&good, &tag[..length]), "bad_signature");
    }
}

/// `SEQUENCE { INTEGER r, INTEGER s }` (RFC 3279 section 2.2.3).
fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = usize::from(number.first().is_none_or(|byte| byte & 0x80 != 0));
        [&[2, (number.len() + sign) as u8], &vec![0; sign][..], &number].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, body.len() as u8], &body[..]].concat()
}

/// The sum of two big-endian numbers, where it is no longer than they are.
fn plus(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut sum = a.to_vec();
    let mut carry = 0;
    for (byte, more) in sum.iter_mut().zip(b).rev() {
        let total = u16::from(*byte) + u16::from(*more) + carry;
        *byte = total as u8;
        carry = total >> 8;
    }
    (carry == 0).then_some(sum)
}

/// `n − s`: the other signature that ECDSA has for the same message.
fn mirrored(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut mirrored = P256_ORDER;
    let mut borrow = 0;
    for (byte, less) in mirrored.iter_mut().zip(s).rev() {
        let difference = i16::from(*byte) - i16::from(*less) - borrow;
        borrow = i16::from(difference < 0);
        *byte = difference.rem_euclid(256) as u8;
    }
    [r, &mirrored].concat()
}

/// JWS asks for neither half of `s`, and issuers make both, so both are taken (RFC 7518 section 3.4). They are one token all the
/// same: what is revoked is its id, whichever way it is signed.
#[test]
fn the_twin_of_an_ecdsa_signature_is_the_same_token_and_is_revoked_with_it() {
    let set_up = own("ES256");
    let token = set_up.forges()[0].claim("jti", "one-token");
    let twin = resigned(&token, mirrored(&signature_of(&token)));
    assert_ne!(token, twin);
    for spelled in [&token, &twin] {
        assert_eq!(set_up.running.get_as("/me", spelled).status, 200);
    }
    let body = r#"{"jti": "one-token"}"#;
    let revoked = set_up.running.admin_request("POST", "/api/revocations", Some(&set_up.auditor()), body);
    assert_eq!(revoked.status, 200, "{revoked:?}");
    for spelled in [&token, &twin] {
        assert_eq!(set_up.running.get_as("/me", spelled).denial(), (401, "revoked".into()));
    }
}
