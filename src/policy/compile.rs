//! From files as written to a [`Snapshot`], or to every fault at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::diagnostic::Diagnostics;
use super::snapshot::Snapshot;
use super::source::PolicyFile;
use crate::rbac::RoleTable;

/// What a snapshot is compiled from.
#[derive(Debug)]
pub struct CompileInput<'a> {
    /// The policy files.
    pub files: &'a [PolicyFile],
    /// The role table that permissions, roles and tiers must be known to.
    pub roles: Arc<RoleTable>,
    /// The configured upstreams; `None` where they are not known (`policy check` without a configuration).
    pub upstreams: Option<&'a BTreeSet<String>>,
    /// Whether everything is in report mode (`[gateway] mode = "report"`); never for the admin listener (T21).
    pub report: bool,
}

/// Compiles; all faults of all files at once. Warnings may come with a snapshot.
#[must_use]
pub fn compile(input: &CompileInput<'_>) -> (Option<Snapshot>, Diagnostics) {
    let _ = input;
    todo!()
}
