//! `POST /api/revocations`: shut out a token, a session, a subject or a key, everywhere and at once (SPEC 8); and, on the control
//! socket alone, `POST /api/overrides`.
//!
//! 200 says that it is on disk and published, 202 that it is on disk and will be published, 503 that nothing was changed. An answer
//! never comes before the disk has it (T16). Repeating a call is harmless.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::asked::{self, Asked, Door, Known, NotAsked};
use super::inspected::Change;
use super::problem;
use crate::admission::{Admission, Identity};
use crate::clock::Timestamp;
use crate::ledger::{Ledger, LedgerError, Receipt};
use crate::revocation::{Entry, Freshness, RevocationIndex};
use crate::token::TokenCache;

/// How long the disk may take, and other processes that write to the same folder.
const DISK: Duration = Duration::from_secs(10);

/// Said with a 202 that may stay one.
const BLOCKED: &str = "another process publishes another truth, or another copy of this folder, in this Redis, and nothing from here is \
                       published while it does; the log says which and what to do";

/// What calls that change something work on, whichever door they come through.
pub struct Hands {
    /// The truth; without it this process follows, and nothing can be changed here.
    pub ledger: Option<Arc<Ledger>>,
    /// What it is applied to.
    pub index: Arc<RevocationIndex>,
    /// How fresh that is.
    pub freshness: Arc<Freshness>,
    /// The issuers and their keys: for tokens that are pasted.
    pub tokens: Arc<TokenCache<Identity>>,
    /// The names of all configured issuers.
    pub issuers: Vec<String>,
    /// The roles in force are those of its snapshot.
    pub roles: Arc<Admission>,
    /// Whose turn it is to have the whole truth searched.
    pub inquiries: Arc<Semaphore>,
}

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Actor {
    /// Somebody with a token; nobody, where the policy asks for none.
    Subject(Option<Box<str>>),
    /// Somebody on this machine with this user id.
    Local(u32),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => f.write_str(subject.as_deref().unwrap_or("anonymous")),
            Self::Local(uid) => write!(f, "local:{uid}"),
        }
    }
}

/// Takes one entry, in the form that a line of the revocation file has, or a token. What says no time is about all that was issued
/// until now.
pub(super) async fn create(
    State(hands): State<Arc<Hands>>,
    Extension(actor): Extension<Actor>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    hands.take(&actor, body, Door::Revocations).await
}

/// Takes what a subject holds from now on: `{"override": "alice", "roles": ["ROLE_USER"], "memberships": {"oms": "FREE"}}`.
pub(super) async fn set_override(
    State(hands): State<Arc<Hands>>,
    Extension(actor): Extension<Actor>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    hands.take(&actor, body, Door::Overrides).await
}

/// How the truth stands: for `doorward status`.
pub(super) async fn status(State(hands): State<Arc<Hands>>) -> Response {
    let (now, held) = (Timestamp::now(), hands.index.counts());
    let (number, published) = match &hands.ledger {
        Some(ledger) => (Some(ledger.last()), ledger.wait_published(ledger.last(), Duration::ZERO).await),
        None => (None, true),
    };
    answer(
        StatusCode::OK,
        &json!({
            "follows": hands.ledger.is_none(),
            "number": number,
            "published": published,
            "revocations": held.revocations(),
            "overrides": held.overrides,
            "loaded": hands.freshness.is_loaded(),
            "staleness_seconds": hands.freshness.staleness(now).map(|age| age.as_secs_f64()),
        }),
    )
}

impl Hands {
    async fn take(&self, actor: &Actor, body: Result<Bytes, BytesRejection>, door: Door) -> Response {
        let body = match body {
            Ok(body) => body,
            Err(rejection) => return unread(&rejection),
        };
        match self.read(&body, door) {
            Ok(asked) => self.carry_out(actor, asked).await,
            Err(NotAsked { detail, pointer }) => {
                problem::of_call(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", &detail, Some(pointer))
            }
        }
    }

    fn read(&self, body: &[u8], door: Door) -> Result<Asked, NotAsked> {
        let (snapshot, verifier) = (self.roles.snapshot(), self.tokens.verifier());
        let known =
            Known { verifier: &verifier, issuers: &self.issuers, roles: snapshot.roles(), now: Timestamp::now() };
        asked::read(body, door, &known)
    }

    /// On disk and published, or on disk, or neither.
    async fn record(&self, entry: Entry) -> Result<Receipt, LedgerError> {
        let ledger = self.ledger.as_ref().ok_or(LedgerError::ReadOnly)?;
        let (before, entry) = asked::steps(entry);
        if let Some(before) = before {
            ledger.recorded(before).await?;
        }
        ledger.revoke(entry).await
    }

    async fn carry_out(&self, actor: &Actor, Asked { entry, by_token }: Asked) -> Response {
        let said = serde_json::to_string(&entry).unwrap_or_default();
        let event = asked::event_of(&entry);
        let change = |number, outcome| Change {
            event,
            actor: Some(actor.to_string().into()),
            entry: said.as_str().into(),
            number,
            outcome,
        };
        let (mut response, change) = match timeout(DISK, self.record(entry)).await {
            Ok(Ok(Receipt { number, propagated })) => {
                tracing::info!(%actor, entry = said, number, propagated, "changed");
                let status = if propagated { StatusCode::OK } else { StatusCode::ACCEPTED };
                let outcome = if propagated { "published" } else { "recorded" };
                let mut body = json!({ "propagated": propagated, "number": number });
                if !propagated && self.ledger.as_ref().is_some_and(|ledger| ledger.is_blocked()) {
                    body["detail"] = BLOCKED.into();
                }
                if by_token {
                    // Who gave a token is told by which id it is revoked.
                    body["entry"] = serde_json::from_str(&said).unwrap_or_default();
                }
                (answer(status, &body), change(Some(number), outcome))
            }
            Ok(Err(error)) => {
                tracing::error!(%actor, entry = said, %error, "nothing was changed");
                (not_recorded(&error), change(None, "failed"))
            }
            Err(_) => {
                tracing::error!(%actor, entry = said, "the disk does not take a change");
                (unanswered(), change(None, "unknown"))
            }
        };
        response.extensions_mut().insert(change);
        response
    }
}

/// Whoever holds the folder's lock has stopped, or the disk has.
fn unanswered() -> Response {
    let seconds = DISK.as_secs();
    let detail =
        format!("the disk did not take it within {seconds} s: it may count later, or never; asking again is harmless");
    problem::of_call(StatusCode::SERVICE_UNAVAILABLE, "not_answered", &detail, None)
}

/// Nothing was changed, and why.
fn not_recorded(error: &LedgerError) -> Response {
    let (code, detail) = match error {
        LedgerError::ReadOnly => (
            "follower",
            "nothing was changed: this process only follows ([publication] public_keys without key_file); ask the control plane"
                .to_owned(),
        ),
        error => ("not_recorded", format!("nothing was changed: {error}")),
    };
    problem::of_call(StatusCode::SERVICE_UNAVAILABLE, code, &detail, None)
}

fn unread(rejection: &BytesRejection) -> Response {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            problem::of_call(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "a call's body is at most 1 MiB", None)
        }
        _ => problem::of_call(StatusCode::BAD_REQUEST, "bad_request", "the body broke off or is malformed", None),
    }
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
