//! The one thread of a process that appends: it takes all that has gathered while it wrote, so that a thousand callers share a few
//! `fsync`s.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::error::LedgerError;
use super::handle::Recorded;
use super::truth::Shared;
use crate::revocation::Entry;

/// Callers that may wait; more are told to come again.
pub(super) const WAITING: usize = 8192;
/// Changes written together.
const AT_ONCE: usize = 1024;

/// One change to be recorded.
pub(super) struct Job {
    /// Its number is above this one.
    pub(super) above: u64,
    /// `None`: only what was lost is to be recorded again.
    pub(super) entry: Option<Entry>,
    pub(super) reply: Reply,
}

/// Who waits.
pub(super) type Reply = Box<dyn FnOnce(Result<Arc<Recorded>, LedgerError>) + Send>;

/// Writes until nobody can ask any more.
pub(super) fn write(shared: &Shared, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let (mut entries, mut replies) = (Vec::new(), Vec::new());
        for job in std::iter::once(first).chain(jobs.try_iter().take(AT_ONCE - 1)) {
            if let Some(entry) = job.entry {
                entries.push((job.above, entry));
                replies.push(job.reply);
            }
        }
        match shared.commit(&entries) {
            Ok(recorded) => replies.into_iter().zip(recorded).for_each(|(reply, recorded)| reply(Ok(recorded))),
            Err(error) => {
                shared.metrics.failed();
                tracing::error!(%error, changes = entries.len(), "changes could not be recorded");
                replies.into_iter().for_each(|reply| reply(Err(error.clone())));
            }
        }
    }
}
