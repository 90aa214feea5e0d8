//! Who is let in by TLS, and sessions that are taken up again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};

use crate::harness::tls::{Authority, Certificate, curl, openssl, secured};
use crate::harness::{Builder, Doorward, Upstream, doorward, eventually};
use crate::tls::certificates;

const LIMIT: Duration = Duration::from_secs(15);

struct Clients {
    authority: Authority,
    shown: Certificate,
}

impl Clients {
    fn new() -> Self {
        let authority = Authority::new();
        let shown = authority.sign(&["oms.test"]);
        Self { authority, shown }
    }

    /// A client's certificate and key by this authority, in files of the folder.
    fn client(running: &Doorward, authority: &Authority, name: &str) -> [String; 2] {
        let certificate = authority.sign_with(&[name], &KeyPair::generate().unwrap(), |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        [("pem", certificate.cert), ("key", certificate.key)].map(|(extension, text)| {
            let path = running.path(&format!("{name}.{extension}"));
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        })
    }

    fn builder(&self, upstream: &Upstream) -> Builder {
        doorward()
            .upstream(upstream)
            .file("cert.pem", self.shown.cert.clone())
            .file("key.pem", self.shown.key.clone())
            .setting("gateway.tls.certificates", certificates(&[("cert.pem", "key.pem")]))
    }

    /// The status of a request with these arguments of curl; `None` if there is no answer.
    fn status(&self, running: &Doorward, arguments: &[&str]) -> Option<u16> {
        let fixed = ["--output", "/dev/null", "--write-out", "%{http_code}", "https://oms.test/public"];
        let output = curl(running.gateway, &self.shown.authority, &[arguments, &fixed].concat());
        String::from_utf8_lossy(&output.stdout).parse().ok().filter(|status| *status > 0)
    }
}

#[test]
fn a_certificate_of_the_client_is_required_or_may_be_shown() {
    let upstream = Upstream::echo();
    let clients = Clients::new();
    for (auth, without) in [(None, None), (Some("required"), None), (Some("optional"), Some(200))] {
        let mut builder = clients
            .builder(&upstream)
            .file("clients.pem", clients.shown.authority.clone())
            .setting("gateway.tls.client_ca", "clients.pem");
        if let Some(auth) = auth {
            builder = builder.setting("gateway.tls.client_auth", auth);
        }
        let running = builder.start();
        let [cert, key] = Clients::client(&running, &clients.authority, "good");
        let [stranger, stranger_key] = Clients::client(&running, &Authority::new(), "stranger");
        for version in ["--http1.1", "--http2", "--tls-max=1.2"] {
            let version: Vec<&str> = version.split('=').collect();
            let ask = |more: &[&str]| clients.status(&running, &[&version, more].concat());
            assert_eq!(ask(&["--cert", &cert, "--key", &key]), Some(200), "{auth:?} {version:?}");
            let before = upstream.count();
            assert_eq!(ask(&["--cert", &stranger, "--key", &stranger_key]), None, "{auth:?} {version:?}");
            assert_eq!(upstream.count(), before);
            assert_eq!(ask(&[]), without, "{auth:?} {version:?}");
        }
        let failed = running.metric("doorward_tls_handshakes_failed_total", &["listener=\"gateway\""]);
        assert!(failed >= 3.0, "{failed}");
    }
}

/// Whether a session in `file` was taken up again, as `openssl s_client` says; the next is in the file then.
fn reused(address: SocketAddr, version: &str, file: &str, more: &[&str]) -> bool {
    let address = address.to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-servername", "oms.test", version, "-ign_eof"];
    arguments.extend(["-sess_out", file]);
    if std::fs::exists(file).unwrap() {
        arguments.extend(["-sess_in", file]);
    }
    arguments.extend(more);
    let said = openssl(&arguments, b"GET /public HTTP/1.1\r\nHost: oms.test\r\nConnection: close\r\n\r\n");
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    said.contains("\nReused, TLSv1.")
}

#[test]
fn sessions_are_taken_up_again_after_a_change_of_the_certificate_too() {
    let upstream = Upstream::echo();
    let clients = Clients::new();
    let running = clients.builder(&upstream).start();
    let file = |name: &str| running.path(name).to_str().unwrap().to_owned();
    for (version, tickets) in [("-tls1_3", None), ("-tls1_2", None), ("-tls1_2", Some("-no_ticket"))] {
        let session = file(&format!("session{version}{}", tickets.is_some()));
        let more: Vec<&str> = tickets.into_iter().collect();
        assert!(!reused(running.gateway, version, &session, &more));
        assert!(reused(running.gateway, version, &session, &more), "{version} {tickets:?}");
    }
    let next = clients.authority.sign(&["oms.test", "next.test"]);
    std::fs::write(running.path("cert.pem"), &next.cert).unwrap();
    std::fs::write(running.path("key.pem"), &next.key).unwrap();
    let covers = || {
        let url = "https://next.test/public";
        let output = curl(running.gateway, &clients.shown.authority, &["--write-out", "%{http_code}", url]);
        output.stdout.ends_with(b"200").then_some(())
    };
    eventually("the new certificate", LIMIT, covers);
    for version in ["-tls1_3", "-tls1_2"] {
        assert!(reused(running.gateway, version, &file(&format!("session{version}false")), &[]), "{version}");
    }
}

#[test]
fn a_session_ends_where_other_clients_are_let_in() {
    let upstream = Upstream::echo();
    let clients = Clients::new();
    let running = clients
        .builder(&upstream)
        .file("clients.pem", clients.shown.authority.clone())
        .setting("gateway.tls.client_ca", "clients.pem")
        .setting("gateway.tls.client_auth", "optional")
        .start();
    let session = running.path("session").to_str().unwrap().to_owned();
    let [cert, key] = Clients::client(&running, &clients.authority, "good");
    let shows = ["-cert", cert.as_str(), "-key", &key];
    assert!(!reused(running.gateway, "-tls1_3", &session, &shows));
    assert!(reused(running.gateway, "-tls1_3", &session, &shows));
    std::fs::write(running.path("clients.pem"), Authority::new().sign(&["other"]).authority).unwrap();
    let refused = || clients.status(&running, &["--cert", &cert, "--key", &key]).is_none().then_some(());
    eventually("the other authority", LIMIT, refused);
    assert!(!reused(running.gateway, "-tls1_3", &session, &[]), "nothing was proved to this authority");
}

#[test]
fn t29_a_proxy_header_stands_before_tls() {
    let upstream = Upstream::echo();
    let clients = Clients::new();
    let running = clients.builder(&upstream).setting("gateway.proxy_protocol_from", vec!["127.0.0.0/8"]).start();
    let request = b"GET /public HTTP/1.1\r\nHost: oms.test\r\nConnection: close\r\n\r\n";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x34\x1f\x90";
    for header in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 8080\r\n"[..], v2] {
        let mut plain = TcpStream::connect(running.gateway).unwrap();
        plain.write_all(header).unwrap();
        let mut stream = secured(plain, "oms.test", &clients.shown.authority);
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(upstream.last().field("x-forwarded-for"), Some("192.0.2.7"));
    }
    // Without one there is no handshake, and none within TLS counts.
    let before = upstream.count();
    assert_eq!(clients.status(&running, &[]), None);
    assert_eq!(upstream.count(), before);
}

#[test]
fn handshakes_that_do_not_go_on_hold_nobody_up() {
    let upstream = Upstream::echo();
    let clients = Clients::new();
    let running = clients.builder(&upstream).setting("gateway.limits.header_timeout", "2s").start();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let half: Vec<TcpStream> = (0..300)
        .map(|index| {
            let mut stream = TcpStream::connect(running.gateway).unwrap();
            stream.write_all(&hello[..index % hello.len()]).unwrap();
            stream
        })
        .collect();
    // This handshake has two seconds as well: only where the machine took them away is it asked again.
    eventually("others are served", LIMIT, || {
        let begun = Instant::now();
        let status = clients.status(&running, &[]);
        let took = begun.elapsed();
        assert!(status == Some(200) || took >= Duration::from_secs(2), "{status:?} in {took:?}");
        status.filter(|status| *status == 200)
    });
    for mut stream in half {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // An alert perhaps, and then the end.
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    let timeouts = || running.metric("doorward_limit_rejections_total", &["limit=\"header_timeout\""]);
    eventually("all are counted", LIMIT, || (timeouts() >= 300.0).then_some(()));
}
