//! INFO within a call: candidates that were found late (RFC 8840, RFC 6086), and digits from ends that send them so
//! (`application/dtmf-relay` and `application/dtmf`, which no RFC describes and many gateways use).

use super::call::State;
use super::outgoing::next_hop;
use super::{CallId, Output, RequestKey, Ua, UaEvent};
use crate::sdp::ice::{FRAGMENT_TYPE, INFO_PACKAGE, Ice};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::ServerTxId;

/// Which INFO packages are taken (RFC 6086 section 7.2).
pub(super) const RECV_INFO: HeaderName<'static> = HeaderName::Other("Recv-Info");
/// Which one an INFO is of.
const PACKAGE: HeaderName<'static> = HeaderName::Other("Info-Package");

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
        if !self.receives(tx, id, request) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Some(digit) = digit_of(request) {
            self.respond(tx, Message::reply(request, 200, "OK"));
            return self.event(UaEvent::Digit { call: id, digit });
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
}

/// The digit of an INFO that brings one: `Signal=5` among further lines, or the digit alone.
fn digit_of(request: &Message) -> Option<char> {
    let text = std::str::from_utf8(request.body()).ok()?;
    let signal = if request.content_is("application/dtmf-relay") {
        let fields = text.lines().filter_map(|line| line.split_once('='));
        let mut signals = fields.filter(|(name, _)| name.trim().eq_ignore_ascii_case("Signal")).map(|(_, v)| v.trim());
        signals.next()?
    } else if request.content_is("application/dtmf") {
        text.trim()
    } else {
        return None;
    };
    // Some write the event's number (RFC 4733 section 3.2) for the two that are no digits.
    match signal {
        "10" => Some('*'),
        "11" => Some('#'),
        _ => {
            let mut letters = signal.chars();
            let digit = letters.next()?.to_ascii_uppercase();
            (letters.next().is_none() && "0123456789*#ABCD".contains(digit)).then_some(digit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_from_both_kinds_of_body() {
        let info = |kind: &str, body: &str| {
            let mut info = Message::request(Method::Info, "sip:bob@example.com");
            info.set_body(kind, body.as_bytes().to_vec());
            digit_of(&info)
        };
        assert_eq!(info("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"), Some('5'));
        assert_eq!(info("application/dtmf-relay", "Duration=100\nsignal = #\n"), Some('#'));
        assert_eq!(info("Application/DTMF-Relay", "Signal=10\r\n"), Some('*'));
        assert_eq!(info("application/dtmf", "a\r\n"), Some('A'));
        for (kind, body) in [
            ("application/dtmf-relay", "Signal=12\r\n"),
            ("application/dtmf-relay", "Duration=5"),
            ("application/dtmf", ""),
            ("text/plain", "5"),
        ] {
            assert_eq!(info(kind, body), None, "{kind} {body}");
        }
    }
}
