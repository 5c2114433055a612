//! What an ordinary node and its supernodes say to each other, before it becomes SIP ([`super::super::carry`]).

use crate::core::{Id, UnixTime};
use crate::identity::{ChunkHash, SignedEntry};
use crate::overlay::{LeaseAnswer, Mode, PeerRef};
use bytes::Bytes;
use std::sync::Arc;

/// Which of its two supernodes one is to an ordinary node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rank {
    /// Calls come by it, and lookups go by it.
    Primary,
    /// The same when the primary does not answer.
    Backup,
}

/// A request between an ordinary node and a supernode, or between two supernodes about an ordinary node.
#[derive(Clone, PartialEq, Debug)]
pub enum Ask {
    /// "I hang on you." Again to renew it.
    Attach {
        /// As what; `None` only asks what an attachment would be answered.
        rank: Option<Rank>,
        /// For how long without renewal, in seconds.
        expires: u32,
        /// The other supernode that the node hangs on: whoever notices its death says so.
        other: Option<Id>,
        /// The node could be a supernode.
        able: bool,
    },
    /// "I do not hang on you any more."
    Detach,
    /// A get to be run for the asker.
    Get {
        /// Resource-ID.
        key: Id,
        /// The canonical address of record, where it is known.
        aor: Option<Arc<str>>,
        /// How to look.
        mode: Mode,
    },
    /// A put to be run for the asker.
    Put {
        /// Resource-ID.
        key: Id,
        /// The entry.
        entry: Box<SignedEntry>,
    },
    /// A find to be run for the asker.
    Find {
        /// The identifier.
        target: Id,
        /// How to look.
        mode: Mode,
    },
    /// A lease to be asked for.
    Lease {
        /// Resource-ID of its name.
        key: Id,
        /// Signed by the device that is to have it.
        entry: Box<SignedEntry>,
    },
    /// A chunk to be written.
    Give {
        /// Resource-ID.
        key: Id,
        /// Who wants it held.
        entry: Box<SignedEntry>,
        /// The sealed chunk.
        bytes: Bytes,
    },
    /// A chunk to be read.
    Take {
        /// Resource-ID.
        key: Id,
        /// Which.
        hash: ChunkHash,
    },
    /// "Can others reach me at the address that I tell?"
    DialBack,
    /// "Can you reach this peer, over a connection of its own?"
    Dial {
        /// Which, and where it says to be.
        peer: PeerRef,
    },
    /// A supernode is gone, or goes: the sender itself or another one.
    Gone {
        /// Which.
        peer: PeerRef,
    },
    /// "The ring needs you."
    Wanted {
        /// At once: it has fewer supernodes than replication needs.
        urgent: bool,
    },
}

/// What a supernode says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offer {
    /// Seconds granted; 0 where nothing was.
    pub expires: u32,
    /// Nodes attached.
    pub load: u16,
    /// Nodes that it takes.
    pub capacity: u16,
    /// Supernodes in the ring, as far as it can tell.
    pub ring: u32,
    /// The ring needs the asker as a supernode.
    pub wanted: bool,
    /// What time it is by the clock that the supernode goes by; 0 where it does not say.
    pub unix: UnixTime,
}

/// How an operation went that a supernode ran.
#[derive(Clone, PartialEq, Debug)]
pub struct Way {
    /// As [`Trace::hops`](crate::overlay::Trace::hops), seen from the supernode.
    pub hops: u8,
    /// Peers asked.
    pub asked: Vec<PeerRef>,
    /// As [`Trace::retries`](crate::overlay::Trace::retries).
    pub retries: u8,
    /// As [`Trace::mode`](crate::overlay::Trace::mode).
    pub mode: Mode,
}

/// What answers an [`Ask`].
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// To an attachment or the question for one.
    Attached {
        /// The supernode itself.
        offer: Offer,
        /// Other supernodes: those next to it on the ring first, which notice its death first.
        supernodes: Vec<PeerRef>,
    },
    /// To a get: what was found, maybe nothing.
    Found {
        /// Verified by the supernode; the asker verifies them again.
        entries: Vec<SignedEntry>,
        /// How.
        way: Way,
    },
    /// To a put. A later entry is [`Response::Refused`](crate::overlay::Response::Refused).
    Written {
        /// Distinct holders.
        acks: u8,
        /// How.
        way: Way,
    },
    /// To a lease.
    Lease(LeaseAnswer),
    /// To a take.
    Taken {
        /// The chunk; the asker compares it with its name.
        bytes: Bytes,
    },
    /// To a find.
    Responsible {
        /// The peer responsible.
        peer: PeerRef,
        /// How.
        way: Way,
    },
    /// To a dial-back or a dial.
    Reachable(bool),
    /// To everything else.
    Done,
}
