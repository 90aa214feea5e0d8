//! Tokens that are accepted and claim more than they may: what they say beyond that counts for nothing and is told to no
//! upstream (T7, T22).

use serde_json::{Value, json};

use super::forge::{Forge, with};
use super::set_ups::{SetUp, everybody, own};

/// What the upstream is told for these claims, by a route that asks for a valid token alone.
fn told(set_up: &SetUp, forge: &Forge<'_>, claims: &Value) -> [Option<String>; 4] {
    let response = set_up.running.get_as("/me", &forge.signed(&forge.header(), claims));
    assert_eq!(response.status, 200, "{claims}: {response:?}");
    let seen = set_up.upstream.last();
    ["x-user-id", "x-user-roles", "x-user-memberships", "x-auth-session"]
        .map(|name| seen.field(name).map(str::to_owned))
}

/// A person whom logs may name.
fn claims(forge: &Forge<'_>) -> Value {
    with(forge.claims(), "sub", "alice")
}

const SMUGGLED: [&str; 34] = [
    "x,ROLE_SUPER_ADMIN",
    "ROLE_VIEWER,ROLE_SUPER_ADMIN",
    "ROLE_VIEWER, ROLE_SUPER_ADMIN",
    "ROLE_VIEWER ROLE_SUPER_ADMIN",
    "ROLE_VIEWER;ROLE_SUPER_ADMIN",
    "ROLE_VIEWER\nROLE_SUPER_ADMIN",
    "ROLE_VIEWER\r\nX-User-Id: root",
    "ROLE_VIEWER\0",
    "ROLE_VIEWER ",
    " ROLE_VIEWER",
    "\tROLE_VIEWER",
    "role_viewer",
    "Role_Viewer",
    "ROLE_viewer",
    "VIEWER",
    "ROLE-VIEWER",
    "ROLE_",
    "ROLE__",
    "ROLE_*",
    "*",
    "item:*",
    "item:view",
    "ROLE_%56IEWER",
    "ROLE_VIEWER=1",
    "ROLE_VI\u{200b}EWER",
    "ROLE_V\u{406}EWER",
    "\u{ff32}OLE_VIEWER",
    "ROLE_VIEWER\u{301}",
    "ROLE_\u{1f511}",
    "ROLE_UNHEARD_OF",
    "",
    " ",
    "null",
    "ROLE_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

#[test]
fn t22_a_role_of_a_wrong_form_grants_nothing_and_reaches_nobody() {
    let set_up = everybody();
    for forge in set_up.forges() {
        for smuggled in SMUGGLED {
            for (roles, remaining) in [
                (json!([smuggled]), None),
                (json!(smuggled), None),
                (json!([smuggled, "ROLE_VIEWER"]), Some("ROLE_VIEWER".to_owned())),
            ] {
                let claims = with(claims(&forge), "roles", roles);
                let [id, roles, ..] = told(&set_up, &forge, &claims);
                assert_eq!((id.as_deref(), roles), (Some("alice"), remaining), "{claims}");
            }
            let token = forge.signed(&forge.header(), &with(claims(&forge), "roles", json!([smuggled])));
            let heard = set_up.upstream.count();
            assert_eq!(
                set_up.running.get_as("/items", &token).denial(),
                (403, "permission_missing".into()),
                "{smuggled:?}"
            );
            assert_eq!(set_up.upstream.count(), heard);
        }
        for odd in [
            Value::Null,
            json!(1),
            json!(true),
            json!({}),
            json!({"ROLE_VIEWER": true}),
            json!([null]),
            json!([1]),
            json!([["ROLE_VIEWER"]]),
            json!([{"role": "ROLE_VIEWER"}]),
            json!({"roles": ["ROLE_VIEWER"]}),
            json!([]),
        ] {
            let claims = with(claims(&forge), "roles", odd);
            assert_eq!(told(&set_up, &forge, &claims)[1], None, "{claims}");
        }
        // As many as fit: nothing breaks, and the one that is there counts once.
        let many = (0..500).map(|number| format!("ROLE_N{number}")).chain(vec!["ROLE_VIEWER".into(); 100]);
        let claims = with(claims(&forge), "roles", many.collect::<Vec<_>>());
        assert_eq!(told(&set_up, &forge, &claims)[1].as_deref(), Some("ROLE_VIEWER"));
    }
}

#[test]
fn t07_a_foreign_token_says_nothing_of_administrators_sessions_memberships_and_changes() {
    let set_up = everybody();
    for forge in set_up.forges().iter().filter(|forge| !forge.own) {
        for (name, value) in [
            ("roles", json!(["ROLE_SUPER_ADMIN"])),
            ("roles", json!("ROLE_SUPER_ADMIN")),
            ("sid", json!("s-1")),
            ("sid", json!(["s-1"])),
            ("sid", json!("a,b")),
            ("sid", Value::Null),
            ("uv", json!(u64::MAX / 2 + 1)),
            ("uv", json!(u64::MAX)),
            ("uv", json!(-1)),
            ("uv", json!("9223372036854775808")),
            ("uv", json!(9.3e18)),
            ("uv", Value::Null),
            ("memberships", json!({"oms": "PREMIUM"})),
            ("memberships", json!(["oms=PREMIUM"])),
            ("memberships", Value::Null),
            ("permissions", json!(["*", "item:delete"])),
            ("scope", json!("item:delete admin")),
            ("scp", json!(["admin"])),
            ("admin", json!(true)),
            ("realm_access", json!({"roles": ["ROLE_EDITOR"]})),
            ("groups", json!(["ROLE_SUPER_ADMIN"])),
            ("X-User-Id", json!("root")),
            ("act", json!({"sub": "root"})),
            ("cnf", json!({"jkt": "AAAA"})),
        ] {
            let claims = with(claims(forge), name, value);
            let expected = if name == "roles" { None } else { Some("ROLE_VIEWER".to_owned()) };
            let seen = told(&set_up, forge, &claims);
            assert_eq!(seen, [Some("alice".to_owned()), expected, None, None], "{claims}");
            let token = forge.signed(&forge.header(), &claims);
            let denied = set_up.running.request("DELETE", "/items/1", &token, &[], "");
            assert_eq!(denied.denial(), (403, "permission_missing".into()), "{claims}");
            let admin = set_up.running.admin_request("POST", "/api/revocations", Some(&token), r#"{"jti":"x"}"#);
            assert_eq!(admin.status, 403, "{claims}: {admin:?}");
        }
    }
}

#[test]
fn t22_memberships_of_a_wrong_form_are_told_to_nobody() {
    let set_up = own("EdDSA");
    let forges = set_up.forges();
    let forge = &forges[0];
    for (memberships, expected) in [
        (json!({"oms": "FREE"}), Some("oms=FREE")),
        (json!({"oms": "FREE", "oms,x": "PREMIUM", "x=y": "PREMIUM", "": "PREMIUM"}), Some("oms=FREE")),
        (json!({"oms": "FREE,shopping=PREMIUM"}), None),
        (json!({"oms": "PREMIUM\r\nX-User-Id: root"}), None),
        (json!({"oms": ["PREMIUM"]}), None),
        (json!({"oms": null}), None),
        (json!({"oms": 1}), None),
        (json!({"oms ": "PREMIUM"}), None),
        (json!({"OMS": "PREMIUM"}), None),
        (json!({"oms": "premium"}), None),
        (json!({}), None),
    ] {
        let claims = with(claims(forge), "memberships", memberships);
        let [.., seen, _] = told(&set_up, forge, &claims);
        assert_eq!(seen.as_deref(), expected, "{claims}");
        let token = forge.signed(&forge.header(), &claims);
        let denied = set_up.running.get_as("/users/bob/orders", &token);
        assert_eq!(denied.denial(), (403, "permission_missing".into()), "{claims}");
    }
}

#[test]
fn t13_the_leeway_extends_no_token_of_doorwards_own() {
    let set_up = everybody();
    let now = crate::harness::now();
    for forge in set_up.forges() {
        let claims = with(with(with(claims(&forge), "iat", now - 600), "nbf", now - 600), "exp", now - 5);
        let response = set_up.running.get_as("/me", &forge.signed(&forge.header(), &claims));
        // Twenty seconds are left of the leeway, which a busy machine may need.
        assert_eq!(response.status, if forge.own { 401 } else { 200 }, "{}: {response:?}", forge.victim.name);
    }
}
