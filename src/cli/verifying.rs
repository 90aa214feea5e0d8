//! Verifying a token as a running doorward would, but for revocations, which only that knows.

use crate::app;
use crate::clock::Timestamp;
use crate::config::{ConfigError, Settings, issuers};
use crate::reason::Reason;
use crate::token::{Claims, TokenRejection, Verifier};

/// What the configured issuers say of a token. Keys behind a URL are fetched, once; doorward's own are not made where there are none.
///
/// # Errors
/// Keys in files that cannot be read.
pub(super) fn verify(settings: &Settings, token: &str) -> anyhow::Result<Result<Claims, TokenRejection>> {
    let verifier = Verifier::new(issuers::load_accepted(&settings.auth).map_err(ConfigError)?);
    let fetched = app::fetch_keys(&settings.auth, &verifier, token);
    let verified = verifier.verify(token, Timestamp::now());
    Ok(verified.map_err(|mut rejection| {
        // That says nothing about the token: why nothing can be said is worth more.
        if let (Reason::AuthUnavailable, Err(error)) = (rejection.reason, fetched) {
            rejection.detail = format!("{error:#}").into();
        }
        rejection
    }))
}
