//! Shapes that some request cannot tell apart, each with such a request.

use super::{Kind, LITERALS, NONE, PathIndex, ShapeId};

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

const UUID: &[u8] = b"00000000-0000-4000-8000-000000000000";

impl PathIndex {
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

    /// A path that matches the shape.
    #[must_use]
    pub fn example_of(&self, shape: ShapeId) -> String {
        self.example(shape.0)
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
