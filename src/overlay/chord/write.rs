//! Puts: to the responsible peer, its successors and the scattered position; done when two distinct holders have
//! acknowledged, or all that the ring has.

use super::Chord;
use super::chunk::chunk_of;
use super::durable::Waiter;
use super::lookup::{Found, Goal, Op};
use super::rpc::Why;
use super::store::Slot;
use crate::core::{Id, Instant};
use crate::identity::SignedEntry;
use crate::overlay::{Failure, Mode, OpId, Output, PeerRef, PutError, Request, Response, Route};
use bytes::Bytes;

/// A put under way.
pub(super) struct Write {
    key: Id,
    entry: SignedEntry,
    /// The chunk that it is about.
    bytes: Option<Bytes>,
    /// Holders that acknowledged.
    acked: Vec<Id>,
    /// Stores out, the scattered copy's lookup included.
    waiting: usize,
    /// The responsible peer, as long as it has neither acknowledged nor failed: who reads next asks it first.
    owner: Option<Id>,
    /// The responsible peer is alone in its ring.
    alone: bool,
    pub reported: bool,
}

impl Write {
    pub fn acks(&self) -> u8 {
        u8::try_from(self.acked.len()).unwrap_or(u8::MAX)
    }

    fn ack(&mut self, id: Id) {
        if !self.acked.contains(&id) {
            self.acked.push(id);
        }
    }
}

impl Chord {
    pub(super) fn put(&mut self, now: Instant, op: OpId, key: Id, entry: SignedEntry, bytes: Option<Bytes>) {
        if let Err(error) = self.admit_op() {
            return self.put_failed(op, PutError::Lookup(error));
        }
        let unix = self.unix(now);
        let fits = bytes.as_ref().is_none_or(|bytes| chunk_of(&entry).is_some_and(|body| body.is(bytes)));
        if !fits || !self.verify.verify(&entry, &key, unix) {
            self.counters.invalid += 1;
            return self.put_failed(op, PutError::Invalid);
        }
        let write = Write {
            key,
            entry: entry.clone(),
            bytes: bytes.clone(),
            acked: Vec::new(),
            waiting: 0,
            owner: None,
            alone: false,
            reported: false,
        };
        let id = self.start(now, Goal::Put { op, write }, key, Mode::Auto);
        if self.config.scattered
            && self.table.successor().is_some()
            && let Some(Goal::Put { write, .. }) = self.ops.get_mut(&id).map(|op| &mut op.goal)
        {
            write.waiting += 1;
            let target = self.config.space.replica_position(&key, 1);
            let goal = Goal::Place { slot: (key, 1), entries: vec![entry], bytes, parent: Some(id), drop: false };
            self.start(now, goal, target, Mode::Iterative);
        }
    }

    pub(super) fn write_found(&mut self, now: Instant, id: u64, mut op: Box<Op>, found: Found) {
        let epoch = op.epoch;
        let Goal::Put { write, .. } = &mut op.goal else { return };
        let (key, entry, bytes) = (write.key, write.entry.clone(), write.bytes.clone());
        let mut holders = vec![found.owner];
        holders.extend(found.replicas.into_iter().filter(|p| p.id != found.owner.id));
        holders.truncate(1 + self.config.successor_replicas);
        write.alone = holders.len() == 1 && found.owner.id == self.table.me.id;
        write.owner = Some(found.owner.id).filter(|id| *id != self.table.me.id);
        let (mut refused, mut own) = (None, None);
        for (i, holder) in holders.into_iter().enumerate() {
            let Goal::Put { write, .. } = &mut op.goal else { return };
            if holder.id == self.table.me.id {
                let (response, batch) = match bytes.clone() {
                    Some(bytes) => self.keep_chunk(now, key, 0, &entry, bytes, None),
                    None => self.keep(now, key, 0, std::slice::from_ref(&entry), None),
                };
                match response {
                    Response::Stored { .. } => {
                        own = Some(batch);
                        write.waiting += 1;
                        if write.alone
                            && let Some(resource) = self.store.resource_mut(&(key, 0))
                        {
                            // Somewhere else, as soon as there is somewhere else.
                            resource.scatter = now;
                        }
                    }
                    Response::Refused { current } => refused = Some(current),
                    _ => {}
                }
                continue;
            }
            write.waiting += 1;
            // The first finds out whether it is responsible; the others hold what they are given.
            let route = if i == 0 { Route::Iterative } else { Route::Here };
            self.send(now, holder, writing((key, 0), &entry, bytes.clone(), route), Why::Write { op: id, epoch });
        }
        match refused {
            Some(current) => self.write_refused(now, id, op, current),
            None => self.advance_write(now, id, op),
        }
        if let Some(batch) = own {
            self.acknowledge(now, batch, Waiter::Write(id));
        }
    }

    /// What this peer itself holds of a put is on its disk.
    pub(super) fn on_own_write(&mut self, now: Instant, id: u64) {
        let me = self.table.me;
        let Some(mut op) = self.ops.remove(&id) else { return };
        if let Goal::Put { write, .. } = &mut op.goal {
            write.waiting = write.waiting.saturating_sub(1);
            write.ack(me.id);
        }
        self.advance_write(now, id, op);
    }

    /// What this peer itself holds as a scattered copy is on its disk.
    pub(super) fn on_own_copy(&mut self, now: Instant, id: u64) {
        if let Some(op) = self.ops.remove(&id) {
            self.placed(now, id, op, Some(self.table.me.id));
        }
    }

    /// The answer of a holder, or `None` when there is none.
    pub(super) fn on_written(&mut self, now: Instant, id: u64, epoch: u8, from: PeerRef, response: Option<Response>) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        let current = op.epoch == epoch;
        let Goal::Put { write, .. } = &mut op.goal else { return };
        if current {
            write.waiting = write.waiting.saturating_sub(1);
        }
        let owner = write.owner == Some(from.id);
        // Who refers to another peer is not the responsible one: another round.
        if write.owner == Some(from.id) && !matches!(response, Some(Response::Redirect { .. })) {
            write.owner = None;
        }
        match response {
            Some(Response::Stored { .. }) => write.ack(from.id),
            // It does not know what is renewed.
            Some(Response::Failed(Failure::NotHeld)) if current => {
                write.waiting += 1;
                write.owner = Some(from.id).filter(|_| owner);
                let (key, entries) = (write.key, vec![write.entry.clone()]);
                let request = Request::Store { key, replica: 0, entries, route: Route::Here };
                self.ops.insert(id, op);
                return self.send(now, from, request, Why::Write { op: id, epoch });
            }
            Some(Response::Refused { current }) => return self.write_refused(now, id, op, current),
            _ => op.retries = op.retries.saturating_add(1),
        }
        self.advance_write(now, id, op);
    }

    /// The scattered copy of a put has been placed, or not.
    pub(super) fn on_copy(&mut self, now: Instant, parent: u64, holder: Option<Id>) {
        let Some(mut op) = self.ops.remove(&parent) else { return };
        let Goal::Put { write, .. } = &mut op.goal else { return };
        write.waiting = write.waiting.saturating_sub(1);
        if let Some(holder) = holder {
            write.ack(holder);
        }
        self.advance_write(now, parent, op);
    }

    pub(super) fn place_found(&mut self, now: Instant, id: u64, op: Box<Op>, found: Found) {
        let Goal::Place { slot, entries, bytes, .. } = &op.goal else { return };
        let (slot, entries, bytes): (Slot, _, _) = (*slot, entries.clone(), bytes.clone());
        if found.owner.id == self.table.me.id {
            let (_, batch) = match (&entries[..], bytes) {
                ([entry], Some(bytes)) => self.keep_chunk(now, slot.0, slot.1, entry, bytes, None),
                _ => self.keep(now, slot.0, slot.1, &entries, None),
            };
            if let Goal::Place { parent: None, drop: false, .. } = &op.goal {
                self.note_placed(&slot.0, found.owner.id, entries.len());
            }
            self.ops.insert(id, op);
            return self.acknowledge(now, batch, Waiter::Place(id));
        }
        let request = match &entries[..] {
            [entry] => writing(slot, entry, bytes, Route::Iterative),
            _ => Request::Store { key: slot.0, replica: slot.1, entries, route: Route::Iterative },
        };
        self.ops.insert(id, op);
        self.send(now, found.owner, request, Why::Place { op: id });
    }

    pub(super) fn on_placed(&mut self, now: Instant, id: u64, from: PeerRef, response: Option<Response>) {
        let Some(op) = self.ops.remove(&id) else { return };
        match response {
            Some(Response::Stored { .. }) => {
                if let Goal::Place { slot, drop: true, .. } = &op.goal {
                    self.confirm_placed(slot, &from.id);
                    self.drop_foreign(now, slot);
                }
                if let Goal::Place { slot, entries, parent: None, drop: false, .. } = &op.goal {
                    let said = entries.len();
                    self.note_placed(&slot.0, from.id, said);
                }
                self.placed(now, id, op, Some(from.id));
            }
            Some(Response::Refused { current }) => {
                if let Goal::Place { slot, .. } = &op.goal {
                    // A copy newer than ours: what we hold of the resource itself is behind as well.
                    let (key, _) = *slot;
                    if self.store.resource_mut(&(key, 0)).is_some() {
                        self.keep(now, key, 0, &current, None);
                    }
                    let slot = *slot;
                    self.confirm_placed(&slot, &from.id);
                    self.drop_foreign(now, &slot);
                }
                self.placed(now, id, op, None);
            }
            Some(Response::Failed(Failure::NotHeld)) => {
                let Goal::Place { slot, entries, .. } = &op.goal else { return };
                let ((key, replica), entries) = (*slot, entries.clone());
                let request = Request::Store { key, replica, entries, route: Route::Iterative };
                self.ops.insert(id, op);
                self.send(now, from, request, Why::Place { op: id });
            }
            Some(Response::Redirect { .. }) | None => self.put_off(now, id, op),
            Some(_) => self.placed(now, id, op, None),
        }
    }

    fn placed(&mut self, now: Instant, id: u64, op: Box<Op>, holder: Option<Id>) {
        self.forget_op(id);
        if let Goal::Place { parent: Some(parent), .. } = op.goal {
            self.on_copy(now, parent, holder);
        }
    }

    fn write_refused(&mut self, now: Instant, id: u64, op: Box<Op>, current: Vec<SignedEntry>) {
        let Goal::Put { op: name, write } = &op.goal else { return };
        let (ours, unix) = (write.entry.clone(), self.unix(now));
        let key = ours.dictionary_key();
        let held = current.into_iter().find(|e| e.dictionary_key() == key && self.verify.verify(e, &write.key, unix));
        let Some(held) = held.filter(|h| h.entry().sequence >= ours.entry().sequence) else {
            // It refuses and cannot show why.
            return self.advance_write(now, id, op);
        };
        if !write.reported {
            let stale = held.entry().sequence > ours.entry().sequence;
            let held = Box::new(held);
            let error = if stale { PutError::Stale(held) } else { PutError::Conflict(held) };
            let (op_id, acks, trace) = (*name, write.acks(), op.trace(now));
            self.out.push_back(Output::PutDone { op: op_id, acks, result: Err(error), trace });
        }
        self.forget_op(id);
    }

    fn advance_write(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        let trace = op.trace(now);
        let (settled, mut again) = (op.settled, false);
        let Goal::Put { op: name, write } = &mut op.goal else { return };
        let quorum = self.config.quorum();
        let enough = write.acked.len() >= if write.alone { 1 } else { quorum };
        if enough && settled && write.owner.is_none() && !write.reported {
            write.reported = true;
            let acks = write.acks();
            self.out.push_back(Output::PutDone { op: *name, acks, result: Ok(()), trace });
        }
        let done = write.reported && write.waiting == 0 && settled;
        if !done && settled && write.waiting == 0 {
            again = true;
        }
        if done {
            self.forget_op(id);
        } else if again {
            self.put_off(now, id, op);
        } else {
            self.ops.insert(id, op);
        }
    }
}

/// What is sent to a holder: of a renewed entry the renewal alone.
fn writing((key, replica): Slot, entry: &SignedEntry, bytes: Option<Bytes>, route: Route) -> Request {
    if let Some(bytes) = bytes {
        return Request::Give { key, replica, entry: Box::new(entry.clone()), bytes, route };
    }
    match entry.touch_of() {
        Some(touch) => {
            let aor = Some(entry.entry().aor.as_str().into());
            Request::Touch { key, replica, aor, touch: Box::new(touch), route }
        }
        None => Request::Store { key, replica, entries: vec![entry.clone()], route },
    }
}
