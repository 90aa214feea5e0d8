//! The end of a listener, in stages, so that no request is lost on the way.
//!
//! A connection that waits in the kernel's accept queue is reset when its listener is closed, and with a queue a worker nobody
//! else would take it. So before a listener is closed, the kernel is told to leave new connections alone
//! ([`turn_away`]): what is in the queue by then, and what is still being established, is accepted; a client that comes later hears nothing,
//! asks again a second later, and finds the port closed, or the next process behind it.
//!
//! A connection that is kept alive may carry a request at any moment. So none is closed under its client: answers say
//! `Connection: close` first, and only who has not asked anything for a while is closed without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long a listener still accepts what was being established when it began to turn new connections away: more than
/// a round trip takes.
pub(super) const LAST_CALL: Duration = Duration::from_millis(100);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not at all.
    Serving,
    /// New connections are welcome still, but answers say that theirs is the last of its connection.
    Leaving,
    /// Listeners turn new connections away, accept what is there, and close.
    LastCall,
    /// Connections are closed as soon as nothing is under way on them.
    Ending,
}

/// Moves the end on.
#[derive(Debug)]
pub struct DrainSender {
    last_call: watch::Sender<bool>,
    ending: watch::Sender<bool>,
    stage: Arc<AtomicU8>,
}

impl DrainSender {
    /// Enters a stage, and with it those before; what is behind already stays so.
    pub fn advance(&self, to: Stage) {
        self.stage.fetch_max(to as u8, Ordering::Release);
        for (stage, signal) in [(Stage::LastCall, &self.last_call), (Stage::Ending, &self.ending)] {
            if to >= stage {
                signal.send_replace(true);
            }
        }
    }
}

/// Says how far the end has come. Each stage that is waited for has a signal of its own: a connection is woken once, and then it ends.
#[derive(Debug, Clone)]
pub struct Drain {
    last_call: watch::Receiver<bool>,
    ending: watch::Receiver<bool>,
    /// For those who look at every request.
    stage: Arc<AtomicU8>,
}

impl Drain {
    /// A signal and those who wait for it.
    #[must_use]
    pub fn new() -> (DrainSender, Self) {
        let ((last_call, called), (ending, ended)) = (watch::channel(false), watch::channel(false));
        let stage = Arc::new(AtomicU8::new(Stage::Serving as u8));
        let drain = Self { last_call: called, ending: ended, stage: Arc::clone(&stage) };
        (DrainSender { last_call, ending, stage }, drain)
    }

    /// Waits until connections are to end (or the sender is gone).
    pub async fn begun(&mut self) {
        let _ = self.ending.wait_for(|ending| *ending).await;
    }

    /// Waits until listeners are to close (or the sender is gone).
    pub async fn last_call(&mut self) {
        let _ = self.last_call.wait_for(|called| *called).await;
    }

    /// Whether connections are to end.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.has_reached(Stage::Ending)
    }

    /// Whether a stage is reached.
    #[must_use]
    pub fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) >= stage as u8
    }
}

/// Lets the kernel drop the first packet of every new connection to this listener, unanswered. Where that is not possible,
/// connections keep coming until the listener is closed, and the last of them may be reset.
#[cfg(target_os = "linux")]
pub(super) fn turn_away(listener: &TcpListener) {
    use socket2::{SockFilter, SockRef};

    // Classic BPF over the TCP header, whose flags are at offset 13 (RFC 9293 section 3.1): SYN without ACK is dropped.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
        tracing::debug!(%error, "new connections cannot be turned away before the listener closes");
    }
}

/// Nothing of the kind is known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn turn_away(_: &TcpListener) {}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_are_reached_in_order_and_none_is_left_again() {
        let (sender, mut drain) = Drain::new();
        assert!(!drain.has_reached(Stage::Leaving));
        sender.advance(Stage::LastCall);
        sender.advance(Stage::Leaving);
        assert!(drain.has_reached(Stage::LastCall) && !drain.is_begun());
        drain.last_call().await;
        drop(sender);
        drain.begun().await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_was_there_is_accepted_and_who_comes_later_is_turned_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let early = std::net::TcpStream::connect(address).unwrap();
        turn_away(&listener);
        let wait = Duration::from_millis(200);
        let late = tokio::task::spawn_blocking(move || std::net::TcpStream::connect_timeout(&address, wait));
        assert_eq!(late.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, early.local_addr().unwrap());
    }
}
