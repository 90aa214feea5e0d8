//! TLS towards `https` endpoints: whom to believe, what to show (T31), and what to speak (ALPN).

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::settings::TlsMaterial;

/// Why TLS settings cannot be used. The text names the file's key in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No usable certificate in `ca`.
    #[error("`tls.ca` holds no certificate in PEM")]
    Authorities,
    /// The system has no certificates to trust.
    #[error("the system has no certificates to trust; name a file of them in `tls.ca`")]
    NoSystemAuthorities,
    /// No usable certificate in `cert`.
    #[error("`tls.cert` holds no certificate in PEM")]
    Certificate,
    /// No usable key in `key`.
    #[error("`tls.key` holds no private key in PEM")]
    Key,
    /// Certificate and key do not belong together, or are of a kind that rustls does not know.
    #[error("`tls.cert` and `tls.key` cannot be used together: {0}")]
    Identity(String),
    /// Neither a name nor an address.
    #[error("{0:?} is no name that a certificate could have; name one in `tls.server_name`")]
    ServerName(String),
}

/// How connections to the `https` endpoints of one upstream are secured.
#[derive(Debug)]
pub(super) struct TlsClient {
    /// What it was made of.
    pub(super) material: TlsMaterial,
    /// Offers HTTP/2 and HTTP/1.1.
    pub(super) any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone: for requests that ask to switch protocols.
    pub(super) http1: Arc<ClientConfig>,
}

impl TlsClient {
    /// Makes it of the contents of files.
    ///
    /// # Errors
    /// [`TlsError`] naming the key whose file is of no use.
    pub(super) fn new(material: TlsMaterial) -> Result<Self, TlsError> {
        let roots = roots(&material)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Identity(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &material.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
                    .collect::<Result<_, _>>()
                    .map_err(|_| TlsError::Certificate)?;
                if chain.is_empty() {
                    return Err(TlsError::Certificate);
                }
                let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| TlsError::Key)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::Identity(error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { material, any: Arc::new(config), http1 })
    }

    /// The name that an endpoint at `host` must prove to have.
    ///
    /// # Errors
    /// [`TlsError::ServerName`]
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.material.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
    }
}

fn roots(material: &TlsMaterial) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (certificates, nothing): (Vec<CertificateDer<'static>>, _) = match &material.ca {
        Some(ca) => (
            CertificateDer::pem_slice_iter(ca).collect::<Result<_, _>>().map_err(|_| TlsError::Authorities)?,
            TlsError::Authorities,
        ),
        None => (rustls_native_certs::load_native_certs().certs, TlsError::NoSystemAuthorities),
    };
    let strict = material.ca.is_some();
    for certificate in certificates {
        // Systems hold old certificates that webpki does not take; in one's own file each is meant.
        if roots.add(certificate).is_err() && strict {
            return Err(TlsError::Authorities);
        }
    }
    if roots.is_empty() { Err(nothing) } else { Ok(roots) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn material(ca: Option<&str>, identity: Option<(&str, &str)>) -> TlsMaterial {
        TlsMaterial {
            ca: ca.map(|ca| ca.as_bytes().to_vec()),
            identity: identity.map(|(chain, key)| (chain.as_bytes().to_vec(), Secret::new(key.as_bytes().to_vec()))),
            server_name: None,
        }
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let one = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap();
        let (cert, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let made = |ca, identity| TlsClient::new(material(ca, identity)).map(|_| ());
        assert_eq!(made(Some(cert.as_str()), Some((cert.as_str(), key.as_str()))), Ok(()));
        assert_eq!(made(Some(""), None), Err(TlsError::Authorities));
        assert_eq!(made(Some(key.as_str()), None), Err(TlsError::Authorities));
        assert_eq!(made(Some(cert.as_str()), Some(("", &key))), Err(TlsError::Certificate));
        assert_eq!(made(Some(cert.as_str()), Some((&cert, &cert))), Err(TlsError::Key));
        let mismatched = made(Some(cert.as_str()), Some((&cert, &other.signing_key.serialize_pem())));
        assert!(matches!(mismatched, Err(TlsError::Identity(_))), "{mismatched:?}");
    }

    #[test]
    fn an_endpoint_must_prove_its_host_unless_another_name_is_given() {
        let cert = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap().cert.pem();
        let mut client = TlsClient::new(material(Some(&cert), None)).unwrap();
        assert_eq!(client.server_name("127.0.0.1").unwrap().to_str(), "127.0.0.1");
        client.material.server_name = Some("oms.test".into());
        assert_eq!(client.server_name("127.0.0.1").unwrap().to_str(), "oms.test");
        client.material.server_name = Some("no name".into());
        assert!(client.server_name("127.0.0.1").is_err());
    }
}
