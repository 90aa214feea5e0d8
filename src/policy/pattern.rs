//! The grammar of a path pattern (SPEC 4).
