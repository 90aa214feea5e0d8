//! A worker's connections to one upstream, and the way of a request through them: [`Pool::send`].

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::UPGRADE;
use http::uri::Scheme as UriScheme;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::{timeout, timeout_at};

use super::super::body::{RequestBody, Transfer};
use super::super::exchange::Exchange;
use super::super::splitmix;
use super::super::watch::End;
use super::choose::choose;
use super::connect::{Made, NoConnection, Wanted, connect};
use super::endpoint::EndpointState;
use super::gate::{Full, Gate};
use super::http2::{self, Multiplexed, OpenStream};
use super::lease::{Connection, Lease, Place, Pooled};
use super::registry::Upstream;
use super::settings::{Scheme, UpstreamSettings};
use crate::reason::Reason;
use crate::telemetry::{Limit, UpstreamMetrics, WorkerMetrics};

/// Idle HTTP/1.1 connections that a worker keeps to one endpoint.
const MAX_IDLE: usize = 256;
/// How long an idle connection is kept; shorter than the 60 to 75 s after which common servers close.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// A failure to get an answer.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct UpstreamError {
    /// `upstream_unavailable`, `upstream_timeout`, `overloaded`, or what the request's own body did wrong.
    pub reason: Reason,
    /// What happened, for logs.
    pub detail: String,
}

/// A worker's connections to one upstream.
pub struct Pool {
    upstream: Arc<Upstream>,
    endpoints: Box<[Arc<EndpointPool>]>,
    /// The state of a generator of choices, which need to be spread and not secret.
    turn: AtomicU64,
    count: Arc<WorkerMetrics>,
    metrics: Arc<UpstreamMetrics>,
}

/// A worker's connections to one endpoint.
pub(super) struct EndpointPool {
    pub(super) state: Arc<EndpointState>,
    pub(super) gate: Arc<Gate>,
    metrics: Arc<UpstreamMetrics>,
    idle: Mutex<Vec<Pooled>>,
    multiplexed: Mutex<Vec<Multiplexed>>,
    /// Held while a connection is made that others can use as well.
    connecting: tokio::sync::Mutex<()>,
    /// What the endpoint spoke last.
    spoken: AtomicU8,
}

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// A try that got no answer.
struct Failed {
    error: UpstreamError,
    /// The request, if it may be sent once more.
    again: Option<Request<RequestBody>>,
}

impl Pool {
    /// A pool of `upstream`; endpoints that `before` had keep their connections.
    pub(super) fn new(upstream: &Arc<Upstream>, before: Option<&Self>, count: &Arc<WorkerMetrics>) -> Arc<Self> {
        let metrics = count.upstream(&upstream.name);
        let kept = |state: &Arc<EndpointState>| {
            let mut pools = before.iter().flat_map(|before| before.endpoints.iter());
            pools.find(|pool| Arc::ptr_eq(&pool.state, state)).map(Arc::clone)
        };
        let made = |state: &Arc<EndpointState>| {
            Arc::new(EndpointPool {
                state: Arc::clone(state),
                gate: Arc::clone(&upstream.gate),
                metrics: Arc::clone(&metrics),
                idle: Mutex::default(),
                multiplexed: Mutex::default(),
                connecting: tokio::sync::Mutex::default(),
                spoken: AtomicU8::new(match state.endpoint.scheme {
                    Scheme::Http => HTTP1,
                    Scheme::H2c => HTTP2,
                    Scheme::Https => UNKNOWN,
                }),
            })
        };
        let endpoints = upstream.endpoints.iter().map(|state| kept(state).unwrap_or_else(|| made(state))).collect();
        // Workers that begin alike would all choose alike.
        let seed = Arc::as_ptr(count).addr() as u64;
        let turn = AtomicU64::new(seed.wrapping_mul(0xBF58_476D_1CE4_E5B9));
        Arc::new(Self { upstream: Arc::clone(upstream), endpoints, turn, count: Arc::clone(count), metrics })
    }

    /// What it was configured with.
    #[must_use]
    pub fn settings(&self) -> &UpstreamSettings {
        &self.upstream.settings
    }

    /// What is measured of it.
    #[must_use]
    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Closes what was idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for endpoint in &self.endpoints {
            endpoint.sweep(now);
        }
    }

    /// Sends a request and waits for the head of the answer. Its target has no host, its `Host` is what the upstream is to get.
    ///
    /// One that got no answer is sent once more, to another endpoint if there is one: if no byte of it was written, or if it may
    /// be repeated (RFC 9110 section 9.2.2, and without a body) and its connection closed before the first byte of an answer.
    ///
    /// # Errors
    /// [`UpstreamError`]; nothing of an answer was seen then.
    pub async fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        now: Instant,
        first_byte: Duration,
        transfer: Option<&Transfer>,
        exchange: &mut Exchange,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut now = now;
        if !self.upstream.gate.try_enter(&self.settings().limits) {
            // The endpoint has its time from here on: it is not to blame for the queue.
            now = Box::pin(self.wait_for_place(exchange)).await?;
        }
        // What was entered is left when the place is dropped; nothing may come between.
        let chosen = self.choose(None, now);
        let place = Place::new(&self.endpoints[chosen], self.endpoints.len() > 1);
        let mut attempt = Attempt { pool: self, begun: now, now, first_byte, transfer, exchange, last: false };
        let (failed, mut place) = match attempt.run(place, request).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        let Some(request) = failed.again else { return Err(failed.error) };
        self.metrics.retried();
        let mut again = Attempt { begun: Instant::now(), last: true, ..attempt };
        place.move_to(&self.endpoints[self.choose(Some(chosen), again.begun)]);
        Box::pin(again.run(place, request)).await.map_err(|(failed, _)| failed.error)
    }

    #[cold]
    async fn wait_for_place(&self, exchange: &mut Exchange) -> Result<Instant, UpstreamError> {
        let limits = &self.settings().limits;
        match while_admitted(exchange, self.upstream.gate.wait(limits)).await? {
            Ok(()) => Ok(Instant::now()),
            Err(Full) => {
                self.count.limit_rejection(Limit::UpstreamRequests);
                let detail = format!("{} requests are in flight to {}", limits.requests, self.upstream.name);
                Err(UpstreamError { reason: Reason::Overloaded, detail })
            }
        }
    }

    fn choose(&self, avoid: Option<usize>, now: Instant) -> usize {
        if self.endpoints.len() == 1 {
            return 0;
        }
        let ejection = &self.settings().ejection;
        choose(self.endpoints.len(), avoid, self.random(), |index| self.endpoints[index].state.candidate(now, ejection))
    }

    fn random(&self) -> u64 {
        splitmix::mix(self.turn.fetch_add(splitmix::STEP, Ordering::Relaxed))
    }
}

/// Waits for something, as long as the exchange may go on: who waits for long is watched like one whose answer is awaited (T20).
async fn while_admitted<T>(exchange: &mut Exchange, waiting: impl Future<Output = T>) -> Result<T, UpstreamError> {
    let mut waiting = pin!(waiting);
    if let Ok(done) = timeout_at(exchange.watched_from().into(), waiting.as_mut()).await {
        return Ok(done);
    }
    poll_fn(|cx| match exchange.poll_end(cx) {
        Poll::Ready(end) => Poll::Ready(Err(ended(end))),
        Poll::Pending => waiting.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// What becomes of a request whose exchange had to end before it was answered.
fn ended(end: End) -> UpstreamError {
    match end {
        End::Denied(reason) => UpstreamError { reason, detail: "ended while it waited for an answer".into() },
        End::Leaving => UpstreamError { reason: Reason::Overloaded, detail: "the grace time is over".into() },
    }
}

/// One try to get an answer.
struct Attempt<'a> {
    pool: &'a Pool,
    /// When this try began.
    begun: Instant,
    /// When the first one did.
    now: Instant,
    first_byte: Duration,
    transfer: Option<&'a Transfer>,
    /// What it is tried for.
    exchange: &'a mut Exchange,
    /// Whether there is no further one.
    last: bool,
}

impl Attempt<'_> {
    async fn run(
        &mut self,
        place: Place,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), (Failed, Place)> {
        let endpoint = &place.pool;
        let wanted = wanted(&request, endpoint);
        if wanted == Wanted::Http1 && endpoint.state.endpoint.scheme == Scheme::H2c {
            // Not the endpoint's fault: a client that asks for it must not be able to have it ejected.
            let error = unavailable("the endpoint speaks HTTP/2 alone, where no request can switch protocols");
            return Err((Failed { error, again: None }, place));
        }
        // What was idle may all have been closed by the same restart: a second try does not rely on it.
        let idle = if self.last { None } else { endpoint.take_idle(wanted) };
        let (connection, fresh) = match idle {
            Some(connection) => (connection, false),
            // What is rare has room of its own, or every request would carry it along.
            None => {
                let connecting = endpoint.connect(wanted, self.pool.settings().connect);
                match Box::pin(while_admitted(self.exchange, connecting)).await {
                    Ok(Ok(connection)) => (connection, true),
                    Ok(Err(error)) => return Err((self.no_connection(error, endpoint, wanted, request), place)),
                    Err(error) => return Err((Failed { error, again: None }, place)),
                }
            }
        };
        let sent = match connection {
            Connection::Http1(pooled) => self.send_http1(pooled, fresh, request).await,
            Connection::Http2(stream) => Box::pin(self.send_http2(stream, fresh, request, endpoint)).await,
        };
        let ejection = &self.pool.settings().ejection;
        match sent {
            Ok((response, connection)) => {
                if ejection.server_errors && response.status().is_server_error() {
                    endpoint.state.failed(self.begun, ejection);
                } else {
                    endpoint.state.succeeded(self.begun, ejection);
                }
                Ok((response, Lease { connection, place }))
            }
            Err((failed, blame)) => {
                if blame {
                    endpoint.state.failed(self.begun, ejection);
                }
                Err((failed, place))
            }
        }
    }

    fn no_connection(
        &self,
        error: NoConnection,
        endpoint: &EndpointPool,
        wanted: Wanted,
        request: Request<RequestBody>,
    ) -> Failed {
        // An endpoint may refuse to speak HTTP/1.1, and it is the client who wants it to.
        if wanted == Wanted::Any {
            endpoint.state.failed(self.begun, &self.pool.settings().ejection);
        }
        let reason = if error.late { Reason::UpstreamTimeout } else { Reason::UpstreamUnavailable };
        // A second try at the only endpoint there is would be refused as well.
        let again = (!self.last && self.pool.endpoints.len() > 1).then_some(request);
        Failed { error: UpstreamError { reason, detail: error.detail }, again }
    }

    /// Whether a copy of the request could be of use.
    fn is_repeatable(&self, request: &Request<RequestBody>) -> bool {
        !self.last
            && self.transfer.is_none()
            && matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
    }

    async fn send_http1(
        &mut self,
        mut pooled: Pooled,
        fresh: bool,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Connection), (Failed, bool)> {
        let repeatable = self.is_repeatable(&request);
        if repeatable {
            pooled.memory.arm();
        }
        let sending = std::pin::pin!(pooled.sender.try_send_request(request));
        match self.wait_for_answer(sending).await {
            Err(late) => {
                let blame = self.is_to_blame_for(&late);
                Err((Failed { error: late, again: None }, blame))
            }
            Ok(Ok(response)) => Ok((response, Connection::Http1(pooled))),
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                // An idle connection that the endpoint closed is nobody's fault.
                let blame = (fresh || unsent.is_none()) && self.fault().is_none();
                let again = unsent.or_else(|| repeatable.then(|| pooled.memory.unanswered())?).filter(|_| !self.last);
                Err((Failed { error: self.failure(error.error()), again }, blame))
            }
        }
    }

    async fn send_http2(
        &mut self,
        mut stream: OpenStream,
        fresh: bool,
        mut request: Request<RequestBody>,
        endpoint: &EndpointPool,
    ) -> Result<(Response<Incoming>, Connection), (Failed, bool)> {
        let spare = self.is_repeatable(&request).then(|| copy_of(&request));
        let bodyless = self.transfer.is_none();
        let scheme = if endpoint.state.tls.is_some() { UriScheme::HTTPS } else { UriScheme::HTTP };
        if http2::into_http2(&mut request, scheme).is_none() {
            let error = unavailable("the host cannot be written as an authority");
            return Err((Failed { error, again: None }, false));
        }
        let refusable = (bodyless && spare.is_none() && !self.last).then(|| copy_of(&request));
        let sending = std::pin::pin!(stream.0.sender.try_send_request(request));
        match self.wait_for_answer(sending).await {
            Err(late) => {
                let blame = self.is_to_blame_for(&late);
                if blame {
                    stream.retire();
                }
                Err((Failed { error: late, again: None }, blame))
            }
            Ok(Ok(response)) => Ok((response, Connection::Http2(stream))),
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                let refused = http2::was_refused(error.error());
                let ended = http2::has_ended(error.error());
                let blame = (fresh || unsent.is_none()) && ended && self.fault().is_none();
                let again = unsent
                    .or_else(|| spare.filter(|_| ended || refused))
                    .or_else(|| refusable.filter(|_| refused))
                    .filter(|_| !self.last)
                    .map(|mut request| {
                        http2::into_http1(&mut request);
                        request
                    });
                Err((Failed { error: self.failure(error.error()), again }, blame))
            }
        }
    }

    /// Waits for the head of the answer. While the request's body is still being sent, its progress moves the deadline: an upload
    /// may take as long as it likes. What takes long is watched (T20): it ends when its exchange has to.
    async fn wait_for_answer<T>(&mut self, mut sending: Pin<&mut impl Future<Output = T>>) -> Result<T, UpstreamError> {
        let first_byte = self.first_byte;
        let mut until = self.now + first_byte;
        let watched_from = self.exchange.watched_from();
        let mut looked = self.begun;
        loop {
            let watching = looked >= watched_from || self.exchange.is_watched();
            // Asked before anything is sent: it may have waited for long before it came here.
            let answered = poll_fn(|cx| {
                if watching && let Poll::Ready(end) = self.exchange.poll_end(cx) {
                    return Poll::Ready(Err(end));
                }
                sending.as_mut().poll(cx).map(Ok)
            });
            let look = if watching { until } else { until.min(watched_from) };
            match timeout_at(look.into(), answered).await {
                Ok(Ok(sent)) => return Ok(sent),
                Ok(Err(end)) => return Err(ended(end)),
                Err(_) => looked = Instant::now(),
            }
            if looked < until {
                continue;
            }
            until = match self.transfer.map(Transfer::since_progress) {
                Some(since) if since < first_byte => Instant::now() + (first_byte - since),
                _ => break,
            };
        }
        Err(UpstreamError { reason: Reason::UpstreamTimeout, detail: format!("no answer within {first_byte:?}") })
    }

    /// Whether the endpoint has all of the request. Where it has not, it may be the client that keeps it waiting.
    fn was_sent(&self) -> bool {
        self.transfer.is_none_or(Transfer::has_ended)
    }

    /// Whether the endpoint is why there is no answer, and not the client, nor the end of the exchange.
    fn is_to_blame_for(&self, late: &UpstreamError) -> bool {
        late.reason == Reason::UpstreamTimeout && self.was_sent()
    }

    /// What the client did wrong with its body, if it did.
    fn fault(&self) -> Option<Reason> {
        self.transfer.and_then(Transfer::fault)
    }

    fn failure(&self, error: &hyper::Error) -> UpstreamError {
        match self.fault() {
            Some(fault) => UpstreamError { reason: fault, detail: "the request's body was refused".into() },
            None => UpstreamError { reason: Reason::UpstreamUnavailable, detail: describe(error) },
        }
    }
}

impl EndpointPool {
    /// Keeps a connection whose exchange has ended.
    pub(super) fn keep(&self, mut pooled: Pooled, now: Instant) {
        if pooled.sender.is_closed() {
            return;
        }
        pooled.since = now;
        pooled.gauge.set_idle();
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(pooled);
        }
    }

    /// A connection that is there already.
    fn take_idle(&self, wanted: Wanted) -> Option<Connection> {
        if wanted == Wanted::Any && self.spoken.load(Ordering::Relaxed) == HTTP2 {
            return self.open_stream().map(Connection::Http2);
        }
        // The one that was used last, if it is still good: the fewer are in use, the more can be closed.
        let mut idle = lock(&self.idle);
        for index in (0..idle.len()).rev() {
            if idle[index].sender.is_ready() {
                let mut pooled = idle.swap_remove(index);
                pooled.gauge.set_active();
                return Some(Connection::Http1(pooled));
            }
            if idle[index].sender.is_closed() {
                idle.swap_remove(index);
            }
        }
        None
    }

    fn open_stream(&self) -> Option<OpenStream> {
        let mut connections = lock(&self.multiplexed);
        connections.retain(Multiplexed::is_usable);
        connections.iter().find_map(Multiplexed::open)
    }

    /// A new connection. Where it will carry several requests, or may turn out to, one is made at a time and the others wait for
    /// it.
    async fn connect(&self, wanted: Wanted, limit: Duration) -> Result<Connection, NoConnection> {
        if wanted == Wanted::Http1 || self.spoken.load(Ordering::Relaxed) == HTTP1 {
            return self.make(wanted, limit).await;
        }
        let begun = Instant::now();
        let Ok(_turn) = timeout(limit, self.connecting.lock()).await else {
            let detail = format!("{} took no connection within {limit:?}", self.state.endpoint);
            return Err(NoConnection { late: true, detail });
        };
        match self.take_idle(wanted) {
            Some(connection) => Ok(connection),
            None => self.make(wanted, limit.saturating_sub(begun.elapsed())).await,
        }
    }

    async fn make(&self, wanted: Wanted, limit: Duration) -> Result<Connection, NoConnection> {
        let (spoken, connection) = match connect(&self.state, wanted, limit).await? {
            Made::Http1(sender, memory) => {
                let gauge = self.metrics.connected();
                (HTTP1, Connection::Http1(Pooled { sender, memory, since: Instant::now(), gauge }))
            }
            Made::Http2(made) => {
                made.counted(self.metrics.connected());
                let Some(stream) = made.open() else {
                    let detail = format!("{} takes no requests", self.state.endpoint);
                    return Err(NoConnection { late: false, detail });
                };
                lock(&self.multiplexed).push(made);
                (HTTP2, Connection::Http2(stream))
            }
        };
        if wanted == Wanted::Any {
            self.spoken.store(spoken, Ordering::Relaxed);
        }
        Ok(connection)
    }

    fn sweep(&self, now: Instant) {
        let stale = |since: Instant| now.saturating_duration_since(since) >= IDLE_TIME;
        lock(&self.idle).retain(|pooled| !pooled.sender.is_closed() && !stale(pooled.since));
        lock(&self.multiplexed)
            .retain(|connection| connection.is_usable() && !connection.idle_since().is_some_and(stale));
    }
}

fn wanted(request: &Request<RequestBody>, endpoint: &EndpointPool) -> Wanted {
    let plain = endpoint.state.endpoint.scheme == Scheme::Http;
    if !plain && request.headers().contains_key(UPGRADE) { Wanted::Http1 } else { Wanted::Any }
}

/// A second copy of a request without a body.
fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn unavailable(detail: &str) -> UpstreamError {
    UpstreamError { reason: Reason::UpstreamUnavailable, detail: detail.to_owned() }
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Its content, also after a panic elsewhere.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
