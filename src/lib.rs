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

pub mod net;

pub mod admission;

pub mod admin_api;
pub mod gateway;

pub mod config;

pub mod app;

pub mod cli;
