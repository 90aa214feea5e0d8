//! Redis, and the form in which state and changes stand there (SPEC 8).
//!
//! | key (`doorward` is the configured prefix; the braces keep all of them on one node of a cluster) | what |
//! |---|---|
//! | `{doorward}:head` | hash: `epoch`, `truth`, `n` (last change), `base` and `records` of the manifest, `length` of the stream |
//! | `{doorward}:manifest` | the signed manifest |
//! | `{doorward}:segment:<sha256>` | a segment |
//! | `{doorward}:changes` | stream: the change n is the entry `n-0`, its field `change` the signed line |
//! | `{doorward}:heartbeats` | stream, the last few: field `heartbeat`, the signed line |
//!
//! The head is for publishers among themselves and is not signed: gateways never read it, and nothing is believed for its sake.
//!
//! Knows: how Redis is reached (alone, by Sentinel, in a cluster), the keys, the scripts that write, what is read.
//! Must not know: whose truth it is, when to publish, what becomes of what was read; that is for the loops in `sync`.

pub mod connect;
pub mod error;
pub mod foreign;
pub mod link;
pub mod script;
pub mod settings;

pub use self::connect::Redis;
pub use self::error::RedisFailure;
pub use self::foreign::ForeignKeys;
pub use self::link::{Eviction, Head, Link, Mark, News, Standing, StreamEntry};
pub use self::script::{Beat, Installation, Said};
pub use self::settings::{RedisPlace, RedisSettings, RedisTls, RedisUrl, Topology};
