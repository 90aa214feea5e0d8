//! Every loop that runs beside requests, listed here: for now the one that follows policy and roles files.
//!
//! Knows: where state comes from, and how it is published whole. Must not know: the handling of requests.

pub mod policy_files;

pub use self::policy_files::{Loaded, PolicyFiles};
