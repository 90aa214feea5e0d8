//! `POST /api/revocations`: shut out a token, a session, a subject or a key, at once.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::problem;
use super::router::AdminState;
use crate::clock::Timestamp;
use crate::revocation::{Arrival, Entry};

/// Takes one entry, in the form that a line of the revocation file has. A subject without `issued_until` is logged out of
/// everything that was issued until now.
pub(super) async fn create(State(state): State<Arc<AdminState>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            return match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => problem::of_call(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    "a call's body is at most 1 MiB",
                    None,
                ),
                _ => {
                    problem::of_call(StatusCode::BAD_REQUEST, "bad_request", "the body broke off or is malformed", None)
                }
            };
        }
    };
    let now = Timestamp::now();
    let entry = match read(&body, now) {
        Ok(entry) => entry,
        Err(error) => {
            return problem::of_call(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", &error.to_string(), Some(""));
        }
    };
    state.revocations.apply(&entry, Arrival::by_hand(now), state.retention);
    tracing::info!(entry = %serde_json::to_string(&entry).unwrap_or_default(), "revoked");
    // One process without a store: what is in memory is in force everywhere.
    ([(CONTENT_TYPE, "application/json")], r#"{"propagated":true}"#).into_response()
}

/// `{"subject": "…"}` alone: of all that an entry says, the time is the one thing that the moment of the call tells.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LogOut {
    subject: String,
}

fn read(body: &[u8], now: Timestamp) -> serde_json::Result<Entry> {
    match serde_json::from_slice::<LogOut>(body) {
        Ok(LogOut { subject }) => {
            serde_json::from_value(serde_json::json!({ "subject": subject, "issued_until": now.0 }))
        }
        Err(_) => serde_json::from_slice(body),
    }
}
