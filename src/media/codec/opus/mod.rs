//! Opus (RFC 6716) in RTP (RFC 7587): 48 kHz mono, 20 ms, 32 kbit/s, in-band redundancy (LBRR) on, DTX off.
//!
//! The codec itself is one of three libraries, chosen by feature: `libopus` (built from source) before
//! `system-opus` (the distribution's) before `ropus` (pure Rust). Each sits in one file behind the same
//! two types. Left out: deep concealment and DRED, which only `libopus` has, and stretching; they belong to the concealment in the playout.

#[cfg(feature = "libopus")]
#[path = "libopus.rs"]
mod engine;
#[cfg(all(feature = "system-opus", not(feature = "libopus")))]
#[path = "system.rs"]
mod engine;
#[cfg(all(feature = "ropus", not(feature = "libopus"), not(feature = "system-opus")))]
#[path = "ropus.rs"]
mod engine;

use super::{Codec, CodecError, Decoder, Encoder};

/// The row of the registry.
pub const CODEC: Codec = Codec {
    name: "opus",
    clock_rate: RATE,
    sample_rate: RATE,
    channels: 2,
    static_payload_type: None,
    fmtp: "useinbandfec=1",
    redundancy: true,
    ptimes: &[10, 20, 40, 60],
    duration,
    encoder: || Ok(Box::new(OpusEncoder(engine::RawEncoder::new(BITRATE, EXPECTED_LOSS).map_err(library)?))),
    decoder: || Ok(Box::new(OpusDecoder(engine::RawDecoder::new().map_err(library)?))),
};

const RATE: u32 = 48_000;
const BITRATE: i32 = 32_000;
/// Percent, until the first receiver report says what the path is like.
const EXPECTED_LOSS: u8 = 5;
/// 120 ms, the longest that one packet may hold.
const LONGEST: usize = 5760;
/// The codec never makes a frame larger than 1275 bytes (RFC 6716 section 3.2.1).
const LARGEST: usize = 1275;
const FRAME_LENGTHS: [usize; 4] = [480, 960, 1920, 2880];

/// Name and version of the library that is built in.
pub fn engine_name() -> &'static str {
    engine::name()
}

/// Duration of a packet in samples at 48 kHz, from its first bytes (RFC 6716 section 3.1).
pub fn duration(payload: &[u8]) -> Option<u32> {
    let toc = *payload.first()?;
    let configuration = usize::from(toc >> 3);
    let frame = match configuration {
        0..=11 => [480, 960, 1920, 2880][configuration & 3],
        12..=15 => [480, 960][configuration & 1],
        _ => [120, 240, 480, 960][configuration & 3],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(payload.get(1)? & 0x3f),
    };
    let total = frame * frames;
    (1..=LONGEST as u32).contains(&total).then_some(total)
}

struct OpusEncoder(engine::RawEncoder);

impl Encoder for OpusEncoder {
    fn encode(&mut self, pcm: &[i16], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if !FRAME_LENGTHS.contains(&pcm.len()) {
            return Err(CodecError::FrameLength { codec: "opus", samples: pcm.len() });
        }
        let start = out.len();
        out.resize(start + LARGEST, 0);
        let result = self.0.encode(pcm, &mut out[start..]);
        out.truncate(start + result.unwrap_or_default());
        result.map(|_| ()).map_err(library)
    }

    fn set_expected_loss(&mut self, percent: u8) {
        self.0.set_expected_loss(percent.min(100));
    }
}

struct OpusDecoder(engine::RawDecoder);

impl OpusDecoder {
    /// Runs the library over `input` (none: concealment) for at most `room` samples.
    fn run(&mut self, input: Option<&[u8]>, redundancy: bool, room: usize, pcm: &mut Vec<i16>) -> Result<usize, i32> {
        let start = pcm.len();
        pcm.resize(start + room, 0);
        let result = self.0.decode(input, &mut pcm[start..], redundancy);
        pcm.truncate(start + result.unwrap_or_default().min(room));
        result
    }
}

impl Decoder for OpusDecoder {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) -> Result<(), CodecError> {
        // The libraries take an empty packet for a lost one.
        if duration(payload).is_none() {
            return Err(CodecError::Payload { codec: "opus" });
        }
        self.run(Some(payload), false, LONGEST, pcm).map(|_| ()).map_err(|_| CodecError::Payload { codec: "opus" })
    }

    fn conceal(&mut self, samples: usize, next: Option<&[u8]>, pcm: &mut Vec<i16>) {
        let end = pcm.len() + samples;
        let redundancy = next.filter(|next| duration(next).is_some());
        while pcm.len() < end {
            // The libraries conceal whole steps of 2.5 ms, up to 120 ms in one go.
            let missing = end - pcm.len();
            let room = missing.next_multiple_of(120).min(LONGEST);
            // The copy in the next packet covers the frame directly before it: the last piece.
            let input = redundancy.filter(|_| room == missing && room <= 2880);
            if self.run(input, input.is_some(), room, pcm).unwrap_or_default() == 0 {
                break;
            }
        }
        pcm.resize(end, 0);
    }
}

fn library(code: i32) -> CodecError {
    CodecError::Library { codec: "opus", code }
}
