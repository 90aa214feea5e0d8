//! Answers that are remembered, and questions that are under way.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use moka::Expiry;
use moka::sync::Cache;
use tokio::sync::watch;

/// An answer, and until when it may be used.
#[derive(Debug, Clone)]
pub struct Heard<V> {
    /// What was answered.
    pub what: V,
    /// When it was asked for.
    pub(super) asked: Instant,
    /// From then on it is too old.
    pub good_until: Instant,
}

impl<V> Heard<V> {
    /// An answer to a question that was asked at `asked`: its age counts from there, not from when it came, for it may have been
    /// given at once and have been long on its way.
    #[must_use]
    pub(super) fn new(what: V, asked: Instant, age: Duration) -> Self {
        Self { what, asked, good_until: asked + age }
    }
}

/// What waits for an answer. `None` until it is there; the sender's end without one means that there will be none.
pub(super) type Receiver<V> = watch::Receiver<Option<Heard<V>>>;

/// Remembers answers by what was asked, and knows which questions are under way: of equal ones there is one.
pub(super) struct Memory<K, V> {
    answers: Cache<K, Heard<V>, RandomState>,
    flights: Mutex<HashMap<K, Receiver<V>, RandomState>>,
}

/// How a question that has no answer yet goes on.
pub(super) enum Flight<K: Eq + Hash, V> {
    /// It was answered a moment ago.
    Known(Heard<V>),
    /// It is under way.
    Joined(Receiver<V>),
    /// It is this caller's to ask.
    Begun(Receiver<V>, Landing<K, V>),
}

/// A question that somebody has to answer. Dropped without an answer, whoever waits hears that there is none, and the next one
/// who wants to know asks anew.
pub(super) struct Landing<K: Eq + Hash, V> {
    memory: Arc<Memory<K, V>>,
    key: K,
    sender: watch::Sender<Option<Heard<V>>>,
    /// Whether it has been answered, so that the next question about the same is somebody else's.
    landed: bool,
}

struct UntilTooOld;

impl<K, V> Expiry<K, Heard<V>> for UntilTooOld {
    fn expire_after_create(&self, _: &K, heard: &Heard<V>, now: Instant) -> Option<Duration> {
        Some(heard.good_until.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &K, heard: &Heard<V>, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(heard.good_until.saturating_duration_since(now))
    }
}

impl<K: Eq + Hash + Clone + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Memory<K, V> {
    /// Remembers answers of at most `bytes` together, each of which weighs what `weigh` says.
    pub(super) fn new(bytes: u64, weigh: impl Fn(&K, &Heard<V>) -> u32 + Send + Sync + 'static) -> Arc<Self> {
        let answers = Cache::builder()
            .max_capacity(bytes)
            .weigher(weigh)
            .expire_after(UntilTooOld)
            .build_with_hasher(RandomState::default());
        Arc::new(Self { answers, flights: Mutex::default() })
    }

    /// What was answered, if it is not too old.
    pub(super) fn recall(&self, key: &K) -> Option<Heard<V>> {
        self.answers.get(key).filter(|heard| Instant::now() < heard.good_until)
    }

    /// Joins the question if it is under way, or begins it.
    pub(super) fn fly(self: &Arc<Self>, key: &K) -> Flight<K, V> {
        let mut flights = self.flights();
        match flights.entry(key.clone()) {
            Entry::Occupied(found) => Flight::Joined(found.get().clone()),
            Entry::Vacant(slot) => {
                // Looked at under the lock: an answer is remembered before its flight ends, so that between the two nobody asks
                // once more.
                if let Some(heard) = self.recall(key) {
                    return Flight::Known(heard);
                }
                let (sender, receiver) = watch::channel(None);
                slot.insert(receiver.clone());
                Flight::Begun(receiver, Landing { memory: Arc::clone(self), key: key.clone(), sender, landed: false })
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, Receiver<V>, RandomState>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Landing<K, V> {
    /// What is asked.
    pub(super) fn key(&self) -> &K {
        &self.key
    }

    /// The answer. It is remembered for as long as it is good, and that may be not at all.
    pub(super) fn land(mut self, heard: Heard<V>) {
        if Instant::now() < heard.good_until {
            self.memory.answers.insert(self.key.clone(), heard.clone());
        }
        // Before anybody hears of it: who asks from then on finds it remembered, or asks anew.
        self.memory.flights().remove(&self.key);
        self.landed = true;
        self.sender.send_replace(Some(heard));
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        self.memory.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// What waits for nothing: the answer is there.
pub(super) fn at_once<V>(heard: Heard<V>) -> Receiver<V> {
    watch::channel(Some(heard)).1
}

/// Waits for an answer; `None`: there is none.
pub(super) async fn await_answer<V: Clone>(mut receiver: Receiver<V>) -> Option<Heard<V>> {
    receiver.wait_for(Option::is_some).await.ok().and_then(|heard| heard.clone())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Wake, Waker};

    use super::*;

    fn memory() -> Arc<Memory<u32, bool>> {
        Memory::new(1000, |_, _| 1)
    }

    fn begun(flight: Flight<u32, bool>) -> (Receiver<bool>, Landing<u32, bool>) {
        match flight {
            Flight::Begun(receiver, landing) => (receiver, landing),
            _ => panic!("it was known or under way"),
        }
    }

    #[tokio::test]
    async fn equal_questions_are_one_and_all_hear_its_answer() {
        let memory = memory();
        let (first, landing) = begun(memory.fly(&1));
        let joined: Vec<_> = (0..1000)
            .map(|_| match memory.fly(&1) {
                Flight::Joined(receiver) => receiver,
                _ => panic!("it was asked twice"),
            })
            .collect();
        drop(first);
        landing.land(Heard::new(true, Instant::now(), Duration::from_secs(60)));
        for receiver in joined {
            assert!(await_answer(receiver).await.unwrap().what, "though the first to ask has gone");
        }
        assert!(matches!(memory.fly(&1), Flight::Known(heard) if heard.what));
        assert!(memory.recall(&1).is_some() && memory.recall(&2).is_none());
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_none_and_is_asked_for_anew() {
        let memory = memory();
        let (receiver, landing) = begun(memory.fly(&1));
        drop(landing);
        assert!(await_answer(receiver).await.is_none());
        begun(memory.fly(&1));
    }

    /// Asks once more the moment that it is woken.
    struct AsksAgain(Arc<Memory<u32, bool>>, Mutex<Option<Flight<u32, bool>>>);

    impl Wake for AsksAgain {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.fly(&1));
        }
    }

    #[test]
    fn t15_who_comes_after_an_answer_does_not_join_its_question() {
        let memory = memory();
        let (receiver, landing) = begun(memory.fly(&1));
        let again = Arc::new(AsksAgain(Arc::clone(&memory), Mutex::default()));
        let waker = Waker::from(Arc::clone(&again));
        let mut waits = pin!(await_answer(receiver));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        landing.land(Heard::new(false, Instant::now(), Duration::ZERO));
        let second = again.1.lock().unwrap().take();
        assert!(matches!(second, Some(Flight::Begun(..))), "what nobody remembers was told to who came later");
        assert!(matches!(memory.fly(&1), Flight::Joined(_)), "the end of the first ended the second");
    }

    #[tokio::test]
    async fn t15_an_answers_age_counts_from_the_question() {
        let memory = memory();
        let (receiver, landing) = begun(memory.fly(&1));
        landing.land(Heard::new(true, Instant::now() - Duration::from_secs(5), Duration::from_secs(5)));
        assert!(await_answer(receiver).await.is_some(), "who waited hears it");
        assert!(memory.recall(&1).is_none(), "who comes later asks anew");
        let (_, landing) = begun(memory.fly(&1));
        let asked = Instant::now();
        landing.land(Heard::new(false, asked, Duration::from_millis(30)));
        // On a machine that stood still meanwhile its time may be over.
        assert!(memory.recall(&1).is_some() || asked.elapsed() >= Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(40));
        assert!(memory.recall(&1).is_none());
    }
}
