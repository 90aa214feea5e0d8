//! Overrides: what a subject holds, whatever its older tokens say (SPEC 8).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use super::retention::{Arrival, CLOCKS_WRONG_BY};
use super::role_data::RoleDataOrder;
use super::table::Cell;
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey};
use crate::revocation::Override;

/// The overrides of one subject, and which role data came after which.
#[derive(Debug, Clone)]
pub struct Overrides {
    pub(super) published: Arc<Published>,
    pub(super) order: Arc<RoleDataOrder>,
}

/// The overrides of one subject that are of use.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// Another one for every state of any subject's.
    stamp: u64,
    /// Newest first; what was written by hand has no number and is older than all that has one.
    versions: Vec<Version>,
    /// Older ones were left out to bound the number.
    cut_off: bool,
    /// `None`: never.
    expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Version {
    number: Option<u64>,
    taken: Timestamp,
    /// See [`RoleDataOrder::era`].
    came: u64,
    held: Arc<Override>,
}

/// A token, as far as overrides look at it.
#[derive(Debug, Clone, Copy)]
pub struct Overridden<'t> {
    /// `uv`, if it is believed (T3, T7).
    pub uv: Option<u64>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// As in [`super::Presented`].
    pub leeway: i64,
    /// Whether the override counts whatever its number: `roles_from = "doorward"` (T6).
    pub always: bool,
    /// The roles that the token itself gives.
    pub roles: &'t [RoleKey],
    /// The memberships that the token itself gives.
    pub memberships: &'t [Membership],
}

/// What a subject holds at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Roles.
    pub roles: Box<[RoleKey]>,
    /// Memberships.
    pub memberships: Box<[Membership]>,
    /// From then on it holds something else (T13).
    pub until: Option<Timestamp>,
}

/// So many overrides of one subject are kept while each presumes role data that may not be here yet. Of further ones nothing is
/// known, so that nothing was held before them.
const VERSIONS: usize = 16;

/// 0 is none.
static NEXT_STAMP: AtomicU64 = AtomicU64::new(1);

impl Overrides {
    /// Tells this state of a subject's overrides from every other, so that what was made with one is not used with another (T8).
    #[must_use]
    pub fn stamp(&self) -> (u64, u64) {
        (self.published.stamp, self.order.stamp())
    }

    /// What the subject of `token` holds at `now`; `None` if no override concerns the token, whose claims count then.
    ///
    /// `fingerprint` is that of the role data in force. An override that presumes data which is not here yet takes effect only in what
    /// it takes away: the subject keeps what it held before, by the override before it or by its claims, and holds after as well (T9).
    /// Data that came after what it presumes is here for it too.
    #[must_use]
    pub fn held(&self, token: &Overridden<'_>, fingerprint: &str, now: Timestamp) -> Option<Held> {
        let Published { versions, cut_off, .. } = &*self.published;
        // Numbers and times rise together, so that where the newest does not concern a token none does.
        let newest = versions.first().filter(|version| version.concerns(token))?;
        let mut until = None;
        let mut held = newest.held_at(now, &mut until);
        let mut version = newest;
        let mut older = versions[1..].iter().filter(|version| version.concerns(token));
        let waits = |version: &Version| {
            let needs = version.held.needs.as_deref();
            needs.is_some_and(|needs| !self.order.covers(fingerprint, needs, version.number, version.came))
        };
        while waits(version) {
            let before = older.next();
            let (roles, memberships) = match before {
                Some(before) => before.held_at(now, &mut until),
                None if *cut_off => (Vec::new(), Vec::new()),
                None => (token.roles.to_vec(), token.memberships.to_vec()),
            };
            held.0.retain(|role| roles.contains(role));
            held.1.retain(|membership| memberships.contains(membership));
            match before {
                Some(before) => version = before,
                None => break,
            }
        }
        Some(Held { roles: held.0.into(), memberships: held.1.into(), until })
    }
}

impl Published {
    fn counts_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// This and one more, in whatever order they come.
    fn and(&self, arrival: Arrival, came: u64, held: &Override, expires_at: Option<Timestamp>) -> Self {
        let mut versions = self.versions.clone();
        let by_hand = self.versions.iter().all(|version| version.number.is_none());
        let expires_at = match (arrival.number, self.expires_at) {
            // What is written by hand lasts, but not longer than what replaces it.
            (None, end) if !by_hand => end,
            (Some(_), end) if !by_hand => end.and_then(|end| Some(end.max(expires_at?))),
            _ => expires_at,
        };
        let at = versions.partition_point(|version| version.number > arrival.number);
        match versions.get(at) {
            Some(same) if same.number == arrival.number && arrival.number.is_some() => {}
            same => {
                let replaced = same.is_some_and(|same| same.number == arrival.number);
                let version =
                    Version { number: arrival.number, taken: arrival.taken, came, held: Arc::new(held.clone()) };
                versions.splice(at..at + usize::from(replaced), [version]);
            }
        }
        // T14: a clock that went back makes a later change look earlier. Foreign tokens are compared by time, and whichever an earlier
        // one concerns the newest concerns too.
        let mut latest = Timestamp(i64::MIN);
        for version in versions.iter_mut().rev() {
            latest = latest.max(version.taken);
            version.taken = latest;
        }
        // Behind one that presumes nothing nobody looks.
        let mut cut_off = self.cut_off;
        if let Some(last) = versions.iter().position(|version| version.held.needs.is_none()) {
            versions.truncate(last + 1);
            cut_off = false;
        }
        if versions.len() > VERSIONS {
            versions.truncate(VERSIONS);
            cut_off = true;
        }
        versions.shrink_to_fit();
        Self { stamp: NEXT_STAMP.fetch_add(1, Ordering::Relaxed), versions, cut_off, expires_at }
    }
}

impl Version {
    fn concerns(&self, token: &Overridden<'_>) -> bool {
        match (self.number, token.uv) {
            _ if token.always => true,
            // Written by hand: as long as it stands there.
            (None, _) => true,
            (Some(number), Some(uv)) => uv < number,
            // T14: a foreign clock that is ahead makes an old token look new.
            (Some(_), None) => token.issued_at <= self.taken.plus(token.leeway),
        }
    }

    /// What it grants, and, if that is earlier, when it will grant less (T13).
    fn held_at(&self, now: Timestamp, until: &mut Option<Timestamp>) -> (Vec<RoleKey>, Vec<Membership>) {
        let mut lasts = |end: Option<Timestamp>| match end {
            Some(end) if now >= end => false,
            Some(end) => {
                *until = Some(until.map_or(end, |until| until.min(end)));
                true
            }
            None => true,
        };
        let roles =
            self.held.roles.iter().filter(|held| lasts(held.expires_at)).map(|held| held.role.clone()).collect();
        let memberships = self
            .held
            .memberships
            .iter()
            .filter(|held| lasts(held.expires_at))
            .map(|held| Membership { service: held.service.clone(), tier: held.tier.clone() })
            .collect();
        (roles, memberships)
    }
}

/// The overrides of one subject, exchanged whole.
pub(super) type OverridesCell = ArcSwapOption<Published>;

/// Adds an override, that `came` in an era of role data ([`RoleDataOrder::era`]). Its writer is the only one.
pub(super) fn add(cell: &OverridesCell, arrival: Arrival, came: u64, held: &Override, expires_at: Option<Timestamp>) {
    let known = cell.load();
    // What is written by hand lasts, where it replaces what is over. All else only adds, whatever the clock says.
    let counting = known.as_deref().filter(|known| arrival.number.is_some() || known.counts_at(arrival.now));
    let none = Published::default();
    cell.store(Some(Arc::new(counting.unwrap_or(&none).and(arrival, came, held, expires_at))));
}

/// Those that count.
pub(super) fn counting(cell: &OverridesCell, now: Timestamp) -> Option<Arc<Published>> {
    cell.load_full().filter(|overrides| overrides.counts_at(now))
}

impl Cell for OverridesCell {
    fn expires_at(&self) -> Option<Timestamp> {
        self.load().as_ref().map_or(Some(Timestamp(i64::MIN)), |overrides| overrides.expires_at)
    }

    fn copy_from(&self, other: &Self) {
        self.store(other.load_full());
    }
}

/// When grants will end that overrides give for a time, so that who has an exchange open by one is asked again (T13, T20).
#[derive(Debug)]
pub(super) struct Ends {
    /// When it was asked last whether one has ended, of the times at which the answer was looked up.
    asked: AtomicI64,
    /// The first after that; `i64::MAX`: none.
    next: AtomicI64,
    all: Mutex<BTreeSet<i64>>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { asked: AtomicI64::new(i64::MIN), next: AtomicI64::new(i64::MAX), all: Mutex::default() }
    }
}

impl Ends {
    /// Remembers when the grants of an override end; those that have ended too, for a clock that is ahead may be set back.
    pub(super) fn add(&self, held: &Override, now: Timestamp) {
        let ends = held.roles.iter().map(|held| held.expires_at);
        let ends = ends.chain(held.memberships.iter().map(|held| held.expires_at)).flatten();
        let mut ends = ends.filter(|end| *end > now.plus(-CLOCKS_WRONG_BY)).peekable();
        if ends.peek().is_none() {
            return;
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(ends.map(|end| end.0));
        let asked = self.asked.load(Ordering::Acquire);
        self.next.store(first_after(&all, asked), Ordering::Release);
    }

    /// Whether one has ended that had not when this was asked last. Two loads, nearly always.
    pub(super) fn have_passed(&self, now: Timestamp) -> bool {
        let next = self.next.load(Ordering::Acquire);
        let went_back = || now.0 < self.asked.load(Ordering::Acquire);
        if now.0 < next && !went_back() {
            return false;
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.0 >= self.next.load(Ordering::Acquire);
        *all = all.split_off(&now.0.saturating_sub(CLOCKS_WRONG_BY));
        self.asked.store(now.0, Ordering::Release);
        self.next.store(first_after(&all, now.0), Ordering::Release);
        passed
    }
}

fn first_after(ends: &BTreeSet<i64>, time: i64) -> i64 {
    ends.range((Bound::Excluded(time), Bound::Unbounded)).next().copied().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::revocation::entry::HeldRole;

    #[test]
    fn t13_an_end_that_a_clock_has_passed_which_was_ahead_passes_again() {
        let now = Timestamp(1_800_000_000);
        let ends = Ends::default();
        let add = |end: i64| {
            let role = RoleKey::parse("ROLE_A").unwrap();
            let roles = vec![HeldRole { role, expires_at: Some(now.plus(end)) }];
            let held = Override { subject: "alice".into(), roles, memberships: Vec::new(), needs: None };
            ends.add(&held, now);
        };
        [100, 200].into_iter().for_each(add);
        let passed = |times: &[i64]| times.iter().map(|time| ends.have_passed(now.plus(*time))).collect::<Vec<_>>();
        assert_eq!(passed(&[99, 100, 101]), [false, true, false]);
        assert_eq!(passed(&[7200, 7201, 102, 150, 200, 201]), [true, false, false, false, true, false]);
        add(50);
        assert_eq!(passed(&[7200, 40, 50, 100, 101]), [false, false, true, true, false]);
        assert_eq!(passed(&[200_000, 300_000]), [true, false]);
        assert!(ends.all.lock().unwrap().is_empty(), "what has ended long ago is forgotten");
    }
}
