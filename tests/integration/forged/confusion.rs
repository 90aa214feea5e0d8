//! A public key is no HMAC secret, in whatever form it is published (CVE-2015-9235 and its many heirs).

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::check::Cases;
use super::forge::{Forge, by_hmac, encode, with, without};
use crate::harness::Issuer;

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    // The victim's own public key; where it has none, those of the issuers beside it, and a stranger's.
    let stranger = Issuer::rs256();
    let mut published: Vec<&Issuer> = forge.keys.iter().chain(forge.others.iter().copied()).collect();
    published.retain(|key| key.secret().is_none());
    if published.is_empty() {
        published.push(&stranger);
    }
    for key in published {
        for (form, secret) in forms(key) {
            for (name, algorithm) in [("HS256", HMAC_SHA256), ("HS384", HMAC_SHA384), ("HS512", HMAC_SHA512)] {
                if name != "HS256" && !matches!(form, "PEM" | "DER" | "JWK") {
                    continue;
                }
                let what = format!("{name} under {}'s {} as {form}", key.name, key.algorithm);
                let reason = |with_key_id| {
                    if name == forge.victim.algorithm { "bad_signature" } else { forge.swapped(name, with_key_id) }
                };
                let header = with(forge.header(), "alg", name);
                cases.bearer(&what, by_hmac(algorithm, &secret, &header, &forge.claims()), reason(true));
                let header = without(header, "kid");
                let token = by_hmac(algorithm, &secret, &header, &forge.claims());
                cases.bearer(format!("{what} without kid"), token, reason(false));
            }
        }
    }
}

/// The forms in which a public key is published, byte for byte.
pub(super) fn forms(key: &Issuer) -> Vec<(&'static str, Vec<u8>)> {
    let spki = key.spki().expect("a public key");
    let pem = pem("PUBLIC KEY", &spki);
    let jwks = key.jwks();
    let jwk = &jwks["keys"][0];
    let certificate = certificate(key);
    let mut forms: Vec<(&str, Vec<u8>)> = vec![
        ("PEM", pem.clone().into()),
        ("PEM without its last newline", pem.trim_end().into()),
        ("PEM with CRLF", pem.replace('\n', "\r\n").into()),
        ("PEM on one line", pem.replace('\n', "").into()),
        ("PEM with escaped newlines", pem.replace('\n', "\\n").into()),
        ("the base64 within the PEM", STANDARD.encode(&spki).into()),
        ("DER", spki),
        ("JWK", jwk.to_string().into()),
        ("JWK, indented", serde_json::to_vec_pretty(jwk).unwrap()),
        ("JWK of the required members", required(jwk).into()),
        ("JWK without alg and use", without(without(jwk.clone(), "alg"), "use").to_string().into()),
        ("JWK with spaces", jwk.to_string().replace(':', ": ").replace(',', ", ").into()),
        ("JWK set", jwks.to_string().into()),
        ("JWK set with a newline", format!("{jwks}\n").into()),
        ("certificate in PEM", self::pem("CERTIFICATE", &certificate).into()),
        ("certificate in x5c", STANDARD.encode(&certificate).into()),
        ("certificate in DER", certificate),
        ("kid", key.key_id.into()),
    ];
    if let Some(pair) = key.rsa() {
        use aws_lc_rs::signature::KeyPair as _;
        let pkcs1 = pair.public_key().as_ref().to_vec();
        let pem = self::pem("RSA PUBLIC KEY", &pkcs1);
        forms.push(("PKCS#1 in PEM without its last newline", pem.trim_end().into()));
        forms.push(("PKCS#1 in PEM", pem.into()));
        forms.push(("PKCS#1 in DER", pkcs1));
    }
    for member in ["n", "x", "y"] {
        if let Some(text) = jwk[member].as_str() {
            forms.push(("a number of the key, in base64url", text.into()));
            use base64::engine::general_purpose::URL_SAFE_NO_PAD;
            forms.push(("a number of the key, raw", URL_SAFE_NO_PAD.decode(text).unwrap()));
        }
    }
    forms
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// What a thumbprint is made of (RFC 7638 section 3).
fn required(jwk: &Value) -> String {
    let members = ["crv", "e", "kty", "n", "x", "y"];
    let required: serde_json::Map<String, Value> =
        members.into_iter().filter_map(|name| Some((name.to_owned(), jwk.get(name)?.clone()))).collect();
    Value::Object(required).to_string()
}

/// A certificate of this key, signed by itself.
pub(super) fn certificate(key: &Issuer) -> Vec<u8> {
    let pkcs8 = rustls::pki_types::PrivatePkcs8KeyDer::from(key.pkcs8().expect("a private key"));
    let pair = rcgen::KeyPair::try_from(&pkcs8).expect("rcgen takes the key");
    let params = rcgen::CertificateParams::new(vec!["idp.test".to_owned()]).unwrap();
    params.self_signed(&pair).unwrap().der().to_vec()
}

/// The same, as the header member `x5c` has it (RFC 7515 section 4.1.6), and its SHA-256 for `x5t#S256`.
pub(super) fn x5c(key: &Issuer) -> (String, String) {
    let der = certificate(key);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    (STANDARD.encode(&der), encode(digest))
}
