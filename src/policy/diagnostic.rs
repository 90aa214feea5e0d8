//! What is wrong with a file, where, and how to mend it.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::source::{SourceText, Span};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is used; somebody should look.
    Warning,
    /// The file is not used.
    Error,
}

/// One finding in one file.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable kebab-case code, for example `unknown-key`.
    pub code: &'static str,
    /// What is wrong, a sentence fragment in lower case.
    pub message: String,
    /// How to mend it, a full sentence.
    pub help: Option<String>,
    /// The file.
    pub source: Arc<SourceText>,
    /// The offending text.
    pub span: Span,
    /// Another place that the message speaks of (a first definition, the other half of a tie), with a few words about it.
    pub related: Option<(Arc<SourceText>, Span, String)>,
}

impl Diagnostic {
    /// A finding because of which the file is not used.
    #[must_use]
    pub fn error(source: &Arc<SourceText>, span: Span, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            help: None,
            source: Arc::clone(source),
            span,
            related: None,
        }
    }

    /// A finding that somebody should look at.
    #[must_use]
    pub fn warning(source: &Arc<SourceText>, span: Span, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, span, code, message) }
    }

    /// How to mend it, a full sentence.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Another place that the message speaks of, with a few words about it.
    #[must_use]
    pub fn related(mut self, source: &Arc<SourceText>, span: Span, words: impl Into<String>) -> Self {
        self.related = Some((Arc::clone(source), span, words.into()));
        self
    }
}

/// All findings of a run, in order of file and place.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether any finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Diagnostic) {
        self.0.push(finding);
    }

    /// Puts the findings in order of file and place; findings of one place stay as they were found.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| (&a.source.name, a.span.start).cmp(&(&b.source.name, b.span.start)));
    }

    /// The findings as text with file, line, column, excerpt and mend, without colour unless asked.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { on: colour };
        let mut text = String::new();
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            render_one(&mut text, finding, paint);
        }
        text
    }

    /// The findings as the `problems` of `policy check --output json` (SPEC 10). Lines and columns count from 1,
    /// columns in characters.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let problems = self.0.iter().map(|finding| {
            let (line, column) = finding.source.line_column(finding.span.start);
            let mut problem = json!({
                "file": finding.source.name,
                "line": line,
                "column": column,
                "severity": match finding.severity { Severity::Error => "error", Severity::Warning => "warning" },
                "code": finding.code,
                "message": finding.message,
                "help": finding.help,
            });
            if let Some((source, span, words)) = &finding.related {
                let (line, column) = source.line_column(span.start);
                problem["related"] = json!({"file": source.name, "line": line, "column": column, "message": words});
            }
            problem
        });
        serde_json::Value::Array(problems.collect())
    }
}

impl SourceText {
    /// Line and column of a byte offset, both from 1; the column counts characters. An offset behind the text, or
    /// inside a character, is taken back to the character that it belongs to.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        (line, before[line_start..].chars().filter(|&c| c != '\u{feff}').count() + 1)
    }
}

/// Columns of an excerpt; a longer line is cut around the place.
const WIDTH: usize = 100;

#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Frames, numbers and arrows.
    fn frame(self, text: &str) -> String {
        self.wrap("1;34", text)
    }

    fn severity(self, severity: Severity, text: &str) -> String {
        self.wrap(if severity == Severity::Error { "1;31" } else { "1;33" }, text)
    }
}

fn render_one(text: &mut String, finding: &Diagnostic, paint: Paint) {
    let word = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let head = paint.severity(finding.severity, &format!("{word}[{}]", finding.code));
    line(text, &format!("{head}: {}", shown(&finding.message)));

    let place = finding.source.line_column(finding.span.start);
    let other = finding.related.as_ref().map(|(source, span, words)| (source, *span, words));
    let lines = other.iter().map(|(source, span, _)| source.line_column(span.start).0);
    let gutter = lines.chain([place.0]).max().unwrap_or(1).to_string().len();

    line(text, &format!("{:gutter$}{} {}:{}:{}", "", paint.frame("-->"), finding.source.name, place.0, place.1));
    let marks = |carets: &str| paint.severity(finding.severity, carets);
    excerpt(text, &finding.source, finding.span, gutter, '^', "", paint, &marks);
    if let Some((source, span, words)) = other {
        let (row, column) = source.line_column(span.start);
        let arrow = paint.frame(":::");
        line(text, &format!("{:gutter$}{arrow} {}:{row}:{column}", "", source.name));
        excerpt(text, source, span, gutter, '-', words, paint, &|dashes| paint.frame(dashes));
    }
    if let Some(help) = &finding.help {
        let mut rows = help.lines();
        let first = rows.next().unwrap_or_default();
        line(text, &format!("{:gutter$} {} {}: {}", "", paint.frame("="), paint.wrap("1", "help"), shown(first)));
        for row in rows {
            line(text, &format!("{:gutter$}         {}", "", shown(row)));
        }
    }
}

/// The line of a place with marks under it.
#[expect(clippy::too_many_arguments, reason = "called twice, from one place")]
fn excerpt(
    text: &mut String,
    source: &SourceText,
    span: Span,
    gutter: usize,
    mark: char,
    words: &str,
    paint: Paint,
    marks: &dyn Fn(&str) -> String,
) {
    let (row, column) = source.line_column(span.start);
    let all = source.text.lines().nth(row - 1).unwrap_or_default().trim_start_matches('\u{feff}');
    let end = source.text.floor_char_boundary(span.end.max(span.start));
    let start = source.text.floor_char_boundary(span.start);
    // Marks end with the line, and an empty place still gets one.
    let covered = source.text[start..end].lines().next().unwrap_or_default().chars().count();

    let skip = if all.chars().count() > WIDTH { column.saturating_sub(WIDTH / 2) } else { 0 };
    let cut = if skip > 0 { "…" } else { "" };
    let visible: String = all.chars().skip(skip).take(WIDTH).map(printable).collect();
    let length = covered.clamp(1, (WIDTH + skip + 2).saturating_sub(column).max(1));
    let indent = " ".repeat(column - 1 - skip + cut.chars().count());
    let carets = marks(mark.to_string().repeat(length).as_str());
    let words = if words.is_empty() { String::new() } else { format!(" {}", marks(words)) };

    let bar = paint.frame("|");
    line(text, &format!("{:gutter$} {bar}", ""));
    line(text, &format!("{} {bar} {cut}{visible}", paint.frame(&format!("{row:>gutter$}"))));
    line(text, &format!("{:gutter$} {bar} {indent}{carets}{words}", ""));
}

fn line(text: &mut String, content: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{}", content.trim_end());
}

/// A tab as one visible column, so that marks stand under what they mean; nothing else that moves a terminal's cursor.
fn printable(c: char) -> char {
    match c {
        '\t' => '→',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Messages quote files, and must not carry a file's escape sequences to a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<SourceText> {
        Arc::new(SourceText { name: "policies/oms.yaml".into(), text: text.into() })
    }

    fn span(text: &SourceText, part: &str) -> Span {
        let start = text.text.find(part).unwrap_or_default();
        Span { start, end: start + part.len() }
    }

    #[test]
    fn a_finding_shows_its_place_the_other_place_and_the_mend() {
        let text = source("version: 1\nservice: oms\nservice: blog\n");
        let second = Span { start: 24, end: 31 };
        let findings = Diagnostics(vec![
            Diagnostic::error(&text, second, "duplicate-key", "the key `service` stands here twice")
                .help("Remove one of them.")
                .related(&text, span(&text, "service"), "first here"),
        ]);
        insta::assert_snapshot!(findings.render(false), @r#"
error[duplicate-key]: the key `service` stands here twice
 --> policies/oms.yaml:3:1
  |
3 | service: blog
  | ^^^^^^^
 ::: policies/oms.yaml:2:1
  |
2 | service: oms
  | ------- first here
  = help: Remove one of them.
"#);
        assert!(findings.render(true).contains("\u{1b}[1;31m^^^^^^^\u{1b}[0m"));
    }

    #[test]
    fn columns_count_characters_and_carets_stand_below_them() {
        let text = source("# žluťoučký\n\"kůň\": schema:View # 🐴\n");
        let findings = Diagnostics(vec![Diagnostic::warning(&text, span(&text, "schema:View"), "word", "bad word")]);
        insta::assert_snapshot!(findings.render(false), @r#"
warning[word]: bad word
 --> policies/oms.yaml:2:8
  |
2 | "kůň": schema:View # 🐴
  |        ^^^^^^^^^^^
"#);
        let json = findings.to_json();
        assert_eq!(json[0]["line"], 2);
        assert_eq!(json[0]["column"], 8);
        assert_eq!(json[0]["severity"], "warning");
        assert_eq!(json[0]["help"], serde_json::Value::Null);
    }

    #[test]
    fn a_long_line_is_cut_around_its_place_and_terminal_codes_are_not_passed_on() {
        let text = source(&format!("{}\u{1b}[31mx\tbad{}", "a".repeat(200), "b".repeat(200)));
        let finding = Diagnostic::error(&text, span(&text, "bad"), "word", "found \u{1b}[2J").help("One.\nTwo.");
        let shown = Diagnostics(vec![finding]).render(false);
        assert!(!shown.contains('\u{1b}'));
        insta::assert_snapshot!(shown, @r#"
error[word]: found �[2J
 --> policies/oms.yaml:1:208
  |
1 | …aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa�[31mx→badbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
  |                                                   ^^^
  = help: One.
          Two.
"#);
    }

    #[test]
    fn places_behind_the_text_are_its_end() {
        let text = source("é\nab");
        assert_eq!(text.line_column(99), (2, 3));
        assert_eq!(text.line_column(1), (1, 1), "inside a character");
        assert_eq!(source("").line_column(0), (1, 1));
        let end = Span { start: 99, end: 120 };
        assert!(Diagnostics(vec![Diagnostic::error(&text, end, "x", "y")]).render(false).contains("2:3"));
    }
}
