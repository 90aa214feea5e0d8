//! A requirement as written becomes a formula over the ids of a role table.

use std::fmt::Write as _;
use std::sync::Arc;

use super::closest;
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::pattern::{ParamPart, Pattern, Segment};
use crate::policy::snapshot::{Formula, OwnerPlace};
use crate::policy::source::{PolicyFile, Requirement, Span, Spanned};
use crate::rbac::{PermissionCode, PermissionId, RoleTable, TierKey};

/// What the requirements of one path may speak of.
pub(super) struct Requirements<'c> {
    pub(super) roles: &'c Arc<RoleTable>,
    pub(super) file: &'c PolicyFile,
    /// The path as written.
    pub(super) path: &'c str,
    pub(super) pattern: Option<&'c Pattern>,
    pub(super) found: &'c mut Diagnostics,
}

impl Requirements<'_> {
    /// The formula. Where something is unknown there is a finding, and [`Formula::Deny`] in its place.
    pub(super) fn compile(&mut self, require: &Spanned<Requirement>) -> Formula {
        match &require.value {
            Requirement::Public => Formula::Public,
            Requirement::Deny => Formula::Deny,
            _ => self.part(require),
        }
    }

    fn part(&mut self, require: &Spanned<Requirement>) -> Formula {
        let span = require.span;
        match &require.value {
            Requirement::Public | Requirement::Deny => {
                let word = describe(&require.value);
                self.fault(
                    span,
                    "stands-alone",
                    format!("`{word}` cannot be a part of `any` or `all`"),
                    "Let it stand alone.".into(),
                );
                Formula::Deny
            }
            Requirement::Authenticated => Formula::Authenticated,
            Requirement::Permission(code) => self.permission(code, span),
            Requirement::Any(parts) if !parts.is_empty() => {
                Formula::Any(parts.iter().map(|part| self.part(part)).collect())
            }
            Requirement::All(parts) if !parts.is_empty() => {
                Formula::All(parts.iter().map(|part| self.part(part)).collect())
            }
            Requirement::Any(_) | Requirement::All(_) => {
                self.fault(
                    span,
                    "empty-requirement",
                    "an empty `any` or `all`".into(),
                    "Name at least one requirement.".into(),
                );
                Formula::Deny
            }
            Requirement::Role(key) => match self.roles.role(key.as_str()) {
                Some(id) => Formula::Role(id),
                None => {
                    let known = closest(key.as_str(), self.roles.roles().map(|(_, known)| known.as_str()));
                    let mend = mend(known, "Add the role to the roles file, or ask for a permission instead.");
                    self.fault(span, "unknown-role", format!("there is no role `{key}`"), mend)
                }
            },
            Requirement::Membership { service, tier } => {
                let Some(id) = self.roles.service(service.as_str()) else {
                    let known = closest(service.as_str(), self.roles.services().map(|(_, known)| known.as_str()));
                    let mend = mend(known, "Add its tiers to the roles file.");
                    return self.fault(
                        span,
                        "unknown-service",
                        format!("there is no service `{service}` with tiers"),
                        mend,
                    );
                };
                match self.roles.tier_rank(id, tier.as_str()) {
                    Some(rank) => Formula::Membership(id, rank),
                    None => {
                        let tiers: Vec<&str> = self.roles.tiers(id).map(TierKey::as_str).collect();
                        let known = closest(tier.as_str(), tiers.iter().copied());
                        let list = format!("The tiers of `{service}` are: {}.", tiers.join(", "));
                        let list = if tiers.is_empty() {
                            format!("`{service}` has no tiers; add them to the roles file.")
                        } else {
                            list
                        };
                        self.fault(
                            span,
                            "unknown-tier",
                            format!("`{service}` has no tier `{tier}`"),
                            mend(known, &list),
                        )
                    }
                }
            }
            Requirement::Owner(name) => self.owner(name, span),
            Requirement::Client(networks) => Formula::Client(networks.iter().map(ipnet::IpNet::trunc).collect()),
        }
    }

    fn permission(&mut self, code: &PermissionCode, span: Span) -> Formula {
        let Some(id) = self.roles.permission(code.as_str()) else {
            let known = closest(code.as_str(), self.roles.permissions().map(|(_, known)| known.as_str()));
            let mend = mend(known, "Add it to the permissions of the roles file.");
            return self.fault(span, "unknown-permission", format!("there is no permission `{code}`"), mend);
        };
        if self.unheld(id) {
            let service = &self.file.service.value;
            let message = format!("no role and no tier holds `{code}` in `{service}`, so nobody meets it");
            let finding = Diagnostic::warning(&self.file.source, span, "permission-unheld", message);
            self.found.push(finding.help("Give it to a role, or ask for another permission."));
        }
        Formula::Permission(id)
    }

    fn unheld(&self, permission: PermissionId) -> bool {
        let service = self.roles.service(self.file.service.value.as_str());
        let held_by_role = match service {
            Some(_) => !self.roles.roles_holding(permission, service).is_empty(),
            // A service that the role table does not know is one in which only unscoped roles count.
            None => self
                .roles
                .roles()
                .any(|(role, _)| self.roles.scope(role).is_none() && self.roles.role_holds(role, permission, None)),
        };
        let held_by_tier = service.is_some_and(|service| {
            (0_u32..).zip(self.roles.tiers(service)).any(|(rank, _)| self.roles.tier_holds(service, rank, permission))
        });
        !held_by_role && !held_by_tier
    }

    fn owner(&mut self, name: &str, span: Span) -> Formula {
        // A faulty pattern has been reported; what it would have named is not known.
        let Some(pattern) = self.pattern else { return Formula::Deny };
        let Some((_, place)) = pattern.params().find(|(param, _)| *param == name) else {
            let names: Vec<&str> = pattern.params().map(|(param, _)| param).collect();
            let known = closest(name, names.iter().copied());
            let list = if names.is_empty() {
                format!(
                    "Write the path with a parameter, for example `{}/{{{name}}}`.",
                    self.path.trim_end_matches('/')
                )
            } else {
                format!("Its parameters are: {}.", names.join(", "))
            };
            let message = format!("the path `{}` has no parameter `{name}`", self.path);
            return self.fault(span, "unknown-parameter", message, mend(known, &list));
        };
        Formula::Owner(match (place.part, pattern.segments.get(usize::from(place.segment))) {
            (ParamPart::Mixed(part), Some(Segment::Mixed(mixed))) => {
                OwnerPlace::Mixed(Box::new((place.segment, part, mixed.clone())))
            }
            (ParamPart::Rest, _) => OwnerPlace::Rest(place.segment),
            _ => OwnerPlace::Segment(place.segment),
        })
    }

    fn fault(&mut self, span: Span, code: &'static str, message: String, help: String) -> Formula {
        self.found.push(Diagnostic::error(&self.file.source, span, code, message).help(help));
        Formula::Deny
    }
}

fn mend(known: Option<&str>, otherwise: &str) -> String {
    known.map_or_else(|| otherwise.to_owned(), |word| format!("Did you mean `{word}`?"))
}

/// A requirement for people: `all(schema:delete, schema:edit)`.
pub(super) fn describe(requirement: &Requirement) -> String {
    let list = |word: &str, parts: &[Spanned<Requirement>]| {
        let parts: Vec<String> = parts.iter().map(|part| describe(&part.value)).collect();
        format!("{word}({})", parts.join(", "))
    };
    match requirement {
        Requirement::Public => "public".into(),
        Requirement::Authenticated => "authenticated".into(),
        Requirement::Deny => "deny".into(),
        Requirement::Permission(code) => code.to_string(),
        Requirement::Any(parts) => list("any", parts),
        Requirement::All(parts) => list("all", parts),
        Requirement::Role(key) => format!("role({key})"),
        Requirement::Membership { service, tier } => format!("membership({service} >= {tier})"),
        Requirement::Owner(name) => format!("owner({name})"),
        Requirement::Client(networks) => {
            let mut text = String::from("client(");
            for (index, network) in networks.iter().enumerate() {
                let _ = write!(text, "{}{network}", if index > 0 { ", " } else { "" });
            }
            text + ")"
        }
    }
}
