//! A change that a command makes where no process runs: recorded in the folder, and published once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::owner::refuse_another_owner;
use super::{build, ledger, replication};
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::revocation::{Entry, RevocationIndex};
use crate::telemetry::Metrics;

/// How long the publication may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// The last change's number.
    pub number: u64,
    /// Why it is not published yet; `None`: it is, or there is no Redis to publish it to.
    pub outstanding: Option<String>,
    /// The folder that was written.
    pub folder: PathBuf,
    /// Whether nothing was ever recorded in it before.
    pub is_new: bool,
}

/// Records these changes in order: they are on disk when this returns.
///
/// # Errors
/// No configuration and no folder where it is run, a configuration that only follows, a folder that cannot be written, or that belongs to somebody else than root although root asks:
/// what root writes there a process of another user could not read.
pub fn record(settings: &Settings, entries: impl IntoIterator<Item = Entry>) -> anyhow::Result<Alone> {
    let folder = &settings.revocation.folder;
    let is_new = !folder.exists();
    let Some(key_file) = &settings.publication.key_file else {
        bail!("this configuration only follows ([publication] public_keys without key_file); ask the control plane");
    };
    // Nobody would ever look there.
    if settings.source.is_none() && is_new && !key_file.exists() {
        bail!(
            "there is no configuration here and no doorward has ever run here: name its configuration (--config), and go to its \
             working directory if that has relative paths"
        );
    }
    refuse_another_owner(folder)?;
    let index = Arc::new(RevocationIndex::default());
    let metrics = Metrics::new();
    let opened = ledger::open(settings, build::retention(settings), &index, &metrics)?;
    let opened = opened.context("this configuration has no [publication] key_file to record with")?;
    let mut number = 0;
    for entry in entries {
        number = opened.record(entry)?.change.n;
    }
    let outstanding = match settings.shared_redis() {
        Some(redis) => publish(settings, redis, &opened, &metrics).err().map(|error| format!("{error:#}")),
        None => None,
    };
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
    Ok(Alone { number, outstanding, folder, is_new })
}

fn publish(
    settings: &Settings,
    redis: &crate::replication::RedisSettings,
    ledger: &Arc<Ledger>,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let publisher = replication::publisher(settings, redis, ledger, metrics)?;
        crate::sync::replica::look(&publisher.redis).await?;
        match tokio::time::timeout(PATIENCE, publisher.publish_once()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => bail!(
                "{why}; if another doorward publishes there, run this again in its working directory, or with the [revocation] folder \
                 that it has"
            ),
            Err(_) => bail!("Redis has not taken it within {} s", PATIENCE.as_secs()),
        }
    })
}
