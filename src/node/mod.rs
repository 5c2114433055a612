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
//! | `behaviour` | the NAT before this node, tested against two supernodes |
//! | `discovery` | peers found on the local network: whom a peer that is alone joins |
//! | `calls` | the user agent: targets, media, reports |
//! | `talking` | what is done with a call under way |
//! | `paths` | the ways that calls' media take (ICE) |
//! | `second` | the second way of a call, beside the first |
//! | `vanished` | calls whose other end is gone, or does not encrypt as agreed |
//! | `route` | the registrar and the proxy for standard phones |
//! | `attach` | kept links: dials, signs of life, through whom this node and others are reached |
//! | `detour` | the way of a request to a peer, and around whoever fails on it |
//! | `role` | supernode or ordinary: what the owner wants, what is shown |
//! | `vouch` | whether a peer may speak for the caller that a request names |
//! | `foreign` | callers and callees of other overlays: their links, their proofs |
//! | `strangers` | who from outside may ring, who knocked, who is blocked |
//! | `pins` | whose key is meant by a name that any key may claim, and who calls by which |
//! | `introduce` | one user's word to another about a third one's key |
//! | `edge` | standard phones at a peer that does not hold their account |
//! | `ways` | the way to a target that no address names: a contact's supernodes, a domain's records |
//! | `enrol` | invites, and strangers who redeem them |
//! | `people` | revocations: kept, told on, compared before anybody is let in |
//! | `certify` | certificates asked of enrollers, and what enrollers grant |
//! | `addresses` | who may see where this device is |
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
//! | `redirect` | plain SIP proxies that ask where a callee is |
//! | `outside` | accounts with outside registrars, and calls by them |
//! | `login` | password log-in: strangers who try, shares held for others, this user's own |
//! | `pairing` | strangers who have a short code |
//! | `settings` | contacts and settings, the same on all devices of the user |
//! | `relay` | this node as a relay, and those of others |
//! | `exchange` | what nodes ask each other beside overlay and calls |
//! | `hex` | bytes as digits |
//! | `input`, `output` | what comes in, what is wanted done |
//! | `command` | what a person or a script asks |

mod adapters;
mod addresses;
mod archive;
mod attach;
mod behaviour;
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
mod edge;
mod enrol;
mod exchange;
mod fetch;
mod flows;
mod foreign;
mod hex;
mod history;
mod host_cache;
mod input;
mod introduce;
mod join;
mod keep;
mod lease;
mod legs;
mod login;
mod lookup;
mod mailbox;
mod merging;
mod message;
mod moving;
mod office;
mod output;
mod outside;
mod pairing;
mod paths;
mod people;
mod pins;
mod publish;
mod reach;
mod receive;
mod redirect;
mod relay;
mod ring;
mod role;
mod route;
mod second;
mod settings;
mod setup;
mod strangers;
mod talking;
mod twin;
mod vanished;
mod vouch;
mod ways;

pub use behaviour::{ProbeCommand, ProbeInput};
pub use blob_read::BlobRead;
pub use input::{Input, MediaInput, StoreInput};
pub use output::{MediaCommand, Output, Saved};
pub use relay::{Grant, RelayCommand, RelayFigures, RelayInput};
pub use setup::Setup;

use crate::core::{ConnId, Flow, Instant, Rng, TimerQueue, UnixTime};
use crate::identity::{Identity, Proven};
use crate::overlay::Overlay;
use crate::overlay::carry::Carry;
use crate::pbx::Domain;
use crate::pbx::registrar::Registrar;
use crate::pbx::router::{BranchId, Router};
use crate::sip::msg::Message;
use crate::sip::tx::{self, ClientTxId};
use crate::ua::Ua;
use bytes::Bytes;
use control::{CommandError, Event, Reply, RequestId};
use flows::{Flows, Wire};
use publish::Publisher;
use std::collections::{BTreeMap, VecDeque};

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
    talking: talking::Talking,
    twin: twin::Twin,
    paths: paths::Paths,
    expected: vanished::Expected,
    /// When it was made: [`Setup::system`] is the other clock then.
    started: Instant,
    vouch: vouch::Vouching,
    exchanges: exchange::Exchanges,
    relaying: relay::Relaying,
    /// The HTTP proxy, as last told.
    proxy: Option<control::ProxyStatus>,
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
    survey: behaviour::Survey,
    strangers: strangers::Strangers,
    ways: ways::Ways,
    edges: edge::Edges,
    leases: lease::Wanted,
    blobs: blob::Blobs,
    outside: outside::Outside,
    redirecting: redirect::Redirecting,
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
            talking: talking::Talking::default(),
            twin: twin::Twin::default(),
            paths: paths::Paths::default(),
            expected: vanished::Expected::default(),
            started: now,
            vouch: vouch::Vouching::default(),
            exchanges: exchange::Exchanges::default(),
            relaying: relay::Relaying::new(now, setup.relays),
            proxy: None,
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
            survey: behaviour::Survey::new(&setup.nat),
            strangers: strangers::Strangers::new(std::mem::take(&mut setup.acquaintances)),
            ways: ways::Ways::default(),
            edges: edge::Edges::default(),
            leases: lease::Wanted::default(),
            blobs: blob::Blobs::default(),
            outside: outside::Outside::default(),
            redirecting: redirect::Redirecting::default(),
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
            Input::Probe(probe) => self.on_probe(now, probe),
            Input::Proxy(status) => self.proxy = Some(status),
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
        self.outside_timeout(now);
        self.paths_timeout(now);
        self.relay_timeout(now);
        self.survey_timeout(now);
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
                self.outside.next(),
                self.strangers.next(),
                self.paths.next(),
                self.relaying.next(),
                self.survey.next(),
            ])
            .flatten()
            .min()
    }

    /// What this machine's clock shows at `now`.
    pub fn unix(&self, now: Instant) -> UnixTime {
        self.clock.1 + now.since(self.clock.0)
    }

    /// The time that others go by: that of the neighbours where they agree on another than this machine's clock shows. For what is
    /// good for minutes only.
    pub(super) fn agreed(&self, now: Instant) -> UnixTime {
        self.overlay.as_ref().map_or_else(|| self.unix(now), |o| o.unix(now))
    }

    fn set_clock(&mut self, now: Instant, unix: UnixTime) {
        self.clock = (now, unix);
        if let Some(overlay) = self.overlay.as_mut() {
            overlay.handle(now, crate::overlay::Input::Clock { unix });
        }
        self.ua.set_clock(now, self.agreed(now));
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
        if let (Some(_), Some(flow)) = (peer.member(), self.flows.flow(conn)) {
            self.relay_to_member(flow.remote.ip());
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
        self.account_flow_gone(now, conn, why);
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
