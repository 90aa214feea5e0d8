//! The life of a request, on one screen: [`Worker::serve`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::body::{GatewayBody, RequestBody};
use super::exchange::Exchange;
use super::headers::{self, Forwarding, PeerHeaders};
use super::rate_limit::{Asker, Budget, RateLimits};
use super::reply::{self, Denial};
use super::upstream::{Pool, UpstreamSettings};
use crate::admission::{Admission, Admitted, Desk, Permit};
use crate::net::{ConnectionState, Established};
use crate::policy::source::BodyLimit;
use crate::reason::Reason;
use crate::request::head::Framing;
use crate::request::peer::TrustedProxies;
use crate::request::{Host, Rejection, RequestFacts, host};
use crate::telemetry::{AccessLog, AccessSink, Limit, Listener, Metrics, WorkerMetrics};

/// What the gateway is configured with.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// Largest request body in bytes, where the route says nothing.
    pub body_limit: u64,
    /// The upstreams, by the names that policies use.
    pub upstreams: BTreeMap<Box<str>, Arc<UpstreamSettings>>,
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
}

/// One worker's part: its own upstream pools and its own counters, so that workers share nothing on the request path.
pub struct Worker {
    gateway: Arc<Gateway>,
    pools: BTreeMap<Box<str>, Arc<Pool>>,
    /// Its counters, and the tokens that it saw last.
    desk: Desk,
    /// Its buffer of the log, if requests or events are logged.
    pub(super) log: Option<AccessSink>,
    /// Which of them are.
    pub(super) logged: Logged,
}

impl Gateway {
    /// A gateway that decides by `admission`.
    #[must_use]
    pub fn new(admission: Arc<Admission>, settings: GatewaySettings) -> Arc<Self> {
        Arc::new(Self { admission, settings, rates: RateLimits::default() })
    }

    /// What it decides by.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Forgets what no longer counts. Called beside requests, every few seconds.
    pub fn sweep(&self) {
        self.rates.sweep(Instant::now());
    }
}

impl Worker {
    /// A worker of `gateway`.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, metrics: &Metrics, log: Option<&AccessLog>, logged: Logged) -> Arc<Self> {
        let count = metrics.worker();
        let upstreams = gateway.settings.upstreams.iter();
        let pools = upstreams
            .map(|(name, settings)| (name.clone(), Pool::new(Arc::clone(settings), count.upstream(name))))
            .collect();
        Arc::new(Self { gateway, pools, desk: Desk::new(count), log: log.map(AccessLog::worker), logged })
    }

    /// Its counters.
    #[must_use]
    pub fn count(&self) -> &Arc<WorkerMetrics> {
        &self.desk.count
    }

    /// Closes upstream connections that nobody used for a while. The worker's own timer calls it.
    pub fn sweep(&self) {
        self.pools.values().for_each(|pool| pool.sweep());
    }

    /// Serves one request: clean, match, authenticate, check revocation, authorize, rewrite, forward, observe.
    ///
    /// # Errors
    /// None; every failure becomes an answer.
    pub async fn serve(
        self: Arc<Self>,
        from: Arc<PeerHeaders>,
        connection: Arc<ConnectionState>,
        request: Request<Incoming>,
    ) -> Result<Response<GatewayBody>, Infallible> {
        let (arrived, in_flight) = connection.begin(&request);
        let (mut parts, body) = request.into_parts();
        let mut exchange = Exchange::begin(&self, &from, &parts, arrived.at, in_flight);
        let head = match arrived.outcome {
            Ok(head) => head,
            Err(rejection) => {
                self.desk.count.parse_error(Listener::Gateway, rejection.reason.status());
                exchange.never_parsed();
                return Ok(self.reject(exchange, rejection));
            }
        };
        exchange.frames(head.framing);
        if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
            return Ok(exchange.answer(reply::empty(StatusCode::NO_CONTENT)));
        }

        let (client, host) = match self.client_and_host(&parts, &from) {
            Ok(found) => found,
            Err(rejection) => return Ok(self.reject(exchange, rejection)),
        };
        exchange.client(client, host.as_ref());
        if from.is_misdirected(host.as_ref()) {
            return Ok(exchange.deny(&Denial::misdirected()));
        }
        let facts = RequestFacts {
            method: parts.method.as_str(),
            host: host.as_ref(),
            target: parts.uri.path_and_query().map_or("/", PathAndQuery::as_str),
            client,
        };
        let permit = match self.gateway.admission.admit(&facts, &parts.headers, exchange.now(), &self.desk) {
            Admitted::Permit(permit) => permit,
            Admitted::Refusal(refusal) => {
                let reason = refusal.reason();
                let judged = refusal.into_judged();
                let denial = Denial::of_judged(&judged, reason);
                exchange.judge(judged);
                return Ok(exchange.deny(&denial));
            }
        };

        if let Some(budget) = self.spend(&permit, client) {
            exchange.limited(budget);
            if budget.is_exceeded() {
                self.desk.count.limit_rejection(Limit::Rate);
                exchange.judge(permit.into_judged());
                return Ok(exchange.deny(&Denial::plain(Reason::RateLimited, budget.detail())));
            }
        }

        let body_limit = self.body_limit(&permit);
        let route = self.pool(&permit).and_then(|pool| Ok((pool, forwarded_uri(&permit, &parts.uri)?)));
        let (pool, uri) = match route {
            Ok(found) => found,
            Err(reason) => {
                exchange.judge(permit.into_judged());
                return Ok(exchange.deny(&Denial::plain(reason, "there is no service behind this route")));
            }
        };
        if matches!(head.framing, Framing::Length(length) if length > body_limit) {
            self.desk.count.limit_rejection(Limit::Body);
            exchange.judge(permit.into_judged());
            return Ok(exchange.deny(&Denial::too_large(body_limit)));
        }
        let upstream_host = upstream_host(&permit, host.as_ref());
        let forwarding = Forwarding {
            from: &from,
            host: upstream_host.as_ref().unwrap_or(&pool.settings().authority),
            request_id: exchange.request_id(),
            trace: exchange.trace(),
        };
        headers::rewrite(&mut parts.headers, &permit, &forwarding);
        let first_byte = first_byte(&permit).unwrap_or(pool.settings().first_byte);
        exchange.judge(permit.into_judged());
        parts.uri = uri;
        parts.version = Version::HTTP_11;

        let (body, transfer) = RequestBody::new(body, body_limit);
        let now = Instant::now();
        exchange.forwarded(pool.metrics(), transfer.clone(), now);
        match pool.send(Request::from_parts(parts, body), now, first_byte, transfer.as_deref()).await {
            Ok((answer, lease)) => match headers::check_response(answer.status(), answer.headers()) {
                Ok(()) => Ok(exchange.relay(answer, lease, pool.settings().idle)),
                // The lease is dropped, and the connection with it: what follows on it means something else.
                Err(detail) => {
                    tracing::warn!(
                        detail,
                        request_id = exchange.request_id().to_str().unwrap_or_default(),
                        "an answer that cannot be passed on"
                    );
                    Ok(exchange.deny(&Denial::plain(
                        Reason::UpstreamUnavailable,
                        "the service answered what cannot be passed on",
                    )))
                }
            },
            Err(error) => {
                if error.reason == Reason::BodyTooLarge {
                    self.desk.count.limit_rejection(Limit::Body);
                }
                tracing::warn!(
                    reason = %error.reason,
                    detail = %error.detail,
                    request_id = exchange.request_id().to_str().unwrap_or_default(),
                    "no answer from the upstream"
                );
                Ok(exchange.deny(&Denial::of_upstream(&error, body_limit)))
            }
        }
    }

    /// What is the same for every request of a connection. Only who stands in the list himself, and not behind a PROXY
    /// protocol header of somebody else, is believed what he says of others (T29).
    #[must_use]
    pub fn meet(&self, connection: Arc<Established>) -> Arc<PeerHeaders> {
        let trusted = &self.gateway.settings.trusted_proxies;
        let believed = trusted.contains(connection.peer.ip()) && trusted.contains(connection.client.ip());
        Arc::new(PeerHeaders::new(connection, believed))
    }

    fn reject(&self, exchange: Box<Exchange>, rejection: Rejection) -> Response<GatewayBody> {
        if rejection.reason == Reason::HeadersTooLarge {
            self.desk.count.limit_rejection(Limit::HeaderBytes);
        }
        exchange.deny(&Denial::of_rejection(rejection))
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
        name.and_then(|name| self.pools.get(&**name)).map(Arc::clone).ok_or(Reason::NoRoute)
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
