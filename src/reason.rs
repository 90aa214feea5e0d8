//! The one list of reasons for which doorward refuses a request.
//!
//! The same code stands in metrics labels, access logs, `application/problem+json` bodies, the
//! `Doorward-Decision` header, `policy explain` and the documentation. It lives on the lowest floor
//! because rooms that know nothing of one another refuse for reasons of the same list.

use std::fmt;

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident, $code:literal, $status:literal, $title:literal; )+) => {
        /// Why a request was refused. Codes are stable: dashboards, alerts and clients rely on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Reason {
            /// Every reason, in the order of declaration (the order of metric registration).
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The machine-readable code, for example `permission_missing`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $( Self::$variant => $code, )+ }
            }

            /// The HTTP status that a refusal for this reason is answered with, unless the policy
            /// file says otherwise (`unmatched: 404` turns [`Reason::NoRoute`] into a 404).
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $( Self::$variant => $status, )+ }
            }

            /// A short title for people (RFC 9457, section 3.1.3).
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $( Self::$variant => $title, )+ }
            }
        }
    };
}

reasons! {
    /// A guarded route was asked for without a credential.
    MissingToken, "missing_token", 401, "A bearer token is required";
    /// The credential is not one well-formed token: two of them, a bad encoding, a missing `exp`, …
    MalformedToken, "malformed_token", 401, "The token is malformed";
    /// The signature does not verify under the key that the token names.
    BadSignature, "bad_signature", 401, "The token's signature is wrong";
    /// No key of the issuer has the token's `kid` (or no single key fits a token without one).
    UnknownKey, "unknown_key", 401, "The token's key is unknown";
    /// The token's algorithm is not that of its key, or the issuer does not allow it.
    AlgNotAllowed, "alg_not_allowed", 401, "The token's algorithm is not allowed";
    /// `exp` has passed.
    Expired, "expired", 401, "The token has expired";
    /// `nbf` or `iat` lies in the future.
    NotYetValid, "not_yet_valid", 401, "The token is not valid yet";
    /// No configured issuer has the token's `iss`.
    WrongIssuer, "wrong_issuer", 401, "The token's issuer is not accepted";
    /// The token was made for another audience.
    WrongAudience, "wrong_audience", 401, "The token was issued for another audience";
    /// The token, its session, its subject's older tokens or its key have been revoked.
    Revoked, "revoked", 401, "The token has been revoked";
    /// The subject is disabled.
    SubjectDisabled, "subject_disabled", 401, "The subject is disabled";
    /// The caller is known and lacks what the route requires.
    PermissionMissing, "permission_missing", 403, "A required permission is missing";
    /// No path of the policy matches; what is not listed is denied.
    NoRoute, "no_route", 403, "No route of the policy matches";
    /// The route is listed as `deny`, or another site's page sent the request with the user's cookie (T26).
    RouteDenied, "route_denied", 403, "The route is closed";
    /// The path is listed, the method is not.
    MethodNotAllowed, "method_not_allowed", 405, "The method is not allowed on this path";
    /// The request target could be read differently by two parsers.
    BadRequestTarget, "bad_request_target", 400, "The request target is refused";
    /// Host or framing could be read in two ways, or a header is malformed.
    BadRequest, "bad_request", 400, "The request is malformed";
    /// The host of a request by TLS is not one of the certificate that its connection was shown (RFC 9110 section 15.5.20).
    MisdirectedRequest, "misdirected_request", 421, "The request came to the wrong connection";
    /// A delegated user service refused the token.
    TokenRejected, "token_rejected", 401, "The token was rejected by the user service";
    /// A rate limit was reached.
    RateLimited, "rate_limited", 429, "Too many requests";
    /// The request body is larger than the limit.
    BodyTooLarge, "body_too_large", 413, "The request body is too large";
    /// The header section is larger than the limit.
    HeadersTooLarge, "headers_too_large", 431, "The request headers are too large";
    /// The facts needed to decide are missing or too old; doorward fails closed.
    AuthUnavailable, "auth_unavailable", 503, "Authorization is unavailable";
    /// doorward is draining or full.
    Overloaded, "overloaded", 503, "The gateway is overloaded";
    /// The upstream could not be reached or broke off before an answer.
    UpstreamUnavailable, "upstream_unavailable", 502, "The upstream is unavailable";
    /// The upstream did not answer in time.
    UpstreamTimeout, "upstream_timeout", 504, "The upstream did not answer in time";
}

impl Reason {
    /// Whether `doorward_auth_failures_total` counts it: every 401 and 403, and `auth_unavailable`.
    #[must_use]
    pub const fn is_auth_failure(self) -> bool {
        matches!(self.status(), 401 | 403) || matches!(self, Self::AuthUnavailable)
    }

    /// The reason with this code, if there is one.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
