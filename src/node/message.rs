//! Messages that go out, a person's at this node and those of the standard phones behind it.
//!
//! The recipient's record is looked up; the text is signed, sealed to every device that is known there, and sent as a MESSAGE
//! to each that can be reached. What a device does not take for want of being there waits in the mailbox
//! (`mailbox`); what hangs at this node itself gets it without the overlay (`deliver`). A plain SIP URI gets plain text.
//!
//! Delivered means that a device of the recipient has it (200), waits that somebody keeps it for them (202).

use super::archive::{Archive, LIFE, Waits};
use super::calls::{Callee, hop_of};
use super::control::{CommandError, MessageState, Reply, RequestId};
use super::hex::hex;
use super::history::entry_of;
use super::pins::Party;
use super::{Node, mailbox};
use crate::core::{Instant, TimerQueue};
use crate::identity::{
    Choice, ContactBody, DeviceBody, EntryKind, KeyFingerprint, KeyHint, Letter, LetterId, MAX_RECIPIENTS, MAX_TEXT,
    PublicKey, SignedEntry, SignedLetter, seal, split_aor,
};
use crate::overlay::PeerRef;
use crate::sip::msg::{Message, Uri};
use crate::sip::tx::ServerTxId;
use crate::ua::message::{MessageKey, Outgoing, SEALED_TYPE, TEXT_TYPE};
use crate::ua::{Hop, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a message is sealed for.
pub(super) const PURPOSE: &str = "message";
/// Messages under way at once.
const UNDER_WAY: usize = 256;

/// Who waits to hear what became of a message.
#[derive(Debug)]
pub(super) enum Source {
    /// A command.
    Command(RequestId),
    /// A standard phone's MESSAGE.
    Phone(ServerTxId, Box<Message>),
}

/// One message on its way.
#[derive(Debug)]
pub(super) struct Sending {
    source: Source,
    pub letter: Letter,
    /// The user key that was named, where several claim the recipient's name.
    claim: Option<KeyHint>,
    /// Whose devices it goes to, where that goes by the key.
    party: Option<Party>,
    /// Devices of the recipient.
    devices: BTreeSet<PublicKey>,
    /// Those that have it, or will never take it.
    taken: BTreeSet<PublicKey>,
    /// Adapters that keep it for a phone.
    keepers: BTreeSet<PublicKey>,
    sealed: Vec<u8>,
    /// Answers that are waited for.
    out: usize,
    delivered: bool,
    held: bool,
    failed: Option<(u16, String)>,
}

/// Where an answer to a MESSAGE of ours belongs.
#[derive(Debug)]
pub(super) enum Out {
    /// A device of the recipient.
    Device { sending: u64, device: PublicKey },
    /// A plain SIP URI.
    Outside { sending: u64 },
    /// A phone that hangs here.
    Phone { user: String, id: LetterId },
}

/// What becomes of a message in the end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Delivered,
    Waits,
    Failed(u16, String),
}

/// When something of the messages is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Due {
    /// A phone has had its time to answer: whoever sent hears that the message is kept.
    Phone(LetterId),
    /// The record of a recipient who has a message waiting is looked at again.
    Poll(String),
    /// A mailbox is read.
    Mailbox(String),
}

/// What the node knows of messages.
#[derive(Debug)]
pub(super) struct Mail {
    pub archive: Archive,
    pub sendings: BTreeMap<u64, Sending>,
    pub out: BTreeMap<MessageKey, Out>,
    pub timers: TimerQueue<Due>,
    pub phones: super::deliver::Phones,
    pub mailbox: mailbox::Mailbox,
    last: u64,
}

impl Mail {
    pub fn new(archive: Archive) -> Mail {
        Mail {
            archive,
            sendings: BTreeMap::new(),
            out: BTreeMap::new(),
            timers: TimerQueue::new(),
            phones: super::deliver::Phones::default(),
            mailbox: mailbox::Mailbox::new(),
            last: 0,
        }
    }

    pub fn next_key(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Node {
    /// Sends `text` on behalf of `from`, this node's own user or a phone of its.
    pub(super) fn send_letter(&mut self, now: Instant, source: Source, from: String, callee: Callee, text: String) {
        let unix = self.unix(now);
        let (to, claim) = match &callee {
            Callee::Aor { aor, claim } => (aor.clone(), claim.clone()),
            Callee::Outside(uri) | Callee::Account(_, uri) => (uri.to_string(), None),
        };
        let sent_ms = unix.secs() * 1000 + now.as_micros() / 1000 % 1000;
        let letter = Letter { id: LetterId::generate(&mut self.rng), from, to, sent_ms, text };
        let refused = match letter.text.len() {
            0 => Some((400, "an empty message".to_owned())),
            n if n > MAX_TEXT => Some((413, format!("a message of {n} bytes; {MAX_TEXT} are the most"))),
            _ if self.mail.sendings.len() >= UNDER_WAY => Some((503, "too many messages are under way".to_owned())),
            _ => None,
        };
        let sealed = matches!(callee, Callee::Aor { .. });
        if let Source::Command(_) = source
            && refused.is_none()
        {
            self.mail.archive.add(entry_of(&letter, "out", MessageState::Sent, sealed));
        }
        let sending = Sending {
            source,
            letter,
            claim,
            party: None,
            devices: BTreeSet::new(),
            taken: BTreeSet::new(),
            keepers: BTreeSet::new(),
            sealed: Vec::new(),
            // Until everybody has been asked.
            out: 1,
            delivered: false,
            held: false,
            failed: None,
        };
        let id = self.mail.next_key();
        self.mail.sendings.insert(id, sending);
        if let Some((status, why)) = refused {
            return self.finish_sending(now, id, Outcome::Failed(status, why));
        }
        match callee {
            Callee::Aor { aor, .. } if self.ring.state() == super::ring::State::In => {
                self.lookup_for_letter(now, id, &aor);
            }
            Callee::Aor { .. } => self.on_recipient_failed(now, id, "this device is in no ring yet"),
            Callee::Outside(uri) | Callee::Account(_, uri) => self.send_outside(now, id, uri),
        }
    }

    fn send_outside(&mut self, now: Instant, id: u64, uri: Uri) {
        let key = self.mail.next_key();
        let Some(sending) = self.mail.sendings.get(&id) else { return };
        let (letter, target) = (&sending.letter, Target { uri: uri.to_string(), hop: Hop::Uri(uri) });
        let outgoing = Outgoing {
            from: letter.from.clone(),
            to: letter.to.clone(),
            target,
            content_type: TEXT_TYPE,
            body: letter.text.clone().into_bytes(),
            sent: self.clock.1 + now.since(self.clock.0),
        };
        self.mail.out.insert(key, Out::Outside { sending: id });
        self.ua.send_message(key, outgoing);
    }

    /// The recipient's record could not be read: what hangs here gets it all the same.
    pub(super) fn on_recipient_failed(&mut self, now: Instant, id: u64, why: &str) {
        self.deliver_local(now, id);
        let Some(sending) = self.mail.sendings.get_mut(&id) else { return };
        sending.failed.get_or_insert_with(|| (503, format!("the recipient could not be looked up: {why}")));
        self.on_sent_one(now, id);
    }

    /// The recipient's record: devices there, and where they are.
    pub(super) fn on_recipient_found(&mut self, now: Instant, id: u64, entries: &[SignedEntry]) {
        let Some(sending) = self.mail.sendings.get(&id) else { return };
        let (aor, claim) = (sending.letter.to.clone(), sending.claim.clone());
        let devices = devices_in(entries);
        let claims = devices.values().map(|(_, key)| *key).collect();
        let choice = self.choose(now, &aor, &claims, claim.as_ref());
        if let Some(doubt) = self.doubt(now, &aor, &choice) {
            self.note_changed(now, &aor, &choice);
            return self.finish_sending(now, id, Outcome::Failed(300, doubt));
        }
        let key = if let Choice::Key(key) = choice { Some(key) } else { None };
        let own_key = split_aor(&aor).and_then(|(user, _)| self.own_key(now, user));
        if key.is_none() || own_key.is_none() || key == own_key {
            self.deliver_local(now, id);
        }
        let party = key.and_then(|key| self.party(&aor, key));
        let devices = devices.into_iter().filter(|(_, (_, of))| Some(*of) == key).map(|(d, (place, _))| (d, place));
        let own = self.identity.as_ref().map(|i| i.device_key());
        let devices: BTreeMap<_, _> = devices.filter(|(d, _)| Some(*d) != own).take(MAX_RECIPIENTS).collect();
        let Some(sending) = self.mail.sendings.get_mut(&id) else { return };
        sending.party = party;
        sending.devices = devices.keys().copied().collect();
        if !devices.is_empty() {
            match self.sealed_letter(now, id, &devices) {
                Ok(sealed) => self.send_to_devices(id, &devices, &sealed),
                Err(why) => return self.finish_sending(now, id, Outcome::Failed(403, why)),
            }
        }
        self.on_sent_one(now, id);
    }

    fn sealed_letter(
        &mut self,
        now: Instant,
        id: u64,
        devices: &BTreeMap<PublicKey, Option<PeerRef>>,
    ) -> Result<Vec<u8>, String> {
        let unix = self.unix(now);
        let (Some(identity), Some(sending)) = (&self.identity, self.mail.sendings.get(&id)) else {
            return Err("this is a plain SIP phone".into());
        };
        let user = split_aor(&sending.letter.from).map_or("", |(user, _)| user);
        let signer = identity.phone_identity(user, unix).map_err(|e| e.to_string())?;
        let signed = SignedLetter::sign(sending.letter.clone(), &signer).map_err(|e| e.to_string())?;
        let to: Vec<_> = devices.keys().copied().collect();
        seal(PURPOSE, &to, &signed.encode(), &mut self.rng).map_err(|e| e.to_string())
    }

    fn send_to_devices(&mut self, id: u64, devices: &BTreeMap<PublicKey, Option<PeerRef>>, sealed: &[u8]) {
        let Some(sending) = self.mail.sendings.get_mut(&id) else { return };
        sending.sealed = sealed.to_vec();
        let (letter, sent) = (sending.letter.clone(), sending.letter.sent());
        let user = split_aor(&letter.to).map(|(user, _)| user.to_owned());
        for (device, peer) in devices {
            let Some(peer) = peer else { continue };
            let target = Target {
                uri: self.setup.peer_uri(user.as_deref(), peer),
                hop: Hop::Peer { id: peer.id, addr: peer.addr },
            };
            let outgoing = Outgoing {
                from: letter.from.clone(),
                to: letter.to.clone(),
                target,
                content_type: SEALED_TYPE,
                body: sealed.to_vec(),
                sent,
            };
            let key = self.mail.next_key();
            self.mail.out.insert(key, Out::Device { sending: id, device: *device });
            if let Some(sending) = self.mail.sendings.get_mut(&id) {
                sending.out += 1;
            }
            self.ua.send_message(key, outgoing);
        }
    }

    /// What of the recipient hangs at this very node: its own user, its phones.
    fn deliver_local(&mut self, now: Instant, id: u64) {
        let Some(sending) = self.mail.sendings.get(&id) else { return };
        let letter = sending.letter.clone();
        let from_here = matches!(sending.source, Source::Command(_));
        let Some((user, _)) = split_aor(&letter.to) else { return };
        if self.is_own(user) && !from_here {
            let by = self.identity.as_ref().and_then(|i| i.chain.user_key());
            self.deliver_here(now, &letter, true, by);
            if let Some(sending) = self.mail.sendings.get_mut(&id) {
                sending.delivered = true;
            }
        }
        if self.has_phone(now, user) {
            if let Some(sending) = self.mail.sendings.get_mut(&id) {
                sending.out += 1;
            }
            self.deliver_to_phone(now, user, &letter, Some(super::deliver::Waiter::Sending(id)));
        }
    }

    /// A MESSAGE of ours has its answer.
    pub(super) fn on_message_answered(&mut self, now: Instant, key: MessageKey, status: u16, reason: &str) {
        match self.mail.out.remove(&key) {
            Some(Out::Phone { user, id }) => self.on_phone_answered(now, &user, &id, status, reason),
            Some(Out::Device { sending, device }) => {
                if let Some(s) = self.mail.sendings.get_mut(&sending) {
                    match status {
                        202 => {
                            s.held = true;
                            s.taken.insert(device);
                            s.keepers.insert(device);
                        }
                        200..=299 => {
                            s.delivered = true;
                            s.taken.insert(device);
                        }
                        _ if for_good(status) => {
                            s.taken.insert(device);
                            s.failed = Some((status, reason.to_owned()));
                        }
                        _ => {}
                    }
                }
                self.on_sent_one(now, sending);
            }
            Some(Out::Outside { sending }) => {
                if let Some(s) = self.mail.sendings.get_mut(&sending) {
                    match status {
                        202 => s.held = true,
                        200..=299 => s.delivered = true,
                        _ => s.failed = Some((status, reason.to_owned())),
                    }
                }
                self.on_sent_one(now, sending);
            }
            None => {}
        }
    }

    /// A phone that hangs here has it, or it is kept for it, or it was refused.
    pub(super) fn on_local_outcome(&mut self, now: Instant, id: u64, outcome: Outcome) {
        if let Some(sending) = self.mail.sendings.get_mut(&id) {
            match outcome {
                Outcome::Delivered => sending.delivered = true,
                Outcome::Waits => sending.held = true,
                Outcome::Failed(status, why) => sending.failed = Some((status, why)),
            }
        }
        self.on_sent_one(now, id);
    }

    fn on_sent_one(&mut self, now: Instant, id: u64) {
        if let Some(sending) = self.mail.sendings.get_mut(&id) {
            sending.out = sending.out.saturating_sub(1);
        }
        self.go_on_sending(now, id);
    }

    /// Once everybody who could be asked has answered: what is left waits in the mailbox.
    fn go_on_sending(&mut self, now: Instant, id: u64) {
        let Some(sending) = self.mail.sendings.get(&id).filter(|s| s.out == 0) else { return };
        let missing: Vec<_> = sending.devices.difference(&sending.taken).copied().collect();
        let (letter, sealed) = (sending.letter.clone(), sending.sealed.clone());
        let (delivered, held) = (sending.delivered, sending.held);
        if !missing.is_empty() {
            let keepers: Vec<_> = sending.keepers.iter().copied().collect();
            let waiter = (!delivered && !held).then_some(id);
            let all: Vec<_> = missing.iter().chain(&keepers).copied().collect();
            self.leave_in_mailbox(now, &letter, &sealed, &all, waiter);
            if waiter.is_some() {
                return;
            }
        } else if held && !delivered && !sending.keepers.is_empty() {
            let devices = sending.keepers.iter().map(|d| hex(&d.0)).collect();
            let (id, until) = (letter.id.to_string(), (letter.sent() + LIFE).secs());
            let to = letter.to.clone();
            let waits = Waits { id, to, devices, pieces: Vec::new(), hash: String::new(), until };
            self.wait_for(now, waits);
        }
        let outcome = match (&self.mail.sendings[&id].failed, delivered, held) {
            (_, true, _) => Outcome::Delivered,
            (_, false, true) => Outcome::Waits,
            (Some((status, why)), ..) => Outcome::Failed(*status, why.clone()),
            (None, ..) => {
                let why = format!("no device of {} was ever seen here", letter.to);
                Outcome::Failed(404, why)
            }
        };
        self.finish_sending(now, id, outcome);
    }

    /// Tells whoever waits.
    pub(super) fn finish_sending(&mut self, now: Instant, id: u64, outcome: Outcome) {
        let Some(sending) = self.mail.sendings.remove(&id) else { return };
        let (state, status, why) = match &outcome {
            Outcome::Delivered => (MessageState::Delivered, 200, String::new()),
            Outcome::Waits => (MessageState::Waits, 202, String::new()),
            Outcome::Failed(status, why) => (MessageState::Failed, *status, why.clone()),
        };
        let letter = &sending.letter;
        if let (Some(party), Outcome::Delivered, Source::Command(_)) = (&sending.party, &outcome, &sending.source) {
            self.met(&party.who, false);
        }
        match sending.source {
            Source::Command(request) => {
                let known = self.mail.archive.set_state(&letter.id.to_string(), state, status, &why);
                let entry = known.unwrap_or_else(|| entry_of(letter, "out", state, false));
                let result = match outcome {
                    Outcome::Failed(status, why) => {
                        let next = match status {
                            404 => "check the name; who was invited and never came here cannot be written to yet",
                            413 | 513 => "send less, or wait until they are there",
                            300 => "`chordial lookup` shows the keys",
                            403 => "ask them, or an administrator",
                            _ => "try again later",
                        };
                        let what = format!("the message to {} was not sent: {status} {why}", letter.to);
                        Err(CommandError::new(what, next))
                    }
                    _ => Ok(Reply::Sent { sent: Box::new(entry) }),
                };
                self.reply(request, result);
            }
            Source::Phone(tx, request) => {
                let (status, reason) = match &outcome {
                    Outcome::Delivered => (200, "OK"),
                    Outcome::Waits => (202, "Accepted"),
                    Outcome::Failed(404, _) => (404, "Not Found"),
                    Outcome::Failed(413 | 513, _) => (413, "Request Entity Too Large"),
                    Outcome::Failed(300, _) => (485, "Ambiguous"),
                    Outcome::Failed(403, _) => (403, "Forbidden"),
                    Outcome::Failed(415, _) => (415, "Unsupported Media Type"),
                    Outcome::Failed(503, _) => (504, "Server Time-out"),
                    Outcome::Failed(..) => (480, "Temporarily Unavailable"),
                };
                self.answer(now, tx, &request, status, reason);
            }
        }
    }

    /// The way to a place that the registrar names.
    pub(super) fn phone_targets(&self, now: Instant, user: &str) -> Vec<Target> {
        let candidates = self.registrar.targets(now, user).into_iter();
        candidates.map(|c| Target { hop: hop_of(&c.target), uri: c.target.uri().to_owned() }).collect()
    }
}

/// The devices that a record names, each with its place where that is known, and with the key of its user.
fn devices_in(entries: &[SignedEntry]) -> BTreeMap<PublicKey, (Option<PeerRef>, KeyFingerprint)> {
    let mut devices = BTreeMap::new();
    let place = |body: &ContactBody| Some(PeerRef { id: body.peer_id, addr: *body.addrs.first()? });
    for entry in entries {
        let said = entry.entry();
        let user = entry.chain().claimant(split_aor(&said.aor).map_or("", |(user, _)| user));
        let place = match said.kind {
            EntryKind::Contact => ContactBody::decode(&said.body).ok().map(|body| place(&body)),
            EntryKind::DEVICE => DeviceBody::decode(&said.body).ok().map(|body| place(&body.contact)),
            _ => None,
        };
        let (Some(place), Some(user)) = (place, user) else { continue };
        let found = (place, KeyFingerprint::of(&user));
        // Where it is now goes before where it was.
        let known = devices.entry(said.device).or_insert(found);
        if said.kind == EntryKind::Contact {
            *known = found;
        }
    }
    devices
}

/// A refusal that a later attempt would meet again.
fn for_good(status: u16) -> bool {
    matches!(status, 400 | 403 | 405 | 413 | 415 | 416 | 420 | 488 | 493 | 501 | 513 | 600..)
}

/// How long a phone may take to answer before whoever sent hears that the message is kept.
pub(super) const PHONE_PATIENCE: Duration = Duration::from_secs(5);
