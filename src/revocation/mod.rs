//! What has been revoked or changed, in memory, and the form in which it travels (SPEC 8).
//!
//! Knows: token ids, sessions, floors, overrides, keys, disabled subjects; changes and their signatures; how fresh all that is.
//! Must not know: where entries come from.

pub mod change;
pub mod entry;
pub mod freshness;
pub mod index;
pub mod signed;

pub use self::change::{Change, Heartbeat, Manifest, Record, SegmentOf};
pub use self::entry::{BadLine, Entry, FloorOf, HeldMembership, HeldRole, Override, parse_lines};
pub use self::freshness::{Freshness, OnStale};
pub use self::index::{Arrival, Counts, Held, Overridden, Overrides, Presented, Retention, RevocationIndex, Standing};
pub use self::signed::{Kind, PinnedKeys, PublicationKey};
