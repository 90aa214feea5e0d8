//! A TCP connection's way to somewhere, which a test can hold up, cut, or make slow.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// What happens to what goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// It goes through, after so long.
    Flows(Duration),
    /// It waits, and new connections are taken and wait too: a network that lost its way, or a paused machine.
    Stalls,
    /// New connections are refused by a reset.
    Refused,
}

/// A listener whose connections go to another address for as long as the test lets them.
#[derive(Debug)]
pub(crate) struct Link {
    /// What clients connect to.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    target: SocketAddr,
    streams: Vec<TcpStream>,
    taken: usize,
    /// How often all connections were reset.
    resets: usize,
    over: bool,
}

impl Link {
    /// A way to this address.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().unwrap();
        let state = State {
            weather: Weather::Flows(Duration::ZERO),
            target,
            streams: Vec::new(),
            taken: 0,
            resets: 0,
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let given = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if given.state.lock().unwrap().over {
                    return;
                }
                let shared = Arc::clone(&given);
                thread::spawn(move || shared.carry(stream));
            }
        });
        Self { address, shared }
    }

    /// Everything goes through again, at once.
    pub(crate) fn flow(&self) {
        self.set(Weather::Flows(Duration::ZERO));
    }

    /// Everything goes through, each piece after so long.
    pub(crate) fn delay(&self, by: Duration) {
        self.set(Weather::Flows(by));
    }

    /// Nothing goes through and nothing is closed.
    pub(crate) fn stall(&self) {
        self.set(Weather::Stalls);
    }

    /// Resets every connection, and each new one.
    pub(crate) fn cut(&self) {
        self.set(Weather::Refused);
        self.reset();
    }

    /// Resets every connection that is open; new ones are as before.
    pub(crate) fn reset(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.resets += 1;
        for stream in std::mem::take(&mut state.streams) {
            // Wakes who reads; the reset goes out when the last handle is closed.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// How many connections have been made.
    pub(crate) fn taken(&self) -> usize {
        self.shared.state.lock().unwrap().taken
    }

    fn set(&self, weather: Weather) {
        self.shared.state.lock().unwrap().weather = weather;
        self.shared.changed.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().over = true;
        self.set(Weather::Refused);
        self.reset();
        // The listener's thread looks at the flag once more.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Waits while the link stalls; how long the next piece takes, or `None` if nothing goes through any more.
    fn wait(&self) -> Option<Duration> {
        let mut state = self.state.lock().unwrap();
        while state.weather == Weather::Stalls {
            state = self.changed.wait(state).unwrap();
        }
        if let Weather::Flows(delay) = state.weather { Some(delay) } else { None }
    }

    fn resets(&self) -> usize {
        self.state.lock().unwrap().resets
    }

    fn carry(self: Arc<Self>, client: TcpStream) {
        self.state.lock().unwrap().taken += 1;
        let begun = self.resets();
        let there = self.wait().map(|_| self.state.lock().unwrap().target);
        let Some(server) = there.and_then(|target| TcpStream::connect(target).ok()) else {
            let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let copies = || (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (kept, other) = copies();
        self.state.lock().unwrap().streams.extend([kept, other]);
        let (back_to, back_from) = copies();
        let shared = Arc::clone(&self);
        thread::spawn(move || shared.copy(begun, back_from, back_to));
        self.copy(begun, client, server);
    }

    fn copy(&self, begun: usize, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            // What is read behind a reset was sent behind it, before this thread was awake to see the end.
            if self.resets() != begun {
                return;
            }
            let Some(delay) = self.wait() else { return };
            thread::sleep(delay);
            if to.write_all(&piece[..count]).is_err() {
                return;
            }
        }
        // An end is passed on, as soon as something can be; after a reset it would come before the reset does.
        if self.wait().is_some() && self.resets() == begun {
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}

mod tests {
    use super::Link;
    use crate::harness::redis::{Redis, Resp};
    use std::io::ErrorKind;
    use std::time::Duration;

    #[test]
    fn a_link_flows_stalls_and_is_cut() {
        let server = Redis::start();
        let link = Link::to(server.address);
        let open = |limit| Resp::open(link.address, Duration::from_millis(limit)).unwrap();
        let mut connection = open(10_000);
        assert_eq!(connection.ask(&["PING"]).unwrap().text(), "PONG");
        link.reset();
        assert_eq!(connection.ask(&["PING"]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut connection = open(10_000);
        assert_eq!(connection.ask(&["PING"]).unwrap().text(), "PONG");
        link.stall();
        // Waited for in vain, and so not for long.
        connection.limit(Duration::from_secs(2));
        assert_eq!(connection.ask(&["PING"]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(open(2_000).ask(&["PING"]).unwrap_err().kind(), ErrorKind::WouldBlock);
        link.flow();
        assert_eq!(open(10_000).ask(&["PING"]).unwrap().text(), "PONG");
        link.cut();
        // Sooner or later: the connection may be cut before it is used.
        let cut =
            Resp::open(link.address, Duration::from_secs(10)).and_then(|mut connection| connection.ask(&["PING"]));
        assert!(cut.is_err());
        assert!(link.taken() >= 5);
    }
}
