//! What came to a socket that several protocols share (RFC 7983 section 7, RFC 9443 section 3, RFC 5761 section 4).

/// A protocol, by the first bytes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// STUN, TURN's control messages included; the magic cookie was there.
    Stun,
    /// ZRTP, which nobody here speaks.
    Zrtp,
    /// DTLS.
    Dtls,
    /// TURN ChannelData where it comes from a TURN server in use, else a QUIC short header: the source tells.
    ChannelOrQuic,
    /// QUIC.
    Quic,
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// None of these, or too short to be one.
    Unknown,
}

/// What `datagram` is. Only the kind: whether it is well formed is for whoever gets it.
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [0..=3, ..] if datagram.get(4..8) == Some(&super::message::COOKIE) && datagram.len() >= 20 => Kind::Stun,
        [16..=19, ..] => Kind::Zrtp,
        [20..=63, ..] => Kind::Dtls,
        [64..=79, ..] => Kind::ChannelOrQuic,
        [80..=127, ..] | [192..=255, ..] => Kind::Quic,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}
