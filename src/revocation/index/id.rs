//! What stands for an id in the index: 128 bits, whatever its length.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use foldhash::quality::RandomState as FoldState;

/// The keys of the two hashes, drawn when the index is made and known to nobody.
///
/// The first half, by foldhash, says where to look and costs a few nanoseconds. The second, by SipHash-1-3 with a key from the
/// operating system, is asked for only where the first fits, and is what makes two ids the same: that a stranger finds another id of
/// the same 128 bits takes 2⁶⁴ tries against a key that he cannot see the results of, and all he would have is that a token counts as
/// revoked which is not. A revoked id is found whatever it collides with, so a collision never lets anything through. Among a million
/// entries a request meets one by chance with a probability of 10⁻³² or so.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    place: FoldState,
    proof: RandomState,
}

/// An id, hashed as far as it is needed.
#[derive(Debug)]
pub(super) struct Id<'t> {
    hashing: &'t Hashing,
    issuer: Option<&'t str>,
    text: &'t str,
    place: u64,
}

impl Hashing {
    /// Of an id that is unique by itself.
    #[inline]
    pub(super) fn id<'t>(&'t self, text: &'t str) -> Id<'t> {
        let mut hasher = self.place.build_hasher();
        hasher.write(text.as_bytes());
        Id { hashing: self, issuer: None, text, place: hasher.finish() }
    }

    /// Of an id that is unique within one issuer.
    #[inline]
    pub(super) fn id_of<'t>(&'t self, issuer: &'t str, text: &'t str) -> Id<'t> {
        let mut hasher = self.place.build_hasher();
        hasher.write(issuer.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(text.as_bytes());
        Id { hashing: self, issuer: Some(issuer), text, place: hasher.finish() }
    }
}

impl Id<'_> {
    /// The first half.
    #[inline]
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// The second half.
    pub(super) fn proof(&self) -> u64 {
        let mut hasher = self.hashing.proof.build_hasher();
        if let Some(issuer) = self.issuer {
            // No text holds this byte, so what stands before it cannot be mistaken for the rest.
            hasher.write(issuer.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.write(self.text.as_bytes());
        hasher.finish()
    }
}
