//! What is written in one atomic step: a script runs alone, so what it has checked is still so when it writes (T2).

use std::sync::LazyLock;

use redis::Script;
use uuid::Uuid;

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
    /// What the head must say for it, as the caller has read it; `None`: there must be no head. Who was quicker wins.
    pub instead_of: Option<(u64, Uuid)>,
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
/// What is held already is passed over; the stream is cut by age, never beyond the manifest's base. Numbers are below 2^53, so that
/// Lua compares them exactly.
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local head = redis.call('HMGET', KEYS[1], 'epoch', 'truth', 'n', 'base', 'length')
if not (head[1] and head[2] and head[3] and head[4] and head[5]) then return 'lost' end
if head[2] ~= ARGV[2] then return 'truth' end
if head[1] ~= ARGV[1] then return 'epoch' end
if redis.call('XLEN', KEYS[2]) ~= tonumber(head[5]) then return 'tampered' end
local last, base, said = head[3], tonumber(head[4]), 'done'
for i = 4, #ARGV, 3 do
  local prev, n, line = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if prev == last then
    local added = redis.pcall('XADD', KEYS[2], n .. '-0', 'change', line)
    if type(added) == 'table' and added.err then said = 'tampered' break end
    last = n
  elseif tonumber(n) > tonumber(last) then
    said = 'gap' break
  elseif tonumber(n) > base then
    local held = redis.call('XRANGE', KEYS[2], n .. '-0', n .. '-0')
    if not (held[1] and held[1][2][2] == line) then said = 'gap' break end
  end
end
local keep = math.min(tonumber(ARGV[3]), base + 1)
redis.call('XTRIM', KEYS[2], 'MINID', '=', string.format('%.0f-0', keep))
redis.call('HSET', KEYS[1], 'n', last, 'length', redis.call('XLEN', KEYS[2]))
return said
",
    )
});

/// KEYS head, changes, manifest, segments…; ARGV the head's epoch and truth that are expected (empty: none), the new epoch and truth,
/// base, records, the manifest, `anew` or `kept`, then the size of each segment.
pub(super) static INSTALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local head = redis.call('HMGET', KEYS[1], 'epoch', 'truth', 'n', 'length')
if (head[1] or '') ~= ARGV[1] then return 'epoch' end
if (head[2] or '') ~= ARGV[2] then return 'truth' end
for i = 4, #KEYS do
  if redis.call('STRLEN', KEYS[i]) ~= tonumber(ARGV[5 + i]) then return 'segment' end
end
if ARGV[8] == 'anew' then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'n', ARGV[5], 'length', '0')
elseif not head[3] or tonumber(head[3]) < tonumber(ARGV[5]) then
  return 'behind'
end
redis.call('SET', KEYS[3], ARGV[7])
for i = 4, #KEYS do redis.call('PERSIST', KEYS[i]) end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'truth', ARGV[4], 'base', ARGV[5], 'records', ARGV[6])
return 'done'
",
    )
});

/// KEYS head, changes, manifest, heartbeats, segments…; ARGV epoch, truth, n, the manifest, the heartbeat, how many heartbeats are
/// kept, then the size of each segment.
pub(super) static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local head = redis.call('HMGET', KEYS[1], 'epoch', 'truth', 'n', 'length')
if not (head[1] and head[2] and head[3] and head[4]) then return 'lost' end
if head[2] ~= ARGV[2] then return 'truth' end
if head[1] ~= ARGV[1] then return 'epoch' end
if tonumber(head[3]) > tonumber(ARGV[3]) then return 'ahead' end
if head[3] ~= ARGV[3] then return 'behind' end
if redis.call('GET', KEYS[3]) ~= ARGV[4] then return 'manifest' end
if redis.call('XLEN', KEYS[2]) ~= tonumber(head[4]) then return 'tampered' end
for i = 5, #KEYS do
  if redis.call('STRLEN', KEYS[i]) ~= tonumber(ARGV[2 + i]) then return 'segment' end
end
redis.call('XADD', KEYS[4], 'MAXLEN', '=', ARGV[6], '*', 'heartbeat', ARGV[5])
return 'done'
",
    )
});
