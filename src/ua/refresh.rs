//! The session timer of a talk (RFC 4028): refreshed by an UPDATE without offer where the other end takes it, else by a further
//! INVITE; ended by a BYE when nobody has refreshed it in time.

use super::outgoing::next_hop;
use super::{CallId, Ending, Output, RequestKey, Timer, Ua};
use crate::core::Instant;
use crate::sip::dialog::Due;
use crate::sip::msg::{Message, Method};
use std::time::Duration;

/// A refresh that failed is tried again after this, and a random part of it.
const AGAIN: Duration = Duration::from_secs(5);
/// Most INVITEs of one leg: challenged, and asked for longer sessions.
const MOST_INVITES: u32 = 8;

impl Ua {
    /// Asks for a longer session, where that was too short (RFC 4028 section 7.3); each time it is longer.
    pub(super) fn ask_longer(&mut self, id: CallId, index: usize, response: &Message) -> bool {
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.legs.get_mut(index)) else { return false };
        if leg.cancelled || leg.cseq > MOST_INVITES || !leg.timer.too_small(response) {
            return false;
        }
        let mut invite = leg.invite.clone();
        leg.timer.ask(&mut invite);
        self.invite_again(id, index, invite);
        true
    }

    /// Sets the clock by the talk's timer.
    pub(super) fn arm_session(&mut self, id: CallId) {
        let call = self.calls.get(&id).filter(|c| !c.is_over());
        match call.and_then(|c| c.talk.as_ref()).and_then(|t| t.timer.poll_timeout()) {
            Some(at) => self.timers.set(Timer::Session(id), at),
            None => _ = self.timers.cancel(&Timer::Session(id)),
        }
    }

    pub(super) fn on_session_timeout(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| !c.is_over()) else { return };
        let Some(talk) = call.talk.as_mut() else { return };
        match talk.timer.handle_timeout(now) {
            Some(Due::Expired) => {
                call.bye_reason = Some("SIP;cause=408;text=\"Session expired\"".to_owned());
                self.send_bye(id);
                return self.finish(now, id, Ending::Completed, 408, "the other end has gone: session expired".into());
            }
            Some(Due::Refresh) if talk.takes_update => self.send_update(id),
            Some(Due::Refresh) => {
                call.wish.refresh = true;
                self.reoffer(now, id);
            }
            None => {}
        }
        self.arm_session(id);
    }

    fn send_update(&mut self, id: CallId) {
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()).filter(|t| t.update.is_none()) else {
            return;
        };
        let mut update = talk.dialog.request(Method::Update);
        talk.update = update.cseq().ok().map(|c| c.number);
        talk.timer.ask(&mut update);
        let (hop, link) = (next_hop(&talk.dialog, &talk.made_by), talk.link);
        self.dress(id, &mut update, link);
        self.out.push_back(Output::Request { key: RequestKey::Update(id), message: update, hop });
    }

    pub(super) fn on_update_response(&mut self, now: Instant, id: CallId, response: &Message) {
        let status = response.status();
        let Some(call) = self.calls.get_mut(&id).filter(|c| !c.is_over()) else { return };
        let Some(talk) = call.talk.as_mut() else { return };
        if status < 200 || talk.update != response.cseq().ok().map(|c| c.number) {
            return;
        }
        if status >= 300 {
            let larger = status == 422 && talk.timer.too_small(response);
            return self.on_update_failed(now, id, if larger { 0 } else { status });
        }
        talk.update = None;
        talk.dialog.receive_response(response);
        talk.heard(response);
        talk.timer.learn(now, response);
        self.arm_session(id);
    }

    /// The UPDATE was refused; 0: with a longer interval it may be taken.
    pub(super) fn on_update_failed(&mut self, now: Instant, id: CallId, status: u16) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| !c.is_over()) else { return };
        let Some(talk) = call.talk.as_mut() else { return };
        if talk.update.take().is_none() {
            return;
        }
        match status {
            0 => self.send_update(id),
            481 => {
                self.send_bye(id);
                self.finish(now, id, Ending::Completed, 200, "the other end has gone".to_owned());
            }
            // It takes no UPDATE after all.
            405 | 420 | 501 => {
                talk.takes_update = false;
                call.wish.refresh = true;
                self.reoffer(now, id);
            }
            _ => self.refresh_later(now, id),
        }
    }

    /// Until the session is over there is time.
    pub(super) fn refresh_later(&mut self, now: Instant, id: CallId) {
        let later = now + AGAIN.mul_f64(1.0 + self.rng.unit());
        if let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()) {
            talk.timer.retry(later);
        }
        self.arm_session(id);
    }
}
