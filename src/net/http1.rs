//! HTTP/1.1 on one connection, behind its guard.

use std::future::poll_fn;
use std::sync::Arc;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::drain::Drain;
use super::guard::{ConnectionState, GuardSettings, GuardedIo};
use super::serve::ListenerEvent;

/// Bytes that one connection buffers each way; hyper's own bound holds several megabytes a busy connection.
const BUFFER_BYTES: usize = 64 * 1024;
/// How many header lines hyper parses without allocating.
const HYPER_HEADERS: usize = 100;

/// Serves requests until the connection ends.
pub(super) async fn serve<I, S, B>(
    stream: I,
    state: Arc<ConnectionState>,
    guard: GuardSettings,
    mut drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + 'static,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let watching = drain.clone();
    let on_expiry = {
        let observe = observe.clone();
        Box::new(move |what| observe(ListenerEvent::Expired(what)))
    };
    let io = GuardedIo::new(stream, Arc::clone(&state), guard, on_expiry);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES.max(guard.head.bytes)).header_read_timeout(None).writev(false);
    if guard.head.headers > HYPER_HEADERS {
        builder.max_headers(guard.head.headers);
    }
    let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
    let mut draining = std::pin::pin!(drain.begun());
    let mut asked = false;
    let mut ending = false;
    let result = poll_fn(|cx| {
        // Asking the signal costs more than a look at its value, and its first answer leaves a waker behind.
        if !ending && (!asked || watching.is_begun()) {
            asked = true;
            if draining.as_mut().poll(cx).is_ready() {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result
        && error.is_parse()
    {
        observe(ListenerEvent::ParseError(if error.is_parse_too_large() { 431 } else { 400 }));
    }
    state.tunnel_ended().await;
}
