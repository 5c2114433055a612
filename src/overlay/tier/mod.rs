//! Two tiers: supernodes are the ring, ordinary nodes hang on two of them.
//!
//! [`Tiered`] is an [`Overlay`] around a [`Chord`]. A supernode runs the Chord and serves the nodes attached to it; an
//! ordinary node has a **primary** and a **backup** supernode over links that it opened itself and keeps open (RFC 5626's
//! flows: it need not be reachable), and hands them what it wants looked up and written. They run it as an operation of
//! their own over the ring; the asker verifies every entry again, and an empty answer of the one is confirmed by the other.
//!
//! | file | what |
//! |---|---|
//! | `message` | what they say to each other |
//! | `attach` | an ordinary node's side: choosing, keeping and replacing its two supernodes |
//! | `ops` | its puts, gets and finds |
//! | `service` | a supernode's side: who is attached, what is run for them, dial-backs |
//! | `election` | when a node becomes a supernode by itself, and when it steps down |
//!
//! **A supernode that dies.** A closed link is noticed at once. A silent machine is noticed by the backup if it is next to the
//! primary on the ring (the neighbours come first in the answer to an attachment and are preferred), which then tells its
//! attached nodes; and in any case by the node's own keep-alive. Whoever is told asks the one concerned before it believes it.
//!
//! Absent: more than one backup; moving attached nodes away from a loaded supernode before it is full.

mod attach;
mod election;
mod message;
mod ops;
mod service;

pub use election::Facts;
pub use message::{Answer, Ask, Offer, Rank, Way};

use super::chord::Chord;
use super::{
    Command, Counters, Failure, Input, Links, OpId, Output, Overlay, PeerRef, Request, Response, RpcId, Status, Token,
    Verify,
};
use crate::core::{Id, Instant, Rng, TimerQueue, UnixTime};
use attach::Client;
use election::Election;
use service::Service;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What the owner of a node wants it to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wish {
    /// What the ring needs and the node can bear.
    #[default]
    Auto,
    /// A supernode, whatever others think.
    Supernode,
    /// Never a supernode.
    Ordinary,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Role {
    /// Nothing yet.
    #[default]
    Outside,
    /// Attached to supernodes.
    Ordinary,
    /// In the ring.
    Supernode,
}

/// Settings of a [`Tiered`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What the owner wants.
    pub wish: Wish,
    /// The device's certificate lets it have a place on the ring.
    pub may_be_supernode: bool,
    /// Without links: signs of life are asked for by a message.
    pub clear: bool,
    /// Nodes that a supernode takes.
    pub capacity: u16,
    /// For how long an attachment is asked, in seconds.
    pub expires: u32,
    /// From one sign of life on the kept links to the next.
    pub ping: Duration,
    /// How long the answer to one may take.
    pub ping_patience: Duration,
    /// How long a node has to be up at one address before it becomes a supernode; not where the ring is small.
    pub settled: Duration,
    /// Free memory that a supernode needs, in MiB.
    pub min_memory: u64,
    /// Load average of one processor above which no node becomes a supernode, in hundredths.
    pub max_load: u32,
    /// Supernodes below which every node that can be reached becomes one.
    pub enough: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            wish: Wish::Auto,
            may_be_supernode: true,
            clear: false,
            capacity: 256,
            expires: 3600,
            ping: Duration::from_secs(30),
            ping_patience: Duration::from_secs(6),
            settled: Duration::from_secs(1800),
            min_memory: 128,
            max_load: 70,
            enough: 8,
        }
    }
}

/// Role, why, and what hangs on what; for `status`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Standing {
    /// What the node is.
    pub role: Role,
    /// Why it is that, for a person.
    pub why: String,
    /// The primary and its round trip.
    pub primary: Option<(PeerRef, Duration)>,
    /// The backup and its round trip.
    pub backup: Option<(PeerRef, Duration)>,
    /// Nodes attached here, as what.
    pub attached: Vec<(PeerRef, Rank)>,
    /// Nodes that this supernode takes.
    pub capacity: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Timer {
    /// A request's deadline.
    Rpc(u64),
    /// The start: another attempt.
    Start,
    Renew(Rank),
    Ping,
    /// Whoever has not answered by now is gone.
    Pong(Id),
    /// Look for a backup, or a better primary.
    Seek,
    /// An operation goes to the other supernode too.
    Hedge(OpId),
    /// Attached nodes whose time is over.
    Lapse,
    Elect,
    /// The ring still is too small.
    Help,
    Leave,
}

/// Why a request went out.
#[derive(Clone, Debug)]
enum Why {
    Attach {
        rank: Option<Rank>,
        start: bool,
    },
    Op {
        op: OpId,
        rank: Rank,
    },
    DialBack,
    /// Another supernode dials for the asker of `token`.
    Dial {
        token: Token,
        peer: PeerRef,
    },
    /// This node dials itself.
    Own {
        token: Token,
    },
    Detach,
    Told,
}

#[derive(Clone, Debug)]
struct Rpc {
    to: Option<Id>,
    addr: SocketAddr,
    sent: Instant,
    why: Why,
}

/// What a node is on its way to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moving {
    No,
    /// Joining the ring from an attachment.
    Up,
    /// Leaving the ring for an attachment.
    Down,
    /// Leaving altogether; so many farewells are out.
    Away(usize),
}

/// One node of either tier.
pub struct Tiered {
    chord: Chord,
    config: Config,
    verify: Box<dyn Verify>,
    rng: Rng,
    role: Role,
    moving: Moving,
    client: Client,
    service: Service,
    election: Election,
    rpcs: BTreeMap<u64, Rpc>,
    timers: TimerQueue<Timer>,
    out: VecDeque<Output>,
    next: u64,
}

/// Set in the numbers that are chosen here, so that they are never the Chord's or the driver's.
const OURS: u64 = 1 << 63;
/// How long the answer to an attachment or a question for one may take; the link has to be made first.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long farewells may hold up leaving.
const FAREWELL: Duration = Duration::from_secs(1);

impl Tiered {
    /// A node outside of everything. `verify` judges what supernodes answer; `rng` spreads periodic work.
    pub fn new(chord: Chord, config: Config, verify: Box<dyn Verify>, rng: Rng) -> Tiered {
        Tiered {
            chord,
            verify,
            rng,
            role: Role::Outside,
            moving: Moving::No,
            client: Client::default(),
            service: Service::default(),
            election: Election::default(),
            rpcs: BTreeMap::new(),
            timers: TimerQueue::new(),
            out: VecDeque::new(),
            next: 0,
            config,
        }
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next | OURS
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.chord.unix(now)
    }

    /// `span` give or take an eighth.
    fn about(&mut self, span: Duration) -> Duration {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(us - us / 8 + self.rng.below(us / 4 + 1))
    }

    fn ask(&mut self, now: Instant, to: Option<Id>, addr: SocketAddr, ask: Ask, why: Why, wait: Duration) {
        let id = self.fresh();
        self.timers.set(Timer::Rpc(id), now + wait);
        self.rpcs.insert(id, Rpc { to, addr, sent: now, why });
        self.out.push_back(Output::Send { rpc: RpcId(id), peer: to, addr, request: Request::Tier(ask) });
    }

    fn reply(&mut self, token: Token, response: Response) {
        self.out.push_back(Output::Reply { token, response });
    }

    fn command(&mut self, now: Instant, command: Command) {
        match command {
            // Nothing to attach to yet: it waits until somebody is found.
            Command::Create if !self.may_found() => self.election.why = "no supernode is known yet".into(),
            Command::Create => self.hand(now, Input::Command(Command::Create)),
            Command::Join { bootstrap } => {
                let ring = self.role == Role::Supernode || self.moving == Moving::Up;
                if ring || self.config.wish == Wish::Supernode && self.config.may_be_supernode {
                    self.hand(now, Input::Command(Command::Join { bootstrap }));
                } else {
                    self.start(now, bootstrap);
                }
            }
            Command::Leave => self.leave(now),
            Command::Put { op, key, entry } if self.delegates() => self.put(now, op, key, entry),
            Command::Get { op, key, aor, mode } if self.delegates() => self.get(now, op, key, aor, mode),
            Command::Find { op, target, mode } if self.delegates() => self.find(now, op, target, mode),
            Command::Lease { op, key, entry } if self.delegates() => self.lease(now, op, key, entry),
            Command::Give { op, key, entry, bytes } if self.delegates() => self.give(now, op, key, entry, bytes),
            Command::Take { op, key, hash } if self.delegates() => self.take(now, op, key, hash),
            other => self.hand(now, Input::Command(other)),
        }
    }

    fn may_found(&self) -> bool {
        self.config.wish != Wish::Ordinary && self.config.may_be_supernode
    }

    /// Operations go to the supernodes.
    fn delegates(&self) -> bool {
        self.role != Role::Supernode || self.moving == Moving::Down && self.client.primary.is_some()
    }

    fn hand(&mut self, now: Instant, input: Input) {
        self.chord.handle(now, input);
        self.pump(now);
    }

    /// Takes what the Chord says: some of it is about this node's role.
    fn pump(&mut self, now: Instant) {
        while let Some(output) = self.chord.poll_output() {
            match output {
                Output::Joined => self.on_ring_joined(now),
                Output::JoinFailed { why } if self.moving == Moving::Up => self.on_rise_failed(now, why),
                Output::Left if self.moving == Moving::Down => self.on_stepped_down(now),
                Output::PutDone { op, result, acks, trace } if op.0 & OURS != 0 => {
                    self.on_put_run(op, result, acks, trace);
                }
                Output::GetDone { op, result, trace } if op.0 & OURS != 0 => self.on_get_run(op, result, trace),
                Output::FindDone { op, result, trace } if op.0 & OURS != 0 => self.on_find_run(op, result, trace),
                Output::LeaseDone { op, result, .. } if op.0 & OURS != 0 => self.on_lease_run(now, op, result),
                Output::TakeDone { op, result, .. } if op.0 & OURS != 0 => self.on_take_run(op, result),
                Output::Drop { peer } => {
                    self.tell_gone(now, peer);
                    if !self.hangs_together(&peer.id) {
                        self.out.push_back(Output::Drop { peer });
                    }
                }
                Output::NeighboursChanged => {
                    self.out.push_back(Output::NeighboursChanged);
                    self.check_soon(now);
                    self.help_soon(now);
                }
                other => self.out.push_back(other),
            }
        }
    }

    /// True for whoever this node hangs on or who hangs on it: their links stay, whatever the ring thinks of them.
    fn hangs_together(&self, id: &Id) -> bool {
        self.client.rank_of(id).is_some() || self.service.attached.contains_key(id)
    }

    fn on_ring_joined(&mut self, now: Instant) {
        self.role = Role::Supernode;
        self.moving = Moving::No;
        let why = match (self.config.wish, self.chord.status().successors.is_empty()) {
            (Wish::Supernode, _) => "set by role = supernode",
            (_, true) => "the first of this overlay",
            (_, false) => "the ring needs it and others can reach it",
        };
        self.election.rose(now, why);
        (self.client.starting, self.client.held) = (None, false);
        let was: Vec<PeerRef> = self.client.via();
        for peer in &was {
            self.ask(now, Some(peer.id), peer.addr, Ask::Detach, Why::Told, PATIENCE);
        }
        self.client.forget();
        for timer in [Timer::Ping, Timer::Seek, Timer::Start, Timer::Renew(Rank::Primary), Timer::Renew(Rank::Backup)] {
            self.timers.cancel(&timer);
        }
        if !was.is_empty() {
            self.out.push_back(Output::Hanging { via: Vec::new() });
        }
        self.timers.set(Timer::Elect, now + election::CHECK);
        self.check_soon(now);
        self.out.push_back(Output::Joined);
        self.move_ops(now);
    }

    fn leave(&mut self, now: Instant) {
        if self.role == Role::Supernode {
            self.say_farewell(now);
            return self.hand(now, Input::Command(Command::Leave));
        }
        let via = self.client.via();
        self.moving = Moving::Away(via.len());
        for peer in &via {
            self.ask(now, Some(peer.id), peer.addr, Ask::Detach, Why::Detach, FAREWELL);
        }
        self.client.forget();
        if via.is_empty() {
            self.finish();
        } else {
            self.timers.set(Timer::Leave, now + FAREWELL);
        }
    }

    fn on_farewell(&mut self) {
        if let Moving::Away(left) = self.moving {
            self.moving = Moving::Away(left.saturating_sub(1));
            if left <= 1 {
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        self.role = Role::Outside;
        self.moving = Moving::No;
        self.timers = TimerQueue::new();
        self.rpcs.clear();
        self.out.push_back(Output::Left);
    }

    fn on_request(&mut self, now: Instant, from: Option<PeerRef>, token: Token, request: Request) {
        match request {
            Request::Tier(ask) => match from.filter(|f| f.id != self.chord.me().id) {
                Some(from) => self.serve(now, from, token, ask),
                None => self.reply(token, Response::Failed(Failure::Invalid)),
            },
            // Whoever wants into the ring by this node finds the way there.
            Request::Register { .. } if self.role == Role::Ordinary && self.moving != Moving::Up => {
                match self.client.primary.as_ref().map(|h| h.peer) {
                    Some(closer) => self.reply(token, Response::Redirect { closer, links: Links::default() }),
                    None => self.reply(token, Response::Failed(Failure::NotInRing)),
                }
            }
            request => self.hand(now, Input::Request { from, token, request }),
        }
    }

    fn on_response(&mut self, now: Instant, rpc: RpcId, from: PeerRef, response: Response) {
        if rpc.0 & OURS == 0 {
            return self.hand(now, Input::Response { rpc, from, response });
        }
        let Some(sent) = self.rpcs.remove(&rpc.0) else { return };
        self.timers.cancel(&Timer::Rpc(rpc.0));
        if sent.to.is_some_and(|id| id != from.id) {
            return self.on_failed(now, sent);
        }
        let from = PeerRef { id: from.id, addr: sent.addr };
        match sent.why {
            Why::Attach { rank, start } => {
                self.on_attach_answer(now, from, rank, start, response, now.since(sent.sent));
            }
            Why::Op { op, rank } => self.on_op_answer(now, op, rank, response),
            Why::DialBack => self.on_dialled_back(now, Some(response)),
            Why::Dial { token, peer } => self.on_dial_answer(now, token, peer, Some(response)),
            Why::Detach => self.on_farewell(),
            Why::Own { .. } | Why::Told => {}
        }
    }

    /// No answer: refused, lost or too late.
    fn on_failed(&mut self, now: Instant, sent: Rpc) {
        match sent.why {
            Why::Attach { rank, start } => self.on_attach_failed(now, sent.to, rank, start),
            Why::Op { op, rank } => self.on_op_failed(now, op, rank),
            Why::DialBack => self.on_dialled_back(now, None),
            Why::Dial { token, peer } => self.on_dial_answer(now, token, peer, None),
            Why::Own { token } => self.reply(token, Response::Tier(Answer::Reachable(false))),
            Why::Detach => self.on_farewell(),
            Why::Told => {}
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Rpc(id) => {
                if let Some(sent) = self.rpcs.remove(&id) {
                    self.on_failed(now, sent);
                }
            }
            Timer::Start => self.on_start_timer(now),
            Timer::Renew(rank) => self.renew(now, rank),
            Timer::Ping => self.on_ping_timer(now),
            Timer::Pong(id) => self.on_no_pong(now, id),
            Timer::Seek => self.seek(now),
            Timer::Hedge(op) => self.hedge(now, op),
            Timer::Lapse => self.on_lapse(now),
            Timer::Elect => self.on_elect(now),
            Timer::Help => self.call_for_help(now),
            Timer::Leave => self.finish(),
        }
    }
}

impl Overlay for Tiered {
    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Request { from, token, request } => self.on_request(now, from, token, request),
            Input::Response { rpc, from, response } => self.on_response(now, rpc, from, response),
            Input::RpcFailed { rpc } if rpc.0 & OURS != 0 => {
                if let Some(sent) = self.rpcs.remove(&rpc.0) {
                    self.timers.cancel(&Timer::Rpc(rpc.0));
                    self.on_failed(now, sent);
                }
            }
            Input::LinkDown { peer } => {
                self.on_link_down(now, peer);
                self.hand(now, Input::LinkDown { peer });
            }
            Input::Dialled { rpc, reached } => {
                if let Some(Rpc { why: Why::Own { token }, .. }) = self.rpcs.remove(&rpc.0) {
                    self.timers.cancel(&Timer::Rpc(rpc.0));
                    self.reply(token, Response::Tier(Answer::Reachable(reached)));
                }
            }
            Input::Pong { peer } => self.on_pong(now, peer),
            Input::Facts(facts) => {
                self.election.facts = Some(facts);
                self.consider(now);
            }
            Input::Clock { unix } => {
                self.hand(now, Input::Clock { unix });
            }
            Input::Revoked { revoked } => {
                self.verify.revoke(revoked.clone());
                self.hand(now, Input::Revoked { revoked });
            }
            Input::Command(command) => self.command(now, command),
            other @ (Input::Moved { .. }
            | Input::RpcFailed { .. }
            | Input::Restore(_)
            | Input::Flushed { .. }
            | Input::Loaded { .. }) => self.hand(now, other),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.chord.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            self.on_timer(now, timer);
        }
        self.chord.handle_timeout(now);
        self.pump(now);
    }

    fn me(&self) -> PeerRef {
        self.chord.me()
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.chord.unix(now)
    }

    fn status(&self) -> Status {
        let ring = self.chord.status();
        let hang = |h: &attach::Hang| (h.peer, h.rtt);
        let standing = Standing {
            role: self.role,
            why: self.election.why.clone(),
            primary: self.client.primary.as_ref().map(hang),
            backup: self.client.backup.as_ref().map(hang),
            attached: self.service.attached.values().map(|a| (a.peer, a.rank)).collect(),
            capacity: self.config.capacity,
        };
        Status { joined: ring.joined || self.client.primary.is_some(), tier: Some(standing), ..ring }
    }

    fn counters(&self) -> &Counters {
        self.chord.counters()
    }
}
