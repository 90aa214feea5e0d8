//! One revocation as it is written down: a JSON object, one a line in a file.
//!
//! ```json
//! {"jti": "0193…", "issuer": "keycloak", "expires_at": 1790000000}
//! {"session": "s-1"}
//! {"subject": "kc:alice", "issued_until": 1790000000}
//! {"key": "2026-01", "issuer": "doorward"}
//! {"disabled": "kc:mallory"}
//! {"everything": 1790000000}
//! ```

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A revocation. `issuer` is a name in the configuration; without it the entry concerns every issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Entry {
    /// One token.
    Token {
        /// `jti`.
        id: Box<str>,
        /// Whose token: ids are unique only per issuer.
        issuer: Option<Box<str>>,
        /// The token's `exp`, if known: how long the entry has to be kept.
        expires_at: Option<Timestamp>,
    },
    /// One session.
    Session {
        /// `sid`.
        id: Box<str>,
        /// When the last token of the session expires, if known.
        expires_at: Option<Timestamp>,
    },
    /// Everything issued to the subject up to a time: log out everywhere.
    Subject {
        /// Subject id, prefix included.
        id: Box<str>,
        /// Tokens with an `iat` up to and including this are refused.
        issued_until: Timestamp,
    },
    /// A signing key, for good (T18).
    Key {
        /// `kid`.
        id: Box<str>,
        /// Whose key.
        issuer: Option<Box<str>>,
    },
    /// A subject that is disabled, until it is enabled (T6).
    Disabled {
        /// Subject id, prefix included.
        id: Box<str>,
    },
    /// Everything issued to anybody up to a time.
    Everything {
        /// Tokens with an `iat` up to and including this are refused.
        issued_until: Timestamp,
    },
}

/// The longest id that is kept: memory is bounded by the number of revocations, not by what somebody writes into one.
const MAX_ID_BYTES: usize = 1024;

/// The members as they stand in JSON.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    jti: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    session: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    subject: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    key: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    disabled: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    everything: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    issuer: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    issued_until: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    expires_at: Option<u64>,
}

/// A member that is there has a value: `null` is a mistake, not an absence.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { jti, session, subject, key, disabled, everything, issuer, issued_until, expires_at } = written;
        let time = |seconds: u32| Timestamp(i64::from(seconds));
        let until = expires_at.map(|seconds| Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX)));
        let named = [
            jti.is_some(),
            session.is_some(),
            subject.is_some(),
            key.is_some(),
            disabled.is_some(),
            everything.is_some(),
        ];
        if named.iter().filter(|named| **named).count() != 1 {
            return Err(
                "exactly one of `jti`, `session`, `subject`, `key`, `disabled` and `everything` says what is revoked"
                    .into(),
            );
        }
        let ids = [&jti, &session, &subject, &key, &disabled, &issuer];
        if ids.into_iter().flatten().any(|id| id.is_empty()) {
            return Err("an empty id revokes nothing".into());
        }
        if ids.into_iter().flatten().any(|id| id.len() > MAX_ID_BYTES) {
            return Err(format!("an id is longer than {MAX_ID_BYTES} bytes"));
        }
        if issuer.is_some() && jti.is_none() && key.is_none() {
            return Err("`issuer` belongs to `jti` and `key` only".into());
        }
        if expires_at.is_some() && jti.is_none() && session.is_none() {
            return Err("`expires_at` belongs to `jti` and `session` only".into());
        }
        if issued_until.is_some() != subject.is_some() {
            return Err(
                "`subject` and `issued_until` (Unix seconds) belong together; `disabled` shuts a subject out for good"
                    .into(),
            );
        }
        Ok(match (jti, session, subject, key, disabled, everything) {
            (Some(id), ..) => Self::Token { id, issuer, expires_at: until },
            (_, Some(id), ..) => Self::Session { id, expires_at: until },
            (_, _, Some(id), ..) => Self::Subject { id, issued_until: time(issued_until.unwrap_or_default()) },
            (_, _, _, Some(id), ..) => Self::Key { id, issuer },
            (_, _, _, _, Some(id), _) => Self::Disabled { id },
            (.., everything) => Self::Everything { issued_until: time(everything.unwrap_or_default()) },
        })
    }
}

impl From<Entry> for Written {
    fn from(entry: Entry) -> Self {
        let small = |time: Timestamp| Some(u32::try_from(time.0.max(0)).unwrap_or(u32::MAX));
        let large = |time: Option<Timestamp>| time.map(|time| u64::try_from(time.0).unwrap_or(0));
        match entry {
            Entry::Token { id, issuer, expires_at } => {
                Self { jti: Some(id), issuer, expires_at: large(expires_at), ..Self::default() }
            }
            Entry::Session { id, expires_at } => {
                Self { session: Some(id), expires_at: large(expires_at), ..Self::default() }
            }
            Entry::Subject { id, issued_until } => {
                Self { subject: Some(id), issued_until: small(issued_until), ..Self::default() }
            }
            Entry::Key { id, issuer } => Self { key: Some(id), issuer, ..Self::default() },
            Entry::Disabled { id } => Self { disabled: Some(id), ..Self::default() },
            Entry::Everything { issued_until } => Self { everything: small(issued_until), ..Self::default() },
        }
    }
}

/// A line of a revocation file that says nothing clear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a file of one entry a line. Empty lines and lines that begin with `#` are passed over.
///
/// # Errors
/// All bad lines at once: a revocation file of which half is applied would be a trap.
pub fn parse_lines(text: &str) -> Result<Vec<Entry>, Vec<BadLine>> {
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                let message = error.to_string();
                // serde_json counts lines within the line.
                let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                bad.push(BadLine { line: index + 1, message });
            }
        }
    }
    if bad.is_empty() { Ok(entries) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Entry, parse_lines};

    const EVERY_KIND: &str = r#"
# what was revoked on Monday
{"jti":"t-1"}
{"jti":"t-2","issuer":"kc","expires_at":1790000000}
{"session":"s-1"}
{"subject":"kc:alice","issued_until":1790000000}
{"key":"k-1","issuer":"kc"}
{"disabled":"kc:mallory"}
{"everything":1790000000}
"#;

    #[test]
    fn what_is_written_is_what_was_read() {
        let entries = parse_lines(EVERY_KIND).unwrap();
        assert_eq!(entries.len(), 7);
        let again: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert_eq!(parse_lines(&again.join("\n")).unwrap(), entries);
        assert!(EVERY_KIND.contains(&again.join("\n")));
        assert!(matches!(entries[3], Entry::Subject { .. }));
    }

    #[test]
    fn all_bad_lines_are_named_at_once() {
        let text = "{\"jti\":\"a\"}\n{\"jti\":\"a\",\"session\":\"b\"}\n\n{}\n{\"jit\":\"a\"}\n{\"subject\":\"a\"}\n{\"jti\":null}\n\
                    {\"jti\":\"\"}\nx\n{\"everything\":-1}\n{\"session\":\"a\",\"issuer\":\"b\"}\n{\"jti\":\"a\",\"jti\":\"b\"}";
        let bad = parse_lines(text).unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert!(bad[2].to_string().starts_with("line 5: unknown field `jit`"), "{}", bad[2]);
        assert!(bad[3].message.contains("issued_until"), "{}", bad[3]);
    }

    #[test]
    fn an_id_is_bounded() {
        let line = |length: usize| format!("{{\"jti\":\"{}\"}}", "x".repeat(length));
        assert!(parse_lines(&line(1024)).is_ok());
        assert!(parse_lines(&line(1025)).unwrap_err()[0].message.contains("1024 bytes"));
    }
}
