//! One device key in two programs: a data directory that was copied and runs on two machines. Where the ring tells this node
//! of itself at another address, it asks there. Only who holds the key opens that link, and only another program than this
//! one does not know the number that was sent with the question; then both say so to their owners.

use super::Node;
use super::exchange::{Answer, Asked};
use crate::core::{Flow, Instant};
use crate::identity::Identity;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::net::SocketAddr;

/// Content type of the question and of its answer.
pub(super) const TWIN_TYPE: &str = "application/chordial-twin+cbor";

/// The question that is under way.
#[derive(Debug, Default)]
pub(super) struct Twin {
    number: Option<String>,
}

impl Node {
    /// Hearsay: this very peer is at `addr`.
    pub(super) fn on_twin_told(&mut self, now: Instant, addr: SocketAddr) {
        let Some(me) = self.overlay.as_ref().map(|o| o.me()) else { return };
        if self.twin.number.is_some() || self.setup.config.overlay.lab_clear || self.own_addresses().contains(&addr) {
            return;
        }
        tracing::debug!(%addr, "this peer is said to be at another address");
        let number = self.rng.token(16);
        let body = number.clone().into_bytes();
        self.twin.number = Some(number);
        // Dialled, not taken for oneself as a hop to this peer-ID else is.
        match self.flows.peer_flow(Some(me.id), addr, body.len(), &mut self.wire) {
            Some(flow) => self.exchange(now, &Hop::Flow(flow), TWIN_TYPE, body, Asked::Twin),
            None => self.twin.number = None,
        }
    }

    /// The question arrives, over a link of this device's key or of another member's, whom it does not concern.
    pub(super) fn on_twin_asked(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let own = self.identity.as_ref().map(Identity::device_key);
        let theirs = self.flows.peer(&flow).map(|p| p.device);
        if own.is_some() && own == theirs {
            match self.twin.number.take() {
                // The address leads back to this program.
                Some(number) if number.as_bytes() == message.body() => {}
                _ => self.told_of_twin(),
            }
        }
        self.answer_exchange(now, tx, message, TWIN_TYPE, Vec::new());
    }

    /// Whoever is there has answered, or nobody.
    pub(super) fn on_twin_answered(&mut self, answer: &Answer) {
        if self.twin.number.take().is_some() && answer.status == 200 {
            self.told_of_twin();
        }
    }

    fn told_of_twin(&mut self) {
        let Some(identity) = &self.identity else { return };
        let (aor, device) = (identity.aor(), identity.device_key());
        self.told_of_copy(&aor, device);
    }
}
