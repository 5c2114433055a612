//! NATs of the virtual network, and the STUN services of the relays in it, for the tests of a NAT's behaviour. The NAT is on a host's own
//! address: only the ports of its UDP sockets are translated, streams are not.

use super::{Arrival, ONE_WAY, Place, START, World};
use chordial::core::{Instant, Rng};
use chordial::nat::behaviour::Dependence;
use chordial::nat::turn::Server;
use chordial::nat::turn::credential::Secret;
use chordial::nat::turn::peers::Peers;
use chordial::nat::turn::server::{self, Config};
use chordial::nat::turn::table::Path;
use chordial::node::{Input, ProbeCommand, ProbeInput, RelayCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What stands before a host.
#[derive(Debug, Clone, Copy)]
pub struct Nat {
    /// None: ports are left alone.
    pub mapping: Option<Dependence>,
    pub filtering: Dependence,
    /// No UDP passes.
    pub blocked: bool,
}

/// A host's socket for tests, and what its NAT knows of it.
#[derive(Default)]
pub struct Probe {
    mapped: BTreeMap<Option<(IpAddr, u16)>, SocketAddr>,
    sent: BTreeSet<SocketAddr>,
    /// How often one was opened.
    pub opened: usize,
    /// Everything that was sent by it and came to it.
    pub datagrams: usize,
}

/// The router of all.
pub const GATEWAY: &str = "10.0.0.254";
const PORT: u16 = 40_000;

impl World {
    /// A relay's service of its two UDP ports.
    pub(super) fn start_stun(&mut self, host: usize, secret: Secret) {
        let ip = self.hosts[host].overlay.ip();
        let config = Config {
            realm: "nat.test".into(),
            secret,
            allocations: 10,
            of_one_user: 10,
            ports: (50_000, 51_000),
            addresses: vec![ip],
            shown: BTreeMap::new(),
            faces: vec![SocketAddr::new(ip, 3478), SocketAddr::new(ip, 3479)],
            peers: Peers::default(),
        };
        self.stun.insert(ip, Server::new(self.now, START, config, Rng::from_seed(host as u64)));
    }

    /// A relay sends what its node wants.
    pub(super) fn stun_command(&mut self, host: usize, command: &RelayCommand) {
        let ip = self.hosts[host].overlay.ip();
        if let (RelayCommand::Answer { to, id }, Some(server)) = (command, self.stun.get_mut(&ip)) {
            server.handle(self.now, server::Input::Answer { to: *to, id: *id });
            self.stun_answers(ip);
        }
    }

    pub(super) fn probe(&mut self, host: usize, command: ProbeCommand) {
        let local = SocketAddr::new(self.hosts[host].sip.ip(), PORT);
        match command {
            ProbeCommand::Open { .. } => {
                let opened = self.probes.get(&host).map_or(0, |p| p.opened) + 1;
                self.probes.insert(host, Probe { opened, ..Probe::default() });
                let input = ProbeInput::Opened { local, gateway: Some(GATEWAY.parse().unwrap()) };
                self.at(self.now, Place::Node(host), Arrival::Node(Input::Probe(input)));
            }
            ProbeCommand::Send { to, bytes } => {
                let Some(from) = self.leaves(host, local, to) else { return };
                // Both ways at once: nothing here depends on when.
                let socket = to.port().wrapping_sub(3478);
                if let Some(server) = self.stun.get_mut(&to.ip()).filter(|_| socket < 2) {
                    let path = Path::Datagram { socket, local: Some(to.ip()), client: from };
                    server.handle(self.now, server::Input::Message { path, bytes: &bytes });
                    self.stun_answers(to.ip());
                }
            }
            ProbeCommand::Close => {}
        }
    }

    /// The address that a datagram of a host's socket leaves from.
    fn leaves(&mut self, host: usize, local: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let nat = self.nats.get(&host).copied();
        let probe = self.probes.get_mut(&host)?;
        probe.datagrams += 1;
        probe.sent.insert(to);
        let key = match nat {
            Some(Nat { blocked: true, .. }) => return None,
            None | Some(Nat { mapping: None, .. }) => return Some(local),
            Some(Nat { mapping: Some(Dependence::Independent), .. }) => None,
            Some(Nat { mapping: Some(Dependence::Address), .. }) => Some((to.ip(), 0)),
            Some(Nat { mapping: Some(Dependence::AddressAndPort), .. }) => Some((to.ip(), to.port())),
        };
        let next = SocketAddr::new(local.ip(), 50_000 + probe.mapped.len() as u16);
        Some(*probe.mapped.entry(key).or_insert(next))
    }

    /// What a STUN service has to send, through the NAT of whoever it is for.
    fn stun_answers(&mut self, ip: IpAddr) {
        while let Some(output) = self.stun.get_mut(&ip).and_then(Server::poll_output) {
            let server::Output::Answer { path: Path::Datagram { socket, client, .. }, bytes } = output else {
                continue;
            };
            let from = SocketAddr::new(ip, 3478 + socket);
            let Some(host) = self.hosts.iter().position(|h| h.sip.ip() == client.ip()) else { continue };
            let nat = self.nats.get(&host).copied();
            let Some(probe) = self.probes.get_mut(&host) else { continue };
            let lets_in = match nat {
                None => true,
                Some(Nat { blocked: true, .. }) => false,
                Some(Nat { filtering: Dependence::Independent, .. }) => true,
                Some(Nat { filtering: Dependence::Address, .. }) => probe.sent.iter().any(|s| s.ip() == from.ip()),
                Some(Nat { filtering: Dependence::AddressAndPort, .. }) => probe.sent.contains(&from),
            };
            if lets_in {
                probe.datagrams += 1;
                let input = Input::Probe(ProbeInput::Datagram { from, bytes });
                let at: Instant = self.now + ONE_WAY;
                self.at(at, Place::Node(host), Arrival::Node(input));
            }
        }
    }
}
