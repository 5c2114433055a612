//! Password log-in in the node ([`crate::identity::login`] says how it works and why). Three roles that every supernode has at once:
//!
//! | file | role |
//! |---|---|
//! | `front` | a stranger asks: find the user's credential, have its four holders evaluate, answer |
//! | `hold` | hold one share's key of a user, evaluate under it, count attempts |
//! | `keep` | of this device's own user: place the shares, look after them, place lost ones again |
//!
//! An unknown name is led the same way: the peers at the positions where its shares would lie are asked and count the attempt, and
//! the answer comes from a secret that all supernodes have in common ([`Decoys`]); a newcomer asks its successor for it, and of two
//! (rings that met) the lower one wins. Answers leave at whole seconds after the question, so that their time says nothing.

mod front;
mod hold;
mod keep;

use super::Node;
use crate::core::{Id, Instant, UnixTime};
use crate::identity::login::{Attempts, Decoys, ShareAnswer, ShareBook, ShareRequest};
use crate::overlay::{self, Command, OpId, PeerRef};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub(super) use front::FrontOp;
pub(super) use keep::{KeepAsked, KeepOp};

/// From one look after shares and decoys to the next; up to a quarter more, so that devices do not all look at once.
const ROUND: Duration = Duration::from_secs(600);
/// The same while something is missing.
const SOON: Duration = Duration::from_secs(40);
/// How long counted attempts may wait to be kept.
const KEEP_ATTEMPTS: Duration = Duration::from_secs(2);
/// Rounds in which a successor had no decoys' secret until this peer makes one.
const NOBODY_KNOWS: u8 = 5;

/// An operation on the overlay.
#[derive(Debug)]
pub(in crate::node) enum LoginOp {
    Front(u64, FrontOp),
    Keep(u64, KeepOp),
}

/// A question to another member.
#[derive(Debug)]
pub(in crate::node) enum LoginAsked {
    Evaluate(u64, usize),
    Keep(u64, KeepAsked),
    Decoys,
}

/// What the node remembers of log-ins.
#[derive(Debug, Default)]
pub(in crate::node) struct Login {
    book: ShareBook,
    attempts: Attempts,
    /// When attempts that were counted are written.
    save: Option<Instant>,
    fronts: BTreeMap<u64, front::Front>,
    keeping: Option<keep::Keeping>,
    watch: keep::Watch,
    round: Option<Instant>,
    asked: u8,
    last: u64,
}

impl Login {
    /// From the files of the last time. What cannot be read is named; the shares are then lost, and their owners place them again.
    pub fn new(shares: Option<&[u8]>, attempts: Option<&[u8]>) -> Login {
        let shares = shares.map_or(Ok(ShareBook::default()), ShareBook::from_bytes);
        let attempts = attempts.map_or(Ok(Attempts::default()), Attempts::from_bytes);
        let faults = [shares.as_ref().err(), attempts.as_ref().err()];
        for fault in faults.into_iter().flatten() {
            tracing::warn!(%fault, "what was kept of password log-ins is lost");
        }
        Login { book: shares.unwrap_or_default(), attempts: attempts.unwrap_or_default(), ..Login::default() }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Node {
    /// This peer is in a ring: look after shares soon.
    pub(in crate::node) fn login_joined(&mut self, now: Instant) {
        let jitter = Duration::from_millis(self.rng.below(3000));
        let soon = now + Duration::from_secs(2) + jitter;
        self.login.round = Some(self.login.round.map_or(soon, |at| at.min(soon)));
    }

    pub(in crate::node) fn next_login(&self) -> Option<Instant> {
        let fronts = self.login.fronts.values().map(front::Front::due).min();
        let keeping = self.login.keeping.as_ref().map(keep::Keeping::deadline);
        [self.login.save, fronts, keeping, self.login.round].into_iter().flatten().min()
    }

    pub(in crate::node) fn login_timeout(&mut self, now: Instant) {
        if self.login.save.is_some_and(|at| at <= now) {
            self.login.save = None;
            let bytes = Bytes::from(self.login.attempts.to_bytes());
            self.out.push_back(super::Output::Save { what: super::Saved::Attempts, bytes });
        }
        self.fronts_due(now);
        self.keeping_due(now);
        if self.login.round.is_some_and(|at| at <= now) {
            let round = if self.attach.via.is_empty() { ROUND } else { ROUND * 6 };
            self.login.round = Some(now + round + round.mul_f64(self.rng.unit() / 4.0));
            if self.ring.state() == super::ring::State::In {
                self.seek_decoys(now);
                self.look_after_shares(now);
            }
        }
    }

    fn login_again_at(&mut self, at: Instant) {
        self.login.round = Some(self.login.round.map_or(at, |round| round.min(at)));
    }

    /// Counts something that a stranger asks; false when it was answered that it has to wait.
    pub(in crate::node) fn let_stranger(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        from: IpAddr,
    ) -> bool {
        let unix = self.unix(now);
        if let Err(wait) = self.login.attempts.at_front(from, unix) {
            self.count("requests of strangers that came too early");
            self.answer_later(now, tx, message, wait);
            return false;
        }
        self.login.save.get_or_insert(now + KEEP_ATTEMPTS);
        true
    }

    /// On disk before whatever follows is said.
    fn save_shares(&mut self) {
        let bytes = Bytes::from(self.login.book.to_bytes());
        self.out.push_back(super::Output::Save { what: super::Saved::Shares, bytes });
    }

    fn begin_find(&mut self, now: Instant, op: LoginOp, target: Id) {
        let id = OpId(self.ring.next());
        self.ring.ops.insert(id, super::lookup::Op::Login(op));
        self.overlay_input(now, overlay::Input::Command(Command::Find { op: id, target, mode: overlay::Mode::Auto }));
    }

    /// Asks a holder; this node itself without a link.
    fn ask_holder(&mut self, now: Instant, peer: PeerRef, request: &ShareRequest, asked: LoginAsked) {
        let me = self.overlay.as_ref().map(|o| o.me().id);
        let own = self.identity.as_ref().and_then(|i| i.verified(self.unix(now)).ok());
        match own {
            Some(own) if me == Some(peer.id) => {
                let answer = self.answer_share(now, &own, request);
                self.on_share_answer(now, asked, Some(answer));
            }
            _ => {
                let hop = Hop::Peer { id: peer.id, addr: peer.addr };
                let body = request.encode();
                self.exchange(
                    now,
                    &hop,
                    crate::identity::login::SHARE_TYPE,
                    body,
                    super::exchange::Asked::Login(asked),
                );
            }
        }
    }

    /// A holder has answered, or could not be asked.
    pub(in crate::node) fn on_share_answer(&mut self, now: Instant, asked: LoginAsked, answer: Option<ShareAnswer>) {
        match asked {
            LoginAsked::Evaluate(front, number) => self.on_evaluated(now, front, number, answer),
            LoginAsked::Keep(job, step) => self.on_keep_answer(now, job, step, answer),
            LoginAsked::Decoys => self.on_decoys(now, answer),
        }
    }

    pub(in crate::node) fn on_find_done(&mut self, now: Instant, op: OpId, found: Option<PeerRef>) {
        match self.ring.ops.remove(&op) {
            Some(super::lookup::Op::Login(LoginOp::Front(front, FrontOp::Holder(n)))) => {
                self.on_front_holder(now, front, n, found);
            }
            Some(super::lookup::Op::Login(LoginOp::Keep(job, step))) => self.on_keep_found(now, job, step, found),
            _ => {}
        }
    }

    /// The common secret: from the successor, from nobody where this peer is the first.
    fn seek_decoys(&mut self, now: Instant) {
        let Some(successor) = self.overlay.as_ref().map(|o| o.status().successors.first().copied()) else { return };
        match successor {
            Some(peer) => {
                if self.login.book.decoys.is_none() {
                    self.login_again_at(now + SOON / 8);
                    self.login.asked = self.login.asked.saturating_add(1);
                }
                self.ask_holder(now, peer, &ShareRequest::Decoys, LoginAsked::Decoys);
            }
            None if self.login.book.decoys.is_none() => self.make_decoys(),
            None => {}
        }
    }

    fn make_decoys(&mut self) {
        self.login.book.decoys = Some(Decoys::generate(&mut self.rng));
        self.save_shares();
    }

    fn on_decoys(&mut self, _now: Instant, answer: Option<ShareAnswer>) {
        match (answer, &self.login.book.decoys) {
            (Some(ShareAnswer::Bytes(secret)), own) if own.as_ref().is_none_or(|own| secret < *own.secret()) => {
                self.login.book.decoys = Some(Decoys::from_bytes(secret));
                self.save_shares();
            }
            (Some(ShareAnswer::No), None) if self.login.asked >= NOBODY_KNOWS => self.make_decoys(),
            _ => {}
        }
    }
}

/// Adds what is left to the next whole second since `begun`.
fn whole_seconds(begun: Instant, now: Instant) -> Instant {
    begun + Duration::from_secs(now.since(begun).as_millis().div_ceil(1000).max(1) as u64)
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs().max(1)
}

/// Most of a day, for what may be renewed once a month.
fn is_old(issued: UnixTime, now: UnixTime) -> bool {
    now > issued + Duration::from_secs(30 * 24 * 3600)
}
