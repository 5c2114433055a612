//! The way of a request whose target no address names: a user of another overlay, or of a plain SIP domain. The request
//! waits while the supernodes of a contact link, then what the DNS says of the domain ([`Locate`]), are tried one after the
//! other. A supernode has to prove to be of the overlay that is meant; where one fails the next takes the request.
//!
//! The DNS names no keys. The overlay found by it has to have the domain's name; its root and the callee's key are
//! remembered when the callee has answered for the first time, and hold from then on. A domain that was an overlay once
//! is never called in clear.
//!
//! The answer is looked at here, before its owner sees it: it has to be signed by the callee whose key is known.

use super::flows::{Abroad, Wire};
use super::foreign::{known, plain_aor, proven};
use super::receive::{UNHEARD, VIA_SIZE};
use super::{Node, Output, Owner};
use crate::core::{ConnId, Flow, Instant, Transport, limits};
use crate::identity::{Proven, RingToken, Side, TrustAnchor};
use crate::pbx::locate::{Locate, Place, Record};
use crate::sip::msg::{Message, Uri};
use crate::sip::tx::{self, ClientTxId};
use crate::ua::{Hop, RequestKey};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Most requests that wait for a way at once.
const WAITING: usize = 1024;
/// Dialogs whose way is remembered, the oldest given up first.
const DIALOGS: usize = 4096;

/// One thing to try.
#[derive(Debug, Clone)]
enum Step {
    /// A supernode of another overlay.
    Abroad { addr: SocketAddr, want: Abroad },
    /// Plain SIP, in clear.
    Plain(Place),
}

/// A request on its way to be sent.
#[derive(Debug)]
struct Search {
    message: Message,
    branch: String,
    /// None of an ACK, which nobody waits for.
    owner: Option<Owner>,
    /// Where it is to go, for people.
    to: String,
    token: Option<RingToken>,
    steps: VecDeque<Step>,
    /// What the DNS can still be asked, and of which overlay.
    locate: Option<(Locate, Abroad)>,
    /// The supernode to which it was sent.
    dialled: Option<SocketAddr>,
    /// Why the last step failed.
    why: String,
}

#[derive(Debug)]
struct Dial {
    addr: SocketAddr,
    want: Abroad,
    waiting: Vec<u64>,
}

/// Requests that wait for a way, links that are dialled for them, and what was sent.
#[derive(Debug, Default)]
pub(super) struct Ways {
    searches: BTreeMap<u64, Search>,
    dials: BTreeMap<ConnId, Dial>,
    /// Searches whose question to the DNS is under way.
    questions: BTreeMap<u64, u64>,
    /// What was sent to another overlay and is not answered yet; with what is still to be tried.
    sent: BTreeMap<ClientTxId, Search>,
    /// Dialogs with other overlays, by Call-ID: where their supernode says it is, and where it was dialled.
    dialogs: BTreeMap<String, (SocketAddr, SocketAddr)>,
    order: VecDeque<String>,
    last: u64,
}

impl Ways {
    /// A number for a question to the DNS.
    pub fn new_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Behind a NAT a supernode does not know its address; what belongs to a dialog goes where the dialog was made.
    fn remember_dialog(&mut self, answer: &Message, dialled: SocketAddr) {
        let route = answer.record_routes().ok().and_then(|routes| routes.last().map(|r| r.uri.clone()));
        let said = route.and_then(|uri| Some(SocketAddr::new(uri.ip()?, uri.port.unwrap_or(5061))));
        let (Some(said), Some(call_id)) = (said.filter(|said| *said != dialled), answer.call_id()) else { return };
        if self.dialogs.insert(call_id.to_owned(), (said, dialled)).is_none() {
            self.order.push_back(call_id.to_owned());
        }
        if self.order.len() > DIALOGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.dialogs.remove(&oldest);
        }
    }

    /// A transaction is over.
    pub fn forget(&mut self, tx: ClientTxId) {
        self.sent.remove(&tx);
    }
}

impl Node {
    /// The hop of a request in a dialog with another overlay whose supernode was dialled at another address than it says.
    pub(super) fn hop_in_dialog(&self, message: &Message, hop: Hop) -> Hop {
        let dialog = message.to_tag().and(message.call_id()).and_then(|id| self.ways.dialogs.get(id));
        let (Some((said, dialled)), Hop::Uri(uri)) = (dialog, &hop) else { return hop };
        if crate::pbx::target::direct(uri).is_none_or(|(_, addr)| addr != *said) {
            return hop;
        }
        let mut uri = Uri::sip(None, &dialled.ip().to_string(), Some(dialled.port()));
        uri.params.set("transport", "tls");
        Hop::Uri(uri)
    }

    /// The target of a hop that no address names, or that lies in another overlay whose link is gone.
    pub(super) fn needs_way(&self, hop: &Hop) -> Option<Uri> {
        if self.overlay.is_none() || self.flows.locals().clear {
            return None;
        }
        let lost = |addr: &SocketAddr| self.flows.abroad_at(*addr).is_some() && self.flows.abroad_flow(*addr).is_none();
        match hop {
            Hop::Uri(uri) if uri.ip().is_some() => {
                let (transport, addr) = crate::pbx::target::direct(uri)?;
                (transport == Transport::Tls && lost(&addr)).then(|| uri.clone())
            }
            Hop::Uri(uri) => {
                let elsewhere = uri.is_sip() && !uri.host.eq_ignore_ascii_case("localhost") && !self.domain.covers(uri);
                elsewhere.then(|| uri.clone())
            }
            Hop::Peer { id, addr } if lost(addr) && !self.flows.has_peer(id) => {
                let mut uri = Uri::sip(None, &addr.ip().to_string(), Some(addr.port()));
                uri.params.set("transport", "tls");
                Some(uri)
            }
            Hop::Peer { .. } | Hop::Path { .. } | Hop::Flow(_) | Hop::Account { .. } => None,
        }
    }

    /// Sends a request as soon as there is a way to `uri`; its owner hears when it is sent, or that there is none.
    pub(super) fn find_way(&mut self, now: Instant, message: Message, uri: Uri, branch: &str, owner: Option<Owner>) {
        let (steps, token) = self.steps_to(&uri);
        let overlay = uri.host.trim_end_matches('.').to_ascii_lowercase();
        let root = self.strangers.known.root_of(&overlay);
        let locate = uri.ip().is_none().then(|| (Locate::new(&uri, root.is_some()), Abroad { overlay, root }));
        let search = Search {
            message,
            branch: branch.to_owned(),
            owner,
            to: plain_aor(&uri).unwrap_or_else(|| uri.to_string()),
            token,
            steps,
            locate,
            dialled: None,
            why: format!("the DNS knows no way to {}; a contact link does", uri.host),
        };
        if self.ways.searches.len() >= WAITING {
            self.count("requests given up because too many wait for a way");
            return self.no_way(now, search);
        }
        self.ways.last += 1;
        let id = self.ways.last;
        self.ways.searches.insert(id, search);
        self.next_step(now, id);
    }

    /// What is tried for a target, in this order.
    fn steps_to(&self, uri: &Uri) -> (VecDeque<Step>, Option<RingToken>) {
        let mut steps = VecDeque::new();
        if let Some(addr) = uri.ip().map(|ip| SocketAddr::new(ip, uri.port.unwrap_or(5061))) {
            if let Some(want) = self.flows.abroad_at(addr).cloned() {
                steps.push_back(Step::Abroad { addr, want });
            }
            return (steps, None);
        }
        let overlay = uri.host.to_ascii_lowercase();
        let acquaintances = &self.strangers.known;
        let contact = plain_aor(uri).and_then(|aor| acquaintances.contacts().iter().find(|c| c.aor == aor));
        let want = Abroad { root: acquaintances.root_of(&overlay), overlay };
        // Another user of the same overlay has links to it too.
        let there = |c: &&crate::identity::Contact| {
            crate::identity::split_aor(&c.aor).is_some_and(|(_, o)| o == want.overlay) && Some(c.root) == want.root
        };
        let others = acquaintances.contacts().iter().filter(there);
        for addr in contact.into_iter().chain(others).flat_map(|c| c.addrs.iter().copied()) {
            if steps.len() < 6 && !steps.iter().any(|s| matches!(s, Step::Abroad { addr: a, .. } if *a == addr)) {
                steps.push_back(Step::Abroad { addr, want: want.clone() });
            }
        }
        // A link that is open already costs nothing.
        let open = |s: &Step| matches!(s, Step::Abroad { addr, .. } if self.flows.abroad_flow(*addr).is_some());
        if let Some(at) = steps.iter().position(open)
            && let Some(step) = steps.remove(at)
        {
            steps.push_front(step);
        }
        (steps, contact.and_then(|c| c.token.clone()))
    }

    fn next_step(&mut self, now: Instant, id: u64) {
        loop {
            let Some(search) = self.ways.searches.get_mut(&id) else { return };
            match search.steps.pop_front() {
                Some(Step::Abroad { addr, want }) => {
                    let open = self.flows.abroad_flow(addr);
                    let right = self
                        .flows
                        .abroad_at(addr)
                        .is_some_and(|at| at.overlay == want.overlay && (want.root.is_none() || want.root == at.root));
                    if let (Some(flow), true) = (open, right) {
                        return self.send_abroad(now, id, flow);
                    }
                    let same = self.ways.dials.values_mut().find(|d| d.addr == addr && d.want == want);
                    if let Some(dial) = same {
                        return dial.waiting.push(id);
                    }
                    match self.flows.dial_abroad(addr, &mut self.wire) {
                        Some(conn) => {
                            self.ways.dials.insert(conn, Dial { addr, want, waiting: vec![id] });
                            return;
                        }
                        None => self.why(id, "too many connections are open"),
                    }
                }
                Some(Step::Plain(place)) => return self.send_plain(now, id, place),
                None => match search.locate.as_mut().and_then(|(locate, _)| locate.next_question()) {
                    Some(question) => {
                        self.ways.last += 1;
                        let query = self.ways.last;
                        self.ways.questions.insert(query, id);
                        return self.out.push_back(Output::Query { query, question });
                    }
                    None => {
                        if let Some(search) = self.ways.searches.remove(&id) {
                            self.no_way(now, search);
                        }
                        return;
                    }
                },
            }
        }
    }

    /// The DNS has answered.
    pub(super) fn on_answer(&mut self, now: Instant, query: u64, records: Option<Vec<Record>>) {
        if self.on_account_answer(now, query, &records) {
            return;
        }
        let Some(id) = self.ways.questions.remove(&query) else { return };
        let Some(search) = self.ways.searches.get_mut(&id) else { return };
        let Some(records) = records else {
            // Nor will it answer the next question, and somebody waits.
            search.locate = None;
            search.why = "the DNS does not answer".into();
            return self.next_step(now, id);
        };
        let Some((locate, want)) = search.locate.as_mut() else { return };
        for place in locate.answered(records, &mut self.rng) {
            search.steps.push_back(match place.transport {
                Transport::Tls => Step::Abroad { addr: place.addr, want: want.clone() },
                _ => Step::Plain(place),
            });
        }
        self.next_step(now, id);
    }

    fn send_plain(&mut self, now: Instant, id: u64, place: Place) {
        let Some(mut search) = self.ways.searches.remove(&id) else { return };
        let size = search.message.wire_len() + VIA_SIZE;
        let large = place.transport == Transport::Udp && size > limits::SIP_UDP_REQUEST;
        let transport = if large { Transport::Tcp } else { place.transport };
        let own = [self.flows.locals().sip, self.flows.locals().overlay].contains(&place.addr);
        let flow = self.flows.address_flow(transport, place.addr, &mut self.wire).filter(|_| !own);
        let Some(flow) = flow else { return self.no_way(now, search) };
        let Some(owner) = search.owner else {
            return self.send_stateless_on(search.message, flow, &search.branch);
        };
        if self.is_given_up(now, owner) {
            return;
        }
        search.dialled = None;
        let branch = std::mem::replace(&mut search.branch, tx::new_branch(&mut self.rng));
        match self.send_on(now, search.message.clone(), flow, &branch, owner) {
            Some(tx) => {
                // Another place answers sooner than Timer B gives up this one.
                if search.locate.is_some() {
                    self.unheard.set(tx, now + UNHEARD);
                }
                self.ways.sent.insert(tx, search);
                self.sent_again(owner, tx);
            }
            None => self.no_way(now, search),
        }
    }

    /// True for a call whose caller has hung up meanwhile.
    fn is_given_up(&mut self, now: Instant, owner: Owner) -> bool {
        let Owner::Ua(key @ RequestKey::Invite(call, _)) = owner else { return false };
        let waits = self.ua.summaries(now).iter().any(|c| c.call == call && c.state == crate::ua::State::Calling);
        if !waits {
            self.ua.on_failure(now, key, 487);
        }
        !waits
    }

    fn why(&mut self, id: u64, why: &str) {
        if let Some(search) = self.ways.searches.get_mut(&id) {
            search.why = why.to_owned();
        }
    }

    /// A link that was dialled to another overlay is open: whoever is there has to be the one that was meant.
    pub(super) fn on_way_open(&mut self, now: Instant, conn: ConnId, peer: Proven) {
        let Some(dial) = self.ways.dials.remove(&conn) else {
            self.flows.gone(conn);
            return self.wire.push(Wire::Close { conn });
        };
        let Dial { addr, want, waiting } = dial;
        let own: Option<TrustAnchor> = self.identity.as_ref().map(|i| i.anchor.clone());
        let why = match peer {
            Proven::Foreign(foreign) if want.is(&foreign) && own.as_ref() != Some(&foreign.anchor) => {
                match self.flows.found_abroad(conn, Arc::clone(&foreign)) {
                    Some(flow) => {
                        for id in waiting {
                            self.send_abroad(now, id, flow);
                        }
                        return;
                    }
                    None => "too many overlays at once".to_owned(),
                }
            }
            Proven::Foreign(foreign) if want.overlay == foreign.overlay() => {
                self.count("supernodes of other overlays with another root than known");
                let known = want.root.map_or(String::new(), |root| root.to_string());
                tracing::warn!(%addr, overlay = %want.overlay, "another root than the one that is known");
                format!("{addr} shows the root key {} for {}, and {known} is known", foreign.root(), want.overlay)
            }
            Proven::Foreign(foreign) => format!("{addr} is of {}, not of {}", foreign.overlay(), want.overlay),
            Proven::Member(_) | Proven::Phone | Proven::Nobody => format!("{addr} proves nothing"),
        };
        self.flows.gone(conn);
        self.wire.push(Wire::Close { conn });
        for id in waiting {
            self.why(id, &why);
            self.next_step(now, id);
        }
    }

    /// A link could not be opened.
    pub(super) fn on_way_failed(&mut self, now: Instant, conn: ConnId, why: &str) {
        let Some(dial) = self.ways.dials.remove(&conn) else { return };
        for id in dial.waiting {
            self.why(id, &format!("{} cannot be reached: {why}", dial.addr));
            self.next_step(now, id);
        }
    }

    fn send_abroad(&mut self, now: Instant, id: u64, flow: Flow) {
        let Some(mut search) = self.ways.searches.remove(&id) else { return };
        let Some(owner) = search.owner else {
            return self.send_stateless_on(search.message, flow, &search.branch);
        };
        if self.is_given_up(now, owner) {
            return;
        }
        let mut message = search.message.clone();
        if !self.prove_call(now, &mut message, search.token.as_ref()) {
            search.why = "this device may not speak for the caller".into();
            return self.no_way(now, search);
        }
        search.dialled = Some(flow.remote);
        let branch = std::mem::replace(&mut search.branch, tx::new_branch(&mut self.rng));
        match self.send_on(now, message, flow, &branch, owner) {
            Some(tx) => {
                self.ways.sent.insert(tx, search);
                self.sent_again(owner, tx);
            }
            None => self.no_way(now, search),
        }
    }

    fn no_way(&mut self, now: Instant, search: Search) {
        tracing::info!(to = %search.to, why = %search.why, "no way");
        match search.owner {
            Some(Owner::Ua(RequestKey::Invite(call, _))) => self.ua.give_up(now, call, 503, search.why),
            Some(Owner::Ua(key)) => self.ua.on_failure(now, key, 503),
            Some(Owner::Router(branch)) => self.router.unsendable(now, branch),
            Some(Owner::Exchange(id)) => self.on_exchange_failed(now, id, 503),
            Some(Owner::Overlay(_)) | None => self.count("messages without a way"),
        }
    }

    /// A request that was sent found nobody; true when the next way is tried, and its owner hears nothing yet.
    pub(super) fn try_another_way(&mut self, now: Instant, tx: ClientTxId) -> bool {
        let Some(mut search) = self.ways.sent.remove(&tx) else { return false };
        if search.steps.is_empty() && search.locate.is_none() {
            return false;
        }
        search.why = "nobody answers there".into();
        self.owners.remove(&tx);
        self.ways.last += 1;
        let id = self.ways.last;
        self.ways.searches.insert(id, search);
        self.next_step(now, id);
        true
    }

    /// A response to a request that went to another overlay: passed on when it may be.
    pub(super) fn on_way_response(&mut self, now: Instant, tx: ClientTxId, message: Message) -> Option<Message> {
        let Some(search) = self.ways.sent.get(&tx) else { return Some(message) };
        match message.status() {
            503 if !search.steps.is_empty() || search.locate.is_some() => {
                self.try_another_way(now, tx);
                return None;
            }
            200..=299 => {}
            _ => return Some(message),
        }
        let Some(dialled) = search.dialled else { return Some(message) };
        self.ways.remember_dialog(&message, dialled);
        let Some(search) = self.ways.sent.get(&tx) else { return Some(message) };
        let of_call = message.cseq().is_ok_and(|c| matches!(c.method.as_str(), "INVITE" | "MESSAGE"));
        // Within a dialog the dialog is the proof.
        if !of_call || search.message.to_tag().is_some() {
            return Some(message);
        }
        let unix = self.unix(now);
        let why = match proven(&message, Side::Callee, unix) {
            Ok((ends, _, foreign)) if ends.callee == search.to => {
                let who = known(&ends.callee, &foreign);
                match self.strangers.known.person(&who.aor) {
                    Some(before) if before != who => {
                        let why = format!("{} answers with the key {}, and {} is known", who.aor, who.key, before.key);
                        self.note_knock(now, who, true);
                        why
                    }
                    before => {
                        let root = self.strangers.known.root_of(foreign.overlay());
                        if root.is_some_and(|root| root != foreign.root()) {
                            format!("{} answers with another root key than is known of it", foreign.overlay())
                        } else {
                            if before.is_none() && self.strangers.known.remember(&who) {
                                self.save_foreign();
                            }
                            if let Some(Owner::Ua(RequestKey::Invite(call, _))) = self.owners.get(&tx) {
                                // Whose signature on the keys of the voice counts.
                                self.calls.devices.entry(*call).or_default().insert(foreign.verified.device);
                            }
                            return Some(message);
                        }
                    }
                }
            }
            Ok((ends, ..)) => format!("{} answers instead", ends.callee),
            Err(why) => format!("who answers is not proven: {why}"),
        };
        self.count("callees of other overlays that are not proven");
        tracing::warn!(to = %search_to(&self.ways, tx), %why, "an answer was not taken");
        match self.owners.get(&tx).copied() {
            Some(Owner::Ua(key @ RequestKey::Invite(call, _))) => {
                // Its late answer is acknowledged and ended.
                self.ua.give_up(now, call, 403, why);
                self.ua.on_response(now, key, tx, &message);
            }
            Some(Owner::Router(_)) => self.router.on_transport_error(now, tx),
            _ => {}
        }
        None
    }
}

fn search_to(ways: &Ways, tx: ClientTxId) -> String {
    ways.sent.get(&tx).map_or(String::new(), |s| s.to.clone())
}
