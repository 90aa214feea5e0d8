//! Upstreams: where they are, which of their endpoints is asked next, and the connections to them.
//!
//! What is known of an endpoint (`endpoint`: its load, its `standing`) and how many requests an upstream has in flight
//! (`gate`) belongs to the process; connections (`pool`) belong to a worker, so that workers share nothing but counters on the
//! way of a request. `registry` holds the upstreams in force and puts changed ones in their place. `choose` and `standing` are
//! pure: randomness and time are given to them.

mod choose;
mod connect;
mod endpoint;
mod gate;
mod health;
mod http2;
mod lease;
mod memory;
mod pool;
mod registry;
mod settings;
mod standing;
mod tls;

pub use self::health::Check;
pub use self::lease::Lease;
pub use self::pool::{Pool, UpstreamError};
pub use self::registry::{Prepared, UnusableUpstream, Upstreams, WorkerPools};
pub use self::settings::{
    Address, EjectionSettings, Endpoint, HealthSettings, RequestLimits, Scheme, TlsMaterial, UpstreamSettings,
};
pub use self::tls::TlsError;
