//! The ways in which issuers are configured, each with a gateway that runs so, and the suite against all of them.

use serde_json::{Value, json};

use super::all;
use super::check::{Depth, check};
use super::forge::{Forge, encode};
use crate::harness::{Builder, Doorward, Issuer, Upstream, doorward, now};

/// The secret of those set-ups that have one.
const SECRET: &str = "a shared secret, long enough: 4711 and 0815 and more";

/// A running gateway and the keys of everybody whom it believes.
pub(super) struct SetUp {
    pub(super) running: Doorward,
    pub(super) upstream: Upstream,
    /// Another issuer, whose administrators may ask what was decided.
    pub(super) keeper: Issuer,
    issuers: Vec<Accepted>,
    /// The private members of doorward's own key.
    private: Vec<String>,
}

/// One issuer.
struct Accepted {
    keys: Vec<Issuer>,
    own: bool,
    nameless: bool,
    unnamed: bool,
}

impl Accepted {
    fn foreign(keys: Vec<Issuer>) -> Self {
        Self { keys, own: false, nameless: false, unnamed: false }
    }
}

impl SetUp {
    /// One gateway of issuers; `own` is the algorithm of doorward's own keys, if they are among them.
    fn start(builder: Builder, own: Option<&str>, mut issuers: Vec<Accepted>) -> Self {
        let upstream = Upstream::echo();
        let keeper = Issuer::hs256().named("keeper").key_id("keeper");
        let mut builder = builder;
        if let Some(algorithm) = own {
            builder = builder.own_issuer(algorithm);
        }
        // The only issuer that may be there without `iss` is the only one.
        let alone = issuers.iter().any(|issuer| issuer.unnamed);
        if !alone {
            builder = builder.issuer_with(&keeper, &[("admin", true.into())]);
        }
        let running = builder.upstream(&upstream).setting("log.level", "trace").start();
        let mut private = Vec::new();
        if own.is_some() {
            let file = std::fs::read(running.path("data/local-keys.jwks.json")).unwrap();
            let file: Value = serde_json::from_slice(&file).unwrap();
            let members = ["d", "p", "q", "dp", "dq", "qi"].map(|name| file["keys"][0][name].as_str());
            private.extend(members.into_iter().flatten().map(str::to_owned));
            assert!(!private.is_empty());
            let mut key = Issuer::from_private_jwk(&file["keys"][0]);
            key.url = "http://127.0.0.1:8001".into();
            issuers.push(Accepted { own: true, ..Accepted::foreign(vec![key]) });
        }
        Self { running, upstream, keeper, issuers, private }
    }

    /// A forge for each key of each issuer.
    pub(super) fn forges(&self) -> Vec<Forge<'_>> {
        let mut forges = Vec::new();
        for (place, issuer) in self.issuers.iter().enumerate() {
            let strangers = self.issuers.iter().enumerate().filter(|(other, _)| *other != place);
            let others: Vec<&Issuer> = strangers.flat_map(|(_, other)| &other.keys).collect();
            forges.extend(issuer.keys.iter().map(|victim| Forge {
                victim,
                own: issuer.own,
                keys: &issuer.keys,
                others: others.clone(),
                nameless: issuer.nameless,
                unnamed: issuer.unnamed,
            }));
        }
        forges
    }

    /// The token of somebody who may see every decision.
    pub(super) fn auditor(&self) -> String {
        match self.issuers.as_slice() {
            [only] if only.unnamed => {
                let claims = json!({"sub": "auditor", "roles": ["ROLE_SUPER_ADMIN"], "exp": now() + 600});
                only.keys[0].sign_text(r#"{"alg":"HS256"}"#, claims.to_string())
            }
            _ => self.keeper.with_roles("auditor", &["ROLE_SUPER_ADMIN"]),
        }
    }

    /// Spellings of secrets and private keys that no output may hold.
    pub(super) fn secrets(&self) -> Vec<String> {
        let keys = self.issuers.iter().flat_map(|issuer| &issuer.keys).chain([&self.keeper]);
        let mut secrets = self.private.clone();
        for key in keys {
            if let Some(secret) = key.secret() {
                secrets.extend([encode(secret), String::from_utf8_lossy(secret).into_owned()]);
            }
        }
        secrets
    }

    /// Every family against every key of every issuer.
    fn suite(&self) {
        let mut depth = Depth::Everywhere;
        for forge in self.forges() {
            let name = format!("{} of {}", forge.victim.algorithm, forge.victim.name);
            let heard = self.upstream.count();
            let good = forge.claim("sub", "alice");
            assert_eq!(self.running.get_as("/items", &good).status, 200, "{name}: what the others are made of is good");
            assert_eq!(self.upstream.count(), heard + 1);
            let cases = all(&forge);
            eprintln!("{name}: {} forged tokens", cases.len());
            assert!(cases.len() >= 500, "{name}: {}", cases.len());
            check(self, &cases, std::mem::replace(&mut depth, Depth::Gateway));
            assert_eq!(self.running.get_as("/items", &good).status, 200, "{name}: and is good still");
        }
    }
}

pub(super) fn own(algorithm: &str) -> SetUp {
    SetUp::start(doorward(), Some(algorithm), Vec::new())
}

/// One issuer whose key set has a key of every asymmetric algorithm.
pub(super) fn several_keys() -> SetUp {
    let keys = vec![
        Issuer::rs256().named("several").key_id("k-rsa"),
        Issuer::es256().named("several").key_id("k-ec"),
        Issuer::eddsa().named("several").key_id("k-ed"),
    ];
    let builder = with_key_set(doorward(), &keys, "several.jwks.json");
    SetUp::start(builder, None, vec![Accepted::foreign(keys)])
}

fn with_key_set(builder: Builder, keys: &[Issuer], file: &str) -> Builder {
    let set: Vec<Value> = keys.iter().map(|key| key.jwks()["keys"][0].clone()).collect();
    let algorithms: Vec<&str> = keys.iter().map(|key| key.algorithm).collect();
    let more = [("algorithms", algorithms.into()), ("keys", format!("jwks+file://{file}").into())];
    builder.file(file, json!({ "keys": set }).to_string()).issuer_with(&keys[0], &more)
}

fn secret() -> SetUp {
    let key = Issuer::shared_secret(SECRET).named("secret").key_id("");
    let builder = doorward().env("JWT_SECRET_KEY", SECRET).issuer_with(&key, &[("keys", "secret".into())]);
    SetUp::start(builder, None, vec![Accepted { nameless: true, ..Accepted::foreign(vec![key]) }])
}

/// The older services: one secret, neither `iss` nor `aud`.
fn older() -> SetUp {
    let key = Issuer::shared_secret(SECRET).named("older").key_id("");
    let mut table = toml::Table::new();
    table.insert("name".into(), "older".into());
    table.insert("keys".into(), "secret".into());
    table.insert("same_subjects".into(), true.into());
    table.insert("confers".into(), "any".into());
    table.insert("admin".into(), true.into());
    let builder = doorward().env("JWT_SECRET_KEY", SECRET).setting("auth.issuers", vec![toml::Value::from(table)]);
    SetUp::start(builder, None, vec![Accepted { nameless: true, unnamed: true, ..Accepted::foreign(vec![key]) }])
}

/// doorward's own keys, the secret, and two strangers whose keys have the same `kid`.
pub(super) fn everybody() -> SetUp {
    let (one, two) = (Issuer::rs256().named("one"), Issuer::es256().named("two"));
    let key = Issuer::shared_secret(SECRET).named("secret").key_id("");
    let builder = doorward()
        .env("JWT_SECRET_KEY", SECRET)
        .issuer(&one)
        .issuer(&two)
        .issuer_with(&key, &[("keys", "secret".into())]);
    let nameless = Accepted { nameless: true, ..Accepted::foreign(vec![key]) };
    let foreign = [one, two].map(|issuer| Accepted::foreign(vec![issuer]));
    SetUp::start(builder, Some("EdDSA"), foreign.into_iter().chain([nameless]).collect())
}

#[test]
fn forged_tokens_of_doorwards_own_eddsa_key() {
    own("EdDSA").suite();
}

#[test]
fn forged_tokens_of_doorwards_own_es256_key() {
    own("ES256").suite();
}

#[test]
fn forged_tokens_of_doorwards_own_rs256_key() {
    own("RS256").suite();
}

#[test]
fn forged_tokens_of_an_issuer_with_several_keys() {
    several_keys().suite();
}

#[test]
fn forged_tokens_of_a_shared_secret() {
    secret().suite();
}

#[test]
fn forged_tokens_of_an_older_service_without_iss_and_aud() {
    older().suite();
}

#[test]
fn forged_tokens_where_several_issuers_are_accepted() {
    everybody().suite();
}
