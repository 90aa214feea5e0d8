//! Accepting connections and speaking HTTP/1.1 and HTTP/2 on them, within limits.
//!
//! Knows: sockets, hyper, timers, drain. Must not know: what is served.

pub mod bind;
pub mod certificates;
pub mod connection;
pub mod descriptors;
pub mod drain;
mod farewell;
pub mod guard;
mod http1;
mod http2;
mod parked;
pub mod prefixed;
pub mod proxy_protocol;
pub mod serve;
mod tls;
mod unread;

pub use self::bind::{BindError, bind};
pub use self::certificates::{CertificateFiles, ClientAuth, Tls, TlsFiles};
pub use self::connection::{Established, Protocol, TlsFacts};
pub use self::drain::{Drain, DrainSender, Stage};
pub use self::guard::{Arrived, ConnectionState, GuardedIo, HeadOutcome};
pub use self::parked::return_memory;
pub use self::serve::{ListenerSettings, serve};
pub use self::unread::Inbound;
