//! From settings to a running process: build, bind, spawn, and at the end drain, in order.

mod alone;
mod build;
mod elsewhere;
mod key_sets;
mod ledger;
mod owner;
mod replication;
mod run;
mod upstreams;

pub use self::alone::{Alone, record};
pub use self::build::{Built, build, issuer_names};
pub use self::key_sets::fetch_keys;
pub use self::ledger::last_number;
pub use self::owner::refuse_another_owner;
pub use self::replication::Replicated;
pub use self::run::{Doorward, run_until_signal};
pub use self::upstreams::{Reread, Upstreams};
