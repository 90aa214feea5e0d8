//! The task of one HTTP/2 stream: its clock while the client takes nothing of the answer.
//!
//! A client that grants no window stalls one stream and not the connection, so the connection's clocks do not see it; and while
//! it does, nobody asks the answer's body for more, so that the body's own clock does not run either. The task knows: it waits,
//! and the body was not what it waited for. Then it has idle time; a stream given up is reset, and its upstream let go.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::time::{Instant, Sleep};

use super::ListenerEvent;
use crate::net::guard::Expired;
use crate::request::head;

thread_local! {
    /// What the body of the stream that is polled on this thread said when it was asked last, if it was asked.
    static BODY: Cell<Option<Asked>> = const { Cell::new(None) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It gave something: the client is next.
    Gave,
    /// It has nothing yet.
    Waits,
}

/// Runs each stream on a task of its own.
#[derive(Clone)]
pub(super) struct Streams<O> {
    pub(super) idle_timeout: Duration,
    pub(super) observe: O,
}

impl<F, O> hyper::rt::Executor<F> for Streams<O>
where
    F: Future<Output = ()> + Send + 'static,
    O: Fn(ListenerEvent) + Clone + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (idle_timeout, observe) = (self.idle_timeout, self.observe.clone());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut stall = Stall { since: None, timer: None };
            let done = std::future::poll_fn(|cx| {
                let before = BODY.replace(None);
                let done = stream.as_mut().poll(cx);
                let asked = BODY.replace(before);
                if done.is_ready() {
                    return Poll::Ready(true);
                }
                stall.poll(cx, asked, idle_timeout).map(|()| false)
            });
            if !done.await {
                observe(ListenerEvent::Expired(Expired::IdleTimeout));
            }
        });
    }
}

/// How long a stream has been waiting for its client.
struct Stall {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn poll(&mut self, cx: &mut Context<'_>, asked: Option<Asked>, patience: Duration) -> Poll<()> {
        match asked {
            Some(Asked::Gave) => self.since = Some(Instant::now()),
            Some(Asked::Waits) => self.since = None,
            None => {}
        }
        let Some(since) = self.since else { return Poll::Pending };
        let until = since + patience;
        loop {
            let timer = match &mut self.timer {
                Some(timer) => timer,
                None => self.timer.insert(Box::pin(tokio::time::sleep_until(until))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// The body of an answer, which tells the task whether it has been asked.
pub(super) struct Told<B>(B);

impl<B: Body + Unpin> Body for Told<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.get_mut().0).poll_frame(cx);
        BODY.set(Some(if frame.is_ready() { Asked::Gave } else { Asked::Waits }));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A service whose requests are as HTTP/1.1 requests would be, and whose answers tell of themselves.
pub(super) struct Served<S>(pub(super) S);

impl<S, B> Service<Request<Incoming>> for Served<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<Told<B>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        head::http2::complete(&mut request);
        Answering(Box::pin(self.0.call(request)))
    }
}

/// An answer on its way.
pub(super) struct Answering<F>(Pin<Box<F>>);

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Told<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.as_mut().poll(cx).map_ok(|answer| answer.map(Told))
    }
}
