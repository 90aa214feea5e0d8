//! What is the same for every call of the admin listener: answers for heads that the connection's guard refused, before any
//! router sees what stands in for them; the request's id; its audit event.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use tower::Service;
use uuid::Uuid;

use super::problem;
use super::router::{denied, keep_private};
use crate::admission::Judged;
use crate::net::{ConnectionState, Inbound};
use crate::reason::Reason;
use crate::telemetry::{AccessSink, AuditEvent, AuditRecord};

/// A router behind the guard of one connection.
#[derive(Clone)]
pub struct Inspected {
    router: Router,
    connection: Arc<ConnectionState>,
    peer: SocketAddr,
    audit: Option<AccessSink>,
}

impl Inspected {
    /// Serves `router` on `connection`, which comes from `peer`; events go to `audit`.
    #[must_use]
    pub fn new(router: Router, connection: Arc<ConnectionState>, peer: SocketAddr, audit: Option<AccessSink>) -> Self {
        Self { router, connection, peer, audit }
    }

    fn tell(&self, event: &Event, method: &str, status: StatusCode, id: &HeaderValue, time: SystemTime) {
        let Some(audit) = &self.audit else { return };
        audit.audit(&AuditRecord {
            event: if event.reason.is_some() { AuditEvent::Denied } else { AuditEvent::Audited },
            time,
            request_id: id.to_str().unwrap_or_default(),
            service: event.service.as_deref(),
            route: event.route.as_deref(),
            method: method.as_bytes(),
            status: status.as_u16(),
            reason: event.reason.map(Reason::code),
            subject: event.subject.as_deref(),
            peer: Some(self.peer.ip().to_canonical()),
        });
    }
}

/// What the audit is told of a call; among the response's extensions until it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Event {
    service: Option<Arc<str>>,
    route: Option<Arc<str>>,
    subject: Option<Box<str>>,
    reason: Option<Reason>,
}

impl Event {
    /// Of a denial, or of a call to a route that is marked `audit: true`.
    pub(super) fn of(judged: &Judged<'_>, reason: Option<Reason>) -> Option<Self> {
        let (snapshot, decision) = (&judged.snapshot, &judged.decision);
        let route = decision.route.map(|id| snapshot.route(id));
        if reason.is_none() && !route.is_some_and(|route| route.audit) {
            return None;
        }
        let service = decision.service.and_then(|index| snapshot.services().get(index as usize));
        Some(Self {
            service: service.map(|service| Arc::clone(&service.name)),
            route: route.map(|route| Arc::clone(&route.pattern)),
            subject: judged.caller.as_ref().map(|caller| (&*caller.entry.claims.subject).into()),
            reason,
        })
    }

    /// Of a request that nothing was decided about.
    pub(super) fn refused(reason: Reason) -> Self {
        Self { reason: Some(reason), ..Self::default() }
    }
}

fn new_request_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

impl Service<Request<Incoming>> for Inspected {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (arrived, in_flight) = self.connection.begin(&request);
        let request = Inbound::of(request);
        let mut inspected = self.clone();
        Box::pin(async move {
            // Admin answers are short: the exchange counts as in flight until the answer is made.
            let _in_flight = in_flight;
            let (id, time) = (new_request_id(), SystemTime::now());
            let (method, mut response) = match arrived.outcome {
                Ok(_) => {
                    let method = request.method().clone();
                    (Some(method), inspected.router.call(request.map(Body::new)).await?)
                }
                Err(rejection) => {
                    let mut response = keep_private(denied(rejection.reason, &rejection.detail)).await;
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    // What stands in for an unreadable head has a method that nobody sent.
                    (None, response)
                }
            };
            if let Some(event) = response.extensions_mut().remove::<Event>() {
                inspected.tell(&event, method.as_ref().map_or("-", Method::as_str), response.status(), &id, time);
            }
            Ok(problem::with_request_id(response, &id))
        })
    }
}
