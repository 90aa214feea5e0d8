//! How the credential comes: one `Authorization: Bearer` and one token, nowhere else (RFC 6750 section 2; SPEC 3.4).

use super::check::{Carried, Case, Cases};
use super::forge::Forge;

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let malformed = (401, "malformed_token");
    let missing = (401, "missing_token");
    let bad = (400, "bad_request");
    for (what, lines, expected) in [
        ("two good ones", format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n"), malformed),
        (
            "two, the second of another case",
            format!("Authorization: Bearer {good}\r\nauthorization: Bearer {good}\r\n"),
            malformed,
        ),
        (
            "a good one behind Basic",
            format!("Authorization: Basic dTpw\r\nAuthorization: Bearer {good}\r\n"),
            malformed,
        ),
        (
            "a good one before Basic",
            format!("Authorization: Bearer {good}\r\nAuthorization: Basic dTpw\r\n"),
            malformed,
        ),
        ("a good one behind an empty one", format!("Authorization: \r\nAuthorization: Bearer {good}\r\n"), malformed),
        ("a good one before an empty one", format!("Authorization: Bearer {good}\r\nAuthorization:\r\n"), malformed),
        ("a list of two", format!("Authorization: Bearer {good}, Bearer {good}\r\n"), malformed),
        ("a list of it and Basic", format!("Authorization: Bearer {good}, Basic dTpw\r\n"), malformed),
        ("Basic, then it, in a list", format!("Authorization: Basic dTpw, Bearer {good}\r\n"), missing),
        ("Bearer Bearer", format!("Authorization: Bearer Bearer {good}\r\n"), malformed),
        ("Bearer: ", format!("Authorization: Bearer: {good}\r\n"), malformed),
        ("Bearer=", format!("Authorization: Bearer={good}\r\n"), malformed),
        ("Bearer token=", format!("Authorization: Bearer token={good}\r\n"), malformed),
        ("Bearer realm=…, token", format!("Authorization: Bearer realm=\"x\", {good}\r\n"), malformed),
        ("a tab behind the scheme", format!("Authorization: Bearer\t{good}\r\n"), malformed),
        ("a space and a tab behind the scheme", format!("Authorization: Bearer \t{good}\r\n"), malformed),
        ("no space behind the scheme", format!("Authorization: Bearer{good}\r\n"), missing),
        ("a quote before it", format!("Authorization: Bearer \"{good}\r\n"), malformed),
        ("in quotes", format!("Authorization: Bearer \"{good}\"\r\n"), malformed),
        ("in single quotes", format!("Authorization: Bearer '{good}'\r\n"), malformed),
        ("a semicolon behind it", format!("Authorization: Bearer {good};\r\n"), malformed),
        ("a comma behind it", format!("Authorization: Bearer {good},\r\n"), malformed),
        ("a comma before it", format!("Authorization: Bearer ,{good}\r\n"), malformed),
        ("words behind it", format!("Authorization: Bearer {good} and more\r\n"), malformed),
        ("the scheme alone", "Authorization: Bearer\r\n".into(), malformed),
        ("the scheme and a space", "Authorization: Bearer \r\n".into(), malformed),
        ("the scheme in small letters alone", "authorization: bearer\r\n".into(), malformed),
        ("nothing at all", String::new(), missing),
        ("an empty field", "Authorization:\r\n".into(), missing),
        ("without a scheme", format!("Authorization: {good}\r\n"), missing),
        ("DPoP", format!("Authorization: DPoP {good}\r\n"), missing),
        ("Token", format!("Authorization: Token {good}\r\n"), missing),
        ("JWT", format!("Authorization: JWT {good}\r\n"), missing),
        ("Basic", format!("Authorization: Basic {good}\r\n"), missing),
        ("Digest", format!("Authorization: Digest {good}\r\n"), missing),
        ("Negotiate", format!("Authorization: Negotiate {good}\r\n"), missing),
        ("PoP", format!("Authorization: PoP {good}\r\n"), missing),
        ("GNAP", format!("Authorization: GNAP {good}\r\n"), missing),
        ("Bearer-Token", format!("Authorization: Bearer-Token {good}\r\n"), missing),
        ("Bearers", format!("Authorization: Bearers {good}\r\n"), missing),
        ("XBearer", format!("Authorization: XBearer {good}\r\n"), missing),
        ("a scheme of look-alikes", format!("Authorization: \u{412}earer {good}\r\n"), missing),
        ("a scheme with a Kelvin sign's cousin", format!("Authorization: Bea\u{280}er {good}\r\n"), missing),
        ("Proxy-Authorization", format!("Proxy-Authorization: Bearer {good}\r\n"), missing),
        ("X-Authorization", format!("X-Authorization: Bearer {good}\r\n"), missing),
        ("X-Access-Token", format!("X-Access-Token: {good}\r\n"), missing),
        ("Authentication", format!("Authentication: Bearer {good}\r\n"), missing),
        ("X-Forwarded-Authorization", format!("X-Forwarded-Authorization: Bearer {good}\r\n"), missing),
        ("X-Amzn-Oidc-Data", format!("X-Amzn-Oidc-Data: {good}\r\n"), missing),
        ("Cf-Access-Jwt-Assertion", format!("Cf-Access-Jwt-Assertion: {good}\r\n"), missing),
        ("X-User-Assertion", format!("X-User-Assertion: {good}\r\n"), missing),
        ("a cookie of the name token", format!("Cookie: token={good}\r\n"), missing),
        ("a cookie of the name access_token", format!("Cookie: access_token={good}\r\n"), missing),
        ("a cookie of the name Authorization", format!("Cookie: Authorization=Bearer%20{good}\r\n"), missing),
        ("a cookie of the name __Host-session", format!("Cookie: __Host-session={good}\r\n"), missing),
        ("Sec-WebSocket-Protocol", format!("Sec-WebSocket-Protocol: bearer, {good}\r\n"), missing),
        ("a folded line", format!("Authorization: Bearer\r\n {good}\r\n"), bad),
        ("a space before the colon", format!("Authorization : Bearer {good}\r\n"), bad),
        ("a NUL in the name", format!("Authori\0zation: Bearer {good}\r\n"), bad),
        ("a bare CR behind it", format!("Authorization: Bearer {good}\rX: y\r\n"), bad),
    ] {
        cases.request(format!("credential: {what}"), "/items", &lines, &good, expected);
    }
    for (what, target) in [
        ("access_token", format!("/items?access_token={good}")),
        ("token", format!("/items?token={good}")),
        ("jwt", format!("/items?a=b&jwt={good}")),
        ("Authorization", format!("/items?Authorization=Bearer%20{good}")),
        ("bearer_token", format!("/items?bearer_token={good}")),
        ("an array of access_token", format!("/items?access_token[]={good}")),
        ("no name", format!("/items?{good}")),
    ] {
        cases.request(format!("query: {what}"), &target, "", &good, missing);
    }
    for (what, content, body) in [
        ("form", "application/x-www-form-urlencoded", format!("access_token={good}")),
        ("JSON", "application/json", format!("{{\"access_token\":\"{good}\"}}")),
        ("JWT", "application/jwt", good.clone()),
    ] {
        let bytes = format!(
            "POST /items HTTP/1.1\r\nHost: oms.test\r\nContent-Type: {content}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let carried = Carried::Request { bytes: bytes.into_bytes(), tokens: vec![good.clone()] };
        cases.0.push(Case { name: format!("body: {what}"), carried, status: 401, reason: "missing_token" });
    }
}
