//! Nodes, raw ends and a network between them, on one clock that only events move.

use bytes::Bytes;
use chordial::config::{Config, Serve};
use chordial::core::{ConnId, Flow, Id, Instant, Redacted, Rng, Transport, UnixTime};
use chordial::identity::{
    Acquaintances, ChunkHash, DictionaryKey, Expect, Foreign, Identity, Proven, Revocations, Revoked, SignedEntry,
    TrustAnchor, Verified,
};
use chordial::node::control::{CallReport, Command, CommandError, Event, Reply, RequestId};
use chordial::node::{
    Input, MediaCommand, MediaInput, Node, Output, RelayCommand, RelayInput, Saved, Setup, StoreInput,
};
use chordial::overlay::{Batch, Change, Stored};
use chordial::pbx::locate::{Record, RecordKind};
use chordial::secure::Fingerprint;
use chordial::sip::msg::Message;
use chordial::ua::{CallId, MediaOpened, MediaPlan, MediaStats};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

mod ask;
pub mod media;
pub mod nat;
mod wire;

pub const START: UnixTime = UnixTime(1_800_000_000);
const ONE_WAY: Duration = Duration::from_millis(5);
/// When a driver gives up a connection that nobody answers.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Sender, receiver and bytes of a datagram: whether it is lost.
pub type Lose = dyn FnMut(SocketAddr, SocketAddr, &[u8]) -> bool;
/// A message on a stream: whether it is lost.
pub type Swallow = dyn FnMut(&[u8]) -> bool;
/// A message on a stream: what arrives instead of it.
pub type Rewrite = dyn FnMut(&[u8]) -> Option<Bytes>;

/// The figures of every call that had sockets.
pub const STATS: MediaStats = MediaStats { sent: 100, received: 90, lost: 3, jitter_ms: 1.5, rtt_ms: Some(10.0) };

/// Index of a node or of a raw end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Node(usize),
    Raw(usize),
}

/// What reaches a place.
enum Arrival {
    Node(Input),
    Wake,
    Datagram(SocketAddr, Bytes),
    Frame(ConnId, Bytes),
    Opened(ConnId),
    Closed(ConnId),
    /// 20 ms of a call's voice are due.
    Voice(CallId),
    /// A probe or a packet of a call's voice.
    Heard(CallId, Vec<u8>),
}

pub struct Host {
    pub node: Node,
    pub sip: SocketAddr,
    pub overlay: SocketAddr,
    pub verified: Option<Arc<Verified>>,
    /// As it was started, and as it is certified since.
    pub identity: Option<Identity>,
    /// What its links refuse.
    revoked: Arc<Revoked>,
    /// What was kept last, by kind.
    pub files: Vec<(Saved, Bytes)>,
    /// Of which overlay it is.
    pub anchor: Option<TrustAnchor>,
    wake: Option<Instant>,
    /// In the order in which they came: events, replies, saves, media commands.
    pub events: Vec<(Option<RequestId>, Event)>,
    pub replies: BTreeMap<RequestId, Result<Reply, CommandError>>,
    pub media: Vec<MediaCommand>,
    pub saved: Vec<Saved>,
    /// The host cache as it was kept last.
    pub cache: Bytes,
    /// The latest file of messages.
    pub messages: Vec<u8>,
    /// What left the node, in order, in a word each: to see that something was kept before something was sent.
    pub log: Vec<String>,
    pub media_fails: bool,
    /// A second interface of this machine: calls have a socket there too.
    pub beside: Option<std::net::IpAddr>,
    /// Its calls can be connected to over TCP. One call at a time.
    pub connectable: bool,
    /// Sockets are granted only this much later.
    pub media_delay: Duration,
    /// Dead: takes and sends nothing; connections to it are refused.
    pub dead: bool,
    /// Streams to it are neither opened nor refused, and nothing on them arrives.
    pub silent: bool,
    pub stopped: bool,
    /// The records on its disk; survives a restart.
    pub disk: Disk,
    config: Config,
    /// Bytes and messages that it put on streams.
    pub sent: (u64, u64),
    /// When anything made it do something.
    pub active: Vec<Instant>,
    open: BTreeSet<CallId>,
}

/// A disk in memory.
#[derive(Default)]
pub struct Disk {
    pub records: BTreeMap<(Id, u8, DictionaryKey), SignedEntry>,
    pub chunks: BTreeMap<ChunkHash, Bytes>,
    pub unix: UnixTime,
    /// How long it takes to flush.
    pub delay: Duration,
    /// It takes nothing.
    pub full: bool,
}

/// A SIP end without any logic.
pub struct RawEnd {
    pub addr: SocketAddr,
    /// Takes TCP at its address.
    pub tcp: bool,
    /// Everything that came, with where it came from.
    pub inbox: Vec<Received>,
    /// Keep-alives that came.
    pub alive: Vec<(Option<SocketAddr>, Option<ConnId>, Vec<u8>)>,
    pub opened: Vec<ConnId>,
    pub closed: Vec<ConnId>,
    /// Who it proves to be on links.
    pub proof: Option<Arc<Verified>>,
    /// Its overlay, where that is another one than that of whom it dials.
    pub anchor: Option<TrustAnchor>,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub from: Option<SocketAddr>,
    pub conn: Option<ConnId>,
    pub message: Message,
}

struct Stream {
    far: (Place, ConnId),
    free_at: Instant,
}

pub struct World {
    pub now: Instant,
    pub rng: Rng,
    pub hosts: Vec<Host>,
    pub raws: Vec<RawEnd>,
    queue: BTreeMap<(Instant, u64), (Place, Arrival)>,
    order: u64,
    streams: BTreeMap<(Place, ConnId), Stream>,
    conns: u64,
    requests: u64,
    /// By how much the wall clock of all is ahead of the virtual one.
    pub ahead: Duration,
    /// What the next host knows to be revoked.
    revocations: Revocations,
    /// Drops a datagram when it says so.
    pub lose: Box<Lose>,
    /// Addresses that nobody can connect to: behind a NAT or firewall.
    pub hidden: BTreeSet<SocketAddr>,
    /// How much farther a node is than the others, one way.
    pub far: BTreeMap<usize, Duration>,
    /// Swallows a message on a stream when it says so: the host lives, the program on it hangs.
    pub swallow: Box<Swallow>,
    /// Somebody who forwards it changes a message on a stream.
    pub rewrite: Box<Rewrite>,
    /// Hosts made from now on encrypt their calls: host N shows a certificate whose fingerprint is all N.
    pub encrypts: bool,
    /// Hosts made from now on have ICE.
    pub ice: bool,
    /// Sockets of calls, and whose they are.
    sockets: BTreeMap<SocketAddr, (usize, CallId)>,
    /// What is said by the calls of hosts, once somebody listens.
    pub voices: BTreeMap<(usize, CallId), media::Voice>,
    /// Calls say something: they have a frame every 20 ms.
    pub speaks: bool,
    /// Loses a datagram between sockets of calls when it says so.
    pub media_lose: Box<Lose>,
    /// Who answers in the place of whoever is dialled.
    pub hijacked: BTreeMap<SocketAddr, SocketAddr>,
    /// Nobody answers questions to the DNS.
    pub dns_is_silent: bool,
    /// What stands before hosts, their sockets for tests, and the STUN services of relays.
    pub nats: BTreeMap<usize, nat::Nat>,
    pub probes: BTreeMap<usize, nat::Probe>,
    stun: BTreeMap<std::net::IpAddr, chordial::nat::turn::Server>,
    /// What the DNS says.
    pub zone: BTreeMap<(String, RecordKind), Vec<Record>>,
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            now: Instant::ZERO,
            rng: Rng::from_seed(seed),
            hosts: Vec::new(),
            raws: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            streams: BTreeMap::new(),
            conns: 1 << 63,
            requests: 0,
            ahead: Duration::ZERO,
            revocations: Revocations::default(),
            lose: Box::new(|_, _, _| false),
            swallow: Box::new(|_| false),
            rewrite: Box::new(|_| None),
            encrypts: false,
            ice: false,
            sockets: BTreeMap::new(),
            voices: BTreeMap::new(),
            speaks: false,
            media_lose: Box::new(|_, _, _| false),
            hidden: BTreeSet::new(),
            far: BTreeMap::new(),
            hijacked: BTreeMap::new(),
            zone: BTreeMap::new(),
            nats: BTreeMap::new(),
            probes: BTreeMap::new(),
            stun: BTreeMap::new(),
            dns_is_silent: false,
        }
    }

    /// A ring of an open overlay with these users, settled.
    pub fn ring(seed: u64, users: &[&str]) -> World {
        let mut world = World::new(seed);
        for user in users {
            world.peer(user, |_| {});
        }
        world.run(Duration::from_secs(15));
        world
    }

    /// A peer of the open overlay that joins by the first one.
    pub fn peer(&mut self, user: &str, change: impl FnOnce(&mut Config)) -> usize {
        let identity = Identity::open("chordial", user, START, &mut self.rng).unwrap();
        self.member(identity, change)
    }

    /// A peer that opens connections and takes none.
    pub fn hidden_peer(&mut self, user: &str, change: impl FnOnce(&mut Config)) -> usize {
        self.hidden.insert(format!("10.0.0.{}:5061", self.hosts.len() + 1).parse().unwrap());
        self.peer(user, change)
    }

    /// A peer with this identity that joins by the first one of its overlay.
    pub fn member(&mut self, identity: Identity, change: impl FnOnce(&mut Config)) -> usize {
        let mut config = Config::default();
        config.overlay.name = identity.overlay().to_owned();
        config.user.name = identity.user().to_owned();
        let same = |h: &&Host| h.anchor.as_ref() == Some(&identity.anchor);
        config.overlay.bootstrap = self.hosts.iter().find(same).map(|h| h.overlay.into()).into_iter().collect();
        change(&mut config);
        self.host(config, Some(identity), None)
    }

    /// A plain SIP phone.
    pub fn plain(
        &mut self,
        user: &str,
        password: &str,
        registrar: SocketAddr,
        change: impl FnOnce(&mut Config),
    ) -> usize {
        let mut config = Config::default();
        config.user.name = user.into();
        config.phone.registrar = Some(registrar);
        change(&mut config);
        self.host(config, None, Some(Redacted::new(password.into())))
    }

    /// A peer with the same identity as another, at another address: a copied data directory.
    pub fn copy(&mut self, host: usize) -> usize {
        let (mut config, identity) = (self.hosts[host].config.clone(), self.hosts[host].identity.clone());
        config.overlay.bootstrap = vec![self.hosts[0].overlay.into()];
        self.host(config, identity, None)
    }

    /// Writes a batch, and reports it as a real disk does.
    fn keep(&mut self, host: usize, batch: Batch) {
        let disk = &mut self.hosts[host].disk;
        let upto = batch.number;
        let report = match disk.full {
            true => StoreInput::Failing { upto, why: "no space left".into() },
            false => StoreInput::Flushed { upto },
        };
        if !disk.full {
            disk.unix = batch.unix;
            for change in batch.changes {
                match change {
                    Change::Put { key, replica, entry } => {
                        disk.records.insert((key, replica, entry.dictionary_key()), entry);
                    }
                    Change::Chunk { hash, bytes } => drop(disk.chunks.insert(hash, bytes)),
                    Change::Unchunk { hash } => drop(disk.chunks.remove(&hash)),
                    Change::Remove { key, replica, entry } => drop(disk.records.remove(&(key, replica, entry))),
                    Change::Clear => {
                        disk.records.clear();
                        disk.chunks.clear();
                    }
                }
            }
        }
        let at = self.now + disk.delay;
        self.at(at, Place::Node(host), Arrival::Node(Input::Store(report)));
    }

    /// Starts a killed or stopped node again, with what was on its disk and the wall clock `wrong` seconds off; it joins by `by`,
    /// by nobody when there is none.
    pub fn restart(&mut self, host: usize, by: &[usize], wrong: i64) {
        let known_peers = by.iter().map(|i| self.hosts[*i].overlay).collect();
        let h = &mut self.hosts[host];
        let unix = START + self.now.since(Instant::ZERO);
        let unix = UnixTime(unix.secs().saturating_add_signed(wrong));
        h.config.overlay.bootstrap.clear();
        let mut setup = Setup::new(h.config.clone(), h.identity.clone(), h.sip, h.overlay, unix);
        let entries = h.disk.records.iter().map(|((key, replica, _), e)| (*key, *replica, e.clone())).collect();
        setup.known_peers = known_peers;
        setup.relays = setup.config.relay.serve != Serve::Auto;
        setup.messages = h.messages.clone();
        if let Some((_, bytes)) = h.files.iter().find(|(kept, _)| *kept == Saved::Nat) {
            setup.nat = bytes.to_vec();
        }
        if let Some((_, bytes)) = h.files.iter().find(|(kept, _)| *kept == Saved::Foreign) {
            setup.acquaintances = Acquaintances::from_bytes(bytes).unwrap();
        }
        let chunks = h.disk.chunks.iter().map(|(hash, bytes)| (*hash, bytes.len() as u32)).collect();
        setup.stored = Some(Stored { entries, chunks, unix: h.disk.unix });
        (h.dead, h.stopped, h.wake) = (false, false, None);
        (h.events, h.log, h.saved) = (Vec::new(), Vec::new(), Vec::new());
        h.node = Node::new(self.now, setup, self.rng.fork());
        self.drain(host);
    }

    /// The wall clock.
    pub fn unix(&self) -> UnixTime {
        START + self.now.since(Instant::ZERO) + self.ahead
    }

    /// The wall clock of all running nodes jumps ahead.
    pub fn jump(&mut self, by: Duration) {
        self.ahead += by;
        let unix = self.unix();
        for host in 0..self.hosts.len() {
            self.hand(host, Input::Clock { unix });
        }
    }

    /// A peer that was here before, with what it had kept when it went.
    pub fn returning(&mut self, gone: usize) -> usize {
        let identity = self.hosts[gone].identity.clone().unwrap();
        let file = |what| self.hosts[gone].files.iter().find(|(kept, _)| *kept == what).map(|(_, b)| b.clone());
        let revocations = file(Saved::Revocations).map(|b| Revocations::from_bytes(&b, &identity.anchor).unwrap());
        self.revocations = revocations.unwrap_or_default();
        self.member(identity, |_| {})
    }

    fn host(&mut self, config: Config, identity: Option<Identity>, password: Option<Redacted<String>>) -> usize {
        let i = self.hosts.len();
        let made = self.make(i, config, identity, password, Bytes::new());
        self.hosts.push(made);
        self.drain(i);
        i
    }

    /// A node that was killed starts again, with its identity and its host cache.
    pub fn restart_as(&mut self, host: usize, identity: Identity, config: Config) {
        assert!(self.hosts[host].dead, "kill it first");
        let cache = self.hosts[host].cache.clone();
        self.hosts[host] = self.make(host, config, Some(identity), None, cache);
        self.drain(host);
    }

    fn make(
        &mut self,
        i: usize,
        config: Config,
        identity: Option<Identity>,
        password: Option<Redacted<String>>,
        cache: Bytes,
    ) -> Host {
        let ip = format!("10.0.0.{}", i + 1);
        let (sip, overlay) = (format!("{ip}:5060").parse().unwrap(), format!("{ip}:5061").parse().unwrap());
        let unix = self.unix();
        let verified = identity.as_ref().map(|i| Arc::new(i.verified(unix).unwrap()));
        let anchor = identity.as_ref().map(|i| i.anchor.clone());
        let mut setup = Setup::new(config.clone(), identity.clone(), sip, overlay, unix);
        setup.relays = setup.config.relay.serve != Serve::Auto;
        setup.password = password;
        let named = setup.config.account.iter().map(|a| (a.name.clone(), Redacted::new("s3cret".to_owned())));
        setup.passwords = named.collect();
        setup.stored = Some(Stored::default());
        setup.voice_fingerprint = self.encrypts.then_some(Fingerprint([i as u8; 32]));
        setup.hosts = cache.to_vec();
        setup.system = self.ice.then(media::some_moment);
        setup.revocations = std::mem::take(&mut self.revocations);
        let node = Node::new(self.now, setup, self.rng.fork());
        Host {
            node,
            sip,
            overlay,
            verified,
            identity,
            revoked: Arc::default(),
            files: Vec::new(),
            anchor,
            wake: None,
            events: Vec::new(),
            replies: BTreeMap::new(),
            media: Vec::new(),
            saved: Vec::new(),
            cache,
            messages: Vec::new(),
            log: Vec::new(),
            media_fails: false,
            beside: None,
            connectable: false,
            media_delay: Duration::ZERO,
            dead: false,
            silent: false,
            stopped: false,
            disk: Disk::default(),
            config,
            sent: (0, 0),
            active: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    /// A raw end at 10.9.0.n:5060.
    pub fn raw(&mut self) -> usize {
        let addr = format!("10.9.0.{}:5060", self.raws.len() + 1).parse().unwrap();
        self.raws.push(RawEnd {
            addr,
            tcp: true,
            inbox: Vec::new(),
            alive: Vec::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            proof: None,
            anchor: None,
        });
        self.raws.len() - 1
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            self.step();
        }
        self.now = until;
    }

    /// Runs until `done`, at most `time`; how long it took.
    pub fn until(&mut self, time: Duration, what: &str, done: impl Fn(&World) -> bool) -> Duration {
        let begun = self.now;
        let until = self.now + time;
        while !done(self) {
            match self.queue.first_key_value() {
                Some((&(at, _), _)) if at <= until => self.step(),
                _ => panic!("{what} did not happen within {time:?}"),
            }
        }
        self.now.since(begun)
    }

    fn step(&mut self) {
        let Some(((at, _), (place, arrival))) = self.queue.pop_first() else { return };
        self.now = at;
        match (place, arrival) {
            (Place::Node(i), Arrival::Wake) if self.hosts[i].wake == Some(at) => {
                self.hosts[i].wake = None;
                if !self.hosts[i].dead {
                    self.hosts[i].active.push(at);
                    self.hosts[i].node.handle_timeout(at);
                    self.drain(i);
                }
            }
            (Place::Node(i), Arrival::Node(input)) => self.hand(i, input),
            (Place::Raw(i), Arrival::Datagram(from, bytes)) => self.receive(i, Some(from), None, &bytes),
            (Place::Raw(i), Arrival::Frame(conn, bytes)) => self.receive(i, None, Some(conn), &bytes),
            (Place::Raw(i), Arrival::Opened(conn)) => self.raws[i].opened.push(conn),
            (Place::Node(i), Arrival::Voice(call)) => self.speak(i, call),
            (Place::Node(i), Arrival::Heard(call, bytes)) => self.hear(i, call, &bytes),
            (Place::Raw(i), Arrival::Closed(conn)) => self.raws[i].closed.push(conn),
            _ => {}
        }
    }

    fn receive(&mut self, raw: usize, from: Option<SocketAddr>, conn: Option<ConnId>, bytes: &[u8]) {
        // Keep-alives: line ends, and STUN.
        if bytes == b"\r\n\r\n" || bytes.first().is_some_and(|b| *b < 4) {
            return self.raws[raw].alive.push((from, conn, bytes.to_vec()));
        }
        let message = Message::parse(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)));
        self.raws[raw].inbox.push(Received { from, conn, message });
    }

    pub fn hand(&mut self, host: usize, input: Input) {
        if self.hosts[host].dead {
            return;
        }
        let now = self.now;
        self.hosts[host].active.push(now);
        self.hosts[host].node.handle(self.now, input);
        self.drain(host);
    }

    fn at(&mut self, at: Instant, place: Place, arrival: Arrival) {
        self.order += 1;
        self.queue.insert((at, self.order), (place, arrival));
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].node.poll_output() {
            self.carry_out(host, output);
        }
        let due = self.hosts[host].node.poll_timeout().map(|at| at.max(self.now));
        if due != self.hosts[host].wake {
            self.hosts[host].wake = due;
            if let Some(at) = due {
                self.at(at, Place::Node(host), Arrival::Wake);
            }
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Datagram { flow, bytes } => {
                self.hosts[host].log.push(format!("send {}", first_line(&bytes)));
                self.datagram(flow.local, flow.remote, bytes);
            }
            Output::Connect { conn, transport, remote, expect } => self.connect(host, conn, transport, remote, expect),
            Output::ConnectServer { conn, remote, name, .. } => {
                self.hosts[host].log.push(format!("tls {name}"));
                self.connect(host, conn, Transport::Tls, remote, Expect::Foreign);
            }
            Output::Write { conn, bytes } => {
                let sent = &mut self.hosts[host].sent;
                *sent = (sent.0 + bytes.len() as u64, sent.1 + 1);
                self.hosts[host].log.push(format!("send {}", first_line(&bytes)));
                self.write(Place::Node(host), conn, bytes);
            }
            Output::Close { conn } => self.close(Place::Node(host), conn),
            Output::Query { query, question } => {
                let found = self.zone.get(&(question.name, question.kind)).cloned().unwrap_or_default();
                let records = (!self.dns_is_silent).then_some(found);
                self.at(now + ONE_WAY * 2, Place::Node(host), Arrival::Node(Input::Answer { query, records }));
            }
            Output::Media(command) => {
                self.hosts[host].log.push(format!("media {command:?}"));
                if let MediaCommand::Send { local, to, bytes, .. } = &command {
                    self.media_datagram(*local, *to, bytes);
                }
                self.route_voice(host, &command);
                if let Some((late, input)) = self.media(host, &command) {
                    self.at(now + late, Place::Node(host), Arrival::Node(Input::Media(input)));
                }
                self.hosts[host].media.push(command);
            }
            Output::Reply { request, result } => {
                let before = self.hosts[host].replies.insert(request, result);
                assert!(before.is_none(), "{request:?} was answered twice");
            }
            Output::Event { request, event } => self.hosts[host].events.push((request, event)),
            Output::Revoked(revoked) => self.hosts[host].revoked = revoked,
            Output::Identity(identity) => {
                let unix = self.unix();
                self.hosts[host].verified = Some(Arc::new(identity.verified(unix).unwrap()));
                self.hosts[host].anchor = Some(identity.anchor.clone());
                self.hosts[host].identity = Some(*identity);
            }
            Output::Save { what, bytes } => {
                if what == Saved::Messages {
                    self.hosts[host].messages = bytes.to_vec();
                }
                if what == Saved::Hosts {
                    self.hosts[host].cache = bytes.clone();
                }
                self.hosts[host].files.retain(|(kept, _)| *kept != what);
                self.hosts[host].files.push((what, bytes));
                self.hosts[host].log.push(format!("save {what:?}"));
                self.hosts[host].saved.push(what);
            }
            Output::Store(batch) => self.keep(host, batch),
            Output::LoadChunk { hash } => {
                let bytes = self.hosts[host].disk.chunks.get(&hash).cloned();
                self.at(self.now, Place::Node(host), Arrival::Node(Input::Store(StoreInput::Loaded { hash, bytes })));
            }
            Output::Relay(command) => self.relay(host, command),
            Output::Probe(command) => self.probe(host, command),
            Output::Resolve { name } => self.hosts[host].log.push(format!("resolve {name}")),
            Output::Stopped => {
                self.hosts[host].log.push("stopped".into());
                self.hosts[host].stopped = true;
            }
        }
    }

    /// What the relay's sockets would say.
    fn relay(&mut self, host: usize, command: RelayCommand) {
        let h = &mut self.hosts[host];
        h.log.push(format!("relay {command:?}"));
        self.stun_command(host, &command);
        let h = &self.hosts[host];
        if let RelayCommand::Start { secret, .. } = command {
            let at = std::net::SocketAddr::new(h.overlay.ip(), 3478);
            let open = RelayInput::Open { udp: vec![at], tcp: vec![at], shut: None, certificate: [0; 32] };
            self.start_stun(host, secret);
            self.at(self.now, Place::Node(host), Arrival::Node(Input::Relay(open)));
        }
    }

    /// What the media threads would say.
    fn media(&mut self, host: usize, command: &MediaCommand) -> Option<(Duration, MediaInput)> {
        let h = &mut self.hosts[host];
        match command {
            MediaCommand::Open { call } if h.media_fails => {
                Some((Duration::ZERO, MediaInput::Failed { call: *call, why: "no free port".into() }))
            }
            MediaCommand::Open { call } => {
                h.open.insert(*call);
                let rtp = SocketAddr::new(h.sip.ip(), 20_000 + (call.0 * 2) as u16);
                self.sockets.insert(rtp, (host, *call));
                let opened = MediaOpened { rtp, rtcp_port: rtp.port() + 1 };
                let also: Vec<_> = h.beside.map(|ip| SocketAddr::new(ip, rtp.port())).into_iter().collect();
                self.sockets.extend(also.iter().map(|socket| (*socket, (host, *call))));
                let listens = SocketAddr::new(rtp.ip(), rtp.port() + 1);
                let tcp: Vec<_> = h.connectable.then_some(listens).into_iter().collect();
                for listens in &tcp {
                    let connects = SocketAddr::new(listens.ip(), media::CONNECTS);
                    self.sockets.extend([*listens, connects].map(|socket| (socket, (host, *call))));
                }
                Some((h.media_delay, MediaInput::Opened { call: *call, opened, also, tcp }))
            }
            MediaCommand::Close { call } => {
                let known = h.open.remove(call);
                self.sockets.retain(|_, whose| *whose != (host, *call));
                self.voices.remove(&(host, *call));
                let stats = if known { STATS } else { MediaStats::default() };
                Some((Duration::ZERO, MediaInput::Closed { call: *call, stats }))
            }
            MediaCommand::Start { call, .. } | MediaCommand::Dtmf { call, .. } | MediaCommand::Route { call, .. } => {
                assert!(h.open.contains(call), "{command:?} without sockets");
                None
            }
            MediaCommand::Send { .. }
            | MediaCommand::Take { .. }
            | MediaCommand::Mute { .. }
            | MediaCommand::Second { .. } => None,
            // No stream leads anywhere here.
            MediaCommand::Reach { call, .. } => {
                Some((Duration::ZERO, MediaInput::Unreached { call: *call, local: None }))
            }
        }
    }
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned()
}
