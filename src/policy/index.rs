//! The path index: a segment trie with exact precedence (SPEC 4).
//!
//! A pattern is a way down from the root, one node a segment; patterns of one shape end in the same node,
//! whatever their parameters are called. Children by literal stand in one open-addressing table for the whole
//! trie, keyed by the way down, so that a step costs one probe however many siblings there are. Everything is a
//! `u32` into a flat vector.
//!
//! In a large policy a search waits for memory and for nothing else. So nodes are small and stand in the order
//! of insertion until [`PathIndex::settle`] has put each `{name}` into the cache line of its parent; and the place of a child in the
//! table follows from the request alone, not from the parent's id, so that the processor fetches the steps of
//! one path side by side instead of one after the other. That the child is the parent's own is checked all the same.
//!
//! A search walks down in the order of precedence, literal first, and turns back where a whole path does not
//! match. It never visits a node twice: a node has one parent and a segment has one place. So its cost is
//! bounded by the nodes of the trie at depths up to that of the request, however the request is made.

mod cursor;
#[cfg(test)]
mod tests;
mod ties;

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use self::cursor::{Cursor, Decoded, Plain};
pub use self::ties::Tie;
use super::pattern::{Mixed, ParamType, Segment};
use crate::request::MatchPath;

/// A node at which patterns end: one shape of path. Ids are dense but not without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeId(pub u32);

/// The patterns of one host.
#[derive(Debug)]
pub struct PathIndex {
    nodes: Nodes,
    /// Literal texts longer than a node can hold.
    long: Vec<u8>,
    /// Children by literal: node ids, `NONE` where free; its length is a power of two.
    table: Vec<Slot>,
    /// How many slots are taken.
    literals: usize,
    /// Typed, mixed and rest children, for the few nodes that have them.
    others: Vec<Others>,
    hasher: FixedState,
    /// ASCII case of literals is ignored.
    fold: bool,
}

const NONE: u32 = u32::MAX;
/// Nearly all literals are shorter; the rest are one more load away.
const INLINE: usize = 13;
/// In [`Node::literal_len`]: the text stands elsewhere.
const LONG: u8 = u8::MAX;

/// In [`Node::flags`]: some child is a literal.
const LITERALS: u8 = 1;
/// In [`Node::flags`]: some child is typed, mixed or the rest.
const BRANCHING: u8 = 2;

/// Half a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Node {
    parent: u32,
    /// Child for `{name}`; if the node is [`BRANCHING`], an index into [`PathIndex::others`].
    below: u32,
    /// What the caller attached to the shape that ends here; `NONE` if none does.
    value: u32,
    /// What [`PathIndex::settle`] attached besides.
    plan: u32,
    kind: Kind,
    /// [`LITERALS`] and [`BRANCHING`].
    flags: u8,
    /// Bytes of the literal, or [`LONG`].
    literal_len: u8,
    /// The literal; if it is long, its place in [`PathIndex::long`] and its length. Of a mixed segment only the
    /// length of all its literals together, in the same place.
    text: [u8; INLINE],
}

/// Nodes by id, two to a cache line.
#[derive(Debug, Default)]
struct Nodes {
    lines: Vec<Line>,
    length: u32,
}

#[derive(Debug)]
#[repr(align(64))]
struct Line([Node; 2]);

impl Nodes {
    fn push(&mut self, node: Node) -> u32 {
        let id = self.length;
        match self.lines.last_mut() {
            Some(line) if id % 2 == 1 => line.0[1] = node,
            _ => self.lines.push(Line([node, Node::new(NONE, Kind::Literal)])),
        }
        self.length += 1;
        id
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..self.length).zip(self.lines.iter().flat_map(|line| &line.0))
    }
}

impl std::ops::Index<u32> for Nodes {
    type Output = Node;

    #[inline]
    fn index(&self, id: u32) -> &Node {
        &self.lines[id as usize / 2].0[id as usize % 2]
    }
}

impl std::ops::IndexMut<u32> for Nodes {
    fn index_mut(&mut self, id: u32) -> &mut Node {
        &mut self.lines[id as usize / 2].0[id as usize % 2]
    }
}

/// What a node's segment is, in falling precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Literal,
    Typed,
    Mixed,
    Param,
    Rest,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    node: u32,
}

#[derive(Debug)]
struct Others {
    param: u32,
    int: u32,
    uuid: u32,
    rest: u32,
    /// By falling literal length.
    mixed: Vec<(Mixed, u32)>,
}

impl PathIndex {
    /// An index without patterns. `fold`: literals are compared without regard to ASCII case.
    #[must_use]
    pub fn new(fold: bool) -> Self {
        let mut nodes = Nodes::default();
        nodes.push(Node::new(NONE, Kind::Literal));
        Self {
            nodes,
            long: Vec::new(),
            table: Vec::new(),
            literals: 0,
            others: Vec::new(),
            hasher: FixedState::default(),
            fold,
        }
    }

    /// The shape that `path` is decided by, if any.
    #[must_use]
    #[inline]
    pub fn find(&self, path: MatchPath<'_>) -> Option<ShapeId> {
        match path {
            MatchPath::Plain(text) => self.descend(0, ROOT, Plain(text.as_bytes().strip_prefix(b"/")?)),
            MatchPath::Decoded([]) => None,
            MatchPath::Decoded(segments) => self.descend(0, ROOT, Decoded(segments)),
        }
        .map(ShapeId)
    }

    /// Adds the path of these segments, with `value` (below `u32::MAX`), unless it has one already, as it has
    /// if another path differs in names only. Returns its shape and the value that it now has.
    pub fn insert(&mut self, segments: &[Segment], value: u32) -> (ShapeId, u32) {
        let (mut node, mut way) = (0, ROOT);
        for segment in segments {
            (node, way) = self.child(node, way, segment);
        }
        let slot = &mut self.nodes[node].value;
        if *slot == NONE {
            *slot = value;
        }
        (ShapeId(node), *slot)
    }

    /// Gives each shape another value and a plan (both below `u32::MAX`), and lays the nodes out for searching.
    /// What was a [`ShapeId`] before is none any more.
    pub fn settle(&mut self, new: impl Fn(u32) -> (u32, u32)) {
        // A node and its `{name}` share a line; what has none, or is nobody's `{name}`, fills the rest.
        let name_of = |node: &Node| if node.flags & BRANCHING == 0 { node.below } else { NONE };
        let mut order: Vec<u32> = vec![0];
        let mut single: Vec<u32> = Vec::new();
        for (id, node) in self.nodes.iter() {
            let name = name_of(node);
            let is_name = node.parent != NONE && name_of(&self.nodes[node.parent]) == id;
            match (id, is_name) {
                (0, _) if name != NONE => order.push(name),
                (0, _) => {}
                // The `{name}` of a `{name}` stands alone.
                (_, true) if self.nodes[node.parent].kind == Kind::Param => single.push(id),
                (_, true) => {}
                (_, false) if name != NONE && node.kind != Kind::Param => order.extend([id, name]),
                (_, false) => single.push(id),
            }
        }
        if order.len() % 2 == 1 {
            // The root has no `{name}`; a copy of the root, which nobody reaches, if there is nothing else to stand there.
            order.insert(1, single.pop().unwrap_or(0));
        }
        order.extend(single);
        let mut place = vec![NONE; self.nodes.length as usize];
        for (at, id) in (0..).zip(&order) {
            place[*id as usize] = place[*id as usize].min(at);
        }
        let moved = |id: u32| place.get(id as usize).copied().unwrap_or(NONE);
        let mut nodes = Nodes { lines: Vec::with_capacity(order.len().div_ceil(2)), length: 0 };
        for id in order {
            let mut node = self.nodes[id];
            node.parent = moved(node.parent);
            if node.flags & BRANCHING == 0 {
                node.below = moved(node.below);
            }
            if node.value != NONE {
                (node.value, node.plan) = new(node.value);
            }
            nodes.push(node);
        }
        self.nodes = nodes;
        for slot in &mut self.table {
            slot.node = moved(slot.node);
        }
        for others in &mut self.others {
            let mixed = others.mixed.iter_mut().map(|(_, child)| child);
            for child in
                [&mut others.param, &mut others.int, &mut others.uuid, &mut others.rest].into_iter().chain(mixed)
            {
                *child = moved(*child);
            }
        }
        self.long.shrink_to_fit();
        self.others.shrink_to_fit();
    }

    /// The plan that a shape was settled with.
    #[must_use]
    #[inline]
    pub fn plan(&self, shape: ShapeId) -> u32 {
        self.nodes[shape.0].plan
    }

    /// The value that a shape was first inserted with.
    #[must_use]
    #[inline]
    pub fn value(&self, shape: ShapeId) -> u32 {
        self.nodes[shape.0].value
    }

    /// Every shape with its value.
    pub fn shapes(&self) -> impl Iterator<Item = (ShapeId, u32)> {
        self.nodes.iter().filter(|(_, node)| node.value != NONE).map(|(id, node)| (ShapeId(id), node.value))
    }

    /// Whether the shape ends in `{rest...}`.
    #[must_use]
    pub fn ends_in_rest(&self, shape: ShapeId) -> bool {
        self.nodes[shape.0].kind == Kind::Rest
    }

    /// How many segments the shape has; `{rest...}` is one.
    #[must_use]
    pub fn depth(&self, shape: ShapeId) -> usize {
        let parent = |node: &u32| Some(self.nodes[*node].parent).filter(|parent| *parent != NONE);
        std::iter::successors(Some(shape.0), parent).count() - 1
    }

    /// Bytes on the heap, for measuring.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of::<Line>() * self.nodes.lines.capacity()
            + size_of::<Slot>() * self.table.capacity()
            + size_of::<Others>() * self.others.capacity()
            + self.long.capacity()
    }

    #[inline]
    fn descend<C: Cursor>(&self, mut node: u32, mut way: u64, mut cursor: C) -> Option<u32> {
        loop {
            let here = &self.nodes[node];
            let (segment, next) = cursor.split();
            let literal = if here.flags & LITERALS != 0 { self.literal_child(node, way, segment) } else { None };
            let child = match literal {
                // Nothing to turn back to: most steps of most paths.
                Some(child) if here.below == NONE && here.flags & BRANCHING == 0 => child,
                literal => {
                    if let Some((child, way)) = literal
                        && let Some(found) = self.after(child, way, next)
                    {
                        return Some(found);
                    }
                    if here.flags & BRANCHING != 0 {
                        return self.descend_others(here, way, segment, next, cursor);
                    }
                    if here.below == NONE || segment.is_empty() {
                        return None;
                    }
                    (here.below, step(way, Kind::Param.mark()))
                }
            };
            (node, way) = child;
            match next {
                Some(next) => cursor = next,
                None => return (self.nodes[node].value != NONE).then_some(node),
            }
        }
    }

    /// Not inlined, so that [`PathIndex::descend`] is a loop, and calls itself only where there is a choice.
    #[inline(never)]
    fn after<C: Cursor>(&self, node: u32, way: u64, next: Option<C>) -> Option<u32> {
        match next {
            Some(cursor) => self.descend(node, way, cursor),
            None => (self.nodes[node].value != NONE).then_some(node),
        }
    }

    /// The children that few nodes have, and `{name}` at its place among them.
    #[inline(never)]
    fn descend_others<C: Cursor>(
        &self,
        here: &Node,
        way: u64,
        segment: &[u8],
        next: Option<C>,
        cursor: C,
    ) -> Option<u32> {
        let others = &self.others[here.below as usize];
        for (child, kind) in [(others.int, ParamType::Int), (others.uuid, ParamType::Uuid)] {
            if child != NONE
                && kind.accepts(segment)
                && let Some(found) = self.after(child, step(way, Kind::Typed.mark()), next)
            {
                return Some(found);
            }
        }
        // Among mixed segments of equal literal length nothing is decided here: what comes after decides.
        let mut best: Option<(u32, u32)> = None;
        for (mixed, child) in &others.mixed {
            let length = self.nodes[*child].long_len();
            if best.is_some_and(|(found_length, _)| found_length != length) {
                break;
            }
            if mixed.split(segment, self.fold).is_some()
                && let Some(found) = self.after(*child, step(way, Kind::Mixed.mark()), next)
                && best.is_none_or(|(_, other)| self.precedence(found, other) == Ordering::Less)
            {
                best = Some((length, found));
            }
        }
        if let Some((_, found)) = best {
            return Some(found);
        }
        if others.param != NONE
            && !segment.is_empty()
            && let Some(found) = self.after(others.param, step(way, Kind::Param.mark()), next)
        {
            return Some(found);
        }
        (others.rest != NONE && cursor.has_text()).then_some(others.rest)
    }

    /// `Less` if `left` goes before `right` for a request that matches both.
    fn precedence(&self, left: u32, right: u32) -> Ordering {
        self.ranks(left).cmp(&self.ranks(right))
    }

    /// The kinds of segments from the root down; among mixed ones the longer literal text goes first.
    fn ranks(&self, mut node: u32) -> SmallVec<[(Kind, std::cmp::Reverse<u32>); 16]> {
        let mut ranks = SmallVec::new();
        while node != 0 {
            let here = &self.nodes[node];
            let length = if here.kind == Kind::Mixed { here.long_len() } else { 0 };
            ranks.push((here.kind, std::cmp::Reverse(length)));
            node = here.parent;
        }
        ranks.reverse();
        ranks
    }

    /// The child for a literal, and the way to it.
    #[inline]
    fn literal_child(&self, parent: u32, way: u64, segment: &[u8]) -> Option<(u32, u64)> {
        if self.fold && segment.iter().any(u8::is_ascii_uppercase) {
            let folded: SmallVec<[u8; 64]> = segment.iter().map(u8::to_ascii_lowercase).collect();
            return self.probe(parent, way, &folded);
        }
        self.probe(parent, way, segment)
    }

    #[inline]
    fn probe(&self, parent: u32, way: u64, text: &[u8]) -> Option<(u32, u64)> {
        let way = step(way, self.hash(text));
        let hash = short(way);
        let mask = self.table.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.table.get(at)?;
            if slot.node == NONE {
                return None;
            }
            if slot.hash == hash {
                let node = &self.nodes[slot.node];
                if node.parent == parent && same(self.text(node), text) {
                    return Some((slot.node, way));
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// The seed is fixed: what stands in the table is the operator's, and a request only looks things up.
    #[inline]
    fn hash(&self, text: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.finish()
    }

    /// The way from the root to a node.
    fn way(&self, mut node: u32) -> u64 {
        let mut marks: SmallVec<[u64; 16]> = SmallVec::new();
        while node != 0 {
            let here = &self.nodes[node];
            marks.push(if here.kind == Kind::Literal { self.hash(self.text(here)) } else { here.kind.mark() });
            node = here.parent;
        }
        marks.into_iter().rev().fold(ROOT, step)
    }

    #[inline]
    fn text<'n>(&'n self, node: &'n Node) -> &'n [u8] {
        if let Some(text) = node.text.get(..usize::from(node.literal_len)) {
            return text;
        }
        let [a, b, c, d, ..] = node.text;
        let start = u32::from_le_bytes([a, b, c, d]) as usize;
        self.long.get(start..start + node.long_len() as usize).unwrap_or_default()
    }

    /// The child for a segment, made if there is none yet, and the way to it.
    fn child(&mut self, parent: u32, way: u64, segment: &Segment) -> (u32, u64) {
        if let Segment::Literal(text) = segment {
            let text = if self.fold { text.to_ascii_lowercase().into() } else { text.clone() };
            return self.probe(parent, way, &text).unwrap_or_else(|| {
                let way = step(way, self.hash(&text));
                (self.insert_literal(parent, way, &text), way)
            });
        }
        let child = self.other_segment(parent, segment);
        (child, step(way, self.nodes[child].kind.mark()))
    }

    fn other_segment(&mut self, parent: u32, segment: &Segment) -> u32 {
        match segment {
            Segment::Literal(_) => parent,
            Segment::Param(_) if self.nodes[parent].flags & BRANCHING != 0 => {
                self.other_child(parent, Kind::Param, |others| &mut others.param)
            }
            Segment::Param(_) => {
                if self.nodes[parent].below == NONE {
                    self.nodes[parent].below = self.nodes.push(Node::new(parent, Kind::Param));
                }
                self.nodes[parent].below
            }
            Segment::Typed(_, ParamType::Int) => self.other_child(parent, Kind::Typed, |others| &mut others.int),
            Segment::Typed(_, ParamType::Uuid) => self.other_child(parent, Kind::Typed, |others| &mut others.uuid),
            Segment::Rest(_) => self.other_child(parent, Kind::Rest, |others| &mut others.rest),
            Segment::Mixed(mixed) => {
                let mixed = if self.fold { mixed.folded() } else { mixed.clone() };
                let others = self.others_of(parent);
                let known = self.others[others].mixed.iter().find(|(other, _)| same_shape(other, &mixed));
                if let Some((_, child)) = known {
                    return *child;
                }
                let mut node = Node::new(parent, Kind::Mixed);
                node.set_long(0, mixed.literal_len());
                let child = self.nodes.push(node);
                let list = &mut self.others[others].mixed;
                let at = list.partition_point(|(other, _)| other.literal_len() >= mixed.literal_len());
                list.insert(at, (mixed, child));
                child
            }
        }
    }

    fn other_child(&mut self, parent: u32, kind: Kind, slot: impl Fn(&mut Others) -> &mut u32) -> u32 {
        let others = self.others_of(parent);
        let known = *slot(&mut self.others[others]);
        if known != NONE {
            return known;
        }
        let child = self.nodes.push(Node::new(parent, kind));
        *slot(&mut self.others[others]) = child;
        child
    }

    fn others_of(&mut self, parent: u32) -> usize {
        let node = &mut self.nodes[parent];
        if node.flags & BRANCHING == 0 {
            let param = node.below;
            node.flags |= BRANCHING;
            node.below = u32::try_from(self.others.len()).unwrap_or(NONE);
            self.others.push(Others { param, int: NONE, uuid: NONE, rest: NONE, mixed: Vec::new() });
        }
        node.below as usize
    }

    fn insert_literal(&mut self, parent: u32, way: u64, text: &[u8]) -> u32 {
        let mut node = Node::new(parent, Kind::Literal);
        match (node.text.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(inline), Ok(length)) => {
                inline.copy_from_slice(text);
                node.literal_len = length;
            }
            _ => {
                node.set_long(self.long.len(), text.len());
                self.long.extend_from_slice(text);
            }
        }
        let child = self.nodes.push(node);
        self.nodes[parent].flags |= LITERALS;
        self.literals += 1;
        // At most half full, so that a miss ends soon.
        if self.literals * 2 > self.table.len() {
            let size = (self.literals * 2).next_power_of_two().max(16);
            let before = std::mem::replace(&mut self.table, vec![Slot { hash: 0, node: NONE }; size]);
            for slot in before.into_iter().filter(|slot| slot.node != NONE) {
                self.place(slot);
            }
        }
        self.place(Slot { hash: short(way), node: child });
        child
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.table.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.table[at].node != NONE {
            at = (at + 1) & mask;
        }
        self.table[at] = slot;
    }

    fn others(&self, node: &Node) -> Option<&Others> {
        if node.flags & BRANCHING != 0 { self.others.get(node.below as usize) } else { None }
    }

    /// Child for `{name}`.
    fn param(&self, node: &Node) -> u32 {
        self.others(node).map_or(node.below, |others| others.param)
    }
}

/// The way to the root: all ways are a hash of what was passed.
const ROOT: u64 = 0x243F_6A88_85A3_08D3;

/// The way to a child from the way to its parent, by one wide multiplication.
#[inline]
const fn step(way: u64, mark: u64) -> u64 {
    let wide = (way.rotate_left(26) ^ mark) as u128 * 0x9E37_79B9_7F4A_7C15;
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into one")]
    {
        wide as u64 ^ (wide >> 64) as u64
    }
}

/// What a slot keeps of a way.
#[inline]
const fn short(way: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into one")]
    {
        (way ^ (way >> 32)) as u32
    }
}

/// Whether two texts are equal. Most are shorter than 16 bytes, and for those two loads each beat a call.
#[inline]
fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    match (left.first_chunk::<8>(), right.first_chunk::<8>()) {
        (Some(a), Some(b)) if left.len() <= 16 => a == b && left.last_chunk::<8>() == right.last_chunk::<8>(),
        (None, None) => match (left.first_chunk::<4>(), right.first_chunk::<4>()) {
            (Some(a), Some(b)) => a == b && left.last_chunk::<4>() == right.last_chunk::<4>(),
            _ => left.iter().zip(right).all(|(a, b)| a == b),
        },
        _ => left == right,
    }
}

impl Kind {
    /// What a segment other than a literal adds to a way. Siblings of one kind add the same, which costs a longer
    /// probe and nothing else, since the parent of what is found is compared.
    const fn mark(self) -> u64 {
        (self as u64).wrapping_mul(0xD1B5_4A32_D192_ED03)
    }
}

impl Node {
    fn new(parent: u32, kind: Kind) -> Self {
        Self { parent, below: NONE, value: NONE, plan: NONE, kind, flags: 0, literal_len: 0, text: [0; INLINE] }
    }

    fn set_long(&mut self, start: usize, length: usize) {
        self.literal_len = LONG;
        for (place, number) in [(0, start), (4, length)] {
            self.text[place..place + 4].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    fn long_len(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = self.text;
        u32::from_le_bytes([a, b, c, d])
    }
}

fn same_shape(left: &Mixed, right: &Mixed) -> bool {
    left.prefix == right.prefix
        && left.parts.len() == right.parts.len()
        && left.parts.iter().zip(&right.parts).all(|((_, a), (_, b))| a == b)
}
