//! Key sets behind a URL: fetched at the start, ahead of need, and when a token names a key that nobody knows.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{First, Followed, reached};
use crate::clock::Timestamp;
use crate::https::{AskError, read_limited};
use crate::token::jwk::Trust;
use crate::token::{Algorithm, KeySet, KeySetError, UnknownKid};

/// The longest pause between two tries while none succeeds.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The first pause where there are no keys at all.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether the keys are good by the clock on the wall, which may jump, or go on while this machine sleeps.
const LOOK: Duration = Duration::from_secs(1);

/// A key set behind a URL.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What asks: no redirects, bounded times ([`crate::https::client`]).
    pub client: reqwest::Client,
    /// Whom.
    pub url: String,
    /// How long after an answer the next is asked for; a shorter `Cache-Control: max-age` is heeded down to `cool_down`.
    pub refresh: Duration,
    /// How long after an answer the keys are used, if no other comes (T18).
    pub max_age: Duration,
    /// How long after a fetch that an unknown `kid` caused the next may be caused by one.
    pub cool_down: Duration,
    /// Largest set that is read, in bytes.
    pub max_bytes: usize,
}

/// Why there is no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error(transparent)]
    Asked(#[from] AskError),
    /// Another answer than 200.
    #[error("the answer is {0}, and redirects are not followed")]
    Redirect(StatusCode),
    /// Another answer than 200.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// No usable set.
    #[error(transparent)]
    Set(#[from] KeySetError),
}

/// Asks once. Says too for how long the answer may be kept, if it says so itself.
///
/// # Errors
/// [`FetchError`]
pub async fn fetch(fetched: &Fetched, algorithms: &[Algorithm]) -> Result<(KeySet, Option<Duration>), FetchError> {
    let asked = fetched.client.get(&fetched.url).header(ACCEPT, "application/jwk-set+json, application/json").send();
    let response = asked.await.map_err(AskError::from)?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => return Err(FetchError::Redirect(status)),
        status => return Err(FetchError::Status(status)),
    }
    let kept = max_age(response.headers());
    let body = read_limited(response, fetched.max_bytes).await?;
    Ok((KeySet::parse(&body, algorithms, Trust::Url)?, kept))
}

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut directives =
        lines.flat_map(|line| line.split(',')).filter_map(|directive| directive.trim().split_once('='));
    let (_, seconds) = directives.find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))?;
    seconds.trim().trim_matches('"').parse().ok().map(Duration::from_secs)
}

impl Fetched {
    /// Fetches until the task is dropped. `first` is dropped after the first answer.
    pub(super) async fn follow(self, followed: Followed, mut first: Option<First>) {
        let unknown = Arc::new(Notify::new());
        let (count, told) = (Arc::clone(&followed.count), Arc::clone(&unknown));
        followed.keys.on_unknown(move |kid| {
            count.unknown_kid();
            if kid == UnknownKid::New {
                told.notify_one();
            }
        });
        let mut failures = 0_u32;
        // When the set in force is too old, by a clock that nobody sets back.
        let mut too_old: Option<Instant> = None;
        let mut cause = Cause::Time;
        // When the last fetch began that an unknown kid caused.
        let mut caused: Option<Instant> = None;
        let mut in_vain = InVain::default();
        // Whether a jump was told that has made the set in force too old.
        let mut jumped = false;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (begun, now) = (Instant::now(), Timestamp::now());
            if cause == Cause::UnknownKid {
                caused = Some(begun);
            }
            let (pause, changed) = match fetch(&self, &followed.algorithms).await {
                Ok((set, kept)) => {
                    (failures, jumped) = (0, false);
                    too_old = Some(begun + self.max_age);
                    // Rounded down: a second less rather than one more.
                    let seconds = i64::try_from(self.max_age.as_secs()).unwrap_or(i64::MAX);
                    let exchanged = followed.put_in_force(set, Some(now.plus(seconds)));
                    (self.until_refresh(kept), exchanged.is_change())
                }
                Err(error) => {
                    followed.refused(&error);
                    failures = failures.saturating_add(1);
                    let young = too_old.is_some_and(|end| Instant::now() < end);
                    (self.until_retry(failures, young && followed.keys.is_good(Timestamp::now())), false)
                }
            };
            first.take();
            let mut next = Instant::now() + pause;
            let mut forget = Some(begun + in_vain.after(cause, changed, &self));
            let soonest = begun + self.cool_down;
            cause = Cause::Time;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = unknown.notified() => {
                        let soonest = self.soonest_for_unknown(caused, failures, Instant::now());
                        if let Some(soonest) = soonest.filter(|soonest| *soonest < next) {
                            (next, cause) = (soonest, Cause::UnknownKid);
                        }
                    },
                    () = reached(forget) => {
                        forget = None;
                        followed.keys.forget_unknown();
                    }
                    () = reached(too_old) => {
                        too_old = None;
                        followed.too_old(self.max_age);
                    }
                    _ = looks.tick() => if followed.keys.is_good(Timestamp::now()) {
                        jumped = false;
                    } else if !jumped && too_old.is_some() {
                        jumped = true;
                        next = next.min(soonest);
                        (followed.changed)();
                        tracing::warn!(
                            issuer = &*followed.issuer,
                            "the clock was set forward, or this machine slept: the issuer's keys are too old by it, and are fetched anew"
                        );
                    }
                }
            }
        }
    }

    /// When a fetch may be caused by an unknown `kid`. The first one is looked for at once, whatever other fetch was made before it: a
    /// new key may have signed a moment after that. While fetches fail, the next try is made no sooner for it.
    fn soonest_for_unknown(&self, caused: Option<Instant>, failures: u32, now: Instant) -> Option<Instant> {
        (failures == 0).then(|| caused.map_or(now, |last| now.max(last + self.cool_down)))
    }

    /// A little earlier than configured, so that many processes do not ask at the same moment.
    fn until_refresh(&self, kept: Option<Duration>) -> Duration {
        let least = self.cool_down.min(self.refresh);
        kept.unwrap_or(self.refresh).clamp(least, self.refresh).mul_f64(jitter(0.8, 1.0))
    }

    /// Twice as long after each failure; with keys there is no hurry, without any it begins with a second.
    fn until_retry(&self, failures: u32, has_keys: bool) -> Duration {
        let first = if has_keys { self.cool_down } else { FIRST_PAUSE };
        let most = if has_keys { LONGEST_PAUSE } else { self.cool_down }.min(self.refresh);
        let pause = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
        pause.min(most).mul_f64(jitter(0.75, 1.0))
    }
}

/// Why a fetch is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It was time for it.
    Time,
    /// A token named a key that the set does not have.
    UnknownKid,
}

/// How often in a row it was looked for an unknown `kid` in vain.
#[derive(Debug, Default)]
struct InVain(u32);

impl InVain {
    /// How long after the beginning of this fetch the kids that were asked about are forgotten, so that the next token that names one
    /// has it looked for again: its key may have been published meanwhile. What stays unknown is looked for ever more rarely.
    fn after(&mut self, cause: Cause, changed: bool, fetched: &Fetched) -> Duration {
        self.0 = if cause == Cause::UnknownKid && !changed { self.0.saturating_add(1) } else { 0 };
        let doubled = fetched.cool_down.saturating_mul(2_u32.saturating_pow(self.0.saturating_sub(1).min(16)));
        doubled.min(fetched.refresh).max(fetched.cool_down)
    }
}

/// Somewhere between the two; the middle, where the system gives no randomness.
fn jitter(least: f64, most: f64) -> f64 {
    let mut bytes = [0; 2];
    let fraction = match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    };
    least + (most - least) * fraction
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::eventually;
    use super::*;
    use crate::https::{ClientSettings, TlsTrust, client, plain_client};
    use crate::token::{ClaimPaths, Confers, Issuer, IssuerKeys, RolesFrom};

    fn fetched() -> Fetched {
        let ca = rcgen::generate_simple_self_signed(["kc.test".to_owned()]).unwrap().cert.pem().into_bytes();
        let (connect, total) = (Duration::from_secs(1), Duration::from_secs(1));
        let tls = TlsTrust { ca: Some(ca), identity: None };
        Fetched {
            client: client(&ClientSettings { tls, connect, total, idle_connections: 0 }).unwrap(),
            url: "https://kc.test/".into(),
            refresh: Duration::from_secs(300),
            max_age: Duration::from_secs(3600),
            cool_down: Duration::from_secs(30),
            max_bytes: 1 << 18,
        }
    }

    /// Of a client that a machine that stands still does not make give up.
    fn patient() -> ClientSettings {
        let long = Duration::from_secs(20);
        ClientSettings { tls: TlsTrust::default(), connect: long, total: long, idle_connections: 0 }
    }

    /// A server of this set, for so many answers, and how often it was asked.
    async fn serving(set: String, answers: usize) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                if count.fetch_add(1, Ordering::SeqCst) >= answers {
                    continue;
                }
                let length = set.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{set}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, asked)
    }

    fn issuer(keys: &Arc<IssuerKeys>) -> Issuer {
        Issuer {
            name: "kc".into(),
            issuer: None,
            audience: Vec::new(),
            algorithms: vec![Algorithm::EdDSA],
            keys: Arc::clone(keys),
            claims: ClaimPaths::default(),
            max_lifetime: Duration::from_secs(3600),
            leeway: Duration::ZERO,
            own: false,
            subject_prefix: "kc:".into(),
            roles_from: RolesFrom::Token,
            confers: Confers::Any,
            admin: false,
        }
    }

    #[tokio::test]
    async fn t18_keys_that_a_jump_of_the_clock_has_made_too_old_are_fetched_at_once() {
        let made = KeySet::generate(Algorithm::EdDSA).unwrap();
        let made = KeySet::parse(made.expose(), &[Algorithm::EdDSA], Trust::File).unwrap();
        let (url, asked) = serving(made.public_jwks().to_string(), usize::MAX).await;
        let second = Duration::from_secs(1);
        let settings = patient();
        let fetched = Fetched { client: plain_client(&settings).unwrap(), url, cool_down: 2 * second, ..fetched() };
        let keys = IssuerKeys::awaited();
        let followed = Followed::new(&issuer(&keys), Arc::default(), Arc::new(|| ()));
        let begun = Instant::now();
        let following = tokio::spawn(fetched.follow(followed, None));
        eventually("the first fetch", || keys.is_good(Timestamp::now())).await;
        // What a jump of an hour leaves behind, or a machine that slept: the time on the wall is past the set's, and no timer has run
        // out. The clock itself belongs to everybody on this machine.
        keys.expire();
        eventually("the second", || asked.load(Ordering::SeqCst) == 2 && keys.is_good(Timestamp::now())).await;
        assert!(begun.elapsed() >= second, "within the cool-down");
        following.abort();
    }

    #[tokio::test]
    async fn t18_a_jump_of_the_clock_is_told_once_however_often_the_keys_cannot_be_fetched() {
        let made = KeySet::generate(Algorithm::EdDSA).unwrap();
        let made = KeySet::parse(made.expose(), &[Algorithm::EdDSA], Trust::File).unwrap();
        let (url, asked) = serving(made.public_jwks().to_string(), 1).await;
        let settings = patient();
        let cool_down = Duration::from_millis(1_200);
        let fetched = Fetched { client: plain_client(&settings).unwrap(), url, cool_down, ..fetched() };
        let (keys, told) = (IssuerKeys::awaited(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&told);
        let changed = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        let followed = Followed::new(&issuer(&keys), Arc::default(), Arc::new(changed));
        let following = tokio::spawn(fetched.follow(followed, None));
        eventually("the first fetch", || told.load(Ordering::SeqCst) == 1).await;
        let before = told.load(Ordering::SeqCst);
        keys.expire();
        eventually("failures", || asked.load(Ordering::SeqCst) >= 5).await;
        assert_eq!(told.load(Ordering::SeqCst), before + 1);
        following.abort();
    }

    #[test]
    fn pauses_are_within_bounds_and_grow() {
        let fetched = fetched();
        let within = |pause: Duration, most: u64| {
            assert!(
                pause.as_secs_f64() <= most as f64 && pause.as_secs_f64() >= most as f64 * 0.75,
                "{pause:?} {most}"
            );
        };
        within(fetched.until_refresh(None), 300);
        within(fetched.until_refresh(Some(Duration::from_secs(60))), 60);
        within(fetched.until_refresh(Some(Duration::ZERO)), 30);
        within(fetched.until_refresh(Some(Duration::from_secs(86_400))), 300);
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (6, 30), (4_000_000_000, 30)] {
            within(fetched.until_retry(failures, false), most);
        }
        for (failures, most) in [(1, 30), (2, 60), (9, 60)] {
            within(fetched.until_retry(failures, true), most);
        }
    }

    #[tokio::test]
    async fn an_unknown_kid_causes_one_fetch_a_cool_down_the_first_at_once_and_none_while_fetches_fail() {
        let (fetched, now) = (fetched(), Instant::now());
        let before = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let soonest = |caused, failures| {
            fetched.soonest_for_unknown(caused, failures, now).map(|at| at.duration_since(now).as_secs())
        };
        assert_eq!(soonest(None, 0), Some(0), "a fetch at the start, or ahead of need, does not count");
        assert_eq!(
            (soonest(before(10), 0), soonest(before(30), 0), soonest(before(90), 0)),
            (Some(20), Some(0), Some(0))
        );
        assert_eq!((soonest(None, 1), soonest(before(90), 7)), (None, None), "the back-off stands");
    }

    #[test]
    fn what_is_looked_for_in_vain_is_looked_for_ever_more_rarely() {
        let (fetched, mut in_vain) = (fetched(), InVain::default());
        let mut after = |cause, changed| in_vain.after(cause, changed, &fetched).as_secs();
        assert_eq!(after(Cause::Time, true), 30, "the start");
        for seconds in [30, 60, 120, 240, 300, 300] {
            assert_eq!(after(Cause::UnknownKid, false), seconds);
        }
        assert_eq!(after(Cause::Time, false), 30);
        assert_eq!((after(Cause::UnknownKid, false), after(Cause::UnknownKid, false)), (30, 60));
        assert_eq!((after(Cause::UnknownKid, true), after(Cause::UnknownKid, false)), (30, 30), "it was found");
        let rare = Fetched { cool_down: Duration::from_secs(400), ..fetched };
        assert_eq!(
            InVain::default().after(Cause::UnknownKid, false, &rare).as_secs(),
            400,
            "never within the cool-down"
        );
    }

    #[test]
    fn max_age_is_read_wherever_it_stands() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CACHE_CONTROL, line.parse().unwrap());
            }
            max_age(&headers).map(|kept| kept.as_secs())
        };
        assert_eq!(of(&["public, MAX-AGE=15, must-revalidate"]), Some(15));
        assert_eq!(of(&["no-transform", "max-age=\"7\""]), Some(7));
        for without in [&[][..], &["no-store"], &["s-maxage=9"], &["max-age=-1"], &["max-age=x"]] {
            assert_eq!(of(without), None, "{without:?}");
        }
    }
}
