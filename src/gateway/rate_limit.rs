//! How often a caller may ask: `rate_limit:` of a route (SPEC 4).
//!
//! `30/min per subject` is a budget of 30 requests that fills evenly, one every 2 s (the generic cell rate algorithm, ITU-T
//! I.371 annex A): a burst of 30 passes at once, and no window edge lets 60 through. Each caller of each route is one
//! number, the time at which its budget will be whole again. A file's default limit applies to every route on its own.
//!
//! The numbers belong to the process, not to a worker nor to a snapshot: all workers count together, and a policy that is
//! published anew goes on counting for routes that are still there (by service, pattern, method and what is counted per).
//! A limit that became smaller or larger takes what is still missing along, at most one whole budget.
//!
//! Memory is bounded: a key is 16 bytes however long a subject is, whole budgets are forgotten at every sweep, and of more
//! than [`CAPACITY`] callers the half of a shard that would soonest have been whole again is forgotten first. So a flood of
//! new addresses is never an outage for others, and whoever has used up a budget is the last to be forgiven.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::source::{RateKey, RateLimit};
use crate::policy::{Route, Service};

/// Callers that are remembered at once, over all routes; about 50 MiB if there are so many.
pub const CAPACITY: usize = 1 << 20;
/// Locks, so that workers seldom wait for one another.
const SHARDS: usize = 64;

/// What is answered beside the limit (draft-ietf-httpapi-ratelimit-headers-06, section 5).
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Every caller's budget on every limited route. See the module's description.
pub struct RateLimits {
    origin: Instant,
    /// Two keyed hashes make a key that nobody outside can aim at.
    seeds: [RandomState; 2],
    shards: Box<[Mutex<HashTable<Cell>>]>,
    /// Callers that one shard remembers.
    capacity: usize,
}

/// One caller of one route.
#[derive(Debug, Clone, Copy)]
struct Cell {
    key: [u64; 2],
    /// When the budget is whole again, in nanoseconds since the origin.
    whole: u64,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker<'a> {
    /// The subject of a verified token.
    pub subject: Option<&'a str>,
    /// The client's address, behind trusted proxies.
    pub address: IpAddr,
}

/// What one request left of a caller's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    limit: RateLimit,
    remaining: u32,
    /// Seconds until the budget is whole again, or, of one that is exceeded, until another request passes.
    reset: u64,
    exceeded: bool,
}

/// What requests are counted by. An IPv6 network of 64 bits is one caller: whoever has one address of it has them all.
#[derive(Hash)]
enum Counted<'a> {
    Subject(&'a str),
    Address(IpAddr),
}

impl Default for RateLimits {
    fn default() -> Self {
        Self::new(Instant::now(), CAPACITY)
    }
}

impl RateLimits {
    /// No budget is touched yet. `origin` is the earliest time that it will be asked about; of more than `capacity` callers
    /// some are forgotten.
    #[must_use]
    pub fn new(origin: Instant, capacity: usize) -> Self {
        Self {
            origin,
            seeds: [RandomState::new(), RandomState::new()],
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity: (capacity / SHARDS).max(2),
        }
    }

    /// Counts a request of `asker` to a route with this limit. A request over the budget takes nothing from it.
    #[must_use]
    pub fn spend(&self, limit: RateLimit, service: &Service, route: &Route, asker: Asker<'_>, now: Instant) -> Budget {
        let counted = match (limit.per, asker.subject) {
            (RateKey::Subject, Some(subject)) => Counted::Subject(subject),
            _ => Counted::Address(network(asker.address)),
        };
        let per_subject = limit.per == RateKey::Subject;
        let words = (&*service.name, &*route.pattern, &*route.method, per_subject, counted);
        let key = [self.seeds[0].hash_one(&words), self.seeds[1].hash_one(&words)];
        self.take(key, limit, self.since_origin(now))
    }

    /// Forgets the budgets that are whole. Called beside requests, every few seconds.
    pub fn sweep(&self, now: Instant) {
        let now = self.since_origin(now);
        for shard in &self.shards {
            let mut cells = lock(shard);
            cells.retain(|cell| cell.whole > now);
            if cells.capacity() / 4 > cells.len() {
                let len = cells.len();
                cells.shrink_to(len * 2, |cell| cell.key[0]);
            }
        }
    }

    /// How many callers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&self, key: [u64; 2], limit: RateLimit, now: u64) -> Budget {
        // The low bits of the second hash choose the shard and those of the first the place in it.
        let shard = usize::try_from(key[1]).unwrap_or(usize::MAX) % SHARDS;
        let mut cells = lock(&self.shards[shard]);
        let one = (nanoseconds(limit.window) / u64::from(limit.count)).max(1);
        let all = one * u64::from(limit.count);
        let kept = cells.find_mut(key[0], |cell| cell.key == key);
        // A budget that became smaller while running is not overdrawn for longer than it takes to fill.
        let whole = kept.as_ref().map_or(now, |cell| cell.whole.clamp(now, now.saturating_add(all)));
        let after = whole.saturating_add(one);
        let missing = after - now;
        if missing > all {
            return Budget { limit, remaining: 0, reset: seconds(missing - all), exceeded: true };
        }
        match kept {
            Some(cell) => cell.whole = after,
            None => {
                if cells.len() >= self.capacity {
                    make_room(&mut cells, now);
                }
                cells.insert_unique(key[0], Cell { key, whole: after }, |cell| cell.key[0]);
            }
        }
        let remaining = u32::try_from((all - missing) / one).unwrap_or(u32::MAX);
        Budget { limit, remaining, reset: seconds(missing), exceeded: false }
    }

    fn since_origin(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.origin))
    }
}

impl Budget {
    /// Whether the request was one too many.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// What the refused client is told.
    #[must_use]
    pub fn detail(&self) -> String {
        let RateLimit { count, window, per } = self.limit;
        let window = match window.as_secs() {
            1 => "second",
            60 => "minute",
            3600 => "hour",
            _ => "window",
        };
        let per = match per {
            RateKey::Subject => "caller",
            RateKey::Address => "address",
        };
        let requests = if count == 1 { "request" } else { "requests" };
        format!("the limit is {count} {requests} a {window} for each {per}; try again in {} s", self.reset)
    }

    /// Sets the `RateLimit-*` headers, and `Retry-After` if the budget is exceeded. An upstream's own are replaced, so that a
    /// client reads one limit and not two.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let policy = format!("{};w={}", self.limit.count, self.limit.window.as_secs());
        headers.insert(LIMIT, self.limit.count.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, self.reset.into());
        if let Ok(policy) = HeaderValue::try_from(policy) {
            headers.insert(POLICY, policy);
        }
        if self.exceeded {
            headers.insert(RETRY_AFTER, self.reset.into());
        }
    }
}

/// Forgets whole budgets; if that is not enough, the half that would soonest have been whole. Each run frees half of the shard,
/// so that its cost is shared by as many newcomers.
fn make_room(cells: &mut HashTable<Cell>, now: u64) {
    let before = cells.len();
    cells.retain(|cell| cell.whole > now);
    if cells.len() > before / 2 {
        let mut times: Vec<u64> = cells.iter().map(|cell| cell.whole).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        cells.retain(|cell| cell.whole > median);
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole seconds, upwards, one at least: who waits so long is not refused again.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000).max(1)
}

/// A worker that panicked while it held the lock left a table that is still whole.
fn lock(shard: &Mutex<HashTable<Cell>>) -> MutexGuard<'_, HashTable<Cell>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
