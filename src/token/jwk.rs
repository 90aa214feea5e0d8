//! Key sets (RFC 7517), from a file, a URL's body or a shared secret.
//!
//! A key has exactly one algorithm, fixed when it is read: what a token says about its algorithm is only ever
//! compared with that (RFC 8725 section 3.1).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::issuer::Algorithm;
use super::issuer_keys::FOREVER;
use super::json::{decode_base64url, encode_base64url, parse_object};
use super::key_material::{SigningKey, VerifyingKey};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// Whether symmetric and private keys may be in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A file on this machine: `oct` keys and private members are accepted. What is no usable key is an error; one of an algorithm that
    /// is not configured is passed over, for a provider's whole set may have been saved, and told ([`KeySet::unfit`]), for it may have
    /// been meant.
    File,
    /// Fetched by URL: `oct` keys and private members are refused, for whoever can fetch them can sign. Keys of
    /// algorithms that are not configured are somebody else's business and are passed over; and so is what is no usable key
    /// (RFC 7517 section 5), which must not take the good ones with it.
    Url,
}

/// One verification key (and perhaps its private half).
#[derive(Debug)]
pub struct Key {
    /// `kid`.
    pub id: Option<Box<str>>,
    /// The one algorithm it verifies.
    pub algorithm: Algorithm,
    verifying: VerifyingKey,
    signing: Option<SigningKey>,
    /// The public members as a JWK; none for a symmetric key.
    public: Option<Map<String, Value>>,
    /// SHA-256 of all that the key consists of, its `kid` and its life included.
    fingerprint: [u8; 32],
    /// How long doorward's own key is good for what.
    pub life: Life,
    /// Unix seconds from which on it verifies nothing.
    good_until: AtomicI64,
    /// Unix seconds from which on all its tokens have expired, as a rotation has set it: `doorward:verifies_until`, also where that was
    /// written beside the key after this was read.
    retired_from: AtomicI64,
}

/// The times of one of doorward's own keys, from members of its own in the key file. A key of anybody else has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// `doorward:signs_from`: until then the key is only published. Absent: it has always signed.
    pub signs_from: Option<Timestamp>,
    /// `doorward:verifies_until`: from then on all its tokens are dead, and it is gone.
    pub verifies_until: Option<Timestamp>,
    /// `doorward:revoked`: it signs nothing any more, and is published no more (T18).
    pub revoked: bool,
}

/// The keys of one issuer. Never shared between issuers.
#[derive(Debug)]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<Arc<Key>>,
    /// Keys that cannot be used and were passed over (RFC 7517 section 5), each with its name and why: those of a URL that are malformed
    /// or weak, and those of a file whose algorithm is not configured.
    pub unfit: Vec<String>,
}

/// Why a key set is refused; the text names the key by its place or `kid` and the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeySetError(pub String);

/// Most keys in one set: no real issuer has more than a handful.
const MAX_KEYS: usize = 100;
/// RFC 7518 section 3.2: a key as long as the hash, at least.
const MIN_SECRET_BYTES: usize = 32;
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl KeySet {
    /// Reads a JWK set (or one JWK).
    ///
    /// Passed over: encryption keys (`use: enc`), keys whose `key_ops` do not verify, unknown `kty`, `crv` and `alg`, keys of an
    /// algorithm outside `allowed`; from a URL also those that are malformed or weak ([`KeySet::unfit`]).
    ///
    /// # Errors
    /// [`KeySetError`] for malformed JSON, no usable key, an `oct` or private key from a URL, two usable keys of one type with the same
    /// `kid` (of different types they may share it, RFC 7517 section 4.5); in a file also for a malformed or weak key (HS256 under 32
    /// bytes, RSA under 2,048 bits or made by a generator known to be broken).
    pub fn parse(json: &[u8], allowed: &[Algorithm], trust: Trust) -> Result<Self, KeySetError> {
        let mut document = parse_object(json).map_err(|why| KeySetError(format!("the key set {why}")))?;
        let members = match document.remove("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err(KeySetError("the member `keys` of the key set is not an array".into())),
            None if document.contains_key("kty") => vec![Value::Object(document)],
            None => return Err(KeySetError("the key set has no member `keys` (RFC 7517 section 5)".into())),
        };
        if members.len() > MAX_KEYS {
            return Err(KeySetError(format!("the key set holds {} keys; at most {MAX_KEYS} are read", members.len())));
        }
        let mut keys: Vec<Arc<Key>> = Vec::new();
        let (mut passed_over, mut unfit) = (Vec::new(), Vec::new());
        for (place, member) in members.iter().enumerate() {
            let name = member.get("kid").and_then(Value::as_str);
            let name =
                name.map_or_else(|| format!("key {}", place + 1), |kid| format!("key {} (kid {kid:?})", place + 1));
            let read = match member {
                Value::Object(jwk) => read_key(jwk, allowed, trust),
                _ => Err("is not a JSON object".into()),
            };
            match read {
                Ok(key) if key.id.is_some() && keys.iter().any(|other| other.has_the_name_of(&key)) => {
                    return Err(KeySetError(format!(
                        "{name}: an earlier key of its type has the same kid; give each its own"
                    )));
                }
                Ok(key) => keys.push(Arc::new(key)),
                Err(Unfit::PassedOver(why)) => passed_over.push(format!("{name} {why}")),
                Err(Unfit::Unlisted(why)) => {
                    passed_over.push(format!("{name} {why}"));
                    unfit.extend(passed_over.last().filter(|_| trust == Trust::File).cloned());
                }
                Err(Unfit::Unusable(why)) if trust == Trust::Url => {
                    passed_over.push(format!("{name} {why}"));
                    unfit.extend(passed_over.last().cloned());
                }
                Err(Unfit::Unusable(why) | Unfit::Refused(why)) => return Err(KeySetError(format!("{name} {why}"))),
            }
        }
        if keys.is_empty() {
            let why = if passed_over.is_empty() { "it is empty".to_owned() } else { passed_over.join("; ") };
            return Err(KeySetError(format!("the key set holds no key to verify with: {why}")));
        }
        Ok(Self { keys, unfit })
    }

    /// The set in the file at `path`, which every mistake and every key that was passed over is told with.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_file(path: &Path, json: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let path = path.display();
        match Self::parse(json, allowed, Trust::File) {
            Ok(Self { keys, unfit }) => {
                Ok(Self { keys, unfit: unfit.iter().map(|key| format!("{path}: {key}")).collect() })
            }
            Err(error) => Err(KeySetError(format!("{path}: {error}"))),
        }
    }

    /// The set of one shared HS256 secret, without `kid`.
    ///
    /// # Errors
    /// [`KeySetError`] for under 32 bytes.
    pub fn shared_secret(secret: &Secret) -> Result<Self, KeySetError> {
        let bytes = secret.expose();
        strong_secret(bytes).map_err(|why| KeySetError(format!("the shared secret {why}")))?;
        let key = Key {
            id: None,
            algorithm: Algorithm::HS256,
            verifying: VerifyingKey::hmac(bytes),
            signing: Some(SigningKey::hmac(bytes)),
            public: None,
            fingerprint: fingerprint(&[bytes]),
            life: Life::default(),
            good_until: AtomicI64::new(FOREVER),
            retired_from: AtomicI64::new(FOREVER),
        };
        Ok(Self { keys: vec![Arc::new(key)], unfit: Vec::new() })
    }

    /// A new private JWK set with one key, as the JSON document to keep in a file. The `kid` is the key's
    /// thumbprint (RFC 7638), so that no two keys share one by accident.
    ///
    /// # Errors
    /// [`KeySetError`] when the system has no randomness.
    pub fn generate(algorithm: Algorithm) -> Result<Secret, KeySetError> {
        let jwk = super::key_material::generate(algorithm).map_err(KeySetError)?;
        Ok(Secret::new(serde_json::json!({ "keys": [jwk] }).to_string().into_bytes()))
    }

    /// The public half as a JWK set. Symmetric keys are left out.
    #[must_use]
    pub fn public_jwks(&self) -> Value {
        Self::published(self.keys.iter())
    }

    /// As [`Self::public_jwks`], without the keys whose tokens are dead at `now`, and those that are revoked: what
    /// `/.well-known/jwks.json` says.
    #[must_use]
    pub fn public_jwks_at(&self, now: Timestamp) -> Value {
        Self::published(self.keys.iter().filter(|key| key.is_good(now) && !key.life.revoked))
    }

    fn published<'k>(keys: impl Iterator<Item = &'k Arc<Key>>) -> Value {
        let keys: Vec<&Map<String, Value>> = keys.filter_map(|key| key.public.as_ref()).collect();
        serde_json::json!({ "keys": keys })
    }

    /// The first key that can sign.
    #[must_use]
    pub fn signing_key(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.signing.is_some()).map(|key| &**key)
    }

    /// The key that signs at `now`: of those that have begun to, the one that began last; the first in the file, where none says
    /// when it did.
    #[must_use]
    pub fn signing_key_at(&self, now: Timestamp) -> Option<&Key> {
        let begun = |key: &Key| key.life.signs_from.map_or(i64::MIN, |time| time.0);
        let signs = |key: &&Arc<Key>| key.signing.is_some() && key.signs_at(now);
        // The last of equal ones would be taken.
        self.keys.iter().rev().filter(signs).max_by_key(|key| begun(key)).map(|key| &**key)
    }
}

impl Key {
    /// Whether it still verifies at `now`: it stands in its issuer's set, that is not too old, and its own time is not over.
    #[must_use]
    #[inline]
    pub fn is_good(&self, now: Timestamp) -> bool {
        now.0 < self.good_until.load(Ordering::Acquire)
    }

    /// Whether it may sign at `now`, if its private half is there.
    #[must_use]
    pub fn signs_at(&self, now: Timestamp) -> bool {
        let begun = self.life.signs_from.is_none_or(|time| time <= now);
        begun && !self.life.revoked && self.is_good(now)
    }

    /// The issuer's set is good until then.
    pub(super) fn set_good_until(&self, set: i64) {
        let own = self.life.verifies_until.map_or(FOREVER, |time| time.0);
        self.good_until.store(set.min(own), Ordering::Release);
    }

    /// Whether a rotation has ended its time by `now`. A key that left its set before that was withdrawn and is not retired; what
    /// revoked it stands in the revocations.
    #[must_use]
    pub(super) fn is_retired(&self, now: Timestamp) -> bool {
        now.0 >= self.retired_from.load(Ordering::Acquire)
    }

    /// Learns from the same key as it stands in a later set when its time is over.
    pub(super) fn learn_retirement(&self, later: &Self) {
        if self.public.is_some() && self.public == later.public {
            self.retired_from.store(later.retired_from.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Whether the other consists of the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Whether a token cannot tell the two apart: by `kid` and type, which the algorithm stands for.
    fn has_the_name_of(&self, other: &Self) -> bool {
        self.id == other.id && self.algorithm == other.algorithm
    }

    /// Whether the base64url signature over the message is good under this key and its one algorithm.
    #[must_use]
    pub(super) fn verify(&self, message: &[u8], signature: &str) -> bool {
        self.verifying.verify(self.algorithm, message, signature)
    }

    /// The private half, if the set was read with it.
    pub(super) fn signing(&self) -> Option<&SigningKey> {
        self.signing.as_ref()
    }
}

enum Unfit {
    /// Somebody else's business.
    PassedOver(&'static str),
    /// Of an algorithm that is not configured.
    Unlisted(String),
    /// No usable key: a mistake in a file, and its owner's affair behind a URL.
    Unusable(String),
    /// With this key the whole set is not to be believed.
    Refused(String),
}

impl From<&'static str> for Unfit {
    fn from(why: &'static str) -> Self {
        Self::Unusable(why.to_owned())
    }
}

fn read_key(jwk: &Map<String, Value>, allowed: &[Algorithm], trust: Trust) -> Result<Key, Unfit> {
    let has_private = PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member));
    // Asked before anything else: whoever publishes secrets has to be told, whatever the key is for and however odd it is.
    if trust == Trust::Url && (has_private || jwk.get("kty").is_some_and(|kty| kty == "oct")) {
        return Err(Unfit::Refused(
            "is published with its secret or private members; anybody can sign with it".to_owned(),
        ));
    }
    let kty = text(jwk, "kty")?.ok_or("has no `kty`")?;
    match text(jwk, "use")? {
        None | Some("sig") => {}
        Some(_) => return Err(Unfit::PassedOver("is not for signatures (`use`)")),
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations = operations.as_array().ok_or("has a `key_ops` that is not an array")?;
        let fits = |operation: &Value| operation == "verify" || (operation == "sign" && has_private);
        if !operations.iter().any(fits) {
            return Err(Unfit::PassedOver("does not verify (`key_ops`)"));
        }
    }
    let fitting = match (kty, text(jwk, "crv")?) {
        ("oct", _) => Algorithm::HS256,
        ("RSA", _) => Algorithm::RS256,
        ("EC", Some("P-256")) => Algorithm::ES256,
        ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
        _ => return Err(Unfit::PassedOver("has a `kty` or `crv` that is not supported")),
    };
    match text(jwk, "alg")? {
        Some(alg) if alg == fitting.name() => {}
        Some(alg) if Algorithm::from_name(alg).is_some() => {
            return Err(Unfit::Unusable(format!("says `alg` {alg}, which does not fit its `kty` {kty}")));
        }
        Some(_) => return Err(Unfit::PassedOver("has an `alg` that is not supported")),
        None => {}
    }
    if !allowed.contains(&fitting) {
        return Err(Unfit::Unlisted(format!(
            "is for {}, which the issuer's `algorithms` do not list; add it there if it is meant",
            fitting.name()
        )));
    }
    let id = text(jwk, "kid")?.map(Box::from);
    let (verifying, signing) = match fitting {
        Algorithm::HS256 => {
            let secret = binary(jwk, "k")?;
            strong_secret(&secret)?;
            (VerifyingKey::hmac(&secret), Some(SigningKey::hmac(&secret)))
        }
        Algorithm::RS256 => {
            let (n, e) = (binary(jwk, "n")?, binary(jwk, "e")?);
            let verifying = VerifyingKey::rsa(&n, &e)?;
            let signing = if jwk.contains_key("d") {
                if jwk.contains_key("oth") {
                    return Err("has more than two primes, which is not supported".into());
                }
                let mut private = Vec::with_capacity(6);
                for member in ["d", "p", "q", "dp", "dq", "qi"] {
                    private.push(binary(jwk, member)?);
                }
                Some(SigningKey::rsa(&n, &e, &private)?)
            } else {
                None
            };
            (verifying, signing)
        }
        Algorithm::ES256 => {
            let (x, y) = (binary(jwk, "x")?, binary(jwk, "y")?);
            let private = jwk.contains_key("d").then(|| binary(jwk, "d")).transpose()?;
            let verifying = VerifyingKey::p256(&x, &y)?;
            (verifying, private.map(|d| SigningKey::p256(&x, &y, &d)).transpose()?)
        }
        Algorithm::EdDSA => {
            let x = binary(jwk, "x")?;
            let private = jwk.contains_key("d").then(|| binary(jwk, "d")).transpose()?;
            let verifying = VerifyingKey::ed25519(&x)?;
            (verifying, private.map(|d| SigningKey::ed25519(&x, &d)).transpose()?)
        }
    };
    let public = (fitting != Algorithm::HS256).then(|| {
        let mut public: Map<String, Value> = ["kty", "crv", "kid", "n", "e", "x", "y"]
            .into_iter()
            .filter_map(|member| Some((member.to_owned(), jwk.get(member)?.clone())))
            .collect();
        public.insert("use".into(), "sig".into());
        public.insert("alg".into(), fitting.name().into());
        public
    });
    let life = Life {
        signs_from: moment(jwk, SIGNS_FROM, trust)?,
        verifies_until: moment(jwk, VERIFIES_UNTIL, trust)?,
        revoked: trust == Trust::File && jwk.get(REVOKED).is_some_and(|value| *value != Value::Bool(false)),
    };
    let until = life.verifies_until.map_or(FOREVER, |time| time.0);
    let (good_until, retired_from) = (AtomicI64::new(until), AtomicI64::new(until));
    let fingerprint = fingerprint(&material(jwk, fitting, signing.is_some(), &life));
    Ok(Key { id, algorithm: fitting, verifying, signing, public, fingerprint, life, good_until, retired_from })
}

/// Unix seconds from which on a key signs.
pub(super) const SIGNS_FROM: &str = "doorward:signs_from";
/// Unix seconds from which on a key is gone.
pub(super) const VERIFIES_UNTIL: &str = "doorward:verifies_until";
/// `true`: the key signs nothing any more.
pub(super) const REVOKED: &str = "doorward:revoked";

/// Strangers' sets say nothing about times.
fn moment(jwk: &Map<String, Value>, member: &'static str, trust: Trust) -> Result<Option<Timestamp>, Unfit> {
    match jwk.get(member).filter(|_| trust == Trust::File) {
        None => Ok(None),
        Some(value) => value
            .as_i64()
            .map(|seconds| Some(Timestamp(seconds)))
            .ok_or_else(|| Unfit::Unusable(format!("has a `{member}` that is not a time in Unix seconds"))),
    }
}

/// All that makes the key what it is.
fn material(jwk: &Map<String, Value>, algorithm: Algorithm, signs: bool, life: &Life) -> Vec<Vec<u8>> {
    let members = ["kid", "n", "e", "x", "y", "k"];
    let mut parts: Vec<Vec<u8>> = members
        .into_iter()
        .map(|member| jwk.get(member).map_or_else(Vec::new, |value| value.to_string().into_bytes()))
        .collect();
    parts.push(format!("{algorithm:?} {signs} {life:?}").into_bytes());
    parts
}

fn fingerprint(parts: &[impl AsRef<[u8]>]) -> [u8; 32] {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    for part in parts {
        text.extend_from_slice(&part.as_ref().len().to_be_bytes());
        text.extend_from_slice(part.as_ref());
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, &text).as_ref());
    fingerprint
}

fn strong_secret(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() < MIN_SECRET_BYTES {
        return Err(
            "is shorter than the 32 bytes that HS256 needs (RFC 7518 section 3.2); `openssl rand -base64 48` makes one",
        );
    }
    if is_published(bytes) {
        return Err("is a public key or a certificate, which everybody has; anybody could sign with it");
    }
    Ok(())
}

/// Whether these bytes are what public keys are published as. An issuer that changed from RS256 to a secret, with the old
/// key left where the secret belongs, would be open to whoever can read that key (CVE-2015-9235).
fn is_published(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii();
    let is_openssh =
        [b"ssh-rsa ".as_slice(), b"ssh-ed25519 ", b"ecdsa-sha2-"].iter().any(|start| text.starts_with(start));
    let is_jwk = || {
        let asymmetric = |kty: &Value| kty != "oct";
        parse_object(text).is_ok_and(|jwk| jwk.get("kty").is_some_and(asymmetric) || jwk.contains_key("keys"))
    };
    let is_encoded = || decode_any_base64(text).is_some_and(|bytes| is_pem_or_der(&bytes));
    is_openssh || is_jwk() || is_pem_or_der(bytes) || is_encoded()
}

fn is_pem_or_der(bytes: &[u8]) -> bool {
    use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo, X509Certificate};
    // RFC 7468 section 2: text may stand before it, and what prints certificates writes whose they are.
    let is_pem =
        [b"-----BEGIN PUBLIC KEY-----".as_slice(), b"-----BEGIN RSA PUBLIC KEY-----", b"-----BEGIN CERTIFICATE-----"]
            .iter()
            .any(|marker| bytes.windows(marker.len()).any(|part| part == *marker));
    is_pem
        || SubjectPublicKeyInfo::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty())
        || X509Certificate::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty())
        || super::key_material::is_pkcs1(bytes)
}

/// What a PEM holds between its markers is often published without them (Keycloak's `public_key`, `x5c`), in either alphabet.
fn decode_any_base64(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let in_standard = |byte: u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).map(in_standard).collect();
    LENIENT.decode(zeroize::Zeroizing::new(text)).ok()
}

fn text<'j>(jwk: &'j Map<String, Value>, member: &'static str) -> Result<Option<&'j str>, Unfit> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Unfit::Unusable(format!("has a `{member}` that is not a string"))),
    }
}

fn binary(jwk: &Map<String, Value>, member: &'static str) -> Result<zeroize::Zeroizing<Vec<u8>>, Unfit> {
    let text = text(jwk, member)?.ok_or_else(|| Unfit::Unusable(format!("has no `{member}`")))?;
    let bytes = decode_base64url(text).filter(|bytes| !bytes.is_empty());
    bytes.map(zeroize::Zeroizing::new).ok_or_else(|| Unfit::Unusable(format!("has a `{member}` that is not base64url")))
}

/// RFC 7638: the SHA-256 of the required members in alphabetical order. `serde_json` keeps maps sorted.
pub(super) fn thumbprint(required: &Map<String, Value>) -> String {
    let sorted: std::collections::BTreeMap<_, _> = required.iter().collect();
    let canonical = serde_json::to_vec(&sorted).unwrap_or_default();
    encode_base64url(digest(&SHA256, &canonical).as_ref())
}

#[cfg(test)]
#[path = "jwk_tests.rs"]
mod tests;
