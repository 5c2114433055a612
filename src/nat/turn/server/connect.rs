//! TCP allocations (RFC 6062): Connect (section 5.2), connections from peers (5.3) and ConnectionBind (5.4). The driver dials, accepts and
//! joins streams; who may, and how many, is decided here.
//!
//! Bounded: connections in all, of one user and of one allocation, and for how long one waits for its peer and then for its client.
//!
//! Left out: telling a client that its peer's connection has ended before it was taken up (the RFC has no message for it).

use super::super::peers::Verdict;
use super::super::table::{Path, Slot, Socket, canonical};
use super::{Due, Output, Proved, Server};
use crate::core::Instant;
use crate::stun::attributes::XorPeerAddress;
use crate::stun::{Class, Message, Method, Seal, raw};
use std::net::SocketAddr;
use std::time::Duration;

/// Most connections with peers: in all, of one user, of one allocation.
const CONNECTIONS: usize = 1024;
const OF_ONE_USER: usize = 64;
const OF_ONE_ALLOCATION: usize = 16;
/// For a peer to answer, and then for the client to take the connection up (sections 5.2 and 5.3: at least 30 s each).
const PATIENCE: Duration = Duration::from_secs(30);

/// Names a connection with a peer: its CONNECTION-ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// A connection with a peer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) slot: Slot,
    peer: SocketAddr,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The peer is dialled; what is answered, one way or the other.
    Dialling { connected: Vec<u8>, failed: Vec<u8> },
    /// It waits for the client.
    Waiting,
    /// It is joined to the client's connection.
    Joined(Path),
}

impl Server {
    /// Connections with peers, those that are only being made among them.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn on_connect(&mut self, now: Instant, proved: &Proved<'_>) {
        let Some(Some(slot)) = self.own(proved, false) else { return };
        if !self.allocation(slot).is_some_and(|a| a.stream) {
            return self.refuse(proved, 437);
        }
        let Some(peer) = proved.message.get::<XorPeerAddress>().map(|p| canonical(p.address())) else {
            return self.refuse(proved, 400);
        };
        if peer.port() == 0 {
            return self.refuse(proved, 400);
        }
        if let Err(code) = self.check(now, slot, peer.ip()) {
            return self.refuse(proved, code);
        }
        // An address of this machine stands for the other TCP allocations alone.
        let to = match self.config.peers.verdict(now, peer.ip()) {
            Verdict::Forward => Some(peer),
            Verdict::Inside => self.inside(slot, peer),
            Verdict::Refuse => None,
        };
        let Some(to) = to else { return self.refuse(proved, 403) };
        if self.connections.values().any(|c| c.slot == slot && c.peer == peer) {
            return self.refuse(proved, 446);
        }
        if let Err(code) = self.room(slot) {
            return self.refuse(proved, code);
        }
        let from = self.allocation(slot).and_then(|a| a.relayed.iter().find(|r| r.shown.is_ipv4() == peer.is_ipv4()));
        let Some((socket, from)) = from.map(|r| (r.socket, r.bound)) else { return self.refuse(proved, 443) };
        let id = self.name_connection();
        let seal = Seal { key: Some((&proved.key, proved.integrity)), fingerprint: proved.fingerprint };
        let mut connected = proved.message.success();
        connected.push_raw(raw::CONNECTION_ID, &id.0.to_be_bytes());
        let stage =
            Stage::Dialling { connected: connected.encode(seal), failed: proved.message.error(447).encode(seal) };
        self.connections.insert(id, Connection { slot, peer, stage });
        self.timers.set(Due::Connection(id), now + PATIENCE);
        self.put(Output::Dial { id, socket, from, to });
    }

    pub(super) fn on_dialled(&mut self, now: Instant, id: ConnectionId, open: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Stage::Dialling { connected, failed } = &mut connection.stage else { return };
        let bytes = std::mem::take(if open { connected } else { failed });
        connection.stage = Stage::Waiting;
        let slot = connection.slot;
        if open {
            self.timers.set(Due::Connection(id), now + PATIENCE);
        } else {
            self.connections.remove(&id);
            self.timers.cancel(&Due::Connection(id));
        }
        if let Some(path) = self.allocation(slot).map(|a| a.path) {
            self.put(Output::Answer { path, bytes });
        }
    }

    /// The peer at `from` has connected to a relayed address: the name of that connection if it is kept; otherwise it is to be closed.
    pub fn arrived(&mut self, now: Instant, socket: Socket, from: SocketAddr) -> Option<ConnectionId> {
        let from = canonical(from);
        let holds = |a: &super::Allocation| a.stream && a.relayed.iter().any(|r| r.socket == socket);
        let at = self.allocations.iter().position(|a| a.as_ref().is_some_and(holds))?;
        let slot = Slot(at as u32);
        let peer = self.shown(from);
        let allocation = self.allocation(slot).filter(|a| a.permissions.contains_key(&peer.ip()))?;
        let path = allocation.path;
        // A permission of this machine's address is one of its other allocations.
        if self.config.peers.verdict(now, peer.ip()) == Verdict::Inside && self.inside(slot, peer).is_none() {
            return None;
        }
        if self.room(slot).is_err() {
            self.counters.over_quota += 1;
            return None;
        }
        let id = self.name_connection();
        self.connections.insert(id, Connection { slot, peer, stage: Stage::Waiting });
        self.timers.set(Due::Connection(id), now + PATIENCE);
        let mut transaction = [0; 12];
        self.rng.fill(&mut transaction);
        let mut attempt = Message::new(Class::Indication, Method::CONNECTION_ATTEMPT, transaction);
        attempt.push(XorPeerAddress::new(peer));
        attempt.push_raw(raw::CONNECTION_ID, &id.0.to_be_bytes());
        self.put(Output::Answer { path, bytes: attempt.encode(Seal::default()) });
        Some(id)
    }

    pub(super) fn on_connection_bind(&mut self, proved: &Proved<'_>) {
        let taken = self.by_path.contains_key(&proved.path) || self.by_data.contains_key(&proved.path);
        let (Path::Stream { .. }, Some(id), false) = (proved.path, named(proved.message), taken) else {
            return self.refuse(proved, 400);
        };
        let waiting = self.connections.get(&id).filter(|c| matches!(c.stage, Stage::Waiting));
        let Some(slot) = waiting.map(|c| c.slot) else { return self.refuse(proved, 400) };
        if !self.allocation(slot).is_some_and(|a| a.username == proved.username || a.who == proved.who) {
            return self.refuse(proved, 441);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.stage = Stage::Joined(proved.path);
        }
        self.timers.cancel(&Due::Connection(id));
        self.by_data.insert(proved.path, id);
        self.answer(proved, &proved.message.success());
        self.put(Output::Join { path: proved.path, id, slot });
    }

    /// The client of the allocation that a ConnectionBind is about.
    pub(super) fn allocation_to_join(&self, message: &Message) -> Option<SocketAddr> {
        let id = named(message).filter(|_| message.method == Method::CONNECTION_BIND)?;
        Some(self.allocation(self.connections.get(&id)?.slot)?.path.client())
    }

    /// Nobody answered, or nobody took it up.
    pub(super) fn on_connection_late(&mut self, now: Instant, id: ConnectionId) {
        self.on_dialled(now, id, false);
        self.part(id);
        self.put(Output::Part(id));
    }

    /// The client's connection has ended.
    pub(super) fn on_data_gone(&mut self, path: Path) {
        if let Some(id) = self.by_data.get(&path).copied() {
            self.part(id);
            self.put(Output::Part(id));
        }
    }

    /// The connections of an allocation that ends.
    pub(super) fn part_all(&mut self, slot: Slot) {
        let of_slot = self.connections.iter().filter(|(_, c)| c.slot == slot);
        for id in of_slot.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.part(id);
            self.put(Output::Part(id));
        }
    }

    fn part(&mut self, id: ConnectionId) {
        self.timers.cancel(&Due::Connection(id));
        if let Some(Connection { stage: Stage::Joined(path), .. }) = self.connections.remove(&id) {
            self.by_data.remove(&path);
        }
    }

    fn room(&self, slot: Slot) -> Result<(), u16> {
        let Some(who) = self.allocation(slot).map(|a| &a.who) else { return Err(437) };
        let of_user = |c: &&Connection| self.allocation(c.slot).is_some_and(|a| a.who == *who);
        if self.connections.values().filter(of_user).count() >= OF_ONE_USER {
            return Err(486);
        }
        let mine = self.connections.values().filter(|c| c.slot == slot).count();
        if mine >= OF_ONE_ALLOCATION || self.connections.len() >= CONNECTIONS { Err(508) } else { Ok(()) }
    }

    /// Where another TCP allocation, known to peers as `peer`, is bound.
    fn inside(&self, slot: Slot, peer: SocketAddr) -> Option<SocketAddr> {
        let others = self.allocations.iter().enumerate().filter(|(at, _)| *at != slot.0 as usize);
        let relayed = others.filter_map(|(_, a)| a.as_ref()).filter(|a| a.stream).flat_map(|a| &a.relayed);
        relayed.into_iter().find(|r| r.shown == peer).map(|r| r.bound)
    }

    /// Other allocations are known by what they are shown as.
    fn shown(&self, from: SocketAddr) -> SocketAddr {
        let streams = self.allocations.iter().flatten().filter(|a| a.stream);
        streams.flat_map(|a| &a.relayed).find(|r| r.bound == from).map_or(from, |r| r.shown)
    }

    fn name_connection(&mut self) -> ConnectionId {
        loop {
            let id = ConnectionId(self.rng.next_u32());
            if !self.connections.contains_key(&id) {
                return id;
            }
        }
    }
}

/// CONNECTION-ID.
fn named(message: &Message) -> Option<ConnectionId> {
    let value = message.get_raw(raw::CONNECTION_ID)?;
    Some(ConnectionId(u32::from_be_bytes(value.try_into().ok()?)))
}

#[cfg(test)]
mod tests;
