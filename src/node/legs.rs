//! Legs: a call's way to a relay over TLS (RFC 8656 section 2.1), on networks that let no UDP out.
//!
//! A call asks its relays over UDP first. Where none has granted an address a moment later, or none did in the call before on the same
//! network, the relays are dialled over TLS, those at port 443 first. The stream then is one more socket of the call, its allocation
//! one more relay. A leg that breaks, or is silent when the call's way is, is made anew.
//!
//! Left out: legs to the TURN servers of the configuration, whose certificates nobody has told.

use super::{MediaCommand, Node, Output};
use crate::config::PORT_443;
use crate::core::{Instant, Transport};
use crate::nat::ice::RelayServer;
use crate::ua::CallId;
use std::net::SocketAddr;
use std::time::Duration;

/// How long UDP is tried alone.
const LEAD: Duration = Duration::from_millis(400);
/// After a leg that broke, and after none could be had.
const AGAIN: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(3);
/// Addresses that are dialled for one leg.
const SERVERS: usize = 8;
/// Legs of one call, one after the other.
const LEGS: u32 = 32;

/// Whether a call has one.
#[derive(Default)]
pub(super) struct Leg {
    stage: Stage,
    /// How many were asked for.
    made: u32,
}

#[derive(Default)]
enum Stage {
    #[default]
    None,
    /// To be dialled then, if there is no other way to a relay.
    Due(Instant),
    /// Any of these.
    Dialled(Vec<RelayServer>),
    /// It stands; by the socket's address.
    Open(SocketAddr),
}

impl Leg {
    /// When [`Node::legs_timeout`] is due.
    pub fn next(&self) -> Option<Instant> {
        match self.stage {
            Stage::Due(at) => Some(at),
            _ => None,
        }
    }
}

impl Node {
    /// A call has relays to ask: over UDP by now, over TLS when that does not do.
    pub(super) fn plan_leg(&mut self, now: Instant, call: CallId) {
        let blocked = self.paths.no_udp;
        let Some(path) = self.paths.of_mut(call) else { return };
        if let Stage::None | Stage::Due(_) = path.leg.stage {
            // An own network's relay needs no way out; one without UDP never answers.
            path.leg.stage = Stage::Due(if blocked { now } else { now + LEAD });
            if blocked {
                self.dial_leg(now, call);
            }
        }
    }

    /// Dials what is due.
    pub(super) fn legs_timeout(&mut self, now: Instant) {
        for call in self.paths.calls_with(|path| path.leg.next().is_some_and(|at| at <= now)) {
            self.dial_leg(now, call);
        }
    }

    fn dial_leg(&mut self, now: Instant, call: CallId) {
        let servers = self.leg_servers(now, call);
        let Some(path) = self.paths.of_mut(call) else { return };
        path.leg.stage = Stage::None;
        if path.has_relay(Transport::Udp) || servers.is_empty() || path.leg.made >= LEGS {
            return;
        }
        path.leg.made += 1;
        let certificate = |s: &RelayServer| Some((s.addr, s.certificate?));
        let relays = servers.iter().filter_map(certificate).collect();
        path.leg.stage = Stage::Dialled(servers);
        self.out.push_back(Output::Media(MediaCommand::Reach { call, relays }));
    }

    /// Where relays of the overlay take streams, as far as this machine's families of addresses go.
    fn leg_servers(&self, now: Instant, call: CallId) -> Vec<RelayServer> {
        let Some(path) = self.paths.of(call) else { return Vec::new() };
        let bases: Vec<_> = path.sockets().filter(|b| !b.ip().is_loopback()).collect();
        let mut servers = Vec::new();
        for grant in self.best_relays(now) {
            for host in
                grant.hosts.iter().filter(|h| !h.is_loopback() && bases.iter().any(|b| b.is_ipv4() == h.is_ipv4()))
            {
                let at = |port: &u16| grant.server(SocketAddr::new(*host, *port), Transport::Tls);
                servers.extend(grant.streams.iter().map(at));
            }
        }
        // The sort keeps the better relay before the other.
        servers.sort_by_key(|s| s.addr.port() != PORT_443);
        servers.truncate(SERVERS);
        servers
    }

    /// A relay is reached over TLS.
    pub(super) fn on_leg(&mut self, now: Instant, call: CallId, local: SocketAddr, relay: SocketAddr) {
        let Some(path) = self.paths.of_mut(call) else { return };
        let Stage::Dialled(servers) = &path.leg.stage else { return };
        let Some(server) = servers.iter().find(|s| s.addr == relay).cloned() else { return };
        path.leg.stage = Stage::Open(local);
        path.ask_relay(now, server, local, self.rng.fork());
    }

    /// No relay is reached over TLS, or the connection to one is gone.
    pub(super) fn on_no_leg(&mut self, now: Instant, call: CallId, local: Option<SocketAddr>) {
        let Some(path) = self.paths.of_mut(call) else { return };
        match (&path.leg.stage, local) {
            (Stage::Dialled(_), None) => path.leg.stage = Stage::Due(now + LATER),
            (Stage::Open(open), Some(local)) if *open == local => {
                path.forget_base(local);
                path.leg.stage = Stage::Due(now + AGAIN);
            }
            _ => {}
        }
    }

    /// A relay has granted an address: what that says of the network.
    pub(super) fn on_relay_granted(&mut self, call: CallId, by: Transport) {
        match by {
            Transport::Udp => {
                self.paths.no_udp = false;
                if let Some(path) = self.paths.of_mut(call)
                    && matches!(path.leg.stage, Stage::Due(_))
                {
                    path.leg.stage = Stage::None;
                }
            }
            _ => {
                let udp = self.paths.of(call).is_some_and(|p| p.has_relay(Transport::Udp));
                self.paths.no_udp |= !udp;
            }
        }
    }

    /// A relay knows us no more: a NAT on the way sees us as another than before. It is asked for an address anew.
    pub(super) fn on_relay_over(&mut self, now: Instant, call: CallId, base: SocketAddr, server: SocketAddr) {
        let again = self.relay_servers(now).into_iter().find(|s| s.addr == server);
        let Some(path) = self.paths.of_mut(call) else { return };
        let was_ours = path.take_over(base, server);
        if let (true, Some(server), true) = (was_ours, again, path.leg.made < LEGS) {
            path.leg.made += 1;
            path.ask_relay(now, server, base, self.rng.fork());
        }
    }

    /// The way of a call is silent: a NAT on it may have forgotten us. What leads to its relays is made anew, or asked whether it
    /// still stands.
    pub(super) fn doubt_relays(&mut self, now: Instant, call: CallId) {
        let Some(path) = self.paths.of_mut(call) else { return };
        path.doubt_relays(now);
        if let Stage::Open(local) = path.leg.stage {
            path.forget_base(local);
            path.leg.stage = Stage::Due(now);
            self.dial_leg(now, call);
        }
    }
}
