//! Peers found on the local network, and whom of them a peer joins. What is found is a hint (anybody on the network can
//! say anything); the link proves who is there, so a false hint costs one failed attempt.
//!
//! Only a peer that is alone in its ring joins anybody. Of two that are both alone, the one with the **higher peer-ID joins
//! the lower**, and of several found it takes the lowest, after a moment in which the others can be heard: peers that
//! start together all turn to the same one. A peer that is the lowest of all
//! waits for the others to come; when none has come for a while, they are in a ring already and it joins them.
//!
//! A peer that is in a ring with others tells the overlay of everybody found, which sees to it that two rings of one overlay
//! become one: where a dozen turn to the lowest within the same second, some may admit each other first.
//!
//! Absent: leaving is not heard: an address that does not answer is forgotten after a few attempts until
//! it is found again.

use super::Node;
use super::control::Event;
use super::ring::State;
use crate::core::{Id, Instant};
use crate::overlay::{self, Command, PeerRef};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Most peers remembered; one of them is enough to join.
const MAX_NEARBY: usize = 64;
/// From the first that is heard to the choice of the lowest.
const GATHER: Duration = Duration::from_millis(1500);
/// How long the lowest waits for the others to join it.
const PATIENCE: Duration = Duration::from_secs(6);
/// From one attempt to the next.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Attempts until a peer has to be found again.
const TRIES: u8 = 4;

#[derive(Debug)]
struct Heard {
    addr: SocketAddr,
    since: Instant,
    tries: u8,
}

/// The table of those found.
#[derive(Debug, Default)]
pub(super) struct Nearby {
    peers: BTreeMap<Id, Heard>,
    /// The latest attempt.
    trying: Option<(Instant, SocketAddr)>,
}

impl Nearby {
    /// Takes a hint; false when the table is full.
    fn hear(&mut self, now: Instant, id: Id, addr: SocketAddr) -> bool {
        let full = self.peers.len() >= MAX_NEARBY;
        match self.peers.get_mut(&id) {
            Some(heard) if heard.addr == addr => {}
            Some(heard) => (heard.addr, heard.tries) = (addr, 0),
            None if full => return false,
            None => {
                self.peers.insert(id, Heard { addr, since: now, tries: 0 });
            }
        }
        true
    }

    /// From when on `own` may join `id`.
    fn ripe(own: Id, id: Id, heard: &Heard) -> Instant {
        heard.since + if id < own { GATHER } else { PATIENCE }
    }

    /// When [`Nearby::choose`] may have something.
    fn next(&self, own: Id) -> Option<Instant> {
        let ripe = self.peers.iter().map(|(id, heard)| Self::ripe(own, *id, heard)).min()?;
        Some(self.trying.map_or(ripe, |(since, _)| ripe.max(since + ATTEMPT)))
    }

    /// Whom `own`, alone, is to ask now: the least tried of those that are ripe, the lowest of these.
    fn choose(&mut self, now: Instant, own: Id) -> Option<SocketAddr> {
        if self.next(own).is_none_or(|at| at > now) {
            return None;
        }
        let ripe = self.peers.iter().filter(|(id, heard)| Self::ripe(own, **id, heard) <= now);
        let id = *ripe.min_by_key(|(id, heard)| (heard.tries, **id))?.0;
        let heard = self.peers.get_mut(&id)?;
        heard.tries += 1;
        let (addr, spent) = (heard.addr, heard.tries >= TRIES);
        if spent {
            self.peers.remove(&id);
        }
        self.trying = Some((now, addr));
        Some(addr)
    }

    /// Where those are that were heard.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.peers.values().map(|heard| heard.addr).collect()
    }

    /// True shortly after an attempt.
    pub fn is_trying(&self, now: Instant) -> bool {
        self.trying.is_some_and(|(since, _)| now.since(since) < ATTEMPT)
    }
}

impl Node {
    /// In a ring that has no other peer, or (never to be a supernode) in none, and nobody is known to hang on.
    pub(super) fn is_alone(&self) -> bool {
        if self.awaits_supernode() {
            return true;
        }
        let status = self.overlay.as_ref().map(|o| o.status());
        // Who hangs on others has them.
        let hangs = !self.attach.via.is_empty();
        self.ring.state() == State::In
            && !hangs
            && status.is_some_and(|s| s.successors.is_empty() && s.predecessor.is_none())
    }

    fn own_id(&self) -> Option<Id> {
        self.overlay.as_ref().map(|o| o.me().id)
    }

    pub(super) fn on_found(&mut self, now: Instant, addr: SocketAddr, id: Id) {
        if self.own_id().is_none_or(|own| own == id) || addr == self.flows.locals().overlay {
            return;
        }
        if self.identity.as_ref().is_some_and(|i| !i.has_place()) && self.setup.known_peers.len() < MAX_NEARBY {
            // Nobody admits it to a ring yet; somebody there may know who can.
            if !self.setup.known_peers.contains(&addr) {
                self.setup.known_peers.push(addr);
                self.begin_certifying(now);
            }
        }
        if !self.ring.nearby.hear(now, id, addr) {
            self.count("peers found beyond those remembered");
        }
        self.race_nearby(now, addr);
        if self.ring.state() == State::In && !self.is_alone() {
            self.overlay_input(now, overlay::Input::Command(Command::Meet { peer: PeerRef { id, addr } }));
        }
        self.join_nearby(now);
    }

    pub(super) fn next_nearby(&self) -> Option<Instant> {
        let own = self.own_id().filter(|_| self.stopping.is_none() && self.is_alone())?;
        self.ring.nearby.next(own)
    }

    pub(super) fn join_nearby(&mut self, now: Instant) {
        if self.stopping.is_some() || !self.is_alone() {
            return;
        }
        let Some(own) = self.own_id() else { return };
        if let Some(bootstrap) = self.ring.nearby.choose(now, own) {
            self.overlay_input(now, overlay::Input::Command(Command::Join { bootstrap }));
        }
    }

    /// The neighbours have changed: after an attempt, that is its success.
    pub(super) fn on_neighbours(&mut self, now: Instant) {
        let joined = self.overlay.as_ref().is_some_and(|o| !o.status().successors.is_empty());
        if !joined {
            return self.look_for_others(now);
        }
        let (was_looking, trying) = (self.race_won(), self.ring.nearby.trying.take());
        if was_looking || trying.is_some() {
            // What was written while alone lies here; in the ring it belongs to others.
            self.publisher.rewrite(now);
        }
        if let Some((_, address)) = trying {
            let found = self.ring.nearby.peers.iter().map(|(id, heard)| PeerRef { id: *id, addr: heard.addr });
            for peer in found.collect::<Vec<_>>() {
                self.overlay_input(now, overlay::Input::Command(Command::Meet { peer }));
            }
            for heard in self.ring.nearby.peers.values_mut() {
                heard.tries = 0;
            }
            self.event(None, Event::Discovered { address });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn id(n: u8) -> Id {
        Id([n; 20])
    }

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 5061))
    }

    fn table(found: &[u8]) -> Nearby {
        let mut nearby = Nearby::default();
        for n in found {
            assert!(nearby.hear(at(0), id(*n), addr(*n)));
        }
        nearby
    }

    #[test]
    fn the_higher_joins_the_lowest_after_a_moment() {
        let mut nearby = table(&[7, 3, 9]);
        assert_eq!(nearby.choose(at(0), id(5)), None);
        assert_eq!(nearby.next(id(5)), Some(at(1500)));
        assert_eq!(nearby.choose(at(1500), id(5)), Some(addr(3)));
        assert!(nearby.is_trying(at(1500)));
        assert_eq!(nearby.choose(at(1501), id(5)), None);
    }

    #[test]
    fn the_lowest_waits_and_then_joins_who_does_not_come() {
        let mut nearby = table(&[7, 9]);
        assert_eq!(nearby.next(id(1)), Some(at(6000)));
        assert_eq!(nearby.choose(at(5999), id(1)), None);
        assert_eq!(nearby.choose(at(6000), id(1)), Some(addr(7)));
    }

    #[test]
    fn a_dead_one_does_not_hide_the_others_and_is_forgotten() {
        let mut nearby = table(&[1, 2]);
        let asked: Vec<_> = (0..10).filter_map(|n| nearby.choose(at(2000 + n * 3000), id(5))).collect();
        assert_eq!(asked, [1, 2, 1, 2, 1, 2, 1, 2].map(addr));
        assert_eq!(nearby.next(id(5)), None);
        // Found again, at another port: it counts anew.
        assert!(nearby.hear(at(50_000), id(1), addr(3)));
        assert_eq!(nearby.choose(at(51_500), id(5)), Some(addr(3)));
    }

    #[test]
    fn the_table_is_bounded_and_takes_new_addresses() {
        let mut nearby = Nearby::default();
        for n in 0..MAX_NEARBY as u8 {
            assert!(nearby.hear(at(0), id(n), addr(n)));
        }
        assert!(!nearby.hear(at(0), id(200), addr(200)));
        assert!(nearby.hear(at(1), id(0), addr(201)));
        assert_eq!(nearby.peers[&id(0)].addr, addr(201));
    }
}
