//! An administrator's commands, and the book that the enrollers of an office share: each looks the others up, compares at the
//! start, after every change and each ten minutes, and says what the two do not have in common.

use super::Node;
use super::control::{CommandError, OfficeDevice, OfficeInvite, OfficeReport, OfficeUser, Reply, RequestId};
use super::exchange::{Answer, Asked};
use super::lookup::Op;
use super::ring::State;
use crate::core::{Flow, Instant};
use crate::identity::{
    Ask, BOOK_TYPE, BookAsk, Certificate, Claims, ContactBody, ENROLLERS, Enroller, IdentityError, KeyPair, OWNER_TYPE,
    OwnerAnswer, OwnerAsk, PublicKey, RecoverySheet, Revocation, RevokedKey, SignedEntry, canonical_user,
};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::time::Duration;

/// How often enrollers compare their books.
const COMPARE: Duration = Duration::from_secs(600);
/// How soon after a change.
const SOON: Duration = Duration::from_secs(1);
/// Rounds of one reconciliation.
const ROUNDS: u8 = 200;
/// Of these, without learning anything: what the other end does not take is not offered for ever.
const FRUITLESS: u8 = 8;
pub(super) const NOT_HERE: &str = "this device does not administer an office";
pub(super) const WHERE: &str = "ask on an administrator's device: the one that ran chordial office create";

/// The administrator's side of the node.
#[derive(Debug, Default)]
pub(super) struct Office {
    compare: Option<Instant>,
    /// The key that this device would be an enroller with.
    drawn: Option<KeyPair>,
}

/// A device that is to become an enroller.
#[derive(Debug)]
pub(super) struct Owner {
    pub request: RequestId,
    pub user: String,
    pub sheet: RecoverySheet,
    pub hop: Hop,
    /// The certificate was sent.
    pub signed: bool,
}

/// As much of a name as a revocation takes.
fn shortened(mut name: String) -> String {
    while name.len() > 64 {
        name.pop();
    }
    name
}

impl Node {
    pub(super) fn begin_office(&mut self, now: Instant) {
        self.begin_certifying(now);
        let unix = self.unix(now);
        let revoked = self.people.revoked.clone();
        let Some(identity) = self.identity.as_mut().filter(|i| i.enroller.is_some()) else { return };
        if let Some(enroller) = identity.enroller.as_mut() {
            enroller.revoke(revoked);
        }
        match identity.announce_enroller(unix) {
            Ok(true) => self.save_identity(),
            Ok(false) => {}
            Err(fault) => tracing::warn!(%fault, "members will not find this administrator's device"),
        }
        let aor = self.domain.aor(ENROLLERS);
        self.publisher.want(now, unix, &aor, true);
        self.office.compare = Some(now + SOON);
    }

    pub(super) fn next_office_timeout(&self) -> Option<Instant> {
        self.office.compare.filter(|_| self.ring.state() == State::In && self.stopping.is_none())
    }

    pub(super) fn office_timeout(&mut self, now: Instant) {
        if self.next_office_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.office.compare = Some(now + COMPARE);
        let aor = self.domain.aor(ENROLLERS);
        self.lookup_people(now, Op::Books, &aor);
    }

    /// The book has changed: the other enrollers hear it soon.
    pub(super) fn book_changed(&mut self, now: Instant) {
        if self.office.compare.is_some() {
            self.office.compare = Some(now + SOON);
        }
    }

    /// The other enrollers were looked up.
    pub(super) fn on_books(&mut self, now: Instant, entries: &[SignedEntry]) {
        for peer in self.enroller_peers(entries) {
            let Some(ask) = self.enroller().map(|e| Ask::new(&e.book().reconciled(), Vec::new())) else { return };
            self.ask_book(now, &Hop::Peer { id: peer.id, addr: peer.addr }, 0, ask);
        }
    }

    fn ask_book(&mut self, now: Instant, to: &Hop, rounds: u8, ask: Ask) {
        let Some(proof) = self.identity.as_ref().and_then(|i| i.enroller_proof()) else { return };
        let body = BookAsk::new(proof, ask).encode();
        self.exchange(now, to, BOOK_TYPE, body, Asked::Book { to: to.clone(), rounds });
    }

    pub(super) fn on_book_answered(&mut self, now: Instant, to: &Hop, rounds: u8, answer: &Answer) {
        let (200, Ok(reply)) = (answer.status, crate::identity::Reply::decode(&answer.body)) else { return };
        let learned = self.learn(now, &reply.items);
        let Some(book) = self.enroller().map(|e| e.book().reconciled()) else { return };
        if let Some(next) = reply.next(&book).filter(|_| rounds < FRUITLESS || learned && rounds < ROUNDS) {
            self.ask_book(now, to, rounds + 1, next);
        }
    }

    /// Another enroller compares its book with this one's.
    pub(super) fn on_book(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let unix = self.unix(now);
        let (Some(peer), Ok(asked)) = (self.flows.peer(&flow).cloned(), BookAsk::decode(message.body())) else {
            return self.answer(now, tx, message, 400, "Bad question about the book");
        };
        let anchor = self.identity.as_ref().filter(|i| i.enroller.is_some()).map(|i| i.anchor.clone());
        let right = anchor.is_some_and(|a| asked.verify(peer.device, &a, &self.people.revoked, unix).is_ok());
        if !right {
            self.count("questions about the book refused");
            return self.answer(now, tx, message, 403, "The book is for enrollers");
        }
        self.learn(now, &asked.ask.items);
        let Some(book) = self.enroller().map(|e| e.book().reconciled()) else { return };
        let body = asked.ask.answer(&book).encode();
        self.answer_exchange(now, tx, message, BOOK_TYPE, body);
    }

    /// True when any page was news.
    fn learn(&mut self, now: Instant, pages: &[Vec<u8>]) -> bool {
        let unix = self.unix(now);
        let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut()) else { return false };
        let (mut news, before) = (false, enroller.conflicts());
        for page in pages {
            match enroller.learn(page, unix) {
                Ok(new) => news |= new,
                Err(fault) => {
                    tracing::warn!(%fault, "a page of another enroller's book does not hold");
                    break;
                }
            }
        }
        let conflicts = enroller.conflicts();
        for name in conflicts.iter().filter(|name| !before.contains(name)) {
            tracing::warn!(%name, "two administrators gave out one name; see chordial office users");
        }
        if news {
            self.save_identity();
            self.book_changed(now);
        }
        news
    }

    pub(super) fn enroller(&self) -> Option<&Enroller> {
        self.identity.as_ref().and_then(|i| i.enroller.as_ref())
    }

    /// Who is in the office.
    pub(super) fn office_users(&self, now: Instant) -> Result<Reply, CommandError> {
        let enroller = self.enroller().ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        let (book, revoked) = (enroller.book(), &self.people.revoked);
        let mut office = OfficeReport { office: self.domain.overlay().to_owned(), ..OfficeReport::default() };
        let device = |key: &PublicKey, user: Option<PublicKey>| OfficeDevice {
            key: key.to_string(),
            label: book.device(key).map(|d| d.label().to_owned()).unwrap_or_default(),
            peer_id: book.device(key).map(|d| d.peer_id().to_string()).unwrap_or_default(),
            revoked: revoked.is_device(&user.unwrap_or(*key), key),
            may_adapt: enroller.is_allowed(key),
        };
        for certificate in book.users() {
            let Claims::User(names) = &certificate.claims else { continue };
            let key = certificate.subject;
            let own = book.devices().filter(|(_, d)| d.user() == Some(key));
            office.users.push(OfficeUser {
                user: names.first().cloned().unwrap_or_default(),
                extensions: names.get(1..).unwrap_or_default().to_vec(),
                key: key.to_string(),
                revoked: revoked.is_user(&key),
                enrolled_by: certificate.issuer.to_string(),
                devices: own.map(|(device_key, _)| device(device_key, Some(key))).collect(),
            });
        }
        office.users.sort_by(|a, b| (&a.user, &a.key).cmp(&(&b.user, &b.key)));
        office.other_devices =
            book.devices().filter(|(_, d)| d.user().is_none()).map(|(k, _)| device(k, None)).collect();
        for (key, names) in book.adapters() {
            office.delegations.extend(names.iter().filter(|n| *n != ENROLLERS).map(|n| (n.clone(), key.to_string())));
        }
        office.delegations.sort();
        let unix = self.unix(now);
        office.invites = enroller
            .invited(unix)
            .map(|(names, until)| OfficeInvite {
                user: names.first().cloned().unwrap_or_default(),
                expires: until.secs().saturating_sub(unix.secs()),
            })
            .collect();
        office.conflicts = enroller.conflicts();
        office.administrators = book.enrollers().map(|c| c.subject.to_string()).collect();
        Ok(Reply::Office(Box::new(office)))
    }

    /// Revokes a user by name or key, a device by key or as `USER/LABEL`.
    pub(super) fn office_revoke(&mut self, now: Instant, target: &str) -> Result<Reply, CommandError> {
        let (what, key, name) = self.revocable(target)?;
        let own = self.identity.as_ref().is_some_and(|i| i.device_key() == key || i.chain.user_key() == Some(key));
        if own {
            let what = format!("{target} is this device's own");
            return Err(CommandError::new(what, "do it on another administrator's device"));
        }
        if self.is_enrollers_device(&key) {
            let what = format!("{target} is an administrator's device, which the root alone revokes");
            let next = format!("have the recovery sheet ready: chordial office revoke {target} --by-root");
            return Err(CommandError::new(what, next));
        }
        let unix = self.unix(now);
        let identity = self.identity.as_ref().ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        let signed = Revocation::sign(identity, what, key, &name, unix);
        let revocation = signed.map_err(|_| CommandError::new(NOT_HERE, WHERE))?;
        if !self.revoke(now, revocation) {
            return Err(CommandError::new("too many keys are revoked already", "found a new office"));
        }
        self.save_identity();
        let kind = if what == RevokedKey::User { "user" } else { "device" };
        Ok(Reply::Done { done: format!("the {kind} {name} ({key}) is revoked") })
    }

    fn revocable(&self, target: &str) -> Result<(RevokedKey, PublicKey, String), CommandError> {
        let enroller = self.enroller().ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        let (book, revoked) = (enroller.book(), &self.people.revoked);
        let first = |c: &Certificate| match &c.claims {
            Claims::User(names) => names.first().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let mut found: Vec<(RevokedKey, PublicKey, String)> = Vec::new();
        for user in book.users().filter(|c| !revoked.is_user(&c.subject)) {
            let name = first(user);
            if canonical_user(target).is_ok_and(|t| t == name) || user.subject.to_string() == target {
                found.push((RevokedKey::User, user.subject, name));
            }
        }
        for (key, device) in book.devices() {
            let user = device.user();
            let owner = user.and_then(|u| book.user(&u)).map(first).unwrap_or_default();
            let called = format!("{owner}/{}", device.label());
            let done = revoked.is_device(&user.unwrap_or(*key), key);
            if !done && (key.to_string() == target || !device.label().is_empty() && called == target) {
                found.push((RevokedKey::Device, *key, shortened(called)));
            }
        }
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => {
                let what = format!("the office knows no user or device {target} that counts");
                Err(CommandError::new(what, "see chordial office users for names and keys"))
            }
            several => {
                let keys: Vec<_> = several.iter().map(|(_, key, _)| key.to_string()).collect();
                let what = format!("{target} is {} keys: {}", several.len(), keys.join(", "));
                Err(CommandError::new(what, "name one by its key"))
            }
        }
    }

    /// Lets a member's device take phones of any name upon itself, or no longer.
    pub(super) fn office_adapters(&mut self, device: &str, allow: bool) -> Result<Reply, CommandError> {
        let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut()) else {
            return Err(CommandError::new(NOT_HERE, WHERE));
        };
        let known: Vec<_> = enroller.book().devices().map(|(k, _)| *k).filter(|k| k.to_string() == device).collect();
        let &[key] = known.as_slice() else {
            let what = format!("the office knows no device {device}");
            return Err(CommandError::new(what, "see chordial office users for the keys of devices"));
        };
        if !enroller.allow_adapter(key, allow) {
            return Err(CommandError::new("too many devices are allowed", "forbid one that is not needed"));
        }
        self.save_identity();
        let may = if allow { "may" } else { "may no longer" };
        Ok(Reply::Done { done: format!("{device} {may} take phones upon itself") })
    }

    /// Makes a device of `user` an enroller, by the root on the recovery sheet.
    pub(super) fn owner_add(&mut self, now: Instant, request: RequestId, user: &str, sheet: &str) {
        let answer = |what: String, next: &str| Err(CommandError::new(what, next));
        let sheet = match self.read_sheet(sheet) {
            Ok(sheet) => sheet,
            Err(error) => return self.reply(request, Err(error)),
        };
        match canonical_user(user) {
            Ok(user) if self.ring.state() == State::In => {
                let aor = self.domain.aor(&user);
                let op = Op::Owner { request, user, sheet: Box::new(sheet) };
                self.lookup_people(now, op, &aor);
            }
            Ok(_) => self.reply(request, answer("this device is in no ring yet".into(), "try again in a moment")),
            Err(fault) => self.reply(request, answer(fault.to_string(), "see chordial office users")),
        }
    }

    /// The devices of who is to become an owner were looked up.
    pub(super) fn on_owner_found(
        &mut self,
        now: Instant,
        request: RequestId,
        user: String,
        sheet: RecoverySheet,
        entries: &[SignedEntry],
    ) {
        let unix = self.unix(now);
        let anchor = self.identity.as_ref().map(|i| i.anchor.clone());
        let own = self.identity.as_ref().map(|i| i.device_key());
        // Only a device of that very user, at its own place: an entry may name any.
        let place = entries.iter().filter(|e| Some(e.entry().device) != own).find_map(|entry| {
            let body = ContactBody::decode(&entry.entry().body).ok()?;
            let who = anchor.as_ref()?.verify_chain(entry.chain(), unix).ok()?;
            let right = who.user == user && who.has_place && who.peer_id == body.peer_id;
            right.then_some(Hop::Peer { id: body.peer_id, addr: *body.addrs.first()? })
        });
        let Some(hop) = place else {
            let what = format!("no device of {user} can be reached");
            let error = CommandError::new(what, "start chordial there, and try again");
            return self.reply(request, Err(error));
        };
        let owner = Owner { request, user, sheet, hop: hop.clone(), signed: false };
        self.exchange(now, &hop, OWNER_TYPE, OwnerAsk::Draw.encode(), Asked::Owner(Box::new(owner)));
    }

    pub(super) fn on_owner_answered(&mut self, now: Instant, mut owner: Owner, answer: &Answer) {
        let unix = self.unix(now);
        match (OwnerAnswer::decode(&answer.body), owner.signed) {
            (Ok(OwnerAnswer::Drawn(key)), false) => match owner.sheet.sign_enroller(key, unix) {
                Ok(certificate) => {
                    owner.signed = true;
                    let (body, hop) = (OwnerAsk::Be(Box::new(certificate)).encode(), owner.hop.clone());
                    self.exchange(now, &hop, OWNER_TYPE, body, Asked::Owner(Box::new(owner)));
                }
                Err(fault) => {
                    let error = CommandError::new(format!("not signed: {fault}"), "see the cause and try again");
                    self.reply(owner.request, Err(error));
                }
            },
            (Ok(OwnerAnswer::Done), true) => {
                self.book_changed(now);
                let done = format!("{} administers the office {} too", owner.user, self.domain.overlay());
                self.reply(owner.request, Ok(Reply::Done { done }));
            }
            _ => {
                let what = format!("{}'s device does not take it ({})", owner.user, answer.status);
                self.reply(owner.request, Err(CommandError::new(what, "see that it runs, and try again")));
            }
        }
    }

    /// This device is to become an enroller.
    pub(super) fn on_owner(&mut self, now: Instant, tx: ServerTxId, message: &Message) {
        let unix = self.unix(now);
        let answer = match OwnerAsk::decode(message.body()) {
            Ok(OwnerAsk::Draw) => {
                let key = self.office.drawn.get_or_insert_with(|| KeyPair::generate(&mut self.rng)).public();
                Ok(OwnerAnswer::Drawn(key))
            }
            Ok(OwnerAsk::Be(certificate)) => {
                let known = self.enroller().is_some_and(|e| e.certificate().subject == certificate.subject);
                match (known, self.office.drawn.clone(), self.identity.as_mut()) {
                    (true, _, _) => Ok(OwnerAnswer::Done), // The answer was lost, and it is asked again.
                    (false, Some(key), Some(identity)) if identity.enroller.is_none() => {
                        identity.become_enroller(key, *certificate, unix).map(|()| OwnerAnswer::Done)
                    }
                    _ => Err(IdentityError::NotOurs),
                }
            }
            Err(fault) => Err(fault),
        };
        match answer {
            Ok(answer) => {
                if answer == OwnerAnswer::Done {
                    self.save_identity();
                    self.begin_office(now);
                }
                self.answer_exchange(now, tx, message, OWNER_TYPE, answer.encode());
            }
            Err(fault) => {
                self.count("enrollers' certificates refused");
                tracing::warn!(%fault, "an enroller's certificate is not taken");
                self.answer(now, tx, message, 403, "Refused");
            }
        }
    }
}
