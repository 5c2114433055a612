//! Who may be believed when it says that it knows of no lease.
//!
//! Every grant is agreed to by all who would hold replicas of its name at that moment. So a peer that has been one of them for
//! longer than any lease lasts knows every lease that runs; one that came to it later (it joined, it was started anew, a peer before
//! it died) does not. And a peer that lately lost some of those it decides with may be cut off from them, while they decide
//! without it: therefore as many who know have to agree as make a majority of those who decided before the loss.

use super::Chord;
use crate::core::{Id, Instant};
use crate::identity::LONGEST_LEASE;
use crate::overlay::IdSpace;
use std::collections::BTreeMap;
use std::time::Duration;

/// A lease is remembered this much longer than its holder may count on it: clocks do not run alike.
pub(super) const GRACE: u32 = 16;
/// Longer than any lease is remembered by those who agreed to it.
pub(super) const QUIET: Duration = LONGEST_LEASE.saturating_add(Duration::from_secs(10));
/// Losses remembered.
const MOST: usize = 16;

/// Since when this peer is one of those who decide, and with whom.
#[derive(Default)]
pub(super) struct Known {
    /// Stretches (from, this peer], the nearest first, each with the moment since when all of it is this peer's business.
    stretches: Vec<(Id, Instant)>,
    /// Those that agree to what this peer decides, and since when.
    beside: BTreeMap<Id, Instant>,
    /// Those that did for long and do no more, and since when.
    lost: Vec<(Id, Instant)>,
}

impl Known {
    /// Where this peer's business begins and who decides with it, now.
    fn update(&mut self, space: IdSpace, me: &Id, from: Id, beside: &[Id], now: Instant) {
        let far = |id: &Id| (id == me, space.distance(id, me));
        let mut since = now;
        while let Some((last, at)) = self.stretches.last().filter(|(last, _)| far(last) > far(&from)) {
            debug_assert!(far(last) > far(&from));
            since = *at;
            self.stretches.pop();
        }
        if self.stretches.last().is_none_or(|(last, _)| *last != from) {
            self.stretches.push((from, since));
        }
        let lost = &mut self.lost;
        self.beside.retain(|id, since| {
            let stays = beside.contains(id);
            if !stays && now.since(*since) >= QUIET {
                lost.push((*id, now));
            }
            stays
        });
        for id in beside {
            self.beside.entry(*id).or_insert(now);
        }
        lost.retain(|(_, at)| now.since(*at) < QUIET);
        let surplus = lost.len().saturating_sub(MOST);
        lost.drain(..surplus);
    }

    /// It left in good order, and decides nothing without this peer.
    pub fn left(&mut self, id: &Id) {
        self.beside.remove(id);
        self.lost.retain(|(lost, _)| lost != id);
    }

    /// Out of the ring: nothing is known any more.
    pub fn clear(&mut self) {
        *self = Known::default();
    }

    /// How long until this peer knows every lease of `key` that runs; zero when it does.
    pub fn ignorant_for(&self, space: IdSpace, me: &Id, key: &Id, now: Instant) -> Duration {
        let stretch = self.stretches.iter().find(|(from, _)| space.in_open_closed(key, from, me));
        stretch.map_or(QUIET, |(_, since)| QUIET.saturating_sub(now.since(*since)))
    }

    /// How many decide about a lease, this peer among them: those that have been beside it for long, those lost included.
    pub fn width(&self, others: usize, now: Instant) -> u8 {
        let stay = self.beside.values().filter(|since| now.since(**since) >= QUIET).count();
        let lost = self.lost.iter().filter(|(id, _)| !self.beside.contains_key(id)).count();
        1 + (stay + lost).min(others).min(250) as u8
    }

    /// The longest that a loss still counts.
    pub fn mourns_for(&self, now: Instant) -> Duration {
        let left = self.lost.iter().map(|(_, at)| QUIET.saturating_sub(now.since(*at)));
        left.max().unwrap_or(Duration::ZERO)
    }
}

impl Chord {
    /// Notes what has become of the neighbours: before and after everything that may change them.
    pub(super) fn note_neighbours(&mut self, now: Instant) {
        if self.state == super::State::Outside {
            return self.leases.known.clear();
        }
        let (me, others) = (self.table.me.id, self.config.successor_replicas);
        let from = self.table.predecessors().get(others).copied().unwrap_or(me);
        let beside: Vec<Id> = self.table.successors().iter().take(others).map(|s| s.id).collect();
        self.leases.known.update(self.config.space, &me, from, &beside, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: IdSpace = IdSpace::new(8);
    const ME: Id = id(100);

    const fn id(n: u8) -> Id {
        let mut bytes = [0; 20];
        bytes[19] = n;
        Id(bytes)
    }

    fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000)
    }

    #[test]
    fn what_came_late_is_not_known() {
        let mut known = Known::default();
        let knows = |known: &Known, key, s| known.ignorant_for(SPACE, &ME, &id(key), at(s)).is_zero();
        known.update(SPACE, &ME, id(50), &[], at(0));
        assert!(!knows(&known, 60, 129) && knows(&known, 60, 130) && !knows(&known, 40, 500));
        // A peer before it dies: the stretch grows, and what is new in it is not known.
        known.update(SPACE, &ME, id(30), &[], at(200));
        assert!(knows(&known, 60, 200) && !knows(&known, 40, 329) && knows(&known, 40, 330));
        // One comes and goes again: what it took is known no more.
        known.update(SPACE, &ME, id(55), &[], at(400));
        assert!(!knows(&known, 52, 400) && knows(&known, 60, 400));
        known.update(SPACE, &ME, id(50), &[], at(401));
        assert!(!knows(&known, 52, 520) && knows(&known, 52, 531) && knows(&known, 60, 401));
        // Alone: everything.
        known.update(SPACE, &ME, ME, &[], at(600));
        assert!(knows(&known, 60, 600) && !knows(&known, 200, 600) && knows(&known, 200, 730));
    }

    #[test]
    fn whoever_was_lost_counts_for_a_while() {
        let mut known = Known::default();
        known.update(SPACE, &ME, ME, &[id(1), id(2)], at(0));
        assert_eq!(known.width(2, at(129)), 1);
        assert_eq!(known.width(2, at(130)), 3);
        known.update(SPACE, &ME, ME, &[id(3)], at(200));
        assert_eq!((known.width(2, at(200)), known.mourns_for(at(210))), (3, Duration::from_secs(120)));
        known.update(SPACE, &ME, ME, &[id(3)], at(330));
        assert_eq!(known.width(2, at(330)), 2);
        known.left(&id(3));
        known.update(SPACE, &ME, ME, &[], at(331));
        assert_eq!(known.width(2, at(331)), 1);
    }
}
