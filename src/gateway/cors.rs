//! What pages of other origins may ask and learn: the policy's `cors:` as headers (the Fetch standard, "CORS protocol").
//!
//! A preflight is answered here, before anybody is asked who they are: it carries no credential. To an answer, a denial
//! included, headers are added that let a script of an allowed origin read it. A request from another origin is served
//! like any other; that its script cannot read the answer is the browser's work. (What another origin may do with a *cookie*
//! is not left to browsers: [`crate::admission::cross_site`].)

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderName, ORIGIN, VARY,
};
use http::{HeaderValue, Method, Response, StatusCode};
use smallvec::SmallVec;

use super::reply;
use crate::admission::Judged;
use crate::policy::Snapshot;
use crate::policy::source::Cors;
use crate::request::{Host, RequestFacts};

/// What a script may read of every answer, beside what `expose` lists and what any script may read: what doorward itself says.
const EXPOSED: &str = "Doorward-Decision, X-Request-Id, RateLimit-Limit, RateLimit-Policy, RateLimit-Remaining, \
                       RateLimit-Reset, Retry-After, WWW-Authenticate";
/// What a script may send where `headers` is absent: the credential, and that a body is JSON.
const SENT: &str = "Authorization, Content-Type";
const ANY: HeaderValue = HeaderValue::from_static("*");

/// How pages of other origins learn of one answer.
#[derive(Debug)]
pub struct CrossOrigin {
    rules: Arc<Cors>,
    /// The origin that the request came from, if it may.
    origin: Option<HeaderValue>,
}

/// What an answer to this request says to other origins, if a `cors:` counts for it.
#[must_use]
#[inline]
pub fn cross_origin(judged: &Judged<'_>, host: Option<&Host>, headers: &HeaderMap) -> Option<Box<CrossOrigin>> {
    let rules = judged.snapshot.cors_of(&judged.decision, host)?;
    Some(Box::new(CrossOrigin { rules: Arc::clone(rules), origin: allowed_origin(rules, headers) }))
}

impl CrossOrigin {
    /// Adds the headers to an answer. What the upstream says of other origins is replaced: the policy knows better.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let replaced: SmallVec<[HeaderName; 4]> =
            headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        for name in replaced {
            headers.remove(name);
        }
        if !is_open(&self.rules) {
            // To a request without an `Origin` too: a cache would give its answer to one with.
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = &self.origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        allow_credentials(&self.rules, headers);
        let exposed = match &self.rules.expose[..] {
            [] => Some(HeaderValue::from_static(EXPOSED)),
            listed if is_any(listed) => Some(ANY),
            listed => HeaderValue::try_from(format!("{EXPOSED}, {}", listed.join(", "))).ok(),
        };
        if let Some(exposed) = exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// The answer to a preflight and the index of the service whose `cors:` gives it; `None` for what is no preflight, or where no
/// `cors:` counts.
#[must_use]
pub fn preflight(snapshot: &Snapshot, facts: &RequestFacts<'_>, headers: &HeaderMap) -> Option<(Response<Bytes>, u32)> {
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| headers.contains_key(ORIGIN))?;
    let wanted = Method::from_bytes(wanted.as_bytes()).ok()?;
    let found = snapshot.preflight(facts, wanted.as_str())?;
    let rules = found.cors;
    let mut answer = reply::empty(StatusCode::NO_CONTENT);
    let told = answer.headers_mut();
    told.insert(
        VARY,
        HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    if let Some(origin) = allowed_origin(rules, headers) {
        told.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        allow_credentials(rules, told);
        let sent = match &rules.headers[..] {
            [] => SENT.to_owned(),
            // The star does not stand for Authorization (Fetch, "CORS-preflight fetch").
            listed if is_any(listed) => "*, Authorization".to_owned(),
            listed => listed.join(", "),
        };
        let age = rules.max_age.map(|age| age.as_secs().to_string());
        let values = [
            (ACCESS_CONTROL_ALLOW_METHODS, Some(found.methods)),
            (ACCESS_CONTROL_ALLOW_HEADERS, Some(sent)),
            (ACCESS_CONTROL_MAX_AGE, age),
        ];
        for (name, value) in values {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                told.insert(name, value);
            }
        }
    }
    Some((answer, found.service))
}

/// The value of `Access-Control-Allow-Origin`. Origins are compared byte for byte, as browsers write them; two are none.
fn allowed_origin(rules: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    if is_open(rules) {
        return Some(ANY);
    }
    let mut sent = headers.get_all(ORIGIN).iter();
    let origin = sent.next().filter(|_| sent.next().is_none())?;
    rules.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Whether every origin may read the answers; never with credentials, which the policy file is refused for.
fn is_open(rules: &Cors) -> bool {
    !rules.credentials && is_any(&rules.origins)
}

fn is_any(list: &[String]) -> bool {
    list.iter().any(|entry| entry == "*")
}

fn allow_credentials(rules: &Cors, headers: &mut HeaderMap) {
    if rules.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}
