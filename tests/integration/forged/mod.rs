//! Several hundred forged, malformed and confused tokens, and what each is refused for (SPEC 5.4; T5, T7, T13, T19, T22).
//!
//! A [`forge::Forge`] imitates one issuer: it holds the issuer's key, so that every token is signed well unless the signature
//! is the point, and it is the rule under test that refuses it. The families are functions from a forge to named cases; the
//! set-ups are the ways in which issuers are configured; [`check::check`] holds every case against a running
//! gateway whose upstream counts what it hears, and looks for what was sent in everything that the gateway wrote.

mod check;
mod forge;
mod set_ups;

mod algorithms;
mod carriage;
mod claims;
mod confusion;
mod forms;
mod headers;
mod numbers;
mod roles;
mod signatures;
mod texts;

use self::check::{Case, Cases};
use self::forge::Forge;

/// Every forged token of this issuer.
fn all(forge: &Forge<'_>) -> Vec<Case> {
    let families: [fn(&Forge<'_>, &mut Cases); 9] = [
        algorithms::cases,
        carriage::cases,
        claims::cases,
        confusion::cases,
        forms::cases,
        headers::cases,
        numbers::cases,
        signatures::cases,
        texts::cases,
    ];
    let mut cases = Cases::default();
    for family in families {
        family(forge, &mut cases);
    }
    cases.0
}
