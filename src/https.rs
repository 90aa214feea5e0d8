//! Asking other services over HTTP, carefully: TLS that is verified, no redirects, no proxies, every wait and every answer bounded.
//!
//! Knows: reqwest, rustls. Must not know: what is asked, or why. It lies this low because rooms that do not know each other ask:
//! for key sets, for users, for what is behind an upstream's TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::secret::Secret;

/// Whom to believe and what to show. Contents of files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsTrust {
    /// Certificates that servers are verified against; `None` for those of the system.
    pub ca: Option<Vec<u8>>,
    /// Certificate chain and key that are shown to servers that ask for one.
    pub identity: Option<(Vec<u8>, Secret)>,
}

/// How one client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Whom to believe and what to show.
    pub tls: TlsTrust,
    /// To establish a connection, TLS included.
    pub connect: Duration,
    /// From the beginning of a request to the last byte of its answer.
    pub total: Duration,
    /// Connections that are kept for the next request.
    pub idle_connections: usize,
}

/// Why TLS settings cannot be used: the text goes behind the name of the [`key`](TlsTrustError::key) that the contents came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsTrustError {
    /// No usable certificate in `ca`.
    #[error("holds no certificate in PEM")]
    Authorities,
    /// The system has no certificates to trust.
    #[error("is absent, and the system has no certificates to trust; name a file of them")]
    NoSystemAuthorities,
    /// No usable certificate in `cert`.
    #[error("holds no certificate in PEM")]
    Certificate,
    /// No usable key in `key`.
    #[error("holds no private key in PEM")]
    Key,
    /// Certificate and key do not belong together, or are of a kind that rustls does not know.
    #[error("cannot be used with `key`: {0}")]
    Identity(String),
    /// The HTTP library refuses.
    #[error("makes no client: {0}")]
    Client(String),
}

impl TlsTrustError {
    /// The last part of the key's name.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Authorities | Self::NoSystemAuthorities | Self::Client(_) => "ca",
            Self::Certificate | Self::Identity(_) => "cert",
            Self::Key => "key",
        }
    }
}

/// Why no answer was had. The texts hold neither the URL nor anything that was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nothing could be established within the time, or the wait for the answer was too long.
    #[error("it took too long")]
    Timeout,
    /// No connection: nobody there, an unknown name, a certificate that is not believed.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke, or what came is no HTTP.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The answer is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The answer is compressed, which was not asked for, and which makes bombs.
    #[error("the answer is encoded, which was not asked for")]
    Encoded,
}

/// The TLS configuration, offering no protocol by ALPN yet.
///
/// # Errors
/// [`TlsTrustError`] naming the key whose contents are of no use.
pub fn tls_config(trust: &TlsTrust) -> Result<ClientConfig, TlsTrustError> {
    let builder = builder()?.with_root_certificates(roots(trust)?);
    let Some((chain, key)) = &trust.identity else { return Ok(builder.with_no_client_auth()) };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| TlsTrustError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsTrustError::Certificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| TlsTrustError::Key)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| TlsTrustError::Identity(error.to_string()))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsTrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsTrustError::Client(error.to_string()))
}

fn roots(trust: &TlsTrust) -> Result<RootCertStore, TlsTrustError> {
    let mut roots = RootCertStore::empty();
    let (certificates, nothing): (Vec<CertificateDer<'static>>, _) = match &trust.ca {
        Some(ca) => (
            CertificateDer::pem_slice_iter(ca).collect::<Result<_, _>>().map_err(|_| TlsTrustError::Authorities)?,
            TlsTrustError::Authorities,
        ),
        None => (rustls_native_certs::load_native_certs().certs, TlsTrustError::NoSystemAuthorities),
    };
    for certificate in certificates {
        // Systems hold old certificates that webpki does not take; in one's own file each is meant.
        if roots.add(certificate).is_err() && trust.ca.is_some() {
            return Err(TlsTrustError::Authorities);
        }
    }
    if roots.is_empty() { Err(nothing) } else { Ok(roots) }
}

/// A client that speaks HTTP/1.1 and
/// - follows no redirect: whoever answers one would choose who hears the request (T15);
/// - heeds no `HTTP_PROXY` or the like of the environment: what doorward asks decides about access, and nobody stands between
///   but who was configured;
/// - decompresses nothing, keeps no cookies, sends no `Referer`, repeats nothing by itself.
///
/// # Errors
/// [`TlsTrustError`] if the certificates cannot be used.
pub fn client(settings: &ClientSettings) -> Result<reqwest::Client, TlsTrustError> {
    build(settings, tls_config(&settings.tls)?)
}

/// As [`client`], for plain HTTP on this machine: it needs no certificates, and believes none.
///
/// # Errors
/// [`TlsTrustError::Client`]
pub fn plain_client(settings: &ClientSettings) -> Result<reqwest::Client, TlsTrustError> {
    build(settings, builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn build(settings: &ClientSettings, mut tls: ClientConfig) -> Result<reqwest::Client, TlsTrustError> {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect)
        .timeout(settings.total)
        .pool_max_idle_per_host(settings.idle_connections)
        .build()
        .map_err(|error| TlsTrustError::Client(error.to_string()))
}

/// The body, which is read to its end only if that comes within `max` bytes.
///
/// # Errors
/// [`AskError`]
pub async fn read_limited(mut response: reqwest::Response, max: usize) -> Result<Bytes, AskError> {
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if response.headers().get_all(CONTENT_ENCODING).iter().any(|value| !identity(value)) {
        return Err(AskError::Encoded);
    }
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(AskError::TooLarge(max));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > max - body.len() {
            return Err(AskError::TooLarge(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

impl From<reqwest::Error> for AskError {
    fn from(error: reqwest::Error) -> Self {
        // The URL may hold what is nobody's business; the innermost cause says most.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let cause = cause.to_string();
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect(cause)
        } else {
            Self::Broken(cause)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn trust(ca: Option<&str>, identity: Option<(&str, &str)>) -> TlsTrust {
        TlsTrust {
            ca: ca.map(|ca| ca.as_bytes().to_vec()),
            identity: identity.map(|(chain, key)| (chain.as_bytes().to_vec(), Secret::new(key.as_bytes().to_vec()))),
        }
    }

    fn settings(tls: TlsTrust) -> ClientSettings {
        let long = Duration::from_secs(60);
        ClientSettings { tls, connect: long, total: long, idle_connections: 0 }
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let one = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap();
        let (cert, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let made = |ca, identity| client(&settings(trust(ca, identity))).map(|_| ());
        assert_eq!(made(Some(cert.as_str()), Some((cert.as_str(), key.as_str()))), Ok(()));
        assert_eq!(made(Some(""), None), Err(TlsTrustError::Authorities));
        assert_eq!(made(Some(key.as_str()), None), Err(TlsTrustError::Authorities));
        assert_eq!(made(Some(cert.as_str()), Some(("", &key))), Err(TlsTrustError::Certificate));
        assert_eq!(made(Some(cert.as_str()), Some((&cert, &cert))), Err(TlsTrustError::Key));
        let mismatched = made(Some(cert.as_str()), Some((&cert, &other.signing_key.serialize_pem())));
        assert!(matches!(mismatched, Err(TlsTrustError::Identity(_))), "{mismatched:?}");
    }

    /// What a server that says this, once, is read as.
    async fn read(answer: Vec<u8>, max: usize) -> Result<(u16, Bytes), AskError> {
        let ca = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap().cert.pem();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        });
        let asked = async {
            let response = client(&settings(trust(Some(&ca), None))).unwrap().get(url).send().await?;
            Ok((response.status().as_u16(), read_limited(response, max).await?))
        };
        let read = asked.await;
        server.join().unwrap();
        read
    }

    #[tokio::test]
    async fn answers_are_read_within_bounds_and_redirects_are_answers() {
        let length =
            |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes();
        assert_eq!(read(length("12345"), 5).await, Ok((200, Bytes::from_static(b"12345"))));
        assert_eq!(read(length("123456"), 5).await, Err(AskError::TooLarge(5)));
        let chunked = |body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .into_bytes()
        };
        assert_eq!(read(chunked("de"), 5).await, Ok((200, Bytes::from_static(b"abcde"))));
        assert_eq!(read(chunked("def"), 5).await, Err(AskError::TooLarge(5)));
        let gzip = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx".to_vec();
        assert_eq!(read(gzip, 5).await, Err(AskError::Encoded));
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc".to_vec();
        assert!(matches!(read(cut, 5).await, Err(AskError::Broken(_))));
        let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n".to_vec();
        assert_eq!(read(moved, 5).await.unwrap().0, 302);
    }

    #[tokio::test]
    async fn an_error_does_not_show_the_url() {
        let ca = rcgen::generate_simple_self_signed(["oms.test".to_owned()]).unwrap().cert.pem();
        let client = client(&settings(trust(Some(&ca), None))).unwrap();
        let error = client.get("http://127.0.0.1:1/secret?token=x").send().await.unwrap_err();
        let error = AskError::from(error);
        assert!(matches!(error, AskError::Connect(_)), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
