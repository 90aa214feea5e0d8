//! Test corpora that are not part of the project, found through `DOORWARD_CORPORA`.

use std::path::PathBuf;

use serde_json::Value;

/// A JSON corpus, or `None` (said on stderr) where the folder is not known.
pub(crate) fn corpus(file: &str) -> Option<Value> {
    let Some(folder) = std::env::var_os("DOORWARD_CORPORA").map(PathBuf::from) else {
        eprintln!("skipped: DOORWARD_CORPORA is not set, so {file} was not run");
        return None;
    };
    let path = folder.join(file);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
