//! What a YAML parser says about a broken file, in the words of whoever has to mend it.

use std::sync::Arc;

use super::{Diagnostic, SourceText, Span};

const CODE: &str = "yaml-syntax";

/// One finding for a syntax error that the parser noticed at `at` with these words. The usual mistakes are looked
/// for in the text itself, since a parser often notices them late.
pub(super) fn explain(source: &Arc<SourceText>, at: usize, words: &str) -> Diagnostic {
    let text = source.text.as_str();
    let at = text.floor_char_boundary(at.min(text.len()));
    let here = line_at(text, at);
    let above = (here.start > 0).then(|| line_at(text, here.start - 1));

    for line in above.into_iter().chain([here]) {
        if let Some(tab) = tab_in_indentation(text, line) {
            return Diagnostic::error(source, tab, CODE, "a tab stands in the indentation, which YAML does not allow")
                .help("Replace it by spaces: two for each level.");
        }
    }
    for line in [here].into_iter().chain(above) {
        if let Some(star) = bare_star(text, line) {
            return Diagnostic::error(source, star, CODE, "an unquoted `*` is an alias to YAML")
                .help("Put it in quotes: `\"*\"`.");
        }
    }

    for line in above.into_iter().chain([here]) {
        if let Some(colon) = colon_without_space(text, line) {
            return Diagnostic::error(
                source,
                colon,
                CODE,
                "no space follows this colon, so the line is not `key: value`",
            )
            .help("Write a space behind the colon of the key.");
        }
    }

    let span = place(text, at);
    let open_quote = text[span.start..].chars().next().filter(|&c| matches!(c, '"' | '\''));
    let unclosed = open_quote.is_some_and(|quote| text[span.start..here.end].matches(quote).count() % 2 == 1);
    let (message, help): (&str, &str) = if unclosed
        || (words.contains("quoted scalar") && words.contains("end of stream"))
    {
        ("a quote is opened here and never closed", "Close it with the same quote at the end of the text.")
    } else if words.contains("unknown escape character") {
        ("this escape is not known within double quotes", "Write `\\\\` for a backslash, or use single quotes.")
    } else if words.contains("flow sequence") || words.contains("flow mapping") || words.contains("flow construct") {
        if let Some(open) = open_bracket(text, at) {
            let close = if text[open.start..].starts_with('[') { ']' } else { '}' };
            return Diagnostic::error(source, open, CODE, "this bracket is not closed, or a comma is missing in it")
                .help(format!("Separate its entries with `,` and end it with `{close}`."));
        }
        ("a bracket is not closed, or a comma is missing", "Separate entries with `,` and close every `[` and `{`.")
    } else if words.contains("misplaced bracket") || words.contains("unexpected character") {
        ("this character cannot stand here unquoted", "Put the whole text in double quotes.")
    } else if words.contains("mapping values are not allowed") || words.contains("illegal placement of ':'") {
        (
            "a second `: ` in one line, or a line that is indented too far",
            "A permission has no space in it (`order:view`); other text with `: ` is put in quotes; and keys of one level are indented alike.",
        )
    } else if words.contains("did not find expected key")
        || words.contains("invalid indentation")
        || words.contains("expected '-' indicator")
        || words.contains("expected <document start>")
    {
        (
            "this line does not fit what is above it",
            "Indent it exactly like the other keys of its level, and write `key: value` with a space after the colon.",
        )
    } else if words.contains("simple key expect") || words.contains("expected ':'") {
        ("a key without its colon", "Write `key: value`, with a colon and a space after the key.")
    } else if words.contains("mapping keys are not allowed") || words.contains("block sequence entries are not allowed")
    {
        ("a list or mapping cannot begin in this place", "Begin it on a line of its own, indented by two spaces more.")
    } else if words.contains("unknown anchor") {
        ("a text that begins with `*` is an alias to YAML", "Put it in quotes.")
    } else {
        let message = format!("this is not YAML: {words}");
        return Diagnostic::error(source, span, CODE, message)
            .help("Put texts with special characters in double quotes, and indent with two spaces a level.");
    };
    Diagnostic::error(source, span, CODE, message).help(help)
}

/// The line that holds a byte, without its end.
fn line_at(text: &str, at: usize) -> Span {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    Span { start, end }
}

fn tab_in_indentation(text: &str, line: Span) -> Option<Span> {
    let content = &text[line.start..line.end];
    let indentation = &content[..content.len() - content.trim_start().len()];
    let tab = line.start + indentation.find('\t')?;
    Some(Span { start: tab, end: tab + 1 })
}

/// The colon of a line such as `get:order:view`, which YAML reads as one text.
fn colon_without_space(text: &str, line: Span) -> Option<Span> {
    let content = text[line.start..line.end].split(" #").next().unwrap_or_default().trim_end();
    let key = content.trim_start();
    let plain =
        key.starts_with(|c: char| c.is_ascii_alphabetic()) && !content.contains(": ") && !content.ends_with(':');
    let colon = line.start + content.find(':').filter(|_| plain)?;
    Some(Span { start: colon, end: colon + 1 })
}

/// A `*` that begins a key or value and is followed by nothing that could be an alias' name.
fn bare_star(text: &str, line: Span) -> Option<Span> {
    let content = &text[line.start..line.end];
    let before_comment = content.split(" #").next().unwrap_or_default();
    before_comment.match_indices('*').find_map(|(at, _)| {
        let begins =
            matches!(before_comment[..at].trim_end().chars().next_back(), None | Some(':' | '-' | '{' | '[' | ','));
        let ends = matches!(before_comment[at + 1..].chars().next(), None | Some(':' | ' ' | ',' | '}' | ']' | '\r'));
        (begins && ends).then(|| Span { start: line.start + at, end: line.start + at + 1 })
    })
}

/// The last bracket before `at` that is still open. Good enough for a message: quotes and comments are skipped
/// only within a line.
fn open_bracket(text: &str, at: usize) -> Option<Span> {
    let mut open = Vec::new();
    let mut quote = None;
    let mut comment = false;
    let mut previous = '\n';
    for (index, c) in text[..at].char_indices() {
        match (c, quote) {
            ('\n', _) => (quote, comment) = (None, false),
            _ if comment => {}
            (c, Some(mark)) if c == mark => quote = None,
            (_, Some(_)) => {}
            ('#', None) if previous.is_whitespace() => comment = true,
            ('"' | '\'', None) if matches!(previous, ' ' | '[' | '{' | ',' | '\n') => quote = Some(c),
            ('[' | '{', None) => open.push((index, c)),
            (']', None) if open.last().is_some_and(|&(_, c)| c == '[') => _ = open.pop(),
            ('}', None) if open.last().is_some_and(|&(_, c)| c == '{') => _ = open.pop(),
            _ => {}
        }
        previous = c;
    }
    open.pop().map(|(start, _)| Span { start, end: start + 1 })
}

/// One character, or the last one of the text if the parser was at its end.
fn place(text: &str, at: usize) -> Span {
    let at = if text[at..].trim().is_empty() { text.trim_end().len() } else { at };
    let length = text[at..].chars().next().map_or(0, char::len_utf8);
    Span { start: at, end: at + length }
}
