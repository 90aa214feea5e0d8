//! Whether a key exists, for a blacklist that another program writes: any key, so in a cluster on any node.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, RedisResult};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Redis;
use super::error::RedisFailure;
use super::settings::Topology;

/// After a failed attempt to connect the next one waits this long, and questions meanwhile fail at once: nobody waits for a Redis that
/// is gone, and it is not stormed when it comes back.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks whether keys exist. Connects by itself, again and again.
#[derive(Debug)]
pub struct KeyLookup {
    redis: Redis,
    limit: Duration,
    connection: Mutex<Connection>,
}

enum Connection {
    None,
    Failed(Instant, RedisFailure),
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Failed(..) => "Failed",
            Self::One(_) => "One",
            Self::Cluster(_) => "Cluster",
        })
    }
}

/// A connection to ask on; clones share what is below.
#[derive(Clone)]
enum Asked {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl KeyLookup {
    /// Asks this Redis; each question takes `limit` at most, connecting included.
    #[must_use]
    pub fn new(redis: Redis, limit: Duration) -> Self {
        Self { redis, limit, connection: Mutex::new(Connection::None) }
    }

    /// Whether there is something under a key, whatever it is. The key is in no message.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn exists(&self, key: &str) -> Result<bool, RedisFailure> {
        if let Ok(answer) = tokio::time::timeout(self.limit, self.ask(key)).await {
            return answer;
        }
        let silent = RedisFailure::Silent { place: self.redis.shown(), limit: self.limit };
        // Whoever does not answer may be gone for good, and another master in its place. Who is connecting now finds out.
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = Connection::Failed(Instant::now() + PAUSE, silent.clone());
        }
        Err(silent)
    }

    async fn ask(&self, key: &str) -> Result<bool, RedisFailure> {
        let mut command = redis::cmd("EXISTS");
        command.arg(key);
        let asked = self.connected().await?;
        match Self::query(asked, &command).await {
            Ok(found) => Ok(found > 0),
            Err(error) => {
                // A question that a dying connection took along is asked once more on a new one.
                let dropped = error.is_connection_dropped() || error.is_io_error();
                if dropped || error.code().is_some_and(|code| matches!(code, "READONLY" | "MOVED" | "LOADING")) {
                    *self.connection.lock().await = Connection::None;
                }
                if !dropped {
                    return Err(RedisFailure::refused("looking a key up")(error));
                }
                let asked = self.connected().await?;
                let found = Self::query(asked, &command).await;
                found.map(|found| found > 0).map_err(RedisFailure::refused("looking a key up"))
            }
        }
    }

    async fn query(asked: Asked, command: &Cmd) -> RedisResult<i64> {
        match asked {
            Asked::One(mut connection) => command.query_async(&mut connection).await,
            Asked::Cluster(mut connection) => command.query_async(&mut connection).await,
        }
    }

    /// One connects, the others wait for it.
    async fn connected(&self) -> Result<Asked, RedisFailure> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Connection::One(one) => return Ok(Asked::One(one.clone())),
            Connection::Cluster(cluster) => return Ok(Asked::Cluster(cluster.clone())),
            Connection::Failed(until, failure) if Instant::now() < *until => return Err(failure.clone()),
            Connection::None | Connection::Failed(..) => {}
        }
        let made = match self.redis.topology() {
            Topology::Cluster(nodes) => self.redis.cluster(nodes).await.map(Asked::Cluster),
            _ => self.redis.server().await.map(|(_, one)| Asked::One(one)),
        };
        *connection = match &made {
            Ok(Asked::One(one)) => Connection::One(one.clone()),
            Ok(Asked::Cluster(cluster)) => Connection::Cluster(cluster.clone()),
            Err(failure) => Connection::Failed(Instant::now() + PAUSE, failure.clone()),
        };
        made
    }
}
