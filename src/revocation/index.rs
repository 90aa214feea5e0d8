//! The concurrent index: a read is a hash and a lookup in one of 256 shards.
//!
//! A read takes the read side of one shard's lock; writers hold it for one insertion, or for the sweep of one
//! 256th of the entries. Kinds of which there is no entry at all are not even hashed, which is the usual case.
//!
//! Entries only ever merge (T10): the later expiry and the higher floor win, whatever order they arrive in, and an
//! entry leaves by its own expiry alone.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::entry::{Entry, FloorOf};
use crate::clock::Timestamp;

/// What a request presents to be held against the index. This room is on the same floor as `token` and
/// does not know its claims.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'t> {
    /// Name of the issuer in the configuration.
    pub issuer: &'t str,
    /// Subject id, prefix included.
    pub subject: &'t str,
    /// `jti`.
    pub token_id: Option<&'t str>,
    /// `sid`.
    pub session: Option<&'t str>,
    /// `kid` of the verifying key.
    pub key_id: Option<&'t str>,
    /// The service that is asked for.
    pub service: &'t str,
    /// Change number as of which the claims are true, if the token says one that is believed (T3, T7).
    pub uv: Option<u64>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// The issuer's leeway in seconds, if it is a foreign one: a floor taken at T refuses `iat ≤ T + leeway` (T14).
    pub leeway: i64,
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// Token, session, key, or an older token of a subject that was logged out everywhere.
    Revoked,
    /// The subject is disabled.
    Disabled,
}

/// With what an entry arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The change number (T2, T3); `None` for what was written by hand into a file.
    pub number: Option<u64>,
    /// When the change was made, by the clock of who made it.
    pub taken: Timestamp,
    /// Now, by this machine's clock: entries are kept from here on.
    pub now: Timestamp,
}

impl Arrival {
    /// Written by hand, and read now.
    #[must_use]
    pub fn by_hand(now: Timestamp) -> Self {
        Self { number: None, taken: now, now }
    }
}

/// How long entries are kept (T5): a token that they concern must not outlive them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Seconds for which an entry is kept from its arrival when the token's own end is not known, and floors
    /// always: the largest `max_lifetime` + 2 × leeway + 60 s.
    pub from_arrival: i64,
    /// Seconds for which an entry is kept after the token's `exp`: leeway + 60 s.
    pub after_expiry: i64,
}

impl Retention {
    /// For the largest `max_lifetime` and leeway of all issuers.
    #[must_use]
    pub fn new(max_lifetime: Duration, leeway: Duration) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let leeway = seconds(leeway);
        Self {
            from_arrival: seconds(max_lifetime).saturating_add(leeway.saturating_mul(2)).saturating_add(60),
            after_expiry: leeway.saturating_add(60),
        }
    }
}

/// The index.
#[derive(Debug)]
pub struct RevocationIndex {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// How many entries there are of each kind, expired ones included until they are swept.
    counts: [AtomicUsize; KINDS],
    /// `i64::MIN`: none.
    everything_until: AtomicI64,
    sweep_from: AtomicUsize,
    /// See [`RevocationIndex::changes`].
    changes: AtomicU64,
}

/// On a cache line of its own, so that readers of one shard do not slow those of its neighbour.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Item>>);

#[derive(Debug)]
struct Item {
    kind: Kind,
    issuer: Option<Box<str>>,
    id: Box<str>,
    /// For a floor: tokens issued up to this are refused.
    issued_until: Timestamp,
    /// From then on the entry does not count; `FOREVER` never.
    expires_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Token,
    TokenOfIssuer,
    Session,
    Subject,
    Key,
    KeyOfIssuer,
    Disabled,
}

const KINDS: usize = 7;
const SHARDS: usize = 256;
const FOREVER: Timestamp = Timestamp(i64::MAX);
/// Shards looked through by one sweep.
const SWEPT_AT_ONCE: usize = 16;

impl Default for RevocationIndex {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            counts: Default::default(),
            everything_until: AtomicI64::new(i64::MIN),
            sweep_from: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
        }
    }
}

impl RevocationIndex {
    /// How a token stands at `now`.
    #[must_use]
    pub fn standing(&self, presented: &Presented<'_>, now: Timestamp) -> Standing {
        let Presented { issuer, subject, token_id, session, key_id, issued_at, leeway, .. } = *presented;
        if self.holds(Kind::Disabled, None, subject, now) {
            return Standing::Disabled;
        }
        // T14: a foreign clock that is ahead makes an old token look new.
        let below = |floor: i64| issued_at.0 <= floor.saturating_add(leeway);
        let everything_until = self.everything_until.load(Ordering::Acquire);
        let revoked = (everything_until != i64::MIN && below(everything_until))
            || self.floor(subject, now).is_some_and(|floor| below(floor.0))
            || token_id.is_some_and(|id| {
                self.holds(Kind::Token, None, id, now) || self.holds(Kind::TokenOfIssuer, Some(issuer), id, now)
            })
            || session.is_some_and(|id| self.holds(Kind::Session, None, id, now))
            || key_id.is_some_and(|id| {
                self.holds(Kind::Key, None, id, now) || self.holds(Kind::KeyOfIssuer, Some(issuer), id, now)
            });
        if revoked { Standing::Revoked } else { Standing::Good }
    }

    /// Adds an entry, merging it with what is there.
    pub fn apply(&self, entry: &Entry, arrival: Arrival, retention: Retention) {
        let taken = arrival.taken;
        let arrival = arrival.now.plus(retention.from_arrival);
        let until = |end: Option<Timestamp>| end.map_or(arrival, |end| end.plus(retention.after_expiry));
        let none = Timestamp(i64::MIN);
        match entry {
            Entry::Token { id, issuer: None, expires_at } => {
                self.merge(Kind::Token, None, id, none, until(*expires_at));
            }
            Entry::Token { id, issuer: Some(issuer), expires_at } => {
                self.merge(Kind::TokenOfIssuer, Some(issuer), id, none, until(*expires_at));
            }
            Entry::Session { id, expires_at } => self.merge(Kind::Session, None, id, none, until(*expires_at)),
            Entry::Floor { of: FloorOf::Subject(id), issued_until } => {
                let issued_until = issued_until.unwrap_or(taken);
                // A floor in the future concerns tokens that do not exist yet; it is kept until they are gone too.
                let expires_at = arrival.max(issued_until.plus(retention.from_arrival));
                self.merge(Kind::Subject, None, id, issued_until, expires_at);
            }
            Entry::Key { id, issuer: None } => self.merge(Kind::Key, None, id, none, FOREVER),
            Entry::Key { id, issuer: Some(issuer) } => self.merge(Kind::KeyOfIssuer, Some(issuer), id, none, FOREVER),
            Entry::Disabled { id } => self.merge(Kind::Disabled, None, id, none, FOREVER),
            Entry::Floor { of: FloorOf::Everything, issued_until } => {
                self.everything_until.fetch_max(issued_until.unwrap_or(taken).0, Ordering::AcqRel);
            }
            _ => {}
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// A number that is another one after every entry that was added: who has decided under an older one decides again (T20).
    /// What expires or is enabled again denies nobody.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Enables a disabled subject again. Its floors stay: enabling revives no token (T4).
    pub fn enable(&self, subject: &str) {
        let hash = self.hash(Kind::Disabled, None, subject);
        let mut items = self.write(hash);
        if let Ok(found) = items.find_entry(hash, |item| item.is(Kind::Disabled, None, subject)) {
            found.remove();
            self.counts[Kind::Disabled as usize].fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Removes expired entries from a sixteenth of the shards, the next sixteenth at every call, so that no reader
    /// waits for long. Returns how many went.
    pub fn sweep(&self, now: Timestamp) -> usize {
        let first = self.sweep_from.fetch_add(SWEPT_AT_ONCE, Ordering::Relaxed);
        let mut removed = 0;
        for shard in (first..first + SWEPT_AT_ONCE).map(|index| &self.shards[index % SHARDS]) {
            let mut items = shard.0.write().unwrap_or_else(PoisonError::into_inner);
            items.retain(|item| {
                let keep = item.counts_at(now);
                if !keep {
                    self.counts[item.kind as usize].fetch_sub(1, Ordering::AcqRel);
                    removed += 1;
                }
                keep
            });
            if items.capacity() > 4 * items.len() + 64 {
                items.shrink_to_fit(|item| self.hash(item.kind, item.issuer.as_deref(), &item.id));
            }
        }
        removed
    }

    /// How many entries are held, not yet swept ones included (`doorward_revocations`).
    #[must_use]
    pub fn len(&self) -> usize {
        let everything = usize::from(self.everything_until.load(Ordering::Acquire) != i64::MIN);
        self.counts.iter().map(|count| count.load(Ordering::Acquire)).sum::<usize>() + everything
    }

    /// Whether nothing at all is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn holds(&self, kind: Kind, issuer: Option<&str>, id: &str, now: Timestamp) -> bool {
        self.look_up(kind, issuer, id, |item| item.counts_at(now)).unwrap_or(false)
    }

    fn floor(&self, subject: &str, now: Timestamp) -> Option<Timestamp> {
        self.look_up(Kind::Subject, None, subject, |item| item.counts_at(now).then_some(item.issued_until)).flatten()
    }

    fn look_up<R>(&self, kind: Kind, issuer: Option<&str>, id: &str, read: impl FnOnce(&Item) -> R) -> Option<R> {
        if self.counts[kind as usize].load(Ordering::Acquire) == 0 {
            return None;
        }
        let hash = self.hash(kind, issuer, id);
        self.read(hash).find(hash, |item| item.is(kind, issuer, id)).map(read)
    }

    fn merge(&self, kind: Kind, issuer: Option<&str>, id: &str, issued_until: Timestamp, expires_at: Timestamp) {
        let hash = self.hash(kind, issuer, id);
        let mut items = self.write(hash);
        let rehash = |item: &Item| self.hash(item.kind, item.issuer.as_deref(), &item.id);
        match items.entry(hash, |item| item.is(kind, issuer, id), rehash) {
            Slot::Occupied(mut found) => {
                let item = found.get_mut();
                item.expires_at = item.expires_at.max(expires_at);
                item.issued_until = item.issued_until.max(issued_until);
            }
            Slot::Vacant(slot) => {
                slot.insert(Item { kind, issuer: issuer.map(Box::from), id: id.into(), issued_until, expires_at });
                self.counts[kind as usize].fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn hash(&self, kind: Kind, issuer: Option<&str>, id: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u8(kind as u8);
        if let Some(issuer) = issuer {
            hasher.write(issuer.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    /// The table uses the hash's lowest and highest bits; the shard is chosen by others.
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    /// No code panics while it holds a lock; if one did, what it left is still a set of revocations.
    fn read(&self, hash: u64) -> RwLockReadGuard<'_, HashTable<Item>> {
        self.shard(hash).0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, HashTable<Item>> {
        self.shard(hash).0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    fn is(&self, kind: Kind, issuer: Option<&str>, id: &str) -> bool {
        self.kind == kind && *self.id == *id && self.issuer.as_deref() == issuer
    }

    fn counts_at(&self, now: Timestamp) -> bool {
        self.expires_at == FOREVER || now < self.expires_at
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
