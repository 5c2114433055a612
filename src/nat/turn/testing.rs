//! A client, a relay and its table, joined without a network.

use super::client::{self, Client};
use super::credential::Secret;
use super::peers::Peers;
use super::server::{Config, ConnectionId, Input, Output, Server};
use super::table::{Ceilings, Head, Path, Socket, Table, Way};
use crate::core::{Instant, Redacted, Rng, Transport, UnixTime};
use crate::stun;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub const RELAY: &str = "198.51.100.1";
pub const UNIX: UnixTime = UnixTime(1_700_000_000);

pub fn config() -> Config {
    Config {
        realm: "office".into(),
        secret: Secret::new([7; 32]),
        allocations: 10,
        of_one_user: 4,
        ports: (50_000, 50_999),
        addresses: vec![RELAY.parse().unwrap(), "2001:db8::1".parse().unwrap()],
        shown: BTreeMap::new(),
        faces: vec![format!("{RELAY}:3478").parse().unwrap(), format!("{RELAY}:3479").parse().unwrap()],
        peers: Peers::new(Vec::new(), vec![RELAY.parse().unwrap(), "2001:db8::1".parse().unwrap()]),
    }
}

/// The relay as its driver sees it.
pub struct Relay {
    pub server: Server,
    pub table: Table,
    pub open: BTreeMap<Socket, SocketAddr>,
    /// Ports that are taken by somebody else.
    pub taken: Vec<u16>,
    pub answers: Vec<(Path, Vec<u8>)>,
    /// What went to peers: from where, to where.
    pub sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub hung: Vec<Path>,
    /// Peers that are dialled, streams that were joined, and those that were closed.
    pub dialled: Vec<(ConnectionId, SocketAddr, SocketAddr)>,
    pub joined: Vec<(Path, ConnectionId)>,
    pub parted: Vec<ConnectionId>,
}

impl Relay {
    pub fn new(now: Instant, config: Config, ceilings: Ceilings) -> Relay {
        Relay {
            server: Server::new(now, UNIX, config, Rng::from_seed(1)),
            table: Table::new(now, ceilings),
            open: BTreeMap::new(),
            taken: Vec::new(),
            answers: Vec::new(),
            sent: Vec::new(),
            hung: Vec::new(),
            dialled: Vec::new(),
            joined: Vec::new(),
            parted: Vec::new(),
        }
    }

    /// A datagram or message from a client.
    pub fn hear_client(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        match self.table.from_client(now, &path, bytes) {
            Way::Control => {
                self.server.handle(now, Input::Message { path, bytes });
                self.drain(now);
            }
            way => self.carry(way),
        }
    }

    pub fn hear_peer(&mut self, now: Instant, relayed: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let socket = *self.open.iter().find(|(_, a)| **a == relayed).expect("no such relayed address").0;
        match self.table.from_peer(now, socket, from, bytes) {
            Way::Control => panic!("control from a peer"),
            way => self.carry(way),
        }
    }

    pub fn timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        self.drain(now);
    }

    pub fn gone(&mut self, now: Instant, path: Path) {
        self.server.handle(now, Input::Gone { path });
        self.drain(now);
    }

    /// What became of a peer that was dialled.
    pub fn dialled(&mut self, now: Instant, id: ConnectionId, open: bool) {
        self.server.handle(now, Input::Dialled { id, open });
        self.drain(now);
    }

    /// A peer connects to a relayed address.
    pub fn arrive(&mut self, now: Instant, relayed: SocketAddr, from: SocketAddr) -> Option<ConnectionId> {
        let socket = *self.open.iter().find(|(_, a)| **a == relayed).expect("no such relayed address").0;
        let id = self.server.arrived(now, socket, from);
        self.drain(now);
        id
    }

    fn carry(&mut self, way: Way<'_>) {
        match way {
            Way::Peer { socket, to, data } => self.sent.push((self.open[&socket], to, data.to_vec())),
            Way::Client { path, head, data } => {
                let bytes = match head {
                    Head::Channel(number) => {
                        stun::channel_data(number, data, matches!(path, Path::Stream { .. })).unwrap()
                    }
                    Head::Indication(peer) => {
                        let mut bytes = Vec::new();
                        stun::write_data(&mut bytes, false, &[3; 12], peer, data).unwrap();
                        bytes
                    }
                };
                self.answers.push((path, bytes));
            }
            Way::Control | Way::Dropped(_) => {}
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Answer { path, bytes } => self.answers.push((path, bytes)),
                Output::Open { wish, sockets, .. } => {
                    let used = |a: &SocketAddr| self.taken.contains(&a.port()) || self.open.values().any(|o| o == a);
                    let open = !sockets.iter().any(|(_, a)| used(a));
                    if open {
                        self.open.extend(sockets);
                    }
                    self.server.handle(now, Input::Opened { wish, open });
                }
                Output::Close(socket) => assert!(self.open.remove(&socket).is_some(), "closed what was not open"),
                Output::Change(change) => self.table.apply(now, change),
                Output::Dial { id, from, to, .. } => self.dialled.push((id, from, to)),
                Output::Join { path, id, .. } => self.joined.push((path, id)),
                Output::Part(id) => self.parted.push(id),
                Output::Hang(path) => self.hung.push(path),
            }
        }
    }
}

pub fn path(client: &str) -> Path {
    Path::Datagram { socket: 0, local: Some(RELAY.parse::<IpAddr>().unwrap()), client: client.parse().unwrap() }
}

pub fn client(now: Instant, who: &str, transport: Transport, family: Option<client::Family>) -> Client {
    let minted = Secret::new([7; 32]).mint(who, UnixTime(UNIX.secs() + 3600));
    let config = client::Config {
        server: format!("{RELAY}:3478").parse().unwrap(),
        transport,
        username: minted.username,
        password: minted.password,
        family,
    };
    Client::new(now, config, Rng::from_seed(who.len() as u64))
}

/// Lets both talk until nothing is left to say; what came out of the client beside bytes.
pub fn exchange(now: Instant, client: &mut Client, relay: &mut Relay, path: Path) -> Vec<client::Output> {
    let mut seen = Vec::new();
    loop {
        let mut busy = false;
        while let Some(output) = client.poll_output() {
            busy = true;
            match output {
                client::Output::Transmit(bytes) => relay.hear_client(now, path, &bytes),
                other => seen.push(other),
            }
        }
        let (mine, others): (Vec<_>, Vec<_>) = relay.answers.drain(..).partition(|(p, _)| *p == path);
        relay.answers = others;
        for (_, bytes) in mine {
            busy = true;
            match path {
                Path::Datagram { .. } => client.handle(now, client::Input::Datagram(&bytes)),
                Path::Stream { .. } => client.handle(now, client::Input::Stream(&bytes)),
            }
        }
        if !busy {
            return seen;
        }
    }
}

pub fn relayed(seen: &[client::Output]) -> Vec<SocketAddr> {
    seen.iter()
        .find_map(|o| match o {
            client::Output::Allocated { relayed, .. } => Some(relayed.clone()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no allocation: {seen:?}"))
}

pub fn wrong_password(now: Instant) -> Client {
    let minted = Secret::new([7; 32]).mint("ann", UnixTime(UNIX.secs() + 3600));
    let config = client::Config {
        server: format!("{RELAY}:3478").parse().unwrap(),
        transport: Transport::Udp,
        username: minted.username,
        password: Redacted::new("guess".into()),
        family: None,
    };
    Client::new(now, config, Rng::from_seed(3))
}
