//! Accepting connections and speaking HTTP/1.1 on them, within limits.
//!
//! Knows: sockets, hyper, timers, drain. Must not know: what is served.

pub mod bind;
pub mod guard;
pub mod serve;

pub use self::bind::{BindError, bind};
pub use self::guard::{Arrived, ConnectionState, GuardedIo, HeadOutcome};
pub use self::serve::{Drain, ListenerSettings, Peer, serve};
