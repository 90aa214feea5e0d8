//! Doorward's own answers: denials as `application/problem+json` (RFC 9457) and what goes with them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::upstream::UpstreamError;
use crate::admission::Judged;
use crate::policy::Outcome;
use crate::reason::Reason;
use crate::request::Rejection;

/// Tells doorward's denials from the upstream's own (SPEC 3).
pub const DECISION: HeaderName = HeaderName::from_static("doorward-decision");
/// The realm of a challenge where no service is known.
const REALM: &str = "doorward";

/// A denial, ready to be answered.
#[derive(Debug, Clone)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The status, which for `no_route` is the policy's choice.
    pub status: u16,
    /// More, for people.
    pub detail: Cow<'static, str>,
    /// The service, for the challenge's realm.
    pub realm: Option<Arc<str>>,
    /// The value of `Allow`.
    pub allow: Option<Box<str>>,
    /// Whether the connection cannot be used again.
    pub close: bool,
}

impl Denial {
    /// A denial for a reason alone.
    pub fn plain(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, status: reason.status(), detail: detail.into(), realm: None, allow: None, close: false }
    }

    /// Of a request that could be read in two ways: nothing behind it on the connection can be trusted.
    #[must_use]
    pub fn of_rejection(rejection: Rejection) -> Self {
        Self { close: true, ..Self::plain(rejection.reason, rejection.detail) }
    }

    /// Of what was decided.
    #[must_use]
    pub fn of_judged(judged: &Judged<'_>, reason: Reason) -> Self {
        let decision = &judged.decision;
        let service = decision.service.and_then(|index| judged.snapshot.services().get(index as usize));
        Self {
            reason,
            status: if decision.outcome == Outcome::Deny(reason) { decision.status } else { reason.status() },
            detail: decision.detail.clone(),
            realm: service.map(|service| Arc::clone(&service.name)),
            allow: decision.allow.clone(),
            close: false,
        }
    }

    /// Of a host that the connection's certificate is not for. The client may ask again on a connection of its own.
    #[must_use]
    pub fn misdirected() -> Self {
        Self::plain(Reason::MisdirectedRequest, "the certificate of this connection is not for this host")
    }

    /// Of a body over its limit.
    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        Self { close: true, ..Self::plain(Reason::BodyTooLarge, format!("the limit is {limit} bytes")) }
    }

    /// Of a request that got no answer. The upstream's address stays in the log.
    #[must_use]
    pub fn of_upstream(error: &UpstreamError, limit: u64) -> Self {
        match error.reason {
            Reason::BodyTooLarge => Self::too_large(limit),
            Reason::BadRequest => {
                Self { close: true, ..Self::plain(Reason::BadRequest, "the request body is malformed or broke off") }
            }
            Reason::Overloaded => Self::plain(Reason::Overloaded, "too many requests to this service are under way"),
            Reason::UpstreamTimeout => Self::plain(Reason::UpstreamTimeout, "the service did not answer in time"),
            reason => Self::plain(reason, "the service behind doorward could not be reached, or broke off"),
        }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        let error = match self.reason {
            Reason::MissingToken => "",
            Reason::PermissionMissing => ", error=\"insufficient_scope\"",
            reason if reason.status() == 401 => ", error=\"invalid_token\"",
            _ => return None,
        };
        let realm = self.realm.as_deref().unwrap_or(REALM);
        HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}")).ok()
    }

    /// The answer, but for `X-Request-Id`, which every response gets.
    #[must_use]
    pub fn answer(&self, request_id: &str) -> Response<Bytes> {
        let mut body = String::with_capacity(256);
        let code = self.reason.code();
        let _ = write!(
            body,
            r#"{{"type":"urn:doorward:problem:{code}","title":{},"status":{},"detail":{},"reason":"{code}","request_id":{}}}"#,
            json(self.reason.title()),
            self.status,
            json(&self.detail),
            json(request_id),
        );
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(decision) = HeaderValue::try_from(format!("deny; reason={code}")) {
            headers.insert(DECISION, decision);
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.status == 503 {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::Value::String(text.to_owned())
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
