//! Typed reading of a tree: each fault becomes a finding, and reading goes on.

use std::sync::Arc;

use super::{Diagnostic, Diagnostics, Entry, Kind, Node, SourceText, Span};

/// Reads values out of a tree and collects what is wrong with them.
pub(in crate::policy) struct Reader<'a> {
    /// The file.
    pub(in crate::policy) source: &'a Arc<SourceText>,
    /// Where findings go.
    pub(in crate::policy) out: &'a mut Diagnostics,
}

impl Reader<'_> {
    /// The root of a file and its entries: a file is one mapping. `what` names the file, for example `a policy file`; `smallest` says what it
    /// holds at the least.
    pub(in crate::policy) fn file<'n>(
        &mut self,
        root: Option<&'n Node>,
        what: &str,
        smallest: &'static str,
    ) -> Option<(&'n Node, &'n [Entry])> {
        match root {
            Some(root) if !root.is_nothing() => match &root.kind {
                Kind::Map(entries) => Some((root, entries)),
                _ => {
                    self.error(root.span, "wrong-type", format!("{what} must be a mapping of keys"), smallest);
                    None
                }
            },
            _ => {
                // What is no YAML was told of already.
                if !self.out.has_errors() {
                    self.error(Span::default(), "empty-file", "the file is empty", smallest);
                }
                None
            }
        }
    }

    /// Adds an error with its mend.
    pub(in crate::policy) fn error(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.out.push(Diagnostic::error(self.source, span, code, message).help(help));
    }

    /// Adds a warning with its mend.
    pub(in crate::policy) fn warning(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.out.push(Diagnostic::warning(self.source, span, code, message).help(help));
    }

    /// The entries of a mapping. `what` names the value, for example ``the value of `cors` ``; `example` is how it is written.
    pub(in crate::policy) fn map<'n>(&mut self, node: &'n Node, what: &str, example: &str) -> Option<&'n [Entry]> {
        match &node.kind {
            Kind::Map(entries) => Some(entries),
            _ => self.wrong(node, what, "a mapping", example),
        }
    }

    /// The items of a list.
    pub(in crate::policy) fn list<'n>(&mut self, node: &'n Node, what: &str, example: &str) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            _ => self.wrong(node, what, "a list", example),
        }
    }

    /// A text or number, as written.
    pub(in crate::policy) fn text<'n>(&mut self, node: &'n Node, what: &str, example: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_nothing() => Some(text),
            _ => self.wrong(node, what, "a single value", example),
        }
    }

    /// `true` or `false`.
    pub(in crate::policy) fn flag(&mut self, node: &Node, what: &str) -> Option<bool> {
        let text = self.text(node, what, "`true` or `false`")?;
        match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" | "true" | "enabled" => "Write `true`.",
                    "no" | "off" | "n" | "0" | "false" | "disabled" => "Write `false`.",
                    _ => "Write `true` or `false`.",
                };
                self.error(node.span, "wrong-type", format!("{what} must be `true` or `false`, not `{text}`"), meant);
                None
            }
        }
    }

    /// Says that a key is not known here, with the nearest known one and all of them.
    pub(in crate::policy) fn unknown_key(&mut self, entry: &Entry, place: &str, known: &[&str]) {
        let key = &entry.key.value;
        let guess = nearest(key, known).map(|near| format!("Did you mean `{near}`? ")).unwrap_or_default();
        let all = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let help = format!("{guess}Known here: {all}.");
        self.error(entry.key.span, "unknown-key", format!("`{key}` is not a key of {place}"), help);
    }

    fn wrong<T>(&mut self, node: &Node, what: &str, expected: &str, example: &str) -> Option<T> {
        let found = match &node.kind {
            _ if node.is_nothing() => "nothing".to_owned(),
            Kind::Scalar { text, .. } => format!("`{}`", text.chars().take(80).collect::<String>()),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
            Kind::Refused => return None,
        };
        let message = format!("{what} must be {expected}, but {found} stands here");
        self.error(node.span, "wrong-type", message, format!("Write {example}."));
        None
    }
}

/// The known word that was probably meant.
pub(in crate::policy) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Long foreign words need no guess, and distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&folded, &candidate.to_ascii_lowercase().replace('-', "_"));
    let best = known.iter().map(|&candidate| (distance(candidate), candidate)).min_by_key(|&(distance, _)| distance)?;
    (best.0 <= (word.chars().count() / 3).clamp(1, 3)).then_some(best.1)
}
