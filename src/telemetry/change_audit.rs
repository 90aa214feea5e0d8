//! Audit events of changes: who revoked what, and what came of it (SPEC 8, 9).
//!
//! Unlike denials they are never sampled: who makes them holds a permission or owns the machine.

use std::net::IpAddr;
use std::time::SystemTime;

use super::access_log::{AccessSink, Stamp, decimal, json_optional, json_string, terminal_safe};
use super::tracing::LogFormat;

/// What kind of change it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeEvent {
    /// A token, a session, a subject's tokens, a service's, everybody's, or a key.
    Revoked,
    /// A subject was disabled.
    Disabled,
    /// A subject was enabled again.
    Enabled,
    /// A subject's present roles and memberships were set.
    Overridden,
}

impl ChangeEvent {
    /// The `event_type`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Revoked => "auth.token.revoked",
            Self::Disabled => "auth.subject.disabled",
            Self::Enabled => "auth.subject.enabled",
            Self::Overridden => "auth.subject.overridden",
        }
    }
}

/// What an event tells.
#[derive(Debug, Clone, Copy)]
pub struct ChangeRecord<'a> {
    /// What kind of change it was.
    pub event: ChangeEvent,
    /// When it was asked for.
    pub time: SystemTime,
    /// The id that is also in `X-Request-Id`.
    pub request_id: &'a str,
    /// Who asked: a subject, or `local:UID` for who came over the socket.
    pub actor: Option<&'a str>,
    /// The entry, as JSON: one object without line ends.
    pub entry: &'a str,
    /// The change's number; `None`: nothing was changed.
    pub number: Option<u64>,
    /// `published`, `recorded` (publication is outstanding), `failed`, or `unknown` (the disk does not answer).
    pub outcome: &'a str,
    /// Where the call came from, if over the network.
    pub peer: Option<IpAddr>,
}

impl AccessSink {
    /// Appends the change's line.
    pub fn audit_change(&self, record: &ChangeRecord<'_>) {
        self.append(|format, out, stamp| match format {
            LogFormat::Pretty => pretty_line(out, stamp, record),
            LogFormat::Json | LogFormat::Auto => json_line(out, stamp, record),
        });
    }
}

fn json_line(out: &mut Vec<u8>, stamp: &mut Stamp, record: &ChangeRecord<'_>) {
    out.extend_from_slice(b"{\"type\":\"audit\",\"event_type\":\"");
    out.extend_from_slice(record.event.code().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    stamp.write(out, record.time);
    out.extend_from_slice(b"\",\"request_id\":");
    json_string(out, record.request_id.as_bytes());
    out.extend_from_slice(b",\"actor\":");
    json_optional(out, record.actor.map(str::as_bytes));
    out.extend_from_slice(b",\"entry\":");
    out.extend_from_slice(record.entry.as_bytes());
    out.extend_from_slice(b",\"number\":");
    match record.number {
        Some(number) => decimal(out, number, 1),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"outcome\":");
    json_string(out, record.outcome.as_bytes());
    let peer = record.peer.map(|peer| peer.to_string());
    out.extend_from_slice(b",\"peer\":");
    json_optional(out, peer.as_deref().map(str::as_bytes));
    out.extend_from_slice(b"}\n");
}

fn pretty_line(out: &mut Vec<u8>, stamp: &mut Stamp, record: &ChangeRecord<'_>) {
    stamp.write(out, record.time);
    out.extend_from_slice(b" audit ");
    out.extend_from_slice(record.event.code().as_bytes());
    for (name, value) in [
        (" ", Some(record.outcome)),
        (" actor=", record.actor),
        (" entry=", Some(record.entry)),
        (" request_id=", Some(record.request_id)),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            terminal_safe(out, value.as_bytes());
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_change_is_one_line_that_says_who_did_what() {
        let mut record = ChangeRecord {
            event: ChangeEvent::Revoked,
            time: UNIX_EPOCH + Duration::from_millis(1_782_172_799_042),
            request_id: "0197",
            actor: Some("local:0"),
            entry: r#"{"jti":"a\n"}"#,
            number: Some(7),
            outcome: "published",
            peer: None,
        };
        let mut out = Vec::new();
        json_line(&mut out, &mut Stamp::default(), &record);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["event_type"], &line["actor"]), (&"auth.token.revoked".into(), &"local:0".into()));
        assert_eq!((&line["entry"]["jti"], &line["number"]), (&"a\n".into(), &7.into()));
        record.entry = "{\"jti\":\"\u{1b}\"}";
        let mut out = Vec::new();
        pretty_line(&mut out, &mut Stamp::default(), &record);
        assert!(!out.contains(&0x1b), "an id does not steer the terminal");
    }
}
