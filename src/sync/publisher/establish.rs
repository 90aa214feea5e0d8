//! Whose is what stands in Redis, and what is to become of it: gone on with, written anew, or left to somebody else who is alive.

use std::sync::atomic::Ordering;
use std::time::Instant;

use uuid::Uuid;

use super::check;
use super::rival::{Life, Rival};
use super::standing::{Seen, has, is_whole, lost, signed, strangers, unsettled};
use super::write::{named, records};
use super::{Memory, Publisher, Stand, Takeover, Trouble};
use crate::clock::unix_millis;
use crate::replication::{Link, Standing};
use crate::revocation::{Entry, FloorOf};

impl Publisher {
    /// Finds out what stands in Redis and makes it ours if it may be; with a `flaw` it is written anew even if it looks whole. `false`:
    /// nothing may be published now, because there is somebody else, or it cannot be told yet.
    pub(super) async fn establish(
        &self,
        link: &Link,
        memory: &mut Memory,
        flaw: Option<&'static str>,
    ) -> Result<bool, Trouble> {
        let Some(truth) = self.ledger.truth() else { return Ok(false) };
        let head = link.head().await?;
        let latest = link.latest().await?;
        let seen = Seen::new(&self.pinned, head, link.manifest().await?.unwrap_or_default(), &latest);
        memory.epoch = memory.epoch.max(seen.epoch());
        let theirs = match &seen.head {
            Standing::Head(head) if head.truth != truth => Some(head.truth),
            _ => None,
        };
        if self.takeover == Takeover::Never {
            if let Some(theirs) = theirs {
                return Err(Trouble::NotOurs(format!("what is published in this Redis is another truth, {theirs}")));
            }
            if !seen.is_of(truth) {
                return Err(Trouble::NotOurs("nothing was published from this folder in this Redis".to_owned()));
            }
        }
        if let Some(theirs) = theirs
            && !self.is_gone(memory, &seen, theirs, truth)
        {
            return Ok(false);
        }
        let base =
            seen.manifest.as_ref().filter(|manifest| manifest.truth == truth).map_or(0, |manifest| manifest.base);
        let known = self.ledger.manifest().map_or(0, |manifest| manifest.base);
        let entries = check::stream(link, &self.ledger, base.max(known)).await?;
        // Who publishes has recorded before: the folder that is read now has all that was signed for it until then.
        if !self.has_looked().await? {
            return Ok(false);
        }
        let Some(folder) = self.ledger.state() else { return Ok(false) };
        // T2: what is signed and ours, and not in the folder, was published by a folder that is lost, or is another copy of it.
        let published = seen.published(truth).chain(strangers(&entries, base, &folder, &self.pinned));
        if let Some(lost) = lost(published, &folder, &memory.own) {
            if self.takeover == Takeover::Never {
                let what = format!(
                    "change {lost} was published in this Redis, and the folder does not have it: it is an older copy"
                );
                return Err(Trouble::NotOurs(what));
            }
            if !self.is_gone(memory, &seen, truth, truth) {
                return Ok(false);
            }
            tracing::error!(
                ours = folder.last(),
                published = lost,
                "the revocation folder does not have what was once published from it: it was restored from a backup, or another copy \
                 of it was in use. What was revoked in between is lost, so every token that was issued until now is refused"
            );
            self.log_everybody_out(lost).await?;
            self.unblocked(memory);
            return self.rewrite(link, memory, &seen.head, "restored").await;
        }
        if let Some(theirs) = theirs {
            tracing::warn!(truth = %theirs, "another truth was published in Redis by somebody who is gone; this process takes over");
            // T2: signed by this very key, so it was the truth of the same people before a folder was lost.
            let changes = signed(&entries, &self.pinned).filter(|n| !has(&folder, *n));
            let over = unix_millis().saturating_sub(self.ledger.keeps().saturating_mul(1000));
            if let Some(last) = unsettled(seen.published(theirs).chain(changes), &folder, over) {
                tracing::error!(
                    published = last,
                    "what was revoked by that truth is not in the revocation folder of this process: every token that was issued until \
                     now is refused. Subjects that were disabled and keys that were revoked have to be so again"
                );
                self.log_everybody_out(last).await?;
            }
        }
        self.unblocked(memory);
        let manifest = seen.manifest.as_ref().filter(|manifest| {
            matches!(&seen.head, Standing::Head(head) if (manifest.epoch, manifest.truth) == (head.epoch, truth))
        });
        let flaw = match (&seen.head, manifest) {
            _ if theirs.is_some() => "takeover",
            (Standing::Absent, _) if memory.epoch == 0 => "first",
            (Standing::Absent, _) => "lost",
            (Standing::Broken(_), _) => "broken",
            _ if let Some(flaw) = flaw => flaw,
            (Standing::Head(_), None) => "manifest",
            // A Redis that was set back, or lost its end in a fail-over, or that has less than is in segments by now.
            (Standing::Head(head), _) if head.n < memory.n.max(folder.manifest.base) => "behind",
            // A number that nobody has published for us.
            (Standing::Head(head), Some(manifest)) if head.n < manifest.base || !has(&folder, head.n) => "tampered",
            (Standing::Head(head), Some(manifest)) => {
                let from = manifest.base.max(folder.manifest.base);
                if is_whole(&entries, &folder.changes, from, head.n) {
                    let (epoch, n, base) = (head.epoch, head.n, manifest.base);
                    let (records, segments) = (records(manifest), named(manifest));
                    let published = folder.changes.partition_point(|recorded| recorded.change.n <= n);
                    // The folder may have more of them in segments than that manifest.
                    let after = if base < folder.manifest.base {
                        check::count(link, base, n).await?
                    } else {
                        folder.changes[..published].iter().filter(|recorded| recorded.change.n > base).count() as u64
                    };
                    tracing::info!(epoch, n, "what stands in Redis is of this truth; publishing goes on");
                    memory.stand = Some(Stand { epoch, truth, n, base, records, after, manifest: seen.line, segments });
                    memory.n = memory.n.max(n);
                    memory.published(&folder.changes[..published]);
                    self.ledger.published(n);
                    return Ok(true);
                }
                "broken"
            }
        };
        self.rewrite(link, memory, &seen.head, flaw).await
    }

    /// Records a floor over everything, with a number above that of what is lost (T2).
    async fn log_everybody_out(&self, above: u64) -> Result<(), Trouble> {
        let floor = Entry::Floor { of: FloorOf::Everything, issued_until: None };
        self.blocking(move |ledger| ledger.record_above(above, floor).map(|_| ())).await
    }

    /// Whether somebody else is gone. As long as he shows signs of life, or may, nothing of ours is published. `theirs` is `ours` where he
    /// has another copy of our folder.
    fn is_gone(&self, memory: &mut Memory, seen: &Seen, theirs: Uuid, ours: Uuid) -> bool {
        let now = Instant::now();
        let first = || Rival::seen_first(seen.head.clone(), seen.beats.clone(), now);
        let rival = memory.rival.get_or_insert_with(first);
        let life = rival.look(&seen.head, &seen.beats, seen.newest(theirs, unix_millis()), now);
        self.set_blocked(life == Life::Alive);
        if life == Life::Gone {
            return true;
        }
        self.leads.store(false, Ordering::Release);
        let told = rival.told.replace(life);
        match life {
            Life::Alive if told == Some(Life::Alive) => {}
            Life::Alive if theirs == ours => tracing::error!(
                truth = %ours,
                "another process publishes from another copy of this revocation folder (a cloned machine, a backup that was started \
                 elsewhere): what is revoked here is NOT published. Stop one of them and delete its folder, or let both share one"
            ),
            Life::Alive => tracing::error!(
                %theirs,
                "another process publishes another truth in this Redis: what is revoked here is NOT published. Share its [revocation] \
                 folder, follow it ([publication] public_keys without key_file), or give this deployment another [redis] prefix"
            ),
            Life::Unknown if told.is_none() => {
                tracing::info!(%theirs, "Redis has what this process did not publish; looking whether somebody is alive who did");
            }
            // An error that was said once stays said until the other is gone.
            _ => rival.told = told,
        }
        false
    }

    fn unblocked(&self, memory: &mut Memory) {
        memory.rival = None;
        self.set_blocked(false);
    }

    /// For who looks at metrics, and for whoever revokes.
    fn set_blocked(&self, blocked: bool) {
        self.metrics.set_blocked(blocked);
        self.ledger.set_blocked(blocked);
    }
}
