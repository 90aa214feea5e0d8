//! Cleaning a request target, so that what is matched is, byte for byte, what is forwarded (SPEC 3.2).

use std::borrow::Cow;

use super::Rejection;
use super::head::is_token;

/// What a host's policy loosens. The default refuses everything that two parsers could read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PathRules {
    /// `.` and `..` segments, plain or encoded.
    pub dot_segments: DotSegments,
    /// Repeated slashes.
    pub double_slash: DoubleSlash,
    /// `;name=value` parameters inside a segment.
    pub matrix_params: MatrixParams,
    /// `%2F` inside a segment.
    pub encoded_slash: EncodedSlash,
    /// `%3F`, `%23`, `%25`, `%3B` and `%5C` inside a segment.
    pub encoded_reserved: EncodedReserved,
    /// Whether literals are compared without regard to ASCII case.
    pub case: Case,
    /// Whether `/x` and `/x/` are the same path.
    pub trailing_slash: TrailingSlash,
}

macro_rules! loosening {
    ($(#[doc = $doc:literal])+ $name:ident { $strict:ident, $loose:ident = $word:literal }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
        pub enum $name {
            /// As strict as doorward is by default.
            #[default]
            $strict,
            #[doc = concat!("`", $word, "` in the policy's `path:` block.")]
            $loose,
        }
        impl $name {
            /// The word that loosens it in a policy file.
            pub const WORD: &'static str = $word;
        }
    };
}

loosening! { /// Dot segments: refused, or resolved as RFC 3986 section 5.2.4 says.
DotSegments { Refuse, Resolve = "resolve" } }
loosening! { /// Repeated slashes: refused, or merged into one.
DoubleSlash { Refuse, Merge = "merge" } }
loosening! { /// Matrix parameters: refused, or matched without and forwarded with them.
MatrixParams { Refuse, Keep = "keep" } }
loosening! { /// An encoded slash: refused, or kept inside its segment.
EncodedSlash { Refuse, Keep = "keep" } }
loosening! { /// Other encoded delimiters: refused, or kept.
EncodedReserved { Refuse, Keep = "keep" } }
loosening! { /// Letter case of literals: significant, or ignored.
Case { Sensitive, Insensitive = "insensitive" } }
loosening! { /// A trailing slash: significant, or ignored when matching (it is forwarded as sent).
TrailingSlash { Distinct, Same = "same" } }

/// A cleaned target. Private fields: [`clean`] is the only constructor, so holding one proves that it
/// was cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanTarget<'r> {
    /// Path and query, byte for byte what is forwarded.
    forward: Cow<'r, str>,
    /// Length of the path within `forward`.
    path_len: usize,
    /// The decoded segments, where they differ from the text of the path.
    decoded: Option<Vec<Box<[u8]>>>,
    /// Length of the part of `forward` that is matched (differs from `path_len` only where a
    /// trailing slash is ignored).
    match_len: usize,
}

/// The form of a path that patterns are compared with.
#[derive(Debug, Clone, Copy)]
pub enum MatchPath<'p> {
    /// Begins with `/`; split at `/`, each segment stands for itself. Nearly every request.
    Plain(&'p str),
    /// The segments decoded, matrix parameters dropped (`/a%2Fb/c` with a kept slash is `["a/b", "c"]`).
    Decoded(&'p [Box<[u8]>]),
}

impl CleanTarget<'_> {
    /// What goes on the wire to the upstream: the cleaned path, and the query as it came.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.forward
    }

    /// The cleaned path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.forward[..self.path_len]
    }

    /// What patterns are compared with.
    #[must_use]
    pub fn match_path(&self) -> MatchPath<'_> {
        match &self.decoded {
            None => MatchPath::Plain(&self.forward[..self.match_len]),
            Some(segments) => MatchPath::Decoded(segments),
        }
    }
}

/// Cleans a target in origin form under the rules of the host that it is meant for.
///
/// Escapes of unreserved characters are decoded once, the hexadecimal of all others is written in upper
/// case, and what two parsers could read differently is refused, or transformed where `rules` loosen it.
/// Cleaning what was cleaned changes nothing. A target without anything special is not copied.
///
/// # Errors
/// [`Rejection`] with `bad_request_target` and what was found at which byte (counted from 0), if the
/// target could be read in two ways.
pub fn clean<'r>(target: &'r str, rules: &PathRules) -> Result<CleanTarget<'r>, Rejection> {
    let bytes = target.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Rejection::target("the target does not begin with a slash"));
    }
    if surely_plain(bytes) {
        let (path_len, match_len) = (bytes.len(), match_len(bytes, bytes.len(), rules));
        return Ok(CleanTarget { forward: Cow::Borrowed(target), path_len, decoded: None, match_len });
    }
    let mut plain = true;
    let mut after_slash = false;
    let mut path_len = bytes.len();
    for (at, &byte) in bytes.iter().enumerate() {
        match CLASS[usize::from(byte)] {
            Class::Plain => after_slash = false,
            Class::Slash => {
                plain &= !after_slash;
                after_slash = true;
            }
            Class::Dot => {
                // `/.well-known` is as plain as any other.
                plain &=
                    !after_slash || bytes.get(at + 1).is_some_and(|&b| matches!(CLASS[usize::from(b)], Class::Plain));
                after_slash = false;
            }
            Class::Query => {
                path_len = at;
                break;
            }
            Class::Special => plain = false,
            Class::Never => return Err(refuse(never(byte), at)),
        }
    }
    if let Some(at) = bytes[path_len..].iter().position(|&b| b == b'#' || !b.is_ascii_graphic()) {
        let at = path_len + at;
        return Err(refuse(never(bytes[at]), at));
    }
    if plain {
        let match_len = match_len(bytes, path_len, rules);
        return Ok(CleanTarget { forward: Cow::Borrowed(target), path_len, decoded: None, match_len });
    }
    rewrite(target, path_len, rules)
}

/// Whether a target is a path alone in which nothing is special: the answer for nearly all. A "no" means nothing.
///
/// The question is asked of 16 bytes at once; the last 16 overlap those before, which does no harm.
#[inline]
fn surely_plain(bytes: &[u8]) -> bool {
    // Each byte with the one before it.
    let Some((_, behind)) = bytes.split_first() else { return false };
    let before = &bytes[..behind.len()];
    let suspect = |before: u8, byte: u8| {
        let special = matches!(byte, b'%' | b';' | b'\\' | b'#' | b'?') | !(0x21..0x7F).contains(&byte);
        special | ((before == b'/') & ((byte == b'/') | (byte == b'.')))
    };
    let any = |before: &[u8; 16], behind: &[u8; 16]| {
        before.iter().zip(behind).fold(false, |any, (before, byte)| any | suspect(*before, *byte))
    };
    let (Some(last_before), Some(last)) = (before.last_chunk(), behind.last_chunk()) else {
        return !before.iter().zip(behind).any(|(before, byte)| suspect(*before, *byte));
    };
    let chunks = before.as_chunks().0.iter().zip(behind.as_chunks().0);
    !chunks.fold(any(last_before, last), |found, (before, behind)| found | any(before, behind))
}

/// Refuses a method that services could read differently: one with a lower-case letter (some servers
/// fold it, RFC 9110 section 9.1 says it is another method), or that is no token.
///
/// # Errors
/// `bad_request` naming the byte.
pub fn check_method(method: &str) -> Result<(), Rejection> {
    match method.bytes().position(|b| !is_token(b) || b.is_ascii_lowercase()) {
        None if method.is_empty() => Err(Rejection::request("an empty method")),
        None => Ok(()),
        Some(at) if method.as_bytes()[at].is_ascii_lowercase() => {
            Err(Rejection::request(format!("a lower-case letter in the method at byte {at}")))
        }
        Some(at) => Err(Rejection::request(format!("a byte in the method that no token may hold, at byte {at}"))),
    }
}

/// What a byte of a path asks for on the first pass.
#[derive(Clone, Copy)]
enum Class {
    /// Stands for itself.
    Plain,
    Slash,
    /// Stands for itself unless a segment begins with it.
    Dot,
    /// Ends the path.
    Query,
    /// An escape or a matrix parameter: the second pass decides.
    Special,
    /// No rule lets it pass.
    Never,
}

static CLASS: [Class; 256] = {
    let mut table = [Class::Never; 256];
    let mut byte = 0x21;
    while byte < 0x7F {
        table[byte] = Class::Plain;
        byte += 1;
    }
    table[b'/' as usize] = Class::Slash;
    table[b'.' as usize] = Class::Dot;
    table[b'?' as usize] = Class::Query;
    table[b'%' as usize] = Class::Special;
    table[b';' as usize] = Class::Special;
    table[b'\\' as usize] = Class::Never;
    table[b'#' as usize] = Class::Never;
    table
};

fn refuse(what: &str, at: usize) -> Rejection {
    Rejection::target(format!("{what} at byte {at}"))
}

fn never(byte: u8) -> &'static str {
    match byte {
        b'\\' => "a raw backslash",
        b'#' => "a raw `#`",
        _ => "a raw byte outside printable ASCII",
    }
}

/// Length of the part of the path that is matched.
fn match_len(path: &[u8], path_len: usize, rules: &PathRules) -> usize {
    let ignored = rules.trailing_slash == TrailingSlash::Same && path_len > 1 && path[path_len - 1] == b'/';
    path_len - usize::from(ignored)
}

/// What one segment turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Named,
    Empty,
    /// Kept matrix parameters without a name before them.
    Nameless,
    Dot,
    DotDot,
}

/// The second pass, for paths with escapes, parameters, dot segments or repeated slashes.
fn rewrite<'r>(target: &'r str, raw_len: usize, rules: &PathRules) -> Result<CleanTarget<'r>, Rejection> {
    let raw = &target.as_bytes()[..raw_len];
    let mut path = Vec::with_capacity(target.len());
    let mut plain = Vec::new();
    // Where the segments that still stand begin: RFC 3986 section 5.2.4 takes the last one back for `..`.
    let mut standing = Vec::new();
    let mut at = 1;
    loop {
        let end = raw[at..].iter().position(|&b| b == b'/').map_or(raw_len, |n| at + n);
        let last = end == raw_len;
        let start = path.len();
        path.push(b'/');
        plain.clear();
        match segment(&raw[at..end], at, rules, &mut path, &mut plain)? {
            Segment::Empty if !last && rules.double_slash == DoubleSlash::Refuse => {
                return Err(refuse("repeated slashes", at - 1));
            }
            // A service that drops the parameters first sees two slashes here.
            Segment::Nameless if !last => return Err(refuse("parameters of an empty segment", at)),
            Segment::Dot | Segment::DotDot if rules.dot_segments == DotSegments::Refuse => {
                return Err(refuse("a dot segment", at));
            }
            Segment::Dot => path.truncate(start),
            Segment::DotDot => path.truncate(standing.pop().unwrap_or(0)),
            Segment::Named | Segment::Empty | Segment::Nameless => standing.push(start),
        }
        if last {
            // `/a/.` and `/a/b/..` name the directory: `/a/`.
            if path.len() <= start {
                path.push(b'/');
            }
            break;
        }
        at = end + 1;
    }
    path.dedup_by(|this, before| *this == b'/' && *before == b'/');

    let path_len = path.len();
    let match_len = match_len(&path, path_len, rules);
    let decoded = path.iter().any(|&b| b == b'%' || b == b';').then(|| decode_segments(&path[1..], rules));
    let forward = if path == raw {
        Cow::Borrowed(target)
    } else {
        // The path is ASCII: every byte of it was checked.
        let mut forward = String::with_capacity(path_len + target.len() - raw_len);
        forward.extend(path.iter().copied().map(char::from));
        forward.push_str(&target[raw_len..]);
        Cow::Owned(forward)
    };
    Ok(CleanTarget { forward, path_len, decoded, match_len })
}

/// Cleans one segment: appends what is forwarded to `path`, and what it means to `plain` (escapes
/// decoded, parameters still there). `at` is where the segment begins in the target.
fn segment(
    raw: &[u8],
    at: usize,
    rules: &PathRules,
    path: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> Result<Segment, Rejection> {
    let start = path.len();
    let mut parameters = None;
    let mut index = 0;
    while index < raw.len() {
        let byte = raw[index];
        let here = at + index;
        index += 1;
        match byte {
            b'%' => {
                let escape = raw.get(index..index + 2).and_then(|hex| Some((hex_value(hex[0])?, hex_value(hex[1])?)));
                let (high, low) = escape.ok_or_else(|| refuse("a bad escape", here))?;
                index += 2;
                let value = high << 4 | low;
                escaped(value, here, rules)?;
                plain.push(value);
                if is_unreserved(value) {
                    path.push(value);
                } else {
                    path.extend([b'%', HEX[usize::from(high)], HEX[usize::from(low)]]);
                }
            }
            b';' => {
                if rules.matrix_params == MatrixParams::Refuse {
                    return Err(refuse("`;` parameters", here));
                }
                parameters.get_or_insert(path.len() - start);
                plain.push(byte);
                path.push(byte);
            }
            _ => {
                plain.push(byte);
                path.push(byte);
            }
        }
    }
    // Looked for in what is forwarded, so that `%25%34%31` is found too.
    if path[start..].windows(5).any(|w| w.starts_with(b"%25") && w[3].is_ascii_hexdigit() && w[4].is_ascii_hexdigit()) {
        return Err(refuse("a double-encoded escape in the segment", at));
    }
    // The plain form is ASCII but for what was escaped.
    let text = str::from_utf8(plain)
        .map_err(|_| refuse("an overlong escape, or escapes that are not UTF-8, in the segment", at))?;
    if text.chars().any(char::is_control) {
        return Err(refuse("an encoded control character in the segment", at));
    }
    match plain.as_slice() {
        b"" => return Ok(Segment::Empty),
        b"." => return Ok(Segment::Dot),
        b".." => return Ok(Segment::DotDot),
        _ => {}
    }
    // What a service might see that decodes a kept slash or drops parameters before it resolves.
    let hidden = plain.split(|b| matches!(b, b'/' | b'\\')).any(|part| {
        let name = part.split(|b| matches!(b, b';' | b'?' | b'#')).next().unwrap_or_default();
        matches!(name, b"." | b"..")
    });
    if hidden {
        return Err(refuse("a hidden dot segment", at));
    }
    Ok(if parameters == Some(0) { Segment::Nameless } else { Segment::Named })
}

/// Whether this byte may have been escaped.
fn escaped(value: u8, at: usize, rules: &PathRules) -> Result<(), Rejection> {
    match value {
        0x00..=0x1F | 0x7F => Err(refuse("an encoded control character", at)),
        b'/' if rules.encoded_slash == EncodedSlash::Refuse => Err(refuse("an encoded slash", at)),
        b'\\' | b'?' | b'#' | b'%' | b';' if rules.encoded_reserved == EncodedReserved::Refuse => {
            Err(refuse(&format!("an encoded `{}`", char::from(value)), at))
        }
        _ => Ok(()),
    }
}

/// The segments of a cleaned path (without its first slash) as patterns see them.
fn decode_segments(path: &[u8], rules: &PathRules) -> Vec<Box<[u8]>> {
    let mut segments: Vec<Box<[u8]>> = path.split(|&b| b == b'/').map(decode_segment).collect();
    let ignored = rules.trailing_slash == TrailingSlash::Same && segments.len() > 1;
    if ignored && segments.last().is_some_and(|last| last.is_empty()) {
        segments.pop();
    }
    segments
}

/// Decodes the escapes of a cleaned segment, and drops its parameters.
fn decode_segment(segment: &[u8]) -> Box<[u8]> {
    let mut plain = Vec::with_capacity(segment.len());
    let mut rest = segment.split(|&b| b == b';').next().unwrap_or_default();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => {
                plain.push(hex_value(*high).unwrap_or(0) << 4 | hex_value(*low).unwrap_or(0));
                rest = behind;
            }
            _ => plain.push(byte),
        }
    }
    plain.into_boxed_slice()
}

const HEX: [u8; 16] = *b"0123456789ABCDEF";

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
mod corpus;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
