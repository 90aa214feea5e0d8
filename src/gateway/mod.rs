//! The data plane: the life of a request (`proxy`), header rewriting, upstream pools, replies, tunnels, and the watch over what
//! stays open.
//!
//! Knows: admission, net, telemetry. Must not know: accounts, roles' administration, SQL.

pub mod assertion;
pub mod body;
pub mod cors;
pub mod exchange;
pub mod headers;
pub mod proxy;
pub mod rate_limit;
pub mod reply;
mod splitmix;
pub mod tunnel;
pub mod upgrade;
pub mod upstream;
pub mod watch;

pub use self::assertion::Assertions;
pub use self::proxy::{Gateway, GatewaySettings, Logged, Worker};
pub use self::upstream::{UpstreamSettings, Upstreams};
