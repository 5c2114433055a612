//! How the member list is kept: who tells whom of a peer that came or went, and how two lists are compared.
//!
//! The peers next to a place on the circle are the ones to say what happens there: that a peer has come (once it has
//! answered them), that it has gone (once it did not answer), that somebody said to be there is not. What they say travels
//! down a tree: each peer hands it to the peers of its tables, each of these with the stretch of the circle up to the next,
//! so that everybody hears of it once, after about log N steps of [`PAUSE`] at most. Who missed it gets it from the
//! comparison with its successor. A member that hears that it has gone says that it has not.

use super::members::{Learnt, Members};
use super::rpc::Why;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Failure, MAX_NEWS, Member, Output, PeerRef, Request, Response, Token};
use std::collections::BTreeMap;
use std::time::Duration;

/// News wait this long for others to go with them.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// Peers that one peer hands news to.
const CHILDREN: usize = 40;
/// How often one piece of news is passed on: more than one peer may have begun to tell it.
const PASSED: u8 = 3;
/// From joining to the first comparison.
const FIRST: Duration = Duration::from_millis(50);
/// As long as a list has never been compared.
const AGAIN: Duration = Duration::from_secs(1);
/// At most so often says a peer that it is still there.
const REVIVAL: Duration = Duration::from_secs(2);

/// Answer to a comparison: the ring is too large for a list.
const NO_LIST: Failure = Failure::Status(404);

/// News on their way from here.
#[derive(Default)]
pub(super) struct Gossip {
    /// Of this peer's own entry.
    pub(super) version: u32,
    /// Whom the news are of, and the end of the stretch to which they go.
    pending: BTreeMap<Id, Id>,
    /// Handed to a peer that has not acknowledged them.
    pub handed: BTreeMap<u64, (Id, Vec<Member>)>,
    /// State last passed on, and how often.
    passed: BTreeMap<Id, (u32, bool, u8)>,
    revived: Option<Instant>,
}

impl Chord {
    /// This peer's own entry.
    pub(super) fn own_member(&self) -> Member {
        Member { peer: self.table.me, version: self.gossip.version.max(1), gone: false }
    }

    /// A peer answered: it is here.
    pub(super) fn seen(&mut self, now: Instant, peer: PeerRef) {
        if !self.members.on() || self.state == State::Outside {
            return;
        }
        let was_gone = self.members.is_gone(&peer.id);
        let next = [self.table.predecessor(), self.table.successor()].into_iter().flatten().any(|p| p.id == peer.id);
        if self.members.contains(&peer.id) && !next {
            return;
        }
        let news = self.members.arrived(peer, now).is_some();
        if self.members.len() >= self.config.members {
            self.outgrown(now);
        } else if news {
            if was_gone || next {
                self.tell(now, peer.id);
            }
            self.sooner(Timer::Fingers, now + PAUSE * 10);
        }
    }

    /// A peer did not answer, or has left. `next`: it was next to this one.
    pub(super) fn missed(&mut self, now: Instant, id: &Id, next: bool) {
        if (next || self.table.is_responsible(id)) && self.members.departed(id, now).is_some() {
            self.tell(now, *id);
        }
    }

    /// Begins to tell everybody what is known of `id`.
    pub(super) fn tell(&mut self, now: Instant, id: Id) {
        self.pass_on(now, id, self.table.me.id);
    }

    pub(super) fn serve_members(
        &mut self,
        now: Instant,
        token: Token,
        until: Option<Id>,
        digest: Option<u64>,
        news: &[Member],
    ) {
        let mut reply = Vec::new();
        if digest.is_some() && !self.members.on() {
            return self.reply(token, Response::Failed(NO_LIST));
        }
        if self.members.on() {
            for said in news.iter().take(MAX_NEWS) {
                self.learn(now, said);
                // What is out of date goes no further.
                if let (Some(until), true) = (until, self.stands(said)) {
                    self.pass_on(now, said.peer.id, until);
                }
            }
            if digest.is_some_and(|d| d != self.members.digest(&self.own_member())) {
                reply = self.whole_list();
            }
        }
        self.reply(token, Response::Members { news: reply });
    }

    /// Compares the list with the successor's, from time to time.
    pub(super) fn on_compare(&mut self, now: Instant) {
        if self.state != State::Joined || self.config.members == 0 {
            return;
        }
        self.members.expire(now);
        let wait = self.about(if self.members.settled { self.config.compare } else { AGAIN });
        self.timers.set(Timer::Compare, now + wait);
        if self.members.outgrown() {
            if self.estimate() * 2 < self.config.members {
                self.members.resume();
                self.gossip.version = self.gossip.version.saturating_add(1);
                self.tell(now, self.table.me.id);
            }
            return;
        }
        let Some(successor) = self.table.successor() else {
            // Alone, the list is complete.
            self.members.settled |= self.table.rows().next().is_none();
            return;
        };
        let digest = Some(self.members.digest(&self.own_member()));
        self.send(now, successor, Request::Members { until: None, digest, news: Vec::new() }, Why::CompareMembers);
    }

    pub(super) fn on_members_compared(&mut self, now: Instant, from: PeerRef, response: Response) {
        let news = match response {
            Response::Members { news } => news,
            Response::Failed(NO_LIST) => return self.outgrown(now),
            _ => return,
        };
        let first = !std::mem::replace(&mut self.members.settled, true);
        if first {
            self.sooner(Timer::Fingers, now + PAUSE);
        }
        if news.is_empty() || !self.members.on() {
            return;
        }
        for said in &news {
            let learnt = self.learn(now, said);
            // What a whole list was needed for, others may lack as well; a newcomer lacks it alone.
            if !first && matches!(learnt, Learnt::Here | Learnt::Gone) {
                self.tell(now, said.peer.id);
            }
        }
        let theirs: BTreeMap<Id, Member> = news.iter().map(|m| (m.peer.id, *m)).collect();
        let newer = |m: &Member| theirs.get(&m.peer.id).is_none_or(|t| (t.version, t.gone) < (m.version, m.gone));
        let lacking: Vec<Member> = self.whole_list().into_iter().filter(|m| m.peer.id != from.id && newer(m)).collect();
        if !lacking.is_empty() {
            let request = Request::Members { until: None, digest: None, news: lacking };
            self.send(now, from, request, Why::Repair);
        }
    }

    /// Takes a piece of news.
    pub(super) fn learn(&mut self, now: Instant, said: &Member) -> Learnt {
        let me = self.table.me;
        if said.peer.id == me.id {
            let wrong = said.gone || said.peer.addr != me.addr;
            let own = self.gossip.version.max(1);
            if said.version >= own && said.version < u32::MAX / 4 && wrong {
                self.gossip.version = said.version + 1;
                if self.gossip.revived.is_none_or(|at| now.since(at) >= REVIVAL) {
                    self.gossip.revived = Some(now);
                    self.tell(now, me.id);
                    if !said.gone {
                        self.out.push_back(Output::Twin { addr: said.peer.addr });
                    }
                }
            } else if said.version > own && !wrong {
                self.gossip.version = said.version.min(u32::MAX / 4);
            }
            return Learnt::Old;
        }
        let before = self.members.get(&said.peer.id);
        let learnt = self.members.learn(said, now);
        match learnt {
            Learnt::Here => {
                self.consider(now, &[said.peer]);
                self.sooner(Timer::Fingers, now + PAUSE * 10);
            }
            Learnt::Gone => {
                if let Some(contact) = self.table.contact(&said.peer.id) {
                    // It has answered this peer, which asks it before it believes others.
                    let peer = PeerRef { id: said.peer.id, addr: contact.addr };
                    self.probe(now, peer);
                } else if let Some(before) = before.filter(|m| !m.gone) {
                    self.remember(now, before.peer);
                    self.note_failure(now);
                    self.sooner(Timer::Fingers, now + PAUSE * 10);
                }
            }
            Learnt::Full => self.outgrown(now),
            Learnt::Old => {}
        }
        learnt
    }

    /// Hands on what waits.
    pub(super) fn on_news(&mut self, now: Instant) {
        let pending = std::mem::take(&mut self.gossip.pending);
        if self.state != State::Joined || pending.is_empty() {
            return;
        }
        let (space, me) = (self.config.space, self.table.me.id);
        // All the way round for who began.
        let reach = |until: &Id| if *until == me { Id([0xff; 20]) } else { space.distance(&me, until) };
        let mut children: Vec<PeerRef> = self
            .table
            .rows()
            .filter(|id| self.table.contact(id).is_some_and(|c| c.reached && c.misses == 0))
            .filter_map(|id| self.table.peer(&id))
            .collect();
        children.sort_by_key(|p| space.distance(&me, &p.id));
        children.dedup();
        children.truncate(CHILDREN);
        let said = |id: &Id| if *id == me { Some(self.own_member()) } else { self.members.get(id) };
        let news: Vec<(Id, Member)> = pending.iter().filter_map(|(id, until)| Some((*until, said(id)?))).collect();
        for (i, child) in children.iter().enumerate() {
            let far = space.distance(&me, &child.id);
            let theirs: Vec<&(Id, Member)> = news.iter().filter(|(until, _)| reach(until) > far).collect();
            let Some((last, _)) = theirs.iter().max_by_key(|(until, _)| reach(until)) else { break };
            let until = match children.get(i + 1) {
                Some(next) if reach(&next.id) < reach(last) => next.id,
                _ => *last,
            };
            let news: Vec<Member> = theirs.iter().map(|(_, m)| *m).take(MAX_NEWS).collect();
            self.hand(now, *child, until, news);
        }
    }

    fn hand(&mut self, now: Instant, to: PeerRef, until: Id, news: Vec<Member>) {
        let request = Request::Members { until: Some(until), digest: None, news: news.clone() };
        self.send(now, to, request, Why::News);
        self.gossip.handed.insert(self.next_id, (until, news));
    }

    /// A peer did not take what it was to hand on: by way of another.
    pub(super) fn not_handed(&mut self, now: Instant, rpc: u64) {
        let Some((until, news)) = self.gossip.handed.remove(&rpc) else { return };
        for m in news {
            self.again(now, m.peer.id, until);
        }
    }

    /// The ring's size: of the member list, or of the distances between those known around.
    pub(super) fn estimate(&self) -> usize {
        if self.members.complete() { self.members.len() + 1 } else { self.table.estimate() }
    }

    fn pass_on(&mut self, now: Instant, id: Id, until: Id) {
        let state = if id == self.table.me.id { Some(self.own_member()) } else { self.members.get(&id) };
        let Some(state) = state else { return };
        if self.gossip.passed.len() > self.config.members * 4 {
            self.gossip.passed.clear();
        }
        let passed = self.gossip.passed.entry(id).or_insert((state.version, state.gone, 0));
        if (passed.0, passed.1) != (state.version, state.gone) {
            *passed = (state.version, state.gone, 0);
        }
        if passed.2 < PASSED {
            passed.2 += 1;
            self.again(now, id, until);
        }
    }

    fn again(&mut self, now: Instant, id: Id, until: Id) {
        let (space, me) = (self.config.space, self.table.me.id);
        let farther = |a: &Id, b: &Id| *a == me || *b != me && space.distance(&me, a) > space.distance(&me, b);
        let known = self.gossip.pending.entry(id).or_insert(until);
        if farther(&until, known) {
            *known = until;
        }
        if self.timers.deadline(&Timer::News).is_none() {
            self.timers.set(Timer::News, now + PAUSE);
        }
    }

    fn stands(&self, said: &Member) -> bool {
        let known =
            if said.peer.id == self.table.me.id { Some(self.own_member()) } else { self.members.get(&said.peer.id) };
        known.is_some_and(|k| (k.version, k.gone) <= (said.version, said.gone))
    }

    fn whole_list(&self) -> Vec<Member> {
        // Those that are here first, should there be more than fit.
        let mut all: Vec<Member> = self.members.all().chain([self.own_member()]).collect();
        all.sort_by_key(|m| (m.gone, m.peer.id));
        all.truncate(MAX_NEWS);
        all
    }

    /// No list any more; unless the ring is much smaller than it is said to be, by what lies between this peer's neighbours:
    /// members are made up easily.
    fn outgrown(&mut self, now: Instant) {
        if self.table.estimate().saturating_mul(2) >= self.config.members {
            self.members.give_up();
            self.sooner(Timer::Fingers, now + PAUSE);
        }
    }

    /// In a ring: the list begins.
    pub(super) fn begin_members(&mut self, now: Instant) {
        if self.config.members == 0 {
            return;
        }
        self.members = Members::new(self.table.me.id, self.config.members);
        self.gossip = Gossip { version: self.gossip.version, ..Gossip::default() };
        self.timers.set(Timer::Compare, now + FIRST);
    }
}
