//! L4: one node, composed of everything below and driven from outside. Bytes, connections, commands and the
//! clock come in by [`Node::handle`] and [`Node::handle_timeout`]; what to send, open, show and keep
//! comes out of [`Node::poll_output`]; [`Node::poll_timeout`] says when to come back.
//!
//! `io` drives it with sockets, `sim` with a virtual network; it is the same code, byte for byte.
//!
//! | file | what |
//! |---|---|
//! | `flows` | connections: which leads where, what waits for it |
//! | `receive` | bytes to messages to transactions, and requests to whoever answers them |
//! | `lookup` | lookups for whoever needs one, and what this node writes |
//! | `ring` | the overlay: its messages as SIP, lookups, what is written |
//! | `keep` | records over a restart, and what the owner has to be told of them |
//! | `join` | the ways in: whom it is tried by, in a race |
//! | `host_cache` | supernodes remembered over a restart |
//! | `reach` | where this node can be reached, and what follows when it moves |
//! | `discovery` | peers found on the local network: whom a peer that is alone joins |
//! | `calls` | the user agent: targets, media, reports |
//! | `paths` | the ways that calls' media take (ICE) |
//! | `route` | the registrar and the proxy for standard phones |
//! | `attach` | kept links: dials, signs of life, through whom this node and others are reached |
//! | `detour` | the way of a request to a peer, and around whoever fails on it |
//! | `role` | supernode or ordinary: what the owner wants, what is shown |
//! | `vouch` | whether a peer may speak for the caller that a request names |
//! | `foreign` | callers and callees of other overlays: their links, their proofs |
//! | `strangers` | who from outside may ring, who knocked, who is blocked |
//! | `pins` | whose key is meant by a name that any key may claim, and who calls by which |
//! | `introduce` | one user's word to another about a third one's key |
//! | `ways` | the way to a target that no address names: a contact's supernodes, a domain's records |
//! | `enrol` | invites, and strangers who redeem them |
//! | `people` | revocations: kept, told on, compared before anybody is let in |
//! | `certify` | certificates asked of enrollers, and what enrollers grant |
//! | `adapters` | phones that several devices serve |
//! | `office` | an administrator's commands, and the book shared among enrollers |
//! | `disown` | the root revokes an enroller |
//! | `merging` | one office taken into another, by their administrators |
//! | `moving` | this device goes over to the office that its own continues as |
//! | `devices` | the devices of this node's user |
//! | `message` | messages that go out |
//! | `deliver` | messages that come in, for the user here and for phones |
//! | `mailbox` | messages that wait in the overlay for somebody who is absent |
//! | `fetch` | what waits there for whom this node serves |
//! | `lease` | what this node wants to be the only one for |
//! | `blob`, `blob_read` | what is too large for a record: written and read chunk by chunk |
//! | `history` | messages as a person lists, reads and deletes them |
//! | `archive` | what is kept of messages over a restart |
//! | `login` | password log-in: strangers who try, shares held for others, this user's own |
//! | `pairing` | strangers who have a short code |
//! | `settings` | contacts and settings, the same on all devices of the user |
//! | `relay` | this node as a relay, and those of others |
//! | `exchange` | what nodes ask each other beside overlay and calls |
//! | `hex` | bytes as digits |
//! | `command` | what a person or a script asks |

mod adapters;
mod archive;
mod attach;
mod blob;
mod blob_read;
mod calls;
mod certify;
mod command;
pub mod control;
mod deliver;
mod detour;
mod devices;
mod discovery;
mod disown;
mod enrol;
mod exchange;
mod fetch;
mod flows;
mod foreign;
mod hex;
mod history;
mod host_cache;
mod introduce;
mod join;
mod keep;
mod lease;
mod login;
mod lookup;
mod mailbox;
mod merging;
mod message;
mod moving;
mod office;
mod pairing;
mod paths;
mod people;
mod pins;
mod publish;
mod reach;
mod receive;
mod relay;
mod ring;
mod role;
mod route;
mod settings;
mod setup;
mod strangers;
mod twin;
mod vouch;
mod ways;

pub use blob_read::BlobRead;
pub use relay::{Grant, RelayCommand, RelayFigures, RelayInput};
pub use setup::Setup;

use crate::config::Bootstrap;
use crate::core::{ConnId, Flow, Id, Instant, Rng, TimerQueue, Transport, UnixTime};
use crate::identity::{ChunkHash, Expect, Identity, Proven, Revoked};
use crate::nat::portmap::Mapping;
use crate::overlay::Overlay;
use crate::overlay::carry::Carry;
use crate::pbx::Domain;
use crate::pbx::locate::{Question, Record};
use crate::pbx::registrar::Registrar;
use crate::pbx::router::{BranchId, Router};
use crate::sip::msg::Message;
use crate::sip::tx::{self, ClientTxId};
use crate::ua::{CallId, MediaOpened, MediaPlan, MediaStats, Ua};
use bytes::Bytes;
use control::{Command, CommandError, Event, Reply, RequestId};
use flows::{Flows, Wire};
use publish::Publisher;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

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
    /// A connection of [`Output::Connect`] is open.
    Connected {
        /// Which.
        conn: ConnId,
        /// Who proved to be at the other end of a link.
        peer: Proven,
    },
    /// A connection of [`Output::Connect`] could not be opened.
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
    /// The answer to [`Output::Resolve`].
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
        /// Where peers may reach it beside that: [`Setup::also`].
        also: Vec<SocketAddr>,
    },
    /// The answer to [`Output::Query`].
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
}

/// What becomes of [`Output::Store`] and [`Output::Save`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreInput {
    /// Every batch up to this one is on the disk.
    Flushed {
        /// [`Batch::number`](crate::overlay::Batch::number).
        upto: u64,
    },
    /// A file of [`Output::Save`] could not be written; the driver has it in memory and tries again until it can.
    Unsaved {
        /// Why, for a person.
        why: String,
    },
    /// All files are written again.
    Saved,
    /// What was asked for by [`Output::LoadChunk`].
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
    /// Ask the DNS; [`Input::Answer`] brings the answer, once and in any case.
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
    /// The final answer to a command.
    Reply {
        /// Of [`Input::Command`].
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
    /// Keep these records over a restart and report it ([`Input::Store`]).
    Store(crate::overlay::Batch),
    /// Read a chunk that was kept and report it ([`StoreInput::Loaded`]).
    LoadChunk {
        /// Which.
        hash: ChunkHash,
    },
    /// Look this name up, by SRV or as a host, and report [`Input::Resolved`].
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
            Wire::Write { conn, bytes } => Output::Write { conn, bytes },
            Wire::Close { conn } => Output::Close { conn },
        }
    }
}

/// Who waits for the answer to a request of ours.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Overlay(crate::overlay::RpcId),
    Ua(crate::ua::RequestKey),
    Router(BranchId),
    Exchange(u64),
}

/// One node.
pub struct Node {
    setup: Setup,
    rng: Rng,
    /// A point where both clocks were known.
    clock: (Instant, UnixTime),
    identity: Option<Identity>,
    tx: tx::Layer,
    flows: Flows,
    overlay: Option<Box<dyn Overlay + Send>>,
    carry: Option<Carry>,
    ua: Ua,
    domain: Domain,
    registrar: Registrar,
    router: Router,
    publisher: Publisher,
    owners: BTreeMap<ClientTxId, Owner>,
    /// Requests that went over TCP only for their size, until they are answered.
    large: BTreeMap<ClientTxId, (Message, Flow)>,
    /// Requests over links of which nothing has been heard, and until when they may be.
    unheard: TimerQueue<ClientTxId>,
    ring: ring::Ring,
    calls: calls::Calls,
    twin: twin::Twin,
    paths: paths::Paths,
    /// When it was made: [`Setup::system`] is the other clock then.
    started: Instant,
    vouch: vouch::Vouching,
    exchanges: exchange::Exchanges,
    relaying: relay::Relaying,
    mail: message::Mail,
    warnings: keep::Warnings,
    attach: attach::Attachments,
    detours: detour::Detours,
    people: people::People,
    certifying: certify::Certifying,
    office: office::Office,
    /// When further adapters of phones are told what they have to know.
    sharing_due: Option<Instant>,
    merging: merging::Merging,
    moving: moving::Moving,
    login: login::Login,
    settings: settings::Synced,
    pairing: Option<pairing::Pairing>,
    reach: reach::Reach,
    strangers: strangers::Strangers,
    ways: ways::Ways,
    leases: lease::Wanted,
    blobs: blob::Blobs,
    wire: Vec<Wire>,
    out: VecDeque<Output>,
    counters: BTreeMap<&'static str, u64>,
    stopping: Option<RequestId>,
}

/// Checks a file of messages before a node is started with it.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn check_messages(bytes: &[u8]) -> Result<(), String> {
    archive::Archive::read(bytes).map(|_| ())
}

impl Node {
    /// A node that begins to join, found or register, as its setup says.
    pub fn new(now: Instant, mut setup: Setup, mut rng: Rng) -> Node {
        let parts = setup::parts(now, &setup, &mut rng);
        let mut node = Node {
            clock: (now, setup.unix),
            identity: setup.identity.clone(),
            tx: tx::Layer::new(rng.fork(), tx::Config::default()),
            flows: Flows::new(setup.locals(), setup.first_connection),
            overlay: parts.overlay,
            carry: parts.carry,
            ua: parts.ua,
            domain: parts.domain,
            registrar: parts.registrar,
            router: parts.router,
            publisher: Publisher::new(setup.lifetime(false)),
            owners: BTreeMap::new(),
            large: BTreeMap::new(),
            unheard: TimerQueue::new(),
            ring: ring::Ring::new(&setup),
            calls: calls::Calls::default(),
            twin: twin::Twin::default(),
            paths: paths::Paths::default(),
            started: now,
            vouch: vouch::Vouching::default(),
            exchanges: exchange::Exchanges::default(),
            relaying: relay::Relaying::new(now, setup.relays),
            // Whoever starts a node has checked the file.
            mail: message::Mail::new(archive::Archive::read(&setup.messages).unwrap_or_default()),
            warnings: keep::Warnings::default(),
            attach: attach::Attachments::default(),
            detours: detour::Detours::default(),
            people: people::People::new(std::mem::take(&mut setup.revocations)),
            certifying: certify::Certifying::default(),
            office: office::Office::default(),
            sharing_due: Some(now),
            merging: merging::Merging::new(std::mem::take(&mut setup.merges)),
            moving: moving::Moving::default(),
            login: login::Login::new(setup.shares.as_deref(), setup.attempts.as_deref()),
            pairing: None,
            settings: settings::Synced::new(setup.settings.as_deref()),
            reach: reach::Reach::default(),
            strangers: strangers::Strangers::new(std::mem::take(&mut setup.acquaintances)),
            ways: ways::Ways::default(),
            leases: lease::Wanted::default(),
            blobs: blob::Blobs::default(),
            wire: Vec::new(),
            out: VecDeque::new(),
            counters: BTreeMap::new(),
            stopping: None,
            setup,
            rng,
        };
        node.begin(now);
        node.settle(now);
        node
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Datagram { flow, bytes } => self.on_bytes(now, flow, bytes),
            Input::Frame { conn, bytes } => match self.flows.flow(conn) {
                Some(flow) => self.on_bytes(now, flow, bytes),
                None => self.count("frames without a connection"),
            },
            Input::Connected { conn, peer } if self.on_dialled(now, conn, peer.member()) => {}
            Input::ConnectFailed { conn, .. } if self.on_dial_failed(now, conn) => {}
            Input::Accepted { flow, peer } => {
                // The driver's links refuse too; a statement may have come while this one opened.
                let refused = peer.member().is_some_and(|member| self.people.revoked.check(member).is_err());
                self.on_accepted(now, flow, if refused { Proven::Nobody } else { peer });
            }
            Input::Connected { conn, peer } => {
                self.on_connected(now, conn, peer);
                self.race_opened(now, conn);
            }
            Input::ConnectFailed { conn, why } => self.on_gone(now, conn, Some(&why)),
            Input::Closed { conn } => self.on_gone(now, conn, None),
            Input::Clock { unix } => self.set_clock(now, unix),
            Input::Command { request, command } => self.on_command(now, request, command),
            Input::Abort { request } => self.on_abort(now, request),
            Input::Found { addr, id } => self.on_found(now, addr, id),
            Input::Pong { conn } => self.on_pong(now, conn),
            Input::Facts(facts) => self.overlay_input(now, crate::overlay::Input::Facts(facts)),
            Input::Resolved { name, found } => self.on_resolved(now, &name, found),
            Input::Mapped { mapping } => self.on_mapped(now, mapping),
            Input::Unmapped { why } => self.on_unmapped(now, why),
            Input::Moved { sip, overlay, also } => self.on_moved(now, sip, overlay, also),
            Input::Answer { query, records } => self.on_answer(now, query, records),
            Input::Media(media) => self.on_media(now, media),
            Input::Store(store) => self.on_store(now, store),
            Input::Relay(relay) => self.on_relay(now, relay),
        }
        self.settle(now);
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tx.handle_timeout(now);
        self.ua.handle_timeout(now);
        self.registrar.handle_timeout(now);
        self.router.handle_timeout(now);
        self.on_unheard(now);
        self.on_silent_foreign(now);
        if let Some(overlay) = self.overlay.as_mut() {
            overlay.handle_timeout(now);
        }
        self.ring_timeout(now);
        self.people_timeout(now);
        self.certify_timeout(now);
        self.office_timeout(now);
        self.sharing_timeout(now);
        self.moving_timeout(now);
        self.on_mail_timeout(now);
        self.login_timeout(now);
        self.settings_timeout(now);
        self.lease_timeout(now);
        self.paths_timeout(now);
        self.relay_timeout(now);
        self.settle(now);
    }

    /// The next thing to do outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Node::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let overlay = self.overlay.as_ref().and_then(|o| o.poll_timeout());
        let times =
            [self.tx.poll_timeout(), self.ua.poll_timeout(), self.registrar.poll_timeout(), self.router.poll_timeout()];
        times
            .into_iter()
            .chain([
                overlay,
                self.next_ring_timeout(),
                self.unheard.next(),
                self.next_people_timeout(),
                self.next_certify_timeout(),
                self.next_office_timeout(),
                self.next_sharing(),
                self.next_moving(),
                self.next_mail_timeout(),
                self.next_login(),
                self.settings.next(),
                self.leases.next(),
                self.strangers.next(),
                self.paths.next(),
                self.relaying.next(),
            ])
            .flatten()
            .min()
    }

    /// What this machine's clock shows at `now`.
    pub fn wall(&self, now: Instant) -> UnixTime {
        self.clock.1 + now.since(self.clock.0)
    }

    /// The time that this node goes by: its neighbours' where they agree on another than this machine's clock shows.
    pub fn unix(&self, now: Instant) -> UnixTime {
        self.overlay.as_ref().map_or_else(|| self.wall(now), |o| o.unix(now))
    }

    fn set_clock(&mut self, now: Instant, unix: UnixTime) {
        self.clock = (now, unix);
        if let Some(overlay) = self.overlay.as_mut() {
            overlay.handle(now, crate::overlay::Input::Clock { unix });
        }
        self.ua.set_clock(now, self.unix(now));
    }

    /// Lets the machines answer each other until none has anything to say.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut quiet = !self.settle_tx(now);
            quiet &= !self.settle_overlay(now);
            quiet &= !self.settle_ua(now);
            quiet &= !self.settle_paths(now);
            quiet &= !self.settle_pbx(now);
            quiet &= !self.write_due(now);
            quiet &= !self.write_mail(now);
            quiet &= !self.leave_when_done(now);
            quiet &= !self.arrive(now);
            if quiet {
                break;
            }
        }
        if let Some(file) = self.mail.archive.take_file() {
            self.out.push_back(Output::Save { what: Saved::Messages, bytes: Bytes::from(file) });
        }
        for wire in std::mem::take(&mut self.wire) {
            self.out.push_back(wire.into());
        }
    }

    fn on_connected(&mut self, now: Instant, conn: ConnId, peer: Proven) {
        if self.flows.is_abroad(conn) {
            if self.errand_open(now, conn, &peer) {
                return;
            }
            return self.on_way_open(now, conn, peer);
        }
        if peer.member().is_some_and(|member| self.people.revoked.check(member).is_err()) {
            self.wire.push(Wire::Close { conn });
            return;
        }
        let waiting = self.flows.connected(conn, peer, &mut self.wire);
        // Before anything else is said.
        self.greet(now, conn);
        self.settle_tx(now);
        self.flows.flush(conn, waiting, &mut self.wire);
    }

    fn on_gone(&mut self, now: Instant, conn: ConnId, why: Option<&str>) {
        if let Some(why) = why {
            tracing::debug!(%why, "connection failed");
        }
        let peer = self.flows.peer_of(conn);
        let Some(flow) = self.flows.gone(conn) else { return };
        if why.is_some() {
            self.note_unreachable(now, flow.remote);
        }
        self.race_gone(now, conn);
        self.link_gone();
        self.strangers.silent.cancel(&conn);
        self.errand_failed(now, conn);
        self.on_way_failed(now, conn, why.unwrap_or("the connection was closed"));
        self.tx.flow_failed(flow);
        self.registrar.flow_closed(conn);
        // A link that never came up tells what the failed request tells already, and nothing more.
        if let (Some(peer), Some(overlay), None) = (peer, self.overlay.as_mut(), why)
            && !self.flows.has_peer(&peer)
        {
            overlay.handle(now, crate::overlay::Input::LinkDown { peer });
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }

    fn event(&mut self, request: Option<RequestId>, event: Event) {
        self.out.push_back(Output::Event { request, event });
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, CommandError>) {
        self.out.push_back(Output::Reply { request, result });
    }
}
