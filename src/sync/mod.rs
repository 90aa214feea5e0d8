//! Every loop that runs beside requests, listed here: those that follow policy and roles files, and certificates.
//!
//! Knows: where state comes from, and how it is published whole. Must not know: the handling of requests.

pub mod certificates;
pub mod policy_files;

pub use self::certificates::LiveTls;
pub use self::policy_files::{Loaded, PolicyFiles};
