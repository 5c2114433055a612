//! An ordinary node's side: it attaches to the bootstrap peer, asks the supernodes that the answer names how far and how
//! loaded they are, keeps the best as its backup (and moves its primary where another is much nearer), renews rarely,
//! asks for signs of life, and replaces whoever is gone.

use super::{Answer, Ask, Moving, Offer, PATIENCE, Rank, Role, Tiered, Timer, Why};
use crate::core::{Id, Instant};
use crate::overlay::{Failure, JoinError, OpId, Output, Overlay, PeerRef, Response};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Supernodes remembered.
const MAX_CANDIDATES: usize = 32;
/// Asked in one round for how far they are.
const ROUND: usize = 4;
/// How long one that failed is left alone.
const SHUNNED: Duration = Duration::from_secs(120);
/// How long a measured round trip counts.
const MEASURED: Duration = Duration::from_secs(1800);
/// From one search for a backup to the next, while there is none.
const SEEK: Duration = Duration::from_secs(60);
/// How soon after something was lost the search begins.
const SOON: Duration = Duration::from_millis(100);
/// How long a start may take before the driver hears that it failed.
const START: Duration = Duration::from_secs(6);
/// From one attempt of a start to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest pause between two attempts of a node that has lost both its supernodes.
const LOST_MAX: Duration = Duration::from_secs(30);
/// How long one that another supernode believes to be gone may take to show that it lives.
const DOUBT: Duration = Duration::from_millis(1500);
/// Another primary is worth moving to when it is this much nearer, and its round trip half of the old one.
const NEARER: Duration = Duration::from_millis(20);
/// Redirections followed in one start.
const REDIRECTS: u8 = 5;

/// A supernode that this node hangs on.
#[derive(Clone, Debug)]
pub(super) struct Hang {
    pub peer: PeerRef,
    pub rtt: Duration,
    heard: Instant,
}

#[derive(Clone, Debug)]
struct Candidate {
    peer: PeerRef,
    rtt: Option<(Duration, Instant)>,
    /// Attached nodes and capacity, as it last said.
    load: (u16, u16),
    /// Next to the primary on the ring: it notices its death.
    near: bool,
    failed: Option<Instant>,
}

/// The way in.
#[derive(Clone, Debug)]
pub(super) struct Start {
    bootstrap: SocketAddr,
    /// None where the node had supernodes and lost them: it never gives up.
    deadline: Option<Instant>,
    redirects: u8,
    refused: Option<Failure>,
    answered: bool,
    pause: Duration,
    asking: bool,
}

/// Everything of the ordinary side.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub starting: Option<Start>,
    pub primary: Option<Hang>,
    pub backup: Option<Hang>,
    candidates: BTreeMap<Id, Candidate>,
    /// Questions for the way to a candidate that are out.
    asking: usize,
    /// The attachment that is asked for, by rank.
    wooing: [Option<Id>; 2],
    pub ops: BTreeMap<OpId, super::ops::Pending>,
    /// The driver has not heard yet that this node is in: the first decision about its role is awaited.
    pub(super) held: bool,
}

impl Client {
    /// The supernodes that it hangs on, the primary first.
    pub fn via(&self) -> Vec<PeerRef> {
        [&self.primary, &self.backup].into_iter().flatten().map(|h| h.peer).collect()
    }

    pub fn rank_of(&self, id: &Id) -> Option<Rank> {
        let is = |h: &Option<Hang>| h.as_ref().is_some_and(|h| h.peer.id == *id);
        if is(&self.primary) {
            return Some(Rank::Primary);
        }
        is(&self.backup).then_some(Rank::Backup)
    }

    pub fn hang(&self, rank: Rank) -> Option<&Hang> {
        match rank {
            Rank::Primary => self.primary.as_ref(),
            Rank::Backup => self.backup.as_ref(),
        }
    }

    /// Into the ring: nothing is hung on any more.
    pub fn forget(&mut self) {
        (self.primary, self.backup, self.asking, self.wooing) = (None, None, 0, [None, None]);
    }

    fn learn(&mut self, own: Id, peer: PeerRef, near: bool) {
        if peer.id == own {
            return;
        }
        if self.candidates.len() >= MAX_CANDIDATES && !self.candidates.contains_key(&peer.id) {
            // One that failed goes first, else the farthest.
            let worst = self
                .candidates
                .values()
                .filter(|c| self.rank_of(&c.peer.id).is_none())
                .max_by_key(|c| (c.failed.is_some(), c.rtt.map(|r| r.0)))
                .map(|c| c.peer.id);
            match worst {
                Some(id) => self.candidates.remove(&id),
                None => return,
            };
        }
        let fresh = Candidate { peer, rtt: None, load: (0, 1), near, failed: None };
        let known = self.candidates.entry(peer.id).or_insert(fresh);
        known.near |= near;
        known.peer.addr = peer.addr;
    }
}

impl Start {
    /// The node was in once: the driver is not told that it is out, it goes on trying.
    pub fn never_give_up(&mut self) {
        self.deadline = None;
    }
}

impl Candidate {
    /// Lower is better: round trip, twice that where it would not notice the primary's death, four times where it is loaded.
    fn score(&self) -> Option<Duration> {
        let (rtt, _) = self.rtt?;
        let loaded = u32::from(self.load.0) * 4 >= u32::from(self.load.1) * 3;
        Some(rtt.max(Duration::from_millis(1)) * if self.near { 1 } else { 2 } * if loaded { 4 } else { 1 })
    }

    fn is_shunned(&self, now: Instant) -> bool {
        let full = self.load.0 >= self.load.1 && self.rtt.is_some_and(|(_, at)| now.since(at) < SHUNNED);
        full || self.failed.is_some_and(|at| now.since(at) < SHUNNED)
    }
}

impl Tiered {
    /// Attaches by way of this peer.
    pub(super) fn start(&mut self, now: Instant, bootstrap: SocketAddr) {
        if self.client.primary.is_some() {
            return;
        }
        self.client.starting = Some(Start {
            bootstrap,
            deadline: Some(now + START),
            redirects: 0,
            refused: None,
            answered: false,
            pause: AGAIN,
            asking: false,
        });
        self.on_start_timer(now);
    }

    pub(super) fn on_start_timer(&mut self, now: Instant) {
        let Some(start) = &mut self.client.starting else { return };
        if start.asking {
            return;
        }
        if start.deadline.is_some_and(|at| now >= at) {
            let why = match start.refused {
                Some(failure) => JoinError::Refused(failure),
                None if start.answered => JoinError::NoWay,
                None => JoinError::NoAnswer,
            };
            self.client.starting = None;
            return self.out.push_back(Output::JoinFailed { why });
        }
        start.asking = true;
        let mut addr = start.bootstrap;
        if start.deadline.is_none() {
            // Lost: whoever was known, in turn.
            let known: Vec<SocketAddr> = self.client.candidates.values().map(|c| c.peer.addr).collect();
            if !known.is_empty() {
                addr = known[self.rng.below(known.len() as u64) as usize];
            }
        }
        let ask = self.attachment(Some(Rank::Primary));
        self.ask(now, None, addr, ask, Why::Attach { rank: Some(Rank::Primary), start: true }, PATIENCE);
    }

    fn attachment(&self, rank: Option<Rank>) -> Ask {
        let other = match rank {
            Some(Rank::Primary) => self.client.backup.as_ref(),
            Some(Rank::Backup) => self.client.primary.as_ref(),
            None => None,
        };
        Ask::Attach { rank, expires: self.config.expires, other: other.map(|h| h.peer.id), able: self.is_able() }
    }

    fn woo(&mut self, now: Instant, peer: PeerRef, rank: Rank) {
        self.client.wooing[rank as usize] = Some(peer.id);
        let ask = self.attachment(Some(rank));
        self.ask(now, Some(peer.id), peer.addr, ask, Why::Attach { rank: Some(rank), start: false }, PATIENCE);
    }

    pub(super) fn renew(&mut self, now: Instant, rank: Rank) {
        if let Some(peer) = self.client.hang(rank).map(|h| h.peer) {
            self.woo(now, peer, rank);
        }
    }

    pub(super) fn on_attach_answer(
        &mut self,
        now: Instant,
        from: PeerRef,
        rank: Option<Rank>,
        start: bool,
        response: Response,
        rtt: Duration,
    ) {
        let own = self.chord.me().id;
        if from.id == own && start {
            self.client.starting = None;
            return self.out.push_back(Output::JoinFailed { why: JoinError::IdTaken });
        }
        if start {
            let Some(s) = &mut self.client.starting else { return };
            (s.asking, s.answered) = (false, true);
        }
        let (offer, supernodes) = match response {
            Response::Tier(Answer::Attached { offer, supernodes }) => (offer, supernodes),
            Response::Redirect { closer, .. } if closer.id != own => {
                self.client.learn(own, closer, false);
                if let Some(s) = self.client.starting.as_mut().filter(|s| start && s.redirects < REDIRECTS) {
                    s.redirects += 1;
                    s.bootstrap = closer.addr;
                    return self.on_start_timer(now);
                }
                return self.on_attach_failed(now, Some(from.id), rank, start);
            }
            Response::Failed(failure) => {
                if let Some(s) = self.client.starting.as_mut().filter(|_| start) {
                    s.refused = Some(failure);
                    if failure.is_final() {
                        s.deadline = s.deadline.map(|_| now);
                    }
                }
                return self.on_attach_failed(now, Some(from.id), rank, start);
            }
            _ => return self.on_attach_failed(now, Some(from.id), rank, start),
        };
        if self.role == Role::Supernode && self.moving != Moving::Down {
            return;
        }
        self.on_pong(now, from.id);
        self.chord.hear_clock(now, from.id, offer.unix);
        let known = self.client.candidates.len();
        self.client.learn(own, from, false);
        let primary = rank == Some(Rank::Primary);
        if primary && offer.expires > 0 {
            self.client.candidates.values_mut().for_each(|c| c.near = false);
        }
        for (i, peer) in supernodes.into_iter().take(MAX_CANDIDATES).enumerate() {
            self.client.learn(own, peer, primary && i < 2);
        }
        if self.client.candidates.len() > known {
            // Somebody new to ask, whenever the next search was to be.
            self.timers.cancel(&Timer::Seek);
        }
        if let Some(c) = self.client.candidates.get_mut(&from.id) {
            // The first answer waited for the link to be made.
            if rank.is_none() || c.rtt.is_none() {
                c.rtt = Some((rtt, now));
            }
            (c.load, c.failed) = ((offer.load, offer.capacity.max(1)), None);
        }
        match rank {
            None => self.on_measured(now),
            Some(rank) => {
                if self.client.wooing[rank as usize] == Some(from.id) {
                    self.client.wooing[rank as usize] = None;
                }
                match offer.expires {
                    0 => self.on_attach_failed(now, Some(from.id), Some(rank), start),
                    _ => self.attached(now, from, rank, offer, rtt),
                }
            }
        }
    }

    /// One of those asked how near and how loaded they are has answered or failed: when all have, the best are chosen.
    fn on_measured(&mut self, now: Instant) {
        self.client.asking = self.client.asking.saturating_sub(1);
        if self.client.asking == 0 {
            self.seek(now);
        }
    }

    fn attached(&mut self, now: Instant, peer: PeerRef, rank: Rank, offer: Offer, rtt: Duration) {
        let before = self.client.via();
        let hang = Hang { peer, rtt, heard: now };
        self.client.starting = None;
        self.timers.cancel(&Timer::Start);
        match rank {
            Rank::Primary => {
                if self.client.backup.as_ref().is_some_and(|b| b.peer.id == peer.id) {
                    self.client.backup = None;
                }
                let old = self.client.primary.replace(hang).map(|h| h.peer).filter(|old| old.id != peer.id);
                // It was left for a nearer one; as a backup it competes with the others.
                if let Some(old) = old {
                    self.let_go(now, old);
                }
            }
            Rank::Backup if self.client.rank_of(&peer.id) == Some(Rank::Primary) => {}
            Rank::Backup => {
                let old = self.client.backup.replace(hang).map(|h| h.peer).filter(|old| old.id != peer.id);
                if let Some(old) = old {
                    self.let_go(now, old);
                }
                // The primary shall know who tells of its death, and the other way round.
                if !before.iter().any(|p| p.id == peer.id) {
                    self.renew(now, Rank::Primary);
                }
            }
        }
        let half = self.about(Duration::from_secs(u64::from(offer.expires.max(60))) * 2 / 5);
        self.timers.set(Timer::Renew(rank), now + half);
        if self.timers.deadline(&Timer::Ping).is_none() {
            self.timers.set(Timer::Ping, now + self.config.ping);
        }
        if rank == Rank::Primary {
            self.election.small = offer.wanted;
        }
        if self.role == Role::Outside {
            self.role = Role::Ordinary;
            self.election.up(now);
            self.client.held = true;
            self.consider(now);
        }
        if self.client.via() != before {
            self.say_via(now);
        }
        self.consider(now);
        // A search that found nobody has set its own time.
        let searched = self.timers.deadline(&Timer::Seek).is_some();
        if self.client.backup.is_none() && self.client.wooing[Rank::Backup as usize].is_none() && !searched {
            self.timers.set(Timer::Seek, now + SOON);
        }
    }

    /// Tells the driver where this node is reached from now on.
    pub(super) fn say_via(&mut self, now: Instant) {
        if self.role != Role::Ordinary {
            return;
        }
        self.out.push_back(Output::Hanging { via: self.client.via() });
        self.move_ops(now);
    }

    /// The first decision about the role has been made: it stays ordinary for now.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.client.held) {
            self.out.push_back(Output::Joined);
        }
    }

    pub(super) fn let_go(&mut self, now: Instant, peer: PeerRef) {
        self.ask(now, Some(peer.id), peer.addr, Ask::Detach, Why::Told, PATIENCE);
    }

    pub(super) fn on_attach_failed(&mut self, now: Instant, peer: Option<Id>, rank: Option<Rank>, start: bool) {
        if let Some(c) = peer.and_then(|id| self.client.candidates.get_mut(&id)) {
            c.failed = Some(now);
        }
        if start {
            let other = self.client.candidates.values().find(|c| !c.is_shunned(now)).map(|c| c.peer.addr);
            if let Some(s) = &mut self.client.starting {
                s.asking = false;
                // One that is full has named others.
                if let Some(addr) = other.filter(|addr| *addr != s.bootstrap && s.redirects < REDIRECTS) {
                    s.redirects += 1;
                    s.bootstrap = addr;
                    return self.on_start_timer(now);
                }
                let pause = s.pause;
                if s.deadline.is_none() {
                    s.pause = (s.pause * 2).min(LOST_MAX);
                }
                self.timers.set(Timer::Start, now + pause);
            }
            return;
        }
        match rank {
            None => self.on_measured(now),
            Some(rank) => {
                self.client.wooing[rank as usize] = None;
                // Whoever does not renew does not hold.
                match peer.filter(|id| self.client.rank_of(id) == Some(rank)) {
                    Some(id) => self.lost(now, id),
                    None => self.timers.set(Timer::Seek, now + SOON),
                }
            }
        }
    }

    /// Looks for a backup, and at the start for a nearer primary: asks those not asked yet, then takes the best.
    pub(super) fn seek(&mut self, now: Instant) {
        let Some(primary) = self.client.primary.as_ref().map(|h| h.peer.id) else { return };
        if self.client.asking > 0 || self.moving != Moving::No && self.moving != Moving::Down {
            return;
        }
        let backup = self.client.backup.as_ref().map(|h| h.peer.id);
        let stale = |c: &Candidate| c.rtt.is_none_or(|(_, at)| now.since(at) > MEASURED);
        let mut unknown: Vec<PeerRef> = self
            .client
            .candidates
            .values()
            .filter(|c| stale(c) && !c.is_shunned(now) && c.peer.id != primary && Some(c.peer.id) != backup)
            .map(|c| c.peer)
            .collect();
        let measured = self.client.candidates.values().filter(|c| !stale(c) && !c.is_shunned(now)).count();
        if measured <= ROUND {
            let near = |p: &PeerRef| self.client.candidates.get(&p.id).is_some_and(|c| c.near);
            let (first, mut rest): (Vec<_>, Vec<_>) = unknown.iter().partition(|p| near(p));
            let mut order: Vec<(u64, PeerRef)> = rest.into_iter().map(|p| (self.rng.next_u64(), p)).collect();
            order.sort_unstable();
            rest = order.into_iter().map(|(_, p)| p).collect();
            unknown = first;
            unknown.extend(rest);
            for peer in unknown.into_iter().take(ROUND) {
                self.client.asking += 1;
                let ask = self.attachment(None);
                self.ask(now, Some(peer.id), peer.addr, ask, Why::Attach { rank: None, start: false }, PATIENCE);
            }
            if self.client.asking > 0 {
                return;
            }
        }
        self.choose(now, primary);
    }

    fn choose(&mut self, now: Instant, primary: Id) {
        let best = |but: &[Id]| {
            let fit = self.client.candidates.values().filter(|c| !but.contains(&c.peer.id) && !c.is_shunned(now));
            fit.filter_map(|c| Some((c.score()?, c))).min_by_key(|(score, c)| (*score, c.peer.id)).map(|(_, c)| c)
        };
        let rtt = |id: &Id| self.client.candidates.get(id).and_then(|c| c.rtt).map(|(rtt, _)| rtt);
        let nearer = best(&[primary]).map(|c| c.peer).filter(|p| match (rtt(&p.id), rtt(&primary)) {
            (Some(new), Some(old)) => new * 2 < old && new + NEARER < old,
            _ => false,
        });
        if let Some(peer) = nearer.filter(|_| self.client.wooing[Rank::Primary as usize].is_none()) {
            self.woo(now, peer, Rank::Primary);
            return self.timers.set(Timer::Seek, now + PATIENCE);
        }
        if self.client.backup.is_some() || self.client.wooing[Rank::Backup as usize].is_some() {
            return self.drop_unused(primary);
        }
        match best(&[primary]).map(|c| c.peer) {
            Some(peer) => self.woo(now, peer, Rank::Backup),
            None => {
                // The only supernode, or all others fail: its next answer may name more.
                self.renew(now, Rank::Primary);
                let wait = self.about(SEEK);
                self.timers.set(Timer::Seek, now + wait);
            }
        }
        self.drop_unused(primary);
    }

    /// Links that were opened only to ask how far somebody is.
    fn drop_unused(&mut self, primary: Id) {
        let kept =
            |id: &Id| *id == primary || self.client.rank_of(id).is_some() || self.client.wooing.contains(&Some(*id));
        let unused: Vec<PeerRef> =
            self.client.candidates.values().filter(|c| c.rtt.is_some() && !kept(&c.peer.id)).map(|c| c.peer).collect();
        self.out.extend(unused.into_iter().map(|peer| Output::Drop { peer }));
    }

    /// A supernode is gone: the backup takes over at once.
    pub(super) fn lost(&mut self, now: Instant, id: Id) {
        let Some(rank) = self.client.rank_of(&id) else { return };
        if let Some(c) = self.client.candidates.get_mut(&id) {
            c.failed = Some(now);
        }
        self.timers.cancel(&Timer::Pong(id));
        match rank {
            Rank::Primary => {
                self.client.primary = self.client.backup.take();
                self.timers.cancel(&Timer::Renew(Rank::Backup));
            }
            Rank::Backup => self.client.backup = None,
        }
        match (&self.client.primary, rank) {
            (Some(_), Rank::Primary) => self.renew(now, Rank::Primary),
            (Some(_), Rank::Backup) => {}
            (None, _) => {
                let bootstrap = self.client.candidates.get(&id).map(|c| c.peer.addr);
                self.client.starting = bootstrap.map(|bootstrap| Start {
                    bootstrap,
                    deadline: None,
                    redirects: 0,
                    refused: None,
                    answered: false,
                    pause: AGAIN,
                    asking: false,
                });
                self.timers.set(Timer::Start, now + SOON);
            }
        }
        self.timers.set(Timer::Seek, now + SOON * 2);
        self.say_via(now);
    }

    pub(super) fn on_link_down(&mut self, now: Instant, peer: Id) {
        self.service.attached.remove(&peer);
        self.lost(now, peer);
    }

    pub(super) fn on_ping_timer(&mut self, now: Instant) {
        let via = self.client.via();
        if via.is_empty() {
            return;
        }
        for peer in via {
            self.ping(now, peer, self.config.ping_patience);
        }
        let wait = self.about(self.config.ping);
        self.timers.set(Timer::Ping, now + wait);
    }

    fn ping(&mut self, now: Instant, peer: PeerRef, patience: Duration) {
        self.timers.set(Timer::Pong(peer.id), now + patience);
        if self.config.clear {
            let ask = self.attachment(None);
            self.client.asking += 1;
            self.ask(now, Some(peer.id), peer.addr, ask, Why::Attach { rank: None, start: false }, patience);
        } else {
            self.out.push_back(Output::Ping { peer: peer.id });
        }
    }

    pub(super) fn on_pong(&mut self, now: Instant, peer: Id) {
        self.timers.cancel(&Timer::Pong(peer));
        for hang in [&mut self.client.primary, &mut self.client.backup].into_iter().flatten() {
            if hang.peer.id == peer {
                hang.heard = now;
            }
        }
    }

    pub(super) fn on_no_pong(&mut self, now: Instant, id: Id) {
        let hang = [&self.client.primary, &self.client.backup].into_iter().flatten().find(|h| h.peer.id == id);
        if let Some(peer) = hang.map(|h| h.peer) {
            self.lost(now, id);
            // What waits on that link learns now that it waits in vain.
            self.out.push_back(Output::Drop { peer });
        }
    }

    /// A supernode says that one is gone: itself, or another, which is then asked.
    pub(super) fn on_gone(&mut self, now: Instant, from: Id, gone: PeerRef) {
        if self.client.rank_of(&from).is_none() || self.client.rank_of(&gone.id).is_none() {
            return;
        }
        if from == gone.id {
            return self.lost(now, from);
        }
        let peer = self.client.via().into_iter().find(|p| p.id == gone.id);
        if let Some(peer) = peer {
            self.ping(now, peer, DOUBT);
        }
    }
}
