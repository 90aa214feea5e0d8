#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::json;

use super::steps::{self, Step};
use super::tend::Plan;
use super::*;
use crate::clock::{Settled, Timestamp, unix_millis};
use crate::revocation::{
    Arrival, Change, Entry, FloorOf, Kind, PinnedKeys, Presented, PublicationKey, Retention, RevocationIndex,
    SegmentOf, Standing,
};
use crate::telemetry::LedgerMetrics;
use crate::token::local_keys::load_or_create_publication;

/// A folder that is about to be made, and the key that signs in it.
pub(super) struct Place {
    _temporary: tempfile::TempDir,
    pub(super) folder: PathBuf,
    document: Vec<u8>,
}

pub(super) fn place() -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("data/revocations");
    let document = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref().to_vec();
    Place { _temporary: temporary, folder, document }
}

fn another() -> Place {
    place()
}

/// What everything is kept for the clocks, in seconds.
const DAY: u64 = 86_400;
const RETENTION: Retention = Retention { from_arrival: 3_780, after_expiry: 90, overrides_stay: false };

impl Place {
    fn key(&self) -> PublicationKey {
        PublicationKey::from_pkcs8(&self.document).unwrap()
    }

    pub(super) fn pinned(&self) -> PinnedKeys {
        PinnedKeys::parse([self.key().public().as_str()]).unwrap()
    }

    fn settings(&self) -> LedgerSettings {
        LedgerSettings {
            folder: self.folder.clone(),
            key: Some(self.key()),
            pinned: PinnedKeys::default(),
            retention: RETENTION,
            published: Published::AtOnce,
            metrics: Arc::new(LedgerMetrics::default()),
        }
    }

    fn try_open(&self) -> Result<(Arc<Ledger>, Arc<RevocationIndex>), LedgerError> {
        let index = Arc::new(RevocationIndex::default());
        Ledger::open(self.settings(), Arc::clone(&index)).map(|ledger| (ledger, index))
    }

    pub(super) fn open(&self) -> (Arc<Ledger>, Arc<RevocationIndex>) {
        self.try_open().unwrap()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("changes.log")
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap().lines().map(str::to_owned).collect()
    }

    fn write_lines(&self, lines: &[String]) {
        fs::write(self.log(), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// What opening says of a folder that is broken.
    fn refusal(&self) -> String {
        self.try_open().map(|_| ()).unwrap_err().to_string()
    }
}

pub(super) fn entry(value: serde_json::Value) -> Entry {
    serde_json::from_value(value).unwrap()
}

fn token(id: &str) -> Entry {
    entry(json!({ "jti": id }))
}

pub(super) fn presented<'t>(token: &'t str, subject: &'t str) -> Presented<'t> {
    Presented {
        issuer: "doorward",
        subject,
        token_id: Some(token),
        session: None,
        key_id: None,
        service: "oms",
        uv: None,
        issued_at: Timestamp::now(),
        leeway: 0,
    }
}

fn refuses(index: &RevocationIndex, token: &str) -> bool {
    index.standing(&presented(token, "somebody"), Timestamp::now()) == Standing::Revoked
}

#[test]
fn t16_what_was_recorded_is_there_after_a_restart() {
    let place = place();
    let (ledger, index) = place.open();
    assert_eq!((ledger.last(), ledger.truth(), ledger.count()), (0, None, 0));
    assert!(!place.folder.exists(), "it is made with the first change");
    let before = unix_millis();
    let first = ledger.record(token("a")).unwrap();
    let second = ledger.record(entry(json!({ "disabled": "mallory" }))).unwrap();
    assert!(first.change.n >= before && first.change.prev == 0);
    assert!(second.change.n > first.change.n && second.change.prev == first.change.n);
    assert!(refuses(&index, "a") && !refuses(&index, "b"));
    assert_eq!((ledger.last(), ledger.count()), (second.change.n, 2));

    let (again, index) = place.open();
    assert!(refuses(&index, "a") && !refuses(&index, "b"));
    assert_eq!(index.standing(&presented("c", "mallory"), Timestamp::now()), Standing::Disabled);
    assert_eq!(again.state().unwrap().changes, [first, second]);
    assert_eq!((again.last(), again.truth()), (ledger.last(), ledger.truth()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.folder), mode(&place.log())), (0o700, 0o600));
    assert_eq!(mode(&place.folder.join("manifest")), 0o600);
}

#[test]
fn t02_numbers_rise_although_the_clock_steps_back() {
    let place = place();
    let (ledger, _) = place.open();
    let ahead = unix_millis() + 3_600_000;
    let far = ledger.record_above(ahead, token("a")).unwrap();
    assert_eq!(far.change.n, ahead + 1);
    let next = ledger.record(token("b")).unwrap();
    assert_eq!((next.change.n, next.change.prev), (ahead + 2, ahead + 1));
    assert!(next.change.at < ahead, "the time is the clock's all the same");
    let (again, _) = place.open();
    assert_eq!(again.record(token("c")).unwrap().change.n, ahead + 3);
}

#[test]
fn concurrent_callers_share_what_the_disk_does() {
    let place = place();
    let metrics = Arc::new(LedgerMetrics::default());
    let index = Arc::new(RevocationIndex::default());
    let ledger = Ledger::open(LedgerSettings { metrics: Arc::clone(&metrics), ..place.settings() }, index).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let numbers = runtime.block_on(async {
        let calls = (0..1000).map(|call| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.revoke(token(&format!("t-{call}"))).await.unwrap() })
        });
        let mut numbers = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            let receipt = call.await.unwrap();
            assert!(receipt.propagated);
            numbers.push(receipt.number);
        }
        numbers
    });
    let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
    assert_eq!((distinct.len(), ledger.count()), (1000, 1000));
    let changes = ledger.changes_after(0).unwrap();
    assert!(changes.windows(2).all(|pair| pair[1].change.prev == pair[0].change.n));
    assert_eq!(place.open().0.count(), 1000);
}

#[test]
fn t02_two_writers_on_one_folder_make_one_chain() {
    let place = place();
    let (one, _) = place.open();
    let (two, index) = place.open();
    std::thread::scope(|scope| {
        for (name, ledger) in [("one", &one), ("two", &two)] {
            for thread in 0..2 {
                scope.spawn(move || {
                    for number in 0..50 {
                        ledger.record(token(&format!("{name}-{thread}-{number}"))).unwrap();
                    }
                });
            }
        }
    });
    two.follow().unwrap();
    assert!(refuses(&index, "one-0-49") && refuses(&index, "two-1-0"));
    one.follow().unwrap();
    assert_eq!(one.state().unwrap().changes, two.state().unwrap().changes);
    assert_eq!(place.open().0.state().unwrap().changes.len(), 200);
}

#[test]
fn t12_a_follower_learns_what_another_process_records() {
    let place = place();
    let (follower, index) = place.open();
    assert_eq!(follower.follow().unwrap(), Looked::Nothing, "no folder is an empty one");
    let (writer, _) = place.open();
    let heard = follower.subscribe();
    let recorded = writer.record(token("a")).unwrap();
    assert!(!refuses(&index, "a"));
    assert_eq!(follower.follow().unwrap(), Looked::News);
    assert!(refuses(&index, "a"));
    assert!(heard.has_changed().unwrap());
    assert_eq!((follower.last(), follower.truth()), (recorded.change.n, writer.truth()));
    assert_eq!(follower.follow().unwrap(), Looked::Nothing);
    // And on through a compaction that it slept through, and one that it did not.
    for round in ["b", "c"] {
        for number in 0..40 {
            writer.record(token(&format!("{round}-{number}"))).unwrap();
        }
        if round == "c" {
            follower.follow().unwrap();
        }
        assert!(writer.shared.tend((16, 4), Timestamp::now()).unwrap());
        assert_eq!(follower.follow().unwrap(), Looked::News);
        assert!(refuses(&index, &format!("{round}-0")) && refuses(&index, &format!("{round}-39")));
        assert_eq!((follower.count(), follower.last()), (writer.count(), writer.last()));
    }
}

#[test]
fn t16_half_a_line_is_cut_off_and_nothing_acknowledged_is_lost() {
    let place = place();
    let (ledger, _) = place.open();
    let kept = ledger.record(token("kept")).unwrap();
    drop(ledger);
    let whole = fs::read(place.log()).unwrap();
    let half = place.key().sign(
        Kind::Change,
        &Change {
            n: kept.change.n + 1,
            prev: kept.change.n,
            at: kept.change.at,
            id: uuid::Uuid::now_v7(),
            entry: token("half"),
        },
    );
    let half = half.unwrap();
    // Every length, the whole line without its end included.
    for length in [1, 2, 40, half.len() / 2, half.len() - 1, half.len()] {
        fs::write(place.log(), [&whole[..], &half.as_bytes()[..length]].concat()).unwrap();
        let (ledger, index) = place.open();
        assert_eq!((ledger.last(), refuses(&index, "half")), (kept.change.n, false), "{length}");
        assert_eq!(fs::read(place.log()).unwrap(), whole, "{length}");
        // One that appears while the process runs is cut by whoever writes next.
        fs::write(place.log(), [&whole[..], &half.as_bytes()[..length]].concat()).unwrap();
        assert_eq!(ledger.follow().unwrap(), Looked::Nothing);
        ledger.record(token("next")).unwrap();
        assert_eq!(place.lines().len(), 2);
        assert_eq!(place.open().0.count(), 2);
        fs::write(place.log(), &whole).unwrap();
    }
}

#[test]
fn t11_a_line_that_was_changed_on_disk_is_named() {
    let place = place();
    let (ledger, _) = place.open();
    for id in ["a", "b", "c"] {
        ledger.record(token(id)).unwrap();
    }
    drop(ledger);
    let lines = place.lines();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = lines.clone();
        change(&mut changed);
        place.write_lines(&changed);
        place.refusal()
    };
    let forged = with(&|lines| lines[1] = lines[1].replace("\"b\"", "\"x\""));
    assert!(forged.contains("changes.log line 2: the signature does not verify; "), "{forged}");
    assert!(forged.contains("from a backup"), "{forged}");
    let broken = with(&|lines| lines[1].truncate(30));
    assert!(broken.contains("changes.log line 2: malformed: it has no body"), "{broken}");
    let missing = with(&|lines| drop(lines.remove(1)));
    assert!(missing.contains("changes.log line 2: ") && missing.contains("changes are missing"), "{missing}");
    let first = with(&|lines| drop(lines.remove(0)));
    assert!(first.contains("changes.log line 1: "), "{first}");
    let swapped = with(&|lines| lines.swap(1, 2));
    assert!(swapped.contains("line 2: ") && swapped.contains("changes are missing"), "{swapped}");
    let twice = with(&|lines| lines.push(lines[2].clone()));
    assert!(twice.contains("line 4: "), "{twice}");
    let empty = with(&|lines| lines[1].clear());
    assert!(empty.contains("line 2: malformed"), "{empty}");
    place.write_lines(&lines);
    assert_eq!(place.open().0.count(), 3);

    let other = Place { document: another().document, ..place };
    let stranger = other.refusal();
    assert!(stranger.contains("manifest: signed by the key") && stranger.contains("key_file"), "{stranger}");
}

#[test]
fn what_is_missing_from_the_folder_is_named() {
    let place = place();
    let (ledger, _) = place.open();
    for number in 0..30 {
        ledger.record(token(&format!("t-{number}"))).unwrap();
    }
    assert!(ledger.shared.tend((16, 4), Timestamp::now()).unwrap());
    let segment = fs::read_dir(place.folder.join("segments")).unwrap().next().unwrap().unwrap().path();
    for path in [place.folder.join("manifest"), place.log(), segment.clone()] {
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        let refusal = place.refusal();
        assert!(refusal.contains(path.to_str().unwrap()) && refusal.contains("it is missing; put"), "{refusal}");
        if path != segment {
            assert!(ledger.follow().is_err(), "a running process notices {}", path.display());
            assert!(ledger.record(token("x")).is_err());
        }
        fs::rename(&aside, &path).unwrap();
    }
    let mut bytes = fs::read(&segment).unwrap();
    bytes[10] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refusal = place.refusal();
    assert!(refusal.contains("its SHA-256 is another than its name"), "{refusal}");
}

#[test]
fn a_crash_at_any_step_leaves_a_folder_that_opens() {
    for step in steps::ALL {
        let place = place();
        let (ledger, _) = place.open();
        let stop = |ledger: &Ledger, at| *ledger.shared.folder.steps.stop_after.lock().unwrap() = at;
        if matches!(step, Step::LogDrafted | Step::LogPlaced | Step::ManifestDrafted) {
            stop(&ledger, Some(step));
            assert!(ledger.record(token("first")).is_err(), "{step:?}");
            let (ledger, index) = place.open();
            ledger.record(token("second")).unwrap();
            assert!(!refuses(&index, "first") && refuses(&index, "second"), "{step:?}");
            assert_eq!(place.open().0.count(), 1, "{step:?}");
        }
        stop(&ledger, None);
        for number in 0..30 {
            ledger.record(token(&format!("t-{number}"))).unwrap();
        }
        ledger.record(entry(json!({ "disabled": "mallory" }))).unwrap();
        let (last, truth) = (ledger.last(), ledger.truth());
        stop(&ledger, Some(step));
        let reached = !matches!(step, Step::LogDrafted | Step::LogPlaced);
        assert_eq!(ledger.shared.tend((16, 4), Timestamp::now()).is_err(), reached, "{step:?}");
        // Another process finds it so, and goes on.
        let check = |ledger: &Ledger, index: &RevocationIndex| {
            assert_eq!((ledger.last(), ledger.truth()), (last, truth), "{step:?}");
            assert!((0..30).all(|number| refuses(index, &format!("t-{number}"))), "{step:?}");
            assert_eq!(index.standing(&presented("c", "mallory"), Timestamp::now()), Standing::Disabled, "{step:?}");
        };
        let (again, index) = place.open();
        check(&again, &index);
        again.record(token("after")).unwrap();
        again.shared.tend((8, 2), Timestamp::now()).unwrap();
        // The one that stopped goes on as well: an error is no crash.
        stop(&ledger, None);
        ledger.record(token("later")).unwrap();
        ledger.shared.tend((8, 2), Timestamp::now()).unwrap();
        let (third, index) = place.open();
        assert!(refuses(&index, "after") && refuses(&index, "later") && refuses(&index, "t-0"), "{step:?}");
        assert_eq!(third.state().unwrap().changes, ledger.state().unwrap().changes, "{step:?}");
        let drafts = fs::read_dir(&place.folder).unwrap().chain(fs::read_dir(place.folder.join("segments")).unwrap());
        let drafts = drafts.filter(|file| file.as_ref().unwrap().path().to_str().unwrap().ends_with(".draft")).count();
        third.shared.tend((1, 0), Timestamp::now()).unwrap();
        assert!(drafts <= 1, "{step:?} leaves {drafts} drafts");
    }
}

/// What a follower is told while something else is under way; it must not wait for that.
fn follows(ledger: &Ledger) -> Looked {
    let begun = Instant::now();
    let looked = ledger.follow().unwrap();
    // Less than who waits for the lock waits, and more than a machine stands still.
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    looked
}

#[test]
fn t01_a_process_that_is_stopped_with_the_lock_keeps_nobody_from_following() {
    let place = place();
    let (ledger, index) = place.open();
    ledger.record(token("first")).unwrap();
    for tends in [false, true] {
        let held = folder::Folder::new(place.folder.clone()).lock().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                if tends {
                    ledger.shared.tend((1, 0), Timestamp::now()).map(drop)
                } else {
                    ledger.record(token("second")).map(drop)
                }
            });
            std::thread::sleep(Duration::from_millis(200));
            assert!(follows(&ledger) == Looked::Nothing && !waits.is_finished());
            drop(held);
            waits.join().unwrap().unwrap();
        });
    }
    assert!(refuses(&index, "second"));
    assert!(ledger.state().unwrap().changes.is_empty());
}

#[test]
fn t01_a_slow_disk_keeps_nobody_from_following_and_nobody_reads_what_it_has_not_taken() {
    let place = place();
    let (ledger, index) = place.open();
    ledger.record(token("first")).unwrap();
    let last = ledger.last();
    std::thread::scope(|scope| {
        let slow = Slow::at(&ledger, Step::LogAppended);
        let recorded = scope.spawn(|| ledger.record(token("second")));
        while place.lines().len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(follows(&ledger) == Looked::Writing && !refuses(&index, "second") && ledger.last() == last);
        // Who has to have looked waits for it, but not for ever.
        assert_eq!(ledger.follow_after(Duration::from_millis(20)).unwrap(), Looked::Writing);
        let looks = scope.spawn(|| ledger.follow_after(Duration::from_secs(30)).map(|looked| (looked, ledger.last())));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!looks.is_finished());
        drop(slow);
        let (looked, then) = looks.join().unwrap().unwrap();
        assert!(looked == Looked::Nothing && then > last, "{looked:?}");
        assert_eq!(recorded.join().unwrap().unwrap().change.prev, last);
    });
    assert!(refuses(&index, "second"));
    for step in [Step::ManifestPlaced, Step::ShorterLogDrafted, Step::ShorterLogPlaced] {
        ledger.record(token("more")).unwrap();
        let last = ledger.last();
        std::thread::scope(|scope| {
            let slow = Slow::at(&ledger, step);
            let tended = scope.spawn(|| ledger.shared.tend((1, 0), Timestamp::now()));
            std::thread::sleep(Duration::from_millis(100));
            // It has come so far by then, or later on a busy machine.
            let begun = Instant::now();
            while follows(&ledger) != Looked::Writing {
                assert!(begun.elapsed() < Duration::from_secs(20), "{step:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!tended.is_finished() && ledger.last() == last, "{step:?}");
            drop(slow);
            assert!(tended.join().unwrap().unwrap());
        });
        assert!(ledger.state().unwrap().changes.is_empty() && ledger.last() == last);
    }
    ledger.record(token("third")).unwrap();
    let (again, index) = place.open();
    assert!(["first", "second", "more", "third"].iter().all(|id| refuses(&index, id)));
    assert_eq!(again.last(), ledger.last());
}

/// The disk takes its time there, until this is dropped.
struct Slow<'l>(&'l Ledger);

impl<'l> Slow<'l> {
    fn at(ledger: &'l Ledger, step: Step) -> Self {
        *ledger.shared.folder.steps.wait_after.lock().unwrap() = Some(step);
        Self(ledger)
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        *self.0.shared.folder.steps.wait_after.lock().unwrap() = None;
    }
}

#[test]
fn t16_what_the_disk_does_not_take_was_never_there() {
    let place = place();
    let (ledger, index) = place.open();
    ledger.record(token("first")).unwrap();
    let (lines, last) = (place.lines(), ledger.last());
    *ledger.shared.folder.steps.stop_after.lock().unwrap() = Some(Step::LogAppended);
    assert!(ledger.record(token("second")).is_err());
    assert_eq!((place.lines(), ledger.last()), (lines, last));
    assert!(follows(&ledger) == Looked::Nothing && !refuses(&index, "second"));
    *ledger.shared.folder.steps.stop_after.lock().unwrap() = None;
    assert_eq!(ledger.record(token("third")).unwrap().change.prev, last);
    let (other, index) = place.open();
    assert!(refuses(&index, "third") && !refuses(&index, "second"));
    other.record(token("fourth")).unwrap();
    assert_eq!(follows(&ledger), Looked::News, "it follows again");
}

#[test]
fn what_is_written_anew_says_the_same() {
    let place = place();
    let (ledger, _) = place.open();
    for number in 0..200 {
        ledger.record(token(&format!("t-{}", number % 50))).unwrap();
        ledger.record(entry(json!({ "subject": format!("s-{}", number % 5) }))).unwrap();
        ledger.record(entry(json!({ "disabled": "one" }))).unwrap();
        ledger.record(entry(json!({ "enabled": "one" }))).unwrap();
        if number % 10 == 9 {
            ledger.shared.tend((16, 4), Timestamp::now()).unwrap();
        }
    }
    let state = ledger.state().unwrap();
    assert!(state.count() < 200, "{}", state.count());
    assert!(state.manifest.segments.len() < 12, "{}", state.manifest.segments.len());
    assert_eq!(state.manifest.segments.iter().filter(|segment| segment.expires_at.is_none()).count(), 1);
    assert_eq!(ledger.changes_after(state.manifest.base).unwrap(), state.changes);
    assert_eq!(ledger.changes_after(state.manifest.base - 1), None);
    let files = fs::read_dir(place.folder.join("segments")).unwrap().count();
    assert!(files <= 2 * state.manifest.segments.len() + 4, "{files} files");
    for segment in &state.manifest.segments {
        assert_eq!(ledger.segment(&segment.sha256).unwrap().len() as u64, segment.bytes);
    }
    let (again, index) = place.open();
    assert_eq!((again.count(), again.last()), (ledger.count(), ledger.last()));
    assert!((0..50).all(|number| refuses(&index, &format!("t-{number}"))));
    assert!(ledger.segment("../manifest").is_err());
}

#[test]
fn t05_what_is_over_drops_out_and_what_stands_stays() {
    let place = place();
    let (ledger, _) = place.open();
    let now = u64::try_from(Timestamp::now().0).unwrap();
    for number in 0..20 {
        // A day after `exp` + leeway + 60 s is over; a second less is not.
        ledger.record(entry(json!({ "jti": format!("over-{number}"), "expires_at": now - 91 - DAY }))).unwrap();
        ledger.record(entry(json!({ "jti": format!("live-{number}"), "expires_at": now - 30 - DAY }))).unwrap();
    }
    ledger.record(entry(json!({ "key": "k-1" }))).unwrap();
    ledger.record(entry(json!({ "override": "alice", "roles": ["ROLE_USER"] }))).unwrap();
    assert!(ledger.shared.tend((1, 0), Timestamp::now()).unwrap());
    let state = ledger.state().unwrap();
    assert_eq!((state.count(), state.changes.len()), (22, 0));
    assert_eq!(state.manifest.segments[1].expires_at, Some(i64::try_from(now).unwrap() + 60));
    assert_eq!(state.last(), ledger.last());
    let (again, index) = place.open();
    assert_eq!(again.last(), ledger.last());
    assert!(refuses(&index, "live-0") && !refuses(&index, "over-0"));
}

#[test]
fn t05_a_folder_that_is_opened_and_tended_while_the_clock_is_ahead_loses_nothing() {
    let place = place();
    let (ledger, _) = place.open();
    let now = Timestamp::now();
    for entry in
        [json!({ "jti": "a" }), json!({ "jti": "b", "expires_at": now.0 + 100 }), json!({ "subject": "alice" })]
    {
        ledger.record(self::entry(entry)).unwrap();
    }
    let all_there = |index: &RevocationIndex| {
        let old = Presented { issued_at: now.plus(-10), ..presented("other", "alice") };
        refuses(index, "a") && refuses(index, "b") && index.standing(&old, Timestamp::now()) == Standing::Revoked
    };
    assert!(ledger.shared.tend((1, 0), now).unwrap());
    assert!(!ledger.shared.tend((1, 0), now.plus(7200)).unwrap(), "a time zone ahead");
    // Years ahead, for as long as the clock is not known to be right: at a start, and after a jump.
    let (mut settled, ahead) = (Settled::default(), now.plus(100_000_000));
    assert!(!ledger.shared.tend((1, 0), settled.time(ahead, Instant::now())).unwrap());
    drop(ledger);
    // Reading it makes nothing of what time it is.
    let (again, index) = place.open();
    assert!(all_there(&index) && again.count() == 3);
    assert!((0..16).all(|_| index.sweep(now.plus(7200)) == 0));
    (0..200).for_each(|n| drop(again.record(token(&format!("more-{n}"))).unwrap()));
    assert!(all_there(&index));
    assert!(again.shared.tend((1, 0), now.plus(7200)).unwrap());
    assert!(all_there(&place.open().1));
    assert!(again.shared.tend((1, 0), now.plus(1_000_000)).unwrap(), "what is over does go");
    assert_eq!(place.open().0.count(), 0);
}

/// What somebody records whose clock shows a time that is off by so many seconds.
fn recorded_at(place: &Place, after: &Change, off: i64, said: Entry) -> (Change, String) {
    let at = unix_millis().saturating_add_signed(off * 1000);
    let n = at.max(after.n + 1);
    let change = Change { n, prev: after.n, at, id: uuid::Uuid::now_v7(), entry: said };
    let line = place.key().sign(Kind::Change, &change).unwrap();
    (change, line)
}

#[test]
fn t14_a_clock_that_is_behind_the_last_change_takes_no_floor_that_is_too_low() {
    for (off, later) in [(7200, true), (1_000_000, false)] {
        let place = place();
        let first = place.open().0.record(token("first")).unwrap();
        // Now is the time of this one, and this machine's clock is behind.
        let (change, line) = recorded_at(&place, &first.change, off, token("second"));
        place.write_lines(&[place.lines(), vec![line]].concat());
        let (ledger, index) = place.open();
        let floor = ledger.record(entry(json!({ "subject": "alice" }))).unwrap();
        assert_eq!(floor.change.at == change.at, later, "{off}");
        let now = i64::try_from(change.at / 1000).unwrap();
        for index in [index, place.open().1] {
            let old = Presented { issued_at: Timestamp(now - 10), ..presented("other", "alice") };
            assert_eq!(index.standing(&old, Timestamp(now)) == Standing::Revoked, later, "{off}");
            let new = Presented { issued_at: Timestamp(now + 1), ..old };
            assert_eq!(index.standing(&new, Timestamp(now)), Standing::Good, "{off}");
        }
    }
}

#[test]
fn t02_what_was_lost_and_gives_something_does_not_win_over_what_was_decided_since() {
    let place = place();
    let (ledger, index) = place.open();
    for lost in [json!({ "enabled": "alice" }), json!({ "override": "alice", "roles": ["ROLE_A"] })] {
        ledger.record(token("old")).unwrap();
        let backup = fs::read(place.log()).unwrap();
        ledger.record(entry(lost)).unwrap();
        ledger.record(entry(json!({ "enabled": "bob" }))).unwrap();
        ledger.record(token("lost")).unwrap();
        fs::write(place.log(), &backup).unwrap();
        let (other, _) = place.open();
        other.record(entry(json!({ "disabled": "alice" }))).unwrap();
        other.record(entry(json!({ "override": "alice", "roles": [] }))).unwrap();
        assert_eq!(ledger.follow().unwrap(), Looked::News);
        ledger.record(token("next")).unwrap();
        let (again, fresh) = place.open();
        for index in [&index, &fresh] {
            assert_eq!(index.standing(&presented("any", "alice"), Timestamp::now()), Standing::Disabled);
            assert!(refuses(index, "lost") && refuses(index, "next"), "the rest is recorded again");
        }
        let said =
            |about: Entry| again.state().unwrap().changes.iter().filter(|change| change.change.entry == about).count();
        assert!(said(entry(json!({ "enabled": "bob" }))) > 0);
        assert_eq!(said(entry(json!({ "enabled": "alice" }))), 0);
        assert_eq!(said(entry(json!({ "override": "alice", "roles": ["ROLE_A"] }))), 0);
    }
}

#[test]
fn t16_a_batch_that_a_power_loss_left_in_part_is_set_aside_and_what_was_acknowledged_is_needed() {
    let place = place();
    let first = place.open().0.record(token("first")).unwrap();
    let good = fs::read(place.log()).unwrap();
    // Three changes that were written at once, a second later, and another one after them.
    let mut batch = Vec::new();
    let mut before = first.change.clone();
    for (id, off) in [("a", 1), ("b", 1), ("c", 1), ("later", 2)] {
        let (mut change, _) = recorded_at(&place, &before, off, token(id));
        change.at = first.change.at + u64::try_from(off).unwrap() * 1000;
        let line = place.key().sign(Kind::Change, &change).unwrap();
        batch.push(format!("{line}\n").into_bytes());
        before = change;
    }
    let hole = |line: &[u8], kept: usize| [&vec![0; line.len() - kept], &line[line.len() - kept..]].concat();
    for torn in [
        vec![0; 100],
        [vec![0; 100], b"\n".to_vec()].concat(),
        hole(&batch[0], 40),
        [hole(&batch[0], 1), batch[1].clone(), batch[2].clone()].concat(),
        [hole(&batch[0], 30), batch[1].clone(), batch[2][..50].to_vec()].concat(),
        [hole(&batch[0], 0), hole(&batch[1], 9), batch[2].clone()].concat(),
    ] {
        fs::write(place.log(), [&good[..], &torn].concat()).unwrap();
        let (ledger, index) = place.open();
        assert_eq!((ledger.last(), refuses(&index, "first")), (first.change.n, true));
        assert_eq!(fs::read(place.log()).unwrap(), good, "it is set aside");
        assert_eq!(fs::read(place.folder.join("changes.torn")).unwrap(), torn);
        ledger.record(token("next")).unwrap();
        assert_eq!(place.open().0.count(), 2);
    }
    for altered in [
        // A line behind it that was written later, when the batch had been acknowledged.
        [hole(&batch[0], 30), batch[1].clone(), batch[2].clone(), batch[3].clone()].concat(),
        [hole(&batch[0], 30), batch[1].clone(), batch[2].to_ascii_uppercase()].concat(),
        [batch[0].to_ascii_uppercase(), batch[1].clone()].concat(),
    ] {
        fs::write(place.log(), [&good[..], &altered].concat()).unwrap();
        let refusal = place.refusal();
        assert!(refusal.contains("changes.log line 2: ") && refusal.contains("has been changed on disk"), "{refusal}");
        assert_eq!(fs::read(place.log()).unwrap(), [&good[..], &altered].concat());
    }
}

#[test]
fn an_override_that_is_long_past_does_not_stand_in_the_way_of_a_line_of_a_file() {
    let place = place();
    let (ledger, index) = place.open();
    ledger.record(entry(json!({ "override": "alice", "roles": ["ROLE_A"] }))).unwrap();
    assert!(index.overrides("alice", Timestamp::now()).is_some());
    drop(ledger);
    // The retention of these settings, so that it is past at once.
    let past = Retention { from_arrival: -10 - DAY.cast_signed(), ..place.settings().retention };
    let open = |retention| {
        let index = Arc::<RevocationIndex>::default();
        let by_hand = entry(json!({ "override": "alice", "roles": [] }));
        index.apply(&by_hand, Arrival::by_hand(Timestamp::now()), retention);
        let ledger = Ledger::open(LedgerSettings { retention, ..place.settings() }, Arc::clone(&index)).unwrap();
        (ledger, index)
    };
    let (_, index) = open(past);
    assert!(index.overrides("alice", Timestamp::now()).is_some(), "the line counts");
    let stays = Retention { overrides_stay: true, ..past };
    assert!(open(stays).1.overrides("alice", Timestamp::now()).is_some());
}

#[test]
fn an_entry_that_could_not_be_read_again_is_refused_before_it_is_written() {
    let place = place();
    let (ledger, _) = place.open();
    let endless = Entry::Token { id: "x".repeat(1025).into(), issuer: None, expires_at: None };
    let empty = Entry::Disabled { id: "".into() };
    let late = Entry::Floor { of: FloorOf::Everything, issued_until: Some(Timestamp(i64::MAX)) };
    let huge = Entry::Keys { jwks: Box::new(json!("x".repeat(300 << 10))) };
    for entry in [endless, empty, late, huge] {
        assert!(matches!(ledger.record(entry), Err(LedgerError::Refused(_))));
    }
    assert!(!place.folder.exists());
    let read_only = LedgerSettings { key: None, pinned: place.pinned(), ..place.settings() };
    let read_only = Ledger::open(read_only, Arc::default()).unwrap();
    assert!(matches!(read_only.record(token("a")), Err(LedgerError::ReadOnly)));
    assert!(matches!(read_only.make(), Err(LedgerError::ReadOnly)));
}

#[test]
fn a_folder_that_cannot_be_written_is_a_clear_error_and_nothing_is_in_force() {
    let place = place();
    let (ledger, index) = place.open();
    fs::create_dir_all(place.folder.parent().unwrap()).unwrap();
    fs::write(&place.folder, "a file").unwrap();
    let error = ledger.record(token("a")).unwrap_err().to_string();
    assert!(error.contains("data/revocations") && error.contains("the folder cannot be made"), "{error}");
    assert!(!refuses(&index, "a"));
    fs::remove_file(&place.folder).unwrap();
    ledger.record(token("a")).unwrap();
    assert!(refuses(&index, "a"));
}

#[test]
fn t02_a_folder_that_was_put_back_is_noticed_and_what_is_known_is_recorded_again() {
    let place = place();
    let (ledger, index) = place.open();
    ledger.record(token("old")).unwrap();
    let backup = fs::read(place.log()).unwrap();
    let lost = ledger.record(token("lost")).unwrap();
    fs::write(place.log(), &backup).unwrap();
    assert_eq!(ledger.follow().unwrap(), Looked::News);
    assert!(refuses(&index, "lost"), "what is known stays known");
    let next = ledger.record(token("next")).unwrap();
    assert!(next.change.n > lost.change.n, "no number is given twice");
    let (_, index) = place.open();
    assert!(["old", "lost", "next"].into_iter().all(|id| refuses(&index, id)));
}

#[tokio::test]
async fn a_change_counts_as_published_when_the_publisher_says_so() {
    let place = place();
    let settings = LedgerSettings { published: Published::ByPublisher, ..place.settings() };
    let ledger = Ledger::open(settings, Arc::default()).unwrap();
    let n = ledger.recorded(token("a")).await.unwrap().change.n;
    assert!(!ledger.wait_published(n, Duration::from_millis(20)).await);
    let publisher = Arc::clone(&ledger);
    let mut wake = ledger.subscribe();
    wake.mark_unchanged();
    let publishing = tokio::spawn(async move {
        wake.changed().await.unwrap();
        publisher.published(*wake.borrow());
    });
    let receipt = ledger.revoke(token("b")).await.unwrap();
    assert_eq!(receipt, Receipt { number: ledger.last(), propagated: true });
    publishing.await.unwrap();
    ledger.published(n);
    assert!(ledger.wait_published(receipt.number, Duration::ZERO).await, "it never goes back");
}

#[test]
fn the_publication_key_is_made_once_and_signs_what_its_public_half_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/publication.json");
    let (made, again) = (load_or_create_publication(&path).unwrap(), load_or_create_publication(&path).unwrap());
    assert_eq!(made.public, again.public);
    let key = PublicationKey::from_pkcs8(again.pkcs8.expose()).unwrap();
    assert_eq!(made.public, [key.public()]);
    let pinned = PinnedKeys::parse(made.public.iter().map(String::as_str)).unwrap();
    assert_eq!(pinned.open::<u8>(Kind::Heartbeat, &key.sign(Kind::Heartbeat, &7).unwrap()), Ok(7));
}

#[test]
fn t03_the_number_beside_a_writer_is_never_older_than_what_was_recorded_before() {
    let place = place();
    let peek = || last_number(&place.folder, &place.pinned()).unwrap();
    assert_eq!(peek(), 0);
    let (ledger, _) = place.open();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 0..200 {
                ledger.record(entry(json!({ "subject": format!("s-{}", number % 3) }))).unwrap();
                if number % 20 == 19 {
                    ledger.shared.tend((8, number % 3), Timestamp::now()).unwrap();
                }
            }
        });
        let mut before = 0;
        while !writing.is_finished() {
            let recorded = ledger.last();
            let seen = peek();
            assert!(seen >= recorded && seen >= before, "{seen} {recorded} {before}");
            before = seen;
        }
    });
    assert_eq!(peek(), ledger.last());
    assert!(last_number(&place.folder, &another().pinned()).is_err(), "nobody's word is taken for it");
}

#[test]
fn t02_a_manifest_of_another_truth_or_an_older_one_is_noticed() {
    let (place, other) = (place(), another());
    let (ledger, index) = place.open();
    for number in 0..12 {
        ledger.record(token(&format!("t-{number}"))).unwrap();
    }
    let copy = |from: &Path| ["manifest", "changes.log"].map(|name| (name, fs::read(from.join(name)).unwrap()));
    let old = copy(&place.folder);
    assert!(ledger.shared.tend((4, 2), Timestamp::now()).unwrap());
    for number in 12..20 {
        ledger.record(token(&format!("t-{number}"))).unwrap();
    }
    let last = ledger.last();
    for (name, bytes) in &old {
        fs::write(place.folder.join(name), bytes).unwrap();
    }
    ledger.follow().unwrap();
    let next = ledger.record(token("next")).unwrap();
    assert!(next.change.n > last, "no number is given twice");
    let (_, fresh) = place.open();
    for index in [&index, &fresh] {
        assert!((0..20).all(|number| refuses(index, &format!("t-{number}"))));
        // Of what was lost with segments nothing is known: nobody's token counts any more.
        let old = Presented { uv: Some(last), ..presented("good", "somebody") };
        assert_eq!(index.standing(&old, Timestamp::now()), Standing::Revoked);
        let new = Presented { uv: Some(next.change.n), ..presented("good", "somebody") };
        assert_eq!(index.standing(&new, Timestamp::now()), Standing::Good);
    }

    let strange = Place { folder: other.folder.clone(), document: place.document.clone(), ..other };
    strange.open().0.record(token("x")).unwrap();
    for (name, bytes) in copy(&strange.folder) {
        fs::write(place.folder.join(name), bytes).unwrap();
    }
    let error = ledger.follow().unwrap_err().to_string();
    assert!(error.contains("of another truth now"), "{error}");
    assert!(ledger.record(token("y")).is_err());
}

#[test]
fn t11_the_last_floor_over_everything_is_known_also_when_it_stands_in_a_segment() {
    let place = place();
    let (ledger, _) = place.open();
    let floor = entry(json!({ "everything": true }));
    let n = ledger.record(floor).unwrap().change.n;
    for number in 0..8 {
        ledger.record(token(&format!("t-{number}"))).unwrap();
    }
    assert_eq!(ledger.state().unwrap().everything, n);
    assert!(ledger.shared.tend((4, 0), Timestamp::now()).unwrap());
    let state = ledger.state().unwrap();
    assert!(state.changes.is_empty());
    assert_eq!(state.everything, n);
    assert_eq!(place.open().0.state().unwrap().everything, n, "after a restart too");
}

#[test]
fn segments_that_stand_and_were_cut_for_their_size_are_merged_as_one() {
    let full = segments::LARGEST as u64;
    let standing = |records, bytes| SegmentOf { sha256: format!("{records}").into(), records, bytes, expires_at: None };
    let held = [standing(100, full), standing(101, full + 1), standing(60, 9 << 20)];
    let plan = |tail| Plan::of(&held, tail, (1, 0), |_| false, Timestamp(0)).merged;
    assert_eq!(plan(30), [false; 3], "more than half of the last one, and not of all");
    assert_eq!(plan(130), [false; 3]);
    assert_eq!(plan(131), [true; 3]);
}
