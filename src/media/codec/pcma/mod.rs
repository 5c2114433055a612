//! PCMA: G.711 A-law (ITU-T G.711; RFC 3551 section 4.5.14), payload type 8.

use super::Codec;
use super::g711::{self, Law};

/// The row of the registry.
pub const CODEC: Codec = Codec {
    name: "PCMA",
    static_payload_type: Some(8),
    encoder: || Ok(Box::new(g711::G711Encoder(LAW))),
    decoder: || Ok(Box::new(g711::G711Decoder::new(LAW))),
    ..g711::SHAPE
};

pub(super) const LAW: Law = Law { encode, decode };

/// One sample to one octet. The 13 upper bits count.
pub fn encode(sample: i16) -> u8 {
    let magnitude = ((if sample < 0 { !sample } else { sample }) >> 4) as u16;
    let code = if magnitude < 32 {
        magnitude
    } else {
        let segment = 11 - magnitude.leading_zeros() as u16 + 1;
        segment << 4 | (magnitude >> (segment - 1)) & 0x0f
    };
    let sign = if sample < 0 { 0 } else { 0x80 };
    (sign | code as u8) ^ 0x55
}

/// One octet to one sample.
pub fn decode(octet: u8) -> i16 {
    let bits = octet ^ 0x55;
    let segment = bits >> 4 & 7;
    // The middle of the step: half a step is added to what the bits say.
    let step = (i16::from(bits & 0x0f) << 4) + 8;
    let magnitude = if segment == 0 { step } else { (step + 0x100) << (segment - 1) };
    if bits & 0x80 != 0 { magnitude } else { -magnitude }
}
