//! Policy and roles files: read together and compiled together (SPEC 4.3).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::load::{self, LoadError, LoadedSets, PolicySet};
use crate::policy::snapshot::ADMIN_UPSTREAM;
use crate::policy::{Diagnostics, Snapshot, SourceText};
use crate::rbac::RoleTable;

/// Which files make the state that requests are decided by.
#[derive(Debug, Clone)]
pub struct PolicyFiles {
    /// The gateway's policy files; none where there is no gateway.
    pub policies: Vec<PathBuf>,
    /// The admin listener's policy file, if there is such a listener.
    pub admin: Option<PathBuf>,
    /// The roles file.
    pub roles: PathBuf,
    /// The configured upstreams.
    pub upstreams: BTreeSet<String>,
    /// Whether the gateway is in report mode; the admin listener never is (T21).
    pub report: bool,
    /// Reads one file (a default one that is missing comes from the binary).
    pub read: fn(&Path) -> Result<Arc<SourceText>, LoadError>,
}

/// One reading of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    policies: Vec<Arc<SourceText>>,
    admin: Option<Arc<SourceText>>,
    roles: Arc<SourceText>,
}

impl Texts {
    /// Policies, admin policy, roles.
    fn in_order(&self) -> impl Iterator<Item = &Arc<SourceText>> {
        self.policies.iter().chain(&self.admin).chain([&self.roles])
    }
}

/// What one reading was compiled to. The snapshots share one role table.
pub struct Loaded {
    /// The gateway's snapshot.
    pub gateway: Option<Snapshot>,
    /// The admin listener's.
    pub admin: Option<Snapshot>,
    /// The role table.
    pub roles: Arc<RoleTable>,
}

/// Why files cannot be used: one text with every fault, its place and its mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl Unusable {
    /// With every fault, its place and its mend.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl PolicyFiles {
    /// Reads all files.
    ///
    /// # Errors
    /// [`Unusable`] naming every file that cannot be read.
    pub fn read(&self) -> Result<Texts, Unusable> {
        let mut unreadable = Vec::new();
        let mut read = |path: &PathBuf, key: &str| {
            (self.read)(path)
                .map_err(|error| {
                    let help = format!("`{key}` names it in the configuration: name a readable UTF-8 file.");
                    unreadable.push(error.diagnostic().help(help));
                })
                .ok()
        };
        let policies: Vec<_> = self.policies.iter().filter_map(|path| read(path, "gateway.policies")).collect();
        let admin = self.admin.as_ref().and_then(|path| read(path, "admin.policy"));
        match read(&self.roles, "roles.file") {
            Some(roles) if unreadable.is_empty() => Ok(Texts { policies, admin, roles }),
            _ => Err(Unusable(Diagnostics(unreadable).render(false).trim_end().to_owned())),
        }
    }

    /// Compiles what was read. Warnings are logged.
    ///
    /// # Errors
    /// [`Unusable`] with every fault of every file.
    pub fn compile(&self, texts: &Texts) -> Result<Loaded, Unusable> {
        let admin_upstreams = BTreeSet::from([ADMIN_UPSTREAM.to_owned()]);
        let sets = [
            PolicySet { sources: &texts.policies, upstreams: Some(&self.upstreams), report: self.report },
            PolicySet { sources: texts.admin.as_slice(), upstreams: Some(&admin_upstreams), report: false },
        ];
        let LoadedSets { roles, snapshots: [gateway, admin], found } = load::compile_sets(Some(&texts.roles), sets);
        let Some(roles) = roles.filter(|_| !found.has_errors()) else {
            return Err(Unusable(found.render(false).trim_end().to_owned()));
        };
        report(&found);
        Ok(Loaded { gateway, admin, roles })
    }

    /// Reads all files while `before` is in force. A default file that was there and is gone is unreadable: the one in the binary
    /// stands in at the start only, for it says what an example may do and not what this deployment may.
    pub(super) fn read_again(&self, before: &Texts) -> Result<Texts, Unusable> {
        let texts = self.read()?;
        let paths = self.policies.iter().chain(&self.admin).chain([&self.roles]);
        let gone: Vec<_> = paths
            .zip(before.in_order().zip(texts.in_order()))
            .filter(|(path, (old, new))| old.name != new.name && old.name == path.display().to_string())
            .map(|(path, _)| format!("cannot read {}: the file is gone", path.display()))
            .collect();
        if gone.is_empty() { Ok(texts) } else { Err(Unusable(gone.join("\n"))) }
    }
}

fn report(findings: &Diagnostics) {
    for finding in &findings.0 {
        let (line, column) = finding.source.line_column(finding.span.start);
        tracing::warn!(code = finding.code, file = finding.source.name, line, column, "{}", finding.message);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// As if the default files were gone and came from the binary.
    fn built_in(path: &Path) -> Result<Arc<SourceText>, LoadError> {
        on_disk(path).map(|on_disk| {
            Arc::new(SourceText { name: format!("{} (built in)", on_disk.name), text: on_disk.text.clone() })
        })
    }

    fn on_disk(path: &Path) -> Result<Arc<SourceText>, LoadError> {
        Ok(Arc::new(SourceText { name: path.display().to_string(), text: String::new() }))
    }

    #[test]
    fn the_example_in_the_binary_never_replaces_a_policy_that_vanished() {
        let mut files = PolicyFiles {
            policies: vec!["policies/oms.yaml".into()],
            admin: Some("policies/admin.yaml".into()),
            roles: "config/roles.yaml".into(),
            upstreams: BTreeSet::new(),
            report: false,
            read: on_disk,
        };
        let before = files.read().unwrap();
        assert_eq!(files.read_again(&before), Ok(before.clone()));
        files.read = built_in;
        let gone = files.read_again(&before).unwrap_err().to_string();
        for path in ["policies/oms.yaml", "policies/admin.yaml", "config/roles.yaml"] {
            assert!(gone.contains(&format!("cannot read {path}: the file is gone")), "{gone}");
        }
        // One that was never there may stay away, or come.
        let never = files.read().unwrap();
        assert_eq!(files.read_again(&never), Ok(never.clone()));
        files.read = on_disk;
        assert_eq!(files.read_again(&never), Ok(before));
    }
}
