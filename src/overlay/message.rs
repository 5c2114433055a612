//! What peers say to each other, before it becomes SIP.

use super::tier::{Answer, Ask};
use super::{LeaseAnswer, Vote};
use crate::core::{Id, UnixTime};
use crate::identity::{ChunkHash, SignedEntry, TouchOf};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A peer: its place on the ring and where it listens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerRef {
    /// Peer-ID.
    pub id: Id,
    /// Address of its overlay socket.
    pub addr: SocketAddr,
}

impl fmt::Debug for PeerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.id, self.addr)
    }
}

/// What a peer says about its neighbours (the `DHT-Link` header fields of a message). Only peers that the sender
/// has reached itself, nearest first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Links {
    /// P1, P2, ...
    pub predecessors: Vec<PeerRef>,
    /// S1, S2, ...
    pub successors: Vec<PeerRef>,
    /// F*i*: the exponent and the peer that is first in the interval beginning 2^exponent away.
    pub fingers: Vec<(u8, PeerRef)>,
}

impl Links {
    /// Every peer named, in the order of the fields.
    pub fn peers(&self) -> impl Iterator<Item = &PeerRef> {
        self.predecessors.iter().chain(&self.successors).chain(self.fingers.iter().map(|(_, p)| p))
    }
}

/// What is said of a member of the ring, by whoever says it: a hint until the peer itself has answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// Who.
    pub peer: PeerRef,
    /// Of two things said of one peer that of the higher version stands; of one version, that it has gone.
    pub version: u32,
    /// It has left or died.
    pub gone: bool,
}

/// What a peer that is not responsible shall do with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// Name a closer peer (302); the asker goes on itself.
    Iterative,
    /// Pass it on over a kept link.
    Recursive {
        /// How many peers may still handle it after this one (`Max-Forwards`).
        hops: u8,
        /// The peers that handled it so far, the asker first.
        path: Vec<PeerRef>,
    },
    /// Answer from what you hold, responsible or not: how replicas are asked and written.
    Here,
}

/// A request between peers.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Peer registration: "I am here; if you are responsible for my place, admit me". A join and Chord's `notify`
    /// are the same message (draft-zangrilli-p2psip-dsip-dhtchord-00 section 6.6.2).
    Register {
        /// How long the sender may be kept without being heard from, in seconds; never 0.
        expires: u32,
    },
    /// Graceful leave, with the links that the receiver shall use instead.
    Leave {
        /// The leaver's neighbours.
        links: Links,
    },
    /// Peer query: who is responsible for `target`? Asking a peer for its own identifier is the stabilisation
    /// query and the heartbeat.
    Query {
        /// The identifier looked for.
        target: Id,
        /// How it travels.
        route: Route,
    },
    /// Resource query.
    Fetch {
        /// Resource-ID.
        key: Id,
        /// 0, or the number of the scattered replica: it is routed to [`super::IdSpace::replica_position`].
        replica: u8,
        /// The canonical address of record, when the asker knows it; nothing but a courtesy.
        aor: Option<Arc<str>>,
        /// How it travels.
        route: Route,
    },
    /// Resource registration, also a third party's (hand-over, re-replication, repair).
    Store {
        /// Resource-ID, recomputed from the entries by every holder.
        key: Id,
        /// As in `Fetch`.
        replica: u8,
        /// One or more entries of this resource.
        entries: Vec<SignedEntry>,
        /// How it travels; never recursive.
        route: Route,
    },
    /// Between an ordinary node and a supernode.
    Tier(Ask),
    /// News of members, and the comparison of member lists.
    Members {
        /// The end of the stretch of the circle, from the receiver on, to which it passes the news on; `None`: to nobody.
        until: Option<Id>,
        /// The digest of the sender's list: the receiver answers with its own list where it has another one.
        digest: Option<u64>,
        /// At most [`MAX_NEWS`].
        news: Vec<Member>,
    },
    /// An entry that the receiver holds goes on: its renewal alone, in place of the entry.
    Touch {
        /// Resource-ID.
        key: Id,
        /// As in `Fetch`.
        replica: u8,
        /// The canonical address of record, when the writer knows it.
        aor: Option<Arc<str>>,
        /// Which entry, and its renewal.
        touch: Box<TouchOf>,
        /// How it travels; never recursive.
        route: Route,
    },
    /// A device asks for a lease; or the responsible peer asks those after it to agree.
    Lease {
        /// Resource-ID of the lease's name.
        key: Id,
        /// The device's request.
        entry: Box<SignedEntry>,
        /// The responsible peer's decision.
        vote: Option<Vote>,
        /// How it travels; never recursive.
        route: Route,
    },
    /// A store with the chunk that the entry is about.
    Give {
        /// Resource-ID, recomputed from the entry by every holder.
        key: Id,
        /// As in `Fetch`.
        replica: u8,
        /// Who wants it held.
        entry: Box<SignedEntry>,
        /// The sealed chunk.
        bytes: Bytes,
        /// How it travels; never recursive.
        route: Route,
    },
    /// Asks for a chunk that the receiver holds.
    Take {
        /// Resource-ID.
        key: Id,
        /// Which.
        hash: ChunkHash,
    },
    /// Does the receiver hold the same as the sender in these ranges of the circle? Between neighbours only.
    Compare {
        /// Replicas with a number above 0 count too, each where it lies.
        scattered: bool,
        /// The sender's clock.
        unix: UnixTime,
        /// At most [`Range::MOST`].
        ranges: Vec<Range>,
    },
}

/// What somebody holds in the interval (`from`, `to`] of the circle; all of the circle when both are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The end that does not belong to it.
    pub from: Id,
    /// The end that does.
    pub to: Id,
    /// How many entries.
    pub entries: u32,
    /// The first 16 bytes of the BLAKE3 over what each of them says, in the order of the circle.
    pub digest: [u8; 16],
}

impl Range {
    /// Most in one message.
    pub const MOST: usize = 16;
}

/// One entry, in short: enough to see who holds the later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Brief {
    /// Resource-ID.
    pub key: Id,
    /// 0, or the number of the scattered replica.
    pub replica: u8,
    /// The first 8 bytes of the BLAKE3 of the dictionary key.
    pub entry: u64,
    /// Sequence number.
    pub sequence: u64,
    /// When it ends.
    pub expires: UnixTime,
}

/// What is held in a range that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Much: the ranges that it consists of, at most [`Range::MOST`].
    Ranges(Vec<Range>),
    /// Little: every entry.
    Entries {
        /// The range's ends, as asked.
        from: Id,
        /// The range's ends, as asked.
        to: Id,
        /// At most [`Part::MOST`].
        entries: Vec<Brief>,
    },
}

impl Part {
    /// Most entries named for one range: all those of one resource's two slots at least.
    pub const MOST: usize = 128;
}

/// Members in one message, at most.
pub const MAX_NEWS: usize = 600;

/// The kind of a [`Request`], which a response is read by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RequestKind {
    /// [`Request::Register`].
    Register,
    /// [`Request::Leave`].
    Leave,
    /// [`Request::Query`].
    Query,
    /// [`Request::Fetch`].
    Fetch,
    /// [`Request::Store`].
    Store,
    /// [`Request::Tier`].
    Tier,
    /// [`Request::Members`].
    Members,
    /// [`Request::Touch`].
    Touch,
    /// [`Request::Compare`].
    Compare,
    /// [`Request::Lease`].
    Lease,
    /// [`Request::Give`].
    Give,
    /// [`Request::Take`].
    Take,
}

impl Request {
    /// Its kind.
    pub fn kind(&self) -> RequestKind {
        match self {
            Request::Register { .. } => RequestKind::Register,
            Request::Leave { .. } => RequestKind::Leave,
            Request::Query { .. } => RequestKind::Query,
            Request::Fetch { .. } => RequestKind::Fetch,
            Request::Store { .. } => RequestKind::Store,
            Request::Tier(_) => RequestKind::Tier,
            Request::Members { .. } => RequestKind::Members,
            Request::Touch { .. } => RequestKind::Touch,
            Request::Compare { .. } => RequestKind::Compare,
            Request::Lease { .. } => RequestKind::Lease,
            Request::Give { .. } => RequestKind::Give,
            Request::Take { .. } => RequestKind::Take,
        }
    }
}

/// An answer between peers.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// 200 to a peer registration: the sender is the registrant's successor, as far as it knows.
    Admitted {
        /// Neighbours of the admitting peer before it admitted.
        links: Links,
    },
    /// 200 to a leave.
    Bye,
    /// 302: ask this peer, which is closer.
    Redirect {
        /// The closer peer.
        closer: PeerRef,
        /// Neighbours of the redirecting peer.
        links: Links,
    },
    /// 200 (the target is the answering peer) or 404 (it is responsible for the target) to a peer query.
    Responsible {
        /// The target is this very peer.
        exact: bool,
        /// Its neighbours.
        links: Links,
        /// After a recursive request: the peers that handled it, the asker first, the responsible peer last.
        path: Vec<PeerRef>,
    },
    /// 200 with the entries, or 404 when there are none.
    Entries {
        /// What the peer holds, unexpired.
        entries: Vec<SignedEntry>,
        /// True when the answering peer is responsible, false when it answers as a replica.
        responsible: bool,
        /// Neighbours of the answering peer.
        links: Links,
        /// As in `Responsible`.
        path: Vec<PeerRef>,
    },
    /// 200 to a resource query that travels: what the answering peer passed on a few seconds ago, for who does not have
    /// to be sure.
    Cached {
        /// Verified by the answering peer, unexpired.
        entries: Vec<SignedEntry>,
        /// As in `Responsible`.
        path: Vec<PeerRef>,
    },
    /// 200 to news of members: the list of the answering peer where it is another than the asker's, else nothing.
    Members {
        /// At most [`MAX_NEWS`].
        news: Vec<Member>,
    },
    /// 200 to a comparison: the ranges that differ; nothing where all are the same.
    Compared {
        /// The receiver's clock.
        unix: UnixTime,
        /// One for each range that differs.
        parts: Vec<Part>,
    },
    /// 200 to a store or touch: the peer holds every entry sent, or a later one that the writer knows.
    Stored {
        /// Neighbours of the holder.
        links: Links,
    },
    /// 412 to a store or touch: a later entry, or another one of the same sequence number, is held; here it is.
    Refused {
        /// The entries held instead.
        current: Vec<SignedEntry>,
    },
    /// 200 or 412 to a request for a lease.
    Lease(LeaseAnswer),
    /// 200 to the question for a chunk.
    Chunk {
        /// What is held under that name.
        bytes: Bytes,
    },
    /// To a request between an ordinary node and a supernode.
    Tier(Answer),
    /// Everything else that went wrong.
    Failed(Failure),
}

/// Why a request was not done. Each is one SIP status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// 400: the request makes no sense.
    #[error("the request makes no sense")]
    Bad,
    /// 403: an entry's signature, key or lifetime does not hold.
    #[error("an entry does not verify")]
    Invalid,
    /// 404 to a touch: the entry is not held here.
    #[error("the entry is not held")]
    NotHeld,
    /// 482: the request came back to a peer that it had passed.
    #[error("the request ran in a loop")]
    Loop,
    /// 483: no hops left.
    #[error("no hops left")]
    TooManyHops,
    /// 488: another overlay, hash or DHT.
    #[error("another overlay, hash or DHT algorithm")]
    OtherOverlay,
    /// 493: a peer-ID or resource-ID is not what it should be.
    #[error("an identifier does not belong to who claims it")]
    BadId,
    /// 503: full, or more in flight than the peer takes.
    #[error("the peer is full or busy")]
    Busy,
    /// 504: the peer passed the request on and got no answer.
    #[error("no answer from further on")]
    NoAnswer,
    /// 480: the peer is not in the ring (yet, or any more).
    #[error("the peer is not in the ring")]
    NotInRing,
    /// Any other status.
    #[error("status {0}")]
    Status(u16),
}

impl Failure {
    /// True when asking again later, or another peer, will not help.
    pub fn is_final(self) -> bool {
        matches!(self, Failure::OtherOverlay | Failure::BadId | Failure::Invalid | Failure::Status(420))
    }

    /// Its SIP status code.
    pub fn status(self) -> u16 {
        match self {
            Failure::Bad => 400,
            Failure::Invalid => 403,
            Failure::NotHeld => 404,
            Failure::Loop => 482,
            Failure::TooManyHops => 483,
            Failure::OtherOverlay => 488,
            Failure::BadId => 493,
            Failure::Busy => 503,
            Failure::NoAnswer => 504,
            Failure::NotInRing => 480,
            Failure::Status(n) => n,
        }
    }

    /// From a SIP status code of 400 and above.
    pub fn from_status(status: u16) -> Failure {
        match status {
            400 => Failure::Bad,
            403 => Failure::Invalid,
            480 => Failure::NotInRing,
            482 => Failure::Loop,
            483 => Failure::TooManyHops,
            488 => Failure::OtherOverlay,
            493 => Failure::BadId,
            503 => Failure::Busy,
            504 => Failure::NoAnswer,
            n => Failure::Status(n),
        }
    }
}
