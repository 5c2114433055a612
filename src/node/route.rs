//! The registrar and the proxy in the node: who answers a request, and where the proxy's questions are answered.

use super::calls::hop_of;
use super::detour::Sent;
use super::lookup::Found;
use super::pins::named;
use super::receive::INTERNAL;
use super::{Node, Owner};
use crate::core::{Flow, Instant, Transport};
use crate::identity::{Choice, PROOF_HEADER, split_aor, told_apart};
use crate::overlay::PeerRef;
use crate::pbx::policy::{self, Origin};
use crate::pbx::registrar;
use crate::pbx::router::{Output, QueryId, Resolution, Scope};
use crate::pbx::{Candidate, Target};
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use crate::sip::tx::ServerTxId;

impl Node {
    /// Brings a request to whoever answers it: a call of the user agent's, the registrar, the user agent, the proxy.
    pub(super) fn route(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: Message,
        flow: Flow,
        link: bool,
        merged: bool,
    ) {
        if self.overlay.is_none() || self.ua.owns(&message) {
            return self.ua.on_request(now, tx, &message, flow, link);
        }
        let internal = flow.conn == Some(INTERNAL);
        if !link {
            if self.takes_as_edge(now, tx, &message, &flow, merged) {
                return;
            }
            return self.route_in_clear(now, tx, message, flow, merged);
        }
        if !internal && self.router.is_from_edge(&message) {
            return self.on_from_edge(now, tx, message, flow, merged);
        }
        if *message.method() == Method::Register && self.registrar.serves(&message) {
            return self.answer(now, tx, &message, 403, "Phones register over UDP or TCP");
        }
        if !internal && self.router.is_by_way(&message) {
            // For a phone that came here, from the peer that holds its account and has let the caller in.
            return self.route_on(now, tx, message, flow, link, merged);
        }
        if !internal && !self.is_vouched(now, tx, &message, flow, merged) {
            return;
        }
        if !internal && !self.is_welcome(now, tx, &message, &flow, link) {
            return;
        }
        self.route_on(now, tx, message, flow, link, merged);
    }

    /// The same for what comes over UDP or TCP, once it is known not to be for a peer that holds the account elsewhere.
    pub(super) fn route_in_clear(&mut self, now: Instant, tx: ServerTxId, message: Message, flow: Flow, merged: bool) {
        if *message.method() == Method::Register && self.registrar.serves(&message) {
            let unix = self.unix(now);
            let reply = self.registrar.on_register(now, unix, &message, &flow);
            return self.registered(now, tx, &message, reply);
        }
        if self.is_welcome(now, tx, &message, &flow, false) {
            self.route_on(now, tx, message, flow, false, merged);
        }
    }

    /// Answers a REGISTER, and looks after what waits for who came.
    pub(super) fn registered(&mut self, now: Instant, tx: ServerTxId, message: &Message, reply: Message) {
        let registered = reply.status() == 200 && message.has(HeaderName::Contact);
        self.tx.respond(now, tx, reply);
        if registered {
            self.on_phone_registered(now, message);
        }
    }

    /// The same, once the sender of a request on a link may speak for the caller that it names.
    pub(super) fn route_on(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: Message,
        flow: Flow,
        link: bool,
        merged: bool,
    ) {
        let internal = flow.conn == Some(INTERNAL);
        let origin = match self.flows.peer(&flow) {
            _ if internal => Origin::Ua { user: self.user().to_owned() },
            Some(peer) => Origin::Peer { user: peer.user.clone(), id: peer.peer_id },
            // In the laboratory a link proves nothing, and is believed.
            None if link => Origin::Peer { user: String::new(), id: crate::core::Id::default() },
            None => {
                let unix = self.unix(now);
                match policy::admit(&mut self.registrar, &self.router, (now, unix), &message, &flow) {
                    Ok(origin) => origin,
                    Err(refusal) => {
                        self.tx.respond(now, tx, *refusal);
                        return;
                    }
                }
            }
        };
        self.route_as(now, tx, message, flow, (origin, link, merged));
    }

    /// The same, once it is known whose it is.
    pub(super) fn route_as(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: Message,
        flow: Flow,
        (origin, link, merged): (Origin, bool, bool),
    ) {
        let internal = flow.conn == Some(INTERNAL);
        let pager = *message.method() == Method::Message && message.to_tag().is_none();
        if pager && !internal && self.takes_message(now, tx, &message, &origin, merged) {
            return;
        }
        if !internal && self.is_for_ua(now, &message) {
            if merged && message.to_tag().is_none() {
                return self.answer(now, tx, &message, 482, "Loop Detected (merged request)");
            }
            return self.ring_here(now, tx, &message, flow, link);
        }
        self.router.on_request(now, tx, message, &flow, &origin);
    }

    /// True for a request to this node itself, or to its user when nothing else rings for that user.
    fn is_for_ua(&self, now: Instant, message: &Message) -> bool {
        let Ok(uri) = Uri::parse(message.request_uri()) else { return false };
        if message.has(HeaderName::Route) || !self.domain.covers(&uri) {
            return false;
        }
        match self.domain.callee_of(&uri) {
            None => *message.method() == Method::Options,
            Some(user) => self.is_own(&user) && self.registrar.targets(now, &user).is_empty(),
        }
    }

    pub(super) fn user(&self) -> &str {
        self.identity.as_ref().map_or(self.setup.config.user.name.as_str(), |i| i.user())
    }

    /// True for this device's user's name and extensions.
    pub(super) fn is_own(&self, user: &str) -> bool {
        self.identity.as_ref().is_some_and(|i| i.user() == user || i.aliases().iter().any(|a| a == user))
    }

    /// The flow on which the proxy reaches the user agent, and the other way round.
    pub(super) fn internal_flow(&self) -> Flow {
        let here = self.flows.locals().overlay;
        Flow::stream(Transport::Tls, here, here, INTERNAL)
    }

    /// Carries out what the registrar and the proxy say; true when there was anything.
    pub(super) fn settle_pbx(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(output) = self.registrar.poll_output() {
            busy = true;
            let unix = self.unix(now);
            let (user, aor, reachable) = match output {
                registrar::Output::Reachable { aor, user } => (user, aor, true),
                registrar::Output::Unreachable { aor, user } => (user, aor, false),
            };
            if !self.is_own(&user) {
                if reachable {
                    self.mailbox_of_phone(now, &aor);
                }
                self.publisher.want(now, unix, &aor, reachable);
            }
        }
        while let Some(output) = self.router.poll_output() {
            busy = true;
            self.on_router_output(now, output);
        }
        busy
    }

    fn on_router_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Resolve { query, user, scope, .. } => {
                let Some((user, claim)) = named(&user) else {
                    return self.router.resolved(now, query, Resolution::NotFound);
                };
                let local = self.local_candidates(now, user);
                // A peer or phone that asks here for somebody who hangs here does not need the ring.
                if scope == Scope::Here || self.ring.state() != super::ring::State::In {
                    let found = match (local.is_empty(), self.registrar.hosts(user) || self.is_own(user)) {
                        (false, _) => Resolution::Targets(local),
                        (true, true) => Resolution::NotRegistered,
                        (true, false) => Resolution::NotFound,
                    };
                    return self.router.resolved(now, query, found);
                }
                if let Some(claim) = claim {
                    self.calls.chosen_by_phone.insert(query, claim);
                }
                self.lookup_for_route(now, query, self.domain.aor(user));
            }
            Output::Forward { branch, mut message, target, via_branch } => {
                let hop = self.hop_in_dialog(&message, hop_of(&target));
                let hop =
                    if matches!(target, Target::Ua { .. }) { crate::ua::Hop::Flow(self.internal_flow()) } else { hop };
                if let Some(uri) = self.needs_way(&hop) {
                    return self.find_way(now, message, uri, &via_branch, Some(Owner::Router(branch)));
                }
                if !matches!(target, Target::Peer { .. }) {
                    // Of no use to a standard phone, and too large for a datagram.
                    message.remove(HeaderName::Other(PROOF_HEADER));
                    message.remove(super::outside::SHOWN);
                }
                match self.send_branch(now, message, &hop, &via_branch, Owner::Router(branch)) {
                    Sent::Tx(client) => self.router.forwarded(branch, client),
                    Sent::Later => {}
                    Sent::No if matches!(&target, Target::Peer { uri, .. } if uri.contains(";ob")) => {
                        self.router.flow_failed(now, branch);
                    }
                    Sent::No => self.router.unsendable(now, branch),
                }
            }
            Output::Respond { tx, mut message } => {
                self.prove_answer(now, &mut message);
                self.tx.respond(now, tx, message);
            }
            Output::Cancel { tx, reason } => {
                self.cancel_tx(now, tx, reason.as_deref());
            }
            Output::ForwardStateless { message, target, via_branch } => {
                if matches!(target, Target::Ua { .. }) || self.ua.owns(&message) {
                    return self.ua.on_ack(now, &message);
                }
                let hop = self.hop_in_dialog(&message, hop_of(&target));
                self.send_stateless(now, message, &hop, &via_branch);
            }
        }
    }

    /// What rings here for a user: phones registered here, and this node's own user agent.
    fn local_candidates(&self, now: Instant, user: &str) -> Vec<Candidate> {
        let mut candidates = self.registrar.targets(now, user);
        if self.is_own(user) {
            candidates.push(Target::Ua { uri: self.setup.own_contact() }.into());
        }
        candidates
    }

    pub(super) fn on_route_found(&mut self, now: Instant, query: QueryId, aor: &str, found: &Found) {
        let user = split_aor(aor).map_or("", |(user, _)| user);
        let chosen = self.calls.chosen_by_phone.remove(&query);
        let key = match self.choose(now, aor, &found.claims, chosen.as_ref()) {
            Choice::Nobody => None,
            Choice::Key(key) => Some(key),
            Choice::Several(claims) | Choice::Changed { claims, .. } | Choice::Unclear(claims) => {
                let name = |key| format!("sip:{user}~{}@{}", told_apart(key, &claims), self.domain.overlay());
                let names = claims.iter().map(name).collect();
                return self.router.resolved(now, query, Resolution::Ambiguous(names));
            }
        };
        let own = self.own_key(now, user);
        let mut candidates = match key.is_none() || own.is_none() || key == own {
            true => self.local_candidates(now, user),
            false => Vec::new(),
        };
        let uri = |peer: &PeerRef| self.contact_uri(Some(user), peer);
        let peers = found.peers.iter().filter(|(_, claim)| Some(*claim) == key);
        let peers = peers.map(|(p, _)| Target::Peer { uri: uri(p), id: p.id, addr: p.addr }.into());
        candidates.extend(peers);
        let known = !found.claims.is_empty() || self.registrar.hosts(user);
        let found = match (candidates.is_empty(), known) {
            (false, _) => Resolution::Targets(candidates),
            (true, true) => Resolution::NotRegistered,
            (true, false) => Resolution::NotFound,
        };
        self.router.resolved(now, query, found);
    }

    /// The ring did not answer; what rings here rings all the same.
    pub(super) fn on_route_failed(&mut self, now: Instant, query: QueryId, aor: &str) {
        self.calls.chosen_by_phone.remove(&query);
        let user = split_aor(aor).map_or("", |(user, _)| user);
        let local = self.local_candidates(now, user);
        let found = if local.is_empty() { Resolution::Failed } else { Resolution::Targets(local) };
        self.router.resolved(now, query, found);
    }
}
