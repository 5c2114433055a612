//! A chunk asked for: its holders one after the other, the scattered one last, until one gives the very bytes.

use super::Chord;
use super::chunk::Reader;
use super::lookup::{Found, Goal, Op};
use super::rpc::Why;
use super::{State, Timer};
use crate::core::{Id, Instant};
use crate::identity::ChunkHash;
use crate::overlay::{LookupError, Mode, OpId, Output, PeerRef, Request, Response, Trace};
use bytes::Bytes;
use std::time::Duration;

/// How long a chunk may take, all holders together.
const DEADLINE: Duration = Duration::from_secs(25);
/// How long one holder may take: 32 KiB over a slow link.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A chunk being read.
pub(super) struct Take {
    /// Whose; `None`: this peer's own, since it belongs here.
    op: Option<OpId>,
    key: Id,
    hash: ChunkHash,
    /// 0, or 1 when the scattered holder is asked.
    replica: u8,
    left: Vec<PeerRef>,
}

impl Chord {
    pub(super) fn take(&mut self, now: Instant, op: OpId, key: Id, hash: ChunkHash) {
        match self.store.bulk.get(&hash) {
            Some(Some(bytes)) => return self.took(op, Ok(bytes)),
            Some(None) => return self.load(hash, Reader::Own(op)),
            None => {}
        }
        match self.admit_op() {
            Ok(()) => self.begin_take(now, Some(op), key, hash),
            Err(error) => self.took(op, Err(error)),
        }
    }

    /// A chunk that belongs here.
    pub(super) fn fetch_chunk(&mut self, now: Instant, key: Id, hash: ChunkHash) {
        self.begin_take(now, None, key, hash);
    }

    fn begin_take(&mut self, now: Instant, op: Option<OpId>, key: Id, hash: ChunkHash) {
        let take = Take { op, key, hash, replica: 0, left: Vec::new() };
        let id = self.start(now, Goal::Take(take), key, Mode::Auto);
        if self.ops.contains_key(&id) {
            self.timers.set(Timer::Op(id), now + DEADLINE);
        }
    }

    pub(super) fn take_found(&mut self, now: Instant, id: u64, mut op: Box<Op>, found: Found) {
        let Goal::Take(take) = &mut op.goal else { return };
        let me = self.table.me.id;
        let most = if take.replica == 0 { 2 + self.config.successor_replicas } else { 1 };
        let all = std::iter::once(found.owner).chain(found.replicas).filter(|p| p.id != me);
        take.left = Vec::new();
        for peer in all {
            if take.left.len() < most && take.left.iter().all(|p| p.id != peer.id) {
                take.left.push(peer);
            }
        }
        self.ask_next(now, id, op);
    }

    fn ask_next(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        let epoch = op.epoch;
        let Goal::Take(take) = &mut op.goal else { return };
        if !take.left.is_empty() {
            let holder = take.left.remove(0);
            let request = Request::Take { key: take.key, hash: take.hash };
            op.note_asked(holder);
            self.ops.insert(id, op);
            return self.send_within(now, holder, true, request, Why::Take { op: id, epoch }, PATIENCE);
        }
        let again = take.replica == 1 || !self.config.scattered;
        if again && take.op.is_none() {
            // It is tried again later.
            return self.end_take(now, id, op, Err(LookupError::Deadline));
        }
        take.replica = u8::from(!again);
        let target = self.config.space.replica_position(&take.key, take.replica);
        op.retarget(target, Mode::Iterative);
        if again {
            self.put_off(now, id, op);
        } else {
            self.round(now, id, op);
        }
    }

    pub(super) fn on_taken(&mut self, now: Instant, id: u64, epoch: u8, response: Option<Response>) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        let current = op.epoch == epoch;
        let Goal::Take(take) = &op.goal else { return };
        match response {
            Some(Response::Chunk { bytes }) if ChunkHash::of(&bytes) == take.hash => {
                return self.end_take(now, id, op, Ok(bytes));
            }
            Some(Response::Chunk { .. }) => self.counters.damaged += 1,
            _ => {}
        }
        if !current {
            self.ops.insert(id, op);
            return;
        }
        op.retries = op.retries.saturating_add(1);
        self.ask_next(now, id, op);
    }

    pub(super) fn end_take(&mut self, now: Instant, id: u64, op: Box<Op>, result: Result<Bytes, LookupError>) {
        self.forget_op(id);
        let trace = op.trace(now);
        let Goal::Take(take) = op.goal else { return };
        match take.op {
            Some(op) => self.out.push_back(Output::TakeDone { op, result, trace }),
            None if self.state == State::Outside => {}
            None => self.on_fetched(now, take.key, take.hash, result.ok()),
        }
    }

    /// Without asking anybody.
    pub(super) fn took(&mut self, op: OpId, result: Result<Bytes, LookupError>) {
        self.out.push_back(Output::TakeDone { op, result, trace: Trace::default() });
    }
}
