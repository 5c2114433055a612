//! Where a message came from and where it goes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// How SIP bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// One message a datagram.
    Udp,
    /// A stream in clear.
    Tcp,
    /// A stream under TLS; the links between peers are of this kind.
    Tls,
    /// WebSocket messages over TCP (RFC 7118).
    Ws,
    /// WebSocket messages over TLS.
    Wss,
}

impl Transport {
    /// True for streams, where the transaction timers do not retransmit.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    /// The name in a Via header field.
    pub const fn via_name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// False for what only the other end opens: the client does a WebSocket.
    pub const fn is_dialled(self) -> bool {
        !matches!(self, Transport::Ws | Transport::Wss)
    }

    /// True where nobody on the way can read it.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// The value of a `transport` URI parameter; one for WebSockets of both kinds (RFC 7118 section 5.2.4).
    pub const fn uri_name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws | Transport::Wss => "ws",
        }
    }

    /// Reads a Via or URI transport name, in any case.
    pub fn from_name(name: &str) -> Option<Transport> {
        let all = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
        all.into_iter().find(|t| name.eq_ignore_ascii_case(t.via_name()))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri_name())
    }
}

/// A stream connection, named by whoever opened or accepted it first in this process; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A path to one remote address (in the sense of RFC 5626): a UDP socket and a remote address, or a
/// stream connection. A response goes back on the flow that its request came in on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// Transport of the flow.
    pub transport: Transport,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The connection, on a stream.
    pub conn: Option<ConnId>,
}

impl Flow {
    /// A UDP flow.
    pub const fn udp(local: SocketAddr, remote: SocketAddr) -> Flow {
        Flow { transport: Transport::Udp, local, remote, conn: None }
    }

    /// A flow on a stream connection.
    pub const fn stream(transport: Transport, local: SocketAddr, remote: SocketAddr, conn: ConnId) -> Flow {
        Flow { transport, local, remote, conn: Some(conn) }
    }
}

/// What one subscriber has: an IPv4 address, or the /64 of an IPv6 address. What is bounded per source counts by it.
pub fn subscriber(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[8..].fill(0);
            Ipv6Addr::from(octets).into()
        }
        v4 => v4,
    }
}
