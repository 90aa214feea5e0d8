//! Reading typed values out of the merged tree. A mistake is noted and reading goes on, so that all are told at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::mistake::{Mistake, Warning};
use super::quantity;
use super::sources::Tree;

/// What a whole reading has found so far.
#[derive(Debug)]
pub(super) struct Findings<'t> {
    tree: &'t Tree,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Warning>>,
    /// Every key that was asked for; tests compare it with the commented configuration.
    asked: RefCell<BTreeSet<String>>,
}

impl<'t> Findings<'t> {
    pub(super) fn new(tree: &'t Tree) -> Self {
        Self { tree, mistakes: RefCell::default(), warnings: RefCell::default(), asked: RefCell::default() }
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section {
            findings: self,
            path: String::new(),
            dict: Some(&self.tree.dict),
            asked: RefCell::default(),
            lax: Cell::new(false),
        }
    }

    pub(super) fn warn(&self, key: impl Into<String>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Warning { key: key.into(), message: message.into() });
    }

    pub(super) fn into_parts(self) -> (Vec<Mistake>, Vec<Warning>, BTreeSet<String>) {
        (self.mistakes.into_inner(), self.warnings.into_inner(), self.asked.into_inner())
    }
}

/// One table of the configuration. When it is dropped, keys that nobody asked for are mistakes.
#[derive(Debug)]
pub(super) struct Section<'t> {
    findings: &'t Findings<'t>,
    path: String,
    dict: Option<&'t Dict>,
    asked: RefCell<BTreeSet<String>>,
    /// Set where the table itself is refused, so that its keys need no word of their own.
    lax: Cell<bool>,
}

impl<'t> Section<'t> {
    /// The full path of a key.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The raw value of a key, if it is set.
    pub(super) fn value(&self, key: &str) -> Option<&'t Value> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.findings.asked.borrow_mut().insert(self.key(key));
        self.dict.and_then(|dict| dict.get(key))
    }

    /// Whether a key is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether a key's value comes from the environment.
    pub(super) fn is_from_environment(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| self.findings.tree.is_from_environment(value))
    }

    /// Notes a mistake about a key.
    pub(super) fn mistake(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.mistake_at(&self.key(key), self.value(key), message.into(), help.into());
    }

    /// Notes something to look at.
    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        self.findings.warn(self.key(key), message);
    }

    fn mistake_at(&self, path: &str, value: Option<&Value>, message: String, help: String) {
        // What is missing has no place of its own: its table's will do.
        let mut at = path;
        let mut place = self.findings.tree.place(at, value);
        while value.is_none() && !place.contains(':') {
            let Some(cut) = at.rfind(['.', '[']) else { break };
            at = &at[..cut];
            place = self.findings.tree.place(at, None);
        }
        let mistake = Mistake { place, key: path.to_owned(), message, help };
        let mut mistakes = self.findings.mistakes.borrow_mut();
        // A table that is asked for in two places is told of once.
        if !mistakes.contains(&mistake) {
            mistakes.push(mistake);
        }
    }

    /// Notes that what a path leads to is of none of the types that it can have.
    pub(super) fn wrong_type(&self, path: &str, value: &Value, expected: &str) {
        let found = match value {
            Value::String(..) => "text",
            Value::Num(..) => "a number",
            Value::Bool(..) => "true or false",
            Value::Dict(..) => "a table",
            Value::Array(..) => "a list",
            Value::Char(..) => "a character",
            Value::Empty(..) => "nothing",
        };
        // Who writes a bracket means a list or a table, and is told what TOML says of it.
        let fault = self.findings.tree.bracketed(path, value).and_then(|variable| variable.fault.as_ref());
        let fault = fault.map(|fault| format!(" that is not valid TOML: {fault}")).unwrap_or_default();
        let help = format!("Write {expected}.");
        self.mistake_at(path, Some(value), format!("expected {expected}, found {found}{fault}"), help);
    }

    /// The text of a key, or what stands in its place. A text from the environment is never parsed, whatever it looks like: SPEC 2
    /// asks that of secrets, and `[::1]:8090` is an address.
    fn verbatim(&self, key: &str) -> Option<Result<&'t str, &'t Value>> {
        let value = self.value(key)?;
        let variable = || self.findings.tree.bracketed(&self.key(key), value);
        Some(match value {
            Value::String(_, text) => Ok(text),
            other => variable().map(|variable| variable.text.as_str()).ok_or(other),
        })
    }

    /// A table within this one; an empty one if it is not set.
    pub(super) fn section(&self, key: &str) -> Section<'t> {
        let value = self.value(key);
        let dict = match value {
            None => None,
            Some(Value::Dict(_, dict)) => Some(dict),
            Some(other) => {
                self.wrong_type(&self.key(key), other, "a table");
                None
            }
        };
        self.inner(self.key(key), dict)
    }

    fn inner(&self, path: String, dict: Option<&'t Dict>) -> Section<'t> {
        Section { findings: self.findings, path, dict, asked: RefCell::default(), lax: Cell::new(false) }
    }

    /// The tables of a list of tables.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'t>> {
        let path = self.key(key);
        match self.value(key) {
            None => Vec::new(),
            Some(Value::Array(_, items)) => items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    match item {
                        Value::Dict(_, dict) => Some(self.inner(path, Some(dict))),
                        other => {
                            self.wrong_type(&path, other, "a table");
                            None
                        }
                    }
                })
                .collect(),
            Some(other) => {
                self.wrong_type(&path, other, "a list of tables");
                Vec::new()
            }
        }
    }

    /// The names of a table whose keys are the user's own.
    pub(super) fn names(&self) -> Vec<&'t str> {
        self.dict.map(|dict| dict.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Says nothing about keys that are not asked for.
    pub(super) fn ignore_rest(&self) {
        self.lax.set(true);
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<&'t str> {
        self.verbatim(key)?.inspect_err(|other| self.wrong_type(&self.key(key), other, "text in quotes")).ok()
    }

    /// A text that a grammar makes something of. The mistake shows what was found, so this is not for secrets.
    pub(super) fn parsed<T>(&self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.verbatim(key)?.inspect_err(|other| self.wrong_type(&self.key(key), other, expected)).ok()?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.mistake(key, format!("{} is not {expected}", shown(text)), format!("Write {expected}."));
        }
        parsed
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let listed = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        self.parsed(key, &listed, |text| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value))
    }

    /// A duration longer than nothing.
    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        self.parsed(key, quantity::DURATION, |text| quantity::duration(text).filter(|duration| !duration.is_zero()))
    }

    /// A size in bytes, more than nothing.
    pub(super) fn size(&self, key: &str) -> Option<u64> {
        self.parsed(key, quantity::SIZE, |text| quantity::size(text).filter(|size| *size > 0))
    }

    /// An address to listen on.
    pub(super) fn address(&self, key: &str) -> Option<SocketAddr> {
        self.parsed(key, "an IP address and a port such as \"127.0.0.1:8090\" or \"[::]:8090\"", |text| {
            text.parse().ok()
        })
    }

    /// True or false; from the environment as words.
    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(_, value) => Some(*value),
            value @ Value::String(_, text) if self.findings.tree.is_from_environment(value) => match text.as_str() {
                "true" => Some(true),
                "false" => Some(false),
                other => {
                    self.mistake(key, format!("{other:?} is not true or false"), "Write true or false.");
                    None
                }
            },
            other => {
                self.wrong_type(&self.key(key), other, "true or false");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, key: &str, least: usize, most: usize) -> Option<usize> {
        let expected = format!("a whole number from {least} to {most}");
        let value = self.value(key)?;
        let number = match value {
            Value::Num(_, number) => number.to_i128().and_then(|number| usize::try_from(number).ok()),
            Value::String(_, text) if self.findings.tree.is_from_environment(value) => text.parse().ok(),
            other => {
                self.wrong_type(&self.key(key), other, &expected);
                return None;
            }
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.mistake(key, format!("is not {expected}"), format!("Write {expected}."));
        }
        number
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<&'t str>> {
        let items = match self.value(key)? {
            Value::Array(_, items) => items,
            other => {
                self.wrong_type(&self.key(key), other, "a list of texts such as [\"a\", \"b\"]");
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item {
                Value::String(_, text) => texts.push(text.as_str()),
                other => self.wrong_type(&format!("{}[{index}]", self.key(key)), other, "text in quotes"),
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// A list of texts that a grammar makes something of.
    pub(super) fn list<T>(&self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let texts = self.texts(key)?;
        let mut parsed = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Some(value) => parsed.push(value),
                None => self.mistake_at(
                    &format!("{}[{index}]", self.key(key)),
                    self.value(key),
                    format!("{text:?} is not {expected}"),
                    format!("Write {expected}."),
                ),
            }
        }
        (parsed.len() == texts.len()).then_some(parsed)
    }

    /// Refuses a key that this version does not know how to obey: what is switched on must work, or not start.
    pub(super) fn not_yet(&self, key: &str) {
        if self.has(key) {
            self.refuse(key);
        }
    }

    /// Says that what a key asks for is not part of this version.
    pub(super) fn refuse(&self, key: &str) {
        let place_help = if self.is_from_environment(key) { "unset the variable" } else { "remove the key" };
        self.mistake(
            key,
            "is not part of this version",
            format!("It would be ignored, so the start is refused: {place_help}."),
        );
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Some(dict) = self.dict else { return };
        if self.lax.get() {
            return;
        }
        let asked = self.asked.borrow().clone();
        for (key, value) in dict.iter().filter(|(key, _)| !asked.contains(*key)) {
            let near = asked
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, key), known))
                .filter(|(distance, known)| *distance <= 1 + known.len().min(key.len()) / 4)
                .min();
            let help = match near {
                Some((_, known)) => format!("Did you mean `{known}`?"),
                None => format!(
                    "Known here: {}.",
                    asked.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
                ),
            };
            self.mistake_at(&self.key(key), Some(value), "unknown key".to_owned(), help);
        }
    }
}

/// A text as a message shows it: what stands before an `@` may be a password.
pub(super) fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        None => format!("{text:?}"),
        Some((before, after)) => {
            let scheme = before.find("://").map_or("", |end| &before[..end + 3]);
            format!("{:?}", format!("{scheme}…@{after}"))
        }
    }
}
