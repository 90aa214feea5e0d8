//! Reading what stands in Redis as a gateway that starts does: a heartbeat costs too little to look further than at sizes, and whoever
//! finds something broken may have no way to tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Stand;
use super::standing::is_whole;
use crate::ledger::Ledger;
use crate::replication::link::AT_ONCE;
use crate::replication::{Link, Redis, RedisFailure, StreamEntry};
use crate::sync::replica::state::sha256;

/// How long a check is good for. Redis does not tell whether a value was written to since, so nothing shorter than reading it does.
pub(super) const EVERY: Duration = Duration::from_mins(1);
/// Between two checks of different manifests: while very much is revoked, there is a new one every few seconds.
pub(super) const APART: Duration = Duration::from_secs(10);
/// After each segment so many times as long as it took: whatever the size of the state and the width of the line, most of it is left to
/// others.
const REST: u32 = 4;
/// Entries of the stream that are read beyond those that should be there.
const MORE: usize = 4096;

/// Whether everything that this manifest and head promise is there. On a connection of its own, so that no heartbeat waits behind a
/// segment.
pub(super) async fn check(redis: Redis, ledger: Arc<Ledger>, stand: Stand) -> Result<bool, RedisFailure> {
    let link = redis.connect().await?;
    let entries = stream(&link, &ledger, stand.base).await?;
    // A folder that has them in segments by now has a newer manifest, which is about to be installed and checked.
    if let Some(ours) = ledger.changes_after(stand.base)
        && !is_whole(&entries, &ours, stand.base, stand.n)
    {
        return Ok(false);
    }
    for (name, bytes) in stand.segments {
        let begun = Instant::now();
        // Whoever can write could have put something there that does not fit into memory.
        if link.size(&name).await? != bytes {
            return Ok(false);
        }
        let Some(held) = link.segment(&name).await? else { return Ok(false) };
        let is_good = move || sha256(&held) == *name;
        if !tokio::task::spawn_blocking(is_good).await.unwrap_or(false) {
            return Ok(false);
        }
        tokio::time::sleep(begun.elapsed() * REST).await;
    }
    Ok(true)
}

/// The entries behind this number; of a stream that somebody has filled, not many more than the folder has.
pub(super) async fn stream(link: &Link, ledger: &Ledger, from: u64) -> Result<Vec<StreamEntry>, RedisFailure> {
    let most = ledger.state().map_or(0, |state| state.changes.len()) + MORE;
    let mut entries = Vec::new();
    let mut last = (from, u64::MAX);
    loop {
        let more = link.changes_after(last).await?;
        let is_full = more.len() == AT_ONCE;
        entries.extend(more);
        match entries.last() {
            // Behind the last id that there can be Redis refuses to look.
            Some(end) if is_full && entries.len() < most && end.id < (u64::MAX, u64::MAX) => last = end.id,
            _ => return Ok(entries),
        }
    }
}

/// How many entries stand behind the first of these numbers, up to the second.
pub(super) async fn count(link: &Link, from: u64, to: u64) -> Result<u64, RedisFailure> {
    let (mut count, mut last) = (0, (from, u64::MAX));
    loop {
        let entries = link.changes_after(last).await?;
        count += entries.iter().filter(|entry| entry.id.0 <= to).count() as u64;
        match entries.last() {
            Some(end) if entries.len() == AT_ONCE && end.id.0 <= to => last = end.id,
            _ => return Ok(count),
        }
    }
}
