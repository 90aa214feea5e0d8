//! A strict reader of chunked framing (RFC 9112 section 7.1) that follows a body without touching it.

use super::Rejection;

/// Where in a chunked body the stream stands. Feed it every byte in order.
#[derive(Debug, Clone, Default)]
pub struct ChunkedReader {
    state: u8,
}

/// What a piece of the stream did to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All bytes belong to the body; more are to come.
    More,
    /// The body, trailers included, ended behind this many bytes of the piece.
    Done(usize),
}

impl ChunkedReader {
    /// Reads a piece of the stream.
    ///
    /// # Errors
    /// `bad_request` for sizes that are not plain hexadecimal (at most 16 digits), bare line feeds,
    /// control characters in extensions, over 4 KiB of one extension, over 16 KiB of trailers or malformed trailer lines.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Progress, Rejection> {
        let _ = (piece, self.state);
        todo!()
    }
}
