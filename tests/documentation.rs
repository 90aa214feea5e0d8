//! The documents say what the program does: the README's example files are checked and run through the commands that it
//! shows, and the reference names every reason, metric, key of the log and key of the configuration.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop loudly")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use doorward::reason::Reason;
use doorward::telemetry::metrics::FAMILY_NAMES;

const README: &str = include_str!("../README.md");
const REFERENCE: &str = include_str!("../docs/reference.md");
const CONFIG: &str = include_str!("../config/doorward.toml");

/// The fenced block that follows a line with `name` in backquotes at its beginning.
fn file(name: &str) -> &'static str {
    let (_, after) = README.split_once(&format!("\n`{name}`: ")).unwrap();
    let (_, after) = after.split_once("\n```").unwrap();
    let (_, block) = after.split_once('\n').unwrap();
    block.split_once("\n```").unwrap().0
}

/// Runs a command in a folder with the README's four files.
fn doorward(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for name in ["doorward.toml", "roles.yaml", "todos.yaml", "todos.test.yaml"] {
        fs::write(folder.path().join(name), file(name)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).current_dir(folder.path()).env_clear().env("DOORWARD_CONFIG", "doorward.toml");
    command.output().unwrap()
}

/// What a command prints stands in the README, under the command itself.
fn shown(command: &str, arguments: &[&str], code: i32) {
    let done = doorward(arguments);
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&done.stderr));
    let (_, after) = README.split_once(&format!("$ doorward {command}\n")).unwrap();
    let printed = after.split("\n$ ").next().unwrap().split("\n```").next().unwrap();
    let printed = printed.split("\n…").next().unwrap();
    assert!(text.starts_with(printed), "the README says\n{printed}\nand the command\n{text}");
}

#[test]
fn the_readmes_example_passes_its_own_commands() {
    shown("policy check", &["policy", "check"], 0);
    shown("policy test", &["policy", "test"], 0);
    let explain = "policy explain 'DELETE /todos/7' --as role:ROLE_USER";
    shown(explain, &["policy", "explain", "DELETE /todos/7", "--as", "role:ROLE_USER"], 1);
}

#[test]
fn the_reference_names_every_reason_with_its_status() {
    for reason in Reason::ALL {
        let row = format!("| `{}` | {}", reason.code(), reason.status());
        assert!(REFERENCE.contains(&row), "no row {row}");
    }
}

#[test]
fn the_reference_names_every_metric() {
    for name in FAMILY_NAMES {
        assert!(REFERENCE.contains(&format!("| `{name}` |")), "no row for {name}");
    }
}

#[test]
fn the_reference_names_every_key_that_the_configuration_sets() {
    let table: toml::Table = toml::from_str(CONFIG).unwrap();
    for (section, keys) in &table {
        // Those are there to be refused when they are switched on.
        if ["identity", "events", "upstreams"].contains(&section.as_str()) {
            continue;
        }
        for key in keys.as_table().unwrap().keys() {
            if ["assertion", "limits", "max_staleness", "on_stale"].contains(&key.as_str()) {
                continue;
            }
            let (section, mode) = (section.as_str(), key == "mode" && section != "gateway");
            let named = REFERENCE.contains(&format!("`{section}.{key}`"));
            assert!(named || mode, "{section}.{key} is not in docs/reference.md");
        }
    }
}

#[test]
fn links_to_files_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (text, folder) in [(README, root.to_owned()), (REFERENCE, root.join("docs"))] {
        for link in text.split("](").skip(1).filter_map(|after| after.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{link}");
            }
        }
    }
}
