//! A connection at rest: its stream and one clock. What serves requests is built when a request comes, and freed soon after,
//! so a client that only keeps its connection costs little more than the socket.

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::guard::SCRATCH;

/// How long a connection rests before it is parked (up to twice as long): a busy client's is not, because what was built for
/// one of its requests serves the next ones too.
const PARK_AFTER: Duration = Duration::from_millis(if cfg!(test) { 40 } else { 1000 });

/// A connection between two exchanges, or before the first.
#[derive(Debug)]
pub(super) struct Parked<S> {
    /// The client. Nothing that was read from it is left unanswered, and nothing that was written to it is held back.
    pub stream: S,
    /// When a byte went either way.
    pub last_activity: Instant,
    /// The one timer of a connection, handed on between rest and service.
    pub timer: Option<Pin<Box<Sleep>>>,
}
/// More than the allocator keeps in its own lists.
const UNTOUCHED_BYTES: usize = 32 * 1024 * 1024;

/// Where a guard, deep within hyper, leaves its stream when it is asked to.
#[derive(Debug)]
pub(super) struct Lot<S> {
    open: AtomicBool,
    parked: OnceLock<Parked<S>>,
}

/// Looks every now and then whether a connection in service is at rest. It costs a connection that is in use one look a second,
/// and one with a long exchange nothing.
#[derive(Debug, Default)]
pub(super) struct RestTimer(Option<Pin<Box<Sleep>>>);

/// Lets the allocator return to the system what was freed long enough ago. mimalloc does so only when a page of its own is freed,
/// which after the last exchange of many would be the next one's: so one is, never touched. Called every few seconds.
pub fn return_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(UNTOUCHED_BYTES)));
}

/// What ended a rest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The beginning of a head came.
    Bytes(Vec<u8>),
    /// The client closed, or the connection broke.
    Ended,
    /// Nothing came for too long.
    Expired,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Parked<S> {
    /// A connection of which nothing was read yet.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, last_activity: Instant::now(), timer: None }
    }

    /// Waits for a byte, for at most `idle_timeout` since the last.
    pub(super) fn poll_woken(&mut self, idle_timeout: Duration, cx: &mut Context<'_>) -> Poll<Woken> {
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            Pin::new(&mut self.stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().to_vec())
        });
        match read {
            Poll::Ready(Ok(bytes)) if !bytes.is_empty() => {
                self.last_activity = Instant::now();
                Poll::Ready(Woken::Bytes(bytes))
            }
            Poll::Ready(_) => Poll::Ready(Woken::Ended),
            Poll::Pending => self.poll_timer(self.last_activity + idle_timeout, cx).map(|()| Woken::Expired),
        }
    }

    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    /// Says goodbye as far as that goes without waiting.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) {
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
    }
}

impl<S> Lot<S> {
    /// Without a stream, and closed.
    pub(super) fn new() -> Self {
        Self { open: AtomicBool::new(false), parked: OnceLock::new() }
    }

    /// Asks the guard for its stream, if that is at rest.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// Whether the guard was asked for a stream of which nothing was heard since `last_activity`. One that was heard of lately
    /// closes the lot again.
    pub(super) fn wants(&self, last_activity: Instant) -> bool {
        self.open.load(Ordering::Relaxed)
            && self.open.swap(false, Ordering::Relaxed)
            && last_activity.elapsed() >= PARK_AFTER
    }

    /// Leaves a stream.
    pub(super) fn leave(&self, parked: Parked<S>) {
        let _ = self.parked.set(parked);
    }

    /// Whether a stream was left.
    pub(super) fn is_taken(&self) -> bool {
        self.parked.get().is_some()
    }

    /// What was left.
    pub(super) fn into_parked(self) -> Option<Parked<S>> {
        self.parked.into_inner()
    }
}

impl RestTimer {
    /// Ready when it is time for a look. It wakes the task then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // It was polled by this task when it was set, and will wake it.
        if self.0.as_ref().is_some_and(|timer| !timer.is_elapsed()) {
            return Poll::Pending;
        }
        let at = tokio::time::Instant::now() + PARK_AFTER;
        match &mut self.0 {
            Some(timer) => {
                timer.as_mut().reset(at);
                // A second is not over at once.
                let _ = timer.as_mut().poll(cx);
                Poll::Ready(())
            }
            None => self.0.insert(Box::pin(tokio::time::sleep_until(at))).as_mut().poll(cx),
        }
    }
}
