//! The concurrent index: what a token is held against, read without locks.
//!
//! Kinds of which there is no entry cost one load, which is the usual case; the others a hash and a look into a `table`. Writers
//! hold one shard of one table for one insertion, or while it is written anew without what has expired; readers wait for nobody.
//!
//! Entries only ever merge (T10): the later expiry, the higher floor, the newest state and the newest override win, whatever order they
//! arrive in, and an entry leaves by its own expiry alone.

mod disabled;
mod floors;
mod id;
mod overrides;
mod retention;
mod role_data;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;

use self::disabled::DisabledCell;
use self::floors::{FloorCell, Height, Issued};
use self::id::Hashing;
use self::overrides::{Ends, OverridesCell};
pub use self::overrides::{Held, Overridden, Overrides};
pub use self::retention::{Arrival, Retention};
use self::role_data::RoleDataOrder;
use self::table::{Cell, SLICES, Table};
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
    /// Token, session, key, or what lies below a floor.
    Revoked,
    /// The subject is disabled.
    Disabled,
}

/// How many entries of each kind there are, expired ones among them until they are swept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Token ids.
    pub tokens: usize,
    /// Sessions that ended.
    pub sessions: usize,
    /// Subjects, services and sessions that have floors, and one for everything if that has.
    pub floors: usize,
    /// Keys.
    pub keys: usize,
    /// Subjects that are disabled.
    pub disabled: usize,
    /// Subjects that have overrides (`doorward_subject_overrides`). They revoke nothing.
    pub overrides: usize,
}

impl Counts {
    /// Those that shut somebody out (`doorward_revocations`).
    #[must_use]
    pub fn revocations(&self) -> usize {
        self.tokens + self.sessions + self.floors + self.keys + self.disabled
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct RevocationIndex {
    hashing: Hashing,
    tokens: Table<EndCell>,
    tokens_of_issuers: Table<EndCell>,
    sessions: Table<EndCell>,
    keys: Table<EndCell>,
    keys_of_issuers: Table<EndCell>,
    /// Those that were enabled again among them.
    disabled: Table<DisabledCell>,
    disabled_now: AtomicUsize,
    /// Of one id, [`EVERYTHING`].
    everything: Table<FloorCell>,
    services: Table<FloorCell>,
    subjects: Table<FloorCell>,
    sessions_below: Table<FloorCell>,
    overrides: Table<OverridesCell>,
    /// See [`RevocationIndex::announced_keys`].
    announced: ArcSwapOption<(u64, Value)>,
    role_data: ArcSwap<RoleDataOrder>,
    /// Whether any published override ever presumed role data.
    presumed: AtomicBool,
    ends: Ends,
    sweep_next: AtomicUsize,
    /// What had expired at the last sweep, in Unix seconds, is dropped where a table is written anew. By no other time: that of an entry's
    /// arrival may be wrong ([`crate::clock::Settled`]).
    dropped: AtomicI64,
    /// See [`RevocationIndex::changes`].
    changes: AtomicU64,
}

/// There is only one everything.
const EVERYTHING: &str = "";

/// When an id ceases to count, in Unix seconds, which last until 2106 here; what ends later does not end.
#[derive(Debug, Default)]
struct EndCell(AtomicU32);

impl EndCell {
    const NEVER: u32 = u32::MAX;

    fn extend(&self, end: Option<Timestamp>) {
        let end = end.map_or(Self::NEVER, |end| u32::try_from(end.0.max(0)).unwrap_or(Self::NEVER));
        self.0.fetch_max(end, Ordering::AcqRel);
    }

    #[inline]
    fn counts_at(&self, now: Timestamp) -> bool {
        let end = self.0.load(Ordering::Acquire);
        end == Self::NEVER || now.0 < i64::from(end)
    }
}

impl Cell for EndCell {
    fn expires_at(&self) -> Option<Timestamp> {
        let end = self.0.load(Ordering::Acquire);
        (end != Self::NEVER).then_some(Timestamp(i64::from(end)))
    }

    fn copy_from(&self, other: &Self) {
        self.0.store(other.0.load(Ordering::Acquire), Ordering::Release);
    }
}

impl RevocationIndex {
    /// How a token stands at `now`.
    #[must_use]
    pub fn standing(&self, presented: &Presented<'_>, now: Timestamp) -> Standing {
        let Presented { issuer, subject, token_id, session, key_id, .. } = *presented;
        let id = |text| self.hashing.id(text);
        let id_of_issuer = |text| self.hashing.id_of(issuer, text);
        let counts = |cell: &EndCell| cell.counts_at(now);
        if !self.disabled.is_empty() && self.disabled.find(&id(subject), DisabledCell::is_disabled) == Some(true) {
            return Standing::Disabled;
        }
        let revoked = token_id.is_some_and(|text| {
            !self.tokens.is_empty() && self.tokens.find(&id(text), counts) == Some(true)
                || !self.tokens_of_issuers.is_empty()
                    && self.tokens_of_issuers.find(&id_of_issuer(text), counts) == Some(true)
        }) || session
            .is_some_and(|text| !self.sessions.is_empty() && self.sessions.find(&id(text), counts) == Some(true))
            || key_id.is_some_and(|text| {
                !self.keys.is_empty() && self.keys.find(&id(text), counts) == Some(true)
                    || !self.keys_of_issuers.is_empty()
                        && self.keys_of_issuers.find(&id_of_issuer(text), counts) == Some(true)
            })
            || self.is_below_a_floor(presented, now);
        if revoked { Standing::Revoked } else { Standing::Good }
    }

    /// `max(floors)`: each kind of floor is looked at, and any that is higher than the token refuses it.
    fn is_below_a_floor(&self, presented: &Presented<'_>, now: Timestamp) -> bool {
        let Presented { subject, session, service, uv, issued_at, leeway, .. } = *presented;
        // T14: a foreign clock that is ahead makes an old token look new.
        let issued = Issued { uv, at: issued_at.0.saturating_sub(leeway) };
        let below = |table: &Table<FloorCell>, text: &str| {
            !table.is_empty()
                && table.find(&self.hashing.id(text), |cell| floors::refuses(cell, issued, now)) == Some(true)
        };
        below(&self.everything, EVERYTHING)
            || below(&self.subjects, subject)
            || below(&self.services, service)
            || session.is_some_and(|text| below(&self.sessions_below, text))
    }

    /// The overrides of a subject, if there are any. One load where no subject has.
    #[must_use]
    #[inline]
    pub fn overrides(&self, subject: &str, now: Timestamp) -> Option<Overrides> {
        if self.overrides.is_empty() {
            return None;
        }
        let published =
            self.overrides.find(&self.hashing.id(subject), |cell| overrides::counting(cell, now)).flatten()?;
        Some(Overrides { published, order: self.role_data.load_full() })
    }

    /// Role data with this fingerprint comes into force in this process (T9).
    pub fn role_data_in_force(&self, fingerprint: &str) {
        self.learn(|order| order.and_seen(fingerprint));
    }

    /// Whether it has to be announced that role data with this fingerprint is in force: there are published overrides that presume some,
    /// and it is not what was announced last.
    #[must_use]
    pub fn is_role_data_news(&self, fingerprint: &str) -> bool {
        self.presumed.load(Ordering::Acquire) && self.role_data.load().newest() != Some(fingerprint)
    }

    fn learn(&self, more: impl Fn(&RoleDataOrder) -> Option<RoleDataOrder>) {
        self.role_data.rcu(|order| more(order).map_or_else(|| Arc::clone(order), Arc::new));
    }

    /// Adds an entry, merging it with what is there. It counts once this returns.
    pub fn apply(&self, entry: &Entry, arrival: Arrival, retention: Retention) {
        let end = retention.until(entry, arrival);
        let dropped = self.dropped();
        let id = |text| self.hashing.id(text);
        match entry {
            Entry::Token { id: text, issuer: None, .. } => {
                self.tokens.write(&id(text), dropped, |cell| cell.extend(end));
            }
            Entry::Token { id: text, issuer: Some(issuer), .. } => {
                self.tokens_of_issuers.write(&self.hashing.id_of(issuer, text), dropped, |cell| cell.extend(end));
            }
            Entry::Session { id: text, .. } => self.sessions.write(&id(text), dropped, |cell| cell.extend(end)),
            Entry::Key { id: text, issuer: None } => self.keys.write(&id(text), dropped, |cell| cell.extend(end)),
            Entry::Key { id: text, issuer: Some(issuer) } => {
                self.keys_of_issuers.write(&self.hashing.id_of(issuer, text), dropped, |cell| cell.extend(end));
            }
            Entry::Floor { of, issued_until } => {
                let height = match (issued_until, arrival.number) {
                    (Some(time), _) => Height::IssuedUntil(*time),
                    (None, Some(number)) => Height::Number { number, taken: arrival.taken },
                    (None, None) => Height::IssuedUntil(arrival.taken),
                };
                self.raise(of, height, end.unwrap_or(Timestamp(i64::MAX)));
            }
            Entry::Disabled { id } => self.disable(id, arrival, true),
            Entry::Enabled { id } => self.disable(id, arrival, false),
            Entry::Override(held) => {
                self.ends.add(held, arrival.now);
                if held.needs.is_some() && arrival.number.is_some() {
                    self.presumed.store(true, Ordering::Release);
                }
                let came = self.role_data.load().era();
                self.overrides
                    .write(&id(&held.subject), dropped, |cell| overrides::add(cell, arrival, came, held, end));
            }
            Entry::Keys { jwks } => self.announce(arrival.number.unwrap_or_default(), jwks),
            Entry::RoleData { fingerprint } => {
                self.learn(|order| order.and_announced(fingerprint, arrival.number.unwrap_or_default()));
            }
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The newest counts, in whatever order they arrive.
    fn announce(&self, number: u64, jwks: &Value) {
        self.announced.rcu(|held| match held {
            Some(held) if held.0 > number => Some(Arc::clone(held)),
            _ => Some(Arc::new((number, jwks.clone()))),
        });
    }

    /// The public halves of doorward's own keys, as the control plane announced them last, with the number of that change.
    #[must_use]
    pub fn announced_keys(&self) -> Option<Arc<(u64, Value)>> {
        self.announced.load_full()
    }

    /// Whether a key of this issuer is revoked (T18).
    #[must_use]
    pub fn is_key_revoked(&self, issuer: &str, key_id: &str, now: Timestamp) -> bool {
        let counts = |cell: &EndCell| cell.counts_at(now);
        self.keys.find(&self.hashing.id(key_id), counts) == Some(true)
            || self.keys_of_issuers.find(&self.hashing.id_of(issuer, key_id), counts) == Some(true)
    }

    fn raise(&self, of: &FloorOf, height: Height, end: Timestamp) {
        let raise = |cell: &FloorCell| floors::raise(cell, height, end);
        let (table, text) = match of {
            FloorOf::Everything => (&self.everything, EVERYTHING),
            FloorOf::Service(name) => (&self.services, name.as_str()),
            FloorOf::Subject(subject) => (&self.subjects, &**subject),
            FloorOf::Session(session) => (&self.sessions_below, &**session),
        };
        table.write(&self.hashing.id(text), self.dropped(), raise);
    }

    fn disable(&self, subject: &str, arrival: Arrival, disabled: bool) {
        self.disabled.write(&self.hashing.id(subject), self.dropped(), |cell| {
            let before = cell.is_disabled();
            match (before, cell.set(arrival.number, disabled)) {
                (false, true) => self.disabled_now.fetch_add(1, Ordering::AcqRel),
                (true, false) => self.disabled_now.fetch_sub(1, Ordering::AcqRel),
                _ => 0,
            };
        });
    }

    /// A number that is another one after every entry that was added: who has decided under an older one decides again (T20).
    /// What expires denies nobody, but for grants ([`Self::end_grants`]).
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Makes a change of it if grants have ended since that overrides gave for a time (T13). One load if none has.
    pub fn end_grants(&self, now: Timestamp) {
        if self.ends.have_passed(now) {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn dropped(&self) -> Timestamp {
        Timestamp(self.dropped.load(Ordering::Acquire))
    }

    /// Removes what had expired at a time that has certainly come ([`crate::clock::Settled`]) from a sixteenth of the shards, the next
    /// sixteenth at every call, so that no writer waits for long, and readers not at all. Returns how many went.
    pub fn sweep(&self, now: Timestamp) -> usize {
        self.dropped.store(now.0, Ordering::Release);
        let slice = self.sweep_next.fetch_add(1, Ordering::Relaxed) % SLICES;
        let ids = [&self.tokens, &self.tokens_of_issuers, &self.sessions].map(|table| table.sweep(slice, now));
        let floors = self.floors().map(|table| table.sweep(slice, now));
        ids.iter().sum::<usize>() + floors.iter().sum::<usize>() + self.overrides.sweep(slice, now)
    }

    fn floors(&self) -> [&Table<FloorCell>; 4] {
        [&self.everything, &self.services, &self.subjects, &self.sessions_below]
    }

    /// How many entries are held.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            tokens: self.tokens.len() + self.tokens_of_issuers.len(),
            sessions: self.sessions.len(),
            floors: self.floors().map(Table::len).iter().sum(),
            keys: self.keys.len() + self.keys_of_issuers.len(),
            disabled: self.disabled_now.load(Ordering::Acquire),
            overrides: self.overrides.len(),
        }
    }

    /// How many revocations are held, not yet swept ones included (`doorward_revocations`).
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts().revocations()
    }

    /// Whether nothing at all is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
