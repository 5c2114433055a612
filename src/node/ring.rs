//! The overlay in the node: its messages carried as SIP, joining and leaving. Lookups and writes are in `lookup`.

use super::detour::Sent;
use super::discovery::Nearby;
use super::join::Entrance;
use super::lookup::Op;
use super::receive::VIA_SIZE;
use super::role::may_be_supernode;
use super::{Node, Output, Owner, Setup};
use crate::core::{Flow, Id, Instant};
use crate::node::control::Event;
use crate::overlay::{self, Command, OpId, PeerRef, RequestKind, RpcId, Token};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long taking back what was written may hold up leaving.
const WITHDRAW: Duration = Duration::from_millis(1500);
/// After many peers failed at once: within this time everything is written again, some a moment after the others.
const CHURN_SPREAD: Duration = Duration::from_secs(2);

/// A request of ours to another peer.
#[derive(Debug)]
struct Rpc {
    kind: RequestKind,
    /// Who was asked; unknown of a bootstrap address.
    peer: Option<Id>,
    addr: SocketAddr,
    flow: Flow,
    sent: Instant,
}

/// What the node remembers of its dealings with the overlay.
#[derive(Debug)]
pub(super) struct Ring {
    rpcs: BTreeMap<RpcId, Rpc>,
    tokens: BTreeMap<Token, (ServerTxId, Message)>,
    /// The token of a request whose transaction runs.
    by_tx: BTreeMap<ServerTxId, Token>,
    pub(super) ops: BTreeMap<OpId, Op>,
    last: u64,
    state: State,
    /// The ways in.
    pub(super) entrance: Entrance,
    /// Until when registrations are taken back before this peer leaves.
    leaving: Option<Instant>,
    /// Said to be on the local network.
    pub(super) nearby: Nearby,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Out,
    Joining,
    In,
}

impl Ring {
    pub fn new(setup: &Setup) -> Ring {
        Ring {
            rpcs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            by_tx: BTreeMap::new(),
            ops: BTreeMap::new(),
            last: 0,
            state: State::Out,
            entrance: Entrance::new(setup),
            leaving: None,
            nearby: Nearby::default(),
        }
    }

    /// Addresses to join by are still being tried.
    pub fn has_untried(&self) -> bool {
        self.entrance.is_racing()
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub(super) fn set_state(&mut self, state: State) {
        self.state = state;
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Node {
    pub(super) fn overlay_input(&mut self, now: Instant, input: overlay::Input) {
        if let Some(overlay) = self.overlay.as_mut() {
            overlay.handle(now, input);
        }
    }

    pub(super) fn next_ring_timeout(&self) -> Option<Instant> {
        let write = if self.ring.state == State::In { self.publisher.next() } else { None };
        let leaving = self.ring.leaving;
        [write, leaving, self.next_join(), self.next_nearby(), self.next_reach()].into_iter().flatten().min()
    }

    pub(super) fn ring_timeout(&mut self, now: Instant) {
        self.join_nearby(now);
        self.join_timeout(now);
        self.reach_timeout(now);
    }

    /// A request of another peer.
    pub(super) fn on_overlay_request(&mut self, now: Instant, tx: ServerTxId, message: Message, flow: Flow) {
        let Some(carry) = &self.carry else {
            return self.answer(now, tx, &message, 501, "No overlay here");
        };
        let (claimed, request) = match carry.decode_request(&message) {
            Ok(decoded) => decoded,
            Err(fault) => {
                let mut no = carry.refuse(&message, &fault);
                no.set_to_tag(&self.rng.token(6));
                self.tx.respond(now, tx, no);
                return self.count("overlay requests refused");
            }
        };
        let proven = match self.proven(&flow, &claimed) {
            Ok(proven) => proven,
            Err(reason) => {
                self.count("overlay requests refused");
                return self.answer(now, tx, &message, 493, reason);
            }
        };
        // Whoever chose its own number may ask and write, and has no say about the ring.
        let placed = self.flows.peer(&flow).is_none_or(|peer| may_be_supernode(peer));
        if !placed && matches!(request, overlay::Request::Register { .. } | overlay::Request::Leave { .. }) {
            self.count("peers without a place refused");
            return self.answer(now, tx, &message, 403, "No place on the ring");
        }
        if let Some(peer) = &proven {
            self.note_heard(now, peer.id, peer.addr, flow.remote);
        }
        let token = Token(self.ring.next());
        self.ring.by_tx.insert(tx, token);
        self.ring.tokens.insert(token, (tx, message));
        self.overlay_input(now, overlay::Input::Request { from: proven, token, request });
    }

    /// The sender of an overlay message, as far as the link (or in the laboratory the id function) proves it.
    fn proven(&self, flow: &Flow, claimed: &PeerRef) -> Result<Option<PeerRef>, &'static str> {
        if self.flows.locals().clear {
            // The carrier has checked that the peer-ID is that of the address; here, that the address is the sender's.
            let right = claimed.addr.ip() == flow.remote.ip();
            return if right { Ok(Some(*claimed)) } else { Err("The address is not the sender's") };
        }
        match self.flows.peer(flow) {
            Some(peer) if peer.peer_id == claimed.id => Ok(Some(*claimed)),
            Some(_) => Err("The peer-ID is not that of the certificate"),
            None => Ok(None),
        }
    }

    pub(super) fn answer(&mut self, now: Instant, tx: ServerTxId, request: &Message, status: u16, reason: &str) {
        let mut reply = Message::reply(request, status, reason);
        if reply.to_tag().is_none() {
            reply.set_to_tag(&self.rng.token(6));
        }
        self.tx.respond(now, tx, reply);
    }

    pub(super) fn on_overlay_response(&mut self, now: Instant, rpc: RpcId, message: &Message) {
        if message.status() < 200 {
            return;
        }
        let Some(Rpc { kind, peer, addr, flow, sent }) = self.ring.rpcs.remove(&rpc) else { return };
        let Some(carry) = &self.carry else { return };
        if self.flows.peer(&flow).is_some_and(|peer| !peer.has_place) {
            // Somebody named it as a peer; it is none.
            self.count("peers without a place refused");
            return self.overlay_input(now, overlay::Input::RpcFailed { rpc });
        }
        let decoded = carry.decode_response(message, kind);
        // Who answers is whom the link proves, or whom we asked.
        let proven = self.flows.peer(&flow).map(|p| p.peer_id).or(peer);
        match decoded {
            Ok((sender, response)) => {
                let from = match (sender, proven) {
                    (Some(sender), Some(id)) if sender.id == id => Some(sender),
                    (Some(sender), None) if self.flows.locals().clear => Some(sender),
                    (None, Some(id)) => Some(PeerRef { id, addr }),
                    _ => None,
                };
                match from {
                    Some(from) => {
                        self.note_reached(now, from.id, addr, flow.remote, sent);
                        self.overlay_input(now, overlay::Input::Response { rpc, from, response });
                    }
                    None => {
                        self.count("overlay answers from another peer than asked");
                        self.overlay_input(now, overlay::Input::RpcFailed { rpc });
                    }
                }
            }
            Err(fault) => {
                tracing::debug!(%fault, "an answer that makes no sense");
                self.count("overlay answers that make no sense");
                self.overlay_input(now, overlay::Input::RpcFailed { rpc });
            }
        }
    }

    pub(super) fn on_overlay_failed(&mut self, now: Instant, rpc: RpcId) {
        self.ring.rpcs.remove(&rpc);
        self.overlay_input(now, overlay::Input::RpcFailed { rpc });
    }

    /// A transaction is over: what the overlay has not answered by now has nobody to go to.
    pub(super) fn forget_request(&mut self, tx: ServerTxId) {
        if let Some(token) = self.ring.by_tx.remove(&tx) {
            self.ring.tokens.remove(&token);
        }
    }

    /// Carries out what the overlay says; true when there was anything.
    pub(super) fn settle_overlay(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(output) = self.overlay.as_mut().and_then(|o| o.poll_output()) {
            busy = true;
            self.on_overlay_output(now, output);
        }
        busy
    }

    fn on_overlay_output(&mut self, now: Instant, output: overlay::Output) {
        use overlay::Output as O;
        match output {
            O::Send { rpc, peer, addr, request } => self.send_overlay(now, rpc, peer, addr, &request),
            O::Reply { token, response } => {
                if let Some((tx, request)) = self.ring.tokens.remove(&token)
                    && let Some(carry) = &self.carry
                {
                    self.ring.by_tx.remove(&tx);
                    let message = carry.encode_response(&request, &response, &mut self.rng);
                    self.tx.respond(now, tx, message);
                }
            }
            O::Joined => self.on_joined(now),
            O::JoinFailed { why } => self.on_join_failed(now, why),
            O::PutDone { op, result, .. } => self.on_put_done(now, op, result),
            O::GetDone { op, result, trace } => match result {
                Ok(entries) => self.on_get_done(now, op, &entries, &trace),
                Err(fault) => self.on_get_failed(now, op, &fault.to_string(), &trace),
            },
            O::Left if self.has_departed() => {}
            O::Left => self.out.push_back(Output::Stopped),
            O::NeighboursChanged => {
                self.on_neighbours(now);
            }
            O::Churn => {
                self.count("times many peers failed at once");
                let rng = &mut self.rng;
                self.publisher.renew_soon(now, || rng.below(CHURN_SPREAD.as_millis() as u64));
            }
            O::Drop { peer } => self.close_links(&peer.id),
            O::FindDone { op, result, .. } => self.on_find_done(now, op, result.ok()),
            O::LeaseDone { op, result, .. } => self.on_lease_done(now, op, result),
            O::TakeDone { op, result, .. } => self.on_chunk_read(now, op, result.ok()),
            O::Load { hash } => self.out.push_back(Output::LoadChunk { hash }),
            O::Damaged { hash } => self.on_damaged(hash),
            O::Keep(batch) => self.out.push_back(Output::Store(batch)),
            O::Twin { addr } => self.on_twin_told(now, addr),
            O::ClockOff { seconds } => self.on_clock_off(now, seconds),
            O::Conflict { entries, .. } => self.on_conflict(now, &entries),
            O::Dial { rpc, peer } => self.dial_only(rpc, peer),
            O::Ping { peer } => self.ping(&peer),
            O::Hanging { via } => self.on_hanging(now, via),
        }
    }

    fn send_overlay(
        &mut self,
        now: Instant,
        rpc: RpcId,
        peer: Option<Id>,
        addr: SocketAddr,
        request: &overlay::Request,
    ) {
        let Some(carry) = &self.carry else { return };
        let message = carry.encode_request(request, addr, &mut self.rng);
        let size = message.wire_len() + VIA_SIZE;
        let Some(flow) = self.flows.peer_flow(peer, addr, size, &mut self.wire) else {
            return self.on_overlay_failed(now, rpc);
        };
        self.ring.rpcs.insert(rpc, Rpc { kind: request.kind(), peer, addr, flow, sent: now });
        if self.send_request(now, message, &Hop::Flow(flow), Owner::Overlay(rpc)) == Sent::No {
            self.on_overlay_failed(now, rpc);
        }
    }

    fn on_joined(&mut self, now: Instant) {
        let first = self.ring.state != State::In;
        self.ring.state = State::In;
        self.publisher.rewrite(now);
        self.mailbox_joined(now);
        self.look_for_relays(now);
        self.login_joined(now);
        self.settings_joined(now);
        let peers = self.overlay.as_ref().map_or(0, |o| o.status().successors.len());
        if peers > 0 {
            self.race_won();
        }
        if first || peers > 0 {
            self.event(None, Event::Joined { peers });
        }
    }

    /// Takes back what was written, then leaves the ring; [`Output::Stopped`] follows.
    pub(super) fn leave(&mut self, now: Instant) {
        self.keep_hosts(now, true);
        if self.overlay.is_none() || self.ring.state != State::In {
            return self.out.push_back(Output::Stopped);
        }
        self.publisher.withdraw(now);
        self.ring.leaving = Some(now + WITHDRAW);
    }

    /// Leaves once everything is taken back, or has had its time; true when it left.
    pub(super) fn leave_when_done(&mut self, now: Instant) -> bool {
        let Some(until) = self.ring.leaving else { return false };
        if !self.publisher.is_empty() && now < until {
            return false;
        }
        self.ring.leaving = None;
        self.ring.state = State::Out;
        self.overlay_input(now, overlay::Input::Command(Command::Leave));
        true
    }
}
