//! doorward stands in front of an HTTP service that knows nothing of users and gives it authentication,
//! role-based authorization, audit headers, revocation and metrics, without a changed line in that service.
//!
//! This page is the map of the house. The binary is [`cli`] and nothing else; the library exists for it, for the tests
//! and for the fuzzers, and promises no stable interface.
//!
//! # Rooms, from the ground up
//!
//! A room imports from lower floors only, and rooms on one floor do not import each other. `tests/architecture.rs`
//! reads this table's twin and fails on an arrow that points up.
//!
//! | floor | room | knows | must not know |
//! |---|---|---|---|
//! | 0 | [`clock`] [`secret`] [`live`] [`reason`] | time as a value; redaction; publication; the one list of reasons | everything else |
//! | 1 | [`request`] | HTTP parts → facts or a rejection: targets, hosts, peers, framing | policies, tokens, sockets |
//! | 1 | [`https`] | a client that asks other services: TLS, bounded waits and answers | what is asked |
//! | 1 | [`rbac`] | permission codes, roles, scopes, tiers → bitsets | HTTP |
//! | 2 | [`policy`] | a file as written → diagnostics → a compiled snapshot → a decision; explain, cases | I/O, clocks, the environment |
//! | 3 | [`token`] | exactly one credential; claims, keys, verification, the cache; minting | the network |
//! | 3 | [`revocation`] | what has been revoked or changed, in memory; the signed form in which it travels; how fresh it is | where entries come from |
//! | 3 | [`telemetry`] | every metric; the access log; program messages | business rules |
//! | 4 | [`delegate`] | what is asked elsewhere: of a user service, of a blacklist; coalesced, remembered for a stated age | decisions |
//! | 4 | [`net`] | accept, guard and serve connections; drain | what is served |
//! | 4 | [`replication`] | Redis: how it is reached, its keys, the script that appends | whose truth it is, when to publish |
//! | 5 | [`admission`] | facts and a credential → a `Permit` or a `Refusal`; the decisions of late | sockets, SQL |
//! | 6 | [`ledger`] | the truth on disk: signed, numbered changes | Redis, HTTP, what a change means |
//! | 9 | [`gateway`] | the life of a request; headers; upstream pools; replies | administration |
//! | 9 | [`admin_api`] | health, metrics, guarded admin calls | the gateway |
//! | 9 | [`sync`] | every loop beside requests: files and key sets that are followed; endpoints' health; publishing and following changes | the handling of requests |
//! | 10 | [`config`] | a file and the environment → validated settings | behaviour |
//! | 11 | [`app`] | settings → build, bind, serve, drain | arguments |
//! | 12 | [`cli`] | one file a command | internals of rooms |
//!
//! # The life of a request
//!
//! [`net::guard`] lets hyper see a head only after [`request::head`] has found one reading of it →
//! [`gateway::proxy`] takes it from there on one screen → [`request`] makes facts of it → [`gateway::cors`] answers a preflight →
//! [`policy::Snapshot::begin`] cleans the target, matches host, path and method, and either decides or asks who is calling →
//! [`admission`] finds the credential, verifies it or remembers it ([`token::TokenCache`]), holds it against
//! [`revocation`], and ends the decision with [`policy::Pending::with_caller`] → a [`admission::Permit`], which nothing
//! else can make → [`gateway::rate_limit`] counts it, where the route has a limit → [`gateway::headers`] strips what the client claimed and sets what was verified, [`gateway::assertion`] signs it → [`gateway::upstream`]
//! sends it on one of the worker's own connections → bodies stream both ways, or a WebSocket becomes a [`gateway::tunnel`]; what stays
//! open is decided again ([`gateway::watch`]) → [`gateway::exchange`] tells metrics
//! and the access log, once, whatever became of it.
//!
//! # The life of a change
//!
//! Somebody revokes: by the admin listener or the control socket ([`admin_api`]), or with `doorward revoke` ([`cli`]) →
//! [`ledger`] gives it a number, signs it, has it on disk, and applies it to this process's [`revocation::RevocationIndex`] →
//! `sync::publisher` appends it to a stream in Redis by a script that checks before it writes ([`replication`]), and tells with a
//! heartbeat each second up to where it has read and published → `sync::replica` of every other process, which has proven a whole state
//! before, believes what a pinned key has signed ([`revocation::signed`]) and what follows without a gap, and applies it to its own
//! index → the next request is judged by it, and what is open is decided again. [`revocation::Freshness`] says at each decision
//! whether the control plane was heard of late enough. Processes without Redis that share a folder follow that (`sync::ledger`).
//!
//! # What must not move
//!
//! Imports point down. The core ([`request`], [`rbac`], [`policy`]) is pure: time, addresses and keys are given to it. One
//! function decides: the gateway, the admin listener, `policy explain` and `policy test` all call
//! [`policy::Snapshot::begin`].

pub mod clock;
pub mod live;
pub mod reason;
pub mod secret;

pub mod https;
pub mod rbac;
pub mod request;

pub mod policy;

pub mod revocation;
pub mod telemetry;
pub mod token;

pub mod delegate;
pub mod net;

pub mod replication;

pub mod admission;

pub mod ledger;

pub mod admin_api;
pub mod gateway;
pub mod sync;

pub mod config;

pub mod app;

pub mod cli;
