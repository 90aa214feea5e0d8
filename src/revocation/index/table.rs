//! A hash table that is read without a lock: the place of a million revoked token ids.
//!
//! ```text
//!   hash ──▶ shard ──▶ group of 8 slots: [ 8 tags, one word ] ──▶ on a match only: [ key, 16 bytes ] ──▶ [ cell ]
//! ```
//!
//! A tag is one byte: 0 for a slot that is free, else 7 bits of the hash. A search reads the word of a group, looks at the keys of
//! those slots whose tag fits, and ends at the first group with a free slot. So what is not there costs a word of tags nearly always.
//!
//! One writer at a time fills a shard's free slots in place: first key and cell, then the tag, with which the slot becomes visible. A
//! slot never passes to another key. What has expired leaves, and room is made, by writing the shard anew beside the old one and
//! exchanging the two; readers of the old one end there and see what was true when they began.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::id::Id;
use crate::clock::Timestamp;

/// What stands beside a key.
pub(super) trait Cell: Default {
    /// From then on the slot does not count and may be dropped; `None`: never.
    fn expires_at(&self) -> Option<Timestamp>;

    /// Takes over what another cell holds. Both belong to one shard and its writer.
    fn copy_from(&self, other: &Self);
}

/// The table. Which kind of thing its ids are is not looked at: each kind has a table of its own.
#[derive(Debug)]
pub(super) struct Table<C> {
    shards: Box<[Shard<C>]>,
    /// Slots that are taken, expired ones among them until they are swept.
    len: AtomicUsize,
}

#[derive(Debug)]
struct Shard<C> {
    slots: ArcSwap<Slots<C>>,
    /// How many of them are taken. Whoever writes holds this.
    taken: Mutex<usize>,
}

#[derive(Debug)]
struct Slots<C> {
    tags: Box<[AtomicU64]>,
    keys: Box<[[AtomicU64; 2]]>,
    cells: Box<[C]>,
}

/// So many that writing one anew holds a writer up for less than a millisecond at a million entries.
const SHARDS: usize = 256;
/// A sweep looks through one in so many shards.
pub(super) const SLICES: usize = 16;
/// Slots in a group: one byte of tag each fills a word.
const GROUP: usize = 8;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

impl<C: Cell> Default for Table<C> {
    fn default() -> Self {
        let none = Arc::new(Slots::for_entries(0));
        let shard = || Shard { slots: ArcSwap::new(Arc::clone(&none)), taken: Mutex::new(0) };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), len: AtomicUsize::new(0) }
    }
}

impl<C: Cell> Table<C> {
    /// How many slots are taken.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether there is nothing to find. One load: the usual state of most tables.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What stands beside an id.
    #[inline]
    pub(super) fn find<R>(&self, id: &Id<'_>, read: impl FnOnce(&C) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let slots = self.shard(id.place()).slots.load();
        slots.position(id.place(), || id.proof()).map(|slot| read(&slots.cells[slot]))
    }

    /// Writes beside an id, in the cell that it has or in an empty one.
    pub(super) fn write(&self, id: &Id<'_>, now: Timestamp, write: impl FnOnce(&C)) {
        let shard = self.shard(id.place());
        let mut taken = shard.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = shard.slots.load();
        if let Some(slot) = slots.position(id.place(), || id.proof()) {
            write(&slots.cells[slot]);
            return;
        }
        if *taken < slots.capacity() {
            slots.fill([id.place(), id.proof()], write);
            *taken += 1;
            self.len.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let (larger, kept) = slots.without_expired(now, 1);
        larger.fill([id.place(), id.proof()], write);
        // Added before it can be found and taken off after what has gone cannot, so that the sum never says 0 while something counts.
        self.len.fetch_add(1, Ordering::AcqRel);
        shard.slots.store(Arc::new(larger));
        self.len.fetch_sub(*taken - kept, Ordering::AcqRel);
        *taken = kept + 1;
    }

    /// Drops what has expired from one slice of the shards. Returns how many went.
    pub(super) fn sweep(&self, slice: usize, now: Timestamp) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut gone = 0;
        for shard in self.shards.iter().skip(slice % SLICES).step_by(SLICES) {
            let mut taken = shard.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = shard.slots.load();
            if !slots.taken().any(|slot| slots.has_expired(slot, now)) {
                continue;
            }
            let (smaller, kept) = slots.without_expired(now, 0);
            shard.slots.store(Arc::new(smaller));
            gone += *taken - kept;
            self.len.fetch_sub(*taken - kept, Ordering::AcqRel);
            *taken = kept;
        }
        gone
    }

    /// Bytes of all slots, free ones among them, without what cells point to.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let slots = |shard: &Shard<C>| shard.slots.load().tags.len() * GROUP;
        self.shards.iter().map(slots).sum::<usize>() * (1 + 16 + size_of::<C>()) + SHARDS * size_of::<Shard<C>>()
    }

    /// By the highest bits; the group is found by the lowest 32 and the tag is made of those between.
    #[inline]
    fn shard(&self, place: u64) -> &Shard<C> {
        &self.shards[(place >> 56) as usize % SHARDS]
    }
}

impl<C: Cell> Slots<C> {
    /// With room for half as many again, so that a shard that grows is seldom written anew.
    fn for_entries(entries: usize) -> Self {
        let slots = if entries == 0 { 0 } else { entries + entries / 2 };
        // 13 in 16 slots are filled: then 4 in 5 groups have a free one.
        let groups = (slots * 16).div_ceil(13 * GROUP);
        let all = |count| 0..count;
        Self {
            tags: all(groups).map(|_| AtomicU64::new(0)).collect(),
            keys: all(groups * GROUP).map(|_| Default::default()).collect(),
            cells: all(groups * GROUP).map(|_| C::default()).collect(),
        }
    }

    /// How many slots may be taken: never all, so that every search ends.
    fn capacity(&self) -> usize {
        self.cells.len() * 13 / 16
    }

    /// Where an id is, if it is here. Its second half is asked for only where the first fits.
    #[inline]
    fn position(&self, place: u64, proof: impl Fn() -> u64) -> Option<usize> {
        let tags = LOW * tag(place);
        let mut group = self.first_group(place);
        for _ in 0..self.tags.len() {
            let word = self.tags[group].load(Ordering::Acquire);
            let mut fitting = zero_bytes(word ^ tags);
            while fitting != 0 {
                let slot = group * GROUP + fitting.trailing_zeros() as usize / 8;
                let [first, second] = &self.keys[slot];
                if first.load(Ordering::Relaxed) == place && second.load(Ordering::Relaxed) == proof() {
                    return Some(slot);
                }
                fitting &= fitting - 1;
            }
            if !word & HIGH != 0 {
                return None;
            }
            group = self.after(group);
        }
        None
    }

    /// Takes a free slot for a key that is not here. Its writer holds the shard, and there is a free slot.
    fn fill(&self, key: [u64; 2], write: impl FnOnce(&C)) {
        let mut group = self.first_group(key[0]);
        for _ in 0..self.tags.len() {
            let word = self.tags[group].load(Ordering::Relaxed);
            let free = !word & HIGH;
            if free != 0 {
                let within = free.trailing_zeros() as usize / 8;
                let slot = group * GROUP + within;
                self.keys[slot][0].store(key[0], Ordering::Relaxed);
                self.keys[slot][1].store(key[1], Ordering::Relaxed);
                write(&self.cells[slot]);
                self.tags[group].store(word | tag(key[0]) << (8 * within), Ordering::Release);
                return;
            }
            group = self.after(group);
        }
    }

    /// What still counts, with room for `more`, and how much that is.
    fn without_expired(&self, now: Timestamp, more: usize) -> (Self, usize) {
        let counts = |slot: &usize| !self.has_expired(*slot, now);
        let kept = self.taken().filter(counts).count();
        let others = Self::for_entries(kept + more);
        for slot in self.taken().filter(counts) {
            let key = self.keys[slot].each_ref().map(|half| half.load(Ordering::Relaxed));
            others.fill(key, |cell| cell.copy_from(&self.cells[slot]));
        }
        (others, kept)
    }

    fn taken(&self) -> impl Iterator<Item = usize> {
        let taken = |slot: &usize| self.tags[slot / GROUP].load(Ordering::Relaxed) >> (8 * (slot % GROUP)) & 0x80 != 0;
        (0..self.cells.len()).filter(taken)
    }

    fn has_expired(&self, slot: usize, now: Timestamp) -> bool {
        self.cells[slot].expires_at().is_some_and(|end| now >= end)
    }

    /// The lowest 32 bits, spread evenly over any number of groups (Lemire, "Fast random integer generation in an interval", 2019).
    #[inline]
    fn first_group(&self, place: u64) -> usize {
        (((place & 0xffff_ffff) * self.tags.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, group: usize) -> usize {
        if group + 1 == self.tags.len() { 0 } else { group + 1 }
    }
}

/// 7 bits of the hash, and one that says that the slot is taken.
#[inline]
fn tag(place: u64) -> u64 {
    place >> 40 & 0x7f | 0x80
}

/// The highest bit of each byte that is 0, and now and then of one that is 1 and follows such a byte.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::index::id::Hashing;

    #[derive(Debug, Default)]
    struct End(AtomicU64);

    impl Cell for End {
        fn expires_at(&self) -> Option<Timestamp> {
            None
        }

        fn copy_from(&self, other: &Self) {
            self.0.store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_million_ids_take_no_more_than_48_mib_whatever_their_number() {
        // What a slot takes beside its cell is 17 bytes; ends take 4 more.
        let (table, hashing) = (Table::<End>::default(), Hashing::default());
        for n in 0..120_000_u64 {
            table.write(&hashing.id(&n.to_string()), Timestamp(0), |cell| cell.0.store(n, Ordering::Relaxed));
            // From some thousands on, where what shards take by themselves matters no more.
            if n > 20_000 && n % 1000 == 0 {
                let slots = (table.bytes() - SHARDS * size_of::<Shard<End>>()) / 25;
                assert!(slots * 21 * 1_000_000 / usize::try_from(n).unwrap_or(1) < 48 << 20, "{n} in {slots} slots");
            }
        }
        for n in 0..120_000 {
            let found = table.find(&hashing.id(&n.to_string()), |cell| cell.0.load(Ordering::Relaxed));
            assert_eq!(found, Some(n));
        }
        assert_eq!(table.find(&hashing.id("120000"), |_| ()), None);
    }
}
