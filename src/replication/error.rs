//! What can go wrong with Redis. The text never holds a password.

use std::time::Duration;

use redis::RedisError;

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
        match self {
            Self::Refused { error, .. } => error.code() == Some("WRONGTYPE") || error.to_string().contains("WRONGTYPE"),
            _ => false,
        }
    }

    /// Whether the user may not do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.code() == Some("NOPERM"))
    }
}
