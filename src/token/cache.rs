//! Verified tokens, remembered until they expire (DESIGN, the hot path).

use std::sync::Arc;

use super::claims::Claims;
use super::verify::{TokenRejection, Verifier};
use crate::clock::Timestamp;

/// A verified token and what was made ready for it. `E` is the caller's (permission bits, header values).
#[derive(Debug)]
pub struct Entry<E> {
    /// What the token says.
    pub claims: Claims,
    /// Slot for what is derived from the claims under one role table (T8).
    pub derived: arc_swap::ArcSwapOption<E>,
}

/// Where an answer came from (`source` of `doorward_token_validation_seconds`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The cache.
    Cache,
    /// A verification.
    Verify,
}

/// The cache: successes only, bounded by bytes, keyed by the whole token with a randomly seeded hash;
/// a new verifier is a new generation.
pub struct TokenCache<E> {
    _marker: std::marker::PhantomData<Arc<E>>,
}

impl<E: Send + Sync + 'static> TokenCache<E> {
    /// A cache of at most `bytes`, for this verifier.
    #[must_use]
    pub fn new(verifier: Verifier, bytes: u64) -> Self {
        let _ = (verifier, bytes);
        todo!()
    }

    /// Replaces keys and issuers; everything cached under the old ones is forgotten at once.
    pub fn publish(&self, verifier: Verifier) {
        let _ = verifier;
        todo!()
    }

    /// Verifies, or remembers. Expiry is checked on every hit.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn authenticate(&self, token: &str, now: Timestamp) -> (Source, Result<Arc<Entry<E>>, TokenRejection>) {
        let _ = (token, now);
        todo!()
    }
}
