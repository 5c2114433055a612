//! A member that lies: the program's own node on real links, with a mouth of its own between the two. It says that what it
//! holds is not there, hands out what is stale and what was signed by others than the owner, takes records and throws them
//! away, and takes its leave in the name of others.

use crate::office::{OFFICE, Office};
use crate::program::last_json;
use crate::tools::{eventually, free_ports};
use bytes::Bytes;
use chordial::config::{Bootstrap, Config};
use chordial::core::{ConnId, Id, Instant, Rng, UnixTime};
use chordial::identity::{ContactBody, Entry, EntryKind, Identity, Proven, SignedEntry};
use chordial::io::transport::{self, Credentials, Endpoint, Event, Limits, Listen};
use chordial::node::{Input, Node, Output, Setup};
use chordial::overlay::carry::{Carry, is_overlay};
use chordial::overlay::{Links, PeerRef, Request, Response, Route};
use chordial::sip::msg::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

const HONEST: usize = 8;
/// How often everybody is asked for by everybody while the liar lies.
const ROUNDS: usize = 3;
/// As many lies as make a trial. What share of the records the liar holds is decided by its number, which is drawn: a liar
/// of a small part of the ring is asked for longer.
const LIES: u64 = 50;
const MOST_ROUNDS: usize = 20;

#[test]
fn a_member_that_lies_hides_nobody_and_misleads_nobody() {
    let (office, founder) = Office::new(HONEST + 1);
    let mut living = vec![founder];
    living.extend((1..HONEST).map(|n| office.start(n)));
    let first = SocketAddr::from(([127, 0, 0, 1], office.members[0].overlay_port()));
    let users: Vec<&str> = office.members[..HONEST].iter().map(|m| m.user.as_str()).collect();
    let identity = std::fs::read(office.members[HONEST].data.join("identity.cbor")).expect("the liar has joined");
    let identity = Identity::from_bytes(&identity, unix()).expect("its identity is sound");
    let id = identity.peer_id().to_string();
    let liar = Liar::start(identity, first, &users);
    // How many of the others are supernodes is theirs to decide.
    eventually("the liar is in the ring", || {
        let status = office.status(0)?;
        let successors = status["overlay"]["successors"].as_array().ok_or("no successors")?;
        let there = successors.iter().any(|p| p["peer_id"] == id.as_str());
        if there { Ok(()) } else { Err(status["overlay"].to_string()) }
    });
    // The liar has been given something to be stale with.
    let places: Vec<String> =
        (0..HONEST).map(|n| place(&office, 0, users[n]).expect("found before the lies")).collect();
    liar.lies.store(true, Ordering::Relaxed);
    let (mut asked, mut wrong) = (0, Vec::new());
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && liar.told.load(Ordering::Relaxed) > LIES {
            break;
        }
        for from in 0..HONEST {
            for to in 0..HONEST {
                asked += 1;
                match place(&office, from, users[to]) {
                    Some(found) if found == places[to] => {}
                    other => wrong.push(format!("round {round}: u{from:02} asked for {}: {other:?}", users[to])),
                }
            }
        }
        // Somebody is new and somebody is gone, as the liar works.
        let moved = 1 + round % (HONEST - 1);
        living[moved].kill();
        living[moved] = office.start(moved);
    }
    let told = liar.told.load(Ordering::Relaxed);
    eprintln!("{asked} lookups with {told} lies told: {} wrong or not found", wrong.len());
    assert!(told > LIES, "the liar was hardly asked: {told} lies");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for from in 0..HONEST {
        let to = (from + 3) % HONEST;
        let call = office.run(from, &["call", users[to], "--duration", "1", "--json"]);
        assert_eq!(last_json(&call)["result"], "completed", "{call:?}");
    }
}

/// The peer-IDs by which a user is reached, as one member finds them.
fn place(office: &Office, from: usize, user: &str) -> Option<String> {
    let report = last_json(&office.run(from, &["lookup", user, "--json"]));
    let contacts = report["contacts"].as_array()?;
    let id = |contact: &str| contact.split("peer-ID=").nth(1).map(|id| id[..40].to_owned());
    let ids: Vec<String> = contacts.iter().filter_map(|c| id(c.as_str()?)).collect();
    (!ids.is_empty()).then(|| ids.join(" "))
}

/// The lying member, in a thread of the test.
struct Liar {
    lies: Arc<AtomicBool>,
    told: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    fn start(identity: Identity, bootstrap: SocketAddr, users: &[&str]) -> Liar {
        let mut liar = Liar { lies: Arc::default(), told: Arc::default(), end: Arc::default(), thread: None };
        let (lies, told, end) = (Arc::clone(&liar.lies), Arc::clone(&liar.told), Arc::clone(&liar.end));
        let forged = users.iter().map(|user| forged(user)).collect();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { Mouth::new(identity, bootstrap, forged, (lies, told)).speak(&end).await });
        };
        liar.thread = Some(std::thread::spawn(run));
        liar
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the liar fell over its own words");
    }
}

/// A contact that somebody signs for themselves under another's name: the overlay's name and the user's are right, the keys are not.
fn forged(user: &str) -> SignedEntry {
    let mut rng = Rng::from_seed(7);
    let impostor = Identity::open(OFFICE, user, unix(), &mut rng).unwrap();
    let addrs = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
    let body = ContactBody { peer_id: Id::sha1(b"impostor"), addrs, user_agent: String::new(), via: Vec::new() };
    let sequence = unix().secs() * 1000 + 1_000_000;
    let (kind, aor, device) = (EntryKind::Contact, impostor.aor(), impostor.device_key());
    let entry = Entry { kind, aor, device, sequence, issued: unix(), lifetime: 3600, body: body.encode() };
    impostor.sign_entry(entry).unwrap()
}

fn unix() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

/// What stands between the node and its links.
struct Mouth {
    node: Node,
    endpoint: Endpoint,
    wire: mpsc::Receiver<Event>,
    carry: Carry,
    lies: Arc<AtomicBool>,
    told: Arc<AtomicU64>,
    /// Requests not answered yet, by link, Call-ID and CSeq.
    asked: BTreeMap<(ConnId, String), (Message, Request)>,
    /// The first that it was given of each resource.
    stale: BTreeMap<Id, Vec<SignedEntry>>,
    forged: Vec<SignedEntry>,
    others: BTreeMap<ConnId, PeerRef>,
    rng: Rng,
    begun: std::time::Instant,
    left: Instant,
}

impl Mouth {
    fn new(
        identity: Identity,
        bootstrap: SocketAddr,
        forged: Vec<SignedEntry>,
        (lies, told): (Arc<AtomicBool>, Arc<AtomicU64>),
    ) -> Mouth {
        let base = free_ports(2);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (endpoint, wire) = Endpoint::bind(transport::Config {
            sip: Some(at(base)),
            overlay: Some(Listen::Tls(at(base + 1))),
            also: None,
            credentials: Some(Credentials::of(&identity)),
            proxy: None,
            limits: Limits::default(),
            phones: None,
        })
        .unwrap();
        let me = PeerRef { id: identity.peer_id(), addr: at(base + 1) };
        let carry = Carry::new(identity.overlay(), me, 600);
        let mut config = Config::default();
        config.overlay.bootstrap = vec![Bootstrap::Addr(bootstrap)];
        config.overlay.role = "supernode".into();
        let setup = Setup::new(config, Some(identity), at(base), at(base + 1), unix());
        let mut rng = Rng::from_seed(u64::from(std::process::id()));
        Mouth {
            node: Node::new(Instant::ZERO, setup, rng.fork()),
            endpoint,
            wire,
            carry,
            lies,
            told,
            asked: BTreeMap::new(),
            stale: BTreeMap::new(),
            forged,
            others: BTreeMap::new(),
            rng,
            begun: std::time::Instant::now(),
            left: Instant::ZERO,
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.begun.elapsed()
    }

    async fn speak(mut self, end: &AtomicBool) {
        while !end.load(Ordering::Relaxed) {
            while let Some(output) = self.node.poll_output() {
                self.say(output);
            }
            let due = self.node.poll_timeout().map_or(Duration::from_secs(1), |at| at.since(self.now()));
            if let Ok(Some(event)) = tokio::time::timeout(due.min(Duration::from_millis(200)), self.wire.recv()).await {
                self.hear(event);
            }
            let now = self.now();
            if self.node.poll_timeout().is_some_and(|at| at <= now) {
                self.node.handle_timeout(now);
            }
            if self.lies.load(Ordering::Relaxed) && now.since(self.left) > Duration::from_secs(5) {
                self.left = now;
                self.leave_for_others();
            }
        }
    }

    fn say(&mut self, output: Output) {
        match output {
            Output::Connect { conn, transport, remote, expect } => {
                self.endpoint.connect(conn, transport, remote, expect);
            }
            Output::Write { conn, bytes } => {
                let bytes = if self.lies.load(Ordering::Relaxed) { self.lie(conn, bytes) } else { bytes };
                self.endpoint.write(conn, bytes);
            }
            Output::Close { conn } => self.endpoint.close(conn),
            _ => {}
        }
    }

    fn hear(&mut self, event: Event) {
        let now = self.now();
        let input = match event {
            Event::Datagram { flow, bytes } => Input::Datagram { flow, bytes },
            Event::Accepted { conn, flow, peer } => {
                self.meet(conn, &peer, flow.remote);
                Input::Accepted { flow, peer }
            }
            Event::Connected { conn, flow, peer } => {
                self.meet(conn, &peer, flow.remote);
                Input::Connected { conn, peer }
            }
            Event::ConnectFailed { conn, why } => Input::ConnectFailed { conn, why: why.to_string() },
            Event::Frame { conn, bytes } => match self.listen(conn, bytes) {
                Some(bytes) => Input::Frame { conn, bytes },
                None => return,
            },
            Event::Pong { conn } => Input::Pong { conn },
            Event::Closed { conn, .. } => {
                self.others.remove(&conn);
                Input::Closed { conn }
            }
        };
        self.node.handle(now, input);
    }

    fn meet(&mut self, conn: ConnId, peer: &Proven, addr: SocketAddr) {
        if let Some(member) = peer.member() {
            self.others.insert(conn, PeerRef { id: member.peer_id, addr });
        }
    }

    /// Remembers what is asked. A record to be stored is said to be stored, and thrown away.
    fn listen(&mut self, conn: ConnId, bytes: Bytes) -> Option<Bytes> {
        let Some(message) = Message::parse_bytes(bytes.clone()).ok().filter(is_overlay) else { return Some(bytes) };
        let Ok((_, request)) = self.carry.decode_request(&message) else { return Some(bytes) };
        if let Request::Store { key, entries, .. } = &request {
            self.stale.entry(*key).or_insert_with(|| entries.clone());
        }
        if self.lies.load(Ordering::Relaxed) && matches!(request, Request::Store { .. } | Request::Touch { .. }) {
            self.told.fetch_add(1, Ordering::Relaxed);
            let response =
                self.carry.encode_response(&message, &Response::Stored { links: Links::default() }, &mut self.rng);
            self.endpoint.write(conn, response.to_bytes());
            return None;
        }
        self.asked.insert((conn, dialogue(&message)), (message, request));
        Some(bytes)
    }

    fn lie(&mut self, conn: ConnId, bytes: Bytes) -> Bytes {
        let Ok(message) = Message::parse_bytes(bytes.clone()) else { return bytes };
        if message.is_request() {
            return bytes;
        }
        let Some((asked, request)) = self.asked.remove(&(conn, dialogue(&message))) else { return bytes };
        let Request::Fetch { key, route, .. } = request else { return bytes };
        let entries = match self.rng.below(3) {
            0 => Vec::new(),
            1 => self.stale.get(&key).cloned().unwrap_or_default(),
            _ => self.forged.iter().filter(|e| Id::sha1(e.entry().aor.as_bytes()) == key).cloned().collect(),
        };
        self.told.fetch_add(1, Ordering::Relaxed);
        let path = match route {
            Route::Recursive { path, .. } => path.into_iter().chain([self.carry.me]).collect(),
            Route::Iterative | Route::Here => Vec::new(),
        };
        let answer = Response::Entries { entries, responsible: true, links: Links::default(), path };
        self.carry.encode_response(&asked, &answer, &mut self.rng).to_bytes()
    }

    /// Tells everybody that everybody else has left.
    fn leave_for_others(&mut self) {
        for (conn, to) in &self.others {
            for from in self.others.values().filter(|p| p.id != to.id) {
                let posing = Carry { me: *from, ..self.carry.clone() };
                let leave = Request::Leave { links: Links { predecessors: vec![self.carry.me], ..Links::default() } };
                let message = posing.encode_request(&leave, to.addr, &mut self.rng);
                self.told.fetch_add(1, Ordering::Relaxed);
                self.endpoint.write(*conn, message.to_bytes());
            }
        }
    }
}

/// What a request and its answer have in common.
fn dialogue(message: &Message) -> String {
    let number = message.cseq().map(|c| c.number).unwrap_or_default();
    format!("{} {number}", message.call_id().unwrap_or_default())
}
