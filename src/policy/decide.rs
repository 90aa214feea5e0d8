//! The one decision: pure, total, in two steps, the second of which needs the caller.

use std::borrow::Cow;
use std::sync::Arc;

use super::snapshot::{Answer, Formula, HostTable, MethodKey, Report, RouteId, Shape, Snapshot, client_in};
use crate::clock::Timestamp;
use crate::rbac::{Grants, PermissionCode, PermissionId};
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
    pub(super) service: u32,
    /// The permission that is all the route asks for, or [`Answer::MORE`].
    only: PermissionId,
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
    /// The first permission that was required and not held, or the only one asked for; an id of the snapshot's
    /// role table, so that nothing is counted or copied for a request of which nobody asks it.
    pub permission: Option<PermissionId>,
    /// More about a denial, for people.
    pub detail: Cow<'static, str>,
    /// Whether it may be forwarded without a caller: a public route, or report mode for what no route matched.
    pub public: bool,
}

impl Snapshot {
    /// Cleans, matches, and decides what needs no caller. `now` is used only for `report_only` dates.
    #[must_use]
    pub fn begin<'s, 'r>(&'s self, facts: &RequestFacts<'r>, now: Timestamp) -> Begin<'s, 'r> {
        let method = self.methods.key(facts.method);
        // Methods that are known are upper case.
        if method == MethodKey::OTHER && facts.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
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
        let found = table.index.find(target.match_path());
        let Some((first, plan)) = found.map(|shape| (table.index.value(shape), table.index.plan(shape))) else {
            if never {
                return Begin::Decided(refused_method(facts, table.service));
            }
            return Begin::Decided(no_route(table, target, now));
        };
        let answer = if never { None } else { table.answer(first, plan, method) };
        let fold = table.rules.case == Case::Insensitive;
        // Nearly every route asks for one permission, and then its guard is not read at all.
        if let Some((route, Answer { service, only, .. })) = answer
            && only != Answer::MORE
        {
            return Begin::NeedsCaller(Pending {
                snapshot: self,
                facts: *facts,
                route,
                service,
                only,
                target,
                now,
                fold,
            });
        }
        let guard = answer.and_then(|(route, answer)| Some((route, answer, self.guards.get(route.0 as usize)?)));
        let Some((route, Answer { service, only, .. }, guard)) = guard else {
            let Some(shape) = table.shape(first) else { return Begin::Decided(no_route(table, target, now)) };
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
            _ => Begin::NeedsCaller(Pending { snapshot: self, facts: *facts, route, service, only, target, now, fold }),
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
    pub(super) fn allow(&self, shape: &Shape) -> Box<str> {
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
        &self.snapshot.services[self.service as usize].name
    }

    /// The same name, to keep.
    #[must_use]
    pub fn service_name(&self) -> &'s Arc<str> {
        &self.snapshot.services[self.service as usize].name
    }

    /// The code of a permission of the snapshot.
    #[must_use]
    pub fn permission_code(&self, id: PermissionId) -> &'s PermissionCode {
        self.snapshot.roles.permission_code(id)
    }

    /// The permissions that the requirement mentions, from the left, each once: all that has to be known of a caller's.
    #[must_use]
    pub fn permissions(&self) -> Vec<PermissionId> {
        let mut found = Vec::new();
        mentioned(&self.snapshot.guards[self.route.0 as usize].formula, &mut found);
        found
    }

    /// Whether the requirement would be met by such a caller. It decides nothing: it is for finding out what need not be asked.
    #[must_use]
    pub fn would_hold(&self, caller: &Caller<'_>) -> bool {
        let known = caller.grants.table() == self.snapshot.roles.identity();
        let formula = &self.snapshot.guards[self.route.0 as usize].formula;
        known && Question { pending: self, caller }.holds(formula, &mut Silent)
    }

    /// Decides for an authenticated caller.
    #[must_use]
    #[inline]
    pub fn with_caller(self, caller: &Caller<'_>) -> Decision<'r> {
        if caller.grants.table() == self.snapshot.roles.identity() && caller.grants.has(self.only) {
            let permission = Some(self.only);
            return self.allowed(permission);
        }
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
            let permission = guard.permission;
            return self.allowed(permission);
        }
        let missing = question.first_missing(&guard.formula);
        let detail = match missing {
            Some(id) => format!("the permission {} is missing", self.snapshot.roles.permission_code(id).as_str()),
            None => format!("the requirement {} is not met", self.snapshot.route(self.route).requirement),
        };
        let report = guard.report.applies(self.now);
        let decision = Decision { permission: missing, ..self.denied(Reason::PermissionMissing, detail.into()) };
        if report { let_through(decision, false) } else { decision }
    }

    /// Decides for a request without a usable credential: denied for `reason` (one of the 401s or
    /// `auth_unavailable`), or let through in report mode if the reason is `missing_token`.
    #[must_use]
    pub fn without_caller(self, reason: Reason, detail: Cow<'static, str>) -> Decision<'r> {
        let guard = &self.snapshot.guards[self.route.0 as usize];
        let report = reason == Reason::MissingToken && guard.report.applies(self.now);
        let permission = guard.permission;
        let decision = Decision { permission, ..self.denied(reason, detail) };
        if report { let_through(decision, false) } else { decision }
    }

    #[inline]
    fn allowed(self, permission: Option<PermissionId>) -> Decision<'r> {
        Decision {
            outcome: Outcome::Allow,
            would_deny: None,
            status: 200,
            route: Some(self.route),
            service: Some(self.service),
            target: Some(self.target),
            allow: None,
            permission,
            detail: Cow::Borrowed(""),
            public: false,
        }
    }

    fn denied(self, reason: Reason, detail: Cow<'static, str>) -> Decision<'r> {
        let service = self.service;
        Decision { route: Some(self.route), ..deny(reason, Some(service), Some(self.target), detail) }
    }
}

impl Decision<'_> {
    /// Turns what was allowed into a denial, for a reason that lies in the credential and not in the policy.
    #[must_use]
    pub fn refused(self, reason: Reason, detail: Cow<'static, str>) -> Self {
        Self {
            outcome: Outcome::Deny(reason),
            would_deny: None,
            status: reason.status(),
            detail,
            public: false,
            ..self
        }
    }
}

/// Adds the permissions of a requirement that are not there yet.
fn mentioned(formula: &Formula, found: &mut Vec<PermissionId>) {
    match formula {
        Formula::Permission(id) if !found.contains(id) => found.push(*id),
        Formula::Any(parts) | Formula::All(parts) => parts.iter().for_each(|part| mentioned(part, found)),
        _ => {}
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
            // Every part is evaluated here, also where the answer is known already.
            Formula::Any(parts) if W::SEES_ALL => parts.iter().filter(|part| self.holds(part, witness)).count() > 0,
            Formula::All(parts) if W::SEES_ALL => {
                parts.iter().filter(|part| self.holds(part, witness)).count() == parts.len()
            }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::{CLIENT, NOW, ask, outcome, roles, snapshot, snapshot_of, word};
    use crate::rbac::RoleKey;

    const PATHS: &str = "\
paths:
  /health: { get: public }
  /orders:
    get: order:view
    post: { all: [order:view, order:edit] }
    delete: deny
  /users/{id}/orders: { get: { any: [order:view-all, { owner: id }] } }
  /reports/{rest...}:
    '*': { all: [{ membership: oms >= PREMIUM }, { role: ROLE_VIEWER }] }
  /me: { get: authenticated, purge: order:edit }
  /lan: { get: { client: [192.0.2.0/24] }, put: { client: [198.51.100.0/24] } }
  /closed/{rest...}: { '*': deny }
";

    #[test]
    fn each_requirement_is_decided() {
        let snapshot = snapshot(PATHS);
        for (who, request, expected) in [
            ("-", "GET /health", "allow"),
            ("-", "GET /orders", "missing_token"),
            ("u", "GET /orders", "permission_missing"),
            ("u ROLE_VIEWER", "GET /orders?x=/health", "allow"),
            ("u ROLE_VIEWER", "HEAD /orders", "allow"),
            ("u ROLE_VIEWER", "POST /orders", "permission_missing"),
            ("u ROLE_EDITOR", "POST /orders", "allow"),
            ("u ROLE_UNKNOWN", "GET /orders", "permission_missing"),
            ("7", "GET /users/7/orders", "allow"),
            ("7", "GET /users/8/orders", "permission_missing"),
            ("7 ROLE_SHOP", "GET /users/8/orders", "allow"),
            ("u ROLE_EDITOR oms=PREMIUM", "GET /reports/a/b", "allow"),
            ("u ROLE_EDITOR oms=FREE", "PURGE /reports/a/b", "permission_missing"),
            ("u oms=PREMIUM", "GET /reports/a/b", "permission_missing"),
            ("u", "GET /me", "allow"),
            ("u ROLE_EDITOR", "PURGE /me", "allow"),
            ("u", "GET /lan", "allow"),
            ("u", "PUT /lan", "permission_missing"),
            ("-", "GET /closed/x", "route_denied"),
            ("u ROLE_ADMIN", "DELETE /orders", "route_denied"),
            ("-", "GET /nowhere", "no_route"),
            ("-", "PATCH /orders", "method_not_allowed"),
            ("-", "get /orders", "bad_request"),
            ("-", "GET /orders/../health", "bad_request_target"),
            ("-", "TRACE /health", "method_not_allowed"),
            ("-", "CONNECT /nowhere", "method_not_allowed"),
            ("-", "TRACE /reports/x", "method_not_allowed"),
        ] {
            assert_eq!(outcome(&snapshot, who, request), expected, "{who}: {request}");
        }
    }

    #[test]
    fn a_denial_says_what_was_missing() {
        let snapshot = snapshot(PATHS);
        let decision = ask(&snapshot, "u ROLE_VIEWER", "POST", "/orders", None);
        assert_eq!(decision.permission, snapshot.roles.permission("order:edit"));
        assert_eq!(decision.status, 403);
        let decision = ask(&snapshot, "-", "PATCH", "/orders", None);
        assert_eq!((decision.status, decision.allow.as_deref()), (405, Some("GET, HEAD, POST")));
        assert_eq!(decision.service, Some(0));
        let decision = ask(&snapshot, "u ROLE_VIEWER", "GET", "/orders", None);
        assert_eq!(decision.permission, snapshot.roles.permission("order:view"));
    }

    #[test]
    fn a_path_without_the_method_never_falls_back_to_a_looser_path() {
        let snapshot = snapshot("paths:\n  /a/b: { get: order:view }\n  /a/{x}: { '*': public }\n");
        assert_eq!(outcome(&snapshot, "-", "POST /a/b"), "method_not_allowed");
        assert_eq!(outcome(&snapshot, "-", "POST /a/c"), "allow");
    }

    #[test]
    fn unmatched_is_404_where_every_file_says_so() {
        let file = |service: &str, more: &str| {
            format!("version: 1\nservice: {service}\nupstream: oms\n{more}paths:\n  /{service}: {{ get: public }}\n")
        };
        let (one, two) = (file("a", "unmatched: 404\n"), file("b", ""));
        let decision = |texts: &[&str]| {
            let snapshot = snapshot_of(texts, false);
            let decision = ask(&snapshot, "-", "GET", "/x", None);
            (decision.status, decision.service)
        };
        assert_eq!(decision(&[&one]), (404, Some(0)));
        assert_eq!(decision(&[&one, &two]), (403, None));
    }

    #[test]
    fn t08_grants_of_another_role_table_open_nothing() {
        let snapshot = snapshot(PATHS);
        let others = roles();
        let keys = [RoleKey::parse("ROLE_ADMIN").unwrap()];
        let grants = others.resolve("oms", &keys, &[]);
        for target in ["/orders", "/me"] {
            let facts = RequestFacts { method: "GET", host: None, target, client: CLIENT };
            let Begin::NeedsCaller(pending) = snapshot.begin(&facts, NOW) else { panic!("guarded") };
            let decision = pending.with_caller(&Caller { subject: "u", grants: &grants });
            assert_eq!(decision.outcome, Outcome::Deny(Reason::AuthUnavailable));
        }
    }

    #[test]
    fn t21_report_mode_lets_through_only_what_the_policy_alone_would_deny() {
        let head = "version: 1\nservice: oms\nupstream: oms\n";
        let snapshot = snapshot_of(&[&format!("{head}{PATHS}")], true);
        for (who, request, expected) in [
            ("-", "GET /orders", "report:missing_token"),
            ("u", "GET /orders", "report:permission_missing"),
            ("u ROLE_VIEWER", "GET /orders", "allow"),
            ("-", "PATCH /orders", "report:method_not_allowed"),
            ("-", "GET /nowhere", "report:no_route"),
            ("-", "DELETE /orders", "route_denied"),
            ("-", "GET /closed/x", "route_denied"),
            ("-", "GET /orders/../x", "bad_request_target"),
            ("-", "get /orders", "bad_request"),
            ("-", "TRACE /orders", "method_not_allowed"),
        ] {
            assert_eq!(outcome(&snapshot, who, request), expected, "{who}: {request}");
        }
        let facts = RequestFacts { method: "GET", host: None, target: "/orders", client: CLIENT };
        for reason in Reason::ALL.iter().copied().filter(|reason| *reason != Reason::MissingToken) {
            let Begin::NeedsCaller(pending) = snapshot.begin(&facts, NOW) else { panic!("guarded") };
            let decision = pending.without_caller(reason, "".into());
            assert_eq!(decision.outcome, Outcome::Deny(reason), "a bad token is refused as ever");
        }
    }

    #[test]
    fn t21_report_mode_never_opens_the_identity_listener() {
        let identity = "version: 1\nservice: identity\nupstream: doorward-identity\nhosts: [id.example.com]\npaths:\n  /auth/userinfo: { get: authenticated }\n";
        let mixed = "version: 1\nservice: oms\nupstream: oms\nreport_only: { until: 2099-01-01 }\npaths:\n  /a: { get: order:view }\n  /id: { get: { require: authenticated, upstream: doorward-identity } }\n";
        let snapshot = snapshot_of(&[identity, mixed], true);
        let host = crate::request::Host::parse(b"id.example.com").unwrap();
        for (method, target, expected) in [
            ("GET", "/auth/userinfo", "missing_token"),
            ("POST", "/auth/userinfo", "method_not_allowed"),
            ("GET", "/x", "no_route"),
        ] {
            assert_eq!(word(&ask(&snapshot, "-", method, target, Some(&host))), expected);
        }
        assert_eq!(outcome(&snapshot, "-", "GET /id"), "missing_token");
        assert_eq!(outcome(&snapshot, "-", "GET /a"), "report:missing_token");
    }

    #[test]
    fn report_only_ends_on_its_day_and_belongs_to_its_path() {
        let text = "paths:\n  /a: { get: order:view, report_only: { until: 2027-01-31 } }\n  /b: { get: order:view }\n";
        let snapshot = snapshot(text);
        let facts = |target| RequestFacts { method: "GET", host: None, target, client: CLIENT };
        // 2027-01-31T00:00:00Z
        for (now, target, expected) in [
            (1_801_353_599, "/a", "report:missing_token"),
            (1_801_353_600, "/a", "missing_token"),
            (0, "/b", "missing_token"),
        ] {
            let facts = facts(target);
            let Begin::NeedsCaller(pending) = snapshot.begin(&facts, Timestamp(now)) else { panic!("guarded") };
            assert_eq!(word(&pending.without_caller(Reason::MissingToken, "".into())), expected, "{target} at {now}");
        }
        assert_eq!(outcome(&snapshot, "-", "PUT /b"), "method_not_allowed");
    }

    #[test]
    fn an_owner_is_compared_in_decoded_form_and_never_across_slashes() {
        let snapshot = snapshot(
            "path: { encoded_slash: keep }\npaths:\n  /u/{id}: { get: { owner: id } }\n  /f/{path...}: { get: { owner: path } }\n  /c/{a}...{b}: { get: { owner: b } }\n",
        );
        for (who, request, expected) in [
            ("a:b", "GET /u/a%3Ab", "allow"),
            ("a/b", "GET /u/a%2Fb", "allow"),
            ("a/b", "GET /f/a/b", "allow"),
            ("a/b", "GET /f/a%2Fb", "permission_missing"),
            ("2...3", "GET /c/1...2...3", "allow"),
            ("3", "GET /c/1...2...3", "permission_missing"),
        ] {
            assert_eq!(outcome(&snapshot, who, request), expected, "{who}: {request}");
        }
    }

    proptest! {
        /// A requirement is monotone: holding more never loses access.
        #[test]
        fn more_roles_never_lose_access(few in prop::collection::vec(0..4_usize, 0..3), more in prop::collection::vec(0..4_usize, 0..3), request in 0..5_usize) {
            thread_local! { static SNAPSHOT: Arc<Snapshot> = Arc::new(snapshot(PATHS)); }
            const ROLES: [&str; 4] = ["ROLE_VIEWER", "ROLE_EDITOR", "ROLE_SHOP", "oms=PREMIUM"];
            let request = ["GET /orders", "POST /orders", "GET /users/1/orders", "GET /reports/x", "GET /lan"][request];
            let who = |roles: &[usize]| roles.iter().fold("u".to_owned(), |who, role| format!("{who} {}", ROLES[*role]));
            let both: Vec<usize> = few.iter().chain(&more).copied().collect();
            let snapshot = SNAPSHOT.with(Arc::clone);
            let (few, both) = (outcome(&snapshot, &who(&few), request), outcome(&snapshot, &who(&both), request));
            prop_assert!(few != "allow" || both == "allow", "{}: {} then {}", request, few, both);
        }
    }
}
