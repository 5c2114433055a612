//! The way of an account's requests: its servers are found by RFC 3263, the one that answers is kept, and where it fails the next one
//! is tried; all of them again only after the account's own wait.

use super::{Node, Upstream};
use crate::core::{ConnId, Flow, Instant, Transport};
use crate::node::detour::Sent;
use crate::node::receive::UNHEARD;
use crate::node::{Output, Owner};
use crate::pbx::locate::{Locate, Place, Record};
use crate::sip::msg::{Message, Uri};
use crate::sip::tx::{self, ClientTxId};
use crate::ua::{AccountId, Hop, RequestKey};
use std::net::{IpAddr, SocketAddr};

/// Requests of one account that wait for its server.
const WAITING: usize = 64;
/// Servers remembered.
const PLACES: usize = 16;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Held {
    message: Message,
    branch: String,
    /// None of an ACK.
    owner: Option<Owner>,
}

impl Node {
    /// Sends a request of an account; its owner hears when it is sent, or that it cannot be.
    pub(in crate::node) fn send_by_account(
        &mut self,
        now: Instant,
        id: AccountId,
        uri: Option<Uri>,
        message: Message,
        owner: Option<Owner>,
    ) {
        let branch = tx::new_branch(&mut self.rng);
        if let Some(uri) = uri.filter(|uri| self.leads_elsewhere(id, uri)) {
            let hop = Hop::Uri(uri);
            if let Some(uri) = self.needs_way(&hop) {
                return self.find_way(now, message, uri, &branch, owner);
            }
            return match owner {
                Some(owner) => self.send_held(now, Held { message, branch, owner: Some(owner) }, &hop),
                None => self.send_stateless(now, message, &hop, &branch),
            };
        }
        let Some(up) = self.outside.accounts.get_mut(&id) else { return self.outside_failed(now, owner) };
        if up.waiting.len() >= WAITING {
            return self.outside_failed(now, owner);
        }
        up.waiting.push_back(Held { message, branch, owner });
        self.next_place(now, id);
    }

    /// True where a dialog's next hop is another than the account's servers.
    fn leads_elsewhere(&self, id: AccountId, uri: &Uri) -> bool {
        let Some(up) = self.outside.accounts.get(&id) else { return true };
        // The flow is the way: nothing else leads through the NAT before it, or is secured.
        let kept = self.ua.account(id).and_then(|a| a.granted()).is_some_and(|g| g.outbound);
        if kept || up.flow.is_some_and(|f| f.transport == Transport::Tls) {
            return false;
        }
        match crate::pbx::target::direct(uri) {
            Some((_, addr)) => !up.known.contains(&addr),
            None => !uri.host.eq_ignore_ascii_case(&up.host) && !uri.host.eq_ignore_ascii_case(&up.tls_name),
        }
    }

    /// Sends what waits for a server, or looks for one.
    fn next_place(&mut self, now: Instant, id: AccountId) {
        loop {
            let Some(up) = self.outside.accounts.get_mut(&id) else { return };
            if let Some(flow) = up.flow {
                if flow.conn.is_none_or(|conn| self.flows.flow(conn).is_some()) {
                    return self.send_waiting(now, id, flow);
                }
                up.flow = None;
            }
            if let Some(place) = up.places.get(up.at).copied() {
                let (name, authorities) = (up.tls_name.clone(), up.authorities.clone());
                let flow = match place.transport {
                    Transport::Tls => self.flows.server_flow(place.addr, &name, &authorities, &mut self.wire),
                    other => self.flows.address_flow(other, place.addr, &mut self.wire),
                };
                let Some(up) = self.outside.accounts.get_mut(&id) else { return };
                (up.flow, up.at) = (flow, up.at + usize::from(flow.is_none()));
                continue;
            }
            if up.asking {
                return;
            }
            if up.locate.is_none() && up.places.is_empty() {
                up.begin_search();
                continue;
            }
            match up.locate.as_mut().and_then(Locate::next_question) {
                Some(question) => {
                    up.asking = true;
                    let query = self.ways.new_number();
                    self.outside.questions.insert(query, id);
                    return self.out.push_back(Output::Query { query, question });
                }
                None => {
                    if up.places.is_empty() {
                        up.why = Some(format!("the DNS knows no way to {}", up.host));
                    }
                    up.end_search();
                    let waiting = std::mem::take(&mut up.waiting);
                    return waiting.into_iter().for_each(|held| self.outside_failed(now, held.owner));
                }
            }
        }
    }

    /// The DNS has answered for an account; false where the question was not an account's.
    pub(in crate::node) fn on_account_answer(
        &mut self,
        now: Instant,
        query: u64,
        records: &Option<Vec<Record>>,
    ) -> bool {
        let Some(id) = self.outside.questions.remove(&query) else { return false };
        let Some(up) = self.outside.accounts.get_mut(&id) else { return true };
        up.asking = false;
        match (records, up.locate.as_mut()) {
            (Some(records), Some(locate)) => {
                let found = locate.answered(records.clone(), &mut self.rng);
                found.into_iter().for_each(|place| up.add(place));
            }
            _ => {
                up.why = Some("the DNS does not answer".to_owned());
                // Nor will it answer the next question.
                up.locate = None;
            }
        }
        if up.locate.is_none() && up.places.is_empty() {
            let waiting = std::mem::take(&mut up.waiting);
            waiting.into_iter().for_each(|held| self.outside_failed(now, held.owner));
            return true;
        }
        self.next_place(now, id);
        true
    }

    fn send_waiting(&mut self, now: Instant, id: AccountId, flow: Flow) {
        let Some(up) = self.outside.accounts.get_mut(&id) else { return };
        let (waiting, others) = (std::mem::take(&mut up.waiting), up.has_others());
        let hop = match flow.conn {
            Some(_) => Hop::Flow(flow),
            None => {
                let mut uri = Uri::sip(None, &flow.remote.ip().to_string(), Some(flow.remote.port()));
                if up.transport.is_some() {
                    uri.params.set("transport", "udp");
                }
                Hop::Uri(uri)
            }
        };
        for held in waiting {
            match held.owner {
                None => self.send_stateless(now, held.message, &hop, &held.branch),
                Some(owner) => {
                    let register = matches!(owner, Owner::Ua(RequestKey::Register(_)));
                    match self.send_straight(now, held.message, &hop, &held.branch, owner) {
                        Some(tx) => {
                            // Another server answers sooner than Timer F gives up this one.
                            if register && others {
                                self.unheard.set(tx, now + UNHEARD);
                            }
                            self.sent_again(owner, tx);
                        }
                        None => self.outside_failed(now, Some(owner)),
                    }
                }
            }
        }
    }

    fn send_held(&mut self, now: Instant, held: Held, hop: &Hop) {
        let Some(owner) = held.owner else { return };
        match self.send_branch(now, held.message, hop, &held.branch, owner) {
            Sent::Tx(tx) => self.sent_again(owner, tx),
            Sent::Later => {}
            Sent::No => self.outside_failed(now, Some(owner)),
        }
    }

    /// A request has no way.
    fn outside_failed(&mut self, now: Instant, owner: Option<Owner>) {
        match owner {
            Some(Owner::Ua(key)) => self.ua.on_failure(now, key, 503),
            Some(Owner::Router(branch)) => self.router.unsendable(now, branch),
            _ => self.count("messages without a way"),
        }
    }

    /// The user agent's request was not answered, or not sent.
    pub(in crate::node) fn ua_failed(&mut self, now: Instant, key: RequestKey, status: u16) {
        match key {
            RequestKey::Register(id) if self.give_place_up(id) => return self.ua.register_now(id),
            RequestKey::Invite(call, _) => {
                // Its server is not there: the registration finds out where it is now.
                if let Some(id) = self.ua.summaries(now).iter().find(|c| c.call == call).and_then(|c| c.account) {
                    self.ua.account_flow_failed(now, id);
                }
            }
            _ => {}
        }
        self.ua.on_failure(now, key, status);
    }

    /// The answer to a REGISTER; true where another server is tried instead (RFC 3263 section 4.3).
    pub(in crate::node) fn tries_elsewhere(&mut self, tx: ClientTxId, status: u16) -> bool {
        let Some(Owner::Ua(RequestKey::Register(id))) = self.owners.get(&tx).copied() else { return false };
        let more = status == 503 && self.outside.accounts.get(&id).is_some_and(Upstream::has_others);
        if more && self.give_place_up(id) {
            self.ua.register_now(id);
            return true;
        }
        false
    }

    /// The server in use has failed; true where there is another one to try.
    fn give_place_up(&mut self, id: AccountId) -> bool {
        let Some(up) = self.outside.accounts.get_mut(&id) else { return false };
        if let Some(place) = up.places.get(up.at) {
            up.why = Some(format!("nobody answers at {} {}", place.transport, place.addr));
            up.at += 1;
        }
        up.flow = None;
        let more = up.has_others() || up.places.get(up.at).is_some();
        if !more {
            up.end_search();
        }
        more
    }

    /// A connection is gone: the accounts whose flow it was register anew at once (RFC 5626 section 4.2.1).
    pub(in crate::node) fn account_flow_gone(&mut self, now: Instant, conn: ConnId, why: Option<&str>) {
        let of = |up: &Upstream| up.flow.is_some_and(|f| f.conn == Some(conn));
        let ids: Vec<_> = self.outside.accounts.iter().filter(|(_, up)| of(up)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(up) = self.outside.accounts.get_mut(&id) else { continue };
            if let (Some(why), Some(flow)) = (why, up.flow) {
                up.why = Some(format!("{} {} cannot be reached: {why}", flow.transport, flow.remote));
            }
            up.flow = None;
            self.outside.timers.cancel(&id);
            self.ua.account_flow_failed(now, id);
        }
    }
}

impl Upstream {
    fn begin_search(&mut self) {
        self.known.clear();
        match self.host.parse::<IpAddr>() {
            Ok(ip) => {
                let transport = self.transport.unwrap_or(Transport::Udp);
                let port = self.port.unwrap_or(if transport == Transport::Tls { 5061 } else { 5060 });
                self.add(Place { transport, addr: SocketAddr::new(ip, port) });
            }
            Err(_) => self.locate = Some(Locate::server(&self.host, self.port, self.transport)),
        }
    }

    /// All were tried; the next request begins anew.
    fn end_search(&mut self) {
        (self.at, self.locate, self.flow) = (0, None, None);
        self.places.clear();
    }

    fn add(&mut self, place: Place) {
        if self.places.len() < PLACES && !self.places.contains(&place) {
            self.known.insert(place.addr);
            self.places.push(place);
        }
    }

    fn has_others(&self) -> bool {
        self.places.len() > self.at + 1 || self.locate.as_ref().is_some_and(|l| !l.is_done())
    }
}
