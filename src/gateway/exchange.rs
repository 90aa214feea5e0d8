//! One request and its answer, as metrics and the access log will tell of it. Whatever becomes of it, it is told once: when the
//! exchange is dropped.

mod remember;
mod upload;

use std::borrow::Cow;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use uuid::Uuid;

use super::body::{GatewayBody, RelayedBody, Transfer};
use super::cors::CrossOrigin;
use super::headers::{self, PeerHeaders};
use super::proxy::Worker;
use super::rate_limit::Budget;
use super::reply::Denial;
use super::splitmix;
use super::upgrade::Handshake;
use super::upstream::Lease;
use super::watch::{Call, End, Notice, OPEN_LONG};
use crate::admission::{Expiry, Identified, Judged, Readmission, Readmitted, Told};
use crate::clock::Timestamp;
use crate::net::guard::InFlight;
use crate::policy::{Route, RouteId, Service, Snapshot};
use crate::rbac::PermissionId;
use crate::reason::Reason;
use crate::request::head::Framing;
use crate::request::{Host, RequestFacts};
use crate::telemetry::{
    AccessDecision, AccessRecord, AccessSink, AuditEvent, AuditRecord, RequestLabels, Stream, UpstreamMetrics,
};

/// Longest request id that is taken over from a trusted proxy.
const MAX_REQUEST_ID: usize = 128;

/// See the module's description.
pub struct Exchange {
    worker: Arc<Worker>,
    started: Instant,
    time: SystemTime,
    peer: IpAddr,
    method: Method,
    /// The target as sent, until it is cleaned.
    path: Path,
    host: Option<Host>,
    request_id: HeaderValue,
    trace: HeaderValue,
    snapshot: Option<Arc<Snapshot>>,
    route: Option<RouteId>,
    service: Option<u32>,
    caller: Option<Identified>,
    permission: Option<PermissionId>,
    reason: Option<Reason>,
    would_deny: Option<Reason>,
    denied: bool,
    /// More about a denial.
    detail: Cow<'static, str>,
    status: u16,
    upstream: Option<(Arc<UpstreamMetrics>, Instant)>,
    upstream_time: Option<Duration>,
    has_body: bool,
    transfer: Option<Arc<Transfer>>,
    budget: Option<Budget>,
    cross_origin: Option<Box<CrossOrigin>>,
    /// What came through a tunnel; bodies have their transfer.
    bytes_in: u64,
    bytes_out: u64,
    finished: Option<Duration>,
    /// What it is, once it is known to last.
    stream: Option<Stream>,
    /// How it hears of changes, once it is open for long (T20).
    notice: Option<Arc<Notice>>,
    /// It was open and then ended by a decision.
    ended: bool,
    /// Watches the rest of the request's body, where the answer did not wait for it.
    upload: Option<upload::Watched>,
    _in_flight: InFlight,
}

enum Path {
    /// As it came; borrowed from the request's own buffer.
    Raw(http::Uri),
    /// Cleaned, where cleaning changed it.
    Clean(Box<str>),
    /// The head was refused before it could be read.
    Unknown,
}

impl Exchange {
    /// A request arrived.
    #[must_use]
    pub fn begin(
        worker: &Arc<Worker>,
        from: &PeerHeaders,
        parts: &Parts,
        started: Instant,
        in_flight: InFlight,
    ) -> Box<Self> {
        let trusted = from.trusted;
        let id = trusted.then(|| parts.headers.get(headers::REQUEST_ID)).flatten().filter(|id| is_request_id(id));
        let trace =
            trusted.then(|| parts.headers.get(headers::TRACEPARENT)).flatten().filter(|trace| is_traceparent(trace));
        // In a box, because it is handed on from hand to hand until the answer ends.
        Box::new(Self {
            worker: Arc::clone(worker),
            started,
            time: SystemTime::now(),
            peer: from.peer,
            method: parts.method.clone(),
            path: Path::Raw(parts.uri.clone()),
            host: None,
            request_id: id.cloned().unwrap_or_else(new_request_id),
            trace: trace.cloned().unwrap_or_else(new_traceparent),
            snapshot: None,
            route: None,
            service: None,
            caller: None,
            permission: None,
            reason: None,
            would_deny: None,
            denied: false,
            detail: Cow::Borrowed(""),
            status: 0,
            upstream: None,
            upstream_time: None,
            has_body: false,
            transfer: None,
            budget: None,
            cross_origin: None,
            bytes_in: 0,
            bytes_out: 0,
            finished: None,
            stream: None,
            notice: None,
            ended: false,
            upload: None,
            _in_flight: in_flight,
        })
    }

    /// The time that the request is judged by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::of(self.time)
    }

    /// The head was refused before it could be read: what stands in for it is not the client's.
    pub fn never_parsed(&mut self) {
        self.path = Path::Unknown;
    }

    /// Whether a body follows the head.
    pub fn frames(&mut self, framing: Framing) {
        self.has_body = framing != Framing::None;
    }

    /// Who is behind the peer, and what it asked for.
    pub fn client(&mut self, client: IpAddr, host: Option<&Host>) {
        self.peer = client;
        self.host = host.cloned();
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The value of `traceparent`.
    #[must_use]
    pub fn trace(&self) -> &HeaderValue {
        &self.trace
    }

    /// It was decided upon.
    pub fn judge(&mut self, judged: Judged<'_>) {
        let decision = judged.decision;
        if let Some(target) = &decision.target
            && let Path::Raw(uri) = &self.path
            && uri.path() != target.path()
        {
            self.path = Path::Clean(target.path().into());
        }
        self.route = decision.route;
        self.service = decision.service;
        self.permission = decision.permission;
        self.would_deny = decision.would_deny;
        self.caller = judged.caller;
        self.snapshot = Some(judged.snapshot);
    }

    /// It was counted against a rate limit, of which the answer tells.
    pub fn limited(&mut self, budget: Budget) {
        self.budget = Some(budget);
    }

    /// Pages of other origins may learn of the answer.
    pub fn crosses(&mut self, cross_origin: Option<Box<CrossOrigin>>) {
        self.cross_origin = cross_origin;
    }

    /// It is a preflight, which the service's `cors:` answers and no route does.
    pub fn preflight(&mut self, snapshot: Arc<Snapshot>, service: u32) {
        (self.snapshot, self.service) = (Some(snapshot), Some(service));
    }

    /// It is being sent to the upstream.
    pub fn forwarded(&mut self, upstream: &Arc<UpstreamMetrics>, transfer: Option<Arc<Transfer>>, at: Instant) {
        self.upstream = Some((Arc::clone(upstream), at));
        self.transfer = transfer;
    }

    /// Answers with a denial.
    #[must_use]
    pub fn deny(mut self: Box<Self>, denial: &Denial) -> Response<GatewayBody> {
        self.detail = denial.detail.clone();
        let answer = denial.answer(self.request_id.to_str().unwrap_or_default());
        self.refuse(denial.reason, answer)
    }

    /// Answers a gRPC call that must not go on: its status stands in the head, for nothing was answered before.
    #[must_use]
    pub fn end_call(self: Box<Self>, reason: Reason) -> Response<GatewayBody> {
        let mut answer = Response::new(Bytes::new());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        answer.headers_mut().extend(grpc_status(End::Denied(reason)));
        self.refuse(reason, answer)
    }

    fn refuse(mut self: Box<Self>, reason: Reason, mut answer: Response<Bytes>) -> Response<GatewayBody> {
        self.denied = true;
        self.reason = Some(reason);
        if self.has_body && !self.transfer.as_ref().is_some_and(|transfer| transfer.has_ended()) {
            // What is still to come is taken off the wire and not read as a request: the connection ends.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.answer(answer)
    }

    /// Answers with doorward's own response.
    #[must_use]
    pub fn answer(mut self: Box<Self>, answer: Response<Bytes>) -> Response<GatewayBody> {
        self.status = answer.status().as_u16();
        let (mut parts, body) = answer.into_parts();
        parts.headers.insert(headers::REQUEST_ID, self.request_id.clone());
        if let Some(budget) = &self.budget {
            budget.tell(&mut parts.headers);
        }
        if let Some(cross_origin) = &self.cross_origin {
            cross_origin.tell(&mut parts.headers);
        }
        self.say_if_last(&mut parts.headers);
        let body = (!body.is_empty()).then_some(body);
        Response::from_parts(parts, GatewayBody::Own(body, self))
    }

    /// Makes the upstream's headers the client's.
    pub fn rewrite(&self, headers: &mut HeaderMap) {
        let matched = self.matched();
        let asked = headers::Asked {
            identified: self.caller.is_some(),
            service: matched.map(|(service, _)| service),
            cache: matched.and_then(|(_, route)| route.cache),
            cookies: self.snapshot.as_ref().map_or(&[], |snapshot| snapshot.cookies()),
        };
        headers::rewrite_response(headers, &asked);
    }

    /// Passes the upstream's answer on.
    #[must_use]
    pub fn relay(
        mut self: Box<Self>,
        answer: Response<Incoming>,
        lease: Lease,
        idle: Duration,
    ) -> Response<GatewayBody> {
        let (mut parts, body) = answer.into_parts();
        let now = Instant::now();
        self.answered(&mut parts, now);
        self.say_if_last(&mut parts.headers);
        // What lasts says no length.
        if body.size_hint().exact().is_none()
            && let Some(kind) = stream_kind(&parts.headers)
        {
            self.becomes(kind);
        }
        self.watch_upload();
        Response::from_parts(parts, GatewayBody::Relayed(RelayedBody::new(body, lease, self, idle, now)))
    }

    /// The upstream agreed to speak WebSocket, and so does doorward towards the client: the exchange lasts as long as the tunnel.
    pub fn upgrade(&mut self, parts: &mut http::response::Parts, handshake: &Handshake) {
        self.answered(parts, Instant::now());
        handshake.agree(parts);
        self.status = parts.status.as_u16();
        self.becomes(Stream::WebSocket);
    }

    /// Makes the head of an upstream's answer the client's.
    fn answered(&mut self, parts: &mut http::response::Parts, now: Instant) {
        self.status = parts.status.as_u16();
        if let Some((upstream, since)) = &self.upstream {
            let took = now - *since;
            upstream.answered(took);
            self.upstream_time = Some(took);
        }
        self.rewrite(&mut parts.headers);
        parts.headers.insert(headers::REQUEST_ID, self.request_id.clone());
        if let Some(budget) = &self.budget {
            budget.tell(&mut parts.headers);
        }
        if let Some(cross_origin) = &self.cross_origin {
            cross_origin.tell(&mut parts.headers);
        }
        parts.extensions.clear();
        // Whatever the upstream speaks: the client's connection need not end because that one does (RFC 9110 section 2.5).
        parts.version = Version::HTTP_11;
    }

    /// Once the process is to stop, an answer is the last of its connection. (Over HTTP/2, which has GOAWAY for it, hyper takes the
    /// header off again.)
    fn say_if_last(&self, headers: &mut HeaderMap) {
        if self.worker.is_leaving() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Bytes came through a tunnel from the client.
    pub fn received(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    /// Bytes of the answer's body were handed on.
    pub fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The answer ended as it should.
    pub fn complete(&mut self, now: Instant) {
        self.finished.get_or_insert_with(|| now - self.started);
    }

    /// The upstream's answer broke off.
    pub fn broke(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// What it is, if it is known to last.
    #[must_use]
    pub fn stream(&self) -> Option<Stream> {
        self.stream
    }

    /// It was ended by a decision, and why is known.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.ended
    }

    /// The service that it was matched to, for a challenge's realm.
    #[must_use]
    pub fn service(&self) -> Option<Arc<str>> {
        self.matched().map(|(service, _)| Arc::clone(&service.name))
    }

    /// Whether the client calls by gRPC, as far as it says so itself.
    #[must_use]
    pub fn expects_grpc(headers: &HeaderMap) -> bool {
        stream_kind(headers) == Some(Stream::Grpc)
    }

    /// It will last. Its token's expiry counts from now on.
    pub fn becomes(&mut self, kind: Stream) {
        if let Some(before) = self.stream.replace(kind) {
            self.worker.count().stream_changed(before, -1);
        }
        self.worker.count().stream_changed(kind, 1);
        // It comes back to the list with its expiry.
        self.notice = None;
    }

    /// From when on somebody has to look after it with [`Self::poll_end`]: when it has been open for long, or a stream's token
    /// has expired; at once where it is sure to last.
    #[must_use]
    pub fn watched_from(&self) -> Instant {
        if matches!(self.stream, Some(Stream::WebSocket | Stream::Events)) {
            return self.started;
        }
        let long = self.started + OPEN_LONG;
        match self.expires_at() {
            None => long,
            Some(at) => {
                let left = at.0.saturating_sub(self.now().0);
                long.min(self.started + Duration::from_secs(u64::try_from(left).unwrap_or(0)))
            }
        }
    }

    /// Whether it is in the list of those that are called upon a change.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.notice.is_some()
    }

    /// Whether it has to end. Wakes the task when there is more to say.
    pub fn poll_end(&mut self, cx: &Context<'_>) -> Poll<End> {
        loop {
            let expires_at = self.expires_at();
            let notice = self.notice.get_or_insert_with(|| self.worker.watch.enter(expires_at));
            notice.wakes(cx.waker());
            if let Some(end) = self.called() {
                return Poll::Ready(end);
            }
            // Another policy may let it live longer or shorter; then it enters anew.
            if self.notice.is_some() {
                return Poll::Pending;
            }
        }
    }

    /// Whether it has to end, if it was called upon since the last look. One load where it was not.
    pub fn called(&mut self) -> Option<End> {
        let notice = Arc::clone(self.notice.as_ref().filter(|notice| notice.is_raised())?);
        let call = notice.take()?;
        let mut told = notice.take_told();
        let ends = match self.decide_again(&mut told) {
            Readmitted::GoesOn(readmission) => {
                notice.is_good_until(readmission.until);
                self.goes_on_by(readmission);
                None
            }
            Readmitted::Ask(question) => {
                notice.calls_upon(question, told);
                None
            }
            Readmitted::Undecided => {
                (!notice.may_wait(Timestamp::now(), Instant::now())).then_some(Reason::AuthUnavailable)
            }
            Readmitted::Ends(reason) => Some(reason),
        };
        if let Some(reason) = ends {
            self.ended = true;
            self.reason = Some(reason);
            self.worker.count().exchange_ended(reason);
            return Some(End::Denied(reason));
        }
        (call == Call::Leave && self.stream.is_some()).then_some(End::Leaving)
    }

    /// The policy in force is its own from now on: an old one is not kept for its sake, and what a route says of streams
    /// holds for those that are open.
    fn goes_on_by(&mut self, readmission: Readmission) {
        if self.snapshot.as_ref().is_some_and(|snapshot| Arc::ptr_eq(snapshot, &readmission.snapshot)) {
            return;
        }
        let before = self.expires_at();
        self.route = readmission.route;
        self.service = readmission.service;
        self.permission = readmission.permission;
        self.would_deny = self.would_deny.or(readmission.would_deny);
        self.snapshot = Some(readmission.snapshot);
        if self.expires_at() != before {
            self.notice = None;
        }
    }

    fn decide_again(&self, told: &mut Told) -> Readmitted {
        let facts = RequestFacts {
            method: self.method.as_str(),
            host: self.host.as_ref(),
            // Cleaned once is cleaned twice, and the query takes no part.
            target: match &self.path {
                Path::Raw(uri) => uri.path(),
                Path::Clean(path) => path,
                Path::Unknown => return Readmitted::Ends(Reason::BadRequest),
            },
            client: self.peer,
        };
        let caller = self.caller.as_ref();
        let expiry = if self.expires_at().is_some() { Expiry::Counts } else { Expiry::Lifted };
        self.worker.admission().readmit(&facts, caller, expiry, Timestamp::now(), self.worker.desk(), told)
    }

    /// When its token's expiry ends it: only streams end so, and not where the route lets them outlive it.
    fn expires_at(&self) -> Option<Timestamp> {
        let caller = self.caller.as_ref().filter(|_| self.stream.is_some())?;
        let outlives = self.matched().is_some_and(|(_, route)| route.outlives_token);
        (!outlives).then_some(caller.entry.claims.expires_at)
    }

    fn matched(&self) -> Option<(&Service, &Route)> {
        let snapshot = self.snapshot.as_ref()?;
        let route = snapshot.route(self.route?);
        Some((snapshot.services().get(route.service as usize)?, route))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(transfer) = &self.transfer {
            transfer.cut();
        }
        let duration = self.finished.unwrap_or_else(|| self.started.elapsed());
        let service = self
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.services().get(self.service? as usize))
            .map(|service| &service.name);
        let route = self.matched().map(|(_, route)| &route.pattern);
        let count = self.worker.count();
        if let Some(kind) = self.stream {
            count.stream_changed(kind, -1);
        }
        let method = if matches!(self.path, Path::Unknown) { "-" } else { self.method.as_str() };
        count.request(&RequestLabels { service, route, method, status: self.status }, duration);
        if let Some(reason) = self.reason.filter(|_| self.denied) {
            count.auth_failure(reason);
        }
        if let Some(reason) = self.would_deny {
            count.report_only(service, route, reason);
        }
        self.remember(duration);
        let Some(log) = &self.worker.log else { return };
        if self.worker.logged.access {
            self.tell(log, service, route, method, duration);
        }
        if self.worker.logged.audit
            && let Some(event) = self.event()
        {
            log.audit(&AuditRecord {
                event,
                time: self.time,
                request_id: self.request_id.to_str().unwrap_or_default(),
                service: service.map(AsRef::as_ref),
                route: route.map(AsRef::as_ref),
                method: method.as_bytes(),
                status: self.status,
                reason: self.reason.or(self.would_deny).map(Reason::code),
                subject: self.caller.as_ref().map(|caller| &*caller.entry.claims.subject),
                peer: Some(self.peer),
            });
        }
    }
}

impl Exchange {
    /// What it is to the audit, if anything. An upstream that fails denies nobody.
    fn event(&self) -> Option<AuditEvent> {
        let failed = matches!(self.reason, Some(Reason::UpstreamUnavailable | Reason::UpstreamTimeout));
        if self.ended || self.denied && !failed {
            return Some(AuditEvent::Denied);
        }
        self.matched().filter(|(_, route)| route.audit).map(|_| AuditEvent::Audited)
    }

    /// Writes the access line.
    fn tell(
        &self,
        log: &AccessSink,
        service: Option<&Arc<str>>,
        route: Option<&Arc<str>>,
        method: &str,
        duration: Duration,
    ) {
        let claims = self.caller.as_ref().map(|caller| &caller.entry.claims);
        let header = |name| {
            self.caller
                .as_ref()
                .and_then(|caller| caller.identity.header(&name))
                .and_then(|value| value.to_str().ok())
                .unwrap_or("")
        };
        log.write(&AccessRecord {
            time: self.time,
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: self.trace.to_str().ok().and_then(|trace| trace.get(3..35)),
            service: service.map(AsRef::as_ref),
            host: self.host.as_ref().map(|host| host.as_str().as_bytes()),
            method: method.as_bytes(),
            path: match &self.path {
                Path::Raw(uri) => uri.path().as_bytes(),
                Path::Clean(path) => path.as_bytes(),
                Path::Unknown => b"-",
            },
            route: route.map(AsRef::as_ref),
            status: self.status,
            decision: if self.denied { AccessDecision::Deny } else { AccessDecision::Allow },
            reason: self.reason.or(self.would_deny),
            would_deny: self.would_deny,
            permission: self
                .permission
                .zip(self.snapshot.as_deref())
                .map(|(id, of)| of.roles().permission_code(id).as_str()),
            subject: claims.map(|claims| &*claims.subject),
            roles: header(crate::admission::identity::USER_ROLES),
            memberships: header(crate::admission::identity::USER_MEMBERSHIPS),
            session: claims.and_then(|claims| claims.session.as_deref()),
            duration,
            upstream: self.upstream_time,
            bytes_in: self.transfer.as_ref().map_or(self.bytes_in, |transfer| transfer.bytes()),
            bytes_out: self.bytes_out,
            peer: Some(self.peer),
        });
    }
}

/// What an answer (or a request) says that it is, if that lasts: `text/event-stream`, `application/grpc`, `application/grpc+proto`, …
fn stream_kind(headers: &HeaderMap) -> Option<Stream> {
    let named = |value: &[u8], name: &[u8]| {
        value.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && value.get(name.len()).is_none_or(|next| matches!(next, b';' | b'+' | b' ' | b'\t'))
    };
    let value = headers.get(CONTENT_TYPE)?.as_bytes();
    if named(value, b"text/event-stream") {
        Some(Stream::Events)
    } else {
        named(value, b"application/grpc").then_some(Stream::Grpc)
    }
}

/// The trailers that end a gRPC call (gRPC over HTTP/2, "Responses"): `UNAUTHENTICATED` for whatever denies
/// it (SPEC 3.8), `UNAVAILABLE` for what the client may try again elsewhere.
#[must_use]
pub fn grpc_status(end: End) -> HeaderMap {
    let (status, message) = match end {
        End::Denied(Reason::AuthUnavailable) => ("14", Reason::AuthUnavailable.code()),
        End::Denied(reason) => ("16", reason.code()),
        End::Leaving => ("14", "the gateway is going away"),
    };
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

/// A well-formed id: letters, digits, `-`, `_`, `.`.
fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_REQUEST_ID).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// `00-` 32 hex `-` 16 hex `-` 2 hex, lower case, neither id all zero (W3C Trace Context, section 3.2.2).
fn is_traceparent(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == b'0');
    bytes.len() == 55
        && bytes.starts_with(b"00-")
        && bytes[35] == b'-'
        && bytes[52] == b'-'
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && !zero(3..35)
        && !zero(36..52)
}

fn new_request_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

thread_local! {
    /// State of the generator of trace ids, which need to be unique and not secret; seeded by the system.
    static TRACE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
}

fn next_trace() -> u64 {
    let state = TRACE.get().wrapping_add(splitmix::STEP);
    TRACE.set(state);
    // An id of zeros is not valid.
    splitmix::mix(state) | 1
}

fn new_traceparent() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-................................-................-01";
    for (offset, word) in [(3, next_trace()), (19, next_trace()), (36, next_trace())] {
        for digit in 0..16 {
            text[offset + digit] = HEX[(word >> (60 - 4 * digit)) as usize & 0xF];
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_traceparent_is_well_formed() {
        let first = new_traceparent();
        assert!(is_traceparent(&first), "{first:?}");
        assert_ne!(first, new_traceparent());
        assert!(!is_traceparent(&HeaderValue::from_static("00-00000000000000000000000000000000-0000000000000001-01")));
    }

    #[test]
    fn a_request_id_with_odd_bytes_is_not_taken_over() {
        assert!(is_request_id(&HeaderValue::from_static("0198-ab_c.D")));
        for odd in ["", "a b", "a,b", "a\"b"] {
            assert!(!is_request_id(&HeaderValue::from_static(odd)), "{odd:?}");
        }
    }
}
