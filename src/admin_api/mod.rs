//! The admin listener: health, metrics, and the calls that `admin.yaml` guards through the gateway's own decision.
//!
//! Knows: admission, revocation, telemetry. Must not know: the gateway, accounts.

pub mod asked;
pub mod decisions;
pub mod guard;
pub mod health;
pub mod inquiry;
pub mod inspected;
pub mod problem;
pub mod revocations;
pub mod router;
pub mod socket;

pub use self::health::Readiness;
pub use self::inspected::Inspected;
pub use self::revocations::Hands;
pub use self::router::{AdminState, router};
pub use self::socket::{ControlSocket, SocketError};
