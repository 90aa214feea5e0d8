//! The two questions as they go over the wire, and what counts as an answer to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::NoAnswer;
use crate::https::{AskError, read_limited};
use crate::telemetry::{DelegateAnswer, DelegateMetrics, DelegateQuestion};
use crate::token::json::parse_object;

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 256 * 1024;
const TOO_LONG: &str = "it takes too long";
/// How many questions may wait for a place, for each that has one.
const WAITING_FOR_EACH: usize = 64;

/// Whose token a question is about. Anybody can make up tokens, and each is a question of its own: strangers have half of the places and
/// of the room to wait, so that the other half is for those whom the service has vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    /// The service accepted it of late.
    Known,
    /// Nobody knows.
    Stranger,
}

/// The service, as it is spoken to.
pub(super) struct Wire {
    client: reqwest::Client,
    userinfo: String,
    check: String,
    timeout: Duration,
    places: Semaphore,
    /// What strangers have to have before they may wait for one of the places: a half of them.
    strangers: Semaphore,
    /// How many questions may be open or waiting.
    most: usize,
    count: Arc<DelegateMetrics>,
    /// Complaints since the last line of the log that held one; there is at most one in a second.
    complaints: Complaints,
}

/// What became of a question about several permissions.
pub(super) enum Checked {
    /// For each whether it is held, in the order of the question.
    Each(Vec<bool>),
    /// The service does not know such a question.
    Unknown,
    /// It did not answer.
    Failed(NoAnswer),
}

/// Why a question was not answered with a success.
enum Failure {
    Status(StatusCode),
    /// The question was not asked.
    NotAsked,
    Other,
}

impl Wire {
    pub(super) fn new(
        url: &str,
        client: reqwest::Client,
        questions: usize,
        timeout: Duration,
        count: Arc<DelegateMetrics>,
    ) -> Self {
        Self {
            client,
            userinfo: format!("{url}/auth/userinfo"),
            check: format!("{url}/auth/check-permission"),
            timeout,
            places: Semaphore::new(questions),
            strangers: Semaphore::new((questions / 2).max(1)),
            most: questions.saturating_mul(WAITING_FOR_EACH + 1),
            count,
            complaints: Complaints::new(),
        }
    }

    /// What the service says of the bearer, and when it was asked.
    pub(super) async fn userinfo(&self, token: &str, bearer: Bearer) -> (Instant, Result<Bytes, NoAnswer>) {
        let request = || self.client.get(&self.userinfo);
        let (asked, answered) = self.ask(DelegateQuestion::Userinfo, token, bearer, request).await;
        (asked, answered.map_err(|failure| no_answer(&failure)))
    }

    /// Whether the bearer holds one permission.
    pub(super) async fn check(&self, token: &str, service: &str, code: &str) -> (Instant, Result<bool, NoAnswer>) {
        let body = json!({"permission": code, "service": service}).to_string();
        let (asked, answered) = self.post(token, &body).await;
        let held = answered.map_err(|failure| no_answer(&failure)).and_then(|body| {
            one_answer(&body, code).ok_or_else(|| {
                self.complain("an answer about a permission does not say `allowed`");
                NoAnswer::Unavailable
            })
        });
        (asked, held)
    }

    /// Whether the bearer holds each of several permissions.
    pub(super) async fn check_many(&self, token: &str, service: &str, codes: &[&str]) -> (Instant, Checked) {
        let body = json!({"permissions": codes, "service": service}).to_string();
        let (asked, answered) = self.post(token, &body).await;
        let checked = match answered {
            Ok(body) => many_answers(&body, codes).map_or(Checked::Unknown, Checked::Each),
            // What frameworks say of a body that they did not expect.
            Err(Failure::Status(
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_IMPLEMENTED,
            )) => Checked::Unknown,
            Err(failure) => Checked::Failed(no_answer(&failure)),
        };
        (asked, checked)
    }

    /// Says in the log what is wrong with the service, at most once a second.
    pub(super) fn complain(&self, what: &'static str) {
        if let Some(before) = self.complaints.may_speak() {
            tracing::warn!(what, left_out = before, "the user service does not answer as it should");
        }
    }

    async fn post(&self, token: &str, body: &str) -> (Instant, Result<Bytes, Failure>) {
        let request = || self.client.post(&self.check).header(CONTENT_TYPE, "application/json").body(body.to_owned());
        // Permissions are asked about once the service has said who the bearer is.
        self.ask(DelegateQuestion::Permission, token, Bearer::Known, request).await
    }

    /// Asks, when there is a place, and reads a success to its end.
    async fn ask(
        &self,
        question: DelegateQuestion,
        token: &str,
        bearer: Bearer,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> (Instant, Result<Bytes, Failure>) {
        let room = match bearer {
            Bearer::Known => self.most,
            Bearer::Stranger => self.most / 2,
        };
        let Some(_open) = self.count.open(question, room) else {
            self.complain("too many questions wait for it");
            return (Instant::now(), Err(Failure::NotAsked));
        };
        let place = timeout(self.timeout, self.place(bearer)).await;
        let asked = Instant::now();
        let Ok(Some(_place)) = place else {
            self.complain("too many questions wait for it");
            self.count.answered(question, DelegateAnswer::Unavailable, self.timeout);
            return (asked, Err(Failure::NotAsked));
        };
        // A token is letters, digits and a few signs, so this cannot fail; what could would not be sent.
        let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            return (asked, Err(Failure::Other));
        };
        bearer.set_sensitive(true);
        let exchange = async {
            let send = || request().header(ACCEPT, "application/json").header(AUTHORIZATION, bearer.clone()).send();
            let answer = match send().await {
                // A connection that was kept may end at the moment when it is used again. Asking twice changes nothing.
                Err(error) if !error.is_connect() && !error.is_timeout() => send().await,
                answer => answer,
            };
            read(answer).await
        };
        let answered = timeout(self.timeout, exchange).await.unwrap_or(Err((TOO_LONG, Failure::Other)));
        let kind = match &answered {
            Ok(_) => DelegateAnswer::Answered,
            Err((_, Failure::Status(StatusCode::UNAUTHORIZED))) => DelegateAnswer::Rejected,
            Err((what, _)) => {
                self.complain(what);
                DelegateAnswer::Unavailable
            }
        };
        self.count.answered(question, kind, asked.elapsed());
        (asked, answered.map_err(|(_, failure)| failure))
    }

    /// Waits for a place. No more strangers wait for one at a time than may have one, so whoever is known waits behind few of them.
    async fn place(&self, bearer: Bearer) -> Option<(Option<SemaphorePermit<'_>>, SemaphorePermit<'_>)> {
        let stranger = match bearer {
            Bearer::Known => None,
            Bearer::Stranger => Some(self.strangers.acquire().await.ok()?),
        };
        Some((stranger, self.places.acquire().await.ok()?))
    }
}

/// The body of a success.
async fn read(answer: reqwest::Result<reqwest::Response>) -> Result<Bytes, (&'static str, Failure)> {
    let what = |error: AskError| {
        let what = match error {
            AskError::Timeout => TOO_LONG,
            AskError::Connect(_) => "it cannot be reached",
            AskError::Broken(_) => "its answer breaks off",
            AskError::TooLarge(_) => "its answer is too long",
            AskError::Encoded => "its answer is compressed, which was not asked for",
        };
        (what, Failure::Other)
    };
    let answer = answer.map_err(|error| what(error.into()))?;
    if !answer.status().is_success() {
        return Err(("it answers with a status that is no success", Failure::Status(answer.status())));
    }
    read_limited(answer, LONGEST_ANSWER).await.map_err(what)
}

fn no_answer(failure: &Failure) -> NoAnswer {
    match failure {
        Failure::Status(StatusCode::UNAUTHORIZED) => NoAnswer::Rejected,
        Failure::NotAsked => NoAnswer::NotAsked,
        _ => NoAnswer::Unavailable,
    }
}

/// `{"allowed": true}`. Where the permission is named beside it, it is the one that was asked for.
fn one_answer(body: &[u8], code: &str) -> Option<bool> {
    let answer = parse_object(body).ok()?;
    let named = answer.get("permission").is_none_or(|named| named.is_null() || named.as_str() == Some(code));
    answer.get("allowed").filter(|_| named)?.as_bool()
}

/// `{"results": {"a:b": true, …}}`, the same under `permissions`, or a list there of `{"permission": "a:b", "allowed": true}`. Every one
/// that was asked for must be there: one `allowed` for all says nothing of each.
fn many_answers(body: &[u8], codes: &[&str]) -> Option<Vec<bool>> {
    let answer = parse_object(body).ok()?;
    let named = |members: &Map<String, Value>, code: &str| members.get(code)?.as_bool();
    let listed = |items: &[Value], code: &str| {
        let mut of_code = items.iter().filter(|item| item.get("permission").and_then(Value::as_str) == Some(code));
        let (only, more) = (of_code.next()?, of_code.next());
        more.is_none().then(|| only.get("allowed")?.as_bool()).flatten()
    };
    ["results", "permissions"].into_iter().filter_map(|name| answer.get(name)).find_map(|given| {
        codes
            .iter()
            .map(|code| match given {
                Value::Object(members) => named(members, code),
                Value::Array(items) => listed(items, code),
                _ => None,
            })
            .collect()
    })
}

/// Keeps a service that is down from filling the log.
struct Complaints {
    began: Instant,
    /// Milliseconds after `began` from which on the next may be written.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Complaints {
    fn new() -> Self {
        Self { began: Instant::now(), next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// How many were left out since the last, if one may be written now.
    fn may_speak(&self) -> Option<u64> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let spoken =
            now >= next && self.next.compare_exchange(next, now + 1000, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !spoken {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::{many_answers, one_answer};

    #[test]
    fn one_answer_is_a_clear_yes_or_no_about_what_was_asked() {
        for (body, held) in [
            (r#"{"allowed": true}"#, Some(true)),
            (r#"{"allowed": false, "permission": "a:b"}"#, Some(false)),
            (r#"{"allowed": true, "permission": null, "service": "oms"}"#, Some(true)),
            (r#"{"allowed": true, "permission": "a:c"}"#, None),
            (r#"{"allowed": "true"}"#, None),
            (r#"{"allowed": 1}"#, None),
            (r#"{"allowed": true, "allowed": false}"#, None),
            (r#"{"permission": "a:b"}"#, None),
            (r#"{"allowed": true} {"#, None),
            ("true", None),
            ("", None),
        ] {
            assert_eq!(one_answer(body.as_bytes(), "a:b"), held, "{body}");
        }
    }

    #[test]
    fn several_answers_name_each_permission() {
        for (body, held) in [
            (r#"{"results": {"a:b": true, "a:c": false, "x:y": true}}"#, Some(vec![true, false])),
            (r#"{"allowed": false, "permissions": {"a:c": false, "a:b": true}}"#, Some(vec![true, false])),
            (
                r#"{"permissions": [{"permission": "a:c", "allowed": false}, {"permission": "a:b", "allowed": true}]}"#,
                Some(vec![true, false]),
            ),
            (r#"{"permissions": ["a:b", "a:c"], "results": {"a:b": true, "a:c": true}}"#, Some(vec![true, true])),
            (r#"{"allowed": true}"#, None),
            (r#"{"allowed": true, "permissions": ["a:b", "a:c"]}"#, None),
            (r#"{"results": {"a:b": true}}"#, None),
            (r#"{"results": {"a:b": true, "a:c": "yes"}}"#, None),
            (r#"{"results": {"a:b": true, "a:c": true, "a:c": false}}"#, None),
            (r#"{"results": [{"permission": "a:b", "allowed": true}, {"permission": "a:b", "allowed": false}]}"#, None),
        ] {
            assert_eq!(many_answers(body.as_bytes(), &["a:b", "a:c"]), held, "{body}");
        }
    }
}
