//! Flows: which connection reaches a peer or an address, what waits for it to open, and who is at
//! its other end (RFC 5626's flows, RFC 5923's reuse).
//!
//! Sends to a connection that is still opening are queued, bounded in messages; when it fails, whoever
//! used the flow is told. Two links between the same two peers (both dialled at once) are both kept.
//!
//! Links with other overlays stand apart: whatever peer-ID the other end has there, it is nobody's here.

use crate::core::{ConnId, Flow, Id, Queue, Transport};
use crate::identity::{Expect, Foreign, Proven, Root, Verified};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Most messages that wait for one connection to open.
const WAITING: usize = 256;
/// Most connections known at once; the driver bounds accepted ones too.
const CONNECTIONS: usize = 16_384;
/// Most addresses of other overlays remembered, the first given up first.
const ABROAD: usize = 1024;

/// The overlay that has to be at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Abroad {
    /// Its name.
    pub overlay: String,
    /// Its root, where it is known.
    pub root: Option<Root>,
}

impl Abroad {
    /// True for a device of that overlay.
    pub fn is(&self, foreign: &Foreign) -> bool {
        self.overlay == foreign.overlay() && self.root.is_none_or(|root| root == foreign.root())
    }
}

/// What the driver is asked to do.
#[derive(Debug)]
pub(super) enum Wire {
    Datagram { flow: Flow, bytes: Bytes },
    Connect { conn: ConnId, transport: Transport, remote: SocketAddr, expect: Expect },
    Write { conn: ConnId, bytes: Bytes },
    Close { conn: ConnId },
}

/// Our own addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locals {
    /// Where standard phones are served; also the source of clear UDP.
    pub sip: SocketAddr,
    /// Where links are taken, as others are told it.
    pub overlay: SocketAddr,
    /// Peers talk in clear over UDP and TCP.
    pub clear: bool,
}

#[derive(Debug)]
struct Connection {
    flow: Flow,
    /// Waiting messages until it is open.
    opening: Option<Queue<Bytes>>,
    peer: Proven,
    /// The peer-ID dialled or proven, of this overlay.
    id: Option<Id>,
    /// True for connections of the overlay port.
    link: bool,
    /// Dialled to another overlay.
    abroad: bool,
}

/// The table of connections.
#[derive(Debug)]
pub(super) struct Flows {
    locals: Locals,
    connections: BTreeMap<ConnId, Connection>,
    by_peer: BTreeMap<Id, Vec<ConnId>>,
    by_remote: BTreeMap<(Transport, SocketAddr), ConnId>,
    /// Addresses where another overlay was found, and the link that is open.
    abroad: BTreeMap<SocketAddr, (Abroad, Option<ConnId>)>,
    next: u64,
    /// Messages dropped since no connection took them.
    pub dropped: u64,
}

impl Flows {
    /// Numbers its connections from `first` on.
    pub fn new(locals: Locals, first: u64) -> Self {
        Flows {
            locals,
            connections: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_remote: BTreeMap::new(),
            abroad: BTreeMap::new(),
            next: first,
            dropped: 0,
        }
    }

    /// The number of the next connection that is dialled.
    pub fn next_connection(&self) -> u64 {
        self.next
    }

    /// All connections.
    pub fn all(&self) -> Vec<ConnId> {
        self.connections.keys().copied().collect()
    }

    pub fn locals(&self) -> Locals {
        self.locals
    }

    /// This machine is elsewhere now: what was connected from the old address is closed and made anew when it is needed.
    pub fn moved(&mut self, locals: Locals, wire: &mut Vec<Wire>) {
        let old = [self.locals.sip.ip(), self.locals.overlay.ip()];
        self.locals = locals;
        let stale = |c: &Connection| old.contains(&c.flow.local.ip()) && c.flow.local.ip() != locals.overlay.ip();
        let conns: Vec<_> = self.connections.iter().filter(|(_, c)| stale(c)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.close(conn, wire);
        }
    }

    /// The flow to a peer: an open link to it, else one that is dialled now. In clear mode `size` chooses
    /// between UDP and TCP (RFC 3261 section 18.1.1).
    pub fn peer_flow(&mut self, id: Option<Id>, addr: SocketAddr, size: usize, wire: &mut Vec<Wire>) -> Option<Flow> {
        if self.locals.clear {
            if size <= crate::core::limits::SIP_UDP_REQUEST {
                return Some(Flow::udp(self.locals.overlay, addr));
            }
            return self.dial(Transport::Tcp, addr, None, true, wire);
        }
        let open = |conn: &ConnId| self.connections.get(conn).is_some_and(|c| c.opening.is_none());
        let conns = id.and_then(|id| self.by_peer.get(&id));
        // The latest: of a peer that has moved, the earlier ones lead where it was.
        let known = conns.and_then(|conns| conns.iter().rev().copied().find(open).or(conns.last().copied()));
        let known = known.or_else(|| {
            let conn = *self.by_remote.get(&(Transport::Tls, addr))?;
            // The address may by now belong to another peer than the one that is asked for.
            let at = self.connections.get(&conn)?.id;
            (id.is_none() || at.is_none() || at == id).then_some(conn)
        });
        match known.and_then(|conn| self.connections.get(&conn)) {
            Some(c) => Some(c.flow),
            None => self.dial(Transport::Tls, addr, id, true, wire),
        }
    }

    /// The flow to an address over a transport of standard SIP.
    pub fn address_flow(&mut self, transport: Transport, addr: SocketAddr, wire: &mut Vec<Wire>) -> Option<Flow> {
        if transport == Transport::Udp {
            return Some(Flow::udp(self.locals.sip, addr));
        }
        match self.by_remote.get(&(transport, addr)).and_then(|conn| self.connections.get(conn)) {
            Some(c) => Some(c.flow),
            None => self.dial(transport, addr, None, false, wire),
        }
    }

    /// Dials an address and puts the connection into no table: once it is open it is told and closed.
    pub fn dial_only(&mut self, addr: SocketAddr, id: Id, wire: &mut Vec<Wire>) -> ConnId {
        let conn = ConnId(self.next);
        self.next += 1;
        let tls = (Transport::Tls, Expect::Peer(id));
        let (transport, expect) = if self.locals.clear { (Transport::Tcp, Expect::Member) } else { tls };
        wire.push(Wire::Connect { conn, transport, remote: addr, expect });
        conn
    }

    /// An open link to a peer.
    pub fn open_link(&self, id: &Id) -> Option<ConnId> {
        let conns = self.by_peer.get(id)?;
        conns.iter().copied().find(|conn| self.connections.get(conn).is_some_and(|c| c.opening.is_none()))
    }

    fn dial(
        &mut self,
        transport: Transport,
        addr: SocketAddr,
        id: Option<Id>,
        link: bool,
        wire: &mut Vec<Wire>,
    ) -> Option<Flow> {
        self.dial_for(transport, addr, id.into(), link, wire)
    }

    /// Dials a supernode of another overlay. Nothing may be sent before it is known to be the right one.
    pub fn dial_abroad(&mut self, addr: SocketAddr, wire: &mut Vec<Wire>) -> Option<ConnId> {
        self.dial_for(Transport::Tls, addr, Expect::Foreign, true, wire).and_then(|flow| flow.conn)
    }

    /// The open link to an address where another overlay was found.
    pub fn abroad_flow(&self, addr: SocketAddr) -> Option<Flow> {
        let conn = self.abroad.get(&addr)?.1?;
        self.connections.get(&conn).map(|c| c.flow)
    }

    /// The overlay that was found at an address.
    pub fn abroad_at(&self, addr: SocketAddr) -> Option<&Abroad> {
        self.abroad.get(&addr).map(|(abroad, _)| abroad)
    }

    fn dial_for(
        &mut self,
        transport: Transport,
        addr: SocketAddr,
        expect: Expect,
        link: bool,
        wire: &mut Vec<Wire>,
    ) -> Option<Flow> {
        if self.connections.len() >= CONNECTIONS {
            self.dropped += 1;
            return None;
        }
        let conn = ConnId(self.next);
        self.next += 1;
        let local = if link { self.locals.overlay } else { self.locals.sip };
        let flow = Flow::stream(transport, local, addr, conn);
        let id = match expect {
            Expect::Peer(id) => Some(id),
            Expect::Member | Expect::Foreign => None,
        };
        let abroad = expect == Expect::Foreign;
        let opening = Some(Queue::new(WAITING));
        self.insert(conn, Connection { flow, opening, peer: Proven::Nobody, id, link, abroad });
        wire.push(Wire::Connect { conn, transport, remote: addr, expect });
        Some(flow)
    }

    fn insert(&mut self, conn: ConnId, connection: Connection) {
        if let Some(id) = connection.id {
            self.by_peer.entry(id).or_default().push(conn);
        }
        if !connection.abroad && !matches!(connection.peer, Proven::Foreign(_) | Proven::Phone) {
            self.by_remote.entry((connection.flow.transport, connection.flow.remote)).or_insert(conn);
        }
        self.connections.insert(conn, connection);
    }

    /// Sends bytes on a flow; false when the flow is gone.
    pub fn send(&mut self, flow: Flow, bytes: Bytes, wire: &mut Vec<Wire>) -> bool {
        let Some(conn) = flow.conn else {
            wire.push(Wire::Datagram { flow, bytes });
            return true;
        };
        match self.connections.get_mut(&conn) {
            Some(Connection { opening: Some(waiting), .. }) => {
                let queued = waiting.push(bytes).is_ok();
                self.dropped += u64::from(!queued);
                queued
            }
            Some(_) => {
                wire.push(Wire::Write { conn, bytes });
                true
            }
            None => {
                self.dropped += 1;
                false
            }
        }
    }

    /// A connection that the driver accepted.
    pub fn accepted(&mut self, flow: Flow, peer: Proven) {
        let Some(conn) = flow.conn else { return };
        let id = peer.member().map(|peer| peer.peer_id);
        let plain = matches!(peer, Proven::Phone) || flow.transport == Transport::Ws;
        let link = !plain && (flow.local == self.locals.overlay || flow.transport == Transport::Tls);
        self.insert(conn, Connection { flow, opening: None, peer, id, link, abroad: false });
    }

    /// True for a connection that was dialled to another overlay.
    pub fn is_abroad(&self, conn: ConnId) -> bool {
        self.connections.get(&conn).is_some_and(|c| c.abroad)
    }

    /// A link to another overlay is open, and it is the right one.
    pub fn found_abroad(&mut self, conn: ConnId, foreign: Arc<Foreign>) -> Option<Flow> {
        let connection = self.connections.get_mut(&conn)?;
        let flow = connection.flow;
        let abroad = Abroad { overlay: foreign.overlay().to_owned(), root: Some(foreign.root()) };
        connection.peer = Proven::Foreign(foreign);
        connection.opening = None;
        if self.abroad.len() >= ABROAD && !self.abroad.contains_key(&flow.remote) {
            // One that is not in use; its calls, if any, have lost their link already.
            let idle = self.abroad.iter().find(|(_, (_, conn))| conn.is_none()).map(|(addr, _)| *addr);
            self.abroad.remove(&idle?);
        }
        self.abroad.insert(flow.remote, (abroad, Some(conn)));
        Some(flow)
    }

    /// A connection that was dialled is open. What waited for it comes back, to be handed to [`Flows::flush`].
    pub fn connected(&mut self, conn: ConnId, peer: Proven, wire: &mut Vec<Wire>) -> Option<Queue<Bytes>> {
        let Some(connection) = self.connections.get_mut(&conn) else {
            wire.push(Wire::Close { conn });
            return None;
        };
        if let Proven::Member(member) = &peer
            && connection.id.is_none()
        {
            connection.id = Some(member.peer_id);
            self.by_peer.entry(member.peer_id).or_default().push(conn);
        }
        connection.peer = peer;
        connection.opening.take()
    }

    /// Writes what waited for a connection.
    pub fn flush(&self, conn: ConnId, mut waiting: Option<Queue<Bytes>>, wire: &mut Vec<Wire>) {
        while let Some(bytes) = waiting.as_mut().and_then(Queue::pop) {
            wire.push(Wire::Write { conn, bytes });
        }
    }

    /// The open links and who proved to be at their other ends.
    pub fn links(&self) -> impl Iterator<Item = (ConnId, &Flow, &Arc<Verified>)> {
        let open = self.connections.iter().filter(|(_, c)| c.link && c.opening.is_none());
        open.filter_map(|(conn, c)| Some((*conn, &c.flow, c.peer.member()?)))
    }

    /// Closes these links; until the driver says that they are gone nothing new is sent on them.
    pub fn close_links(&mut self, conns: &[ConnId], wire: &mut Vec<Wire>) {
        for conn in conns {
            self.by_remote.retain(|_, c| c != conn);
            self.by_peer.values_mut().for_each(|links| links.retain(|c| c != conn));
            wire.push(Wire::Close { conn: *conn });
        }
        self.by_peer.retain(|_, links| !links.is_empty());
    }

    /// A connection failed or closed; the flow that is gone.
    pub fn gone(&mut self, conn: ConnId) -> Option<Flow> {
        let connection = self.connections.remove(&conn)?;
        if let Some(id) = connection.id
            && let Some(conns) = self.by_peer.get_mut(&id)
        {
            conns.retain(|c| *c != conn);
            if conns.is_empty() {
                self.by_peer.remove(&id);
            }
        }
        if let Some((_, open)) = self.abroad.get_mut(&connection.flow.remote)
            && *open == Some(conn)
        {
            *open = None;
        }
        let remote = (connection.flow.transport, connection.flow.remote);
        if self.by_remote.get(&remote) == Some(&conn) {
            self.by_remote.remove(&remote);
        }
        Some(connection.flow)
    }

    /// The proven peer of this overlay at the other end.
    pub fn peer(&self, flow: &Flow) -> Option<&Arc<Verified>> {
        self.connections.get(&flow.conn?)?.peer.member()
    }

    /// The device of another overlay at the other end.
    pub fn foreign(&self, flow: &Flow) -> Option<&Arc<Foreign>> {
        self.connections.get(&flow.conn?)?.peer.foreign()
    }

    /// The peer-ID that a connection was dialled for or proved.
    pub fn peer_of(&self, conn: ConnId) -> Option<Id> {
        self.connections.get(&conn)?.id
    }

    /// True while a link to a peer is open or opening.
    pub fn has_peer(&self, id: &Id) -> bool {
        self.by_peer.contains_key(id)
    }

    /// The flow of a connection.
    pub fn flow(&self, conn: ConnId) -> Option<Flow> {
        self.connections.get(&conn).map(|c| c.flow)
    }

    /// True when the flow belongs to the overlay port.
    pub fn is_link(&self, flow: &Flow) -> bool {
        match flow.conn {
            Some(conn) => self.connections.get(&conn).is_some_and(|c| c.link),
            None => self.locals.clear && flow.local.port() == self.locals.overlay.port(),
        }
    }

    /// True when the connection is open.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.connections.get(&conn).is_some_and(|c| c.opening.is_none())
    }

    /// Closes one connection. The driver says when it is gone; until then nothing new is sent on it.
    pub fn close(&mut self, conn: ConnId, wire: &mut Vec<Wire>) {
        for conns in self.by_peer.values_mut() {
            conns.retain(|c| *c != conn);
        }
        self.by_peer.retain(|_, conns| !conns.is_empty());
        self.by_remote.retain(|_, c| *c != conn);
        wire.push(Wire::Close { conn });
    }

    /// Closes every link to a peer. The driver says when each is gone; until then nothing new is sent on it.
    pub fn close_peer(&mut self, id: &Id, wire: &mut Vec<Wire>) {
        for conn in self.by_peer.remove(id).unwrap_or_default() {
            self.by_remote.retain(|_, c| *c != conn);
            wire.push(Wire::Close { conn });
        }
    }
}
