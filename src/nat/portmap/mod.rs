//! Asking the router for a port: one TCP port of this machine is to lead in from outside. PCP (RFC 6887) is tried first, then NAT-PMP
//! (RFC 6886), then UPnP IGD; what worked is renewed at half of its lifetime and removed at the end.
//!
//! Sans-IO: datagrams and HTTP answers in, datagrams and HTTP requests out. Nothing is believed but what the gateway says, with the nonce of this
//! machine's own request (PCP), from its own address (NAT-PMP), or from the server that described itself (IGD). Whoever is on
//! the local network can lie as a router does; all that is lost is that a wrong address is advertised, and the link to it proves nobody.
//!
//! Absent: announcements of a router that restarted (a renewal comes within minutes and makes the mapping anew); IPv6 pinholes; UDP.

mod http;
mod igd;
mod nat_pmp;
mod pcp;
mod xml;

pub use http::LARGEST as LARGEST_ANSWER;
pub use http::{Progress, Response as Answer, read as read_answer};

use crate::core::{Instant, Rng};
use http::{Response, Url};
use igd::{Outcome, Service};
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Lifetime asked for, seconds. RFC 6886 suggests two hours; a router that restarts forgets, and half of this is how long it takes to be noticed.
const LIFETIME: u32 = 900;
/// The longest that a router's own choice is believed.
const LIFETIME_MAX: u32 = 86_400;
/// Waits after each request to the gateway: RFC 6886 section 3.1 begins with 250 ms and doubles. PCP's 3 s are for a whole network's restart.
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Waits after each search; answers take up to a second (`MX: 1`).
const SEARCH_WAITS: [Duration; 3] = [Duration::from_millis(1500), Duration::from_millis(1500), Duration::from_secs(2)];
/// For one HTTP exchange; the driver has bounds of its own.
const HTTP_WAIT: Duration = Duration::from_secs(8);
/// From one vain attempt at all three to the next, at first and at most.
const REST_MIN: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(1800);
/// Other external ports tried where the usual one belongs to another machine.
const OTHER_PORTS: u8 = 4;
/// Devices whose description is read.
const DEVICES: usize = 4;

/// By what a port was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Port Control Protocol.
    Pcp,
    /// NAT Port Mapping Protocol.
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Via::Pcp => "PCP",
            Via::NatPmp => "NAT-PMP",
            Via::Upnp => "UPnP",
        })
    }
}

/// A port of the router that leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Address and port outside, as the router says; perhaps behind another NAT, see [`scope`](crate::nat::scope).
    pub external: SocketAddr,
    /// This machine's.
    pub internal: SocketAddr,
    /// How it was opened.
    pub via: Via,
    /// How long it holds without renewal.
    pub lifetime: Duration,
}

/// What is to be done outside, or was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send it from a UDP socket of the internal address.
    Datagram {
        /// The gateway, or the search's multicast group (TTL 2).
        to: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Connect, write, read one answer, and report [`PortMap::on_http`].
    Http {
        /// Names it.
        id: u64,
        /// Server.
        to: SocketAddr,
        /// The request.
        bytes: Vec<u8>,
    },
    /// A port leads here, or another one than before.
    Mapped(Mapping),
    /// None does, or no longer; it is tried again from time to time.
    Unmapped {
        /// Why, for a person.
        why: String,
    },
}

#[derive(Debug)]
enum Stage {
    Pcp { tries: usize },
    NatPmp { tries: usize, address: Option<Ipv4Addr>, mapped: Option<(u16, u32)> },
    Search { tries: usize },
    Describe { at: Url },
    Add { service: Service, port: u16, any: bool, lease: u32, others: u8 },
    Address { service: Service, port: u16, lease: u32 },
    Held,
    Resting,
    Closed,
}

/// What the latest mapping hangs on, to renew and to remove it.
#[derive(Debug, Clone)]
struct Held {
    mapping: Mapping,
    until: Instant,
    /// With UPnP: the service and its lease.
    service: Option<(Service, u32)>,
}

/// One port's machine.
pub struct PortMap {
    internal: SocketAddr,
    gateway: Option<Ipv4Addr>,
    label: String,
    rng: Rng,
    nonce: pcp::Nonce,
    stage: Stage,
    due: Option<Instant>,
    held: Option<Held>,
    devices: VecDeque<Url>,
    reasons: Vec<String>,
    told: bool,
    rest: Duration,
    http: u64,
    out: VecDeque<Output>,
}

impl PortMap {
    /// Begins to ask for `internal`, an IPv4 address of this machine. Without a known gateway only UPnP is left. `label` is what
    /// the router's list of mappings shows.
    pub fn new(now: Instant, internal: SocketAddr, gateway: Option<Ipv4Addr>, label: &str, mut rng: Rng) -> PortMap {
        let mut nonce = [0; 12];
        rng.fill(&mut nonce);
        let mut map = PortMap {
            internal,
            gateway,
            label: label.to_owned(),
            rng,
            nonce,
            stage: Stage::Resting,
            due: None,
            held: None,
            devices: VecDeque::new(),
            reasons: Vec::new(),
            told: false,
            rest: REST_MIN,
            http: 0,
            out: VecDeque::new(),
        };
        map.begin(now);
        map
    }

    /// A datagram came.
    pub fn on_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if self.gateway.is_some_and(|g| from == SocketAddr::new(g.into(), pcp::PORT)) {
            let pcp_holds = self.held.as_ref().is_some_and(|h| h.mapping.via == Via::Pcp);
            match &self.stage {
                Stage::Pcp { .. } => self.on_pcp(now, bytes),
                // The router tells of a change by itself (RFC 6887 section 14.2).
                Stage::Held if pcp_holds => self.on_pcp(now, bytes),
                Stage::NatPmp { .. } => self.on_nat_pmp(now, bytes),
                _ => {}
            }
        } else if let Some(place) = igd::location(bytes, from) {
            let fresh = self.devices.len() < DEVICES && !self.devices.contains(&place);
            if fresh && matches!(self.stage, Stage::Search { .. }) {
                self.devices.push_back(place);
                self.describe(now);
            } else if fresh && matches!(self.stage, Stage::Describe { .. }) {
                self.devices.push_back(place);
            }
        }
    }

    /// An HTTP exchange has ended; `None` when there was no answer.
    pub fn on_http(&mut self, now: Instant, id: u64, answer: Option<Response>) {
        if id != self.http {
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Resting) {
            Stage::Describe { at } => {
                let text = answer.filter(|a| a.status == 200).map(|a| String::from_utf8_lossy(&a.body).into_owned());
                match text.and_then(|text| igd::service(&text, &at)) {
                    Some(service) => {
                        let (port, any) = (self.wanted_port(), service.chooses());
                        self.add(now, service, port, any, LIFETIME, OTHER_PORTS);
                    }
                    None => self.describe(now),
                }
            }
            Stage::Add { service, port, any, lease, others } => {
                self.on_added(now, answer.as_ref(), service, port, (any, lease, others));
            }
            Stage::Address { service, port, lease } => {
                let outcome = answer.as_ref().map(igd::outcome);
                let ip = match outcome {
                    Some(Outcome::Done(text)) => igd::external_address(&text),
                    _ => None,
                };
                match ip.filter(|ip| !ip.is_unspecified()) {
                    Some(ip) => {
                        let lifetime = if lease == 0 { LIFETIME } else { lease };
                        self.hold(now, Via::Upnp, SocketAddr::new(ip.into(), port), lifetime, Some((service, lease)));
                    }
                    None => self.fail(now, "the router has no address outside (UPnP)".into()),
                }
            }
            other => self.stage = other,
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(held) = self.held.as_ref().filter(|h| h.until <= now) {
            let why = format!("the router no longer answers ({})", held.mapping.via);
            self.held = None;
            self.unmapped(why);
        }
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        self.due = None;
        match &mut self.stage {
            Stage::Pcp { tries } => {
                *tries += 1;
                self.ask_pcp(now);
            }
            Stage::NatPmp { tries, .. } => {
                *tries += 1;
                self.ask_nat_pmp(now);
            }
            Stage::Search { tries } => {
                *tries += 1;
                self.search(now);
            }
            Stage::Describe { .. } => self.describe(now),
            Stage::Add { .. } | Stage::Address { .. } => self.fail(now, "the router does not answer (UPnP)".into()),
            Stage::Held => self.renew(now),
            Stage::Resting => self.begin(now),
            Stage::Closed => {}
        }
    }

    /// When [`PortMap::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.due, self.held.as_ref().map(|h| h.until)].into_iter().flatten().min()
    }

    /// The next thing to do outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Removes the mapping. What comes out after this is to be sent; no answer is needed.
    pub fn close(&mut self) {
        self.stage = Stage::Closed;
        self.due = None;
        let Some(held) = self.held.take() else { return };
        let gateway = self.gateway.map(|g| SocketAddr::new(g.into(), pcp::PORT));
        match (held.mapping.via, gateway, held.service) {
            (Via::Pcp, Some(to), _) => {
                let bytes = pcp::request(&self.nonce, self.internal, pcp::any(0), 0);
                self.out.push_back(Output::Datagram { to, bytes });
            }
            (Via::NatPmp, Some(to), _) => {
                self.out.push_back(Output::Datagram { to, bytes: nat_pmp::map_request(self.internal.port(), 0, 0) });
            }
            (Via::Upnp, _, Some((service, _))) => {
                let bytes = service.delete(held.mapping.external.port());
                self.ask_http(service.addr(), bytes);
            }
            _ => {}
        }
    }

    fn begin(&mut self, now: Instant) {
        self.reasons.clear();
        match self.gateway {
            Some(_) => {
                self.stage = Stage::Pcp { tries: 0 };
                self.ask_pcp(now);
            }
            None => self.begin_search(now),
        }
    }

    fn renew(&mut self, now: Instant) {
        self.reasons.clear();
        let Some(held) = self.held.clone() else { return self.begin(now) };
        match (held.mapping.via, held.service) {
            (Via::Upnp, Some((service, lease))) => {
                self.add(now, service, held.mapping.external.port(), false, lease, 0);
            }
            (Via::NatPmp, _) => self.begin_nat_pmp(now),
            _ => self.begin(now),
        }
    }

    /// The port outside that is asked for: the one that is held, else that of this machine.
    fn wanted_port(&self) -> u16 {
        self.held.as_ref().map_or(self.internal.port(), |h| h.mapping.external.port())
    }

    fn gateway_hears(&mut self, bytes: Vec<u8>) {
        if let Some(gateway) = self.gateway {
            self.out.push_back(Output::Datagram { to: SocketAddr::new(gateway.into(), pcp::PORT), bytes });
        }
    }

    fn ask_pcp(&mut self, now: Instant) {
        let Stage::Pcp { tries } = self.stage else { return };
        let Some(wait) = WAITS.get(tries) else { return self.fail(now, "no answer (PCP)".into()) };
        let wanted = self.held.as_ref().map_or(pcp::any(self.internal.port()), |h| h.mapping.external);
        let bytes = pcp::request(&self.nonce, self.internal, wanted, LIFETIME);
        self.gateway_hears(bytes);
        self.due = Some(now + *wait);
    }

    fn on_pcp(&mut self, now: Instant, bytes: &[u8]) {
        match pcp::read(bytes, &self.nonce, self.internal) {
            Some(pcp::Answer::Mapped { external, lifetime }) if lifetime > 0 && !external.ip().is_unspecified() => {
                self.hold(now, Via::Pcp, external, lifetime, None);
            }
            Some(pcp::Answer::Refused { .. } | pcp::Answer::Mapped { .. }) if matches!(self.stage, Stage::Held) => {}
            Some(pcp::Answer::Refused { refusal: pcp::Refusal::Version, .. }) => self.begin_nat_pmp(now),
            Some(pcp::Answer::Refused { refusal, .. }) => {
                let why = match refusal {
                    pcp::Refusal::NotAuthorized => "not allowed by the router (PCP)".into(),
                    pcp::Refusal::AddressMismatch => "another NAT lies before the router (PCP)".into(),
                    pcp::Refusal::Version | pcp::Refusal::Code(_) => {
                        format!("refused by the router (PCP: {refusal:?})")
                    }
                };
                self.fail(now, why);
            }
            Some(pcp::Answer::Mapped { .. }) => self.fail(now, "the router has no address outside (PCP)".into()),
            None => {}
        }
    }

    fn begin_nat_pmp(&mut self, now: Instant) {
        self.stage = Stage::NatPmp { tries: 0, address: None, mapped: None };
        self.ask_nat_pmp(now);
    }

    fn ask_nat_pmp(&mut self, now: Instant) {
        let Stage::NatPmp { tries, address, mapped } = self.stage else { return };
        let Some(wait) = WAITS.get(tries) else { return self.fail(now, "no answer (NAT-PMP)".into()) };
        if address.is_none() {
            self.gateway_hears(nat_pmp::address_request());
        }
        if mapped.is_none() {
            let wanted = self.wanted_port();
            self.gateway_hears(nat_pmp::map_request(self.internal.port(), wanted, LIFETIME));
        }
        self.due = Some(now + *wait);
    }

    fn on_nat_pmp(&mut self, now: Instant, bytes: &[u8]) {
        let internal = self.internal.port();
        let Stage::NatPmp { address, mapped, .. } = &mut self.stage else { return };
        match nat_pmp::read(bytes) {
            Some(nat_pmp::Answer::Address(ip)) if ip.is_unspecified() => {
                return self.fail(now, "the router has no address outside (NAT-PMP)".into());
            }
            Some(nat_pmp::Answer::Address(ip)) => *address = Some(ip),
            Some(nat_pmp::Answer::Mapped { internal: port, external, lifetime })
                if port == internal && external != 0 && lifetime != 0 =>
            {
                *mapped = Some((external, lifetime));
            }
            Some(nat_pmp::Answer::Refused(code)) => {
                return self.fail(now, format!("refused by the router (NAT-PMP: result {code})"));
            }
            Some(nat_pmp::Answer::Mapped { .. }) | None => {}
        }
        if let (Some(ip), Some((port, lifetime))) = (*address, *mapped) {
            self.hold(now, Via::NatPmp, SocketAddr::new(IpAddr::V4(ip), port), lifetime, None);
        }
    }

    fn begin_search(&mut self, now: Instant) {
        self.devices.clear();
        self.stage = Stage::Search { tries: 0 };
        self.search(now);
    }

    fn search(&mut self, now: Instant) {
        let Stage::Search { tries } = self.stage else { return };
        let Some(wait) = SEARCH_WAITS.get(tries) else { return self.fail(now, "no answer (UPnP)".into()) };
        self.out.extend(igd::searches().map(|bytes| Output::Datagram { to: igd::SSDP, bytes }));
        self.due = Some(now + *wait);
    }

    /// Reads the next description.
    fn describe(&mut self, now: Instant) {
        let Some(at) = self.devices.pop_front() else {
            return self.fail(now, "no device that maps ports (UPnP)".into());
        };
        let (to, bytes) = (at.addr, at.get());
        self.stage = Stage::Describe { at };
        self.ask_http(to, bytes);
        self.due = Some(now + HTTP_WAIT);
    }

    fn add(&mut self, now: Instant, service: Service, port: u16, any: bool, lease: u32, others: u8) {
        let bytes = service.add(self.internal, port, lease, any, &self.label);
        self.ask_http(service.addr(), bytes);
        self.stage = Stage::Add { service, port, any, lease, others };
        self.due = Some(now + HTTP_WAIT);
    }

    fn on_added(
        &mut self,
        now: Instant,
        answer: Option<&Response>,
        service: Service,
        port: u16,
        (any, lease, others): (bool, u32, u8),
    ) {
        match answer.map(igd::outcome) {
            Some(Outcome::Done(text)) => {
                let port = if any { igd::reserved_port(&text).unwrap_or(port) } else { port };
                self.ask_http(service.addr(), service.external_address());
                self.stage = Stage::Address { service, port, lease };
                self.due = Some(now + HTTP_WAIT);
            }
            Some(Outcome::Fault(igd::PERMANENT_ONLY)) if lease > 0 => self.add(now, service, port, any, 0, others),
            // A router that says version 2 and knows only what version 1 has.
            Some(Outcome::Fault(_)) if any => self.add(now, service, port, false, lease, others),
            Some(Outcome::Fault(igd::CONFLICT)) if others > 0 => {
                let other = 20_000 + self.rng.below(40_000) as u16;
                self.add(now, service, other, false, lease, others - 1);
            }
            Some(Outcome::Fault(code)) => self.fail(now, format!("refused by the router (UPnP: error {code})")),
            None => self.fail(now, "the router does not answer (UPnP)".into()),
        }
    }

    fn ask_http(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        self.http += 1;
        self.out.push_back(Output::Http { id: self.http, to, bytes });
    }

    fn hold(&mut self, now: Instant, via: Via, external: SocketAddr, lifetime: u32, service: Option<(Service, u32)>) {
        let lifetime = Duration::from_secs(lifetime.min(LIFETIME_MAX).into());
        let mapping = Mapping { external, internal: self.internal, via, lifetime };
        let before = self.held.as_ref().map(|h| (h.mapping.external, h.mapping.via));
        self.held = Some(Held { mapping, until: now + lifetime, service });
        (self.stage, self.rest, self.told) = (Stage::Held, REST_MIN, false);
        self.due = Some(now + lifetime / 2);
        if before != Some((external, via)) {
            self.out.push_back(Output::Mapped(mapping));
        }
    }

    /// What is tried has failed: the next of the three, or a rest.
    fn fail(&mut self, now: Instant, why: String) {
        self.reasons.push(why);
        match self.stage {
            Stage::Pcp { .. } => return self.begin_nat_pmp(now),
            Stage::NatPmp { .. } => return self.begin_search(now),
            _ => {}
        }
        self.stage = Stage::Resting;
        self.due = Some(now + self.rest);
        self.rest = (self.rest * 2).min(REST_MAX);
        if self.held.is_none() {
            let why = format!("no router opens a port: {}", self.reasons.join(", "));
            self.unmapped(why);
        }
    }

    fn unmapped(&mut self, why: String) {
        if !std::mem::replace(&mut self.told, true) {
            self.out.push_back(Output::Unmapped { why });
        }
    }
}

#[cfg(test)]
mod tests;
