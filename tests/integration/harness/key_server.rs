//! The URL at which somebody else publishes keys: over TLS, and slow, wrong, huge or gone as a test wants it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::Issuer;
use super::tls::Certificate;

/// What the next who asks gets.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// 200 with this set.
    Set(Value),
    /// 200 with this set and these fields, each with its line end.
    SetWith(Value, &'static str),
    /// Exactly these bytes.
    Raw(Vec<u8>),
    /// A body that never ends.
    Endless,
    /// Nothing, for this long.
    Silent(Duration),
    /// The connection is closed at once.
    Gone,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct KeyServer {
    address: SocketAddr,
    /// The authority of its certificate, in PEM.
    pub(crate) authority: String,
    tls: bool,
    says: Arc<Mutex<Keys>>,
    asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

/// The set of several issuers' keys.
pub(crate) fn set_of(issuers: &[&Issuer]) -> Value {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwks()["keys"][0].clone()).collect();
    json!({ "keys": keys })
}

impl KeyServer {
    /// Over TLS, at 127.0.0.1.
    pub(crate) fn start(keys: Keys) -> Self {
        Self::with(keys, Some(Certificate::for_names(&["127.0.0.1"])))
    }

    /// In plain text.
    pub(crate) fn plain(keys: Keys) -> Self {
        Self::with(keys, None)
    }

    /// Over TLS with this certificate.
    pub(crate) fn with(keys: Keys, certificate: Option<Certificate>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let config = certificate.as_ref().map(server_config);
        let server = Self {
            address: listener.local_addr().unwrap(),
            authority: certificate.map(|certificate| certificate.authority).unwrap_or_default(),
            tls: config.is_some(),
            says: Arc::new(Mutex::new(keys)),
            asked: Arc::default(),
            ended: Arc::default(),
        };
        let (says, asked, ended) = (Arc::clone(&server.says), Arc::clone(&server.asked), Arc::clone(&server.ended));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (says, asked, config) = (Arc::clone(&says), Arc::clone(&asked), config.clone());
                std::thread::spawn(move || match config {
                    None => answer(stream, &says, &asked),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        answer(StreamOwned::new(session, stream), &says, &asked);
                    }
                });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("jwks+http{}://{}/realms/main/certs", if self.tls { "s" } else { "" }, self.address)
    }

    /// From now on.
    pub(crate) fn say(&self, keys: Keys) {
        *self.says.lock().unwrap() = keys;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn server_config(certificate: &Certificate) -> Arc<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn answer(mut stream: impl Read + Write, says: &Mutex<Keys>, asked: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    assert!(head.starts_with(b"GET /realms/main/certs HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    asked.fetch_add(1, Ordering::SeqCst);
    let says = says.lock().unwrap().clone();
    let whole = |set: &Value, fields: &str| {
        let body = set.to_string();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{fields}\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let bytes = match says {
        Keys::Set(set) => whole(&set, ""),
        Keys::SetWith(set, fields) => whole(&set, fields),
        Keys::Raw(bytes) => bytes,
        Keys::Silent(time) => return std::thread::sleep(time),
        Keys::Gone => return,
        Keys::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\": [");
            while stream.write_all(&[b' '; 4096]).is_ok() {}
            return;
        }
    };
    let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
}
