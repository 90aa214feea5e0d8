//! The certificates of a listener: read, checked and published together, and followed while running.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::live::Live;
use crate::net::certificates::{TlsError, TlsTexts};
use crate::net::{Tls, TlsFiles};

/// How often the files are read. Contents are compared and not times, for a mounted secret is replaced by a symbolic link. A
/// change counts once two readings in a row agree, so that a certificate is not taken with the key of the one before.
const PERIOD: Duration = Duration::from_millis(500);

/// A listener's certificates in force, and the files that they came from.
#[derive(Debug, Clone)]
pub struct LiveTls {
    /// What handshakes use.
    pub live: Arc<Live<Tls>>,
    files: Arc<TlsFiles>,
    texts: TlsTexts,
}

impl LiveTls {
    /// Reads and checks the files at the start. What should be looked at is logged.
    ///
    /// # Errors
    /// Every fault of every file, with key and mend.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let texts = files.read()?;
        let tls = files.compile(&texts, None)?;
        warn(&tls);
        Ok(Self { live: Arc::new(Live::new(tls)), files: Arc::new(files.clone()), texts })
    }

    /// Follows the files until the task is dropped: publishes every new state and tells `published` of it, and every change that
    /// cannot be used to `refused`, once; what is in force stays then. SIGHUP asks for a reading at once. Connections keep the
    /// certificate that they were shown.
    pub async fn follow(self, published: impl Fn(&Tls), refused: impl Fn(&TlsError)) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was judged last: published, or refused and told of.
        let mut judged = Ok(self.texts);
        let mut last = judged.clone();
        let mut sound = true;
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                asked = asked(&mut hangup) => asked,
            };
            let files = Arc::clone(&self.files);
            let Ok(read) = tokio::task::spawn_blocking(move || files.read()).await else { continue };
            let settled = read == last || asked;
            last.clone_from(&read);
            // A refused change that is taken back leaves nothing to load, but the mark of the failure has to go.
            if !settled || read == judged && (sound || !asked) {
                continue;
            }
            let compiled = match &read {
                Ok(texts) => {
                    let (files, texts, before) = (Arc::clone(&self.files), texts.clone(), self.live.get());
                    let compiled = tokio::task::spawn_blocking(move || files.compile(&texts, Some(&before))).await;
                    let Ok(compiled) = compiled else { continue };
                    compiled
                }
                Err(error) => Err(error.clone()),
            };
            judged = read;
            sound = compiled.is_ok();
            match compiled {
                Ok(tls) => {
                    warn(&tls);
                    published(&tls);
                    self.live.publish(tls);
                }
                Err(error) => refused(&error),
            }
        }
    }
}

fn warn(tls: &Tls) {
    for warning in tls.warnings() {
        tracing::warn!("{warning}");
    }
}

async fn asked(hangup: &mut Option<tokio::signal::unix::Signal>) -> bool {
    match hangup {
        Some(signal) => signal.recv().await.is_some(),
        None => std::future::pending().await,
    }
}
