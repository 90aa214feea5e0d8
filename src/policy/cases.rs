//! `*.test.yaml`: cases for `policy test`, with coverage of routes and branches (SPEC 10).
//!
//! ```yaml
//! policy: oms.yaml          # optional: the file that is tested, relative to this one
//! host: oms.example.com     # optional: the host of every request; else the first of the policy's `hosts`
//! cases:
//!   - { as: anonymous, request: GET /api/v1/schema, expect: missing_token }
//!   - { as: role:ROLE_USER, request: GET /api/v1/schema, expect: allow }
//!   - name: the owner sees the orders
//!     as: { sub: u1, roles: [ROLE_USER], memberships: { oms: FREE } }
//!     request: GET /api/v1/users/u1/orders
//!     expect: allow
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::decide::Outcome;
use super::diagnostic::Diagnostics;
use super::explain::{Ask, Explanation, Node, Who, explain};
use super::snapshot::{RouteId, Snapshot};
use super::source::{SourceText, Span, Spanned, UNSPECIFIED_CLIENT};
use super::yaml::{self, Kind, Node as Tree, Reader, nearest};
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey, ServiceName, TierKey};
use crate::reason::Reason;
use crate::request::Host;

/// A file of cases, as written.
#[derive(Debug)]
pub struct CaseFile {
    /// Name and text.
    pub source: Arc<SourceText>,
    /// `policy:` the file that is tested, relative to this one.
    pub policy: Option<Spanned<String>>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Its name, or the request and who sends it.
    pub name: String,
    /// Its place.
    pub span: Span,
    /// Who asks.
    pub who: CaseWho,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The host, of the case or of the file.
    pub host: Option<Host>,
    /// The client's address.
    pub client: IpAddr,
    /// What has to come out.
    pub expect: Expect,
}

/// Who sends the request of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaseWho {
    /// `anonymous`
    Anonymous,
    /// `role:KEY` or `{sub, roles, memberships}`
    Subject {
        /// The subject id.
        subject: String,
        /// The roles.
        roles: Vec<RoleKey>,
        /// The memberships.
        memberships: Vec<Membership>,
    },
}

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// `allow`
    Allow,
    /// `deny`, for whatever reason.
    Deny,
    /// A denial for this reason.
    Reason(Reason),
}

/// The subject of `role:KEY`.
const SOMEBODY: &str = "somebody";

/// What came of a file of cases.
#[derive(Debug)]
pub struct CaseReport<'c> {
    /// Each case with its explanation, in order.
    pub results: Vec<CaseResult<'c>>,
    /// Coverage of routes and branches.
    pub coverage: Coverage,
}

/// What came of one case.
#[derive(Debug)]
pub struct CaseResult<'c> {
    /// The case.
    pub case: &'c Case,
    /// Whether it came out as expected.
    pub passed: bool,
    /// What came out, and why.
    pub explanation: Explanation,
}

/// What the cases reached. A route is covered when one case was allowed by it and another denied; for `public`
/// and `deny` one is enough. A branch is a part of a requirement, which should be seen met and unmet.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Number of routes.
    pub routes: usize,
    /// Routes seen from every side.
    pub routes_covered: usize,
    /// Number of branches, each counted met and unmet.
    pub branches: usize,
    /// Those that were seen.
    pub branches_covered: usize,
    /// What no case reached, for people: `PUT /x: never allowed`.
    pub missing: Vec<String>,
}

impl CaseFile {
    /// Reads a file of cases; every fault at once.
    #[must_use]
    pub fn parse(source: Arc<SourceText>) -> (Option<Self>, Diagnostics) {
        let mut found = Diagnostics::default();
        let tree = yaml::parse(&source, &mut found);
        let mut reader = Reader { source: &source, out: &mut found };
        let Some(tree) = tree.filter(|tree| !tree.is_nothing()) else {
            if !reader.out.has_errors() {
                let help = "A file of cases begins with `policy: FILE` and `cases:`.";
                reader.error(Span::default(), "empty-file", "the file is empty", help);
            }
            return (None, found);
        };
        let parts = read_file(&mut reader, &tree);
        found.sort();
        (parts.map(|(policy, cases)| Self { source, policy, cases }), found)
    }

    /// Runs every case against a snapshot. `now` is for `report_only` dates; a case that report mode lets
    /// through is judged by what would have been enforced.
    #[must_use]
    pub fn run<'c>(&'c self, snapshot: &Snapshot, now: Timestamp) -> CaseReport<'c> {
        let mut seen = Seen::default();
        let unnamed = snapshot.unnamed_host();
        let results = self
            .cases
            .iter()
            .map(|case| {
                let ask = case.ask(now, unnamed.as_ref());
                let explanation = explain(snapshot, &ask);
                seen.note(&explanation);
                let passed = match (case.expect, explanation.reason()) {
                    (Expect::Allow, reason) => reason.is_none(),
                    (Expect::Deny, reason) => reason.is_some(),
                    (Expect::Reason(expected), reason) => reason == Some(expected),
                };
                CaseResult { case, passed, explanation }
            })
            .collect();
        CaseReport { results, coverage: seen.coverage(snapshot) }
    }
}

impl Case {
    fn ask<'a>(&'a self, now: Timestamp, unnamed: Option<&'a Host>) -> Ask<'a> {
        let who = match &self.who {
            CaseWho::Anonymous => Who::Anonymous,
            CaseWho::Subject { subject, roles, memberships } => Who::Subject { subject, roles, memberships },
        };
        let host = self.host.as_ref().or(unnamed);
        Ask { method: &self.method, target: &self.target, host, client: self.client, who, now }
    }
}

impl Expect {
    fn text(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reason(reason) => reason.code(),
        }
    }
}

impl CaseReport<'_> {
    /// Whether every case came out as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.results.iter().all(|result| result.passed)
    }

    /// A table of what failed, each with its explanation, and the coverage.
    #[must_use]
    pub fn to_text(&self, source: &SourceText) -> String {
        let mut text = String::new();
        for result in self.results.iter().filter(|result| !result.passed) {
            let (line, _) = source.line_column(result.case.span.start);
            let came = result.explanation.reason().map_or("allow", Reason::code);
            let expected = result.case.expect.text();
            let _ = writeln!(text, "FAILED  {}:{line}  {}", source.name, result.case.name);
            let _ = writeln!(text, "  expected {expected}, got {came}");
            for line in result.explanation.to_text().lines() {
                let _ = writeln!(text, "  | {line}");
            }
        }
        let failed = self.results.iter().filter(|result| !result.passed).count();
        let _ = writeln!(text, "{} cases passed, {failed} failed", self.results.len() - failed);
        let coverage = &self.coverage;
        let _ = writeln!(
            text,
            "coverage: {} of {} routes, {} of {} branches",
            coverage.routes_covered, coverage.routes, coverage.branches_covered, coverage.branches
        );
        for missing in &coverage.missing {
            let _ = writeln!(text, "  {missing}");
        }
        text
    }

    /// `{ok, passed, failed, failures, coverage}`.
    #[must_use]
    pub fn to_json(&self, source: &SourceText) -> serde_json::Value {
        let failures = self.results.iter().filter(|result| !result.passed).map(|result| {
            serde_json::json!({
                "file": source.name,
                "line": source.line_column(result.case.span.start).0,
                "name": result.case.name,
                "expected": result.case.expect.text(),
                "got": result.explanation.reason().map_or("allow", Reason::code),
                "explanation": result.explanation.to_json(),
            })
        });
        let failures: Vec<serde_json::Value> = failures.collect();
        serde_json::json!({
            "ok": failures.is_empty(),
            "passed": self.results.len() - failures.len(),
            "failed": failures.len(),
            "failures": failures,
            "coverage": {
                "routes": self.coverage.routes,
                "routes_covered": self.coverage.routes_covered,
                "branches": self.coverage.branches,
                "branches_covered": self.coverage.branches_covered,
                "missing": self.coverage.missing,
            },
        })
    }
}

/// What the cases have reached so far: routes, and places within their requirements, each with its answers.
#[derive(Default)]
struct Seen {
    routes: BTreeSet<(RouteId, bool)>,
    branches: BTreeSet<(RouteId, Vec<usize>, bool)>,
}

impl Seen {
    fn note(&mut self, explanation: &Explanation) {
        let Some(route) = &explanation.route else { return };
        let allowed = explanation.outcome == Outcome::Allow && explanation.would_deny.is_none();
        self.routes.insert((route.id, allowed));
        // Without a token every part is unmet, which says nothing about the parts.
        if let Some(tree) = explanation.tree.as_ref().filter(|_| explanation.reason() != Some(Reason::MissingToken)) {
            self.branch(route.id, tree, &mut Vec::new());
        }
    }

    fn branch(&mut self, route: RouteId, node: &Node, way: &mut Vec<usize>) {
        self.branches.insert((route, way.clone(), node.holds));
        for (number, child) in node.children.iter().enumerate() {
            way.push(number);
            self.branch(route, child, way);
            way.pop();
        }
    }

    fn coverage(&self, snapshot: &Snapshot) -> Coverage {
        let mut coverage = Coverage::default();
        for (route, number) in snapshot.routes().iter().zip(0_u32..) {
            coverage.routes += 1;
            let id = RouteId(number);
            let seen = |allowed| self.routes.contains(&(id, allowed));
            let (needs_allow, needs_deny) = match &*route.requirement {
                "public" => (true, false),
                "deny" => (false, true),
                _ => (true, true),
            };
            let mut gaps = Vec::new();
            if needs_allow && !seen(true) {
                gaps.push("never allowed");
            }
            if needs_deny && !seen(false) {
                gaps.push("never denied");
            }
            if gaps.is_empty() {
                coverage.routes_covered += 1;
            } else {
                coverage.missing.push(format!("{} {}: {}", route.method, route.pattern, gaps.join(", ")));
            }
            for (way, label) in snapshot.branches(id) {
                for (holds, word) in [(true, "met"), (false, "unmet")] {
                    // A valid token is always had where branches are looked at.
                    if label == "authenticated" && !holds {
                        continue;
                    }
                    coverage.branches += 1;
                    if self.branches.contains(&(id, way.clone(), holds)) {
                        coverage.branches_covered += 1;
                    } else if gaps.is_empty() {
                        coverage.missing.push(format!("{} {}: {label} never {word}", route.method, route.pattern));
                    }
                }
            }
        }
        coverage
    }
}

type FileParts = (Option<Spanned<String>>, Vec<Case>);

fn read_file(reader: &mut Reader<'_>, tree: &Tree) -> Option<FileParts> {
    if let Kind::List(items) = &tree.kind {
        // Nothing but the cases.
        return Some((None, items.iter().filter_map(|item| read_case(reader, item, None)).collect()));
    }
    let entries = reader.map(tree, "a file of cases", "`cases:` and a list below it")?;
    let (mut policy, mut host, mut cases) = (None, None, None);
    for entry in entries {
        match entry.key.value.as_str() {
            "policy" => {
                let text = reader.text(&entry.value, "`policy`", "the name of a policy file, such as `oms.yaml`");
                policy = text.map(|text| Spanned { value: text.to_owned(), span: entry.value.span });
            }
            "host" => host = read_host(reader, &entry.value),
            "cases" => cases = Some(&entry.value),
            _ => reader.unknown_key(entry, "a file of cases", &["policy", "host", "cases"]),
        }
    }
    let Some(cases) = cases else {
        reader.error(tree.span, "missing-key", "a file of cases without `cases`", "Add `cases:` and a list below it.");
        return None;
    };
    let example = "a list, such as `- {as: anonymous, request: GET /health, expect: allow}`";
    let items = reader.list(cases, "`cases`", example)?;
    let cases = items.iter().filter_map(|item| read_case(reader, item, host.as_ref())).collect();
    Some((policy, cases))
}

fn read_host(reader: &mut Reader<'_>, node: &Tree) -> Option<Host> {
    let text = reader.text(node, "`host`", "a host, such as `oms.example.com`")?;
    match Host::parse(text.as_bytes()) {
        Ok(host) => Some(host),
        Err(error) => {
            reader.error(
                node.span,
                "bad-host",
                format!("`{text}` is no host: {}", error.detail),
                "Write a host such as `oms.example.com`.",
            );
            None
        }
    }
}

fn read_case(reader: &mut Reader<'_>, node: &Tree, file_host: Option<&Host>) -> Option<Case> {
    const KEYS: [&str; 6] = ["name", "as", "request", "expect", "host", "client"];
    let entries = reader.map(node, "a case", "`{as: anonymous, request: GET /health, expect: allow}`")?;
    let (mut name, mut who, mut request, mut expect, mut host) = (None, None, None, None, file_host.cloned());
    let mut client = UNSPECIFIED_CLIENT;
    for entry in entries {
        let value = &entry.value;
        match entry.key.value.as_str() {
            "name" => name = reader.text(value, "`name`", "a few words").map(str::to_owned),
            "as" => who = Some(read_who(reader, value)),
            "request" => request = Some(read_request(reader, value)),
            "expect" => expect = Some(read_expect(reader, value)),
            "host" => host = read_host(reader, value),
            "client" => {
                let text = reader.text(value, "`client`", "an address, such as `192.0.2.1`");
                match text.map(str::parse) {
                    Some(Ok(address)) => client = address,
                    Some(Err(_)) => {
                        reader.error(
                            value.span,
                            "bad-address",
                            "no address of a client",
                            "Write an address such as `192.0.2.1`.",
                        );
                    }
                    None => {}
                }
            }
            _ => reader.unknown_key(entry, "a case", &KEYS),
        }
    }
    for (key, missing) in [("as", who.is_none()), ("request", request.is_none()), ("expect", expect.is_none())] {
        if missing {
            reader.error(node.span, "missing-key", format!("a case without `{key}`"), format!("Add `{key}:`."));
        }
    }
    let (who, (method, target), expect) = (who??, request??, expect??);
    let name = name.unwrap_or_else(|| format!("{method} {target} as {}", who.text()));
    Some(Case { name, span: node.span, who, method, target, host, client, expect })
}

impl CaseWho {
    fn text(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".into(),
            Self::Subject { subject, roles, .. } => {
                let roles: Vec<&str> = roles.iter().map(RoleKey::as_str).collect();
                format!("{subject} [{}]", roles.join(", "))
            }
        }
    }
}

fn read_who(reader: &mut Reader<'_>, node: &Tree) -> Option<CaseWho> {
    let help = "Write `anonymous`, `role:ROLE_USER` or `{sub: u1, roles: [ROLE_USER], memberships: {oms: FREE}}`.";
    match &node.kind {
        // The reader has already said why it refused the text.
        Kind::Refused => None,
        Kind::Scalar { text, .. } if text == "anonymous" => Some(CaseWho::Anonymous),
        Kind::Scalar { text, .. } => match text.strip_prefix("role:").map(|key| RoleKey::parse(key.trim())) {
            Some(Ok(role)) => {
                Some(CaseWho::Subject { subject: SOMEBODY.into(), roles: vec![role], memberships: Vec::new() })
            }
            Some(Err(error)) => {
                reader.error(node.span, "bad-role", error.to_string(), help);
                None
            }
            None => {
                reader.error(node.span, "bad-caller", format!("`{text}` is nobody"), help);
                None
            }
        },
        Kind::Map(entries) => {
            let (mut subject, mut roles, mut memberships) = (SOMEBODY.to_owned(), Vec::new(), Vec::new());
            for entry in entries {
                match entry.key.value.as_str() {
                    "sub" => subject = reader.text(&entry.value, "`sub`", "a subject id")?.to_owned(),
                    "roles" => roles = read_roles(reader, &entry.value)?,
                    "memberships" => memberships = read_memberships(reader, &entry.value)?,
                    _ => reader.unknown_key(entry, "`as`", &["sub", "roles", "memberships"]),
                }
            }
            Some(CaseWho::Subject { subject, roles, memberships })
        }
        Kind::List(_) => {
            reader.error(node.span, "bad-caller", "a list is nobody", help);
            None
        }
    }
}

fn read_roles(reader: &mut Reader<'_>, node: &Tree) -> Option<Vec<RoleKey>> {
    let items = reader.list(node, "`roles`", "a list such as `[ROLE_USER]`")?;
    let mut roles = Vec::new();
    for item in items {
        let text = reader.text(item, "a role", "a key such as `ROLE_USER`")?;
        match RoleKey::parse(text) {
            Ok(role) => roles.push(role),
            Err(error) => reader.error(item.span, "bad-role", error.to_string(), "Write a key such as `ROLE_USER`."),
        }
    }
    Some(roles)
}

fn read_memberships(reader: &mut Reader<'_>, node: &Tree) -> Option<Vec<Membership>> {
    let entries = reader.map(node, "`memberships`", "`{oms: FREE}`")?;
    let mut memberships = Vec::new();
    for entry in entries {
        let tier = reader.text(&entry.value, "a tier", "a key such as `FREE`")?;
        match (ServiceName::parse(&entry.key.value), TierKey::parse(tier)) {
            (Ok(service), Ok(tier)) => memberships.push(Membership { service, tier }),
            (Err(error), _) => reader.error(entry.key.span, "bad-service", error.to_string(), "Write `service: TIER`."),
            (_, Err(error)) => reader.error(entry.value.span, "bad-tier", error.to_string(), "Write `service: TIER`."),
        }
    }
    Some(memberships)
}

fn read_request(reader: &mut Reader<'_>, node: &Tree) -> Option<(String, String)> {
    let text = reader.text(node, "`request`", "a method and a path, such as `GET /health`")?;
    match text.split_once(' ') {
        Some((method, target)) if !method.is_empty() && target.starts_with('/') => {
            Some((method.to_owned(), target.to_owned()))
        }
        _ => {
            let message = format!("`{text}` is no request");
            reader.error(node.span, "bad-request", message, "Write a method and a path, such as `GET /health`.");
            None
        }
    }
}

fn read_expect(reader: &mut Reader<'_>, node: &Tree) -> Option<Expect> {
    let text = reader.text(node, "`expect`", "`allow`, `deny` or a reason")?;
    match (text, Reason::from_code(text)) {
        ("allow", _) => Some(Expect::Allow),
        ("deny", _) => Some(Expect::Deny),
        (_, Some(reason)) => Some(Expect::Reason(reason)),
        _ => {
            let mut known = vec!["allow", "deny"];
            known.extend(Reason::ALL.iter().map(|reason| reason.code()));
            let help = match nearest(text, &known) {
                Some(word) => format!("Did you mean `{word}`?"),
                None => "Write `allow`, `deny` or a reason such as `permission_missing`.".to_owned(),
            };
            reader.error(node.span, "bad-expectation", format!("`{text}` is no outcome"), help);
            None
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::policy::testing::{NOW, snapshot};

    fn parse(text: &str) -> (Option<CaseFile>, Diagnostics) {
        CaseFile::parse(Arc::new(SourceText { name: "oms.test.yaml".into(), text: text.into() }))
    }

    #[test]
    fn cases_run_and_failures_come_with_their_explanation() {
        let snapshot = snapshot(
            "paths:\n  /health: { get: public }\n  /orders/{id}: { get: { any: [order:view, { owner: id }] }, put: order:edit }\n",
        );
        let (file, found) = parse(
            "policy: oms.yaml\ncases:\n  - { as: anonymous, request: GET /health, expect: allow }\n  - { as: anonymous, request: GET /orders/1, expect: missing_token }\n  - { as: 'role:ROLE_VIEWER', request: GET /orders/1, expect: allow }\n  - name: the owner\n    as: { sub: u1, roles: [], memberships: { oms: FREE } }\n    request: GET /orders/u1\n    expect: deny\n  - { as: { sub: u2 }, request: GET /orders/u1, expect: permission_missing }\n",
        );
        assert!(found.0.is_empty(), "{}", found.render(false));
        let file = file.unwrap();
        assert_eq!(file.policy.as_ref().map(|policy| policy.value.as_str()), Some("oms.yaml"));
        let report = file.run(&snapshot, NOW);
        assert!(!report.passed());
        let coverage = &report.coverage;
        assert_eq!((coverage.routes, coverage.routes_covered), (3, 2));
        // `any` and its two parts met and unmet, and neither of `order:edit`.
        assert_eq!((coverage.branches, coverage.branches_covered), (8, 6));
        insta::assert_snapshot!(report.to_text(&file.source));
        assert_eq!(report.to_json(&file.source)["failed"], 1);
    }

    #[test]
    fn a_case_without_a_host_asks_about_the_hosts_of_the_policy() {
        let cases = "- { as: anonymous, request: GET /x, expect: allow }\n";
        for hosts in ["[oms.example.com]", "['*.example.com']", "['*.example.com', a.example.com]"] {
            let snapshot = snapshot(&format!("hosts: {hosts}\npaths:\n  /x: {{ get: public }}\n"));
            let (file, found) = parse(cases);
            assert!(found.0.is_empty(), "{}", found.render(false));
            let file = file.unwrap();
            assert!(file.run(&snapshot, NOW).passed(), "{hosts}");
            let (file, _) = parse(&format!("host: other.test\ncases:\n  {cases}"));
            assert!(!file.unwrap().run(&snapshot, NOW).passed(), "a host that is named is asked about");
        }
    }

    #[test]
    fn every_fault_of_a_file_of_cases_is_named() {
        let (_, found) = parse(
            "polcy: oms.yaml\ncases:\n  - { as: nobody, request: GET /, expect: alow }\n  - { as: role:viewer, request: /x, expect: allow }\n  - { request: GET /x, expect: forbidden }\n",
        );
        insta::assert_snapshot!(found.render(false));
        assert!(parse("cases: 7").1.has_errors() && parse("{}").1.has_errors());
        for empty in ["", "# only a comment\n", "---\n"] {
            let found = parse(empty).1.render(false);
            assert!(found.contains("error[empty-file]: the file is empty"), "{empty:?}: {found}");
        }
    }
}
