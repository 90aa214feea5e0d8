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

/// Whether the process can serve: not before everything is loaded and bound, not once it drains.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether it can.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether it can.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
