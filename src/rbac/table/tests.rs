#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn key(text: &str) -> RoleKey {
    RoleKey::parse(text).unwrap()
}

fn service(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn member(name: &str, tier: &str) -> Membership {
    Membership { service: service(name), tier: TierKey::parse(tier).unwrap() }
}

fn grants(list: &[&str]) -> Vec<Grant> {
    list.iter().map(|text| Grant::parse(text).unwrap()).collect()
}

/// `(key, parent, scope, permissions)`; an empty parent or scope is none.
type RoleRow<'a> = (&'a str, &'a str, &'a str, &'a [&'a str]);

fn data(roles: &[RoleRow<'_>]) -> RoleData {
    let code = |text: &&str| PermissionCode::parse(text).unwrap();
    let mut data = RoleData::default();
    data.permissions.insert(
        service("oms"),
        ["schema:view", "schema:edit", "order:view", "order:item:view"].iter().map(code).collect(),
    );
    data.permissions.insert(service("shopping"), ["cart:view", "order:view"].iter().map(code).collect());
    data.permissions.insert(service("doorward"), ["role:edit"].iter().map(code).collect());
    let tier =
        |key: &str, list: &[&str]| TierDefinition { key: TierKey::parse(key).unwrap(), permissions: grants(list) };
    data.tiers.insert(service("oms"), vec![tier("FREE", &[]), tier("PREMIUM", &["schema:edit"])]);
    data.tiers.insert(service("shopping"), vec![tier("BASIC", &["order:*"])]);
    for &(role, parent, scope, list) in roles {
        data.roles.insert(
            key(role),
            RoleDefinition {
                parent: Some(parent).filter(|text| !text.is_empty()).map(key),
                scope: Some(scope).filter(|text| !text.is_empty()).map(service),
                permissions: grants(list),
            },
        );
    }
    data
}

fn table(roles: &[RoleRow<'_>]) -> RoleTable {
    RoleTable::compile(&data(roles)).unwrap()
}

fn held(table: &RoleTable, service: &str, roles: &[&str], memberships: &[Membership]) -> Vec<String> {
    let roles: Vec<_> = roles.iter().map(|text| key(text)).collect();
    let grants = table.resolve(service, &roles, memberships);
    table.permissions().filter(|&(id, _)| grants.has(id)).map(|(_, code)| code.to_string()).collect()
}

const FAMILY: &[RoleRow<'_>] = &[
    ("ROLE_USER", "", "", &["schema:view"]),
    ("ROLE_SELLER", "ROLE_USER", "shopping", &["cart:view"]),
    ("ROLE_TOP_SELLER", "ROLE_SELLER", "shopping", &["order:*"]),
    ("ROLE_SHOPPING_ADMIN", "", "shopping", &["*"]),
    ("ROLE_SUPER_ADMIN", "", "", &["*"]),
];

#[test]
fn a_role_holds_what_its_ancestors_hold() {
    let table = table(FAMILY);
    assert_eq!(held(&table, "oms", &["ROLE_USER"], &[]), ["schema:view"]);
    assert_eq!(
        held(&table, "shopping", &["ROLE_TOP_SELLER"], &[]),
        ["cart:view", "order:item:view", "order:view", "schema:view"]
    );
    let grants = table.resolve("shopping", &[key("ROLE_TOP_SELLER")], &[]);
    assert!(grants.has_role(table.role("ROLE_USER").unwrap()));
    assert!(!grants.has_role(table.role("ROLE_SUPER_ADMIN").unwrap()));
    assert_eq!(grants.roles(), [key("ROLE_TOP_SELLER")], "ancestors are not named");
}

#[test]
fn t33_what_is_inherited_counts_in_the_narrowest_scope_on_its_way() {
    let table = table(FAMILY);
    assert!(held(&table, "oms", &["ROLE_SELLER"], &[]).is_empty(), "a seller is a user only in shopping");
    assert_eq!(held(&table, "shopping", &["ROLE_SELLER"], &[]), ["cart:view", "schema:view"]);
    let in_oms = table.resolve("oms", &[key("ROLE_TOP_SELLER")], &[]);
    assert!(!in_oms.has_role(table.role("ROLE_USER").unwrap()));
    assert!(in_oms.roles().is_empty(), "headers name only what counts in the route's service");
    assert!(held(&table, "unknown", &["ROLE_SELLER"], &[]).is_empty());
    assert_eq!(held(&table, "unknown", &["ROLE_USER"], &[]), ["schema:view"]);
}

#[test]
fn t33_a_scoped_star_covers_everything_only_where_it_counts() {
    let table = table(FAMILY);
    assert!(held(&table, "oms", &["ROLE_SHOPPING_ADMIN"], &[]).is_empty());
    assert_eq!(held(&table, "shopping", &["ROLE_SHOPPING_ADMIN"], &[]).len(), 6);
    assert_eq!(held(&table, "oms", &["ROLE_SUPER_ADMIN"], &[]).len(), 6);
}

#[test]
fn t36_the_admin_policy_lets_pass_who_holds_a_permission_in_any_scope_and_the_object_decides() {
    let table = table(&[("ROLE_OMS_ADMIN", "", "oms", &["role:edit"]), ("ROLE_ROOT", "", "", &["*"])]);
    let edit = table.permission("role:edit").unwrap();
    let role = [key("ROLE_OMS_ADMIN")];
    assert!(table.resolve_for_policy("doorward", &role, &[]).has(edit));
    for (object, expected) in [("oms", true), ("shopping", false), ("doorward", false)] {
        assert_eq!(table.resolve(object, &role, &[]).has(edit), expected, "{object}");
    }
    // Nowhere but there does a scope stop counting.
    assert!(!table.resolve_for_policy("shopping", &role, &[]).has(edit));
}

#[test]
fn t33_a_tiers_permissions_count_only_in_its_service() {
    let table = table(FAMILY);
    let both = [member("shopping", "BASIC"), member("oms", "PREMIUM")];
    assert_eq!(held(&table, "oms", &[], &both), ["schema:edit"]);
    assert_eq!(held(&table, "shopping", &[], &both), ["order:item:view", "order:view"]);
    assert!(held(&table, "doorward", &[], &both).is_empty());
    let grants = table.resolve("doorward", &[], &both);
    assert_eq!(grants.tier(table.service("oms").unwrap()), Some(1), "the tier itself can be asked for anywhere");
    assert_eq!(grants.memberships(), [member("oms", "PREMIUM"), member("shopping", "BASIC")]);
}

#[test]
fn t33_a_parent_has_no_scope_or_its_childs() {
    let faults = RoleTable::compile(&data(&[
        ("ROLE_A", "", "shopping", &[]),
        ("ROLE_B", "ROLE_A", "", &[]),
        ("ROLE_C", "ROLE_A", "oms", &[]),
        ("ROLE_D", "ROLE_A", "shopping", &[]),
    ]))
    .unwrap_err();
    let parent_scope =
        |role: &str| Fault::ParentScope { role: key(role), parent: key("ROLE_A"), parent_scope: service("shopping") };
    assert_eq!(faults, [parent_scope("ROLE_B"), parent_scope("ROLE_C")]);
}

#[test]
fn t22_unknown_roles_and_tiers_grant_nothing_and_appear_nowhere() {
    let table = table(FAMILY);
    let grants = table.resolve(
        "oms",
        &[key("ROLE_NOBODY"), key("ROLE_USER"), key("ROLE_USER")],
        &[member("oms", "GOLD"), member("nowhere", "FREE"), member("oms", "FREE")],
    );
    assert_eq!(grants.roles(), [key("ROLE_USER")]);
    assert_eq!(grants.memberships(), [member("oms", "FREE")]);
}

#[test]
fn t34_an_administrator_holds_a_doorward_permission_in_any_scope() {
    let table = table(&[
        ("ROLE_PLAIN", "", "", &["schema:*", "cart:view"]),
        ("ROLE_HELPER", "", "shopping", &["role:edit"]),
        ("ROLE_CHILD", "ROLE_HELPER", "shopping", &[]),
        ("ROLE_WILD", "", "oms", &["role:*"]),
        ("ROLE_STAR", "", "oms", &["*"]),
    ]);
    let administrators: Vec<_> =
        table.roles().filter(|&(id, _)| table.is_administrator(id)).map(|(_, key)| key.as_str()).collect();
    assert_eq!(administrators, ["ROLE_CHILD", "ROLE_HELPER", "ROLE_STAR", "ROLE_WILD"]);
}

#[test]
fn t08_no_two_tables_have_one_identity() {
    let (one, other) = (table(FAMILY), table(FAMILY));
    assert_ne!(one.identity(), other.identity());
    assert_eq!(one.resolve("oms", &[], &[]).table(), one.identity());
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = RoleTable::compile(&data(&[
        ("ROLE_A", "ROLE_B", "", &["nothing:known"]),
        ("ROLE_B", "ROLE_C", "", &["nothing:*"]),
        ("ROLE_C", "ROLE_A", "", &["*"]),
        ("ROLE_D", "ROLE_A", "", &[]),
        ("ROLE_E", "ROLE_NONE", "", &[]),
        ("ROLE_F", "", "nowhere", &[]),
        ("ROLE_G", "ROLE_G", "", &[]),
    ]))
    .unwrap_err();
    let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "ROLE_A holds nothing:known, which is no known permission",
            "ROLE_B holds nothing:*, which is no known permission",
            "roles inherit in a circle: ROLE_A → ROLE_B → ROLE_C → ROLE_A",
            "role ROLE_E has the parent ROLE_NONE, which is no role",
            "role ROLE_F has the scope nowhere, which is no known service",
            "roles inherit in a circle: ROLE_G → ROLE_G",
        ]
    );
}

#[test]
fn a_deep_family_is_closed_without_deep_stacks() {
    let mut deep = data(&[]);
    for depth in 0..5_000 {
        let parent = (depth > 0).then(|| key(&format!("ROLE_{}", depth - 1)));
        let permissions = if depth == 0 { grants(&["cart:view"]) } else { Vec::new() };
        deep.roles.insert(key(&format!("ROLE_{depth}")), RoleDefinition { parent, scope: None, permissions });
    }
    let table = RoleTable::compile(&deep).unwrap();
    assert_eq!(held(&table, "oms", &["ROLE_4999"], &[]), ["cart:view"]);
}

#[test]
fn more_than_four_words_of_permissions() {
    let mut wide = data(&[]);
    let codes = (0..1_000).map(|n| PermissionCode::parse(&format!("thing{}:do-{n}", n % 7)).unwrap()).collect();
    wide.permissions.insert(service("wide"), codes);
    wide.roles
        .insert(key("ROLE_W"), RoleDefinition { permissions: grants(&["thing3:*"]), ..RoleDefinition::default() });
    let table = RoleTable::compile(&wide).unwrap();
    let held = held(&table, "wide", &["ROLE_W"], &[]);
    assert_eq!(held.len(), 143);
    assert!(held.iter().all(|code| code.starts_with("thing3:")));
}

/// Any roles over a small world, parents only of an earlier role so that there is no circle; scopes are made to fit.
fn worlds() -> impl Strategy<Value = RoleData> {
    let grant =
        prop::sample::select(vec!["schema:view", "schema:*", "order:*", "order:item:*", "cart:view", "*", "role:edit"]);
    let scope = prop::sample::select(vec!["", "oms", "shopping"]);
    prop::collection::vec((prop::option::of(0usize..8), scope, prop::collection::vec(grant, 0..3)), 1..8).prop_map(
        |rows| {
            let mut world = data(&[]);
            for (index, (parent, scope, list)) in rows.into_iter().enumerate() {
                let parent = parent.filter(|&parent| parent < index).map(|parent| key(&format!("ROLE_{parent}")));
                let inherited =
                    parent.as_ref().and_then(|parent| world.roles.get(parent)).and_then(|parent| parent.scope.clone());
                let scope = inherited.or_else(|| Some(scope).filter(|text| !text.is_empty()).map(service));
                world.roles.insert(
                    key(&format!("ROLE_{index}")),
                    RoleDefinition { parent, scope, permissions: grants(&list) },
                );
            }
            world
        },
    )
}

/// The rule of SPEC 6 read off the data, without bitsets.
fn by_hand(data: &RoleData, asked: &str, roles: &[RoleKey], memberships: &[Membership]) -> BTreeSet<PermissionCode> {
    let mut grants: Vec<&Grant> = Vec::new();
    for role in roles {
        let Some(definition) = data.roles.get(role) else { continue };
        if definition.scope.as_ref().is_some_and(|scope| scope.as_str() != asked) {
            continue;
        }
        let mut next = Some(definition);
        while let Some(current) = next {
            grants.extend(&current.permissions);
            next = current.parent.as_ref().and_then(|parent| data.roles.get(parent));
        }
    }
    for membership in memberships.iter().filter(|membership| membership.service.as_str() == asked) {
        let tiers = &data.tiers[&membership.service];
        grants.extend(tiers.iter().filter(|tier| tier.key == membership.tier).flat_map(|tier| &tier.permissions));
    }
    let universe = data.permissions.values().flatten();
    universe.filter(|code| grants.iter().any(|grant| grant.covers(code))).cloned().collect()
}

proptest! {
    #[test]
    fn the_table_agrees_with_the_rule_read_off_the_data(
        world in worlds(),
        roles in prop::collection::vec(0usize..9, 0..4),
        asked in prop::sample::select(vec!["oms", "shopping", "doorward", "elsewhere"]),
        premium in any::<bool>(),
    ) {
        let table = RoleTable::compile(&world).unwrap();
        let roles: Vec<_> = roles.into_iter().map(|n| key(&format!("ROLE_{n}"))).collect();
        let memberships = if premium { vec![member("oms", "PREMIUM")] } else { Vec::new() };
        let grants = table.resolve(asked, &roles, &memberships);
        let held: BTreeSet<_> = table.permissions().filter(|&(id, _)| grants.has(id)).map(|(_, code)| code.clone()).collect();
        prop_assert_eq!(held, by_hand(&world, asked, &roles, &memberships));
    }

    #[test]
    fn more_roles_never_lose_access(
        world in worlds(),
        roles in prop::collection::vec(0usize..9, 0..6),
        more in 0usize..9,
        asked in prop::sample::select(vec!["oms", "shopping", "doorward", "elsewhere"]),
    ) {
        let table = RoleTable::compile(&world).unwrap();
        let mut roles: Vec<_> = roles.into_iter().map(|n| key(&format!("ROLE_{n}"))).collect();
        let before = table.resolve(asked, &roles, &[]);
        roles.push(key(&format!("ROLE_{more}")));
        let after = table.resolve(asked, &roles, &[member("oms", "PREMIUM"), member("shopping", "BASIC")]);
        for (id, code) in table.permissions() {
            prop_assert!(!before.has(id) || after.has(id), "lost {}", code);
        }
        for (id, role) in table.roles() {
            prop_assert!(!before.has_role(id) || after.has_role(id), "lost {}", role);
        }
    }
}

/// Role models that others published, with their decisions (`rbac/scenarios_published.json`). Our words are narrower, so
/// each permission and role gets one of ours by number; a role with several parents keeps the first and is given what
/// the others hold.
#[test]
fn published_role_models_are_decided_as_published() {
    type Lists = BTreeMap<String, Vec<String>>;
    #[derive(serde::Deserialize)]
    struct Scenario {
        name: String,
        roles: Lists,
        parents: Lists,
        user_roles: Lists,
        permissions: BTreeMap<String, String>,
        checks: Vec<Check>,
    }
    #[derive(serde::Deserialize)]
    struct Check {
        user: String,
        permission: String,
        expect: bool,
    }
    fn ours<'a>(words: impl Iterator<Item = &'a String>, shape: impl Fn(usize) -> String) -> BTreeMap<&'a str, String> {
        let words: BTreeSet<&str> = words.map(String::as_str).collect();
        words.into_iter().enumerate().map(|(n, word)| (word, shape(n))).collect()
    }
    fn everything<'a>(scenario: &'a Scenario, role: &str) -> Vec<&'a String> {
        let mut held: Vec<_> = scenario.roles.get(role).into_iter().flatten().collect();
        for parent in scenario.parents.get(role).into_iter().flatten() {
            held.extend(everything(scenario, parent));
        }
        held
    }

    let Some(corpora) = std::env::var_os("DOORWARD_CORPORA") else {
        #[expect(clippy::print_stderr, reason = "a test without its corpus says so")]
        {
            eprintln!("skipped: DOORWARD_CORPORA is not set");
        }
        return;
    };
    let text = std::fs::read_to_string(std::path::Path::new(&corpora).join("rbac/scenarios_published.json")).unwrap();
    let scenarios: Vec<Scenario> = serde_json::from_str(&text).unwrap();
    let mut decided = 0;
    for scenario in &scenarios {
        let codes = ours(
            scenario
                .permissions
                .keys()
                .chain(scenario.roles.values().flatten())
                .chain(scenario.checks.iter().map(|check| &check.permission)),
            |n| format!("thing:{n}"),
        );
        let keys = ours(
            scenario
                .roles
                .keys()
                .chain(scenario.parents.keys())
                .chain(scenario.parents.values().flatten())
                .chain(scenario.user_roles.values().flatten()),
            |n| format!("ROLE_{n}"),
        );
        let mut data = RoleData::default();
        data.permissions
            .insert(service("oms"), codes.values().map(|code| PermissionCode::parse(code).unwrap()).collect());
        for (theirs, role) in &keys {
            let parents = scenario.parents.get(*theirs).map(Vec::as_slice).unwrap_or_default();
            let own = scenario.roles.get(*theirs).into_iter().flatten();
            let others = parents.iter().skip(1).flat_map(|parent| everything(scenario, parent));
            let definition = RoleDefinition {
                parent: parents.first().map(|parent| key(&keys[parent.as_str()])),
                scope: None,
                permissions: own.chain(others).map(|word| Grant::parse(&codes[word.as_str()]).unwrap()).collect(),
            };
            data.roles.insert(key(role), definition);
        }
        let table = RoleTable::compile(&data).unwrap();
        for check in &scenario.checks {
            let roles = scenario.user_roles.get(&check.user).into_iter().flatten();
            let roles: Vec<_> = roles.map(|role| key(&keys[role.as_str()])).collect();
            let permission = table.permission(&codes[check.permission.as_str()]).unwrap();
            let held = table.resolve("oms", &roles, &[]).has(permission);
            assert_eq!(held, check.expect, "{}: {} {}", scenario.name, check.user, check.permission);
            decided += 1;
        }
    }
    assert!(decided > 700, "{decided}");
}
