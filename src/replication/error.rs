//! What can go wrong with Redis. The text never holds a password.

use std::time::Duration;

use redis::RedisError;

/// What a server says of itself, its cluster or the user, and not of what stands in it.
const ELSEWHERE: [&str; 18] = [
    "NOPERM",
    "OOM",
    "READONLY",
    "LOADING",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "NOAUTH",
    "WRONGPASS",
    "BUSY",
    "MASTERDOWN",
    "NOREPLICAS",
    "MISCONF",
    "NOSCRIPT",
    "EXECABORT",
    "UNKILLABLE",
];

/// Why Redis did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisFailure {
    /// A file of `[redis] tls` that cannot be read.
    #[error("{0}")]
    File(String),
    /// It cannot be reached, or does not let us in.
    #[error("cannot connect to {place}: {error}")]
    Unreachable {
        /// Where.
        place: String,
        /// What was said.
        error: RedisError,
    },
    /// It did not answer in time.
    #[error("{place} did not answer within {limit:?}")]
    Silent {
        /// Where.
        place: String,
        /// How long was waited.
        limit: Duration,
    },
    /// It answered with an error, or the connection broke.
    #[error("{what}: {error}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What was said.
        error: RedisError,
    },
    /// A script answered with an error, or the connection broke meanwhile.
    #[error("{what}: {error}")]
    Script {
        /// What was asked.
        what: &'static str,
        /// What was said.
        error: RedisError,
    },
    /// No sentinel, or no node of the cluster, knows where to go.
    #[error("{0}")]
    Nowhere(String),
    /// T10: it would throw revocations away when its memory is full.
    #[error(
        "Redis throws keys away when its memory is full (maxmemory-policy {0}), and so would revocations: set maxmemory-policy noeviction"
    )]
    Evicts(String),
    /// It answered with something that makes no sense.
    #[error("{what}: the answer makes no sense")]
    Answer {
        /// What was asked.
        what: &'static str,
    },
}

impl RedisFailure {
    pub(super) fn refused(what: &'static str) -> impl Fn(RedisError) -> Self {
        move |error| Self::Refused { what, error }
    }

    /// Whether a key holds something of another type than ours: somebody else wrote it.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.code() == Some("WRONGTYPE"))
    }

    /// Whether something stands there that nobody can work on: a key of another type than ours, or content that a script stumbles
    /// over. Writing it anew helps, other than with what is wrong with the server, the way to it or the user.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        let Self::Script { error, .. } = self else { return self.is_wrong_type() };
        // Before Redis 7 the code of a command that failed within a script stands somewhere in the text.
        let text = error.to_string();
        let mut words = text.split(|letter: char| !letter.is_ascii_uppercase());
        error.code().is_some() && !words.any(|word| ELSEWHERE.contains(&word))
    }

    /// Whether the user may not do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { error, .. } | Self::Script { error, .. } if error.code() == Some("NOPERM"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(code: &str, detail: &str) -> RedisFailure {
        let error = redis::make_extension_error(code.to_owned(), Some(detail.to_owned()));
        RedisFailure::Script { what: "appending", error }
    }

    #[test]
    fn what_a_script_stumbles_over_is_written_anew_and_the_state_of_the_server_is_not() {
        for (code, detail) in [
            ("ERR", "user_script:4: attempt to compare number with nil script: 0a1b, on @user_script:4."),
            ("ERR", "The stream has exhausted the last possible ID, unable to add more items"),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value"),
            ("ERR", "Error running script (call to f_0a1b): @user_script:1: WRONGTYPE Operation against a key"),
        ] {
            assert!(script(code, detail).is_spoilt(), "{code} {detail}");
        }
        for code in ELSEWHERE {
            assert!(!script(code, "whatever").is_spoilt(), "{code}");
        }
        let nested = "Error running script (call to f_0a1b): @user_script:17: -OOM command not allowed";
        assert!(!script("ERR", nested).is_spoilt(), "as Redis 6 says it");
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(!RedisFailure::Script { what: "appending", error: broken.into() }.is_spoilt());
    }
}
