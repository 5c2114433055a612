//! Two offices become one: an administrator of the one that stays shows a code, an administrator of the other brings its people in by
//! it, and says so to everybody there. Each device then goes over by itself (`moving`).
//!
//! The two administrators' devices speak over a link between two overlays: each proves by its chain who it is in its own office, the code says
//! which root is meant, and only who has the code is listened to.

use super::control::{CommandError, Event, MergeReport, Renamed, Reply, RequestId};
use super::exchange::{Answer, Asked};
use super::flows::Wire;
use super::office::{NOT_HERE, WHERE};
use super::{Node, Output, Saved};
use crate::core::{ConnId, Flow, Instant};
use crate::identity::{
    Ask, CodeKind, EnrolError, Foreign, InviteCode, MERGE_CODE_LIFETIME, MERGE_LIFETIME, MERGE_TYPE, MergeOffer,
    MergeTerms, Merges, MoveAsk, Named, Proven, PublicKey, Revocation, Revocations, RevokedKey, Root, RootFingerprint,
    Successor, TrustAnchor,
};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Most addresses in a code, to keep it short enough to be typed.
const CODE_ADDRESSES: usize = 3;

/// Why a link to another office is dialled.
#[derive(Debug)]
pub(super) enum Errand {
    /// To offer it this office.
    Offer { request: RequestId, code: InviteCode },
    /// To be taken in.
    Move { office: TrustAnchor },
    /// To hear whether this office continues elsewhere.
    Seek,
}

/// What is on the way to another office.
#[derive(Debug, Default)]
pub(super) struct Merging {
    pub merges: Merges,
    dials: BTreeMap<ConnId, (Errand, VecDeque<SocketAddr>)>,
}

impl Merging {
    pub fn new(merges: Merges) -> Merging {
        Merging { merges, dials: BTreeMap::new() }
    }
}

impl Node {
    /// `office merge`: shows a code, or brings this office in by one.
    pub(super) fn office_merge(&mut self, now: Instant, request: RequestId, code: Option<&str>) {
        let answer = match code {
            None => self.merge_code(now),
            Some(code) => match self.code_to_merge_by(code) {
                Ok(code) => {
                    let addrs = code.addrs.iter().copied().collect();
                    return self.run_errand(now, Errand::Offer { request, code }, addrs);
                }
                Err(error) => Err(error),
            },
        };
        self.reply(request, answer);
    }

    fn merge_code(&mut self, now: Instant) -> Result<Reply, CommandError> {
        let unix = self.unix(now);
        let mut addrs = self.own_addresses();
        addrs.truncate(CODE_ADDRESSES);
        let root = self.enroller().map(|e| e.certificate().issuer);
        let root = root.ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        let code = self.merging.merges.code(&root, &addrs, unix, &mut self.rng).map_err(|fault| {
            CommandError::new(format!("no code: {fault}"), "use one that is open, or wait until it is void")
        })?;
        Ok(Reply::Invite { code: code.text(), expires: MERGE_CODE_LIFETIME.as_secs() })
    }

    fn code_to_merge_by(&self, code: &str) -> Result<InviteCode, CommandError> {
        let root = self.enroller().map(|e| RootFingerprint::of(&e.certificate().issuer));
        let root = root.ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        let code = InviteCode::parse(code)
            .map_err(|fault| CommandError::new(format!("the code cannot be read: {fault}"), "type it again"))?;
        if code.kind != CodeKind::Merge {
            let next = "have an administrator of the other office type chordial office merge, and take that code";
            return Err(CommandError::new("this code is not for merging offices", next));
        }
        if code.root == root {
            let next = "type it on an administrator's device of the office that is to end";
            return Err(CommandError::new("this code is of this very office", next));
        }
        match self.people.revocations.successor() {
            Some(said) if RootFingerprint::of(&said.subject) != code.root => {
                let what = format!("this office continues as {} already", said.name);
                Err(CommandError::new(what, "its devices go over by themselves"))
            }
            _ => Ok(code),
        }
    }

    /// Dials the next address that an errand may be done at.
    pub(super) fn run_errand(&mut self, now: Instant, errand: Errand, mut addrs: VecDeque<SocketAddr>) {
        while let Some(addr) = addrs.pop_front() {
            if let Some(conn) = self.flows.dial_abroad(addr, &mut self.wire) {
                self.merging.dials.insert(conn, (errand, addrs));
                return;
            }
        }
        match errand {
            Errand::Offer { request, code } => {
                let list: Vec<_> = code.addrs.iter().map(SocketAddr::to_string).collect();
                let what = format!("no administrator of the code's office answers at {}", list.join(", "));
                let error = CommandError::new(what, "see that chordial runs there, and try again");
                self.reply(request, Err(error));
            }
            Errand::Move { .. } => self.not_moved(now, 503),
            Errand::Seek => {}
        }
    }

    /// A link that was dialled is open; true when it was for one of these errands.
    pub(super) fn errand_open(&mut self, now: Instant, conn: ConnId, peer: &Proven) -> bool {
        let Some((errand, rest)) = self.merging.dials.remove(&conn) else { return false };
        let right = peer.foreign().filter(|foreign| match &errand {
            Errand::Offer { code, .. } => foreign.root() == Root::Office(code.root),
            Errand::Move { office } => foreign.anchor == *office,
            Errand::Seek => true,
        });
        match right.and_then(|foreign| Some((self.flows.found_abroad(conn, Arc::clone(foreign))?, foreign.clone()))) {
            Some((flow, foreign)) => self.on_errand(now, errand, flow, &foreign, rest),
            None => {
                self.flows.gone(conn);
                self.wire.push(Wire::Close { conn });
                self.run_errand(now, errand, rest);
            }
        }
        true
    }

    /// A link could not be opened, or is gone.
    pub(super) fn errand_failed(&mut self, now: Instant, conn: ConnId) {
        if let Some((errand, rest)) = self.merging.dials.remove(&conn) {
            self.run_errand(now, errand, rest);
        }
    }

    fn on_errand(&mut self, now: Instant, errand: Errand, flow: Flow, foreign: &Foreign, rest: VecDeque<SocketAddr>) {
        let hop = Hop::Flow(flow);
        match errand {
            Errand::Offer { request, code } => match self.merge_offer(&code) {
                Ok(offer) => {
                    let office = foreign.anchor.clone();
                    let asked = Asked::Offer { request, code, office, flow };
                    self.exchange(now, &hop, MERGE_TYPE, offer.encode(), asked);
                }
                Err(error) => self.reply(request, Err(error)),
            },
            Errand::Move { office } => self.ask_to_move(now, office, flow),
            Errand::Seek => self.ask_successor(now, flow, Ask::new(&self.people.revocations, Vec::new()), 0, rest),
        }
    }

    /// Who is to come: everybody in the book who counts.
    fn merge_offer(&self, code: &InviteCode) -> Result<MergeOffer, CommandError> {
        let not_here = || CommandError::new(NOT_HERE, WHERE);
        let identity = self.identity.as_ref().ok_or_else(not_here)?;
        let (book, right) = self.enroller().map(|e| e.book()).zip(identity.enroller_proof()).ok_or_else(not_here)?;
        let revoked = &self.people.revoked;
        let counts = book.users().filter(|c| !revoked.is_user(&c.subject) && !revoked.disowns(c));
        let mut users: Vec<Named> = counts
            .filter_map(|c| match &c.claims {
                crate::identity::Claims::User(names) => Some((c.subject, names.clone())),
                _ => None,
            })
            .collect();
        users.sort_by(|(a, x), (b, y)| (x, a).cmp(&(y, b)));
        let gone = self.people.revocations.iter().filter(|r| r.what == RevokedKey::Device);
        let by_user = |r: &Revocation| if r.is_by_user() { r.issuer } else { r.subject };
        let gone: Vec<(PublicKey, PublicKey)> = gone.map(|r| (by_user(r), r.subject)).collect();
        MergeOffer::new(code, identity.anchor.clone(), right, users, gone).map_err(|fault| {
            CommandError::new(format!("not offered: {fault}"), "an office of up to 512 users can be merged")
        })
    }

    /// The other office's administrator answered the offer.
    pub(super) fn on_terms(
        &mut self,
        now: Instant,
        (request, code, office, flow): (RequestId, InviteCode, TrustAnchor, Flow),
        answer: &Answer,
    ) {
        if let Some(conn) = flow.conn {
            self.flows.close(conn, &mut self.wire);
        }
        let result = self.merge_by(now, &code, &office, answer);
        self.reply(request, result);
    }

    fn merge_by(
        &mut self,
        now: Instant,
        code: &InviteCode,
        office: &TrustAnchor,
        answer: &Answer,
    ) -> Result<Reply, CommandError> {
        let unix = self.unix(now);
        let terms = MergeTerms::decode(&answer.body).and_then(|t| t.verify(office, unix).map(|root| (t, root)));
        let (200, Ok((terms, root))) = (answer.status, terms) else {
            let what = format!("the other office does not take this one in ({})", answer.status);
            let next = "ask for a new code; one works once, for a day, while that program runs";
            return Err(CommandError::new(what, next));
        };
        let offered = self.merge_offer(code)?.users;
        let mut renamed = Vec::new();
        for (key, names) in &terms.users {
            let old = offered.iter().find(|(k, _)| k == key).map(|(_, names)| names.as_slice()).unwrap_or_default();
            let pairs = old.iter().zip(names).filter(|(old, new)| old != new);
            renamed.extend(pairs.map(|(old, new)| (old.clone(), new.clone())));
        }
        let identity = self.identity.as_ref().ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        let successor = Successor { addrs: code.addrs.clone(), renamed: renamed.clone() };
        let said = Revocation::of_office(identity, root, office.overlay(), successor, unix);
        let said = said.map_err(|fault| CommandError::new(format!("not signed: {fault}"), "see the cause"))?;
        if !self.revoke(now, said) {
            return Err(CommandError::new("too many keys are revoked already", "invite each member there"));
        }
        Ok(Reply::Merge(Box::new(MergeReport {
            continues_as: office.overlay().to_owned(),
            merged_users: terms.users.len(),
            renamed: shown(renamed),
            until: (unix + MERGE_LIFETIME).secs(),
        })))
    }

    /// A device of another office offers it, or asks to be taken in.
    pub(super) fn on_merge(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow, foreign: &Foreign) {
        let (unix, who) = (self.unix(now), (foreign.verified.device, &foreign.anchor));
        let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut()) else {
            return self.answer(now, tx, message, 403, "Refused");
        };
        let merges = &mut self.merging.merges;
        let body = if let Ok(offer) = MergeOffer::decode(message.body()) {
            let terms = merges.take(enroller, &offer, who, flow.remote.ip(), unix);
            terms.map(|terms| {
                let renamed = offer.users.iter().zip(&terms.users).flat_map(|((_, old), (_, new))| old.iter().zip(new));
                let renamed = renamed.filter(|(old, new)| old != new).map(|(old, new)| (old.clone(), new.clone()));
                let (office, renamed) = (foreign.overlay().to_owned(), shown(renamed.collect()));
                (terms.encode(), Some(Event::OfficeMerged { office, users: terms.users.len(), renamed }))
            })
        } else {
            let ask = MoveAsk::decode(message.body()).map_err(EnrolError::from);
            match ask.and_then(|ask| merges.admit(enroller, &ask, who, unix, &mut self.rng)) {
                Ok(Some(answer)) => Ok((answer.encode(), None)),
                Ok(None) => {
                    self.save_merges();
                    return self.answer(now, tx, message, 480, "The user's own device has to come first");
                }
                Err(fault) => Err(fault),
            }
        };
        match body {
            Ok((body, event)) => {
                // On disk before it is sent.
                self.save_merges();
                self.save_identity();
                self.book_changed(now);
                if let Some(event) = event {
                    self.event(None, event);
                }
                self.answer_exchange(now, tx, message, MERGE_TYPE, body);
            }
            Err(fault) => {
                self.count("requests of other offices to be taken in refused");
                tracing::warn!(from = %flow.remote, %fault, "another office's request was refused");
                self.answer(now, tx, message, 403, "Refused");
            }
        }
    }

    /// A device of the office that this one came from asks what became of it.
    pub(super) fn on_successor_asked(&mut self, now: Instant, tx: ServerTxId, message: &Message, foreign: &Foreign) {
        let said = self.setup.former.as_ref().filter(|former| former.anchor == foreign.anchor);
        let (Some(said), Ok(ask)) = (said, Ask::decode(message.body())) else {
            return self.answer(now, tx, message, 403, "Members only");
        };
        let mut set = Revocations::default();
        set.note(said.statement.clone());
        let body = ask.answer(&set).encode();
        self.answer_exchange(now, tx, message, crate::identity::REVOCATIONS_TYPE, body);
    }

    fn save_merges(&mut self) {
        let bytes = Bytes::from(self.merging.merges.to_bytes());
        self.out.push_back(Output::Save { what: Saved::Merges, bytes });
    }
}

fn shown(renamed: Vec<(String, String)>) -> Vec<Renamed> {
    renamed.into_iter().map(|(was, is)| Renamed { was, is }).collect()
}
