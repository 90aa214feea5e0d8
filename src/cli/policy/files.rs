//! The policy and roles files that a command is about, read and compiled as the start of doorward does it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;

use crate::cli::Context;
use crate::config;
use crate::policy::{
    CompileInput, Diagnostic, Diagnostics, PolicyFile, Severity, Snapshot, SourceText, Span, compile, roles_file,
};
use crate::rbac::RoleTable;

/// The upstream that the admin listener's own policy names.
const ADMIN_UPSTREAM: &str = "doorward-admin";

/// Which files.
pub(super) struct Chosen<'a> {
    /// Policy files; none: those of the configuration.
    pub(super) files: &'a [PathBuf],
    /// The roles file, if not that of the configuration.
    pub(super) roles: Option<&'a Path>,
    /// Whether the admin listener's own policy is among those of the configuration.
    pub(super) admin: bool,
}

/// What was read, and what is wrong with it.
pub(super) struct Files {
    names: Vec<String>,
    found: Diagnostics,
    /// One for the gateway's policies, one for the admin listener's own; none of those in which there is an error.
    snapshots: Vec<Snapshot>,
}

impl Files {
    pub(super) fn load(chosen: &Chosen<'_>, context: &mut Context<'_>) -> anyhow::Result<Self> {
        let settings = context.settings()?;
        // Files that are named need not belong to the configuration that happens to be there, unless it is named too.
        let upstreams: Option<BTreeSet<String>> =
            (chosen.files.is_empty() || context.config.is_some()).then(|| settings.upstreams.keys().cloned().collect());
        let mut paths = chosen.files.to_vec();
        if paths.is_empty() {
            paths.clone_from(&settings.gateway.policies);
            if chosen.admin {
                paths.push(settings.admin.policy.clone());
            }
        }
        let mut files = Self { names: Vec::new(), found: Diagnostics::default(), snapshots: Vec::new() };
        let Some(roles_path) = chosen.roles.or(settings.roles.as_deref()) else {
            bail!("the configuration names no roles file; name one with --roles");
        };
        let roles = files.read(roles_path).and_then(|source| files.keep(roles_file::parse(source)));
        files.names.clear();
        let sources: Vec<Arc<SourceText>> = paths.iter().filter_map(|path| files.read(path)).collect();
        let policies: Vec<PolicyFile> =
            sources.into_iter().filter_map(|source| files.keep(PolicyFile::parse(source))).collect();
        // Without roles every permission would be unknown, which would only hide the one thing to mend.
        if let Some((_, roles)) = roles {
            let roles = Arc::new(roles);
            let is_admin = |file: &PolicyFile| file.upstream.as_ref().is_some_and(|name| name.value == ADMIN_UPSTREAM);
            let (admin, gateway): (Vec<_>, Vec<_>) = policies.into_iter().partition(is_admin);
            files.compile(&gateway, &roles, upstreams.as_ref(), settings.gateway.report);
            files.compile(&admin, &roles, Some(&BTreeSet::from([ADMIN_UPSTREAM.to_owned()])), false);
        }
        Ok(files)
    }

    fn compile(
        &mut self,
        files: &[PolicyFile],
        roles: &Arc<RoleTable>,
        upstreams: Option<&BTreeSet<String>>,
        report: bool,
    ) {
        if files.is_empty() {
            return;
        }
        let input = CompileInput { files, roles: Arc::clone(roles), upstreams, report };
        if let Some(snapshot) = self.keep(compile(&input)) {
            self.snapshots.push(snapshot);
        }
    }

    fn keep<T>(&mut self, (value, found): (Option<T>, Diagnostics)) -> Option<T> {
        self.found.0.extend(found.0);
        value
    }

    fn read(&mut self, path: &Path) -> Option<Arc<SourceText>> {
        match config::read(path) {
            Ok(source) => {
                self.names.push(source.name.clone());
                Some(source)
            }
            Err(failure) => {
                self.names.push(path.display().to_string());
                self.found.0.push(Diagnostic {
                    severity: Severity::Error,
                    code: "unreadable-file",
                    message: format!("cannot be read: {}", failure.error),
                    help: Some("Name a readable UTF-8 file.".to_owned()),
                    source: Arc::new(SourceText { name: path.display().to_string(), text: String::new() }),
                    span: Span::default(),
                    related: None,
                });
                None
            }
        }
    }

    /// What was found.
    pub(super) fn diagnostics(&self) -> &Diagnostics {
        &self.found
    }

    /// The policy files by name.
    pub(super) fn names(&self) -> String {
        self.names.join(", ")
    }

    /// How many routes were compiled.
    pub(super) fn route_count(&self) -> usize {
        self.snapshots.iter().map(|snapshot| snapshot.routes().len()).sum()
    }

    /// The snapshots, if nothing is wrong.
    pub(super) fn snapshots(&self) -> Option<&[Snapshot]> {
        (!self.found.has_errors()).then_some(&self.snapshots)
    }
}
