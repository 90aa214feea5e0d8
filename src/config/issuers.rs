//! From an issuer's settings to an issuer with its keys, ready to verify with.

use std::sync::Arc;

use super::mistake::Mistake;
use super::settings::{AuthSettings, IssuerSettings, KeySource};
use crate::token::{Issuer, IssuerKeys, KeySet, KeySetError, local_keys};

/// Loads the keys of every issuer, but for those behind a URL, which are on their way. doorward's own are made if they do not exist yet.
///
/// # Errors
/// Every issuer whose keys are unreadable, malformed or weak, with the mend.
pub fn load(auth: &AuthSettings) -> Result<Vec<Issuer>, Vec<Mistake>> {
    all(auth, auth.issuers.iter())
}

/// As [`load`], for a process that follows a control plane: where doorward's own keys are not on this machine, they are on their way
/// (`Entry::Keys`), and none are made that nobody else would know.
///
/// # Errors
/// As [`load`].
pub fn load_following(auth: &AuthSettings) -> Result<Vec<Issuer>, Vec<Mistake>> {
    let absent = !auth.local_keys.exists();
    let mut issuers = Vec::new();
    let mut mistakes = Vec::new();
    for settings in &auth.issuers {
        if absent && settings.keys == KeySource::Local {
            issuers.push(issuer(settings, auth, IssuerKeys::awaited()));
            continue;
        }
        match all(auth, std::iter::once(settings)) {
            Ok(loaded) => issuers.extend(loaded),
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() { Ok(issuers) } else { Err(mistakes) }
}

/// As [`load`], for commands that only look: where doorward's own keys do not exist yet, its issuer is left out.
///
/// # Errors
/// As [`load`].
pub fn load_existing(auth: &AuthSettings) -> Result<Vec<Issuer>, Vec<Mistake>> {
    all(auth, auth.issuers.iter().filter(|issuer| issuer.keys != KeySource::Local || auth.local_keys.exists()))
}

/// As [`load_existing`], but none where a user service judges tokens: what a command says of a token is what a running process makes
/// of it.
///
/// # Errors
/// As [`load`].
pub fn load_accepted(auth: &AuthSettings) -> Result<Vec<Issuer>, Vec<Mistake>> {
    if auth.iam.is_some() { Ok(Vec::new()) } else { load_existing(auth) }
}

fn all<'s>(auth: &AuthSettings, chosen: impl Iterator<Item = &'s IssuerSettings>) -> Result<Vec<Issuer>, Vec<Mistake>> {
    let mut issuers = Vec::new();
    let mut mistakes = Vec::new();
    for settings in chosen {
        match keys(settings, auth) {
            Ok(keys) => issuers.push(issuer(settings, auth, keys.map_or_else(IssuerKeys::awaited, IssuerKeys::fixed))),
            Err(error) => mistakes.push(Mistake {
                place: format!("keys of issuer {:?}", settings.name),
                key: String::new(),
                message: error.to_string(),
                help: mend(&settings.keys).to_owned(),
            }),
        }
    }
    if mistakes.is_empty() { Ok(issuers) } else { Err(mistakes) }
}

/// `None` where they are on their way: [`crate::sync::key_sets`] fetches them.
fn keys(settings: &IssuerSettings, auth: &AuthSettings) -> Result<Option<KeySet>, KeySetError> {
    match &settings.keys {
        KeySource::Local => local_keys::load_or_create(&auth.local_keys, &settings.algorithms),
        KeySource::Secret(secret) => KeySet::shared_secret(secret),
        KeySource::JwksUrl(_) => return Ok(None),
        KeySource::JwksFile(path) => {
            let json = std::fs::read(path).map_err(|error| KeySetError(format!("{}: {error}", path.display())))?;
            KeySet::parse_file(path, &json, &settings.algorithms)
        }
    }
    .map(Some)
}

const fn mend(source: &KeySource) -> &'static str {
    match source {
        KeySource::Local => "Correct `auth.local_keys`, or move the file away, and new keys are made.",
        KeySource::Secret(_) => "Set JWT_SECRET_KEY to 32 bytes or more.",
        KeySource::JwksUrl(_) => "Correct the URL after \"jwks+\".",
        KeySource::JwksFile(_) => "Correct the path after \"jwks+file://\", or the JWK set in the file (RFC 7517).",
    }
}

fn issuer(settings: &IssuerSettings, auth: &AuthSettings, keys: Arc<IssuerKeys>) -> Issuer {
    Issuer {
        name: Arc::from(settings.name.as_str()),
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        algorithms: settings.algorithms.clone(),
        keys,
        claims: settings.claims.clone(),
        max_lifetime: settings.max_lifetime,
        leeway: auth.leeway,
        own: settings.keys == KeySource::Local,
        subject_prefix: settings.subject_prefix.clone(),
        roles_from: settings.roles_from,
        confers: settings.confers.clone(),
        admin: settings.admin,
    }
}
