//! The revocation folder, through real sockets and real processes: what was answered is in force after `kill -9`, on a second process
//! that shares the folder, and against tokens minted beside it (THREATS T3, T12, T16).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Builder, Doorward, Issuer, Upstream, doorward, eventually};

/// Generous: a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn administered(issuer: &Issuer, upstream: &Upstream) -> Builder {
    doorward().issuer_with(issuer, &[("admin", true.into())]).upstream(upstream)
}

fn administrator(issuer: &Issuer) -> String {
    issuer.with_roles("root", &["ROLE_SUPER_ADMIN"])
}

fn with_id(issuer: &Issuer, id: &str) -> String {
    issuer.token().claim("jti", id).sign()
}

fn is_refused(running: &Doorward, token: &str) -> bool {
    let response = running.get_as("/items", token);
    assert!(matches!(response.status, 200 | 401), "{response:?}");
    response.status == 401
}

/// Whether the call was answered with 200; a connection that breaks off answers nothing.
fn revoked(admin: SocketAddr, administrator: &str, body: &str) -> bool {
    let Ok(mut connection) = TcpStream::connect(admin) else { return false };
    let length = body.len();
    let head = format!(
        "POST /api/revocations HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {administrator}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let mut answer = [0; 12];
    connection.write_all(head.as_bytes()).is_ok()
        && connection.read_exact(&mut answer).is_ok()
        && answer == *b"HTTP/1.1 200"
}

#[test]
fn t16_what_was_answered_is_in_force_after_kill_9() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let mut running = administered(&issuer, &upstream).start();
    let token = with_id(&issuer, "alone");
    assert!(!is_refused(&running, &token));
    assert!(revoked(running.admin, &administrator(&issuer), r#"{"jti":"alone"}"#));
    running.kill9();
    let acknowledged = Arc::new(Mutex::new(vec!["alone".to_owned()]));
    for round in 0..4 {
        running.start_again();
        eventually("ready again", PATIENCE, || running.is_ready().then_some(()));
        for id in &*acknowledged.lock().unwrap() {
            assert!(is_refused(&running, &with_id(&issuer, id)), "{id} was acknowledged before round {round}");
        }
        assert!(!is_refused(&running, &with_id(&issuer, "nobody")));
        let (admin, goes_on) = (running.admin, Arc::new(AtomicBool::new(true)));
        let before = acknowledged.lock().unwrap().len();
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (acknowledged, goes_on) = (Arc::clone(&acknowledged), Arc::clone(&goes_on));
                let administrator = administrator(&issuer);
                std::thread::spawn(move || {
                    for call in 0.. {
                        let id = format!("r{round}-{caller}-{call}");
                        if !goes_on.load(Ordering::Relaxed)
                            || !revoked(admin, &administrator, &json!({ "jti": id }).to_string())
                        {
                            return;
                        }
                        acknowledged.lock().unwrap().push(id);
                    }
                })
            })
            .collect();
        eventually("some were acknowledged", PATIENCE, || {
            (acknowledged.lock().unwrap().len() > before + 40).then_some(())
        });
        running.kill9();
        goes_on.store(false, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    }
    running.start_again();
    eventually("ready again", PATIENCE, || running.is_ready().then_some(()));
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() > 160);
    assert!(acknowledged.iter().all(|id| is_refused(&running, &with_id(&issuer, id))));
    assert!(running.metric("doorward_ledger_changes_total", &[]) >= acknowledged.len() as f64);
}

/// A second process on the folder and key of the first.
fn beside(first: &Doorward, issuer: &Issuer, upstream: &Upstream) -> Builder {
    let path = |name: &str| first.path(name).to_str().unwrap().to_owned();
    administered(issuer, upstream)
        .setting("revocation.folder", path("data/revocations"))
        .setting("publication.key_file", path("data/publication-key.jwks.json"))
}

#[test]
fn t12_what_one_process_records_the_other_refuses_within_a_second() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let first = administered(&issuer, &upstream).start();
    let second = beside(&first, &issuer, &upstream).start();
    let root = administrator(&issuer);
    let mut times = Vec::new();
    for (round, (here, there)) in [(&first, &second), (&second, &first)].into_iter().cycle().take(10).enumerate() {
        let id = format!("t-{round}");
        let token = with_id(&issuer, &id);
        assert!(!is_refused(there, &token));
        assert!(revoked(here.admin, &root, &json!({ "jti": id }).to_string()));
        let began = Instant::now();
        assert!(is_refused(here, &token), "at once where it was recorded");
        eventually("refused by the other", PATIENCE, || is_refused(there, &token).then_some(()));
        times.push(began.elapsed());
    }
    // Not the longest: a machine that stands still makes one of them as long as it likes.
    times.sort_unstable();
    let usual = times[times.len() / 2];
    assert!(usual < Duration::from_secs(5), "{times:?}: it is about 0.2 s on an idle machine");
}

#[test]
fn t12_a_process_that_cannot_read_the_folder_is_stale_after_max_staleness() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = administered(&issuer, &upstream).setting("revocation.max_staleness", "2s").start();
    // On a machine that stands still for two seconds it is stale without anybody's doing, and fresh again soon after.
    let recorded = || revoked(running.admin, &administrator(&issuer), r#"{"jti":"t-1"}"#).then_some(());
    eventually("recorded", PATIENCE, recorded);
    let (good, bad) = (issuer.viewer(), with_id(&issuer, "t-1"));
    eventually("fresh", PATIENCE, || (running.get_as("/items", &good).status == 200).then_some(()));
    let (manifest, aside) = (running.path("data/revocations/manifest"), running.path("manifest.aside"));
    std::fs::rename(&manifest, &aside).unwrap();
    eventually("stale", PATIENCE, || {
        let denied = running.get_as("/items", &good);
        (denied.status != 200).then(|| assert_eq!(denied.denial(), (503, "auth_unavailable".into())))
    });
    assert_eq!(running.get("/public").status, 200, "what asks nobody goes on");
    assert!(!revoked(running.admin, &administrator(&issuer), r#"{"jti":"t-2"}"#), "and nothing is acknowledged");
    std::fs::rename(&aside, &manifest).unwrap();
    eventually("fresh again", PATIENCE, || (running.get_as("/items", &good).status == 200).then_some(()));
    eventually("refused for what it is", PATIENCE, || {
        let denied = running.get_as("/items", &bad);
        assert!(matches!(denied.status, 401 | 503), "{denied:?}");
        (denied.status == 401).then_some(())
    });
    assert!(running.stdout().contains("the revocation folder cannot be followed"), "{}", running.stdout());
}

#[test]
fn a_full_disk_is_a_clear_answer_and_leaves_no_half_lines() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let mut running = administered(&issuer, &upstream).largest_file(20).start();
    let root = administrator(&issuer);
    let mut acknowledged = Vec::new();
    let failed = loop {
        let id = format!("t-{}", acknowledged.len());
        let response =
            running.admin_request("POST", "/api/revocations", Some(&root), &json!({ "jti": id }).to_string());
        if response.status != 200 {
            assert_eq!(response.status, 503, "{response:?}");
            assert!(response.text().contains("changes.log: the change cannot be written"), "{response:?}");
            break id;
        }
        acknowledged.push(id);
        assert!(acknowledged.len() < 1000, "10 KiB are full at some time");
    };
    assert!(acknowledged.len() > 5);
    let log = std::fs::read_to_string(running.path("data/revocations/changes.log")).unwrap();
    assert!(log.ends_with('\n'), "what was half written was taken back");
    assert_eq!(log.lines().count(), acknowledged.len());
    for _ in 0..2 {
        assert!(acknowledged.iter().all(|id| is_refused(&running, &with_id(&issuer, id))));
        assert!(!is_refused(&running, &with_id(&issuer, &failed)), "nothing was promised, and nothing is in force");
        running.kill9();
        running.start_again();
        eventually("ready again", PATIENCE, || running.is_ready().then_some(()));
    }
}

#[test]
fn a_folder_that_was_changed_on_disk_stops_the_start_with_file_line_and_mend() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let mut running = administered(&issuer, &upstream).start();
    for id in ["t-1", "t-2"] {
        assert!(revoked(running.admin, &administrator(&issuer), &json!({ "jti": id }).to_string()));
    }
    running.kill9();
    let path = running.path("data/revocations/changes.log");
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, log.replace("t-1", "t-9")).unwrap();
    running.spawn_again();
    assert!(!running.wait(PATIENCE).success());
    let said = eventually("the reason", PATIENCE, || {
        let said = running.stderr();
        said.contains("changes.log line 1: the signature does not verify").then_some(said)
    });
    assert!(said.contains("[revocation] folder") && said.contains("from a backup"), "{said}");
    std::fs::write(&path, log).unwrap();
    running.start_again();
    eventually("ready again", PATIENCE, || running.is_ready().then_some(()));
    assert!(is_refused(&running, &with_id(&issuer, "t-1")));
}

/// A token of doorward's own, made by the command beside the running process.
fn minted(running: &Doorward, subject: &str, role: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(["token", "mint", "--config", "doorward.toml", "--sub", subject, "--role", role])
        .current_dir(running.path("."))
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn with_own_issuer(upstream: &Upstream) -> Doorward {
    let issuer: toml::Table = toml::from_str(
        "name = \"doorward\"\nissuer = \"http://doorward.test\"\naudience = [\"oms\"]\nkeys = \"local\"\nalgorithms = [\"EdDSA\"]",
    )
    .unwrap();
    doorward().upstream(upstream).setting("auth.issuers", vec![toml::Value::from(issuer)]).start()
}

#[test]
fn t03_a_floor_refuses_what_was_minted_before_it_and_nothing_minted_after() {
    let upstream = Upstream::echo();
    let running = with_own_issuer(&upstream);
    let mut root = minted(&running, "root", "ROLE_SUPER_ADMIN");
    assert!(!Path::exists(&running.path("data/revocations")), "nothing was recorded, and the number is 0");
    for body in [r#"{"subject":"alice"}"#, r#"{"everything":true}"#, r#"{"service":"oms"}"#] {
        let before = minted(&running, "alice", "ROLE_VIEWER");
        assert!(!is_refused(&running, &before), "before {body}");
        assert!(revoked(running.admin, &root, body), "{body}");
        // By seconds of `iat` alone the next would be refused too, or the former not.
        let after = minted(&running, "alice", "ROLE_VIEWER");
        assert!(is_refused(&running, &before), "{body}");
        assert!(!is_refused(&running, &after), "{body}");
        root = minted(&running, "root", "ROLE_SUPER_ADMIN");
    }
}

#[test]
fn t03_a_mint_in_the_midst_of_floors_is_on_one_side_of_each() {
    let upstream = Upstream::echo();
    let running = with_own_issuer(&upstream);
    let root = minted(&running, "root", "ROLE_SUPER_ADMIN");
    let mut tokens = Vec::new();
    let floors = std::thread::scope(|scope| {
        let floors = scope.spawn(|| {
            let one = |_| {
                let began = Instant::now();
                assert!(revoked(running.admin, &root, r#"{"subject":"alice"}"#));
                std::thread::sleep(Duration::from_millis(20));
                (began, Instant::now())
            };
            (0..20).map(one).collect::<Vec<_>>()
        });
        for _ in 0..12 {
            let began = Instant::now();
            tokens.push((began, minted(&running, "alice", "ROLE_VIEWER"), Instant::now()));
        }
        floors.join().unwrap()
    });
    let (last_began, last_ended) = *floors.last().unwrap();
    tokens.push((Instant::now(), minted(&running, "alice", "ROLE_VIEWER"), Instant::now()));
    for (began, token, ended) in tokens {
        let refused = is_refused(&running, &token);
        assert!(refused || ended > last_began, "a floor was taken after it was minted");
        assert!(!refused || began < last_ended, "it was minted after every floor");
    }
}
