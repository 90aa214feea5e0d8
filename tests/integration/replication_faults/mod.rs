//! What is revoked stays revoked while Redis, a gateway, the control plane or the network between them is killed, paused, emptied, set back
//! or cut, all under load and through real sockets (SPEC 8; THREATS T1, T2, T10, T16).
//!
//! Every test states the same laws ([`load::Report::holds`]): no revoked token is let through later than `max_staleness` after the call that
//! revoked it was answered; no good token is refused but with `auth_unavailable`; at the end, without anybody's help, every gateway
//! refuses all that was ever acknowledged and lets good tokens through.

mod fleet;
mod load;

mod copies;
mod forged;
mod network;
mod processes;
mod servers;
mod spoilt;
mod ways;
