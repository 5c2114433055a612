//! Before the answer: dialogs that provisional responses make, those that have to arrive (RFC 3262, both roles), and what is heard
//! before the answer (early media, RFC 3960).
//!
//! The first description of the other end in a provisional response lets its voice be heard; ours is not sent until the call
//! is answered (silence is, so that what latches on to a sender finds it). Only the first fork is heard. Left out: early media of our own,
//! and ICE before the answer where the offer is ours.

use super::call::{Call, Direction, Fork, State, Talk, by_link};
use super::incoming::{described, offer_of};
use super::media::Described;
use super::outgoing::next_hop;
use super::{CallId, Ending, Output, RequestKey, Timer, Ua, media};
use crate::core::Instant;
use crate::sdp::{self, Session};
use crate::secure::Role;
use crate::sip::dialog::{Dialog, DialogId, RAck, REL100, ReliableOutput};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::ServerTxId;

/// Most early dialogs of one call.
const FORKS: usize = 16;

impl Ua {
    /// A provisional response to an INVITE of ours; false when it is out of order and does not count.
    pub(super) fn on_provisional(&mut self, now: Instant, id: CallId, leg_index: usize, response: &Message) -> bool {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.talk.is_none() && !c.is_over()) else { return true };
        let Some(dialog) = DialogId::of_received(response).filter(|d| !d.remote_tag.is_empty()) else { return true };
        let Some(leg) = call.legs.get(leg_index) else { return true };
        let (invite, hop, timer) = (leg.invite.clone(), leg.target.hop.clone(), leg.timer.clone());
        let at = match call.forks.iter().position(|f| *f.talk.dialog.id() == dialog) {
            Some(at) => at,
            None if call.forks.len() >= FORKS => return true,
            None => {
                let Ok(dialog) = Dialog::from_uac(&invite, response) else { return true };
                let local = Session::parse(invite.body()).ok();
                let made_by = next_hop(&dialog, &hop);
                let talk = Talk::new(dialog, made_by, by_link(&hop), local, timer, response);
                call.forks.push(Fork { talk, leg: Some(leg_index), rseq: None, agreed: None, settled: false });
                call.forks.len() - 1
            }
        };
        let Some(fork) = call.forks.get_mut(at) else { return true };
        let rack = RAck::for_response(response);
        if let Some(rack) = &rack {
            // RFC 3262 section 4: one that repeats or overtakes another is neither handed on nor acknowledged.
            if fork.rseq.is_some_and(|last| last.checked_add(1) != Some(rack.rseq)) {
                return false;
            }
            fork.rseq = Some(rack.rseq);
            let mut prack = fork.talk.dialog.request(Method::Prack);
            prack.push(HeaderName::RAck, rack);
            let hop = next_hop(&fork.talk.dialog, &fork.talk.made_by);
            self.out.push_back(Output::Request { key: RequestKey::InDialog(id), message: prack, hop });
        }
        if offer_of(response).is_some() {
            self.hear_early(now, id, at, response, rack.is_some());
        }
        true
    }

    /// A description before the answer.
    fn hear_early(&mut self, now: Instant, id: CallId, at: usize, response: &Message, reliable: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let heard = call.media_started;
        let Some(fork) = call.forks.get_mut(at).filter(|f| !f.settled) else { return };
        let Some(leg) = fork.leg.and_then(|leg| call.legs.get(leg)) else { return };
        let (Some(offer), Ok(answer)) = (&fork.talk.local, Session::parse(response.body())) else { return };
        let Ok(agreed) = sdp::negotiate::complete(offer, &answer) else { return };
        let (invite, ice) = (leg.invite.clone(), leg.ice.clone());
        let Ok((agreed, secured)) = self.with_keys(now, agreed, described(Role::Answer, &invite)) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(fork) = call.forks.get_mut(at) else { return };
        fork.settled = reliable;
        fork.agreed = Some((agreed.clone(), secured));
        if !heard {
            call.ice.local = Some(ice);
            self.start_media(id, agreed, secured);
        }
    }

    /// The fork that a 2xx confirms.
    pub(super) fn take_fork(&mut self, id: CallId, response: &Message) -> Option<Fork> {
        let forks = &mut self.calls.get_mut(&id)?.forks;
        let dialog = DialogId::of_received(response)?;
        let at = forks.iter().position(|f| *f.talk.dialog.id() == dialog)?;
        let mut fork = forks.swap_remove(at);
        fork.talk.dialog.receive_response(response);
        Some(fork)
    }

    /// Tells the caller that it rings here.
    pub(super) fn ring(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Incoming) else { return };
        let (opened, session_id) = (call.opened, call.session_id);
        let Some(invitation) = call.invitation.as_mut() else { return };
        let (request, link) = (invitation.request.clone(), invitation.link);
        let required = request.has_token(HeaderName::Require, REL100);
        // Over a link nothing is lost.
        let reliable = required || (!link && request.has_token(HeaderName::Supported, REL100));
        // A first reliable response brings the offer that the INVITE does not (RFC 3262 section 5): only if it has to.
        let offers = required && offer_of(&request).is_none();
        let reliable = reliable && (offers || offer_of(&request).is_some());
        // The offer would show where this end is before it has answered: over a link, where anybody may come from, it is not sent, and
        // nothing is said before the answer.
        if offers && link {
            return;
        }
        if offers && opened.is_none() {
            invitation.offer_due = true;
            return self.out.push_back(Output::OpenMedia { call: id });
        }
        invitation.offer_due = false;
        let (hop, to_tag) = (invitation.hop.clone(), invitation.to_tag.clone());
        let mut ringing = Message::reply(&request, 180, "Ringing");
        ringing.set_to_tag(&to_tag);
        Dialog::copy_record_route(&request, &mut ringing);
        self.dress(id, &mut ringing, link);
        let mut offered = None;
        if let (true, Some(opened)) = (offers, opened) {
            let local = media::local(opened, &self.profile.codecs, session_id, 1);
            let call_id = request.call_id().unwrap_or_default();
            let local = self.local_keyed(now, local, Described { role: Role::Offer, call_id, tag: &to_tag });
            let offer = sdp::negotiate::offer(&local);
            ringing.set_body("application/sdp", offer.to_bytes());
            offered = Some(offer);
        }
        let timer = self.session_timer();
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Ok(dialog) = Dialog::from_uas(&request, &ringing) {
            let talk = Talk::new(dialog, hop, link, offered.clone(), timer, &request);
            call.forks.push(Fork { talk, leg: None, rseq: None, agreed: None, settled: false });
        }
        let Some(invitation) = call.invitation.as_mut() else { return };
        invitation.offered = offered;
        if reliable {
            invitation.reliable.respond(now, ringing);
            return self.drive_reliable(now, id);
        }
        self.respond_invite(now, id, ringing);
    }

    pub(super) fn drive_reliable(&mut self, now: Instant, id: CallId) {
        while let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            match invitation.reliable.poll_output() {
                Some(ReliableOutput::Respond(response)) => {
                    let tx = invitation.tx;
                    self.respond(tx, response);
                }
                Some(ReliableOutput::NoPrack) => {
                    return self.refuse(
                        now,
                        id,
                        504,
                        "The provisional response was never acknowledged",
                        Ending::Failed,
                    );
                }
                None => {
                    return match invitation.reliable.poll_timeout() {
                        Some(at) => self.timers.set(Timer::Reliable(id), at),
                        None => _ = self.timers.cancel(&Timer::Reliable(id)),
                    };
                }
            }
        }
    }

    pub(super) fn on_reliable_timeout(&mut self, now: Instant, id: CallId) {
        if let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) {
            invitation.reliable.handle_timeout(now);
        }
        self.drive_reliable(now, id);
    }

    /// A PRACK: for our ringing, with the answer where the offer was ours.
    pub(super) fn on_prack(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message) {
        if self.calls.get(&id).is_none_or(|c| c.direction != Direction::In) {
            return self.gone(tx, request);
        }
        if !self.receives(tx, id, request) {
            return;
        }
        let Some(dialog) = DialogId::of_received(request) else { return };
        let Some(invitation) = self.calls.get_mut(&id).and_then(|c| c.invitation.as_mut()) else { return };
        if !invitation.reliable.receive_prack(now, request) {
            let gone = self.reply(request, 481, "No such provisional response");
            return self.respond(tx, gone);
        }
        let offered = invitation.offered.clone().filter(|_| invitation.agreed.is_none());
        let answer = offer_of(request);
        let outcome = match (offered, answer) {
            (Some(offer), Some(Ok(answer))) => self.answered_in_prack(now, request, &offer, &answer).map(Some),
            // Without the answer there is nothing to talk by.
            (Some(_), _) => Err((488, "The offer has to be answered here")),
            // Their own offer has no answer yet: none may follow it.
            (None, Some(_)) => Err((488, "An offer is still to be answered")),
            (None, None) => Ok(None),
        };
        match outcome {
            Ok(agreed) => {
                let ok = self.reply(request, 200, "OK");
                self.respond(tx, ok);
                self.prack_settled(&dialog, id, agreed);
            }
            Err((status, reason)) => {
                let no = self.reply(request, status, reason);
                self.respond(tx, no);
            }
        }
        self.drive_reliable(now, id);
        self.go_on(now, id);
    }

    fn prack_settled(&mut self, dialog: &DialogId, id: CallId, agreed: Option<super::call::Outcome>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(agreed) = agreed else { return };
        if let Some(invitation) = call.invitation.as_mut() {
            invitation.agreed = Some(agreed);
        }
        if let Some(fork) = call.forks.iter_mut().find(|f| f.talk.dialog.id() == dialog) {
            fork.settled = true;
        }
    }

    fn answered_in_prack(
        &self,
        now: Instant,
        prack: &Message,
        offer: &Session,
        answer: &Session,
    ) -> Result<super::call::Outcome, (u16, &'static str)> {
        let agreed = sdp::negotiate::complete(offer, answer).map_err(|_| (488, "The answer does not fit"))?;
        let (call_id, tag) = (prack.call_id().unwrap_or_default(), prack.to_tag().unwrap_or_default());
        let described = Described { role: Role::Answer, call_id, tag };
        self.with_keys(now, agreed, described).map_err(|_| (488, "The answer's keys do not hold"))
    }
}

impl Call {
    /// The dialog that ringing has made, for the answer.
    pub fn take_rung(&mut self) -> Option<Talk> {
        let at = self.forks.iter().position(|f| f.leg.is_none())?;
        Some(self.forks.swap_remove(at).talk)
    }
}
