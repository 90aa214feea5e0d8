//! Overrides and floors as a request meets them: real tokens, a real decision, the headers that the upstream would be given.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::{Admission, Admitted, Changes, Desk, Expiry, Identified, Readmitted, Told, decide_within, identity};
use crate::clock::Timestamp;
use crate::policy::load::{PolicySet, compile_sets};
use crate::policy::{Outcome, Snapshot, SourceText};
use crate::rbac::{Membership, RoleKey, ServiceName, TierKey};
use crate::reason::Reason;
use crate::request::RequestFacts;
use crate::revocation::{Arrival, Freshness, Retention, RevocationIndex};
use crate::telemetry::Metrics;
use crate::token::jwk::{KeySet, Trust};
use crate::token::mint::{MintRequest, mint};
use crate::token::{Algorithm, ClaimPaths, Confers, Issuer, IssuerKeys, RolesFrom, TokenCache, Verifier};

const NOW: Timestamp = Timestamp(1_800_000_000);
/// The number of the change that tests make. Tokens that say less are older.
const CHANGE: u64 = 1_800_000_000_000;

const ROLES: &str = "version: 1
permissions: { oms: ['order:view', 'order:edit'] }
roles:
  ROLE_VIEWER: { permissions: ['order:view'] }
  ROLE_EDITOR: { permissions: ['order:view', 'order:edit'] }
  ROLE_ROOT: { permissions: ['*'] }
tiers: { oms: [{ key: FREE, permissions: [] }, { key: PREMIUM, permissions: ['order:edit'] }] }
";
/// The same, but for what an editor may do.
const POORER: &str = "version: 1
permissions: { oms: ['order:view', 'order:edit'] }
roles:
  ROLE_VIEWER: { permissions: ['order:view'] }
  ROLE_EDITOR: { permissions: ['order:view'] }
  ROLE_ROOT: { permissions: ['*'] }
tiers: { oms: [{ key: FREE, permissions: [] }, { key: PREMIUM, permissions: ['order:edit'] }] }
";
const POLICY: &str = "version: 1
service: oms
upstream: oms
paths:
  /view: { get: 'order:view' }
  /edit: { get: 'order:edit' }
  /open: { get: public }
";

fn snapshot(roles: &str) -> Snapshot {
    let source = |name: &str, text: &str| Arc::new(SourceText { name: name.into(), text: text.into() });
    let policy = [source("oms.yaml", POLICY)];
    let set = PolicySet { sources: &policy, upstreams: None, report: false };
    let [snapshot] = compile_sets(Some(&source("roles.yaml", roles)), [set]).snapshots;
    snapshot.unwrap()
}

fn issuer(name: &str, own: bool) -> Issuer {
    let document = KeySet::generate(Algorithm::EdDSA).unwrap();
    Issuer {
        name: name.into(),
        issuer: Some(format!("https://{name}.example")),
        audience: vec!["oms".into()],
        algorithms: vec![Algorithm::EdDSA],
        keys: IssuerKeys::fixed(KeySet::parse(document.expose(), &[Algorithm::EdDSA], Trust::File).unwrap()),
        claims: ClaimPaths::default(),
        max_lifetime: Duration::from_secs(3600),
        leeway: Duration::from_secs(30),
        own,
        subject_prefix: if own { String::new() } else { format!("{name}:") },
        roles_from: RolesFrom::Token,
        confers: Confers::Any,
        admin: false,
    }
}

/// One doorward, with its own issuer and a foreign one.
struct World {
    own: Issuer,
    foreign: Issuer,
    index: Arc<RevocationIndex>,
    admission: Admission,
    desk: Desk,
    retention: Retention,
}

/// What a request is answered: why it is refused, or the roles and memberships that the upstream is told.
type Answer = Result<(String, String), Reason>;

fn told(roles: &str, memberships: &str) -> Answer {
    Ok((roles.into(), memberships.into()))
}

fn world() -> World {
    world_of(issuer("kc", false))
}

fn world_of(foreign: Issuer) -> World {
    let own = issuer("doorward", true);
    let tokens = Arc::new(TokenCache::new(Verifier::new(vec![own.clone(), foreign.clone()]), 1 << 20));
    let index = Arc::<RevocationIndex>::default();
    let freshness = Arc::new(Freshness::of_own_truth());
    let admission = Admission::new(snapshot(ROLES), tokens, Arc::clone(&index), freshness);
    let mut retention = Retention::new(Duration::from_secs(3600), Duration::from_secs(30));
    retention.overrides_stay = foreign.roles_from == RolesFrom::Doorward;
    World { own, foreign, index, admission, desk: Desk::new(Metrics::new().worker()), retention }
}

impl World {
    /// A token of alice's, issued now unless the test says otherwise.
    fn token(&self, issuer: &Issuer, roles: &[&str], uv: Option<u64>) -> String {
        self.token_of(issuer, roles, uv, NOW)
    }

    /// The foreign issuer's tokens say a membership and a number too, that nobody believes (T7).
    fn token_of(&self, issuer: &Issuer, roles: &[&str], uv: Option<u64>, issued_at: Timestamp) -> String {
        let roles: Vec<_> = roles.iter().map(|role| RoleKey::parse(role).unwrap()).collect();
        let free = Membership { service: ServiceName::parse("oms").unwrap(), tier: TierKey::parse("FREE").unwrap() };
        let request = MintRequest {
            subject: "alice",
            roles: &roles,
            memberships: &[free],
            uv,
            session: Some("s-1"),
            ttl: Duration::from_secs(3600),
            ..MintRequest::default()
        };
        mint(issuer, &request, issued_at).unwrap()
    }

    fn change(&self, number: u64, entry: &serde_json::Value) {
        let arrival = Arrival { number: Some(number), taken: NOW, now: NOW };
        self.index.apply(&serde_json::from_value(entry.clone()).unwrap(), arrival, self.retention);
    }

    fn by_hand(&self, entry: &serde_json::Value) {
        self.index.apply(&serde_json::from_value(entry.clone()).unwrap(), Arrival::by_hand(NOW), self.retention);
    }

    fn admitted(&self, token: &str, target: &str, now: Timestamp) -> (Answer, Option<Identified>) {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let admitted = self.admission.admit(&facts(target), &headers, now, &self.desk).ok().unwrap();
        let caller = admitted.judged().caller.clone();
        let header = |name: &HeaderName| {
            let value = caller.as_ref().and_then(|caller| caller.identity.header(name));
            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let answer = match admitted {
            Admitted::Permit(_) => Ok((header(&identity::USER_ROLES), header(&identity::USER_MEMBERSHIPS))),
            Admitted::Refusal(refusal) => Err(refusal.reason()),
        };
        (answer, caller)
    }

    fn asks(&self, token: &str, target: &str) -> Answer {
        self.asks_at(token, target, NOW)
    }

    fn asks_at(&self, token: &str, target: &str, now: Timestamp) -> Answer {
        self.admitted(token, target, now).0
    }

    fn changes(&self, now: Timestamp) -> Changes {
        self.admission.changes(now)
    }
}

fn facts(target: &str) -> RequestFacts<'_> {
    RequestFacts { method: "GET", host: None, target, client: [127, 0, 0, 1].into() }
}

#[test]
fn t08_a_cached_token_is_judged_anew_with_every_override_and_not_by_its_claims() {
    let world = world();
    let token = world.token(&world.own, &["ROLE_EDITOR"], Some(CHANGE - 1));
    assert_eq!(world.asks(&token, "/edit"), told("ROLE_EDITOR", "oms=FREE"));
    world.change(CHANGE, &json!({"override": "alice", "roles": ["ROLE_VIEWER"]}));
    assert_eq!(world.asks(&token, "/edit"), Err(Reason::PermissionMissing), "its very next request");
    assert_eq!(world.asks(&token, "/view"), told("ROLE_VIEWER", ""));
    assert_eq!(world.asks(&token, "/open"), told("ROLE_VIEWER", ""), "a public route's upstream is told the same");
    world.change(CHANGE + 1, &json!({"override": "alice", "roles": [], "memberships": {"oms": "PREMIUM"}}));
    assert_eq!(world.asks(&token, "/edit"), told("", "oms=PREMIUM"));
    assert_eq!(world.asks(&token, "/view"), Err(Reason::PermissionMissing));
    // Somebody else's is nobody's concern.
    world.change(CHANGE + 2, &json!({"override": "bob", "roles": ["ROLE_ROOT"]}));
    assert_eq!(world.asks(&token, "/edit"), told("", "oms=PREMIUM"));
    // An older one that arrives late changes nothing, and a repeated one neither.
    world.change(CHANGE, &json!({"override": "alice", "roles": ["ROLE_VIEWER"]}));
    world.change(CHANGE + 1, &json!({"override": "alice", "roles": [], "memberships": {"oms": "PREMIUM"}}));
    assert_eq!(world.asks(&token, "/edit"), told("", "oms=PREMIUM"));
    // What was cached under the override is not used once the override is gone: no token below it lives by then.
    let later = NOW.plus(3600 + 2 * 30 + 60);
    let young = world.token_of(&world.own, &["ROLE_EDITOR"], Some(CHANGE - 1), later.plus(-1));
    assert_eq!(world.asks_at(&young, "/edit", later.plus(-1)), told("", "oms=PREMIUM"));
    assert_eq!(world.asks_at(&young, "/edit", later), told("ROLE_EDITOR", "oms=FREE"));
}

#[test]
fn t03_an_override_concerns_the_tokens_whose_claims_are_older() {
    let world = world();
    world.change(CHANGE, &json!({"override": "alice", "roles": ["ROLE_VIEWER"]}));
    let asks = |uv, issued_at| world.asks(&world.token_of(&world.own, &["ROLE_EDITOR"], uv, issued_at), "/view");
    let (overridden, by_claims) = (told("ROLE_VIEWER", ""), told("ROLE_EDITOR", "oms=FREE"));
    assert_eq!(asks(Some(CHANGE - 1), NOW), overridden);
    assert_eq!(asks(Some(CHANGE), NOW.plus(-100)), by_claims, "its time is not looked at");
    assert_eq!(asks(None, NOW), overridden);
    assert_eq!(asks(None, NOW.plus(1)), by_claims);
    world.by_hand(&json!({"override": "alice", "roles": []}));
    assert_eq!(asks(Some(CHANGE - 1), NOW), overridden, "a line of a file is older than what was published");
    assert_eq!(asks(Some(CHANGE), NOW), by_claims);
}

#[test]
fn t14_a_foreign_token_is_overridden_by_its_time_and_leeway() {
    let world = world();
    world.change(CHANGE, &json!({"override": "kc:alice", "roles": ["ROLE_VIEWER"], "memberships": {"oms": "PREMIUM"}}));
    world.change(CHANGE, &json!({"override": "alice", "roles": []}));
    // The number that it claims is as good as none.
    let asks = |ahead| {
        let token = world.token_of(&world.foreign, &["ROLE_EDITOR"], Some(u64::MAX), NOW.plus(ahead));
        world.asks(&token, "/view")
    };
    assert_eq!(asks(0), told("ROLE_VIEWER", "oms=PREMIUM"), "its own subject's, prefix and all");
    assert_eq!(asks(30), told("ROLE_VIEWER", "oms=PREMIUM"));
    let later = world.token_of(&world.foreign, &["ROLE_EDITOR"], Some(u64::MAX), NOW.plus(31));
    assert_eq!(world.asks_at(&later, "/view", NOW.plus(31)), told("ROLE_EDITOR", ""));
}

#[test]
fn t07_an_issuer_that_may_not_confer_it_makes_no_administrator_though_an_override_names_the_role() {
    let entry = |subject| json!({"override": subject, "roles": ["ROLE_ROOT", "ROLE_VIEWER"]});
    let world = world();
    world.change(CHANGE, &entry("kc:alice"));
    world.change(CHANGE, &entry("alice"));
    assert_eq!(world.asks(&world.token(&world.foreign, &[], None), "/view"), told("ROLE_VIEWER", ""));
    assert_eq!(world.asks(&world.token(&world.foreign, &[], None), "/edit"), Err(Reason::PermissionMissing));
    assert_eq!(world.asks(&world.token(&world.own, &[], None), "/edit"), told("ROLE_ROOT,ROLE_VIEWER", ""));
    let trusted = world_of(Issuer { admin: true, ..issuer("kc", false) });
    trusted.change(CHANGE, &entry("kc:alice"));
    assert_eq!(trusted.asks(&trusted.token(&trusted.foreign, &[], None), "/edit"), told("ROLE_ROOT,ROLE_VIEWER", ""));
}

#[test]
fn t13_a_grant_ends_at_its_time_to_the_second_and_open_exchanges_hear_of_it() {
    let world = world();
    let ends = NOW.plus(60);
    world.change(
        CHANGE,
        &json!({
            "override": "alice", "roles": ["ROLE_VIEWER", {"role": "ROLE_EDITOR", "expires_at": ends.0}],
            "memberships": {"oms": {"tier": "PREMIUM", "expires_at": ends.0 + 20}},
        }),
    );
    let token = world.token(&world.own, &["ROLE_ROOT"], Some(1));
    let (answer, caller) = world.admitted(&token, "/edit", NOW);
    assert_eq!(answer, told("ROLE_EDITOR,ROLE_VIEWER", "oms=PREMIUM"));
    assert_eq!(world.asks_at(&token, "/edit", ends.plus(-1)), told("ROLE_EDITOR,ROLE_VIEWER", "oms=PREMIUM"));
    assert_eq!(world.asks_at(&token, "/edit", ends), told("ROLE_VIEWER", "oms=PREMIUM"), "no leeway, no cache");
    // T20: who has something open by it is asked again, and answered no.
    let caller = caller.unwrap();
    let open = |now| {
        let mut none = Told::default();
        match world.admission.readmit(&facts("/edit"), Some(&caller), Expiry::Counts, now, &world.desk, &mut none) {
            Readmitted::GoesOn(_) => Ok(()),
            Readmitted::Ends(reason) => Err(reason),
            Readmitted::Ask(_) | Readmitted::Undecided => unreachable!("nothing is asked elsewhere"),
        }
    };
    let before = world.changes(NOW);
    assert_eq!(world.changes(ends.plus(-1)), before);
    let first = world.changes(ends);
    assert_ne!(first, before, "the role has ended");
    assert_eq!((world.changes(ends.plus(19)), open(ends.plus(19))), (first, Ok(())));
    assert_ne!(world.changes(ends.plus(25)), first, "and the membership");
    assert_eq!(open(ends.plus(25)), Err(Reason::PermissionMissing));
    assert_eq!(world.asks_at(&token, "/view", ends.plus(25)), told("ROLE_VIEWER", ""));
}

#[test]
fn t20_an_open_exchange_is_decided_again_by_the_override() {
    let world = world();
    let token = world.token(&world.own, &["ROLE_EDITOR"], Some(1));
    let caller = world.admitted(&token, "/edit", NOW).1.unwrap();
    let open = || {
        let mut none = Told::default();
        match world.admission.readmit(&facts("/edit"), Some(&caller), Expiry::Lifted, NOW, &world.desk, &mut none) {
            Readmitted::GoesOn(_) => Ok(()),
            Readmitted::Ends(reason) => Err(reason),
            Readmitted::Ask(_) | Readmitted::Undecided => unreachable!("nothing is asked elsewhere"),
        }
    };
    let before = world.changes(NOW);
    assert_eq!(open(), Ok(()));
    world.change(CHANGE, &json!({"override": "alice", "roles": ["ROLE_VIEWER"]}));
    assert_ne!(world.changes(NOW), before);
    assert_eq!(open(), Err(Reason::PermissionMissing));
}

#[test]
fn t09_until_the_role_data_is_here_that_an_override_presumes_only_what_was_held_before_counts() {
    let world = world();
    let (now, then) =
        (snapshot(ROLES).roles().fingerprint().to_owned(), snapshot(POORER).roles().fingerprint().to_owned());
    assert_ne!(now, then);
    let token = |uv| world.token(&world.own, &["ROLE_VIEWER"], Some(uv));
    let (old, newer) = (token(CHANGE - 1), token(CHANGE));
    // An editor may edit no more, says the data that is on its way; so she may be made one.
    let to_editor = json!({
        "override": "alice", "roles": ["ROLE_EDITOR", "ROLE_VIEWER"], "memberships": {"oms": "FREE"}, "needs": then,
    });
    world.change(CHANGE, &to_editor);
    assert_eq!(world.asks(&old, "/edit"), Err(Reason::PermissionMissing), "what was just taken from the role");
    assert_eq!(world.asks(&old, "/view"), told("ROLE_VIEWER", "oms=FREE"), "held before and after");
    // What is taken away is taken at once, whatever data it presumes. Before was what the override before said.
    world.change(CHANGE + 1, &json!({"override": "alice", "roles": ["ROLE_EDITOR"], "needs": then}));
    assert_eq!(world.asks(&old, "/view"), Err(Reason::PermissionMissing));
    assert_eq!(
        world.asks(&newer, "/view"),
        Err(Reason::PermissionMissing),
        "the claims hold the one, the override the other"
    );
    // The data arrives.
    world.admission.publish(snapshot(POORER));
    for token in [&old, &newer] {
        assert_eq!(world.asks(token, "/view"), told("ROLE_EDITOR", ""));
        assert_eq!(world.asks(token, "/edit"), Err(Reason::PermissionMissing));
    }
    // One that presumes what is in force, or nothing, counts at once, and nobody looks behind it.
    world.change(CHANGE + 2, &json!({"override": "alice", "roles": ["ROLE_VIEWER"], "needs": then}));
    assert_eq!(world.asks(&old, "/view"), told("ROLE_VIEWER", ""));
    world.change(CHANGE + 3, &json!({"override": "alice", "roles": ["ROLE_EDITOR"], "needs": now}));
    assert_eq!(world.asks(&old, "/view"), Err(Reason::PermissionMissing), "the data went back, and is not here yet");
    world.admission.publish(snapshot(ROLES));
    assert_eq!(world.asks(&old, "/edit"), told("ROLE_EDITOR", ""));
}

#[test]
fn t09_a_long_row_of_overrides_that_wait_for_their_data_grants_nothing() {
    let world = world();
    let token = world.token(&world.own, &["ROLE_VIEWER"], Some(1));
    for number in 0..15 {
        world.change(CHANGE + number, &json!({"override": "alice", "roles": ["ROLE_VIEWER"], "needs": "another"}));
        assert_eq!(world.asks(&token, "/view"), told("ROLE_VIEWER", ""), "held before and after: {number}");
    }
    for number in 15..40 {
        world.change(CHANGE + number, &json!({"override": "alice", "roles": ["ROLE_VIEWER"], "needs": "another"}));
    }
    assert_eq!(world.asks(&token, "/view"), Err(Reason::PermissionMissing), "what she held before is forgotten");
    world.change(CHANGE + 50, &json!({"override": "alice", "roles": ["ROLE_EDITOR"]}));
    assert_eq!(world.asks(&token, "/edit"), told("ROLE_EDITOR", ""));
}

#[test]
fn t06_the_roles_of_an_issuer_that_leaves_them_to_doorward_are_the_published_ones() {
    let world = world_of(Issuer { roles_from: RolesFrom::Doorward, ..issuer("kc", false) });
    let token = |issued_at| world.token_of(&world.foreign, &["ROLE_EDITOR"], None, issued_at);
    assert_eq!(world.asks(&token(NOW), "/view"), Err(Reason::PermissionMissing), "none published: no roles");
    assert_eq!(world.asks(&token(NOW), "/open"), told("", ""));
    world.change(CHANGE, &json!({"override": "kc:alice", "roles": ["ROLE_VIEWER"]}));
    // For older and newer tokens alike, for as long as nothing else is published.
    let later = NOW.plus(400 * 86_400);
    for now in [NOW, NOW.plus(7200), later] {
        assert_eq!(world.asks_at(&token(now), "/view", now), told("ROLE_VIEWER", ""), "{now:?}");
        (0..16).for_each(|_| assert_eq!(world.index.sweep(now), 0));
    }
    assert_eq!(world.asks_at(&token(later), "/edit", later), Err(Reason::PermissionMissing));
    // She signs in again with a newer token: what was taken stays taken.
    world.change(CHANGE + 1, &json!({"override": "kc:alice", "roles": []}));
    assert_eq!(world.asks_at(&token(later), "/view", later), Err(Reason::PermissionMissing));
    world.change(CHANGE + 2, &json!({"disabled": "kc:alice"}));
    assert_eq!(world.asks_at(&token(later), "/view", later), Err(Reason::SubjectDisabled));
    world.change(CHANGE + 3, &json!({"enabled": "kc:alice"}));
    assert_eq!(world.asks_at(&token(later), "/view", later), Err(Reason::PermissionMissing));
}

#[test]
fn t06_published_roles_outlast_the_role_data_that_they_were_published_with() {
    let then = snapshot(ROLES).roles().fingerprint().to_owned();
    let granted = json!({"override": "kc:alice", "roles": ["ROLE_VIEWER"], "needs": then});
    let world = || world_of(Issuer { roles_from: RolesFrom::Doorward, ..issuer("kc", false) });
    // The file is edited while this process runs.
    let running = world();
    running.change(CHANGE, &granted);
    let token = running.token(&running.foreign, &[], None);
    assert_eq!(running.asks(&token, "/view"), told("ROLE_VIEWER", ""));
    running.admission.publish(snapshot(POORER));
    assert_eq!(running.asks(&token, "/view"), told("ROLE_VIEWER", ""), "later data is here for it too");
    // It is started with the edited file, and does not know which came first until whoever made the override says so.
    let started = world();
    let needs_another = json!({"override": "kc:alice", "roles": ["ROLE_VIEWER"], "needs": "of yesterday"});
    started.change(CHANGE, &needs_another);
    let token = started.token(&started.foreign, &[], None);
    assert_eq!(started.asks(&token, "/view"), Err(Reason::PermissionMissing));
    let in_force = started.admission.snapshot().roles().fingerprint().to_owned();
    assert!(started.index.is_role_data_news(&in_force));
    started.change(CHANGE - 1, &json!({"role_data": in_force}));
    assert_eq!(started.asks(&token, "/view"), Err(Reason::PermissionMissing), "what came before it is no news");
    let before = started.changes(NOW);
    started.change(CHANGE + 1, &json!({"role_data": in_force}));
    assert_eq!(started.asks(&token, "/view"), told("ROLE_VIEWER", ""));
    assert_ne!(started.changes(NOW), before, "T20: what is open is decided again");
    assert!(!started.index.is_role_data_news(&in_force));
}

#[test]
fn t14_a_clock_that_went_back_does_not_free_foreign_tokens_of_an_override() {
    let world = world();
    let token = world.token_of(&world.foreign, &["ROLE_EDITOR"], None, NOW.plus(-100));
    let arrive = |number, taken, entry: serde_json::Value| {
        let arrival = Arrival { number: Some(number), taken, now: NOW };
        world.index.apply(&serde_json::from_value(entry).unwrap(), arrival, world.retention);
    };
    arrive(CHANGE, NOW, json!({"override": "kc:alice", "roles": [], "needs": "another"}));
    assert_eq!(world.asks(&token, "/view"), Err(Reason::PermissionMissing));
    arrive(CHANGE + 1, NOW.plus(-1000), json!({"override": "kc:alice", "roles": ["ROLE_VIEWER"], "needs": "another"}));
    assert_eq!(world.asks(&token, "/edit"), Err(Reason::PermissionMissing));
}

#[test]
fn t36_a_call_that_decides_again_decides_by_the_override() {
    let world = world();
    let token = world.token(&world.own, &["ROLE_EDITOR"], Some(1));
    world.change(CHANGE, &json!({"override": "alice", "roles": ["ROLE_VIEWER"]}));
    let caller = world.admitted(&token, "/view", NOW).1.unwrap();
    let snapshot = world.admission.snapshot();
    let within = |target| decide_within(&snapshot, Some(&caller), &facts(target), "oms", NOW).outcome;
    assert_eq!(within("/view"), Outcome::Allow);
    assert_eq!(within("/edit"), Outcome::Deny(Reason::PermissionMissing));
}

#[test]
fn t03_floors_reach_the_tokens_service_session_and_number() {
    for entry in [json!({"service": "oms"}), json!({"session": "s-1", "floor": true}), json!({"everything": true})] {
        let world = world();
        world.change(CHANGE, &entry);
        let asks = |uv| world.asks(&world.token(&world.own, &["ROLE_VIEWER"], Some(uv)), "/view");
        assert_eq!(asks(CHANGE - 1), Err(Reason::Revoked), "{entry}");
        assert_eq!(asks(CHANGE), told("ROLE_VIEWER", "oms=FREE"), "{entry}");
    }
    let world = world();
    world.change(CHANGE, &json!({"service": "crm"}));
    assert!(world.asks(&world.token(&world.own, &["ROLE_VIEWER"], Some(1)), "/view").is_ok());
}

#[test]
fn a_line_of_a_file_holds_for_every_token_until_something_is_published() {
    let world = world();
    world.by_hand(&json!({"override": "alice", "roles": ["ROLE_EDITOR"]}));
    let newest = world.token(&world.own, &["ROLE_VIEWER"], Some(CHANGE + 9));
    assert_eq!(world.asks(&newest, "/edit"), told("ROLE_EDITOR", ""));
    let much_later = NOW.plus(86_400);
    let token = world.token_of(&world.own, &[], Some(CHANGE + 9), much_later);
    assert_eq!(world.asks_at(&token, "/edit", much_later), told("ROLE_EDITOR", ""));
    world.by_hand(&json!({"override": "alice", "roles": ["ROLE_VIEWER"]}));
    assert_eq!(world.asks(&newest, "/edit"), Err(Reason::PermissionMissing), "of two lines the last");
    world.change(CHANGE, &json!({"override": "alice", "roles": []}));
    assert_eq!(
        world.asks(&newest, "/view"),
        told("ROLE_VIEWER", "oms=FREE"),
        "its claims are newer than what was published"
    );
}
