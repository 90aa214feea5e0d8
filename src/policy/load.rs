//! From files to snapshots, in one place for the start, the reload and the commands. Reading files here is the only
//! file access of this room.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::{PolicyFile, SourceText, Span};
use super::{CompileInput, Diagnostic, Diagnostics, Severity, Snapshot, compile, roles_file};
use crate::rbac::RoleTable;

/// Policy files that are compiled together, since one listener enforces them.
#[derive(Debug, Clone, Copy)]
pub struct PolicySet<'s> {
    /// The files; a set without any has no snapshot.
    pub sources: &'s [Arc<SourceText>],
    /// The upstreams that they may name; `None` if that cannot be known.
    pub upstreams: Option<&'s BTreeSet<String>>,
    /// Whether all of it is in report mode.
    pub report: bool,
}

/// What `N` sets of policy files became, as far as they could, and all that was found.
pub struct LoadedSets<const N: usize> {
    /// The role table that the snapshots share.
    pub roles: Option<Arc<RoleTable>>,
    /// One for each set.
    pub snapshots: [Option<Snapshot>; N],
    /// Every fault of every file.
    pub found: Diagnostics,
}

/// Parses the roles file and all policy files, and compiles each set. Without roles nothing is compiled: every permission
/// would be unknown, which would only hide the one thing to mend.
#[must_use]
pub fn compile_sets<const N: usize>(roles: Option<&Arc<SourceText>>, sets: [PolicySet<'_>; N]) -> LoadedSets<N> {
    let mut found = Diagnostics::default();
    let roles = roles.and_then(|source| {
        let (roles, faults) = roles_file::parse(Arc::clone(source));
        found.0.extend(faults.0);
        roles.map(|(_, table)| Arc::new(table))
    });
    let snapshots = sets.map(|set| {
        let mut files = Vec::new();
        for source in set.sources {
            let (file, faults) = PolicyFile::parse(Arc::clone(source));
            files.extend(file);
            found.0.extend(faults.0);
        }
        let roles = Arc::clone(roles.as_ref().filter(|_| !files.is_empty())?);
        let (snapshot, faults) =
            compile(&CompileInput { files: &files, roles, upstreams: set.upstreams, report: set.report });
        found.0.extend(faults.0);
        snapshot
    });
    LoadedSets { roles, snapshots, found }
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {error}")]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: std::io::Error,
}

impl LoadError {
    /// The failure as a finding beside those of files that could be read.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code: "unreadable-file",
            message: format!("cannot be read: {}", self.error),
            help: Some("Name a readable UTF-8 file.".to_owned()),
            source: Arc::new(SourceText { name: self.path.display().to_string(), text: String::new() }),
            span: Span::default(),
            related: None,
        }
    }
}

/// Reads one file; its name is the path as given.
///
/// # Errors
/// [`LoadError`] if it cannot be read or is not UTF-8.
pub fn read(path: &Path) -> Result<Arc<SourceText>, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|error| LoadError { path: path.to_owned(), error })?;
    Ok(Arc::new(SourceText { name: path.display().to_string(), text }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::policy::snapshot::ADMIN_UPSTREAM;

    const ROLES: &str = "version: 1\npermissions: { oms: ['a:b'] }\nroles: { ROLE_USER: { permissions: ['a:b'] } }\n";

    fn source(name: &str, text: &str) -> Arc<SourceText> {
        Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() })
    }

    fn policy(name: &str, upstream: &str, requirement: &str) -> Arc<SourceText> {
        let text =
            format!("version: 1\nservice: oms\nupstream: {upstream}\npaths: {{ /x: {{ get: {requirement} }} }}\n");
        source(name, &text)
    }

    fn load(roles: &str, gateway: &[Arc<SourceText>], admin: &[Arc<SourceText>]) -> LoadedSets<2> {
        let known = BTreeSet::from(["oms".to_owned()]);
        let own = BTreeSet::from([ADMIN_UPSTREAM.to_owned()]);
        let set = |sources, upstreams| PolicySet { sources, upstreams: Some(upstreams), report: false };
        compile_sets(Some(&source("roles.yaml", roles)), [set(gateway, &known), set(admin, &own)])
    }

    #[test]
    fn each_set_has_its_own_snapshot_and_a_set_without_files_has_none() {
        let gateway = [policy("oms.yaml", "oms", "'a:b'")];
        let admin = [policy("admin.yaml", ADMIN_UPSTREAM, "'a:b'")];
        let loaded = load(ROLES, &gateway, &admin);
        assert!(loaded.found.0.is_empty(), "{}", loaded.found.render(false));
        assert!(loaded.snapshots.iter().all(Option::is_some));
        let loaded = load(ROLES, &gateway, &[]);
        assert!(loaded.snapshots[0].is_some() && loaded.snapshots[1].is_none());
        assert_eq!(loaded.roles.unwrap().identity(), loaded.snapshots[0].as_ref().unwrap().roles().identity());
    }

    #[test]
    fn every_fault_of_every_file_is_found_at_once() {
        let gateway = [policy("one.yaml", "oms", "'A B'"), policy("two.yaml", "oms", "[]")];
        let loaded = load("version: 2\n", &gateway, &[policy("admin.yaml", ADMIN_UPSTREAM, "")]);
        let text = loaded.found.render(false);
        for name in ["roles.yaml", "one.yaml", "two.yaml", "admin.yaml"] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }

    #[test]
    fn neither_listeners_policy_may_name_what_is_the_others() {
        let mistaken = load(ROLES, &[policy("oms.yaml", ADMIN_UPSTREAM, "'a:b'")], &[]);
        assert!(mistaken.found.has_errors() && mistaken.snapshots[0].is_none());
        let mistaken = load(ROLES, &[], &[policy("admin.yaml", "oms", "'a:b'")]);
        assert!(mistaken.found.has_errors() && mistaken.snapshots[1].is_none());
    }
}
