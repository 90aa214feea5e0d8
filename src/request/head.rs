//! What the raw head of an HTTP/1.1 request must be before a parser may see it (RFC 9112).
//!
//! hyper accepts bare line feeds, joins equal `Content-Length`s, drops `Content-Length` beside
//! `Transfer-Encoding` and cuts a target at `#` before a service sees the request. A proxy that guards
//! another parser must not: whatever two parsers could read differently is refused here, also where RFC 9112
//! lets a lone server be lenient (an empty line before the request, white space around a length).

pub mod http2;

use memchr::memchr;

use super::Rejection;
use super::host::Authority;
use super::target::check_method;
use crate::reason::Reason;

/// How the body that follows a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body follows.
    None,
    /// This many bytes follow; never 0.
    Length(u64),
    /// Chunks follow.
    Chunked,
}

/// What was learned from a head that may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadFacts {
    /// The framing of the body.
    pub framing: Framing,
    /// Whether the client asked for an upgrade to WebSocket (an HTTP/1.1 GET without a body, `Connection: upgrade`,
    /// `Upgrade: websocket` and no other), after which bytes are no longer HTTP/1.1 messages.
    pub upgrade: bool,
    /// What the client expects before it sends the body (nothing in HTTP/1.0).
    pub expects: Expectation,
}

/// What `Expect` says (RFC 9110 section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expectation {
    /// Nothing.
    #[default]
    Nothing,
    /// `100-continue`.
    Continue,
    /// Something that nobody here can meet.
    Other,
}

impl Expectation {
    /// With one more line.
    fn and(self, value: &[u8]) -> Self {
        match self {
            Self::Other => Self::Other,
            _ if trim(value).eq_ignore_ascii_case(b"100-continue") => Self::Continue,
            _ => Self::Other,
        }
    }
}

/// Limits on one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, request line included.
    pub bytes: usize,
    /// Number of header lines.
    pub headers: usize,
}

/// The longest method that is anybody's (the longest registered one has 17 bytes). A longer one is no HTTP.
const LONGEST_METHOD: usize = 32;

/// Finds the end of a head: the index behind the empty line, if it is complete. `from` is how many
/// leading bytes earlier calls have seen (so that slow heads cost linear time).
///
/// Lines that end in bare line feeds end a head too, so that it is refused by [`inspect`] and not waited for.
#[must_use]
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(2).min(bytes.len());
    while let Some(step) = memchr(b'\n', &bytes[at..]) {
        at += step + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// What to refuse a head with that has outgrown its limit before it ended. `prefix` is what came of it.
///
/// `headers_too_large`, unless it did not even begin like HTTP.
#[must_use]
pub fn overflow(prefix: &[u8]) -> Rejection {
    match memchr(b' ', &prefix[..prefix.len().min(LONGEST_METHOD + 1)]) {
        Some(space) if space > 0 => {
            Rejection { reason: Reason::HeadersTooLarge, detail: "the head is larger than the limit".into() }
        }
        _ => Rejection::request("no method at the beginning of the head"),
    }
}

/// Checks one complete head (request line, header lines, empty line).
///
/// # Errors
/// A [`Rejection`]: `bad_request` (framing, header syntax, Host), `bad_request_target`, or `headers_too_large`.
pub fn inspect(head: &[u8], limits: &HeadLimits) -> Result<HeadFacts, Rejection> {
    if head.len() > limits.bytes {
        return Err(overflow(head));
    }
    let (line, mut rest) = line(head)?;
    let request = request_line(line)?;
    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let (line, behind) = self::line(rest)?;
        rest = behind;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.headers {
            return Err(Rejection {
                reason: Reason::HeadersTooLarge,
                detail: "more header lines than the limit".into(),
            });
        }
        fields.read(line)?;
    }
    if !rest.is_empty() {
        return Err(Rejection::request("an empty line inside the head"));
    }
    fields.judge(&request)
}

/// Whether a byte may stand in a token, such as a method or a header name (RFC 9110 section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether all bytes may stand in a field value (RFC 9110 section 5.5): visible, space, tab, or above ASCII.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    // Without an early end, so that it is done sixteen bytes at a time.
    !bytes.iter().fold(false, |bad, &b| bad | ((b < 0x20) & (b != b'\t')) | (b == 0x7F))
}

/// Without the optional white space around it (RFC 9110 section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The first line, without its CRLF, and what follows.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Rejection> {
    let end = memchr(b'\n', bytes).ok_or(Rejection::request("a head without its end"))?;
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Rejection::request("a bare line feed in the head"))?;
    Ok((line, &bytes[end + 1..]))
}

/// The parts of a request line.
struct Request<'h> {
    method: &'h [u8],
    /// The authority in the target, and the port that its scheme implies.
    authority: Option<(Authority<'h>, Option<u16>)>,
    http10: bool,
}

/// Reads `method SP target SP version` (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<Request<'_>, Rejection> {
    if line.is_empty() {
        return Err(Rejection::request("an empty line before the request line"));
    }
    let space = memchr(b' ', &line[..line.len().min(LONGEST_METHOD + 1)]);
    let (method, rest) = line.split_at(space.ok_or(Rejection::request("no method in the request line"))?);
    check_method(str::from_utf8(method).map_err(|_| Rejection::request("a method that is no token"))?)?;
    let (target, http10) = match rest.split_last_chunk::<9>() {
        Some((target, b" HTTP/1.1")) => (target, false),
        Some((target, b" HTTP/1.0")) => (target, true),
        _ => return Err(Rejection::request("a request line that does not end in HTTP/1.1 or HTTP/1.0")),
    };
    let target = match target {
        [b' ', target @ ..] if !target.is_empty() => target,
        _ => return Err(Rejection::request("a request line without a target")),
    };
    if target.contains(&b' ') {
        return Err(Rejection::request("more than two spaces in the request line"));
    }
    if !target.iter().fold(true, |good, &b| good & b.is_ascii_graphic() & (b != b'#')) {
        return Err(Rejection::target("a raw byte outside printable ASCII, or `#`, in the target"));
    }
    let authority = authority(method, target)?;
    Ok(Request { method, authority, http10 })
}

/// Checks the form of a target (RFC 9112 section 3.2): the authority in it, with the port of its scheme.
fn authority<'h>(method: &[u8], target: &'h [u8]) -> Result<Option<(Authority<'h>, Option<u16>)>, Rejection> {
    if method == b"CONNECT" {
        return Authority::parse(target).map(|authority| Some((authority, None)));
    }
    let (rest, port) = match target {
        [b'/', ..] => return Ok(None),
        b"*" if method == b"OPTIONS" => return Ok(None),
        _ => match strip_scheme(target, b"http://").map(|rest| (rest, 80)) {
            Some(found) => found,
            None => match strip_scheme(target, b"https://").map(|rest| (rest, 443)) {
                Some(found) => found,
                None => return Err(Rejection::target("a target that is neither a path nor an http or https URI")),
            },
        },
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    if rest.get(end) == Some(&b'?') {
        return Err(Rejection::target("an absolute target with a query and no path"));
    }
    Authority::parse(&rest[..end]).map(|authority| Some((authority, Some(port))))
}

fn strip_scheme<'h>(target: &'h [u8], scheme: &[u8]) -> Option<&'h [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// What the header lines say of host, framing and connection.
#[derive(Default)]
struct Fields<'h> {
    host: Option<Authority<'h>>,
    length: Option<u64>,
    chunked: Option<()>,
    content_type: Option<()>,
    /// How many `Upgrade` lines there are, and whether the last says `websocket`.
    upgrades: (usize, bool),
    connection_upgrade: bool,
    expects: Expectation,
}

impl<'h> Fields<'h> {
    /// Reads one header line (RFC 9112 section 5).
    fn read(&mut self, line: &'h [u8]) -> Result<(), Rejection> {
        let end = line.iter().position(|&b| !is_token(b)).unwrap_or(line.len());
        let (name, value) = match line.split_at(end) {
            ([], [b' ' | b'\t', ..]) => {
                return Err(Rejection::request("a folded header line, or one that begins with white space"));
            }
            ([], _) => return Err(Rejection::request("a header line without a name")),
            (name, [b':', value @ ..]) => (name, value),
            _ => {
                return Err(Rejection::request(
                    "a byte in a header name that no token may hold, or no colon behind it",
                ));
            }
        };
        if !is_field_value(value) {
            return Err(Rejection::request("a control character in a header value"));
        }
        // Nearly all other names differ in length from these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                once(&mut self.host, Authority::parse(trim(value))?, "two Host headers")?;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects = self.expects.and(value);
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrades = (self.upgrades.0 + 1, trim(value).eq_ignore_ascii_case(b"websocket"));
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&b| b == b',').map(trim) {
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                once(&mut self.content_type, (), "two Content-Type headers")?;
            }
            14 if is_spelling(name, b"content-length") => {
                if name[7] != b'-' {
                    return Err(Rejection::request("a spelling of Content-Length that some servers take for it"));
                }
                once(&mut self.length, content_length(value)?, "two Content-Length headers")?;
            }
            17 if is_spelling(name, b"transfer-encoding") => {
                if name[8] != b'-' {
                    return Err(Rejection::request("a spelling of Transfer-Encoding that some servers take for it"));
                }
                if !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(Rejection::request("a Transfer-Encoding other than `chunked`"));
                }
                once(&mut self.chunked, (), "two Transfer-Encoding headers")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the lines fit one another and the request line.
    fn judge(self, request: &Request<'_>) -> Result<HeadFacts, Rejection> {
        match (&self.host, &request.authority) {
            (None, _) if !request.http10 => return Err(Rejection::request("no Host header")),
            (Some(host), Some((authority, port))) if !authority.agrees(host, *port) => {
                return Err(Rejection::request("the Host header disagrees with the request's authority"));
            }
            _ => {}
        }
        let framing = match (self.chunked.is_some(), self.length) {
            (true, Some(_)) => return Err(Rejection::request("Content-Length beside Transfer-Encoding")),
            (true, None) if request.http10 => return Err(Rejection::request("Transfer-Encoding in HTTP/1.0")),
            (true, None) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
        };
        let upgrade = self.upgrades == (1, true)
            && self.connection_upgrade
            && request.method == b"GET"
            && !request.http10
            && framing == Framing::None;
        Ok(HeadFacts { framing, upgrade, expects: if request.http10 { Expectation::Nothing } else { self.expects } })
    }
}

/// Notes a field that stands in a head at most once.
fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), Rejection> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Rejection::request(twice)),
    }
}

/// Whether a header name is `plain`, or what a server that joins names into variables (CGI, WSGI) takes for it:
/// in any case, with `_` or `.` for `-`.
pub(super) fn is_spelling(name: &[u8], plain: &[u8]) -> bool {
    let fold = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == plain.len() && name.iter().zip(plain).all(|(&a, &b)| fold(a) == b)
}

/// Reads a length: digits without leading zeros (some parsers read octal), with at most the one space before
/// them that everybody writes.
fn content_length(value: &[u8]) -> Result<u64, Rejection> {
    let digits = value.strip_prefix(b" ").unwrap_or(value);
    let plain = match digits {
        [] => false,
        [b'0', _, ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    let number = if plain { str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) } else { None };
    number.ok_or(Rejection::request("a Content-Length that is no plain number"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
mod corpus;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests;
