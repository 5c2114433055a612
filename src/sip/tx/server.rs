//! The server machines: INVITE (RFC 3261 section 17.2.1, RFC 6026 section 7.1), all others (section 17.2.2), and
//! what the layer answers by itself.

use super::{Layer, Output, ServerTxId, TxId, key};
use crate::core::{Flow, Instant};
use crate::sip::msg::{HeaderName, Message, Method};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A server transaction.
pub(super) struct ServerTx {
    key: Arc<str>,
    merge: Option<Arc<str>>,
    /// Where responses go.
    flow: Flow,
    /// Where the request came from, where responses go elsewhere.
    source: Option<SocketAddr>,
    invite: bool,
    state: State,
    /// The INVITE, until something has been answered: the 100 is made from it.
    unanswered: Option<Box<Message>>,
    /// The last response, while a retransmitted request asks for it.
    last: Bytes,
    /// Tag of our To, for the response to CANCEL.
    to_tag: Option<Box<str>>,
    interval: Duration,
    retransmit: Option<Instant>,
    end: Option<Instant>,
    /// A CANCEL's: the user has never heard of it.
    internal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No response yet, or only provisional ones: "Trying" and "Proceeding".
    Proceeding,
    /// INVITE only: a 2xx was sent.
    Accepted,
    Completed,
    /// INVITE only: the ACK came.
    Confirmed,
}

impl ServerTx {
    pub fn came_on(&self, flow: &Flow) -> bool {
        let source = self.source.unwrap_or(self.flow.remote);
        self.flow == *flow || Flow { remote: source, ..self.flow } == *flow
    }
}

impl Layer {
    /// Sends a response. False if the transaction is gone or in no state to send it: a second final response,
    /// anything after a final one that is not a further 2xx to INVITE.
    pub fn respond(&mut self, now: Instant, id: ServerTxId, message: Message) -> bool {
        let lifetime = self.config.lifetime();
        let Some(tx) = self.servers.get_mut(&id) else { return false };
        let status = message.status();
        let unreliable = !tx.flow.transport.is_reliable();
        let accepts = match tx.state {
            State::Proceeding => true,
            State::Accepted => (200..300).contains(&status),
            State::Completed | State::Confirmed => false,
        };
        if !accepts || message.is_request() {
            return false;
        }
        let bytes = message.to_bytes();
        self.outputs.push_back(Output::Send { flow: tx.flow, bytes: bytes.clone() });
        tx.unanswered = None;
        if tx.invite
            && let Some(tag) = message.to_tag()
        {
            tx.to_tag = Some(tag.into());
        }
        if tx.state == State::Accepted {
            return true;
        }
        if status < 200 {
            tx.last = bytes;
            tx.retransmit = None;
        } else if tx.invite && status < 300 {
            tx.state = State::Accepted;
            tx.last = Bytes::new();
            tx.retransmit = None;
            tx.end = Some(now + lifetime);
        } else if tx.invite {
            tx.state = State::Completed;
            tx.last = bytes;
            tx.interval = self.config.t1;
            tx.retransmit = unreliable.then(|| now + self.config.t1);
            tx.end = Some(now + lifetime);
        } else {
            tx.state = State::Completed;
            tx.last = bytes;
            if !unreliable {
                self.remove_server(id);
                return true;
            }
            tx.end = Some(now + lifetime);
        }
        let (retransmit, end) = (tx.retransmit, tx.end);
        self.arm(TxId::Server(id), retransmit, end);
        true
    }

    pub(super) fn on_request(&mut self, now: Instant, mut message: Message, flow: Flow) {
        let Ok(mut via) = message.via() else {
            self.counters.unusable += 1;
            return;
        };
        key::server(&mut self.scratch, &message, &via, message.method());
        if let Some(id) = self.server_keys.get(self.scratch.as_str()) {
            if let Some(tx) = self.servers.get(id).filter(|tx| !tx.last.is_empty() && tx.state != State::Confirmed) {
                self.outputs.push_back(Output::Send { flow: tx.flow, bytes: tx.last.clone() });
            }
            return;
        }
        let answer_to = key::response_flow(&via, &flow);
        let full = self.servers.len() >= self.config.max_transactions;
        let key: Arc<str> = self.scratch.as_str().into();
        if *message.method() == Method::Cancel {
            key::server(&mut self.scratch, &message, &via, &Method::Invite);
            let invite = self.server_keys.get(self.scratch.as_str()).copied();
            key::stamp(&mut message, &mut via, &flow);
            return self.on_cancel(now, message, flow, answer_to, invite, (!full).then_some(key));
        }
        key::stamp(&mut message, &mut via, &flow);
        if full {
            self.counters.refused_requests += 1;
            let mut busy = Message::reply(&message, 503, "Service Unavailable");
            busy.push(HeaderName::RetryAfter, 1);
            // The same request gets the same tag, as a stateless element has to see to (RFC 3261 section 8.2.7).
            busy.set_to_tag(&blake3::hash(key.as_bytes()).to_hex().as_str()[..16]);
            return self.send_stateless(&busy, answer_to);
        }
        let merge: Option<Arc<str>> = key::merge(&mut self.scratch, &message).then(|| self.scratch.as_str().into());
        let merged = merge.as_ref().is_some_and(|key| {
            let count = self.merge_keys.entry(key.clone()).or_insert(0);
            *count += 1;
            *count > 1
        });
        let id = ServerTxId(self.next_id());
        let invite = *message.method() == Method::Invite;
        let tx = ServerTx {
            key: key.clone(),
            merge,
            flow: answer_to,
            source: (flow != answer_to).then_some(flow.remote),
            invite,
            state: State::Proceeding,
            unanswered: invite.then(|| Box::new(message.clone())),
            last: Bytes::new(),
            to_tag: None,
            interval: self.config.t1,
            retransmit: invite.then(|| now + TRYING_AFTER),
            // Whoever asked has given up by then (Timer F), and RFC 4320 forbids a late answer.
            end: (!invite).then(|| now + self.config.lifetime()),
            internal: false,
        };
        self.arm(TxId::Server(id), tx.retransmit, tx.end);
        self.server_keys.insert(key, id);
        self.servers.insert(id, tx);
        self.outputs.push_back(Output::Request { tx: id, message, flow, merged });
    }

    pub(super) fn on_ack(&mut self, now: Instant, message: Message, flow: Flow) {
        let Ok(via) = message.via() else {
            self.counters.unusable += 1;
            return;
        };
        key::server(&mut self.scratch, &message, &via, &Method::Invite);
        let found = self.server_keys.get(self.scratch.as_str()).copied();
        let Some((id, tx)) = found.and_then(|id| Some((id, self.servers.get_mut(&id)?))) else {
            return self.outputs.push_back(Output::Ack { message, flow });
        };
        match tx.state {
            // An ACK for a 2xx has a branch of its own, unless it comes from an RFC 2543 peer.
            State::Accepted => self.outputs.push_back(Output::Ack { message, flow }),
            State::Completed if tx.flow.transport.is_reliable() => self.remove_server(id),
            State::Completed => {
                tx.state = State::Confirmed;
                tx.last = Bytes::new();
                tx.retransmit = None;
                let end = now + self.config.t4;
                tx.end = Some(end);
                self.arm(TxId::Server(id), None, Some(end));
            }
            State::Proceeding | State::Confirmed => {}
        }
    }

    /// RFC 3261 section 9.2. `key` is where the CANCEL's own transaction goes, if there is room for one.
    fn on_cancel(
        &mut self,
        now: Instant,
        message: Message,
        flow: Flow,
        answer_to: Flow,
        invite: Option<ServerTxId>,
        key: Option<Arc<str>>,
    ) {
        let fresh = self.rng.token(8);
        let found = invite.and_then(|id| Some((id, self.servers.get_mut(&id)?)));
        let (response, pending) = match found {
            Some((id, tx)) => {
                let mut ok = Message::reply(&message, 200, "OK");
                ok.set_to_tag(tx.to_tag.get_or_insert_with(|| fresh.into()));
                (ok, (tx.state == State::Proceeding).then_some(id))
            }
            None => {
                let mut unknown = Message::reply(&message, 481, "Call/Transaction Does Not Exist");
                unknown.set_to_tag(&fresh);
                (unknown, None)
            }
        };
        let bytes = response.to_bytes();
        self.outputs.push_back(Output::Send { flow: answer_to, bytes: bytes.clone() });
        // Over a stream nothing is repeated, so there is nothing to keep (Timer J is zero).
        if let Some(key) = key.filter(|_| !answer_to.transport.is_reliable()) {
            let id = ServerTxId(self.next_id());
            let end = Some(now + self.config.lifetime());
            let tx = ServerTx {
                key: key.clone(),
                merge: None,
                flow: answer_to,
                source: (flow != answer_to).then_some(flow.remote),
                invite: false,
                state: State::Completed,
                unanswered: None,
                last: bytes,
                to_tag: None,
                interval: self.config.t1,
                retransmit: None,
                end,
                internal: true,
            };
            self.server_keys.insert(key, id);
            self.servers.insert(id, tx);
            self.arm(TxId::Server(id), None, end);
        }
        if let Some(invite) = pending {
            self.outputs.push_back(Output::Cancel { invite, message });
        }
    }

    pub(super) fn on_server_timer(&mut self, now: Instant, id: ServerTxId) {
        let Some(tx) = self.servers.get_mut(&id) else { return };
        if tx.end.is_some_and(|end| end <= now) {
            if tx.invite && tx.state == State::Completed {
                self.outputs.push_back(Output::ServerTimeout { tx: id });
            } else if tx.state == State::Proceeding {
                self.counters.unanswered += 1;
            }
            return self.remove_server(id);
        }
        if tx.retransmit.is_some_and(|at| at <= now) {
            if let Some(request) = tx.unanswered.take() {
                tx.last = Message::reply(&request, 100, "Trying").to_bytes();
                tx.retransmit = None;
            } else {
                // Timer G.
                tx.interval = (tx.interval * 2).min(self.config.t2);
                tx.retransmit = Some(now + tx.interval);
            }
            self.outputs.push_back(Output::Send { flow: tx.flow, bytes: tx.last.clone() });
        }
        let (retransmit, end) = (tx.retransmit, tx.end);
        self.arm(TxId::Server(id), retransmit, end);
    }

    pub(super) fn fail_server(&mut self, id: ServerTxId) {
        if self.servers.get(&id).is_some_and(|tx| !tx.internal) {
            self.outputs.push_back(Output::ServerTransportError { tx: id });
        }
        self.remove_server(id);
    }

    pub(super) fn remove_server(&mut self, id: ServerTxId) {
        let Some(tx) = self.servers.remove(&id) else { return };
        self.server_keys.remove(&tx.key);
        if let Some(merge) = tx.merge
            && let Some(count) = self.merge_keys.get_mut(&merge)
        {
            *count -= 1;
            if *count == 0 {
                self.merge_keys.remove(&merge);
            }
        }
        self.timers.cancel(&TxId::Server(id));
        if !tx.internal {
            self.outputs.push_back(Output::Terminated { tx: TxId::Server(id) });
        }
    }
}

/// How long the user may take to answer an INVITE before a 100 goes out (RFC 3261 section 17.2.1).
const TRYING_AFTER: Duration = Duration::from_millis(200);
