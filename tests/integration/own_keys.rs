//! doorward's own keys: one after another, in an emergency, and where there is no key file.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::harness::redis::redis;
use crate::harness::{Behaviour, Doorward, Issuer, Upstream, doorward, eventually};

const LONG: Duration = Duration::from_secs(30);

/// Runs a command with the running process's configuration.
fn doorward_cli(running: &Doorward, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).arg("--config").arg(running.path("doorward.toml")).current_dir(running.path(""));
    command.env_clear().output().unwrap()
}

fn said(running: &Doorward, arguments: &[&str]) -> String {
    let output = doorward_cli(running, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn mint(running: &Doorward) -> String {
    said(running, &["token", "mint", "--sub", "u-1", "--role", "ROLE_VIEWER"])
}

fn json(running: &Doorward, arguments: &[&str]) -> Value {
    serde_json::from_str(&said(running, arguments)).unwrap()
}

fn states(running: &Doorward) -> Vec<String> {
    let listed = json(running, &["keys", "list", "--output", "json"]);
    listed["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

fn kid_of(token: &str) -> String {
    use base64::Engine as _;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn status(running: &Doorward, token: &str) -> u16 {
    running.get_as("/items", token).status
}

fn published(running: &Doorward) -> Vec<String> {
    let answer = running.admin_request("GET", "/.well-known/jwks.json", None, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let set: Value = serde_json::from_str(&answer.text()).unwrap();
    let keys = set["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key.get("d").is_none()), "{set}");
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_rotation_is_published_followed_and_noticed_by_no_token() {
    let upstream = Upstream::start(Behaviour::Echo);
    let rotates = |algorithm: &str| {
        let running = doorward().own_issuer(algorithm).upstream(&upstream).start();
        let old = mint(&running);
        assert_eq!(status(&running, &old), 200);
        assert_eq!(published(&running), [kid_of(&old)]);
        let next = said(&running, &["keys", "rotate", "--overlap", "12s"]);
        assert_eq!(states(&running), ["signing", "next"]);
        eventually("the next key is published", LONG, || published(&running).contains(&next).then_some(()));
        let refused = doorward_cli(&running, &["keys", "rotate"]);
        assert_eq!(refused.status.code(), Some(1), "one waits already");
        let new = eventually("the next key signs", LONG, || {
            let token = mint(&running);
            assert_eq!(status(&running, &token), 200);
            (kid_of(&token) == next).then_some(token)
        });
        assert_eq!((status(&running, &old), status(&running, &new)), (200, 200));
        assert_eq!(states(&running), ["retiring", "signing"]);
        assert_eq!(published(&running).len(), 2);
        assert!(running.metric("doorward_token_cache_hits_total", &[]) >= 1.0);
    };
    // Side by side, so that the overlap can be longer than a machine stands still before the next key is looked at.
    std::thread::scope(|scope| {
        for algorithm in ["EdDSA", "ES256", "RS256"] {
            let rotates = &rotates;
            scope.spawn(move || rotates(algorithm));
        }
    });
}

#[test]
fn t18_a_revoked_key_is_refused_at_once_signs_nothing_more_and_stays_revoked() {
    let upstream = Upstream::start(Behaviour::Echo);
    let mut running = doorward().own_issuer("EdDSA").upstream(&upstream).start();
    let leaked = mint(&running);
    assert_eq!(status(&running, &leaked), 200);
    said(&running, &["revoke", "--key", &kid_of(&leaked)]);
    assert_eq!(running.get_as("/items", &leaked).denial(), (401, "revoked".into()));
    eventually("nobody signs with it", LONG, || {
        let refused = doorward_cli(&running, &["token", "mint", "--sub", "u-1"]);
        String::from_utf8_lossy(&refused.stderr).contains("keys rotate --now").then_some(())
    });
    let new = said(&running, &["keys", "rotate", "--now"]);
    assert_eq!(states(&running), ["revoked", "signing"]);
    eventually("the new key is known", LONG, || (published(&running) == [new.clone()]).then_some(()));
    let token = mint(&running);
    assert_eq!((kid_of(&token), status(&running, &token)), (new, 200));
    // Whatever becomes of the folder: it stands in the key file too.
    running.kill9();
    std::fs::remove_dir_all(running.path("data/revocations")).unwrap();
    running.start_again();
    eventually("it serves again", LONG, || running.is_ready().then_some(()));
    assert_eq!(running.get_as("/items", &leaked).denial(), (401, "revoked".into()));
    assert_eq!(status(&running, &mint(&running)), 200);
}

#[test]
fn t18_a_key_that_the_file_says_is_revoked_is_refused_without_a_restart() {
    let upstream = Upstream::start(Behaviour::Echo);
    let running = doorward().own_issuer("EdDSA").upstream(&upstream).start();
    let leaked = mint(&running);
    said(&running, &["keys", "rotate", "--now"]);
    eventually("the new key is known", LONG, || (published(&running).len() == 2).then_some(()));
    assert_eq!(status(&running, &leaked), 200);
    let file = running.path("data/local-keys.jwks.json");
    let mut keys: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(keys["keys"][0]["kid"], kid_of(&leaked).as_str());
    keys["keys"][0]["doorward:revoked"] = true.into();
    std::fs::write(&file, keys.to_string()).unwrap();
    eventually("it is refused", LONG, || (status(&running, &leaked) == 401).then_some(()));
    assert_eq!(running.get_as("/items", &leaked).denial(), (401, "revoked".into()));
    assert_eq!(status(&running, &mint(&running)), 200);
}

#[test]
fn t18_a_mark_that_cannot_be_made_is_made_later() {
    let upstream = Upstream::start(Behaviour::Echo);
    let running = doorward().own_issuer("EdDSA").upstream(&upstream).start();
    let leaked = mint(&running);
    // Nobody can lock a folder, not even root.
    let lock = running.path("data/local-keys.jwks.json.lock");
    std::fs::create_dir(&lock).unwrap();
    said(&running, &["revoke", "--key", &kid_of(&leaked)]);
    let failures = || running.stdout().matches("a revoked key cannot be marked in the key file").count();
    eventually("it is told", LONG, || (failures() > 0).then_some(()));
    assert_eq!(states(&running), ["signing"]);
    std::fs::remove_dir(&lock).unwrap();
    eventually("it is marked", LONG, || (states(&running) == ["revoked"]).then_some(()));
    assert_eq!(failures(), 1, "what stays the same is told once");
}

#[test]
fn t20_a_retired_key_ends_no_download_and_a_revoked_one_does() {
    let upstream = Upstream::start(Behaviour::script(|_, wire| {
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while wire.write(b"1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }));
    let running = doorward()
        .own_issuer_with("EdDSA", &[("max_lifetime", "30s".into())])
        .setting("identity.access_token", "30s")
        .setting("auth.leeway", "0s")
        .upstream(&upstream)
        .start();
    let token_of =
        |subject: &str| said(&running, &["token", "mint", "--sub", subject, "--role", "ROLE_VIEWER", "--ttl", "30s"]);
    let tokens = ["u-1", "u-2", "u-3"].map(token_of);
    let kid = kid_of(&tokens[0]);
    let mut downloads = tokens.each_ref().map(|token| {
        let mut connection = running.connect();
        connection.send(format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
        assert!(connection.head().starts_with("HTTP/1.1 200 "));
        connection
    });
    said(&running, &["keys", "rotate", "--now"]);
    eventually("the old key is gone", Duration::from_mins(2), || {
        (states(&running) == ["expired", "signing"]).then_some(())
    });
    eventually("its tokens too", LONG, || (status(&running, &tokens[0]) == 401).then_some(()));
    let [stranger, subject, key] = &mut downloads;
    let mut flows = |seconds| {
        let until = std::time::Instant::now() + Duration::from_secs(seconds);
        while std::time::Instant::now() < until {
            stranger.wire().exactly(6).expect("a stranger's download goes on");
        }
    };
    // Each makes all that is open be decided again, within a second.
    said(&running, &["revoke", "--subject", "nobody"]);
    flows(4);
    said(&running, &["revoke", "--subject", "u-2"]);
    assert!(subject.wire().chunked().is_err(), "a revocation of one's own ends it");
    // The next rotation drops the old key from the file.
    said(&running, &["keys", "rotate", "--now"]);
    eventually("it is dropped", LONG, || (!states(&running).contains(&"expired".to_owned())).then_some(()));
    flows(4);
    said(&running, &["revoke", "--key", &kid]);
    assert!(key.wire().chunked().is_err(), "a revoked key ends what is open");
}

#[test]
fn a_bad_key_file_leaves_the_old_keys_in_force() {
    let upstream = Upstream::start(Behaviour::Echo);
    let running = doorward().own_issuer("EdDSA").upstream(&upstream).start();
    let token = mint(&running);
    let file = running.path("data/local-keys.jwks.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    let failing = |wanted| (running.metric("doorward_jwks_failing", &["issuer=\"doorward\""]) == wanted).then_some(());
    eventually("the bad file is told", LONG, || failing(1.0));
    assert_eq!(status(&running, &token), 200);
    std::fs::write(&file, good).unwrap();
    eventually("the good file is back", LONG, || failing(0.0));
    assert_eq!(status(&running, &token), 200);
}

#[test]
fn t11_a_follower_without_a_key_file_takes_the_public_halves_and_hears_of_a_rotation() {
    let (upstream, store) = (Upstream::start(Behaviour::Echo), redis().start());
    let publisher = doorward().own_issuer("EdDSA").upstream(&upstream).env("REDIS_URL", &store.url()).start();
    let listed = json(&publisher, &["keys", "list", "--output", "json"]);
    let pinned = listed["publication"]["public_keys"][0].as_str().unwrap().to_owned();
    let follower = doorward()
        .own_issuer("EdDSA")
        .upstream(&upstream)
        .env("REDIS_URL", &store.url())
        .setting("publication.public_keys", vec![pinned])
        .start();
    assert!(!follower.path("data/local-keys.jwks.json").exists(), "a follower makes no keys that nobody else knows");
    let token = mint(&publisher);
    eventually("the follower knows the key", LONG, || (status(&follower, &token) == 200).then_some(()));
    assert_eq!(published(&follower), [kid_of(&token)]);
    let new = said(&publisher, &["keys", "rotate", "--now"]);
    let next = mint(&publisher);
    assert_eq!(kid_of(&next), new);
    eventually("the follower knows the next", LONG, || (status(&follower, &next) == 200).then_some(()));
    assert_eq!(status(&follower, &token), 200);
}

#[test]
fn others_verify_by_the_published_set() {
    let upstream = Upstream::start(Behaviour::Echo);
    let signer = doorward().own_issuer("ES256").upstream(&upstream).start();
    let stranger = Issuer::es256();
    // The start waits for the keys that long.
    let patience = toml::Table::from_iter([("timeout".to_owned(), toml::Value::from("10s"))]);
    let table: Vec<(&str, toml::Value)> = vec![
        ("issuer", "http://127.0.0.1:8001".into()),
        ("keys", format!("jwks+http://{}/.well-known/jwks.json", signer.admin).into()),
        ("jwks", patience.into()),
    ];
    let verifier = doorward().issuer_with(&stranger, &table).upstream(&upstream).start();
    assert_eq!(status(&verifier, &mint(&signer)), 200);
    assert_eq!(status(&verifier, &stranger.viewer()), 401);
}
