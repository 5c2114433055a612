//! The overlay: who is responsible for a resource, and its records.
//!
//! [`Overlay`] is what `node` drives; [`chord`] implements it and has never heard of SIP; [`carry`] turns what
//! peers say to each other into SIP `REGISTER` requests and back, in the style of draft-bryan-p2psip-dsip-00 and
//! draft-zangrilli-p2psip-dsip-dhtchord-00. Another DHT is another folder here that passes the same conformance
//! tests (`sip-tests/overlay`).
//!
//! [`tier`] puts two tiers around it: supernodes are the ring, ordinary nodes hang on two of them.
//!
//! Every machine is sans-IO: [`Overlay::handle`] in, [`Overlay::poll_output`] until `None`, then wait until
//! [`Overlay::poll_timeout`].
//!
//! Absent: quotas per network prefix, lookups over more than one path at once in rings too large for a
//! member list.

use crate::core::{Id, Instant, UnixTime};
use crate::identity::{ChunkHash, EntryKind, Revoked, SignedEntry, Verifier};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub mod carry;
pub mod chord;
mod kept;
mod lease;
mod message;
mod ring;
pub mod tier;

pub use kept::{Batch, Change, Stored};
pub use lease::{Lease, LeaseAnswer, LeaseError, Vote};
pub use message::{
    Brief, Failure, Links, MAX_NEWS, Member, Part, PeerRef, Range, Request, RequestKind, Response, Route,
};
pub use ring::IdSpace;

/// Names a request that came in, until [`Output::Reply`] answers it. Chosen by the driver, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Names a request that went out. Chosen by the overlay, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RpcId(pub u64);

/// Names a put or get. Chosen by the driver; not to be reused while it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// A DHT as `node` sees it.
pub trait Overlay {
    /// Takes one input.
    fn handle(&mut self, now: Instant, input: Input);
    /// The next thing to be done, until `None`.
    fn poll_output(&mut self) -> Option<Output>;
    /// When [`Overlay::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Fires what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// This peer.
    fn me(&self) -> PeerRef;
    /// Its tables, for `status`.
    fn status(&self) -> Status;
    /// What was refused, dropped and retried since the start.
    fn counters(&self) -> &Counters;
    /// The wall-clock time that it goes by: what it writes is issued by it. The machine's own, unless its neighbours agree on
    /// another.
    fn unix(&self, now: Instant) -> UnixTime;
}

/// What goes into an overlay.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request arrived.
    Request {
        /// Who sent it, proven by the link (or, in a lab without links' proofs, checked by the id function);
        /// `None` for a stranger, who may ask nothing that changes a table.
        from: Option<PeerRef>,
        /// For the reply.
        token: Token,
        /// The request.
        request: Request,
    },
    /// The answer to one of our requests.
    Response {
        /// Which request.
        rpc: RpcId,
        /// Who answered.
        from: PeerRef,
        /// The answer.
        response: Response,
    },
    /// One of our requests cannot be answered: connection refused or lost, transaction timed out.
    RpcFailed {
        /// Which request.
        rpc: RpcId,
    },
    /// A link that was up went down without our doing: the peer may have died and is asked at once.
    LinkDown {
        /// The other end.
        peer: Id,
    },
    /// The wall clock, at the start and whenever it jumps: lifetimes of records are wall-clock times.
    Clock {
        /// The wall-clock time now.
        unix: UnixTime,
    },
    /// What was kept over the restart, before anything else; from here on what changes is said by [`Output::Keep`]. An
    /// overlay that is never given this keeps nothing.
    Restore(Stored),
    /// Every batch up to this one is on the disk, or the disk does not take it and it is tried again for as long as it
    /// takes: whoever waits for it waits no longer.
    Flushed {
        /// [`Batch::number`].
        upto: u64,
    },
    /// The outcome of [`Output::Load`].
    Loaded {
        /// Which chunk.
        hash: ChunkHash,
        /// What lies there, whole or not; none where nothing does, or it cannot be read.
        bytes: Option<Bytes>,
    },
    /// The outcome of [`Output::Dial`]: whether that very peer answered at that address.
    Dialled {
        /// Which.
        rpc: RpcId,
        /// It did.
        reached: bool,
    },
    /// The answer to [`Output::Ping`], or any other sign of life on a kept link.
    Pong {
        /// Whose.
        peer: Id,
    },
    /// What this machine can bear, at the start and from time to time.
    Facts(tier::Facts),
    /// These keys count no more: entries that lean on them are dropped, and refused from now on.
    Revoked {
        /// All of them, those told before included.
        revoked: Arc<Revoked>,
    },
    /// This peer is reached at another address from now on, under its own peer-ID.
    Moved {
        /// Its overlay socket.
        addr: SocketAddr,
    },
    /// Something that the user of the overlay wants.
    Command(Command),
}

/// What the user of an overlay can ask for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Be the first peer.
    Create,
    /// Join by way of a peer whose address is known.
    Join {
        /// Its overlay socket.
        bootstrap: SocketAddr,
    },
    /// A peer of this overlay is said to be there. Where it is in another ring, the two become one.
    Meet {
        /// What is said; the link proves it or not.
        peer: PeerRef,
    },
    /// Hand everything over and leave.
    Leave,
    /// Write an entry. One that is renewed ([`SignedEntry::touch`]) goes to those who hold it as its renewal alone.
    Put {
        /// For the answer.
        op: OpId,
        /// Resource-ID.
        key: Id,
        /// The entry.
        entry: SignedEntry,
    },
    /// Read a resource.
    Get {
        /// For the answer.
        op: OpId,
        /// Resource-ID.
        key: Id,
        /// The canonical address of record, put into the messages where it is known.
        aor: Option<Arc<str>>,
        /// How to look.
        mode: Mode,
    },
    /// Ask for a lease, for longer than before, or give it back, as the entry (kind 17) says.
    Lease {
        /// For the answer.
        op: OpId,
        /// Resource-ID of its name.
        key: Id,
        /// Signed by the device that is to have it.
        entry: SignedEntry,
    },
    /// Write a chunk of a blob: as [`Command::Put`], with what the entry (kind 19) asks to be held.
    Give {
        /// For the answer: [`Output::PutDone`].
        op: OpId,
        /// Resource-ID.
        key: Id,
        /// Who wants it held, for how long.
        entry: SignedEntry,
        /// The sealed chunk.
        bytes: Bytes,
    },
    /// Read a chunk of a blob.
    Take {
        /// For the answer.
        op: OpId,
        /// Resource-ID.
        key: Id,
        /// What it has to be.
        hash: ChunkHash,
    },
    /// Find the peer responsible for an identifier.
    Find {
        /// For the answer.
        op: OpId,
        /// The identifier.
        target: Id,
        /// How to look.
        mode: Mode,
    },
}

/// How a lookup travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// Straight to the responsible peer where the member list names it; else recursive, and iterative over another path where
    /// the answer is missing or doubtful. An answer may be a few seconds old: see [`Mode::Sure`].
    Auto,
    /// As `Auto`, and never from a cache on the way.
    Sure,
    /// Passed on from peer to peer, and nothing else.
    Recursive,
    /// The asker asks each peer itself.
    Iterative,
}

/// What comes out of an overlay.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send a request and report [`Input::Response`] or [`Input::RpcFailed`]. The overlay keeps a deadline of its
    /// own; what is reported after that is ignored.
    Send {
        /// Names the request.
        rpc: RpcId,
        /// The peer-ID that the link must prove; `None` for a bootstrap address.
        peer: Option<Id>,
        /// Where to.
        addr: SocketAddr,
        /// The request.
        request: Request,
    },
    /// Answer a request.
    Reply {
        /// Which request.
        token: Token,
        /// The answer.
        response: Response,
    },
    /// In the ring.
    Joined,
    /// Not in the ring; the bootstrap may be tried again.
    JoinFailed {
        /// Why.
        why: JoinError,
    },
    /// A put has ended.
    PutDone {
        /// Which.
        op: OpId,
        /// Distinct holders that acknowledged.
        acks: u8,
        /// Written, or why not.
        result: Result<(), PutError>,
        /// How the holders were found.
        trace: Trace,
    },
    /// A get has ended.
    GetDone {
        /// Which.
        op: OpId,
        /// The verified, unexpired entries, the latest of each dictionary key; tombstones left out. An error when
        /// nobody could be asked; empty when holders were asked and hold nothing.
        result: Result<Vec<SignedEntry>, LookupError>,
        /// How they were found.
        trace: Trace,
    },
    /// A lease was granted or given back, or why not.
    LeaseDone {
        /// Which.
        op: OpId,
        /// The lease.
        result: Result<Lease, LeaseError>,
        /// How the responsible peer was found.
        trace: Trace,
    },
    /// A chunk was read.
    TakeDone {
        /// Which.
        op: OpId,
        /// The very bytes of that hash; an error when no holder that could be asked has them.
        result: Result<Bytes, LookupError>,
        /// Whom it was asked of.
        trace: Trace,
    },
    /// Read a chunk that was kept ([`Change::Chunk`]) and report [`Input::Loaded`].
    Load {
        /// Which.
        hash: ChunkHash,
    },
    /// What was kept of a chunk is not what was written: it is fetched from another holder.
    Damaged {
        /// Which.
        hash: ChunkHash,
    },
    /// A find has ended.
    FindDone {
        /// Which.
        op: OpId,
        /// The responsible peer.
        result: Result<PeerRef, LookupError>,
        /// How it was found.
        trace: Trace,
    },
    /// Connect to this address anew, whatever links there are, see who proves to be there, close it again, and report
    /// [`Input::Dialled`].
    Dial {
        /// Names it.
        rpc: RpcId,
        /// Who has to be there, and where.
        peer: PeerRef,
    },
    /// Ask for a sign of life on the open link to this peer (RFC 5626 section 3.5.1) and report [`Input::Pong`].
    Ping {
        /// Whom.
        peer: Id,
    },
    /// This node is reached through these supernodes from now on, the primary first; through itself when there are none.
    Hanging {
        /// Which.
        via: Vec<PeerRef>,
    },
    /// Out of the ring; everything that had to be said has been said, or its time is over.
    Left,
    /// Predecessor or successors changed.
    NeighboursChanged,
    /// So many peers have failed in a short time that all holders of a record may be among them: what is to be found is
    /// to be written again, not by everybody in the same moment.
    Churn,
    /// The peer is in no table any more: its link may be closed.
    Drop {
        /// Which peer.
        peer: PeerRef,
    },
    /// Keep this over a restart, and say when it is done: [`Input::Flushed`].
    Keep(Batch),
    /// Others say that this very peer is at another address: an old story, or a second one with its key. Hearsay.
    Twin {
        /// Where it is said to be.
        addr: SocketAddr,
    },
    /// This machine's clock is ahead of its neighbours' by so many seconds (negative: behind), which agree: theirs is gone by.
    /// `None`: it is right again.
    ClockOff {
        /// Seconds.
        seconds: Option<i64>,
    },
    /// Two different entries of ours or another's under one sequence number: a cloned or hostile device.
    Conflict {
        /// Resource-ID.
        key: Id,
        /// Both, as proof.
        entries: Box<[SignedEntry; 2]>,
    },
}

/// Why a join failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinError {
    /// The bootstrap does not answer.
    #[error("the bootstrap peer does not answer")]
    NoAnswer,
    /// It refuses.
    #[error("the overlay refuses this peer: {0}")]
    Refused(Failure),
    /// The peers between it and our place do not lead there.
    #[error("no way from the bootstrap peer to the place on the ring")]
    NoWay,
    /// The peer-ID is in use by another peer.
    #[error("another peer has this peer-ID")]
    IdTaken,
}

/// Why a put was not done.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PutError {
    /// A holder has a later entry; the writer jumps past its sequence number.
    #[error("a later entry is held")]
    Stale(Box<SignedEntry>),
    /// A holder has another entry of the same sequence number.
    #[error("another entry with the same sequence number is held")]
    Conflict(Box<SignedEntry>),
    /// Our own check of the entry failed: it never left this peer.
    #[error("the entry does not verify")]
    Invalid,
    /// Fewer holders acknowledged than the ring can give.
    #[error("too few holders acknowledged")]
    TooFewHolders,
    /// The responsible peer could not be found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// Why a lookup ended without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookupError {
    /// This peer is in no ring.
    #[error("this peer is in no ring")]
    NotInRing,
    /// Nobody who could be asked answered before the deadline.
    #[error("no answer before the deadline")]
    Deadline,
    /// More lookups run than this peer allows itself.
    #[error("too many lookups at once")]
    Busy,
}

/// What a lookup did.
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// Peers that the request passed on its way to the answer, without the asker: 0 when the asker itself is
    /// responsible.
    pub hops: u8,
    /// Every peer asked, in order, those that did not answer included.
    pub asked: Vec<PeerRef>,
    /// From the command to the answer.
    pub took: Duration,
    /// Requests that failed or found their deadline, and were sent to another peer.
    pub retries: u8,
    /// How the answer was found.
    pub mode: Mode,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { hops: 0, asked: Vec::new(), took: Duration::ZERO, retries: 0, mode: Mode::Iterative }
    }
}

/// Tables of a peer.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Status {
    /// In the ring.
    pub joined: bool,
    /// The peer before this one.
    pub predecessor: Option<PeerRef>,
    /// The peers after this one, nearest first; empty when it is alone.
    pub successors: Vec<PeerRef>,
    /// Exponent and peer, lowest exponent of each run of equal fingers, beyond the first successor.
    pub fingers: Vec<(u8, PeerRef)>,
    /// Peers of the ring that are known of besides this one; 0 where no list is kept.
    pub members: usize,
    /// Resources held.
    pub resources: usize,
    /// Entries held.
    pub entries: usize,
    /// Bytes of chunks held.
    pub chunk_bytes: u64,
    /// How many seconds this machine's clock is ahead of its neighbours' (negative: behind), when it is so wrong that theirs
    /// is gone by.
    pub clock_off: Option<i64>,
    /// Supernode or ordinary, and what hangs on what; none where the overlay knows one kind of peer only.
    pub tier: Option<tier::Standing>,
}

/// What was refused, dropped or tried again. Each only grows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests of ours that failed.
    pub rpc_failed: u64,
    /// Requests of ours that found their deadline.
    pub rpc_timeout: u64,
    /// Peers given up.
    pub peers_failed: u64,
    /// Entries whose signature, key or lifetime did not hold.
    pub invalid: u64,
    /// Entries older than the one held.
    pub stale: u64,
    /// Two entries under one sequence number.
    pub conflicts: u64,
    /// Entries refused because a bound was reached.
    pub full: u64,
    /// Writes acknowledged before they were on the disk, because it was slow or took nothing.
    pub unflushed: u64,
    /// Entries that reached the end of their lifetime.
    pub expired: u64,
    /// Entries dropped since their signer was revoked.
    pub revoked: u64,
    /// Holders brought up to date by a reader.
    pub repaired: u64,
    /// Entries sent to another holder after a comparison, and fetched from one.
    pub exchanged: u64,
    /// Requests refused because too many were in flight.
    pub busy: u64,
    /// Requests refused for the sender's sake: strangers, false identifiers.
    pub refused: u64,
    /// Lookups that ended without an answer.
    pub lookups_failed: u64,
    /// Claims to be responsible that what is known of the ring speaks against.
    pub implausible: u64,
    /// Reads answered from the cache, and requests of others.
    pub cached: u64,
    /// Leases granted here.
    pub leases: u64,
    /// Leases refused here because another device has them.
    pub leases_held: u64,
    /// Leases not granted here because it could not be known who has them.
    pub leases_unsure: u64,
    /// Chunks that were not what their name says, from holders or from the disk.
    pub damaged: u64,
    /// Chunks fetched from other holders because they belong here.
    pub fetched: u64,
    /// Rings met that were not this peer's.
    pub merged: u64,
}

/// Checks an entry before it is kept or believed. [`Verifier`] is the one that runs; a test injects another
/// together with its id function.
pub trait Verify: Send {
    /// True when the entry's signature holds at `now` and it belongs to the resource `key`.
    fn verify(&mut self, entry: &SignedEntry, key: &Id, now: UnixTime) -> bool;

    /// Refuses what leans on these keys from now on.
    fn revoke(&mut self, _revoked: Arc<Revoked>) {}

    /// True when what a verified entry leans on has been revoked since.
    fn is_revoked(&mut self, _entry: &SignedEntry, _now: UnixTime) -> bool {
        false
    }

    /// The same for an entry of which everything but its renewal is known to be good.
    fn verify_touch(&mut self, entry: &SignedEntry, key: &Id, now: UnixTime) -> bool {
        self.verify(entry, key, now)
    }
}

impl Verify for Verifier {
    fn revoke(&mut self, revoked: Arc<Revoked>) {
        Verifier::revoke(self, revoked);
    }

    fn is_revoked(&mut self, entry: &SignedEntry, now: UnixTime) -> bool {
        Verifier::is_revoked(self, entry, now)
    }

    fn verify(&mut self, entry: &SignedEntry, key: &Id, now: UnixTime) -> bool {
        entry.entry().kind != EntryKind::CALLER && self.verify_entry(entry, key, now).is_ok()
    }

    fn verify_touch(&mut self, entry: &SignedEntry, key: &Id, now: UnixTime) -> bool {
        Verifier::verify_touch(self, entry, key, now).is_ok()
    }
}
