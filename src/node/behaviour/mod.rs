//! What stands between this node and its supernodes (RFC 5780): found out in the background once relays have granted something, and
//! remembered for each network.
//!
//! Two supernodes take the place of a server with two addresses. The first one's relay answers from both of its ports; the second one is
//! asked over the link that is there anyway to send one packet (`application/chordial-nat+cbor`, `[1, "IP:PORT", transaction]`), before anything of this
//! socket went to it. It sends a Binding answer of 32 bytes, to no other IP address than that of the link's other end, and to each peer only so often:
//! nobody is sent more than was asked with, nor anybody who has not asked.
//!
//! Tested again where the network is another one than before, where it is a day ago, and where the last test could not tell all. Of one
//! family of addresses, that of the overlay address. Not on loopback, not in the laboratory.
//!
//! What it is good for: where no UDP passes, a call dials its relays over TLS at once; where a relay will be needed (the mapping depends on
//! the other end), one is looked for without the long pauses while there is none.

mod memory;

use super::control::NatStatus;
use super::exchange::Asked;
use super::relay::RelayCommand;
use super::{Node, Output, Saved};
use crate::core::{Flow, Id, Instant};
use crate::nat::behaviour::{self, Dependence, Discovery};
use crate::nat::{Scope, scope};
use crate::overlay::PeerRef;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::stun::TransactionId;
use crate::ua::Hop;
use bytes::Bytes;
use memory::{Finding, Memory, Network};
use minicbor::{Decoder, Encoder};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The bodies of these exchanges.
pub const NAT_TYPE: &str = "application/chordial-nat+cbor";
/// From the relays' answers to the test; a spread, since many come back at once after an outage.
const SOON: Duration = Duration::from_secs(2);
const SPREAD: u64 = 3000;
/// The same while there is but one supernode to ask: another one may be found.
const ALONE: Duration = Duration::from_secs(20);
/// How long a finding counts, seconds.
const FRESH: u64 = 86_400;
/// Packets that one peer may ask for in [`WINDOW`], and all of them together.
const OF_ONE: u32 = 6;
const OF_ALL: u32 = 600;
const WINDOW: Duration = Duration::from_secs(60);
/// Peers counted.
const PEERS: usize = 1024;
/// Ports below are those of services; no NAT maps a socket there.
const LOWEST_PORT: u16 = 1024;

/// What the driver is asked: one UDP socket.
#[derive(Debug)]
pub enum ProbeCommand {
    /// Open it at the address that the system sends from towards this one, and report it.
    Open {
        /// The first server.
        towards: SocketAddr,
    },
    /// Send by it.
    Send {
        /// Where to.
        to: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Close it.
    Close,
}

/// What the driver says.
#[derive(Debug)]
pub enum ProbeInput {
    /// The socket is open.
    Opened {
        /// Its address.
        local: SocketAddr,
        /// The router of its network, where the system names one.
        gateway: Option<IpAddr>,
    },
    /// A datagram came.
    Datagram {
        /// From there.
        from: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// It could not be opened.
    Failed {
        /// Why, for a person.
        why: String,
    },
}

/// A supernode with a STUN service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    pub peer: PeerRef,
    pub stun: SocketAddr,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Opening,
    Testing {
        discovery: Box<Discovery>,
        network: Network,
        local: SocketAddr,
        /// The second one takes the first one's place when that does not answer.
        turned: bool,
    },
}

/// What a node knows of the NAT before it.
#[derive(Default)]
pub(super) struct Survey {
    memory: Memory,
    /// Of the network that this node is on.
    current: Option<Finding>,
    servers: Vec<Server>,
    stage: Stage,
    due: Option<Instant>,
    /// What is remembered does not count: the network is another one than before.
    anew: bool,
    /// How many packets were sent for whom, since when.
    sent: BTreeMap<Id, u32>,
    total: u32,
    window: Instant,
}

impl Survey {
    pub fn new(kept: &[u8]) -> Survey {
        Survey { memory: Memory::restore(kept), ..Survey::default() }
    }

    /// What is remembered, as [`Saved::Nat`] has it.
    pub fn file(&self) -> Vec<u8> {
        self.memory.to_bytes()
    }

    /// When [`Node::survey_timeout`] is due.
    pub fn next(&self) -> Option<Instant> {
        let testing = match &self.stage {
            Stage::Testing { discovery, .. } => discovery.poll_timeout(),
            _ => None,
        };
        self.due.into_iter().chain(testing).min()
    }

    /// Who calls from here needs a relay, unless the other end lets anybody in.
    pub fn needs_relay(&self) -> bool {
        let behaviour = self.current.as_ref().map(|f| f.behaviour);
        match behaviour {
            Some(Some(found)) => !found.no_nat && found.mapping.is_some_and(|m| m != Dependence::Independent),
            Some(None) => true,
            None => false,
        }
    }

    /// One more packet for a peer; false where it has had enough.
    fn spend(&mut self, now: Instant, peer: Id) -> bool {
        if now.since(self.window) >= WINDOW {
            (self.window, self.total) = (now, 0);
            self.sent.clear();
        }
        let known = self.sent.contains_key(&peer);
        if self.total >= OF_ALL || (!known && self.sent.len() >= PEERS) {
            return false;
        }
        let sent = self.sent.entry(peer).or_default();
        if *sent >= OF_ONE {
            return false;
        }
        *sent += 1;
        self.total += 1;
        true
    }
}

impl Node {
    /// Supernodes have granted something, the best one first: what is needed for a test.
    pub(super) fn survey_by(&mut self, now: Instant, mut servers: Vec<Server>) {
        let own = self.flows.locals().overlay.ip();
        if self.flows.locals().clear || own.is_loopback() || self.is_alone() {
            return;
        }
        // The way outside is the one of interest; a neighbour on the same network says nothing of it.
        servers.sort_by_key(|s| matches!(scope(s.stun.ip()), Scope::Private | Scope::Link));
        let mut chosen: Vec<Server> = Vec::new();
        for server in servers {
            let other = chosen.iter().all(|c| c.peer.id != server.peer.id && c.stun.ip() != server.stun.ip());
            if chosen.len() < 2 && other && server.stun.is_ipv4() == own.is_ipv4() {
                chosen.push(server);
            }
        }
        if chosen.is_empty() || !matches!(self.survey.stage, Stage::Idle) {
            return;
        }
        // A search that found fewer says nothing against the others.
        if chosen.len() >= self.survey.servers.len() || self.survey.anew {
            self.survey.servers = chosen;
        }
        let unix = self.unix(now);
        let both = self.survey.servers.len() > 1;
        let good = |f: &Finding| unix.secs().abs_diff(f.when.secs()) < FRESH && (f.against.len() > 1 || !both);
        let fresh = self.survey.current.as_ref().is_some_and(good);
        if self.survey.anew || !fresh {
            let soon = if both { SOON } else { ALONE };
            let due = now + soon + Duration::from_millis(self.rng.below(SPREAD));
            self.survey.due = Some(self.survey.due.map_or(due, |at| at.min(due)));
        }
    }

    /// This machine is on another network: what was found does not count here. The relays' next answers begin a test.
    pub(super) fn survey_anew(&mut self, now: Instant) {
        self.end_survey();
        (self.survey.current, self.survey.due, self.survey.anew) = (None, None, true);
        self.paths.no_udp = false;
        self.look_for_relays(now);
    }

    pub(super) fn survey_timeout(&mut self, now: Instant) {
        if self.survey.due.is_some_and(|at| at <= now) {
            self.survey.due = None;
            if let (Stage::Idle, Some(first)) = (&self.survey.stage, self.survey.servers.first()) {
                self.out.push_back(Output::Probe(ProbeCommand::Open { towards: first.stun }));
                self.survey.stage = Stage::Opening;
            }
        }
        if let Stage::Testing { discovery, .. } = &mut self.survey.stage {
            discovery.handle_timeout(now);
            self.drive_survey(now);
        }
    }

    pub(super) fn on_probe(&mut self, now: Instant, input: ProbeInput) {
        match (input, &mut self.survey.stage) {
            (ProbeInput::Opened { local, gateway }, Stage::Opening) => {
                let network = Network { own: local.ip(), gateway };
                let unix = self.unix(now);
                let known = self.survey.memory.of(&network).filter(|f| {
                    !self.survey.anew && f.against.len() > 1 && unix.secs().abs_diff(f.when.secs()) < FRESH
                });
                match known.cloned() {
                    Some(known) if self.survey.current.is_none() => {
                        self.end_survey();
                        self.heed_finding(known);
                    }
                    _ => self.test(now, network, local, false),
                }
            }
            (ProbeInput::Datagram { from, bytes }, Stage::Testing { discovery, .. }) => {
                discovery.handle(now, from, &bytes);
                self.drive_survey(now);
            }
            (ProbeInput::Failed { why }, Stage::Opening) => {
                tracing::debug!(%why, "the NAT is not looked at");
                self.survey.stage = Stage::Idle;
            }
            _ => {}
        }
    }

    fn test(&mut self, now: Instant, network: Network, local: SocketAddr, turned: bool) {
        let mut servers = self.survey.servers.iter().map(|s| s.stun).collect::<Vec<_>>();
        if turned {
            servers.reverse();
        }
        let Some(first) = servers.first().copied() else { return self.end_survey() };
        let mut discovery = Discovery::new(now, local, first, servers.get(1).copied(), self.rng.fork());
        // Turned round, packets went to the other one already.
        if !turned {
            discovery.ask_second();
        }
        self.survey.stage = Stage::Testing { discovery: Box::new(discovery), network, local, turned };
        self.drive_survey(now);
    }

    fn drive_survey(&mut self, now: Instant) {
        loop {
            let Stage::Testing { discovery, network, local, turned } = &mut self.survey.stage else { return };
            let (network, local, turned) = (*network, *local, *turned);
            match discovery.poll_output() {
                Some(behaviour::Output::Datagram { to, bytes }) => {
                    self.out.push_back(Output::Probe(ProbeCommand::Send { to, bytes }));
                }
                Some(behaviour::Output::Ask { mapped, id }) => self.ask_second(now, mapped, id),
                Some(behaviour::Output::Silent) if !turned && self.survey.servers.len() > 1 => {
                    return self.test(now, network, local, true);
                }
                Some(behaviour::Output::Silent) => return self.surveyed(now, network, None),
                Some(behaviour::Output::Done(found)) => return self.surveyed(now, network, Some(found)),
                None => return,
            }
        }
    }

    fn surveyed(&mut self, now: Instant, network: Network, behaviour: Option<behaviour::Behaviour>) {
        self.end_survey();
        let against = self.survey.servers.iter().map(|s| s.stun).collect();
        let finding = Finding { network, when: self.unix(now), behaviour, against };
        tracing::info!(?finding, "what stands between this machine and others");
        self.survey.anew = false;
        self.survey.memory.keep(finding.clone());
        self.out.push_back(Output::Save { what: Saved::Nat, bytes: Bytes::from(self.survey.file()) });
        self.heed_finding(finding);
    }

    fn heed_finding(&mut self, finding: Finding) {
        // What calls found since counts for more than a day-old test; each of them sets it anew.
        self.paths.no_udp |= finding.behaviour.is_none();
        self.survey.current = Some(finding);
    }

    fn end_survey(&mut self) {
        if !matches!(std::mem::take(&mut self.survey.stage), Stage::Idle) {
            self.out.push_back(Output::Probe(ProbeCommand::Close));
        }
    }

    /// Asks the second server for a packet.
    fn ask_second(&mut self, now: Instant, mapped: SocketAddr, id: TransactionId) {
        let Some(peer) = self.survey.servers.get(1).map(|s| s.peer) else { return };
        let hop = Hop::Peer { id: peer.id, addr: peer.addr };
        self.exchange(now, &hop, NAT_TYPE, encode(mapped, id), Asked::Nat);
    }

    /// It has sent it, or does not.
    pub(super) fn on_nat_answered(&mut self, now: Instant, status: u16) {
        if let Stage::Testing { discovery, .. } = &mut self.survey.stage
            && status != 200
        {
            tracing::debug!(status, "the second supernode sends nothing to test the NAT with");
            discovery.refused(now);
            self.drive_survey(now);
        }
    }

    /// A member wants a packet from here.
    pub(super) fn on_nat_asked(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let Some(peer) = self.flows.peer(&flow).map(|p| p.peer_id) else { return };
        let Some((to, id)) = decode(message.body()) else { return self.answer(now, tx, message, 400, "Not read") };
        let (to_ip, own) = (to.ip().to_canonical(), flow.remote.ip().to_canonical());
        if to_ip != own || to.port() < LOWEST_PORT {
            self.count("packets refused to others than who asked");
            return self.answer(now, tx, message, 403, "Not your address");
        }
        if !self.serves_relay() {
            return self.answer(now, tx, message, 404, "No relay");
        }
        if !self.survey.spend(now, peer) {
            self.count("packets refused to who asked too often");
            return self.answer(now, tx, message, 503, "Too often");
        }
        self.out.push_back(Output::Relay(RelayCommand::Answer { to: SocketAddr::new(to_ip, to.port()), id }));
        self.answer_exchange(now, tx, message, NAT_TYPE, Vec::new());
    }

    /// For `status`; none where nothing was found yet.
    pub(super) fn nat_status(&self) -> Option<NatStatus> {
        let finding = self.survey.current.as_ref()?;
        // A lone supernode cannot tell whether other addresses get in too.
        let lone = finding.against.len() < 2;
        let told = |d: Option<Dependence>| d.filter(|d| !lone || *d != Dependence::Address);
        let word = |d: Option<Dependence>| match d {
            None => "unknown",
            Some(Dependence::Independent) => "independent",
            Some(Dependence::Address) => "address",
            Some(Dependence::AddressAndPort) => "address-and-port",
        };
        let (mapping, filtering, mapped) = match &finding.behaviour {
            None => ("blocked", "blocked", None),
            Some(found) if found.no_nat => ("none", word(told(found.filtering)), Some(found.mapped)),
            Some(found) => (word(found.mapping), word(told(found.filtering)), Some(found.mapped)),
        };
        Some(NatStatus {
            mapping: mapping.into(),
            filtering: filtering.into(),
            mapped,
            when: finding.when.secs(),
            against: finding.against.clone(),
            says: says(mapping, filtering),
        })
    }
}

/// The same for a person.
fn says(mapping: &str, filtering: &str) -> String {
    let seen = match mapping {
        "blocked" => return "no UDP passes: calls go through relays over TLS".into(),
        "none" => "no NAT",
        "independent" => "a NAT that shows one port to all",
        "unknown" => "a NAT",
        _ => "a NAT that shows each other end another port (symmetric): most calls need a relay",
    };
    let lets_in = match filtering {
        "independent" => "lets in packets from anywhere",
        "address" => "lets in packets from addresses that were written to",
        "address-and-port" => "lets in answers alone",
        _ => return seen.into(),
    };
    format!("{seen}; {lets_in}")
}

/// What is asked with: `[1, "IP:PORT", transaction]`.
fn encode(to: SocketAddr, id: TransactionId) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    // A `Vec` takes whatever is written.
    let _ = out.array(3).and_then(|o| o.u64(1)).and_then(|o| o.str(&to.to_string())).and_then(|o| o.bytes(&id));
    out.into_writer()
}

fn decode(bytes: &[u8]) -> Option<(SocketAddr, TransactionId)> {
    let mut read = Decoder::new(bytes);
    if read.array().ok()?? < 3 || read.u64().ok()? != 1 {
        return None;
    }
    Some((read.str().ok()?.parse().ok()?, read.bytes().ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_there_and_back() {
        let (to, id) = ("[2001:db8::1]:4000".parse().unwrap(), [7; 12]);
        let good = encode(to, id);
        assert_eq!(decode(&good), Some((to, id)));
        for end in 0..good.len() {
            assert_eq!(decode(&good[..end]), None);
        }
    }

    #[test]
    fn nobody_gets_more_than_a_few_packets() {
        let mut survey = Survey::default();
        let at = Instant::from_millis(1_000_000);
        let peer = |n: u16| Id(std::array::from_fn(|i| if i < 2 { n.to_be_bytes()[i] } else { 0 }));
        let sent = (0..100).filter(|_| survey.spend(at, peer(1))).count();
        assert_eq!(sent as u32, OF_ONE);
        let sent = (2..10_000).filter(|n| survey.spend(at, peer(*n))).count();
        assert_eq!(sent as u32, OF_ALL - OF_ONE);
        assert!(survey.sent.len() <= PEERS);
        assert!(survey.spend(at + WINDOW, peer(1)));
    }
}
