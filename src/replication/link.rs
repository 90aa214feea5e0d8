//! A connection, and everything that is ever said on it.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisResult};
use uuid::Uuid;

use super::error::RedisFailure;
use super::script::{APPEND, BEAT, Beat, INSTALL, Installation, Said};

/// How many heartbeats are kept.
pub const HEARTBEATS: usize = 16;
/// The most entries of each stream that one call gives.
pub const AT_ONCE: usize = 1024;
/// A segment is larger than other answers.
const SEGMENT_LIMIT: Duration = Duration::from_secs(20);
/// How long an uploaded segment stays that no manifest names: a reader may still be on its way to it, or its publisher died.
const UNNAMED: Duration = Duration::from_mins(10);

/// Lua counts exactly up to here.
const EXACT: u64 = 1 << 53;

pub(super) const LOOKING: &str = "looking for a token";

/// The names of the keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) head: String,
    manifest: String,
    changes: String,
    heartbeats: String,
    segment: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            head: key("head"),
            manifest: key("manifest"),
            changes: key("changes"),
            heartbeats: key("heartbeats"),
            segment: key("segment:"),
        }
    }

    fn segment(&self, sha256: &str) -> String {
        format!("{}{sha256}", self.segment)
    }
}

/// What publishers tell one another. Nobody has signed it: whoever writes to Redis writes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The epoch.
    pub epoch: u64,
    /// Whose truth.
    pub truth: Uuid,
    /// The last change that is published.
    pub n: u64,
}

/// What stands where the head should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Absent,
    /// Something that no publisher has written.
    Broken(Mark),
    /// A head.
    Head(Head),
}

/// Epoch and truth of a head, byte for byte, and empty where they are missing: by them a script sees that the head is still what its
/// caller has read, whatever that is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    pub(super) epoch: Vec<u8>,
    pub(super) truth: Vec<u8>,
}

impl Standing {
    /// Of the fields `epoch`, `truth` and `n`. What a publisher would have written in another way is none of ours: a script would not
    /// find it equal to what was read, and writing it anew would fail for ever.
    fn of(fields: [Option<Vec<u8>>; 3]) -> Self {
        if fields.iter().all(Option::is_none) {
            return Self::Absent;
        }
        let text = |index: usize| std::str::from_utf8(fields[index].as_deref()?).ok();
        let number = |index: usize| {
            let number = text(index)?.parse::<u64>().ok()?;
            (number < EXACT && number.to_string() == text(index)?).then_some(number)
        };
        let truth = || {
            let truth = Uuid::parse_str(text(1)?).ok()?;
            (truth.to_string() == text(1)?).then_some(truth)
        };
        let head = (|| Some(Head { epoch: number(0)?, truth: truth()?, n: number(2)? }))();
        let [epoch, truth, _] = fields;
        let broken = || Self::Broken(Mark { epoch: epoch.unwrap_or_default(), truth: truth.unwrap_or_default() });
        head.map_or_else(broken, Self::Head)
    }

    /// What a script knows it by.
    #[must_use]
    pub fn mark(&self) -> Mark {
        match self {
            Self::Absent => Mark::default(),
            Self::Broken(mark) => mark.clone(),
            Self::Head(head) => Mark::of(head.epoch, head.truth),
        }
    }
}

impl Mark {
    /// Of a head with this epoch and truth.
    #[must_use]
    pub fn of(epoch: u64, truth: Uuid) -> Self {
        Self { epoch: epoch.to_string().into(), truth: truth.to_string().into() }
    }
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Both halves of its id.
    pub id: (u64, u64),
    /// The line; `None` if the entry has another form than ours.
    pub line: Option<Box<str>>,
}

/// What came on the streams.
#[derive(Debug, Default)]
pub struct News {
    /// In the order of their ids.
    pub changes: Vec<StreamEntry>,
    /// In the order of their ids.
    pub heartbeats: Vec<StreamEntry>,
}

/// What is known of what Redis does when its memory is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// It refuses to write.
    Never,
    /// The access list does not let us look.
    Unknown,
}

/// A connection to the server that has the keys.
#[derive(Debug, Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    keys: Arc<Keys>,
    place: String,
    response: Duration,
}

/// An entry as it comes: its id, then names and values in turn.
type RawEntry = (String, Option<Vec<Vec<u8>>>);

impl Link {
    pub(super) fn new(connection: MultiplexedConnection, keys: Arc<Keys>, place: String, response: Duration) -> Self {
        Self { connection, keys, place, response }
    }

    /// Which server this is.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// T10: refuses a Redis that throws keys away.
    ///
    /// # Errors
    /// [`RedisFailure::Evicts`], and what can happen to a connection.
    pub async fn check_eviction(&self) -> Result<Eviction, RedisFailure> {
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("maxmemory-policy");
        let policy = match self.ask::<Vec<String>>("asking for its maxmemory-policy", &config).await {
            Ok(answer) => answer.into_iter().nth(1),
            // A managed Redis has no CONFIG at all, and an access list may forbid it.
            Err(RedisFailure::Refused { error, .. }) if error.code().is_some() => {
                match self.ask::<String>("asking for its memory", redis::cmd("INFO").arg("memory")).await {
                    Ok(text) => text
                        .lines()
                        .find_map(|line| line.strip_prefix("maxmemory_policy:"))
                        .map(|word| word.trim().to_owned()),
                    Err(RedisFailure::Refused { error, .. }) if error.code().is_some() => None,
                    Err(failure) => return Err(failure),
                }
            }
            Err(failure) => return Err(failure),
        };
        match policy.as_deref() {
            None => Ok(Eviction::Unknown),
            Some("noeviction") => Ok(Eviction::Never),
            Some(other) => Err(RedisFailure::Evicts(other.to_owned())),
        }
    }

    /// The head.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn head(&self) -> Result<Standing, RedisFailure> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.keys.head).arg(&["epoch", "truth", "n"]);
        let fields: Vec<Option<Vec<u8>>> = self.ask("reading the head", &command).await?;
        let fields = fields.try_into().map_err(|_| RedisFailure::Answer { what: "reading the head" })?;
        Ok(Standing::of(fields))
    }

    /// The signed manifest, if there is one.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn manifest(&self) -> Result<Option<String>, RedisFailure> {
        let line: Option<Vec<u8>> =
            self.ask("reading the manifest", redis::cmd("GET").arg(&self.keys.manifest)).await?;
        Ok(line.map(|line| String::from_utf8_lossy(&line).into_owned()))
    }

    /// The bytes under a segment's name, if there are any; nothing says that they are the right ones.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn segment(&self, sha256: &str) -> Result<Option<Vec<u8>>, RedisFailure> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.segment(sha256));
        self.ask_within(SEGMENT_LIMIT, "reading a segment", &command).await
    }

    /// Changes that stand behind this id, at most [`AT_ONCE`].
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn changes_after(&self, after: (u64, u64)) -> Result<Vec<StreamEntry>, RedisFailure> {
        let mut command = redis::cmd("XRANGE");
        let from = format!("({}-{}", after.0, after.1);
        command.arg(&self.keys.changes).arg(from).arg("+").arg("COUNT").arg(AT_ONCE);
        let entries = self.ask::<Vec<RawEntry>>("reading changes", &command).await?;
        Ok(entries.into_iter().filter_map(|entry| StreamEntry::of(entry, b"change")).collect())
    }

    /// The last change and the last heartbeats, newest first.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn latest(&self) -> Result<News, RedisFailure> {
        let last = async |key: &str, count: usize, field: &[u8]| {
            let mut command = redis::cmd("XREVRANGE");
            command.arg(key).arg("+").arg("-").arg("COUNT").arg(count);
            let entries = self.ask::<Vec<RawEntry>>("reading the ends of the streams", &command).await?;
            Ok(entries.into_iter().filter_map(|entry| StreamEntry::of(entry, field)).collect())
        };
        Ok(News {
            changes: last(&self.keys.changes, 1, b"change").await?,
            heartbeats: last(&self.keys.heartbeats, HEARTBEATS, b"heartbeat").await?,
        })
    }

    /// Waits for what comes after these ids, `wait` at most.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn news(
        &self,
        changes: (u64, u64),
        heartbeats: (u64, u64),
        wait: Duration,
    ) -> Result<News, RedisFailure> {
        let id = |(first, second): (u64, u64)| format!("{first}-{second}");
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(1000));
        command.arg("STREAMS").arg(&self.keys.changes).arg(&self.keys.heartbeats);
        command.arg(id(changes)).arg(id(heartbeats));
        let streams: Option<Vec<(String, Vec<RawEntry>)>> =
            self.ask_within(wait + self.response, "waiting for changes", &command).await?;
        let mut news = News::default();
        for (key, entries) in streams.unwrap_or_default() {
            let (into, field): (_, &[u8]) = if key == self.keys.changes {
                (&mut news.changes, b"change")
            } else {
                (&mut news.heartbeats, b"heartbeat")
            };
            into.extend(entries.into_iter().filter_map(|entry| StreamEntry::of(entry, field)));
        }
        Ok(news)
    }

    /// Appends changes in order: `prev`, `n` and line of each. Those with numbers below `keep_from` may go, if they are not behind `base`,
    /// which is the manifest's: the head's is nobody's word.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn append<'l>(
        &self,
        epoch: u64,
        truth: Uuid,
        base: u64,
        keep_from: u64,
        changes: impl IntoIterator<Item = (u64, u64, &'l str)>,
    ) -> Result<Said, RedisFailure> {
        let mut call = APPEND.prepare_invoke();
        call.key(&self.keys.head).key(&self.keys.changes).arg(epoch).arg(truth.to_string());
        call.arg(keep_from.min(base.saturating_add(1)));
        for (prev, n, line) in changes {
            call.arg(prev).arg(n).arg(line);
        }
        self.script("appending changes", &call).await
    }

    /// Uploads a segment. It goes by itself unless a manifest is installed that names it.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn upload(&self, sha256: &str, bytes: &[u8]) -> Result<(), RedisFailure> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.segment(sha256)).arg(bytes).arg("EX").arg(UNNAMED.as_secs());
        self.ask_within(SEGMENT_LIMIT, "writing a segment", &command).await
    }

    /// The size of a segment as it stands there; 0 if it does not.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn size(&self, sha256: &str) -> Result<u64, RedisFailure> {
        self.ask("looking at a segment", redis::cmd("STRLEN").arg(self.keys.segment(sha256))).await
    }

    /// Lets a segment go by itself, once no reader can be on its way to it.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn let_go(&self, sha256: &str) -> Result<(), RedisFailure> {
        let mut command = redis::cmd("EXPIRE");
        command.arg(self.keys.segment(sha256)).arg(UNNAMED.as_secs());
        self.ask::<i64>("letting a segment go", &command).await.map(|_| ())
    }

    /// Puts a manifest in force.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn install(&self, installation: &Installation<'_>) -> Result<Said, RedisFailure> {
        let Installation { instead_of, epoch, truth, base, records, manifest, segments, anew } = *installation;
        let mut call = INSTALL.prepare_invoke();
        call.key(&self.keys.head).key(&self.keys.changes).key(&self.keys.manifest).key(&self.keys.heartbeats);
        call.arg(&*instead_of.epoch)
            .arg(&*instead_of.truth)
            .arg(epoch)
            .arg(truth.to_string())
            .arg(base)
            .arg(records)
            .arg(manifest);
        call.arg(if anew { "anew" } else { "kept" });
        for (sha256, bytes) in segments {
            call.key(self.keys.segment(sha256)).arg(*bytes);
        }
        self.script("installing a manifest", &call).await
    }

    /// Writes a heartbeat, if everything is as the caller believes.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn beat(&self, beat: &Beat<'_>) -> Result<Said, RedisFailure> {
        let Beat { epoch, truth, n, manifest, segments, heartbeat } = *beat;
        let mut call = BEAT.prepare_invoke();
        call.key(&self.keys.head).key(&self.keys.changes).key(&self.keys.manifest).key(&self.keys.heartbeats);
        call.arg(epoch).arg(truth.to_string()).arg(n).arg(manifest).arg(heartbeat).arg(HEARTBEATS);
        for (sha256, bytes) in segments {
            call.key(self.keys.segment(sha256)).arg(*bytes);
        }
        self.script("writing a heartbeat", &call).await
    }

    /// Removes everything but segments: for keys that somebody else made something of.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub async fn clear(&self) -> Result<(), RedisFailure> {
        let keys = &*self.keys;
        let mut command = redis::cmd("DEL");
        command.arg(&[&keys.head, &keys.manifest, &keys.changes, &keys.heartbeats]);
        self.ask::<i64>("clearing what is not ours", &command).await.map(|_| ())
    }

    async fn script(&self, what: &'static str, call: &redis::ScriptInvocation<'_>) -> Result<Said, RedisFailure> {
        let mut connection = self.connection.clone();
        let asked = call.invoke_async::<String>(&mut connection);
        let word = self.within(self.response, what, asked).await.map_err(|failure| match failure {
            RedisFailure::Refused { what, error } => RedisFailure::Script { what, error },
            other => other,
        })?;
        Said::parse(&word).ok_or(RedisFailure::Answer { what })
    }

    /// Whether there is a value under a key of another program.
    ///
    /// # Errors
    /// [`RedisFailure`]
    pub(super) async fn get(&self, key: &str, limit: Duration) -> Result<bool, RedisFailure> {
        let value: Option<Vec<u8>> = self.ask_within(limit, LOOKING, redis::cmd("GET").arg(key)).await?;
        Ok(value.is_some())
    }

    async fn ask<T: FromRedisValue>(&self, what: &'static str, command: &Cmd) -> Result<T, RedisFailure> {
        self.ask_within(self.response, what, command).await
    }

    async fn ask_within<T: FromRedisValue>(
        &self,
        limit: Duration,
        what: &'static str,
        command: &Cmd,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.connection.clone();
        connection.set_response_timeout(limit);
        self.within(limit, what, command.query_async(&mut connection)).await
    }

    /// The library has a limit too; this one holds whatever it makes of it.
    async fn within<T>(
        &self,
        limit: Duration,
        what: &'static str,
        asked: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, RedisFailure> {
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer.map_err(|error| {
                if error.is_timeout() {
                    RedisFailure::Silent { place: self.place.clone(), limit }
                } else {
                    RedisFailure::refused(what)(error)
                }
            }),
            Err(_) => Err(RedisFailure::Silent { place: self.place.clone(), limit }),
        }
    }
}

impl StreamEntry {
    /// `None` without an id: Redis has none such.
    fn of((id, fields): RawEntry, field: &[u8]) -> Option<Self> {
        let (first, second) = id.split_once('-')?;
        let id = (first.parse().ok()?, second.parse().ok()?);
        let line = match fields.unwrap_or_default().as_slice() {
            [name, line] if name == field => std::str::from_utf8(line).ok().map(Box::from),
            _ => None,
        };
        Some(Self { id, line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_one_only_as_a_publisher_writes_it() {
        let truth = Uuid::from_u128(7);
        let fields = |epoch: &str, truth: &str, n: &str| {
            let field = |text: &str| (text != "-").then(|| text.as_bytes().to_vec());
            Standing::of([field(epoch), field(truth), field(n)])
        };
        let text = truth.to_string();
        assert_eq!(fields("-", "-", "-"), Standing::Absent);
        assert_eq!(fields("12", &text, "0"), Standing::Head(Head { epoch: 12, truth, n: 0 }));
        assert_eq!(fields("12", &text, "0").mark(), Mark::of(12, truth));
        let upper = Uuid::from_u128(0xabc).to_string().to_uppercase();
        for (epoch, truth, n) in [
            ("012", &*text, "1"),
            ("+12", &text, "1"),
            ("12", &upper, "1"),
            ("12", "x", "1"),
            ("12", &text, "9007199254740992"),
            ("18446744073709551615", &text, "1"),
            ("12", &text, "-"),
            ("-", "-", "1"),
        ] {
            let mark = Mark { epoch: epoch.replace('-', "").into(), truth: truth.into() };
            let standing = fields(epoch, truth, n);
            assert!(matches!(standing, Standing::Broken(_)), "{epoch} {truth} {n}");
            assert!(truth == "-" || standing.mark() == mark, "a script has to find what was read");
        }
        let bytes = Standing::of([Some(b"1".to_vec()), Some(vec![255]), Some(b"1".to_vec())]);
        assert_eq!(bytes.mark().truth, [255]);
    }
}
