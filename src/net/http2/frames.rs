//! Following the frames of an HTTP/2 connection (RFC 9113 section 4) as their bytes go by, without taking any.

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Bytes of a payload that are kept: an error code and what is said of it, the longest of which is
/// `header_list_way_too_large`.
const KEPT: usize = 40;
/// What a client begins with (section 3.4).
const PREFACE: usize = 24;

/// The types of frames that mean something here (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    Goaway,
    Window,
    Continuation,
    /// All others: settings, pings, priorities, and what nobody knows.
    Other,
}

/// A frame that went by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'f> {
    pub(super) kind: Kind,
    pub(super) stream: u32,
    pub(super) length: u32,
    flags: u8,
    /// The first bytes of its payload.
    payload: &'f [u8],
}

impl Frame<'_> {
    /// DATA and HEADERS: nothing follows in this direction.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & 0x1 != 0
    }

    /// HEADERS and CONTINUATION: the header block ends.
    pub(super) fn ends_headers(&self) -> bool {
        self.flags & 0x4 != 0
    }

    /// The error code of RST_STREAM or GOAWAY (section 7).
    pub(super) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            Kind::Reset => 0,
            Kind::Goaway => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// What GOAWAY says beside its code.
    pub(super) fn debug_data(&self) -> &[u8] {
        self.payload.get(8..).filter(|_| self.kind == Kind::Goaway).unwrap_or_default()
    }
}

/// Where in its frames one direction of a connection is.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the payload that are still to come.
    left: u32,
    payload: [u8; KEPT],
    kept: usize,
    /// Within a header block that goes on in another frame.
    in_block: bool,
}

impl Frames {
    /// What a client sends.
    pub(super) fn of_client() -> Self {
        Self { preface: PREFACE, ..Self::of_server() }
    }

    /// What a server sends.
    pub(super) fn of_server() -> Self {
        Self { preface: 0, head: [0; HEAD], have: 0, left: 0, payload: [0; KEPT], kept: 0, in_block: false }
    }

    /// Whether something was begun that is sent in one go: the preface, a frame other than DATA, a header block.
    pub(super) fn owes_head(&self) -> bool {
        self.preface > 0 || self.in_block || self.have > 0 && !self.is_within_data()
    }

    /// Whether a DATA frame was begun.
    pub(super) fn is_within_data(&self) -> bool {
        self.have == HEAD && self.head[3] == 0
    }

    /// Goes on by these bytes, and tells of each frame that they end. Once it says `false`, nothing more is looked at.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut ended: impl FnMut(&Frame<'_>) -> bool) -> bool {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.have < HEAD {
                let take = (HEAD - self.have).min(bytes.len());
                self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < HEAD {
                    return true;
                }
                self.left = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
                self.kept = 0;
            }
            let take = bytes.len().min(self.left as usize);
            let keep = take.min(KEPT - self.kept);
            self.payload[self.kept..self.kept + keep].copy_from_slice(&bytes[..keep]);
            self.kept += keep;
            self.left -= take as u32;
            bytes = &bytes[take..];
            if self.left == 0 && !self.end(&mut ended) {
                return false;
            }
        }
        true
    }

    fn end(&mut self, ended: &mut impl FnMut(&Frame<'_>) -> bool) -> bool {
        self.have = 0;
        let frame = Frame {
            kind: match self.head[3] {
                0 => Kind::Data,
                1 => Kind::Headers,
                3 => Kind::Reset,
                7 => Kind::Goaway,
                8 => Kind::Window,
                9 => Kind::Continuation,
                _ => Kind::Other,
            },
            flags: self.head[4],
            stream: u32::from_be_bytes([self.head[5] & 0x7F, self.head[6], self.head[7], self.head[8]]),
            length: u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]),
            payload: &self.payload[..self.kept],
        };
        match frame.kind {
            Kind::Headers | Kind::Continuation => self.in_block = !frame.ends_headers(),
            _ => {}
        }
        ended(&frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn sent() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(1, 0x1, 1, b"block"));
        bytes.extend(frame(9, 0x4, 1, b"ends"));
        bytes.extend(frame(0, 0x1, 3, &[0; 300]));
        bytes.extend(frame(3, 0, 3, &[0, 0, 0, 8]));
        bytes.extend(frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0btoo_many_resets and more than anybody keeps"));
        bytes
    }

    fn followed(pieces: &[&[u8]]) -> Vec<(Kind, u32, bool, Option<u32>)> {
        let mut frames = Frames::of_client();
        let mut seen = Vec::new();
        for piece in pieces {
            frames.feed(piece, |frame| {
                seen.push((frame.kind, frame.stream, frame.ends_stream(), frame.code()));
                true
            });
        }
        assert!(!frames.owes_head() && !frames.is_within_data());
        seen
    }

    #[test]
    fn frames_are_the_same_wherever_their_bytes_are_cut() {
        let sent = sent();
        let whole = followed(&[&sent]);
        assert_eq!(
            whole,
            [
                (Kind::Other, 0, false, None),
                (Kind::Headers, 1, true, None),
                (Kind::Continuation, 1, false, None),
                (Kind::Data, 3, true, None),
                (Kind::Reset, 3, false, Some(8)),
                (Kind::Goaway, 0, false, Some(11)),
            ]
        );
        for cut in 0..sent.len() {
            assert_eq!(followed(&[&sent[..cut], &sent[cut..]]), whole, "{cut}");
        }
        assert_eq!(followed(&sent.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn it_is_known_what_is_owed() {
        let sent = sent();
        let after = |length: usize| {
            let mut frames = Frames::of_client();
            frames.feed(&sent[..length], |_| true);
            (frames.owes_head(), frames.is_within_data())
        };
        assert_eq!(after(10), (true, false), "the preface");
        assert_eq!(after(24), (false, false), "between frames");
        assert_eq!(after(30), (true, false), "within settings");
        assert_eq!(after(24 + 9 + 14), (true, false), "a header block that goes on");
        assert_eq!(after(24 + 9 + 14 + 13), (false, false), "its end");
        assert_eq!(after(24 + 9 + 14 + 13 + 20), (false, true), "within data");
    }

    #[test]
    fn what_goaway_says_is_kept() {
        let mut said = Vec::new();
        Frames::of_client().feed(&sent(), |frame| {
            said.extend_from_slice(frame.debug_data());
            true
        });
        assert!(said.starts_with(b"too_many_resets"));
    }
}
