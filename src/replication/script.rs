//! What is written in one atomic step: a script runs alone, so what it has checked is still so when it writes (T2).

use std::sync::LazyLock;

use redis::Script;
use uuid::Uuid;

use super::link::Mark;

/// What a script found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// As it should be; it is written.
    Done,
    /// There is no state, or a part of it is missing.
    Lost,
    /// The state is of another epoch.
    OtherEpoch,
    /// The state is of another truth.
    OtherTruth,
    /// The stream does not hold what was appended to it.
    Tampered,
    /// A change does not follow the last one.
    Gap,
    /// More is published than the caller knows.
    Ahead,
    /// Less is published than the caller had published.
    Behind,
    /// The manifest is not the caller's.
    OtherManifest,
    /// A segment is missing, or has another size.
    Segment,
}

impl Said {
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "done" => Self::Done,
            "lost" => Self::Lost,
            "epoch" => Self::OtherEpoch,
            "truth" => Self::OtherTruth,
            "tampered" => Self::Tampered,
            "gap" => Self::Gap,
            "ahead" => Self::Ahead,
            "behind" => Self::Behind,
            "manifest" => Self::OtherManifest,
            "segment" => Self::Segment,
            _ => return None,
        })
    }
}

/// A manifest that is put in force.
#[derive(Debug, Clone, Copy)]
pub struct Installation<'a> {
    /// What the head must be for it, as the caller has read it. Who was quicker wins.
    pub instead_of: &'a Mark,
    /// The epoch.
    pub epoch: u64,
    /// The truth.
    pub truth: Uuid,
    /// The manifest's base.
    pub base: u64,
    /// The records of all its segments.
    pub records: u64,
    /// The signed line.
    pub manifest: &'a str,
    /// Name and size of each segment, all of them uploaded.
    pub segments: &'a [(Box<str>, u64)],
    /// Whether the stream begins anew after `base`. Otherwise it is kept, and must hold what follows `base`.
    pub anew: bool,
}

/// A sign of life, written only if all is as the caller believes it to be (T1).
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// The epoch.
    pub epoch: u64,
    /// The truth.
    pub truth: Uuid,
    /// The last change.
    pub n: u64,
    /// The signed manifest, which must stand there byte for byte.
    pub manifest: &'a str,
    /// Name and size of each of its segments.
    pub segments: &'a [(Box<str>, u64)],
    /// The signed heartbeat.
    pub heartbeat: &'a str,
}

/// KEYS head, changes; ARGV epoch, truth, the oldest number to keep, then prev, n and line of each change.
///
/// What is held already is passed over, which only the stream itself proves: not even the head's own numbers are believed.
/// The stream is cut by age. Numbers are below 2^53, so that Lua compares them exactly. Only what Redis says of the stream's last id is the
/// stream's fault: memory that is full, or a disk, is told as it is, and nothing is written anew for it.
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local head = redis.call('HMGET', KEYS[1], 'epoch', 'truth', 'n', 'length')
local length = tonumber(head[4] or '')
if not (head[1] and head[2] and tonumber(head[3] or '') and length) then return 'lost' end
if head[2] ~= ARGV[2] then return 'truth' end
if head[1] ~= ARGV[1] then return 'epoch' end
if redis.call('XLEN', KEYS[2]) ~= length then return 'tampered' end
local last, said = head[3], 'done'
for i = 4, #ARGV, 3 do
  local prev, n, line = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if prev == last then
    local added = redis.pcall('XADD', KEYS[2], n .. '-0', 'change', line)
    if type(added) == 'table' and added.err then
      local why = added.err
      local is_last = string.find(why, 'specified in XADD', 1, true) or string.find(why, 'last possible ID', 1, true)
      said = is_last and 'tampered' or added
      break
    end
    last = n
  else
    local held = redis.call('XRANGE', KEYS[2], n .. '-0', n .. '-0')[1]
    if not (held and #held[2] == 2 and held[2][1] == 'change' and held[2][2] == line) then said = 'gap' break end
  end
end
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3] .. '-0')
redis.call('HSET', KEYS[1], 'n', last, 'length', redis.call('XLEN', KEYS[2]))
return said
",
    )
});

/// KEYS head, changes, manifest, heartbeats, segments…; ARGV the head's epoch and truth that are expected (empty: none), the new epoch
/// and truth, base, records, the manifest, `anew` or `kept`, then the size of each segment.
///
/// Heartbeats of what stood there go with it: they would be taken for a sign that more was published than is. What needs memory comes
/// first, for Redis looks whether it has any at a script's first write: where it is full, what stands there stays.
pub(super) static INSTALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local head = redis.call('HMGET', KEYS[1], 'epoch', 'truth', 'n')
if (head[1] or '') ~= ARGV[1] then return 'epoch' end
if (head[2] or '') ~= ARGV[2] then return 'truth' end
for i = 5, #KEYS do
  if redis.call('STRLEN', KEYS[i]) ~= tonumber(ARGV[4 + i]) then return 'segment' end
end
if ARGV[8] ~= 'anew' and (tonumber(head[3] or '') or -1) < tonumber(ARGV[5]) then return 'behind' end
redis.call('SET', KEYS[3], ARGV[7])
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'truth', ARGV[4], 'base', ARGV[5], 'records', ARGV[6])
if ARGV[8] == 'anew' then
  redis.call('HSET', KEYS[1], 'n', ARGV[5], 'length', '0')
  redis.call('DEL', KEYS[2], KEYS[4])
end
for i = 5, #KEYS do redis.call('PERSIST', KEYS[i]) end
return 'done'
",
    )
});

/// KEYS head, changes, manifest, heartbeats, segments…; ARGV epoch, truth, n, the manifest, the heartbeat, how many heartbeats are
/// kept, then the size of each segment.
///
/// Somebody may have taken the last id that a stream can have, or made something else of it: then heartbeats begin anew.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local head = redis.call('HMGET', KEYS[1], 'epoch', 'truth', 'n', 'length')
local n, length = tonumber(head[3] or ''), tonumber(head[4] or '')
if not (head[1] and head[2] and n and length) then return 'lost' end
if head[2] ~= ARGV[2] then return 'truth' end
if head[1] ~= ARGV[1] then return 'epoch' end
if n > tonumber(ARGV[3]) then return 'ahead' end
if head[3] ~= ARGV[3] then return 'behind' end
if redis.call('GET', KEYS[3]) ~= ARGV[4] then return 'manifest' end
if redis.call('XLEN', KEYS[2]) ~= length then return 'tampered' end
for i = 5, #KEYS do
  if redis.call('STRLEN', KEYS[i]) ~= tonumber(ARGV[2 + i]) then return 'segment' end
end
local beat = {'XADD', KEYS[4], 'MAXLEN', '=', ARGV[6], '*', 'heartbeat', ARGV[5]}
local added = redis.pcall(unpack(beat))
if type(added) == 'table' and added.err then
  local why = added.err
  local is_last = string.find(why, 'specified in XADD', 1, true) or string.find(why, 'last possible ID', 1, true)
  if not (is_last or string.find(why, 'WRONGTYPE', 1, true)) then return added end
  redis.call('DEL', KEYS[4])
  redis.call(unpack(beat))
end
return 'done'
",
    )
});
