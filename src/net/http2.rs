//! HTTP/2 on one connection (RFC 9113), within limits.

mod frames;
mod guard;
mod stream;

use std::future::poll_fn;
use std::sync::Arc;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use self::guard::{Ending, GuardedFrames};
use self::stream::{Served, Streams};
use super::connection::Protocol;
use super::drain::Drain;
use super::guard::{ConnectionState, Expired, GuardSettings};
use super::prefixed::Prefixed;
use super::serve::ListenerEvent;

/// How a client begins that speaks HTTP/2 without having been asked (RFC 9113 section 3.4). No HTTP/1 request begins with
/// its first three bytes.
const PREFACE: &[u8] = b"PRI";
/// Bytes of a request body that a client may send ahead of its reader.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all of a connection's streams: what their bodies hold of memory together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that are taken from its body before the client has room for them.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that may be reset before their request was looked at (CVE-2023-44487).
const RESETS_BEFORE_SERVICE: usize = 20;
/// Malformed requests on one connection, each of which is answered with a reset.
const RESETS_FOR_ERRORS: usize = 128;

/// What a client of a plain listener speaks, by its first bytes, which stay in front of the stream; `None` if it sends none,
/// or not enough in time. Until the first byte it may be idle; then it has the time of a head.
pub(super) async fn recognize<S>(
    stream: &mut Prefixed<S>,
    guard: GuardSettings,
    observe: impl Fn(ListenerEvent),
) -> Option<Protocol>
where
    S: AsyncRead + Unpin,
{
    let mut begin = Vec::new();
    let mut patience = (guard.idle_timeout, Expired::IdleTimeout);
    loop {
        match timeout(patience.0, stream.read_into(&mut begin)).await {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(_)) => {}
            Err(_) => {
                observe(ListenerEvent::Expired(patience.1));
                return None;
            }
        }
        let seen = begin.len().min(PREFACE.len());
        let announced = begin[..seen] == PREFACE[..seen];
        if announced && seen < PREFACE.len() {
            patience = (guard.header_timeout, Expired::HeaderTimeout);
            continue;
        }
        stream.put_back(begin);
        return Some(if announced { Protocol::Http2 } else { Protocol::Http1 });
    }
}

/// Serves requests until the connection ends.
pub(super) async fn serve<I, S, B>(
    stream: I,
    state: Arc<ConnectionState>,
    guard: GuardSettings,
    mut drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + Unpin + 'static,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let ending = Arc::new(Ending::default());
    let watching = drain.clone();
    let io = GuardedFrames::new(stream, state, Arc::clone(&ending), guard, observe.clone());
    let mut builder = http2::Builder::new(Streams { idle_timeout: guard.idle_timeout, observe });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(guard.streams)
        .max_header_list_size(u32::try_from(guard.head.bytes.saturating_mul(2)).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_BEFORE_SERVICE)
        .max_local_error_reset_streams(RESETS_FOR_ERRORS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        // WebSocket by extended CONNECT (RFC 8441); any other CONNECT is refused by the service.
        .enable_connect_protocol();
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), Served(service)));
    let mut draining = std::pin::pin!(drain.begun());
    let (mut asked, mut leaving) = (false, false);
    let result = poll_fn(|cx| {
        loop {
            // Asking the signal costs more than a look at its value, and its first answer leaves a waker behind.
            let drains = !leaving && (!asked || watching.is_begun()) && draining.as_mut().poll(cx).is_ready();
            asked = true;
            if !leaving && (drains || ending.is_due()) {
                leaving = true;
                ending.begin();
                connection.as_mut().graceful_shutdown();
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_ready() || leaving || !ending.is_due() {
                return polled;
            }
        }
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP/2 connection broke");
    }
}
