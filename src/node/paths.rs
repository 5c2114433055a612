//! The ways that calls' media take (ICE): from a call's sockets to the pair of addresses that its packets go by. The media
//! threads report what is no voice and send what is said here; they carry the voice itself by the [`Route`] that they were told.
//!
//! A call rings without a word about addresses: candidates stand in the answer, so whoever is not talked to learns none.
//! When the way falls silent, or this machine has moved, a further INVITE starts ICE anew; the old way goes on until a new one is
//! found.

use super::{MediaCommand, Node, Output};
use crate::config::Ice;
use crate::core::Instant;
use crate::nat::ice::{self, Agent, Clocks, Datagram, Gatherer, Pair, Route};
use crate::sdp::ice::{Candidate, CandidateKind, Credentials};
use crate::ua::{CallId, IcePlan, MediaOpened};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Checks kept that arrive before signalling has said whose they are.
const EARLY: usize = 16;

/// The sessions of all calls.
#[derive(Debug, Default)]
pub(super) struct Paths {
    calls: BTreeMap<CallId, Path>,
}

/// One call's.
#[derive(Debug, Default)]
struct Path {
    gatherer: Gatherer,
    session: Option<Session>,
    /// The one before a restart, until the new one has a way.
    old: Option<Agent>,
    /// Socket, sender, datagram.
    early: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    selected: Option<Pair>,
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
            agents.filter_map(Agent::poll_timeout).chain(path.gatherer.poll_timeout())
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

impl Node {
    /// A call has sockets, or others than before: `opened`, and `also` on further addresses of this machine.
    pub(super) fn open_path(&mut self, now: Instant, call: CallId, opened: MediaOpened, also: &[SocketAddr]) {
        if self.setup.system.is_none() || self.setup.config.media.ice == Ice::Off {
            return;
        }
        let servers = self.setup.config.nat.stun.clone();
        let path = self.paths.calls.entry(call).or_default();
        let sockets: Vec<_> = std::iter::once(opened.rtp).chain(also.iter().copied()).collect();
        let gone: Vec<_> = path.gatherer.found().iter().map(|l| l.base).filter(|b| !sockets.contains(b)).collect();
        let moved = !gone.is_empty();
        for base in gone {
            path.gatherer.remove(base);
        }
        for socket in sockets {
            path.gatherer.add_socket(now, socket, &servers, &mut self.rng);
        }
        path.gatherer.handle_timeout(now);
        self.ua.candidates(call, self.paths.calls[&call].gatherer.candidates());
        if moved {
            self.ua.media_moved(call, opened);
            self.ua.restart_ice(now, call);
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
        let agent = Agent::new(clocks, now, &plan.local, plan.controlling, self.rng.next_u64());
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

    /// A datagram that is STUN came to a socket of a call.
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
        let Some(session) = path.session.as_mut() else {
            if path.early.len() < EARLY {
                path.early.push_back((local, from, bytes.to_vec()));
            }
            return;
        };
        let taken = session.agent.handle(now, local, from, bytes)
            || path.old.as_mut().is_some_and(|old| old.handle(now, local, from, bytes));
        if !taken {
            // Of a restart whose answer is still on its way, or nobody's.
            if path.early.len() < EARLY {
                path.early.push_back((local, from, bytes.to_vec()));
            }
            self.count("checks of no session");
        }
    }

    pub(super) fn close_path(&mut self, call: CallId) {
        self.paths.calls.remove(&call);
    }

    /// This machine has moved: calls under way get sockets where it is now.
    pub(super) fn move_paths(&mut self) {
        for call in self.paths.calls.keys().copied() {
            self.out.push_back(Output::Media(MediaCommand::Open { call }));
        }
    }

    /// Fires what is due.
    pub(super) fn paths_timeout(&mut self, now: Instant) {
        for path in self.paths.calls.values_mut() {
            if path.gatherer.poll_timeout().is_some_and(|due| due <= now) {
                path.gatherer.handle_timeout(now);
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
        let mut busy = false;
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
                    self.out.push_back(send(datagram));
                }
            }
            while let Some(output) = path.session.as_mut().and_then(|s| s.agent.poll_output()) {
                busy = true;
                match output {
                    ice::Output::Send(datagram) => self.out.push_back(send(datagram)),
                    ice::Output::Selected(pair) => {
                        (path.selected, path.old) = (Some(pair), None);
                        let route = Route { socket: pair.local, remote: pair.remote, relay: None };
                        self.out.push_back(Output::Media(MediaCommand::Route { call, route: Some(route) }));
                    }
                    ice::Output::Silent => restarts.push(call),
                    ice::Output::Expired => {
                        path.selected = None;
                        self.out.push_back(Output::Media(MediaCommand::Route { call, route: None }));
                    }
                }
            }
        }
        for call in restarts {
            self.count("ways of calls that fell silent");
            self.ua.restart_ice(now, call);
        }
        busy
    }
}
