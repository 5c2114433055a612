//! Lookups and writes: what the node asks the overlay for whoever needs it, and what comes of the answer.

use super::Node;
use super::publish::Write;
use super::ring::State;
use crate::core::Instant;
use crate::identity::{ContactBody, DictionaryKey, Entry, EntryKind, SignedEntry, resource_key, split_aor};
use crate::node::control::{CommandError, Event, LookupReport, Reply, RequestId};
use crate::overlay::{self, Command, Mode, OpId, PeerRef, PutError, Trace};
use crate::sip::tx::ServerTxId;
use crate::ua::CallId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who waits for an operation on the overlay.
#[derive(Debug)]
pub(super) enum Op {
    Lookup { request: RequestId, aor: String },
    Call { call: CallId, aor: String },
    Route { query: crate::pbx::router::QueryId, aor: String },
    Vouch { tx: ServerTxId },
    Write(Write, SignedEntry),
}

/// What a lookup found, made into places to ring.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// One a device, with the fingerprint of its user's key; this node's own entry is left out.
    pub peers: Vec<(PeerRef, String)>,
    /// Fingerprints of the user keys that claim the name.
    pub claims: BTreeSet<String>,
}

impl Node {
    fn begin_op(&mut self, now: Instant, op: Op, aor: &str, mode: Mode) {
        let id = OpId(self.ring.next());
        self.ring.ops.insert(id, op);
        let get = Command::Get { op: id, key: resource_key(aor), aor: Some(Arc::from(aor)), mode };
        self.overlay_input(now, overlay::Input::Command(get));
    }

    /// Looks a user up for a person or a script.
    pub(super) fn lookup_for(&mut self, now: Instant, request: RequestId, aor: String, iterative: bool) {
        let mode = if iterative { Mode::Iterative } else { Mode::Auto };
        self.begin_op(now, Op::Lookup { request, aor: aor.clone() }, &aor, mode);
    }

    /// Looks the callee of a call of ours up.
    pub(super) fn lookup_for_call(&mut self, now: Instant, call: CallId, aor: String) {
        self.begin_op(now, Op::Call { call, aor: aor.clone() }, &aor, Mode::Auto);
    }

    /// Looks the callee of a request in the proxy up.
    pub(super) fn lookup_for_route(&mut self, now: Instant, query: crate::pbx::router::QueryId, aor: String) {
        self.begin_op(now, Op::Route { query, aor: aor.clone() }, &aor, Mode::Auto);
    }

    /// Looks up who may speak for the caller of a request.
    pub(super) fn lookup_for_vouch(&mut self, now: Instant, tx: ServerTxId, aor: &str) {
        self.begin_op(now, Op::Vouch { tx }, aor, Mode::Auto);
    }

    pub(super) fn on_get_done(&mut self, now: Instant, op: OpId, entries: &[SignedEntry], trace: &Trace) {
        let found = self.found(entries);
        match self.ring.ops.remove(&op) {
            Some(Op::Lookup { request, aor }) => {
                let report = self.lookup_report(aor, entries, &found, trace);
                self.reply(request, Ok(Reply::Lookup(report)));
            }
            Some(Op::Call { call, aor }) => self.on_callee_found(now, call, &aor, &found, u32::from(trace.hops)),
            Some(Op::Route { query, aor }) => self.on_route_found(now, query, &aor, &found),
            Some(Op::Vouch { tx }) => self.on_vouched(now, tx, entries),
            Some(Op::Write(..)) | None => {}
        }
    }

    pub(super) fn on_get_failed(&mut self, now: Instant, op: OpId, why: &str, trace: &Trace) {
        match self.ring.ops.remove(&op) {
            Some(Op::Lookup { request, aor }) => {
                let asked = trace.asked.len();
                let what = format!("the lookup of {aor} failed after {asked} peers: {why}");
                self.reply(request, Err(CommandError::new(what, "try again, or see `chordial peers`")));
            }
            Some(Op::Call { call, .. }) => self.ua.give_up(now, call, 503, format!("the lookup failed: {why}")),
            Some(Op::Route { query, aor }) => self.on_route_failed(now, query, &aor),
            Some(Op::Vouch { tx }) => self.on_vouched(now, tx, &[]),
            Some(Op::Write(..)) | None => {}
        }
    }

    fn found(&self, entries: &[SignedEntry]) -> Found {
        let own = self.overlay.as_ref().map(|o| o.me().id);
        let mut found = Found::default();
        for entry in entries.iter().filter(|e| e.entry().kind == EntryKind::Contact) {
            let Ok(body) = ContactBody::decode(&entry.entry().body) else { continue };
            let Some(addr) = body.addrs.first().copied() else { continue };
            let Some(claim) = entry.chain().user_key().map(|key| key.to_string()) else { continue };
            if Some(body.peer_id) != own {
                found.peers.push((PeerRef { id: body.peer_id, addr }, claim.clone()));
            }
            found.claims.insert(claim);
        }
        found
    }

    fn lookup_report(&self, aor: String, entries: &[SignedEntry], found: &Found, trace: &Trace) -> LookupReport {
        let bodies = entries.iter().filter_map(|e| ContactBody::decode(&e.entry().body).ok());
        let user = split_aor(&aor).map_or("", |(user, _)| user);
        let contacts: Vec<_> = bodies
            .filter_map(|b| Some(self.setup.peer_uri(Some(user), &PeerRef { id: b.peer_id, addr: *b.addrs.first()? })))
            .collect();
        LookupReport {
            found: !contacts.is_empty(),
            aor,
            contacts,
            hops: u32::from(trace.hops),
            peers_asked: trace.asked.iter().map(|p| format!("{}@{}", p.id, p.addr)).collect(),
            ms: trace.took.as_secs_f64() * 1000.0,
            mode: match (trace.hops, trace.mode) {
                (0, _) => "local".into(),
                (_, Mode::Iterative) => "iterative".into(),
                (_, Mode::Recursive | Mode::Auto) => "recursive".into(),
            },
            claims: found.claims.len() as u32,
        }
    }

    /// Writes what is due; true when there was anything.
    pub(super) fn write_due(&mut self, now: Instant) -> bool {
        if self.ring.state() != State::In {
            return false;
        }
        let due = self.publisher.poll(now);
        let busy = !due.is_empty();
        let renewed = self.renewed(now, &due);
        for write in due {
            let again = write.renews.as_ref().and_then(|r| renewed.get(&(r.dictionary_key(), write.aor.clone())));
            match again.cloned().or_else(|| self.entry_of(now, &write)) {
                Some(entry) => {
                    let op = OpId(self.ring.next());
                    let key = resource_key(&write.aor);
                    self.ring.ops.insert(op, Op::Write(write, entry.clone()));
                    self.overlay_input(now, overlay::Input::Command(Command::Put { op, key, entry }));
                }
                None => {
                    self.count("registrations that this device may not sign for");
                    tracing::warn!(aor = %write.aor, "this device may not sign for it; an administrator adds the phone");
                    self.publisher.done(now, &write, None, None);
                }
            }
        }
        busy
    }

    /// What only goes on, under one signature.
    fn renewed(&self, now: Instant, due: &[Write]) -> BTreeMap<(DictionaryKey, String), SignedEntry> {
        let (Some(identity), Some(overlay)) = (&self.identity, &self.overlay) else { return BTreeMap::new() };
        let entries: Vec<SignedEntry> = due.iter().filter_map(|w| w.renews.clone()).collect();
        let renewed = identity.touch(&entries, overlay.unix(now), self.setup.config.overlay.lifetime_seconds);
        renewed.into_iter().map(|e| ((e.dictionary_key(), e.entry().aor.clone()), e)).collect()
    }

    fn entry_of(&self, now: Instant, write: &Write) -> Option<SignedEntry> {
        let identity = self.identity.as_ref()?;
        let me = self.overlay.as_ref()?.me();
        let unix = self.overlay.as_ref()?.unix(now);
        let body = ContactBody { peer_id: me.id, addrs: vec![me.addr], user_agent: self.setup.software.clone() };
        let entry = Entry {
            kind: EntryKind::Contact,
            aor: write.aor.clone(),
            device: identity.device_key(),
            sequence: write.sequence,
            issued: unix,
            lifetime: self.setup.config.overlay.lifetime_seconds,
            body: if write.reachable { body.encode() } else { Vec::new() },
        };
        let (user, _) = split_aor(&write.aor)?;
        identity.phone_identity(user, unix).ok()?.sign_entry(entry).ok()
    }

    pub(super) fn on_put_done(&mut self, now: Instant, op: OpId, result: Result<(), PutError>) {
        let Some(Op::Write(write, entry)) = self.ring.ops.remove(&op) else { return };
        let (written, past) = match &result {
            Ok(()) => (true, None),
            Err(PutError::Stale(entry) | PutError::Conflict(entry)) => (false, Some(entry.entry().sequence)),
            Err(_) => (false, None),
        };
        if let Err(PutError::Stale(later)) = &result {
            self.on_overtaken(later);
        }
        if let Err(fault) = &result {
            tracing::debug!(aor = %write.aor, %fault, "not written");
        }
        let was = self.publisher.is_written(&write.aor);
        self.publisher.done(now, &write, written.then_some(entry), past);
        if written && write.reachable && !was {
            self.event(None, Event::Registered { aor: write.aor });
        }
    }
}
