//! Every loop that runs beside requests, listed here: the one that follows the files of policies, roles and configuration, the
//! one that follows certificates, and the one that looks after upstream endpoints.
//!
//! Knows: where state comes from, and how it is published whole. Must not know: the handling of requests.

pub mod certificates;
pub mod endpoints;
pub mod follow;
pub mod ledger;
pub mod policy_files;
pub mod publisher;
pub mod replica;

pub use self::certificates::LiveTls;
pub use self::follow::{Configuration, Followed, News, Part};
pub use self::policy_files::{Loaded, PolicyFiles};
