//! Certificates made for a test, as PEM, and files to put them in.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};

/// An authority of the test's own. Its certificates hold for whoever is given [`Authority::pem`].
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// The certificate, in PEM.
    pub(crate) cert: String,
    /// Its key, in PEM (PKCS#8).
    pub(crate) key: String,
    /// The certificate of who signed it, in PEM.
    pub(crate) authority: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "doorward test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names and addresses.
    pub(crate) fn sign(&self, names: &[&str]) -> Certificate {
        self.sign_with(names, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), |_| {})
    }

    /// As [`Self::sign`], with a key and more parameters.
    pub(crate) fn sign_with(
        &self,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        change(&mut params);
        let cert = params.signed_by(key, &self.issuer).unwrap();
        Certificate { cert: cert.pem(), key: key.serialize_pem(), authority: self.pem.clone() }
    }
}

impl Certificate {
    /// A certificate for these names and addresses, of an authority of its own.
    pub(crate) fn for_names(names: &[&str]) -> Self {
        Authority::new().sign(names)
    }
}

/// Runs curl against `address`, whatever host the URL names, trusting only this authority (PEM). Arguments follow as given.
pub(crate) fn curl(address: SocketAddr, authority: &str, arguments: &[&str]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.as_bytes()).unwrap();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--cacert"]).arg(file.path());
    command.arg("--connect-to").arg(format!("::{}:{}", address.ip(), address.port()));
    command.args(arguments).stdin(Stdio::null()).output().expect("curl is in PATH")
}

/// The name on a certificate that a client sees who asks for `name` (none: no SNI), by `openssl s_client`: its common name.
pub(crate) fn shown_to(address: SocketAddr, name: Option<&str>) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string()]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let output = command.stdin(Stdio::null()).output().expect("openssl is in PATH");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default();
    subject.rsplit("CN = ").next().unwrap_or_default().trim().to_owned()
}

/// A TLS stream to a host of a certificate by this authority (PEM), over a connection that is open. What the client offers by
/// ALPN is HTTP/1.1.
pub(crate) fn secured(mut stream: TcpStream, name: &str, authority: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).unwrap();
    }
    StreamOwned::new(session, stream)
}

/// Rewrites a private key (PEM) by `openssl pkey`, for formats that only it writes.
pub(crate) fn rewritten(key: &str, arguments: &[&str]) -> String {
    openssl(&[&["pkey"], arguments].concat(), key.as_bytes())
}

/// What `openssl` says on standard output and error, given this on standard input.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is in PATH");
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}
