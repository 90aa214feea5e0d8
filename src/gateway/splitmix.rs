//! splitmix64 (Steele, Lea and Flood 2014): spread numbers from a counter, for what needs to be unique or even and not secret.

/// What the state grows by from one number to the next.
pub(super) const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number of a state.
pub(super) const fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
