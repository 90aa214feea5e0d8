//! An upstream that real HTTP libraries serve: HTTP/1.1, HTTP/2, TLS, a unix socket; it can be killed with all its connections.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, hyper::Error>;
type Answer = Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>;

/// What is spoken.
#[derive(Clone)]
pub(crate) enum Speaks {
    Http1,
    Http2 { streams: u32 },
    Tls(Arc<rustls::ServerConfig>),
}

/// A running upstream; dropped, it is gone at once, its port and all its connections with it.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) version: http::Version,
    pub(crate) uri: http::Uri,
    pub(crate) headers: HeaderMap,
    /// The certificate that doorward showed, if any.
    pub(crate) certificate: Option<Vec<u8>>,
}

impl Served {
    /// Answers each request as `handler` says, at `port` (0: any).
    pub(crate) fn start<F>(speaks: Speaks, port: u16, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
    {
        let mut served = Self::empty();
        let runtime = runtime();
        let listener =
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("the port is free for a restart");
        served.address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::clone(&served.seen), Arc::clone(&served.connections));
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                let (seen, speaks, handler) = (Arc::clone(&seen), speaks.clone(), handler.clone());
                tokio::spawn(async move {
                    match speaks {
                        Speaks::Http1 => serve(stream, None, None, seen, handler).await,
                        Speaks::Http2 { streams } => serve(stream, Some(streams), None, seen, handler).await,
                        Speaks::Tls(config) => {
                            let accepted = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
                            let Ok(stream) = accepted else { return };
                            let facts = stream.get_ref().1;
                            let streams = (facts.alpn_protocol() == Some(b"h2")).then_some(100);
                            let shown =
                                facts.peer_certificates().and_then(|chain| chain.first().map(|one| one.to_vec()));
                            serve(stream, streams, shown, seen, handler).await;
                        }
                    }
                });
            }
        });
        served.runtime = Some(runtime);
        served
    }

    /// Echoes on a unix socket.
    pub(crate) fn unix(path: PathBuf) -> Self {
        let mut served = Self::empty();
        let runtime = runtime();
        let listener = runtime.block_on(async { UnixListener::bind(path) }).expect("a socket in an own folder");
        let seen = Arc::clone(&served.seen);
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(stream, None, None, Arc::clone(&seen), echo));
            }
        });
        served.runtime = Some(runtime);
        served
    }

    fn empty() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            runtime: None,
            seen: Arc::default(),
            connections: Arc::default(),
        }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waited for: when this returns, the port is free.
            runtime.shutdown_timeout(std::time::Duration::from_secs(20));
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn serve<I, F>(
    stream: I,
    http2_streams: Option<u32>,
    certificate: Option<Vec<u8>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    handler: F,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        seen.lock().unwrap().push(Seen {
            version: request.version(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            certificate: certificate.clone(),
        });
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(stream);
    let _ = match http2_streams {
        None => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
        Some(streams) => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams).serve_connection(io, service).await
        }
    };
}

/// Answers with the request's body, trailers included, as it comes.
pub(crate) fn echo(request: Request<Incoming>) -> Answer {
    Box::pin(async move { Response::new(request.into_body().boxed_unsync()) })
}

/// Answers with these words.
pub(crate) fn say(words: &'static str) -> impl Fn(Request<Incoming>) -> Answer + Clone {
    move |_| Box::pin(async move { Response::new(text(words)) })
}

pub(crate) fn text(words: &'static str) -> AnyBody {
    Full::new(Bytes::from_static(words.as_bytes())).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that is written while it is read.
pub(crate) struct Piped(mpsc::Receiver<Frame<Bytes>>);

pub(crate) fn piped() -> (mpsc::Sender<Frame<Bytes>>, Piped) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Piped(receiver))
}

impl Body for Piped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// Certificates of one authority.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A certificate for a name, and its key, in PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A server that has a certificate for a name, and asks for one of this authority if `mutual`.
    pub(crate) fn server(&self, name: &str, mutual: bool, protocols: &[&str]) -> Arc<rustls::ServerConfig> {
        use rustls::pki_types::pem::PemObject as _;
        let (chain, key) = self.issue(name);
        let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let builder = if mutual { builder.with_client_cert_verifier(verifier) } else { builder.with_no_client_auth() };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
