//! Calls and other requests that come in (RFC 3261 sections 8.2, 9.2, 11.2, 13.3, 14.2, 15.1.2).

use super::call::{Call, Direction, Invitation, Outcome, Talk};
use super::cut::reason_text;
use super::media::Described;
use super::transfer::REPLACES;
use super::{ALLOW, CallId, Ending, Hop, MediaOpened, Output, SUPPORTED, State, Timer, Ua, UaEvent, media};
use crate::config::Ice as Policy;
use crate::core::{Flow, Instant};
use crate::sdp::ice::{Credentials, INFO_PACKAGE, Ice};
use crate::sdp::negotiate::LocalMedia;
use crate::sdp::{self, Session};
use crate::secure::Role;
use crate::sip::dialog::{Dialog, DialogId, InviteServerOutput, REL100, SessionTimer, TIMER};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::ServerTxId;
use std::net::{Ipv4Addr, SocketAddr};

impl Ua {
    pub(super) fn incoming_request(&mut self, now: Instant, tx: ServerTxId, request: &Message, flow: Flow, link: bool) {
        if let Some(refusal) = self.refusal(request) {
            return self.respond(tx, refusal);
        }
        let within = self.find_dialog(request);
        match (request.method().clone(), within, request.to_tag().is_some()) {
            (Method::Options, _, _) => {
                let mut ok = self.reply(request, 200, "OK");
                ok.push(HeaderName::Accept, "application/sdp, text/plain");
                ok.push(HeaderName::Allow, ALLOW);
                ok.push(HeaderName::Supported, SUPPORTED);
                self.respond(tx, ok);
            }
            (Method::Invite, Some(id), _) => self.on_reinvite(now, tx, id, request, flow),
            (Method::Bye, Some(id), _) => self.on_bye(now, tx, id, request),
            (Method::Info, Some(id), _) => self.on_info(tx, id, request),
            (Method::Update, Some(id), _) => self.on_update(now, tx, id, request),
            (Method::Refer, Some(id), _) => self.on_refer(tx, id, request),
            (Method::Notify, Some(id), _) => self.on_notify(now, tx, id, request),
            (Method::Prack, Some(id), _) => self.on_prack(now, tx, id, request),
            (Method::Message, Some(_), _) | (Method::Message, None, false) => self.on_message(now, tx, request, link),
            (Method::Refer, None, false) => {
                let no = self.reply(request, 403, "Only within a call");
                self.respond(tx, no);
            }
            (Method::Bye | Method::Info | Method::Update | Method::Prack | Method::Notify, None, _)
            | (_, None, true) => {
                self.gone(tx, request);
            }
            (Method::Invite, None, false) => self.on_invite(now, tx, request, flow, link),
            _ => {
                let mut no = self.reply(request, 405, "Method Not Allowed");
                no.push(HeaderName::Allow, ALLOW);
                self.respond(tx, no);
            }
        }
    }

    /// What RFC 3261 section 8.2 has a UAS refuse before it looks closer.
    fn refusal(&mut self, request: &Message) -> Option<Message> {
        use Method::*;
        let known = [Invite, Bye, Options, Cancel, Ack, Message, Info, Update, Prack, Refer, Notify];
        if !known.contains(request.method()) {
            let mut no = self.reply(request, 405, "Method Not Allowed");
            no.push(HeaderName::Allow, ALLOW);
            return Some(no);
        }
        let required: Vec<_> = request.values(HeaderName::Require).filter(|v| !is_supported(v)).collect();
        if !required.is_empty() {
            let mut no = self.reply(request, 420, "Bad Extension");
            no.push(HeaderName::Unsupported, required.join(", "));
            return Some(no);
        }
        let encoded = request.header(HeaderName::ContentEncoding).is_some_and(|e| !e.eq_ignore_ascii_case("identity"));
        if *request.method() == Method::Invite
            && !request.body().is_empty()
            && (encoded || !request.content_is("application/sdp"))
        {
            let optional =
                request.header(HeaderName::ContentDisposition).is_some_and(|d| d.contains("handling=optional"));
            if !optional {
                let mut no = self.reply(request, 415, "Unsupported Media Type");
                no.push(HeaderName::Accept, "application/sdp");
                no.push(HeaderName::AcceptEncoding, "identity");
                return Some(no);
            }
        }
        None
    }

    /// Counts a request to the dialog of a call; false where it was refused for its number (RFC 3261 section 12.2.2).
    pub(super) fn receives(&mut self, tx: ServerTxId, id: CallId, request: &Message) -> bool {
        let talk = DialogId::of_received(request).and_then(|d| self.calls.get_mut(&id)?.talk_of(&d));
        let Some(talk) = talk else { return false };
        let Err(refusal) = talk.dialog.receive(request) else { return true };
        let no = refusal.respond(request, &mut self.rng);
        self.respond(tx, no);
        false
    }

    /// There is no such call, or not any more.
    pub(super) fn gone(&mut self, tx: ServerTxId, request: &Message) {
        let gone = self.reply(request, 481, "Call/Transaction Does Not Exist");
        self.respond(tx, gone);
    }

    pub(super) fn reply(&mut self, request: &Message, status: u16, reason: &str) -> Message {
        let mut reply = Message::reply(request, status, reason);
        if request.to_tag().is_none() && status > 100 {
            reply.set_to_tag(&self.rng.token(6));
        }
        reply
    }

    pub(super) fn find_dialog(&self, request: &Message) -> Option<CallId> {
        let wanted = DialogId::of_received(request)?;
        let has = |c: &Call| {
            let forks = c.forks.iter().map(|f| &f.talk);
            c.talk.iter().chain(forks).any(|t| *t.dialog.id() == wanted)
        };
        let found = self.calls.iter().find(|(_, c)| has(c));
        found.map(|(id, _)| *id)
    }

    fn on_invite(&mut self, now: Instant, tx: ServerTxId, request: &Message, flow: Flow, link: bool) {
        if self.is_merged(request) {
            let no = self.reply(request, 482, "Loop Detected (merged request)");
            return self.respond(tx, no);
        }
        let replaced = match self.replaced_by(request) {
            Ok(replaced) => replaced,
            Err((status, reason)) => {
                let no = self.reply(request, status, reason);
                return self.respond(tx, no);
            }
        };
        let alive = self.calls.values().filter(|c| !c.is_over()).count();
        let ringing = self.calls.values().filter(|c| c.state == State::Incoming).count();
        let waiting = alive > 0 && replaced.is_none();
        // The first one that rings does not wait for anybody.
        let most = self.profile.calls_waiting + usize::from(alive == ringing);
        if alive >= self.profile.max_calls || (waiting && ringing >= most) {
            let no = self.reply(request, 486, "Busy Here");
            return self.respond(tx, no);
        }
        if request.contacts().map_or(true, |c| c.len() != 1) {
            let no = self.reply(request, 400, "One Contact is needed in INVITE");
            return self.respond(tx, no);
        }
        if let Err(min) = SessionTimer::check(request) {
            let mut no = self.reply(request, 422, "Session Interval Too Small");
            no.push(HeaderName::MinSe, min);
            return self.respond(tx, no);
        }
        if let Err((status, reason)) = self.check_offer(now, request) {
            let no = self.reply(request, status, &reason);
            return self.respond(tx, no);
        }
        let from = request.from().map(|f| f.uri.to_string()).unwrap_or_default();
        let arrival = self.arriving.take();
        let from = arrival.as_ref().map_or(from, |a| a.from.clone());
        let to_tag = self.rng.token(6);
        let mut call = Call::new(now, Direction::In, from.clone(), 0);
        call.state = State::Incoming;
        call.invited_by = request.call_id().map(str::to_owned);
        let mut invitation = Invitation::new(tx, request, to_tag, (flow, link), &mut self.rng);
        call.account = arrival.and_then(|a| a.account);
        if let (Some(account), false) = (call.account, link) {
            invitation.hop = Hop::Account { account, uri: None };
        }
        call.invitation = Some(invitation);
        call.replaces = replaced;
        call.play = replaced.and_then(|old| self.calls.get(&old)?.play.clone());
        let id = self.new_call(call);
        self.event(UaEvent::Incoming { call: id, from, waiting });
        // Who takes another's place was talked with already.
        if self.profile.auto_answer || replaced.is_some() {
            return self.answer(now, id);
        }
        self.ring(now, id);
        self.timers.set(Timer::Ring(id), now + self.profile.ring);
    }

    /// The same request by another way (RFC 3261 section 8.2.2.2).
    fn is_merged(&self, request: &Message) -> bool {
        let same = |i: &Invitation| {
            i.request.call_id() == request.call_id()
                && i.request.from_tag() == request.from_tag()
                && i.request.header(HeaderName::CSeq) == request.header(HeaderName::CSeq)
        };
        self.calls.values().filter(|c| !c.is_over()).any(|c| c.invitation.as_ref().is_some_and(same))
    }

    /// Tells before it rings whether the offer can be answered at all.
    fn check_offer(&mut self, now: Instant, request: &Message) -> Result<(), (u16, String)> {
        let Some(offer) = offer_of(request) else { return Ok(()) };
        let offer = offer.map_err(|e| (400, format!("Bad session description: {e}")))?;
        let anywhere = MediaOpened { rtp: SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)), rtcp_port: 4001 };
        let mut local = media::local(anywhere, &self.profile.codecs, 0, 1);
        if self.profile.ice != Policy::Off {
            let credentials = Credentials::draw(&mut self.rng);
            local.rtcp_mux = true;
            local.ice = Some(Ice { credentials, lite: false, trickle: true, second: false, candidates: Vec::new() });
        }
        let local = self.local_keyed(now, local, described(Role::Answer, request));
        let refused = |why: &dyn std::fmt::Display| (488, format!("Not Acceptable Here: {why}"));
        let (_, agreed) = sdp::negotiate::answer(&offer, &local).map_err(|e| refused(&e))?;
        self.secured(now, &agreed, described(Role::Offer, request)).map(|_| ()).map_err(|e| refused(&e))
    }

    /// Accepts a ringing call.
    pub fn answer(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.state != State::Incoming {
            return;
        }
        call.state = State::Answering;
        self.timers.cancel(&Timer::Ring(id));
        match call.opened {
            Some(_) => self.accept(now, id),
            None => self.out.push_back(Output::OpenMedia { call: id }),
        }
    }

    /// The 2xx, once the sockets are there.
    pub(super) fn accept(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(opened), Some(invitation)) = (call.opened, &call.invitation) else { return };
        let (hop, link, request) = (invitation.hop.clone(), invitation.link, invitation.request.clone());
        let to_tag = invitation.to_tag.clone();
        let (offered, before) = (invitation.offered.clone(), invitation.agreed.clone());
        // Our offer went out with the ringing: its answer comes in the PRACK, before ours.
        if offered.is_some() && before.is_none() {
            return;
        }
        let local = media::local(opened, &self.profile.codecs, call.session_id, 1);
        // A late offer is ours.
        call.ice.controlling = offer_of(&request).is_none();
        let ice = match call.ice.local.clone().filter(|_| offered.is_some()) {
            Some(ice) => ice,
            None => Credentials::draw(&mut self.rng),
        };
        call.ice.local = Some(ice.clone());
        let local = self.local_ice(id, local, Some(&ice));
        let (session, agreed) = match offer_of(&request) {
            _ if before.is_some() => (offered.unwrap_or_else(|| sdp::negotiate::offer(&local)), before.clone()),
            Some(Ok(offer)) => match self.answer_to(now, &request, &offer, local) {
                Ok(answered) => answered,
                Err(_) => return self.refuse(now, id, 488, "Not Acceptable Here", Ending::Failed),
            },
            Some(Err(_)) => return self.refuse(now, id, 400, "Bad session description", Ending::Failed),
            None => {
                let call_id = request.call_id().unwrap_or_default();
                let late = Described { role: Role::Offer, call_id, tag: &to_tag };
                (sdp::negotiate::offer(&self.local_keyed(now, local, late)), None)
            }
        };
        let mut ok = Message::reply(&request, 200, "OK");
        ok.set_to_tag(&to_tag);
        Dialog::copy_record_route(&request, &mut ok);
        self.dress(id, &mut ok, link);
        if session.media.iter().any(|m| m.attribute("ice-ufrag").is_some()) {
            ok.push(super::info::RECV_INFO, INFO_PACKAGE);
        }
        if before.is_none() {
            ok.set_body("application/sdp", session.to_bytes());
        }
        let mut timer = self.session_timer();
        timer.accept(now, &request, &mut ok);
        let Some(call) = self.calls.get_mut(&id) else { return };
        let mut talk = match (call.take_rung(), Dialog::from_uas(&request, &ok)) {
            (Some(mut talk), _) => {
                talk.dialog.answered(200);
                Talk { timer, ..talk }
            }
            (None, Ok(dialog)) => Talk::new(dialog, hop, link, None, timer, &request),
            (None, Err(_)) => {
                return self.refuse(now, id, 400, "No dialog can be made of this request", Ending::Failed);
            }
        };
        call.status = 200;
        talk.answer_due = agreed.is_none();
        talk.local = Some(session);
        call.talk = Some(talk);
        if let Some(invitation) = call.invitation.as_mut() {
            invitation.reliable.stop();
        }
        self.timers.cancel(&Timer::Reliable(id));
        self.respond_invite(now, id, ok);
        self.answered(now, id, agreed.as_ref().map_or("", |(a, _)| a.codec.name.as_str()));
        self.arm_session(id);
        if let Some((agreed, secured)) = agreed {
            self.note_hold(id, false, sdp::Direction::SendRecv, agreed.direction);
            self.start_media(id, agreed, secured);
        }
    }

    /// Our answer to the offer in `request`, and what is agreed.
    pub(super) fn answer_to(
        &self,
        now: Instant,
        request: &Message,
        offer: &Session,
        local: LocalMedia,
    ) -> Result<(Session, Option<Outcome>), u16> {
        let local = self.local_keyed(now, local, described(Role::Answer, request));
        let (session, agreed) = sdp::negotiate::answer(offer, &local).map_err(|_| 488_u16)?;
        let secured = self.secured(now, &agreed, described(Role::Offer, request)).map_err(|_| 488_u16)?;
        Ok((session, Some((agreed, secured))))
    }

    /// Answers the INVITE of a call, repeating what has to be repeated.
    pub(super) fn respond_invite(&mut self, now: Instant, id: CallId, response: Message) {
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.server.respond(now, response);
        }
        self.drive_invitation(now, id);
    }

    fn drive_invitation(&mut self, now: Instant, id: CallId) {
        while let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            let Some(output) = invitation.server.poll_output() else {
                match invitation.server.poll_timeout() {
                    Some(at) => self.timers.set(Timer::Accepted(id), at),
                    None => _ = self.timers.cancel(&Timer::Accepted(id)),
                }
                return;
            };
            match output {
                InviteServerOutput::Respond(response) => {
                    let tx = invitation.tx;
                    self.respond(tx, response);
                }
                InviteServerOutput::Confirmed(ack) => self.on_confirmed(now, id, &ack),
                InviteServerOutput::NoAck => {
                    self.settle_bye(id);
                    self.send_bye(id);
                    self.finish(now, id, Ending::Failed, 408, "the answer was never acknowledged".to_owned());
                }
            }
        }
    }

    pub(super) fn on_accepted_timeout(&mut self, now: Instant, id: CallId) {
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.server.handle_timeout(now);
        }
        self.drive_invitation(now, id);
    }

    /// The ACK of a 2xx, from the transaction layer.
    pub fn on_ack(&mut self, now: Instant, ack: &Message) {
        let Some(id) = self.find_dialog(ack) else { return };
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.server.receive_ack(ack);
        }
        self.drive_invitation(now, id);
    }

    /// The three-way handshake is complete; after a late offer the ACK brings the answer.
    fn on_confirmed(&mut self, now: Instant, id: CallId, ack: &Message) {
        if self.settle_bye(id) {
            return self.send_bye(id);
        }
        let due = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()).filter(|t| t.answer_due);
        let Some(talk) = due else {
            self.trickle(id);
            return self.reoffer(now, id);
        };
        talk.answer_due = false;
        let answer = Session::parse(ack.body()).map_err(|e| e.to_string());
        let agreed = match (&talk.local, answer) {
            (Some(offer), Ok(answer)) => sdp::negotiate::complete(offer, &answer).map_err(|e| e.to_string()),
            (_, Err(e)) => Err(e),
            (None, _) => return,
        };
        let (call_id, tag) = (ack.call_id().unwrap_or_default(), ack.to_tag().unwrap_or_default());
        let described = Described { role: Role::Answer, call_id, tag };
        let agreed = agreed.and_then(|agreed| self.with_keys(now, agreed, described));
        match agreed {
            Ok((agreed, secured)) => {
                self.note_hold(id, false, sdp::Direction::SendRecv, agreed.direction);
                self.start_media(id, agreed, secured);
                self.trickle(id);
                self.reoffer(now, id);
            }
            Err(why) => {
                self.send_bye(id);
                self.finish(now, id, Ending::Failed, 488, format!("the answer does not fit: {why}"));
            }
        }
    }

    /// Whether a BYE waited for the ACK; it does not any longer.
    fn settle_bye(&mut self, id: CallId) -> bool {
        self.calls.get_mut(&id).is_some_and(|c| std::mem::take(&mut c.bye_due))
    }

    /// The INVITE of a ringing call was cancelled, or its caller is gone (the transaction layer has answered a CANCEL).
    pub fn on_cancel(&mut self, now: Instant, tx: ServerTxId, cancel: Option<&Message>) {
        let found = self.calls.iter().find(|(_, c)| c.invitation.as_ref().is_some_and(|i| i.tx == tx));
        let Some((id, call)) = found.map(|(id, call)| (*id, call)) else { return };
        if matches!(call.state, State::Incoming | State::Answering) {
            let why = cancel.and_then(reason_of);
            self.refuse_because(now, id, (487, "Request Terminated"), Ending::NoAnswer, why);
        }
    }

    /// Answers a ringing call with a failure.
    pub(super) fn refuse(&mut self, now: Instant, id: CallId, status: u16, reason: &str, ending: Ending) {
        self.refuse_because(now, id, (status, reason), ending, None);
    }

    fn refuse_because(
        &mut self,
        now: Instant,
        id: CallId,
        (status, reason): (u16, &str),
        ending: Ending,
        why: Option<String>,
    ) {
        let Some(invitation) = self.calls.get(&id).and_then(|c| c.invitation.as_ref()) else { return };
        let mut no = Message::reply(&invitation.request, status, reason);
        no.set_to_tag(&invitation.to_tag);
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.reliable.stop();
        }
        self.timers.cancel(&Timer::Reliable(id));
        self.respond_invite(now, id, no);
        self.finish(now, id, ending, status, why.unwrap_or_else(|| reason.to_owned()));
    }

    fn on_bye(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message) {
        if !self.receives(tx, id, request) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.talk.as_ref().is_some_and(|t| Some(t.dialog.id()) != DialogId::of_received(request).as_ref()) {
            // One of several that rang, and not the one that was answered: nothing of the call ends with it.
            let ok = self.reply(request, 200, "OK");
            return self.respond(tx, ok);
        }
        if call.talk.is_none() {
            // A caller may end an early dialog so (RFC 3261 section 15.1.2); a callee may not.
            let (status, reason) = if call.invitation.is_some() { (200, "OK") } else { (403, "Not answered yet") };
            let answer = self.reply(request, status, reason);
            self.respond(tx, answer);
            return self.refuse(now, id, 487, "Request Terminated", Ending::NoAnswer);
        }
        talk_answered(self.calls.get_mut(&id), 200);
        let ok = self.reply(request, 200, "OK");
        self.respond(tx, ok);
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.server.stop();
        }
        self.settle_bye(id);
        self.timers.cancel(&Timer::Accepted(id));
        let why = reason_of(request).map_or_else(|| "hung up there".to_owned(), |why| format!("hung up there: {why}"));
        let (ending, status, why) = super::cut::said(request).unwrap_or((Ending::Completed, 200, why));
        self.finish(now, id, ending, status, why);
    }
}

/// What the signature in a description of this request's exchange covers.
pub(super) fn described(role: Role, request: &Message) -> Described<'_> {
    let (call_id, tag) = (request.call_id().unwrap_or_default(), request.from_tag().unwrap_or_default());
    Described { role, call_id, tag }
}

/// The offer in an INVITE, where its body is one: a body of another type that may be ignored is none.
pub(super) fn offer_of(request: &Message) -> Option<Result<Session, sdp::SdpError>> {
    let offers = !request.body().is_empty() && request.content_is("application/sdp");
    offers.then(|| Session::parse(request.body()))
}

/// What may stand in `Require`.
fn is_supported(tag: &str) -> bool {
    [REL100, TIMER, REPLACES].iter().any(|known| known.eq_ignore_ascii_case(tag))
}

fn talk_answered(call: Option<&mut Call>, status: u16) {
    if let Some(talk) = call.and_then(|c| c.talk.as_mut()) {
        talk.dialog.answered(status);
    }
}

/// The text of a Reason field (RFC 3326), where there is one.
fn reason_of(request: &Message) -> Option<String> {
    let mut values = request.values(HeaderName::Reason);
    values.find_map(|value| reason_text(value, 100)).filter(|text| !text.is_empty())
}
