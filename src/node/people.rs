//! Revocations in the node: kept, told on, compared; and nobody is let in before what was missed has been heard.
//!
//! A new statement takes these ways at once: to the disk; into the overlay's verifier, which drops and refuses entries; out to the
//! driver, whose links refuse the chain; to the enroller's book; and on to every peer known. Links of whom it concerns are closed.
//!
//! The first thing said on a link that this node dialled is a digest of the set ([`Ask`]); both ends hold the same soon after.
//! A request that would let somebody in (a call, a message) waits until this node has compared with another peer than the one that
//! asks, where there is another, for two seconds at most; while it is still joining, it is refused after that. That is so after a start and after all links were lost: a peer
//! that returns has heard what it missed before anybody gets in, unless whoever asks is the only one it can reach.

use super::control::Event;
use super::exchange::{Answer, Asked};
use super::ring::State;
use super::{Node, Output, Saved};
use crate::core::{ConnId, Flow, Instant};
use crate::identity::{
    Ask, DeviceCodes, ItemId, Noted, PublicKey, REVOCATIONS_TYPE, Reply, Revocation, Revocations, Revoked, RevokedKey,
};
use crate::overlay;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How often the set is compared with a few others.
const COMPARE: Duration = Duration::from_secs(60);
/// How long a request waits for this node to hear what it missed.
const HOLD: Duration = Duration::from_secs(2);
/// Most requests that wait.
const HELD: usize = 256;
/// Most peers that a statement is told to by one peer.
const TOLD: usize = 256;
/// Rounds of one reconciliation.
const ROUNDS: u8 = 64;
/// Of these, without learning anything: what the other end does not take is not offered for ever.
const FRUITLESS: u8 = 8;

#[derive(Debug)]
struct Held {
    tx: ServerTxId,
    message: Message,
    flow: Flow,
    merged: bool,
    until: Instant,
}

/// What this node knows of people and their devices beside records.
#[derive(Debug)]
pub(super) struct People {
    pub revocations: Revocations,
    pub revoked: Arc<Revoked>,
    pub codes: DeviceCodes,
    compare: Option<Instant>,
    /// Devices with which the set was compared since there were links; two suffice.
    compared: BTreeSet<PublicKey>,
    held: VecDeque<Held>,
}

impl People {
    pub fn new(revocations: Revocations) -> People {
        let revoked = revocations.revoked();
        let (compared, held) = Default::default();
        People { revocations, revoked, codes: DeviceCodes::default(), compare: None, compared, held }
    }
}

impl Node {
    /// Tells everything below what was revoked before the start.
    pub(super) fn begin_people(&mut self, now: Instant) {
        if self.identity.is_none() || self.flows.locals().clear {
            return;
        }
        self.people.compare = Some(now + COMPARE);
        if !self.people.revocations.is_empty() {
            self.spread(now);
            self.heed_successor(now);
        }
    }

    pub(super) fn next_people_timeout(&self) -> Option<Instant> {
        let held = self.people.held.front().map(|held| held.until);
        [self.people.compare, held].into_iter().flatten().min()
    }

    pub(super) fn people_timeout(&mut self, now: Instant) {
        if self.people.compare.is_some_and(|at| at <= now) {
            // Who hangs on others is told at once of what is new, and wakes seldom.
            let pause = if self.attach.via.is_empty() { COMPARE } else { COMPARE * 15 };
            self.people.compare = Some(now + pause);
            let targets = self.compare_with();
            targets.iter().for_each(|hop| self.ask_revocations(now, hop, Vec::new()));
        }
        self.let_in(now);
    }

    /// A link that this node dialled is open.
    pub(super) fn greet(&mut self, now: Instant, conn: ConnId) {
        if let Some(flow) = self.flows.flow(conn).filter(|flow| self.flows.peer(flow).is_some()) {
            self.ask_revocations(now, &Hop::Flow(flow), Vec::new());
        }
    }

    /// A link is gone; with the last one goes what was known to be fresh.
    pub(super) fn link_gone(&mut self) {
        if self.flows.links().next().is_none() {
            self.people.compared.clear();
        }
    }

    fn ask_revocations(&mut self, now: Instant, to: &Hop, items: Vec<Vec<u8>>) {
        let ask = Ask::new(&self.people.revocations, items);
        let asked = Asked::Revocations { to: to.clone(), rounds: 0 };
        self.exchange(now, to, REVOCATIONS_TYPE, ask.encode(), asked);
    }

    /// A member compares, or tells what is new.
    pub(super) fn on_revocations(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let Some(peer) = self.flows.peer(&flow).cloned() else { return };
        let Ok(ask) = Ask::decode(message.body()) else {
            return self.answer(now, tx, message, 400, "Bad revocations");
        };
        self.note(now, &ask.items, Some(peer.device));
        let body = ask.answer(&self.people.revocations).encode();
        self.answer_exchange(now, tx, message, REVOCATIONS_TYPE, body);
        if ask.is_same(&self.people.revocations) {
            self.compared(now, peer.device);
        }
    }

    /// What came back.
    pub(super) fn on_revocations_answered(&mut self, now: Instant, to: Hop, rounds: u8, answer: &Answer) {
        let device = match &to {
            Hop::Flow(flow) => self.flows.peer(flow).map(|peer| peer.device),
            Hop::Peer { id, .. } => self.flows.links().find(|(_, _, p)| p.peer_id == *id).map(|(_, _, p)| p.device),
            Hop::Path { .. } | Hop::Uri(_) | Hop::Account { .. } => None,
        };
        let (Some(device), 200, Ok(reply)) = (device, answer.status, Reply::decode(&answer.body)) else { return };
        let learned = self.note(now, &reply.items, Some(device));
        if reply.is_same() {
            return self.compared(now, device);
        }
        match reply.next(&self.people.revocations) {
            Some(next) if rounds < FRUITLESS || learned && rounds < ROUNDS => {
                let asked = Asked::Revocations { to: to.clone(), rounds: rounds + 1 };
                self.exchange(now, &to, REVOCATIONS_TYPE, next.encode(), asked);
            }
            // Neither has anything that the other takes: as close as the two can come.
            _ => self.compared(now, device),
        }
    }

    /// Takes a statement of this node itself; false when there are too many.
    pub(super) fn revoke(&mut self, now: Instant, revocation: Revocation) -> bool {
        self.revoke_all(now, vec![revocation])
    }

    /// Takes several that belong together.
    pub(super) fn revoke_all(&mut self, now: Instant, revocations: Vec<Revocation>) -> bool {
        let (mut new, mut fits) = (Vec::new(), true);
        for revocation in revocations {
            let bytes = revocation.encode();
            match self.people.revocations.note(revocation) {
                Noted::New => new.push(bytes),
                Noted::Known => {}
                Noted::Full => fits = false,
            }
        }
        if !new.is_empty() {
            self.noted(now, new, None);
        }
        fits
    }

    /// True when any was new.
    pub(super) fn note(&mut self, now: Instant, items: &[Vec<u8>], from: Option<PublicKey>) -> bool {
        let Some(anchor) = self.identity.as_ref().map(|i| i.anchor.clone()) else { return false };
        let mut new = Vec::new();
        for item in items {
            if self.people.revocations.holds(&ItemId::of(item)) {
                continue;
            }
            let read = Revocation::decode(item).and_then(|r| r.verify(&anchor).map(|()| r));
            match read.map(|r| self.people.revocations.note(r)) {
                Ok(Noted::New) => new.push(item.clone()),
                Ok(Noted::Known) => {}
                Ok(Noted::Full) => self.count("revocations beyond those kept"),
                Err(fault) => {
                    self.count("revocations that do not verify");
                    tracing::debug!(%fault, "a revocation that does not verify");
                    break; // Whoever sends one sends more.
                }
            }
        }
        let learned = !new.is_empty();
        if learned {
            self.noted(now, new, from);
        }
        learned
    }

    /// New statements are in the set.
    fn noted(&mut self, now: Instant, new: Vec<Vec<u8>>, from: Option<PublicKey>) {
        let bytes = Bytes::from(self.people.revocations.to_bytes());
        self.out.push_back(Output::Save { what: Saved::Revocations, bytes });
        // Before links are closed: whom it concerns hears it too.
        for hop in self.known_hops(from) {
            self.ask_revocations(now, &hop, new.clone());
        }
        self.settle_tx(now);
        self.spread(now);
        self.replace_disowned(now);
        self.heed_successor(now);
        let read = new.iter().filter_map(|bytes| Revocation::decode(bytes).ok());
        for revocation in read.filter(|r| r.what != RevokedKey::Office) {
            tracing::info!(name = %revocation.name, key = %revocation.subject, "revoked");
            self.event(None, Event::Revoked { name: revocation.name, key: revocation.subject.to_string() });
        }
    }

    /// The set has changed: whoever verifies learns it, and links of whom it concerns are closed.
    fn spread(&mut self, now: Instant) {
        self.people.revoked = self.people.revocations.revoked();
        let revoked = self.people.revoked.clone();
        if let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut()) {
            enroller.revoke(revoked.clone());
        }
        self.vouch.forget_all();
        self.overlay_input(now, overlay::Input::Revoked { revoked: revoked.clone() });
        let theirs = self.flows.links().filter(|(_, _, peer)| revoked.check(peer).is_err());
        let theirs: Vec<_> = theirs.map(|(conn, _, peer)| (conn, peer.peer_id)).collect();
        let conns: Vec<_> = theirs.iter().map(|(conn, _)| *conn).collect();
        self.flows.close_links(&conns, &mut self.wire);
        for (_, peer) in theirs {
            self.overlay_input(now, overlay::Input::LinkDown { peer });
        }
        self.out.push_back(Output::Revoked(revoked));
    }

    fn compared(&mut self, now: Instant, device: PublicKey) {
        if self.people.compared.len() < 2 {
            self.people.compared.insert(device);
            self.let_in(now);
        }
    }

    /// True when a request of this link's other end may be answered now; otherwise it is held, or refused where too many are.
    pub(super) fn may_enter(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: Flow,
        merged: bool,
    ) -> bool {
        if message.to_tag().is_some() || self.is_fresh_for(&flow) {
            return true;
        }
        if self.people.held.len() >= HELD {
            self.answer(now, tx, message, 503, "Service Unavailable");
            return false;
        }
        let until = now + HOLD;
        self.people.held.push_back(Held { tx, message: message.clone(), flow, merged, until });
        false
    }

    /// True when this node has compared with somebody else than the one who asks, or there is nobody else.
    fn is_fresh_for(&self, flow: &Flow) -> bool {
        let Some(peer) = self.flows.peer(flow) else { return true };
        if self.people.compared.iter().any(|device| *device != peer.device) {
            return true;
        }
        match self.ring.state() {
            State::Joining => false,
            State::In => {
                let status = self.overlay.as_ref().map(|o| o.status()).unwrap_or_default();
                let mut others = status.successors.iter().chain(&status.predecessor).map(|p| p.id);
                !others.any(|id| id != peer.peer_id)
            }
            State::Out => !self.flows.links().any(|(_, _, other)| other.device != peer.device),
        }
    }

    /// Carries on what may be carried on by now.
    fn let_in(&mut self, now: Instant) {
        for _ in 0..self.people.held.len() {
            let Some(held) = self.people.held.pop_front() else { return };
            let fresh = self.is_fresh_for(&held.flow);
            if held.until > now && !fresh {
                self.people.held.push_back(held);
                continue;
            }
            if !fresh && self.ring.state() == State::Joining {
                self.count("requests before this node was in a ring refused");
                self.answer(now, held.tx, &held.message, 503, "Not in the overlay yet");
                continue;
            }
            // Its link may have been closed since.
            if self.flows.peer(&held.flow).is_some_and(|peer| self.people.revoked.check(peer).is_ok()) {
                self.route(now, held.tx, held.message, held.flow, true, held.merged);
            } else {
                self.answer(now, held.tx, &held.message, 403, "Revoked");
            }
        }
    }

    /// Cancelled while it waits; true when it did.
    pub(super) fn cancel_held(&mut self, now: Instant, invite: ServerTxId) {
        if let Some(at) = self.people.held.iter().position(|held| held.tx == invite)
            && let Some(held) = self.people.held.remove(at)
        {
            self.answer(now, invite, &held.message, 487, "Request Terminated");
        }
    }

    /// Where all peers known are reached: one open link a device, and those of the tables without one.
    fn known_hops(&self, except: Option<PublicKey>) -> Vec<Hop> {
        let (mut devices, mut ids, mut hops) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (_, flow, peer) in self.flows.links() {
            ids.insert(peer.peer_id);
            if Some(peer.device) != except && self.people.revoked.check(peer).is_ok() && devices.insert(peer.device) {
                hops.push(Hop::Flow(*flow));
            }
        }
        let status = self.overlay.as_ref().map(|o| o.status()).unwrap_or_default();
        let tables = status.successors.iter().chain(&status.predecessor).chain(status.fingers.iter().map(|(_, p)| p));
        hops.extend(tables.filter(|p| ids.insert(p.id)).map(|p| Hop::Peer { id: p.id, addr: p.addr }));
        hops.truncate(TOLD);
        hops
    }

    /// A neighbour on each side and one link drawn by lot.
    fn compare_with(&mut self) -> Vec<Hop> {
        let status = self.overlay.as_ref().map(|o| o.status()).unwrap_or_default();
        let near = [status.successors.first(), status.predecessor.as_ref()].into_iter().flatten();
        let mut hops: Vec<_> = near.map(|p| Hop::Peer { id: p.id, addr: p.addr }).collect();
        let links: Vec<Flow> = self.flows.links().map(|(_, flow, _)| *flow).collect();
        if !links.is_empty() {
            let lot = self.rng.below(links.len() as u64) as usize;
            hops.extend(links.get(lot).map(|flow| Hop::Flow(*flow)));
        }
        hops
    }
}
