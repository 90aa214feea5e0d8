//! The TLS handshake of one connection.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;

use super::certificates::Tls;
use super::connection::{Protocol, TlsFacts};
use super::farewell::Farewell;
use crate::live::Live;

/// What a client is told that speaks plain HTTP where TLS is spoken.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 53\r\n\r\nThis port speaks TLS: the address begins with https.\n";

/// Shakes hands. The certificate is chosen once the client has said which host it wants and what it can check, from what is in
/// force at that moment.
///
/// # Errors
/// If the client breaks off, breaks the protocol, or shows no certificate that is wanted of it.
pub(super) async fn accept<I>(stream: I, live: &Live<Tls>) -> io::Result<(Farewell<I>, Arc<TlsFacts>, Protocol)>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let started = match (&mut acceptor).await {
        Ok(started) => started,
        Err(error) => {
            if is_plain(&error)
                && let Some(mut stream) = acceptor.take_io()
            {
                let _ = stream.write_all(PLAIN).await;
            }
            return Err(error);
        }
    };
    let tls = live.get();
    let shown = tls.choose(&started.client_hello()).ok_or(io::ErrorKind::InvalidData)?;
    let (config, facts) = (Arc::clone(&shown.config), Arc::clone(&shown.facts));
    drop(tls);
    let stream = started.into_stream(config).await?;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((Farewell::new(stream), facts, protocol))
}

/// Whether what came is no TLS at all.
fn is_plain(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}
