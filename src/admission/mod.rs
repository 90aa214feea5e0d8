//! From a request's facts and its credential to a [`Permit`] or a [`Refusal`].
//!
//! Knows: the snapshot, tokens, revocations; counts what they say. Must not know: sockets, SQL, what is done
//! with a permit. Remembers the decisions of late. Only this room makes a `Permit`, so forwarding without a decision does not compile.

pub mod admit;
pub mod cross_site;
pub mod decisions;
pub mod elsewhere;
pub mod identity;

pub use self::admit::{
    Admission, Admitted, Changes, Desk, Expiry, Judged, Permit, Readmission, Readmitted, Refusal, decide_within,
};
pub use self::decisions::{DecisionSettings, Decisions};
pub use self::elsewhere::{Elsewhere, Question, Told};
pub use self::identity::{AuthMethod, Confirmed, Identified, Identity};

#[cfg(test)]
mod elsewhere_tests;
#[cfg(test)]
mod override_tests;
