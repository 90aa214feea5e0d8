//! HTTP/2 on one connection (RFC 9113), within limits.

use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::drain::Drain;
use super::guard::GuardSettings;
use super::serve::ListenerEvent;

/// How a client begins that speaks HTTP/2 without having been asked (RFC 9113 section 3.4). No HTTP/1 request begins with
/// its first three bytes.
const PREFACE: &[u8] = b"PRI";
/// Streams that one client may have open at a time.
const STREAMS: u32 = 128;

/// Whether the client begins with the connection preface. Nothing is taken from the stream.
pub(super) async fn announces(stream: &TcpStream) -> bool {
    let mut begin = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut begin).await {
            Ok(length) if length >= PREFACE.len() => return begin == *PREFACE,
            // Another first byte settles it; what could still become a preface is waited for.
            Ok(length) if length > 0 && begin[..length] == PREFACE[..length] => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            _ => return false,
        }
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
        .max_header_list_size(u32::try_from(guard.head.bytes).unwrap_or(u32::MAX));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
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
