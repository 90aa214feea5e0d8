//! Issuers' keys, followed while requests are served: behind a URL, in a file, or announced by the control plane.
//!
//! ```text
//!            start      refresh (jitter)           an unknown kid, once a cool-down
//!              │             │                        │
//!   URL ───────▼─────────────▼────────────────────────▼─────▶ IssuerKeys ──▶ the next request
//!              └ back-off while it fails; the old set stays, up to max_age since the last answer (T18)
//! ```
//!
//! Each issuer has a loop of its own: what is asked for one never waits for another, and there is never more than one question
//! under way for one. No request waits for any of this: a token whose `kid` is not known is refused at once, and finds its key
//! there a moment later if there is one.

mod fetch;
mod file;
mod own;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub use self::fetch::{FetchError, Fetched, fetch};
pub use self::file::{Content, FollowedFile};
pub use self::own::{OwnKeys, Place};
use crate::clock::Timestamp;
use crate::telemetry::{KeyFetch, KeySetMetrics};
use crate::token::jwk::Trust;
use crate::token::{Algorithm, Exchanged, Issuer, IssuerKeys, KeySet, KeySetError};

/// Is called after every change of keys: who has decided by them decides again (T20).
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// An issuer's keys, and all that is to be told when they change.
#[derive(Clone)]
pub struct Followed {
    issuer: Arc<str>,
    algorithms: Arc<[Algorithm]>,
    keys: Arc<IssuerKeys>,
    count: Arc<KeySetMetrics>,
    changed: Changed,
}

/// Where an issuer's keys come from.
pub enum Source {
    /// A URL.
    Url(Fetched),
    /// A file.
    File(FollowedFile),
    /// doorward's own, beside the file.
    Own(OwnKeys),
}

/// Held by every loop until it has had its first answer, good or bad.
type First = mpsc::Sender<Infallible>;

/// All loops, to be run.
#[derive(Default)]
pub struct KeySets(Vec<(Followed, Source, Option<First>)>);

impl Followed {
    /// The keys of `issuer`.
    #[must_use]
    pub fn new(issuer: &Issuer, count: Arc<KeySetMetrics>, changed: Changed) -> Self {
        let algorithms = issuer.algorithms.as_slice().into();
        Self { issuer: Arc::clone(&issuer.name), algorithms, keys: Arc::clone(&issuer.keys), count, changed }
    }

    /// Takes the public keys that the control plane has announced as its own (`{"keys": {…}}` among the changes): for a process
    /// that has no key file. A set that cannot be used leaves the old one in force.
    ///
    /// # Errors
    /// [`KeySetError`] for a set with private or symmetric keys (T11), or without a usable one.
    pub fn announced(&self, jwks: &Value) -> Result<Exchanged, KeySetError> {
        let set = KeySet::parse(jwks.to_string().as_bytes(), &self.algorithms, Trust::Url);
        set.map(|set| self.put_in_force(set, None)).inspect_err(|error| self.refused(error))
    }

    /// Tells which keys of the set were passed over, if any: of one that is in force from the start, too.
    pub fn tell_unfit(&self, set: &KeySet) {
        if !set.unfit.is_empty() {
            let unfit = set.unfit.join("; ");
            tracing::warn!(
                issuer = &*self.issuer,
                unfit,
                "keys of the issuer's set cannot be used and are passed over"
            );
        }
    }

    fn put_in_force(&self, set: KeySet, good_until: Option<Timestamp>) -> Exchanged {
        let was_good = self.keys.is_good(Timestamp::now());
        // Told when it is new, and not at every refresh.
        if set.unfit != self.keys.set().unfit {
            self.tell_unfit(&set);
        }
        let exchanged = self.keys.publish(set, good_until);
        let what = if exchanged.is_change() { KeyFetch::Changed } else { KeyFetch::Unchanged };
        self.count.fetched(what);
        if exchanged.is_change() || !was_good {
            let Exchanged { added, withdrawn } = exchanged;
            tracing::info!(issuer = &*self.issuer, added, withdrawn, "the issuer's keys are in force");
            (self.changed)();
        }
        exchanged
    }

    /// Nothing was heard of the set for `max_age`: nobody can say any more whether its keys are still keys (T18).
    fn too_old(&self, max_age: Duration) {
        self.keys.expire();
        (self.changed)();
        tracing::error!(
            issuer = &*self.issuer,
            ?max_age,
            "the issuer's keys are too old; its tokens are answered with 503 until they can be had again"
        );
    }

    fn refused(&self, error: &dyn std::fmt::Display) {
        self.count.fetched(KeyFetch::Failed);
        if self.keys.is_good(Timestamp::now()) {
            tracing::warn!(issuer = &*self.issuer, %error, "the issuer's keys cannot be had; the old ones stay in force");
        } else {
            tracing::error!(issuer = &*self.issuer, %error, "the issuer's keys cannot be had; its tokens are answered with 503");
        }
    }
}

async fn reached(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl KeySets {
    /// Adds an issuer.
    pub fn follow(&mut self, followed: Followed, source: Source) {
        self.0.push((followed, source, None));
    }

    /// What says, by being disconnected, that every URL has been asked once.
    pub fn first_answers(&mut self) -> mpsc::Receiver<Infallible> {
        let (sender, receiver) = mpsc::channel();
        for (_, source, first) in &mut self.0 {
            *first = matches!(source, Source::Url(_)).then(|| sender.clone());
        }
        receiver
    }

    /// Follows all of them until it is dropped.
    pub async fn run(self) {
        let mut loops = JoinSet::new();
        for (followed, source, first) in self.0 {
            match source {
                Source::Url(fetched) => loops.spawn(fetched.follow(followed, first)),
                Source::File(file) => loops.spawn(file.follow(followed)),
                Source::Own(own) => loops.spawn(own.follow(followed)),
            };
        }
        while loops.join_next().await.is_some() {}
    }
}

/// Looks again and again until something has happened, for the tests of all that follows key sets.
#[cfg(test)]
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
