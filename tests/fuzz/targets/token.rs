//! Tokens: raw text, and texts that are signed well so that the claims behind the signature are read too.
//!
//! An input that holds a NUL is `header NUL claims`, to be encoded and signed; any other is a token as it stands.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorward::clock::Timestamp;
use doorward::secret::Secret;
use doorward::token::{Algorithm, ClaimPaths, Confers, Issuer, IssuerKeys, KeySet, RolesFrom, Verifier};
use libfuzzer_sys::fuzz_target;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: Timestamp = Timestamp(1_700_000_000);

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(vec![Issuer {
        name: "fuzz".into(),
        issuer: None,
        audience: Vec::new(),
        algorithms: vec![Algorithm::HS256],
        keys: IssuerKeys::fixed(KeySet::shared_secret(&Secret::new(SECRET.to_vec())).expect("32 bytes are enough")),
        claims: ClaimPaths::default(),
        max_lifetime: Duration::from_secs(3600),
        leeway: Duration::from_secs(30),
        own: false,
        subject_prefix: String::new(),
        roles_from: RolesFrom::Token,
        confers: Confers::Any,
        admin: false,
    }])
});

fuzz_target!(|input: &[u8]| {
    let token = match input.iter().position(|byte| *byte == 0) {
        None => String::from_utf8_lossy(input).into_owned(),
        Some(at) => {
            let message =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(&input[..at]), URL_SAFE_NO_PAD.encode(&input[at + 1..]));
            let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    };
    let Ok(claims) = VERIFIER.verify(&token, NOW) else { return };
    let odd = |byte: u8| !(0x21..0x7f).contains(&byte) || matches!(byte, b',' | b'=' | b'%');
    assert!((1..=128).contains(&claims.subject.len()) && !claims.subject.bytes().any(odd), "{claims:?}");
    assert!(claims.expires_at > NOW && claims.not_before.is_none_or(|from| from <= NOW), "{claims:?}");
    assert!(claims.memberships.is_empty() && claims.session.is_none() && claims.uv.is_none(), "{claims:?}");
});
