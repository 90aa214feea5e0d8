//! `GET /api/revocations?jti=…`: what is known against a token, a session, a subject or a key, since when, and by which change.
//!
//! The standing is the index's, which decides; the changes are read from the truth, so that only a process that has it can tell them.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use jiff::Timestamp as Moment;
use serde::Serialize;
use serde_json::json;

use super::asked::{NotAsked, check_issuer};
use super::problem;
use super::revocations::{Hands, answer};
use crate::clock::Timestamp;
use crate::ledger::{Ledger, LedgerError};
use crate::revocation::{Entry, FloorOf, Presented, Record, RevocationIndex, Standing};

/// The newest so many changes are told.
const MOST: usize = 100;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    kind: Kind,
    id: String,
    issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Token,
    Session,
    Subject,
    Key,
}

/// One change that answers it.
#[derive(Debug, Serialize)]
struct Found {
    number: u64,
    at: String,
    entry: Entry,
}

/// Tells how it stands, and the changes behind that, the newest first; `null` where this process does not have the truth.
pub(super) async fn find(State(hands): State<Arc<Hands>>, uri: Uri) -> Response {
    let question = match Question::read(uri.query().unwrap_or_default()) {
        Ok(question) => question,
        Err(detail) => return problem::of_call(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", detail, None),
    };
    // "good" of an issuer that does not exist would be a slip of the keyboard taken for an answer.
    let known = question.issuer.as_deref().map_or(Ok(()), |name| check_issuer(name, &hands.issuers));
    if let Err(NotAsked { detail, pointer }) = known {
        return problem::of_call(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", &detail, Some(pointer));
    }
    let standing = question.standing(&hands.index, &hands.issuers, Timestamp::now());
    let standing = match standing {
        Standing::Good => "good",
        Standing::Revoked => "revoked",
        Standing::Disabled => "disabled",
    };
    let Some(ledger) = hands.ledger.clone() else {
        return answer(StatusCode::OK, &json!({ "standing": standing, "changes": null }));
    };
    // A whole truth is read for it, one at a time, and beside everything else.
    let Ok(turn) = Arc::clone(&hands.inquiries).acquire_owned().await else {
        return problem::of_call(StatusCode::SERVICE_UNAVAILABLE, "stopping", "doorward is stopping", None);
    };
    let looked = tokio::task::spawn_blocking(move || {
        let found = question.look(&ledger);
        // Not before: a caller who goes away does not make room for another.
        drop(turn);
        found
    });
    match looked.await {
        Ok(Ok(changes)) => answer(StatusCode::OK, &json!({ "standing": standing, "changes": changes })),
        Ok(Err(error)) => unreadable(&error),
        Err(error) => unreadable(&error),
    }
}

fn unreadable(error: &dyn fmt::Display) -> Response {
    tracing::error!(%error, "the revocation folder cannot be searched");
    problem::of_call(StatusCode::SERVICE_UNAVAILABLE, "not_readable", &error.to_string(), None)
}

impl Question {
    fn read(query: &str) -> Result<Self, &'static str> {
        const USE: &str =
            "ask by exactly one of `jti`, `session`, `subject` and `key`; `issuer` may go with `jti` and `key`";
        let (mut asked, mut issuer) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(USE)?;
            let value = decode(value).ok_or("a value is no UTF-8, or holds an escape that is none")?;
            let kind = match name {
                "jti" => Kind::Token,
                "session" => Kind::Session,
                "subject" => Kind::Subject,
                "key" => Kind::Key,
                "issuer" if issuer.is_none() => {
                    issuer = Some(value);
                    continue;
                }
                _ => return Err(USE),
            };
            if asked.replace((kind, value)).is_some() {
                return Err(USE);
            }
        }
        let (kind, id) = asked.filter(|(_, id)| !id.is_empty()).ok_or(USE)?;
        if issuer.is_some() && !matches!(kind, Kind::Token | Kind::Key) {
            return Err(USE);
        }
        Ok(Self { kind, id, issuer })
    }

    /// How it stands by itself: whatever else may be wrong with a token that carries it.
    fn standing(&self, index: &RevocationIndex, issuers: &[String], now: Timestamp) -> Standing {
        let of = |kind| (self.kind == kind).then_some(&*self.id);
        let of_issuer = |issuer: &str| {
            // No floor is above the newest token, and all are above the oldest.
            let newest = self.kind != Kind::Subject;
            let presented = Presented {
                issuer,
                subject: of(Kind::Subject).unwrap_or_default(),
                token_id: of(Kind::Token),
                session: of(Kind::Session),
                key_id: of(Kind::Key),
                service: "",
                uv: Some(if newest { u64::MAX } else { 0 }),
                issued_at: if newest { now.plus(1 << 40) } else { Timestamp(0) },
                leeway: 0,
            };
            index.standing(&presented, now)
        };
        let mut names =
            issuers.iter().map(String::as_str).filter(|name| self.issuer.as_deref().is_none_or(|asked| asked == *name));
        names.by_ref().map(of_issuer).find(|standing| *standing != Standing::Good).unwrap_or_else(|| of_issuer(""))
    }

    /// Everything in the truth that is about it.
    fn look(&self, ledger: &Ledger) -> Result<Vec<Found>, LedgerError> {
        let Some(state) = ledger.state() else { return Ok(Vec::new()) };
        let newest = state.changes.iter().rev().map(|recorded| &recorded.change);
        let mut found: Vec<Found> = newest
            .filter(|change| self.is_about(&change.entry))
            .take(MOST)
            .map(|change| Found::of(change.n, change.at, change.entry.clone()))
            .collect();
        // Most lines are told apart by their bytes, without reading them.
        let quoted = serde_json::to_string(&self.id).unwrap_or_default();
        let finder = memchr::memmem::Finder::new(&quoted);
        for segment in state.manifest.segments.iter().rev() {
            if found.len() >= MOST {
                break;
            }
            let bytes = ledger.segment(&segment.sha256)?;
            let lines = bytes.split(|byte| *byte == b'\n').rev().filter(|line| finder.find(line).is_some());
            let records = lines.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
            let about = records.filter(|record| self.is_about(&record.entry));
            found.extend(about.take(MOST - found.len()).map(|record| Found::of(record.n, record.at, record.entry)));
        }
        found.sort_by_key(|found| std::cmp::Reverse(found.number));
        Ok(found)
    }

    fn is_about(&self, entry: &Entry) -> bool {
        let named = |name: &Option<Box<str>>| match (name.as_deref(), self.issuer.as_deref()) {
            (Some(name), Some(asked)) => name == asked,
            _ => true,
        };
        match (self.kind, entry) {
            (Kind::Token, Entry::Token { id, issuer, .. }) | (Kind::Key, Entry::Key { id, issuer }) => {
                **id == *self.id && named(issuer)
            }
            (Kind::Session, Entry::Session { id, .. } | Entry::Floor { of: FloorOf::Session(id), .. })
            | (
                Kind::Subject,
                Entry::Floor { of: FloorOf::Subject(id), .. } | Entry::Disabled { id } | Entry::Enabled { id },
            ) => **id == *self.id,
            (Kind::Subject, Entry::Override(held)) => *held.subject == *self.id,
            _ => false,
        }
    }
}

impl Found {
    fn of(number: u64, at: u64, entry: Entry) -> Self {
        let at = i64::try_from(at).ok().and_then(|at| Moment::from_millisecond(at).ok()).unwrap_or(Moment::UNIX_EPOCH);
        Self { number, at: format!("{at:.3}"), entry }
    }
}

/// Percent-decoding (RFC 3986 section 2.1); a `+` stays one.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::revocation::{Arrival, Retention};

    const NOW: Timestamp = Timestamp(1_790_000_000);

    fn standing(query: &str, entries: &[&str]) -> Standing {
        let index = RevocationIndex::default();
        let hour = std::time::Duration::from_hours(1);
        for (number, entry) in entries.iter().enumerate() {
            let arrival = Arrival { number: Some(number as u64 + 1), taken: NOW, now: NOW };
            index.apply(&serde_json::from_str(entry).unwrap(), arrival, Retention::new(hour, hour));
        }
        Question::read(query).unwrap().standing(&index, &["own".to_owned(), "kc".to_owned()], NOW)
    }

    #[test]
    fn the_standing_is_about_what_is_asked_and_nothing_else() {
        let token = r#"{"jti": "a", "issuer": "kc"}"#;
        assert_eq!(standing("jti=a", &[token]), Standing::Revoked);
        assert_eq!(standing("jti=a&issuer=kc", &[token]), Standing::Revoked);
        assert_eq!(standing("jti=a&issuer=own", &[token]), Standing::Good);
        assert_eq!(standing("jti=b", &[token, r#"{"everything": true}"#]), Standing::Good, "not by this id");
        assert_eq!(standing("session=s%2F1", &[r#"{"session": "s/1"}"#]), Standing::Revoked);
        assert_eq!(standing("subject=kc:a", &[r#"{"subject": "kc:a"}"#]), Standing::Revoked);
        assert_eq!(standing("subject=a", &[r#"{"disabled": "a"}"#]), Standing::Disabled);
        assert_eq!(standing("subject=a", &[r#"{"disabled": "a"}"#, r#"{"enabled": "a"}"#]), Standing::Good);
        assert_eq!(standing("key=k", &[r#"{"key": "k"}"#]), Standing::Revoked);
    }

    #[test]
    fn a_question_is_one_question() {
        for bad in
            ["", "jti", "jti=", "jti=a&session=b", "jti=a&jti=b", "subject=a&issuer=b", "id=a", "jti=%4", "jti=%ff"]
        {
            assert!(Question::read(bad).is_err(), "{bad}");
        }
        assert_eq!(Question::read("key=a%20b%2Bc+d").unwrap().id, "a b+c+d");
    }
}
