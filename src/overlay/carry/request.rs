//! Requests to `REGISTER` and back.

use super::body::{push_contacts, push_entries, read_entries};
use super::header::{Loose, NOWHERE};
use super::members::push_members;
use super::{
    CHUNK_TYPE, COMPARE_TYPE, Carry, CarryError, LEASE_TYPE, MEMBERS_TYPE, OPTION, TOUCH_TYPE, chunk, compare, lease,
    tier,
};
use crate::core::{Id, Rng};
use crate::identity::{self, ContactBody, SignedEntry, TouchOf};
use crate::overlay::{PeerRef, Request, Route};
use crate::sip::msg::{Message, Method};
use std::net::SocketAddr;
use std::sync::Arc;

/// `Max-Forwards` of an iterative request (RFC 3261 section 8.1.1.6).
const MAX_FORWARDS: u8 = 70;
const RESOURCE_ID: [&str; 2] = ["resource-ID", "rID"];

impl Carry {
    /// The request for the peer at `to`, without Via. Call-ID and tag are drawn from `rng`.
    pub fn encode_request(&self, request: &Request, to: SocketAddr, rng: &mut Rng) -> Message {
        if let Request::Tier(ask) = request {
            return self.encode_ask(ask, to, rng);
        }
        let mut message = Message::request(Method::Register, &format!("sip:{to}"));
        let route = match request {
            Request::Register { .. } | Request::Leave { .. } => &Route::Iterative,
            Request::Tier(_) | Request::Members { .. } | Request::Compare { .. } | Request::Take { .. } => &Route::Here,
            Request::Query { route, .. }
            | Request::Lease { route, .. }
            | Request::Give { route, .. }
            | Request::Fetch { route, .. }
            | Request::Store { route, .. }
            | Request::Touch { route, .. } => route,
        };
        let hops = match route {
            Route::Iterative => MAX_FORWARDS,
            Route::Recursive { hops, .. } => *hops,
            Route::Here => 0,
        };
        message.push("Max-Forwards", hops);
        let me = self.peer_uri(&self.me);
        let (to, from) = match request {
            Request::Register { .. }
            | Request::Leave { .. }
            | Request::Tier(_)
            | Request::Members { .. }
            | Request::Compare { .. } => (me.clone(), me.clone()),
            Request::Query { target, .. } => (self.peer_uri(&PeerRef { id: *target, addr: NOWHERE }), me.clone()),
            Request::Fetch { key, replica, aor, .. } | Request::Touch { key, replica, aor, .. } => {
                (self.resource_uri(aor.as_deref(), key, *replica), me.clone())
            }
            Request::Lease { key, entry, .. } => (self.resource_uri(Some(&entry.entry().aor), key, 0), me.clone()),
            Request::Give { key, replica, entry, .. } => {
                (self.resource_uri(Some(&entry.entry().aor), key, *replica), me.clone())
            }
            Request::Take { key, .. } => (self.resource_uri(None, key, 0), me.clone()),
            Request::Store { key, replica, entries, .. } => {
                let aor = entries.first().map(|e| e.entry().aor.as_str());
                let uri = self.resource_uri(aor, key, *replica);
                // One's own registration, or one for somebody else (dSIP section 7.4).
                if entries.iter().any(|e| self.is_own(e)) { (uri.clone(), uri) } else { (uri, me.clone()) }
            }
        };
        let from = match route {
            // The one who asked first.
            Route::Recursive { path, .. } => path.first().map_or(from, |p| self.peer_uri(p)),
            Route::Iterative | Route::Here => from,
        };
        message.push("To", to);
        message.push("From", format_args!("{from};tag={}", rng.token(4)));
        message.push("Call-ID", rng.token(8));
        message.push("CSeq", "1 REGISTER");
        match request {
            Request::Register { expires } => {
                message.push("Contact", &me);
                message.push("Expires", expires);
            }
            Request::Leave { .. } => {
                message.push("Contact", &me);
                message.push("Expires", 0);
            }
            Request::Store { entries, .. } => {
                push_contacts(&mut message, entries);
                let life = |e: &SignedEntry| if e.entry().is_removal() { 0 } else { e.entry().lifetime };
                message.push("Expires", entries.iter().map(life).max().unwrap_or(0));
            }
            Request::Query { .. }
            | Request::Fetch { .. }
            | Request::Tier(_)
            | Request::Members { .. }
            | Request::Touch { .. }
            | Request::Lease { .. }
            | Request::Give { .. }
            | Request::Take { .. }
            | Request::Compare { .. } => {}
        }
        message.push("Require", OPTION);
        message.push("Supported", OPTION);
        let disposition = if matches!(route, Route::Recursive { .. }) { "proxy" } else { "redirect" };
        message.push("Request-Disposition", disposition);
        message.push("DHT-PeerID", self.own_peer_id(None));
        if let Request::Leave { links } = request {
            self.push_links(&mut message, links);
        }
        if let Route::Recursive { path, .. } = route {
            self.push_path(&mut message, path);
        }
        match request {
            Request::Store { entries, .. } => push_entries(&mut message, entries),
            Request::Members { until, digest, news } => push_members(&mut message, until.as_ref(), *digest, news),
            Request::Touch { touch, .. } => message.set_body(TOUCH_TYPE, touch.encode()),
            Request::Lease { entry, vote, .. } => {
                message.set_body(LEASE_TYPE, lease::encode_request(entry, vote.as_ref()));
            }
            Request::Give { entry, bytes, .. } => message.set_body(CHUNK_TYPE, chunk::encode_give(entry, bytes)),
            Request::Take { hash, .. } => message.set_body(CHUNK_TYPE, chunk::encode_bytes(&hash.0)),
            Request::Compare { scattered, unix, ranges } => {
                message.set_body(COMPARE_TYPE, compare::encode_request(*scattered, *unix, ranges));
            }
            _ => message.set_body("", Vec::new()),
        }
        message
    }

    /// What a `REGISTER` between peers asks, and who says to be its sender: to be compared with what the link proves.
    ///
    /// # Errors
    /// What is wrong with it; [`Carry::refuse`] makes the answer.
    pub fn decode_request(&self, message: &Message) -> Result<(PeerRef, Request), CarryError> {
        if !message.is_request() || *message.method() != Method::Register {
            return Err(CarryError::NotOverlay);
        }
        let unknown: Vec<&str> = message.values("Require").filter(|t| !t.eq_ignore_ascii_case(OPTION)).collect();
        if !unknown.is_empty() {
            return Err(CarryError::Extension(unknown.join(", ")));
        }
        if !message.has_token("Require", OPTION) {
            return Err(CarryError::NotOverlay);
        }
        if tier::is_tier(message) {
            return self.decode_ask(message).map(|(sender, ask)| (sender, Request::Tier(ask)));
        }
        let to = Loose::parse(message.header("To").ok_or(CarryError::Header("To"))?).ok_or(CarryError::Header("To"))?;
        let peer = to.peer_id();
        let update = message.has("Contact");
        let sender = self.read_peer_id(message, peer.is_some() && update)?;
        let request = match (peer, update) {
            (Some(_), false) if message.content_is(MEMBERS_TYPE) => {
                let (until, digest, news) = self.read_members(message)?;
                Request::Members { until, digest, news }
            }
            (Some(_), false) if message.content_is(COMPARE_TYPE) => {
                let (scattered, unix, ranges) = compare::decode_request(message.body(), self.space)?;
                Request::Compare { scattered, unix, ranges }
            }
            (None, false) if message.content_is(TOUCH_TYPE) => {
                let (key, replica, aor) = self.resource(message, &to)?;
                let touch = Box::new(TouchOf::decode(message.body()).map_err(|_| CarryError::Body)?);
                Request::Touch { key, replica, aor, touch, route: self.unrelayed(message)? }
            }
            (None, false) if message.content_is(LEASE_TYPE) => {
                let (key, _, _) = self.resource(message, &to)?;
                let (entry, vote) = lease::decode_request(message.body())?;
                self.names(&entry, &key)?;
                Request::Lease { key, entry: Box::new(entry), vote, route: self.unrelayed(message)? }
            }
            (None, false) if message.content_is(CHUNK_TYPE) => {
                let (key, replica, _) = self.resource(message, &to)?;
                match chunk::decode_request(message.body())? {
                    chunk::Asked::Take(hash) => Request::Take { key, hash },
                    chunk::Asked::Give(entry, bytes) => {
                        self.names(&entry, &key)?;
                        let route = self.unrelayed(message)?;
                        Request::Give { key, replica, entry: Box::new(entry), bytes, route }
                    }
                }
            }
            (Some(_), true) => self.registration(message, &to, &sender)?,
            (Some(target), false) => Request::Query { target: self.target(target)?, route: self.route(message)? },
            (None, false) => {
                let (key, replica, aor) = self.resource(message, &to)?;
                Request::Fetch { key, replica, aor, route: self.route(message)? }
            }
            (None, true) => {
                let (key, replica, aor) = self.resource(message, &to)?;
                let entries = read_entries(message)?;
                // What the message says is a courtesy; what counts is what was signed.
                if entries
                    .iter()
                    .any(|e| (self.resource_id)(&e.entry().aor) != key || aor.as_deref() != Some(&e.entry().aor))
                {
                    return Err(CarryError::BadId("resource-ID"));
                }
                Request::Store { key, replica, entries, route: self.unrelayed(message)? }
            }
        };
        Ok((sender, request))
    }

    /// The entry is about the resource that the message names.
    pub(super) fn names(&self, entry: &SignedEntry, key: &Id) -> Result<(), CarryError> {
        let right = (self.resource_id)(&entry.entry().aor) == *key;
        if right { Ok(()) } else { Err(CarryError::BadId("resource-ID")) }
    }

    fn registration(&self, message: &Message, to: &Loose<'_>, sender: &PeerRef) -> Result<Request, CarryError> {
        let contact = message.values("Contact").next().and_then(Loose::parse).ok_or(CarryError::Header("Contact"))?;
        let expires = message
            .expires()
            .or_else(|| contact.get(&["expires"]).and_then(|v| v.parse().ok()))
            .ok_or(CarryError::Header("Expires"))?;
        // Nobody registers another peer (dSIP section 7.1).
        for uri in [to, &contact] {
            if self.peer(uri)?.is_none_or(|p| p.id != sender.id) {
                return Err(CarryError::BadId("peer-ID"));
            }
        }
        Ok(match expires {
            0 => Request::Leave { links: self.read_links(message) },
            expires => Request::Register { expires },
        })
    }

    fn route(&self, message: &Message) -> Result<Route, CarryError> {
        let hops = message.max_forwards().unwrap_or(MAX_FORWARDS);
        if message.has_token("Request-Disposition", "proxy") {
            return Ok(Route::Recursive { hops, path: self.read_path(message)? });
        }
        Ok(if hops == 0 { Route::Here } else { Route::Iterative })
    }

    /// The route of what is written: to the responsible peer by the writer itself.
    fn unrelayed(&self, message: &Message) -> Result<Route, CarryError> {
        Ok(match self.route(message)? {
            Route::Recursive { .. } => Route::Iterative,
            route => route,
        })
    }

    /// The resource that To names: its key, replica and canonical address of record.
    pub(super) fn resource(&self, message: &Message, to: &Loose<'_>) -> Result<(Id, u8, Option<Arc<str>>), CarryError> {
        let uri = message.to()?.uri;
        let aor = uri.user_unescaped().and_then(|user| identity::aor(&user, &uri.host).ok());
        let aor: Arc<str> = aor.unwrap_or_else(|| uri.canonical_aor()).into();
        let replica = match to.get(&["replica"]) {
            Some(n) => n.parse().map_err(|_| CarryError::BadId("replica"))?,
            None => 0,
        };
        let named = match to.get(&RESOURCE_ID) {
            Some(text) => Some(self.space.parse(text).ok_or(CarryError::BadId("resource-ID"))?),
            None => None,
        };
        // A query may name the identifier alone.
        let anonymous = to.user.eq_ignore_ascii_case("resource") && to.addr.is_some_and(|a| a.ip().is_unspecified());
        if anonymous {
            return Ok((named.ok_or(CarryError::BadId("resource-ID"))?, replica, None));
        }
        let key = (self.resource_id)(&aor);
        if named.is_some_and(|n| n != key) {
            return Err(CarryError::BadId("resource-ID"));
        }
        Ok((key, replica, Some(aor)))
    }

    pub(super) fn resource_uri(&self, aor: Option<&str>, key: &Id, replica: u8) -> String {
        let aor = aor.unwrap_or("sip:resource@0.0.0.0");
        let key = self.space.show(key);
        match replica {
            0 => format!("<{aor};resource-ID={key}>"),
            n => format!("<{aor};resource-ID={key};replica={n}>"),
        }
    }

    fn is_own(&self, entry: &SignedEntry) -> bool {
        ContactBody::decode(&entry.entry().body).is_ok_and(|b| b.peer_id == self.me.id)
    }
}
