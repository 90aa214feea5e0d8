//! Redis, and the form in which state and changes stand there (SPEC 8).
//!
//! Knows: how Redis is reached (alone, by Sentinel, in a cluster), the keys, the script that appends, what is read and written.
//! Must not know: whose truth it is, when to publish, what becomes of what was read; that is for the loops in `sync`.

pub mod settings;

pub use self::settings::{RedisPlace, RedisSettings, RedisTls, RedisUrl, Topology};
