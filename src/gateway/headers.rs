//! Header rewriting: strip what the client claims before adding what was verified (SPEC 3.7, THREATS T22, T23, T27).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, EXPIRES, FORWARDED, HOST, HeaderMap, PRAGMA,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::admission::{Permit, identity};
use crate::net::Established;
use crate::policy::Service;
use crate::policy::source::CachePolicy;
use crate::request::Host;
use crate::token::credential;

/// Names a request in logs and answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How many headers a rewrite adds at most: room for all is made at once.
const ADDED_HEADERS: usize = 14;
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What is the same for every request of one connection, made once.
#[derive(Debug)]
pub struct PeerHeaders {
    /// The connection.
    pub connection: Arc<Established>,
    /// Who made it: the peer, or who a PROXY protocol header named.
    pub peer: IpAddr,
    /// Whether it is a trusted proxy, whose forwarding headers are extended and not replaced.
    pub trusted: bool,
    address: HeaderValue,
    /// The last `Host` that came and the element of `Forwarded` that was made of it: nearly always the next one's too.
    forwarded: Mutex<Option<(HeaderValue, HeaderValue)>>,
}

/// What a rewrite needs to know beside the permit.
#[derive(Debug, Clone, Copy)]
pub struct Forwarding<'a> {
    /// The connection that the request came by.
    pub from: &'a PeerHeaders,
    /// What the upstream gets as `Host`.
    pub host: &'a HeaderValue,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// The value of `traceparent`.
    pub trace: &'a HeaderValue,
}

/// Who may have sent a header that doorward could set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nobody but doorward.
    DoorwardOnly,
    /// A trusted proxy may.
    TrustedProxy,
    /// Anybody.
    Anybody,
}

/// Classifies a header name. Many servers read `-`, `_` and `.` alike (CGI makes one variable of all three), and some make `_`
/// of every byte that is neither letter nor digit (lighttpd), so all of these are one here; `HeaderName` is lower-case already.
fn origin(name: &str) -> Origin {
    // Nearly every honest header begins with another letter than these.
    if !matches!(name.as_bytes().first(), Some(b'x' | b'd' | b'f' | b'r' | b't')) {
        return Origin::Anybody;
    }
    let mut folded = SmallVec::<[u8; 64]>::from_slice(name.as_bytes());
    for byte in &mut folded {
        *byte = fold(*byte);
    }
    let Ok(name) = std::str::from_utf8(&folded) else { return Origin::DoorwardOnly };
    match name {
        "remote-user"
        | "x-remote-user"
        | "x-auth-method"
        | "x-auth-session"
        | "x-client-cert"
        | "x-forwarded-client-cert"
        | "x-forwarded-user"
        | "x-forwarded-groups"
        | "x-forwarded-email"
        | "x-forwarded-preferred-username"
        | "x-http-method-override"
        | "x-http-method"
        | "x-method-override"
        | "x-original-url"
        | "x-original-uri"
        | "x-original-method"
        | "x-rewrite-url" => Origin::DoorwardOnly,
        "x-request-id" | "traceparent" | "tracestate" | "forwarded" | "x-real-ip" => Origin::TrustedProxy,
        _ if ["x-user-", "doorward-", "x-auth-request-", "x-webauth-", "x-ssl-client-"]
            .iter()
            .any(|prefix| name.starts_with(prefix)) =>
        {
            Origin::DoorwardOnly
        }
        _ if name.starts_with("x-forwarded-") => Origin::TrustedProxy,
        _ => Origin::Anybody,
    }
}

/// Whether the name, exactly as doorward itself spells it, is one that doorward sets from a trusted proxy's.
fn is_exact_spelling(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|byte| fold(byte) == byte)
}

/// Turns a client's headers into what the upstream gets.
pub fn rewrite(headers: &mut HeaderMap, permit: &Permit<'_>, forwarding: &Forwarding<'_>) {
    let judged = permit.judged();
    let service = judged.decision.service.and_then(|index| judged.snapshot.services().get(index as usize));

    headers.reserve(ADDED_HEADERS);
    // The client may nominate any header as hop-by-hop, but what doorward sets is set after this.
    // Nor can it take away what a trusted proxy says of the client: the decision has looked at that. (What others say so is
    // removed by its name.)
    remove_nominated(headers, |name| origin(name.as_str()) == Origin::Anybody);
    let passes_trailers = headers.get_all(TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    let keeps_authorization = service.is_some_and(|service| service.forward_authorization);
    let refused: SmallVec<[HeaderName; 8]> = headers
        .keys()
        .filter(|name| match origin(name.as_str()) {
            Origin::DoorwardOnly => true,
            Origin::TrustedProxy => !forwarding.from.trusted || !is_exact_spelling(name),
            Origin::Anybody => {
                is_hop_by_hop(name)
                    || **name == AUTHORIZATION && !keeps_authorization
                    || service.is_some_and(|service| is_stripped(&service.strip, name.as_str()))
            }
        })
        .cloned()
        .collect();
    for name in refused {
        headers.remove(name);
    }
    if passes_trailers {
        headers.insert(TE, TRAILERS);
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }

    let cookies = judged.snapshot.cookies();
    if !cookies.is_empty() {
        credential::remove_cookies(headers, cookies);
    }

    set_forwarding(headers, forwarding);
    headers.insert(HOST, forwarding.host.clone());
    headers.insert(REQUEST_ID, forwarding.request_id.clone());
    headers.insert(TRACEPARENT, forwarding.trace.clone());
    if let Some(caller) = &judged.caller {
        for (name, value) in caller.identity.headers() {
            headers.insert(name, value.clone());
        }
        headers.insert(identity::AUTH_METHOD, HeaderValue::from_static(caller.method.word()));
    }
}

fn is_stripped(strip: &[Box<str>], name: &str) -> bool {
    !strip.is_empty()
        && strip.iter().any(|stripped| {
            stripped.len() == name.len()
                && stripped.bytes().zip(name.bytes()).all(|(a, b)| fold(a.to_ascii_lowercase()) == fold(b))
        })
}

const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'-' }
}

fn set_forwarding(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let from = forwarding.from;
    let host = headers.get(HOST).cloned();
    let element = from.forwarded_element(host.as_ref());
    // From anybody but a trusted proxy these headers were removed before; from one, they are extended.
    let extended = |name: &HeaderName, own: &HeaderValue| joined(headers, name).and_then(|before| join(&before, own));
    let chain = from.trusted.then(|| extended(&FORWARDED_FOR, &from.address)).flatten();
    let elements = from.trusted.then(|| extended(&FORWARDED, &element)).flatten();
    headers.insert(FORWARDED_FOR, chain.unwrap_or_else(|| from.address.clone()));
    headers.insert(FORWARDED, elements.unwrap_or(element));
    // What a trusted proxy says of scheme and host is what the client used; only where it is silent is it known here.
    headers.entry(FORWARDED_PROTO).or_insert(from.proto());
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

impl PeerHeaders {
    /// Of a connection.
    #[must_use]
    pub fn new(connection: Arc<Established>, trusted: bool) -> Self {
        let peer = connection.client.ip();
        let address = HeaderValue::try_from(peer.to_canonical().to_string());
        let address = address.unwrap_or(HeaderValue::from_static("unknown"));
        Self { connection, peer, trusted, address, forwarded: Mutex::new(None) }
    }

    /// Whether a host is not one of those that the connection's certificate is for (T24): a client that reuses a connection for
    /// another name of the same address takes one policy's way round another's.
    #[must_use]
    pub fn is_misdirected(&self, host: Option<&Host>) -> bool {
        self.connection.tls.as_ref().zip(host).is_some_and(|(tls, host)| !tls.covers(host))
    }

    /// The scheme that the client used.
    fn proto(&self) -> HeaderValue {
        HeaderValue::from_static(if self.connection.tls.is_some() { "https" } else { "http" })
    }

    /// The connection's element of `Forwarded` (RFC 7239) for a request to `host`.
    fn forwarded_element(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let mut kept = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((of, element)), Some(host)) = (&*kept, host)
            && of == host
        {
            return element.clone();
        }
        let mut element = match self.peer.to_canonical() {
            IpAddr::V4(peer) => format!("for={peer}"),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
        };
        if let Some(host) = host.and_then(|host| host.to_str().ok()) {
            // A host holds neither a quote nor a backslash; it was parsed.
            let _ = write!(element, ";host=\"{host}\"");
        }
        element.push_str(";proto=");
        element.push_str(self.proto().to_str().unwrap_or_default());
        let element = HeaderValue::try_from(element).unwrap_or(HeaderValue::from_static("for=unknown"));
        // A copy, because the request's own value would keep the whole buffer that its head was read into.
        if let Some(host) = host.and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok()) {
            *kept = Some((host, element.clone()));
        }
        element
    }
}

fn join(before: &str, own: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{before}, {}", own.to_str().ok()?)).ok()
}

/// All lines of a list header as one (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Removes the headers that `Connection` nominates as belonging to this connection only (RFC 9110 section 7.6.1).
/// `removable` says of which names that is believed.
fn remove_nominated(headers: &mut HeaderMap, removable: impl Fn(&HeaderName) -> bool) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let nominated: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in nominated {
        // These decide how the message is framed, where it goes and who asks; nobody may take them away.
        if !matches!(name, CONTENT_LENGTH | TRANSFER_ENCODING | HOST | AUTHORIZATION | TE | TRAILER) && removable(&name)
        {
            headers.remove(name);
        }
    }
}

/// Whether a header belongs to one connection only, nominated or not; or is `Proxy`, which nothing honest sends and CGI turns
/// into the variable `HTTP_PROXY`.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TRANSFER_ENCODING | UPGRADE | TE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings" | "proxy")
}

/// Removes from trailers what may not come in headers either, and what frames or routes a message (RFC 9110 section 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    let forbidden: SmallVec<[HeaderName; 4]> = trailers
        .keys()
        .filter(|name| {
            origin(name.as_str()) != Origin::Anybody
                || matches!(**name, AUTHORIZATION | HOST | TRANSFER_ENCODING | CONNECTION | TE | UPGRADE)
                || matches!(
                    name.as_str(),
                    "content-length" | "content-type" | "content-encoding" | "trailer" | "cookie" | "expect"
                )
        })
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// Removes from an answer's trailers what an upstream may not say in doorward's name, or what frames a message.
pub fn strip_response_trailers(trailers: &mut HeaderMap) {
    let removed: SmallVec<[HeaderName; 4]> = trailers
        .keys()
        .filter(|name| is_hop_by_hop(name) || is_doorwards_word(name) || matches!(**name, CONTENT_LENGTH | SET_COOKIE))
        .cloned()
        .collect();
    for name in removed {
        trailers.remove(name);
    }
}

/// Whether only doorward may say this in an answer, in any spelling: a proxy in front may read names as CGI does.
fn is_doorwards_word(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|begin| begin.iter().map(|byte| fold(*byte)).eq(prefix.bytes()))
    };
    // Nearly every header of an answer begins with another letter than these.
    match name.first() {
        Some(b'x') => begins("x-user-") || begins("x-auth-") || name.len() == 12 && begins("x-request-id"),
        Some(b'd') => begins("doorward-"),
        Some(b'a') => name.len() == 7 && begins("alt-svc"),
        _ => false,
    }
}

/// Whether an answer can be passed on. A 101 answers an `Upgrade` that was never forwarded (T25), another 1xx is no final
/// answer, and a transfer coding beside `chunked` (RFC 9112 section 7) would be taken off its header and left on its bytes.
///
/// # Errors
/// What is wrong with it, for logs.
pub fn check_response(status: StatusCode, headers: &HeaderMap) -> Result<(), &'static str> {
    if status.is_informational() {
        return Err("the upstream switched protocols, which nobody asked of it");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err("the upstream's answer has a transfer coding other than chunked"),
    }
}

/// What of a request its answer depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Whether it had an identity.
    pub identified: bool,
    /// Its service.
    pub service: Option<&'a Service>,
    /// `cache:` of its route.
    pub cache: Option<CachePolicy>,
    /// The cookies that carry tokens.
    pub cookies: &'a [Arc<str>],
}

/// Turns an upstream's response headers into what the client gets (T27).
pub fn rewrite_response(headers: &mut HeaderMap, asked: &Asked<'_>) {
    // Chunks were what ended the body, so a length beside them says something else (RFC 9112 section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    // Said twice alike, it is written anew: as the one number that the body was read by (RFC 9112 section 6.3).
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if lengths.next().is_some_and(|first| lengths.next().is_some() || first.as_bytes().contains(&b',')) {
        headers.remove(CONTENT_LENGTH);
    }
    remove_nominated(headers, |_| true);
    let removed: SmallVec<[HeaderName; 4]> =
        headers.keys().filter(|name| is_hop_by_hop(name) || is_doorwards_word(name)).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
    if !asked.cookies.is_empty() {
        drop_set_cookies(headers, asked.cookies);
    }
    let silent = ![CACHE_CONTROL, EXPIRES, PRAGMA].iter().any(|name| headers.contains_key(name));
    if asked.identified && silent && asked.cache != Some(CachePolicy::Shared) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
        // Where a cookie may say who is asking, an answer depends on both, whichever was sent.
        let by_cookie = asked.service.is_some_and(|service| service.cookie.is_some());
        headers
            .append(VARY, HeaderValue::from_static(if by_cookie { "Authorization, Cookie" } else { "Authorization" }));
    }
}

/// Only who may log a user in sets the cookie that says who it is; a service behind doorward may not (T26).
fn drop_set_cookies(headers: &mut HeaderMap, names: &[Arc<str>]) {
    if !headers.get_all(SET_COOKIE).iter().any(|line| credential::sets_cookie(line, names)) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter(|line| !credential::sets_cookie(line, names)).cloned().collect();
    headers.remove(SET_COOKIE);
    for line in kept {
        headers.append(SET_COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t23_every_spelling_of_an_identity_header_is_doorwards_own() {
        for name in [
            "x-user-id",
            "x_user_id",
            "x.user.id",
            "x-user_name",
            "x-user-anything",
            "remote-user",
            "remote_user",
            "x-remote-user",
            "x-forwarded-user",
            "x-forwarded-groups",
            "x-forwarded-email",
            "x-auth-request-user",
            "x-webauth-user",
            "x-ssl-client-cn",
            "x-client-cert",
            "x-forwarded-client-cert",
            "x-auth-method",
            "x-auth_session",
            "doorward-decision",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x_rewrite_url",
            "x~user~id",
            "x!user|id",
            "remote+user",
        ] {
            assert_eq!(origin(name), Origin::DoorwardOnly, "{name}");
        }
        for name in ["accept", "x-api-key", "x-userland", "cookie", "x-auth-token", "range", "referer"] {
            assert_eq!(origin(name), Origin::Anybody, "{name}");
        }
        for name in
            ["x-forwarded-for", "x_forwarded_for", "forwarded", "x-request-id", "traceparent", "x-forwarded-proto"]
        {
            assert_eq!(origin(name), Origin::TrustedProxy, "{name}");
        }
    }
}
