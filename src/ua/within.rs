//! New descriptions from the other end within a dialog: a further INVITE (RFC 3261 section 14.2) and UPDATE (RFC 3311), for hold,
//! another address, another codec, ICE anew, or the session timer alone.

use super::call::{Call, Invitation, Outcome};
use super::incoming::offer_of;
use super::media::Described;
use super::{CallId, Ua, media};
use crate::core::{Flow, Instant};
use crate::sdp::ice::{Credentials, Ice};
use crate::sdp::{self, Direction, Session};
use crate::secure::Role;
use crate::sip::dialog::{DialogId, SessionTimer, State as DialogState};
use crate::sip::msg::{HeaderName, Message};
use crate::sip::tx::ServerTxId;

/// Our description for what came, what is agreed (nothing yet where the offer is ours), and the ICE of it.
struct Answered {
    session: Session,
    agreed: Option<Outcome>,
    ice: Credentials,
}

impl Ua {
    /// A further INVITE within a call.
    pub(super) fn on_reinvite(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message, flow: Flow) {
        if self.calls.get(&id).is_some_and(Call::is_over) {
            return self.gone(tx, request);
        }
        if !self.receives(tx, id, request) {
            return;
        }
        let talk = DialogId::of_received(request).and_then(|d| self.calls.get_mut(&id)?.talk_of(&d));
        let Some(talk) = talk else { return };
        let link = talk.link;
        let fault = match (SessionTimer::check(request), offer_of(request)) {
            (Err(min), _) => Err((422, min)),
            (Ok(()), Some(Err(_))) => Err((400, 0)),
            // Our own offer in a 2xx has no answer yet (RFC 6337 section 2.2).
            (Ok(()), _) if talk.answer_due => Err((491, 0)),
            (Ok(()), offer) => Ok(offer.and_then(Result::ok)),
        };
        let answered = fault.and_then(|offer| self.describe_within(now, id, request, offer).map_err(|s| (s, 0)));
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()) else { return };
        let answered = match answered {
            Ok(answered) => answered,
            Err((status, min)) => {
                talk.dialog.answered(status);
                let no = self.refusal_within(request, status, min);
                return self.respond(tx, no);
            }
        };
        talk.version += 1;
        talk.answer_due = answered.agreed.is_none();
        talk.local = Some(answered.session.clone());
        talk.dialog.answered(200);
        talk.heard(request);
        let mut ok = Message::reply(request, 200, "OK");
        talk.timer.accept(now, request, &mut ok);
        self.dress(id, &mut ok, link);
        ok.set_body("application/sdp", answered.session.to_bytes());
        let to_tag = request.to_tag().unwrap_or_default().to_owned();
        let Some(call) = self.calls.get_mut(&id) else { return };
        // The place of the INVITE before is free: its ACK has come, or this one had been refused by the dialog.
        call.invitation = Some(Invitation::new(tx, request, to_tag, (flow, link), &mut self.rng));
        self.respond_invite(now, id, ok);
        self.arm_session(id);
        self.settle_within(id, answered.agreed, answered.ice);
    }

    /// An UPDATE, in a dialog that is confirmed or not yet.
    pub(super) fn on_update(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message) {
        if self.calls.get(&id).is_some_and(Call::is_over) {
            return self.gone(tx, request);
        }
        if !self.receives(tx, id, request) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let opened = call.opened.is_some();
        let Some(dialog) = DialogId::of_received(request) else { return };
        // An offer of ours that is under way: in the INVITE of an early dialog, or in a further one.
        let fork = call.forks.iter().find(|f| *f.talk.dialog.id() == dialog);
        let (unsettled, placed) = fork.map_or((false, false), |f| (!f.settled, f.leg.is_some()));
        let Some(talk) = call.talk_of(&dialog) else { return };
        let early = talk.dialog.state() == DialogState::Early;
        let ours = talk.answer_due || talk.reoffer.as_ref().is_some_and(|r| !r.answered) || (unsettled && placed);
        let offer = offer_of(request);
        let fault = match (SessionTimer::check(request), offer) {
            (Err(min), _) => Err((422, min)),
            (Ok(()), None) => Ok(None),
            (Ok(()), Some(Err(_))) => Err((400, 0)),
            (Ok(()), Some(Ok(_))) if ours => Err((491, 0)),
            // Their own offer has no answer yet (RFC 3311 section 5.2).
            (Ok(()), Some(Ok(_))) if (early && unsettled) || !opened => Err((500, 0)),
            (Ok(()), Some(Ok(offer))) => Ok(Some(offer)),
        };
        let answered = fault.and_then(|offer| match offer {
            Some(offer) => self.describe_within(now, id, request, Some(offer)).map(Some).map_err(|s| (s, 0)),
            None => Ok(None),
        });
        let answered = match answered {
            Ok(answered) => answered,
            Err((status, min)) => {
                let no = self.refusal_within(request, status, min);
                return self.respond(tx, no);
            }
        };
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk_of(&dialog)) else { return };
        let mut ok = Message::reply(request, 200, "OK");
        talk.heard(request);
        if !early {
            talk.timer.accept(now, request, &mut ok);
        }
        let link = talk.link;
        if let Some(answered) = &answered {
            talk.version += 1;
            talk.local = Some(answered.session.clone());
            ok.set_body("application/sdp", answered.session.to_bytes());
        }
        self.dress(id, &mut ok, link);
        self.respond(tx, ok);
        self.arm_session(id);
        let Some(answered) = answered else { return };
        // Of an early dialog, for when it is confirmed.
        if let Some(call) = self.calls.get_mut(&id).filter(|_| early) {
            let fork = call.forks.iter_mut().find(|f| *f.talk.dialog.id() == dialog);
            match fork {
                Some(fork) if placed => fork.agreed.clone_from(&answered.agreed),
                _ => {
                    if let Some(invitation) = call.invitation.as_mut() {
                        invitation.agreed.clone_from(&answered.agreed);
                    }
                }
            }
        }
        self.settle_within(id, answered.agreed, answered.ice);
    }

    /// Our answer to an offer within a call, or our offer where there is none.
    fn describe_within(
        &mut self,
        now: Instant,
        id: CallId,
        request: &Message,
        offer: Option<Session>,
    ) -> Result<Answered, u16> {
        let call = self.calls.get_mut(&id).ok_or(481_u16)?;
        let opened = call.opened.ok_or(500_u16)?;
        let (session_id, held) = (call.session_id, call.held);
        // Other credentials than before are a restart, and get other ones (RFC 8839 section 4.4.2).
        let theirs = offer.as_ref().and_then(|o| o.media.iter().find_map(|m| Ice::of(o, m)));
        let (known, ours) = (call.ice.remote.as_ref().map(|r| &r.credentials), call.ice.local.clone());
        let restarts = theirs.as_ref().is_some_and(|t| known != Some(&t.credentials));
        let dialog = DialogId::of_received(request).ok_or(481_u16)?;
        let talk = call.talk_of(&dialog).ok_or(481_u16)?;
        let (version, before) = (talk.version + 1, talk.local.clone());
        let ice = match ours {
            Some(ours) if !restarts => ours,
            _ => Credentials::draw(&mut self.rng),
        };
        let direction = if held { Direction::SendOnly } else { Direction::SendRecv };
        let local = media::local(opened, &self.profile.codecs, session_id, version);
        let local = sdp::negotiate::LocalMedia { direction, ..local };
        let local = self.local_ice(id, local, Some(&ice));
        let (session, agreed) = match offer {
            Some(offer) => self.answer_to(now, request, &offer, local)?,
            None => {
                let call_id = request.call_id().unwrap_or_default();
                let tag = request.to_tag().unwrap_or_default();
                let local = self.local_keyed(now, local, Described { role: Role::Offer, call_id, tag });
                let again = before.as_ref().map(|before| {
                    let index = before.media.iter().position(|m| m.port != 0).unwrap_or(before.media.len());
                    sdp::negotiate::offer_again(before, index, &local)
                });
                (again.unwrap_or_else(|| sdp::negotiate::offer(&local)), None)
            }
        };
        Ok(Answered { session, agreed, ice })
    }

    /// Voice flows as was agreed.
    fn settle_within(&mut self, id: CallId, agreed: Option<Outcome>, ice: Credentials) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.ice.local = Some(ice);
        let held = call.held;
        if let Some((agreed, secured)) = agreed {
            self.note_hold(id, held, Direction::SendRecv, agreed.direction);
            self.start_media(id, agreed, secured);
        }
    }

    fn refusal_within(&mut self, request: &Message, status: u16, min: u32) -> Message {
        let reason = match status {
            422 => "Session Interval Too Small",
            481 => "Call/Transaction Does Not Exist",
            488 => "Not Acceptable Here",
            491 => "Request Pending",
            500 => "An offer is still to be answered",
            _ => "Bad session description",
        };
        let mut no = self.reply(request, status, reason);
        match status {
            422 => no.push(HeaderName::MinSe, min),
            500 => no.push(HeaderName::RetryAfter, self.rng.below(11)),
            _ => {}
        }
        no
    }
}
