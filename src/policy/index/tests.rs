//! The index against the definition of precedence, and its layout.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::policy::pattern::Pattern;

fn index(patterns: &[&str]) -> (PathIndex, Vec<ShapeId>) {
    let mut index = PathIndex::new(false);
    let shapes = patterns.iter().map(|pattern| index.insert(&Pattern::parse(pattern).unwrap().segments, 0).0).collect();
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
