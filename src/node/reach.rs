//! Where this node can be reached: at its address, at a port that a router opened, at a global IPv6 address, or from nowhere outside. And
//! what follows when its address changes.
//!
//! All this is what the addresses themselves say. A firewall in between is not seen here; whether somebody outside really gets in is for
//! those outside to try.

use super::Node;
use super::control::{Event, ReachStatus};
use super::ring::State;
use crate::core::Instant;
use crate::identity::TrustAnchor;
use crate::nat::portmap::Mapping;
use crate::nat::{Scope, scope};
use crate::overlay;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a node looks for others and for a port before it says that nobody can reach it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of the ways here.
#[derive(Debug, Default)]
pub(super) struct Reach {
    mapping: Option<Mapping>,
    /// Why no router opens a port.
    refused: Option<String>,
    check: Option<Instant>,
    said: bool,
}

impl Node {
    /// Every address that others may try, the one on the local network first.
    pub(super) fn own_addresses(&self) -> Vec<SocketAddr> {
        let mut all = vec![self.flows.locals().overlay];
        let mapped = self.public_mapping().map(|m| m.external);
        for addr in mapped.into_iter().chain(self.setup.also.iter().copied()) {
            if !all.contains(&addr) {
                all.push(addr);
            }
        }
        all
    }

    fn public_mapping(&self) -> Option<&Mapping> {
        self.reach.mapping.as_ref().filter(|m| scope(m.external.ip()) == Scope::Public)
    }

    /// A router opened a port.
    pub(super) fn on_mapped(&mut self, now: Instant, mapping: Mapping) {
        if mapping.internal != self.flows.locals().overlay {
            return; // Of the address before this one.
        }
        let (address, via) = (mapping.external, mapping.via);
        (self.reach.mapping, self.reach.refused) = (Some(mapping), None);
        match scope(address.ip()) {
            Scope::Public => {
                tracing::info!(%address, %via, "a router opened a port");
                self.publisher.rewrite(now);
                self.event(None, Event::Mapped { address, via: via.to_string() });
            }
            kind => tracing::warn!(
                %address, %via,
                "a router opened a port whose address is {}: another NAT lies before it", kind.text()
            ),
        }
    }

    /// No router opens a port, or none any more.
    pub(super) fn on_unmapped(&mut self, now: Instant, why: String) {
        let was = self.public_mapping().is_some();
        (self.reach.mapping, self.reach.refused) = (None, Some(why));
        if was {
            self.publisher.rewrite(now);
        }
    }

    /// This machine has another address.
    pub(super) fn on_moved(&mut self, now: Instant, sip: SocketAddr, overlay: SocketAddr, also: Vec<SocketAddr>) {
        let before = self.flows.locals();
        let elsewhere = before.overlay != overlay || before.sip != sip;
        if !elsewhere && self.setup.also == also {
            return;
        }
        self.setup.also = also;
        if elsewhere {
            tracing::info!(from = %before.overlay, to = %overlay, "the address of this machine changed");
            (self.setup.sip, self.setup.overlay) = (sip, overlay);
            (self.reach.mapping, self.reach.refused, self.reach.said) = (None, None, false);
            self.flows.moved(self.setup.locals(), &mut self.wire);
            for domain in [&mut self.domain, self.registrar.domain_mut(), self.router.domain_mut()] {
                domain.replace_address(before.sip, sip);
                domain.replace_address(before.overlay, overlay);
            }
            self.router.moved(sip);
            let (link_contact, clear_contact) = self.setup.contacts();
            self.ua.moved(link_contact, clear_contact);
            if let Some(link) = self.setup.link(!self.attach.via.is_empty()) {
                self.router.set_link(link);
            }
            if let Some(carry) = self.carry.as_mut() {
                carry.me.addr = overlay;
            }
            self.overlay_input(now, overlay::Input::Moved { addr: overlay });
            self.event(None, Event::Moved { address: overlay });
            self.outside_moved();
            self.move_paths();
            self.begin_reach(now);
            self.survey_anew(now);
        }
        self.publisher.rewrite(now);
        if self.is_alone() {
            self.look_for_others(now);
        }
    }

    /// Begins to watch whether anybody can be reached, or reach this node.
    pub(super) fn begin_reach(&mut self, now: Instant) {
        let here = self.flows.locals();
        let networked = self.overlay.is_some() && !here.clear && !here.overlay.ip().is_loopback();
        if networked && !self.reach.said {
            self.reach.check = Some(now + PATIENCE);
        }
    }

    pub(super) fn next_reach(&self) -> Option<Instant> {
        self.reach.check
    }

    pub(super) fn reach_timeout(&mut self, now: Instant) {
        if self.reach.check.is_none_or(|at| at > now) {
            return;
        }
        self.reach.check = None;
        let reach = self.reach();
        if reach.state == "none" && !std::mem::replace(&mut self.reach.said, true) {
            tracing::warn!("{}; {}", reach.says, reach.next.unwrap_or_default());
        }
    }

    /// Where this node can be reached, in words.
    pub(super) fn reach(&self) -> ReachStatus {
        let here = self.flows.locals();
        let addresses = self.own_addresses().iter().map(SocketAddr::to_string).collect();
        let status = |state: &str, says: String| ReachStatus { state: state.into(), addresses, says, next: None };
        let own = scope(here.overlay.ip());
        if self.overlay.is_none() {
            return ReachStatus::default();
        }
        if here.clear || own == Scope::Loopback {
            return status("local", "from this machine only".into());
        }
        if let Some(mapping) = self.public_mapping() {
            let says =
                format!("reachable from outside at {}: opened by {} on the router", mapping.external, mapping.via);
            return status("mapped", says);
        }
        let public = self.own_addresses().into_iter().find(|a| scope(a.ip()) == Scope::Public);
        if let Some(address) = public {
            let says = match self.setup.config.overlay.advertise == Some(address) {
                true => format!("reachable from outside at {address}, as it was told"),
                false => format!("has the public address {address}; a firewall may still be in the way"),
            };
            return status("public", says);
        }
        let why = match (&self.reach.mapping, &self.reach.refused) {
            (Some(mapping), _) => format!(
                "the port {} that {} opened on the router has an address that is {}",
                mapping.external,
                mapping.via,
                scope(mapping.external.ip()).text()
            ),
            (None, Some(why)) => why.clone(),
            (None, None) if self.setup.maps && self.reach.check.is_some() => {
                return status("unknown", "the router is being asked for a port".into());
            }
            (None, None) => "no router is asked for a port".into(),
        };
        let others = self.ring.state() == State::In && !self.is_alone();
        match others {
            true => status("lan", format!("not reachable from outside ({why}); other peers are connected")),
            false => {
                let says =
                    format!("nobody outside of this network can reach this peer ({why}), and it has found nobody");
                ReachStatus { next: Some(self.supernode_advice()), ..status("none", says) }
            }
        }
    }

    /// The one command that gives an overlay an outside door.
    fn supernode_advice(&self) -> String {
        let port = self.flows.locals().overlay.port();
        match self.identity.as_ref().map(|i| &i.anchor) {
            Some(TrustAnchor::Office { .. }) => format!(
                "rent a small machine and let it in: here `chordial office invite relay` and `chordial join CODE --data relay`, copy the directory \
                 `relay` there, and there run `chordial start --headless --role supernode --data relay`; then start here with --bootstrap ITS-ADDRESS:{port}"
            ),
            _ => format!(
                "rent a small machine and run there `chordial start --headless --role supernode --open --overlay {} --name relay`; then start \
                 here with --bootstrap ITS-ADDRESS:{port}",
                self.domain.overlay()
            ),
        }
    }
}
