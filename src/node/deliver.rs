//! Messages that come in: for this node's own user, for the standard phones behind it.
//!
//! What is sealed is opened with the device's key; the sender's chain and signature, the addresses, the time and the number
//! are checked (`identity::Letter`), and a message that was here before is answered as the first time and not shown
//! again. A phone gets the text in clear, as it must; while it is not there the message is kept (bounded, over a restart)
//! and goes out at its next REGISTER.

use super::Node;
use super::archive::{Admit, LIFE};
use super::control::{Event, MessageState};
use super::history::entry_of;
use super::message::{Out, Outcome, PHONE_PATIENCE, PURPOSE, Source};
use super::pins::standing_word;
use super::{calls::Callee, message::Due};
use crate::core::{Instant, limits};
use crate::identity::{
    Letter, LetterId, MAX_TEXT, PublicKey, SignedIntroduction, SignedLetter, Standing, Verified, canonical_user, open,
};
use crate::pbx::Origin;
use crate::sip::msg::{HeaderName, Message, Uri};
use crate::sip::tx::ServerTxId;
use crate::ua::message::{ACCEPT, Content, NotTaken, Outgoing, TEXT_TYPE, content};
use std::collections::BTreeMap;

/// Who waits for a phone's answer.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A message of this node's.
    Sending(u64),
    /// A MESSAGE that came in.
    Request(ServerTxId, Box<Message>),
    /// A message out of the mailbox.
    Mailbox,
}

/// Messages that are with phones right now.
#[derive(Debug, Default)]
pub(super) struct Phones {
    waiters: BTreeMap<LetterId, Waiter>,
    /// By user: the message that was sent to all places where that phone is registered.
    ringing: BTreeMap<String, Ringing>,
}

#[derive(Debug)]
struct Ringing {
    id: LetterId,
    out: usize,
    taken: bool,
    refused: Option<(u16, String)>,
    /// It has registered meanwhile, perhaps from another place.
    again: bool,
}

impl Node {
    /// Takes a MESSAGE outside of any dialog that is for somebody here, or from a phone for somebody of the overlay; false when
    /// it is the proxy's.
    pub(super) fn takes_message(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        request: &Message,
        origin: &Origin,
        merged: bool,
    ) -> bool {
        let Ok(uri) = Uri::parse(request.request_uri()) else { return false };
        let elsewhere = |route: &crate::sip::msg::NameAddr| !self.domain.covers(&route.uri);
        if request.routes().map_or(true, |routes| routes.iter().any(elsewhere)) {
            return false;
        }
        let Some(called) = self.domain.callee_of(&uri) else { return false };
        let Some((user, claim)) = super::pins::named(&called) else { return false };
        let Ok(user) = canonical_user(user) else { return false };
        let here = self.is_own(&user) || self.has_phone(now, &user);
        let from_phone = match origin {
            Origin::Phone { user, .. } => Some(user.clone()),
            Origin::Peer { .. } | Origin::Outside if here => None,
            _ => return false,
        };
        if merged {
            self.answer(now, tx, request, 482, "Loop Detected (merged request)");
            return true;
        }
        let required: Vec<_> = request.values(HeaderName::Require).filter(|v| !v.is_empty()).collect();
        if !required.is_empty() {
            let mut no = self.refusal_to(request, 420, "Bad Extension");
            no.push(HeaderName::Unsupported, required.join(", "));
            self.tx.respond(now, tx, no);
            return true;
        }
        match (content(request), from_phone) {
            (Err(refused), _) => self.refuse_message(now, tx, request, refused),
            (Ok(Content::Text(text)), _) if text.len() > MAX_TEXT => {
                self.answer(now, tx, request, 413, "Request Entity Too Large");
            }
            (Ok(Content::Text(text)), Some(phone)) => {
                let source = Source::Phone(tx, Box::new(request.clone()));
                let (from, aor) = (self.domain.aor(&phone.to_ascii_lowercase()), self.domain.aor(&user));
                self.send_letter(now, source, from, Callee::Aor { aor, claim }, text);
            }
            // A phone has no key to seal with, and what it was given sealed is nobody's here to open.
            (Ok(Content::Sealed(_)), Some(_)) => {
                self.refuse_message(now, tx, request, NotTaken(415, "Unsupported Media Type"));
            }
            (Ok(Content::Text(text)), None) => self.on_plain_message(now, tx, request, &user, text),
            (Ok(Content::Sealed(sealed)), None) => self.on_sealed_message(now, tx, request, &user, &sealed),
        }
        true
    }

    /// A MESSAGE that the user agent was handed: of a plain SIP phone, or within a call.
    pub(super) fn on_ua_message(&mut self, now: Instant, tx: ServerTxId, request: &Message) {
        match content(request) {
            Err(refused) => self.refuse_message(now, tx, request, refused),
            Ok(Content::Text(text)) if text.len() <= MAX_TEXT => {
                let letter = self.plain_letter(now, request, self.ua.profile().aor.clone(), text);
                self.deliver_here(now, &letter, false, None);
                self.answer(now, tx, request, 200, "OK");
            }
            Ok(Content::Text(_)) => self.answer(now, tx, request, 413, "Request Entity Too Large"),
            Ok(Content::Sealed(_)) => self.answer(now, tx, request, 493, "Undecipherable"),
        }
    }

    fn plain_letter(&mut self, now: Instant, request: &Message, to: String, text: String) -> Letter {
        let from = request.from().ok();
        let member = from.as_ref().and_then(|f| self.domain.user_of(&f.uri));
        let from = match member {
            Some(user) => self.domain.aor(&user.to_ascii_lowercase()),
            None => from.map(|f| f.uri.to_string()).unwrap_or_default(),
        };
        let sent_ms = self.unix(now).secs() * 1000;
        Letter { id: LetterId::generate(&mut self.rng), from, to, sent_ms, text }
    }

    fn on_plain_message(&mut self, now: Instant, tx: ServerTxId, request: &Message, user: &str, text: String) {
        let letter = self.plain_letter(now, request, self.domain.aor(user), text);
        self.deliver(now, user, &letter, false, None, Waiter::Request(tx, Box::new(request.clone())));
    }

    fn on_sealed_message(&mut self, now: Instant, tx: ServerTxId, request: &Message, user: &str, sealed: &[u8]) {
        let (signed, sender) = match self.opened(now, sealed) {
            Ok(opened) => opened,
            Err((status, reason)) => {
                self.count("messages that do not open or whose sender is false");
                return self.answer(now, tx, request, status, reason);
            }
        };
        let letter = signed.letter().clone();
        // Whom the request names, and whom the link vouched for, is whom the seal names.
        let from = request.from().ok().and_then(|f| self.domain.user_of(&f.uri)).map(|u| u.to_ascii_lowercase());
        let same = from.is_some_and(|from| self.domain.aor(&from) == letter.from);
        if !same || letter.to != self.domain.aor(user) {
            self.count("messages that do not open or whose sender is false");
            return self.answer(now, tx, request, 403, "The message is from somebody else or for somebody else");
        }
        if !self.is_own(user) && !self.mail.archive.fits(user, &letter) {
            // Not taken, so that it may wait in the overlay's mailbox and come again.
            return self.answer(now, tx, request, 480, "The phone's mailbox is full");
        }
        let unix = self.unix(now);
        match self.mail.archive.admit(&letter, &sender.device, unix) {
            Admit::New => {
                let waiter = Waiter::Request(tx, Box::new(request.clone()));
                self.deliver(now, user, &letter, true, Some(sender.user_key), waiter);
            }
            Admit::Repeated => {
                self.count("messages that were here before");
                let (status, reason) =
                    if self.mail.archive.is_held(&letter.id) { (202, "Accepted") } else { (200, "OK") };
                self.answer(now, tx, request, status, reason);
            }
            Admit::Stale => {
                self.count("messages out of their time");
                self.answer(now, tx, request, 403, "The message is out of its time");
            }
        }
    }

    /// Opens a sealed message and checks its sender.
    pub(super) fn opened(&self, now: Instant, sealed: &[u8]) -> Result<(SignedLetter, Verified), (u16, &'static str)> {
        let undecipherable = (493, "Undecipherable");
        let identity = self.identity.as_ref().ok_or(undecipherable)?;
        let content = open(PURPOSE, &identity.device, sealed).map_err(|_| undecipherable)?;
        let signed = SignedLetter::decode(&content).map_err(|_| undecipherable)?;
        let sender = signed.verify(&identity.anchor, self.unix(now));
        let sender = sender.map_err(|_| (403, "The sender's signature does not hold"))?;
        Ok((signed, sender))
    }

    /// Gives a message to all of `user` that hangs here and answers whoever waits.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        user: &str,
        letter: &Letter,
        sealed: bool,
        by: Option<PublicKey>,
        waiter: Waiter,
    ) {
        if self.writer(&letter.from, by.as_ref()).is_some_and(|p| p.standing == Standing::Blocked) {
            self.count("messages of the blocked declined");
            return self.tell_waiter(now, &letter.id, waiter, &Outcome::Failed(603, "Decline".into()));
        }
        let phone = self.has_phone(now, user);
        if self.is_own(user) {
            self.deliver_here(now, letter, sealed, by);
            if phone {
                self.deliver_to_phone(now, user, letter, None);
            }
            return self.tell_waiter(now, &letter.id, waiter, &Outcome::Delivered);
        }
        self.deliver_to_phone(now, user, letter, Some(waiter));
    }

    /// Shows a message to this node's own user.
    pub(super) fn deliver_here(&mut self, now: Instant, letter: &Letter, sealed: bool, by: Option<PublicKey>) {
        if let Some(by) = by.filter(|_| SignedIntroduction::is_one(&letter.text)) {
            return self.on_introduction(now, letter, &by);
        }
        let mut entry = entry_of(letter, "in", MessageState::Unread, sealed);
        entry.verified = by.map(|key| key.to_string()).unwrap_or_default();
        if let Some(party) = self.writer(&letter.from, by.as_ref()) {
            entry.standing = standing_word(party.standing).into();
            if party.standing == Standing::Changed {
                self.note_knock(now, party.who, true);
            }
        }
        entry.number = self.mail.archive.add(entry.clone());
        self.event(None, Event::Message { message: Box::new(entry) });
    }

    /// True where `user` is a standard phone's account here, or one is registered.
    pub(super) fn has_phone(&self, now: Instant, user: &str) -> bool {
        self.registrar.accounts().get(user).is_some() || !self.registrar.targets(now, user).is_empty()
    }

    /// Keeps a message for a phone and brings it there as soon as that is possible.
    pub(super) fn deliver_to_phone(&mut self, now: Instant, user: &str, letter: &Letter, waiter: Option<Waiter>) {
        if !self.mail.archive.hold(user, letter) {
            self.count("messages that a phone's full mailbox did not take");
            if let Some(waiter) = waiter {
                let full = Outcome::Failed(480, "the phone's mailbox is full".into());
                self.tell_waiter(now, &letter.id, waiter, &full);
            }
            return;
        }
        let absent = self.registrar.targets(now, user).is_empty();
        if let Some(waiter) = waiter {
            if absent {
                self.tell_waiter(now, &letter.id, waiter, &Outcome::Waits);
            } else {
                self.mail.phones.waiters.insert(letter.id, waiter);
                self.mail.timers.set(Due::Phone(letter.id), now + PHONE_PATIENCE);
            }
        }
        self.try_phone(now, user);
    }

    /// Sends the message that has waited longest to a phone, one at a time and in order.
    pub(super) fn try_phone(&mut self, now: Instant, user: &str) {
        if self.mail.phones.ringing.contains_key(user) {
            return;
        }
        let oldest = self.unix(now).secs().saturating_sub(LIFE.as_secs()) * 1000;
        self.mail.archive.expire_held(user, oldest);
        let Some(letter) = self.mail.archive.held_for(user).and_then(|held| held.letter()) else { return };
        let targets = self.phone_targets(now, user);
        if targets.is_empty() {
            return;
        }
        let ringing = Ringing { id: letter.id, out: targets.len(), taken: false, refused: None, again: false };
        self.mail.phones.ringing.insert(user.to_owned(), ringing);
        for target in targets {
            let key = self.mail.next_key();
            self.mail.out.insert(key, Out::Phone { user: user.to_owned(), id: letter.id });
            let outgoing = Outgoing {
                from: letter.from.clone(),
                to: letter.to.clone(),
                target,
                content_type: TEXT_TYPE,
                body: letter.text.clone().into_bytes(),
                sent: letter.sent(),
            };
            self.ua.send_message(key, outgoing);
        }
    }

    pub(super) fn on_phone_answered(&mut self, now: Instant, user: &str, id: &LetterId, status: u16, reason: &str) {
        let Some(ringing) = self.mail.phones.ringing.get_mut(user).filter(|r| r.id == *id) else { return };
        ringing.out = ringing.out.saturating_sub(1);
        match status {
            200..=299 => ringing.taken = true,
            // It would have had to go over a stream, and the phone takes none.
            503 if self.mail.archive.held_for(user).is_some_and(|h| h.text.len() > limits::SIP_UDP_REQUEST / 2) => {
                ringing.refused = Some((513, "Message Too Large for the phone".to_owned()));
            }
            400 | 405 | 406 | 413 | 415 | 488 | 501 | 513 | 600.. => {
                ringing.refused = Some((status, reason.to_owned()))
            }
            _ => {}
        }
        // One place that has it is enough; the others may never answer.
        if ringing.out > 0 && !ringing.taken {
            return;
        }
        let Some(ringing) = self.mail.phones.ringing.remove(user) else { return };
        let again = ringing.again;
        let outcome = match (ringing.taken, ringing.refused) {
            (true, _) => Outcome::Delivered,
            (false, Some((status, why))) => Outcome::Failed(status, why),
            (false, None) => Outcome::Waits,
        };
        if outcome != Outcome::Waits {
            self.mail.archive.release(user, id);
            self.acknowledge(now, &self.domain.aor(user), id);
        }
        match &outcome {
            Outcome::Delivered => self.message_state(&id.to_string(), MessageState::Delivered, 200),
            Outcome::Failed(..) => self.count("messages that a phone refused"),
            Outcome::Waits => {}
        }
        if let Some(waiter) = self.mail.phones.waiters.remove(id) {
            self.mail.timers.cancel(&Due::Phone(*id));
            self.tell_waiter(now, id, waiter, &outcome);
        }
        if again || outcome != Outcome::Waits {
            self.try_phone(now, user);
        }
    }

    /// The phone has had its time; the message is kept.
    pub(super) fn on_phone_patience(&mut self, now: Instant, id: &LetterId) {
        if let Some(waiter) = self.mail.phones.waiters.remove(id) {
            self.tell_waiter(now, id, waiter, &Outcome::Waits);
        }
    }

    fn tell_waiter(&mut self, now: Instant, _id: &LetterId, waiter: Waiter, outcome: &Outcome) {
        match waiter {
            Waiter::Sending(sending) => self.on_local_outcome(now, sending, outcome.clone()),
            Waiter::Request(tx, request) => match outcome {
                Outcome::Delivered => self.answer(now, tx, &request, 200, "OK"),
                Outcome::Waits => self.answer(now, tx, &request, 202, "Accepted"),
                Outcome::Failed(status, why) => self.answer(now, tx, &request, *status, why),
            },
            Waiter::Mailbox => {}
        }
    }

    /// A phone has registered: what waits for it goes out.
    pub(super) fn on_phone_registered(&mut self, now: Instant, request: &Message) {
        let user = request.to().ok().and_then(|to| self.domain.user_behind(&to.uri)).map(|u| u.to_ascii_lowercase());
        if let Some(user) = user {
            match self.mail.phones.ringing.get_mut(&user) {
                Some(ringing) => ringing.again = true,
                None => self.try_phone(now, &user),
            }
        }
    }

    fn refuse_message(&mut self, now: Instant, tx: ServerTxId, request: &Message, refused: NotTaken) {
        let mut no = self.refusal_to(request, refused.0, refused.1);
        if refused.0 == 415 {
            no.push(HeaderName::Accept, ACCEPT);
        }
        self.tx.respond(now, tx, no);
    }

    fn refusal_to(&mut self, request: &Message, status: u16, reason: &str) -> Message {
        let mut no = Message::reply(request, status, reason);
        if no.to_tag().is_none() {
            no.set_to_tag(&self.rng.token(6));
        }
        no
    }
}
