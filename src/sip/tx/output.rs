//! What the layer says, and what it is told at the start.

use crate::core::Flow;
use crate::sip::msg::Message;
use bytes::Bytes;
use std::time::Duration;

/// A client transaction; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTxId(pub(super) u64);

/// A server transaction; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerTxId(pub(super) u64);

/// A transaction of either side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TxId {
    /// Of a request that we sent.
    Client(ClientTxId),
    /// Of a request that we received.
    Server(ServerTxId),
}

/// The times of RFC 3261 section 17.1.1.1 and the size of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Estimate of a round trip; the first retransmission follows after it.
    pub t1: Duration,
    /// Longest interval between retransmissions.
    pub t2: Duration,
    /// How long a message may stay in the network.
    pub t4: Duration,
    /// Most client transactions, and most server transactions; one costs about 1 kB.
    pub max_transactions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            max_transactions: 131_072,
        }
    }
}

impl Config {
    /// 64*T1: Timers B, F, H, J, L, M.
    pub fn lifetime(&self) -> Duration {
        self.t1 * 64
    }
}

/// What the layer wants done, or tells the transaction user.
#[derive(Clone, Debug)]
pub enum Output {
    /// Put these bytes on this flow.
    Send {
        /// Where to.
        flow: Flow,
        /// A whole message, the same bytes at each retransmission.
        bytes: Bytes,
    },
    /// A new request; to be answered with [`Layer::respond`](super::Layer::respond).
    Request {
        /// Its transaction.
        tx: ServerTxId,
        /// The request, with `received` and `rport` in its top Via.
        message: Message,
        /// Where it came from.
        flow: Flow,
        /// The same request has reached us before on another path: a user agent answers 482, a proxy does not
        /// care (RFC 3261 section 8.2.2.2).
        merged: bool,
    },
    /// A CANCEL, already answered with 200, for an INVITE that has no final response yet: it gets a 487.
    Cancel {
        /// The INVITE's transaction.
        invite: ServerTxId,
        /// The CANCEL itself.
        message: Message,
    },
    /// A response: any number of 1xx, then one final; for INVITE possibly more 2xx after that.
    Response {
        /// The transaction it belongs to.
        tx: ClientTxId,
        /// The response, with our Via on top.
        message: Message,
    },
    /// An ACK that ends no transaction here: for a 2xx.
    Ack {
        /// The ACK.
        message: Message,
        /// Where it came from.
        flow: Flow,
    },
    /// A response to nothing: a late one, or a 2xx after its transaction is gone.
    StrayResponse {
        /// The response.
        message: Message,
        /// Where it came from.
        flow: Flow,
    },
    /// No final response in time (Timer B or F): treat as 408.
    Timeout {
        /// The transaction, which is over.
        tx: ClientTxId,
    },
    /// The flow failed, the table is full, or the request has no usable Via: treat as 503.
    TransportError {
        /// The transaction, which is over.
        tx: ClientTxId,
    },
    /// No ACK came for a final response other than 2xx (Timer H).
    ServerTimeout {
        /// The transaction, which is over.
        tx: ServerTxId,
    },
    /// The flow of a request failed.
    ServerTransportError {
        /// The transaction, which is over.
        tx: ServerTxId,
    },
    /// The last that is heard of a transaction.
    Terminated {
        /// Which.
        tx: TxId,
    },
}

/// What was refused or matched nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Requests answered 503 because the table was full.
    pub refused_requests: u64,
    /// Requests of our own that were not sent because the table was full.
    pub refused_sends: u64,
    /// Requests that no transaction can be made for: no usable Via or CSeq.
    pub unusable: u64,
    /// Responses without a transaction.
    pub stray_responses: u64,
    /// Requests that nobody answered for 64*T1.
    pub unanswered: u64,
}
