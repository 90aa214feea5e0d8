//! Tests of the whole program through real sockets: the built binary, a scripted upstream, a raw client.
//!
//! Nothing here looks inside a room. What a test says about doorward is what a user of SPEC.md may rely on.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should stop loudly"
)]
#![expect(clippy::print_stderr, reason = "a skipped corpus says so on stderr, and scores are printed as tables")]

mod harness;

mod assertion;
mod attacks;
mod audit;
mod cookies;
mod cors;
mod decisions;
mod delegate;
mod demo;
mod denials;
mod faults;
mod forged;
mod framing;
mod http2;
mod http2_limits;
mod identity_headers;
mod key_sets;
mod ledger;
mod observability;
mod overrides;
mod parts;
mod proxy_protocol;
mod rate_limits;
mod reloads;
mod replication_faults;
mod revoking;
mod running;
mod smuggling;
mod stopping;
mod streams;
mod t20_open_exchanges;
mod t25_upgrades;
mod targets;
mod tls;
mod tls_clients;
mod tls_files;
mod tokens;
mod upstreams;
