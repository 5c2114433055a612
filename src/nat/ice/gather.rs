//! The addresses of a call's sockets, and how others see them. Server-reflexive candidates come by a Binding request from each
//! socket to each STUN server of the same family, repeated as RFC 8489 section 6.2.1 says. After four seconds a
//! socket of which no server has told anything is asked for now and then, for as long as the call lasts: one that begins by a relay may
//! do without it later.

use super::{Datagram, agent, probe};
use crate::core::{Instant, Rng};
use crate::sdp::ice::{Candidate, CandidateKind, TcpType};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// First repetition; each takes twice as long as the one before.
const RETRY: Duration = Duration::from_millis(250);
/// Requests of one question.
const TRIES: u32 = 4;
/// Between two further ones: at most.
const RARELY: Duration = Duration::from_secs(32);
/// Questions under way at once.
const QUESTIONS: usize = 16;
/// Candidates of one call.
const CANDIDATES: usize = 24;

/// A candidate of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The socket that it belongs to.
    pub base: SocketAddr,
    /// As the other end is told.
    pub told: Candidate,
}

#[derive(Debug)]
struct Question {
    transaction: [u8; 12],
    local: SocketAddr,
    server: SocketAddr,
    tries: u32,
    due: Instant,
}

/// See the module. One for each call.
#[derive(Debug, Default)]
pub struct Gatherer {
    found: Vec<Local>,
    open: Vec<Question>,
    /// Sockets of which some server has told.
    seen: Vec<SocketAddr>,
    out: VecDeque<Datagram>,
}

impl Gatherer {
    /// A socket of the call, whose address each of `servers` is asked for, where the family fits; [`Gatherer::handle_timeout`] sends.
    pub fn add_socket(&mut self, now: Instant, local: SocketAddr, servers: &[SocketAddr], rng: &mut Rng) {
        self.add(CandidateKind::Host, local, local, None);
        for server in servers.iter().filter(|s| s.is_ipv4() == local.is_ipv4()) {
            if self.open.len() >= QUESTIONS {
                return;
            }
            if self.open.iter().any(|q| (q.local, q.server) == (local, *server)) {
                continue;
            }
            let mut transaction = [0; 12];
            rng.fill(&mut transaction);
            self.open.push(Question { transaction, local, server: *server, tries: 0, due: now });
        }
    }

    /// An address of the call's that waits for TCP connections, and makes them by [`Gatherer::active`].
    pub fn add_tcp(&mut self, local: SocketAddr) {
        let active = Gatherer::active(local);
        self.add(CandidateKind::Host, active, active, Some(TcpType::Active));
        self.add(CandidateKind::Host, local, local, Some(TcpType::Passive));
    }

    /// As what connections made from the same address are known.
    pub fn active(local: SocketAddr) -> SocketAddr {
        SocketAddr::new(local.ip(), agent::ACTIVE)
    }

    /// A relay's address that is ours for a while, had by the socket `base`; false when it is known.
    pub fn add_relayed(&mut self, addr: SocketAddr, base: SocketAddr) -> bool {
        // A relay's own loopback is of no use to the other end.
        let usable = agent::is_loopback(base) || !agent::is_loopback(addr);
        usable && self.add(CandidateKind::Relayed, addr, base, None)
    }

    /// A socket, or a relay's address, is there no more.
    pub fn remove(&mut self, base: SocketAddr) {
        self.found.retain(|l| l.base != base && l.told.addr != base);
        self.open.retain(|q| q.local != base);
        self.seen.retain(|l| *l != base);
    }

    /// A STUN message came; true when it brought a candidate.
    pub fn handle(&mut self, local: SocketAddr, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some((transaction, mapped)) = probe::mapped_address(datagram) else { return false };
        let asked = |q: &Question| q.transaction == transaction && q.server == from && q.local == local;
        let Some(index) = self.open.iter().position(asked) else { return false };
        self.open.swap_remove(index);
        if !self.seen.contains(&local) {
            self.seen.push(local);
        }
        self.add(CandidateKind::ServerReflexive, mapped, local, None)
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (out, seen) = (&mut self.out, &self.seen);
        self.open.retain_mut(|question| {
            if question.due > now {
                return true;
            }
            if question.tries >= TRIES && seen.contains(&question.local) {
                return false;
            }
            question.due = now + (RETRY * (1 << question.tries.min(16))).min(RARELY);
            question.tries = question.tries.saturating_add(1);
            let bytes = probe::request(question.transaction);
            out.push_back(Datagram { local: question.local, to: question.server, bytes });
            true
        });
    }

    /// When [`Gatherer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.open.iter().map(|q| q.due).min()
    }

    /// The next request to send.
    pub fn poll_output(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    /// What was found so far, in the order in which it was.
    pub fn found(&self) -> &[Local] {
        &self.found
    }

    /// The same for a description.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.found.iter().map(|l| l.told.clone()).collect()
    }

    fn add(&mut self, kind: CandidateKind, addr: SocketAddr, base: SocketAddr, tcp: Option<TcpType>) -> bool {
        if self.found.len() >= CANDIDATES || self.found.iter().any(|l| l.told.addr == addr) {
            return false;
        }
        let same = self.found.iter().filter(|l| l.told.kind == kind && l.told.addr.is_ipv4() == addr.is_ipv4());
        let Some(told) = agent::describe(kind, addr, base, tcp, same.count()) else { return false };
        self.found.push(Local { base, told });
        true
    }
}
