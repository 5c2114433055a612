//! RTP and RTCP packets (RFC 3550 sections 5 and 6) and telephone-event payloads (RFC 4733), bytes to
//! values and back. Pure codecs: no state, no clock.
//!
//! The field layout is the work of the crates `rtp` and `rtcp`, which no other module names. They
//! trust what they are given further than a stranger deserves (an extension element that overruns its
//! header panics), so every packet is checked here first, and what we have no use for is cut off.
//!
//! Left out: the contents of header extensions (RFC 8285: skipped, nothing we negotiate uses one),
//! CSRC lists (skipped), RTCP APP, XR and feedback packets (kept as [`rtcp::Control::Other`], unread),
//! encryption (SRTP is a layer above these bytes).

pub mod event;
mod packet;
pub mod rtcp;
#[cfg(test)]
mod tests;

pub use packet::Packet;

/// Why bytes from the network are not RTP or RTCP. Always the sender's fault: drop and count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RtpError {
    /// Fewer bytes than the headers announce.
    #[error("packet is shorter than its headers say")]
    Short,
    /// The version field is not 2.
    #[error("not version 2")]
    Version,
    /// The padding count is zero or larger than what it pads.
    #[error("padding is longer than the payload")]
    Padding,
    /// A compound packet that does not begin with a report (RFC 3550 section 6.1).
    #[error("compound packet does not begin with a report")]
    NoReport,
    /// A field contradicts another.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// True when a datagram on a shared port is RTCP and not RTP (RFC 5761 section 4: second byte 192 to 223).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram.get(1), Some(192..=223))
}
