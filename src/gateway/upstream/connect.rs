//! Making a connection to an endpoint: dial, secure, agree on a protocol.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::body::RequestBody;
use super::endpoint::EndpointState;
use super::http2::{self, Multiplexed};
use super::memory::{Memory, Remembered};
use super::settings::{Address, Scheme};

/// Bytes that one HTTP/1.1 connection buffers each way.
const BUFFER_BYTES: usize = 64 * 1024;
/// After how long silence a peer is asked whether it is still there, so that a connection whose peer vanished does not wait
/// for ever. That is the system's doing: HTTP/2 pings are taken for abuse by gRPC servers.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What a request needs of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Whatever the endpoint speaks.
    Any,
    /// HTTP/1.1, because the request asks to switch protocols.
    Http1,
}

/// A connection just made.
pub(super) enum Made {
    /// HTTP/1.1: one exchange at a time.
    Http1(http1::SendRequest<RequestBody>, Arc<Memory>),
    /// HTTP/2: several.
    Http2(Multiplexed),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct NoConnection {
    /// Whether time ran out.
    pub(super) late: bool,
    /// For logs.
    pub(super) detail: String,
}

/// Makes a connection within `limit`; what drives it is spawned.
pub(super) async fn connect(state: &EndpointState, wanted: Wanted, limit: Duration) -> Result<Made, NoConnection> {
    let until = Instant::now() + limit;
    let endpoint = &state.endpoint;
    match timeout_at(until, establish(state, wanted, until)).await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(NoConnection {
            late: error.kind() == io::ErrorKind::TimedOut,
            detail: format!("cannot connect to {endpoint}: {error}"),
        }),
        Err(_) => Err(NoConnection { late: true, detail: format!("{endpoint} took no connection within {limit:?}") }),
    }
}

async fn establish(state: &EndpointState, wanted: Wanted, until: Instant) -> io::Result<Made> {
    let stream = match &state.endpoint.address {
        Address::Unix(path) => return speak_http1(Stream::Unix(UnixStream::connect(path).await?)).await,
        Address::Tcp { host, port } => dial(state, host, *port, until).await?,
    };
    let Some(tls) = &state.tls else {
        let stream = Stream::Tcp(stream);
        return match state.endpoint.scheme {
            Scheme::H2c => http2::speak(stream).await.map(Made::Http2),
            Scheme::Http | Scheme::Https => speak_http1(stream).await,
        };
    };
    let Address::Tcp { host, .. } = &state.endpoint.address else { return Err(io::ErrorKind::Unsupported.into()) };
    let name = tls.server_name(host).map_err(io::Error::other)?;
    let config = if wanted == Wanted::Http1 { &tls.http1 } else { &tls.any };
    let secured = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    let agreed = secured.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Stream::Tls(Box::new(secured));
    if agreed { http2::speak(stream).await.map(Made::Http2) } else { speak_http1(stream).await }
}

async fn speak_http1(stream: Stream) -> io::Result<Made> {
    let (stream, memory) = Remembered::new(stream);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES).writev(false);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection broke");
        }
    });
    Ok(Made::Http1(sender, memory))
}

/// Connects to one of the addresses of a host; a literal needs no resolver thread. Each address has its part of the time that is
/// left, so that one that does not answer leaves time for the others.
async fn dial(state: &EndpointState, host: &str, port: u16, until: Instant) -> io::Result<TcpStream> {
    let stream = match host.parse() {
        Ok(address) => TcpStream::connect(SocketAddr::new(address, port)).await?,
        Err(_) => {
            let mut addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
            let turn = state.turn.fetch_add(1, Ordering::Relaxed);
            if !addresses.is_empty() {
                let first = turn % addresses.len();
                addresses.rotate_left(first);
            }
            one_of(&addresses, until).await?
        }
    };
    let _ = stream.set_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 3).with_retries(3);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
    Ok(stream)
}

async fn one_of(addresses: &[SocketAddr], until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let part = until.saturating_duration_since(Instant::now()) / left;
        match tokio::time::timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The byte stream of a connection, whichever it is.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        assert_eq!(one_of(&[gone, good], until).await.unwrap().peer_addr().unwrap(), good);
        assert_eq!(one_of(&[gone, gone], until).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(one_of(&[], until).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
