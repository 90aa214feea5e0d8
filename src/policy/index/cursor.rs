//! The two forms in which a path is walked along.

/// A path that is walked along, segment by segment. Copies are cheap, for turning back.
pub(super) trait Cursor: Copy {
    /// The segment here, and where the next one begins, if there is one.
    fn split(&self) -> (&[u8], Option<Self>);
    /// Whether one byte or more is left.
    fn has_text(&self) -> bool;
}

/// What is left of a path, behind a slash.
#[derive(Clone, Copy)]
pub(super) struct Plain<'p>(pub(super) &'p [u8]);

impl Cursor for Plain<'_> {
    #[inline]
    fn split(&self) -> (&[u8], Option<Self>) {
        match memchr::memchr(b'/', self.0) {
            Some(at) => (&self.0[..at], Some(Self(&self.0[at + 1..]))),
            None => (self.0, None),
        }
    }

    #[inline]
    fn has_text(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The segments that are left; at least one.
#[derive(Clone, Copy)]
pub(super) struct Decoded<'p>(pub(super) &'p [Box<[u8]>]);

impl Cursor for Decoded<'_> {
    #[inline]
    fn split(&self) -> (&[u8], Option<Self>) {
        match self.0 {
            [] => (&[], None),
            [last] => (last, None),
            [first, more @ ..] => (first, Some(Self(more))),
        }
    }

    #[inline]
    fn has_text(&self) -> bool {
        self.0.len() > 1 || self.0.first().is_some_and(|segment| !segment.is_empty())
    }
}
