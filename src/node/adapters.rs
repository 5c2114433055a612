//! A standard phone with two or three adapters: an administrator's device that holds the account gives its digest secret, sealed, and a
//! delegation to a member's device, which then registers the phone and is called for it like the first. When one of them dies, the phone
//! registers with another (most phones take a second registrar) and is called there.
//!
//! Whom the account is shared with stands in `phones.toml`. A new password is told to all, a removed account is taken back; who
//! cannot be reached is told each minute until it answers.

use super::Node;
use super::control::{CommandError, Reply, RequestId};
use super::exchange::{Answer, Asked};
use super::lookup::Op;
use super::office::{NOT_HERE, WHERE};
use super::ring::State;
use crate::core::{Flow, Instant, Redacted};
use crate::identity::{
    ContactBody, EntryKind, IdentityError, MAX_SHARED, PHONE_TYPE, PhoneShare, PhoneWord, PublicKey, SignedEntry,
    canonical_user,
};
use crate::pbx::{Account, Share};
use crate::sip::auth::Ha1;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::time::Duration;

/// How often those are told who could not be reached.
const AGAIN: Duration = Duration::from_secs(60);
/// Most told at once.
const AT_ONCE: usize = 32;

/// A device that is told something about a phone.
#[derive(Debug, Clone)]
pub(super) struct Sharing {
    /// Who asked, when a person did.
    pub request: Option<RequestId>,
    pub share: Share,
}

impl Node {
    pub(super) fn next_sharing(&self) -> Option<Instant> {
        let waits = self.registrar.accounts().shares().waiting().next().is_some();
        self.sharing_due.filter(|_| waits && self.ring.state() == State::In && self.stopping.is_none())
    }

    pub(super) fn sharing_timeout(&mut self, now: Instant) {
        if self.next_sharing().is_none_or(|at| at > now) {
            return;
        }
        self.sharing_due = Some(now + AGAIN);
        let waiting: Vec<Share> = self.registrar.accounts().shares().waiting().take(AT_ONCE).cloned().collect();
        for share in waiting {
            self.tell_adapter(now, Sharing { request: None, share });
        }
    }

    /// Something is to be told, soon.
    pub(super) fn share_soon(&mut self, now: Instant) {
        self.sharing_due = Some(now);
    }

    /// `phone adapter add`: `member` is a user name, or `USER/KEY` with the fingerprint of one of several devices.
    pub(super) fn phone_share(&mut self, now: Instant, request: RequestId, user: &str, member: &str) {
        let share = match self.sharable(user, member) {
            Ok(share) => share,
            Err(error) => return self.reply(request, Err(error)),
        };
        self.tell_adapter(now, Sharing { request: Some(request), share });
    }

    fn sharable(&self, user: &str, member: &str) -> Result<Share, CommandError> {
        if self.enroller().is_none() {
            return Err(CommandError::new(NOT_HERE, WHERE));
        }
        if self.registrar.accounts().get(user).is_none() {
            let what = format!("there is no account {user} on this device");
            return Err(CommandError::new(what, "make it here with chordial phone add, then share it"));
        }
        if self.registrar.accounts().shares().of(user).count() >= MAX_SHARED {
            let what = format!("{user} has {} adapters already", MAX_SHARED + 1);
            return Err(CommandError::new(what, "take one back with chordial phone adapter remove"));
        }
        if self.ring.state() != State::In {
            return Err(CommandError::new("this device is in no ring yet", "try again in a moment"));
        }
        let (name, device) = member.split_once('/').unwrap_or((member, ""));
        let name = canonical_user(name)
            .map_err(|fault| CommandError::new(format!("{name}: {fault}"), "see chordial office users"))?;
        Ok(Share { user: user.into(), member: name, device: device.into(), taken: false, done: false })
    }

    fn tell_adapter(&mut self, now: Instant, sharing: Sharing) {
        let aor = self.domain.aor(&sharing.share.member);
        self.lookup_people(now, Op::Share(Box::new(sharing)), &aor);
    }

    /// The devices of the member were looked up.
    pub(super) fn on_adapter_found(&mut self, now: Instant, mut sharing: Sharing, entries: &[SignedEntry]) {
        let unix = self.unix(now);
        let Some((anchor, own)) = self.identity.as_ref().map(|i| (i.anchor.clone(), i.device_key())) else { return };
        let place = |entry: &SignedEntry| {
            let body = ContactBody::decode(&entry.entry().body).ok()?;
            let who = anchor.verify_chain(entry.chain(), unix).ok()?;
            let right = who.user == sharing.share.member && who.has_place && who.peer_id == body.peer_id;
            let hop = Hop::Peer { id: body.peer_id, addr: *body.addrs.first()? };
            right.then_some((who.device, hop))
        };
        let contacts = entries.iter().filter(|e| e.entry().kind == EntryKind::Contact && e.entry().device != own);
        let meant = |(device, _): &(PublicKey, Hop)| {
            sharing.share.device.is_empty() || device.to_string() == sharing.share.device
        };
        let found: Vec<_> = contacts.filter_map(place).filter(meant).collect();
        let (device, hop) = match found.as_slice() {
            [one] => one.clone(),
            [] => {
                let what = format!("no other device of {} can be reached", sharing.share.member);
                return self.not_shared(sharing, what, "start chordial there, and try again");
            }
            several => {
                let keys: Vec<_> = several.iter().map(|(key, _)| format!("{}/{key}", sharing.share.member)).collect();
                let what = format!("{} has several devices: {}", sharing.share.member, keys.join(", "));
                return self.not_shared(sharing, what, "name one of them like this");
            }
        };
        sharing.share.device = device.to_string();
        let body = match self.word_for(now, device, &sharing.share) {
            Ok(share) => share.encode(),
            Err(fault) => return self.not_shared(sharing, format!("not signed: {fault}"), "see the cause"),
        };
        // A delegation was made: it is in the book, and the row is there to take the secret back by, before anything is sent.
        self.registrar.accounts_mut().shares_mut().set(Share { done: false, ..sharing.share.clone() });
        self.save_phones();
        self.save_identity();
        self.book_changed(now);
        self.exchange(now, &hop, PHONE_TYPE, body, Asked::Share(Box::new(sharing)));
    }

    fn word_for(&mut self, now: Instant, device: PublicKey, share: &Share) -> Result<PhoneShare, IdentityError> {
        let unix = self.unix(now);
        let account = self.registrar.accounts().get(&share.user).cloned();
        let identity = self.identity.as_mut().ok_or(IdentityError::NotOurs)?;
        match account.filter(|_| !share.taken) {
            Some(Account { user, label, ha1 }) => {
                let secret = Redacted::new((ha1.md5, ha1.sha256));
                PhoneShare::hold(identity, device, (&user, &label), &secret, unix, &mut self.rng)
            }
            None => PhoneShare::forget(identity, device, &share.user, unix, &mut self.rng),
        }
    }

    /// The device answered, or could not be asked.
    pub(super) fn on_shared(&mut self, now: Instant, sharing: Sharing, answer: &Answer) {
        if answer.status != 200 {
            let what = format!("{}'s device does not take it ({})", sharing.share.member, answer.status);
            if sharing.request.is_some() && answer.status == 403 {
                let (user, device) = (&sharing.share.user, &sharing.share.device);
                self.registrar.accounts_mut().shares_mut().remove(user, device);
                self.save_phones();
                return self.not_shared(sharing, what, "see that its clock is right");
            }
            self.sharing_due = self.sharing_due.map(|at| at.max(now + AGAIN));
            return self.not_shared(sharing, what, "it is told again each minute, until phone adapter remove");
        }
        let Share { user, member, device, taken, .. } = sharing.share.clone();
        self.registrar.accounts_mut().shares_mut().done(&user, &device, taken);
        self.save_phones();
        if let Some(request) = sharing.request {
            let done = format!("{user} may register at {member}'s device {device} too");
            self.reply(request, Ok(Reply::Done { done }));
        }
    }

    fn not_shared(&mut self, sharing: Sharing, what: String, next: &str) {
        match sharing.request {
            Some(request) => self.reply(request, Err(CommandError::new(what, next))),
            None => tracing::info!(%what, phone = %sharing.share.user, "an adapter is told again later"),
        }
    }

    /// `phone adapter remove`: the device is to forget the phone.
    pub(super) fn phone_unshare(&mut self, now: Instant, user: &str, device: &str) -> Result<Reply, CommandError> {
        let device = device.rsplit('/').next().unwrap_or(device);
        let shares = self.registrar.accounts_mut().shares_mut();
        let named: Vec<String> =
            shares.of(user).filter(|s| s.device == device || s.member == device).map(|s| s.device.clone()).collect();
        let [device] = named.as_slice() else {
            let what = format!("{user} has no further adapter {device}, or several of that member's");
            return Err(CommandError::new(what, "see chordial phone list"));
        };
        shares.take_back(user, Some(device));
        self.save_phones();
        self.share_soon(now);
        Ok(Reply::Done { done: format!("{device} is to forget {user}, as soon as it can be reached") })
    }

    /// An enroller tells this device to serve a phone, or to forget it.
    pub(super) fn on_phone_word(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let unix = self.unix(now);
        let Some(identity) = self.identity.as_mut().filter(|_| self.flows.peer(&flow).is_some()) else { return };
        let word = PhoneShare::decode(message.body()).and_then(|s| s.open(identity, &self.people.revoked, unix));
        let taken = word.and_then(|word| match word {
            PhoneWord::Hold { user, label, secret, delegation } => {
                let (md5, sha256) = *secret.reveal();
                identity.add_adapter(delegation.0, &delegation.1, unix)?;
                let account = Account { user: user.clone(), label, ha1: Ha1 { md5, sha256 } };
                let added = self.registrar.accounts_mut().insert(account);
                added.map_err(|_| IdentityError::UserName).map(|()| (user, true))
            }
            PhoneWord::Forget { user } => {
                identity.drop_adapter(&user);
                Ok((user, false))
            }
        });
        match taken {
            Ok((user, held)) => {
                if held {
                    self.mailbox_of_phone(now, &self.domain.aor(&user));
                } else if self.registrar.accounts_mut().remove(&user) {
                    self.registrar.forget(&user);
                    self.forget_mailbox(now, &user);
                }
                self.save_identity();
                self.save_phones();
                self.answer_exchange(now, tx, message, PHONE_TYPE, vec![0x81, 0x01]);
            }
            Err(fault) => {
                self.count("phones' secrets refused");
                tracing::warn!(%fault, "a phone's secret is not taken");
                self.answer(now, tx, message, 403, "Refused");
            }
        }
    }
}
