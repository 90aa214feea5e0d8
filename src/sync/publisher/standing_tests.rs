#![expect(clippy::unwrap_used, reason = "tests")]

use aws_lc_rs::signature::Ed25519KeyPair;

use super::*;
use crate::revocation::PublicationKey;

fn key() -> PublicationKey {
    PublicationKey::from_pkcs8(Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref()).unwrap()
}

fn change(key: &PublicationKey, n: u64, prev: u64, entry: Entry) -> Arc<Recorded> {
    let change = Change { n, prev, at: n, id: Uuid::now_v7(), entry };
    let line = key.sign(Kind::Change, &change).unwrap().into();
    Arc::new(Recorded { change, line })
}

fn session(key: &PublicationKey, n: u64, prev: u64) -> Arc<Recorded> {
    change(key, n, prev, Entry::Session { id: n.to_string().into(), expires_at: None })
}

fn folder(base: u64, changes: &[Arc<Recorded>]) -> State {
    let manifest = Manifest { epoch: 1, truth: Uuid::nil(), base, segments: Vec::new() };
    State { manifest: Arc::new(manifest), changes: changes.to_vec(), everything: 0 }
}

fn entry(recorded: &Recorded) -> StreamEntry {
    StreamEntry { id: (recorded.change.n, 0), line: Some(recorded.line.clone()) }
}

fn garbage(id: (u64, u64)) -> StreamEntry {
    StreamEntry { id, line: Some("garbage".into()) }
}

#[test]
fn t10_a_stream_is_whole_when_it_is_ours_and_all_of_it() {
    let key = key();
    let ours = [session(&key, 11, 10), session(&key, 12, 11), session(&key, 13, 12)];
    let entries: Vec<_> = ours.iter().map(|recorded| entry(recorded)).collect();
    assert!(is_whole(&entries, &ours, 10, 13));
    assert!(is_whole(&entries, &ours, 10, 12), "what comes after is for later");
    assert!(is_whole(&entries, &ours, 11, 13), "what stands in segments is not looked for");
    assert!(is_whole(&[], &ours, 13, 13));
    assert!(!is_whole(&entries[..2], &ours, 10, 13), "the end is missing");
    assert!(!is_whole(&[], &ours, 10, 13));
    assert!(!is_whole(&entries[1..], &ours, 10, 13), "the start is missing");
    for id in [(12, 0), (12, 1)] {
        let changed = [entries[0].clone(), garbage(id), entries[2].clone()];
        assert!(!is_whole(&changed, &ours, 10, 13), "{id:?} was replaced");
    }
    let more = [entries[0].clone(), entries[1].clone(), garbage((12, 1)), entries[2].clone()];
    assert!(!is_whole(&more, &ours, 10, 13));
}

#[test]
fn t02_what_follows_ours_and_is_not_in_the_folder_was_published_by_another_copy_of_it() {
    let (key, theirs) = (key(), key());
    let pinned = PinnedKeys::parse([key.public().as_str()]).unwrap();
    let ours = [session(&key, 11, 10), session(&key, 12, 11)];
    let folder = folder(10, &ours);
    let found = |changes: &[Arc<Recorded>], base| {
        let entries: Vec<_> = changes.iter().map(|recorded| entry(recorded)).collect();
        strangers(&entries, base, &folder, &pinned)
    };
    assert!(found(&ours, 10).is_empty());
    let next = [ours.to_vec(), vec![session(&key, 13, 12), session(&key, 14, 13)]].concat();
    assert_eq!(found(&next, 10), [13, 14]);
    assert_eq!(found(&[session(&key, 13, 11)], 10), [13], "from the middle of ours");
    assert_eq!(found(&[session(&key, 11, 10)], 10), [11], "another change of the same number");
    assert_eq!(found(&[session(&key, 21, 20)], 20), [21], "after our manifest, which has what the folder lacks");
    assert!(found(&[session(&key, 21, 20)], 10).is_empty(), "T11: of another truth");
    assert!(found(&[session(&key, 21, 0)], 0).is_empty(), "T11: the first of another truth");
    assert!(found(&[session(&theirs, 13, 12)], 10).is_empty(), "T11: signed by nobody");
}

#[test]
fn t02_a_number_is_lost_until_a_floor_over_everything_has_settled_it() {
    let key = key();
    let none = BTreeSet::new();
    let ours = [session(&key, 11, 10), session(&key, 15, 11)];
    let before = folder(10, &ours);
    assert_eq!(lost([3, 10, 11, 15], &before, &none), None);
    assert_eq!(lost([11, 13, 12], &before, &none), Some(13), "also below the folder's last");
    assert_eq!(lost([16], &before, &none), Some(16));
    assert_eq!(lost([13], &before, &BTreeSet::from([13])), None, "it is recorded again under another number");
    assert_eq!(lost([9_007_199_254_740_000, u64::MAX], &before, &none), None, "no number that any clock gave");
    let floor = change(&key, 17, 15, Entry::Floor { of: FloorOf::Everything, issued_until: None });
    let after = folder(10, &[ours.to_vec(), vec![floor]].concat());
    assert_eq!(lost([12, 13, 16], &after, &none), None, "T11: played again it logs nobody out");
    assert_eq!(lost([18], &after, &none), Some(18));
}

#[test]
fn t11_an_old_state_of_another_truth_that_is_played_again_logs_nobody_out_again() {
    let key = key();
    let floor = change(&key, 17, 15, Entry::Floor { of: FloorOf::Everything, issued_until: None });
    let before = folder(10, &[session(&key, 15, 10)]);
    assert_eq!(unsettled([12, 16], &before, 0), Some(16), "T2: what was revoked there is not known here");
    assert_eq!(unsettled([12, 16], &before, 15), Some(16));
    assert_eq!(unsettled([12, 16], &before, 16), None, "what was revoked there is over");
    let after = folder(10, &[session(&key, 15, 10), floor]);
    assert_eq!(unsettled([12, 16], &after, 0), None);
    let in_segments = State { everything: 17, ..folder(40, &[session(&key, 41, 40)]) };
    assert_eq!(unsettled([12, 16], &in_segments, 0), None, "the floor went into a segment");
    assert_eq!(unsettled([18], &in_segments, 0), Some(18));
}
