//! The outer form of a token: three parts (RFC 7515 section 3.1), and a header without anything that could turn
//! the choice of key or of meaning over to the token (RFC 8725).

use serde_json::{Map, Value};

use super::json::{decode_base64url, parse_object};
use super::verify::{MAX_TOKEN_BYTES, TokenRejection};

/// A compact JWS taken apart, nothing of it verified.
#[derive(Debug)]
pub(super) struct Compact<'t> {
    /// What the signature covers.
    pub(super) signing_input: &'t str,
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// Canonical base64url.
    pub(super) signature: &'t str,
    /// Claims that the header repeats (RFC 7519 section 5.3), to be held against the payload's.
    pub(super) repeated: Vec<(&'static str, Value)>,
}

/// The header members that are looked at.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    pub(super) kind: Kind,
}

/// What `typ` says that the token is (RFC 7519 section 5.1, RFC 8725 section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No `typ`, or `JWT`.
    Jwt,
    /// `at+jwt` (RFC 9068 section 2.1).
    AccessToken,
    /// Something else that is signed by somebody for another purpose: a logout token, a DPoP proof, doorward's
    /// own assertion for upstreams (T19).
    Other,
}

/// Members whose presence is refused in any form: they embed or link a key, change what is signed, announce
/// extensions, or belong to encryption.
const REFUSED: [(&str, &str); 15] = [
    ("crit", "the header has `crit`"),
    ("jwk", "the header embeds a key (`jwk`)"),
    ("jku", "the header links to keys (`jku`)"),
    ("x5c", "the header embeds a certificate (`x5c`)"),
    ("x5u", "the header links to a certificate (`x5u`)"),
    ("b64", "the header has `b64`"),
    ("zip", "the header has `zip`"),
    ("enc", ENCRYPTED),
    ("epk", ENCRYPTED),
    ("apu", ENCRYPTED),
    ("apv", ENCRYPTED),
    ("iv", ENCRYPTED),
    ("tag", ENCRYPTED),
    ("p2s", ENCRYPTED),
    ("p2c", ENCRYPTED),
];
const ENCRYPTED: &str = "the token is encrypted, or its header says so";

/// The claims of RFC 7519 section 4.1.
const REGISTERED_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

impl<'t> Compact<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenRejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRejection::malformed("the token is longer than 16 KiB"));
        }
        let three_parts = || {
            let (signing_input, signature) = token.rsplit_once('.')?;
            let (header, payload) = signing_input.split_once('.')?;
            (!payload.contains('.')).then_some((signing_input, header, payload, signature))
        };
        let Some((signing_input, header, payload, signature)) = three_parts() else {
            return Err(TokenRejection::malformed("the token does not have three parts"));
        };
        let decode =
            |part: &str, what: &'static str| decode_base64url(part).ok_or_else(|| TokenRejection::malformed(what));
        let header = decode(header, "the header is not canonical base64url")?;
        let payload = decode(payload, "the payload is not canonical base64url")?;
        decode(signature, "the signature is not canonical base64url")?;
        let header =
            parse_object(&header).map_err(|why| TokenRejection::malformed_owned(format!("the header {why}")))?;
        let repeated =
            REGISTERED_CLAIMS.into_iter().filter_map(|name| Some((name, header.get(name)?.clone()))).collect();
        Ok(Self { signing_input, header: Header::read(&header)?, payload, signature, repeated })
    }
}

impl Header {
    fn read(members: &Map<String, Value>) -> Result<Self, TokenRejection> {
        if let Some((_, why)) = REFUSED.iter().find(|(name, _)| members.contains_key(*name)) {
            return Err(TokenRejection::malformed(why));
        }
        for name in ["x5t", "x5t#S256"] {
            text(members, name)?;
        }
        let algorithm = text(members, "alg")?.ok_or_else(|| TokenRejection::malformed("the header has no `alg`"))?;
        let key_id = text(members, "kid")?;
        let kind = match text(members, "typ")? {
            None => Kind::Jwt,
            Some(typ) => {
                // RFC 7515 section 4.1.9: `application/` may be left out; media types ignore case.
                let typ = typ.to_ascii_lowercase();
                match typ.strip_prefix("application/").unwrap_or(&typ) {
                    "jwt" => Kind::Jwt,
                    "at+jwt" => Kind::AccessToken,
                    _ => Kind::Other,
                }
            }
        };
        // `cty: JWT` announces a token inside the token (RFC 7519 section 5.2).
        if let Some(cty) = text(members, "cty")?
            && !matches!(cty.to_ascii_lowercase().as_str(), "json" | "application/json")
        {
            return Err(TokenRejection::malformed("the header's `cty` says that the payload is not a set of claims"));
        }
        Ok(Self { algorithm: algorithm.to_owned(), key_id: key_id.map(str::to_owned), kind })
    }
}

fn text<'m>(members: &'m Map<String, Value>, name: &'static str) -> Result<Option<&'m str>, TokenRejection> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenRejection::malformed_owned(format!("the header's `{name}` is not a string"))),
    }
}
