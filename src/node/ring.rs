//! The overlay in the node: its messages carried as SIP, joining and leaving. Lookups and writes are in `lookup`.

use super::discovery::Nearby;
use super::lookup::Op;
use super::receive::VIA_SIZE;
use super::{Node, Output, Owner, Saved, Setup};
use crate::core::{Flow, Id, Instant};
use crate::node::control::Event;
use crate::overlay::{self, Command, JoinError, OpId, PeerRef, RequestKind, RpcId, Token};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Wait between two attempts of a node that has been in a ring before and found nobody.
const REJOIN: Duration = Duration::from_secs(5);
/// How long taking back what was written may hold up leaving.
const WITHDRAW: Duration = Duration::from_millis(1500);
/// Attempts to join a ring that answers and has no place yet, because it is in motion.
const JOIN_ATTEMPTS: u8 = 4;
/// Most peers whose addresses are kept for the next start.
const REMEMBERED_PEERS: usize = 200;

/// A request of ours to another peer.
#[derive(Debug)]
struct Rpc {
    kind: RequestKind,
    /// Who was asked; unknown of a bootstrap address.
    peer: Option<Id>,
    addr: SocketAddr,
    flow: Flow,
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
    /// Addresses to join by that have not been tried in this round.
    untried: VecDeque<SocketAddr>,
    /// The user named them: a failure ends the program.
    named: bool,
    state: State,
    /// Rounds through the addresses in which somebody answered and nobody admitted this peer.
    attempts: u8,
    retry: Option<Instant>,
    /// Until when registrations are taken back before this peer leaves.
    leaving: Option<Instant>,
    saved: BTreeSet<SocketAddr>,
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
            untried: VecDeque::new(),
            named: !setup.config.overlay.bootstrap.is_empty(),
            state: State::Out,
            attempts: 0,
            retry: None,
            leaving: None,
            saved: BTreeSet::new(),
            nearby: Nearby::default(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Node {
    /// Joins by the configured peers, else by those known from the last time, else begins a ring.
    pub(super) fn begin_ring(&mut self, now: Instant) {
        if self.overlay.is_none() {
            return;
        }
        let unix = self.unix(now);
        self.overlay_input(now, overlay::Input::Clock { unix });
        self.tell_damage();
        if let Some(stored) = self.setup.stored.take() {
            self.overlay_input(now, overlay::Input::Restore(stored));
        }
        self.ring.attempts = 0;
        self.ring.untried = self.addresses_to_join_by();
        self.ring.state = State::Joining;
        self.join_next(now);
    }

    fn addresses_to_join_by(&self) -> VecDeque<SocketAddr> {
        let configured = &self.setup.config.overlay.bootstrap;
        let own = self.flows.locals().overlay;
        let known = if configured.is_empty() { &self.setup.known_peers } else { configured };
        known.iter().copied().filter(|a| *a != own).collect()
    }

    fn join_next(&mut self, now: Instant) {
        match self.ring.untried.pop_front() {
            Some(bootstrap) => self.overlay_input(now, overlay::Input::Command(Command::Join { bootstrap })),
            None if self.ring.named => {
                let list: Vec<_> = self.setup.config.overlay.bootstrap.iter().map(SocketAddr::to_string).collect();
                let why = format!("no answer from {}", list.join(", "));
                self.ring.state = State::Out;
                self.event(None, Event::JoinFailed { why });
            }
            None => {
                // Nobody is left of those known: this peer begins, and looks for the others again.
                self.overlay_input(now, overlay::Input::Command(Command::Create));
                if !self.setup.known_peers.is_empty() {
                    self.ring.retry = Some(now + REJOIN);
                }
            }
        }
    }

    pub(super) fn overlay_input(&mut self, now: Instant, input: overlay::Input) {
        if let Some(overlay) = self.overlay.as_mut() {
            overlay.handle(now, input);
        }
    }

    pub(super) fn next_ring_timeout(&self) -> Option<Instant> {
        let write = if self.ring.state == State::In { self.publisher.next() } else { None };
        let leaving = self.ring.leaving;
        [write, self.ring.retry, leaving, self.next_nearby()].into_iter().flatten().min()
    }

    pub(super) fn ring_timeout(&mut self, now: Instant) {
        self.join_nearby(now);
        if self.ring.retry.is_some_and(|at| at <= now) {
            self.ring.retry = None;
            // Who was found on the local network goes before who was there the last time.
            let alone = self.is_alone() && !self.ring.nearby.is_trying(now);
            if let (true, Some(&bootstrap)) = (alone, self.setup.known_peers.first()) {
                self.setup.known_peers.rotate_left(1);
                self.overlay_input(now, overlay::Input::Command(Command::Join { bootstrap }));
            }
            if self.is_alone() {
                self.ring.retry = Some(now + REJOIN);
            }
        }
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
        let Some(Rpc { kind, peer, addr, flow }) = self.ring.rpcs.remove(&rpc) else { return };
        let Some(carry) = &self.carry else { return };
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
                    Some(from) => self.overlay_input(now, overlay::Input::Response { rpc, from, response }),
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
            O::Left => self.out.push_back(Output::Stopped),
            O::NeighboursChanged => {
                self.remember_peers();
                self.on_neighbours(now);
            }
            O::Drop { peer } => self.close_links(&peer.id),
            O::FindDone { .. } => {}
            O::Keep(batch) => self.out.push_back(Output::Store(batch)),
            O::ClockOff { seconds } => self.on_clock_off(seconds),
            O::Conflict { entries, .. } => self.on_conflict(now, &entries),
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
        let size = message.to_bytes().len() + VIA_SIZE;
        let Some(flow) = self.flows.peer_flow(peer, addr, size, &mut self.wire) else {
            return self.on_overlay_failed(now, rpc);
        };
        self.ring.rpcs.insert(rpc, Rpc { kind: request.kind(), peer, addr, flow });
        if self.send_request(now, message, &Hop::Flow(flow), Owner::Overlay(rpc)).is_none() {
            self.on_overlay_failed(now, rpc);
        }
    }

    fn on_joined(&mut self, now: Instant) {
        let first = self.ring.state != State::In;
        self.ring.state = State::In;
        self.publisher.rewrite(now);
        self.remember_peers();
        let peers = self.overlay.as_ref().map_or(0, |o| o.status().successors.len());
        if first || peers > 0 {
            self.event(None, Event::Joined { peers });
        }
    }

    fn on_join_failed(&mut self, now: Instant, why: JoinError) {
        tracing::info!(%why, "not joined");
        if self.ring.state == State::In {
            return; // A later attempt of a node that runs its own ring.
        }
        // A ring in motion is no reason to give up, nor to begin another one beside it.
        let moving = match why {
            JoinError::NoWay => true,
            JoinError::Refused(failure) => !failure.is_final(),
            JoinError::NoAnswer | JoinError::IdTaken => false,
        };
        if moving && self.ring.attempts < JOIN_ATTEMPTS {
            self.ring.attempts += 1;
            if self.ring.untried.is_empty() {
                self.ring.untried = self.addresses_to_join_by();
            }
        } else if self.ring.untried.is_empty() && self.ring.named && why != JoinError::NoAnswer {
            self.ring.state = State::Out;
            return self.event(None, Event::JoinFailed { why: why.to_string() });
        }
        self.join_next(now);
    }

    /// Keeps the addresses of the peers around for the next start, when they have changed.
    fn remember_peers(&mut self) {
        let Some(overlay) = self.overlay.as_ref() else { return };
        let status = overlay.status();
        let around =
            status.successors.iter().chain(status.predecessor.iter()).chain(status.fingers.iter().map(|(_, p)| p));
        let addrs: BTreeSet<_> = around.map(|p| p.addr).take(REMEMBERED_PEERS).collect();
        if addrs.is_empty() || addrs == self.ring.saved {
            return; // A peer that is left alone still knows whom to look for.
        }
        let text: String = addrs.iter().map(|a| format!("{a}\n")).collect();
        self.setup.known_peers = addrs.iter().copied().collect();
        self.ring.saved = addrs;
        self.out.push_back(Output::Save { what: Saved::Peers, bytes: Bytes::from(text) });
    }

    /// Takes back what was written, then leaves the ring; [`Output::Stopped`] follows.
    pub(super) fn leave(&mut self, now: Instant) {
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
