//! Whose packets a call takes, and where it sends its own.
//!
//! SDP names an address. The first source that sends valid voice is kept: the named address by its first
//! packet, another one (a phone behind a NAT does not know what address it is seen under, RFC 4961) by two
//! packets in sequence under one SSRC. From then on all other sources are strangers until signalling
//! agrees on something new, so that nobody can take a call over in its middle; whoever guesses the port before
//! the first packet can, which only media encryption prevents. Voice is sent to where it comes from, RTCP beside it.

use crate::rtp::Packet;
use std::net::SocketAddr;

/// Addresses of the other end, as SDP said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Where it wants RTP.
    pub rtp: SocketAddr,
    /// Where it wants RTCP (`a=rtcp`, or the next port).
    pub rtcp: SocketAddr,
    /// RTCP shares the RTP port (RFC 5761, agreed by both).
    pub rtcp_mux: bool,
}

/// See the module. One for each call.
pub struct Latch {
    agreed: Remote,
    kept: Option<SocketAddr>,
    candidate: Option<(SocketAddr, u32, u16)>,
}

impl Latch {
    /// Open for the first source.
    pub fn new(agreed: Remote) -> Self {
        Latch { agreed, kept: None, candidate: None }
    }

    /// Whether to take this datagram from the RTP port. `expected` tells which payload types were agreed.
    pub fn admit_rtp(&mut self, from: SocketAddr, datagram: &[u8], expected: impl Fn(u8) -> bool) -> bool {
        if let Some(kept) = self.kept {
            return from == kept;
        }
        let Ok(packet) = Packet::parse(datagram) else { return false };
        if !expected(packet.payload_type) {
            return false;
        }
        let proof = (from, packet.ssrc, packet.sequence);
        if from == self.agreed.rtp || self.candidate == Some(proof) {
            self.kept = Some(from);
            return true;
        }
        self.candidate = Some((from, packet.ssrc, packet.sequence.wrapping_add(1)));
        false
    }

    /// A packet from there was authentic: voice goes there from now on, and comes from there.
    pub fn follow(&mut self, from: SocketAddr) {
        self.kept = Some(from);
    }

    /// Whether to take an RTCP datagram: only from the host that the voice comes from or should come from.
    pub fn admit_rtcp(&self, from: SocketAddr) -> bool {
        if self.agreed.rtcp_mux {
            return from == self.rtp();
        }
        from == self.agreed.rtcp || from.ip() == self.rtp().ip()
    }

    /// Where voice goes.
    pub fn rtp(&self) -> SocketAddr {
        self.kept.unwrap_or(self.agreed.rtp)
    }

    /// Where RTCP goes.
    pub fn rtcp(&self) -> SocketAddr {
        match self.kept {
            _ if self.agreed.rtcp_mux => self.rtp(),
            Some(kept) if kept != self.agreed.rtp => SocketAddr::new(kept.ip(), kept.port().saturating_add(1)),
            _ => self.agreed.rtcp,
        }
    }

    /// What SDP said.
    pub fn agreed(&self) -> Remote {
        self.agreed
    }

    /// The source that is kept, once there is one.
    pub fn kept(&self) -> Option<SocketAddr> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn voice(ssrc: u32, sequence: u16) -> Bytes {
        Packet { ssrc, sequence, payload: Bytes::from_static(b"x"), ..Packet::default() }.to_bytes()
    }

    fn latch() -> Latch {
        Latch::new(Remote { rtp: at(4000), rtcp: at(4001), rtcp_mux: false })
    }

    #[test]
    fn the_agreed_address_is_taken_at_once_and_then_alone() {
        let mut latch = latch();
        assert!(latch.admit_rtp(at(4000), &voice(1, 9), |_| true));
        assert!(!latch.admit_rtp(at(5000), &voice(1, 10), |_| true));
        assert!(!latch.admit_rtp(at(5000), &voice(1, 11), |_| true));
        assert_eq!((latch.rtp(), latch.rtcp()), (at(4000), at(4001)));
    }

    #[test]
    fn another_source_needs_two_packets_in_sequence() {
        let mut latch = latch();
        assert!(!latch.admit_rtp(at(5000), &voice(1, 65535), |_| true));
        assert!(!latch.admit_rtp(at(5000), &voice(2, 0), |_| true), "another SSRC proves nothing");
        assert!(!latch.admit_rtp(at(5000), b"junk", |_| true));
        assert!(!latch.admit_rtp(at(5000), &voice(2, 1), |_| false), "a payload type nobody agreed to");
        assert!(latch.admit_rtp(at(5000), &voice(2, 1), |_| true));
        assert!(!latch.admit_rtp(at(4000), &voice(1, 1), |_| true), "locked");
        assert_eq!((latch.rtp(), latch.rtcp(), latch.kept()), (at(5000), at(5001), Some(at(5000))));
    }

    #[test]
    fn rtcp_comes_from_the_host_of_the_voice() {
        let mut latch = latch();
        assert!(latch.admit_rtcp(at(4001)) && latch.admit_rtcp(at(999)));
        assert!(!latch.admit_rtcp(SocketAddr::from(([127, 0, 0, 2], 4001))));
        latch.agreed.rtcp_mux = true;
        assert!(latch.admit_rtcp(at(4000)) && !latch.admit_rtcp(at(4001)));
        assert_eq!(latch.rtcp(), at(4000));
    }
}
