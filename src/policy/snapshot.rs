//! The immutable compiled state that one request is decided by: policies and roles, published as one (T8).

use std::sync::Arc;
use std::time::Duration;

use super::source::{BodyLimit, CachePolicy, RateLimit};
use crate::rbac::RoleTable;

/// A route of one [`Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// A path and method of a policy file, compiled.
#[derive(Debug)]
pub struct Route {
    /// The pattern as written, which is also the `route` label of metrics and logs.
    pub pattern: Arc<str>,
    /// The method as written: upper case, or `*`.
    pub method: Arc<str>,
    /// Index of its service within [`Snapshot::services`].
    pub service: u32,
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// The requirement for people, for example `all(schema:delete, schema:edit)`.
    pub requirement: Arc<str>,
    /// Until the first byte of the response; the upstream's own limit if absent.
    pub timeout: Option<Duration>,
    /// Limit of the request body; the listener's own if absent.
    pub body: Option<BodyLimit>,
    /// Whether every request is audited.
    pub audit: bool,
    /// Whether answers may be shared between users.
    pub cache: Option<CachePolicy>,
    /// Its rate limit, or the file's.
    pub rate_limit: Option<RateLimit>,
    /// File and line of the method's entry, for explanations.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

/// What all routes of one policy file share.
#[derive(Debug)]
pub struct Service {
    /// `service:`
    pub name: Arc<str>,
    /// The policy file.
    pub file: Arc<str>,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: Arc<str>,
    /// Whether `Authorization` is passed on.
    pub forward_authorization: bool,
    /// Further headers never taken from a client, lower-case.
    pub strip: Arc<[Box<str>]>,
}

/// Policies and roles, compiled.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) routes: Vec<Route>,
    pub(super) services: Vec<Service>,
    pub(super) roles: Arc<RoleTable>,
}

impl Snapshot {
    /// The routes, by id.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// One route.
    #[must_use]
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id.0 as usize]
    }

    /// The services (one a policy file).
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The role table that the policies were compiled against.
    #[must_use]
    pub fn roles(&self) -> &Arc<RoleTable> {
        &self.roles
    }
}
