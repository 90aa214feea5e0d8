//! The compiled role table: dense ids, bitsets, and the grants of one subject in one service.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::code::{Grant, PermissionCode, RoleKey, ServiceName, TierKey};
use super::fingerprint::fingerprint;

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

/// The service whose permissions open the admin API (T34).
pub const ADMIN_SERVICE: &str = "doorward";

/// The permissions that doorward's own calls ask for (SPEC 6, 7 and 12). They exist whether or not a roles file lists them, so that
/// the admin listener's policy needs no preparation; nobody holds them unless a role says so.
pub(super) const OWN_PERMISSIONS: [&str; 15] = [
    "audit:view",
    "decide:evaluate",
    "decide:search",
    "decision:view",
    "membership:confirm",
    "metrics:view",
    "permission:edit",
    "permission:view",
    "role:edit",
    "role:grant",
    "role:view",
    "session:revoke",
    "tier:edit",
    "user:edit",
    "user:view",
];

impl RoleData {
    /// Adds the permissions of doorward's own calls that are not listed.
    pub fn add_own_permissions(&mut self) {
        let Ok(service) = ServiceName::parse(ADMIN_SERVICE) else { return };
        let listed = self.permissions.entry(service).or_default();
        for code in OWN_PERMISSIONS.iter().filter_map(|code| PermissionCode::parse(code).ok()) {
            if !listed.contains(&code) {
                listed.push(code);
            }
        }
    }
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
    /// Two tiers of a service with one key; their order would be a guess.
    #[error("the service {service} has the tier {tier} twice")]
    DuplicateTier {
        /// The service.
        service: ServiceName,
        /// The tier.
        tier: TierKey,
    },
}

/// A set of permissions. 256 of them lie inline, which is what most role tables need.
type Bits = SmallVec<[u64; 4]>;

/// An immutable compiled role table.
#[derive(Debug)]
pub struct RoleTable {
    identity: u64,
    fingerprint: Box<str>,
    /// By [`PermissionId`], sorted, so that a wildcard is a range.
    permissions: Vec<PermissionCode>,
    roles: Vec<Role>,
    services: Vec<Service>,
    permission_ids: HashMap<PermissionCode, PermissionId>,
    role_ids: HashMap<RoleKey, RoleId>,
    service_ids: HashMap<ServiceName, ServiceId>,
}

#[derive(Debug)]
struct Role {
    key: RoleKey,
    /// Where the whole closure counts. A parent has no scope or its child's, so this is the narrowest
    /// scope on the way to everything that is inherited (T33).
    scope: Option<ServiceId>,
    parent: Option<RoleId>,
    /// Its own permissions and those of its ancestors.
    closure: Bits,
    administrator: bool,
}

#[derive(Debug)]
struct Service {
    name: ServiceName,
    tiers: Vec<Tier>,
}

#[derive(Debug)]
struct Tier {
    key: TierKey,
    permissions: Bits,
}

/// What one subject holds in one service, under one table. Cached beside the token (T8).
#[derive(Debug, Clone)]
pub struct Grants {
    /// Identity of the table that made it; bits mean nothing under another.
    table: u64,
    permissions: Bits,
    /// The roles held and their ancestors, sorted. A list and not a bitset, since a subject has few
    /// roles while the table may have ten thousand, and there is one of these for every cached token.
    held: SmallVec<[RoleId; 8]>,
    tiers: SmallVec<[(ServiceId, u32); 2]>,
    given: Box<[RoleKey]>,
    memberships: Box<[Membership]>,
}

/// Which roles count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those without a scope, or with the scope that is asked about.
    Scope,
    /// All.
    Everywhere,
}

impl RoleTable {
    /// Compiles role data; all faults at once.
    ///
    /// # Errors
    /// Every [`Fault`] of the data.
    pub fn compile(data: &RoleData) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let permissions = sorted(data.permissions.values().flatten());
        let names = sorted(data.permissions.keys().chain(data.tiers.keys()));
        let service_ids: HashMap<_, _> = names.iter().cloned().zip((0..).map(ServiceId)).collect();
        let role_ids: HashMap<_, _> = data.roles.keys().cloned().zip((0..).map(RoleId)).collect();
        let guarded = data.permissions.get(ADMIN_SERVICE).map(Vec::as_slice).unwrap_or_default();

        let mut expand = |holder: &dyn Fn() -> String, grants: &[Grant]| {
            let mut bits = Bits::new();
            for grant in grants {
                let covered = covered(&permissions, grant);
                if covered.is_empty() && !grant.is_everything() {
                    faults.push(Fault::UnknownPermission { holder: holder(), grant: grant.clone() });
                }
                covered.for_each(|index| insert(&mut bits, index));
            }
            bits
        };

        let mut roles: Vec<Role> = Vec::with_capacity(data.roles.len());
        for (key, definition) in &data.roles {
            roles.push(Role {
                key: key.clone(),
                scope: definition.scope.as_ref().and_then(|scope| service_ids.get(scope).copied()),
                parent: definition.parent.as_ref().and_then(|parent| role_ids.get(parent).copied()),
                closure: expand(&|| key.to_string(), &definition.permissions),
                administrator: definition
                    .permissions
                    .iter()
                    .any(|grant| grant.is_everything() || guarded.iter().any(|code| grant.covers(code))),
            });
        }
        let mut services: Vec<Service> = Vec::with_capacity(names.len());
        for name in names {
            let definitions = data.tiers.get(&name).map(Vec::as_slice).unwrap_or_default();
            let tiers = definitions
                .iter()
                .map(|tier| Tier {
                    key: tier.key.clone(),
                    permissions: expand(&|| format!("tier {} of {name}", tier.key), &tier.permissions),
                })
                .collect();
            services.push(Service { name, tiers });
        }

        faults.extend(shape_faults(data));
        if !faults.is_empty() {
            return Err(faults);
        }
        close(&mut roles);
        let permission_ids = permissions.iter().cloned().zip((0..).map(PermissionId)).collect();
        let identity = NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed);
        let fingerprint = fingerprint(data);
        Ok(Self { identity, fingerprint, permissions, roles, services, permission_ids, role_ids, service_ids })
    }

    /// What a subject with these roles and memberships holds where `service` is asked about.
    /// Unknown roles and tiers grant nothing; roles scoped to another service do not count; a tier's
    /// permissions count only in its own service (T33). `service` is the policy's, by name: it need not be known here.
    /// Of several memberships of one service, which a well-formed token does not have, the highest is kept.
    #[must_use]
    pub fn resolve<'k>(
        &self,
        service: &str,
        roles: impl IntoIterator<Item = &'k RoleKey>,
        memberships: &[Membership],
    ) -> Grants {
        self.resolve_within(service, Reach::Scope, roles, memberships)
    }

    /// What a subject holds where a policy of `service` asks. That is [`Self::resolve`], but for [`ADMIN_SERVICE`]: its policy lets
    /// pass who holds a permission in any scope, and the call that is behind it decides again, with what
    /// [`Self::resolve`] gives for the service of its object (T36).
    #[must_use]
    pub fn resolve_for_policy<'k>(
        &self,
        service: &str,
        roles: impl IntoIterator<Item = &'k RoleKey>,
        memberships: &[Membership],
    ) -> Grants {
        let reach = if service == ADMIN_SERVICE { Reach::Everywhere } else { Reach::Scope };
        self.resolve_within(service, reach, roles, memberships)
    }

    fn resolve_within<'k>(
        &self,
        service: &str,
        reach: Reach,
        roles: impl IntoIterator<Item = &'k RoleKey>,
        memberships: &[Membership],
    ) -> Grants {
        let asked = self.service(service);
        let mut permissions = Bits::new();
        let mut held: SmallVec<[RoleId; 8]> = SmallVec::new();
        let mut given = Vec::new();
        for key in roles {
            let Some(id) = self.role(key.as_str()) else { continue };
            let role = &self.roles[id.0 as usize];
            if reach == Reach::Scope && role.scope.is_some() && role.scope != asked {
                continue;
            }
            given.push(role.key.clone());
            unite(&mut permissions, &role.closure);
            held.push(id);
            let mut next = role.parent;
            while let Some(ancestor) = next {
                held.push(ancestor);
                next = self.roles[ancestor.0 as usize].parent;
            }
        }
        given.sort_unstable();
        given.dedup();
        held.sort_unstable();
        held.dedup();

        let mut tiers: SmallVec<[(ServiceId, u32); 2]> = SmallVec::new();
        for membership in memberships {
            let Some(id) = self.service(membership.service.as_str()) else { continue };
            let Some(rank) = self.tier_rank(id, membership.tier.as_str()) else { continue };
            match tiers.iter_mut().find(|(service, _)| *service == id) {
                Some((_, best)) => *best = rank.max(*best),
                None => tiers.push((id, rank)),
            }
        }
        // Service ids are in order of name, so this is the order of names.
        tiers.sort_unstable();
        let mut known = Vec::with_capacity(tiers.len());
        for &(id, rank) in &tiers {
            let service = &self.services[id.0 as usize];
            let tier = &service.tiers[rank as usize];
            if asked == Some(id) {
                unite(&mut permissions, &tier.permissions);
            }
            known.push(Membership { service: service.name.clone(), tier: tier.key.clone() });
        }
        Grants { table: self.identity, permissions, held, tiers, given: given.into(), memberships: known.into() }
    }

    /// Distinguishes this table from every other of the process.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// What the data is that this table was compiled from: SHA-256 in lower-case hexadecimal, the same in every process that has the
    /// same data. An override names by it which data it presumes (T9).
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The id of a known permission.
    #[must_use]
    pub fn permission(&self, code: &str) -> Option<PermissionId> {
        self.permission_ids.get(code).copied()
    }

    /// The code of a permission.
    #[must_use]
    pub fn permission_code(&self, id: PermissionId) -> &PermissionCode {
        &self.permissions[id.0 as usize]
    }

    /// All permissions, in order of their codes.
    pub fn permissions(&self) -> impl ExactSizeIterator<Item = (PermissionId, &PermissionCode)> {
        self.permissions.iter().enumerate().map(|(index, code)| (PermissionId(dense(index)), code))
    }

    /// The id of a known role.
    #[must_use]
    pub fn role(&self, key: &str) -> Option<RoleId> {
        self.role_ids.get(key).copied()
    }

    /// The key of a role.
    #[must_use]
    pub fn role_key(&self, id: RoleId) -> &RoleKey {
        &self.roles[id.0 as usize].key
    }

    /// All roles, in order of their keys.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = (RoleId, &RoleKey)> {
        self.roles.iter().enumerate().map(|(index, role)| (RoleId(dense(index)), &role.key))
    }

    /// The role whose permissions this one holds too.
    #[must_use]
    pub fn parent(&self, role: RoleId) -> Option<RoleId> {
        self.roles[role.0 as usize].parent
    }

    /// The only service in which the role counts; `None` for all.
    #[must_use]
    pub fn scope(&self, role: RoleId) -> Option<ServiceId> {
        self.roles[role.0 as usize].scope
    }

    /// The id of a service that has permissions, tiers or scoped roles.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<ServiceId> {
        self.service_ids.get(name).copied()
    }

    /// The name of a service.
    #[must_use]
    pub fn service_name(&self, id: ServiceId) -> &ServiceName {
        &self.services[id.0 as usize].name
    }

    /// All services, in order of their names.
    pub fn services(&self) -> impl ExactSizeIterator<Item = (ServiceId, &ServiceName)> {
        self.services.iter().enumerate().map(|(index, service)| (ServiceId(dense(index)), &service.name))
    }

    /// A tier's place in its service's rising order, from 0.
    #[must_use]
    pub fn tier_rank(&self, service: ServiceId, tier: &str) -> Option<u32> {
        let tiers = &self.services[service.0 as usize].tiers;
        tiers.iter().position(|candidate| candidate.key.as_str() == tier).map(dense)
    }

    /// The tiers of a service in rising order.
    pub fn tiers(&self, service: ServiceId) -> impl ExactSizeIterator<Item = &TierKey> {
        self.services[service.0 as usize].tiers.iter().map(|tier| &tier.key)
    }

    /// Whether members of the tier of this rank hold the permission (in that service only, T33).
    #[must_use]
    pub fn tier_holds(&self, service: ServiceId, rank: u32, permission: PermissionId) -> bool {
        let tier = self.services[service.0 as usize].tiers.get(rank as usize);
        tier.is_some_and(|tier| contains(&tier.permissions, permission))
    }

    /// Whether the role opens administration: it, or an ancestor, holds `*` or a permission of the
    /// service `doorward`, in any scope (T34).
    #[must_use]
    pub fn is_administrator(&self, role: RoleId) -> bool {
        self.roles[role.0 as usize].administrator
    }

    /// Whether the role, by itself or through an ancestor, holds the permission where `service` is asked
    /// about. `None` stands for a service that this table does not know: only roles without scope count there.
    #[must_use]
    pub fn role_holds(&self, role: RoleId, permission: PermissionId, service: Option<ServiceId>) -> bool {
        let role = &self.roles[role.0 as usize];
        (role.scope.is_none() || role.scope == service) && contains(&role.closure, permission)
    }

    /// The roles (ids, rising) that hold the permission in the service, by themselves or through an
    /// ancestor. For explanations and static checks, not for the request path. `None` as in [`Self::role_holds`].
    #[must_use]
    pub fn roles_holding(&self, permission: PermissionId, service: Option<ServiceId>) -> Vec<RoleId> {
        let ids = (0..dense(self.roles.len())).map(RoleId);
        ids.filter(|&role| self.role_holds(role, permission, service)).collect()
    }
}

impl Grants {
    /// The same roles and memberships with these permissions in place of all that they give: what another service, which was
    /// asked for each of them, says that the subject holds.
    #[must_use]
    pub fn holding(&self, permissions: impl IntoIterator<Item = PermissionId>) -> Self {
        let mut held = Bits::new();
        permissions.into_iter().for_each(|id| insert(&mut held, id.0 as usize));
        Self { permissions: held, ..self.clone() }
    }

    /// Identity of the table that made it.
    #[must_use]
    pub fn table(&self) -> u64 {
        self.table
    }

    /// Whether the permission is held.
    #[must_use]
    #[inline]
    pub fn has(&self, permission: PermissionId) -> bool {
        contains(&self.permissions, permission)
    }

    /// Whether the role, or one that inherits from it, is held and counts in this service.
    #[must_use]
    pub fn has_role(&self, role: RoleId) -> bool {
        self.held.binary_search(&role).is_ok()
    }

    /// The rank of the held tier of a service, if any.
    #[must_use]
    pub fn tier(&self, service: ServiceId) -> Option<u32> {
        self.tiers.iter().find(|(held, _)| *held == service).map(|&(_, rank)| rank)
    }

    /// The roles that the subject was given and that count in this service, sorted; no ancestors (for `X-User-Roles`).
    #[must_use]
    pub fn roles(&self) -> &[RoleKey] {
        &self.given
    }

    /// The known memberships, sorted by service (for `X-User-Memberships`).
    #[must_use]
    pub fn memberships(&self) -> &[Membership] {
        &self.memberships
    }
}

static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);

/// The distinct values in order.
fn sorted<'a, T: Clone + Ord + 'a>(values: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut values: Vec<T> = values.cloned().collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// An index as an id. A table of 2³² entries does not fit in memory.
fn dense(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The indices of the permissions that a grant covers: codes are sorted, so those with one prefix are neighbours.
fn covered(permissions: &[PermissionCode], grant: &Grant) -> std::ops::Range<usize> {
    let Some(prefix) = grant.prefix() else {
        return match permissions.binary_search_by(|code| code.as_str().cmp(grant.as_str())) {
            Ok(index) => index..index + 1,
            Err(index) => index..index,
        };
    };
    let start = permissions.partition_point(|code| code.as_str() < prefix);
    let length = permissions[start..].partition_point(|code| code.as_str().starts_with(prefix));
    start..start + length
}

/// Faults of parents, scopes and tiers.
fn shape_faults(data: &RoleData) -> Vec<Fault> {
    let mut faults = Vec::new();
    // The first role of the walk that found a role; a walk that meets itself has found a circle.
    let mut seen: HashMap<&RoleKey, &RoleKey> = HashMap::new();
    for (key, definition) in &data.roles {
        if let Some(scope) = &definition.scope
            && !data.permissions.contains_key(scope)
            && !data.tiers.contains_key(scope)
        {
            faults.push(Fault::UnknownScope { role: key.clone(), scope: scope.clone() });
        }
        if let Some(parent_key) = &definition.parent {
            match data.roles.get(parent_key) {
                None => faults.push(Fault::UnknownParent { role: key.clone(), parent: parent_key.clone() }),
                Some(parent) => {
                    if let Some(parent_scope) = &parent.scope
                        && parent.scope != definition.scope
                    {
                        faults.push(Fault::ParentScope {
                            role: key.clone(),
                            parent: parent_key.clone(),
                            parent_scope: parent_scope.clone(),
                        });
                    }
                }
            }
        }
        let mut walk = Some(key);
        while let Some(current) = walk {
            match seen.get(current) {
                Some(&start) if start == key => {
                    faults.push(Fault::Cycle(circle(data, current)));
                    break;
                }
                Some(_) => break,
                None => {
                    seen.insert(current, key);
                }
            }
            walk = data.roles.get(current).and_then(|definition| definition.parent.as_ref());
            walk = walk.filter(|parent| data.roles.contains_key(*parent));
        }
    }
    for (service, tiers) in &data.tiers {
        for (index, tier) in tiers.iter().enumerate() {
            if tiers[..index].iter().any(|earlier| earlier.key == tier.key) {
                faults.push(Fault::DuplicateTier { service: service.clone(), tier: tier.key.clone() });
            }
        }
    }
    faults
}

/// The roles of the circle that `start` lies on, beginning and ending with it.
fn circle(data: &RoleData, start: &RoleKey) -> Vec<RoleKey> {
    let mut members = vec![start.clone()];
    let mut current = start;
    while let Some(parent) = data.roles.get(current).and_then(|definition| definition.parent.as_ref()) {
        members.push(parent.clone());
        if parent == start {
            break;
        }
        current = parent;
    }
    members
}

/// Adds to each role what its ancestors hold. There are no circles here.
fn close(roles: &mut [Role]) {
    let mut closed = vec![false; roles.len()];
    for start in 0..roles.len() {
        let mut chain = Vec::new();
        let mut next = Some(start);
        while let Some(index) = next
            && !closed[index]
        {
            chain.push(index);
            next = roles[index].parent.map(|parent| parent.0 as usize);
        }
        // From the oldest ancestor down, so that each finds its parent closed.
        for index in chain.into_iter().rev() {
            if let Some(parent) = roles[index].parent {
                let inherited = roles[parent.0 as usize].closure.clone();
                unite(&mut roles[index].closure, &inherited);
                roles[index].administrator |= roles[parent.0 as usize].administrator;
            }
            closed[index] = true;
        }
    }
}

#[inline]
fn contains(bits: &Bits, permission: PermissionId) -> bool {
    bits.get(permission.0 as usize / 64).is_some_and(|word| word >> (permission.0 % 64) & 1 == 1)
}

fn insert(bits: &mut Bits, index: usize) {
    if bits.len() <= index / 64 {
        bits.resize(index / 64 + 1, 0);
    }
    bits[index / 64] |= 1 << (index % 64);
}

fn unite(bits: &mut Bits, more: &Bits) {
    if bits.len() < more.len() {
        bits.resize(more.len(), 0);
    }
    for (word, other) in bits.iter_mut().zip(more) {
        *word |= other;
    }
}

#[cfg(test)]
mod tests;
