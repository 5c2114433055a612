//! Opus by `ropus`: pure Rust, nothing to install.
//!
//! A fault of the port shows as a panic where the C library would overrun memory. A panic must not end
//! the media thread because of what a stranger sent: it is caught here and the decoder starts afresh.

use ropus::{Application, Bitrate, Channels, DecodeMode, InbandFec, Signal};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a caught panic is reported as (`OPUS_INTERNAL_ERROR`).
const INTERNAL: i32 = -3;
const RATE: u32 = 48_000;

pub(super) fn name() -> &'static str {
    "ropus 0.12"
}

pub(super) struct RawEncoder(ropus::Encoder);

impl RawEncoder {
    pub(super) fn new(bitrate: i32, expected_loss: u8) -> Result<Self, i32> {
        ropus::Encoder::builder(RATE, Channels::Mono, Application::Voip)
            .bitrate(Bitrate::Bits(bitrate.unsigned_abs()))
            .signal(Signal::Voice)
            .inband_fec(InbandFec::Enabled)
            .packet_loss_perc(expected_loss)
            .dtx(false)
            .build()
            .map(RawEncoder)
            .map_err(|_| INTERNAL)
    }

    pub(super) fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, i32> {
        catch_unwind(AssertUnwindSafe(|| self.0.encode(pcm, out))).map_or(Err(INTERNAL), |r| r.map_err(|_| INTERNAL))
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        // Refused only above 100, which the caller excludes.
        let _ = self.0.set_packet_loss_perc(percent);
    }
}

pub(super) struct RawDecoder(ropus::Decoder);

impl RawDecoder {
    pub(super) fn new() -> Result<Self, i32> {
        ropus::Decoder::new(RATE, Channels::Mono).map(RawDecoder).map_err(|_| INTERNAL)
    }

    pub(super) fn decode(&mut self, input: Option<&[u8]>, out: &mut [i16], redundancy: bool) -> Result<usize, i32> {
        let mode = if redundancy { DecodeMode::Fec } else { DecodeMode::Normal };
        match catch_unwind(AssertUnwindSafe(|| self.0.decode(input.unwrap_or_default(), out, mode))) {
            Ok(result) => result.map_err(|_| INTERNAL),
            Err(_) => {
                *self = RawDecoder::new()?;
                Err(INTERNAL)
            }
        }
    }
}
