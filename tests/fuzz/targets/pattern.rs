//! The grammar of path patterns: what parses is bounded, and its mixed segments match their own examples.
#![no_main]

use doorward::policy::pattern::{MAX_SEGMENTS, Pattern, Segment};
use doorward::request::PathRules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(pattern) = Pattern::parse(text) else { return };
    assert!(text.starts_with('/'));
    assert!((1..=MAX_SEGMENTS).contains(&pattern.segments.len()));
    let last = pattern.segments.len() - 1;
    for (at, segment) in pattern.segments.iter().enumerate() {
        match segment {
            Segment::Rest(_) => assert_eq!(at, last, "{text:?}"),
            Segment::Literal(bytes) => assert!(!bytes.is_empty() || at == last, "{text:?}"),
            Segment::Mixed(mixed) => assert!(mixed.split(&mixed.example(), false).is_some(), "{text:?}"),
            Segment::Typed(..) | Segment::Param(_) => {}
        }
    }
    let mut names: Vec<&str> = pattern.params().map(|(name, _)| name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a name stands twice in {text:?}");
    let _ = pattern.unmet(&PathRules::default());
});
