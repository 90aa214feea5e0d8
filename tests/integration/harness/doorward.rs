//! The program under test: a folder of configuration, a child process on ports of its own, its output.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Connection, Response};
use super::issuer::Issuer;
use super::upstream::Upstream;
use super::{POLICY, ROLES, eventually};

/// How long a debug build may take until it is ready on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Begins to describe a process under test; every part has a sensible default.
pub(crate) fn doorward() -> Builder {
    Builder {
        policies: vec![POLICY.to_owned()],
        roles: ROLES.to_owned(),
        issuers: Vec::new(),
        settings: toml::Table::new(),
        environment: BTreeMap::new(),
        files: BTreeMap::new(),
        unread: false,
        unready: false,
        largest_file: None,
    }
}

/// Ports that nobody listens on at this moment, and that no other test of this run is given. They lie outside those that the kernel
/// gives to outgoing connections (on Linux from 32768), so that a process that was killed gets its own again.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let begun = Instant::now();
    [(); N].map(|()| {
        loop {
            assert!(begun.elapsed() < START_LIMIT, "no free ports");
            let mut random = [0; 2];
            aws_lc_rs::rand::fill(&mut random).unwrap();
            let port = 12_000 + u16::from_ne_bytes(random) % 20_000;
            if GIVEN.lock().unwrap().insert(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return port;
            }
        }
    })
}

/// A process under test, described.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    policies: Vec<String>,
    roles: String,
    issuers: Vec<(toml::Table, String)>,
    settings: toml::Table,
    environment: BTreeMap<String, String>,
    files: BTreeMap<String, Vec<u8>>,
    unread: bool,
    unready: bool,
    /// Of 512 bytes.
    largest_file: Option<u32>,
}

impl Builder {
    /// No file that it writes may grow beyond so many blocks of 512 bytes: as if the disk were full.
    pub(crate) fn largest_file(mut self, blocks: u32) -> Self {
        self.largest_file = Some(blocks);
        self
    }

    /// The one policy file.
    pub(crate) fn policy(mut self, text: &str) -> Self {
        self.policies = vec![text.to_owned()];
        self
    }

    /// One more policy file.
    pub(crate) fn another_policy(mut self, text: &str) -> Self {
        self.policies.push(text.to_owned());
        self
    }

    pub(crate) fn roles(mut self, text: &str) -> Self {
        self.roles = text.to_owned();
        self
    }

    /// Accepts this issuer's tokens; it may confer any role but an administrator's.
    pub(crate) fn issuer(self, issuer: &Issuer) -> Self {
        self.issuer_with(issuer, &[])
    }

    /// As [`Self::issuer`], with more of its table.
    pub(crate) fn issuer_with(mut self, issuer: &Issuer, more: &[(&str, toml::Value)]) -> Self {
        let mut table = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
        set("name", issuer.name.into());
        set("issuer", issuer.url.clone().into());
        set("audience", vec!["oms"].into());
        set("algorithms", vec![issuer.algorithm].into());
        set("same_subjects", true.into());
        set("confers", "any".into());
        for (key, value) in more {
            set(key, value.clone());
        }
        self.issuers.push((table, issuer.jwks().to_string()));
        self
    }

    /// Accepts the tokens of doorward's own keys, which it makes at its first start.
    pub(crate) fn own_issuer(self, algorithm: &str) -> Self {
        self.own_issuer_with(algorithm, &[])
    }

    /// As [`Self::own_issuer`], with more of its table.
    pub(crate) fn own_issuer_with(mut self, algorithm: &str, more: &[(&str, toml::Value)]) -> Self {
        let mut table = toml::Table::new();
        table.insert("name".into(), "doorward".into());
        table.insert("issuer".into(), "http://127.0.0.1:8001".into());
        table.insert("audience".into(), vec!["oms"].into());
        table.insert("keys".into(), "local".into());
        table.insert("algorithms".into(), vec![algorithm].into());
        table.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.issuers.push((table, String::new()));
        self
    }

    /// The upstream `oms`.
    pub(crate) fn upstream(self, upstream: &Upstream) -> Self {
        let url = upstream.url();
        self.setting("upstreams.oms.endpoints", vec![url])
    }

    /// A key of the configuration file, with dots between its levels.
    pub(crate) fn setting(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let mut table = &mut self.settings;
        let mut levels: Vec<&str> = key.split('.').collect();
        let last = levels.pop().expect("a key");
        for level in levels {
            let entry = table.entry(level).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().expect("a table");
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// A further file in the process's working directory.
    pub(crate) fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.into(), contents.into());
        self
    }

    /// Nobody reads its standard output.
    pub(crate) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Writes the folder and returns the command that would run it.
    fn lay_out(&self, gateway: u16, admin: u16) -> (TempDir, Command) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let text = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();
        let mut policies = Vec::new();
        for (index, policy) in self.policies.iter().enumerate() {
            let path = at(&format!("policy{index}.yaml"));
            std::fs::write(&path, policy).unwrap();
            policies.push(text(&path));
        }
        std::fs::write(at("roles.yaml"), &self.roles).unwrap();
        let mut issuers = Vec::new();
        for (index, (table, jwks)) in self.issuers.iter().enumerate() {
            let path = at(&format!("keys{index}.json"));
            std::fs::write(&path, jwks).unwrap();
            let mut table = table.clone();
            table.entry("keys").or_insert_with(|| format!("jwks+file://{}", path.display()).into());
            issuers.push(toml::Value::from(table));
        }
        for (name, contents) in &self.files {
            let path = at(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        let defaults = [
            ("gateway.listen", toml::Value::from(format!("127.0.0.1:{gateway}"))),
            ("gateway.policies", policies.into()),
            ("gateway.workers", 1.into()),
            ("gateway.grace", "2s".into()),
            ("upstreams.oms.endpoints", vec!["http://127.0.0.1:9"].into()),
            // No test is about the default, a second: a machine that stands still uses it up before a handshake is done.
            ("upstreams.oms.timeouts.connect", "15s".into()),
            ("roles.file", text(&at("roles.yaml")).into()),
            ("auth.mode", "local".into()),
            ("auth.issuers", issuers.into()),
            ("identity.enabled", false.into()),
            ("admin.listen", format!("127.0.0.1:{admin}").into()),
            ("log.format", "json".into()),
        ];
        let mut whole = Self { settings: toml::Table::new(), ..self.clone() };
        for (key, value) in defaults {
            whole = whole.setting(key, value);
        }
        merge(&mut whole.settings, &self.settings);
        if whole.settings["auth"]["issuers"].as_array().is_some_and(Vec::is_empty) {
            whole.settings["auth"].as_table_mut().unwrap().remove("issuers");
        }
        let config = at("doorward.toml");
        std::fs::write(&config, toml::to_string(&whole.settings).unwrap()).unwrap();
        let mut command = match self.largest_file {
            None => Command::new(env!("CARGO_BIN_EXE_doorward")),
            // Without the signal a write that goes too far fails halfway, as on a full disk.
            Some(blocks) => {
                let mut command = Command::new("sh");
                let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
                command.args(["-c", &script, env!("CARGO_BIN_EXE_doorward")]);
                command
            }
        };
        command.args(["run", "--config"]).arg(&config).current_dir(folder.path());
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(&self.environment);
        (folder, command)
    }

    /// Starts the process and waits until it says that it is ready.
    pub(crate) fn start(self) -> Doorward {
        for _ in 0..5 {
            match self.try_start() {
                Ok(running) => return running,
                // Another test took a port between our look and the bind: look again.
                Err(failed) if failed.stderr.contains("the port is taken") => {}
                Err(failed) => {
                    panic!("doorward did not start ({}): {}\n{}", failed.status, failed.stderr, failed.stdout)
                }
            }
        }
        panic!("no free ports in five tries");
    }

    /// As [`Self::start`], for one that will not be ready soon: waits until its admin listener answers.
    pub(crate) fn start_unready(mut self) -> Doorward {
        self.unready = true;
        self.start()
    }

    /// Runs a process that is expected to give up by itself.
    pub(crate) fn fails(self) -> Failed {
        match self.try_start() {
            Ok(running) => panic!("doorward started, which it should not:\n{}", running.stderr()),
            Err(failed) => {
                assert!(!failed.stderr.contains("panicked"), "a panic:\n{}", failed.stderr);
                failed
            }
        }
    }

    fn try_start(&self) -> Result<Doorward, Failed> {
        let [gateway, admin] = free_ports();
        let (folder, mut command) = self.lay_out(gateway, admin);
        let admin_tls = self.settings.get("admin").is_some_and(|admin| admin.get("tls").is_some());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut running = Doorward {
            gateway: address(gateway),
            admin: address(admin),
            folder,
            command,
            child,
            unread: self.unread,
            lines: Arc::default(),
            messages: Arc::default(),
            readers: Vec::new(),
        };
        running.listen();
        let begun = Instant::now();
        loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                running.hear_out();
                return Err(Failed { status, stdout: running.stdout(), stderr: running.stderr() });
            }
            // Asked twice: an answer may come from a stranger on a port that this process did not get.
            // What the admin listener says by TLS nobody here reads; the log says that it serves.
            let is_ready = if admin_tls {
                running.stdout().contains("\"serving\"")
            } else if self.unready {
                std::net::TcpStream::connect(running.admin).is_ok()
            } else {
                ready(running.admin)
            };
            if is_ready && running.child.try_wait().unwrap().is_none() {
                return Ok(running);
            }
            assert!(begun.elapsed() < START_LIMIT, "not ready in {START_LIMIT:?}:\n{}", running.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process that ended by itself.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running process under test.
#[derive(Debug)]
pub(crate) struct Doorward {
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: TempDir,
    command: Command,
    child: Child,
    unread: bool,
    lines: Arc<Mutex<Vec<String>>>,
    messages: Arc<Mutex<Vec<String>>>,
    /// Who gathers them.
    readers: Vec<JoinHandle<()>>,
}

impl Doorward {
    /// `kill -9`
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.hear_out();
    }

    /// Starts what has ended again, in the same folder and on the same ports, and waits until the gateway listens, ready or not
    /// ([`Self::is_ready`]).
    pub(crate) fn start_again(&mut self) {
        self.spawn_again();
        eventually("it listens again", START_LIMIT, || {
            assert!(self.is_running(), "doorward ended:\n{}", self.stderr());
            std::net::TcpStream::connect(self.gateway).ok()
        });
    }

    /// As [`Self::start_again`], without waiting for anything: it may well end.
    pub(crate) fn spawn_again(&mut self) {
        assert!(!self.is_running());
        self.child = self.command.spawn().unwrap();
        self.listen();
    }

    /// Whether `/readyz` says so.
    pub(crate) fn is_ready(&self) -> bool {
        ready(self.admin)
    }

    /// Gathers what the child writes.
    fn listen(&mut self) {
        // Left in the child it stays open, and fills.
        if !self.unread {
            self.readers.push(collect(self.child.stdout.take().expect("stdout is piped"), &self.lines));
        }
        self.readers.push(collect(self.child.stderr.take().expect("stderr is piped"), &self.messages));
    }

    /// Of a child that has ended: waits until all that it wrote has been gathered, which may be later on a busy machine.
    fn hear_out(&mut self) {
        eventually("its last words are read", START_LIMIT, || {
            self.readers.iter().all(JoinHandle::is_finished).then_some(())
        });
        self.readers.clear();
    }

    /// The folder that it runs in.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.gateway)
    }

    /// Sends these bytes to the gateway on a connection of its own and reads one response.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.connect().send(bytes).response()
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: oms.test\r\n\r\n"))
    }

    pub(crate) fn get_as(&self, target: &str, token: &str) -> Response {
        self.request("GET", target, token, &[], "")
    }

    pub(crate) fn request(
        &self,
        method: &str,
        target: &str,
        token: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let bytes = request(method, target, "oms.test", Some(token), fields, body);
        self.connect().send(bytes).try_response(method).expect("a response")
    }

    /// A request to the admin listener.
    pub(crate) fn admin_request(&self, method: &str, target: &str, token: Option<&str>, body: &str) -> Response {
        let json: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
        let bytes = request(method, target, &self.admin.to_string(), token, json, body);
        Connection::open(self.admin).send(bytes).response()
    }

    pub(crate) fn metrics(&self) -> String {
        let response = self.admin_request("GET", "/metrics", None, "");
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    }

    /// The sum over all series of a metric that carry these labels (`reason="expired"`).
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric_in(&self.metrics(), name, labels)
    }

    pub(crate) fn stdout(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn stderr(&self) -> String {
        self.messages.lock().unwrap().join("\n")
    }

    /// The access line of a request, once it is written.
    pub(crate) fn access_line(&self, request_id: &str) -> Value {
        eventually(&format!("an access line of {request_id}"), START_LIMIT, || {
            let lines = self.lines.lock().unwrap();
            let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            parsed.into_iter().find(|line| line["request_id"] == request_id && line.get("status").is_some())
        })
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this one process.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill exists");
        assert!(status.success());
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = eventually("the process ends", limit, || self.child.try_wait().unwrap());
        self.hear_out();
        status
    }
}

impl Drop for Doorward {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal("-TERM");
            let end = Instant::now() + Duration::from_secs(5);
            while self.child.try_wait().ok().flatten().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.stderr();
        if !std::thread::panicking() {
            assert!(!stderr.contains("panicked"), "doorward panicked:\n{stderr}");
        }
    }
}

/// A request in full, `Content-Length` included where there is a body.
fn request(method: &str, target: &str, host: &str, token: Option<&str>, fields: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(token) = token {
        text += &format!("Authorization: Bearer {token}\r\n");
    }
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

/// The sum over all series of a metric that carry these labels.
pub(crate) fn metric_in(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let labelled = |line: &&str| labels.iter().all(|label| line.contains(label));
    let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
    metrics.lines().filter(of_name).filter(labelled).filter_map(value).sum()
}

fn ready(admin: SocketAddr) -> bool {
    // On one connection: whoever listens may be gone before a second one is made.
    std::net::TcpStream::connect_timeout(&admin, Duration::from_secs(5)).is_ok_and(|stream| {
        let mut connection = Connection::over(stream);
        connection.set_read_timeout(Duration::from_secs(10));
        connection.send(format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
        connection.try_response("GET").is_ok_and(|response| response.status == 200)
    })
}

fn collect(from: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let kept = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            kept.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

/// Lays `over` on `base`, table by table.
fn merge(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
