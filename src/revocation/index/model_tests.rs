//! The index against the plainest model of it: a list of entries, each asked in turn.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::retention::CLOCKS_WRONG_BY;
use super::{Arrival, Overridden, Presented, Retention, RevocationIndex, SLICES, Standing};
use crate::clock::Timestamp;
use crate::rbac::{RoleKey, ServiceName};
use crate::revocation::entry::{HeldRole, Override};
use crate::revocation::{Entry, FloorOf};

/// So that an entry is kept for 100 from its arrival, or for 5 after its end.
const RETENTION: Retention =
    Retention { from_arrival: 100 - CLOCKS_WRONG_BY, after_expiry: 5 - CLOCKS_WRONG_BY, overrides_stay: false };
const IDS: [&str; 3] = ["a", "b", "01936f2e-7b1c-7c3a-9f00-1d2e3f405060"];

/// A change, with what it arrives with. All times are small numbers, so that they meet.
#[derive(Debug, Clone)]
struct Change {
    entry: Entry,
    arrival: Arrival,
}

/// The model. It knows no merging.
#[derive(Debug, Default)]
struct Model(Vec<Change>);

impl Model {
    fn standing(&self, presented: &Presented<'_>, now: Timestamp) -> Standing {
        if self.is_disabled(presented.subject) {
            return Standing::Disabled;
        }
        let revoked = self.0.iter().any(|change| {
            let live = RETENTION.until(&change.entry, change.arrival).is_none_or(|end| now < end);
            live && refuses(change, presented)
        });
        if revoked { Standing::Revoked } else { Standing::Good }
    }

    fn is_disabled(&self, subject: &str) -> bool {
        let states = self.0.iter().filter_map(|change| match &change.entry {
            Entry::Disabled { id } => (**id == *subject).then_some((change.arrival.number, true)),
            Entry::Enabled { id } => (**id == *subject).then_some((change.arrival.number, false)),
            _ => None,
        });
        states.max().is_some_and(|(_, disabled)| disabled)
    }

    /// The newest override of a subject, if it still counts.
    fn overridden(&self, subject: &str, now: Timestamp) -> Option<(&Override, u64)> {
        let of = self.0.iter().filter_map(|change| match &change.entry {
            Entry::Override(held) if *held.subject == *subject => Some((&**held, change)),
            _ => None,
        });
        let all: Vec<_> = of.collect();
        let end = all
            .iter()
            .filter_map(|(held, change)| RETENTION.until(&Entry::Override((*held).clone().into()), change.arrival))
            .max()?;
        let newest = all.into_iter().max_by_key(|(_, change)| change.arrival.number)?;
        (now < end).then_some((newest.0, newest.1.arrival.number?))
    }
}

fn refuses(Change { entry, arrival }: &Change, presented: &Presented<'_>) -> bool {
    match entry {
        Entry::Token { id, issuer, .. } => {
            presented.token_id == Some(id) && issuer.as_deref().is_none_or(|issuer| issuer == presented.issuer)
        }
        Entry::Session { id, .. } => presented.session == Some(id),
        Entry::Key { id, issuer } => {
            presented.key_id == Some(id) && issuer.as_deref().is_none_or(|issuer| issuer == presented.issuer)
        }
        Entry::Floor { of, issued_until } => {
            let concerned = match of {
                FloorOf::Everything => true,
                FloorOf::Service(name) => name.as_str() == presented.service,
                FloorOf::Subject(id) => **id == *presented.subject,
                FloorOf::Session(id) => presented.session == Some(id),
            };
            let by_time = |time: Timestamp| presented.issued_at <= time.plus(presented.leeway);
            concerned
                && match (issued_until, presented.uv) {
                    (Some(time), _) => by_time(*time),
                    (None, Some(uv)) => uv < arrival.number.unwrap(),
                    (None, None) => by_time(arrival.taken),
                }
        }
        _ => false,
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let id = || prop::sample::select(&IDS).prop_map(Box::<str>::from);
    let issuer = || prop::option::of(prop::sample::select(&["kc", "other"]).prop_map(Box::<str>::from));
    let time = || prop::option::of((0..150_i64).prop_map(Timestamp));
    let of = prop_oneof![
        Just(FloorOf::Everything),
        Just(FloorOf::Service(ServiceName::parse("oms").unwrap())),
        id().prop_map(FloorOf::Subject),
        id().prop_map(FloorOf::Session),
    ];
    let roles = prop::collection::btree_set(prop::sample::select(&["ROLE_A", "ROLE_B"]), 0..3);
    let held = |roles: BTreeSet<&str>| {
        let held = |role| HeldRole { role: RoleKey::parse(role).unwrap(), expires_at: None };
        roles.into_iter().map(held).collect::<Vec<_>>()
    };
    prop_oneof![
        1 => (id(), issuer(), time()).prop_map(|(id, issuer, expires_at)| Entry::Token { id, issuer, expires_at }),
        1 => (id(), time()).prop_map(|(id, expires_at)| Entry::Session { id, expires_at }),
        4 => (of, time()).prop_map(|(of, issued_until)| Entry::Floor { of, issued_until }),
        1 => (id(), issuer()).prop_map(|(id, issuer)| Entry::Key { id, issuer }),
        1 => id().prop_map(|id| Entry::Disabled { id }),
        1 => id().prop_map(|id| Entry::Enabled { id }),
        2 => (id(), roles).prop_map(move |(subject, roles)| {
            let roles = held(roles);
            Entry::Override(Box::new(Override { subject, roles, memberships: Vec::new(), needs: None }))
        }),
    ]
}

/// Changes under numbers of their own, made at rising times.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((entry(), 0..4_i64, 0..60_i64), 1..25).prop_map(|entries| {
        let (mut number, mut taken) = (10, 0);
        let change = |(entry, step, late)| {
            number += 1;
            taken += step;
            let arrival = Arrival { number: Some(number), taken: Timestamp(taken), now: Timestamp(taken + late) };
            Change { entry, arrival }
        };
        entries.into_iter().map(change).collect()
    })
}

fn tokens() -> impl Strategy<Value = Presented<'static>> {
    let id = || prop::sample::select(&IDS);
    let known = || prop::option::of(prop::sample::select(&IDS));
    let rest = (prop::sample::select(&["kc", "own"]), prop::option::of(5..40_u64), 0..150_i64, 0..8_i64);
    (id(), known(), known(), known(), prop::sample::select(&["oms", "crm"]), rest).prop_map(
        |(subject, token_id, session, key_id, service, (issuer, uv, issued_at, leeway))| Presented {
            issuer,
            subject,
            token_id,
            session,
            key_id,
            service,
            uv,
            issued_at: Timestamp(issued_at),
            leeway,
        },
    )
}

fn index_of<'c>(changes: impl IntoIterator<Item = &'c Change>) -> RevocationIndex {
    let index = RevocationIndex::default();
    changes.into_iter().for_each(|change| index.apply(&change.entry, change.arrival, RETENTION));
    index
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the order in which they arrive, however often, and whenever what has expired is swept: the index says what the list
    /// says.
    #[test]
    fn t10_it_says_what_a_list_of_all_entries_says(
        (changes, shuffled) in changes().prop_flat_map(|changes| {
            let twice = [changes.clone(), changes.clone()].concat();
            (Just(changes), Just(twice).prop_shuffle())
        }),
        tokens in prop::collection::vec(tokens(), 1..12),
        mut times in prop::collection::vec(0..320_i64, 1..6),
    ) {
        let model = Model(changes);
        let (index, other) = (index_of(&model.0), index_of(&shuffled));
        prop_assert_eq!(index.counts(), other.counts());
        times.sort_unstable();
        for now in times.into_iter().map(Timestamp) {
            for token in &tokens {
                let said = model.standing(token, now);
                prop_assert_eq!(index.standing(token, now), said, "{:?} at {:?}", token, now);
                prop_assert_eq!(other.standing(token, now), said, "shuffled: {:?} at {:?}", token, now);
                let asked = Overridden {
                    uv: token.uv, issued_at: token.issued_at, leeway: token.leeway, always: true, roles: &[], memberships: &[],
                };
                let newest = model.overridden(token.subject, now);
                for index in [&index, &other] {
                    let overrides = index.overrides(token.subject, now);
                    prop_assert_eq!(overrides.is_some(), newest.is_some());
                    let (Some(overrides), Some((newest, number))) = (overrides, newest) else { continue };
                    let roles: Vec<_> = newest.roles.iter().map(|held| held.role.clone()).collect();
                    let held = overrides.held(&asked, "", now).unwrap();
                    prop_assert_eq!(&*held.roles, &*roles);
                    let concerned = overrides.held(&Overridden { always: false, ..asked }, "", now).is_some();
                    prop_assert!(token.uv.is_none_or(|uv| concerned == (uv < number)));
                }
            }
            for _ in 0..SLICES {
                other.sweep(now);
            }
        }
        prop_assert!(index.counts().overrides >= other.counts().overrides);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Growing, expiring and being written anew lose nothing and keep nothing: many ids, of all lengths.
    #[test]
    fn a_table_holds_what_it_was_given(
        seed in 0..1_000_000_u64,
        writes in prop::collection::vec((0..3000_u64, 0..1000_i64), 1..6000),
        sweeps in prop::collection::vec((0..6000_usize, 0..500_i64), 0..8),
    ) {
        let index = RevocationIndex::default();
        let mut model: BTreeMap<String, i64> = BTreeMap::new();
        let sweeps: BTreeMap<usize, i64> = sweeps.into_iter().collect();
        let name = |n: u64| match n % 3 {
            0 => uuid::Uuid::from_u128(u128::from(n * seed) << 64 | u128::from(n)).to_string(),
            1 => format!("{seed}-{n}"),
            _ => "x".repeat(usize::try_from(n).unwrap() % 90) + &n.to_string(),
        };
        let mut latest = 0;
        for (step, (n, end)) in writes.into_iter().enumerate() {
            if let Some(&now) = sweeps.get(&step) {
                latest = latest.max(now);
                (0..SLICES).for_each(|_| { index.sweep(Timestamp(latest)); });
            }
            let entry = Entry::Token { id: name(n).into(), issuer: None, expires_at: Some(Timestamp(end - 5)) };
            index.apply(&entry, Arrival::by_hand(Timestamp(latest)), RETENTION);
            let known = model.entry(name(n)).or_insert(end);
            *known = end.max(*known);
        }
        (0..SLICES).for_each(|_| { index.sweep(Timestamp(latest)); });
        prop_assert_eq!(index.len(), model.values().filter(|end| **end > latest).count());
        for n in 0..3000 {
            let text = name(n);
            let presented = Presented {
                issuer: "kc", subject: "s", token_id: Some(&text), session: Some(&text), key_id: None, service: "oms",
                uv: None, issued_at: Timestamp(0), leeway: 0,
            };
            for now in [latest, latest + 100, 999] {
                let expected = model.get(&text).is_some_and(|end| now < *end);
                let standing = index.standing(&presented, Timestamp(now));
                prop_assert_eq!(standing == Standing::Revoked, expected, "{} at {}", text, now);
            }
        }
    }
}
