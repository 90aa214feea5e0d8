//! The keys of one issuer, which change while tokens are verified.
//!
//! A set is exchanged whole. A key that stands in the old and in the new one stays the very same [`Key`], so that what is
//! remembered of it (verified tokens, in [`super::TokenCache`]) stays good: neither a refresh that finds nothing new nor another
//! issuer's rotation is noticed by anybody. A key that is gone is marked, and whoever remembers it sees that at the next look:
//! one atomic load.
//!
//! Sets that are fetched are good for a time only (T18). Afterwards nothing can be said about the issuer's tokens:
//! [`Reason::AuthUnavailable`](crate::reason::Reason::AuthUnavailable), which is 503 and not 401, for the bearer has done nothing
//! wrong and may try again.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::jwk::{Key, KeySet};
use crate::clock::Timestamp;

/// Until when that is good which is good for ever.
pub(super) const FOREVER: i64 = i64::MAX;
/// Until when that was good which is not good at all.
const NEVER: i64 = i64::MIN;

/// The keys of one issuer. Issuers never share them.
pub struct IssuerKeys {
    set: ArcSwap<KeySet>,
    /// Unix seconds from which on the set says nothing any more.
    good_until: AtomicI64,
    /// One exchange at a time.
    exchange: Mutex<()>,
    unknown: OnceLock<UnknownKids>,
}

/// What an exchange changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exchanged {
    /// Keys that were not there before.
    pub added: usize,
    /// Keys that are gone: their tokens are refused from now on.
    pub withdrawn: usize,
}

impl Exchanged {
    /// Whether the set is another one.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        self.added > 0 || self.withdrawn > 0
    }
}

/// What is told of a `kid` that the set does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownKid {
    /// It was not asked about of late: looking for it may help.
    New,
    /// It was asked about, and whoever had to know of it knows.
    Known,
}

/// Slots of the memory of unknown kids; a power of two. Strangers choose the kids, so it is their hashes that are kept, and no more.
const UNKNOWN_SLOTS: usize = 256;

struct UnknownKids {
    hasher: RandomState,
    slots: Box<[AtomicU64]>,
    tell: Box<dyn Fn(UnknownKid) + Send + Sync>,
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKeys").field("set", &*self.set.load()).finish_non_exhaustive()
    }
}

impl IssuerKeys {
    /// Keys that are good for ever.
    #[must_use]
    pub fn fixed(set: impl Into<Arc<KeySet>>) -> Arc<Self> {
        Arc::new(Self::holding(set.into(), FOREVER))
    }

    /// No keys yet: they are on their way, and until they are there no token can be judged.
    #[must_use]
    pub fn awaited() -> Arc<Self> {
        Arc::new(Self::holding(Arc::new(KeySet { keys: Vec::new(), unfit: Vec::new() }), NEVER))
    }

    fn holding(set: Arc<KeySet>, good_until: i64) -> Self {
        Self {
            set: ArcSwap::new(set),
            good_until: AtomicI64::new(good_until),
            exchange: Mutex::new(()),
            unknown: OnceLock::new(),
        }
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<KeySet> {
        self.set.load_full()
    }

    /// Whether the set says anything at `now`.
    #[must_use]
    #[inline]
    pub fn is_good(&self, now: Timestamp) -> bool {
        now.0 < self.good_until.load(Ordering::Acquire)
    }

    /// Puts a set in force, good until a moment (`None`: for ever). Keys of the old set that are in this one too stay the same.
    pub fn publish(&self, set: KeySet, good_until: Option<Timestamp>) -> Exchanged {
        let _one = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.set.load_full();
        let kept = |key: Arc<Key>| old.keys.iter().find(|other| other.is_same(&key)).map_or(key, Arc::clone);
        let new = KeySet { keys: set.keys.into_iter().map(kept).collect(), unfit: set.unfit };
        let holds = |keys: &[Arc<Key>], key: &Arc<Key>| keys.iter().any(|other| Arc::ptr_eq(other, key));
        let withdrawn: Vec<_> = old.keys.iter().filter(|key| !holds(&new.keys, key)).collect();
        let exchanged = Exchanged {
            added: new.keys.iter().filter(|key| !holds(&old.keys, key)).count(),
            withdrawn: withdrawn.len(),
        };
        let until = good_until.map_or(FOREVER, |time| time.0);
        for key in &new.keys {
            key.set_good_until(until);
        }
        for key in &withdrawn {
            new.keys.iter().for_each(|later| key.learn_retirement(later));
        }
        // What was passed over is no key, and nobody who remembers one need know.
        if exchanged.is_change() || new.unfit != old.unfit {
            self.set.store(Arc::new(new));
        }
        if exchanged.is_change() {
            for key in withdrawn {
                key.set_good_until(NEVER);
            }
            self.forget_unknown();
        }
        self.good_until.store(until, Ordering::Release);
        exchanged
    }

    /// Says that the set is too old, whatever the clock on the wall says: that may have been set back.
    pub fn expire(&self) {
        let _one = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        self.good_until.store(NEVER, Ordering::Release);
        for key in &self.set.load().keys {
            key.set_good_until(NEVER);
        }
    }

    /// Tells `tell` of every token whose `kid` the set does not have, from now on. It is called while a request waits: it must
    /// not. Only the first caller is heard.
    pub fn on_unknown(&self, tell: impl Fn(UnknownKid) + Send + Sync + 'static) {
        let slots = (0..UNKNOWN_SLOTS).map(|_| AtomicU64::new(0)).collect();
        let _ = self.unknown.set(UnknownKids { hasher: RandomState::default(), slots, tell: Box::new(tell) });
    }

    /// A token of this issuer names this `kid`, and the set does not have it.
    pub(super) fn unknown(&self, kid: &str) {
        let Some(unknown) = self.unknown.get() else { return };
        // Zero is an empty slot.
        let hash = unknown.hasher.hash_one(kid) | 1 << 63;
        let slot = usize::try_from(hash % UNKNOWN_SLOTS as u64).unwrap_or_default();
        let before = unknown.slots.get(slot).map_or(0, |slot| slot.swap(hash, Ordering::AcqRel));
        (unknown.tell)(if before == hash { UnknownKid::Known } else { UnknownKid::New });
    }

    /// Every `kid` that the set does not have is [`UnknownKid::New`] once more.
    pub fn forget_unknown(&self) {
        for slot in self.unknown.get().iter().flat_map(|unknown| &unknown.slots) {
            slot.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use serde_json::{Value, json};

    use super::*;
    use crate::token::Algorithm;
    use crate::token::fixtures::{ALL, NOW, private_jwk};
    use crate::token::jwk::Trust;

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &ALL, Trust::File).unwrap()
    }

    fn named(algorithm: Algorithm, kid: &str) -> Value {
        let mut key = private_jwk(algorithm);
        key["kid"] = kid.into();
        key
    }

    #[test]
    fn a_key_of_both_sets_stays_the_same_and_one_that_is_gone_is_marked() {
        let (a, b) = (named(Algorithm::EdDSA, "a"), named(Algorithm::ES256, "b"));
        let keys = IssuerKeys::fixed(set(&[a.clone(), b.clone()]));
        let before = keys.set();
        assert!(!keys.publish(set(&[b.clone(), a.clone()]), None).is_change(), "the order says nothing");
        assert!(Arc::ptr_eq(&before, &keys.set()));
        let c = named(Algorithm::RS256, "c");
        assert_eq!(keys.publish(set(&[a.clone(), c]), None), Exchanged { added: 1, withdrawn: 1 });
        assert!(Arc::ptr_eq(&before.keys[0], &keys.set().keys[0]));
        assert_eq!((before.keys[0].is_good(NOW), before.keys[1].is_good(NOW)), (true, false));
        // The same kid with another key is another key.
        let mut other = named(Algorithm::ES256, "a");
        assert!(keys.publish(set(&[other.clone()]), None).is_change());
        assert!(!before.keys[0].is_good(NOW));
        other["kid"] = "b".into();
        assert!(keys.publish(set(&[other]), None).is_change());
    }

    #[test]
    fn t18_a_set_is_good_for_a_time_and_good_again_once_it_is_confirmed() {
        let keys = IssuerKeys::awaited();
        assert!(!keys.is_good(NOW));
        let a = named(Algorithm::EdDSA, "a");
        keys.publish(set(std::slice::from_ref(&a)), Some(NOW.plus(60)));
        let key = Arc::clone(&keys.set().keys[0]);
        assert!(keys.is_good(NOW.plus(59)) && key.is_good(NOW.plus(59)));
        assert!(!keys.is_good(NOW.plus(60)) && !key.is_good(NOW.plus(60)));
        assert!(!keys.publish(set(std::slice::from_ref(&a)), Some(NOW.plus(120))).is_change());
        assert!(keys.is_good(NOW.plus(60)) && key.is_good(NOW.plus(60)));
        keys.expire();
        assert!(!keys.is_good(NOW.plus(-9999)) && !key.is_good(NOW.plus(-9999)));
        keys.publish(set(&[a]), Some(NOW.plus(180)));
        assert!(key.is_good(NOW.plus(150)));
    }

    #[test]
    fn a_kid_is_new_once_and_the_memory_is_bounded() {
        let keys = IssuerKeys::fixed(set(&[named(Algorithm::EdDSA, "a")]));
        keys.unknown("nobody listens");
        let new = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&new);
        keys.on_unknown(move |kid| {
            count.fetch_add(usize::from(kid == UnknownKid::New), Ordering::Relaxed);
        });
        for _ in 0..10 {
            keys.unknown("x");
        }
        assert_eq!(new.load(Ordering::Relaxed), 1);
        for number in 0..10_000 {
            keys.unknown(&number.to_string());
        }
        assert_eq!(keys.unknown.get().unwrap().slots.len(), UNKNOWN_SLOTS);
        // What was looked for may stand in the next set, or be worth another look after it.
        keys.unknown("x");
        let before = new.load(Ordering::Relaxed);
        keys.publish(set(&[named(Algorithm::EdDSA, "b")]), None);
        keys.unknown("x");
        assert_eq!(new.load(Ordering::Relaxed), before + 1);
    }
}
