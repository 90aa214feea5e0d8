//! HTTP/2 conformance: the cases of h2spec (<https://github.com/summerwind/h2spec>, version 2.6) by their names, written
//! anew over raw frames, so that neither the parser nor the framer under test has a part in judging itself.
//!
//! 146 cases run by default there, two more with `--strict`, and one is of its development branch; all 149 run here. The
//! judgements are h2spec's: a connection that is closed at once passes where a GOAWAY is expected.

mod client;
mod compression;
mod connections;
mod conversion;
mod early;
mod flow;
mod frames;
mod generic;
mod hpack;
mod messages;
mod noise;
mod starting;
mod streams;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::client::{Client, Target};
use crate::harness::tls::Certificate;
use crate::harness::{Behaviour, Doorward, Upstream, doorward};

/// What a case found out: nothing amiss, or what came instead of what is required.
type Verdict = Result<(), String>;

/// One case.
struct Case {
    /// As h2spec names it: specification, section, number.
    name: &'static str,
    /// What is sent.
    sends: &'static str,
    run: fn(&mut Client) -> Verdict,
}

/// A short way to write a row of the table.
const fn case(name: &'static str, sends: &'static str, run: fn(&mut Client) -> Verdict) -> Case {
    Case { name, sends, run }
}

/// Every request may pass (`/`), or none has a route (any other path).
const POLICY: &str = "
version: 1
service: oms
upstream: oms
paths:
  /:
    get: public
    head: public
    post: public
  /me:
    get: authenticated
    head: authenticated
    post: authenticated
";

/// Connections at a time.
const AT_ONCE: usize = 8;

fn cases() -> Vec<&'static Case> {
    [generic::CASES, starting::CASES, streams::CASES, frames::CASES, flow::CASES, messages::CASES, compression::CASES]
        .into_iter()
        .flatten()
        .collect()
}

fn start(upstream: &Upstream) -> Doorward {
    doorward().policy(POLICY).upstream(upstream).start()
}

/// Runs cases, each on a connection of its own, and returns what failed.
fn failures(cases: &[&Case], target: &Arc<Target>) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let run = || Client::connect(target).and_then(|mut client| (case.run)(&mut client));
                    // A denial may be complete, and its stream reset without an error, before the frame comes that is wrong
                    // (RFC 9113 section 8.1). Such a case has another try.
                    let verdict = match run() {
                        Err(_) if target.is_denied() => run(),
                        verdict => verdict,
                    };
                    if let Err(instead) = verdict {
                        let Case { name, sends, .. } = case;
                        let took = begun.elapsed().as_millis();
                        failed.lock().unwrap().push(format!("{name} ({sends}): {instead} [{took} ms]"));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed
}

/// Holds all cases against one target.
fn conforms(target: Target) {
    conforms_but(target, |_| true);
}

/// Holds the cases against one target that have these names.
fn conforms_but(target: Target, asked: impl Fn(&str) -> bool + Sync) {
    let target = Arc::new(target);
    let cases: Vec<_> = cases().into_iter().filter(|case| asked(case.name)).collect();
    let failed = failures(&cases, &target);
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn the_suite_has_every_case_of_h2spec() {
    let names: BTreeSet<&str> = cases().iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases().len(), "a name stands twice");
    let of = |spec: &str| names.iter().filter(|name| name.starts_with(spec)).count();
    assert_eq!((of("generic/"), of("http2/"), of("hpack/")), (44, 97, 8));
}

#[test]
fn h2c_conforms_where_requests_are_permitted() {
    let upstream = Upstream::echo();
    let running = start(&upstream);
    conforms(Target::plain(running.gateway, "/"));
    assert!(upstream.count() > 50, "the cases reached the upstream");
}

#[test]
fn h2c_conforms_where_every_request_is_denied() {
    let upstream = Upstream::echo();
    let running = start(&upstream);
    conforms(Target::plain(running.gateway, "/none"));
    conforms(Target::plain(running.gateway, "/me"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn h2c_conforms_where_the_upstream_is_slow() {
    let upstream = Upstream::start(Behaviour::Slow(Duration::from_millis(300)));
    let running = start(&upstream);
    // The answer is `ok`: too short for one case.
    conforms_but(Target::plain(running.gateway, "/"), |name| name != "http2/6.9.2/2");
}

#[test]
fn tls_conforms() {
    let upstream = Upstream::echo();
    let certificate = Certificate::for_names(&["127.0.0.1"]);
    let files = [("cert", "cert.pem"), ("key", "key.pem")].map(|(key, file)| (key.to_owned(), file.into()));
    let shown = toml::Table::from_iter(files);
    let running = doorward()
        .policy(POLICY)
        .upstream(&upstream)
        .file("cert.pem", certificate.cert.clone())
        .file("key.pem", certificate.key.clone())
        .setting("gateway.tls.certificates", vec![shown])
        .start();
    conforms(Target::tls(running.gateway, "/", &certificate.authority));
    conforms(Target::tls(running.gateway, "/none", &certificate.authority));
}
