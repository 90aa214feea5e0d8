//! Chunked framing: read in one piece or byte by byte, it ends at the same place or fails alike.
#![no_main]

use doorward::request::chunked::{ChunkedReader, Progress};
use libfuzzer_sys::fuzz_target;

/// Where the body ends, `None` if it goes on, or that it is malformed.
fn read(bytes: &[u8], step: usize) -> Result<Option<usize>, ()> {
    let mut reader = ChunkedReader::default();
    let mut before = 0;
    for piece in bytes.chunks(step) {
        match reader.feed(piece).map_err(drop)? {
            Progress::More => before += piece.len(),
            Progress::Done(count) => {
                assert!(count <= piece.len());
                return Ok(Some(before + count));
            }
        }
    }
    assert!(reader.data_bytes() <= bytes.len() as u64);
    Ok(None)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(read(bytes, step), whole, "in steps of {step}");
    }
});
