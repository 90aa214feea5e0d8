//! Connections to one upstream, pooled by each worker for itself.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use super::body::{RequestBody, Transfer};
use super::exchange::Exchange;
use super::watch::End;
use crate::reason::Reason;
use crate::telemetry::{UpstreamConnection, UpstreamMetrics};

/// Bytes that one upstream connection buffers each way.
const BUFFER_BYTES: usize = 64 * 1024;
/// Idle connections that a worker keeps to one upstream.
const MAX_IDLE: usize = 256;
/// How long an idle connection is kept; shorter than the 60 to 75 s after which common servers close.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A pooled connection that was idle for longer may have been closed by the upstream a moment ago: then a
/// request that may be repeated is kept for a second try.
const DOUBTFUL_AFTER: Duration = Duration::from_millis(500);

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What an upstream is configured with.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Where it can be reached; taken in turn.
    pub endpoints: Vec<Endpoint>,
    /// What it gets as `Host` where the policy names no host of its own.
    pub authority: http::HeaderValue,
    /// Until a connection is made.
    pub connect: Duration,
    /// Until the first byte of an answer, counted from the last byte of the request.
    pub first_byte: Duration,
    /// Between two bytes of an answer.
    pub idle: Duration,
}

/// A failure to get an answer.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct UpstreamError {
    /// `upstream_unavailable`, `upstream_timeout`, or what the request's own body did wrong.
    pub reason: Reason,
    /// What happened, for logs.
    pub detail: String,
}

/// A worker's connections to one upstream.
pub struct Pool {
    settings: Arc<UpstreamSettings>,
    idle: Mutex<Vec<Pooled>>,
    turn: AtomicUsize,
    metrics: Arc<UpstreamMetrics>,
}

/// A connection that can carry one exchange at a time.
pub struct Pooled {
    sender: SendRequest<RequestBody>,
    since: Instant,
    gauge: UpstreamConnection,
}

/// A connection in use. It goes back to its pool by [`Lease::give_back`] alone; dropped otherwise, it is closed,
/// because something of the exchange is still on the wire.
pub struct Lease {
    pool: Arc<Pool>,
    pooled: Pooled,
}

impl Lease {
    /// Gives the connection back after the answer was read to its end.
    pub fn give_back(mut self, now: Instant) {
        if self.pooled.sender.is_closed() {
            return;
        }
        self.pooled.since = now;
        self.pooled.gauge.set_idle();
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(self.pooled);
        }
    }
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(settings: Arc<UpstreamSettings>, metrics: Arc<UpstreamMetrics>) -> Arc<Self> {
        Arc::new(Self { settings, idle: Mutex::default(), turn: AtomicUsize::new(0), metrics })
    }

    /// What it was configured with.
    #[must_use]
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// What is measured of it.
    #[must_use]
    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    /// Closes what was idle for too long.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|pooled| !pooled.sender.is_closed() && now.duration_since(pooled.since) < IDLE_TIME);
    }

    /// Sends a request and waits for the head of the answer. A request of which no byte was written is sent again on
    /// a new connection; so is one that may be repeated (RFC 9110 section 9.2.2, and without a body) if a
    /// connection that had been idle closes before the first byte of an answer.
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
        let mut request = request;
        let mut pooled = self.take_idle();
        loop {
            let (mut connection, fresh) = match pooled.take() {
                Some(pooled) => (pooled, false),
                None => (self.connect().await?, true),
            };
            let doubtful = !fresh
                && now.saturating_duration_since(connection.since) > DOUBTFUL_AFTER
                && is_repeatable(request.method());
            let spare = (doubtful && transfer.is_none()).then(|| copy_of(&request));
            let sending = connection.sender.try_send_request(request);
            match wait_for_answer(sending, now, first_byte, transfer, exchange).await? {
                Ok(response) => return Ok((response, Lease { pool: Arc::clone(self), pooled: connection })),
                Err(mut error) => {
                    let unsent = error.take_message().filter(|_| !fresh);
                    let closed =
                        error.error().is_incomplete_message() || error.error().is_closed() || is_reset(error.error());
                    match unsent.or_else(|| spare.filter(|_| closed)) {
                        Some(again) => request = again,
                        None => return Err(failure(error.error(), transfer)),
                    }
                }
            }
        }
    }

    /// The connection that was used last, if it is still good: the fewer are in use, the more can be closed.
    fn take_idle(&self) -> Option<Pooled> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for index in (0..idle.len()).rev() {
            if idle[index].sender.is_ready() {
                let mut pooled = idle.swap_remove(index);
                pooled.gauge.set_active();
                return Some(pooled);
            }
            if idle[index].sender.is_closed() {
                idle.swap_remove(index);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Pooled, UpstreamError> {
        let endpoints = &self.settings.endpoints;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for offset in 0..endpoints.len() {
            let endpoint = &endpoints[(turn + offset) % endpoints.len()];
            match self.connect_to(endpoint).await {
                Ok(pooled) => return Ok(pooled),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| UpstreamError {
            reason: Reason::UpstreamUnavailable,
            detail: "the upstream has no endpoint".into(),
        }))
    }

    async fn connect_to(&self, endpoint: &Endpoint) -> Result<Pooled, UpstreamError> {
        let Endpoint { host, port } = endpoint;
        let unavailable = |what: &dyn std::fmt::Display| UpstreamError {
            reason: Reason::UpstreamUnavailable,
            detail: format!("cannot connect to {host}:{port}: {what}"),
        };
        let stream = match timeout(self.settings.connect, dial(host, *port)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unavailable(&error)),
            Err(_) => {
                let detail = format!("{host}:{port} took no connection within {:?}", self.settings.connect);
                return Err(UpstreamError { reason: Reason::UpstreamTimeout, detail });
            }
        };
        let _ = stream.set_nodelay(true);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES).writev(false);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(&error))?;
        let connection = connection.with_upgrades();
        let gauge = self.metrics.connected();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection broke");
            }
        });
        Ok(Pooled { sender, since: Instant::now(), gauge })
    }
}

/// An address literal needs no resolver thread.
async fn dial(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(address) => TcpStream::connect(SocketAddr::new(address, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    }
}

fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
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

type Sent = Result<Response<Incoming>, http1_error::TrySend>;

mod http1_error {
    pub(super) type TrySend = hyper::client::conn::TrySendError<http::Request<super::RequestBody>>;
}

/// Waits for the head of the answer. While the request's body is still being sent, its progress moves the deadline: an upload
/// may take as long as it likes. What takes long is watched (T20): it ends when its exchange has to.
async fn wait_for_answer(
    sending: impl Future<Output = Sent>,
    now: Instant,
    first_byte: Duration,
    transfer: Option<&Transfer>,
    exchange: &mut Exchange,
) -> Result<Sent, UpstreamError> {
    let mut sending = std::pin::pin!(sending);
    let mut until = now + first_byte;
    let watched_from = exchange.watched_from();
    let mut looked = now;
    loop {
        let watching = looked >= watched_from;
        let answered = poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Ok(sent)),
            Poll::Pending if watching => exchange.poll_end(cx).map(Err),
            Poll::Pending => Poll::Pending,
        });
        let look = if watching { until } else { until.min(watched_from) };
        match timeout_at(look.into(), answered).await {
            Ok(Ok(sent)) => return Ok(sent),
            Ok(Err(End::Denied(reason))) => {
                return Err(UpstreamError { reason, detail: "ended while it waited for an answer".into() });
            }
            Ok(Err(End::Leaving)) => {
                return Err(UpstreamError { reason: Reason::Overloaded, detail: "the grace time is over".into() });
            }
            Err(_) => looked = Instant::now(),
        }
        if looked < until {
            continue;
        }
        until = match transfer.map(Transfer::since_progress) {
            Some(since) if since < first_byte => Instant::now() + (first_byte - since),
            _ => break,
        };
    }
    Err(UpstreamError { reason: Reason::UpstreamTimeout, detail: format!("no answer within {first_byte:?}") })
}

fn failure(error: &hyper::Error, transfer: Option<&Transfer>) -> UpstreamError {
    match transfer.and_then(Transfer::fault) {
        Some(fault) => UpstreamError { reason: fault, detail: "the request's body was refused".into() },
        None => UpstreamError { reason: Reason::UpstreamUnavailable, detail: describe(error) },
    }
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn is_reset(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    })
}
