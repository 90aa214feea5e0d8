//! The one decision: pure, total, in two steps, the second of which needs the caller.

use std::borrow::Cow;

use super::snapshot::{RouteId, Snapshot};
use crate::clock::Timestamp;
use crate::rbac::Grants;
use crate::reason::Reason;
use crate::request::{CleanTarget, RequestFacts};

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
    /// The HTTP status of a denial (`no_route` is 403 or 404, as the file says).
    pub status: u16,
    /// The matched route. Present for a `no_route` that report mode lets through only as `None` with a service.
    pub route: Option<RouteId>,
    /// Index of the service (policy file) concerned, if one is known.
    pub service: Option<u32>,
    /// The cleaned target, if cleaning succeeded: what is forwarded.
    pub target: Option<CleanTarget<'r>>,
    /// For `method_not_allowed`: the value of `Allow`.
    pub allow: Option<Box<str>>,
    /// The first permission that was required and not held, or the only one asked for.
    pub permission: Option<std::sync::Arc<str>>,
    /// More about a denial, for people.
    pub detail: Cow<'static, str>,
    /// Whether the route is public: it is forwarded without a caller.
    pub public: bool,
}

impl Snapshot {
    /// Cleans, matches, and decides what needs no caller. `now` is used only for `report_only` dates.
    #[must_use]
    pub fn begin<'s, 'r>(&'s self, facts: &RequestFacts<'r>, now: Timestamp) -> Begin<'s, 'r> {
        let _ = (facts, now);
        todo!()
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
        let _ = (caller, self.facts, self.now, self.target);
        todo!()
    }

    /// Decides for a request without a usable credential: denied for `reason` (one of the 401s or
    /// `auth_unavailable`), or let through in report mode if the reason is `missing_token`.
    #[must_use]
    pub fn without_caller(self, reason: Reason, detail: Cow<'static, str>) -> Decision<'r> {
        let _ = (reason, detail);
        todo!()
    }
}
