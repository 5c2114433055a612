//! A network of overlay machines on a virtual clock: latency, loss, crashes, all from one seed.

use chordial::core::{Id, Instant, Rng, UnixTime};
use chordial::identity::{Entry, EntryKind, Identity, SignedEntry, resource_key};
use chordial::overlay::carry::{Carry, is_overlay};
use chordial::overlay::{
    Command, Input, LookupError, Mode, OpId, Output, Overlay, PeerRef, PutError, Request, Response, Route, RpcId,
    Token, Trace,
};
use chordial::sip::msg::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};
use std::net::SocketAddr;
use std::time::Duration;

pub const UNIX: UnixTime = UnixTime(1_800_000_000);
pub const OVERLAY: &str = "lab.example";

/// How a dead peer shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Connections are refused: the sender learns of it after a round trip (`kill -9`).
    Refused,
    /// Nothing comes back (a pulled cable).
    Silent,
}

enum Event {
    Request { to: SocketAddr, from: usize, rpc: RpcId, named: Option<Id>, request: Request },
    Response { to: usize, rpc: RpcId, from: PeerRef, response: Response },
    Failed { to: usize, rpc: RpcId },
    LinkDown { to: usize, peer: Id },
}

pub struct Peer<O> {
    pub overlay: O,
    pub me: PeerRef,
    pub alive: bool,
}

pub struct Net<O> {
    pub now: Instant,
    pub peers: Vec<Peer<O>>,
    pub latency: (Duration, Duration),
    /// Share of requests and of responses that vanish.
    pub loss: f64,
    pub death: Death,
    /// What the peers reported and nobody took yet.
    pub reports: Vec<(usize, Output)>,
    /// Every request sent, for traces and counts.
    pub sent: Vec<(PeerRef, SocketAddr, Request)>,
    /// Every request answered, with the answer.
    pub answered: Vec<(PeerRef, PeerRef, Request, Response)>,
    pub record: bool,
    pub messages: u64,
    pub history: DefaultHasher,
    rng: Rng,
    make: Box<dyn Fn(PeerRef, Rng) -> O>,
    events: BTreeMap<(Instant, u64), Event>,
    tokens: BTreeMap<Token, (usize, usize, RpcId, Request)>,
    /// Who has answered whom: only they may be named to others.
    reached: BTreeSet<(usize, Id)>,
    /// Open links, the lower index first.
    links: BTreeSet<(usize, usize)>,
    /// Who reported that many failed at once, and when.
    pub churned: Vec<(Instant, usize)>,
    /// Bytes sent and received by each, where messages go through SIP.
    pub bytes: Vec<u64>,
    /// One side of a network that is cut in two.
    sides: BTreeSet<usize>,
    /// They say what they like.
    pub liars: BTreeSet<usize>,
    /// Cut off: nothing goes in or out.
    pub isolated: BTreeSet<usize>,
    /// These never pass a request on, nor say so.
    pub swallows: BTreeSet<usize>,
    /// What these hand out as a chunk is another.
    pub spoils: BTreeSet<usize>,
    /// Every message goes through SIP bytes and back.
    pub wire: Option<fn(PeerRef) -> Carry>,
    wire_rng: Rng,
    next: u64,
}

impl<O: Overlay> Net<O> {
    pub fn new(seed: u64, make: impl Fn(PeerRef, Rng) -> O + 'static) -> Net<O> {
        Net {
            now: Instant::from_millis(1000),
            peers: Vec::new(),
            latency: (Duration::from_millis(10), Duration::from_millis(50)),
            loss: 0.0,
            death: Death::Refused,
            reports: Vec::new(),
            sent: Vec::new(),
            answered: Vec::new(),
            record: false,
            messages: 0,
            history: DefaultHasher::new(),
            rng: Rng::from_seed(seed),
            make: Box::new(make),
            events: BTreeMap::new(),
            tokens: BTreeMap::new(),
            reached: BTreeSet::new(),
            links: BTreeSet::new(),
            churned: Vec::new(),
            bytes: Vec::new(),
            sides: BTreeSet::new(),
            liars: BTreeSet::new(),
            isolated: BTreeSet::new(),
            swallows: BTreeSet::new(),
            spoils: BTreeSet::new(),
            wire: None,
            wire_rng: Rng::from_seed(seed),
            next: 0,
        }
    }

    /// A new peer, outside the ring.
    pub fn add(&mut self, id: Id) -> usize {
        let n = self.peers.len();
        let addr = SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 5060));
        self.add_at(PeerRef { id, addr })
    }

    pub fn add_at(&mut self, me: PeerRef) -> usize {
        let rng = self.rng.fork();
        let mut overlay = (self.make)(me, rng);
        overlay.handle(self.now, Input::Clock { unix: UNIX });
        self.peers.push(Peer { overlay, me, alive: true });
        self.peers.len() - 1
    }

    /// A ring of `n` peers that has come to rest.
    pub fn ring(&mut self, n: usize) {
        for i in 0..n {
            let peer = self.add(Id::sha1(format!("peer {i}").as_bytes()));
            match i {
                0 => self.command(peer, Command::Create),
                _ => {
                    let bootstrap = self.rng.below(i as u64) as usize;
                    self.join(peer, bootstrap);
                }
            }
            self.run(Duration::from_millis(300));
        }
        self.run(Duration::from_secs(60));
    }

    pub fn join(&mut self, peer: usize, by: usize) {
        let bootstrap = self.peers[by].me.addr;
        self.command(peer, Command::Join { bootstrap });
    }

    pub fn command(&mut self, peer: usize, command: Command) {
        self.input(peer, Input::Command(command));
    }

    pub fn input(&mut self, peer: usize, input: Input) {
        if self.peers[peer].alive {
            self.peers[peer].overlay.handle(self.now, input);
            self.drain(peer);
        }
    }

    /// The same peer again, with nothing in its memory.
    pub fn restart(&mut self, peer: usize) {
        let rng = self.rng.fork();
        let mut overlay = (self.make)(self.peers[peer].me, rng);
        overlay.handle(self.now, Input::Clock { unix: UNIX });
        self.peers[peer].overlay = overlay;
        self.peers[peer].alive = true;
        self.reached.retain(|(by, _)| *by != peer);
    }

    pub fn crash(&mut self, peer: usize) {
        self.peers[peer].alive = false;
        if self.death == Death::Refused {
            // The system closes its connections.
            let id = self.peers[peer].me.id;
            let others = self.links.iter().filter(|(a, b)| *a == peer || *b == peer).map(|(a, b)| a + b - peer);
            for to in others.filter(|to| self.peers[*to].alive).collect::<Vec<_>>() {
                self.schedule(Event::LinkDown { to, peer: id });
            }
        }
        self.links.retain(|(a, b)| *a != peer && *b != peer);
    }

    /// Nothing passes between these and the others: every link between the two is lost, which neither side is told.
    pub fn cut(&mut self, side: &[usize]) {
        self.sides = side.iter().copied().collect();
    }

    /// Links open to or from a peer.
    pub fn links_of(&self, peer: usize) -> usize {
        self.links.iter().filter(|(a, b)| *a == peer || *b == peer).count()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.sides.contains(&a) != self.sides.contains(&b)
    }

    /// Runs for `span` of virtual time.
    pub fn run(&mut self, span: Duration) {
        self.run_until(self.now + span, |_| false);
    }

    /// Runs until `stop` says so or `end` comes; true when it was `stop`.
    pub fn run_until(&mut self, end: Instant, stop: impl Fn(&Self) -> bool) -> bool {
        loop {
            if stop(self) {
                return true;
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer = self
                .peers
                .iter()
                .enumerate()
                .filter(|(_, p)| p.alive)
                .filter_map(|(i, p)| p.overlay.poll_timeout().map(|at| (at, i)))
                .min();
            let event_first = match (event, timer) {
                (Some(e), Some((t, _))) => e <= t,
                (Some(_), None) => true,
                _ => false,
            };
            let at = if event_first { event } else { timer.map(|(t, _)| t) };
            let Some(at) = at.filter(|at| *at <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(at);
            if event_first {
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            } else if let Some((_, i)) = timer {
                self.peers[i].overlay.handle_timeout(self.now);
                self.drain(i);
            }
        }
    }

    /// Writes and waits; acknowledgements and result.
    pub fn put(&mut self, peer: usize, entry: &SignedEntry) -> (u8, Result<(), PutError>, Trace) {
        let op = self.op();
        let key = entry.entry().resource_key();
        self.command(peer, Command::Put { op, key, entry: entry.clone() });
        let ended = |n: &Self| n.reports.iter().any(|(_, o)| matches!(o, Output::PutDone { op: o, .. } if *o == op));
        assert!(self.run_until(self.now + Duration::from_secs(30), ended), "a put never ended");
        let at = self.reports.iter().position(|(_, o)| matches!(o, Output::PutDone { op: o, .. } if *o == op));
        match self.reports.remove(at.expect("it ended")).1 {
            Output::PutDone { acks, result, trace, .. } => (acks, result, trace),
            _ => unreachable!(),
        }
    }

    /// Reads and waits.
    pub fn get(&mut self, peer: usize, key: Id, mode: Mode) -> (Result<Vec<SignedEntry>, LookupError>, Trace) {
        let op = self.op();
        self.command(peer, Command::Get { op, key, aor: None, mode });
        let ended = |n: &Self| n.reports.iter().any(|(_, o)| matches!(o, Output::GetDone { op: o, .. } if *o == op));
        assert!(self.run_until(self.now + Duration::from_secs(30), ended), "a get never ended");
        let at = self.reports.iter().position(|(_, o)| matches!(o, Output::GetDone { op: o, .. } if *o == op));
        match self.reports.remove(at.expect("it ended")).1 {
            Output::GetDone { result, trace, .. } => (result, trace),
            _ => unreachable!(),
        }
    }

    /// Looks for the peer responsible for `target` and waits.
    pub fn find(&mut self, peer: usize, target: Id, mode: Mode) -> (Result<PeerRef, LookupError>, Trace) {
        let op = self.op();
        self.command(peer, Command::Find { op, target, mode });
        let ended = |n: &Self| n.reports.iter().any(|(_, o)| matches!(o, Output::FindDone { op: o, .. } if *o == op));
        assert!(self.run_until(self.now + Duration::from_secs(30), ended), "a lookup never ended");
        let at = self.reports.iter().position(|(_, o)| matches!(o, Output::FindDone { op: o, .. } if *o == op));
        match self.reports.remove(at.expect("it ended")).1 {
            Output::FindDone { result, trace, .. } => (result, trace),
            _ => unreachable!(),
        }
    }

    pub fn op(&mut self) -> OpId {
        self.next += 1;
        OpId(self.next)
    }

    pub fn living(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|i| self.peers[*i].alive).collect()
    }

    /// The living peers that are in the ring, around it, by identifier.
    pub fn around(&self) -> Vec<usize> {
        let mut ring: Vec<usize> =
            self.living().into_iter().filter(|i| self.peers[*i].overlay.status().joined).collect();
        ring.sort_by_key(|i| self.peers[*i].me.id);
        ring
    }

    /// The peer responsible for `key`, by looking from above.
    pub fn owner(&self, key: &Id) -> usize {
        let ring = self.around();
        ring.iter().copied().find(|i| self.peers[*i].me.id >= *key).unwrap_or(ring[0])
    }

    /// What the ring would have to be and is not: one line for each wrong neighbour.
    pub fn wrong(&self, successors: usize) -> Vec<String> {
        let ring = self.around();
        let n = ring.len();
        let mut wrong = Vec::new();
        for (at, i) in ring.iter().enumerate() {
            let status = self.peers[*i].overlay.status();
            let expected: Vec<Id> = (1..=successors.min(n - 1)).map(|d| self.peers[ring[(at + d) % n]].me.id).collect();
            let got: Vec<Id> = status.successors.iter().map(|p| p.id).collect();
            if got != expected {
                wrong.push(format!("{:?}: successors {got:?}, should be {expected:?}", self.peers[*i].me.id));
            }
            let before = self.peers[ring[(at + n - 1) % n]].me.id;
            if n > 1 && status.predecessor.map(|p| p.id) != Some(before) {
                wrong.push(format!("{:?}: predecessor {:?}", self.peers[*i].me.id, status.predecessor));
            }
        }
        wrong
    }

    pub fn draw(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { to, from, rpc, named, request } => {
                let Some(i) = self.peers.iter().position(|p| p.me.addr == to) else {
                    return self.fail(from, rpc);
                };
                if !self.peers[i].alive {
                    if self.death == Death::Refused {
                        self.fail(from, rpc);
                    }
                    return;
                }
                let recursive = matches!(
                    &request,
                    Request::Query { route: Route::Recursive { .. }, .. }
                        | Request::Fetch { route: Route::Recursive { .. }, .. }
                );
                if self.is_cut(i, from)
                    || self.isolated.contains(&i)
                    || self.isolated.contains(&from)
                    || recursive && self.swallows.contains(&i)
                {
                    return;
                }
                if named.is_some_and(|id| id != self.peers[i].me.id) {
                    return self.fail(from, rpc);
                }
                self.links.insert((i.min(from), i.max(from)));
                self.next += 1;
                let token = Token(self.next);
                self.tokens.insert(token, (i, from, rpc, request.clone()));
                let from = Some(self.peers[from].me);
                self.input(i, Input::Request { from, token, request });
            }
            Event::Response { to, rpc, from, response } => {
                let by = self.peers.iter().position(|p| p.me == from);
                if by.is_some_and(|by| self.is_cut(to, by)) {
                    return;
                }
                self.reached.insert((to, from.id));
                self.input(to, Input::Response { rpc, from, response });
            }
            Event::LinkDown { to, peer } => self.input(to, Input::LinkDown { peer }),
            Event::Failed { to, rpc } => self.input(to, Input::RpcFailed { rpc }),
        }
    }

    fn drain(&mut self, i: usize) {
        while let Some(output) = self.peers[i].overlay.poll_output() {
            (self.now, i, format!("{output:?}")).hash(&mut self.history);
            match output {
                Output::Send { rpc, peer, addr, request } => {
                    self.messages += 1;
                    if self.record {
                        self.sent.push((self.peers[i].me, addr, request.clone()));
                    }
                    let request = self.through_sip(i, addr, request);
                    if self.rng.unit() >= self.loss {
                        self.schedule(Event::Request { to: addr, from: i, rpc, named: peer, request });
                    }
                }
                Output::Reply { token, mut response } => {
                    if let (Response::Chunk { bytes }, true) = (&mut response, self.spoils.contains(&i)) {
                        *bytes = vec![7; bytes.len()].into();
                    }
                    self.messages += 1;
                    let (by, to, rpc, request) = self.tokens.remove(&token).expect("a request is answered once");
                    assert_eq!(by, i);
                    self.check_named(i, &response);
                    if self.record {
                        self.answered.push((self.peers[i].me, self.peers[to].me, request.clone(), response.clone()));
                    }
                    let response = self.back_through_sip(to, i, &request, response);
                    if self.rng.unit() >= self.loss {
                        let from = self.peers[i].me;
                        self.schedule(Event::Response { to, rpc, from, response });
                    }
                }
                Output::Drop { peer } => {
                    if let Some(j) = self.peers.iter().position(|p| p.me == peer)
                        && self.links.remove(&(i.min(j), i.max(j)))
                    {
                        self.schedule(Event::LinkDown { to: j, peer: self.peers[i].me.id });
                    }
                }
                Output::Churn => self.churned.push((self.now, i)),
                Output::NeighboursChanged => {}
                other => self.reports.push((i, other)),
            }
        }
    }

    /// What the receiver reads of a request: the very same.
    fn through_sip(&mut self, from: usize, to: SocketAddr, request: Request) -> Request {
        let Some(wire) = self.wire.filter(|_| !self.liars.contains(&from)) else { return request };
        let carry = wire(self.peers[from].me);
        let message = carry.encode_request(&request, to, &mut self.wire_rng);
        let bytes = message.to_bytes();
        self.weigh(from, to, bytes.len());
        let message = Message::parse(&bytes).expect("it is SIP");
        assert!(is_overlay(&message));
        let (sender, decoded) = carry.decode_request(&message).expect("it is an overlay message");
        assert_eq!((sender, without_aor(&decoded)), (self.peers[from].me, without_aor(&request)));
        decoded
    }

    fn back_through_sip(&mut self, asker: usize, by: usize, request: &Request, response: Response) -> Response {
        let Some(wire) = self.wire else { return response };
        let (asking, answering) = (wire(self.peers[asker].me), wire(self.peers[by].me));
        let message = asking.encode_request(request, self.peers[by].me.addr, &mut self.wire_rng);
        let message = answering.encode_response(&message, &response, &mut self.wire_rng);
        let bytes = message.to_bytes();
        let to = self.peers[asker].me.addr;
        self.weigh(by, to, bytes.len());
        let message = Message::parse(&bytes).expect("it is SIP");
        let (sender, decoded) = asking.decode_response(&message, request.kind()).expect("it is an overlay message");
        assert_eq!((sender, &decoded), (Some(self.peers[by].me), &response));
        decoded
    }

    /// Counts a message at both ends: the Via that a transaction adds, the record of TLS 1.3, TCP and IP, and the
    /// acknowledgement.
    fn weigh(&mut self, from: usize, to: SocketAddr, message: usize) {
        const AROUND: usize = 120 + 22 + 40 + 40;
        self.bytes.resize(self.peers.len(), 0);
        let to = self.peers.iter().position(|p| p.me.addr == to);
        for end in [Some(from), to].into_iter().flatten() {
            self.bytes[end] += (message + AROUND) as u64;
        }
    }

    /// Nobody names a peer that has not answered it.
    fn check_named(&self, by: usize, response: &Response) {
        if !self.liars.is_empty() {
            return;
        }
        let (closer, links) = match response {
            Response::Redirect { closer, links } => (Some(closer), links),
            Response::Admitted { links } | Response::Stored { links } => (None, links),
            Response::Responsible { links, .. } | Response::Entries { links, .. } => (None, links),
            _ => return,
        };
        // What is passed back is what the last of the path said.
        let by = match response {
            Response::Responsible { path, .. } | Response::Entries { path, .. } => {
                path.last().and_then(|p| self.peers.iter().position(|q| q.me == *p)).unwrap_or(by)
            }
            _ => by,
        };
        for named in closer.into_iter().chain(links.peers()) {
            let known = named.id == self.peers[by].me.id || self.reached.contains(&(by, named.id));
            assert!(known, "{:?} names {named:?}, which it never reached", self.peers[by].me);
        }
    }

    fn fail(&mut self, to: usize, rpc: RpcId) {
        self.schedule(Event::Failed { to, rpc });
    }

    fn schedule(&mut self, event: Event) {
        let (low, high) = (self.latency.0.as_micros() as u64, self.latency.1.as_micros() as u64);
        let delay = Duration::from_micros(low + self.rng.below(high - low + 1));
        self.next += 1;
        self.events.insert((self.now + delay, self.next), event);
    }
}

/// An address of record may be derived where it was not given.
fn without_aor(request: &Request) -> Request {
    let mut request = request.clone();
    if let Request::Fetch { aor, .. } = &mut request {
        *aor = None;
    }
    request
}

/// Users of an open overlay, who sign.
pub struct Users {
    rng: Rng,
}

impl Users {
    pub fn new(seed: u64) -> Users {
        Users { rng: Rng::from_seed(seed) }
    }

    pub fn user(&mut self, name: &str) -> Identity {
        self.user_of(OVERLAY, name)
    }

    pub fn user_of(&mut self, overlay: &str, name: &str) -> Identity {
        Identity::open(overlay, name, UNIX, &mut self.rng).expect("a good name")
    }
}

/// An entry of `user`'s own AOR.
pub fn entry(user: &Identity, sequence: u64, body: &[u8], lifetime: u32) -> SignedEntry {
    let entry = Entry {
        kind: EntryKind::Contact,
        aor: user.aor(),
        device: user.device_key(),
        sequence,
        issued: UNIX,
        lifetime,
        body: body.to_vec(),
    };
    user.sign_entry(entry).expect("it is the user's own")
}

pub fn key_of(user: &Identity) -> Id {
    resource_key(&user.aor())
}
