//! Leases: one winner at a time, chosen by the responsible peer and agreed to by all who hold replicas beside it.
//!
//! The responsible peer takes a request, remembers it, and asks its successors (as many as hold replicas) to agree. Each refuses
//! where it knows a lease of another device that runs, else remembers this one before it answers. Only when *all* of them
//! have agreed is it granted, so that whoever takes over knows it; and only when enough of them can know (`lease_known`): a
//! majority of those who decided together before any of them was lost, each one of them for longer than the longest lease. Where
//! that is not so the answer is "later", and after [`LONGEST_LEASE`](crate::identity::LONGEST_LEASE) and ten seconds it is so by itself.
//!
//! Times are spans, counted from the moment of asking by the asker and from the moment of hearing by those who agreed, on
//! monotonic clocks: wall clocks play no part. Nothing is kept on disks: a peer that was started anew is one that does not know.
//!
//! What that gives. Deaths, restarts, joins, lost messages, one after another or together: never two at once. A cut of the network: the
//! side with the majority of those who decided goes on, the other refuses, for as long as the cut lasts less than the longest
//! lease; one that lasts longer makes two rings, each with holders of its own. Neighbours that do not learn of each other for
//! that long are the same. A responsible peer that lies can give a lease to two.

use super::lease_known::{GRACE, Known};
use super::rpc::Why;
use super::{Chord, State};
use crate::core::{Id, Instant};
use crate::identity::{EntryKind, LEASE_LIFETIME, LeaseBody, PublicKey, SignedEntry};
use crate::overlay::{Failure, LeaseAnswer, PeerRef, Request, Response, Route, Token, Vote};
use std::collections::BTreeMap;
use std::time::Duration;

/// Leases remembered, those that are over included, and those of one device.
const MOST: usize = 4096;
const MOST_OF_ONE: usize = 256;
/// Requests that are being agreed on at once.
const MOST_ROUNDS: usize = 256;
/// Tokens tried for one request.
const TRIES: u8 = 4;
/// For how long the last token and request are remembered: no request is good for longer.
const REMEMBERED: Duration = Duration::from_secs(LEASE_LIFETIME as u64 + 300);

/// The last lease of one name.
struct Grant {
    /// The holder's request, or its giving back.
    entry: SignedEntry,
    fence: u64,
    until: Instant,
    over: bool,
    /// With which token this holding began here.
    began: u64,
}

impl Grant {
    fn runs(&self, now: Instant) -> bool {
        !self.over && self.until > now
    }
}

/// Who is told what became of a request.
#[derive(Debug)]
pub(super) enum Asker {
    Peer(Token),
    /// This peer's own operation, and when it asked.
    Own(u64, Instant),
}

/// A request that is being agreed on.
struct Round {
    number: u64,
    asker: Asker,
    entry: SignedEntry,
    vote: Vote,
    waiting: Vec<Id>,
    knowing: usize,
    width: u8,
    fence: u64,
    fresh: bool,
    tries: u8,
    refused: Option<LeaseAnswer>,
}

#[derive(Default)]
pub(super) struct Leases {
    grants: BTreeMap<Id, Grant>,
    rounds: BTreeMap<Id, Round>,
    pub known: Known,
}

impl Chord {
    /// A request for a lease that came here, or a vote.
    pub(super) fn serve_lease(
        &mut self,
        now: Instant,
        from: PeerRef,
        token: Token,
        (key, entry, vote): (Id, SignedEntry, Option<Vote>),
        route: &Route,
    ) -> Option<(Id, SignedEntry)> {
        match vote {
            Some(vote) if *route == Route::Here => {
                let response = self.vote(now, &from.id, key, entry, vote);
                self.reply(token, response);
            }
            Some(_) => self.reply(token, Response::Failed(Failure::Bad)),
            None if self.table.is_responsible(&key) => self.ask_lease(now, key, entry, Asker::Peer(token)),
            None => return Some((key, entry)),
        }
        None
    }

    /// A device asks, and this peer is responsible.
    pub(super) fn ask_lease(&mut self, now: Instant, key: Id, entry: SignedEntry, asker: Asker) {
        self.leases.forget(now);
        let span = match self.lease_span(now, &key, &entry) {
            Some(span) => span,
            None => return self.tell_asker(now, asker, Response::Failed(Failure::Invalid)),
        };
        let last = self.leases.grants.get(&key);
        let mine = last.filter(|g| same(&g.entry, &entry));
        if let Some(seen) = mine
            && (entry.entry().sequence < seen.entry.entry().sequence
                || seen.over && entry.entry().sequence == seen.entry.entry().sequence)
        {
            return self.tell_asker(now, asker, Response::Failed(Failure::Invalid));
        }
        if let Some(other) = last.filter(|g| g.runs(now) && !same(&g.entry, &entry)) {
            let answer = match span.is_zero() {
                // It has not got it, and that is what it wants.
                true => LeaseAnswer::Granted { fence: other.fence, left: Duration::ZERO },
                false => other.held(now),
            };
            self.counters.leases_held += u64::from(!span.is_zero());
            return self.tell_asker(now, asker, Response::Lease(answer));
        }
        if self.leases.rounds.contains_key(&key) || self.leases.rounds.len() >= MOST_ROUNDS {
            return self.tell_asker(now, asker, Response::Lease(LeaseAnswer::Later { left: Duration::ZERO }));
        }
        if !span.is_zero() && self.leases.is_full(&key, &entry.entry().device) {
            self.counters.full += 1;
            return self.tell_asker(now, asker, Response::Failed(Failure::Busy));
        }
        let (known, running) = (last.map_or(0, |g| g.fence), mine.is_some_and(|g| g.runs(now)));
        // What came to nothing here may have been the holder's going on elsewhere: only what was given back is over for all.
        let over = last.filter(|g| g.over && g.entry.entry().is_removal()).map_or(0, |g| g.fence);
        // The wall clock in milliseconds lies above what was given by those of whom nobody is left.
        let fence = if running || span.is_zero() { known } else { (known + 1).max(self.unix(now).secs() * 1000) };
        let fresh = !running;
        let vote = Vote { fence, over, left: span };
        self.begin_round(now, key, (asker, entry, vote), fresh, TRIES);
    }

    fn begin_round(
        &mut self,
        now: Instant,
        key: Id,
        (asker, entry, vote): (Asker, SignedEntry, Vote),
        fresh: bool,
        tries: u8,
    ) {
        let number = self.fresh();
        self.leases.note(now, key, &entry, &vote);
        let voters = self.voters();
        let round = Round {
            number,
            asker,
            entry: entry.clone(),
            vote,
            waiting: voters.iter().map(|v| v.id).collect(),
            knowing: 0,
            width: 0,
            fence: vote.fence,
            fresh,
            tries,
            refused: None,
        };
        self.leases.rounds.insert(key, round);
        for voter in voters {
            self.send_vote(now, voter, key, &entry, vote, Some(number));
        }
        self.end_round(now, key);
    }

    fn voters(&self) -> Vec<PeerRef> {
        self.table.successors().into_iter().take(self.config.successor_replicas).collect()
    }

    fn send_vote(&mut self, now: Instant, to: PeerRef, key: Id, entry: &SignedEntry, vote: Vote, round: Option<u64>) {
        let entry = Box::new(entry.clone());
        let request = Request::Lease { key, entry, vote: Some(vote), route: Route::Here };
        self.send(now, to, request, Why::Vote { key, round: round.unwrap_or(0) });
    }

    /// The responsible peer asks this one to agree.
    fn vote(&mut self, now: Instant, from: &Id, key: Id, entry: SignedEntry, vote: Vote) -> Response {
        self.leases.forget(now);
        let Some(span) = self.lease_span(now, &key, &entry) else { return Response::Failed(Failure::Invalid) };
        // By what this peer knows, that one is to decide and this one is to be asked.
        let others = self.table.predecessors();
        let right = !self.table.is_responsible(&key)
            && match self.table.owner_before(&key) {
                Some(owner) => owner == *from,
                None => others.contains(from) && others.len() <= self.config.successor_replicas + 1,
            };
        if !right || vote.left > span {
            return Response::Lease(LeaseAnswer::Later { left: Duration::ZERO });
        }
        if let Some(last) = self.leases.grants.get(&key) {
            let same = same(&last.entry, &entry);
            if last.runs(now) && !same && last.fence > vote.over {
                return Response::Lease(last.held(now));
            }
            let goes_on = same && last.runs(now);
            if !goes_on && !vote.left.is_zero() && last.fence >= vote.fence {
                return Response::Lease(LeaseAnswer::Behind { fence: last.fence });
            }
        } else if !vote.left.is_zero() && self.leases.is_full(&key, &entry.entry().device) {
            self.counters.full += 1;
            return Response::Failed(Failure::Busy);
        }
        let fence = self.leases.note(now, key, &entry, &vote);
        let knows = self.leases.known.ignorant_for(self.config.space, &self.table.me.id, &key, now).is_zero();
        let width = self.leases.known.width(self.config.successor_replicas, now);
        Response::Lease(LeaseAnswer::Agreed { fence, knows, width })
    }

    /// One has agreed, or not; `None`: no answer.
    pub(super) fn on_voted(&mut self, now: Instant, key: Id, number: u64, from: &Id, response: Option<Response>) {
        let unix = self.unix(now);
        let Some(round) = self.leases.rounds.get_mut(&key).filter(|r| r.number == number) else { return };
        round.waiting.retain(|id| id != from);
        match response {
            Some(Response::Lease(LeaseAnswer::Agreed { fence, knows, width })) => {
                round.knowing += usize::from(knows);
                round.width = round.width.max(width.min(1 + self.config.successor_replicas as u8));
                round.fence = round.fence.max(fence);
            }
            Some(Response::Lease(answer @ (LeaseAnswer::Held { .. } | LeaseAnswer::Behind { .. }))) => {
                let believed = match &answer {
                    LeaseAnswer::Held { entry, .. } => {
                        entry.entry().kind == EntryKind::LEASE && self.verify.verify(entry, &key, unix)
                    }
                    // A token is a time in milliseconds, or a little more: nobody drives it to its end.
                    LeaseAnswer::Behind { fence } => *fence < (unix.secs() + REMEMBERED.as_secs()) * 1000,
                    _ => false,
                };
                let later = LeaseAnswer::Later { left: Duration::ZERO };
                round.refused = Some(if believed { answer } else { later });
            }
            _ => {
                let later = LeaseAnswer::Later { left: Duration::ZERO };
                round.refused.get_or_insert(later);
            }
        }
        self.end_round(now, key);
    }

    /// Once all have answered: granted or not.
    fn end_round(&mut self, now: Instant, key: Id) {
        let Some(round) = self.leases.rounds.get(&key) else { return };
        if !round.waiting.is_empty() {
            return;
        }
        let Some(round) = self.leases.rounds.remove(&key) else { return };
        if round.vote.left.is_zero() {
            // Given back: who was not reached holds it until its time is over, or hears of it with the next vote.
            let answer = LeaseAnswer::Granted { fence: round.fence, left: Duration::ZERO };
            return self.tell_asker(now, round.asker, Response::Lease(answer));
        }
        let (space, me) = (self.config.space, self.table.me.id);
        let ignorant = self.leases.known.ignorant_for(space, &me, &key, now);
        let knowing = round.knowing + usize::from(ignorant.is_zero());
        let width = round.width.max(self.leases.known.width(self.config.successor_replicas, now));
        let responsible = self.state == State::Joined && self.table.is_responsible(&key);
        let refused = match round.refused.clone() {
            Some(refused) => Some(refused),
            None if !responsible => Some(LeaseAnswer::Later { left: Duration::ZERO }),
            None if knowing <= usize::from(width) / 2 => {
                self.counters.leases_unsure += 1;
                let left = ignorant.max(self.leases.known.mourns_for(now)).max(Duration::from_secs(1));
                Some(LeaseAnswer::Later { left: whole(left) })
            }
            None => None,
        };
        let Some(refused) = refused else {
            self.counters.leases += 1;
            // Those beside it may know of a higher token for the same holding.
            if let Some(grant) = self.leases.grants.get_mut(&key) {
                grant.fence = grant.fence.max(round.fence);
            }
            let answer = LeaseAnswer::Granted { fence: round.fence, left: round.vote.left };
            return self.tell_asker(now, round.asker, Response::Lease(answer));
        };
        if round.fresh {
            // It comes to nothing: nobody is to keep others away for its sake.
            let nothing = Vote { left: Duration::ZERO, ..round.vote };
            self.leases.note(now, key, &round.entry, &nothing);
            for voter in self.voters() {
                self.send_vote(now, voter, key, &round.entry, nothing, None);
            }
        }
        match refused {
            LeaseAnswer::Behind { fence } if round.tries > 0 && responsible => {
                let vote = Vote { fence: fence + 1, ..round.vote };
                self.begin_round(now, key, (round.asker, round.entry, vote), round.fresh, round.tries - 1);
            }
            LeaseAnswer::Behind { .. } => {
                let later = LeaseAnswer::Later { left: Duration::ZERO };
                self.tell_asker(now, round.asker, Response::Lease(later));
            }
            LeaseAnswer::Held { entry, fence, left } => {
                self.counters.leases_held += 1;
                let known = self.leases.grants.get(&key).is_some_and(|g| g.runs(now) && !g.over && g.fence >= fence);
                if !known && !same(&entry, &round.entry) {
                    let vote = Vote { fence, over: 0, left: left.min(crate::identity::LONGEST_LEASE) };
                    self.leases.note(now, key, &entry, &vote);
                }
                self.tell_asker(now, round.asker, Response::Lease(LeaseAnswer::Held { entry, fence, left }));
            }
            other => self.tell_asker(now, round.asker, Response::Lease(other)),
        }
    }

    /// For how long the entry asks, zero where it gives back; `None` where it is no good.
    fn lease_span(&mut self, now: Instant, key: &Id, entry: &SignedEntry) -> Option<Duration> {
        let unix = self.unix(now);
        let e = entry.entry();
        if e.kind != EntryKind::LEASE || !self.verify.verify(entry, key, unix) {
            self.counters.invalid += 1;
            return None;
        }
        if e.is_removal() { Some(Duration::ZERO) } else { LeaseBody::decode(&e.body).ok().map(|body| body.span()) }
    }

    fn tell_asker(&mut self, now: Instant, asker: Asker, response: Response) {
        match asker {
            Asker::Peer(token) => self.reply(token, response),
            Asker::Own(op, sent) => self.on_leased(now, op, None, sent, Some(response)),
        }
    }
}

impl Leases {
    /// Nobody waits any more: the peer is out of the ring.
    pub fn clear(&mut self) -> Vec<Asker> {
        self.known.clear();
        std::mem::take(&mut self.rounds).into_values().map(|round| round.asker).collect()
    }

    /// Remembers what was agreed to, given back or came to nothing; the token of it.
    fn note(&mut self, now: Instant, key: Id, entry: &SignedEntry, vote: &Vote) -> u64 {
        let end = now + vote.left + vote.left / GRACE;
        let Some(last) = self.grants.get_mut(&key) else {
            let over = vote.left.is_zero();
            let grant = Grant { entry: entry.clone(), fence: vote.fence, until: end, over, began: vote.fence };
            self.grants.insert(key, grant);
            return vote.fence;
        };
        let mine = same(&last.entry, entry);
        if vote.left.is_zero() {
            let given_back = entry.entry().is_removal() && entry.entry().sequence > last.entry.entry().sequence;
            // What ran before the vote that came to nothing goes on.
            let nothing = !entry.entry().is_removal() && last.began == vote.fence;
            if mine && (given_back || nothing) {
                (last.over, last.until) = (true, now);
            }
            if mine && given_back {
                last.entry = entry.clone();
            }
            return last.fence;
        }
        if mine && last.runs(now) {
            last.fence = last.fence.max(vote.fence);
            last.until = last.until.max(end);
            last.entry = entry.clone();
            return last.fence;
        }
        *last = Grant { entry: entry.clone(), fence: vote.fence, until: end, over: false, began: vote.fence };
        vote.fence
    }

    fn is_full(&self, key: &Id, device: &PublicKey) -> bool {
        let of_one = || self.grants.values().filter(|g| g.entry.entry().device == *device).count();
        !self.grants.contains_key(key) && (self.grants.len() >= MOST || of_one() >= MOST_OF_ONE)
    }

    fn forget(&mut self, now: Instant) {
        self.grants.retain(|_, g| g.until + REMEMBERED > now);
    }
}

impl Grant {
    fn held(&self, now: Instant) -> LeaseAnswer {
        LeaseAnswer::Held { entry: Box::new(self.entry.clone()), fence: self.fence, left: whole(self.until.since(now)) }
    }
}

/// Milliseconds, as it travels.
fn whole(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Of one device.
fn same(one: &SignedEntry, other: &SignedEntry) -> bool {
    one.dictionary_key() == other.dictionary_key()
}
