//! Segments: records of changes that need no chain any more, in files named by their SHA-256.

use aws_lc_rs::digest::{SHA256, digest};

use super::error::LedgerError;
use super::folder::Folder;
use super::records::over;
use super::steps::Step;
use crate::clock::Timestamp;
use crate::revocation::{Record, Retention, SegmentOf};

/// Most bytes of a segment, and one record: Redis takes it as one value, within a bound of time, and one whose records end drops out as
/// a whole when its time is over.
pub(super) const LARGEST: usize = 16 << 20;

const MEND: &str = "put the folder back from a backup";

/// The bytes of a segment, proven.
pub(super) fn bytes(folder: &Folder, sha256: &str) -> Result<Vec<u8>, LedgerError> {
    let path = folder.segment(sha256);
    // The name comes from a signed manifest or from a caller that read one; it is no path.
    if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(LedgerError::Refused(format!("{sha256:?} is no segment's name").into()));
    }
    let bytes = folder.read(&path)?;
    if name(&bytes) != *sha256 {
        return Err(folder.broken(&path, None, "its SHA-256 is another than its name: it was changed on disk", MEND));
    }
    Ok(bytes)
}

/// Reads all records of a segment, on as many threads as there are cores, and hands them over in order.
pub(super) fn records(folder: &Folder, segment: &SegmentOf, mut take: impl FnMut(Record)) -> Result<(), LedgerError> {
    let bytes = bytes(folder, &segment.sha256)?;
    let broken = |line: Option<usize>, what: String| folder.broken(&folder.segment(&segment.sha256), line, what, MEND);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(bytes.len() / (256 << 10) + 1);
    let parse = |part: &[u8]| {
        let lines = part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        lines
            .map(|(index, line)| serde_json::from_slice::<Record>(line).map_err(|error| (index + 1, error.to_string())))
            .collect::<Result<Vec<_>, _>>()
    };
    let mut count = 0;
    let parts = std::thread::scope(|scope| {
        // Where the system gives no thread this one reads.
        let begin = |part| std::thread::Builder::new().spawn_scoped(scope, move || parse(part)).map_err(|_| part);
        let threads: Vec<_> = split(&bytes, threads).into_iter().map(begin).collect();
        let end = |thread: Result<std::thread::ScopedJoinHandle<'_, _>, &[u8]>| match thread {
            Ok(thread) => thread.join(),
            Err(part) => Ok(parse(part)),
        };
        threads.into_iter().map(end).collect::<Vec<_>>()
    });
    for part in parts {
        let part = part.map_err(|_| broken(None, "a record made its reader panic".to_owned()))?;
        for record in part.map_err(|(line, what)| broken(Some(count + line), what))? {
            count += 1;
            take(record);
        }
    }
    if count as u64 != segment.records {
        return Err(broken(None, format!("it holds {count} records where the manifest says {}", segment.records)));
    }
    Ok(())
}

/// Parts of about equal size that end at line ends.
fn split(bytes: &[u8], parts: usize) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut split = Vec::new();
    for left in (1..=parts).rev() {
        let about = rest.len() / left;
        let end = rest[about..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| about + end + 1);
        let (part, after) = rest.split_at(end);
        split.push(part);
        rest = after;
    }
    split
}

/// Writes records as segments of bounded size: those that stand, in their order, and those that end. A segment that is there already,
/// by its name, is not written again.
pub(super) fn write(folder: &Folder, records: &[Record], retention: Retention) -> Result<Vec<SegmentOf>, LedgerError> {
    let mut written = Vec::new();
    let (standing, ending): (Vec<_>, Vec<_>) =
        records.iter().map(|record| (record, over(record, retention))).partition(|(_, over)| over.is_none());
    for records in [standing, ending] {
        let mut rest = records.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut bytes, mut count, mut ends) = (Vec::new(), 0, None::<Timestamp>);
            while let Some((record, over)) = rest.next_if(|_| bytes.len() < LARGEST) {
                serde_json::to_writer(&mut bytes, record)
                    .map_err(|error| LedgerError::Refused(error.to_string().into()))?;
                bytes.push(b'\n');
                count += 1;
                ends = ends.max(over);
            }
            let sha256 = name(&bytes);
            let path = folder.segment(&sha256);
            if folder.stamp(&path)?.is_none_or(|stamp| stamp.bytes != bytes.len() as u64) {
                folder.replace(&path, &bytes, [Step::SegmentDrafted, Step::SegmentPlaced])?;
            }
            written.push(SegmentOf {
                sha256: sha256.into(),
                records: count,
                bytes: bytes.len() as u64,
                expires_at: ends.map(|ends| ends.0),
            });
        }
    }
    Ok(written)
}

fn name(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    digest(&SHA256, bytes).as_ref().iter().fold(String::with_capacity(64), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::revocation::Entry;

    #[test]
    fn records_that_stand_are_cut_into_segments_too_and_keep_their_order() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path().join("revocations"));
        folder.make().unwrap();
        let long = "k".repeat(1000);
        let key = |n: u64| Entry::Key { id: format!("{n}-{long}").into(), issuer: None };
        let records: Vec<Record> = (1..=20_000).map(|n| Record { n, at: n, entry: key(n) }).collect();
        let retention = Retention { from_arrival: 3_780, after_expiry: 90, overrides_stay: false };
        let written = write(&folder, &records, retention).unwrap();
        assert!(written.len() >= 2, "20 MB in {} segments", written.len());
        assert!(written.iter().all(|segment| segment.expires_at.is_none() && segment.bytes < 17 << 20));
        let mut read = Vec::new();
        for segment in &written {
            super::records(&folder, segment, |record| read.push(record)).unwrap();
        }
        assert!(read == records);
    }
}
