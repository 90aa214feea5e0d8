//! Open exchanges are decided again (T20): who opened a stream must not keep it longer than the right to it.
//!
//! A fast request never comes here. An exchange that is open for [`OPEN_LONG`] enters its worker's [`Watch`] and is decided
//! again at once; from then on a look at a few counters every [`PERIOD`] says whether anything has changed, and only
//! then every exchange in the list is woken to ask [`crate::admission::Admission::readmit`]. What expires is woken at its time,
//! and so is what was decided by an answer from elsewhere, when that is too old.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::admission::{Changes, Question, Told};
use crate::clock::Timestamp;
use crate::reason::Reason;

/// How long an exchange is open until it is watched.
pub const OPEN_LONG: Duration = Duration::from_secs(5);
/// How often a worker looks whether anything has changed; half of what T20 allows.
pub const PERIOD: Duration = Duration::from_millis(500);

/// For how long an exchange goes on whose caller's user service could not be asked, since too many questions wait. It is tried again
/// every second.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why an open exchange has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It would not be admitted any more.
    Denied(Reason),
    /// The process is about to end. Streams alone are told.
    Leaving,
}

/// One worker's exchanges that are open for long.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    notices: Vec<Weak<Notice>>,
    /// What was in force at the last look.
    seen: Option<Changes>,
    leaving: bool,
}

/// How one open exchange hears that it has to look. Who drops it is forgotten.
pub struct Notice {
    call: AtomicU8,
    expires_at: Option<Timestamp>,
    /// Unix seconds from which on it has to be decided again, though nothing changed: what was asked elsewhere is too old then.
    until: AtomicI64,
    /// Since when nobody could be asked about it.
    undecided: Mutex<Option<Instant>>,
    /// What was told to it since.
    told: Mutex<Option<Told>>,
    waker: Mutex<Option<Waker>>,
}

/// What an exchange is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To ask again whether it may go on.
    Decide,
    /// To come to an end, if it is a stream.
    Leave,
}

const NONE: u8 = 0;
const DECIDE: u8 = 1;
const LEAVE: u8 = 2;

impl Watch {
    /// Takes an exchange into the list. It is called at once: what has changed since it was admitted is not known here.
    #[must_use]
    pub fn enter(&self, expires_at: Option<Timestamp>) -> Arc<Notice> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call = AtomicU8::new(if open.leaving { LEAVE } else { DECIDE });
        let notice = Arc::new(Notice {
            call,
            expires_at,
            until: AtomicI64::new(i64::MAX),
            undecided: Mutex::default(),
            told: Mutex::default(),
            waker: Mutex::default(),
        });
        open.notices.push(Arc::downgrade(&notice));
        notice
    }

    /// Calls whom it concerns. `changes` is read before this, so that a change meanwhile is one for the next look.
    pub fn look(&self, changes: Changes, now: Timestamp) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = open.seen.replace(changes) != Some(changes);
        open.notices.retain(|notice| {
            let Some(notice) = notice.upgrade() else { return false };
            let too_old = now.0 >= notice.until.load(Ordering::Acquire);
            if changed || too_old || notice.expires_at.is_some_and(|at| now >= at) {
                notice.raise(DECIDE);
            }
            true
        });
        if open.notices.capacity() > 4 * open.notices.len() + 1024 {
            open.notices.shrink_to_fit();
        }
    }

    /// Calls all: those that are here, and those that come.
    pub fn leave(&self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.leaving = true;
        open.notices.iter().filter_map(Weak::upgrade).for_each(|notice| notice.raise(LEAVE));
    }
}

impl Notice {
    /// Whether there is a call. One load.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.call.load(Ordering::Acquire) != NONE
    }

    /// Takes the call, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<Call> {
        match self.call.swap(NONE, Ordering::AcqRel) {
            NONE => None,
            DECIDE => Some(Call::Decide),
            _ => Some(Call::Leave),
        }
    }

    /// Whom to wake by the next call. A call that was raised before is not lost: look for it after this.
    pub fn wakes(&self, waker: &Waker) {
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    /// It goes on, and from when on it has to be decided again, though nothing changed.
    pub fn is_good_until(&self, until: Option<Timestamp>) {
        *self.undecided.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.until.store(until.map_or(i64::MAX, |until| until.0), Ordering::Release);
    }

    /// Nobody could be asked about it. Whether it may go on all the same, to be decided again in a second: it may until this has been
    /// so for [`PATIENCE`].
    #[must_use]
    pub fn may_wait(&self, now: Timestamp, at: Instant) -> bool {
        let since = *self.undecided.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(at);
        self.until.store(now.plus(1).0, Ordering::Release);
        at.saturating_duration_since(since) < PATIENCE
    }

    /// What was told to it since it last asked, if it asked.
    #[must_use]
    pub fn take_told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Has it decided once more when this is answered. It goes on until then: who is asked answers within a bounded time, or has not
    /// answered, which is an answer too.
    pub fn calls_upon(self: &Arc<Self>, question: Question, mut told: Told) {
        let notice = Arc::downgrade(self);
        tokio::spawn(async move {
            question.answer(&mut told).await;
            let Some(notice) = notice.upgrade() else { return };
            *notice.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            notice.raise(DECIDE);
        });
    }

    fn raise(&self, call: u8) {
        self.call.fetch_max(call, Ordering::AcqRel);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Changes;

    #[test]
    fn t20_who_enters_decides_at_once_and_then_upon_a_change_or_its_expiry() {
        let watch = Watch::default();
        let forever = watch.enter(None);
        let mortal = watch.enter(Some(Timestamp(100)));
        assert_eq!((forever.take(), mortal.take()), (Some(Call::Decide), Some(Call::Decide)));
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(10));
        assert_eq!((forever.take(), mortal.take()), (Some(Call::Decide), Some(Call::Decide)), "the first look");
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(99));
        assert_eq!((forever.take(), mortal.take()), (None, None), "nothing has changed");
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(100));
        assert_eq!((forever.take(), mortal.take()), (None, Some(Call::Decide)), "one expires");
        for changed in [[2, 0, 0, 0], [2, 1, 0, 0], [2, 1, 1, 0], [2, 1, 1, 1]] {
            watch.look(Changes::of(changed), Timestamp(10));
            assert_eq!(forever.take(), Some(Call::Decide), "{changed:?}");
        }
        watch.leave();
        assert_eq!((forever.take(), watch.enter(None).take()), (Some(Call::Leave), Some(Call::Leave)));
    }

    #[test]
    fn t15_what_was_asked_elsewhere_is_decided_again_when_it_is_too_old() {
        let watch = Watch::default();
        let notice = watch.enter(None);
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(10));
        assert_eq!(notice.take(), Some(Call::Decide));
        notice.is_good_until(Some(Timestamp(15)));
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(14));
        assert_eq!(notice.take(), None);
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(15));
        assert_eq!(notice.take(), Some(Call::Decide));
        notice.is_good_until(None);
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(i64::MAX - 1));
        assert_eq!(notice.take(), None);
    }

    #[test]
    fn t15_who_cannot_be_asked_about_waits_for_a_stated_time_and_is_tried_every_second() {
        let (watch, began) = (Watch::default(), Instant::now());
        let notice = watch.enter(None);
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(10));
        assert_eq!(notice.take(), Some(Call::Decide));
        assert!(notice.may_wait(Timestamp(10), began));
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(10));
        assert_eq!(notice.take(), None);
        watch.look(Changes::of([1, 0, 0, 0]), Timestamp(11));
        assert_eq!(notice.take(), Some(Call::Decide));
        assert!(notice.may_wait(Timestamp(11), began + PATIENCE - Duration::from_millis(1)));
        assert!(!notice.may_wait(Timestamp(12), began + PATIENCE), "whatever has called it meanwhile");
        notice.is_good_until(None);
        assert!(notice.may_wait(Timestamp(12), began + PATIENCE), "an answer begins it anew");
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let watch = Watch::default();
        for _ in 0..10_000 {
            drop(watch.enter(None));
        }
        watch.look(Changes::of([0; 4]), Timestamp(0));
        let open = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(open.notices.is_empty() && open.notices.capacity() < 2048);
    }
}
