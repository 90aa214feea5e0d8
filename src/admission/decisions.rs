//! The decisions of late, so that a user's complaint leads to its cause: a bounded ring a worker of denials and of a sample of
//! the rest (SPEC 3.7).
//!
//! What is kept are facts and numbers; they become words when somebody asks, by the snapshot that decided. Nothing in here is
//! given a query, a cookie or a token, so that nothing in here can tell one (T30).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method};

use super::identity::Identity;
use crate::policy::{RouteId, Snapshot};
use crate::reason::Reason;
use crate::request::Host;

/// How many snapshots are kept for the decisions that they made, the one in force among them. A large one takes tens of
/// megabytes, so there are few; what an older one decided keeps its words and loses its tree.
const SNAPSHOTS: usize = 3;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionSettings {
    /// Denials, over all workers.
    pub denials: usize,
    /// One in so many of the rest is remembered; 0: none.
    pub sample_every: u32,
    /// How many of those, over all workers.
    pub samples: usize,
    /// Bytes of all of them, roughly.
    pub memory: usize,
}

/// The rings of all workers.
#[derive(Debug)]
pub struct Decisions {
    settings: DecisionSettings,
    workers: usize,
    rings: Mutex<Vec<Arc<Ring>>>,
    /// The versions of the snapshots that are kept, oldest first.
    kept: Mutex<VecDeque<u64>>,
}

/// What is remembered now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Denials.
    pub denials: usize,
    /// Of the rest.
    pub samples: usize,
    /// Bytes of both, roughly.
    pub bytes: usize,
}

/// One worker's ring. The worker writes and a question reads, so its lock is free nearly always.
#[derive(Debug)]
pub struct Ring {
    sample_every: u32,
    /// Requests until the next that is sampled.
    left: AtomicU32,
    denials: Mutex<Bounded>,
    samples: Mutex<Bounded>,
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// `X-Request-Id`.
    pub request_id: HeaderValue,
    /// When it arrived.
    pub time: SystemTime,
    /// Until the last byte of the answer.
    pub duration: Duration,
    /// The method; `None` where the head could not be read.
    pub method: Option<Method>,
    /// The cleaned path, or the path as sent where it was refused before; without the query.
    pub path: Box<str>,
    /// The host, if it was named and is well-formed.
    pub host: Option<Host>,
    /// The client's address.
    pub client: IpAddr,
    /// Whether doorward refused to pass it on, or had no answer to pass back.
    pub denied: bool,
    /// Why, or what broke the answer off.
    pub reason: Option<Reason>,
    /// In report mode: why it would have been refused.
    pub would_deny: Option<Reason>,
    /// The status that was answered.
    pub status: u16,
    /// More about a denial, for people.
    pub detail: Cow<'static, str>,
    /// By what it was decided; `None` if it was refused before.
    pub origin: Option<Origin>,
    /// Who asked, if that was known.
    pub identity: Option<Arc<Identity>>,
    /// What the upstream did, if it was asked.
    pub upstream: Option<UpstreamOutcome>,
}

/// By what a request was decided.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The snapshot itself, and the numbers of service and route in it.
    Snapshot(Arc<Snapshot>, Option<u32>, Option<RouteId>),
    /// What was taken down of it before it was let go.
    Words(Arc<Words>),
}

/// What stays of a snapshot that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Its version.
    pub version: u64,
    /// The service.
    pub service: Option<Arc<str>>,
    /// The policy file and its SHA-256.
    pub file: Option<(Arc<str>, Arc<str>)>,
    /// The matched route.
    pub route: Option<RouteWords>,
}

/// A route in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteWords {
    /// The pattern.
    pub pattern: Arc<str>,
    /// The method as listed, or `*`.
    pub method: Arc<str>,
    /// The requirement.
    pub requirement: Arc<str>,
    /// The line of the method, from 1.
    pub line: u32,
}

/// What an upstream did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamOutcome {
    /// Its name in the policy.
    pub name: Option<Arc<str>>,
    /// Until the head of its answer; `None` if there was no answer.
    pub answered: Option<Duration>,
}

impl Origin {
    /// In words.
    #[must_use]
    pub fn words(&self) -> Words {
        let (snapshot, service, route) = match self {
            Self::Words(words) => return Words::clone(words),
            Self::Snapshot(snapshot, service, route) => (snapshot, service, route),
        };
        let service = service.and_then(|index| snapshot.service_by_index(index));
        let route = route.map(|id| snapshot.route(id));
        // Of several files of one service, the one that lists the route.
        let file = route.map(|route| &route.file).or_else(|| service.map(|service| &service.file));
        let listed = file.and_then(|file| snapshot.services().iter().find(|service| service.file == *file));
        Words {
            version: snapshot.version(),
            service: service.map(|service| Arc::clone(&service.name)),
            file: listed.map(|listed| (Arc::clone(&listed.file), Arc::clone(&listed.sha256))),
            route: route.map(|route| RouteWords {
                pattern: Arc::clone(&route.pattern),
                method: Arc::clone(&route.method),
                requirement: Arc::clone(&route.requirement),
                line: route.line,
            }),
        }
    }
}

impl Decided {
    /// Roughly how many bytes it keeps alive.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.request_id.len()
            + self.path.len()
            + self.detail.len()
            + self.host.as_ref().map_or(0, |host| host.as_str().len())
            + self.identity.as_ref().map_or(0, |identity| identity.bytes())
    }

    /// Whether it belongs to the denials: somebody was refused, or would have been. An upstream that fails denies nobody, and its
    /// failures must not crowd out those who were.
    fn is_denial(&self) -> bool {
        let failed = matches!(self.reason, Some(Reason::UpstreamUnavailable | Reason::UpstreamTimeout));
        self.would_deny.is_some() || self.denied && !failed
    }
}

impl Decisions {
    /// Rings for so many workers, none yet.
    #[must_use]
    pub fn new(settings: DecisionSettings, workers: usize) -> Arc<Self> {
        Arc::new(Self { settings, workers: workers.max(1), rings: Mutex::default(), kept: Mutex::default() })
    }

    /// The ring of one more worker; `None` where nothing is to be remembered.
    #[must_use]
    pub fn ring(&self) -> Option<Arc<Ring>> {
        let DecisionSettings { denials, sample_every, samples, memory } = self.settings;
        if denials == 0 && samples == 0 {
            return None;
        }
        let memory = memory / self.workers / 2;
        let part = |most: usize| Mutex::new(Bounded::new(most.div_ceil(self.workers), memory));
        let ring = Arc::new(Ring {
            sample_every,
            left: AtomicU32::new(sample_every),
            denials: part(denials),
            samples: part(samples),
        });
        lock(&self.rings).push(Arc::clone(&ring));
        Some(ring)
    }

    /// The decision about the request of this id; of several, the last.
    #[must_use]
    pub fn find(&self, request_id: &[u8]) -> Option<Decided> {
        let rings = lock(&self.rings).clone();
        let found = rings.iter().flat_map(|ring| [&ring.denials, &ring.samples]);
        found.filter_map(|part| lock(part).find(request_id)).max_by_key(|decided| decided.time)
    }

    /// How much is remembered now.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        lock(&self.rings).iter().fold(Remembered::default(), |sum, ring| {
            let (denials, samples) = (lock(&ring.denials).size(), lock(&ring.samples).size());
            Remembered {
                denials: sum.denials + denials.0,
                samples: sum.samples + samples.0,
                bytes: sum.bytes + denials.1 + samples.1,
            }
        })
    }

    /// The snapshot of this version is in force. Older ones than the last few are let go: what they decided is kept in words. Called
    /// when one is published and every few seconds, since a long request may end under an old one.
    pub fn in_force(&self, version: u64) {
        let oldest = {
            let mut kept = lock(&self.kept);
            if !kept.contains(&version) {
                kept.push_back(version);
            }
            if kept.len() > SNAPSHOTS {
                kept.pop_front();
            }
            kept.front().copied().unwrap_or(version)
        };
        let rings = lock(&self.rings).clone();
        for part in rings.iter().flat_map(|ring| [&ring.denials, &ring.samples]) {
            lock(part).let_go(oldest);
        }
    }
}

impl Ring {
    /// Whether a request of which nothing is to be said but that it was answered is remembered. A counter, and nothing else for
    /// all but one in so many.
    #[must_use]
    pub fn samples(&self) -> bool {
        if self.sample_every == 0 {
            return false;
        }
        // One thread writes, so nothing is lost between load and store.
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(if left <= 1 { self.sample_every } else { left - 1 }, Ordering::Relaxed);
        left <= 1
    }

    /// Remembers it.
    pub fn remember(&self, mut decided: Decided) {
        // A copy, because an id that a trusted proxy sent would keep the whole buffer that its head was read into.
        if let Ok(id) = HeaderValue::from_bytes(decided.request_id.as_bytes()) {
            decided.request_id = id;
        }
        let part = if decided.is_denial() { &self.denials } else { &self.samples };
        lock(part).push(decided);
    }
}

/// A ring that is bounded twice: by what it holds and by how much that takes.
#[derive(Debug)]
struct Bounded {
    entries: VecDeque<Decided>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Bounded {
    fn new(most: usize, most_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, most, most_bytes }
    }

    fn push(&mut self, decided: Decided) {
        self.bytes += decided.bytes();
        self.entries.push_back(decided);
        while self.entries.len() > self.most || self.bytes > self.most_bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    fn find(&self, request_id: &[u8]) -> Option<Decided> {
        self.entries.iter().rev().find(|decided| decided.request_id.as_bytes() == request_id).cloned()
    }

    fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn let_go(&mut self, oldest: u64) {
        for origin in self.entries.iter_mut().filter_map(|decided| decided.origin.as_mut()) {
            if matches!(origin, Origin::Snapshot(snapshot, ..) if snapshot.version() < oldest) {
                *origin = Origin::Words(Arc::new(origin.words()));
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::policy::SourceText;
    use crate::policy::load::{PolicySet, compile_sets};

    const SETTINGS: DecisionSettings = DecisionSettings { denials: 4, sample_every: 3, samples: 2, memory: 64 * 1024 };

    fn decided(id: &str, reason: Option<Reason>) -> Decided {
        Decided {
            request_id: HeaderValue::from_str(id).unwrap(),
            time: SystemTime::now(),
            duration: Duration::ZERO,
            method: Some(Method::GET),
            path: "/x".into(),
            host: None,
            client: [127, 0, 0, 1].into(),
            denied: reason.is_some(),
            reason,
            would_deny: None,
            status: 200,
            detail: "".into(),
            origin: None,
            identity: None,
            upstream: None,
        }
    }

    fn snapshot() -> Arc<Snapshot> {
        let source = |text: &str| Arc::new(SourceText { name: "oms.yaml".into(), text: text.into() });
        let roles = source("version: 1\npermissions: { oms: ['a:b'] }\nroles: { ROLE_A: { permissions: ['a:b'] } }\n");
        let policy = [source("version: 1\nservice: oms\nupstream: oms\npaths: { /x: { get: 'a:b' } }\n")];
        let [snapshot] =
            compile_sets(Some(&roles), [PolicySet { sources: &policy, upstreams: None, report: false }]).snapshots;
        Arc::new(snapshot.unwrap())
    }

    #[test]
    fn the_newest_stay_and_their_number_is_bounded() {
        let decisions = Decisions::new(SETTINGS, 1);
        let ring = decisions.ring().unwrap();
        for number in 0..10 {
            ring.remember(decided(&format!("deny-{number}"), Some(Reason::NoRoute)));
            ring.remember(decided(&format!("down-{number}"), Some(Reason::UpstreamUnavailable)));
        }
        let remembered = decisions.remembered();
        assert_eq!((remembered.denials, remembered.samples), (4, 2), "an upstream's failures crowd nobody out");
        for (id, there) in [("deny-5", false), ("deny-6", true), ("deny-9", true), ("down-7", false), ("down-9", true)]
        {
            assert_eq!(decisions.find(id.as_bytes()).is_some(), there, "{id}");
        }
    }

    #[test]
    fn their_bytes_are_bounded_too() {
        let decisions = Decisions::new(DecisionSettings { denials: 1_000_000, ..SETTINGS }, 1);
        let ring = decisions.ring().unwrap();
        for number in 0..100 {
            let path = "/a".repeat(2_000).into();
            ring.remember(Decided { path, ..decided(&number.to_string(), Some(Reason::NoRoute)) });
        }
        let remembered = decisions.remembered();
        assert!(remembered.bytes <= SETTINGS.memory / 2 && (5..10).contains(&remembered.denials), "{remembered:?}");
        ring.remember(Decided { path: "/".repeat(100_000).into(), ..decided("large", Some(Reason::NoRoute)) });
        assert_eq!(decisions.remembered().bytes, 0, "what alone is too large is not kept, and counted back");
    }

    #[test]
    fn an_id_that_came_by_the_wire_does_not_keep_the_head_that_it_came_in() {
        let ring = Decisions::new(SETTINGS, 1).ring().unwrap();
        let head = bytes::Bytes::from(b"GET / HTTP/1.1\r\nx-request-id: abc\r\n".repeat(100));
        let request_id = HeaderValue::from_maybe_shared(head.slice(30..33)).unwrap();
        ring.remember(Decided { request_id, ..decided("-", Some(Reason::NoRoute)) });
        assert!(lock(&ring.denials).find(b"abc").is_some());
        assert!(head.is_unique(), "the ring counts the id's bytes, and holds no more");
    }

    #[test]
    fn one_in_so_many_is_sampled() {
        let decisions = Decisions::new(SETTINGS, 1);
        let ring = decisions.ring().unwrap();
        assert_eq!((0..9).map(|_| ring.samples()).filter(|sampled| *sampled).count(), 3);
        let never = Decisions::new(DecisionSettings { sample_every: 0, ..SETTINGS }, 1).ring().unwrap();
        assert!((0..9).all(|_| !never.samples()));
        assert!(Decisions::new(DecisionSettings { denials: 0, samples: 0, ..SETTINGS }, 1).ring().is_none());
    }

    #[test]
    fn old_snapshots_are_let_go_and_leave_their_words() {
        let decisions = Decisions::new(SETTINGS, 1);
        let ring = decisions.ring().unwrap();
        let first = snapshot();
        let origin = Origin::Snapshot(Arc::clone(&first), Some(0), Some(RouteId(0)));
        ring.remember(Decided { origin: Some(origin.clone()), ..decided("old", Some(Reason::PermissionMissing)) });
        let words = origin.words();
        drop(origin);
        decisions.in_force(first.version());
        for _ in 0..SNAPSHOTS {
            assert_eq!(Arc::strong_count(&first), 2, "one of the last few is kept");
            decisions.in_force(snapshot().version());
        }
        assert_eq!(Arc::strong_count(&first), 1);
        let Some(Origin::Words(left)) = decisions.find(b"old").unwrap().origin else { unreachable!() };
        assert_eq!((&*left, left.route.as_ref().map(|route| &*route.pattern)), (&words, Some("/x")));
        assert_eq!(left.file.as_ref().map(|(_, sha256)| sha256.len()), Some(64));
    }
}
