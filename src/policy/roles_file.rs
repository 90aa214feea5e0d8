//! `config/roles.yaml`: roles, permissions and tiers without a database (SPEC 6).

use std::sync::Arc;

use super::diagnostic::Diagnostics;
use super::source::SourceText;
use crate::rbac::{RoleData, RoleTable};

/// Reads and compiles a roles file; every fault at once, each at its place.
#[must_use]
pub fn parse(source: Arc<SourceText>) -> (Option<(RoleData, RoleTable)>, Diagnostics) {
    let _ = source;
    todo!()
}
