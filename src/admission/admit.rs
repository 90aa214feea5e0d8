//! Admitting a request: begin the decision, find the caller if it needs one, finish it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderMap;

use super::cross_site::{CookieRequest, cookie_origin_ok};
use super::identity::{AuthMethod, Identified, Identity};
use crate::clock::Timestamp;
use crate::live::Live;
use crate::policy::{Begin, Caller, Decision, Outcome, RouteId, Service, Snapshot};
use crate::rbac::PermissionId;
use crate::reason::Reason;
use crate::request::RequestFacts;
use crate::revocation::{Freshness, Presented, RevocationIndex, Standing};
use crate::telemetry::{ValidationSource, WorkerMetrics};
use crate::token::cache::Source;
use crate::token::{Credential, Entry, NearCache, TokenCache, credential};

/// All that a listener decides by. What is replaced while running is read once a request.
pub struct Admission {
    snapshot: Live<Snapshot>,
    /// How many snapshots were published.
    published: AtomicU64,
    tokens: Arc<TokenCache<Identity>>,
    revocations: Arc<RevocationIndex>,
    freshness: Arc<Freshness>,
}

/// What a thread that asks keeps for itself, so that threads share nothing on the request path.
#[derive(Debug)]
pub struct Desk {
    /// Its counters.
    pub count: Arc<WorkerMetrics>,
    near: NearCache<Identity>,
}

impl Desk {
    /// A desk with these counters.
    #[must_use]
    pub fn new(count: Arc<WorkerMetrics>) -> Self {
        Self { count, near: NearCache::default() }
    }
}

/// The answer.
pub enum Admitted<'r> {
    /// The request may be forwarded.
    Permit(Permit<'r>),
    /// It may not.
    Refusal(Refusal<'r>),
}

/// Proof that a request was decided upon and allowed. Its fields are private and nothing outside this room makes one.
pub struct Permit<'r> {
    judged: Judged<'r>,
}

/// A denial and what is known about it.
pub struct Refusal<'r> {
    judged: Judged<'r>,
    reason: Reason,
}

/// A decision, the snapshot that it was made by, and the caller if there is one.
pub struct Judged<'r> {
    /// The decision.
    pub decision: Decision<'r>,
    /// The snapshot that its ids belong to.
    pub snapshot: Arc<Snapshot>,
    /// Who asked. A refusal may name a caller too (one whose token was revoked): for logs only.
    pub caller: Option<Identified>,
}

impl<'r> Admitted<'r> {
    /// What was decided, either way.
    #[must_use]
    #[inline]
    pub fn judged(&self) -> &Judged<'r> {
        match self {
            Self::Permit(permit) => &permit.judged,
            Self::Refusal(refusal) => &refusal.judged,
        }
    }
}

impl<'r> Permit<'r> {
    /// What was decided, by which snapshot and for whom.
    #[must_use]
    pub fn judged(&self) -> &Judged<'r> {
        &self.judged
    }

    /// Gives up the proof for its content, once the request is on its way.
    #[must_use]
    pub fn into_judged(self) -> Judged<'r> {
        self.judged
    }
}

impl<'r> Refusal<'r> {
    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What was decided, by which snapshot and for whom.
    #[must_use]
    pub fn into_judged(self) -> Judged<'r> {
        self.judged
    }
}

/// Decides about a request once more, with what its caller holds for objects of `service` alone. For the calls behind
/// `admin.yaml`, which lets pass who holds a permission in any scope (T36).
#[must_use]
pub fn decide_within<'r>(
    snapshot: &Snapshot,
    caller: Option<&Identified>,
    facts: &RequestFacts<'r>,
    service: &str,
    now: Timestamp,
) -> Decision<'r> {
    let pending = match snapshot.begin(facts, now) {
        Begin::Decided(decision) => return decision,
        Begin::NeedsCaller(pending) => pending,
    };
    let Some(caller) = caller else {
        return pending.without_caller(Reason::MissingToken, "the route needs a valid token".into());
    };
    let claims = &caller.entry.claims;
    let grants = caller.identity.grants_within(claims, snapshot.roles(), service);
    pending.with_caller(&Caller { subject: &claims.subject, grants: &grants })
}

/// A state of all that is decided by; see [`Admission::changes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes([u64; 4]);

#[cfg(test)]
impl Changes {
    /// A state that is made up.
    pub(crate) fn of(numbers: [u64; 4]) -> Self {
        Self(numbers)
    }
}

/// What an open exchange may go on by.
#[derive(Debug)]
pub struct Readmission {
    /// The snapshot that the ids belong to.
    pub snapshot: Arc<Snapshot>,
    /// As in [`Decision`].
    pub route: Option<RouteId>,
    /// As in [`Decision`].
    pub service: Option<u32>,
    /// As in [`Decision`].
    pub permission: Option<PermissionId>,
    /// As in [`Decision`].
    pub would_deny: Option<Reason>,
}

/// Whether an open exchange ends when its token expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It does.
    Counts,
    /// It goes on (T20: `outlives_token`, and bodies that are no streams).
    Lifted,
}

/// A credential that was no good.
struct Unusable {
    reason: Reason,
    detail: Cow<'static, str>,
    caller: Option<Identified>,
}

/// What a credential is looked for in.
#[derive(Clone, Copy)]
struct Asked<'a> {
    facts: &'a RequestFacts<'a>,
    headers: &'a HeaderMap,
    now: Timestamp,
    /// The time now, for measuring.
    started: Instant,
}

impl Admission {
    /// Decides by this snapshot, these tokens and these revocations.
    #[must_use]
    pub fn new(
        snapshot: Snapshot,
        tokens: Arc<TokenCache<Identity>>,
        revocations: Arc<RevocationIndex>,
        freshness: Arc<Freshness>,
    ) -> Self {
        Self { snapshot: Live::new(snapshot), published: AtomicU64::new(0), tokens, revocations, freshness }
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.get()
    }

    /// Puts another snapshot in force. Requests that were begun under the old one end under it.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.publish(snapshot);
        self.published.fetch_add(1, Ordering::AcqRel);
    }

    /// Differs from an earlier value if anything was changed since then that could turn an admission into a refusal: the
    /// snapshot, the revocations, what overrides give for a time, keys and issuers, or that all this is still true. A few loads.
    #[must_use]
    pub fn changes(&self, now: Timestamp) -> Changes {
        self.revocations.end_grants(now);
        Changes([
            self.published.load(Ordering::Acquire),
            self.revocations.changes(),
            self.tokens.changes(),
            self.freshness.changes(),
        ])
    }

    /// The revocations in force.
    #[must_use]
    pub fn revocations(&self) -> &Arc<RevocationIndex> {
        &self.revocations
    }

    /// Decides about a request.
    #[must_use]
    pub fn admit<'r>(
        &self,
        facts: &RequestFacts<'r>,
        headers: &HeaderMap,
        now: Timestamp,
        desk: &Desk,
    ) -> Admitted<'r> {
        let snapshot = self.snapshot.get();
        let started = Instant::now();
        let begun = snapshot.begin(facts, now);
        let begun_at = Instant::now();
        let begin_time = begun_at - started;
        let (decision, caller) = match begun {
            Begin::Decided(decision) => {
                desk.count.decision(begin_time);
                let asked = Asked { facts, headers, now, started: begun_at };
                self.caller_of_public(decision, &snapshot, &asked, desk)
            }
            Begin::NeedsCaller(pending) => {
                let service = &snapshot.services()[snapshot.route(pending.route()).service as usize];
                let asked = Asked { facts, headers, now, started: begun_at };
                match self.identify(&asked, &snapshot, service, desk) {
                    Ok((caller, resumed)) => {
                        let decision = pending.with_caller(&Caller {
                            subject: &caller.entry.claims.subject,
                            grants: caller.identity.grants(),
                        });
                        desk.count.decision(begin_time + resumed.elapsed());
                        (decision, Some(caller))
                    }
                    Err(unusable) => {
                        desk.count.decision(begin_time);
                        (pending.without_caller(unusable.reason, unusable.detail), unusable.caller)
                    }
                }
            }
        };
        let outcome = decision.outcome;
        let judged = Judged { decision, snapshot, caller };
        match outcome {
            Outcome::Allow => Admitted::Permit(Permit { judged }),
            Outcome::Deny(reason) => Admitted::Refusal(Refusal { judged, reason }),
        }
    }

    /// A public route is forwarded for anybody; a valid token beside it still says who is asking, and a bad one says nothing.
    /// Two credentials at once are refused here too (T26).
    fn caller_of_public<'r>(
        &self,
        decision: Decision<'r>,
        snapshot: &Snapshot,
        asked: &Asked<'_>,
        desk: &Desk,
    ) -> (Decision<'r>, Option<Identified>) {
        let Some(route) = decision.route.filter(|_| decision.outcome == Outcome::Allow) else {
            return (decision, None);
        };
        let service = &snapshot.services()[snapshot.route(route).service as usize];
        match self.identify(asked, snapshot, service, desk) {
            Ok((caller, _)) => (decision, Some(caller)),
            Err(unusable) if unusable.reason == Reason::BadRequest => {
                (decision.refused(unusable.reason, unusable.detail), None)
            }
            Err(_) => (decision, None),
        }
    }

    /// Who is calling, and when that was known.
    fn identify(
        &self,
        asked: &Asked<'_>,
        snapshot: &Snapshot,
        service: &Service,
        desk: &Desk,
    ) -> Result<(Identified, Instant), Unusable> {
        let Asked { facts, headers, now, started } = *asked;
        let refused = |reason, detail| Unusable { reason, detail, caller: None };
        let (token, method) = match credential::find(headers, service.cookie.as_deref()) {
            Credential::Bearer(token) => (token, AuthMethod::Bearer),
            Credential::Cookie(token) => {
                let cors = service.cors.as_deref();
                cookie_origin_ok(&CookieRequest { method: facts.method, headers, host: facts.host, cors })
                    .map_err(|detail| refused(Reason::RouteDenied, detail.into()))?;
                (token, AuthMethod::Cookie)
            }
            Credential::None => return Err(refused(Reason::MissingToken, "no bearer token was sent".into())),
            Credential::Malformed(found) => return Err(refused(Reason::MalformedToken, found.into())),
            Credential::Both => {
                let detail = "both the cookie and an Authorization header say who is asking; send one of them";
                return Err(refused(Reason::BadRequest, detail.into()));
            }
        };
        let (source, verified) = self.tokens.authenticate(&desk.near, token, now);
        let source = match source {
            Source::Cache => ValidationSource::Cache,
            Source::Verify => ValidationSource::Verify,
        };
        let ended = Instant::now();
        desk.count.validation(
            source,
            verified.as_ref().map(|_| ()).map_err(|rejection| rejection.reason),
            ended - started,
        );
        let entry = verified.map_err(|rejection| refused(rejection.reason, rejection.detail))?;
        self.stand(entry, method, snapshot, &service.name, now).map(|caller| (caller, ended))
    }

    /// Decides again about an exchange that was admitted before and is still open (T20). Nothing is counted, and no rate limit
    /// spent. Who is asking (`caller`) was verified then; that is done again only where keys or issuers have changed.
    ///
    /// # Errors
    /// Why it is not to go on.
    pub fn readmit(
        &self,
        facts: &RequestFacts<'_>,
        caller: Option<&Arc<Entry<Identity>>>,
        expiry: Expiry,
        now: Timestamp,
        desk: &Desk,
    ) -> Result<Readmission, Reason> {
        let snapshot = self.snapshot.get();
        let again = |service: &Arc<str>| match caller {
            Some(entry) => self.identify_again(entry, &snapshot, service, expiry, now, desk),
            None => Err(Unusable { reason: Reason::MissingToken, detail: "no token was sent".into(), caller: None }),
        };
        let decision = match snapshot.begin(facts, now) {
            Begin::Decided(decision) => {
                // A public route is open to anybody, but the upstream was told who is asking, and goes on believing it.
                if let (Outcome::Allow, Some(route), Some(_)) = (decision.outcome, decision.route, caller) {
                    let service = &snapshot.services()[snapshot.route(route).service as usize].name;
                    again(service).map_err(|unusable| unusable.reason)?;
                }
                decision
            }
            Begin::NeedsCaller(pending) => {
                let service = &snapshot.services()[snapshot.route(pending.route()).service as usize].name;
                match again(service) {
                    Ok(caller) => pending.with_caller(&Caller {
                        subject: &caller.entry.claims.subject,
                        grants: caller.identity.grants(),
                    }),
                    Err(unusable) => pending.without_caller(unusable.reason, unusable.detail),
                }
            }
        };
        match decision.outcome {
            Outcome::Deny(reason) => Err(reason),
            Outcome::Allow => {
                let Decision { route, service, permission, would_deny, .. } = decision;
                Ok(Readmission { route, service, permission, would_deny, snapshot })
            }
        }
    }

    fn identify_again(
        &self,
        entry: &Arc<Entry<Identity>>,
        snapshot: &Snapshot,
        service: &Arc<str>,
        expiry: Expiry,
        now: Timestamp,
        desk: &Desk,
    ) -> Result<Identified, Unusable> {
        let entry = match self.tokens.authenticate_again(&desk.near, entry, now) {
            Ok(entry) => entry,
            Err(rejection) if rejection.reason == Reason::Expired && expiry == Expiry::Lifted => Arc::clone(entry),
            Err(rejection) => {
                return Err(Unusable { reason: rejection.reason, detail: rejection.detail, caller: None });
            }
        };
        // How it was sent was looked at when the exchange began, and says nothing now.
        self.stand(entry, AuthMethod::Bearer, snapshot, service, now)
    }

    /// Holds a verified token against the revocations.
    fn stand(
        &self,
        entry: Arc<Entry<Identity>>,
        method: AuthMethod,
        snapshot: &Snapshot,
        service: &Arc<str>,
        now: Timestamp,
    ) -> Result<Identified, Unusable> {
        let overrides = self.revocations.overrides(&entry.claims.subject, now);
        let identity = Identity::of(&entry, snapshot.roles(), service, overrides.as_deref(), now);
        let caller = Identified { entry, identity, method };
        let claims = &caller.entry.claims;
        // T1: what is too old to decide by is not decided by, whatever it says.
        if !self.freshness.may_decide(now) {
            return Err(Unusable {
                reason: Reason::AuthUnavailable,
                detail: "it is not known whether the token has been revoked".into(),
                caller: Some(caller),
            });
        }
        let standing = self.revocations.standing(
            &Presented {
                service,
                uv: claims.uv,
                issuer: &claims.issuer,
                subject: &claims.subject,
                token_id: claims.token_id.as_deref(),
                session: claims.session.as_deref(),
                key_id: claims.key_id.as_deref(),
                issued_at: claims.issued_at,
                leeway: claims.leeway,
            },
            now,
        );
        match standing {
            Standing::Good => Ok(caller),
            Standing::Revoked => Err(Unusable {
                reason: Reason::Revoked,
                detail: "the token has been revoked".into(),
                caller: Some(caller),
            }),
            Standing::Disabled => Err(Unusable {
                reason: Reason::SubjectDisabled,
                detail: "the subject is disabled".into(),
                caller: Some(caller),
            }),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::policy::SourceText;
    use crate::policy::load::{PolicySet, compile_sets};
    use crate::token::Verifier;

    fn snapshot() -> Snapshot {
        let source = |text: &str| Arc::new(SourceText { name: "oms.yaml".into(), text: text.into() });
        let roles = source("version: 1\npermissions: { oms: ['a:b'] }\nroles: { ROLE_A: { permissions: ['a:b'] } }\n");
        let policy = [source("version: 1\nservice: oms\nupstream: oms\npaths: { /x: { get: 'a:b' } }\n")];
        let [snapshot] =
            compile_sets(Some(&roles), [PolicySet { sources: &policy, upstreams: None, report: false }]).snapshots;
        snapshot.unwrap()
    }

    #[test]
    fn t20_changed_keys_and_policies_are_changes() {
        let tokens = Arc::new(TokenCache::new(Verifier::new(Vec::new()), 1024));
        let revocations = Arc::<RevocationIndex>::default();
        let admission =
            Admission::new(snapshot(), Arc::clone(&tokens), revocations, Arc::new(Freshness::of_own_truth()));
        let before = admission.changes(Timestamp(0));
        assert_eq!(admission.changes(Timestamp(0)), before);
        tokens.publish(Verifier::new(Vec::new()));
        let keys = admission.changes(Timestamp(0));
        assert_ne!(keys, before, "an issuer's key was withdrawn");
        admission.publish(snapshot());
        assert_ne!(admission.changes(Timestamp(0)), keys);
    }
}
