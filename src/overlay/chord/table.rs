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
/// So many times the mean distance lies between no two peers of a ring (once in e^16).
const UNLIKELY: u128 = 16;
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
    /// Steps ([`IdSpace::step_start`]) and peers.
    fingers: Vec<(u16, Id)>,
    dead: BTreeMap<Id, Instant>,
    max_successors: usize,
    max_predecessors: usize,
    cache: usize,
    width: u8,
    locality: bool,
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
            width: config.finger_width.clamp(1, 4),
            locality: config.locality,
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
    /// True when it is known and says another address than before.
    pub fn heard(&mut self, peer: PeerRef, now: Instant) -> bool {
        self.dead.remove(&peer.id);
        if let Some(contact) = self.contacts.get_mut(&peer.id) {
            contact.heard = now;
            contact.misses = 0;
            if contact.addr != peer.addr {
                contact.addr = peer.addr;
                contact.reached = false;
                return true;
            }
        }
        false
    }

    /// Takes a peer out of every table; true when it was a neighbour.
    pub fn remove(&mut self, id: &Id, now: Instant) -> Option<(PeerRef, bool)> {
        self.bury(id, now);
        let contact = self.contacts.remove(id)?;
        let before = self.predecessors.len() + self.successors.len();
        self.predecessors.retain(|p| p != id);
        self.successors.retain(|s| s != id);
        self.fingers.retain(|(_, f)| f != id);
        let neighbour = self.predecessors.len() + self.successors.len() != before;
        Some((PeerRef { id: *id, addr: contact.addr }, neighbour))
    }

    /// Sets the predecessor. Those before it are whom this peer has reached itself; the others that are named, and known
    /// ones that are passed over, come back to be asked. True when the predecessor changed.
    pub fn set_predecessor(&mut self, peer: PeerRef, before: &[PeerRef], now: Instant) -> (bool, Vec<PeerRef>) {
        let old = self.predecessors.first().copied();
        self.tell(&[peer], now);
        let mut known: Vec<Id> = self.predecessors.iter().copied().filter(|p| *p != peer.id).collect();
        let behind = |id: &Id| self.space.in_open(id, &self.me.id, &peer.id);
        known.retain(behind);
        let named: Vec<PeerRef> = before
            .iter()
            .filter(|p| behind(&p.id) && !self.buried(&p.id, now))
            .take(self.max_predecessors)
            .copied()
            .collect();
        let mut ask = self.passed_over(&known, &named, |t, id| t.space.distance(id, &t.me.id));
        known.extend(named.iter().filter(|p| self.is_reached(&p.id)).map(|p| p.id));
        known.sort_by_key(|p| self.space.distance(p, &self.me.id));
        known.dedup();
        known.insert(0, peer.id);
        known.truncate(self.max_predecessors);
        self.predecessors = known;
        ask.extend(named.into_iter().filter(|p| !self.is_reached(&p.id)));
        (old != Some(peer.id), ask)
    }

    /// Sets the successor list: `first`, and of the others whom this peer has reached itself. Known ones stay; those that are
    /// passed over, and those only named, come back to be asked. True when the list changed.
    pub fn adopt_successors(&mut self, first: PeerRef, rest: &[PeerRef], now: Instant) -> (bool, Vec<PeerRef>) {
        self.tell(&[first], now);
        let fits = |id: &Id| *id != self.me.id && *id != first.id && !self.buried(id, now);
        let known: Vec<Id> = self.successors.iter().copied().filter(|id| fits(id)).collect();
        let named: Vec<PeerRef> = rest.iter().filter(|p| fits(&p.id)).take(self.max_successors).copied().collect();
        let mut ask = self.passed_over(&known, &named, |t, id| t.space.distance(&t.me.id, id));
        let mut list = known;
        list.push(first.id);
        list.extend(named.iter().filter(|p| self.is_reached(&p.id)).map(|p| p.id));
        list.sort_by_key(|p| self.space.distance(&self.me.id, p));
        list.dedup();
        list.truncate(self.max_successors);
        let last = list.last().filter(|_| list.len() >= self.max_successors).copied();
        ask.extend(named.into_iter().filter(|p| {
            !self.is_reached(&p.id) && last.is_none_or(|last| self.space.in_open(&p.id, &self.me.id, &last))
        }));
        (self.replace_successors(list), ask)
    }

    /// Sets the successor list as it is said; true when it changed.
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
        self.tell(&kept, now);
        self.replace_successors(kept.iter().map(|p| p.id).collect())
    }

    /// A peer that answered takes its place among the neighbours, behind the first of each side: a new first one makes itself
    /// known. True when the lists changed.
    pub fn place(&mut self, id: &Id) -> bool {
        let (space, me) = (self.space, self.me.id);
        let mut changed = false;
        if let (Some(first), false) = (self.predecessors.first(), self.predecessors.contains(id))
            && space.in_open(id, &me, first)
        {
            let at = self.predecessors.partition_point(|p| space.distance(p, &me) < space.distance(id, &me));
            self.predecessors.insert(at, *id);
            self.predecessors.truncate(self.max_predecessors);
            changed |= self.predecessors.contains(id);
        }
        if let (Some(first), false) = (self.successors.first(), self.successors.contains(id))
            && space.in_open(id, first, &me)
        {
            let mut list = self.successors.clone();
            let at = list.partition_point(|p| space.distance(&me, p) < space.distance(&me, id));
            list.insert(at, *id);
            list.truncate(self.max_successors);
            changed |= self.replace_successors(list);
        }
        changed
    }

    /// Known peers within the reach of `named` that it does not name.
    fn passed_over(&self, known: &[Id], named: &[PeerRef], far: impl Fn(&Table, &Id) -> Id) -> Vec<PeerRef> {
        let reach = named.iter().map(|p| far(self, &p.id)).max();
        let missing = known.iter().filter(|id| Some(far(self, id)) < reach && !named.iter().any(|p| p.id == **id));
        missing.filter_map(|id| self.peer(id)).collect()
    }

    fn replace_successors(&mut self, list: Vec<Id>) -> bool {
        let changed = list != self.successors;
        self.successors = list;
        if changed {
            self.drop_covered_fingers();
        }
        changed
    }

    /// `peer` is the first peer at or after the start of finger `step`; `None` when that is this peer.
    pub fn set_finger(&mut self, step: u16, peer: Option<Id>) {
        self.fingers.retain(|(s, f)| *s != step && Some(*f) != peer);
        if let Some(peer) = peer
            && !self.successors.contains(&peer)
            && self.contacts.contains_key(&peer)
        {
            let at = self.fingers.partition_point(|(s, _)| *s < step);
            self.fingers.insert(at, (step, peer));
        }
        // A row whose interval begins before the peer of an earlier row says nothing of its own.
        let (space, me, width) = (self.space, self.me.id, self.width);
        let mut reach: Option<Id> = None;
        self.fingers.retain(|(s, f)| {
            let start = space.step_start(&me, width, *s).unwrap_or(me);
            let redundant = reach.is_some_and(|r| space.in_open_closed(&start, &me, &r));
            if !redundant {
                reach = Some(*f);
            }
            !redundant
        });
    }

    /// Where finger `step` begins; `None` beyond the circle.
    pub fn step_start(&self, step: u16) -> Option<Id> {
        self.space.step_start(&self.me.id, self.width, step)
    }

    /// The lowest step at or above `from` whose interval begins beyond what the successors and the finger found
    /// last cover.
    pub fn next_step(&self, from: u16, covered: Option<Id>) -> Option<u16> {
        let far = covered.or_else(|| self.successors.last().copied())?;
        (from..self.space.steps(self.width)).find(|step| {
            self.step_start(*step).is_some_and(|start| !self.space.in_open_closed(&start, &self.me.id, &far))
        })
    }

    /// No finger from `step` on: the circle leads home from there.
    pub fn clear_fingers_from(&mut self, step: u16) {
        self.fingers.retain(|(s, _)| *s < step);
    }

    /// The fingers' peers become these: (step, peer) in order. True when they changed.
    pub fn set_fingers(&mut self, rows: Vec<(u16, PeerRef)>, now: Instant) -> bool {
        let list: Vec<(u16, Id)> = rows.iter().map(|(s, p)| (*s, p.id)).collect();
        let changed = list != self.fingers;
        for (_, peer) in rows {
            self.tell(&[peer], now);
        }
        self.fingers = list;
        changed
    }

    /// It has answered this peer.
    pub fn is_reached(&self, id: &Id) -> bool {
        self.contacts.get(id).is_some_and(|c| c.reached)
    }

    /// It did not answer, and is not believed in for a while.
    pub fn bury(&mut self, id: &Id, now: Instant) {
        self.dead.retain(|_, since| now.since(*since) < BURIED);
        if self.dead.len() >= GRAVES {
            self.dead.pop_first();
        }
        self.dead.insert(*id, now);
    }

    /// Somebody to be asked whether it is there.
    pub fn told(&mut self, peer: PeerRef, now: Instant) {
        if peer.id != self.me.id {
            self.tell(&[peer], now);
        }
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
        let exponent = |step: u16| self.space.step_exponent(self.width, step);
        self.fingers.iter().filter_map(|(s, id)| Some((exponent(*s)?, self.peer(id)?))).collect()
    }

    /// The peer that finger `exponent` points to; this peer itself where the whole ring lies before it.
    pub fn finger(&self, exponent: u8) -> PeerRef {
        self.covering(&self.space.finger_start(&self.me.id, exponent))
    }

    /// The first of the tables at or after `start`; this peer itself where the whole ring lies before it.
    pub fn covering(&self, start: &Id) -> PeerRef {
        let covers = |id: &&Id| self.space.in_open_closed(start, &self.me.id, id);
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
                let exponent = |step: u16| self.space.step_exponent(self.width, step);
                self.fingers.iter().filter_map(|(s, id)| Some((exponent(*s)?, known(id)?))).collect()
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
        for (step, f) in &self.fingers {
            let Some(start) = self.step_start(*step) else { continue };
            if fit(f)
                && self.space.in_open_closed(target, &me, f)
                && self.space.distance(&me, &start) <= self.space.distance(&me, target)
            {
                return self.peer(f);
            }
        }
        let behind = self.contacts.range(..*target).rev().chain(self.contacts.range(*target..).rev());
        let mut before =
            behind.map(|(id, _)| id).take_while(|id| self.space.in_open(id, &me, target)).filter(|id| fit(id));
        let closest =
            before.next().map(|first| if self.locality { self.nearest(first, before, target) } else { first });
        closest
            .or_else(|| self.predecessors.first().filter(|p| fit(p)))
            .or_else(|| self.successors.iter().find(|s| fit(s)))
            .and_then(|id| self.peer(id))
    }

    /// Of `first` and those after it that leave nearly as little of the way, the one with the shortest round trip.
    fn nearest<'t>(&self, first: &'t Id, others: impl Iterator<Item = &'t Id>, target: &Id) -> &'t Id {
        let left = |id: &Id| high_bits(&self.space.distance(id, target));
        // A quarter more of what is left: a fraction of a hop.
        let limit = left(first) + left(first) / 4;
        let near = others.take_while(|id| left(id) <= limit).take(8);
        let time = |id: &&Id| self.contacts.get(id).map_or(u32::MAX, |c| if c.srtt == 0 { u32::MAX } else { c.srtt });
        std::iter::once(first).chain(near).min_by_key(time).unwrap_or(first)
    }

    /// Any peer reached, the closest after this one first: where to begin again when all successors are gone.
    pub fn any_reached(&self) -> Option<PeerRef> {
        let after = self.contacts.range(self.me.id..).chain(self.contacts.range(..self.me.id));
        after.filter(|(_, c)| c.reached).map(|(id, c)| PeerRef { id: *id, addr: c.addr }).next()
    }

    /// The ring's size by the distances of those next to this peer; what is known where that is everybody.
    pub fn estimate(&self) -> usize {
        match self.gap() {
            Some(gap) => (u128::MAX >> 2).checked_div(gap).map_or(usize::MAX, |n| n as usize).max(1),
            None => 1 + self.rows().collect::<BTreeSet<_>>().len(),
        }
    }

    /// The mean distance between two peers around here; `None` where too few are known to say.
    fn gap(&self) -> Option<u128> {
        let n = self.successors.len();
        let far = self.successors.last().filter(|_| n >= self.max_successors && n >= 8)?;
        Some(high_bits(&self.space.distance(&self.me.id, far)) / n as u128).filter(|gap| *gap > 0)
    }

    /// A peer that this one has reached and that is nearer to `target` than `owner`, which claims to be responsible.
    pub fn closer_than(&self, owner: &Id, target: &Id) -> Option<PeerRef> {
        if owner == target {
            return None;
        }
        let from = self.contacts.range(target..).chain(self.contacts.range(..target)).map(|(id, _)| id);
        let before = from.take_while(|id| *id == target || self.space.in_open(id, target, owner));
        let mut lives = before.filter(|id| self.contacts.get(id).is_some_and(|c| c.reached && c.misses == 0));
        lives.next().and_then(|id| self.peer(id))
    }

    /// So far from `target` that no ring of this one's density has its responsible peer there.
    pub fn is_too_far(&self, owner: &Id, target: &Id) -> bool {
        owner != target && self.gap().is_some_and(|gap| high_bits(&self.space.distance(target, owner)) / UNLIKELY > gap)
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

/// The upper part of a distance, to compare by.
fn high_bits(distance: &Id) -> u128 {
    // Two bits of room for the sum.
    distance.0[..16].iter().fold(0, |sum, b| sum << 8 | u128::from(*b)) >> 2
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
    fn table(predecessors: &[u64], successors: &[u64], fingers: &[(u16, u64)]) -> Table {
        let config = Config { space: IdSpace::new(8), successors: 3, cache: 2, ..Config::plain() };
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
        assert_eq!(table.next_step(0, None), Some(5));
        assert_eq!(table.next_step(6, Some(Id::from_u64(240))), None);
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
