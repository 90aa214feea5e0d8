//! `application/problem+json` on the admin listener (RFC 9457).

use axum::http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::reason::Reason;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A denial by the decision.
pub(super) fn of_reason(reason: Reason, status: u16, detail: &str, allow: Option<&str>) -> Response {
    let body = json!({
        "type": format!("urn:doorward:problem:{reason}"), "title": reason.title(), "status": status,
        "detail": detail, "reason": reason.code(),
    });
    let mut response = respond(status, &body);
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
    respond(status.as_u16(), &body)
}

/// A path that is permitted and that nothing answers.
pub(super) async fn not_found() -> Response {
    of_call(StatusCode::NOT_FOUND, "not_found", "there is no such call", None)
}

fn respond(status: u16, body: &serde_json::Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, PROBLEM)], body.to_string()).into_response()
}
