//! HTTP/2 on one connection (RFC 9113), within limits.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::ReadBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::connection::Protocol;
use super::drain::Drain;
use super::guard::{Expired, GuardSettings};
use super::prefixed::Prefixed;
use super::serve::ListenerEvent;
use crate::request::head;

/// How a client begins that speaks HTTP/2 without having been asked (RFC 9113 section 3.4). No HTTP/1 request begins with
/// its first three bytes.
const PREFACE: &[u8] = b"PRI";
/// Bytes of the first read: the heads of most requests.
const FIRST_READ: usize = 2048;
/// Streams that one client may have open at a time.
const STREAMS: u32 = 128;

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
        let read = poll_fn(|cx| {
            let mut space = [MaybeUninit::uninit(); FIRST_READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            begin.extend_from_slice(buffer.filled());
            Poll::Ready(io::Result::Ok(buffer.filled().len()))
        });
        match timeout(patience.0, read).await {
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
    guard: GuardSettings,
    mut drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + 'static,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        // WebSocket by extended CONNECT (RFC 8441); any other CONNECT is refused by the service.
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(guard.head.bytes).unwrap_or(u32::MAX));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), Completed(service)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result
        && error.is_parse()
    {
        observe(ListenerEvent::ParseError(400));
    }
}

/// A service whose requests are as an HTTP/1.1 request would be.
struct Completed<S>(S);

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Completed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> S::Future {
        head::http2::complete(&mut request);
        self.0.call(request)
    }
}
