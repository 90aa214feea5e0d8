//! What is minted is accepted, and says what was asked for.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::{MintError, MintRequest, inspect, mint};
use crate::rbac::{Membership, RoleKey, ServiceName, TierKey};
use crate::token::fixtures::{ALL, NOW, foreign, keys, own};
use crate::token::jwk::{KeySet, Trust};
use crate::token::{Issuer, IssuerKeys, Verifier};

fn request() -> MintRequest<'static> {
    MintRequest { subject: "alice", ttl: Duration::from_secs(900), ..MintRequest::default() }
}

#[test]
fn a_minted_token_says_what_was_asked_for() {
    let roles = [RoleKey::parse("ROLE_EDITOR").unwrap(), RoleKey::parse("ROLE_USER").unwrap()];
    let memberships =
        [Membership { service: ServiceName::parse("oms").unwrap(), tier: TierKey::parse("FREE").unwrap() }];
    for algorithm in ALL {
        let request = MintRequest {
            roles: &roles,
            memberships: &memberships,
            session: Some("s-1"),
            uv: Some(7),
            name: Some("Alice"),
            email: Some("a@example.com"),
            key_id: Some(algorithm.name()),
            ..request()
        };
        let token = mint(&own(), &request, NOW).unwrap();
        let found = Verifier::new(vec![own()]).verify(&token, NOW).unwrap();
        assert_eq!((&*found.subject, &*found.roles, &*found.memberships), ("alice", &roles[..], &memberships[..]));
        assert_eq!((found.session.as_deref(), found.uv), (Some("s-1"), Some(7)));
        assert_eq!((found.name.as_deref(), found.email.as_deref()), (Some("Alice"), Some("a@example.com")));
        assert_eq!((found.issued_at, found.expires_at), (NOW, NOW.plus(900)));
        assert_eq!(found.key_id.as_deref(), Some(algorithm.name()));
        let shown = inspect(&token, NOW.plus(60)).unwrap();
        assert_eq!(shown["header"]["typ"], "at+jwt");
        assert_eq!(shown["times"]["exp"], "2027-01-15T08:15:00Z (in 14m 0s)");
        assert_eq!(shown["times"]["iat"], "2027-01-15T08:00:00Z (1m 0s ago)");
    }
}

#[test]
fn paths_of_the_issuer_are_written_as_they_are_read() {
    let mut issuer = own();
    issuer.claims.roles = "realm_access.roles".into();
    issuer.claims.name = "https://kc.example/name".into();
    let roles = [RoleKey::parse("ROLE_USER").unwrap()];
    let token = mint(&issuer, &MintRequest { roles: &roles, name: Some("Alice"), ..request() }, NOW).unwrap();
    let found = Verifier::new(vec![issuer]).verify(&token, NOW).unwrap();
    assert_eq!((&*found.roles, found.name.as_deref()), (&roles[..], Some("Alice")));
}

#[test]
fn t05_nothing_is_minted_that_lives_too_long() {
    for seconds in [0, 3601, 86_400] {
        let refused = mint(&own(), &MintRequest { ttl: Duration::from_secs(seconds), ..request() }, NOW);
        assert!(matches!(refused, Err(MintError::Lifetime { .. })), "{seconds}: {refused:?}");
    }
    assert!(mint(&own(), &MintRequest { ttl: Duration::from_secs(3600), ..request() }, NOW).is_ok());
}

#[test]
fn without_a_private_key_or_with_a_bad_subject_nothing_is_minted() {
    let public = KeySet::parse(keys().public_jwks().to_string().as_bytes(), &ALL, Trust::Url).unwrap();
    let issuer = Issuer { keys: IssuerKeys::fixed(public), ..own() };
    assert!(matches!(mint(&issuer, &request(), NOW), Err(MintError::NoSigningKey { .. })));
    let other_key = MintRequest { key_id: Some("no such"), ..request() };
    assert!(mint(&own(), &other_key, NOW).unwrap_err().to_string().contains("no such"));
    let refused = mint(&own(), &MintRequest { subject: "a,b", ..request() }, NOW);
    assert!(matches!(refused, Err(MintError::Unacceptable(_))), "{refused:?}");
    assert!(mint(&foreign(), &request(), NOW).is_ok(), "for tests, a foreign issuer's private key in a file is enough");
}

#[test]
fn inspecting_reads_what_verification_would_refuse_and_never_panics() {
    let none = "eyJhbGciOiJub25lIn0.eyJleHAiOjF9.";
    assert_eq!(inspect(none, NOW).unwrap()["header"]["alg"], "none");
    for bad in ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.W10.", "x"] {
        assert!(inspect(bad, NOW).is_err(), "{bad}");
    }
}
