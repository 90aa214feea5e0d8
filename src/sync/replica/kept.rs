//! What must be in the last good state: the lines as received.

use std::sync::Arc;

/// Lines that a copy shares whole.
const SHARED: usize = 1024;

/// The lines of a state, as received.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The signed manifest.
    pub manifest: Arc<str>,
    /// Its segments: name and size.
    pub segments: Arc<[(Box<str>, u64)]>,
    /// The signed changes after its base.
    pub changes: Tail,
    /// The last change's number.
    pub last: u64,
    /// A heartbeat that said the same of number and count.
    pub proof: Option<Arc<str>>,
    /// The last heartbeat that counted.
    pub heartbeat: Option<Arc<str>>,
}

/// Lines, oldest first. They are copied each second while changes come, on the thread that takes them: so the copy shares all but the
/// last thousand, however many there are.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    shared: Vec<Arc<[Arc<str>]>>,
    last: Vec<Arc<str>>,
}

impl Tail {
    /// Adds one.
    pub fn push(&mut self, line: Arc<str>) {
        self.last.push(line);
        if self.last.len() == SHARED {
            self.shared.push(self.last.drain(..).collect());
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.shared.iter().flat_map(|lines| lines.iter()).chain(&self.last).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shares_what_is_old_and_both_hold_all_in_order() {
        let lines = |tail: &Tail| tail.iter().map(str::to_owned).collect::<Vec<_>>();
        let mut tail = Tail::default();
        let mut all = Vec::new();
        for number in 0..2 * SHARED + 7 {
            all.push(number.to_string());
            tail.push(number.to_string().into());
        }
        let copy = tail.clone();
        assert_eq!(copy.shared.len() + copy.last.len(), 2 + 7, "so many pointers are copied");
        tail.push("more".into());
        assert_eq!(lines(&copy), all);
        assert_eq!(lines(&tail).len(), all.len() + 1);
    }
}
