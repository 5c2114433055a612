//! Whether a request is carried, and where to (RFC 3261 sections 16.3 to 16.5); which of our sides it crosses.

use super::path::{self, Path, Side};
use super::{Core, Scope, context, pass};
use crate::core::{Flow, Transport};
use crate::pbx::{Candidate, Origin, Target};
use crate::sip::msg::{HeaderName, Message, Method, Scheme, Uri};
use std::net::SocketAddr;

/// A response of our own to a request that goes nowhere.
pub(super) struct Refusal(pub u16, pub &'static str);

/// Where a request goes.
pub(super) enum Plan {
    Look {
        user: String,
        scope: Scope,
    },
    Go(Target),
    /// To whoever of these is there, as it is.
    Edge(Vec<Candidate>),
}

impl Core {
    /// Sections 16.3 to 16.5, credentials apart.
    pub(super) fn route(
        &mut self,
        request: &mut Message,
        flow: &Flow,
        origin: &Origin,
    ) -> Result<(Plan, String), Refusal> {
        let uri = Uri::parse(request.request_uri()).map_err(|_| Refusal(400, "Malformed Request-URI"))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Tel) {
            return Err(Refusal(416, "Unsupported URI Scheme"));
        }
        match request.max_forwards() {
            Some(0) => return Err(Refusal(483, "Too Many Hops")),
            None if request.has(HeaderName::MaxForwards) => {
                return Err(Refusal(400, "Malformed Max-Forwards header field"));
            }
            _ => {}
        }
        if request.has(HeaderName::ProxyRequire) {
            return Err(Refusal(420, "Bad Extension"));
        }
        let entered = path::enter(request, flow, &self.config.domain, &self.passes);
        let mut path = entered.map_err(|path::Unreadable(what)| Refusal(400, what))?;
        let mark = self.passes.mark(request);
        if pass::has_mark(request, &mark) {
            self.counters.loops += 1;
            return Err(Refusal(482, "Loop Detected"));
        }
        if let Origin::Edge { adapters } = origin {
            self.name_overlay(request, &path.uri);
            return Ok((Plan::Edge(adapters.clone()), mark));
        }
        if !matches!(origin, Origin::Peer { .. }) {
            path.way = None;
        }
        let scope = match origin {
            Origin::Phone { .. } | Origin::Ua { .. } | Origin::Foreign => Scope::Overlay,
            // A peer has looked already; a stranger may not.
            Origin::Peer { .. } | Origin::Dialog | Origin::Outside | Origin::Edge { .. } => Scope::Here,
        };
        let plan = self.plan(request, path, origin.is_member(), scope)?;
        Ok((plan, mark))
    }

    fn plan(&mut self, request: &mut Message, path: Path, member: bool, scope: Scope) -> Result<Plan, Refusal> {
        let may_go = path.proven || member;
        if let Some(flow) = path.flow.or(path.way) {
            if let Some(next) = &path.next {
                path::adapt_to_strict(request, next);
            }
            return Ok(Plan::Go(Target::Flow { uri: request.request_uri().to_owned(), flow }));
        }
        if path.next.is_none() {
            if let Some(user) = self.config.domain.callee_of(&path.uri) {
                return Ok(Plan::Look { user, scope });
            }
            if self.config.domain.covers(&path.uri) {
                return Err(match request.method() {
                    Method::Options => Refusal(200, "OK"),
                    _ => Refusal(405, "Method Not Allowed"),
                });
            }
        }
        if !may_go {
            self.counters.relay_denied += 1;
            return Err(Refusal(403, "Relaying Denied"));
        }
        let target = match &path.next {
            Some(next) => {
                path::adapt_to_strict(request, next);
                Target::of(next)
            }
            None => Target::of(&path.uri),
        };
        Ok(Plan::Go(target))
    }

    /// What names this overlay by our own address names it by its name, which the next one knows too.
    fn name_overlay(&self, request: &mut Message, uri: &Uri) {
        if self.config.domain.covers(uri) {
            let named = Uri::sip(uri.user.as_deref(), self.config.domain.overlay(), None);
            request.set_request_uri(&named.to_string());
        }
    }

    /// An ACK goes where a pass of ours lets it, or to a user hosted here.
    pub(super) fn route_ack(&mut self, ack: &mut Message, flow: &Flow) -> Option<Plan> {
        let mut path = path::enter(ack, flow, &self.config.domain, &self.passes).ok()?;
        path.way = None;
        self.plan(ack, path, false, Scope::Here).ok()
    }

    /// Takes out what is for us or what only we may say.
    pub(super) fn strip(&self, request: &mut Message, origin: &Origin) {
        let edge = matches!(origin, Origin::Edge { .. });
        if request.has(HeaderName::ProxyAuthorization) && !edge {
            let ours = format!("realm=\"{}\"", self.config.domain.overlay());
            let others: Vec<String> = request.headers(HeaderName::ProxyAuthorization).map(str::to_owned).collect();
            request.remove(HeaderName::ProxyAuthorization);
            for value in others.iter().filter(|value| !value.contains(&ours)) {
                request.push(HeaderName::ProxyAuthorization, value);
            }
        }
        // Asserted by whom we do not trust (RFC 3325 section 5).
        if !matches!(origin, Origin::Peer { .. } | Origin::Ua { .. }) && request.has(HeaderName::PAssertedIdentity) {
            request.remove(HeaderName::PAssertedIdentity);
        }
    }

    /// Our side towards whoever sent a request; none for our own user agent.
    pub(super) fn side_from(&self, request: &Message, flow: &Flow, origin: &Origin) -> Option<Side> {
        match origin {
            Origin::Ua { .. } => None,
            Origin::Peer { .. } | Origin::Phone { edge: true, .. } => self.link_side(),
            // Only its own link leads back to who is no peer here.
            Origin::Foreign => Some(self.clear_side(flow, Some(*flow))),
            _ => Some(self.clear_side(flow, context::pinned(request, flow))),
        }
    }

    /// Our side towards a target; none for our own user agent.
    pub(super) fn side_to(&self, target: &Target) -> Option<Side> {
        match target {
            Target::Ua { .. } => None,
            Target::Peer { .. } | Target::Path { .. } => self.link_side(),
            Target::Flow { flow, .. } => Some(self.clear_side(flow, Some(*flow))),
            Target::Uri { uri } => {
                let uri = Uri::parse(uri).ok();
                let transport = uri.as_ref().and_then(|uri| uri.params.get("transport")).and_then(Transport::from_name);
                let (transport, address) = match transport {
                    Some(Transport::Tcp) => (Transport::Tcp, self.config.tcp),
                    _ => (Transport::Udp, self.config.udp),
                };
                Some(Side::clear(transport, address, None))
            }
        }
    }

    pub(super) fn link_side(&self) -> Option<Side> {
        self.config.link.as_ref().map(|link| Side::link(link.address, link.transport, &link.id, link.kept))
    }

    fn clear_side(&self, flow: &Flow, kept: Option<Flow>) -> Side {
        // Phones are served over TLS where links are.
        if let (true, Some(link)) = (flow.transport.is_encrypted(), &self.config.link) {
            return Side::clear(flow.transport, link.address, kept);
        }
        let ours = if flow.transport == Transport::Udp { self.config.udp } else { self.config.tcp };
        // Of a connection that we opened, the local port is nobody's address.
        let address = if ours.ip().is_unspecified() || ours.is_ipv4() != flow.local.is_ipv4() {
            SocketAddr::new(flow.local.ip(), ours.port())
        } else {
            ours
        };
        Side::clear(flow.transport, address, kept)
    }
}
