//! What is asked for one request, and what has been told to it.

use std::time::{Duration, Instant};

use super::iam::{NoAnswer, PermissionAnswer, PermissionKey, UserinfoAnswer};
use super::lookup::{Holding, KeyId, Unreachable};
use super::memory::{Heard, Receiver, await_answer};

/// A question that is under way, or several at a time. It goes on when this is dropped.
#[must_use]
pub struct Question<E>(Vec<Asked<E>>);

enum Asked<E> {
    Userinfo(Receiver<UserinfoAnswer<E>>),
    Permissions(Vec<(PermissionKey, Receiver<PermissionAnswer>)>),
    Blacklist(KeyId, Receiver<Holding>),
}

/// What was told to a request that had to ask, so that an answer that is not remembered by anybody else serves it all the same.
pub struct Told<E> {
    userinfo: Option<Answer<UserinfoAnswer<E>>>,
    permissions: Vec<(PermissionKey, Answer<PermissionAnswer>)>,
    blacklist: Option<(KeyId, Answer<Holding>)>,
    /// How often it asked.
    rounds: u8,
    /// How long the user service took to say who is asking, until that is counted.
    uncounted: Option<Duration>,
    /// When the first of the answers that were used is too old.
    good_until: Option<Instant>,
    /// An answer was used that has become too old while others were waited for.
    outdated: bool,
    /// It has asked again for what had become too old.
    refreshed: bool,
}

/// What was answered, and in which round.
struct Answer<V> {
    heard: Heard<V>,
    round: u8,
}

/// Two things are asked of a user service one after the other, and one of a blacklist; what is too old by then is asked for again, at
/// most twice. More only while policies are exchanged.
const MOST_ROUNDS: u8 = 6;

/// What is asked for again.
#[derive(Debug)]
pub struct Outdated {
    /// Who the bearer is.
    pub userinfo: bool,
    /// Whether they hold these.
    pub permissions: Vec<PermissionKey>,
    /// Whether the token is on the blacklist.
    pub blacklist: bool,
}

/// For how long the request that asked uses an answer at least: where next to nothing is remembered (`cache = "1ms"`) no question could
/// follow upon another.
const IN_REQUEST: Duration = Duration::from_secs(1);

impl<E> Default for Told<E> {
    fn default() -> Self {
        Self {
            userinfo: None,
            permissions: Vec::new(),
            blacklist: None,
            rounds: 0,
            uncounted: None,
            good_until: None,
            outdated: false,
            refreshed: false,
        }
    }
}

impl<E> Question<E> {
    pub(super) fn userinfo(receiver: Receiver<UserinfoAnswer<E>>) -> Self {
        Self(vec![Asked::Userinfo(receiver)])
    }

    pub(super) fn permissions(receivers: Vec<(PermissionKey, Receiver<PermissionAnswer>)>) -> Self {
        Self(vec![Asked::Permissions(receivers)])
    }

    pub(super) fn blacklist(key: KeyId, receiver: Receiver<Holding>) -> Self {
        Self(vec![Asked::Blacklist(key, receiver)])
    }

    /// All of these, which are under way at the same time.
    pub fn all(questions: impl IntoIterator<Item = Self>) -> Self {
        Self(questions.into_iter().flat_map(|question| question.0).collect())
    }

    /// Waits for the answers, which come within the time that the one who is asked has. Whoever ends without answering has not
    /// answered.
    pub async fn answer(self, told: &mut Told<E>) {
        told.rounds = told.rounds.saturating_add(1);
        // What is decided next says anew what it was decided by.
        (told.good_until, told.outdated) = (None, false);
        let began = Instant::now();
        let round = told.rounds;
        for asked in self.0 {
            match asked {
                Asked::Userinfo(receiver) => {
                    let heard = await_answer(receiver).await.unwrap_or_else(|| nothing(Err(NoAnswer::Unavailable)));
                    if told.userinfo.replace(Answer { heard, round }).is_none() {
                        told.uncounted = Some(began.elapsed());
                    }
                }
                Asked::Permissions(receivers) => {
                    for (key, receiver) in receivers {
                        let heard = await_answer(receiver).await.unwrap_or_else(|| nothing(Err(NoAnswer::Unavailable)));
                        told.permissions.retain(|(known, _)| *known != key);
                        told.permissions.push((key, Answer { heard, round }));
                    }
                }
                Asked::Blacklist(key, receiver) => {
                    let heard = await_answer(receiver).await.unwrap_or_else(|| nothing(Err(Unreachable)));
                    told.blacklist = Some((key, Answer { heard, round }));
                }
            }
        }
    }
}

fn nothing<V>(what: V) -> Heard<V> {
    Heard::new(what, Instant::now(), Duration::ZERO)
}

impl<V, F> Answer<Result<V, F>> {
    /// Whether something may be decided by it. That there was no answer does not become older.
    fn counts(&self, round: u8, now: Instant) -> bool {
        let good = now < self.heard.good_until || now < self.heard.asked + IN_REQUEST;
        good || self.round == round || self.heard.what.is_err()
    }
}

impl<E> Told<E> {
    /// Who the bearer is.
    pub fn userinfo(&mut self) -> Option<Heard<UserinfoAnswer<E>>> {
        let answer = self.userinfo.as_ref()?;
        self.outdated |= !answer.counts(self.rounds, Instant::now());
        Some(answer.heard.clone())
    }

    /// Whether the bearer holds a permission.
    pub fn permission(&mut self, key: &PermissionKey) -> Option<Heard<PermissionAnswer>> {
        let (_, answer) = self.permissions.iter().find(|(known, _)| known == key)?;
        self.outdated |= !answer.counts(self.rounds, Instant::now());
        Some(answer.heard.clone())
    }

    /// Whether the blacklist holds a key.
    pub fn blacklist(&mut self, key: KeyId) -> Option<Heard<Holding>> {
        let (_, answer) = self.blacklist.as_ref().filter(|(known, _)| *known == key)?;
        self.outdated |= !answer.counts(self.rounds, Instant::now());
        Some(answer.heard.clone())
    }

    /// Whether an answer was used, since the last round, that had become too old while others were waited for.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// What has to be asked for again, all at the same time: what is too old. The second time everything that was told, or two answers
    /// could take turns in becoming too old: what is remembered of it by then counts as told once more.
    pub fn outdated(&mut self) -> Outdated {
        let (all, now) = (std::mem::replace(&mut self.refreshed, true), Instant::now());
        let again = |good_until: Instant| all || now >= good_until;
        let permissions = self.permissions.iter().filter(|(_, answer)| again(answer.heard.good_until));
        Outdated {
            userinfo: self.userinfo.as_ref().is_some_and(|answer| again(answer.heard.good_until)),
            permissions: permissions.map(|(key, _)| key.clone()).collect(),
            blacklist: self.blacklist.as_ref().is_some_and(|(_, answer)| again(answer.heard.good_until)),
        }
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
