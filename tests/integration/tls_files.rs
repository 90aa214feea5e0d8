//! The files of a TLS listener: what is wrong with them is said at the start, and a change is followed while running.

use std::os::unix::fs::symlink;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256};

use crate::harness::tls::{Authority, Certificate, curl, rewritten, shown_to};
use crate::harness::{Builder, Upstream, doorward, eventually};
use crate::tls::certificates;

const LIMIT: Duration = Duration::from_secs(15);

fn with(cert: &str, key: &str) -> Builder {
    doorward()
        .file("cert.pem", cert)
        .file("key.pem", key)
        .setting("gateway.tls.certificates", certificates(&[("cert.pem", "key.pem")]))
}

#[test]
fn keys_are_read_in_every_format_and_of_every_kind() {
    let authority = Authority::new();
    let ecdsa = authority.sign(&["ecdsa.test"]);
    let rsa = authority.sign_with(&["rsa.test"], &KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), |_| {});
    let ed25519 = authority.sign_with(&["ed25519.test"], &KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| {});
    for (name, certificate, begins, key) in [
        ("ecdsa.test", &ecdsa, "-----BEGIN PRIVATE KEY", ecdsa.key.clone()),
        ("ecdsa.test", &ecdsa, "-----BEGIN EC PRIVATE KEY", rewritten(&ecdsa.key, &["-traditional"])),
        ("rsa.test", &rsa, "-----BEGIN PRIVATE KEY", rsa.key.clone()),
        ("rsa.test", &rsa, "-----BEGIN RSA PRIVATE KEY", rewritten(&rsa.key, &["-traditional"])),
        ("ed25519.test", &ed25519, "-----BEGIN PRIVATE KEY", ed25519.key.clone()),
    ] {
        assert!(key.starts_with(begins), "{key}");
        let running = with(&certificate.cert, &key).start();
        assert_eq!(shown_to(running.gateway, Some(name)), name, "{begins}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_at_the_start() {
    let authority = Authority::new();
    let (good, other) = (authority.sign(&["a.test"]), authority.sign(&["b.test"]));
    let encrypted = rewritten(&good.key, &["-aes128", "-passout", "pass:secret"]);
    for (cert, key, said) in [
        (good.cert.as_str(), other.key.as_str(), "does not fit the certificate"),
        ("no certificate\n", &good.key, "holds no certificate in PEM"),
        (&good.key, &good.key, "holds no certificate in PEM"),
        ("", &good.key, "holds no certificate in PEM"),
        (&good.cert, &good.cert, "holds no private key in PEM"),
        (&good.cert, &encrypted, "holds no private key in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key, "holds a bad certificate"),
    ] {
        let failed = with(cert, key).fails();
        assert!(failed.stderr.contains(said), "{said}: {}", failed.stderr);
        assert!(failed.stderr.contains("gateway.tls.certificates[0]."), "{}", failed.stderr);
        assert!(failed.stderr.contains(".pem"), "{}", failed.stderr);
        assert!(!failed.stderr.contains("PRIVATE KEY"), "{}", failed.stderr);
    }
    let table = certificates(&[("nowhere.pem", "nowhere.key")]);
    let failed = doorward().setting("gateway.tls.certificates", table).fails();
    for said in ["certificates[0].cert", "certificates[0].key", "nowhere.pem", "nowhere.key"] {
        assert!(failed.stderr.contains(said), "{said}: {}", failed.stderr);
    }
    let failed = with(&good.cert, &good.key).setting("gateway.tls.client_ca", "nowhere.pem").fails();
    assert!(failed.stderr.contains("gateway.tls.client_ca"), "{}", failed.stderr);
    let failed = with(&good.cert, &good.key).setting("gateway.tls.client_auth", "required").fails();
    assert!(failed.stderr.contains("client_ca"), "{}", failed.stderr);
}

/// As Kubernetes changes a mounted secret: `..data` is a symbolic link to a folder, and is replaced by one to another.
#[test]
fn a_certificate_behind_a_symbolic_link_is_followed() {
    let authority = Authority::new();
    let (one, two) = (authority.sign(&["one.test"]), authority.sign(&["two.test"]));
    let files = certificates(&[("now/cert.pem", "now/key.pem")]);
    let running = doorward()
        .file("1/cert.pem", one.cert.clone())
        .file("1/key.pem", one.key.clone())
        .file("2/cert.pem", two.cert)
        .file("2/key.pem", two.key)
        // Made before the process starts; the link takes its place.
        .file("now/cert.pem", one.cert)
        .file("now/key.pem", one.key)
        .setting("gateway.tls.certificates", files)
        .start();
    std::fs::rename(running.path("now"), running.path("before")).unwrap();
    symlink("1", running.path("now")).unwrap();
    assert_eq!(shown_to(running.gateway, None), "one.test");
    symlink("2", running.path("next")).unwrap();
    std::fs::rename(running.path("next"), running.path("now")).unwrap();
    eventually("the new certificate", LIMIT, || (shown_to(running.gateway, None) == "two.test").then_some(()));
}

#[test]
fn a_hangup_reads_the_files_and_a_missing_one_changes_nothing() {
    let authority = Authority::new();
    let (one, two) = (authority.sign(&["one.test"]), authority.sign(&["two.test"]));
    let mut running = with(&one.cert, &one.key).start();
    let failed = |running: &crate::harness::Doorward| {
        running.metric("doorward_certificate_reload_failed", &["listener=\"gateway\""])
    };
    std::fs::remove_file(running.path("cert.pem")).unwrap();
    running.signal("-HUP");
    eventually("the mark of a failure", LIMIT, || (failed(&running) == 1.0).then_some(()));
    assert_eq!(shown_to(running.gateway, None), "one.test");
    std::fs::write(running.path("key.pem"), &two.key).unwrap();
    std::fs::write(running.path("cert.pem"), &two.cert).unwrap();
    running.signal("-HUP");
    eventually("the new certificate", LIMIT, || (shown_to(running.gateway, None) == "two.test").then_some(()));
    eventually("no mark", LIMIT, || (failed(&running) == 0.0).then_some(()));
    assert!(running.is_running());
}

#[test]
fn the_admin_listener_speaks_tls_with_files_of_its_own() {
    let upstream = Upstream::echo();
    let certificate = Certificate::for_names(&["admin.test"]);
    let running = doorward()
        .upstream(&upstream)
        .file("admin.pem", certificate.cert.clone())
        .file("admin.key", certificate.key.clone())
        .setting("admin.hosts", vec!["admin.test"])
        .setting("admin.tls.certificates", certificates(&[("admin.pem", "admin.key")]))
        .start();
    assert_eq!(running.get("/public").status, 200, "the gateway stays plain");
    for version in ["--http1.1", "--http2"] {
        let arguments = [version, "https://admin.test/metrics"];
        let output = curl(running.admin, &certificate.authority, &arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("doorward_certificate_expiry_timestamp_seconds{listener=\"admin\"}"), "{text}");
        let status = |url: &str| {
            let arguments = [version, "--insecure", "--upload-file", "/dev/null", "--write-out", "\n%{http_code}", url];
            let output = curl(running.admin, &certificate.authority, &arguments);
            String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(status("https://admin.test/metrics"), "405");
        assert_eq!(status("https://other.test/metrics"), "421");
    }
    let next = Certificate::for_names(&["next.test"]);
    std::fs::write(running.path("admin.pem"), next.cert).unwrap();
    std::fs::write(running.path("admin.key"), next.key).unwrap();
    eventually("the new certificate", LIMIT, || (shown_to(running.admin, None) == "next.test").then_some(()));
}
