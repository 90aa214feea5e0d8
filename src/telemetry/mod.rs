//! What doorward tells of itself: metrics, access lines and program messages.
//!
//! Knows nothing of policies and tokens beyond the words it is handed (labels, reasons, durations). Nothing in here
//! is given a token, a query or a body, so that nothing in here can log one.

pub mod access_log;
pub mod audit;
pub mod change_audit;
pub mod delegate;
pub mod histogram;
pub mod key_sets;
pub mod ledger;
pub mod metrics;
pub mod output;
pub mod process;
pub mod replication;
pub mod shard;
pub mod tracing;

pub use self::access_log::{AccessDecision, AccessLog, AccessRecord, AccessSink};
pub use self::audit::{AuditEvent, AuditRecord};
pub use self::change_audit::{ChangeEvent, ChangeRecord};
pub use self::delegate::{DelegateAnswer, DelegateMetrics, DelegateQuestion};
pub use self::key_sets::{KeyFetch, KeySetMetrics};
pub use self::ledger::LedgerMetrics;
pub use self::metrics::{CONTENT_TYPE, EndpointHealth, Limit, Listener, Metrics, Stream, ValidationSource};
pub use self::replication::ReplicationMetrics;
pub use self::shard::{RequestLabels, UpstreamConnection, UpstreamMetrics, WorkerMetrics};
pub use self::tracing::{LogFormat, LogLevel};
