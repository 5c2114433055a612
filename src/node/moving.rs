//! This device's office continues as another one: it asks that one's administrator to take it in, leaves its ring, and is a device of the
//! other office from then on, with its keys, accounts, contacts, messages and bindings.
//!
//! It goes when no call is under way, so none is cut. What it held for others goes to who is left; with the last the old ring ends. It
//! remembers the statement ([`Former`]) and tells it to devices that come back late and dial where their office was.
//!
//! Absent: what waits for somebody in the old overlay and was not fetched in time; the password for logging in, which has to be
//! set again; phones by TCP, which have to register again.

use super::control::Event;
use super::exchange::{Answer, Asked};
use super::flows::Wire;
use super::merging::Errand;
use super::ring::State;
use super::{Node, Output, Saved, Setup};
use crate::core::{Flow, Instant};
use crate::identity::{
    Ask, Former, Identity, MERGE_TYPE, MoveAnswer, MoveAsk, REVOCATIONS_TYPE, Reply as Compared, Revocation,
    Revocations, Revoked, TrustAnchor,
};
use crate::overlay::Stored;
use crate::ua::Hop;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// From hearing of it to going: what was heard is told on first, and not all go at once. Who administers goes a little later.
const SOON: Duration = Duration::from_secs(2);
const SPREAD: u64 = 4000;
const LAST: Duration = Duration::from_secs(6);
/// Looked at again while calls are under way.
const BUSY: Duration = Duration::from_secs(5);
/// Asked again when nobody answered, when the user's own device has to come first, and after a refusal.
const AGAIN: Duration = Duration::from_secs(30);
const REFUSED: Duration = Duration::from_secs(600);
/// Rounds of asking what became of the office.
const ROUNDS: u8 = 3;
/// Most addresses asked in one go.
const ASKED: usize = 16;

/// A device that is going over.
#[derive(Debug, Default)]
pub(super) struct Moving {
    due: Option<Instant>,
    /// Who it is there, and where it was taken in.
    granted: Option<(Box<Identity>, SocketAddr)>,
    left: bool,
    said: bool,
}

impl Node {
    pub(super) fn next_moving(&self) -> Option<Instant> {
        self.moving.due.filter(|_| self.stopping.is_none())
    }

    /// The office may continue elsewhere: at the start, and when anything new was said.
    pub(super) fn heed_successor(&mut self, now: Instant) {
        let idle = self.moving.due.is_none() && self.moving.granted.is_none();
        if idle && self.people.revocations.successor().is_some() {
            let last = if self.enroller().is_some() { LAST } else { Duration::ZERO };
            self.moving.due = Some(now + SOON + last + Duration::from_millis(self.rng.below(SPREAD)));
        }
    }

    pub(super) fn moving_timeout(&mut self, now: Instant) {
        if self.next_moving().is_none_or(|at| at > now) {
            return;
        }
        if !self.ua.summaries(now).is_empty() {
            self.moving.due = Some(now + BUSY);
            return;
        }
        self.moving.due = Some(now + AGAIN);
        let Some(said) = self.people.revocations.successor() else { return };
        let office = TrustAnchor::Office { overlay: said.name.clone(), root: said.subject };
        let addrs = said.successor.iter().flat_map(|s| s.addrs.iter().copied()).collect();
        self.run_errand(now, Errand::Move { office }, addrs);
    }

    pub(super) fn ask_to_move(&mut self, now: Instant, office: TrustAnchor, flow: Flow) {
        let unix = self.unix(now);
        let Some(identity) = self.identity.as_ref() else { return };
        match MoveAsk::sign(identity, office.overlay(), unix) {
            Ok(ask) => self.exchange(now, &Hop::Flow(flow), MERGE_TYPE, ask.encode(), Asked::Move { office, flow }),
            Err(fault) => tracing::warn!(%fault, "this device cannot ask to be taken in"),
        }
    }

    /// The other office answered.
    pub(super) fn on_move_answered(&mut self, now: Instant, office: &TrustAnchor, flow: Flow, answer: &Answer) {
        let unix = self.unix(now);
        if let Some(conn) = flow.conn {
            self.flows.close(conn, &mut self.wire);
        }
        let read = MoveAnswer::decode(&answer.body);
        let (Some(identity), 200, Ok(read)) = (self.identity.as_ref(), answer.status, read) else {
            return self.not_moved(now, answer.status);
        };
        match read.finish(identity, office, unix) {
            Ok(moved) => {
                for name in &read.refused {
                    tracing::warn!(phone = %name, "this phone is not taken along: somebody there has its name");
                }
                self.moving.due = None;
                self.moving.granted = Some((Box::new(moved), flow.remote));
                self.depart(now);
            }
            Err(fault) => {
                tracing::warn!(%fault, "certificates of the other office that do not hold");
                self.not_moved(now, 403);
            }
        }
    }

    pub(super) fn not_moved(&mut self, now: Instant, status: u16) {
        let pause = if status == 403 { REFUSED } else { AGAIN };
        self.moving.due = Some(now + pause);
        if status == 403 && !std::mem::replace(&mut self.moving.said, true) {
            let office = self.people.revocations.successor().map(|s| s.name.clone()).unwrap_or_default();
            let what = format!("this office continues as {office}, which does not take this device in");
            let next = "ask an administrator there for an invite".to_owned();
            self.event(None, Event::Warning { what, next });
        }
    }

    /// Hands over what it holds, and leaves the ring.
    fn depart(&mut self, now: Instant) {
        match self.overlay.is_some() && self.ring.state() == State::In {
            true => self.leave(now),
            false => self.moving.left = true,
        }
    }

    /// The ring is left; true when that was in order to go over.
    pub(super) fn has_departed(&mut self) -> bool {
        self.moving.left = self.moving.granted.is_some() && self.stopping.is_none();
        self.moving.left
    }

    /// Becomes a device of the other office, once the ring is left and no call is under way; true when it did.
    pub(super) fn arrive(&mut self, now: Instant) -> bool {
        if !self.moving.left || !self.ua.summaries(now).is_empty() {
            return false;
        }
        let said = self.people.revocations.successor().cloned();
        let (Some((identity, at)), Some(statement)) = (self.moving.granted.take(), said) else { return false };
        self.moving.left = false;
        self.begin_anew(now, *identity, at, statement);
        true
    }

    fn begin_anew(&mut self, now: Instant, identity: Identity, at: SocketAddr, statement: Revocation) {
        let Some(anchor) = self.identity.as_ref().map(|i| i.anchor.clone()) else { return };
        let former = Former { anchor, statement };
        let contacts = self.contacts_after(&former);
        let mut config = self.setup.config.clone();
        config.overlay.name = identity.overlay().to_owned();
        config.user.name = identity.user().to_owned();
        config.overlay.bootstrap.clear();
        let unix = self.unix(now);
        let mut setup = Setup::new(config, Some(identity.clone()), self.setup.sip, self.setup.overlay, unix);
        (setup.sip_listen, setup.overlay_listen) = (self.setup.sip_listen, self.setup.overlay_listen);
        (setup.also, setup.maps) = (self.setup.also.clone(), self.setup.maps);
        setup.software = self.setup.software.clone();
        setup.voice_fingerprint = self.setup.voice_fingerprint;
        setup.relays = self.setup.relays;
        // It stands for the moment at which the node begins.
        setup.system = self.setup.system.map(|system| system + now.since(self.started));
        setup.passwords = self.setup.passwords.clone();
        setup.accounts = self.registrar.accounts().clone();
        setup.messages = translated(&self.mail.archive.to_file(), &former);
        setup.nat = self.survey.file();
        setup.settings = Some(self.settings.file());
        setup.acquaintances = self.strangers.known.clone();
        setup.stored = Some(Stored::default());
        setup.known_peers = vec![at];
        setup.first_connection = self.flows.next_connection();
        // What says nothing any more first: whatever it is cut off after, a restart finds something that holds.
        let mut save = |what, bytes: Vec<u8>| self.out.push_back(Output::Save { what, bytes: Bytes::from(bytes) });
        save(Saved::Revocations, Revocations::default().to_bytes());
        save(Saved::Former, former.to_bytes());
        save(Saved::Messages, setup.messages.clone());
        save(Saved::Identity, identity.to_bytes().reveal().to_vec());
        setup.former = Some(former);
        for conn in self.flows.all() {
            self.wire.push(Wire::Close { conn });
        }
        for wire in std::mem::take(&mut self.wire) {
            self.out.push_back(wire.into());
        }
        self.out.push_back(Output::Revoked(Arc::new(Revoked::default())));
        self.out.push_back(Output::Identity(Box::new(identity.clone())));
        self.event(
            None,
            Event::OfficeContinues { office: identity.overlay().to_owned(), user: identity.user().to_owned() },
        );
        let mut fresh = Node::new(now, setup, self.rng.fork());
        fresh.registrar.adopt(&mut self.registrar);
        for (name, target) in contacts {
            if let Err(fault) = fresh.change(now, &name, Some(&target)) {
                tracing::warn!(%fault, contact = %name, "this contact still names the former office");
            }
        }
        fresh.settle(now);
        let mut out = std::mem::take(&mut self.out);
        out.append(&mut fresh.out);
        fresh.out = out;
        *self = fresh;
    }

    /// The contacts whose targets are called otherwise there.
    fn contacts_after(&self, former: &Former) -> Vec<(String, String)> {
        let mut changed = Vec::new();
        for (name, target) in self.contacts_kept() {
            let plain = target.strip_prefix("sip:").unwrap_or(&target);
            let aor = match plain.contains('@') {
                true => format!("sip:{plain}"),
                false => self.domain.aor(plain),
            };
            let Some(now) = former.translate(&aor.to_ascii_lowercase()) else { continue };
            let now = match plain.contains('@') {
                true => now.trim_start_matches("sip:").to_owned(),
                false => former.rename(plain).to_owned(),
            };
            if now != plain {
                changed.push((name, now));
            }
        }
        changed
    }

    /// Nobody of this office is where it was: those who answer there may know what became of it.
    pub(super) fn seek_successor(&mut self, now: Instant) {
        let office = self.identity.as_ref().is_some_and(Identity::is_of_an_office);
        if !office || self.flows.locals().clear || self.people.revocations.successor().is_some() {
            return;
        }
        let own = self.flows.locals().overlay;
        let cached = self.ring.entrance.hosts.in_order().into_iter().chain(self.setup.known_peers.iter().copied());
        let mut addrs: Vec<SocketAddr> = cached.filter(|a| *a != own).collect();
        addrs.sort();
        addrs.dedup();
        let named = self.setup.config.overlay.bootstrap.iter().filter_map(|b| match b {
            crate::config::Bootstrap::Addr(addr) => Some(*addr),
            _ => None,
        });
        let all: VecDeque<SocketAddr> = named.chain(addrs).take(ASKED).collect();
        self.run_errand(now, Errand::Seek, all);
    }

    pub(super) fn ask_successor(&mut self, now: Instant, flow: Flow, ask: Ask, round: u8, rest: VecDeque<SocketAddr>) {
        let asked = Asked::Seek { flow, round, rest };
        self.exchange(now, &Hop::Flow(flow), REVOCATIONS_TYPE, ask.encode(), asked);
    }

    /// Somebody who was of this office answered, or was not.
    pub(super) fn on_successor_told(
        &mut self,
        now: Instant,
        (flow, round, rest): (Flow, u8, VecDeque<SocketAddr>),
        answer: &Answer,
    ) {
        if let (200, Ok(told)) = (answer.status, Compared::decode(&answer.body)) {
            self.note(now, &told.items, None);
            let known = self.people.revocations.successor().is_some();
            if let Some(next) = told.next(&self.people.revocations).filter(|_| !known && round < ROUNDS) {
                return self.ask_successor(now, flow, next, round + 1, rest);
            }
        }
        if let Some(conn) = flow.conn {
            self.flows.close(conn, &mut self.wire);
        }
        if self.people.revocations.successor().is_none() {
            self.run_errand(now, Errand::Seek, rest);
        }
    }
}

/// The file of messages, with everybody of the former office under the name that counts now.
fn translated(file: &[u8], former: &Former) -> Vec<u8> {
    let text = String::from_utf8_lossy(file);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find("\"sip:") {
        let (before, from) = rest.split_at(at + 1);
        out.push_str(before);
        let len = from.find('"').unwrap_or(from.len());
        let (aor, after) = from.split_at(len);
        out.push_str(&former.translate(aor).unwrap_or_else(|| aor.to_owned()));
        rest = after;
    }
    out.push_str(rest);
    out.into_bytes()
}
