//! The accept loop of one listener on one worker, and the drain of its connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::certificates::Tls;
use super::connection::{self, Established};
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

/// Says when to stop: accepting at once, connections after their current exchange.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// A signal and those who wait for it.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits until draining begins (or its sender is gone).
    pub async fn begun(&mut self) {
        let _ = self.0.wait_for(|draining| *draining).await;
    }

    /// Whether draining has begun.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        *self.0.borrow()
    }
}

/// Accepts connections until drain begins, each served on a task of its own, then waits for those to end.
pub async fn serve<M, S, B>(
    listener: TcpListener,
    settings: Arc<ListenerSettings>,
    mut drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + Unpin + 'static,
    make_service: M,
) where
    M: Fn(Arc<Established>, Arc<ConnectionState>) -> S + Clone + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tasks = TaskCount::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.begun() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(slot) = Slot::take(&settings) else {
            observe(ListenerEvent::Full);
            let _ = stream.try_write(FULL);
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = connection::serve(
            stream,
            address,
            Arc::clone(&settings),
            drain.clone(),
            observe.clone(),
            make_service.clone(),
        );
        let task = tasks.begin();
        observe(ListenerEvent::Opened);
        let observe = observe.clone();
        tokio::spawn(async move {
            connection.await;
            observe(ListenerEvent::Closed);
            drop(slot);
            drop(task);
        });
    }
    drop(listener);
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
