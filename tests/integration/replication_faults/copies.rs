//! More than one truth for one Redis: a folder that was put back, one that was copied and is in use twice, one of somebody else (T2).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::fleet::RECOVERY;
use crate::harness::redis::Redis;
use crate::harness::{Builder, Doorward, Issuer, Upstream, doorward, eventually};

const FOLDER: &str = "data/revocations";

struct Place {
    redis: Redis,
    issuer: Issuer,
    upstream: Upstream,
    aside: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let aside = tempfile::tempdir().unwrap();
        Self { redis: Redis::start(), issuer: Issuer::hs256(), upstream: Upstream::echo(), aside }
    }

    /// A process with a truth of its own.
    fn builder(&self) -> Builder {
        doorward()
            .issuer_with(&self.issuer, &[("admin", true.into())])
            .upstream(&self.upstream)
            .setting("redis.url", self.redis.url())
            // A floor refuses tokens of this issuer that much longer (T14).
            .setting("auth.leeway", "1s")
            .setting("revocation.max_staleness", "10s")
    }

    /// A second process with its own copy of the first one's folder and key, as a cloned machine has.
    fn clone_of(&self, first: &Doorward) -> Builder {
        copy(&first.path("data"), &self.aside.path().join("data"));
        let path = |name: &str| self.aside.path().join(name).to_str().unwrap().to_owned();
        self.builder()
            .setting("revocation.folder", path(FOLDER))
            .setting("publication.key_file", path("data/publication-key.jwks.json"))
    }

    /// Revokes; whether that is published.
    fn revoke(&self, at: &Doorward, entry: &Value) -> (u16, bool) {
        let root = self.issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
        let answer = at.admin_request("POST", "/api/revocations", Some(&root), &entry.to_string());
        (answer.status, answer.status == 200)
    }

    fn revoked(&self, at: &Doorward, id: &str) {
        eventually(&format!("{id} is revoked and published"), RECOVERY, || {
            self.revoke(at, &json!({ "jti": id })).1.then_some(())
        });
    }

    fn with_id(&self, id: &str) -> String {
        self.issuer.token().claim("jti", id).sign()
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn is_blocked(running: &Doorward) -> bool {
    running.metric("doorward_publication_blocked", &[]) == 1.0
}

fn takeovers(running: &Doorward) -> usize {
    said(running, "this process takes over")
}

fn said(running: &Doorward, what: &str) -> usize {
    running.stdout().matches(what).count()
}

#[test]
fn t02_a_folder_from_a_backup_refuses_everything_once_nobody_else_is_alive() {
    let place = Place::new();
    let mut running = place.builder().start();
    let backup = place.aside.path().join("backup");
    place.revoked(&running, "t-1");
    copy(&running.path(FOLDER), &backup);
    place.revoked(&running, "t-2");
    let (before, lost) = (place.issuer.viewer(), place.with_id("t-2"));
    // Alive until just now.
    running.kill9();
    std::fs::remove_dir_all(running.path(FOLDER)).unwrap();
    copy(&backup, &running.path(FOLDER));
    running.start_again();
    for token in [&before, &lost] {
        eventually("what was issued before is refused", RECOVERY, || {
            (running.get_as("/items", token).status == 401).then_some(())
        });
    }
    let told = || said(&running, "it was restored from a backup");
    eventually("it is told", RECOVERY, || (told() > 0).then_some(()));
    assert_eq!(told(), 1);
    assert!(!is_blocked(&running));
    place.revoked(&running, "t-3");
    // Nobody else is remembered as alive: an outage ends as any other.
    let ended = || said(&running, "revocations are published through Redis again");
    let before = ended();
    place.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("the outage is over", RECOVERY, || (ended() > before).then_some(()));
    // Tokens without `uv` are compared by `iat`, which has seconds.
    eventually("who logs in again is let in, and stays", RECOVERY, || {
        (running.get_as("/items", &place.issuer.viewer()).status == 200).then_some(())
    });
    let after = place.issuer.viewer();
    running.kill9();
    running.start_again();
    eventually("ready again", RECOVERY, || running.is_ready().then_some(()));
    place.revoked(&running, "t-4");
    assert_eq!(running.get_as("/items", &after).status, 200, "it is refused once");
}

#[test]
fn t02_a_folder_from_a_backup_that_was_recorded_in_since_refuses_everything_too() {
    let place = Place::new();
    let mut running = place.builder().start();
    let backup = place.aside.path().join("backup");
    place.revoked(&running, "t-1");
    copy(&running.path(FOLDER), &backup);
    place.revoked(&running, "t-2");
    let lost = place.with_id("t-2");
    running.kill9();
    std::fs::remove_dir_all(running.path(FOLDER)).unwrap();
    copy(&backup, &running.path(FOLDER));
    // Its number is above that of what is lost.
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["revoke", "--jti", "t-3", "--config", "doorward.toml"]).current_dir(running.path(".")).env_clear();
    assert!(command.output().unwrap().status.success());
    running.start_again();
    eventually("what was revoked in between is refused", RECOVERY, || {
        (running.get_as("/items", &lost).status == 401).then_some(())
    });
}

#[test]
fn t02_a_command_that_is_run_in_another_working_directory_takes_nothing_over() {
    let place = Place::new();
    let key = place.aside.path().join("key.json");
    let mut running = place.builder().setting("publication.key_file", key.to_str().unwrap()).start();
    place.revoked(&running, "t-1");
    let good = place.issuer.viewer();
    assert_eq!(running.get_as("/items", &good).status, 200);
    running.kill9();
    let elsewhere = place.aside.path().join("elsewhere");
    copy(&running.path("."), &elsewhere);
    std::fs::remove_dir_all(elsewhere.join("data")).unwrap();
    // Whoever publishes is gone for long enough.
    std::thread::sleep(Duration::from_secs(9));
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["revoke", "--session", "s-1", "--config", "doorward.toml"]).current_dir(&elsewhere).env_clear();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("not published yet") && said.contains("another truth"), "{said}");
    assert!(said.contains("run this again in its working directory"), "{said}");
    let log = std::fs::read_to_string(elsewhere.join(FOLDER).join("changes.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "it is recorded, and nothing else: {log}");
    running.start_again();
    place.revoked(&running, "t-2");
    eventually("nobody is logged out", RECOVERY, || (running.get_as("/items", &good).status == 200).then_some(()));
    assert_eq!(takeovers(&running), 0);
    // Nor is there anything to publish where Redis has lost everything.
    running.kill9();
    place.redis.flush();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("nothing was published from this folder"), "{said}");
    running.start_again();
    place.revoked(&running, "t-3");
    eventually("nobody is logged out", RECOVERY, || (running.get_as("/items", &good).status == 200).then_some(()));
}

#[test]
fn t02_a_folder_that_is_lost_altogether_logs_everybody_out_where_the_key_is_the_same() {
    let place = Place::new();
    let mut running = place.builder().start();
    place.revoked(&running, "t-1");
    let (revoked, good) = (place.with_id("t-1"), place.issuer.viewer());
    assert_eq!((running.get_as("/items", &revoked).status, running.get_as("/items", &good).status), (401, 200));
    running.kill9();
    std::fs::remove_dir_all(running.path(FOLDER)).unwrap();
    running.start_again();
    eventually("it takes over", RECOVERY, || (running.get_as("/items", &good).status == 401).then_some(()));
    let told = || said(&running, "this process takes over");
    eventually("it is told", RECOVERY, || (told() > 0).then_some(()));
    assert_eq!(told(), 1);
    for _ in 0..2 {
        for token in [&revoked, &good] {
            assert_eq!(running.get_as("/items", token).denial(), (401, "revoked".into()));
        }
        // It is in the folder, and once is enough.
        running.kill9();
        running.start_again();
        eventually("it is ready again", RECOVERY, || running.is_ready().then_some(()));
    }
    let log = std::fs::read_to_string(running.path(FOLDER).join("changes.log")).unwrap();
    assert_eq!(log.matches("everything").count(), 1, "{log}");
}

#[test]
fn t02_two_live_copies_of_one_folder_log_nobody_out_and_one_says_that_it_is_blocked() {
    let place = Place::new();
    let mut first = place.builder().start();
    place.revoked(&first, "t-1");
    let good = place.issuer.viewer();
    let second = place.clone_of(&first);
    place.revoked(&first, "t-2");
    // It lacks t-2.
    let second = second.start();
    eventually("the copy is blocked", RECOVERY, || is_blocked(&second).then_some(()));
    let told = || said(&second, "another copy of this revocation folder");
    eventually("it is told", RECOVERY, || (told() > 0).then_some(()));
    assert_eq!(told(), 1);
    let rewrites = || first.metric("doorward_publication_rewrites_total", &[]);
    let before = rewrites();
    for round in 0..5 {
        place.revoked(&first, &format!("a-{round}"));
        // What the copy records is above what the first has published.
        let (status, is_published) = place.revoke(&second, &json!({ "jti": format!("b-{round}") }));
        assert!(!is_published, "{status}");
        std::thread::sleep(Duration::from_millis(700));
        for running in [&first, &second] {
            assert_eq!(running.get_as("/items", &good).status, 200, "nobody is logged out");
        }
    }
    assert!(is_blocked(&second) && !is_blocked(&first));
    assert_eq!(rewrites(), before, "and nothing is written anew again and again");
    // Whoever is left takes over: what the other had revoked is lost to it.
    first.kill9();
    eventually("what was issued before is refused", RECOVERY, || {
        (second.get_as("/items", &good).status == 401).then_some(())
    });
    eventually("it publishes", RECOVERY, || (!is_blocked(&second)).then_some(()));
    place.revoked(&second, "t-3");
}

#[test]
fn t02_a_copy_that_has_nothing_less_yet_is_blocked_by_the_first_change_of_the_other() {
    let place = Place::new();
    let first = place.builder().start();
    place.revoked(&first, "t-1");
    let good = place.issuer.viewer();
    let second = place.clone_of(&first).start();
    eventually("both publish", RECOVERY, || second.is_ready().then_some(()));
    std::thread::sleep(Duration::from_millis(1_500));
    place.revoked(&first, "t-2");
    eventually("one of them is blocked", RECOVERY, || (is_blocked(&second) || is_blocked(&first)).then_some(()));
    for round in 0..6 {
        place.revoke(&first, &json!({ "jti": format!("a-{round}") }));
        place.revoke(&second, &json!({ "jti": format!("b-{round}") }));
        std::thread::sleep(Duration::from_millis(500));
        for running in [&first, &second] {
            assert_eq!(running.get_as("/items", &good).status, 200, "nobody is logged out");
        }
    }
    assert!(is_blocked(&second) != is_blocked(&first), "one publishes and the other says that it does not");
}

#[test]
fn t02_somebody_elses_truth_blocks_while_it_lives_although_nobody_knows_his_key() {
    let place = Place::new();
    let mut first = place.builder().start();
    place.revoked(&first, "t-1");
    // At the first look it could be a leftover.
    first.signal("-STOP");
    let second = place.builder().start_unready();
    eventually("it looks", RECOVERY, || (said(&second, "looking whether") > 0).then_some(()));
    first.signal("-CONT");
    eventually("the second one is blocked", RECOVERY, || is_blocked(&second).then_some(()));
    let error = "another process publishes another truth in this Redis";
    // It is counted a moment before it is said.
    eventually("the second one says so", RECOVERY, || (said(&second, error) == 1).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    assert!(is_blocked(&second) && !is_blocked(&first));
    assert_eq!(said(&second, error), 1, "once");
    // Whoever revokes there is told that it is not only late.
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["revoke", "--jti", "t-9", "--config", "doorward.toml"]).current_dir(second.path(".")).env_clear();
    let output = command.output().unwrap();
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warned.contains("nothing from here is published while it does"), "{warned}");
    first.kill9();
    eventually("it takes over", RECOVERY, || (!is_blocked(&second) && second.is_ready()).then_some(()));
    place.revoked(&second, "t-2");
}

/// A disk that has nothing of what is written for as long as a file is there.
const SLOW_DISK: &str = r#"
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int file) {
    const char *slow = getenv("SLOW_DISK");
    while (slow && access(slow, F_OK) == 0) usleep(10000);
    return fsync(file);
}
"#;

#[test]
fn t02_a_process_on_the_same_folder_that_is_quicker_than_the_disk_is_no_copy_of_it() {
    let place = Place::new();
    let aside = |name: &str| place.aside.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(aside("slow.c"), SLOW_DISK).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o", &aside("slow.so"), &aside("slow.c")]).status();
    assert!(built.unwrap().success());
    let first = place.builder().env("LD_PRELOAD", &aside("slow.so")).env("SLOW_DISK", &aside("slow")).start();
    place.revoked(&first, "t-1");
    let path = |name: &str| first.path(name).to_str().unwrap().to_owned();
    let second = place
        .builder()
        .setting("revocation.folder", path(FOLDER))
        .setting("publication.key_file", path("data/publication-key.jwks.json"))
        .start();
    eventually("both publish", RECOVERY, || (said(&second, "publishing goes on") == 1).then_some(()));
    let log = first.path(FOLDER).join("changes.log");
    for round in 0..2 {
        let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
        let before = lines();
        std::fs::write(aside("slow"), "").unwrap();
        std::thread::scope(|scope| {
            let revoked = scope.spawn(|| place.revoke(&first, &json!({ "jti": format!("slow-{round}") })));
            // The second follows what is not on disk yet, and publishes it.
            eventually("it is appended", RECOVERY, || (lines() > before).then_some(()));
            std::thread::sleep(Duration::from_secs(4));
            assert!(!revoked.is_finished(), "the disk takes its time");
            assert!(!is_blocked(&first));
            std::fs::remove_file(aside("slow")).unwrap();
            assert!(matches!(revoked.join().unwrap().0, 200 | 202));
        });
    }
    let all = first.stdout() + &second.stdout();
    assert!(!all.contains("another copy") && !all.contains("written anew"), "{all}");
    place.revoked(&first, "t-2");
    place.revoked(&second, "t-3");
}
