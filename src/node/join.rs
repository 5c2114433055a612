//! How a node gets into the overlay: a race. The peers that the user named, those in the host cache and those heard on the local network
//! are dialled in that order, one more every quarter of a second and several at once (the manner of RFC 8305); the first link
//! that proves a member is joined by, and who opens a link and then says nothing is passed over after a second. Names are
//! looked up anew for every race, so a peer behind dynamic DNS is found where it is now.
//!
//! A race that is lost ends the program when the user named peers and this device was never in the overlay: a typing error
//! must not look like a new ring. A device that has been in it serves alone what hangs on it, says so, and races again, ever more
//! seldom, until it is not alone any more.

use super::host_cache::HostCache;
use super::ring::State;
use super::{Node, Output, Saved, Setup};
use crate::config::Bootstrap;
use crate::core::{ConnId, Id, Instant};
use crate::identity::{ContactBody, EntryKind};
use crate::node::control::Event;
use crate::overlay::{self, Command, JoinError, Stored};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// From one peer dialled to the next (RFC 8305 section 5 has 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// Links opening at once.
const WIDE: usize = 8;
/// Addresses dialled in one race, beside those named.
const FIELD: usize = 32;
/// Addresses taken of one name.
const PER_NAME: usize = 8;
/// How long a race may take. A peer that was named is dialled again and again in that time: it may just be starting.
const RACE: Duration = Duration::from_secs(6);
/// From a named peer's refusal to its being dialled again.
const REDIAL: Duration = Duration::from_millis(500);
/// How long a peer that opened a link may say nothing before another one is asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where no other has opened a link, for a node that is alone in its ring (the overlay itself tells of a first attempt).
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// From a lost race to the next, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Attempts to join a ring that answers and has no place yet, because it is in motion.
const JOIN_ATTEMPTS: u8 = 4;

/// What a node knows of the ways in.
#[derive(Debug)]
pub(super) struct Entrance {
    named: Vec<Bootstrap>,
    pub(super) hosts: HostCache,
    race: Option<Race>,
    retry: Option<Instant>,
    backoff: Duration,
    /// It was said that nobody is reached.
    said: bool,
}

#[derive(Debug)]
struct Race {
    waiting: VecDeque<SocketAddr>,
    /// Named peers that could not be reached, and when they are dialled again.
    later: VecDeque<(Instant, SocketAddr)>,
    dialling: BTreeMap<ConnId, SocketAddr>,
    /// Links that this race opened.
    links: Vec<ConnId>,
    /// At these a member may be asked.
    open: VecDeque<SocketAddr>,
    asked: Option<(SocketAddr, Instant)>,
    /// Named by the user, or behind a name of the user's.
    named: BTreeSet<SocketAddr>,
    resolving: BTreeSet<Bootstrap>,
    faults: Vec<String>,
    refusal: Option<JoinError>,
    attempts: u8,
    next: Instant,
    until: Instant,
}

impl Race {
    fn knows(&self, addr: SocketAddr) -> bool {
        self.waiting.contains(&addr)
            || self.open.contains(&addr)
            || self.later.iter().any(|(_, a)| *a == addr)
            || self.dialling.values().any(|a| *a == addr)
            || self.asked.is_some_and(|(a, _)| a == addr)
    }

    /// The next address to dial, when it is time.
    fn pop(&mut self, now: Instant) -> Option<SocketAddr> {
        if self.dialling.len() >= WIDE || self.next > now || now >= self.until {
            return None;
        }
        if let Some(addr) = self.waiting.pop_front() {
            return Some(addr);
        }
        let due = self.later.iter().position(|(at, _)| *at <= now)?;
        self.later.remove(due).map(|(_, addr)| addr)
    }

    fn is_lost(&self, now: Instant) -> bool {
        let pending = !(self.waiting.is_empty()
            && self.later.is_empty()
            && self.dialling.is_empty()
            && self.open.is_empty()
            && self.resolving.is_empty());
        self.asked.is_none() && (!pending || now >= self.until)
    }

    /// When the one who was asked is passed over.
    fn given_up(&self, alone: bool) -> Option<Instant> {
        let (_, since) = self.asked?;
        match (self.open.is_empty(), alone) {
            (false, _) => Some(since + PATIENCE),
            (true, true) => Some(since + LAST_PATIENCE),
            (true, false) => None,
        }
    }

    fn timeout(&self, alone: bool) -> Option<Instant> {
        let later = self.later.iter().map(|(at, _)| *at).min();
        let first = if self.waiting.is_empty() { later } else { Some(self.next) };
        let dial = first.map(|at| at.max(self.next)).filter(|at| self.dialling.len() < WIDE && *at < self.until);
        let until = self.asked.is_none().then_some(self.until);
        [dial, until, self.given_up(alone)].into_iter().flatten().min()
    }
}

impl Entrance {
    pub fn new(setup: &Setup) -> Entrance {
        let mut hosts = HostCache::restore(&setup.hosts);
        for addr in setup.known_peers.iter().filter(|a| **a != setup.overlay) {
            hosts.hear(Instant::ZERO, *addr, None);
        }
        let named = setup.config.overlay.bootstrap.iter().filter(|b| **b != Bootstrap::Addr(setup.overlay));
        Entrance { named: named.cloned().collect(), hosts, race: None, retry: None, backoff: RETRY_MIN, said: false }
    }

    /// A race is on.
    pub fn is_racing(&self) -> bool {
        self.race.is_some()
    }
}

impl Node {
    /// Races for a place in the overlay; begins a ring at once where nobody is known.
    pub(super) fn begin_ring(&mut self, now: Instant) {
        if self.overlay.is_none() {
            return;
        }
        self.begin_reach(now);
        let unix = self.unix(now);
        self.overlay_input(now, overlay::Input::Clock { unix });
        self.tell_damage();
        if let Some(stored) = self.setup.stored.take() {
            self.hear_of_stored(now, &stored);
            self.overlay_input(now, overlay::Input::Restore(stored));
        }
        self.ring.set_state(State::Joining);
        if self.ring.entrance.named.is_empty() && self.ring.entrance.hosts.len() == 0 {
            // The user named only this peer itself, or nobody.
            return self.overlay_input(now, overlay::Input::Command(Command::Create));
        }
        self.start_race(now);
    }

    fn start_race(&mut self, now: Instant) {
        let own = self.flows.locals().overlay;
        let entrance = &self.ring.entrance;
        let mut race = Race {
            waiting: VecDeque::new(),
            later: VecDeque::new(),
            dialling: BTreeMap::new(),
            links: Vec::new(),
            open: VecDeque::new(),
            asked: None,
            named: BTreeSet::new(),
            resolving: BTreeSet::new(),
            faults: Vec::new(),
            refusal: None,
            attempts: 0,
            next: now,
            until: now + RACE,
        };
        for bootstrap in &entrance.named {
            match bootstrap {
                Bootstrap::Addr(addr) => {
                    race.named.insert(*addr);
                    race.waiting.push_back(*addr);
                }
                name => {
                    race.resolving.insert(name.clone());
                    self.out.push_back(Output::Resolve { name: name.clone() });
                }
            }
        }
        let nearby = self.ring.nearby.addresses();
        let cached = entrance.hosts.in_order().into_iter().filter(|a| *a != own && !race.named.contains(a)).take(FIELD);
        for addr in cached.chain(nearby).collect::<Vec<_>>() {
            if !race.waiting.contains(&addr) {
                race.waiting.push_back(addr);
            }
        }
        self.ring.entrance.race = Some(race);
        self.drive_race(now);
    }

    /// A name of the user's was looked up.
    pub(super) fn on_resolved(&mut self, now: Instant, name: &Bootstrap, found: Result<Vec<SocketAddr>, String>) {
        let own = self.flows.locals().overlay;
        let Some(race) = self.ring.entrance.race.as_mut() else { return };
        if !race.resolving.remove(name) {
            return;
        }
        match found {
            Ok(addrs) => {
                let addrs: Vec<_> = addrs.into_iter().filter(|a| *a != own).take(PER_NAME).collect();
                for addr in addrs.into_iter().rev() {
                    race.named.insert(addr);
                    race.waiting.retain(|a| *a != addr);
                    if !race.knows(addr) {
                        race.waiting.push_front(addr);
                    }
                }
            }
            Err(why) => {
                tracing::debug!(%name, %why, "a bootstrap name leads nowhere");
                race.faults.push(why);
            }
        }
        self.drive_race(now);
    }

    /// A peer was heard on the local network while this one looks for a way in.
    pub(super) fn race_nearby(&mut self, now: Instant, addr: SocketAddr) {
        if self.ring.state() != State::Joining {
            return;
        }
        if let Some(race) = self.ring.entrance.race.as_mut()
            && !race.knows(addr)
        {
            race.waiting.push_front(addr);
            self.drive_race(now);
        }
    }

    /// A connection that was dialled is open.
    pub(super) fn race_opened(&mut self, now: Instant, conn: ConnId) {
        if let Some(race) = self.ring.entrance.race.as_mut()
            && let Some(addr) = race.dialling.remove(&conn)
        {
            race.links.push(conn);
            race.open.push_back(addr);
            self.drive_race(now);
        }
    }

    /// A connection is gone, or could not be opened.
    pub(super) fn race_gone(&mut self, now: Instant, conn: ConnId) {
        let Some(race) = self.ring.entrance.race.as_mut() else { return };
        race.links.retain(|c| *c != conn);
        if let Some(addr) = race.dialling.remove(&conn) {
            if race.named.contains(&addr) {
                race.later.push_back((now + REDIAL, addr));
            }
            self.drive_race(now);
        }
    }

    /// Asks, dials and ends, whatever it is time for.
    pub(super) fn drive_race(&mut self, now: Instant) {
        let Some(mut race) = self.ring.entrance.race.take() else { return };
        let alone = self.ring.state() == State::In;
        if race.given_up(alone).is_some_and(|at| at <= now)
            && let Some((addr, _)) = race.asked.take()
        {
            let unix = self.unix(now);
            self.ring.entrance.hosts.failed(now, unix, addr);
        }
        loop {
            if race.asked.is_none()
                && let Some(bootstrap) = race.open.pop_front()
            {
                race.asked = Some((bootstrap, now));
                self.overlay_input(now, overlay::Input::Command(Command::Join { bootstrap }));
            }
            let Some(addr) = race.pop(now) else { break };
            race.next = now + STAGGER;
            let Some(flow) = self.flows.peer_flow(None, addr, 0, &mut self.wire) else { continue };
            match flow.conn.filter(|conn| !self.flows.is_open(*conn)) {
                Some(conn) => drop(race.dialling.insert(conn, addr)),
                // A link that was there, or in clear, where a first word is all there is.
                None => race.open.push_back(addr),
            }
        }
        if race.is_lost(now) {
            return self.on_race_lost(now, race);
        }
        self.ring.entrance.race = Some(race);
    }

    fn on_race_lost(&mut self, now: Instant, mut race: Race) {
        self.end_race(&mut race, None);
        let named: Vec<_> = self.ring.entrance.named.iter().map(Bootstrap::to_string).collect();
        let mut why = match race.refusal {
            Some(refusal) => refusal.to_string(),
            None if named.is_empty() => "no answer from the peers known from the last time".into(),
            None => format!("no answer from {}", named.join(", ")),
        };
        if !race.faults.is_empty() {
            why = format!("{why} ({})", race.faults.join("; "));
        }
        let first = self.ring.state() == State::Joining;
        let entrance = &mut self.ring.entrance;
        let been = entrance.hosts.has_been_in();
        if first && !named.is_empty() && !been {
            self.ring.set_state(State::Out);
            return self.event(None, Event::JoinFailed { why });
        }
        // Spread, so that an office that was cut off does not come back in step.
        let wait = entrance.backoff.mul_f64(0.75 + 0.5 * self.rng.unit());
        entrance.backoff = (entrance.backoff * 2).min(RETRY_MAX);
        entrance.retry = Some(now + wait);
        tracing::info!(%why, "alone");
        if !std::mem::replace(&mut entrance.said, true) && (been || !named.is_empty()) {
            self.event(None, Event::Alone { why });
        }
        self.seek_successor(now);
        if first {
            self.overlay_input(now, overlay::Input::Command(Command::Create));
        }
    }

    /// Closes what a race opened, but for the link to `winner`.
    fn end_race(&mut self, race: &mut Race, winner: Option<SocketAddr>) {
        let opened = std::mem::take(&mut race.links);
        for conn in opened.into_iter().chain(std::mem::take(&mut race.dialling).into_keys()) {
            if self.flows.flow(conn).is_some_and(|flow| Some(flow.remote) != winner) {
                self.flows.close(conn, &mut self.wire);
            }
        }
    }

    /// In a ring with others: nobody is looked for any more. True when this peer had been looking.
    pub(super) fn race_won(&mut self) -> bool {
        let entrance = &mut self.ring.entrance;
        (entrance.retry, entrance.backoff, entrance.said) = (None, RETRY_MIN, false);
        let Some(mut race) = entrance.race.take() else { return false };
        let winner = race.asked.map(|(addr, _)| addr);
        self.end_race(&mut race, winner);
        true
    }

    /// The overlay gives up the peer that was asked.
    pub(super) fn on_join_failed(&mut self, now: Instant, why: JoinError) {
        tracing::info!(%why, "not joined");
        let unix = self.unix(now);
        let entrance = &mut self.ring.entrance;
        let Some(race) = entrance.race.as_mut() else { return };
        let Some((addr, _)) = race.asked.take() else { return };
        // A ring in motion is no reason to give up, nor to begin another one beside it.
        let moving = match why {
            JoinError::NoWay => true,
            JoinError::Refused(failure) => !failure.is_final(),
            JoinError::NoAnswer | JoinError::IdTaken => false,
        };
        if moving && race.attempts < JOIN_ATTEMPTS {
            race.attempts += 1;
            race.open.push_back(addr);
            race.until = race.until.max(now + RACE);
        } else if why == JoinError::NoAnswer {
            entrance.hosts.failed(now, unix, addr);
        } else {
            race.refusal = Some(why);
        }
        self.drive_race(now);
    }

    /// Left alone by everybody: those that were here are looked for again.
    pub(super) fn look_for_others(&mut self, now: Instant) {
        let known = self.ring.entrance.hosts.len() > 0 || !self.ring.entrance.named.is_empty();
        let entrance = &mut self.ring.entrance;
        if known && entrance.race.is_none() && entrance.retry.is_none() {
            entrance.retry = Some(now + RETRY_MIN);
        }
    }

    pub(super) fn next_join(&self) -> Option<Instant> {
        if self.stopping.is_some() {
            return None;
        }
        let entrance = &self.ring.entrance;
        let race = entrance.race.as_ref().and_then(|r| r.timeout(self.ring.state() == State::In));
        [race, entrance.retry, entrance.hosts.next()].into_iter().flatten().min()
    }

    pub(super) fn join_timeout(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        if self.ring.entrance.retry.is_some_and(|at| at <= now) {
            self.ring.entrance.retry = None;
            if self.is_alone() && self.ring.nearby.is_trying(now) {
                // Who was found on the local network goes before who was there the last time.
                self.ring.entrance.retry = Some(now + RETRY_MIN);
            } else if self.is_alone() {
                self.start_race(now);
            }
        }
        self.drive_race(now);
        self.keep_hosts(now, false);
    }

    /// A peer answered a request of ours: where this node dialled it itself, that is worth remembering.
    pub(super) fn note_reached(&mut self, now: Instant, id: Id, addr: SocketAddr, remote: SocketAddr, sent: Instant) {
        if addr == remote {
            let unix = self.unix(now);
            self.ring.entrance.hosts.reached(now, unix, addr, id, now.since(sent));
        }
    }

    /// A peer that proved who it is says where it takes links.
    pub(super) fn note_heard(&mut self, now: Instant, id: Id, addr: SocketAddr, remote: SocketAddr) {
        if addr.ip() == remote.ip() && addr.port() != 0 {
            self.ring.entrance.hosts.hear(now, addr, Some(id));
        }
    }

    /// The records kept over a restart say where peers were: after a power cut one of them may be the only way back, and the host
    /// cache may not have had it.
    fn hear_of_stored(&mut self, now: Instant, stored: &Stored) {
        let (me, own) = (self.setup.me().map(|me| me.id), self.setup.overlay);
        for (_, _, entry) in stored.entries.iter().filter(|(_, _, e)| e.entry().kind == EntryKind::Contact) {
            let Ok(body) = ContactBody::decode(&entry.entry().body) else { continue };
            let direct = body.addrs.iter().filter(|_| body.via.is_empty()).map(|addr| (body.peer_id, *addr));
            for (id, addr) in direct.chain(body.via.iter().copied()) {
                if Some(id) != me && addr != own {
                    self.ring.entrance.hosts.hear(now, addr, Some(id));
                }
            }
        }
    }

    /// Nothing answers there.
    pub(super) fn note_unreachable(&mut self, now: Instant, addr: SocketAddr) {
        let unix = self.unix(now);
        self.ring.entrance.hosts.failed(now, unix, addr);
    }

    /// Writes the host cache when that is due; at the end at once.
    pub(super) fn keep_hosts(&mut self, now: Instant, at_once: bool) {
        if let Some(bytes) = self.ring.entrance.hosts.save(now, at_once) {
            self.out.push_back(Output::Save { what: Saved::Hosts, bytes: Bytes::from(bytes) });
        }
    }
}
