//! doorward's own keys beyond the file: who has them tells the others, who has none takes what it is told, and a revoked one signs
//! nothing more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Followed;
use crate::clock::Timestamp;
use crate::ledger::Ledger;
use crate::revocation::{Arrival, Entry, Retention, RevocationIndex};
use crate::token::{KeySetError, local_keys};

/// How often it is looked: keys are published minutes before they sign.
const PERIOD: Duration = Duration::from_millis(500);

/// How long after it could not be marked a revoked key is tried again.
const MARK_AGAIN: Duration = Duration::from_secs(5);

/// A revoked key that could not be marked. That is told once, until the reason is another one.
struct Unmarked {
    key_id: Box<str>,
    again: Instant,
    error: KeySetError,
}

/// Where this process stands.
#[derive(Debug, Clone)]
pub enum Place {
    /// It has the key file.
    Holder {
        /// `auth.local_keys`
        file: PathBuf,
        /// Where a changed set of public keys is recorded for those who have no file; `None`: there are none.
        tell: Option<Arc<Ledger>>,
    },
    /// It has no key file, and takes what the control plane announces (T11: signed by its publication key, and public).
    Follower,
}

/// doorward's own keys, and what was heard of them.
pub struct OwnKeys {
    /// Where this process stands.
    pub place: Place,
    /// What was announced, and which keys are revoked.
    pub index: Arc<RevocationIndex>,
    /// How long what is revoked is kept there.
    pub retention: Retention,
}

impl OwnKeys {
    /// Looks after the keys until the task is dropped.
    pub(super) async fn follow(self, followed: Followed) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut taken = None;
        let mut told: Option<Value> = None;
        let mut unmarked = Vec::new();
        loop {
            ticks.tick().await;
            match &self.place {
                Place::Follower => self.take(&followed, &mut taken),
                Place::Holder { file, tell } => {
                    self.note_revoked(&followed);
                    self.mark_revoked(&followed, file, &mut unmarked).await;
                    if let Some(ledger) = tell {
                        self.tell(&followed, ledger, &mut told).await;
                    }
                }
            }
        }
    }

    fn take(&self, followed: &Followed, taken: &mut Option<u64>) {
        let Some(announced) = self.index.announced_keys() else { return };
        if *taken == Some(announced.0) {
            return;
        }
        *taken = Some(announced.0);
        // What is refused is told of there, and leaves the old keys.
        let _ = followed.announced(&announced.1);
    }

    /// Told once at the start, for what was announced before may be of a truth that is gone; then only what has changed here: two that
    /// hold different files must not answer each other for ever.
    async fn tell(&self, followed: &Followed, ledger: &Ledger, told: &mut Option<Value>) {
        let jwks = followed.keys.set().public_jwks_at(Timestamp::now());
        if told.as_ref() == Some(&jwks) {
            return;
        }
        match ledger.recorded(Entry::Keys { jwks: Box::new(jwks.clone()) }).await {
            Ok(_) => {
                tracing::info!(issuer = &*followed.issuer, "the public halves of doorward's own keys are announced");
                *told = Some(jwks);
            }
            Err(error) => {
                tracing::error!(%error, "the public halves of doorward's own keys cannot be announced; trying again");
            }
        }
    }

    /// What stands in the key file as revoked is revoked, whoever wrote it there and whatever became of the ledger (T18).
    pub fn note_revoked(&self, followed: &Followed) {
        let now = Timestamp::now();
        let set = followed.keys.set();
        for id in set.keys.iter().filter(|key| key.life.revoked).filter_map(|key| key.id.clone()) {
            if self.index.is_key_revoked(&followed.issuer, &id, now) {
                continue;
            }
            tracing::warn!(key = &*id, "the key file says that this key is revoked: its tokens are refused");
            let entry = Entry::Key { id, issuer: Some((*followed.issuer).into()) };
            self.index.apply(&entry, Arrival::by_hand(now), self.retention);
        }
    }

    /// The index refuses the tokens of a revoked key; the mark in the file keeps every process from signing with it, also those that
    /// have no index, such as `token mint`.
    async fn mark_revoked(&self, followed: &Followed, file: &Path, unmarked: &mut Vec<Unmarked>) {
        let now = Timestamp::now();
        let set = followed.keys.set();
        let revoked = set.keys.iter().filter(|key| !key.life.revoked).filter_map(|key| key.id.clone());
        for key_id in revoked.filter(|key_id| self.index.is_key_revoked(&followed.issuer, key_id, now)) {
            let failed = unmarked.iter().position(|unmarked| unmarked.key_id == key_id);
            if failed.and_then(|place| unmarked.get(place)).is_some_and(|unmarked| Instant::now() < unmarked.again) {
                continue;
            }
            let (path, algorithms, kid) = (file.to_owned(), Arc::clone(&followed.algorithms), key_id.clone());
            let before = failed.map(|place| unmarked.swap_remove(place));
            let marking = tokio::task::spawn_blocking(move || local_keys::mark_revoked(&path, &algorithms, &kid)).await;
            match marking {
                Ok(Ok(true)) => {
                    tracing::warn!(
                        key = &*key_id,
                        "a key of doorward's own is revoked and signs nothing more; `doorward keys rotate --now` makes another"
                    );
                }
                Ok(Err(error)) => {
                    if before.is_none_or(|before| before.error != error) {
                        tracing::error!(key = &*key_id, %error, "a revoked key cannot be marked in the key file; trying again");
                    }
                    unmarked.push(Unmarked { key_id, again: Instant::now() + MARK_AGAIN, error });
                }
                // Another process was quicker, and the file is about to be read again.
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }
}
