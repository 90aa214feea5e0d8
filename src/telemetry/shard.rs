//! The part of the metrics that one worker thread writes.
//!
//! Every worker has a shard of its own, so that counting a request touches no memory that another worker writes. The
//! mutexes are there for the scrape alone: between scrapes nobody contends for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use super::histogram::{Histogram, HistogramTotal};
use super::metrics::{DECISION_BOUNDS, Limit, Listener, REQUEST_BOUNDS, Stream, VALIDATION_BOUNDS, ValidationSource};
use crate::reason::Reason;

/// A validation ends well or for one of the reasons.
const RESULTS: usize = Reason::ALL.len() + 1;

/// Counters and histograms of one worker thread.
#[derive(Debug)]
pub struct WorkerMetrics {
    routes: Mutex<Routes>,
    upstreams: Mutex<HashMap<Arc<str>, Arc<UpstreamMetrics>>>,
    parse_errors: Mutex<HashMap<(Listener, u16), u64>>,
    validation: [[Histogram; RESULTS]; ValidationSource::ALL.len()],
    decision: Histogram,
    auth_failures: [AtomicU64; Reason::ALL.len()],
    limit_rejections: [AtomicU64; Limit::ALL.len()],
    streams: [AtomicI64; Stream::ALL.len()],
    ended: [AtomicU64; Reason::ALL.len()],
}

/// The labels of a request. A request that met no service or no route leaves them out and counts under `none`.
#[derive(Debug, Clone, Copy)]
pub struct RequestLabels<'a> {
    /// The policy's service.
    pub service: Option<&'a Arc<str>>,
    /// The policy's path pattern, never a raw path.
    pub route: Option<&'a Arc<str>>,
    /// The request's method; an unknown one counts as `other`.
    pub method: &'a str,
    /// The status that was answered.
    pub status: u16,
}

impl WorkerMetrics {
    pub(super) fn new() -> Self {
        Self {
            routes: Mutex::default(),
            upstreams: Mutex::default(),
            parse_errors: Mutex::default(),
            validation: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(VALIDATION_BOUNDS))),
            decision: Histogram::new(DECISION_BOUNDS),
            auth_failures: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            limit_rejections: [const { AtomicU64::new(0) }; Limit::ALL.len()],
            streams: [const { AtomicI64::new(0) }; Stream::ALL.len()],
            ended: [const { AtomicU64::new(0) }; Reason::ALL.len()],
        }
    }

    /// Counts an answered request and the time from its head to the last byte of its answer.
    pub fn request(&self, labels: &RequestLabels<'_>, duration: Duration) {
        let mut routes = lock(&self.routes);
        let cell = routes.cell(labels.service, labels.route);
        cell.duration.observe(duration);
        *cell.requests.entry((Method::of(labels.method), status_label(labels.status))).or_default() += 1;
    }

    /// Counts a denial that report-only mode let through.
    pub fn report_only(&self, service: Option<&Arc<str>>, route: Option<&Arc<str>>, reason: Reason) {
        *lock(&self.routes).cell(service, route).report_only.entry(reason).or_default() += 1;
    }

    /// The metrics of an upstream. Look them up once and keep the handle: it needs no lock.
    #[must_use]
    pub fn upstream(&self, upstream: &str) -> Arc<UpstreamMetrics> {
        let mut upstreams = lock(&self.upstreams);
        if let Some(found) = upstreams.get(upstream) {
            return Arc::clone(found);
        }
        let made = Arc::new(UpstreamMetrics::new());
        upstreams.insert(upstream.into(), Arc::clone(&made));
        made
    }

    /// Counts a token validation: where its answer came from, how it ended (`Err` with the reason) and how long it
    /// took. An answer from the cache is a cache hit, one from the verifier a miss.
    pub fn validation(&self, source: ValidationSource, result: Result<(), Reason>, duration: Duration) {
        let result = result.err().map_or(0, |reason| reason as usize + 1);
        if let Some(histogram) = self.validation.get(source as usize).and_then(|results| results.get(result)) {
            histogram.observe(duration);
        }
    }

    /// Counts a decision and the time it took.
    pub fn decision(&self, duration: Duration) {
        self.decision.observe(duration);
    }

    /// Counts a refusal, if its reason is one of those that [`Reason::is_auth_failure`] names; others are left out,
    /// so that a caller may hand in every refusal.
    pub fn auth_failure(&self, reason: Reason) {
        if reason.is_auth_failure()
            && let Some(counter) = self.auth_failures.get(reason as usize)
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what a limit turned away.
    pub fn limit_rejection(&self, limit: Limit) {
        if let Some(counter) = self.limit_rejections.get(limit as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A stream opened (`1`) or ended (`-1`).
    pub fn stream_changed(&self, kind: Stream, by: i64) {
        if let Some(gauge) = self.streams.get(kind as usize) {
            gauge.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Counts an open exchange that was ended because it would not be admitted any more.
    pub fn exchange_ended(&self, reason: Reason) {
        if let Some(counter) = self.ended.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that the HTTP parser refused with a bare status.
    pub fn parse_error(&self, listener: Listener, status: u16) {
        *lock(&self.parse_errors).entry((listener, status_label(status))).or_default() += 1;
    }

    /// Adds this worker's numbers to `totals`.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        lock(&self.routes).add_to(totals);
        for (name, upstream) in lock(&self.upstreams).iter() {
            let total = totals.upstreams.entry(Arc::clone(name)).or_default();
            upstream.duration.add_to(&mut total.duration);
            total.idle += upstream.idle.load(Ordering::Relaxed);
            total.active += upstream.active.load(Ordering::Relaxed);
            total.retries += upstream.retries.load(Ordering::Relaxed);
        }
        for (labels, count) in lock(&self.parse_errors).iter() {
            *totals.parse_errors.entry(*labels).or_default() += count;
        }
        for (source, results) in ValidationSource::ALL.iter().zip(&self.validation) {
            for (index, histogram) in results.iter().enumerate().filter(|(_, histogram)| histogram.count() > 0) {
                let result = index.checked_sub(1).and_then(|index| Reason::ALL.get(index).copied());
                let total = totals.validation.entry((*source, result));
                histogram.add_to(total.or_insert_with(|| HistogramTotal::new(VALIDATION_BOUNDS)));
            }
        }
        self.decision.add_to(&mut totals.decision);
        for (reason, counter) in Reason::ALL.iter().zip(&self.auth_failures) {
            *totals.auth_failures.entry(*reason).or_default() += counter.load(Ordering::Relaxed);
        }
        for (limit, counter) in Limit::ALL.iter().zip(&self.limit_rejections) {
            *totals.limit_rejections.entry(*limit).or_default() += counter.load(Ordering::Relaxed);
        }
        for (kind, gauge) in Stream::ALL.iter().zip(&self.streams) {
            *totals.streams.entry(*kind).or_default() += gauge.load(Ordering::Relaxed);
        }
        for (reason, counter) in Reason::ALL.iter().zip(&self.ended) {
            *totals.ended.entry(*reason).or_default() += counter.load(Ordering::Relaxed);
        }
    }
}

/// One worker's metrics of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    duration: Histogram,
    idle: AtomicI64,
    active: AtomicI64,
    retries: AtomicU64,
}

impl UpstreamMetrics {
    fn new() -> Self {
        Self {
            duration: Histogram::new(REQUEST_BOUNDS),
            idle: AtomicI64::new(0),
            active: AtomicI64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    /// Counts a request that is sent a second time.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer of the upstream and the time it took.
    pub fn answered(&self, duration: Duration) {
        self.duration.observe(duration);
    }

    /// Counts a connection as active until the guard says otherwise or is dropped.
    #[must_use]
    pub fn connected(self: &Arc<Self>) -> UpstreamConnection {
        self.active.fetch_add(1, Ordering::Relaxed);
        UpstreamConnection { upstream: Arc::clone(self), idle: false }
    }
}

/// An upstream connection as the gauges see it: counted once, as idle or as active, until it is dropped.
#[derive(Debug)]
pub struct UpstreamConnection {
    upstream: Arc<UpstreamMetrics>,
    idle: bool,
}

impl UpstreamConnection {
    /// The connection went back to the pool.
    pub fn set_idle(&mut self) {
        if !self.idle {
            self.idle = true;
            self.upstream.active.fetch_sub(1, Ordering::Relaxed);
            self.upstream.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The connection was taken out of the pool.
    pub fn set_active(&mut self) {
        if self.idle {
            self.idle = false;
            self.upstream.idle.fetch_sub(1, Ordering::Relaxed);
            self.upstream.active.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        let gauge = if self.idle { &self.upstream.idle } else { &self.upstream.active };
        gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The methods that have a label of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

impl Method {
    fn of(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

/// A status outside 100..=599 counts as 0: an upstream's odd statuses must not multiply the series.
const fn status_label(status: u16) -> u16 {
    if matches!(status, 100..=599) { status } else { 0 }
}

/// Cells found by the address of their labels, which cost no hashing of strings. The alias keeps both `Arc`s, so an
/// address cannot come to mean another label while it stands here.
#[derive(Debug, Default)]
struct Routes {
    aliases: HashMap<(usize, usize), Alias>,
    names: HashMap<(Arc<str>, Arc<str>), usize>,
    cells: Vec<RouteCell>,
}

#[derive(Debug)]
struct Alias {
    cell: usize,
    _service: Option<Arc<str>>,
    _route: Option<Arc<str>>,
}

#[derive(Debug)]
struct RouteCell {
    service: Arc<str>,
    route: Arc<str>,
    duration: Histogram,
    requests: HashMap<(Method, u16), u64>,
    report_only: HashMap<Reason, u64>,
}

impl Routes {
    fn cell(&mut self, service: Option<&Arc<str>>, route: Option<&Arc<str>>) -> &mut RouteCell {
        let key = (address(service), address(route));
        let index = match self.aliases.get(&key) {
            Some(alias) => alias.cell,
            None => self.learn(key, service, route),
        };
        &mut self.cells[index]
    }

    #[cold]
    fn learn(&mut self, key: (usize, usize), service: Option<&Arc<str>>, route: Option<&Arc<str>>) -> usize {
        // Each reload of the policy brings new addresses for the old names. Forgetting all of them now and then bounds
        // the memory; the names below still lead to the same cells.
        if self.aliases.len() > 4 * self.cells.len() + 64 {
            self.aliases.clear();
        }
        let none = || Arc::from("none");
        let name = (service.cloned().unwrap_or_else(none), route.cloned().unwrap_or_else(none));
        let cell = *self.names.entry(name.clone()).or_insert_with(|| {
            self.cells.push(RouteCell {
                service: name.0,
                route: name.1,
                duration: Histogram::new(REQUEST_BOUNDS),
                requests: HashMap::new(),
                report_only: HashMap::new(),
            });
            self.cells.len() - 1
        });
        self.aliases.insert(key, Alias { cell, _service: service.cloned(), _route: route.cloned() });
        cell
    }

    fn add_to(&self, totals: &mut Totals) {
        for cell in &self.cells {
            let total = totals.routes.entry((Arc::clone(&cell.service), Arc::clone(&cell.route)));
            let total = total.or_default();
            cell.duration.add_to(&mut total.duration);
            for (labels, count) in &cell.requests {
                *total.requests.entry(*labels).or_default() += count;
            }
            for (reason, count) in &cell.report_only {
                *total.report_only.entry(*reason).or_default() += count;
            }
        }
    }
}

fn address(label: Option<&Arc<str>>) -> usize {
    label.map_or(0, |label| Arc::as_ptr(label).cast::<u8>().addr())
}

/// The sum over all workers, ordered as it is rendered.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) routes: BTreeMap<(Arc<str>, Arc<str>), RouteTotal>,
    pub(super) upstreams: BTreeMap<Arc<str>, UpstreamTotal>,
    pub(super) parse_errors: BTreeMap<(Listener, u16), u64>,
    pub(super) validation: BTreeMap<(ValidationSource, Option<Reason>), HistogramTotal>,
    pub(super) decision: HistogramTotal,
    pub(super) auth_failures: BTreeMap<Reason, u64>,
    pub(super) limit_rejections: BTreeMap<Limit, u64>,
    pub(super) streams: BTreeMap<Stream, i64>,
    pub(super) ended: BTreeMap<Reason, u64>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            routes: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            parse_errors: BTreeMap::new(),
            validation: BTreeMap::new(),
            decision: HistogramTotal::new(DECISION_BOUNDS),
            auth_failures: BTreeMap::new(),
            limit_rejections: BTreeMap::new(),
            streams: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RouteTotal {
    pub(super) duration: HistogramTotal,
    pub(super) requests: BTreeMap<(Method, u16), u64>,
    pub(super) report_only: BTreeMap<Reason, u64>,
}

impl Default for RouteTotal {
    fn default() -> Self {
        Self { duration: HistogramTotal::new(REQUEST_BOUNDS), requests: BTreeMap::new(), report_only: BTreeMap::new() }
    }
}

#[derive(Debug)]
pub(super) struct UpstreamTotal {
    pub(super) duration: HistogramTotal,
    pub(super) idle: i64,
    pub(super) active: i64,
    pub(super) retries: u64,
}

impl Default for UpstreamTotal {
    fn default() -> Self {
        Self { duration: HistogramTotal::new(REQUEST_BOUNDS), idle: 0, active: 0, retries: 0 }
    }
}

/// A panic elsewhere leaves counters that are off by one at worst; they are still worth more than none.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_used_again_does_not_bring_its_old_label_back() {
        let worker = WorkerMetrics::new();
        let service: Arc<str> = Arc::from("oms");
        for number in 0..2_000 {
            // Each name twice: the second `Arc` of a name is kept by nothing but its alias, and the next name's is of
            // the same size and would be put where it lay.
            let route: Arc<str> = Arc::from(format!("/{:04}", number / 2));
            let labels = RequestLabels { service: Some(&service), route: Some(&route), method: "GET", status: 200 };
            worker.request(&labels, Duration::ZERO);
        }
        let mut totals = Totals::default();
        worker.add_to(&mut totals);
        assert_eq!(totals.routes.len(), 1_000);
        assert!(totals.routes.values().all(|total| total.duration.count() == 2));
    }

    #[test]
    fn reloads_do_not_grow_the_memory() {
        let worker = WorkerMetrics::new();
        for _ in 0..10_000 {
            let (service, route) = (Arc::from("oms"), Arc::from("/orders/{id}"));
            let labels = RequestLabels { service: Some(&service), route: Some(&route), method: "GET", status: 200 };
            worker.request(&labels, Duration::ZERO);
        }
        let routes = lock(&worker.routes);
        assert_eq!(routes.cells.len(), 1);
        assert!(routes.aliases.len() < 100, "{}", routes.aliases.len());
        assert_eq!(routes.cells.first().map(|cell| cell.duration.count()), Some(10_000));
    }
}
