//! What comes into a node.

use super::behaviour::ProbeInput;
use super::control::ProxyStatus;
use super::control::{Command, RequestId};
use super::relay::RelayInput;
use crate::config::Bootstrap;
use crate::core::{ConnId, Flow, Id, UnixTime};
use crate::identity::{ChunkHash, Proven};
use crate::nat::portmap::Mapping;
use crate::pbx::locate::Record;
use crate::ua::{CallId, MediaOpened, MediaStats};
use bytes::Bytes;
use std::net::SocketAddr;

/// What comes from outside.
#[derive(Debug)]
pub enum Input {
    /// A datagram arrived.
    Datagram {
        /// Our socket and the sender.
        flow: Flow,
        /// All of it.
        bytes: Bytes,
    },
    /// A connection was accepted; its number has the highest bit set.
    Accepted {
        /// With its number.
        flow: Flow,
        /// Who proved to be at the other end of a link.
        peer: Proven,
    },
    /// A connection of [`Output::Connect`](super::Output::Connect) is open.
    Connected {
        /// Which.
        conn: ConnId,
        /// Who proved to be at the other end of a link.
        peer: Proven,
    },
    /// A connection of [`Output::Connect`](super::Output::Connect) could not be opened.
    ConnectFailed {
        /// Which.
        conn: ConnId,
        /// Why, for the log.
        why: String,
    },
    /// One message arrived on a connection.
    Frame {
        /// Which.
        conn: ConnId,
        /// The message.
        bytes: Bytes,
    },
    /// A connection was closed, by either end.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// The wall clock, at the start and when it jumps.
    Clock {
        /// Now.
        unix: UnixTime,
    },
    /// Somebody asks something.
    Command {
        /// Comes back with the answer.
        request: RequestId,
        /// What.
        command: Command,
    },
    /// Whoever asked has gone; a call that they placed ends.
    Abort {
        /// Of [`Input::Command`].
        request: RequestId,
    },
    /// A hint: a peer of this overlay is said to be at this address. Any number of times; whether it is one is
    /// proven by its link.
    Found {
        /// Overlay address.
        addr: SocketAddr,
        /// Peer-ID, as it says.
        id: Id,
    },
    /// The other end has answered a keep-alive (RFC 5626 section 3.5.1).
    Pong {
        /// On which connection.
        conn: ConnId,
    },
    /// What this machine can bear, at the start and now and then.
    Facts(crate::overlay::tier::Facts),
    /// The answer to [`Output::Resolve`](super::Output::Resolve).
    Resolved {
        /// What was asked.
        name: Bootstrap,
        /// Overlay addresses, the preferred one first; or why there are none, for a person.
        found: Result<Vec<SocketAddr>, String>,
    },
    /// A router opened a port to the overlay socket, or another one than before.
    Mapped {
        /// Which.
        mapping: Mapping,
    },
    /// No router does, or none any more.
    Unmapped {
        /// Why, for a person.
        why: String,
    },
    /// This machine has other addresses than before. Ports stay.
    Moved {
        /// Where standard phones are told to reach this node.
        sip: SocketAddr,
        /// Where peers are.
        overlay: SocketAddr,
        /// Where peers may reach it beside that: [`Setup::also`](super::Setup::also).
        also: Vec<SocketAddr>,
    },
    /// The answer to [`Output::Query`](super::Output::Query).
    Answer {
        /// Its number.
        query: u64,
        /// What was found, empty where nothing is there; none where nobody answered.
        records: Option<Vec<Record>>,
    },
    /// From the media threads.
    Media(MediaInput),
    /// From whoever keeps the records.
    Store(StoreInput),
    /// From the relay's sockets.
    Relay(RelayInput),
    /// From the socket that a NAT is tested by.
    Probe(ProbeInput),
    /// How it goes with the HTTP proxy, to be told to who asks.
    Proxy(ProxyStatus),
}

/// What becomes of [`Output::Store`](super::Output::Store) and [`Output::Save`](super::Output::Save).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreInput {
    /// Every batch up to this one is on the disk.
    Flushed {
        /// [`Batch::number`](crate::overlay::Batch::number).
        upto: u64,
    },
    /// A file of [`Output::Save`](super::Output::Save) could not be written; the driver has it in memory and tries again until it can.
    Unsaved {
        /// Why, for a person.
        why: String,
    },
    /// All files are written again.
    Saved,
    /// What was asked for by [`Output::LoadChunk`](super::Output::LoadChunk).
    Loaded {
        /// Which chunk.
        hash: ChunkHash,
        /// What lies there, whole or not.
        bytes: Option<Bytes>,
    },
    /// The disk does not take them; it is tried again until it does.
    Failing {
        /// Every batch up to this one is held in memory only.
        upto: u64,
        /// Why, for a person.
        why: String,
    },
}

/// What the media threads say.
#[derive(Debug)]
pub enum MediaInput {
    /// Sockets were taken for a call.
    Opened {
        /// Which call.
        call: CallId,
        /// Where.
        opened: MediaOpened,
        /// Further sockets of the call, on other addresses of this machine.
        also: Vec<SocketAddr>,
        /// Where TCP connections for the call are waited for, one address each.
        tcp: Vec<SocketAddr>,
    },
    /// A STUN message, or one of a relay's channels, came to a socket of a call.
    Packet {
        /// Of which call.
        call: CallId,
        /// Address of the socket.
        local: SocketAddr,
        /// The sender.
        from: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// How the two ways of a call are: when voice moves, and every second.
    Lanes {
        /// Of which call.
        call: CallId,
        /// Of both.
        figures: crate::nat::ice::Figures,
    },
    /// Nothing was taken from the other end for a while: told every second.
    Quiet {
        /// In which call.
        call: CallId,
        /// For how long.
        quiet: std::time::Duration,
    },
    /// The voice cannot be encrypted as agreed; nothing goes in or out.
    Unsecured {
        /// In which call.
        call: CallId,
        /// Why, for a person.
        why: String,
    },
    /// One of the relays of [`MediaCommand::Reach`](super::MediaCommand::Reach) is connected: what is sent to it by this socket goes there.
    Reached {
        /// Which call.
        call: CallId,
        /// Address of the socket.
        local: SocketAddr,
        /// The relay.
        relay: SocketAddr,
    },
    /// None is, or the connection is gone.
    Unreached {
        /// Which call.
        call: CallId,
        /// Address of the socket that there was.
        local: Option<SocketAddr>,
    },
    /// They could not be, or the audio source or sink could not be opened.
    Failed {
        /// Which call.
        call: CallId,
        /// Why, for a person.
        why: String,
    },
    /// A digit was heard.
    Dtmf {
        /// In which call.
        call: CallId,
        /// `0-9`, `*`, `#`, `A-D`.
        digit: char,
    },
    /// Sockets were closed; the last figures.
    Closed {
        /// Which call.
        call: CallId,
        /// All packets counted.
        stats: MediaStats,
    },
}
