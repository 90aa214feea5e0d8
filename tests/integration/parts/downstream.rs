//! How a client speaks to doorward: the rows of the table.

use std::process::Command;
use std::sync::OnceLock;

use crate::harness::tls::Certificate;
use crate::harness::{Doorward, Issuer, doorward};

use super::part::{missing, run};

/// A protocol, with TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Downstream {
    H1,
    H1Tls,
    H2Tls,
    /// HTTP/2 by prior knowledge.
    H2c,
}

impl Downstream {
    fn has_tls(self) -> bool {
        matches!(self, Self::H1Tls | Self::H2Tls)
    }

    /// What the Python clients call it.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::H1 | Self::H1Tls => "h1",
            Self::H2Tls | Self::H2c => "h2",
        }
    }

    /// What curl's `%{http_version}` says of it.
    fn version(self) -> &'static str {
        match self {
            Self::H1 | Self::H1Tls => "1.1",
            Self::H2Tls | Self::H2c => "2",
        }
    }
}

/// A certificate for `localhost`, and who signed it.
fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| Certificate::for_names(&["localhost", "127.0.0.1"]))
}

/// doorward before some part, and who may pass.
pub(super) struct Gateway {
    pub(super) downstream: Downstream,
    pub(super) doorward: Doorward,
    issuer: Issuer,
}

/// What the parts serve. Whoever has `item:view` may use all of it.
const POLICY: &str = "
version: 1
service: oms
upstream: oms
paths:
  /get: { get: item:view }
  /upload: { put: { require: item:view, body: unlimited } }
  /download: { get: item:view }
  /events: { get: item:view }
  /trailers: { post: item:view }
  /parts.Echo/{method}: { post: item:view }
  /api/status: { get: item:view }
  /api/terminals: { get: item:view, post: item:view }
  /terminals/websocket/{name}: { get: item:view }
";

impl Gateway {
    /// doorward, spoken to like this, before the service at `endpoint`.
    pub(super) fn start(downstream: Downstream, endpoint: &str) -> Self {
        Self::start_with(downstream, endpoint, &[])
    }

    pub(super) fn start_with(downstream: Downstream, endpoint: &str, settings: &[(&str, toml::Value)]) -> Self {
        let issuer = Issuer::hs256();
        let mut builder = doorward().policy(POLICY).issuer(&issuer).setting("upstreams.oms.endpoints", vec![endpoint]);
        let made = certificate();
        // The clients are told to trust this file.
        builder = builder.file("tls/authority.pem", made.authority.as_str());
        builder = builder.file("tls/cert.pem", made.cert.as_str()).file("tls/key.pem", made.key.as_str());
        if downstream.has_tls() {
            let mut pair = toml::Table::new();
            pair.insert("cert".into(), "tls/cert.pem".into());
            pair.insert("key".into(), "tls/key.pem".into());
            builder = builder.setting("gateway.tls.certificates", vec![pair]);
        }
        for (key, value) in settings {
            builder = builder.setting(key, value.clone());
        }
        Self { downstream, doorward: builder.start(), issuer }
    }

    /// `http://localhost:8090/…` or `https://…`.
    pub(super) fn url(&self, target: &str) -> String {
        let scheme = if self.downstream.has_tls() { "https" } else { "http" };
        format!("{scheme}://{}{target}", self.authority())
    }

    pub(super) fn authority(&self) -> String {
        format!("localhost:{}", self.doorward.gateway.port())
    }

    /// A token that is permitted everything here.
    pub(super) fn token(&self) -> String {
        self.issuer.viewer()
    }

    /// A good token of a subject that may do nothing.
    pub(super) fn powerless_token(&self) -> String {
        self.issuer.with_roles("u-2", &[])
    }

    /// Whom the client is to trust.
    pub(super) fn authority_file(&self) -> Option<String> {
        let path = self.doorward.path("tls/authority.pem").into_os_string().into_string().unwrap();
        self.downstream.has_tls().then_some(path)
    }

    /// `--ca FILE` where there is TLS.
    pub(super) fn authority_arguments(&self) -> Vec<String> {
        self.authority_file().map_or_else(Vec::new, |file| vec!["--ca".to_owned(), file])
    }

    /// `curl`, about to speak the protocol. On standard error it will say status and version.
    pub(super) fn curl(&self, target: &str, token: Option<&str>) -> Command {
        let mut command = Command::new("curl");
        command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "300"]);
        command.arg(match self.downstream {
            Downstream::H1 | Downstream::H1Tls => "--http1.1",
            Downstream::H2Tls => "--http2",
            Downstream::H2c => "--http2-prior-knowledge",
        });
        if let Some(file) = self.authority_file() {
            command.args(["--cacert", &file]);
        }
        if let Some(token) = token {
            command.arg("--header").arg(format!("Authorization: Bearer {token}"));
        }
        command.args(["--write-out", "%{stderr}%{http_code} %{http_version}"]).arg(self.url(target));
        command
    }

    /// What [`Self::curl`] says after an answer with this status.
    pub(super) fn said(&self, status: u16) -> String {
        format!("{status} {}", self.downstream.version())
    }

    /// Sees that nobody without a permitted token gets further than doorward: `ask` makes the request with the token it
    /// is given and returns the status of the answer.
    pub(super) fn refuses(&self, mut ask: impl FnMut(Option<&str>) -> u16) {
        assert_eq!(ask(None), 401, "without a token");
        assert_eq!(ask(Some(&self.powerless_token())), 403, "with a token that permits nothing");
    }

    /// Resident memory in KiB.
    pub(super) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.doorward.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// The status that curl reports of a request, and that it was spoken as it should.
pub(super) fn status_by_curl(gateway: &Gateway, command: Command) -> u16 {
    let done = run(command);
    let (status, version) = done.stderr.split_once(' ').unwrap_or_else(|| panic!("{done:?}"));
    assert_eq!(version, gateway.downstream.version(), "{done:?}");
    status.parse().unwrap_or_else(|_| panic!("{done:?}"))
}

/// Starts curl with pipes at its ends.
pub(super) fn spawn(mut command: Command) -> std::process::Child {
    use std::process::Stdio;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| missing("curl", &error))
}
