//! Contacts, the same on all devices of the user ([`crate::identity::Settings`]): kept on this device, sealed to the user's key in
//! the overlay, read again every few minutes and before they are shown.
//!
//! A device writes a part when it knows something that no device of the user has published. A device without the user's
//! key, and a plain SIP phone, keeps its contacts for itself.

use super::control::{CommandError, Contact, Reply, RequestId};
use super::lookup::Op;
use super::ring::State;
use super::{Node, Output, Saved};
use crate::core::Instant;
use crate::identity::{Entry, EntryKind, SETTINGS, SETTINGS_PARTS, Settings, SignedEntry, resource_key, settings_aor};
use crate::overlay::{self, Mode, OpId, PutError};
use bytes::Bytes;
use std::time::Duration;

/// From one reading to the next; up to a quarter more.
const ROUND: Duration = Duration::from_secs(600);
/// The same after a part could not be read or written.
const AGAIN: Duration = Duration::from_secs(30);
/// How long whoever wants to see the contacts waits for the overlay.
const PATIENCE: Duration = Duration::from_secs(3);
/// An own entry this old is written again, though it has long to live.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);
/// In front of a contact's name.
const CONTACT: &str = "contact/";
/// Longest name of a contact, characters.
const NAME: usize = 64;

/// What is done with which part.
#[derive(Debug, Clone, Copy)]
pub(super) enum SettingsOp {
    Read(usize),
    Write(usize),
}

/// This device's settings, and what it is doing to keep them the same as the others'.
#[derive(Debug, Default)]
pub(super) struct Synced {
    settings: Settings,
    sequence: [u64; SETTINGS_PARTS],
    reading: [bool; SETTINGS_PARTS],
    writing: [bool; SETTINGS_PARTS],
    round: Option<Instant>,
    /// Who waits to see the contacts, and until when at most.
    asked: Vec<RequestId>,
    until: Option<Instant>,
}

impl Synced {
    /// From the file of the last time.
    pub fn new(file: Option<&[u8]>) -> Synced {
        let settings = file.map_or(Ok(Settings::default()), Settings::from_bytes);
        if let Err(fault) = &settings {
            tracing::warn!(%fault, "the contacts of this device cannot be read; those of the other devices will come");
        }
        Synced { settings: settings.unwrap_or_default(), ..Synced::default() }
    }

    /// The file.
    pub fn file(&self) -> Vec<u8> {
        self.settings.to_bytes().to_vec()
    }

    pub fn next(&self) -> Option<Instant> {
        [self.round, self.until].into_iter().flatten().min()
    }
}

impl Node {
    pub(super) fn settings_joined(&mut self, now: Instant) {
        let soon = now + Duration::from_millis(500 + self.rng.below(1500));
        self.settings.round = Some(self.settings.round.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn settings_timeout(&mut self, now: Instant) {
        if self.settings.until.is_some_and(|at| at <= now) {
            self.show_contacts();
        }
        if self.settings.round.is_some_and(|at| at <= now) {
            let round = if self.attach.via.is_empty() { ROUND } else { ROUND * 6 };
            self.settings.round = Some(now + round + round.mul_f64(self.rng.unit() / 4.0));
            self.read_settings(now);
        }
    }

    /// All contacts: names and targets.
    pub(super) fn contacts_kept(&self) -> Vec<(String, String)> {
        let all = self.settings.settings.under(CONTACT);
        all.map(|(name, target)| (name.to_owned(), target.to_owned())).collect()
    }

    /// What `name` stands for.
    pub(super) fn contact(&self, name: &str) -> Option<&str> {
        let contacts = self.settings.settings.under(CONTACT);
        contacts.into_iter().find(|(known, _)| same(known, name)).map(|(_, target)| target)
    }

    /// What all names stand for.
    pub(super) fn contact_targets(&self) -> Vec<&str> {
        self.settings.settings.under(CONTACT).map(|(_, target)| target).collect()
    }

    pub(super) fn contact_add(&mut self, now: Instant, name: &str, target: &str) -> Result<Reply, CommandError> {
        let (name, target) = (name.trim(), target.trim());
        let plain = |c: char| !c.is_control() && !"@:<>\"".contains(c);
        if name.is_empty() || name.chars().count() > NAME || !name.chars().all(plain) {
            let what = format!("\"{name}\" is no name for a contact");
            return Err(CommandError::new(what, "take 1 to 64 characters without @ : < > and quotes"));
        }
        // What it stands for has to be something that can be called, and not another contact.
        match self.contact(target) {
            Some(other) if other != target => {
                return Err(CommandError::new(format!("{target} is itself a contact"), "give its address"));
            }
            _ => drop(self.callee(target)?),
        }
        if let Some(other) = self.strangers.known.contact(name) {
            let what = format!("{name} is {} of another overlay already", other.aor);
            return Err(CommandError::new(what, "take another name, or chordial contacts forget NAME first"));
        }
        for other in self.spellings(name) {
            self.change(now, &other, None)?;
        }
        self.change(now, name, Some(target))?;
        Ok(Reply::Done { done: format!("{name} is {target}") })
    }

    pub(super) fn contact_remove(&mut self, now: Instant, name: &str) -> Result<Reply, CommandError> {
        let spellings = self.spellings(name.trim());
        if self.strangers.known.contact(name.trim()).is_some() {
            let what = format!("{} is a contact of another overlay", name.trim());
            return Err(CommandError::new(what, "chordial contacts forget NAME drops it and its key"));
        }
        if spellings.is_empty() {
            let what = format!("there is no contact {}", name.trim());
            return Err(CommandError::new(what, "see chordial contacts list"));
        }
        for known in spellings {
            self.change(now, &known, None)?;
        }
        Ok(Reply::Done { done: format!("removed {}", name.trim()) })
    }

    /// Shows what all devices have, as far as the overlay answers in time.
    pub(super) fn contact_list(&mut self, now: Instant, request: RequestId) {
        self.settings.asked.push(request);
        if self.read_settings(now) {
            self.settings.until.get_or_insert(now + PATIENCE);
        } else {
            self.show_contacts();
        }
    }

    fn show_contacts(&mut self) {
        self.settings.until = None;
        let contact = |(name, target): (&str, &str)| Contact { name: name.into(), target: target.into() };
        let mut contacts: Vec<_> = self.settings.settings.under(CONTACT).map(contact).collect();
        let abroad = self.strangers.known.contacts().iter().filter(|c| !c.name.is_empty());
        contacts.extend(abroad.map(|c| Contact { name: c.name.clone(), target: c.aor.clone() }));
        contacts.sort_by_key(|c| c.name.to_lowercase());
        for request in std::mem::take(&mut self.settings.asked) {
            self.reply(request, Ok(Reply::Contacts { contacts: contacts.clone() }));
        }
    }

    /// The names that are this one in some case.
    fn spellings(&self, name: &str) -> Vec<String> {
        let contacts = self.settings.settings.under(CONTACT);
        contacts.filter(|(known, _)| same(known, name)).map(|(known, _)| known.to_owned()).collect()
    }

    pub(super) fn change(&mut self, now: Instant, name: &str, target: Option<&str>) -> Result<(), CommandError> {
        let unix = self.unix(now);
        let writer = self.identity.as_ref().map(|i| i.device_key().fingerprint()).unwrap_or_default();
        let set = self.settings.settings.set(&format!("{CONTACT}{name}"), target, writer, unix);
        let part = set.map_err(|_| {
            CommandError::new(format!("there is no room for {name}"), "remove a contact that is not needed any more")
        })?;
        self.save_settings();
        self.write_settings(now, part);
        Ok(())
    }

    fn save_settings(&mut self) {
        let bytes = Bytes::copy_from_slice(&self.settings.settings.to_bytes());
        self.out.push_back(Output::Save { what: Saved::Settings, bytes });
    }

    /// The place of a part, where this device shares its settings with others.
    fn settings_place(&self, part: usize) -> Option<String> {
        let identity = self.identity.as_ref().filter(|i| i.user_key.is_some())?;
        let in_ring = self.ring.state() == State::In && self.stopping.is_none();
        in_ring.then(|| settings_aor(identity.user(), identity.overlay(), part))
    }

    /// Begins to read all parts; false when this device has nobody to read from.
    fn read_settings(&mut self, now: Instant) -> bool {
        for part in 0..SETTINGS_PARTS {
            let Some(aor) = self.settings_place(part) else { return false };
            if !std::mem::replace(&mut self.settings.reading[part], true) {
                self.begin_op(now, Op::Settings(SettingsOp::Read(part)), &aor, Mode::Auto);
            }
        }
        true
    }

    /// A part was read; `None` when that failed.
    pub(super) fn on_settings_read(&mut self, now: Instant, op: SettingsOp, entries: Option<&[SignedEntry]>) {
        let (SettingsOp::Read(part) | SettingsOp::Write(part)) = op;
        self.settings.reading[part] = false;
        let unix = self.unix(now);
        if let (Some(entries), Some(identity), Some(aor)) = (entries, &self.identity, self.settings_place(part))
            && let Some(key) = &identity.user_key
        {
            let (mut published, mut fresh, mut news) = (Settings::default(), false, false);
            for entry in entries.iter().map(SignedEntry::entry).filter(|e| e.kind == SETTINGS) {
                if entry.device == identity.device_key() {
                    self.settings.sequence[part] = self.settings.sequence[part].max(entry.sequence);
                }
                let Some(theirs) = Settings::open(&entry.body, &aor, key) else { continue };
                fresh |= unix < entry.issued + OLD;
                published.merge(part, &theirs, unix);
                news |= self.settings.settings.merge(part, &theirs, unix);
            }
            if news {
                self.save_settings();
            }
            let own = &self.settings.settings;
            if own.is_ahead_of(&published, part) || (!fresh && !own.is_empty_in(part)) {
                self.write_settings(now, part);
            }
        } else if entries.is_none() {
            self.settings.round = self.settings.round.map(|at| at.min(now + AGAIN));
        }
        if !self.settings.asked.is_empty() && !self.settings.reading.contains(&true) {
            self.show_contacts();
        }
    }

    fn write_settings(&mut self, now: Instant, part: usize) {
        let Some(aor) = self.settings_place(part) else { return };
        if std::mem::replace(&mut self.settings.writing[part], true) {
            return; // What is under way is read again when it is done.
        }
        let unix = self.unix(now);
        let sequence = &mut self.settings.sequence[part];
        *sequence = (*sequence + 1).max(unix.secs() * 1000);
        let Some(identity) = &self.identity else { return };
        let Some(key) = &identity.user_key else { return };
        let body = self.settings.settings.seal(part, &aor, key, &mut self.rng);
        let entry = body.and_then(|body| {
            identity.sign_entry(Entry {
                kind: SETTINGS,
                aor: aor.clone(),
                device: identity.device_key(),
                sequence: *sequence,
                issued: unix,
                lifetime: EntryKind::SETTINGS.rules().longest.as_secs() as u32,
                body,
            })
        });
        match entry {
            Ok(entry) => {
                let op = OpId(self.ring.next());
                self.ring.ops.insert(op, Op::Settings(SettingsOp::Write(part)));
                let key = resource_key(&aor);
                self.overlay_input(now, overlay::Input::Command(overlay::Command::Put { op, key, entry }));
            }
            Err(fault) => {
                self.settings.writing[part] = false;
                tracing::warn!(%fault, "contacts are not written for the other devices");
            }
        }
    }

    pub(super) fn on_settings_written(&mut self, now: Instant, op: SettingsOp, result: &Result<(), PutError>) {
        let (SettingsOp::Read(part) | SettingsOp::Write(part)) = op;
        self.settings.writing[part] = false;
        let soon = match result {
            // Something may have been changed meanwhile: the next reading tells.
            Ok(()) => return self.settings.round = self.settings.round.map(|at| at.min(now + AGAIN * 2)),
            Err(PutError::Stale(held) | PutError::Conflict(held)) => {
                let sequence = &mut self.settings.sequence[part];
                *sequence = (*sequence).max(held.entry().sequence);
                now
            }
            Err(fault) => {
                tracing::debug!(%fault, "contacts were not written for the other devices");
                now + AGAIN
            }
        };
        self.settings.round = Some(self.settings.round.map_or(soon, |at| at.min(soon)));
    }
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.trim().to_lowercase()
}
