//! What a TLS listener shows: certificates and keys read from files, checked, and chosen by name.
//!
//! Reading, checking and publishing are apart, so that a change is published whole or not at all. Sessions outlive a change
//! of certificates, because their keys ([`Tls`]'s ticketer) are handed on; a change of who is let in ends them.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ClientHello, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::connection::TlsFacts;

/// Sessions of TLS 1.2 clients that know no tickets.
const SESSIONS: usize = 1024;

/// What a listener's `tls` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The key of the configuration, for messages: `gateway.tls`.
    pub key: &'static str,
    /// At least one. The first is for clients that name no host, or none that another is for.
    pub certificates: Vec<CertificateFiles>,
    /// Authorities of client certificates; `None`: no certificate is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without a certificate where one is asked for.
    pub client_auth: ClientAuth,
}

/// One certificate with its chain, and its key, each in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the listener's own certificate first.
    pub cert: PathBuf,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Whether a client must show a certificate where it is asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// It must.
    #[default]
    Required,
    /// It may; one that it shows must be good.
    Optional,
}

/// What all files held at one reading.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsTexts {
    certificates: Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for TlsTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTexts").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// Why files cannot be used: every fault with its key, its file and the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TlsError(Vec<String>);

/// What was said of files that can be used, and should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsWarning(String);

impl fmt::Display for TlsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listener shows and whom it lets in, ready for handshakes.
#[derive(Debug)]
pub struct Tls {
    shown: Vec<Shown>,
    /// Which of them are for a name, in the order of the configuration; `*.` in front stands for one label.
    by_name: HashMap<Box<str>, Vec<usize>>,
    sessions: Sessions,
    expiry: i64,
    warnings: Vec<TlsWarning>,
}

/// One certificate.
#[derive(Debug)]
pub struct Shown {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// What a connection keeps of it.
    pub facts: Arc<TlsFacts>,
    key: Arc<CertifiedKey>,
}

/// What a session is resumed by. It is bound to who is let in: a session under other rules proves nothing.
#[derive(Debug, Clone)]
struct Sessions {
    ticketer: Arc<dyn ProducesTickets>,
    storage: Arc<dyn StoresServerSessions>,
    client_ca: Option<Vec<u8>>,
    client_auth: ClientAuth,
}

impl TlsFiles {
    /// Reads all files.
    ///
    /// # Errors
    /// Every file that cannot be read.
    pub fn read(&self) -> Result<TlsTexts, TlsError> {
        let mut faults = Vec::new();
        let mut read = |path: &Path, key: String| {
            std::fs::read(path).unwrap_or_else(|error| {
                faults.push(fault(&key, path, &format!("cannot be read: {error}"), "Name a readable PEM file."));
                Vec::new()
            })
        };
        let mut certificates = Vec::with_capacity(self.certificates.len());
        for (index, files) in self.certificates.iter().enumerate() {
            let cert = read(&files.cert, self.at(index, "cert"));
            certificates.push((cert, Zeroizing::new(read(&files.key, self.at(index, "key")))));
        }
        let client_ca = self.client_ca.as_ref().map(|path| read(path, format!("{}.client_ca", self.key)));
        if faults.is_empty() { Ok(TlsTexts { certificates, client_ca }) } else { Err(TlsError(faults)) }
    }

    /// Makes of what was read what handshakes need. Sessions of `before` can be resumed, unless other clients are let in now.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn compile(&self, texts: &TlsTexts, before: Option<&Tls>) -> Result<Tls, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut faults = Vec::new();
        let mut warnings = Vec::new();
        let authorities = self.authorities(texts, &mut faults);
        let mut read = Vec::with_capacity(texts.certificates.len());
        for (index, texts) in texts.certificates.iter().enumerate() {
            match self.certificate(index, texts, &provider) {
                Ok(certificate) => {
                    self.look_at(index, &certificate, &mut warnings);
                    read.push(certificate);
                }
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(TlsError(faults));
        }
        let broken = |error: &dyn fmt::Display| TlsError(vec![format!("`{}`: {error}", self.key)]);
        let sessions = Sessions::after(before, texts, self.client_auth).map_err(|error| broken(&error))?;
        let expiry = read.iter().map(|certificate| certificate.not_after).min().unwrap_or(i64::MAX);
        let mut by_name: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut shown = Vec::with_capacity(read.len());
        for (index, certificate) in read.into_iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
            let key = Arc::new(certificate.key);
            let config =
                self.config(&key, authorities.clone(), &sessions, &provider).map_err(|error| broken(&error))?;
            let facts = Arc::new(TlsFacts { names: certificate.names.into() });
            shown.push(Shown { config: Arc::new(config), facts, key });
        }
        Ok(Tls { shown, by_name, sessions, expiry, warnings })
    }

    fn at(&self, index: usize, file: &str) -> String {
        format!("{}.certificates[{index}].{file}", self.key)
    }

    fn authorities(&self, texts: &TlsTexts, faults: &mut Vec<String>) -> Option<Arc<RootCertStore>> {
        let (path, text) = self.client_ca.as_ref().zip(texts.client_ca.as_ref())?;
        let key = format!("{}.client_ca", self.key);
        let mut roots = RootCertStore::empty();
        match chain(text) {
            Err(detail) => faults.push(fault(&key, path, &detail, CERT_MEND)),
            Ok(certificates) => {
                for certificate in certificates {
                    if let Err(error) = roots.add(certificate) {
                        faults.push(fault(&key, path, &format!("holds a bad certificate: {error}"), CERT_MEND));
                    }
                }
            }
        }
        Some(Arc::new(roots))
    }

    fn certificate(
        &self,
        index: usize,
        (cert, key): &(Vec<u8>, Zeroizing<Vec<u8>>),
        provider: &CryptoProvider,
    ) -> Result<Certificate, String> {
        let files = &self.certificates[index];
        let of_cert = |detail: &str| fault(&self.at(index, "cert"), &files.cert, detail, CERT_MEND);
        let of_key = |detail: &str, mend| fault(&self.at(index, "key"), &files.key, detail, mend);
        let chain = chain(cert).map_err(|detail| of_cert(&detail))?;
        let (names, not_after) = names_and_end(&chain[0]).map_err(|detail| of_cert(&detail))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| of_key("holds no private key in PEM", KEY_MEND))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| of_key("is no RSA, ECDSA or Ed25519 key that can be used", KEY_MEND))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let detail = format!("does not fit the certificate in {}", files.cert.display());
                return Err(of_key(&detail, "Name the key that the certificate was made for, the chain's own first."));
            }
            Err(error) => return Err(of_cert(&format!("is refused: {error}"))),
        }
        Ok(Certificate { key, names, not_after })
    }

    /// What is no fault, and is better known.
    fn look_at(&self, index: usize, certificate: &Certificate, warnings: &mut Vec<TlsWarning>) {
        let files = &self.certificates[index];
        let now = crate::clock::Timestamp::now().0;
        if certificate.not_after < now {
            let at = jiff::Timestamp::from_second(certificate.not_after).map(|at| at.to_string()).unwrap_or_default();
            warnings.push(TlsWarning(fault(
                &self.at(index, "cert"),
                &files.cert,
                &format!("expired at {at}"),
                "Clients will refuse it: renew it.",
            )));
        }
        let mode = std::fs::metadata(&files.key).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
        if mode & 0o007 != 0 {
            warnings.push(TlsWarning(fault(
                &self.at(index, "key"),
                &files.key,
                &format!("can be read or written by everybody on this machine (mode {:04o})", mode & 0o7777),
                "chmod o-rwx.",
            )));
        }
    }

    fn config(
        &self,
        key: &Arc<CertifiedKey>,
        authorities: Option<Arc<RootCertStore>>,
        sessions: &Sessions,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ServerConfig, Box<dyn std::error::Error>> {
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
                let verifier = match self.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&sessions.ticketer);
        config.session_storage = Arc::clone(&sessions.storage);
        // One is what a client that resumes needs; each costs a derivation, an encryption and 250 bytes.
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

const CERT_MEND: &str = "Name a PEM file of certificates, the listener's own first.";
const KEY_MEND: &str = "Name a PEM file with one unencrypted private key (PKCS#8, PKCS#1 or SEC1).";

fn fault(key: &str, path: &Path, detail: &str, mend: &str) -> String {
    format!("`{key}`: {} {detail}\n  help: {mend}", path.display())
}

/// The certificates of a PEM text; at least one.
fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("is no PEM: {error}")),
    }
}

struct Certificate {
    key: CertifiedKey,
    names: Vec<Box<str>>,
    not_after: i64,
}

/// The names of a certificate as hosts are written (`*.` in front perhaps), and the second of its end. A certificate without
/// subject alternative names is for its common name, as older clients take it.
fn names_and_end(certificate: &CertificateDer<'_>) -> Result<(Vec<Box<str>>, i64), String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| "holds a bad certificate".to_owned())?;
    let alternatives = certificate.subject_alternative_name().map_err(|_| "holds bad alternative names".to_owned())?;
    let mut names: Vec<Box<str>> = Vec::new();
    for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.trim_end_matches('.').to_ascii_lowercase().into()),
            GeneralName::IPAddress(bytes) => {
                if let Ok(octets) = <[u8; 4]>::try_from(*bytes) {
                    names.push(std::net::Ipv4Addr::from(octets).to_string().into());
                } else if let Ok(octets) = <[u8; 16]>::try_from(*bytes) {
                    names.push(format!("[{}]", Ipv6Addr::from(octets)).into());
                }
            }
            _ => {}
        }
    }
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(|name| Box::from(name.to_ascii_lowercase())));
    }
    Ok((names, certificate.validity().not_after.timestamp()))
}

impl Sessions {
    /// Those of `before`, or new ones where other clients are let in now.
    fn after(before: Option<&Tls>, texts: &TlsTexts, client_auth: ClientAuth) -> Result<Self, rustls::Error> {
        match before.map(|before| &before.sessions) {
            Some(before) if before.client_ca == texts.client_ca && before.client_auth == client_auth => {
                Ok(before.clone())
            }
            _ => Ok(Self {
                ticketer: aws_lc_rs::Ticketer::new()?,
                storage: ServerSessionMemoryCache::new(SESSIONS),
                client_ca: texts.client_ca.clone(),
                client_auth,
            }),
        }
    }
}

impl Tls {
    /// The certificate for a client: of the exact name, else of a wildcard, else the first; always one whose key the client can
    /// check, if there is one.
    #[must_use]
    pub fn choose(&self, hello: &ClientHello<'_>) -> Option<&Shown> {
        self.choose_for(hello.server_name(), hello.signature_schemes())
    }

    fn choose_for(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Shown> {
        let fits = |shown: &&Shown| shown.key.key.choose_scheme(schemes).is_some();
        let of = |name: &str| self.by_name.get(name).into_iter().flatten().filter_map(|index| self.shown.get(*index));
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            of(&name).find(fits).or_else(|| of(wildcard.as_deref()?).find(fits)).or_else(|| of(&name).next())
        });
        named.or_else(|| self.shown.iter().find(fits)).or_else(|| self.shown.first())
    }

    /// When the first of its certificates ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn expiry(&self) -> i64 {
        self.expiry
    }

    /// What should be looked at.
    #[must_use]
    pub fn warnings(&self) -> &[TlsWarning] {
        &self.warnings
    }
}
