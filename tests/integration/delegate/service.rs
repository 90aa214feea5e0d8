//! A user service that follows a script: it knows tokens and what their bearers may do, counts what it is asked, and can be slow,
//! wrong or silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Behaviour, Builder, Received, Upstream, doorward};

/// What the service knows and how it behaves.
#[derive(Debug, Default)]
struct Knowledge {
    /// `userinfo`, by token.
    bearers: BTreeMap<String, Value>,
    /// Token, service and permission.
    held: BTreeSet<(String, String, String)>,
    delay: Duration,
    /// In place of `delay` where it is asked about permissions.
    delay_of_permissions: Option<Duration>,
    /// Answers to what is asked there wait until the test lets them go.
    kept_back: Option<&'static str>,
    /// How many answers were sent.
    answered: usize,
    /// Sent in place of every answer, byte for byte.
    raw: Option<Vec<u8>>,
    /// Sent in place of answers about permissions.
    raw_permission: Option<Vec<u8>>,
    /// Whether it knows the question about several permissions.
    several: bool,
}

/// A running user service.
#[derive(Debug)]
pub(super) struct UserService {
    upstream: Upstream,
    knowledge: Arc<Mutex<Knowledge>>,
}

impl UserService {
    pub(super) fn start() -> Self {
        let knowledge = Arc::new(Mutex::new(Knowledge { several: true, ..Knowledge::default() }));
        let known = Arc::clone(&knowledge);
        let upstream = Upstream::start(Behaviour::script(move |received, wire| {
            let (delay, answer) = {
                let known = known.lock().unwrap();
                let checks = received.target.ends_with("/auth/check-permission");
                let delay = known.delay_of_permissions.filter(|_| checks).unwrap_or(known.delay);
                (delay, answer(&known, received))
            };
            std::thread::sleep(delay);
            let begun = Instant::now();
            let is_kept = || known.lock().unwrap().kept_back.is_some_and(|target| received.target.ends_with(target));
            while is_kept() && begun.elapsed() < Duration::from_mins(1) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = wire.write(&answer);
            known.lock().unwrap().answered += 1;
        }));
        Self { upstream, knowledge }
    }

    pub(super) fn url(&self) -> String {
        self.upstream.url()
    }

    fn change(&self, change: impl FnOnce(&mut Knowledge)) {
        change(&mut self.knowledge.lock().unwrap());
    }

    /// This token's bearer is described so.
    pub(super) fn knows(&self, token: &str, userinfo: Value) -> &Self {
        self.change(|known| drop(known.bearers.insert(token.to_owned(), userinfo)));
        self
    }

    pub(super) fn forgets(&self, token: &str) {
        self.change(|known| drop(known.bearers.remove(token)));
    }

    /// The bearer holds this permission of `oms`.
    pub(super) fn grants(&self, token: &str, code: &str) -> &Self {
        self.grants_in(token, "oms", code)
    }

    pub(super) fn grants_in(&self, token: &str, service: &str, code: &str) -> &Self {
        self.change(|known| known.held.extend([(token.into(), service.into(), code.into())]));
        self
    }

    pub(super) fn withdraws(&self, token: &str, code: &str) {
        self.change(|known| known.held.retain(|(of, _, held)| of != token || held != code));
    }

    pub(super) fn is_slow(&self, delay: Duration) {
        self.change(|known| known.delay = delay);
    }

    /// As [`Self::is_slow`], of permissions alone.
    pub(super) fn is_slow_about_permissions(&self, delay: Duration) {
        self.change(|known| known.delay_of_permissions = Some(delay));
    }

    /// Keeps answers back to what is asked at this target, until it is told otherwise.
    pub(super) fn keeps_back(&self, target: Option<&'static str>) {
        self.change(|known| known.kept_back = target);
    }

    /// How many answers it has sent.
    pub(super) fn answers(&self) -> usize {
        self.knowledge.lock().unwrap().answered
    }

    /// Whatever it is asked, it sends these bytes; `None`: it is itself again.
    pub(super) fn says(&self, raw: Option<&[u8]>) {
        self.change(|known| known.raw = raw.map(<[u8]>::to_vec));
    }

    /// As [`Self::says`], of permissions alone.
    pub(super) fn says_of_permissions(&self, raw: Option<&[u8]>) {
        self.change(|known| known.raw_permission = raw.map(<[u8]>::to_vec));
    }

    pub(super) fn knows_one_permission_at_a_time(&self) {
        self.change(|known| known.several = false);
    }

    /// How often it was asked who somebody is.
    pub(super) fn userinfos(&self) -> usize {
        self.questions().iter().filter(|question| question.target.ends_with("/auth/userinfo")).count()
    }

    /// What it was asked about permissions.
    pub(super) fn permissions(&self) -> Vec<Value> {
        let about = |question: &&Received| question.target.ends_with("/auth/check-permission");
        let questions = self.questions();
        questions.iter().filter(about).map(|question| serde_json::from_slice(&question.body).unwrap()).collect()
    }

    pub(super) fn questions(&self) -> Vec<Received> {
        self.upstream.requests()
    }

    /// A doorward that asks it, in front of `upstream`. What a test is not about has time for a machine that stands still.
    pub(super) fn asked_by(&self, upstream: &Upstream) -> Builder {
        doorward()
            .upstream(upstream)
            .env("AUTH_MODE", "iam_service")
            .env("IAM_SERVICE_URL", &self.url())
            .setting("auth.iam_service.timeout", "10s")
            .setting("auth.iam_service.connect_timeout", "10s")
            .setting("auth.iam_service.cache", "1m")
    }
}

fn answer(known: &Knowledge, received: &Received) -> Vec<u8> {
    let checks = received.target.ends_with("/auth/check-permission");
    let raw = known.raw.as_ref().or(if checks { known.raw_permission.as_ref() } else { None });
    if let Some(raw) = raw {
        return raw.clone();
    }
    let token = received.field("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let Some(bearer) = known.bearers.get(token) else { return response(401, &json!({"detail": "Not authenticated"})) };
    if !checks {
        assert_eq!((received.method.as_str(), received.target.as_str()), ("GET", "/auth/userinfo"));
        return response(200, bearer);
    }
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/auth/check-permission"));
    let question: Value = serde_json::from_slice(&received.body).unwrap();
    let service = question["service"].as_str().expect("the question names the service");
    let holds = |code: &str| known.held.contains(&(token.into(), service.into(), code.into()));
    if let Some(codes) = question["permissions"].as_array().filter(|_| known.several) {
        let results: serde_json::Map<_, _> = codes
            .iter()
            .map(|code| (code.as_str().unwrap().to_owned(), holds(code.as_str().unwrap()).into()))
            .collect();
        return response(200, &json!({"results": results}));
    }
    match question["permission"].as_str() {
        Some(code) => response(200, &json!({"allowed": holds(code), "permission": code})),
        None => response(422, &json!({"detail": [{"loc": ["body", "permission"], "msg": "field required"}]})),
    }
}

/// An answer as JSON.
pub(super) fn response(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
