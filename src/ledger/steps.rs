//! The steps between which a process may die. A test names one, and the work stops there as if it had.

/// After which step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// An empty log was drafted, for a folder that is made.
    LogDrafted,
    /// It is in its place.
    LogPlaced,
    /// Changes were appended, and are perhaps not on disk yet. No crash: what is appended when a process dies stands.
    LogAppended,
    /// A segment was drafted.
    SegmentDrafted,
    /// It is in its place; nobody names it yet.
    SegmentPlaced,
    /// A manifest was drafted.
    ManifestDrafted,
    /// It is in its place; the log still holds what is now in segments.
    ManifestPlaced,
    /// A shorter log was drafted.
    ShorterLogDrafted,
    /// It is in its place; segments that nobody names are still there.
    ShorterLogPlaced,
}

#[cfg(test)]
pub(super) const ALL: [Step; 8] = [
    Step::LogDrafted,
    Step::LogPlaced,
    Step::SegmentDrafted,
    Step::SegmentPlaced,
    Step::ManifestDrafted,
    Step::ManifestPlaced,
    Step::ShorterLogDrafted,
    Step::ShorterLogPlaced,
];

/// Where to stop; nowhere outside tests.
#[derive(Debug, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) stop_after: std::sync::Mutex<Option<Step>>,
    /// Where the disk takes its time, until this is another step or none; 3 s at most.
    #[cfg(test)]
    pub(super) wait_after: std::sync::Mutex<Option<Step>>,
}

impl Steps {
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests stop here")]
    pub(super) const fn pass(&self, _: Step) -> Result<(), super::LedgerError> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn pass(&self, step: Step) -> Result<(), super::LedgerError> {
        for _ in 0..3_000 {
            if *self.wait_after.lock().unwrap_or_else(std::sync::PoisonError::into_inner) != Some(step) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if *self.stop_after.lock().unwrap_or_else(std::sync::PoisonError::into_inner) == Some(step) {
            return Err(super::LedgerError::Refused(format!("stopped after {step:?}").into()));
        }
        Ok(())
    }
}
