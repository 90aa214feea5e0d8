//! A policy file as written: every value with its place, nothing interpreted beyond its own grammar.

mod file;
mod path_item;
mod requirement;
mod values;

#[cfg(test)]
mod broken_tests;
#[cfg(test)]
pub(super) mod tests;

pub(super) use self::file::version;
pub(super) use self::requirement::WORDS as REQUIREMENT_WORDS;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostic::Diagnostics;
use crate::rbac::{PermissionCode, RoleKey, ServiceName, TierKey};
use crate::request::PathRules;

/// A file's name and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The name as the user gave it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// Byte offsets `start..end` in a [`SourceText`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

/// A policy file (SPEC 4).
#[derive(Debug, Clone)]
pub struct PolicyFile {
    /// Name and text.
    pub source: Arc<SourceText>,
    /// `service:`
    pub service: Spanned<ServiceName>,
    /// `upstream:`, a name under `[upstreams]`.
    pub upstream: Option<Spanned<String>>,
    /// `hosts:`; empty for any host.
    pub hosts: Vec<Spanned<HostPattern>>,
    /// `paths:`
    pub paths: Vec<PathItem>,
    /// `path:`
    pub path_rules: Option<Spanned<PathRules>>,
    /// `forward_authorization:`
    pub forward_authorization: bool,
    /// `unmatched:` 403 or 404.
    pub unmatched: Unmatched,
    /// `strip:` further headers that are never taken from a client, lower-case.
    pub strip: Vec<Spanned<String>>,
    /// `report_only: {until: …}`
    pub report_only: Option<Spanned<ReportOnly>>,
    /// `rate_limit:`
    pub rate_limit: Option<Spanned<RateLimit>>,
    /// `cors:`
    pub cors: Option<Spanned<Cors>>,
    /// `credentials:`
    pub credentials: Option<Spanned<Credentials>>,
}

/// An entry of `hosts:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One host, as [`crate::request::Host`] spells it.
    Exact(String),
    /// `*.example.com`: the suffix with its leading dot, `.example.com`.
    Wildcard(String),
}

/// What `no_route` is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// 403, the default.
    #[default]
    Forbidden,
    /// 404.
    NotFound,
}

/// One path and its methods.
#[derive(Debug, Clone)]
pub struct PathItem {
    /// The pattern as written.
    pub pattern: Spanned<String>,
    /// Its methods.
    pub methods: Vec<MethodItem>,
    /// `report_only:` of this path.
    pub report_only: Option<Spanned<ReportOnly>>,
}

/// One method of a path.
#[derive(Debug, Clone)]
pub struct MethodItem {
    /// Upper case, or `*`.
    pub method: Spanned<String>,
    /// What it asks for.
    pub require: Spanned<Requirement>,
    /// `timeout:`, until the first byte of the response.
    pub timeout: Option<Duration>,
    /// `rate_limit:`
    pub rate_limit: Option<Spanned<RateLimit>>,
    /// `audit:`
    pub audit: bool,
    /// `body:`
    pub body: Option<BodyLimit>,
    /// `outlives_token:`
    pub outlives_token: Option<Spanned<bool>>,
    /// `cache:`
    pub cache: Option<CachePolicy>,
    /// `report_only:`
    pub report_only: Option<Spanned<ReportOnly>>,
    /// `upstream:`, in place of the file's.
    pub upstream: Option<Spanned<String>>,
}

/// A requirement as written (SPEC 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Nobody is asked who they are.
    Public,
    /// Any valid token.
    Authenticated,
    /// Closed for everybody.
    Deny,
    /// A permission code.
    Permission(PermissionCode),
    /// One of them.
    Any(Vec<Spanned<Requirement>>),
    /// All of them.
    All(Vec<Spanned<Requirement>>),
    /// The role, or one that inherits from it.
    Role(RoleKey),
    /// At least this tier of a service.
    Membership {
        /// The service.
        service: ServiceName,
        /// The lowest tier that will do.
        tier: TierKey,
    },
    /// The path parameter equals the subject id.
    Owner(String),
    /// The client's address lies in one of these networks.
    Client(Vec<IpNet>),
}

/// `report_only: {until: 2027-01-31}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportOnly {
    /// 00:00 UTC of that day, in seconds since the Unix epoch; from then on it is enforced.
    pub until: i64,
}

/// `N/(s|min|h) per (subject|address)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many, which is also the burst.
    pub count: u32,
    /// In how long: a second, a minute or an hour.
    pub window: Duration,
    /// Counted per what.
    pub per: RateKey,
}

/// What a rate limit counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateKey {
    /// The subject; anonymous requests by address.
    Subject,
    /// The client's address.
    Address,
}

/// `body:` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// At most this many bytes.
    Bytes(u64),
    /// As much as is sent.
    Unlimited,
}

/// `cache:` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// Answers may be shared between users although requests carry an identity (T27).
    Shared,
}

/// `cors:` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins.
    pub origins: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Request headers.
    pub headers: Vec<String>,
    /// Response headers.
    pub expose: Vec<String>,
    /// Whether credentials are allowed.
    pub credentials: bool,
    /// How long a preflight may be remembered.
    pub max_age: Option<Duration>,
}

/// `credentials:` as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The `__Host-` cookie that carries the token.
    pub cookie: String,
}

impl PolicyFile {
    /// Reads a policy file; every fault of its text at once. Returns the file as far as it could be
    /// read (`None` if it is no mapping at all), so that the compiler can add its own findings.
    #[must_use]
    pub fn parse(source: Arc<SourceText>) -> (Option<Self>, Diagnostics) {
        let mut out = Diagnostics::default();
        let file = file::read(&source, &mut out);
        out.sort();
        (file, out)
    }
}

/// An address used where a request has none (command line, cases).
pub const UNSPECIFIED_CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
