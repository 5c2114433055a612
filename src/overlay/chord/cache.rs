//! Popular resources, remembered for a few seconds by who passed them on: a number that everybody calls does not have all its
//! callers at its few holders.
//!
//! What is kept is verified and answers requests that travel, marked as what it is; a holder asked itself never answers from
//! here. A changed entry stays hidden no longer than the time set ([`Config::cached_for`](super::Config)), and not at all
//! from who reads by [`Mode::Sure`](crate::overlay::Mode). A copy is not passed on as fresh: what came from a cache is not
//! cached again.

use crate::core::{Id, Instant};
use crate::identity::SignedEntry;
use std::collections::BTreeMap;
use std::time::Duration;

/// Asked for again within this time, a resource is popular.
const POPULAR: Duration = Duration::from_secs(10);

struct Kept {
    /// When it was asked for last.
    asked: Instant,
    /// Its entries, and when they were got.
    entries: Option<(Instant, Vec<SignedEntry>)>,
}

/// The resources remembered, at most `max`.
pub(super) struct Cache {
    max: usize,
    life: Duration,
    kept: BTreeMap<Id, Kept>,
}

impl Cache {
    pub fn new(max: usize, life: Duration) -> Cache {
        Cache { max, life, kept: BTreeMap::new() }
    }

    /// Somebody asks for the resource: what is remembered, if that is young enough.
    pub fn get(&self, key: &Id, now: Instant) -> Option<&[SignedEntry]> {
        let (got, entries) = self.kept.get(key)?.entries.as_ref()?;
        (now.since(*got) < self.life).then_some(entries)
    }

    /// An answer came: true when its entries are to be verified and [`Cache::put`] here, because somebody asked for them
    /// not long ago.
    pub fn is_popular(&mut self, key: &Id, now: Instant) -> bool {
        if self.max == 0 {
            return false;
        }
        let before = self.kept.get(key).map(|k| k.asked);
        if before.is_none() && self.kept.len() >= self.max {
            let oldest = self.kept.iter().map(|(id, k)| (k.asked, *id)).min();
            if let Some((_, id)) = oldest {
                self.kept.remove(&id);
            }
        }
        self.kept.entry(*key).or_insert(Kept { asked: now, entries: None }).asked = now;
        before.is_some_and(|at| now.since(at) < POPULAR)
    }

    /// Remembers verified entries.
    pub fn put(&mut self, key: &Id, entries: Vec<SignedEntry>, now: Instant) {
        if let Some(kept) = self.kept.get_mut(key) {
            kept.entries = Some((now, entries));
        }
    }

    /// The resource was written here or by this peer.
    pub fn forget(&mut self, key: &Id) {
        self.kept.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000)
    }

    #[test]
    fn what_is_asked_for_twice_is_kept_for_a_moment() {
        let (mut cache, key) = (Cache::new(2, Duration::from_secs(3)), Id::from_u64(1));
        assert!(!cache.is_popular(&key, at(1)));
        assert!(!cache.is_popular(&key, at(20)));
        assert!(cache.is_popular(&key, at(25)));
        cache.put(&key, Vec::new(), at(25));
        assert_eq!(cache.get(&key, at(27)), Some(&[][..]));
        assert_eq!(cache.get(&key, at(28)), None);
        // Bounded: the one asked for longest ago goes.
        for n in 2..4 {
            cache.is_popular(&Id::from_u64(n), at(26 + n));
        }
        assert_eq!((cache.get(&key, at(26)), cache.kept.len()), (None, 2));
    }
}
