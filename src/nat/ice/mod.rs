//! ICE for one stream of one call (RFC 8445, trickle RFC 8838, consent RFC 7675): which of the addresses of both ends reach each
//! other, and which pair of them the voice takes.
//!
//! | file | what |
//! |---|---|
//! | `agent` | the checks, by the agent of the crate `is`; its clock is the system's, ours starts anywhere |
//! | `recheck` | what was given up, again, while the way leads through a relay |
//! | `gather` | addresses of ours as STUN servers see them |
//! | `relay` | an address of a relay that is a call's for a while |
//! | `probe` | the STUN messages that ICE sends besides its checks (RFC 8489) |
//! | `lanes` | two ways of one call, both probed: which of them the voice takes |
//! | `echo` | the probes of the two ways |
//!
//! One component: RTP and RTCP share it (RFC 5761). Every pair is checked from the start, none is frozen (one stream). The
//! controlling end names the first pair that works and names a better one when that works too, so that voice begins early and
//! moves without a gap; a controlled end takes the best of those named.
//!
//! Over TCP (RFC 6544) each address of this machine connects and waits to be connected to; a connection is known by the address that waits
//! here, or by port 9 of that from which it was made, and by the other end's. Who carries packets frames them (RFC 4571).
//!
//! Left out: server-reflexive candidates over TCP and simultaneous opens (NATs rarely let them through), host candidates under mDNS names, an ice-lite role of our own.

mod agent;
mod echo;
mod gather;
mod lanes;
#[cfg(test)]
mod lanes_tests;
mod probe;
mod recheck;
mod relay;
#[cfg(test)]
mod tests;

pub use agent::{Agent, Output, Pair};
pub use echo::is_probe;
pub use gather::{Gatherer, Local};
pub use lanes::{Figures, Lane, Lanes, PROBE, Probe, Second};
pub use probe::{is_stun, mapped_address};
pub use relay::{Relay, RelayOutput, RelayServer};

use std::net::SocketAddr;

/// The two clocks at one moment: the crate wants the system's, and reads none.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Ours.
    pub now: crate::core::Instant,
    /// The system's monotonic one.
    pub system: std::time::Instant,
}

impl Clocks {
    fn system(self, at: crate::core::Instant) -> std::time::Instant {
        self.system + at.since(self.now)
    }

    fn ours(self, at: std::time::Instant) -> crate::core::Instant {
        self.now + at.saturating_duration_since(self.system)
    }
}

/// The way that a call's media take, for whoever carries its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Address of the socket that they leave by.
    pub socket: SocketAddr,
    /// The other end's.
    pub remote: SocketAddr,
    /// Through a relay of ours: its address, and the channel that stands for `remote` (RFC 8656 section 12).
    pub relay: Option<(SocketAddr, u16)>,
}

/// A datagram that leaves by one of our addresses: a socket's, or one of a relay's that is ours for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The socket's address, or the relayed one.
    pub local: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// All of it.
    pub bytes: Vec<u8>,
}
