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

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

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

/// Two shapes that some request cannot tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// One.
    pub left: ShapeId,
    /// The other.
    pub right: ShapeId,
    /// A path that matches both, encoded as a client would send it.
    pub witness: String,
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

    /// Every pair of shapes that precedence does not put in order although one request matches both.
    #[must_use]
    pub fn ties(&self) -> Vec<Tie> {
        let mut ties = Vec::new();
        for others in &self.others {
            for (number, (left, left_node)) in others.mixed.iter().enumerate() {
                for (right, right_node) in &others.mixed[number + 1..] {
                    if left.literal_len() != right.literal_len() {
                        break;
                    }
                    if let Some(witness) = left.overlap(right) {
                        let mut path = self.example(self.nodes[*left_node].parent);
                        push_segment(&mut path, &witness);
                        self.tied_below(*left_node, *right_node, &path, &mut ties);
                    }
                }
            }
        }
        ties
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

    /// A path that matches the shape.
    #[must_use]
    pub fn example_of(&self, shape: ShapeId) -> String {
        self.example(shape.0)
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

    /// Walks down two subtrees whose ways so far are of equal precedence and met by `path`.
    fn tied_below(&self, left: u32, right: u32, path: &str, ties: &mut Vec<Tie>) {
        let (a, b) = (&self.nodes[left], &self.nodes[right]);
        if a.value != NONE && b.value != NONE {
            ties.push(Tie { left: ShapeId(left), right: ShapeId(right), witness: path.to_owned() });
        }
        let mut go_on = |left: u32, right: u32, segment: &[u8]| {
            if left != NONE && right != NONE {
                let mut path = path.to_owned();
                push_segment(&mut path, segment);
                self.tied_below(left, right, &path, ties);
            }
        };
        if a.flags & b.flags & LITERALS != 0 {
            let way = self.way(right);
            for slot in self.table.iter().filter(|slot| slot.node != NONE) {
                let node = &self.nodes[slot.node];
                if node.parent == left
                    && let Some((twin, _)) = self.probe(right, way, self.text(node))
                {
                    go_on(slot.node, twin, self.text(node));
                }
            }
        }
        go_on(self.param(a), self.param(b), b"x");
        if let (Some(a), Some(b)) = (self.others(a), self.others(b)) {
            go_on(a.int, b.int, b"1");
            go_on(a.uuid, b.uuid, UUID);
            go_on(a.rest, b.rest, b"x");
            for (left, left_node) in &a.mixed {
                for (right, right_node) in b.mixed.iter().filter(|(right, _)| right.literal_len() == left.literal_len())
                {
                    if let Some(witness) = left.overlap(right) {
                        go_on(*left_node, *right_node, &witness);
                    }
                }
            }
        }
    }

    fn example(&self, node: u32) -> String {
        let mut way = Vec::new();
        let mut at = node;
        while at != 0 {
            way.push(at);
            at = self.nodes[at].parent;
        }
        let mut path = String::new();
        for at in way.into_iter().rev() {
            let here = &self.nodes[at];
            let others = self.others(&self.nodes[here.parent]);
            match here.kind {
                Kind::Literal => push_segment(&mut path, self.text(here)),
                Kind::Typed if others.is_some_and(|others| others.int == at) => push_segment(&mut path, b"1"),
                Kind::Typed => push_segment(&mut path, UUID),
                Kind::Param | Kind::Rest => push_segment(&mut path, b"x"),
                Kind::Mixed => {
                    let mixed = others.and_then(|others| others.mixed.iter().find(|(_, child)| *child == at));
                    push_segment(&mut path, &mixed.map(|(mixed, _)| mixed.example()).unwrap_or_default());
                }
            }
        }
        path
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

const UUID: &[u8] = b"00000000-0000-4000-8000-000000000000";

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

/// A path that is walked along, segment by segment. Copies are cheap, for turning back.
trait Cursor: Copy {
    /// The segment here, and where the next one begins, if there is one.
    fn split(&self) -> (&[u8], Option<Self>);
    /// Whether one byte or more is left.
    fn has_text(&self) -> bool;
}

/// What is left of a path, behind a slash.
#[derive(Clone, Copy)]
struct Plain<'p>(&'p [u8]);

impl Cursor for Plain<'_> {
    #[inline]
    fn split(&self) -> (&[u8], Option<Self>) {
        match memchr::memchr(b'/', self.0) {
            Some(at) => (&self.0[..at], Some(Self(&self.0[at + 1..]))),
            None => (self.0, None),
        }
    }

    #[inline]
    fn has_text(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The segments that are left; at least one.
#[derive(Clone, Copy)]
struct Decoded<'p>(&'p [Box<[u8]>]);

impl Cursor for Decoded<'_> {
    #[inline]
    fn split(&self) -> (&[u8], Option<Self>) {
        match self.0 {
            [] => (&[], None),
            [last] => (last, None),
            [first, more @ ..] => (first, Some(Self(more))),
        }
    }

    #[inline]
    fn has_text(&self) -> bool {
        self.0.len() > 1 || self.0.first().is_some_and(|segment| !segment.is_empty())
    }
}

fn same_shape(left: &Mixed, right: &Mixed) -> bool {
    left.prefix == right.prefix
        && left.parts.len() == right.parts.len()
        && left.parts.iter().zip(&right.parts).all(|((_, a), (_, b))| a == b)
}

/// Appends a decoded segment as a client would send it (RFC 3986 section 3.3).
fn push_segment(path: &mut String, segment: &[u8]) {
    path.push('/');
    for byte in segment {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => path.push(char::from(*byte)),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':'
            | b'@' => {
                path.push(char::from(*byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::pattern::Pattern;

    fn index(patterns: &[&str]) -> (PathIndex, Vec<ShapeId>) {
        let mut index = PathIndex::new(false);
        let shapes =
            patterns.iter().map(|pattern| index.insert(&Pattern::parse(pattern).unwrap().segments, 0).0).collect();
        (index, shapes)
    }

    fn found<'p>(patterns: &[&'p str], path: &str) -> Option<&'p str> {
        let (index, shapes) = index(patterns);
        let hit = index.find(MatchPath::Plain(path))?;
        shapes.iter().position(|shape| *shape == hit).map(|at| patterns[at])
    }

    #[test]
    fn a_literal_beats_typed_beats_mixed_beats_a_name_beats_the_rest() {
        let all = ["/a/{rest...}", "/a/{name}", "/a/{id}.json", "/a/{n:int}", "/a/{u:uuid}", "/a/b"];
        for (path, expected) in [
            ("/a/b", Some("/a/b")),
            ("/a/7", Some("/a/{n:int}")),
            ("/a/07", Some("/a/{name}")),
            ("/a/123e4567-e89b-12d3-a456-426614174000", Some("/a/{u:uuid}")),
            ("/a/x.json", Some("/a/{id}.json")),
            ("/a/.json", Some("/a/{name}")),
            ("/a/x", Some("/a/{name}")),
            ("/a/x/y", Some("/a/{rest...}")),
            ("/a/b/", Some("/a/{rest...}")),
            ("/a/", None),
            ("/a", None),
            ("/", None),
            ("/b/b", None),
        ] {
            assert_eq!(found(&all, path), expected, "{path}");
        }
    }

    #[test]
    fn the_search_turns_back_for_a_whole_path() {
        let paths = ["/a/b/c", "/a/{x}/d", "/{y}/b/e", "/{rest...}"];
        assert_eq!(found(&paths, "/a/b/d"), Some("/a/{x}/d"));
        assert_eq!(found(&paths, "/a/b/e"), Some("/{y}/b/e"));
        assert_eq!(found(&paths, "/a/b/f"), Some("/{rest...}"));
        assert_eq!(found(&["/{a}/x", "/b/{c}"], "/b/x"), Some("/b/{c}"));
    }

    #[test]
    fn the_longest_literal_text_goes_first() {
        let paths = ["/{a}.json", "/{a}.tar.gz", "/{a}.gz", "/pre-{a}.gz"];
        assert_eq!(found(&paths, "/x.tar.gz"), Some("/{a}.tar.gz"));
        assert_eq!(found(&paths, "/pre-x.gz"), Some("/pre-{a}.gz"));
        assert_eq!(found(&paths, "/pre-x.tar.gz"), Some("/{a}.tar.gz"));
    }

    #[test]
    fn mixed_segments_of_equal_length_are_decided_by_what_follows() {
        let paths = ["/{a}-x{b}/{z}", "/{a}x-{b}/y"];
        assert_eq!(found(&paths, "/1-x-x-2/y"), Some("/{a}x-{b}/y"));
        assert_eq!(found(&paths, "/1-x-x-2/q"), Some("/{a}-x{b}/{z}"));
        assert!(index(&paths).0.ties().is_empty());
    }

    #[test]
    fn same_shapes_share_a_node_whatever_the_names() {
        let (_, shapes) = index(&["/a/{x}/{y}.json", "/a/{b}/{c}.json", "/a/{b}/{c}.xml"]);
        assert_eq!(shapes[0], shapes[1]);
        assert_ne!(shapes[0], shapes[2]);
    }

    #[test]
    fn a_tie_comes_with_a_path_that_matches_both() {
        let (tied, shapes) = index(&["/t/{a}-x{b}/{n:int}/l", "/t/{a}x-{b}/{n:int}/l", "/t/{a}.json", "/t/{a}.yaml"]);
        let ties = tied.ties();
        assert_eq!(ties.len(), 1);
        assert_eq!((ties[0].left, ties[0].right), (shapes[0], shapes[1]));
        for only in ["/t/{a}-x{b}/{n:int}/l", "/t/{a}x-{b}/{n:int}/l"] {
            assert_eq!(found(&[only], &ties[0].witness), Some(only), "{}", ties[0].witness);
        }
    }

    #[test]
    fn folding_ignores_the_case_of_literals_only() {
        let mut index = PathIndex::new(true);
        let (shape, _) = index.insert(&Pattern::parse("/Api/{id}/List").unwrap().segments, 7);
        assert_eq!(index.insert(&Pattern::parse("/aPI/{id}/liST").unwrap().segments, 8), (shape, 7));
        assert_eq!(index.find(MatchPath::Plain("/API/AbC/list")), Some(shape));
    }

    #[test]
    fn long_literals_and_decoded_segments_match() {
        let long = format!("/{}/x", "l".repeat(100));
        assert_eq!(found(&[&long], &long), Some(&*long));
        let (index, shapes) = index(&["/a%3Ab/{rest...}"]);
        let segments = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().into()).collect::<Vec<Box<[u8]>>>();
        assert_eq!(index.find(MatchPath::Decoded(&segments(&["a:b", "c", ""]))), Some(shapes[0]));
        assert_eq!(index.find(MatchPath::Decoded(&segments(&["a:b", ""]))), None);
        assert_eq!(index.find(MatchPath::Decoded(&[])), None);
    }

    #[test]
    fn a_child_belongs_to_its_parent_where_ways_are_the_same() {
        let paths = ["/{n:int}/x", "/{u:uuid}/x", "/{a}.json/x", "/{b}.xml/x"];
        let (mut index, _) = index(&paths);
        let probes = ["/7/x", "/123e4567-e89b-12d3-a456-426614174000/x", "/a.json/x", "/a.xml/x"];
        let mut check = |settle: bool| {
            if settle {
                index.settle(|value| (value, 0));
            }
            let hits: Vec<ShapeId> = probes.iter().map(|path| index.find(MatchPath::Plain(path)).unwrap()).collect();
            let examples: Vec<String> = hits.iter().map(|hit| index.example_of(*hit)).collect();
            assert_eq!(examples[..2], ["/1/x", "/00000000-0000-4000-8000-000000000000/x"]);
            assert!(examples[2].ends_with(".json/x") && examples[3].ends_with(".xml/x"), "{examples:?}");
        };
        check(false);
        check(true);
    }

    #[test]
    fn literals_of_every_length_are_told_apart() {
        let text = |length: usize, last: char| format!("/{}{last}", "l".repeat(length));
        for length in (0..40).chain(250..260) {
            let (a, b) = (text(length, 'a'), text(length, 'b'));
            assert_eq!(found(&[&a, &b], &b), Some(&*b), "{length}");
            assert_eq!(found(&[&a], &b), None, "{length}");
            for at in 0..length {
                let mut other = a.clone().into_bytes();
                other[at + 1] = b'x';
                assert!(!same(a.as_bytes(), &other) && same(a.as_bytes(), a.as_bytes()), "{length}, {at}");
            }
        }
    }

    #[test]
    fn settling_puts_names_beside_their_parents() {
        let (mut index, _) = index(&["/a", "/b", "/b/{x}", "/c", "/d/{y}/{z}", "/d/{y}/e/{f}"]);
        index.settle(|value| (value, 0));
        for path in ["/b/1", "/d/1/e/1"] {
            let shape = index.find(MatchPath::Plain(path)).unwrap();
            assert_eq!(index.nodes[shape.0].parent / 2, shape.0 / 2, "{path}");
        }
        assert_eq!(index.find(MatchPath::Plain("/d/1/2")).map(|shape| index.depth(shape)), Some(3));
    }

    /// The definition, without an index: rank of each segment, `None` if the pattern does not match.
    fn rank(pattern: &Pattern, path: &str) -> Option<Vec<(u8, usize)>> {
        let segments: Vec<&str> = path[1..].split('/').collect();
        let mut ranks = Vec::new();
        for (number, segment) in pattern.segments.iter().enumerate() {
            let text = segments.get(number)?.as_bytes();
            ranks.push(match segment {
                Segment::Literal(literal) if **literal == *text => (0, 0),
                Segment::Typed(_, kind) if kind.accepts(text) => (1, 0),
                Segment::Mixed(mixed) if mixed.split(text, false).is_some() => (2, usize::MAX - mixed.literal_len()),
                Segment::Param(_) if !text.is_empty() => (3, 0),
                Segment::Rest(_) if !segments[number..].join("/").is_empty() => {
                    ranks.push((4, 0));
                    return Some(ranks);
                }
                _ => return None,
            });
        }
        (ranks.len() == segments.len()).then_some(ranks)
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => prop::sample::select(vec!["a", "b", "ab", "1"]).prop_map(str::to_owned),
            2 => Just("{}".to_owned()),
            1 => Just("{:int}".to_owned()),
            2 => prop::sample::select(vec!["{}a", "a{}", "{}a{}", "{}b", "b{}b", "{}ab{}", "{}ba{}"]).prop_map(str::to_owned),
        ]
    }

    fn pattern() -> impl Strategy<Value = String> {
        (prop::collection::vec(segment(), 1..4), prop::sample::select(vec!["", "", "/", "/{...}"])).prop_map(
            |(segments, end)| {
                let shape = format!("/{}{end}", segments.join("/"));
                let mut number = 0;
                let mut named = String::new();
                for letter in shape.chars() {
                    named.push(letter);
                    if letter == '{' {
                        number += 1;
                        named.push_str(&format!("p{number}"));
                    }
                }
                named
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_trie_is_the_definition(
            patterns in prop::collection::vec(pattern(), 1..8),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "ba", "1", "aba", "bab", "x", "aab"]), 1..5),
            slash in any::<bool>(),
        ) {
            let path = format!("/{}{}", path.join("/"), if slash { "/" } else { "" });
            let mut index = PathIndex::new(false);
            let parsed: Vec<(ShapeId, Pattern)> = patterns
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .map(|pattern| (index.insert(&pattern.segments, 0).0, pattern))
                .collect();
            let hit = index.find(MatchPath::Plain(&path));
            let best = parsed.iter().filter_map(|(shape, pattern)| Some((rank(pattern, &path)?, *shape))).min();
            match best {
                None => prop_assert_eq!(hit, None),
                Some((best_rank, _)) => {
                    let mut winners: Vec<ShapeId> = parsed.iter()
                        .filter(|(_, pattern)| rank(pattern, &path).as_ref() == Some(&best_rank))
                        .map(|(shape, _)| *shape).collect();
                    winners.sort();
                    winners.dedup();
                    prop_assert!(winners.contains(&hit.unwrap()), "{:?} for {}", hit, path);
                    // Two winners are a tie, and every tie is found when the policy is compiled.
                    if winners.len() > 1 {
                        let ties = index.ties();
                        prop_assert!(winners.iter().any(|a| winners.iter().any(|b| ties.iter().any(|tie| tie.left == *a && tie.right == *b))));
                    }
                }
            }
            for tie in index.ties() {
                for shape in [tie.left, tie.right] {
                    let (_, pattern) = parsed.iter().find(|(other, _)| *other == shape).unwrap();
                    prop_assert!(rank(pattern, &tie.witness).is_some(), "{} does not match {:?}", tie.witness, pattern);
                }
            }
            // Laid out anew, it finds the same.
            let value = hit.map(|shape| index.example_of(shape));
            index.settle(|value| (value, 7));
            let settled = index.find(MatchPath::Plain(&path));
            prop_assert_eq!(settled.map(|shape| index.example_of(shape)), value);
            prop_assert!(settled.is_none_or(|shape| index.plan(shape) == 7));
            let hit = settled;
            let segments: Vec<Box<[u8]>> = path[1..].split('/').map(|segment| segment.as_bytes().into()).collect();
            prop_assert_eq!(index.find(MatchPath::Decoded(&segments)), hit);
        }
    }
}
