//! Calls that come in by an account. Taken for such is what comes from a server of the account (its flow, the addresses found for it, or
//! what the owner lists) for the contact that the registrar alone was told. Everybody else who names that contact is a stranger as before.
//!
//! The registrar's word on its caller counts (P-Asserted-Identity, RFC 3325), nobody else's; who withheld the number (Privacy, RFC 3323) is
//! shown to nobody here. The call rings its user as any call does, on all devices: what the other devices of the user show comes in
//! the field `Outside-Caller` over the link, which only a device of the same user may say, or in an office a member's: it is shown whose.

use super::{Node, PHONE};
use crate::config::Strangers;
use crate::core::{Flow, Instant};
use crate::identity::TrustAnchor;
use crate::pbx::Origin;
use crate::sip::msg::{HeaderName, Message, Method, NameAddr, Uri};
use crate::sip::tx::ServerTxId;
use crate::ua::{AccountId, Arrival};

/// Calls remembered, the oldest given up first.
const CALLERS: usize = 256;
/// Longest text of a caller.
const LONGEST: usize = 200;
pub(in crate::node) use crate::pbx::policy::OUTSIDE_CALLER as SHOWN;

/// A call that came in by an account.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    call_id: String,
    account: Option<AccountId>,
    shown: Shown,
}

/// How such a call is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::node) struct Shown {
    /// The account's name.
    pub account: String,
    /// The caller's URI, or `anonymous`.
    pub from: String,
    /// For whom it was before it was diverted here; empty where it was not.
    pub diverted: String,
}

impl Node {
    /// A request from a server of an account, outside of any dialog; false where it is none.
    pub(in crate::node) fn arrives_outside(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: &Flow,
    ) -> bool {
        let Some(id) = self.account_named(message).filter(|id| self.is_of_account(*id, flow)) else { return false };
        match message.method() {
            Method::Options => self.ua.on_request(now, tx, message, *flow, false),
            Method::Invite => self.call_arrives(now, tx, message, flow, id),
            // What a phone takes from anybody.
            _ if id == PHONE => return false,
            _ => self.answer(now, tx, message, 405, "Method Not Allowed"),
        }
        true
    }

    fn call_arrives(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: &Flow, id: AccountId) {
        let mut message = message.clone();
        let shown = Shown { account: self.account_name(id), ..Shown::of(&message) };
        let claims = message.from().ok().and_then(|from| self.domain.user_of(&from.uri));
        if claims.is_some() && self.overlay.is_some() {
            self.count("calls of accounts that name a user of this overlay");
            return self.answer(now, tx, &message, 403, "The caller is not of this overlay");
        }
        self.note_caller(&message, Some(id), shown.clone());
        shown.hide(&mut message);
        if self.overlay.is_none() {
            return self.ring_here(now, tx, &message, *flow, false);
        }
        let user = self.rings(id, &message);
        message.set_request_uri(&Uri::sip(Some(&user), self.domain.overlay(), None).to_string());
        message.remove(HeaderName::Route);
        message.set(SHOWN, shown.text());
        let seen =
            self.ua.account(id).and_then(|a| Some(std::net::SocketAddr::new(a.contact().ip()?, a.contact().port?)));
        self.router.on_request(now, tx, message, flow, &Origin::Account { seen });
    }

    /// Hands a request to the user agent; a call that came in by an account, with what is known of it.
    pub(in crate::node) fn ring_here(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: Flow,
        link: bool,
    ) {
        if *message.method() == Method::Invite && message.to_tag().is_none() {
            let caller = self.caller_outside(message.call_id().unwrap_or_default());
            let arrival = caller.map(|c| Arrival { account: c.account, from: c.shown.from.clone() });
            self.ua.arrives(arrival);
        }
        self.ua.on_request(now, tx, message, flow, link);
    }

    /// What another device of this user says of a call that came in by an account there; true where it may.
    pub(in crate::node) fn heard_of_outside(&mut self, message: &Message, flow: &Flow) -> bool {
        let Some(text) = message.header(SHOWN) else { return false };
        let Some(identity) = &self.identity else { return false };
        let own = identity.verified(self.clock.1).ok().map(|v| v.user_key);
        let Some(peer) = self.flows.peer(flow) else { return false };
        // In an office every member is known to it; elsewhere a user's own devices alone are.
        let own = own == Some(peer.user_key);
        let office = matches!(identity.anchor, TrustAnchor::Office { .. })
            && self.setup.config.user.strangers != Strangers::Nobody;
        let Some(shown) = Shown::read(text).filter(|_| office || own) else { return false };
        let account = if own { shown.account } else { format!("{} of {}", shown.account, peer.user) };
        self.note_caller(message, None, Shown { account, ..shown });
        true
    }

    /// A call from outside is shown so, should it ring here.
    pub(in crate::node) fn note_outside(&mut self, message: &Message, shown: &Shown) {
        self.note_caller(message, None, shown.clone());
    }

    fn note_caller(&mut self, message: &Message, account: Option<AccountId>, shown: Shown) {
        let call_id = message.call_id().unwrap_or_default().to_owned();
        self.outside.callers.retain(|c| c.call_id != call_id);
        if self.outside.callers.len() >= CALLERS {
            self.outside.callers.pop_front();
        }
        self.outside.callers.push_back(Caller { call_id, account, shown });
    }

    fn caller_outside(&self, call_id: &str) -> Option<&Caller> {
        self.outside.callers.iter().rev().find(|c| c.call_id == call_id)
    }

    /// How the call with this Call-ID is shown, where it came in by an account.
    pub(in crate::node) fn shown_outside(&self, call_id: &str) -> Option<Shown> {
        self.caller_outside(call_id).map(|c| c.shown.clone())
    }
}

/// Who withheld the number.
const ANONYMOUS: &str = "anonymous";

impl Shown {
    /// Who calls, and for whom, as a registrar or a proxy says.
    pub fn of(message: &Message) -> Shown {
        shown(message)
    }

    /// Who withheld the number is asserted to nobody.
    pub fn hide(&self, message: &mut Message) {
        if self.from == ANONYMOUS {
            message.remove(HeaderName::PAssertedIdentity);
        }
    }

    /// For the field.
    pub fn text(&self) -> String {
        format!("{} <{}> <{}>", self.account, self.from, self.diverted)
    }

    fn read(text: &str) -> Option<Shown> {
        let (account, rest) = text.split_once(" <")?;
        let (from, rest) = rest.split_once("> <")?;
        let diverted = rest.strip_suffix('>')?;
        let fits = |s: &str| s.len() <= LONGEST && !s.contains(['<', '>']) && !s.chars().any(char::is_control);
        (fits(account) && fits(from) && fits(diverted)).then(|| Shown {
            account: account.to_owned(),
            from: from.to_owned(),
            diverted: diverted.to_owned(),
        })
    }
}

/// Who calls, and for whom, as a registrar says.
fn shown(message: &Message) -> Shown {
    let private = message
        .values(HeaderName::Privacy)
        .flat_map(|v| v.split(';'))
        .any(|v| ["id", "user", "header", "full"].iter().any(|p| v.trim().eq_ignore_ascii_case(p)));
    let asserted = message.addresses(HeaderName::PAssertedIdentity).ok().and_then(|all| all.into_iter().next());
    let from = asserted.map(|a| a.uri).or(message.from().ok().map(|f| f.uri));
    let from = match from {
        Some(uri) if !private && !uri.host.eq_ignore_ascii_case("anonymous.invalid") => plain(&uri),
        _ => ANONYMOUS.to_owned(),
    };
    Shown { account: String::new(), from, diverted: diverted(message).unwrap_or_default() }
}

/// For whom the call was before: the first of Diversion (RFC 5806), else the entry of History-Info (RFC 7044) before the last.
fn diverted(message: &Message) -> Option<String> {
    if let Some(first) = message.addresses(HeaderName::Diversion).ok().and_then(|all| all.into_iter().next()) {
        return Some(plain(&first.uri));
    }
    let history = message.addresses(HeaderName::HistoryInfo).ok()?;
    let before = history.len().checked_sub(2)?;
    let entry: &NameAddr = history.get(before)?;
    Some(plain(&entry.uri))
}

/// A URI without what is no part of an address, and no longer than is shown.
fn plain(uri: &Uri) -> String {
    let mut text = uri.canonical_aor();
    text.retain(|c| !c.is_control() && !matches!(c, '<' | '>'));
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(fields: &[(&str, &str)]) -> Message {
        let mut invite = Message::request(Method::Invite, "sip:x@192.0.2.1");
        invite.push("From", "<sip:joe@elsewhere.test>;tag=1");
        fields.iter().for_each(|(name, value)| invite.push(*name, value));
        invite
    }

    #[test]
    fn who_is_shown() {
        let from = |fields: &[(&str, &str)]| shown(&invite(fields)).from;
        assert_eq!(from(&[]), "sip:joe@elsewhere.test");
        let asserted = ("P-Asserted-Identity", "\"Joe\" <sip:+4930@itsp.test;user=phone>, <tel:+4930>");
        assert_eq!(from(&[asserted]), "sip:+4930@itsp.test");
        assert_eq!(from(&[asserted, ("Privacy", "critical;id")]), ANONYMOUS);
        assert_eq!(from(&[asserted, ("Privacy", "none")]), "sip:+4930@itsp.test");
        let long = format!("<sip:{}@itsp.test>", "x".repeat(1000));
        assert_eq!(from(&[("P-Asserted-Identity", &long)]).len(), LONGEST);
    }

    #[test]
    fn for_whom_it_was() {
        let was = |fields: &[(&str, &str)]| shown(&invite(fields)).diverted;
        assert_eq!(was(&[]), "");
        assert_eq!(was(&[("Diversion", "<sip:boss@a.test>;reason=no-answer, <sip:old@a.test>")]), "sip:boss@a.test");
        let history = "<sip:boss@a.test>;index=1, <sip:anna@192.0.2.1>;index=1.1";
        assert_eq!(was(&[("History-Info", history)]), "sip:boss@a.test");
        assert_eq!(was(&[("History-Info", "<sip:anna@a.test>;index=1")]), "");
    }

    #[test]
    fn another_device_reads_what_was_written() {
        let shown = Shown { account: "work".into(), from: "sip:+4930@itsp.test".into(), diverted: String::new() };
        assert_eq!(Shown::read(&shown.text()), Some(shown));
        for wrong in ["", "work", "work <a>", "work <a> <b> c", "w <a<> <b>"] {
            assert_eq!(Shown::read(wrong), None, "{wrong}");
        }
    }
}
