//! The grammar of a path pattern (SPEC 4).
//!
//! A pattern is `/` and segments joined by `/`. A segment is a literal (`schema`, `%C3%A9t%C3%A9`), a parameter
//! (`{id}`), a typed parameter (`{n:int}`, `{id:uuid}`), literals and parameters mixed (`{id}.json`,
//! `{base}...{head}`), or, as the last one, `{rest...}`. Literals are kept as the bytes that they decode to,
//! because requests are compared in decoded form too. What no cleaned request could ever match (dot segments,
//! `//`, `?`, control characters, …) is an error here rather than a route that sleeps.

use std::ops::Range;

use crate::request::{PathRules, target};

/// The longest pattern, in segments. It bounds the depth of the search for a match.
pub const MAX_SEGMENTS: usize = 128;

/// A path pattern, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// At least one; an empty literal, which only the last can be, stands for a trailing slash.
    pub segments: Vec<Segment>,
    /// The first encoded delimiter of a literal, which matches only where the host's `path:` block keeps it.
    pub needs: Option<(Keep, Range<usize>)>,
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These bytes, after decoding.
    Literal(Box<[u8]>),
    /// One segment of a form.
    Typed(ParamName, ParamType),
    /// Literals and parameters in one segment.
    Mixed(Mixed),
    /// One non-empty segment.
    Param(ParamName),
    /// All that is left, one byte or more, slashes included.
    Rest(ParamName),
}

/// The name of a parameter.
pub type ParamName = Box<str>;

/// The form of a typed parameter. The forms are disjoint: no segment has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParamType {
    /// `0|[1-9][0-9]*`
    Int,
    /// Five groups of 8, 4, 4, 4 and 12 hexadecimal digits of either case, joined by `-` (RFC 9562 section 4).
    Uuid,
}

/// Literals and parameters in one segment, for example `{base}...{head}`. Each parameter takes one byte or
/// more: every one but the last as few as it can, from the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixed {
    /// What the segment begins with; may be empty.
    pub prefix: Box<[u8]>,
    /// Parameters, each with the literal that follows it; only the last literal may be empty.
    pub parts: Vec<(ParamName, Box<[u8]>)>,
}

/// A loosening of the `path:` block that a literal depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// `encoded_slash: keep`
    Slash,
    /// `encoded_reserved: keep`
    Reserved,
}

/// What is wrong with a pattern, at which bytes of it, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// A fragment in lower case.
    pub message: String,
    /// A full sentence.
    pub help: String,
    /// Byte offsets in the pattern.
    pub at: Range<usize>,
}

/// Where a route finds one of its parameters: by place, because paths of one shape may use other names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamPlace {
    /// The segment, from 0.
    pub segment: u16,
    /// What of it.
    pub part: ParamPart,
}

/// What of a segment a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamPart {
    /// All of it.
    Whole,
    /// The parameter of this number within a mixed segment.
    Mixed(u16),
    /// It, and all that follows.
    Rest,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The first [`PatternError`] from the left.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(path) = text.strip_prefix('/') else {
            let first = text.chars().next().map_or(0, char::len_utf8);
            return fault(0..first, "a path begins with `/`", format!("Write `/{text}`."));
        };
        let mut pattern = Self { segments: Vec::new(), needs: None };
        let mut names: Vec<&str> = Vec::new();
        let mut offset = 1;
        let mut rest_at: Option<Range<usize>> = None;
        for written in split_segments(path) {
            let at = offset..offset + written.len();
            offset = at.end + 1;
            if let Some(rest) = rest_at {
                return fault(
                    rest,
                    "a `{rest...}` parameter must be the last segment",
                    "Move it to the end, or write `{name}` for one segment.",
                );
            }
            if written.is_empty() && at.end != text.len() {
                return fault(
                    at.start - 1..at.end + 1,
                    "an empty segment",
                    "Write one `/`; `path: {double_slash: merge}` is for what clients send.",
                );
            }
            let segment = parse_segment(written, at.clone(), &mut pattern.needs, &mut names)?;
            if matches!(segment, Segment::Rest(_)) {
                rest_at = Some(at.clone());
            }
            pattern.segments.push(segment);
            if pattern.segments.len() > MAX_SEGMENTS {
                return fault(at, format!("more than {MAX_SEGMENTS} segments"), "End the pattern with `{rest...}`.");
            }
        }
        Ok(pattern)
    }

    /// What a literal needs the host's rules to keep, if they do not.
    #[must_use]
    pub fn unmet(&self, rules: &PathRules) -> Option<(Keep, Range<usize>)> {
        self.needs.clone().filter(|(keep, _)| match keep {
            Keep::Slash => rules.encoded_slash != target::EncodedSlash::Keep,
            Keep::Reserved => rules.encoded_reserved != target::EncodedReserved::Keep,
        })
    }

    /// The names of the parameters, from the left, with their places.
    pub fn params(&self) -> impl Iterator<Item = (&str, ParamPlace)> {
        self.segments.iter().zip(0_u16..).flat_map(|(segment, number)| {
            let place = move |part| ParamPlace { segment: number, part };
            match segment {
                Segment::Literal(_) => Vec::new(),
                Segment::Typed(name, _) | Segment::Param(name) => vec![(&**name, place(ParamPart::Whole))],
                Segment::Rest(name) => vec![(&**name, place(ParamPart::Rest))],
                Segment::Mixed(mixed) => mixed
                    .parts
                    .iter()
                    .zip(0_u16..)
                    .map(|((name, _), part)| (&**name, place(ParamPart::Mixed(part))))
                    .collect(),
            }
        })
    }
}

impl ParamType {
    /// Whether a segment has this form.
    #[must_use]
    pub fn accepts(self, segment: &[u8]) -> bool {
        match self {
            Self::Int => match segment {
                [b'0'] => true,
                [b'1'..=b'9', more @ ..] => more.iter().all(u8::is_ascii_digit),
                _ => false,
            },
            Self::Uuid => {
                segment.len() == 36
                    && segment.iter().enumerate().all(|(index, byte)| match index {
                        8 | 13 | 18 | 23 => *byte == b'-',
                        _ => byte.is_ascii_hexdigit(),
                    })
            }
        }
    }
}

impl Mixed {
    /// The number of literal bytes, by which mixed segments are ranked.
    #[must_use]
    pub fn literal_len(&self) -> usize {
        self.prefix.len() + self.parts.iter().map(|(_, literal)| literal.len()).sum::<usize>()
    }

    /// Where each parameter lies in `segment`, if it matches. Taking the first occurrence of every inner
    /// literal leaves the most room for what follows, so nothing is missed by never trying a later one.
    /// `fold`: ASCII case is ignored, and the literals here are in lower case.
    #[must_use]
    pub fn split(&self, segment: &[u8], fold: bool) -> Option<smallvec::SmallVec<[Range<usize>; 4]>> {
        let mut found = smallvec::SmallVec::new();
        let (_, suffix) = self.parts.last()?;
        let end = segment.len().checked_sub(suffix.len())?;
        let mut from = self.prefix.len();
        if from > end || !same(&segment[..from], &self.prefix, fold) || !same(&segment[end..], suffix, fold) {
            return None;
        }
        for (_, literal) in &self.parts[..self.parts.len() - 1] {
            let at = from + 1 + position(segment.get(from + 1..end)?, literal, fold)?;
            found.push(from..at);
            from = at + literal.len();
        }
        if from >= end {
            return None;
        }
        found.push(from..end);
        Some(found)
    }

    /// A segment that both match, if there is one: the shortest path through the product of both patterns'
    /// automata. Exact, and at most `(bytes + parameters)²` steps.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> Option<Vec<u8>> {
        let (left, right) = (self.steps(), other.steps());
        let width = right.len() + 1;
        let mut came_from: Vec<Option<(usize, Option<u8>)>> = vec![None; (left.len() + 1) * width];
        let mut queue = std::collections::VecDeque::from([0]);
        came_from[0] = Some((0, None));
        let goal = left.len() * width + right.len();
        while let Some(state) = queue.pop_front() {
            if state == goal {
                let mut witness = Vec::new();
                let mut at = goal;
                while at != 0 {
                    let (previous, byte) = came_from[at]?;
                    witness.extend(byte);
                    at = previous;
                }
                witness.reverse();
                return Some(witness);
            }
            let (i, j) = (state / width, state % width);
            let mut visit = |i: usize, j: usize, byte: Option<u8>| {
                let next = i * width + j;
                if came_from[next].is_none() {
                    came_from[next] = Some((state, byte));
                    queue.push_back(next);
                }
            };
            let (a, b) = (left.get(i).copied(), right.get(j).copied());
            if a == Some(Step::Many) {
                visit(i + 1, j, None);
            }
            if b == Some(Step::Many) {
                visit(i, j + 1, None);
            }
            if let (Some(a), Some(b)) = (a, b) {
                let byte = match (a, b) {
                    (Step::Byte(a), Step::Byte(b)) if a != b => continue,
                    (Step::Byte(byte), _) | (_, Step::Byte(byte)) => byte,
                    _ => b'x',
                };
                visit(i + usize::from(a != Step::Many), j + usize::from(b != Step::Many), Some(byte));
            }
        }
        None
    }

    /// The same with literals in ASCII lower case.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self {
            prefix: self.prefix.to_ascii_lowercase().into(),
            parts: self
                .parts
                .iter()
                .map(|(name, literal)| (name.clone(), literal.to_ascii_lowercase().into()))
                .collect(),
        }
    }

    /// A segment that it matches, every parameter being `x`.
    #[must_use]
    pub fn example(&self) -> Vec<u8> {
        let mut text = self.prefix.to_vec();
        for (_, literal) in &self.parts {
            text.push(b'x');
            text.extend_from_slice(literal);
        }
        text
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.prefix.iter().copied().map(Step::Byte).collect();
        for (_, literal) in &self.parts {
            steps.extend([Step::One, Step::Many]);
            steps.extend(literal.iter().copied().map(Step::Byte));
        }
        steps
    }
}

/// A step of a mixed segment's automaton.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// This byte.
    Byte(u8),
    /// Any byte.
    One,
    /// Any bytes, or none.
    Many,
}

fn same(text: &[u8], literal: &[u8], fold: bool) -> bool {
    if fold { text.eq_ignore_ascii_case(literal) } else { text == literal }
}

fn position(text: &[u8], literal: &[u8], fold: bool) -> Option<usize> {
    if fold {
        text.windows(literal.len()).position(|window| window.eq_ignore_ascii_case(literal))
    } else {
        memchr::memmem::find(text, literal)
    }
}

/// Splits at `/`, but not inside braces, so that `{a/b}` is reported as a bad name rather than as two bad segments.
fn split_segments(path: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    path.split(move |letter: char| {
        match letter {
            '{' => depth = 1,
            '}' => depth = 0,
            _ => {}
        }
        letter == '/' && depth == 0
    })
}

fn parse_segment<'t>(
    written: &'t str,
    at: Range<usize>,
    needs: &mut Option<(Keep, Range<usize>)>,
    names: &mut Vec<&'t str>,
) -> Result<Segment, PatternError> {
    if let Some(name) = written.strip_prefix(':') {
        let help = format!("Write `{{{name}}}` for a parameter, or `%3A{name}` for a literal colon.");
        return fault(at, format!("`{written}` is no parameter"), help);
    }
    let mut prefix: Option<Box<[u8]>> = None;
    let mut params: Vec<(Param, Range<usize>)> = Vec::new();
    let mut literals: Vec<Box<[u8]>> = Vec::new();
    let mut left = written;
    loop {
        let offset = at.end - left.len();
        let (literal, brace) = match left.find('{') {
            Some(open) => (&left[..open], Some(open)),
            None => (left, None),
        };
        let bytes = parse_literal(literal, offset, needs)?;
        match prefix {
            None => prefix = Some(bytes),
            Some(_) => literals.push(bytes),
        }
        let Some(open) = brace else { break };
        let start = offset + open;
        let Some(close) = left[open..].find('}') else {
            return fault(
                start..at.end,
                "a `{` that is never closed",
                "Close it with `}`, or write `%7B` for a literal brace.",
            );
        };
        let inner = &left[open + 1..open + close];
        let span = start..start + close + 1;
        if literal.is_empty() && !params.is_empty() {
            return fault(
                span,
                "two parameters with nothing between them",
                "Put a literal between them: nobody could say where one ends.",
            );
        }
        params.push((parse_param(inner, span.clone(), names)?, span));
        left = &left[open + close + 1..];
    }
    let prefix = prefix.unwrap_or_default();
    let whole = prefix.is_empty() && params.len() == 1 && literals.iter().all(|literal| literal.is_empty());
    if params.is_empty() {
        if matches!(&*prefix, b"." | b"..") {
            return fault(at, "a dot segment, which no cleaned request has", "Write the path without it.");
        }
        return Ok(Segment::Literal(prefix));
    }
    let mut parts = Vec::with_capacity(params.len());
    for ((param, span), literal) in params.into_iter().zip(literals) {
        match (param, whole) {
            (Param::Plain(name), true) => return Ok(Segment::Param(name)),
            (Param::Typed(name, kind), true) => return Ok(Segment::Typed(name, kind)),
            (Param::Rest(name), true) => return Ok(Segment::Rest(name)),
            (Param::Plain(name), false) => parts.push((name, literal)),
            (Param::Typed(name, _), false) => {
                let help = format!("Write `{{{name}}}` here, or give the parameter a segment of its own.");
                return fault(span, "a typed parameter must be a whole segment", help);
            }
            (Param::Rest(name), false) => {
                let help = format!("Write `{{{name}}}` here, or give `{{{name}...}}` the last segment for itself.");
                return fault(span, "a `{rest...}` parameter must be a whole segment", help);
            }
        }
    }
    Ok(Segment::Mixed(Mixed { prefix, parts }))
}

enum Param {
    Plain(ParamName),
    Typed(ParamName, ParamType),
    Rest(ParamName),
}

fn parse_param<'t>(inner: &'t str, span: Range<usize>, names: &mut Vec<&'t str>) -> Result<Param, PatternError> {
    let (name, rest) = inner.strip_suffix("...").map_or((inner, false), |name| (name, true));
    let (name, kind) = name.split_once(':').map_or((name, None), |(name, kind)| (name, Some(kind)));
    if name.is_empty() {
        return fault(span, "a parameter without a name", "Name it, for example `{id}` or `{rest...}`.");
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if !name.chars().all(allowed) || name.starts_with('.') || name.ends_with('.') {
        let help = "Names hold letters, digits, `-`, `_` and inner `.`, for example `{user_id}`.";
        return fault(span, format!("`{name}` is no name of a parameter"), help);
    }
    if names.contains(&name) {
        return fault(
            span,
            format!("the parameter `{name}` occurs twice"),
            "Give each parameter of a path its own name.",
        );
    }
    names.push(name);
    match kind {
        None if rest => Ok(Param::Rest(name.into())),
        None => Ok(Param::Plain(name.into())),
        Some(_) if rest => fault(span, "a `{rest...}` parameter has no type", format!("Write `{{{name}...}}`.")),
        Some("int") => Ok(Param::Typed(name.into(), ParamType::Int)),
        Some("uuid") => Ok(Param::Typed(name.into(), ParamType::Uuid)),
        Some(other) => fault(
            span,
            format!("`{other}` is no type of a parameter"),
            format!("Types are `int` and `uuid`; `{{{name}}}` takes any segment."),
        ),
    }
}

/// Decodes a literal and refuses what a cleaned request cannot hold, or what was meant as something else.
fn parse_literal(
    text: &str,
    offset: usize,
    needs: &mut Option<(Keep, Range<usize>)>,
) -> Result<Box<[u8]>, PatternError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        let at = offset + index;
        let one = at..at + letter.len_utf8();
        match letter {
            '%' => {
                let digits =
                    text.get(index + 1..index + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return fault(
                        one,
                        "a `%` without two hexadecimal digits",
                        "Write `%25` for a literal percent sign.",
                    );
                };
                letters.nth(1);
                let escape = at..at + 3;
                match byte {
                    0..=0x1F | 0x7F => {
                        return fault(
                            escape,
                            "an encoded control character, which no cleaned request has",
                            "Leave it out.",
                        );
                    }
                    b'/' => {
                        needs.get_or_insert((Keep::Slash, escape));
                    }
                    b'?' | b'#' | b'%' | b';' | b'\\' => {
                        needs.get_or_insert((Keep::Reserved, escape));
                    }
                    _ => {}
                }
                bytes.push(byte);
            }
            '}' => return fault(one, "a `}` without its `{`", "Write `%7D` for a literal brace."),
            '*' => {
                let help =
                    "Write `{name}` for one segment, `{rest...}` for all that follows, or `%2A` for a literal star.";
                return fault(one, "`*` is no wildcard here", help);
            }
            '?' | '#' => {
                return fault(
                    one,
                    format!("`{letter}` ends a path"),
                    "Write the path alone: the query takes no part in matching.",
                );
            }
            ';' => return fault(one, "`;` begins a path parameter, which takes no part in matching", "Leave it out."),
            'a'..='z'
            | 'A'..='Z'
            | '0'..='9'
            | '-'
            | '.'
            | '_'
            | '~'
            | '!'
            | '$'
            | '&'
            | '\''
            | '('
            | ')'
            | '+'
            | ','
            | '='
            | ':'
            | '@' => bytes.push(letter as u8),
            letter if letter.is_ascii() || letter.is_control() => {
                let escape: String = letter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
                return fault(one, format!("{letter:?} cannot stand in a path as it is"), format!("Write `{escape}`."));
            }
            letter => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if std::str::from_utf8(&bytes).is_err() {
        let help = "Write the bytes of a UTF-8 text, for example `%C3%A9` for `é`.";
        return fault(offset..offset + text.len(), "escapes that are no UTF-8", help);
    }
    Ok(bytes.into())
}

fn fault<T>(at: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Result<T, PatternError> {
    Err(PatternError { message: message.into(), help: help.into(), at })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn mixed(text: &str) -> Mixed {
        match Pattern::parse(text).unwrap().segments.remove(0) {
            Segment::Mixed(mixed) => mixed,
            other => unreachable!("{other:?}"),
        }
    }

    fn parts<'t>(pattern: &str, text: &'t str) -> Option<Vec<&'t str>> {
        let found = mixed(pattern).split(text.as_bytes(), false)?;
        Some(found.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn every_kind_of_segment_is_read() {
        let pattern = Pattern::parse("/v1/{n:int}/{id:uuid}/{file}.json/{a.b-c_d}/{rest...}").unwrap();
        assert!(matches!(
            &pattern.segments[..],
            [
                Segment::Literal(_),
                Segment::Typed(_, ParamType::Int),
                Segment::Typed(_, ParamType::Uuid),
                Segment::Mixed(_),
                Segment::Param(_),
                Segment::Rest(_)
            ]
        ));
        let names: Vec<_> = pattern.params().map(|(name, _)| name).collect();
        assert_eq!(names, ["n", "id", "file", "a.b-c_d", "rest"]);
    }

    #[test]
    fn three_dots_between_parameters_are_a_literal() {
        assert_eq!(parts("/{base}...{head}", "main...feature"), Some(vec!["main", "feature"]));
        assert_eq!(parts("/{base}...{head}", "a...b...c"), Some(vec!["a", "b...c"]));
        assert_eq!(parts("/{base}...{head}", "....b"), Some(vec![".", "b"]));
        assert_eq!(parts("/{base}...{head}", "...b"), None);
        assert_eq!(parts("/{base}...{head}", "a..."), None);
    }

    #[test]
    fn mixed_segments_leave_one_byte_to_each_parameter() {
        assert_eq!(parts("/{id}.json", ".json"), None);
        assert_eq!(parts("/{id}.json", "a.json.json"), Some(vec!["a.json"]));
        assert_eq!(parts("/v{n}", "v"), None);
        assert_eq!(parts("/a{x}a", "aa"), None);
        assert_eq!(parts("/a{x}a", "aaa"), Some(vec!["a"]));
        assert_eq!(parts("/{a}-{b}-{c}", "1-2-3-4"), Some(vec!["1", "2", "3-4"]));
        assert!(mixed("/{id}.json").split(b"a.JSON", true).is_some());
        assert!(mixed("/{id}.json").split(b"a.JSON", false).is_none());
    }

    #[test]
    fn literals_are_decoded() {
        for (written, bytes) in
            [("/a%3Ab", "a:b"), ("/a:b", "a:b"), ("/%C3%A9", "é"), ("/é", "é"), ("/%41", "A"), ("/%2A", "*")]
        {
            assert_eq!(
                Pattern::parse(written).unwrap().segments,
                [Segment::Literal(bytes.as_bytes().into())],
                "{written}"
            );
        }
        assert_eq!(Pattern::parse("/").unwrap().segments, [Segment::Literal(b"".as_slice().into())]);
        assert_eq!(Pattern::parse("/a/").unwrap().segments.len(), 2);
    }

    #[test]
    fn what_no_request_can_match_is_refused_at_its_place() {
        let cases: &[(&str, &str, Range<usize>)] = &[
            ("a", "a path begins with `/`", 0..1),
            ("", "a path begins with `/`", 0..0),
            ("/a//b", "an empty segment", 2..4),
            ("/a/../b", "a dot segment, which no cleaned request has", 3..5),
            ("/a/%2e%2E", "a dot segment, which no cleaned request has", 3..9),
            ("/a?b", "`?` ends a path", 2..3),
            ("/a#b", "`#` ends a path", 2..3),
            ("/{}", "a parameter without a name", 1..3),
            ("/{...}", "a parameter without a name", 1..6),
            ("/{a", "a `{` that is never closed", 1..3),
            ("/a}", "a `}` without its `{`", 2..3),
            ("/{a}/{a}", "the parameter `a` occurs twice", 5..8),
            ("/{a}{b}", "two parameters with nothing between them", 4..7),
            ("/{a...}/b", "a `{rest...}` parameter must be the last segment", 1..7),
            ("/x{a...}", "a `{rest...}` parameter must be a whole segment", 2..8),
            ("/v{n:int}", "a typed parameter must be a whole segment", 2..9),
            ("/{n:float}", "`float` is no type of a parameter", 1..10),
            ("/{a/b}", "`a/b` is no name of a parameter", 1..6),
            ("/{a b}", "`a b` is no name of a parameter", 1..6),
            ("/*", "`*` is no wildcard here", 1..2),
            ("/:id", "`:id` is no parameter", 1..4),
            ("/a;b", "`;` begins a path parameter, which takes no part in matching", 2..3),
            ("/a b", "' ' cannot stand in a path as it is", 2..3),
            ("/a%zz", "a `%` without two hexadecimal digits", 2..3),
            ("/a%é", "a `%` without two hexadecimal digits", 2..3),
            ("/a%00", "an encoded control character, which no cleaned request has", 2..5),
            ("/%FF", "escapes that are no UTF-8", 1..4),
        ];
        for (pattern, message, at) in cases {
            let error = Pattern::parse(pattern).unwrap_err();
            assert_eq!((&*error.message, &error.at), (*message, at), "{pattern}");
            assert!(error.help.ends_with('.'), "{pattern}: {}", error.help);
        }
    }

    #[test]
    fn an_encoded_slash_needs_a_host_that_keeps_it() {
        let pattern = Pattern::parse("/a%2Fb").unwrap();
        assert_eq!(pattern.unmet(&PathRules::default()), Some((Keep::Slash, 2..5)));
        let keep = PathRules { encoded_slash: target::EncodedSlash::Keep, ..PathRules::default() };
        assert_eq!(pattern.unmet(&keep), None);
        assert_eq!(pattern.segments, [Segment::Literal(b"a/b".as_slice().into())]);
    }

    #[test]
    fn typed_parameters_have_one_form() {
        for (text, int) in [("0", true), ("10", true), ("01", false), ("-1", false), ("", false), ("1a", false)] {
            assert_eq!(ParamType::Int.accepts(text.as_bytes()), int, "{text}");
        }
        assert!(ParamType::Uuid.accepts(b"00000000-0000-0000-0000-00000000000F"));
        assert!(!ParamType::Uuid.accepts(b"00000000-0000-0000-0000-00000000000g"));
        assert!(!ParamType::Uuid.accepts(b"000000000000-0000-0000-00000000000F-"));
    }

    #[test]
    fn overlap_is_exact() {
        for (left, right, meets) in [
            ("/{a}-x{b}", "/{a}x-{b}", true),
            ("/{a}.json", "/{b}.yaml", false),
            ("/x{a}", "/y{a}", false),
            ("/x{a}", "/{a}y", true),
            ("/a{x}a", "/{x}aa", true),
            ("/{a}.json", "/{b}.json", true),
        ] {
            let (left, right) = (mixed(left), mixed(right));
            let witness = left.overlap(&right);
            assert_eq!(witness.is_some(), meets, "{left:?} {right:?}");
            if let Some(witness) = witness {
                assert!(left.split(&witness, false).is_some() && right.split(&witness, false).is_some(), "{witness:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_grammar(text in "[/{}a%.*:0-9é?-]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                proptest::prop_assert!(!pattern.segments.is_empty());
            } else if let Err(error) = Pattern::parse(&text) {
                proptest::prop_assert!(error.at.end <= text.len() && text.get(error.at.clone()).is_some(), "{:?}", error);
            }
        }

        #[test]
        fn a_split_is_a_match(text in "[ab]{0,7}", prefix in "[ab]{0,2}", inner in "[ab]{1,2}", suffix in "[ab]{0,2}") {
            let mixed = Mixed {
                prefix: prefix.as_bytes().into(),
                parts: vec![("p".into(), inner.as_bytes().into()), ("q".into(), suffix.as_bytes().into())],
            };
            // By the definition: some way to cut the text into prefix, p, inner, q, suffix.
            let brute = (1..=text.len()).any(|p| (1..=text.len()).any(|q| {
                text.len() == prefix.len() + p + inner.len() + q + suffix.len()
                    && text.starts_with(&prefix) && text.ends_with(&suffix)
                    && text[prefix.len() + p..].starts_with(&inner)
            }));
            proptest::prop_assert_eq!(mixed.split(text.as_bytes(), false).is_some(), brute);
        }
    }
}
