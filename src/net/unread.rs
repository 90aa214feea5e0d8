//! The body of a request, some of which may be on its way when nobody wants it any more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::http2::STREAM_WINDOW;

/// How long an HTTP/2 stream is not reset whose body nobody wants.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of such a body is discarded, in bytes. What exceeds the window was sent by a client that has read window
/// updates, and with them the answer that stands before them.
const DISCARDED: usize = 2 * STREAM_WINDOW as usize;

/// The body of a request. Over HTTP/2, what is not read of it when it is dropped is discarded for a while: the parser
/// would reset the stream at once behind an answer that comes before the body's end (RFC 9113 section 8.1), and clients that
/// find both in one reading drop the answer (curl 7.88: "Empty reply from server"). HTTP/1.1 needs nothing here: its
/// connection itself sees to the rest.
#[derive(Debug)]
pub struct Inbound {
    /// `None` once it is dropped.
    incoming: Option<Incoming>,
    lingers: bool,
}

impl Inbound {
    /// Takes the body of a request.
    #[must_use]
    pub fn of(request: Request<Incoming>) -> Request<Self> {
        let lingers = request.version() == Version::HTTP_2;
        request.map(|incoming| Self { incoming: Some(incoming), lingers })
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if !self.lingers {
            return;
        }
        if let Some(incoming) = self.incoming.take()
            && !incoming.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(PATIENCE, discard(incoming)));
        }
    }
}

/// Reads a body until it ends, breaks, or is too much.
async fn discard(mut incoming: Incoming) {
    let mut left = DISCARDED;
    while let Some(Ok(frame)) = incoming.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            this.lingers = false;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
