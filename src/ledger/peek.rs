//! The last number of a folder that somebody else writes: what a token that is minted beside a running doorward carries as `uv` (T3).

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::error::LedgerError;
use super::folder::Folder;
use crate::revocation::{Change, Kind, Manifest, PinnedKeys};

/// More than the longest line.
const LAST_BYTES: u64 = 1 << 20;
const TRIES: usize = 16;

/// Reads the last number, without lock and without loading anything; 0 for a folder that was never made.
///
/// # Errors
/// [`LedgerError`] for a folder that cannot be read, or whose last line is not signed by one of these keys.
pub fn last_number(folder: &Path, pinned: &PinnedKeys) -> Result<u64, LedgerError> {
    let folder = Folder::new(folder.to_owned());
    let manifest = folder.manifest();
    for _ in 0..TRIES {
        let Some(stamp) = folder.stamp(&manifest)? else { return Ok(0) };
        let line = folder.read(&manifest)?;
        let base = signed::<Manifest>(&folder, pinned, &manifest, Kind::Manifest, &line)?.base;
        let last = last_line(&folder)?;
        let last =
            last.map(|line| signed::<Change>(&folder, pinned, &folder.log(), Kind::Change, &line)).transpose()?;
        // A log that was swapped between the two looks at it belongs to another manifest.
        if folder.stamp(&manifest)? == Some(stamp) {
            return Ok(last.map_or(base, |change| change.n.max(base)));
        }
    }
    Err(folder.broken(folder.path(), None, "it changes faster than it can be read", "look for what replaces its files"))
}

/// The last line that has an end, without it.
fn last_line(folder: &Folder) -> Result<Option<Vec<u8>>, LedgerError> {
    let mut log = folder.open_log()?;
    let path = folder.log();
    let read = (|| {
        let length = log.metadata()?.len();
        let mut bytes = Vec::new();
        log.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
        log.read_to_end(&mut bytes)?;
        Ok(bytes)
    })();
    let bytes = read.map_err(LedgerError::io(&path, "it cannot be read"))?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    Ok(bytes[..end].rsplit(|byte| *byte == b'\n').next().map(<[u8]>::to_vec))
}

fn signed<T: serde::de::DeserializeOwned>(
    folder: &Folder,
    pinned: &PinnedKeys,
    path: &Path,
    kind: Kind,
    line: &[u8],
) -> Result<T, LedgerError> {
    let line = std::str::from_utf8(line).unwrap_or_default().trim_end_matches('\n');
    let mend = "see [publication] key_file: it is the key that the folder was written with";
    pinned.open(kind, line).map_err(|error| folder.broken(path, None, error.to_string(), mend))
}
