//! The revocation folder of a process that records, and the number that a token minted beside it carries.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::clock::Timestamp;
use crate::config::Settings;
use crate::ledger::{self, Ledger, LedgerSettings, Published};
use crate::revocation::{Freshness, PinnedKeys, PublicationKey, Retention, RevocationIndex};
use crate::telemetry::Metrics;
use crate::token::local_keys::{self, PublicationFile};

/// Whoever follows may allow this much more than this process after a token's `exp`: the largest `[auth] leeway`, and a minute.
const AFTER_EXPIRY: i64 = 360;

/// The folder is also that of others, who may accept tokens of other issuers, for longer: how long their tokens live nobody knows here
/// but who writes `[revocation] keep` (T5).
fn kept_for_others(settings: &Settings, retention: Retention) -> Retention {
    let keep = settings.revocation.keep.map_or(0, |keep| i64::try_from(keep.as_secs()).unwrap_or(i64::MAX));
    Retention {
        from_arrival: retention.from_arrival.max(keep),
        after_expiry: retention.after_expiry.max(AFTER_EXPIRY),
        ..retention
    }
}

/// Opens the folder; `None` for a process that has no key to record with, and follows through Redis.
pub(super) fn open(
    settings: &Settings,
    retention: Retention,
    index: &Arc<RevocationIndex>,
    metrics: &Metrics,
) -> anyhow::Result<Option<Arc<Ledger>>> {
    let Some(path) = &settings.publication.key_file else { return Ok(None) };
    let (key, public) = match local_keys::load_or_create_publication(path) {
        Ok(PublicationFile { pkcs8, public }) => {
            (Some(PublicationKey::from_pkcs8(pkcs8.expose()).context("[publication] key_file")?), public)
        }
        // A process that never revokes needs no folder that it may write.
        Err(error) if settings.shared_redis().is_none() && !path.exists() && !settings.revocation.folder.exists() => {
            tracing::warn!(%error, "nothing can be revoked while doorward runs: there is no key to record it with");
            (None, Vec::new())
        }
        Err(error) => return Err(error).context("[publication] key_file"),
    };
    let opened = LedgerSettings {
        folder: settings.revocation.folder.clone(),
        key,
        pinned: pinned(settings, &public)?,
        retention: kept_for_others(settings, retention),
        published: if settings.shared_redis().is_some() { Published::ByPublisher } else { Published::AtOnce },
        metrics: metrics.ledger(),
    };
    Ledger::open(opened, Arc::clone(index)).map(Some).context("[revocation] folder")
}

/// How fresh a process is that has only its folder to hear of (T12): as fresh as its last look at it, which was just now.
pub(super) fn freshness(settings: &Settings) -> Arc<Freshness> {
    let freshness = Freshness::following(settings.revocation.max_staleness, settings.revocation.on_stale);
    let now = Timestamp::now().0.saturating_mul(1000);
    freshness.heard(now, now);
    Arc::new(freshness)
}

/// The number as of which the claims of a token are true that is minted now from these settings (T3); 0 where nothing was ever
/// recorded. To be read after the time that the token is issued at, and before what it says of its subject.
///
/// # Errors
/// A folder that cannot be read, or is signed by a key that is neither in the key file nor pinned.
pub fn last_number(settings: &Settings) -> anyhow::Result<u64> {
    let exists = |path: &&std::path::PathBuf| Path::exists(path);
    let file = settings
        .publication
        .key_file
        .as_ref()
        .filter(exists)
        .map(|path| local_keys::load_or_create_publication(path).context("[publication] key_file"));
    let public = file.transpose()?.map(|file| file.public).unwrap_or_default();
    let pinned = pinned(settings, &public)?;
    ledger::last_number(&settings.revocation.folder, &pinned).context("[revocation] folder")
}

fn pinned(settings: &Settings, public: &[String]) -> anyhow::Result<PinnedKeys> {
    let keys = public.iter().chain(&settings.publication.public_keys).map(String::as_str);
    PinnedKeys::parse(keys).context("[publication] public_keys")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// How long the folder keeps entries of a process with an issuer of one hour: from their arrival, and after a token's `exp`.
    fn kept(lines: &str) -> (u64, i64) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("doorward.toml");
        let issuer =
            "[[auth.issuers]]\nname = \"sso\"\nissuer = \"http://sso\"\naudience = [\"oms\"]\nkeys = \"local\"\n";
        let place = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "{issuer}[publication]\nkey_file = {:?}\n[revocation]\nfolder = {:?}\n{lines}\n",
            place("key.json"),
            place("revocations")
        );
        std::fs::write(&file, text).unwrap();
        let (settings, _) = Settings::load(Some(&file), std::iter::empty()).unwrap();
        let own = super::super::build::retention(&settings);
        let ledger = open(&settings, own, &Arc::default(), &Metrics::new()).unwrap().unwrap();
        (ledger.keeps(), kept_for_others(&settings, own).after_expiry)
    }

    #[test]
    fn t05_the_folder_keeps_what_others_need_for_as_long_as_it_is_told() {
        assert_eq!(kept(""), (3_720, 360));
        assert_eq!(kept("keep = \"25h\""), (90_000, 360));
        assert_eq!(kept("keep = \"1m\""), (3_720, 360), "and never less than it needs itself");
    }
}
