//! Only `admission` makes a `Permit`: nobody can forward a request that was not decided upon (DESIGN.md, "proof is a type").

use doorward::admission::{Judged, Permit};

/// Must not compile.
pub fn forged(judged: Judged<'_>) -> Permit<'_> {
    Permit { judged }
}
