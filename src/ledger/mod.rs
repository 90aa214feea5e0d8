//! The truth on disk until there is SQL (SPEC 8): a folder of signed, numbered changes, which a restart, a `kill -9` and a second
//! process on the same folder all find as it was acknowledged.
//!
//! ```text
//! data/revocations/            0700, made with the first change
//!   lock                       held (flock) by who appends or swaps
//!   manifest                   one signed line: truth, base, segments
//!   segments/<sha256>          Records, one JSON a line; never changed once they are named
//!   changes.log                what came after `base`: signed changes, one a line, in the form of `revocation::change`
//! ```
//!
//! **Recording** ([`Ledger::record`], [`Ledger::revoke`]): callers are gathered; one writer takes the lock, reads what others appended,
//! numbers (`max(last + 1, Unix milliseconds)`, T2), signs, appends, `fdatasync`s once for all, applies to the index, and only then
//! anybody hears of it (T16).
//!
//! **Following** ([`Ledger::follow`]): what other processes appended is read and applied, without the lock (T12).
//!
//! **Tending** ([`Ledger::tend`]): a long tail becomes a segment, many segments become few, what is over drops out (T5). The work is
//! done outside the lock, and a crash at any step leaves a folder that opens.
//!
//! **Publishing** is somebody else's: it takes [`Ledger::state`] or [`Ledger::changes_after`], wakes by [`Ledger::subscribe`], and
//! tells [`Ledger::published`].
//!
//! Knows: changes, signatures, files. Must not know: Redis, HTTP, what an entry means beyond when it is over and what replaces it.

pub mod error;
mod folder;
pub mod handle;
mod lines;
mod peek;
mod records;
mod segments;
mod steps;
mod tend;
mod truth;
mod writer;

pub use self::error::LedgerError;
pub use self::handle::{Ledger, LedgerSettings, Looked, Published, Receipt, Recorded, State};
pub use self::peek::last_number;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
