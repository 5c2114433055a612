//! What a node wants done.

use super::behaviour::ProbeCommand;
use super::control::{CommandError, Event, Reply, RequestId};
use super::flows::Wire;
use super::relay::RelayCommand;
use crate::config::Bootstrap;
use crate::core::{ConnId, Flow, Transport};
use crate::identity::{ChunkHash, Expect, Identity, Revoked};
use crate::pbx::locate::Question;
use crate::ua::{CallId, MediaPlan};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the media threads are asked.
#[derive(Debug)]
pub enum MediaCommand {
    /// Take sockets; for a call that has some, on the addresses that this machine has now, the old ones beside.
    Open {
        /// For which call.
        call: CallId,
    },
    /// Let voice flow by this plan; again when it changes.
    Start {
        /// In which call.
        call: CallId,
        /// What was agreed.
        plan: Box<MediaPlan>,
    },
    /// Send a datagram that is no voice.
    Send {
        /// Of which call.
        call: CallId,
        /// By the socket with this address.
        local: SocketAddr,
        /// Where to.
        to: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Connect the call with the first of these relays that can be reached over TLS, and report it.
    Reach {
        /// Which call.
        call: CallId,
        /// Addresses and SHA-256 of the certificates, in the order in which to try them.
        relays: Vec<(SocketAddr, [u8; 32])>,
    },
    /// A packet of the voice that came through a relay, and not by the channel of the call's way.
    Take {
        /// Of which call.
        call: CallId,
        /// The sender.
        from: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Voice takes this way from now on; none: it waits for one.
    Route {
        /// In which call, whose plan has ICE.
        call: CallId,
        /// Which way.
        route: Option<crate::nat::ice::Route>,
    },
    /// This way is kept alive beside the other one, and voice goes by either; none: there is no second one any more.
    Second {
        /// In which call, whose way is told already.
        call: CallId,
        /// Which way, and how its probes are told from others'.
        second: Option<Box<crate::nat::ice::Second>>,
    },
    /// Silence goes out instead of the source, or the source again.
    Mute {
        /// In which call.
        call: CallId,
        /// Silence.
        muted: bool,
    },
    /// Send a digit.
    Dtmf {
        /// In which call.
        call: CallId,
        /// `0-9`, `*`, `#`, `A-D`.
        digit: char,
    },
    /// Close sockets and report.
    Close {
        /// Of which call.
        call: CallId,
    },
}

/// What is to be kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Saved {
    /// Keys, chain, and an enroller's book: secret.
    Identity,
    /// Accounts of standard phones: digest secrets.
    Phones,
    /// The host cache: supernodes to join by, in CBOR.
    Hosts,
    /// What is revoked.
    Revocations,
    /// Messages: what was received and sent, what waits.
    Messages,
    /// The user's contacts and settings: private.
    Settings,
    /// Keys of password shares held for others: secret.
    Shares,
    /// How often passwords were tried.
    Attempts,
    /// Contacts and keys of other overlays, and who may not ring.
    Foreign,
    /// The office that this device has come from, and where that continues.
    Former,
    /// Offices that this administrator's device takes in.
    Merges,
    /// How the NATs of networks behaved, in CBOR.
    Nat,
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// From our socket to the other end.
        flow: Flow,
        /// All of it.
        bytes: Bytes,
    },
    /// Open a connection over TLS to a server of standard SIP, whose certificate has to be good for its name, and report it.
    ConnectServer {
        /// Its number.
        conn: ConnId,
        /// Where to.
        remote: SocketAddr,
        /// Host name or address that the certificate has to show.
        name: String,
        /// PEM file of the authorities that are trusted; empty: the machine's.
        authorities: std::path::PathBuf,
    },
    /// Open a connection and report it.
    Connect {
        /// Its number from now on.
        conn: ConnId,
        /// TCP in clear, or TLS for a link.
        transport: Transport,
        /// Where to.
        remote: SocketAddr,
        /// Who must be there.
        expect: Expect,
    },
    /// Write a message on a connection.
    Write {
        /// Which.
        conn: ConnId,
        /// The message.
        bytes: Bytes,
    },
    /// Close a connection.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Ask the DNS; [`Input::Answer`](super::Input::Answer) brings the answer, once and in any case.
    Query {
        /// Comes back.
        query: u64,
        /// What.
        question: Question,
    },
    /// For the media threads.
    Media(MediaCommand),
    /// For the relay's sockets.
    Relay(RelayCommand),
    /// For the socket that a NAT is tested by.
    Probe(ProbeCommand),
    /// The final answer to a command.
    Reply {
        /// Of [`Input::Command`](super::Input::Command).
        request: RequestId,
        /// Answer or failure.
        result: Result<Reply, CommandError>,
    },
    /// Something happened: for whoever asked, or for everybody.
    Event {
        /// Whose command it belongs to.
        request: Option<RequestId>,
        /// What.
        event: Event,
    },
    /// Keep this over a restart, before anything that follows is sent.
    Save {
        /// What it is.
        what: Saved,
        /// The whole new content.
        bytes: Bytes,
    },
    /// Keep these records over a restart and report it ([`Input::Store`](super::Input::Store)).
    Store(crate::overlay::Batch),
    /// Read a chunk that was kept and report it ([`StoreInput::Loaded`](super::StoreInput::Loaded)).
    LoadChunk {
        /// Which.
        hash: ChunkHash,
    },
    /// Look this name up, by SRV or as a host, and report [`Input::Resolved`](super::Input::Resolved).
    Resolve {
        /// As the user wrote it.
        name: Bootstrap,
    },
    /// Links refuse these keys from now on.
    Revoked(Arc<Revoked>),
    /// Links show this identity from now on.
    Identity(Box<Identity>),
    /// The node has left the ring and is done.
    Stopped,
}

impl From<Wire> for Output {
    fn from(wire: Wire) -> Output {
        match wire {
            Wire::Datagram { flow, bytes } => Output::Datagram { flow, bytes },
            Wire::Connect { conn, transport, remote, expect } => Output::Connect { conn, transport, remote, expect },
            Wire::ConnectServer { conn, remote, name, authorities } => {
                Output::ConnectServer { conn, remote, name, authorities }
            }
            Wire::Write { conn, bytes } => Output::Write { conn, bytes },
            Wire::Close { conn } => Output::Close { conn },
        }
    }
}
