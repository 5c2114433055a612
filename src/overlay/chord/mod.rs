//! Chord (Stoica et al., IEEE/ACM Transactions on Networking 11(1), 2003) as an [`Overlay`], with what
//! draft-zangrilli-p2psip-dsip-dhtchord-00 section 6 says of joining, stabilisation and leaving.
//!
//! What it adds to the paper:
//! * A peer that it was only told about is neither routed to nor named to others until it has answered itself. Neighbours that
//!   others name are asked before they stand in a list, so that a lie about neighbours costs a question.
//! * Predecessors are a list too, so that each peer knows which replicas are its business.
//! * A lookup survives dead peers: a next hop that misses its deadline is passed over within the same lookup, the one
//!   who passes a request on does the same, and any holder of a resource answers for it.
//! * In rings of up to [`Config::members`] a member list: own requests go straight to the responsible peer, and a read asks all
//!   holders at once. Beyond, fingers of a wider base. [`Config::plain`] is the paper's Chord.
//! * A claim to be responsible is held against who else is known to live there, and against the ring's density.
//! * Records: `r` = 4 replicas (the responsible peer, two successors, one scattered). The writer writes to all of them and
//!   is content with two; the responsible peer compares with its successors when one of them or what it holds changes, hands over to a peer
//!   that joins before it, and places the scattered replica anew from time to time.
//! * Upkeep at the pace of the churn that is seen; a ring at rest says little.
//! * Rings of one overlay that grew apart become one.
//!
//! Kept invariant: nothing is stored that was not verified; whoever leaves a table is reported by [`Output::Drop`]; every
//! request that came in is answered once.
//!
//! Files: `table` (who is known), `members` and `gossip` (the member list), `store` (what is held), `durable` (what is kept over a
//! restart), `clock` (the time that counts), `rpc` (requests out, deadlines, failures), `serve` (requests in), `join`, `merge` (two
//! rings), `upkeep` (stabilise, fingers, leave), `watch` (churn), `replicate` (hand-over and replicas), `compare` and `repair`
//! (holders made equal by digests), `lease`, `lease_known`, `lease_ask` (one winner), `bulk`, `chunk`, `chunk_ask`
//! (chunks of blobs), `lookup`, `read`, `write`, `cache`.
//!
//! Absent: lookups over several disjoint paths at once in rings without a member list, where liars on the way are met by
//! trying again over another way; fingers chosen by proximity.

mod bulk;
mod cache;
mod chunk;
mod chunk_ask;
mod clock;
mod compare;
mod config;
mod durable;
mod gossip;
mod join;
mod lease;
mod lease_ask;
mod lease_known;
mod lookup;
mod members;
mod merge;
mod read;
mod repair;
mod replicate;
mod rpc;
mod serve;
mod store;
mod table;
mod upkeep;
mod watch;
mod write;

pub use config::Config;

use super::{Command, Counters, Input, LookupError, OpId, Output, Overlay, PeerRef, PutError, Status, Trace, Verify};
use crate::core::{Id, Instant, Rng, TimerQueue, UnixTime};
use crate::identity::ChunkHash;
use cache::Cache;
use gossip::Gossip;
use join::Joining;
use lookup::{Goal, Op};
use members::Members;
use merge::Stranger;
use rpc::Rpc;
use serve::Relay;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use store::{Slot, Store};
use table::Table;
use watch::Watch;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Timer {
    Stabilise,
    Fingers,
    Maintain,
    /// News of members are to be handed on.
    News,
    /// The member list is to be compared.
    Compare,
    /// A peer of another ring is to be looked for.
    Seek,
    /// The join's next attempt.
    Join,
    /// The leave's end.
    Leave,
    /// Acknowledgements that wait for the disk.
    Flush,
    /// A request's deadline.
    Rpc(u64),
    /// A lookup's end.
    Op(u64),
    /// A lookup's next round, or its iterative half.
    Again(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Outside,
    Joined,
    /// Handing over; `told` when the neighbours have been told.
    Leaving {
        told: bool,
    },
}

/// One peer's machine.
pub struct Chord {
    config: Config,
    table: Table,
    members: Members,
    gossip: Gossip,
    strangers: Vec<Stranger>,
    watch: Watch,
    cache: Cache,
    store: Store,
    verify: Box<dyn Verify>,
    rng: Rng,
    state: State,
    joining: Option<Joining>,
    rpcs: BTreeMap<u64, Rpc>,
    ops: BTreeMap<u64, Box<Op>>,
    relays: BTreeMap<u64, Relay>,
    repairs: repair::Repairs,
    clock_told: Option<i64>,
    farewells: usize,
    timers: TimerQueue<Timer>,
    out: VecDeque<Output>,
    clock: clock::Clock,
    durable: durable::Durable,
    leases: lease::Leases,
    loading: BTreeMap<ChunkHash, Vec<chunk::Reader>>,
    /// The chunk that was last compared with its name.
    checked: Option<ChunkHash>,
    pace: Duration,
    homes: Vec<SocketAddr>,
    stabilising: bool,
    predecessor_asked: Instant,
    predecessor_since: Instant,
    next_id: u64,
    counters: Counters,
}

impl Chord {
    /// A peer outside any ring. `verify` judges entries; `rng` spreads periodic work.
    pub fn new(me: PeerRef, config: Config, verify: Box<dyn Verify>, rng: Rng) -> Chord {
        Chord {
            table: Table::new(me, &config),
            members: Members::new(me.id, config.members),
            gossip: Gossip::default(),
            strangers: Vec::new(),
            watch: Watch::default(),
            cache: Cache::new(config.cached_records, config.cached_for),
            store: Store::default(),
            verify,
            rng,
            state: State::Outside,
            joining: None,
            rpcs: BTreeMap::new(),
            ops: BTreeMap::new(),
            relays: BTreeMap::new(),
            repairs: repair::Repairs::default(),
            clock_told: None,
            farewells: 0,
            timers: TimerQueue::new(),
            out: VecDeque::new(),
            clock: clock::Clock::new(),
            durable: durable::Durable::default(),
            leases: lease::Leases::default(),
            loading: BTreeMap::new(),
            checked: None,
            pace: config.stabilise_min,
            homes: Vec::new(),
            stabilising: false,
            predecessor_asked: Instant::ZERO,
            predecessor_since: Instant::ZERO,
            next_id: 0,
            counters: Counters::default(),
            config,
        }
    }

    /// The peer that finger `exponent` points to: this peer itself where the rest of the ring lies before it.
    pub fn finger(&self, exponent: u8) -> PeerRef {
        self.table.finger(exponent)
    }

    /// The resources held as (resource-ID, number of the replica), in order.
    pub fn resources(&self) -> Vec<(Id, u8)> {
        self.store.slots().map(|(slot, _)| *slot).collect()
    }

    /// Everybody said to be in the ring besides this peer; empty where no list is kept.
    pub fn members(&self) -> Vec<PeerRef> {
        self.members.all().filter(|m| !m.gone).map(|m| m.peer).collect()
    }

    /// True when this peer is responsible for `target`, as far as it knows.
    pub fn is_responsible(&self, target: &Id) -> bool {
        self.state == State::Joined && self.table.is_responsible(target)
    }

    /// Runs one stabilisation now, whatever the timer says.
    pub fn stabilise(&mut self, now: Instant) {
        self.on_stabilise(now);
    }

    /// Begins a round over the fingers now, whatever the timer says.
    pub fn fix_fingers(&mut self, now: Instant) {
        self.on_fingers(now);
    }

    fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Create => self.create(now),
            Command::Join { bootstrap } => self.join(now, bootstrap),
            Command::Meet { peer } => self.meet(now, peer),
            Command::Leave => self.leave(now),
            Command::Put { op, key, entry } => self.put(now, op, key, entry, None),
            Command::Give { op, key, entry, bytes } => self.put(now, op, key, entry, Some(bytes)),
            Command::Take { op, key, hash } => self.take(now, op, key, hash),
            Command::Get { op, key, aor, mode } => {
                if let Err(error) = self.admit_op() {
                    self.out.push_back(Output::GetDone { op, result: Err(error), trace: Trace::default() });
                    return;
                }
                self.get(now, op, key, aor, mode);
            }
            Command::Lease { op, key, entry } => self.lease(now, op, key, entry),
            Command::Find { op, target, mode } => match self.admit_op() {
                Ok(()) => {
                    self.start(now, Goal::Find { op }, target, mode);
                }
                Err(error) => {
                    self.out.push_back(Output::FindDone { op, result: Err(error), trace: Trace::default() });
                }
            },
        }
    }

    fn admit_op(&mut self) -> Result<(), LookupError> {
        if self.state != State::Joined {
            return Err(LookupError::NotInRing);
        }
        if self.ops.len() >= self.config.max_ops {
            self.counters.busy += 1;
            return Err(LookupError::Busy);
        }
        Ok(())
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.clock.unix(now)
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// `span` give or take an eighth, so that peers that started together do not go on together.
    fn about(&mut self, span: Duration) -> Duration {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(us - us / 8 + self.rng.below(us / 4 + 1))
    }

    fn put_failed(&mut self, op: OpId, error: PutError) {
        self.out.push_back(Output::PutDone { op, acks: 0, result: Err(error), trace: Trace::default() });
    }
}

impl Overlay for Chord {
    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Request { from, token, request } => self.serve(now, from, token, request),
            Input::Response { rpc, from, response } => self.on_response(now, rpc, from, response),
            Input::RpcFailed { rpc } => self.on_rpc_failed(now, rpc, true),
            Input::LinkDown { peer } => self.on_link_down(now, peer),
            Input::Clock { unix } => self.clock.set(now, unix),
            Input::Restore(stored) => self.restore(now, stored),
            Input::Flushed { upto } => self.on_flushed(now, upto),
            // Of the tier around it.
            Input::Dialled { .. } | Input::Pong { .. } | Input::Facts(_) => {}
            Input::Revoked { revoked } => {
                self.verify.revoke(revoked);
                let unix = self.unix(now);
                self.counters.revoked += self.store.drop_entries(|entry| self.verify.is_revoked(entry, unix));
            }
            Input::Moved { addr } => self.moved(now, addr),
            Input::Loaded { hash, bytes } => self.on_loaded(now, hash, bytes),
            Input::Command(command) => self.command(now, command),
        }
        self.note_neighbours(now);
        self.settle_chunks(now);
        self.keep_changes(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Stabilise => self.on_stabilise(now),
                Timer::Fingers => self.on_fingers(now),
                Timer::Maintain => self.on_maintain(now),
                Timer::News => self.on_news(now),
                Timer::Compare => self.on_compare(now),
                Timer::Seek => self.on_seek(now),
                Timer::Join => self.on_join_timer(now),
                Timer::Leave => self.finish_leave(now),
                Timer::Rpc(id) => self.on_rpc_failed(now, super::RpcId(id), false),
                Timer::Op(id) => self.on_op_deadline(now, id),
                Timer::Again(id) => self.on_again(now, id),
                Timer::Flush => self.on_flush_timer(now),
            }
            self.note_neighbours(now);
        }
        self.settle_chunks(now);
        self.keep_changes(now);
    }

    fn me(&self) -> PeerRef {
        self.table.me
    }

    fn status(&self) -> Status {
        let (resources, entries) = self.store.len();
        Status {
            joined: self.state == State::Joined,
            predecessor: self.table.predecessor(),
            successors: self.table.successors(),
            fingers: self.table.finger_rows(),
            members: self.members.len(),
            resources,
            entries,
            chunk_bytes: self.store.bulk.bytes,
            clock_off: self.clock.off(),
            tier: None,
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.clock.unix(now)
    }
}
