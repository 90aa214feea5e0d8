//! The accept loop of one listener on one worker, and the drain of its connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::certificates::Tls;
use super::connection::{self, Established};
use super::drain::{self, Drain, LAST_CALL};
use super::guard::{ConnectionState, Expired, GuardSettings};
use crate::live::Live;
use crate::request::peer::TrustedProxies;
use crate::telemetry::Limit;

/// What a connection over the limit is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 1\r\ndoorward-decision: deny; reason=overloaded\r\n\r\n";

/// What a listener allows, shared by its workers.
#[derive(Debug)]
pub struct ListenerSettings {
    /// Connections at a time, over all workers.
    pub connections: usize,
    /// Limits and clocks of each.
    pub guard: GuardSettings,
    /// Connections that are open now.
    pub open: AtomicUsize,
    /// Whose connections begin with a PROXY protocol header, and nobody else's (T29).
    pub proxies: TrustedProxies,
    /// What is shown to clients; `None`: the listener is plain.
    pub tls: Option<Arc<Live<Tls>>>,
}

/// What happened on a listener, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerEvent {
    /// A connection was accepted.
    Opened,
    /// A connection ended.
    Closed,
    /// A connection was turned away: too many are open.
    Full,
    /// A TLS handshake failed.
    HandshakeFailed,
    /// A limit was reached.
    Limited(Limit),
    /// A clock ran out.
    Expired(Expired),
    /// hyper refused a message with this status.
    ParseError(u16),
}

/// Accepts connections until the last call, each served on a task of its own, then waits for those to end.
pub async fn serve<M, S, B>(
    listener: TcpListener,
    settings: Arc<ListenerSettings>,
    mut drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + Unpin + 'static,
    make_service: M,
) where
    M: Fn(Arc<Established>, Arc<ConnectionState>) -> S + Clone + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tasks = TaskCount::default();
    let connections = drain.clone();
    let take = |stream: TcpStream, address: SocketAddr| {
        let Some(slot) = Slot::take(&settings) else {
            observe(ListenerEvent::Full);
            let _ = stream.try_write(FULL);
            return;
        };
        let _ = stream.set_nodelay(true);
        // In a box, because a future that is awaited within another one takes its space twice.
        let connection = Box::pin(connection::establish(
            stream,
            address,
            Arc::clone(&settings),
            connections.clone(),
            observe.clone(),
            make_service.clone(),
        ));
        let task = tasks.begin();
        observe(ListenerEvent::Opened);
        let observe = observe.clone();
        tokio::spawn(async move {
            if let Some(serving) = connection.await {
                serving.await;
            }
            observe(ListenerEvent::Closed);
            drop(slot);
            drop(task);
        });
    };
    // Set at the last call: when the listener closes.
    let mut closing: Option<Pin<Box<Sleep>>> = None;
    loop {
        let accepted = tokio::select! {
            // In this order: a stream of new connections does not put the end off, and as long as somebody waits behind the
            // last call, the listener is not closed.
            biased;
            () = drain.last_call(), if closing.is_none() => {
                drain::turn_away(&listener);
                // Where nobody is served any more, nobody is waited for.
                let wait = if drain.is_begun() { Duration::ZERO } else { LAST_CALL };
                closing = Some(Box::pin(tokio::time::sleep(wait)));
                continue;
            }
            accepted = listener.accept() => accepted,
            () = async { if let Some(closing) = &mut closing { closing.await } }, if closing.is_some() => break,
        };
        match accepted {
            Ok((stream, address)) => take(stream, address),
            Err(error) => pause_after(&error).await,
        }
    }
    // The runtime may say that nobody waits when it is another task's turn; the kernel knows.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, address)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                take(stream, address);
            }
        }
    }
    tasks.all_ended().await;
}

/// An exhausted process must not spin; a connection that broke before it was accepted is nothing.
async fn pause_after(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One of the connections that may be open.
struct Slot(Arc<ListenerSettings>);

impl Slot {
    fn take(settings: &Arc<ListenerSettings>) -> Option<Self> {
        let before = settings.open.fetch_add(1, Ordering::AcqRel);
        let slot = Self(Arc::clone(settings));
        (before < settings.connections).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts tasks so that their end can be waited for.
#[derive(Default)]
struct TaskCount(Arc<watch::Sender<()>>);

impl TaskCount {
    fn begin(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }

    async fn all_ended(&self) {
        self.0.closed().await;
    }
}
