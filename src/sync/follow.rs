//! The files that may change while doorward runs: read together, judged together, put in force whole or not at all.
//!
//! Policies name upstreams, so a changed configuration and changed policies are held against each other, in whatever order
//! they come: a removed upstream that a policy still names is refused, and both together are taken when both are there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::policy_files::{Loaded, PolicyFiles, Texts, Unusable};

/// How often the files are read. A change counts once two readings in a row agree, so that a file which is being written
/// is not taken for a finished one; that is within the 2 s of SPEC 4.3.
const PERIOD: Duration = Duration::from_millis(500);
/// How long after a reading on SIGHUP the next is made, with which it has to agree: several files that are replaced at once, as by
/// the symbolic link of a Kubernetes ConfigMap, may be read half before and half after.
const AGAIN: Duration = Duration::from_millis(20);
/// How often that is tried; files that still change then are left to the next readings.
const TRIES: usize = 10;

/// The configuration, as far as it may change while doorward runs. Its parts lie on higher floors.
pub trait Configuration: Send + Sync + 'static {
    /// One reading.
    type Read: Clone + PartialEq + Send + Sync + 'static;
    /// What a reading becomes, ready to be put in force.
    type Ready: Send + 'static;

    /// Reads it.
    ///
    /// # Errors
    /// [`Unusable`] with every mistake.
    fn read(&self) -> Result<Self::Read, Unusable>;

    /// The upstreams that policies may name.
    fn upstreams(&self, read: &Self::Read) -> BTreeSet<String>;

    /// Makes all of it that can fail.
    ///
    /// # Errors
    /// [`Unusable`]; nothing was changed.
    fn prepare(&self, read: &Self::Read) -> Result<Self::Ready, Unusable>;
}

/// What changed. The configuration is to be put in force first, for the policies rely on it.
pub struct News<R> {
    /// The configuration.
    pub configuration: Option<R>,
    /// Policies and roles.
    pub policies: Option<Loaded>,
}

/// What a refusal is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The configuration.
    Configuration,
    /// Policies and roles.
    Policies,
}

/// The files, and what is in force of them.
pub struct Followed<C: Configuration> {
    /// Policies and roles.
    pub policies: PolicyFiles,
    /// What they held at the start.
    pub texts: Texts,
    /// The configuration; `None` where it stays as it is.
    pub configuration: Option<C>,
    /// What it said at the start.
    pub read: C::Read,
}

impl<C: Configuration> Followed<C> {
    /// Follows the files until the task is dropped: hands every new state to `publish`, and every change that cannot be used to
    /// `refused`, which leaves what is in force. SIGHUP asks for a reading at once.
    pub async fn follow(self, publish: impl Fn(News<C::Ready>), refused: impl Fn(Part, &Unusable)) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut policies = Watch::new(self.texts);
        let mut configuration = Watch::new(self.read);
        let files = Arc::new((self.policies, self.configuration));
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                asked = asked(&mut hangup) => asked,
            };
            let before = (policies.seen.clone(), configuration.seen.clone());
            let Some(mut reading) = read(&files, before.clone()).await else { continue };
            let mut settled = false;
            for _ in 0..TRIES {
                if settled || !asked {
                    break;
                }
                tokio::time::sleep(AGAIN).await;
                let Some(again) = read(&files, before.clone()).await else { continue };
                settled = again == reading;
                reading = again;
            }
            let news = (policies.look(reading.0, settled), configuration.look(reading.1, settled));
            for (part, news) in [(Part::Policies, &news.0), (Part::Configuration, &news.1)] {
                if let Some(Err(unusable)) = news {
                    refused(part, unusable);
                }
            }
            let news = (matches!(news.0, Some(Ok(()))), matches!(news.1, Some(Ok(()))));
            if !news.0 && !news.1 {
                continue;
            }
            let pending = (policies.is_pending() || news.0, configuration.is_pending() || news.1);
            let (texts, read) = (policies.pair(), configuration.pair());
            let Some(judged) = aside(&files, move |files| judge(files, &texts, &read)).await else { continue };
            if judged.policies.is_ok() {
                policies.in_force = policies.seen.clone();
            }
            if judged.configuration.is_ok() {
                configuration.in_force = configuration.seen.clone();
            }
            if let Some(unusable) = judged.policies.as_ref().err().filter(|_| news.0) {
                refused(Part::Policies, unusable);
            }
            if let Some(unusable) = judged.configuration.as_ref().err().filter(|_| news.1) {
                refused(Part::Configuration, unusable);
            }
            publish(News {
                // What turned back to what is in force is put there again, so that whoever told of a refusal takes it back.
                configuration: judged.configuration.ok().flatten().filter(|_| pending.1),
                policies: judged.policies.ok().flatten().filter(|_| pending.0),
            });
        }
    }
}

/// One reading of everything.
type Reading<C> = (Result<Texts, Unusable>, Result<<C as Configuration>::Read, Unusable>);

async fn read<C: Configuration>(
    files: &Arc<(PolicyFiles, Option<C>)>,
    (texts, configured): (Texts, C::Read),
) -> Option<Reading<C>> {
    aside(files, move |(policies, configuration)| {
        let read = configuration.as_ref().map_or(Ok(configured), Configuration::read);
        (policies.read_again(&texts), read)
    })
    .await
}

/// What is in force, what was last seen, and whether it can be read.
struct Watch<T> {
    in_force: T,
    /// The last settled reading, used or refused. It is not judged again until something changes.
    seen: T,
    last: Result<T, Unusable>,
    /// Whether it was told that it cannot be read, which is told once.
    told: bool,
}

impl<T: Clone + PartialEq> Watch<T> {
    fn new(in_force: T) -> Self {
        Self { seen: in_force.clone(), last: Ok(in_force.clone()), in_force, told: false }
    }

    /// Looks at a reading: `Ok` if there is something new to judge, `Err` if it turned unreadable. A file is also unreadable
    /// for a moment while it is replaced.
    fn look(&mut self, read: Result<T, Unusable>, settled: bool) -> Option<Result<(), Unusable>> {
        let settled = settled || read == self.last;
        let news = match &read {
            _ if !settled => None,
            // Readable again: what was told of is over, though nothing changed.
            Ok(read) if *read == self.seen && !self.told => None,
            Ok(read) => {
                (self.seen, self.told) = (read.clone(), false);
                Some(Ok(()))
            }
            Err(_) if self.told => None,
            Err(unusable) => {
                self.told = true;
                Some(Err(unusable.clone()))
            }
        };
        self.last = read;
        news
    }

    fn is_pending(&self) -> bool {
        self.seen != self.in_force
    }

    fn pair(&self) -> Pair<T> {
        Pair { in_force: self.in_force.clone(), seen: self.seen.clone() }
    }
}

struct Pair<T> {
    in_force: T,
    seen: T,
}

/// What became of each part: what is to be put in force, if anything, or why the old one stays.
struct Judged<R> {
    policies: Result<Option<Loaded>, Unusable>,
    configuration: Result<Option<R>, Unusable>,
}

/// Judges what was seen: both together; if that is not possible, the new configuration with the old policies; then the new
/// policies with the old configuration.
fn judge<C: Configuration>(
    (files, configuration): &(PolicyFiles, Option<C>),
    texts: &Pair<Texts>,
    read: &Pair<C::Read>,
) -> Judged<C::Ready> {
    let Some(configuration) = configuration else {
        return Judged { policies: files.compile(&texts.seen).map(Some), configuration: Ok(None) };
    };
    let compile = |texts: &Texts, read: &C::Read| {
        PolicyFiles { upstreams: configuration.upstreams(read), ..files.clone() }.compile(texts)
    };
    let prepared = configuration.prepare(&read.seen);
    let with_old_configuration =
        |unusable| Judged { policies: compile(&texts.seen, &read.in_force).map(Some), configuration: Err(unusable) };
    let ready = match prepared {
        Ok(ready) => ready,
        Err(unusable) => return with_old_configuration(unusable),
    };
    let refused = match compile(&texts.seen, &read.seen) {
        Ok(loaded) => return Judged { policies: Ok(Some(loaded)), configuration: Ok(Some(ready)) },
        Err(unusable) => unusable,
    };
    if texts.seen == texts.in_force {
        return Judged { policies: Ok(None), configuration: Err(refused) };
    }
    match compile(&texts.in_force, &read.seen) {
        Ok(_) => Judged { policies: Err(refused), configuration: Ok(Some(ready)) },
        Err(unusable) => with_old_configuration(unusable),
    }
}

/// Does work on a thread of its own: a pipe, or a file system that does not answer, must hold up neither the admin listener
/// nor the end of the program.
async fn aside<F: Send + Sync + 'static, T: Send + 'static>(
    files: &Arc<F>,
    work: impl FnOnce(&F) -> T + Send + 'static,
) -> Option<T> {
    let files = Arc::clone(files);
    tokio::task::spawn_blocking(move || work(&files)).await.ok()
}

async fn asked(hangup: &mut Option<Signal>) -> bool {
    match hangup {
        Some(signal) => signal.recv().await.is_some(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(text: &str) -> Unusable {
        Unusable::new(text)
    }

    #[test]
    fn a_change_counts_once_two_readings_agree_or_when_asked() {
        let mut watch = Watch::new(1);
        assert_eq!(watch.look(Ok(2), false), None);
        assert_eq!(watch.look(Ok(3), false), None);
        assert_eq!(watch.look(Ok(3), false), Some(Ok(())));
        assert_eq!(watch.look(Ok(3), false), None);
        assert_eq!(watch.look(Ok(4), true), Some(Ok(())));
        assert_eq!((watch.in_force, watch.seen), (1, 4));
    }

    #[test]
    fn what_cannot_be_read_is_told_once_and_so_is_its_end() {
        let mut watch = Watch::new(1);
        let gone = || Err(unusable("gone"));
        assert_eq!(watch.look(gone(), false), None);
        assert_eq!(watch.look(Ok(1), false), None);
        assert_eq!(watch.look(gone(), false), None);
        assert_eq!(watch.look(gone(), false), Some(Err(unusable("gone"))));
        assert_eq!(watch.look(gone(), false), None);
        assert_eq!(watch.look(Ok(1), false), None);
        assert_eq!(watch.look(Ok(1), false), Some(Ok(())));
        assert_eq!(watch.look(Ok(1), false), None);
    }
}
