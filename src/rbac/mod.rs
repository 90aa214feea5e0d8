//! Permissions, roles and membership tiers, compiled into dense bitsets.
//!
//! Knows: permission codes and wildcards, role closure and scopes, tiers, the `config/roles.yaml` shape of
//! that data. Must not know: HTTP, policies, where the data comes from.

pub mod code;
mod fingerprint;
pub mod table;

pub use self::code::{BadWord, Grant, PermissionCode, RoleKey, ServiceName, TierKey};
pub use self::table::{
    Fault, Grants, Membership, PermissionId, RoleData, RoleDefinition, RoleId, RoleTable, ServiceId, TierDefinition,
};
