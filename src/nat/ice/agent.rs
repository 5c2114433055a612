//! One ICE session. See the module above.

use super::recheck::Recheck;
use super::{Clocks, Datagram, Local, probe};
use crate::core::Instant;
use crate::sdp::ice::{self, CandidateKind, Credentials, TcpType};
use is::stun::{StunMessage, StunPacket};
use is::{IceAgent, IceAgentEvent, IceCreds, Protocol};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Checks leave at least this far apart (RFC 8445 section 14.2: Ta).
const PACE: Duration = Duration::from_millis(20);
/// First repetition of a check, and the longest wait between two checks of a pair, working ones included.
const CHECK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(1500));
/// Checks without an answer after which a pair is given up: about ten seconds.
const CHECKS: usize = 8;
/// Pairs of one session (RFC 8445 section 6.1.2.5).
const PAIRS: usize = 100;
/// Candidates of either end.
const CANDIDATES: usize = 32;
/// Silence on the chosen pair after which it is taken for dead: three checks.
const SILENCE: Duration = Duration::from_secs(5);
/// An answer older than this says nothing of a way any more: two checks.
const FRESH: Duration = Duration::from_secs(3);
/// How much longer the answerer waits, so that not both restart at once.
const DEFERENCE: Duration = Duration::from_secs(3);
/// Silence that ends consent (RFC 7675 section 5.1).
const CONSENT: Duration = Duration::from_secs(30);

/// Port of what connects over TCP (RFC 6544 section 4.5), and name of the end here of all connections made from one address.
pub(super) const ACTIVE: u16 = 9;

/// Which way media take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The socket's address, or the relayed one.
    pub local: SocketAddr,
    /// The other end's.
    pub remote: SocketAddr,
    /// What `local` is: host or relayed.
    pub local_kind: CandidateKind,
    /// What `remote` is.
    pub remote_kind: CandidateKind,
    /// A NAT stands between: the other end sees another address than `local`, or is seen under another than it has.
    pub translated: bool,
    /// Over TCP.
    pub tcp: bool,
}

impl Pair {
    /// What cuts one of the two ways is likely to cut the other: they have a relay in common, or both lead straight from the same
    /// address to the same address; with `partly`, also where only one end is the same.
    pub fn shares(&self, other: &Pair, partly: bool) -> bool {
        let straight = |p: &Pair| p.relays().next().is_none();
        if straight(self) && straight(other) {
            let (here, there) = (self.local.ip() == other.local.ip(), self.remote.ip() == other.remote.ip());
            return if partly { here || there } else { here && there };
        }
        self.relays().any(|relay| other.relays().any(|o| o == relay))
    }

    fn relays(&self) -> impl Iterator<Item = IpAddr> {
        let ours = (self.local_kind == CandidateKind::Relayed).then_some(self.local.ip());
        let theirs = (self.remote_kind == CandidateKind::Relayed).then_some(self.remote.ip());
        ours.into_iter().chain(theirs)
    }
}

/// What a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a check or its answer.
    Send(Datagram),
    /// Media go this way from now on.
    Selected(Pair),
    /// The chosen way is silent, or none has been found: a restart is due.
    Silent,
    /// The other end's consent is over (RFC 7675 section 5.1): nothing may be sent.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Silent,
    Expired,
}

/// See the module.
#[derive(Debug)]
pub struct Agent {
    ice: IceAgent,
    clocks: Clocks,
    tie_breaker: u64,
    /// How the other end sees us, by our address and its, and when it said so last.
    mapped: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, Instant)>,
    /// A pair that the crate has chosen for an answer of long ago: it counts when it answers.
    stale: Option<(SocketAddr, SocketAddr)>,
    selected: Option<Pair>,
    /// When the chosen pair answered last; the beginning where none is chosen.
    heard: Instant,
    /// What was told of the silence.
    told: Told,
    /// Checks of what has been given up, while the way leads through a relay; where they are wanted.
    recheck: Option<Recheck>,
    /// When a check is due.
    due: Option<Instant>,
    out: VecDeque<Output>,
}

impl Agent {
    /// Begins. The offerer is `controlling`; `tie_breaker` decides when both say they are.
    pub fn new(clocks: Clocks, now: Instant, local: &Credentials, controlling: bool, tie_breaker: u64) -> Agent {
        let ice = session(creds(local), controlling, tie_breaker);
        let mut agent = Agent {
            ice,
            clocks,
            tie_breaker,
            mapped: BTreeMap::new(),
            stale: None,
            selected: None,
            heard: now,
            told: Told::Nothing,
            recheck: None,
            due: None,
            out: VecDeque::new(),
        };
        agent.handle_timeout(now);
        agent
    }

    /// A way that needs no relay is looked for as long as the chosen one needs one.
    pub fn keep_looking(&mut self) {
        self.recheck.get_or_insert_default();
    }

    /// The other end's credentials and candidates, as its description says.
    pub fn set_remote(&mut self, now: Instant, remote: &ice::Ice) {
        self.ice.set_remote_credentials(creds(&remote.credentials));
        self.add_remote(now, &remote.candidates);
    }

    /// Candidates that the other end has told later.
    pub fn add_remote(&mut self, now: Instant, candidates: &[ice::Candidate]) {
        // Nobody else's description leads to this machine's own services.
        let near = self.ice.local_candidates().any(|c| is_loopback(c.addr()));
        for candidate in candidates.iter().filter(|c| near || !is_loopback(c.addr)) {
            if self.ice.remote_candidates().count() >= CANDIDATES {
                break;
            }
            let (kind, foundation) = (kind_of(candidate.kind), candidate.foundation.clone());
            let (priority, addr) = (candidate.priority, candidate.addr);
            let protocol = match candidate.tcp {
                None => Protocol::Udp,
                Some(TcpType::Passive) => Protocol::Tcp,
                // Whoever connects is seen when it does.
                Some(TcpType::Active) => continue,
            };
            self.forget_guess(candidate);
            let parts = is::Candidate::from_parts(foundation, 1, protocol, priority, addr, kind, None, None, None);
            self.ice.add_remote_candidate(parts);
        }
        self.look_again(now);
        self.handle_timeout(now);
    }

    /// A check overtook the word of where it came from: the address was taken for a peer-reflexive one, which counts for more than a
    /// relay's does, and the crate keeps the pair that counts for more. So a pair by a relay would stand above all that lead straight.
    fn forget_guess(&mut self, told: &ice::Candidate) {
        let guessed = |c: &is::Candidate| {
            c.kind() == is::CandidateKind::PeerReflexive && c.addr() == told.addr && is_tcp(c) == told.tcp.is_some()
        };
        let guess = self.ice.remote_candidates().find(guessed);
        if let Some(guess) = guess.filter(|c| c.prio() > told.priority) {
            self.ice.invalidate_candidate(&guess);
        }
    }

    fn look_again(&mut self, now: Instant) {
        if let Some(recheck) = &mut self.recheck {
            recheck.look_soon(now);
        }
    }

    /// A candidate of ours.
    pub fn add_local(&mut self, now: Instant, local: &Local) {
        if self.ice.local_candidates().count() < CANDIDATES
            && let Some(made) = candidate(local.told.kind, local.told.addr, local.base, local.told.tcp)
        {
            self.ice.add_local_candidate(made);
        }
        self.look_again(now);
        self.handle_timeout(now);
    }

    /// A STUN message came to one of our addresses; false when it is not of this session.
    pub fn handle(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &[u8]) -> bool {
        let Ok(message) = StunMessage::parse(datagram) else { return false };
        let proto = if self.has_tcp(local) { Protocol::Tcp } else { Protocol::Udp };
        let packet = StunPacket { proto, source: from, destination: local, message };
        if let Some(recheck) = self.recheck.as_mut().filter(|r| r.is_answer(&packet)) {
            recheck.handle(self.clocks.system(now), packet);
            return true;
        }
        if !self.ice.handle_packet(self.clocks.system(now), packet) {
            return false;
        }
        if let Some((_, mapped)) = probe::mapped_address(datagram) {
            if self.mapped.len() < PAIRS || self.mapped.contains_key(&(local, from)) {
                self.mapped.insert((local, from), (mapped, now));
            }
            if self.stale == Some((local, from)) {
                self.select(now, local, from);
            }
            if self.selected.is_some_and(|s| (s.local, s.remote) == (local, from)) {
                (self.heard, self.told) = (now, Told::Nothing);
            }
        }
        // A nomination counts at once, and the check that it asks for leaves at once.
        self.handle_timeout(now);
        true
    }

    /// Checks what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ice.handle_timeout(self.clocks.system(now));
        self.drain(now);
        if let Some(recheck) = &mut self.recheck {
            recheck.handle_timeout(now, self.clocks, &self.ice, self.tie_breaker);
            self.out.extend(std::iter::from_fn(|| recheck.poll_send()).map(Output::Send));
        }
        if self.told == Told::Nothing && self.silence_due() <= now {
            self.told = Told::Silent;
            self.out.push_back(Output::Silent);
        }
        if self.told == Told::Silent && self.heard + CONSENT <= now {
            self.told = Told::Expired;
            self.out.push_back(Output::Expired);
        }
    }

    /// When [`Agent::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = match self.told {
            Told::Nothing => Some(self.silence_due()),
            Told::Silent => Some(self.heard + CONSENT),
            Told::Expired => None,
        };
        let recheck = self.recheck.as_ref().and_then(Recheck::poll_timeout);
        self.due.into_iter().chain(silence).chain(recheck).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When the chosen way answered last; the beginning where none is chosen.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// The way that media take.
    pub fn selected(&self) -> Option<Pair> {
        self.selected
    }

    /// What the way between these addresses would be.
    pub fn between(&self, local: SocketAddr, remote: SocketAddr) -> Pair {
        self.pair(local, remote)
    }

    /// Before anything works the other end may be late; afterwards it answers every check.
    fn silence_due(&self) -> Instant {
        let patience = if self.selected.is_some() { SILENCE } else { self.ice.ice_timeout() };
        let deference = if self.ice.controlling() { Duration::ZERO } else { DEFERENCE };
        self.heard + patience + deference
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                // The crate goes from a pair that has failed to others that answered once, one after the other.
                match self.mapped.get(&(source, destination)) {
                    Some((_, at)) if *at + FRESH <= now => self.stale = Some((source, destination)),
                    _ => self.select(now, source, destination),
                }
            }
        }
        while let Some(transmit) = self.ice.poll_transmit() {
            let bytes = transmit.contents.to_vec();
            self.out.push_back(Output::Send(Datagram { local: transmit.source, to: transmit.destination, bytes }));
        }
        self.due = self.ice.poll_timeout().map(|at| self.clocks.ours(at));
    }

    fn select(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        let pair = self.pair(local, remote);
        (self.selected, self.heard, self.told, self.stale) = (Some(pair), now, Told::Nothing, None);
        if let Some(recheck) = &mut self.recheck {
            recheck.on_selected(now, pair.tcp || pair.relays().next().is_some());
        }
        self.out.push_back(Output::Selected(pair));
    }

    /// An address of ours is one for TCP.
    fn has_tcp(&self, local: SocketAddr) -> bool {
        self.ice.local_candidates().any(|c| c.addr() == local && c.kind() == is::CandidateKind::Host && is_tcp(&c))
    }

    fn pair(&self, local: SocketAddr, remote: SocketAddr) -> Pair {
        let relayed = self.ice.local_candidates().any(|c| c.addr() == local && c.kind() == is::CandidateKind::Relayed);
        let local_kind = if relayed { CandidateKind::Relayed } else { CandidateKind::Host };
        let theirs = self.ice.remote_candidates().filter(|c| c.addr() == remote).max_by_key(is::Candidate::prio);
        let remote_kind = theirs.map_or(CandidateKind::PeerReflexive, |c| ours(c.kind()));
        let (tcp, mapped) = (self.has_tcp(local), self.mapped.get(&(local, remote)).map(|(mapped, _)| *mapped));
        let translated = match tcp {
            // Whoever connects does so from any port: only other hosts count.
            true => {
                let told = |c: is::Candidate| c.kind() == is::CandidateKind::Host && c.addr().ip() == remote.ip();
                mapped.is_some_and(|m| m.ip() != local.ip()) || !self.ice.remote_candidates().any(told)
            }
            false => {
                let seen = matches!(remote_kind, CandidateKind::ServerReflexive | CandidateKind::PeerReflexive);
                mapped.is_some_and(|m| m != local) || seen
            }
        };
        Pair { local, remote, local_kind, remote_kind, translated, tcp }
    }
}

/// A session of the crate's, with our timing.
pub(super) fn session(local: IceCreds, controlling: bool, tie_breaker: u64) -> IceAgent {
    let mut ice = IceAgent::new(local);
    ice.set_controlling(controlling);
    ice.set_control_tie_breaker(tie_breaker);
    ice.set_timing_advance(PACE);
    ice.set_initial_stun_rto(CHECK.0);
    ice.set_max_stun_rto(CHECK.1);
    ice.set_max_stun_retransmits(CHECKS);
    ice.set_max_candidate_pairs(PAIRS);
    ice.set_local_preference(local_preference);
    ice
}

/// Over TCP by who connects, that end first (RFC 6544 section 4.2). By the type preferences of the crate what is straight over TCP comes after
/// all that is over UDP and straight, and before relays.
fn local_preference(candidate: &is::Candidate, same: usize) -> u32 {
    let plain = is::default_local_preference(candidate, same);
    let first = match (is_tcp(candidate), candidate.addr().port()) {
        (false, _) => return plain,
        (true, ACTIVE) => 6,
        (true, _) => 4,
    };
    first << 13 | plain & 0x1fff
}

fn is_tcp(candidate: &is::Candidate) -> bool {
    candidate.proto() == Protocol::Tcp
}

/// How the other end is told of a candidate of ours; `same` others of its kind and family came before it.
pub(super) fn describe(
    kind: CandidateKind,
    addr: SocketAddr,
    base: SocketAddr,
    tcp: Option<TcpType>,
    same: usize,
) -> Option<ice::Candidate> {
    let made = candidate(kind, addr, base, tcp)?;
    let line = made.to_sdp_string();
    let foundation = line.trim_start_matches("candidate:").split(' ').next()?.to_owned();
    // Type preference, local preference, component (RFC 8445 section 5.1.2.1): the middle is what the agent will count by.
    let priority = made.prio() & 0xff00_00ff | local_preference(&made, same) << 8;
    Some(ice::Candidate { foundation, priority, addr, kind, tcp })
}

pub(super) fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

fn candidate(kind: CandidateKind, addr: SocketAddr, base: SocketAddr, tcp: Option<TcpType>) -> Option<is::Candidate> {
    if tcp.is_some() {
        // Nothing else over TCP is gathered.
        return is::Candidate::host(addr, Protocol::Tcp).ok();
    }
    let udp = Protocol::Udp;
    let made = match kind {
        CandidateKind::Host => is::Candidate::host(addr, udp),
        CandidateKind::ServerReflexive => is::Candidate::server_reflexive(addr, base, udp),
        CandidateKind::Relayed => is::Candidate::relayed(addr, base, udp),
        CandidateKind::PeerReflexive => return None,
    };
    made.ok()
}

fn creds(credentials: &Credentials) -> IceCreds {
    IceCreds { ufrag: credentials.ufrag.clone(), pass: credentials.pwd.reveal().clone() }
}

fn kind_of(kind: CandidateKind) -> is::CandidateKind {
    match kind {
        CandidateKind::Host => is::CandidateKind::Host,
        CandidateKind::ServerReflexive => is::CandidateKind::ServerReflexive,
        CandidateKind::PeerReflexive => is::CandidateKind::PeerReflexive,
        CandidateKind::Relayed => is::CandidateKind::Relayed,
    }
}

fn ours(kind: is::CandidateKind) -> CandidateKind {
    match kind {
        is::CandidateKind::Host => CandidateKind::Host,
        is::CandidateKind::ServerReflexive => CandidateKind::ServerReflexive,
        is::CandidateKind::PeerReflexive => CandidateKind::PeerReflexive,
        is::CandidateKind::Relayed => CandidateKind::Relayed,
    }
}
