//! A queue of things that fall due.

use super::Instant;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// At most one deadline per key, earliest first; equal deadlines in the order of their keys, so that
/// the same inputs always give the same order.
#[derive(Clone, Debug)]
pub struct TimerQueue<K> {
    due: BTreeSet<(Instant, K)>,
    at: HashMap<K, Instant>,
}

impl<K: Ord + Hash + Clone> TimerQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        TimerQueue { due: BTreeSet::new(), at: HashMap::new() }
    }

    /// Sets the deadline of `key`, replacing the one it had.
    pub fn set(&mut self, key: K, at: Instant) {
        if let Some(old) = self.at.insert(key.clone(), at) {
            self.due.remove(&(old, key.clone()));
        }
        self.due.insert((at, key));
    }

    /// Forgets the deadline of `key`; true if it had one.
    pub fn cancel(&mut self, key: &K) -> bool {
        match self.at.remove(key) {
            Some(at) => self.due.remove(&(at, key.clone())),
            None => false,
        }
    }

    /// Takes one key whose deadline is not after `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The keys whose deadlines are not after `at`, earliest first.
    pub fn until(&self, at: Instant) -> impl Iterator<Item = &K> {
        self.due.iter().take_while(move |(due, _)| *due <= at).map(|(_, key)| key)
    }

    /// The deadline of `key`.
    pub fn deadline(&self, key: &K) -> Option<Instant> {
        self.at.get(key).copied()
    }

    /// How many deadlines are pending.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// True when nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

impl<K: Ord + Hash + Clone> Default for TimerQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_replaced() {
        let mut q = TimerQueue::new();
        q.set("b", Instant::from_millis(2));
        q.set("a", Instant::from_millis(1));
        q.set("b", Instant::from_millis(0));
        assert_eq!(q.len(), 2);
        assert_eq!(q.until(Instant::ZERO).collect::<Vec<_>>(), [&"b"]);
        assert_eq!(q.until(Instant::from_millis(1)).count(), 2);
        assert_eq!(q.pop(Instant::ZERO), Some("b"));
        assert_eq!(q.pop(Instant::ZERO), None);
        assert!(q.cancel(&"a"));
        assert!(q.is_empty());
    }
}
