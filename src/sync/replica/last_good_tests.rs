//! What stands on disk after a full disk, a lost machine and a kill at any moment, and what a start makes of it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use super::*;
use crate::clock::Timestamp;
use crate::replication::{Redis, RedisSettings, RedisTls, RedisUrl};
use crate::revocation::SegmentOf;
use crate::sync::replica::pace::{Keeping, Tidying};
use crate::sync::replica::state::Verdict;
use crate::sync::replica::state::sha256;
use crate::sync::replica::state::tests::{Play, proven};
use crate::sync::replica::{Cause, Replica};

const SEGMENT: &[u8] = b"{\"n\":1,\"at\":1000,\"entry\":{\"key\":\"k\"}}\n";

fn last_good() -> (tempfile::TempDir, LastGood) {
    let folder = tempfile::tempdir().unwrap();
    let last_good = LastGood::new(&folder.path().join("replica"));
    (folder, last_good)
}

impl LastGood {
    /// Writes at once, and waits for it.
    async fn keep_now(&mut self, play: &Play) {
        self.keep_it_now(&play.followed).await;
    }

    async fn keep_it_now(&mut self, followed: &Followed) {
        self.written = None;
        self.keep(followed.kept().unwrap(), Duration::ZERO);
        while self.busy.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Proven by a heartbeat of this very moment, with one segment.
fn with_a_segment() -> (Play, String) {
    with_the_segment(SEGMENT)
}

fn with_the_segment(lines: &[u8]) -> (Play, String) {
    let mut play = proven();
    let name = sha256(lines);
    let segment = SegmentOf { sha256: name.as_str().into(), records: 1, bytes: lines.len() as u64, expires_at: None };
    let lines = [play.change(0, 10, "a")];
    play.load_with(2, vec![segment], &lines).unwrap();
    play.followed.segment_applied(name.as_str().into());
    play.now += 1;
    let beat = play.beat(2, 10, 2, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    (play, name)
}

#[test]
fn t16_a_segment_that_lies_there_with_other_bytes_is_written_again() {
    let (_folder, last_good) = last_good();
    let name = sha256(SEGMENT);
    let path = last_good.folder.join("segments").join(&name);
    make(path.parent().unwrap()).unwrap();
    for held in [&b""[..], &SEGMENT[1..], &[b'x'; 42][..]] {
        std::fs::write(&path, held).unwrap();
        last_good.put_segment(&name, SEGMENT);
        assert_eq!(std::fs::read(&path).unwrap(), SEGMENT);
    }
}

#[tokio::test]
async fn t16_a_segment_that_did_not_get_to_the_disk_is_asked_for_again_and_the_state_waits_for_it() {
    let (_folder, mut last_good) = last_good();
    let (play, name) = with_a_segment();
    let path = last_good.folder.join("segments").join(&name);
    for held in [None, Some(&b""[..])] {
        if let Some(held) = held {
            std::fs::write(&path, held).unwrap();
        }
        last_good.keep_now(&play).await;
        assert!(!last_good.folder.join("state").exists(), "it would name what is not there");
        assert_eq!(last_good.lacking(), [name.clone().into_boxed_str()]);
        assert!(last_good.lacking().is_empty(), "asked for once");
    }
    last_good.put_segment(&name, SEGMENT);
    last_good.keep_now(&play).await;
    let heard = play.now;
    let mut again = play.started_anew();
    assert_eq!(last_good.restore(&mut again.followed).unwrap(), Some(Restored { heard, n: 10 }));
    assert!(again.followed.has_segment(&name));
}

#[tokio::test]
async fn t16_what_a_segment_of_a_good_state_gives_is_given_and_of_one_without_proof_is_not() {
    let (_folder, mut last_good) = last_good();
    let at = Timestamp::now().0 * 1000;
    let lines = format!("{{\"n\":1,\"at\":{at},\"entry\":{{\"override\":\"m\",\"roles\":[\"ROLE_ROOT\"]}}}}\n");
    let lines = lines.as_bytes();
    let mut play = with_the_segment(lines).0;
    let name = sha256(lines);
    last_good.put_segment(&name, lines);
    last_good.keep_now(&play).await;
    let is_root = |play: &Play| play.followed.target().index.overrides("m", Timestamp::now()).is_some();
    play = play.started_anew();
    last_good.restore(&mut play.followed).unwrap().unwrap();
    assert!(is_root(&play) && play.followed.has_segment(&name));
    let path = last_good.folder.join("state");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.lines().take(2).collect::<Vec<_>>().join("\n")).unwrap();
    play = play.started_anew();
    assert!(last_good.restore(&mut play.followed).is_err(), "its last change was cut off");
    assert!(!is_root(&play) && !play.followed.has_segment(&name));
}

#[tokio::test]
async fn t16_a_kill_between_the_state_and_its_heartbeat_leaves_a_good_state() {
    let (_folder, mut last_good) = last_good();
    let mut play = proven();
    last_good.keep_now(&play).await;
    let before = std::fs::read(last_good.folder.join("heartbeat")).unwrap();
    let lines = [play.change(0, 10, "a"), play.change(10, 30, "c")];
    play.load(2, &lines).unwrap();
    play.now += 1_000;
    let beat = play.beat(2, 30, 2, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    last_good.keep_now(&play).await;
    std::fs::write(last_good.folder.join("heartbeat"), &before).unwrap();
    let heard = play.now;
    let mut again = play.started_anew();
    assert_eq!(last_good.restore(&mut again.followed).unwrap(), Some(Restored { heard, n: 30 }));
    assert!(again.holds("c"));
    std::fs::remove_file(last_good.folder.join("heartbeat")).unwrap();
    let mut again = again.started_anew();
    assert_eq!(last_good.restore(&mut again.followed).unwrap(), Some(Restored { heard, n: 30 }));
}

#[tokio::test]
async fn t16_a_later_heartbeat_says_when_the_control_plane_was_heard_even_if_it_counts_by_a_newer_manifest() {
    let (_folder, mut last_good) = last_good();
    let mut play = proven();
    play.now += 2_000;
    // Something was over and has left the segments of a manifest that this process has not read yet.
    let beat = play.beat(1, 20, 1, play.now);
    play.hear(&beat);
    last_good.keep_now(&play).await;
    let heard = play.now;
    let mut again = play.started_anew();
    assert_eq!(last_good.restore(&mut again.followed).unwrap(), Some(Restored { heard, n: 20 }));
}

#[tokio::test]
async fn t16_what_its_heartbeat_does_not_speak_of_is_no_state() {
    let (_folder, mut last_good) = last_good();
    let play = proven();
    last_good.keep_now(&play).await;
    let path = last_good.folder.join("state");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    // The last change is cut off; then its proof is gone as well, as an older doorward wrote it.
    for left in [&lines[..3], &[lines[0], lines[2]][..]] {
        std::fs::write(&path, left.join("\n")).unwrap();
        let mut again = proven();
        assert!(last_good.restore(&mut again.followed).is_err(), "signed by another key");
    }
    let mut again = play.started_anew();
    for left in [&lines[..3], &[lines[0], lines[2]][..]] {
        std::fs::write(&path, left.join("\n")).unwrap();
        assert!(matches!(last_good.restore(&mut again.followed), Err(NotGood::Unproven(..))));
    }
    std::fs::write(&path, [lines[0], lines[2], lines[3]].join("\n")).unwrap();
    assert!(last_good.restore(&mut again.followed).unwrap().is_some(), "an older doorward wrote it so");
}

#[tokio::test]
async fn drafts_of_processes_that_were_killed_are_removed() {
    let (_folder, mut last_good) = last_good();
    make(&last_good.folder).unwrap();
    let old = SystemTime::now() - Duration::from_mins(2);
    let draft = |name: &str, time: SystemTime| {
        let path = last_good.folder.join(name);
        let file = File::create(&path).unwrap();
        file.set_modified(time).unwrap();
        path
    };
    let mut play = proven();
    let gone = [draft("state.0193", old), draft("heartbeat.0193", old)];
    let stays = draft("state.0194", SystemTime::now());
    last_good.restore(&mut play.followed).unwrap();
    assert!(gone.iter().all(|path| !path.exists()));
    assert!(stays.exists(), "somebody may be about to rename it");
    let later = draft("state.0193", old);
    last_good.keep_now(&play).await;
    assert!(!later.exists() && stays.exists());
    assert!(last_good.folder.join("state").exists() && last_good.folder.join("heartbeat").exists());
}

#[tokio::test]
async fn t16_a_segment_that_did_not_get_to_the_disk_is_a_reason_to_read_the_state_again() {
    let (_folder, mut last_good) = last_good();
    let (play, name) = with_a_segment();
    last_good.keep_now(&play).await;
    let settings = RedisSettings {
        url: RedisUrl::parse("redis://127.0.0.1:1").unwrap(),
        prefix: "doorward".into(),
        tls: RedisTls::default(),
        sentinel: None,
        connect: Duration::from_secs(1),
        response: Duration::from_secs(1),
    };
    let mut replica = Replica {
        redis: Redis::new(settings).unwrap(),
        followed: play.followed,
        ledger: None,
        last_good: Some(last_good),
        broken: Arc::default(),
        metrics: Arc::default(),
        keeping: Keeping::default(),
        tidying: Tidying::default(),
    };
    assert!(replica.followed.has_segment(&name));
    let begun = Instant::now();
    // The disk is full: it is fetched after 0 s, then after 10 s more, then after 20 s more.
    for (seconds, is_fetched) in [(0, true), (9, false), (10, true), (20, false), (29, false), (30, true), (69, false)]
    {
        let mut due = None;
        replica.keep(&mut due, begun + Duration::from_secs(seconds));
        assert_eq!(due, is_fetched.then_some(Cause::Manifest), "after {seconds} s");
        assert_eq!(replica.followed.has_segment(&name), !is_fetched, "it is fetched again with it");
        replica.followed.segment_applied(name.as_str().into());
        replica.last_good.as_mut().unwrap().keep_it_now(&replica.followed).await;
    }
    // It takes something again, and then no more.
    let last_good = replica.last_good.as_mut().unwrap();
    last_good.put_segment(&name, SEGMENT);
    last_good.lacking();
    last_good.keep_it_now(&replica.followed).await;
    let mut due = None;
    replica.keep(&mut due, begun + Duration::from_secs(70));
    assert_eq!(due, None);
    let last_good = replica.last_good.as_mut().unwrap();
    std::fs::remove_file(last_good.folder.join("segments").join(&name)).unwrap();
    last_good.keep_it_now(&replica.followed).await;
    replica.keep(&mut due, begun + Duration::from_secs(71));
    assert_eq!(due, Some(Cause::Manifest));
}
