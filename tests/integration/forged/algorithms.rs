//! What the header says of the algorithm: it is compared with the key's, and chooses nothing (RFC 8725 section 3.1).

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use serde_json::{Value, json};

use super::check::Cases;
use super::forge::{Forge, by_hmac, compact, parts, with, without};
use crate::harness::Issuer;

/// Every name in the IANA registry of JWS algorithms, and some that are none.
const NAMES: [&str; 40] = [
    "none",
    "None",
    "NONE",
    "nOnE",
    "none ",
    "\u{0}none",
    "",
    " ",
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "ES256K",
    "EdDSA",
    "Ed25519",
    "Ed448",
    "RS1",
    "HS1",
    "HS256/64",
    "ML-DSA-44",
    "dir",
    "RSA-OAEP",
    "A256GCM",
    "hs256",
    "rs256",
    "es256",
    "eddsa",
    "EDDSA",
    "Es256",
    "HMAC",
    "SHA256",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
];

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    let own_name = forge.victim.algorithm;
    for name in NAMES.into_iter().chain([&*format!("{own_name} "), &format!(" {own_name}"), &format!("{own_name}\0")]) {
        if name == own_name {
            continue;
        }
        // Signed well by the issuer's key, which makes no difference.
        let header = with(forge.header(), "alg", name);
        cases.bearer(format!("alg {name:?}"), forge.signed(&header, &forge.claims()), forge.swapped(name, true));
        let header = without(header, "kid");
        let token = forge.signed(&header, &forge.claims());
        cases.bearer(format!("alg {name:?} without kid"), token, forge.swapped(name, false));
    }
    for name in ["none", "None", "NONE", "nOnE", "nonE", "NoNe"] {
        for (what, signature) in [("empty", &b""[..]), ("of zeros", &[0; 64]), ("of one byte", b"x")] {
            for header in [json!({ "alg": name }), with(forge.header(), "alg", name)] {
                let token = compact(header.to_string(), forge.claims().to_string(), signature);
                cases.bearer(format!("{header} with a signature {what}"), token, "alg_not_allowed");
            }
        }
        let good = forge.good();
        let header = with(forge.header(), "alg", name).to_string();
        let token = format!("{}.{}.{}", super::forge::encode(header), parts(&good)[1], parts(&good)[2]);
        cases.bearer(format!("alg {name} put before a good token's claims and signature"), token, "alg_not_allowed");
    }
    for value in [
        Value::Null,
        json!(true),
        json!(256),
        json!([]),
        json!([own_name]),
        json!([own_name, "none"]),
        json!({}),
        json!({ "alg": own_name }),
    ] {
        cases.malformed(format!("alg {value}"), forge.head("alg", value));
    }
    cases.malformed("no alg", forge.signed(&without(forge.header(), "alg"), &forge.claims()));
    cases.malformed("ALG instead of alg", {
        let header = with(without(forge.header(), "alg"), "ALG", own_name);
        forge.signed(&header, &forge.claims())
    });
    // What another key of the same kind, or an HMAC that anybody can compute, signs.
    for stranger in [Issuer::rs256(), Issuer::es256(), Issuer::eddsa(), Issuer::hs256()] {
        let header = with(forge.header(), "alg", stranger.algorithm);
        let token = stranger.sign_text(header.to_string(), forge.claims().to_string());
        let reason =
            if stranger.algorithm == own_name { "bad_signature" } else { forge.swapped(stranger.algorithm, true) };
        cases.bearer(format!("a stranger's {}", stranger.algorithm), token, reason);
        let header = forge.header().to_string();
        let token = stranger.sign_text(header, forge.claims().to_string());
        cases.bearer(format!("a stranger's {} that says {own_name}", stranger.algorithm), token, "bad_signature");
    }
    // The keys of the other issuers sign nothing for this one, with their own `kid`, its `kid`, and without one.
    for other in &forge.others {
        let mut headers = vec![
            with(forge.header(), "alg", other.algorithm),
            with(with(forge.header(), "alg", other.algorithm), "kid", other.key_id),
            without(with(forge.header(), "alg", other.algorithm), "kid"),
        ];
        headers.dedup();
        for header in headers {
            let token = other.sign_text(header.to_string(), forge.claims().to_string());
            let kid = header.get("kid").and_then(Value::as_str);
            let reason = match kid {
                Some(kid) if forge.nameless || kid != forge.victim.key_id => "unknown_key",
                _ if other.algorithm == own_name => "bad_signature",
                _ => forge.swapped(other.algorithm, kid.is_some()),
            };
            cases.bearer(format!("{}'s {} with kid {kid:?}", other.name, other.algorithm), token, reason);
        }
    }
    // HMAC of every width under secrets that everybody knows.
    for secret in [
        &b""[..],
        b"\0",
        b"secret",
        b"changeme",
        b"null",
        b"undefined",
        b"password",
        b"your-256-bit-secret",
        &[0; 32],
        &[b'0'; 64],
        forge.victim.url.as_bytes(),
        forge.victim.key_id.as_bytes(),
        b"oms",
        b"doorward",
    ] {
        for (name, algorithm) in [("HS256", HMAC_SHA256), ("HS384", HMAC_SHA384), ("HS512", HMAC_SHA512)] {
            let header = with(forge.header(), "alg", name);
            let reason = if name == own_name { "bad_signature" } else { forge.swapped(name, true) };
            let shown = String::from_utf8_lossy(secret);
            cases.bearer(
                format!("{name} under {shown:?}"),
                by_hmac(algorithm, secret, &header, &forge.claims()),
                reason,
            );
        }
    }
}
