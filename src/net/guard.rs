//! The IO wrapper that lets a parser see only what cannot be read in two ways.
//!
//! hyper never sees an HTTP/1.1 head before [`head::inspect`] has accepted all of it, and never a byte of
//! a body whose framing has become malformed. The wrapper follows the framing of every message, so it knows
//! where the next head begins; since an accepted head has exactly one framing, it and hyper cannot disagree.
//!
//! A refused head is replaced by a plain one whose request the service answers with the recorded
//! [`Rejection`]: so the answer stays in order behind those of earlier pipelined requests. Nothing is read behind it.
//!
//! Both clocks of a connection live here as well, because hyper's own header timer also runs while a kept-alive
//! connection is idle: idle time until the first byte of a head, from then on header time.
//!
//! Of a connection that has been idle for a moment, the wrapper gives the stream back ([`Parked`]), so that all that is built
//! around it can be freed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::Request;
use http_body::Body;
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::connection::Protocol;
use super::parked::{Lot, Parked};
use crate::request::Rejection;
use crate::request::chunked::{ChunkedReader, Progress};
use crate::request::head::{self, Framing, HeadFacts, HeadLimits, http2};

/// Size of one read.
const READ_BYTES: usize = 64 * 1024;
/// How much of an unread request is taken off the wire before a connection is closed, so that the client
/// reads the denial and not a reset (SPEC 3.8).
const LINGER_BYTES: usize = 256 * 1024;
/// How long that may take.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// What stands in for a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";
/// The same for a HEAD request, whose answer must not carry a body.
const STAND_IN_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused\r\n\r\n";

thread_local! {
    /// One read buffer a thread: bytes are looked at here and then copied to where hyper wants them, so an
    /// idle connection holds no buffer of its own.
    pub(super) static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What the inspection of a head said.
pub type HeadOutcome = Result<HeadFacts, Rejection>;

/// A head that was handed on.
#[derive(Debug)]
pub struct Arrived {
    /// What its inspection said.
    pub outcome: HeadOutcome,
    /// When its last byte was read.
    pub at: Instant,
}

/// What a connection's IO and its service share.
#[derive(Debug)]
pub struct ConnectionState {
    protocol: Protocol,
    settings: GuardSettings,
    /// HTTP/1: one for each head that hyper was given and whose request has not reached the service yet.
    heads: Mutex<VecDeque<Arrived>>,
    /// Exchanges whose answer is not finished.
    in_flight: AtomicU32,
    /// An upgrade was agreed upon: what follows its head is no HTTP.
    is_tunnel: AtomicBool,
    /// Something behind a head that asked for an upgrade is held until its exchange has ended, and then this is woken.
    is_held: AtomicBool,
    holder: Mutex<Option<Waker>>,
    /// Resolves when the tunnel has ended.
    tunnel: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Keeps a connection that became a tunnel counted as open until it is dropped.
#[derive(Debug)]
pub struct TunnelHold(#[expect(dead_code, reason = "it is there to be dropped")] oneshot::Sender<()>);

/// Counts an exchange as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<ConnectionState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Release);
        if self.0.is_held.load(Ordering::Acquire) {
            self.0.let_go();
        }
    }
}

impl ConnectionState {
    /// Of a new connection.
    #[must_use]
    pub fn new(protocol: Protocol, settings: GuardSettings) -> Self {
        Self {
            protocol,
            settings,
            heads: Mutex::default(),
            in_flight: AtomicU32::new(0),
            is_tunnel: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            holder: Mutex::default(),
            tunnel: Mutex::default(),
        }
    }

    /// The upgrade that the last head asked for is agreed upon; to be called before that is answered. From here on bytes are
    /// passed on uninspected. An HTTP/2 stream becomes a tunnel without its connection.
    #[must_use]
    pub fn open_tunnel(&self) -> Option<TunnelHold> {
        if self.protocol == Protocol::Http2 {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
        self.is_tunnel.store(true, Ordering::Release);
        Some(TunnelHold(sender))
    }

    /// Waits for the end of the tunnel that the connection became, if it did.
    pub(super) async fn tunnel_ended(&self) {
        let tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tunnel) = tunnel {
            let _ = tunnel.await;
        }
    }

    /// The outcome that belongs to the request which the service was just given, and the guard that says
    /// it is being answered: to be kept until the answer's body has ended, because a connection without one is parked.
    /// HTTP/1 requests reach a service in the order of their heads; an HTTP/2 head is inspected here.
    pub fn begin<B: Body>(self: &Arc<Self>, request: &Request<B>) -> (Arrived, InFlight) {
        if self.protocol == Protocol::Http2 {
            self.in_flight.fetch_add(1, Ordering::Release);
            let protocol = request.extensions().get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str);
            let outcome = http2::inspect(request, request.body().is_end_stream(), protocol, &self.settings.head);
            return (Arrived { outcome, at: Instant::now() }, InFlight(Arc::clone(self)));
        }
        let arrived = self.heads.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        // A request without an inspected head cannot be; if it were, it would be refused.
        let arrived = arrived.unwrap_or_else(|| Arrived {
            outcome: Err(Rejection::request("the head was not inspected")),
            at: Instant::now(),
        });
        (arrived, InFlight(Arc::clone(self)))
    }

    fn delivered(&self, outcome: HeadOutcome, at: Instant) {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).push_back(Arrived { outcome, at });
        self.in_flight.fetch_add(1, Ordering::Release);
    }

    /// Wakes this when the exchange in flight has ended: nobody else would, for the bytes have been read.
    fn hold(&self, waker: &Waker) {
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        self.is_held.store(true, Ordering::Release);
    }

    #[cold]
    fn let_go(&self) {
        self.is_held.store(false, Ordering::Release);
        if let Some(waker) = self.holder.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// Whether no exchange is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }
}

/// Limits and clocks of one connection.
#[derive(Debug, Clone, Copy)]
pub struct GuardSettings {
    /// Limits on a head.
    pub head: HeadLimits,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// HTTP/2 streams that one client may have open at a time.
    pub streams: u32,
    /// Without a byte either way: between exchanges, within a request body, or while the client takes no answer.
    pub idle_timeout: Duration,
}

/// Which limit ended a connection; counted in `doorward_limit_rejections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// A head was too slow.
    HeaderTimeout,
    /// Nothing happened for too long.
    IdleTimeout,
}

#[derive(Debug)]
enum Phase {
    /// Between messages, or within a head.
    Head,
    /// This many bytes of a body are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(ChunkedReader),
    /// An upgrade was asked for (T25): what follows is held until it is known whether that is HTTP.
    Upgrade,
    /// An upgrade was agreed upon; nothing is inspected any more.
    Tunnel,
    /// A head was refused; nothing more is read.
    Refused,
}

/// A stream whose HTTP/1.1 requests are inspected before hyper sees them.
pub struct GuardedIo<S> {
    /// `None` once it was left in the lot.
    stream: Option<S>,
    lot: Arc<Lot<S>>,
    phase: Phase,
    /// Bytes of an accepted head that hyper has not taken yet.
    accepted: usize,
    /// Bytes that were read and not given to hyper: a head that is not complete, or what follows a message.
    held: Vec<u8>,
    /// How many bytes of `held` were searched for the end of a head.
    searched: usize,
    state: Arc<ConnectionState>,
    settings: GuardSettings,
    head_began: Option<Instant>,
    last_activity: Instant,
    last_written: Instant,
    write_blocked: bool,
    timer: Option<Pin<Box<Sleep>>>,
    closing: bool,
    linger: Option<(Instant, usize)>,
    on_expiry: Box<dyn Fn(Expired) + Send>,
}

impl<S> GuardedIo<S> {
    /// Guards a stream from which the first bytes of a head were read already. `on_expiry` is told which limit ended the
    /// connection; the stream is left in `lot` when the connection has come to rest.
    pub(super) fn new(
        parked: Parked<S>,
        first: Vec<u8>,
        lot: Arc<Lot<S>>,
        state: Arc<ConnectionState>,
        settings: GuardSettings,
        on_expiry: Box<dyn Fn(Expired) + Send>,
    ) -> Self {
        Self {
            stream: Some(parked.stream),
            lot,
            phase: Phase::Head,
            accepted: 0,
            head_began: (!first.is_empty()).then_some(parked.last_activity),
            held: first,
            searched: 0,
            state,
            settings,
            last_activity: parked.last_activity,
            last_written: parked.last_activity,
            write_blocked: false,
            timer: parked.timer,
            closing: false,
            linger: None,
            on_expiry,
        }
    }

    /// Gives hyper as much of `input` as it may see and has room for. Returns how many bytes of `input` are used up.
    fn deliver(&mut self, input: &[u8], cursor: &mut ReadBufCursor<'_>) -> io::Result<usize> {
        let mut used = 0;
        while used < input.len() && cursor.remaining() > 0 {
            let rest = &input[used..];
            let room = rest.len().min(cursor.remaining());
            if self.accepted > 0 {
                let now = room.min(self.accepted);
                cursor.put_slice(&rest[..now]);
                self.accepted -= now;
                used += now;
                continue;
            }
            match &mut self.phase {
                Phase::Head => {
                    let Some(end) = head::end(rest, self.searched) else {
                        self.searched = rest.len();
                        if rest.len() <= self.settings.head.bytes {
                            break;
                        }
                        self.refuse(rest, head::overflow(rest), cursor);
                        return Ok(input.len());
                    };
                    self.searched = 0;
                    self.head_began = None;
                    match head::inspect(&rest[..end], &self.settings.head) {
                        Ok(facts) => {
                            self.phase = match facts.framing {
                                Framing::None if facts.upgrade => Phase::Upgrade,
                                Framing::None => Phase::Head,
                                Framing::Length(length) => Phase::Length(length),
                                Framing::Chunked => Phase::Chunked(ChunkedReader::default()),
                            };
                            self.accepted = end;
                            self.state.delivered(Ok(facts), self.last_activity);
                        }
                        Err(rejection) => {
                            self.refuse(rest, rejection, cursor);
                            return Ok(input.len());
                        }
                    }
                }
                Phase::Length(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(room);
                    cursor.put_slice(&rest[..now]);
                    *left -= now as u64;
                    used += now;
                    if *left == 0 {
                        self.phase = Phase::Head;
                    }
                }
                Phase::Chunked(reader) => match reader.feed(&rest[..room]) {
                    Ok(Progress::More) => {
                        cursor.put_slice(&rest[..room]);
                        used += room;
                    }
                    Ok(Progress::Done(length)) => {
                        cursor.put_slice(&rest[..length]);
                        used += length;
                        self.phase = Phase::Head;
                    }
                    Err(rejection) => {
                        self.phase = Phase::Refused;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, rejection.detail));
                    }
                },
                Phase::Upgrade if self.state.is_tunnel.load(Ordering::Acquire) => self.phase = Phase::Tunnel,
                // Its exchange has ended, and not by an upgrade.
                Phase::Upgrade if self.state.is_idle() => self.phase = Phase::Head,
                Phase::Upgrade => break,
                Phase::Tunnel => {
                    cursor.put_slice(&rest[..room]);
                    used += room;
                }
                Phase::Refused => return Ok(input.len()),
            }
        }
        Ok(used)
    }

    fn refuse(&mut self, head: &[u8], rejection: Rejection, cursor: &mut ReadBufCursor<'_>) {
        let stand_in = if head.starts_with(b"HEAD ") { STAND_IN_HEAD } else { STAND_IN };
        self.phase = Phase::Refused;
        self.head_began = None;
        self.state.delivered(Err(rejection), self.last_activity);
        // hyper's smallest read buffer is 8 KiB and it asks for bytes only while there is room, so this
        // fits; were it ever cut short, hyper would wait for the rest, get none and close.
        let room = stand_in.len().min(cursor.remaining());
        cursor.put_slice(&stand_in[..room]);
    }

    /// When this connection has waited too long, as things stand; `None` while an exchange is being answered.
    fn deadline(&self) -> Option<(Instant, Expired)> {
        let idle = self.state.is_idle();
        // The beginning of a next head (some clients send a stray line end behind a body) does not end the exchange before
        // it: that head has its time from the end of the answer.
        if let Some(began) = self.head_began.filter(|_| idle) {
            return Some((began.max(self.last_written) + self.settings.header_timeout, Expired::HeaderTimeout));
        }
        let receiving = matches!(self.phase, Phase::Length(_) | Phase::Chunked(_));
        (self.write_blocked || receiving || idle)
            .then(|| (self.last_activity + self.settings.idle_timeout, Expired::IdleTimeout))
    }

    /// Whether nothing of any exchange is left, on the wire or here: what hyper holds of this connection is as good as new.
    /// Asked only when hyper has asked for bytes and there are none, so it waits for a head too.
    fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Head)
            && self.accepted == 0
            && self.held.is_empty()
            && !self.write_blocked
            && !self.closing
            && self.state.is_idle()
    }

    /// Leaves the stream in the lot, if it is wanted there. What called goes on with a guard that reads nothing and is
    /// dropped soon.
    fn park(&mut self) -> bool {
        if !self.lot.wants(self.last_activity) || !self.is_at_rest() {
            return false;
        }
        if let Some(stream) = self.stream.take() {
            self.lot.leave(Parked { stream, last_activity: self.last_activity, timer: self.timer.take() });
        }
        true
    }

    /// Whether the deadline has passed. The timer is set anew only when it fires or would fire too late, so
    /// a busy connection neither touches it nor reads the clock.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        let deadline = self.deadline();
        // While an exchange is being answered nothing is due, and nobody calls when it has ended: with the beginning of a next
        // head held back, the timer looks again, however far off it was set before.
        let look = match deadline {
            Some((at, _)) => Some(at),
            None => self.head_began.map(|_| Instant::now() + self.settings.header_timeout),
        };
        if let Some(timer) = &self.timer
            && !timer.is_elapsed()
            && look.is_none_or(|at| timer.deadline().into_std() <= at)
        {
            // It was polled by this task when it was set, and will wake it.
            return Poll::Pending;
        }
        loop {
            let (at, what) = deadline.unwrap_or_else(|| {
                // Looked at again after a while: nobody calls when the exchange has ended.
                let header = self.head_began.map_or(self.settings.idle_timeout, |_| self.settings.header_timeout);
                (Instant::now() + header.min(self.settings.idle_timeout), Expired::IdleTimeout)
            });
            if at <= Instant::now() {
                return Poll::Ready(what);
            }
            let at = tokio::time::Instant::from_std(at);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
        }
    }

    fn expired(&self, what: Expired) -> io::Error {
        (self.on_expiry)(what);
        io::Error::new(io::ErrorKind::TimedOut, "the client was too slow")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for GuardedIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = cursor.remaining();
        loop {
            if !this.held.is_empty() {
                let held = std::mem::take(&mut this.held);
                let used = this.deliver(&held, &mut cursor)?;
                if used < held.len() {
                    this.held = held;
                    this.held.drain(..used);
                    if matches!(this.phase, Phase::Head) && this.head_began.is_none() {
                        this.head_began = Some(this.last_activity);
                    }
                }
            }
            if cursor.remaining() < room {
                return Poll::Ready(Ok(()));
            }
            if matches!(this.phase, Phase::Refused) {
                // The answer is being written; hyper closes behind it and asks no more.
                return Poll::Pending;
            }
            if matches!(this.phase, Phase::Upgrade) {
                this.state.hold(cx.waker());
                if this.held.len() >= READ_BYTES {
                    return Poll::Pending;
                }
            }
            if let (Phase::Length(left), Some(stream)) = (&mut this.phase, &mut this.stream)
                && *left >= room as u64
            {
                // Nothing but body fits: it needs no look, and is read to where hyper wants it.
                let mut counted = Counted { stream, bytes: 0 };
                let read = hyper::rt::Read::poll_read(Pin::new(&mut TokioIo::new(&mut counted)), cx, cursor);
                *left -= counted.bytes as u64;
                if *left == 0 {
                    this.phase = Phase::Head;
                }
                if read.is_ready() {
                    this.last_activity = Instant::now();
                    return read;
                }
                let what = ready!(this.poll_deadline(cx));
                return Poll::Ready(Err(this.expired(what)));
            }
            let read = SCRATCH.with_borrow_mut(|scratch| -> Poll<io::Result<usize>> {
                let Some(stream) = &mut this.stream else { return Poll::Pending };
                let mut buffer = ReadBuf::new(&mut scratch[..room.min(READ_BYTES)]);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                let bytes = buffer.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                this.last_activity = Instant::now();
                if this.held.is_empty() {
                    let used = this.deliver(bytes, &mut cursor)?;
                    this.held.extend_from_slice(&bytes[used..]);
                } else {
                    this.held.extend_from_slice(bytes);
                }
                if matches!(this.phase, Phase::Head) && !this.held.is_empty() && this.head_began.is_none() {
                    this.head_began = Some(this.last_activity);
                }
                Poll::Ready(Ok(bytes.len()))
            });
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) if cursor.remaining() < room => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // A tunnel has clocks of its own.
                Poll::Pending if matches!(this.phase, Phase::Tunnel) => return Poll::Pending,
                Poll::Pending if this.park() => return Poll::Pending,
                Poll::Pending => {
                    let what = ready!(this.poll_deadline(cx));
                    let error = this.expired(what);
                    let between = matches!(this.phase, Phase::Head);
                    // Between messages the end of the stream closes quietly; within one it is an error.
                    return Poll::Ready(if between && !this.write_blocked { Ok(()) } else { Err(error) });
                }
            }
        }
    }
}

/// Counts what is read from a stream into a buffer that is out of sight.
struct Counted<'a, S> {
    stream: &'a mut S,
    bytes: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut *this.stream).poll_read(cx, buffer);
        this.bytes += buffer.filled().len() - before;
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> GuardedIo<S> {
    fn wrote(&mut self, result: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.write_blocked = false;
            self.last_activity = Instant::now();
            self.last_written = self.last_activity;
            return result;
        }
        self.write_blocked = true;
        let what = ready!(self.poll_deadline(cx));
        Poll::Ready(Err(self.expired(what)))
    }

    /// Takes what the client is still sending off the wire, within bounds.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (until, left) = *self.linger.get_or_insert_with(|| {
                self.timer = None;
                (Instant::now() + LINGER_TIME, LINGER_BYTES)
            });
            let at = tokio::time::Instant::from_std(until);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if left == 0 || timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(stream) = &mut self.stream else { return Poll::Ready(()) };
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            });
            match ready!(read) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(length) => self.linger = Some((until, left.saturating_sub(length))),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for GuardedIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Pending };
        let result = Pin::new(stream).poll_write(cx, bytes);
        this.wrote(result, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Pending };
        let result = Pin::new(stream).poll_write_vectored(cx, bytes);
        this.wrote(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Ready(Ok(())) };
        let flushed = Pin::new(stream).poll_flush(cx);
        // A stream that encrypts may hold back what was written.
        this.write_blocked = flushed.is_pending();
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.closing = true;
        if let (Some(stream), None) = (&mut this.stream, this.linger) {
            ready!(Pin::new(stream).poll_shutdown(cx))?;
        }
        // A request that was taken whole leaves nothing on the wire to wait for, and the other half of a tunnel is still in use.
        let is_whole = match this.phase {
            Phase::Tunnel => true,
            Phase::Head | Phase::Upgrade => this.held.is_empty(),
            _ => false,
        };
        if !is_whole {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
