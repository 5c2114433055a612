//! Calls and other requests that come in (RFC 3261 sections 8.2, 9.2, 11.2, 13.3, 14.2, 15.1.2).

use super::call::{Call, Direction, Invitation, Talk};
use super::media::Described;
use super::{ALLOW, CallId, Ending, Hop, MediaOpened, Output, Secured, State, Timer, Ua, UaEvent, media};
use crate::config::Ice as Policy;
use crate::core::{Flow, Instant};
use crate::sdp::ice::{Credentials, INFO_PACKAGE, Ice};
use crate::sdp::negotiate::{Agreed, LocalMedia};
use crate::sdp::{self, Session};
use crate::secure::Role;
use crate::sip::dialog::{Dialog, DialogId, InviteServer, InviteServerOutput, Timing};
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
                self.respond(tx, ok);
            }
            (Method::Invite, Some(id), _) => self.on_reinvite(now, tx, id, request, flow),
            (Method::Bye, Some(id), _) => self.on_bye(now, tx, id, request),
            (Method::Info, Some(id), _) => self.on_info(tx, id, request),
            (Method::Message, Some(_), _) | (Method::Message, None, false) => self.on_message(now, tx, request, link),
            (Method::Bye | Method::Info, None, _) | (_, None, true) => {
                let gone = self.reply(request, 481, "Call/Transaction Does Not Exist");
                self.respond(tx, gone);
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
        let known = [Invite, Bye, Options, Cancel, Ack, Message, Info];
        if !known.contains(request.method()) {
            let mut no = self.reply(request, 405, "Method Not Allowed");
            no.push(HeaderName::Allow, ALLOW);
            return Some(no);
        }
        let required: Vec<_> = request.values(HeaderName::Require).filter(|v| !v.is_empty()).collect();
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

    fn reply(&mut self, request: &Message, status: u16, reason: &str) -> Message {
        let mut reply = Message::reply(request, status, reason);
        if request.to_tag().is_none() && status > 100 {
            reply.set_to_tag(&self.rng.token(6));
        }
        reply
    }

    pub(super) fn find_dialog(&self, request: &Message) -> Option<CallId> {
        let wanted = DialogId::of_received(request)?;
        let found = self.calls.iter().find(|(_, c)| c.talk.as_ref().is_some_and(|t| *t.dialog.id() == wanted));
        found.map(|(id, _)| *id)
    }

    fn on_invite(&mut self, now: Instant, tx: ServerTxId, request: &Message, flow: Flow, link: bool) {
        if self.is_merged(request) {
            let no = self.reply(request, 482, "Loop Detected (merged request)");
            return self.respond(tx, no);
        }
        let busy = self.calls.values().filter(|c| !c.is_over()).count() >= self.profile.max_calls;
        if busy {
            let no = self.reply(request, 486, "Busy Here");
            return self.respond(tx, no);
        }
        if request.contacts().map_or(true, |c| c.len() != 1) {
            let no = self.reply(request, 400, "One Contact is needed in INVITE");
            return self.respond(tx, no);
        }
        if let Err((status, reason)) = self.check_offer(now, request) {
            let no = self.reply(request, status, &reason);
            return self.respond(tx, no);
        }
        let from = request.from().map(|f| f.uri.to_string()).unwrap_or_default();
        let to_tag = self.rng.token(6);
        let mut call = Call::new(now, Direction::In, from.clone(), 0);
        call.state = State::Incoming;
        call.invited_by = request.call_id().map(str::to_owned);
        let server = InviteServer::new(request, Timing::default());
        call.invitation = Some(Invitation { tx, request: request.clone(), to_tag: to_tag.clone(), flow, link, server });
        let id = self.new_call(call);
        self.event(UaEvent::Incoming { call: id, from });
        if self.profile.auto_answer {
            return self.answer(now, id);
        }
        let mut ringing = Message::reply(request, 180, "Ringing");
        ringing.set_to_tag(&to_tag);
        Dialog::copy_record_route(request, &mut ringing);
        ringing.push(HeaderName::Contact, format_args!("<{}>", self.contact(link)));
        self.respond_invite(now, id, ringing);
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
        let (flow, link, request) = (invitation.flow, invitation.link, invitation.request.clone());
        let to_tag = invitation.to_tag.clone();
        let local = media::local(opened, &self.profile.codecs, call.session_id, 1);
        let ice = Credentials::draw(&mut self.rng);
        // A late offer is ours.
        call.ice.controlling = offer_of(&request).is_none();
        call.ice.local = Some(ice.clone());
        let local = self.local_ice(id, local, Some(&ice));
        let (session, agreed) = match offer_of(&request) {
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
        ok.push(HeaderName::Contact, format_args!("<{}>", self.contact(link)));
        ok.push(HeaderName::Allow, ALLOW);
        if session.media.iter().any(|m| m.attribute("ice-ufrag").is_some()) {
            ok.push(super::reoffer::RECV_INFO, INFO_PACKAGE);
        }
        ok.set_body("application/sdp", session.to_bytes());
        let Ok(dialog) = Dialog::from_uas(&request, &ok) else {
            return self.refuse(now, id, 400, "No dialog can be made of this request", Ending::Failed);
        };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.status = 200;
        let answer_due = agreed.is_none();
        let (made_by, local) = (Hop::Flow(flow), Some(session));
        call.talk = Some(Talk { dialog, made_by, link, local, version: 1, reoffer: None, answer_due });
        self.respond_invite(now, id, ok);
        self.answered(now, id, agreed.as_ref().map_or("", |(a, _)| a.codec.name.as_str()));
        if let Some((agreed, secured)) = agreed {
            self.start_media(id, agreed, secured);
        }
    }

    /// Our answer to the offer in `request`, and what is agreed.
    fn answer_to(
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
    fn respond_invite(&mut self, now: Instant, id: CallId, response: Message) {
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
        let Some(talk) = due else { return self.trickle(id) };
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
                self.start_media(id, agreed, secured);
                self.trickle(id);
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
    pub fn on_cancel(&mut self, now: Instant, tx: ServerTxId) {
        let found = self.calls.iter().find(|(_, c)| c.invitation.as_ref().is_some_and(|i| i.tx == tx));
        let Some((id, call)) = found.map(|(id, call)| (*id, call)) else { return };
        if matches!(call.state, State::Incoming | State::Answering) {
            self.refuse(now, id, 487, "Request Terminated", Ending::NoAnswer);
        }
    }

    /// Answers a ringing call with a failure.
    pub(super) fn refuse(&mut self, now: Instant, id: CallId, status: u16, reason: &str, ending: Ending) {
        let Some(invitation) = self.calls.get(&id).and_then(|c| c.invitation.as_ref()) else { return };
        let mut no = Message::reply(&invitation.request, status, reason);
        no.set_to_tag(&invitation.to_tag);
        self.respond_invite(now, id, no);
        self.finish(now, id, ending, status, reason.to_owned());
    }

    fn on_bye(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message) {
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()) else { return };
        if let Err(refusal) = talk.dialog.receive(request) {
            let no = refusal.respond(request, &mut self.rng);
            return self.respond(tx, no);
        }
        talk.dialog.answered(200);
        let ok = self.reply(request, 200, "OK");
        self.respond(tx, ok);
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.server.stop();
        }
        self.settle_bye(id);
        self.timers.cancel(&Timer::Accepted(id));
        let usual = (Ending::Completed, 200, "hung up there".to_owned());
        let (ending, status, reason) = super::cut::said(request).unwrap_or(usual);
        self.finish(now, id, ending, status, reason);
    }

    /// A new description within the call: hold, another address, another codec.
    fn on_reinvite(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message, flow: Flow) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let over = call.is_over();
        let (Some(talk), Some(opened)) = (call.talk.as_mut(), call.opened) else { return };
        if over {
            let gone = self.reply(request, 481, "Call/Transaction Does Not Exist");
            return self.respond(tx, gone);
        }
        if let Err(refusal) = talk.dialog.receive(request) {
            let no = refusal.respond(request, &mut self.rng);
            return self.respond(tx, no);
        }
        let (link, answer_due, before) = (talk.link, talk.answer_due, talk.local.clone());
        let local = media::local(opened, &self.profile.codecs, call.session_id, talk.version + 1);
        // Other credentials than before are a restart, and get other ones (RFC 8839 section 4.4.2).
        let theirs = offer_of(request).and_then(Result::ok).and_then(|o| o.media.iter().find_map(|m| Ice::of(&o, m)));
        let (known, ours) = (call.ice.remote.as_ref().map(|r| &r.credentials), call.ice.local.clone());
        let restarts = theirs.as_ref().is_some_and(|t| known != Some(&t.credentials));
        let ice = match ours {
            Some(ours) if !restarts => ours,
            _ => Credentials::draw(&mut self.rng),
        };
        let local = self.local_ice(id, local, Some(&ice));
        let outcome = match offer_of(request) {
            // Our own offer in a 2xx has no answer yet (RFC 6337 section 2.2).
            _ if answer_due => Err(491),
            Some(Ok(offer)) => self.answer_to(now, request, &offer, local),
            Some(Err(_)) => Err(400),
            None => {
                let call_id = request.call_id().unwrap_or_default();
                let tag = request.to_tag().unwrap_or_default();
                let local = self.local_keyed(now, local, Described { role: Role::Offer, call_id, tag });
                let again = before.as_ref().map(|before| {
                    let index = before.media.iter().position(|m| m.port != 0).unwrap_or(before.media.len());
                    sdp::negotiate::offer_again(before, index, &local)
                });
                Ok((again.unwrap_or_else(|| sdp::negotiate::offer(&local)), None))
            }
        };
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()) else { return };
        let (session, agreed) = match outcome {
            Ok(outcome) => outcome,
            Err(status) => {
                talk.dialog.answered(status);
                let reason = match status {
                    488 => "Not Acceptable Here",
                    491 => "Request Pending",
                    _ => "Bad session description",
                };
                let no = self.reply(request, status, reason);
                return self.respond(tx, no);
            }
        };
        talk.version += 1;
        talk.answer_due = agreed.is_none();
        talk.local = Some(session.clone());
        self.calls.entry(id).and_modify(|c| c.ice.local = Some(ice));
        let mut ok = self.reply(request, 200, "OK");
        ok.push(HeaderName::Contact, format_args!("<{}>", self.contact(link)));
        ok.push(HeaderName::Allow, ALLOW);
        ok.set_body("application/sdp", session.to_bytes());
        talk_answered(self.calls.get_mut(&id), 200);
        let Some(call) = self.calls.get_mut(&id) else { return };
        // The place of the INVITE before is free: its ACK has come, or this one had been refused by the dialog.
        let server = InviteServer::new(request, Timing::default());
        let to_tag = request.to_tag().unwrap_or_default().to_owned();
        call.invitation = Some(Invitation { tx, request: request.clone(), to_tag, flow, link, server });
        self.respond_invite(now, id, ok);
        if let Some((agreed, secured)) = agreed {
            self.start_media(id, agreed, secured);
        }
    }
}

/// What an offer and its answer agreed on, encryption apart.
type Outcome = (Agreed, Option<Secured>);

/// What the signature in a description of this request's exchange covers.
fn described(role: Role, request: &Message) -> Described<'_> {
    let (call_id, tag) = (request.call_id().unwrap_or_default(), request.from_tag().unwrap_or_default());
    Described { role, call_id, tag }
}

/// The offer in an INVITE, where its body is one: a body of another type that may be ignored is none.
fn offer_of(request: &Message) -> Option<Result<Session, sdp::SdpError>> {
    let offers = !request.body().is_empty() && request.content_is("application/sdp");
    offers.then(|| Session::parse(request.body()))
}

fn talk_answered(call: Option<&mut Call>, status: u16) {
    if let Some(talk) = call.and_then(|c| c.talk.as_mut()) {
        talk.dialog.answered(status);
    }
}
