//! Policy files: from text to a decision.
//!
//! `source` (as written, with spans) → `diagnostic` (all faults at once) → `compile` → [`Snapshot`] →
//! [`Snapshot::begin`] → [`Pending::with_caller`] → [`Decision`].
//!
//! The core is total and pure: every input gets a decision and silence means deny. Must not know: tokio,
//! sockets, SQL, clocks, the environment. The file system is read only by [`load`], for start and command line.

pub mod cases;
pub mod compile;
pub mod cross_origin;
pub mod decide;
pub mod diagnostic;
pub mod explain;
pub mod index;
pub mod load;
pub mod pattern;
pub mod roles_file;
pub mod schema;
pub mod snapshot;
pub mod source;
#[cfg(test)]
mod testing;
mod yaml;

pub use self::compile::{CompileInput, compile};
pub use self::decide::{Begin, Caller, Decision, Outcome, Pending};
pub use self::diagnostic::{Diagnostic, Diagnostics, Severity};
pub use self::snapshot::{Route, RouteId, Service, Snapshot};
pub use self::source::{PolicyFile, SourceText, Span, Spanned};
