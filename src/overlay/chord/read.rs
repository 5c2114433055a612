//! Gets: two holders asked at least, their answers merged, the stale one repaired.
//!
//! Where the member list names the holders, all of them are asked at once, and all that answer within the time of a healthy
//! round trip count: a minority that says "nothing", or shows an entry of yesterday, decides nothing. Else the lookup finds
//! the responsible peer, and the others are asked when it has named them.

use super::lookup::{Found, Goal, Op};
use super::rpc::Why;
use super::store::{Kept, compare};
use super::{Chord, Timer};
use crate::core::{Id, Instant};
use crate::identity::{DictionaryKey, SignedEntry};
use crate::overlay::{LookupError, Mode, OpId, Output, PeerRef, Request, Response, Route, Trace};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Holders asked after a replica answered first, in the hope of the responsible peer: the one before it and the one after.
const WITNESSES: usize = 2;
/// Members asked in place of those that do not answer.
const FURTHER: usize = 4;
/// Holders asked at most.
const MAX_HOLDERS: usize = 8;

/// A holder, the replica it was asked for, and what was valid of its answer.
type Answer = (PeerRef, u8, Vec<SignedEntry>);

/// A get under way.
pub(super) struct Read {
    key: Id,
    replica: u8,
    aor: Option<Arc<str>>,
    answers: Vec<Answer>,
    /// One of them is responsible.
    responsible: bool,
    waiting: usize,
    queue: Vec<PeerRef>,
    asked: usize,
    /// All holders are asked at once, as the member list names them.
    straight: bool,
    /// The slow ones are not waited for any more.
    urgent: bool,
}

impl Read {
    pub fn request(&self, route: Route) -> Request {
        self.request_of(self.replica, route)
    }

    fn request_of(&self, replica: u8, route: Route) -> Request {
        Request::Fetch { key: self.key, replica, aor: self.aor.clone(), route }
    }

    fn found_something(&self) -> bool {
        self.answers.iter().any(|(_, _, entries)| !entries.is_empty())
    }

    /// Distinct holders that answered.
    fn holders(&self) -> Vec<Id> {
        let mut holders: Vec<Id> = self.answers.iter().map(|(p, _, _)| p.id).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }
}

impl Chord {
    pub(super) fn get(&mut self, now: Instant, op: OpId, key: Id, aor: Option<Arc<str>>, mode: Mode) {
        if let (Mode::Auto, Some(entries)) = (mode, self.cache.get(&key, now)) {
            let entries = entries.iter().filter(|e| !e.entry().is_removal()).cloned().collect();
            self.counters.cached += 1;
            self.out.push_back(Output::GetDone { op, result: Ok(entries), trace: Trace::default() });
            return;
        }
        let mut read = Read {
            key,
            replica: 0,
            aor,
            answers: Vec::new(),
            responsible: false,
            waiting: 0,
            queue: Vec::new(),
            asked: 0,
            straight: false,
            urgent: false,
        };
        let straight = mode != Mode::Recursive && self.members.complete();
        let held = self.store.get(&(key, 0), now);
        if !held.is_empty() && !straight {
            read.answers.push((self.table.me, 0, held));
        }
        if straight {
            self.ask_holders(now, Op::new(Goal::Get { op, read }, key, mode, now));
        } else {
            self.start(now, Goal::Get { op, read }, key, mode);
        }
    }

    /// Asks every holder that the member list names, all at once.
    fn ask_holders(&mut self, now: Instant, mut op: Box<Op>) {
        let id = self.fresh();
        let me = self.table.me;
        let responsible = self.table.is_responsible(&op.target);
        let mut slots: Vec<(PeerRef, u8)> =
            self.line(now, &op.target).take(1 + self.config.successor_replicas).map(|p| (p, 0)).collect();
        if self.config.scattered {
            let position = self.config.space.replica_position(&op.target, 1);
            slots.extend(self.line(now, &position).next().map(|p| (p, 1)));
        }
        let further = self.line(now, &op.target).skip(1 + self.config.successor_replicas).take(FURTHER);
        let further: Vec<PeerRef> = further.filter(|p| p.id != me.id).collect();
        let Goal::Get { read, .. } = &mut op.goal else { return };
        read.straight = true;
        read.queue = further;
        let mut requests = Vec::new();
        for (peer, replica) in slots {
            if peer.id == me.id {
                let held = self.store.get(&(read.key, replica), now);
                read.responsible |= replica == 0 && responsible;
                read.answers.push((me, replica, held));
            } else {
                read.waiting += 1;
                read.asked += 1;
                requests.push((peer, replica, read.request_of(replica, Route::Here)));
            }
        }
        op.settled = true;
        op.via = Mode::Iterative;
        op.hops = u8::from(!requests.is_empty());
        for (peer, _, _) in &requests {
            op.note_asked(*peer);
        }
        self.timers.set(Timer::Op(id), now + self.config.op_deadline);
        self.timers.set(Timer::Again(id), now + self.config.rpc_floor);
        for (peer, replica, request) in requests {
            self.send(now, peer, request, Why::Read { op: id, replica });
        }
        self.advance_read(now, id, op);
    }

    /// Two holders are enough from now on.
    pub(super) fn hurry_read(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        match &mut op.goal {
            Goal::Get { read, .. } => {
                read.urgent = true;
                self.advance_read(now, id, op);
            }
            _ => {
                self.ops.insert(id, op);
            }
        }
    }

    /// A peer on the way passed this on a moment ago.
    pub(super) fn read_cached(
        &mut self,
        now: Instant,
        id: u64,
        mut op: Box<Op>,
        owner: PeerRef,
        entries: Vec<SignedEntry>,
    ) {
        let unix = self.unix(now);
        let Goal::Get { read, .. } = &mut op.goal else { return };
        let valid = self.valid(&read.key, entries, &read.answers, unix);
        if valid.is_empty() {
            // No more is believed of its kind.
            op.mode = Mode::Sure;
            return self.put_off(now, id, op);
        }
        let Goal::Get { read, .. } = &mut op.goal else { return };
        read.straight = true;
        read.answers = vec![(owner, 0, valid)];
        self.counters.cached += 1;
        self.end_read(now, id, op, false);
    }

    pub(super) fn read_found(&mut self, now: Instant, id: u64, mut op: Box<Op>, found: Found) {
        let me = self.table.me;
        let unix = self.unix(now);
        let Goal::Get { read, .. } = &mut op.goal else { return };
        read.queue = found.replicas;
        read.responsible |= found.responsible;
        match found.entries {
            Some(entries) => {
                let valid = self.valid(&read.key, entries, &read.answers, unix);
                read.answers.push((found.owner, read.replica, valid));
            }
            // This peer is responsible.
            None if !read.answers.iter().any(|(p, n, _)| p.id == me.id && *n == read.replica) => {
                let held = self.store.get(&(read.key, read.replica), now);
                read.answers.push((me, read.replica, held));
            }
            None => {}
        }
        self.advance_read(now, id, op);
    }

    /// The answer of a holder, or `None` when there is none.
    pub(super) fn on_read(&mut self, now: Instant, id: u64, from: PeerRef, replica: u8, response: Option<Response>) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        let unix = self.unix(now);
        let Goal::Get { read, .. } = &mut op.goal else { return };
        read.waiting = read.waiting.saturating_sub(1);
        match response {
            Some(Response::Entries { entries, responsible, .. }) => {
                read.responsible |= responsible && replica == read.replica;
                let sent = entries.len();
                let valid = self.valid(&read.key, entries, &read.answers, unix);
                // Who sends nothing but what does not verify has not answered.
                if sent == 0 || !valid.is_empty() {
                    read.answers.push((from, replica, valid));
                }
            }
            _ => {
                op.retries = op.retries.saturating_add(1);
                self.ask_further(now, id, &mut op);
            }
        }
        self.advance_read(now, id, op);
    }

    /// Where all holders are asked at once and one of them is not there: who comes after them.
    fn ask_further(&mut self, now: Instant, id: u64, op: &mut Op) {
        let Goal::Get { read, .. } = &mut op.goal else { return };
        if !read.straight || read.queue.is_empty() || read.asked >= MAX_HOLDERS {
            return;
        }
        let peer = read.queue.remove(0);
        read.asked += 1;
        read.waiting += 1;
        let request = read.request_of(0, Route::Here);
        op.note_asked(peer);
        self.send(now, peer, request, Why::Read { op: id, replica: 0 });
    }

    /// Ends the get with what is known; `late`: because its time is over.
    pub(super) fn end_read(&mut self, now: Instant, id: u64, op: Box<Op>, late: bool) {
        self.forget_op(id);
        let trace = op.trace(now);
        let Goal::Get { op: name, read } = op.goal else { return };
        // "Nothing" of which half the witnesses were not heard is no answer.
        let nothing = read.answers.iter().all(|(_, _, entries)| entries.is_empty());
        if read.answers.is_empty() || late && nothing && read.answers.len() < self.config.quorum() {
            self.counters.lookups_failed += 1;
            self.out.push_back(Output::GetDone { op: name, result: Err(LookupError::Deadline), trace });
            return;
        }
        let mut merged: BTreeMap<DictionaryKey, SignedEntry> = BTreeMap::new();
        for entry in read.answers.iter().flat_map(|(_, _, entries)| entries) {
            let key = entry.dictionary_key();
            let better = match merged.get(&key).map(|held| compare(held, entry)) {
                None | Some(Kept::New) => true,
                Some(Kept::Conflict(held)) => {
                    self.counters.conflicts += 1;
                    // Any rule will do that gives every reader the same.
                    let smaller = entry.encoded() < held.encoded();
                    let both = Box::new([held, entry.clone()]);
                    self.out.push_back(Output::Conflict { key: read.key, entries: both });
                    smaller
                }
                Some(_) => false,
            };
            if better {
                merged.insert(key, entry.clone());
            }
        }
        self.repair(now, &read, &merged);
        if op.mode == Mode::Auto && !merged.is_empty() && self.cache.is_popular(&read.key, now) {
            self.cache.put(&read.key, merged.values().cloned().collect(), now);
        }
        let entries = merged.into_values().filter(|e| !e.entry().is_removal()).collect();
        self.out.push_back(Output::GetDone { op: name, result: Ok(entries), trace });
    }

    fn advance_read(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        let me = self.table.me;
        if !op.settled {
            // The scattered replica is being looked for.
            self.ops.insert(id, op);
            return;
        }
        let Goal::Get { read, .. } = &mut op.goal else { return };
        let holders = read.holders();
        let enough = holders.len() >= self.config.quorum();
        let something = read.found_something();
        let certain = read.responsible || read.asked >= WITNESSES;
        // Where all are asked at once, the others say within the same time whether these two have the latest.
        if something && certain && enough && (!read.straight || read.urgent) {
            return self.end_read(now, id, op, false);
        }
        if read.waiting > 0 {
            self.ops.insert(id, op);
            return;
        }
        if read.straight && enough {
            return self.end_read(now, id, op, false);
        }
        let mut next = Vec::new();
        while next.len() < self.config.successor_replicas && !read.queue.is_empty() && read.asked < MAX_HOLDERS {
            let peer = read.queue.remove(0);
            if peer.id != me.id && !holders.contains(&peer.id) && !self.table.buried(&peer.id, now) {
                read.asked += 1;
                next.push(peer);
            }
        }
        if !next.is_empty() {
            read.waiting += next.len();
            let (request, replica) = (read.request(Route::Here), read.replica);
            for peer in &next {
                op.note_asked(*peer);
            }
            self.ops.insert(id, op);
            for peer in next {
                self.send(now, peer, request.clone(), Why::Read { op: id, replica });
            }
            return;
        }
        if read.straight && !something {
            // The list is no help: as if there were none.
            read.straight = false;
            read.asked = 0;
            op.rounds = 1;
            op.restart();
            return self.round(now, id, op);
        }
        if !something && self.config.scattered && read.replica == 0 {
            read.replica = 1;
            read.asked = 0;
            let target = self.config.space.replica_position(&read.key, 1);
            let mode = if op.mode == Mode::Recursive { Mode::Recursive } else { Mode::Iterative };
            op.retarget(target, mode);
            return self.round(now, id, op);
        }
        self.end_read(now, id, op, false);
    }

    /// The entries that verify. What another holder sent bit for bit is not checked twice.
    fn valid(
        &mut self,
        key: &Id,
        entries: Vec<SignedEntry>,
        known: &[Answer],
        unix: crate::core::UnixTime,
    ) -> Vec<SignedEntry> {
        let mut valid = Vec::with_capacity(entries.len().min(self.config.max_resource_entries));
        for entry in entries.into_iter().take(self.config.max_resource_entries) {
            if known.iter().any(|(_, _, held)| held.contains(&entry)) || self.verify.verify(&entry, key, unix) {
                valid.push(entry);
            } else {
                self.counters.invalid += 1;
            }
        }
        valid
    }

    /// Brings the holders that answered with less up to date.
    fn repair(&mut self, now: Instant, read: &Read, merged: &BTreeMap<DictionaryKey, SignedEntry>) {
        for (peer, replica, held) in &read.answers {
            let missing: Vec<SignedEntry> = merged.values().filter(|e| !held.contains(e)).cloned().collect();
            if missing.is_empty() {
                continue;
            }
            self.counters.repaired += 1;
            if peer.id == self.table.me.id {
                for entry in missing {
                    let unix = self.unix(now);
                    self.store.put((read.key, *replica), entry, None, &self.config, now, unix);
                }
            } else {
                let request = Request::Store { key: read.key, replica: *replica, entries: missing, route: Route::Here };
                self.send(now, *peer, request, Why::Repair);
            }
        }
    }
}
