//! What a token costs: its verification under each algorithm, a hit of the cache, a look at the revocation index.
//!
//! `cargo bench --bench token`
#![expect(clippy::expect_used, reason = "a benchmark")]

use std::hash::BuildHasher as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use doorward::clock::Timestamp;
use doorward::rbac::RoleKey;
use doorward::revocation::{Arrival, Entry, FloorOf, Presented, Retention, RevocationIndex};
use doorward::token::jwk::{KeySet, Trust};
use doorward::token::mint::{MintRequest, mint};
use doorward::token::{Algorithm, ClaimPaths, Confers, Issuer, IssuerKeys, NearCache, RolesFrom, TokenCache, Verifier};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn issuer(algorithm: Algorithm) -> Issuer {
    let document = KeySet::generate(algorithm).expect("a key");
    Issuer {
        name: "bench".into(),
        issuer: Some("https://issuer.example".into()),
        audience: vec!["oms".into()],
        algorithms: vec![algorithm],
        keys: IssuerKeys::fixed(KeySet::parse(document.expose(), &[algorithm], Trust::File).expect("a key set")),
        claims: ClaimPaths::default(),
        max_lifetime: Duration::from_secs(3600),
        leeway: Duration::from_secs(30),
        own: true,
        subject_prefix: String::new(),
        roles_from: RolesFrom::Token,
        confers: Confers::Nothing,
        admin: false,
    }
}

fn token(issuer: &Issuer) -> String {
    let roles = ["ROLE_EDITOR", "ROLE_USER"].map(|role| RoleKey::parse(role).expect("a role"));
    let request = MintRequest {
        subject: "01936f2e-7b1c-7c3a-9f00-1d2e3f405060",
        roles: &roles,
        session: Some("01936f2e-7b1c-7c3a-9f00-aaaaaaaaaaaa"),
        name: Some("Ada Lovelace"),
        email: Some("ada@example.com"),
        ttl: Duration::from_secs(900),
        ..MintRequest::default()
    };
    mint(issuer, &request, NOW).expect("a token")
}

fn verification(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let issuer = issuer(algorithm);
        let token = token(&issuer);
        let verifier = Verifier::new(vec![issuer]);
        group.bench_function(algorithm.name(), |bencher| {
            bencher.iter(|| verifier.verify(black_box(&token), NOW).is_ok());
        });
    }
}

fn cache(criterion: &mut Criterion) {
    let issuer = issuer(Algorithm::RS256);
    let tokens: Vec<String> = (0..1000).map(|_| token(&issuer)).collect();
    let (cache, near) = (TokenCache::<()>::new(Verifier::new(vec![issuer]), 64 << 20), NearCache::default());
    for token in &tokens {
        assert!(cache.authenticate(&near, token, NOW).1.is_ok());
    }
    let mut next = tokens.iter().cycle();
    let name = format!("cache hit, {} bytes, 1,000 tokens", tokens[0].len());
    criterion.bench_function(&name, |bencher| {
        bencher.iter(|| cache.authenticate(&near, black_box(next.next().expect("endless")), NOW).1.is_ok());
    });
}

/// A token id as a version 7 UUID, each differing from the next in a few bits.
fn token_id(n: u128) -> String {
    uuid::Uuid::from_u128(0x0193_6f2e_7b1c_7c3a_9f00_1d2e_3f40_5060 + n * 0x1_0000_0003).to_string()
}

/// Memory of this process in use, in bytes (`proc(5)`, `statm`).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}

fn revocation(criterion: &mut Criterion) {
    let presented = Presented {
        issuer: "bench",
        subject: "01936f2e-7b1c-7c3a-9f00-1d2e3f405060",
        token_id: Some("01936f2e-7b1c-7c3a-9f00-bbbbbbbbbbbb"),
        session: Some("01936f2e-7b1c-7c3a-9f00-aaaaaaaaaaaa"),
        key_id: Some("key-1"),
        service: "oms",
        uv: None,
        issued_at: NOW.plus(1),
        leeway: 0,
    };
    let retention = Retention::new(Duration::from_secs(3600), Duration::from_secs(30));
    let index = RevocationIndex::default();
    let apply = |entry: &Entry| index.apply(entry, Arrival::by_hand(NOW), retention);
    criterion.bench_function("standing, nothing revoked", |bencher| {
        bencher.iter(|| index.standing(black_box(&presented), NOW));
    });
    let token = |id: String| Entry::Token { id: id.into(), issuer: None, expires_at: Some(NOW.plus(600)) };
    for (from, to) in [(0, 100_000), (100_000, 1_000_000)] {
        let entries: Vec<Entry> = (from..to).map(|n| token(token_id(n))).collect();
        let (before, started) = (resident(), std::time::Instant::now());
        entries.iter().for_each(apply);
        let (took, grown) = (started.elapsed(), resident().saturating_sub(before) >> 20);
        #[expect(clippy::print_stdout, reason = "a measurement")]
        {
            println!("{from} to {to} token ids took {took:?} and {grown} MiB of resident memory");
        }
        // Ids drawn in an order that no cache can guess.
        let ids = |from: u128| -> Vec<String> { (0..100_000).map(|n| token_id(from + n * 7_919_777 % to)).collect() };
        for (name, ids) in [("a miss", ids(10 * to)), ("a hit", ids(0))] {
            let mut ids = ids.iter().cycle();
            criterion.bench_function(&format!("standing, {to} token ids, {name}"), |bencher| {
                bencher.iter(|| {
                    let presented = Presented { token_id: ids.next().map(String::as_str), ..presented };
                    index.standing(black_box(&presented), NOW)
                });
            });
        }
    }
    let ids: Vec<String> = (0..100_000).map(|n| token_id(n * 7_919_777)).collect();
    let mut ids = ids.iter().cycle();
    criterion.bench_function("drawing an id, to be taken off the above", |bencher| {
        bencher.iter(|| black_box(ids.next()).is_some());
    });
    for n in 0..100_000 {
        for entry in [
            Entry::Session { id: format!("s-{n}").into(), expires_at: None },
            Entry::Floor { of: FloorOf::Subject(format!("u-{n}").into()), issued_until: Some(NOW) },
            Entry::Disabled { id: format!("u-{n}").into() },
            Entry::Key { id: format!("k-{n}").into(), issuer: None },
        ] {
            apply(&entry);
        }
    }
    criterion.bench_function("standing, five kinds of 100,000 and more, a miss", |bencher| {
        bencher.iter(|| index.standing(black_box(&presented), NOW));
    });
}

/// The peer: hashbrown in 256 shards behind locks, keyed by the 16 bytes that a UUID says. It knows token ids alone, only such, and
/// nothing of issuers.
fn sharded_hashbrown(criterion: &mut Criterion) {
    type Shard = std::sync::RwLock<hashbrown::HashMap<u128, u32, foldhash::quality::RandomState>>;
    let hashing = foldhash::quality::RandomState::default();
    let shards: Vec<Shard> = (0..256).map(|_| Shard::default()).collect();
    let raw = |text: &str| uuid::Uuid::parse_str(text).expect("a UUID").as_u128();
    let shard = |raw: u128| &shards[(hashing.hash_one(raw) >> 56) as usize];
    let total = 1_000_000_u128;
    for n in 0..total {
        let raw = raw(&token_id(n));
        shard(raw).write().expect("not poisoned").insert(raw, 1_800_000_600);
    }
    for (name, from) in [("a miss", 10 * total), ("a hit", 0)] {
        let ids: Vec<String> = (0..100_000).map(|n| token_id(from + n * 7_919_777 % total)).collect();
        let mut ids = ids.iter().cycle();
        criterion.bench_function(&format!("peer: sharded hashbrown, {total} token ids, {name}"), |bencher| {
            bencher.iter(|| {
                let raw = raw(ids.next().map_or("", String::as_str));
                let found = shard(raw).read().expect("not poisoned").get(&raw).copied();
                found.is_some_and(|end| NOW.0 < i64::from(end))
            });
        });
    }
}

criterion_group!(benches, verification, cache, revocation, sharded_hashbrown);
criterion_main!(benches);
