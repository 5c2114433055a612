//! What waits in the overlay for somebody who is absent, and how it gets to them.
//!
//! Each device keeps an entry under the addresses that it serves which outlives its presence by seven days
//! ([`DeviceBody`]): to those keys a sender seals, and there the device says what it has taken. The sender's device
//! leaves a sealed message in pieces under the recipient's address ([`MailboxBody`]), looks at the record from time to time,
//! and takes the pieces back when every device has said that it has them; else they end after seven days. A device reads
//! the mailboxes of its user and of its phones when it has joined and every few minutes.
//!
//! A whole resource has to fit into one SIP message, so what can wait is bounded by [`PARTS`] times [`PART`] bytes; a longer
//! message reaches only who is there. A piece counts only if the device that signed the entry is the one that signed the
//! message inside: nobody can put another's old message there again.

use super::archive::{Admit, LIFE, Waits, hex, unhex};
use super::control::MessageState;
use super::deliver::Waiter;
use super::lookup::Op;
use super::message::{Due, Outcome};
use super::publish::{Publisher, Write};
use super::{Node, ring};
use crate::core::Instant;
use crate::identity::{
    ContactBody, DeviceBody, Entry, EntryKind, Letter, LetterId, MailboxBody, PublicKey, SignedEntry, split_aor,
};
use crate::overlay::{self, Command, OpId, PutError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A device of the user and what it has taken ([`DeviceBody`]).
pub(super) const DEVICE: EntryKind = EntryKind::Other(14);
/// A piece of a message that waits ([`MailboxBody`]).
pub(super) const ITEM: EntryKind = EntryKind::Other(3);
/// Bytes of a sealed message in one piece.
pub(super) const PART: usize = 3500;
/// Most pieces of one message.
pub(super) const PARTS: usize = 4;
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
    /// The device entries of this device.
    pub devices: Publisher,
    /// Messages whose pieces are being written.
    leaving: BTreeMap<String, Leaving>,
    /// How long until a message's recipient is looked up again.
    backoff: BTreeMap<String, Duration>,
}

#[derive(Debug)]
struct Leaving {
    waiter: Option<u64>,
    writes: usize,
    failed: Option<String>,
}

impl Mailbox {
    pub fn new() -> Mailbox {
        Mailbox { devices: Publisher::new(LIFE), leaving: BTreeMap::new(), backoff: BTreeMap::new() }
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
        let waiting: Vec<_> = self.mail.archive.waits().iter().map(|w| w.id.clone()).collect();
        for id in waiting {
            self.mail.timers.set(Due::Poll(id), now + POLL_MIN);
        }
    }

    /// In a ring: the mailboxes are read soon.
    pub(super) fn mailbox_joined(&mut self, now: Instant) {
        self.mail.mailbox.devices.rewrite(now);
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
        let devices = self.mail.mailbox.devices.next().filter(|_| self.ring.state() == ring::State::In);
        [devices, self.mail.timers.next()].into_iter().flatten().min()
    }

    pub(super) fn on_mail_timeout(&mut self, now: Instant) {
        while let Some(due) = self.mail.timers.pop(now) {
            match due {
                Due::Phone(id) => self.on_phone_patience(now, &id),
                Due::Poll(id) => self.poll_recipient(now, id),
                Due::Mailbox(aor) if self.ring.state() == ring::State::In => {
                    self.lookup_for_mailbox(now, &aor);
                    let own = self.own_aors().contains(&aor);
                    let again = if own { READ_OWN } else { READ_PHONE };
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
        let fault = if sealed.len() > PART * PARTS {
            Some((413, format!("nobody of {} is there, and the message is too long to wait", letter.to)))
        } else if !self.mail.archive.may_wait() {
            Some((503, "too many messages wait already".to_owned()))
        } else {
            None
        };
        let items = if fault.is_none() { self.items_of(now, letter, sealed) } else { Vec::new() };
        if items.is_empty() {
            let (status, why) = fault.unwrap_or((503, "this device may not leave messages".to_owned()));
            if let Some(waiter) = waiter {
                self.finish_sending(now, waiter, Outcome::Failed(status, why));
            }
            return;
        }
        let id = letter.id.to_string();
        let devices = devices.iter().map(|d| hex(&d.0)).collect();
        self.wait_for(now, letter, devices, items.iter().map(|item| hex(item.encoded())).collect());
        let leaving = Leaving { waiter, writes: items.len(), failed: None };
        self.mail.mailbox.leaving.insert(id.clone(), leaving);
        for item in items {
            self.put_item(now, item, Op::Leave { id: id.clone() });
        }
    }

    /// Notes that a message waits, and looks at the record from time to time.
    pub(super) fn wait_for(&mut self, now: Instant, letter: &Letter, devices: Vec<String>, items: Vec<String>) {
        let id = letter.id.to_string();
        let until = (letter.sent() + LIFE).secs();
        self.mail.archive.wait(Waits { id: id.clone(), to: letter.to.clone(), devices, items, until });
        self.mail.timers.set(Due::Poll(id), now + POLL_MIN);
    }

    fn items_of(&mut self, now: Instant, letter: &Letter, sealed: &[u8]) -> Vec<SignedEntry> {
        let unix = self.unix(now);
        let parts = sealed.chunks(PART).count() as u8;
        let mut items = Vec::new();
        for (part, bytes) in (0u8..).zip(sealed.chunks(PART)) {
            let sequence = self.mail.archive.next_sequence(unix);
            let Some(identity) = &self.identity else { return Vec::new() };
            let entry = Entry {
                kind: ITEM,
                aor: letter.to.clone(),
                device: identity.device_key(),
                sequence,
                issued: unix,
                lifetime: LIFE.as_secs() as u32,
                body: MailboxBody { id: letter.id, part, parts, bytes: bytes.to_vec() }.encode(),
            };
            match identity.sign_entry(entry) {
                Ok(item) => items.push(item),
                Err(_) => return Vec::new(),
            }
        }
        items
    }

    fn put_item(&mut self, now: Instant, entry: SignedEntry, op: Op) {
        let id = OpId(self.ring.next());
        self.ring.ops.insert(id, op);
        let key = entry.entry().resource_key();
        self.overlay_input(now, overlay::Input::Command(Command::Put { op: id, key, entry }));
    }

    /// A piece has been written, or not.
    pub(super) fn on_left(&mut self, now: Instant, id: String, result: &Result<(), PutError>) {
        let Some(leaving) = self.mail.mailbox.leaving.get_mut(&id) else { return };
        leaving.writes = leaving.writes.saturating_sub(1);
        if let Err(fault) = result {
            leaving.failed = Some(fault.to_string());
        }
        if leaving.writes > 0 {
            return;
        }
        let Some(leaving) = self.mail.mailbox.leaving.remove(&id) else { return };
        match (leaving.failed, leaving.waiter) {
            (None, Some(waiter)) => self.finish_sending(now, waiter, Outcome::Waits),
            (None, None) => {}
            (Some(why), waiter) => {
                self.count("messages that no mailbox took");
                self.mail.timers.cancel(&Due::Poll(id.clone()));
                if let Some(waits) = self.mail.archive.waits_no_more(&id) {
                    self.take_back(now, &waits);
                }
                if let Some(waiter) = waiter {
                    let why = format!("nobody is there, and the message could not be left: {why}");
                    self.finish_sending(now, waiter, Outcome::Failed(480, why));
                }
            }
        }
    }

    fn take_back(&mut self, now: Instant, waits: &Waits) {
        let unix = self.unix(now);
        for item in items(waits) {
            let Some(identity) = &self.identity else { return };
            let gone = Entry { body: Vec::new(), issued: unix, ..item.entry().clone() };
            if let Ok(gone) = identity.sign_entry(gone) {
                self.put_item(now, gone, Op::Mend);
            }
        }
    }

    fn poll_recipient(&mut self, now: Instant, id: String) {
        let Some(waits) = self.mail.archive.waits().iter().find(|w| w.id == id).cloned() else { return };
        if waits.until <= self.unix(now).secs() {
            self.mail.archive.waits_no_more(&id);
            self.mail.mailbox.backoff.remove(&id);
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
            entry.entry().kind == DEVICE
                && DeviceBody::decode(&entry.entry().body).is_ok_and(|body| body.acks.contains(&number))
        };
        let having: BTreeSet<_> = entries.iter().filter(has).map(|e| hex(&e.entry().device.0)).collect();
        let left: Vec<_> = waits.devices.iter().filter(|d| !having.contains(*d)).cloned().collect();
        if left.len() < waits.devices.len() {
            self.message_state(id, MessageState::Delivered, 200);
        }
        if left.is_empty() {
            self.mail.archive.waits_no_more(id);
            self.mail.mailbox.backoff.remove(id);
            self.mail.timers.cancel(&Due::Poll(id.to_owned()));
            return self.take_back(now, &waits);
        }
        // What the holders have lost is written again.
        let there = |item: &SignedEntry| entries.iter().any(|e| e.encoded() == item.encoded());
        for item in items(&waits).into_iter().filter(|item| !there(item)) {
            self.put_item(now, item, Op::Mend);
        }
        if left.len() < waits.devices.len()
            && let Some(waits) = self.mail.archive.waits_mut(id)
        {
            waits.devices = left;
        }
    }

    /// The record of an address that is served here: what waits is shown, each message once.
    pub(super) fn on_mailbox(&mut self, now: Instant, aor: &str, entries: &[SignedEntry]) {
        let Some((user, _)) = split_aor(aor) else { return };
        let user = user.to_owned();
        for (device, sealed) in whole_messages(entries) {
            if self.identity.as_ref().is_some_and(|i| i.device_key() == device) {
                continue; // Left by this device for the user's others.
            }
            let Ok((signed, sender)) = self.opened(now, &sealed) else {
                self.count("messages that do not open or whose sender is false");
                continue;
            };
            let (letter, unix) = (signed.letter().clone(), self.unix(now));
            if sender.device != device || letter.to != aor {
                self.count("messages that do not open or whose sender is false");
                continue;
            }
            let own = self.is_own(&user);
            if !own && !self.mail.archive.fits(&user, &letter) {
                continue; // It stays in the mailbox until the phone has taken some.
            }
            match self.mail.archive.admit(&letter, &sender.device, unix) {
                Admit::New => {
                    let verified = sender.user_key.to_string();
                    self.deliver(now, &user, &letter, true, verified, Waiter::Mailbox);
                    if own {
                        self.acknowledge(now, aor, &letter.id);
                    }
                }
                Admit::Repeated if !self.mail.archive.is_held(&letter.id) => self.acknowledge(now, aor, &letter.id),
                Admit::Repeated => {}
                Admit::Stale => self.count("messages out of their time"),
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

    /// Writes the device entries that are due; true when there was any.
    pub(super) fn write_devices(&mut self, now: Instant) -> bool {
        if self.ring.state() != ring::State::In {
            return false;
        }
        let mut busy = false;
        while let Some(write) = self.mail.mailbox.devices.poll(now) {
            busy = true;
            match self.device_entry(now, &write) {
                Some(entry) => self.put_item(now, entry, Op::Device(write)),
                None => self.mail.mailbox.devices.done(now, &write, false, None),
            }
        }
        busy
    }

    fn device_entry(&self, now: Instant, write: &Write) -> Option<SignedEntry> {
        let identity = self.identity.as_ref()?;
        let (me, unix) = (self.overlay.as_ref()?.me(), self.unix(now));
        let contact = ContactBody { peer_id: me.id, addrs: vec![me.addr], user_agent: self.setup.software.clone() };
        let body = DeviceBody { contact, acks: self.mail.archive.acks(&write.aor, unix) };
        let entry = Entry {
            kind: DEVICE,
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
}

/// The pieces of a message of ours.
fn items(waits: &Waits) -> Vec<SignedEntry> {
    waits.items.iter().filter_map(|text| SignedEntry::decode(&unhex(text)?).ok()).collect()
}

/// The sealed messages of which all pieces are there, each with the device that left it.
fn whole_messages(entries: &[SignedEntry]) -> Vec<(PublicKey, Vec<u8>)> {
    let mut pieces: BTreeMap<(PublicKey, LetterId), BTreeMap<u8, MailboxBody>> = BTreeMap::new();
    for entry in entries.iter().map(SignedEntry::entry).filter(|e| e.kind == ITEM) {
        let Ok(body) = MailboxBody::decode(&entry.body) else { continue };
        if usize::from(body.parts) <= PARTS {
            pieces.entry((entry.device, body.id)).or_default().insert(body.part, body);
        }
    }
    let whole = |parts: &BTreeMap<u8, MailboxBody>| parts.values().all(|p| usize::from(p.parts) == parts.len());
    let found = pieces.into_iter().filter(|(_, parts)| whole(parts));
    found.map(|((device, _), parts)| (device, parts.into_values().flat_map(|p| p.bytes).collect())).collect()
}
