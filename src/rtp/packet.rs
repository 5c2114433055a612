//! One RTP data packet (RFC 3550 section 5.1).

use super::RtpError;
use bytes::{BufMut, Bytes, BytesMut};
use webrtc_util::marshal::{Marshal, Unmarshal};

const FIXED: usize = 12;

/// The fields of an RTP data packet that a phone uses. CSRCs, header extensions and padding are
/// checked and dropped when parsing and never written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Marker: the first packet of a talk spurt (RFC 3551 section 4.1), or of a telephone-event.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number; wraps.
    pub sequence: u16,
    /// Sampling instant of the first sample, in ticks of the codec's clock; wraps.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// The payload, without padding; may be empty.
    pub payload: Bytes,
}

impl Packet {
    /// Reads one datagram. Fails on anything that RFC 3550 section A.1 tells to discard.
    pub fn parse(datagram: &[u8]) -> Result<Packet, RtpError> {
        let fixed = datagram.get(..FIXED).ok_or(RtpError::Short)?;
        if fixed[0] >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut start = FIXED + usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] & 0x10 != 0 {
            let header = datagram.get(start..start + 4).ok_or(RtpError::Short)?;
            start += 4 + usize::from(u16::from_be_bytes([header[2], header[3]])) * 4;
        }
        let mut payload = datagram.get(start..).ok_or(RtpError::Short)?;
        if fixed[0] & 0x20 != 0 {
            let count = usize::from(*payload.last().ok_or(RtpError::Padding)?);
            if count == 0 || count > payload.len() {
                return Err(RtpError::Padding);
            }
            payload = &payload[..payload.len() - count];
        }
        // What is left is a plain header and a payload, the one shape in which the crate cannot go astray.
        let mut plain = BytesMut::with_capacity(FIXED + payload.len());
        plain.put_u8(0x80);
        plain.put_slice(&fixed[1..]);
        plain.put_slice(payload);
        let parsed =
            rtp::packet::Packet::unmarshal(&mut plain.freeze()).map_err(|_| RtpError::Malformed("RTP header"))?;
        Ok(Packet {
            marker: parsed.header.marker,
            payload_type: parsed.header.payload_type,
            sequence: parsed.header.sequence_number,
            timestamp: parsed.header.timestamp,
            ssrc: parsed.header.ssrc,
            payload: parsed.payload,
        })
    }

    /// Writes the datagram.
    pub fn to_bytes(&self) -> Bytes {
        let packet = rtp::packet::Packet {
            header: rtp::header::Header {
                version: 2,
                marker: self.marker,
                payload_type: self.payload_type & 0x7f,
                sequence_number: self.sequence,
                timestamp: self.timestamp,
                ssrc: self.ssrc,
                ..Default::default()
            },
            payload: self.payload.clone(),
        };
        // Writing fails only where the buffer is too small, and `marshal` sizes its own.
        packet.marshal().unwrap_or_default()
    }
}
