//! Bodies on their way through: counted and bounded, never buffered whole.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::exchange::{Exchange, grpc_status};
use super::headers;
use super::upstream::Lease;
use super::watch::End;
use crate::net::Inbound;
use crate::reason::Reason;
use crate::telemetry::Stream;

/// Why a body ended early. The text is for logs; the peer sees a connection that breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The request's body is larger than its limit.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    /// The other side broke off, or was malformed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The upstream sent nothing for too long.
    #[error("the upstream sent nothing for {0:?}")]
    Idle(Duration),
    /// The exchange has ended before the request's body.
    #[error("the exchange has ended")]
    Cut,
    /// The exchange would not be admitted any more.
    #[error("what was admitted is so no more: {0}")]
    Ended(Reason),
}

/// What both ends of a request body's transfer know.
#[derive(Debug)]
pub struct Transfer {
    began: Instant,
    bytes: AtomicU64,
    /// Milliseconds from `began` to the last byte or to the end.
    progress: AtomicU64,
    ended: AtomicBool,
    fault: AtomicU8,
    /// Nothing more is to be passed on.
    cut: AtomicBool,
    /// Who waits for the next piece.
    waker: Mutex<Option<Waker>>,
}

const FAULT_NONE: u8 = 0;
const FAULT_TOO_LARGE: u8 = 1;
const FAULT_BROKEN: u8 = 2;

impl Transfer {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            bytes: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            fault: AtomicU8::new(FAULT_NONE),
            cut: AtomicBool::new(false),
            waker: Mutex::default(),
        }
    }

    /// Its exchange has ended: what the client still sends is no longer passed on. Without this an upload would go on, unwatched,
    /// behind the end of its answer.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    fn wakes(&self, waker: &Waker) {
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    /// Bytes that came in.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How long ago the last byte went through.
    #[must_use]
    pub fn since_progress(&self) -> Duration {
        let last = Duration::from_millis(self.progress.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }

    /// Whether all of it came in.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// What the client did wrong, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<Reason> {
        match self.fault.load(Ordering::Acquire) {
            FAULT_TOO_LARGE => Some(Reason::BodyTooLarge),
            FAULT_BROKEN => Some(Reason::BadRequest),
            _ => None,
        }
    }

    fn progressed(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.store(elapsed, Ordering::Relaxed);
    }
}

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Option<Inbound>,
    limit: u64,
    transfer: Option<Arc<Transfer>>,
}

impl RequestBody {
    /// Forwards `incoming`, up to `limit` bytes. There is no transfer to watch where there is no body.
    #[must_use]
    pub fn new(incoming: Inbound, limit: u64) -> (Self, Option<Arc<Transfer>>) {
        if incoming.is_end_stream() {
            return (Self::empty(), None);
        }
        let transfer = Arc::new(Transfer::new());
        (Self { incoming: Some(incoming), limit, transfer: Some(Arc::clone(&transfer)) }, Some(transfer))
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self { incoming: None, limit: 0, transfer: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let (Some(incoming), Some(transfer)) = (&mut this.incoming, &this.transfer) else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        if polled.is_pending() {
            transfer.wakes(cx.waker());
        }
        if transfer.cut.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        match ready!(polled) {
            None => {
                transfer.ended.store(true, Ordering::Release);
                transfer.progressed(0);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                transfer.fault.store(FAULT_BROKEN, Ordering::Release);
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    transfer.progressed(data.len() as u64);
                    // Whoever knows the length does not ask whether there is more.
                    if incoming.is_end_stream() {
                        transfer.ended.store(true, Ordering::Release);
                    }
                    if transfer.bytes() > this.limit {
                        transfer.fault.store(FAULT_TOO_LARGE, Ordering::Release);
                        return Poll::Ready(Some(Err(BodyError::TooLarge(this.limit))));
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => Poll::Ready(frame.into_trailers().ok().map(|mut trailers| {
                    headers::strip_trailers(&mut trailers);
                    Ok(Frame::trailers(trailers))
                })),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of an answer: doorward's own, or the upstream's.
pub enum GatewayBody {
    /// Doorward's own, whole; the exchange ends when it has been written or given up.
    Own(Option<Bytes>, Box<Exchange>),
    /// The upstream's, streamed.
    Relayed(RelayedBody),
    /// None: the connection, or the HTTP/2 stream, is a tunnel from here on.
    Upgraded,
}

/// An upstream's body on its way to the client.
pub struct RelayedBody {
    incoming: Incoming,
    lease: Option<Lease>,
    exchange: Box<Exchange>,
    idle: Duration,
    last: Instant,
    /// From when on the exchange is watched; until then nobody asks it (T20).
    watched_from: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Nothing more is passed on.
    ended: bool,
}

/// What a body waits for, beside its next frame.
enum Waited {
    Idle,
    Ended(End),
}

impl RelayedBody {
    /// Streams `incoming`; its connection goes back to the pool behind the last byte.
    #[must_use]
    pub fn new(incoming: Incoming, lease: Lease, exchange: Box<Exchange>, idle: Duration, now: Instant) -> Self {
        let watched_from = exchange.watched_from();
        let lease = Some(lease);
        let mut body = Self { incoming, lease, exchange, idle, last: now, watched_from, timer: None, ended: false };
        if body.incoming.is_end_stream() {
            body.finish(now);
        }
        body
    }

    fn finish(&mut self, now: Instant) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(now);
        }
        self.exchange.complete(now);
    }

    /// A silent upstream is given up, and what is open for long watched; the timer is set only when there is nothing to read.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Waited> {
        loop {
            let now = Instant::now();
            let mut at = self.last + self.idle;
            if at <= now {
                return Poll::Ready(Waited::Idle);
            }
            if self.watched_from > now {
                at = at.min(self.watched_from);
            } else if let Poll::Ready(end) = self.exchange.poll_end(cx) {
                return Poll::Ready(Waited::Ended(end));
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
    }

    /// Ends as the kind of stream wants it, without its end having come: an event stream cleanly, a gRPC call by its status,
    /// anything else by breaking off.
    fn end(&mut self, end: End) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.ended = true;
        // The upstream has more to say, so its connection is closed.
        self.lease = None;
        match (self.exchange.stream(), end) {
            (Some(Stream::Events), _) => {
                self.exchange.complete(Instant::now());
                None
            }
            (Some(Stream::Grpc), _) => {
                self.exchange.complete(Instant::now());
                Some(Ok(Frame::trailers(grpc_status(end))))
            }
            (_, End::Denied(reason)) => Some(Err(BodyError::Ended(reason))),
            (_, End::Leaving) => Some(Err(BodyError::Ended(Reason::Overloaded))),
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match self.get_mut() {
            Self::Own(bytes, exchange) => {
                let Some(bytes) = bytes.take() else { return Poll::Ready(None) };
                exchange.sent(bytes.len() as u64);
                exchange.complete(Instant::now());
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Self::Relayed(body) => body,
            Self::Upgraded => return Poll::Ready(None),
        };
        if body.ended {
            return Poll::Ready(None);
        }
        if let Some(end) = body.exchange.called() {
            return Poll::Ready(body.end(end));
        }
        match Pin::new(&mut body.incoming).poll_frame(cx) {
            Poll::Pending => match ready!(body.poll_wait(cx)) {
                Waited::Idle => {
                    body.exchange.broke(Reason::UpstreamTimeout);
                    Poll::Ready(Some(Err(BodyError::Idle(body.idle))))
                }
                Waited::Ended(end) => Poll::Ready(body.end(end)),
            },
            Poll::Ready(None) => {
                body.finish(Instant::now());
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                // Its upload may have been cut off, where nobody asked for the answer until now.
                if Instant::now() >= body.watched_from
                    && let Poll::Ready(end) = body.exchange.poll_end(cx)
                {
                    return Poll::Ready(body.end(end));
                }
                body.exchange.broke(Reason::UpstreamUnavailable);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                body.last = Instant::now();
                if body.last >= body.watched_from
                    && !body.exchange.is_watched()
                    && let Poll::Ready(end) = body.exchange.poll_end(cx)
                {
                    return Poll::Ready(body.end(end));
                }
                if let Some(data) = frame.data_ref() {
                    body.exchange.sent(data.len() as u64);
                } else if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_response_trailers(trailers);
                }
                if body.incoming.is_end_stream() {
                    body.finish(body.last);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, _) => bytes.is_none(),
            Self::Relayed(body) => body.ended || body.incoming.is_end_stream(),
            Self::Upgraded => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Relayed(body) => body.incoming.size_hint(),
            Self::Upgraded => SizeHint::with_exact(0),
        }
    }
}
