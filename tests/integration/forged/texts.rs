//! JSON that two readers could read differently, in the header and in the claims.

use serde_json::json;

use super::check::Cases;
use super::forge::{Forge, parts};

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    duplicates(forge, cases);
    no_json(forge, cases);
}

/// One member twice, whichever a reader would keep.
fn duplicates(forge: &Forge<'_>, cases: &mut Cases) {
    let (header, claims) = (forge.header().to_string(), forge.claims().to_string());
    for (name, value) in [
        ("iss", json!("https://evil.test/")),
        ("iss", json!(forge.victim.url)),
        ("sub", json!("root")),
        ("aud", json!("oms")),
        ("exp", json!(9_999_999_999_i64)),
        ("exp", json!(1)),
        ("nbf", json!(0)),
        ("iat", json!(0)),
        ("jti", json!("another")),
        ("roles", json!(["ROLE_SUPER_ADMIN"])),
        ("x-note", json!(null)),
    ] {
        let escaped: String = name.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let first = name.bytes().next().unwrap();
        let half = format!("\\u{first:04X}{}", &name[1..]);
        for (what, spelled) in [("", name), (" in escapes", &*escaped), (" with one escape", &*half)] {
            let before = claims.replacen('{', &format!("{{\"{spelled}\":{value},"), 1);
            cases.malformed(format!("{name} twice, {value} first{what}"), forge.victim.sign_text(&header, before));
            let behind = format!("{},\"{spelled}\":{value}}}", &claims[..claims.len() - 1]);
            cases.malformed(format!("{name} twice, {value} last{what}"), forge.victim.sign_text(&header, behind));
        }
    }
    for (name, value) in [("alg", "none"), ("alg", forge.victim.algorithm), ("kid", "other"), ("typ", "at+jwt")] {
        if !header.contains(&format!("\"{name}\":")) {
            continue;
        }
        let escaped: String = name.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        for spelled in [name, &*escaped] {
            let before = header.replacen('{', &format!("{{\"{spelled}\":\"{value}\","), 1);
            cases.malformed(format!("header with {spelled} {value} first"), forge.victim.sign_text(before, &claims));
            let behind = format!("{},\"{spelled}\":\"{value}\"}}", &header[..header.len() - 1]);
            cases.malformed(format!("header with {spelled} {value} last"), forge.victim.sign_text(behind, &claims));
        }
    }
    for (what, deep) in [
        ("in an object", r#"{"a":{"b":1,"b":2}}"#),
        ("in an array", r#"[{"b":1,"b":1}]"#),
        ("five levels down", r#"{"a":{"a":{"a":{"a":{"b":1,"\u0062":2}}}}}"#),
        ("among roles", r#"{"roles":[],"roles":["ROLE_EDITOR"]}"#),
        ("of the empty name", r#"{"":1,"":2}"#),
    ] {
        let token = forge.victim.sign_text(&header, claims.replacen('{', &format!("{{\"deep\":{deep},"), 1));
        cases.malformed(format!("duplicates {what}"), token);
        let token = forge.victim.sign_text(header.replacen('{', &format!("{{\"deep\":{deep},"), 1), &claims);
        cases.malformed(format!("header with duplicates {what}"), token);
    }
}

/// What is no JSON object, or more than one, though it looks like it.
fn no_json(forge: &Forge<'_>, cases: &mut Cases) {
    let (header, claims) = (forge.header().to_string(), forge.claims().to_string());
    type Spoil = Box<dyn Fn(&str) -> Vec<u8>>;
    let text = |spoil: fn(&str) -> String| -> Spoil { Box::new(move |good| spoil(good).into_bytes()) };
    let spoiled: Vec<(&str, Spoil)> = vec![
        ("a byte-order mark", text(|good| format!("\u{feff}{good}"))),
        ("UTF-16, little-endian", Box::new(|good| good.encode_utf16().flat_map(u16::to_le_bytes).collect())),
        (
            "UTF-16, big-endian with its mark",
            Box::new(|good| [0xfeff].into_iter().chain(good.encode_utf16()).flat_map(u16::to_be_bytes).collect()),
        ),
        ("UTF-32", Box::new(|good| good.chars().flat_map(|char| u32::from(char).to_le_bytes()).collect())),
        ("a NUL before it", text(|good| format!("\0{good}"))),
        ("a NUL behind it", text(|good| format!("{good}\0"))),
        ("a NUL in a string", text(|good| good.replacen("{\"", "{\"\0", 1))),
        ("a raw newline in a string", text(|good| good.replacen("{\"", "{\"a\nb\":1,\"", 1))),
        ("a raw tab in a string", text(|good| good.replacen("{\"", "{\"a\tb\":1,\"", 1))),
        ("a byte that is no UTF-8", Box::new(|good| [&good.as_bytes()[..2], b"\xff", &good.as_bytes()[2..]].concat())),
        ("an overlong byte", Box::new(|good| [&good.as_bytes()[..2], b"\xc0\xaf", &good.as_bytes()[2..]].concat())),
        (
            "a surrogate in UTF-8",
            Box::new(|good| [&good.as_bytes()[..2], b"\xed\xa0\x80", &good.as_bytes()[2..]].concat()),
        ),
        ("half a surrogate", text(|good| good.replacen('{', r#"{"odd":"\ud83d","#, 1))),
        ("the other half of a surrogate", text(|good| good.replacen('{', r#"{"odd":"\udd11","#, 1))),
        ("surrogates in the wrong order", text(|good| good.replacen('{', r#"{"odd":"\udd11\ud83d","#, 1))),
        ("half a surrogate in a name", text(|good| good.replacen('{', r#"{"\ud800":1,"#, 1))),
        ("an escape that is none", text(|good| good.replacen('{', r#"{"odd":"\x41","#, 1))),
        ("an escape broken off", text(|good| good.replacen('{', r#"{"odd":"\u00","#, 1))),
        ("a comment", text(|good| good.replacen('{', "{/* good */", 1))),
        ("a comment behind it", text(|good| format!("{good}// good"))),
        ("a comma too many", text(|good| format!("{},}}", &good[..good.len() - 1]))),
        ("a comma too many before it", text(|good| good.replacen('{', "{,", 1))),
        ("a comma too many in an array", text(|good| good.replacen('{', "{\"odd\":[1,],", 1))),
        ("single quotes", text(|good| good.replace('"', "'"))),
        ("names without quotes", text(|good| good.replacen('{', "{odd:1,", 1))),
        ("no closing brace", text(|good| good[..good.len() - 1].to_owned())),
        ("no opening brace", text(|good| good[1..].to_owned())),
        ("a brace too many", text(|good| format!("{good}}}"))),
        ("a second object behind it", text(|good| format!("{good}{good}"))),
        ("a second object on a line of its own", text(|good| format!("{good}\n{{}}"))),
        ("a letter behind it", text(|good| format!("{good}x"))),
        ("an array of it", text(|good| format!("[{good}]"))),
        ("a string of it", text(|good| json!(good).to_string())),
        ("null", text(|_| "null".into())),
        ("true", text(|_| "true".into())),
        ("a number", text(|_| "17".into())),
        ("a string", text(|_| "\"text\"".into())),
        ("an empty array", text(|_| "[]".into())),
        ("an empty object", text(|_| "{}".into())),
        ("nothing", text(|_| String::new())),
        ("white space", text(|_| "  \n".into())),
        ("a form feed before it", text(|good| format!("\x0c{good}"))),
        ("a no-break space before it", text(|good| format!("\u{a0}{good}"))),
        ("XML", text(|_| "<a/>".into())),
        ("YAML", text(|_| "alg: none".into())),
        ("a form", text(|_| "alg=none&sub=root".into())),
        ("NaN", text(|good| good.replacen('{', "{\"odd\":NaN,", 1))),
        ("Infinity", text(|good| good.replacen('{', "{\"odd\":Infinity,", 1))),
        ("a number too large for any", text(|good| good.replacen('{', "{\"odd\":1e400,", 1))),
        ("a number with a leading zero", text(|good| good.replacen('{', "{\"odd\":01,", 1))),
        ("a number with a plus", text(|good| good.replacen('{', "{\"odd\":+1,", 1))),
        ("a number that ends in a point", text(|good| good.replacen('{', "{\"odd\":1.,", 1))),
        ("a number that begins with a point", text(|good| good.replacen('{', "{\"odd\":.1,", 1))),
        ("a hexadecimal number", text(|good| good.replacen('{', "{\"odd\":0x1,", 1))),
        (
            "arrays 17 deep",
            text(|good| good.replacen('{', &format!("{{\"odd\":{}{},", "[".repeat(17), "]".repeat(17)), 1)),
        ),
        (
            "arrays 4,000 deep",
            text(|good| good.replacen('{', &format!("{{\"odd\":{}{},", "[".repeat(4000), "]".repeat(4000)), 1)),
        ),
        (
            "objects 1,000 deep",
            text(|good| good.replacen('{', &format!("{{\"odd\":{}1{},", "{\"a\":".repeat(1000), "}".repeat(1000)), 1)),
        ),
        ("arrays 10,000 deep, never closed", text(|_| "[".repeat(10_000))),
    ];
    for (what, spoil) in spoiled {
        cases.malformed(format!("header with {what}"), forge.victim.sign_text(spoil(&header), &claims));
        cases.malformed(format!("claims with {what}"), forge.victim.sign_text(&header, spoil(&claims)));
    }
    // The same header and claims, written differently after signing: other bytes, another token.
    let good = forge.good();
    let spaced = super::forge::encode(header.replacen(':', ": ", 1));
    let [_, payload, signature] = parts(&good);
    cases.bearer(
        "a space put into the header after signing",
        format!("{spaced}.{payload}.{signature}"),
        "bad_signature",
    );
}
