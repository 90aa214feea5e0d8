//! What the claims say: types, whose they are, for whom, of whom, since when and for how long (RFC 7519 section 4.1).

use serde_json::{Value, json};

use super::check::Cases;
use super::forge::{Forge, with, without};
use crate::harness::now;

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    types(forge, cases);
    if !forge.unnamed {
        issuers(forge, cases);
        audiences(forge, cases);
    }
    subjects(forge, cases);
    times(forge, cases);
    if forge.own {
        own(forge, cases);
    }
}

fn types(forge: &Forge<'_>, cases: &mut Cases) {
    for name in ["iss", "sub", "jti"] {
        let good = forge.claims()[name].clone();
        for value in [
            Value::Null,
            json!(true),
            json!(false),
            json!(0),
            json!(7),
            json!(-1),
            json!(1.5),
            json!(1e300),
            json!([]),
            json!([good]),
            json!([null]),
            json!({}),
            json!({ "value": good }),
        ] {
            cases.malformed(format!("{name} {value}"), forge.claim(name, value));
        }
    }
    for length in [0, 1_025, 4_000] {
        cases.malformed(format!("jti of {length} letters"), forge.claim("jti", "j".repeat(length)));
    }
    for value in [
        Value::Null,
        json!(true),
        json!(1),
        json!(0),
        json!({}),
        json!({"oms": true}),
        json!({"aud": "oms"}),
        json!([null]),
        json!(["oms", null]),
        json!(["oms", 1]),
        json!(["oms", true]),
        json!([["oms"]]),
        json!(["oms", ["oms"]]),
        json!([{"aud": "oms"}]),
        json!(["oms", {}]),
    ] {
        cases.malformed(format!("aud {value}"), forge.claim("aud", value));
    }
    for name in ["exp", "nbf", "iat"] {
        let good = forge.claims()[name].clone();
        for value in [
            Value::Null,
            json!(true),
            json!(false),
            json!(""),
            json!(good.to_string()),
            json!(format!("{good}.0")),
            json!("2099-01-01T00:00:00Z"),
            json!("never"),
            json!("Infinity"),
            json!([]),
            json!([good]),
            json!({}),
            json!({ "value": good }),
        ] {
            cases.malformed(format!("{name} {value}"), forge.claim(name, value));
        }
    }
    cases.malformed("no exp", forge.without("exp"));
    cases.malformed("no sub", forge.without("sub"));
    cases.malformed("no claims", forge.signed(&forge.header(), &json!({})));
    cases.malformed("EXP instead of exp", {
        let claims = with(without(forge.claims(), "exp"), "EXP", now() + 600);
        forge.signed(&forge.header(), &claims)
    });
    cases.malformed("exp within another claim", {
        let claims = with(without(forge.claims(), "exp"), "claims", json!({"exp": now() + 600}));
        forge.signed(&forge.header(), &claims)
    });
    cases.malformed("exp in the header", {
        let header = with(forge.header(), "exp", now() + 600);
        forge.signed(&header, &without(forge.claims(), "exp"))
    });
}

/// `iss` is compared byte for byte.
fn issuers(forge: &Forge<'_>, cases: &mut Cases) {
    let url = &forge.victim.url;
    let (scheme, rest) = url.split_once("://").unwrap();
    for other in [
        String::new(),
        " ".into(),
        format!("{url}/"),
        format!("{url} "),
        format!(" {url}"),
        format!("{url}\0"),
        format!("{url}\n"),
        format!("{url}#"),
        format!("{url}?"),
        format!("{url}."),
        format!("{url}%2F"),
        format!("{url},{url}"),
        format!("\u{feff}{url}"),
        format!("{url}\u{200b}"),
        url[..url.len() - 1].to_owned(),
        url.to_uppercase(),
        format!("{}://{rest}", scheme.to_uppercase()),
        format!("ftp://{rest}"),
        rest.to_owned(),
        format!("//{rest}"),
        format!("{scheme}://user@{rest}"),
        format!("{scheme}://evil.test/{url}"),
        format!("{url}@evil.test"),
        "https://evil.test/".into(),
        "doorward ".into(),
        "*".into(),
        "null".into(),
        "urn:doorward:gateway".into(),
        forge.victim.name.to_owned(),
    ] {
        if other != *url {
            cases.bearer(format!("iss {other:?}"), forge.claim("iss", other), "wrong_issuer");
        }
    }
    cases.bearer("no iss", forge.without("iss"), "wrong_issuer");
    for other in &forge.others {
        // The key is found among the other issuer's, which does not have it, or has another under this name.
        let kid = if forge.nameless { None } else { Some(forge.victim.key_id) };
        let reason = match kid {
            Some(kid) if kid != other.key_id => "unknown_key",
            _ if other.algorithm != forge.victim.algorithm => "alg_not_allowed",
            _ => "bad_signature",
        };
        // doorward's own issuer asks for its `typ` first, which these have.
        cases.bearer(format!("iss of {}", other.name), forge.claim("iss", other.url.clone()), reason);
    }
}

fn audiences(forge: &Forge<'_>, cases: &mut Cases) {
    for value in [
        json!(""),
        json!(" "),
        json!("OMS"),
        json!("Oms"),
        json!("oms "),
        json!(" oms"),
        json!("oms\0"),
        json!("om"),
        json!("omss"),
        json!("oms,shopping"),
        json!("shopping oms"),
        json!("oms/"),
        json!("*"),
        json!("o*"),
        json!(".*"),
        json!("\u{ff4f}ms"),
        json!("null"),
        json!([]),
        json!([""]),
        json!(["OMS"]),
        json!(["om", "s"]),
        json!(["shopping", "blog"]),
        json!(["oms shopping"]),
        json!(["oms,"]),
        json!(vec!["shopping"; 1000]),
    ] {
        let shown: String = value.to_string().chars().take(40).collect();
        cases.bearer(format!("aud {shown}"), forge.claim("aud", value), "wrong_audience");
    }
    cases.bearer("no aud", forge.without("aud"), "wrong_audience");
}

/// T22: a subject becomes a header's value, a field of the log and a key.
fn subjects(forge: &Forge<'_>, cases: &mut Cases) {
    let long = "m".repeat(129);
    let longer = "m".repeat(10_000);
    for subject in [
        "",
        " ",
        "a b",
        " a",
        "a ",
        "a,b",
        "a=b",
        "a%b",
        "a%0d%0aX-User-Roles:ROLE_SUPER_ADMIN",
        "a\r\nX-User-Id: root",
        "a\nb",
        "a\rb",
        "a\tb",
        "a\0b",
        "a\u{7f}",
        "a\u{85}",
        "\u{e9}lodie",
        "\u{fb01}sh",
        "\u{202e}toor",
        "\u{200b}root",
        "ro\u{43e}t",
        "\u{1f511}",
        "\u{feff}root",
        "root\u{a0}",
        "oms=PREMIUM",
        "u-1,ROLE_SUPER_ADMIN",
        &long,
        &longer,
    ] {
        let shown: String = subject.chars().take(40).collect();
        cases.malformed(format!("sub {shown:?}"), forge.claim("sub", subject));
    }
}

fn times(forge: &Forge<'_>, cases: &mut Cases) {
    let now = now();
    let at = |changes: &[(&str, Option<i64>)]| {
        let claims = changes.iter().fold(forge.claims(), |claims, (name, value)| match value {
            Some(value) => with(claims, name, *value),
            None => without(claims, name),
        });
        forge.signed(&forge.header(), &claims)
    };
    let begun = [("iat", Some(now - 3000)), ("nbf", Some(now - 3000))];
    // The leeway is 30 s, and none for doorward's own (T13). A second more is for the clock that goes on meanwhile.
    let past: &[i64] = if forge.own { &[0, 1, 10, 29, 30, 31, 600] } else { &[30, 31, 60, 600] };
    for past in past {
        cases.bearer(format!("exp {past} s ago"), at(&[begun[0], begun[1], ("exp", Some(now - past))]), "expired");
    }
    for exp in [0, 1, 1_000_000_000] {
        cases.bearer(format!("exp {exp}"), at(&[("iat", Some(0)), ("nbf", Some(0)), ("exp", Some(exp))]), "expired");
    }
    cases.bearer("exp 0 and no iat", at(&[("iat", None), ("nbf", None), ("exp", Some(0))]), "expired");
    cases.bearer(
        "exp before nbf and iat, both to come",
        at(&[("iat", Some(now + 500)), ("nbf", Some(now + 500)), ("exp", Some(now - 60))]),
        "expired",
    );
    // Far enough behind the leeway for a machine that takes half a minute until it comes to ask.
    for ahead in [120, 300, 3000] {
        for name in ["nbf", "iat"] {
            let token = at(&[(name, Some(now + ahead)), ("exp", Some(now + ahead + 10))]);
            cases.bearer(format!("{name} in {ahead} s"), token, "not_yet_valid");
        }
        let token = at(&[("nbf", Some(now + ahead)), ("iat", None)]);
        cases.bearer(format!("nbf in {ahead} s, no iat"), token, "not_yet_valid");
    }
    // T5: a token that lives longer than its revocation is kept.
    for (what, iat, exp) in [
        ("an hour and a second", Some(now), now + 3601),
        ("an hour and a minute, half over", Some(now - 1800), now + 1860),
        ("a day", Some(now - 10), now + 86_400),
        ("ten years", Some(now - 10), now + 315_360_000),
        ("until the year 9999", Some(now - 10), 253_402_300_799),
        ("since 1970", Some(0), now + 600),
        ("an hour and more, without iat", None, now + 3_900),
        ("ten years, without iat", None, now + 315_360_000),
    ] {
        cases.malformed(format!("a life of {what}"), at(&[("iat", iat), ("exp", Some(exp))]));
    }
}

/// What only doorward's own keys may say is refused in a wrong form, not ignored.
fn own(forge: &Forge<'_>, cases: &mut Cases) {
    for (name, value) in [
        ("uv", Value::Null),
        ("uv", json!(-1)),
        ("uv", json!(1.5)),
        ("uv", json!("1")),
        ("uv", json!(1e19)),
        ("uv", json!(true)),
        ("uv", json!([1])),
        ("uv", json!({})),
        ("sid", Value::Null),
        ("sid", json!(1)),
        ("sid", json!("")),
        ("sid", json!("a,b")),
        ("sid", json!("a b")),
        ("sid", json!("a\r\nb")),
        ("sid", json!("s".repeat(129))),
        ("sid", json!(["s"])),
        ("sid", json!({})),
        ("memberships", Value::Null),
        ("memberships", json!([])),
        ("memberships", json!("oms=PREMIUM")),
        ("memberships", json!(1)),
        ("memberships", json!(true)),
    ] {
        let shown: String = value.to_string().chars().take(40).collect();
        cases.malformed(format!("{name} {shown} of doorward's own"), forge.claim(name, value));
    }
    cases.malformed("uv 2^64 of doorward's own", forge.claim_as_text("uv", "18446744073709551616"));
}
