//! The client machines: INVITE (RFC 3261 section 17.1.1, RFC 6026 section 7.2) and all others (section 17.1.2).

use super::{ClientTxId, Layer, Output, TxId, key};
use crate::core::{Flow, Instant};
use crate::sip::msg::{HeaderName, Message, Method};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Value of Reason in the CANCEL to devices that stop ringing because another was answered: they show no missed call (RFC 3326).
pub const COMPLETED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// A client transaction.
pub(super) struct ClientTx {
    key: Arc<str>,
    pub flow: Flow,
    state: State,
    /// The INVITE itself, from which ACK and CANCEL are made; none for other methods.
    invite: Option<Box<Message>>,
    /// What is retransmitted: the request, then the ACK. Empty where nothing ever is.
    bytes: Bytes,
    /// Until the next retransmission.
    interval: Duration,
    retransmit: Option<Instant>,
    end: Option<Instant>,
    cancel: Cancel,
    /// Value of Reason in its CANCEL (RFC 3326).
    reason: Option<Box<str>>,
    /// A CANCEL of the layer's own: nobody is told how it goes.
    internal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Sent, nothing heard: "Calling" for INVITE.
    Trying,
    Proceeding,
    /// INVITE only: a 2xx came.
    Accepted,
    Completed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// Wanted, but no provisional response has come yet (RFC 3261 section 9.1).
    Wanted,
    Sent,
}

impl Layer {
    /// Sends a request. Its top Via, with branch, is the caller's to write ([`new_branch`](super::new_branch)).
    /// An ACK is no transaction: see [`send_stateless`](Layer::send_stateless).
    pub fn send_request(&mut self, now: Instant, message: Message, flow: Flow) -> ClientTxId {
        self.start_client(now, message, flow, false)
    }

    /// Cancels an INVITE: at once if a provisional response has come, else when one comes; not at all when a final
    /// one comes first. True if a CANCEL is or may still be sent. The INVITE ends with its final response, or with
    /// [`Output::Timeout`] 64*T1 after the CANCEL.
    pub fn cancel(&mut self, now: Instant, id: ClientTxId) -> bool {
        let Some(tx) = self.clients.get_mut(&id).filter(|tx| tx.invite.is_some()) else { return false };
        match (tx.state, tx.cancel) {
            (State::Trying, _) => tx.cancel = Cancel::Wanted,
            (State::Proceeding, Cancel::Sent) => {}
            (State::Proceeding, _) => self.send_cancel(now, id),
            _ => return false,
        }
        true
    }

    /// The same, saying why: the value of Reason (RFC 3326), such as [`COMPLETED_ELSEWHERE`].
    pub fn cancel_because(&mut self, now: Instant, id: ClientTxId, reason: &str) -> bool {
        if let Some(tx) = self.clients.get_mut(&id) {
            tx.reason = Some(reason.into());
        }
        self.cancel(now, id)
    }

    fn start_client(&mut self, now: Instant, message: Message, flow: Flow, internal: bool) -> ClientTxId {
        let id = ClientTxId(self.next_id());
        let full = self.clients.len() >= self.config.max_transactions;
        let method = message.method().clone();
        key::client(&mut self.scratch, message.branch().unwrap_or(""), &method);
        if full || method == Method::Ack || message.branch().is_none() || self.client_keys.contains_key(&*self.scratch)
        {
            self.counters.refused_sends += 1;
            self.outputs.push_back(Output::TransportError { tx: id });
            self.outputs.push_back(Output::Terminated { tx: TxId::Client(id) });
            return id;
        }
        let key: Arc<str> = self.scratch.as_str().into();
        self.client_keys.insert(key.clone(), id);
        let bytes = message.to_bytes();
        self.outputs.push_back(Output::Send { flow, bytes: bytes.clone() });
        let unreliable = !flow.transport.is_reliable();
        let tx = ClientTx {
            key,
            flow,
            state: State::Trying,
            invite: (method == Method::Invite).then(|| Box::new(message)),
            bytes: if unreliable { bytes } else { Bytes::new() },
            interval: self.config.t1,
            retransmit: unreliable.then(|| now + self.config.t1),
            end: Some(now + self.config.lifetime()),
            cancel: Cancel::No,
            reason: None,
            internal,
        };
        self.arm(TxId::Client(id), tx.retransmit, tx.end);
        self.clients.insert(id, tx);
        id
    }

    pub(super) fn on_response(&mut self, now: Instant, message: Message, flow: Flow) {
        let found = message.branch().and_then(|branch| {
            key::client(&mut self.scratch, branch, message.method());
            self.client_keys.get(self.scratch.as_str()).copied()
        });
        let Some((id, tx)) = found.and_then(|id| Some((id, self.clients.get_mut(&id)?))) else {
            self.counters.stray_responses += 1;
            self.outputs.push_back(Output::StrayResponse { message, flow });
            return;
        };
        let status = message.status();
        let reliable = tx.flow.transport.is_reliable();
        let internal = tx.internal;
        match tx.state {
            State::Trying | State::Proceeding if status < 200 => {
                let first = tx.state == State::Trying;
                tx.state = State::Proceeding;
                let mut cancel_now = false;
                if tx.invite.is_some() {
                    // Timers A and B stop; a proxy has Timer C, a user agent its patience. After a CANCEL the
                    // end that it set stays.
                    tx.retransmit = None;
                    if tx.cancel != Cancel::Sent {
                        tx.end = None;
                    }
                    cancel_now = tx.cancel == Cancel::Wanted;
                } else if first && tx.retransmit.is_some() {
                    tx.interval = self.config.t2;
                    tx.retransmit = Some(now + tx.interval);
                }
                let (retransmit, end) = (tx.retransmit, tx.end);
                self.arm(TxId::Client(id), retransmit, end);
                self.deliver(id, message, internal);
                if cancel_now {
                    self.send_cancel(now, id);
                }
            }
            State::Trying | State::Proceeding if tx.invite.is_some() && status < 300 => {
                tx.state = State::Accepted;
                tx.retransmit = None;
                tx.bytes = Bytes::new();
                let end = now + self.config.lifetime();
                tx.end = Some(end);
                self.arm(TxId::Client(id), None, Some(end));
                self.deliver(id, message, internal);
            }
            State::Trying | State::Proceeding => {
                tx.state = State::Completed;
                tx.retransmit = None;
                let linger = match (&tx.invite, reliable) {
                    (_, true) => Duration::ZERO,
                    (Some(_), false) => TIMER_D.max(self.config.lifetime()),
                    (None, false) => self.config.t4,
                };
                match &tx.invite {
                    Some(invite) => {
                        tx.bytes = ack_for(invite, &message).to_bytes();
                        self.outputs.push_back(Output::Send { flow: tx.flow, bytes: tx.bytes.clone() });
                    }
                    None => tx.bytes = Bytes::new(),
                }
                tx.end = Some(now + linger);
                self.deliver(id, message, internal);
                if linger.is_zero() {
                    self.remove_client(id);
                } else {
                    self.arm(TxId::Client(id), None, Some(now + linger));
                }
            }
            State::Accepted if (200..300).contains(&status) => self.deliver(id, message, internal),
            State::Completed if tx.invite.is_some() && status >= 300 => {
                self.outputs.push_back(Output::Send { flow: tx.flow, bytes: tx.bytes.clone() });
            }
            // A proxy forwards a 2xx even after another final response (RFC 3261 section 16.7): somebody has to
            // acknowledge and end that call.
            State::Completed if tx.invite.is_some() && status >= 200 => {
                self.counters.stray_responses += 1;
                self.outputs.push_back(Output::StrayResponse { message, flow });
            }
            State::Accepted | State::Completed => {}
        }
    }

    pub(super) fn on_client_timer(&mut self, now: Instant, id: ClientTxId) {
        let Some(tx) = self.clients.get_mut(&id) else { return };
        if tx.end.is_some_and(|end| end <= now) {
            if matches!(tx.state, State::Trying | State::Proceeding) && !tx.internal {
                self.outputs.push_back(Output::Timeout { tx: id });
            }
            return self.remove_client(id);
        }
        if tx.retransmit.is_some_and(|at| at <= now) {
            self.outputs.push_back(Output::Send { flow: tx.flow, bytes: tx.bytes.clone() });
            // Timer A doubles without a bound; Timer E up to T2.
            tx.interval = match tx.invite {
                Some(_) => tx.interval * 2,
                None => (tx.interval * 2).min(self.config.t2),
            };
            tx.retransmit = Some(now + tx.interval);
        }
        let (retransmit, end) = (tx.retransmit, tx.end);
        self.arm(TxId::Client(id), retransmit, end);
    }

    pub(super) fn fail_client(&mut self, id: ClientTxId) {
        let Some(tx) = self.clients.get(&id) else { return };
        // In Accepted and Completed the user has the final response; only the machine ends.
        if matches!(tx.state, State::Trying | State::Proceeding) && !tx.internal {
            self.outputs.push_back(Output::TransportError { tx: id });
        }
        self.remove_client(id);
    }

    fn deliver(&mut self, tx: ClientTxId, message: Message, internal: bool) {
        if !internal {
            self.outputs.push_back(Output::Response { tx, message });
        }
    }

    fn send_cancel(&mut self, now: Instant, id: ClientTxId) {
        let end = now + self.config.lifetime();
        let Some(tx) = self.clients.get_mut(&id) else { return };
        let Some(invite) = &tx.invite else { return };
        let (mut cancel, flow) = (hop_request(invite, Method::Cancel, None), tx.flow);
        if let Some(reason) = &tx.reason {
            cancel.push(HeaderName::Reason, reason);
        }
        tx.cancel = Cancel::Sent;
        tx.end = Some(end);
        self.arm(TxId::Client(id), None, Some(end));
        self.start_client(now, cancel, flow, true);
    }

    fn remove_client(&mut self, id: ClientTxId) {
        if let Some(tx) = self.clients.remove(&id) {
            self.client_keys.remove(&tx.key);
            self.timers.cancel(&TxId::Client(id));
            if !tx.internal {
                self.outputs.push_back(Output::Terminated { tx: TxId::Client(id) });
            }
        }
    }
}

/// The ACK for a final response other than 2xx (RFC 3261 section 17.1.1.3).
fn ack_for(invite: &Message, response: &Message) -> Message {
    hop_request(invite, Method::Ack, response.header(HeaderName::To))
}

/// A request that follows the INVITE on its hop: one Via, the same branch, the same sequence number.
fn hop_request(invite: &Message, method: Method, to: Option<&str>) -> Message {
    let mut message = Message::request(method.clone(), invite.request_uri());
    if let Some(via) = invite.values(HeaderName::Via).next() {
        message.push(HeaderName::Via, via);
    }
    message.push(HeaderName::MaxForwards, 70);
    for route in invite.headers(HeaderName::Route) {
        message.push(HeaderName::Route, route);
    }
    let copied = [
        (HeaderName::From, invite.header(HeaderName::From)),
        (HeaderName::To, to.or_else(|| invite.header(HeaderName::To))),
        (HeaderName::CallId, invite.header(HeaderName::CallId)),
    ];
    for (name, value) in copied {
        if let Some(value) = value {
            message.push(name, value);
        }
    }
    let number = invite.cseq().map_or(0, |c| c.number);
    message.push(HeaderName::CSeq, format_args!("{number} {method}"));
    message
}

/// At least 32 s (RFC 3261 section 17.1.1.2).
const TIMER_D: Duration = Duration::from_secs(32);
