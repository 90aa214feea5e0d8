//! What was written of a request to an HTTP/1.1 connection, so that it can be sent again.
//!
//! hyper consumes a request when it begins to write it, and whether the connection closes before the first byte of an answer
//! is known only later. A copy of the headers would cost each request what hardly one needs: half a microsecond. The bytes that
//! hyper writes are a copy already; they are kept in a buffer that the connection reuses and are read back in the rare case.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::body::RequestBody;

/// A buffer that grew beyond this is let go.
const KEPT_BYTES: usize = 4 * 1024;

const IDLE: u8 = 0;
/// The next bytes written are the head of a request.
const ARMED: u8 = 1;
/// They were written, and nothing was read since.
const WRITTEN: u8 = 2;
/// Something was read since.
const ANSWERED: u8 = 3;

/// What a connection remembers of the request in flight.
#[derive(Debug, Default)]
pub(super) struct Memory {
    state: AtomicU8,
    head: Mutex<Vec<u8>>,
}

impl Memory {
    /// Remembers the head of the request that is written next. It must be one without a body.
    pub(super) fn arm(&self) {
        self.state.store(ARMED, Ordering::Relaxed);
    }

    /// The request, if it was written and nothing was read since.
    pub(super) fn unanswered(&self) -> Option<Request<RequestBody>> {
        (self.state.load(Ordering::Acquire) == WRITTEN).then(|| read_back(&self.kept()))?
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered(&self, bytes: &[u8]) {
        if self.state.load(Ordering::Relaxed) != ARMED {
            return;
        }
        let mut head = self.kept();
        head.clear();
        if head.capacity() > KEPT_BYTES {
            head.shrink_to(KEPT_BYTES);
        }
        head.extend_from_slice(bytes);
        self.state.store(WRITTEN, Ordering::Release);
    }

    fn read(&self) {
        if self.state.load(Ordering::Relaxed) == WRITTEN {
            self.state.store(ANSWERED, Ordering::Release);
        }
    }
}

/// Reads back what hyper wrote: a head in its own spelling, whole.
fn read_back(head: &[u8]) -> Option<Request<RequestBody>> {
    let head = head.strip_suffix(b"\r\n\r\n")?;
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = PathAndQuery::try_from(words.next()?).ok()?;
    if words.next()? != b"HTTP/1.1" {
        return None;
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers;
    Some(request)
}

/// A connection that is remembered.
#[derive(Debug)]
pub(super) struct Remembered<S> {
    stream: S,
    memory: Arc<Memory>,
}

impl<S> Remembered<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<Memory>) {
        let memory = Arc::new(Memory { state: AtomicU8::new(IDLE), head: Mutex::default() });
        (Self { stream, memory: Arc::clone(&memory) }, memory)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Remembered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.memory.read();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Remembered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // hyper flattens a head into one buffer and offers all of it, however little of it is taken.
        self.memory.offered(buf);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Sends a request through hyper over a pipe and hands back the memory and the other end.
    async fn sent(request: Request<RequestBody>, room: usize) -> (Arc<Memory>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        let (stream, memory) = Remembered::new(near);
        let (mut sender, connection) =
            http1::Builder::new().writev(false).handshake::<_, RequestBody>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        memory.arm();
        tokio::spawn(async move { sender.try_send_request(request).await.map(drop).is_ok() });
        (memory, far)
    }

    fn request() -> Request<RequestBody> {
        let long = "x".repeat(10_000);
        Request::put("/a%20b?q=1&r=%C3%BC")
            .header("host", "oms.test")
            .header("x-twice", "one")
            .header("x-twice", "two")
            .header("x-empty", "")
            .header("x-bytes", HeaderValue::from_bytes(b"caf\xC3\xA9 \xFF").unwrap())
            .header("x-long", &long)
            .body(RequestBody::empty())
            .unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_read_back_as_it_was_sent() {
        // However small the pipe: what was offered first counts.
        for room in [16, 64 * 1024] {
            let (memory, mut far) = sent(request(), room).await;
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                far.read_buf(&mut seen).await.unwrap();
            }
            let again = memory.unanswered().unwrap();
            let expected = request();
            assert_eq!((again.method(), again.uri()), (expected.method(), expected.uri()));
            assert!(again.headers() == expected.headers(), "{:?}", again.headers().keys());
        }
    }

    #[tokio::test]
    async fn a_request_whose_answer_began_is_not_given_again() {
        let (memory, mut far) = sent(request(), 64 * 1024).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            far.read_buf(&mut seen).await.unwrap();
        }
        far.write_all(b"H").await.unwrap();
        while memory.unanswered().is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn half_a_head_is_no_request() {
        for head in
            ["", "GET / HTTP/1.1\r\nhost: a\r\n", "GET / HTTP/1.1", "GET /\r\n\r\n", "GET / HTTP/1.1\r\nx\r\n\r\n"]
        {
            assert!(read_back(head.as_bytes()).is_none(), "{head:?}");
        }
    }
}
