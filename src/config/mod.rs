//! Configuration: from a TOML file and the environment to validated [`Settings`], or to every mistake at once.
//!
//! `sources` reads the file and the environment and merges them with figment, so that every value knows where
//! it came from; `walk` reads typed values out of the merged tree and collects mistakes; `validate` is the one place
//! that says what each key means; `show` prints what is in force with secrets masked. `builtin` holds the
//! policy and roles files that the binary brings along.
//!
//! Must not know: how the settings are put to work. Nothing else in doorward reads the environment.

pub mod builtin;
pub mod issuers;
pub mod mistake;
pub mod quantity;
pub mod settings;
mod show;
mod sources;
mod validate;
mod walk;

#[cfg(test)]
mod tests;

pub use self::builtin::{DEFAULT_CONFIG, read};
pub use self::mistake::{ConfigError, Mistake, Warning};
pub use self::settings::{
    AdminSettings, AssertionSettings, AuthSettings, EventSettings, GatewaySettings, IamSettings, IssuerSettings,
    JwksUrl, KeySource, Limits, LogSettings, RevocationMode, RevocationSettings, Settings, UpstreamSettings,
    UpstreamTls,
};

/// The process's environment, for [`Settings::load`]. Variables that are not UTF-8 are none of doorward's.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
