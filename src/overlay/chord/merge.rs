//! Two rings of one overlay become one (compare Shafaat, Ghodsi, Haridi: "Dealing with network partitions in structured overlay
//! networks", Peer-to-Peer Networking and Applications 2(4), 2009).
//!
//! Rings grow apart when a network is cut, and when peers that began alone meet in the same moment. One peer that learns of
//! a peer of the other ring is enough: it looks for its own place there, as if it joined (`join`), and is admitted in
//! front of its successor of that ring. From there the rings zip together both ways: who is displaced as a
//! predecessor is asked by who displaced it, and makes itself known to that one; a new predecessor is asked for its successors,
//! and those between are made known to each other. Where member lists are kept, the first contact compares them, and
//! every peer finds its new neighbours at once. Records follow as after any change of neighbours.
//!
//! Whom a peer learns of: peers that others found for it ([`Command::Meet`](crate::overlay::Command)), peers that ask it
//! something and stand in no list, and those that it lost: it tries these with growing pauses, for a day.

use super::rpc::Why;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant};
use crate::overlay::{Links, PeerRef, Request};
use std::time::Duration;

/// Peers of whom another ring is expected, remembered at once.
const STRANGERS: usize = 32;
/// Before a peer that was met is taken for one of another ring: news of its coming may be on their way.
const PATIENCE: Duration = Duration::from_secs(4);
/// The first pause before a lost peer is tried; doubled each time.
const PAUSE: Duration = Duration::from_secs(8);
/// The longest such pause.
const PAUSE_MOST: Duration = Duration::from_secs(300);
/// From one attempt to the next, whomever it goes to.
const SPACING: Duration = Duration::from_secs(2);
/// A lost peer is tried for so long.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Attempts at a peer that somebody else told of.
const TRIES: u8 = 4;

/// A peer that may be in another ring.
#[derive(Clone, Debug)]
pub(super) struct Stranger {
    peer: PeerRef,
    since: Instant,
    due: Instant,
    pause: Duration,
    /// It was in this ring; else attempts left.
    tries: Option<u8>,
}

impl Chord {
    /// Somebody of this overlay is there.
    pub(super) fn meet(&mut self, now: Instant, peer: PeerRef) {
        if self.state == State::Joined && !self.is_of_this_ring(&peer.id) {
            self.expect(now, peer, PATIENCE, Some(TRIES));
        }
    }

    /// A peer that stands in no list asks something: it lives, and is in another ring or has just come.
    pub(super) fn met(&mut self, now: Instant, from: PeerRef) {
        if self.members.is_gone(&from.id) {
            self.ask(now, from);
        } else {
            self.meet(now, from);
        }
    }

    /// A peer of this ring is lost: dead, or cut off.
    pub(super) fn remember(&mut self, now: Instant, peer: PeerRef) {
        let pause = self.about(PAUSE);
        self.expect(now, peer, pause, None);
    }

    /// It answers, or has left: nothing to look for.
    pub(super) fn forget_stranger(&mut self, id: &Id) {
        self.strangers.retain(|s| s.peer.id != *id);
    }

    pub(super) fn on_seek(&mut self, now: Instant) {
        if self.state != State::Joined {
            return;
        }
        let known: Vec<Id> = self.strangers.iter().map(|s| s.peer.id).filter(|id| self.is_of_this_ring(id)).collect();
        self.strangers.retain(|s| !known.contains(&s.peer.id) && s.tries != Some(0) && now.since(s.since) < MEMORY);
        let due = self.strangers.iter_mut().filter(|s| s.due <= now).min_by_key(|s| s.due);
        if let Some(stranger) = due.filter(|_| self.joining.is_none()) {
            stranger.due = now + stranger.pause;
            stranger.pause = (stranger.pause * 2).min(PAUSE_MOST);
            stranger.tries = stranger.tries.map(|n| n - 1);
            let peer = stranger.peer;
            self.look_into(now, peer);
        }
        self.seek_next(now + SPACING);
    }

    /// The peer is known as one of this ring.
    fn is_of_this_ring(&self, id: &Id) -> bool {
        *id == self.table.me.id || self.table.is_reached(id) || self.members.contains(id)
    }

    fn expect(&mut self, now: Instant, peer: PeerRef, pause: Duration, tries: Option<u8>) {
        if peer.id == self.table.me.id {
            return;
        }
        let due = now + pause;
        match self.strangers.iter_mut().find(|s| s.peer.id == peer.id) {
            Some(s) if s.peer.addr == peer.addr => s.due = s.due.min(due),
            Some(s) => (s.peer, s.due) = (peer, due),
            None => {
                if self.strangers.len() >= STRANGERS {
                    self.strangers.remove(0);
                }
                self.strangers.push(Stranger { peer, since: now, due, pause: PAUSE, tries });
            }
        }
        self.seek_next(now);
    }

    fn seek_next(&mut self, earliest: Instant) {
        if let Some(due) = self.strangers.iter().map(|s| s.due).min() {
            self.timers.set(Timer::Seek, due.max(earliest));
        }
    }

    /// Peers that are said to be in the ring: those who would be next to this one are asked.
    pub(super) fn consider(&mut self, now: Instant, said: &[PeerRef]) {
        if self.state != State::Joined {
            return;
        }
        let (space, me) = (self.config.space, self.table.me.id);
        let believed = |p: &&PeerRef| p.id != me && !self.table.buried(&p.id, now);
        let after = |p: &&PeerRef| self.table.successor().is_none_or(|s| space.in_open(&p.id, &me, &s.id));
        let before = |p: &&PeerRef| self.table.predecessor().is_none_or(|s| space.in_open(&p.id, &s.id, &me));
        let next = said.iter().filter(believed).filter(after).min_by_key(|p| space.distance(&me, &p.id)).copied();
        let last = said.iter().filter(believed).filter(before).min_by_key(|p| space.distance(&p.id, &me)).copied();
        if let Some(next) = next {
            self.notify(now, next);
        }
        if let Some(last) = last.filter(|l| Some(l.id) != next.map(|n| n.id)) {
            self.ask(now, last);
        }
    }

    /// Registers with a peer believed to come right after this one, unless it is being done.
    pub(super) fn notify(&mut self, now: Instant, peer: PeerRef) {
        if !self.rpcs.values().any(|r| r.why == Why::Notify && r.to.id == peer.id) {
            self.send(now, peer, Request::Register { expires: self.config.expires }, Why::Notify);
        }
    }

    /// Asks a peer, known or only told of, whether it is there.
    pub(super) fn ask(&mut self, now: Instant, peer: PeerRef) {
        if peer.id != self.table.me.id && !self.table.buried(&peer.id, now) {
            self.table.told(peer, now);
            if let Some(peer) = self.table.peer(&peer.id) {
                self.probe(now, peer);
            }
        }
    }

    /// This peer was admitted in front of `by`, which had these neighbours: who was there before shall know of this peer.
    pub(super) fn displaced(&mut self, now: Instant, links: &Links) {
        let me = self.table.me.id;
        if let Some(before) = links.predecessors.iter().find(|p| p.id != me)
            && self.table.predecessor().is_none_or(|p| self.config.space.in_open(&before.id, &p.id, &me))
        {
            self.ask(now, *before);
        }
    }
}
