//! Keys as the cryptographic library wants them, checked once when they are read.
//!
//! jsonwebtoken verifies and signs. It takes a key as bytes and parses it at every call, which costs 0.3 to 2.5 µs of
//! a verification of 6 to 43 (a test in verify_tests.rs measures it), and checks little beforehand; so every key is
//! parsed once here, by aws-lc-rs, before it is taken.

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Map, Value};

use super::issuer::Algorithm;
use super::json::encode_base64url;

/// The half that verifies, in the form that jsonwebtoken takes.
#[derive(Debug)]
pub(super) struct VerifyingKey(DecodingKey);

impl VerifyingKey {
    pub(super) fn hmac(secret: &[u8]) -> Self {
        Self(DecodingKey::from_secret(secret))
    }

    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
        // RFC 7518 section 2 forbids leading zeros; some issuers write one all the same, and it changes nothing.
        let (n, e) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if bits < 2048 {
            return Err("is an RSA key of under 2,048 bits, which RFC 7518 section 3.3 forbids; make a longer one");
        }
        if bits > 8192 {
            return Err("is an RSA key of over 8,192 bits, which would make every verification slow");
        }
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        if !odd(n) || !odd(e) || e == [1] || e.len() > 4 {
            return Err("has a modulus or exponent that no sound RSA key has");
        }
        if is_roca(n) {
            return Err("was made by a generator known to be broken (ROCA, CVE-2017-15361); make another");
        }
        let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
        parsed.map_err(|_| "is not a valid RSA key")?;
        Ok(Self(DecodingKey::from_rsa_raw_components(n, e)))
    }

    pub(super) fn p256(x: &[u8], y: &[u8]) -> Result<Self, &'static str> {
        let point = p256_point(x, y)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| "is not a point on the curve P-256")?;
        Ok(Self(DecodingKey::from_ec_der(&point)))
    }

    pub(super) fn ed25519(x: &[u8]) -> Result<Self, &'static str> {
        if x.len() != 32 {
            return Err("has an `x` that is not 32 bytes long");
        }
        // Small-order points verify signatures that nobody made (RFC 8032 leaves them to the caller).
        if is_small_order(x) {
            return Err("is an Ed25519 point of small order, under which anybody can sign");
        }
        ParsedPublicKey::new(&ED25519, x).map_err(|_| "is not a valid Ed25519 key")?;
        Ok(Self(DecodingKey::from_ed_der(x)))
    }

    /// Whether the base64url signature over the message is good. Any failure is a no.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.0, algorithm.into()).unwrap_or(false)
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => Self::HS256,
            Algorithm::RS256 => Self::RS256,
            Algorithm::ES256 => Self::ES256,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}

/// The half that signs, in the form that jsonwebtoken takes; it is wiped when dropped and hides in `Debug`.
#[derive(Debug)]
pub(super) struct SigningKey(pub(super) EncodingKey);

const INCONSISTENT: &str = "has a private half that does not fit the public one";

impl SigningKey {
    pub(super) fn hmac(secret: &[u8]) -> Self {
        Self(EncodingKey::from_secret(secret))
    }

    /// `private` is `d p q dp dq qi`, in this order.
    pub(super) fn rsa<B: AsRef<[u8]>>(modulus: &[u8], exponent: &[u8], private: &[B]) -> Result<Self, &'static str> {
        // RFC 8017 appendix A.1.2: RSAPrivateKey, version 0.
        let mut body = zeroize::Zeroizing::new(vec![0x02, 0x01, 0x00]);
        for number in [modulus, exponent].into_iter().chain(private.iter().map(AsRef::as_ref)) {
            let number = without_leading_zeros(number);
            let sign_byte = usize::from(number.first().is_none_or(|byte| byte & 0x80 != 0));
            body.push(0x02);
            push_der_length(&mut body, number.len() + sign_byte);
            body.extend(std::iter::repeat_n(0, sign_byte));
            body.extend_from_slice(number);
        }
        let mut der = zeroize::Zeroizing::new(vec![0x30]);
        push_der_length(&mut der, body.len());
        der.extend_from_slice(&body);
        RsaKeyPair::from_der(&der).map_err(|_| INCONSISTENT)?;
        Ok(Self(EncodingKey::from_rsa_der(&der)))
    }

    pub(super) fn p256(x: &[u8], y: &[u8], d: &[u8]) -> Result<Self, &'static str> {
        let point = p256_point(x, y)?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, d, &point);
        let document = pair.map_err(|_| INCONSISTENT)?.to_pkcs8v1().map_err(|_| INCONSISTENT)?;
        Ok(Self(EncodingKey::from_ec_der(document.as_ref())))
    }

    pub(super) fn ed25519(x: &[u8], d: &[u8]) -> Result<Self, &'static str> {
        Ok(Self(EncodingKey::from_ed_der(&ed25519_pkcs8(x, d)?)))
    }
}

/// An Ed25519 key as a PKCS #8 document (RFC 8410).
pub(super) fn ed25519_pkcs8(x: &[u8], d: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, &'static str> {
    let pair = Ed25519KeyPair::from_seed_and_public_key(d, x).map_err(|_| INCONSISTENT)?;
    let document = pair.to_pkcs8v1().map_err(|_| INCONSISTENT)?;
    Ok(zeroize::Zeroizing::new(document.as_ref().to_vec()))
}

/// A new private JWK.
pub(super) fn generate(algorithm: Algorithm) -> Result<Map<String, Value>, String> {
    let no_randomness = |_| "the system gives no randomness for a new key".to_owned();
    let text = |bytes: &[u8]| Value::String(encode_base64url(bytes));
    let mut required = Map::new();
    let mut others = Vec::new();
    let private = match algorithm {
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().map_err(no_randomness)?;
            required.insert("kty".into(), "OKP".into());
            required.insert("crv".into(), "Ed25519".into());
            required.insert("x".into(), text(pair.public_key().as_ref()));
            let seed = pair.seed().map_err(no_randomness)?.as_be_bytes().map_err(no_randomness)?;
            ("d", text(seed.as_ref()))
        }
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(no_randomness)?;
            let point = pair.public_key().as_ref();
            required.insert("kty".into(), "EC".into());
            required.insert("crv".into(), "P-256".into());
            required.insert("x".into(), text(&point[1..33]));
            required.insert("y".into(), text(&point[33..]));
            let d = pair.private_key().as_be_bytes().map_err(no_randomness)?;
            ("d", text(d.as_ref()))
        }
        Algorithm::HS256 => {
            let mut secret = zeroize::Zeroizing::new([0; 48]);
            rand::fill(secret.as_mut()).map_err(no_randomness)?;
            required.insert("kty".into(), "oct".into());
            ("k", text(secret.as_ref()))
        }
        Algorithm::RS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(no_randomness)?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(no_randomness)?;
            let numbers = rsa_numbers(der.as_ref()).ok_or("the new RSA key has an unexpected form")?;
            let [n, e, d, factors @ ..] = numbers;
            required.insert("kty".into(), "RSA".into());
            required.insert("n".into(), text(n));
            required.insert("e".into(), text(e));
            others.extend(["p", "q", "dp", "dq", "qi"].into_iter().zip(factors.map(text)));
            ("d", text(d))
        }
    };
    let kid = if algorithm == Algorithm::HS256 {
        // A thumbprint of a secret would say something about it.
        uuid::Uuid::now_v7().to_string()
    } else {
        super::jwk::thumbprint(&required)
    };
    required.extend(others.into_iter().chain([private]).map(|(name, value)| (name.to_owned(), value)));
    required.insert("kid".into(), kid.into());
    required.insert("use".into(), "sig".into());
    required.insert("alg".into(), algorithm.name().into());
    Ok(required)
}

/// `n e d p q dp dq qi` of a PKCS #8 document with an RSA key (RFC 5208 section 5, RFC 8017 appendix A.1.2), without
/// leading zeros.
fn rsa_numbers(pkcs8: &[u8]) -> Option<[&[u8]; 8]> {
    let (info, _) = read_der(pkcs8, 0x30)?;
    let (_version, rest) = read_der(info, 0x02)?;
    let (_algorithm, rest) = read_der(rest, 0x30)?;
    let (octets, _) = read_der(rest, 0x04)?;
    let (key, _) = read_der(octets, 0x30)?;
    let (_version, mut rest) = read_der(key, 0x02)?;
    let mut numbers = [[].as_slice(); 8];
    for number in &mut numbers {
        let (found, after) = read_der(rest, 0x02)?;
        (*number, rest) = (without_leading_zeros(found), after);
    }
    Some(numbers)
}

/// Whether these bytes are an `RSAPublicKey` (RFC 8017 appendix A.1.1), and nothing else.
pub(super) fn is_pkcs1(bytes: &[u8]) -> bool {
    let numbers = |key| {
        let (_modulus, rest) = read_der(key, 0x02)?;
        read_der(rest, 0x02).map(|(_exponent, rest)| rest.is_empty())
    };
    read_der(bytes, 0x30).filter(|(_, rest)| rest.is_empty()).and_then(|(key, _)| numbers(key)).unwrap_or(false)
}

/// The content of the element at the start, which has to have this tag, and what follows it.
fn read_der(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    if first < 0x80 {
        return rest.split_at_checked(first.into());
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(length, _)| length.len() <= 4)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

fn p256_point(x: &[u8], y: &[u8]) -> Result<[u8; 65], &'static str> {
    // RFC 7518 section 6.2.1.2: exactly the size of a coordinate.
    let (Ok(x), Ok(y)) = (<&[u8; 32]>::try_from(x), <&[u8; 32]>::try_from(y)) else {
        return Err("has an `x` or `y` that is not 32 bytes long");
    };
    let mut point = [4; 65];
    point[1..33].copy_from_slice(x);
    point[33..].copy_from_slice(y);
    Ok(point)
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn push_der_length(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let bytes = without_leading_zeros(&bytes);
        out.push(0x80 | bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
}

/// The fingerprint of Infineon's generator: modulo each of these primes the modulus is a power of 65537, which for
/// a random one has a chance of 2⁻²⁸ (Nemec et al., "The Return of Coppersmith's Attack", CCS 2017).
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let remainder = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * 65537 % prime;
            power == remainder
        })
    })
}

/// The encodings, canonical or not, of the eight points of small order on edwards25519 (sign bit aside).
fn is_small_order(x: &[u8]) -> bool {
    const POINTS: [[u8; 32]; 7] = {
        let mut points = [[0xff; 32]; 7];
        points[0] = [0; 32];
        points[1] = [0; 32];
        points[1][0] = 1;
        points[2] = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ];
        points[3] = [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ];
        // p − 1, p and p + 1, little-endian.
        points[4][0] = 0xec;
        points[4][31] = 0x7f;
        points[5][0] = 0xed;
        points[5][31] = 0x7f;
        points[6][0] = 0xee;
        points[6][31] = 0x7f;
        points
    };
    POINTS.iter().any(|point| x[..31] == point[..31] && x[31] & 0x7f == point[31])
}
