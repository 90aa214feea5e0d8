#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use proptest::prelude::*;

use super::*;

/// The example of SPEC 4.1.
pub(in crate::policy) const EXAMPLE: &str = r#"# yaml-language-server: $schema=./doorward-policy.v1.schema.json
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
    "*":                            # any method not named
      require: { all: [report:run, { membership: oms >= PREMIUM }] }
      timeout: 120s
      rate_limit: 30/min per subject
      audit: true
  /internal/{rest...}:
    "*": deny
"#;

fn parse(text: &str) -> (Option<PolicyFile>, Diagnostics) {
    PolicyFile::parse(Arc::new(SourceText { name: "p.yaml".into(), text: text.into() }))
}

fn good(text: &str) -> PolicyFile {
    let (file, out) = parse(text);
    assert!(out.0.is_empty(), "{}", out.render(false));
    file.unwrap()
}

/// A file with these top-level lines and one method entry.
fn method(entry: &str) -> MethodItem {
    let file = good(&format!("version: 1\nservice: s\nupstream: u\npaths:\n  /x:\n    {entry}\n"));
    file.paths[0].methods[0].clone()
}

fn top(lines: &str) -> PolicyFile {
    good(&format!("version: 1\nservice: s\nupstream: u\n{lines}\npaths: {{/x: {{get: deny}}}}\n"))
}

fn codes(text: &str) -> Vec<&'static str> {
    parse(text).1.0.iter().map(|finding| finding.code).collect()
}

fn method_codes(entry: &str) -> Vec<&'static str> {
    codes(&format!("version: 1\nservice: s\nupstream: u\npaths:\n  /x:\n    {entry}\n"))
}

fn top_codes(lines: &str) -> Vec<&'static str> {
    codes(&format!("version: 1\nservice: s\nupstream: u\n{lines}\npaths: {{/x: {{get: deny}}}}\n"))
}

#[test]
fn the_example_of_the_contract_is_read_whole() {
    let file = good(EXAMPLE);
    assert_eq!(file.service.value.as_str(), "oms");
    assert_eq!(file.upstream.unwrap().value, "oms");
    assert_eq!(file.hosts[0].value, HostPattern::Exact("oms.example.com".into()));
    assert_eq!(file.paths.len(), 6);
    assert_eq!(file.paths[1].methods[1].method.value, "POST");
    assert_eq!(file.paths[3].pattern.value, "/api/v1/users/{user_id}/orders");
    let report = &file.paths[4].methods[0];
    assert_eq!(report.method.value, "*");
    assert_eq!(report.timeout, Some(Duration::from_secs(120)));
    let limit = RateLimit { count: 30, window: Duration::from_secs(60), per: RateKey::Subject };
    assert_eq!(report.rate_limit.as_ref().unwrap().value, limit);
    assert!(report.audit);
    let Requirement::All(parts) = &report.require.value else { panic!("{:?}", report.require) };
    assert!(matches!(&parts[1].value, Requirement::Membership { tier, .. } if tier.as_str() == "PREMIUM"));
    let covered = &EXAMPLE[parts[1].span.start..parts[1].span.end];
    assert_eq!(covered, "{ membership: oms >= PREMIUM }");
}

#[test]
fn every_key_has_its_value() {
    let file = top(
        "hosts: [OMS.Example.com., \"*.example.com\", \"[::1]\"]\nforward_authorization: true\nunmatched: 404\n\
         strip: [X-Foo]\nreport_only: {until: 2027-01-31}\nrate_limit: 5/s per address\n\
         path: {dot_segments: resolve, case: insensitive}\ncredentials: {cookie: __Host-session}\n\
         cors: {origins: [\"https://App.example.com:8443\"], methods: [get], headers: [X-A], credentials: true, max_age: 10m}",
    );
    let hosts: Vec<_> = file.hosts.into_iter().map(|host| host.value).collect();
    let exact = |name: &str| HostPattern::Exact(name.into());
    assert_eq!(hosts, [exact("oms.example.com"), HostPattern::Wildcard(".example.com".into()), exact("[::1]")]);
    assert!(file.forward_authorization);
    assert_eq!(file.unmatched, Unmatched::NotFound);
    assert_eq!(file.strip[0].value, "x-foo");
    assert_eq!(file.report_only.unwrap().value.until, 1_801_353_600);
    assert_eq!(file.rate_limit.unwrap().value.per, RateKey::Address);
    let rules = file.path_rules.unwrap().value;
    assert_eq!(rules.dot_segments, crate::request::target::DotSegments::Resolve);
    assert_eq!(rules.double_slash, crate::request::target::DoubleSlash::Refuse);
    assert_eq!(file.credentials.unwrap().value.cookie, "__Host-session");
    let cors = file.cors.unwrap().value;
    assert_eq!(cors.origins, ["https://app.example.com:8443"]);
    assert_eq!((cors.methods, cors.headers), (vec!["GET".to_owned()], vec!["x-a".to_owned()]));
    assert_eq!(cors.max_age, Some(Duration::from_secs(600)));
}

#[test]
fn an_origin_is_kept_as_a_browser_writes_it() {
    for (written, kept) in [
        ("https://A.example.com:443", "https://a.example.com"),
        ("http://a.example.com:80", "http://a.example.com"),
        ("http://a.example.com:443", "http://a.example.com:443"),
        ("https://a.example.com:8443", "https://a.example.com:8443"),
    ] {
        assert_eq!(top(&format!("cors: {{origins: [\"{written}\"]}}")).cors.unwrap().value.origins, [kept]);
    }
}

#[test]
fn a_method_is_short_or_long() {
    assert_eq!(method("get: public").require.value, Requirement::Public);
    assert_eq!(method("propfind: authenticated").method.value, "PROPFIND");
    assert!(matches!(method("get: {role: ROLE_A}").require.value, Requirement::Role(_)));
    let long = method(
        "get: {require: {client: [10.0.0.0/8, \"::1\", 192.0.2.7]}, timeout: 500ms, body: 1GiB, cache: shared, \
         outlives_token: true, upstream: other, report_only: {until: 2027-01-31}}",
    );
    let Requirement::Client(networks) = long.require.value else { panic!("no client") };
    assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]);
    assert_eq!(long.timeout, Some(Duration::from_millis(500)));
    assert_eq!(long.body, Some(BodyLimit::Bytes(1 << 30)));
    assert_eq!(long.cache, Some(CachePolicy::Shared));
    assert!(long.outlives_token.unwrap().value && long.report_only.is_some());
    assert_eq!(long.upstream.unwrap().value, "other");
    assert_eq!(method("put: {require: a:b, body: unlimited}").body, Some(BodyLimit::Unlimited));
}

#[test]
fn what_is_not_said_is_not_allowed() {
    for entry in [
        "get:",
        "get: []",
        "get: [a:b]",
        "get: {}",
        "get: {any: []}",
        "get: {all: []}",
        "get: {all: [a:b, public]}",
        "get: {any: [deny]}",
        "get: {any: [a:b], all: [c:d]}",
        "get: {timeout: 1s}",
        "get: order:*",
        "get: {client: []}",
        "get: {client: [10.0.0.1/8]}",
        "get: {client: [\"::ffff:10.0.0.0/104\"]}",
        "get: {membership: oms > FREE}",
        "get: {owner: \"{id}\"}",
        "get: {not: a:b}",
        "get: true",
        "GET: a:b",
        "any: a:b",
        "get: {require: a:b, audit: yes}",
        "get: {require: a:b, timeout: 30}",
        "get: {require: a:b, timeout: 0s}",
        "get: {require: a:b, timeout: -1s}",
        "get: {require: a:b, timeout: 99999999999999999999s}",
        "get: {require: a:b, body: 10MB}",
        "get: {require: a:b, body: 99999999999TiB}",
        "get: {require: a:b, rate_limit: 0/s per subject}",
        "get: {require: a:b, rate_limit: +5/s per subject}",
        "get: {require: a:b, cache: private}",
        "trace: a:b",
    ] {
        assert_eq!(method_codes(entry).len(), 1, "{entry}: {:?}", method_codes(entry));
    }
}

#[test]
fn one_letter_beside_a_usual_method_is_asked_about() {
    let (file, out) = parse("version: 1\nservice: s\npaths: {/x: {gett: a:b}}\n");
    assert!(!out.has_errors() && file.is_some());
    assert_eq!(out.0[0].code, "unusual-method");
    assert_eq!(method_codes("purge: a:b"), [""; 0]);
}

#[test]
fn hosts_are_names_and_nothing_else() {
    for host in [
        "oms.example.com:8080",
        "https://oms.example.com",
        "\"*\"",
        "a.*.com",
        "\"*.*.com\"",
        "é.com",
        "a..b",
        "\"\"",
        "-a.com",
        "a/b",
    ] {
        assert_eq!(top_codes(&format!("hosts: [{host}]")).len(), 1, "{host}");
    }
    assert_eq!(top_codes("hosts: [A.com, a.com.]"), ["duplicate-host"]);
    assert_eq!(top_codes("hosts: []"), ["empty-list"]);
}

#[test]
fn t26_cookies_are_host_cookies_and_credentialed_cors_names_its_origins() {
    assert_eq!(top_codes("credentials: {cookie: session}"), ["cookie-name"]);
    assert_eq!(top_codes("credentials: {cookie: __Secure-session}"), ["cookie-name"]);
    assert_eq!(top_codes("credentials: {cookie: __Host-}"), ["cookie-name"]);
    assert_eq!(top_codes("cors: {origins: [\"*\"], credentials: true}"), ["cors-credentials"]);
    assert_eq!(top_codes("cors: {origins: [\"null\"]}"), ["bad-origin"]);
    assert_eq!(top_codes("cors: {origins: [\"*\"]}"), [""; 0]);
    assert_eq!(top_codes("cors: {origins: [https://a.com/x]}"), ["bad-origin"]);
}

#[test]
fn all_faults_are_told_at_once_and_in_order() {
    let (file, out) =
        parse("version: 2\nservise: oms\nunmatched: 500\npaths:\n  x:\n    get: a:B\n  /y:\n    put: [a:b]\n");
    assert!(file.is_some());
    let told: Vec<_> =
        out.0.iter().map(|finding| (finding.source.line_column(finding.span.start).0, finding.code)).collect();
    assert_eq!(
        told,
        [
            (1, "unknown-version"),
            (2, "unknown-key"),
            (3, "bad-word"),
            (5, "path-slash"),
            (6, "bad-requirement"),
            (8, "bare-list"),
        ]
    );
    assert!(out.0[1].help.as_ref().unwrap().starts_with("Did you mean `service`?"));
}

/// Every single value, with texts that slicing by byte, folding of case or arithmetic could trip over.
#[test]
fn no_value_is_too_odd_to_be_refused() {
    let odd = [
        "é",
        "10é",
        "é10",
        "1🐴",
        "-",
        ":",
        "::",
        "%",
        "99999999999999999999999",
        "0",
        "\u{130}",
        "ſ",
        "K",
        "*é",
        "a b",
        "//",
        "[é]",
        "é:é",
        "é >= é",
        ">=",
        "/",
        "/ per ",
        "1/ per é",
        "1/é per subject",
        "2027-é1-31",
        "9999-12-31",
        "0000-00-00",
        "://",
        "a://",
        "a://é",
        "https://[::1]:1",
        "https://a:b:c",
        "10.0.0.0/é",
        "::/0",
        "__Host-é",
        "é /x",
        "{é}",
        "{",
        "}",
        "\u{7f}",
    ];
    for text in odd {
        let quoted = format!("\"{text}\"");
        for key in [
            "version",
            "service",
            "upstream",
            "unmatched",
            "rate_limit",
            "report_only",
            "forward_authorization",
            "hosts",
            "strip",
        ] {
            for value in [
                quoted.clone(),
                format!("[{quoted}]"),
                format!("{{{quoted}: {quoted}}}"),
                format!("{{until: {quoted}}}"),
            ] {
                let (_, out) =
                    parse(&format!("{key}: {value}\n{quoted}: 1\npaths: {{{quoted}: {{{quoted}: {quoted}}}}}\n"));
                assert!(out.has_errors());
                let _ = out.render(false);
            }
        }
        for key in METHOD_VALUES {
            let (_, out) = parse(&format!("paths: {{/x: {{get: {{{key}: {quoted}}}, put: {{{key}: [{quoted}]}}}}}}\n"));
            assert!(out.has_errors());
            let _ = out.render(true);
        }
        let cors =
            format!("cors: {{origins: [{quoted}], methods: [{quoted}], headers: [{quoted}], max_age: {quoted}}}\n");
        let _ = parse(&format!("{cors}credentials: {{cookie: {quoted}}}\npath: {{case: {quoted}}}\n")).1.render(false);
    }
}

const METHOD_VALUES: [&str; 14] = [
    "require",
    "timeout",
    "rate_limit",
    "audit",
    "body",
    "outlives_token",
    "cache",
    "report_only",
    "any",
    "role",
    "membership",
    "owner",
    "client",
    "upstream",
];

proptest! {
    #[test]
    fn any_change_of_the_example_is_read_or_refused(at in 0usize..EXAMPLE.len(), with in "[a-z:*{}\\[\\]\"'é \t\n-]{0,4}", cut in 0usize..6) {
        let start = EXAMPLE.floor_char_boundary(at);
        let end = EXAMPLE.floor_char_boundary(at + cut);
        let text = format!("{}{with}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        let (file, out) = parse(&text);
        prop_assert!(file.is_some() || out.has_errors());
        let _ = (out.render(true), out.to_json());
    }
}
