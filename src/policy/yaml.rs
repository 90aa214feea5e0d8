//! A YAML tree with places, that refuses duplicate keys.
//!
//! Also refused, because a reader could overlook them: anchors, aliases, tags, a second document, keys that
//! are no text, nesting deeper than [`DEEPEST`], files over [`LARGEST`] bytes. Scalars stay text; what
//! they mean is decided by the key that they stand under, so that `on`, `1.10` and `2027-01-31` are never guessed at.

mod reader;
mod syntax;

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

pub(super) use self::reader::{Reader, nearest};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::source::{SourceText, Span, Spanned};

/// How deep mappings and lists may nest.
const DEEPEST: usize = 64;
/// The largest file that is read, in bytes (8 MiB).
const LARGEST: usize = 8 << 20;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The value.
    pub(super) kind: Kind,
    /// From its first to behind its last byte.
    pub(super) span: Span,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Text; `plain` if it was written without quotes. Nothing at all is plain empty text.
    Scalar { text: String, plain: bool },
    /// `[a, b]` or lines that begin with `-`.
    List(Vec<Node>),
    /// `key: value`, in the order written, each key once.
    Map(Vec<Entry>),
    /// What was refused already; whoever meets it has nothing to add.
    Refused,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: Spanned<String>,
    /// Its value.
    pub(super) value: Node,
}

impl Node {
    /// Whether nothing was written here (or YAML's words for nothing).
    pub(super) fn is_nothing(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

/// Reads one document. A text that is no YAML gives one finding, at its place; what is YAML but refused here
/// gives one finding each. `None` if there is no tree to go on with.
pub(super) fn parse(source: &Arc<SourceText>, out: &mut Diagnostics) -> Option<Node> {
    if source.text.len() > LARGEST {
        let finding = Diagnostic::error(source, Span::default(), "file-too-large", "the file is larger than 8 MiB");
        out.push(finding.help("Split it into several files."));
        return None;
    }
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut builder = Builder { parser: Parser::new_from_str(text), places: Places::new(source), source, out };
    match builder.document() {
        Ok(root) => root,
        Err(Stop::Reported) => None,
        Err(Stop::Syntax(error)) => {
            let at = builder.places.offset(*error.marker());
            builder.out.push(syntax::explain(source, at, error.info()));
            None
        }
    }
}

/// Why reading ended early.
enum Stop {
    Syntax(saphyr_parser::ScanError),
    Reported,
}

struct Builder<'s, 'o> {
    parser: Parser<'s, StrInput<'s>>,
    places: Places<'s>,
    source: &'s Arc<SourceText>,
    out: &'o mut Diagnostics,
}

impl<'s> Builder<'s, '_> {
    fn next(&mut self) -> Result<(Event<'s>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let start = self.places.offset(span.start);
                let end = self.places.offset(span.end).max(start);
                Ok((event, Span { start, end }))
            }
            Some(Err(error)) => Err(Stop::Syntax(error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    self.refuse(
                        span,
                        "second-document",
                        "a second YAML document begins here",
                        "Remove the `---`; one file holds one document.",
                    );
                    return Err(Stop::Reported);
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'s>, span: Span, depth: usize) -> Result<Node, Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_decoration(span, anchor, tag.as_deref());
                let plain = style == ScalarStyle::Plain;
                Ok(Node { kind: Kind::Scalar { text: text.into_owned(), plain }, span: self.trimmed(span) })
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(span, depth, anchor, tag.as_deref())?;
                let mut items = Vec::new();
                loop {
                    let (event, at) = self.next()?;
                    if event == Event::SequenceEnd {
                        let end = items.last().map(|item: &Node| item.span.end);
                        return Ok(Node { kind: Kind::List(items), span: self.closed(span, at, end) });
                    }
                    items.push(self.node(event, at, depth + 1)?);
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.open(span, depth, anchor, tag.as_deref())?;
                self.map(span, depth)
            }
            Event::Alias(_) => {
                self.refuse(
                    span,
                    "alias",
                    "an alias (`*name`) is not read here",
                    "Write the value out; if a text begins with `*`, put it in quotes.",
                );
                Ok(Node { kind: Kind::Refused, span })
            }
            // A well-formed stream has no other event inside a document.
            _ => Err(Stop::Reported),
        }
    }

    fn map(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                let end = entries.last().map(|entry| entry.value.span.end.max(entry.key.span.end));
                return Ok(Node { kind: Kind::Map(entries), span: self.closed(span, at, end) });
            }
            let key = self.node(event, at, depth + 1)?;
            let (event, at) = self.next()?;
            let mut value = self.node(event, at, depth + 1)?;
            if value.is_nothing() && value.span.start == value.span.end {
                // The parser puts what is absent at the next token, which can be lines below.
                value.span = key.span;
            }
            let Kind::Scalar { text, .. } = key.kind else {
                if matches!(key.kind, Kind::Refused) {
                    continue;
                }
                self.refuse(
                    key.span,
                    "key-no-text",
                    "a key must be text, and this is a list or mapping",
                    "Put a key that begins with `{` or `[` in quotes.",
                );
                continue;
            };
            if let Some(&first) = seen.get(&text) {
                let message = format!("the key `{text}` stands here a second time");
                let finding = Diagnostic::error(self.source, key.span, "duplicate-key", message)
                    .help("Merge the two or remove one; doorward does not choose between them.")
                    .related(self.source, first, "the first one");
                self.out.push(finding);
                continue;
            }
            seen.insert(text.clone(), key.span);
            entries.push(Entry { key: Spanned { value: text, span: key.span }, value });
        }
    }

    fn open(&mut self, span: Span, depth: usize, anchor: usize, tag: Option<&Tag>) -> Result<(), Stop> {
        self.refuse_decoration(span, anchor, tag);
        if depth >= DEEPEST {
            let message = format!("lists and mappings nest more than {DEEPEST} deep");
            self.refuse(span, "too-deep", &message, "Write it flatter.");
            return Err(Stop::Reported);
        }
        Ok(())
    }

    fn refuse_decoration(&mut self, span: Span, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.refuse(
                span,
                "anchor",
                "an anchor (`&name`) is not read here",
                "Remove it and write each value out where it is used.",
            );
        }
        if let Some(tag) = tag {
            let core = tag.is_yaml_core_schema();
            let written = format!("{}{}", if core { "!!" } else { tag.handle.as_str() }, tag.suffix);
            let message = format!("the tag `{written}` is not read here");
            self.refuse(span, "tag", &message, "Remove it; each key says itself what its value is.");
        }
    }

    fn refuse(&mut self, span: Span, code: &'static str, message: &str, help: &str) {
        self.out.push(Diagnostic::error(self.source, span, code, message).help(help));
    }

    /// Flow collections end with their bracket, block ones with their last entry (the parser's own end is the
    /// next token, which can be lines below).
    fn closed(&self, open: Span, close: Span, last: Option<usize>) -> Span {
        let flow = matches!(self.source.text.as_bytes().get(open.start), Some(b'{' | b'['));
        let end = if flow { close.end } else { last.unwrap_or(close.end) };
        Span { start: open.start, end: end.max(open.start) }
    }

    fn trimmed(&self, span: Span) -> Span {
        let text = self.source.text.get(span.start..span.end).unwrap_or_default();
        Span { start: span.start, end: span.start + text.trim_end().len() }
    }
}

/// From the parser's lines and columns to byte offsets. The parser counts characters, and its running index
/// counts the bytes of comments; lines and columns are right in any text.
struct Places<'s> {
    text: &'s str,
    /// The byte at which each line starts.
    lines: Vec<usize>,
    /// The last answer: line, column, offset. Questions come nearly in order, so a step is short even in a file
    /// of one long line.
    last: (usize, usize, usize),
}

impl<'s> Places<'s> {
    fn new(source: &'s SourceText) -> Self {
        let text = source.text.as_str();
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut lines = vec![first];
        let bytes = text.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' || (byte == b'\r' && bytes.get(at + 1) != Some(&b'\n')) {
                lines.push(at + 1);
            }
        }
        Self { text, lines, last: (0, 0, first) }
    }

    fn offset(&mut self, mark: Marker) -> usize {
        let (line, column) = (mark.line().saturating_sub(1), mark.col());
        let Some(&start) = self.lines.get(line) else { return self.text.len() };
        let (last_line, mut at_column, mut at) = self.last;
        if last_line != line || at_column > column * 2 {
            (at_column, at) = (0, start);
        }
        while at_column < column
            && let Some(c) = self.text[at..].chars().next()
        {
            at += c.len_utf8();
            at_column += 1;
        }
        while at_column > column
            && let Some(c) = self.text[..at].chars().next_back()
        {
            at -= c.len_utf8();
            at_column -= 1;
        }
        self.last = (line, at_column, at);
        at
    }
}

#[cfg(test)]
impl Node {
    /// The tree as JSON, plain scalars read by YAML's core schema: how an editor sees a file.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Scalar { text, plain: true } => match text.as_str() {
                "" | "~" | "null" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => text.parse::<i64>().map_or_else(|_| Value::String(text.clone()), Value::from),
            },
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::Refused => Value::Null,
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.value.clone(), entry.value.to_json())).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
