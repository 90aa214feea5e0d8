//! A token that somebody pastes in order to revoke it: whose it is and by what it is revoked.
//!
//! The signature must be good, or anybody could have ids revoked that belong to others. Times and audience do not matter: a token
//! that is not valid yet, or that another service takes, is worth revoking too.

use std::sync::Arc;

use super::claims::RegisteredClaims;
use super::compact::Compact;
use super::json::parse_object;
use super::verify::{TokenRejection, Verifier, check_signature, whole_seconds};
use crate::clock::Timestamp;

/// What identifies a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasted {
    /// Name of its issuer in the configuration.
    pub issuer: Arc<str>,
    /// `jti`; a token without one cannot be revoked alone.
    pub token_id: Option<Box<str>>,
    /// `exp`.
    pub expires_at: Timestamp,
    /// From then on every process refuses it: `exp`, plus the leeway of a foreign issuer.
    pub refused_from: Timestamp,
}

/// Reads a token that one of the verifier's issuers has signed.
///
/// # Errors
/// As [`Verifier::verify`], but for times, audience and the claims of its subject.
pub fn read(verifier: &Verifier, token: &str) -> Result<Pasted, TokenRejection> {
    let compact = Compact::parse(token)?;
    let payload =
        parse_object(&compact.payload).map_err(|why| TokenRejection::malformed_owned(format!("the payload {why}")))?;
    let registered = RegisteredClaims::read(&payload)?;
    let issuer = verifier.issuer_of(registered.issuer)?;
    // Times do not matter for the key either, as long as it is one of the issuer's: one that could not be fetched again of late is none
    // to let anybody in by, but whom it has signed for is to be kept out still.
    check_signature(&compact, &issuer.keys.set(), &issuer.algorithms, |_| true)?;
    let leeway = if issuer.own { 0 } else { whole_seconds(issuer.leeway) };
    Ok(Pasted {
        issuer: Arc::clone(&issuer.name),
        token_id: registered.token_id.map(Box::from),
        expires_at: registered.expires_at,
        refused_from: registered.expires_at.plus(leeway),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reason::Reason;
    use crate::token::fixtures::{ALL, NOW, claims, foreign, own, own_claims, private_jwk, token, with, without};
    use crate::token::jwk::{KeySet, Trust};
    use crate::token::{Issuer, IssuerKeys};

    fn pasted(token: &str) -> Result<Pasted, Reason> {
        read(&Verifier::new(vec![foreign(), own()]), token).map_err(|rejection| rejection.reason)
    }

    #[test]
    fn a_token_is_known_by_its_issuer_and_id_whatever_the_time_and_the_audience() {
        let old = with(with(claims(), "exp", json!(NOW.0 - 9_000)), "aud", json!("elsewhere"));
        let found = pasted(&token(&with(old, "nbf", json!(NOW.0 + 9_000)))).unwrap();
        assert_eq!((&*found.issuer, found.token_id.as_deref()), ("kc", Some("t-1")));
        assert_eq!((found.expires_at, found.refused_from), (NOW.plus(-9_000), NOW.plus(-8_970)));
        let own = pasted(&token(&own_claims())).unwrap();
        assert_eq!((&*own.issuer, own.refused_from), ("doorward", NOW.plus(600)));
        assert_eq!(pasted(&token(&without(claims(), "jti"))).unwrap().token_id, None);
    }

    #[test]
    fn a_token_can_be_revoked_while_its_issuers_keys_are_too_old_to_let_anybody_in() {
        // Keys of its own: other tests go on verifying by those of the fixtures.
        let document = json!({ "keys": ALL.map(private_jwk) }).to_string();
        let keys = IssuerKeys::fixed(KeySet::parse(document.as_bytes(), &ALL, Trust::File).unwrap());
        let verifier = Verifier::new(vec![Issuer { keys: Arc::clone(&keys), ..foreign() }]);
        keys.expire();
        assert!(verifier.verify(&token(&claims()), NOW).is_err());
        let found = read(&verifier, &token(&claims())).map_err(|rejection| rejection.reason);
        assert_eq!(found.unwrap().token_id.as_deref(), Some("t-1"));
    }

    #[test]
    fn nobody_has_ids_revoked_without_the_issuers_signature() {
        let good = token(&claims());
        let (input, signature) = good.rsplit_once('.').unwrap();
        let other = token(&with(claims(), "jti", json!("t-2")));
        let (forged, _) = other.rsplit_once('.').unwrap();
        assert_eq!(pasted(&format!("{forged}.{signature}")), Err(Reason::BadSignature));
        assert_eq!(pasted(&format!("{input}.")), Err(Reason::BadSignature));
        assert_eq!(pasted(&token(&with(claims(), "iss", json!("https://else.example")))), Err(Reason::WrongIssuer));
        assert_eq!(pasted("t-1"), Err(Reason::MalformedToken));
    }
}
