//! Liveness and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem;
use super::router::{AdminState, keep_private};
use crate::clock::Timestamp;
use crate::revocation::Freshness;

/// Whether the process can serve: not before everything is loaded and bound, not once it drains, and not while it does not know well
/// enough what was revoked.
#[derive(Debug, Clone)]
pub struct Readiness {
    up: Arc<AtomicBool>,
    freshness: Arc<Freshness>,
}

impl Readiness {
    /// Not up yet.
    #[must_use]
    pub fn new(freshness: Arc<Freshness>) -> Self {
        Self { up: Arc::default(), freshness }
    }

    /// Says whether it is up.
    pub fn set(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }

    /// Whether it can.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.up.load(Ordering::Acquire) && self.freshness.may_decide(Timestamp::now())
    }
}

/// `GET /healthz`: the process runs.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Both, and nothing else, for a listener of their own ([probes]). It asks for no host name: a kubelet uses the address.
pub fn probes(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(live))
        .route("/readyz", get(async move || answer(&readiness)))
        .fallback(problem::not_found)
        .layer(axum::middleware::map_response(keep_private))
}

/// `GET /readyz`: the process may be sent requests.
pub(super) async fn ready(State(state): State<Arc<AdminState>>) -> Response {
    answer(&state.readiness)
}

fn answer(readiness: &Readiness) -> Response {
    if readiness.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}
