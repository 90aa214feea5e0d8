//! Asking the doorward that runs with the same configuration: over its admin listener, or over its control socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;

use crate::config::Settings;

/// How long an answer may take, all in all: a health check that hangs is one that failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// A change waits for the disk, and then a second for its publication.
const PATIENCE_WITH_CHANGES: Duration = Duration::from_secs(15);
/// Largest answer that is read; `/metrics` of a large policy is the longest.
const LARGEST: usize = 64 << 20;

/// The admin listener of the running process.
pub(super) struct Running {
    address: SocketAddr,
    host: String,
    runtime: Runtime,
}

/// What it answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Running {
    /// Where the settings say that it listens.
    ///
    /// # Errors
    /// If there is no such listener.
    pub(super) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let admin = &settings.admin;
        if !admin.enabled {
            bail!("the admin listener is switched off ([admin] enabled), so there is nobody to ask");
        }
        if admin.listen.port() == 0 {
            bail!("[admin] listen names no port, so nobody knows where to ask");
        }
        // What listens everywhere listens here too.
        let here = match admin.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let host = admin.hosts.first().cloned().unwrap_or_else(|| "localhost".to_owned());
        Ok(Self { address: SocketAddr::new(here, admin.listen.port()), host, runtime: runtime()? })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// If nobody answers in HTTP within five seconds.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let asking = within(PATIENCE, async {
            let stream = tokio::net::TcpStream::connect(self.address).await?;
            let request = Request::get(path).header("host", &self.host).body(Full::default())?;
            ask(stream, request).await
        });
        self.runtime
            .block_on(asking)
            .with_context(|| format!("cannot ask http://{}{path} ([admin] listen); is doorward running?", self.address))
    }
}

/// The control socket of the running process.
pub(super) struct Control {
    path: PathBuf,
    runtime: Runtime,
}

impl Control {
    /// Where the settings say that it is; `None` where there is none.
    ///
    /// # Errors
    /// If there can be no runtime.
    pub(super) fn of(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(path) = settings.admin.socket.clone() else { return Ok(None) };
        Ok(Some(Self { path, runtime: runtime()? }))
    }

    /// `GET path`; `None` if no process has the socket.
    ///
    /// # Errors
    /// As [`Control::post`].
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Option<Answer>> {
        self.call(PATIENCE, Method::GET, path, String::new())
    }

    /// `POST path` with a JSON body; `None` if no process has the socket.
    ///
    /// # Errors
    /// If it cannot be opened, is served by a stranger, or if the answer does not come.
    pub(super) fn post(&self, path: &str, body: String) -> anyhow::Result<Option<Answer>> {
        self.call(PATIENCE_WITH_CHANGES, Method::POST, path, body)
    }

    fn call(&self, patience: Duration, method: Method, path: &str, body: String) -> anyhow::Result<Option<Answer>> {
        let asking = within(patience, async {
            let stream = match tokio::net::UnixStream::connect(&self.path).await {
                Ok(stream) => stream,
                // The second is what a process that was killed leaves behind.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    bail!("it belongs to another user: run this as the user of the running doorward, or as root")
                }
                Err(error) => return Err(error.into()),
            };
            // Where others may write to the folder, a stranger could answer that all is well.
            let (own, peer) = (rustix::process::geteuid().as_raw(), stream.peer_cred()?.uid());
            if own != 0 && peer != own && peer != 0 {
                bail!("it is served by user {peer}, who is neither you nor root");
            }
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "localhost")
                .header("content-type", "application/json")
                .body(Full::from(body))?;
            ask(stream, request).await.map(Some)
        });
        self.runtime
            .block_on(asking)
            .with_context(|| format!("cannot ask over {} ([admin] socket)", self.path.display()))
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn within<T>(patience: Duration, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(patience, work).await.map_err(|_| {
        anyhow::anyhow!("no answer within {} s; what was asked for may still be carried out", patience.as_secs())
    })?
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let asking = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::Ok(Answer { status: head.status, text: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    };
    // The connection moves the bytes, and ends once the sender is gone.
    let (answer, _) = tokio::join!(asking, connection);
    answer
}
