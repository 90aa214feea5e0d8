//! Admitting a request: begin the decision, find the caller if it needs one, finish it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderMap;

use super::cross_site::{CookieRequest, cookie_origin_ok};
use super::elsewhere::{Elsewhere, Halt, Question, Told};
use super::identity::{AuthMethod, Identified, Identity};
use crate::clock::Timestamp;
use crate::live::Live;
use crate::policy::{Begin, Caller, Decision, Outcome, Pending, RouteId, Service, Snapshot};
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
    /// What has to be asked, if anything. Boxed, because nearly always there is nothing.
    elsewhere: Option<Box<Elsewhere>>,
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
    if let Some(asked) = &caller.asked {
        // The user service was asked for the whole of doorward: who holds a permission there holds it for every service.
        return pending.with_caller(&Caller { subject: &claims.subject, grants: &asked.grants });
    }
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
    /// When it has to be decided again, though nothing changed here: answers from elsewhere are too old by then.
    pub until: Option<Timestamp>,
}

/// Whether an open exchange goes on.
pub enum Readmitted {
    /// It does, by this.
    GoesOn(Readmission),
    /// It does not.
    Ends(Reason),
    /// It does until this is answered, and is then decided again with what was told.
    Ask(Question),
    /// Nothing that is known here ends it, but who would have to be asked could not be: too many questions wait. It may be decided again
    /// in a moment, for a stated time.
    Undecided,
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
pub(super) struct Unusable {
    pub(super) reason: Reason,
    pub(super) detail: Cow<'static, str>,
    pub(super) caller: Option<Identified>,
}

/// What an open exchange is decided again by.
struct Again<'a> {
    snapshot: &'a Snapshot,
    service: &'a Arc<str>,
    /// What its route asks for; `None` where that is public.
    pending: Option<&'a Pending<'a, 'a>>,
    expiry: Expiry,
    now: Timestamp,
    desk: &'a Desk,
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
        let published = AtomicU64::new(0);
        revocations.role_data_in_force(snapshot.roles().fingerprint());
        Self { snapshot: Live::new(snapshot), published, tokens, revocations, freshness, elsewhere: None }
    }

    /// Asks elsewhere for what it cannot know itself.
    #[must_use]
    pub fn asking(mut self, elsewhere: Option<Elsewhere>) -> Self {
        self.elsewhere = elsewhere.map(Box::new);
        self
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.get()
    }

    /// Puts another snapshot in force. Requests that were begun under the old one end under it.
    pub fn publish(&self, snapshot: Snapshot) {
        let fingerprint: Box<str> = snapshot.roles().fingerprint().into();
        self.snapshot.publish(snapshot);
        // Afterwards: overrides that wait for this data do not count with what was in force before (T9).
        self.revocations.role_data_in_force(&fingerprint);
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
    ///
    /// # Errors
    /// A question without whose answer nothing can be said; [`Self::answered`] waits for it. There is none where nothing is asked
    /// elsewhere.
    pub fn admit<'r>(
        &self,
        facts: &RequestFacts<'r>,
        headers: &HeaderMap,
        now: Timestamp,
        desk: &Desk,
    ) -> Result<Admitted<'r>, Question> {
        self.admit_told(facts, headers, now, desk, None)
    }

    /// Decides about a request, once what it had to ask has been answered. What it asks next is waited for as well.
    pub async fn answered<'r>(
        &self,
        mut question: Question,
        facts: &RequestFacts<'r>,
        headers: &HeaderMap,
        desk: &Desk,
    ) -> Admitted<'r> {
        let mut told = Told::default();
        loop {
            question.answer(&mut told).await;
            match self.admit_told(facts, headers, Timestamp::now(), desk, Some(&mut told)) {
                Ok(admitted) => return admitted,
                Err(next) => question = next,
            }
        }
    }

    /// Decides about a request, with what was `told` to it since it came.
    fn admit_told<'r>(
        &self,
        facts: &RequestFacts<'r>,
        headers: &HeaderMap,
        now: Timestamp,
        desk: &Desk,
        mut told: Option<&mut Told>,
    ) -> Result<Admitted<'r>, Question> {
        let snapshot = self.snapshot.get();
        let started = Instant::now();
        let begun = snapshot.begin(facts, now);
        let begun_at = Instant::now();
        let begin_time = begun_at - started;
        let (decision, caller) = match begun {
            Begin::Decided(decision) => {
                let asked = Asked { facts, headers, now, started: begun_at };
                match self.caller_of_public(decision, &snapshot, &asked, desk, told) {
                    Ok(decided) => {
                        desk.count.decision(begin_time);
                        decided
                    }
                    Err(question) => return Err(question),
                }
            }
            Begin::NeedsCaller(pending) => {
                let service = &snapshot.services()[snapshot.route(pending.route()).service as usize];
                let asked = Asked { facts, headers, now, started: begun_at };
                let identified = self.identify(&asked, &snapshot, service, desk, told.as_deref_mut());
                let identified = match (&self.elsewhere, identified) {
                    (Some(elsewhere), Ok((caller, resumed))) => elsewhere
                        .permissions(caller, &pending, told.as_deref_mut())
                        .and_then(|caller| elsewhere.up_to_date(caller, told))
                        .map(|caller| (caller, resumed)),
                    (_, identified) => identified,
                };
                match identified {
                    Ok((caller, resumed)) => {
                        let decision = pending
                            .with_caller(&Caller { subject: &caller.entry.claims.subject, grants: caller.grants() });
                        desk.count.decision(begin_time + resumed.elapsed());
                        (decision, Some(caller))
                    }
                    Err(Halt::Unusable(unusable) | Halt::NotAsked(unusable)) => {
                        desk.count.decision(begin_time);
                        (pending.without_caller(unusable.reason, unusable.detail), unusable.caller)
                    }
                    Err(Halt::Ask(question)) => return Err(question),
                }
            }
        };
        let outcome = decision.outcome;
        let judged = Judged { decision, snapshot, caller };
        Ok(match outcome {
            Outcome::Allow => Admitted::Permit(Permit { judged }),
            Outcome::Deny(reason) => Admitted::Refusal(Refusal { judged, reason }),
        })
    }

    /// A public route is forwarded for anybody; a valid token beside it still says who is asking, and a bad one says nothing.
    /// Two credentials at once are refused here too (T26).
    fn caller_of_public<'r>(
        &self,
        decision: Decision<'r>,
        snapshot: &Snapshot,
        asked: &Asked<'_>,
        desk: &Desk,
        mut told: Option<&mut Told>,
    ) -> Result<(Decision<'r>, Option<Identified>), Question> {
        let Some(route) = decision.route.filter(|_| decision.outcome == Outcome::Allow) else {
            return Ok((decision, None));
        };
        let service = &snapshot.services()[snapshot.route(route).service as usize];
        let identified = self.identify(asked, snapshot, service, desk, told.as_deref_mut());
        let identified = match (&self.elsewhere, identified) {
            (Some(elsewhere), Ok((caller, _))) => elsewhere.up_to_date(caller, told),
            (_, identified) => identified.map(|(caller, _)| caller),
        };
        Ok(match identified {
            Ok(caller) => (decision, Some(caller)),
            Err(Halt::Unusable(unusable)) if unusable.reason == Reason::BadRequest => {
                (decision.refused(unusable.reason, unusable.detail), None)
            }
            Err(Halt::Unusable(_) | Halt::NotAsked(_)) => (decision, None),
            Err(Halt::Ask(question)) => return Err(question),
        })
    }

    /// Who is calling, and when that was known.
    fn identify(
        &self,
        asked: &Asked<'_>,
        snapshot: &Snapshot,
        service: &Service,
        desk: &Desk,
        mut told: Option<&mut Told>,
    ) -> Result<(Identified, Instant), Halt> {
        let Asked { facts, headers, now, started } = *asked;
        let refused = |reason, detail| Halt::Unusable(Unusable { reason, detail, caller: None });
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
        if let Some(elsewhere) = &self.elsewhere
            && let Some(vouched) = elsewhere.vouched(token, told.as_deref_mut(), desk, now)
        {
            let caller = self.stand(vouched?, method, snapshot, &service.name, now)?;
            return Ok((elsewhere.looked_up(caller, told)?, Instant::now()));
        }
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
        let caller = self.stand(entry, method, snapshot, &service.name, now)?;
        match &self.elsewhere {
            None => Ok((caller, ended)),
            Some(elsewhere) => elsewhere.looked_up(caller, told).map(|caller| (caller, Instant::now())),
        }
    }

    /// Decides again about an exchange that was admitted before and is still open (T20). Nothing is counted, and no rate limit
    /// spent. Who is asking (`caller`) was verified then; that is done again only where keys or issuers have changed, or where it
    /// is asked elsewhere and the answer is too old by now.
    pub fn readmit(
        &self,
        facts: &RequestFacts<'_>,
        caller: Option<&Identified>,
        expiry: Expiry,
        now: Timestamp,
        desk: &Desk,
        told: &mut Told,
    ) -> Readmitted {
        let current = self.snapshot.get();
        let snapshot = &*current;
        let decision = match snapshot.begin(facts, now) {
            Begin::Decided(decision) => {
                // A public route is open to anybody, but the upstream was told who is asking, and goes on believing it.
                if let (Outcome::Allow, Some(route), Some(_)) = (decision.outcome, decision.route, caller) {
                    let service = &snapshot.services()[snapshot.route(route).service as usize].name;
                    let again = Again { snapshot, service, pending: None, expiry, now, desk };
                    match self.known_again(caller, &again, told) {
                        Ok(_) => {}
                        Err(Halt::Unusable(unusable)) => return Readmitted::Ends(unusable.reason),
                        Err(Halt::NotAsked(_)) => return Readmitted::Undecided,
                        Err(Halt::Ask(question)) => return Readmitted::Ask(question),
                    }
                }
                decision
            }
            Begin::NeedsCaller(pending) => {
                let service = &snapshot.services()[snapshot.route(pending.route()).service as usize].name;
                let again = Again { snapshot, service, pending: Some(&pending), expiry, now, desk };
                match self.known_again(caller, &again, told) {
                    Ok(caller) => {
                        pending.with_caller(&Caller { subject: &caller.entry.claims.subject, grants: caller.grants() })
                    }
                    Err(Halt::Unusable(unusable)) => pending.without_caller(unusable.reason, unusable.detail),
                    Err(Halt::NotAsked(_)) => return Readmitted::Undecided,
                    Err(Halt::Ask(question)) => return Readmitted::Ask(question),
                }
            }
        };
        match decision.outcome {
            Outcome::Deny(reason) => Readmitted::Ends(reason),
            Outcome::Allow => {
                let Decision { route, service, permission, would_deny, .. } = decision;
                let until = told.good_until().map(|until| {
                    // Up to the next whole second: who comes too early asks once more, and is told the same.
                    let left = until.saturating_duration_since(Instant::now());
                    now.plus(i64::try_from(left.as_secs()).unwrap_or(i64::MAX).saturating_add(1))
                });
                Readmitted::GoesOn(Readmission { route, service, permission, would_deny, snapshot: current, until })
            }
        }
    }

    /// Who is asking, once more, and what they hold.
    fn known_again(&self, caller: Option<&Identified>, again: &Again<'_>, told: &mut Told) -> Result<Identified, Halt> {
        let Some(before) = caller else {
            return Err(Halt::of(Reason::MissingToken, "no token was sent", None));
        };
        let Some(elsewhere) = &self.elsewhere else { return self.identify_again(&before.entry, again, told) };
        let (is_vouched_for, ends) = (elsewhere.iam.is_some(), before.entry.claims.expires_at);
        match again.expiry {
            Expiry::Counts if is_vouched_for && again.now >= ends => {
                return Err(Halt::of(Reason::Expired, "the token has expired (`exp`)", None));
            }
            Expiry::Lifted if is_vouched_for && again.now >= ends => {
                return self.outlived(elsewhere, before, again, told);
            }
            Expiry::Counts | Expiry::Lifted => {}
        }
        let known = self
            .identify_again(&before.entry, again, told)
            .and_then(|caller| match again.pending {
                None => Ok(caller),
                Some(pending) => elsewhere.permissions(caller, pending, Some(&mut *told)),
            })
            .and_then(|caller| elsewhere.up_to_date(caller, Some(&mut *told)));
        match known {
            // By the clock of the service it may have expired a little earlier.
            Err(halt)
                if halt.is_rejection()
                    && again.expiry == Expiry::Lifted
                    && again.now.plus(before.entry.claims.leeway) >= ends =>
            {
                self.outlived(elsewhere, before, again, told)
            }
            known => known,
        }
    }

    /// The caller of an exchange that goes on though its token has expired (T20: expiry alone is lifted). The user service refuses the
    /// token from then on, whatever it thinks of its bearer; all that is known without it counts on.
    fn outlived(
        &self,
        elsewhere: &Elsewhere,
        before: &Identified,
        again: &Again<'_>,
        told: &mut Told,
    ) -> Result<Identified, Halt> {
        let caller =
            self.stand(Arc::clone(&before.entry), AuthMethod::Bearer, again.snapshot, again.service, again.now)?;
        let caller = elsewhere.looked_up(caller, Some(&mut *told))?;
        let caller = match again.pending {
            None => caller,
            Some(pending) => Elsewhere::permissions_of_old(caller, pending, before.asked.as_deref()),
        };
        elsewhere.up_to_date(caller, Some(told))
    }

    fn identify_again(
        &self,
        before: &Arc<Entry<Identity>>,
        again: &Again<'_>,
        told: &mut Told,
    ) -> Result<Identified, Halt> {
        // How it was sent was looked at when the exchange began, and says nothing now.
        let method = AuthMethod::Bearer;
        let Again { snapshot, service, expiry, now, desk, .. } = *again;
        if let Some(elsewhere) = &self.elsewhere
            && let Some(vouched) = elsewhere.vouched(before.token(), Some(told), desk, now)
        {
            let (entry, not_asked) = match vouched {
                // The upstream was told who is asking, and goes on believing it.
                Ok(entry) if entry.claims.subject != before.claims.subject => {
                    return Err(Halt::of(Reason::Revoked, "the token is another one's now", None));
                }
                Ok(entry) => (entry, None),
                // What is revoked here ends it all the same.
                Err(Halt::NotAsked(unusable)) => (Arc::clone(before), Some(unusable)),
                Err(halt) => return Err(halt),
            };
            let caller = elsewhere.looked_up(self.stand(entry, method, snapshot, service, now)?, Some(told))?;
            return not_asked.map_or(Ok(caller), |unusable| Err(Halt::NotAsked(unusable)));
        }
        let entry = match self.tokens.authenticate_again(&desk.near, before, now) {
            Ok(entry) => entry,
            Err(rejection) if rejection.reason == Reason::Expired && expiry == Expiry::Lifted => Arc::clone(before),
            Err(rejection) => {
                return Err(Halt::of(rejection.reason, rejection.detail, None));
            }
        };
        let caller = self.stand(entry, method, snapshot, service, now)?;
        match &self.elsewhere {
            None => Ok(caller),
            Some(elsewhere) => elsewhere.looked_up(caller, Some(told)),
        }
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
        let identity = Identity::of(&entry, snapshot.roles(), service, overrides.as_ref(), now);
        let caller = Identified { entry, identity, method, asked: None };
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
