//! Keys that another program writes, and that are only looked for (SPEC 8, `mode = "lookup"`).
//!
//! They have no hash tag of ours, so in a cluster each may lie on another node, and the library's own client for clusters finds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, IntoConnectionInfo as _, RedisResult, TlsMode};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connect::Redis;
use super::error::RedisFailure;
use super::link::{LOOKING, Link};
use super::settings::{RedisPlace, Topology};

/// After a connection could not be made, none is tried for so long: every token of a busy gateway would try one.
const PAUSE: Duration = Duration::from_millis(200);

/// Another program's keys. It connects when it is first asked, and again when a connection fails.
#[derive(Debug)]
pub struct ForeignKeys {
    redis: Redis,
    /// For one answer, or for a connection.
    limit: Duration,
    reached: Mutex<Reached>,
}

#[derive(Default)]
struct Reached {
    way: Option<Arc<Way>>,
    /// When the last attempt failed, and how.
    failed: Option<(Instant, RedisFailure)>,
}

enum Way {
    /// The one server.
    Link(Link),
    /// Whichever node has the key.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reached").field("way", &self.way.is_some()).field("failed", &self.failed).finish()
    }
}

impl ForeignKeys {
    /// Looks for keys in `redis`, for at most `limit` each.
    #[must_use]
    pub fn new(redis: Redis, limit: Duration) -> Self {
        Self { redis, limit, reached: Mutex::default() }
    }

    /// Connects, for as long as that may take by the settings.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn open(&self) -> Result<(), RedisFailure> {
        let way = self.connect().await?;
        self.reached.lock().await.way = Some(Arc::new(way));
        Ok(())
    }

    /// Whether there is anything under a key, whatever it is.
    ///
    /// # Errors
    /// [`RedisFailure`], after at most twice the limit. The text does not hold the key.
    pub async fn holds(&self, key: &str) -> Result<bool, RedisFailure> {
        let (way, is_new) = self.reach().await?;
        match self.look(&way, key).await {
            // A connection that was kept may have ended with nobody noticing: that is no answer of the server that is there now.
            Err(failure) if is_gone(&failure) => {
                self.let_go(&way).await;
                if is_new || matches!(failure, RedisFailure::Silent { .. }) {
                    return Err(failure);
                }
                let (way, _) = self.reach().await?;
                self.look(&way, key).await
            }
            // A list or a set under that key is something under that key.
            Err(failure) if failure.is_wrong_type() => Ok(true),
            answer => answer,
        }
    }

    async fn look(&self, way: &Way, key: &str) -> Result<bool, RedisFailure> {
        match way {
            Way::Link(link) => link.get(key, self.limit).await,
            Way::Cluster(connection) => {
                let mut command = redis::cmd("GET");
                command.arg(key);
                let found: Option<Vec<u8>> = match timeout(self.limit, ask(connection.clone(), &command)).await {
                    Ok(answer) => answer.map_err(RedisFailure::refused(LOOKING))?,
                    Err(_) => return Err(self.silent()),
                };
                Ok(found.is_some())
            }
        }
    }

    /// The connection that there is, or a new one; of several who need one, one makes it.
    async fn reach(&self) -> Result<(Arc<Way>, bool), RedisFailure> {
        let mut reached = self.reached.lock().await;
        if let Some(way) = &reached.way {
            return Ok((Arc::clone(way), false));
        }
        if let Some((at, failure)) = &reached.failed
            && at.elapsed() < PAUSE
        {
            return Err(failure.clone());
        }
        match timeout(self.limit, self.connect()).await.unwrap_or_else(|_| Err(self.silent())) {
            Ok(way) => {
                let way = Arc::new(way);
                *reached = Reached { way: Some(Arc::clone(&way)), failed: None };
                Ok((way, true))
            }
            Err(failure) => {
                reached.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn let_go(&self, way: &Arc<Way>) {
        let mut reached = self.reached.lock().await;
        if reached.way.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, way)) {
            reached.way = None;
        }
    }

    async fn connect(&self) -> Result<Way, RedisFailure> {
        let settings = &self.redis.settings;
        let Topology::Cluster(nodes) = &settings.url.topology else {
            return self.redis.connect().await.map(Way::Link);
        };
        let unreachable = |error| RedisFailure::Unreachable { place: self.redis.shown(), error };
        let nodes =
            nodes.iter().map(|node| self.address(node)).collect::<RedisResult<Vec<_>>>().map_err(unreachable)?;
        let mut builder = ClusterClientBuilder::new(nodes)
            .connection_timeout(settings.connect)
            .response_timeout(self.limit)
            .retries(1);
        if let Some(user) = &settings.url.user {
            builder = builder.username(user);
        }
        if let Some(password) = &settings.url.password {
            builder = builder.password(String::from_utf8_lossy(password.expose()));
        }
        if settings.url.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(tls) = &self.redis.tls {
            builder = builder.certs(tls.clone());
        }
        let client = builder.build().map_err(unreachable)?;
        client.get_async_connection().await.map(Way::Cluster).map_err(unreachable)
    }

    fn address(&self, node: &RedisPlace) -> RedisResult<redis::ConnectionInfo> {
        self.redis.client(node, self.redis.login())?.get_connection_info().clone().into_connection_info()
    }

    fn silent(&self) -> RedisFailure {
        RedisFailure::Silent { place: self.redis.shown(), limit: self.limit }
    }
}

async fn ask(mut connection: impl ConnectionLike, command: &Cmd) -> RedisResult<Option<Vec<u8>>> {
    command.query_async(&mut connection).await
}

/// Whether what was said is a word of the connection and not of the server.
fn is_gone(failure: &RedisFailure) -> bool {
    match failure {
        RedisFailure::Refused { error, .. } => {
            error.code().is_none() || matches!(error.code(), Some("READONLY" | "LOADING"))
        }
        _ => true,
    }
}
