//! One accepted connection: what it is found to speak, and who serves it from there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
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

/// The rest of a connection's life. In a box of its own, so that what was needed to find out what it speaks is freed by then:
/// an idle connection costs what it is served with, and nothing else.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Finds out what a connection speaks and who is behind it. `None`: it ended meanwhile.
pub(super) async fn establish<M, S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    settings: Arc<ListenerSettings>,
    drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + Unpin + 'static,
    make_service: M,
) -> Option<Serving>
where
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
                return None;
            }
            Err(_) => {
                observe(ListenerEvent::Expired(Expired::HeaderTimeout));
                return None;
            }
        }
    } else {
        peer
    };
    let begin = move |protocol, tls| {
        let state = Arc::new(ConnectionState::new(protocol, guard));
        let established = Arc::new(Established { peer, client, protocol, tls });
        (make_service(established, Arc::clone(&state)), state)
    };
    let Some(tls) = &settings.tls else {
        let protocol = http2::recognize(&mut stream, guard, observe.clone()).await?;
        let (service, state) = begin(protocol, None);
        return Some(match protocol {
            Protocol::Http1 => Box::pin(http1::serve(stream, state, guard, drain, observe, service)),
            Protocol::Http2 => Box::pin(http2::serve(stream, state, guard, drain, observe, service)),
        });
    };
    let accepted = timeout(guard.header_timeout, Box::pin(tls::accept(stream, tls))).await;
    let (stream, facts, protocol) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            observe(ListenerEvent::HandshakeFailed);
            return None;
        }
        Err(_) => {
            observe(ListenerEvent::Expired(Expired::HeaderTimeout));
            return None;
        }
    };
    let (service, state) = begin(protocol, Some(facts));
    Some(match protocol {
        Protocol::Http1 => Box::pin(http1::serve(stream, state, guard, drain, observe, service)),
        Protocol::Http2 => Box::pin(http2::serve(stream, state, guard, drain, observe, service)),
    })
}
