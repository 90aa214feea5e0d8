//! TLS towards `https` endpoints: whom to believe, what to show (T31), and what to speak (ALPN).

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::settings::TlsMaterial;
use crate::https::{TlsTrustError, tls_config};

/// Why TLS settings cannot be used. The text names the file's key in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file is of no use.
    #[error("`tls.{key}` {0}", key = .0.key())]
    Trust(#[from] TlsTrustError),
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
        let mut config = tls_config(&material.trust)?;
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::https::TlsTrust;

    #[test]
    fn an_endpoint_must_prove_its_host_unless_another_name_is_given() {
        let cert = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap().cert.pem();
        let mut client = TlsClient::new(TlsMaterial {
            trust: TlsTrust { ca: Some(cert.into_bytes()), identity: None },
            server_name: None,
        })
        .unwrap();
        assert_eq!(client.server_name("127.0.0.1").unwrap().to_str(), "127.0.0.1");
        client.material.server_name = Some("oms.test".into());
        assert_eq!(client.server_name("127.0.0.1").unwrap().to_str(), "oms.test");
        client.material.server_name = Some("no name".into());
        assert!(client.server_name("127.0.0.1").is_err());
    }
}
