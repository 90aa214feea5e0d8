//! Asking the doorward that runs with the same configuration, over its admin listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;

use crate::config::Settings;

/// How long an answer may take, all in all: a health check that hangs is one that failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer that is read; `/metrics` of a large policy is the longest.
const LARGEST: usize = 64 << 20;

/// The admin listener of the running process.
pub(super) struct Running {
    address: SocketAddr,
    host: String,
    runtime: tokio::runtime::Runtime,
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let host = admin.hosts.first().cloned().unwrap_or_else(|| "localhost".to_owned());
        Ok(Self { address: SocketAddr::new(here, admin.listen.port()), host, runtime })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// If nobody answers in HTTP within five seconds.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let asking = async {
            tokio::time::timeout(PATIENCE, self.ask(path))
                .await
                .map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()))?
        };
        self.runtime
            .block_on(asking)
            .with_context(|| format!("cannot ask http://{}{path} ([admin] listen); is doorward running?", self.address))
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Answer> {
        let stream = tokio::net::TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path).header("host", &self.host).body(Empty::<Bytes>::new())?;
        let asking = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| anyhow::anyhow!(error))?;
            anyhow::Ok(Answer { status: head.status, text: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
        };
        // The connection moves the bytes, and ends once the sender is gone.
        let (answer, _) = tokio::join!(asking, connection);
        answer
    }
}
