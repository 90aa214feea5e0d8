//! TLS on the gateway and on the admin listener: handshakes, the choice of a certificate, its change while running.

use std::time::Duration;

use crate::harness::tls::{Authority, Certificate, curl, shown_to};
use crate::harness::{Doorward, Upstream, doorward, eventually};

pub(crate) fn certificates(files: &[(&str, &str)]) -> toml::Value {
    let table = |(cert, key): &(&str, &str)| {
        toml::Value::from(toml::Table::from_iter([
            ("cert".to_owned(), toml::Value::from(*cert)),
            ("key".to_owned(), toml::Value::from(*key)),
        ]))
    };
    files.iter().map(table).collect::<Vec<_>>().into()
}

fn started(certificate: &Certificate, upstream: &Upstream) -> Doorward {
    doorward()
        .upstream(upstream)
        .file("cert.pem", certificate.cert.clone())
        .file("key.pem", certificate.key.clone())
        .setting("gateway.tls.certificates", certificates(&[("cert.pem", "key.pem")]))
        .start()
}

/// Status and body of `GET path` for `host`, by HTTP of this version.
fn get(running: &Doorward, authority: &str, version: &str, host: &str, path: &str) -> (String, String) {
    let url = format!("https://{host}{path}");
    let output = curl(running.gateway, authority, &[version, "--write-out", "\n%{http_code} %{http_version}", &url]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn both_versions_of_http_are_spoken_by_tls() {
    let upstream = Upstream::echo();
    let certificate = Certificate::for_names(&["oms.test"]);
    let running = started(&certificate, &upstream);
    for (version, spoken) in [("--http1.1", "200 1.1"), ("--http2", "200 2")] {
        let (status, body) = get(&running, &certificate.authority, version, "oms.test", "/public");
        assert_eq!(status, spoken);
        let body = body.to_ascii_lowercase();
        assert!(body.contains("x-forwarded-proto: https"), "{body}");
        assert!(body.contains("host=\"oms.test\";proto=https"), "{body}");
        assert!(body.contains("x-forwarded-host: oms.test\r\n"), "{body}");
    }
    assert!(running.metric("doorward_certificate_expiry_timestamp_seconds", &["listener=\"gateway\""]) > 1e9);
}

#[test]
fn t24_a_host_outside_the_certificate_is_misdirected() {
    let upstream = Upstream::echo();
    let certificate = Certificate::for_names(&["oms.test", "*.wild.test", "127.0.0.1"]);
    let running = started(&certificate, &upstream);
    let asked = |version: &str, host: &str| {
        let host = format!("Host: {host}");
        let url = "https://oms.test/public";
        let arguments = [version, "--header", &host, "--write-out", "\n%{http_code}", url];
        let output = curl(running.gateway, &certificate.authority, &arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.rsplit_once('\n').unwrap().1.parse::<u16>().unwrap()
    };
    for version in ["--http1.1", "--http2"] {
        for host in ["oms.test", "OMS.test:8443", "oms.test.", "a.wild.test", "127.0.0.1"] {
            assert_eq!(asked(version, host), 200, "{version} {host}");
        }
        let before = upstream.count();
        for host in ["other.test", "wild.test", "a.b.wild.test", "127.0.0.2", "oms.test.evil.test"] {
            assert_eq!(asked(version, host), 421, "{version} {host}");
        }
        assert_eq!(upstream.count(), before);
    }
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let mut builder = doorward();
    let mut files = Vec::new();
    for (file, names) in [("first", vec!["first.test"]), ("wild", vec!["*.wild.test"]), ("exact", vec!["a.wild.test"])]
    {
        let certificate = authority.sign(&names);
        let (cert, key) = (format!("{file}.pem"), format!("{file}.key"));
        builder = builder.file(&cert, certificate.cert).file(&key, certificate.key);
        files.push((cert, key));
    }
    let files: Vec<_> = files.iter().map(|(cert, key)| (cert.as_str(), key.as_str())).collect();
    let running = builder.setting("gateway.tls.certificates", certificates(&files)).start();
    for (name, shown) in [
        (None, "first.test"),
        (Some("first.test"), "first.test"),
        (Some("A.wild.test"), "a.wild.test"),
        (Some("b.wild.test"), "*.wild.test"),
        (Some("b.b.wild.test"), "first.test"),
        (Some("unknown.test"), "first.test"),
    ] {
        assert_eq!(shown_to(running.gateway, name), shown, "{name:?}");
    }
}

#[test]
fn a_changed_certificate_is_shown_within_two_seconds_and_a_bad_one_never() {
    let authority = Authority::new();
    let upstream = Upstream::echo();
    let running = started(&authority.sign(&["one.test"]), &upstream);
    assert_eq!(shown_to(running.gateway, None), "one.test");
    let next = authority.sign(&["two.test"]);
    std::fs::write(running.path("cert.pem"), &next.cert).unwrap();
    std::fs::write(running.path("key.pem"), &next.key).unwrap();
    let limit = Duration::from_secs(15);
    eventually("the new certificate", limit, || (shown_to(running.gateway, None) == "two.test").then_some(()));
    let failed = || running.metric("doorward_certificate_reload_failed", &["listener=\"gateway\""]);
    eventually("no failure", limit, || (failed() == 0.0).then_some(()));
    std::fs::write(running.path("key.pem"), authority.sign(&["three.test"]).key).unwrap();
    eventually("the mark of a failure", limit, || (failed() == 1.0).then_some(()));
    assert_eq!(shown_to(running.gateway, None), "two.test");
    let is_told = || running.stdout().contains("does not fit the certificate").then_some(());
    eventually("it is told", limit, is_told);
    std::fs::write(running.path("key.pem"), &next.key).unwrap();
    eventually("the end of the failure", limit, || (failed() == 0.0).then_some(()));
}
