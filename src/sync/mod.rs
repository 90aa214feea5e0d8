//! Every loop that runs beside requests, listed here: the one that follows the files of policies, roles and configuration, the
//! one that follows certificates, the one that looks after upstream endpoints, and those that follow issuers' keys.
//!
//! Knows: where state comes from, and how it is published whole. Must not know: the handling of requests.

pub mod certificates;
pub mod endpoints;
pub mod follow;
pub mod key_sets;
pub mod ledger;
pub mod policy_files;
pub mod publisher;
pub mod replica;

pub use self::certificates::LiveTls;
pub use self::follow::{Configuration, Followed, News, Part};
pub use self::key_sets::KeySets;
pub use self::policy_files::{Loaded, PolicyFiles};
