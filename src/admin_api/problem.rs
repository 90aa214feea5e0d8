//! `application/problem+json` on the admin listener (RFC 9457).

use axum::Extension;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::reason::Reason;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A denial by the decision.
pub(super) fn of_reason(reason: Reason, status: u16, detail: &str, allow: Option<&str>) -> Response {
    let body = json!({
        "type": format!("urn:doorward:problem:{reason}"), "title": reason.title(), "status": status,
        "detail": detail, "reason": reason.code(),
    });
    let mut response = respond(status, body);
    let headers = response.headers_mut();
    if let Ok(decision) = HeaderValue::try_from(format!("deny; reason={reason}")) {
        headers.insert(HeaderName::from_static("doorward-decision"), decision);
    }
    let challenge = match reason {
        Reason::MissingToken => Some("Bearer realm=\"doorward\""),
        Reason::PermissionMissing => Some("Bearer realm=\"doorward\", error=\"insufficient_scope\""),
        _ if reason.status() == 401 => Some("Bearer realm=\"doorward\", error=\"invalid_token\""),
        _ => None,
    };
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}

/// Something wrong with a call: `code` names it, `pointer` (RFC 6901) the field.
pub(super) fn of_call(status: StatusCode, code: &str, detail: &str, pointer: Option<&str>) -> Response {
    let mut body = json!({
        "type": format!("urn:doorward:problem:{code}"), "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(), "detail": detail,
    });
    if let Some(pointer) = pointer {
        body["pointer"] = json!(pointer);
    }
    respond(status.as_u16(), body)
}

/// A path that is permitted and that nothing answers.
pub(super) async fn not_found() -> Response {
    of_call(StatusCode::NOT_FOUND, "not_found", "there is no such call", None)
}

fn respond(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, PROBLEM)], Extension(Problem(body))).into_response()
}

/// The members of a problem's body, which [`with_request_id`] makes of it.
#[derive(Debug, Clone)]
struct Problem(Value);

/// Every response tells its request's id: in `X-Request-Id`, and in the body if it is a problem.
pub(super) fn with_request_id(mut response: Response, id: &HeaderValue) -> Response {
    if let Some(Problem(mut members)) = response.extensions_mut().remove::<Problem>() {
        members["request_id"] = json!(id.to_str().unwrap_or_default());
        // The router knew the length of what is replaced here.
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(members.to_string());
    }
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), id.clone());
    response
}
