//! Clients that ask every gateway all the time, with good tokens, revoked ones and ones that soon will be, and write down every answer.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fleet::{Fleet, MAX_STALENESS, RECOVERY};
use crate::harness::{Connection, eventually};

/// How long after its acknowledgement a revocation may be unknown to a gateway that denies when it is stale: decisions know seconds.
pub(super) const BOUND: Duration = Duration::from_secs(MAX_STALENESS.as_secs() + 1);
/// Tokens that are there to be revoked.
const TOKENS: usize = 600;
/// How long a token is used before it is revoked.
const USED_FOR: Duration = Duration::from_millis(60);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two looks at whether a gateway lives.
const LOOK: Duration = Duration::from_millis(50);
/// A heartbeat comes every second and decisions know seconds, so that little more makes a gateway stale, or late for the second that a
/// publication has. Where the machine stood still for so long, that says nothing of doorward.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Running clients, one a gateway, and one that revokes at the control plane; and who looks whether the gateways live.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Seen>>>,
    watchers: Vec<JoinHandle<Vec<Instant>>>,
    revoker: JoinHandle<()>,
}

struct Shared {
    over: AtomicBool,
    quiet: AtomicBool,
    good: String,
    held: Vec<Held>,
    /// How many of `held` somebody has begun to revoke.
    begun: AtomicUsize,
    /// How many of those calls were not answered.
    unanswered: AtomicUsize,
}

/// A token that is revoked on the way.
struct Held {
    token: String,
    entry: Value,
    /// Just before the call that revokes was sent.
    sent: OnceLock<Instant>,
    /// When it was answered, and with which status. Unanswered: nobody knows whether it is revoked.
    answered: OnceLock<(Instant, u16)>,
}

/// One answer.
struct Seen {
    gateway: usize,
    /// Index of the token; `None`: the one that stays good.
    held: Option<usize>,
    sent: Instant,
    answered: Instant,
    /// 0: none came.
    status: u16,
    reason: String,
}

/// All answers of a run.
pub(super) struct Report {
    seen: Vec<Seen>,
    /// When each gateway was seen to live.
    lived: Vec<Vec<Instant>>,
    shared: Arc<Shared>,
}

impl Load {
    pub(super) fn start(fleet: &Fleet) -> Self {
        let held = (0..TOKENS).map(|at| {
            let (jti, session, subject) = (format!("t-{at}"), format!("s-{at}"), format!("u-{at}"));
            let token = fleet.token(&subject, &session, &jti);
            let entry = match at % 3 {
                0 => json!({"jti": jti}),
                1 => json!({"session": session}),
                _ => json!({"subject": subject}),
            };
            Held { token, entry, sent: OnceLock::new(), answered: OnceLock::new() }
        });
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            good: fleet.token("good", "good", "good"),
            held: held.collect(),
            begun: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
        });
        let clients = fleet.gateways.iter().enumerate().map(|(gateway, running)| {
            let (shared, address) = (Arc::clone(&shared), running.gateway);
            thread::spawn(move || shared.ask(gateway, address))
        });
        let clients = clients.collect();
        let watchers = fleet.gateways.iter().map(|running| {
            let (shared, address) = (Arc::clone(&shared), running.admin);
            thread::spawn(move || shared.watch(address))
        });
        let watchers = watchers.collect();
        let (control, token) = (fleet.gateways[0].admin, fleet.revoker());
        let revoking = Arc::clone(&shared);
        let revoker = thread::spawn(move || revoking.revoke(control, &token));
        Self { shared, clients, watchers, revoker }
    }

    /// How many revocations have been acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        self.shared.acknowledged().count()
    }

    /// Waits for so many more acknowledged revocations.
    pub(super) fn wait_for(&self, more: usize) {
        let until = self.acknowledged() + more;
        eventually("more revocations", RECOVERY, || (self.acknowledged() >= until).then_some(()));
    }

    /// Revokes no more; whatever was begun is ended.
    pub(super) fn revoke_no_more(&self) {
        self.shared.quiet.store(true, Ordering::SeqCst);
    }

    /// Ends the load, once every gateway refuses everything that was ever acknowledged as revoked and lets good tokens through.
    pub(super) fn finish(self, fleet: &Fleet) -> Report {
        self.revoke_no_more();
        self.revoker.join().unwrap();
        fleet.all_accept(&self.shared.good);
        let mut asked = 0;
        for (index, gateway) in fleet.gateways.iter().enumerate() {
            let mut client = Client::of(gateway.gateway);
            for held in self.shared.acknowledged() {
                eventually(&format!("gateway {index} refuses {}", held.entry), RECOVERY, || {
                    (client.ask(&held.token).0 == 401).then_some(())
                });
                asked += 1;
            }
        }
        self.shared.over.store(true, Ordering::SeqCst);
        let seen = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let lived = self.watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect();
        let report = Report { seen, lived, shared: self.shared };
        eprintln!("{}; {asked} revoked tokens asked for at the end", report.summary());
        report
    }
}

impl Report {
    /// All that must hold whatever is broken, but for gateways that were killed. `bound`: how long after its acknowledgement a revocation may be
    /// unknown somewhere.
    pub(super) fn holds(&self, bound: Duration, killed: &[usize]) {
        let summary = self.summary();
        let Shared { held, .. } = &*self.shared;
        let is_excused = killed.contains(&0) || self.stood_still(killed);
        assert!(is_excused || self.unanswered() == 0, "revocations were not taken ({summary})");
        for seen in &self.seen {
            let Seen { gateway, held: index, sent, answered, status, reason } = seen;
            let told = format!("gateway {gateway} answered {status} {reason} in {:?}", *answered - *sent);
            let token = index.map(|index| &held[index]);
            // Before the call that revokes was sent, and where there is none.
            if token.is_none_or(|token| token.sent.get().is_none_or(|revoking| answered < revoking)) {
                let fine = match status {
                    200 => true,
                    0 => killed.contains(gateway),
                    503 => reason == "auth_unavailable",
                    _ => false,
                };
                assert!(fine, "a good token was refused: {told} ({summary})");
            }
            if let Some(token) = token
                && let Some((acknowledged, _)) = token.answered.get()
                && *status == 200
            {
                let late = sent.saturating_duration_since(*acknowledged);
                let entry = &token.entry;
                assert!(
                    late <= bound,
                    "{entry} was let through {late:?} after it was acknowledged: {told} ({summary})"
                );
            }
        }
    }

    /// No request took longer than this, of gateways that were not killed, beyond the time in which the gateway did nothing at all.
    pub(super) fn none_waited(&self, limit: Duration, killed: &[usize]) {
        let living = self.seen.iter().filter(|seen| !killed.contains(&seen.gateway));
        for seen in living.filter(|seen| seen.answered - seen.sent >= limit) {
            let (took, stood) = (seen.answered - seen.sent, self.longest_pause(seen.gateway, seen.sent, seen.answered));
            assert!(
                took < limit + stood,
                "a request took {took:?}, and its gateway stood still for {stood:?} ({})",
                self.summary()
            );
        }
    }

    /// Nobody was denied at this gateway because it was stale, of those that were not killed.
    pub(super) fn none_denied(&self, gateway: usize, killed: &[usize], why: &str) {
        let denied = self.unavailable(gateway);
        assert!(denied == 0 || self.stood_still(killed), "{why}: {denied} were denied ({})", self.summary());
    }

    /// No revocation was accepted before it was propagated.
    pub(super) fn none_merely_accepted(&self, why: &str) {
        assert!(self.accepted() == 0 || self.stood_still(&[]), "{why} ({})", self.summary());
    }

    /// The longest time, of those that touch these moments, in which a gateway did not answer what asks neither Redis nor anybody.
    fn longest_pause(&self, gateway: usize, from: Instant, to: Instant) -> Duration {
        let touching = self.lived[gateway].windows(2).filter(|pair| pair[0] < to && pair[1] > from);
        touching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Whether the machine, or a gateway that was not killed, did nothing for so long that others had to notice.
    fn stood_still(&self, killed: &[usize]) -> bool {
        let living = self.lived.iter().enumerate().filter(|(gateway, _)| !killed.contains(gateway));
        let pauses = living.flat_map(|(_, lived)| lived.windows(2).map(|pair| pair[1] - pair[0]));
        pauses.max().unwrap_or_default() >= STANDSTILL
    }

    /// How often a good token met 503 `auth_unavailable` at a gateway.
    pub(super) fn unavailable(&self, gateway: usize) -> usize {
        let met = |seen: &&Seen| seen.gateway == gateway && seen.status == 503;
        self.seen.iter().filter(met).count()
    }

    /// How many revocations were acknowledged before they were propagated.
    pub(super) fn accepted(&self) -> usize {
        self.shared.acknowledged().filter(|held| held.answered.get().is_some_and(|answer| answer.1 == 202)).count()
    }

    /// How many revocations the control plane could not take.
    pub(super) fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::SeqCst)
    }

    fn summary(&self) -> String {
        let mut statuses: BTreeMap<(usize, u16), usize> = BTreeMap::new();
        for seen in &self.seen {
            *statuses.entry((seen.gateway, seen.status)).or_default() += 1;
        }
        let mut delays: Vec<Duration> = self
            .seen
            .iter()
            .filter(|seen| seen.status == 200)
            .filter_map(|seen| {
                Some(seen.sent.saturating_duration_since(self.shared.held[seen.held?].answered.get()?.0))
            })
            .filter(|late| !late.is_zero())
            .collect();
        delays.sort();
        let longest = self.seen.iter().map(|seen| seen.answered - seen.sent).max().unwrap_or_default();
        format!(
            "{} answers by (gateway, status) {statuses:?}, slowest {longest:?}; {} revocations acknowledged, {} of them by 202; \
             {} answers let a token through after that, the last {:?} after",
            self.seen.len(),
            self.shared.acknowledged().count(),
            self.accepted(),
            delays.len(),
            delays.last().copied().unwrap_or_default(),
        )
    }
}

impl Shared {
    fn acknowledged(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| matches!(held.answered.get(), Some((_, 200 | 202))))
    }

    /// In turns: the token that stays good, those being revoked just now, any one revoked before, and the next.
    fn ask(&self, gateway: usize, address: SocketAddr) -> Vec<Seen> {
        let mut client = Client::of(address);
        let mut all = Vec::new();
        for turn in 0.. {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let begun = self.begun.load(Ordering::SeqCst);
            let held = match turn % 4 {
                0 => None,
                1 => Some(begun.saturating_sub(1 + turn / 4 % 8)),
                2 => Some(turn.wrapping_mul(7919) % begun.max(1)),
                _ => Some(begun.min(TOKENS - 1)),
            };
            let token = held.map_or(&self.good, |index| &self.held[index].token);
            let sent = Instant::now();
            let (status, reason) = client.ask(token);
            all.push(Seen { gateway, held, sent, answered: Instant::now(), status, reason });
            thread::sleep(PAUSE);
        }
        all
    }

    /// When a gateway answered on its admin listener, where neither tokens nor Redis are asked for.
    fn watch(&self, admin: SocketAddr) -> Vec<Instant> {
        let mut client = Client::of(admin);
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
        let mut lived = vec![Instant::now()];
        loop {
            let is_over = self.over.load(Ordering::SeqCst);
            if client.send(&request).0 == 200 {
                lived.push(Instant::now());
            }
            if is_over {
                return lived;
            }
            thread::sleep(LOOK);
        }
    }

    fn revoke(&self, control: SocketAddr, token: &str) {
        for held in &self.held {
            thread::sleep(USED_FOR);
            if self.quiet.load(Ordering::SeqCst) {
                return;
            }
            held.sent.set(Instant::now()).unwrap();
            self.begun.fetch_add(1, Ordering::SeqCst);
            // A connection of its own: the control plane may have been killed since.
            let mut client = Client::of(control);
            let body = held.entry.to_string();
            let (status, reason) = client.send(&format!(
                "POST /api/revocations HTTP/1.1\r\nHost: {control}\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            // Killed, or started and not sure of its truth yet: nobody was told that anything is revoked.
            if status == 0 || (status, &*reason) == (503, "auth_unavailable") {
                self.unanswered.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            assert!(matches!(status, 200 | 202), "{body} was answered {status} {reason}");
            held.answered.set((Instant::now(), status)).unwrap();
        }
    }
}

/// A connection that is kept, and made anew where it broke.
struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    fn of(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    fn ask(&mut self, token: &str) -> (u16, String) {
        self.send(&format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\n\r\n"))
    }

    /// Status and reason; 0 where nothing answered.
    fn send(&mut self, request: &str) -> (u16, String) {
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5));
            self.connection = stream.ok().map(Connection::over);
        }
        let answered = self.connection.as_mut().map(|connection| connection.send(request).try_response("GET"));
        match answered {
            Some(Ok(response)) => {
                let reason = if response.status < 400 { String::new() } else { response.text() };
                let problem: Value = serde_json::from_str(&reason).unwrap_or_default();
                if response.field("connection") == Some("close") {
                    self.connection = None;
                }
                (response.status, problem["reason"].as_str().map_or(reason, str::to_owned))
            }
            _ => {
                self.connection = None;
                thread::sleep(Duration::from_millis(20));
                (0, String::new())
            }
        }
    }
}
