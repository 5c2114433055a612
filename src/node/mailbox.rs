//! What waits in the overlay for somebody who is absent, and how it gets to them.
//!
//! Each device keeps an entry under the addresses that it serves which outlives its presence by seven days
//! ([`DeviceBody`]): to those keys a sender seals, and there the device says what it has taken. The sender's device
//! leaves a sealed message in pieces under addresses of their own and notes it in one entry under the recipient's address
//! ([`WaitingBody`]); it looks at that record from time to time and takes all back when every device has said that it has the
//! message; else it ends after seven days. A device reads the mailboxes of its user and of its phones when it has joined
//! and every few minutes (`fetch`).

use super::archive::{LIFE, Waits};
use super::control::MessageState;
use super::hex::{hex, unhex};
use super::lookup::Op;
use super::message::{Due, Outcome};
use super::publish::{Publisher, Write};
use super::{Node, ring};
use crate::core::Instant;
use crate::identity::{
    ContactBody, DeviceBody, Entry, EntryKind, Letter, LetterId, MAX_WAITING, PublicKey, SignedEntry, Waiting,
    WaitingBody, split_aor,
};
use crate::overlay::{self, Command, OpId, PutError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bytes of a sealed message in one piece.
pub(super) const PIECE: usize = 6000;
/// Most pieces of one message: more than the longest text needs.
pub(super) const PIECES: usize = 8;
/// How soon after it was left the record of a recipient is looked at, and how seldom at last.
const POLL_MIN: Duration = Duration::from_secs(20);
const POLL_MAX: Duration = Duration::from_secs(600);
/// How often a mailbox is read: the own user's, a phone's.
const READ_OWN: Duration = Duration::from_secs(120);
const READ_PHONE: Duration = Duration::from_secs(600);
/// After joining, and between two mailboxes then.
const FIRST_READ: Duration = Duration::from_millis(800);
const NEXT_READ: Duration = Duration::from_millis(50);

/// What is being left and published.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// The device entries of this device, by address.
    pub devices: Publisher,
    /// Its entries of messages that wait, by the recipient's address.
    pub notices: Publisher,
    /// Messages that are being left, by number.
    leaving: BTreeMap<String, Leaving>,
    /// How long until a message's recipient is looked up again.
    backoff: BTreeMap<String, Duration>,
    /// Messages that are being fetched.
    pub fetching: super::fetch::Fetching,
}

#[derive(Debug)]
struct Leaving {
    to: String,
    waiter: Option<u64>,
    /// Pieces that are not written yet.
    writes: usize,
}

impl Mailbox {
    pub fn new() -> Mailbox {
        Mailbox {
            devices: Publisher::new(LIFE),
            notices: Publisher::new(LIFE),
            leaving: BTreeMap::new(),
            backoff: BTreeMap::new(),
            fetching: super::fetch::Fetching::default(),
        }
    }
}

impl Node {
    /// The addresses whose mailboxes this node reads: of its own user, of its phones' accounts.
    fn mailbox_aors(&self) -> Vec<String> {
        let mut aors = self.own_aors();
        if self.identity.is_some() {
            let phones = self.registrar.accounts().iter().map(|a| self.domain.aor(&a.user));
            let phones: Vec<_> = phones.filter(|aor| !aors.contains(aor)).collect();
            aors.extend(phones);
        }
        aors
    }

    /// Says whose devices there are, and looks after what waits.
    pub(super) fn begin_mailbox(&mut self, now: Instant) {
        let unix = self.unix(now);
        for aor in self.mailbox_aors() {
            self.mail.mailbox.devices.want(now, unix, &aor, true);
        }
        for waits in self.mail.archive.waits().to_vec() {
            if !waits.pieces.is_empty() {
                self.mail.mailbox.notices.want(now, unix, &waits.to, true);
            }
            self.mail.timers.set(Due::Poll(waits.id), now + POLL_MIN);
        }
    }

    /// In a ring: the mailboxes are read soon.
    pub(super) fn mailbox_joined(&mut self, now: Instant) {
        self.mail.mailbox.devices.rewrite(now);
        self.mail.mailbox.notices.rewrite(now);
        for (n, aor) in (0u32..).zip(self.mailbox_aors()) {
            self.mail.timers.set(Due::Mailbox(aor), now + FIRST_READ + NEXT_READ * n);
        }
    }

    /// A phone's account was made, or is registered: its address has a device here.
    pub(super) fn mailbox_of_phone(&mut self, now: Instant, aor: &str) {
        if self.identity.is_some() {
            let unix = self.unix(now);
            self.mail.mailbox.devices.want(now, unix, aor, true);
            self.mail.timers.set(Due::Mailbox(aor.to_owned()), now + FIRST_READ);
        }
    }

    /// A phone's account is gone: nothing is kept for it here any more.
    pub(super) fn forget_mailbox(&mut self, now: Instant, user: &str) {
        let (aor, unix) = (self.domain.aor(user), self.unix(now));
        if !self.is_own(user) {
            self.mail.mailbox.devices.want(now, unix, &aor, false);
            self.mail.timers.cancel(&Due::Mailbox(aor.clone()));
        }
        self.mail.archive.forget_phone(user, &aor);
    }

    pub(super) fn next_mail_timeout(&self) -> Option<Instant> {
        let mailbox = &self.mail.mailbox;
        let writes = [mailbox.devices.next(), mailbox.notices.next()].into_iter().flatten().min();
        let writes = writes.filter(|_| self.ring.state() == ring::State::In);
        [writes, self.mail.timers.next()].into_iter().flatten().min()
    }

    pub(super) fn on_mail_timeout(&mut self, now: Instant) {
        while let Some(due) = self.mail.timers.pop(now) {
            match due {
                Due::Phone(id) => self.on_phone_patience(now, &id),
                Due::Poll(id) => self.poll_recipient(now, id),
                Due::Mailbox(aor) if self.ring.state() == ring::State::In => {
                    self.lookup_for_mailbox(now, &aor);
                    let own = self.own_aors().contains(&aor);
                    let again = if own && self.attach.via.is_empty() { READ_OWN } else { READ_PHONE };
                    self.mail.timers.set(Due::Mailbox(aor), now + again);
                }
                Due::Mailbox(aor) => self.mail.timers.set(Due::Mailbox(aor), now + READ_OWN),
            }
        }
    }

    /// Leaves a sealed message for devices that could not be reached. `waiter` is told when it is there, or why not.
    pub(super) fn leave_in_mailbox(
        &mut self,
        now: Instant,
        letter: &Letter,
        sealed: &[u8],
        devices: &[PublicKey],
        waiter: Option<u64>,
    ) {
        let at_one = self.mail.archive.waits().iter().filter(|w| w.to == letter.to && !w.pieces.is_empty()).count();
        let (pieces, fault) = match () {
            () if self.ring.state() != ring::State::In => (Vec::new(), "this device is in no ring"),
            () if at_one >= MAX_WAITING => (Vec::new(), "too many messages wait there already"),
            () if !self.mail.archive.may_wait(sealed.len()) => (Vec::new(), "too many messages of this device wait"),
            () => (self.pieces_of(now, letter, sealed), "this device may not leave messages"),
        };
        if pieces.is_empty() {
            self.count("messages that no mailbox took");
            if let Some(waiter) = waiter {
                let why = format!("nobody of {} is there, and {fault}", letter.to);
                self.finish_sending(now, waiter, Outcome::Failed(480, why));
            }
            return;
        }
        let id = letter.id.to_string();
        let waits = Waits {
            id: id.clone(),
            to: letter.to.clone(),
            devices: devices.iter().map(|d| hex(&d.0)).collect(),
            pieces: pieces.iter().map(|piece| hex(piece.encoded())).collect(),
            hash: blake3::hash(sealed).to_hex().to_string(),
            until: (letter.sent() + LIFE).secs(),
        };
        self.wait_for(now, waits);
        let leaving = Leaving { to: letter.to.clone(), waiter, writes: pieces.len() };
        self.mail.mailbox.leaving.insert(id.clone(), leaving);
        for piece in pieces {
            self.put_for_mail(now, piece, Op::Leave { id: id.clone() });
        }
    }

    /// Notes that a message waits, and looks at the record from time to time.
    pub(super) fn wait_for(&mut self, now: Instant, waits: Waits) {
        self.mail.timers.set(Due::Poll(waits.id.clone()), now + POLL_MIN);
        self.mail.archive.wait(waits);
    }

    fn pieces_of(&mut self, now: Instant, letter: &Letter, sealed: &[u8]) -> Vec<SignedEntry> {
        let Some((_, overlay)) = split_aor(&letter.to).filter(|_| sealed.len() <= PIECE * PIECES) else {
            return Vec::new();
        };
        let waiting = Waiting { id: letter.id, pieces: 0, hash: [0; 32] };
        let chunks = (0u8..).zip(sealed.chunks(PIECE));
        let pieces =
            chunks.map(|(n, bytes)| self.mail_entry(now, EntryKind::PIECE, waiting.address(n, overlay), bytes, None));
        pieces.collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// An entry of the mailbox, signed by this device.
    fn mail_entry(
        &self,
        now: Instant,
        kind: EntryKind,
        aor: String,
        body: &[u8],
        sequence: Option<u64>,
    ) -> Option<SignedEntry> {
        let (identity, unix) = (self.identity.as_ref()?, self.unix(now));
        let entry = Entry {
            kind,
            aor,
            device: identity.device_key(),
            sequence: sequence.unwrap_or(unix.secs() * 1000),
            issued: unix,
            lifetime: LIFE.as_secs() as u32,
            body: body.to_vec(),
        };
        identity.sign_entry(entry).ok()
    }

    fn put_for_mail(&mut self, now: Instant, entry: SignedEntry, op: Op) {
        let id = OpId(self.ring.next());
        self.ring.ops.insert(id, op);
        let key = entry.entry().resource_key();
        self.overlay_input(now, overlay::Input::Command(Command::Put { op: id, key, entry }));
    }

    /// A piece has been written, or not. With the last one the message is noted under the recipient's address.
    pub(super) fn on_left(&mut self, now: Instant, id: String, result: &Result<(), PutError>) {
        let Some(leaving) = self.mail.mailbox.leaving.get_mut(&id) else { return };
        leaving.writes = leaving.writes.saturating_sub(1);
        let (to, done) = (leaving.to.clone(), leaving.writes == 0);
        match result {
            Err(fault) => self.not_left(now, &id, &fault.to_string()),
            Ok(()) if done => {
                let unix = self.unix(now);
                self.mail.mailbox.notices.want(now, unix, &to, true);
                self.mail.mailbox.notices.renew(now, &to);
            }
            Ok(()) => {}
        }
    }

    fn not_left(&mut self, now: Instant, id: &str, why: &str) {
        let Some(leaving) = self.mail.mailbox.leaving.remove(id) else { return };
        self.count("messages that no mailbox took");
        self.end_wait(now, id);
        if let Some(waiter) = leaving.waiter {
            let why = format!("nobody of {} is there, and the message could not be left: {why}", leaving.to);
            self.finish_sending(now, waiter, Outcome::Failed(480, why));
        }
    }

    /// The entry that notes what waits for an address has been written, or not.
    pub(super) fn on_noted(&mut self, now: Instant, write: &Write, result: &Result<(), PutError>, past: Option<u64>) {
        let written = result.is_ok();
        self.mail.mailbox.notices.done_anew(now, write, written, past);
        let ready = |l: &Leaving| l.to == write.aor && l.writes == 0;
        let told = |m: &Mailbox| m.leaving.iter().filter(|(_, l)| ready(l)).map(|(id, _)| id.clone()).collect();
        let ready: Vec<String> = told(&self.mail.mailbox);
        for id in ready {
            match result {
                // What changed meanwhile is in the next one.
                Ok(()) if !self.mail.mailbox.notices.is_written(&write.aor) => {}
                Ok(()) => {
                    let waiter = self.mail.mailbox.leaving.remove(&id).and_then(|l| l.waiter);
                    if let Some(waiter) = waiter {
                        self.finish_sending(now, waiter, Outcome::Waits);
                    }
                }
                // A later number is held: it is written again at once.
                Err(_) if past.is_some() => {}
                Err(fault) => self.not_left(now, &id, &fault.to_string()),
            }
        }
    }

    /// A message waits no more: its pieces and its note are taken back.
    fn end_wait(&mut self, now: Instant, id: &str) {
        self.mail.mailbox.backoff.remove(id);
        self.mail.timers.cancel(&Due::Poll(id.to_owned()));
        let Some(waits) = self.mail.archive.waits_no_more(id) else { return };
        if waits.pieces.is_empty() {
            return;
        }
        for piece in pieces(&waits) {
            let (aor, sequence) = (piece.entry().aor.clone(), piece.entry().sequence + 1);
            if let Some(gone) = self.mail_entry(now, EntryKind::PIECE, aor, &[], Some(sequence)) {
                self.put_for_mail(now, gone, Op::Mend);
            }
        }
        let unix = self.unix(now);
        let more = self.mail.archive.waits().iter().any(|w| w.to == waits.to && !w.pieces.is_empty());
        self.mail.mailbox.notices.want(now, unix, &waits.to, more);
        self.mail.mailbox.notices.renew(now, &waits.to);
    }

    fn poll_recipient(&mut self, now: Instant, id: String) {
        let Some(waits) = self.mail.archive.waits().iter().find(|w| w.id == id).cloned() else { return };
        if waits.until <= self.unix(now).secs() {
            self.end_wait(now, &id);
            return self.message_state(&id, MessageState::Expired, 408);
        }
        if self.ring.state() == ring::State::In {
            self.lookup_for_poll(now, id.clone(), &waits.to);
        }
        let wait = self.mail.mailbox.backoff.entry(id.clone()).or_insert(POLL_MIN);
        self.mail.timers.set(Due::Poll(id), now + *wait);
        *wait = (*wait * 2).min(POLL_MAX);
    }

    /// The recipient's record, looked at for a message that waits there.
    pub(super) fn on_polled(&mut self, now: Instant, id: &str, entries: &[SignedEntry]) {
        let (Some(waits), Some(number)) =
            (self.mail.archive.waits().iter().find(|w| w.id == id).cloned(), LetterId::from_hex(id))
        else {
            return;
        };
        let has = |entry: &&SignedEntry| {
            entry.entry().kind == EntryKind::DEVICE
                && DeviceBody::decode(&entry.entry().body).is_ok_and(|body| body.acks.contains(&number))
        };
        let having: BTreeSet<_> = entries.iter().filter(has).map(|e| hex(&e.entry().device.0)).collect();
        let left: Vec<_> = waits.devices.iter().filter(|d| !having.contains(*d)).cloned().collect();
        if left.len() < waits.devices.len() {
            self.message_state(id, MessageState::Delivered, 200);
        }
        if left.is_empty() {
            return self.end_wait(now, id);
        }
        if left.len() < waits.devices.len()
            && let Some(waits) = self.mail.archive.waits_mut(id)
        {
            waits.devices = left;
        }
        // What the holders have lost is written again.
        if waits.pieces.is_empty() || self.mail.mailbox.leaving.contains_key(id) {
            return;
        }
        let own = self.identity.as_ref().map(|i| i.device_key());
        let noted = |e: &&SignedEntry| e.entry().kind == EntryKind::WAITING && Some(e.entry().device) == own;
        let noted = entries.iter().find(noted).and_then(|e| WaitingBody::decode(&e.entry().body).ok());
        if !noted.is_some_and(|body| body.messages.iter().any(|m| m.id == number)) {
            self.mail.mailbox.notices.renew(now, &waits.to);
            for piece in pieces(&waits) {
                self.put_for_mail(now, piece, Op::Mend);
            }
        }
    }

    /// Says in this device's entry that a message was shown.
    pub(super) fn acknowledge(&mut self, now: Instant, aor: &str, id: &LetterId) {
        let unix = self.unix(now);
        if self.mail.archive.acknowledge(aor, id, unix) {
            self.mail.mailbox.devices.renew(now, aor);
        }
    }

    /// Writes what is due of the device entries and of the notes; true when there was any.
    pub(super) fn write_mail(&mut self, now: Instant) -> bool {
        if self.ring.state() != ring::State::In {
            return false;
        }
        let mut busy = false;
        for write in self.mail.mailbox.devices.poll(now) {
            busy = true;
            match self.device_entry(now, &write) {
                Some(entry) => self.put_for_mail(now, entry, Op::Device(write)),
                None => self.mail.mailbox.devices.done_anew(now, &write, false, None),
            }
        }
        for write in self.mail.mailbox.notices.poll(now) {
            busy = true;
            match self.notice(now, &write) {
                Some(entry) => self.put_for_mail(now, entry, Op::Notice(write)),
                None => self.mail.mailbox.notices.done_anew(now, &write, false, None),
            }
        }
        busy
    }

    fn device_entry(&self, now: Instant, write: &Write) -> Option<SignedEntry> {
        let identity = self.identity.as_ref()?;
        let (me, unix) = (self.overlay.as_ref()?.me(), self.unix(now));
        let via = self.attach.via.iter().map(|p| (p.id, p.addr)).collect();
        let user_agent = self.setup.software.clone();
        let contact = ContactBody { peer_id: me.id, addrs: vec![me.addr], user_agent, via };
        let body = DeviceBody { contact, acks: self.mail.archive.acks(&write.aor, unix) };
        let entry = Entry {
            kind: EntryKind::DEVICE,
            aor: write.aor.clone(),
            device: identity.device_key(),
            sequence: write.sequence,
            issued: unix,
            lifetime: LIFE.as_secs() as u32,
            body: if write.reachable { body.encode() } else { Vec::new() },
        };
        let (user, _) = split_aor(&write.aor)?;
        identity.phone_identity(user, unix).ok()?.sign_entry(entry).ok()
    }

    fn notice(&self, now: Instant, write: &Write) -> Option<SignedEntry> {
        let pending = |w: &&Waits| self.mail.mailbox.leaving.get(&w.id).is_some_and(|l| l.writes > 0);
        let here = self.mail.archive.waits().iter().filter(|w| w.to == write.aor && !w.pieces.is_empty());
        let waiting = |w: &Waits| {
            let (id, hash) = (LetterId::from_hex(&w.id)?, unhex(&w.hash)?.try_into().ok()?);
            Some(Waiting { id, pieces: u8::try_from(w.pieces.len()).ok()?, hash })
        };
        let messages: Vec<_> = here.filter(|w| !pending(w)).filter_map(waiting).collect();
        let body = if messages.is_empty() { Vec::new() } else { WaitingBody { messages }.encode() };
        self.mail_entry(now, EntryKind::WAITING, write.aor.clone(), &body, Some(write.sequence))
    }
}

/// The pieces of a message of ours.
fn pieces(waits: &Waits) -> Vec<SignedEntry> {
    waits.pieces.iter().filter_map(|text| SignedEntry::decode(&unhex(text)?).ok()).collect()
}
