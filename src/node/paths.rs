//! The ways that calls' media take (ICE): from a call's sockets to the pair of addresses that its packets go by. The media
//! threads report what is no voice and send what is said here; they carry the voice itself by the [`Route`] that they were told.
//!
//! A call rings without a word about addresses: candidates stand in the answer, so whoever is not talked to learns none.
//! When the way falls silent, or this machine has moved, a further INVITE starts ICE anew; the old way goes on until a new one is
//! found.

use super::legs::Leg;
use super::{MediaCommand, Node, Output};
use crate::config::Ice;
use crate::core::{Instant, Transport};
use crate::nat::ice::{self, Agent, Clocks, Datagram, Gatherer, Pair, Relay, RelayOutput, RelayServer, Route};
use crate::sdp::ice::{Candidate, CandidateKind, Credentials};
use crate::ua::{CallId, IcePlan, MediaOpened};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Checks kept that arrive before signalling has said whose they are.
const EARLY: usize = 16;
/// STUN and TURN servers of one call.
const SERVERS: usize = 6;

/// The sessions of all calls.
#[derive(Default)]
pub(super) struct Paths {
    calls: BTreeMap<CallId, Path>,
    /// Relays were reached over streams only, in the latest call that needed one on this network.
    pub no_udp: bool,
}

/// One call's.
#[derive(Default)]
pub(super) struct Path {
    gatherer: Gatherer,
    relays: Vec<Relay>,
    /// To a relay over TLS.
    pub leg: Leg,
    session: Option<Session>,
    /// The one before a restart, until the new one has a way.
    old: Option<Agent>,
    /// Socket, sender, datagram.
    early: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    selected: Option<Pair>,
    /// It leads through a relay of ours whose channel is not there yet.
    unbound: bool,
}

impl Path {
    /// The way for the packets of the chosen pair; none where its channel is not there yet.
    fn route(&self) -> Option<Route> {
        let Pair { local, remote, local_kind, .. } = self.selected?;
        if local_kind != CandidateKind::Relayed {
            return Some(Route { socket: local, remote, relay: None });
        }
        let relay = self.relays.iter().find(|r| r.holds(local))?;
        Some(Route { socket: relay.base(), remote, relay: Some(relay.way(remote)?) })
    }

    /// Sends by a socket, or by a relayed address.
    fn send(&mut self, now: Instant, d: Datagram) -> Option<Datagram> {
        let Some(relay) = self.relays.iter_mut().find(|r| r.holds(d.local)) else { return Some(d) };
        relay.send(now, d.to, &d.bytes);
        None
    }

    pub fn gatherer(&self) -> &Gatherer {
        &self.gatherer
    }

    /// This machine has both families of addresses.
    pub fn is_dual(&self) -> bool {
        let hosts = self.gatherer.found().iter().filter(|l| l.told.kind == CandidateKind::Host);
        let bases: Vec<_> = hosts.map(|l| l.base).collect();
        [true, false].iter().all(|v4| bases.iter().any(|b| b.is_ipv4() == *v4))
    }

    /// A relay that is reached so has granted an address.
    pub fn has_relay(&self, by: Transport) -> bool {
        self.relays.iter().any(|r| r.transport() == by && r.is_allocated())
    }

    pub fn add_relay(&mut self, relay: Relay) {
        self.relays.push(relay);
    }

    /// A socket is gone, with the relay that it led to.
    pub fn forget_base(&mut self, base: SocketAddr) {
        self.gatherer.remove(base);
        self.relays.retain(|r| r.base() != base);
        if let Some(session) = self.session.as_mut() {
            session.added = session.added.min(self.gatherer.found().len());
        }
    }

    /// Takes out a relay of which nothing comes any more; true when addresses of it were ours.
    pub fn take_over(&mut self, base: SocketAddr, server: SocketAddr) -> bool {
        let is = |r: &Relay| r.is_over() && r.base() == base && r.server() == server;
        let Some(at) = self.relays.iter().position(is) else { return false };
        let relay = self.relays.remove(at);
        relay.addresses().iter().for_each(|addr| self.gatherer.remove(*addr));
        if let Some(session) = self.session.as_mut() {
            session.added = session.added.min(self.gatherer.found().len());
        }
        relay.is_allocated() && self.session.is_some()
    }

    /// Asks the relays whether they know us still.
    pub fn doubt_relays(&mut self, now: Instant) {
        self.relays.iter_mut().for_each(|r| r.doubt(now));
    }

    /// A STUN message came to an address of ours: a socket's or a relayed one.
    fn check(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let taken = self.session.as_mut().is_some_and(|s| s.agent.handle(now, local, from, bytes))
            || self.old.as_mut().is_some_and(|old| old.handle(now, local, from, bytes));
        // Of an answer that is still on its way, or nobody's.
        if !taken && self.early.len() < EARLY {
            self.early.push_back((local, from, bytes.to_vec()));
        }
    }
}

#[derive(Debug)]
struct Session {
    agent: Agent,
    local: Credentials,
    remote: Credentials,
    /// How many of the gatherer's candidates it has.
    added: usize,
}

impl Session {
    fn add_found(&mut self, now: Instant, gatherer: &Gatherer) {
        for local in gatherer.found().iter().skip(self.added) {
            self.agent.add_local(now, local);
        }
        self.added = gatherer.found().len();
    }
}

impl Paths {
    /// When [`Node::paths_timeout`] is due.
    pub fn next(&self) -> Option<Instant> {
        let times = self.calls.values().flat_map(|path| {
            let agents = path.session.as_ref().map(|s| &s.agent).into_iter().chain(&path.old);
            let relays = path.relays.iter().filter_map(Relay::poll_timeout);
            let leg = path.leg.next();
            agents.filter_map(Agent::poll_timeout).chain(path.gatherer.poll_timeout()).chain(relays).chain(leg)
        });
        times.min()
    }

    /// A call's way in a word: `direct`, `srflx` (through a NAT), `relay HOST`; none where ICE has found none or has no part.
    pub fn describe(&self, call: CallId) -> Option<String> {
        let pair = self.calls.get(&call)?.selected?;
        Some(match (pair.local_kind, pair.remote_kind) {
            (CandidateKind::Relayed, _) => format!("relay {}", pair.local.ip()),
            (_, CandidateKind::Relayed) => format!("relay {}", pair.remote.ip()),
            _ if pair.translated => "srflx".into(),
            _ => "direct".into(),
        })
    }
}

impl Paths {
    pub fn of(&self, call: CallId) -> Option<&Path> {
        self.calls.get(&call)
    }

    pub fn of_mut(&mut self, call: CallId) -> Option<&mut Path> {
        self.calls.get_mut(&call)
    }

    /// The calls of which something is true.
    pub fn calls_with(&self, which: impl Fn(&Path) -> bool) -> Vec<CallId> {
        self.calls.iter().filter(|(_, path)| which(path)).map(|(call, _)| *call).collect()
    }

    /// What carries a call's packets away from here: `udp`, or by which a relay of ours is reached.
    pub fn carried(&self, call: CallId) -> Option<&'static str> {
        let path = self.calls.get(&call)?;
        let local = path.selected?.local;
        let by = path.relays.iter().find(|r| r.holds(local)).map_or(Transport::Udp, Relay::transport);
        Some(match by {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        })
    }
}

impl Node {
    /// A call has sockets, or others than before: `opened`, and `also` on further addresses of this machine.
    pub(super) fn open_path(&mut self, now: Instant, call: CallId, opened: MediaOpened, also: &[SocketAddr]) {
        if self.setup.system.is_none() || self.setup.config.media.ice == Ice::Off || !self.ua.is_under_way(call) {
            return;
        }
        let relays = self.relay_servers(now);
        let stun = self.setup.config.nat.stun.iter().copied();
        let servers: Vec<_> = stun.chain(relays.iter().map(|r| r.addr)).collect();
        let path = self.paths.calls.entry(call).or_default();
        let sockets: Vec<_> = std::iter::once(opened.rtp).chain(also.iter().copied()).collect();
        let gone: Vec<_> = path.gatherer.found().iter().map(|l| l.base).filter(|b| !sockets.contains(b)).collect();
        let moved = !gone.is_empty();
        for base in gone {
            path.gatherer.remove(base);
            path.relays.retain(|r| r.base() != base);
        }
        for socket in sockets {
            path.gatherer.add_socket(now, socket, &servers, &mut self.rng);
        }
        path.gatherer.handle_timeout(now);
        let candidates = path.gatherer.candidates();
        self.use_relays(now, call, &relays);
        if relays.is_empty() {
            self.find_relays(now, None);
        }
        self.ua.candidates(call, candidates);
        if moved {
            self.ua.media_moved(call, opened);
            self.ua.restart_ice(now, call);
        }
    }

    /// The relays that a call may use: those in the configuration, and the overlay's.
    pub(super) fn relay_servers(&self, now: Instant) -> Vec<RelayServer> {
        let configured = self.setup.config.nat.turn.iter().map(|t| RelayServer {
            addr: t.addr,
            transport: Transport::Udp,
            certificate: None,
            // A server that has not ignores the wish.
            both: true,
            username: t.user.clone(),
            password: t.password.clone(),
        });
        let granted = self.best_relays(now).into_iter().filter(|g| g.udp != 0).flat_map(|grant| {
            let server = |host: &IpAddr| RelayServer {
                addr: SocketAddr::new(*host, grant.udp),
                transport: Transport::Udp,
                certificate: None,
                both: grant.has_both(),
                username: grant.username.clone(),
                password: grant.password.clone(),
            };
            grant.hosts.iter().map(server).collect::<Vec<_>>()
        });
        configured.chain(granted).take(SERVERS).collect()
    }

    /// Asks the best relay of each family for an address, from the first socket of that family.
    fn use_relays(&mut self, now: Instant, call: CallId, servers: &[RelayServer]) {
        let Some(path) = self.paths.calls.get_mut(&call).filter(|p| p.relays.is_empty()) else { return };
        let dual = path.is_dual();
        let bases: Vec<_> = path.gatherer.found().iter().filter(|l| l.told.kind == CandidateKind::Host).collect();
        for v4 in [true, false] {
            let base = bases.iter().map(|l| l.base).find(|b| b.is_ipv4() == v4 && !b.ip().is_loopback());
            let server = servers.iter().find(|s| s.addr.is_ipv4() == v4 && !s.addr.ip().is_loopback());
            if let (Some(base), Some(server)) = (base, server) {
                path.relays.push(Relay::new(now, server.clone(), base, dual, self.rng.fork()));
            }
        }
        self.plan_leg(now, call);
    }

    /// Supernodes have granted something: calls that had no relay get one, and learn how they are seen.
    pub(super) fn relays_for_calls(&mut self, now: Instant) {
        let servers = self.relay_servers(now);
        let addrs: Vec<_> = servers.iter().map(|s| s.addr).collect();
        for call in self.paths.calls.keys().copied().collect::<Vec<_>>() {
            let Some(path) = self.paths.calls.get_mut(&call).filter(|p| p.relays.is_empty()) else { continue };
            let found = path.gatherer.found().iter().filter(|l| l.told.kind == CandidateKind::Host);
            for socket in found.map(|l| l.base).collect::<Vec<_>>() {
                path.gatherer.add_socket(now, socket, &addrs, &mut self.rng);
            }
            path.gatherer.handle_timeout(now);
            self.use_relays(now, call, &servers);
        }
    }

    /// What was agreed on a call's ICE; none: it has no part in the call.
    pub(super) fn agree_path(&mut self, now: Instant, call: CallId, plan: Option<&IcePlan>) {
        let Some(clocks) = self.setup.system.map(|system| Clocks { now: self.started, system }) else { return };
        let Some(path) = self.paths.calls.get_mut(&call) else { return };
        let Some(plan) = plan else {
            (path.session, path.old, path.selected) = (None, None, None);
            return;
        };
        if let Some(session) = path.session.as_mut()
            && (&session.local, &session.remote) == (&plan.local, &plan.remote.credentials)
        {
            return session.agent.add_remote(now, &plan.remote.candidates);
        }
        // One that is lite never controls (RFC 8445 section 6.1.1).
        let controlling = plan.controlling || plan.remote.lite;
        let agent = Agent::new(clocks, now, &plan.local, controlling, self.rng.next_u64());
        let (local, remote) = (plan.local.clone(), plan.remote.credentials.clone());
        let mut session = Session { agent, local, remote, added: 0 };
        session.add_found(now, &path.gatherer);
        session.agent.set_remote(now, &plan.remote);
        for (local, from, bytes) in std::mem::take(&mut path.early) {
            session.agent.handle(now, local, from, &bytes);
        }
        let before = path.session.replace(session);
        path.old = before.map(|s| s.agent).filter(|a| a.selected().is_some()).or(path.old.take());
    }

    /// The other end has told of further candidates.
    pub(super) fn on_remote_candidates(&mut self, now: Instant, call: CallId, candidates: &[Candidate]) {
        if let Some(session) = self.paths.calls.get_mut(&call).and_then(|p| p.session.as_mut()) {
            session.agent.add_remote(now, candidates);
        }
    }

    /// A datagram that is no voice came to a socket of a call, or is a relay's.
    pub(super) fn on_path_packet(
        &mut self,
        now: Instant,
        call: CallId,
        local: SocketAddr,
        from: SocketAddr,
        bytes: &[u8],
    ) {
        let Some(path) = self.paths.calls.get_mut(&call) else { return };
        if path.gatherer.handle(local, from, bytes) {
            let candidates = path.gatherer.candidates();
            if let Some(session) = path.session.as_mut() {
                session.add_found(now, &path.gatherer);
            }
            return self.ua.candidates(call, candidates);
        }
        if !path.relays.iter_mut().any(|r| r.handle(now, local, from, bytes)) {
            path.check(now, local, from, bytes);
        }
    }

    /// Before a call's sockets are closed: its relays are given back.
    pub(super) fn end_path(&mut self, now: Instant, call: CallId) {
        let Some(path) = self.paths.calls.get_mut(&call) else { return };
        (path.session, path.old) = (None, None);
        for relay in &mut path.relays {
            relay.close(now);
        }
        self.settle_relays(now);
    }

    pub(super) fn forget_path(&mut self, call: CallId) {
        self.paths.calls.remove(&call);
    }

    /// This machine has moved: calls under way get sockets where it is now.
    pub(super) fn move_paths(&mut self) {
        self.paths.no_udp = false;
        for call in self.paths.calls.keys().copied() {
            self.out.push_back(Output::Media(MediaCommand::Open { call }));
        }
    }

    /// Fires what is due.
    pub(super) fn paths_timeout(&mut self, now: Instant) {
        self.legs_timeout(now);
        for path in self.paths.calls.values_mut() {
            if path.gatherer.poll_timeout().is_some_and(|due| due <= now) {
                path.gatherer.handle_timeout(now);
            }
            for relay in &mut path.relays {
                if relay.poll_timeout().is_some_and(|due| due <= now) {
                    relay.handle_timeout(now);
                }
            }
            for agent in path.session.as_mut().map(|s| &mut s.agent).into_iter().chain(&mut path.old) {
                if agent.poll_timeout().is_some_and(|due| due <= now) {
                    agent.handle_timeout(now);
                }
            }
        }
    }

    /// Carries out what the sessions say; true when there was anything.
    pub(super) fn settle_paths(&mut self, now: Instant) -> bool {
        let mut busy = self.settle_relays(now);
        let mut restarts = Vec::new();
        for (call, path) in &mut self.paths.calls {
            let call = *call;
            let send = |d: Datagram| {
                let Datagram { local, to, bytes } = d;
                Output::Media(MediaCommand::Send { call, local, to, bytes })
            };
            while let Some(datagram) = path.gatherer.poll_output() {
                self.out.push_back(send(datagram));
            }
            while let Some(output) = path.old.as_mut().and_then(Agent::poll_output) {
                if let ice::Output::Send(datagram) = output {
                    self.out.extend(path.send(now, datagram).map(send));
                    busy = true;
                }
            }
            while let Some(output) = path.session.as_mut().and_then(|s| s.agent.poll_output()) {
                busy = true;
                match output {
                    ice::Output::Send(datagram) => self.out.extend(path.send(now, datagram).map(send)),
                    ice::Output::Selected(pair) => {
                        (path.selected, path.old, path.unbound) = (Some(pair), None, true);
                    }
                    ice::Output::Silent => restarts.push(call),
                    ice::Output::Expired => {
                        (path.selected, path.unbound) = (None, false);
                        self.out.push_back(Output::Media(MediaCommand::Route { call, route: None }));
                    }
                }
            }
            if path.unbound
                && let Some(route) = path.route()
            {
                path.unbound = false;
                self.out.push_back(Output::Media(MediaCommand::Route { call, route: Some(route) }));
            }
        }
        for call in restarts {
            self.count("ways of calls that fell silent");
            self.doubt_relays(now, call);
            self.ua.restart_ice(now, call);
        }
        busy
    }

    /// Carries out what the relays say.
    fn settle_relays(&mut self, now: Instant) -> bool {
        let (mut busy, mut told, mut granted, mut over) = (false, Vec::new(), Vec::new(), Vec::new());
        for (call, path) in &mut self.paths.calls {
            let call = *call;
            for n in 0..path.relays.len() {
                while let Some(output) = path.relays[n].poll_output() {
                    busy = true;
                    let relay = &path.relays[n];
                    match output {
                        RelayOutput::Send(Datagram { local, to, bytes }) => {
                            self.out.push_back(Output::Media(MediaCommand::Send { call, local, to, bytes }));
                        }
                        RelayOutput::Allocated(addr) => {
                            let base = relay.base();
                            granted.push((call, relay.transport()));
                            if path.gatherer.add_relayed(addr, base) {
                                if let Some(session) = path.session.as_mut() {
                                    session.add_found(now, &path.gatherer);
                                }
                                told.push((call, path.gatherer.candidates()));
                            }
                        }
                        RelayOutput::Data { peer, bytes } => match (ice::is_stun(&bytes), relay.relayed(peer)) {
                            (true, Some(local)) => path.check(now, local, peer, &bytes),
                            // Voice that overtook the channel.
                            _ => self.out.push_back(Output::Media(MediaCommand::Take { call, from: peer, bytes })),
                        },
                        RelayOutput::Over => over.push((call, relay.base(), relay.server())),
                    }
                }
            }
        }
        for (call, candidates) in told {
            self.ua.candidates(call, candidates);
        }
        for (call, by) in granted {
            self.on_relay_granted(call, by);
        }
        for (call, base, server) in over {
            self.on_relay_over(now, call, base, server);
        }
        busy
    }
}
