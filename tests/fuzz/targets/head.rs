//! A raw head: the end is found alike in one piece and in many, and what passes holds no bare line end.
#![no_main]

use doorward::request::head::{Framing, HeadLimits, end, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = end(bytes, 0);
    if let Some(whole) = whole {
        assert!(whole <= bytes.len());
    }
    let mut found = None;
    let mut seen = 0;
    for length in 0..=bytes.len() {
        found = end(&bytes[..length], seen);
        if found.is_some() {
            break;
        }
        seen = length;
    }
    assert_eq!(found, whole, "slow heads end where fast ones do");

    let head = &bytes[..whole.unwrap_or(bytes.len())];
    let Ok(facts) = inspect(head, &HeadLimits { bytes: 4096, headers: 32 }) else { return };
    assert!(head.ends_with(b"\r\n\r\n") && head.len() <= 4096);
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\n' => assert_eq!(head[at - 1], b'\r'),
            b'\r' => assert_eq!(head[at + 1], b'\n'),
            0 => panic!("NUL passed"),
            _ => {}
        }
    }
    assert_ne!(facts.framing, Framing::Length(0));
});
