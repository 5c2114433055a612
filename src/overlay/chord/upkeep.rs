//! The ring's upkeep: admission, stabilise, notify, fix fingers, leave (draft-zangrilli-p2psip-dsip-dhtchord-00 sections
//! 6.3.3 to 6.7).

use super::lookup::Goal;
use super::rpc::Why;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Failure, Links, Mode, Output, PeerRef, Request, Response, Route, Token};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Signs of life asked for in one stabilisation.
const PROBES: usize = 4;
/// Fingers taken from the member list.
const FINGERS: usize = 64;
/// After a change: how soon the records are looked through.
const SOON: Duration = Duration::from_millis(200);

impl Chord {
    pub(super) fn on_stabilise(&mut self, now: Instant) {
        if self.state != State::Joined {
            return;
        }
        let (wait, calm) = (self.about(self.pace), self.calm(now));
        self.timers.set(Timer::Stabilise, now + wait);
        self.pace = (self.pace * 2).min(calm);
        let register = Request::Register { expires: self.config.expires };
        match (self.table.successor(), self.table.predecessor(), self.table.any_reached()) {
            (Some(s), _, _) if !self.stabilising => {
                self.stabilising = true;
                self.send(now, s, Request::Query { target: s.id, route: Route::Iterative }, Why::Stabilise);
            }
            (Some(_), _, _) => {}
            // Its own successor, whose predecessor is this one.
            (None, Some(p), _) => self.send(now, p, register, Why::Notify),
            (None, None, Some(any)) if self.joining.is_none() => self.begin_join(now, any.addr, true),
            (None, None, _) => {}
        }
        // In a ring at rest the predecessor's own questions show that it lives; only who is before it has to be asked.
        let moving = self.pace < calm;
        if let Some(p) = self.table.predecessor()
            && let silent = self.table.contact(&p.id).is_none_or(|c| now.since(c.heard) >= self.pace * 3 / 2)
            && let often = if moving || silent { self.pace * 3 / 8 } else { self.pace * 4 }
            && now.since(self.predecessor_asked) >= self.config.heartbeat.min(often)
        {
            self.predecessor_asked = now;
            self.probe(now, p);
        }
        for _ in 0..PROBES {
            let Some(quiet) = self.table.quietest(self.config.heartbeat, now) else { break };
            self.probe(now, quiet);
        }
    }

    /// This peer is elsewhere: everybody in the tables hears of it by being asked for a sign of life, the successor first.
    pub(super) fn moved(&mut self, now: Instant, addr: SocketAddr) {
        self.table.me.addr = addr;
        if self.state != State::Joined {
            return;
        }
        self.gossip.version = self.own_member().version.saturating_add(1);
        let me = self.table.me.id;
        self.tell(now, me);
        let known: BTreeSet<Id> = self.table.rows().collect();
        for peer in known.iter().filter_map(|id| self.table.peer(id)).collect::<Vec<_>>() {
            self.probe(now, peer);
        }
        self.pace = self.config.stabilise_min;
        self.timers.set(Timer::Stabilise, now + self.pace);
    }

    pub(super) fn on_stabilise_answer(&mut self, now: Instant, from: PeerRef, response: Response) {
        self.stabilising = false;
        let Response::Responsible { links, .. } = response else { return };
        if self.table.successor().is_none_or(|s| s.id != from.id) {
            return;
        }
        let me = self.table.me.id;
        self.adopt_successors(now, from, &links.successors);
        let register = Request::Register { expires: self.config.expires };
        match (self.entered(now, &from.id, &links), links.predecessors.first()) {
            (Some(nearer), _) => self.notify(now, nearer),
            (None, Some(p)) if p.id == me => {}
            _ => self.send(now, from, register, Why::Notify),
        }
    }

    pub(super) fn on_notify_answer(&mut self, now: Instant, from: PeerRef, response: Response) {
        let me = self.table.me.id;
        let nearer = |than: Option<PeerRef>, id: &Id| {
            than.is_none_or(|s| self.config.space.in_open(id, &me, &s.id)) && *id != me
        };
        let adopt = nearer(self.table.successor(), &from.id);
        match response {
            Response::Admitted { links } => {
                if adopt {
                    self.adopt_successors(now, from, &links.successors);
                    self.seen(now, from);
                }
                self.displaced(now, &links);
            }
            Response::Redirect { links, .. } => {
                if adopt {
                    self.adopt_successors(now, from, &links.successors);
                }
                if let Some(nearer) = self.entered(now, &from.id, &links) {
                    self.notify(now, nearer);
                }
            }
            _ => {}
        }
    }

    /// The peer closest after this one that lies before `successor`, as that one tells.
    fn entered(&self, now: Instant, successor: &Id, links: &Links) -> Option<PeerRef> {
        let between = |p: &&PeerRef| {
            self.config.space.in_open(&p.id, &self.table.me.id, successor) && !self.table.buried(&p.id, now)
        };
        links.predecessors.iter().rfind(between).copied()
    }

    pub(super) fn on_probe_answer(&mut self, now: Instant, from: PeerRef, response: Response) {
        let Response::Responsible { links, exact: true, .. } = response else { return };
        if self.table.predecessor().is_some_and(|p| p.id == from.id) {
            self.adopt_predecessor(now, from, &links.predecessors);
            // Who lies between a predecessor and its successors is a neighbour of both.
            self.consider(now, &links.successors);
        } else if self.table.successor().is_none_or(|s| self.config.space.in_open(&from.id, &self.table.me.id, &s.id)) {
            self.notify(now, from);
        } else if self.table.place(&from.id) {
            self.changed(now);
        }
    }

    pub(super) fn on_fingers(&mut self, now: Instant) {
        if self.state != State::Joined {
            return;
        }
        if !self.members.complete() {
            return self.fix_finger(now, self.table.next_step(0, None));
        }
        // The member list says who they are.
        let (mut rows, mut step) = (Vec::new(), self.table.next_step(0, None));
        while let Some(at) = step.filter(|_| rows.len() < FINGERS) {
            let Some(start) = self.table.step_start(at) else { break };
            let Some(peer) = self.line(now, &start).next().filter(|p| p.id != self.table.me.id) else { break };
            rows.push((at, peer));
            step = self.table.next_step(at + 1, Some(peer.id));
        }
        self.table.set_fingers(rows.clone(), now);
        // And who the neighbours are.
        let around: Vec<PeerRef> = self.line(now, &self.table.me.id).skip(1).collect();
        let (after, before) = (self.config.successors, self.config.successor_replicas + 1);
        let next = around.iter().take(after).chain(around.iter().rev().take(before)).copied();
        let asked: Vec<PeerRef> = rows.into_iter().map(|(_, p)| p).chain(next).collect();
        for peer in asked {
            if !self.table.is_reached(&peer.id) {
                self.ask(now, peer);
            }
        }
        self.evict();
        let wait = self.about(self.config.fingers);
        self.timers.set(Timer::Fingers, now + wait);
    }

    /// A finger's lookup has ended; the next one, or rest until the next round.
    pub(super) fn on_finger(&mut self, now: Instant, step: u16, found: Option<PeerRef>) {
        let next = match found {
            Some(peer) if peer.id == self.table.me.id => {
                self.table.clear_fingers_from(step);
                None
            }
            Some(peer) => {
                self.table.set_finger(step, Some(peer.id));
                self.table.next_step(step + 1, Some(peer.id))
            }
            None => self.table.next_step(step + 1, None),
        };
        self.evict();
        self.fix_finger(now, next);
    }

    pub(super) fn serve_register(&mut self, now: Instant, from: PeerRef, token: Token) {
        let old = self.table.predecessor();
        let links = self.table.links(self.config.successors, true);
        if old.is_some_and(|p| p.id == from.id) {
            self.reply(token, Response::Admitted { links });
            // It may have been restarted, and have nothing of what it held.
            let before = self.table.predecessors().get(1).and_then(|id| self.table.peer(id));
            self.hand_over(now, before, from);
            return;
        }
        if self.table.may_precede(&from.id) {
            let before = links.predecessors.clone();
            self.reply(token, Response::Admitted { links });
            // After the answer, as section 6.3.3 has it.
            self.adopt_predecessor(now, from, &before);
            (self.predecessor_asked, self.predecessor_since) = (now, now);
            self.hand_over(now, old, from);
            if self.table.successor().is_some_and(|s| s.id != from.id) {
                // It may know some that this peer does not.
                self.probe(now, from);
            }
            self.changed(now);
            return;
        }
        // Without a predecessor it is the peers known to lie between that speak against it: do they live?
        for peer in self.table.between(&from.id, now).into_iter().take(PROBES) {
            self.probe(now, peer);
        }
        if let Some(p) = old {
            // Somebody further back believes to be next: does the predecessor live?
            if self.table.contact(&p.id).is_some_and(|c| now.since(c.heard) > self.config.stabilise_min) {
                self.probe(now, p);
            }
        }
        let response = match self.table.next_hop(&from.id, |id| *id == from.id) {
            Some(closer) => Response::Redirect { closer, links: self.short_links() },
            None => Response::Failed(Failure::NotInRing),
        };
        self.reply(token, response);
    }

    pub(super) fn serve_leave(&mut self, now: Instant, from: PeerRef, token: Token, links: Links) {
        self.reply(token, Response::Bye);
        let was_predecessor = self.table.predecessor().is_some_and(|p| p.id == from.id);
        let was_successor = self.table.successor().is_some_and(|s| s.id == from.id);
        self.table.remove(&from.id, now);
        self.leases.known.left(&from.id);
        self.missed(now, &from.id, was_predecessor || was_successor);
        self.out.push_back(Output::Drop { peer: from });
        let me = self.table.me.id;
        if was_predecessor
            && self.table.predecessor().is_none()
            && let Some((p, rest)) = links.predecessors.split_first()
            && p.id != me
        {
            // A hint: it is asked, and goes when it is not there.
            self.adopt_predecessor(now, *p, rest);
            self.probe(now, *p);
        }
        if was_successor && self.table.successor().is_none() {
            let list: Vec<PeerRef> = links.successors.iter().filter(|s| s.id != me).copied().collect();
            self.table.set_successors(&list, now);
        }
        self.changed(now);
    }

    pub(super) fn leave(&mut self, now: Instant) {
        if self.state != State::Joined {
            return self.finish_leave(now);
        }
        self.state = State::Leaving { told: false };
        self.repairs.incomplete = false;
        self.timers.set(Timer::Leave, now + self.config.leave_deadline);
        self.push_everything(now);
        self.say_farewell(now);
    }

    /// Once nothing is left to hand over, tells the neighbours.
    pub(super) fn say_farewell(&mut self, now: Instant) {
        if self.state != (State::Leaving { told: false }) || !self.repairs.is_idle() {
            return;
        }
        self.state = State::Leaving { told: true };
        let links = self.table.links(self.config.successors, false);
        let mut neighbours: Vec<Id> = self.table.predecessors().to_vec();
        neighbours.extend(self.table.successors().iter().map(|s| s.id));
        neighbours.sort_unstable();
        neighbours.dedup();
        let neighbours: Vec<PeerRef> = neighbours.iter().filter_map(|id| self.table.peer(id)).collect();
        for peer in neighbours {
            self.farewells += 1;
            self.send(now, peer, Request::Leave { links: links.clone() }, Why::Bye);
        }
        if self.farewells == 0 {
            self.finish_leave(now);
        }
    }

    pub(super) fn on_farewell(&mut self, now: Instant) {
        self.farewells = self.farewells.saturating_sub(1);
        if self.farewells == 0 && self.state == (State::Leaving { told: true }) {
            self.finish_leave(now);
        }
    }

    pub(super) fn finish_leave(&mut self, now: Instant) {
        let told = self.state == (State::Leaving { told: true });
        let handed_over = told && self.table.successor().is_some() && !self.repairs.incomplete;
        for id in self.ops.keys().copied().collect::<Vec<_>>() {
            self.on_op_deadline(now, id);
        }
        self.state = State::Outside;
        self.joining = None;
        self.table.clear();
        self.members.clear();
        self.gossip = super::Gossip::default();
        self.strangers.clear();
        self.watch = super::Watch::default();
        self.acknowledge_all(now);
        for asker in self.leases.clear() {
            if let super::lease::Asker::Peer(token) = asker {
                self.reply(token, Response::Failed(Failure::NotInRing));
            }
        }
        // Whoever was alone, or could not hand everything over, still has it the next time.
        if handed_over {
            self.store.clear(true);
        }
        self.rpcs.clear();
        self.repairs = super::repair::Repairs::default();
        (self.farewells, self.stabilising) = (0, false);
        self.timers = crate::core::TimerQueue::new();
        for relay in std::mem::take(&mut self.relays).into_values() {
            self.give_up(relay);
        }
        self.out.push_back(Output::Left);
    }

    /// A request from a peer that should be the successor and is not: it is in the ring and does not know of this peer.
    pub(super) fn notice(&mut self, now: Instant, from: &PeerRef) {
        if self.state == State::Joined
            && self.table.successor().is_some_and(|s| self.config.space.in_open(&from.id, &self.table.me.id, &s.id))
        {
            match self.config.members {
                // The paper's way: the next stabilisation finds it.
                0 => self.hurry(now),
                _ => self.notify(now, *from),
            }
        }
    }

    /// Predecessor or successors changed: stabilise quickly again, look through the records soon.
    pub(super) fn changed(&mut self, now: Instant) {
        self.out.push_back(Output::NeighboursChanged);
        if self.state == State::Joined {
            self.hurry(now);
            self.sooner(Timer::Maintain, now + SOON);
            if self.members.complete() {
                // It knows who comes next.
                self.sooner(Timer::Fingers, now + SOON);
            }
        }
        self.evict();
    }

    pub(super) fn short_links(&self) -> Links {
        self.table.links(self.config.successor_replicas + 1, false)
    }

    pub(super) fn adopt_successors(&mut self, now: Instant, first: PeerRef, rest: &[PeerRef]) {
        let (changed, ask) = self.table.adopt_successors(first, rest, now);
        for peer in ask {
            self.ask(now, peer);
        }
        if changed {
            self.changed(now);
        }
    }

    pub(super) fn adopt_predecessor(&mut self, now: Instant, first: PeerRef, before: &[PeerRef]) {
        let (_, ask) = self.table.set_predecessor(first, before, now);
        for peer in ask {
            self.ask(now, peer);
        }
    }

    fn fix_finger(&mut self, now: Instant, step: Option<u16>) {
        match step.and_then(|step| Some((step, self.table.step_start(step)?))) {
            Some((step, start)) => {
                self.start(now, Goal::Finger { step }, start, Mode::Iterative);
            }
            None => {
                let wait = self.about(self.config.fingers);
                self.timers.set(Timer::Fingers, now + wait);
            }
        }
    }

    fn hurry(&mut self, now: Instant) {
        self.pace = self.config.stabilise_min;
        self.sooner(Timer::Stabilise, now + self.config.stabilise_min);
    }

    pub(super) fn sooner(&mut self, timer: Timer, at: Instant) {
        if self.timers.deadline(&timer).is_none_or(|set| set > at) {
            self.timers.set(timer, at);
        }
    }
}
