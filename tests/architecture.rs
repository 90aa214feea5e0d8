//! The house keeps its shape: imports point down (DESIGN.md), rooms on one floor do not know each other, there are no
//! circles, and no file is named for being useful.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The floors of DESIGN.md. A room may import from lower floors only, and from itself.
const FLOORS: [(u8, &[&str]); 13] = [
    (0, &["clock", "secret", "live", "tasks", "reason"]),
    (1, &["request", "rbac", "https"]),
    (2, &["policy"]),
    (3, &["token", "revocation", "telemetry", "events"]),
    (4, &["delegate", "net", "replication"]),
    (5, &["admission", "store"]),
    (6, &["ledger"]),
    (7, &["control"]),
    (8, &["accounts"]),
    (9, &["gateway", "identity_api", "admin_api", "sync"]),
    (10, &["config"]),
    (11, &["app", "demo"]),
    (12, &["cli", "main"]),
];

/// What a room must not know although it lies on a lower floor, or comes from outside (DESIGN.md, "must not know").
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("request", &["tokio", "hyper", "hyper_util", "jsonwebtoken"]),
    ("rbac", &["http", "hyper", "tokio"]),
    (
        "policy",
        &[
            "tokio",
            "hyper",
            "hyper_util",
            "std::env",
            "std::net::TcpStream",
            "std::time::SystemTime",
            "std::time::Instant",
        ],
    ),
    ("token", &["tokio", "hyper", "hyper_util", "crate::request"]),
    ("revocation", &["tokio", "hyper", "http"]),
    ("net", &["crate::policy", "crate::token", "crate::rbac"]),
    ("admission", &["tokio", "hyper", "hyper_util"]),
    ("gateway", &["crate::control", "crate::accounts", "crate::store"]),
];

const BANNED_NAMES: [&str; 10] =
    ["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc", "shared", "imp"];

/// One mention of another room, or of a crate.
#[derive(Debug, Clone)]
struct Import {
    file: PathBuf,
    line: usize,
    /// `crate::policy::Snapshot` (made absolute), or `tokio::net` as written.
    path: String,
}

#[test]
fn imports_point_down() {
    let imports = imports_of(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    let faults: Vec<String> = imports.iter().filter_map(upward).collect();
    assert!(faults.is_empty(), "{} forbidden arrows:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn rooms_do_not_know_what_they_must_not() {
    let imports = imports_of(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    let faults: Vec<String> = imports.iter().filter_map(forbidden).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn there_is_no_circle_between_rooms() {
    let imports = imports_of(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in &imports {
        if let (Some(from), Some(to)) = (room_of(&import.file), target_room(&import.path))
            && from != to
        {
            arrows.entry(from).or_default().insert(to);
        }
    }
    assert_eq!(circle(&arrows), None, "rooms import each other in a circle");
}

#[test]
fn every_room_stands_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let room = room_of(file.strip_prefix(&source).unwrap());
        let known = room.is_none_or(|room| floor(&room).is_some());
        assert!(known, "{} belongs to no room of DESIGN.md; give it a floor in tests/architecture.rs", file.display());
    }
}

#[test]
fn no_file_is_named_for_being_useful() {
    for folder in ["src", "tests"] {
        for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let inside = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            for part in inside.iter().map(|part| part.to_string_lossy()) {
                let name = part.trim_end_matches(".rs");
                assert!(
                    !BANNED_NAMES.contains(&name),
                    "{}: name it for the thing or the act (STYLE.md)",
                    inside.display()
                );
            }
        }
    }
}

#[test]
fn a_permit_cannot_be_made_outside_its_room() {
    // The compiler is asked directly, against the library that this test was built with: trybuild would build all
    // dependencies once more, minutes of work on a cold machine.
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let built = std::fs::read_dir(&deps).unwrap().map(|entry| entry.unwrap().path());
    let library = built
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libdoorward-")))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rlib"))
        .max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).unwrap())
        .unwrap();
    let out = tempfile::tempdir().unwrap();
    let compile = |file: &str| {
        let output = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--out-dir"])
            .arg(out.path())
            .arg(format!("-Ldependency={}", deps.display()))
            .arg(format!("--extern=doorward={}", library.display()))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui").join(file))
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (made, said) = compile("permit_is_private.rs");
    assert!(!made && said.contains("error[E0451]: field `judged` of struct"), "{said}");
    let (made, said) = compile("permit_is_used.rs");
    assert!(made, "the same without making one must compile:\n{said}");
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// The room of a file under `src`; `lib.rs` is the map, not a room.
fn room_of(file: &Path) -> Option<String> {
    let first = file.iter().next()?.to_string_lossy();
    let name = first.trim_end_matches(".rs");
    (name != "lib").then(|| name.to_owned())
}

/// The room that an absolute path leads to.
fn target_room(path: &str) -> Option<String> {
    let room = path.strip_prefix("crate::")?.split("::").next()?;
    floor(room).map(|_| room.to_owned())
}

fn upward(import: &Import) -> Option<String> {
    let (from, to) = (room_of(&import.file)?, target_room(&import.path)?);
    let (below, above) = (floor(&from)?, floor(&to)?);
    let rule = match () {
        () if from == to => return None,
        () if above > below => format!("`{from}` is on floor {below} and `{to}` on floor {above}: imports point down"),
        () if above == below => {
            format!("`{from}` and `{to}` are both on floor {below}: rooms on a floor do not import each other")
        }
        () => return None,
    };
    Some(fault(import, &rule))
}

fn forbidden(import: &Import) -> Option<String> {
    let room = room_of(&import.file)?;
    let (_, banned) = FORBIDDEN.iter().find(|(name, _)| *name == room)?;
    let path = import.path.trim_start_matches("::");
    let ban = banned
        .iter()
        .find(|ban| path.strip_prefix(**ban).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))?;
    Some(fault(import, &format!("`{room}` must not know `{ban}`")))
}

fn fault(import: &Import, rule: &str) -> String {
    let mut text = String::new();
    write!(text, "src/{}:{}: {} ({rule})", import.file.display(), import.line, import.path).unwrap();
    text
}

/// A circle among the arrows, as the rooms that it runs through.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        arrows: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if let Some(start) = way.iter().position(|room| room == at) {
            way.drain(..start);
            way.push(at.to_owned());
            return true;
        }
        if !done.insert(at.to_owned()) {
            return false;
        }
        way.push(at.to_owned());
        for next in arrows.get(at).into_iter().flatten() {
            if walk(next, arrows, way, done) {
                return true;
            }
        }
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|room| {
        let mut way = Vec::new();
        walk(room, arrows, &mut way, &mut done).then_some(way)
    })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let built = path.file_name().is_some_and(|name| name == "target");
        if path.is_dir() && !built {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn imports_of(source: &Path) -> Vec<Import> {
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        imports_in(file.strip_prefix(source).unwrap(), &text)
    };
    rust_files(source).into_iter().flat_map(read).collect()
}

/// Every path of a file that begins with `crate`, `super` or `self`, made absolute, and every `use` of a crate.
fn imports_in(file: &Path, text: &str) -> Vec<Import> {
    let code = without_comments_and_strings(text);
    let mut found = Vec::new();
    let mut add = |at: usize, path: String| {
        let line = code[..at].matches('\n').count() + 1;
        found.push(Import { file: file.to_owned(), line, path });
    };
    // `use` trees first: their braces are opened up.
    for (at, _) in code.match_indices("use ") {
        let starts_statement = code[..at]
            .trim_end_matches(' ')
            .chars()
            .next_back()
            .is_none_or(|c| matches!(c, '\n' | ';' | '{' | '}' | ')'));
        let published = code[..at].trim_end().ends_with("pub");
        if !(starts_statement || published) {
            continue;
        }
        let Some(end) = code[at..].find(';') else { continue };
        for path in leaves(&code[at + 4..at + end]) {
            if let Some(path) = absolute(file, inner_modules(&code[..at]), &path) {
                add(at, path);
            }
        }
    }
    // Then paths in the middle of code.
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                continue;
            }
            let end = code[at..]
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')))
                .map_or(code.len(), |n| at + n);
            // A tree of `super::{…}` was opened above.
            let path = code[at..end].trim_end_matches(':');
            if let Some(path) = absolute(file, inner_modules(&code[..at]), path) {
                add(at, path);
            }
        }
    }
    found
}

/// How many inline `mod name {` are open where the text ends: each is one more level for `super`.
fn inner_modules(before: &str) -> usize {
    let mut depth = 0_usize;
    let mut modules = Vec::new();
    for (at, letter) in before.char_indices() {
        match letter {
            '{' => {
                let head = before[..at].rsplit(['{', '}', ';']).next().unwrap_or_default();
                if head.split_whitespace().rev().nth(1) == Some("mod") {
                    modules.push(depth);
                }
                depth += 1;
            }
            '}' => {
                depth = depth.saturating_sub(1);
                modules.retain(|open| *open < depth);
            }
            _ => {}
        }
    }
    modules.len()
}

/// A path from the crate's root, or a foreign crate's path as it stands. `None` for names in scope that are no path.
fn absolute(file: &Path, inner: usize, path: &str) -> Option<String> {
    let mut here: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if here.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        here.pop();
    }
    here.extend((0..inner).map(|_| "(inline)".to_owned()));
    let mut parts = path.trim().split("::").map(str::trim).peekable();
    let first = parts.next()?;
    match first {
        "crate" => here.clear(),
        "self" => {}
        "super" => {
            here.pop();
            while parts.peek() == Some(&"super") {
                parts.next();
                here.pop();
            }
        }
        _ => return Some(path.trim().to_owned()),
    }
    here.extend(parts.map(str::to_owned));
    Some(format!("crate::{}", here.join("::")))
}

/// Opens the braces of a `use` tree: `a::{b, c::{d, e}}` gives `a::b`, `a::c::d`, `a::c::e`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        return if path.is_empty() { Vec::new() } else { vec![path.to_owned()] };
    };
    let prefix = &tree[..open];
    let close = tree.rfind('}').unwrap_or(tree.len());
    let mut depth = 0_usize;
    let mut start = open + 1;
    let mut branches = Vec::new();
    for (at, letter) in tree[..close].char_indices().skip_while(|(at, _)| *at <= open) {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..close]);
    let whole =
        |leaf: String| if leaf == "self" { prefix.trim_end_matches(':').to_owned() } else { format!("{prefix}{leaf}") };
    branches.into_iter().flat_map(leaves).map(whole).collect()
}

/// The text with comments, strings and characters blanked, so that only code is left, on the lines where it stood.
fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let blank = |out: &mut String, piece: &str| out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest, &out) {
            length
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' && is_character(rest) {
            rest[1..]
                .char_indices()
                .scan(false, |escaped, (at, c)| {
                    let end = c == '\'' && !*escaped;
                    *escaped = c == '\\' && !*escaped;
                    Some((at, end))
                })
                .find(|(_, end)| *end)
                .map_or(rest.len(), |(at, _)| at + 2)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        blank(&mut out, &rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// The length of `r"…"` or `r#"…"#` at the beginning of the text.
fn raw_string(rest: &str, before: &str) -> Option<usize> {
    if before.chars().next_back().is_some_and(|c| c.is_alphanumeric() && c != 'b') {
        return None;
    }
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then(|| {
        let close = format!("\"{}", "#".repeat(hashes));
        let start = 1 + hashes + 1;
        rest[start..].find(&close).map_or(rest.len(), |end| start + end + close.len())
    })
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// Whether a quote begins a character and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut letters = rest.chars().skip(1);
    matches!((letters.next(), letters.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

#[test]
fn the_reader_of_imports_finds_what_it_is_to_find() {
    let text = r##"
//! use crate::cli::Fake;
use std::sync::Arc;
use super::{CompileInput, source::{self, PolicyFile as File}};
use crate::rbac::RoleTable;
fn f() -> crate::gateway::Proxy { let _ = "crate::cli::Not"; let c = '"'; /* crate::cli::Nor */ super::super::telemetry::count(c) }
#[cfg(test)]
mod tests {
    use super::*;
    use super::super::decide::Begin;
}
"##;
    let mut paths: Vec<_> =
        imports_in(Path::new("policy/compile.rs"), text).into_iter().map(|import| (import.line, import.path)).collect();
    paths.sort();
    paths.dedup();
    let paths: Vec<_> = paths.iter().map(|(line, path)| (*line, path.as_str())).collect();
    assert_eq!(paths.iter().filter(|(_, path)| path.starts_with("std::")).count(), 1);
    for expected in [
        (4, "crate::policy::CompileInput"),
        (4, "crate::policy::source"),
        (4, "crate::policy::source::PolicyFile"),
        (5, "crate::rbac::RoleTable"),
        (6, "crate::gateway::Proxy"),
        (6, "crate::telemetry::count"),
        (9, "crate::policy::compile::*"),
        (10, "crate::policy::decide::Begin"),
    ] {
        assert!(paths.contains(&expected), "{expected:?} not in {paths:?}");
    }
    assert!(!paths.iter().any(|(_, path)| path.contains("cli")), "{paths:?}");
    let upward_arrows = imports_in(Path::new("policy/compile.rs"), text).iter().filter_map(upward).count();
    assert!(upward_arrows >= 2, "gateway and telemetry lie above policy");
}

#[test]
fn a_circle_is_found() {
    let arrows = |pairs: &[(&str, &str)]| {
        let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            map.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        map
    };
    assert_eq!(circle(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert!(circle(&arrows(&[("a", "b"), ("b", "c"), ("c", "b")])).is_some());
}
