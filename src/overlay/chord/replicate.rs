//! Records where they belong: hand-over to a peer that joins, replicas on the successors, the scattered replica, what lies in
//! the wrong place, and the end of lifetimes.
//!
//! Holders are made equal by comparing (`repair`); a copy is harmless where it is known already. Nothing is dropped here
//! before another holder has shown that it has it, unless its lifetime is over.

use super::lookup::Goal;
use super::store::Slot;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Mode, PeerRef};
use std::collections::BTreeMap;
use std::time::Duration;

/// What was sent here is kept for this long, whether it belongs here or not.
const SETTLED: Duration = Duration::from_secs(60);
/// Placements begun in one look over the records.
const PLACEMENTS: usize = 4;
/// How long a replica waits for the responsible peer to show that it has the record, before comparing with it. Longer than
/// that one takes to look after its replicas.
const DOUBTFUL: Duration = Duration::from_secs(3);
/// A predecessor is new for this long: who handed over to this peer may not know of it, and what arrives is passed on.
const NEW: Duration = Duration::from_secs(5);

impl Chord {
    /// `new` is the predecessor now, in place of `old`: what lies between the two is its to hold.
    pub(super) fn hand_over(&mut self, now: Instant, old: Option<PeerRef>, new: PeerRef) {
        let from = old.map_or(self.table.me.id, |p| p.id);
        // Its answer shows too that it can be named to others.
        self.compare(now, new, from, new.id, true);
    }

    /// Before leaving: all that this peer is responsible for goes to the successor.
    pub(super) fn push_everything(&mut self, now: Instant) {
        let Some(successor) = self.table.successor() else { return };
        let me = self.table.me.id;
        let from = self.table.predecessor().map_or(me, |p| p.id);
        self.compare(now, successor, from, me, true);
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
        self.compare_replicas(now);
        let space = self.config.space;
        let placed_before = self.table.successor().is_some();
        let slots: Vec<Slot> = self.store.slots().map(|(slot, _)| *slot).collect();
        // Who holds a scattered replica, where the member list says so; few are looked up.
        let members: Option<Vec<Id>> = self.members.complete().then(|| {
            let mut ids: Vec<Id> = self.members.all().filter(|m| !m.gone).map(|m| m.peer.id).collect();
            ids.push(self.table.me.id);
            ids.sort_unstable();
            ids
        });
        let scattered_at = |position: &Id| {
            let ids = members.as_ref()?;
            ids.get(ids.partition_point(|id| id < position)).or(ids.first()).copied()
        };
        let (mut placements, mut unsure) = (Vec::new(), false);
        // What a peer before this one is responsible for and has not shown lately: from the farthest place to its own.
        let mut doubted: BTreeMap<Id, Id> = BTreeMap::new();
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
                if self.config.scattered && placed_before && placements.len() < PLACEMENTS {
                    // At once where it belongs to somebody else than before; else only what has changed since, from time to time.
                    let holder = scattered_at(&space.replica_position(&slot.0, 1));
                    let moved = resource.placed.is_some_and(|(at, _)| holder.is_some_and(|h| h != at));
                    let same = resource.placed.is_some_and(|(_, said)| said == resource.said());
                    if moved || now >= resource.scatter && !(same && holder.is_some()) {
                        placements.push(((slot.0, 1), false));
                    }
                    if moved || now >= resource.scatter {
                        resource.scatter = now + self.config.scatter;
                    }
                }
                continue;
            }
            // Whoever hands over may have gone, or known less than the whole way: each holder sees to it that the
            // responsible peer has what it has.
            let confirmed = match owner {
                Some(owner) if slot.1 == 0 => resource.confirmed == Some(short(&owner)),
                _ => resource.confirmed.is_some(),
            };
            if confirmed {
                resource.doubtful = None;
            }
            let doubtful = !confirmed && now.since(*resource.doubtful.get_or_insert(now)) >= DOUBTFUL;
            let settled = now.since(resource.sent) >= SETTLED;
            unsure |= !confirmed;
            match owner {
                Some(owner) if slot.1 == 0 && doubtful => {
                    let farthest = doubted.entry(owner).or_insert(position);
                    if space.distance(&position, &owner) > space.distance(farthest, &owner) {
                        *farthest = position;
                    }
                }
                _ if replica => {}
                Some(_) if slot.1 == 0 && confirmed => self.drop_foreign(now, &slot),
                Some(_) if slot.1 == 0 => {}
                _ if placements.len() < PLACEMENTS && (doubtful || settled) => placements.push((slot, true)),
                _ => {}
            }
        }
        for (owner, farthest) in doubted {
            if let Some(owner) = self.table.peer(&owner) {
                self.compare(now, owner, space.before(&farthest), owner.id, false);
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
                self.start(
                    now,
                    Goal::Place { slot, entries, bytes: None, parent: None, drop },
                    target,
                    Mode::Iterative,
                );
            }
        }
        self.pump(now);
        self.look_after_chunks(now);
    }

    /// The scattered replica of a resource lies there now, so many entries of it.
    pub(super) fn note_placed(&mut self, key: &Id, holder: Id, entries: usize) {
        if let Some(resource) = self.store.resource_mut(&(*key, 0)).filter(|r| r.len() == entries) {
            resource.placed = Some((holder, resource.said()));
        }
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
            self.push(now, p.id, slot);
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
        let ours = self.is_ours(slot);
        // Who sent it may know the neighbours better than this peer.
        let settled = |sent: Instant| now.since(sent) >= SETTLED || self.config.successor_replicas == 0;
        if !ours && self.store.resource_mut(slot).is_some_and(|r| settled(r.sent)) {
            self.store.remove(slot);
        }
    }

    /// This peer is one of those who have to hold it.
    pub(super) fn is_ours(&self, slot: &Slot) -> bool {
        let position = self.config.space.replica_position(&slot.0, slot.1);
        self.table.is_responsible(&position)
            || slot.1 == 0 && self.table.is_replica(&position, self.config.successor_replicas)
    }
}

fn short(id: &Id) -> u32 {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}
