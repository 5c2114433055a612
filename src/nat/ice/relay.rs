//! A relay that a call may use: an allocation had by one of the call's sockets, or over a stream of its own, whose relayed addresses (one, or
//! one of each family) are candidates.

use super::Datagram;
use crate::core::{Instant, Redacted, Rng, Transport};
use crate::nat::turn::client::{Client, Config, Family, Input, Output};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Most relayed addresses of one allocation: one of each family.
const ADDRESSES: usize = 2;

/// Where a relay is, and as whom it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayServer {
    /// Its address.
    pub addr: SocketAddr,
    /// How it is reached; TLS shows `certificate`.
    pub transport: Transport,
    /// SHA-256 of the certificate that its TLS shows; none over UDP and TCP.
    pub certificate: Option<[u8; 32]>,
    /// It relays for both families of addresses.
    pub both: bool,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Redacted<String>,
}

impl RelayServer {
    /// The addresses to ask for. A machine with one family has those of the other from the relay, where that has both; one with both
    /// asks for that of the socket.
    pub fn family(&self, dual: bool) -> Option<Family> {
        match (dual, self.both, self.addr.is_ipv4()) {
            (false, true, _) => Some(Family::Both),
            // What a relay gives who asks for nothing.
            (_, _, true) => None,
            (_, _, false) => Some(Family::V6),
        }
    }
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayOutput {
    /// Send this.
    Send(Datagram),
    /// This address is ours for a while. Once for each.
    Allocated(SocketAddr),
    /// A packet came to it.
    Data {
        /// The sender.
        peer: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// It is ours no more, or never was.
    Over,
}

/// See the module.
pub struct Relay {
    client: Client,
    base: SocketAddr,
    transport: Transport,
    relayed: Vec<SocketAddr>,
    /// Addresses that are not told yet.
    told: VecDeque<SocketAddr>,
    over: bool,
}

impl Relay {
    /// Begins to ask for an allocation from the socket `base`, or over the stream whose end here that is; `dual`: this machine has both
    /// families of addresses.
    pub fn new(now: Instant, server: RelayServer, base: SocketAddr, dual: bool, rng: Rng) -> Relay {
        let (family, transport) = (server.family(dual), server.transport);
        let RelayServer { addr: server, username, password, .. } = server;
        let config = Config { server, transport, username, password, family };
        let client = Client::new(now, config, rng);
        Relay { client, base, transport, relayed: Vec::new(), told: VecDeque::new(), over: false }
    }

    /// A datagram, or one message of the stream, came to a socket; false when it is not from the relay.
    pub fn handle(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, bytes: &[u8]) -> bool {
        let ours = local == self.base && from == self.client.server();
        if ours {
            self.client.handle(now, Input::Datagram(bytes));
        }
        ours
    }

    /// Sends from the relayed address.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        self.client.send(now, peer, bytes);
    }

    /// Asks the relay whether the allocation still stands: where a NAT on the way has forgotten us, it does not.
    pub fn doubt(&mut self, now: Instant) {
        self.client.refresh(now);
    }

    /// Gives the allocation back.
    pub fn close(&mut self, now: Instant) {
        self.client.close(now);
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
    }

    /// When [`Relay::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.client.poll_timeout()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<RelayOutput> {
        loop {
            if let Some(addr) = self.told.pop_front() {
                return Some(RelayOutput::Allocated(addr));
            }
            return Some(match self.client.poll_output()? {
                Output::Transmit(bytes) => {
                    RelayOutput::Send(Datagram { local: self.base, to: self.client.server(), bytes })
                }
                Output::Allocated { relayed, .. } => {
                    self.relayed = relayed.into_iter().take(ADDRESSES).collect();
                    self.told.extend(&self.relayed);
                    continue;
                }
                Output::Data { peer, bytes } => RelayOutput::Data { peer, bytes },
                Output::Failed(_) | Output::Closed => {
                    self.over = true;
                    RelayOutput::Over
                }
                Output::Permitted(_) | Output::Forbidden { .. } => continue,
            });
        }
    }

    /// The socket that it is used by.
    pub fn base(&self) -> SocketAddr {
        self.base
    }

    /// How it is reached.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The relay.
    pub fn server(&self) -> SocketAddr {
        self.client.server()
    }

    /// Nothing comes of it any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Some address is ours.
    pub fn is_allocated(&self) -> bool {
        !self.relayed.is_empty()
    }

    /// All that are ours.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.relayed
    }

    /// The address is ours.
    pub fn holds(&self, addr: SocketAddr) -> bool {
        self.relayed.contains(&addr)
    }

    /// The address of ours that `peer` sends to and hears from.
    pub fn relayed(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.relayed.iter().copied().find(|a| a.is_ipv4() == peer.is_ipv4())
    }

    /// The relay, and the channel by which packets to `peer` go, once it is acknowledged.
    pub fn way(&self, peer: SocketAddr) -> Option<(SocketAddr, u16)> {
        Some((self.client.server(), self.client.channel(peer)?))
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
