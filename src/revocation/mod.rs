//! What has been revoked, in memory (SPEC 8).
//!
//! Knows: token ids, sessions, subject floors, keys, disabled subjects. Must not know: where entries come from.

pub mod entry;
pub mod index;

pub use self::entry::{BadLine, Entry, parse_lines};
pub use self::index::{Presented, Retention, RevocationIndex, Standing};
