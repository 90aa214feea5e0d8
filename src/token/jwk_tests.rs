//! Which key sets are read, and why others are not.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::{KeySet, Trust};
use crate::secret::Secret;
use crate::token::Algorithm;
use crate::token::fixtures::{ALL, keys, private_jwk, with, without};

fn parse(keys: &[Value], trust: Trust) -> Result<KeySet, String> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &ALL, trust).map_err(|error| error.0)
}

fn public_jwk(algorithm: Algorithm) -> Value {
    let all = keys().public_jwks();
    all["keys"].as_array().unwrap().iter().find(|key| key["alg"] == algorithm.name()).unwrap().clone()
}

#[test]
fn a_generated_set_signs_and_its_public_half_verifies() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let private = KeySet::parse(KeySet::generate(algorithm).unwrap().expose(), &[algorithm], Trust::File).unwrap();
        let published = private.public_jwks();
        for member in super::PRIVATE_MEMBERS {
            assert!(published["keys"][0].get(member).is_none(), "{algorithm:?} publishes {member}");
        }
        let public = KeySet::parse(published.to_string().as_bytes(), &[algorithm], Trust::Url).unwrap();
        assert!(public.signing_key().is_none() && private.signing_key().is_some());
        assert_eq!(public.keys[0].id, private.keys[0].id);
        assert_eq!(private.keys[0].id.as_deref().unwrap().len(), 43, "a thumbprint");
    }
    assert_eq!(keys().public_jwks()["keys"].as_array().unwrap().len(), 3, "the HS256 key is left out");
}

#[test]
fn keys_for_other_uses_are_passed_over() {
    let good = public_jwk(Algorithm::EdDSA);
    for other in [
        with(public_jwk(Algorithm::RS256), "use", json!("enc")),
        with(without(public_jwk(Algorithm::RS256), "use"), "key_ops", json!(["encrypt", "wrapKey"])),
        with(public_jwk(Algorithm::RS256), "alg", json!("PS512")),
        with(public_jwk(Algorithm::RS256), "alg", json!("RSA-OAEP")),
        with(public_jwk(Algorithm::ES256), "crv", json!("P-521")),
        json!({ "kty": "AKP", "alg": "ML-DSA-44" }),
    ] {
        assert_eq!(parse(&[other.clone(), good.clone()], Trust::Url).unwrap().keys.len(), 1, "{other}");
        let alone = parse(&[other], Trust::Url).unwrap_err();
        assert!(alone.starts_with("the key set holds no key to verify with: key 1"), "{alone}");
    }
}

#[test]
fn an_algorithm_that_is_not_configured_is_passed_over_and_told_where_the_set_is_a_file() {
    // A provider's whole set, as people save it.
    let encryption = with(with(public_jwk(Algorithm::RS256), "alg", json!("RSA-OAEP")), "kid", json!("enc"));
    let whole = json!({ "keys": [public_jwk(Algorithm::RS256), public_jwk(Algorithm::ES256), encryption] }).to_string();
    let only = [Algorithm::ES256];
    let fetched = KeySet::parse(whole.as_bytes(), &only, Trust::Url).unwrap();
    assert_eq!((fetched.keys.len(), fetched.unfit.len()), (1, 0));
    let path = std::path::Path::new("idp/keys.json");
    let saved = KeySet::parse_file(path, whole.as_bytes(), &only).unwrap();
    assert_eq!((saved.keys.len(), saved.keys[0].algorithm), (1, Algorithm::ES256));
    let [told] = &saved.unfit[..] else { unreachable!("{:?}", saved.unfit) };
    assert!(told.starts_with("idp/keys.json: key 1 (kid \"RS256\") is for RS256"), "{told}");
    // Where nothing is left it is a mistake, which names the file and the key as well.
    let error = KeySet::parse_file(path, whole.as_bytes(), &[Algorithm::EdDSA]).unwrap_err().0;
    assert!(error.starts_with("idp/keys.json: the key set holds no key to verify with: key 1"), "{error}");
    assert!(error.contains("`algorithms`") && error.contains("kid \"ES256\""), "{error}");
}

#[test]
fn one_kid_is_enough_for_keys_of_different_types() {
    let named = |algorithm| with(private_jwk(algorithm), "kid", json!("one"));
    let all = ALL.map(named);
    assert_eq!(parse(&all, Trust::File).unwrap().keys.len(), 4, "RFC 7517 section 4.5");
    let public = |algorithm| with(public_jwk(algorithm), "kid", json!("one"));
    assert_eq!(parse(&[public(Algorithm::RS256), public(Algorithm::ES256)], Trust::Url).unwrap().keys.len(), 2);
    for algorithm in ALL {
        let error = parse(&[named(Algorithm::RS256), named(algorithm), named(algorithm)], Trust::File).unwrap_err();
        assert!(error.contains("same kid"), "{error}");
    }
    let twice = [public(Algorithm::ES256), public(Algorithm::RS256), public(Algorithm::ES256)];
    assert!(parse(&twice, Trust::Url).unwrap_err().starts_with("key 3"), "one type twice");
}

#[test]
fn a_key_without_alg_takes_the_one_that_fits_its_type() {
    for algorithm in ALL {
        let set = parse(&[without(private_jwk(algorithm), "alg")], Trust::File).unwrap();
        assert_eq!(set.keys[0].algorithm, algorithm);
    }
}

#[test]
fn t11_symmetric_and_private_keys_from_a_url_are_refused() {
    for algorithm in ALL {
        let error = parse(&[private_jwk(algorithm)], Trust::Url).unwrap_err();
        assert!(error.contains("anybody can sign"), "{error}");
        assert!(parse(&[private_jwk(algorithm)], Trust::File).is_ok());
    }
    // Not even where HS256 is not configured is a published secret passed over in silence.
    let document = json!({ "keys": [private_jwk(Algorithm::HS256), public_jwk(Algorithm::EdDSA)] }).to_string();
    assert!(KeySet::parse(document.as_bytes(), &[Algorithm::EdDSA], Trust::Url).is_err());
    // Nor one that is no key for signatures, or no sound key at all: whoever publishes it has to be told.
    let good = public_jwk(Algorithm::EdDSA);
    for leaked in [
        with(private_jwk(Algorithm::RS256), "use", json!("enc")),
        with(private_jwk(Algorithm::RS256), "alg", json!("RSA-OAEP")),
        with(private_jwk(Algorithm::ES256), "crv", json!("P-521")),
        with(private_jwk(Algorithm::ES256), "kty", json!(7)),
        with(private_jwk(Algorithm::RS256), "key_ops", json!("decrypt")),
        without(private_jwk(Algorithm::HS256), "k"),
        json!({ "kty": "oct", "use": "enc", "k": "AA" }),
    ] {
        let error = parse(&[good.clone(), leaked.clone()], Trust::Url).unwrap_err();
        assert!(error.contains("anybody can sign"), "{leaked}: {error}");
    }
}

#[test]
fn one_unfit_key_from_a_url_condemns_itself_alone() {
    let (rsa, ec, ed) = (public_jwk(Algorithm::RS256), public_jwk(Algorithm::ES256), public_jwk(Algorithm::EdDSA));
    let short = super::encode_base64url(&[0xc1; 128]);
    for (unfit, why) in [
        (without(rsa.clone(), "kty"), "no `kty`"),
        (with(rsa.clone(), "kty", json!(7)), "`kty` that is not a string"),
        (with(rsa.clone(), "use", json!(["sig"])), "`use` that is not a string"),
        (with(rsa.clone(), "key_ops", json!("verify")), "`key_ops` that is not an array"),
        (with(rsa.clone(), "alg", json!("ES256")), "does not fit"),
        (with(rsa.clone(), "alg", Value::Null), "`alg` that is not a string"),
        (with(rsa.clone(), "kid", json!(7)), "`kid` that is not a string"),
        (with(rsa.clone(), "n", json!(short)), "2,048 bits"),
        (with(rsa.clone(), "e", json!("AQAB=")), "not base64url"),
        (without(rsa, "e"), "no `e`"),
        (with(ec.clone(), "y", ec["x"].clone()), "not a point"),
        (with(ec, "crv", json!(256)), "`crv` that is not a string"),
        (with(ed.clone(), "x", json!("AQAB")), "32 bytes"),
        (json!(1), "not a JSON object"),
    ] {
        let unfit =
            if unfit.get("kid").is_some_and(Value::is_string) { with(unfit, "kid", json!("odd")) } else { unfit };
        let set = parse(&[unfit.clone(), ed.clone()], Trust::Url).unwrap();
        assert_eq!((set.keys.len(), set.keys[0].id.as_deref()), (1, ed["kid"].as_str()), "{unfit}");
        // And is told of: by its name, and why.
        let [told] = &set.unfit[..] else { unreachable!("{unfit}") };
        assert!(told.starts_with("key 1") && told.contains(why), "{unfit}: {told}");
        assert_eq!(told.contains("\"odd\""), unfit["kid"] == "odd", "{told}");
        // Alone it is no set, and in a file a mistake.
        let alone = parse(std::slice::from_ref(&unfit), Trust::Url).unwrap_err();
        assert!(alone.starts_with("the key set holds no key to verify with: key 1") && alone.contains(why), "{alone}");
        let strict = parse(&[unfit.clone(), ed.clone()], Trust::File).unwrap_err();
        assert!(strict.contains(why), "{unfit}: {strict}");
    }
    // What is for something else is nobody's fault.
    let encryption = with(with(public_jwk(Algorithm::RS256), "use", json!("enc")), "kid", json!("odd"));
    assert!(parse(&[encryption, ed.clone()], Trust::Url).unwrap().unfit.is_empty());
    // Which of two keys of one name is meant nobody can say.
    assert!(parse(&[ed.clone(), ed], Trust::Url).unwrap_err().contains("same kid"));
}

#[test]
fn weak_and_broken_keys_are_refused_with_the_reason() {
    let (rsa, ec, ed, oct) = (
        public_jwk(Algorithm::RS256),
        public_jwk(Algorithm::ES256),
        public_jwk(Algorithm::EdDSA),
        private_jwk(Algorithm::HS256),
    );
    let short_modulus = super::encode_base64url(&[0xc1; 128]);
    let even_modulus = super::encode_base64url(&[0xc2; 256]);
    let huge_modulus = super::encode_base64url(&[0xc1; 1025]);
    let zeros = super::encode_base64url(&[0; 32]);
    let identity = super::encode_base64url(&[&[1][..], &[0; 31]].concat());
    let signed_identity = super::encode_base64url(&[&[1][..], &[0; 30], &[0x80]].concat());
    for (jwk, expected) in [
        (with(rsa.clone(), "n", json!(short_modulus)), "2,048 bits"),
        (with(rsa.clone(), "n", json!(huge_modulus)), "8,192 bits"),
        (with(rsa.clone(), "n", json!(even_modulus)), "no sound RSA key"),
        (with(rsa.clone(), "e", json!("AQ")), "no sound RSA key"),
        (with(rsa.clone(), "e", json!("AQAA")), "no sound RSA key"),
        (with(rsa.clone(), "e", json!("AQAB=")), "not base64url"),
        (without(rsa.clone(), "e"), "no `e`"),
        (with(rsa.clone(), "alg", json!("ES256")), "does not fit"),
        (with(rsa.clone(), "alg", json!("HS256")), "does not fit"),
        (with(rsa.clone(), "kid", json!(7)), "`kid` that is not a string"),
        (with(rsa, "kid", Value::Null), "`kid` that is not a string"),
        (with(ec.clone(), "y", ec["x"].clone()), "not a point"),
        (with(ec, "x", json!("AQAB")), "32 bytes"),
        (with(ed.clone(), "x", json!("AQAB")), "32 bytes"),
        (with(ed.clone(), "x", json!(zeros)), "small order"),
        (with(ed.clone(), "x", json!(identity)), "small order"),
        (with(ed, "x", json!(signed_identity)), "small order"),
        (with(oct.clone(), "k", json!("c2hvcnQ")), "32 bytes"),
        (with(oct, "k", json!("")), "not base64url"),
        (with(private_jwk(Algorithm::EdDSA), "d", json!(zeros)), "does not fit the public one"),
        (with(private_jwk(Algorithm::ES256), "d", json!(identity)), "does not fit the public one"),
        (with(private_jwk(Algorithm::RS256), "d", json!("AQAB")), "does not fit the public one"),
        (without(private_jwk(Algorithm::RS256), "p"), "no `p`"),
    ] {
        let error = parse(std::slice::from_ref(&jwk), Trust::File).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}\n{jwk}");
    }
}

#[test]
fn duplicates_and_documents_that_are_no_key_sets_are_refused() {
    let key = public_jwk(Algorithm::EdDSA);
    let twice = parse(&[key.clone(), key.clone()], Trust::File);
    assert!(twice.unwrap_err().contains("same kid"));
    let doubled = format!(r#"{{"keys":[{key}],"keys":[{key}]}}"#);
    for (document, expected) in [
        (doubled.as_str(), "duplicate member"),
        ("", "not well-formed"),
        ("[]", "not a JSON object"),
        ("{}", "no member `keys`"),
        (r#"{"keys":{}}"#, "not an array"),
        (r#"{"keys":[]}"#, "it is empty"),
        (r#"{"keys":[1]}"#, "not a JSON object"),
        ("-----BEGIN PUBLIC KEY-----", "not well-formed"),
    ] {
        let error = KeySet::parse(document.as_bytes(), &ALL, Trust::File).unwrap_err().0;
        assert!(error.contains(expected), "{document}: {error}");
    }
    assert_eq!(KeySet::parse(key.to_string().as_bytes(), &ALL, Trust::File).unwrap().keys.len(), 1, "one bare JWK");
}

#[test]
fn a_shared_secret_has_32_bytes_at_least() {
    let secret = |length: u8| Secret::new((0..length).collect());
    assert!(KeySet::shared_secret(&secret(31)).unwrap_err().0.contains("32 bytes"));
    let set = KeySet::shared_secret(&secret(32)).unwrap();
    assert_eq!((set.keys.len(), set.keys[0].id.as_deref()), (1, None));
    assert!(!format!("{set:?}").contains("[0, 1, 2, 3"), "Debug shows no secret");
}

#[test]
fn a_published_key_is_no_shared_secret() {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine as _;

    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let ed25519 = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let der = |key: PublicKeyX509Der<'_>| key.as_ref().to_vec();
    let spki = [der(rsa.public_key().as_der().unwrap()), der(ed25519.public_key().as_der().unwrap())];
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    let pem = pair.public_key_pem();
    let jwk = public_jwk(Algorithm::ES256);
    let ders = [&spki[..], &[rsa.public_key().as_ref().to_vec(), certificate.der().to_vec()]].concat();
    let standard = base64::engine::general_purpose::STANDARD;
    let wrapped =
        |text: String| text.as_bytes().chunks(64).map(|line| [line, b"\n"].concat()).collect::<Vec<_>>().concat();
    let encoded = ders.iter().flat_map(|der| {
        let text = standard.encode(der);
        let url = text.replace('+', "-").replace('/', "_");
        [
            text.trim_end_matches('=').into(),
            url.trim_end_matches('=').into(),
            format!(" {text}\r\n").into(),
            url.into(),
            wrapped(text),
        ]
    });
    let published: Vec<Vec<u8>> = [
        spki.to_vec(),
        vec![rsa.public_key().as_ref().to_vec(), certificate.der().to_vec()],
        [pem.clone(), pem.trim().into(), pem.replace('\n', "\r\n"), pem.replace('\n', ""), certificate.pem()]
            .map(String::into_bytes)
            .into(),
        encoded.collect(),
        // As `openssl x509` prints it, and as a mounted secret is shown.
        [format!("subject=CN = idp\nissuer=CN = idp\n{}", certificate.pem()), standard.encode(&pem)]
            .map(String::into_bytes)
            .into(),
        [jwk.to_string(), json!({ "keys": [jwk] }).to_string(), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA you@host".into()]
            .map(String::into_bytes)
            .into(),
    ]
    .concat();
    for bytes in published {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let refused = KeySet::shared_secret(&Secret::new(bytes.clone())).unwrap_err();
        assert!(refused.0.contains("public key"), "{shown}: {refused}");
        let encoded = crate::token::json::encode_base64url(&bytes);
        let oct = parse(&[json!({ "kty": "oct", "kid": "a", "k": encoded })], Trust::File).unwrap_err();
        assert!(oct.contains("public key"), "{shown}: {oct}");
    }
    // What people use as secrets is none of that.
    let random = base64::engine::general_purpose::STANDARD.encode([7; 48]);
    for secret in [
        &*random,
        "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.",
        &"0".repeat(50),
        "{\"a\": \"secret that looks like JSON\"}",
        &standard.encode([0x30; 48]),
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A begins like a key and is none",
    ] {
        assert!(KeySet::shared_secret(&Secret::new(secret.as_bytes().to_vec())).is_ok(), "{secret}");
    }
}
