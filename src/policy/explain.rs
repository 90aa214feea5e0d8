//! The same decision with a witness that remembers: the requirement as a tree with ✓ and ✗.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::decide::{Begin, Caller, Decision, Outcome, Pending, Witness};
use super::snapshot::{Formula, OwnerPlace, Route, RouteId, Snapshot};
use crate::clock::Timestamp;
use crate::rbac::{Grants, Membership, PermissionId, RoleKey, RoleTable};
use crate::reason::Reason;
use crate::request::{Host, RequestFacts};

/// A request to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The host, if one is named.
    pub host: Option<&'a Host>,
    /// The client's address.
    pub client: IpAddr,
    /// Who asks.
    pub who: Who<'a>,
    /// For `report_only` dates.
    pub now: Timestamp,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// Nobody: no token.
    Anonymous,
    /// A subject with a valid token.
    Subject {
        /// The subject id.
        subject: &'a str,
        /// The roles that the token names.
        roles: &'a [RoleKey],
        /// The memberships that it names.
        memberships: &'a [Membership],
    },
}

/// A decision and what led to it.
#[derive(Debug)]
pub struct Explanation {
    /// The request, `METHOD target`.
    pub request: String,
    /// Allow or deny.
    pub outcome: Outcome,
    /// The reason for which report mode would have denied.
    pub would_deny: Option<Reason>,
    /// The HTTP status of a denial.
    pub status: u16,
    /// More about a denial.
    pub detail: String,
    /// The service concerned.
    pub service: Option<Arc<str>>,
    /// The route, if one matched.
    pub route: Option<MatchedRoute>,
    /// For `method_not_allowed`: what is.
    pub allow: Option<Box<str>>,
    /// The requirement, evaluated whole; absent where no caller is asked for.
    pub tree: Option<Node>,
    /// What would have to be granted.
    pub mend: Option<Mend>,
}

/// The route that a request matched.
#[derive(Debug)]
pub struct MatchedRoute {
    /// Its id in the snapshot.
    pub id: RouteId,
    /// Its pattern.
    pub pattern: Arc<str>,
    /// Its method, or `*`.
    pub method: Arc<str>,
    /// Its requirement.
    pub requirement: Arc<str>,
    /// Its file.
    pub file: Arc<str>,
    /// The line of its method, from 1.
    pub line: u32,
}

/// A part of a requirement.
#[derive(Debug)]
pub struct Node {
    /// The part, for people.
    pub label: String,
    /// Whether it is met.
    pub holds: bool,
    /// Through what it is met, or who would meet it.
    pub detail: Option<String>,
    /// Its parts.
    pub children: Vec<Node>,
    /// What would meet it; `None` if it is met.
    lacking: Option<Lacking>,
}

/// What an unmet part lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacking {
    Grant,
    /// The subject, the address or the route would have to be another.
    NoGrant,
    Any,
    All,
}

/// What would have to change for the request to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// A valid token.
    Token,
    /// A smallest set of parts, each of which has to be granted.
    Grant(Vec<String>),
    /// No grant would do: another subject, another address or another policy is needed.
    NotByGrant,
}

/// Decides, and says why. The decision is [`Snapshot::begin`]'s and [`Pending::with_caller`]'s own.
#[must_use]
pub fn explain(snapshot: &Snapshot, ask: &Ask<'_>) -> Explanation {
    let facts = RequestFacts { method: ask.method, host: ask.host, target: ask.target, client: ask.client };
    let (decision, tree) = match snapshot.begin(&facts, ask.now) {
        Begin::Decided(decision) => (decision, None),
        Begin::NeedsCaller(pending) => {
            with_tree(snapshot, pending, &ask.who, || match snapshot.begin(&facts, ask.now) {
                Begin::NeedsCaller(again) => Some(again),
                Begin::Decided(_) => None,
            })
        }
    };
    let denied = decision.would_deny.is_some() || decision.outcome != Outcome::Allow;
    let mend = match (&tree, ask.who) {
        (Some(_), Who::Anonymous) => Some(Mend::Token),
        (Some(tree), Who::Subject { .. }) if denied => Some(tree.smallest().map_or(Mend::NotByGrant, Mend::Grant)),
        _ => None,
    };
    explanation(snapshot, ask, &decision, tree, mend)
}

fn with_tree<'s, 'r>(
    snapshot: &Snapshot,
    pending: Pending<'s, 'r>,
    who: &Who<'_>,
    again: impl FnOnce() -> Option<Pending<'s, 'r>>,
) -> (Decision<'r>, Option<Node>) {
    let route = snapshot.route(pending.route());
    let (subject, roles, memberships): (&str, &[RoleKey], &[Membership]) = match who {
        Who::Anonymous => ("", &[], &[]),
        Who::Subject { subject, roles, memberships } => (subject, roles, memberships),
    };
    let grants = snapshot.roles.resolve_for_policy(pending.service(), roles, memberships);
    let anonymous = matches!(who, Who::Anonymous);
    let service = pending.service();
    let mut recorder =
        Recorder { roles: &snapshot.roles, service, route, grants: &grants, anonymous, open: Vec::new(), root: None };
    let caller = Caller { subject, grants: &grants };
    let decision = if anonymous {
        if let Some(again) = again() {
            let _ = again.with_witness(&caller, &mut recorder);
        }
        pending.without_caller(Reason::MissingToken, "the route needs a valid token".into())
    } else {
        pending.with_witness(&caller, &mut recorder)
    };
    (decision, recorder.root)
}

fn explanation(
    snapshot: &Snapshot,
    ask: &Ask<'_>,
    decision: &Decision<'_>,
    tree: Option<Node>,
    mend: Option<Mend>,
) -> Explanation {
    let route = decision.route.map(|id| {
        let route = snapshot.route(id);
        MatchedRoute {
            id,
            pattern: Arc::clone(&route.pattern),
            method: Arc::clone(&route.method),
            requirement: Arc::clone(&route.requirement),
            file: Arc::clone(&route.file),
            line: route.line,
        }
    });
    Explanation {
        request: format!("{} {}", ask.method, ask.target),
        outcome: decision.outcome,
        would_deny: decision.would_deny,
        status: decision.status,
        detail: decision.detail.to_string(),
        service: decision
            .service
            .and_then(|index| snapshot.service_by_index(index))
            .map(|service| Arc::clone(&service.name)),
        route,
        allow: decision.allow.clone(),
        tree,
        mend,
    }
}

impl Explanation {
    /// The reason of a denial, also of one that was only reported.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self.outcome {
            Outcome::Deny(reason) => Some(reason),
            Outcome::Allow => self.would_deny,
        }
    }

    /// `{decision, reason, route, file, tree}` (SPEC 10), and more beside.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let route = self.route.as_ref();
        json!({
            "decision": if self.outcome == Outcome::Allow { "allow" } else { "deny" },
            "reason": self.reason().map(Reason::code),
            "report_only": self.would_deny.is_some(),
            "status": self.status,
            "detail": self.detail,
            "request": self.request,
            "service": self.service.as_deref(),
            "route": route.map(|route| &*route.pattern),
            "method": route.map(|route| &*route.method),
            "requirement": route.map(|route| &*route.requirement),
            "file": route.map(|route| &*route.file),
            "line": route.map(|route| route.line),
            "allow": self.allow.as_deref(),
            "tree": self.tree.as_ref().map(Node::to_json),
            "would_need": match &self.mend {
                Some(Mend::Grant(parts)) => json!(parts),
                Some(Mend::Token) => json!(["a valid token"]),
                Some(Mend::NotByGrant) | None => Value::Null,
            },
        })
    }

    /// For a terminal, several lines.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let verdict = match (self.outcome, self.would_deny) {
            (Outcome::Deny(reason), _) => format!("DENY   {reason} ({})", self.status),
            (Outcome::Allow, Some(reason)) => format!("ALLOW  report mode only, else {reason}"),
            (Outcome::Allow, None) => "ALLOW".to_owned(),
        };
        let _ = writeln!(text, "{verdict}  {}", self.request);
        match &self.route {
            Some(route) => {
                let _ = writeln!(text, "route  {} {}  ({}:{})", route.method, route.pattern, route.file, route.line);
                let _ = writeln!(text, "why    {}", self.why(route));
            }
            None => {
                let _ = writeln!(text, "route  none");
            }
        }
        if let Some(service) = &self.service {
            let _ = writeln!(text, "of     service {service}");
        }
        if !self.detail.is_empty() {
            let _ = writeln!(text, "detail {}", self.detail);
        }
        if let Some(allow) = &self.allow {
            let _ = writeln!(text, "allows {}", if allow.is_empty() { "no method" } else { allow });
        }
        if let Some(tree) = &self.tree {
            text.push_str("needs\n");
            tree.write(&mut text, 1);
        }
        match &self.mend {
            Some(Mend::Token) => {
                text.push_str("to be allowed: send a valid token of a subject that meets the requirement\n");
            }
            Some(Mend::Grant(parts)) => {
                let _ = writeln!(text, "to be allowed: grant {}", parts.join(" and "));
            }
            Some(Mend::NotByGrant) => {
                text.push_str("to be allowed: no grant would do; the subject, the address or the policy would have to be another\n");
            }
            None => {}
        }
        text
    }

    fn why(&self, route: &MatchedRoute) -> String {
        let sent = self.request.split(' ').next().unwrap_or_default();
        match &*route.method {
            "*" => format!("the most specific path that matches; `*` stands for {sent}, which it does not name"),
            listed if listed == sent => "the most specific path that matches, and its method".to_owned(),
            listed => format!("the most specific path that matches; {sent} follows {listed}"),
        }
    }
}

impl Node {
    /// `{label, holds, detail, children}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({ "label": self.label, "holds": self.holds });
        if let Some(detail) = &self.detail {
            value["detail"] = json!(detail);
        }
        if !self.children.is_empty() {
            value["children"] = self.children.iter().map(Self::to_json).collect();
        }
        value
    }

    /// Appends it with ✓ and ✗, a line a part, `depth` steps from the left.
    pub fn write(&self, text: &mut String, depth: usize) {
        let mark = if self.holds { '✓' } else { '✗' };
        let _ = write!(text, "{:indent$}{mark} {}", "", self.label, indent = depth * 2);
        if let Some(detail) = &self.detail {
            let _ = write!(text, "  ({detail})");
        }
        text.push('\n');
        for child in &self.children {
            child.write(text, depth + 1);
        }
    }

    /// A smallest set of grants that would meet this part; `None` if no grant can.
    fn smallest(&self) -> Option<Vec<String>> {
        match self.lacking {
            None => Some(Vec::new()),
            Some(Lacking::NoGrant) => None,
            Some(Lacking::Grant) => Some(vec![match &self.detail {
                Some(detail) => format!("{} ({detail})", self.label),
                None => self.label.clone(),
            }]),
            Some(Lacking::Any) => self.children.iter().filter_map(Self::smallest).min_by_key(Vec::len),
            Some(Lacking::All) => {
                let parts: Option<Vec<Vec<String>>> = self.children.iter().map(Self::smallest).collect();
                let mut all: Vec<String> = Vec::new();
                for part in parts?.concat() {
                    if !all.contains(&part) {
                        all.push(part);
                    }
                }
                Some(all)
            }
        }
    }
}

/// The witness that remembers.
struct Recorder<'a> {
    roles: &'a RoleTable,
    service: &'a str,
    route: &'a Route,
    grants: &'a Grants,
    /// Without a token nothing that is asked of a subject holds.
    anonymous: bool,
    /// Parts entered and not yet left.
    open: Vec<Node>,
    root: Option<Node>,
}

impl Witness for Recorder<'_> {
    const SEES_ALL: bool = true;

    fn enter(&mut self, part: &Formula) {
        let label = self.label(part);
        let detail = self.detail(part);
        let lacking = match part {
            Formula::Permission(_) | Formula::Role(_) | Formula::Membership(..) => Lacking::Grant,
            Formula::Any(_) => Lacking::Any,
            Formula::All(_) => Lacking::All,
            Formula::Public | Formula::Authenticated | Formula::Deny | Formula::Owner(_) | Formula::Client(_) => {
                Lacking::NoGrant
            }
        };
        self.open.push(Node { label, holds: false, detail, children: Vec::new(), lacking: Some(lacking) });
    }

    fn leave(&mut self, holds: bool) {
        let Some(mut node) = self.open.pop() else { return };
        node.holds = holds && !self.anonymous;
        if node.holds {
            node.lacking = None;
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => self.root = Some(node),
        }
    }
}

impl Recorder<'_> {
    fn label(&self, part: &Formula) -> String {
        match part {
            Formula::Public => "public".into(),
            Formula::Deny => "deny".into(),
            Formula::Authenticated => "a valid token".into(),
            Formula::Permission(id) => self.roles.permission_code(*id).to_string(),
            Formula::Any(_) => "any of".into(),
            Formula::All(_) => "all of".into(),
            Formula::Role(id) => format!("role {}", self.roles.role_key(*id)),
            Formula::Membership(service, rank) => {
                let tier = self.roles.tiers(*service).nth(*rank as usize).map(ToString::to_string);
                format!("membership {} >= {}", self.roles.service_name(*service), tier.unwrap_or_default())
            }
            Formula::Owner(place) => format!("owner: the subject is {}", self.place(place)),
            Formula::Client(networks) => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                format!("client in {}", networks.join(", "))
            }
        }
    }

    fn place(&self, place: &OwnerPlace) -> String {
        let segment = |number: u16| self.route.pattern.split('/').nth(usize::from(number) + 1).unwrap_or_default();
        match place {
            OwnerPlace::Segment(number) | OwnerPlace::Rest(number) => segment(*number).to_owned(),
            OwnerPlace::Mixed(place) => {
                let (number, part, mixed) = &**place;
                let name = mixed.parts.get(usize::from(*part)).map_or("", |(name, _)| name);
                format!("{{{name}}} of {}", segment(*number))
            }
        }
    }

    /// Through what a permission is held, or which roles hold it.
    fn detail(&self, part: &Formula) -> Option<String> {
        let Formula::Permission(permission) = part else { return None };
        if !self.anonymous && self.grants.has(*permission) {
            return self.held_through(*permission).map(|through| format!("through {through}"));
        }
        let service = self.roles.service(self.service);
        let roles = self.roles.roles_holding(*permission, service);
        let keys: Vec<&str> = roles.iter().map(|role| self.roles.role_key(*role).as_str()).collect();
        Some(match keys[..] {
            [] => "no role holds it".into(),
            [ref some @ .., last] if some.len() < 5 => {
                let some = some.iter().map(|key| format!("{key}, ")).collect::<String>();
                format!("held by {some}{last}")
            }
            _ => format!("held by {} and {} more", keys[..4].join(", "), keys.len() - 4),
        })
    }

    fn held_through(&self, permission: PermissionId) -> Option<String> {
        let service = self.roles.service(self.service);
        let role =
            self.grants.roles().iter().find(|key| {
                self.roles.role(key.as_str()).is_some_and(|id| self.roles.role_holds(id, permission, service))
            });
        if let Some(role) = role {
            return Some(role.to_string());
        }
        self.grants.memberships().iter().find_map(|membership| {
            let service = self.roles.service(membership.service.as_str())?;
            let rank = self.roles.tier_rank(service, membership.tier.as_str())?;
            let holds = self.roles.tier_holds(service, rank, permission);
            holds.then(|| format!("{}={}", membership.service, membership.tier))
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::policy::testing::{CLIENT, NOW, ask as decide, snapshot, word};

    const PATHS: &str = "\
paths:
  /orders/{id}:
    get: order:view
    put: { any: [order:delete, { all: [order:view, order:edit, { owner: id }] }] }
    delete: { all: [order:edit, order:delete] }
  /reports/{rest...}: { '*': { membership: oms >= PREMIUM } }
  /mine/{id}: { get: { owner: id } }
";

    fn explained(who: Option<(&str, &[&str])>, method: &str, target: &str) -> Explanation {
        let snapshot = snapshot(PATHS);
        let roles: Vec<RoleKey> =
            who.iter().flat_map(|(_, roles)| roles.iter()).map(|key| RoleKey::parse(key).unwrap()).collect();
        let subject = who.map(|(subject, _)| subject);
        let who = match subject {
            None => Who::Anonymous,
            Some(subject) => Who::Subject { subject, roles: &roles, memberships: &[] },
        };
        let explanation = explain(&snapshot, &Ask { method, target, host: None, client: CLIENT, who, now: NOW });
        // Explaining never decides otherwise than deciding.
        let words = subject.map_or("-".to_owned(), |subject| {
            roles.iter().fold(subject.to_owned(), |words, role| format!("{words} {role}"))
        });
        let decision = decide(&snapshot, &words, method, target, None);
        assert_eq!(explanation.reason().map_or("allow", Reason::code), word(&decision));
        explanation
    }

    #[test]
    fn an_allowed_request_names_the_role_that_opened_it() {
        insta::assert_snapshot!(explained(Some(("u", &["ROLE_EDITOR"])), "HEAD", "/orders/7").to_text());
    }

    #[test]
    fn a_denied_request_names_the_smallest_grant_that_would_open_it() {
        let explanation = explained(Some(("u", &["ROLE_VIEWER"])), "PUT", "/orders/7");
        assert!(matches!(&explanation.mend, Some(Mend::Grant(parts)) if parts.len() == 1));
        insta::assert_snapshot!(explanation.to_text());
        let both = explained(Some(("u", &[])), "DELETE", "/orders/7");
        assert!(matches!(&both.mend, Some(Mend::Grant(parts)) if parts.len() == 2));
        let none = explained(Some(("u", &[])), "GET", "/mine/7");
        assert_eq!(none.mend, Some(Mend::NotByGrant));
        let tier = explained(Some(("u", &[])), "POST", "/reports/7");
        assert_eq!(tier.mend, Some(Mend::Grant(vec!["membership oms >= PREMIUM".into()])));
    }

    #[test]
    fn without_a_token_nothing_holds_and_a_token_is_the_mend() {
        let explanation = explained(None, "PUT", "/orders/7");
        assert_eq!(
            (explanation.mend.as_ref(), explanation.tree.as_ref().map(|tree| tree.holds)),
            (Some(&Mend::Token), Some(false))
        );
        assert!(explained(None, "GET", "/nowhere").tree.is_none());
    }

    #[test]
    fn the_json_has_the_promised_members() {
        let json = explained(Some(("u", &["ROLE_VIEWER"])), "PUT", "/orders/7").to_json();
        assert_eq!(json["decision"], "deny");
        assert_eq!(json["reason"], "permission_missing");
        assert_eq!(json["route"], "/orders/{id}");
        assert_eq!(json["file"], "0.yaml");
        assert_eq!(json["tree"]["children"][1]["children"][0]["holds"], true);
    }
}
