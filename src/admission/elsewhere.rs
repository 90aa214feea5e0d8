//! What cannot be decided by what is known here: it is asked before a request is decided upon, and the answer is judged like any other
//! fact. Where it is missing, nothing is allowed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admit::{Desk, Unusable};
use super::identity::{Confirmed, Identified, Identity};
use crate::clock::Timestamp;
use crate::delegate::{self, Iam, Known, LookedUp, Lookup, NoAnswer, PermissionKey, TokenId, Unreachable};
use crate::policy::{Caller, Pending};
use crate::rbac::PermissionId;
use crate::rbac::table::ADMIN_SERVICE;
use crate::reason::Reason;
use crate::revocation::OnStale;
use crate::telemetry::ValidationSource;
use crate::token::Entry;
use crate::token::vouched::is_bearer_token;

/// A question that is under way.
pub type Question = delegate::Question<Identity>;
/// What was told to a request that had to ask.
pub type Told = delegate::Told<Identity>;

/// Who is asked.
#[derive(Debug)]
pub struct Elsewhere {
    /// The user service, in place of issuers and their keys.
    pub iam: Option<Arc<Iam<Identity>>>,
    /// A blacklist.
    pub lookup: Option<Arc<Lookup>>,
    /// What may go on without the blacklist's answer goes on. Never on the admin listener (T21).
    pub lenient: bool,
}

/// Why a request is not decided upon now.
pub(super) enum Halt {
    /// Its credential is no good.
    Unusable(Unusable),
    /// It could not be asked whether its credential is any good, since too much is asked. Nothing is admitted so; what is open may try
    /// again in a moment.
    NotAsked(Unusable),
    /// Something has been asked.
    Ask(Question),
}

impl From<Unusable> for Halt {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

impl Halt {
    pub(super) fn of(reason: Reason, detail: impl Into<Cow<'static, str>>, caller: Option<Identified>) -> Self {
        Self::Unusable(Unusable { reason, detail: detail.into(), caller })
    }

    /// Whether it is the user service that refuses the token.
    pub(super) fn is_rejection(&self) -> bool {
        matches!(self, Self::Unusable(unusable) if unusable.reason == Reason::TokenRejected)
    }

    fn no_answer(none: NoAnswer, caller: Option<Identified>) -> Self {
        match none {
            NoAnswer::Rejected => Self::of(Reason::TokenRejected, "the user service rejects the token", caller),
            NoAnswer::Unavailable => {
                Self::of(Reason::AuthUnavailable, "the user service has not said what is needed to decide", caller)
            }
            NoAnswer::NotAsked => Self::NotAsked(Unusable {
                reason: Reason::AuthUnavailable,
                detail: "the user service was not asked: too many questions wait for it".into(),
                caller,
            }),
        }
    }

    /// A question, unless too many were asked already.
    fn ask(question: Question, told: Option<&Told>) -> Self {
        match told {
            Some(told) if told.is_exhausted() => {
                Self::of(Reason::AuthUnavailable, "what was asked for was out of date whenever it was answered", None)
            }
            _ => Self::Ask(question),
        }
    }
}

impl Elsewhere {
    /// Who the user service says is the bearer of a token; `None` where none is asked.
    pub(super) fn vouched(
        &self,
        token: &str,
        mut told: Option<&mut Told>,
        desk: &Desk,
        now: Timestamp,
    ) -> Option<Result<Arc<Entry<Identity>>, Halt>> {
        let iam = self.iam.as_ref()?;
        if !is_bearer_token(token) {
            let detail = "the token holds a character that no bearer token may hold (RFC 6750 section 2.1)";
            return Some(Err(Halt::of(Reason::MalformedToken, detail, None)));
        }
        let heard = match told.as_deref_mut().and_then(Told::userinfo) {
            Some(heard) => heard,
            None => {
                let started = Instant::now();
                match iam.userinfo(token, now) {
                    Known::Heard(heard) => {
                        if told.as_ref().is_none_or(|told| !told.has_asked()) {
                            validated(desk, ValidationSource::Cache, &heard.what, started.elapsed());
                        }
                        heard
                    }
                    Known::Asked(question) => return Some(Err(Halt::ask(question, told.as_deref()))),
                    Known::Refused(rejection) => return Some(Err(Halt::of(rejection.reason, rejection.detail, None))),
                }
            }
        };
        if let Some(told) = &mut told {
            told.used(heard.good_until);
            if let Some(took) = told.take_uncounted() {
                validated(desk, ValidationSource::Iam, &heard.what, took);
            }
        }
        Some(heard.what.map_err(|none| Halt::no_answer(none, None)))
    }

    /// Holds a caller against the blacklist.
    pub(super) fn looked_up(&self, caller: Identified, mut told: Option<&mut Told>) -> Result<Identified, Halt> {
        let Some(lookup) = &self.lookup else { return Ok(caller) };
        let (id, key) = match lookup.key(caller.entry.token(), &caller.entry.claims) {
            Ok(key) => key,
            Err(lacking) => return Err(Halt::of(Reason::MalformedToken, lacking, Some(caller))),
        };
        let heard = match told.as_deref_mut().and_then(|told| told.blacklist(id)) {
            Some(heard) => heard,
            None => match lookup.look_up((id, key)) {
                LookedUp::Heard(_, heard) => heard,
                LookedUp::Asked(_, question) => return Err(Halt::ask(question, told.as_deref())),
            },
        };
        if let Some(told) = &mut told {
            told.used(heard.good_until);
        }
        match heard.what {
            Ok(false) => Ok(caller),
            Ok(true) => Err(Halt::of(Reason::Revoked, "the token is on the blacklist", Some(caller))),
            Err(Unreachable) if self.lenient && lookup.on_silence() == OnStale::Allow => {
                lookup.goes_on_unanswered();
                Ok(caller)
            }
            Err(Unreachable) => {
                let detail = "it is not known whether the token has been revoked: the blacklist does not answer";
                Err(Halt::of(Reason::AuthUnavailable, detail, Some(caller)))
            }
        }
    }

    /// Gives a caller the permissions that the user service says they hold, of those that the route asks for. What the answer
    /// cannot depend on is not asked.
    pub(super) fn permissions(
        &self,
        caller: Identified,
        pending: &Pending<'_, '_>,
        mut told: Option<&mut Told>,
    ) -> Result<Identified, Halt> {
        let Some(iam) = &self.iam else { return Ok(caller) };
        let claims = &caller.entry.claims;
        let base = caller.identity.grants();
        let holds = |grants| pending.would_hold(&Caller { subject: &claims.subject, grants });
        let none = base.holding([]);
        // T7: the admin listener is for services that may confer administrators' roles alone.
        let service = pending.service_name();
        if holds(&none) || pending.service() == ADMIN_SERVICE && !claims.admin {
            return Ok(Identified { asked: Some(Confirmed::new(none, service, Box::default())), ..caller });
        }
        let token = TokenId::of(caller.entry.token());
        let confirmed = |grants, held: &[PermissionId]| {
            let codes = held.iter().map(|id| pending.permission_code(*id).clone()).collect();
            Some(Confirmed::new(grants, service, codes))
        };
        let (mut held, mut open, mut failed) = (Vec::new(), Vec::new(), None);
        for id in pending.permissions() {
            let code = pending.permission_code(id).clone();
            let key = PermissionKey { token, service: Arc::clone(service), code };
            let heard = told.as_deref_mut().and_then(|told| told.permission(&key));
            let Some(heard) = heard.or_else(|| iam.permission(&key)) else {
                open.push((id, key));
                continue;
            };
            if let Some(told) = &mut told {
                told.used(heard.good_until);
            }
            match heard.what {
                Ok(true) => held.push(id),
                Ok(false) => {}
                Err(none) => failed = failed.max(Some(none)),
            }
        }
        let grants = base.holding(held.iter().copied());
        if holds(&grants) {
            return Ok(Identified { asked: confirmed(grants, &held), ..caller });
        }
        let open_ids = open.iter().map(|(id, _)| *id);
        if !open.is_empty() && holds(&base.holding(held.iter().copied().chain(open_ids))) {
            let keys = open.into_iter().map(|(_, key)| key).collect();
            return Err(Halt::ask(iam.ask_permissions(&caller.entry, keys), told.as_deref()));
        }
        match failed {
            Some(none) => Err(Halt::no_answer(none, Some(caller))),
            None => Ok(Identified { asked: confirmed(grants, &held), ..caller }),
        }
    }

    /// Gives a caller whose token has expired, so that nobody can be asked about it any more, what the user service `said` they hold
    /// when it was asked. What it was not asked about then is not held.
    pub(super) fn permissions_of_old(
        caller: Identified,
        pending: &Pending<'_, '_>,
        said: Option<&Confirmed>,
    ) -> Identified {
        let (service, code) = (pending.service_name(), |id| pending.permission_code(id));
        let holds = |id: &PermissionId| said.is_some_and(|said| said.holds(service, code(*id)));
        let held: Vec<PermissionId> = pending.permissions().into_iter().filter(holds).collect();
        let grants = caller.identity.grants().holding(held.iter().copied());
        let codes = held.into_iter().map(|id| code(id).clone()).collect();
        Identified { asked: Some(Confirmed::new(grants, service, codes)), ..caller }
    }

    /// A caller about whom nothing was believed that is too old by now. What was told first may have become so while what was asked
    /// next was waited for; it has served to know what that was, and is asked for again before anything is decided by it (T15).
    pub(super) fn up_to_date(&self, caller: Identified, told: Option<&mut Told>) -> Result<Identified, Halt> {
        let Some(told) = told.filter(|told| told.is_outdated()) else { return Ok(caller) };
        let (entry, outdated) = (&caller.entry, told.outdated());
        let mut questions = Vec::with_capacity(3);
        if let Some(iam) = &self.iam {
            questions.extend(outdated.userinfo.then(|| iam.ask_userinfo_again(entry.token())));
            let keys = outdated.permissions;
            questions.extend((!keys.is_empty()).then(|| iam.ask_permissions(entry, keys)));
        }
        if let Some(lookup) = self.lookup.as_ref().filter(|_| outdated.blacklist)
            && let Ok(key) = lookup.key(entry.token(), &entry.claims)
        {
            questions.push(lookup.look_up_again(key));
        }
        Err(Halt::ask(Question::all(questions), Some(told)))
    }
}

/// Counts how long it took to know who is asking.
fn validated<V>(desk: &Desk, source: ValidationSource, answer: &Result<V, NoAnswer>, took: Duration) {
    let result = answer.as_ref().map(|_| ()).map_err(|none| match none {
        NoAnswer::Rejected => Reason::TokenRejected,
        NoAnswer::Unavailable | NoAnswer::NotAsked => Reason::AuthUnavailable,
    });
    desk.count.validation(source, result, took);
}
