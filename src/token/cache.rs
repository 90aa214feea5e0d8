//! Verified tokens, remembered until they expire (DESIGN, the hot path).
//!
//! Only successes are remembered, so a stranger cannot fill the cache. The key is the whole token: two tokens
//! that differ in a byte of the signature are two tokens. Verifier and cache are one generation, exchanged
//! together, so that nothing verified under other settings can be found, or be added, under new ones. The keys of an issuer
//! change without that: an entry holds the key that verified it, which knows whether it is still one ([`super::issuer_keys`]).

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use moka::sync::Cache;

use super::claims::Claims;
use super::jwk::Key;
use super::verify::{EXPIRED, NOT_YET_VALID, TokenRejection, Verifier};
use crate::clock::Timestamp;
use crate::reason::Reason;

/// A verified token and what was made ready for it. `E` is the caller's (permission bits, header values).
pub struct Entry<E> {
    /// The token itself, which entries are told apart by.
    token: Arc<str>,
    /// Which key it was verified by: it is good as long as that is. None of what a user service vouched for.
    key: Option<Arc<Key>>,
    /// What the token says.
    pub claims: Claims,
    /// Slot for what is derived from the claims under one role table (T8).
    pub derived: arc_swap::ArcSwapOption<E>,
}

impl<E> Entry<E> {
    /// The entry of a token that a user service vouched for. It stands in no cache of this room.
    #[must_use]
    pub fn vouched(token: &str, claims: Claims) -> Self {
        Self { token: token.into(), key: None, claims, derived: arc_swap::ArcSwapOption::empty() }
    }

    /// The token, to ask about it again. It is for no log.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
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
    bytes: u64,
    generation: ArcSwap<Generation<E>>,
    /// See [`TokenCache::changes`].
    changes: AtomicU64,
}

struct Generation<E> {
    verifier: Arc<Verifier>,
    entries: Cache<Arc<str>, Arc<Entry<E>>, RandomState>,
}

/// Slots of a [`NearCache`]; a power of two.
const NEAR_SLOTS: usize = 4096;
/// Longer tokens are left to the shared cache, so that a thread's own holds 8 MiB of tokens at the most.
const NEAR_TOKEN_BYTES: usize = 2048;

/// The entries that one thread found last, in front of the cache that all threads share: finding one here costs a hash
/// and a comparison, where the shared cache also reads the clock and notes the hit. It holds at most 4,096 entries, of one
/// generation.
pub struct NearCache<E>(Mutex<Near<E>>);

struct Near<E> {
    hasher: RandomState,
    /// Whose entries these are.
    generation: Option<Arc<Generation<E>>>,
    /// By a few bits of the token's hash.
    slots: Box<[Option<Arc<Entry<E>>>]>,
}

impl<E> Default for NearCache<E> {
    fn default() -> Self {
        Self(Mutex::new(Near { hasher: RandomState::default(), generation: None, slots: Box::default() }))
    }
}

impl<E> Near<E> {
    /// The slot of `token`, emptied first if it belongs to another generation.
    fn slot(&mut self, generation: &Arc<Generation<E>>, token: &str) -> &mut Option<Arc<Entry<E>>> {
        if !self.generation.as_ref().is_some_and(|own| Arc::ptr_eq(own, generation)) {
            self.generation = Some(Arc::clone(generation));
            self.slots = (0..NEAR_SLOTS).map(|_| None).collect();
        }
        let index = usize::try_from(self.hasher.hash_one(token) % NEAR_SLOTS as u64).unwrap_or_default();
        &mut self.slots[index]
    }
}

impl<E> fmt::Debug for Entry<E> {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for NearCache<E> {
    /// Without the entries: they hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache").finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for TokenCache<E> {
    /// Without the entries: their keys are tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What an entry costs beside its texts: moka's node and timers, the `Arc`, the claims, and what the caller
/// derives (a bitset and a few header values).
const ENTRY_OVERHEAD: usize = 1024;

impl<E: Send + Sync + 'static> TokenCache<E> {
    /// A cache of at most `bytes`, for this verifier.
    #[must_use]
    pub fn new(verifier: Verifier, bytes: u64) -> Self {
        let generation = ArcSwap::from_pointee(Generation::new(verifier, bytes));
        Self { bytes, generation, changes: AtomicU64::new(0) }
    }

    /// Replaces keys and issuers; everything cached under the old ones is forgotten at once.
    pub fn publish(&self, verifier: Verifier) {
        self.generation.store(Arc::new(Generation::new(verifier, self.bytes)));
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Says that the keys of an issuer have changed ([`super::IssuerKeys`]): who has decided by them decides again.
    pub fn keys_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// A number that is another one after every change of keys or issuers (T20).
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The verifier in force.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.generation.load().verifier)
    }

    /// Verifies, or remembers; `near` is the asking thread's own. Expiry is checked on every hit.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn authenticate(
        &self,
        near: &NearCache<E>,
        token: &str,
        now: Timestamp,
    ) -> (Source, Result<Arc<Entry<E>>, TokenRejection>) {
        let generation = self.generation.load();
        let mut near = near.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut none = None;
        let slot = if token.len() <= NEAR_TOKEN_BYTES { near.slot(&generation, token) } else { &mut none };
        let found = slot.as_ref().filter(|entry| *entry.token == *token).cloned();
        // Whose key was withdrawn, or is too old to say, is verified once more, which finds the reason.
        let good = |entry: &Arc<Entry<E>>| entry.key.as_ref().is_some_and(|key| key.is_good(now));
        if let Some(entry) = found.filter(good).or_else(|| generation.entries.get(token).filter(good)) {
            if now >= entry.claims.expires_at {
                generation.entries.invalidate(token);
                *slot = None;
                return (Source::Cache, Err(EXPIRED));
            }
            // The clock may have been set back since the token was verified.
            if entry.claims.not_before.is_some_and(|time| now < time) {
                return (Source::Cache, Err(NOT_YET_VALID));
            }
            if !slot.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &entry)) {
                *slot = Some(Arc::clone(&entry));
            }
            return (Source::Cache, Ok(entry));
        }
        let verified = generation.verifier.verify_by(token, now).map(|(claims, key)| {
            let (token, derived): (Arc<str>, _) = (token.into(), arc_swap::ArcSwapOption::empty());
            let entry = Arc::new(Entry { token: Arc::clone(&token), key: Some(key), claims, derived });
            // Into this generation, also if another was published meanwhile: then nobody looks here any more.
            generation.entries.insert(token, Arc::clone(&entry));
            *slot = Some(Arc::clone(&entry));
            entry
        });
        (Source::Verify, verified)
    }

    /// What the token of `entry`, which was verified a while ago, is worth under the keys and issuers in force.
    ///
    /// # Errors
    /// As [`Verifier::verify`]. A token that has merely expired was found good otherwise, but for its audience; so has one whose key was
    /// retired by a rotation, for that is when the last of its tokens expires.
    pub fn authenticate_again(
        &self,
        near: &NearCache<E>,
        entry: &Entry<E>,
        now: Timestamp,
    ) -> Result<Arc<Entry<E>>, TokenRejection> {
        let retired = || entry.key.as_ref().is_some_and(|key| key.is_retired(now));
        self.authenticate(near, &entry.token, now).1.map_err(|rejection| match rejection.reason {
            Reason::UnknownKey if retired() => EXPIRED,
            _ => rejection,
        })
    }

    /// How many tokens are remembered, roughly.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.generation.load().entries.entry_count()
    }
}

impl<E: Send + Sync + 'static> Generation<E> {
    fn new(verifier: Verifier, bytes: u64) -> Self {
        // No token outlives this, so no entry needs to. One age for all is cheaper at each hit than an expiry of
        // its own for every entry; those are checked in `authenticate` anyway.
        let longest = verifier.issuers().iter().map(|issuer| issuer.max_lifetime + issuer.leeway * 2).max();
        let longest = longest.unwrap_or_default().clamp(Duration::from_secs(1), Duration::from_secs(7 * 86_400));
        let weigh = |token: &Arc<str>, entry: &Arc<Entry<E>>| {
            u32::try_from(token.len() + entry.claims.heap_bytes() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(bytes)
            .weigher(weigh)
            .time_to_live(longest)
            .build_with_hasher(RandomState::default());
        Self { verifier: Arc::new(verifier), entries }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
