//! Whether a peer may speak for the caller that a request names. A link proves a device; the device's certificate
//! names its user and extensions. A standard phone behind that peer is none of them: its registration is looked up, and the
//! entry has to be signed by that very device (its adapter certificate, or in an open overlay the phone's own claim).
//!
//! A request whose caller cannot be vouched for is answered 403: nobody rings under another's name. Callers of other
//! domains are not members and are believed as far as the peer that lets them in.

use super::Node;
use crate::core::{Flow, Instant};
use crate::identity::{PublicKey, SignedEntry};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Requests that wait for a lookup at once.
const WAITING: usize = 1024;
/// Answers remembered, the oldest given up first.
const REMEMBERED: usize = 4096;
/// How long an answer is remembered.
const GOOD_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Waiting {
    message: Message,
    flow: Flow,
    merged: bool,
    device: PublicKey,
    aor: String,
}

/// Requests whose caller is being looked up, and what was found lately.
#[derive(Debug, Default)]
pub(super) struct Vouching {
    waiting: BTreeMap<ServerTxId, Waiting>,
    known: BTreeMap<([u8; 32], String), Instant>,
    order: VecDeque<([u8; 32], String)>,
}

impl Vouching {
    fn remember(&mut self, device: PublicKey, aor: String, until: Instant) {
        let key = (device.0, aor);
        if self.known.insert(key.clone(), until).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Node {
    /// True when the request may be carried on now; otherwise it waits for a lookup, or has been answered.
    pub(super) fn is_vouched(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: Flow,
        merged: bool,
    ) -> bool {
        // Within a dialog the dialog is the proof. In the laboratory nothing is.
        let Some(peer) = self.flows.peer(&flow).filter(|_| message.to_tag().is_none()) else { return true };
        let Some(user) = message.from().ok().and_then(|from| self.domain.user_of(&from.uri)) else { return true };
        let user = user.to_ascii_lowercase();
        if peer.speaks_for(&user) {
            return true;
        }
        let (device, aor) = (peer.device, self.domain.aor(&user));
        if self.vouch.known.get(&(device.0, aor.clone())).is_some_and(|until| *until > now) {
            return true;
        }
        if self.vouch.waiting.len() >= WAITING {
            self.answer(now, tx, message, 503, "Service Unavailable");
            return false;
        }
        let waiting = Waiting { message: message.clone(), flow, merged, device, aor: aor.clone() };
        self.vouch.waiting.insert(tx, waiting);
        self.lookup_for_vouch(now, tx, &aor);
        false
    }

    /// The caller's registration was looked up.
    pub(super) fn on_vouched(&mut self, now: Instant, tx: ServerTxId, entries: &[SignedEntry]) {
        let Some(Waiting { message, flow, merged, device, aor }) = self.vouch.waiting.remove(&tx) else { return };
        if entries.iter().any(|e| e.entry().device == device && !e.entry().is_removal()) {
            self.vouch.remember(device, aor, now + GOOD_FOR);
            // A caller of this overlay, who is no stranger.
            return self.route_on(now, tx, message, flow, true, merged);
        }
        self.count("callers that a peer may not speak for");
        tracing::warn!(%aor, "a peer names a caller that it may not speak for");
        self.answer(now, tx, &message, 403, "The caller is not registered through this peer");
    }

    /// A request that waits was cancelled: it ends here.
    pub(super) fn cancel_vouching(&mut self, now: Instant, invite: ServerTxId) {
        if let Some(waiting) = self.vouch.waiting.remove(&invite) {
            self.answer(now, invite, &waiting.message, 487, "Request Terminated");
        }
    }
}
