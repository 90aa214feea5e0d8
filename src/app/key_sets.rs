//! Which issuers' keys are followed while doorward runs, and how.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::admission::Identity;
use crate::config::{AuthSettings, JwksUrl, KeySource};
use crate::https::{ClientSettings, TlsTrust, client, plain_client};
use crate::ledger::Ledger;
use crate::revocation::{Retention, RevocationIndex};
use crate::sync::KeySets;
use crate::sync::key_sets::{Content, Fetched, Followed, FollowedFile, OwnKeys, Place, Source, fetch};
use crate::telemetry::Metrics;
use crate::token::{TokenCache, Verifier};

/// How long a start waits for the first answers of URLs, at the most. It goes on without them then: their tokens are answered with
/// 503 until they come, and everybody else's are none the worse.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long the keys of a file are used that is gone or spoilt: as long as those of a URL at the most (T18).
const FILE_MAX_AGE: Duration = Duration::from_hours(1);

/// The loops of all issuers whose keys can change, to be run. `ledger` is where those who have doorward's own keys tell those who
/// have not, if there are such.
///
/// # Errors
/// Certificates that cannot be used.
pub(super) fn followed(
    auth: &AuthSettings,
    tokens: &Arc<TokenCache<Identity>>,
    metrics: &Metrics,
    index: &Arc<RevocationIndex>,
    retention: Retention,
    ledger: Option<&Arc<Ledger>>,
) -> anyhow::Result<KeySets> {
    let mut sets = KeySets::default();
    for issuer in tokens.verifier().issuers() {
        let Some(settings) = auth.issuers.iter().find(|settings| *settings.name == *issuer.name) else { continue };
        let tokens = Arc::clone(tokens);
        let changed = Arc::new(move || tokens.keys_changed());
        let followed = Followed::new(issuer, metrics.key_set(&issuer.name), changed);
        let file =
            |path: &Path, content, max_age| Source::File(FollowedFile { path: path.to_owned(), content, max_age });
        match &settings.keys {
            KeySource::Secret(_) => {}
            KeySource::JwksFile(path) => {
                followed.tell_unfit(&issuer.keys.set());
                sets.follow(followed, file(path, Content::Foreign, Some(FILE_MAX_AGE)));
            }
            KeySource::JwksUrl(jwks) => sets.follow(followed, Source::Url(fetched(&settings.name, jwks)?)),
            // Where there is no file (`issuers::load_following`), they come from the control plane.
            KeySource::Local => {
                let holds = issuer.keys.set().signing_key().is_some();
                let place = if holds {
                    sets.follow(followed.clone(), file(&auth.local_keys, Content::Own, None));
                    Place::Holder { file: auth.local_keys.clone(), tell: ledger.cloned() }
                } else {
                    Place::Follower
                };
                let own = OwnKeys { place, index: Arc::clone(index), retention };
                // Before the first request, whatever became of the ledger (T18).
                own.note_revoked(&followed);
                sets.follow(followed, Source::Own(own));
            }
        }
    }
    Ok(sets)
}

/// Fetches the keys by which this token would be verified, if they are behind a URL: for a command, beside which nobody follows them.
/// A token that says nothing of its issuer, or of one that nobody knows, is left to the verifier.
///
/// # Errors
/// Whose keys cannot be fetched, from where and why. It takes no longer than the issuer's `jwks.timeout`.
pub fn fetch_keys(auth: &AuthSettings, verifier: &Verifier, token: &str) -> anyhow::Result<()> {
    let Some(issuer) = verifier.claimed_issuer(token) else { return Ok(()) };
    let Some(settings) = auth.issuers.iter().find(|settings| *settings.name == *issuer.name) else { return Ok(()) };
    let KeySource::JwksUrl(jwks) = &settings.keys else { return Ok(()) };
    let fetched = fetched(&settings.name, jwks)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = || format!("the keys of issuer {:?} cannot be fetched from {}", settings.name, jwks.url);
    let (set, _) = runtime.block_on(fetch(&fetched, &settings.algorithms)).with_context(failed)?;
    issuer.keys.publish(set, None);
    Ok(())
}

/// What fetches the key set of an issuer.
///
/// # Errors
/// Certificates that cannot be used.
fn fetched(issuer: &str, jwks: &JwksUrl) -> anyhow::Result<Fetched> {
    let ca = jwks.ca.as_deref().map(std::fs::read).transpose();
    let ca = ca.with_context(|| format!("cannot read the file that `jwks.ca` of issuer {issuer:?} names"))?;
    let plain = jwks.url.starts_with("http://");
    let settings = ClientSettings {
        tls: TlsTrust { ca, identity: None },
        connect: jwks.timeout,
        total: jwks.timeout,
        // Minutes pass between two questions.
        idle_connections: 0,
    };
    let client = if plain { plain_client(&settings) } else { client(&settings) };
    Ok(Fetched {
        client: client.map_err(|error| anyhow!("`jwks.{}` of issuer {issuer:?} {error}", error.key()))?,
        url: jwks.url.clone(),
        refresh: jwks.refresh,
        max_age: jwks.max_age,
        cool_down: jwks.cool_down,
        max_bytes: usize::try_from(jwks.max_bytes).unwrap_or(usize::MAX),
    })
}

/// How long a start waits for the first answers.
pub(super) fn wait(auth: &AuthSettings) -> Duration {
    let timeouts = auth.issuers.iter().filter_map(|issuer| match &issuer.keys {
        KeySource::JwksUrl(jwks) => Some(jwks.timeout),
        _ => None,
    });
    timeouts.max().unwrap_or_default().min(LONGEST_WAIT)
}
