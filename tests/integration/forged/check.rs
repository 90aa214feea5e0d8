//! One case, and the one function that holds all of them against a gateway.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::forge::{CANARY, MALLORY};
use super::set_ups::SetUp;
use crate::harness::{Connection, Doorward, Response, eventually};

/// A request that must not pass.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) carried: Carried,
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

/// How the token comes.
#[derive(Debug, Clone)]
pub(super) enum Carried {
    /// `Authorization: Bearer ` and these bytes, to a guarded route.
    Bearer(Vec<u8>),
    /// A whole request, and the tokens in it.
    Request { bytes: Vec<u8>, tokens: Vec<String> },
}

/// Cases in the making.
#[derive(Debug, Default)]
pub(super) struct Cases(pub(super) Vec<Case>);

impl Cases {
    /// A bearer token that is refused for this reason.
    pub(super) fn bearer(&mut self, name: impl Display, token: impl AsRef<[u8]>, reason: &'static str) {
        let carried = Carried::Bearer(token.as_ref().to_vec());
        self.0.push(Case { name: name.to_string(), carried, status: 401, reason });
    }

    /// A malformed one.
    pub(super) fn malformed(&mut self, name: impl Display, token: impl AsRef<[u8]>) {
        self.bearer(name, token, "malformed_token");
    }

    /// A bearer token whose bytes HTTP itself does not carry.
    pub(super) fn not_http(&mut self, name: impl Display, token: impl AsRef<[u8]>) {
        self.bearer(name, token, "bad_request");
        self.0.last_mut().unwrap().status = 400;
    }

    /// A request with these header lines.
    pub(super) fn request(
        &mut self,
        name: impl Display,
        target: &str,
        lines: &str,
        token: &str,
        (status, reason): (u16, &'static str),
    ) {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: oms.test\r\n{lines}\r\n").into_bytes();
        let carried = Carried::Request { bytes, tokens: vec![token.to_owned()] };
        self.0.push(Case { name: name.to_string(), carried, status, reason });
    }
}

/// How many bytes in a row give a text away; fewer can stand in a log by accident.
const TELLING: usize = 14;

impl Case {
    fn bytes(&self, target: &str, host: &str) -> Vec<u8> {
        match &self.carried {
            Carried::Bearer(token) => {
                let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer ");
                [head.as_bytes(), token, b"\r\n\r\n"].concat()
            }
            Carried::Request { bytes, .. } => bytes.clone(),
        }
    }

    /// What of it no output may show: each part of each token.
    fn secrets(&self) -> impl Iterator<Item = String> {
        let tokens = match &self.carried {
            Carried::Bearer(token) => vec![String::from_utf8_lossy(token).into_owned()],
            Carried::Request { tokens, .. } => tokens.clone(),
        };
        let parts: Vec<String> =
            tokens.iter().flat_map(|token| token.split(['.', ' ', ',', '"'])).map(str::to_owned).collect();
        parts.into_iter()
    }
}

/// How much is asked of every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The gateway alone.
    Gateway,
    /// Also the admin listener, a public route, and what the admin listener tells of the decision.
    Everywhere,
}

/// Sends every case to the gateway; fails with the list of those that were not refused as they should be, whose token was
/// told, or of which the upstream heard.
pub(super) fn check(set_up: &SetUp, cases: &[Case], depth: Depth) {
    let SetUp { running, upstream, .. } = set_up;
    let heard = upstream.count();
    let mut wrong = Vec::new();
    let mut refused = Vec::new();
    let (mut gateway, mut admin) = (Line::to(running.gateway), Line::to(running.admin));
    for case in cases {
        let Some(response) = gateway.exchange(&case.bytes("/items", "oms.test")) else {
            wrong.push(format!("{}: closed without an answer", case.name));
            continue;
        };
        if let Err(why) = is_refusal(case, &response, "oms") {
            wrong.push(format!("{}: {why}", case.name));
        }
        refused.extend(response.field("x-request-id").map(|id| (id.to_owned(), case)));
        if depth == Depth::Everywhere && matches!(case.carried, Carried::Bearer(_)) {
            let host = running.admin.to_string();
            let target = "/api/decisions/00000000-0000-7000-8000-000000000000";
            let why = match admin.exchange(&case.bytes(target, &host)) {
                Some(response) => is_refusal(case, &response, "doorward").err(),
                None => Some("closed without an answer".into()),
            };
            wrong.extend(why.map(|why| format!("{} (admin listener): {why}", case.name)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), cases.len());
    assert_eq!(upstream.count(), heard, "the upstream heard of a refused token");

    let mut outputs = vec![running.metrics()];
    if depth == Depth::Everywhere {
        outputs.push(told(set_up, &refused));
        outputs.push(set_up.public(cases));
    }
    if let Some((last, _)) = refused.last() {
        running.access_line(last);
    }
    counted(running, &refused);
    outputs.extend([running.stdout(), running.stderr()]);
    let leaked = leaked(set_up, cases, &outputs.join("\n"));
    assert!(leaked.is_empty(), "told what belongs in no output: {leaked:#?}");
}

/// A connection that is kept for as long as the other side keeps it.
struct Line {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Line {
    fn to(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    fn exchange(&mut self, request: &[u8]) -> Option<Response> {
        let kept = self.connection.take();
        let was_kept = kept.is_some();
        let mut connection = kept.unwrap_or_else(|| Connection::open(self.address));
        let response = match connection.send(request).try_response("GET") {
            Ok(response) => response,
            // It may have been closed behind the last answer.
            Err(_) if was_kept => {
                connection = Connection::open(self.address);
                connection.send(request).try_response("GET").ok()?
            }
            Err(_) => return None,
        };
        self.connection = (response.field("connection") != Some("close")).then_some(connection);
        Some(response)
    }
}

/// The lines of the output that show part of a token, of a key, or of whom and what a refused token spoke.
fn leaked(set_up: &SetUp, cases: &[Case], output: &str) -> Vec<String> {
    let known = [MALLORY.to_owned(), CANARY.to_owned()].into_iter().chain(set_up.secrets());
    let secrets: Vec<String> = cases.iter().flat_map(Case::secrets).chain(known).collect();
    let ends = secrets.iter().map(String::as_bytes).filter(|secret| secret.len() >= TELLING).flat_map(|secret| {
        let middle = (secret.len() - TELLING) / 2;
        [&secret[..TELLING], &secret[middle..middle + TELLING], &secret[secret.len() - TELLING..]]
    });
    let telling: HashSet<&[u8]> = ends.collect();
    let tells = |line: &&str| line.as_bytes().windows(TELLING).any(|piece| telling.contains(piece));
    output.lines().filter(tells).take(10).map(str::to_owned).collect()
}

fn is_refusal(case: &Case, response: &Response, service: &str) -> Result<(), String> {
    let problem: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let reason = problem["reason"].as_str().unwrap_or_default().to_owned();
    if (response.status, reason.as_str()) != (case.status, case.reason) {
        let detail = &problem["detail"];
        return Err(format!("{} {reason} ({detail}) instead of {} {}", response.status, case.status, case.reason));
    }
    let expected = format!("deny; reason={}", case.reason);
    if response.field("doorward-decision") != Some(&expected) {
        return Err(format!("Doorward-Decision is {:?}", response.field("doorward-decision")));
    }
    let challenge = match (case.status, case.reason) {
        (401, "missing_token") => Some(format!("Bearer realm=\"{service}\"")),
        (401, _) => Some(format!("Bearer realm=\"{service}\", error=\"invalid_token\"")),
        _ => None,
    };
    if response.field("www-authenticate") != challenge.as_deref() {
        return Err(format!("WWW-Authenticate is {:?}", response.field("www-authenticate")));
    }
    if response.field("cache-control") != Some("no-store") {
        return Err(format!("Cache-Control is {:?}", response.field("cache-control")));
    }
    Ok(())
}

/// What the admin listener and the access log tell of the refused requests.
fn told(set_up: &SetUp, refused: &[(String, &Case)]) -> String {
    let running = &set_up.running;
    let auditor = set_up.auditor();
    let mut all = String::new();
    let mut connection = Connection::open(running.admin);
    for (id, case) in refused {
        let answer = eventually("the decision is remembered", Duration::from_secs(20), || {
            let request = format!(
                "GET /api/decisions/{id} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {auditor}\r\n\r\n",
                running.admin
            );
            let answer = connection.send(request).response();
            (answer.status == 200).then_some(answer)
        });
        assert_eq!(answer.json()["reason"], case.reason, "{}: {}", case.name, answer.text());
        all += &answer.text();
        all.push('\n');
    }
    all
}

/// Every refusal is counted under its reason.
fn counted(running: &Doorward, refused: &[(String, &Case)]) {
    for reason in ["malformed_token", "bad_signature", "alg_not_allowed", "unknown_key", "wrong_issuer", "expired"] {
        let sent = refused.iter().filter(|(_, case)| case.reason == reason).count();
        let counted = running.metric("doorward_auth_failures_total", &[&format!("reason=\"{reason}\"")]);
        assert!(counted >= sent as f64, "{counted} of {sent} refusals for {reason} are counted");
    }
}

impl SetUp {
    /// Sends every bearer token to a public route, which serves anybody: the upstream hears of the request there, and of
    /// neither the token nor an identity. Returns all that it heard.
    fn public(&self, cases: &[Case]) -> String {
        let bearers = cases.iter().filter(|case| matches!(case.carried, Carried::Bearer(_)) && case.status == 401);
        let mut heard = String::new();
        let mut line = Line::to(self.running.gateway);
        for case in bearers {
            let response = line.exchange(&case.bytes("/public", "oms.test")).expect("a response");
            assert_eq!(response.status, 200, "{} on a public route: {response:?}", case.name);
            let seen = self.upstream.last();
            for field in ["x-user-id", "x-user-roles", "x-auth-method", "authorization"] {
                assert_eq!(seen.field(field), None, "{} on a public route: {}", case.name, seen.text());
            }
            heard += &seen.text();
        }
        heard
    }
}
