//! Transfer (RFC 3515, RFC 5589) at all three ends: this end asks the other one to call somebody else (blind, or attended with
//! Replaces, RFC 3891); is asked to by it; or is called in the place of a call that it has.
//!
//! A REFER is sent within the call, once the call is on hold, and is taken within a call that is answered alone: outside of one, or
//! while another is under way, it is refused. What becomes of it is told in NOTIFYs of `message/sipfrag` (RFC 3420). Left out: GRUUs
//! (the target is referred to by its address of record or its Contact, as the node says), `norefersub` by this end.

use super::call::{Call, State};
use super::outgoing::next_hop;
use super::{CallId, Ending, Output, RequestKey, Timer, Ua, UaEvent};
use crate::core::Instant;
use crate::sip::dialog::DialogId;
use crate::sip::msg::{HeaderName, Message, Method, NameAddr, Uri};
use crate::sip::tx::ServerTxId;
use std::time::Duration;

/// The option tag of RFC 3891.
pub(super) const REPLACES: &str = "replaces";
/// How long the other end may say nothing of how it goes; also the life of the subscription.
const PATIENCE: Duration = Duration::from_secs(180);
/// Media type of a NOTIFY's body.
const SIPFRAG: &str = "message/sipfrag;version=2.0";

/// The other end of a call is being transferred by this one.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Value of Refer-To.
    refer_to: String,
    /// The call with whom it is transferred to.
    other: Option<CallId>,
    /// The calls were put on hold for it, and come back if it fails.
    held: Vec<CallId>,
    /// It was asked.
    asked: bool,
}

/// This end is being transferred by the other one.
#[derive(Debug)]
pub(super) struct Referral {
    /// Sequence number of the REFER, which names the subscription.
    id: u32,
    /// It wants no NOTIFY (RFC 4488).
    silent: bool,
    /// What was said last.
    told: u16,
}

/// A call by way of a REFER, beside its target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferredCall {
    /// Value of Replaces.
    pub replaces: Option<String>,
    /// Value of Referred-By.
    pub referred_by: Option<String>,
}

impl Ua {
    /// Transfers the other end of a call to `refer_to` (a URI), or to the other end of call `other`; [`UaEvent::TransferAnswered`]
    /// follows. False when one of the calls is not answered or is being transferred already.
    pub fn transfer(&mut self, now: Instant, id: CallId, refer_to: String, other: Option<CallId>) -> bool {
        let talks = |c: &Call| c.state == State::Answered && c.transfer.is_none() && c.talk.is_some();
        let fits = |id: &CallId| self.calls.get(id).is_some_and(talks);
        if !fits(&id) || other.is_some_and(|o| o == id || !fits(&o)) {
            return false;
        }
        let refer_to = match other {
            None => format!("<{refer_to}>"),
            Some(other) => {
                let Some(replaces) =
                    self.calls.get(&other).and_then(|c| c.talk.as_ref()).map(|t| replaces(t.dialog.id()))
                else {
                    return false;
                };
                format!("<{refer_to}?Replaces={}>", escaped(&replaces))
            }
        };
        if let Some(call) = self.calls.get_mut(&id) {
            call.transfer = Some(Transfer { refer_to, other, held: Vec::new(), asked: false });
        }
        self.hold_for_transfer(now, id);
        true
    }

    /// Whom an attended transfer to this call's other end names: its Contact.
    pub fn contact_of(&self, id: CallId) -> Option<String> {
        Some(self.calls.get(&id)?.talk.as_ref()?.dialog.remote_target().to_string())
    }

    /// Both calls are on hold before anything is asked.
    fn hold_for_transfer(&mut self, now: Instant, id: CallId) {
        let Some(transfer) = self.calls.get(&id).and_then(|c| c.transfer.as_ref()) else { return };
        let loud =
            [Some(id), transfer.other].into_iter().flatten().find(|c| self.calls.get(c).is_some_and(|c| !c.held));
        match loud {
            Some(loud) => {
                if let Some(transfer) = self.calls.get_mut(&id).and_then(|c| c.transfer.as_mut()) {
                    transfer.held.push(loud);
                }
                self.hold(now, loud, true);
            }
            None => self.send_refer(now, id),
        }
    }

    /// A hold has its answer: of a transfer that waits for it?
    pub(super) fn on_held_for_transfer(
        &mut self,
        now: Instant,
        id: CallId,
        hold: bool,
        result: Result<(), (u16, String)>,
    ) {
        let waits = |c: &Call| c.transfer.as_ref().is_some_and(|t| !t.asked && t.held.last() == Some(&id));
        let Some(of) = self.calls.iter().find(|(_, c)| waits(c)).map(|(of, _)| *of) else { return };
        match result {
            Ok(()) if hold => self.hold_for_transfer(now, of),
            Ok(()) => self.transfer_failed(now, of, 487, "the call was resumed".to_owned()),
            Err((status, why)) => self.transfer_failed(now, of, status, format!("it could not be put on hold: {why}")),
        }
    }

    fn send_refer(&mut self, now: Instant, id: CallId) {
        let by = self.profile.aor.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(talk), Some(transfer)) = (call.talk.as_mut(), call.transfer.as_mut()) else { return };
        transfer.asked = true;
        let mut refer = talk.dialog.request(Method::Refer);
        refer.push(HeaderName::ReferTo, &transfer.refer_to);
        refer.push(HeaderName::ReferredBy, format_args!("<{by}>"));
        let (hop, link) = (next_hop(&talk.dialog, &talk.made_by), talk.link);
        self.dress(id, &mut refer, link);
        self.timers.set(Timer::Transfer(id), now + PATIENCE);
        self.out.push_back(Output::Request { key: RequestKey::Refer(id), message: refer, hop });
    }

    pub(super) fn on_refer_response(&mut self, now: Instant, id: CallId, status: u16, reason: &str) {
        if status >= 300 {
            self.transfer_failed(now, id, status, reason.to_owned());
        }
    }

    /// A NOTIFY: how a transfer goes.
    pub(super) fn on_notify(&mut self, now: Instant, tx: ServerTxId, id: CallId, request: &Message) {
        if !self.receives(tx, id, request) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let event = request.header(HeaderName::Event).and_then(|e| e.split(';').next()).unwrap_or_default().trim();
        if !event.eq_ignore_ascii_case("refer") {
            let no = self.reply(request, 489, "Bad Event");
            return self.respond(tx, no);
        }
        if !call.transfer.as_ref().is_some_and(|t| t.asked) {
            let no = self.reply(request, 481, "Subscription Does Not Exist");
            return self.respond(tx, no);
        }
        self.respond(tx, Message::reply(request, 200, "OK"));
        let over = request
            .header(HeaderName::SubscriptionState)
            .is_some_and(|s| s.trim().get(..10).is_some_and(|s| s.eq_ignore_ascii_case("terminated")));
        let (status, reason) = match status_of(request.body()) {
            Some(said) => said,
            None if over => (487, "it was given up without a word".to_owned()),
            None => return,
        };
        match status {
            ..=199 if over => self.transfer_failed(now, id, 487, "it was given up".to_owned()),
            ..=199 => self.event(UaEvent::TransferProgress { call: id, status, reason }),
            200..=299 => self.transferred(now, id),
            _ => self.transfer_failed(now, id, status, reason),
        }
    }

    /// The other end talks with somebody else now: this call is done with.
    fn transferred(&mut self, now: Instant, id: CallId) {
        if self.end_transfer(id).is_none() {
            return;
        }
        self.event(UaEvent::TransferAnswered { call: id, result: Ok(()) });
        self.send_bye(id);
        self.finish(now, id, Ending::Completed, 200, "transferred".to_owned());
    }

    fn end_transfer(&mut self, id: CallId) -> Option<Transfer> {
        self.timers.cancel(&Timer::Transfer(id));
        self.calls.get_mut(&id)?.transfer.take()
    }

    pub(super) fn transfer_failed(&mut self, now: Instant, id: CallId, status: u16, reason: String) {
        let Some(transfer) = self.end_transfer(id) else { return };
        self.event(UaEvent::TransferAnswered { call: id, result: Err((status, reason)) });
        for held in transfer.held {
            self.hold(now, held, false);
        }
    }

    /// A REFER: the other end wants this one to call somebody.
    pub(super) fn on_refer(&mut self, tx: ServerTxId, id: CallId, request: &Message) {
        if !self.receives(tx, id, request) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let answered = call.state == State::Answered;
        let number = request.cseq().map_or(0, |c| c.number);
        let busy = call.referral.is_some();
        let target = match target_of(request) {
            Ok(_) if busy || !answered => Err((491, "Another transfer is under way, or the call is not answered")),
            target => target,
        };
        let (to, replaces) = match target {
            Ok(target) => target,
            Err((status, reason)) => {
                let no = self.reply(request, status, reason);
                return self.respond(tx, no);
            }
        };
        let silent = request.header(HeaderName::Other("Refer-Sub")).is_some_and(|v| v.trim().starts_with("false"));
        if let Some(call) = self.calls.get_mut(&id) {
            call.referral = Some(Referral { id: number, silent, told: 0 });
        }
        let link = self.calls.get(&id).and_then(|c| c.talk.as_ref()).is_some_and(|t| t.link);
        let mut accepted = self.reply(request, 202, "Accepted");
        self.dress(id, &mut accepted, link);
        if silent {
            accepted.push(HeaderName::Other("Refer-Sub"), "false");
        }
        self.respond(tx, accepted);
        self.tell_referrer(id, 100, "Trying");
        let referred_by = request.header(HeaderName::ReferredBy).map(str::to_owned);
        self.event(UaEvent::Referred { call: id, to, referred: ReferredCall { replaces, referred_by } });
    }

    /// Begins the call that the other end of `parent` has asked for; [`Ua::targets`] says where to.
    pub fn place_referred(&mut self, now: Instant, parent: CallId, with: String, referred: ReferredCall) -> CallId {
        let play = self.calls.get(&parent).and_then(|c| c.play.clone());
        let id = self.place(now, with, play, None, None);
        if let Some(call) = self.calls.get_mut(&id) {
            (call.referred, call.referrer) = (referred, Some(parent));
        }
        id
    }

    /// What the other end of `parent` has asked for cannot be done.
    pub fn referral_failed(&mut self, parent: CallId, status: u16, reason: &str) {
        self.tell_referrer(parent, status, reason);
    }

    /// Tells whoever has asked for it how a call goes.
    pub(super) fn tell_parent(&mut self, id: CallId, status: u16, reason: &str) {
        if let Some(parent) = self.calls.get(&id).and_then(|c| c.referrer) {
            self.tell_referrer(parent, status, reason);
        }
    }

    fn tell_referrer(&mut self, parent: CallId, status: u16, reason: &str) {
        let Some(call) = self.calls.get_mut(&parent).filter(|c| c.state == State::Answered) else { return };
        let (Some(talk), Some(referral)) = (call.talk.as_mut(), call.referral.as_mut()) else { return };
        if referral.told == status || referral.told >= 200 {
            return;
        }
        referral.told = status;
        let (id, silent) = (referral.id, referral.silent);
        if status >= 200 {
            call.referral = None;
        }
        if silent {
            return;
        }
        let mut notify = talk.dialog.request(Method::Notify);
        notify.push(HeaderName::Event, format_args!("refer;id={id}"));
        let state = match status {
            ..=199 => format!("active;expires={}", PATIENCE.as_secs()),
            _ => "terminated;reason=noresource".to_owned(),
        };
        notify.push(HeaderName::SubscriptionState, state);
        let (hop, link) = (next_hop(&talk.dialog, &talk.made_by), talk.link);
        self.dress(parent, &mut notify, link);
        notify.set_body(SIPFRAG, format!("SIP/2.0 {status} {reason}\r\n").into_bytes());
        self.out.push_back(Output::Request { key: RequestKey::InDialog(parent), message: notify, hop });
    }

    /// Which call an INVITE with Replaces takes the place of (RFC 3891 section 3); none where it has no such field.
    pub(super) fn replaced_by(&self, request: &Message) -> Result<Option<CallId>, (u16, &'static str)> {
        let mut fields = request.headers(HeaderName::Replaces);
        let Some(value) = fields.next() else { return Ok(None) };
        if fields.next().is_some() {
            return Err((400, "More than one Replaces"));
        }
        let mut params = value.split(';').map(str::trim);
        let call_id = params.next().unwrap_or_default().to_owned();
        let (mut local, mut remote, mut early_only) = (None, None, false);
        for param in params {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "to-tag" => local = Some(value.trim().to_owned()),
                "from-tag" => remote = Some(value.trim().to_owned()),
                "early-only" => early_only = true,
                _ => {}
            }
        }
        let (Some(local_tag), Some(remote_tag)) = (local, remote) else { return Err((400, "Replaces without tags")) };
        let dialog = DialogId { call_id, local_tag, remote_tag };
        let gone = Err((481, "Call/Transaction Does Not Exist"));
        let confirmed = |c: &Call| c.talk.as_ref().is_some_and(|t| *t.dialog.id() == dialog);
        let early = |c: &Call| c.forks.iter().any(|f| f.leg.is_some() && *f.talk.dialog.id() == dialog);
        let Some((id, call)) = self.calls.iter().find(|(_, c)| confirmed(c) || early(c)) else { return gone };
        match () {
            () if call.is_over() => Err((603, "Decline")),
            () if confirmed(call) && early_only => Err((486, "Busy Here")),
            () => Ok(Some(*id)),
        }
    }

    /// A call has been answered in the place of another, which ends.
    pub(super) fn end_replaced(&mut self, now: Instant, id: CallId) {
        let Some(old) = self.calls.get_mut(&id).and_then(|c| c.replaces.take()) else { return };
        match self.calls.get(&old).map(|c| c.state) {
            Some(State::Answered) => {
                self.send_bye(old);
                self.finish(now, old, Ending::Completed, 200, "another call took its place".to_owned());
            }
            Some(State::Calling | State::Ringing) => {
                self.cancel_legs(old, None);
                self.finish(now, old, Ending::Failed, 487, "another call took its place".to_owned());
            }
            _ => {}
        }
    }
}

/// The dialog as its other end is to find it: `to-tag` is that end's own.
fn replaces(dialog: &DialogId) -> String {
    format!("{};to-tag={};from-tag={}", dialog.call_id, dialog.remote_tag, dialog.local_tag)
}

/// As the value of a header field within a URI (RFC 3261 section 25.1, `hvalue`).
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'(' | b')' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Who is to be called, and in the place of which call.
fn target_of(refer: &Message) -> Result<(String, Option<String>), (u16, &'static str)> {
    let bad = (400, "One Refer-To with a URI is needed");
    let mut fields = refer.headers(HeaderName::ReferTo);
    let target = fields.next().and_then(|value| NameAddr::parse(value).ok()).ok_or(bad)?;
    if fields.next().is_some() {
        return Err(bad);
    }
    let mut uri: Uri = target.uri;
    let method = uri.params.get("method").map(str::to_owned);
    if !uri.is_sip() || method.is_some_and(|m| m != "INVITE") {
        return Err((403, "Only calls are placed by a REFER"));
    }
    let replaces = uri.header("Replaces").map(|v| v.into_owned());
    uri.headers.clear();
    uri.params.remove("method");
    Ok((uri.to_string(), replaces))
}

/// The status line of a `message/sipfrag`.
fn status_of(body: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(body).ok()?;
    let mut words = text.lines().next()?.splitn(3, ' ');
    let version = words.next()?;
    let status: u16 = words.next()?.trim().parse().ok()?;
    let fits = version.eq_ignore_ascii_case("SIP/2.0") && (100..700).contains(&status);
    fits.then(|| (status, words.next().unwrap_or_default().trim().chars().take(100).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_goes_into_a_uri_and_comes_out_again() {
        let dialog = DialogId { call_id: "a b%c@x".into(), local_tag: "me".into(), remote_tag: "the;m".into() };
        let mut refer = Message::request(Method::Refer, "sip:bob@example.com");
        let value = replaces(&dialog);
        refer.push("Refer-To", format!("<sip:carol@example.com;transport=tcp?Replaces={}>", escaped(&value)));
        assert_eq!(target_of(&refer), Ok(("sip:carol@example.com;transport=tcp".into(), Some(value))));
    }

    #[test]
    fn a_refer_that_asks_for_anything_else_is_refused() {
        let status = |fields: &[&str]| {
            let mut refer = Message::request(Method::Refer, "sip:bob@example.com");
            fields.iter().for_each(|f| refer.push("Refer-To", f));
            target_of(&refer).map_err(|e| e.0).err()
        };
        assert_eq!(status(&["<sip:carol@example.com;method=INVITE>"]), None);
        assert_eq!(status(&["sip:carol@example.com"]), None);
        assert_eq!(status(&[]), Some(400));
        assert_eq!(status(&["<sip:a@b>", "<sip:c@d>"]), Some(400));
        assert_eq!(status(&["<sip:carol@example.com;method=BYE>"]), Some(403));
        assert_eq!(status(&["<https://example.com>"]), Some(403));
    }

    #[test]
    fn what_a_notify_says() {
        assert_eq!(status_of(b"SIP/2.0 180 Ringing\r\nTo: x\r\n"), Some((180, "Ringing".into())));
        assert_eq!(status_of(b"SIP/2.0 200"), Some((200, String::new())));
        for bad in [&b""[..], b"SIP/2.0", b"HTTP/1.1 200 OK", b"SIP/2.0 99 x", b"SIP/2.0 7000 x", b"\xff"] {
            assert_eq!(status_of(bad), None);
        }
    }
}
