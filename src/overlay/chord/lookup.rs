//! Lookups: who is responsible for an identifier.
//!
//! A lookup goes in rounds. In a round it first sends one recursive request (where its mode allows), and when that fails or
//! takes longer than a hop may, goes on iteratively over another way, whichever answers first. An iterative step asks the
//! peer that it was referred to; when that one is silent, the best of all that the answers so far have named. When nobody is
//! left to ask, the next round begins, until the deadline.

use super::chunk_ask::Take;
use super::lease_ask::Want;
use super::read::Read;
use super::rpc::Why;
use super::store::Slot;
use super::write::Write;
use super::{Chord, Timer};
use crate::core::{Id, Instant};
use crate::identity::SignedEntry;
use crate::overlay::{LookupError, Mode, OpId, Output, PeerRef, PutError, Request, Response, Route, Trace};
use bytes::Bytes;
use std::time::Duration;

/// Peers asked in one lookup.
const MAX_ASKED: usize = 64;
/// Peers asked in one round to which no answer led: when those next to the target know no way, those further off do not
/// either, and the ring may have healed by the next round.
const MAX_GUESSES: u8 = 5;
/// Peers remembered from answers in one round.
const MAX_CANDIDATES: usize = 96;
/// Members asked about one identifier.
const LINE: usize = 4;
/// The wait before the second round; it grows by as much with each further one.
const ROUND: Duration = Duration::from_millis(100);
/// The longest such wait.
const ROUND_MOST: Duration = Duration::from_millis(500);
/// Rounds of a lookup that serves the ring's own upkeep.
const UPKEEP_ROUNDS: u8 = 2;

/// What a lookup is for.
pub(super) enum Goal {
    Find {
        op: OpId,
    },
    Get {
        op: OpId,
        read: Read,
    },
    Put {
        op: OpId,
        write: Write,
    },
    Lease {
        op: OpId,
        want: Want,
    },
    Take(Take),
    /// A finger's peer.
    Finger {
        step: u16,
    },
    /// A copy for the peer responsible for the slot; `drop`: the copy here is forgotten then.
    Place {
        slot: Slot,
        entries: Vec<SignedEntry>,
        /// The chunk, where the one entry is of one.
        bytes: Option<Bytes>,
        parent: Option<u64>,
        drop: bool,
    },
}

/// A lookup under way, with what it is for.
pub(super) struct Op {
    pub goal: Goal,
    pub target: Id,
    pub mode: Mode,
    /// Stage: answers to earlier ones are not waited for any more.
    pub epoch: u8,
    /// The responsible peer has been found.
    pub settled: bool,
    pub asked: Vec<PeerRef>,
    pub retries: u8,
    pub hops: u8,
    pub via: Mode,
    pub rounds: u8,
    started: Instant,
    /// A recursive request is out and the iterative half has not begun.
    recursing: bool,
    tried: Vec<Id>,
    candidates: Vec<PeerRef>,
    preferred: Option<PeerRef>,
    redirections: u8,
    guesses: u8,
}

/// Where a lookup ended.
pub(super) struct Found {
    pub owner: PeerRef,
    /// The peers around the owner that may hold replicas, likeliest first.
    pub replicas: Vec<PeerRef>,
    /// The owner says so itself; else it holds a replica.
    pub responsible: bool,
    /// What the owner, or a holder on the way to it, holds (a get's lookup only).
    pub entries: Option<Vec<SignedEntry>>,
}

impl Op {
    pub fn new(goal: Goal, target: Id, mode: Mode, now: Instant) -> Box<Op> {
        Box::new(Op {
            goal,
            target,
            mode,
            epoch: 0,
            settled: false,
            asked: Vec::new(),
            retries: 0,
            hops: 0,
            via: mode,
            rounds: 0,
            started: now,
            recursing: false,
            tried: Vec::new(),
            candidates: Vec::new(),
            preferred: None,
            redirections: 0,
            guesses: 0,
        })
    }

    pub fn trace(&self, now: Instant) -> Trace {
        Trace {
            hops: self.hops,
            asked: self.asked.clone(),
            took: now.since(self.started),
            retries: self.retries,
            mode: self.via,
        }
    }

    pub fn note_asked(&mut self, peer: PeerRef) {
        if self.asked.len() < MAX_ASKED {
            self.asked.push(peer);
        }
    }

    /// Looks for another identifier from now on.
    pub fn retarget(&mut self, target: Id, mode: Mode) {
        self.target = target;
        self.mode = mode;
        self.restart();
    }

    /// Forgets whom it asked, for another round.
    pub fn restart(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.settled = false;
        self.recursing = false;
        self.tried.clear();
        self.candidates.clear();
        self.preferred = None;
        self.redirections = 0;
        self.guesses = 0;
    }

    fn upkeep(&self) -> bool {
        matches!(self.goal, Goal::Finger { .. } | Goal::Place { .. })
    }

    fn request(&self, route: Route) -> Request {
        match &self.goal {
            Goal::Get { read, .. } => read.request(route),
            _ => Request::Query { target: self.target, route },
        }
    }
}

impl Chord {
    /// Begins a lookup; its number.
    pub(super) fn start(&mut self, now: Instant, goal: Goal, target: Id, mode: Mode) -> u64 {
        let id = self.fresh();
        let preferred = match &goal {
            // The peer that the finger points to now most often still is the one.
            Goal::Finger { .. } => Some(self.table.covering(&target)).filter(|p| p.id != self.table.me.id),
            _ => None,
        };
        let mut op = Op::new(goal, target, mode, now);
        op.preferred = preferred;
        self.timers.set(Timer::Op(id), now + self.config.op_deadline);
        self.round(now, id, op);
        id
    }

    /// One round, from the start.
    pub(super) fn round(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        if self.table.is_responsible(&op.target) {
            let me = self.table.me;
            let found = Found { owner: me, replicas: self.table.successors(), responsible: true, entries: None };
            op.hops = 0;
            op.via = Mode::Iterative;
            return self.found(now, id, op, found);
        }
        if op.rounds == 0 && op.mode != Mode::Recursive && self.members.complete() {
            let line: Vec<PeerRef> = self.line(now, &op.target).take(LINE).collect();
            if line.first().is_some_and(|p| p.id != self.table.me.id) {
                return self.straight(now, id, op, line);
            }
        }
        match op.mode {
            Mode::Iterative | Mode::Sure => self.step(now, id, op),
            Mode::Auto | Mode::Recursive => self.recurse(now, id, op),
        }
    }

    /// The members from `position` on that may be asked: the responsible peer, its successors. This peer is among them.
    pub(super) fn line(&self, now: Instant, position: &Id) -> impl Iterator<Item = PeerRef> {
        let me = self.table.me;
        self.members.from(position, me).filter_map(move |p| {
            if p.id == me.id {
                return Some(p);
            }
            match self.table.contact(&p.id) {
                // Where it was reached is where it is.
                Some(c) => (c.misses == 0).then_some(PeerRef { id: p.id, addr: c.addr }),
                None => (!self.table.buried(&p.id, now)).then_some(p),
            }
        })
    }

    /// To the peer that the member list has as the responsible one.
    fn straight(&mut self, now: Instant, id: u64, mut op: Box<Op>, line: Vec<PeerRef>) {
        let owner = line[0];
        if let Goal::Put { .. } | Goal::Lease { .. } | Goal::Take(_) = op.goal {
            // The write itself finds out whether it is.
            op.note_asked(owner);
            (op.hops, op.via) = (1, Mode::Iterative);
            let found = Found { owner, replicas: line[1..].to_vec(), responsible: true, entries: None };
            return self.found(now, id, op, found);
        }
        op.candidates.extend(line.iter().filter(|p| p.id != self.table.me.id));
        op.preferred = Some(owner);
        self.step(now, id, op);
    }

    pub(super) fn on_again(&mut self, now: Instant, id: u64) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        if op.settled {
            self.hurry_read(now, id, op);
        } else if op.recursing {
            op.retries = op.retries.saturating_add(1);
            self.go_iterative(now, id, op);
        } else {
            op.restart();
            self.round(now, id, op);
        }
    }

    /// The answer to a step, or `None` when there is none.
    pub(super) fn on_step(
        &mut self,
        now: Instant,
        id: u64,
        epoch: u8,
        recursive: bool,
        from: PeerRef,
        response: Option<Response>,
    ) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        if op.settled || op.epoch != epoch {
            self.ops.insert(id, op);
            return;
        }
        match response {
            Some(Response::Responsible { links, path, .. }) if !matches!(op.goal, Goal::Get { .. }) => {
                let owner = self.arrived(&mut op, recursive, from, &path);
                if self.is_implausible(&mut op, &owner.id) {
                    return self.advance(now, id, op, recursive);
                }
                self.found(now, id, op, Found { owner, replicas: links.successors, responsible: true, entries: None });
            }
            Some(Response::Entries { entries, responsible, links, path }) if matches!(op.goal, Goal::Get { .. }) => {
                if recursive && entries.is_empty() && op.mode == Mode::Auto {
                    // "Nothing" from a chain of strangers is doubtful: ask for oneself.
                    return self.unrecurse(now, id, op);
                }
                let owner = self.arrived(&mut op, recursive, from, &path);
                if entries.is_empty() && self.is_implausible(&mut op, &owner.id) {
                    return self.advance(now, id, op, recursive);
                }
                let mut replicas = links.successors;
                if !responsible {
                    // A replica answered: the responsible peer is before it.
                    let mut around = Vec::new();
                    let (mut p, mut s) = (links.predecessors.into_iter(), replicas.into_iter());
                    loop {
                        let pair = (p.next(), s.next());
                        around.extend(pair.0);
                        around.extend(pair.1);
                        if pair == (None, None) {
                            break;
                        }
                    }
                    replicas = around;
                }
                self.found(now, id, op, Found { owner, replicas, responsible, entries: Some(entries) });
            }
            Some(Response::Cached { entries, path })
                if matches!(op.goal, Goal::Get { .. }) && op.mode != Mode::Sure =>
            {
                let owner = self.arrived(&mut op, recursive, from, &path);
                self.read_cached(now, id, op, owner, entries);
            }
            Some(Response::Redirect { closer, links }) => {
                op.redirections = op.redirections.saturating_add(1);
                for peer in std::iter::once(&closer).chain(links.peers()) {
                    if op.candidates.len() < MAX_CANDIDATES
                        && peer.id != self.table.me.id
                        && !self.table.buried(&peer.id, now)
                        && !op.candidates.contains(peer)
                    {
                        op.candidates.push(*peer);
                    }
                }
                if !recursive {
                    op.candidates.push(from);
                }
                op.preferred = (!self.table.buried(&closer.id, now)).then_some(closer);
                self.advance(now, id, op, recursive);
            }
            _ => {
                op.retries = op.retries.saturating_add(1);
                self.advance(now, id, op, recursive);
            }
        }
    }

    /// True where what is known speaks against a claim to be responsible: on with somebody else. A nearer peer is asked; it may
    /// be the one that is dead.
    fn is_implausible(&mut self, op: &mut Op, owner: &Id) -> bool {
        let closer = self.table.closer_than(owner, &op.target);
        if closer.is_none() && !self.table.is_too_far(owner, &op.target) {
            return false;
        }
        self.counters.implausible += 1;
        op.retries = op.retries.saturating_add(1);
        if let Some(closer) = closer {
            op.tried.retain(|id| *id != closer.id);
            op.preferred = Some(closer);
        }
        true
    }

    pub(super) fn on_op_deadline(&mut self, now: Instant, id: u64) {
        let Some(op) = self.ops.remove(&id) else { return };
        self.forget_op(id);
        self.expire_op(now, id, op);
    }

    /// No more timers for this lookup.
    pub(super) fn forget_op(&mut self, id: u64) {
        self.timers.cancel(&Timer::Op(id));
        self.timers.cancel(&Timer::Again(id));
    }

    /// Puts the lookup off until its next round.
    pub(super) fn put_off(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        op.rounds = op.rounds.saturating_add(1);
        if op.upkeep() && op.rounds >= UPKEEP_ROUNDS {
            self.forget_op(id);
            return self.expire_op(now, id, op);
        }
        op.epoch = op.epoch.wrapping_add(1);
        op.settled = false;
        op.recursing = false;
        self.timers.set(Timer::Again(id), now + (ROUND * u32::from(op.rounds)).min(ROUND_MOST));
        self.ops.insert(id, op);
    }

    fn expire_op(&mut self, now: Instant, id: u64, op: Box<Op>) {
        match &op.goal {
            Goal::Find { op: name } => {
                self.counters.lookups_failed += 1;
                let trace = op.trace(now);
                self.out.push_back(Output::FindDone { op: *name, result: Err(LookupError::Deadline), trace });
            }
            Goal::Get { .. } => self.end_read(now, id, op, true),
            Goal::Lease { .. } => self.lease_expired(now, &op),
            Goal::Take(_) => self.end_take(now, id, op, Err(LookupError::Deadline)),
            Goal::Put { op: name, write } => {
                if !write.reported {
                    self.counters.lookups_failed += 1;
                    let acks = write.acks();
                    let error =
                        if acks == 0 { PutError::Lookup(LookupError::Deadline) } else { PutError::TooFewHolders };
                    let trace = op.trace(now);
                    self.out.push_back(Output::PutDone { op: *name, acks, result: Err(error), trace });
                }
            }
            Goal::Finger { step } => self.on_finger(now, *step, None),
            Goal::Place { parent, .. } => {
                if let Some(parent) = *parent {
                    self.on_copy(now, parent, None);
                }
            }
        }
    }

    fn found(&mut self, now: Instant, id: u64, mut op: Box<Op>, found: Found) {
        op.settled = true;
        op.recursing = false;
        op.epoch = op.epoch.wrapping_add(1);
        self.timers.cancel(&Timer::Again(id));
        match &op.goal {
            Goal::Find { op: name } => {
                let trace = op.trace(now);
                self.out.push_back(Output::FindDone { op: *name, result: Ok(found.owner), trace });
                self.forget_op(id);
            }
            Goal::Finger { step } => {
                let step = *step;
                self.forget_op(id);
                self.on_finger(now, step, Some(found.owner));
            }
            Goal::Get { .. } => self.read_found(now, id, op, found),
            Goal::Lease { .. } => self.lease_found(now, id, op, &found),
            Goal::Take(_) => {
                let found = self.with_members(now, found, &op.target);
                self.take_found(now, id, op, found);
            }
            Goal::Put { .. } => {
                let found = self.with_members(now, found, &op.target);
                self.write_found(now, id, op, found);
            }
            Goal::Place { .. } => self.place_found(now, id, op, found),
        }
    }

    /// Who holds replicas is what the member list says, before what the responsible peer says.
    fn with_members(&self, now: Instant, mut found: Found, target: &Id) -> Found {
        if self.members.complete() {
            let line = self.line(now, target).filter(|p| p.id != found.owner.id).take(self.config.successor_replicas);
            let mut replicas: Vec<PeerRef> = line.collect();
            let said = std::mem::take(&mut found.replicas);
            replicas.extend(said.into_iter().filter(|s| replicas.iter().all(|r| r.id != s.id)).collect::<Vec<_>>());
            found.replicas = replicas;
        }
        found
    }

    /// Notes the way that a lookup took; the peer it led to.
    fn arrived(&self, op: &mut Op, recursive: bool, from: PeerRef, path: &[PeerRef]) -> PeerRef {
        if !recursive {
            op.hops = op.redirections.saturating_add(1);
            op.via = Mode::Iterative;
            return from;
        }
        // The first of the path is this peer, the second was asked by it.
        for peer in path.iter().skip(2) {
            op.note_asked(*peer);
        }
        op.hops = u8::try_from(path.len().saturating_sub(1).max(1)).unwrap_or(u8::MAX);
        op.via = Mode::Recursive;
        path.last().copied().filter(|p| p.id != self.table.me.id).unwrap_or(from)
    }

    fn recurse(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        let Some(next) = self.table.next_hop(&op.target, |p| op.tried.contains(p)) else {
            return self.put_off(now, id, op);
        };
        op.tried.push(next.id);
        op.note_asked(next);
        op.recursing = true;
        let request = op.request(Route::Recursive { hops: self.config.max_hops, path: vec![self.table.me] });
        let why = Why::Step { op: id, epoch: op.epoch, recursive: true };
        if op.mode == Mode::Auto {
            self.timers.set(Timer::Again(id), now + self.patience(&next.id));
        }
        self.ops.insert(id, op);
        self.send(now, next, request, why);
    }

    /// From the recursive half of a round to the iterative one.
    fn unrecurse(&mut self, now: Instant, id: u64, op: Box<Op>) {
        if op.recursing {
            self.timers.cancel(&Timer::Again(id));
            self.go_iterative(now, id, op);
        } else {
            // The iterative half is under way already.
            self.ops.insert(id, op);
        }
    }

    /// Begins the iterative half with another peer than the recursive one, which may still be asked later on.
    fn go_iterative(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        op.recursing = false;
        let tried = std::mem::take(&mut op.tried);
        op.preferred = self.table.next_hop(&op.target, |p| tried.contains(p));
        self.step(now, id, op);
    }

    fn advance(&mut self, now: Instant, id: u64, op: Box<Op>, recursive: bool) {
        match (recursive, op.mode) {
            (false, _) => self.step(now, id, op),
            (true, Mode::Recursive) => self.recurse(now, id, op),
            (true, _) => self.unrecurse(now, id, op),
        }
    }

    fn step(&mut self, now: Instant, id: u64, mut op: Box<Op>) {
        let me = self.table.me.id;
        let mut next = op.preferred.take().filter(|p| p.id != me && !op.tried.contains(&p.id));
        if next.is_none() && op.guesses < MAX_GUESSES {
            op.guesses += 1;
            next = self.best(&op);
        }
        let Some(next) = next.filter(|_| op.tried.len() < MAX_ASKED) else { return self.put_off(now, id, op) };
        op.tried.push(next.id);
        op.note_asked(next);
        let request = op.request(Route::Iterative);
        let why = Why::Step { op: id, epoch: op.epoch, recursive: false };
        self.ops.insert(id, op);
        self.send(now, next, request, why);
    }

    /// The best peer not asked yet: the closest that precedes the target; the closest after it when the one before was asked
    /// in vain.
    fn best(&self, op: &Op) -> Option<PeerRef> {
        let (space, me) = (self.config.space, self.table.me.id);
        let fresh = |id: &Id| *id != me && !op.tried.contains(id);
        let own = self.table.next_hop(&op.target, |id| !fresh(id));
        let precedes = |p: &&PeerRef| space.in_open(&p.id, &me, &op.target);
        let before_by = |p: &&PeerRef| space.distance(&p.id, &op.target);
        let after_by = |p: &&PeerRef| space.distance(&op.target, &p.id);
        let all = || op.candidates.iter().chain(&own);
        let nearest = all().filter(precedes).min_by_key(before_by);
        let before = all().filter(precedes).filter(|p| fresh(&p.id)).min_by_key(before_by);
        let after = all().filter(|p| !precedes(p)).filter(|p| fresh(&p.id)).min_by_key(after_by);
        match (nearest, before, after) {
            (Some(n), _, Some(a)) if !fresh(&n.id) => Some(*a),
            (_, Some(b), _) => Some(*b),
            (_, None, a) => a.copied(),
        }
    }
}
