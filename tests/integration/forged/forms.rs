//! The outer form: three parts of canonical base64url with two dots between them, and nothing else (RFC 7515 section 3.1).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde_json::json;

use super::check::Cases;
use super::forge::{Forge, encode, parts, signature_of, with};

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(super) fn cases(forge: &Forge<'_>, cases: &mut Cases) {
    numbers_of_parts(forge, cases);
    encodings(forge, cases);
    other_objects(forge, cases);
    sizes(forge, cases);
}

fn numbers_of_parts(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let [header, payload, signature] = parts(&good);
    for (what, token) in [
        ("one part", header.to_owned()),
        ("the payload alone", payload.to_owned()),
        ("two parts", format!("{header}.{payload}")),
        ("two parts, the signature last", format!("{payload}.{signature}")),
        ("four parts", format!("{good}.{signature}")),
        ("four parts, the last empty", format!("{good}.")),
        ("four parts, the first empty", format!(".{good}")),
        ("five parts", format!("{good}.{payload}.{signature}")),
        ("six parts", format!("{good}.{good}")),
        ("a hundred parts", vec!["e30"; 100].join(".")),
        ("one dot", ".".into()),
        ("two dots", "..".into()),
        ("three dots", "...".into()),
        ("sixteen thousand dots", ".".repeat(16_000)),
        ("an empty header", format!(".{payload}.{signature}")),
        ("an empty payload", format!("{header}..{signature}")),
        (
            "a detached payload",
            format!("{header}..{}", encode(forge.victim.signature(format!("{header}.").as_bytes()))),
        ),
        ("only a signature", format!("..{signature}")),
        ("only a header", format!("{header}..")),
        ("parts in another order", format!("{payload}.{header}.{signature}")),
        ("parts backwards", format!("{signature}.{payload}.{header}")),
        ("the header twice", format!("{header}.{header}.{signature}")),
        ("no text at all but letters", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into()),
        ("an opaque token", "mF_9.B5f-4.1JqM-and-some-more-of-it".into()),
        ("a dot of full width", good.replace('.', "\u{ff0e}")),
        ("colons for dots", good.replace('.', ":")),
        ("escaped dots", good.replace('.', "%2E")),
        ("null", "null".into()),
        ("undefined", "undefined".into()),
        ("[object Object]", "[object Object]".into()),
    ] {
        cases.malformed(what, token);
    }
}

fn encodings(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let own = parts(&good);
    let part_names = ["header", "payload", "signature"];
    for (place, name) in part_names.into_iter().enumerate() {
        let changed = |part: String| {
            let mut parts = own.map(str::to_owned);
            parts[place] = part;
            parts.join(".")
        };
        let part = own[place];
        for (what, odd) in [
            ("padded", format!("{part}=")),
            ("padded twice", format!("{part}==")),
            ("padded four times", format!("{part}====")),
            ("padding before it", format!("={part}")),
            ("a space within", format!("{} {}", &part[..8], &part[8..])),
            ("a tab within", format!("{}\t{}", &part[..8], &part[8..])),
            ("a plus within", format!("{}+{}", &part[..8], &part[9..])),
            ("a slash within", format!("{}/{}", &part[..8], &part[9..])),
            ("a percent escape", format!("{}%41{}", &part[..8], &part[9..])),
            ("a comma within", format!("{},{}", &part[..8], &part[9..])),
            ("quoted", format!("\"{part}\"")),
            ("a star within", format!("{}*{}", &part[..8], &part[9..])),
            ("a tilde behind it", format!("{part}~")),
            ("a letter of Latin-1 within", format!("{}\u{e9}{}", &part[..8], &part[9..])),
            ("a letter of full width", format!("{}\u{ff21}{}", &part[..8], &part[9..])),
            ("a zero-width space", format!("{}\u{200b}{}", &part[..8], &part[8..])),
        ] {
            cases.malformed(format!("{name} with {what}"), changed(odd));
        }
        // A length that no encoding has: 4n + 1 letters.
        let odd = format!("{}{}", part, &"AAAA"[..(5 - part.len() % 4) % 4]);
        cases.malformed(format!("{name} of an impossible length"), changed(odd));
        if let Some(twin) = twin(part) {
            cases.malformed(format!("{name} with odd trailing bits"), changed(twin));
        }
        for byte in [0_u8, b'\r', b'\n', 0x0b, 0x1f, 0x7f] {
            let token = changed(format!("{}{}{}", &part[..8], char::from(byte), &part[8..]));
            // Neither of these is a byte of a field's value (RFC 9110 section 5.5).
            cases.not_http(format!("{name} with byte {byte:#04x}"), token);
        }
        for bytes in [&[0xff_u8][..], &[0xc3], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80]] {
            let token = changed(format!("{}PLACE{}", &part[..8], &part[8..])).into_bytes();
            let at = memchr::memmem::find(&token, b"PLACE").unwrap();
            let token = [&token[..at], bytes, &token[at + 5..]].concat();
            cases.malformed(format!("{name} with {bytes:02x?}, which is no UTF-8"), token);
        }
    }
    // Each part in an alphabet that is not that of JWS, and signed as it then stands.
    let (header, claims) =
        (with(forge.header(), "?>", "~~~???>>>").to_string(), with(forge.claims(), "?>", "??>>~~").to_string());
    type Encoder = fn(&[u8]) -> String;
    let encoders: [(&str, Encoder); 6] = [
        ("standard base64", |bytes| STANDARD_NO_PAD.encode([bytes, b" ?>?>\xc3\xbf\xc3\xbf"].concat())),
        ("padded base64", |bytes| {
            STANDARD.encode([bytes, if bytes.len() % 3 == 0 { b"  " } else { b"" as &[u8] }].concat())
        }),
        ("padded base64url", |bytes| {
            URL_SAFE.encode([bytes, if bytes.len() % 3 == 0 { b"  " } else { b"" as &[u8] }].concat())
        }),
        ("hexadecimal with a prefix", |bytes| {
            bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
        }),
        ("base64url twice", |bytes| encode(encode(bytes))),
        ("base64url of base64url of a string", |bytes| encode(format!("\"{}\"", encode(bytes)))),
    ];
    for (what, encoder) in encoders {
        let signed = |message: String| format!("{message}.{}", encode(forge.victim.signature(message.as_bytes())));
        let header_so = signed(format!("{}.{}", encoder(header.as_bytes()), encode(&claims)));
        cases.malformed(format!("header in {what}, well signed"), header_so);
        let payload_so = signed(format!("{}.{}", encode(&header), encoder(claims.as_bytes())));
        cases.malformed(format!("payload in {what}, well signed"), payload_so);
    }
    let hex: String = signature_of(&good).iter().map(|byte| format!("{byte:02x}")).collect();
    cases.bearer(
        "signature in hexadecimal",
        format!("{}.{}.{hex}", own[0], own[1]),
        if decodes(&hex) { "bad_signature" } else { "malformed_token" },
    );
    let standard = STANDARD.encode(signature_of(&good));
    if standard.contains(['+', '/', '=']) {
        cases.malformed("signature in standard base64", format!("{}.{}.{standard}", own[0], own[1]));
    }
}

fn decodes(text: &str) -> bool {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).is_ok()
}

/// Another spelling of the same bytes, where the last letter holds bits that mean nothing.
fn twin(part: &str) -> Option<String> {
    let last = ALPHABET.find(part.chars().last()?)?;
    (!part.len().is_multiple_of(4)).then(|| format!("{}{}", &part[..part.len() - 1], &ALPHABET[last + 1..last + 2]))
}

/// Things of the JOSE family that are no compact JWS of claims.
fn other_objects(forge: &Forge<'_>, cases: &mut Cases) {
    let good = forge.good();
    let [header, payload, signature] = parts(&good);
    let flattened = json!({"protected": header, "payload": payload, "signature": signature});
    let general = json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]});
    let unprotected = json!({"header": forge.header(), "payload": payload, "signature": signature});
    for (what, object) in [("flattened", flattened), ("general", general), ("unprotected", unprotected)] {
        cases.malformed(format!("JWS JSON serialization, {what}"), object.to_string());
        cases.malformed(format!("JWS JSON serialization, {what}, encoded"), encode(object.to_string()));
        cases.malformed(format!("JWS JSON serialization, {what}, as the claims"), {
            forge.victim.sign_text(forge.header().to_string(), object.to_string())
        });
        cases.malformed(format!("JWS JSON serialization, {what}, as the header"), {
            forge.victim.sign_text(object.to_string(), forge.claims().to_string())
        });
    }
    // A token within a token, announced (RFC 7519 section 5.2) and not.
    for header in [forge.header(), with(forge.header(), "cty", "JWT"), with(forge.header(), "typ", "JWT")] {
        let what = format!("cty {}, typ {}", header["cty"], header["typ"]);
        cases.malformed(format!("a token as the payload, {what}"), forge.victim.sign_text(header.to_string(), &good));
        cases.malformed(
            format!("a token as the payload, in quotes, {what}"),
            forge.victim.sign_text(header.to_string(), json!(good).to_string()),
        );
        cases.malformed(
            format!("a token as the payload, in an array, {what}"),
            forge.victim.sign_text(header.to_string(), json!([good]).to_string()),
        );
        let twice = forge.victim.sign_text(header.to_string(), forge.victim.sign_text(header.to_string(), &good));
        cases.malformed(format!("a token in a token in a token, {what}"), twice);
    }
    cases.malformed("a token as the header", forge.victim.sign_text(&good, forge.claims().to_string()));
    // Encrypted ones have five parts (RFC 7516 section 7.1).
    for (alg, key) in [
        ("dir", ""),
        ("RSA-OAEP", "AAAA"),
        ("RSA1_5", "AAAA"),
        ("A256KW", "AAAA"),
        ("ECDH-ES", ""),
        ("PBES2-HS256+A128KW", "AAAA"),
    ] {
        let jwe = encode(json!({"alg": alg, "enc": "A256GCM", "kid": forge.victim.key_id, "cty": "JWT"}).to_string());
        cases.malformed(format!("JWE by {alg}"), format!("{jwe}.{key}.AAAAAAAAAAAAAAAA.{payload}.{}", encode([0; 16])));
        cases.malformed(format!("JWE by {alg} of three parts"), format!("{jwe}.{payload}.{signature}"));
        let header = json!({"alg": alg, "enc": "A256GCM", "kid": forge.victim.key_id});
        cases.malformed(format!("JWE header by {alg}, signed"), forge.signed(&header, &forge.claims()));
    }
    // Relatives that look alike: PASETO, SD-JWT with disclosures, Macaroon, Biscuit, SAML.
    for (what, token) in [
        ("PASETO", format!("v4.public.{payload}{signature}")),
        ("PASETO with a footer", format!("v4.public.{payload}.{header}")),
        ("SD-JWT", format!("{good}~")),
        (
            "SD-JWT with a disclosure",
            format!("{good}~{}~", encode(json!(["salt", "roles", ["ROLE_EDITOR"]]).to_string())),
        ),
        ("SAML", "<saml:Assertion>".into()),
        ("a JWT in parentheses", format!("({good})")),
        ("a JWT in angle brackets", format!("<{good}>")),
        ("a data URL", format!("data:application/jwt,{good}")),
        ("a name and a token", format!("token={good}")),
        ("JSON with the token", json!({"access_token": good}).to_string()),
    ] {
        cases.malformed(what, token);
    }
}

/// 16 KiB is the limit, for the whole token (SPEC 5.4).
fn sizes(forge: &Forge<'_>, cases: &mut Cases) {
    let limit = 16 * 1024;
    let padded = |length: usize| {
        // Four letters for three bytes: the claims alone give two lengths of three, the header's gives the third.
        let sized = |in_header: usize, in_claims: usize| {
            let header = with(forge.header(), "x-pad", "x".repeat(in_header));
            forge.signed(&header, &with(forge.claims(), "x-pad", "x".repeat(in_claims)))
        };
        let room = length - sized(0, 0).len();
        (0..4)
            .flat_map(|in_header| (room * 3 / 4 - 8..=room * 3 / 4 + 2).map(move |in_claims| (in_header, in_claims)))
            .map(|(in_header, in_claims)| sized(in_header, in_claims))
            .find(|token| token.len() == length)
    };
    // Signatures of some algorithms have other lengths each time; of those here, none.
    for length in [limit + 1, limit + 2, limit + 3, 20_000, 24 * 1024, 32 * 1024 - 512] {
        if let Some(token) = padded(length) {
            cases.malformed(format!("{length} bytes, well signed"), token);
        }
    }
    let good = forge.good();
    let [header, payload, signature] = parts(&good);
    cases.malformed("16 KiB of A", "A".repeat(limit));
    cases.malformed("16 KiB and a byte of A", "A".repeat(limit + 1));
    cases.malformed("a payload of 16,000 letters", format!("{header}.{}.{signature}", "A".repeat(16_000)));
    // Well-formed as a whole: it is read, and wrong.
    cases.bearer(
        "a signature of 12,000 letters",
        format!("{header}.{payload}.{}", "A".repeat(12_000)),
        "bad_signature",
    );
    cases.bearer("over 32 KiB", "A".repeat(32 * 1024), "headers_too_large");
    cases.0.last_mut().unwrap().status = 431;
}
