//! A relay's allocations (RFC 8656) and its STUN Binding answers (RFC 8489, RFC 5780): who may have one, for how long, towards whom.
//! Packets do not come here: what is decided goes out as [`Change`]s to a [`Table`](super::table::Table).
//!
//! Sans-IO: a STUN message in, answers, changes and wishes for sockets out, in an order that is to be kept. A client proves itself by
//! a long-term credential that the relay minted itself ([`credential`](super::credential)); nothing is stored for who has not. Answers to
//! who is not proven are few for each source, so that a spoofed address gets little.
//!
//! Bounded: allocations in all and of one user, permissions, channels and connections of each, sockets asked for at once, sources counted.
//!
//! Left out: what [`turn`](super) leaves out.

mod allocate;
mod auth;
mod binding;
mod connect;
mod thrift;
mod update;

pub use connect::ConnectionId;

use super::credential::Secret;
use super::peers::Peers;
use super::table::{Change, Path, Slot, Socket};
use crate::core::{Instant, Rng, TimerQueue, UnixTime};
use crate::stun::attributes::RequestedAddressFamily;
use crate::stun::{Class, Fault, Integrity, Key, Message, Method, Parsed, Seal, TransactionId};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use thrift::Thrift;

/// Most that may wait in the output; a driver that takes it out after every input never sees this.
const OUTPUTS: usize = 4096;

/// How a relay is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The realm of its credentials: the overlay's name.
    pub realm: String,
    /// What they are made with.
    pub secret: Secret,
    /// Most allocations.
    pub allocations: usize,
    /// Most of one user.
    pub of_one_user: usize,
    /// Ports of relayed addresses, first and last.
    pub ports: (u16, u16),
    /// Addresses of this machine that sockets towards peers are opened at, the preferred one of each family first.
    pub addresses: Vec<IpAddr>,
    /// What peers know them as, where a router stands before this machine.
    pub shown: BTreeMap<IpAddr, IpAddr>,
    /// The UDP sockets that clients write to, as clients know them, by their numbers: for RFC 5780.
    pub faces: Vec<SocketAddr>,
    /// Whom it forwards to.
    pub peers: Peers,
}

/// What comes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A STUN message from a client that the table did not know the way of.
    Message {
        /// From where.
        path: Path,
        /// One message.
        bytes: &'a [u8],
    },
    /// The sockets of [`Output::Open`] are open; or at least one could not be, and none is. It follows every time.
    Opened {
        /// The number.
        wish: u64,
        /// Whether they are.
        open: bool,
    },
    /// What became of [`Output::Dial`].
    Dialled {
        /// Which.
        id: ConnectionId,
        /// Whether the peer has answered.
        open: bool,
    },
    /// A stream has ended.
    Gone {
        /// Which.
        path: Path,
    },
    /// A member asked by its link for a Binding answer to where it is seen: from an address that it has not written to.
    Answer {
        /// Where to.
        to: SocketAddr,
        /// The member's transaction.
        id: TransactionId,
    },
    /// A member's link came from this address: packets may go there for a while.
    Proven {
        /// Which.
        ip: IpAddr,
        /// How long.
        lifetime: Duration,
    },
}

/// What comes out, to be carried out in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to a client.
    Answer {
        /// By which way.
        path: Path,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Open these sockets towards peers, all or none, and report it.
    Open {
        /// The number.
        wish: u64,
        /// Their names and addresses.
        sockets: Vec<(Socket, SocketAddr)>,
        /// Listeners of TCP, whose connections go to [`Server::arrived`]; else UDP.
        stream: bool,
    },
    /// Connect to a peer by TCP, and report it.
    Dial {
        /// The name of the connection.
        id: ConnectionId,
        /// Of the allocation that it is for.
        socket: Socket,
        /// The address that socket listens at, which it comes from.
        from: SocketAddr,
        /// The peer.
        to: SocketAddr,
    },
    /// From here on a client's stream carries what a peer's does.
    Join {
        /// The client's.
        path: Path,
        /// The peer's.
        id: ConnectionId,
        /// The allocation that pays.
        slot: Slot,
    },
    /// Close a connection with a peer, whatever became of it, and the client's stream that it is joined to.
    Part(ConnectionId),
    /// Close a socket.
    Close(Socket),
    /// For the table.
    Change(Change),
    /// Close a stream: its allocation was given back.
    Hang(Path),
}

/// Answers that were given, and messages that were not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages that nobody can read.
    pub malformed: u64,
    /// Requests without a credential that holds.
    pub unproven: u64,
    /// Answers that were not given, since a source had asked too often.
    pub spared: u64,
    /// Requests refused for a quota or for want of room (486, 508).
    pub over_quota: u64,
    /// Peers refused (403).
    pub forbidden: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    Allocation(Slot),
    Permission(Slot, IpAddr),
    Channel(Slot, u16),
    Reservation(u64),
    Connection(ConnectionId),
}

/// A relayed address.
#[derive(Debug, Clone, Copy)]
struct Relayed {
    socket: Socket,
    bound: SocketAddr,
    shown: SocketAddr,
}

#[derive(Debug)]
struct Allocation {
    path: Path,
    /// USERNAME of the credential it was made with.
    username: String,
    /// Whose that is.
    who: String,
    /// Of TCP.
    stream: bool,
    /// Of the request that made it.
    id: TransactionId,
    reservation: Option<u64>,
    /// A family that was asked for and could not be had, and why.
    lacking: Option<u16>,
    relayed: Vec<Relayed>,
    permissions: BTreeMap<IpAddr, ()>,
    channels: BTreeMap<u16, SocketAddr>,
}

/// A request that has shown who sent it.
struct Proved<'a> {
    path: Path,
    message: &'a Message,
    username: String,
    who: String,
    key: Key,
    integrity: Integrity,
    fingerprint: bool,
}

/// A relay.
pub struct Server {
    config: Config,
    rng: Rng,
    clock: (Instant, UnixTime),
    allocations: Vec<Option<Allocation>>,
    by_path: BTreeMap<Path, Slot>,
    by_user: BTreeMap<String, usize>,
    sockets: Vec<bool>,
    wishes: BTreeMap<u64, allocate::Wish>,
    last_wish: u64,
    reservations: BTreeMap<u64, Relayed>,
    connections: BTreeMap<ConnectionId, connect::Connection>,
    by_data: BTreeMap<Path, ConnectionId>,
    timers: TimerQueue<Due>,
    thrift: Thrift,
    counters: Counters,
    out: VecDeque<Output>,
}

impl Server {
    /// A relay without allocations. `unix` is the wall clock at `now`, by which credentials expire.
    pub fn new(now: Instant, unix: UnixTime, config: Config, mut rng: Rng) -> Server {
        let thrift = Thrift::new(rng.next_u64());
        Server {
            config,
            clock: (now, unix),
            allocations: Vec::new(),
            by_path: BTreeMap::new(),
            by_user: BTreeMap::new(),
            sockets: Vec::new(),
            wishes: BTreeMap::new(),
            last_wish: 0,
            reservations: BTreeMap::new(),
            connections: BTreeMap::new(),
            by_data: BTreeMap::new(),
            timers: TimerQueue::new(),
            thrift,
            counters: Counters::default(),
            out: VecDeque::new(),
            rng,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Message { path, bytes } => self.on_message(now, path, bytes),
            Input::Opened { wish, open } => self.on_opened(now, wish, open),
            Input::Dialled { id, open } => self.on_dialled(now, id, open),
            Input::Gone { path } => {
                self.on_data_gone(path);
                self.wishes.values_mut().filter(|w| w.path() == path).for_each(allocate::Wish::give_up);
                if let Some(slot) = self.by_path.get(&path).copied() {
                    self.remove(slot);
                }
            }
            Input::Answer { to, id } => self.on_asked_for(now, to, id),
            Input::Proven { ip, lifetime } => self.config.peers.prove(now, ip, now + lifetime),
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Allocation(slot) => self.remove(slot),
                Due::Permission(slot, ip) => {
                    if self.allocation_mut(slot).is_some_and(|a| a.permissions.remove(&ip).is_some()) {
                        self.change(Change::Forbid { slot, ip });
                    }
                }
                Due::Channel(slot, number) => {
                    if self.allocation_mut(slot).is_some_and(|a| a.channels.remove(&number).is_some()) {
                        self.change(Change::Unbind { slot, number });
                    }
                }
                Due::Connection(id) => self.on_connection_late(now, id),
                Due::Reservation(token) => {
                    if let Some(relayed) = self.reservations.remove(&token) {
                        self.close_socket(relayed.socket);
                    }
                }
            }
        }
    }

    /// When [`Server::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Allocations that stand.
    pub fn allocations(&self) -> usize {
        self.by_path.len()
    }

    /// What was refused and dropped.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.clock.1 + now.since(self.clock.0)
    }

    fn put(&mut self, output: Output) {
        if self.out.len() < OUTPUTS || !matches!(output, Output::Answer { .. }) {
            self.out.push_back(output);
        }
    }

    fn change(&mut self, change: Change) {
        self.put(Output::Change(change));
    }

    fn allocation(&self, slot: Slot) -> Option<&Allocation> {
        self.allocations.get(slot.0 as usize)?.as_ref()
    }

    fn allocation_mut(&mut self, slot: Slot) -> Option<&mut Allocation> {
        self.allocations.get_mut(slot.0 as usize)?.as_mut()
    }

    fn on_message(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        let parsed = match Parsed::read(bytes) {
            Ok(parsed) => parsed,
            Err(fault) => {
                self.counters.malformed += 1;
                // What can be told to be a request is answered (RFC 8489 section 6.3.1); a wrong fingerprint is not STUN.
                if let (Fault::Value, Some((Class::Request, method, id))) = (fault, crate::stun::header(bytes)) {
                    self.answer_unproven(now, path, &Message::refusal(method, id, 400), false);
                }
                return;
            }
        };
        if parsed.message.class != Class::Request {
            self.counters.malformed += 1;
            return;
        }
        let unknown = parsed.message.not_understood();
        if !unknown.is_empty() {
            let mut answer = parsed.message.error(420);
            answer.push_unknown(&unknown);
            return self.answer_unproven(now, path, &answer, parsed.fingerprint);
        }
        if parsed.message.method == Method::BINDING {
            return self.on_binding(now, path, &parsed);
        }
        let known = [
            Method::ALLOCATE,
            Method::REFRESH,
            Method::CREATE_PERMISSION,
            Method::CHANNEL_BIND,
            Method::CONNECT,
            Method::CONNECTION_BIND,
        ];
        if !known.contains(&parsed.message.method) {
            return self.answer_unproven(now, path, &parsed.message.error(400), parsed.fingerprint);
        }
        let Some(proved) = self.prove(now, path, &parsed) else { return };
        match proved.message.method {
            Method::ALLOCATE => self.on_allocate(now, proved),
            Method::REFRESH => self.on_refresh(now, &proved),
            Method::CREATE_PERMISSION => self.on_create_permission(now, &proved),
            Method::CONNECT => self.on_connect(now, &proved),
            Method::CONNECTION_BIND => self.on_connection_bind(&proved),
            _ => self.on_channel_bind(now, &proved),
        }
    }

    /// An answer to who has shown nothing: given only so often to one source.
    fn answer_unproven(&mut self, now: Instant, path: Path, answer: &Message, fingerprint: bool) {
        if matches!(path, Path::Datagram { .. }) && !self.thrift.spend(now, path.client().ip()) {
            self.counters.spared += 1;
            return;
        }
        let bytes = answer.encode(Seal { key: None, fingerprint });
        self.put(Output::Answer { path, bytes });
    }

    fn answer(&mut self, proved: &Proved<'_>, answer: &Message) {
        let seal = Seal { key: Some((&proved.key, proved.integrity)), fingerprint: proved.fingerprint };
        let bytes = answer.encode(seal);
        self.put(Output::Answer { path: proved.path, bytes });
    }

    fn refuse(&mut self, proved: &Proved<'_>, code: u16) {
        match code {
            486 | 508 => self.counters.over_quota += 1,
            403 => self.counters.forbidden += 1,
            _ => {}
        }
        self.answer(proved, &proved.message.error(code));
    }

    fn free_socket(&mut self) -> Socket {
        let at = self.sockets.iter().position(|used| !used).unwrap_or(self.sockets.len());
        if at == self.sockets.len() {
            self.sockets.push(true);
        } else {
            self.sockets[at] = true;
        }
        Socket(at as u32)
    }

    fn close_socket(&mut self, socket: Socket) {
        if let Some(used) = self.sockets.get_mut(socket.0 as usize) {
            *used = false;
        }
        self.put(Output::Close(socket));
    }

    fn remove(&mut self, slot: Slot) {
        let Some(allocation) = self.allocations.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        self.timers.cancel(&Due::Allocation(slot));
        for ip in allocation.permissions.keys() {
            self.timers.cancel(&Due::Permission(slot, *ip));
        }
        for number in allocation.channels.keys() {
            self.timers.cancel(&Due::Channel(slot, *number));
        }
        self.part_all(slot);
        self.by_path.remove(&allocation.path);
        if let Some(count) = self.by_user.get_mut(&allocation.who) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(&allocation.who);
            }
        }
        self.change(Change::Close { slot });
        for relayed in allocation.relayed {
            self.close_socket(relayed.socket);
        }
    }
}

/// Of REQUESTED-ADDRESS-FAMILY: whether it is IPv4.
fn is_v4(family: &RequestedAddressFamily) -> bool {
    family.address_family() == stun_codec::rfc8656::attributes::AddressFamily::V4
}

#[cfg(test)]
mod tests;
