//! Creating a ring, joining one, and coming back to it (draft-zangrilli-p2psip-dsip-dhtchord-00 sections 6.2 and 6.3).

use super::rpc::Why;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Failure, JoinError, Links, Output, PeerRef, Request, Response};
use std::net::SocketAddr;
use std::time::Duration;

/// Redirections followed in one attempt to join.
const JOIN_STEPS: usize = 40;
/// Peers remembered of those that the answers have named.
const JOIN_KNOWN: usize = 16;
/// Of these asked in one attempt when the way that the answers show ends.
const JOIN_GUESSES: u8 = 2;
/// From one attempt to join to the next.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
/// A bootstrap peer's link has to be made first, and its name is not known.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// Addresses remembered of neighbours that were lost.
const HOMES: usize = 8;

/// A join under way.
#[derive(Debug)]
pub(super) struct Joining {
    bootstrap: SocketAddr,
    deadline: Instant,
    /// Asked in this attempt.
    tried: Vec<Id>,
    /// Peers that the answers have named, in the order of the circle from this peer on.
    known: Vec<PeerRef>,
    refused: Option<Failure>,
    answered: bool,
    guesses: u8,
    /// In the ring already, and looking for a new successor.
    again: bool,
    /// In the ring already, and looking into another one: one attempt.
    look: bool,
}

impl Chord {
    pub(super) fn create(&mut self, now: Instant) {
        if self.state == State::Outside {
            self.joining = None;
            self.enter(now);
        }
    }

    pub(super) fn join(&mut self, now: Instant, bootstrap: SocketAddr) {
        match self.state {
            // One that has not answered yet is left for one who may.
            State::Outside if self.joining.as_ref().is_none_or(|j| !j.answered) => {
                self.note_home(bootstrap);
                self.begin_join(now, bootstrap, false);
            }
            // A ring of one joins whom it is told of, in place of whom it was asking.
            State::Joined if self.table.rows().next().is_none() => self.begin_join(now, bootstrap, true),
            _ => {}
        }
    }

    pub(super) fn on_join_timer(&mut self, now: Instant) {
        let Some(joining) = &mut self.joining else { return };
        if now >= joining.deadline {
            let why = match joining.refused {
                Some(failure) => JoinError::Refused(failure),
                None if joining.answered => JoinError::NoWay,
                None => JoinError::NoAnswer,
            };
            self.end_join(why);
            return;
        }
        joining.tried.clear();
        joining.guesses = 0;
        let to = PeerRef { id: Id::default(), addr: joining.bootstrap };
        let request = Request::Register { expires: self.config.expires };
        self.send_within(now, to, false, request, Why::Join, JOIN_PATIENCE);
    }

    /// Nobody answered in time: by another peer, of those closest after this one's place, or from the start.
    pub(super) fn on_join_failed(&mut self, now: Instant) {
        let Some(joining) = &mut self.joining else { return };
        let next = joining.known.iter().find(|p| !joining.tried.contains(&p.id)).copied();
        match next.filter(|_| joining.guesses < JOIN_GUESSES && now < joining.deadline) {
            Some(next) => {
                joining.guesses += 1;
                self.ask_to_join(now, next);
            }
            None if joining.look => self.end_join(JoinError::NoAnswer),
            None => self.timers.set(Timer::Join, now + JOIN_AGAIN),
        }
    }

    fn ask_to_join(&mut self, now: Instant, peer: PeerRef) {
        if let Some(joining) = &mut self.joining {
            joining.tried.push(peer.id);
        }
        self.send(now, peer, Request::Register { expires: self.config.expires }, Why::Join);
    }

    /// Notes the peers that an answer names.
    fn learn_for_join(&mut self, from: PeerRef, closer: PeerRef, links: &Links) {
        let (space, me) = (self.config.space, self.table.me.id);
        let Some(joining) = &mut self.joining else { return };
        for peer in [&closer, &from].into_iter().chain(links.peers()) {
            if peer.id != me && !joining.known.iter().any(|k| k.id == peer.id) {
                joining.known.push(*peer);
            }
        }
        joining.known.sort_by_key(|p| space.distance(&me, &p.id));
        joining.known.truncate(JOIN_KNOWN);
    }

    pub(super) fn on_join_answer(&mut self, now: Instant, from: PeerRef, response: Response) {
        let Some(joining) = &mut self.joining else { return };
        joining.answered = true;
        if from.id == self.table.me.id {
            return self.end_join(JoinError::IdTaken);
        }
        if !joining.tried.contains(&from.id) {
            joining.tried.push(from.id);
        }
        if let Response::Redirect { closer, links } = &response {
            self.learn_for_join(from, *closer, links);
        }
        let Some(joining) = &mut self.joining else { return };
        match response {
            Response::Admitted { links } => {
                let again = joining.again;
                self.joining = None;
                self.timers.cancel(&Timer::Join);
                self.admitted(now, from, links, again);
            }
            Response::Redirect { closer, .. }
                if closer.id != self.table.me.id
                    && !joining.tried.contains(&closer.id)
                    && joining.tried.len() < JOIN_STEPS =>
            {
                self.ask_to_join(now, closer);
            }
            Response::Failed(failure) if failure.is_final() => self.end_join(JoinError::Refused(failure)),
            Response::Failed(failure) => {
                joining.refused = Some(failure);
                self.on_join_failed(now);
            }
            // The way leads back to this peer: it is this very ring.
            _ if joining.look => self.end_join(JoinError::NoWay),
            _ => self.timers.set(Timer::Join, now + JOIN_AGAIN),
        }
    }

    /// An address to come back by when everybody else seems dead.
    pub(super) fn note_home(&mut self, addr: SocketAddr) {
        if !self.homes.contains(&addr) {
            self.homes.truncate(HOMES - 1);
            self.homes.insert(0, addr);
        }
    }

    /// Alone, but not always so: has the network come back?
    pub(super) fn look_for_others(&mut self, now: Instant) {
        if self.joining.is_none() && self.table.rows().next().is_none() && !self.homes.is_empty() {
            self.homes.rotate_left(1);
            self.begin_join(now, self.homes[0], true);
        }
    }

    pub(super) fn begin_join(&mut self, now: Instant, bootstrap: SocketAddr, again: bool) {
        let deadline = now + self.config.join_deadline;
        self.joining = Some(Joining {
            bootstrap,
            deadline,
            tried: Vec::new(),
            known: Vec::new(),
            refused: None,
            answered: false,
            guesses: 0,
            again,
            look: false,
        });
        self.on_join_timer(now);
    }

    /// Looks for this peer's place in the ring that `peer` is in, which may be another one.
    pub(super) fn look_into(&mut self, now: Instant, peer: PeerRef) {
        self.begin_join(now, peer.addr, true);
        if let Some(joining) = &mut self.joining {
            joining.look = true;
        }
    }

    fn end_join(&mut self, why: JoinError) {
        let again = self.joining.take().is_some_and(|j| j.again);
        self.timers.cancel(&Timer::Join);
        if !again {
            self.out.push_back(Output::JoinFailed { why });
        }
    }

    fn enter(&mut self, now: Instant) {
        self.state = State::Joined;
        self.out.push_back(Output::Joined);
        self.pace = self.config.stabilise_min;
        self.timers.set(Timer::Stabilise, now + self.pace);
        self.timers.set(Timer::Fingers, now + self.config.stabilise_min * 2);
        let wait = self.about(self.config.maintain);
        self.timers.set(Timer::Maintain, now + wait);
        self.begin_members(now);
    }

    fn admitted(&mut self, now: Instant, by: PeerRef, links: Links, again: bool) {
        if !again {
            self.enter(now);
        }
        let (me, known) = (self.table.me.id, self.table.successors());
        if again && !known.is_empty() && !known.iter().any(|s| s.id == by.id) {
            self.counters.merged += 1;
        }
        self.adopt_successors(now, by, &links.successors);
        self.seen(now, by);
        // Who was here before, and was restarted, finds itself there.
        let before: Vec<PeerRef> = links.predecessors.iter().filter(|p| p.id != me).copied().collect();
        if let Some((p, rest)) = before.split_first()
            && self.table.predecessor().is_none()
        {
            self.adopt_predecessor(now, *p, rest);
            // It learns of this peer by being asked.
            self.probe(now, *p);
        }
        self.displaced(now, &links);
        if again {
            self.sooner(Timer::Compare, now + self.config.stabilise_min);
        }
        self.changed(now);
    }
}
