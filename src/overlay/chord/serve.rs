//! Requests in, and those passed on.

use super::chunk::chunk_of;
use super::durable::Waiter;
use super::rpc::Why;
use super::store::{Kept, Slot};
use super::{Chord, State, Timer};
use crate::core::{Id, Instant, subscriber};
use crate::identity::{EntryKind, SignedEntry, TouchOf};
use crate::overlay::{Failure, Links, Output, PeerRef, Request, Response, Route, Token};
use std::net::IpAddr;
use std::time::Duration;

/// Next hops tried for one request that is passed on.
const RELAY_TRIES: u8 = 3;
/// Hops left to a request on a detour: each peer that makes one multiplies the requests.
const DETOUR_HOPS: u8 = 2;
/// How soon after a write the replicas are looked after.
const REPLICATE: Duration = Duration::from_secs(2);
/// Longest path believed.
const MAX_PATH: usize = 64;
/// A predecessor that others seem to pass over is asked for a sign of life after this much silence.
pub(super) const DOUBT: Duration = Duration::from_millis(500);

/// A request on its way through this peer.
#[derive(Debug)]
pub(super) struct Relay {
    token: Token,
    request: Request,
    tried: Vec<Id>,
    tries: u8,
    /// The peer asked is, as far as this one knows, the responsible one.
    last_hop: bool,
}

impl Chord {
    pub(super) fn serve(&mut self, now: Instant, from: Option<PeerRef>, token: Token, request: Request) {
        let Some(from) = from else {
            self.counters.refused += 1;
            return self.reply(token, Response::Failed(Failure::Invalid));
        };
        if from.id == self.table.me.id || !self.config.space.contains(&from.id) {
            self.counters.refused += 1;
            return self.reply(token, Response::Failed(Failure::BadId));
        }
        // The hand-over may overtake the answer that admits this peer.
        let early = self.joining.is_some()
            && match &request {
                Request::Store { route, .. } => *route == Route::Here,
                Request::Query { target, .. } => *target == self.table.me.id,
                Request::Compare { .. } => true,
                _ => false,
            };
        if !early && !matches!(self.state, State::Joined | State::Leaving { told: false }) {
            return self.reply(token, Response::Failed(Failure::NotInRing));
        }
        if self.table.heard(from, now) {
            // Until it has been reached there, others may tell its old address.
            self.probe(now, from);
        }
        match &request {
            // It asks for its place.
            Request::Register { .. } | Request::Leave { .. } => {}
            _ => {
                self.notice(now, &from);
                if self.members.complete() && !self.members.contains(&from.id) {
                    self.met(now, from);
                }
            }
        }
        match request {
            // Of the tier around the ring; nothing asks it here.
            Request::Tier(_) => self.reply(token, Response::Failed(Failure::Bad)),
            Request::Register { .. } => self.serve_register(now, from, token),
            Request::Leave { links } => self.serve_leave(now, from, token, links),
            Request::Query { target, ref route } => {
                if self.table.is_responsible(&target) {
                    let exact = target == self.table.me.id;
                    let path = self.path_here(route);
                    let links = match route {
                        Route::Here => Links::default(),
                        _ if exact => self.table.links(self.config.successors, false),
                        _ => self.short_links(),
                    };
                    self.reply(token, Response::Responsible { exact, links, path });
                } else {
                    self.onward(now, from, token, target, request);
                }
            }
            Request::Fetch { key, replica, ref route, .. } => {
                let position = self.config.space.replica_position(&key, replica);
                let entries = self.store.get(&(key, replica), now);
                let responsible = self.table.is_responsible(&position);
                // A replica may answer for the responsible peer, an old copy that has its time here behind it may not.
                let holder = replica == 0
                    && !entries.is_empty()
                    && self.table.is_replica(&position, self.config.successor_replicas);
                if responsible || holder || *route == Route::Here {
                    let (path, links) = (self.path_here(route), self.short_links());
                    self.reply(token, Response::Entries { entries, responsible, links, path });
                } else if let (Route::Recursive { .. }, 0, Some(entries)) = (route, replica, self.cache.get(&key, now))
                {
                    let (entries, path) = (entries.to_vec(), self.path_here(route));
                    self.counters.cached += 1;
                    self.reply(token, Response::Cached { entries, path });
                } else {
                    self.onward(now, from, token, position, request);
                }
            }
            Request::Members { until, digest, news } => self.serve_members(now, token, until, digest, &news),
            Request::Compare { scattered, unix, ref ranges } => {
                self.serve_compare(now, from, token, scattered, unix, ranges);
            }
            Request::Lease { key, entry, vote, ref route } => {
                if let Some((key, entry)) = self.serve_lease(now, from, token, (key, *entry, vote), route) {
                    let request = Request::Lease { key, entry: Box::new(entry), vote: None, route: route.clone() };
                    self.onward(now, from, token, key, request);
                }
            }
            Request::Take { hash, .. } => self.serve_take(token, hash),
            Request::Give { key, replica, ref entry, ref bytes, ref route } => {
                let position = self.config.space.replica_position(&key, replica);
                if *route == Route::Here || self.table.is_responsible(&position) {
                    self.serve_give(now, from, token, (key, replica, entry), bytes.clone(), route);
                } else {
                    self.onward(now, from, token, position, request);
                }
            }
            Request::Touch { key, replica, ref touch, ref route, .. } => {
                let position = self.config.space.replica_position(&key, replica);
                if *route == Route::Here || self.table.is_responsible(&position) {
                    let source = (*route != Route::Here).then(|| subscriber(from.addr.ip()));
                    let (response, batch) = self.keep_touch(now, (key, replica), touch, source);
                    self.acknowledge(now, batch, Waiter::Reply(token, response));
                } else {
                    self.onward(now, from, token, position, request);
                }
            }
            Request::Store { key, replica, ref entries, ref route } => {
                let position = self.config.space.replica_position(&key, replica);
                if *route == Route::Here || self.table.is_responsible(&position) {
                    // Of what neighbours pass on nobody knows the source.
                    let source = (*route != Route::Here).then(|| subscriber(from.addr.ip()));
                    let (response, batch) = self.keep(now, key, replica, entries, source);
                    let kept = matches!(response, Response::Stored { .. });
                    self.acknowledge(now, batch.filter(|_| kept), Waiter::Reply(token, response));
                    if kept && *route == Route::Here {
                        self.shown(now, &from.id, (key, replica), entries.len());
                    }
                } else {
                    self.onward(now, from, token, position, request);
                }
            }
        }
    }

    /// Verifies and keeps entries that somebody sent, written from `source` as far as that is known; the batch that has them on the
    /// disk.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        key: Id,
        replica: u8,
        entries: &[SignedEntry],
        source: Option<IpAddr>,
    ) -> (Response, Option<u64>) {
        let unix = self.unix(now);
        let mut current = Vec::new();
        let (mut invalid, mut full, mut batch) = (false, false, None);
        for entry in entries {
            // A request for a lease is no record.
            let chunk =
                entry.entry().kind != EntryKind::CHUNK || entry.entry().is_removal() || chunk_of(entry).is_some();
            if entry.entry().kind == EntryKind::LEASE || !chunk || !self.verify.verify(entry, &key, unix) {
                self.counters.invalid += 1;
                invalid = true;
                continue;
            }
            let verdict = self.store.put((key, replica), entry.clone(), source, &self.config, now, unix);
            if self.store.is_kept() {
                batch = batch.max(self.store.held(&(key, replica), &entry.dictionary_key()).map(|h| h.batch));
            }
            match verdict {
                // The writer writes to the successors too; whom it did not know of gets it from here.
                Kept::New => {
                    self.cache.forget(&key);
                    self.sooner(Timer::Maintain, now + REPLICATE);
                }
                Kept::Same => {}
                Kept::Stale(held) => {
                    self.counters.stale += 1;
                    current.push(held);
                }
                Kept::Conflict(held) => {
                    self.counters.conflicts += 1;
                    self.out.push_back(Output::Conflict { key, entries: Box::new([held.clone(), entry.clone()]) });
                    current.push(held);
                }
                Kept::Full => {
                    self.counters.full += 1;
                    full = true;
                }
            }
        }
        let response = if !current.is_empty() {
            Response::Refused { current }
        } else if invalid {
            Response::Failed(Failure::Invalid)
        } else if full {
            Response::Failed(Failure::Busy)
        } else if entries.is_empty() {
            Response::Failed(Failure::Bad)
        } else {
            Response::Stored { links: self.short_links() }
        };
        (response, batch)
    }

    /// An entry that is held goes on.
    fn keep_touch(
        &mut self,
        now: Instant,
        slot: Slot,
        touch: &TouchOf,
        source: Option<IpAddr>,
    ) -> (Response, Option<u64>) {
        let Some(held) = self.store.held(&slot, &touch.entry).map(|h| h.entry.clone()) else {
            return (Response::Failed(Failure::NotHeld), None);
        };
        if held.entry().sequence > touch.sequence {
            self.counters.stale += 1;
            return (Response::Refused { current: vec![held] }, None);
        }
        // Of an entry that is not known yet, or of one that was signed anew: the whole is needed.
        let renewed = held.with_touch(touch.touch.clone()).ok().filter(|_| held.entry().sequence == touch.sequence);
        let unix = self.unix(now);
        let renewed = renewed.filter(|e| self.verify.verify_touch(e, &slot.0, unix));
        let Some(renewed) = renewed else { return (Response::Failed(Failure::NotHeld), None) };
        if self.store.put(slot, renewed, source, &self.config, now, unix) == Kept::New {
            self.sooner(Timer::Maintain, now + REPLICATE);
        }
        let batch = self.store.held(&slot, &touch.entry).map(|h| h.batch).filter(|_| self.store.is_kept());
        (Response::Stored { links: self.short_links() }, batch)
    }

    pub(super) fn reply(&mut self, token: Token, response: Response) {
        self.out.push_back(Output::Reply { token, response });
    }

    pub(super) fn on_relay(&mut self, now: Instant, id: u64, response: Option<Response>) {
        let Some(relay) = self.relays.remove(&id) else { return };
        match response {
            // Another way, where this peer is the one to know: the next hop is certainly dead, or it was to be the last. Else the
            // silence may be anybody's further on, and if every peer of a path tried three ways at once, one dead peer would
            // be asked for by hundreds.
            None if relay.last_hop || !self.table.contacts_contain(relay.tried.last()) => self.relay(now, id, relay),
            Some(Response::Failed(Failure::NotInRing | Failure::Busy)) => self.relay(now, id, relay),
            None => self.reply(relay.token, Response::Failed(Failure::NoAnswer)),
            Some(response) => {
                if let (Request::Fetch { key, replica: 0, .. }, Response::Entries { entries, .. }) =
                    (&relay.request, &response)
                {
                    self.note_passing(now, key, entries);
                }
                self.reply(relay.token, response);
            }
        }
    }

    /// An answer on its way: where others ask for the same, what verifies is remembered for a moment.
    fn note_passing(&mut self, now: Instant, key: &Id, entries: &[SignedEntry]) {
        if entries.is_empty() || !self.cache.is_popular(key, now) {
            return;
        }
        let unix = self.unix(now);
        let few = entries.iter().take(self.config.max_resource_entries);
        let valid: Vec<SignedEntry> = few.filter(|e| self.verify.verify(e, key, unix)).cloned().collect();
        if valid.len() == entries.len() {
            self.cache.put(key, valid, now);
        } else {
            self.counters.invalid += 1;
        }
    }

    /// Not ours to answer: names a closer peer, or passes the request on.
    fn onward(&mut self, now: Instant, from: PeerRef, token: Token, target: Id, request: Request) {
        let route = match &request {
            Request::Query { route, .. }
            | Request::Fetch { route, .. }
            | Request::Store { route, .. }
            | Request::Lease { route, .. }
            | Request::Give { route, .. }
            | Request::Touch { route, .. } => route,
            Request::Take { .. } => &Route::Here,
            Request::Register { .. }
            | Request::Leave { .. }
            | Request::Tier(_)
            | Request::Members { .. }
            | Request::Compare { .. } => return,
        };
        match route {
            Route::Here => self.reply(token, Response::Failed(Failure::Bad)),
            Route::Iterative => {
                let response = match self.table.next_hop(&target, |id| *id == from.id) {
                    Some(closer) => {
                        self.doubt_predecessor(now, &closer);
                        Response::Redirect { closer, links: self.short_links() }
                    }
                    None => Response::Failed(Failure::NoAnswer),
                };
                self.reply(token, response);
            }
            Route::Recursive { hops, path } => {
                let failure = if path.iter().any(|p| p.id == self.table.me.id) {
                    Some(Failure::Loop)
                } else if path.last().is_none_or(|p| p.id != from.id) {
                    Some(Failure::Bad)
                } else if *hops == 0 || path.len() >= MAX_PATH {
                    Some(Failure::TooManyHops)
                } else if self.relays.len() >= self.config.max_relays {
                    self.counters.busy += 1;
                    Some(Failure::Busy)
                } else {
                    None
                };
                match failure {
                    Some(failure) => self.reply(token, Response::Failed(failure)),
                    None => {
                        let id = self.fresh();
                        let mut tried: Vec<Id> = path.iter().map(|p| p.id).collect();
                        tried.push(from.id);
                        self.relay(now, id, Relay { token, request, tried, tries: 0, last_hop: false });
                    }
                }
            }
        }
    }

    fn relay(&mut self, now: Instant, id: u64, mut relay: Relay) {
        let (target, mut request) = match &relay.request {
            Request::Query { target, .. } => (*target, relay.request.clone()),
            Request::Fetch { key, replica, .. } => {
                (self.config.space.replica_position(key, *replica), relay.request.clone())
            }
            _ => return,
        };
        let (Request::Query { route: Route::Recursive { hops, path }, .. }
        | Request::Fetch { route: Route::Recursive { hops, path }, .. }) = &mut request
        else {
            return;
        };
        let next = self.table.next_hop(&target, |p| relay.tried.contains(p));
        match next {
            Some(next) if relay.tries < RELAY_TRIES && *hops > 0 => {
                *hops = if relay.tries == 0 { *hops - 1 } else { (*hops - 1).min(DETOUR_HOPS) };
                path.push(self.table.me);
                relay.tries += 1;
                relay.tried.push(next.id);
                relay.last_hop = !self.config.space.in_open(&next.id, &self.table.me.id, &target);
                let wait = if relay.last_hop { self.patience(&next.id) } else { self.recursive_patience() };
                self.relays.insert(id, relay);
                self.doubt_predecessor(now, &next);
                self.send_within(now, next, true, request, Why::Relay(id), wait);
            }
            _ => self.reply(relay.token, Response::Failed(Failure::NoAnswer)),
        }
    }

    pub(super) fn give_up(&mut self, relay: Relay) {
        self.reply(relay.token, Response::Failed(Failure::NoAnswer));
    }

    /// The path that an answer from here shall name.
    fn path_here(&self, route: &Route) -> Vec<PeerRef> {
        match route {
            Route::Recursive { path, .. } => path.iter().chain([&self.table.me]).copied().collect(),
            Route::Iterative | Route::Here => Vec::new(),
        }
    }

    /// Who asks a peer about an identifier that belongs to its predecessor believes the predecessor dead, or does not know it.
    fn doubt_predecessor(&mut self, now: Instant, named: &PeerRef) {
        if self.table.predecessor().is_some_and(|p| p.id == named.id)
            && self.table.contact(&named.id).is_some_and(|c| now.since(c.heard) > DOUBT)
        {
            // Those before it may be dead as well, and one after the other takes too long.
            let before: Vec<PeerRef> = self.table.predecessors().iter().filter_map(|id| self.table.peer(id)).collect();
            self.probe_silent(now, before);
        }
    }
}
