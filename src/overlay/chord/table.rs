//! The tables: predecessors, successors, fingers, and the peers they name.
//!
//! Fingers are kept as runs: one row for each peer, with the lowest exponent that leads to it. What the successor list
//! covers has no row, so that a ring of a thousand costs about ten rows instead of 160.

use super::Config;
use crate::core::{Id, Instant};
use crate::overlay::{IdSpace, Links, PeerRef};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A failed peer is not believed in on others' word for this long.
const BURIED: Duration = Duration::from_secs(20);
/// A peer heard from within this time is taken to live.
const SILENT: Duration = Duration::from_secs(1);
/// Failed peers remembered.
const GRAVES: usize = 64;
/// Predecessors known beyond what the replicas need.
const SPARE_PREDECESSORS: usize = 1;

/// What is known of a peer.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    pub addr: SocketAddr,
    /// Smoothed round trip in microseconds, 0 when never measured.
    pub srtt: u32,
    /// When it last said something.
    pub heard: Instant,
    /// It has answered a request of ours: only then may it be handed on.
    pub reached: bool,
    /// Deadlines missed since it last said something.
    pub misses: u8,
    /// The request for a sign of life that is awaited.
    pub probe: Option<u64>,
}

pub(super) struct Table {
    pub me: PeerRef,
    space: IdSpace,
    contacts: BTreeMap<Id, Contact>,
    predecessors: Vec<Id>,
    successors: Vec<Id>,
    fingers: Vec<(u8, Id)>,
    dead: BTreeMap<Id, Instant>,
    max_successors: usize,
    max_predecessors: usize,
    cache: usize,
}

impl Table {
    pub fn new(me: PeerRef, config: &Config) -> Table {
        Table {
            me,
            space: config.space,
            contacts: BTreeMap::new(),
            predecessors: Vec::new(),
            successors: Vec::new(),
            fingers: Vec::new(),
            dead: BTreeMap::new(),
            max_successors: config.successors.max(1),
            max_predecessors: config.successor_replicas + 1 + SPARE_PREDECESSORS,
            cache: config.cache,
        }
    }

    /// A peer answered us. True when it had not been reached before.
    pub fn reached(&mut self, peer: PeerRef, round_trip: Option<Duration>, now: Instant) -> bool {
        if peer.id == self.me.id {
            return false;
        }
        self.dead.remove(&peer.id);
        let contact = self.contacts.entry(peer.id).or_insert_with(|| Contact::told(peer.addr, now));
        contact.addr = peer.addr;
        contact.heard = now;
        contact.misses = 0;
        contact.probe = None;
        if let Some(d) = round_trip {
            let sample = u32::try_from(d.as_micros()).unwrap_or(u32::MAX).max(1);
            contact.srtt = if contact.srtt == 0 { sample } else { contact.srtt - contact.srtt / 8 + sample / 8 };
        }
        !std::mem::replace(&mut contact.reached, true)
    }

    /// A peer asked us something over a proven link.
    pub fn heard(&mut self, peer: PeerRef, now: Instant) {
        self.dead.remove(&peer.id);
        if let Some(contact) = self.contacts.get_mut(&peer.id) {
            contact.heard = now;
            contact.misses = 0;
            if contact.addr != peer.addr {
                contact.addr = peer.addr;
                contact.reached = false;
            }
        }
    }

    /// Takes a peer out of every table; true when it was a neighbour.
    pub fn remove(&mut self, id: &Id, now: Instant) -> Option<(PeerRef, bool)> {
        self.dead.retain(|_, since| now.since(*since) < BURIED);
        if self.dead.len() >= GRAVES {
            self.dead.pop_first();
        }
        self.dead.insert(*id, now);
        let contact = self.contacts.remove(id)?;
        let before = self.predecessors.len() + self.successors.len();
        self.predecessors.retain(|p| p != id);
        self.successors.retain(|s| s != id);
        self.fingers.retain(|(_, f)| f != id);
        let neighbour = self.predecessors.len() + self.successors.len() != before;
        Some((PeerRef { id: *id, addr: contact.addr }, neighbour))
    }

    /// Sets the predecessor; those before it follow from what it says. True when it changed.
    pub fn set_predecessor(&mut self, peer: PeerRef, before: &[PeerRef], now: Instant) -> bool {
        let old = self.predecessors.first().copied();
        let mut list = vec![peer];
        for p in before {
            let last = list.last().map_or(self.me.id, |l| l.id);
            // Each further one lies behind the last and has not gone round.
            if list.len() < self.max_predecessors
                && self.space.in_open(&p.id, &self.me.id, &last)
                && !self.buried(&p.id, now)
            {
                list.push(*p);
            }
        }
        self.predecessors = list.iter().map(|p| p.id).collect();
        self.tell(&list, now);
        old != Some(peer.id)
    }

    /// Sets the successor list; true when it changed.
    pub fn set_successors(&mut self, list: &[PeerRef], now: Instant) -> bool {
        let mut kept: Vec<PeerRef> = Vec::with_capacity(self.max_successors);
        for p in list {
            let last = kept.last().map_or(self.me.id, |l| l.id);
            if kept.len() < self.max_successors
                && self.space.in_open(&p.id, &last, &self.me.id)
                && !self.buried(&p.id, now)
            {
                kept.push(*p);
            }
        }
        let ids: Vec<Id> = kept.iter().map(|p| p.id).collect();
        let changed = ids != self.successors;
        self.successors = ids;
        self.tell(&kept, now);
        if changed {
            self.drop_covered_fingers();
        }
        changed
    }

    /// `peer` is the first peer at or after the start of finger `exponent`; `None` when that is this peer.
    pub fn set_finger(&mut self, exponent: u8, peer: Option<Id>) {
        self.fingers.retain(|(e, f)| *e != exponent && Some(*f) != peer);
        if let Some(peer) = peer
            && !self.successors.contains(&peer)
            && self.contacts.contains_key(&peer)
        {
            let at = self.fingers.partition_point(|(e, _)| *e < exponent);
            self.fingers.insert(at, (exponent, peer));
        }
        // A row whose interval begins before the peer of an earlier row says nothing of its own.
        let (space, me) = (self.space, self.me.id);
        let mut reach: Option<Id> = None;
        self.fingers.retain(|(e, f)| {
            let redundant = reach.is_some_and(|r| space.in_open_closed(&space.finger_start(&me, *e), &me, &r));
            if !redundant {
                reach = Some(*f);
            }
            !redundant
        });
    }

    /// The lowest exponent at or above `from` whose interval begins beyond what the successors and the finger found
    /// last cover.
    pub fn next_exponent(&self, from: u8, covered: Option<Id>) -> Option<u8> {
        let far = covered.or_else(|| self.successors.last().copied())?;
        (from..self.space.bits())
            .find(|e| !self.space.in_open_closed(&self.space.finger_start(&self.me.id, *e), &self.me.id, &far))
    }

    /// Peers beyond the cache's size, in no table, least recently heard first: forgotten.
    pub fn evict(&mut self) -> Vec<PeerRef> {
        let rows = self.predecessors.len() + self.successors.len() + self.fingers.len();
        if self.contacts.len() <= rows.max(1) + self.cache {
            return Vec::new();
        }
        let tables: BTreeSet<Id> = self.rows().collect();
        let mut spare: Vec<(Instant, Id)> =
            self.contacts.iter().filter(|(id, _)| !tables.contains(id)).map(|(id, c)| (c.heard, *id)).collect();
        spare.sort_unstable();
        let surplus = spare.len().saturating_sub(self.cache);
        spare.truncate(surplus);
        spare
            .into_iter()
            .filter_map(|(_, id)| self.contacts.remove(&id).map(|c| PeerRef { id, addr: c.addr }))
            .collect()
    }

    /// Forgets everything but who this is.
    pub fn clear(&mut self) {
        self.contacts.clear();
        self.predecessors.clear();
        self.successors.clear();
        self.fingers.clear();
    }

    /// True when the peer is still believed in.
    pub fn contacts_contain(&self, id: Option<&Id>) -> bool {
        id.is_some_and(|id| self.contacts.contains_key(id))
    }

    pub fn contact(&self, id: &Id) -> Option<&Contact> {
        self.contacts.get(id)
    }

    pub fn contact_mut(&mut self, id: &Id) -> Option<&mut Contact> {
        self.contacts.get_mut(id)
    }

    pub fn buried(&self, id: &Id, now: Instant) -> bool {
        self.dead.get(id).is_some_and(|since| now.since(*since) < BURIED)
    }

    pub fn peer(&self, id: &Id) -> Option<PeerRef> {
        self.contacts.get(id).map(|c| PeerRef { id: *id, addr: c.addr })
    }

    pub fn predecessor(&self) -> Option<PeerRef> {
        self.predecessors.first().and_then(|id| self.peer(id))
    }

    pub fn predecessors(&self) -> &[Id] {
        &self.predecessors
    }

    pub fn successor(&self) -> Option<PeerRef> {
        self.successors.first().and_then(|id| self.peer(id))
    }

    pub fn successors(&self) -> Vec<PeerRef> {
        self.successors.iter().filter_map(|id| self.peer(id)).collect()
    }

    pub fn finger_rows(&self) -> Vec<(u8, PeerRef)> {
        self.fingers.iter().filter_map(|(e, id)| Some((*e, self.peer(id)?))).collect()
    }

    /// The peer that finger `exponent` points to; this peer itself where the whole ring lies before it.
    pub fn finger(&self, exponent: u8) -> PeerRef {
        let start = self.space.finger_start(&self.me.id, exponent);
        let covers = |id: &&Id| self.space.in_open_closed(&start, &self.me.id, id);
        let found = self.successors.iter().find(covers).or_else(|| self.fingers.iter().map(|(_, f)| f).find(covers));
        found.and_then(|id| self.peer(id)).unwrap_or(self.me)
    }

    /// Everybody in a table, a peer in two of them twice.
    pub fn rows(&self) -> impl Iterator<Item = Id> {
        self.predecessors.iter().chain(&self.successors).copied().chain(self.fingers.iter().map(|(_, f)| *f))
    }

    /// The peer of the tables that has been silent the longest, if for longer than `limit`; those never reached first.
    pub fn quietest(&self, limit: Duration, now: Instant) -> Option<PeerRef> {
        let quiet = |id: &Id| {
            let c = self.contacts.get(id)?;
            let due = c.probe.is_none() && (!c.reached || now.since(c.heard) >= limit);
            due.then_some((c.reached, c.heard, *id))
        };
        self.rows().filter_map(|id| quiet(&id)).min().and_then(|(_, _, id)| self.peer(&id))
    }

    /// Neighbours as they are told to others: only peers that we have reached ourselves.
    pub fn links(&self, successors: usize, fingers: bool) -> Links {
        let known = |id: &Id| self.contacts.get(id).filter(|c| c.reached).map(|c| PeerRef { id: *id, addr: c.addr });
        Links {
            predecessors: self.predecessors.iter().map_while(known).collect(),
            // Who is alone is its own successor.
            successors: match &self.successors[..] {
                [] => vec![self.me],
                list => list.iter().filter_map(known).take(successors).collect(),
            },
            fingers: if fingers {
                self.fingers.iter().filter_map(|(e, id)| Some((*e, known(id)?))).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// True when this peer is responsible for `target`, as far as it knows.
    pub fn is_responsible(&self, target: &Id) -> bool {
        if *target == self.me.id {
            return true;
        }
        match self.predecessors.first() {
            Some(p) => self.space.in_open_closed(target, p, &self.me.id),
            // Without a predecessor: unless somebody known lies between the target and this peer.
            None => !self.contacts.contains_key(target) && self.may_precede(target),
        }
    }

    /// True when a peer at `id` would come right before this one, as far as it knows.
    pub fn may_precede(&self, id: &Id) -> bool {
        match self.predecessors.first() {
            Some(p) => self.space.in_open(id, p, &self.me.id),
            None => !self.contacts.iter().any(|(c, known)| known.reached && self.space.in_open(c, id, &self.me.id)),
        }
    }

    /// True when this peer is responsible for `target` or holds one of its successor replicas, as far as it knows.
    pub fn is_replica(&self, target: &Id, successor_replicas: usize) -> bool {
        match self.predecessors.get(successor_replicas) {
            Some(p) => self.space.in_open_closed(target, p, &self.me.id),
            // The list is shorter than the replicas are many: this end of the ring is not known well enough to say no,
            // unless there are no replicas.
            None => successor_replicas > 0 || self.is_responsible(target),
        }
    }

    /// The predecessor that is responsible for `target`, where the list reaches back that far.
    pub fn owner_before(&self, target: &Id) -> Option<Id> {
        let pair = self.predecessors.windows(2).find(|p| self.space.in_open_closed(target, &p[1], &p[0]));
        pair.map(|p| p[0])
    }

    /// The peers between `id` and this one that have been silent for a while, when there is no predecessor.
    pub fn between(&self, id: &Id, now: Instant) -> Vec<PeerRef> {
        if !self.predecessors.is_empty() {
            return Vec::new();
        }
        let within = self.contacts.iter().filter(|(c, known)| {
            known.reached && now.since(known.heard) > SILENT && self.space.in_open(c, id, &self.me.id)
        });
        within.map(|(c, known)| PeerRef { id: *c, addr: known.addr }).collect()
    }

    /// The peer to ask about `target` next: the responsible one if it is in sight, else the closest that precedes it.
    /// `skip` says who is not to be named.
    pub fn next_hop(&self, target: &Id, skip: impl Fn(&Id) -> bool) -> Option<PeerRef> {
        let fit = |id: &Id| self.contacts.get(id).is_some_and(|c| c.reached && c.misses == 0) && !skip(id);
        let me = self.me.id;
        if fit(target) {
            return self.peer(target);
        }
        if let Some(s) = self.successors.iter().filter(|s| fit(s)).find(|s| self.space.in_open_closed(target, &me, s)) {
            return self.peer(s);
        }
        for pair in self.predecessors.windows(2) {
            if fit(&pair[0]) && self.space.in_open_closed(target, &pair[1], &pair[0]) {
                return self.peer(&pair[0]);
            }
        }
        for (e, f) in &self.fingers {
            let start = self.space.finger_start(&me, *e);
            if fit(f)
                && self.space.in_open_closed(target, &me, f)
                && self.space.distance(&me, &start) <= self.space.distance(&me, target)
            {
                return self.peer(f);
            }
        }
        let behind = self.contacts.range(..*target).rev().chain(self.contacts.range(*target..).rev());
        behind
            .map(|(id, _)| id)
            .take_while(|id| self.space.in_open(id, &me, target))
            .find(|id| fit(id))
            .or_else(|| self.predecessors.first().filter(|p| fit(p)))
            .or_else(|| self.successors.iter().find(|s| fit(s)))
            .and_then(|id| self.peer(id))
    }

    /// Any peer reached, the closest after this one first: where to begin again when all successors are gone.
    pub fn any_reached(&self) -> Option<PeerRef> {
        let after = self.contacts.range(self.me.id..).chain(self.contacts.range(..self.me.id));
        after.filter(|(_, c)| c.reached).map(|(id, c)| PeerRef { id: *id, addr: c.addr }).next()
    }

    fn tell(&mut self, peers: &[PeerRef], now: Instant) {
        for p in peers {
            self.contacts.entry(p.id).or_insert_with(|| Contact::told(p.addr, now));
        }
    }

    fn drop_covered_fingers(&mut self) {
        let successors = &self.successors;
        self.fingers.retain(|(_, f)| !successors.contains(f));
    }
}

impl Contact {
    fn told(addr: SocketAddr, now: Instant) -> Contact {
        Contact { addr, srtt: 0, heard: now, reached: false, misses: 0, probe: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u64) -> PeerRef {
        PeerRef { id: Id::from_u64(n), addr: SocketAddr::from(([192, 0, 2, n as u8], 5060)) }
    }

    /// Peer 100 of an 8-bit ring, with these reached peers in its tables.
    fn table(predecessors: &[u64], successors: &[u64], fingers: &[(u8, u64)]) -> Table {
        let config = Config { space: IdSpace::new(8), successors: 3, cache: 2, ..Config::default() };
        let mut table = Table::new(peer(100), &config);
        for n in predecessors.iter().chain(successors).chain(fingers.iter().map(|(_, n)| n)) {
            assert!(table.reached(peer(*n), Some(Duration::from_millis(1)), Instant::ZERO));
        }
        let list: Vec<PeerRef> = predecessors.iter().map(|n| peer(*n)).collect();
        if let Some((first, rest)) = list.split_first() {
            table.set_predecessor(*first, rest, Instant::ZERO);
        }
        table.set_successors(&successors.iter().map(|n| peer(*n)).collect::<Vec<_>>(), Instant::ZERO);
        for (e, n) in fingers {
            table.set_finger(*e, Some(Id::from_u64(*n)));
        }
        table
    }

    #[test]
    fn the_next_hop_is_the_responsible_peer_where_it_is_in_sight() {
        let table = table(&[95, 90, 80], &[105, 110, 120], &[(5, 150), (6, 180), (7, 240)]);
        let next = |t| table.next_hop(&Id::from_u64(t), |_| false).map(|p| p.id);
        for (target, expected) in [
            (101, 105), // successors
            (107, 110),
            (93, 95), // predecessors
            (82, 90),
            (140, 150), // beyond 100 + 32, where finger 5 begins
            (125, 120), // between the last successor and that: the closest before it
            (160, 150),
            (170, 180), // from 164 on
            (230, 240), // from 228 on
            (20, 240),
            (240, 240), // itself
        ] {
            assert_eq!(next(target), Some(Id::from_u64(expected)), "{target}");
        }
        let without = |t, dead| table.next_hop(&Id::from_u64(t), |id| *id == Id::from_u64(dead)).map(|p| p.id);
        assert_eq!(without(101, 105), Some(Id::from_u64(110)));
        assert_eq!(without(230, 240), Some(Id::from_u64(180)));
    }

    #[test]
    fn who_was_only_told_is_not_named() {
        let mut table = table(&[], &[], &[]);
        table.set_successors(&[peer(105), peer(110)], Instant::ZERO);
        table.set_predecessor(peer(90), &[peer(80)], Instant::ZERO);
        assert_eq!(table.next_hop(&Id::from_u64(103), |_| false), None);
        assert_eq!(table.links(8, true), Links::default());
        table.reached(peer(110), None, Instant::ZERO);
        assert_eq!(table.next_hop(&Id::from_u64(103), |_| false), Some(peer(110)));
        assert_eq!(table.links(8, true).successors, [peer(110)]);
        // A predecessor of which the first is unknown would be named as the first: none is.
        table.reached(peer(80), None, Instant::ZERO);
        assert_eq!(table.links(8, true).predecessors, []);
        // Where it moved to, it has not been reached.
        table.heard(PeerRef { addr: peer(7).addr, ..peer(110) }, Instant::ZERO);
        assert_eq!(table.links(8, true).successors, []);
    }

    #[test]
    fn fingers_are_runs() {
        let mut table = table(&[], &[105, 110, 120], &[(5, 150), (6, 180), (7, 240)]);
        let fingers: Vec<u64> =
            (0..8).map(|e| u64::from(*table.finger(e).id.0.last().expect("twenty bytes"))).collect();
        assert_eq!(fingers, [105, 105, 105, 110, 120, 150, 180, 240]);
        assert_eq!(table.next_exponent(0, None), Some(5));
        assert_eq!(table.next_exponent(6, Some(Id::from_u64(240))), None);
        // A peer that enters at 200 takes over nobody's interval, one at 170 that of finger 6.
        table.reached(peer(170), None, Instant::ZERO);
        table.set_finger(6, Some(Id::from_u64(170)));
        assert_eq!(table.finger(6), peer(170));
        // 180 is in no table any more, and stays within the cache.
        assert_eq!(table.evict(), []);
        table.remove(&Id::from_u64(170), Instant::ZERO);
        assert_eq!(table.finger(6), peer(240));
    }

    #[test]
    fn replicas_reach_back_three_predecessors() {
        let table = table(&[95, 90, 80, 70], &[105], &[]);
        let holds = |t| table.is_replica(&Id::from_u64(t), 2);
        assert_eq!([100, 95, 85, 81, 80, 75, 101].map(holds), [true, true, true, true, false, false, false]);
        assert!(table.is_responsible(&Id::from_u64(96)) && !table.is_responsible(&Id::from_u64(95)));
    }

    #[test]
    fn the_failed_are_not_believed_in_for_a_while() {
        let mut table = table(&[90], &[105, 110], &[]);
        let now = Instant::from_millis(1000);
        assert_eq!(table.remove(&Id::from_u64(105), now), Some((peer(105), true)));
        table.set_successors(&[peer(105), peer(110)], now);
        assert_eq!(table.successors(), [peer(110)]);
        // Itself it is believed.
        table.heard(peer(105), now);
        table.set_successors(&[peer(105), peer(110)], now);
        assert_eq!(table.successors(), [peer(105), peer(110)]);
    }
}
