//! HTTP/2 towards endpoints (RFC 9113): connections that carry several requests, and requests in the form that they need.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderValue, Request, Uri, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::super::body::RequestBody;
use super::connect::Stream;
use crate::telemetry::UpstreamConnection;

/// Requests that one connection carries at most, however many the peer would take: losses on the wire stop all of them.
const STREAMS: usize = 128;
/// Bytes of one answer that may wait for its reader.
const STREAM_WINDOW: u32 = 128 * 1024;
/// As many of all answers of a connection: readers that are slow, even all of them, must not hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Bytes of one request's body that may wait for the peer.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes of one answer's head, as with HTTP/1.1.
const HEAD_BYTES: u32 = 64 * 1024;

/// A connection that carries several requests at a time.
#[derive(Clone)]
pub(super) struct Multiplexed {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) streams: Arc<Streams>,
}

/// How a connection is used.
#[derive(Debug)]
pub(super) struct Streams {
    open: AtomicUsize,
    /// As many as the peer takes.
    most: AtomicUsize,
    /// Nothing more is sent on it.
    retired: AtomicBool,
    gauge: Mutex<(Option<UpstreamConnection>, Instant)>,
}

/// What stands for the peer's limit until it says one, or says that it has none; no peer says this.
const UNSAID: usize = 0x7A5C_31E9;
/// How often a new connection is looked at until then; hyper does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Speaks HTTP/2 on a stream, and waits until the peer has said how many requests it takes: what is sent beyond would wait on
/// the connection, behind streams that may last for hours.
pub(super) async fn speak(stream: Stream) -> io::Result<Multiplexed> {
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_BYTES)
        .initial_max_send_streams(UNSAID)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let streams = Arc::new(Streams {
        open: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        retired: AtomicBool::new(false),
        gauge: Mutex::new((None, Instant::now())),
    });
    let told = Arc::clone(&streams);
    let (said, hears) = oneshot::channel();
    tokio::spawn(async move {
        let mut said = Some(said);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = poll_fn(|cx| {
            loop {
                let polled = Pin::new(&mut connection).poll(cx);
                if polled.is_ready() {
                    return polled;
                }
                let most = connection.current_max_send_streams();
                if most != UNSAID {
                    told.most.store(most, Ordering::Relaxed);
                    if let Some(said) = said.take() {
                        let _ = said.send(());
                    }
                    return Poll::Pending;
                }
                if ticks.poll_tick(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "an upstream connection broke");
        }
    });
    match hears.await {
        Ok(()) => Ok(Multiplexed { sender, streams }),
        Err(_) => Err(io::Error::other("it does not speak HTTP/2")),
    }
}

impl Multiplexed {
    /// Whether the connection can take requests at all.
    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.streams.retired.load(Ordering::Relaxed)
    }

    /// One of its streams, if one is free.
    pub(super) fn open(&self) -> Option<OpenStream> {
        let most = self.streams.most.load(Ordering::Relaxed).min(STREAMS);
        let enter = |open: usize| (open < most).then_some(open + 1);
        let before = self.streams.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        if before == 0 {
            self.streams.gauge(UpstreamConnection::set_active);
        }
        Some(OpenStream(self.clone()))
    }

    /// Counts the connection in the metrics.
    pub(super) fn counted(&self, connection: UpstreamConnection) {
        self.streams.gauge.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(connection);
    }

    /// Since when nothing is under way on it, if nothing is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.streams.open.load(Ordering::Acquire) == 0;
        idle.then(|| self.streams.gauge.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Streams {
    fn gauge(&self, change: impl FnOnce(&mut UpstreamConnection)) {
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        gauge.1 = Instant::now();
        if let Some(connection) = &mut gauge.0 {
            change(connection);
        }
    }
}

/// One request's part of a connection, until it is dropped.
pub(super) struct OpenStream(pub(super) Multiplexed);

impl OpenStream {
    /// Sends nothing more on the connection: it did not answer in time, and may have no other end any more.
    pub(super) fn retire(&self) {
        self.0.streams.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let streams = &self.0.streams;
        if streams.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            streams.gauge(UpstreamConnection::set_idle);
        }
    }
}

/// Whether an error says that the request was not looked at (RFC 9113 section 8.7), so that any request may be sent again.
pub(super) fn was_refused(error: &hyper::Error) -> bool {
    of_h2(error).is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether an error says that the connection ended, and not the request alone.
pub(super) fn has_ended(error: &hyper::Error) -> bool {
    error.is_closed() || error.is_canceled() || of_h2(error).is_none_or(|error| error.is_io() || error.is_go_away())
}

fn of_h2(error: &hyper::Error) -> Option<&h2::Error> {
    use std::error::Error as _;
    error.source().and_then(|source| source.downcast_ref())
}

/// Gives a request in the form of HTTP/1.1 that of HTTP/2: scheme and authority in the target, nothing of one connection
/// (RFC 9113 sections 8.2.2 and 8.3.1). `None` if its host is no authority.
pub(super) fn into_http2(request: &mut Request<RequestBody>, scheme: UriScheme) -> Option<()> {
    let host = request.headers_mut().remove(HOST)?;
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    let target = request.uri_mut().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().ok()?;
    *request.uri_mut() = uri;
    // It nominates `TE` where that passes, which HTTP/2 forbids to say and hyper would take at its word.
    request.headers_mut().remove(CONNECTION);
    *request.version_mut() = Version::HTTP_2;
    Some(())
}

/// The way back, for a request that was not sent.
pub(super) fn into_http1(request: &mut Request<RequestBody>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    *request.version_mut() = Version::HTTP_11;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_the_form_of_each_protocol() {
        let mut request = Request::get("/a?b=%20c")
            .header("host", "oms.test:81")
            .header("te", "trailers")
            .header("connection", "te")
            .header("x-user-id", "7")
            .body(RequestBody::empty())
            .unwrap();
        into_http2(&mut request, UriScheme::HTTPS).unwrap();
        assert_eq!(request.uri(), "https://oms.test:81/a?b=%20c");
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(request.headers().len() == 2 && request.headers().contains_key("te"), "{:?}", request.headers());
        into_http1(&mut request);
        assert_eq!((request.uri().to_string().as_str(), request.version()), ("/a?b=%20c", Version::HTTP_11));
        assert_eq!(request.headers()[HOST], "oms.test:81");
    }

    #[test]
    fn a_host_that_is_none_goes_nowhere() {
        let mut request = Request::get("/").header("host", "a b").body(RequestBody::empty()).unwrap();
        assert!(into_http2(&mut request, UriScheme::HTTP).is_none());
    }
}
