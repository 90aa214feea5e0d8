//! A WebSocket between client and upstream: bytes both ways as they come, and an end at the boundary of a frame.
//!
//! What is said is nobody's business here but for the heads of frames, which are followed so that a Close (RFC 6455 section
//! 5.5.1) can be put behind a whole frame when the exchange may go on no longer (SPEC 3.8). A tunnel without traffic holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep_until, timeout};

use super::exchange::Exchange;
use super::upstream::Lease;
use super::watch::End;
use crate::net::guard::TunnelHold;
use crate::reason::Reason;

/// Bytes taken from one side at a time: what a tunnel holds at most each way, while the other side is slow.
const READ_BYTES: usize = 16 * 1024;
/// Pieces moved one way before others have their turn.
const TURN: usize = 16;
/// When one side has ended, how long the other may be silent: a WebSocket has no half-closed state to rest in.
const HALF_CLOSED: Duration = Duration::from_secs(10);
/// How long it may take until a frame that has begun is through and a Close behind it.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long the client may take to read its Close: what it still sends is taken off the wire, so that it reads that and no reset.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Status codes of a Close (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
const POLICY_VIOLATION: u16 = 1008;

thread_local! {
    /// One read buffer a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// The two ends, and what lives as long as the tunnel.
pub struct Tunnel {
    /// The client's side, once its 101 was written.
    pub client: OnUpgrade,
    /// The upstream's side.
    pub upstream: OnUpgrade,
    /// Its place among the upstream's connections.
    pub lease: Lease,
    /// Keeps the client's connection counted.
    pub hold: Option<TunnelHold>,
    /// What is told of it when it has ended.
    pub exchange: Box<Exchange>,
    /// How long nothing may come from either side.
    pub idle: Duration,
}

/// How a tunnel came to its end.
enum Finish {
    /// Both sides ended, or one broke off.
    Ended,
    /// Nobody said anything for too long.
    Idle,
    /// It may go on no longer.
    Closed(End),
}

impl Tunnel {
    /// Carries bytes until an end.
    pub async fn run(self) {
        let Self { client, upstream, lease, hold, mut exchange, idle } = self;
        let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let (mut up, mut down) = (Pipe::default(), Pipe::default());
        let finish = carry(&mut client, &mut upstream, &mut up, &mut down, &mut exchange, idle).await;
        let (code, text) = match finish {
            Finish::Ended => {
                exchange.complete(Instant::now());
                return;
            }
            Finish::Idle => (GOING_AWAY, "idle"),
            Finish::Closed(End::Denied(reason)) => (POLICY_VIOLATION, reason.code()),
            Finish::Closed(End::Leaving) => (GOING_AWAY, "the gateway is going away"),
        };
        if matches!(finish, Finish::Idle) {
            exchange.broke(Reason::UpstreamTimeout);
        }
        down.close_with(close_frame(code, text, None));
        up.close_with(close_frame(code, text, Some(mask())));
        let closing = poll_fn(|cx| {
            let toward_upstream = up.poll(&mut client, &mut upstream, cx).is_ready();
            let toward_client = down.poll(&mut upstream, &mut client, cx).is_ready();
            if toward_upstream && toward_client { Poll::Ready(()) } else { Poll::Pending }
        });
        let closed = timeout(CLOSE_TIME, closing).await.is_ok();
        exchange.received(up.take_moved());
        exchange.sent(down.take_moved());
        exchange.complete(Instant::now());
        drop((exchange, upstream, lease));
        if closed {
            let _ = timeout(LINGER_TIME, poll_fn(|cx| poll_discard(&mut client, cx))).await;
        }
        drop(hold);
    }
}

/// Moves bytes until one of the reasons to stop.
async fn carry(
    client: &mut TokioIo<Upgraded>,
    upstream: &mut TokioIo<Upgraded>,
    up: &mut Pipe,
    down: &mut Pipe,
    exchange: &mut Exchange,
    idle: Duration,
) -> Finish {
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until((last + idle).into()));
    poll_fn(|cx| {
        if let Poll::Ready(end) = exchange.poll_end(cx) {
            return Poll::Ready(Finish::Closed(end));
        }
        let toward_upstream = up.poll(client, upstream, cx);
        let toward_client = down.poll(upstream, client, cx);
        let (received, sent) = (up.take_moved(), down.take_moved());
        if received + sent > 0 {
            last = Instant::now();
            exchange.received(received);
            exchange.sent(sent);
        }
        let half_closed = match (toward_upstream, toward_client) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) | (Poll::Ready(_), Poll::Ready(_)) => {
                return Poll::Ready(Finish::Ended);
            }
            (upward, downward) => upward.is_ready() || downward.is_ready(),
        };
        let allowed = if half_closed { idle.min(HALF_CLOSED) } else { idle };
        // The timer is set anew only when it fires, or would fire too late.
        loop {
            let at = (last + allowed).into();
            if timer.is_elapsed() || timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if last + allowed <= Instant::now() {
                return Poll::Ready(if half_closed { Finish::Ended } else { Finish::Idle });
            }
        }
    })
    .await
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// Read and not yet written; empty nearly always.
    held: Vec<u8>,
    written: usize,
    frames: Frames,
    /// Bytes taken since they were last asked for.
    moved: u64,
    unflushed: bool,
    ended: bool,
    shut: bool,
    /// What to say behind the frame that is on its way; then it ends.
    last_words: Option<Vec<u8>>,
}

impl Pipe {
    fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    /// Lets the frame that has begun through, then says this, then ends. A side that has said its own Close says no more.
    fn close_with(&mut self, frame: Vec<u8>) {
        self.last_words = Some(frame);
    }

    /// Moves what can be moved. Ready when `from` has ended and `to` was told.
    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURN {
            while self.written < self.held.len() {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.written..]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += count;
                self.unflushed = true;
            }
            self.held = Vec::new();
            self.written = 0;
            if self.last_words.is_some() && (self.ended || self.frames.at_boundary()) {
                self.ended = true;
                if let Some(words) = self.last_words.take().filter(|_| self.frames.may_close()) {
                    self.held = words;
                    continue;
                }
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.shut = true;
                return Poll::Ready(Ok(()));
            }
            match self.poll_piece(from, to, cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, and writes what is taken at once.
    fn poll_piece<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let mut bytes = buffer.filled();
            if bytes.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            if self.last_words.is_some() {
                bytes = self.frames.through_boundary(bytes);
            } else {
                self.frames.follow(bytes);
            }
            self.moved += bytes.len() as u64;
            let written = match Pin::new(to).poll_write(cx, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.unflushed |= written > 0;
            self.held.extend_from_slice(&bytes[written..]);
            Poll::Ready(Ok(()))
        })
    }
}

/// Takes what the client is still sending, to its end.
fn poll_discard<R: AsyncRead + Unpin>(client: &mut R, cx: &mut Context<'_>) -> Poll<()> {
    for _ in 0..TURN {
        let ended = SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let read = ready!(Pin::new(&mut *client).poll_read(cx, &mut buffer));
            Poll::Ready(read.is_err() || buffer.filled().is_empty())
        });
        if ready!(ended) {
            return Poll::Ready(());
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Where in a frame one direction is (RFC 6455 section 5.2).
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 10],
    /// Bytes of the head that were seen; 0 at a boundary, if nothing of a payload is left.
    seen: usize,
    /// Bytes of mask and payload to come.
    left: u64,
    close: bool,
}

impl Frames {
    fn at_boundary(&self) -> bool {
        self.seen == 0 && self.left == 0
    }

    /// Whether a Close may be said: between two frames, and not behind another Close.
    fn may_close(&self) -> bool {
        self.at_boundary() && !self.close
    }

    /// Follows all of `bytes`.
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (_, rest) = bytes.split_at(self.step(bytes));
            bytes = rest;
        }
    }

    /// Follows `bytes` up to the end of the frame, and says what these are.
    fn through_boundary<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut used = 0;
        while used < bytes.len() && !self.at_boundary() {
            used += self.step(&bytes[used..]);
        }
        &bytes[..used]
    }

    /// Follows a part of `bytes`, which is not empty; says how much.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= now as u64;
            return now;
        }
        self.head[self.seen] = bytes[0];
        self.seen += 1;
        let length = match (self.seen, self.head[1] & 0x7F) {
            (2, short @ 0..=125) => u64::from(short),
            (4, 126) => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            (10, 127) => {
                let [_, _, length @ ..] = self.head;
                u64::from_be_bytes(length)
            }
            _ => return 1,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        self.left = length.saturating_add(mask);
        self.close |= self.head[0] & 0x0F == 0x08;
        self.seen = 0;
        self.head = [0; 10];
        1
    }
}

/// A Close frame; masked where it goes to a server (RFC 6455 section 5.3).
fn close_frame(code: u16, text: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    // A control frame holds at most 125 bytes.
    payload.extend(text.bytes().take(123));
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x88, masked | u8::try_from(payload.len()).unwrap_or(125)];
    if let Some(mask) = mask {
        frame.extend(mask);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    frame.extend(payload);
    frame
}

fn mask() -> [u8; 4] {
    let mut mask = [0; 4];
    // Where there is no randomness any mask is as good: the frame's payload is not secret, and is not the client's to choose.
    let _ = aws_lc_rs::rand::fill(&mut mask);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<u8> {
        let mut bytes = vec![0x81, 0x03, b'a', b'b', b'c'];
        bytes.extend([0x82, 126, 0x01, 0x00]);
        bytes.extend([7; 256]);
        bytes.extend([0x89, 0x80, 1, 2, 3, 4]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 1]);
        bytes.extend([9; 65537]);
        bytes.extend([0x8A, 0x00]);
        bytes
    }

    /// Where the frames of [`frames`] end.
    const ENDS: [usize; 5] = [5, 265, 271, 65818, 65820];

    #[test]
    fn boundaries_are_found_however_the_bytes_come() {
        let bytes = frames();
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for part in bytes.chunks(piece) {
                frames.follow(part);
                at += part.len();
                assert_eq!(frames.at_boundary(), ENDS.contains(&at), "at {at} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn an_end_takes_the_rest_of_a_frame_and_no_more() {
        let bytes = frames();
        for cut in 0..300 {
            let mut frames = Frames::default();
            frames.follow(&bytes[..cut]);
            let rest = frames.through_boundary(&bytes[cut..]);
            let end = cut + rest.len();
            assert!(frames.at_boundary());
            assert!(cut == 0 || ENDS.contains(&end), "cut at {cut} it ends at {end}");
        }
    }

    #[test]
    fn behind_a_close_nothing_is_said() {
        let mut frames = Frames::default();
        assert!(frames.may_close());
        frames.follow(&close_frame(1000, "bye", None));
        assert!(frames.at_boundary() && !frames.may_close());
    }

    #[test]
    fn a_close_to_the_upstream_is_masked() {
        let frame = close_frame(1008, "revoked", Some([1, 2, 3, 4]));
        assert_eq!(frame[..6], [0x88, 0x80 | 9, 1, 2, 3, 4]);
        let plain: Vec<u8> =
            frame[6..].iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!((u16::from_be_bytes([plain[0], plain[1]]), &plain[2..]), (1008, b"revoked".as_slice()));
        assert!(close_frame(1008, &"x".repeat(500), None).len() <= 127);
        let mut frames = Frames::default();
        frames.follow(&frame);
        assert!(frames.at_boundary());
    }
}
