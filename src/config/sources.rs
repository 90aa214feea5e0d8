//! The file and the environment, merged; every value knows where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::builtin::DEFAULT_CONFIG;
use super::mistake::{ConfigError, Mistake};

/// Names that deployments already have, and the key that each one is.
const DEPLOYMENT_NAMES: [(&str, &str); 6] = [
    ("AUTH_MODE", "auth.mode"),
    ("IAM_SERVICE_URL", "auth.iam_service_url"),
    ("JWT_SECRET_KEY", "auth.secret"),
    ("JWT_SECRET_KEY_FILE", "auth.secret_file"),
    ("DATABASE_URL", "database.url"),
    ("REDIS_URL", "redis.url"),
];

/// The merged configuration, not yet understood.
#[derive(Debug)]
pub(super) struct Tree {
    /// The file that was read, if any.
    pub(super) file: Option<PathBuf>,
    /// The merged values.
    pub(super) dict: Dict,
    figment: Figment,
    /// The line of every key of the file, by its path (`auth.issuers[0].name`).
    lines: BTreeMap<String, usize>,
    /// The variables that look like a list or a table, by their key. Which of them are text is for the key to say.
    bracketed: BTreeMap<String, Bracketed>,
}

/// A variable that begins as a list or a table does.
#[derive(Debug)]
pub(super) struct Bracketed {
    layer: String,
    /// What stands in the variable.
    pub(super) text: String,
    /// Why it is neither list nor table.
    pub(super) fault: Option<String>,
}

impl Tree {
    /// Where a value stands, for messages.
    pub(super) fn place(&self, path: &str, value: Option<&Value>) -> String {
        let layer = value.and_then(|value| self.figment.get_metadata(value.tag())).map(|layer| layer.name.to_string());
        match (layer, &self.file) {
            (Some(layer), _) if layer != FILE_LAYER => layer,
            (_, None) => "built-in defaults".to_owned(),
            (_, Some(file)) => match self.lines.get(path) {
                Some(line) => format!("{}:{line}", file.display()),
                None => file.display().to_string(),
            },
        }
    }

    /// Whether a value comes from the environment.
    pub(super) fn is_from_environment(&self, value: &Value) -> bool {
        self.figment.get_metadata(value.tag()).is_some_and(|layer| layer.name != FILE_LAYER)
    }

    /// The variable that this value of a key is, where it begins as a list or a table does.
    pub(super) fn bracketed(&self, path: &str, value: &Value) -> Option<&Bracketed> {
        let layer = self.figment.get_metadata(value.tag())?;
        self.bracketed.get(path).filter(|variable| variable.layer == layer.name)
    }
}

const FILE_LAYER: &str = "file";

/// Reads the file that is asked for and the environment.
///
/// # Errors
/// An unreadable file, a syntax error, an environment variable that is no key.
pub(super) fn read(config: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Tree, ConfigError> {
    let env: BTreeMap<String, String> = env.collect();
    let named = config
        .map(Path::to_owned)
        .or_else(|| env.get("DOORWARD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let (file, text) = match &named {
        Some(path) => (named.clone(), read_file(path, config.is_none())?),
        None => match std::fs::read_to_string(DEFAULT_CONFIG) {
            Ok(text) => (Some(PathBuf::from(DEFAULT_CONFIG)), text),
            Err(error) if error.kind() == ErrorKind::NotFound => (None, String::new()),
            Err(error) => return Err(unreadable(Path::new(DEFAULT_CONFIG), &error, "")),
        },
    };
    merge(file, &text, &env)
}

/// The shipped configuration, without file or environment.
pub(super) fn shipped() -> Result<Tree, ConfigError> {
    merge(Some(PathBuf::from(DEFAULT_CONFIG)), include_str!("../../config/doorward.toml"), &BTreeMap::new())
}

fn merge(file: Option<PathBuf>, text: &str, env: &BTreeMap<String, String>) -> Result<Tree, ConfigError> {
    let mut lines = BTreeMap::new();
    let mut figment = Figment::new();
    if let Some(path) = &file {
        let dict = parse_file(path, text, &mut lines)?;
        figment = figment.merge(Layer { name: FILE_LAYER.to_owned(), dict });
    }
    let mut bracketed = BTreeMap::new();
    let layers = environment(env, &mut bracketed).map_err(ConfigError)?;
    for layer in layers {
        figment = figment.merge(layer);
    }
    // Merging cannot fail: every layer is plain data. Should figment say otherwise, it is said aloud.
    let dict = figment.data().map_err(|error| whole_file(DEFAULT_CONFIG, error.to_string()))?;
    let dict = dict.get(&Profile::Default).cloned().unwrap_or_default();
    Ok(Tree { file, dict, figment, lines, bracketed })
}

fn read_file(path: &Path, from_environment: bool) -> Result<String, ConfigError> {
    let by = if from_environment { " (named by DOORWARD_CONFIG)" } else { "" };
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error, by))
}

fn unreadable(path: &Path, error: &std::io::Error, by: &str) -> ConfigError {
    ConfigError(vec![Mistake {
        place: path.display().to_string(),
        key: String::new(),
        message: format!("cannot read the configuration{by}: {error}"),
        help: "Name a readable TOML file with --config or DOORWARD_CONFIG.".to_owned(),
    }])
}

fn whole_file(place: &str, message: String) -> ConfigError {
    ConfigError(vec![Mistake { place: place.to_owned(), key: String::new(), message, help: String::new() }])
}

fn parse_file(path: &Path, text: &str, lines: &mut BTreeMap<String, usize>) -> Result<Dict, ConfigError> {
    let syntax = |error: &toml::de::Error| {
        let at = error.span().map_or(1, |span| line_of(text, span.start));
        let excerpt = excerpt(text.lines().nth(at - 1).unwrap_or_default());
        ConfigError(vec![Mistake {
            place: format!("{}:{at}", path.display()),
            key: String::new(),
            message: format!("not valid TOML: {} in `{excerpt}`", error.message().replace('\n', ", ")),
            help: "Mend the line; `key = \"text\"`, `key = 1` and `[section]` are the forms most often meant."
                .to_owned(),
        }])
    };
    let table = DeTable::parse(text).map_err(|error| syntax(&error))?;
    note_lines(text, "", table.get_ref(), lines);
    let value: toml::Table = toml::from_str(text).map_err(|error| syntax(&error))?;
    to_dict(value).map_err(|message| whole_file(&path.display().to_string(), message))
}

/// A line for people, without the value of what may be a secret or an address with a password in it.
fn excerpt(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let hidden = ["secret", "password", "token", "url", "smtp"].iter().any(|word| lower.contains(word));
    match line.split_once('=') {
        Some((key, _)) if hidden => format!("{} = …", key.trim()),
        None if hidden => "…".to_owned(),
        _ => line.trim().to_owned(),
    }
}

fn to_dict(table: toml::Table) -> Result<Dict, String> {
    match Value::serialize(toml::Value::Table(table)) {
        Ok(Value::Dict(_, dict)) => Ok(dict),
        Ok(_) => Err("not a table".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn note_lines(text: &str, above: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
        lines.insert(path.clone(), line_of(text, key.span().start));
        note_value(text, &path, value, lines);
    }
}

fn note_value(text: &str, path: &str, value: &Spanned<DeValue<'_>>, lines: &mut BTreeMap<String, usize>) {
    match value.get_ref() {
        DeValue::Table(table) => note_lines(text, path, table, lines),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), line_of(text, item.span().start));
                note_value(text, &path, item, lines);
            }
        }
        _ => {}
    }
}

/// One source of values, as figment takes them.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// One layer a variable, so that a value leads back to the variable that it came from.
fn environment(
    env: &BTreeMap<String, String>,
    bracketed: &mut BTreeMap<String, Bracketed>,
) -> Result<Vec<Layer>, Vec<Mistake>> {
    let mut layers = Vec::new();
    let mut mistakes = Vec::new();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut take =
        |name: &str, key: String, mistakes: &mut Vec<Mistake>| match taken.insert(key.clone(), name.to_owned()) {
            Some(other) => {
                mistakes.push(Mistake {
                    place: format!("environment variable {name}"),
                    key,
                    message: format!("is set by {other} too"),
                    help: format!("Unset one of {name} and {other}."),
                });
                false
            }
            None => true,
        };
    for (name, key) in DEPLOYMENT_NAMES {
        if let Some(text) = env.get(name) {
            // An empty address is how deployment tools write "none"; an empty secret is a weak secret, and refused as one.
            if (key == "auth.secret" || !text.is_empty()) && take(name, key.to_owned(), &mut mistakes) {
                layers.push(layer(name, key, Value::from(text.as_str())));
            }
        }
        let file_name = format!("{name}_FILE");
        if !matches!(name, "DATABASE_URL" | "REDIS_URL") {
            continue;
        }
        if let Some(path) = env.get(&file_name).filter(|path| !path.is_empty()) {
            let read = secret_file(Path::new(path)).and_then(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|_| format!("{path} holds bytes that are not UTF-8, and a URL is text"))
            });
            match read {
                Ok(text) if take(&file_name, key.to_owned(), &mut mistakes) => {
                    layers.push(layer(&file_name, key, Value::from(text)));
                }
                Ok(_) => {}
                Err(message) => mistakes.push(Mistake {
                    place: format!("environment variable {file_name}"),
                    key: key.to_owned(),
                    message,
                    help: "Name a readable file that holds the secret and nothing else.".to_owned(),
                }),
            }
        }
    }
    for (name, text) in env {
        let Some(rest) = name.strip_prefix("DOORWARD_").filter(|rest| rest.contains("__")) else { continue };
        let segments: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
        let key = segments.join(".");
        if segments.iter().any(String::is_empty) {
            mistakes.push(Mistake {
                place: format!("environment variable {name}"),
                key: String::new(),
                message: "names no key".to_owned(),
                help: "Write DOORWARD_SECTION__KEY, with two underscores between levels.".to_owned(),
            });
            continue;
        }
        if !take(name, key.clone(), &mut mistakes) {
            continue;
        }
        let (value, fault) = match variable(text) {
            Ok(value) => (value, None),
            Err(fault) => (Value::from(text.as_str()), Some(fault)),
        };
        let layer = layer(name, &key, value);
        if text.starts_with(BRACKETS) {
            bracketed.insert(key, Bracketed { layer: layer.name.clone(), text: text.clone(), fault });
        }
        layers.push(layer);
    }
    if mistakes.is_empty() { Ok(layers) } else { Err(mistakes) }
}

const BRACKETS: [char; 2] = ['[', '{'];

/// The text of a variable is taken as it is; only lists and tables are TOML. What type a scalar has is for the key to say.
fn variable(text: &str) -> Result<Value, String> {
    if !text.starts_with(BRACKETS) {
        return Ok(Value::from(text));
    }
    let table: toml::Table = toml::from_str(&format!("value = {text}")).map_err(|error| error.message().to_owned())?;
    let keys: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    if keys.len() != 1 {
        return Err("more than one value".to_owned());
    }
    to_dict(table)?.remove("value").ok_or_else(|| "no value".to_owned())
}

fn layer(name: &str, key: &str, value: Value) -> Layer {
    let mut segments: Vec<&str> = key.split('.').collect();
    let first = segments.remove(0).to_owned();
    let value =
        segments.iter().rev().fold(value, |inner, segment| Value::from(Dict::from([((*segment).to_owned(), inner)])));
    Layer { name: format!("environment variable {name}"), dict: Dict::from([(first, value)]) }
}

/// Reads a secret from a file, whatever bytes it consists of; one trailing newline is the editor's and is dropped.
///
/// # Errors
/// A message without the secret, if it cannot be read.
pub(super) fn secret_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Ok(bytes)
}
