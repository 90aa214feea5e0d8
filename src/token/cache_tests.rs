//! A remembered token is judged as if it were verified anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::json;

use super::{Entry, NearCache, Source, TokenCache};
use crate::clock::Timestamp;
use crate::reason::Reason;
use crate::token::fixtures::{ALL, NOW, claims, foreign, header, key, private_jwk, sign, token, with};
use crate::token::jwk::{KeySet, Trust};
use crate::token::{Algorithm, Issuer, IssuerKeys, TokenRejection, Verifier};

/// The cache as one thread sees it: its own entries in front of the shared ones.
struct Seen(TokenCache<()>, NearCache<()>);

impl Seen {
    fn authenticate(&self, token: &str, now: Timestamp) -> (Source, Result<Arc<Entry<()>>, TokenRejection>) {
        self.0.authenticate(&self.1, token, now)
    }
}

impl std::ops::Deref for Seen {
    type Target = TokenCache<()>;
    fn deref(&self) -> &TokenCache<()> {
        &self.0
    }
}

fn cache() -> Seen {
    Seen(TokenCache::new(Verifier::new(vec![foreign()]), 1 << 20), NearCache::default())
}

#[test]
fn what_one_thread_verified_another_remembers() {
    let (cache, token) = (cache(), token(&claims()));
    cache.authenticate(&token, NOW).1.unwrap();
    assert_eq!(cache.0.authenticate(&NearCache::default(), &token, NOW).0, Source::Cache);
}

#[test]
fn the_second_time_is_remembered_and_the_same() {
    let (cache, token) = (cache(), token(&claims()));
    let (first, verified) = cache.authenticate(&token, NOW);
    let (second, remembered) = cache.authenticate(&token, NOW);
    assert_eq!((first, second), (Source::Verify, Source::Cache));
    assert!(Arc::ptr_eq(&verified.unwrap(), &remembered.unwrap()));
}

#[test]
fn expiry_and_a_clock_set_back_are_seen_at_every_hit() {
    let (cache, token) = (cache(), token(&claims()));
    cache.authenticate(&token, NOW).1.unwrap();
    let (source, set_back) = cache.authenticate(&token, NOW.plus(-100));
    assert_eq!((source, set_back.unwrap_err().reason), (Source::Cache, Reason::NotYetValid));
    assert!(cache.authenticate(&token, NOW.plus(629)).1.is_ok());
    let (source, late) = cache.authenticate(&token, NOW.plus(630));
    assert_eq!((source, late.unwrap_err().reason), (Source::Cache, Reason::Expired));
    let (source, later) = cache.authenticate(&token, NOW.plus(630));
    assert_eq!((source, later.unwrap_err().reason), (Source::Verify, Reason::Expired), "the entry is gone");
}

#[test]
fn failures_are_not_remembered() {
    let (cache, token) = (cache(), token(&with(claims(), "aud", json!("other"))));
    for _ in 0..2 {
        let (source, refused) = cache.authenticate(&token, NOW);
        assert_eq!((source, refused.unwrap_err().reason), (Source::Verify, Reason::WrongAudience));
    }
}

#[test]
fn a_token_that_differs_in_its_signature_alone_is_another_token() {
    let (cache, token) = (cache(), token(&claims()));
    cache.authenticate(&token, NOW).1.unwrap();
    let last = if token.ends_with('A') { 'Q' } else { 'A' };
    let forged = format!("{}{last}", &token[..token.len() - 1]);
    assert!(cache.authenticate(&forged, NOW).1.is_err());
}

#[test]
fn withdrawn_keys_and_changed_settings_count_at_once() {
    let (cache, token) = (cache(), token(&claims()));
    cache.authenticate(&token, NOW).1.unwrap();
    let document = KeySet::generate(Algorithm::ES256).unwrap();
    let other = Arc::new(KeySet::parse(document.expose(), &ALL, Trust::File).unwrap());
    cache.publish(Verifier::new(vec![Issuer { keys: IssuerKeys::fixed(other), ..foreign() }]));
    let (source, refused) = cache.authenticate(&token, NOW);
    assert_eq!((source, refused.unwrap_err().reason), (Source::Verify, Reason::UnknownKey));
    cache.publish(Verifier::new(vec![Issuer { subject_prefix: "x:".into(), ..foreign() }]));
    assert_eq!(&*cache.authenticate(&token, NOW).1.unwrap().claims.subject, "x:alice");
}

#[test]
fn an_exchange_of_keys_is_noticed_by_the_tokens_of_those_that_went_alone() {
    let set = |kids: &[&str]| {
        let named = |kid: &&str| with(private_jwk(Algorithm::EdDSA), "kid", json!(kid));
        let document = json!({ "keys": kids.iter().map(named).collect::<Vec<_>>() });
        KeySet::parse(document.to_string().as_bytes(), &ALL, Trust::File).unwrap()
    };
    let keys = IssuerKeys::fixed(set(&["a", "b"]));
    let other = Issuer { name: "b".into(), issuer: Some("https://b.example".into()), ..foreign() };
    let issuers = vec![Issuer { keys: Arc::clone(&keys), ..foreign() }, other];
    let cache = Seen(TokenCache::new(Verifier::new(issuers), 1 << 20), NearCache::default());
    let by = |kid: &str, iss: &str| {
        let (header, claims) = (with(header(Algorithm::EdDSA), "kid", json!(kid)), with(claims(), "iss", json!(iss)));
        sign(&header.to_string(), &claims.to_string(), key(&set(&["any"]), Algorithm::EdDSA))
    };
    let ours = ["a", "b"].map(|kid| by(kid, "https://kc.example"));
    let theirs = by("EdDSA", "https://b.example");
    let sources = || [&ours[0], &ours[1], &theirs].map(|token| cache.authenticate(token, NOW).0);
    assert_eq!(sources(), [Source::Verify; 3]);
    // What was only confirmed, or joined by another key, forgets nothing.
    keys.publish(set(&["b", "a"]), Some(NOW.plus(60)));
    keys.publish(set(&["b", "a", "c"]), Some(NOW.plus(60)));
    assert_eq!(sources(), [Source::Cache; 3]);
    keys.publish(set(&["b", "c"]), Some(NOW.plus(60)));
    assert_eq!(cache.authenticate(&ours[0], NOW).1.unwrap_err().reason, Reason::UnknownKey);
    assert_eq!(sources(), [Source::Verify, Source::Cache, Source::Cache]);
    // T18: nobody knows any more whether the key is still one. That is not the bearer's fault, and passes.
    let late = NOW.plus(60);
    assert_eq!(cache.authenticate(&ours[1], late).1.unwrap_err().reason, Reason::AuthUnavailable);
    assert!(cache.authenticate(&theirs, late).1.is_ok(), "the other issuer's tokens do not notice");
    keys.publish(set(&["b", "c"]), Some(NOW.plus(120)));
    assert!(cache.authenticate(&ours[1], late).1.is_ok());
}

#[test]
fn t20_a_token_of_a_retired_key_has_expired_and_one_of_a_withdrawn_key_is_refused() {
    let set = |kids: &[&str], until: Option<Timestamp>| {
        let keys: Vec<_> = kids.iter().map(|kid| with(private_jwk(Algorithm::EdDSA), "kid", json!(kid))).collect();
        let mut document = json!({ "keys": keys });
        if let Some(until) = until {
            document["keys"][0]["doorward:verifies_until"] = until.0.into();
        }
        KeySet::parse(document.to_string().as_bytes(), &ALL, Trust::File).unwrap()
    };
    let until = NOW.plus(300);
    let token = |kid: &str| {
        let header = with(header(Algorithm::EdDSA), "kid", json!(kid));
        sign(&header.to_string(), &claims().to_string(), key(&set(&["any"], None), Algorithm::EdDSA))
    };
    let again = |cache: &Seen, entry: &Entry<()>, now| {
        cache.authenticate_again(&cache.1, entry, now).map(drop).map_err(|rejection| rejection.reason)
    };
    // Opened before the rotation, and before the time was written beside the key.
    let keys = IssuerKeys::fixed(set(&["a", "b"], None));
    let issuer = Issuer { keys: Arc::clone(&keys), ..foreign() };
    let cache = Seen(TokenCache::new(Verifier::new(vec![issuer]), 1 << 20), NearCache::default());
    let opened = ["a", "b"].map(|kid| cache.authenticate(&token(kid), NOW).1.unwrap());
    keys.publish(set(&["a", "b"], Some(until)), None);
    assert_eq!(again(&cache, &opened[0], until.plus(-1)), Ok(()));
    assert_eq!(again(&cache, &opened[0], until), Err(Reason::Expired), "it expired at the latest then");
    assert_eq!(
        cache.authenticate(&token("a"), until).1.unwrap_err().reason,
        Reason::UnknownKey,
        "at the door it is gone"
    );
    // The next rotation drops it from the file.
    keys.publish(set(&["b"], None), None);
    assert_eq!(again(&cache, &opened[0], until), Err(Reason::Expired));
    assert_eq!(again(&cache, &opened[0], until.plus(-1)), Err(Reason::UnknownKey), "before its time it was withdrawn");
    // One that goes without ever having had a time was withdrawn.
    keys.publish(set(&["c"], None), None);
    assert_eq!(again(&cache, &opened[1], until), Err(Reason::UnknownKey));
    assert_eq!(again(&cache, &opened[1], NOW.plus(9999)), Err(Reason::UnknownKey));
    // Another key under the name of one says nothing of it.
    let mut other = with(
        json!({ "keys": [] }),
        "keys",
        json!([KeySet::generate(Algorithm::EdDSA)
            .map(|made| { serde_json::from_slice::<serde_json::Value>(made.expose()).unwrap()["keys"][0].clone() })
            .unwrap()]),
    );
    (other["keys"][0]["kid"], other["keys"][0]["doorward:verifies_until"]) = ("c".into(), until.0.into());
    let opened = cache.authenticate(&token("c"), NOW).1.unwrap();
    keys.publish(KeySet::parse(other.to_string().as_bytes(), &ALL, Trust::File).unwrap(), None);
    assert_eq!(again(&cache, &opened, until), Err(Reason::UnknownKey));
}

#[test]
fn it_is_bounded_by_bytes() {
    let cache = Seen(TokenCache::new(Verifier::new(vec![foreign()]), 64 * 1024), NearCache::default());
    for n in 0..500 {
        cache.authenticate(&token(&with(claims(), "jti", json!(n.to_string()))), NOW).1.unwrap();
    }
    cache.generation.load().entries.run_pending_tasks();
    let (count, bytes) = (cache.entry_count(), cache.generation.load().entries.weighted_size());
    assert!(count > 0 && count < 60 && bytes <= 64 * 1024, "{count} entries, {bytes} bytes");
    assert!(!format!("{:?}", cache.0).contains("eyJ"), "Debug shows no token");
}

/// `cargo test --lib token:: -- --ignored --nocapture`; tests/bench/token.rs measures it properly.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "a measurement")]
fn measure_a_hit() {
    let cache = Seen(TokenCache::new(Verifier::new(vec![foreign()]), 64 << 20), NearCache::default());
    let tokens: Vec<String> = (0..1000).map(|n| token(&with(claims(), "jti", json!(format!("{n:0>300}"))))).collect();
    for token in &tokens {
        cache.authenticate(token, NOW).1.unwrap();
    }
    let round = || {
        let started = std::time::Instant::now();
        assert!(tokens.iter().all(|token| cache.authenticate(token, NOW).0 == Source::Cache));
        started.elapsed() / 1000
    };
    let best = (0..200).map(|_| round()).min().unwrap();
    eprintln!("measured: a hit among 1,000 tokens of {} bytes {best:?}", tokens[0].len());
}
