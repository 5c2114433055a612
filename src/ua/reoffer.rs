//! What a call's ICE needs of signalling once there is a dialog: candidates that were found late go by INFO (RFC 8840, RFC 6086), and a
//! further INVITE with other credentials starts it anew (RFC 8445 section 9, RFC 3261 section 14.1).

use super::call::{Reoffer, State};
use super::outgoing::next_hop;
use super::{CallId, Ending, Output, RequestKey, Timer, Ua, media};
use super::{MediaOpened, media::Described};
use crate::core::Instant;
use crate::sdp::ice::{Credentials, FRAGMENT_TYPE, INFO_PACKAGE, Ice};
use crate::sdp::{self, Session};
use crate::secure::Role;
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::ServerTxId;
use std::time::Duration;

/// Which INFO packages are taken (RFC 6086 section 7.2).
pub(super) const RECV_INFO: HeaderName<'static> = HeaderName::Other("Recv-Info");
/// Which one an INFO is of.
const PACKAGE: HeaderName<'static> = HeaderName::Other("Info-Package");
/// A restart that nobody answered is tried again after this.
const AGAIN: Duration = Duration::from_secs(4);

impl Ua {
    /// Tells the other end of candidates that no description of ours had, where it takes them.
    pub(super) fn trickle(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Answered && !c.awaits_ack()) else {
            return;
        };
        let ice = &mut call.ice;
        let takes = ice.remote.as_ref().is_some_and(|r| r.trickle);
        let (Some(talk), Some(local)) = (call.talk.as_mut().filter(|_| takes), &ice.local) else { return };
        // A description that is under way has them all.
        let (true, false) = (talk.dialog.may_invite() && !talk.answer_due, ice.told >= ice.candidates.len()) else {
            return;
        };
        let new = Ice {
            credentials: local.clone(),
            lite: false,
            trickle: true,
            second: false,
            candidates: ice.candidates[ice.told..].to_vec(),
        };
        ice.told = ice.candidates.len();
        let Some(media) = talk.local.as_ref().and_then(|l| l.media.iter().find(|m| m.port != 0)) else { return };
        let mut info = talk.dialog.request(Method::Info);
        info.push(PACKAGE, INFO_PACKAGE);
        info.push(HeaderName::ContentDisposition, "Info-Package");
        info.set_body(FRAGMENT_TYPE, new.to_fragment(media).into_bytes());
        let hop = next_hop(&talk.dialog, &talk.made_by);
        self.out.push_back(Output::Request { key: RequestKey::InDialog(id), message: info, hop });
    }

    /// An INFO within a call: candidates, or a package that nobody here asked for.
    pub(super) fn on_info(&mut self, tx: ServerTxId, id: CallId, request: &Message) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(talk) = call.talk.as_mut() else { return };
        if let Err(refusal) = talk.dialog.receive(request) {
            let no = refusal.respond(request, &mut self.rng);
            return self.respond(tx, no);
        }
        if !request.content_is(FRAGMENT_TYPE) {
            let mut no = Message::reply(request, 469, "Bad Info Package");
            no.push(RECV_INFO, INFO_PACKAGE);
            return self.respond(tx, no);
        }
        // Candidates of a session that was restarted since are late, and nothing else.
        let current = call.ice.remote.as_ref().map(|r| &r.credentials);
        let told = Ice::parse_fragment(request.body()).filter(|t| Some(&t.credentials) == current);
        self.respond(tx, Message::reply(request, 200, "OK"));
        if let Some(told) = told.filter(|t| !t.candidates.is_empty()) {
            self.out.push_back(Output::Candidates { call: id, candidates: told.candidates });
        }
    }

    /// This machine has moved: the sockets of a call under way are elsewhere.
    pub fn media_moved(&mut self, id: CallId, opened: MediaOpened) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.opened = Some(opened);
        }
    }

    /// Starts a call's ICE anew, with the candidates of now.
    pub fn restart_ice(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Answered) else { return };
        let (Some(opened), Some(talk), true) = (call.opened, call.talk.as_mut(), call.ice.remote.is_some()) else {
            return;
        };
        if !talk.dialog.may_invite() || talk.answer_due {
            let later = now + talk.dialog.glare_delay(&mut self.rng);
            return self.timers.set(Timer::Reoffer(id), later);
        }
        let Some(before) = talk.local.clone() else { return };
        let (session_id, version) = (call.session_id, talk.version + 1);
        let mut invite = talk.dialog.request(Method::Invite);
        let (link, made_by) = (talk.link, talk.made_by.clone());
        let hop = next_hop(&talk.dialog, &made_by);
        let ice = Credentials::draw(&mut self.rng);
        let local = media::local(opened, &self.profile.codecs, session_id, version);
        let local = self.local_ice(id, local, Some(&ice));
        let (call_id, tag) =
            (invite.call_id().unwrap_or_default().to_owned(), invite.from_tag().unwrap_or_default().to_owned());
        let local = self.local_keyed(now, local, Described { role: Role::Offer, call_id: &call_id, tag: &tag });
        let index = before.media.iter().position(|m| m.port != 0).unwrap_or(before.media.len());
        let offer = sdp::negotiate::offer_again(&before, index, &local);
        invite.set(HeaderName::Contact, format_args!("<{}>", self.contact(link)));
        invite.push(HeaderName::Allow, super::ALLOW);
        invite.push(RECV_INFO, INFO_PACKAGE);
        invite.set_body("application/sdp", offer.to_bytes());
        let Some(talk) = self.calls.get_mut(&id).and_then(|c| c.talk.as_mut()) else { return };
        talk.version = version;
        talk.reoffer = Some(Reoffer { invite: invite.clone(), offer, ice: Some(ice), answered: false });
        self.out.push_back(Output::Request { key: RequestKey::Reoffer(id), message: invite, hop });
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
            return self.on_reoffer_failed(now, id, status);
        }
        talk.dialog.receive_response(response);
        let ack = talk.dialog.ack(&reoffer.invite);
        let hop = next_hop(&talk.dialog, &talk.made_by);
        self.out.push_back(Output::Ack { message: ack, hop });
        if std::mem::replace(&mut reoffer.answered, true) {
            return;
        }
        let (offer, ice, invite) = (reoffer.offer.clone(), reoffer.ice.clone(), reoffer.invite.clone());
        let answer = Session::parse(response.body()).map_err(|e| e.to_string());
        let agreed = answer.and_then(|a| sdp::negotiate::complete(&offer, &a).map_err(|e| e.to_string()));
        talk.local = Some(offer);
        let (call_id, tag) = (invite.call_id().unwrap_or_default(), invite.from_tag().unwrap_or_default());
        let described = Described { role: Role::Answer, call_id, tag };
        let agreed = agreed.and_then(|agreed| self.with_keys(now, agreed, described));
        match agreed {
            Ok((agreed, secured)) => {
                self.calls.entry(id).and_modify(|c| c.ice.local = ice);
                self.start_media(id, agreed, secured);
                self.trickle(id);
            }
            Err(why) => {
                self.send_bye(id);
                self.finish(now, id, Ending::Failed, 488, format!("the answer does not fit: {why}"));
            }
        }
    }

    pub(super) fn on_reoffer_failed(&mut self, now: Instant, id: CallId, status: u16) {
        let Some(talk) = self.calls.get_mut(&id).filter(|c| !c.is_over()).and_then(|c| c.talk.as_mut()) else { return };
        if talk.reoffer.take_if(|r| !r.answered).is_none() {
            return;
        }
        talk.dialog.failed(&Method::Invite);
        match status {
            491 => {
                let later = now + talk.dialog.glare_delay(&mut self.rng);
                self.timers.set(Timer::Reoffer(id), later);
            }
            // The other end knows no such call (RFC 3261 section 12.2.1.2).
            481 => {
                self.send_bye(id);
                self.finish(now, id, Ending::Completed, 200, "the other end has gone".to_owned());
            }
            // Its way may be as dead as the voice's, and both come back.
            408 | 500..=599 => self.timers.set(Timer::Reoffer(id), now + AGAIN),
            _ => {}
        }
    }
}
