//! Bytes to messages to transactions, and what the transactions say to whoever it concerns.

use super::detour::Sent;
use super::flows::Wire;
use super::{Node, Owner};
use crate::core::{ConnId, Flow, Id, Instant, Transport, limits};
use crate::overlay::{PeerRef, carry};
use crate::sip::msg::{HeaderName, Message, Method, Via};
use crate::sip::tx::{self, Output, TxId};
use crate::ua::Hop;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// The connection on which the proxy reaches this node's own user agent: it never leaves the node.
pub(super) const INTERNAL: ConnId = ConnId(0);
/// What a Via adds to a message, at most, when it is asked whether it fits into a datagram.
pub(super) const VIA_SIZE: usize = 120;
/// How long a peer may say nothing to a request over its link; longer than a connection may take to open.
pub(super) const UNHEARD: Duration = Duration::from_secs(7);
/// The same where there is another way.
const UNHEARD_BY_WAY: Duration = Duration::from_secs(3);

impl Node {
    pub(super) fn on_bytes(&mut self, now: Instant, flow: Flow, bytes: Bytes) {
        if bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return; // Keep-alive (RFC 5626 section 4.4.1, and what older phones send).
        }
        if flow.transport == Transport::Udp && self.on_stun(now, flow, &bytes) {
            return;
        }
        let message = match Message::parse_bytes(bytes) {
            Ok(message) => message,
            Err(fault) => {
                self.count("malformed messages dropped");
                return tracing::debug!(%fault, "dropped");
            }
        };
        if let Err(fault) = message.validate() {
            self.count("invalid messages refused");
            if message.is_request() && *message.method() != Method::Ack && message.branch().is_some() {
                let mut refusal = Message::reply(&message, fault.status(), &fault.reason());
                if refusal.has(HeaderName::To) && refusal.to_tag().is_none() {
                    refusal.set_to_tag(&self.rng.token(6));
                }
                self.send_back(refusal, flow);
            }
            return;
        }
        self.tx.receive(now, message, flow);
    }

    /// A response outside of any transaction, to where RFC 3261 section 18.2.2 and RFC 3581 say.
    fn send_back(&mut self, response: Message, flow: Flow) {
        self.flows.send(flow, response.to_bytes(), &mut self.wire);
    }

    /// Carries out what the transaction layer says; true when there was anything.
    pub(super) fn settle_tx(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(output) = self.tx.poll_output() {
            busy = true;
            match output {
                Output::Send { flow, bytes } => self.put(now, flow, bytes),
                Output::Request { tx, message, flow, merged } => self.dispatch(now, tx, message, flow, merged),
                Output::Response { tx, message } => self.on_response(now, tx, message),
                Output::Timeout { tx } => self.on_no_response(now, tx, 408),
                Output::TransportError { tx } => self.on_no_response(now, tx, 503),
                Output::Cancel { invite, message } => self.on_cancel(now, invite, Some(&message)),
                Output::Ack { message, flow } => self.on_ack(now, message, flow),
                // It comes after its transaction is gone, or was never ours; the layer counts it.
                Output::StrayResponse { .. } => {}
                // Whoever has the transaction hears of it by its own timers: no ACK, no BYE.
                Output::ServerTimeout { .. } => {}
                // Whoever called hangs on a stream that is gone and cannot be told: as good as a CANCEL.
                Output::ServerTransportError { tx } => self.on_cancel(now, tx, None),
                Output::Terminated { tx: TxId::Client(tx) } => {
                    self.unheard.cancel(&tx);
                    self.owners.remove(&tx);
                    self.large.remove(&tx);
                    self.detours.forget(tx);
                    self.ways.forget(tx);
                }
                Output::Terminated { tx: TxId::Server(tx) } => self.forget_request(tx),
            }
        }
        busy
    }

    /// Puts bytes on a flow; the internal flow leads back into the transaction layer.
    fn put(&mut self, now: Instant, flow: Flow, bytes: Bytes) {
        if flow.conn == Some(INTERNAL) {
            if let Ok(message) = Message::parse_bytes(bytes) {
                self.tx.receive(now, message, flow);
            }
        } else if !self.flows.send(flow, bytes, &mut self.wire) {
            self.tx.flow_failed(flow);
        }
    }

    fn on_response(&mut self, now: Instant, tx: tx::ClientTxId, message: Message) {
        self.unheard.cancel(&tx);
        // The flow to whom it was for is not there: another way (RFC 5626 section 5.3).
        if message.status() == 430 && self.detour(now, tx) {
            return;
        }
        if message.status() >= 200 {
            self.detours.forget(tx);
        }
        if self.tries_elsewhere(tx, message.status()) {
            return;
        }
        let Some(message) = self.on_way_response(now, tx, message) else { return };
        match self.owners.get(&tx) {
            Some(Owner::Overlay(rpc)) => self.on_overlay_response(now, *rpc, &message),
            Some(Owner::Ua(key)) => self.ua.on_response(now, *key, tx, &message),
            Some(Owner::Router(_)) => self.router.on_response(now, tx, message),
            Some(Owner::Exchange(id)) => self.on_exchange_response(now, *id, &message),
            None => self.count("responses that nobody waits for"),
        }
    }

    fn on_no_response(&mut self, now: Instant, tx: tx::ClientTxId, status: u16) {
        if self.detour(now, tx) {
            return;
        }
        let owner = self.owners.remove(&tx);
        // RFC 3261 section 18.1.1: what went over TCP for its size alone goes over UDP when TCP is not taken there.
        if let (503, Some((message, flow)), Some(owner)) = (status, self.large.remove(&tx), owner) {
            let branch = tx::new_branch(&mut self.rng);
            if let Some(again) = self.send_on(now, message, flow, &branch, owner) {
                return self.sent_again(owner, again);
            }
        }
        if self.try_another_way(now, tx) {
            return;
        }
        match owner {
            Some(Owner::Overlay(rpc)) => self.on_overlay_failed(now, rpc),
            Some(Owner::Ua(key)) => self.ua_failed(now, key, status),
            Some(Owner::Router(_)) if status == 408 => self.router.on_timeout(now, tx),
            Some(Owner::Router(_)) => self.router.on_transport_error(now, tx),
            Some(Owner::Exchange(id)) => self.on_exchange_failed(now, id, status),
            None => {}
        }
    }

    /// A peer that lives says 100 or better at once. One that says nothing is taken for dead long before Timer B;
    /// should it answer late all the same, its answer still finds its owner.
    pub(super) fn on_unheard(&mut self, now: Instant) {
        while let Some(tx) = self.unheard.pop(now) {
            self.tx.cancel(now, tx);
            self.count("requests that a peer left unanswered");
            if self.detour(now, tx) || self.try_another_way(now, tx) {
                continue;
            }
            match self.owners.get(&tx).copied() {
                Some(Owner::Ua(key)) => self.ua_failed(now, key, 503),
                Some(Owner::Router(_)) => self.router.on_transport_error(now, tx),
                Some(Owner::Exchange(id)) => self.on_exchange_failed(now, id, 503),
                Some(Owner::Overlay(_)) | None => {}
            }
        }
    }

    /// Sends a request of ours in a transaction: pushes the Via of the flow that leads to `hop`. None when nothing
    /// leads there; whoever owns the request is then told as of a transport error.
    pub(super) fn send_request(&mut self, now: Instant, message: Message, hop: &Hop, owner: Owner) -> Sent {
        let branch = tx::new_branch(&mut self.rng);
        self.send_branch(now, message, hop, &branch, owner)
    }

    /// The same with a branch of the caller's choice.
    pub(super) fn send_branch(
        &mut self,
        now: Instant,
        message: Message,
        hop: &Hop,
        branch: &str,
        owner: Owner,
    ) -> Sent {
        match hop {
            Hop::Path { id, addr, path } => {
                let mut message = message;
                message.push_front(HeaderName::Route, path);
                self.send_branch(now, message, &Hop::Peer { id: *id, addr: *addr }, branch, owner)
            }
            Hop::Peer { id, addr } if matches!(owner, Owner::Ua(_) | Owner::Router(_)) && !self.is_me(id) => {
                self.send_to_peer(now, message, PeerRef { id: *id, addr: *addr }, branch, owner)
            }
            hop => self.send_straight(now, message, hop, branch, owner).map_or(Sent::No, Sent::Tx),
        }
    }

    /// The same to this hop and by no other way.
    pub(super) fn send_straight(
        &mut self,
        now: Instant,
        message: Message,
        hop: &Hop,
        branch: &str,
        owner: Owner,
    ) -> Option<tx::ClientTxId> {
        let size = message.wire_len() + VIA_SIZE;
        let flow = self.flow_to(hop, size)?;
        let small = match message.method() {
            Method::Message => None,
            _ => self.flow_to(hop, 0).filter(|small| small.transport != flow.transport),
        };
        let copy = small.map(|small| (message.clone(), small));
        let tx = self.send_on(now, message, flow, branch, owner)?;
        if let Some(copy) = copy {
            self.large.insert(tx, copy);
        }
        Some(tx)
    }

    /// True for a request that would have to go in a datagram and is larger than may.
    pub(super) fn is_too_large(&mut self, message: &Message, hop: &Hop) -> bool {
        let size = message.wire_len() + VIA_SIZE;
        size > limits::SIP_UDP_REQUEST && self.flow_to(hop, size).is_some_and(|f| f.transport == Transport::Udp)
    }

    pub(super) fn send_on(
        &mut self,
        now: Instant,
        mut message: Message,
        flow: Flow,
        branch: &str,
        owner: Owner,
    ) -> Option<tx::ClientTxId> {
        message.push_front(HeaderName::Via, self.via(&flow, branch));
        let tx = self.tx.send_request(now, message, flow);
        // The overlay has deadlines of its own, and in clear there may be anybody at the other end.
        if !matches!(owner, Owner::Overlay(_)) && self.flows.is_link(&flow) {
            self.unheard.set(tx, now + UNHEARD);
        }
        self.owners.insert(tx, owner);
        Some(tx)
    }

    /// A request that can go another way does not wait as long.
    pub(super) fn hurry_unheard(&mut self, now: Instant, tx: tx::ClientTxId) {
        if self.unheard.deadline(&tx).is_some() {
            self.unheard.set(tx, now + UNHEARD_BY_WAY);
        }
    }

    fn is_me(&self, id: &Id) -> bool {
        self.overlay.as_ref().is_some_and(|o| o.me().id == *id)
    }

    /// A request goes by another transaction than its owner was told.
    pub(super) fn sent_again(&mut self, owner: Owner, new: tx::ClientTxId) {
        match owner {
            Owner::Ua(key) => self.ua.sent(key, new),
            Owner::Router(branch) => self.router.forwarded(branch, new),
            Owner::Overlay(_) | Owner::Exchange(_) => {}
        }
    }

    /// Sends a message outside of any transaction: an ACK for a 2xx.
    pub(super) fn send_stateless(&mut self, now: Instant, message: Message, hop: &Hop, branch: &str) {
        if let Hop::Path { id, addr, path } = hop {
            let mut message = message;
            message.push_front(HeaderName::Route, path);
            return self.send_stateless(now, message, &Hop::Peer { id: *id, addr: *addr }, branch);
        }
        if let Some(uri) = self.needs_way(hop) {
            return self.find_way(now, message, uri, branch, None);
        }
        let size = message.wire_len() + VIA_SIZE;
        let Some(flow) = self.flow_to(hop, size) else { return self.count("messages without a way") };
        self.send_stateless_on(message, flow, branch);
    }

    pub(super) fn send_stateless_on(&mut self, mut message: Message, flow: Flow, branch: &str) {
        message.push_front(HeaderName::Via, self.via(&flow, branch));
        self.tx.send_stateless(&message, flow);
    }

    fn via(&self, flow: &Flow, branch: &str) -> Via {
        let locals = self.flows.locals();
        let there = flow.conn == Some(INTERNAL) || self.flows.is_link(flow) || flow.transport.is_encrypted();
        let sent_by = if there { locals.overlay } else { locals.sip };
        let mut via = Via::new(flow.transport.via_name(), &sent_by.ip().to_string(), Some(sent_by.port()), branch);
        if flow.transport == Transport::Udp || !there {
            via.params.set_flag("rport");
        }
        via
    }

    /// The flow to a hop, dialled where there is none.
    pub(super) fn flow_to(&mut self, hop: &Hop, size: usize) -> Option<Flow> {
        match hop {
            Hop::Flow(flow) => Some(*flow),
            Hop::Path { id, addr, .. } => self.flow_to(&Hop::Peer { id: *id, addr: *addr }, size),
            // Its way is found before it is sent.
            Hop::Account { .. } => None,
            Hop::Peer { id, .. } if self.overlay.as_ref().is_some_and(|o| o.me().id == *id) => {
                Some(self.internal_flow())
            }
            Hop::Peer { addr, .. } if self.flows.abroad_flow(*addr).is_some() => self.flows.abroad_flow(*addr),
            Hop::Peer { id, addr } => self.flows.peer_flow(Some(*id), *addr, size, &mut self.wire),
            Hop::Uri(uri) => {
                let (transport, addr) = crate::pbx::target::direct(uri).or_else(|| localhost(uri))?;
                if self.overlay.is_some() && [self.flows.locals().sip, self.flows.locals().overlay].contains(&addr) {
                    return Some(self.internal_flow());
                }
                if let (Transport::Tls, Some(flow)) = (transport, self.flows.abroad_flow(addr)) {
                    return Some(flow);
                }
                let explicit = uri.params.get("transport").is_some();
                let large = transport == Transport::Udp && size > limits::SIP_UDP_REQUEST && !explicit;
                self.flows.address_flow(if large { Transport::Tcp } else { transport }, addr, &mut self.wire)
            }
        }
    }

    fn dispatch(&mut self, now: Instant, tx: tx::ServerTxId, message: Message, flow: Flow, merged: bool) {
        if flow.conn == Some(INTERNAL) {
            // From the proxy to the user agent, unless it is the user agent's own within a dialog that the proxy is in.
            if message.to_tag().is_none() || self.ua.owns(&message) {
                return self.ring_here(now, tx, &message, flow, true);
            }
            return self.route(now, tx, message, flow, true, merged);
        }
        let link = self.flows.is_link(&flow);
        if self.flows.peer(&flow).is_some_and(|peer| self.people.revoked.check(peer).is_err()) {
            self.count("requests of the revoked refused");
            return self.answer(now, tx, &message, 403, "Revoked");
        }
        if let Some(foreign) = self.flows.foreign(&flow).cloned() {
            return self.on_foreign(now, tx, message, flow, &foreign, merged);
        }
        if carry::is_overlay(&message) {
            return self.on_overlay_request(now, tx, message, flow);
        }
        if link && self.flows.peer(&flow).is_none() && !self.flows.locals().clear {
            return self.on_stranger(now, tx, message, flow);
        }
        if !link && message.to_tag().is_none() && !merged && self.arrives_outside(now, tx, &message, &flow) {
            return;
        }
        if !link && message.to_tag().is_none() && !merged && self.redirects(now, tx, &message, &flow) {
            return;
        }
        if link && self.on_exchange(now, tx, &message, flow) {
            return;
        }
        if link && !self.may_enter(now, tx, &message, flow, merged) {
            return;
        }
        self.route(now, tx, message, flow, link, merged);
    }

    fn on_ack(&mut self, now: Instant, message: Message, flow: Flow) {
        if self.ua.owns(&message) {
            self.ua.on_ack(now, &message);
        } else {
            self.router.on_ack(now, message, &flow);
        }
    }

    /// Cancels an INVITE of ours, and says why where there is a reason (RFC 3326).
    pub(super) fn cancel_tx(&mut self, now: Instant, tx: tx::ClientTxId, reason: Option<&str>) {
        match reason {
            Some(reason) => self.tx.cancel_because(now, tx, reason),
            None => self.tx.cancel(now, tx),
        };
    }

    fn on_cancel(&mut self, now: Instant, invite: tx::ServerTxId, cancel: Option<&Message>) {
        self.cancel_vouching(now, invite);
        self.cancel_held(now, invite);
        self.cancel_at_edge(now, invite);
        self.cancel_redirect(now, invite);
        self.ua.on_cancel(now, invite, cancel);
        if let Some(reason) = cancel.and_then(|c| c.header(HeaderName::Reason)) {
            self.router.cancel_reason(invite, reason);
        }
        self.router.on_cancel(now, invite);
    }

    /// Closes every link to a peer that is in no table any more.
    pub(super) fn close_links(&mut self, id: &crate::core::Id) {
        let mut wire: Vec<Wire> = Vec::new();
        self.flows.close_peer(id, &mut wire);
        self.wire.extend(wire);
    }
}

/// `sip:..@localhost`, the one host name that needs no DNS (RFC 6761 section 6.3).
fn localhost(uri: &crate::sip::msg::Uri) -> Option<(Transport, SocketAddr)> {
    if !uri.host.eq_ignore_ascii_case("localhost") {
        return None;
    }
    let mut here = uri.clone();
    here.host = "127.0.0.1".into();
    crate::pbx::target::direct(&here)
}
