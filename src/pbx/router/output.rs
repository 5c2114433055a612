//! What a router is told, asks and wants done.

use crate::core::{Id, Transport};
use crate::pbx::{Candidate, Domain, Target};
use crate::sip::msg::Message;
use crate::sip::tx::{ClientTxId, ServerTxId};
use std::net::SocketAddr;
use std::time::Duration;

/// What a router is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay and our addresses, that of the links included.
    pub domain: Domain,
    /// Where phones reach us over UDP. Its address stands in for that of a socket bound to "any".
    pub udp: SocketAddr,
    /// Where phones reach us over TCP.
    pub tcp: SocketAddr,
    /// Where peers reach us.
    pub link: Option<Link>,
    /// Secret behind passes and loop marks; dialogs survive a restart if it does.
    pub key: [u8; 32],
    /// Timer C, above 3 minutes (RFC 3261 section 16.6 step 11).
    pub timer_c: Duration,
    /// How long an answered INVITE is kept for more 2xx: 64*T1.
    pub linger: Duration,
    /// How long an [`Output::Resolve`] may take before 504.
    pub resolve: Duration,
    /// Requests at a time.
    pub max_contexts: usize,
    /// Targets of one request.
    pub max_targets: usize,
}

impl Config {
    /// Usual values: Timer C 185 s, 32 s, 10 s, 65,536 requests, 32 targets each.
    pub fn new(domain: Domain, udp: SocketAddr, tcp: SocketAddr, key: [u8; 32]) -> Config {
        Config {
            domain,
            udp,
            tcp,
            link: None,
            key,
            timer_c: Duration::from_secs(185),
            linger: Duration::from_secs(32),
            resolve: Duration::from_secs(10),
            max_contexts: 65_536,
            max_targets: 32,
        }
    }
}

/// Our end of the overlay's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where we take links.
    pub address: SocketAddr,
    /// TLS, or TCP or UDP in a laboratory in clear.
    pub transport: Transport,
    /// Our peer-ID.
    pub id: Id,
    /// Nobody dials us: we are reached over flows that we keep (RFC 5626's `ob`).
    pub kept: bool,
}

/// An [`Output::Resolve`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryId(pub(super) u64);

/// One copy of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BranchId {
    pub(super) context: u64,
    pub(super) index: u16,
}

/// How far to look for a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// This node only: its registrar and its own user agent.
    Here,
    /// The overlay too.
    Overlay,
}

/// What was found for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// These; empty is the same as [`NotRegistered`](Resolution::NotRegistered).
    Targets(Vec<Candidate>),
    /// The user exists and is nowhere now: 480.
    NotRegistered,
    /// No such user: 404.
    NotFound,
    /// Several users claim the name; these URIs tell them apart: 485.
    Ambiguous(Vec<String>),
    /// The overlay gave no answer that can be trusted: 504.
    Failed,
}

/// What the router wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// To know where a user is; answered with [`Router::resolved`](super::Router::resolved).
    Resolve {
        /// To answer with.
        query: QueryId,
        /// Canonical AOR, `sip:USER@OVERLAY`.
        aor: String,
        /// Its user part.
        user: String,
        /// How far to look.
        scope: Scope,
        /// The request is inside a dialog: if the node's own user agent has that dialog, it is the only target.
        in_dialog: bool,
    },
    /// A request to be sent: push a Via with `via_branch`, send it in a client transaction, and say so with
    /// [`Router::forwarded`](super::Router::forwarded), or [`Router::unsendable`](super::Router::unsendable) where there is no way.
    Forward {
        /// To answer with.
        branch: BranchId,
        /// The request without our Via.
        message: Message,
        /// The next hop.
        target: Target,
        /// The branch parameter for our Via.
        via_branch: String,
    },
    /// A response for a server transaction.
    Respond {
        /// The transaction.
        tx: ServerTxId,
        /// The response.
        message: Message,
    },
    /// A client transaction to be cancelled.
    Cancel {
        /// The transaction.
        tx: ClientTxId,
        /// Value of Reason (RFC 3326).
        reason: Option<Box<str>>,
    },
    /// A request to be sent outside of any transaction: an ACK for a 2xx.
    ForwardStateless {
        /// The request without our Via.
        message: Message,
        /// The next hop.
        target: Target,
        /// The branch parameter for our Via.
        via_branch: String,
    },
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken.
    pub requests: u64,
    /// Copies sent.
    pub forwarded: u64,
    /// Requests refused before anybody was asked, loops among them.
    pub refused: u64,
    /// Loops.
    pub loops: u64,
    /// Requests refused because a stranger wanted them carried elsewhere.
    pub relay_denied: u64,
    /// Requests answered 503 because too many are on their way.
    pub overload: u64,
    /// ACKs that belong to no dialog of ours.
    pub acks_dropped: u64,
    /// Responses that nobody waits for.
    pub responses_dropped: u64,
    /// Targets beyond the limit.
    pub targets_dropped: u64,
    /// Requests other than INVITE that no target answered in time (RFC 4320).
    pub left_unanswered: u64,
}
