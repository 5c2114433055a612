//! Ordinary nodes and supernodes in the node: dials and signs of life that the overlay asks for, where this node is reached
//! when it hangs on others, and through whom others are reached.

use super::Node;
use super::flows::Wire;
use crate::core::{ConnId, Id, Instant};
use crate::identity::Verified;
use crate::overlay::{self, PeerRef, RpcId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Peers whose way is remembered.
const WAYS: usize = 4096;
/// CRLF CRLF (RFC 5626 section 3.5.1).
const PING: &[u8] = b"\r\n\r\n";

/// What the node knows of kept links.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// The supernodes that this node hangs on, the primary first; none in the ring.
    pub via: Vec<PeerRef>,
    /// Connections that only show whether somebody answers.
    dials: BTreeMap<ConnId, (RpcId, Id)>,
    /// Through whom a peer is reached, as its contact entry said last.
    ways: BTreeMap<Id, Vec<PeerRef>>,
    order: VecDeque<Id>,
}

impl Attachments {
    /// What a contact entry says; nothing for a peer that is dialled itself.
    pub fn learn(&mut self, peer: Id, via: Vec<PeerRef>) {
        if via.is_empty() {
            self.ways.remove(&peer);
            return;
        }
        if self.ways.insert(peer, via).is_none() {
            self.order.push_back(peer);
        }
        while self.order.len() > WAYS {
            if let Some(oldest) = self.order.pop_front() {
                self.ways.remove(&oldest);
            }
        }
    }

    /// Through whom a peer is reached.
    pub fn way(&self, peer: &Id) -> &[PeerRef] {
        self.ways.get(peer).map_or(&[], Vec::as_slice)
    }
}

impl Node {
    /// Dials a peer whatever links there are, to see whether it answers.
    pub(super) fn dial_only(&mut self, rpc: RpcId, peer: PeerRef) {
        let conn = self.flows.dial_only(peer.addr, peer.id, &mut self.wire);
        self.attach.dials.insert(conn, (rpc, peer.id));
    }

    /// True when the connection was one of those; it is closed again.
    pub(super) fn on_dialled(&mut self, now: Instant, conn: ConnId, peer: Option<&Arc<Verified>>) -> bool {
        let Some((rpc, id)) = self.attach.dials.remove(&conn) else { return false };
        self.wire.push(Wire::Close { conn });
        let reached = self.flows.locals().clear || peer.is_some_and(|p| p.peer_id == id);
        self.overlay_input(now, overlay::Input::Dialled { rpc, reached });
        true
    }

    pub(super) fn on_dial_failed(&mut self, now: Instant, conn: ConnId) -> bool {
        let Some((rpc, _)) = self.attach.dials.remove(&conn) else { return false };
        self.overlay_input(now, overlay::Input::Dialled { rpc, reached: false });
        true
    }

    /// Asks for a sign of life on the open link; without one there is none.
    pub(super) fn ping(&mut self, peer: &Id) {
        if let Some(conn) = self.flows.open_link(peer) {
            self.wire.push(Wire::Write { conn, bytes: Bytes::from_static(PING) });
        }
    }

    pub(super) fn on_pong(&mut self, now: Instant, conn: ConnId) {
        if self.account_pong(now, conn) {
            return;
        }
        if let Some(peer) = self.flows.peer_of(conn) {
            self.overlay_input(now, overlay::Input::Pong { peer });
        }
    }

    /// This node is reached in another way than before.
    pub(super) fn on_hanging(&mut self, now: Instant, via: Vec<PeerRef>) {
        let kept = !via.is_empty();
        self.attach.via = via;
        self.ua.set_link_contact(self.setup.link_contact(kept));
        if let Some(link) = self.setup.link(kept) {
            self.router.set_link(link);
        }
        self.publisher.set_lifetime(self.setup.lifetime(kept));
        self.publisher.rewrite(now);
        if kept {
            self.look_for_relays(now);
            self.race_won();
        }
        for peer in self.attach.via.clone() {
            self.ring.entrance.hosts.hear(now, peer.addr, Some(peer.id));
        }
    }

    /// How a user is reached at a peer, or through those that it hangs on.
    pub(super) fn contact_uri(&self, user: Option<&str>, peer: &PeerRef) -> String {
        let mut uri = self.setup.peer_uri(user, peer);
        if !self.attach.way(&peer.id).is_empty() {
            uri.push_str(";ob");
        }
        uri
    }
}
