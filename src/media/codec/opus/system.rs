//! Opus by the distribution's shared libopus, through `audiopus`.

use audiopus::coder::{Decoder, Encoder};
use audiopus::packet::Packet;
use audiopus::{Application, Bitrate, Channels, MutSignals, SampleRate, Signal};

/// What an error without a number of its own is reported as (`OPUS_INTERNAL_ERROR`).
const INTERNAL: i32 = -3;

pub(super) fn name() -> &'static str {
    audiopus::version()
}

pub(super) struct RawEncoder(Encoder);

impl RawEncoder {
    pub(super) fn new(bitrate: i32, expected_loss: u8) -> Result<Self, i32> {
        let mut encoder = Encoder::new(SampleRate::Hz48000, Channels::Mono, Application::Voip).map_err(number)?;
        encoder.set_bitrate(Bitrate::BitsPerSecond(bitrate)).map_err(number)?;
        encoder.set_signal(Signal::Voice).map_err(number)?;
        encoder.set_inband_fec(true).map_err(number)?;
        encoder.set_dtx(false).map_err(number)?;
        encoder.set_packet_loss_perc(expected_loss).map_err(number)?;
        Ok(RawEncoder(encoder))
    }

    pub(super) fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, i32> {
        self.0.encode(pcm, out).map_err(number)
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        // Refused only above 100, which the caller excludes.
        let _ = self.0.set_packet_loss_perc(percent);
    }
}

pub(super) struct RawDecoder(Decoder);

impl RawDecoder {
    pub(super) fn new() -> Result<Self, i32> {
        Decoder::new(SampleRate::Hz48000, Channels::Mono).map(RawDecoder).map_err(number)
    }

    pub(super) fn decode(&mut self, input: Option<&[u8]>, out: &mut [i16], redundancy: bool) -> Result<usize, i32> {
        let packet = input.map(Packet::try_from).transpose().map_err(number)?;
        let signals = MutSignals::try_from(out).map_err(number)?;
        self.0.decode(packet, signals, redundancy).map_err(number)
    }
}

fn number(error: audiopus::Error) -> i32 {
    match error {
        audiopus::Error::Opus(code) => code as i32,
        _ => INTERNAL,
    }
}
