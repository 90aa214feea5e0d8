//! What a token costs: its verification under each algorithm, a hit of the cache, a look at the revocation index.
//!
//! `cargo bench --bench token`
#![expect(clippy::expect_used, reason = "a benchmark")]

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

fn revocation(criterion: &mut Criterion) {
    let presented = Presented {
        issuer: "bench",
        subject: "01936f2e-7b1c-7c3a-9f00-1d2e3f405060",
        token_id: Some("01936f2e-7b1c-7c3a-9f00-bbbbbbbbbbbb"),
        session: Some("01936f2e-7b1c-7c3a-9f00-aaaaaaaaaaaa"),
        key_id: Some("key-1"),
        service: "oms",
        uv: None,
        issued_at: NOW,
        leeway: 0,
    };
    let retention = Retention::new(Duration::from_secs(3600), Duration::from_secs(30));
    let index = RevocationIndex::default();
    criterion.bench_function("standing, nothing revoked", |bencher| {
        bencher.iter(|| index.standing(black_box(&presented), NOW));
    });
    for n in 0..100_000 {
        index.apply(
            &Entry::Token { id: format!("t-{n}").into(), issuer: None, expires_at: None },
            Arrival::by_hand(NOW),
            retention,
        );
    }
    criterion.bench_function("standing, 100,000 token ids, a miss", |bencher| {
        bencher.iter(|| index.standing(black_box(&presented), NOW));
    });
    for n in 0..100_000 {
        for entry in [
            Entry::Session { id: format!("s-{n}").into(), expires_at: None },
            Entry::Floor { of: FloorOf::Subject(format!("u-{n}").into()), issued_until: Some(NOW) },
            Entry::Disabled { id: format!("u-{n}").into() },
            Entry::Key { id: format!("k-{n}").into(), issuer: None },
        ] {
            index.apply(&entry, Arrival::by_hand(NOW), retention);
        }
    }
    criterion.bench_function("standing, five kinds of 100,000, a miss", |bencher| {
        bencher.iter(|| index.standing(black_box(&presented), NOW));
    });
}

criterion_group!(benches, verification, cache, revocation);
criterion_main!(benches);
