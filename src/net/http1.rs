//! HTTP/1.1 on one connection: behind its guard while requests come, parked while none do.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::{ConnectionState, Expired, GuardSettings, GuardedIo};
use super::parked::{Lot, Parked, RestTimer, Woken};
use super::serve::{Drain, ListenerEvent};

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
    I: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES.max(guard.head.bytes)).header_read_timeout(None).writev(false);
    if guard.head.headers > HYPER_HEADERS {
        builder.max_headers(guard.head.headers);
    }
    let service = Arc::new(service);
    let mut parked = Parked::new(stream);
    let watching = drain.clone();
    let mut draining = std::pin::pin!(drain.begun());
    let mut asked = false;
    // Asking the signal costs more than a look at its value, and its first answer leaves a waker behind.
    let mut poll_draining = |cx: &mut Context<'_>| {
        if asked && !watching.is_begun() {
            return Poll::Pending;
        }
        asked = true;
        draining.as_mut().poll(cx)
    };
    let result = loop {
        // What has come is served even if the end was announced meanwhile: the client cannot know.
        let woken = poll_fn(|cx| match parked.poll_woken(guard.idle_timeout, cx) {
            Poll::Pending => poll_draining(cx).map(|()| Woken::Ended),
            woken => woken,
        });
        let first = match woken.await {
            Woken::Bytes(first) => first,
            woken => {
                if woken == Woken::Expired {
                    observe(ListenerEvent::Expired(Expired::IdleTimeout));
                }
                return poll_fn(|cx| Poll::Ready(parked.poll_close(cx))).await;
            }
        };
        let on_expiry = {
            let observe = observe.clone();
            Box::new(move |what| observe(ListenerEvent::Expired(what)))
        };
        let lot = Arc::new(Lot::new());
        let io = GuardedIo::new(parked, first, Arc::clone(&lot), Arc::clone(&state), guard, on_expiry);
        let mut connection = Box::pin(builder.serve_connection(io, Arc::clone(&service)).with_upgrades());
        let (mut rest, mut ending) = (RestTimer::default(), false);
        let served = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(result));
                }
                if lot.is_taken() {
                    return Poll::Ready(None);
                }
                if !ending && poll_draining(cx).is_ready() {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                } else if state.is_idle() && rest.poll(cx).is_ready() {
                    lot.open();
                } else {
                    return Poll::Pending;
                }
            }
        });
        if let Some(result) = served.await {
            break result;
        }
        // The guard had the other handle on the lot.
        drop(connection);
        match Arc::into_inner(lot).and_then(Lot::into_parked) {
            Some(rested) => parked = rested,
            None => return,
        }
    };
    if let Err(error) = result
        && error.is_parse()
    {
        observe(ListenerEvent::ParseError(if error.is_parse_too_large() { 431 } else { 400 }));
    }
}
