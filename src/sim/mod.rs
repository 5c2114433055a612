//! L5: the simulator. The very node that takes real calls, many times, on a virtual clock and a virtual network.
//!
//! Peers join one by one through a peer that is already in, each registers its user, and then users are
//! looked up from anywhere. Peers' keys, signatures and SIP messages are the real ones; TLS is not run
//! (its outcome, the proven peer, is handed to both nodes), and no voice is sent.
//!
//! The same options and seed give the same history, byte for byte: [`Report::history_hash`] is a hash over
//! the time, the receiver and the bytes of everything that arrived.

mod network;
mod report;

pub use network::LinkModel;
pub use report::Report;

use crate::config::Config;
use crate::core::{ConnId, Flow, Instant, Rng, Transport, UnixTime};
use crate::identity::{Expect, Identity, Proven, Verified};
use crate::node::control::{Command, Event, Reply, RequestId};
use crate::node::{Input, Node, Output, Setup};
use network::{Arrival, Host, Network};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Peers, 1 to 100,000.
    pub peers: usize,
    /// Of a hundred peers, so many are in the ring and the others hang on them; 1 to 100.
    pub supernodes: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Lookups after all have joined.
    pub lookups: usize,
    /// How links behave.
    pub link: LinkModel,
    /// Time between two joins.
    pub join_every: Duration,
    /// Time between the last join and the first lookup.
    pub settle: Duration,
    /// Time between two lookups.
    pub lookup_every: Duration,
    /// Chord as in the paper, to compare with.
    pub plain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            peers: 200,
            supernodes: 100,
            seed: 1,
            lookups: 1000,
            link: LinkModel { latency: Duration::from_millis(20), loss: 0.0 },
            join_every: Duration::from_millis(100),
            settle: Duration::from_secs(20),
            lookup_every: Duration::from_millis(20),
            plain: false,
        }
    }
}

/// Why a simulation cannot run.
#[derive(Debug, Error)]
pub enum SimError {
    /// An option is out of its range.
    #[error("{0}")]
    Option(&'static str),
    /// A node could not be made.
    #[error("peer {peer}: {why}")]
    Node {
        /// Its index.
        peer: usize,
        /// Why.
        why: String,
    },
}

/// How far it is, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Peers in the ring.
    pub joined: usize,
    /// Lookups answered.
    pub answered: usize,
    /// Virtual time, seconds.
    pub virtual_s: f64,
}

/// Bytes around a message on a link: the record of TLS 1.3, TCP and IP, and the acknowledgement.
const AROUND: u64 = 22 + 40 + 40;
const START: UnixTime = UnixTime(1_800_000_000);

struct Peer {
    node: Node,
    verified: Arc<Verified>,
    addr: SocketAddr,
    wake: Option<Instant>,
    received: u64,
    /// Sent and received, TLS, TCP and IP around each message included.
    bytes: u64,
    joined: bool,
}

struct World {
    net: Network,
    peers: Vec<Peer>,
    by_addr: BTreeMap<SocketAddr, Host>,
    hash: blake3::Hasher,
    report: Report,
    /// Of a hundred peers, these are in the ring.
    supernodes: usize,
}

/// Runs a simulation to its end; `progress` is called about once a virtual second.
///
/// # Errors
/// [`SimError::Option`] for options out of range; [`SimError::Node`] when a node cannot be made.
pub fn run(options: &Options, mut progress: impl FnMut(Progress)) -> Result<Report, SimError> {
    if options.peers == 0 || options.peers > 100_000 {
        return Err(SimError::Option("--peers must be 1 to 100000"));
    }
    if !(1..=100).contains(&options.supernodes) {
        return Err(SimError::Option("--supernodes must be 1 to 100 percent"));
    }
    if !(0.0..0.9).contains(&options.link.loss) {
        return Err(SimError::Option("--loss must be at least 0 and below 0.9"));
    }
    let mut rng = Rng::from_seed(options.seed);
    let mut world = World {
        net: Network::new(options.link, rng.fork()),
        peers: Vec::with_capacity(options.peers),
        by_addr: BTreeMap::new(),
        hash: blake3::Hasher::new(),
        report: Report::new(options),
        supernodes: options.supernodes,
    };
    let mut now = Instant::ZERO;
    let mut next_report = now;
    for i in 0..options.peers {
        let via = if i == 0 { None } else { Some(world.peers[rng.below(i as u64) as usize].addr) };
        world.add(i, via, now, options.plain, rng.fork())?;
        now += options.join_every;
        world.run_until(now);
        if now >= next_report {
            next_report = now + Duration::from_secs(1);
            progress(world.progress(now));
        }
    }
    // The first half to come to rest, the second to see what a ring at rest says.
    world.run_until(now + options.settle / 2);
    let before: u64 = world.peers.iter().map(|p| p.bytes).sum();
    now += options.settle;
    world.run_until(now);
    let after: u64 = world.peers.iter().map(|p| p.bytes).sum();
    world.report.settled(after - before, options.settle / 2);
    world.report.lookup_phase_begins(world.peers.iter().map(|p| p.received));
    for i in 0..options.lookups {
        let from = rng.below(options.peers as u64) as usize;
        let target = user(rng.below(options.peers as u64) as usize);
        let command = Command::Lookup { target, iterative: false };
        world.hand(from, now, Input::Command { request: RequestId(i as u64 + 1), command });
        now += options.lookup_every;
        world.run_until(now);
        if now >= next_report {
            next_report = now + Duration::from_secs(1);
            progress(world.progress(now));
        }
    }
    now += Duration::from_secs(10);
    world.run_until(now);
    progress(world.progress(now));
    let joined = world.peers.iter().filter(|p| p.joined).count();
    let received: Vec<u64> = world.peers.iter().map(|p| p.received).collect();
    world.report.finish(now, joined, &received, world.hash.finalize().to_hex().as_str());
    Ok(world.report)
}

/// User name of a simulated peer.
fn user(i: usize) -> String {
    format!("user{i}")
}

fn address(i: usize) -> IpAddr {
    let [_, a, b, c] = (i as u32 + 1).to_be_bytes();
    Ipv4Addr::new(10, a, b, c).into()
}

impl World {
    fn add(
        &mut self,
        i: Host,
        via: Option<SocketAddr>,
        now: Instant,
        plain: bool,
        mut rng: Rng,
    ) -> Result<(), SimError> {
        let fault = |why: String| SimError::Node { peer: i, why };
        let mut config = Config::default();
        config.overlay.open = true;
        // By turns: every hundredth of the peers has its share.
        let share = i * self.supernodes % 100;
        let ring = i == 0 || share < self.supernodes;
        config.overlay.role = if ring { "supernode" } else { "ordinary" }.into();
        config.overlay.bootstrap = via.into_iter().map(Into::into).collect();
        config.overlay.plain_chord = plain;
        config.user.name = user(i);
        let identity =
            Identity::open(&config.overlay.name, &user(i), START, &mut rng).map_err(|e| fault(e.to_string()))?;
        let verified = identity.verified(START).map_err(|e| fault(e.to_string()))?;
        let (overlay, sip) = (SocketAddr::new(address(i), 5061), SocketAddr::new(address(i), 5060));
        let setup = Setup::new(config, Some(identity), sip, overlay, START);
        let node = Node::new(now, setup, rng);
        self.by_addr.insert(overlay, i);
        let peer = Peer {
            node,
            verified: Arc::new(verified),
            addr: overlay,
            wake: None,
            received: 0,
            bytes: 0,
            joined: false,
        };
        self.peers.push(peer);
        self.drain(i, now);
        Ok(())
    }

    fn progress(&self, now: Instant) -> Progress {
        Progress {
            joined: self.peers.iter().filter(|p| p.joined).count(),
            answered: self.report.lookups_answered(),
            virtual_s: now.as_micros() as f64 / 1e6,
        }
    }

    fn run_until(&mut self, until: Instant) {
        while let Some((at, host, arrival)) = self.net.next(until) {
            self.arrive(at, host, arrival);
        }
    }

    fn note(&mut self, at: Instant, host: Host, kind: u8, bytes: &[u8]) {
        self.hash.update(&at.as_micros().to_le_bytes());
        self.hash.update(&(host as u64).to_le_bytes());
        self.hash.update(&[kind]);
        self.hash.update(bytes);
    }

    fn arrive(&mut self, at: Instant, host: Host, arrival: Arrival) {
        let input = match arrival {
            Arrival::Wake => {
                if self.peers[host].wake == Some(at) {
                    self.peers[host].wake = None;
                    self.peers[host].node.handle_timeout(at);
                    self.drain(host, at);
                }
                return;
            }
            Arrival::Datagram { from, to, bytes } => {
                self.peers[host].received += 1;
                self.note(at, host, 1, &bytes);
                Input::Datagram { flow: Flow::udp(to, from), bytes }
            }
            Arrival::Frame { conn, bytes } => {
                self.peers[host].received += 1;
                self.peers[host].bytes += bytes.len() as u64 + AROUND;
                self.note(at, host, 2, &bytes);
                match &bytes[..] {
                    // What the driver does with keep-alives (RFC 5626 section 3.5.1).
                    b"\r\n\r\n" => {
                        self.net.write(at, host, conn, bytes::Bytes::from_static(b"\r\n"));
                        return;
                    }
                    b"\r\n" => Input::Pong { conn },
                    _ => Input::Frame { conn, bytes },
                }
            }
            Arrival::Accepted { conn, from, to, peer } => {
                self.note(at, host, 3, &peer.peer_id.0);
                Input::Accepted { flow: Flow::stream(Transport::Tls, to, from, conn), peer: Proven::Member(peer) }
            }
            Arrival::Connected { conn, peer } => {
                self.note(at, host, 4, &peer.peer_id.0);
                Input::Connected { conn, peer: Proven::Member(peer) }
            }
            Arrival::Refused { conn } => {
                self.note(at, host, 5, &[]);
                Input::ConnectFailed { conn, why: "connection refused".into() }
            }
            Arrival::Closed { conn } => {
                self.note(at, host, 6, &[]);
                Input::Closed { conn }
            }
        };
        self.hand(host, at, input);
    }

    fn hand(&mut self, host: Host, now: Instant, input: Input) {
        self.peers[host].node.handle(now, input);
        self.drain(host, now);
    }

    fn drain(&mut self, host: Host, now: Instant) {
        while let Some(output) = self.peers[host].node.poll_output() {
            self.carry_out(host, now, output);
        }
        let due = self.peers[host].node.poll_timeout();
        if due != self.peers[host].wake {
            self.peers[host].wake = due;
            if let Some(at) = due {
                self.net.schedule(at.max(now), host, Arrival::Wake);
                self.peers[host].wake = Some(at.max(now));
            }
        }
    }

    fn carry_out(&mut self, host: Host, now: Instant, output: Output) {
        match output {
            Output::Datagram { flow, bytes } => {
                if let Some(&to) = self.by_addr.get(&flow.remote) {
                    self.net.datagram(now, host, to, flow.local, flow.remote, bytes);
                }
            }
            Output::Connect { conn, remote, expect, .. } => self.connect(host, now, conn, remote, expect),
            // There are no servers outside.
            Output::ConnectServer { .. } => {}
            Output::Write { conn, bytes } => {
                self.peers[host].bytes += bytes.len() as u64 + AROUND;
                self.net.write(now, host, conn, bytes);
            }
            Output::Close { conn } => self.net.close(now, host, conn),
            Output::Reply { request, result } => {
                // An error counts as not found and has no hops.
                if let Ok(Reply::Lookup(found)) = &result {
                    self.note(now, host, 7, &request.0.to_le_bytes());
                    self.report.lookup(found);
                }
            }
            Output::Event { event: Event::Joined { .. }, .. } => self.peers[host].joined = true,
            // Peers of the simulation know each other by address.
            Output::Event { .. }
            | Output::Media(_)
            | Output::Relay(_)
            | Output::Probe(_)
            | Output::Save { .. }
            | Output::Resolve { .. }
            | Output::Query { .. }
            | Output::Store(_)
            | Output::LoadChunk { .. }
            | Output::Revoked(_)
            | Output::Identity(_)
            | Output::Stopped => {}
        }
    }

    fn connect(&mut self, host: Host, now: Instant, conn: ConnId, remote: SocketAddr, expect: Expect) {
        let Some(&to) = self.by_addr.get(&remote) else { return self.net.refuse(now, host, conn) };
        let far = self.peers[to].verified.clone();
        if matches!(expect, Expect::Foreign) || matches!(expect, Expect::Peer(id) if id != far.peer_id) {
            return self.net.refuse(now, host, conn);
        }
        let from = SocketAddr::new(self.peers[host].addr.ip(), 40_000 + (conn.0 % 20_000) as u16);
        let near = self.peers[host].verified.clone();
        self.net.connect(now, (host, conn), to, from, remote, near, far);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> Report {
        let options = Options { peers: 20, seed, lookups: 60, settle: Duration::from_secs(10), ..Options::default() };
        run(&options, |_| {}).unwrap()
    }

    #[test]
    fn same_seed_same_history() {
        let (a, b, c) = (small(7), small(7), small(8));
        assert_eq!(a.history_hash, b.history_hash);
        assert_ne!(a.history_hash, c.history_hash);
    }

    /// Ten peers a second join and write at once, so that every record is handed on many times.
    fn growing(seed: u64, loss: f64) -> Report {
        let link = LinkModel { loss, ..Options::default().link };
        let settle = Duration::from_secs(10);
        run(&Options { peers: 60, seed, lookups: 240, link, settle, ..Options::default() }, |_| {}).unwrap()
    }

    #[test]
    fn a_growing_ring_loses_no_record() {
        for seed in 1..=4 {
            let report = growing(seed, 0.0);
            assert_eq!((report.joined, report.found), (60, 240), "seed {seed}");
            // Half a second is the first deadline: nothing may be sent into a link that is gone.
            assert!(report.lookup_ms_p99 < 500.0, "seed {seed}: {}", report.lookup_ms_p99);
        }
    }

    #[test]
    fn late_segments_keep_nobody_out() {
        for (seed, loss) in [(1, 0.02), (2, 0.02), (3, 0.05), (4, 0.05)] {
            let report = growing(seed, loss);
            assert_eq!((report.joined, report.found), (60, 240), "seed {seed}, loss {loss}");
        }
    }

    #[test]
    fn every_user_is_found_where_a_tenth_is_the_ring() {
        let options = Options { peers: 100, supernodes: 10, lookups: 200, ..Options::default() };
        let report = run(&options, |_| {}).unwrap();
        assert_eq!((report.joined, report.found), (100, 200));
        assert!(report.hops_mean > 0.5 && report.hops_mean < 4.0, "{}", report.hops_mean);
    }

    #[test]
    fn every_user_is_found_in_a_ring_that_lost_nobody() {
        let report = small(3);
        assert_eq!((report.joined, report.lookups, report.found), (20, 60, 60));
        assert!(report.hops_mean > 0.0 && report.hops_mean < 5.0, "{}", report.hops_mean);
    }
}
