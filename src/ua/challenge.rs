//! Challenges (RFC 3261 section 22), to a call's INVITE and to requests within it: a registrar or proxy that wants credentials for an INVITE wants them
//! for what follows it too. Each request is tried once more, with the next number of its dialog.

use super::{CallId, Output, RequestKey, Ua};
use crate::core::Redacted;
use crate::sip::auth::{self, Credentials};
use crate::sip::dialog::DialogId;
use crate::sip::msg::{HeaderName, Message};

/// Requests of one call that may yet be challenged.
const ASKED: usize = 8;

impl Ua {
    /// Answers a challenge once; false when there is nothing to answer it with.
    pub(super) fn authorize(&mut self, id: CallId, index: usize, response: &Message) -> bool {
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.legs.get_mut(index)) else { return false };
        if leg.authorized || leg.cancelled {
            return false;
        }
        let cnonce = self.rng.token(8);
        let mut invite = leg.invite.clone();
        let account = self.calls.get(&id).and_then(|c| c.account);
        if !credentials(&mut invite, response, self.credentials_of(account).as_ref(), &cnonce) {
            return false;
        }
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.legs.get_mut(index)) else { return false };
        leg.authorized = true;
        self.invite_again(id, index, invite);
        true
    }

    /// Sends a leg's INVITE once more, changed.
    pub(super) fn invite_again(&mut self, id: CallId, index: usize, mut invite: Message) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // What the refused one has made is over with it.
        call.forks.retain(|f| f.leg != Some(index));
        let Some(leg) = call.legs.get_mut(index) else { return };
        leg.cseq += 1;
        invite.set(HeaderName::CSeq, format_args!("{} INVITE", leg.cseq));
        leg.invite = invite.clone();
        leg.tx = None;
        let hop = leg.target.hop.clone();
        self.out.push_back(Output::Request { key: RequestKey::Invite(id, index), message: invite, hop });
    }

    /// Keeps a request that leaves for the case that it is challenged.
    pub(super) fn remember_asked(&mut self, output: &Output) {
        let Output::Request { key, message, hop } = output else { return };
        let tried = || message.has(HeaderName::Authorization) || message.has(HeaderName::ProxyAuthorization);
        let Some(id) = call_of(*key) else { return };
        if self.account_of(id).is_none_or(|a| a.config().credentials.is_none()) || tried() {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.asked.push_back((message.clone(), hop.clone()));
        if call.asked.len() > ASKED {
            call.asked.pop_front();
        }
    }

    /// Answers a 401 or 407 to a request within a call; false where that cannot be.
    pub(super) fn authorize_within(&mut self, key: RequestKey, response: &Message) -> bool {
        let Some(id) = call_of(key) else { return false };
        let Some(call) = self.calls.get_mut(&id) else { return false };
        let account = call.account;
        let Ok(cseq) = response.cseq() else { return false };
        let same = |m: &Message| m.cseq().is_ok_and(|c| c.number == cseq.number) && m.from_tag() == response.from_tag();
        let Some(at) = call.asked.iter().position(|(m, _)| same(m)) else { return false };
        let Some((mut message, hop)) = call.asked.remove(at) else { return false };
        let cnonce = self.rng.token(8);
        if !credentials(&mut message, response, self.credentials_of(account).as_ref(), &cnonce) {
            return false;
        }
        let Some(call) = self.calls.get_mut(&id) else { return false };
        let (Some(call_id), Some(local_tag)) = (message.call_id(), message.from_tag()) else { return false };
        let (call_id, local_tag) = (call_id.to_owned(), local_tag.to_owned());
        let dialog = DialogId { call_id, local_tag, remote_tag: message.to_tag().unwrap_or_default().to_owned() };
        let Some(talk) = call.talk_of(&dialog) else { return false };
        let number = talk.dialog.renumber(&mut message);
        match key {
            RequestKey::Update(_) => talk.update = Some(number),
            RequestKey::Reoffer(_) => {
                if let Some(reoffer) = talk.reoffer.as_mut() {
                    reoffer.invite = message.clone();
                }
            }
            _ => {}
        }
        self.out.push_back(Output::Request { key, message, hop });
        true
    }
}

fn call_of(key: RequestKey) -> Option<CallId> {
    match key {
        RequestKey::InDialog(id) | RequestKey::Reoffer(id) | RequestKey::Update(id) | RequestKey::Refer(id) => Some(id),
        RequestKey::Invite(..) | RequestKey::Register(_) | RequestKey::Message(_) => None,
    }
}

/// Puts credentials for the challenges of `response` into `request`; false when none can be answered.
pub(super) fn credentials(
    request: &mut Message,
    response: &Message,
    known: Option<&(String, Redacted<String>)>,
    cnonce: &str,
) -> bool {
    let Some((user, password)) = known else { return false };
    let (asked, answer_in) = match response.status() {
        407 => (HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
        _ => (HeaderName::WwwAuthenticate, HeaderName::Authorization),
    };
    let Ok(challenge) = auth::choose(response.headers(asked)) else { return false };
    let value = auth::answer(
        &challenge,
        &Credentials {
            user,
            password: password.reveal(),
            method: request.method().as_str(),
            uri: request.request_uri(),
            body: request.body(),
            nc: 1,
            cnonce,
        },
    );
    request.set(answer_in, value);
    true
}
