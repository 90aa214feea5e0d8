//! The client of an external user service (SPEC 5.5): `GET /auth/userinfo` says who the bearer of a token is, `POST
//! /auth/check-permission` whether they hold what a route asks for.
//!
//! An answer is kept for `cache` from when it was asked for, and never beyond the token's own `exp`; a refusal of the token for a
//! second, so that a flood of bad tokens is no flood of questions; what went wrong is not kept at all. What an answer is kept by is
//! the SHA-256 of the whole token, and for permissions the service and the permission that were asked about.

mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use foldhash::fast::RandomState;
use moka::sync::Cache;
use tokio::runtime::Handle;

use self::wire::{Bearer, Checked, Wire};
use super::memory::{Flight, Heard, Landing, Memory, Receiver, at_once};
use super::told::Question;
use crate::clock::Timestamp;
use crate::rbac::PermissionCode;
use crate::telemetry::{DelegateMetrics, DelegateQuestion};
use crate::token::vouched::{Unverified, Vouching};
use crate::token::{Entry, TokenRejection};

/// For how long a token that the service refused is not asked about again.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// What an answer takes beside its texts, roughly.
const ANSWER_OVERHEAD: usize = 1024;
/// For how long a token that the service accepted is no stranger's, after its answer has become too old.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// How many such tokens are remembered. Only who has a good token gets in, so nobody without one drives others out.
const MOST_KNOWN: u64 = 65_536;
/// For how long a service that does not know the question about several permissions is asked about each alone.
const SINGLES_FOR: Duration = Duration::from_mins(10);

/// How much may be asked, and for how long an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IamLimits {
    /// How old an answer may be.
    pub cache: Duration,
    /// How long one question may take.
    pub timeout: Duration,
    /// Questions at a time.
    pub questions: usize,
    /// Bytes of all remembered answers together.
    pub memory: u64,
}

/// Why there is no answer that anything could be decided by. What says more comes later in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoAnswer {
    /// Too many questions wait here for the service, so that it was not asked.
    NotAsked,
    /// It did not answer in time, or not as it should.
    Unavailable,
    /// The service refuses the token (its 401).
    Rejected,
}

/// Who the bearer of a token is.
pub type UserinfoAnswer<E> = Result<Arc<Entry<E>>, NoAnswer>;
/// Whether the bearer holds a permission.
pub type PermissionAnswer = Result<bool, NoAnswer>;

/// A token, as answers about it are found. Two tokens have the same one only if they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId([u8; 32]);

impl TokenId {
    /// The id of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(id)
    }
}

/// A question about one permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PermissionKey {
    /// Whose.
    pub token: TokenId,
    /// Where it is to count.
    pub service: Arc<str>,
    /// Which.
    pub code: PermissionCode,
}

/// What the cache has to say.
pub enum Known<V, E> {
    /// An answer that is not too old.
    Heard(Heard<V>),
    /// Nothing; it has been asked.
    Asked(Question<E>),
    /// It is not asked about such a token.
    Refused(TokenRejection),
}

/// The user service, asked through one client by tasks of one runtime. `E` is what the asker derives from an answer.
pub struct Iam<E> {
    wire: Wire,
    vouching: Vouching,
    limits: IamLimits,
    /// Where questions live, so that a client's going away ends none that others wait for.
    runtime: Handle,
    bearers: Arc<Memory<TokenId, UserinfoAnswer<E>>>,
    permissions: Arc<Memory<PermissionKey, PermissionAnswer>>,
    /// Tokens that the service accepted of late.
    known: Cache<TokenId, (), RandomState>,
    /// Seconds since `started` until which each permission is asked for alone.
    singles_until: AtomicUsize,
    started: Instant,
    count: Arc<DelegateMetrics>,
}

impl<E: Send + Sync + 'static> Iam<E> {
    /// Asks the service at `url`, which has no path or one without `/` at its end, through `client`, on `runtime`.
    #[must_use]
    pub fn new(
        url: &str,
        client: reqwest::Client,
        vouching: Vouching,
        limits: IamLimits,
        runtime: Handle,
        count: Arc<DelegateMetrics>,
    ) -> Arc<Self> {
        let weigh = |_: &TokenId, heard: &Heard<UserinfoAnswer<E>>| {
            let entry = heard.what.as_ref().map_or(0, |entry| entry.token().len() + entry.claims.heap_bytes());
            u32::try_from(entry + ANSWER_OVERHEAD).unwrap_or(u32::MAX)
        };
        let weigh_one = |key: &PermissionKey, _: &Heard<PermissionAnswer>| {
            u32::try_from(key.code.as_str().len() + key.service.len() + ANSWER_OVERHEAD / 4).unwrap_or(u32::MAX)
        };
        Arc::new(Self {
            wire: Wire::new(url, client, limits.questions, limits.timeout, Arc::clone(&count)),
            vouching,
            limits,
            runtime,
            bearers: Memory::new(limits.memory / 2, weigh),
            permissions: Memory::new(limits.memory / 2, weigh_one),
            known: Cache::builder()
                .max_capacity(MOST_KNOWN)
                .time_to_live(limits.cache + KNOWN_FOR)
                .build_with_hasher(RandomState::default()),
            singles_until: AtomicUsize::new(0),
            started: Instant::now(),
            count,
        })
    }

    /// Who the bearer of `token` is: what is remembered, or what will be answered.
    #[must_use]
    pub fn userinfo(self: &Arc<Self>, token: &str, now: Timestamp) -> Known<UserinfoAnswer<E>, E> {
        let id = TokenId::of(token);
        if let Some(heard) = self.bearers.recall(&id) {
            return Known::Heard(heard);
        }
        // Looked at only where it would be asked: what is remembered was asked about, so that it was good then, and no token
        // becomes worse in this.
        match self.vouching.may_be_asked_about(token, now) {
            Ok(()) => Known::Asked(self.ask_about(&id, token)),
            Err(rejection) => Known::Refused(rejection),
        }
    }

    /// Asks once more who the bearer of `token` is, of whom the service was asked before.
    pub fn ask_userinfo_again(self: &Arc<Self>, token: &str) -> Question<E> {
        self.ask_about(&TokenId::of(token), token)
    }

    fn ask_about(self: &Arc<Self>, id: &TokenId, token: &str) -> Question<E> {
        Question::userinfo(match self.bearers.fly(id) {
            Flight::Known(heard) => at_once(heard),
            Flight::Joined(receiver) => {
                self.count.coalesced(DelegateQuestion::Userinfo);
                receiver
            }
            Flight::Begun(receiver, landing) => {
                self.runtime.spawn(Arc::clone(self).ask_userinfo(token.into(), landing));
                receiver
            }
        })
    }

    /// What is remembered of a permission.
    #[must_use]
    pub fn permission(&self, key: &PermissionKey) -> Option<Heard<PermissionAnswer>> {
        self.permissions.recall(key)
    }

    /// Asks for permissions of the bearer of one token, of which nothing is remembered. Those that others have asked for a moment ago
    /// are waited for.
    pub fn ask_permissions(self: &Arc<Self>, entry: &Arc<Entry<E>>, keys: Vec<PermissionKey>) -> Question<E> {
        let mut waiting: Vec<(PermissionKey, Receiver<PermissionAnswer>)> = Vec::with_capacity(keys.len());
        // Of one service, unless a policy was exchanged while a request waited; and a question is about one.
        let mut landings: BTreeMap<Arc<str>, Vec<Landing<PermissionKey, PermissionAnswer>>> = BTreeMap::new();
        for key in keys {
            match self.permissions.fly(&key) {
                Flight::Known(heard) => waiting.push((key, at_once(heard))),
                Flight::Joined(receiver) => {
                    self.count.coalesced(DelegateQuestion::Permission);
                    waiting.push((key, receiver));
                }
                Flight::Begun(receiver, landing) => {
                    landings.entry(Arc::clone(&key.service)).or_default().push(landing);
                    waiting.push((key, receiver));
                }
            }
        }
        for (service, landings) in landings {
            self.runtime.spawn(Arc::clone(self).ask_many(Arc::clone(entry), service, landings));
        }
        Question::permissions(waiting)
    }

    async fn ask_userinfo(self: Arc<Self>, token: Box<str>, landing: Landing<TokenId, UserinfoAnswer<E>>) {
        let id = *landing.key();
        let bearer = if self.known.contains_key(&id) { Bearer::Known } else { Bearer::Stranger };
        let (asked, answered) = self.wire.userinfo(&token, bearer).await;
        let (what, age) = match answered {
            Ok(body) => {
                let unverified = Unverified::read(&token);
                let left = left_of(unverified.expires_at);
                match self.vouching.claims(unverified, &body) {
                    Ok(claims) => {
                        self.known.insert(id, ());
                        (Ok(Arc::new(Entry::vouched(&token, claims))), self.limits.cache.min(left))
                    }
                    Err(wrong) => {
                        self.wire.complain(wrong);
                        (Err(NoAnswer::Unavailable), Duration::ZERO)
                    }
                }
            }
            Err(none) => {
                if none == NoAnswer::Rejected {
                    self.known.invalidate(&id);
                }
                (Err(none), age_of(none))
            }
        };
        landing.land(Heard::new(what, asked, age));
    }

    /// Asks for permissions of one service.
    async fn ask_many(
        self: Arc<Self>,
        entry: Arc<Entry<E>>,
        service: Arc<str>,
        landings: Vec<Landing<PermissionKey, PermissionAnswer>>,
    ) {
        if landings.len() > 1 && self.asks_for_several() {
            let codes: Vec<&str> = landings.iter().map(|landing| landing.key().code.as_str()).collect();
            let (asked, checked) = self.wire.check_many(entry.token(), &service, &codes).await;
            match checked {
                Checked::Each(held) => {
                    for (landing, held) in landings.into_iter().zip(held) {
                        self.land(landing, &entry, asked, Ok(held));
                    }
                    return;
                }
                Checked::Failed(none) => {
                    landings.into_iter().for_each(|landing| self.land(landing, &entry, asked, Err(none)));
                    return;
                }
                Checked::Unknown => self.ask_singly(),
            }
        }
        for landing in landings {
            self.runtime.spawn(Arc::clone(&self).ask_one(Arc::clone(&entry), landing));
        }
    }

    async fn ask_one(self: Arc<Self>, entry: Arc<Entry<E>>, landing: Landing<PermissionKey, PermissionAnswer>) {
        let key = landing.key();
        let (asked, held) = self.wire.check(entry.token(), &key.service, key.code.as_str()).await;
        self.land(landing, &entry, asked, held);
    }

    fn land(
        &self,
        landing: Landing<PermissionKey, PermissionAnswer>,
        entry: &Entry<E>,
        asked: Instant,
        answer: PermissionAnswer,
    ) {
        let age = match answer {
            Ok(_) => self.limits.cache.min(left_of(Some(entry.claims.expires_at))),
            Err(none) => age_of(none),
        };
        landing.land(Heard::new(answer, asked, age));
    }

    fn asks_for_several(&self) -> bool {
        self.started.elapsed().as_secs() >= self.singles_until.load(Ordering::Relaxed) as u64
    }

    fn ask_singly(&self) {
        let until = (self.started.elapsed() + SINGLES_FOR).as_secs();
        if self.singles_until.swap(usize::try_from(until).unwrap_or(usize::MAX), Ordering::Relaxed) == 0 {
            tracing::info!(
                "the user service does not answer for several permissions at once; it is asked for each alone"
            );
        }
    }
}

impl<E> std::fmt::Debug for Iam<E> {
    /// Without the answers, which hold tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iam").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn age_of(none: NoAnswer) -> Duration {
    match none {
        NoAnswer::Rejected => REFUSED_FOR,
        NoAnswer::Unavailable | NoAnswer::NotAsked => Duration::ZERO,
    }
}

/// How long a token with this `exp` still lives.
fn left_of(expires_at: Option<Timestamp>) -> Duration {
    let Some(expires_at) = expires_at else { return Duration::MAX };
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(expires_at.0).unwrap_or(0));
    end.duration_since(SystemTime::now()).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "iam_tests.rs"]
mod tests;
