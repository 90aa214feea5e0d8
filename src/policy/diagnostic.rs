//! What is wrong with a file, where, and how to mend it.

use std::sync::Arc;

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

/// All findings of a run, in order of file and place.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether any finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The findings as text with file, line, column, excerpt and mend, without colour unless asked.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let _ = colour;
        todo!()
    }

    /// The findings as the `problems` of `policy check --output json` (SPEC 10).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        todo!()
    }
}
