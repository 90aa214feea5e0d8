//! What the control plane publishes and gateways follow: the wire contract (SPEC 8; THREATS T1, T2, T10, T11).
//!
//! ```text
//!   truth (a folder; SQL once there are accounts)                    a gateway
//!   ─────────────────────────────────────────────                    ─────────
//!   segment  segment  …  segment │ change change … change  ──────▶   the whole state, then what follows it
//!   └──────── manifest ────────┘ └─── n, prev, n, prev ───┘
//!                                            ▲
//!                                        heartbeat: "everything up to n is published, I looked just now"
//! ```
//!
//! - A [`Change`] has a number that only rises and names its predecessor, so that a gap is seen. Each is signed.
//! - What is older stands in segments: one [`Record`] a line, many thousands a segment. A segment is named by its SHA-256 and never
//!   changes; the [`Manifest`] lists them and is signed, so that a million entries cost one signature.
//! - A [`Heartbeat`] is signed too. Only a newer one counts as having heard from the control plane.
//!
//! Everything signed is one line of text ([`super::signed`]), the same on disk and in Redis. A change belongs to no epoch: state and
//! stream that were lost are written again from truth under a new epoch, with the same changes.

use serde::{Deserialize, Serialize};

use super::entry::Entry;

/// One change, numbered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Its number: `max(last + 1, Unix milliseconds)` (T2).
    pub n: u64,
    /// The number of the one before; 0 for the first.
    pub prev: u64,
    /// When it was made, in Unix milliseconds, by the clock of who made it.
    pub at: u64,
    /// Its own id (UUIDv7): publishing it twice is publishing it once.
    pub id: uuid::Uuid,
    /// What it says.
    pub entry: Entry,
}

/// One line of a segment: a change that needs no chain any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// As in [`Change`].
    pub n: u64,
    /// As in [`Change`].
    pub at: u64,
    /// As in [`Change`].
    pub entry: Entry,
}

/// What the state consists of. Its changes are those after `base`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Which writing of the state this is: Unix milliseconds, rising. Numbers rise within an epoch.
    pub epoch: u64,
    /// Whose truth it is: made once, with the truth.
    pub truth: uuid::Uuid,
    /// All changes up to this number are in the segments.
    pub base: u64,
    /// The segments, oldest first.
    pub segments: Vec<SegmentOf>,
}

/// One segment of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentOf {
    /// SHA-256 of its bytes, in lower-case hex: its name.
    pub sha256: Box<str>,
    /// Lines.
    pub records: u64,
    /// Size.
    pub bytes: u64,
    /// Unix seconds after which none of its records counts, if there is such a time.
    pub expires_at: Option<i64>,
}

/// A sign of life of the control plane (T1): written every second, only after it has just read in its truth that everything up to
/// `n` is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The epoch of the state.
    pub epoch: u64,
    /// Whose truth.
    pub truth: uuid::Uuid,
    /// Everything up to this change is published.
    pub n: u64,
    /// How many records and changes the state holds: a gateway that loaded another number has not loaded it (T10).
    pub count: u64,
    /// When the truth was read, in Unix milliseconds.
    pub at: u64,
    /// For how many seconds from its arrival the truth keeps a floor, and an entry that does not say when its token ends. Whoever accepts
    /// tokens for longer loses what concerns them with its next start (T5). An older doorward does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<u64>,
}
