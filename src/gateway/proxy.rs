//! The life of a request, on one screen: [`Worker::serve`].

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::EXPECT;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::assertion::{self, Assertions};
use super::body::{GatewayBody, RequestBody};
use super::cors;
use super::exchange::Exchange;
use super::headers::{self, Forwarding, PeerHeaders};
use super::rate_limit::{Asker, Budget, RateLimits};
use super::reply::{self, Denial};
use super::tunnel::Tunnel;
use super::upgrade::{self, Handshake};
use super::upstream::{Lease, Pool, UpstreamError, Upstreams, WorkerPools};
use super::watch::Watch;
use crate::admission::decisions::{Decisions, Ring};
use crate::admission::{Admission, Admitted, Desk, Permit};
use crate::clock::Timestamp;
use crate::net::{ConnectionState, Drain, Established, HeadOutcome, Inbound, Stage};
use crate::policy::source::BodyLimit;
use crate::reason::Reason;
use crate::request::head::{Expectation, Framing, HeadFacts};
use crate::request::peer::TrustedProxies;
use crate::request::{Host, Rejection, RequestFacts, host};
use crate::telemetry::{AccessLog, AccessSink, Limit, Listener, Metrics, Stream, WorkerMetrics};

/// What the gateway is configured with.
pub struct GatewaySettings {
    /// Whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// Largest request body in bytes, where the route says nothing.
    pub body_limit: u64,
    /// The upstreams.
    pub upstreams: Upstreams,
    /// Vouches for callers to the services behind it.
    pub assertions: Option<Assertions>,
}

/// What of requests is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// A line for each.
    pub access: bool,
    /// Audit events: of denials, and of routes that are marked `audit: true`.
    pub audit: bool,
}

/// What all workers share.
pub struct Gateway {
    admission: Arc<Admission>,
    settings: GatewaySettings,
    /// Counted by all workers together, and over changes of the policy.
    rates: RateLimits,
    decisions: Arc<Decisions>,
}

/// One worker's part: its own upstream pools and its own counters, so that workers share nothing on the request path.
pub struct Worker {
    gateway: Arc<Gateway>,
    pools: Arc<WorkerPools>,
    /// Its counters, and the tokens that it saw last.
    desk: Desk,
    /// Its buffer of the log, if requests or events are logged.
    pub(super) log: Option<AccessSink>,
    /// Which of them are.
    pub(super) logged: Logged,
    /// Its decisions of late, if they are remembered.
    ring: Option<Arc<Ring>>,
    /// Its exchanges that are open for long.
    pub(super) watch: Watch,
    /// How far the end has come.
    drain: Drain,
}

/// What a request asks for, as far as its head says.
struct Asked {
    head: HeadFacts,
    /// Who is behind the peer.
    client: IpAddr,
    host: Option<Host>,
}

/// Where a permitted request goes.
struct Bound {
    pool: Arc<Pool>,
    uri: Uri,
    /// In bytes.
    body_limit: u64,
    /// Until the first byte of the answer.
    first_byte: Duration,
}

impl Gateway {
    /// A gateway that decides by `admission` and remembers in `decisions`.
    #[must_use]
    pub fn new(admission: Arc<Admission>, settings: GatewaySettings, decisions: Arc<Decisions>) -> Arc<Self> {
        Arc::new(Self { admission, settings, rates: RateLimits::default(), decisions })
    }

    /// What it decides by.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The upstreams, which may change while it runs.
    #[must_use]
    pub fn upstreams(&self) -> &Upstreams {
        &self.settings.upstreams
    }

    /// Forgets what no longer counts. Called beside requests, every few seconds.
    pub fn sweep(&self) {
        self.rates.sweep(Instant::now());
        self.decisions.in_force(self.admission.snapshot().version());
    }
}

impl Worker {
    /// A worker of `gateway`.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        metrics: &Metrics,
        (log, logged): (Option<&AccessLog>, Logged),
        drain: Drain,
    ) -> Arc<Self> {
        let count = metrics.worker();
        let pools = gateway.settings.upstreams.worker(&count);
        let ring = gateway.decisions.ring();
        Arc::new(Self {
            gateway,
            pools,
            desk: Desk::new(count),
            log: log.map(AccessLog::worker),
            logged,
            ring,
            watch: Watch::default(),
            drain,
        })
    }

    /// Where it remembers decisions, if it does.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        self.ring.as_deref()
    }

    /// Its counters.
    #[must_use]
    pub fn count(&self) -> &Arc<WorkerMetrics> {
        &self.desk.count
    }

    /// What it decides by.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.gateway.admission
    }

    /// What it keeps for deciding.
    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Has open exchanges decided again, if anything has changed (T20). The worker's own timer calls it, every
    /// [`watch::PERIOD`](super::watch::PERIOD).
    pub fn look(&self) {
        let now = Timestamp::now();
        self.watch.look(self.admission().changes(now), now);
    }

    /// The process is about to end: streams are ended in their own words while there is time.
    pub fn leave(&self) {
        self.watch.leave();
    }

    /// Whether answers say that theirs is the last of its connection.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.drain.has_reached(Stage::Leaving)
    }

    /// Closes upstream connections that nobody used for a while. The worker's own timer calls it.
    pub fn sweep(&self) {
        self.pools.sweep();
    }

    /// Serves one request: read, admit (clean, match, authenticate, check revocation, authorize), bind it to an upstream within
    /// its limits, rewrite, forward; the exchange observes.
    ///
    /// # Errors
    /// None; every failure becomes an answer.
    pub async fn serve(
        self: Arc<Self>,
        from: Arc<PeerHeaders>,
        connection: Arc<ConnectionState>,
        mut request: Request<Incoming>,
    ) -> Result<Response<GatewayBody>, Infallible> {
        let (arrived, in_flight) = connection.begin(&request);
        let handshake = arrived.outcome.as_ref().ok().and_then(|head| Handshake::of(head, &mut request));
        let (mut parts, body) = Inbound::of(request).into_parts();
        let mut exchange = Exchange::begin(&self, &from, &parts, arrived.at, in_flight);
        let asked = match self.read(&mut exchange, arrived.outcome, &parts, &from) {
            Ok(asked) => asked,
            Err(denial) => return Ok(exchange.deny(&denial)),
        };
        if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
            return Ok(exchange.answer(reply::empty(StatusCode::NO_CONTENT)));
        }
        let facts = RequestFacts {
            method: parts.method.as_str(),
            host: asked.host.as_ref(),
            target: parts.uri.path_and_query().map_or("/", PathAndQuery::as_str),
            client: asked.client,
        };
        if let Some(assertions) = &self.gateway.settings.assertions
            && parts.uri.path() == assertion::KEYS_PATH
            && asked.head.framing == Framing::None
        {
            return Ok(match assertions.published(&parts.method) {
                Ok(answer) => exchange.answer(answer),
                Err(denial) => exchange.deny(&denial),
            });
        }
        if parts.method == Method::OPTIONS && asked.head.framing == Framing::None {
            let snapshot = self.gateway.admission.snapshot();
            if let Some((answer, service)) = cors::preflight(&snapshot, &facts, &parts.headers) {
                exchange.preflight(snapshot, service);
                return Ok(exchange.answer(answer));
            }
        }
        let admission = &self.gateway.admission;
        let admitted = match admission.admit(&facts, &parts.headers, exchange.now(), &self.desk) {
            Ok(admitted) => admitted,
            // In a box, so that those who need not ask carry nothing of it.
            Err(question) => Box::pin(admission.answered(question, &facts, &parts.headers, &self.desk)).await,
        };
        exchange.crosses(cors::cross_origin(admitted.judged(), asked.host.as_ref(), &parts.headers));
        let permit = match admitted {
            Admitted::Permit(permit) => permit,
            Admitted::Refusal(refusal) => {
                let reason = refusal.reason();
                let judged = refusal.into_judged();
                let denial = Denial::of_judged(&judged, reason);
                exchange.judge(judged);
                return Ok(exchange.deny(&denial));
            }
        };
        let bound = match self.bind(&mut exchange, &permit, &asked, &parts.uri) {
            Ok(bound) => bound,
            Err(denial) => {
                exchange.judge(permit.into_judged());
                return Ok(exchange.deny(&denial));
            }
        };
        let switch = self.rewrite(&mut parts.headers, &permit, &bound, &asked, (&from, &exchange), handshake);
        if let Some(assertions) = &self.gateway.settings.assertions {
            let id = exchange.request_id();
            assertions.vouch(&mut parts.headers, &permit, &parts.method, &bound.uri, id, exchange.now());
        }
        exchange.judge(permit.into_judged());
        parts.uri = bound.uri.clone();
        parts.version = Version::HTTP_11;
        Ok(self.forward(exchange, bound, Request::from_parts(parts, body), switch, &connection).await)
    }

    /// What was asked for and by whom, or why that cannot be said.
    fn read(
        &self,
        exchange: &mut Exchange,
        outcome: HeadOutcome,
        parts: &Parts,
        from: &PeerHeaders,
    ) -> Result<Asked, Denial> {
        let refused = |rejection: Rejection| {
            if rejection.reason == Reason::HeadersTooLarge {
                self.desk.count.limit_rejection(Limit::HeaderBytes);
            }
            Denial::of_rejection(rejection)
        };
        let head = outcome.map_err(|rejection| {
            self.desk.count.parse_error(Listener::Gateway, rejection.reason.status());
            exchange.never_parsed();
            refused(rejection)
        })?;
        exchange.frames(head.framing);
        let (client, host) = self.client_and_host(parts, from).map_err(refused)?;
        exchange.client(client, host.as_ref());
        if from.is_misdirected(host.as_ref()) {
            return Err(Denial::misdirected());
        }
        Ok(Asked { head, client, host })
    }

    /// Where a permitted request goes, if it keeps within the limits of its route.
    fn bind(&self, exchange: &mut Exchange, permit: &Permit<'_>, asked: &Asked, sent: &Uri) -> Result<Bound, Denial> {
        if let Some(budget) = self.spend(permit, asked.client) {
            exchange.limited(budget);
            if budget.is_exceeded() {
                self.desk.count.limit_rejection(Limit::Rate);
                return Err(Denial::plain(Reason::RateLimited, budget.detail()));
            }
        }
        if asked.head.expects == Expectation::Other {
            let detail = "the only expectation that can be met is `100-continue`";
            return Err(Denial { status: 417, ..Denial::plain(Reason::BadRequest, detail) });
        }
        let nowhere = |reason| Denial::plain(reason, "there is no service behind this route");
        let pool = self.pool(permit).map_err(nowhere)?;
        let uri = forwarded_uri(permit, sent).map_err(nowhere)?;
        let body_limit = self.body_limit(permit);
        if matches!(asked.head.framing, Framing::Length(length) if length > body_limit) {
            self.desk.count.limit_rejection(Limit::Body);
            return Err(Denial::too_large(body_limit));
        }
        let first_byte = first_byte(permit).unwrap_or(pool.settings().first_byte);
        Ok(Bound { pool, uri, body_limit, first_byte })
    }

    /// Makes the client's headers the upstream's. A handshake is asked for anew, and comes back with what has to be answered to it.
    fn rewrite(
        &self,
        headers: &mut HeaderMap,
        permit: &Permit<'_>,
        bound: &Bound,
        asked: &Asked,
        (from, exchange): (&PeerHeaders, &Exchange),
        handshake: Option<Handshake>,
    ) -> Option<(Handshake, HeaderValue)> {
        let upstream_host = upstream_host(permit, asked.host.as_ref());
        let forwarding = Forwarding {
            from,
            host: upstream_host.as_ref().unwrap_or(&bound.pool.settings().authority),
            request_id: exchange.request_id(),
            trace: exchange.trace(),
        };
        headers::rewrite(headers, permit, &forwarding);
        if asked.head.expects != Expectation::Nothing {
            // It is met here, now that the request is permitted: hyper says 100 when the body is first asked for.
            headers.remove(EXPECT);
        }
        handshake.and_then(|handshake| Some((handshake, Handshake::ask(headers)?)))
    }

    /// Sends what was permitted, and passes on what is answered.
    async fn forward(
        &self,
        mut exchange: Box<Exchange>,
        bound: Bound,
        request: Request<Inbound>,
        switch: Option<(Handshake, HeaderValue)>,
        connection: &ConnectionState,
    ) -> Response<GatewayBody> {
        let Bound { pool, body_limit, first_byte, .. } = bound;
        let (parts, body) = request.into_parts();
        if !body.is_end_stream() && Exchange::expects_grpc(&parts.headers) {
            exchange.becomes(Stream::Grpc);
        }
        let (body, transfer) = RequestBody::new(body, body_limit);
        let now = Instant::now();
        exchange.forwarded(pool.metrics(), transfer.clone(), now);
        let request = Request::from_parts(parts, body);
        let (answer, lease) = match pool.send(request, now, first_byte, transfer.as_deref(), &mut exchange).await {
            Ok(answered) => answered,
            Err(error) => return self.unanswered(exchange, &error, body_limit),
        };
        let idle = pool.settings().idle;
        let checked = match switch {
            Some((handshake, accept)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                match upgrade::check_switch(answer.headers(), &accept) {
                    Ok(()) => return tunnel(exchange, answer, lease, handshake, connection, idle),
                    Err(detail) => Err(detail),
                }
            }
            Some((handshake, _)) if handshake.is_opened_by(answer.status()) => {
                Err("the upstream answered a WebSocket handshake with a success that is no switch")
            }
            _ => headers::check_response(answer.status(), answer.headers()),
        };
        match checked {
            Ok(()) => exchange.relay(answer, lease, idle),
            // The lease is dropped, and the connection with it: what follows on it means something else.
            Err(detail) => {
                tracing::warn!(
                    detail,
                    request_id = exchange.request_id().to_str().unwrap_or_default(),
                    "an answer that cannot be passed on"
                );
                let detail = "the service answered what cannot be passed on";
                exchange.deny(&Denial::plain(Reason::UpstreamUnavailable, detail))
            }
        }
    }

    /// What the client is told of a request that got no answer.
    fn unanswered(&self, exchange: Box<Exchange>, error: &UpstreamError, body_limit: u64) -> Response<GatewayBody> {
        if exchange.was_ended() {
            if exchange.stream() == Some(Stream::Grpc) {
                return exchange.end_call(error.reason);
            }
            let realm = exchange.service();
            let detail = "what the request was permitted by has changed while it waited";
            return exchange.deny(&Denial { realm, ..Denial::plain(error.reason, detail) });
        }
        if error.reason == Reason::BodyTooLarge {
            self.desk.count.limit_rejection(Limit::Body);
        }
        tracing::warn!(
            reason = %error.reason,
            detail = %error.detail,
            request_id = exchange.request_id().to_str().unwrap_or_default(),
            "no answer from the upstream"
        );
        exchange.deny(&Denial::of_upstream(error, body_limit))
    }

    /// What is the same for every request of a connection. Only who stands in the list himself, and not behind a PROXY
    /// protocol header of somebody else, is believed what he says of others (T29).
    #[must_use]
    pub fn meet(&self, connection: Arc<Established>) -> Arc<PeerHeaders> {
        let trusted = &self.gateway.settings.trusted_proxies;
        let believed = trusted.contains(connection.peer.ip()) && trusted.contains(connection.client.ip());
        Arc::new(PeerHeaders::new(connection, believed))
    }

    fn client_and_host(&self, parts: &Parts, from: &PeerHeaders) -> Result<(IpAddr, Option<Host>), Rejection> {
        let client = match from.trusted {
            true => self.gateway.settings.trusted_proxies.client(from.peer, &parts.headers)?.address,
            false => from.peer.to_canonical(),
        };
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = host::of_request(authority, &parts.headers, parts.version)?;
        Ok((client, host))
    }

    /// The upstream of what was permitted. A permit without one comes of report mode only, where no file says where
    /// an unmatched request would go.
    fn pool(&self, permit: &Permit<'_>) -> Result<Arc<Pool>, Reason> {
        let judged = permit.judged();
        let name = match judged.decision.route {
            Some(route) => Some(&judged.snapshot.route(route).upstream),
            None => {
                judged.decision.service.and_then(|index| judged.snapshot.services()[index as usize].upstream.as_ref())
            }
        };
        name.and_then(|name| self.pools.get(name)).ok_or(Reason::NoRoute)
    }

    /// Counts the request, if its route has a limit. Only what is permitted counts, so that nobody uses up another's budget
    /// with requests that are denied; in report mode a limit holds as ever.
    fn spend(&self, permit: &Permit<'_>, client: IpAddr) -> Option<Budget> {
        let judged = permit.judged();
        let route = judged.snapshot.route(judged.decision.route?);
        let limit = route.rate_limit?;
        let service = judged.snapshot.service_by_index(route.service)?;
        let subject = judged.caller.as_ref().map(|caller| &*caller.entry.claims.subject);
        Some(self.gateway.rates.spend(limit, service, route, Asker { subject, address: client }, Instant::now()))
    }

    fn body_limit(&self, permit: &Permit<'_>) -> u64 {
        let judged = permit.judged();
        match judged.decision.route.and_then(|route| judged.snapshot.route(route).body) {
            Some(BodyLimit::Bytes(bytes)) => bytes,
            Some(BodyLimit::Unlimited) => u64::MAX,
            None => self.gateway.settings.body_limit,
        }
    }
}

/// Both sides speak WebSocket from here on; the tunnel has a task of its own.
fn tunnel(
    mut exchange: Box<Exchange>,
    mut answer: Response<Incoming>,
    lease: Lease,
    handshake: Handshake,
    connection: &ConnectionState,
    idle: Duration,
) -> Response<GatewayBody> {
    let upstream = hyper::upgrade::on(&mut answer);
    let (mut parts, _) = answer.into_parts();
    exchange.upgrade(&mut parts, &handshake);
    let hold = connection.open_tunnel();
    tokio::spawn(Tunnel { client: handshake.client, upstream, lease, hold, exchange, idle }.run());
    Response::from_parts(parts, GatewayBody::Upgraded)
}

fn first_byte(permit: &Permit<'_>) -> Option<Duration> {
    let judged = permit.judged();
    judged.decision.route.and_then(|route| judged.snapshot.route(route).timeout)
}

/// The target that goes upstream: what was matched, byte for byte. The request's own buffer is used where cleaning changed nothing.
fn forwarded_uri(permit: &Permit<'_>, sent: &Uri) -> Result<Uri, Reason> {
    let target = permit.judged().decision.target.as_ref().ok_or(Reason::BadRequestTarget)?;
    let unchanged = sent.path_and_query().filter(|sent| sent.as_str() == target.path_and_query());
    let path_and_query = match unchanged {
        Some(unchanged) => unchanged.clone(),
        None => PathAndQuery::try_from(target.path_and_query()).map_err(|_| Reason::BadRequestTarget)?,
    };
    Ok(Uri::from(path_and_query))
}

/// The host of the policy file that was matched literally goes on; one that matched a wildcard or nothing is the client's word,
/// and the upstream gets its configured authority instead (T24).
fn upstream_host(permit: &Permit<'_>, host: Option<&Host>) -> Option<HeaderValue> {
    let judged = permit.judged();
    let service = &judged.snapshot.services()[judged.decision.service? as usize];
    let host = host?.as_str();
    service.hosts.iter().any(|literal| **literal == *host).then(|| HeaderValue::from_str(host).ok()).flatten()
}
