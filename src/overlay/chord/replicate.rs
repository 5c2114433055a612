//! Records where they belong: hand-over to a peer that joins, replicas on the successors, the scattered replica, what lies in
//! the wrong place, and the end of lifetimes.
//!
//! A copy is sent as a store of the whole resource and is harmless where it is known already. Nothing is dropped here
//! before another holder has acknowledged it, unless its lifetime is over.

use super::lookup::Goal;
use super::rpc::Why;
use super::store::Slot;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Failure, Mode, PeerRef, Request, Response, Route};
use std::time::Duration;

/// Copies on their way at once.
const WINDOW: usize = 8;
/// What was sent here is kept for this long, whether it belongs here or not.
const SETTLED: Duration = Duration::from_secs(60);
/// Placements begun in one look over the records.
const PLACEMENTS: usize = 4;
/// How long a replica waits for the responsible peer to show that it has the record, before giving it to it. Longer than
/// that one takes to look after its replicas.
const DOUBTFUL: Duration = Duration::from_secs(3);
/// A predecessor is new for this long: who handed over to this peer may not know of it, and what arrives is passed on.
const NEW: Duration = Duration::from_secs(5);

impl Chord {
    /// `new` is the predecessor now, in place of `old`: what lies between the two is its to hold.
    pub(super) fn hand_over(&mut self, now: Instant, old: Option<PeerRef>, new: PeerRef) {
        let from = old.map_or(self.table.me.id, |p| p.id);
        let space = self.config.space;
        let slots: Vec<Slot> = self
            .store
            .slots()
            .map(|(slot, _)| *slot)
            .filter(|(key, n)| space.in_open_closed(&space.replica_position(key, *n), &from, &new.id))
            .collect();
        if slots.is_empty() && self.table.contact(&new.id).is_none_or(|c| !c.reached) {
            // Nothing to say to it, but it may be named to others only once it has answered.
            self.probe(now, new);
        }
        for slot in slots {
            self.pushes.insert((new.id, slot));
        }
        self.pump(now);
    }

    /// Before leaving: all that this peer is responsible for goes to the successor.
    pub(super) fn push_everything(&mut self, now: Instant) {
        let Some(successor) = self.table.successor() else { return };
        let space = self.config.space;
        let slots: Vec<Slot> = self
            .store
            .slots()
            .map(|(slot, _)| *slot)
            .filter(|(key, n)| self.table.is_responsible(&space.replica_position(key, *n)))
            .collect();
        self.pushes.clear();
        self.pushes.extend(slots.into_iter().map(|slot| (successor.id, slot)));
        self.pump(now);
    }

    pub(super) fn on_maintain(&mut self, now: Instant) {
        if self.state != State::Joined {
            return;
        }
        let wait = self.about(self.config.maintain);
        self.timers.set(Timer::Maintain, now + wait);
        self.look_for_others(now);
        self.counters.expired += self.store.expire(now);
        self.keep_time(now);
        let holders: Vec<Id> =
            self.table.successors().iter().take(self.config.successor_replicas).map(|s| s.id).collect();
        let space = self.config.space;
        let slots: Vec<Slot> = self.store.slots().map(|(slot, _)| *slot).collect();
        let (mut placements, mut unsure) = (Vec::new(), false);
        for slot in slots {
            let position = space.replica_position(&slot.0, slot.1);
            let responsible = self.table.is_responsible(&position);
            let replica = slot.1 == 0 && self.table.is_replica(&position, self.config.successor_replicas);
            let owner = self.table.owner_before(&position);
            let Some(resource) = self.store.resource_mut(&slot) else { continue };
            if responsible {
                (resource.confirmed, resource.doubtful) = (None, None);
                if slot.1 > 0 {
                    continue;
                }
                resource.placed.retain(|p| holders.iter().any(|h| short(h) == *p));
                for holder in holders.iter().filter(|h| !resource.placed.contains(&short(h))) {
                    self.pushes.insert((*holder, slot));
                }
                if self.config.scattered
                    && now >= resource.scatter
                    && !holders.is_empty()
                    && placements.len() < PLACEMENTS
                {
                    resource.scatter = now + self.config.scatter;
                    placements.push(((slot.0, 1), false));
                }
                continue;
            }
            resource.placed.clear();
            // Whoever hands over may have gone, or known less than the whole way: each holder sees to it that the
            // responsible peer has what it has.
            let confirmed = match owner {
                Some(owner) if replica => resource.confirmed == Some(short(&owner)),
                _ => resource.confirmed.is_some(),
            };
            if confirmed {
                resource.doubtful = None;
            }
            let doubtful = !confirmed && now.since(*resource.doubtful.get_or_insert(now)) >= DOUBTFUL;
            unsure |= !confirmed;
            match owner {
                Some(owner) if doubtful && replica => {
                    self.pushes.insert((owner, slot));
                }
                _ if replica => {}
                _ if placements.len() < PLACEMENTS && (doubtful || now.since(resource.sent) >= SETTLED) => {
                    placements.push((slot, true));
                }
                _ => {}
            }
        }
        if unsure {
            self.sooner(Timer::Maintain, now + DOUBTFUL);
        }
        for (slot, drop) in placements {
            // A scattered copy is made from the resource itself, a misplaced one from what lies here.
            let source = if drop { slot } else { (slot.0, 0) };
            let entries = self.store.get(&source, now);
            let placing = |op: &super::Op| matches!(&op.goal, Goal::Place { slot: s, .. } if *s == slot);
            if !entries.is_empty() && !self.ops.values().any(|op| placing(op)) {
                let target = space.replica_position(&slot.0, slot.1);
                self.start(now, Goal::Place { slot, entries, parent: None, drop }, target, Mode::Iterative);
            }
        }
        self.pump(now);
    }

    pub(super) fn on_pushed(&mut self, now: Instant, to: PeerRef, slot: Slot, response: Option<Response>) {
        self.pushing = self.pushing.saturating_sub(1);
        match response {
            Some(Response::Stored { .. }) => {
                if let Some(resource) = self.store.resource_mut(&slot)
                    && !resource.placed.contains(&short(&to.id))
                {
                    resource.placed.push(short(&to.id));
                }
                self.confirm(&slot, &to.id);
                self.drop_foreign(now, &slot);
            }
            // It knows better: so shall we.
            Some(Response::Refused { current }) => {
                self.keep(now, slot.0, slot.1, &current, None);
                if let Some(resource) = self.store.resource_mut(&slot) {
                    resource.placed.push(short(&to.id));
                }
                self.confirm(&slot, &to.id);
            }
            // It is missed when the records are looked through.
            Some(Response::Failed(Failure::NotInRing)) | None => {
                self.sooner(Timer::Maintain, now + self.config.stabilise_min * 4);
            }
            Some(_) => {}
        }
        self.pump(now);
        self.say_farewell(now);
    }

    /// `from` has sent these entries and holds them.
    pub(super) fn shown(&mut self, now: Instant, from: &Id, slot: Slot, entries: usize) {
        if self.store.resource_mut(&slot).is_some_and(|r| r.len() <= entries) {
            self.confirm(&slot, from);
        }
        // It was on its way when the predecessor came, and is that one's.
        if now.since(self.predecessor_since) < NEW
            && let Some(p) = self.table.predecessor()
            && p.id != *from
            && self.table.owner_before(&self.config.space.replica_position(&slot.0, slot.1)) == Some(p.id)
        {
            self.pushes.insert((p.id, slot));
            self.pump(now);
        }
    }

    /// The peer holds what is held here; that counts when it is the responsible one.
    pub(super) fn confirm(&mut self, slot: &Slot, peer: &Id) {
        let position = self.config.space.replica_position(&slot.0, slot.1);
        if self.table.owner_before(&position) == Some(*peer)
            && let Some(resource) = self.store.resource_mut(slot)
        {
            (resource.confirmed, resource.doubtful) = (Some(short(peer)), None);
        }
    }

    /// The peer responsible for the slot's position was found and has taken it.
    pub(super) fn confirm_placed(&mut self, slot: &Slot, peer: &Id) {
        if let Some(resource) = self.store.resource_mut(slot) {
            (resource.confirmed, resource.doubtful) = (Some(short(peer)), None);
        }
    }

    /// Forgets a copy that is none of this peer's business.
    pub(super) fn drop_foreign(&mut self, now: Instant, slot: &Slot) {
        let position = self.config.space.replica_position(&slot.0, slot.1);
        let ours = self.table.is_responsible(&position)
            || slot.1 == 0 && self.table.is_replica(&position, self.config.successor_replicas);
        // Who sent it may know the neighbours better than this peer.
        let settled = |sent: Instant| now.since(sent) >= SETTLED || self.config.successor_replicas == 0;
        if !ours && self.store.resource_mut(slot).is_some_and(|r| settled(r.sent)) {
            self.store.remove(slot);
        }
    }

    fn pump(&mut self, now: Instant) {
        while self.pushing < WINDOW {
            let Some((to, slot)) = self.pushes.pop_first() else { break };
            let entries = self.store.get(&slot, now);
            let Some(peer) = self.table.peer(&to) else { continue };
            if entries.is_empty() {
                continue;
            }
            self.pushing += 1;
            let request = Request::Store { key: slot.0, replica: slot.1, entries, route: Route::Here };
            self.send(now, peer, request, Why::Push { slot });
        }
    }
}

fn short(id: &Id) -> u32 {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}
