//! Gets: two holders asked, their answers merged, the stale one repaired.

use super::Chord;
use super::lookup::{Found, Goal, Op};
use super::rpc::Why;
use super::store::{Kept, compare};
use crate::core::{Id, Instant};
use crate::identity::{DictionaryKey, SignedEntry};
use crate::overlay::{LookupError, Mode, OpId, Output, PeerRef, Request, Response, Route};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Holders asked after a replica answered first, in the hope of the responsible peer: the one before it and the one after.
const WITNESSES: usize = 2;
/// Holders asked at most.
const MAX_HOLDERS: usize = 6;

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
}

impl Read {
    pub fn request(&self, route: Route) -> Request {
        Request::Fetch { key: self.key, replica: self.replica, aor: self.aor.clone(), route }
    }
}

impl Chord {
    pub(super) fn get(&mut self, now: Instant, op: OpId, key: Id, aor: Option<Arc<str>>, mode: Mode) {
        let held = self.store.get(&(key, 0), now);
        let mut read = Read {
            key,
            replica: 0,
            aor,
            answers: Vec::new(),
            responsible: false,
            waiting: 0,
            queue: Vec::new(),
            asked: 0,
        };
        if !held.is_empty() {
            read.answers.push((self.table.me, 0, held));
        }
        self.start(now, Goal::Get { op, read }, key, mode);
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
    pub(super) fn on_read(&mut self, now: Instant, id: u64, from: PeerRef, response: Option<Response>) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        let unix = self.unix(now);
        let Goal::Get { read, .. } = &mut op.goal else { return };
        read.waiting = read.waiting.saturating_sub(1);
        match response {
            Some(Response::Entries { entries, responsible, .. }) => {
                read.responsible |= responsible;
                let valid = self.valid(&read.key, entries, &read.answers, unix);
                read.answers.push((from, read.replica, valid));
            }
            _ => op.retries = op.retries.saturating_add(1),
        }
        self.advance_read(now, id, op);
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
        let mut holders: Vec<Id> = read.answers.iter().map(|(p, _, _)| p.id).collect();
        holders.sort_unstable();
        holders.dedup();
        let something = read.answers.iter().any(|(_, _, entries)| !entries.is_empty());
        let certain = read.responsible || read.asked >= WITNESSES;
        if something && certain && holders.len() >= self.config.quorum() {
            return self.end_read(now, id, op, false);
        }
        if read.waiting > 0 {
            self.ops.insert(id, op);
            return;
        }
        let next = loop {
            if read.queue.is_empty() || read.asked >= MAX_HOLDERS || self.config.successor_replicas == 0 {
                break None;
            }
            let peer = read.queue.remove(0);
            if peer.id != me.id && !holders.contains(&peer.id) && !self.table.buried(&peer.id, now) {
                break Some(peer);
            }
        };
        if let Some(peer) = next {
            read.waiting += 1;
            read.asked += 1;
            let request = read.request(Route::Here);
            op.note_asked(peer);
            self.ops.insert(id, op);
            self.send(now, peer, request, Why::Read { op: id });
            return;
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
