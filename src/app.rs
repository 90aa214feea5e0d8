//! From settings to a running process: build, bind, spawn, and at the end drain, in order.

mod build;
mod elsewhere;
mod key_sets;
mod ledger;
mod replication;
mod run;
mod upstreams;

pub use self::build::{Built, build};
pub use self::ledger::last_number;
pub use self::replication::Replicated;
pub use self::run::{Doorward, run_until_signal};
pub use self::upstreams::{Reread, Upstreams};
