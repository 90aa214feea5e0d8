//! A strict reader of chunked framing (RFC 9112 section 7.1) that follows a body without touching it.

use super::Rejection;
use super::head::{is_field_value, is_spelling, is_token};

/// Where in a chunked body the stream stands. Feed it every byte in order.
#[derive(Debug, Clone, Default)]
pub struct ChunkedReader {
    state: State,
    data: u64,
}

/// What a piece of the stream did to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All bytes belong to the body; more are to come.
    More,
    /// The body, trailers included, ended behind this many bytes of the piece.
    Done(usize),
}

/// Bytes of the extensions of one chunk.
const LONGEST_EXTENSION: usize = 4 * 1024;
/// Bytes of the trailer section.
const LONGEST_TRAILERS: usize = 16 * 1024;
/// Hexadecimal digits of a chunk's size: 64 bits.
const MOST_DIGITS: u8 = 16;

/// Fields that RFC 9110 section 6.5.1 keeps out of trailers: a server that merges trailers into its
/// headers would be framed, routed or authenticated by them after the decision.
const NEVER_TRAILERS: [&[u8]; 13] = [
    b"transfer-encoding",
    b"content-length",
    b"host",
    b"authorization",
    b"content-type",
    b"content-encoding",
    b"content-range",
    b"connection",
    b"cookie",
    b"expect",
    b"te",
    b"trailer",
    b"upgrade",
];
/// One byte more than the longest of them.
const NAME_KEPT: usize = 18;

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// At the beginning of a chunk.
    #[default]
    Start,
    /// Behind this many digits of a size.
    Size {
        digits: u8,
        size: u64,
    },
    /// In the extensions of a chunk, this many bytes into them.
    Extension {
        size: u64,
        length: usize,
        part: Part,
    },
    /// Behind the CR of a size line.
    SizeEnd {
        size: u64,
    },
    /// In a chunk's data, which goes on for this many bytes.
    Data {
        left: u64,
    },
    /// Behind the data, before its CR.
    DataCr,
    /// Before the LF behind the data.
    DataLf,
    /// At the beginning of a line of the trailer section, this many bytes into the section.
    Line {
        length: usize,
    },
    /// In the name of a trailer.
    Name {
        length: usize,
        name: [u8; NAME_KEPT],
        kept: u8,
    },
    /// In the value of a trailer.
    Value {
        length: usize,
    },
    /// Behind the CR of a trailer line.
    ValueEnd {
        length: usize,
    },
    /// Behind the CR of the empty line.
    LastLf,
    Done,
    Failed,
}

/// A part of `; name [= value]`.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Behind `;`.
    NameStart,
    Name,
    /// Behind `=`.
    ValueStart,
    Value,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    /// Behind the closing quote.
    QuotedEnd,
}

impl ChunkedReader {
    /// Reads a piece of the stream. Behind the end, every piece is `Done(0)`.
    ///
    /// # Errors
    /// `bad_request` for sizes that are not plain hexadecimal (at most 16 digits), bare line feeds, white space or
    /// control characters in extensions, over 4 KiB of one chunk's extensions, over 16 KiB of trailers, malformed
    /// trailer lines, or a trailer that may only be a header. After one error, every piece is one.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Progress, Rejection> {
        let mut at = 0;
        while at < piece.len() {
            if let State::Data { left } = self.state {
                // Data is skipped, not read.
                let rest = piece.len() - at;
                let step = usize::try_from(left).map_or(rest, |left| left.min(rest));
                at += step;
                let step = step as u64;
                self.data = self.data.saturating_add(step);
                self.state = if left == step { State::DataCr } else { State::Data { left: left - step } };
                continue;
            }
            if matches!(self.state, State::Done) {
                break;
            }
            match next(self.state, piece[at]) {
                Ok(state) => self.state = state,
                Err(detail) => {
                    self.state = State::Failed;
                    return Err(Rejection::request(detail));
                }
            }
            at += 1;
        }
        Ok(if matches!(self.state, State::Done) { Progress::Done(at) } else { Progress::More })
    }

    /// Bytes of chunk data so far: the length of the body without its framing.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data
    }
}

/// The state behind one byte of framing, or what is wrong with it.
fn next(state: State, byte: u8) -> Result<State, &'static str> {
    Ok(match state {
        State::Start => match hex(byte) {
            Some(digit) => State::Size { digits: 1, size: digit },
            None => return Err("a chunk without a size"),
        },
        State::Size { digits, size } => match (byte, hex(byte)) {
            (_, Some(_)) if digits == MOST_DIGITS => return Err("a chunk size of over 16 digits"),
            (_, Some(digit)) => State::Size { digits: digits + 1, size: size << 4 | digit },
            (b';', _) => State::Extension { size, length: 0, part: Part::NameStart },
            (b'\r', _) => State::SizeEnd { size },
            _ => return Err("a chunk size that is not plain hexadecimal"),
        },
        State::Extension { length: LONGEST_EXTENSION, .. } => return Err("chunk extensions of over 4 KiB"),
        State::Extension { size, length, part } => match extension(part, byte)? {
            Some(part) => State::Extension { size, length: length + 1, part },
            None => State::SizeEnd { size },
        },
        State::SizeEnd { size } => match (byte, size) {
            (b'\n', 0) => State::Line { length: 0 },
            (b'\n', left) => State::Data { left },
            _ => return Err("a bare carriage return in a chunk size"),
        },
        State::DataCr if byte == b'\r' => State::DataLf,
        State::DataLf if byte == b'\n' => State::Start,
        State::DataCr | State::DataLf | State::Data { .. } => return Err("a chunk whose data does not end in CRLF"),
        State::Line { .. } if byte == b'\r' => State::LastLf,
        State::Line { length } | State::Name { length, .. } | State::Value { length } | State::ValueEnd { length }
            if length >= LONGEST_TRAILERS =>
        {
            return Err("trailers of over 16 KiB");
        }
        State::Line { length } => name(length + 1, [0; NAME_KEPT], 0, byte)?,
        State::Name { kept, ref name, .. } if byte == b':' && forbidden(name, kept) => {
            return Err("a trailer that may only be a header");
        }
        State::Name { length, .. } if byte == b':' => State::Value { length: length + 1 },
        State::Name { length, name: read, kept } => name(length + 1, read, kept, byte)?,
        State::Value { length } if byte == b'\r' => State::ValueEnd { length: length + 1 },
        State::Value { length } if is_field_value(&[byte]) => State::Value { length: length + 1 },
        State::Value { .. } => return Err("a control character in a trailer"),
        State::ValueEnd { length } if byte == b'\n' => State::Line { length: length + 1 },
        State::ValueEnd { .. } => return Err("a bare carriage return in a trailer"),
        State::LastLf if byte == b'\n' => State::Done,
        State::LastLf => return Err("a bare carriage return behind the last chunk"),
        State::Done => State::Done,
        State::Failed => return Err("a chunked body that was refused before"),
    })
}

const fn hex(byte: u8) -> Option<u64> {
    match byte {
        b'0'..=b'9' => Some((byte - b'0') as u64),
        b'a'..=b'f' => Some((byte - b'a') as u64 + 10),
        b'A'..=b'F' => Some((byte - b'A') as u64 + 10),
        _ => None,
    }
}

/// The part of an extension behind one byte (RFC 9112 section 7.1.1, without its bad white space); `None` behind CR.
fn extension(part: Part, byte: u8) -> Result<Option<Part>, &'static str> {
    Ok(Some(match (part, byte) {
        (Part::Name | Part::Value | Part::QuotedEnd, b'\r') => return Ok(None),
        (Part::Name | Part::Value | Part::QuotedEnd, b';') => Part::NameStart,
        (Part::Name, b'=') => Part::ValueStart,
        (Part::NameStart | Part::Name, _) if is_token(byte) => Part::Name,
        (Part::ValueStart, b'"') => Part::Quoted,
        (Part::ValueStart | Part::Value, _) if is_token(byte) => Part::Value,
        (Part::Quoted, b'"') => Part::QuotedEnd,
        (Part::Quoted, b'\\') => Part::Escaped,
        (Part::Quoted | Part::Escaped, _) if is_field_value(&[byte]) => Part::Quoted,
        _ => return Err("a malformed chunk extension"),
    }))
}

/// One more byte of a trailer's name.
fn name(length: usize, mut name: [u8; NAME_KEPT], kept: u8, byte: u8) -> Result<State, &'static str> {
    if !is_token(byte) {
        return Err("a malformed trailer line");
    }
    // Of longer names it is enough to know that they are longer.
    if let Some(slot) = name.get_mut(usize::from(kept)) {
        *slot = byte;
        return Ok(State::Name { length, name, kept: kept + 1 });
    }
    Ok(State::Name { length, name, kept })
}

fn forbidden(name: &[u8; NAME_KEPT], kept: u8) -> bool {
    NEVER_TRAILERS.iter().any(|never| is_spelling(&name[..usize::from(kept)], never))
}

#[cfg(test)]
mod tests;
