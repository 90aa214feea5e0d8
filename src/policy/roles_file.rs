//! `config/roles.yaml`: roles, permissions and tiers without a database (SPEC 6).

use std::collections::HashMap;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::source::{SourceText, Span, version};
use super::yaml::{self, Entry, Kind, Node, Reader, nearest};
use crate::rbac::{
    Fault, Grant, PermissionCode, RoleData, RoleDefinition, RoleKey, RoleTable, ServiceName, TierDefinition, TierKey,
};

const KEYS: [&str; 4] = ["version", "permissions", "roles", "tiers"];
const ROLE_KEYS: [&str; 3] = ["parent", "scope", "permissions"];
const TIER_KEYS: [&str; 2] = ["key", "permissions"];
const SMALLEST: &str = "A roles file begins with `version: 1`, `permissions:` and `roles:`.";

/// Reads and compiles a roles file; every fault at once, each at its place.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "findings keep the file, so the caller hands it over")]
pub fn parse(source: Arc<SourceText>) -> (Option<(RoleData, RoleTable)>, Diagnostics) {
    let mut out = Diagnostics::default();
    let read = read(&source, &mut out);
    out.sort();
    (read.filter(|_| !out.has_errors()), out)
}

/// Where each permission of a roles file is listed: its service, its code and its place. Empty where the file is faulty, which
/// [`parse`] tells.
#[must_use]
pub fn places_of_permissions(source: &Arc<SourceText>) -> Vec<(String, String, Span)> {
    let root = yaml::parse(source, &mut Diagnostics::default());
    let Some(Node { kind: Kind::Map(entries), .. }) = root else { return Vec::new() };
    let listed = entries
        .into_iter()
        .filter(|entry| entry.key.value == "permissions")
        .filter_map(|entry| if let Kind::Map(services) = entry.value.kind { Some(services) } else { None });
    let services =
        listed.flatten().filter_map(
            |Entry { key, value }| {
                if let Kind::List(items) = value.kind { Some((key.value, items)) } else { None }
            },
        );
    services
        .flat_map(|(service, items)| {
            items.into_iter().filter_map(move |item| match item.kind {
                Kind::Scalar { text: code, .. } => Some((service.clone(), code, item.span)),
                _ => None,
            })
        })
        .collect()
}

/// Where the words of the data stand, for the faults that only show when it is compiled.
#[derive(Default)]
struct Places {
    parents: HashMap<RoleKey, Span>,
    scopes: HashMap<RoleKey, Span>,
    /// By holder, as [`Fault::UnknownPermission`] names it, and grant.
    grants: HashMap<(String, Grant), Span>,
    /// Roles and permissions that are written wrongly: what refers to them is not at fault.
    misdeclared: bool,
}

fn read(source: &Arc<SourceText>, out: &mut Diagnostics) -> Option<(RoleData, RoleTable)> {
    let root = yaml::parse(source, out);
    let mut reader = Reader { source, out };
    let (root, entries) = reader.file(root.as_ref(), "a roles file", SMALLEST)?;
    let mut data = RoleData::default();
    let mut places = Places::default();
    for entry in entries {
        match entry.key.value.as_str() {
            "version" => version(&mut reader, &entry.value),
            "permissions" => permissions(&mut reader, &entry.value, &mut data, &mut places),
            "roles" => roles(&mut reader, &entry.value, &mut data, &mut places),
            "tiers" => tiers(&mut reader, &entry.value, &mut data, &mut places),
            key if RoleKey::parse(key).is_ok() => {
                let message = format!("the role `{key}` stands beside `roles:` and not below it");
                reader.error(entry.key.span, "unknown-key", message, "Indent it by two spaces, below `roles:`.");
                places.misdeclared = true;
            }
            _ => {
                reader.unknown_key(entry, "a roles file", &KEYS);
                places.misdeclared = true;
            }
        }
    }
    if entries.iter().all(|entry| entry.key.value != "version") {
        let start = Span { start: root.span.start, end: root.span.start };
        reader.error(start, "missing-key", "the key `version` is missing", "Begin the file with `version: 1`.");
    }
    data.add_own_permissions();
    match RoleTable::compile(&data) {
        Ok(table) => Some((data, table)),
        Err(faults) => {
            for fault in faults {
                reader.out.0.extend(place_fault(source, &data, &places, &fault));
            }
            None
        }
    }
}

fn permissions(reader: &mut Reader<'_>, node: &Node, data: &mut RoleData, places: &mut Places) {
    let example = "a list for each service, such as `oms: [order:view, order:edit]`";
    let Some(entries) = reader.map(node, "the value of `permissions`", example) else {
        places.misdeclared = true;
        return;
    };
    for entry in entries {
        let service = service(reader, &entry.key.value, entry.key.span);
        let what = format!("the permissions of `{}`", entry.key.value);
        let items = reader.list(&entry.value, &what, "a list, such as `[order:view, order:edit]`");
        places.misdeclared |= service.is_none() || items.is_none();
        let mut codes = Vec::new();
        let mut seen: HashMap<PermissionCode, Span> = HashMap::new();
        for item in items.unwrap_or_default() {
            let Some(text) = reader.text(item, "a permission", "its code, such as `order:view`") else { continue };
            let Ok(code) = PermissionCode::parse(text) else {
                places.misdeclared = true;
                let lower = text.to_ascii_lowercase();
                let (message, help) = if text.contains('*') {
                    let help = "Name each permission here; wildcards are for what a role holds.";
                    (format!("`{text}` has a wildcard, and permissions are listed one by one"), help.to_owned())
                } else if PermissionCode::parse(&lower).is_ok() {
                    (format!("the permission `{text}` has upper-case letters"), format!("Write `{lower}`."))
                } else {
                    let help =
                        "Write two or three parts of lower-case letters, digits, `-` or `_`, such as `order:view`.";
                    (format!("`{text}` is no permission code"), help.to_owned())
                };
                reader.error(item.span, "bad-word", message, help);
                continue;
            };
            if let Some(&first) = seen.get(&code) {
                let finding = Diagnostic::error(
                    reader.source,
                    item.span,
                    "duplicate-permission",
                    format!("the permission `{code}` is listed twice"),
                );
                reader.out.push(finding.help("Remove one of them.").related(reader.source, first, "the first one"));
                continue;
            }
            seen.insert(code.clone(), item.span);
            codes.push(code);
        }
        if let Some(service) = service {
            data.permissions.insert(service, codes);
        }
    }
}

fn roles(reader: &mut Reader<'_>, node: &Node, data: &mut RoleData, places: &mut Places) {
    let example = "the roles by key, such as `ROLE_EDITOR: {permissions: [order:edit]}`";
    let Some(entries) = reader.map(node, "the value of `roles`", example) else {
        places.misdeclared = true;
        return;
    };
    for entry in entries {
        let key = role_key(reader, &entry.key.value, entry.key.span);
        places.misdeclared |= key.is_none();
        let definition = role(reader, entry, key.as_ref(), places);
        if let Some(key) = key {
            data.roles.insert(key, definition);
        }
    }
}

fn role(reader: &mut Reader<'_>, entry: &Entry, key: Option<&RoleKey>, places: &mut Places) -> RoleDefinition {
    let mut definition = RoleDefinition::default();
    // `ROLE_GUEST:` with nothing behind it is a role that holds nothing.
    if entry.value.is_nothing() {
        return definition;
    }
    let name = &entry.key.value;
    let example = format!("for example `{name}: {{permissions: [order:view]}}`");
    let Some(fields) = reader.map(&entry.value, &format!("the role `{name}`"), &example) else { return definition };
    for field in fields {
        let node = &field.value;
        match field.key.value.as_str() {
            "parent" => {
                let example = "the key of one role, such as `parent: ROLE_USER`";
                let Some(text) = reader.text(node, "the value of `parent`", example) else { continue };
                definition.parent = role_key(reader, text, node.span);
                if let Some(key) = key {
                    places.parents.insert(key.clone(), node.span);
                }
            }
            "scope" => {
                let Some(text) = reader.text(node, "the value of `scope`", "one service, such as `scope: oms`") else {
                    continue;
                };
                definition.scope = service(reader, text, node.span);
                if let Some(key) = key {
                    places.scopes.insert(key.clone(), node.span);
                }
            }
            "permissions" => definition.permissions = grants(reader, node, name, places),
            _ => reader.unknown_key(field, "a role", &ROLE_KEYS),
        }
    }
    definition
}

fn tiers(reader: &mut Reader<'_>, node: &Node, data: &mut RoleData, places: &mut Places) {
    let example = "a list for each service in rising order, such as `oms: [{key: FREE}, {key: PREMIUM}]`";
    let Some(entries) = reader.map(node, "the value of `tiers`", example) else {
        places.misdeclared = true;
        return;
    };
    for entry in entries {
        let service = service(reader, &entry.key.value, entry.key.span);
        let what = format!("the tiers of `{}`", entry.key.value);
        let items = reader.list(&entry.value, &what, "a list in rising order, such as `[{key: FREE}, {key: PREMIUM}]`");
        places.misdeclared |= service.is_none() || items.is_none();
        let mut read: Vec<TierDefinition> = Vec::new();
        let mut seen: HashMap<TierKey, Span> = HashMap::new();
        for item in items.unwrap_or_default() {
            let Some((tier, span)) = tier(reader, item, &entry.key.value, places) else { continue };
            if let Some(&first) = seen.get(&tier.key) {
                let message = format!("the tier `{}` is listed twice, so that its rank is unclear", tier.key);
                let finding = Diagnostic::error(reader.source, span, "duplicate-tier", message);
                reader.out.push(finding.help("Remove one of them.").related(reader.source, first, "the first one"));
                continue;
            }
            seen.insert(tier.key.clone(), span);
            read.push(tier);
        }
        if let Some(service) = service {
            data.tiers.insert(service, read);
        }
    }
}

/// A tier and the place of its key.
fn tier(reader: &mut Reader<'_>, node: &Node, service: &str, places: &mut Places) -> Option<(TierDefinition, Span)> {
    let example = match &node.kind {
        Kind::Scalar { text, .. } if TierKey::parse(text).is_ok() => format!("`{{key: {text}}}`"),
        _ => "for example `{key: PREMIUM, permissions: [order:export]}`".to_owned(),
    };
    let fields = reader.map(node, "a tier", &example)?;
    let key = fields.iter().find(|field| field.key.value == "key");
    let Some(key) = key else {
        reader.error(node.span, "missing-key", "a tier without its `key`", format!("Write {example}."));
        return None;
    };
    let text = reader.text(&key.value, "the value of `key`", "the tier's key, such as `key: PREMIUM`");
    let parsed = text.and_then(|text| match TierKey::parse(text) {
        Ok(key) => Some(key),
        Err(bad) => {
            reader.error(key.value.span, "bad-word", bad.to_string(), "Use only letters, digits, `-` and `_`.");
            None
        }
    });
    let holder = format!("tier {} of {service}", text.unwrap_or_default());
    let mut permissions = Vec::new();
    for field in fields {
        match field.key.value.as_str() {
            "key" => {}
            "permissions" => permissions = grants(reader, &field.value, &holder, places),
            _ => reader.unknown_key(field, "a tier", &TIER_KEYS),
        }
    }
    Some((TierDefinition { key: parsed?, permissions }, key.value.span))
}

fn grants(reader: &mut Reader<'_>, node: &Node, holder: &str, places: &mut Places) -> Vec<Grant> {
    let example = "a list, such as `permissions: [order:view, \"report:*\"]`";
    let Some(items) = reader.list(node, "the value of `permissions`", example) else { return Vec::new() };
    let mut grants = Vec::new();
    for item in items {
        let Some(text) = reader.text(item, "a permission", "its code, such as `order:view`") else { continue };
        match Grant::parse(text) {
            Ok(grant) => {
                places.grants.entry((holder.to_owned(), grant.clone())).or_insert(item.span);
                grants.push(grant);
            }
            Err(bad) => {
                let lower = text.to_ascii_lowercase();
                let help = if RoleKey::parse(text).is_ok() {
                    format!("A role inherits by `parent: {text}`.")
                } else if Grant::parse(&lower).is_ok() {
                    format!("Write `{lower}`.")
                } else if text.contains('*') {
                    "A `*` stands alone or as the last part, behind a colon.".to_owned()
                } else {
                    "Write a permission that is listed under `permissions`.".to_owned()
                };
                reader.error(item.span, "bad-word", bad.to_string(), help);
            }
        }
    }
    grants
}

fn role_key(reader: &mut Reader<'_>, text: &str, span: Span) -> Option<RoleKey> {
    match RoleKey::parse(text) {
        Ok(key) => Some(key),
        Err(bad) => {
            let upper = text.to_ascii_uppercase().replace(['-', ' '], "_");
            let guesses = [upper.clone(), format!("ROLE_{upper}")];
            let guess = guesses.iter().find(|guess| RoleKey::parse(guess).is_ok());
            let help = guess.map_or_else(
                || "Use `ROLE_` and capital letters, digits and `_`.".to_owned(),
                |guess| format!("Write `{guess}`."),
            );
            reader.error(span, "bad-word", bad.to_string(), help);
            None
        }
    }
}

fn service(reader: &mut Reader<'_>, text: &str, span: Span) -> Option<ServiceName> {
    match ServiceName::parse(text) {
        Ok(name) => Some(name),
        Err(bad) => {
            reader.error(span, "bad-word", bad.to_string(), "Use only letters, digits, `-` and `_`.");
            None
        }
    }
}

/// A fault of the whole, at the place that causes it; `None` if it only follows from a finding that is there already.
fn place_fault(source: &Arc<SourceText>, data: &RoleData, places: &Places, fault: &Fault) -> Option<Diagnostic> {
    let at = |span: Option<&Span>, code, help: String| {
        let span = span.copied().unwrap_or_default();
        Diagnostic::error(source, span, code, fault.to_string()).help(help)
    };
    let follows = places.misdeclared;
    Some(match fault {
        Fault::UnknownParent { .. } | Fault::UnknownScope { .. } | Fault::UnknownPermission { .. } if follows => {
            return None;
        }
        Fault::UnknownParent { role, parent } => {
            let known: Vec<_> = data.roles.keys().filter(|key| *key != role).map(RoleKey::as_str).collect();
            let help = match nearest(parent.as_str(), &known) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("Add `{parent}` under `roles`, or remove the parent."),
            };
            at(places.parents.get(role), "unknown-role", help)
        }
        Fault::Cycle(circle) => {
            let place = circle.first().and_then(|role| places.parents.get(role));
            at(place, "role-circle", "Remove the parent of one of them.".to_owned())
        }
        Fault::ParentScope { role, parent, parent_scope } => {
            let help =
                format!("Give `{role}` the same `scope: {parent_scope}`, or let it inherit from a role without scope.");
            let finding = at(places.parents.get(role), "parent-scope", help);
            match places.scopes.get(parent) {
                Some(&span) => finding.related(source, span, "the parent's scope"),
                None => finding,
            }
        }
        Fault::UnknownPermission { holder, grant } => {
            let known: Vec<_> = data.permissions.values().flatten().map(PermissionCode::as_str).collect();
            let help = match grant.prefix() {
                Some(prefix) => {
                    format!("No permission begins with `{prefix}`; add one under `permissions`, or remove this.")
                }
                None => {
                    let add = format!("add `{grant}` to its service under `permissions`");
                    match nearest(grant.as_str(), &known) {
                        Some(near) => format!("Did you mean `{near}`? Otherwise {add}."),
                        None => format!("Correct it, or {add}."),
                    }
                }
            };
            at(places.grants.get(&(holder.clone(), grant.clone())), "unknown-permission", help)
        }
        Fault::UnknownScope { role, scope } => {
            let known: Vec<_> = data.permissions.keys().chain(data.tiers.keys()).map(ServiceName::as_str).collect();
            let help = match nearest(scope.as_str(), &known) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => {
                    format!("List the permissions of `{scope}` under `permissions`, or name a service that is there.")
                }
            };
            at(places.scopes.get(role), "unknown-service", help)
        }
        // The reader has said so already, at its place.
        Fault::DuplicateTier { .. } => return None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn file(text: &str) -> (Option<(RoleData, RoleTable)>, Diagnostics) {
        parse(Arc::new(SourceText { name: "roles.yaml".into(), text: text.into() }))
    }

    const GOOD: &str = "\
version: 1
permissions:
  oms: [schema:view, schema:edit]
  shopping: [cart:view]
roles:
  ROLE_GUEST:
  ROLE_USER: { permissions: [schema:view] }
  ROLE_EDITOR: { parent: ROLE_USER, scope: oms, permissions: [\"schema:*\"] }
  ROLE_SUPER_ADMIN: { permissions: [\"*\"] }
tiers:
  oms: [{ key: FREE, permissions: [] }, { key: PREMIUM, permissions: [schema:edit] }]
";

    #[test]
    fn a_roles_file_becomes_a_table() {
        let (read, out) = file(GOOD);
        assert!(out.0.is_empty(), "{}", out.render(false));
        let (data, table) = read.unwrap();
        assert_eq!(data.roles.len(), 4);
        assert_eq!(data.tiers.values().next().unwrap()[1].key.as_str(), "PREMIUM");
        let edit = table.permission("schema:edit").unwrap();
        let holders: Vec<_> =
            table.roles_holding(edit, table.service("oms")).iter().map(|&id| table.role_key(id).as_str()).collect();
        assert_eq!(holders, ["ROLE_EDITOR", "ROLE_SUPER_ADMIN"]);
        assert_eq!(table.tier_rank(table.service("oms").unwrap(), "PREMIUM"), Some(1));
    }

    #[test]
    fn t22_a_role_key_that_smuggles_a_second_one_is_refused() {
        let (read, out) = file(&GOOD.replace("ROLE_GUEST:", "\"x,ROLE_SUPER_ADMIN\":"));
        assert!(read.is_none());
        assert_eq!(out.0.len(), 1);
        assert_eq!(out.0[0].code, "bad-word");
    }

    #[test]
    fn t33_a_parent_of_another_scope_is_refused_at_its_place() {
        let (read, out) = file(&GOOD.replace("ROLE_USER: {", "ROLE_USER: { scope: shopping,"));
        assert!(read.is_none());
        assert_eq!(out.0[0].code, "parent-scope");
        assert_eq!(out.0[0].source.line_column(out.0[0].span.start), (8, 26));
    }

    #[test]
    fn one_misspelt_permission_is_not_told_again_wherever_it_is_held() {
        let (_, out) = file(&GOOD.replace("[schema:view, schema:edit]", "[Schema:view, schema:edit]"));
        assert_eq!(out.0.len(), 1, "{}", out.render(false));
    }
}
