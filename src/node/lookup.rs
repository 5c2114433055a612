//! Lookups and writes: what the node asks the overlay for whoever needs it, and what comes of the answer.

use super::Node;
use super::blob::BlobOp;
use super::login::LoginOp;
use super::publish::Write;
use super::ring::State;
use super::settings::SettingsOp;
use crate::core::Instant;
use crate::identity::{
    ContactBody, DictionaryKey, Entry, EntryKind, KeyFingerprint, LetterId, PublicKey, RecoverySheet, SignedEntry,
    resource_key, split_aor,
};
use crate::node::control::{CommandError, Event, LookupReport, Reply, RequestId};
use crate::overlay::{self, Command, Mode, OpId, PeerRef, PutError, Trace};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::CallId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who waits for an operation on the overlay.
#[derive(Debug)]
pub(super) enum Op {
    Lookup {
        request: RequestId,
        aor: String,
    },
    Call {
        call: CallId,
        aor: String,
    },
    Route {
        query: crate::pbx::router::QueryId,
        aor: String,
    },
    Vouch {
        tx: ServerTxId,
    },
    Way {
        number: u64,
    },
    Write {
        write: Write,
        entry: SignedEntry,
    },
    /// Who may grant certificates.
    Enrollers {
        wanted: Box<super::certify::Wanted>,
    },
    /// The same, for another member who asked here.
    Refer {
        tx: ServerTxId,
        message: Box<Message>,
    },
    /// Where a plain SIP proxy is sent.
    Redirect {
        tx: ServerTxId,
    },
    /// With whom an enroller compares its book.
    Books,
    /// Which devices this user has.
    Devices {
        request: RequestId,
        remove: Option<String>,
    },
    /// Who is to become an owner.
    Owner {
        request: RequestId,
        user: String,
        sheet: Box<RecoverySheet>,
    },
    /// A device that is to serve a phone too.
    Share(Box<super::adapters::Sharing>),
    /// Who holds the account of a phone that came here.
    Adapters {
        tx: ServerTxId,
    },
    /// The recipient of a message that is being sent.
    Letter {
        sending: u64,
    },
    /// The mailbox of an address that is served here.
    Mailbox {
        aor: String,
    },
    /// The recipient of a message that waits.
    Poll {
        id: String,
    },
    /// A piece of a message that waits.
    Piece {
        device: PublicKey,
        id: LetterId,
        n: u8,
    },
    /// The note of what waits for an address.
    Notice(Write),
    /// A piece of a message is left in a mailbox.
    Leave {
        id: String,
    },
    /// A device entry.
    Device(Write),
    /// Taken back, or written again: nobody waits.
    Mend,
    Login(LoginOp),
    Settings(SettingsOp),
    Lease {
        aor: String,
    },
    Blob(BlobOp),
}

/// What a write that the publishers keep wrote.
enum Written {
    Contact(SignedEntry),
    Device,
    Notice,
}

/// What a lookup found, made into places to ring.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// One a device, with the fingerprint of its user's key; this node's own entry is left out.
    pub peers: Vec<(PeerRef, KeyFingerprint)>,
    /// Fingerprints of the user keys that claim the name.
    pub claims: BTreeSet<KeyFingerprint>,
    /// The devices that signed, each with its user's key.
    pub devices: BTreeSet<(PublicKey, KeyFingerprint)>,
}

impl Found {
    /// The devices that signed as this user; without one, none of somebody else's.
    pub fn devices_of(&self, key: Option<KeyFingerprint>) -> BTreeSet<PublicKey> {
        self.devices.iter().filter(|(_, of)| Some(*of) == key).map(|(device, _)| *device).collect()
    }
}

impl Node {
    pub(super) fn begin_op(&mut self, now: Instant, op: Op, aor: &str, mode: Mode) {
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
        self.begin_op(now, Op::Vouch { tx }, aor, Mode::Sure);
    }

    /// Looks up whom a message is for.
    pub(super) fn lookup_for_letter(&mut self, now: Instant, sending: u64, aor: &str) {
        self.begin_op(now, Op::Letter { sending }, aor, Mode::Auto);
    }

    /// Looks at the record of somebody who has a message waiting.
    pub(super) fn lookup_for_poll(&mut self, now: Instant, id: String, aor: &str) {
        self.begin_op(now, Op::Poll { id }, aor, Mode::Auto);
    }

    /// Reads a mailbox.
    pub(super) fn lookup_for_mailbox(&mut self, now: Instant, aor: &str) {
        self.begin_op(now, Op::Mailbox { aor: aor.to_owned() }, aor, Mode::Auto);
    }

    /// Reads a piece of a message that waits.
    pub(super) fn lookup_for_piece(&mut self, now: Instant, place: &str, device: PublicKey, id: LetterId, n: u8) {
        self.begin_op(now, Op::Piece { device, id, n }, place, Mode::Auto);
    }

    pub(super) fn on_get_done(&mut self, now: Instant, op: OpId, entries: &[SignedEntry], trace: &Trace) {
        let found = self.found(entries);
        match self.ring.ops.remove(&op) {
            Some(Op::Lookup { request, aor }) => {
                let report = self.lookup_report(now, aor, entries, &found, trace);
                self.reply(request, Ok(Reply::Lookup(report)));
            }
            Some(Op::Call { call, aor }) => self.on_callee_found(now, call, &aor, &found, u32::from(trace.hops)),
            Some(Op::Route { query, aor }) => self.on_route_found(now, query, &aor, &found),
            Some(Op::Vouch { tx }) => self.on_vouched(now, tx, entries),
            Some(Op::Way { number }) => self.on_way(now, number, &found),
            Some(Op::Letter { sending }) => self.on_recipient_found(now, sending, entries),
            Some(Op::Mailbox { aor }) => self.on_mailbox(now, &aor, entries),
            Some(Op::Poll { id }) => self.on_polled(now, &id, entries),
            Some(Op::Piece { device, id, n }) => self.on_piece(now, (device, id, n), entries),
            Some(Op::Login(LoginOp::Front(front, _))) => self.on_front_credential(now, front, Some(entries)),
            Some(Op::Login(LoginOp::Keep(job, _))) => self.on_keep_read(now, job, Some(entries)),
            Some(Op::Settings(op)) => self.on_settings_read(now, op, Some(entries)),
            Some(Op::Blob(BlobOp::Look { id })) => self.on_blob_found(now, &id, Some(entries)),
            Some(Op::Blob(_) | Op::Lease { .. }) => {}
            Some(Op::Write { .. } | Op::Leave { .. } | Op::Device(_) | Op::Notice(_) | Op::Mend) | None => {}
            Some(op) => self.on_people_found(now, op, entries),
        }
    }

    /// Lookups about people and their devices; a failed one has found nothing.
    fn on_people_found(&mut self, now: Instant, op: Op, entries: &[SignedEntry]) {
        match op {
            Op::Enrollers { wanted } => self.on_enrollers(now, *wanted, entries),
            Op::Refer { tx, message } => self.on_refer(now, tx, &message, entries),
            Op::Books => self.on_books(now, entries),
            Op::Devices { request, remove } => self.on_devices(now, request, remove, entries),
            Op::Redirect { tx } => self.on_redirect_found(now, tx, entries),
            Op::Adapters { tx } => self.on_adapters(now, tx, entries),
            Op::Share(sharing) => self.on_adapter_found(now, *sharing, entries),
            Op::Owner { request, user, sheet } => self.on_owner_found(now, request, user, *sheet, entries),
            _ => {}
        }
    }

    /// Looks up what one of the operations about people needs.
    pub(super) fn lookup_people(&mut self, now: Instant, op: Op, aor: &str) {
        self.begin_op(now, op, aor, Mode::Auto);
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
            Some(Op::Way { number }) => self.on_way(now, number, &Found::default()),
            Some(Op::Letter { sending }) => self.on_recipient_failed(now, sending, why),
            // Both are done again in time.
            Some(Op::Mailbox { .. } | Op::Poll { .. }) => {}
            Some(Op::Piece { device, id, n }) => self.on_piece(now, (device, id, n), &[]),
            Some(Op::Login(LoginOp::Front(front, _))) => self.on_front_credential(now, front, None),
            Some(Op::Login(LoginOp::Keep(job, _))) => self.on_keep_read(now, job, None),
            Some(Op::Settings(op)) => self.on_settings_read(now, op, None),
            Some(Op::Blob(BlobOp::Look { id })) => self.on_blob_found(now, &id, None),
            Some(Op::Blob(_) | Op::Lease { .. }) => {}
            Some(Op::Write { .. } | Op::Leave { .. } | Op::Device(_) | Op::Notice(_) | Op::Mend) | None => {}
            Some(op) => self.on_people_found(now, op, &[]),
        }
    }

    fn found(&mut self, entries: &[SignedEntry]) -> Found {
        let own = self.overlay.as_ref().map(|o| o.me().id);
        let mut found = Found::default();
        for entry in entries.iter().filter(|e| e.entry().kind == EntryKind::Contact) {
            let Ok(body) = ContactBody::decode(&entry.entry().body) else { continue };
            let Some(addr) = body.addrs.first().copied() else { continue };
            let user = split_aor(&entry.entry().aor).map_or("", |(user, _)| user);
            let Some(claim) = entry.chain().claimant(user).map(|key| KeyFingerprint::of(&key)) else { continue };
            if Some(body.peer_id) != own {
                let via = body.via.iter().filter(|(id, _)| *id != body.peer_id);
                self.attach.learn(body.peer_id, via.map(|(id, addr)| PeerRef { id: *id, addr: *addr }).collect());
                found.peers.push((PeerRef { id: body.peer_id, addr }, claim));
            }
            found.claims.insert(claim);
            found.devices.insert((entry.entry().device, claim));
        }
        found
    }

    fn lookup_report(
        &self,
        now: Instant,
        aor: String,
        entries: &[SignedEntry],
        found: &Found,
        trace: &Trace,
    ) -> LookupReport {
        let contacts = entries.iter().filter(|e| e.entry().kind == EntryKind::Contact);
        let bodies = contacts.filter_map(|e| ContactBody::decode(&e.entry().body).ok());
        let user = split_aor(&aor).map_or("", |(user, _)| user);
        let contacts: Vec<_> = bodies
            .filter_map(|b| Some(self.contact_uri(Some(user), &PeerRef { id: b.peer_id, addr: *b.addrs.first()? })))
            .collect();
        LookupReport {
            found: !contacts.is_empty(),
            keys: self.claims_report(now, &aor, &found.claims),
            aor,
            contacts,
            hops: u32::from(trace.hops),
            peers_asked: trace.asked.iter().map(|p| format!("{}@{}", p.id, p.addr)).collect(),
            ms: trace.took.as_secs_f64() * 1000.0,
            mode: match (trace.hops, trace.mode) {
                (0, _) => "local".into(),
                (_, Mode::Iterative) => "iterative".into(),
                (_, Mode::Recursive | Mode::Auto | Mode::Sure) => "recursive".into(),
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
                    self.ring.ops.insert(op, Op::Write { write, entry: entry.clone() });
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
        let lifetime = self.setup.lifetime_seconds(!self.attach.via.is_empty());
        let renewed = identity.touch(&entries, overlay.unix(now), lifetime);
        renewed.into_iter().map(|e| ((e.dictionary_key(), e.entry().aor.clone()), e)).collect()
    }

    fn entry_of(&self, now: Instant, write: &Write) -> Option<SignedEntry> {
        let identity = self.identity.as_ref()?;
        let me = self.overlay.as_ref()?.me();
        let unix = self.overlay.as_ref()?.unix(now);
        let via = self.attach.via.iter().map(|p| (p.id, p.addr)).collect();
        let (addrs, user_agent) = (self.own_addresses(), self.setup.software.clone());
        let body = ContactBody { peer_id: me.id, addrs, user_agent, via };
        let entry = Entry {
            kind: EntryKind::Contact,
            aor: write.aor.clone(),
            device: identity.device_key(),
            sequence: write.sequence,
            issued: unix,
            lifetime: self.setup.lifetime_seconds(!self.attach.via.is_empty()),
            body: if write.reachable { body.encode() } else { Vec::new() },
        };
        let (user, _) = split_aor(&write.aor)?;
        identity.phone_identity(user, unix).ok()?.sign_entry(entry).ok()
    }

    pub(super) fn on_put_done(&mut self, now: Instant, op: OpId, result: Result<(), PutError>) {
        let (write, what) = match self.ring.ops.remove(&op) {
            Some(Op::Write { write, entry }) => (write, Written::Contact(entry)),
            Some(Op::Device(write)) => (write, Written::Device),
            Some(Op::Notice(write)) => (write, Written::Notice),
            Some(Op::Leave { id }) => return self.on_left(now, id, &result),
            Some(Op::Login(LoginOp::Keep(job, _))) => return self.on_keep_written(now, job, &result),
            Some(Op::Settings(op)) => return self.on_settings_written(now, op, &result),
            Some(Op::Blob(op)) => return self.on_blob_written(now, op, result),
            _ => return,
        };
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
        let entry = match what {
            Written::Contact(entry) => entry,
            Written::Device => return self.mail.mailbox.devices.done_anew(now, &write, written, past),
            Written::Notice => return self.on_noted(now, &write, &result, past),
        };
        let was = self.publisher.is_written(&write.aor);
        self.publisher.done(now, &write, written.then_some(entry), past);
        if written && write.reachable && !was {
            self.event(None, Event::Registered { aor: write.aor });
        }
    }
}
