//! Certificates that enrollers grant: a new device's place on the ring, renewal in the year before the end, and delegations of standard
//! phones. Any enroller will do; which device is one stands under [`ENROLLERS`] in the overlay. A device that is in no ring yet
//! asks the peers whose addresses it has, and who is no enroller names those that are.

use super::control::{CommandError, Reply, RequestId};
use super::exchange::{Answer, Asked};
use super::lookup::Op;
use super::ring::State;
use super::{Node, Output};
use crate::config::Bootstrap;
use crate::core::{Flow, Id, Instant};
use crate::identity::{
    CERTIFY_TYPE, CertifyAnswer, CertifyRequest, ContactBody, ENROLLERS, EnrolError, Identity, SignedEntry,
};
use crate::overlay::PeerRef;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use crate::ua::Hop;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// First and longest wait of a device that has no place on the ring yet.
const SEEK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// How often a device looks whether something runs out.
const LOOK: Duration = Duration::from_secs(3600);
/// Most peers asked for one purpose.
const ASKED: usize = 16;

/// An account of a standard phone that waits for its delegation.
#[derive(Debug, Clone)]
pub(super) struct PhoneWanted {
    pub request: RequestId,
    pub user: String,
    pub label: String,
    pub password: String,
}

/// What certificates are asked for, and who is still to be asked.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    phone: Option<PhoneWanted>,
    phones: Vec<String>,
    next: VecDeque<Hop>,
    asked: BTreeSet<SocketAddr>,
}

/// When this node asks next.
#[derive(Debug, Default)]
pub(super) struct Certifying {
    due: Option<Instant>,
    wait: Duration,
    under_way: bool,
}

impl Node {
    pub(super) fn next_certify_timeout(&self) -> Option<Instant> {
        self.certifying.due.filter(|_| !self.certifying.under_way && self.stopping.is_none())
    }

    /// Begins to look whether something is missing or runs out.
    pub(super) fn begin_certifying(&mut self, now: Instant) {
        (self.certifying.due, self.certifying.wait) = (Some(now), SEEK.0);
    }

    /// Looks at `at`, unless it does so earlier.
    pub(super) fn certify_soon(&mut self, at: Instant) {
        self.certifying.due = Some(self.certifying.due.map_or(at, |due| due.min(at)));
    }

    pub(super) fn certify_timeout(&mut self, now: Instant) {
        if self.next_certify_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.certifying.due = Some(now + LOOK);
        let unix = self.unix(now);
        let revoked = self.people.revoked.clone();
        let Some(identity) = self.identity.as_mut() else { return };
        match identity.renew_own(&revoked, unix, &mut self.rng) {
            Ok(true) => self.show_identity(now, false),
            Ok(false) => {}
            Err(fault) => tracing::warn!(%fault, "the certificates of this device are not renewed"),
        }
        let wants = |i: &&Identity| i.enroller.is_none() && (i.needs_enroller(unix) || i.leans_on(&revoked));
        if let Some(identity) = self.identity.as_ref().filter(wants) {
            let phones = identity.ending_delegations(&revoked, unix);
            self.certifying.under_way = true;
            self.seek_enroller(now, Wanted { phones, ..Wanted::default() });
        }
    }

    /// Asks an enroller to delegate a phone account to this device; the command is answered when the enroller has.
    pub(super) fn ask_for_phone(&mut self, now: Instant, phone: PhoneWanted) {
        let phones = vec![phone.user.clone()];
        self.seek_enroller(now, Wanted { phone: Some(phone), phones, ..Wanted::default() });
    }

    fn seek_enroller(&mut self, now: Instant, mut wanted: Wanted) {
        if self.ring.state() == State::In {
            let aor = self.domain.aor(ENROLLERS);
            return self.lookup_people(now, Op::Enrollers { wanted: Box::new(wanted) }, &aor);
        }
        let configured = self.setup.config.overlay.bootstrap.iter().filter_map(|b| match b {
            Bootstrap::Addr(addr) => Some(*addr),
            _ => None,
        });
        let own = self.flows.locals().overlay;
        let known = configured.chain(self.setup.known_peers.iter().copied()).filter(|a| *a != own);
        for addr in known.collect::<BTreeSet<_>>().into_iter().take(ASKED) {
            if let Some(flow) = self.flows.peer_flow(None, addr, 0, &mut self.wire) {
                wanted.next.push_back(Hop::Flow(flow));
            }
        }
        self.ask_next(now, wanted);
    }

    /// The enrollers were looked up.
    pub(super) fn on_enrollers(&mut self, now: Instant, mut wanted: Wanted, entries: &[SignedEntry]) {
        wanted.next = self.enroller_peers(entries).into_iter().map(|p| Hop::Peer { id: p.id, addr: p.addr }).collect();
        self.ask_next(now, wanted);
    }

    /// The devices that an enroller delegated [`ENROLLERS`] to, other than this one.
    pub(super) fn enroller_peers(&self, entries: &[SignedEntry]) -> Vec<PeerRef> {
        let own = self.identity.as_ref().map(|i| i.device_key());
        let others = entries.iter().filter(|e| Some(e.entry().device) != own);
        let bodies = others.filter_map(|e| ContactBody::decode(&e.entry().body).ok());
        bodies.filter_map(|b| Some(PeerRef { id: b.peer_id, addr: *b.addrs.first()? })).take(ASKED).collect()
    }

    fn ask_next(&mut self, now: Instant, mut wanted: Wanted) {
        let unix = self.unix(now);
        let Some(identity) = self.identity.as_ref() else { return };
        let body = identity.certify_request(wanted.phones.clone(), unix).encode();
        match wanted.next.pop_front() {
            Some(hop) => self.exchange(now, &hop, CERTIFY_TYPE, body, Asked::Certificates(Box::new(wanted))),
            None => self.not_certified(now, wanted, "no administrator's device can be reached", true),
        }
    }

    /// Nobody granted anything.
    fn not_certified(&mut self, now: Instant, wanted: Wanted, why: &str, again: bool) {
        match wanted.phone {
            Some(phone) => {
                let what = format!("{} may not be signed for by this device: {why}", phone.user);
                let next = match again {
                    true => "see that an administrator's chordial runs, and try again".into(),
                    false => self.how_to_allow(),
                };
                self.reply(phone.request, Err(CommandError::new(what, next)));
            }
            None => {
                self.certifying.under_way = false;
                self.certifying.due = Some(now + self.certifying.wait);
                self.certifying.wait = (self.certifying.wait * 2).min(SEEK.1);
                tracing::info!(%why, "no certificates yet; asked again later");
            }
        }
    }

    fn how_to_allow(&self) -> String {
        let device = self.identity.as_ref().map(|i| i.device_key().to_string()).unwrap_or_default();
        format!("the administrator types: chordial office adapters allow {device}")
    }

    /// An answer to what [`Node::ask_next`] asked.
    pub(super) fn on_certificates(&mut self, now: Instant, mut wanted: Wanted, answer: &Answer) {
        let unix = self.unix(now);
        match (answer.status, CertifyAnswer::decode(&answer.body)) {
            (200, Ok(CertifyAnswer::Certified(granted)))
                if self.people.revoked.is_enroller(&granted.enroller().subject) =>
            {
                self.count("certificates of a revoked enroller refused");
                self.ask_next(now, wanted);
            }
            (200, Ok(CertifyAnswer::Certified(granted))) => {
                let Some(identity) = self.identity.as_mut() else { return };
                match identity.certified(&granted, unix) {
                    Ok(moved) => self.on_granted(now, wanted, &granted.refused, moved),
                    Err(fault) => {
                        tracing::warn!(%fault, "certificates that do not hold");
                        self.ask_next(now, wanted);
                    }
                }
            }
            (200, Ok(CertifyAnswer::Ask(enrollers))) => {
                for (id, addr) in enrollers {
                    if wanted.asked.len() < ASKED && wanted.asked.insert(addr) {
                        wanted.next.push_back(Hop::Peer { id, addr });
                    }
                }
                self.ask_next(now, wanted);
            }
            (403, _) => self.not_certified(now, wanted, "the administrator's device refuses", false),
            (409, _) => {
                let why = "another user of the office has the name of this device's user";
                self.not_certified(now, wanted, why, false);
            }
            _ => self.ask_next(now, wanted),
        }
    }

    fn on_granted(&mut self, now: Instant, wanted: Wanted, refused: &[String], moved: bool) {
        self.show_identity(now, moved);
        let Some(phone) = wanted.phone else {
            self.certifying.under_way = false;
            (self.certifying.due, self.certifying.wait) = (Some(now + LOOK), SEEK.0);
            return;
        };
        let answer = match refused.contains(&phone.user) {
            true => {
                let what = format!("the administrator's device does not let this one sign for {}", phone.user);
                Err(CommandError::new(what, self.how_to_allow()))
            }
            false => self.make_account(now, &phone.user, &phone.label, &phone.password),
        };
        self.reply(phone.request, answer);
    }

    /// This device's certificates have changed: to the disk, to the links, and where its place is new, into the ring.
    pub(super) fn show_identity(&mut self, now: Instant, moved: bool) {
        let Some(identity) = self.identity.clone() else { return };
        self.setup.identity = Some(identity.clone());
        self.save_identity();
        self.out.push_back(Output::Identity(Box::new(identity)));
        if moved {
            self.take_place(now);
        }
        // Renewed alone they would go on under the former certificates.
        self.publisher.rewrite(now);
        let unix = self.unix(now);
        for aor in self.own_aors() {
            self.publisher.want(now, unix, &aor, true);
        }
    }

    /// An enroller has drawn this device's place: it is another peer from now on.
    fn take_place(&mut self, now: Instant) {
        let conns: Vec<_> = self.flows.links().map(|(conn, _, _)| conn).collect();
        self.flows.close_links(&conns, &mut self.wire);
        self.rebuild_overlay(now);
        self.begin_ring(now);
    }

    /// A member's device asks.
    pub(super) fn on_certify(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let (unix, peer) = (self.unix(now), self.flows.peer(&flow).cloned());
        let (Some(peer), Ok(request)) = (peer, CertifyRequest::decode(message.body())) else {
            return self.answer(now, tx, message, 400, "Bad request for certificates");
        };
        let Some(identity) = self.identity.as_mut() else { return };
        let (anchor, own_user) = (identity.anchor.clone(), identity.chain.user_key());
        let Some(enroller) = identity.enroller.as_mut() else {
            if self.ring.state() != State::In {
                return self.answer(now, tx, message, 404, "No enroller is known here");
            }
            let aor = self.domain.aor(ENROLLERS);
            return self.lookup_people(now, Op::Refer { tx, message: Box::new(message.clone()) }, &aor);
        };
        // An administrator's own devices need no word of hers.
        if Some(peer.user_key) == own_user {
            enroller.allow_adapter(peer.device, true);
        }
        match enroller.certify(&request, peer.device, &anchor, unix, &mut self.rng) {
            Ok(granted) => {
                // On disk before it is sent.
                self.save_identity();
                self.book_changed(now);
                let body = CertifyAnswer::Certified(Box::new(granted)).encode();
                self.answer_exchange(now, tx, message, CERTIFY_TYPE, body);
            }
            Err(fault) => {
                tracing::warn!(user = %peer.user, %fault, "certificates refused");
                self.count("requests for certificates refused");
                match fault {
                    EnrolError::Taken => self.answer(now, tx, message, 409, "The name is another user's"),
                    _ => self.answer(now, tx, message, 403, "Refused"),
                }
            }
        }
    }

    /// Somebody asked for certificates here; who grants them was looked up.
    pub(super) fn on_refer(&mut self, now: Instant, tx: ServerTxId, message: &Message, entries: &[SignedEntry]) {
        let peers: Vec<(Id, SocketAddr)> = self.enroller_peers(entries).iter().map(|p| (p.id, p.addr)).collect();
        match peers.is_empty() {
            true => self.answer(now, tx, message, 404, "No enroller is known here"),
            false => self.answer_exchange(now, tx, message, CERTIFY_TYPE, CertifyAnswer::Ask(peers).encode()),
        }
    }

    /// Makes the account of a phone that this device may sign for.
    pub(super) fn make_account(
        &mut self,
        now: Instant,
        user: &str,
        label: &str,
        password: &str,
    ) -> Result<Reply, CommandError> {
        let added = self.registrar.accounts_mut().add(user, label, password);
        added.map_err(|fault| {
            CommandError::new(format!("the account {user} was not made: {fault}"), "change it and try again")
        })?;
        if self.registrar.accounts().shares().waiting().next().is_some() {
            self.share_soon(now);
        }
        self.save_identity();
        self.save_phones();
        self.mailbox_of_phone(now, &self.domain.aor(&user.to_ascii_lowercase()));
        Ok(Reply::Done { done: format!("{user} may register at {}", self.setup.sip_listen) })
    }
}
