//! sslscan looks for what a TLS listener should no longer offer.

use std::process::Command;

use super::downstream::{Downstream, Gateway};
use super::part::run;
use super::service::Service;

#[test]
fn sslscan_finds_tls_1_2_and_1_3_with_strong_ciphers_only() {
    let service = Service::start();
    let gateway = Gateway::start(Downstream::H2Tls, &service.url());
    let mut command = Command::new("sslscan");
    command.args(["--no-colour", "--xml=-", &gateway.authority()]);
    let found = run(command).text();
    for (kind, version, enabled) in
        [("ssl", "2", 0), ("ssl", "3", 0), ("tls", "1.0", 0), ("tls", "1.1", 0), ("tls", "1.2", 1), ("tls", "1.3", 1)]
    {
        let line = format!(r#"<protocol type="{kind}" version="{version}" enabled="{enabled}" />"#);
        assert!(found.contains(&line), "no {line} in\n{found}");
    }
    assert!(found.contains(r#"<renegotiation supported="0" secure="0" />"#), "{found}");
    assert!(!found.contains(r#"<compression supported="1""#), "{found}");
    assert!(!found.contains(r#"vulnerable="1""#), "{found}");

    // Each cipher is authenticated encryption behind an ephemeral key exchange.
    let ciphers: Vec<&str> = found.lines().filter(|line| line.trim_start().starts_with("<cipher ")).collect();
    for version in ["TLSv1.2", "TLSv1.3"] {
        assert!(ciphers.iter().any(|line| line.contains(version)), "{found}");
    }
    for line in ciphers {
        let name = line.split_once(" cipher=\"").and_then(|(_, rest)| rest.split('"').next()).expect("a name");
        let sealed = name.contains("GCM") || name.contains("CHACHA20_POLY1305") || name.contains("CHACHA20-POLY1305");
        let ephemeral = name.starts_with("TLS_") || name.starts_with("ECDHE-");
        assert!(sealed && ephemeral, "{name} is offered:\n{found}");
        assert!(!line.contains("strength=\"weak\"") && !line.contains("strength=\"medium\""), "{line}");
    }
    // Nobody was let in by all this.
    assert_eq!(service.contacts(), (0, 0));
}
