//! Transactions: the four machines of RFC 3261 section 17 with the corrections of RFC 6026, for user agents and
//! proxies alike, over reliable and unreliable transports.
//!
//! [`Layer`] matches what arrives (sections 17.1.3 and 17.2.3, with the rules for RFC 2543 peers), retransmits,
//! answers what is its own to answer (100 Trying after 200 ms, the ACK for a final response other than 2xx, the
//! response to CANCEL), and ends every transaction in time. Its client and server transactions are kept in bounded tables: beyond
//! [`Config::max_transactions`] a new request gets a stateless 503 and is counted.
//!
//! A 2xx to INVITE leaves both machines in the Accepted state of RFC 6026: further 2xx from downstream are
//! delivered as [`Output::Response`] (a proxy forwards them with [`Layer::respond`], a user agent answers them with
//! its ACK again), retransmitted INVITEs are absorbed, and the ACK comes up as [`Output::Ack`]. Retransmitting the
//! 2xx until the ACK comes is the user agent's (`sip::dialog`).
//!
//! Requests get `received` and `rport` (RFC 3261 section 18.2.1, RFC 3581) before they are matched and delivered, and
//! responses go where section 18.2.2 says, over the flow that the request came on.
//!
//! Left out: how long to wait for a final response once a provisional one has come (Timer C of a proxy, a caller's
//! patience: whoever waits calls [`Layer::cancel`], which ends it in any case), PRACK, `maddr` in Via (it would let a stranger aim our responses),
//! opening a new connection for a response whose stream has closed (the transaction ends with a transport error).

mod client;
mod key;
mod output;
mod server;

#[cfg(test)]
mod pipe_tests;
#[cfg(test)]
mod tests;

pub use client::COMPLETED_ELSEWHERE;
pub use output::{ClientTxId, Config, Counters, Output, ServerTxId, TxId};

use crate::core::{Flow, Instant, Rng, TimerQueue};
use crate::sip::msg::{MAGIC_COOKIE, Message, Method};
use client::ClientTx;
use server::ServerTx;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// All transactions of one node.
///
/// Outputs are to be drained after each call; one call makes at most a few per transaction that it touches.
pub struct Layer {
    config: Config,
    rng: Rng,
    last_id: u64,
    clients: HashMap<ClientTxId, ClientTx>,
    client_keys: HashMap<Arc<str>, ClientTxId>,
    servers: HashMap<ServerTxId, ServerTx>,
    server_keys: HashMap<Arc<str>, ServerTxId>,
    /// How many server transactions have this From tag, Call-ID and CSeq (RFC 3261 section 8.2.2.2).
    merge_keys: HashMap<Arc<str>, u32>,
    timers: TimerQueue<TxId>,
    outputs: VecDeque<Output>,
    counters: Counters,
    scratch: String,
}

/// A branch of our own, unique and with the cookie of RFC 3261.
pub fn new_branch(rng: &mut Rng) -> String {
    format!("{MAGIC_COOKIE}{}", rng.token(12))
}

impl Layer {
    /// Without transactions.
    pub fn new(rng: Rng, config: Config) -> Layer {
        Layer {
            config,
            rng,
            last_id: 0,
            clients: HashMap::new(),
            client_keys: HashMap::new(),
            servers: HashMap::new(),
            server_keys: HashMap::new(),
            merge_keys: HashMap::new(),
            timers: TimerQueue::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            scratch: String::new(),
        }
    }

    /// Takes a message that was parsed and validated and arrived on `flow`.
    pub fn receive(&mut self, now: Instant, message: Message, flow: Flow) {
        if message.is_response() {
            self.on_response(now, message, flow);
        } else if *message.method() == Method::Ack {
            self.on_ack(now, message, flow);
        } else {
            self.on_request(now, message, flow);
        }
    }

    /// Sends a message that belongs to no transaction: an ACK for a 2xx, a response of a stateless element.
    pub fn send_stateless(&mut self, message: &Message, flow: Flow) {
        self.outputs.push_back(Output::Send { flow, bytes: message.to_bytes() });
    }

    /// Ends every transaction on a flow that no longer carries bytes, each with its transport error.
    pub fn flow_failed(&mut self, flow: Flow) {
        let mut clients: Vec<_> = self.clients.iter().filter(|(_, tx)| tx.flow == flow).map(|(id, _)| *id).collect();
        clients.sort_unstable();
        for id in clients {
            self.fail_client(id);
        }
        let mut servers: Vec<_> = self.servers.iter().filter(|(_, tx)| tx.came_on(&flow)).map(|(id, _)| *id).collect();
        servers.sort_unstable();
        for id in servers {
            self.fail_server(id);
        }
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Layer::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.timers.pop(now) {
            match id {
                TxId::Client(id) => self.on_client_timer(now, id),
                TxId::Server(id) => self.on_server_timer(now, id),
            }
        }
    }

    /// Client transactions that live.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Server transactions that live.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// What was refused or found no transaction so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// One deadline a transaction: the earlier of its next retransmission and its end.
    fn arm(&mut self, id: TxId, retransmit: Option<Instant>, end: Option<Instant>) {
        match retransmit.into_iter().chain(end).min() {
            Some(at) => self.timers.set(id, at),
            None => {
                self.timers.cancel(&id);
            }
        }
    }
}
