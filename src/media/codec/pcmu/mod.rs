//! PCMU: G.711 mu-law (ITU-T G.711; RFC 3551 section 4.5.14), payload type 0.

use super::Codec;
use super::g711::{self, Law};

/// The row of the registry.
pub const CODEC: Codec = Codec {
    name: "PCMU",
    static_payload_type: Some(0),
    encoder: || Ok(Box::new(g711::G711Encoder(LAW))),
    decoder: || Ok(Box::new(g711::G711Decoder::new(LAW))),
    ..g711::SHAPE
};

pub(super) const LAW: Law = Law { encode, decode };

/// One sample to one octet. The 14 upper bits count; magnitudes saturate at 8158.
pub fn encode(sample: i16) -> u8 {
    let magnitude = (if sample < 0 { !sample } else { sample }) >> 2;
    let biased = (magnitude as u16 + 33).min(0x1fff);
    // The segment is where the highest bit stands above the six of the first segment.
    let segment = 10 - biased.leading_zeros() as u16;
    let step = (biased >> (segment + 1)) & 0x0f;
    let sign = if sample < 0 { 0 } else { 0x80 };
    sign | !(segment << 4 | step) as u8 & 0x7f
}

/// One octet to one sample.
pub fn decode(octet: u8) -> i16 {
    let bits = !octet;
    let segment = u32::from(bits >> 4 & 7);
    let magnitude = (((i32::from(bits & 0x0f) << 1) + 33) << segment) - 33;
    let sample = (magnitude << 2) as i16;
    if bits & 0x80 != 0 { -sample } else { sample }
}
