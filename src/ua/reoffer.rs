//! A further INVITE of ours within a call (RFC 3261 section 14.1): ICE anew (RFC 8445 section 9), hold and resume (RFC 3264
//! section 8.4), the session timer where the other end takes no UPDATE. What is wished while another INVITE is under way, or
//! crosses the other end's, is offered after it, all at once.

use super::call::{Reoffer, State, Wish};
use super::info::RECV_INFO;
use super::media::{Described, MediaOpened};
use super::outgoing::next_hop;
use super::{CallId, Ending, Output, RequestKey, Timer, Ua, UaEvent, media};
use crate::core::Instant;
use crate::sdp::ice::{Credentials, INFO_PACKAGE};
use crate::sdp::{self, Direction, Session};
use crate::secure::Role;
use crate::sip::msg::{HeaderName, Message, Method};
use std::time::Duration;

/// A restart that nobody answered is tried again after this.
const AGAIN: Duration = Duration::from_secs(4);

impl Ua {
    /// This machine has moved: the sockets of a call under way are elsewhere.
    pub fn media_moved(&mut self, id: CallId, opened: MediaOpened) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.opened = Some(opened);
        }
    }

    /// Starts a call's ICE anew, with the candidates of now.
    pub fn restart_ice(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Answered) else { return };
        if call.ice.remote.is_some() {
            call.wish.restart = true;
            self.reoffer(now, id);
        }
    }

    /// Offers what is wished for, as soon as that may be.
    pub(super) fn reoffer(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Answered) else { return };
        // The ACK of our answer brings us here again.
        if call.wish == Wish::default() || call.awaits_ack() {
            return;
        }
        let (Some(opened), Some(talk)) = (call.opened, call.talk.as_mut()) else { return };
        let Some(before) = talk.local.clone() else { return };
        if !talk.dialog.may_invite() || talk.answer_due {
            let later = now + talk.dialog.glare_delay(&mut self.rng);
            return self.timers.set(Timer::Reoffer(id), later);
        }
        self.timers.cancel(&Timer::Reoffer(id));
        let wish = std::mem::take(&mut call.wish);
        let (session_id, version) = (call.session_id, talk.version);
        let mut invite = talk.dialog.request(Method::Invite);
        let (link, timer) = (talk.link, talk.timer.clone());
        let hop = next_hop(&talk.dialog, &talk.made_by);
        // Other credentials than before would be a restart (RFC 8839 section 4.4.1.1.1).
        let ice = match &call.ice.local {
            Some(ours) if !wish.restart => ours.clone(),
            _ => Credentials::draw(&mut self.rng),
        };
        // A stream that the other end holds is put on hold by `inactive` (RFC 3264 section 8.4); without a hold of our own we say
        // what we want, or nobody would ever come back (RFC 6337 section 5.3).
        let direction = match (wish.hold.unwrap_or(call.held), call.held_there) {
            (true, true) => Direction::Inactive,
            (true, false) => Direction::SendOnly,
            (false, _) => Direction::SendRecv,
        };
        let ice_agreed = call.ice.remote.is_some();
        let local = media::local(opened, &self.profile.codecs, session_id, version);
        let local = sdp::negotiate::LocalMedia { direction, ..local };
        let local = if ice_agreed { self.local_ice(id, local, Some(&ice)) } else { local };
        let (call_id, tag) =
            (invite.call_id().unwrap_or_default().to_owned(), invite.from_tag().unwrap_or_default().to_owned());
        let mut local = self.local_keyed(now, local, Described { role: Role::Offer, call_id: &call_id, tag: &tag });
        let index = before.media.iter().position(|m| m.port != 0).unwrap_or(before.media.len());
        let mut offer = sdp::negotiate::offer_again(&before, index, &local);
        if offer != before {
            local.version += 1;
            offer = sdp::negotiate::offer_again(&before, index, &local);
        }
        self.dress(id, &mut invite, link);
        if ice_agreed {
            invite.push(RECV_INFO, INFO_PACKAGE);
        }
        timer.ask(&mut invite);
        invite.set_body("application/sdp", offer.to_bytes());
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()) else { return };
        let ice = ice_agreed.then_some(ice);
        talk.version = local.version;
        talk.reoffer = Some(Reoffer { invite: invite.clone(), offer, ice, wish, answered: false });
        self.out.push_back(Output::Request { key: RequestKey::Reoffer(id), message: invite, hop });
    }

    /// Contact and what this end can do, as in every request or response that may change a dialog's target.
    pub(super) fn dress(&self, id: CallId, message: &mut Message, link: bool) {
        message.set(HeaderName::Contact, format_args!("<{}>", self.contact(id, link)));
        message.set(HeaderName::Allow, super::ALLOW);
        message.set(HeaderName::Supported, super::SUPPORTED);
    }

    pub(super) fn on_reoffer_response(&mut self, now: Instant, id: CallId, response: &Message) {
        let status = response.status();
        let Some(talk) = self.calls.get_mut(&id).filter(|c| !c.is_over()).and_then(|c| c.talk.as_mut()) else { return };
        let Some(reoffer) = talk.reoffer.as_mut() else { return };
        let same = response.cseq().ok().map(|c| c.number) == reoffer.invite.cseq().ok().map(|c| c.number);
        if status < 200 || !same {
            return;
        }
        if status >= 300 {
            let larger = status == 422 && talk.timer.too_small(response);
            return self.on_reoffer_failed(now, id, if larger { 491 } else { status }, response.reason());
        }
        talk.dialog.receive_response(response);
        let ack = talk.dialog.ack(&reoffer.invite);
        let hop = next_hop(&talk.dialog, &talk.made_by);
        self.out.push_back(Output::Ack { message: ack, hop });
        if std::mem::replace(&mut reoffer.answered, true) {
            return;
        }
        let (offer, ice, invite) = (reoffer.offer.clone(), reoffer.ice.clone(), reoffer.invite.clone());
        let wish = reoffer.wish.clone();
        talk.timer.learn(now, response);
        talk.heard(response);
        let answer = Session::parse(response.body()).map_err(|e| e.to_string());
        let agreed = answer.and_then(|a| sdp::negotiate::complete(&offer, &a).map_err(|e| e.to_string()));
        let wanted = offer.media.iter().find(|m| m.port != 0).map(|m| offer.direction_of(m));
        talk.local = Some(offer);
        let (call_id, tag) = (invite.call_id().unwrap_or_default(), invite.from_tag().unwrap_or_default());
        let described = Described { role: Role::Answer, call_id, tag };
        let agreed = agreed.and_then(|agreed| self.with_keys(now, agreed, described));
        self.arm_session(id);
        match agreed {
            Ok((agreed, secured)) => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.ice.local = ice.or(call.ice.local.take());
                }
                let held = wish.hold.or(self.calls.get(&id).map(|c| c.held)).unwrap_or(false);
                self.note_hold(id, held, wanted.unwrap_or(Direction::SendRecv), agreed.direction);
                self.start_media(id, agreed, secured);
                if let Some(hold) = wish.hold {
                    self.hold_settled(now, id, hold, Ok(()));
                }
                self.trickle(id);
                self.reoffer(now, id);
            }
            Err(why) => {
                self.send_bye(id);
                self.finish(now, id, Ending::Failed, 488, format!("the answer does not fit: {why}"));
            }
        }
    }

    pub(super) fn on_reoffer_failed(&mut self, now: Instant, id: CallId, status: u16, reason: &str) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| !c.is_over()) else { return };
        let Some(talk) = call.talk.as_mut() else { return };
        let Some(failed) = talk.reoffer.take_if(|r| !r.answered) else { return };
        talk.dialog.failed(&Method::Invite);
        let mut wish = failed.wish;
        match status {
            // What was wished for since goes before.
            491 => {
                let later = now + talk.dialog.glare_delay(&mut self.rng);
                wish.hold = call.wish.hold.or(wish.hold);
                wish.restart |= call.wish.restart;
                wish.refresh |= call.wish.refresh;
                call.wish = wish;
                self.timers.set(Timer::Reoffer(id), later);
            }
            // The other end knows no such call (RFC 3261 section 12.2.1.2).
            481 => {
                self.send_bye(id);
                self.finish(now, id, Ending::Completed, 200, "the other end has gone".to_owned());
            }
            _ => {
                let again = matches!(status, 408 | 500..=599);
                // Its way may be as dead as the voice's, and both come back.
                if again && wish.restart {
                    call.wish.restart = true;
                    self.timers.set(Timer::Reoffer(id), now + AGAIN);
                }
                if wish.refresh {
                    self.refresh_later(now, id);
                }
                if let Some(hold) = wish.hold {
                    self.hold_settled(now, id, hold, Err((status, reason.to_owned())));
                }
            }
        }
    }

    /// The other end holds this one or does not any longer, as far as an exchange in which we wanted `wanted` shows.
    pub(super) fn note_hold(&mut self, id: CallId, held: bool, wanted: Direction, agreed: Direction) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let there = if wanted.sends() { !agreed.sends() } else { call.held_there };
        if (call.held, call.held_there) != (held, there) {
            (call.held, call.held_there) = (held, there);
            self.event(UaEvent::Held { call: id, here: held, there });
        }
    }
}
