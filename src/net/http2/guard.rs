//! The IO wrapper of an HTTP/2 connection: its clocks, and the floods that a parser alone would bear for ever.
//!
//! It takes nothing from the stream; it follows the frames in both directions and knows how many exchanges are in flight.
//! What is begun in one go (the preface, a frame, a header block) has header time from its first byte. While nothing
//! is in flight, and while the client takes no bytes, idle time runs; pings do not stop it. Floods are held against what the
//! connection does for anybody: frames that carry nothing are allowed by the frames of answers, resets by streams that end well.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::{Frame, Frames, Kind};
use crate::net::guard::{ConnectionState, Expired, GuardSettings};
use crate::net::serve::ListenerEvent;
use crate::telemetry::Limit;

/// How long a client may take to leave a connection that has ended and carries nothing.
const LEAVE: Duration = Duration::from_secs(1);
/// Error codes (RFC 9113 section 7).
const NO_ERROR: u32 = 0x0;
const PROTOCOL_ERROR: u32 = 0x1;
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;
const ENHANCE_YOUR_CALM: u32 = 0xB;
/// No answer but the parser's own 431, which has a status and nothing else, is as short as this.
const BARE_HEAD: u32 = 8;

/// How many frames that carry nothing a client has in store, and how many come back a second.
const SPARE_FRAMES: Budget = Budget { left: 4096, most: 4096, per_second: 256 };
/// The same for streams that it opens and resets.
const SPARE_RESETS: Budget = Budget { left: 512, most: 512, per_second: 64 };
/// How many frames a client may answer one of an answer with: window updates of stream and connection, for parts of it.
const FRAMES_FOR_ONE: u32 = 4;

/// What a connection and who serves it tell each other.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The connection was idle for too long and shall end.
    idle: AtomicBool,
    /// The connection is ending: it takes no new streams.
    begun: AtomicBool,
}

impl Ending {
    /// Whether the connection has been idle for too long.
    pub(super) fn is_due(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// The client is told to go.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }
}

/// A stream whose HTTP/2 frames are followed.
pub(super) struct GuardedFrames<S, O> {
    stream: S,
    inward: Frames,
    outward: Frames,
    state: Arc<ConnectionState>,
    ending: Arc<Ending>,
    settings: GuardSettings,
    observe: O,
    /// When what is owed in one go began.
    head_began: Option<Instant>,
    /// Since when nothing has been in flight.
    idle_since: Option<Instant>,
    /// Since when the client has known that it shall go.
    leaving_since: Option<Instant>,
    last_read: Instant,
    last_written: Instant,
    /// When part of an answer was written last.
    last_carried: Instant,
    write_blocked: bool,
    timer: Option<Pin<Box<Sleep>>>,
    floods: Floods,
}

/// What one client may still do for nothing.
#[derive(Debug)]
struct Floods {
    frames: Budget,
    resets: Budget,
    filled: Instant,
    /// The stream whose head the parser itself refused as too large.
    refused_head: u32,
}

#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
}

impl Budget {
    fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }

    /// Whether there was one left.
    fn spend(&mut self) -> bool {
        let spent = self.left > 0;
        self.left = self.left.saturating_sub(1);
        spent
    }
}

impl Floods {
    fn new(now: Instant) -> Self {
        Self { frames: SPARE_FRAMES, resets: SPARE_RESETS, filled: now, refused_head: 0 }
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.frames.earn(self.frames.per_second.saturating_mul(seconds));
            self.resets.earn(self.resets.per_second.saturating_mul(seconds));
            self.filled = now;
        }
    }

    /// A frame of the client: the limit that it goes beyond, if it does.
    fn came(&mut self, frame: &Frame<'_>) -> Option<Limit> {
        match frame.kind {
            Kind::Reset if !self.resets.spend() => Some(Limit::StreamResets),
            Kind::Headers | Kind::Reset => None,
            Kind::Data if frame.length > 0 || frame.ends_stream() => None,
            Kind::Continuation if frame.length > 0 => None,
            _ => (!self.frames.spend()).then_some(Limit::ControlFrames),
        }
    }

    /// A frame of ours: what is to be told of it.
    fn went(&mut self, frame: &Frame<'_>) -> Option<ListenerEvent> {
        if frame.ends_stream() {
            self.resets.earn(1);
        }
        match (frame.kind, frame.code()) {
            (Kind::Data | Kind::Headers, _) => {
                self.frames.earn(FRAMES_FOR_ONE);
                if frame.kind == Kind::Headers && frame.ends_stream() && frame.length <= BARE_HEAD {
                    self.refused_head = frame.stream;
                    return Some(ListenerEvent::Limited(Limit::HeaderBytes));
                }
                None
            }
            (Kind::Reset, Some(REFUSED_STREAM)) => Some(ListenerEvent::Limited(Limit::Streams)),
            (Kind::Reset, Some(NO_ERROR | CANCEL)) => None,
            (Kind::Reset, Some(PROTOCOL_ERROR)) if frame.stream == self.refused_head => None,
            (Kind::Reset, _) => Some(ListenerEvent::ParseError(400)),
            (Kind::Goaway, Some(NO_ERROR)) => None,
            (Kind::Goaway, Some(ENHANCE_YOUR_CALM)) => Some(ListenerEvent::Limited(match frame.debug_data() {
                b"too_many_continuations" | b"header_list_way_too_large" => Limit::HeaderBytes,
                b"too_many_data_frames" => Limit::ControlFrames,
                _ => Limit::StreamResets,
            })),
            (Kind::Goaway, _) => Some(ListenerEvent::ParseError(400)),
            _ => None,
        }
    }
}

impl<S, O: Fn(ListenerEvent)> GuardedFrames<S, O> {
    /// Guards a stream of which nothing was read.
    pub(super) fn new(
        stream: S,
        state: Arc<ConnectionState>,
        ending: Arc<Ending>,
        settings: GuardSettings,
        observe: O,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            inward: Frames::of_client(),
            outward: Frames::of_server(),
            state,
            ending,
            settings,
            observe,
            head_began: Some(now),
            idle_since: None,
            leaving_since: None,
            last_read: now,
            last_written: now,
            last_carried: now,
            write_blocked: false,
            timer: None,
            floods: Floods::new(now),
        }
    }

    /// Follows what the client sent.
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        self.last_read = now;
        self.floods.fill(now);
        let (mut ended, mut beyond) = (false, None);
        let floods = &mut self.floods;
        self.inward.feed(bytes, |frame| {
            // A piece of a header block ends nothing: the block has its time as a whole.
            ended |= !matches!(frame.kind, Kind::Headers | Kind::Continuation) || frame.ends_headers();
            beyond = floods.came(frame);
            beyond.is_none()
        });
        if let Some(limit) = beyond {
            (self.observe)(ListenerEvent::Limited(limit));
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more of nothing than any client sends"));
        }
        self.head_began = match self.head_began {
            _ if !self.inward.owes_head() => None,
            Some(began) if !ended => Some(began),
            _ => Some(now),
        };
        Ok(())
    }

    /// Follows what was sent to the client.
    fn went<'b>(&mut self, pieces: impl IntoIterator<Item = &'b [u8]>, count: usize) {
        let now = Instant::now();
        let mut left = count;
        let mut carried = false;
        let (floods, observe) = (&mut self.floods, &self.observe);
        for piece in pieces {
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            self.outward.feed(piece, |frame| {
                carried |= matches!(frame.kind, Kind::Data | Kind::Headers);
                if let Some(event) = floods.went(frame) {
                    observe(event);
                }
                true
            });
        }
        if carried || self.outward.is_within_data() {
            self.last_carried = now;
        }
        if self.write_blocked {
            self.write_blocked = false;
            // Nothing was read meanwhile, which is not the client's fault twice.
            self.head_began = self.head_began.map(|_| now);
        }
        self.last_written = now;
    }

    /// When this connection has waited too long, as things stand.
    fn deadline(&mut self) -> Option<(Instant, Expired)> {
        let idle = self.settings.idle_timeout;
        if self.write_blocked {
            return Some((self.last_written + idle, Expired::IdleTimeout));
        }
        if let Some(began) = self.head_began {
            return Some((began + self.settings.header_timeout, Expired::HeaderTimeout));
        }
        if !self.state.is_idle() {
            self.idle_since = None;
            return self.inward.is_within_data().then(|| (self.last_read + idle, Expired::IdleTimeout));
        }
        let since = (*self.idle_since.get_or_insert_with(Instant::now)).max(self.last_carried);
        if self.ending.begun.load(Ordering::Relaxed) {
            let leaving = *self.leaving_since.get_or_insert_with(Instant::now);
            return Some((since.max(leaving) + LEAVE, Expired::IdleTimeout));
        }
        Some((since + idle, Expired::IdleTimeout))
    }

    /// Whether the connection is over. The timer is set anew only when it fires or would fire too late.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let deadline = self.deadline();
            // With exchanges in flight nothing is due, and nobody calls when the last has ended: look again after a while.
            let look = || (Instant::now() + self.settings.idle_timeout, Expired::IdleTimeout);
            let (at, what) = deadline.unwrap_or_else(look);
            if at <= Instant::now() {
                if what == Expired::HeaderTimeout || self.write_blocked || !self.state.is_idle() {
                    (self.observe)(ListenerEvent::Expired(what));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                if self.ending.begun.load(Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                // Who serves it tells the client first, and looks here again.
                if !self.ending.idle.swap(true, Ordering::Relaxed) {
                    (self.observe)(ListenerEvent::Expired(what));
                }
                return Poll::Pending;
            }
            let at = tokio::time::Instant::from_std(at);
            match &mut self.timer {
                Some(timer) if timer.deadline() <= at && !timer.is_elapsed() => {}
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            if let Some(timer) = &mut self.timer
                && timer.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + Unpin, O: Fn(ListenerEvent) + Unpin> AsyncRead for GuardedFrames<S, O> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if Pin::new(&mut this.stream).poll_read(cx, buffer)?.is_ready() {
            return Poll::Ready(this.came(&buffer.filled()[before..]));
        }
        this.poll_deadline(cx)
    }
}

impl<S: AsyncWrite + Unpin, O: Fn(ListenerEvent) + Unpin> AsyncWrite for GuardedFrames<S, O> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(count) = Pin::new(&mut this.stream).poll_write(cx, bytes)? {
            this.went([bytes], count);
            return Poll::Ready(Ok(count));
        }
        this.blocked(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(count) = Pin::new(&mut this.stream).poll_write_vectored(cx, bytes)? {
            this.went(bytes.iter().map(|piece| &**piece), count);
            return Poll::Ready(Ok(count));
        }
        this.blocked(cx)
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

impl<S, O: Fn(ListenerEvent)> GuardedFrames<S, O> {
    fn blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.write_blocked {
            self.write_blocked = true;
            self.last_written = Instant::now();
        }
        ready!(self.poll_deadline(cx))?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}
