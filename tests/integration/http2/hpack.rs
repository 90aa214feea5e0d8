//! The least of HPACK that a client needs (RFC 7541): indexed fields of the static table, literals without Huffman
//! coding.

/// Fields that the static table has with their values (RFC 7541 appendix A), and their indices.
const INDEXED: [(&str, &str, u8); 5] =
    [(":method", "GET", 2), (":method", "POST", 3), (":path", "/", 4), (":scheme", "http", 6), (":scheme", "https", 7)];
/// Names that the static table has, and their indices.
const NAMED: [(&str, u8); 4] = [(":authority", 1), (":method", 2), (":path", 4), (":scheme", 6)];

/// One header block of these fields. Literals go into the peer's dynamic table.
pub(super) fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        if let Some((.., index)) = INDEXED.iter().find(|(known, with, _)| (known, with) == (name, value)) {
            block.push(0x80 | index);
            continue;
        }
        match NAMED.iter().find(|(known, _)| known == name) {
            Some((_, index)) => block.push(0x40 | index),
            None => {
                block.push(0x40);
                string(&mut block, name);
            }
        }
        string(&mut block, value);
    }
    block
}

/// A change of the dynamic table's size to this many bytes (RFC 7541 section 6.3).
pub(super) fn size_update(size: u32) -> Vec<u8> {
    let mut block = Vec::new();
    integer(&mut block, 0x20, 5, size);
    block
}

/// The status that a header block of an answer begins with.
pub(super) fn status(block: &[u8]) -> Option<u16> {
    // Updates of the dynamic table's size may come first.
    let begin = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match &block[begin..] {
        [indexed @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
        [0x48 | 0x08 | 0x18, 3, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        [0x48 | 0x08 | 0x18, length, coded @ ..] if length & 0x80 != 0 => {
            let bits =
                coded.iter().take(usize::from(length & 0x7f)).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            digits(bits, u32::from(length & 0x7f) * 8)
        }
        _ => None,
    }
}

/// Three digits in Huffman coding (RFC 7541 appendix B): 0 to 2 have five bits, the others six.
fn digits(bits: u32, mut left: u32) -> Option<u16> {
    let mut number = 0;
    for _ in 0..3 {
        let five = bits >> left.checked_sub(5)? & 0x1f;
        let digit = if five < 3 {
            left -= 5;
            five
        } else {
            left = left.checked_sub(6)?;
            (bits >> left & 0x3f).checked_sub(0x19)? + 3
        };
        number = number * 10 + digit;
    }
    u16::try_from(number).ok()
}

fn string(block: &mut Vec<u8>, text: &str) {
    integer(block, 0, 7, u32::try_from(text.len()).expect("a short string"));
    block.extend_from_slice(text.as_bytes());
}

/// RFC 7541 section 5.1: the first byte has `bits` bits for the number beside its `mark`.
fn integer(block: &mut Vec<u8>, mark: u8, bits: u32, number: u32) {
    let most = (1_u32 << bits) - 1;
    if number < most {
        block.push(mark | u8::try_from(number).expect("below 128"));
        return;
    }
    block.push(mark | u8::try_from(most).expect("below 128"));
    let mut rest = number - most;
    while rest >= 128 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push((rest & 0x7f) as u8);
}
