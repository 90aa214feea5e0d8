//! What is believed, and what is not: lines by hand, no Redis.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use uuid::Uuid;

use super::*;
use crate::revocation::{Entry, OnStale, Presented, PublicationKey, SegmentOf, Standing};

const TRUTH: Uuid = Uuid::from_u128(7);

fn key() -> PublicationKey {
    PublicationKey::from_pkcs8(Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref()).unwrap()
}

/// A publisher by hand and who follows it.
pub(in crate::sync::replica) struct Play {
    key: PublicationKey,
    pub(in crate::sync::replica) followed: Followed,
    freshness: Arc<Freshness>,
    pub(in crate::sync::replica) now: u64,
}

fn token(id: &str) -> Entry {
    Entry::Token { id: id.into(), issuer: None, expires_at: None }
}

pub(in crate::sync::replica) fn play() -> Play {
    play_of(key())
}

fn play_of(key: PublicationKey) -> Play {
    let pinned = Arc::new(PinnedKeys::parse([key.public().as_str()]).unwrap());
    let freshness = Arc::new(Freshness::following(Duration::from_secs(30), OnStale::Deny));
    let retention = Retention::new(Duration::from_secs(3600), Duration::from_secs(30));
    let target = Target { index: Arc::new(RevocationIndex::default()), retention };
    let followed = Followed::new(pinned, target, Arc::clone(&freshness));
    let now = u64::try_from(Timestamp::now().0).unwrap() * 1000;
    Play { key, followed, freshness, now }
}

impl Play {
    /// The same publisher, and a follower that was started anew.
    pub(in crate::sync::replica) fn started_anew(self) -> Self {
        Self { now: self.now, ..play_of(self.key) }
    }

    pub(in crate::sync::replica) fn change(&self, prev: u64, n: u64, id: &str) -> String {
        self.says(prev, n, token(id))
    }

    fn says(&self, prev: u64, n: u64, entry: Entry) -> String {
        let change = Change { n, prev, at: self.now, id: Uuid::now_v7(), entry };
        self.key.sign(Kind::Change, &change).unwrap()
    }

    fn manifest(&self, epoch: u64, base: u64, segments: Vec<SegmentOf>) -> String {
        self.key.sign(Kind::Manifest, &Manifest { epoch, truth: TRUTH, base, segments }).unwrap()
    }

    pub(in crate::sync::replica) fn beat(&self, epoch: u64, n: u64, count: u64, at: u64) -> String {
        self.beat_of(Heartbeat { epoch, truth: TRUTH, n, count, at, keeps: None })
    }

    fn beat_of(&self, heartbeat: Heartbeat) -> String {
        self.key.sign(Kind::Heartbeat, &heartbeat).unwrap()
    }

    /// Loads an empty manifest and these changes.
    pub(in crate::sync::replica) fn load(&mut self, epoch: u64, lines: &[String]) -> Result<(), BadState> {
        self.load_with(epoch, Vec::new(), lines)
    }

    /// Loads a manifest with these segments, which are there, and these changes.
    pub(in crate::sync::replica) fn load_with(
        &mut self,
        epoch: u64,
        segments: Vec<SegmentOf>,
        lines: &[String],
    ) -> Result<(), BadState> {
        let pinned = Arc::clone(self.followed.pinned());
        let mut reading = Reading::begin(&pinned, &self.manifest(epoch, 0, segments), self.now)?;
        for line in lines {
            reading.change(&pinned, self.followed.target(), line)?;
        }
        self.followed.adopt(reading);
        Ok(())
    }

    pub(in crate::sync::replica) fn hear(&mut self, line: &str) -> Verdict {
        self.followed.heartbeat(Some(line), self.now)
    }

    pub(in crate::sync::replica) fn take(&mut self, line: &str) -> Verdict {
        self.followed.change(Some(line), self.now)
    }

    pub(in crate::sync::replica) fn holds(&self, id: &str) -> bool {
        self.standing("s", id) == Standing::Revoked
    }

    fn is_disabled(&self, subject: &str) -> bool {
        self.standing(subject, "t") == Standing::Disabled
    }

    fn standing(&self, subject: &str, id: &str) -> Standing {
        let now = Timestamp::now();
        let presented = Presented {
            issuer: "i",
            subject,
            token_id: Some(id),
            session: None,
            key_id: None,
            service: "oms",
            uv: None,
            issued_at: now,
            leeway: 0,
        };
        self.followed.target().index.standing(&presented, now)
    }

    fn decides(&self) -> bool {
        self.freshness.may_decide(Timestamp(i64::try_from(self.now / 1000).unwrap()))
    }
}

/// Loaded with changes 10 and 20, and proven.
pub(in crate::sync::replica) fn proven() -> Play {
    let mut play = play();
    let lines = [play.change(0, 10, "a"), play.change(10, 20, "b")];
    play.load(1, &lines).unwrap();
    play.now += 500;
    let beat = play.beat(1, 20, 2, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    play
}

#[test]
fn t10_a_load_decides_nothing_before_a_newer_heartbeat_has_confirmed_number_and_count() {
    let mut play = play();
    let lines = [play.change(0, 10, "a"), play.change(10, 20, "b")];
    play.load(1, &lines).unwrap();
    assert!(play.holds("a") && play.holds("b") && !play.decides());
    let older = play.beat(1, 20, 2, play.now);
    assert_eq!(play.hear(&older), Verdict::Go);
    assert!(!play.decides(), "it speaks of a moment before the load");
    let (more, other) = (play.beat(1, 20, 3, play.now + 1), play.beat(1, 20, 1, play.now + 2));
    play.now += 10;
    for line in [more, other] {
        assert_eq!(play.hear(&line), Verdict::Reload(Cause::Count));
        assert!(!play.decides(), "it holds another number of entries");
    }
    let further = play.beat(1, 30, 3, play.now + 1);
    assert_eq!(play.hear(&further), Verdict::Go);
    assert!(play.followed.is_waiting() && !play.decides(), "it knows of more");
    let right = play.beat(1, 20, 2, play.now + 2);
    // n went back within the epoch: this one is not believed.
    assert_eq!(play.hear(&right), Verdict::Refused(Doubt::Backwards));
    let missing = play.change(20, 30, "c");
    assert_eq!(play.take(&missing), Verdict::Heard);
    assert!(play.decides() && play.holds("c"));
}

#[test]
fn t10_a_load_from_an_emptied_redis_forgets_nothing() {
    let mut play = proven();
    play.load(2, &[]).unwrap();
    let beat = play.beat(2, 0, 0, play.now + 1);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(play.holds("a") && play.holds("b"));
}

#[test]
fn t01_only_a_newer_heartbeat_that_is_not_too_old_counts_as_heard() {
    let mut play = proven();
    let heard = |play: &Play| play.freshness.staleness_at(i64::try_from(play.now).unwrap()).unwrap();
    assert_eq!(heard(&play), Duration::ZERO);
    let same = play.beat(1, 20, 2, play.now);
    play.now += 3_000;
    assert_eq!(play.hear(&same), Verdict::Refused(Doubt::Old));
    let kept_back = play.beat(1, 20, 2, play.now);
    play.now += 5_001;
    assert_eq!(play.hear(&kept_back), Verdict::Refused(Doubt::Old));
    assert_eq!(heard(&play), Duration::from_millis(8_001));
    let just = play.beat(1, 20, 2, play.now - 5_000);
    assert_eq!(play.hear(&just), Verdict::Heard);
    assert_eq!(heard(&play), Duration::from_secs(5), "it counts from its own time");
    let future = play.beat(1, 20, 2, play.now + 5_001);
    assert_eq!(play.hear(&future), Verdict::Refused(Doubt::Future));
    let skewed = play.beat(1, 20, 2, play.now + 4_000);
    assert_eq!(play.hear(&skewed), Verdict::Heard);
}

const HOUR: u64 = 3_600_000;

#[test]
fn t01_a_clock_that_was_set_back_costs_no_more_than_a_heartbeat_and_lets_no_replay_count() {
    let mut play = proven();
    let before = play.beat(1, 10, 1, play.now - HOUR + 100);
    let (same, again) = (play.beat(1, 20, 2, play.now - HOUR + 200), play.beat(1, 20, 2, play.now - HOUR + 150));
    let older = play.beat(1, 20, 2, play.now - HOUR - 5_000);
    play.now -= HOUR;
    assert!(!play.decides(), "how old the last one is nobody knows");
    play.now += 300;
    assert_eq!(play.hear(&older), Verdict::Refused(Doubt::Old), "over 5 s old");
    assert_eq!(
        play.hear(&before),
        Verdict::Refused(Doubt::Old),
        "it knows of less, and was signed when the clock showed this before"
    );
    let elsewhere = play.beat(2, 10, 1, play.now);
    assert_eq!(play.hear(&elsewhere), Verdict::Refused(Doubt::Old), "in whatever epoch");
    assert!(!play.decides());
    assert_eq!(play.hear(&same), Verdict::Heard);
    assert!(play.decides());
    assert_eq!(play.hear(&again), Verdict::Refused(Doubt::Old), "from now on only newer ones count");
    play.now += 1_000;
    let next = play.beat(1, 20, 2, play.now);
    assert_eq!(play.hear(&next), Verdict::Heard);
    play.now += 31_001;
    assert!(!play.decides());
}

#[test]
fn t10_a_load_that_began_before_the_clock_was_set_back_is_proven_by_a_heartbeat_after_it() {
    let mut play = play();
    let lines = [play.change(0, 10, "a")];
    play.load(1, &lines).unwrap();
    play.now -= HOUR;
    let at_once = play.beat(1, 10, 1, play.now);
    assert_eq!(play.hear(&at_once), Verdict::Go);
    play.now += 1_000;
    let next = play.beat(1, 10, 1, play.now);
    assert_eq!(play.hear(&next), Verdict::Heard);
    assert!(play.decides());
}

#[test]
fn t01_a_heartbeat_that_knows_of_more_does_not_count() {
    let mut play = proven();
    play.now += 2_000;
    let more = play.beat(1, 21, 3, play.now);
    assert_eq!(play.hear(&more), Verdict::Go);
    assert_eq!(play.freshness.staleness_at(i64::try_from(play.now).unwrap()), Some(Duration::from_secs(2)));
}

#[test]
fn t11_what_no_pinned_key_signed_counts_for_nothing() {
    let mut play = proven();
    let stranger = Play { key: key(), ..self::play() };
    play.now += 100;
    let forged = stranger.beat(1, 20, 2, play.now);
    let unsigned = forged.rsplit(' ').next().unwrap().to_owned();
    let raised = play.beat(1, 20, 2, play.now).replace("\"n\":20", "\"n\":19");
    let other_kind = play.change(20, 30, "x");
    for line in [&forged, &unsigned, &raised, &other_kind, &String::new()] {
        assert_eq!(play.hear(line), Verdict::Refused(Doubt::Forged), "{line}");
    }
    assert_eq!(play.followed.heartbeat(None, play.now), Verdict::Refused(Doubt::Forged));
    for line in [stranger.change(20, 30, "x"), play.change(20, 30, "x").replace("\"x\"", "\"y\""), "{}".to_owned()] {
        assert_eq!(play.take(&line), Verdict::Refused(Doubt::Forged));
    }
    assert!(!play.holds("x") && !play.holds("y"));
    let manifest = stranger.manifest(1, 0, Vec::new());
    assert!(matches!(Reading::begin(play.followed.pinned(), &manifest, 0), Err(BadState::Line { .. })));
}

#[test]
fn t11_a_replayed_change_and_one_before_the_last_do_nothing_and_a_gap_is_filled_by_reading_again() {
    let mut play = proven();
    let (again, next, after) = (play.change(10, 20, "b"), play.change(20, 30, "c"), play.change(30, 40, "d"));
    assert_eq!(play.take(&again), Verdict::Go);
    assert_eq!(play.take(&after), Verdict::Reload(Cause::Gap));
    assert!(play.holds("d"), "a revocation acts on arrival");
    assert_eq!(play.take(&next), Verdict::Go);
    assert_eq!(play.followed.last(), 30);
}

fn disabled() -> Entry {
    Entry::Disabled { id: "m".into() }
}

fn enabled() -> Entry {
    Entry::Enabled { id: "m".into() }
}

#[test]
fn t11_what_revokes_counts_on_arrival_and_what_gives_something_back_where_it_follows_only() {
    let mut play = proven();
    let (early, played) = (play.says(40, 50, disabled()), play.says(55, 60, enabled()));
    assert_eq!(play.take(&early), Verdict::Reload(Cause::Gap));
    assert_eq!(play.take(&played), Verdict::Reload(Cause::Gap));
    assert!(play.is_disabled("m"), "it is of another truth, or out of order");
    let held = serde_json::from_value(serde_json::json!({"override": "m", "roles": ["ROLE_ROOT"]})).unwrap();
    let played = play.says(55, 60, held);
    assert_eq!(play.take(&played), Verdict::Reload(Cause::Gap));
    let keys = play.says(55, 60, Entry::Keys { jwks: Box::new(serde_json::json!({"keys": []})) });
    assert_eq!(play.take(&keys), Verdict::Reload(Cause::Gap));
    let index = Arc::clone(&play.followed.target().index);
    assert!(index.overrides("m", Timestamp::now()).is_none() && index.announced_keys().is_none());
    let next = [play.says(20, 30, disabled()), play.says(30, 70, enabled())];
    next.iter().for_each(|line| assert_eq!(play.take(line), Verdict::Go));
    assert!(!play.is_disabled("m"), "this one follows, and counts at once");
}

#[test]
fn t11_the_first_change_of_a_truth_gives_nothing_back_before_a_heartbeat_has_confirmed_it() {
    let mut play = proven();
    let line = play.says(20, 30, disabled());
    play.take(&line);
    play.load(2, &[]).unwrap();
    let beat = play.beat(2, 0, 0, play.now + 1);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    let played = play.says(0, 40, enabled());
    assert_eq!(play.take(&played), Verdict::Go);
    assert!(play.is_disabled("m"), "the first change of a truth that was lost follows as well as ours");
    let next = [play.says(40, 50, disabled()), play.says(50, 60, enabled())];
    next.iter().for_each(|line| assert_eq!(play.take(line), Verdict::Go));
    assert!(play.is_disabled("m"), "what comes behind it is of the same truth");
    let beat = play.beat(2, 60, 3, play.now + 2);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(!play.is_disabled("m"));
}

#[test]
fn t11_a_load_gives_nothing_back_before_a_heartbeat_has_confirmed_it() {
    let mut play = proven();
    let line = play.says(20, 30, disabled());
    play.take(&line);
    let lines = [play.says(0, 40, enabled())];
    play.load(2, &lines).unwrap();
    let more = play.says(40, 50, enabled());
    assert_eq!(play.take(&more), Verdict::Go);
    assert!(play.is_disabled("m"));
    play.now += 1_000;
    let beat = play.beat(2, 50, 2, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(!play.is_disabled("m"));
}

#[test]
fn t02_another_epoch_is_another_writing_of_the_state() {
    let mut play = proven();
    play.now += 1_000;
    for epoch in [2, 3] {
        let beat = play.beat(epoch, 20, 2, play.now + epoch);
        assert_eq!(play.hear(&beat), Verdict::Reload(Cause::Epoch));
    }
    let lines = [play.change(0, 10, "a"), play.change(10, 20, "b")];
    play.load(3, &lines).unwrap();
    play.now += 1_000;
    let beat = play.beat(3, 20, 2, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
}

#[test]
fn a_newer_manifest_is_read_for_its_shorter_tail_and_proves_no_less() {
    let mut play = proven();
    play.now += 1_000;
    // Some of the records were over and have gone from the segments.
    let beat = play.beat(1, 20, 1, play.now);
    assert_eq!(play.hear(&beat), Verdict::Reload(Cause::Manifest));
    assert!(play.decides());
    assert_eq!(play.freshness.staleness_at(i64::try_from(play.now).unwrap()), Some(Duration::ZERO));
}

#[test]
fn a_tail_that_grows_long_is_a_reason_to_look_for_a_newer_manifest() {
    let mut play = proven();
    let (mut last, mut count) = (20, 2);
    let mut grow = |play: &mut Play, to: u64| {
        while count < to {
            let line = play.change(last, last + 1, "a");
            assert_eq!(play.take(&line), Verdict::Go);
            (last, count) = (last + 1, count + 1);
        }
        play.now += 1;
        let beat = play.beat(1, last, count, play.now);
        play.hear(&beat)
    };
    assert_eq!(grow(&mut play, 8192), Verdict::Heard);
    assert_eq!(grow(&mut play, 8193), Verdict::Reload(Cause::Manifest));
    assert!(play.decides());
}

#[test]
fn where_there_is_no_last_good_state_no_line_is_kept_for_it() {
    let mut play = play();
    let followed =
        Followed::new(Arc::clone(play.followed.pinned()), play.followed.target().clone(), Arc::clone(&play.freshness));
    play.followed = followed.without_last_good();
    let lines = [play.change(0, 10, "a")];
    play.load(1, &lines).unwrap();
    play.now += 500;
    let (next, beat) = (play.change(10, 20, "b"), play.beat(1, 20, 2, play.now));
    play.take(&next);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(play.followed.kept().is_none());
    assert!(proven().followed.kept().is_some());
}

#[test]
fn t05_a_control_plane_that_keeps_entries_too_short_is_noticed_and_one_that_does_not_say_is_not() {
    let mut play = proven();
    assert_eq!(play.followed.keep_missing(), 0);
    // The largest `max_lifetime` + 2 × leeway + 60 s: an hour and two minutes here.
    for (keeps, missing) in [(Some(180), 3_540), (Some(3_720), 0), (Some(90_000), 0), (Some(3_719), 1), (None, 0)] {
        play.now += 1_000;
        let beat = Heartbeat { epoch: 1, truth: TRUTH, n: 20, count: 2, at: play.now, keeps };
        let beat = play.beat_of(beat);
        assert_eq!(play.hear(&beat), Verdict::Heard);
        assert_eq!(play.followed.keep_missing(), missing, "{keeps:?}");
    }
}

#[test]
fn t10_a_segment_is_what_its_name_says_or_nothing() {
    let play = play();
    let target = play.followed.target();
    let bytes =
        b"{\"n\":1,\"at\":1000,\"entry\":{\"jti\":\"s-1\"}}\n{\"n\":2,\"at\":1000,\"entry\":{\"jti\":\"s-2\"}}\n";
    let name = sha256(bytes);
    let mut changed = bytes.to_vec();
    changed[38] = b'9';
    assert_eq!(target.apply_segment(&name, &changed), Err(BadState::Content(name.as_str().into())));
    assert!(!play.holds("s-1"));
    assert_eq!(target.apply_segment(&name, bytes), Ok(Segment { records: 2, unproven: Vec::new() }));
    assert!(play.holds("s-1") && play.holds("s-2"));
    let strange = b"{\"n\":1,\"at\":1000,\"entry\":{\"jwt\":\"s-1\"}}\n";
    assert!(matches!(target.apply_segment(&sha256(strange), strange), Err(BadState::Record(_, 1, _))));
}

/// A segment with these records, which was fetched and read.
fn segment(play: &mut Play, records: &[(u64, Entry)]) -> SegmentOf {
    let record = |(n, entry): &(u64, Entry)| Record { n: *n, at: play.now, entry: entry.clone() };
    let lines = records.iter().map(|it| serde_json::to_string(&record(it)).unwrap() + "\n").collect::<String>();
    let name = sha256(lines.as_bytes());
    let Segment { records, unproven } = play.followed.target().apply_segment(&name, lines.as_bytes()).unwrap();
    play.followed.segment_read(name.as_str().into(), unproven);
    SegmentOf { sha256: name.as_str().into(), records, bytes: lines.len() as u64, expires_at: None }
}

fn root() -> Entry {
    serde_json::from_value(serde_json::json!({"override": "r", "roles": ["ROLE_ROOT"]})).unwrap()
}

fn is_root(play: &Play) -> bool {
    play.followed.target().index.overrides("r", Timestamp::now()).is_some()
}

#[test]
fn t11_an_old_segment_that_is_played_again_revokes_and_gives_nobody_anything() {
    let mut play = proven();
    let line = play.says(20, 30, disabled());
    play.take(&line);
    // Of another truth, whose changes are gone: the load ends with a gap, and what the segment said stays without.
    let old = segment(&mut play, &[(31, token("x")), (32, enabled()), (33, root())]);
    let gap = [play.change(40, 50, "d")];
    assert_eq!(play.load_with(3, vec![old.clone()], &gap), Err(BadState::Gap(0)));
    assert!(play.holds("x"), "it takes something");
    assert!(play.is_disabled("m") && !is_root(&play), "it gives something");
    // The next heartbeat confirms what was there before, and not this.
    play.now += 1_000;
    let beat = play.beat(1, 30, 3, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(play.is_disabled("m") && !is_root(&play));
    assert!(play.followed.has_segment(&old.sha256), "it waits");
    // Nor does one that confirms another state.
    play.load(4, &[]).unwrap();
    assert!(!play.followed.has_segment(&old.sha256), "it is fetched again if it is ever named again");
    let beat = play.beat(4, 0, 0, play.now + 1);
    play.now += 2;
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(play.is_disabled("m") && !is_root(&play));
}

#[test]
fn t11_what_a_segment_gives_counts_once_a_heartbeat_confirms_the_state_and_the_segment_is_read_once() {
    let mut play = proven();
    let line = play.says(20, 30, disabled());
    play.take(&line);
    let named = vec![segment(&mut play, &[(32, enabled()), (31, root())]), segment(&mut play, &[(29, token("x"))])];
    let lines = [play.says(0, 40, disabled()), play.says(40, 50, enabled())];
    for epoch in [3, 4] {
        play.load_with(epoch, named.clone(), &lines).unwrap();
        assert!(play.is_disabled("m") && !is_root(&play));
        assert!(named.iter().all(|it| play.followed.has_segment(&it.sha256)), "not fetched again for a second load");
    }
    play.now += 1_000;
    let beat = play.beat(4, 40, 4, play.now);
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(is_root(&play));
    assert!(play.is_disabled("m"), "the change after the segments is the later one");
    let beat = play.beat(4, 50, 5, play.now + 1);
    play.now += 1;
    assert_eq!(play.hear(&beat), Verdict::Heard);
    assert!(!play.is_disabled("m"));
    assert!(play.followed.unproven.is_empty() && named.iter().all(|it| play.followed.applied.contains(&it.sha256)));
}

#[test]
fn t11_what_waits_in_segments_of_states_that_are_not_followed_is_let_go() {
    let mut play = proven();
    let followed = segment(&mut play, &[(5, enabled())]);
    play.load_with(2, vec![followed.clone()], &[]).unwrap();
    let (failed, read) = (segment(&mut play, &[(6, enabled())]), segment(&mut play, &[(7, enabled())]));
    let manifest = Manifest { epoch: 3, truth: TRUTH, base: 0, segments: vec![read.clone()] };
    play.followed.forget_unproven_but(&manifest);
    assert!(play.followed.has_segment(&followed.sha256) && play.followed.has_segment(&read.sha256));
    assert!(!play.followed.has_segment(&failed.sha256));
}
