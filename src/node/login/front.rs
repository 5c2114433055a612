//! A stranger tries a password: the second and last thing that whoever shows no chain may ask.

use super::{LoginAsked, LoginOp, seconds, whole_seconds};
use crate::core::{Flow, Id, Instant, subscriber};
use crate::identity::login::{
    CREDENTIAL, Credential, LOGIN_TYPE, LoginAnswer, LoginRequest, SHARES, ShareAnswer, ShareRequest, THRESHOLD,
    credential_aor, share_position,
};
use crate::identity::{SignedEntry, TrustAnchor};
use crate::node::Node;
use crate::node::lookup::Op;
use crate::overlay::{Mode, PeerRef};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Log-ins under way at once.
const FRONTS: usize = 64;
/// How long the holders have, all steps together.
const PATIENCE: Duration = Duration::from_millis(4500);
/// What is said to wait where nothing better is known.
const LATER: Duration = Duration::from_secs(30);

/// What is looked for.
#[derive(Debug)]
pub(in crate::node) enum FrontOp {
    Credential,
    Holder(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Share {
    /// Nobody has answered.
    Silent,
    /// Somebody has, and holds nothing: of an unknown name the usual answer.
    NotHeld,
    Evaluated([u8; 32]),
}

/// One question of a stranger.
#[derive(Debug)]
pub(super) struct Front {
    tx: ServerTxId,
    message: Message,
    request: LoginRequest,
    source: Vec<u8>,
    begun: Instant,
    /// The user's, or none: there is no such user, or no password is set.
    credential: Option<Credential>,
    shares: [Share; SHARES],
    waiting: usize,
    asked: BTreeSet<Id>,
    wait: Option<Duration>,
    /// What is answered, and when.
    ready: Option<(Instant, Result<LoginAnswer, Duration>)>,
}

impl Front {
    pub(super) fn due(&self) -> Instant {
        self.ready.as_ref().map_or(self.begun + PATIENCE, |(at, _)| *at)
    }
}

impl Node {
    /// A stranger's request with a body of [`LOGIN_TYPE`].
    pub(in crate::node) fn on_login_request(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let Ok(request) = LoginRequest::decode(message.body()) else {
            self.count("login requests that make no sense");
            return self.answer(now, tx, message, 400, "Bad Request");
        };
        if !self.let_stranger(now, tx, message, flow.remote.ip()) {
            return;
        }
        let office = self.identity.as_ref().is_some_and(|i| matches!(i.anchor, TrustAnchor::Office { .. }));
        let in_ring = self.ring.state() == crate::node::ring::State::In && self.login.book.decoys.is_some();
        if !office || !in_ring || self.login.fronts.len() >= FRONTS {
            self.count("login requests that could not be led on");
            return self.answer_later(now, tx, message, LATER);
        }
        self.count("password attempts");
        let id = self.login.next();
        let overlay = self.domain.overlay().to_owned();
        let aor = credential_aor(&request.user, &overlay);
        let source = match subscriber(flow.remote.ip()) {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let front = Front {
            tx,
            message: message.clone(),
            request,
            source,
            begun: now,
            credential: None,
            shares: [Share::Silent; SHARES],
            waiting: 0,
            asked: BTreeSet::new(),
            wait: None,
            ready: None,
        };
        self.login.fronts.insert(id, front);
        self.begin_op(now, Op::Login(LoginOp::Front(id, FrontOp::Credential)), &aor, Mode::Auto);
    }

    /// The credential was looked up; `None` when that failed.
    pub(in crate::node) fn on_front_credential(&mut self, now: Instant, id: u64, entries: Option<&[SignedEntry]>) {
        let Some(front) = self.login.fronts.get_mut(&id) else { return };
        let Some(entries) = entries else {
            front.ready = Some((whole_seconds(front.begun, now), Err(LATER)));
            return;
        };
        front.credential = latest(entries);
        let (user, overlay) = (front.request.user.clone(), self.domain.overlay().to_owned());
        let targets: Vec<(usize, Id)> = match &front.credential {
            Some(known) => known.holders.iter().enumerate().filter_map(|(n, id)| Some((n, (*id)?))).collect(),
            // Where the shares of this name would lie.
            None => (0..SHARES).map(|n| (n, share_position(&user, &overlay, n as u8))).collect(),
        };
        front.waiting = targets.len();
        for (n, target) in targets {
            self.begin_find(now, LoginOp::Front(id, FrontOp::Holder(n)), target);
        }
        self.front_ready(now, id);
    }

    pub(super) fn on_front_holder(&mut self, now: Instant, id: u64, n: usize, found: Option<PeerRef>) {
        let Some(front) = self.login.fronts.get_mut(&id) else { return };
        let (epoch, wanted) = match &front.credential {
            Some(known) => (known.epoch, known.holders[n]),
            None => ([0; 16], None),
        };
        // The peer that is responsible for a holder's place is the holder, or the holder is gone.
        let Some(peer) = found.filter(|p| wanted.is_none_or(|id| id == p.id)) else {
            front.waiting = front.waiting.saturating_sub(1);
            return self.front_ready(now, id);
        };
        // One peer counts one attempt once, also where it stands at several positions.
        if !front.asked.insert(peer.id) {
            front.shares[n] = Share::NotHeld;
            front.waiting = front.waiting.saturating_sub(1);
            return self.front_ready(now, id);
        }
        let LoginRequest { user, blinded } = front.request.clone();
        let request = ShareRequest::Evaluate { user, epoch, source: front.source.clone(), blinded };
        self.ask_holder(now, peer, &request, LoginAsked::Evaluate(id, n));
    }

    pub(super) fn on_evaluated(&mut self, now: Instant, id: u64, n: usize, answer: Option<ShareAnswer>) {
        let Some(front) = self.login.fronts.get_mut(&id) else { return };
        front.waiting = front.waiting.saturating_sub(1);
        match answer {
            Some(ShareAnswer::Bytes(evaluation)) => front.shares[n] = Share::Evaluated(evaluation),
            Some(ShareAnswer::No | ShareAnswer::Yes) => front.shares[n] = Share::NotHeld,
            // A holder's word, bounded by the longest that any of them says.
            Some(ShareAnswer::Wait(s)) => front.wait = front.wait.max(Some(Duration::from_secs(s.min(3600)))),
            None => {}
        }
        self.front_ready(now, id);
    }

    pub(super) fn fronts_due(&mut self, now: Instant) {
        let due: Vec<u64> = self.login.fronts.iter().filter(|(_, f)| f.due() <= now).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(front) = self.login.fronts.get_mut(&id) {
                front.waiting = 0;
            }
            self.front_ready(now, id);
            let ready = |f: &Front| f.ready.as_ref().is_some_and(|(at, _)| *at <= now);
            if self.login.fronts.get(&id).is_some_and(ready)
                && let Some(Front { tx, message, ready: Some((_, answer)), .. }) = self.login.fronts.remove(&id)
            {
                match answer {
                    Ok(answer) => self.answer_exchange(now, tx, &message, LOGIN_TYPE, answer.encode()),
                    Err(wait) => self.answer_later(now, tx, &message, wait),
                }
            }
        }
    }

    /// Decides what is answered, once nobody is waited for.
    fn front_ready(&mut self, now: Instant, id: u64) {
        let Some(front) = self.login.fronts.get_mut(&id).filter(|f| f.waiting == 0 && f.ready.is_none()) else {
            return;
        };
        let Some(decoys) = &self.login.book.decoys else { return };
        let (user, blinded) = (&front.request.user, &front.request.blinded);
        let answered = |share: &&Share| match front.credential {
            Some(_) => matches!(share, Share::Evaluated(_)),
            None => **share != Share::Silent,
        };
        let enough = front.shares.iter().filter(answered).count() >= THRESHOLD;
        let answer = match &front.credential {
            _ if !enough => None,
            None => decoys.answer(user, blinded),
            Some(known) => {
                let share = |n: usize| match front.shares[n] {
                    Share::Evaluated(evaluation) => Some((known.masked[n], evaluation)),
                    _ => Some((known.masked[n], decoys.evaluate(user, n, blinded)?)),
                };
                let shares: Option<Vec<_>> = (0..SHARES).map(share).collect();
                let shares = shares.and_then(|s| <[_; SHARES]>::try_from(s).ok());
                shares.map(|shares| LoginAnswer { sealed: known.sealed.clone(), shares })
            }
        };
        // Nobody answers to an element that is none; and of who answers too little, somebody may have said how long to wait.
        let answer = answer.ok_or(front.wait.unwrap_or(LATER));
        front.ready = Some((whole_seconds(front.begun, now), answer));
    }

    /// 503 with the seconds to wait (RFC 3261 section 20.33).
    pub(in crate::node) fn answer_later(&mut self, now: Instant, tx: ServerTxId, message: &Message, wait: Duration) {
        let mut later = Message::reply(message, 503, "Later");
        later.set_to_tag(&self.rng.token(6));
        later.push("Retry-After", seconds(wait));
        self.tx.respond(now, tx, later);
    }
}

/// The credential that counts, of those that a user's devices have written.
pub(super) fn latest(entries: &[SignedEntry]) -> Option<Credential> {
    let credentials = entries.iter().map(SignedEntry::entry).filter(|e| e.kind == CREDENTIAL);
    credentials.filter_map(|e| Credential::decode(&e.body).ok()).max_by_key(Credential::order)
}
