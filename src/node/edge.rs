//! A standard phone that comes to a peer which does not hold its account (an edge proxy, RFC 3327): its requests are sent on to the
//! peers that do, its adapters, and what is for the phone comes back the same way.
//!
//! - **Here, at the edge**: the phone's record names its adapters, each by an entry that the device signed with an enroller's leave
//!   to do so. REGISTER gets a Path whose user part is a pass for the phone's flow; everything else that is outside of a dialog goes on as
//!   it is, credentials included, with a Route that says that it comes from a phone. The first adapter that is there answers.
//! - **There, at the adapter**: the digest is asked for and checked as if the phone had come itself, and the binding is
//!   reached through the edge. The link says which member the edge is; it is believed about nothing but the address at which the phone
//!   meant this overlay.
//!
//! The edge never learns the phone's secret. A user whom nobody holds is answered as one with a wrong password is.
//!
//! Left out: open overlays, where nobody gives such a leave, and adapters that hang on supernodes themselves.

use super::Node;
use super::lookup::Op;
use super::ring::State;
use super::strangers::Throttle;
use crate::core::{Flow, Instant, subscriber};
use crate::identity::{ContactBody, DeviceBody, EntryKind, SignedEntry, Verified};
use crate::overlay::PeerRef;
use crate::pbx::policy;
use crate::pbx::registrar::Auth;
use crate::pbx::{Candidate, Edge, Origin, Target};
use crate::sip::msg::{HeaderName, Message, Method, NameAddr};
use crate::sip::tx::ServerTxId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Requests that wait for a lookup at once.
const HELD: usize = 1024;
/// Phones whose adapters are remembered.
const KNOWN: usize = 1024;
/// For how long: from a challenge to its answer, and to the call that follows.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// What a source may ask for: so many at once, and one more after each of these.
const BURST: u32 = 60;
const EVERY: Duration = Duration::from_millis(100);

/// A request whose phone's adapters are being looked up.
#[derive(Debug)]
struct Held {
    user: String,
    message: Message,
    flow: Flow,
    merged: bool,
}

/// What an edge remembers.
#[derive(Debug)]
pub(super) struct Edges {
    held: BTreeMap<ServerTxId, Held>,
    known: BTreeMap<String, (Instant, Vec<PeerRef>)>,
    sources: Throttle<IpAddr>,
}

impl Default for Edges {
    fn default() -> Edges {
        Edges { held: BTreeMap::new(), known: BTreeMap::new(), sources: Throttle::new(BURST, EVERY) }
    }
}

impl Node {
    /// Takes the request of a phone in clear whose account is not held here; false for any other.
    pub(super) fn takes_as_edge(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: &Flow,
        merged: bool,
    ) -> bool {
        let Some(user) = self.phone_elsewhere(message) else { return false };
        if !self.edges.sources.take(now, &subscriber(flow.remote.ip())) || self.edges.held.len() >= HELD {
            self.count("requests of phones elsewhere refused, too many");
            let mut busy = self.registrar.refuse(message, 503, "Service Unavailable");
            busy.push(HeaderName::RetryAfter, 5);
            self.tx.respond(now, tx, busy);
            return true;
        }
        let held = Held { user, message: message.clone(), flow: *flow, merged };
        match self.edges.known.get(&held.user).filter(|(until, _)| *until > now) {
            Some((_, adapters)) => {
                let adapters = adapters.clone();
                self.send_on_for_phone(now, tx, held, &adapters);
            }
            None => {
                let aor = self.domain.aor(&held.user);
                self.edges.held.insert(tx, held);
                self.lookup_people(now, Op::Adapters { tx }, &aor);
            }
        }
        true
    }

    /// The user for whom a request in clear speaks, where that is one of this office's phones and not one of ours.
    fn phone_elsewhere(&self, message: &Message) -> Option<String> {
        let may = self.ring.state() == State::In && !self.is_open() && self.registrar.auth() == Auth::Digest;
        if !may || message.to_tag().is_some() || *message.method() == Method::Options {
            return None;
        }
        let speaker = match message.method() {
            Method::Register if !self.registrar.serves(message) => return None,
            Method::Register => message.to(),
            _ => message.from(),
        };
        let user = self.domain.user_of(&speaker.ok()?.uri)?;
        self.registrar.accounts().get(&user).is_none().then_some(user)
    }

    /// The record of the phone was looked up; a lookup that failed has found nobody.
    pub(super) fn on_adapters(&mut self, now: Instant, tx: ServerTxId, entries: &[SignedEntry]) {
        let Some(held) = self.edges.held.remove(&tx) else { return };
        let adapters = self.adapters_in(now, &held.user, entries);
        if adapters.is_empty() {
            // Whoever this is: what a phone hears that is not known here.
            let Held { message, flow, merged, .. } = held;
            return self.route_in_clear(now, tx, message, flow, merged);
        }
        let known = &mut self.edges.known;
        if known.len() >= KNOWN {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() < KNOWN {
            known.insert(held.user.clone(), (now + GOOD_FOR, adapters.clone()));
        }
        self.send_on_for_phone(now, tx, held, &adapters);
    }

    /// Who may sign for the phone and takes links: those first through whom it is registered already.
    fn adapters_in(&self, now: Instant, user: &str, entries: &[SignedEntry]) -> Vec<PeerRef> {
        let (unix, own) = (self.unix(now), self.overlay.as_ref().map(|o| o.me().id));
        let Some(anchor) = self.identity.as_ref().map(|i| i.anchor.clone()) else { return Vec::new() };
        let right = |who: &Verified| {
            let named = who.has_place && who.adapter_for.iter().any(|phone| phone == user);
            named && Some(who.peer_id) != own && self.people.revoked.check(who).is_ok()
        };
        let mut found: Vec<(bool, PeerRef)> = Vec::new();
        for entry in entries.iter().filter(|e| !e.entry().is_removal()) {
            let Some(who) = anchor.verify_chain(entry.chain(), unix).ok().filter(right) else { continue };
            let (registered, body) = match entry.entry().kind {
                EntryKind::Contact => (true, ContactBody::decode(&entry.entry().body)),
                EntryKind::DEVICE => (false, DeviceBody::decode(&entry.entry().body).map(|device| device.contact)),
                _ => continue,
            };
            let body = body.ok().filter(|b| b.peer_id == who.peer_id && b.via.is_empty());
            let Some(addr) = body.and_then(|b| b.addrs.first().copied()) else { continue };
            let peer = PeerRef { id: who.peer_id, addr };
            match found.iter_mut().find(|(_, p)| p.id == peer.id) {
                Some(there) if registered => *there = (true, peer),
                Some(_) => {}
                None => found.push((registered, peer)),
            }
        }
        found.sort_by_key(|(registered, peer)| (!registered, peer.id));
        found.into_iter().map(|(_, peer)| peer).collect()
    }

    fn send_on_for_phone(&mut self, now: Instant, tx: ServerTxId, held: Held, adapters: &[PeerRef]) {
        let Held { mut message, flow, merged, .. } = held;
        if merged {
            return self.answer(now, tx, &message, 482, "Loop Detected (merged request)");
        }
        if *message.method() == Method::Register
            && let Some(path) = self.router.path_to(&flow)
        {
            message.push_front(HeaderName::Path, path);
        }
        let target =
            |peer: &PeerRef| Target::Peer { uri: self.setup.peer_uri(None, peer), id: peer.id, addr: peer.addr };
        // The first before the others.
        let adapters = (1..=1000u16).rev().zip(adapters).map(|(q, peer)| Candidate { target: target(peer), q });
        let origin = Origin::Edge { adapters: adapters.collect() };
        self.router.on_request(now, tx, message, &flow, &origin);
    }

    /// A request that waits was cancelled: it ends here.
    pub(super) fn cancel_at_edge(&mut self, now: Instant, invite: ServerTxId) {
        if let Some(held) = self.edges.held.remove(&invite) {
            self.answer(now, invite, &held.message, 487, "Request Terminated");
        }
    }

    /// A member sends on what a phone of ours asked there.
    pub(super) fn on_from_edge(&mut self, now: Instant, tx: ServerTxId, message: Message, flow: Flow, merged: bool) {
        let unix = self.unix(now);
        if *message.method() == Method::Register {
            let Some(edge) = self.edge_of(&message, &flow) else {
                self.count("registrations through a peer without its Path");
                return self.answer(now, tx, &message, 400, "The Path is not the sender's");
            };
            let reply = self.registrar.on_register_through(now, unix, &message, &flow, edge);
            return self.registered(now, tx, &message, reply);
        }
        match policy::admit_from_edge(&mut self.registrar, (now, unix), &message) {
            Ok(origin) => self.route_as(now, tx, message, flow, (origin, false, merged)),
            Err(refusal) => {
                self.tx.respond(now, tx, *refusal);
            }
        }
    }

    /// The peer that sent a REGISTER on, as its Path says and its link proves.
    fn edge_of(&self, message: &Message, flow: &Flow) -> Option<Edge> {
        let path = message.values(HeaderName::Path).next()?;
        let Target::Peer { id, addr, .. } = Target::of(&NameAddr::parse(path).ok()?.uri) else { return None };
        let proven = self.flows.peer(flow).map(|peer| peer.peer_id == id);
        // In the laboratory a link proves nothing, and is believed.
        proven.unwrap_or(self.flows.locals().clear).then(|| Edge { id, addr, path: path.to_owned() })
    }
}
