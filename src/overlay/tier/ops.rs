//! An ordinary node's puts, gets and finds: the primary runs them over the ring. What it answers is verified here again;
//! that it holds nothing is confirmed by the backup; where the primary does not answer soon, the backup is asked too.

use super::{Answer, Ask, Rank, Tiered, Timer, Way, Why};
use crate::core::{Id, Instant};
use crate::identity::{ChunkHash, SignedEntry};
use crate::overlay::{
    Command, Failure, Input, Lease, LeaseAnswer, LeaseError, LookupError, Mode, OpId, Output, PeerRef, PutError,
    Response, Trace,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// When the backup is asked too.
const HEDGE: Duration = Duration::from_millis(1500);
/// How long a supernode may take: a little more than it gives itself.
const PATIENCE: Duration = Duration::from_secs(7);
/// Operations at once.
const MAX_OPS: usize = 1024;

#[derive(Clone, Debug)]
enum Goal {
    Put { key: Id, entry: Box<SignedEntry> },
    Get { key: Id, aor: Option<Arc<str>>, mode: Mode },
    Find { target: Id, mode: Mode },
    Lease { key: Id, entry: Box<SignedEntry> },
    Give { key: Id, entry: Box<SignedEntry>, bytes: Bytes },
    Take { key: Id, hash: ChunkHash },
}

/// One operation under way.
#[derive(Debug)]
pub(super) struct Pending {
    goal: Goal,
    begun: Instant,
    /// Asked, by rank, and how many of them have not answered.
    asked: [bool; 2],
    open: u8,
    /// The way of the first that answered with nothing.
    empty: Option<Way>,
    retries: u8,
    fault: Option<Failure>,
}

impl Tiered {
    pub(super) fn put(&mut self, now: Instant, op: OpId, key: Id, entry: SignedEntry) {
        if !self.verify.verify(&entry, &key, self.unix(now)) {
            let output = Output::PutDone { op, acks: 0, result: Err(PutError::Invalid), trace: Trace::default() };
            return self.out.push_back(output);
        }
        self.begin(now, op, Goal::Put { key, entry: Box::new(entry) });
    }

    pub(super) fn get(&mut self, now: Instant, op: OpId, key: Id, aor: Option<Arc<str>>, mode: Mode) {
        self.begin(now, op, Goal::Get { key, aor, mode });
    }

    pub(super) fn find(&mut self, now: Instant, op: OpId, target: Id, mode: Mode) {
        self.begin(now, op, Goal::Find { target, mode });
    }

    pub(super) fn lease(&mut self, now: Instant, op: OpId, key: Id, entry: SignedEntry) {
        self.begin(now, op, Goal::Lease { key, entry: Box::new(entry) });
    }

    pub(super) fn give(&mut self, now: Instant, op: OpId, key: Id, entry: SignedEntry, bytes: Bytes) {
        self.begin(now, op, Goal::Give { key, entry: Box::new(entry), bytes });
    }

    pub(super) fn take(&mut self, now: Instant, op: OpId, key: Id, hash: ChunkHash) {
        self.begin(now, op, Goal::Take { key, hash });
    }

    fn begin(&mut self, now: Instant, op: OpId, goal: Goal) {
        let pending = Pending { goal, begun: now, asked: [false; 2], open: 0, empty: None, retries: 0, fault: None };
        if self.client.primary.is_none() || self.client.ops.len() >= MAX_OPS {
            let fault = if self.client.primary.is_none() { LookupError::NotInRing } else { LookupError::Busy };
            return self.end(now, op, &pending, Err(fault));
        }
        self.client.ops.insert(op, pending);
        self.timers.set(Timer::Hedge(op), now + HEDGE);
        self.send_op(now, op, Rank::Primary);
    }

    fn send_op(&mut self, now: Instant, op: OpId, rank: Rank) -> bool {
        let Some(to) = self.client.hang(rank).map(|h| h.peer) else { return false };
        let Some(pending) = self.client.ops.get_mut(&op).filter(|p| !p.asked[rank as usize]) else { return false };
        pending.asked[rank as usize] = true;
        pending.open += 1;
        let ask = match pending.goal.clone() {
            Goal::Put { key, entry } => Ask::Put { key, entry },
            Goal::Get { key, aor, mode } => Ask::Get { key, aor, mode },
            Goal::Find { target, mode } => Ask::Find { target, mode },
            Goal::Lease { key, entry } => Ask::Lease { key, entry },
            Goal::Give { key, entry, bytes } => Ask::Give { key, entry, bytes },
            Goal::Take { key, hash } => Ask::Take { key, hash },
        };
        self.ask(now, Some(to.id), to.addr, ask, Why::Op { op, rank }, PATIENCE);
        true
    }

    /// The primary takes its time.
    pub(super) fn hedge(&mut self, now: Instant, op: OpId) {
        self.send_op(now, op, Rank::Backup);
    }

    /// The supernodes have changed: what was asked of one that is gone is asked again; in the ring, of the ring.
    pub(super) fn move_ops(&mut self, now: Instant) {
        if self.role == super::Role::Supernode && self.client.primary.is_none() {
            for (op, pending) in std::mem::take(&mut self.client.ops) {
                self.timers.cancel(&Timer::Hedge(op));
                let command = match pending.goal {
                    Goal::Put { key, entry } => Command::Put { op, key, entry: *entry },
                    Goal::Get { key, aor, mode } => Command::Get { op, key, aor, mode },
                    Goal::Find { target, mode } => Command::Find { op, target, mode },
                    Goal::Lease { key, entry } => Command::Lease { op, key, entry: *entry },
                    Goal::Give { key, entry, bytes } => Command::Give { op, key, entry: *entry, bytes },
                    Goal::Take { key, hash } => Command::Take { op, key, hash },
                };
                self.chord_input(now, Input::Command(command));
            }
            return;
        }
        // The new primary may be the backup that was asked already: its answer still counts.
        for op in self.client.ops.keys().copied().collect::<Vec<_>>() {
            if let Some(pending) = self.client.ops.get_mut(&op) {
                pending.asked = [false; 2];
            }
            self.send_op(now, op, Rank::Primary);
        }
    }

    fn chord_input(&mut self, now: Instant, input: Input) {
        use crate::overlay::Overlay;
        self.chord.handle(now, input);
    }

    pub(super) fn on_op_answer(&mut self, now: Instant, op: OpId, rank: Rank, response: Response) {
        let unix = self.unix(now);
        let Some(pending) = self.client.ops.get_mut(&op) else { return };
        match (response, &pending.goal) {
            (Response::Tier(Answer::Found { entries, way }), Goal::Get { key, .. }) => {
                let key = *key;
                let mut good = Vec::new();
                for entry in entries {
                    // Kept out of `retain`: verifying wants the whole of self.
                    if self.verify.verify(&entry, &key, unix) && !entry.entry().is_removal() {
                        good.push(entry);
                    }
                }
                self.on_found(now, op, rank, good, way);
            }
            (Response::Tier(Answer::Lease(answer)), Goal::Lease { key, .. }) => {
                let key = *key;
                self.on_lease_answer(now, op, rank, key, answer);
            }
            (Response::Tier(Answer::Taken { bytes }), Goal::Take { hash, .. }) if ChunkHash::of(&bytes) == *hash => {
                let Some(pending) = self.client.ops.remove(&op) else { return };
                self.timers.cancel(&Timer::Hedge(op));
                let trace = Trace { took: now.since(pending.begun), retries: pending.retries, ..Trace::default() };
                self.out.push_back(Output::TakeDone { op, result: Ok(bytes), trace });
            }
            (Response::Tier(Answer::Written { acks, way }), Goal::Put { .. } | Goal::Give { .. }) => {
                let Some(pending) = self.client.ops.remove(&op) else { return };
                let trace = trace(now, &pending, way);
                self.timers.cancel(&Timer::Hedge(op));
                self.out.push_back(Output::PutDone { op, acks, result: Ok(()), trace });
            }
            (Response::Refused { current }, Goal::Put { key, entry } | Goal::Give { key, entry, .. }) => {
                let (key, ours) = (*key, entry.clone());
                // Only what holds can make this device jump past its own number.
                let later = current.into_iter().find(|e| {
                    e.dictionary_key() == ours.dictionary_key()
                        && e.entry().sequence >= ours.entry().sequence
                        && self.verify.verify(e, &key, unix)
                });
                match later {
                    Some(later) => {
                        self.client.ops.remove(&op);
                        self.timers.cancel(&Timer::Hedge(op));
                        let same = later.entry().sequence == ours.entry().sequence;
                        let fault =
                            if same { PutError::Conflict(Box::new(later)) } else { PutError::Stale(Box::new(later)) };
                        let trace = Trace::default();
                        self.out.push_back(Output::PutDone { op, acks: 0, result: Err(fault), trace });
                    }
                    None => self.on_op_failed(now, op, rank),
                }
            }
            (Response::Tier(Answer::Responsible { peer, way }), Goal::Find { .. }) => {
                let Some(pending) = self.client.ops.remove(&op) else { return };
                self.timers.cancel(&Timer::Hedge(op));
                self.out.push_back(Output::FindDone { op, result: Ok(peer), trace: trace(now, &pending, way) });
            }
            (Response::Failed(failure), _) => {
                pending.fault = Some(failure);
                self.on_op_failed(now, op, rank);
            }
            _ => self.on_op_failed(now, op, rank),
        }
    }

    fn on_lease_answer(&mut self, now: Instant, op: OpId, rank: Rank, key: Id, answer: LeaseAnswer) {
        let unix = self.unix(now);
        let Some(begun) = self.client.ops.get(&op).map(|p| p.begun) else { return };
        let result = match answer {
            LeaseAnswer::Granted { fence, left } => Ok(Lease { fence, until: begun + left }),
            LeaseAnswer::Held { entry, left, .. } if self.verify.verify(&entry, &key, unix) => {
                Err(LeaseError::Held { entry, left })
            }
            LeaseAnswer::Later { left } if !left.is_zero() => Err(LeaseError::Unsure { left }),
            _ => return self.on_op_failed(now, op, rank),
        };
        let Some(pending) = self.client.ops.remove(&op) else { return };
        self.timers.cancel(&Timer::Hedge(op));
        let trace = Trace { took: now.since(pending.begun), retries: pending.retries, ..Trace::default() };
        self.out.push_back(Output::LeaseDone { op, result, trace });
    }

    fn on_found(&mut self, now: Instant, op: OpId, rank: Rank, entries: Vec<SignedEntry>, way: Way) {
        let Some(pending) = self.client.ops.get_mut(&op) else { return };
        pending.open = pending.open.saturating_sub(1);
        if entries.is_empty() && pending.empty.is_none() {
            pending.empty = Some(way);
            let other = if rank == Rank::Primary { Rank::Backup } else { Rank::Primary };
            let asked = pending.open > 0;
            if asked || self.send_op(now, op, other) {
                return;
            }
            return self.end_empty(now, op);
        }
        let Some(pending) = self.client.ops.remove(&op) else { return };
        self.timers.cancel(&Timer::Hedge(op));
        self.out.push_back(Output::GetDone { op, result: Ok(entries), trace: trace(now, &pending, way) });
    }

    fn end_empty(&mut self, now: Instant, op: OpId) {
        let Some(mut pending) = self.client.ops.remove(&op) else { return };
        self.timers.cancel(&Timer::Hedge(op));
        match pending.empty.take() {
            Some(way) => {
                let trace = trace(now, &pending, way);
                self.out.push_back(Output::GetDone { op, result: Ok(Vec::new()), trace });
            }
            None => self.end(now, op, &pending, Err(LookupError::Deadline)),
        }
    }

    pub(super) fn on_op_failed(&mut self, now: Instant, op: OpId, rank: Rank) {
        let Some(pending) = self.client.ops.get_mut(&op) else { return };
        pending.open = pending.open.saturating_sub(1);
        pending.retries = pending.retries.saturating_add(1);
        let other = if rank == Rank::Primary { Rank::Backup } else { Rank::Primary };
        if self.send_op(now, op, other) {
            return;
        }
        let Some(pending) = self.client.ops.get(&op).filter(|p| p.open == 0) else { return };
        if pending.empty.is_some() {
            return self.end_empty(now, op);
        }
        let fault = if pending.fault == Some(Failure::Busy) { LookupError::Busy } else { LookupError::Deadline };
        if let Some(pending) = self.client.ops.remove(&op) {
            self.timers.cancel(&Timer::Hedge(op));
            self.end(now, op, &pending, Err(fault));
        }
    }

    fn end(&mut self, now: Instant, op: OpId, pending: &Pending, result: Result<PeerRef, LookupError>) {
        let trace = Trace { took: now.since(pending.begun), retries: pending.retries, ..Trace::default() };
        let Err(fault) = result else { return };
        self.out.push_back(match pending.goal {
            Goal::Lease { .. } => {
                let invalid = pending.fault == Some(Failure::Invalid);
                let result = Err(if invalid { LeaseError::Invalid } else { fault.into() });
                Output::LeaseDone { op, result, trace }
            }
            Goal::Take { .. } => Output::TakeDone { op, result: Err(fault), trace },
            Goal::Put { .. } | Goal::Give { .. } => {
                let fault = match pending.fault {
                    Some(Failure::Invalid) => PutError::Invalid,
                    Some(Failure::NoAnswer) => PutError::TooFewHolders,
                    _ => fault.into(),
                };
                Output::PutDone { op, acks: 0, result: Err(fault), trace }
            }
            Goal::Get { .. } => Output::GetDone { op, result: Err(fault), trace },
            Goal::Find { .. } => Output::FindDone { op, result: Err(fault), trace },
        });
    }
}

/// How it went, seen from here: the supernode is one hop more.
fn trace(now: Instant, pending: &Pending, way: Way) -> Trace {
    Trace {
        hops: way.hops.saturating_add(1),
        asked: way.asked,
        took: now.since(pending.begun),
        retries: way.retries.saturating_add(pending.retries),
        mode: way.mode,
    }
}
