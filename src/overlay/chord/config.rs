//! What can be set.

use crate::identity::PublicKey;
use crate::overlay::IdSpace;
use std::time::Duration;

/// Settings of a [`Chord`](super::Chord). Every peer of an overlay needs the same `space`, `successor_replicas` and
/// `scattered`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Space of identifiers.
    pub space: IdSpace,
    /// `s`: successors known, max(8, log2 of the ring's expected size).
    pub successors: usize,
    /// Successors of the responsible peer that hold a replica; with it and the scattered one r = 4.
    pub successor_replicas: usize,
    /// Whether replica 1 is kept at [`IdSpace::replica_position`].
    pub scattered: bool,
    /// Peers remembered beyond the tables because they answered lately. 0: no next hop that the paper would not take; for
    /// counting hops, not for links that cost something to make.
    pub cache: usize,
    /// Members known of besides the tables, so that the responsible peer is asked at once; in a larger ring no such list is
    /// kept. 0: never.
    pub members: usize,
    /// From one comparison of the member list with the successor's to the next, in a ring at rest.
    pub compare: Duration,
    /// Fingers of base 2^this (1 to 4). 1 is plain Chord.
    pub finger_width: u8,
    /// Of next hops that are nearly as good the one with the shorter round trip is taken.
    pub locality: bool,
    /// Popular resources remembered of answers passed on. 0: none.
    pub cached_records: usize,
    /// How long such an answer is remembered: the longest that a changed one stays hidden from who does not ask to be sure.
    pub cached_for: Duration,
    /// A next hop is given up after max(3 smoothed round trips, this).
    pub rpc_floor: Duration,
    /// The same for a peer never heard from, whose link must be made first.
    pub rpc_first: Duration,
    /// The longest that one request is waited for.
    pub rpc_ceiling: Duration,
    /// How long a put, get or find may take.
    pub op_deadline: Duration,
    /// How long a join may take.
    pub join_deadline: Duration,
    /// How long a leave waits for its hand-over.
    pub leave_deadline: Duration,
    /// Stabilisation after a change; doubles with each round that changes nothing.
    pub stabilise_min: Duration,
    /// Stabilisation in a ring at rest; more often where peers come and go ([RFC 7363](https://www.rfc-editor.org/rfc/rfc7363)).
    pub stabilise_max: Duration,
    /// A peer of the tables not heard from for this long is asked for a sign of life.
    pub heartbeat: Duration,
    /// From one round over all fingers to the next.
    pub fingers: Duration,
    /// From one look over the records held to the next: expiry, replicas, what lies in the wrong place.
    pub maintain: Duration,
    /// How often the responsible peer places the scattered replica again.
    pub scatter: Duration,
    /// How long others may remember this peer unheard, in seconds (`expires`).
    pub expires: u32,
    /// Hops of a recursive lookup (`Max-Forwards`).
    pub max_hops: u8,
    /// Entries of one resource.
    pub max_resource_entries: usize,
    /// Bytes of one resource's entries: an answer has to fit a message.
    pub max_resource_bytes: usize,
    /// Entries altogether.
    pub max_entries: usize,
    /// Entries signed by one device.
    pub max_signer_entries: usize,
    /// This node's own device: what it writes itself counts among all and by no other bound of these three.
    pub own: Option<PublicKey>,
    /// Entries written from one source: an IPv4 address or an IPv6 /64.
    pub max_source_entries: usize,
    /// Bytes of chunks altogether.
    pub max_chunk_bytes: u64,
    /// The same where nothing is kept over a restart, and all of it is in memory.
    pub max_chunk_memory: u64,
    /// Bytes of chunks that one device has held here.
    pub max_signer_chunk_bytes: u64,
    /// The same of one source.
    pub max_source_chunk_bytes: u64,
    /// How long an acknowledgement waits for the disk: less than any writer waits for an answer.
    pub flush_wait: Duration,
    /// Puts, gets and finds at once.
    pub max_ops: usize,
    /// Requests of others that we pass on, in flight.
    pub max_relays: usize,
}

impl Config {
    /// Chord as in the paper: fingers of base 2, no member list, no record remembered on the way, next hops whatever their round
    /// trip. Peers that answered lately keep their links ([`Config::cache`]): without any, a link is closed while its
    /// peer is still being talked to.
    pub fn plain() -> Config {
        Config { members: 0, finger_width: 1, locality: false, cached_records: 0, ..Config::default() }
    }

    /// How many distinct holders make a read or a write: two, or one where only one is kept.
    pub fn quorum(&self) -> usize {
        (1 + self.successor_replicas + usize::from(self.scattered)).min(2)
    }
}

impl Config {
    /// Where an enroller answers for who takes part: one device may hold the accounts of ten thousand phones, each at two places.
    #[must_use]
    pub fn of_office(self) -> Config {
        Config { max_signer_entries: 24_000, max_source_entries: 48_000, ..self }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            space: IdSpace::SHA1,
            successors: 8,
            successor_replicas: 2,
            scattered: true,
            cache: 16,
            members: 256,
            compare: Duration::from_secs(120),
            finger_width: 3,
            locality: true,
            cached_records: 64,
            cached_for: Duration::from_secs(3),
            rpc_floor: Duration::from_millis(250),
            rpc_first: Duration::from_millis(500),
            rpc_ceiling: Duration::from_secs(2),
            op_deadline: Duration::from_secs(5),
            join_deadline: Duration::from_secs(6),
            leave_deadline: Duration::from_secs(2),
            stabilise_min: Duration::from_millis(250),
            stabilise_max: Duration::from_secs(24),
            heartbeat: Duration::from_secs(180),
            fingers: Duration::from_secs(60),
            maintain: Duration::from_secs(10),
            scatter: Duration::from_secs(300),
            expires: 600,
            max_hops: 24,
            max_resource_entries: 64,
            max_resource_bytes: 48 * 1024,
            max_entries: 65_536,
            max_signer_entries: 4096,
            own: None,
            max_source_entries: 4096,
            max_chunk_bytes: 512 * 1024 * 1024,
            max_chunk_memory: 64 * 1024 * 1024,
            max_signer_chunk_bytes: 64 * 1024 * 1024,
            max_source_chunk_bytes: 128 * 1024 * 1024,
            flush_wait: Duration::from_millis(150),
            max_ops: 1024,
            max_relays: 512,
        }
    }
}
