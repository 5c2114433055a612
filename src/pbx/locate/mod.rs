//! Where a SIP URI with a host name leads (RFC 3263): what is to be asked of the DNS, in which order, and what comes of it.
//!
//! 1. `_sips._tcp.DOMAIN`: supernodes of an overlay of that name (SIP over TLS 1.3, both ends by their keys);
//! 2. NAPTR of the domain, `SIP+D2U` and `SIP+D2T` by order and preference; where there is none, `_sip._udp` and `_sip._tcp`;
//! 3. where there is no SRV at all, the addresses of the domain itself, UDP, port 5060.
//!
//! A port or a `transport` in the URI shortens that as section 4 has it. SRV records are ordered by priority and drawn by
//! weight (RFC 2782). One question is under way at a time, and places come as they are found, the first of them first, so
//! that the rest is asked only when it fails.
//!
//! Left out: `sips:` (not offered), SIP over TLS with certificates of the web's authorities, SCTP, U-NAPTR by regular expression.

use crate::core::{Rng, Transport};
use crate::sip::msg::Uri;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

#[cfg(test)]
mod tests;

/// Most SRV records of one name, and most NAPTR records of a domain.
const RECORDS: usize = 8;
/// Most addresses of one host.
const ADDRESSES: usize = 4;
/// Most questions for one URI.
const QUESTIONS: usize = 24;

/// What is asked of the DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Without the root's dot.
    pub name: String,
    /// Which records.
    pub kind: RecordKind,
}

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    /// RFC 3403.
    Naptr,
    /// RFC 2782.
    Srv,
    /// A and AAAA.
    Address,
}

/// An answer's record, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// RFC 3403.
    Naptr {
        /// Lowest first.
        order: u16,
        /// Lowest first within an order.
        preference: u16,
        /// `SIP+D2U` and the like.
        service: String,
        /// The SRV name.
        replacement: String,
    },
    /// RFC 2782.
    Srv {
        /// Lowest first.
        priority: u16,
        /// Share among those of one priority.
        weight: u16,
        /// Port.
        port: u16,
        /// Host name; empty or `.` where the service is not offered.
        target: String,
    },
    /// A or AAAA.
    Address(IpAddr),
}

/// Somewhere to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// TLS to an overlay's supernode; else UDP or TCP.
    pub transport: Transport,
    /// Where.
    pub addr: SocketAddr,
}

#[derive(Debug)]
enum Ask {
    Naptr,
    Srv { name: String, transport: Transport },
    Host { name: String, port: u16, transport: Transport },
}

/// The search for one URI.
#[derive(Debug)]
pub struct Locate {
    domain: String,
    asks: VecDeque<Ask>,
    asked: Option<Ask>,
    /// What to fall back to where no SRV record was there.
    last: Option<(u16, Transport)>,
    questions: usize,
}

impl Locate {
    /// The search for the host of `uri`. `overlay_only`: nothing in clear, since the domain is known for an overlay.
    pub fn new(uri: &Uri, overlay_only: bool) -> Locate {
        let domain = uri.host.trim_end_matches('.').to_ascii_lowercase();
        let spoken = |name| Transport::from_name(name).filter(|transport| transport.is_dialled());
        let transport = uri.params.get("transport").map(spoken);
        let srv = |service: &str, transport| Ask::Srv { name: format!("{service}.{domain}"), transport };
        let host = |port, transport| Ask::Host { name: domain.clone(), port, transport };
        let (mut asks, mut last) = (VecDeque::new(), None);
        match (uri.port, transport) {
            // A transport that is not spoken here.
            (_, Some(None)) => {}
            (Some(port), transport) => asks.push_back(host(port, transport.flatten().unwrap_or(Transport::Udp))),
            (None, Some(Some(Transport::Tls))) => asks.push_back(srv("_sips._tcp", Transport::Tls)),
            (None, Some(Some(transport))) => {
                asks.push_back(srv(if transport == Transport::Tcp { "_sip._tcp" } else { "_sip._udp" }, transport));
                last = Some((5060, transport));
            }
            (None, None) => {
                asks.extend([srv("_sips._tcp", Transport::Tls), Ask::Naptr]);
                last = Some((5060, Transport::Udp));
            }
        }
        if overlay_only {
            let tls = |ask: &Ask| {
                matches!(ask, Ask::Srv { transport: Transport::Tls, .. } | Ask::Host { transport: Transport::Tls, .. })
            };
            asks.retain(tls);
            last = None;
        }
        Locate { domain, asks, asked: None, last, questions: 0 }
    }

    /// The next question; none when there is nothing more to find. Its answer goes to [`Locate::answered`].
    pub fn next_question(&mut self) -> Option<Question> {
        if self.questions >= QUESTIONS {
            return None;
        }
        if self.asks.is_empty()
            && let Some((port, transport)) = self.last.take()
        {
            self.asks.push_back(Ask::Host { name: self.domain.clone(), port, transport });
        }
        let ask = self.asks.pop_front()?;
        let question = match &ask {
            Ask::Naptr => Question { name: self.domain.clone(), kind: RecordKind::Naptr },
            Ask::Srv { name, .. } => Question { name: name.clone(), kind: RecordKind::Srv },
            Ask::Host { name, .. } => Question { name: name.clone(), kind: RecordKind::Address },
        };
        self.asked = Some(ask);
        self.questions += 1;
        Some(question)
    }

    /// What was found for the last question, empty where nothing was or nobody answered; the places that follow from it.
    pub fn answered(&mut self, records: Vec<Record>, rng: &mut Rng) -> Vec<Place> {
        match self.asked.take() {
            Some(Ask::Naptr) => {
                self.on_naptr(records);
                Vec::new()
            }
            Some(Ask::Srv { transport, .. }) => {
                self.on_srv(records, transport, rng);
                Vec::new()
            }
            Some(Ask::Host { port, transport, .. }) => {
                let ips = records.into_iter().filter_map(|r| match r {
                    Record::Address(ip) => Some(ip),
                    Record::Naptr { .. } | Record::Srv { .. } => None,
                });
                ips.take(ADDRESSES).map(|ip| Place { transport, addr: SocketAddr::new(ip, port) }).collect()
            }
            None => Vec::new(),
        }
    }

    fn on_naptr(&mut self, records: Vec<Record>) {
        let mut services: Vec<(u16, u16, Transport, String)> = Vec::new();
        for record in records.into_iter().take(RECORDS) {
            let Record::Naptr { order, preference, service, replacement } = record else { continue };
            let transport = match service.to_ascii_uppercase().as_str() {
                "SIP+D2U" => Transport::Udp,
                "SIP+D2T" => Transport::Tcp,
                _ => continue,
            };
            services.push((order, preference, transport, replacement.trim_end_matches('.').to_ascii_lowercase()));
        }
        services.sort_by_key(|(order, preference, ..)| (*order, *preference));
        if services.is_empty() {
            let name = |service: &str| format!("{service}.{}", self.domain);
            self.asks.push_back(Ask::Srv { name: name("_sip._udp"), transport: Transport::Udp });
            self.asks.push_back(Ask::Srv { name: name("_sip._tcp"), transport: Transport::Tcp });
        }
        self.asks.extend(services.into_iter().map(|(_, _, transport, name)| Ask::Srv { name, transport }));
    }

    fn on_srv(&mut self, records: Vec<Record>, transport: Transport, rng: &mut Rng) {
        let mut services: Vec<(u16, u16, u16, String)> = Vec::new();
        for record in records.into_iter().take(RECORDS) {
            let Record::Srv { priority, weight, port, target } = record else { continue };
            if transport != Transport::Tls {
                // The domain says where its SIP is, or that it has none.
                self.last = None;
            }
            let target = target.trim_end_matches('.').to_ascii_lowercase();
            if !target.is_empty() {
                services.push((priority, weight, port, target));
            }
        }
        services.sort_by_key(|(priority, weight, ..)| (*priority, *weight));
        let mut ordered = Vec::new();
        while let Some(&(priority, ..)) = services.first() {
            let alike = services.iter().take_while(|s| s.0 == priority).count();
            let sum: u64 = services.iter().take(alike).map(|s| u64::from(s.1)).sum();
            let mut drawn = rng.below(sum + 1);
            let at = services.iter().take(alike).position(|s| match drawn.checked_sub(u64::from(s.1)) {
                Some(rest) if rest > 0 => {
                    drawn = rest;
                    false
                }
                _ => true,
            });
            ordered.push(services.remove(at.unwrap_or(0)));
        }
        for (_, _, port, name) in ordered.into_iter().rev() {
            self.asks.push_front(Ask::Host { name, port, transport });
        }
    }
}
