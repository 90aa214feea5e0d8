//! The one decision: pure, total, in two steps, the second of which needs the caller.

use std::borrow::Cow;
use std::sync::Arc;

use super::snapshot::{Formula, HostTable, MethodKey, Report, RouteId, Shape, Snapshot, client_in};
use crate::clock::Timestamp;
use crate::rbac::{Grants, PermissionId};
use crate::reason::Reason;
use crate::request::target::{Case, clean};
use crate::request::{CleanTarget, PathRules, RequestFacts};

/// What can be said before the caller is known.
#[derive(Debug)]
pub enum Begin<'s, 'r> {
    /// The answer does not depend on who is asking: public, `deny`, no route, a bad target.
    Decided(Decision<'r>),
    /// A guarded route.
    NeedsCaller(Pending<'s, 'r>),
}

/// A guarded route that waits for its caller.
#[derive(Debug)]
pub struct Pending<'s, 'r> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) facts: RequestFacts<'r>,
    pub(super) route: RouteId,
    pub(super) target: CleanTarget<'r>,
    pub(super) now: Timestamp,
    /// The host ignores the case of literals.
    pub(super) fold: bool,
}

/// Who is asking, as far as a decision may look.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'c> {
    /// The subject id.
    pub subject: &'c str,
    /// What the subject holds in the route's service, resolved against this snapshot's role table.
    pub grants: &'c Grants,
}

/// Allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request may be forwarded.
    Allow,
    /// It may not.
    Deny(Reason),
}

/// The decision about one request.
#[derive(Debug)]
pub struct Decision<'r> {
    /// Allow or deny.
    pub outcome: Outcome,
    /// In report mode: the reason for which it would have been denied. `outcome` is then `Allow`.
    pub would_deny: Option<Reason>,
    /// The HTTP status of a denial (`no_route` is 403 or 404, as the file says); 200 for what is allowed.
    pub status: u16,
    /// The matched route. `None` with a service for a `no_route` or `method_not_allowed` that report mode lets
    /// through: it goes to that service's upstream.
    pub route: Option<RouteId>,
    /// Index of the service (policy file) concerned, if one is known.
    pub service: Option<u32>,
    /// The cleaned target, if cleaning succeeded: what is forwarded.
    pub target: Option<CleanTarget<'r>>,
    /// For `method_not_allowed`: the value of `Allow`.
    pub allow: Option<Box<str>>,
    /// The first permission that was required and not held, or the only one asked for.
    pub permission: Option<Arc<str>>,
    /// More about a denial, for people.
    pub detail: Cow<'static, str>,
    /// Whether it may be forwarded without a caller: a public route, or report mode for what no route matched.
    pub public: bool,
}

impl Snapshot {
    /// Cleans, matches, and decides what needs no caller. `now` is used only for `report_only` dates.
    #[must_use]
    pub fn begin<'s, 'r>(&'s self, facts: &RequestFacts<'r>, now: Timestamp) -> Begin<'s, 'r> {
        if facts.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let detail = "a lower-case letter in the method, which is case-sensitive";
            return Begin::Decided(deny(Reason::BadRequest, None, None, detail.into()));
        }
        let Some(table) = self.hosts.table(facts.host) else {
            return Begin::Decided(without_table(facts));
        };
        let never = matches!(facts.method, "TRACE" | "CONNECT");
        let target = match clean(facts.target, &table.rules) {
            Ok(target) => target,
            Err(_) if never => return Begin::Decided(refused_method(facts, table.service)),
            Err(rejection) => {
                return Begin::Decided(deny(rejection.reason, table.service, None, rejection.detail));
            }
        };
        let found = table.index.find(target.match_path()).map(|shape| table.index.value(shape));
        let Some(shape) = found.and_then(|value| table.shapes.get(value as usize)) else {
            if never {
                return Begin::Decided(refused_method(facts, table.service));
            }
            return Begin::Decided(no_route(table, target, now));
        };
        let route = if never { None } else { shape.route(self.methods.key(facts.method)) };
        let Some((route, guard)) = route.and_then(|route| Some((route, self.guards.get(route.0 as usize)?))) else {
            return Begin::Decided(self.method_not_allowed(facts, shape, target, !never && shape.reports(now)));
        };
        match guard.formula {
            Formula::Public => Begin::Decided(Decision {
                outcome: Outcome::Allow,
                would_deny: None,
                status: 200,
                route: Some(route),
                service: Some(guard.service),
                target: Some(target),
                allow: None,
                permission: None,
                detail: Cow::Borrowed(""),
                public: true,
            }),
            Formula::Deny => {
                let detail = Cow::Borrowed("the route is closed for everybody");
                let decision = deny(Reason::RouteDenied, Some(guard.service), Some(target), detail);
                Begin::Decided(Decision { route: Some(route), ..decision })
            }
            _ => {
                let fold = table.rules.case == Case::Insensitive;
                Begin::NeedsCaller(Pending { snapshot: self, facts: *facts, route, target, now, fold })
            }
        }
    }

    fn method_not_allowed<'r>(
        &self,
        facts: &RequestFacts<'_>,
        shape: &Shape,
        target: CleanTarget<'r>,
        report: bool,
    ) -> Decision<'r> {
        let detail = format!("the path is listed, but not with the method {}", facts.method);
        let mut decision = deny(Reason::MethodNotAllowed, Some(shape.service), Some(target), detail.into());
        decision.allow = Some(self.allow(shape));
        if report { let_through(decision, true) } else { decision }
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1): what is listed and not closed; `HEAD` follows `GET`.
    fn allow(&self, shape: &Shape) -> Box<str> {
        let mut names: Vec<&str> = Vec::new();
        for (method, route) in &shape.methods {
            let closed = self.guards.get(route.0 as usize).is_none_or(|guard| guard.formula == Formula::Deny);
            match *method {
                _ if closed => {}
                MethodKey::ANY => names.extend(["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]),
                MethodKey::GET if shape.route(MethodKey::HEAD) == Some(*route) => names.extend(["GET", "HEAD"]),
                method => names.push(self.methods.name(method)),
            }
        }
        // `*` is for the methods that are not named: one that is named and closed stays closed.
        names.retain(|name| {
            let route = shape.route(self.methods.key(name));
            route
                .and_then(|route| self.guards.get(route.0 as usize))
                .is_some_and(|guard| guard.formula != Formula::Deny)
        });
        names.sort_unstable();
        names.dedup();
        names.join(", ").into()
    }
}

impl<'s, 'r> Pending<'s, 'r> {
    /// The route that waits.
    #[must_use]
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// The name of the service in which the caller's grants are to be resolved.
    #[must_use]
    pub fn service(&self) -> &'s str {
        let index = self.snapshot.route(self.route).service as usize;
        &self.snapshot.services[index].name
    }

    /// Decides for an authenticated caller.
    #[must_use]
    pub fn with_caller(self, caller: &Caller<'_>) -> Decision<'r> {
        self.with_witness(caller, &mut Silent)
    }

    /// Decides, and lets `witness` see every part of the requirement.
    pub(super) fn with_witness<W: Witness>(self, caller: &Caller<'_>, witness: &mut W) -> Decision<'r> {
        let guard = &self.snapshot.guards[self.route.0 as usize];
        // Bits of another role table mean nothing here (T8), so they open nothing.
        if caller.grants.table() != self.snapshot.roles.identity() {
            let detail = Cow::Borrowed("the caller's grants belong to another version of the roles");
            return self.denied(Reason::AuthUnavailable, detail);
        }
        let question = Question { pending: &self, caller };
        if question.holds(&guard.formula, witness) {
            return Decision {
                outcome: Outcome::Allow,
                would_deny: None,
                status: 200,
                route: Some(self.route),
                service: Some(guard.service),
                target: Some(self.target),
                allow: None,
                permission: guard.permission.clone(),
                detail: Cow::Borrowed(""),
                public: false,
            };
        }
        let missing = question.first_missing(&guard.formula);
        let missing = missing.map(|id| self.snapshot.roles.permission_code(id).as_str());
        let detail = match missing {
            Some(code) => format!("the permission {code} is missing"),
            None => format!("the requirement {} is not met", self.snapshot.route(self.route).requirement),
        };
        let report = guard.report.applies(self.now);
        let permission = missing.map(Arc::from);
        let decision = Decision { permission, ..self.denied(Reason::PermissionMissing, detail.into()) };
        if report { let_through(decision, false) } else { decision }
    }

    /// Decides for a request without a usable credential: denied for `reason` (one of the 401s or
    /// `auth_unavailable`), or let through in report mode if the reason is `missing_token`.
    #[must_use]
    pub fn without_caller(self, reason: Reason, detail: Cow<'static, str>) -> Decision<'r> {
        let guard = &self.snapshot.guards[self.route.0 as usize];
        let report = reason == Reason::MissingToken && guard.report.applies(self.now);
        let permission = guard.permission.clone();
        let decision = Decision { permission, ..self.denied(reason, detail) };
        if report { let_through(decision, false) } else { decision }
    }

    fn denied(self, reason: Reason, detail: Cow<'static, str>) -> Decision<'r> {
        let service = self.snapshot.guards[self.route.0 as usize].service;
        Decision { route: Some(self.route), ..deny(reason, Some(service), Some(self.target), detail) }
    }
}

/// Sees a requirement being evaluated.
pub(super) trait Witness {
    /// Whether every part is to be evaluated, also where the answer is known already.
    const SEES_ALL: bool;
    /// A part is about to be evaluated; its parts follow before it is left.
    fn enter(&mut self, part: &Formula);
    /// It was evaluated.
    fn leave(&mut self, holds: bool);
}

/// The witness of the request path: costs nothing.
struct Silent;

impl Witness for Silent {
    const SEES_ALL: bool = false;
    #[inline]
    fn enter(&mut self, _: &Formula) {}
    #[inline]
    fn leave(&mut self, _: bool) {}
}

/// A requirement is asked about one request of one caller.
struct Question<'q, 's, 'r> {
    pending: &'q Pending<'s, 'r>,
    caller: &'q Caller<'q>,
}

impl Question<'_, '_, '_> {
    #[inline]
    fn holds<W: Witness>(&self, formula: &Formula, witness: &mut W) -> bool {
        witness.enter(formula);
        let holds = match formula {
            Formula::Permission(id) => self.caller.grants.has(*id),
            Formula::Any(parts) if W::SEES_ALL => {
                parts.iter().fold(false, |any, part| self.holds(part, witness) || any)
            }
            Formula::All(parts) if W::SEES_ALL => parts.iter().fold(true, |all, part| self.holds(part, witness) && all),
            Formula::Any(parts) => parts.iter().any(|part| self.holds(part, witness)),
            Formula::All(parts) => parts.iter().all(|part| self.holds(part, witness)),
            Formula::Authenticated | Formula::Public => true,
            Formula::Deny => false,
            Formula::Role(id) => self.caller.grants.has_role(*id),
            Formula::Membership(service, rank) => self.caller.grants.tier(*service).is_some_and(|held| held >= *rank),
            Formula::Owner(place) => place.is(self.caller.subject, self.pending.target.match_path(), self.pending.fold),
            Formula::Client(networks) => client_in(networks, self.pending.facts.client),
        };
        witness.leave(holds);
        holds
    }

    /// The first permission, from the left, that is not held in a part that does not hold.
    fn first_missing(&self, formula: &Formula) -> Option<PermissionId> {
        match formula {
            Formula::Permission(id) => (!self.caller.grants.has(*id)).then_some(*id),
            Formula::Any(parts) | Formula::All(parts) => {
                parts.iter().filter(|part| !self.holds(part, &mut Silent)).find_map(|part| self.first_missing(part))
            }
            _ => None,
        }
    }
}

impl Shape {
    fn reports(&self, now: Timestamp) -> bool {
        self.report.is_some_and(|report| report.applies(now))
    }
}

fn deny<'r>(
    reason: Reason,
    service: Option<u32>,
    target: Option<CleanTarget<'r>>,
    detail: Cow<'static, str>,
) -> Decision<'r> {
    Decision {
        outcome: Outcome::Deny(reason),
        would_deny: None,
        status: reason.status(),
        route: None,
        service,
        target,
        allow: None,
        permission: None,
        detail,
        public: false,
    }
}

/// Report mode: allowed, and marked with the reason.
fn let_through(decision: Decision<'_>, public: bool) -> Decision<'_> {
    let would_deny = match decision.outcome {
        Outcome::Deny(reason) => Some(reason),
        Outcome::Allow => None,
    };
    Decision { outcome: Outcome::Allow, would_deny, status: 200, allow: None, public, ..decision }
}

fn no_route<'r>(table: &HostTable, target: CleanTarget<'r>, now: Timestamp) -> Decision<'r> {
    let detail = Cow::Borrowed("what no policy lists is denied");
    let decision = Decision { status: table.unmatched, ..deny(Reason::NoRoute, table.service, Some(target), detail) };
    if table.report != Report::NEVER && table.report.applies(now) { let_through(decision, true) } else { decision }
}

/// No policy is for this host. A bad target is still called one.
fn without_table<'r>(facts: &RequestFacts<'r>) -> Decision<'r> {
    match clean(facts.target, &PathRules::default()) {
        _ if matches!(facts.method, "TRACE" | "CONNECT") => refused_method(facts, None),
        Ok(target) => deny(Reason::NoRoute, None, Some(target), Cow::Borrowed("no policy is for this host")),
        Err(rejection) => deny(rejection.reason, None, None, rejection.detail),
    }
}

/// `TRACE` and `CONNECT` are never forwarded, wherever they lead.
fn refused_method<'r>(facts: &RequestFacts<'_>, service: Option<u32>) -> Decision<'r> {
    let detail = format!("{} is never forwarded", facts.method);
    Decision { allow: Some("".into()), ..deny(Reason::MethodNotAllowed, service, None, detail.into()) }
}
