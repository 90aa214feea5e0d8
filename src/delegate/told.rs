//! What is asked for one request, and what has been told to it.

use std::time::{Duration, Instant};

use super::iam::{NoAnswer, PermissionAnswer, PermissionKey, UserinfoAnswer};
use super::lookup::{Holding, KeyId, Unreachable};
use super::memory::{Heard, Receiver, await_answer};

/// A question that is under way. It goes on when this is dropped.
#[must_use]
pub struct Question<E>(Asked<E>);

enum Asked<E> {
    Userinfo(Receiver<UserinfoAnswer<E>>),
    Permissions(Vec<(PermissionKey, Receiver<PermissionAnswer>)>),
    Blacklist(KeyId, Receiver<Holding>),
}

/// What was told to a request that had to ask, so that an answer that is not remembered by anybody else serves it all the same.
pub struct Told<E> {
    userinfo: Option<Heard<UserinfoAnswer<E>>>,
    permissions: Vec<(PermissionKey, Heard<PermissionAnswer>)>,
    blacklist: Option<(KeyId, Heard<Holding>)>,
    /// How often it asked.
    rounds: u8,
    /// How long the user service took to say who is asking, until that is counted.
    uncounted: Option<Duration>,
    /// When the first of the answers that were used is too old.
    good_until: Option<Instant>,
}

/// Two things are asked of a user service one after the other, and one of a blacklist; more only while policies are exchanged.
const MOST_ROUNDS: u8 = 6;

impl<E> Default for Told<E> {
    fn default() -> Self {
        Self { userinfo: None, permissions: Vec::new(), blacklist: None, rounds: 0, uncounted: None, good_until: None }
    }
}

impl<E> Question<E> {
    pub(super) fn userinfo(receiver: Receiver<UserinfoAnswer<E>>) -> Self {
        Self(Asked::Userinfo(receiver))
    }

    pub(super) fn permissions(receivers: Vec<(PermissionKey, Receiver<PermissionAnswer>)>) -> Self {
        Self(Asked::Permissions(receivers))
    }

    pub(super) fn blacklist(key: KeyId, receiver: Receiver<Holding>) -> Self {
        Self(Asked::Blacklist(key, receiver))
    }

    /// Waits for the answer, which comes within the time that the one who is asked has. Whoever ends without answering has not
    /// answered.
    pub async fn answer(self, told: &mut Told<E>) {
        let began = Instant::now();
        match self.0 {
            Asked::Userinfo(receiver) => {
                let heard = await_answer(receiver).await;
                told.userinfo = Some(heard.unwrap_or_else(|| nothing(Err(NoAnswer::Unavailable))));
                told.uncounted = Some(began.elapsed());
            }
            Asked::Permissions(receivers) => {
                for (key, receiver) in receivers {
                    let heard = await_answer(receiver).await.unwrap_or_else(|| nothing(Err(NoAnswer::Unavailable)));
                    told.permissions.retain(|(known, _)| *known != key);
                    told.permissions.push((key, heard));
                }
            }
            Asked::Blacklist(key, receiver) => {
                let heard = await_answer(receiver).await;
                told.blacklist = Some((key, heard.unwrap_or_else(|| nothing(Err(Unreachable)))));
            }
        }
        told.rounds = told.rounds.saturating_add(1);
    }
}

fn nothing<V>(what: V) -> Heard<V> {
    Heard::new(what, Instant::now(), Duration::ZERO)
}

impl<E> Told<E> {
    /// Who the bearer is.
    #[must_use]
    pub fn userinfo(&self) -> Option<&Heard<UserinfoAnswer<E>>> {
        self.userinfo.as_ref()
    }

    /// Whether the bearer holds a permission.
    #[must_use]
    pub fn permission(&self, key: &PermissionKey) -> Option<&Heard<PermissionAnswer>> {
        self.permissions.iter().find(|(known, _)| known == key).map(|(_, heard)| heard)
    }

    /// Whether the blacklist holds a key.
    #[must_use]
    pub fn blacklist(&self, key: KeyId) -> Option<&Heard<Holding>> {
        self.blacklist.as_ref().filter(|(known, _)| *known == key).map(|(_, heard)| heard)
    }

    /// Whether nothing more is asked: what is not known by now is not available.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.rounds >= MOST_ROUNDS
    }

    /// Whether anything was asked.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.rounds > 0
    }

    /// How long it took to be told who is asking, once.
    pub fn take_uncounted(&mut self) -> Option<Duration> {
        self.uncounted.take()
    }

    /// An answer was used that is good until then.
    pub fn used(&mut self, good_until: Instant) {
        self.good_until = Some(self.good_until.map_or(good_until, |earlier| earlier.min(good_until)));
    }

    /// When the first of the answers that were used is too old.
    #[must_use]
    pub fn good_until(&self) -> Option<Instant> {
        self.good_until
    }
}
