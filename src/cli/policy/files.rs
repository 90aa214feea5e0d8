//! The policy and roles files that a command is about, read and compiled as the start of doorward does it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;

use crate::cli::Context;
use crate::config;
use crate::policy::load::{self, LoadedSets, PolicySet};
use crate::policy::snapshot::ADMIN_UPSTREAM;
use crate::policy::{Diagnostic, Diagnostics, PolicyFile, Snapshot, SourceText, roles_file};
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
        let Some(roles_path) = chosen.roles.or(settings.roles.as_deref()) else {
            bail!("the configuration names no roles file; name one with --roles");
        };
        let mut unread = Diagnostics::default();
        let mut names = Vec::new();
        let mut read = |path: &Path| match config::read(path) {
            Ok(source) => {
                names.push(source.name.clone());
                Some(source)
            }
            Err(failure) => {
                names.push(path.display().to_string());
                unread.0.push(failure.diagnostic());
                None
            }
        };
        // Files that are named need not belong to the configuration that happens to be there, unless it is named too.
        let upstreams: Option<BTreeSet<String>> =
            (chosen.files.is_empty() || context.config.is_some()).then(|| settings.upstreams.keys().cloned().collect());
        let roles = read(roles_path);
        let (mut gateway, mut admin) = (Vec::new(), Vec::new());
        if chosen.files.is_empty() {
            if chosen.of != Listeners::Admin {
                gateway.extend(settings.gateway.policies.iter().filter_map(|path| read(path)));
            }
            if chosen.of != Listeners::Gateway {
                admin.extend(read(&settings.admin.policy));
            }
        } else {
            (admin, gateway) = chosen.files.iter().filter_map(|path| read(path)).partition(is_admins);
        }
        // The roles file is not one of those that were asked about.
        names.remove(0);
        let admin_upstreams = BTreeSet::from([ADMIN_UPSTREAM.to_owned()]);
        let sets = [
            PolicySet { sources: &gateway, upstreams: upstreams.as_ref(), report: settings.gateway.report },
            PolicySet { sources: &admin, upstreams: Some(&admin_upstreams), report: false },
        ];
        let LoadedSets { snapshots, found, .. } = load::compile_sets(roles.as_ref(), sets);
        unread.0.extend(found.0);
        Ok(Self { names, found: unread, roles, snapshots: snapshots.into_iter().flatten().collect() })
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

/// Whether a file that was named is a policy of the admin listener.
fn is_admins(source: &Arc<SourceText>) -> bool {
    let file = PolicyFile::parse(Arc::clone(source)).0;
    file.and_then(|file| file.upstream).is_some_and(|name| name.value == ADMIN_UPSTREAM)
}
