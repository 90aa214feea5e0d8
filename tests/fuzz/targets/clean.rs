//! Cleaning a target: twice is once, and nothing that two parsers read differently gets through.
#![no_main]

use doorward::request::PathRules;
use doorward::request::target::{
    Case, DotSegments, DoubleSlash, EncodedReserved, EncodedSlash, MatrixParams, TrailingSlash, clean,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (bits, target) = input;
    let on = |bit: u8| bits & (1 << bit) != 0;
    let rules = PathRules {
        dot_segments: if on(0) { DotSegments::Resolve } else { DotSegments::Refuse },
        double_slash: if on(1) { DoubleSlash::Merge } else { DoubleSlash::Refuse },
        matrix_params: if on(2) { MatrixParams::Keep } else { MatrixParams::Refuse },
        encoded_slash: if on(3) { EncodedSlash::Keep } else { EncodedSlash::Refuse },
        encoded_reserved: if on(4) { EncodedReserved::Keep } else { EncodedReserved::Refuse },
        case: if on(5) { Case::Insensitive } else { Case::Sensitive },
        trailing_slash: if on(6) { TrailingSlash::Same } else { TrailingSlash::Distinct },
    };
    let Ok(once) = clean(target, &rules) else { return };
    let path = once.path();
    assert!(path.starts_with('/') && path.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{path:?}");
    assert!(!path.contains(['?', '#', '\\']) && !path.contains("//"), "{path:?}");
    for segment in path[1..].split('/') {
        let bare = segment.split(';').next().unwrap_or_default();
        assert!(bare != "." && bare != "..", "{path:?}");
    }
    if !on(4) {
        assert!(!path.contains("%25"), "{path:?}");
    }
    if !on(3) {
        assert!(!path.contains("%2F"), "{path:?}");
    }
    let twice = clean(once.path_and_query(), &rules).expect("what was cleaned is clean");
    assert_eq!(twice.path_and_query(), once.path_and_query());
});
