//! What is the same for every call of the admin listener: answers for heads that the connection's guard refused, before any
//! router sees what stands in for them; the request's id; its audit event.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use tower::Service;
use uuid::Uuid;

use super::problem;
use super::router::{denied, keep_private};
use crate::admission::Judged;
use crate::net::{ConnectionState, Inbound};
use crate::reason::Reason;
use crate::telemetry::{AccessSink, AuditEvent, AuditRecord, ChangeEvent, ChangeRecord};

/// A router behind the guard of one connection.
#[derive(Clone)]
pub struct Inspected {
    router: Router,
    connection: Arc<ConnectionState>,
    origin: Origin,
}

/// Where calls come from, and where their events go.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) audit: Option<AccessSink>,
    /// The client's address, if it came over the network.
    pub(super) peer: Option<IpAddr>,
}

impl Inspected {
    /// Serves `router` on `connection`, which comes from `peer`; events go to `audit`.
    #[must_use]
    pub fn new(router: Router, connection: Arc<ConnectionState>, peer: SocketAddr, audit: Option<AccessSink>) -> Self {
        Self { router, connection, origin: Origin { audit, peer: Some(peer.ip().to_canonical()) } }
    }
}

impl Origin {
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
            peer: self.peer,
        });
    }

    fn tell_of_change(&self, change: &Change, id: &HeaderValue, time: SystemTime) {
        let Some(audit) = &self.audit else { return };
        audit.audit_change(&ChangeRecord {
            event: change.event,
            time,
            request_id: id.to_str().unwrap_or_default(),
            actor: change.actor.as_deref(),
            entry: &change.entry,
            number: change.number,
            outcome: change.outcome,
            peer: self.peer,
        });
    }
}

/// What the audit is told of a call that changes something; among the response's extensions until it is.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) event: ChangeEvent,
    pub(super) actor: Option<Box<str>>,
    /// As JSON.
    pub(super) entry: Box<str>,
    /// `None`: nothing was changed.
    pub(super) number: Option<u64>,
    pub(super) outcome: &'static str,
}

/// The router's answer with its request's id, once the audit was told.
///
/// A call that may change something runs on a task of its own: it is carried out, and told of, even if its caller goes away.
pub(super) async fn answer(mut router: Router, request: Request, origin: Origin) -> Result<Response, Infallible> {
    let method = request.method().clone();
    let safe = method.is_safe();
    let (id, time) = (new_request_id(), SystemTime::now());
    let answering = async move {
        let mut response = router.call(request).await?;
        let events = response.extensions_mut();
        let (event, change) = (events.remove::<Event>(), events.remove::<Change>());
        if let Some(event) = event {
            origin.tell(&event, method.as_str(), response.status(), &id, time);
        }
        if let Some(change) = change {
            origin.tell_of_change(&change, &id, time);
        }
        Ok(problem::with_request_id(response, &id))
    };
    if safe {
        return answering.await;
    }
    match tokio::spawn(answering).await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::error!(%error, "a call did not come to its end");
            Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
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
        let Self { router, origin, .. } = self.clone();
        Box::pin(async move {
            // Admin answers are short: the exchange counts as in flight until the answer is made.
            let _in_flight = in_flight;
            match arrived.outcome {
                Ok(_) => answer(router, request.map(Body::new), origin).await,
                Err(rejection) => {
                    let (id, time) = (new_request_id(), SystemTime::now());
                    let mut response = keep_private(denied(rejection.reason, &rejection.detail)).await;
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    if let Some(event) = response.extensions_mut().remove::<Event>() {
                        // What stands in for an unreadable head has a method that nobody sent.
                        origin.tell(&event, "-", response.status(), &id, time);
                    }
                    Ok(problem::with_request_id(response, &id))
                }
            }
        })
    }
}
