//! The ways that calls' media take (ICE): from a call's sockets to the pair of addresses that its packets go by. The media
//! threads report what is no voice and send what is said here; they carry the voice itself by the [`Route`] that they were told.
//!
//! A call rings without a word about addresses: candidates stand in the answer, so whoever is not talked to learns none.
//! When the way falls silent, or this machine has moved, a further INVITE starts ICE anew; the old way goes on until a new one is
//! found.

use super::control::PathStatus;
use super::legs::Leg;
use super::second::Second;
use super::vanished::consent_over;
use super::{MediaCommand, Node, Output};
use crate::config::Ice;
use crate::core::{Instant, Rng, Transport};
use crate::nat::ice::{
    self, Agent, Clocks, Datagram, Figures, Gatherer, Local, Pair, Relay, RelayOutput, RelayServer, Route,
};
use crate::sdp::ice::{Candidate, CandidateKind, Credentials};
use crate::ua::{CallId, IcePlan, MediaOpened};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Checks kept that arrive before signalling has said whose they are.
const EARLY: usize = 16;
/// STUN and TURN servers of one call.
const SERVERS: usize = 6;
/// Relays of one call and family: one for each of its two ways.
const RELAYS: usize = 2;

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
    /// Where both ends keep one.
    second: Option<Second>,
    /// The media threads have a second way.
    doubled: bool,
    /// They are to give it up when they are told the first one.
    single: bool,
    /// When the other end was there last, by what is not the session's to know: one before it, or probes.
    alive: Instant,
    /// It was said that it is gone.
    over: bool,
    /// The other end is to see relays' addresses alone.
    hidden: bool,
}

impl Path {
    /// The way for the packets of the chosen pair; none where its channel is not there yet.
    fn route(&self) -> Option<Route> {
        route_of(&self.relays, self.selected.as_ref()?)
    }

    /// Candidates of ours that the other end may see, and be checked from.
    fn shown(&self) -> Vec<Local> {
        let found = self.gatherer.found().iter();
        found.filter(|l| !self.hidden || l.told.kind == CandidateKind::Relayed).cloned().collect()
    }

    /// The same as they are told.
    fn told(&self) -> Vec<Candidate> {
        self.shown().into_iter().map(|l| l.told).collect()
    }

    /// The sessions learn of what was found.
    fn add_found(&mut self, now: Instant) {
        let shown = self.shown();
        if let Some(session) = self.session.as_mut() {
            session.add_found(now, &shown);
        }
        if let Some(second) = self.second.as_mut() {
            second.add_found(now, &shown);
        }
    }

    /// When the other end was there last; none without ICE.
    fn alive(&self) -> Option<Instant> {
        let chosen = |agent: &&Agent| agent.selected().is_some();
        let agents = self.session.as_ref().map(|s| &s.agent).into_iter().chain(&self.old).filter(chosen);
        self.session.as_ref()?;
        agents.map(Agent::heard).chain([self.alive]).max()
    }

    /// Sends by a socket, or by a relayed address.
    fn send(&mut self, now: Instant, d: Datagram) -> Option<Datagram> {
        let Some(relay) = self.relays.iter_mut().find(|r| r.holds(d.local)) else { return Some(d) };
        relay.send(now, d.to, &d.bytes);
        None
    }

    /// The call's own sockets.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        self.gatherer.found().iter().filter(|l| l.told.kind == CandidateKind::Host).map(|l| l.base)
    }

    /// This machine has both families of addresses.
    pub fn is_dual(&self) -> bool {
        [true, false].iter().all(|v4| self.sockets().any(|b| b.is_ipv4() == *v4))
    }

    /// A relay that is reached so has granted an address.
    pub fn has_relay(&self, by: Transport) -> bool {
        self.relays.iter().any(|r| r.transport() == by && r.is_allocated())
    }

    /// Asks a relay for an address, from a socket or over the stream whose end here that is.
    pub fn ask_relay(&mut self, now: Instant, server: RelayServer, base: SocketAddr, rng: Rng) {
        self.relays.push(Relay::new(now, server, base, self.is_dual(), rng));
    }

    /// A socket is gone, with the relay that it led to.
    pub fn forget_base(&mut self, base: SocketAddr) {
        self.gatherer.remove(base);
        self.relays.retain(|r| r.base() != base);
        self.trim();
    }

    /// What was found has become fewer.
    fn trim(&mut self) {
        let shown = self.shown().len();
        if let Some(session) = self.session.as_mut() {
            session.added = session.added.min(shown);
        }
        if let Some(second) = self.second.as_mut() {
            second.trim(shown);
        }
    }

    /// Takes out a relay of which nothing comes any more; true when addresses of it were ours.
    pub fn take_over(&mut self, base: SocketAddr, server: SocketAddr) -> bool {
        let is = |r: &Relay| r.is_over() && r.base() == base && r.server() == server;
        let Some(at) = self.relays.iter().position(is) else { return false };
        let relay = self.relays.remove(at);
        relay.addresses().iter().for_each(|addr| self.gatherer.remove(*addr));
        self.trim();
        relay.is_allocated() && self.session.is_some()
    }

    /// Asks the relays whether they know us still.
    pub fn doubt_relays(&mut self, now: Instant) {
        self.relays.iter_mut().for_each(|r| r.doubt(now));
    }

    /// A STUN message came to an address of ours: a socket's or a relayed one.
    fn check(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let taken = self.session.as_mut().is_some_and(|s| s.agent.handle(now, local, from, bytes))
            || self.old.as_mut().is_some_and(|old| old.handle(now, local, from, bytes))
            || self.second.as_mut().is_some_and(|s| s.handle(now, self.selected.as_ref(), local, from, bytes));
        // Of an answer that is still on its way, or nobody's.
        if !taken && !ice::is_probe(bytes) && self.early.len() < EARLY {
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
    fn add_found(&mut self, now: Instant, found: &[Local]) {
        for local in found.iter().skip(self.added) {
            self.agent.add_local(now, local);
        }
        self.added = found.len();
    }
}

impl Paths {
    /// When [`Node::paths_timeout`] is due.
    pub fn next(&self) -> Option<Instant> {
        let times = self.calls.values().flat_map(|path| {
            let agents = path.session.as_ref().map(|s| &s.agent).into_iter().chain(&path.old);
            let relays = path.relays.iter().filter_map(Relay::poll_timeout);
            let second = path.second.as_ref().and_then(Second::poll_timeout);
            let over = path.alive().filter(|_| !path.over).map(consent_over);
            let leg = path.leg.next();
            agents
                .filter_map(Agent::poll_timeout)
                .chain(path.gatherer.poll_timeout())
                .chain(relays)
                .chain(leg)
                .chain(second)
                .chain(over)
        });
        times.min()
    }

    /// A call's way in a word: `direct`, `srflx` (through a NAT), `relay HOST`; none where ICE has found none or has no part.
    pub fn describe(&self, call: CallId) -> Option<String> {
        let path = self.calls.get(&call)?;
        let second = path.second.as_ref().filter(|s| s.figures.is_some_and(|f| f.on_second));
        Some(word(&second.and_then(Second::selected).copied().or(path.selected)?))
    }

    /// Both ways of a call that has two, the one that voice takes marked.
    pub fn both(&self, call: CallId) -> Vec<PathStatus> {
        let Some(path) = self.calls.get(&call) else { return Vec::new() };
        let second = path.second.as_ref().filter(|_| path.doubled);
        let (Some(first), Some((other, figures))) =
            (path.selected, second.and_then(|s| Some((s.selected()?, s.figures?))))
        else {
            return Vec::new();
        };
        let ways = [first, *other].into_iter().enumerate();
        let status = |(n, pair): (usize, Pair)| PathStatus {
            path: word(&pair),
            active: figures.both || figures.on_second == (n == 1),
            rtt_ms: figures.rtt[n].map(|rtt| rtt.as_secs_f64() * 1000.0),
            loss: figures.loss[n],
        };
        ways.map(status).collect()
    }

    /// The media threads say how the two ways of a call are.
    pub fn set_lanes(&mut self, now: Instant, call: CallId, figures: Figures) {
        let Some(path) = self.calls.get_mut(&call) else { return };
        if figures.answered {
            path.alive = now;
        }
        if let Some(second) = path.second.as_mut() {
            second.figures = Some(figures);
        }
    }
}

/// A way in a word.
fn word(pair: &Pair) -> String {
    match (pair.local_kind, pair.remote_kind) {
        (CandidateKind::Relayed, _) => format!("relay {}", pair.local.ip()),
        (_, CandidateKind::Relayed) => format!("relay {}", pair.remote.ip()),
        _ if pair.translated => "srflx".into(),
        _ => "direct".into(),
    }
}

/// The way for packets of a pair; none where it leads through a relay of ours whose channel is not there yet.
fn route_of(relays: &[Relay], pair: &Pair) -> Option<Route> {
    let Pair { local, remote, local_kind, .. } = *pair;
    if local_kind != CandidateKind::Relayed {
        return Some(Route { socket: local, remote, relay: None });
    }
    let relay = relays.iter().find(|r| r.holds(local))?;
    Some(Route { socket: relay.base(), remote, relay: Some(relay.way(remote)?) })
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
        Some(by.uri_name())
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
        let first = !self.paths.calls.contains_key(&call);
        let hidden = first && self.hides_addresses(now, call);
        let path = self.paths.calls.entry(call).or_default();
        path.hidden |= hidden;
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
        let candidates = path.told();
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
            let server = |host: &IpAddr| grant.server(SocketAddr::new(*host, grant.udp), Transport::Udp);
            grant.hosts.iter().map(server).collect::<Vec<_>>()
        });
        configured.chain(granted).take(SERVERS).collect()
    }

    /// Asks the best relays of each family for an address each, from the first socket of that family.
    fn use_relays(&mut self, now: Instant, call: CallId, servers: &[RelayServer]) {
        let Some(path) = self.paths.calls.get_mut(&call).filter(|p| p.relays.is_empty()) else { return };
        for v4 in [true, false] {
            let base = path.sockets().find(|b| b.is_ipv4() == v4 && !b.ip().is_loopback());
            let Some(base) = base else { continue };
            let usable = servers.iter().filter(|s| s.addr.is_ipv4() == v4 && !s.addr.ip().is_loopback());
            let mut hosts = BTreeSet::new();
            for server in usable.filter(|s| hosts.insert(s.addr.ip())).take(RELAYS) {
                path.ask_relay(now, server.clone(), base, self.rng.fork());
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
            for socket in path.sockets().collect::<Vec<_>>() {
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
            (path.session, path.old, path.selected, path.second) = (None, None, None, None);
            return;
        };
        if let Some(session) = path.session.as_mut()
            && (&session.local, &session.remote) == (&plan.local, &plan.remote.credentials)
        {
            session.agent.add_remote(now, &plan.remote.candidates);
            return;
        }
        // One that is lite never controls (RFC 8445 section 6.1.1).
        let controlling = plan.controlling || plan.remote.lite;
        let agent = Agent::new(clocks, now, &plan.local, controlling, self.rng.next_u64());
        let (local, remote) = (plan.local.clone(), plan.remote.credentials.clone());
        let mut session = Session { agent, local, remote, added: 0 };
        session.add_found(now, &path.shown());
        session.agent.set_remote(now, &plan.remote);
        for (local, from, bytes) in std::mem::take(&mut path.early) {
            session.agent.handle(now, local, from, &bytes);
        }
        path.second = plan.remote.second.then(|| Second::new(plan));
        // The first one begins now; a later one finds the other end as long gone as it is.
        path.alive = path.alive().unwrap_or(now);
        let before = path.session.replace(session);
        path.old = before.map(|s| s.agent).filter(|a| a.selected().is_some()).or(path.old.take());
    }

    /// The other end has told of further candidates.
    pub(super) fn on_remote_candidates(&mut self, now: Instant, call: CallId, candidates: &[Candidate]) {
        let Some(path) = self.paths.calls.get_mut(&call) else { return };
        if let Some(session) = path.session.as_mut() {
            session.agent.add_remote(now, candidates);
        }
        if let Some(second) = path.second.as_mut() {
            second.add_remote(now, candidates);
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
            path.add_found(now);
            let candidates = path.told();
            return self.ua.candidates(call, candidates);
        }
        if !path.relays.iter_mut().any(|r| r.handle(now, local, from, bytes)) {
            path.check(now, local, from, bytes);
        }
    }

    /// Before a call's sockets are closed: its relays are given back.
    pub(super) fn end_path(&mut self, now: Instant, call: CallId) {
        let Some(path) = self.paths.calls.get_mut(&call) else { return };
        (path.session, path.old, path.second) = (None, None, None);
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
        let clocks = self.setup.system.map(|system| Clocks { now: self.started, system });
        let mut gone = Vec::new();
        for (call, path) in &mut self.paths.calls {
            if !path.over && path.alive().is_some_and(|alive| consent_over(alive) <= now) {
                path.over = true;
                gone.push(*call);
            }
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
            let begun = path.second.as_mut().zip(clocks).is_some_and(|(s, clocks)| s.begin(now, clocks, &mut self.rng));
            if begun {
                path.add_found(now);
            }
            if let Some(second) = path.second.as_mut() {
                second.handle_timeout(now);
            }
        }
        for call in gone {
            self.on_consent_over(now, call);
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
                        // Of a session before, or where it would share with the first now.
                        let shares = path.second.as_mut().is_none_or(|second| second.on_first(now, &pair));
                        path.single |= shares && std::mem::take(&mut path.doubled);
                    }
                    ice::Output::Silent => restarts.push(call),
                    // The other way has the other end's consent.
                    ice::Output::Expired if consent_over(path.alive) > now => {}
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
                // Not before: until then the second way may be the only one that works.
                if std::mem::take(&mut path.single) {
                    self.out.push_back(Output::Media(MediaCommand::Second { call, second: None }));
                }
            }
            while let Some(datagram) = path.second.as_mut().and_then(|s| s.poll_send(now, path.selected.as_ref())) {
                self.out.extend(path.send(now, datagram).map(send));
                busy = true;
            }
            let ready = path.second.as_mut().filter(|_| !path.unbound && path.selected.is_some());
            if let Some(told) = ready.and_then(|s| s.tell(call, |pair| route_of(&path.relays, pair))) {
                path.doubled = true;
                self.out.push_back(told);
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
                                path.add_found(now);
                                told.push((call, path.told()));
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
