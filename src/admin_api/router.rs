//! Every path of the admin listener, in one place.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::guard::Objects;
use super::health::Readiness;
use super::inspected::Event;
use super::revocations::Hands;
use super::{decisions, guard, health, inquiry, problem, revocations};
use crate::admission::{Admission, Decisions, Desk};
use crate::clock::Timestamp;
use crate::reason::Reason;
use crate::request::Host;
use crate::telemetry::{CONTENT_TYPE as METRICS_TYPE, Metrics};

/// Largest body of an admin call, in bytes.
pub(super) const BODY_BYTES: usize = 1024 * 1024;

/// What the admin calls work on.
pub struct AdminState {
    /// The decision about the admin calls themselves: `admin.yaml`, never in report mode (T21).
    pub admission: Arc<Admission>,
    /// What revokes, and the revocations that the gateway looks at.
    pub hands: Arc<Hands>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The admin listener's own counters and last tokens.
    pub desk: Desk,
    /// Hosts under which the listener may be addressed (T30).
    pub hosts: Vec<Host>,
    /// Whether `/metrics` is answered without a token.
    pub metrics_open: bool,
    /// Whether the process can serve.
    pub readiness: Readiness,
    /// The gateway's decisions of late.
    pub decisions: Arc<Decisions>,
}

/// The service of one connection from `peer`.
pub fn router(state: Arc<AdminState>, peer: SocketAddr) -> Router {
    let guarded_by = |objects| middleware::from_fn_with_state((Arc::clone(&state), peer, objects), guard::decide);
    let of_services =
        Router::new().route("/api/decisions/{request_id}", get(decisions::one)).layer(guarded_by(Objects::OfServices));
    let revoking = Router::new()
        .route("/api/revocations", get(inquiry::find).post(revocations::create))
        .with_state(Arc::clone(&state.hands));
    let whole = Router::new()
        .merge(revoking)
        .route("/.well-known/jwks.json", get(own_keys))
        .route("/metrics", get(metrics))
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(guarded_by(Objects::Whole));
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .merge(of_services)
        .merge(whole)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard::host))
        .layer(middleware::map_response(keep_private))
        .with_state(state)
}

/// Answers of this listener are nobody's to keep.
pub(super) async fn keep_private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    let held = state.hands.index.counts();
    state.metrics.set_revocations(held.revocations(), held.overrides);
    let remembered = state.decisions.remembered();
    state.metrics.set_decisions(remembered.denials, remembered.samples, remembered.bytes);
    match state.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The public halves of doorward's own keys: of the one that signs, the next, and those whose tokens are not dead yet. It moves to the
/// identity listener once there is one (SPEC 5.2).
async fn own_keys(State(state): State<Arc<AdminState>>) -> Response {
    let verifier = state.hands.tokens.verifier();
    let own = verifier.issuers().iter().find(|issuer| issuer.own).map(|issuer| issuer.keys.set());
    let Some(keys) = own.filter(|set| !set.keys.is_empty()) else { return problem::not_found().await };
    let jwks = keys.public_jwks_at(Timestamp::now()).to_string();
    ([(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=300")], jwks).into_response()
}

/// A refusal by the decision, as this listener words it.
pub(super) fn denied(reason: Reason, detail: &str) -> Response {
    let mut response = problem::of_reason(reason, reason.status(), detail, None);
    response.extensions_mut().insert(Event::refused(reason));
    response
}
