//! An upload that goes on while its answer is under way is watched by itself (T20): a client that reads nothing of the answer
//! keeps hyper from asking for more of it, so that nobody would look after the exchange.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::Method;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::{Exchange, Path, Transfer, Worker};
use crate::admission::{Expiry, Identified, Readmitted};
use crate::clock::Timestamp;
use crate::gateway::watch::Notice;
use crate::request::{Host, RequestFacts};

/// What is asked again of an upload.
struct Upload {
    worker: Arc<Worker>,
    method: Method,
    path: Box<str>,
    host: Option<Host>,
    client: IpAddr,
    caller: Option<Identified>,
    expires_at: Option<Timestamp>,
    transfer: Arc<Transfer>,
}

/// The task that watches an upload, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched(AbortHandle);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Exchange {
    /// Has the request's body watched, if more of it is to come than the head of the answer waited for.
    pub(super) fn watch_upload(&mut self) {
        let Some(transfer) = self.transfer.as_ref().filter(|transfer| !transfer.has_ended()) else { return };
        let upload = Upload {
            worker: Arc::clone(&self.worker),
            method: self.method.clone(),
            path: match &self.path {
                Path::Raw(uri) => uri.path().into(),
                Path::Clean(path) => path.clone(),
                Path::Unknown => return,
            },
            host: self.host.clone(),
            client: self.peer,
            caller: self.caller.clone(),
            expires_at: self.expires_at(),
            transfer: Arc::clone(transfer),
        };
        self.upload = Some(Watched(tokio::spawn(upload.watch(self.watched_from())).abort_handle()));
    }
}

impl Upload {
    /// Cuts the upload off when it may go on no longer. Why is told by the exchange, when it is asked.
    async fn watch(self, from: Instant) {
        sleep_until(from.into()).await;
        let notice = self.worker.watch.enter(self.expires_at);
        poll_fn(|cx| self.poll_end(&notice, cx)).await;
        self.transfer.cut();
    }

    fn poll_end(&self, notice: &Arc<Notice>, cx: &Context<'_>) -> Poll<()> {
        notice.wakes(cx.waker());
        let may_go_on = notice.take().is_none() || self.is_admitted(notice);
        if may_go_on { Poll::Pending } else { Poll::Ready(()) }
    }

    fn is_admitted(&self, notice: &Arc<Notice>) -> bool {
        let (method, host) = (self.method.as_str(), self.host.as_ref());
        let facts = RequestFacts { method, host, target: &self.path, client: self.client };
        let caller = self.caller.as_ref();
        let expiry = if self.expires_at.is_some() { Expiry::Counts } else { Expiry::Lifted };
        let mut told = notice.take_told();
        match self.worker.admission().readmit(&facts, caller, expiry, Timestamp::now(), self.worker.desk(), &mut told) {
            Readmitted::GoesOn(readmission) => notice.is_good_until(readmission.until),
            Readmitted::Ask(question) => notice.calls_upon(question, told),
            Readmitted::Undecided => return notice.may_wait(Timestamp::now(), Instant::now()),
            Readmitted::Ends(_) => return false,
        }
        true
    }
}
