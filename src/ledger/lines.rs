//! Reading the log: signed changes, one a line, each naming its predecessor.

use std::sync::Arc;

use super::error::LedgerError;
use super::folder::Folder;
use super::handle::Recorded;
use crate::revocation::{Change, Kind, PinnedKeys};

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Changes with a number above `after`.
    pub(super) changes: Vec<Arc<Recorded>>,
    /// Bytes of whole lines.
    pub(super) bytes: u64,
    /// Whole lines.
    pub(super) count: usize,
    /// Bytes behind the last line: a writer is about to finish them, or died over them.
    pub(super) torn: u64,
}

/// What stands between the lines and what is known already.
#[derive(Debug)]
pub(super) enum Unread {
    /// The first new change does not follow what is known: the log was replaced, or is broken.
    Gap {
        /// Which line, from 1.
        line: usize,
        /// What it says it follows.
        prev: u64,
        /// What it would have to follow.
        last: u64,
    },
    /// A line that nobody wrote so.
    Broken(LedgerError),
}

/// Where lines begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    /// Lines before these bytes.
    pub(super) lines: usize,
    /// The number of the last change of those lines; `None` at the start of the log.
    pub(super) prev: Option<u64>,
    /// Changes up to this one are known, and passed over.
    pub(super) after: u64,
}

/// Reads all whole lines. `known` finds a change that was read before, so that its signature need not be verified again.
pub(super) fn read(
    folder: &Folder,
    pinned: &PinnedKeys,
    bytes: &[u8],
    from: From,
    known: impl Fn(&str) -> Option<Arc<Recorded>>,
) -> Result<Lines, Unread> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines =
        Lines { bytes: whole as u64, torn: (bytes.len() - whole) as u64, count: from.lines, ..Lines::default() };
    let (mut before, mut made_at, mut start) = (from.prev, None, 0);
    for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
        lines.count += 1;
        let recorded = match one(pinned, &line[..line.len() - 1], &known) {
            Ok(recorded) => recorded,
            Err(_) if is_torn_batch(pinned, &bytes[start..whole], made_at) => {
                lines.count -= 1;
                (lines.bytes, lines.torn) = (start as u64, (bytes.len() - start) as u64);
                return Ok(lines);
            }
            Err(what) => {
                let mend = "a line that was acknowledged has been changed on disk: put the folder back from a backup, and see \
                            [publication] key_file if the key is another one";
                return Err(Unread::Broken(folder.broken(&folder.log(), Some(lines.count), what, mend)));
            }
        };
        start += line.len();
        let Change { n, prev, at, .. } = recorded.change;
        made_at = Some(at);
        let gap = |last| Unread::Gap { line: lines.count, prev, last };
        if before.is_some_and(|before| prev != before) {
            return Err(gap(before.unwrap_or_default()));
        }
        if n <= prev {
            let what = format!("change {n} follows change {prev}, a higher one");
            let mend = "put the folder back from a backup";
            return Err(Unread::Broken(folder.broken(&folder.log(), Some(lines.count), what, mend)));
        }
        before = Some(n);
        if n <= from.after {
            continue;
        }
        let follows = lines.changes.last().map_or(from.after, |last: &Arc<Recorded>| last.change.n);
        if prev != follows {
            return Err(gap(follows));
        }
        lines.changes.push(recorded);
    }
    Ok(lines)
}

/// Whether this is what a power loss leaves of a batch that was not yet acknowledged: blocks that did not reach the disk are NUL there, and
/// others behind them did. All that can still be read is of one batch, which has a time of its own: what has been acknowledged since
/// would have another.
fn is_torn_batch(pinned: &PinnedKeys, bytes: &[u8], before: Option<u64>) -> bool {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let mut batch = None;
    lines.next().is_some_and(|hole| hole.contains(&0))
        && lines.all(|line| {
            line.contains(&0)
                || one(pinned, &line[..line.len() - 1], &|_| None).is_ok_and(|recorded| {
                    let at = recorded.change.at;
                    before != Some(at) && *batch.get_or_insert(at) == at
                })
        })
}

fn one(
    pinned: &PinnedKeys,
    line: &[u8],
    known: &impl Fn(&str) -> Option<Arc<Recorded>>,
) -> Result<Arc<Recorded>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    if let Some(known) = known(line) {
        return Ok(known);
    }
    let change = pinned.open::<Change>(Kind::Change, line).map_err(|error| error.to_string())?;
    Ok(Arc::new(Recorded { change, line: line.into() }))
}
