//! One accepted connection: what it is found to speak, and who serves it from there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::drain::Drain;
use super::guard::{ConnectionState, Expired};
use super::prefixed::Prefixed;
use super::serve::{ListenerEvent, ListenerSettings};
use super::{http1, http2, proxy_protocol, tls};
use crate::request::Host;

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

impl TlsFacts {
    /// Whether the certificate is for this host: by its name, or by a wildcard that stands for the first label.
    #[must_use]
    pub fn covers(&self, host: &Host) -> bool {
        let host = host.as_str();
        let parent = host.split_once('.').map(|(_, parent)| parent).filter(|_| host.parse::<Ipv4Addr>().is_err());
        self.names
            .iter()
            .any(|name| **name == *host || name.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent))
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<M, S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    settings: Arc<ListenerSettings>,
    drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + Unpin + 'static,
    make_service: M,
) where
    M: Fn(Arc<Established>, Arc<ConnectionState>) -> S,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let guard = settings.guard;
    let mut stream = Prefixed::new(stream);
    let client = if settings.proxies.contains(peer.ip()) {
        match timeout(guard.header_timeout, Box::pin(proxy_protocol::take(&mut stream))).await {
            Ok(Ok(source)) => source.unwrap_or(peer),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "no good PROXY protocol header");
                // One that ends before it sends anything is a balancer's look whether somebody listens.
                if error.kind() == io::ErrorKind::InvalidData {
                    observe(ListenerEvent::ParseError(400));
                }
                return;
            }
            Err(_) => return observe(ListenerEvent::Expired(Expired::HeaderTimeout)),
        }
    } else {
        peer
    };
    let begin = move |protocol, tls| {
        let state = Arc::new(ConnectionState::new(protocol, guard));
        let established = Arc::new(Established { peer, client, protocol, tls });
        (make_service(established, Arc::clone(&state)), state)
    };
    // What is seldom or large is in a box, so that the task of a plain HTTP/1.1 connection stays small.
    let Some(tls) = &settings.tls else {
        let Some(protocol) = http2::recognize(&mut stream, guard, observe.clone()).await else { return };
        let (service, state) = begin(protocol, None);
        return match protocol {
            Protocol::Http1 => http1::serve(stream, state, guard, drain, observe, service).await,
            Protocol::Http2 => Box::pin(http2::serve(stream, state, guard, drain, observe, service)).await,
        };
    };
    let accepted = timeout(guard.header_timeout, Box::pin(tls::accept(stream, tls))).await;
    let (stream, facts, protocol) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            return observe(ListenerEvent::HandshakeFailed);
        }
        Err(_) => return observe(ListenerEvent::Expired(Expired::HeaderTimeout)),
    };
    let (service, state) = begin(protocol, Some(facts));
    match protocol {
        Protocol::Http1 => Box::pin(http1::serve(stream, state, guard, drain, observe, service)).await,
        Protocol::Http2 => Box::pin(http2::serve(stream, state, guard, drain, observe, service)).await,
    }
}
