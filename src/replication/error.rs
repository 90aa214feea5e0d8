//! What can go wrong with Redis. The text never holds a password.

use std::time::Duration;

use redis::RedisError;

/// What Redis says of content that a command of ours cannot work on.
const SPOILT: [&str; 4] =
    ["WRONGTYPE", "value is not an integer", "last possible ID", "ID specified in XADD is equal or smaller"];
/// What Lua says of content that a script of ours cannot work on, beside the script's line.
const STUMBLED: [&str; 5] = [
    "attempt to compare",
    "attempt to perform arithmetic",
    "attempt to concatenate",
    "attempt to index",
    "attempt to get length",
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
    /// over. Writing it anew helps, other than with what is wrong with the server, the way to it or the user; and as all is deleted for
    /// it, whatever is not named here is none of it.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        let Self::Script { error, .. } = self else { return self.is_wrong_type() };
        // Before Redis 7 the code of a command that failed within a script stands somewhere in the text.
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        error.code().is_some() && (says(&SPOILT) || (text.contains("user_script:") && says(&STUMBLED)))
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
            (
                "ERR",
                "Error running script (call to f_0a1b): @user_script:5: user_script:5: attempt to index a nil value",
            ),
            ("ERR", "The ID specified in XADD is equal or smaller than the target stream top item"),
            ("ERR", "hash value is not an integer"),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value"),
            ("ERR", "Error running script (call to f_0a1b): @user_script:1: WRONGTYPE Operation against a key"),
        ] {
            assert!(script(code, detail).is_spoilt(), "{code} {detail}");
        }
        for (code, detail) in [
            ("OOM", "command not allowed when used memory > 'maxmemory'. script: 0a1b, on @user_script:17."),
            ("NOPERM", "this user has no permissions to run the 'xadd' command"),
            ("BUSY", "Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."),
            ("MISCONF", "Redis is configured to save RDB snapshots, but it's currently unable to persist to disk"),
            (
                "ERR",
                "Error running script (call to f_0a1b): @user_script:1: Script killed by user with SCRIPT KILL... ",
            ),
            ("ERR", "unknown command 'EVALSHA', with args beginning with: '0a1b'"),
            ("ERR", "max number of clients reached"),
            ("UPSTREAM", "no healthy upstream"),
        ] {
            assert!(!script(code, detail).is_spoilt(), "{code} {detail}");
        }
        let nested = "Error running script (call to f_0a1b): @user_script:17: -OOM command not allowed";
        assert!(!script("ERR", nested).is_spoilt(), "as Redis 6 says it");
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(!RedisFailure::Script { what: "appending", error: broken.into() }.is_spoilt());
    }
}
