//! The relay that the node wants or no longer wants: which addresses and ports it takes.

use super::{Config, Relay, RelayError};
use crate::config;
use crate::core::UnixTime;
use crate::io::media::clock;
use crate::io::transport::Incoming;
use crate::nat::turn::PORT;
use crate::nat::turn::credential::Secret;
use crate::nat::turn::peers::{Peers, Prefix};
use crate::nat::turn::server;
use crate::nat::turn::table::Ceilings;
use crate::nat::{Scope, scope};
use crate::node::{RelayCommand, RelayFigures, RelayInput};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How many pairs of ports are tried where the owner named none.
const PAIRS: u16 = 32;

/// The relay of this program, if there is one.
pub struct Relays {
    settings: config::Relay,
    allow: Vec<Prefix>,
    /// Where the overlay listens, if the owner said so: a relay keeps to the same network.
    beside: Option<IpAddr>,
    /// Port 443 is taken too.
    door: bool,
    links: Option<Incoming>,
    running: Option<Relay>,
}

impl Relays {
    /// None yet.
    ///
    /// # Errors
    /// The entry of `relay.allow` that is no address.
    pub fn new(config: &config::Config) -> Result<Relays, String> {
        let read = |text: &String| text.parse::<Prefix>().map_err(|e| format!("relay.allow: \"{text}\": {e}"));
        let allow = config.relay.allow.iter().map(read).collect::<Result<_, _>>()?;
        let beside = config.overlay.listen.map(|l| l.ip());
        let door = config.overlay.port_443 == config::Port443::Auto;
        Ok(Relays { settings: config.relay.clone(), allow, beside, door, links: None, running: None })
    }

    /// Links that come to the relay's ports go there.
    pub fn hand_links_to(&mut self, links: Incoming) {
        self.links = Some(links);
    }

    /// Carries out what the node wants; what can be answered is answered at once.
    pub fn carry_out(&mut self, unix: UnixTime, command: RelayCommand) -> Option<RelayInput> {
        match command {
            RelayCommand::Start { realm, secret } => Some(match self.start(unix, &realm, &secret) {
                Ok(relay) => {
                    let open = RelayInput::Open {
                        udp: relay.udp().to_vec(),
                        tcp: relay.tcp().to_vec(),
                        shut: relay.shut().map(str::to_owned),
                        certificate: relay.certificate(),
                    };
                    self.running = Some(relay);
                    open
                }
                Err(fault) => RelayInput::Failed { why: fault.to_string() },
            }),
            RelayCommand::Stop => {
                self.running = None;
                None
            }
            RelayCommand::Answer { to, id } => {
                if let Some(relay) = &self.running {
                    relay.answer(to, id);
                }
                None
            }
            RelayCommand::Prove { ip, lifetime } => {
                if let Some(relay) = &self.running {
                    relay.prove(ip, lifetime);
                }
                None
            }
        }
    }

    /// What the relay did so far; none where there is none.
    pub fn figures(&self) -> Option<RelayInput> {
        let figures = self.running.as_ref()?.figures();
        let counters = figures.counters;
        Some(RelayInput::Figures(RelayFigures {
            allocations: figures.allocations as u64,
            packets: figures.carried.packets,
            bytes: figures.carried.bytes,
            refused: figures.carried.refused + counters.forbidden + counters.over_quota + counters.malformed,
            over: figures.carried.over,
        }))
    }

    fn start(&self, unix: UnixTime, realm: &str, secret: &Secret) -> Result<Relay, RelayError> {
        let named = self.settings.listen;
        let mut port = named.map_or(PORT, |l| l.port());
        for pair in 0..PAIRS {
            let rng = crate::io::seed::rng()?;
            match Relay::start(clock::now(), self.plan(unix, realm, secret, port), rng) {
                Err(e) if e.is_in_use() && named.is_none() && pair + 1 < PAIRS => port += 2,
                outcome => return outcome,
            }
        }
        Err(std::io::Error::from(std::io::ErrorKind::AddrInUse).into())
    }

    fn plan(&self, unix: UnixTime, realm: &str, secret: &Secret, port: u16) -> Config {
        let here = self.settings.listen.map(|l| l.ip()).or(self.beside).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let all = interfaces();
        let addresses = if here.is_unspecified() { usable(&all) } else { vec![here] };
        let first = |v4: bool| addresses.iter().copied().find(|a| a.is_ipv4() == v4);
        let mut own: Vec<IpAddr> = all.into_iter().filter(|a| scope(*a) != Scope::Loopback).collect();
        own.extend(addresses.iter().copied().filter(|a| !own.contains(a)).collect::<Vec<_>>());
        // Port 0 is the system's choice, twice.
        let next = if port == 0 { 0 } else { port.saturating_add(1) };
        let mut udp = Vec::new();
        let mut faces = Vec::new();
        let mut serve = |bind: IpAddr, port: u16, face: IpAddr| {
            udp.push(SocketAddr::new(bind, port));
            faces.push(SocketAddr::new(face, port));
        };
        match self.settings.alternate {
            Some(other) => {
                let face = first(here.is_ipv4()).unwrap_or(here);
                for (ip, port) in [(face, port), (face, other.port()), (other.ip(), port), (other.ip(), other.port())] {
                    serve(ip, port, ip);
                }
            }
            None => {
                let face = first(here.is_ipv4()).unwrap_or(here);
                serve(here, port, face);
                serve(here, next, face);
                if here == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                    && let Some(face) = first(false)
                {
                    serve(Ipv6Addr::UNSPECIFIED.into(), port, face);
                    serve(Ipv6Addr::UNSPECIFIED.into(), next, face);
                }
            }
        }
        let mut tcp = vec![SocketAddr::new(here, port)];
        if here == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && first(false).is_some() {
            tcp.push(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
        }
        tcp.extend(self.settings.tls_listen);
        let mut door = self.door_at(here, first(false).is_some());
        door.retain(|addr| !tcp.contains(addr));
        Config {
            udp,
            tcp,
            door,
            links: self.links.clone(),
            server: server::Config {
                realm: realm.to_owned(),
                secret: secret.clone(),
                allocations: self.settings.allocations as usize,
                of_one_user: self.settings.per_user as usize,
                ports: self.settings.ports,
                addresses,
                shown: BTreeMap::new(),
                faces,
                peers: Peers::new(self.allow.clone(), own),
            },
            ceilings: Ceilings {
                total: u64::from(self.settings.max_kbps) * 1000,
                each: u64::from(self.settings.each_kbps) * 1000,
            },
            unix,
        }
    }

    /// Where port 443 is taken; not on loopback, where nobody is shut in.
    fn door_at(&self, here: IpAddr, v6: bool) -> Vec<SocketAddr> {
        if !self.door || here.is_loopback() {
            return Vec::new();
        }
        let beside = (here == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && v6).then_some(Ipv6Addr::UNSPECIFIED.into());
        std::iter::once(here).chain(beside).map(|ip| SocketAddr::new(ip, config::PORT_443)).collect()
    }
}

fn interfaces() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().map(|all| all.into_iter().map(|i| i.ip()).collect()).unwrap_or_default()
}

/// Those that others can send to, public ones first, IPv4 before IPv6; loopback where there is nothing else.
fn usable(all: &[IpAddr]) -> Vec<IpAddr> {
    let kind = |ip: &IpAddr| match scope(*ip) {
        Scope::Public => Some(0),
        Scope::Private => Some(1),
        Scope::Carrier => Some(2),
        // Of no network that we know of, and given to this machine all the same: a laboratory.
        Scope::Special => Some(3),
        Scope::Link | Scope::Loopback => None,
    };
    let mut found: Vec<_> = all.iter().copied().filter(|ip| kind(ip).is_some()).collect();
    found.sort_by_key(|ip| (ip.is_ipv6(), kind(ip), *ip));
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found
}
