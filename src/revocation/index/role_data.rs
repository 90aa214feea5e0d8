//! Which role data came after which (T9).
//!
//! An override presumes the role data that its maker had. Data has no numbers, only fingerprints; so who records changes announces
//! its data when that has changed, as a change with a number among the others, and every process remembers what it has had in force
//! itself, and when. An override counts in full once its own data has been in force since it came, or data that was announced later is.

use std::collections::HashMap;

/// What is known of the order of role data. Exchanged whole.
#[derive(Debug, Clone, Default)]
pub(super) struct RoleDataOrder {
    /// Another one for every state.
    stamp: u64,
    /// The change at which each was announced last: data that went back is the newest then.
    announced: HashMap<Box<str>, u64>,
    /// How often the data in force in this process has changed.
    era: u64,
    /// What has been in force in this process, and in which era last; the newest behind.
    seen: Vec<(Box<str>, u64)>,
}

/// So many are remembered, the oldest go: people edit role data by hand, and what no live override was made with is of no use.
const ANNOUNCED: usize = 4096;
const SEEN: usize = 64;

impl RoleDataOrder {
    /// Tells this state from every other.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// To be remembered with what comes now.
    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Whether an override that was made at change `number`, came in the era `came` and presumes the data `needs` may count in full
    /// under the data in force.
    pub(super) fn covers(&self, in_force: &str, needs: &str, number: Option<u64>, came: u64) -> bool {
        in_force == needs
            || number.zip(self.announced.get(in_force)).is_some_and(|(number, announced)| *announced > number)
            || self.seen.iter().any(|(seen, last)| **seen == *needs && *last >= came)
    }

    /// The data that was announced last.
    pub(super) fn newest(&self) -> Option<&str> {
        self.announced.iter().max_by_key(|(_, number)| **number).map(|(fingerprint, _)| &**fingerprint)
    }

    /// This and an announcement, in whatever order they come; `None`: it says nothing new.
    pub(super) fn and_announced(&self, fingerprint: &str, number: u64) -> Option<Self> {
        if self.announced.get(fingerprint).is_some_and(|known| *known >= number) {
            return None;
        }
        let mut next = Self { stamp: self.stamp + 1, ..self.clone() };
        next.announced.insert(fingerprint.into(), number);
        if next.announced.len() > ANNOUNCED
            && let Some(oldest) = next.announced.iter().min_by_key(|(_, number)| **number).map(|(key, _)| key.clone())
        {
            next.announced.remove(&oldest);
        }
        Some(next)
    }

    /// This, after data has come into force here; `None`: it is already.
    pub(super) fn and_seen(&self, fingerprint: &str) -> Option<Self> {
        if self.seen.last().is_some_and(|(seen, _)| **seen == *fingerprint) {
            return None;
        }
        let mut next = Self { stamp: self.stamp + 1, era: self.era + 1, ..self.clone() };
        next.seen.retain(|(seen, _)| **seen != *fingerprint);
        next.seen.push((fingerprint.into(), next.era));
        if next.seen.len() > SEEN {
            next.seen.remove(0);
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::RoleDataOrder;

    #[test]
    fn t09_later_data_covers_what_presumes_earlier_data() {
        let order = RoleDataOrder::default();
        assert!(order.covers("a", "a", None, 0) && order.covers("a", "a", Some(9), 0));
        assert!(!order.covers("b", "a", Some(9), 0), "nobody knows which came first");
        let order = order.and_announced("b", 10).unwrap();
        assert!(order.covers("b", "a", Some(9), 0), "announced after the override was made");
        assert!(!order.covers("b", "a", Some(10), 0) && !order.covers("b", "a", Some(11), 0), "and before");
        assert!(!order.covers("b", "a", None, 0), "a line of a file has no time");
        assert!(order.and_announced("b", 9).is_none() && order.and_announced("b", 10).is_none());
        // Whatever order they arrive in.
        let order = order.and_announced("a", 5).unwrap();
        assert_eq!(order.newest(), Some("b"));
        assert!(!order.covers("a", "b", Some(11), 0));
        // The data goes back, and that is announced.
        let order = order.and_announced("a", 12).unwrap();
        assert!(order.covers("a", "b", Some(11), 0) && !order.covers("b", "a", Some(13), 0));
        assert_eq!(order.newest(), Some("a"));
    }

    #[test]
    fn t09_what_was_in_force_here_since_the_override_came_has_been_loaded() {
        let order = RoleDataOrder::default().and_seen("a").unwrap();
        assert!(order.and_seen("a").is_none());
        let came = order.era();
        assert!(!order.covers("a", "b", Some(1), came), "it has not come yet");
        let order = order.and_seen("b").unwrap();
        assert!(order.covers("b", "a", Some(1), came) && order.covers("b", "a", None, came));
        let came = order.era();
        assert!(!order.covers("b", "a", Some(1), came), "that was before: the data went back, and is not here yet");
        let order = order.and_seen("a").unwrap().and_seen("c").unwrap();
        assert!(order.covers("c", "a", Some(1), came));
        assert_ne!(order.stamp(), RoleDataOrder::default().stamp());
    }

    #[test]
    fn memory_is_bounded() {
        let mut order = RoleDataOrder::default();
        for number in 0..super::ANNOUNCED as u64 + 10 {
            order = order.and_announced(&number.to_string(), number).unwrap();
        }
        for number in 0..super::SEEN + 10 {
            order = order.and_seen(&number.to_string()).unwrap();
        }
        assert_eq!((order.announced.len(), order.seen.len()), (super::ANNOUNCED, super::SEEN));
        assert!(order.covers("4105", "x", Some(4104), 0) && !order.announced.contains_key("9"), "the oldest went");
    }
}
