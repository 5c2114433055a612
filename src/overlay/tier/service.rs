//! A supernode's side: who is attached, what is run for them, dial-backs, and who is told of what.

use super::{Answer, Ask, FAREWELL, Moving, OURS, Offer, Rank, Role, Rpc, Tiered, Timer, Way, Why};
use crate::core::{Id, Instant};
use crate::identity::SignedEntry;
use crate::overlay::{
    Command, Failure, Input, Lease, LeaseAnswer, LeaseError, Links, LookupError, OpId, Output, Overlay, PeerRef,
    PutError, Response, RpcId, Token, Trace,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Other supernodes named in an answer.
const NAMED: usize = 12;
/// Operations that run for one attached node at once.
const OPS_EACH: usize = 16;
/// The same for all of them.
const OPS_ALL: usize = 512;
/// Dials for others at once.
const DIALS: usize = 32;
/// From one dial for a peer to the next.
const DIAL_PAUSE: Duration = Duration::from_secs(2);
/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(6);
/// How long one that another supernode does may take.
const DIAL_BY_OTHER: Duration = Duration::from_secs(8);
/// Longest attachment granted, in seconds.
const MAX_EXPIRES: u32 = 7200;
/// Shortest.
const MIN_EXPIRES: u32 = 60;
/// Peers whose latest dial is remembered.
const MAX_DIALLED: usize = 1024;
/// How long the ring has to be too small before the attached are called.
const SHRUNK: Duration = Duration::from_secs(4);
/// How long one that was told that it is wanted has to act before the next is told.
const CALLED: Duration = Duration::from_secs(60);

/// A node that hangs on this one.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub peer: PeerRef,
    pub rank: Rank,
    other: Option<Id>,
    able: bool,
    /// When it was last asked to help.
    called: Option<Instant>,
    since: Instant,
    until: Instant,
    ops: usize,
}

/// Everything of the supernode's side.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub attached: BTreeMap<Id, Attached>,
    /// Operations that run for others: whom to answer.
    running: BTreeMap<OpId, (Token, Id)>,
    dialled: BTreeMap<Id, Instant>,
    /// When one of the attached was last told that it is wanted.
    called: Option<Instant>,
}

impl Tiered {
    pub(super) fn serve(&mut self, now: Instant, from: PeerRef, token: Token, ask: Ask) {
        match ask {
            Ask::Attach { rank, expires, other, able } => {
                self.serve_attach(now, from, token, (rank, expires), other, able);
            }
            Ask::Detach => {
                self.service.attached.remove(&from.id);
                self.reply(token, Response::Tier(Answer::Done));
            }
            Ask::Get { key, aor, mode } => {
                self.run(now, from.id, token, |op| Command::Get { op, key, aor, mode });
            }
            Ask::Put { key, entry } => self.run(now, from.id, token, |op| Command::Put { op, key, entry: *entry }),
            Ask::Lease { key, entry } => self.run(now, from.id, token, |op| Command::Lease { op, key, entry: *entry }),
            Ask::Give { key, entry, bytes } => {
                self.run(now, from.id, token, |op| Command::Give { op, key, entry: *entry, bytes });
            }
            Ask::Take { key, hash } => self.run(now, from.id, token, |op| Command::Take { op, key, hash }),
            Ask::Find { target, mode } => self.run(now, from.id, token, |op| Command::Find { op, target, mode }),
            Ask::DialBack => self.serve_dial_back(now, from, token),
            Ask::Dial { peer } => self.serve_dial(now, from.id, token, peer),
            Ask::Gone { peer } => {
                self.reply(token, Response::Tier(Answer::Done));
                self.on_gone(now, from.id, peer);
            }
            Ask::Wanted { urgent } => {
                self.reply(token, Response::Tier(Answer::Done));
                if self.client.rank_of(&from.id).is_some() {
                    self.election.called(now, urgent);
                    self.consider(now);
                }
            }
        }
    }

    fn serve_attach(
        &mut self,
        now: Instant,
        from: PeerRef,
        token: Token,
        (rank, expires): (Option<Rank>, u32),
        other: Option<Id>,
        able: bool,
    ) {
        if self.role != Role::Supernode || self.moving != Moving::No {
            let closer = self.client.primary.as_ref().map(|h| h.peer).filter(|p| p.id != from.id);
            return self.reply(
                token,
                match closer {
                    Some(closer) => Response::Redirect { closer, links: Links::default() },
                    None => Response::Failed(Failure::NotInRing),
                },
            );
        }
        let known = self.service.attached.contains_key(&from.id);
        let room = known || self.service.attached.len() < usize::from(self.config.capacity);
        let granted = match rank {
            Some(_) if room => expires.clamp(MIN_EXPIRES, MAX_EXPIRES),
            _ => 0,
        };
        if let Some(rank) = rank.filter(|_| room) {
            let until = now + Duration::from_secs(u64::from(granted));
            let known = self.service.attached.get(&from.id);
            let (since, called, ops) = known.map_or((now, None, 0), |a| (a.since, a.called, a.ops));
            let attached = Attached { peer: from, rank, other, able, called, since, until, ops };
            self.service.attached.insert(from.id, attached);
            if self.timers.deadline(&Timer::Lapse).is_none_or(|at| at > until) {
                self.timers.set(Timer::Lapse, until);
            }
        }
        let ring = self.ring_size();
        let wanted = ring < self.config.enough;
        let offer = Offer {
            expires: granted,
            load: self.service.attached.len().min(usize::from(u16::MAX)) as u16,
            capacity: self.config.capacity,
            ring,
            wanted,
            unix: self.unix(now),
        };
        let mut supernodes = self.supernodes();
        supernodes.retain(|p| p.id != from.id && !self.service.attached.contains_key(&p.id));
        supernodes.truncate(NAMED);
        self.reply(token, Response::Tier(Answer::Attached { offer, supernodes }));
        self.call_one(now);
    }

    /// Other supernodes that this one knows, its neighbours first.
    pub(super) fn supernodes(&self) -> Vec<PeerRef> {
        let status = self.chord.status();
        let mut all: Vec<PeerRef> = status.predecessor.into_iter().collect();
        for peer in status.successors.iter().chain(status.fingers.iter().map(|(_, p)| p)) {
            if !all.iter().any(|p| p.id == peer.id) {
                all.push(*peer);
            }
        }
        all
    }

    /// Supernodes in the ring: exactly, while all of them are known; at least, by how densely the successors lie, else.
    pub(super) fn ring_size(&self) -> u32 {
        let status = self.chord.status();
        let known = self.supernodes().len() as u32 + 1;
        let me = self.chord.me().id;
        let (Some(last), Some(first)) = (status.successors.last(), status.successors.first()) else { return known };
        // The list goes around where the predecessor is in it: then everybody is known.
        if status.predecessor.is_some_and(|p| status.successors.iter().any(|s| s.id == p.id)) || first.id == last.id {
            return known;
        }
        let head =
            |id: &Id| u64::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3], id.0[4], id.0[5], id.0[6], id.0[7]]);
        let span = head(&last.id).wrapping_sub(head(&me)).max(1);
        let dense = (u64::MAX / span).saturating_mul(status.successors.len() as u64);
        known.max(u32::try_from(dense).unwrap_or(u32::MAX))
    }

    /// Whether this supernode has more than it wants to bear.
    pub(super) fn is_loaded(&self) -> bool {
        self.service.attached.len() * 4 >= usize::from(self.config.capacity) * 3
    }

    /// A loaded supernode asks one of the attached to help: who has not been asked, or longest ago, and hung here longest.
    pub(super) fn call_one(&mut self, now: Instant) {
        if !self.is_loaded() || self.service.called.is_some_and(|at| now.since(at) < CALLED) {
            return;
        }
        let able = self.service.attached.values_mut().filter(|a| a.able);
        if let Some(one) = able.min_by_key(|a| (a.called, a.since, a.peer.id)) {
            one.called = Some(now);
            let peer = one.peer;
            self.service.called = Some(now);
            self.ask(now, Some(peer.id), peer.addr, Ask::Wanted { urgent: false }, Why::Told, FAREWELL);
        }
    }

    /// The neighbours have changed: maybe too few are left. One that was only slow is back by then.
    pub(super) fn help_soon(&mut self, now: Instant) {
        let small = self.role == Role::Supernode && self.ring_size() < self.config.enough;
        if small && !self.service.attached.is_empty() && self.timers.deadline(&Timer::Help).is_none() {
            self.timers.set(Timer::Help, now + SHRUNK);
        }
    }

    /// The ring has shrunk: whoever can be a supernode is told.
    pub(super) fn call_for_help(&mut self, now: Instant) {
        if self.role != Role::Supernode || self.moving != Moving::No || self.ring_size() >= self.config.enough {
            return;
        }
        let able: Vec<PeerRef> = self.service.attached.values().filter(|a| a.able).map(|a| a.peer).collect();
        if !able.is_empty() {
            self.service.called = Some(now);
        }
        for peer in able {
            self.ask(now, Some(peer.id), peer.addr, Ask::Wanted { urgent: true }, Why::Told, FAREWELL);
        }
    }

    /// A peer has left the ring's tables: those that hang on it are told.
    pub(super) fn tell_gone(&mut self, now: Instant, gone: PeerRef) {
        let concerned: Vec<PeerRef> =
            self.service.attached.values().filter(|a| a.other == Some(gone.id)).map(|a| a.peer).collect();
        for peer in concerned {
            self.ask(now, Some(peer.id), peer.addr, Ask::Gone { peer: gone }, Why::Told, FAREWELL);
        }
    }

    /// This supernode goes: everybody that hangs on it is told.
    pub(super) fn say_farewell(&mut self, now: Instant) {
        let me = self.chord.me();
        for attached in std::mem::take(&mut self.service.attached).into_values() {
            let peer = attached.peer;
            self.ask(now, Some(peer.id), peer.addr, Ask::Gone { peer: me }, Why::Told, FAREWELL);
        }
    }

    pub(super) fn on_lapse(&mut self, now: Instant) {
        self.service.attached.retain(|_, a| a.until > now);
        if let Some(next) = self.service.attached.values().map(|a| a.until).min() {
            self.timers.set(Timer::Lapse, next);
        }
    }

    fn run(&mut self, now: Instant, from: Id, token: Token, command: impl FnOnce(OpId) -> Command) {
        if self.role != Role::Supernode {
            return self.reply(token, Response::Failed(Failure::NotInRing));
        }
        let room = self.service.running.len() < OPS_ALL;
        match self.service.attached.get_mut(&from) {
            None => return self.reply(token, Response::Failed(Failure::NotInRing)),
            Some(a) if a.ops >= OPS_EACH || !room => return self.reply(token, Response::Failed(Failure::Busy)),
            Some(a) => a.ops += 1,
        }
        let op = OpId(self.fresh());
        self.service.running.insert(op, (token, from));
        self.hand(now, Input::Command(command(op)));
    }

    fn ran(&mut self, op: OpId, response: Response) {
        let Some((token, from)) = self.service.running.remove(&op) else { return };
        if let Some(attached) = self.service.attached.get_mut(&from) {
            attached.ops = attached.ops.saturating_sub(1);
        }
        self.reply(token, response);
    }

    pub(super) fn on_get_run(&mut self, op: OpId, result: Result<Vec<SignedEntry>, LookupError>, trace: Trace) {
        let response = match result {
            Ok(entries) => Response::Tier(Answer::Found { entries, way: way(trace) }),
            Err(fault) => Response::Failed(failure(fault)),
        };
        self.ran(op, response);
    }

    pub(super) fn on_put_run(&mut self, op: OpId, result: Result<(), PutError>, acks: u8, trace: Trace) {
        let response = match result {
            Ok(()) => Response::Tier(Answer::Written { acks, way: way(trace) }),
            Err(PutError::Stale(entry) | PutError::Conflict(entry)) => Response::Refused { current: vec![*entry] },
            Err(PutError::Invalid) => Response::Failed(Failure::Invalid),
            Err(PutError::TooFewHolders) => Response::Failed(Failure::NoAnswer),
            Err(PutError::Lookup(fault)) => Response::Failed(failure(fault)),
        };
        self.ran(op, response);
    }

    pub(super) fn on_find_run(&mut self, op: OpId, result: Result<PeerRef, LookupError>, trace: Trace) {
        let response = match result {
            Ok(peer) => Response::Tier(Answer::Responsible { peer, way: way(trace) }),
            Err(fault) => Response::Failed(failure(fault)),
        };
        self.ran(op, response);
    }

    pub(super) fn on_lease_run(&mut self, now: Instant, op: OpId, result: Result<Lease, LeaseError>) {
        let ms = |span: Duration| Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let response = match result {
            // The asker counts from when it asked, which was earlier.
            Ok(lease) => {
                let left = ms(lease.until.since(now));
                Response::Tier(Answer::Lease(LeaseAnswer::Granted { fence: lease.fence, left }))
            }
            Err(LeaseError::Held { entry, left }) => {
                Response::Tier(Answer::Lease(LeaseAnswer::Held { entry, fence: 0, left: ms(left) }))
            }
            Err(LeaseError::Unsure { left }) => Response::Tier(Answer::Lease(LeaseAnswer::Later { left: ms(left) })),
            Err(LeaseError::Invalid) => Response::Failed(Failure::Invalid),
            Err(LeaseError::Lookup(fault)) => Response::Failed(failure(fault)),
        };
        self.ran(op, response);
    }

    pub(super) fn on_take_run(&mut self, op: OpId, result: Result<Bytes, LookupError>) {
        let response = match result {
            Ok(bytes) => Response::Tier(Answer::Taken { bytes }),
            Err(fault) => Response::Failed(failure(fault)),
        };
        self.ran(op, response);
    }

    /// Another supernode is asked to dial: behind some NATs only who was called before can call.
    fn serve_dial_back(&mut self, now: Instant, from: PeerRef, token: Token) {
        if !self.may_dial(now, from.id) {
            return self.reply(token, Response::Failed(Failure::Busy));
        }
        let mut others = self.supernodes();
        others.retain(|p| p.id != from.id);
        if self.role != Role::Supernode || others.is_empty() {
            return self.dial(now, token, from);
        }
        let other = others[self.rng.below(others.len() as u64) as usize];
        let why = Why::Dial { token, peer: from };
        self.ask(now, Some(other.id), other.addr, Ask::Dial { peer: from }, why, DIAL_BY_OTHER);
    }

    pub(super) fn on_dial_answer(&mut self, now: Instant, token: Token, peer: PeerRef, response: Option<Response>) {
        match response {
            Some(Response::Tier(Answer::Reachable(reached))) => {
                self.reply(token, Response::Tier(Answer::Reachable(reached)));
            }
            _ => self.dial(now, token, peer),
        }
    }

    fn serve_dial(&mut self, now: Instant, from: Id, token: Token, peer: PeerRef) {
        if peer.id == self.chord.me().id || !self.may_dial(now, from) {
            return self.reply(token, Response::Failed(Failure::Busy));
        }
        self.dial(now, token, peer);
    }

    fn may_dial(&mut self, now: Instant, from: Id) -> bool {
        self.service.dialled.retain(|_, at| now.since(*at) < DIAL_PAUSE);
        let running = self.rpcs.values().filter(|r| matches!(r.why, Why::Own { .. } | Why::Dial { .. })).count();
        if running >= DIALS
            || self.service.dialled.len() >= MAX_DIALLED
            || self.service.dialled.insert(from, now).is_some()
        {
            return false;
        }
        true
    }

    fn dial(&mut self, now: Instant, token: Token, peer: PeerRef) {
        let id = self.fresh();
        debug_assert!(id & OURS != 0);
        self.timers.set(Timer::Rpc(id), now + DIAL);
        self.rpcs.insert(id, Rpc { to: Some(peer.id), addr: peer.addr, sent: now, why: Why::Own { token } });
        self.out.push_back(Output::Dial { rpc: RpcId(id), peer });
    }
}

fn way(trace: Trace) -> Way {
    Way { hops: trace.hops, asked: trace.asked, retries: trace.retries, mode: trace.mode }
}

fn failure(fault: LookupError) -> Failure {
    match fault {
        LookupError::NotInRing => Failure::NotInRing,
        LookupError::Deadline => Failure::NoAnswer,
        LookupError::Busy => Failure::Busy,
    }
}
