//! Exchanges: what two nodes ask each other that is neither overlay nor call. Each is a `REGISTER` to the peer itself over a
//! link, with a body of a type of its own, and a final answer with a body of the same type; a type is one row of
//! [`ROWS`] (members) or in `on_stranger` (whoever shows no chain that holds).

use super::behaviour::NAT_TYPE;
use super::detour::Sent;
use super::relay::RELAY_TYPE;
use super::twin::TWIN_TYPE;
use super::{Node, Owner};
use crate::core::{Flow, Id, Instant};
use crate::identity::login::{SHARE_TYPE, ShareAnswer};
use crate::identity::{BOOK_TYPE, CERTIFY_TYPE, InviteCode, OWNER_TYPE, PHONE_TYPE, REVOCATIONS_TYPE, TrustAnchor};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Most exchanges of ours under way at once.
const UNDER_WAY: usize = 512;

/// What one of our requests was for; its answer comes back with it.
#[derive(Debug)]
pub(super) enum Asked {
    /// Which revocations the other end has.
    Revocations { to: Hop, rounds: u8 },
    /// Certificates, of an enroller or of who knows one.
    Certificates(Box<super::certify::Wanted>),
    /// Another enroller's book.
    Book { to: Hop, rounds: u8 },
    /// Another device to become an enroller.
    Owner(Box<super::office::Owner>),
    /// Whether another program than this one holds this device's key.
    Twin,
    /// Another office to take this one in.
    Offer { request: super::RequestId, code: InviteCode, office: TrustAnchor, flow: Flow },
    /// The same for this device.
    Move { office: TrustAnchor, flow: Flow },
    /// Somebody who may have been of this office.
    Seek { flow: Flow, round: u8, rest: VecDeque<SocketAddr> },
    /// A further adapter of a phone.
    Share(Box<super::adapters::Sharing>),
    /// Something about password log-ins.
    Login(super::login::LoginAsked),
    /// A credential of a relay.
    Relay { search: u64, peer: Id, sent: Instant },
    /// A packet to this node's NAT.
    Nat,
}

/// What takes a member's request of one type.
type On = fn(&mut Node, Instant, ServerTxId, &Message, Flow);

/// Every type and who takes it.
const ROWS: [(&str, On); 9] = [
    (SHARE_TYPE, Node::on_share_request),
    (REVOCATIONS_TYPE, Node::on_revocations),
    (CERTIFY_TYPE, Node::on_certify),
    (BOOK_TYPE, Node::on_book),
    (TWIN_TYPE, Node::on_twin_asked),
    (PHONE_TYPE, Node::on_phone_word),
    (RELAY_TYPE, Node::on_relay_asked),
    (NAT_TYPE, Node::on_nat_asked),
    (OWNER_TYPE, |node, now, tx, message, _| node.on_owner(now, tx, message)),
];

/// Our requests that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    waiting: BTreeMap<u64, Asked>,
    last: u64,
}

/// A final answer: status, and the body where it is of the type that was asked with.
#[derive(Debug)]
pub(super) struct Answer {
    /// SIP status; 503 when the peer could not be asked or did not answer.
    pub status: u16,
    /// Empty unless the status is 200.
    pub body: Vec<u8>,
}

impl Node {
    /// Asks the peer at `to`; [`Node::on_exchanged`] gets the answer, at the latest when the link is given up.
    pub(super) fn exchange(&mut self, now: Instant, to: &Hop, content_type: &str, body: Vec<u8>, asked: Asked) {
        let (Some(me), Some(target)) = (self.overlay.as_ref().map(|o| o.me()), target(to)) else {
            return self.on_exchanged(now, asked, Answer { status: 503, body: Vec::new() });
        };
        if self.exchanges.waiting.len() >= UNDER_WAY {
            self.count("exchanges given up because too many were under way");
            return self.on_exchanged(now, asked, Answer { status: 503, body: Vec::new() });
        }
        let own = self.setup.peer_uri(None, &me);
        let mut message = Message::request(Method::Register, &target);
        message.push(HeaderName::MaxForwards, 1);
        message.push(HeaderName::From, format_args!("<{own}>;tag={}", self.rng.token(8)));
        message.push(HeaderName::To, format_args!("<{target}>"));
        message.push(HeaderName::CallId, self.rng.token(12));
        message.push(HeaderName::CSeq, "1 REGISTER");
        message.set_body(content_type, body);
        self.exchanges.last += 1;
        let id = self.exchanges.last;
        self.exchanges.waiting.insert(id, asked);
        if self.send_request(now, message, to, Owner::Exchange(id)) == Sent::No {
            self.on_exchange_failed(now, id, 503);
        }
    }

    /// A final or provisional response to one of our requests.
    pub(super) fn on_exchange_response(&mut self, now: Instant, id: u64, message: &Message) {
        if message.status() < 200 {
            return;
        }
        if let Some(asked) = self.exchanges.waiting.remove(&id) {
            let body = if message.status() == 200 { message.body().to_vec() } else { Vec::new() };
            self.on_exchanged(now, asked, Answer { status: message.status(), body });
        }
    }

    pub(super) fn on_exchange_failed(&mut self, now: Instant, id: u64, status: u16) {
        if let Some(asked) = self.exchanges.waiting.remove(&id) {
            self.on_exchanged(now, asked, Answer { status, body: Vec::new() });
        }
    }

    /// An exchange of ours has ended.
    fn on_exchanged(&mut self, now: Instant, asked: Asked, answer: Answer) {
        match asked {
            Asked::Revocations { to, rounds } => self.on_revocations_answered(now, to, rounds, &answer),
            Asked::Certificates(wanted) => self.on_certificates(now, *wanted, &answer),
            Asked::Book { to, rounds } => self.on_book_answered(now, &to, rounds, &answer),
            Asked::Owner(owner) => self.on_owner_answered(now, *owner, &answer),
            Asked::Twin => self.on_twin_answered(&answer),
            Asked::Offer { request, code, office, flow } => self.on_terms(now, (request, code, office, flow), &answer),
            Asked::Move { office, flow } => self.on_move_answered(now, &office, flow, &answer),
            Asked::Seek { flow, round, rest } => self.on_successor_told(now, (flow, round, rest), &answer),
            Asked::Share(sharing) => self.on_shared(now, *sharing, &answer),
            Asked::Relay { search, peer, sent } => self.on_relay_answered(now, search, peer, sent, &answer),
            Asked::Nat => self.on_nat_answered(now, answer.status),
            Asked::Login(asked) => {
                let answer = if answer.status == 200 { ShareAnswer::decode(&answer.body).ok() } else { None };
                self.on_share_answer(now, asked, answer);
            }
        }
    }

    /// A member's request; false when it is none of these. The link's other end is `self.flows.peer(&flow)`.
    pub(super) fn on_exchange(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) -> bool {
        if *message.method() != Method::Register {
            return false;
        }
        let Some((_, on)) = ROWS.iter().find(|(content_type, _)| message.content_is(content_type)) else {
            return false;
        };
        on(self, now, tx, message, flow);
        true
    }

    /// Answers an exchange.
    pub(super) fn answer_exchange(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        request: &Message,
        content_type: &str,
        body: Vec<u8>,
    ) {
        let mut ok = Message::reply(request, 200, "OK");
        ok.set_to_tag(&self.rng.token(6));
        ok.set_body(content_type, body);
        self.tx.respond(now, tx, ok);
    }
}

/// The URI of the peer itself.
fn target(to: &Hop) -> Option<String> {
    match to {
        Hop::Peer { id, addr } | Hop::Path { id, addr, .. } => {
            Some(format!("sip:peer@{addr};transport=tls;peer-ID={id}"))
        }
        Hop::Flow(flow) => Some(format!("sip:peer@{};transport=tls", flow.remote)),
        Hop::Uri(uri) => Some(uri.to_string()),
        Hop::Account { .. } => None,
    }
}
