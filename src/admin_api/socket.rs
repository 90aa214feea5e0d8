//! The control socket: the calls that change things, for who owns the machine (SPEC 8, 10).
//!
//! HTTP/1.1 over a Unix socket, without a token: the file has mode 0600, and the kernel says who is on the other side, which must be the
//! same user or root. Beside revocations it takes overrides, which no token of the admin listener opens.
//!
//! Several processes may be configured with one path: the first has it, another one takes over when that ends. Who has it is known by
//! a lock on `PATH.lock`, which the kernel gives up for a process that was killed, so that a socket which a crash left behind is told
//! from a living one without asking it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::inspected::{self, Origin};
use super::revocations::{self, Actor, Hands};
use super::router::{BODY_BYTES, keep_private};
use super::{inquiry, problem};
use crate::net::Drain;
use crate::telemetry::AccessSink;

/// Connections at a time: the command line opens one a call, and more wait their turn.
const CONNECTIONS: usize = 16;
const BACKLOG: i32 = 64;
/// For one connection, all in all: a call takes a second or two at most.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long calls that are under way may take when doorward stops.
const LAST_CALLS: Duration = Duration::from_secs(1);
/// How often it is looked whether the socket can be had, by who does not have it.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process of the same configuration has it.
    #[error("another process has it")]
    Taken,
    /// Something else lies there.
    #[error("{} is no socket; it is left alone", .0.display())]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    move |error| SocketError::Io { what, error }
}

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that nobody else's is removed.
    file: (u64, u64),
    /// Held as long as the socket is.
    _lock: File,
}

impl ControlSocket {
    /// Binds `path`, in a folder that is made if it is missing. What a process that was killed left there is replaced.
    ///
    /// # Errors
    /// [`SocketError`]; nobody else's socket or file was touched then.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(failed("its folder cannot be made"))?;
        }
        let lock = lock(path)?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                std::fs::remove_file(path).map_err(failed("what was left there cannot be removed"))?;
            }
            Ok(_) => return Err(SocketError::NoSocket(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("it cannot be looked at")(error)),
        }
        let bound = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(path)?)?;
            // Nobody can connect before `listen`, whatever the umask made of the file until here.
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            socket.listen(BACKLOG)?;
            let found = std::fs::symlink_metadata(path)?;
            Ok((socket, (found.dev(), found.ino())))
        };
        let (socket, file) = bound().map_err(failed("it cannot be bound"))?;
        Ok(Self { listener: socket.into(), path: path.to_owned(), file, _lock: lock })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if ours {
            // What stays is replaced by the next process.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(name);
    let file = opened.map_err(failed("its lock cannot be opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::Taken),
        Err(TryLockError::Error(error)) => Err(failed("its lock cannot be taken")(error)),
    }
}

/// Serves the socket until the drain, and as soon as it can be had if somebody else has it now.
pub async fn serve(
    path: PathBuf,
    first: Result<ControlSocket, SocketError>,
    hands: Arc<Hands>,
    audit: Option<AccessSink>,
    mut drain: Drain,
) {
    let mut bound = first;
    let mut told = false;
    loop {
        match bound {
            Ok(socket) => {
                if told {
                    tracing::info!(socket = %path.display(), "the control socket is ours now");
                }
                return serve_bound(socket, hands, audit, drain).await;
            }
            Err(error) if !told => {
                told = true;
                let socket = path.display();
                match error {
                    SocketError::Taken => {
                        tracing::info!(%socket, "the control socket is another process's; it does the same");
                    }
                    error => tracing::warn!(
                        %socket, %error,
                        "there is no control socket, so `doorward revoke` writes to the truth itself ([admin] socket; \"\": none)"
                    ),
                }
            }
            Err(_) => {}
        }
        tokio::select! {
            () = drain.begun() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
        bound = ControlSocket::bind(&path);
    }
}

async fn serve_bound(socket: ControlSocket, hands: Arc<Hands>, audit: Option<AccessSink>, mut drain: Drain) {
    // Dropped, with its file, when this ends.
    let listener = match socket.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen on the control socket"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.begun() => break,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), place) => {
                let (hands, audit) = (Arc::clone(&hands), audit.clone());
                tokio::spawn(async move {
                    // Too slow is gone; a call that was taken is carried out all the same.
                    let _ = timeout(CONNECTION_TIME, connection(stream, hands, audit)).await;
                    drop(place);
                });
            }
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a connection on the control socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(socket);
    // Calls that are under way are answered; who waits for the end is bounded elsewhere.
    let _ = timeout(LAST_CALLS, places.acquire_many(CONNECTIONS as u32)).await;
}

async fn connection(stream: UnixStream, hands: Arc<Hands>, audit: Option<AccessSink>) {
    let own = rustix::process::geteuid().as_raw();
    let uid = match stream.peer_cred() {
        Ok(peer) if [0, own].contains(&peer.uid()) => peer.uid(),
        Ok(peer) => return tracing::warn!(uid = peer.uid(), "a stranger was turned away from the control socket"),
        Err(error) => return tracing::warn!(%error, "nobody knows who is at the control socket, so nobody is served"),
    };
    let router = router(hands);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Actor::Local(uid));
        inspected::answer(router.clone(), request.map(Body::new), Origin { audit: audit.clone(), peer: None })
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection on the control socket broke off");
    }
}

/// Every path of the socket.
fn router(hands: Arc<Hands>) -> Router {
    Router::new()
        .route("/api/revocations", get(inquiry::find).post(revocations::create))
        .route("/api/overrides", post(revocations::set_override))
        .route("/api/status", get(revocations::status))
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::map_response(keep_private))
        .with_state(hands)
}
