//! The policy and roles files that a command is about, read and compiled as the start of doorward does it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;

use crate::cli::Context;
use crate::config;
use crate::policy::snapshot::ADMIN_UPSTREAM;
use crate::policy::{
    CompileInput, Diagnostic, Diagnostics, PolicyFile, Severity, Snapshot, SourceText, Span, compile, roles_file,
};
use crate::rbac::RoleTable;
use crate::rbac::table::ADMIN_SERVICE;

/// Which files.
pub(super) struct Chosen<'a> {
    /// Policy files; none: those of the configuration.
    pub(super) files: &'a [PathBuf],
    /// The roles file, if not that of the configuration.
    pub(super) roles: Option<&'a Path>,
    /// Which of those of the configuration.
    pub(super) of: Listeners,
}

/// Whose policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listeners {
    /// Those that the gateway enforces.
    Gateway,
    /// The admin listener's own.
    Admin,
    /// Both.
    All,
}

/// What was read, and what is wrong with it.
pub(super) struct Files {
    names: Vec<String>,
    found: Diagnostics,
    /// The roles file, if it could be read.
    roles: Option<Arc<SourceText>>,
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
            if chosen.of != Listeners::Admin {
                paths.clone_from(&settings.gateway.policies);
            }
            if chosen.of != Listeners::Gateway {
                paths.push(settings.admin.policy.clone());
            }
        }
        let mut files = Self { names: Vec::new(), found: Diagnostics::default(), roles: None, snapshots: Vec::new() };
        let Some(roles_path) = chosen.roles.or(settings.roles.as_deref()) else {
            bail!("the configuration names no roles file; name one with --roles");
        };
        files.roles = files.read(roles_path);
        let roles = files.roles.clone().and_then(|source| files.keep(roles_file::parse(source)));
        files.names.clear();
        let sources: Vec<Arc<SourceText>> = paths.iter().filter_map(|path| files.read(path)).collect();
        let policies: Vec<PolicyFile> =
            sources.into_iter().filter_map(|source| files.keep(PolicyFile::parse(source))).collect();
        // Without roles every permission would be unknown, which would only hide the one thing to mend.
        if let Some((_, table)) = roles {
            let roles = Arc::new(table);
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

    /// Warns of every permission that no route asks for (SPEC 10), of the services that these files are about. Those of the service
    /// `doorward` are asked for by its own calls too.
    pub(super) fn warn_of_unasked(&mut self) {
        let Some(source) = self.roles.as_ref().filter(|_| !self.found.has_errors()) else { return };
        let unasked: Vec<Vec<&str>> = self.snapshots.iter().map(Snapshot::unasked_permissions).collect();
        let services: BTreeSet<&str> =
            self.snapshots.iter().flat_map(Snapshot::services).map(|service| &*service.name).collect();
        for (service, code, span) in roles_file::places_of_permissions(source) {
            let idle = service != ADMIN_SERVICE
                && services.contains(&*service)
                && unasked.iter().all(|codes| codes.contains(&&*code));
            if idle {
                let message = format!("no route asks for `{code}`, so holding it opens nothing");
                let finding = Diagnostic::warning(source, span, "permission-unasked", message);
                self.found.push(finding.help("Ask for it in a policy file, or remove it here and from the roles."));
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

    /// The snapshots.
    ///
    /// # Errors
    /// Everything that is wrong with the files, as text.
    pub(super) fn snapshots(&self) -> anyhow::Result<&[Snapshot]> {
        if self.found.has_errors() {
            bail!("{}\n{}", self.names(), self.found.render(false).trim_end());
        }
        Ok(&self.snapshots)
    }
}
