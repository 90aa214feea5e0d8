//! Makes a folder of very many live revocations, through the ledger itself: `many DATA COUNT`, where DATA holds the publication key that
//! doorward made and gets the folder `revocations`. Six in ten are token ids, two sessions, two subjects.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program of a benchmark may stop loudly, and says what it did"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorward::clock::Timestamp;
use doorward::ledger::{Ledger, LedgerSettings, Published};
use doorward::revocation::{Entry, FloorOf, PinnedKeys, PublicationKey, Retention, RevocationIndex};

/// Callers at once: as many share one `fsync`.
const CALLERS: usize = 512;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().unwrap());
    let count: usize = arguments.next().unwrap().parse().unwrap();
    let set: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("publication-key.jwks.json")).unwrap()).unwrap();
    let half = |name: &str| URL_SAFE_NO_PAD.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_seed_and_public_key(&half("d"), &half("x")).unwrap();
    let key = PublicationKey::from_pkcs8(pair.to_pkcs8().unwrap().as_ref()).unwrap();
    let ledger = Ledger::open(
        LedgerSettings {
            folder: data.join("revocations"),
            key: Some(key),
            pinned: PinnedKeys::default(),
            // One hour of max_lifetime and half a minute of leeway, as configured by default.
            retention: Retention::new(Duration::from_hours(1), Duration::from_secs(30)),
            published: Published::AtOnce,
            metrics: Arc::default(),
        },
        Arc::new(RevocationIndex::default()),
    )
    .unwrap();
    let begun = Instant::now();
    let expires_at = Some(Timestamp::now().plus(50 * 60));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let id: Box<str> = uuid::Uuid::now_v7().to_string().into();
                    let entry = match number % 10 {
                        0..6 => Entry::Token { id, issuer: None, expires_at },
                        6..8 => Entry::Session { id, expires_at },
                        _ => Entry::Floor { of: FloorOf::Subject(id), issued_until: None },
                    };
                    ledger.record(entry).unwrap();
                }
            });
        }
        // So that the log does not grow to hundreds of megabytes meanwhile, as a running process would not let it.
        while next.load(Ordering::Relaxed) < count {
            ledger.tend(Timestamp::now()).unwrap();
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    while ledger.tend(Timestamp::now()).unwrap() {}
    println!("{} changes recorded in {:.0?}", ledger.count(), begun.elapsed());
}
