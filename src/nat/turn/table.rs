//! Where a packet goes: the decisions of [`Server`](super::Server), carried out packet by packet with hash lookups and without
//! allocating. A peer that is an allocation of the same relay is reached here, without a way through a socket.
//!
//! Left out: queues. A packet over a ceiling is dropped, as a full line would.

use super::bucket::Bucket;
use crate::core::Instant;
use crate::stun;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The way to a client: what stands for the 5-tuple of its allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// A UDP socket of the relay.
    Datagram {
        /// Which of the listening sockets.
        socket: u16,
        /// The address of this machine that the client writes to, where the system tells.
        local: Option<IpAddr>,
        /// The client.
        client: SocketAddr,
    },
    /// A stream, TCP or TLS.
    Stream {
        /// Names the connection; never used twice.
        connection: u64,
        /// The client.
        client: SocketAddr,
    },
}

impl Path {
    /// The client's address.
    pub fn client(&self) -> SocketAddr {
        match *self {
            Path::Datagram { client, .. } | Path::Stream { client, .. } => client,
        }
    }
}

/// Names an allocation; used again when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Names a socket towards peers; used again when it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Socket(pub u32);

/// What the server decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An allocation stands.
    Open {
        /// Its name.
        slot: Slot,
        /// Its client.
        path: Path,
        /// Its relayed addresses as peers see them, and their sockets.
        relayed: Vec<(SocketAddr, Socket)>,
    },
    /// Packets from and to an address pass.
    Permit {
        /// Of which allocation.
        slot: Slot,
        /// Which.
        ip: IpAddr,
        /// False: to allocations of this relay only.
        outside: bool,
    },
    /// They no longer do.
    Forbid {
        /// Of which allocation.
        slot: Slot,
        /// Which.
        ip: IpAddr,
    },
    /// A channel stands for a peer.
    Bind {
        /// Of which allocation.
        slot: Slot,
        /// The channel.
        number: u16,
        /// The peer.
        peer: SocketAddr,
    },
    /// It no longer does.
    Unbind {
        /// Of which allocation.
        slot: Slot,
        /// The channel.
        number: u16,
    },
    /// The allocation has ended.
    Close {
        /// Which.
        slot: Slot,
    },
}

/// Bits a second; zero: no ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceilings {
    /// Of all allocations together.
    pub total: u64,
    /// Of one.
    pub each: u64,
}

/// What stands before the data towards a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// ChannelData.
    Channel(u16),
    /// A Data indication from this peer.
    Indication(SocketAddr),
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// From a client without an allocation.
    NoAllocation,
    /// No permission for that peer, at one of the ends.
    NoPermission,
    /// A channel that is not bound.
    NoChannel,
    /// Neither STUN nor ChannelData.
    Nonsense,
    /// Over a ceiling.
    Ceiling,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// To a peer.
    Peer {
        /// From this socket.
        socket: Socket,
        /// To there.
        to: SocketAddr,
        /// All of it.
        data: &'a [u8],
    },
    /// To a client.
    Client {
        /// How.
        path: Path,
        /// What stands before it.
        head: Head,
        /// The packet.
        data: &'a [u8],
    },
    /// To the server: a STUN message that is not data.
    Control,
    /// Nowhere.
    Dropped(Drop),
}

/// What was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Packets that went on.
    pub packets: u64,
    /// Their bytes, without what stands before them.
    pub bytes: u64,
    /// Packets that were dropped: no permission, no channel, no allocation, nonsense.
    pub refused: u64,
    /// Packets that were dropped by a ceiling.
    pub over: u64,
}

struct Entry {
    path: Path,
    relayed: Vec<(SocketAddr, Socket)>,
    permissions: HashMap<IpAddr, bool>,
    peers: HashMap<u16, SocketAddr>,
    numbers: HashMap<SocketAddr, u16>,
    bucket: Bucket,
}

/// The table.
pub struct Table {
    entries: Vec<Option<Entry>>,
    by_path: HashMap<Path, Slot>,
    by_relayed: HashMap<SocketAddr, Slot>,
    by_socket: Vec<Option<(Slot, SocketAddr)>>,
    ceilings: Ceilings,
    total: Bucket,
    carried: Carried,
}

impl Table {
    /// Without allocations.
    pub fn new(now: Instant, ceilings: Ceilings) -> Table {
        Table {
            entries: Vec::new(),
            by_path: HashMap::new(),
            by_relayed: HashMap::new(),
            by_socket: Vec::new(),
            ceilings,
            total: Bucket::new(now, ceilings.total),
            carried: Carried::default(),
        }
    }

    /// Carries a decision out.
    pub fn apply(&mut self, now: Instant, change: Change) {
        match change {
            Change::Open { slot, path, relayed } => self.open(now, slot, path, relayed),
            Change::Permit { slot, ip, outside } => {
                if let Some(entry) = self.entry_mut(slot) {
                    entry.permissions.insert(ip, outside);
                }
            }
            Change::Forbid { slot, ip } => {
                if let Some(entry) = self.entry_mut(slot) {
                    entry.permissions.remove(&ip);
                }
            }
            Change::Bind { slot, number, peer } => {
                if let Some(entry) = self.entry_mut(slot) {
                    entry.peers.insert(number, peer);
                    entry.numbers.insert(peer, number);
                }
            }
            Change::Unbind { slot, number } => {
                if let Some(entry) = self.entry_mut(slot)
                    && let Some(peer) = entry.peers.remove(&number)
                {
                    entry.numbers.remove(&peer);
                }
            }
            Change::Close { slot } => self.close(slot),
        }
    }

    /// Something came from a client: a datagram, or one message out of its stream.
    pub fn from_client<'a>(&mut self, now: Instant, path: &Path, message: &'a [u8]) -> Way<'a> {
        let (number, target, data) = match message.first() {
            Some(0x40..=0x7F) => match stun::read_channel(message) {
                Some((number, data)) => (Some(number), None, data),
                None => return self.refuse(Drop::Nonsense),
            },
            Some(0..=3) => match stun::read_send(message) {
                Some((stun::Method::SEND, peer, data)) => (None, Some(canonical(peer)), data),
                _ if stun::header(message).is_some() => return Way::Control,
                _ => return self.refuse(Drop::Nonsense),
            },
            _ => return self.refuse(Drop::Nonsense),
        };
        let Some(slot) = self.by_path.get(path).copied() else { return self.refuse(Drop::NoAllocation) };
        let Some(entry) = self.entry(slot) else { return self.refuse(Drop::NoAllocation) };
        let target = target.or_else(|| number.and_then(|n| entry.peers.get(&n).copied()));
        let Some(peer) = target else { return self.refuse(Drop::NoChannel) };
        let Some(outside) = entry.permissions.get(&peer.ip()).copied() else { return self.refuse(Drop::NoPermission) };
        let Some((own, socket)) = entry.relayed.iter().find(|(a, _)| a.is_ipv4() == peer.is_ipv4()).copied() else {
            return self.refuse(Drop::NoPermission);
        };
        if let Some(other) = self.by_relayed.get(&peer).copied() {
            return self.towards_client(now, slot, other, own, data);
        }
        if !outside {
            return self.refuse(Drop::NoPermission);
        }
        if !self.pass(now, slot, None, data.len()) {
            return Way::Dropped(Drop::Ceiling);
        }
        Way::Peer { socket, to: peer, data }
    }

    /// Something came from a peer.
    pub fn from_peer<'a>(&mut self, now: Instant, socket: Socket, from: SocketAddr, data: &'a [u8]) -> Way<'a> {
        match self.by_socket.get(socket.0 as usize).copied().flatten() {
            Some((slot, _)) => self.towards_client(now, slot, slot, canonical(from), data),
            None => self.refuse(Drop::NoAllocation),
        }
    }

    /// What was carried so far.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// Packets that the network did not take count as over a ceiling.
    pub fn not_taken(&mut self, packets: u64) {
        self.carried.over += packets;
    }

    /// Streams, which are not carried here, took their part of the common ceiling: `bytes`.
    pub fn streamed(&mut self, now: Instant, bytes: u64) {
        self.total.charge(now, bytes * 8);
        self.carried.bytes += bytes;
    }

    /// From `from`, a peer of `to`; `by` is the allocation that pays beside it.
    fn towards_client<'a>(&mut self, now: Instant, by: Slot, to: Slot, from: SocketAddr, data: &'a [u8]) -> Way<'a> {
        let Some(entry) = self.entry(to) else { return self.refuse(Drop::NoAllocation) };
        if !entry.permissions.contains_key(&from.ip()) {
            return self.refuse(Drop::NoPermission);
        }
        let head = entry.numbers.get(&from).map_or(Head::Indication(from), |n| Head::Channel(*n));
        let path = entry.path;
        if !self.pass(now, by, Some(to), data.len()) {
            return Way::Dropped(Drop::Ceiling);
        }
        Way::Client { path, head, data }
    }

    fn pass(&mut self, now: Instant, slot: Slot, other: Option<Slot>, bytes: usize) -> bool {
        // What the wire carries beside the data: IP and UDP.
        let bits = (bytes as u64 + 28) * 8;
        let other = other.filter(|o| *o != slot);
        let fits = self.total.has(now, bits)
            && [Some(slot), other]
                .into_iter()
                .flatten()
                .all(|s| self.entry_mut(s).is_none_or(|e| e.bucket.has(now, bits)));
        if !fits {
            self.carried.over += 1;
            return false;
        }
        self.total.take(bits);
        for slot in [Some(slot), other].into_iter().flatten() {
            if let Some(entry) = self.entry_mut(slot) {
                entry.bucket.take(bits);
            }
        }
        self.carried.packets += 1;
        self.carried.bytes += bytes as u64;
        true
    }

    fn refuse(&mut self, why: Drop) -> Way<'static> {
        self.carried.refused += 1;
        Way::Dropped(why)
    }

    fn open(&mut self, now: Instant, slot: Slot, path: Path, relayed: Vec<(SocketAddr, Socket)>) {
        self.close(slot);
        let at = slot.0 as usize;
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        for (addr, socket) in &relayed {
            self.by_relayed.insert(*addr, slot);
            let at = socket.0 as usize;
            if self.by_socket.len() <= at {
                self.by_socket.resize(at + 1, None);
            }
            self.by_socket[at] = Some((slot, *addr));
        }
        self.by_path.insert(path, slot);
        self.entries[at] = Some(Entry {
            path,
            relayed,
            permissions: HashMap::new(),
            peers: HashMap::new(),
            numbers: HashMap::new(),
            bucket: Bucket::new(now, self.ceilings.each),
        });
    }

    fn close(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        self.by_path.remove(&entry.path);
        for (addr, socket) in entry.relayed {
            self.by_relayed.remove(&addr);
            if let Some(of) = self.by_socket.get_mut(socket.0 as usize) {
                *of = None;
            }
        }
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.0 as usize)?.as_ref()
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.0 as usize)?.as_mut()
    }
}

/// IPv4 written as IPv6 is IPv4.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
