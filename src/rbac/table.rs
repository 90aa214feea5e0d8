//! The compiled role table: dense ids, bitsets, and the grants of one subject in one service.

use std::collections::BTreeMap;

use super::code::{Grant, PermissionCode, RoleKey, ServiceName, TierKey};

/// A permission of one [`RoleTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PermissionId(pub u32);
/// A role of one [`RoleTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleId(pub u32);
/// A service of one [`RoleTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// Roles, permissions and tiers as data, whatever they were read from (a roles file now, a database later).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleData {
    /// The known permissions of each service.
    pub permissions: BTreeMap<ServiceName, Vec<PermissionCode>>,
    /// The active roles.
    pub roles: BTreeMap<RoleKey, RoleDefinition>,
    /// Each service's tiers in rising order.
    pub tiers: BTreeMap<ServiceName, Vec<TierDefinition>>,
}

/// One role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleDefinition {
    /// The role whose permissions this one holds too.
    pub parent: Option<RoleKey>,
    /// The only service in which the role counts; `None` for all.
    pub scope: Option<ServiceName>,
    /// What it holds itself.
    pub permissions: Vec<Grant>,
}

/// One tier of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierDefinition {
    /// Its key.
    pub key: TierKey,
    /// What its members hold, in this service only (T33).
    pub permissions: Vec<Grant>,
}

/// A subject's active membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The service.
    pub service: ServiceName,
    /// The tier.
    pub tier: TierKey,
}

/// Something wrong with role data, that a roles file's reader turns into a diagnostic at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A parent that is no role.
    #[error("role {role} has the parent {parent}, which is no role")]
    UnknownParent {
        /// The child.
        role: RoleKey,
        /// The missing parent.
        parent: RoleKey,
    },
    /// Roles that are each other's ancestors.
    #[error("roles inherit in a circle: {}", .0.iter().map(RoleKey::as_str).collect::<Vec<_>>().join(" → "))]
    Cycle(Vec<RoleKey>),
    /// A parent may have no scope, or its child's (T33).
    #[error("role {role} cannot inherit from {parent}, which counts only in {parent_scope}")]
    ParentScope {
        /// The child.
        role: RoleKey,
        /// The parent.
        parent: RoleKey,
        /// The parent's scope.
        parent_scope: ServiceName,
    },
    /// A grant that covers no known permission.
    #[error("{holder} holds {grant}, which is no known permission")]
    UnknownPermission {
        /// The role or tier, as written in the file.
        holder: String,
        /// The grant.
        grant: Grant,
    },
    /// A scope that names no service with permissions or tiers.
    #[error("role {role} has the scope {scope}, which is no known service")]
    UnknownScope {
        /// The role.
        role: RoleKey,
        /// Its scope.
        scope: ServiceName,
    },
}

/// An immutable compiled role table.
#[derive(Debug)]
pub struct RoleTable {
    identity: u64,
}

/// What one subject holds in one service, under one table. Cached beside the token (T8).
#[derive(Debug, Clone)]
pub struct Grants {
    /// Identity of the table that made it; bits mean nothing under another.
    table: u64,
}

impl RoleTable {
    /// Compiles role data; all faults at once.
    ///
    /// # Errors
    /// Every [`Fault`] of the data.
    pub fn compile(data: &RoleData) -> Result<Self, Vec<Fault>> {
        let _ = data;
        todo!()
    }

    /// Distinguishes this table from every other of the process.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The id of a known permission.
    #[must_use]
    pub fn permission(&self, code: &str) -> Option<PermissionId> {
        let _ = code;
        todo!()
    }

    /// The code of a permission.
    #[must_use]
    pub fn permission_code(&self, id: PermissionId) -> &PermissionCode {
        let _ = id;
        todo!()
    }

    /// The id of a known role.
    #[must_use]
    pub fn role(&self, key: &str) -> Option<RoleId> {
        let _ = key;
        todo!()
    }

    /// The key of a role.
    #[must_use]
    pub fn role_key(&self, id: RoleId) -> &RoleKey {
        let _ = id;
        todo!()
    }

    /// The id of a service that has permissions, tiers or scoped roles.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<ServiceId> {
        let _ = name;
        todo!()
    }

    /// A tier's place in its service's rising order, from 0.
    #[must_use]
    pub fn tier_rank(&self, service: ServiceId, tier: &str) -> Option<u32> {
        let _ = (service, tier);
        todo!()
    }

    /// Whether the role opens administration: it, or an ancestor, holds `*` or a permission of the
    /// service `doorward`, in any scope (T34).
    #[must_use]
    pub fn is_administrator(&self, role: RoleId) -> bool {
        let _ = role;
        todo!()
    }

    /// The roles (ids, rising) that hold the permission in the service, by themselves or through an
    /// ancestor. For explanations and static checks, not for the request path.
    #[must_use]
    pub fn roles_holding(&self, permission: PermissionId, service: Option<ServiceId>) -> Vec<RoleId> {
        let _ = (permission, service);
        todo!()
    }

    /// What a subject with these roles and memberships holds where `service` is asked about.
    /// Unknown roles and tiers grant nothing; roles scoped to another service do not count; a tier's
    /// permissions count only in its own service (T33). `service` is the policy's, by name: it need not be known here.
    #[must_use]
    pub fn resolve<'k>(
        &self,
        service: &str,
        roles: impl IntoIterator<Item = &'k RoleKey>,
        memberships: &[Membership],
    ) -> Grants {
        let _ = (service, roles.into_iter().count(), memberships);
        todo!()
    }
}

impl Grants {
    /// Identity of the table that made it.
    #[must_use]
    pub fn table(&self) -> u64 {
        self.table
    }

    /// Whether the permission is held.
    #[must_use]
    pub fn has(&self, permission: PermissionId) -> bool {
        let _ = permission;
        todo!()
    }

    /// Whether the role, or one that inherits from it, is held and counts in this service.
    #[must_use]
    pub fn has_role(&self, role: RoleId) -> bool {
        let _ = role;
        todo!()
    }

    /// The rank of the held tier of a service, if any.
    #[must_use]
    pub fn tier(&self, service: ServiceId) -> Option<u32> {
        let _ = service;
        todo!()
    }

    /// The roles that the subject was given and that count in this service, sorted; no ancestors (for `X-User-Roles`).
    #[must_use]
    pub fn roles(&self) -> &[RoleKey] {
        todo!()
    }

    /// The known memberships, sorted by service (for `X-User-Memberships`).
    #[must_use]
    pub fn memberships(&self) -> &[Membership] {
        todo!()
    }
}
