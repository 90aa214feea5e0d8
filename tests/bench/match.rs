//! What deciding costs: clean, match and decide, for a caller whose token is known, at 100 to 100,000 routes,
//! drawn uniformly; matchit, which matches only, for comparison.
//!
//! Real routes are used where `DOORWARD_CORPORA` names them, else generated ones of the same shape.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use doorward::clock::Timestamp;
use doorward::policy::{Begin, Caller, CompileInput, Outcome, PolicyFile, Snapshot, SourceText, compile, roles_file};
use doorward::request::RequestFacts;

/// Method and pattern.
type Routes = Vec<(String, String)>;

fn corpora(names: &[&str]) -> Option<Routes> {
    let folder = PathBuf::from(std::env::var_os("DOORWARD_CORPORA")?).join("routes");
    let mut routes = Routes::new();
    for name in names {
        let text = std::fs::read(folder.join(format!("{name}.json"))).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
        for route in json.as_array()? {
            let path = route["path"].as_str()?;
            // Several documents are put side by side below a segment of their own.
            let path = if names.len() > 1 { format!("/{name}{path}") } else { path.to_owned() };
            routes.push((route["method"].as_str()?.to_owned(), path));
        }
    }
    Some(routes)
}

/// Routes of an imagined platform: services, collections, items, and what belongs to items.
fn generated(count: usize) -> Routes {
    let mut routes = Routes::new();
    'all: for service in 0.. {
        for collection in 0..25 {
            let base = format!("/api/v1/service-{service}/collection-{collection}");
            for (method, path) in [
                ("GET", base.clone()),
                ("POST", base.clone()),
                ("GET", format!("{base}/{{id}}")),
                ("PUT", format!("{base}/{{id}}")),
                ("DELETE", format!("{base}/{{id}}")),
                ("GET", format!("{base}/{{id}}/members")),
                ("GET", format!("{base}/{{id}}/members/{{member}}")),
                ("POST", format!("{base}/{{id}}/actions/restart")),
            ] {
                if routes.len() == count {
                    break 'all;
                }
                routes.push((method.to_owned(), path));
            }
        }
    }
    routes
}

fn snapshot(routes: &Routes) -> Snapshot {
    let mut paths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut shapes = BTreeSet::new();
    for (method, path) in routes {
        if shapes.insert((method, fill(path, 0))) {
            paths.entry(path).or_default().insert(method);
        }
    }
    // YAML files are limited in size, so a large policy is several files; here one is compiled from parts.
    let mut files: Vec<PolicyFile> = Vec::new();
    let mut permissions = BTreeSet::new();
    let head = "version: 1\nservice: bench\nupstream: bench\npaths:\n";
    let (mut text, mut left) = (head.to_owned(), paths.len());
    for (path, methods) in paths {
        text.push_str(&format!("  \"{path}\":\n"));
        for method in methods {
            let action = if method == "GET" { "view" } else { "edit" };
            let permission = format!("{}:{action}", thing(path));
            text.push_str(&format!("    {}: {permission}\n", method.to_lowercase()));
            permissions.insert(permission);
        }
        left -= 1;
        if text.len() > 1 << 20 || left == 0 {
            let source = Arc::new(SourceText {
                name: format!("{}.yaml", files.len()),
                text: std::mem::replace(&mut text, head.to_owned()),
            });
            let (file, found) = PolicyFile::parse(source);
            assert!(!found.has_errors(), "{}", found.render(false));
            files.extend(file);
        }
    }
    let permissions = format!("{permissions:?}").replace(['{', '}'], "");
    let roles = format!(
        "version: 1\npermissions:\n  bench: [{permissions}]\nroles:\n  ROLE_EDITOR: {{ permissions: [{permissions}] }}\n"
    );
    let (roles, found) = roles_file::parse(Arc::new(SourceText { name: "roles.yaml".into(), text: roles }));
    assert!(!found.has_errors(), "{}", found.render(false));
    let Some((_, roles)) = roles else { unreachable!("no roles") };
    let upstreams = BTreeSet::from(["bench".to_owned()]);
    let input = CompileInput { files: &files, roles: Arc::new(roles), upstreams: Some(&upstreams), report: false };
    let (snapshot, found) = compile(&input);
    let first = found.0.first().map(|finding| finding.message.clone());
    let Some(snapshot) = snapshot else { unreachable!("{first:?}") };
    snapshot
}

/// What permissions are about: a service of the imagined platform has its own.
fn thing(path: &str) -> &str {
    path.split('/').find(|segment| segment.starts_with("service-")).unwrap_or("thing")
}

/// A path that matches the pattern, with values in place of its parameters.
fn fill(pattern: &str, seed: usize) -> String {
    let mut path = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push_str(&format!("v{seed}"));
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    path + rest
}

/// Requests for routes drawn uniformly, one behind the other in memory: the text of a request has just been read
/// from its connection, so that waiting for it is no part of what is measured here, and the same for everybody.
struct Sample<'r> {
    texts: String,
    /// Method, and where the target ends.
    requests: Vec<(&'r str, usize)>,
}

impl<'r> Sample<'r> {
    /// Every route is asked for equally often, in an order without order.
    fn draw(routes: &'r Routes) -> Self {
        let mut order: Vec<usize> = (0..routes.len()).cycle().take(routes.len().max(20_000)).collect();
        let mut state = 1_u64;
        for at in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, usize::try_from(state >> 33).unwrap_or(0) % (at + 1));
        }
        let (mut texts, mut requests) = (String::new(), Vec::with_capacity(order.len()));
        for number in order {
            let (method, path) = &routes[number];
            texts.push_str(&fill(path, number));
            // One text for each method, as in the parser of requests.
            let same = routes.iter().find(|(other, _)| other == method).map_or(&**method, |(other, _)| other);
            requests.push((same, texts.len()));
        }
        Self { texts, requests }
    }

    /// Method and target, over and over.
    fn endless(&self) -> impl Iterator<Item = (&'r str, &str)> {
        let mut start = 0;
        std::iter::repeat(()).flat_map(|()| &self.requests).map(move |(method, end)| {
            let from = if start < *end { start } else { 0 };
            start = *end;
            (*method, &self.texts[from..*end])
        })
    }
}

fn bench(criterion: &mut Criterion) {
    let all = ["github", "kubernetes", "stripe", "gitea", "harbor", "argocd", "discourse"];
    let sets = [
        (100, corpora(&["github"]).map(|routes| routes.into_iter().step_by(12).take(100).collect())),
        (1_223, corpora(&["github"])),
        (3_627, corpora(&all)),
        (100_000, None),
    ];
    let mut group = criterion.benchmark_group("clean_match_decide");
    group.throughput(Throughput::Elements(1));
    for (count, routes) in sets {
        let routes = routes.unwrap_or_else(|| generated(count));
        let snapshot = snapshot(&routes);
        let roles = [doorward::rbac::RoleKey::parse("ROLE_EDITOR").unwrap_or_else(|_| unreachable!())];
        let grants = snapshot.roles().resolve("bench", &roles, &[]);
        let sample = Sample::draw(&routes);
        let decide = |method: &str, target: &str| {
            let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let facts = RequestFacts { method, host: None, target, client };
            match snapshot.begin(&facts, Timestamp(0)) {
                Begin::NeedsCaller(pending) => pending.with_caller(&Caller { subject: "u", grants: &grants }).outcome,
                Begin::Decided(decision) => decision.outcome,
            }
        };
        for (method, target) in sample.endless().take(sample.requests.len()) {
            assert_eq!(decide(method, target), Outcome::Allow, "{method} {target}");
        }
        // The first line of a set says what memory its index takes.
        let bytes = snapshot.index_bytes() / routes.len();
        group.bench_function(BenchmarkId::new("doorward", format!("{count} ({bytes} B a route)")), |bencher| {
            let mut requests = sample.endless();
            bencher.iter(|| requests.next().map(|(method, target)| decide(method, black_box(target))));
        });
        let mut router = matchit::Router::new();
        for (_, path) in &routes {
            // What matchit cannot take (two names at one place, several parameters in a segment) is left out.
            let _ = router.insert(path.replace("...}", "}"), ());
        }
        group.bench_function(BenchmarkId::new("matchit, matching only", count), |bencher| {
            let mut requests = sample.endless();
            bencher.iter(|| requests.next().map(|(_, target)| router.at(black_box(target)).is_ok()));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
