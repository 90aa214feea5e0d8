//! The immutable compiled state that one request is decided by: policies and roles, published as one (T8).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::index::PathIndex;
use super::pattern::Mixed;
use super::source::{BodyLimit, CachePolicy, Cors, RateLimit};
use crate::clock::Timestamp;
use crate::rbac::{PermissionId, RoleId, RoleTable, ServiceId};
use crate::request::{Host, MatchPath, PathRules};

/// The name of the upstream that is doorward's own identity listener; report mode never opens it (T21).
pub const IDENTITY_UPSTREAM: &str = "doorward-identity";

/// The name of the upstream that is doorward's own admin listener.
pub const ADMIN_UPSTREAM: &str = "doorward-admin";

/// A route of one [`Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// A path and method of a policy file, compiled.
#[derive(Debug)]
pub struct Route {
    /// The pattern as written, which is also the `route` label of metrics and logs.
    pub pattern: Arc<str>,
    /// The method as written: upper case, or `*`.
    pub method: Arc<str>,
    /// Index of its service within [`Snapshot::services`].
    pub service: u32,
    /// The name of its upstream; empty for `deny`, which needs none.
    pub upstream: Arc<str>,
    /// The requirement for people, for example `all(schema:delete, schema:edit)`.
    pub requirement: Arc<str>,
    /// The one permission that the requirement names, if it names exactly one.
    pub permission: Option<Arc<str>>,
    /// Until the first byte of the response; the upstream's own limit if absent.
    pub timeout: Option<Duration>,
    /// Limit of the request body; the listener's own if absent.
    pub body: Option<BodyLimit>,
    /// Whether every request is audited.
    pub audit: bool,
    /// Whether streams go on when their token has expired (T20).
    pub outlives_token: bool,
    /// Whether answers may be shared between users.
    pub cache: Option<CachePolicy>,
    /// Its rate limit, or the file's.
    pub rate_limit: Option<RateLimit>,
    /// File and line of the method's entry, for explanations.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

/// What all routes of one policy file share.
#[derive(Debug)]
pub struct Service {
    /// `service:`
    pub name: Arc<str>,
    /// `upstream:`; where report mode sends what no route matched.
    pub upstream: Option<Arc<str>>,
    /// The policy file.
    pub file: Arc<str>,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: Arc<str>,
    /// Whether `Authorization` is passed on.
    pub forward_authorization: bool,
    /// Further headers never taken from a client, lower-case.
    pub strip: Arc<[Box<str>]>,
    /// The literal hosts of the file, which the upstream may be told (T24).
    pub hosts: Box<[Box<str>]>,
    /// `cors:`
    pub cors: Option<Arc<Cors>>,
    /// `credentials: {cookie: …}`: the cookie that may carry the token (T26).
    pub cookie: Option<Arc<str>>,
}

/// Policies and roles, compiled.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) version: u64,
    pub(super) routes: Vec<Route>,
    /// What a decision reads of a route, in the order of `routes`.
    pub(super) guards: Vec<Guard>,
    pub(super) services: Vec<Service>,
    /// The cookies of all services, each once.
    pub(super) cookies: Box<[Arc<str>]>,
    pub(super) roles: Arc<RoleTable>,
    pub(super) hosts: Hosts,
    pub(super) methods: Methods,
}

/// The part of a route that a decision reads, unless its [`Answer`] says enough.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) formula: Formula,
    pub(super) service: u32,
    /// The route reports instead of denying until then.
    pub(super) report: Report,
    /// The one permission that the formula names, if it names exactly one.
    pub(super) permission: Option<PermissionId>,
}

/// Until when denials are only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Report(pub(super) i64);

impl Report {
    /// Never: every denial is enforced.
    pub(super) const NEVER: Self = Self(i64::MIN);
    /// `[gateway] mode = "report"`.
    pub(super) const ALWAYS: Self = Self(i64::MAX);

    pub(super) fn applies(self, now: Timestamp) -> bool {
        now.0 < self.0
    }
}

/// A requirement over dense ids. Monotone: no part of it is ever negated.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Formula {
    Public,
    Deny,
    Authenticated,
    Permission(PermissionId),
    Any(Box<[Formula]>),
    All(Box<[Formula]>),
    Role(RoleId),
    Membership(ServiceId, u32),
    Owner(OwnerPlace),
    Client(Box<[IpNet]>),
}

/// Where the path parameter of `{owner: …}` is found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OwnerPlace {
    /// The whole segment of this number.
    Segment(u16),
    /// The segment of this number and all that follow.
    Rest(u16),
    /// The parameter of the second number within the mixed segment of the first.
    Mixed(Box<(u16, u16, Mixed)>),
}

impl OwnerPlace {
    /// Whether the parameter, decoded, is `subject`. `fold`: the host ignores the case of literals.
    pub(super) fn is(&self, subject: &str, path: MatchPath<'_>, fold: bool) -> bool {
        let subject = subject.as_bytes();
        match self {
            Self::Segment(number) => segment(path, *number) == Some(subject),
            Self::Mixed(place) => {
                let (number, part, mixed) = &**place;
                segment(path, *number).is_some_and(|text| {
                    let parts = mixed.split(text, fold);
                    parts.and_then(|parts| parts.get(usize::from(*part)).cloned()).map(|range| &text[range])
                        == Some(subject)
                })
            }
            Self::Rest(number) => match path {
                MatchPath::Plain(path) => {
                    path.splitn(usize::from(*number) + 2, '/').nth(usize::from(*number) + 1).map(str::as_bytes)
                        == Some(subject)
                }
                // A slash inside a segment is not a slash between segments, so such a rest is nobody's.
                MatchPath::Decoded(segments) => segments.get(usize::from(*number)..).is_some_and(|rest| {
                    rest.iter().all(|segment| !segment.contains(&b'/')) && rest.join(&b'/') == subject
                }),
            },
        }
    }
}

fn segment(path: MatchPath<'_>, number: u16) -> Option<&[u8]> {
    match path {
        MatchPath::Plain(path) => path.split('/').nth(usize::from(number) + 1).map(str::as_bytes),
        MatchPath::Decoded(segments) => segments.get(usize::from(number)).map(|segment| &**segment),
    }
}

/// Whether one of the networks holds the address; an IPv4-mapped IPv6 address is compared as IPv4.
pub(super) fn client_in(networks: &[IpNet], client: IpAddr) -> bool {
    let client = client.to_canonical();
    networks.iter().any(|network| network.contains(&client))
}

/// Which table a host is decided by.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) exact: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    /// By suffix with its leading dot.
    pub(super) wildcard: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    /// Bytes of the longest wildcard, so that no host costs more than that.
    pub(super) longest_wildcard: usize,
    pub(super) any: Option<u32>,
    pub(super) tables: Vec<HostTable>,
}

impl Hosts {
    /// Exact, else the longest wildcard, else files without hosts; no fall-through.
    #[inline]
    pub(super) fn table(&self, host: Option<&Host>) -> Option<&HostTable> {
        let number = match host {
            Some(host) if !self.exact.is_empty() || !self.wildcard.is_empty() => {
                let host = host.as_str();
                self.exact.get(host).copied().or_else(|| self.wildcard(host)).or(self.any)
            }
            _ => self.any,
        }?;
        self.tables.get(number as usize)
    }

    fn wildcard(&self, host: &str) -> Option<u32> {
        if self.wildcard.is_empty() {
            return None;
        }
        // One label or more stands for the star, so the host is longer than the suffix.
        let from = host.len().saturating_sub(self.longest_wildcard).max(1);
        let tail = host.as_bytes().get(from..)?;
        memchr::memchr_iter(b'.', tail).find_map(|dot| self.wildcard.get(host.get(from + dot..)?).copied())
    }
}

/// The merged files of one host.
#[derive(Debug)]
pub(super) struct HostTable {
    pub(super) index: PathIndex,
    pub(super) rules: PathRules,
    pub(super) shapes: Vec<Shape>,
    /// For each shape a run of one or more, in the order of `shapes`: the value that the index has of the shape.
    pub(super) routes: Vec<RouteId>,
    /// Runs of the same length, shared by shapes: the plan that the index has.
    pub(super) answers: Vec<Answer>,
    /// The service, where all files agree on it.
    pub(super) service: Option<u32>,
    /// 403 or 404.
    pub(super) unmatched: u16,
    /// Report mode for what no route matches: only where one file serves the host.
    pub(super) report: Report,
    /// The file whose `cors:` counts for what no route matches: the only one there is on this host, or one of several equal
    /// ones.
    pub(super) cors: Option<u32>,
}

/// What nearly every request needs to know of a route besides its number.
///
/// Paths with the same methods and the same requirements share their answers. So there are few of them even
/// in a large policy, they stay in the cache, and a decision need not wait for memory behind the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) service: u32,
    /// The permission that is all the route asks for; [`Answer::MORE`] if the guard has to be read.
    pub(super) only: PermissionId,
    method: MethodKey,
    /// The run ends here.
    last: bool,
}

impl Answer {
    /// No permission has this id, so nobody holds it.
    pub(super) const MORE: PermissionId = PermissionId(u32::MAX);
}

impl HostTable {
    /// Lays out routes and answers, once the index and the shapes are complete.
    pub(super) fn settle(&mut self, guards: &[Guard]) {
        let mut plans: HashMap<SmallVec<[Answer; 4]>, u32, foldhash::fast::RandomState> = HashMap::default();
        let mut plan_of = Vec::with_capacity(self.shapes.len());
        for shape in &mut self.shapes {
            shape.first = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
            let mut run: SmallVec<[Answer; 4]> = SmallVec::new();
            for (method, route) in &shape.methods {
                let guard = guards.get(route.0 as usize);
                let only = match guard.map(|guard| &guard.formula) {
                    Some(Formula::Permission(id)) => *id,
                    _ => Answer::MORE,
                };
                let service = guard.map_or(shape.service, |guard| guard.service);
                run.push(Answer { service, only, method: *method, last: false });
                self.routes.push(*route);
            }
            if run.is_empty() {
                // No guard has this number, so it answers nothing.
                self.routes.push(RouteId(u32::MAX));
                run.push(Answer { service: shape.service, only: Answer::MORE, method: MethodKey::OTHER, last: true });
            }
            if let Some(answer) = run.last_mut() {
                answer.last = true;
            }
            let answers = &mut self.answers;
            plan_of.push(*plans.entry(run).or_insert_with_key(|run| {
                let plan = u32::try_from(answers.len()).unwrap_or(u32::MAX);
                answers.extend_from_slice(run);
                plan
            }));
        }
        let shapes = &self.shapes;
        self.index.settle(|value| {
            let shape = shapes.get(value as usize).map_or(value, |shape| shape.first);
            (shape, plan_of.get(value as usize).copied().unwrap_or(u32::MAX))
        });
    }

    /// The answer for a method in a shape's run: exact, else `*`; `HEAD` follows `head`, `get`, then `*`. `first`
    /// is where its routes begin, `plan` where its answers do.
    #[inline]
    pub(super) fn answer(&self, first: u32, plan: u32, method: MethodKey) -> Option<(RouteId, Answer)> {
        let mut best: Option<(u8, usize, Answer)> = None;
        for (at, answer) in self.answers.get(plan as usize..)?.iter().enumerate() {
            let rank = match answer.method {
                exact if exact == method => 0,
                MethodKey::GET if method == MethodKey::HEAD => 1,
                MethodKey::ANY => 2,
                _ => u8::MAX,
            };
            if rank < best.map_or(u8::MAX, |(rank, ..)| rank) {
                best = Some((rank, at, *answer));
            }
            if rank == 0 || answer.last {
                break;
            }
        }
        let (_, at, answer) = best?;
        Some((*self.routes.get(first as usize + at)?, answer))
    }

    /// The shape whose routes begin here.
    pub(super) fn shape(&self, first: u32) -> Option<&Shape> {
        let at = self.shapes.binary_search_by_key(&first, |shape| shape.first).ok()?;
        self.shapes.get(at)
    }
}

/// The methods of one path, or of several that differ in the names of their parameters.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) methods: SmallVec<[(MethodKey, RouteId); 2]>,
    pub(super) service: u32,
    /// Where its run of [`HostTable::routes`] begins.
    pub(super) first: u32,
    /// Report mode for a method that is not listed.
    pub(super) report: Option<Report>,
}

impl Shape {
    /// Exact, else `*`; `HEAD` follows `head`, `get`, then `*`.
    #[inline]
    pub(super) fn route(&self, method: MethodKey) -> Option<RouteId> {
        let of = |key| self.methods.iter().find(|(listed, _)| *listed == key).map(|(_, route)| *route);
        of(method)
            .or_else(|| if method == MethodKey::HEAD { of(MethodKey::GET) } else { None })
            .or_else(|| of(MethodKey::ANY))
    }
}

/// A method as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MethodKey(u16);

impl MethodKey {
    /// `"*"`.
    pub(super) const ANY: Self = Self(0);
    pub(super) const GET: Self = Self(1);
    pub(super) const HEAD: Self = Self(2);
    /// Named by no route.
    pub(super) const OTHER: Self = Self(u16::MAX);
}

/// The methods that routes name, beside those that everybody knows.
#[derive(Debug, Default)]
pub(super) struct Methods(Vec<Arc<str>>);

const KNOWN: [&str; 8] = ["*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl Methods {
    /// The number of a method as sent; never [`MethodKey::ANY`].
    #[inline]
    pub(super) fn key(&self, method: &str) -> MethodKey {
        // In the order of `KNOWN`; a `match` asks for the length first.
        let known = match method {
            "GET" => Some(1),
            "HEAD" => Some(2),
            "POST" => Some(3),
            "PUT" => Some(4),
            "PATCH" => Some(5),
            "DELETE" => Some(6),
            "OPTIONS" => Some(7),
            _ => None,
        };
        let custom = || self.0.iter().position(|custom| **custom == *method).map(|at| at + KNOWN.len());
        known.or_else(custom).and_then(|at| u16::try_from(at).ok()).map_or(MethodKey::OTHER, MethodKey)
    }

    /// The number of a method of a policy file, which is `*` or upper case.
    pub(super) fn intern(&mut self, method: &str) -> MethodKey {
        if method == "*" {
            return MethodKey::ANY;
        }
        if self.key(method) == MethodKey::OTHER {
            self.0.push(method.into());
        }
        self.key(method)
    }

    pub(super) fn name(&self, key: MethodKey) -> &str {
        let at = usize::from(key.0);
        KNOWN.get(at).copied().or_else(|| self.0.get(at - KNOWN.len()).map(|name| &**name)).unwrap_or("other")
    }
}

impl Snapshot {
    /// Distinguishes this snapshot from every other of the process, and rises.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The routes, by id.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// One route.
    #[must_use]
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id.0 as usize]
    }

    /// The services (one a policy file).
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service that a [`Route`] or a [`Decision`](super::Decision) names.
    #[must_use]
    pub fn service_by_index(&self, index: u32) -> Option<&Service> {
        self.services.get(index as usize)
    }

    /// The host to ask about where a question names none: none if files without `hosts` answer, else the first that a file
    /// names, else one that meets a wildcard. For commands; a request names its host itself.
    #[must_use]
    pub fn unnamed_host(&self) -> Option<Host> {
        if self.hosts.any.is_some() {
            return None;
        }
        let literal = self.services.iter().flat_map(|service| &service.hosts).next();
        let wildcard = || self.hosts.wildcard.keys().min().map(|suffix| format!("any{suffix}"));
        Host::parse(literal.map(ToString::to_string).or_else(wildcard)?.as_bytes()).ok()
    }

    /// The cookies that carry tokens, of whichever service. A browser sends them to every path of a host, so no upstream may
    /// see or set any of them (T26).
    #[must_use]
    pub fn cookies(&self) -> &[Arc<str>] {
        &self.cookies
    }

    /// The role table that the policies were compiled against.
    #[must_use]
    pub fn roles(&self) -> &Arc<RoleTable> {
        &self.roles
    }

    /// The permissions that are known but asked for by no route, sorted by code.
    #[must_use]
    pub fn unasked_permissions(&self) -> Vec<&str> {
        let mut asked = std::collections::HashSet::new();
        for guard in &self.guards {
            guard.formula.each_permission(&mut |permission| {
                asked.insert(permission);
            });
        }
        let known = self.roles.permissions().filter(|(id, _)| !asked.contains(id));
        let mut codes: Vec<&str> = known.map(|(_, code)| code.as_str()).collect();
        codes.sort_unstable();
        codes
    }

    /// The parts of a route's requirement, each with the way down to it and a word for it; none for `public` and `deny`.
    pub(super) fn branches(&self, route: RouteId) -> Vec<(Vec<usize>, String)> {
        fn walk(formula: &Formula, roles: &RoleTable, way: &mut Vec<usize>, all: &mut Vec<(Vec<usize>, String)>) {
            let (word, parts): (String, &[Formula]) = match formula {
                Formula::Public | Formula::Deny => return,
                Formula::Any(parts) => ("any".into(), parts),
                Formula::All(parts) => ("all".into(), parts),
                Formula::Authenticated => ("authenticated".into(), &[]),
                Formula::Permission(id) => (roles.permission_code(*id).to_string(), &[]),
                Formula::Role(id) => (roles.role_key(*id).to_string(), &[]),
                Formula::Membership(service, _) => (format!("membership {}", roles.service_name(*service)), &[]),
                Formula::Owner(_) => ("owner".into(), &[]),
                Formula::Client(_) => ("client".into(), &[]),
            };
            all.push((way.clone(), word));
            for (number, part) in parts.iter().enumerate() {
                way.push(number);
                walk(part, roles, way, all);
                way.pop();
            }
        }
        let mut all = Vec::new();
        if let Some(guard) = self.guards.get(route.0 as usize) {
            walk(&guard.formula, &self.roles, &mut Vec::new(), &mut all);
        }
        all
    }

    /// Bytes of the path indexes on the heap, for measuring.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        let shapes = |table: &HostTable| {
            size_of::<Shape>() * table.shapes.capacity()
                + size_of::<RouteId>() * table.routes.capacity()
                + size_of::<Answer>() * table.answers.capacity()
        };
        self.hosts.tables.iter().map(|table| table.index.heap_bytes() + shapes(table)).sum()
    }
}

impl Formula {
    /// Calls `visit` for every permission that is named, from the left.
    pub(super) fn each_permission(&self, visit: &mut impl FnMut(PermissionId)) {
        match self {
            Self::Permission(id) => visit(*id),
            Self::Any(parts) | Self::All(parts) => parts.iter().for_each(|part| part.each_permission(visit)),
            _ => {}
        }
    }
}
