//! A stream of which some bytes were read before it was known who reads it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one read ahead: the heads of most requests.
const ONE_READ: usize = 2048;

/// Gives back what was read too early, then goes on with the stream.
#[derive(Debug)]
pub struct Prefixed<S> {
    stream: S,
    prefix: Vec<u8>,
    taken: usize,
}

impl<S> Prefixed<S> {
    /// A stream of which nothing was read.
    pub fn new(stream: S) -> Self {
        Self { stream, prefix: Vec::new(), taken: 0 }
    }

    /// Puts these bytes before those that are still to come.
    pub fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(&self.prefix[self.taken..]);
        (self.prefix, self.taken) = (bytes, 0);
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Reads once, and appends what came. Returns how many bytes that were; 0 at the end of the stream.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn read_into(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        poll_fn(|cx| {
            // Within the poll, so that a connection that waits for its first byte holds no buffer.
            let mut space = [MaybeUninit::uninit(); ONE_READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer))?;
            bytes.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
        .await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let rest = &this.prefix[this.taken..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        this.taken += length;
        if this.taken == this.prefix.len() {
            (this.prefix, this.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_put_back_comes_first() {
        let mut stream = Prefixed::new(&b"gh"[..]);
        stream.put_back(b"cdef".to_vec());
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"cd");
        stream.put_back(b"ab".to_vec());
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "abefgh");
    }
}
