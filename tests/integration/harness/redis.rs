//! A real redis-server (Debian's) in a folder of its own: killed, paused, emptied and set back as a test asks; with Sentinel, as a cluster.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::tls::Certificate;
use super::{eventually, free_ports};

/// How long a server may take until it answers, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long the harness itself waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The harness's own user, which no access list of a test shuts out.
const HARNESS: &str = "harness";

/// Begins to describe a server. As it stands: on loopback, everybody may do everything, what is written survives `kill -9`.
pub(crate) fn redis() -> Setup {
    Setup { directives: Vec::new(), users: Vec::new(), certificate: None, default_user: true, unix_socket: false }
}

/// A server, described.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    directives: Vec<String>,
    users: Vec<(String, String, String)>,
    certificate: Option<Certificate>,
    default_user: bool,
    unix_socket: bool,
}

impl Setup {
    /// A line of redis.conf.
    pub(crate) fn directive(mut self, line: &str) -> Self {
        self.directives.push(line.to_owned());
        self
    }

    /// Needs this password of who names no user.
    pub(crate) fn password(self, password: &str) -> Self {
        self.directive(&format!("requirepass {password}"))
    }

    /// A user with these rights (`~{doorward}:* -@all +get`).
    pub(crate) fn user(mut self, name: &str, password: &str, rights: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned(), rights.to_owned()));
        self
    }

    /// Who names no user may do nothing.
    pub(crate) fn users_only(mut self) -> Self {
        self.default_user = false;
        self
    }

    /// A second port that speaks TLS with this certificate; see [`Redis::tls_url`].
    pub(crate) fn tls(mut self, certificate: &Certificate) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// Listens on a unix socket too; see [`Redis::unix_path`].
    pub(crate) fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// What happens when memory is full (`allkeys-lru`).
    pub(crate) fn maxmemory_policy(self, policy: &str) -> Self {
        self.directive(&format!("maxmemory-policy {policy}"))
    }

    /// Follows another server.
    pub(crate) fn replica_of(self, master: &Redis) -> Self {
        self.directive(&format!("replicaof 127.0.0.1 {}", master.address.port()))
            .directive(&format!("masteruser {HARNESS}"))
            .directive(&format!("masterauth {HARNESS}"))
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(self) -> Redis {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [port, tls_port] = free_ports();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let at = |name: &str| folder.path().join(name);
        // What is written is the kernel's before it is answered, and survives the process. Redis would wait for a disk that
        // takes seconds, and everybody for Redis.
        let mut conf = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nappendonly yes\nappendfsync no\n\
             user {HARNESS} on >{HARNESS} ~* &* +@all\n",
            folder.path().display()
        );
        let mut line = |text: String| writeln!(conf, "{text}").unwrap();
        if !self.default_user {
            line("user default off".into());
        }
        for (name, password, rights) in &self.users {
            line(format!("user {name} on >{password} {rights}"));
        }
        if let Some(certificate) = &self.certificate {
            std::fs::write(at("tls.crt"), &certificate.cert).unwrap();
            std::fs::write(at("tls.key"), &certificate.key).unwrap();
            std::fs::write(at("ca.crt"), &certificate.authority).unwrap();
            line(format!("tls-port {tls_port}\ntls-auth-clients no"));
            for (key, name) in
                [("tls-cert-file", "tls.crt"), ("tls-key-file", "tls.key"), ("tls-ca-cert-file", "ca.crt")]
            {
                line(format!("{key} {}", at(name).display()));
            }
        }
        if self.unix_socket {
            line(format!("unixsocket {}\nunixsocketperm 700", at("redis.sock").display()));
        }
        self.directives.iter().for_each(|directive| line(directive.clone()));
        std::fs::write(at("redis.conf"), conf).unwrap();
        let mut server = Redis { address, tls_port, folder, child: None };
        server.run(&[]);
        server
    }
}

/// A running server; dropped, exactly its process is killed.
#[derive(Debug)]
pub(crate) struct Redis {
    /// Where it listens, without TLS.
    pub(crate) address: SocketAddr,
    tls_port: u16,
    folder: TempDir,
    child: Option<Child>,
}

/// What a server held at a moment, as its RDB file.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot(Vec<u8>);

/// Whether a server that comes back still has what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    Kept,
    Lost,
}

impl Redis {
    /// One as it stands in [`redis`].
    pub(crate) fn start() -> Self {
        redis().start()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The URL for a user.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@{}", self.address)
    }

    /// The URL of the TLS port, by the name on its certificate.
    pub(crate) fn tls_url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.tls_port)
    }

    pub(crate) fn unix_path(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// One command; panics on an error.
    pub(crate) fn command(&self, words: &[&str]) -> Reply {
        match self.try_command(words) {
            Ok(Reply::Error(error)) => panic!("redis-server refused {words:?}: {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("redis-server did not answer {words:?}: {error}"),
        }
    }

    /// One command on a connection of its own, by the harness's user.
    ///
    /// # Errors
    /// Of the connection; that the server refuses is a [`Reply::Error`].
    pub(crate) fn try_command(&self, words: &[&str]) -> io::Result<Reply> {
        let mut connection = Resp::open(self.address, ANSWER_LIMIT)?;
        match connection.ask(&["AUTH", HARNESS, HARNESS])? {
            Reply::Error(error) => Err(io::Error::other(error)),
            _ => connection.ask(words),
        }
    }

    /// `kill -9`
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts again on the same port what was killed (or kills it first).
    pub(crate) fn restart(&mut self, data: Data) {
        self.kill9();
        if data == Data::Lost {
            self.forget();
        }
        self.run(&[]);
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// FLUSHALL
    pub(crate) fn flush(&self) {
        self.command(&["FLUSHALL"]);
    }

    /// What it holds now.
    pub(crate) fn save(&self) -> Snapshot {
        // Refused while the append-only file is being rewritten, as it is behind a start.
        eventually("a snapshot", START_LIMIT, || match self.try_command(&["SAVE"]) {
            Ok(Reply::Error(_)) | Err(_) => None,
            Ok(_) => Some(()),
        });
        Snapshot(std::fs::read(self.folder.path().join("dump.rdb")).unwrap())
    }

    /// Kills it and starts it with what it held then.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        self.kill9();
        self.forget();
        std::fs::write(self.folder.path().join("dump.rdb"), &snapshot.0).unwrap();
        // With `appendonly yes` it would not look at the snapshot.
        self.run(&["--appendonly", "no"]);
        self.command(&["CONFIG", "SET", "appendonly", "yes"]);
        eventually("an append-only file", START_LIMIT, || {
            let is = |key, value| self.info(key).is_some_and(|said| said == value);
            (is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0")).then_some(())
        });
    }

    /// A value of `INFO` (`role`, `connected_clients`, `total_commands_processed`).
    pub(crate) fn info(&self, key: &str) -> Option<String> {
        let text = self.try_command(&["INFO", "everything"]).ok()?.text();
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::to_owned))
    }

    /// What it has written on standard output.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id();
        assert!(Command::new("kill").args([name, &id.to_string()]).status().expect("kill exists").success());
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        let _ = std::fs::remove_dir_all(self.folder.path().join("appendonlydir"));
    }

    fn run(&mut self, arguments: &[&str]) {
        self.child = Some(spawn(&self.folder, "redis-server", &["redis.conf"], arguments));
        eventually("redis-server answers", START_LIMIT, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "redis-server ended: {}", self.log());
            // While it loads its data it answers LOADING.
            self.try_command(&["PING"]).ok().filter(|reply| matches!(reply, Reply::Simple(_)))
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A master, two replicas and three Sentinels that watch them under the name [`Sentinels::NAME`].
#[derive(Debug)]
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    address: SocketAddr,
    password: Option<&'static str>,
    child: Child,
    _folder: TempDir,
}

impl Sentinels {
    /// What the Sentinels call the master.
    pub(crate) const NAME: &'static str = "doorward-main";

    /// Starts all six and waits until the Sentinels know of one another and of the replicas.
    pub(crate) fn start() -> Self {
        Self::start_with(&redis(), None)
    }

    /// As [`Self::start`], with servers of this kind, and Sentinels that answer nobody who does not know their password.
    pub(crate) fn start_with(setup: &Setup, password: Option<&'static str>) -> Self {
        // A replica that is promoted authenticates those that follow it, and follows later itself.
        let setup =
            setup.clone().directive(&format!("masteruser {HARNESS}")).directive(&format!("masterauth {HARNESS}"));
        let master = setup.clone().directive("repl-diskless-sync-delay 0").start();
        let replicas =
            [(); 2].map(|()| setup.clone().directive("repl-diskless-sync-delay 0").replica_of(&master).start());
        let port = master.address.port();
        let [first, second] = replicas;
        let servers = vec![master, first, second];
        for replica in &servers[1..] {
            eventually("a replica in step", START_LIMIT, || {
                (replica.info("master_link_status")? == "up").then_some(())
            });
        }
        let sentinels = free_ports::<3>().map(|own| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let name = Self::NAME;
            let mut conf = format!(
                "bind 127.0.0.1\nport {own}\ndir {}\nsentinel monitor {name} 127.0.0.1 {port} 2\n\
                 sentinel auth-user {name} {HARNESS}\nsentinel auth-pass {name} {HARNESS}\n\
                 sentinel down-after-milliseconds {name} 3000\nsentinel failover-timeout {name} 3000\n\
                 sentinel parallel-syncs {name} 2\n",
                folder.path().display()
            );
            if let Some(password) = password {
                // What they ask of others, and what they tell one another.
                writeln!(conf, "requirepass {password}\nsentinel sentinel-pass {password}").unwrap();
            }
            std::fs::write(folder.path().join("sentinel.conf"), conf).unwrap();
            let child = spawn(&folder, "redis-server", &["sentinel.conf", "--sentinel"], &[]);
            Sentinel { address: SocketAddr::from((Ipv4Addr::LOCALHOST, own)), password, child, _folder: folder }
        });
        let set = Self { servers, sentinels: sentinels.into() };
        for sentinel in &set.sentinels {
            eventually("a Sentinel that knows the others", START_LIMIT, || {
                let state = sentinel.ask(&["SENTINEL", "MASTER", Self::NAME]).ok()?.words();
                let is = |key: &str, value: &str| state.windows(2).any(|pair| pair[0] == key && pair[1] == value);
                (is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master")).then_some(())
            });
        }
        set
    }

    /// Where the Sentinels listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(|sentinel| sentinel.address).collect()
    }

    /// Which of the servers is the master, by the Sentinels' word.
    pub(crate) fn master(&self) -> usize {
        eventually("a master", START_LIMIT, || {
            let said = self
                .sentinels
                .iter()
                .find_map(|sentinel| sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]).ok())?;
            let port = said.words().get(1)?.parse::<u16>().ok()?;
            self.servers.iter().position(|server| server.address.port() == port)
        })
    }

    /// Waits until another server than this is master, says so itself, and has the Sentinels' word for it.
    pub(crate) fn failed_over(&self, from: usize, limit: Duration) -> usize {
        eventually("a fail-over", limit, || {
            let master = self.master();
            (master != from && self.servers[master].info("role")? == "master").then_some(master)
        })
    }
}

impl Sentinel {
    fn ask(&self, words: &[&str]) -> io::Result<Reply> {
        let mut connection = Resp::open(self.address, ANSWER_LIMIT)?;
        if let Some(password) = self.password {
            connection.ask(&["AUTH", password])?;
        }
        connection.ask(words)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three masters that share the hash slots.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Redis>,
}

impl Cluster {
    /// Starts them and waits until each says that the cluster is whole.
    pub(crate) fn start() -> Self {
        let servers: Vec<Redis> = free_ports::<3>()
            .into_iter()
            .map(|bus| {
                redis()
                    .directive("cluster-enabled yes")
                    // No test kills a node; a shorter time takes one for dead that only stood still.
                    .directive("cluster-node-timeout 15000")
                    .directive(&format!("cluster-port {bus}"))
                    .start()
            })
            .collect();
        let mut command = Command::new("redis-cli");
        command.args(["--user", HARNESS, "--pass", HARNESS, "--no-auth-warning", "--cluster", "create"]);
        command.args(servers.iter().map(|server| server.address.to_string()));
        command.args(["--cluster-replicas", "0", "--cluster-yes"]).stdin(Stdio::null());
        let output = command.output().expect("redis-cli is in PATH");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        for server in &servers {
            eventually("a whole cluster", START_LIMIT, || {
                let text = server.try_command(&["CLUSTER", "INFO"]).ok()?.text();
                (text.contains("cluster_state:ok") && text.contains("cluster_known_nodes:3")).then_some(())
            });
        }
        Self { servers }
    }

    /// Which server holds a key.
    pub(crate) fn holder(&self, key: &str) -> usize {
        let held = |server: &Redis| !matches!(server.try_command(&["TYPE", key]), Ok(Reply::Error(_)) | Err(_));
        self.servers.iter().position(held).expect("one holds it")
    }
}

/// What a server answers (RESP 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Option<Vec<Self>>),
}

impl Reply {
    /// A text, whatever it came as; empty for what is none.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned(),
            Self::Array(_) => String::new(),
        }
    }

    /// What an array consists of.
    pub(crate) fn items(&self) -> &[Self] {
        if let Self::Array(Some(items)) = self { items } else { &[] }
    }

    /// The texts of an array.
    pub(crate) fn words(&self) -> Vec<String> {
        self.items().iter().map(Self::text).collect()
    }
}

/// One raw connection.
#[derive(Debug)]
pub(crate) struct Resp(BufReader<TcpStream>);

impl Resp {
    /// # Errors
    /// Of the socket.
    pub(crate) fn open(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// How long it waits for an answer from now on.
    pub(crate) fn limit(&self, limit: Duration) {
        self.0.get_ref().set_read_timeout(Some(limit)).expect("a socket takes a read timeout");
    }

    /// Sends a command and reads one answer.
    ///
    /// # Errors
    /// Of the socket, and for what is no RESP.
    pub(crate) fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            write!(text, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        self.0.get_mut().write_all(text.as_bytes())?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bad = || io::Error::new(io::ErrorKind::InvalidData, line.clone());
        let (kind, rest) = (line.as_bytes()[0], line.trim_end().get(1..).unwrap_or_default());
        let number = || rest.parse::<i64>().map_err(|_| bad());
        Ok(match kind {
            b'+' => Reply::Simple(rest.to_owned()),
            b'-' => Reply::Error(rest.to_owned()),
            b':' => Reply::Integer(number()?),
            b'$' => match usize::try_from(number()?) {
                Err(_) => Reply::Bulk(None),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Bulk(Some(bytes))
                }
            },
            b'*' => match usize::try_from(number()?) {
                Err(_) => Reply::Array(None),
                Ok(count) => Reply::Array(Some((0..count).map(|_| self.read()).collect::<Result<_, _>>()?)),
            },
            _ => return Err(bad()),
        })
    }
}

/// Starts a program in a folder, its output in the file `log` there.
fn spawn(folder: &TempDir, program: &str, first: &[&str], more: &[&str]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.path().join("log")).unwrap();
    let mut command = Command::new(program);
    command.args(first).args(more).current_dir(folder.path()).stdin(Stdio::null());
    command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("redis-server is in PATH (tests/run installs it)")
}

/// The parts themselves do what the fault tests believe of them.
mod tests {
    use super::{Cluster, Data, Redis, Reply, Sentinels, eventually, redis};
    use crate::harness::tls::Certificate;
    use std::time::Duration;

    #[test]
    fn a_server_keeps_loses_and_is_set_back() {
        let mut server = Redis::start();
        server.command(&["SET", "a", "1"]);
        let snapshot = server.save();
        server.command(&["SET", "a", "2"]);
        server.kill9();
        assert!(server.try_command(&["PING"]).is_err());
        server.restart(Data::Kept);
        assert_eq!(server.command(&["GET", "a"]).text(), "2");
        server.restore(&snapshot);
        assert_eq!(server.command(&["GET", "a"]).text(), "1");
        server.restart(Data::Kept);
        assert_eq!(server.command(&["GET", "a"]).text(), "1");
        server.flush();
        assert_eq!(server.command(&["GET", "a"]), Reply::Bulk(None));
        server.command(&["SET", "a", "3"]);
        server.restart(Data::Lost);
        assert_eq!(server.command(&["GET", "a"]), Reply::Bulk(None));
        server.pause();
        server.resume();
        assert_eq!(server.command(&["PING"]).text(), "PONG");
    }

    #[test]
    fn users_tls_and_sockets() {
        let certificate = Certificate::for_names(&["localhost"]);
        let setup = redis().user("reader", "secret", "~* -@all +get").users_only().tls(&certificate).unix_socket();
        let server = setup.start();
        assert!(server.unix_path().exists());
        assert!(server.tls_url("localhost").starts_with("rediss://localhost:"));
        let mut stranger = super::Resp::open(server.address, Duration::from_secs(20)).unwrap();
        assert!(matches!(stranger.ask(&["GET", "a"]).unwrap(), Reply::Error(_)));
        assert_eq!(stranger.ask(&["AUTH", "reader", "secret"]).unwrap().text(), "OK");
        assert_eq!(stranger.ask(&["GET", "a"]).unwrap(), Reply::Bulk(None));
        assert!(matches!(stranger.ask(&["SET", "a", "1"]).unwrap(), Reply::Error(_)));
    }

    #[test]
    fn sentinels_fail_over_and_a_cluster_stands() {
        let mut set = Sentinels::start();
        let master = set.master();
        set.servers[master].command(&["SET", "a", "1"]);
        for server in &set.servers {
            eventually("every server has it", Duration::from_secs(20), || {
                (server.command(&["GET", "a"]).text() == "1").then_some(())
            });
        }
        set.servers[master].kill9();
        let next = set.failed_over(master, Duration::from_secs(30));
        assert_eq!(set.servers[next].command(&["GET", "a"]).text(), "1");
        let cluster = Cluster::start();
        cluster.servers[cluster.holder("{doorward}:head")].command(&["SET", "{doorward}:head", "1"]);
    }
}
