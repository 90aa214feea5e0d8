//! Finding the server that may be written to, and connecting to it. Every wait has a bound.
//!
//! All keys have one hash tag, so also in a cluster there is one server to talk to: the node that answers without `MOVED`. When it is
//! another one tomorrow, the connection fails, and it is looked for again. The same goes for a master that Sentinel replaced.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisResult, TlsCertificates,
};
use tokio::task::JoinSet;

use super::error::RedisFailure;
use super::link::{Keys, Link};
use super::settings::{RedisPlace, RedisSettings, Topology};
use crate::secret::Secret;

/// How often a node of a cluster may send us on.
const HOPS: usize = 5;

/// A Redis as it is configured, not yet connected to.
#[derive(Clone)]
pub struct Redis {
    pub(super) settings: Arc<RedisSettings>,
    pub(super) tls: Option<TlsCertificates>,
    keys: Arc<Keys>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("url", &self.settings.url.to_string()).finish_non_exhaustive()
    }
}

/// As whom to log in.
#[derive(Clone, Copy)]
pub(super) struct Login<'s> {
    user: Option<&'s str>,
    password: Option<&'s Secret>,
    database: u16,
}

impl Redis {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`RedisFailure::File`]
    pub fn new(settings: RedisSettings) -> Result<Self, RedisFailure> {
        let read = |path: &std::path::PathBuf| {
            std::fs::read(path)
                .map_err(|error| RedisFailure::File(format!("cannot read {} ([redis] tls): {error}", path.display())))
        };
        let root_cert = settings.tls.ca.as_ref().map(read).transpose()?;
        let client_tls = match &settings.tls.identity {
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            None => None,
        };
        let tls = (root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert });
        let keys = Arc::new(Keys::new(&settings.prefix));
        let made = Self { settings: Arc::new(settings), tls, keys };
        if made.settings.url.tls {
            // Bad PEM is found now and not at the first connection.
            let place = RedisPlace::Tcp("localhost".into(), 1);
            made.client(&place, made.login()).map_err(|error| RedisFailure::File(format!("[redis] tls: {error}")))?;
        }
        Ok(made)
    }

    /// The URL, without the password.
    #[must_use]
    pub fn shown(&self) -> String {
        self.settings.url.to_string()
    }

    /// Connects to the server that may be written to.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn connect(&self) -> Result<Link, RedisFailure> {
        let (place, connection) = self.server().await?;
        Ok(Link::new(connection, Arc::clone(&self.keys), place.to_string(), self.settings.response))
    }

    /// Finds the server that may be written to.
    pub(super) async fn server(&self) -> Result<(RedisPlace, MultiplexedConnection), RedisFailure> {
        match &self.settings.url.topology {
            Topology::Single(place) => Ok((place.clone(), self.open(place, self.login()).await?)),
            Topology::Sentinel { sentinels, master } => self.master(sentinels, master).await,
            Topology::Cluster(nodes) => self.node(nodes).await,
        }
    }

    pub(super) fn login(&self) -> Login<'_> {
        let url = &self.settings.url;
        Login { user: url.user.as_deref(), password: url.password.as_ref(), database: url.database }
    }

    pub(super) fn client(&self, place: &RedisPlace, login: Login<'_>) -> RedisResult<Client> {
        let address = match place {
            RedisPlace::Unix(path) => ConnectionAddr::Unix(path.clone()),
            RedisPlace::Tcp(host, port) if self.settings.url.tls => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            RedisPlace::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
        };
        // An access list may forbid CLIENT, and nobody needs the name.
        let mut info = RedisConnectionInfo::default().set_db(i64::from(login.database)).set_skip_set_lib_name();
        if let Some(user) = login.user {
            info = info.set_username(user);
        }
        if let Some(password) = login.password {
            info = info.set_password(String::from_utf8_lossy(password.expose()));
        }
        let info = address.into_connection_info()?.set_redis_settings(info);
        match &self.tls {
            Some(tls) if self.settings.url.tls => Client::build_with_tls(info, tls.clone()),
            _ => Client::open(info),
        }
    }

    async fn open(&self, place: &RedisPlace, login: Login<'_>) -> Result<MultiplexedConnection, RedisFailure> {
        let unreachable = |error| RedisFailure::Unreachable { place: place.to_string(), error };
        let limit = self.settings.connect;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(Some(self.settings.response));
        let client = self.client(place, login).map_err(unreachable)?;
        // The library's own limit does not cover the log-in of every version; this one covers all.
        let opened = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(limit + Duration::from_millis(100), opened).await {
            Ok(opened) => opened.map_err(unreachable),
            Err(_) => Err(RedisFailure::Silent { place: place.to_string(), limit }),
        }
    }

    /// Asks all sentinels at once and takes the first that names a master which is one: a sentinel that hangs delays nobody, and neither does
    /// one that was cut off from the others and names the master of before.
    async fn master(
        &self,
        sentinels: &[RedisPlace],
        name: &str,
    ) -> Result<(RedisPlace, MultiplexedConnection), RedisFailure> {
        let mut asked = JoinSet::new();
        for sentinel in sentinels {
            let (this, sentinel, name) = (self.clone(), sentinel.clone(), name.to_owned());
            asked.spawn(async move {
                let login = this.settings.sentinel.as_ref();
                let login = Login {
                    user: login.and_then(|(user, _)| user.as_deref()),
                    password: login.map(|(_, password)| password),
                    database: 0,
                };
                let mut connection = this.open(&sentinel, login).await?;
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(&name);
                let answer: Option<(String, u16)> =
                    command.query_async(&mut connection).await.map_err(RedisFailure::refused("asking a sentinel"))?;
                let unknown = || RedisFailure::Nowhere(format!("the sentinel {sentinel} knows no master {name:?}"));
                let (host, port) = answer.ok_or_else(unknown)?;
                Ok(RedisPlace::Tcp(host, port))
            });
        }
        let mut last = RedisFailure::Nowhere("no sentinel answered".into());
        let (mut named, mut tried) = (Vec::new(), JoinSet::new());
        loop {
            tokio::select! {
                Some(answer) = asked.join_next() => match answer {
                    Ok(Ok(place)) if named.contains(&place) => {}
                    Ok(Ok(place)) => {
                        named.push(place.clone());
                        let this = self.clone();
                        tried.spawn(async move { this.open_master(place).await });
                    }
                    Ok(Err(failure)) => last = failure,
                    Err(_) => {}
                },
                Some(opened) = tried.join_next() => match opened {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(failure)) => last = failure,
                    Err(_) => {}
                },
                else => return Err(last),
            }
        }
    }

    async fn open_master(&self, place: RedisPlace) -> Result<(RedisPlace, MultiplexedConnection), RedisFailure> {
        let mut connection = self.open(&place, self.login()).await?;
        self.check_master(&place, &mut connection).await?;
        Ok((place, connection))
    }

    /// A sentinel may not know yet that its master is none any more.
    async fn check_master(
        &self,
        place: &RedisPlace,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisFailure> {
        let role: RedisResult<Vec<redis::Value>> = redis::cmd("ROLE").query_async(connection).await;
        match role.map_err(RedisFailure::refused("asking for its role")) {
            Ok(role) => match role.first() {
                Some(redis::Value::BulkString(word)) if word == b"master" => Ok(()),
                _ => Err(RedisFailure::Nowhere(format!(
                    "{place} is no master (any more); the sentinels do not know yet"
                ))),
            },
            // Then a write will tell.
            Err(failure) if failure.is_forbidden() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// The node of a cluster that has our keys: any node says which.
    async fn node(&self, nodes: &[RedisPlace]) -> Result<(RedisPlace, MultiplexedConnection), RedisFailure> {
        let mut asked = JoinSet::new();
        for node in nodes {
            let (this, node) = (self.clone(), node.clone());
            asked.spawn(async move { this.follow_redirections(node).await });
        }
        let mut last = RedisFailure::Nowhere("no node of the cluster answered".into());
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(failure)) => last = failure,
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn follow_redirections(
        &self,
        mut node: RedisPlace,
    ) -> Result<(RedisPlace, MultiplexedConnection), RedisFailure> {
        for _ in 0..HOPS {
            let mut connection = self.open(&node, self.login()).await?;
            let asked: RedisResult<i64> = redis::cmd("EXISTS").arg(&self.keys.head).query_async(&mut connection).await;
            let Err(error) = asked else { return Ok((node, connection)) };
            let Some((host, port)) = error.redirect_node().and_then(|(place, _)| place.rsplit_once(':')) else {
                return Err(RedisFailure::Refused { what: "looking for the node of the keys", error });
            };
            let port = port.parse().map_err(|_| RedisFailure::Answer { what: "looking for the node of the keys" })?;
            // A node that does not know its own address sends on to a port of the host that was asked.
            let host = match (&node, host) {
                (RedisPlace::Tcp(same, _), "" | "?") => same.clone(),
                (_, host) => host.trim_matches(['[', ']']).to_owned(),
            };
            node = RedisPlace::Tcp(host, port);
        }
        Err(RedisFailure::Nowhere("the nodes of the cluster send us from one to the other".into()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::replication::{RedisTls, RedisUrl};

    /// A server that answers `SENTINEL` with an address, after so long, and `ROLE` with a word.
    async fn server(role: &'static str, master: Option<(u16, Duration)>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(words) = command(&mut stream).await {
                        let answer = match (&*words[0].to_uppercase(), master) {
                            ("SENTINEL", Some((port, after))) => {
                                tokio::time::sleep(after).await;
                                let port = port.to_string();
                                format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
                            }
                            ("ROLE", _) => format!("*1\r\n${}\r\n{role}\r\n", role.len()),
                            _ => "+OK\r\n".to_owned(),
                        };
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        port
    }

    async fn command(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<Vec<String>> {
        let number = async |stream: &mut BufReader<tokio::net::TcpStream>| {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            line.get(1..)?.trim().parse::<usize>().ok()
        };
        let mut words = Vec::new();
        for _ in 0..number(stream).await? {
            let mut word = vec![0; number(stream).await? + 2];
            stream.read_exact(&mut word).await.ok()?;
            words.push(String::from_utf8_lossy(&word).trim().to_owned());
        }
        Some(words)
    }

    async fn found(sentinels: &[u16]) -> Result<String, RedisFailure> {
        let sentinels: Vec<_> = sentinels.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let settings = RedisSettings {
            url: RedisUrl::parse(&format!("redis+sentinel://{}/mymaster", sentinels.join(","))).unwrap(),
            prefix: "doorward".to_owned(),
            tls: RedisTls::default(),
            sentinel: None,
            connect: Duration::from_secs(10),
            response: Duration::from_secs(10),
        };
        Redis::new(settings).unwrap().server().await.map(|(place, _)| place.to_string())
    }

    #[tokio::test]
    async fn a_sentinel_that_names_the_master_of_before_keeps_nobody_from_the_one_of_now() {
        let late = Duration::from_millis(200);
        let (master, replica) = (server("master", None).await, server("slave", None).await);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let right = server("", Some((master, late))).await;
        for before in [gone, replica] {
            let wrong = server("", Some((before, Duration::ZERO))).await;
            let found = found(&[wrong, right, right]).await.unwrap();
            assert_eq!(found, format!("127.0.0.1:{master}"));
        }
        let wrong = server("", Some((replica, Duration::ZERO))).await;
        assert!(found(&[wrong]).await.unwrap_err().to_string().contains("is no master"));
    }
}
