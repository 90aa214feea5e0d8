//! What goes through Redis is signed (THREATS T11): one line of text, `KEY SIGNATURE BODY`.
//!
//! Ed25519 (RFC 8032) over the name of the kind, a line end, and the body, so that a signature of one kind is none of another. `KEY`
//! is the public key's short name, `SIGNATURE` base64url without padding, `BODY` JSON without line ends.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A [`super::Change`].
    Change,
    /// A [`super::Manifest`].
    Manifest,
    /// A [`super::Heartbeat`].
    Heartbeat,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Change => "doorward change 1\n",
            Self::Manifest => "doorward manifest 1\n",
            Self::Heartbeat => "doorward heartbeat 1\n",
        }
    }

    fn signed(self, body: &str) -> Vec<u8> {
        [self.name().as_bytes(), body.as_bytes()].concat()
    }
}

/// The control plane's key.
pub struct PublicationKey {
    pair: Ed25519KeyPair,
    name: String,
}

/// The public keys that a gateway believes.
#[derive(Debug, Clone, Default)]
pub struct PinnedKeys(Vec<(String, ParsedPublicKey)>);

/// Why a key or a line is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// A key that cannot be read.
    #[error("{0}")]
    Key(String),
    /// Signed by nobody who is pinned.
    #[error("signed by the key {0}, which is not pinned ([publication] public_keys)")]
    UnknownKey(String),
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Forged,
    /// Not in the form of this module, or of another kind.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl fmt::Debug for PublicationKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicationKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PublicationKey {
    /// From the PKCS#8 document of an Ed25519 key.
    ///
    /// # Errors
    /// [`SignedError::Key`] for any other.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, SignedError> {
        let pair = Ed25519KeyPair::from_pkcs8(document)
            .map_err(|_| SignedError::Key("it is no Ed25519 key in PKCS#8".into()))?;
        let name = name(pair.public_key().as_ref());
        Ok(Self { pair, name })
    }

    /// The public half, in base64url: what gateways pin.
    #[must_use]
    pub fn public(&self) -> String {
        BASE64.encode(self.pair.public_key())
    }

    /// The line that says `body`.
    ///
    /// # Errors
    /// [`SignedError`] if the cryptographic library fails, or the body is not JSON.
    pub fn sign(&self, kind: Kind, body: &impl Serialize) -> Result<String, SignedError> {
        let body = serde_json::to_string(body).map_err(|error| SignedError::Malformed(error.to_string()))?;
        let signature =
            self.pair.try_sign(&kind.signed(&body)).map_err(|_| SignedError::Key("it cannot sign".into()))?;
        Ok(format!("{} {} {body}", self.name, BASE64.encode(signature)))
    }
}

impl PinnedKeys {
    /// The keys of these public halves (32 bytes each, in base64url).
    ///
    /// # Errors
    /// [`SignedError::Key`] names the first that is none.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, SignedError> {
        let key = |text: &str| {
            let refused = || SignedError::Key(format!("{text:?} is no Ed25519 public key (32 bytes in base64url)"));
            let bytes = BASE64.decode(text).ok().filter(|bytes| bytes.len() == 32).ok_or_else(refused)?;
            let key = ParsedPublicKey::new(&ED25519, &bytes).map_err(|_| refused())?;
            Ok((name(&bytes), key))
        };
        texts.into_iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// These keys, and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// What a line says, if a pinned key has signed it as this kind.
    ///
    /// # Errors
    /// [`SignedError`] says what is wrong; nothing of the line is to be believed then.
    pub fn open<T: DeserializeOwned>(&self, kind: Kind, line: &str) -> Result<T, SignedError> {
        let malformed = |what: &str| SignedError::Malformed(what.to_owned());
        let (name, rest) = line.split_once(' ').ok_or_else(|| malformed("it has no signature"))?;
        let (signature, body) = rest.split_once(' ').ok_or_else(|| malformed("it has no body"))?;
        let (_, key) =
            self.0.iter().find(|(pinned, _)| pinned == name).ok_or_else(|| SignedError::UnknownKey(name.to_owned()))?;
        let signature = BASE64.decode(signature).map_err(|_| malformed("the signature is not base64url"))?;
        key.verify_sig(&kind.signed(body), &signature).map_err(|_| SignedError::Forged)?;
        serde_json::from_str(body).map_err(|error| malformed(&error.to_string()))
    }
}

/// The short name of a public key: enough to tell which of a few it is, and no secret.
fn name(public: &[u8]) -> String {
    BASE64.encode(&digest(&SHA256, public).as_ref()[..6])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::revocation::Heartbeat;

    fn key() -> PublicationKey {
        PublicationKey::from_pkcs8(Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref()).unwrap()
    }

    #[test]
    fn t11_only_what_a_pinned_key_signed_as_this_kind_is_believed() {
        let (ours, theirs) = (key(), key());
        let pinned = PinnedKeys::parse([ours.public().as_str()]).unwrap();
        let said = Heartbeat { epoch: 1, truth: uuid::Uuid::nil(), n: 2, count: 3, at: 4, keeps: None };
        let line = ours.sign(Kind::Heartbeat, &said).unwrap();
        assert_eq!(pinned.open::<Heartbeat>(Kind::Heartbeat, &line), Ok(said));
        assert_eq!(pinned.open::<Heartbeat>(Kind::Manifest, &line), Err(SignedError::Forged));
        assert_eq!(
            pinned.open::<Heartbeat>(Kind::Heartbeat, &line.replace("\"n\":2", "\"n\":9")),
            Err(SignedError::Forged)
        );
        let stranger = theirs.sign(Kind::Heartbeat, &said).unwrap();
        assert!(matches!(pinned.open::<Heartbeat>(Kind::Heartbeat, &stranger), Err(SignedError::UnknownKey(_))));
        let renamed = stranger.replacen(&theirs.name, &ours.name, 1);
        assert_eq!(pinned.open::<Heartbeat>(Kind::Heartbeat, &renamed), Err(SignedError::Forged));
        for bad in ["", "a", "a b", "a b c", &line.replacen(' ', "", 1)] {
            assert!(pinned.open::<Heartbeat>(Kind::Heartbeat, bad).is_err(), "{bad:?}");
        }
    }
}
