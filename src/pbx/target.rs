//! Where a request can be sent: what a location lookup finds and what the proxy hands out.

use super::domain::leads_to_remote;
use crate::core::{Flow, Id, Transport};
use crate::sip::msg::{Uri, Via};
use std::net::SocketAddr;

/// A peer that stands between a standard phone and the one that holds its account: an edge proxy (RFC 3327).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who it is.
    pub id: Id,
    /// Where it takes links.
    pub addr: SocketAddr,
    /// The Path that it wrote into the REGISTER: whoever sends to the phone puts it on top of Route.
    pub path: String,
}

/// One place to send a request to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Over an existing flow: a phone at the far end of its registration, behind a NAT or on its own stream.
    Flow {
        /// The Request-URI for it.
        uri: String,
        /// The flow.
        flow: Flow,
    },
    /// To another peer of the overlay, over the link with it.
    Peer {
        /// The Request-URI for it.
        uri: String,
        /// Who it has to be.
        id: Id,
        /// Where it takes links.
        addr: SocketAddr,
    },
    /// To a standard phone by the peer that it registered through.
    Path {
        /// The Request-URI for it.
        uri: String,
        /// That peer, and what it wants as Route.
        edge: Edge,
    },
    /// Wherever the URI leads (RFC 3263); [`direct`] reads the cases that need no DNS.
    Uri {
        /// Request-URI of a found target; of a forwarded request the next hop.
        uri: String,
    },
    /// This node's own user agent, over the internal flow.
    Ua {
        /// The Request-URI for it.
        uri: String,
    },
}

impl Target {
    /// The URI in it.
    pub fn uri(&self) -> &str {
        match self {
            Target::Flow { uri, .. }
            | Target::Peer { uri, .. }
            | Target::Path { uri, .. }
            | Target::Uri { uri }
            | Target::Ua { uri } => uri,
        }
    }

    /// The target that a URI means by itself: a peer for a URI with `peer-ID` and an address, else the URI.
    pub fn of(uri: &Uri) -> Target {
        let id = uri.params.get("peer-ID").and_then(Id::from_hex);
        match (id, uri.ip()) {
            (Some(id), Some(ip)) => {
                Target::Peer { uri: uri.to_string(), id, addr: SocketAddr::new(ip, uri.port.unwrap_or(5061)) }
            }
            _ => Target::Uri { uri: uri.to_string() },
        }
    }
}

/// A target and how much its user prefers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub target: Target,
    /// Preference in thousandths, 1000 the highest: the `q` of a Contact (RFC 3261 section 20.10).
    pub q: u16,
}

impl From<Target> for Candidate {
    fn from(target: Target) -> Candidate {
        Candidate { target, q: 1000 }
    }
}

/// Transport and address of a URI whose host is an address: what needs no DNS (RFC 3263 section 4). None for host
/// names, for `sips:` (not offered by this program) and for transports unknown here.
pub fn direct(uri: &Uri) -> Option<(Transport, SocketAddr)> {
    let transport = match uri.params.get("transport") {
        Some(name) => Transport::from_name(name).filter(|transport| transport.is_dialled())?,
        None => Transport::Udp,
    };
    let port = uri.port.unwrap_or(if transport == Transport::Tls { 5061 } else { 5060 });
    (uri.scheme.as_str() == "sip").then_some(())?;
    Some((transport, SocketAddr::new(uri.ip()?, port)))
}

/// Whether requests to `contact` have to take the flow that its owner wrote it on.
///
/// On a stream they do unless the contact names somebody else: its owner rarely listens, and a NAT may stand
/// between. On UDP they do where the contact is not the address that the packet came from, and the sender's Via
/// shows that it believes to be at the contact: it is behind a NAT (RFC 3581 section 1). A contact that is neither
/// where the packet came from nor where its Via says is a third party's and reached by itself.
pub(super) fn keeps_flow(contact: &Uri, via: Option<&Via>, flow: &Flow) -> bool {
    if flow.transport == Transport::Udp && leads_to_remote(contact, flow) {
        return false;
    }
    let same_address = contact.ip().is_some_and(|ip| super::domain::same_ip(ip, flow.remote.ip()));
    let same_via = via.is_some_and(|via| match (via.ip(), contact.ip()) {
        (Some(a), Some(b)) => super::domain::same_ip(a, b),
        _ => via.host.eq_ignore_ascii_case(&contact.host),
    });
    match contact.params.get("transport").map(Transport::from_name) {
        // It asks for another transport and is where it says it is.
        Some(asked) if asked.map(Transport::uri_name) != Some(flow.transport.uri_name()) && same_address => false,
        _ if flow.transport.is_reliable() => same_address || same_via,
        _ => same_via && !same_address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ConnId;

    fn kept(contact: &str, via: &str, flow: &Flow) -> bool {
        keeps_flow(&Uri::parse(contact).unwrap(), Via::parse(via).ok().as_ref(), flow)
    }

    #[test]
    fn a_flow_is_kept_where_the_contact_does_not_lead_back() {
        let (local, remote) = ("192.0.2.1:5060".parse().unwrap(), "198.51.100.7:40000".parse().unwrap());
        let udp = Flow::udp(local, remote);
        let tcp = Flow::stream(Transport::Tcp, local, remote, ConnId(1));
        let nat = "SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bK1;received=198.51.100.7;rport=40000";
        let open = "SIP/2.0/UDP 198.51.100.7:40000;branch=z9hG4bK1";
        assert!(kept("sip:bob@10.0.0.5:5060", nat, &udp));
        assert!(kept("sip:bob@x.invalid", "SIP/2.0/UDP x.invalid;branch=z9hG4bK1", &udp));
        assert!(!kept("sip:bob@198.51.100.7:40000", nat, &udp));
        assert!(!kept("sip:bob@198.51.100.7:5060", open, &udp), "it listens on another port");
        assert!(!kept("sip:bob@203.0.113.9:5060", open, &udp), "a third party");
        assert!(kept("sip:bob@198.51.100.7:5060", open, &tcp));
        assert!(kept("sip:bob@198.51.100.7:40000;transport=TCP", open, &tcp));
        assert!(!kept("sip:bob@198.51.100.7:5060;transport=udp", open, &tcp));
        assert!(kept("sip:bob@10.0.0.5:5060;transport=tcp", nat, &tcp));
        assert!(!kept("sip:bob@203.0.113.9:5060", open, &tcp), "a third party");
        // A page: what it writes leads nowhere, and both kinds of WebSocket have one name in a URI.
        let page = "SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK1";
        for transport in [Transport::Ws, Transport::Wss] {
            let web = Flow::stream(transport, local, remote, ConnId(2));
            assert!(kept("sip:rand@df7jal23ls0d.invalid;transport=ws", page, &web));
            assert!(kept("sip:bob@198.51.100.7;transport=ws", page, &web));
            assert!(!kept("sip:bob@198.51.100.7;transport=tcp", page, &web));
        }
    }

    #[test]
    fn uris_without_dns() {
        let read = |uri: &str| direct(&Uri::parse(uri).unwrap());
        assert_eq!(read("sip:a@192.0.2.1"), Some((Transport::Udp, "192.0.2.1:5060".parse().unwrap())));
        assert_eq!(
            read("sip:[2001:db8::1]:99;transport=TCP"),
            Some((Transport::Tcp, "[2001:db8::1]:99".parse().unwrap()))
        );
        assert_eq!(read("sip:192.0.2.1;transport=tls"), Some((Transport::Tls, "192.0.2.1:5061".parse().unwrap())));
        assert_eq!(read("sip:a@example.org"), None);
        assert_eq!(read("sip:192.0.2.1;transport=sctp"), None);
        assert_eq!(read("sips:192.0.2.1"), None);
    }
}
