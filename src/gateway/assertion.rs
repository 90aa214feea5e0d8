//! `X-User-Assertion`: a signed word of doorward's to the service, so that it need not take the headers' word for who is asking
//! (SPEC 3.7; THREATS T19, T31).
//!
//! A JWT of a minute, for one service, one method, one target and one request. Its key is its own, published at
//! [`KEYS_PATH`]; its `typ` is one that no issuer's token may have, so it opens nothing when it is sent back to doorward.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use http::{HeaderName, HeaderValue, Method, Response, Uri};
use serde::Serialize;
use serde::ser::{SerializeMap as _, SerializeSeq as _, Serializer};
use uuid::Uuid;

use super::reply::Denial;
use crate::admission::Permit;
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey};
use crate::reason::Reason;
use crate::token::Signer;

/// Where the gateway publishes the keys, before any policy is asked.
pub const KEYS_PATH: &str = "/_doorward/assertion-jwks.json";
/// `typ` of every assertion.
pub const TYPE: &str = "doorward-assertion+jwt";
/// `iss` of every assertion.
pub const ISSUER: &str = "urn:doorward:gateway";
const USER_ASSERTION: HeaderName = HeaderName::from_static("x-user-assertion");
/// How long the published keys may be remembered. A key is published as soon as it signs, so a service that meets an unknown
/// `kid` asks again.
const KEYS_CACHE: &str = "public, max-age=300";

/// Makes assertions.
#[derive(Debug, Clone)]
pub struct Assertions {
    signer: Arc<Signer>,
    /// Seconds.
    ttl: i64,
    keys: Bytes,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'a str,
    sub: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(serialize_with = "roles")]
    roles: &'a [RoleKey],
    #[serde(serialize_with = "memberships")]
    memberships: &'a [Membership],
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    auth_method: &'static str,
    method: &'a str,
    uri: &'a str,
    request_id: &'a str,
}

fn roles<S: Serializer>(roles: &[RoleKey], out: S) -> Result<S::Ok, S::Error> {
    let mut list = out.serialize_seq(Some(roles.len()))?;
    for role in roles {
        list.serialize_element(role.as_str())?;
    }
    list.end()
}

fn memberships<S: Serializer>(memberships: &[Membership], out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(Some(memberships.len()))?;
    for held in memberships {
        map.serialize_entry(held.service.as_str(), held.tier.as_str())?;
    }
    map.end()
}

impl Assertions {
    /// Assertions by this key, good for `ttl`.
    #[must_use]
    pub fn new(signer: Signer, ttl: Duration) -> Self {
        let keys = Bytes::from(signer.published().to_string());
        Self { signer: Arc::new(signer), ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX), keys }
    }

    /// Adds the assertion to a request that is about to be forwarded, if somebody is known to ask. `uri` is the target as
    /// forwarded, query included; the service finds the same bytes in its request line. A failure of the cryptographic
    /// library leaves the header absent, which a service that relies on it refuses.
    pub fn vouch(
        &self,
        headers: &mut HeaderMap,
        permit: &Permit<'_>,
        method: &Method,
        uri: &Uri,
        request_id: &HeaderValue,
        now: Timestamp,
    ) {
        let judged = permit.judged();
        let Some(caller) = &judged.caller else { return };
        let service = judged.decision.service.and_then(|index| judged.snapshot.service_by_index(index));
        let Some(service) = service else { return };
        let mut jti = Uuid::encode_buffer();
        let (token, grants) = (&caller.entry.claims, caller.identity.grants());
        let claims = Claims {
            iss: ISSUER,
            aud: &service.name,
            sub: &token.subject,
            iat: now.0,
            exp: now.plus(self.ttl).0,
            jti: Uuid::now_v7().hyphenated().encode_lower(&mut jti),
            name: token.name.as_deref(),
            email: token.email.as_deref(),
            roles: grants.roles(),
            memberships: grants.memberships(),
            sid: token.session.as_deref(),
            auth_method: caller.method.word(),
            method: method.as_str(),
            uri: uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
            request_id: request_id.to_str().unwrap_or_default(),
        };
        if let Some(mut value) = self.signer.sign(&claims).and_then(|token| HeaderValue::try_from(token).ok()) {
            value.set_sensitive(true);
            headers.insert(USER_ASSERTION, value);
        }
    }

    /// The answer to a request for [`KEYS_PATH`].
    ///
    /// # Errors
    /// A denial for another method than GET and HEAD.
    pub fn published(&self, method: &Method) -> Result<Response<Bytes>, Denial> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let denial = Denial::plain(Reason::MethodNotAllowed, "the keys can only be read");
            return Err(Denial { allow: Some("GET, HEAD".into()), ..denial });
        }
        let mut answer = Response::new(self.keys.clone());
        let headers = answer.headers_mut();
        // RFC 7517 section 8.5.2.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEYS_CACHE));
        Ok(answer)
    }
}
