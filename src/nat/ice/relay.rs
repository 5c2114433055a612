//! A relay that a call may use: an allocation had by one of the call's sockets, whose relayed address is a candidate.

use super::Datagram;
use crate::core::{Instant, Redacted, Rng, Transport};
use crate::nat::turn::client::{Client, Config, Input, Output};
use std::net::SocketAddr;

/// Where a relay is, and as whom it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayServer {
    /// Over UDP.
    pub addr: SocketAddr,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Redacted<String>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayOutput {
    /// Send this.
    Send(Datagram),
    /// This address is ours for a while.
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
    relayed: Option<SocketAddr>,
}

impl Relay {
    /// Begins to ask for an allocation from the socket `base`.
    pub fn new(now: Instant, server: RelayServer, base: SocketAddr, rng: Rng) -> Relay {
        let RelayServer { addr: server, username, password } = server;
        let config = Config { server, transport: Transport::Udp, username, password, family: None };
        Relay { client: Client::new(now, config, rng), base, relayed: None }
    }

    /// A datagram came to a socket; false when it is not from the relay.
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
            return Some(match self.client.poll_output()? {
                Output::Transmit(bytes) => {
                    RelayOutput::Send(Datagram { local: self.base, to: self.client.server(), bytes })
                }
                Output::Allocated { relayed, .. } => {
                    let Some(addr) = relayed.first().copied() else { continue };
                    self.relayed = Some(addr);
                    RelayOutput::Allocated(addr)
                }
                Output::Data { peer, bytes } => RelayOutput::Data { peer, bytes },
                Output::Failed(_) | Output::Closed => RelayOutput::Over,
                Output::Permitted(_) | Output::Forbidden { .. } => continue,
            });
        }
    }

    /// The socket that it is used by.
    pub fn base(&self) -> SocketAddr {
        self.base
    }

    /// The address that is ours, once there is one.
    pub fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// The relay, and the channel by which packets to `peer` go, once it is acknowledged.
    pub fn way(&self, peer: SocketAddr) -> Option<(SocketAddr, u16)> {
        Some((self.client.server(), self.client.channel(peer)?))
    }
}
