//! An issuer of tokens whose keys, headers and claims a test may choose, wrong ones included.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, Curve25519SeedBin, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// Seconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

enum Private {
    Hs256(Vec<u8>),
    Rs256(rsa::KeyPair),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

/// One key of an issuer, as it is configured in doorward.
pub(crate) struct Issuer {
    /// Its name in the configuration.
    pub(crate) name: &'static str,
    /// `iss`
    pub(crate) url: String,
    /// `kid`
    pub(crate) key_id: &'static str,
    /// `alg`
    pub(crate) algorithm: &'static str,
    private: Private,
}

impl Issuer {
    pub(crate) fn hs256() -> Self {
        let mut secret = vec![0; 32];
        aws_lc_rs::rand::fill(&mut secret).unwrap();
        Self::with("HS256", Private::Hs256(secret))
    }

    /// Whoever knows this secret, which is a text.
    pub(crate) fn shared_secret(secret: &str) -> Self {
        Self::with("HS256", Private::Hs256(secret.as_bytes().to_vec()))
    }

    pub(crate) fn rs256() -> Self {
        Self::with("RS256", Private::Rs256(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn es256() -> Self {
        Self::with("ES256", Private::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()))
    }

    pub(crate) fn eddsa() -> Self {
        Self::with("EdDSA", Private::EdDsa(Ed25519KeyPair::generate().unwrap()))
    }

    fn with(algorithm: &'static str, private: Private) -> Self {
        Self { name: "test", url: "https://idp.test/".into(), key_id: "k1", algorithm, private }
    }

    /// The same kind of issuer under another name and URL.
    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self.url = format!("https://{name}.test/");
        self
    }

    /// The holder of a private JWK, such as doorward's own in `data/local-keys.jwks.json`.
    pub(crate) fn from_private_jwk(jwk: &Value) -> Self {
        let number = |member: &str| URL_SAFE_NO_PAD.decode(jwk[member].as_str().expect(member)).unwrap();
        let mut issuer = match jwk["alg"].as_str() {
            Some("RS256") => {
                let components = rsa::KeyPairComponents {
                    public_key: rsa::PublicKeyComponents { n: number("n"), e: number("e") },
                    d: number("d"),
                    p: number("p"),
                    q: number("q"),
                    dP: number("dp"),
                    dQ: number("dq"),
                    qInv: number("qi"),
                };
                Self::with("RS256", Private::Rs256(rsa::KeyPair::from_components(&components).unwrap()))
            }
            Some("ES256") => {
                let point = [vec![4], number("x"), number("y")].concat();
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &number("d"), &point);
                Self::with("ES256", Private::Es256(pair.unwrap()))
            }
            Some("EdDSA") => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&number("d"), &number("x"));
                Self::with("EdDSA", Private::EdDsa(pair.unwrap()))
            }
            other => panic!("no private JWK of a known algorithm: {other:?}"),
        };
        issuer.key_id = jwk["kid"].as_str().expect("a kid").to_owned().leak();
        issuer
    }

    /// The same issuer with this `kid`.
    pub(crate) fn key_id(mut self, key_id: &'static str) -> Self {
        self.key_id = key_id;
        self
    }

    /// The shared secret of HS256.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        match &self.private {
            Private::Hs256(secret) => Some(secret),
            _ => None,
        }
    }

    /// The pair of RS256.
    pub(crate) fn rsa(&self) -> Option<&rsa::KeyPair> {
        match &self.private {
            Private::Rs256(pair) => Some(pair),
            _ => None,
        }
    }

    /// The public key as a `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        let der: PublicKeyX509Der<'_> = match &self.private {
            Private::Hs256(_) => return None,
            Private::Rs256(pair) => pair.public_key().as_der().unwrap(),
            Private::Es256(pair) => pair.public_key().as_der().unwrap(),
            Private::EdDsa(pair) => pair.public_key().as_der().unwrap(),
        };
        Some(der.as_ref().to_vec())
    }

    /// The private key in PKCS#8, which a certificate can be made with.
    pub(crate) fn pkcs8(&self) -> Option<Vec<u8>> {
        match &self.private {
            Private::Hs256(_) => None,
            Private::Rs256(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                Some(der.as_ref().to_vec())
            }
            Private::Es256(pair) => Some(pair.to_pkcs8v1().unwrap().as_ref().to_vec()),
            Private::EdDsa(pair) => Some(pair.to_pkcs8v1().unwrap().as_ref().to_vec()),
        }
    }

    /// The key set that doorward is given: with the secret for HS256, else public parts only.
    pub(crate) fn jwks(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.private {
            Private::Hs256(secret) => json!({"kty": "oct", "k": encode(secret)}),
            Private::Rs256(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": encode(&n), "e": encode(&e)})
            }
            Private::Es256(pair) => {
                // An uncompressed point: 4, x, y (SEC 1 section 2.3.3).
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..65])})
            }
            Private::EdDsa(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
        };
        key["kid"] = self.key_id.into();
        key["alg"] = self.algorithm.into();
        key["use"] = "sig".into();
        json!({"keys": [key]})
    }

    /// The key with its private half, as doorward's own stand in a file. Only for EdDSA.
    pub(crate) fn private_jwks(&self) -> Value {
        let Private::EdDsa(pair) = &self.private else { panic!("{} has no private JWK here", self.algorithm) };
        let mut set = self.jwks();
        set["keys"][0]["d"] = {
            let seed: Curve25519SeedBin<'_> = pair.seed().unwrap().as_be_bytes().unwrap();
            URL_SAFE_NO_PAD.encode(seed.as_ref()).into()
        };
        set
    }

    /// A good token, to be made bad claim by claim.
    pub(crate) fn token(&self) -> TokenBuilder<'_> {
        let now = now();
        let header = json!({"alg": self.algorithm, "kid": self.key_id, "typ": "at+jwt"});
        let claims = json!({
            "iss": self.url, "aud": "oms", "sub": "u-1", "iat": now, "exp": now + 600,
            "jti": uuid::Uuid::new_v4().to_string(), "roles": ["ROLE_VIEWER"],
        });
        let object = |value: Value| value.as_object().cloned().unwrap();
        TokenBuilder { issuer: self, header: object(header), claims: object(claims) }
    }

    /// A token of a viewer, good for ten minutes.
    pub(crate) fn viewer(&self) -> String {
        self.token().sign()
    }

    /// A token with these roles.
    pub(crate) fn with_roles(&self, subject: &str, roles: &[&str]) -> String {
        self.token().claim("sub", subject).claim("roles", roles).sign()
    }

    /// Signs exactly these texts, well-formed or not.
    pub(crate) fn sign_text(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The signature over these bytes, raw as JWS has it.
    pub(crate) fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Hs256(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Private::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Private::Es256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A token in the making.
pub(crate) struct TokenBuilder<'i> {
    issuer: &'i Issuer,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl TokenBuilder<'_> {
    pub(crate) fn claim(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.claims.insert(name.into(), serde_json::to_value(value).unwrap());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.header.insert(name.into(), serde_json::to_value(value).unwrap());
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    pub(crate) fn sign(self) -> String {
        let text = |map: Map<String, Value>| Value::Object(map).to_string();
        self.issuer.sign_text(text(self.header), text(self.claims))
    }
}

/// Modulus and exponent of a PKCS#1 `RSAPublicKey` (RFC 8017 appendix A.1.1): a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut rest = der_value(der).0;
    let mut next = || {
        let (number, after) = der_value(rest);
        rest = after;
        number.iter().copied().skip_while(|byte| *byte == 0).collect()
    };
    (next(), next())
}

/// The contents of the first DER value, and what stands behind it.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            (der[2..2 + count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 2 + count)
        }
    };
    der[start..].split_at(length)
}
