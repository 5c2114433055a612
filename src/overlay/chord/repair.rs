//! Holders of one range made equal: digests are compared, a range that differs is divided until few entries are left, and only
//! those that differ travel, in the direction in which they are missing.
//!
//! One comparison of a range that is the same costs one request and one answer, whatever lies in it. It serves replicas,
//! hand-over to a peer that joins (which may have been here before, and have nearly everything) and before a leave.

use super::compare::{part, range, within};
use super::rpc::Why;
use super::store::Slot;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant, UnixTime};
use crate::identity::DictionaryKey;
use crate::overlay::{Brief, Failure, Part, PeerRef, Range, Request, Response, Route, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Comparisons under way at once.
const MOST: usize = 16;
/// Ranges asked for in one comparison.
const MOST_RANGES: usize = 4096;
/// Entries and resources on their way at once.
const WINDOW: usize = 8;
/// Resources to be fetched that are remembered.
const MOST_PULLS: usize = 8192;
/// Equal ranges are compared again after this, for what happened to either side without anybody's doing.
const AGAIN: Duration = Duration::from_secs(300);

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Repair {
    peer: PeerRef,
    scattered: bool,
    whole: Range,
    todo: Vec<(Id, Id)>,
    asked: usize,
    differs: bool,
}

/// Comparisons, what came out of them, and what is on its way for it.
#[derive(Default)]
pub(super) struct Repairs {
    under_way: BTreeMap<u64, Repair>,
    /// With whom this peer's own range was the same, and when.
    agreed: BTreeMap<Id, (Range, Instant)>,
    pushes: BTreeMap<(Id, Slot), BTreeSet<DictionaryKey>>,
    pulls: BTreeSet<(Id, Slot)>,
    moving: usize,
    /// Something that this peer was handing over before it leaves did not arrive.
    pub incomplete: bool,
}

impl Repairs {
    /// Nothing is compared, sent or fetched.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.pushes.is_empty() && self.moving == 0
    }
}

impl Chord {
    /// Makes this peer and `peer` equal in (`from`, `to`].
    pub(super) fn compare(&mut self, now: Instant, peer: PeerRef, from: Id, to: Id, scattered: bool) {
        let same =
            |r: &Repair| r.peer.id == peer.id && r.scattered == scattered && (r.whole.from, r.whole.to) == (from, to);
        if self.repairs.under_way.len() >= MOST || self.repairs.under_way.values().any(same) {
            self.repairs.incomplete |= self.state != State::Joined;
            return self.sooner(Timer::Maintain, now + self.config.stabilise_min * 4);
        }
        let whole = self.range(now, from, to, scattered);
        let id = self.fresh();
        let repair = Repair { peer, scattered, whole, todo: vec![(from, to)], asked: 0, differs: false };
        self.ask_ranges(now, id, repair);
    }

    /// Compares what this peer is responsible for with its successors, where that has not been done.
    pub(super) fn compare_replicas(&mut self, now: Instant) {
        let me = self.table.me.id;
        let holders: Vec<PeerRef> = self.table.successors().into_iter().take(self.config.successor_replicas).collect();
        self.repairs.agreed.retain(|id, _| holders.iter().any(|h| h.id == *id));
        let Some(before) = self.table.predecessor() else { return };
        let mine = self.range(now, before.id, me, false);
        for holder in holders {
            let known = self.repairs.agreed.get(&holder.id);
            if !known.is_some_and(|(range, at)| *range == mine && now.since(*at) < AGAIN) {
                self.compare(now, holder, before.id, me, false);
            }
        }
    }

    /// Another holder asks whether we are equal.
    pub(super) fn serve_compare(
        &mut self,
        now: Instant,
        from: PeerRef,
        token: Token,
        scattered: bool,
        unix: UnixTime,
        ranges: &[Range],
    ) {
        let neighbour = self.table.predecessors().contains(&from.id)
            || self.table.successors().iter().any(|s| s.id == from.id)
            || self.joining.is_some();
        if !neighbour || ranges.len() > Range::MOST {
            self.counters.refused += 1;
            return self.reply(token, Response::Failed(Failure::Invalid));
        }
        self.clock.heard(now, from.id, unix);
        if self.table.contact(&from.id).is_some_and(|c| !c.reached) {
            // Whose records are kept here is named to whoever comes back to a place between us.
            self.probe(now, from);
        }
        let space = self.config.space;
        let all = self.store.lying(space, scattered, now);
        let (mut parts, mut equal) = (Vec::new(), Vec::new());
        for asked in ranges {
            let inside = within(&all, space, &asked.from, &asked.to);
            if range(&inside, asked.from, asked.to) == *asked {
                equal.extend(inside.iter().map(|l| l.slot));
            } else {
                parts.push(part(&inside, asked.from, asked.to));
            }
        }
        for slot in equal {
            self.confirm(&slot, &from.id);
        }
        let unix = self.unix(now);
        self.reply(token, Response::Compared { unix, parts });
    }

    /// The answer to a comparison, or `None` when there is none.
    pub(super) fn on_compared(&mut self, now: Instant, id: u64, response: Option<Response>) {
        let Some(mut repair) = self.repairs.under_way.remove(&id) else { return };
        let Some(Response::Compared { unix, parts }) = response else {
            // It is missed when the records are looked through.
            self.sooner(Timer::Maintain, now + self.config.stabilise_min * 4);
            self.repairs.incomplete |= self.state != State::Joined;
            return self.say_farewell(now);
        };
        self.clock.heard(now, repair.peer.id, unix);
        repair.differs |= !parts.is_empty();
        for part in parts.into_iter().take(Range::MOST) {
            match part {
                Part::Ranges(ranges) => {
                    let differs = |r: &Range| self.range(now, r.from, r.to, repair.scattered) != *r;
                    let todo: Vec<_> = ranges.iter().filter(|r| differs(r)).map(|r| (r.from, r.to)).collect();
                    repair.todo.extend(todo);
                }
                Part::Entries { from, to, entries } => self.exchange(now, &repair, from, to, &entries),
            }
        }
        if !repair.todo.is_empty() && repair.asked < MOST_RANGES {
            self.ask_ranges(now, id, repair);
        } else {
            self.compared(now, &repair);
        }
        self.pump(now);
        self.say_farewell(now);
    }

    pub(super) fn on_pushed(&mut self, now: Instant, to: PeerRef, slot: Slot, response: Option<Response>) {
        self.repairs.moving = self.repairs.moving.saturating_sub(1);
        let taken = matches!(response, Some(Response::Stored { .. } | Response::Refused { .. }));
        self.repairs.incomplete |= !taken && self.state != State::Joined;
        match response {
            Some(Response::Stored { .. }) => {
                self.confirm(&slot, &to.id);
                self.drop_foreign(now, &slot);
            }
            // It knows better: so shall we.
            Some(Response::Refused { current }) => {
                self.keep(now, slot.0, slot.1, &current, None);
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

    pub(super) fn on_pulled(&mut self, now: Instant, slot: Slot, response: Option<Response>) {
        self.repairs.moving = self.repairs.moving.saturating_sub(1);
        if let Some(Response::Entries { entries, .. }) = response {
            self.counters.exchanged += entries.len() as u64;
            let entries = &entries[..entries.len().min(self.config.max_resource_entries)];
            self.keep(now, slot.0, slot.1, entries, None);
        }
        self.pump(now);
        self.say_farewell(now);
    }

    /// Has all of a resource sent to a peer.
    pub(super) fn push(&mut self, now: Instant, to: Id, slot: Slot) {
        let keys: Vec<DictionaryKey> = self.store.live(&slot, now).map(|(key, _)| *key).collect();
        self.repairs.pushes.entry((to, slot)).or_default().extend(keys);
    }

    /// Sends and fetches what is to be sent and fetched, a few at a time.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.repairs.moving < WINDOW {
            let (to, request, why) = if let Some(((to, slot), keys)) = self.repairs.pushes.pop_first() {
                let live = self.store.live(&slot, now).filter(|(key, _)| keys.contains(key));
                let entries: Vec<_> = live.map(|(_, held)| held.entry.clone()).collect();
                if entries.is_empty() {
                    continue;
                }
                self.counters.exchanged += entries.len() as u64;
                let request = Request::Store { key: slot.0, replica: slot.1, entries, route: Route::Here };
                (to, request, Why::Push { slot })
            } else if let Some((to, slot)) = self.repairs.pulls.pop_first() {
                let request = Request::Fetch { key: slot.0, replica: slot.1, aor: None, route: Route::Here };
                (to, request, Why::Pull { slot })
            } else {
                break;
            };
            let Some(peer) = self.table.peer(&to) else { continue };
            self.repairs.moving += 1;
            self.send(now, peer, request, why);
        }
    }

    fn range(&self, now: Instant, from: Id, to: Id, scattered: bool) -> Range {
        let all = self.store.lying(self.config.space, scattered, now);
        range(&within(&all, self.config.space, &from, &to), from, to)
    }

    fn ask_ranges(&mut self, now: Instant, id: u64, mut repair: Repair) {
        let space = self.config.space;
        let all = self.store.lying(space, repair.scattered, now);
        let next = repair.todo.split_off(repair.todo.len().saturating_sub(Range::MOST));
        let ranges: Vec<Range> =
            next.iter().map(|(from, to)| range(&within(&all, space, from, to), *from, *to)).collect();
        drop(all);
        repair.asked += ranges.len();
        let request = Request::Compare { scattered: repair.scattered, unix: self.unix(now), ranges };
        let peer = repair.peer;
        self.repairs.under_way.insert(id, repair);
        self.send(now, peer, request, Why::Compare(id));
    }

    /// The entries of a range that differs, here and there: what is later here goes there, what is later there comes here.
    fn exchange(&mut self, now: Instant, repair: &Repair, from: Id, to: Id, theirs: &[Brief]) {
        let space = self.config.space;
        let theirs: BTreeMap<_, _> =
            theirs.iter().map(|b| ((b.key, b.replica, b.entry), (b.sequence, b.expires))).collect();
        let all = self.store.lying(space, repair.scattered, now);
        let mut ours = BTreeMap::new();
        let mut later = Vec::new();
        for lying in within(&all, space, &from, &to) {
            let brief = lying.brief();
            let (name, order) = ((brief.key, brief.replica, brief.entry), (brief.sequence, brief.expires));
            if theirs.get(&name).is_none_or(|t| *t < order) {
                later.push((lying.slot, lying.key));
            }
            ours.insert(name, order);
        }
        drop(all);
        for (slot, key) in later {
            self.repairs.pushes.entry((repair.peer.id, slot)).or_default().insert(key);
        }
        for ((key, replica, entry), order) in &theirs {
            let slot = (*key, *replica);
            let missing = ours.get(&(*key, *replica, *entry)).is_none_or(|o| o < order);
            if missing && self.state == State::Joined && self.is_ours(&slot) && self.repairs.pulls.len() < MOST_PULLS {
                self.repairs.pulls.insert((repair.peer.id, slot));
            }
        }
    }

    fn compared(&mut self, now: Instant, repair: &Repair) {
        let whole = repair.whole;
        if repair.differs {
            // What was exchanged shows when it is compared once more.
            return self.sooner(Timer::Maintain, now + self.config.stabilise_min * 8);
        }
        if whole.to == self.table.me.id && !repair.scattered {
            self.repairs.agreed.insert(repair.peer.id, (whole, now));
        }
        let space = self.config.space;
        let all = self.store.lying(space, repair.scattered, now);
        let slots: BTreeSet<Slot> = within(&all, space, &whole.from, &whole.to).iter().map(|l| l.slot).collect();
        drop(all);
        for slot in slots {
            self.confirm(&slot, &repair.peer.id);
            self.drop_foreign(now, &slot);
        }
    }
}
