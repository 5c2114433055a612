//! A peer as the location service of plain SIP proxies (`sip.redirect`): an INVITE from one of them is answered 302 (RFC 3261 section
//! 8.3) with where its callee is. A standard phone that registered here and that others reach by itself stands there with its own
//! contact. Whoever else the overlay knows is reached through this peer: a contact of its own, with the parameter `overlay`, by which the
//! same proxies may have the call carried on.
//!
//! Left out: other methods than INVITE, and contacts of peers themselves, whose links no proxy can open.

use super::Node;
use super::lookup::Op;
use super::outside::Shown;
use super::ring::State;
use crate::core::{Flow, Instant};
use crate::identity::{EntryKind, SignedEntry};
use crate::nat::turn::peers::Prefix;
use crate::pbx::{Candidate, Origin, Target};
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use crate::sip::tx::ServerTxId;
use std::collections::BTreeMap;

/// Requests that wait for a lookup at once.
const WAITING: usize = 1024;
/// The parameter of contacts that lead through this peer.
const THROUGH: &str = "overlay";

/// Requests that wait.
#[derive(Debug, Default)]
pub(super) struct Redirecting {
    waiting: BTreeMap<ServerTxId, Message>,
}

impl Node {
    /// An INVITE from one of the proxies, outside of any dialog; false where it is none.
    pub(super) fn redirects(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: &Flow) -> bool {
        if *message.method() != Method::Invite || self.overlay.is_none() || !self.is_of_proxy(flow) {
            return false;
        }
        let Ok(uri) = Uri::parse(message.request_uri()) else { return false };
        let Some(user) = self.domain.callee_of(&uri).map(|u| u.to_ascii_lowercase()) else { return false };
        // A user of this overlay proves it as ever: a proxy's word is good for callers from outside.
        if message.from().ok().is_none_or(|from| self.domain.user_of(&from.uri).is_some()) {
            return false;
        }
        if uri.params.has(THROUGH) {
            self.carry_on(now, tx, message, flow, &user);
            return true;
        }
        if self.redirecting.waiting.len() >= WAITING {
            self.answer(now, tx, message, 503, "Service Unavailable");
            return true;
        }
        self.redirecting.waiting.insert(tx, message.clone());
        match self.ring.state() {
            State::In => self.lookup_people(now, Op::Redirect { tx }, &self.domain.aor(&user)),
            _ => self.on_redirect_found(now, tx, &[]),
        }
        true
    }

    fn is_of_proxy(&self, flow: &Flow) -> bool {
        let proxies = self.setup.config.sip.redirect.iter().filter_map(|p| p.parse::<Prefix>().ok());
        proxies.into_iter().any(|proxy| proxy.contains(flow.remote.ip()))
    }

    /// The proxy follows a contact that leads through this peer.
    fn carry_on(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: &Flow, user: &str) {
        let mut message = message.clone();
        let shown = Shown { account: format!("proxy {}", flow.remote.ip()), ..Shown::of(&message) };
        self.note_outside(&message, &shown);
        shown.hide(&mut message);
        message.set_request_uri(&Uri::sip(Some(user), self.domain.overlay(), None).to_string());
        message.remove(HeaderName::Route);
        message.set(super::outside::SHOWN, shown.text());
        self.router.on_request(now, tx, message, flow, &Origin::Account { seen: None });
    }

    /// The callee was looked up.
    pub(super) fn on_redirect_found(&mut self, now: Instant, tx: ServerTxId, entries: &[SignedEntry]) {
        let Some(message) = self.redirecting.waiting.remove(&tx) else { return };
        let user = Uri::parse(message.request_uri()).ok().and_then(|uri| self.domain.callee_of(&uri));
        let user = user.unwrap_or_default().to_ascii_lowercase();
        let local = self.registrar.targets(now, &user);
        let hosted = self.is_own(&user) || self.registrar.hosts(&user);
        let contact = |e: &SignedEntry| e.entry().kind == EntryKind::Contact && !e.entry().is_removal();
        let elsewhere = entries.iter().any(contact);
        let through = elsewhere || self.is_own(&user) || local.iter().any(|c| !by_itself(c));
        let mut contacts: Vec<(String, u16)> =
            local.iter().filter(|c| by_itself(c)).map(|c| (c.target.uri().to_owned(), c.q)).collect();
        contacts.sort_by_key(|(_, q)| std::cmp::Reverse(*q));
        if contacts.is_empty() && !through {
            let (status, reason) = if hosted { (480, "Temporarily Unavailable") } else { (404, "Not Found") };
            return self.answer(now, tx, &message, status, reason);
        }
        let mut moved = Message::reply(&message, 302, "Moved Temporarily");
        moved.set_to_tag(&self.rng.token(6));
        for (uri, q) in contacts {
            moved.push(HeaderName::Contact, format_args!("<{uri}>;q={}.{:03}", q / 1000, q % 1000));
        }
        if through {
            let here = self.flows.locals().sip;
            let mut uri = Uri::sip(Some(&user), &here.ip().to_string(), Some(here.port()));
            uri.params.set_flag(THROUGH);
            moved.push(HeaderName::Contact, format_args!("<{uri}>;q=0.500"));
        }
        self.count("calls of proxies redirected");
        self.tx.respond(now, tx, moved);
    }

    /// An INVITE that waits was cancelled.
    pub(super) fn cancel_redirect(&mut self, now: Instant, invite: ServerTxId) {
        if let Some(message) = self.redirecting.waiting.remove(&invite) {
            self.answer(now, invite, &message, 487, "Request Terminated");
        }
    }
}

/// Reached at its own contact, by anybody.
fn by_itself(candidate: &Candidate) -> bool {
    matches!(candidate.target, Target::Uri { .. })
}
