//! The twin of `permit_is_private.rs` that must compile, so that it is known for what the other one fails.

use doorward::admission::{Judged, Permit};

/// Anybody may look into a permit that `admission` made.
pub fn read<'r>(permit: &'r Permit<'r>) -> &'r Judged<'r> {
    permit.judged()
}
