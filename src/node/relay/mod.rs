//! Relays: this node as one, and those of others.
//!
//! A supernode whose owner lets it serves STUN and TURN; the sockets are the driver's ([`RelayCommand`], [`RelayInput`]). A member asks it
//! over their link for a credential and gets a [`Grant`]: where, as whom, for how long, and how busy the relay is. Nothing is published:
//! who is a supernode is known from the ring, and whether it relays is its answer. The address of a member at
//! the other end of a link is proven by that link, so packets may go there though it is private: two relays of one private network
//! reach each other's relayed addresses by that.
//!
//! Whom to ask is drawn by lot among the supernodes known, so that no single one gets all; of the answers the two with the best round trip,
//! busy ones counted as farther away, are kept.
//!
//! Left out: credentials for who is no member; a measurement through the relay instead of to it.

mod grant;

pub use grant::Grant;

use super::behaviour::Server;
use super::control::{CommandError, RelayOffer, RelayStatus, Reply, RequestId};
use super::exchange::{Answer, Asked};
use super::{Node, Output};
use crate::config::{RelayFor, Serve};
use crate::core::{Flow, Id, Instant, UnixTime};
use crate::nat::turn::credential::Secret;
use crate::overlay::PeerRef;
use crate::overlay::tier::Role;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The bodies of these exchanges.
pub const RELAY_TYPE: &str = "application/chordial-relay+cbor";
/// How long a credential is good.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How often the role is looked at.
const CHECK: Duration = Duration::from_secs(5);
/// After the sockets could not be opened.
const AGAIN: Duration = Duration::from_secs(60);
/// A member knows relays before it calls: it looks soon after it is in, again while there are none, and before its credentials end.
const SOON: Duration = Duration::from_millis(500);
const NONE_YET: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The longest pause while there is one alone: a call's second way wants another.
const ONE_ALONE: Duration = Duration::from_secs(900);
/// The longest pause where nearly every call needs one.
const NEEDED: Duration = Duration::from_secs(30);
const RENEW: Duration = Duration::from_secs(LIFETIME.as_secs() / 2);
/// Supernodes asked by one search, relays kept of it, searches at once.
const ASK: usize = 4;
const KEEP: usize = 2;
const SEARCHES: usize = 16;

/// What the driver is asked.
#[derive(Debug)]
pub enum RelayCommand {
    /// Open the sockets and report it.
    Start {
        /// Of the credentials.
        realm: String,
        /// What they are made with.
        secret: Secret,
    },
    /// Close them.
    Stop,
    /// Send a success answer of this Binding transaction to an address.
    Answer {
        /// Where a member is seen.
        to: SocketAddr,
        /// The member's transaction.
        id: crate::stun::TransactionId,
    },
    /// A member's link comes from here.
    Prove {
        /// Its address.
        ip: IpAddr,
        /// How long that counts.
        lifetime: Duration,
    },
}

/// What the driver says.
#[derive(Debug)]
pub enum RelayInput {
    /// The sockets are open.
    Open {
        /// UDP.
        udp: Vec<SocketAddr>,
        /// TCP and TLS.
        tcp: Vec<SocketAddr>,
        /// Why port 443 is not among them, where it was to be.
        shut: Option<String>,
        /// SHA-256 of the certificate that TLS shows.
        certificate: [u8; 32],
    },
    /// They could not be opened.
    Failed {
        /// Why, for a person.
        why: String,
    },
    /// What the relay did so far.
    Figures(RelayFigures),
}

/// What a relay did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayFigures {
    /// Allocations that stand.
    pub allocations: u64,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Packets and requests refused.
    pub refused: u64,
    /// Packets over a ceiling.
    pub over: u64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Off,
    Opening,
    Open {
        udp: Vec<SocketAddr>,
        tcp: Vec<SocketAddr>,
        shut: Option<String>,
        certificate: [u8; 32],
    },
}

/// A relay that granted something.
#[derive(Debug, Clone)]
struct Found {
    peer: Id,
    grant: Grant,
    rtt: Duration,
    until: Instant,
}

/// Some were asked for one purpose.
#[derive(Debug)]
struct Search {
    request: Option<RequestId>,
    waiting: usize,
    asked: Vec<PeerRef>,
    found: Vec<Found>,
}

/// What a node knows of relays.
#[derive(Debug)]
pub(super) struct Relaying {
    secret: Option<Secret>,
    stage: Stage,
    why: Option<String>,
    check: Option<Instant>,
    /// When the members' addresses are told again.
    prove: Option<Instant>,
    /// When relays are looked for, and the pause after a search in vain.
    look: Option<Instant>,
    pause: Duration,
    figures: RelayFigures,
    searches: BTreeMap<u64, Search>,
    last: u64,
    /// The best of the latest search.
    best: Vec<Found>,
}

impl Relaying {
    pub fn new(now: Instant, wanted: bool) -> Relaying {
        Relaying {
            secret: None,
            stage: Stage::Off,
            why: None,
            check: wanted.then_some(now),
            prove: None,
            look: None,
            pause: NONE_YET.0,
            figures: RelayFigures::default(),
            searches: BTreeMap::new(),
            last: 0,
            best: Vec::new(),
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.check.into_iter().chain(self.look).chain(self.prove).min()
    }
}

impl Node {
    /// This node is in, or hangs on others than before: who may relay for it is asked before it calls.
    pub(super) fn look_for_relays(&mut self, now: Instant) {
        if self.setup.relays {
            (self.relaying.look, self.relaying.pause) = (Some(now + SOON), NONE_YET.0);
        }
    }

    /// A member is at the other end of a link: packets may go to its address, and to what it relays there.
    pub(super) fn relay_to_member(&mut self, ip: IpAddr) {
        if let Stage::Open { .. } = self.relaying.stage {
            self.out.push_back(Output::Relay(RelayCommand::Prove { ip, lifetime: LIFETIME }));
        }
    }

    pub(super) fn relay_timeout(&mut self, now: Instant) {
        if self.relaying.prove.is_some_and(|at| at <= now) {
            self.relaying.prove = Some(now + LIFETIME / 2);
            let members: BTreeSet<_> = self.flows.links().map(|(_, flow, _)| flow.remote.ip()).collect();
            members.into_iter().for_each(|ip| self.relay_to_member(ip));
        }
        if self.relaying.look.is_some_and(|at| at <= now) {
            // Whatever becomes of this search.
            self.relaying.look = Some(now + NONE_YET.1);
            self.find_relays(now, None);
        }
        if self.relaying.check.is_none_or(|at| at > now) {
            return;
        }
        self.relaying.check = Some(now + CHECK);
        let wanted = self.wants_to_relay();
        match (&self.relaying.stage, wanted) {
            (Stage::Off, true) => {
                let mut bytes = [0; 32];
                self.rng.fill(&mut bytes);
                let secret = Secret::new(bytes);
                self.relaying.secret = Some(secret.clone());
                self.relaying.stage = Stage::Opening;
                let realm = self.domain.overlay().to_owned();
                self.out.push_back(Output::Relay(RelayCommand::Start { realm, secret }));
            }
            (Stage::Open { .. } | Stage::Opening, false) => {
                (self.relaying.stage, self.relaying.prove) = (Stage::Off, None);
                self.out.push_back(Output::Relay(RelayCommand::Stop));
            }
            _ => {}
        }
    }

    /// Its sockets are open.
    pub(super) fn serves_relay(&self) -> bool {
        matches!(self.relaying.stage, Stage::Open { .. })
    }

    fn wants_to_relay(&self) -> bool {
        let Some(overlay) = self.overlay.as_ref() else { return false };
        let status = overlay.status();
        let supernode = status.joined && status.tier.is_none_or(|t| t.role == Role::Supernode);
        match self.setup.config.relay.serve {
            Serve::Off => false,
            Serve::On => true,
            Serve::Auto => supernode,
        }
    }

    pub(super) fn on_relay(&mut self, now: Instant, input: RelayInput) {
        match input {
            RelayInput::Open { udp, tcp, shut, certificate } => {
                tracing::info!(?udp, ?tcp, ?shut, "this node relays");
                self.relaying.prove = Some(now);
                (self.relaying.stage, self.relaying.why) = (Stage::Open { udp, tcp, shut, certificate }, None);
            }
            RelayInput::Failed { why } => {
                tracing::warn!(%why, "this node does not relay");
                (self.relaying.stage, self.relaying.why) = (Stage::Off, Some(why));
                self.relaying.check = Some(now + AGAIN);
            }
            RelayInput::Figures(figures) => self.relaying.figures = figures,
        }
    }

    /// A member asks for a credential.
    pub(super) fn on_relay_asked(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let Some(peer) = self.flows.peer(&flow).cloned() else { return };
        let own = self.identity.as_ref().is_some_and(|i| i.user() == peer.user);
        if self.setup.config.relay.whom == RelayFor::Own && !own {
            self.count("relay credentials refused");
            return self.answer(now, tx, message, 403, "This relay is for its owner's devices");
        }
        let Some(grant) = self.grant(now, &peer.user) else {
            return self.answer(now, tx, message, 404, "No relay");
        };
        self.out.push_back(Output::Relay(RelayCommand::Prove { ip: flow.remote.ip(), lifetime: LIFETIME }));
        self.answer_exchange(now, tx, message, RELAY_TYPE, grant.encode());
    }

    fn grant(&self, now: Instant, who: &str) -> Option<Grant> {
        let (Stage::Open { udp, tcp, certificate, .. }, Some(secret)) = (&self.relaying.stage, &self.relaying.secret)
        else {
            return None;
        };
        let minted = secret.mint(who, UnixTime(self.unix(now).secs() + LIFETIME.as_secs()));
        let most = u64::from(self.setup.config.relay.allocations.max(1));
        let mut hosts: Vec<IpAddr> = Vec::new();
        for addr in self.own_addresses() {
            // A router's mapping is of the overlay port alone.
            let mapped = addr != self.flows.locals().overlay && !self.setup.also.contains(&addr);
            if !mapped && !hosts.contains(&addr.ip()) {
                hosts.push(addr.ip());
            }
        }
        Some(Grant {
            hosts,
            udp: udp.first().map_or(0, SocketAddr::port),
            streams: tcp.iter().map(SocketAddr::port).collect::<BTreeSet<_>>().into_iter().collect(),
            realm: self.domain.overlay().to_owned(),
            username: minted.username,
            password: minted.password,
            lifetime: LIFETIME.as_secs() as u32,
            load: (self.relaying.figures.allocations * 100 / most).min(100) as u8,
            certificate: *certificate,
        })
    }

    /// The best relays of the latest search whose credentials are still good for a while, the best one first.
    pub fn best_relays(&self, now: Instant) -> Vec<Grant> {
        let good = self.relaying.best.iter().filter(|f| f.until > now + LIFETIME / 4);
        good.map(|f| f.grant.clone()).collect()
    }

    /// Asks some supernodes anew; with a request the answer goes to whoever made it.
    pub(super) fn find_relays(&mut self, now: Instant, request: Option<RequestId>) {
        if self.relaying.searches.len() >= SEARCHES {
            if let Some(request) = request {
                let e = CommandError::new("too many searches for relays at once", "try again");
                self.reply(request, Err(e));
            }
            return;
        }
        let mut candidates = self.relay_candidates();
        while candidates.len() > ASK {
            let lot = self.rng.below(candidates.len() as u64) as usize;
            candidates.swap_remove(lot);
        }
        self.relaying.last += 1;
        let number = self.relaying.last;
        let mut found = Vec::new();
        let user = self.identity.as_ref().map(|i| i.user().to_owned()).unwrap_or_default();
        if let (Some(grant), Some(me)) = (self.grant(now, &user), self.overlay.as_ref().map(|o| o.me())) {
            found.push(Found { peer: me.id, grant, rtt: Duration::ZERO, until: now + LIFETIME });
        }
        self.relaying
            .searches
            .insert(number, Search { request, waiting: candidates.len(), asked: candidates.clone(), found });
        if candidates.is_empty() {
            return self.relays_found(now, number);
        }
        for peer in candidates {
            let hop = Hop::Peer { id: peer.id, addr: peer.addr };
            let asked = Asked::Relay { search: number, peer: peer.id, sent: now };
            self.exchange(now, &hop, RELAY_TYPE, Grant::ask(), asked);
        }
    }

    /// One that was asked has answered.
    pub(super) fn on_relay_answered(&mut self, now: Instant, search: u64, peer: Id, sent: Instant, answer: &Answer) {
        let grant = if answer.status == 200 { Grant::decode(&answer.body) } else { None };
        if answer.status == 200 && grant.is_none() {
            self.count("relay credentials that nobody can read");
        }
        let Some(under_way) = self.relaying.searches.get_mut(&search) else { return };
        under_way.waiting = under_way.waiting.saturating_sub(1);
        if let Some(grant) = grant {
            let until = now + Duration::from_secs(u64::from(grant.lifetime)).min(LIFETIME);
            let found = Found { peer, grant, rtt: now.since(sent), until };
            // A call does not wait for those who do not answer.
            let first = self.relaying.best.is_empty();
            under_way.found.push(found.clone());
            if first {
                self.relaying.best.push(found);
                self.relays_for_calls(now);
            }
        }
        let Some(under_way) = self.relaying.searches.get(&search) else { return };
        if under_way.waiting == 0 {
            self.relays_found(now, search);
        }
    }

    fn relays_found(&mut self, now: Instant, number: u64) {
        let Some(mut search) = self.relaying.searches.remove(&number) else { return };
        search.found.sort_by_key(|f| (f.cost(), f.peer));
        let offers = search.found.iter().map(|f| f.offer(now)).collect();
        let stun = |f: &Found| {
            let peer = search.asked.iter().find(|p| p.id == f.peer).copied().filter(|_| f.grant.udp != 0);
            let at = |host: &IpAddr| Some(Server { peer: peer?, stun: SocketAddr::new(*host, f.grant.udp) });
            f.grant.hosts.iter().filter_map(at).collect::<Vec<_>>()
        };
        let servers = search.found.iter().flat_map(stun).collect();
        self.relaying.best = search.found;
        self.relaying.best.truncate(KEEP);
        self.survey_by(now, servers);
        self.relays_for_calls(now);
        let pause = if self.relaying.best.len() < KEEP {
            let pause = self.relaying.pause;
            let longest = match self.relaying.best.len() {
                0 if self.survey.needs_relay() => NEEDED,
                0 => NONE_YET.1,
                _ => ONE_ALONE,
            };
            self.relaying.pause = (pause * 2).min(longest);
            pause
        } else {
            self.relaying.pause = NONE_YET.0;
            RENEW
        };
        self.relaying.look = Some(now + pause).filter(|_| self.setup.relays);
        if let Some(request) = search.request {
            self.reply(request, Ok(Reply::Relays { relays: offers }));
        }
    }

    /// Supernodes that are known. Whoever is in the ring is one.
    fn relay_candidates(&self) -> Vec<PeerRef> {
        let Some(overlay) = self.overlay.as_ref() else { return Vec::new() };
        let (status, me) = (overlay.status(), overlay.me());
        let mut all: BTreeMap<Id, PeerRef> = BTreeMap::new();
        let ring = status.successors.iter().chain(&status.predecessor).chain(status.fingers.iter().map(|(_, p)| p));
        all.extend(ring.map(|p| (p.id, *p)));
        if let Some(tier) = &status.tier {
            all.extend([&tier.primary, &tier.backup].into_iter().flatten().map(|(p, _)| (p.id, *p)));
        }
        // An ordinary node may hang on one alone; those that it was in touch with before can relay for it too.
        if all.len() < KEEP {
            all.extend(self.ring.entrance.hosts.answering().into_iter().take(ASK).map(|p| (p.id, p)));
        }
        all.remove(&me.id);
        all.into_values().collect()
    }

    pub(super) fn relay_status(&self) -> Option<RelayStatus> {
        let figures = self.relaying.figures;
        match &self.relaying.stage {
            Stage::Open { udp, tcp, shut, .. } => Some(RelayStatus {
                udp: udp.clone(),
                tcp: tcp.clone(),
                allocations: figures.allocations,
                packets: figures.packets,
                bytes: figures.bytes,
                refused: figures.refused,
                over_ceiling: figures.over,
                shut: shut.clone(),
                why: None,
            }),
            _ => self.relaying.why.clone().map(|why| RelayStatus { why: Some(why), ..RelayStatus::default() }),
        }
    }
}

impl Found {
    /// A round trip of at least a millisecond, so that relays nearby are told apart by their load; a full one is three times as far.
    fn cost(&self) -> u64 {
        let rtt = self.rtt.as_micros().max(1000) as u64;
        rtt + rtt * u64::from(self.grant.load) / 50
    }

    fn offer(&self, now: Instant) -> RelayOffer {
        RelayOffer {
            peer_id: self.peer.to_string(),
            hosts: self.grant.hosts.clone(),
            udp: self.grant.udp,
            streams: self.grant.streams.clone(),
            realm: self.grant.realm.clone(),
            username: self.grant.username.clone(),
            password: self.grant.password.reveal().clone(),
            seconds: self.until.since(now).as_secs(),
            rtt_ms: self.rtt.as_secs_f64() * 1000.0,
            load_percent: self.grant.load,
        }
    }
}
