//! A TLS stream that says goodbye however its connection ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Sends `close_notify` when it is dropped, unless that was done or the client has left. Without it a client cannot tell an
/// answer that ends with the connection from one that somebody cut off (RFC 8446 section 6.1); parsers that give a connection
/// up do not shut it down.
pub(super) struct Farewell<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    stream: TlsStream<I>,
    /// The client sends nothing more, and reads nothing either, as far as HTTP goes.
    left: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Farewell<I> {
    pub(super) fn new(stream: TlsStream<I>) -> Self {
        Self { stream, left: false }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Drop for Farewell<I> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let (io, session) = self.stream.get_mut();
        session.send_close_notify();
        let mut last = Vec::new();
        while session.wants_write() && matches!(session.write_tls(&mut last), Ok(1..)) {}
        if !last.is_empty() {
            // Nobody waits for room: who does not read does not hear it.
            let _ = Pin::new(io).poll_write(&mut Context::from_waker(Waker::noop()), &last);
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Farewell<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.remaining();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.left |= match &polled {
            Poll::Ready(Ok(())) => before > 0 && buffer.remaining() == before,
            // A broken session has sent its alert.
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Farewell<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
