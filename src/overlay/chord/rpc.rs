//! Requests out: deadlines, answers, failures, and what a failure does to the tables.

use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Failure, Output, PeerRef, Request, Response, Route, RpcId};
use std::time::Duration;

/// Why a request was sent, which says what becomes of its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    Join,
    Stabilise,
    /// A peer registration to a peer believed to come right after this one.
    Notify,
    /// A sign of life.
    Probe,
    /// A lookup's step, of the lookup's stage `epoch`.
    Step {
        op: u64,
        epoch: u8,
        recursive: bool,
    },
    /// A holder asked by a get.
    Read {
        op: u64,
        replica: u8,
    },
    /// A holder written to by a put.
    Write {
        op: u64,
        epoch: u8,
    },
    /// The scattered or misplaced copy.
    Place {
        op: u64,
    },
    Push {
        slot: super::Slot,
    },
    Pull {
        slot: super::Slot,
    },
    /// A comparison's step.
    Compare(u64),
    Repair,
    /// News of members, to be handed on.
    News,
    /// The member list, compared.
    CompareMembers,
    Relay(u64),
    /// A lease asked for, at the lookup's stage `epoch`.
    Lease {
        op: u64,
        epoch: u8,
    },
    /// A chunk asked for.
    Take {
        op: u64,
        epoch: u8,
    },
    /// Somebody's agreement to a lease; of round 0 nobody waits for it.
    Vote {
        key: Id,
        round: u64,
    },
    Bye,
}

#[derive(Debug)]
pub(super) struct Rpc {
    pub to: PeerRef,
    /// The peer-ID is known and has to be the one that answers.
    pub named: bool,
    pub why: Why,
    pub sent: Instant,
    pub recursive: bool,
}

impl Chord {
    pub(super) fn send(&mut self, now: Instant, to: PeerRef, request: Request, why: Why) {
        let wait = match &why {
            Why::Step { recursive: true, .. } => self.recursive_patience(),
            // It decides about life and death, and a segment that was lost comes again.
            Why::Probe => (self.patience(&to.id) * 2).min(self.config.rpc_ceiling),
            Why::Join => self.config.rpc_first * 2,
            _ if matches!(request, Request::Give { .. }) => super::chunk_ask::PATIENCE,
            _ => self.patience(&to.id),
        };
        self.send_within(now, to, true, request, why, wait);
    }

    pub(super) fn send_within(
        &mut self,
        now: Instant,
        to: PeerRef,
        named: bool,
        request: Request,
        why: Why,
        wait: Duration,
    ) {
        let id = self.fresh();
        let recursive = matches!(
            request,
            Request::Query { route: Route::Recursive { .. }, .. }
                | Request::Fetch { route: Route::Recursive { .. }, .. }
        );
        self.timers.set(Timer::Rpc(id), now + wait);
        self.rpcs.insert(id, Rpc { to, named, why, sent: now, recursive });
        self.counters.sent += 1;
        self.out.push_back(Output::Send { rpc: RpcId(id), peer: named.then_some(to.id), addr: to.addr, request });
    }

    /// How long an answer of this peer is waited for.
    pub(super) fn patience(&self, peer: &Id) -> Duration {
        match self.table.contact(peer) {
            Some(c) if c.srtt > 0 => {
                (Duration::from_micros(u64::from(c.srtt)) * 3).max(self.config.rpc_floor).min(self.config.rpc_ceiling)
            }
            _ => self.config.rpc_first,
        }
    }

    /// How long the answer to a request that travels on is waited for: long enough for the last hop to find its deadline and
    /// make one detour.
    pub(super) fn recursive_patience(&self) -> Duration {
        self.config.rpc_floor * 5 / 2
    }

    pub(super) fn on_response(&mut self, now: Instant, rpc: RpcId, from: PeerRef, response: Response) {
        let Some(sent) = self.rpcs.remove(&rpc.0) else {
            // Too late for what was asked, and a sign of life.
            self.table.heard(from, now);
            return;
        };
        self.timers.cancel(&Timer::Rpc(rpc.0));
        if sent.named && from.id != sent.to.id {
            // Somebody else lives at that address now.
            self.counters.refused += 1;
            self.fail_peer(now, &sent.to.id);
            self.failed(now, rpc.0, sent, true);
            return;
        }
        self.counters.answered += 1;
        let round_trip = (!sent.recursive).then(|| now.since(sent.sent));
        let from = PeerRef { id: from.id, addr: sent.to.addr };
        let first = self.table.reached(from, round_trip, now);
        self.forget_stranger(&from.id);
        if response == Response::Failed(Failure::NotInRing) && !sent.recursive {
            // It lives, and has no place here (yet, or any more).
            if sent.why != Why::Join {
                self.fail_peer(now, &from.id);
            }
        } else {
            self.seen(now, from);
        }
        match sent.why {
            Why::Join => self.on_join_answer(now, from, response),
            Why::Stabilise => self.on_stabilise_answer(now, from, response),
            Why::Notify => self.on_notify_answer(now, from, response),
            Why::Probe => self.on_probe_answer(now, from, response),
            Why::Step { op, epoch, recursive } => self.on_step(now, op, epoch, recursive, from, Some(response)),
            Why::Read { op, replica } => self.on_read(now, op, from, replica, Some(response)),
            Why::Write { op, epoch } => self.on_written(now, op, epoch, from, Some(response)),
            Why::Place { op } => self.on_placed(now, op, from, Some(response)),
            Why::Push { slot } => self.on_pushed(now, from, slot, Some(response)),
            Why::Pull { slot } => self.on_pulled(now, slot, Some(response)),
            Why::Compare(id) => self.on_compared(now, id, Some(response)),
            Why::Relay(relay) => self.on_relay(now, relay, Some(response)),
            Why::Lease { op, epoch } => self.on_leased(now, op, Some(epoch), sent.sent, Some(response)),
            Why::Take { op, epoch } => self.on_taken(now, op, epoch, Some(response)),
            Why::Vote { key, round } => self.on_voted(now, key, round, &from.id, Some(response)),
            Why::Repair => {}
            Why::News => {
                self.gossip.handed.remove(&rpc.0);
            }
            Why::CompareMembers => self.on_members_compared(now, from, response),
            Why::Bye => self.on_farewell(now),
        }
        if first {
            self.evict();
        }
    }

    pub(super) fn on_rpc_failed(&mut self, now: Instant, rpc: RpcId, definite: bool) {
        let Some(sent) = self.rpcs.remove(&rpc.0) else { return };
        self.timers.cancel(&Timer::Rpc(rpc.0));
        if definite {
            self.counters.rpc_failed += 1;
        } else {
            self.counters.rpc_timeout += 1;
        }
        self.failed(now, rpc.0, sent, definite);
    }

    /// A link went down: its peer has to show that it lives before anything is sent its way again.
    pub(super) fn on_link_down(&mut self, now: Instant, peer: Id) {
        if self.state == State::Outside {
            return;
        }
        if let Some(contact) = self.table.contact_mut(&peer) {
            contact.misses = contact.misses.max(1);
            // One that is under way went down with the link.
            contact.probe = None;
        }
        if let Some(peer) = self.table.peer(&peer) {
            self.probe(now, peer);
        }
    }

    /// Asks a peer of the tables for a sign of life, unless it is being asked.
    pub(super) fn probe(&mut self, now: Instant, peer: PeerRef) {
        if self.table.contact(&peer.id).is_some_and(|c| c.probe.is_none()) {
            // Whether it lives is asked of it alone, and answered in few words; a predecessor is asked who is around it.
            let before = self.table.predecessor().is_some_and(|p| p.id == peer.id);
            let route = if before { Route::Iterative } else { Route::Here };
            self.send(now, peer, Request::Query { target: peer.id, route }, Why::Probe);
            let id = self.next_id;
            if let Some(contact) = self.table.contact_mut(&peer.id) {
                contact.probe = Some(id);
            }
        }
    }

    pub(super) fn fail_peer(&mut self, now: Instant, id: &Id) {
        let next = [self.table.predecessor(), self.table.successor()].into_iter().flatten().any(|p| p.id == *id);
        let reached = self.table.is_reached(id);
        let removed = self.table.remove(id, now);
        self.missed(now, id, next);
        let Some((peer, neighbour)) = removed else { return };
        self.counters.peers_failed += 1;
        if reached {
            self.remember(now, peer);
            self.note_failure(now);
        }
        self.out.push_back(Output::Drop { peer });
        if neighbour {
            self.note_home(peer.addr);
            self.changed(now);
        }
    }

    pub(super) fn evict(&mut self) {
        for peer in self.table.evict() {
            self.out.push_back(Output::Drop { peer });
        }
    }

    fn failed(&mut self, now: Instant, id: u64, sent: Rpc, definite: bool) {
        let peer = sent.to;
        if sent.named {
            self.suspect(now, id, &sent, definite);
        }
        match sent.why {
            Why::Join => self.on_join_failed(now),
            Why::Stabilise => self.stabilising = false,
            Why::Notify | Why::Probe | Why::Repair | Why::CompareMembers => {}
            Why::News => self.not_handed(now, id),
            Why::Step { op, epoch, recursive } => self.on_step(now, op, epoch, recursive, peer, None),
            Why::Read { op, replica } => self.on_read(now, op, peer, replica, None),
            Why::Write { op, epoch } => self.on_written(now, op, epoch, peer, None),
            Why::Place { op } => self.on_placed(now, op, peer, None),
            Why::Push { slot } => self.on_pushed(now, peer, slot, None),
            Why::Pull { slot } => self.on_pulled(now, slot, None),
            Why::Compare(id) => self.on_compared(now, id, None),
            Why::Relay(relay) => self.on_relay(now, relay, None),
            Why::Lease { op, epoch } => self.on_leased(now, op, Some(epoch), sent.sent, None),
            Why::Take { op, epoch } => self.on_taken(now, op, epoch, None),
            Why::Vote { key, round } => self.on_voted(now, key, round, &peer.id, None),
            Why::Bye => self.on_farewell(now),
        }
    }

    /// One missed deadline or broken link makes a peer suspect and asks it for a sign of life, which decides: the other end
    /// may have closed a link that it had no use for, and everything on a link waits for a segment that was lost. What was
    /// passed on and not answered says little about the peer that was to pass it on.
    fn suspect(&mut self, now: Instant, id: u64, sent: &Rpc, definite: bool) {
        let Some(contact) = self.table.contact_mut(&sent.to.id) else {
            // Only told of, and not where it was said to be.
            if !sent.recursive {
                self.fail_peer(now, &sent.to.id);
            }
            return;
        };
        if sent.why == Why::Probe {
            if contact.probe != Some(id) {
                return;
            }
            contact.probe = None;
            // Heard meanwhile: it was slow.
            let lives = !definite && contact.heard > sent.sent;
            if !lives && (definite || contact.misses > 0) {
                return self.fail_peer(now, &sent.to.id);
            }
        }
        let first = contact.misses == 0;
        if definite || !sent.recursive {
            contact.misses = contact.misses.saturating_add(1);
        }
        self.probe(now, sent.to);
        // Where the first of a side is silent, the next may be as well.
        if first && self.table.predecessor().is_some_and(|p| p.id == sent.to.id) {
            let before: Vec<PeerRef> = self.table.predecessors().iter().filter_map(|id| self.table.peer(id)).collect();
            self.probe_silent(now, before);
        }
        if first && self.table.successor().is_some_and(|s| s.id == sent.to.id) {
            let after = self.table.successors();
            self.probe_silent(now, after);
        }
    }

    /// Asks those that have said nothing for a moment whether they live.
    pub(super) fn probe_silent(&mut self, now: Instant, peers: Vec<PeerRef>) {
        for peer in peers {
            if self.table.contact(&peer.id).is_some_and(|c| now.since(c.heard) > super::serve::DOUBT) {
                self.probe(now, peer);
            }
        }
    }
}
