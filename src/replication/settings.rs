//! Where Redis is: a URL, as written and as used.
//!
//! | URL | meaning |
//! |---|---|
//! | `redis://[user[:password]@]host[:6379][/db]` | one server |
//! | `unix:/run/redis.sock`, `unix://[user[:password]@]/run/redis.sock[?db=0]` | one server on this machine |
//! | `redis+sentinel://[user[:password]@]host[:26379],…/name[/db]` | the master `name` that these sentinels know |
//! | `redis+cluster://[user[:password]@]host[:6379],…` | a cluster, found by any of these nodes |
//!
//! `rediss` in place of `redis` speaks TLS. User and password are percent-encoded.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// `[redis]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it is and as whom to speak.
    pub url: RedisUrl,
    /// What every key begins with, in braces: the hash tag that keeps them on one node of a cluster.
    pub prefix: String,
    /// Files for `rediss`.
    pub tls: RedisTls,
    /// As whom to ask sentinels, which have users of their own.
    pub sentinel: Option<(Option<String>, Secret)>,
    /// To establish one connection, TLS and login included.
    pub connect: Duration,
    /// For one answer.
    pub response: Duration,
}

/// Whom to believe, and what to show. The files are still to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// Certificates that servers are verified against; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A URL of Redis, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// How servers are found.
    pub topology: Topology,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The ACL user; `None` for the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The database; 0 in a cluster.
    pub database: u16,
}

/// How servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single(RedisPlace),
    /// Sentinels know the master of this name.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<RedisPlace>,
        /// The name of the master.
        master: String,
    },
    /// Nodes of a cluster.
    Cluster(Vec<RedisPlace>),
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    /// Host (without brackets) and port.
    Tcp(String, u16),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// What a URL looks like, for messages.
pub const FORMS: &str = "Write redis://[user:password@]host:6379[/db], rediss://…, unix:/PATH, \
                         redis+sentinel://host:26379,host:26379/master or redis+cluster://host:6379,host:6379; percent-encode what \
                         is special in a password.";

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// A lower-case fragment that says what is wrong, without any part of the URL: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once(':').ok_or("has no scheme")?;
        if scheme == "unix" {
            return Self::parse_unix(rest);
        }
        let (tls, kind) = match scheme {
            "redis" => (false, ""),
            "rediss" => (true, ""),
            _ => {
                let (base, kind) = scheme.split_once('+').ok_or("has an unknown scheme")?;
                let tls = match base {
                    "redis" => false,
                    "rediss" => true,
                    _ => return Err("has an unknown scheme"),
                };
                (tls, kind)
            }
        };
        let rest = rest.strip_prefix("//").ok_or("has no `//` after its scheme")?;
        if rest.contains(['?', '#']) {
            return Err("has a `?` or `#`; percent-encode it in a password");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password, hosts) = credentials(authority)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let default_port = if kind == "sentinel" { 26379 } else { 6379 };
        let mut places = hosts.split(',').map(|host| place(host, default_port)).collect::<Result<Vec<_>, _>>()?;
        let (topology, database) = match kind {
            "" => {
                let only = places.pop().filter(|_| places.is_empty());
                (Topology::Single(only.ok_or("names several hosts; redis+sentinel:// and redis+cluster:// do")?), path)
            }
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                if master.is_empty() || !master.bytes().all(good) {
                    return Err("names no master after the sentinels (letters, digits, `.`, `-` and `_`)");
                }
                (Topology::Sentinel { sentinels: places, master: master.to_owned() }, database)
            }
            "cluster" if matches!(path, "" | "0") => (Topology::Cluster(places), ""),
            "cluster" => return Err("names a database, and a cluster has only one"),
            _ => return Err("has an unknown scheme"),
        };
        Ok(Self { topology, tls, user, password, database: number(database)? })
    }

    fn parse_unix(rest: &str) -> Result<Self, &'static str> {
        let (rest, database) = match rest.split_once("?db=") {
            Some((rest, database)) => (rest, number(database)?),
            None => (rest, 0),
        };
        let (user, password, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let cut = rest.find('/').ok_or("names no path")?;
                let (user, password, host) =
                    if rest[..cut].is_empty() { (None, None, "") } else { credentials(&rest[..cut])? };
                if !host.is_empty() {
                    return Err("names a host and a socket");
                }
                (user, password, &rest[cut..])
            }
            None => (None, None, rest),
        };
        if !path.starts_with('/') {
            return Err("names no absolute path");
        }
        let topology = Topology::Single(RedisPlace::Unix(path.into()));
        Ok(Self { topology, tls: false, user, password, database })
    }
}

impl fmt::Display for RedisUrl {
    /// As it could be read again, but for the password, which is `***`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let password = if self.password.is_some() { ":***" } else { "" };
        let user = self.user.as_deref().map(encode).unwrap_or_default();
        let at = if user.is_empty() && password.is_empty() { "" } else { "@" };
        let who = format!("{user}{password}{at}");
        let list = |places: &[RedisPlace]| places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let database = if self.database == 0 { String::new() } else { format!("/{}", self.database) };
        match &self.topology {
            Topology::Single(RedisPlace::Unix(path)) => {
                write!(f, "unix://{who}{}", path.display())?;
                if self.database == 0 { Ok(()) } else { write!(f, "?db={}", self.database) }
            }
            Topology::Single(place) => write!(f, "{scheme}://{who}{place}{database}"),
            Topology::Sentinel { sentinels, master } => {
                write!(f, "{scheme}+sentinel://{who}{}/{master}{database}", list(sentinels))
            }
            Topology::Cluster(nodes) => write!(f, "{scheme}+cluster://{who}{}", list(nodes)),
        }
    }
}

impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

type Credentials<'t> = (Option<String>, Option<Secret>, &'t str);

/// User, password and what follows the `@`.
fn credentials(authority: &str) -> Result<Credentials<'_>, &'static str> {
    let Some((who, hosts)) = authority.rsplit_once('@') else { return Ok((None, None, authority)) };
    let (user, password) = match who.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (who, None),
    };
    let user = decode(user).and_then(|user| String::from_utf8(user).ok()).ok_or("has a bad percent-encoding")?;
    let password = password.map(|password| decode(password).ok_or("has a bad percent-encoding")).transpose()?;
    // The wire takes bytes, the library takes text.
    if password.as_ref().is_some_and(|password| std::str::from_utf8(password).is_err()) {
        return Err("has a password that is not UTF-8");
    }
    if !user.is_empty() && password.is_none() {
        return Err("names a user without a password");
    }
    let password = password.filter(|password| !password.is_empty()).map(Secret::new);
    Ok(((!user.is_empty()).then_some(user), password, hosts))
}

fn place(text: &str, default_port: u16) -> Result<RedisPlace, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has an address without its `]`")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "has a bad IPv6 address")?;
            (host, port)
        }
        None => match text.find(':') {
            Some(cut) => text.split_at(cut),
            None => (text, ""),
        },
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if host.is_empty() || !host.bytes().all(good) {
        return Err("has a bad host");
    }
    let port = match port {
        "" => default_port,
        port => port
            .strip_prefix(':')
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0)
            .ok_or("has a bad port")?,
    };
    Ok(RedisPlace::Tcp(host.to_owned(), port))
}

fn number(database: &str) -> Result<u16, &'static str> {
    match database {
        "" => Ok(0),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_err(|_| "has a bad database number"),
        _ => Err("has a bad database number"),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            decoded.push(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_exactly_and_shown_without_the_password() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://h/", "redis://h:6379"),
            ("rediss://h:1/3", "rediss://h:1/3"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://:p%40ss@h", "redis://:***@h:6379"),
            ("redis://gate%2Fway:p:q@h/1", "redis://gate%2Fway:***@h:6379/1"),
            ("unix:/run/r.sock", "unix:///run/r.sock"),
            ("unix://u:p@/run/r.sock?db=2", "unix://u:***@/run/r.sock?db=2"),
            ("redis+sentinel://u:p@a,b:2/mymaster", "redis+sentinel://u:***@a:26379,b:2/mymaster"),
            ("rediss+sentinel://a/m/4", "rediss+sentinel://a:26379/m/4"),
            ("redis+cluster://a:7000,[::1]:7001/", "redis+cluster://a:7000,[::1]:7001"),
        ] {
            let read = RedisUrl::parse(url).unwrap();
            assert_eq!(read.to_string(), shown);
            assert!(!format!("{read:?}").contains("p:q"));
        }
        let read = RedisUrl::parse("redis://gate%2Fway:p%3aq@h/1").unwrap();
        assert_eq!((read.user.as_deref(), read.database), (Some("gate/way"), 1));
        assert_eq!(read.password.unwrap().expose(), b"p:q");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            "redis",
            "http://h",
            "redis:h",
            "redis://",
            "redis://h:0",
            "redis://h:x",
            "redis://h:99999",
            "redis://h/x",
            "redis://a,b",
            "redis://h?db=1",
            "redis://h/1/2",
            "redis://u@h",
            "redis://%zz:p@h",
            "redis://[::1",
            "redis://h h",
            "redis+sentinel://a",
            "redis+sentinel://a/m/x",
            "redis+cluster://a/1",
            "redis+x://a",
            "unix:r",
            "unix://h/r",
            "redis+cluster://a,,b",
            "redis://u:%ff@h",
        ] {
            assert!(RedisUrl::parse(url).is_err(), "{url}");
        }
    }
}
