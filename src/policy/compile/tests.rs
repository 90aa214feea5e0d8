#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::source::RateKey;
use crate::policy::testing::{ask, compile_texts, outcome, snapshot, snapshot_of, word};
use crate::policy::{CompileInput, PolicyFile, SourceText, compile, roles_file};
use crate::request::Host;

/// Each `compile-*.yaml` of `tests/policy/broken/` (with `compile-NAME.2.yaml` as a second file of the same host).
#[test]
fn broken_files_name_the_place_and_the_mend() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/broken");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut count = 0;
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".yaml")) else { continue };
        if !name.starts_with("compile-") || name.ends_with(".2") {
            continue;
        }
        let second = folder.join(format!("{name}.2.yaml"));
        let mut texts = vec![(format!("{name}.yaml"), std::fs::read_to_string(&path).unwrap())];
        if second.exists() {
            texts.push((format!("{name}.2.yaml"), std::fs::read_to_string(&second).unwrap()));
        }
        let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (&**name, &**text)).collect();
        let (compiled, found) = compile_texts(&texts, false);
        assert!(compiled.is_none() && found.has_errors(), "{name} is not broken");
        assert!(found.0.iter().all(|finding| finding.help.is_some()), "{name} has a finding without a mend");
        settings.bind(|| insta::assert_snapshot!(name, found.render(false)));
        count += 1;
    }
    assert!(count >= 12, "only {count} broken files");
}

#[test]
fn what_is_odd_but_usable_is_warned_of() {
    let text = "version: 1\nservice: oms\nupstream: oms\npaths:\n  /a:\n    post: public\n    get: order:unheld\n  /b: { get: report:run }\n";
    let (compiled, found) = compile_texts(&[("oms.yaml", text)], false);
    let codes: Vec<&str> = found.0.iter().map(|finding| finding.code).collect();
    // `report:run` is held by a tier and by ROLE_ADMIN.
    assert_eq!(codes, ["public-changes-data", "permission-unheld"]);
    assert!(compiled.unwrap().unasked_permissions().contains(&"order:edit"));
}

#[test]
fn pages_that_cannot_send_a_token_are_warned_of() {
    let text = |lines: &str| {
        format!("version: 1\nservice: oms\nupstream: oms\n{lines}\npaths:\n  /b: {{ get: report:run }}\n")
    };
    let codes = |lines: &str| -> Vec<&str> {
        let (compiled, found) = compile_texts(&[("oms.yaml", &text(lines))], false);
        assert!(compiled.is_some());
        found.0.iter().map(|finding| finding.code).collect()
    };
    let cors = |headers: &str| format!("cors: {{ origins: [\"https://a.test\"], headers: {headers} }}");
    assert_eq!(codes(&cors("[X-Tenant]")), ["cors-without-authorization"]);
    for headers in ["[]", "[X-Tenant, Authorization]", "[\"*\"]"] {
        assert_eq!(codes(&cors(headers)), [""; 0], "{headers}");
    }
    assert_eq!(codes(&format!("{}\ncredentials: {{ cookie: __Host-s }}", cors("[X-Tenant]"))), [""; 0]);
}

/// SPEC 4.1, as it stands there.
const SPEC_EXAMPLE: &str = "\
# yaml-language-server: $schema=./doorward-policy.v1.schema.json
version: 1
service: oms
upstream: oms                       # a name under [upstreams] in doorward.toml
hosts: [oms.example.com]            # optional; default any
paths:
  /health:
    get: public
  /api/v1/schema:
    get: schema:view
    post: schema:create
  /api/v1/schema/{id}:
    get: schema:view
    put: schema:edit
    delete: { all: [schema:delete, schema:edit] }
  /api/v1/users/{user_id}/orders:
    get: { any: [order:view-all, { all: [order:view, { owner: user_id }] }] }
  /api/v1/reports/{rest...}:
    \"*\":                            # any method not named
      require: { all: [report:run, { membership: oms >= PREMIUM }] }
      timeout: 120s
      rate_limit: 30/min per subject
      audit: true
  /internal/{rest...}:
    \"*\": deny
";

#[test]
fn the_example_of_the_contract_compiles_against_the_shipped_roles_without_a_finding() {
    let source = |name: &str, text: &str| Arc::new(SourceText { name: name.into(), text: text.into() });
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/roles.yaml")).unwrap();
    let (_, roles) = roles_file::parse(source("roles.yaml", &shipped)).0.unwrap();
    let file = PolicyFile::parse(source("oms.yaml", SPEC_EXAMPLE)).0.unwrap();
    let upstreams = std::collections::BTreeSet::from(["oms".to_owned()]);
    let input = CompileInput { files: &[file], roles: Arc::new(roles), upstreams: Some(&upstreams), report: false };
    let (snapshot, found) = compile(&input);
    assert_eq!(found.render(false), "");
    let limited = snapshot.unwrap().routes().iter().find_map(|route| route.rate_limit).unwrap();
    assert_eq!((limited.count, limited.window.as_secs(), limited.per), (30, 60, RateKey::Subject));
}

#[test]
fn a_rate_limit_is_refused_where_nobody_would_count() {
    let admin = "version: 1\nservice: doorward\nupstream: doorward-admin\nrate_limit: 1/s per address\npaths:\n  /a: { get: { require: authenticated, rate_limit: 1/s per subject } }\n";
    let (compiled, found) = compile_texts(&[("admin.yaml", admin)], false);
    let refused = found.0.iter().filter(|finding| finding.code == "not-yet-supported").count();
    assert_eq!((compiled.is_none(), refused), (true, 2));
}

#[test]
fn the_exact_host_goes_before_the_longest_wildcard_and_nothing_falls_through() {
    let file = |service: &str, hosts: &str, path: &str| {
        format!("version: 1\nservice: {service}\nupstream: oms\n{hosts}\npaths:\n  {path}: {{ get: public }}\n")
    };
    let texts = [
        file("exact", "hosts: [oms.example.com]", "/exact"),
        file("wild", "hosts: ['*.example.com']", "/wild"),
        file("longer", "hosts: ['*.eu.example.com']", "/longer"),
        file("any", "", "/any"),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let snapshot = snapshot_of(&texts, false);
    for (host, path) in [
        ("oms.example.com", "/exact"),
        ("a.example.com", "/wild"),
        ("a.b.example.com", "/wild"),
        ("a.eu.example.com", "/longer"),
        ("eu.example.com", "/wild"),
        ("example.com", "/any"),
        ("other.org", "/any"),
        ("a.example.com.evil.org", "/any"),
    ] {
        let parsed = Host::parse(host.as_bytes()).unwrap();
        for other in ["/exact", "/wild", "/longer", "/any"] {
            let expected = if other == path { "allow" } else { "no_route" };
            assert_eq!(word(&ask(&snapshot, "-", "GET", other, Some(&parsed))), expected, "{host} {other}");
        }
    }
    assert_eq!(outcome(&snapshot, "-", "GET /any"), "allow");
}

#[test]
fn parameters_are_resolved_by_each_routes_own_names() {
    let snapshot = snapshot("paths:\n  /u/{a}/{b}: { get: { owner: a } }\n  /u/{x}/{y}: { put: { owner: y } }\n");
    assert_eq!(outcome(&snapshot, "me", "GET /u/me/you"), "allow");
    assert_eq!(outcome(&snapshot, "me", "GET /u/you/me"), "permission_missing");
    assert_eq!(outcome(&snapshot, "me", "PUT /u/you/me"), "allow");
    assert_eq!(outcome(&snapshot, "me", "PUT /u/me/you"), "permission_missing");
}

/// Corpora that nobody here wrote: every request must find the template that it was made from.
#[test]
fn real_routes_match_their_samples() {
    let Some(corpora) = std::env::var_os("DOORWARD_CORPORA").map(PathBuf::from) else {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: DOORWARD_CORPORA is not set");
        return;
    };
    let read = |name: &str| -> serde_json::Value {
        let path = corpora.join("routes").join(name);
        serde_json::from_slice(&std::fs::read(path).expect("a corpus")).expect("JSON")
    };
    let samples = read("matching_samples.json");
    let mut requests = 0;
    let mut wrong = Vec::new();
    for (corpus, cases) in samples.as_object().unwrap() {
        let mut paths: Vec<(String, Vec<String>)> = Vec::new();
        let mut shapes = std::collections::BTreeSet::new();
        for route in read(&format!("{corpus}.json")).as_array().unwrap() {
            let (method, path) = (route["method"].as_str().unwrap(), route["path"].as_str().unwrap());
            // A document may list one route twice under other names of its parameters; a policy may not.
            if !shapes.insert((method.to_owned(), shape(path))) {
                continue;
            }
            match paths.iter_mut().find(|(known, _)| known == path) {
                Some((_, methods)) => methods.push(method.to_lowercase()),
                None => paths.push((path.to_owned(), vec![method.to_lowercase()])),
            }
        }
        let mut text = format!("version: 1\nservice: {corpus}\nupstream: oms\npaths:\n");
        for (path, methods) in &paths {
            text.push_str(&format!("  \"{path}\":\n"));
            methods.iter().for_each(|method| text.push_str(&format!("    {method}: public\n")));
        }
        let snapshot = snapshot_of(&[&text], false);
        for case in cases.as_array().unwrap() {
            let (method, path) = (case["method"].as_str().unwrap(), case["path"].as_str().unwrap());
            let decision = ask(&snapshot, "-", method, path, None);
            let expected = match (case["expect"].as_str(), case["reason"].as_str()) {
                (Some(template), _) => template,
                (None, Some("method")) => "method_not_allowed",
                _ => "no_route",
            };
            let got = match decision.route {
                Some(route) => snapshot.route(route).pattern.to_string(),
                None => word(&decision),
            };
            requests += 1;
            if shape(&got) != shape(expected) {
                wrong.push(format!("{corpus}: {method} {path}: {got}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {requests}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(requests >= 5536, "{requests}");
}

/// A pattern without the names of its parameters.
fn shape(pattern: &str) -> String {
    let mut inside = false;
    let keep = |letter: &char| {
        let was_inside = inside;
        inside = *letter == '{' || (inside && *letter != '}');
        !was_inside || *letter == '}'
    };
    pattern.chars().filter(keep).collect()
}
