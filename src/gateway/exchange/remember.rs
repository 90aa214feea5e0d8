//! What of an exchange is remembered for a while (SPEC 3.7, last paragraph).

use std::sync::Arc;
use std::time::Duration;

use super::{Exchange, Path};
use crate::admission::decisions::{Decided, Origin, UpstreamOutcome};

impl Exchange {
    /// Remembers a denial, a failure, and one in so many of the rest. Facts are kept as they are; nothing is put into words here.
    pub(super) fn remember(&self, duration: Duration) {
        let Some(ring) = self.worker.ring() else { return };
        if self.reason.is_none() && self.would_deny.is_none() && !ring.samples() {
            return;
        }
        let (path, read): (Box<str>, bool) = match &self.path {
            // Without the query, which may hold anything.
            Path::Raw(uri) => (uri.path().into(), true),
            Path::Clean(path) => (path.clone(), true),
            Path::Unknown => ("-".into(), false),
        };
        let upstream = || {
            let snapshot = self.snapshot.as_ref()?;
            match self.matched() {
                Some((_, route)) => Some(Arc::clone(&route.upstream)),
                None => snapshot.service_by_index(self.service?)?.upstream.clone(),
            }
        };
        ring.remember(Decided {
            request_id: self.request_id.clone(),
            time: self.time,
            duration,
            method: read.then(|| self.method.clone()),
            path,
            host: self.host.clone(),
            client: self.peer,
            denied: self.denied,
            reason: self.reason,
            would_deny: self.would_deny,
            status: self.status,
            detail: self.detail.clone(),
            origin: self.snapshot.as_ref().map(|of| Origin::Snapshot(Arc::clone(of), self.service, self.route)),
            identity: self.caller.as_ref().map(|caller| Arc::clone(&caller.identity)),
            upstream: self
                .upstream
                .as_ref()
                .map(|_| UpstreamOutcome { name: upstream(), answered: self.upstream_time }),
        });
    }
}
