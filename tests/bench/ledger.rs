//! What the revocation folder costs: `cargo run --profile dist --example ledger [FOLDER] [RECORDS]`. One caller and a thousand record
//! changes, then a folder of a million live records is opened as a starting process does. Use a folder on the disk that is meant: `/tmp`
//! may be memory.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program of a benchmark may stop loudly, and says what it did"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use doorward::clock::Timestamp;
use doorward::ledger::{Ledger, LedgerSettings, Published};
use doorward::revocation::{Entry, PinnedKeys, PublicationKey, Retention, RevocationIndex};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let records: usize = arguments.next().map_or(1_000_000, |count| count.parse().unwrap());
    let place = tempfile::tempdir_in(folder).unwrap();
    let document = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref().to_vec();
    let open = |name: &str| {
        let index = Arc::new(RevocationIndex::default());
        (opened(&place.path().join(name), &document, &index), index)
    };

    for callers in [1, 10, 100, 1000] {
        let (ledger, _) = open(&format!("latency-{callers}"));
        let (calls, begun) = (2000.max(callers * 4), Instant::now());
        let mut times = record(&ledger, callers, calls);
        let all = begun.elapsed();
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{callers:>4} callers: {:.0} changes/s, latency 50% {:.2?}, 99% {:.2?}, longest {:.2?}",
            calls as f64 / all.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }

    let (ledger, _) = open("many");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| record(&ledger, 512, records));
        while !writing.is_finished() {
            ledger.tend(Timestamp::now()).unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let tending = Instant::now();
    while ledger.tend(Timestamp::now()).unwrap() {}
    println!("{records} changes recorded in {:.1?}, the last tending took {:.1?}", begun.elapsed(), tending.elapsed());
    let segments = ledger.manifest().unwrap().segments.len();
    let began = Instant::now();
    let (again, index) = open("many");
    println!("{} records in {segments} segments and a tail opened in {:.2?}", again.count(), began.elapsed());
    assert_eq!((again.count(), index.len()), (records as u64, records));
}

fn opened(folder: &Path, document: &[u8], index: &Arc<RevocationIndex>) -> Arc<Ledger> {
    let settings = LedgerSettings {
        folder: folder.to_owned(),
        key: Some(PublicationKey::from_pkcs8(document).unwrap()),
        pinned: PinnedKeys::default(),
        retention: Retention::new(Duration::from_hours(1), Duration::from_secs(30)),
        published: Published::AtOnce,
        metrics: Arc::default(),
    };
    Ledger::open(settings, Arc::clone(index)).unwrap()
}

/// How long each call took.
fn record(ledger: &Ledger, callers: usize, calls: usize) -> Vec<Duration> {
    let next = AtomicUsize::new(0);
    let expires_at = Some(Timestamp::now().plus(3000));
    let call = || {
        let mut times = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < calls {
            let id = uuid::Uuid::now_v7().to_string().into();
            let began = Instant::now();
            ledger.record(Entry::Token { id, issuer: None, expires_at }).unwrap();
            times.push(began.elapsed());
        }
        times
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(call)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    })
}
