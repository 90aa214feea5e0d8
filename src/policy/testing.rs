//! Policies for the tests of this room: written as text, compiled as the program compiles them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::decide::{Begin, Caller, Decision};
use super::{CompileInput, Diagnostics, PolicyFile, Snapshot, SourceText, compile};
use crate::clock::Timestamp;
use crate::rbac::{Membership, RoleKey, RoleTable};
use crate::reason::Reason;
use crate::request::{Host, RequestFacts};

pub(super) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(super) const NOW: Timestamp = Timestamp(1_800_000_000);

const ROLES: &str = "\
version: 1
permissions:
  oms: [order:view, order:view-all, order:edit, order:delete, order:unheld, report:run]
roles:
  ROLE_VIEWER: { permissions: ['order:view'] }
  ROLE_EDITOR: { parent: ROLE_VIEWER, permissions: ['order:edit'] }
  ROLE_ADMIN: { permissions: ['*'] }
  ROLE_SHOP: { scope: oms, permissions: ['order:view-all'] }
tiers:
  oms:
    - { key: FREE, permissions: [] }
    - { key: PREMIUM, permissions: ['report:run'] }
";

pub(super) fn roles() -> Arc<RoleTable> {
    let source = Arc::new(SourceText {
        name: "roles.yaml".into(),
        text: ROLES.replace("['*']", "['order:view', 'order:edit', 'order:delete', 'order:view-all', 'report:run']"),
    });
    let (roles, found) = super::roles_file::parse(source);
    assert!(!found.has_errors(), "{}", found.render(false));
    Arc::new(roles.unwrap().1)
}

pub(super) fn compile_texts(texts: &[(&str, &str)], report: bool) -> (Option<Snapshot>, Diagnostics) {
    let mut files = Vec::new();
    for (name, text) in texts {
        let (file, found) = PolicyFile::parse(Arc::new(SourceText { name: (*name).into(), text: (*text).into() }));
        assert!(!found.has_errors(), "{}", found.render(false));
        files.push(file.unwrap());
    }
    let upstreams = ["oms", "doorward-identity", "doorward-admin"].map(str::to_owned).into();
    compile(&CompileInput { files: &files, roles: roles(), upstreams: Some(&upstreams), report })
}

/// A snapshot of these policy files.
pub(super) fn snapshot_of(texts: &[&str], report: bool) -> Snapshot {
    let named: Vec<(String, &str)> = texts.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), *text)).collect();
    let named: Vec<(&str, &str)> = named.iter().map(|(name, text)| (&**name, *text)).collect();
    match compile_texts(&named, report) {
        (Some(snapshot), _) => snapshot,
        (None, found) => panic!("{}", found.render(false)),
    }
}

/// A snapshot of one file with these lines below its head.
pub(super) fn snapshot(lines: &str) -> Snapshot {
    snapshot_of(&[&format!("version: 1\nservice: oms\nupstream: oms\n{lines}")], false)
}

/// Who asks, in a few words: `-` for nobody, else `subject role… service=TIER…`.
pub(super) fn ask<'r>(
    snapshot: &Snapshot,
    who: &str,
    method: &'r str,
    target: &'r str,
    host: Option<&'r Host>,
) -> Decision<'r> {
    let facts = RequestFacts { method, host, target, client: CLIENT };
    let pending = match snapshot.begin(&facts, NOW) {
        Begin::Decided(decision) => return decision,
        Begin::NeedsCaller(pending) => pending,
    };
    if who == "-" {
        return pending.without_caller(Reason::MissingToken, "".into());
    }
    let mut words = who.split(' ');
    let subject = words.next().unwrap();
    let (memberships, roles): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
    let roles: Vec<RoleKey> = roles.iter().map(|key| RoleKey::parse(key).unwrap()).collect();
    let memberships: Vec<Membership> = memberships
        .iter()
        .map(|word| word.split_once('=').unwrap())
        .map(|(service, tier)| Membership {
            service: crate::rbac::ServiceName::parse(service).unwrap(),
            tier: crate::rbac::TierKey::parse(tier).unwrap(),
        })
        .collect();
    let grants = snapshot.roles().resolve_for_policy(pending.service(), &roles, &memberships);
    pending.with_caller(&Caller { subject, grants: &grants })
}

/// The outcome as a word: `allow`, a reason, or `report:` and the reason.
pub(super) fn outcome(snapshot: &Snapshot, who: &str, request: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    word(&ask(snapshot, who, method, target, None))
}

pub(super) fn word(decision: &Decision<'_>) -> String {
    match (decision.outcome, decision.would_deny) {
        (super::Outcome::Deny(reason), _) => reason.code().to_owned(),
        (super::Outcome::Allow, Some(reason)) => format!("report:{}", reason.code()),
        (super::Outcome::Allow, None) => "allow".to_owned(),
    }
}
