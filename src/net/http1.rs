//! HTTP/1.1 on one connection: behind its guard while requests come, parked while none do.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::drain::Drain;
use super::guard::{ConnectionState, Expired, GuardSettings, GuardedIo};
use super::parked::{Lot, Parked, RestTimer, Woken};
use super::serve::ListenerEvent;

/// Bytes that one connection buffers each way. Larger buffers make uploads cheaper and eight busy connections dearer in memory
/// (`tests/bench/peers/run --scenario up`); hyper's own bound holds several megabytes a busy connection.
const BUFFER_BYTES: usize = 96 * 1024;
/// How many header lines hyper parses without allocating.
const HYPER_HEADERS: usize = 100;

/// Serves requests until the connection ends.
pub(super) async fn serve<I, S, B>(
    stream: I,
    state: Arc<ConnectionState>,
    guard: GuardSettings,
    mut drain: Drain,
    observe: impl Fn(ListenerEvent) + Clone + Send + 'static,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = Arc::new(service);
    let mut parked = Parked::new(stream);
    let watching = drain.clone();
    let mut draining = std::pin::pin!(drain.begun());
    let mut asked = false;
    // Asking the signal costs more than a look at its value, and its first answer leaves a waker behind.
    let mut poll_draining = |cx: &mut Context<'_>| {
        if asked && !watching.is_begun() {
            return Poll::Pending;
        }
        asked = true;
        draining.as_mut().poll(cx)
    };
    let result = loop {
        // What has come is served even if the end was announced meanwhile: the client cannot know.
        let woken = poll_fn(|cx| match parked.poll_woken(guard.idle_timeout, cx) {
            Poll::Pending => poll_draining(cx).map(|()| Woken::Ended),
            woken => woken,
        });
        let first = match woken.await {
            Woken::Bytes(first) => first,
            woken => {
                if woken == Woken::Expired {
                    observe(ListenerEvent::Expired(Expired::IdleTimeout));
                }
                return poll_fn(|cx| {
                    parked.poll_close(cx);
                    Poll::Ready(())
                })
                .await;
            }
        };
        let on_expiry = {
            let observe = observe.clone();
            Box::new(move |what| observe(ListenerEvent::Expired(what)))
        };
        let lot = Arc::new(Lot::new());
        let io = GuardedIo::new(parked, first, Arc::clone(&lot), Arc::clone(&state), guard, on_expiry);
        let mut connection = Box::pin(builder(&guard).serve_connection(io, Arc::clone(&service)).with_upgrades());
        let (mut rest, mut ending) = (RestTimer::default(), false);
        let served = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(result));
                }
                if lot.is_taken() {
                    return Poll::Ready(None);
                }
                if !ending && poll_draining(cx).is_ready() {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                } else if state.is_idle() && rest.poll(cx).is_ready() {
                    lot.open();
                } else {
                    return Poll::Pending;
                }
            }
        });
        if let Some(result) = served.await {
            break result;
        }
        // The guard had the other handle on the lot.
        drop(connection);
        match Arc::into_inner(lot).and_then(Lot::into_parked) {
            Some(rested) => parked = rested,
            None => return,
        }
    };
    if let Err(error) = result
        && error.is_parse()
    {
        observe(ListenerEvent::ParseError(if error.is_parse_too_large() { 431 } else { 400 }));
    }
    state.tunnel_ended().await;
}

fn builder(guard: &GuardSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES.max(guard.head.bytes)).header_read_timeout(None).writev(false);
    if guard.head.headers > HYPER_HEADERS {
        builder.max_headers(guard.head.headers);
    }
    builder
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
    use tokio::task::JoinHandle;

    use super::super::connection::Protocol;
    use super::super::drain::{DrainSender, Stage};
    use super::*;
    use crate::request::head::HeadLimits;

    const LONG: Duration = Duration::from_secs(60);
    const REST: Duration = Duration::from_millis(500);
    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";

    /// A stream that remembers how large a read was asked of it: a parked connection asks for 64 KiB, hyper, which has seen
    /// small requests only, for less.
    struct Watched(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Watched {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            this.1.store(buf.remaining(), Ordering::SeqCst);
            Pin::new(&mut this.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Watched {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
        }
    }

    struct Client {
        stream: DuplexStream,
        asked: Arc<AtomicUsize>,
        events: Arc<Mutex<Vec<ListenerEvent>>>,
        drain: DrainSender,
        serving: JoinHandle<()>,
    }

    /// A connection to a service that answers with the request's body, as late as its path says in milliseconds, or with as
    /// many bytes as its query says.
    fn connect(idle_timeout: Duration, header_timeout: Duration) -> Client {
        let (stream, theirs) = tokio::io::duplex(256 * 1024);
        let (asked, events) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (drain, drained) = Drain::new();
        let head = HeadLimits { bytes: 32 * 1024, headers: 100 };
        let guard = GuardSettings { head, header_timeout, idle_timeout, streams: 128 };
        let state = Arc::new(ConnectionState::new(Protocol::Http1, guard));
        let of = Arc::clone(&state);
        let service = service_fn(move |request: Request<Incoming>| {
            let (arrived, in_flight) = of.begin(&request);
            async move {
                let wait = request.uri().path()[1..].parse().map_or(Duration::ZERO, Duration::from_millis);
                tokio::time::sleep(wait).await;
                let body = match arrived.outcome {
                    Ok(_) if request.uri().query().is_some() => {
                        vec![b'x'; request.uri().query().unwrap().parse().unwrap()].into()
                    }
                    Ok(_) => {
                        request.into_body().collect().await.map_or(Bytes::new(), http_body_util::Collected::to_bytes)
                    }
                    Err(_) => Bytes::from_static(b"refused"),
                };
                drop(in_flight);
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        });
        let told = Arc::clone(&events);
        let observe = move |event| told.lock().unwrap().push(event);
        let serving = tokio::spawn(serve(Watched(theirs, Arc::clone(&asked)), state, guard, drained, observe, service));
        Client { stream, asked, events, drain, serving }
    }

    impl Client {
        async fn send(&mut self, bytes: &[u8]) {
            self.stream.write_all(bytes).await.unwrap();
        }

        /// Reads this many answers with the body "hi".
        async fn answers(&mut self, count: usize) {
            let mut answers = Vec::new();
            while String::from_utf8_lossy(&answers).matches("\r\n\r\nhi").count() < count {
                let read = tokio::time::timeout(LONG, self.stream.read_buf(&mut answers)).await.unwrap().unwrap();
                assert!(read > 0, "ended after {}", String::from_utf8_lossy(&answers));
            }
            assert_eq!(String::from_utf8(answers).unwrap().matches("HTTP/1.1 200 OK").count(), count);
        }

        /// Everything until the connection ends.
        async fn rest(&mut self) -> String {
            let mut rest = Vec::new();
            tokio::time::timeout(LONG, self.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
            String::from_utf8(rest).unwrap()
        }

        fn is_parked(&self) -> bool {
            self.asked.load(Ordering::SeqCst) >= 64 * 1024
        }

        async fn until_parked(&self) {
            let begun = Instant::now();
            while !self.is_parked() {
                assert!(begun.elapsed() < LONG, "it is not parked");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn a_connection_at_rest_is_parked_and_serves_on() {
        let mut client = connect(LONG, LONG);
        client.until_parked().await;
        for _ in 0..3 {
            client.send(REQUEST).await;
            client.answers(1).await;
            client.until_parked().await;
        }
        client.send(&[REQUEST, REQUEST, &REQUEST[..7]].concat()).await;
        client.answers(2).await;
        tokio::time::sleep(REST).await;
        assert!(!client.is_parked(), "a head has begun");
        client.send(&REQUEST[7..]).await;
        client.answers(1).await;
        client.until_parked().await;
        for byte in REQUEST {
            client.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        client.answers(1).await;
        client.until_parked().await;
        drop(client.stream);
        client.serving.await.unwrap();
        assert_eq!(*client.events.lock().unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_under_way_is_not_parked() {
        let mut client = connect(LONG, LONG);
        client.send(b"POST /600 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
        tokio::time::sleep(REST).await;
        assert!(!client.is_parked(), "the answer is still to come");
        client.answers(1).await;
        client.send(&REQUEST[..REQUEST.len() - 1]).await;
        tokio::time::sleep(REST).await;
        assert!(!client.is_parked(), "a byte of the body is still to come");
        client.send(b"i").await;
        client.answers(1).await;
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n").await;
        tokio::time::sleep(REST).await;
        assert!(!client.is_parked(), "the end of the chunks is still to come");
        client.send(b"\r\n").await;
        client.answers(1).await;
        client.until_parked().await;
    }

    #[tokio::test]
    async fn what_the_client_does_not_take_is_not_parked() {
        let mut client = connect(LONG, LONG);
        // More than the pipe takes: a part of the answer is still to be written.
        client.send(b"GET /?300000 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        tokio::time::sleep(REST).await;
        assert!(!client.is_parked());
        let mut taken = 0;
        while taken < 300_000 {
            taken += client.stream.read(&mut [0; 8192]).await.unwrap();
        }
        client.until_parked().await;
    }

    #[tokio::test]
    async fn a_parked_connection_ends_at_once_when_draining_begins() {
        let mut client = connect(LONG, LONG);
        client.send(REQUEST).await;
        client.answers(1).await;
        client.until_parked().await;
        client.drain.advance(Stage::Ending);
        assert_eq!(client.rest().await, "");
        client.serving.await.unwrap();
    }

    #[tokio::test]
    async fn what_came_before_draining_was_seen_is_answered() {
        for rested in [false, true] {
            let mut client = connect(LONG, LONG);
            if rested {
                client.send(REQUEST).await;
                client.answers(1).await;
                client.until_parked().await;
            }
            // Both are there when the connection looks.
            client.stream.write_all(REQUEST).await.unwrap();
            client.drain.advance(Stage::Ending);
            let rest = client.rest().await;
            assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.contains("connection: close"), "{rest}");
            client.serving.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_parked_connection_has_its_idle_time_and_a_woken_one_its_header_time() {
        let mut client = connect(Duration::from_millis(400), LONG);
        let asked = Instant::now();
        client.send(REQUEST).await;
        client.answers(1).await;
        client.until_parked().await;
        assert_eq!(client.rest().await, "");
        assert!(asked.elapsed() >= Duration::from_millis(300), "{:?}", asked.elapsed());
        client.serving.await.unwrap();
        assert_eq!(*client.events.lock().unwrap(), [ListenerEvent::Expired(Expired::IdleTimeout)]);

        let mut client = connect(LONG, Duration::from_millis(100));
        client.until_parked().await;
        client.send(b"G").await;
        assert_eq!(client.rest().await, "");
        client.serving.await.unwrap();
        assert_eq!(*client.events.lock().unwrap(), [ListenerEvent::Expired(Expired::HeaderTimeout)]);
    }

    #[tokio::test]
    async fn a_connection_that_is_to_close_closes() {
        for request in ["GET / HTTP/1.0\r\nhost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"] {
            let mut client = connect(LONG, LONG);
            client.until_parked().await;
            client.send(request.as_bytes()).await;
            assert!(client.rest().await.contains(" 200 OK"));
            client.serving.await.unwrap();
        }
    }
}
