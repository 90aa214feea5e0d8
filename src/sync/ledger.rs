//! The loops beside the revocation folder: what other processes record in it is in force here within a second (T12), and it stays
//! small.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::replica::now;
use crate::clock::{Settled, Timestamp};
use crate::ledger::{Ledger, LedgerError};
use crate::revocation::{Entry, Freshness, RevocationIndex};

/// How often the folder is looked at: three `stat`s when there is nothing new.
const LOOK: Duration = Duration::from_millis(200);
/// How many looks pass before what could not be announced is tried again.
const LOOKS_BETWEEN_TRIES: u32 = 25;
/// How often it is asked whether there is something to tend.
const TEND: Duration = Duration::from_secs(5);

/// Follows the folder until the task is dropped. As long as the folder `leads`, every look that succeeds counts as having heard of the
/// truth: there is nobody else to hear of it from, and an outage of Redis takes nothing from what this process knows.
pub async fn follow(ledger: Arc<Ledger>, freshness: Arc<Freshness>, leads: Arc<AtomicBool>) {
    let mut told = Told::default();
    each(LOOK, ledger, move |ledger| {
        let began = now();
        let looked = ledger.follow();
        if looked.is_ok() && leads.load(Ordering::Acquire) {
            freshness.heard(began, began);
        }
        told.of("the revocation folder cannot be followed", looked.err());
    })
    .await;
}

/// Keeps the folder small until the task is dropped.
pub async fn tend(ledger: Arc<Ledger>) {
    let (mut told, mut settled) = (Told::default(), Settled::default());
    each(TEND, ledger, move |ledger| {
        let now = settled.time(Timestamp::now(), Instant::now());
        told.of("the revocation folder cannot be tended", ledger.tend(now).err());
    })
    .await;
}

/// Announces the role data in force here whenever it has changed, until the task is dropped: overrides that were made with earlier data
/// go on wherever the later data is (T9). What was in force at the start was announced then ([`announce_if_news`]), or nobody needed it:
/// data that does not change is not announced later, for somebody may have made an override with newer data meanwhile.
pub async fn announce_role_data(
    ledger: Arc<Ledger>,
    index: Arc<RevocationIndex>,
    in_force: impl Fn() -> Box<str> + Send + 'static,
) {
    let mut announced = in_force();
    let (mut told, mut pause) = (Told::default(), 0_u32);
    each(LOOK, ledger, move |ledger| {
        pause = pause.saturating_sub(1);
        let fingerprint = in_force();
        if announced == fingerprint || pause > 0 {
            return;
        }
        let failure = announce_if_news(ledger, &index, &fingerprint).err();
        match failure {
            None => announced = fingerprint,
            Some(_) => pause = LOOKS_BETWEEN_TRIES,
        }
        told.of("the changed role data cannot be announced", failure);
    })
    .await;
}

/// Announces role data with this fingerprint, if somebody has overrides that presume some and it is not what was announced last.
///
/// # Errors
/// As [`Ledger::record`], but for a process that records nothing.
pub fn announce_if_news(ledger: &Ledger, index: &RevocationIndex, fingerprint: &str) -> Result<(), LedgerError> {
    if !index.is_role_data_news(fingerprint) {
        return Ok(());
    }
    match ledger.record(Entry::RoleData { fingerprint: fingerprint.into() }) {
        Ok(_) => {
            tracing::info!(fingerprint, "the role data is announced: overrides that presume earlier data go on");
            Ok(())
        }
        Err(LedgerError::ReadOnly) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Calls what may wait for the disk on a thread where it may, one call at a time. A call that panics is not the last: what comes after it
/// in the folder has to be followed.
async fn each<L: Send + Sync + 'static>(period: Duration, ledger: Arc<L>, work: impl FnMut(&L) + Send + 'static) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Box::new(work);
    loop {
        ticks.tick().await;
        let ledger = Arc::clone(&ledger);
        let worked = tokio::task::spawn_blocking(move || {
            // Whoever panics leaves locks that the next one takes all the same, and reads again what was not read to its end.
            let panicked = catch_unwind(AssertUnwindSafe(|| work(&ledger))).is_err();
            (work, panicked)
        });
        match worked.await {
            Ok((again, panicked)) => {
                if panicked {
                    tracing::error!(
                        "a look at the revocation folder has panicked; please report it. The next one follows"
                    );
                }
                work = again;
            }
            Err(error) => return tracing::error!(%error, "a loop beside the revocation folder has ended"),
        }
    }
}

/// A failure is told when it begins, when it becomes another one, and when it ends.
#[derive(Default)]
struct Told(Option<String>);

impl Told {
    fn of(&mut self, what: &str, failure: Option<LedgerError>) {
        let failure = failure.map(|error| error.to_string());
        match (&self.0, &failure) {
            (before, Some(error)) if before.as_ref() != Some(error) => tracing::error!(error, "{what}"),
            (Some(_), None) => tracing::info!("the revocation folder is well again"),
            _ => {}
        }
        self.0 = failure;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn t12_a_look_that_panics_is_not_the_last() {
        let calls = Arc::new(AtomicUsize::new(0));
        let looking = tokio::spawn(each(Duration::from_millis(1), Arc::clone(&calls), |calls| {
            assert!(calls.fetch_add(1, Ordering::AcqRel) != 0, "only once");
        }));
        let called_again = async {
            while calls.load(Ordering::Acquire) < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), called_again).await.unwrap();
        looking.abort();
    }
}
