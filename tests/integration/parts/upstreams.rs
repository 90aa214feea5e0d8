//! A service that speaks HTTP/2 itself: nghttpd, the server of nghttp2, behind doorward.

use std::process::Command;

use super::downstream::{Downstream, Gateway, status_by_curl};
use super::part::{Part, run};
use crate::harness::free_ports;

#[test]
fn nghttpd_without_tls_is_reached_from_h1_and_h2() {
    let [port] = free_ports();
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "--verbose", "--echo-upload", "--address", "127.0.0.1"]);
    command.arg(port.to_string());
    let mut nghttpd = Part::start("nghttpd", command);
    nghttpd.until("it listens", |lines| lines.iter().any(|line| line.contains("listen")).then_some(()));
    for downstream in [Downstream::H1, Downstream::H2c] {
        let gateway = Gateway::start(downstream, &format!("h2c://127.0.0.1:{port}"));
        let streams = |part: &Part| part.lines().iter().filter(|line| line.contains("Open new stream")).count();
        let before = streams(&nghttpd);
        gateway.refuses(|token| {
            let mut command = gateway.curl("/trailers", token);
            command.args(["--data", "echo me"]);
            status_by_curl(&gateway, command)
        });
        assert_eq!(streams(&nghttpd), before);

        let mut upload = gateway.curl("/trailers", Some(&gateway.token()));
        let body = "echo me ".repeat(10_000);
        let file = gateway.doorward.path("body");
        std::fs::write(&file, &body).unwrap();
        upload.arg("--dump-header").arg(gateway.doorward.path("fields"));
        upload.arg("--data").arg(format!("@{}", file.display()));
        let done = run(upload);
        assert_eq!(done.stderr, gateway.said(200));
        assert!(done.stdout == body, "the body came back otherwise: {} bytes", done.stdout.len());
        let fields = std::fs::read_to_string(gateway.doorward.path("fields")).unwrap();
        assert!(fields.contains("nghttpd"), "{fields}");
    }
}
