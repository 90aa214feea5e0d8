//! Open exchanges whose bearer a user service vouched for, while it cannot be asked or their token has expired.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use super::identity::Confirmed;
use super::{Admission, AuthMethod, Desk, Elsewhere, Expiry, Identified, Identity, Question, Readmitted, Told};
use crate::clock::Timestamp;
use crate::delegate::Iam;
use crate::policy::load::{PolicySet, compile_sets};
use crate::policy::{Snapshot, SourceText};
use crate::rbac::PermissionCode;
use crate::reason::Reason;
use crate::request::RequestFacts;
use crate::revocation::{Arrival, Freshness, Retention, RevocationIndex};
use crate::telemetry::Metrics;
use crate::token::vouched::{Unverified, Vouching};
use crate::token::{Confers, Entry, TokenCache, Verifier};

fn snapshot(service: &str, permission: &str) -> Snapshot {
    let source = |name: &str, text: String| Arc::new(SourceText { name: name.into(), text });
    let roles = "version: 1\npermissions: { oms: ['a:b', 'a:c'], shop: ['a:b'] }\nroles: { ROLE_A: { permissions: ['a:b'] } }\n";
    let policy = format!(
        "version: 1\nservice: {service}\nupstream: oms\npaths: {{ /x: {{ get: '{permission}' }}, /open: {{ get: public }} }}\n"
    );
    let policy = [source("oms.yaml", policy)];
    let set = PolicySet { sources: &policy, upstreams: None, report: false };
    let [snapshot] = compile_sets(Some(&source("roles.yaml", roles.into())), [set]).snapshots;
    snapshot.unwrap()
}

/// Waits for an answer.
type Asks = Box<dyn Fn(Question, &mut Told)>;

struct World {
    asks: Asks,
    admission: Admission,
    index: Arc<RevocationIndex>,
    desk: Desk,
    vouching: Vouching,
}

/// A doorward in front of a user service that nobody can ask, since there is no place for a question.
fn world() -> World {
    let vouching = Vouching {
        confers: Confers::Any,
        admin: false,
        verifies_email: false,
        leeway: 30,
        max_lifetime: 3600,
        one_spelling: false,
    };
    let (iam, runtime) = Iam::without_places(vouching.clone());
    let tokens = Arc::new(TokenCache::new(Verifier::new(Vec::new()), 1024));
    let index = Arc::<RevocationIndex>::default();
    let freshness = Arc::new(Freshness::of_own_truth());
    let admission = Admission::new(snapshot("oms", "a:b"), tokens, Arc::clone(&index), freshness)
        .asking(Some(Elsewhere { iam: Some(iam), lookup: None, lenient: false }));
    let asks = Box::new(move |question: Question, told: &mut Told| runtime.block_on(question.answer(told)));
    World { asks, admission, index, desk: Desk::new(Metrics::new().worker()), vouching }
}

impl World {
    /// The caller of an exchange that was admitted by `a:b` of `oms`, with a token that expires at `ends`.
    fn admitted(&self, ends: Timestamp) -> Identified {
        let unverified = Unverified { expires_at: Some(ends), ..Unverified::default() };
        let claims = self.vouching.claims(unverified, br#"{"sub": "alice"}"#).unwrap();
        let entry = Arc::new(Entry::vouched("token", claims));
        let (snapshot, service) = (self.admission.snapshot(), Arc::from("oms"));
        let identity = Identity::of(&entry, snapshot.roles(), &service, None, ends);
        let held = PermissionCode::parse("a:b").unwrap();
        let grants = identity.grants().holding(snapshot.roles().permission("a:b"));
        let asked = Some(Confirmed::new(grants, &service, Box::new([held])));
        Identified { entry, identity, method: AuthMethod::Bearer, asked }
    }

    /// `Ok(true)`: it goes on; `Ok(false)`: it could not be asked.
    fn open(&self, target: &str, caller: &Identified, expiry: Expiry, now: Timestamp) -> Result<bool, Reason> {
        let facts = RequestFacts { method: "GET", host: None, target, client: [127, 0, 0, 1].into() };
        let mut told = Told::default();
        loop {
            match self.admission.readmit(&facts, Some(caller), expiry, now, &self.desk, &mut told) {
                Readmitted::GoesOn(_) => return Ok(true),
                Readmitted::Undecided => return Ok(false),
                Readmitted::Ends(reason) => return Err(reason),
                Readmitted::Ask(question) => (self.asks)(question, &mut told),
            }
        }
    }

    fn revoke(&self, line: &str) {
        let entries = crate::revocation::entry::parse_lines(line).unwrap();
        let retention = Retention::new(Duration::from_secs(3600), Duration::from_secs(30));
        for entry in &entries {
            self.index.apply(entry, Arrival::by_hand(Timestamp::now()), retention);
        }
    }
}

#[test]
fn t20_an_exchange_that_nobody_can_be_asked_about_is_undecided_but_for_what_is_known_here() {
    let world = world();
    let now = Timestamp::now();
    let caller = world.admitted(now.plus(600));
    for expiry in [Expiry::Counts, Expiry::Lifted] {
        for target in ["/x", "/open"] {
            assert_eq!(world.open(target, &caller, expiry, now), Ok(false), "{target}");
        }
    }
    assert_eq!(world.open("/x", &caller, Expiry::Counts, now.plus(600)), Err(Reason::Expired));
    world.revoke("{\"disabled\": \"alice\"}\n");
    for target in ["/x", "/open"] {
        assert_eq!(world.open(target, &caller, Expiry::Counts, now), Err(Reason::SubjectDisabled), "{target}");
    }
}

#[test]
fn t20_what_outlives_its_token_goes_on_by_what_the_service_said_last_and_ends_by_revocation() {
    let world = world();
    let ends = Timestamp::now();
    let caller = world.admitted(ends);
    for target in ["/x", "/open"] {
        assert_eq!(world.open(target, &caller, Expiry::Lifted, ends), Ok(true), "{target}");
        assert_eq!(world.open(target, &caller, Expiry::Counts, ends), Err(Reason::Expired), "{target}");
    }
    // What another policy asks for was never said.
    for (service, permission) in [("oms", "a:c"), ("shop", "a:b")] {
        world.admission.publish(snapshot(service, permission));
        let answer = world.open("/x", &caller, Expiry::Lifted, ends);
        assert_eq!(answer, Err(Reason::PermissionMissing), "{service} {permission}");
    }
    world.admission.publish(snapshot("oms", "a:b"));
    assert_eq!(world.open("/x", &caller, Expiry::Lifted, ends), Ok(true), "codes mean the same under each");
    world.revoke("{\"disabled\": \"alice\"}\n");
    for target in ["/x", "/open"] {
        assert_eq!(world.open(target, &caller, Expiry::Lifted, ends), Err(Reason::SubjectDisabled), "{target}");
    }
}
