//! Keys behind a URL and in files, as they change, fail and come back while requests are served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::key_server::{KeyServer, Keys, set_of};
use crate::harness::tls::Certificate;
use crate::harness::{Behaviour, Builder, Doorward, Issuer, Upstream, doorward, eventually};

const LONG: Duration = Duration::from_secs(30);

/// A second key of the issuer that [`Issuer::eddsa`] and its like are.
fn second() -> Issuer {
    Issuer::es256().key_id("k2")
}

/// doorward, whose one issuer has its keys at this server.
fn at(server: &KeyServer, upstream: &Upstream, more: &[(&str, &str)]) -> Builder {
    let mut jwks: toml::Table =
        more.iter().map(|(key, value)| ((*key).to_owned(), toml::Value::from(*value))).collect();
    if !server.authority.is_empty() {
        jwks.insert("ca".into(), "ca.pem".into());
    }
    let algorithms = vec!["EdDSA", "ES256", "RS256"];
    let table: Vec<(&str, toml::Value)> =
        vec![("keys", server.url().into()), ("algorithms", algorithms.into()), ("jwks", jwks.into())];
    doorward().issuer_with(&Issuer::eddsa(), &table).file("ca.pem", server.authority.clone()).upstream(upstream)
}

fn status(doorward: &Doorward, token: &str) -> u16 {
    doorward.get_as("/items", token).status
}

fn reason(doorward: &Doorward, token: &str) -> String {
    let response = doorward.get_as("/items", token);
    serde_json::from_str::<Value>(&response.text()).unwrap()["reason"].as_str().unwrap_or_default().to_owned()
}

fn becomes(doorward: &Doorward, token: &str, wanted: u16) {
    eventually(&format!("the token is {wanted}"), LONG, || (status(doorward, token) == wanted).then_some(()));
}

#[test]
fn keys_come_over_tls_and_from_whoever_has_the_certificate_alone() {
    let (issuer, upstream) = (Issuer::rs256(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&issuer])));
    let running = at(&server, &upstream, &[("timeout", "10s")]).start();
    assert_eq!(status(&running, &issuer.viewer()), 200, "the first answer is waited for");
    assert!(running.metric("doorward_jwks_age_seconds", &["issuer=\"test\""]) < 60.0);
    assert_eq!(running.metric("doorward_jwks_fetches_total", &["result=\"changed\""]), 1.0);
    // A certificate of another authority, and one of another name.
    let stranger = KeyServer::start(Keys::Set(set_of(&[&issuer])));
    let named = KeyServer::with(Keys::Set(set_of(&[&issuer])), Some(Certificate::for_names(&["kc.test"])));
    for (server, authority) in [(&stranger, server.authority.clone()), (&named, named.authority.clone())] {
        let running = at(server, &upstream, &[]).file("ca.pem", authority).start();
        assert_eq!(reason(&running, &issuer.viewer()), "auth_unavailable");
        assert_eq!(server.asked(), 0);
        eventually("it is told", LONG, || running.stdout().contains("its tokens are answered with 503").then_some(()));
        let failing = || running.metric("doorward_jwks_failing", &["issuer=\"test\""]);
        eventually("it is counted", LONG, || (failing() == 1.0).then_some(()));
    }
}

#[test]
fn a_start_without_the_issuer_serves_everybody_elses_tokens_and_its_own_once_it_answers() {
    let (late, other, upstream) = (Issuer::eddsa(), Issuer::es256().named("other"), Upstream::start(Behaviour::Echo));
    let server = KeyServer::plain(Keys::Gone);
    let running = at(&server, &upstream, &[("cool_down", "1s")]).issuer(&other).start();
    let response = running.get_as("/items", &late.viewer());
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(reason(&running, &late.viewer()), "auth_unavailable");
    assert_eq!(status(&running, &other.viewer()), 200);
    assert!(running.metric("doorward_jwks_age_seconds", &["issuer=\"test\""]).is_infinite());
    server.say(Keys::Set(set_of(&[&late])));
    becomes(&running, &late.viewer(), 200);
}

#[test]
fn a_slow_issuer_holds_up_the_start_for_a_bounded_time_and_no_request_at_all() {
    let (issuer, other, upstream) = (Issuer::eddsa(), Issuer::es256().named("other"), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Silent(Duration::from_mins(5)));
    let running = at(&server, &upstream, &[("timeout", "1s"), ("cool_down", "1s")]).issuer(&other).start();
    let begun = Instant::now();
    assert_eq!(reason(&running, &issuer.viewer()), "auth_unavailable");
    assert_eq!(status(&running, &other.viewer()), 200);
    assert!(begun.elapsed() < Duration::from_mins(2));
    eventually("the fetch is given up", LONG, || running.stdout().contains("it took too long").then_some(()));
    server.say(Keys::Set(set_of(&[&issuer])));
    becomes(&running, &issuer.viewer(), 200);
}

#[test]
fn wrong_answers_are_refused_and_leave_the_old_keys_in_force() {
    let (issuer, upstream) = (Issuer::eddsa(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&issuer])));
    let times = [("refresh", "100ms"), ("cool_down", "50ms"), ("timeout", "5s"), ("max_bytes", "4KiB")];
    let running = at(&server, &upstream, &times).start();
    let token = issuer.viewer();
    let key = set_of(&[&issuer])["keys"][0].clone();
    let mut private = key.clone();
    private["d"] = "AAAA".into();
    let plain = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let headed = |head: &str| Keys::Raw(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").into_bytes());
    let gzip = Keys::SetWith(set_of(&[&issuer]), "content-encoding: gzip\r\n");
    let wrong = [
        (Keys::Raw(plain("<html>we are down for maintenance</html>")), "the key set"),
        (Keys::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"keys\": [".to_vec()), "broke off"),
        (headed("500 Internal Server Error"), "the answer is 500"),
        (headed("302 Found\r\nlocation: https://127.0.0.1:1/"), "redirects are not followed"),
        (headed("204 No Content"), "the answer is 204"),
        (Keys::Endless, "longer than 4096 bytes"),
        (gzip, "encoded"),
        (Keys::Set(json!({ "keys": [key, key] })), "same kid"),
        (Keys::Set(json!({ "keys": [private] })), "anybody can sign"),
        (
            Keys::Set(json!({ "keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}] })),
            "anybody can sign",
        ),
        (Keys::Set(json!({ "keys": [] })), "no key to verify with"),
        (Keys::Set(json!({ "keys": [{"kty": "EC", "crv": "P-384", "kid": "x"}] })), "no key to verify with"),
        (Keys::Silent(Duration::from_mins(1)), "took too long"),
        (Keys::Gone, ""),
    ];
    for (answer, why) in wrong {
        let told =
            |text: &str| text.lines().filter(|line| line.contains("stay in force") && line.contains(why)).count();
        let (before, asked) = (told(&running.stdout()), server.asked());
        server.say(answer.clone());
        eventually(&format!("{answer:?} is refused for {why:?}"), LONG, || {
            assert_eq!(status(&running, &token), 200, "{answer:?}");
            (told(&running.stdout()) > before && server.asked() > asked).then_some(())
        });
        assert_eq!(running.metric("doorward_jwks_failing", &[]), 1.0);
    }
    // Keys of other kinds beside a usable one are somebody else's business.
    server.say(Keys::Set(json!({ "keys": [{"kty": "EC", "crv": "P-384", "kid": "x"}, second().jwks()["keys"][0]] })));
    becomes(&running, &token, 401);
    let failing = || running.metric("doorward_jwks_failing", &[]);
    eventually("nothing fails any more", LONG, || (failing() == 0.0).then_some(()));
}

#[test]
fn t18_keys_outlive_an_outage_up_to_their_age_and_then_nobody_is_let_through() {
    let (issuer, other, upstream) = (Issuer::eddsa(), Issuer::es256().named("other"), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&issuer])));
    let times = [("refresh", "200ms"), ("max_age", "6s"), ("cool_down", "200ms"), ("timeout", "1s")];
    let running = at(&server, &upstream, &times).issuer(&other).start();
    let (token, fresh) = (issuer.viewer(), issuer.viewer());
    becomes(&running, &token, 200);
    // Two fetches that succeed: the second of them began after this, and so the age of the keys counts from here at the most.
    let outage = Instant::now();
    let succeeded = || running.metric("doorward_jwks_fetches_total", &["issuer=\"test\"", "result=\"unchanged\""]);
    let before = succeeded();
    eventually("the keys are fresh", LONG, || (succeeded() >= before + 2.0).then_some(()));
    server.say(Keys::Gone);
    let failing = || running.metric("doorward_jwks_failing", &["issuer=\"test\""]) == 1.0;
    eventually("the outage is seen", LONG, || failing().then_some(()));
    let early = status(&running, &token);
    if outage.elapsed() < Duration::from_secs(4) {
        assert_eq!(early, 200, "the old keys stay, up to their age");
    }
    becomes(&running, &token, 503);
    // Neither what is remembered nor what is new is let through, and it is not the bearer's fault.
    for token in [&token, &fresh] {
        assert_eq!(reason(&running, token), "auth_unavailable");
    }
    assert_eq!(status(&running, &other.viewer()), 200);
    assert!(running.metric("doorward_jwks_age_seconds", &["issuer=\"test\""]) >= 5.0);
    server.say(Keys::Set(set_of(&[&issuer])));
    becomes(&running, &token, 200);
}

#[test]
fn t18_a_withdrawn_key_is_refused_and_a_new_one_found_at_once() {
    let (old, new, upstream) = (Issuer::eddsa(), second(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&old])));
    let running = at(&server, &upstream, &[("cool_down", "1s")]).start();
    let (token, remembered) = (new.viewer(), old.viewer());
    assert_eq!(status(&running, &remembered), 200);
    server.say(Keys::Set(set_of(&[&new])));
    // No request waits for the fetch that it causes.
    assert_eq!(reason(&running, &token), "unknown_key");
    becomes(&running, &token, 200);
    assert_eq!(server.asked(), 2);
    assert_eq!(reason(&running, &remembered), "unknown_key", "a remembered token of a withdrawn key");
}

#[test]
fn the_first_unknown_kid_is_looked_for_at_once_and_no_other_within_the_cool_down() {
    let (old, new, upstream) = (Issuer::eddsa(), second(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&old])));
    let running = at(&server, &upstream, &[("cool_down", "4m")]).start();
    assert_eq!((status(&running, &old.viewer()), server.asked()), (200, 1));
    // A key that signs a moment after the start. Its token is not the last to be refused only after a cool-down.
    server.say(Keys::Set(set_of(&[&old, &new])));
    becomes(&running, &new.viewer(), 200);
    assert_eq!(server.asked(), 2);
    for _ in 0..100 {
        let stranger = old.token().header("kid", uuid::Uuid::new_v4().to_string()).sign();
        assert_eq!(reason(&running, &stranger), "unknown_key");
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.asked(), 2, "one that an unknown kid causes in a cool-down");
}

#[test]
fn ten_thousand_random_kids_cost_one_fetch_a_cool_down_and_valid_tokens_do_not_notice() {
    let (issuer, upstream) = (Issuer::eddsa(), Upstream::start(Behaviour::Echo));
    let other = Issuer::es256().named("other");
    let (server, bystander) =
        (KeyServer::start(Keys::Set(set_of(&[&issuer]))), KeyServer::plain(Keys::Set(set_of(&[&other]))));
    let table: &[(&str, toml::Value)] = &[("keys", bystander.url().into())];
    let running = at(&server, &upstream, &[("cool_down", "5s")]).issuer_with(&other, table).start();
    let begun = Instant::now();
    let (left, good) = (AtomicUsize::new(10_000), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let strangers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = running.connect();
                    while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                        let kid = uuid::Uuid::new_v4().to_string();
                        let token = issuer.token().header("kid", kid).sign();
                        let response = connection
                            .send(format!(
                                "GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"
                            ))
                            .response();
                        assert_eq!(response.status, 401, "{response:?}");
                    }
                })
            })
            .collect();
        for issuer in [&issuer, &other] {
            let (running, done, good) = (&running, &done, &good);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(status(running, &issuer.viewer()), 200);
                    good.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for stranger in strangers {
            stranger.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    let asked = server.asked();
    let cool_downs = begun.elapsed().as_secs() as usize / 5;
    assert!(asked <= 2 + cool_downs, "{asked} fetches in {:?}", begun.elapsed());
    assert_eq!(bystander.asked(), 1, "a stranger's kid is one issuer's work at the most");
    assert!(good.load(Ordering::SeqCst) > 0);
    assert_eq!(running.metric("doorward_jwks_unknown_kids_total", &["issuer=\"test\""]), 10_000.0);
    assert_eq!(running.metric("doorward_jwks_unknown_kids_total", &["issuer=\"other\""]), 0.0);
}

#[test]
fn a_kid_that_stays_unknown_is_asked_about_rarely() {
    let (issuer, upstream) = (Issuer::eddsa(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&issuer])));
    let running = at(&server, &upstream, &[("cool_down", "100ms")]).start();
    let dead = issuer.token().header("kid", "of a key that is gone").sign();
    assert_eq!(status(&running, &dead), 401);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(status(&running, &dead), 401);
    }
    eventually("it is asked about at all", LONG, || {
        assert_eq!(status(&running, &dead), 401);
        (server.asked() >= 3).then_some(())
    });
    // At the start, at once, and then after 100, 200, 400 and 800 ms more: not once each 100 ms. Where the machine stood
    // still it is once more each time that the whole time doubles.
    let asked = server.asked();
    let more_than = |times: &u32| begun.elapsed() >= Duration::from_millis(3_200) * 2_u32.pow(*times);
    let doubled = (0..16).take_while(more_than).count();
    assert!(asked <= 7 + doubled, "{asked} fetches in {:?}", begun.elapsed());
}

#[test]
fn a_kid_that_was_asked_about_too_early_is_found_once_it_is_published() {
    let (old, new, upstream) = (Issuer::eddsa(), second(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&old])));
    let running = at(&server, &upstream, &[("cool_down", "1s")]).start();
    let early = new.viewer();
    assert_eq!(reason(&running, &early), "unknown_key");
    eventually("it is asked about", LONG, || (server.asked() == 2).then_some(()));
    assert_eq!(reason(&running, &early), "unknown_key");
    server.say(Keys::Set(set_of(&[&old, &new])));
    becomes(&running, &early, 200);
    assert_eq!(status(&running, &old.viewer()), 200);
    assert_eq!(running.metric("doorward_jwks_fetches_total", &["result=\"changed\""]), 2.0);
}

#[test]
fn one_unfit_key_of_a_set_is_passed_over_and_told_once() {
    let (issuer, upstream) = (Issuer::eddsa(), Upstream::start(Behaviour::Echo));
    let mut set = set_of(&[&issuer]);
    let unfit = json!({"kty": "RSA", "kid": "too short", "n": "wcHBwcHB", "e": "AQAB"});
    set["keys"].as_array_mut().unwrap().insert(0, unfit);
    let server = KeyServer::start(Keys::Set(set));
    let running = at(&server, &upstream, &[("refresh", "100ms"), ("cool_down", "50ms")]).start();
    assert_eq!(status(&running, &issuer.viewer()), 200);
    eventually("refreshes", LONG, || (server.asked() > 5).then_some(()));
    let out = running.stdout();
    let told: Vec<_> = out.lines().filter(|line| line.contains("passed over")).collect();
    assert_eq!(told.len(), 1, "{out}");
    assert!(told[0].contains("too short") && told[0].contains("2,048 bits"), "{}", told[0]);
    assert_eq!(running.metric("doorward_jwks_failing", &["issuer=\"test\""]), 0.0);
}

#[test]
fn a_saved_set_with_keys_of_other_algorithms_is_taken_without_them_and_they_are_told() {
    let (issuer, other, upstream) = (Issuer::rs256(), second(), Upstream::start(Behaviour::Echo));
    let encryption = json!({"kty": "RSA", "kid": "enc", "alg": "RSA-OAEP", "use": "enc", "n": "wcHBwcHB", "e": "AQAB"});
    let mut set = set_of(&[&other, &issuer]);
    set["keys"].as_array_mut().unwrap().push(encryption);
    let table: &[(&str, toml::Value)] = &[("keys", "jwks+file://saved.json".into())];
    let with =
        |set: &Value| doorward().issuer_with(&issuer, table).upstream(&upstream).file("saved.json", set.to_string());
    let running = with(&set).start();
    assert_eq!((status(&running, &issuer.viewer()), status(&running, &other.viewer())), (200, 401));
    let told =
        || running.stdout().lines().filter(|line| line.contains("passed over")).map(str::to_owned).collect::<Vec<_>>();
    let line = eventually("it is told", LONG, || told().pop());
    assert!(line.contains("saved.json") && line.contains("k2") && line.contains("ES256"), "{line}");
    // Once, and not again when the file is read.
    std::fs::write(running.path("saved.json"), set_of(&[&other, &issuer]).to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(told().len(), 1, "{:?}", told());
    // A set of other algorithms alone is a mistake.
    let failed = with(&set_of(&[&other])).fails();
    assert!(failed.stderr.contains("saved.json") && failed.stderr.contains("k2"), "{}", failed.stderr);
}

#[test]
fn rotation_under_load_fails_no_request() {
    let (first, next, upstream) = (Issuer::eddsa(), second(), Upstream::start(Behaviour::Echo));
    let other = Issuer::es256().named("other");
    let server = KeyServer::start(Keys::Set(set_of(&[&first])));
    let running = at(&server, &upstream, &[("refresh", "100ms"), ("cool_down", "50ms")]).issuer(&other).start();
    let (switched, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let ask = |pick: &dyn Fn() -> String| {
            let mut connection = running.connect();
            while !done.load(Ordering::SeqCst) {
                let token = pick();
                let request = format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n");
                assert_eq!(connection.send(request).response().status, 200);
                served.fetch_add(1, Ordering::SeqCst);
            }
        };
        let (first, next, switched, other) = (&first, &next, &switched, &other);
        let kept = first.viewer();
        scope.spawn(move || ask(&|| if switched.load(Ordering::SeqCst) { next.viewer() } else { first.viewer() }));
        scope.spawn(move || ask(&|| kept.clone()));
        scope.spawn(move || ask(&|| other.viewer()));
        let settle = |what: &str, keys: f64| {
            eventually(what, LONG, || {
                (running.metric("doorward_jwks_fetches_total", &["issuer=\"test\"", "result=\"changed\""]) >= keys)
                    .then_some(())
            });
        };
        settle("the first set", 1.0);
        // As it is done well: the next key is published before it signs, and the old one stays until its tokens are dead.
        server.say(Keys::Set(set_of(&[next, first])));
        settle("both keys", 2.0);
        switched.store(true, Ordering::SeqCst);
        let reached = served.load(Ordering::SeqCst) + 200;
        eventually("requests under the next key", LONG, || (served.load(Ordering::SeqCst) > reached).then_some(()));
        done.store(true, Ordering::SeqCst);
    });
    let hits = running.metric("doorward_token_cache_hits_total", &[]);
    assert!(hits > 0.0, "what is remembered outlives the rotation");
}

#[test]
fn refreshes_that_find_nothing_new_forget_nothing() {
    let (issuer, upstream) = (Issuer::eddsa(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::Set(set_of(&[&issuer])));
    let running = at(&server, &upstream, &[("refresh", "50ms"), ("cool_down", "20ms")]).start();
    let token = issuer.viewer();
    assert_eq!(status(&running, &token), 200);
    let misses = running.metric("doorward_token_cache_misses_total", &[]);
    eventually("refreshes", LONG, || (server.asked() > 5).then_some(()));
    assert_eq!(status(&running, &token), 200);
    assert_eq!(running.metric("doorward_token_cache_misses_total", &[]), misses);
    assert_eq!(running.metric("doorward_jwks_fetches_total", &["result=\"changed\""]), 1.0);
}

#[test]
fn a_shorter_life_that_the_issuer_names_is_heeded() {
    let (issuer, upstream) = (Issuer::eddsa(), Upstream::start(Behaviour::Echo));
    let server = KeyServer::start(Keys::SetWith(set_of(&[&issuer]), "cache-control: public, max-age=1\r\n"));
    let _running = at(&server, &upstream, &[("cool_down", "100ms")]).start();
    eventually("a refresh ahead of the five minutes", LONG, || (server.asked() > 2).then_some(()));
}

#[test]
fn a_key_set_in_a_file_is_followed_and_a_bad_one_leaves_the_old_in_force() {
    let (first, next, upstream) = (Issuer::eddsa(), second(), Upstream::start(Behaviour::Echo));
    let algorithms: toml::Value = vec!["EdDSA", "ES256"].into();
    let running = doorward().issuer_with(&first, &[("algorithms", algorithms)]).upstream(&upstream).start();
    let file = running.path("keys0.json");
    assert_eq!((status(&running, &first.viewer()), status(&running, &next.viewer())), (200, 401));
    std::fs::write(&file, "{\"keys\": [").unwrap();
    eventually("the bad file is told", LONG, || {
        (running.metric("doorward_jwks_failing", &["issuer=\"test\""]) == 1.0).then_some(())
    });
    assert_eq!(status(&running, &first.viewer()), 200);
    std::fs::write(&file, set_of(&[&next]).to_string()).unwrap();
    becomes(&running, &next.viewer(), 200);
    assert_eq!(reason(&running, &first.viewer()), "unknown_key");
    let failing = || running.metric("doorward_jwks_failing", &["issuer=\"test\""]);
    eventually("nothing fails any more", LONG, || (failing() == 0.0).then_some(()));
    assert!(running.stdout().contains("the old ones stay in force"));
}
