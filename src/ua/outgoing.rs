//! Calls that this user agent places: one INVITE a target, the first 2xx wins, the others are cancelled
//! (and ended where their 2xx crossed the CANCEL; RFC 3261 sections 13.2 and 15).

use super::call::{Call, Direction, Leg, Talk, by_link};
use super::incoming::described;
use super::media::Described;
use super::{AccountId, CallId, Ending, Hop, Output, RequestKey, State, Target, Timer, Ua, UaEvent, media};
use crate::core::Instant;
use crate::sdp::ice::{Credentials as IceCredentials, INFO_PACKAGE};
use crate::sdp::{self, Session};
use crate::secure::Role;
use crate::sip::dialog::{Dialog, DialogError, DialogId};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::{COMPLETED_ELSEWHERE, ClientTxId};
use std::time::Duration;

/// How long an ended call is remembered, so that a leg which answers late is ended: past the longest transaction (64*T1).
const REMEMBERED: Duration = Duration::from_secs(40);
/// How long the media's last figures may take.
const FIGURES: Duration = Duration::from_secs(2);
/// Most devices rung by one call.
const TARGETS: usize = 16;

impl Ua {
    /// Begins a call to `with` (a URI for the reports); [`Ua::targets`] says where that is.
    pub fn place(
        &mut self,
        now: Instant,
        with: String,
        play: Option<String>,
        record: Option<String>,
        duration: Option<Duration>,
    ) -> CallId {
        let id = self.new_call(Call { play, record, duration, ..Call::new(now, Direction::Out, with, 0) });
        self.out.push_back(Output::OpenMedia { call: id });
        id
    }

    /// A call that was placed goes by this account; its targets say so too.
    pub fn place_by(&mut self, id: CallId, account: AccountId) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.account = Some(account);
        }
    }

    pub(super) fn new_call(&mut self, mut call: Call) -> CallId {
        call.session_id = self.rng.below(1 << 52);
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(id, call);
        id
    }

    /// Where the callee's devices are.
    pub fn targets(&mut self, now: Instant, id: CallId, mut targets: Vec<Target>) {
        targets.truncate(TARGETS);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.targets = Some(targets);
        self.go_on(now, id);
    }

    /// Takes the next step that became possible: INVITEs once targets and sockets are there, the 2xx once sockets are.
    pub(super) fn go_on(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match call.state {
            State::LookingUp if call.opened.is_some() && call.targets.is_some() => self.invite_all(now, id),
            State::Answering => self.accept(now, id),
            State::Incoming if call.opened.is_some() && call.invitation.as_ref().is_some_and(|i| i.offer_due) => {
                self.ring(now, id);
            }
            _ => {}
        }
    }

    fn invite_all(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(targets), Some(opened)) = (call.targets.take(), call.opened) else { return };
        if targets.is_empty() {
            return self.give_up(now, id, 480, "nobody is reachable there".to_owned());
        }
        call.state = State::Calling;
        let session_id = call.session_id;
        let with = call.with.clone();
        call.ice.controlling = true;
        let local = media::local(opened, &self.profile.codecs, session_id, 1);
        let (before, referred) = (call.legs.len(), call.referred.clone());
        for (index, target) in (before..).zip(targets) {
            let ice = IceCredentials::draw(&mut self.rng);
            let local = self.local_ice(id, local.clone(), Some(&ice));
            let (call_id, from_tag) = (self.rng.token(12), self.rng.token(6));
            let hop = self.first_hop(target.hop.clone());
            let described = Described { role: Role::Offer, call_id: &call_id, tag: &from_tag };
            let offer = sdp::negotiate::offer(&self.local_keyed(now, local, described));
            let mut invite = self.request_outside(Method::Invite, &target.uri, &with, &call_id, &from_tag, 1);
            let timer = self.session_timer();
            timer.ask(&mut invite);
            if let Some(replaces) = &referred.replaces {
                invite.push(HeaderName::Replaces, replaces);
                invite.push(HeaderName::Require, super::transfer::REPLACES);
            }
            if let Some(by) = &referred.referred_by {
                invite.push(HeaderName::ReferredBy, by);
            }
            self.follow_service_route(id, &mut invite);
            self.finish_invite(id, &mut invite, &hop, &offer);
            let leg = Leg {
                target: Target { uri: target.uri, hop: hop.clone() },
                invite: invite.clone(),
                tx: None,
                ice,
                cseq: 1,
                timer,
                authorized: false,
                ended: None,
                cancelled: false,
                surplus: Vec::new(),
            };
            if let Some(call) = self.calls.get_mut(&id) {
                call.legs.push(leg);
            }
            self.out.push_back(Output::Request { key: RequestKey::Invite(id, index), message: invite, hop });
        }
        if self.timers.deadline(&Timer::Ring(id)).is_none() {
            self.timers.set(Timer::Ring(id), now + self.profile.ring);
        }
    }

    fn finish_invite(&self, id: CallId, invite: &mut Message, hop: &Hop, offer: &Session) {
        self.dress(id, invite, by_link(hop));
        if offer.media.iter().any(|m| m.attribute("ice-ufrag").is_some()) {
            invite.push(super::info::RECV_INFO, INFO_PACKAGE);
        }
        invite.set_body("application/sdp", offer.to_bytes());
    }

    pub(super) fn contact(&self, id: CallId, link: bool) -> String {
        match self.account_of(id) {
            Some(account) => account.call_contact(),
            None if link => self.profile.link_contact.clone(),
            None => self.profile.clear_contact.clone(),
        }
    }

    /// Who an account's call is from, and the way that its registrar wants (RFC 3608).
    fn follow_service_route(&self, id: CallId, invite: &mut Message) {
        let Some(account) = self.account_of(id) else { return };
        let (aor, tag) = (&account.config().aor, invite.from_tag().unwrap_or_default().to_owned());
        if account.config().private {
            // RFC 3323: the registrar alone is told who it is.
            invite.set(HeaderName::From, format_args!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={tag}"));
            invite.push(HeaderName::Privacy, "id");
            invite.push(HeaderName::PPreferredIdentity, format_args!("<{aor}>"));
        } else {
            invite.set(HeaderName::From, format_args!("<{aor}>;tag={tag}"));
        }
        for route in account.granted().map(|g| g.service_route.as_slice()).unwrap_or_default() {
            invite.push(HeaderName::Route, route);
        }
    }

    pub(super) fn invite_sent(&mut self, id: CallId, leg: usize, tx: ClientTxId) {
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.legs.get_mut(leg)) else { return };
        leg.tx = Some(tx);
        if leg.cancelled {
            self.out.push_back(Output::Cancel { tx, reason: None });
        }
    }

    pub(super) fn on_invite_response(
        &mut self,
        now: Instant,
        id: CallId,
        leg: usize,
        tx: ClientTxId,
        response: &Message,
    ) {
        let status = response.status();
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.legs.get(leg).is_none_or(|l| l.tx != Some(tx)) {
            return;
        }
        match status {
            ..=100 => {}
            101..=199 => {
                if !self.on_provisional(now, id, leg, response) {
                    return;
                }
                let Some(call) = self.calls.get_mut(&id) else { return };
                if call.state == State::Calling && matches!(status, 180 | 183) {
                    call.state = State::Ringing;
                }
                if !call.ringing_told && status == 180 && !call.is_over() {
                    call.ringing_told = true;
                    self.event(UaEvent::Ringing { call: id });
                    self.tell_parent(id, 180, "Ringing");
                }
            }
            200..=299 => self.on_answer(now, id, leg, response),
            401 | 407 if self.authorize(id, leg, response) => {}
            422 if self.ask_longer(id, leg, response) => {}
            _ => {
                self.on_redirected(id, response);
                self.on_leg_failed(now, id, leg, status, response.reason().to_owned());
            }
        }
    }

    /// A 2xx: the first makes the call, the same again is acknowledged again, any other is acknowledged and ended.
    fn on_answer(&mut self, now: Instant, id: CallId, leg_index: usize, response: &Message) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let taken = call.talk.is_some() || call.is_over();
        let Some(leg) = call.legs.get_mut(leg_index) else { return };
        let (invite, hop) = (leg.invite.clone(), leg.target.hop.clone());
        if let Some(talk) = &call.talk
            && DialogId::of_received(response).as_ref() == Some(talk.dialog.id())
        {
            // Our ACK was lost.
            let ack = talk.dialog.ack(&invite);
            let hop = next_hop(&talk.dialog, &hop);
            self.out.push_back(Output::Ack { message: ack, hop });
            return;
        }
        let mut timer = leg.timer.clone();
        leg.ended = Some((response.status(), response.reason().to_owned()));
        let fork = self.take_fork(id, response);
        let (early, settled) = fork.as_ref().map_or((None, false), |f| (f.agreed.clone(), f.settled));
        let link = by_link(&hop);
        let made = fork.map_or_else(
            || {
                let dialog = Dialog::from_uac(&invite, response)?;
                let (made_by, local) = (next_hop(&dialog, &hop), Session::parse(invite.body()).ok());
                Ok::<_, DialogError>(Talk::new(dialog, made_by, link, local, timer.clone(), response))
            },
            |fork| Ok(fork.talk),
        );
        let Ok(mut talk) = made else {
            return self.on_leg_failed(now, id, leg_index, 502, "an answer that makes no dialog".to_owned());
        };
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.legs.get_mut(leg_index)) else { return };
        talk.made_by = next_hop(&talk.dialog, &hop);
        let hop = talk.made_by.clone();
        self.out.push_back(Output::Ack { message: talk.dialog.ack(&invite), hop: hop.clone() });
        if taken {
            // Its 2xx comes again until our ACK arrives; one BYE is enough.
            if leg.surplus.contains(talk.dialog.id()) || leg.surplus.len() >= TARGETS {
                return;
            }
            leg.surplus.push(talk.dialog.id().clone());
            let bye = talk.dialog.request(Method::Bye);
            self.out.push_back(Output::Request { key: RequestKey::InDialog(id), message: bye, hop });
            return;
        }
        let offer = Session::parse(invite.body());
        let answer = Session::parse(response.body());
        // An answer in a reliable response stands; one in another is what is to come, unless the 2xx brings none.
        let known = early.filter(|_| settled || response.body().is_empty());
        let agreed = match (known, &offer, &answer) {
            (Some(agreed), ..) => Ok(agreed),
            (None, Ok(offer), Ok(answer)) => {
                let agreed = sdp::negotiate::complete(offer, answer).map_err(|e| e.to_string());
                agreed.and_then(|agreed| self.with_keys(now, agreed, described(Role::Answer, &invite)))
            }
            (None, _, Err(e)) | (None, Err(e), _) => Err(e.to_string()),
        };
        timer.learn(now, response);
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = call.legs.get_mut(leg_index) else { return };
        call.status = response.status();
        let ice = leg.ice.clone();
        call.ice.local = Some(ice);
        talk.heard(response);
        talk.timer = timer;
        call.talk = Some(talk);
        match agreed {
            Ok((agreed, secured)) => {
                self.answered(now, id, &agreed.codec.name);
                self.arm_session(id);
                self.note_hold(id, false, sdp::Direction::SendRecv, agreed.direction);
                self.start_media(id, agreed, secured);
                self.trickle(id);
            }
            Err(why) => {
                self.send_bye(id);
                self.finish(now, id, Ending::Failed, 488, format!("the answer does not fit: {why}"));
            }
        }
        self.cancel_legs(id, Some(leg_index));
    }

    /// Both ends have agreed.
    pub(super) fn answered(&mut self, now: Instant, id: CallId, codec: &str) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.state = State::Answered;
        call.answered = Some(now);
        let setup = now.since(call.begun);
        self.timers.cancel(&Timer::Ring(id));
        if let Some(duration) = call.duration {
            self.timers.set(Timer::Talk(id), now + duration);
        }
        self.event(UaEvent::Answered { call: id, setup, codec: codec.to_owned() });
        self.tell_parent(id, 200, "OK");
        self.end_replaced(now, id);
    }

    pub(super) fn cancel_legs(&mut self, id: CallId, except: Option<usize>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // Devices that stop ringing show no missed call (RFC 3326).
        let reason = except.is_some().then_some(COMPLETED_ELSEWHERE);
        for (index, leg) in call.legs.iter_mut().enumerate() {
            if Some(index) == except || leg.ended.is_some() || leg.cancelled {
                continue;
            }
            leg.cancelled = true;
            if let Some(tx) = leg.tx {
                self.out.push_back(Output::Cancel { tx, reason });
            }
        }
    }

    pub(super) fn on_leg_failed(&mut self, now: Instant, id: CallId, index: usize, status: u16, reason: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = call.legs.get_mut(index) else { return };
        leg.ended = Some((status, reason));
        call.forks.retain(|f| f.leg != Some(index));
        if call.talk.is_some() || call.is_over() {
            return;
        }
        if status >= 600 {
            self.cancel_legs(id, None);
        }
        let Some(call) = self.calls.get(&id) else { return };
        if status < 600 && call.legs.iter().any(|l| l.ended.is_none()) {
            return;
        }
        if status < 600 && self.follow(id) {
            return;
        }
        let Some(call) = self.calls.get(&id) else { return };
        // The best of all: 6xx before all, then the lowest class, a device that is busy before one that is not there.
        let ended = call.legs.iter().filter_map(|l| l.ended.clone());
        let rank = |status: u16| match status {
            600.. => 0,
            486 => 1,
            300..=399 => 2,
            400..=499 if status != 408 => 3,
            408 => 4,
            _ => 5,
        };
        let best = ended.min_by_key(|(s, _)| rank(*s));
        let (status, reason) = best.unwrap_or((480, String::new()));
        self.finish(now, id, Ending::of_status(status), status, reason);
    }

    pub(super) fn on_ring_timeout(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        match call.direction {
            Direction::Out => {
                self.cancel_legs(id, None);
                self.finish(now, id, Ending::NoAnswer, 408, "nobody answered".to_owned());
            }
            Direction::In => self.refuse(now, id, 480, "Temporarily Unavailable", Ending::NoAnswer),
        }
    }

    /// Ends a call in whatever state it is; a ringing one is declined.
    pub fn hang_up(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        match call.state {
            State::LookingUp => self.give_up(now, id, 487, "cancelled".to_owned()),
            State::Calling | State::Ringing => {
                self.cancel_legs(id, None);
                self.finish(now, id, Ending::Failed, 487, "cancelled".to_owned());
            }
            State::Incoming | State::Answering => self.refuse(now, id, 603, "Decline", Ending::Rejected),
            State::Answered => {
                self.end_talk(id);
                let status = call_status(self.calls.get(&id));
                self.finish(now, id, Ending::Completed, status, "hung up here".to_owned());
            }
            State::Ending | State::Over => {}
        }
    }

    /// BYE, once the caller has acknowledged the answer: before that it may not know of the dialog
    /// (RFC 3261 section 15).
    pub(super) fn end_talk(&mut self, id: CallId) {
        match self.calls.get_mut(&id) {
            Some(call) if call.awaits_ack() => call.bye_due = true,
            _ => self.send_bye(id),
        }
    }

    pub(super) fn send_bye(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(talk), reason) = (call.talk.as_mut(), call.bye_reason.as_ref()) else { return };
        let mut bye = talk.dialog.request(Method::Bye);
        if let Some(reason) = reason {
            bye.push(HeaderName::Reason, reason);
        }
        let hop = next_hop(&talk.dialog, &talk.made_by);
        self.out.push_back(Output::Request { key: RequestKey::InDialog(id), message: bye, hop });
    }

    /// Ends a call that cannot go on: nobody was found, or there is no voice.
    pub fn give_up(&mut self, now: Instant, id: CallId, status: u16, reason: String) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.state == State::LookingUp && !call.legs.is_empty() && self.follow(id) {
            return;
        }
        let Some(call) = self.calls.get(&id) else { return };
        match call.state {
            State::Incoming | State::Answering => {
                return self.refuse(now, id, status, "Server Internal Error", Ending::Failed);
            }
            State::Calling | State::Ringing => self.cancel_legs(id, None),
            State::Answered => self.end_talk(id),
            State::LookingUp | State::Ending | State::Over => {}
        }
        self.finish(now, id, Ending::of_status(status), status, reason);
    }

    /// The call is over; its report waits for the media's last figures.
    pub(super) fn finish(&mut self, now: Instant, id: CallId, ending: Ending, status: u16, reason: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.is_over() {
            return;
        }
        let transfer = call.transfer.is_some();
        call.state = State::Ending;
        call.ended = Some(now);
        (call.ending, call.status, call.reason) = (ending, status, reason);
        self.timers.cancel(&Timer::Ring(id));
        if !call.bye_due {
            self.timers.cancel(&Timer::Accepted(id));
        }
        self.timers.cancel(&Timer::Talk(id));
        self.timers.cancel(&Timer::Session(id));
        self.timers.cancel(&Timer::Reoffer(id));
        self.timers.cancel(&Timer::Reliable(id));
        let unheld = call
            .wish
            .hold
            .take()
            .or(call.talk.as_ref().and_then(|t| t.reoffer.as_ref().filter(|r| !r.answered)?.wish.hold));
        call.wish = super::call::Wish::default();
        (call.referral, call.replaces) = (None, None);
        call.redirects.clear();
        if status >= 300 && call.answered.is_none() {
            let reason = call.reason.clone();
            self.tell_parent(id, status, &reason);
        }
        if transfer {
            let why = "the call ended before anybody said how it went".to_owned();
            self.transfer_failed(now, id, 487, why);
        }
        if let Some(hold) = unheld {
            self.event(UaEvent::HoldAnswered { call: id, hold, result: Err((487, "the call is over".into())) });
        }
        self.out.push_back(Output::CloseMedia { call: id });
        self.timers.set(Timer::Figures(id), now + FIGURES);
    }

    pub(super) fn report(&mut self, now: Instant, id: CallId, stats: super::MediaStats) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.state = State::Over;
        let report = Box::new(call.report(stats));
        self.timers.cancel(&Timer::Figures(id));
        self.timers.set(Timer::Forget(id), now + REMEMBERED);
        self.event(UaEvent::Ended { call: id, report });
    }

    /// Sends a DTMF digit in an answered call; false when there is none.
    pub fn dtmf(&mut self, id: CallId, digit: char) -> bool {
        let answered = self.calls.get(&id).is_some_and(|c| c.state == State::Answered);
        if answered {
            self.out.push_back(Output::SendDtmf { call: id, digit });
        }
        answered
    }
}

fn call_status(call: Option<&Call>) -> u16 {
    call.map_or(0, |c| if c.status == 0 { 200 } else { c.status })
}

/// The dialog's next hop. Where that is a mere URI and the dialog was made over a link or a stream, that one stays.
pub(super) fn next_hop(dialog: &Dialog, made_by: &Hop) -> Hop {
    match (Hop::of(dialog.next_hop().clone()), made_by) {
        (peer @ Hop::Peer { .. }, _) => peer,
        (Hop::Uri(_), Hop::Peer { id, addr }) => Hop::Peer { id: *id, addr: *addr },
        (Hop::Uri(uri), Hop::Account { account, .. }) => Hop::Account { account: *account, uri: Some(uri) },
        (Hop::Uri(_), Hop::Flow(flow)) if flow.conn.is_some() => Hop::Flow(*flow),
        (hop, _) => hop,
    }
}
