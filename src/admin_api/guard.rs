//! Who may call: the listener's host names, then the same decision as the gateway's, over `admin.yaml` (T30).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::inspected::Event;
use super::problem;
use super::revocations::Actor;
use super::router::{AdminState, denied};
use crate::admission::{Admitted, Identified, decide_within};
use crate::clock::Timestamp;
use crate::policy::{Decision, Outcome, Snapshot};
use crate::rbac::table::ADMIN_SERVICE;
use crate::request::{Host, RequestFacts, host};

/// Whose objects a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Objects {
    /// Everybody's: a role with a scope does not open it.
    Whole,
    /// Those of services: the call decides for each, by [`Authority`] (T36).
    OfServices,
}

/// Who called, by what policy, and for what: enough to decide again for the service of an object.
#[derive(Clone)]
pub(super) struct Authority {
    snapshot: Arc<Snapshot>,
    caller: Option<Identified>,
    method: Method,
    target: Uri,
    host: Option<Host>,
    peer: SocketAddr,
    now: Timestamp,
}

impl Authority {
    /// Who calls.
    pub(super) fn subject(&self) -> Option<&str> {
        self.caller.as_ref().map(|caller| &*caller.entry.claims.subject)
    }

    /// Whether the caller may do to objects of `service` what the call does.
    pub(super) fn covers(&self, service: &str) -> bool {
        self.decide(service).outcome == Outcome::Allow
    }

    fn decide(&self, service: &str) -> Decision<'_> {
        let facts = RequestFacts {
            method: self.method.as_str(),
            host: self.host.as_ref(),
            target: self.target.path_and_query().map_or("/", PathAndQuery::as_str),
            client: self.peer.ip().to_canonical(),
        };
        decide_within(&self.snapshot, self.caller.as_ref(), &facts, service, self.now)
    }
}

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
    State((state, peer, objects)): State<(Arc<AdminState>, SocketAddr, Objects)>,
    mut request: Request,
    next: Next,
) -> Response {
    if state.metrics_open && request.uri().path() == "/metrics" {
        return next.run(request).await;
    }
    let host = host_of(&request).ok().flatten();
    let target = request.uri().clone();
    let method = request.method().clone();
    let facts = RequestFacts {
        method: method.as_str(),
        host: host.as_ref(),
        target: target.path_and_query().map_or("/", PathAndQuery::as_str),
        client: peer.ip().to_canonical(),
    };
    let now = Timestamp::now();
    let admitted = match state.admission.admit(&facts, request.headers(), now, &state.desk) {
        Ok(admitted) => admitted,
        Err(question) => state.admission.answered(question, &facts, request.headers(), &state.desk).await,
    };
    let mut judged = match admitted {
        Admitted::Permit(permit) => permit.into_judged(),
        Admitted::Refusal(refusal) => refusal.into_judged(),
    };
    let authority = Authority {
        snapshot: Arc::clone(&judged.snapshot),
        caller: judged.caller.clone(),
        method: method.clone(),
        target: target.clone(),
        host: host.clone(),
        peer,
        now,
    };
    if objects == Objects::Whole && judged.decision.outcome == Outcome::Allow {
        judged.decision = authority.decide(ADMIN_SERVICE);
    }
    let (refused, event) = match judged.decision.outcome {
        Outcome::Allow => (None, Event::of(&judged, None)),
        Outcome::Deny(reason) => {
            state.desk.count.auth_failure(reason);
            let event = Event::of(&judged, Some(reason));
            let decision = &judged.decision;
            (Some(problem::of_reason(reason, decision.status, &decision.detail, decision.allow.as_deref())), event)
        }
    };
    drop(judged);
    let mut response = match refused {
        None => {
            request.extensions_mut().insert(Actor::Subject(authority.subject().map(Box::from)));
            request.extensions_mut().insert(authority.clone());
            next.run(request).await
        }
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
