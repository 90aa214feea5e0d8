//! `GET /api/decisions/{request_id}`: what became of a request and why, from the ring of recent decisions (SPEC 3.7).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp as Moment;
use serde_json::{Value, json};

use super::guard::Authority;
use super::problem;
use super::router::AdminState;
use crate::admission::Identity;
use crate::admission::decisions::{Decided, Origin, Words};
use crate::clock::Timestamp;
use crate::policy::explain::{Ask, Explanation, Mend, Node, Who, explain};
use crate::rbac::table::ADMIN_SERVICE;
use crate::reason::Reason;
use crate::request::Host;

/// Explains the decision about one request: as JSON, or as text where `Accept` begins with `text/plain`. Who does not hold
/// `decision:view` for the service that was asked for is told no more than of a request that never was (T30).
pub(super) async fn one(
    State(state): State<Arc<AdminState>>,
    Extension(authority): Extension<Authority>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = state.decisions.find(request_id.as_bytes()).map(|decided| {
        let words = decided.origin.as_ref().map(Origin::words);
        (decided, words)
    });
    let visible = found.filter(|(_, words)| {
        let service = words.as_ref().and_then(|words| words.service.as_deref());
        authority.covers(service.unwrap_or(ADMIN_SERVICE))
    });
    let Some((decided, words)) = visible else {
        return problem::of_call(
            StatusCode::NOT_FOUND,
            "not_found",
            "no decision of this id is remembered: all recent denials are, and a sample of the rest ([admin.decisions])",
            None,
        );
    };
    let explanation = explained(&decided);
    let text = headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"));
    if text {
        let body = to_text(&decided, words.as_ref(), explanation.as_ref());
        return ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response();
    }
    let body = to_json(&decided, words.as_ref(), explanation.as_ref()).to_string();
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The decision once more, by the snapshot that made it, with a witness.
fn explained(decided: &Decided) -> Option<Explanation> {
    let Some(Origin::Snapshot(snapshot, ..)) = &decided.origin else { return None };
    let who = match &decided.identity {
        None => Who::Anonymous,
        Some(identity) => Who::Subject {
            subject: identity.subject(),
            roles: identity.grants().roles(),
            memberships: identity.grants().memberships(),
        },
    };
    let ask = Ask {
        method: decided.method.as_ref()?.as_str(),
        target: &decided.path,
        host: decided.host.as_ref(),
        client: decided.client,
        who,
        now: Timestamp::of(decided.time),
    };
    Some(explain(snapshot, &ask))
}

/// What would have to change. A requirement that is met is not what was in the way.
fn needed(decided: &Decided, explanation: Option<&Explanation>) -> Option<Vec<String>> {
    let reason = decided.reason.or(decided.would_deny)?;
    if reason.status() == 401 {
        return Some(vec!["a valid token".to_owned()]);
    }
    match (reason, explanation?.mend.as_ref()?) {
        (Reason::PermissionMissing, Mend::Grant(parts)) => Some(parts.clone()),
        _ => None,
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Whole microseconds, so that the number is short.
    duration.as_micros() as f64 / 1e3
}

fn time_of(decided: &Decided) -> String {
    let moment = Moment::try_from(decided.time).unwrap_or(Moment::UNIX_EPOCH);
    format!("{moment:.3}")
}

fn to_json(decided: &Decided, words: Option<&Words>, explanation: Option<&Explanation>) -> Value {
    let identity = decided.identity.as_deref();
    let route = words.and_then(|words| words.route.as_ref());
    let file = words.and_then(|words| words.file.as_ref());
    let grants = identity.map(Identity::grants);
    let texts = |texts: Vec<String>| json!(texts);
    json!({
        "request_id": String::from_utf8_lossy(decided.request_id.as_bytes()),
        "time": time_of(decided),
        "decision": if decided.denied { "deny" } else { "allow" },
        "reason": decided.reason.map(Reason::code),
        "would_deny": decided.would_deny.map(Reason::code),
        "status": decided.status,
        "detail": decided.detail,
        "method": decided.method.as_ref().map(Method::as_str),
        "path": &*decided.path,
        "host": decided.host.as_ref().map(Host::as_str),
        "client": decided.client,
        "subject": identity.map(Identity::subject),
        "roles": grants.map(|held| texts(held.roles().iter().map(ToString::to_string).collect())),
        "memberships": grants.map(|held| {
            texts(held.memberships().iter().map(|held| format!("{}={}", held.service, held.tier)).collect())
        }),
        "service": words.and_then(|words| words.service.as_deref()),
        "route": route.map(|route| &*route.pattern),
        "route_method": route.map(|route| &*route.method),
        "requirement": route.map(|route| &*route.requirement),
        "file": file.map(|(file, _)| &**file),
        "line": route.map(|route| route.line),
        "sha256": file.map(|(_, sha256)| &**sha256),
        "snapshot": words.map(|words| words.version),
        "tree": explanation.and_then(|explanation| explanation.tree.as_ref()).map(Node::to_json),
        "would_need": needed(decided, explanation),
        "upstream": decided.upstream.as_ref().map(|upstream| json!({
            "name": upstream.name.as_deref(),
            "answered": upstream.answered.is_some(),
            "status": upstream.answered.map(|_| decided.status),
            "duration_ms": upstream.answered.map(milliseconds),
        })),
        "duration_ms": milliseconds(decided.duration),
    })
}

fn to_text(decided: &Decided, words: Option<&Words>, explanation: Option<&Explanation>) -> String {
    let mut text = String::new();
    let verdict = match (decided.denied, decided.reason, decided.would_deny) {
        (true, Some(reason), _) => format!("DENY   {reason} ({})", decided.status),
        (_, Some(reason), _) => format!("ALLOW  broken off: {reason}"),
        (_, None, Some(reason)) => format!("ALLOW  report mode only, else {reason}"),
        _ => format!("ALLOW  ({})", decided.status),
    };
    let method = decided.method.as_ref().map_or("-", |method| method.as_str());
    let _ = writeln!(text, "{verdict}  {method} {}", decided.path);
    let _ = writeln!(text, "at     {}, {} ms", time_of(decided), milliseconds(decided.duration));
    let _ = writeln!(text, "from   {}", decided.client);
    match decided.identity.as_deref() {
        Some(identity) => {
            let roles: Vec<String> = identity.grants().roles().iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "by     {} {}", identity.subject(), roles.join(" "));
        }
        None => text.push_str("by     nobody known\n"),
    }
    match words.and_then(|words| words.route.as_ref()) {
        Some(route) => {
            let _ = writeln!(text, "route  {} {} (line {})", route.method, route.pattern, route.line);
        }
        None => text.push_str("route  none\n"),
    }
    if let Some(words) = words {
        if let Some(service) = &words.service {
            let _ = writeln!(text, "of     service {service}, snapshot {}", words.version);
        }
        if let Some((file, sha256)) = &words.file {
            let _ = writeln!(text, "file   {file} sha256 {sha256}");
        }
    }
    if !decided.detail.is_empty() {
        let _ = writeln!(text, "detail {}", decided.detail);
    }
    if let Some(upstream) = &decided.upstream {
        let name = upstream.name.as_deref().unwrap_or("unknown");
        let _ = match upstream.answered {
            Some(took) => {
                writeln!(text, "asked  {name}, which answered {} in {} ms", decided.status, milliseconds(took))
            }
            None => writeln!(text, "asked  {name}, which did not answer"),
        };
    }
    if let Some(tree) = explanation.and_then(|explanation| explanation.tree.as_ref()) {
        text.push_str("needs\n");
        tree.write(&mut text, 1);
    } else if matches!(decided.origin, Some(Origin::Words(_))) {
        text.push_str("the policy changed several times since, so the requirement is not taken apart any more\n");
    }
    if let Some(parts) = needed(decided, explanation) {
        let _ = writeln!(text, "to be allowed: {}", parts.join(" and "));
    }
    text
}
