//! One accepted connection: what it is found to speak, and who serves it from there.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::TcpStream;

use super::guard::ConnectionState;
use super::serve::{Drain, ListenerEvent, ListenerSettings};
use super::{http1, http2};

/// What both sides agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is known of a connection before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// The TCP peer. Trust is tested against this address (T29).
    pub peer: SocketAddr,
    /// Who is behind it: what a PROXY protocol header said, else the peer.
    pub client: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// What was agreed upon by TLS; `None` for a plain connection.
    pub tls: Option<Arc<TlsFacts>>,
}

/// What is known of a connection that came by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The names of the certificate that was shown, as in it: lower case, perhaps `*.` in front. A request for another
    /// host is 421 (T24).
    pub names: Arc<[Box<str>]>,
}

/// Serves one connection to its end.
pub(super) async fn serve<M, S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    settings: Arc<ListenerSettings>,
    drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + 'static,
    make_service: M,
) where
    M: Fn(Arc<Established>, Arc<ConnectionState>) -> S,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let protocol = if http2::announces(&stream).await { Protocol::Http2 } else { Protocol::Http1 };
    let established = Arc::new(Established { peer, client: peer, protocol, tls: None });
    let state = Arc::new(ConnectionState::new(protocol, settings.guard));
    let service = make_service(established, Arc::clone(&state));
    match protocol {
        Protocol::Http1 => http1::serve(stream, state, settings.guard, drain, observe, service).await,
        Protocol::Http2 => Box::pin(http2::serve(stream, settings.guard, drain, observe, service)).await,
    }
}
