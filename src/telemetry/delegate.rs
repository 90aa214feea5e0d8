//! What is asked elsewhere, counted: by tasks beside requests, so that there is one of these for the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Histogram, HistogramTotal};
use super::metrics::REQUEST_BOUNDS;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegateQuestion {
    /// `GET /auth/userinfo` of the user service.
    Userinfo,
    /// `POST /auth/check-permission` of the user service.
    Permission,
    /// A key of the blacklist.
    Lookup,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegateAnswer {
    /// It was answered.
    Answered,
    /// The token was refused: 401 of the user service, or a key that the blacklist holds.
    Rejected,
    /// There was no answer that anything could be decided by.
    Unavailable,
}

const QUESTIONS: [(DelegateQuestion, &str); 3] = [
    (DelegateQuestion::Userinfo, "userinfo"),
    (DelegateQuestion::Permission, "check_permission"),
    (DelegateQuestion::Lookup, "lookup"),
];
const ANSWERS: [(DelegateAnswer, &str); 3] = [
    (DelegateAnswer::Answered, "answered"),
    (DelegateAnswer::Rejected, "rejected"),
    (DelegateAnswer::Unavailable, "unavailable"),
];

/// The counters.
#[derive(Debug)]
pub struct DelegateMetrics {
    questions: [Question; QUESTIONS.len()],
    refused: AtomicU64,
    unanswered: AtomicU64,
}

#[derive(Debug)]
struct Question {
    answers: [Histogram; ANSWERS.len()],
    coalesced: AtomicU64,
    open: AtomicI64,
}

/// A question that is open, until this is dropped.
#[derive(Debug)]
pub struct Open(Arc<DelegateMetrics>, DelegateQuestion);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.questions[self.1 as usize].open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The series of one question.
pub(super) struct Gathered {
    pub(super) question: &'static str,
    pub(super) answers: Vec<(&'static str, HistogramTotal)>,
    pub(super) coalesced: u64,
    pub(super) open: i64,
}

impl Default for DelegateMetrics {
    fn default() -> Self {
        Self {
            questions: std::array::from_fn(|_| Question {
                answers: std::array::from_fn(|_| Histogram::new(REQUEST_BOUNDS)),
                coalesced: AtomicU64::new(0),
                open: AtomicI64::new(0),
            }),
            refused: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }
    }
}

impl DelegateMetrics {
    /// A question is asked, if there are fewer than `most` of its kind open.
    #[must_use]
    pub fn open(self: &Arc<Self>, question: DelegateQuestion, most: usize) -> Option<Open> {
        let open = self.questions[question as usize].open.fetch_add(1, Ordering::Relaxed);
        let open_one = Open(Arc::clone(self), question);
        if usize::try_from(open).is_ok_and(|open| open >= most) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(open_one)
    }

    /// It ended after this long.
    pub fn answered(&self, question: DelegateQuestion, answer: DelegateAnswer, took: Duration) {
        self.questions[question as usize].answers[answer as usize].observe(took);
    }

    /// A request waits for a question that another one has asked.
    pub fn coalesced(&self, question: DelegateQuestion) {
        self.questions[question as usize].coalesced.fetch_add(1, Ordering::Relaxed);
    }

    /// A request goes on though the blacklist did not answer (`on_stale = "allow"`).
    pub fn went_on_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Questions that were not asked since too many were open.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Requests that went on without an answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// What was asked; kinds of which nothing ever was are left out.
    pub(super) fn gather(&self) -> Vec<Gathered> {
        let gathered = QUESTIONS.iter().zip(&self.questions).map(|((_, question), counted)| {
            let total = |histogram: &Histogram| {
                let mut total = HistogramTotal::new(REQUEST_BOUNDS);
                histogram.add_to(&mut total);
                total
            };
            let answers =
                ANSWERS.iter().zip(&counted.answers).map(|((_, answer), histogram)| (*answer, total(histogram)));
            Gathered {
                question,
                answers: answers.collect(),
                coalesced: counted.coalesced.load(Ordering::Relaxed),
                open: counted.open.load(Ordering::Relaxed),
            }
        });
        gathered.filter(|of| of.open != 0 || of.answers.iter().any(|(_, total)| total.count() > 0)).collect()
    }
}
