//! doorward.
pub mod clock;
pub mod live;
pub mod reason;
pub mod secret;

pub mod rbac;
pub mod request;

pub mod policy;

pub mod revocation;
pub mod telemetry;
pub mod token;

pub mod app;
pub mod config;
