//! Who may call: the listener's host names, then the same decision as the gateway's, over `admin.yaml` (T30).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::uri::PathAndQuery;
use axum::middleware::Next;
use axum::response::Response;

use super::inspected::Event;
use super::problem;
use super::router::{AdminState, denied};
use crate::admission::Admitted;
use crate::clock::Timestamp;
use crate::request::{Host, RequestFacts, host};

/// Only the listener's own names: a page that rebinds its name to this address is refused.
pub(super) async fn host(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    match host_of(&request) {
        Ok(Some(host)) if state.hosts.contains(&host) => next.run(request).await,
        Ok(_) => problem::of_call(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected_request",
            "this host is not one of [admin] hosts",
            None,
        ),
        Err(rejection) => denied(rejection.reason, &rejection.detail),
    }
}

/// Everything but health passes `admin.yaml`; `/metrics` too, unless it is configured open.
pub(super) async fn decide(
    State((state, peer)): State<(Arc<AdminState>, SocketAddr)>,
    request: Request,
    next: Next,
) -> Response {
    if state.metrics_open && request.uri().path() == "/metrics" {
        return next.run(request).await;
    }
    let host = host_of(&request).ok().flatten();
    let facts = RequestFacts {
        method: request.method().as_str(),
        host: host.as_ref(),
        target: request.uri().path_and_query().map_or("/", PathAndQuery::as_str),
        client: peer.ip().to_canonical(),
    };
    let (refused, event) = match state.admission.admit(&facts, request.headers(), Timestamp::now(), &state.desk) {
        Admitted::Permit(permit) => (None, Event::of(permit.judged(), None)),
        Admitted::Refusal(refusal) => {
            let reason = refusal.reason();
            state.desk.count.auth_failure(reason);
            let judged = refusal.into_judged();
            let event = Event::of(&judged, Some(reason));
            let decision = judged.decision;
            (Some(problem::of_reason(reason, decision.status, &decision.detail, decision.allow.as_deref())), event)
        }
    };
    let mut response = match refused {
        None => next.run(request).await,
        Some(response) => response,
    };
    if let Some(event) = event {
        response.extensions_mut().insert(event);
    }
    response
}

fn host_of(request: &Request) -> Result<Option<Host>, crate::request::Rejection> {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    host::of_request(authority, request.headers(), request.version())
}
